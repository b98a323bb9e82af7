/* half.h - the two 16-bit floats as float32; both conversions are exact. */
#ifndef CLLM_HALF_H
#define CLLM_HALF_H

#include <stdint.h>
#include <string.h>

/* bfloat16 is the upper half of a float32. */
static inline float cllm_float_from_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16. The exponent and fraction are moved into place, and multiplying by 2^112 corrects the bias: that is exact,
 * also for subnormals, because every binary16 is a normal float32. Inf and NaN have exponent 31 and get 255 instead. */
static inline float cllm_float_from_f16(uint16_t half)
{
    uint32_t bits = (uint32_t)(half & 0x7FFF) << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    memcpy(&bits, &value, sizeof bits);
    if ((half & 0x7C00) == 0x7C00) bits |= 0x7F800000;
    bits |= (uint32_t)(half & 0x8000) << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif

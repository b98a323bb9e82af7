/* scaled.h - elements that are levels times a scale, rounded: what encoder and decoders must agree on (FORMAT.md 12).
 *
 * All functions are pure and may be called from any thread. Arithmetic is IEEE 754 binary32, rounding to nearest, ties to even;
 * nothing may flush subnormal numbers to zero or contract operations.
 */
#ifndef CLLM_SCALED_H
#define CLLM_SCALED_H

#include "codec.h"

#include <string.h>

/* What the elements are. */
enum cllm_scaled_type { CLLM_SCALED_NONE = 0, CLLM_SCALED_BF16 = 1, CLLM_SCALED_F16 = 2, CLLM_SCALED_F32 = 3 };

/* How scales are stored. */
enum cllm_scale_type { CLLM_SCALE_F32 = 0, CLLM_SCALE_F16 = 1 };

CLLM_HOST_DEVICE uint32_t cllm_scaled_element_bytes(enum cllm_scaled_type type)
{
    return type == CLLM_SCALED_F32 ? 4 : 2;
}

#define CLLM_SCALED_GROUP_LOG2_MIN 5u
#define CLLM_SCALED_GROUP_LOG2_MAX 15u

/* The head of a scaled chunk; behind it follow the levels as a float chunk of float_bytes, and the scales. */
struct cllm_scaled_head {
    uint32_t float_bytes;
    uint8_t type;       /* enum cllm_scaled_type */
    uint8_t scale_type; /* enum cllm_scale_type */
    uint8_t group_log2; /* elements that share a scale, as a power of two; the last ones may be fewer */
};

CLLM_HOST_DEVICE uint32_t cllm_scaled_group_count(const struct cllm_scaled_head *head, uint32_t element_count)
{
    return (uint32_t)(((uint64_t)element_count + (1u << head->group_log2) - 1) >> head->group_log2);
}

CLLM_HOST_DEVICE uint32_t cllm_scale_bytes(const struct cllm_scaled_head *head)
{
    return head->scale_type == CLLM_SCALE_F16 ? 2 : 4;
}

/* Whether the parts of a scaled chunk fill its bytes and are of sizes that there can be. */
CLLM_HOST_DEVICE bool cllm_scaled_head_fits(const struct cllm_scaled_head *head, uint32_t element_bytes, uint32_t element_count,
                                            uint32_t stored_bytes)
{
    if (head->type == CLLM_SCALED_NONE || head->type > CLLM_SCALED_F32) return false;
    if (element_bytes != cllm_scaled_element_bytes((enum cllm_scaled_type)head->type)) return false;
    if (head->scale_type > CLLM_SCALE_F16) return false;
    if (head->group_log2 < CLLM_SCALED_GROUP_LOG2_MIN || head->group_log2 > CLLM_SCALED_GROUP_LOG2_MAX) return false;
    const uint64_t scales = (uint64_t)cllm_scaled_group_count(head, element_count) * cllm_scale_bytes(head);
    return (uint64_t)CLLM_SCALED_HEAD_BYTES + head->float_bytes + scales == stored_bytes;
}

CLLM_HOST_DEVICE uint32_t cllm_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

CLLM_HOST_DEVICE float cllm_float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Rounded once: the compilers of kernels would make one operation of a product and a sum. */
CLLM_HOST_DEVICE float cllm_multiply(float a, float b)
{
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

/* Not for infinities and NaN, which scales are not. */
CLLM_HOST_DEVICE float cllm_scale_of_f16(uint16_t half)
{
    return cllm_float_of_bits((uint32_t)(half & 0x7FFF) << 13) * 0x1p112f; /* exact: the exponents' biases differ by 112 */
}

/* A number that is not NaN, rounded to BF16. */
CLLM_HOST_DEVICE uint16_t cllm_round_to_bf16(float value)
{
    const uint32_t bits = cllm_float_bits(value);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* The same to binary16. Below 2^-14 its numbers are 2^-24 apart, as those of binary32 are from 0.5 to 1. */
CLLM_HOST_DEVICE uint16_t cllm_round_to_f16(float value)
{
    const uint32_t sign = cllm_float_bits(value) >> 16 & 0x8000, bits = cllm_float_bits(value) & 0x7FFFFFFF;
    if (bits >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* 65520, half way to 2^16 */
    if (bits < 0x38800000) return (uint16_t)(sign | (cllm_float_bits(cllm_float_of_bits(bits) + 0.5f) - 0x3F000000));
    return (uint16_t)(sign | (((bits + 0xFFF + (bits >> 13 & 1)) >> 13) - (112 << 10)));
}

/* The exponent of infinities and NaN. */
CLLM_HOST_DEVICE uint32_t cllm_scaled_infinity(enum cllm_scaled_type type)
{
    return type == CLLM_SCALED_F32 ? 0x7F800000 : type == CLLM_SCALED_F16 ? 0x7C00 : 0x7F80;
}

/* A number rounded to an element. */
CLLM_HOST_DEVICE uint32_t cllm_scaled_round(enum cllm_scaled_type type, float value)
{
    if (type == CLLM_SCALED_F32) return cllm_float_bits(value);
    return type == CLLM_SCALED_F16 ? cllm_round_to_f16(value) : cllm_round_to_bf16(value);
}

/* The element that a level, itself one, times a scale is. Infinities and NaN stand for themselves. */
CLLM_HOST_DEVICE uint32_t cllm_scaled_element(enum cllm_scaled_type type, uint32_t level, float scale)
{
    const uint32_t infinity = cllm_scaled_infinity(type);
    if ((level & infinity) == infinity) return level;
    if (type == CLLM_SCALED_F32) return cllm_float_bits(cllm_multiply(cllm_float_of_bits(level), scale));
    if (type == CLLM_SCALED_BF16) return cllm_round_to_bf16(cllm_multiply(cllm_float_of_bits(level << 16), scale));
    const float magnitude = cllm_scale_of_f16((uint16_t)level); /* without the sign */
    return cllm_round_to_f16(cllm_multiply(level >> 15 ? -magnitude : magnitude, scale));
}

#endif

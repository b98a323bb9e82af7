/* gaussian.h - weights for benches: bytes that trained ones resemble, as their exponents have the same entropy. */
#ifndef BENCH_GAUSSIAN_H
#define BENCH_GAUSSIAN_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Splitmix64 and Box-Muller. */
static inline float next_gaussian(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    double radius = sqrt(-2 * log(((double)(z >> 32) + 1) / 4294967297.0));
    return (float)(0.02 * radius * cos(6.283185307179586 * (double)(z & 0xFFFFFFFF) / 4294967296.0));
}

/* Rounded to nearest even; for values below 65504. */
static inline uint16_t half_of(float value, uint32_t bits)
{
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (fabsf(value) < 6.103515625e-05f) return (uint16_t)(sign | (uint16_t)lrintf(fabsf(value) * 16777216));
    bits = (bits & 0x7FFFFFFF) + 0xFFF + (bits >> 13 & 1);
    return (uint16_t)(sign | (uint16_t)((bits >> 13) - (112u << 10)));
}

/* F32 whose lower half is zero, as cpack finds it in checkpoints that were BF16 once. */
#define F32_OF_BF16 "F32 of BF16"
/* Every other one zero, by chance, as after pruning. */
#define SPARSE_BF16 "BF16 pruned"

/* Quantised to 4 or 8 bits with a scale for each 128, and written as BF16 again. */
#define BF16_OF_4_BITS "BF16 of 4 bits"
#define BF16_OF_8_BITS "BF16 of 8 bits"
#define QUANTISED_GROUP 128u

static inline uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Numbers up to `greatest` times scales that are BF16. */
static inline void fill_quantised(uint8_t *bytes, size_t byte_count, float greatest)
{
    uint64_t state = 1;
    for (size_t first = 0; first < byte_count / 2; first += QUANTISED_GROUP) {
        float values[QUANTISED_GROUP], most = 0, scale;
        for (size_t i = 0; i < QUANTISED_GROUP; i++) {
            values[i] = next_gaussian(&state);
            most = fmaxf(most, fabsf(values[i]));
        }
        const uint32_t scale_bits = (uint32_t)bf16_of(most / greatest) << 16;
        memcpy(&scale, &scale_bits, sizeof scale);
        for (size_t i = 0; i < QUANTISED_GROUP; i++) {
            const uint16_t element = bf16_of(rintf(values[i] / scale) * scale);
            memcpy(bytes + 2 * (first + i), &element, sizeof element);
        }
    }
}

/* dtype: BF16, F16, F32, or one of the above. The same bytes each time. */
static inline void fill_gaussian(uint8_t *bytes, size_t byte_count, const char *dtype)
{
    if (strcmp(dtype, BF16_OF_4_BITS) == 0 || strcmp(dtype, BF16_OF_8_BITS) == 0) {
        fill_quantised(bytes, byte_count, strcmp(dtype, BF16_OF_4_BITS) == 0 ? 7 : 127);
        return;
    }
    const size_t element_bytes = dtype[0] == 'F' && dtype[1] == '3' ? 4 : 2;
    uint64_t state = 1;
    for (size_t i = 0; i < byte_count / element_bytes; i++) {
        const float value = next_gaussian(&state);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        const bool is_pruned = bits & 1; /* a bit that is rounded away */
        if (strncmp(dtype, "BF16", 4) == 0) bits = bf16_of(value);
        if (strcmp(dtype, F32_OF_BF16) == 0) bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
        if (strcmp(dtype, "F16") == 0) bits = half_of(value, bits);
        if (strcmp(dtype, SPARSE_BF16) == 0 && is_pruned) bits = 0;
        memcpy(bytes + i * element_bytes, &bits, element_bytes); /* the host is little-endian */
    }
}

#endif

/* mkmodel_gauss.c - normal numbers at gigabytes per second: a counter-based generator and a table of quantiles.
 *
 * 16 bits make an element: a sign and one of 32768 slices of the half-normal distribution that are equally likely; a BF16 element
 * is the middle of its slice. Only where slices are coarse (next to zero, where each spans several exponents, and in the tail,
 * which has no end) is a point within the slice drawn, so that rare exponents are as frequent as they should be.
 */
#include "mkmodel.h"

#include "bytes.h"

#include <math.h>

#define FINE_SLICES 64 /* next to zero */

static const double flat_slope = 1.2533141373155003; /* sqrt(pi / 2): of the inverse distribution at zero */

/* ------------------------------------------------------------------------------------------------- random numbers */

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014) over a counter. */
static uint64_t random_at(uint64_t key, uint64_t counter)
{
    uint64_t z = key + (counter + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

uint64_t gauss_key(uint64_t seed, const char *name)
{
    uint64_t key = random_at(seed, 0);
    for (const char *p = name; *p; p++) key = random_at(key ^ (uint8_t)*p, 1);
    return key;
}

/* ---------------------------------------------------------------------------------------------------- distribution */

/* The x that a half-normal number exceeds with probability `above`; Newton's method from `x`, below the result. */
static double exceeded_with(double above, double x)
{
    for (int i = 0; i < 60; i++) {
        const double step = (erfc(x * M_SQRT1_2) - above) / (exp(-0.5 * x * x) / flat_slope);
        x += step;
        if (fabs(step) < 1e-9 * (x + 1e-9)) break;
    }
    return x;
}

void gauss_prepare(struct gauss_table *table)
{
    double x = 0;
    for (int i = 0; i < GAUSS_SLICES; i++) {
        x = i ? exceeded_with(1 - (double)i / GAUSS_SLICES, x) : 0;
        table->edge[i] = (float)x;
    }
    table->edge[GAUSS_SLICES] = (float)x;
}

/* The magnitude of a point of the slice; `part`, from 0 to below 1, says where. */
static float point_of(const struct gauss_table *table, unsigned slice, double part)
{
    if (slice < FINE_SLICES) return (float)((slice + part) / GAUSS_SLICES * flat_slope);
    if (slice == GAUSS_SLICES - 1) return (float)exceeded_with((1 - part) / GAUSS_SLICES, table->edge[slice]);
    return table->edge[slice] + (float)part * (table->edge[slice + 1] - table->edge[slice]);
}

/* --------------------------------------------------------------------------------------------------------- elements */

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Rounds to nearest, ties to even. */
static uint16_t to_bf16(float value)
{
    const uint32_t bits = bits_of(value);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* The same; values are far below the largest F16. */
static uint16_t to_f16(float value)
{
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude < 0x38800000) return (uint16_t)(sign | (uint32_t)lrintf(fabsf(value) * 0x1p24f)); /* denormal */
    const uint32_t rounded = (magnitude + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    return (uint16_t)(sign | (rounded - (112 << 10))); /* the difference of the biases */
}

static float element_at(const struct gauss_table *table, const struct gauss_sequence *sequence, uint64_t index)
{
    const unsigned draw = (unsigned)(random_at(sequence->key, index / 4) >> 16 * (index % 4)) & 0xFFFF;
    const double part = (double)(random_at(~sequence->key, index) >> 11) * 0x1p-53;
    const float magnitude = point_of(table, draw & (GAUSS_SLICES - 1), part);
    return sequence->mean + sequence->sigma * (draw >> 15 ? -magnitude : magnitude);
}

static void fill_bf16(const struct gauss_table *table, const struct gauss_sequence *sequence, uint64_t first, size_t count,
                      uint8_t *out)
{
    uint16_t middles[GAUSS_SLICES];
    for (unsigned i = 0; i < GAUSS_SLICES; i++) middles[i] = to_bf16(sequence->sigma * point_of(table, i, 0.5));
    for (size_t i = 0; i < count; i += 4) {
        const uint64_t draws = random_at(sequence->key, (first + i) / 4);
        for (unsigned k = 0; k < 4 && i + k < count; k++) {
            const unsigned draw = (unsigned)(draws >> 16 * k) & 0xFFFF, slice = draw & (GAUSS_SLICES - 1);
            uint16_t element = (uint16_t)(middles[slice] | (draw & 0x8000));
            if (__builtin_expect(slice < FINE_SLICES || slice == GAUSS_SLICES - 1, 0)) {
                element = to_bf16(element_at(table, sequence, first + i + k));
            }
            cllm_store_le16(out + 2 * (i + k), element);
        }
    }
}

void gauss_fill(const struct gauss_table *table, const struct gauss_sequence *sequence, uint64_t first, size_t count,
                uint8_t *out)
{
    if (sequence->element == MODEL_BF16 && sequence->mean == 0) {
        fill_bf16(table, sequence, first, count, out);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const float value = element_at(table, sequence, first + i);
        switch (sequence->element) {
        case MODEL_BF16: cllm_store_le16(out + 2 * i, to_bf16(value)); break;
        case MODEL_F16: cllm_store_le16(out + 2 * i, to_f16(value)); break;
        default: cllm_store_le32(out + 4 * i, bits_of(value)); break;
        }
    }
}

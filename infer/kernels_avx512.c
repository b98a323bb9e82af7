/* kernels_avx512.c - the products with 16 lanes to a register.
 *
 * A block is a few rows times a few vectors whose sums all stay in registers. With one vector (generation) memory is the
 * limit: four rows give the adder enough independent sums. With several (a prompt) each converted weight is used four times
 * and each input too. Per 16 weights of a 4 x 4 block: 1/4 load of input, 1 load and conversion of weights (two instructions
 * for BF16, one for F16), 4 fused multiply-adds.
 */
#include "kernels_tiers.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES CLLM_KERNEL_LANES
#define INLINE static inline __attribute__((always_inline))

/* 16 weights from element `index` on; lanes that are not in `mask` are not read and become 0. */
typedef __m512 load_weights(const void *weights, size_t index, __mmask16 mask);

INLINE __m512 load_bf16(const void *weights, size_t index, __mmask16 mask)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)weights + index));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

INLINE __m512 load_f16(const void *weights, size_t index, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)weights + index));
}

INLINE __m512 load_f32(const void *weights, size_t index, __mmask16 mask)
{
    return _mm512_maskz_loadu_ps(mask, (const float *)weights + index);
}

/* The tree of halves. */
INLINE float add_lanes(__m512 lanes)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The rows from `row` and vectors from `vector` on that one block covers; the counts are compile-time constants, at most 4. */
struct block {
    size_t row;
    size_t vector;
    int row_count;
    int vector_count;
};

INLINE void add_columns(const struct cllm_product *product, struct block block, load_weights *load, size_t column, __mmask16 mask,
                        __m512 sums[4][4])
{
    __m512 weights[4];
#pragma GCC unroll 4
    for (int r = 0; r < block.row_count; r++) {
        weights[r] = load(product->weights, (block.row + (size_t)r) * product->weight_stride + column, mask);
    }
#pragma GCC unroll 4
    for (int v = 0; v < block.vector_count; v++) {
        const float *input = product->input + (block.vector + (size_t)v) * product->input_stride + column;
        __m512 inputs = _mm512_maskz_loadu_ps(mask, input);
#pragma GCC unroll 4
        for (int r = 0; r < block.row_count; r++) {
            sums[r][v] = _mm512_fmadd_ps(weights[r], inputs, sums[r][v]);
        }
    }
}

INLINE void multiply_block(const struct cllm_product *product, struct block block, load_weights *load)
{
    const size_t column_count = product->column_count;
    __m512 sums[4][4];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        sums[i / 4][i % 4] = _mm512_setzero_ps();
    }
    size_t column = 0;
    for (; column + LANES <= column_count; column += LANES) {
        add_columns(product, block, load, column, 0xFFFF, sums);
    }
    if (column < column_count) {
        add_columns(product, block, load, column, (__mmask16)((1u << (column_count - column)) - 1), sums);
    }
#pragma GCC unroll 4
    for (int r = 0; r < block.row_count; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < block.vector_count; v++) {
            float *output = product->output + (block.vector + (size_t)v) * product->output_stride;
            output[block.row + (size_t)r] = add_lanes(sums[r][v]);
        }
    }
}

/* All vectors for `row_count` rows. */
INLINE void multiply_strip(const struct cllm_product *product, size_t row, int row_count, load_weights *load)
{
    size_t vector = 0;
    for (; vector + 4 <= product->vector_count; vector += 4) {
        multiply_block(product, (struct block){row, vector, row_count, 4}, load);
    }
    for (; vector < product->vector_count; vector++) {
        multiply_block(product, (struct block){row, vector, row_count, 1}, load);
    }
}

INLINE void multiply_rows(const struct cllm_product *product, struct cllm_rows rows, load_weights *load)
{
    size_t row = rows.first;
    for (; row + 4 <= rows.end; row += 4) {
        multiply_strip(product, row, 4, load);
    }
    for (; row < rows.end; row++) {
        multiply_strip(product, row, 1, load);
    }
}

static void multiply_bf16(const struct cllm_product *product, struct cllm_rows rows)
{
    multiply_rows(product, rows, load_bf16);
}

static void multiply_f16(const struct cllm_product *product, struct cllm_rows rows)
{
    multiply_rows(product, rows, load_f16);
}

static void multiply_f32(const struct cllm_product *product, struct cllm_rows rows)
{
    multiply_rows(product, rows, load_f32);
}

const struct cllm_kernels cllm_kernels_avx512 = {
    "AVX-512",
    {[CLLM_WEIGHT_BF16] = multiply_bf16, [CLLM_WEIGHT_F16] = multiply_f16, [CLLM_WEIGHT_F32] = multiply_f32},
};
#else
typedef int cllm_not_for_this_processor; /* ISO C wants a declaration in every file */
#endif

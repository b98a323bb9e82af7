/* kernels_avx2.c - the products with two registers for the 16 lanes.
 *
 * As in kernels_avx512.c a block is a few rows times a few vectors, but sixteen registers hold fewer sums: 4 rows x 1 vector for
 * generation, 2 x 3 for a prompt. Per 8 weights of a 2 x 3 block: 1/2 load of input, 1 load and conversion of weights, 3 fused
 * multiply-adds.
 */
#include "kernels_tiers.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define LANES CLLM_KERNEL_LANES
#define INLINE static inline __attribute__((always_inline))

/* 8 weights from element `index` on. */
typedef __m256 load_weights(const void *weights, size_t index);

INLINE __m256 load_bf16(const void *weights, size_t index)
{
    __m128i narrow = _mm_loadu_si128((const __m128i_u *)((const uint16_t *)weights + index));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

INLINE __m256 load_f16(const void *weights, size_t index)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)((const uint16_t *)weights + index)));
}

INLINE __m256 load_f32(const void *weights, size_t index)
{
    return _mm256_loadu_ps((const float *)weights + index);
}

/* The tree of halves. */
INLINE float add_lanes(const __m256 lanes[2])
{
    __m256 eight = _mm256_add_ps(lanes[0], lanes[1]);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The rows from `row` and vectors from `vector` on that one block covers; the counts are compile-time constants, at most 4 and 3.
 */
struct block {
    size_t row;
    size_t vector;
    int row_count;
    int vector_count;
};

/* The columns of a block that are left when no 16 are: copies with zeros behind them, so that all lanes can be loaded. */
struct remainder {
    uint32_t weights[4][LANES];
    float inputs[3][LANES];
};

INLINE void add_lanes_half(struct block block, load_weights *load, const void *const rows[4], const float *const inputs[3],
                           size_t column, __m256 sums[4][3][2], const int half)
{
    __m256 weights[4];
#pragma GCC unroll 4
    for (int r = 0; r < block.row_count; r++) {
        weights[r] = load(rows[r], column);
    }
#pragma GCC unroll 4
    for (int v = 0; v < block.vector_count; v++) {
        __m256 input = _mm256_loadu_ps(inputs[v] + column);
#pragma GCC unroll 4
        for (int r = 0; r < block.row_count; r++) {
            sums[r][v][half] = _mm256_fmadd_ps(weights[r], input, sums[r][v][half]);
        }
    }
}

INLINE void add_columns(struct block block, load_weights *load, const void *const rows[4], const float *const inputs[3],
                        size_t column, __m256 sums[4][3][2])
{
    add_lanes_half(block, load, rows, inputs, column, sums, 0);
    add_lanes_half(block, load, rows, inputs, column + LANES / 2, sums, 1);
}

INLINE void add_remainder(struct block block, load_weights *load, const size_t element_bytes, const void *const rows[4],
                          const float *const inputs[3], struct cllm_rows columns, __m256 sums[4][3][2])
{
    struct remainder copy = {0};
    const void *copied_rows[4] = {copy.weights[0], copy.weights[1], copy.weights[2], copy.weights[3]};
    const float *copied_inputs[3] = {copy.inputs[0], copy.inputs[1], copy.inputs[2]};
    const size_t count = columns.end - columns.first;
    for (int r = 0; r < block.row_count; r++) {
        memcpy(copy.weights[r], (const uint8_t *)rows[r] + columns.first * element_bytes, count * element_bytes);
    }
    for (int v = 0; v < block.vector_count; v++) {
        memcpy(copy.inputs[v], inputs[v] + columns.first, count * sizeof(float));
    }
    add_columns(block, load, copied_rows, copied_inputs, 0, sums);
}

INLINE void multiply_block(const struct cllm_product *product, struct block block, load_weights *load, const size_t element_bytes)
{
    const size_t column_count = product->column_count;
    const void *rows[4] = {NULL};
    const float *inputs[3] = {NULL};
    __m256 sums[4][3][2];
#pragma GCC unroll 4
    for (int r = 0; r < block.row_count; r++) {
        rows[r] = (const uint8_t *)product->weights + (block.row + (size_t)r) * product->weight_stride * element_bytes;
    }
#pragma GCC unroll 4
    for (int v = 0; v < block.vector_count; v++) {
        inputs[v] = product->input + (block.vector + (size_t)v) * product->input_stride;
    }
#pragma GCC unroll 24
    for (int i = 0; i < 24; i++) {
        sums[i / 6][i / 2 % 3][i % 2] = _mm256_setzero_ps();
    }
    size_t column = 0;
    for (; column + LANES <= column_count; column += LANES) {
        add_columns(block, load, rows, inputs, column, sums);
    }
    if (column < column_count) {
        add_remainder(block, load, element_bytes, rows, inputs, (struct cllm_rows){column, column_count}, sums);
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

/* Vectors by three where there are as many, with two rows; the rest one by one, with four. */
INLINE void multiply_rows(const struct cllm_product *product, struct cllm_rows rows, load_weights *load,
                          const size_t element_bytes)
{
    const size_t by_three = product->vector_count / 3 * 3;
    for (size_t row = rows.first; row < rows.end;) {
        const int row_count = row + 4 <= rows.end ? 4 : 1;
        for (size_t vector = 0; vector < by_three; vector += 3) {
            if (row_count == 4) {
                multiply_block(product, (struct block){row, vector, 2, 3}, load, element_bytes);
                multiply_block(product, (struct block){row + 2, vector, 2, 3}, load, element_bytes);
            } else {
                multiply_block(product, (struct block){row, vector, 1, 3}, load, element_bytes);
            }
        }
        for (size_t vector = by_three; vector < product->vector_count; vector++) {
            if (row_count == 4) multiply_block(product, (struct block){row, vector, 4, 1}, load, element_bytes);
            else multiply_block(product, (struct block){row, vector, 1, 1}, load, element_bytes);
        }
        row += (size_t)row_count;
    }
}

static void multiply_bf16(const struct cllm_product *product, struct cllm_rows rows)
{
    multiply_rows(product, rows, load_bf16, sizeof(uint16_t));
}

static void multiply_f16(const struct cllm_product *product, struct cllm_rows rows)
{
    multiply_rows(product, rows, load_f16, sizeof(uint16_t));
}

static void multiply_f32(const struct cllm_product *product, struct cllm_rows rows)
{
    multiply_rows(product, rows, load_f32, sizeof(float));
}

const struct cllm_kernels cllm_kernels_avx2 = {
    "AVX2",
    {[CLLM_WEIGHT_BF16] = multiply_bf16, [CLLM_WEIGHT_F16] = multiply_f16, [CLLM_WEIGHT_F32] = multiply_f32},
};
#else
typedef int cllm_not_for_this_processor; /* ISO C wants a declaration in every file */
#endif

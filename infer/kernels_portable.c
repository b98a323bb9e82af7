/* kernels_portable.c - the products in plain C; also the reference for the others. The conversion is a parameter that the
 * compiler resolves, so that there is one loop in the source and one per type in the object. */
#include "half.h"
#include "kernels_tiers.h"

#define LANES CLLM_KERNEL_LANES

typedef float load_weight(const void *weights, size_t index);

static inline float load_bf16(const void *weights, size_t index)
{
    return cllm_float_from_bf16(((const uint16_t *)weights)[index]);
}

static inline float load_f16(const void *weights, size_t index)
{
    return cllm_float_from_f16(((const uint16_t *)weights)[index]);
}

static inline float load_f32(const void *weights, size_t index)
{
    return ((const float *)weights)[index];
}

static float add_lanes(float lanes[LANES])
{
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
}

static inline __attribute__((always_inline)) void multiply_rows(const struct cllm_product *product, struct cllm_rows rows,
                                                                load_weight *load)
{
    const size_t column_count = product->column_count;
    for (size_t row = rows.first; row < rows.end; row++) {
        const size_t weight_first = row * product->weight_stride;
        for (size_t vector = 0; vector < product->vector_count; vector++) {
            const float *input = product->input + vector * product->input_stride;
            float lanes[LANES] = {0};
            size_t column = 0;
            for (; column + LANES <= column_count; column += LANES) {
                for (size_t i = 0; i < LANES; i++) {
                    lanes[i] += load(product->weights, weight_first + column + i) * input[column + i];
                }
            }
            for (size_t i = 0; column + i < column_count; i++) {
                lanes[i] += load(product->weights, weight_first + column + i) * input[column + i];
            }
            product->output[vector * product->output_stride + row] = add_lanes(lanes);
        }
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

const struct cllm_kernels cllm_kernels_portable = {
    "portable",
    {[CLLM_WEIGHT_BF16] = multiply_bf16, [CLLM_WEIGHT_F16] = multiply_f16, [CLLM_WEIGHT_F32] = multiply_f32},
};

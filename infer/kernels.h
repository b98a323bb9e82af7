/* kernels.h - products of a weight matrix with float32 vectors, in several instruction sets, and the choice among them.
 *
 * Each output is the dot product of one row and one vector in float32: 16 partial sums, element c going to sum c mod 16 in
 * ascending order, then added as a tree of halves. That order does not depend on how rows and vectors are grouped, so results
 * do not depend on batch sizes or threads. The vector versions use fused multiply-add and are equal to each other bit for bit;
 * the portable one rounds each product, and differs from them by rounding only.
 */
#ifndef CLLM_KERNELS_H
#define CLLM_KERNELS_H

#include "model.h"

/* output[v * output_stride + r] = sum over c of weights[r * weight_stride + c] * input[v * input_stride + c], for the vectors
 * v below vector_count. Strides count elements. */
struct cllm_product {
    const void *weights; /* row-major, of the function's type; aligned to its element */
    const float *input;
    float *output;
    size_t weight_stride;
    size_t input_stride;
    size_t output_stride;
    size_t column_count;
    size_t vector_count;
};

/* Rows first to end - 1. */
struct cllm_rows {
    size_t first;
    size_t end;
};

/* Any thread; rows of one product may be computed by different threads at the same time. */
typedef void cllm_product_rows(const struct cllm_product *product, struct cllm_rows rows);

struct cllm_kernels {
    const char *name; /* of the instruction set */
    cllm_product_rows *product[CLLM_WEIGHT_TYPE_COUNT];
};

enum cllm_kernels_tier { CLLM_KERNELS_PORTABLE, CLLM_KERNELS_AVX2, CLLM_KERNELS_AVX512, CLLM_KERNELS_TIER_COUNT };

/* The kernels of one tier, or null where this processor lacks the instructions (or the build is for another kind). Static. */
const struct cllm_kernels *cllm_kernels_of_tier(enum cllm_kernels_tier tier);

/* The fastest that this processor runs. */
const struct cllm_kernels *cllm_kernels_best(void);

/* Number of partial sums of a dot product. */
#define CLLM_KERNEL_LANES 16

#endif

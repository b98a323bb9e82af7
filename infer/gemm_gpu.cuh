/* gemm_gpu.cuh - products of matrices by cuBLAS, which is looked for when the program runs: without it nothing fails but this. */
#ifndef CLLM_GEMM_GPU_CUH
#define CLLM_GEMM_GPU_CUH

#include "cuda_try.h"

struct gemm;

enum gemm_type { GEMM_BF16, GEMM_F32 };

/* For `count` triples that lie the given numbers of elements apart:
 * output[v * output_stride + r] (float32) = sum over c of weights(r, c) * input[v * input_stride + c], plus what it was if
 * `adds`. weights(r, c) is weights[r * weight_stride + c], or weights[c * weight_stride + r] if `transposed`. */
struct gemm_product {
    enum gemm_type type;
    const void *weights;
    const void *input;
    float *output;
    uint32_t row_count, column_count, vector_count, count;
    uint32_t weight_stride, input_stride, output_stride;
    long long weight_step, input_step, output_step;
    bool transposed;
    bool adds;
};

/* Null where the library is not found or does not work. `d_workspace` stays the caller's. */
struct gemm *gemm_create(cudaStream_t stream, void *d_workspace, size_t workspace_bytes);
void gemm_destroy(struct gemm *gemm); /* accepts null */
/* Queues; results depend on sizes and alignment alone. Fails with DEVICE. */
enum cllm_status gemm_multiply(const struct gemm *gemm, const struct gemm_product *product, struct cllm_error *err);

#endif

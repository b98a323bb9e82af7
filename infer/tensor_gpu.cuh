/* tensor_gpu.cuh - products of a prompt on the tensor cores of compute capability 9.0, of BF16 matrices as they are or packed:
 * these are decoded inside the product. The results of both are the same bits. */
#ifndef CLLM_TENSOR_GPU_CUH
#define CLLM_TENSOR_GPU_CUH

#include "cuda_try.h"
#include "gpu_layout.h"

#include <cuda_runtime.h>

enum {
    TENSOR_PARTS = 3,       /* matrices at a time */
    TENSOR_CHUNK = 64,      /* columns of input that lie together */
    TENSOR_VECTORS_MIN = 32 /* that an input has room for */
};

struct tensor_gpu;

/* outputs[i][v * rows of matrix i + r] (float32) = sum over c of matrix i (r, c) * vector v (c), plus what it was if `adds`. The
 * matrices have the same number of columns, and cllm_tensor_takes each. */
struct tensor_product {
    const struct cllm_gpu_matrix *matrices[TENSOR_PARTS];
    float *outputs[TENSOR_PARTS];
    uint32_t matrix_count;
    const void *input; /* BF16, vectors in the order of tensor_input_offset */
    uint32_t vector_count;
    bool adds;
};

/* Where an element of the input lies, in bytes, if there is room for `stride` vectors: chunks of 64 columns; in these, 128 bytes
 * of each vector, whose 16-byte pieces are exchanged as the tensor cores have it ("128-byte swizzle"). Of 32 columns a lane has
 * eight neighbouring ones of the weights, in pairs: the first pair of each lane comes first, then the second and so on. */
static __host__ __device__ __forceinline__ uint64_t tensor_input_offset(uint32_t stride, uint32_t vector, uint32_t column)
{
    const uint32_t pair = column / 2 % 4, lane = column / 8 % 4, step = column / 32 % 2;
    const uint32_t piece = (step * 4 + pair) ^ vector % 8;
    return ((uint64_t)(column / TENSOR_CHUNK) * stride + vector) * 128 + piece * 16 + lane * 4 + column % 2 * 2;
}

/* Null where the device is another. */
struct tensor_gpu *tensor_create(int device, cudaStream_t stream);
void tensor_destroy(struct tensor_gpu *tensor); /* accepts null */

/* Whether a matrix may be part of a product: that depends on shape and type, not on whether it is packed. False if `tensor` is
 * null. */
bool tensor_takes(const struct tensor_gpu *tensor, const struct cllm_gpu_matrix *matrix);

/* How many vectors an input of so many must have room for: at most TENSOR_VECTORS_MIN or twice as many. What lies in the room is
 * read and makes no difference. */
uint32_t tensor_input_stride(uint32_t vector_count);

/* Queues; results depend on sizes and the device alone. Fails with DEVICE. */
enum cllm_status tensor_multiply(const struct tensor_gpu *tensor, const struct tensor_product *product, struct cllm_error *err);

#endif

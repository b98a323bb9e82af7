/* forward_gpu_internal.cuh - what a forward pass on the GPU holds; for its own files alone. */
#ifndef CLLM_FORWARD_GPU_INTERNAL_CUH
#define CLLM_FORWARD_GPU_INTERNAL_CUH

#include "forward_gpu_buffers.h"
#include "gemm_gpu.cuh"
#include "kernels_product.cuh"
#include "tensor_gpu.cuh"

#include <cudaTypedefs.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

struct forward_gpu {
    struct cllm_forward base;
    struct cllm_config config;
    struct cllm_gpu_source *source;
    struct cllm_gpu_layer *layers; /* all of a resident source */
    struct cllm_forward_gpu_buffers buffers;
    int device;
    uint32_t multiprocessors;
    size_t shared_bytes; /* that a block may have */
    PFN_cuTensorMapEncodeTiled_v12000 encode_map; /* null: it has none */
    bool has_frequencies;
    char name[256];
    cudaStream_t stream;

    struct gemm *gemm;         /* null: prompts go token by token */
    struct tensor_gpu *tensor; /* null: all their products are those of `gemm` */
    cudaStream_t side;         /* makes matrices for products */
    cudaEvent_t ready[2], used[2], arrived;
    unsigned prepared_count, taken_count;

    char *memory; /* of the device: all of the following */
    __nv_bfloat16 *keys, *values;
    size_t cache_layer; /* elements of keys of one layer */
    float *vectors;
    float *frequencies;
    struct token_stage *stages;

    void *pinned; /* of the host: logits and the following */
    float *pinned_frequencies;

    struct token_args token; /* what all launches have in common */
    uint32_t layer_end;      /* stages of all layers that stay; that of the head follows */
    uint32_t area_bytes;     /* that a block has for input and sums */
    size_t launch_bytes;     /* of shared memory */
    uint32_t used_position[2]; /* that the sets of vectors were last for */
};

/* A layer's weights from the source, or from the list of those that stay; release passes on `status`, or its own failure. */
enum cllm_status cllm_gpu_acquire(struct forward_gpu *forward, uint32_t layer_index, struct cllm_gpu_layer *layer_out,
                                  struct cllm_error *err);
enum cllm_status cllm_gpu_release(struct forward_gpu *forward, uint32_t layer_index, enum cllm_status status,
                                  struct cllm_error *err);

/* Takes `count` positions through all layers, at most a tile of them, and queues one of their last states as the input of the
 * head of this turn. */
enum cllm_status cllm_gpu_run_tile(struct forward_gpu *forward, const uint32_t *ids, uint32_t count, struct cllm_error *err);
enum cllm_status cllm_gpu_take_row(struct forward_gpu *forward, uint32_t index, struct cllm_error *err);

/* What the last layer leaves, in turn 0. */
float *cllm_gpu_last_vector(const struct forward_gpu *forward);

/* Waits for what is queued. */
enum cllm_status cllm_gpu_wait(struct forward_gpu *forward, struct cllm_error *err);

#endif

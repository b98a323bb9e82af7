/* gpu_layout.h - weights in device memory, and where the forward pass on the GPU gets them from: the contract between what
 * loads and places weights and what computes with them.
 *
 * "Device memory" is any address that kernels can read; only the speed depends on where it lies. Streams are cudaStream_t.
 */
#ifndef CLLM_GPU_LAYOUT_H
#define CLLM_GPU_LAYOUT_H

#include "cllm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The first three have the values of enum cllm_weight_type. */
enum cllm_gpu_form { CLLM_GPU_BF16, CLLM_GPU_F16, CLLM_GPU_F32, CLLM_GPU_PACKED12 };

struct cllm_gpu_shape {
    uint32_t row_count;    /* outputs */
    uint32_t column_count; /* inputs */
};

/* 16-byte aligned memory that the source owns. */
struct cllm_gpu_matrix {
    enum cllm_gpu_form form;
    struct cllm_gpu_shape shape;
    const void *d_elements;    /* row-major, without gaps between rows; of a packed one, the tiles of pack12.h */
    uint64_t window;           /* packed only, as the following */
    const uint32_t *d_patches; /* those that tiles have no room for */
};

/* y = W x + b */
struct cllm_gpu_linear {
    struct cllm_gpu_matrix weight;
    const float *d_bias; /* row_count float32, or null */
};

/* As struct cllm_layer; vectors are float32, widened exactly, 16-byte aligned, with finite numbers up to whole 16 bytes: what
 * follows a norm is multiplied by zeros. */
struct cllm_gpu_layer {
    const float *d_attention_norm;
    struct cllm_gpu_linear query;
    struct cllm_gpu_linear key;
    struct cllm_gpu_linear value;
    struct cllm_gpu_linear output;
    const float *d_mlp_norm;
    struct cllm_gpu_linear gate;
    struct cllm_gpu_linear up;
    struct cllm_gpu_linear down;
};

/* Where the weights of a model come from; whoever implements it embeds it. It must outlive the forward pass made of it. Layers
 * are asked for in ascending order, from 0 to the last and again from 0, each released before the next is acquired, all on one
 * stream and from one thread.
 * A source of matrices that differ in form from layer to layer is fine, and so are query, key and value of different forms;
 * but gate and up of one layer must have one form. */
struct cllm_gpu_source {
    struct cllm_gpu_matrix embedding; /* vocab_size rows; only single rows are read */
    struct cllm_gpu_matrix head;      /* vocab_size rows; may be the same memory as the embedding */
    const float *d_final_norm;
    /* All layers stay where they are: each is acquired once, when the forward pass is created, and a whole token may be replayed
     * as one graph. */
    bool resident;
    /* Makes what is queued on `stream` from now on wait until the layer's weights are there, and says where. It may block the
     * caller (a slot is still being filled from disk, say). What it fails with ends the run. */
    enum cllm_status (*acquire)(struct cllm_gpu_source *source, uint32_t layer_index, void *stream,
                                struct cllm_gpu_layer *layer_out, struct cllm_error *err);
    /* The layer is not needed any more after what has been queued on `stream` so far. Called after a failure, too, for a layer
     * that was acquired. May be null. */
    enum cllm_status (*release)(struct cllm_gpu_source *source, uint32_t layer_index, void *stream, struct cllm_error *err);
};

#ifdef __cplusplus
}
#endif

#endif

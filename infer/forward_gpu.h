/* forward_gpu.h - the forward pass on a CUDA GPU.
 *
 * Activations, sums and logits are float32, the cache of keys and values is BF16. Single tokens go through products of matrix
 * and vector whose order of summation does not depend on the form of the weights: raw, packed and streamed weights give the
 * same bits, and so does every repetition. Runs of several tokens go through products of matrices, with activations rounded to
 * BF16 where the weights are BF16: those of cuBLAS, where that library is found (it is looked for when first needed), and on
 * compute capability 9.0 this project's own, which decode packed weights on the way. Their bits do not depend on the form either,
 * but differ from those of single tokens.
 *
 * Built without CUDA, cllm_forward_gpu_create fails with UNSUPPORTED.
 */
#ifndef CLLM_FORWARD_GPU_H
#define CLLM_FORWARD_GPU_H

#include "config.h"
#include "forward.h"
#include "gpu_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cllm_forward_gpu_options {
    unsigned device_index;
    uint32_t context_size; /* positions that must fit, at least 1 */
    /* Positions of a prompt that go through together: more is faster and takes more memory. 0: a good number for a GPU with
     * memory to spare; 1: prompts go through one by one, as generated tokens do. */
    uint32_t prompt_tile;
    unsigned forms; /* 1 << form for each enum cllm_gpu_form that occurs: prompts need room to unpack or widen a matrix */
};

/* Device memory in bytes, apart from the weights. */
struct cllm_forward_gpu_bytes {
    uint64_t cache;
    uint64_t activations;
    uint64_t scratch; /* for prompts: unpacked matrices, scores, cuBLAS */
    uint64_t pinned;  /* host memory */
};

/* What cllm_forward_gpu_create is going to allocate. Computes only. */
struct cllm_forward_gpu_bytes cllm_forward_gpu_plan(const struct cllm_config *config,
                                                    const struct cllm_forward_gpu_options *options);

/* Whether cllm_forward_gpu_create can run such a model on any device: to be asked before weights are loaded. Fails with
 * UNSUPPORTED (a head_dim above 256). Computes only. */
enum cllm_status cllm_forward_gpu_check(const struct cllm_config *config, struct cllm_error *err) CLLM_MUST_USE;

/* `source` must outlive the result, which the caller owns (cllm_forward_destroy); `config` is copied. On failure `*forward_out`
 * is null. Fails with UNSUPPORTED (no CUDA in this build, a head_dim above 256), NOMEM, DEVICE and as source->acquire does. A
 * run fails with DEVICE and as source->acquire and release do, besides what forward.h says. */
enum cllm_status cllm_forward_gpu_create(const struct cllm_config *config, struct cllm_gpu_source *source,
                                         const struct cllm_forward_gpu_options *options, struct cllm_forward **forward_out,
                                         struct cllm_error *err) CLLM_MUST_USE;

#ifdef __cplusplus
}
#endif

#endif

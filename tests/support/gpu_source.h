/* gpu_source.h - all weights of a loaded model in device memory: the simplest source for the forward pass on the GPU. */
#ifndef CLLM_GPU_SOURCE_H
#define CLLM_GPU_SOURCE_H

#include "cllm_decode_gpu.h"
#include "gpu_layout.h"
#include "model.h"

struct gpu_source;

enum gpu_source_kind {
    GPU_SOURCE_RAW,
    GPU_SOURCE_PACKED,  /* BF16 matrices packed, whatever number of patches that takes */
    GPU_SOURCE_CHANGING /* raw, and not called resident: each layer is asked for again for each token */
};

/* `gpu` and `model` must outlive the result. Fails as the functions of cllm_decode_gpu.h and pack12.h do. */
enum cllm_status gpu_source_create(struct cllm_gpu *gpu, const struct cllm_model *model, enum gpu_source_kind kind,
                                   struct gpu_source **source_out, struct cllm_error *err);
struct cllm_gpu_source *gpu_source_base(struct gpu_source *source);
unsigned gpu_source_forms(const struct gpu_source *source); /* for struct cllm_forward_gpu_options */
void gpu_source_destroy(struct gpu_source *source);

/* From now on acquiring fails with CORRUPT. */
void gpu_source_break(struct gpu_source *source);

#endif

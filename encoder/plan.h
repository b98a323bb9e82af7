/* plan.h - how a piece of a checkpoint will be stored, decided from what it is alone. Pure. */
#ifndef CLLM_PLAN_H
#define CLLM_PLAN_H

#include "scaled.h"

struct cllm_plan {
    struct cllm_layout layout; /* element_bytes 0: no float form */
    uint8_t scaled_type;       /* enum cllm_scaled_type: what its elements are, if they may be scaled numbers */
    uint32_t chunk_bytes;      /* decoded size of a chunk, a power of two */
    int zstd_level;
};

/* The plan for a tensor of a dtype that safetensors defines, or (dtype null) for literal bytes. */
struct cllm_plan cllm_plan_make(const struct cllm_dtype *dtype, uint64_t decoded_bytes);

#endif

/* engine.h - the GPU engine with its measures open, for the bench that chooses them. */
#ifndef CLLM_GPU_ENGINE_H
#define CLLM_GPU_ENGINE_H

#include "cllm_decode_gpu.h"

struct cllm_gpu_engine_tuning {
    uint32_t run_bytes;  /* decoded bytes of a run */
    unsigned lane_count; /* runs under way at once */
    bool huge_pages;     /* host memory from huge pages, then pinned; otherwise from the driver */
};

/* Where threads spent their time since the engine was created, summed over threads. */
struct cllm_gpu_engine_times {
    uint64_t run_count;
    uint64_t lane_ns;  /* making contexts and buffers */
    uint64_t read_ns;  /* from the file into pinned memory, stored checksums checked */
    uint64_t queue_ns; /* giving work to the driver */
    uint64_t wait_ns;  /* for the oldest run */
};

/* Like cllm_gpu_engine_create. */
enum cllm_status cllm_gpu_engine_create_tuned(unsigned device_index, const struct cllm_gpu_engine_tuning *tuning,
                                              const struct cllm_engine **engine_out, struct cllm_error *err) CLLM_MUST_USE;

struct cllm_gpu_engine_times cllm_gpu_engine_times(const struct cllm_engine *engine);

#endif

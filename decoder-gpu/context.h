/* context.h - what a GPU context holds; for the files of decoder-gpu/ alone. */
#ifndef CLLM_GPU_CONTEXT_H
#define CLLM_GPU_CONTEXT_H

#include "cuda_try.h"

/* Memory that grows and never shrinks. */
struct gpu_memory {
    void *bytes;
    size_t capacity;
};

struct cllm_gpu {
    int device;
    cudaStream_t stream; /* on which work is queued */
    cudaStream_t own_stream;
    char name[256];
    struct gpu_memory staging;      /* pinned: descriptions on their way to the device */
    struct gpu_memory hash_staging; /* pinned: struct gpu_piece */
    uint32_t *status;               /* pinned: status words that came back, of a prepared batch and of `once` */
    struct cllm_gpu_batch *once;    /* of cllm_gpu_decode */
    struct cllm_gpu_span *spans;    /* its spans */
    size_t span_capacity;
    cudaEvent_t decoded; /* the end of the last decode in one call */
    bool decoding;       /* the last decode in one call has a status */
    bool hashing;        /* pieces are in use by a hash that was not waited for */
};

/* Gives the memory room, waiting for the stream if that takes new memory; what was in it is lost. */
enum cllm_status gpu_reserve_pinned(struct cllm_gpu *gpu, struct gpu_memory *memory, size_t byte_count, struct cllm_error *err);
enum cllm_status gpu_reserve_device(struct cllm_gpu *gpu, struct gpu_memory *memory, size_t byte_count, struct cllm_error *err);

/* Makes the device current and waits for the context's stream. */
enum cllm_status gpu_wait(struct cllm_gpu *gpu, struct cllm_error *err);

#endif

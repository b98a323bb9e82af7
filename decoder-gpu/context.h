/* context.h - what a GPU context holds; for the files of decoder-gpu/ alone. */
#ifndef CLLM_GPU_CONTEXT_H
#define CLLM_GPU_CONTEXT_H

#include "cuda_try.h"

/* The same bytes in pinned host memory and on the device; grows, never shrinks. */
struct gpu_mirror {
    void *host;
    void *device;
    size_t capacity;
};

struct cllm_gpu {
    int device;
    cudaStream_t stream;
    char name[256];
    struct gpu_mirror chunks;  /* struct gpu_chunk of a decode */
    struct gpu_mirror lengths; /* struct cllm_table of each table in use */
    struct gpu_mirror status;  /* one word per item */
    struct gpu_mirror pieces;  /* struct gpu_piece of a hash */
    void *d_tables;            /* struct gpu_table */
    size_t table_capacity;     /* bytes */
    size_t status_count;       /* items of the last decode */
    bool hashing;              /* pieces are in use by a hash that was not waited for */
};

/* Gives the mirror room, waiting for the stream if that takes a new one; what was in it is lost. */
enum cllm_status gpu_reserve(struct cllm_gpu *gpu, struct gpu_mirror *mirror, size_t byte_count, struct cllm_error *err);

#endif

/* batch.h - chunks described for the kernels: what prepared batches and decoding in one call share. For the files of decoder-gpu/
 * alone. */
#ifndef CLLM_GPU_BATCH_H
#define CLLM_GPU_BATCH_H

#include "context.h"

/* The chunks of a batch that one kernel decodes. */
struct gpu_launch {
    uint32_t first;
    uint32_t count;
    uint32_t shared_bytes;
};

#define GPU_KERNELS 34 /* kernels of batch.cu */

/* Where a span's chunks begin among those of the batch. */
struct gpu_span_start {
    uint32_t index;
    uint32_t first_chunk;
};

struct cllm_gpu_batch {
    struct cllm_gpu *gpu;
    struct gpu_memory d_memory; /* chunks, then tables, then values of palettes, then a status word */
    size_t tables_offset;
    size_t values_offset;
    size_t status_offset;
    struct gpu_launch launches[GPU_KERNELS];
    struct gpu_span_start *starts;
    size_t start_capacity;
    size_t span_count;
    struct cllm_gpu_batch_info info;
};

/* An empty batch. Fails with NOMEM, DEVICE. */
enum cllm_status gpu_batch_new(struct cllm_gpu *gpu, struct cllm_gpu_batch **batch_out, struct cllm_error *err);

/* Describes the spans, by way of the context's staging memory, which must not be in use, and queues the upload on its stream.
 * Memory that the batch has is used again where it is enough. Fails like cllm_gpu_batch_create. */
enum cllm_status gpu_batch_fill(struct cllm_gpu_batch *batch, const struct cllm_gpu_span *spans, size_t span_count,
                                struct cllm_error *err);

/* cllm_gpu_batch_decode for addresses that need no check. */
enum cllm_status gpu_batch_launch(const struct cllm_gpu_batch *batch, cudaStream_t stream, const void *d_stored, void *d_out,
                                  struct cllm_error *err);

/* Queues a copy of the status word to pinned memory. */
enum cllm_status gpu_batch_download_status(const struct cllm_gpu_batch *batch, cudaStream_t stream, struct cllm_error *err);

/* What the copied status word says: CORRUPT with the span and the chunk's index in its data object, or OK. */
enum cllm_status gpu_batch_judge(const struct cllm_gpu_batch *batch, size_t *bad_span_out, uint32_t *bad_chunk_out,
                                 struct cllm_error *err);

#endif

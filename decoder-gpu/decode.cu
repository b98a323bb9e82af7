/* decode.cu - decoding and hashing chunks once, in one call. */
#include "batch.h"

#include "kernels_sha256.cuh"

#include <cstdlib>

/* One span an item. There are no base addresses: offsets from null are addresses. */
static enum cllm_status describe_items(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count,
                                       struct cllm_error *err)
{
    if (item_count > gpu->span_capacity) {
        free(gpu->spans);
        gpu->span_capacity = 0;
        gpu->spans = (struct cllm_gpu_span *)calloc(item_count, sizeof *gpu->spans);
        if (!gpu->spans) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %zu chunks", item_count);
        gpu->span_capacity = item_count;
    }
    for (size_t i = 0; i < item_count; i++) {
        gpu->spans[i] = {items[i].data, items[i].chunk_index, 1, (uintptr_t)items[i].d_stored, (uintptr_t)items[i].d_out, false};
    }
    return gpu_batch_fill(gpu->once, gpu->spans, item_count, err);
}

static enum cllm_status wait_for_decode(struct cllm_gpu *gpu, struct cllm_error *err)
{
    enum cllm_status status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    return status ? status : cuda_try(cudaEventSynchronize(gpu->decoded), "finish its work", err);
}

enum cllm_status cllm_gpu_decode(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count,
                                 struct cllm_error *err)
{
    gpu->decoding = false;
    if (item_count == 0) return CLLM_OK;
    enum cllm_status status = wait_for_decode(gpu, err); /* the descriptions are about to be written again */
    if (!status && !gpu->once) status = gpu_batch_new(gpu, &gpu->once, err);
    if (!status) status = describe_items(gpu, items, item_count, err);
    if (!status) status = gpu_batch_launch(gpu->once, gpu->stream, NULL, NULL, err);
    if (!status) status = gpu_batch_download_status(gpu->once, gpu->stream, err);
    if (!status) status = cuda_try(cudaEventRecord(gpu->decoded, gpu->stream), "record an event", err);
    gpu->decoding = !status;
    if (status) (void)!gpu_wait(gpu, NULL); /* what was queued of it still reads the descriptions */
    return status;
}

enum cllm_status cllm_gpu_hash(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count, void *d_digests,
                               struct cllm_error *err)
{
    if (item_count == 0) return CLLM_OK;
    if (item_count > UINT32_MAX / 2)
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "too many chunks in one call: %zu", item_count);
    const size_t byte_count = item_count * sizeof(struct gpu_piece);
    enum cllm_status status = gpu->hashing ? gpu_wait(gpu, err) : cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    if (!status) status = gpu_reserve_pinned(gpu, &gpu->hash_staging, byte_count, err);
    if (status) return status;
    gpu->hashing = true;
    struct gpu_piece *pieces = (struct gpu_piece *)gpu->hash_staging.bytes;
    for (size_t i = 0; i < item_count; i++)
        pieces[i] = {(const uint32_t *)items[i].d_out, items[i].data->chunks[items[i].chunk_index].decoded_bytes};
    const unsigned blocks = (unsigned)((item_count + SHA256_THREADS - 1) / SHA256_THREADS);
    /* each thread reads its piece once, where the host has it: a copy would have its turn behind large ones of other streams */
    kernel_hash_pieces<<<blocks, SHA256_THREADS, 0, gpu->stream>>>(pieces, (uint32_t)item_count, (uint32_t *)d_digests);
    return cuda_try(cudaGetLastError(), "start hashing", err);
}

enum cllm_status cllm_gpu_finish(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err)
{
    enum cllm_status status = gpu_wait(gpu, err);
    return status || !gpu->decoding ? status : gpu_batch_judge(gpu->once, bad_item_out, NULL, err);
}

enum cllm_status cllm_gpu_finish_decode(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err)
{
    enum cllm_status status = wait_for_decode(gpu, err);
    return status || !gpu->decoding ? status : gpu_batch_judge(gpu->once, bad_item_out, NULL, err);
}

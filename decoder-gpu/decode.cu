/* decode.cu - launches: validated chunks to kernel arguments, status words back to errors. */
#include "context.h"

#include "kernels_float.cuh"
#include "kernels_sha256.cuh"

#include <cstring>

bool cllm_gpu_decodes(const struct cllm_chunk *chunk)
{
    return chunk->form == CLLM_FORM_FLOAT || chunk->form == CLLM_FORM_RAW;
}

size_t cllm_gpu_scratch_bytes(size_t item_count)
{
    return item_count *
           (sizeof(struct gpu_chunk) + sizeof(struct cllm_table) + sizeof(struct gpu_table) + sizeof(uint32_t) +
            sizeof(struct gpu_piece)) *
           3 / 2;
}

static const struct cllm_chunk *chunk_of(const struct cllm_gpu_item *item)
{
    return &item->data->chunks[item->chunk_index];
}

static bool is_bf16(const struct cllm_layout *layout)
{
    return layout->element_bytes == 2 && layout->symbol_shift == 7 && layout->symbol_bits == 8 && layout->zero_bits == 0;
}

static bool same_layout(const struct cllm_layout *a, const struct cllm_layout *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* Whether kernel_decode_bf16 may have it; its comment says what it needs. */
static bool is_fast(const struct cllm_layout *layout, const struct gpu_chunk *chunk)
{
    return is_bf16(layout) && chunk->segment_log2 == BF16_SEGMENT_LOG2 && chunk->element_count % BF16_SEGMENT == 0 &&
           chunk->element_count <= FLOAT_THREADS * BF16_SEGMENT && (uintptr_t)chunk->out % 16 == 0 &&
           chunk->stored_bytes - (chunk->plane_bytes & ~15u) <= STAGE_BYTES;
}

/* Consecutive chunks that one launch decodes. */
struct launch {
    size_t first;
    size_t count;
    bool fast;
    const struct cllm_layout *layout;
};

static enum cllm_status launch_decode(struct cllm_gpu *gpu, const struct launch *launch, struct cllm_error *err)
{
    if (launch->count == 0) return CLLM_OK;
    const struct gpu_chunk *d_chunks = (const struct gpu_chunk *)gpu->chunks.device + launch->first;
    const struct gpu_table *d_tables = (const struct gpu_table *)gpu->d_tables;
    uint32_t *d_status = (uint32_t *)gpu->status.device;
    if (launch->fast) {
        kernel_decode_bf16<<<(unsigned)launch->count, FLOAT_THREADS, sizeof(struct gpu_shared), gpu->stream>>>(d_chunks, d_tables,
                                                                                                               d_status);
    } else {
        kernel_decode_any<<<(unsigned)launch->count, FLOAT_THREADS, sizeof(struct gpu_shared), gpu->stream>>>(
            d_chunks, d_tables, *launch->layout, d_status);
    }
    return cuda_try(cudaGetLastError(), "start decoding", err);
}

/* Tables that a decode uses, each once: chunks of one group follow each other, so comparing with the last one finds nearly all.
 */
struct table_list {
    struct cllm_table *lengths; /* pinned */
    const struct cllm_table *last;
    uint32_t count;
};

static uint32_t add_table(struct table_list *list, const struct cllm_table *table)
{
    if (list->last != table) {
        list->lengths[list->count++] = *table;
        list->last = table;
    }
    return list->count - 1;
}

static struct gpu_chunk describe_chunk(const struct cllm_gpu_item *item, uint32_t table, uint32_t status)
{
    const struct cllm_chunk *chunk = chunk_of(item);
    const struct cllm_layout *layout = &item->data->layout;
    const uint32_t element_count = chunk->decoded_bytes / layout->element_bytes;
    struct gpu_chunk described = {(const uint8_t *)item->d_stored,
                                  (uint8_t *)item->d_out,
                                  chunk->stored_bytes,
                                  element_count,
                                  (uint32_t)cllm_float_plane_bytes(layout, element_count),
                                  table,
                                  status,
                                  layout->segment_log2};
    return described;
}

/* Raw chunks are copied; float chunks described, in their order, and marked in `launch` where a new launch must begin. */
static enum cllm_status queue_items(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count,
                                    struct table_list *tables, size_t *described_out, struct cllm_error *err)
{
    struct gpu_chunk *chunks = (struct gpu_chunk *)gpu->chunks.host;
    size_t described = 0;
    for (size_t i = 0; i < item_count; i++) {
        const struct cllm_chunk *chunk = chunk_of(&items[i]);
        if (!cllm_gpu_decodes(chunk)) {
            return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "chunk of form %u is not for the GPU", chunk->form);
        }
        if (chunk->form == CLLM_FORM_RAW) {
            enum cllm_status status = cuda_try(
                cudaMemcpyAsync(items[i].d_out, items[i].d_stored, chunk->decoded_bytes, cudaMemcpyDeviceToDevice, gpu->stream),
                "copy a raw chunk", err);
            if (status) return status;
            continue;
        }
        const uint32_t table = add_table(tables, &items[i].data->tables[chunk->table_index]);
        chunks[described] = describe_chunk(&items[i], table, (uint32_t)i);
        if (chunks[described].plane_bytes + CLLM_FLOAT_HEADER_BYTES > chunk->stored_bytes) {
            ((uint32_t *)gpu->status.host)[i] = GPU_BAD_HEADER; /* the kernels rely on there being a head */
            continue;
        }
        described++;
    }
    *described_out = described;
    return CLLM_OK;
}

static enum cllm_status copy_to_device(struct cllm_gpu *gpu, const struct gpu_mirror *mirror, size_t byte_count,
                                       struct cllm_error *err)
{
    return cuda_try(cudaMemcpyAsync(mirror->device, mirror->host, byte_count, cudaMemcpyHostToDevice, gpu->stream),
                    "copy to the device", err);
}

static enum cllm_status build_tables(struct cllm_gpu *gpu, const struct table_list *tables, struct cllm_error *err)
{
    if (tables->count == 0) return CLLM_OK;
    enum cllm_status status = copy_to_device(gpu, &gpu->lengths, tables->count * sizeof(struct cllm_table), err);
    if (status) return status;
    kernel_build_tables<<<tables->count, 256, 0, gpu->stream>>>((const struct cllm_table *)gpu->lengths.device,
                                                                (struct gpu_table *)gpu->d_tables);
    return cuda_try(cudaGetLastError(), "build code tables", err);
}

/* Cuts the described chunks into launches of one kernel and one layout. */
static enum cllm_status launch_all(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t described,
                                   struct cllm_error *err)
{
    const struct gpu_chunk *chunks = (const struct gpu_chunk *)gpu->chunks.host;
    struct launch launch = {0, 0, false, NULL};
    for (size_t k = 0; k < described; k++) {
        const struct cllm_layout *layout = &items[chunks[k].status].data->layout;
        const bool fast = is_fast(layout, &chunks[k]);
        if (launch.count > 0 && (fast != launch.fast || !same_layout(layout, launch.layout))) {
            enum cllm_status status = launch_decode(gpu, &launch, err);
            if (status) return status;
            launch.count = 0;
        }
        if (launch.count == 0) launch = {k, 0, fast, layout};
        launch.count++;
    }
    return launch_decode(gpu, &launch, err);
}

static enum cllm_status reserve_tables(struct cllm_gpu *gpu, size_t table_count, struct cllm_error *err)
{
    const size_t byte_count = table_count * sizeof(struct gpu_table);
    if (byte_count <= gpu->table_capacity) return CLLM_OK;
    cudaFree(gpu->d_tables);
    gpu->d_tables = NULL;
    gpu->table_capacity = 0;
    enum cllm_status status = cuda_try(cudaMalloc(&gpu->d_tables, byte_count + byte_count / 2), "allocate device memory", err);
    if (!status) gpu->table_capacity = byte_count + byte_count / 2;
    return status;
}

/* Blocks may use more shared memory than the default only after this, once per kernel and device. */
static enum cllm_status allow_shared_memory(struct cllm_error *err)
{
    const int bytes = (int)sizeof(struct gpu_shared);
    enum cllm_status status =
        cuda_try(cudaFuncSetAttribute(kernel_decode_bf16, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                 "reserve shared memory", err);
    if (status) return status;
    return cuda_try(cudaFuncSetAttribute(kernel_decode_any, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                    "reserve shared memory", err);
}

static enum cllm_status wait_for_stream(struct cllm_gpu *gpu, struct cllm_error *err)
{
    enum cllm_status status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    if (!status) status = cuda_try(cudaStreamSynchronize(gpu->stream), "finish its work", err);
    gpu->hashing = false;
    return status;
}

enum cllm_status cllm_gpu_decode(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count,
                                 struct cllm_error *err)
{
    gpu->status_count = 0;
    if (item_count > UINT32_MAX / 2)
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "too many chunks in one call: %zu", item_count);
    enum cllm_status status = wait_for_stream(gpu, err); /* the scratch is about to be written again */
    if (!status) status = gpu_reserve(gpu, &gpu->chunks, item_count * sizeof(struct gpu_chunk), err);
    if (!status) status = gpu_reserve(gpu, &gpu->lengths, item_count * sizeof(struct cllm_table), err);
    if (!status) status = gpu_reserve(gpu, &gpu->status, item_count * sizeof(uint32_t), err);
    if (!status) status = allow_shared_memory(err);
    if (status || item_count == 0) return status;
    memset(gpu->status.host, 0, item_count * sizeof(uint32_t));

    struct table_list tables = {(struct cllm_table *)gpu->lengths.host, NULL, 0};
    size_t described = 0;
    status = queue_items(gpu, items, item_count, &tables, &described, err);
    if (!status) status = reserve_tables(gpu, tables.count, err);
    if (!status) status = build_tables(gpu, &tables, err);
    if (!status) status = copy_to_device(gpu, &gpu->chunks, described * sizeof(struct gpu_chunk), err);
    if (!status) status = copy_to_device(gpu, &gpu->status, item_count * sizeof(uint32_t), err);
    if (!status) status = launch_all(gpu, items, described, err);
    if (!status) status = cllm_gpu_download(gpu, gpu->status.host, gpu->status.device, item_count * sizeof(uint32_t), err);
    if (!status) gpu->status_count = item_count;
    return status;
}

enum cllm_status cllm_gpu_hash(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count, void *d_digests,
                               struct cllm_error *err)
{
    if (item_count == 0) return CLLM_OK;
    if (item_count > UINT32_MAX / 2)
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "too many chunks in one call: %zu", item_count);
    enum cllm_status status =
        gpu->hashing ? wait_for_stream(gpu, err) : cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    if (!status) status = gpu_reserve(gpu, &gpu->pieces, item_count * sizeof(struct gpu_piece), err);
    if (status) return status;
    gpu->hashing = true;
    struct gpu_piece *pieces = (struct gpu_piece *)gpu->pieces.host;
    for (size_t i = 0; i < item_count; i++) pieces[i] = {(const uint32_t *)items[i].d_out, chunk_of(&items[i])->decoded_bytes};
    status = copy_to_device(gpu, &gpu->pieces, item_count * sizeof(struct gpu_piece), err);
    if (status) return status;
    const unsigned blocks = (unsigned)((item_count + SHA256_THREADS - 1) / SHA256_THREADS);
    kernel_hash_pieces<<<blocks, SHA256_THREADS, 0, gpu->stream>>>((const struct gpu_piece *)gpu->pieces.device,
                                                                   (uint32_t)item_count, (uint32_t *)d_digests);
    return cuda_try(cudaGetLastError(), "start hashing", err);
}

enum cllm_status cllm_gpu_finish(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err)
{
    static const char *const reasons[] = {"", "its head does not fit", "a segment does not end where the next one starts",
                                          "its code words do not end with the stream"};
    enum cllm_status status = wait_for_stream(gpu, err);
    if (status) return status;
    const uint32_t *words = (const uint32_t *)gpu->status.host;
    for (size_t i = 0; i < gpu->status_count; i++) {
        if (words[i] == GPU_OK) continue;
        if (bad_item_out) *bad_item_out = i;
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "float chunk does not decode: %s",
                         words[i] < 4 ? reasons[words[i]] : "?");
    }
    return CLLM_OK;
}

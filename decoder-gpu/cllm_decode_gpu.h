/* cllm_decode_gpu.h - public: chunks of a container decoded and hashed on a CUDA GPU.
 *
 * Built without CUDA the same functions are there: cllm_gpu_create fails with UNSUPPORTED, and nothing else can be called.
 * Two ways to decode. A *batch* is prepared once (described, checked, its code tables built in device memory) and then decoded
 * again and again by kernel launches alone: for weights that stay or are streamed into the same places. cllm_gpu_decode describes
 * and decodes chunks in one call: for what is decoded once.
 *
 * Thread rule: a context, and all batches made on it, are used by one thread at a time; any number of contexts may exist, on the
 * same device too.
 */
#ifndef CLLM_DECODE_GPU_H
#define CLLM_DECODE_GPU_H

#include "cllm.h"
#include "cllm_engine.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cllm_gpu; /* device, stream, grow-only scratch */

/* Number of usable GPUs: 0 without CUDA, driver or GPU. */
unsigned cllm_gpu_count(void);

/* A context on device `device_index`. Fails with UNSUPPORTED (built without CUDA), DEVICE (no driver, no such GPU, or one that
 * this build has no code for), NOMEM. */
enum cllm_status cllm_gpu_create(unsigned device_index, struct cllm_gpu **gpu_out, struct cllm_error *err) CLLM_MUST_USE;

/* Waits for what was submitted. Accepts null. */
void cllm_gpu_destroy(struct cllm_gpu *gpu);

/* Name of the device, for messages; lives as long as the context. */
const char *cllm_gpu_name(const struct cllm_gpu *gpu);

/* Memory of the device and pinned memory of the host, and copies between them on the context's stream. `byte_count` may be 0.
 * Fail with DEVICE or NOMEM; frees accept null. */
enum cllm_status cllm_gpu_allocate(struct cllm_gpu *gpu, size_t byte_count, void **d_memory_out,
                                   struct cllm_error *err) CLLM_MUST_USE;
void cllm_gpu_free(struct cllm_gpu *gpu, void *d_memory);
enum cllm_status cllm_gpu_allocate_pinned(struct cllm_gpu *gpu, size_t byte_count, void **memory_out,
                                          struct cllm_error *err) CLLM_MUST_USE;
void cllm_gpu_free_pinned(struct cllm_gpu *gpu, void *memory);
enum cllm_status cllm_gpu_upload(struct cllm_gpu *gpu, void *d_to, const void *from, size_t byte_count,
                                 struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_gpu_download(struct cllm_gpu *gpu, void *to, const void *d_from, size_t byte_count,
                                   struct cllm_error *err) CLLM_MUST_USE;

/* The CUDA stream (a cudaStream_t) on which a context's work is queued: its own, unless another was set. */
void *cllm_gpu_stream(const struct cllm_gpu *gpu);

/* From now on the context queues its work on `stream`, a cudaStream_t of the same device that stays the caller's and must live
 * as long as it is used here; null: on the context's own again. Waits for what was queued before. Fails with DEVICE. */
enum cllm_status cllm_gpu_set_stream(struct cllm_gpu *gpu, void *stream, struct cllm_error *err) CLLM_MUST_USE;

/* True for what the GPU decodes: chunks in float form, with palettes, scaled ones, sparse ones of up to 256 KiB, and raw ones.
 * Others (zstd, planes) go through the CPU decoder and cllm_gpu_upload. */
bool cllm_gpu_decodes(const struct cllm_chunk *chunk);

/* ------------------------------------------------------------------------------------------------------ prepared batches */

struct cllm_gpu_batch; /* descriptors and code tables in device memory */

/* Consecutive chunks of one data object, and where their bytes are when the batch is decoded, relative to two addresses that
 * are given then. */
struct cllm_gpu_span {
    const struct cllm_data *data; /* of a validated index; not needed after cllm_gpu_batch_create */
    uint32_t first_chunk;
    uint32_t chunk_count;
    uint64_t stored_offset; /* of the first chunk's stored bytes, a multiple of 16; the others follow as in the container */
    uint64_t out_offset;    /* of its decoded bytes; the others follow. A multiple of 16 is fastest, none is needed */
    bool decoded;           /* what lies at stored_offset is decoded already, without padding: it is copied */
};

/* Chunks from `first_chunk` on, `chunk_count` at most, that go the same way: *decodes_out says whether the GPU decodes them.
 * Those that it does not, the caller decodes on the CPU and uploads, to their place or (span.decoded) where a batch finds them:
 *     for (c = 0; c < data->chunk_count; c += n) n = cllm_gpu_run_chunks(data, c, data->chunk_count - c, &decodes); */
uint32_t cllm_gpu_run_chunks(const struct cllm_data *data, uint32_t first_chunk, uint32_t chunk_count, bool *decodes_out);

/* What a batch needs and does. Bytes of the device for it; the bytes behind the two base addresses that it uses (largest end of a
 * span); and decoded bytes by the way they take: entropy-decoded, copied because stored raw, copied because the CPU decoded
 * them. */
struct cllm_gpu_batch_info {
    size_t device_bytes;
    uint64_t stored_bytes;
    uint64_t out_bytes;
    uint64_t float_bytes;
    uint64_t raw_bytes;
    uint64_t decoded_bytes;
};

/* Checks and describes the spans and builds their code tables on the device; waits until that is done. The batch is destroyed
 * before its context. Fails with USAGE (chunks that the data object does not have, a stored_offset that is no multiple of 16, a
 * form that the GPU does not decode), LIMIT (2^30 chunks or more), NOMEM, DEVICE. */
enum cllm_status cllm_gpu_batch_create(struct cllm_gpu *gpu, const struct cllm_gpu_span *spans, size_t span_count,
                                       struct cllm_gpu_batch **batch_out, struct cllm_error *err) CLLM_MUST_USE;

/* Frees its device memory, when the device has finished what uses it. Accepts null. */
void cllm_gpu_batch_destroy(struct cllm_gpu_batch *batch);

struct cllm_gpu_batch_info cllm_gpu_batch_info(const struct cllm_gpu_batch *batch);

/* Queues the decoding of the whole batch on `stream` (a cudaStream_t; null: the context's): kernel launches and nothing else, so
 * that it never waits and can be captured in a CUDA graph. d_stored: device memory with info.stored_bytes readable, 16-byte
 * aligned; d_out: 16-byte aligned, info.out_bytes. Any stored bytes are safe; where they are not what an encoder writes, the
 * batch remembers it for cllm_gpu_batch_check and the decoded bytes are of no meaning. May be queued again before it is done,
 * with other addresses and on other streams. Fails with USAGE (alignment), DEVICE. */
enum cllm_status cllm_gpu_batch_decode(const struct cllm_gpu_batch *batch, void *stream, const void *d_stored, void *d_out,
                                       struct cllm_error *err) CLLM_MUST_USE;

/* Waits for `stream` (null: the context's), then says whether a chunk did not decode since the batch was created or last
 * checked: CORRUPT, naming span and chunk, and in *bad_span_out and *bad_chunk_out (if not null) the first such one in the
 * order of the spans and its index in its data object. Otherwise OK, or DEVICE. */
enum cllm_status cllm_gpu_batch_check(const struct cllm_gpu_batch *batch, void *stream, size_t *bad_span_out,
                                      uint32_t *bad_chunk_out, struct cllm_error *err) CLLM_MUST_USE;

/* ------------------------------------------------------------------------------------------------------------ in one call */

/* One chunk to decode. */
struct cllm_gpu_item {
    const struct cllm_data *data; /* of a validated index */
    uint32_t chunk_index;
    const void *d_stored; /* its stored bytes and padding in device memory, 16-byte aligned */
    void *d_out;          /* device memory for its decoded bytes; 16-byte alignment is fastest, none is needed */
};

/* Device memory that a context needs, at most, to decode `item_count` chunks in one call; less where none of their code tables
 * has a palette. */
size_t cllm_gpu_scratch_bytes(size_t item_count, bool palettes);

/* Queues the decoding of many chunks; returns before it is done. `items` may be reused at once; the memory they name must live
 * until cllm_gpu_finish or cllm_gpu_finish_decode. A second call waits for the first one's scratch, not for its caller. Chunks
 * must have had their stored checksum checked or not, as the caller likes: any stored bytes are safe. Fails with NOMEM, DEVICE,
 * USAGE (a form that the GPU does not decode). */
enum cllm_status cllm_gpu_decode(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count,
                                 struct cllm_error *err) CLLM_MUST_USE;

/* Queues the SHA-256 of `item_count` decoded chunks (as decoded by cllm_gpu_decode, d_out) into d_digests, 32 bytes each.
 * d_out must be 4-byte aligned. Fails with NOMEM, DEVICE. */
enum cllm_status cllm_gpu_hash(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count, void *d_digests,
                               struct cllm_error *err) CLLM_MUST_USE;

/* The GPU as an engine for cllm_verify; to be destroyed after it is used. Fails like cllm_gpu_create. */
enum cllm_status cllm_gpu_engine_create(unsigned device_index, const struct cllm_engine **engine_out,
                                        struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null. */
void cllm_gpu_engine_destroy(const struct cllm_engine *engine);

/* Waits for everything queued. Fails with CORRUPT where a chunk's bytes were not what an encoder writes (`*bad_item_out`, if not
 * null, is the first such item of the last cllm_gpu_decode), or DEVICE. */
enum cllm_status cllm_gpu_finish(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err) CLLM_MUST_USE;

/* The same, but waits only for the last cllm_gpu_decode, not for what was queued after it. */
enum cllm_status cllm_gpu_finish_decode(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err) CLLM_MUST_USE;

#ifdef __cplusplus
}
#endif

#endif

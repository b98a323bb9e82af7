/* cllm_decode_gpu.h - public: chunks of a container decoded and hashed on a CUDA GPU.
 *
 * Built without CUDA the same functions are there: cllm_gpu_create fails with UNSUPPORTED, and nothing else can be called.
 * Thread rule: a context is used by one thread at a time; any number of contexts may exist, on the same device too.
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

/* The CUDA stream (a cudaStream_t) on which a context's work is queued. */
void *cllm_gpu_stream(const struct cllm_gpu *gpu);

/* One chunk to decode. */
struct cllm_gpu_item {
    const struct cllm_data *data; /* of a validated index */
    uint32_t chunk_index;
    const void *d_stored; /* its stored bytes and padding in device memory, 16-byte aligned */
    void *d_out;          /* device memory for its decoded bytes; 16-byte alignment is fastest, none is needed */
};

/* True for the forms that the GPU decodes: float and raw. Others go through the CPU decoder and cllm_gpu_upload. */
bool cllm_gpu_decodes(const struct cllm_chunk *chunk);

/* Device memory that a context needs, at most, to decode `item_count` chunks in one call. */
size_t cllm_gpu_scratch_bytes(size_t item_count);

/* Queues the decoding of many chunks; returns before it is done. `items` may be reused at once; the memory they name must live
 * until cllm_gpu_finish. A second call waits for the first one's scratch, not for its caller. Chunks must have had their stored
 * checksum checked or not, as the caller likes: any stored bytes are safe.
 * Fails with NOMEM, DEVICE, USAGE (a form that the GPU does not decode). */
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

#ifdef __cplusplus
}
#endif

#endif

/* compress.h - Zstandard frames (RFC 8878) as chunks and index use them. The only includer of zstd is compress.c. */
#ifndef CLLM_COMPRESS_H
#define CLLM_COMPRESS_H

#include "cllm.h"

/* Working memory of one thread, reused from call to call. */
struct cllm_compressor;
enum cllm_status cllm_compressor_create(struct cllm_compressor **compressor_out, struct cllm_error *err) CLLM_MUST_USE;
void cllm_compressor_destroy(struct cllm_compressor *compressor);

/* One frame, without content size, checksum or dictionary id: the container records those. Returns the frame's size, or 0
 * where it would not fit in `capacity`: pass one byte less than the input to learn that it does not shrink. The bytes depend
 * on `level` and on libzstd's version alone. */
size_t cllm_compress(struct cllm_compressor *compressor, const void *bytes, size_t byte_count, int level, void *out,
                     size_t capacity);

/* Decodes exactly one frame that must fill `decoded_bytes` exactly and be followed by nothing. The window, and so the memory
 * used, is bounded by decoded_bytes. Fails with CORRUPT or NOMEM. Any bytes are safe. */
enum cllm_status cllm_decompress(struct cllm_compressor *compressor, const void *frame, size_t frame_bytes, void *out,
                                 size_t decoded_bytes, struct cllm_error *err) CLLM_MUST_USE;

/* How many bytes the zstd frame takes that `bytes` starts with; 0 where there is none that ends within byte_count. */
size_t cllm_frame_bytes(const void *bytes, size_t byte_count);

/* Version of the linked library, as in "1.5.4". */
const char *cllm_compress_library_version(void);

#endif

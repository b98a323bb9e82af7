/* digest.h - checksums and digests: XXH3 for damage, SHA-256 for proof. Only digest.c includes
 * OpenSSL, and xxhash but for checksum_avx2.c. */
#ifndef CLLM_DIGEST_H
#define CLLM_DIGEST_H

#include "cllm.h"

/* XXH3-64 with seed 0 (xxHash specification 0.8, "XXH3"). Any thread. */
uint64_t cllm_checksum(const void *bytes, size_t byte_count);
uint64_t cllm_checksum_avx2(const void *bytes, size_t byte_count); /* the same, where the processor has CLLM_CPU_AVX2 */

/* SHA-256 (FIPS 180-4) of one piece of memory. Fails with NOMEM or INTERNAL (libcrypto refused). Any thread. */
enum cllm_status cllm_sha256(const void *bytes, size_t byte_count, uint8_t digest_out[CLLM_DIGEST_BYTES],
                             struct cllm_error *err) CLLM_MUST_USE;

/* SHA-256 of a stream. create -> update... -> finish -> destroy; finish may be followed by updates of a new message. */
struct cllm_sha256_stream;
enum cllm_status cllm_sha256_create(struct cllm_sha256_stream **stream_out, struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_sha256_update(struct cllm_sha256_stream *stream, const void *bytes, size_t byte_count,
                                    struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_sha256_finish(struct cllm_sha256_stream *stream, uint8_t digest_out[CLLM_DIGEST_BYTES],
                                    struct cllm_error *err) CLLM_MUST_USE;
void cllm_sha256_destroy(struct cllm_sha256_stream *stream);

/* The SHA-256 of each piece of the bytes, leaf_bytes long but for the last, 32 bytes each to leaves_out. */
enum cllm_status cllm_sha256_leaves(const void *bytes, size_t byte_count, size_t leaf_bytes, uint8_t *leaves_out,
                                    struct cllm_error *err) CLLM_MUST_USE;

/* Adds bytes to the stream like cllm_sha256_update and writes the SHA-256 of each piece of them alone, as
 * cllm_sha256_leaves does. One pass over memory, and on processors with SHA instructions less time than one after the other. */
enum cllm_status cllm_sha256_update_with_leaves(struct cllm_sha256_stream *stream, const void *bytes, size_t byte_count,
                                                size_t leaf_bytes, uint8_t *leaves_out, struct cllm_error *err) CLLM_MUST_USE;

/* Whether so many threads are done sooner with leaves hashed by all of them and the stream, which goes in order, by one, than
 * with cllm_sha256_update_with_leaves by that one. That takes less of all threads together; but from three on, all wait for the
 * one. */
bool cllm_sha256_apart(unsigned thread_count);

/* Root of a data object (FORMAT.md 8): SHA-256 over tag, decoded size, chunk size, and the SHA-256 of every decoded chunk,
 * `leaves`, leaf_count * 32 bytes. */
enum cllm_status cllm_data_root(uint64_t decoded_bytes, uint32_t chunk_bytes, const uint8_t *leaves, size_t leaf_count,
                                uint8_t root_out[CLLM_DIGEST_BYTES], struct cllm_error *err) CLLM_MUST_USE;

/* Lower-case hexadecimal, zero-terminated. Returns `out`. */
const char *cllm_digest_hex(const uint8_t digest[CLLM_DIGEST_BYTES], char out[2 * CLLM_DIGEST_BYTES + 1]);

#endif

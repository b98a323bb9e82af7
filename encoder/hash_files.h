/* hash_files.h - the SHA-256 of a source's files, which is sequential for each: several files at a time, by threads that read
 * them once more while they are packed; for pack.c alone.
 *
 * A file is read here soon after it was read there, out of the page cache. Whether both saw the same bytes is compared group by
 * group, by checksums.
 */
#ifndef CLLM_HASH_FILES_H
#define CLLM_HASH_FILES_H

#include "cllm_progress.h"
#include "cllm_source.h"

struct cllm_file_hashing;

/* How many of `thread_count` threads should hash: about a third of the work is that. 0: all threads do both. */
unsigned cllm_file_hashing_threads(const struct cllm_source *source, unsigned thread_count);

/* Starts so many threads, which wait for files; null in *hashing_out where there cannot be any. `source` must outlive the result.
 * `ahead_bytes_max`: what may be packed and not hashed; 0: a quarter of the memory, which the page cache still has. Fails with
 * NOMEM. This, advance, finish and destroy are for one thread. */
enum cllm_status cllm_file_hashing_create(const struct cllm_source *source, unsigned thread_count, uint64_t ahead_bytes_max,
                                          struct cllm_file_hashing **hashing_out, struct cllm_error *err) CLLM_MUST_USE;

/* The packer is about to read the next group, of `byte_count` bytes of a file; groups are the pieces of CLLM_GROUP_BYTES of each
 * span, in order. Waits while too much is packed and not hashed. Fails with what a thread failed with. */
enum cllm_status cllm_file_hashing_advance(struct cllm_file_hashing *hashing, uint32_t file_index, size_t byte_count,
                                           struct cllm_error *err) CLLM_MUST_USE;

/* The packer's bytes of group number `group_index`, which is not empty. Any thread. */
void cllm_file_hashing_note(struct cllm_file_hashing *hashing, uint64_t group_index, const void *bytes, size_t byte_count);

/* Waits for all files, whose groups were all noted, and gives their digests. `progress`, if not null, is asked meanwhile. Fails
 * with what a thread failed with (IO, CORRUPT, NOMEM), INTERRUPTED, or CORRUPT where a file was not the same when it was read
 * again. */
enum cllm_status cllm_file_hashing_finish(struct cllm_file_hashing *hashing, const struct cllm_progress *progress,
                                          struct cllm_file *files, struct cllm_error *err) CLLM_MUST_USE;

/* Ends the threads. Accepts null. */
void cllm_file_hashing_destroy(struct cllm_file_hashing *hashing);

#endif

/* cllm_decode.h - public: container bytes back to decoded bytes, on the CPU. */
#ifndef CLLM_DECODE_H
#define CLLM_DECODE_H

#include "cllm.h"

/* Called now and then with the decoded bytes done so far and in all; return false to stop (the caller gets INTERRUPTED). */
struct cllm_progress {
    bool (*report)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *user;
};

/* One data object to decode and where to: `destination` has exactly the object's decoded_bytes and any alignment. */
struct cllm_load {
    uint32_t data_index;
    void *destination;
};

/* Decodes whole data objects into memory with `thread_count` threads (0: as many as the process may use). Every chunk's
 * stored checksum is checked; digests over decoded bytes are not (cllm_verify does that). `progress` may be null.
 * Fails with IO, NOMEM, CORRUPT, DIGEST, USAGE (no such object), INTERRUPTED; destinations are then unspecified.
 * Any stored bytes are safe. */
enum cllm_status cllm_load_data(const struct cllm_reader *reader, const struct cllm_load *loads, size_t load_count,
                                unsigned thread_count, const struct cllm_progress *progress, struct cllm_error *err) CLLM_MUST_USE;

/* A whole file of the container in memory: a fresh allocation of its size plus one zero byte, to be freed by the caller.
 * Its SHA-256 is checked. Refuses (LIMIT) files larger than `limit_bytes`. Fails otherwise like cllm_load_data. */
enum cllm_status cllm_load_file(const struct cllm_reader *reader, const struct cllm_file *file, uint64_t limit_bytes,
                                uint8_t **bytes_out, size_t *byte_count_out, struct cllm_error *err) CLLM_MUST_USE;

#endif

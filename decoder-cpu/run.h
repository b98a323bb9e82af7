/* run.h - a run: consecutive chunks of one data object, read with one system call. The unit of work of a decoding thread. */
#ifndef CLLM_RUN_H
#define CLLM_RUN_H

#include "cllm_decode.h"

/* Where in the container a run lies. */
struct cllm_run {
    uint32_t data_index;
    uint32_t first_chunk;
    uint32_t chunk_count; /* 0 only for a data object without bytes */
    bool last;            /* it ends its data object */
};

/* Decoded bytes of a run that keep a thread busy and fit its caches. */
#define CLLM_RUN_BYTES (1u << 20)

/* The run that starts at `first_chunk`: as many chunks as decode to `run_bytes`, at least one where there is one. */
struct cllm_run cllm_run_at(const struct cllm_reader *reader, uint32_t data_index, uint32_t first_chunk, uint32_t run_bytes);

uint64_t cllm_run_decoded_bytes(const struct cllm_reader *reader, const struct cllm_run *run);

/* Buffers of one job, grown as needed; one thread at a time. Zero-initialise. */
struct cllm_run_buffers {
    struct cllm_decoder *decoder;
    uint8_t *stored;
    size_t stored_capacity;
    uint8_t *decoded;
    size_t decoded_capacity;
};

void cllm_run_buffers_free(struct cllm_run_buffers *buffers);

/* Reads the stored bytes of the run into buffers->stored and makes room in buffers->decoded if `decoded`. Fails with IO, NOMEM,
 * CORRUPT. */
enum cllm_status cllm_run_read(const struct cllm_reader *reader, const struct cllm_run *run, bool decoded,
                               struct cllm_run_buffers *buffers, struct cllm_error *err) CLLM_MUST_USE;

/* Checks the checksum of chunk k of a run read and, where `out` is not null, decodes it there. Failures name the chunk. */
enum cllm_status cllm_run_decode_chunk(const struct cllm_reader *reader, const struct cllm_run *run, uint32_t k,
                                       struct cllm_run_buffers *buffers, uint8_t *out, struct cllm_error *err) CLLM_MUST_USE;

#endif

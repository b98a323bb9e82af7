/* reader.h - what decoders need of an open container beyond cllm.h. */
#ifndef CLLM_READER_H
#define CLLM_READER_H

#include "cllm.h"

/* Slack that follows every stored chunk in a buffer, zeroed, so that decoders may load ahead. */
#define CLLM_READ_SLACK_BYTES 64u

/* Reads the stored bytes of `chunk_count` consecutive chunks with one system call; nothing is checked. `buffer` needs
 * cllm_run_buffer_bytes; chunk k starts at its stored_offset less that of the first chunk; slack is zeroed. Fails with IO, or
 * CORRUPT where the file has become shorter. Any thread. */
enum cllm_status cllm_reader_read_run(const struct cllm_reader *reader, uint32_t data_index, uint32_t first_chunk,
                                      uint32_t chunk_count, uint8_t *buffer, struct cllm_error *err) CLLM_MUST_USE;

/* Checks the checksum and the padding of a chunk read. Fails with DIGEST or CORRUPT, naming the chunk. Any thread. */
enum cllm_status cllm_reader_check_chunk(const struct cllm_reader *reader, uint32_t data_index, uint32_t chunk_index,
                                         const uint8_t *stored, struct cllm_error *err) CLLM_MUST_USE;

/* Both at once, for long runs: a few chunks are read, and checked while the processor's cache has them. Fails like both. */
enum cllm_status cllm_reader_read_checked(const struct cllm_reader *reader, uint32_t data_index, uint32_t first_chunk,
                                          uint32_t chunk_count, uint8_t *buffer, struct cllm_error *err) CLLM_MUST_USE;

size_t cllm_run_buffer_bytes(const struct cllm_data *data, uint32_t first_chunk, uint32_t chunk_count);

/* Reads bytes of the container as they are. Fails with IO, or CORRUPT where the file has become shorter. Any thread. */
enum cllm_status cllm_reader_read(const struct cllm_reader *reader, uint64_t offset, void *buffer, size_t byte_count,
                                  struct cllm_error *err) CLLM_MUST_USE;

/* Puts "DATA, chunk N, bytes A to B: " before a failure of that chunk. Returns its status. */
enum cllm_status cllm_reader_blame_chunk(const struct cllm_reader *reader, uint32_t data_index, uint32_t chunk_index,
                                         enum cllm_status status, struct cllm_error *err);

#endif

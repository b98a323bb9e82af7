/* writer.h - builds a container front to back: data objects chunk by chunk, then tensors and files, then index and footer.
 * One thread at a time. Bytes go to a cllm_output, which the caller owns, commits or discards. */
#ifndef CLLM_WRITER_H
#define CLLM_WRITER_H

#include "cllm.h"
#include "output.h"

struct cllm_writer;

/* Writes the header. Fails with IO or NOMEM. */
enum cllm_status cllm_writer_create(struct cllm_output *output, struct cllm_writer **writer_out,
                                    struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null; the output is left alone. */
void cllm_writer_destroy(struct cllm_writer *writer);

/* Starts a data object; `layout` may be all zero. chunk_bytes: a power of two within the limits of FORMAT.md 11. */
enum cllm_status cllm_writer_begin_data(struct cllm_writer *writer, uint64_t decoded_bytes, uint32_t chunk_bytes,
                                        const struct cllm_layout *layout, struct cllm_error *err) CLLM_MUST_USE;

/* Adds a code table to the data object begun; `*index_out` is what its chunks refer to. The table is copied. */
enum cllm_status cllm_writer_add_table(struct cllm_writer *writer, const struct cllm_table *table, uint16_t *index_out,
                                       struct cllm_error *err) CLLM_MUST_USE;

/* A chunk ready for the container. `stored` has the chunk's stored_bytes and room for up to 15 bytes more. */
struct cllm_ready_chunk {
    struct cllm_chunk chunk; /* form, table_index, stored_bytes and checksum count */
    uint8_t *stored;
};

/* Zeroes the padding and computes the checksum, which is all that is left to do to the bytes of a chunk. Any thread. */
void cllm_writer_seal(struct cllm_ready_chunk *ready);

/* Adds the next chunks of the data object begun, all sealed. */
enum cllm_status cllm_writer_add_chunks(struct cllm_writer *writer, const struct cllm_ready_chunk *ready, uint32_t count,
                                        struct cllm_error *err) CLLM_MUST_USE;

/* Seals and adds one. */
enum cllm_status cllm_writer_add_chunk(struct cllm_writer *writer, const struct cllm_chunk *chunk, uint8_t *stored,
                                       struct cllm_error *err) CLLM_MUST_USE;

/* Ends the data object, whose root digest is now known. Where an equal one was written before, this one's bytes are taken back
 * and `*index_out` is the earlier one's, `*shared_out` true. */
enum cllm_status cllm_writer_end_data(struct cllm_writer *writer, const uint8_t root[CLLM_DIGEST_BYTES], uint32_t *index_out,
                                      bool *shared_out, struct cllm_error *err) CLLM_MUST_USE;

/* What tensors and files point to must live until the writer is destroyed. Tensors come in ascending order of file_index.
 * Fail with NOMEM, or LIMIT (a name, dtype or rank beyond FORMAT.md 11). */
enum cllm_status cllm_writer_add_tensor(struct cllm_writer *writer, const struct cllm_tensor *tensor,
                                        struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_writer_add_file(struct cllm_writer *writer, const struct cllm_file *file,
                                      struct cllm_error *err) CLLM_MUST_USE;

/* Writes index and footer; nothing can be added afterwards. The index is parsed again before it is written, so that what this
 * build writes is what it reads. Fails with IO, NOMEM, LIMIT, or what the parse found (INTERNAL for a bug, CORRUPT for names
 * that the format does not allow). */
enum cllm_status cllm_writer_finish(struct cllm_writer *writer, uint8_t root_out[CLLM_DIGEST_BYTES],
                                    struct cllm_error *err) CLLM_MUST_USE;

#endif

/* run.c - see run.h. */
#include "run.h"

#include "reader.h"

#include <stdlib.h>

struct cllm_run cllm_run_at(const struct cllm_reader *reader, uint32_t data_index, uint32_t first_chunk, uint32_t run_bytes)
{
    const struct cllm_data *data = &cllm_reader_index(reader)->data[data_index];
    uint32_t left = data->chunk_count - first_chunk;
    uint32_t fitting = data->chunk_bytes < run_bytes ? run_bytes / data->chunk_bytes : 1;
    return (struct cllm_run){data_index, first_chunk, left < fitting ? left : fitting, left <= fitting};
}

uint64_t cllm_run_decoded_bytes(const struct cllm_reader *reader, const struct cllm_run *run)
{
    const struct cllm_data *data = &cllm_reader_index(reader)->data[run->data_index];
    if (!run->last) return (uint64_t)run->chunk_count * data->chunk_bytes;
    return data->decoded_bytes - (uint64_t)run->first_chunk * data->chunk_bytes;
}

void cllm_run_buffers_free(struct cllm_run_buffers *buffers)
{
    cllm_decoder_destroy(buffers->decoder);
    free(buffers->stored);
    free(buffers->decoded);
}

static enum cllm_status reserve(uint8_t **buffer, size_t *capacity, size_t byte_count, struct cllm_error *err)
{
    if (byte_count <= *capacity) return CLLM_OK;
    free(*buffer);
    *capacity = 0;
    *buffer = malloc(byte_count);
    if (!*buffer) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a buffer of %zu bytes", byte_count);
    *capacity = byte_count;
    return CLLM_OK;
}

enum cllm_status cllm_run_read(const struct cllm_reader *reader, const struct cllm_run *run, bool decoded,
                               struct cllm_run_buffers *buffers, struct cllm_error *err)
{
    const struct cllm_data *data = &cllm_reader_index(reader)->data[run->data_index];
    if (run->chunk_count == 0) return CLLM_OK;
    enum cllm_status status = buffers->decoder ? CLLM_OK : cllm_decoder_create(&buffers->decoder, err);
    size_t stored_bytes = cllm_run_buffer_bytes(data, run->first_chunk, run->chunk_count);
    if (!status) status = reserve(&buffers->stored, &buffers->stored_capacity, stored_bytes, err);
    if (!status && decoded) {
        status = reserve(&buffers->decoded, &buffers->decoded_capacity, (size_t)cllm_run_decoded_bytes(reader, run), err);
    }
    if (status) return status;
    return cllm_reader_read_run(reader, run->data_index, run->first_chunk, run->chunk_count, buffers->stored, err);
}

enum cllm_status cllm_run_decode_chunk(const struct cllm_reader *reader, const struct cllm_run *run, uint32_t k,
                                       struct cllm_run_buffers *buffers, uint8_t *out, struct cllm_error *err)
{
    const struct cllm_data *data = &cllm_reader_index(reader)->data[run->data_index];
    const struct cllm_chunk *chunk = &data->chunks[run->first_chunk + k];
    const uint8_t *stored = buffers->stored + (chunk->stored_offset - data->chunks[run->first_chunk].stored_offset);
    enum cllm_status status = cllm_reader_check_chunk(reader, run->data_index, run->first_chunk + k, stored, err);
    if (status || !out) return status;
    status = cllm_decode_chunk(buffers->decoder, data, chunk, stored, out, err);
    return status ? cllm_reader_blame_chunk(reader, run->data_index, run->first_chunk + k, status, err) : CLLM_OK;
}

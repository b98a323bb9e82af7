/* decode_twice.h - a chunk decodes or is corrupt, the same whatever stands behind its stored bytes; shared by fuzz targets. */
#ifndef CLLM_DECODE_TWICE_H
#define CLLM_DECODE_TWICE_H

#include "cllm_decode.h"
#include "codec.h"

#include <stdlib.h>
#include <string.h>

/* Decodes the chunk's stored `bytes` with zeros and with other bytes behind them, in buffers that have exactly their size, and
 * aborts where the outcomes differ or are another than these two. */
static inline void decode_twice(const struct cllm_data *data, const struct cllm_chunk *chunk, const uint8_t *bytes)
{
    static struct cllm_decoder *decoder; /* kept, so that what is left from the chunk before would show */
    uint8_t *stored = malloc(cllm_chunk_buffer_bytes(chunk)),
            *out[2] = {malloc(chunk->decoded_bytes), malloc(chunk->decoded_bytes)};
    enum cllm_status status[2];
    struct cllm_error err;
    if (!decoder && cllm_decoder_create(&decoder, &err)) abort();
    if (!stored || !out[0] || !out[1]) abort();
    for (int k = 0; k < 2; k++) {
        memset(stored, k ? 0xA5 : 0, cllm_chunk_buffer_bytes(chunk));
        memcpy(stored, bytes, chunk->stored_bytes);
        status[k] = cllm_decode_chunk(decoder, data, chunk, stored, out[k], &err);
    }
    if (status[0] != status[1] || (status[0] != CLLM_OK && status[0] != CLLM_E_CORRUPT)) abort();
    if (status[0] == CLLM_OK && memcmp(out[0], out[1], chunk->decoded_bytes) != 0) abort();
    free(stored);
    free(out[0]);
    free(out[1]);
}

#endif

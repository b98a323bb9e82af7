/* decode.c - one chunk: dispatch by form and the checks that all forms share. */
#include "cllm_decode.h"

#include "compress.h"
#include "decode_float.h"
#include "reader.h"
#include "shuffle.h"

#include <stdlib.h>

struct cllm_decoder {
    struct cllm_compressor *compressor;
    uint8_t *scratch;
    size_t scratch_capacity;
    struct cllm_float_lookup lookup;
};

enum cllm_status cllm_decoder_create(struct cllm_decoder **decoder_out, struct cllm_error *err)
{
    struct cllm_decoder *decoder = calloc(1, sizeof *decoder);
    *decoder_out = decoder;
    if (!decoder) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a decoder");
    enum cllm_status status = cllm_compressor_create(&decoder->compressor, err);
    if (status) {
        free(decoder);
        *decoder_out = NULL;
    }
    return status;
}

void cllm_decoder_destroy(struct cllm_decoder *decoder)
{
    if (!decoder) return;
    cllm_compressor_destroy(decoder->compressor);
    free(decoder->scratch);
    free(decoder);
}

static enum cllm_status reserve_scratch(struct cllm_decoder *decoder, size_t byte_count, struct cllm_error *err)
{
    if (byte_count <= decoder->scratch_capacity) return CLLM_OK;
    free(decoder->scratch);
    decoder->scratch_capacity = 0;
    decoder->scratch = malloc(byte_count);
    if (!decoder->scratch)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for decoding, %zu bytes", byte_count);
    decoder->scratch_capacity = byte_count;
    return CLLM_OK;
}

/* Elements in float form, `decoded_bytes` of them, by one table of the data object. */
static enum cllm_status decode_elements(struct cllm_decoder *decoder, const struct cllm_data *data,
                                        const struct cllm_table *table, uint32_t decoded_bytes, const uint8_t *stored,
                                        uint32_t stored_bytes, uint8_t *out, struct cllm_error *err)
{
    struct cllm_float_view view;
    uint8_t palette[256 * sizeof(uint64_t)] = {0}; /* whatever a symbol is, there is a value */
    const struct cllm_layout layout = table->value_bytes ? cllm_layout_of_palette(&data->layout) : data->layout;
    enum cllm_status status = cllm_float_view_parse(&layout, decoded_bytes, stored, stored_bytes, &view, err);
    if (!status) status = reserve_scratch(decoder, cllm_float_scratch_bytes(&layout, &view), err);
    if (status) return status;
    if (table->value_bytes) {
        memcpy(palette, table->values, cllm_table_values_bytes(table));
        view.palette = palette;
    }
    cllm_float_lookup_build(&decoder->lookup, table);
    return cllm_float_decoder(cllm_cpu_tier())(&decoder->lookup, &layout, &view, decoder->scratch, out, err);
}

static enum cllm_status decode_float(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                     const uint8_t *stored, uint8_t *out, struct cllm_error *err)
{
    return decode_elements(decoder, data, &data->tables[chunk->table_index], chunk->decoded_bytes, stored, chunk->stored_bytes,
                           out, err);
}

static enum cllm_status decode_planes(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                      const uint8_t *stored, uint8_t *out, struct cllm_error *err)
{
    unsigned element_bytes = data->layout.element_bytes;
    enum cllm_status status = reserve_scratch(decoder, chunk->decoded_bytes, err);
    if (status) return status;
    uint32_t count = chunk->decoded_bytes / element_bytes;
    const uint8_t *end = stored + chunk->stored_bytes;
    for (unsigned k = 0; k < element_bytes && !status; k++) {
        size_t left = (size_t)(end - stored), frame_bytes = k + 1 == element_bytes ? left : cllm_frame_bytes(stored, left);
        status = cllm_decompress(decoder->compressor, stored, frame_bytes, decoder->scratch + (size_t)k * count, count, err);
        stored += frame_bytes;
    }
    if (!status) cllm_unshuffle(decoder->scratch, element_bytes, count, out);
    return status;
}

enum cllm_status cllm_decode_chunk(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                   const uint8_t *stored, uint8_t *out, struct cllm_error *err)
{
    switch (chunk->form) {
    case CLLM_FORM_RAW: memcpy(out, stored, chunk->decoded_bytes); return CLLM_OK;
    case CLLM_FORM_ZSTD: return cllm_decompress(decoder->compressor, stored, chunk->stored_bytes, out, chunk->decoded_bytes, err);
    case CLLM_FORM_FLOAT: return decode_float(decoder, data, chunk, stored, out, err);
    case CLLM_FORM_PLANES: return decode_planes(decoder, data, chunk, stored, out, err);
    default:
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "chunk has form %u, this build decodes forms 0 to 3",
                         chunk->form);
    }
}

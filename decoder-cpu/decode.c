/* decode.c - one chunk: dispatch by form and the checks that all forms share. */
#include "cllm_decode.h"

#include "bytes.h"
#include "compress.h"
#include "decode_float.h"
#include "reader.h"
#include "shuffle.h"

#include <stdlib.h>

struct cllm_decoder {
    struct cllm_compressor *compressor;
    uint8_t *scratch;
    size_t scratch_capacity;
    uint8_t *presence; /* which elements of a chunk are there */
    size_t presence_capacity;
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
    free(decoder->presence);
    free(decoder);
}

static enum cllm_status reserve(uint8_t **bytes, size_t *capacity, size_t byte_count, struct cllm_error *err)
{
    if (byte_count <= *capacity) return CLLM_OK;
    free(*bytes);
    *capacity = 0;
    *bytes = malloc(byte_count);
    if (!*bytes) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for decoding, %zu bytes", byte_count);
    *capacity = byte_count;
    return CLLM_OK;
}

static enum cllm_status reserve_scratch(struct cllm_decoder *decoder, size_t byte_count, struct cllm_error *err)
{
    return reserve(&decoder->scratch, &decoder->scratch_capacity, byte_count, err);
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

#define SPREAD_BLOCK 64u

/* Spreads the elements at `packed`, which end where `out` does, over `out`, zeros between. A block of them is taken away before
 * its place is written; later ones lie behind it. */
static inline __attribute__((always_inline)) void spread(const uint8_t *presence, const uint8_t *packed, size_t element_bytes,
                                                         uint32_t element_count, uint8_t *out)
{
    uint8_t block[SPREAD_BLOCK * sizeof(uint64_t)], bits[8];
    for (uint32_t first = 0, count; first < element_count; first += count, out += count * element_bytes) {
        count = element_count - first < SPREAD_BLOCK ? element_count - first : SPREAD_BLOCK;
        memset(bits, 0, sizeof bits);
        memcpy(bits, presence + first / 8, (count + 7) / 8);
        uint64_t word = cllm_load_le64(bits);
        size_t taken = (size_t)__builtin_popcountll(word) * element_bytes;
        const uint8_t *from = block;
        memcpy(block, packed, taken);
        packed += taken;
        memset(out, 0, count * element_bytes);
        for (; word; word &= word - 1, from += element_bytes)
            memcpy(out + (size_t)__builtin_ctzll(word) * element_bytes, from, element_bytes);
    }
}

static void spread_elements(const uint8_t *presence, const uint8_t *packed, unsigned element_bytes, uint32_t element_count,
                            uint8_t *out)
{
    switch (element_bytes) {
    case 1: spread(presence, packed, 1, element_count, out); break;
    case 2: spread(presence, packed, 2, element_count, out); break;
    case 4: spread(presence, packed, 4, element_count, out); break;
    default: spread(presence, packed, 8, element_count, out); break;
    }
}

/* Reads which of `element_count` elements are there, the frame of `frame_bytes`. */
static enum cllm_status decode_presence(struct cllm_decoder *decoder, const uint8_t *frame, size_t frame_bytes,
                                        uint32_t element_count, uint32_t *present_out, struct cllm_error *err)
{
    size_t presence_bytes = ((size_t)element_count + 7) / 8;
    enum cllm_status status = reserve(&decoder->presence, &decoder->presence_capacity, presence_bytes, err);
    if (!status) status = cllm_decompress(decoder->compressor, frame, frame_bytes, decoder->presence, presence_bytes, err);
    if (status) return status;
    uint32_t present = 0;
    for (size_t i = 0; i < presence_bytes; i++) present += (uint32_t)__builtin_popcount(decoder->presence[i]);
    if (element_count % 8 && decoder->presence[presence_bytes - 1] >> element_count % 8 != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "sparse chunk has elements beyond its %u", element_count);
    }
    if (present == 0) return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "sparse chunk has no element");
    *present_out = present;
    return CLLM_OK;
}

static enum cllm_status decode_sparse(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                      const uint8_t *stored, uint8_t *out, struct cllm_error *err)
{
    unsigned element_bytes = data->layout.element_bytes;
    uint32_t element_count = chunk->decoded_bytes / element_bytes, present = 0;
    uint32_t frame_bytes = (uint32_t)cllm_frame_bytes(stored, chunk->stored_bytes);
    enum cllm_status status = decode_presence(decoder, stored, frame_bytes, element_count, &present, err);
    if (status) return status;
    uint8_t *packed = out + (size_t)(element_count - present) * element_bytes;
    status = decode_elements(decoder, data, &data->tables[chunk->table_index], present * element_bytes, stored + frame_bytes,
                             chunk->stored_bytes - frame_bytes, packed, err);
    if (!status) spread_elements(decoder->presence, packed, element_bytes, element_count, out);
    return status;
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
    case CLLM_FORM_SPARSE: return decode_sparse(decoder, data, chunk, stored, out, err);
    default:
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "chunk has form %u, this build decodes forms 0 to 4",
                         chunk->form);
    }
}

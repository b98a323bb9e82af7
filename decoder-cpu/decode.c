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

/* What a sparse chunk says of all its elements, in the decoder's memory. */
struct presence {
    const uint8_t *bits;  /* one for each element: whether it is there */
    const uint8_t *signs; /* one for each that is not */
    uint32_t element_count;
    uint32_t present_count;
    bool has_signs;
};

#define SPREAD_BLOCK 64u

/* Spreads the elements at `packed`, which end where `out` does, over `out`, zeros between. A block of them is taken away before
 * its place is written; later ones lie behind it. */
static inline __attribute__((always_inline)) void spread(const struct presence *presence, const uint8_t *packed,
                                                         size_t element_bytes, uint8_t *out)
{
    uint8_t block[SPREAD_BLOCK * sizeof(uint64_t)], bits[8];
    uint32_t absent = 0;
    for (uint32_t first = 0, count; first < presence->element_count; first += count, out += count * element_bytes) {
        count = presence->element_count - first < SPREAD_BLOCK ? presence->element_count - first : SPREAD_BLOCK;
        memset(bits, 0, sizeof bits);
        memcpy(bits, presence->bits + first / 8, (count + 7) / 8);
        uint64_t word = cllm_load_le64(bits), others = ~word & UINT64_MAX >> (SPREAD_BLOCK - count);
        size_t taken = (size_t)__builtin_popcountll(word) * element_bytes;
        const uint8_t *from = block;
        memcpy(block, packed, taken);
        packed += taken;
        memset(out, 0, count * element_bytes);
        for (; word; word &= word - 1, from += element_bytes)
            memcpy(out + (size_t)__builtin_ctzll(word) * element_bytes, from, element_bytes);
        for (; presence->has_signs && others; others &= others - 1, absent++) {
            uint8_t sign = presence->signs[absent / 8] >> absent % 8 & 1;
            out[((size_t)__builtin_ctzll(others) + 1) * element_bytes - 1] = (uint8_t)(sign << 7);
        }
    }
}

static void spread_elements(const struct presence *presence, const uint8_t *packed, unsigned element_bytes, uint8_t *out)
{
    switch (element_bytes) {
    case 1: spread(presence, packed, 1, out); break;
    case 2: spread(presence, packed, 2, out); break;
    case 4: spread(presence, packed, 4, out); break;
    default: spread(presence, packed, 8, out); break;
    }
}

/* A frame of `bit_count` bits at the start of `left` bytes; those at the end that are not used must be zero. */
static enum cllm_status decode_bits(struct cllm_decoder *decoder, const uint8_t *stored, uint32_t left, uint32_t bit_count,
                                    uint8_t *out, uint32_t *frame_bytes_out, struct cllm_error *err)
{
    size_t byte_count = ((size_t)bit_count + 7) / 8;
    *frame_bytes_out = (uint32_t)cllm_frame_bytes(stored, left);
    enum cllm_status status = cllm_decompress(decoder->compressor, stored, *frame_bytes_out, out, byte_count, err);
    if (!status && bit_count % 8 && out[byte_count - 1] >> bit_count % 8 != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "sparse chunk has bits beyond the %u due", bit_count);
    }
    return status;
}

/* Decodes the two frames at the start of a sparse chunk and says how long they are. */
static enum cllm_status decode_presence(struct cllm_decoder *decoder, const uint8_t *stored, uint32_t stored_bytes,
                                        uint32_t element_count, struct presence *presence_out, uint32_t *frames_bytes_out,
                                        struct cllm_error *err)
{
    size_t presence_bytes = ((size_t)element_count + 7) / 8;
    uint32_t present = 0, first = 0, second = 0;
    enum cllm_status status = reserve(&decoder->presence, &decoder->presence_capacity, 2 * presence_bytes, err);
    if (status) return status;
    uint8_t *bits = decoder->presence, *signs = bits + presence_bytes, any = 0;
    status = decode_bits(decoder, stored, stored_bytes, element_count, bits, &first, err);
    if (status) return status;
    for (size_t i = 0; i < presence_bytes; i++) present += (uint32_t)__builtin_popcount(bits[i]);
    if (present == 0 || present == element_count) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "sparse chunk has %u of %u elements, expected some", present,
                         element_count);
    }
    status = decode_bits(decoder, stored + first, stored_bytes - first, element_count - present, signs, &second, err);
    for (size_t i = 0; i < ((size_t)element_count - present + 7) / 8 && !status; i++) any |= signs[i];
    *presence_out = (struct presence){bits, signs, element_count, present, any != 0};
    *frames_bytes_out = first + second;
    return status;
}

static enum cllm_status decode_sparse(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                      const uint8_t *stored, uint8_t *out, struct cllm_error *err)
{
    unsigned element_bytes = data->layout.element_bytes;
    uint32_t element_count = chunk->decoded_bytes / element_bytes, frames = 0;
    struct presence presence;
    enum cllm_status status = decode_presence(decoder, stored, chunk->stored_bytes, element_count, &presence, &frames, err);
    if (status) return status;
    uint8_t *packed = out + (size_t)(element_count - presence.present_count) * element_bytes;
    status = decode_elements(decoder, data, &data->tables[chunk->table_index], presence.present_count * element_bytes,
                             stored + frames, chunk->stored_bytes - frames, packed, err);
    if (!status) spread_elements(&presence, packed, element_bytes, out);
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

/* decode.c - one chunk: dispatch by form and the checks that all forms share. */
#include "cllm_decode.h"

#include "bytes.h"
#include "compress.h"
#include "decode_float.h"
#include "reader.h"
#include "scaled.h"
#include "shuffle.h"

#include <stdlib.h>

struct cllm_decoder {
    struct cllm_compressor *compressor;
    uint8_t *scratch;
    size_t scratch_capacity;
    uint8_t *masks; /* of a sparse chunk, and symbols that they follow from */
    size_t masks_capacity;
    struct cllm_float_lookup lookup;
    struct cllm_float_lookup mask_lookup;
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
    free(decoder->masks);
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

/* A part of a chunk in float form: `decoded_bytes` of elements of `layout`, by a code that `lookup` keeps. */
static enum cllm_status decode_part(struct cllm_decoder *decoder, struct cllm_float_lookup *lookup,
                                    const struct cllm_layout *layout, const struct cllm_table *table, uint32_t decoded_bytes,
                                    const uint8_t *stored, uint32_t stored_bytes, uint8_t *out, struct cllm_error *err)
{
    struct cllm_float_view view;
    uint8_t palette[256 * sizeof(uint64_t)] = {0}; /* whatever a symbol is, there is a value */
    enum cllm_status status = cllm_float_view_parse(layout, decoded_bytes, stored, stored_bytes, &view, err);
    if (!status) status = reserve_scratch(decoder, cllm_float_scratch_bytes(layout, &view), err);
    if (status) return status;
    if (table->value_bytes) {
        memcpy(palette, table->values, cllm_table_values_bytes(table));
        view.palette = palette;
    }
    cllm_float_lookup_build(lookup, table);
    return cllm_float_decoder(cllm_cpu_tier())(lookup, layout, &view, decoder->scratch, out, err);
}

/* Elements of a chunk, by its code table. */
static enum cllm_status decode_elements(struct cllm_decoder *decoder, const struct cllm_data *data,
                                        const struct cllm_chunk *chunk, uint32_t decoded_bytes, const uint8_t *stored,
                                        uint32_t stored_bytes, uint8_t *out, struct cllm_error *err)
{
    const struct cllm_table *table = &data->tables[chunk->table_index];
    const struct cllm_layout layout = table->value_bytes ? cllm_layout_of_palette(&data->layout) : data->layout;
    return decode_part(decoder, &decoder->lookup, &layout, table, decoded_bytes, stored, stored_bytes, out, err);
}

/* ------------------------------------------------------------------------------------------------------------- sparse */

/* What masks say of the things that they are of. */
struct presence {
    const uint8_t *bits;  /* one for each: whether it is there */
    const uint8_t *signs; /* one for each that is not; null: none is negative */
    uint32_t count;
};

#define SPREAD_BLOCK 64u

/* Spreads the elements at `packed`, which may end where `out` does, over `out`, zeros between. A block of them is taken away
 * before its place is written; later ones lie behind it. */
static inline __attribute__((always_inline)) void spread(const struct presence *presence, const uint8_t *packed,
                                                         size_t element_bytes, uint8_t *out)
{
    uint8_t block[SPREAD_BLOCK * sizeof(uint64_t)], bits[8];
    uint32_t absent = 0;
    for (uint32_t first = 0, count; first < presence->count; first += count, out += count * element_bytes) {
        count = presence->count - first < SPREAD_BLOCK ? presence->count - first : SPREAD_BLOCK;
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
        for (; presence->signs && others; others &= others - 1, absent++) {
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

/* Of `bit_count` bits as many as expected are set, and none behind them. */
static enum cllm_status check_bits(const uint8_t *bits, uint32_t bit_count, uint32_t expected, struct cllm_error *err)
{
    uint32_t count = 0, byte_count = cllm_mask_bytes(bit_count);
    for (uint32_t i = 0; i < byte_count; i++) count += (uint32_t)__builtin_popcount(bits[i]);
    if (count != expected || (bit_count % 8 && bits[byte_count - 1] >> bit_count % 8 != 0)) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "sparse chunk has masks of %u set bits, expected %u among the first %u", count, expected, bit_count);
    }
    return CLLM_OK;
}

/* Decodes the masks of `element_count` elements, the last part of a chunk, into the decoder's memory. */
static enum cllm_status decode_masks(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                     const struct cllm_sparse_head *head, const uint8_t *stored, uint32_t element_count,
                                     struct cllm_error *err)
{
    const struct cllm_layout layout = cllm_layout_of_masks(&data->layout);
    const uint32_t mask_count = cllm_mask_bytes(element_count), top = cllm_mask_bytes(mask_count);
    const uint32_t offset = CLLM_SPARSE_HEAD_BYTES + head->float_bytes + head->sign_bytes;
    const bool levels = cllm_sparse_has_levels(head, element_count);
    enum cllm_status status = reserve(&decoder->masks, &decoder->masks_capacity, 2 * (size_t)mask_count, err);
    if (status) return status;
    uint8_t *masks = decoder->masks, *symbols = levels ? masks + mask_count : masks;
    status = decode_part(decoder, &decoder->mask_lookup, &layout, &data->tables[chunk->mask_table_index], head->mask_count,
                         stored + offset, chunk->stored_bytes - offset, symbols, err);
    if (!status && levels) {
        const struct presence presence = {symbols, NULL, mask_count};
        status = check_bits(symbols, mask_count, head->mask_count - top, err);
        if (!status) spread_elements(&presence, symbols + top, 1, masks);
    }
    return status ? status : check_bits(masks, element_count, head->present_count, err);
}

/* The elements that are there are decoded to where they end with `out`, and spread from there. */
static enum cllm_status decode_sparse(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                      const uint8_t *stored, uint8_t *out, struct cllm_error *err)
{
    const uint32_t element_bytes = data->layout.element_bytes, element_count = chunk->decoded_bytes / element_bytes;
    struct cllm_sparse_head head = {0, 0, 0, 0};
    if (chunk->stored_bytes >= CLLM_SPARSE_HEAD_BYTES) {
        head = (struct cllm_sparse_head){cllm_load_le32(stored), cllm_load_le32(stored + 4), cllm_load_le32(stored + 8),
                                         cllm_load_le32(stored + 12)};
    }
    if (!cllm_sparse_head_fits(&head, element_count, chunk->stored_bytes)) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "sparse chunk of %u elements in %u bytes has parts that do not fit: %u, %u, %u, %u", element_count,
                         chunk->stored_bytes, head.float_bytes, head.sign_bytes, head.mask_count, head.present_count);
    }
    const uint32_t absent_count = element_count - head.present_count;
    const uint8_t *elements = stored + CLLM_SPARSE_HEAD_BYTES, *signs = elements + head.float_bytes;
    uint8_t *packed = out + (size_t)absent_count * element_bytes;
    enum cllm_status status = decode_masks(decoder, data, chunk, &head, stored, element_count, err);
    if (!status && head.sign_bytes && absent_count % 8 && signs[head.sign_bytes - 1] >> absent_count % 8 != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "sparse chunk has signs beyond the %u due", absent_count);
    }
    if (!status) {
        status =
            decode_elements(decoder, data, chunk, head.present_count * element_bytes, elements, head.float_bytes, packed, err);
    }
    const struct presence presence = {decoder->masks, head.sign_bytes ? signs : NULL, element_count};
    if (!status) spread_elements(&presence, packed, element_bytes, out);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- scaled */

static float load_scale(const struct cllm_scaled_head *head, const uint8_t *scales, uint32_t group)
{
    if (head->scale_type == CLLM_SCALE_F32) return cllm_float_of_bits(cllm_load_le32(scales + (size_t)group * 4));
    return cllm_scale_of_f16(cllm_load_le16(scales + (size_t)group * 2));
}

/* Neither negative nor infinite nor NaN, so that every product is a number with one pattern of bits. */
static bool are_scales_good(const struct cllm_scaled_head *head, const uint8_t *scales, uint32_t group_count)
{
    bool good = true;
    for (uint32_t i = 0; i < group_count; i++) {
        good &= head->scale_type == CLLM_SCALE_F32 ? cllm_load_le32(scales + (size_t)i * 4) < 0x7F800000
                                                   : cllm_load_le16(scales + (size_t)i * 2) < 0x7C00;
    }
    return good;
}

/* Multiplies levels where they lie. */
static inline __attribute__((always_inline)) void multiply_group(enum cllm_scaled_type type, float scale, uint8_t *elements,
                                                                 uint32_t count)
{
    for (uint32_t i = 0; i < count && type == CLLM_SCALED_F32; i++) {
        cllm_store_le32(elements + (size_t)i * 4, cllm_scaled_element(type, cllm_load_le32(elements + (size_t)i * 4), scale));
    }
    for (uint32_t i = 0; i < count && type != CLLM_SCALED_F32; i++) {
        cllm_store_le16(elements + (size_t)i * 2,
                        (uint16_t)cllm_scaled_element(type, cllm_load_le16(elements + (size_t)i * 2), scale));
    }
}

static void multiply_groups(const struct cllm_scaled_head *head, const uint8_t *scales, uint8_t *out, uint32_t element_count)
{
    const uint32_t size = 1u << head->group_log2, element_bytes = cllm_scaled_element_bytes((enum cllm_scaled_type)head->type);
    for (uint32_t first = 0; first < element_count; first += size) {
        const uint32_t count = element_count - first < size ? element_count - first : size;
        const float scale = load_scale(head, scales, first >> head->group_log2);
        uint8_t *elements = out + (size_t)first * element_bytes;
        switch (head->type) {
        case CLLM_SCALED_BF16: multiply_group(CLLM_SCALED_BF16, scale, elements, count); break;
        case CLLM_SCALED_F16: multiply_group(CLLM_SCALED_F16, scale, elements, count); break;
        default: multiply_group(CLLM_SCALED_F32, scale, elements, count); break;
        }
    }
}

static enum cllm_status decode_scaled(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                      const uint8_t *stored, uint8_t *out, struct cllm_error *err)
{
    static const uint8_t reserved[CLLM_SCALED_HEAD_BYTES - 7] = {0};
    const uint32_t element_bytes = data->layout.element_bytes, element_count = chunk->decoded_bytes / element_bytes;
    struct cllm_scaled_head head = {0, 0, 0, 0};
    if (chunk->stored_bytes >= CLLM_SCALED_HEAD_BYTES) {
        head = (struct cllm_scaled_head){cllm_load_le32(stored), stored[4], stored[5], stored[6]};
    }
    if (!cllm_scaled_head_fits(&head, element_bytes, element_count, chunk->stored_bytes) ||
        memcmp(stored + 7, reserved, sizeof reserved) != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "scaled chunk of %u elements of %u bytes in %u bytes has a head that does not fit: %u, %u, %u, %u",
                         element_count, element_bytes, chunk->stored_bytes, head.float_bytes, head.type, head.scale_type,
                         head.group_log2);
    }
    const uint8_t *levels = stored + CLLM_SCALED_HEAD_BYTES, *scales = levels + head.float_bytes;
    if (!are_scales_good(&head, scales, cllm_scaled_group_count(&head, element_count))) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "scaled chunk has a scale that is negative or not finite");
    }
    enum cllm_status status = decode_elements(decoder, data, chunk, chunk->decoded_bytes, levels, head.float_bytes, out, err);
    if (!status) multiply_groups(&head, scales, out, element_count);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- others */

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
    case CLLM_FORM_FLOAT:
        return decode_elements(decoder, data, chunk, chunk->decoded_bytes, stored, chunk->stored_bytes, out, err);
    case CLLM_FORM_PLANES: return decode_planes(decoder, data, chunk, stored, out, err);
    case CLLM_FORM_SPARSE: return decode_sparse(decoder, data, chunk, stored, out, err);
    case CLLM_FORM_SCALED: return decode_scaled(decoder, data, chunk, stored, out, err);
    default:
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "chunk has form %u, this build decodes forms 0 to 5",
                         chunk->form);
    }
}

/* encode_float.c - portable encoder of the float form. FORMAT.md 9. */
#include "encode_float.h"

void cllm_float_code_init(struct cllm_float_code *code, const struct cllm_table *table)
{
    code->table = *table;
    code->single = cllm_table_symbol_count(table) == 1;
    cllm_table_codes(table, code->word);
}

/* ------------------------------------------------------------------------------------------------------------- split */

static void split_bf16(const uint8_t *elements, uint32_t element_count, uint8_t *symbols, uint8_t *plane)
{
    for (uint32_t i = 0; i < element_count; i++) {
        unsigned x = cllm_load_le16(elements + 2 * (size_t)i);
        symbols[i] = (uint8_t)(x >> 7);
        plane[i] = (uint8_t)((x >> 8 & 0x80) | (x & 0x7F));
    }
}

static uint64_t load_element(const uint8_t *bytes, unsigned byte_count)
{
    uint64_t element = 0;
    for (unsigned k = 0; k < byte_count; k++) element |= (uint64_t)bytes[k] << 8 * k;
    return element;
}

static void split_any(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count, uint8_t *symbols,
                      uint8_t *planes)
{
    unsigned bits = cllm_layout_remainder_bits(layout);
    unsigned whole = bits / 8, rest = bits % 8;
    uint8_t *packed = planes + (size_t)whole * element_count;
    memset(packed, 0, ((size_t)element_count * rest + 7) / 8);
    for (uint32_t i = 0; i < element_count; i++) {
        uint64_t element = load_element(elements + (size_t)i * layout->element_bytes, layout->element_bytes);
        uint64_t remainder = cllm_element_remainder(layout, element);
        symbols[i] = cllm_element_symbol(layout, element);
        for (unsigned k = 0; k < whole; k++) planes[(size_t)k * element_count + i] = (uint8_t)(remainder >> 8 * k);
        if (rest) {
            uint64_t bit = (uint64_t)i * rest;
            unsigned value = (unsigned)(remainder >> 8 * whole) << (bit & 7);
            packed[bit >> 3] |= (uint8_t)value;
            if (value > 0xFF) packed[(bit >> 3) + 1] |= (uint8_t)(value >> 8);
        }
    }
}

/* Four histograms, so that equal neighbours do not wait for each other's store. */
static void count_symbols(const uint8_t *symbols, uint32_t element_count, uint64_t counts[256])
{
    uint32_t part[4][256] = {{0}};
    uint32_t i = 0;
    for (; i + 4 <= element_count; i += 4) {
        part[0][symbols[i]]++;
        part[1][symbols[i + 1]]++;
        part[2][symbols[i + 2]]++;
        part[3][symbols[i + 3]]++;
    }
    for (; i < element_count; i++) part[0][symbols[i]]++;
    for (unsigned s = 0; s < 256; s++) counts[s] += (uint64_t)part[0][s] + part[1][s] + part[2][s] + part[3][s];
}

void cllm_float_split(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count, uint8_t *symbols,
                      uint8_t *planes, uint64_t counts[256])
{
    bool bf16 = layout->element_bytes == 2 && layout->symbol_shift == 7 && layout->symbol_bits == 8 && layout->zero_bits == 0;
    if (bf16) {
        split_bf16(elements, element_count, symbols, planes);
    } else {
        split_any(layout, elements, element_count, symbols, planes);
    }
    count_symbols(symbols, element_count, counts);
}

/* ------------------------------------------------------------------------------------------------------- code words */

size_t cllm_float_encoded_bytes_max(const struct cllm_layout *layout, uint32_t element_count)
{
    size_t segments = ((size_t)element_count >> layout->segment_log2) + 1;
    size_t stream = ((size_t)element_count * CLLM_CODE_BITS_MAX + 7) / 8;
    return cllm_float_plane_bytes(layout, element_count) + CLLM_FLOAT_HEADER_BYTES + 2 * segments + stream + 8;
}

static uint32_t segment_bits(const struct cllm_float_code *code, const uint8_t *symbols, uint32_t symbol_count)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < symbol_count; i++) bits += code->table.length[symbols[i]];
    return code->single ? 0 : bits;
}

/* Header and lengths of all segments but the last, whose end is the end of the stream. Returns the bytes written. */
static size_t write_lengths(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                            uint32_t element_count, uint8_t *out)
{
    uint32_t per_segment = 1u << layout->segment_log2;
    uint32_t stored_count = (element_count - 1) >> layout->segment_log2;
    uint32_t low = UINT32_MAX, high = 0;
    for (uint32_t s = 0; s < stored_count; s++) {
        uint32_t bits = segment_bits(code, symbols + (size_t)s * per_segment, per_segment);
        if (bits < low) low = bits;
        if (bits > high) high = bits;
    }
    if (stored_count == 0) low = 0;
    unsigned width = 0;
    while (high > low && (high - low) >> width != 0) width++;
    cllm_store_le16(out, (uint16_t)low);
    out[2] = (uint8_t)width;
    out[3] = 0;
    uint8_t *deltas = out + CLLM_FLOAT_HEADER_BYTES;
    size_t delta_bytes = ((size_t)stored_count * width + 7) / 8;
    memset(deltas, 0, delta_bytes);
    for (uint32_t s = 0; s < stored_count && width > 0; s++) {
        uint32_t value = segment_bits(code, symbols + (size_t)s * per_segment, per_segment) - low;
        uint64_t bit = (uint64_t)s * width;
        value <<= bit & 7;
        for (uint8_t *p = deltas + (bit >> 3); value; value >>= 8) *p++ |= (uint8_t)value;
    }
    return CLLM_FLOAT_HEADER_BYTES + delta_bytes;
}

/* Returns the bytes written; writes up to 7 bytes of zeros more. */
static size_t write_codes(const struct cllm_float_code *code, const uint8_t *symbols, uint32_t element_count, uint8_t *out)
{
    uint64_t pending = 0;
    unsigned pending_bits = 0;
    uint8_t *at = out;
    if (code->single) return 0;
    for (uint32_t i = 0; i < element_count; i++) {
        pending |= (uint64_t)code->word[symbols[i]] << pending_bits;
        pending_bits += code->table.length[symbols[i]];
        if (pending_bits >= 48) {
            cllm_store_le64(at, pending);
            at += 6;
            pending >>= 48;
            pending_bits -= 48;
        }
    }
    cllm_store_le64(at, pending);
    return (size_t)(at - out) + (pending_bits + 7) / 8;
}

size_t cllm_float_encode(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                         uint32_t element_count, uint8_t *stored)
{
    size_t used = cllm_float_plane_bytes(layout, element_count);
    used += write_lengths(layout, code, symbols, element_count, stored + used);
    return used + write_codes(code, symbols, element_count, stored + used);
}

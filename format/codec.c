/* codec.c - the float form: split, prefix codes, chunk contents. FORMAT.md 9. */
#include "codec.h"

enum cllm_status cllm_layout_check(const struct cllm_layout *layout, struct cllm_error *err)
{
    unsigned size = layout->element_bytes;
    if (size == 0) {
        if (layout->symbol_shift || layout->symbol_bits || layout->zero_bits || layout->segment_log2) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "layout has element size 0 but other fields that are not 0");
        }
        return CLLM_OK;
    }
    if (size != 1 && size != 2 && size != 4 && size != 8) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "layout has element size %u, expected 1, 2, 4 or 8 bytes", size);
    }
    if (layout->symbol_bits < 1 || layout->symbol_bits > 8 || layout->symbol_shift + layout->symbol_bits > 8 * size) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "layout codes %u bits at bit %u of a %u-bit element",
                         layout->symbol_bits, layout->symbol_shift, 8 * size);
    }
    if (layout->zero_bits > layout->symbol_shift) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "layout drops %u low bits, the coded field starts at bit %u",
                         layout->zero_bits, layout->symbol_shift);
    }
    if (layout->segment_log2 < CLLM_SEGMENT_LOG2_MIN || layout->segment_log2 > CLLM_SEGMENT_LOG2_MAX) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "layout has segments of 2^%u symbols, expected 2^%u to 2^%u",
                         layout->segment_log2, CLLM_SEGMENT_LOG2_MIN, CLLM_SEGMENT_LOG2_MAX);
    }
    return CLLM_OK;
}

/* ----------------------------------------------------------------------------------------------------- prefix codes */

/* In the stored form and in memory a single symbol is marked by this length, although its code word has no bits. */
#define LENGTH_OF_ONLY_SYMBOL 1u

unsigned cllm_table_symbol_count(const struct cllm_table *table)
{
    unsigned count = 0;
    for (unsigned s = 0; s < 256; s++) count += table->length[s] != 0;
    return count;
}

unsigned cllm_table_last_symbol(const struct cllm_table *table)
{
    unsigned last = 255;
    while (last > 0 && table->length[last] == 0) last--;
    return last;
}

enum cllm_status cllm_table_check(const struct cllm_table *table, struct cllm_error *err)
{
    unsigned count = 0;
    uint32_t kraft = 0; /* in units of 2^-CLLM_CODE_BITS_MAX */
    for (unsigned s = 0; s < 256; s++) {
        unsigned length = table->length[s];
        if (length == 0) continue;
        if (length > CLLM_CODE_BITS_MAX) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code of symbol %u has %u bits, at most %u are allowed", s,
                             length, CLLM_CODE_BITS_MAX);
        }
        kraft += 1u << (CLLM_CODE_BITS_MAX - length);
        count++;
    }
    uint32_t expected = count == 1 ? 1u << (CLLM_CODE_BITS_MAX - LENGTH_OF_ONLY_SYMBOL) : 1u << CLLM_CODE_BITS_MAX;
    if (count == 0 || kraft != expected) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code lengths of %u symbols fill %u of %u code words", count, kraft,
                         expected);
    }
    return CLLM_OK;
}

enum cllm_status cllm_table_parse(struct cllm_cursor *cursor, struct cllm_table *table_out, struct cllm_error *err)
{
    memset(table_out, 0, sizeof *table_out);
    unsigned first = cllm_cursor_u8(cursor);
    unsigned last = cllm_cursor_u8(cursor);
    if (first > last) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code table runs from symbol %u to %u", first, last);
    }
    unsigned count = last - first + 1;
    const uint8_t *nibbles = cllm_cursor_take(cursor, (count + 1) / 2);
    if (!nibbles) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code table of %u symbols is cut short", count);
    }
    for (unsigned i = 0; i < count; i++) table_out->length[first + i] = nibbles[i / 2] >> 4 * (i & 1) & 15;
    if (table_out->length[first] == 0 || table_out->length[last] == 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code table starts or ends with a symbol that has no code");
    }
    if (count % 2 == 1 && nibbles[count / 2] >> 4 != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code table has a padding nibble that is not 0");
    }
    return cllm_table_check(table_out, err);
}

size_t cllm_table_serialise(const struct cllm_table *table, uint8_t *out)
{
    unsigned first = 0, last = cllm_table_last_symbol(table);
    while (first < last && table->length[first] == 0) first++;
    unsigned count = last - first + 1;
    out[0] = (uint8_t)first;
    out[1] = (uint8_t)last;
    memset(out + 2, 0, (count + 1) / 2);
    for (unsigned i = 0; i < count; i++) out[2 + i / 2] |= (uint8_t)(table->length[first + i] << 4 * (i & 1));
    return 2 + (count + 1) / 2;
}

size_t cllm_table_values_bytes(const struct cllm_table *table)
{
    return table->value_bytes ? (size_t)cllm_table_symbol_count(table) * table->value_bytes : 0;
}

static uint64_t value_at(const uint8_t *values, unsigned value_bytes, unsigned index)
{
    uint64_t value = 0;
    for (unsigned k = 0; k < value_bytes; k++) value |= (uint64_t)values[(size_t)index * value_bytes + k] << 8 * k;
    return value;
}

enum cllm_status cllm_palette_parse(struct cllm_cursor *cursor, unsigned element_bytes, struct cllm_table *table,
                                    struct cllm_error *err)
{
    unsigned count = cllm_table_symbol_count(table);
    const uint8_t *values = cllm_cursor_take(cursor, (size_t)count * element_bytes);
    if (!values) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "palette of %u values is cut short", count);
    }
    for (unsigned s = 0; s < count; s++) {
        if (table->length[s] == 0) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "palette has no code word for value %u of %u", s, count);
        }
        if (s > 0 && value_at(values, element_bytes, s) <= value_at(values, element_bytes, s - 1)) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "value %u of a palette is not above the one before", s);
        }
    }
    table->values = values;
    table->value_bytes = (uint8_t)element_bytes;
    return CLLM_OK;
}

void cllm_table_codes(const struct cllm_table *table, uint16_t codes_out[256])
{
    unsigned code = 0;
    memset(codes_out, 0, 256 * sizeof *codes_out);
    for (unsigned length = 1; length <= CLLM_CODE_BITS_MAX; length++, code <<= 1) {
        for (unsigned s = 0; s < 256; s++) {
            if (table->length[s] == length) codes_out[s] = (uint16_t)cllm_bits_mirrored(code++, length);
        }
    }
}

void cllm_table_lookup(const struct cllm_table *table, struct cllm_code_entry entries_out[CLLM_CODE_ENTRIES])
{
    uint16_t codes[256];
    bool only = cllm_table_symbol_count(table) == 1;
    cllm_table_codes(table, codes);
    for (unsigned s = 0; s < 256; s++) {
        if (table->length[s] == 0) continue;
        unsigned bits = only ? 0 : table->length[s];
        for (unsigned high = 0; high < CLLM_CODE_ENTRIES; high += 1u << bits) {
            entries_out[high | (only ? 0 : codes[s])] = (struct cllm_code_entry){(uint8_t)s, (uint8_t)bits};
        }
    }
}

/* --------------------------------------------------------------------------------------------------- chunk contents */

enum cllm_status cllm_float_view_parse(const struct cllm_layout *layout, uint32_t decoded_bytes, const uint8_t *stored,
                                       uint32_t stored_bytes, struct cllm_float_view *view_out, struct cllm_error *err)
{
    uint32_t element_count = decoded_bytes / layout->element_bytes;
    uint32_t segment_count = (uint32_t)(((uint64_t)element_count + (1u << layout->segment_log2) - 1) >> layout->segment_log2);
    uint64_t plane_bytes = cllm_float_plane_bytes(layout, element_count);
    if (plane_bytes + CLLM_FLOAT_HEADER_BYTES > stored_bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "float chunk has %u stored bytes, its planes alone need %llu",
                         stored_bytes, (unsigned long long)(plane_bytes + CLLM_FLOAT_HEADER_BYTES));
    }
    const uint8_t *head = stored + plane_bytes;
    unsigned width = head[2], unused_bits = head[3];
    if (width > 16) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "float chunk has segment lengths of %u bits, at most 16 are allowed", width);
    }
    uint64_t delta_bytes = ((uint64_t)(segment_count - 1) * width + 7) / 8;
    uint64_t stream_offset = plane_bytes + CLLM_FLOAT_HEADER_BYTES + delta_bytes;
    if (stream_offset > stored_bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "float chunk has %u stored bytes, its code words start at %llu",
                         stored_bytes, (unsigned long long)stream_offset);
    }
    uint32_t stream_bytes = stored_bytes - (uint32_t)stream_offset;
    if (unused_bits > (stream_bytes ? 7 : 0) || (unused_bits && stored[stored_bytes - 1] >> (8 - unused_bits) != 0)) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "float chunk states %u unused bits, expected 0 to %u that are 0",
                         unused_bits, stream_bytes ? 7 : 0);
    }
    *view_out = (struct cllm_float_view){
        .planes = stored,
        .deltas = head + CLLM_FLOAT_HEADER_BYTES,
        .stream = stored + stream_offset,
        .stream_bytes = stream_bytes,
        .stream_bits = 8 * stream_bytes - unused_bits,
        .element_count = element_count,
        .segment_count = segment_count,
        .segment_base = cllm_load_le16(head),
        .segment_width = (uint8_t)width,
    };
    return CLLM_OK;
}

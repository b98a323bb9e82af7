/* decode_float.c - portable decoder of the float form. FORMAT.md 9. */
#include "decode_float.h"

void cllm_float_lookup_build(struct cllm_float_lookup *lookup, const struct cllm_table *table)
{
    struct cllm_code_entry single[CLLM_CODE_ENTRIES];
    if (lookup->valid && memcmp(&lookup->table, table, sizeof *table) == 0) return;
    lookup->table = *table;
    lookup->valid = true;
    lookup->single = cllm_table_symbol_count(table) == 1;
    cllm_table_lookup(table, single);
    for (unsigned i = 0; i < CLLM_CODE_ENTRIES; i++) {
        uint64_t symbols = 0, count = 0;
        unsigned bits = 0;
        /* A code word that does not fit in the bits left is not decided yet. */
        while (count < 4 && bits + single[i >> bits].bits <= CLLM_CODE_BITS_MAX) {
            symbols |= (uint64_t)single[i >> bits].symbol << 8 * count++;
            bits += single[i >> bits].bits;
        }
        lookup->entries[i] = symbols | count << 32 | (uint64_t)bits << 40;
    }
}

/* One run of consecutive segments, decoded as a whole: segments follow each other without a gap. */
struct lane {
    uint64_t bit; /* position in the stream */
    uint8_t *at;
    uint8_t *end;
};

#define LANES 4u
#define STEPS 4u                  /* look-ups for one load: 4 * 11 + 7 bits fit in 64 */
#define STEP_SYMBOLS (4u * STEPS) /* most symbols that one round writes to a lane */

static inline void decode_round(const uint64_t *entries, const uint8_t *stream, struct lane *lane)
{
    uint64_t window = cllm_load_le64(stream + (lane->bit >> 3)) >> (lane->bit & 7);
    for (unsigned step = 0; step < STEPS; step++) {
        uint64_t entry = entries[window & (CLLM_CODE_ENTRIES - 1)];
        unsigned bits = (unsigned)(entry >> 40);
        cllm_store_le32(lane->at, (uint32_t)entry);
        lane->at += entry >> 32 & 7;
        lane->bit += bits;
        window >>= bits;
    }
}

static inline bool lane_has_room(const struct lane *lane, uint64_t last_bit)
{
    return lane->end - lane->at >= (ptrdiff_t)STEP_SYMBOLS && lane->bit <= last_bit;
}

/* The last symbols of a lane, one by one, so that none beyond its end is counted. */
static void decode_rest(const uint64_t *entries, const struct cllm_table *table, const uint8_t *stream, uint64_t last_bit,
                        struct lane *lane)
{
    while (lane->at < lane->end && lane->bit <= last_bit) {
        uint64_t window = cllm_load_le64(stream + (lane->bit >> 3)) >> (lane->bit & 7);
        uint8_t symbol = (uint8_t)entries[window & (CLLM_CODE_ENTRIES - 1)];
        *lane->at++ = symbol;
        lane->bit += table->length[symbol];
    }
}

/* Every segment must take exactly the bits that the chunk states for it: decoders that start at each one see the same. */
static enum cllm_status check_segments(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                       const struct cllm_float_view *view, const uint8_t *symbols, struct cllm_error *err)
{
    uint32_t per_segment = 1u << layout->segment_log2;
    uint64_t total = 0;
    for (uint32_t s = 0; s < view->segment_count; s++) {
        const uint8_t *at = symbols + (size_t)s * per_segment;
        uint32_t count = s + 1 < view->segment_count ? per_segment : view->element_count - s * per_segment;
        uint32_t bits = 0;
        if (!lookup->single) {
            for (uint32_t i = 0; i < count; i++) bits += lookup->table.length[at[i]];
        }
        if (s + 1 < view->segment_count && bits != cllm_float_segment_bits(view, s)) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "segment %u takes %u bits, the chunk states %u", s, bits,
                             cllm_float_segment_bits(view, s));
        }
        total += bits;
    }
    if ((total + 7) / 8 != view->stream_bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code words end at bit %llu of a stream of %u bytes",
                         (unsigned long long)total, view->stream_bytes);
    }
    if (total % 8 != 0 && view->stream[total / 8] >> total % 8 != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "bits after the last code word are not 0");
    }
    return CLLM_OK;
}

/* Splits the chunk into LANES runs of segments, which share no state: their look-ups overlap in time. */
static void place_lanes(const struct cllm_layout *layout, const struct cllm_float_view *view, uint8_t *symbols,
                        struct lane lanes[LANES])
{
    uint64_t bit = 0;
    uint32_t segment = 0;
    for (unsigned k = 0; k < LANES; k++) {
        uint32_t first = (uint32_t)((uint64_t)view->segment_count * k / LANES);
        uint32_t last = (uint32_t)((uint64_t)view->segment_count * (k + 1) / LANES);
        for (; segment < first; segment++) bit += cllm_float_segment_bits(view, segment);
        uint64_t from = (uint64_t)first << layout->segment_log2, to = (uint64_t)last << layout->segment_log2;
        if (to > view->element_count) to = view->element_count;
        lanes[k] = (struct lane){bit, symbols + from, symbols + to};
    }
}

enum cllm_status cllm_float_decode_symbols(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                           const struct cllm_float_view *view, uint8_t *symbols, struct cllm_error *err)
{
    if (lookup->single) {
        memset(symbols, (int)(lookup->entries[0] & 0xFF), view->element_count);
        return check_segments(lookup, layout, view, symbols, err);
    }
    struct lane lanes[LANES];
    /* A lane may be sent past the end by wrong lengths; it stops there and its symbols fail the check. */
    uint64_t last_bit = (uint64_t)view->stream_bytes * 8;
    const uint64_t *entries = lookup->entries;
    place_lanes(layout, view, symbols, lanes);
    struct lane a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
    while (lane_has_room(&a, last_bit) && lane_has_room(&b, last_bit) && lane_has_room(&c, last_bit) &&
           lane_has_room(&d, last_bit)) {
        decode_round(entries, view->stream, &a);
        decode_round(entries, view->stream, &b);
        decode_round(entries, view->stream, &c);
        decode_round(entries, view->stream, &d);
    }
    struct lane *all[LANES] = {&a, &b, &c, &d};
    for (unsigned k = 0; k < LANES; k++) {
        while (lane_has_room(all[k], last_bit)) decode_round(entries, view->stream, all[k]);
        decode_rest(entries, &lookup->table, view->stream, last_bit, all[k]);
        if (all[k]->at != all[k]->end) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code words run past the end of a stream of %u bytes",
                             view->stream_bytes);
        }
    }
    return check_segments(lookup, layout, view, symbols, err);
}

/* ------------------------------------------------------------------------------------------------- symbols to elements */

static void join_bf16(const uint8_t *plane, const uint8_t *symbols, uint32_t element_count, uint8_t *out)
{
    for (uint32_t i = 0; i < element_count; i++) {
        unsigned raw = plane[i];
        cllm_store_le16(out + 2 * (size_t)i, (uint16_t)((raw & 0x80) << 8 | (unsigned)symbols[i] << 7 | (raw & 0x7F)));
    }
}

static void join_any(const struct cllm_layout *layout, const struct cllm_float_view *view, const uint8_t *symbols, uint8_t *out)
{
    unsigned bits = cllm_layout_remainder_bits(layout);
    unsigned whole = bits / 8, rest = bits % 8;
    const uint8_t *packed = view->planes + (size_t)whole * view->element_count;
    for (uint32_t i = 0; i < view->element_count; i++) {
        uint64_t remainder = 0;
        for (unsigned k = 0; k < whole; k++) remainder |= (uint64_t)view->planes[(size_t)k * view->element_count + i] << 8 * k;
        if (rest) remainder |= (uint64_t)cllm_bits_at(packed, (uint64_t)i * rest, rest) << 8 * whole;
        uint64_t element = cllm_element_join(layout, symbols[i], remainder);
        for (unsigned k = 0; k < layout->element_bytes; k++)
            out[(size_t)i * layout->element_bytes + k] = (uint8_t)(element >> 8 * k);
    }
}

void cllm_float_join(const struct cllm_layout *layout, const struct cllm_float_view *view, const uint8_t *symbols, uint8_t *out)
{
    bool bf16 = layout->element_bytes == 2 && layout->symbol_shift == 7 && layout->symbol_bits == 8 && layout->zero_bits == 0;
    if (bf16) {
        join_bf16(view->planes, symbols, view->element_count, out);
    } else {
        join_any(layout, view, symbols, out);
    }
}

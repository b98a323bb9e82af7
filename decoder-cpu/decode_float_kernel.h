/* decode_float_kernel.h - the float form on the CPU, written once: each tier compiles it with its own instructions.
 * FORMAT.md 9. */
#ifndef CLLM_DECODE_FLOAT_KERNEL_H
#define CLLM_DECODE_FLOAT_KERNEL_H

#include "decode_float.h"
#include "segment_bits.h"

/* -------------------------------------------------------------------------------------------------- bits to symbols */

/* One run of consecutive segments, decoded as a whole: segments follow each other without a gap. */
struct lane {
    uint64_t bit; /* position in the stream */
    uint8_t *at;
    uint8_t *end;
};

/* Not a power of two: the symbols of all lanes would lie in one set of the first cache. More lanes do not fit in registers. */
#define LANES 6u
#define PREFETCH_BYTES 768u /* ahead of each lane, whose part of a chunk is too short for the processor to foresee */
#define STEPS 5u            /* look-ups for one load: 5 * 11 + 7 bits fit in 64 */
#define ROUND_BITS_MAX (STEPS * CLLM_CODE_BITS_MAX) /* most that one round takes */
#define ROUND_SYMBOLS_MAX (STEPS * CLLM_ENTRY_SYMBOLS_MAX)
#define ROUND_ROOM ((STEPS - 1) * CLLM_ENTRY_SYMBOLS_MAX + 8) /* most bytes that it writes, right ones or not */

/* One round of `count` lanes, a constant. Step by step through all lanes, not lane by lane: what waits for a look-up fills the
 * processor's schedulers, and only what is near can overlap. A bit set above the window tells in the end how far it moved. */
static inline __attribute__((always_inline)) void decode_round(const uint64_t *entries, const uint8_t *stream, struct lane *lanes,
                                                               unsigned count)
{
    uint64_t window[LANES];
    uint8_t *at[LANES];
#pragma GCC unroll 8
    for (unsigned k = 0; k < count; k++) {
        window[k] = cllm_load_le64(stream + (lanes[k].bit >> 3)) >> (lanes[k].bit & 7) | UINT64_C(1) << 63;
        __builtin_prefetch(stream + (lanes[k].bit >> 3) + PREFETCH_BYTES);
        at[k] = lanes[k].at;
    }
#pragma GCC unroll 8
    for (unsigned step = 0; step < STEPS; step++) {
#pragma GCC unroll 8
        for (unsigned k = 0; k < count; k++) {
            uint64_t entry = entries[window[k] & (CLLM_CODE_ENTRIES - 1)];
            window[k] >>= entry >> 56;
            cllm_store_le64(at[k], entry);
            at[k] += (uint8_t)(entry >> 48);
        }
    }
#pragma GCC unroll 8
    for (unsigned k = 0; k < count; k++) {
        lanes[k].bit += (unsigned)__builtin_clzll(window[k]);
        lanes[k].at = at[k];
    }
}

static inline bool lane_has_room(const struct lane *lane, uint64_t last_bit)
{
    return lane->end - lane->at >= (ptrdiff_t)ROUND_ROOM && lane->bit <= last_bit;
}

/* Rounds that every lane can go without another look at its bounds. */
static inline uint64_t safe_rounds(const struct lane lanes[LANES], uint64_t last_bit)
{
    uint64_t rounds = UINT64_MAX;
    for (unsigned k = 0; k < LANES; k++) {
        if (!lane_has_room(&lanes[k], last_bit)) return 0;
        uint64_t by_symbols = ((uint64_t)(lanes[k].end - lanes[k].at) - (ROUND_ROOM - ROUND_SYMBOLS_MAX)) / ROUND_SYMBOLS_MAX;
        uint64_t by_bits = (last_bit - lanes[k].bit) / ROUND_BITS_MAX + 1;
        if (by_symbols < rounds) rounds = by_symbols;
        if (by_bits < rounds) rounds = by_bits;
    }
    return rounds;
}

/* The last symbols of a lane, by way of a buffer: a round may write more than the lane has. */
static inline void decode_rest(const uint64_t *entries, const uint8_t *stream, uint64_t last_bit, struct lane *lane)
{
    while (lane->at < lane->end && lane->bit <= last_bit) {
        uint8_t symbols[ROUND_ROOM], *at = lane->at;
        struct lane rest = {lane->bit, symbols, symbols + sizeof symbols};
        decode_round(entries, stream, &rest, 1);
        size_t count = (size_t)(rest.at - symbols), left = (size_t)(lane->end - at);
        if (count > left) count = left;
        memcpy(at, symbols, count);
        *lane = (struct lane){rest.bit, at + count, lane->end};
    }
}

/* `width` bits of a stream that is followed by at least 8 readable bytes. */
static inline uint32_t stated_bits(const struct cllm_float_view *view, uint32_t segment_index)
{
    uint64_t bit = (uint64_t)segment_index * view->segment_width;
    return view->segment_base +
           (uint32_t)(cllm_load_le64(view->deltas + (bit >> 3)) >> (bit & 7) & ((1u << view->segment_width) - 1));
}

/* Splits the chunk into LANES runs of segments, which share no state: their look-ups overlap in time. */
static inline void place_lanes(const struct cllm_layout *layout, const struct cllm_float_view *view, uint8_t *symbols,
                               struct lane lanes[LANES])
{
    uint64_t bit = 0;
    uint32_t segment = 0;
    for (unsigned k = 0; k < LANES; k++) {
        uint32_t first = (uint32_t)((uint64_t)view->segment_count * k / LANES);
        uint32_t last = (uint32_t)((uint64_t)view->segment_count * (k + 1) / LANES);
        for (; segment < first; segment++) bit += stated_bits(view, segment);
        uint64_t from = (uint64_t)first << layout->segment_log2, to = (uint64_t)last << layout->segment_log2;
        if (to > view->element_count) to = view->element_count;
        lanes[k] = (struct lane){bit, symbols + from, symbols + to};
    }
}

#define CHECK_SEGMENTS 64u

/* Every segment must take exactly the bits that the chunk states for it: decoders that start at each one see the same. */
static inline enum cllm_status check_segments(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                              const struct cllm_float_view *view, const uint8_t *symbols,
                                              cllm_segment_bits_fn *segment_bits, struct cllm_error *err)
{
    uint16_t bits[CHECK_SEGMENTS] = {0};
    uint32_t stated_count = view->segment_count - 1;
    uint64_t total = 0;
    for (uint32_t first = 0; first < stated_count; first += CHECK_SEGMENTS) {
        uint32_t count = stated_count - first < CHECK_SEGMENTS ? stated_count - first : CHECK_SEGMENTS;
        if (!lookup->single) {
            segment_bits(&lookup->table, layout->segment_log2, symbols + ((size_t)first << layout->segment_log2), count, bits);
        }
        for (uint32_t k = 0; k < count; k++) {
            uint32_t stated = stated_bits(view, first + k);
            if (bits[k] != stated) {
                return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "segment %u takes %u bits, the chunk states %u", first + k,
                                 bits[k], stated);
            }
            total += stated;
        }
    }
    uint32_t last = stated_count << layout->segment_log2;
    if (!lookup->single) total += cllm_symbol_bits(&lookup->table, symbols + last, view->element_count - last);
    if ((total + 7) / 8 != view->stream_bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code words end at bit %llu of a stream of %u bytes",
                         (unsigned long long)total, view->stream_bytes);
    }
    if (total % 8 != 0 && view->stream[total / 8] >> total % 8 != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "bits after the last code word are not 0");
    }
    return CLLM_OK;
}

static inline enum cllm_status decode_symbols(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                              const struct cllm_float_view *view, uint8_t *symbols,
                                              cllm_segment_bits_fn *segment_bits, struct cllm_error *err)
{
    if (lookup->single) {
        memset(symbols, (int)(lookup->entries[0] & 0xFF), view->element_count);
        return check_segments(lookup, layout, view, symbols, segment_bits, err);
    }
    struct lane lanes[LANES];
    /* A lane may be sent past the end by wrong lengths; it stops there and its symbols fail the check. */
    uint64_t last_bit = (uint64_t)view->stream_bytes * 8;
    const uint64_t *entries = lookup->entries;
    const uint8_t *stream = view->stream;
    place_lanes(layout, view, symbols, lanes);
    for (uint64_t rounds; (rounds = safe_rounds(lanes, last_bit)) > 0;) {
        for (; rounds > 0; rounds--) {
            decode_round(entries, stream, lanes, LANES);
        }
    }
    /* The lanes that are not done are nearly so, and still go side by side. */
    for (bool more = true; more;) {
        more = false;
        for (unsigned k = 0; k < LANES; k++) {
            if (!lane_has_room(&lanes[k], last_bit)) continue;
            decode_round(entries, stream, &lanes[k], 1);
            more = true;
        }
    }
    for (unsigned k = 0; k < LANES; k++) {
        decode_rest(entries, stream, last_bit, &lanes[k]);
        if (lanes[k].at != lanes[k].end) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "code words run past the end of a stream of %u bytes",
                             view->stream_bytes);
        }
    }
    return check_segments(lookup, layout, view, symbols, segment_bits, err);
}

/* ------------------------------------------------------------------------------------------------- symbols to elements */

/* The loops below are such that compilers turn them into vector code, which stores of single bytes would hinder. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PUT_ELEMENT(bits, out, element) memcpy((out), &(uint##bits##_t){(uint##bits##_t)(element)}, sizeof(uint##bits##_t))
#else
#define PUT_ELEMENT(bits, out, element) cllm_store_le##bits((out), (uint##bits##_t)(element))
#endif

static inline void join_bf16(const uint8_t *restrict plane, const uint8_t *restrict symbols, uint32_t element_count,
                             uint8_t *restrict out)
{
    for (uint32_t i = 0; i < element_count; i++) {
        uint16_t raw = plane[i];
        uint16_t element = (uint16_t)((raw << 8 | raw) & 0x807F) | (uint16_t)(symbols[i] << 7);
        PUT_ELEMENT(16, out + 2 * (size_t)i, element);
    }
}

static inline void join_f32(const uint8_t *restrict planes, const uint8_t *restrict symbols, uint32_t element_count,
                            uint8_t *restrict out)
{
    const uint8_t *restrict second = planes + element_count, *restrict third = second + element_count;
    for (uint32_t i = 0; i < element_count; i++) {
        uint32_t top = third[i];
        uint32_t element =
            planes[i] | (uint32_t)second[i] << 8 | (top & 0x7F) << 16 | (uint32_t)symbols[i] << 23 | (top & 0x80) << 24;
        PUT_ELEMENT(32, out + 4 * (size_t)i, element);
    }
}

#define JOIN_BLOCK 256u

/* Numbers of `width` bits, less than 8, to bytes; `packed` is followed by at least 8 readable bytes. Rounds up to eights. */
static inline void unpack_bits(const uint8_t *packed, unsigned width, uint32_t count, uint8_t out[JOIN_BLOCK])
{
    uint64_t each = UINT64_C(0x0101010101010101) * ((1u << width) - 1);
    for (uint32_t i = 0; i < count; i += 8, packed += width) {
        uint64_t eight = cllm_load_le64(packed);
#if defined(__BMI2__)
        cllm_store_le64(out + i, __builtin_ia32_pdep_di(eight, each));
#else
        uint64_t spread = 0;
        for (unsigned k = 0; k < 8; k++) spread |= (eight >> k * width & each & 0xFF) << 8 * k;
        cllm_store_le64(out + i, spread);
#endif
    }
}

static inline void join_f16_block(const uint8_t *restrict plane, const uint8_t *restrict top, const uint8_t *restrict symbols,
                                  uint32_t count, uint8_t *restrict out)
{
    for (uint32_t i = 0; i < count; i++) {
        uint16_t raw = plane[i], high = top[i], symbol = symbols[i];
        uint16_t element =
            (uint16_t)(raw | (uint16_t)((high & 3) << 8) | (uint16_t)(symbol << 10) | (uint16_t)((high & 4) << 13));
        PUT_ELEMENT(16, out + 2 * (size_t)i, element);
    }
}

static inline void join_f16(const uint8_t *planes, const uint8_t *symbols, uint32_t element_count, uint8_t *out)
{
    const uint8_t *packed = planes + element_count;
    uint8_t top[JOIN_BLOCK];
    for (uint32_t first = 0; first < element_count; first += JOIN_BLOCK) {
        uint32_t count = element_count - first < JOIN_BLOCK ? element_count - first : JOIN_BLOCK;
        unpack_bits(packed + (size_t)first / 8 * 3, 3, count, top);
        join_f16_block(planes + first, top, symbols + first, count, out + 2 * (size_t)first);
    }
}

/* Any layout, a block at a time: the planes one after the other into whole remainders. */
static inline void join_any(const struct cllm_layout *layout, const struct cllm_float_view *view, const uint8_t *symbols,
                            uint8_t *out)
{
    const struct cllm_layout l = *layout;
    unsigned remainder_bits = cllm_layout_remainder_bits(&l), whole = remainder_bits / 8, rest = remainder_bits % 8;
    const uint8_t *packed = view->planes + (size_t)whole * view->element_count;
    uint64_t remainders[JOIN_BLOCK];
    uint8_t top[JOIN_BLOCK] = {0};
    for (uint32_t first = 0; first < view->element_count; first += JOIN_BLOCK) {
        uint32_t count = view->element_count - first < JOIN_BLOCK ? view->element_count - first : JOIN_BLOCK;
        if (rest) unpack_bits(packed + (size_t)first / 8 * rest, rest, count, top);
        for (uint32_t i = 0; i < count; i++) remainders[i] = (uint64_t)top[i] << 8 * whole;
        for (unsigned k = 0; k < whole; k++) {
            const uint8_t *plane = view->planes + (size_t)k * view->element_count + first;
            for (uint32_t i = 0; i < count; i++) remainders[i] |= (uint64_t)plane[i] << 8 * k;
        }
        for (uint32_t i = 0; i < count; i++) remainders[i] = cllm_element_join(&l, symbols[first + i], remainders[i]);
        uint8_t *to = out + (size_t)first * l.element_bytes;
        switch (l.element_bytes) {
        case 1:
            for (uint32_t i = 0; i < count; i++) to[i] = (uint8_t)remainders[i];
            break;
        case 2:
            for (uint32_t i = 0; i < count; i++) PUT_ELEMENT(16, to + 2 * (size_t)i, remainders[i]);
            break;
        case 4:
            for (uint32_t i = 0; i < count; i++) PUT_ELEMENT(32, to + 4 * (size_t)i, remainders[i]);
            break;
        default:
            for (uint32_t i = 0; i < count; i++) PUT_ELEMENT(64, to + 8 * (size_t)i, remainders[i]);
            break;
        }
    }
}

static inline bool layout_is(const struct cllm_layout *layout, unsigned element_bytes, unsigned shift, unsigned bits)
{
    return layout->element_bytes == element_bytes && layout->symbol_shift == shift && layout->symbol_bits == bits &&
           layout->zero_bits == 0;
}

static inline void join_elements(const struct cllm_layout *layout, const struct cllm_float_view *view, const uint8_t *symbols,
                                 uint8_t *out)
{
    if (layout_is(layout, 2, 7, 8)) join_bf16(view->planes, symbols, view->element_count, out);
    else if (layout_is(layout, 4, 23, 8)) join_f32(view->planes, symbols, view->element_count, out);
    else if (layout_is(layout, 2, 10, 5)) join_f16(view->planes, symbols, view->element_count, out);
    else if (layout_is(layout, 1, 0, 8)) memcpy(out, symbols, view->element_count);
    else join_any(layout, view, symbols, out);
}

#endif

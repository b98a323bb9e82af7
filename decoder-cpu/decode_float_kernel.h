/* decode_float_kernel.h - the float form on the CPU, written once: each tier compiles it with its own instructions.
 * FORMAT.md 9. */
#ifndef CLLM_DECODE_FLOAT_KERNEL_H
#define CLLM_DECODE_FLOAT_KERNEL_H

#include "decode_float.h"
#include "segment_bits.h"

/* -------------------------------------------------------------------------------------------------- bits to symbols */

/* One half of a segment being decoded; its symbols are written from the last byte of a buffer downwards. */
struct lane {
    uint64_t bit; /* position in the stream, or in its mirror */
    uint8_t *at;  /* above where the next symbol goes */
    uint8_t *end; /* where the last one goes */
};

/* Three segments at a time. Lanes 0, 2 and 4 decode first halves from the stream, the others second halves from its mirror. More
 * lanes do not fit in registers. */
#define SEGMENTS_AT_ONCE 3u
#define LANES (2 * SEGMENTS_AT_ONCE)
#define STEPS 5u /* look-ups for one load: 5 * 11 + 7 bits fit in 64 */
#define ROUND_SYMBOLS_MAX (STEPS * CLLM_ENTRY_SYMBOLS_MAX)
#define LANE_ROOM 64u /* below a lane's symbols, for what a round writes too much */
#define LANE_STRIDE_MAX ((1u << (CLLM_SEGMENT_LOG2_MAX - 1)) + LANE_ROOM)

static_assert((STEPS - 1) * CLLM_ENTRY_SYMBOLS_MAX + 8 <= LANE_ROOM,
              "a round that starts with one symbol left stays in its room");

/* One round of all lanes. Step by step, not lane by lane: what waits for a look-up fills the processor's schedulers, and only
 * what is near can overlap. Seven instructions a look-up: the shift takes its low six bits from an entry as it is, and what an
 * entry has too much is overwritten by the next one, because symbols go downwards. A bit set above the window tells in the end
 * how far it moved. */
static inline __attribute__((always_inline)) void decode_round(const struct cllm_float_lookup *lookup,
                                                               const uint8_t *const streams[2], struct lane lanes[LANES])
{
    uint64_t window[LANES];
    uint8_t *at[LANES];
#pragma GCC unroll 8
    for (unsigned k = 0; k < LANES; k++) {
        window[k] = cllm_load_le64(streams[k % 2] + (lanes[k].bit >> 3)) >> (lanes[k].bit & 7) | UINT64_C(1) << 63;
        at[k] = lanes[k].at;
    }
#pragma GCC unroll 8
    for (unsigned step = 0; step < STEPS; step++) {
#pragma GCC unroll 8
        for (unsigned k = 0; k < LANES; k++) {
            size_t index = window[k] & (CLLM_CODE_ENTRIES - 1);
            uint64_t entry = lookup->entries[index];
            window[k] >>= entry & 63;
            cllm_store_le64(at[k] - 8, entry);
            at[k] -= lookup->counts[index];
        }
    }
#pragma GCC unroll 8
    for (unsigned k = 0; k < LANES; k++) {
        lanes[k].bit += (unsigned)__builtin_clzll(window[k]);
        lanes[k].at = at[k];
    }
}

/* Takes back what lanes wrote beyond their ends. Returns whether all are done. */
static inline __attribute__((always_inline)) bool clamp_lanes(struct lane lanes[LANES])
{
    ptrdiff_t left = 0;
#pragma GCC unroll 8
    for (unsigned k = 0; k < LANES; k++) {
        lanes[k].at = lanes[k].at > lanes[k].end ? lanes[k].at : lanes[k].end;
        left += lanes[k].at - lanes[k].end;
    }
    return left == 0;
}

/* Decodes all lanes, of which none has less than `least_symbols` to come. Lanes that are done go on with what is of no use: a
 * round gives each at least a symbol a step, so none passes more than tail_bytes of bits behind its start. Not inline: registers
 * are what it is short of. */
static __attribute__((noinline)) void decode_lanes(const struct cllm_float_lookup *lookup, const uint8_t *const streams[2],
                                                   uint32_t least_symbols, struct lane lanes[LANES])
{
    for (uint32_t round = least_symbols / ROUND_SYMBOLS_MAX; round > 0; round--) decode_round(lookup, streams, lanes);
    while (!clamp_lanes(lanes)) decode_round(lookup, streams, lanes);
}

/* What may be read behind a stream. */
static inline size_t tail_bytes(const struct cllm_layout *layout)
{
    return ((CLLM_CODE_BITS_MAX << layout->segment_log2) / 2 + CLLM_CODE_BITS_MAX * STEPS) / 8 + 16;
}

/* ------------------------------------------------------------------------------------------------------- whole chunks */

/* What each tier writes by hand. */
struct float_parts {
    /* Bytes in the other order, and the bits of each. */
    void (*mirror)(const uint8_t *bytes, size_t byte_count, uint8_t *out);
    /* The `symbol_count` bytes before `end` in the other order; returns how many bits their code words have together. */
    uint32_t (*turn)(const struct cllm_float_lookup *lookup, const uint8_t *end, uint32_t symbol_count, uint8_t *out);
};

/* What is the same for all segments of a chunk. */
struct float_job {
    const struct float_parts *parts;
    const struct cllm_float_lookup *lookup;
    const struct cllm_layout *layout;
    const struct cllm_float_view *view;
    const uint8_t *streams[2]; /* a copy of the stream and its mirror, with a tail of zeros each */
    uint32_t half;             /* symbols of a whole first half */
    uint8_t *out;
};

/* The segments that are decoded together. */
struct float_batch {
    uint32_t first_segment;
    uint32_t segment_count;
    uint32_t stated_bits[SEGMENTS_AT_ONCE];
    uint32_t count[LANES]; /* symbols */
    uint32_t symbol_count;
    uint8_t turned[LANES * LANE_STRIDE_MAX]; /* as lanes write symbols */
    uint8_t symbols[LANES << (CLLM_SEGMENT_LOG2_MAX - 1)];
};

/* `width` bits of a stream that is followed by at least 8 readable bytes. */
static inline uint32_t stated_bits(const struct cllm_float_view *view, uint32_t segment_index)
{
    uint64_t bit = (uint64_t)segment_index * view->segment_width;
    return view->segment_base +
           (uint32_t)(cllm_load_le64(view->deltas + (bit >> 3)) >> (bit & 7) & ((1u << view->segment_width) - 1));
}

/* Above the first symbol of a lane. The distance of lanes is no power of two: they would share a set of the first cache. */
static inline uint8_t *lane_start(const struct float_job *job, struct float_batch *batch, unsigned lane)
{
    return batch->turned + (lane + 1) * (size_t)(job->half + LANE_ROOM);
}

/* Where each lane of the batch starts, from the bit where its first segment does, which moves on. */
static inline enum cllm_status place_lanes(const struct float_job *job, struct float_batch *batch, uint64_t *start_inout,
                                           struct lane lanes[LANES], struct cllm_error *err)
{
    const struct cllm_float_view *view = job->view;
    uint64_t start = *start_inout, mirror_bits = UINT64_C(8) * view->stream_bytes;
    memset(batch->count, 0, sizeof batch->count);
    for (uint32_t s = 0; s < SEGMENTS_AT_ONCE; s++) {
        uint32_t segment = batch->first_segment + s, symbols = 2 * job->half;
        uint64_t end = start;
        if (s < batch->segment_count) {
            bool last = segment + 1 == view->segment_count;
            if (last) symbols = view->element_count - segment * symbols;
            end = last ? view->stream_bits : start + stated_bits(view, segment);
            if (end > view->stream_bits) {
                return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "segment %u ends at bit %llu of a stream of %u", segment,
                                 (unsigned long long)end, view->stream_bits);
            }
            batch->count[2 * s] = cllm_first_half(job->layout, symbols);
            batch->count[2 * s + 1] = symbols - batch->count[2 * s];
        }
        uint8_t *first = lane_start(job, batch, 2 * s), *second = lane_start(job, batch, 2 * s + 1);
        lanes[2 * s] = (struct lane){start, first, first - batch->count[2 * s]};
        lanes[2 * s + 1] = (struct lane){mirror_bits - end, second, second - batch->count[2 * s + 1]};
        batch->stated_bits[s] = (uint32_t)(end - start);
        start = end;
    }
    *start_inout = start;
    return CLLM_OK;
}

/* Puts all symbols in order. The halves of a segment must meet: then they take all of its bits, and as both went no further, no
 * other. */
static inline enum cllm_status check_batch(const struct float_job *job, struct float_batch *batch, struct cllm_error *err)
{
    uint8_t *to = batch->symbols;
    for (uint32_t s = 0; s < batch->segment_count; s++) {
        uint32_t bits = 0;
        for (unsigned k = 2 * s; k < 2 * s + 2; to += batch->count[k++])
            bits += job->parts->turn(job->lookup, lane_start(job, batch, k), batch->count[k], to);
        if (bits != batch->stated_bits[s]) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                             "the halves of segment %u do not meet: they take %u bits, it has %u", batch->first_segment + s, bits,
                             batch->stated_bits[s]);
        }
    }
    batch->symbol_count = (uint32_t)(to - batch->symbols);
    return CLLM_OK;
}

/* ------------------------------------------------------------------------------------------------- symbols to elements */

/* Joins symbols and raw planes of `count` elements from element `first` on, a multiple of 8, of a chunk that starts at `out`. */
typedef void join_fn(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                     const uint8_t *symbols, uint8_t *out);

/* The loops below are such that compilers turn them into vector code, which stores of single bytes would hinder. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PUT_ELEMENT(bits, out, element) memcpy((out), &(uint##bits##_t){(uint##bits##_t)(element)}, sizeof(uint##bits##_t))
#else
#define PUT_ELEMENT(bits, out, element) cllm_store_le##bits((out), (uint##bits##_t)(element))
#endif

/* The elements of `count` symbols from where their byte planes are. */
typedef void join_step_fn(const uint8_t *const planes[3], const uint8_t *symbols, uint32_t count, uint8_t *out);

static inline __attribute__((always_inline)) void step_bf16(const uint8_t *const planes[3], const uint8_t *restrict symbols,
                                                            uint32_t count, uint8_t *restrict out)
{
    const uint8_t *restrict plane = planes[0];
    for (uint32_t i = 0; i < count; i++) {
        uint16_t raw = plane[i];
        uint16_t element = (uint16_t)((raw << 8 | raw) & 0x807F) | (uint16_t)(symbols[i] << 7);
        PUT_ELEMENT(16, out + 2 * (size_t)i, element);
    }
}

/* A symbol above a byte: F16 as cpack codes it. */
static inline __attribute__((always_inline)) void step_f16(const uint8_t *const planes[3], const uint8_t *restrict symbols,
                                                           uint32_t count, uint8_t *restrict out)
{
    const uint8_t *restrict plane = planes[0];
    for (uint32_t i = 0; i < count; i++) PUT_ELEMENT(16, out + 2 * (size_t)i, plane[i] | symbols[i] << 8);
}

static inline __attribute__((always_inline)) void step_f32(const uint8_t *const planes[3], const uint8_t *restrict symbols,
                                                           uint32_t count, uint8_t *restrict out)
{
    const uint8_t *restrict first = planes[0], *restrict second = planes[1], *restrict third = planes[2];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t top = third[i];
        uint32_t element =
            first[i] | (uint32_t)second[i] << 8 | (top & 0x7F) << 16 | (uint32_t)symbols[i] << 23 | (top & 0x80) << 24;
        PUT_ELEMENT(32, out + 4 * (size_t)i, element);
    }
}

#define JOIN_STEP 64u
#define FETCH_AHEAD 1536u /* elements: batches are too short for the processor to foresee which memory comes next */

static inline __attribute__((always_inline)) void join_steps(join_step_fn *step, unsigned plane_count, unsigned element_bytes,
                                                             const struct cllm_float_view *view, uint32_t first, uint32_t count,
                                                             const uint8_t *symbols, uint8_t *out)
{
    const uint8_t *planes[3] = {NULL, NULL, NULL};
    for (unsigned k = 0; k < plane_count; k++) planes[k] = view->planes + first + (size_t)k * view->element_count;
    out += (size_t)first * element_bytes;
    for (; count >= JOIN_STEP; count -= JOIN_STEP, symbols += JOIN_STEP, out += (size_t)JOIN_STEP * element_bytes) {
        for (unsigned k = 0; k < plane_count; k++) __builtin_prefetch(planes[k] + FETCH_AHEAD);
        for (unsigned k = 0; k < element_bytes; k++) __builtin_prefetch(out + (size_t)FETCH_AHEAD * element_bytes + 64 * k, 1);
        step(planes, symbols, JOIN_STEP, out);
        for (unsigned k = 0; k < plane_count; k++) planes[k] += JOIN_STEP;
    }
    step(planes, symbols, count, out);
}

static inline void join_bf16(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                             const uint8_t *symbols, uint8_t *out)
{
    (void)layout;
    join_steps(step_bf16, 1, 2, view, first, count, symbols, out);
}

static inline void join_f16(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                            const uint8_t *symbols, uint8_t *out)
{
    (void)layout;
    join_steps(step_f16, 1, 2, view, first, count, symbols, out);
}

static inline void join_f32(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                            const uint8_t *symbols, uint8_t *out)
{
    (void)layout;
    join_steps(step_f32, 3, 4, view, first, count, symbols, out);
}

static inline void join_bytes(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first,
                              uint32_t count, const uint8_t *symbols, uint8_t *out)
{
    (void)layout;
    (void)view;
    memcpy(out + first, symbols, count);
}

#define JOIN_BLOCK 256u

/* Eight numbers of `width` bits each, less than 8, to the `width` bits of eight bytes that `mask` has. */
static inline uint64_t spread_bits(uint64_t eight, unsigned mask, unsigned width)
{
#if defined(__BMI2__)
    (void)width;
    return __builtin_ia32_pdep_di(eight, UINT64_C(0x0101010101010101) * mask);
#else
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t bytes = 0, spread = 0;
    for (unsigned k = 0; k < 8; k++) bytes |= (eight >> k * width & ((1u << width) - 1)) << 8 * k;
    if (mask == (1u << width) - 1) return bytes;
    for (unsigned bit = 0, from = 0; bit < 8; bit++) {
        if (mask >> bit & 1) spread |= (bytes >> from++ & ones) << bit;
    }
    return spread;
#endif
}

/* Numbers of `width` bits to bytes; `packed` is followed by at least 8 readable bytes. Rounds up to eights. */
static inline void unpack_bits(const uint8_t *packed, unsigned width, uint32_t count, uint8_t out[JOIN_BLOCK])
{
    for (uint32_t i = 0; i < count; i += 8, packed += width)
        cllm_store_le64(out + i, spread_bits(cllm_load_le64(packed), (1u << width) - 1, width));
}

/* Elements of one byte, eight at a time: the bits of their remainders, which lie side by side, go where no symbol is. */
static inline void join_any8(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                             const uint8_t *symbols, uint8_t *out)
{
    const unsigned rest = cllm_layout_remainder_bits(layout), shift = layout->symbol_shift;
    const unsigned others = 0xFF & ~(((1u << layout->symbol_bits) - 1) << shift) & ~((1u << layout->zero_bits) - 1);
    const uint8_t *packed = view->planes + (size_t)first / 8 * rest;
    uint32_t i = 0;
    for (; i + 8 <= count; i += 8, packed += rest)
        cllm_store_le64(out + first + i, spread_bits(cllm_load_le64(packed), others, rest) | cllm_load_le64(symbols + i)
                                                                                                 << shift);
    uint64_t last = spread_bits(cllm_load_le64(packed), others, rest);
    for (; i < count; i++, last >>= 8) out[first + i] = (uint8_t)(last | (uint8_t)(symbols[i] << shift));
}

/* Any layout of elements of so many bits, a block at a time: the planes one after the other into whole remainders. */
#define DEFINE_JOIN_ANY(bits)                                                                                                    \
    static inline void join_block##bits(const struct cllm_layout *layout, const uint##bits##_t *restrict remainders,             \
                                        uint32_t count, const uint8_t *restrict symbols, uint8_t *restrict out)                  \
    {                                                                                                                            \
        const unsigned shift = layout->symbol_shift, symbol_bits = layout->symbol_bits, zero_bits = layout->zero_bits;           \
        const uint##bits##_t low = (uint##bits##_t)((UINT64_C(1) << shift) - 1);                                                 \
        for (uint32_t i = 0; i < count; i++) {                                                                                   \
            uint##bits##_t raw = (uint##bits##_t)(remainders[i] << zero_bits),                                                   \
                           high = (uint##bits##_t)(raw & (uint##bits##_t) ~low);                                                 \
            uint##bits##_t element = (uint##bits##_t)(high << symbol_bits) | (raw & low);                                        \
            PUT_ELEMENT(bits, out + (bits / 8) * (size_t)i, element | (uint##bits##_t)((uint##bits##_t)symbols[i] << shift));    \
        }                                                                                                                        \
    }                                                                                                                            \
    static inline void join_any##bits(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first,      \
                                      uint32_t count, const uint8_t *symbols, uint8_t *out)                                      \
    {                                                                                                                            \
        const unsigned remainder_bits = cllm_layout_remainder_bits(layout), whole = remainder_bits / 8,                          \
                       rest = remainder_bits % 8;                                                                                \
        const uint8_t *packed = view->planes + (size_t)whole * view->element_count;                                              \
        uint##bits##_t block[JOIN_BLOCK];                                                                                        \
        uint8_t top[JOIN_BLOCK] = {0};                                                                                           \
        for (uint32_t end = first + count, n; first < end; first += n, symbols += n) {                                           \
            n = end - first < JOIN_BLOCK ? end - first : JOIN_BLOCK;                                                             \
            if (rest) unpack_bits(packed + (size_t)first / 8 * rest, rest, n, top);                                              \
            for (uint32_t i = 0; i < n; i++) block[i] = rest ? (uint##bits##_t)((uint##bits##_t)top[i] << 8 * whole) : 0;        \
            for (unsigned k = 0; k < whole; k++) {                                                                               \
                const uint8_t *plane = view->planes + (size_t)k * view->element_count + first;                                   \
                for (uint32_t i = 0; i < n; i++) block[i] |= (uint##bits##_t)((uint##bits##_t)plane[i] << 8 * k);                \
            }                                                                                                                    \
            join_block##bits(layout, block, n, symbols, out + (size_t)first * (bits / 8));                                       \
        }                                                                                                                        \
    }
DEFINE_JOIN_ANY(16)
DEFINE_JOIN_ANY(32)
DEFINE_JOIN_ANY(64)

static inline bool layout_is(const struct cllm_layout *layout, unsigned element_bytes, unsigned shift, unsigned bits)
{
    return layout->element_bytes == element_bytes && layout->symbol_shift == shift && layout->symbol_bits == bits &&
           layout->zero_bits == 0;
}

/* Elements of a palette, which has one for each symbol that there may be. */
#define DEFINE_JOIN_PALETTE(bytes)                                                                                               \
    static inline void join_palette##bytes(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, \
                                           uint32_t count, const uint8_t *restrict symbols, uint8_t *restrict out)               \
    {                                                                                                                            \
        const uint8_t *restrict palette = view->palette;                                                                         \
        (void)layout;                                                                                                            \
        out += (size_t)first * (bytes);                                                                                          \
        for (uint32_t i = 0; i < count; i++) memcpy(out + (bytes) * (size_t)i, palette + (bytes) * (size_t)symbols[i], bytes);   \
    }
DEFINE_JOIN_PALETTE(1)
DEFINE_JOIN_PALETTE(2)
DEFINE_JOIN_PALETTE(4)
DEFINE_JOIN_PALETTE(8)

static inline join_fn *choose_palette_join(unsigned element_bytes)
{
    switch (element_bytes) {
    case 1: return join_palette1;
    case 2: return join_palette2;
    case 4: return join_palette4;
    default: return join_palette8;
    }
}

static inline join_fn *choose_join(const struct cllm_layout *layout, const struct cllm_float_view *view)
{
    if (view->palette) return choose_palette_join(layout->element_bytes);
    if (layout_is(layout, 2, 7, 8)) return join_bf16;
    if (layout_is(layout, 2, 8, 8)) return join_f16;
    if (layout_is(layout, 4, 23, 8)) return join_f32;
    if (layout_is(layout, 1, 0, 8)) return join_bytes;
    switch (layout->element_bytes) {
    case 1: return join_any8;
    case 2: return join_any16;
    case 4: return join_any32;
    default: return join_any64;
    }
}

/* One symbol, no code words. */
static inline enum cllm_status decode_single(const struct float_job *job, struct cllm_error *err)
{
    const struct cllm_float_view *view = job->view;
    uint8_t symbols[JOIN_BLOCK];
    join_fn *join = choose_join(job->layout, view);
    for (uint32_t s = 0; s + 1 < view->segment_count; s++) {
        if (stated_bits(view, s) != 0) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "segment %u of a single symbol has %u bits", s,
                             stated_bits(view, s));
        }
    }
    if (view->stream_bytes != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "a single symbol has a stream of %u bytes", view->stream_bytes);
    }
    memset(symbols, (int)((job->lookup->entries[0] >> 56)), sizeof symbols);
    for (uint32_t first = 0, n; first < view->element_count; first += n) {
        n = view->element_count - first < JOIN_BLOCK ? view->element_count - first : JOIN_BLOCK;
        join(job->layout, view, first, n, symbols, job->out);
    }
    return CLLM_OK;
}

/* The segments from batch->first_segment on, from symbols to elements while they are in the first cache. */
static inline enum cllm_status decode_batch(const struct float_job *job, struct float_batch *batch, uint64_t *start_inout,
                                            join_fn *join, struct cllm_error *err)
{
    struct lane lanes[LANES];
    enum cllm_status status = place_lanes(job, batch, start_inout, lanes, err);
    if (status) return status;
    decode_lanes(job->lookup, job->streams, batch->count[LANES - 1], lanes);
    status = check_batch(job, batch, err);
    if (!status) {
        join(job->layout, job->view, 2 * job->half * batch->first_segment, batch->symbol_count, batch->symbols, job->out);
    }
    return status;
}

/* Two streams in `scratch`: the code words as they are, and mirrored. */
static inline void place_streams(struct float_job *job, uint8_t *scratch)
{
    size_t stream_bytes = job->view->stream_bytes, tail = tail_bytes(job->layout);
    uint8_t *mirror = scratch + stream_bytes + tail;
    memcpy(scratch, job->view->stream, stream_bytes);
    memset(scratch + stream_bytes, 0, tail);
    job->parts->mirror(job->view->stream, stream_bytes, mirror);
    memset(mirror + stream_bytes, 0, tail);
    job->streams[0] = scratch;
    job->streams[1] = mirror;
}

static inline enum cllm_status decode_chunk(const struct float_parts *parts, const struct cllm_float_lookup *lookup,
                                            const struct cllm_layout *layout, const struct cllm_float_view *view,
                                            uint8_t *scratch, uint8_t *out, struct cllm_error *err)
{
    struct float_job job = {parts, lookup, layout, view, {NULL, NULL}, 1u << (layout->segment_log2 - 1), out};
    struct float_batch batch;
    uint64_t start = 0;
    enum cllm_status status = CLLM_OK;
    join_fn *join = choose_join(layout, view);
    if (lookup->single) return decode_single(&job, err);
    place_streams(&job, scratch);
    for (uint32_t left = view->segment_count; left > 0 && !status; left -= batch.segment_count) {
        batch.first_segment = view->segment_count - left;
        batch.segment_count = left < SEGMENTS_AT_ONCE ? left : SEGMENTS_AT_ONCE;
        status = decode_batch(&job, &batch, &start, join, err);
    }
    return status;
}

#endif

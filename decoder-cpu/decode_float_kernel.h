/* decode_float_kernel.h - the float form on the CPU, written once: each tier compiles it with its own instructions.
 * FORMAT.md 9. */
#ifndef CLLM_DECODE_FLOAT_KERNEL_H
#define CLLM_DECODE_FLOAT_KERNEL_H

#include "decode_float.h"
#include "segment_bits.h"

/* -------------------------------------------------------------------------------------------------- bits to symbols */

/* One half of a segment being decoded. */
struct lane {
    uint64_t bit; /* position in the stream, or in its mirror */
    uint8_t *at;
    uint8_t *end;
};

/* Three segments at a time. Lanes 0, 2 and 4 decode first halves from the stream, the others second halves from its mirror. More
 * lanes do not fit in registers. */
#define SEGMENTS_AT_ONCE 3u
#define LANES (2 * SEGMENTS_AT_ONCE)
#define STEPS 5u /* look-ups for one load: 5 * 11 + 7 bits fit in 64 */
#define ROUND_SYMBOLS_MAX (STEPS * CLLM_ENTRY_SYMBOLS_MAX)
#define ROUND_ROOM ((STEPS - 1) * CLLM_ENTRY_SYMBOLS_MAX + 8) /* most bytes that a round writes, right ones or not */
#define LANE_STRIDE(half) ((half) + 64u)                      /* no power of two: lanes would share a set of the first cache */
#define LANE_STRIDE_MAX LANE_STRIDE(1u << (CLLM_SEGMENT_LOG2_MAX - 1))

static_assert(ROUND_ROOM <= 64, "a lane's buffer has room for a round behind its symbols");

/* One round of all lanes. Step by step, not lane by lane: what waits for a look-up fills the processor's schedulers, and only
 * what is near can overlap. A bit set above the window tells in the end how far it moved. */
static inline __attribute__((always_inline)) void decode_round(const uint64_t *entries, const uint8_t *const streams[2],
                                                               struct lane lanes[LANES])
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
            uint64_t entry = entries[window[k] & (CLLM_CODE_ENTRIES - 1)];
            window[k] >>= entry >> 56;
            cllm_store_le64(at[k], entry);
            at[k] += (uint8_t)(entry >> 48);
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
        lanes[k].at = lanes[k].at < lanes[k].end ? lanes[k].at : lanes[k].end;
        left += lanes[k].end - lanes[k].at;
    }
    return left == 0;
}

/* Decodes all lanes, of which none has less than `least_symbols` to come. Lanes that are done go on with what is of no use: a
 * round gives each at least STEPS symbols, so none passes more than tail_bytes of bits behind its start. */
static inline void decode_lanes(const uint64_t *entries, const uint8_t *const streams[2], uint32_t least_symbols,
                                struct lane lanes_inout[LANES])
{
    struct lane lanes[LANES];
    memcpy(lanes, lanes_inout, sizeof lanes);
    for (uint32_t round = least_symbols / ROUND_SYMBOLS_MAX; round > 0; round--) decode_round(entries, streams, lanes);
    while (!clamp_lanes(lanes)) decode_round(entries, streams, lanes);
}

/* What may be read behind a stream. */
static inline size_t tail_bytes(const struct cllm_layout *layout)
{
    return ((CLLM_CODE_BITS_MAX << layout->segment_log2) / 2 + CLLM_CODE_BITS_MAX * STEPS) / 8 + 16;
}

/* ------------------------------------------------------------------------------------------------------- whole chunks */

/* What each tier writes by hand. */
struct float_parts {
    cllm_segment_bits_fn *segment_bits;
    void (*mirror)(const uint8_t *bytes, size_t byte_count, uint8_t *out); /* bytes in the other order, and the bits of each */
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
    uint8_t symbols[LANES * LANE_STRIDE_MAX];
};

/* `width` bits of a stream that is followed by at least 8 readable bytes. */
static inline uint32_t stated_bits(const struct cllm_float_view *view, uint32_t segment_index)
{
    uint64_t bit = (uint64_t)segment_index * view->segment_width;
    return view->segment_base +
           (uint32_t)(cllm_load_le64(view->deltas + (bit >> 3)) >> (bit & 7) & ((1u << view->segment_width) - 1));
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
        uint8_t *at = batch->symbols + 2 * (size_t)s * LANE_STRIDE(job->half), *second = at + LANE_STRIDE(job->half);
        lanes[2 * s] = (struct lane){start, at, at + batch->count[2 * s]};
        lanes[2 * s + 1] = (struct lane){mirror_bits - end, second, second + batch->count[2 * s + 1]};
        batch->stated_bits[s] = (uint32_t)(end - start);
        start = end;
    }
    *start_inout = start;
    return CLLM_OK;
}

/* The halves of a segment must meet: then they take all of its bits, and as both went no further, no other. */
static inline enum cllm_status check_batch(const struct float_job *job, const struct float_batch *batch, struct cllm_error *err)
{
    uint16_t bits[LANES];
    size_t stride = LANE_STRIDE(job->half);
    if (batch->count[LANES - 1] == job->half) {
        job->parts->segment_bits(&job->lookup->table, batch->symbols, stride, job->half, LANES, bits);
    } else {
        for (unsigned k = 0; k < LANES; k++)
            bits[k] = (uint16_t)cllm_symbol_bits(&job->lookup->table, batch->symbols + k * stride, batch->count[k]);
    }
    for (uint32_t s = 0; s < SEGMENTS_AT_ONCE; s++) {
        uint32_t taken = (uint32_t)bits[2 * s] + bits[2 * s + 1];
        if (taken != batch->stated_bits[s]) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                             "the halves of segment %u do not meet: they take %u bits, it has %u", batch->first_segment + s,
                             taken, batch->stated_bits[s]);
        }
    }
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

static inline void join_bf16(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                             const uint8_t *symbols, uint8_t *out)
{
    (void)layout;
    const uint8_t *restrict plane = view->planes + first, *restrict symbol = symbols;
    uint8_t *restrict to = out + 2 * (size_t)first;
    for (uint32_t i = 0; i < count; i++) {
        uint16_t raw = plane[i];
        uint16_t element = (uint16_t)((raw << 8 | raw) & 0x807F) | (uint16_t)(symbol[i] << 7);
        PUT_ELEMENT(16, to + 2 * (size_t)i, element);
    }
}

/* A symbol above a byte: F16 as cpack codes it. */
static inline void join_f16(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                            const uint8_t *symbols, uint8_t *out)
{
    (void)layout;
    const uint8_t *restrict plane = view->planes + first, *restrict symbol = symbols;
    uint8_t *restrict to = out + 2 * (size_t)first;
    for (uint32_t i = 0; i < count; i++) PUT_ELEMENT(16, to + 2 * (size_t)i, plane[i] | symbol[i] << 8);
}

static inline void join_f32(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                            const uint8_t *symbols, uint8_t *out)
{
    (void)layout;
    const uint8_t *restrict plane = view->planes + first, *restrict second = plane + view->element_count;
    const uint8_t *restrict third = second + view->element_count, *restrict symbol = symbols;
    uint8_t *restrict to = out + 4 * (size_t)first;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t top = third[i];
        uint32_t element =
            plane[i] | (uint32_t)second[i] << 8 | (top & 0x7F) << 16 | (uint32_t)symbol[i] << 23 | (top & 0x80) << 24;
        PUT_ELEMENT(32, to + 4 * (size_t)i, element);
    }
}

static inline void join_bytes(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first,
                              uint32_t count, const uint8_t *symbols, uint8_t *out)
{
    (void)layout;
    (void)view;
    memcpy(out + first, symbols, count);
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

/* Any layout, a block at a time: the planes one after the other into whole remainders. */
static inline void join_any(const struct cllm_layout *layout, const struct cllm_float_view *view, uint32_t first, uint32_t count,
                            const uint8_t *symbols, uint8_t *out)
{
    const struct cllm_layout l = *layout;
    unsigned remainder_bits = cllm_layout_remainder_bits(&l), whole = remainder_bits / 8, rest = remainder_bits % 8;
    const uint8_t *packed = view->planes + (size_t)whole * view->element_count;
    uint64_t block[JOIN_BLOCK];
    uint8_t top[JOIN_BLOCK] = {0};
    for (uint32_t end = first + count, n; first < end; first += n, symbols += n) {
        n = end - first < JOIN_BLOCK ? end - first : JOIN_BLOCK;
        if (rest) unpack_bits(packed + (size_t)first / 8 * rest, rest, n, top);
        for (uint32_t i = 0; i < n; i++) block[i] = (uint64_t)top[i] << 8 * whole;
        for (unsigned k = 0; k < whole; k++) {
            const uint8_t *plane = view->planes + (size_t)k * view->element_count + first;
            for (uint32_t i = 0; i < n; i++) block[i] |= (uint64_t)plane[i] << 8 * k;
        }
        for (uint32_t i = 0; i < n; i++) block[i] = cllm_element_join(&l, symbols[i], block[i]);
        uint8_t *to = out + (size_t)first * l.element_bytes;
        switch (l.element_bytes) {
        case 1:
            for (uint32_t i = 0; i < n; i++) to[i] = (uint8_t)block[i];
            break;
        case 2:
            for (uint32_t i = 0; i < n; i++) PUT_ELEMENT(16, to + 2 * (size_t)i, block[i]);
            break;
        case 4:
            for (uint32_t i = 0; i < n; i++) PUT_ELEMENT(32, to + 4 * (size_t)i, block[i]);
            break;
        default:
            for (uint32_t i = 0; i < n; i++) PUT_ELEMENT(64, to + 8 * (size_t)i, block[i]);
            break;
        }
    }
}

static inline bool layout_is(const struct cllm_layout *layout, unsigned element_bytes, unsigned shift, unsigned bits)
{
    return layout->element_bytes == element_bytes && layout->symbol_shift == shift && layout->symbol_bits == bits &&
           layout->zero_bits == 0;
}

static inline join_fn *choose_join(const struct cllm_layout *layout)
{
    if (layout_is(layout, 2, 7, 8)) return join_bf16;
    if (layout_is(layout, 2, 8, 8)) return join_f16;
    if (layout_is(layout, 4, 23, 8)) return join_f32;
    if (layout_is(layout, 1, 0, 8)) return join_bytes;
    return join_any;
}

/* One symbol, no code words. */
static inline enum cllm_status decode_single(const struct float_job *job, struct cllm_error *err)
{
    const struct cllm_float_view *view = job->view;
    uint8_t symbols[JOIN_BLOCK];
    join_fn *join = choose_join(job->layout);
    for (uint32_t s = 0; s + 1 < view->segment_count; s++) {
        if (stated_bits(view, s) != 0) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "segment %u of a single symbol has %u bits", s,
                             stated_bits(view, s));
        }
    }
    if (view->stream_bytes != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "a single symbol has a stream of %u bytes", view->stream_bytes);
    }
    memset(symbols, (int)(job->lookup->entries[0] & 0xFF), sizeof symbols);
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
    decode_lanes(job->lookup->entries, job->streams, batch->count[LANES - 1], lanes);
    status = check_batch(job, batch, err);
    if (status) return status;
    uint32_t element = 2 * job->half * batch->first_segment;
    for (unsigned k = 0; k < LANES && batch->count[k] > 0; element += batch->count[k++])
        join(job->layout, job->view, element, batch->count[k], batch->symbols + k * (size_t)LANE_STRIDE(job->half), job->out);
    return CLLM_OK;
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
    join_fn *join = choose_join(layout);
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

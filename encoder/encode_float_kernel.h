/* encode_float_kernel.h - the encoder of the float form, written once: each tier compiles it with its own instructions.
 * FORMAT.md 9. */
#ifndef CLLM_ENCODE_FLOAT_KERNEL_H
#define CLLM_ENCODE_FLOAT_KERNEL_H

#include "encode_float.h"
#include "segment_bits.h"

/* ------------------------------------------------------------------------------------------------------------- split */

/* The loops below are such that compilers turn them into vector code, which loads of single bytes would hinder. */
#define DEFINE_GET_ELEMENT(bits)                                                                                                 \
    static inline uint##bits##_t get_element##bits(const uint8_t *bytes)                                                         \
    {                                                                                                                            \
        uint##bits##_t element;                                                                                                  \
        memcpy(&element, bytes, sizeof element);                                                                                 \
        return LITTLE_ENDIAN_HOST ? element : cllm_load_le##bits(bytes);                                                         \
    }
#define LITTLE_ENDIAN_HOST (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
DEFINE_GET_ELEMENT(16)
DEFINE_GET_ELEMENT(32)
DEFINE_GET_ELEMENT(64)

static inline void split_bf16(const uint8_t *restrict elements, uint32_t element_count, uint8_t *restrict symbols,
                              uint8_t *restrict plane)
{
    for (uint32_t i = 0; i < element_count; i++) {
        uint16_t x = get_element16(elements + 2 * (size_t)i);
        symbols[i] = (uint8_t)(x >> 7);
        plane[i] = (uint8_t)((x >> 8 & 0x80) | (x & 0x7F));
    }
}

static inline void split_f32(const uint8_t *restrict elements, uint32_t element_count, uint8_t *restrict symbols,
                             uint8_t *restrict planes)
{
    uint8_t *restrict second = planes + element_count, *restrict third = second + element_count;
    for (uint32_t i = 0; i < element_count; i++) {
        uint32_t x = get_element32(elements + 4 * (size_t)i);
        symbols[i] = (uint8_t)(x >> 23);
        planes[i] = (uint8_t)x;
        second[i] = (uint8_t)(x >> 8);
        third[i] = (uint8_t)((x >> 24 & 0x80) | (x >> 16 & 0x7F));
    }
}

#define SPLIT_BLOCK 256u

/* The `width` bits of eight bytes that `mask` has, less than 8 in each, side by side. */
static inline uint64_t gather_bits(uint64_t eight, unsigned mask, unsigned width)
{
#if defined(__BMI2__)
    (void)width;
    return __builtin_ia32_pext_di(eight, UINT64_C(0x0101010101010101) * mask);
#else
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t bytes = 0, joined = 0;
    for (unsigned bit = 0, to = 0; bit < 8; bit++) {
        if (mask >> bit & 1) bytes |= (eight >> bit & ones) << to++;
    }
    for (unsigned k = 0; k < 8; k++) joined |= (bytes >> 8 * k & 0xFF) << k * width;
    return joined;
#endif
}

/* The bits of a block of bytes that `mask` has, `width` of them, to a bit stream; unused bits at its end are 0. */
static inline void pack_bits(const uint8_t *values, unsigned mask, unsigned width, uint32_t count, uint8_t *packed_out)
{
    uint8_t packed[SPLIT_BLOCK + 8] = {0}, last[8] = {0}, *at = packed;
    uint32_t i = 0;
    for (; i + 8 <= count; i += 8, at += width) cllm_store_le64(at, gather_bits(cllm_load_le64(values + i), mask, width));
    memcpy(last, values + i, count - i);
    cllm_store_le64(at, gather_bits(cllm_load_le64(last), mask, width));
    memcpy(packed_out, packed, ((size_t)count * width + 7) / 8);
}

/* Elements of one byte. */
static inline void split_any8(const struct cllm_layout *layout, const uint8_t *restrict elements, uint32_t element_count,
                              uint8_t *restrict symbols, uint8_t *restrict packed)
{
    const unsigned rest = cllm_layout_remainder_bits(layout), shift = layout->symbol_shift, all = (1u << layout->symbol_bits) - 1;
    const unsigned others = 0xFF & ~(all << shift) & ~((1u << layout->zero_bits) - 1);
    for (uint32_t i = 0; i < element_count; i++) symbols[i] = (uint8_t)(elements[i] >> shift & all);
    for (uint32_t first = 0; first < element_count && rest; first += SPLIT_BLOCK) {
        uint32_t count = element_count - first < SPLIT_BLOCK ? element_count - first : SPLIT_BLOCK;
        pack_bits(elements + first, others, rest, count, packed + (size_t)first / 8 * rest);
    }
}

/* A symbol above a byte: F16 as cpack codes it. */
static inline void split_f16(const uint8_t *restrict elements, uint32_t element_count, uint8_t *restrict symbols,
                             uint8_t *restrict plane)
{
    for (uint32_t i = 0; i < element_count; i++) {
        uint16_t x = get_element16(elements + 2 * (size_t)i);
        symbols[i] = (uint8_t)(x >> 8);
        plane[i] = (uint8_t)x;
    }
}

/* Any layout of larger elements, a block at a time: whole remainders, of which each plane takes a byte. */
static inline void split_any(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count, uint8_t *symbols,
                             uint8_t *planes)
{
    const struct cllm_layout l = *layout;
    unsigned bits = cllm_layout_remainder_bits(&l), whole = bits / 8, rest = bits % 8;
    uint8_t *packed = planes + (size_t)whole * element_count;
    uint64_t block[SPLIT_BLOCK];
    uint8_t top[SPLIT_BLOCK];
    for (uint32_t first = 0; first < element_count; first += SPLIT_BLOCK) {
        uint32_t count = element_count - first < SPLIT_BLOCK ? element_count - first : SPLIT_BLOCK;
        const uint8_t *from = elements + (size_t)first * l.element_bytes;
        switch (l.element_bytes) {
        case 2:
            for (uint32_t i = 0; i < count; i++) block[i] = get_element16(from + 2 * (size_t)i);
            break;
        case 4:
            for (uint32_t i = 0; i < count; i++) block[i] = get_element32(from + 4 * (size_t)i);
            break;
        default:
            for (uint32_t i = 0; i < count; i++) block[i] = get_element64(from + 8 * (size_t)i);
            break;
        }
        for (uint32_t i = 0; i < count; i++) {
            symbols[first + i] = cllm_element_symbol(&l, block[i]);
            block[i] = cllm_element_remainder(&l, block[i]);
        }
        for (unsigned k = 0; k < whole; k++) {
            uint8_t *plane = planes + (size_t)k * element_count + first;
            for (uint32_t i = 0; i < count; i++) plane[i] = (uint8_t)(block[i] >> 8 * k);
        }
        if (!rest) continue;
        for (uint32_t i = 0; i < count; i++) top[i] = (uint8_t)(block[i] >> 8 * whole);
        pack_bits(top, (1u << rest) - 1, rest, count, packed + (size_t)first / 8 * rest);
    }
}

/* Eight histograms, so that equal neighbours do not wait for each other's store. */
static inline void count_bytes(const uint8_t *symbols, uint32_t element_count, uint64_t counts[256])
{
    uint32_t part[8][256] = {{0}};
    uint32_t i = 0;
    for (; i + 8 <= element_count; i += 8) {
        uint64_t eight = cllm_load_le64(symbols + i);
        for (unsigned k = 0; k < 8; k++) part[k][eight >> 8 * k & 0xFF]++;
    }
    for (; i < element_count; i++) part[0][symbols[i]]++;
    for (unsigned k = 0; k < 8; k++) {
        for (unsigned s = 0; s < 256; s++) counts[s] += part[k][s];
    }
}

/* Exponents in use are neighbours: as many different ones are faster counted by comparing vectors of symbols with each. */
#define NEAR 40u
#define COUNTED_AT_ONCE 4u
#if defined(__AVX2__)
#define COUNT_VECTOR 32u
#else
#define COUNT_VECTOR 16u
#endif
#define COUNT_ROUND (COUNT_VECTOR * 255u) /* what the bytes of a vector can count */

typedef uint8_t count_vector __attribute__((vector_size(COUNT_VECTOR)));

static inline uint32_t sum_bytes(count_vector x)
{
    uint32_t sum = 0;
    for (unsigned k = 0; k < COUNT_VECTOR; k++) sum += x[k];
    return sum;
}

/* How often symbols `first` to first + COUNTED_AT_ONCE - 1 are among so many whole vectors. */
static inline void count_four(const uint8_t *symbols, uint32_t symbol_count, unsigned first, uint64_t counts[256])
{
    count_vector sums[COUNTED_AT_ONCE] = {{0}}, x;
    for (uint32_t i = 0; i < symbol_count; i += COUNT_VECTOR) {
        memcpy(&x, symbols + i, sizeof x);
        for (unsigned k = 0; k < COUNTED_AT_ONCE; k++) sums[k] -= (count_vector)(x == (uint8_t)(first + k));
    }
    for (unsigned k = 0; k < COUNTED_AT_ONCE && first + k < 256; k++) counts[first + k] += sum_bytes(sums[k]);
}

static inline void count_symbols(const uint8_t *symbols, uint32_t element_count, uint64_t counts[256])
{
    uint8_t least = 255, most = 0;
    for (uint32_t i = 0; i < element_count; i++) {
        least = symbols[i] < least ? symbols[i] : least;
        most = symbols[i] > most ? symbols[i] : most;
    }
    uint32_t whole = most - least < (int)NEAR ? element_count - element_count % COUNT_VECTOR : 0;
    for (uint32_t i = 0, n; i < whole; i += n) {
        n = whole - i < COUNT_ROUND ? whole - i : COUNT_ROUND;
        for (unsigned s = least; s <= most; s += COUNTED_AT_ONCE) count_four(symbols + i, n, s, counts);
    }
    count_bytes(symbols + whole, element_count - whole, counts);
}

static inline bool layout_is(const struct cllm_layout *layout, unsigned element_bytes, unsigned shift, unsigned bits)
{
    return layout->element_bytes == element_bytes && layout->symbol_shift == shift && layout->symbol_bits == bits &&
           layout->zero_bits == 0;
}

static inline void split_elements(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count,
                                  uint8_t *symbols, uint8_t *planes)
{
    if (layout_is(layout, 2, 7, 8)) split_bf16(elements, element_count, symbols, planes);
    else if (layout_is(layout, 4, 23, 8)) split_f32(elements, element_count, symbols, planes);
    else if (layout_is(layout, 2, 8, 8)) split_f16(elements, element_count, symbols, planes);
    else if (layout_is(layout, 1, 0, 8)) memcpy(symbols, elements, element_count);
    else if (layout->element_bytes == 1) split_any8(layout, elements, element_count, symbols, planes);
    else split_any(layout, elements, element_count, symbols, planes);
}

/* ------------------------------------------------------------------------------------------------------- code words */

/* A bit stream being written; up to 8 bytes behind its end are overwritten. */
struct bit_writer {
    uint8_t *at;
    uint64_t pending;
    unsigned pending_bits; /* less than 8 between puts */
};

/* `bit_count` is at most 56, the bits above are 0. */
static inline void put_bits(struct bit_writer *writer, uint64_t value, unsigned bit_count)
{
    writer->pending |= value << writer->pending_bits;
    writer->pending_bits += bit_count;
    cllm_store_le64(writer->at, writer->pending);
    writer->at += writer->pending_bits / 8;
    writer->pending >>= writer->pending_bits & ~7u;
    writer->pending_bits %= 8;
}

static inline size_t writer_bytes(const struct bit_writer *writer, const uint8_t *start)
{
    return (size_t)(writer->at - start) + (writer->pending_bits > 0);
}

#define LENGTH_BATCH 512u /* as many segments' lengths at a time */

/* Bits of the next segments into `bits`; returns how many segments that are. */
static inline uint32_t measure_batch(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                                     uint32_t first, uint32_t stored_count, cllm_segment_bits_fn *segment_bits,
                                     uint16_t bits[LENGTH_BATCH])
{
    uint32_t count = stored_count - first < LENGTH_BATCH ? stored_count - first : LENGTH_BATCH, run = 1u << layout->segment_log2;
    segment_bits(&code->table, symbols + (size_t)first * run, run, run, count, bits);
    return count;
}

/* Head (but for the unused bits) and lengths of all segments but the last, whose end is that of the stream. Returns the bytes. */
static inline size_t write_lengths(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                                   uint32_t element_count, cllm_segment_bits_fn *segment_bits, uint8_t *out)
{
    uint32_t stored_count = (element_count - 1) >> layout->segment_log2;
    uint32_t low = UINT16_MAX, high = 0, count = 0;
    uint16_t bits[LENGTH_BATCH];
    if (stored_count == 0 || code->single) low = 0;
    for (uint32_t first = 0; first < stored_count && !code->single; first += count) {
        count = measure_batch(layout, code, symbols, first, stored_count, segment_bits, bits);
        for (uint32_t s = 0; s < count; s++) {
            low = bits[s] < low ? bits[s] : low;
            high = bits[s] > high ? bits[s] : high;
        }
    }
    unsigned width = 0;
    while (high > low && (high - low) >> width != 0) width++;
    cllm_store_le16(out, (uint16_t)low);
    out[2] = (uint8_t)width;
    uint8_t *deltas = out + CLLM_FLOAT_HEADER_BYTES;
    struct bit_writer writer = {deltas, 0, 0};
    for (uint32_t first = 0; first < stored_count && width > 0; first += count) {
        /* Only a chunk of many short segments has to be measured again. */
        if (count < stored_count) count = measure_batch(layout, code, symbols, first, stored_count, segment_bits, bits);
        for (uint32_t s = 0; s < count; s++) put_bits(&writer, bits[s] - low, width);
    }
    return CLLM_FLOAT_HEADER_BYTES + writer_bytes(&writer, deltas);
}

#define WORDS_AT_ONCE 5u /* 5 * 11 bits, and 7 pending */

/* The code words of `count` symbols, from `symbols` upwards (step 1) or downwards (step -1). */
static inline __attribute__((always_inline)) void put_words(struct bit_writer *writer, const uint16_t word[256],
                                                            const uint8_t length[256], const uint8_t *symbols, uint32_t count,
                                                            ptrdiff_t step)
{
    for (; count >= WORDS_AT_ONCE; count -= WORDS_AT_ONCE, symbols += WORDS_AT_ONCE * step) {
        size_t a = symbols[0], b = symbols[step], c = symbols[2 * step], d = symbols[3 * step], e = symbols[4 * step];
        /* Two pairs, then a pair of pairs: short chains instead of a long one. */
        uint64_t ab = word[a] | (uint64_t)word[b] << length[a], cd = word[c] | (uint64_t)word[d] << length[c];
        unsigned ab_bits = length[a] + length[b], abcd_bits = ab_bits + length[c] + length[d];
        put_bits(writer, ab | cd << ab_bits | (uint64_t)word[e] << abcd_bits, abcd_bits + length[e]);
    }
    for (; count > 0; count--, symbols += step) put_bits(writer, word[*symbols], length[*symbols]);
}

/* What writes the code words of so many symbols with step 1 or -1, as put_words does. */
typedef void put_words_fn(struct bit_writer *writer, const struct cllm_float_code *code, const uint8_t *symbols, uint32_t count,
                          ptrdiff_t step);

static inline __attribute__((always_inline)) void put_words_any(struct bit_writer *writer, const struct cllm_float_code *code,
                                                                const uint8_t *symbols, uint32_t count, ptrdiff_t step)
{
    put_words(writer, step > 0 ? code->word : code->mirrored, code->table.length, symbols, count, step);
}

/* Segment by segment: the first half as it comes; the second half from its last symbol to its first with mirrored code words,
 * which is what its code words from the segment's end downwards amount to. */
static inline __attribute__((always_inline)) size_t write_codes(const struct cllm_layout *layout,
                                                                const struct cllm_float_code *code, const uint8_t *symbols,
                                                                uint32_t element_count, put_words_fn *put, uint8_t *out,
                                                                uint8_t *unused_bits_out)
{
    struct bit_writer writer = {out, 0, 0};
    uint32_t per_segment = 1u << layout->segment_log2;
    *unused_bits_out = 0;
    if (code->single) return 0;
    for (uint32_t left = element_count, count; left > 0; left -= count, symbols += count) {
        count = left < per_segment ? left : per_segment;
        uint32_t first = cllm_first_half(layout, count);
        put(&writer, code, symbols, first, 1);
        put(&writer, code, symbols + count - 1, count - first, -1);
    }
    *unused_bits_out = (uint8_t)(-writer.pending_bits & 7);
    return writer_bytes(&writer, out);
}

/* What tiers do in their own ways. */
struct float_encode_parts {
    cllm_segment_bits_fn *segment_bits;
    put_words_fn *put_words;
};

static inline __attribute__((always_inline)) size_t encode_symbols(const struct cllm_layout *layout,
                                                                   const struct cllm_float_code *code, const uint8_t *symbols,
                                                                   uint32_t element_count, struct float_encode_parts parts,
                                                                   uint8_t *stored)
{
    uint8_t *head = stored + cllm_float_plane_bytes(layout, element_count);
    uint8_t *stream = head + write_lengths(layout, code, symbols, element_count, parts.segment_bits, head);
    return (size_t)(stream - stored) + write_codes(layout, code, symbols, element_count, parts.put_words, stream, head + 3);
}

#endif

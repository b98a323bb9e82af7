/* codec.h - what encoder and every decoder must agree on about the float form (FORMAT.md 9): how an element splits, how a
 * prefix code follows from its code lengths, where the parts of a chunk lie.
 *
 * All functions are pure and may be called from any thread.
 */
#ifndef CLLM_CODEC_H
#define CLLM_CODEC_H

#include "bytes.h"
#include "cllm.h"
#include "layout.h"

/* Bit logic that kernels use too is compiled for both sides, so that the CPU's tests cover it. */
#if defined(__CUDACC__)
#define CLLM_HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define CLLM_HOST_DEVICE static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* --------------------------------------------------------------------------------------------------- element split */

/* Checks the field against FORMAT.md 6.2. Fails with CORRUPT. */
enum cllm_status cllm_layout_check(const struct cllm_layout *layout, struct cllm_error *err) CLLM_MUST_USE;

/* Bits of an element that are neither coded nor dropped: kept raw. */
CLLM_HOST_DEVICE unsigned cllm_layout_remainder_bits(const struct cllm_layout *layout)
{
    return 8u * layout->element_bytes - layout->symbol_bits - layout->zero_bits;
}

CLLM_HOST_DEVICE uint8_t cllm_element_symbol(const struct cllm_layout *layout, uint64_t element)
{
    return (uint8_t)(element >> layout->symbol_shift & ((1u << layout->symbol_bits) - 1));
}

/* The raw bits of an element, joined: those above the symbol follow those below it. */
CLLM_HOST_DEVICE uint64_t cllm_element_remainder(const struct cllm_layout *layout, uint64_t element)
{
    unsigned above = layout->symbol_shift + layout->symbol_bits;
    uint64_t low = element & ((UINT64_C(1) << layout->symbol_shift) - 1);
    uint64_t high = above < 64 ? element >> above : 0;
    return (high << layout->symbol_shift | low) >> layout->zero_bits;
}

/* How elements of a palette split: the symbol says all, nothing is kept raw. */
CLLM_HOST_DEVICE struct cllm_layout cllm_layout_of_palette(const struct cllm_layout *layout)
{
    struct cllm_layout of_palette = *layout;
    of_palette.symbol_shift = of_palette.zero_bits = (uint8_t)(8 * layout->element_bytes - 8);
    of_palette.symbol_bits = 8;
    return of_palette;
}

/* How the masks of a sparse chunk split: bytes, all of which is coded, in shorter segments than its elements. FORMAT.md 12. */
CLLM_HOST_DEVICE struct cllm_layout cllm_layout_of_masks(const struct cllm_layout *layout)
{
    struct cllm_layout of_masks = {1, 0, 8, 0, CLLM_SEGMENT_LOG2_MIN};
    if (layout->segment_log2 > CLLM_SEGMENT_LOG2_MIN + 2) of_masks.segment_log2 = (uint8_t)(layout->segment_log2 - 2);
    return of_masks;
}

/* Symbol and remainder joined: the inverse. */
CLLM_HOST_DEVICE uint64_t cllm_element_join(const struct cllm_layout *layout, uint8_t symbol, uint64_t remainder)
{
    unsigned above = layout->symbol_shift + layout->symbol_bits;
    uint64_t raw = remainder << layout->zero_bits;
    uint64_t low = raw & ((UINT64_C(1) << layout->symbol_shift) - 1);
    uint64_t high = raw >> layout->symbol_shift;
    return (above < 64 ? high << above : 0) | (uint64_t)symbol << layout->symbol_shift | low;
}

/* ----------------------------------------------------------------------------------------------------- prefix codes */

/* Number of symbols that have a code. */
unsigned cllm_table_symbol_count(const struct cllm_table *table);

/* A usable code: at least one symbol, no length above CLLM_CODE_BITS_MAX, and complete (Kraft sum exactly 1). A single
 * symbol has length 0: it takes no bits. Fails with CORRUPT. */
enum cllm_status cllm_table_check(const struct cllm_table *table, struct cllm_error *err) CLLM_MUST_USE;

/* The highest symbol of a usable code. */
unsigned cllm_table_last_symbol(const struct cllm_table *table);

#define CLLM_TABLE_STORED_BYTES_MAX 130u

/* Reads a stored table (FORMAT.md 6.2) and checks it. Fails with CORRUPT. */
enum cllm_status cllm_table_parse(struct cllm_cursor *cursor, struct cllm_table *table_out, struct cllm_error *err) CLLM_MUST_USE;

/* Reads the values that make a palette of a usable table (FORMAT.md 6.2) and checks both: symbols are 0 to their number less 1,
 * so that no code word leads to a symbol without a value. Values stay where the cursor found them. Fails with CORRUPT. */
enum cllm_status cllm_palette_parse(struct cllm_cursor *cursor, unsigned element_bytes, struct cllm_table *table,
                                    struct cllm_error *err) CLLM_MUST_USE;

/* Bytes of all values of a usable table, 0 where it is no palette. */
size_t cllm_table_values_bytes(const struct cllm_table *table);

/* Writes at most CLLM_TABLE_STORED_BYTES_MAX bytes, without values; returns how many. The table must be a usable code. */
size_t cllm_table_serialise(const struct cllm_table *table, uint8_t *out);

/* The code words of a usable table, bit-reversed: the first bit of the stream is bit 0. */
void cllm_table_codes(const struct cllm_table *table, uint16_t codes_out[256]);

/* What the next CLLM_CODE_BITS_MAX bits of a stream begin with. */
struct cllm_code_entry {
    uint8_t symbol;
    uint8_t bits;
};
#define CLLM_CODE_ENTRIES (1u << CLLM_CODE_BITS_MAX)

/* Every entry is filled: a usable code is complete. */
void cllm_table_lookup(const struct cllm_table *table, struct cllm_code_entry entries_out[CLLM_CODE_ENTRIES]);

/* The low `width` bits of `value`, at most 16, in the other order. */
CLLM_HOST_DEVICE uint32_t cllm_bits_mirrored(uint32_t value, unsigned width)
{
    uint32_t mirrored = 0;
    for (unsigned i = 0; i < width; i++) mirrored |= (value >> i & 1u) << (width - 1 - i);
    return mirrored;
}

/* Whether chunks of this form have elements by a code table. */
static inline bool cllm_form_has_table(unsigned form)
{
    return form == CLLM_FORM_FLOAT || form == CLLM_FORM_SPARSE || form == CLLM_FORM_SCALED;
}

/* --------------------------------------------------------------------------------------------------- chunk contents */

/* Where the parts of one stored float chunk lie; pointers into the stored bytes. */
struct cllm_float_view {
    const uint8_t *planes; /* floor(remainder_bits / 8) planes of element_count bytes, then the packed rest */
    const uint8_t *deltas; /* segment lengths less segment_base, segment_width bits each */
    const uint8_t *stream; /* code words, first bit in bit 0 of the first byte */
    uint32_t stream_bytes;
    uint32_t stream_bits;   /* without the unused ones in the last byte */
    const uint8_t *palette; /* 256 elements, what each symbol stands for; null where symbols are fields */
    uint32_t element_count;
    uint32_t segment_count;
    uint16_t segment_base;
    uint8_t segment_width;
};

/* Bytes that the raw planes of `element_count` elements take. */
CLLM_HOST_DEVICE uint64_t cllm_float_plane_bytes(const struct cllm_layout *layout, uint32_t element_count)
{
    unsigned bits = cllm_layout_remainder_bits(layout);
    return (uint64_t)element_count * (bits / 8) + ((uint64_t)element_count * (bits % 8) + 7) / 8;
}

/* Finds the parts of a float chunk whose layout was checked. Fails with CORRUPT where they do not fit. */
enum cllm_status cllm_float_view_parse(const struct cllm_layout *layout, uint32_t decoded_bytes, const uint8_t *stored,
                                       uint32_t stored_bytes, struct cllm_float_view *view_out,
                                       struct cllm_error *err) CLLM_MUST_USE;

/* `width` (at most 16) bits at bit position `bit`, first bit lowest, from `bytes` that hold them all. */
CLLM_HOST_DEVICE uint32_t cllm_bits_at(const uint8_t *bytes, uint64_t bit, unsigned width)
{
    const uint8_t *p = bytes + (bit >> 3);
    unsigned shift = bit & 7;
    uint32_t value = 0;
    for (unsigned got = 0; got < shift + width; got += 8) value |= (uint32_t)*p++ << got;
    return value >> shift & ((1u << width) - 1);
}

/* Of the `symbol_count` symbols of one segment, those that are coded forwards from its start; the rest is coded backwards from
 * its end, in the mirrored stream. */
CLLM_HOST_DEVICE uint32_t cllm_first_half(const struct cllm_layout *layout, uint32_t symbol_count)
{
    uint32_t half = 1u << (layout->segment_log2 - 1);
    return symbol_count < half ? symbol_count : half;
}

/* The head of a sparse chunk, four numbers of 4 bytes (FORMAT.md 12): behind it follow the elements that are present as a float
 * chunk of float_bytes, sign_bytes of signs, and the masks as a float chunk of bytes. */
struct cllm_sparse_head {
    uint32_t float_bytes;
    uint32_t sign_bytes;
    uint32_t mask_count;    /* symbols of the masks */
    uint32_t present_count; /* elements of the float chunk */
};

/* Masks of `count` things: a bit of a byte for each. */
CLLM_HOST_DEVICE uint32_t cllm_mask_bytes(uint32_t count)
{
    return count / 8 + (count % 8 != 0);
}

/* Whether the symbols of the masks begin with masks of masks; else there is a symbol for every mask. */
CLLM_HOST_DEVICE bool cllm_sparse_has_levels(const struct cllm_sparse_head *head, uint32_t element_count)
{
    return head->mask_count != cllm_mask_bytes(element_count);
}

/* Whether the parts of a sparse chunk fit in its bytes and are of sizes that there can be. */
CLLM_HOST_DEVICE bool cllm_sparse_head_fits(const struct cllm_sparse_head *head, uint32_t element_count, uint32_t stored_bytes)
{
    const uint32_t masks = cllm_mask_bytes(element_count), room = stored_bytes - CLLM_SPARSE_HEAD_BYTES;
    if (stored_bytes < CLLM_SPARSE_HEAD_BYTES || head->float_bytes > room || head->sign_bytes > room - head->float_bytes)
        return false;
    if (head->present_count == 0 || head->present_count >= element_count) return false;
    if (head->sign_bytes != 0 && head->sign_bytes != cllm_mask_bytes(element_count - head->present_count)) return false;
    return head->mask_count == masks || (head->mask_count > cllm_mask_bytes(masks) && head->mask_count < masks);
}

/* Length in bits of segment `segment_index`, which is not the last one (its end is the end of the stream). */
static inline uint32_t cllm_float_segment_bits(const struct cllm_float_view *view, uint32_t segment_index)
{
    return view->segment_base + cllm_bits_at(view->deltas, (uint64_t)segment_index * view->segment_width, view->segment_width);
}

#ifdef __cplusplus
}
#endif

#endif

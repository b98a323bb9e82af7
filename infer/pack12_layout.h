/* pack12_layout.h - the bits of the packed form of pack12.h, for host and device. */
#ifndef CLLM_PACK12_LAYOUT_H
#define CLLM_PACK12_LAYOUT_H

#include <stdint.h>

#ifdef __CUDACC__
#define CLLM_BOTH static __host__ __device__ __forceinline__
#else
#define CLLM_BOTH static inline
#endif

/* Rows of a band and columns of a tile; columns that a warp takes in a step, and those whose code words lie together; columns of
 * the unit that a code word is for; words of patches in a tile's head. */
enum {
    PACK12_ROWS = 16,
    PACK12_COLUMNS = 256,
    PACK12_STEP = 32,
    PACK12_PAIR = 2 * PACK12_STEP,
    PACK12_UNIT = 8,
    PACK12_QUAD = PACK12_STEP / PACK12_UNIT, /* lanes that share a row */
    PACK12_PATCHES = 3
};

/* Bytes of a tile's parts: head; the low bytes of a step, its code words. */
enum {
    PACK12_HEAD_BYTES = 16,
    PACK12_LOW_BYTES = PACK12_ROWS * PACK12_STEP,
    PACK12_CODE_BYTES = PACK12_LOW_BYTES / 2,
    PACK12_TILE_BYTES = PACK12_HEAD_BYTES + PACK12_COLUMNS / PACK12_STEP * (PACK12_LOW_BYTES + PACK12_CODE_BYTES)
};

/* Where a weight is in its band. */
struct pack12_place {
    uint64_t tile;      /* bytes before its tile */
    uint32_t low_byte;  /* in the tile; those of its unit lie side by side */
    uint32_t code_word; /* in the tile, as bytes */
};

/* Steps of a tile that has so many columns left: pairs of them are whole. */
CLLM_BOTH uint32_t pack12_steps(uint32_t column_count)
{
    return column_count >= PACK12_COLUMNS ? PACK12_COLUMNS / PACK12_STEP
                                          : (column_count + PACK12_PAIR - 1) / PACK12_PAIR * (PACK12_PAIR / PACK12_STEP);
}

CLLM_BOTH uint32_t pack12_tile_bytes(uint32_t step_count)
{
    return PACK12_HEAD_BYTES + step_count * (PACK12_LOW_BYTES + PACK12_CODE_BYTES);
}

CLLM_BOTH uint32_t pack12_tile_count(uint32_t column_count) /* of a band */
{
    return (column_count + PACK12_COLUMNS - 1) / PACK12_COLUMNS;
}

CLLM_BOTH uint64_t pack12_band_bytes(uint32_t column_count)
{
    const uint32_t rest = column_count % PACK12_COLUMNS;
    return (uint64_t)(column_count / PACK12_COLUMNS) * PACK12_TILE_BYTES + (rest ? pack12_tile_bytes(pack12_steps(rest)) : 0);
}

CLLM_BOTH uint32_t pack12_band_count(uint32_t row_count)
{
    return (row_count + PACK12_ROWS - 1) / PACK12_ROWS;
}

/* Lane 4 g + t of a warp has rows g and g + 8 of a band and, of each step, the unit of columns from 8 t. In a step it finds the
 * low bytes of both units side by side, in a pair of steps the code words of all four. */
CLLM_BOTH uint32_t pack12_low_offset(uint32_t step, uint32_t lane)
{
    return PACK12_HEAD_BYTES + step * PACK12_LOW_BYTES + lane * 16;
}

CLLM_BOTH uint32_t pack12_code_offset(uint32_t step_count, uint32_t step, uint32_t lane)
{
    return PACK12_HEAD_BYTES + step_count * PACK12_LOW_BYTES + step / 2 * (2 * PACK12_CODE_BYTES) + lane * 16 + step % 2 * 8;
}

/* `row` counts in the band. */
CLLM_BOTH struct pack12_place pack12_find_place(uint32_t column_count, uint32_t row, uint32_t column)
{
    const uint32_t tile = column / PACK12_COLUMNS, in_tile = column % PACK12_COLUMNS, step = in_tile / PACK12_STEP;
    const uint32_t lane = row % (PACK12_ROWS / 2) * PACK12_QUAD + in_tile / PACK12_UNIT % PACK12_QUAD;
    const uint32_t second = row / (PACK12_ROWS / 2), steps = pack12_steps(column_count - tile * PACK12_COLUMNS);
    const struct pack12_place place = {(uint64_t)tile * PACK12_TILE_BYTES,
                                       pack12_low_offset(step, lane) + second * PACK12_UNIT + column % PACK12_UNIT,
                                       pack12_code_offset(steps, step, lane) + second * 4};
    return place;
}

/* A patch: the weight's place in its tile and its upper byte. */
CLLM_BOTH uint32_t pack12_patch(uint32_t row, uint32_t column, uint32_t upper)
{
    return (row * PACK12_COLUMNS + column) << 8 | upper;
}

CLLM_BOTH uint32_t pack12_patch_row(uint32_t patch)
{
    return (patch >> 8) / PACK12_COLUMNS;
}

CLLM_BOTH uint32_t pack12_patch_column(uint32_t patch)
{
    return patch >> 8 & (PACK12_COLUMNS - 1);
}

/* A weight of a unit has its index in the nibble of its own number. Its sign is bit 3 of another nibble: chosen so that the four
 * signs of each half of a unit lie where the sign bits of four upper bytes do, after a shift by four for the second half. */
CLLM_BOTH unsigned pack12_index_bit(unsigned element)
{
    return element * 4;
}

CLLM_BOTH unsigned pack12_sign_bit(unsigned element)
{
    return element < 4 ? element * 8 + 7 : (element - 4) * 8 + 3;
}

/* Index of the value of `upper` (sign ignored) in the window, or -1. */
CLLM_BOTH int pack12_find(uint64_t window, uint32_t upper)
{
    for (int i = 0; i < 8; i++) {
        if ((uint32_t)(window >> 8 * i & 0x7F) == (upper & 0x7F)) return i;
    }
    return -1;
}

/* Upper byte of an element of a unit, patches apart. */
CLLM_BOTH uint32_t pack12_upper(uint64_t window, uint32_t codes, unsigned element)
{
    const uint32_t value = (uint32_t)(window >> 8 * (codes >> pack12_index_bit(element) & 7)) & 0x7F;
    return value | (codes >> pack12_sign_bit(element) & 1) << 7;
}

#endif

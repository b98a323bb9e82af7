/* pack12_layout.h - the bits of the packed form of pack12.h, for host and device. */
#ifndef CLLM_PACK12_LAYOUT_H
#define CLLM_PACK12_LAYOUT_H

#include <stdint.h>

#ifdef __CUDACC__
#define CLLM_BOTH static __host__ __device__ __forceinline__
#else
#define CLLM_BOTH static inline
#endif

/* Columns of a group, and of the unit that a lane decodes from one code word. In a full group lane i of a warp has units i and
 * i + 32, whose low bytes lie side by side, and so do their code words. */
enum { PACK12_GROUP = 512, PACK12_UNIT = 8, PACK12_ALIGN = 32, PACK12_LANES = 32 };

/* Place of the weights of one unit within its row, in bytes. */
struct pack12_place {
    uint64_t low_offset;  /* 8 bytes */
    uint64_t code_offset; /* 4 bytes */
};

CLLM_BOTH uint64_t pack12_row_bytes(uint32_t column_count)
{
    return ((uint64_t)column_count + PACK12_ALIGN - 1) / PACK12_ALIGN * PACK12_ALIGN * 3 / 2;
}

/* `unit` counts from the start of the row. */
CLLM_BOTH struct pack12_place pack12_place_unit(uint32_t column_count, uint32_t unit)
{
    const uint32_t group = unit / (PACK12_GROUP / PACK12_UNIT), in_group = unit % (PACK12_GROUP / PACK12_UNIT);
    const uint32_t left = (column_count + PACK12_ALIGN - 1) / PACK12_ALIGN * PACK12_ALIGN - group * PACK12_GROUP;
    const int full = left >= PACK12_GROUP;
    const uint32_t size = full ? (uint32_t)PACK12_GROUP : left;
    const uint32_t slot = full ? in_group % PACK12_LANES * 2 + in_group / PACK12_LANES : in_group;
    const uint64_t start = (uint64_t)group * (PACK12_GROUP * 3 / 2);
    const struct pack12_place place = {start + slot * 8, start + size + slot * 4};
    return place;
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

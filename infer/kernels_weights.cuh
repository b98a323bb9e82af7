/* kernels_weights.cuh - forms of weights, made ready for tensor cores.
 *
 * A tile is 16 rows of 256 columns (pack12.h), the last of a band as many pairs of steps as are left. In a slot of shared memory
 * a packed tile lies as it does in device memory, one of another form as rows. Lane 4 g + t multiplies, of each step of 32
 * columns, columns 8 t to 8 t + 7 of rows g and g + 8: two products, each of four columns. Each form has
 *
 *   TERMS          a weight is exactly the sum of so many BF16 numbers
 *   slot_bytes     of a whole tile
 *   early_warps    that fill their slots before the input is there, by measurement
 *   part, take     a lane's weights of some steps, as far as they are made ready at once
 *   fragment       of product j of a step: term i of the columns 4 j to 4 j + 3, as A of multiply_add wants them
 *   fill_part      puts a tile whose rows are not aligned to 16 bytes into a slot; zeros for what does not exist
 */
#ifndef CLLM_KERNELS_WEIGHTS_CUH
#define CLLM_KERNELS_WEIGHTS_CUH

#include "pack12_device.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

static __device__ __forceinline__ uint32_t word_of(const uint4 &v, uint32_t i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Two numbers as sums of BF16 pairs, the largest term first; exact if the terms have bits enough. */
template <int TERMS>
static __device__ __forceinline__ void split_pair(float low, float high, uint32_t terms[TERMS])
{
#pragma unroll
    for (int i = 0; i < TERMS; i++) {
        const __nv_bfloat162 rounded = __floats2bfloat162_rn(low, high);
        terms[i] = *(const uint32_t *)&rounded;
        low -= __uint_as_float(terms[i] << 16);
        high -= __uint_as_float(terms[i] & 0xFFFF0000);
    }
}

/* A tile in its slot. */
struct slot_tile {
    const uint8_t *slot;
    uint32_t step_count;
    uint64_t window; /* packed only, as the following */
    const uint32_t *patches;
};

/* The rows of a tile that is not packed. */
struct tile_rows {
    const uint8_t *first;
    uint64_t row_bytes;
    uint32_t row_count; /* that exist, from 1 on */
    uint32_t column_count;
};

template <class WORD, uint32_t STRIDE>
static __device__ __forceinline__ void fill_rows(const struct tile_rows &rows, uint32_t step_count, uint32_t lane, uint8_t *slot)
{
#pragma unroll 1
    for (uint32_t row = 0; row < PACK12_ROWS; row++) {
        const WORD *from = (const WORD *)(rows.first + row * rows.row_bytes);
#pragma unroll 1
        for (uint32_t column = lane; column < step_count * PACK12_STEP; column += WARP) {
            const bool exists = row < rows.row_count && column < rows.column_count;
            ((WORD *)(slot + row * STRIDE))[column] = exists ? from[column] : 0;
        }
    }
}

/* Rows of elements as they are. */
template <class ELEMENT>
struct rows_form {
    static constexpr bool packed = false;
    static constexpr uint32_t early_warps = 7;
    static constexpr uint32_t element_bytes = sizeof(ELEMENT);
    static constexpr uint32_t row_stride = PACK12_COLUMNS * element_bytes;
    static constexpr uint32_t slot_bytes = PACK12_ROWS * row_stride;

    static __device__ __forceinline__ void fill_part(const struct tile_rows &rows, uint32_t step_count, uint32_t lane,
                                                     uint8_t *slot)
    {
        fill_rows<ELEMENT, row_stride>(rows, step_count, lane, slot);
    }
};

/* Term by term, the pairs that a fragment consists of. */
template <int TERMS>
static __device__ __forceinline__ void gather_terms(const uint32_t split[4][TERMS], uint4 terms[TERMS])
{
#pragma unroll
    for (int term = 0; term < TERMS; term++) {
        terms[term] = make_uint4(split[0][term], split[1][term], split[2][term], split[3][term]);
    }
}

/* Lanes load what they multiply. */
template <class ELEMENT>
struct loaded_form : rows_form<ELEMENT> {
    template <uint32_t STEPS>
    struct part {
        const uint8_t *first; /* of row g, the unit of the first step */
    };

    template <uint32_t STEPS>
    static __device__ __forceinline__ void take(const struct slot_tile &tile, uint32_t first_step, uint32_t lane,
                                                part<STEPS> &out)
    {
        out.first = tile.slot + lane / PACK12_QUAD * rows_form<ELEMENT>::row_stride +
                    (lane % PACK12_QUAD * PACK12_UNIT + first_step * PACK12_STEP) * sizeof(ELEMENT);
    }

    /* 16 bytes of a unit, from the given one on, of row g or g + 8. */
    static __device__ __forceinline__ uint4 load(const uint8_t *first, uint32_t step, uint32_t row, uint32_t byte)
    {
        return *(const uint4 *)(first + step * (PACK12_STEP * sizeof(ELEMENT)) +
                                row * (PACK12_ROWS / 2 * rows_form<ELEMENT>::row_stride) + byte);
    }
};

struct bf16_form : loaded_form<uint16_t> {
    static constexpr int TERMS = 1;

    template <uint32_t STEPS>
    static __device__ __forceinline__ void fragment(const part<STEPS> &part, uint32_t step, uint32_t j, uint4 terms[TERMS])
    {
        const uint4 low = load(part.first, step, 0, 0), high = load(part.first, step, 1, 0);
        terms[0] = make_uint4(word_of(low, j * 2), word_of(high, j * 2), word_of(low, j * 2 + 1), word_of(high, j * 2 + 1));
    }
};

struct f16_form : loaded_form<uint16_t> {
    static constexpr int TERMS = 2; /* 11 bits */

    template <uint32_t STEPS>
    static __device__ __forceinline__ void fragment(const part<STEPS> &part, uint32_t step, uint32_t j, uint4 terms[TERMS])
    {
        uint32_t split[4][TERMS];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t two = word_of(load(part.first, step, i % 2, 0), j * 2 + i / 2);
            split_pair<TERMS>(__half2float(__ushort_as_half((unsigned short)two)),
                              __half2float(__ushort_as_half((unsigned short)(two >> 16))), split[i]);
        }
        gather_terms<TERMS>(split, terms);
    }
};

struct f32_form : loaded_form<uint32_t> {
    static constexpr int TERMS = 3; /* 24 bits */

    template <uint32_t STEPS>
    static __device__ __forceinline__ void fragment(const part<STEPS> &part, uint32_t step, uint32_t j, uint4 terms[TERMS])
    {
        uint32_t split[4][TERMS];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint4 four = load(part.first, step, i % 2, j * 16);
            split_pair<TERMS>(__uint_as_float(word_of(four, i / 2 * 2)), __uint_as_float(word_of(four, i / 2 * 2 + 1)), split[i]);
        }
        gather_terms<TERMS>(split, terms);
    }
};

/* pack12.h. All code words are looked up first: then nothing but patches stands between the products, whose instructions follow
 * each other without waiting. */
struct packed_form {
    template <uint32_t STEPS>
    struct part {
        const uint8_t *lows;       /* of the first step */
        uint32_t uppers[STEPS][4]; /* [row, half of the unit] */
    };
    static constexpr bool packed = true;
    static constexpr uint32_t early_warps = 10;
    static constexpr int TERMS = 1;
    static constexpr uint32_t element_bytes = 0;
    static constexpr uint32_t row_stride = 0;
    static constexpr uint32_t slot_bytes = PACK12_TILE_BYTES;

    /* Patches the upper bytes of the steps from `first_step` on; `head`: of the tile. Those of a list are loaded by all lanes at
     * once: they are far away. */
    template <uint32_t STEPS>
    static __device__ __forceinline__ void patch(const uint4 &head, const uint32_t *list, uint32_t first_step, uint32_t lane,
                                                 part<STEPS> &part)
    {
        const bool is_list = head.x > PACK12_PATCHES;
        uint32_t listed = 0;
#pragma unroll 1
        for (uint32_t i = 0; i < head.x; i++) {
            if (is_list && i % WARP == 0) listed = i + lane < head.x ? __ldg(list + head.y + i + lane) : 0;
            const uint32_t patch = is_list ? __shfl_sync(ALL_LANES, listed, i % WARP) : word_of(head, 1 + i);
            const uint32_t column = pack12_patch_column(patch), row = pack12_patch_row(patch), shift = column % 4 * 8;
            const uint32_t owner = row % (PACK12_ROWS / 2) * PACK12_QUAD + column / PACK12_UNIT % PACK12_QUAD;
            const uint32_t place = (column / PACK12_STEP - first_step) * 4 + row / (PACK12_ROWS / 2) * 2 + column / 4 % 2;
            const uint32_t mine = owner == lane ? place : UINT32_MAX;
#pragma unroll
            for (uint32_t k = 0; k < STEPS * 4; k++) {
                uint32_t &word = part.uppers[k / 4][k % 4];
                if (k == mine) word = (word & ~(0xFFu << shift)) | (patch & 0xFF) << shift;
            }
        }
    }
    template <uint32_t STEPS>
    static __device__ __forceinline__ void take(const struct slot_tile &tile, uint32_t first_step, uint32_t lane,
                                                part<STEPS> &out)
    {
        const uint4 head = *(const uint4 *)tile.slot;
        out.lows = tile.slot + pack12_low_offset(first_step, lane);
#pragma unroll
        for (uint32_t step = 0; step < STEPS; step += 2) {
            const uint4 codes = *(const uint4 *)(tile.slot + pack12_code_offset(tile.step_count, first_step + step, lane));
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) unit_uppers(tile.window, word_of(codes, i), out.uppers[step + i / 2] + i % 2 * 2);
        }
        if (head.x) patch<STEPS>(head, tile.patches, first_step, lane, out);
    }
    template <uint32_t STEPS>
    static __device__ __forceinline__ void fragment(const part<STEPS> &part, uint32_t step, uint32_t j, uint4 terms[TERMS])
    {
        const uint4 lows = *(const uint4 *)(part.lows + step * PACK12_LOW_BYTES); /* eight of row g, eight of row g + 8 */
        const uint32_t low = word_of(lows, j), high = word_of(lows, 2 + j);
        const uint32_t of_low = part.uppers[step][j], of_high = part.uppers[step][2 + j];
        terms[0] =
            make_uint4(lower_pair(low, of_low), lower_pair(high, of_high), higher_pair(low, of_low), higher_pair(high, of_high));
    }
    static __device__ __forceinline__ void fill_part(const struct tile_rows &, uint32_t, uint32_t, uint8_t *)
    {
    }
};

#endif

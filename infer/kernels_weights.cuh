/* kernels_weights.cuh - forms of weights, made ready for tensor cores.
 *
 * A tile is 16 rows of 256 columns (pack12.h), the last of a band as many pairs of steps as are left. In a slot of shared memory
 * a packed tile lies as it does in device memory, one of another form as rows. Lane 4 g + t multiplies, of each step of 32
 * columns, columns 8 t to 8 t + 7 of rows g and g + 8: two products, each of four columns. Each form has
 *
 *   TERMS          a weight is exactly the sum of so many BF16 numbers
 *   slot_bytes     of a whole tile
 *   early_warps    that fill their slots before the input is there, by measurement
 *   take_pair      a lane's weights of two steps
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

struct halves_form : rows_form<uint16_t> {
    struct pair {
        uint4 eights[2][2]; /* [step][row] */
    };

    static __device__ __forceinline__ void take_pair(const uint8_t *slot, uint32_t, uint32_t first_step, uint32_t lane, pair &out)
    {
        const uint8_t *from = slot + lane / PACK12_QUAD * row_stride + lane % PACK12_QUAD * 16 + first_step * (PACK12_STEP * 2);
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            out.eights[i / 2][i % 2] =
                *(const uint4 *)(from + i / 2 * (PACK12_STEP * 2) + i % 2 * (PACK12_ROWS / 2 * row_stride));
        }
    }
};

struct bf16_form : halves_form {
    static constexpr int TERMS = 1;

    static __device__ __forceinline__ void fragment(const pair &pair, uint32_t step, uint32_t j, uint4 terms[TERMS])
    {
        const uint4 &low = pair.eights[step][0], &high = pair.eights[step][1];
        terms[0] = make_uint4(word_of(low, j * 2), word_of(high, j * 2), word_of(low, j * 2 + 1), word_of(high, j * 2 + 1));
    }
};

struct f16_form : halves_form {
    static constexpr int TERMS = 2; /* 11 bits */

    static __device__ __forceinline__ void fragment(const pair &pair, uint32_t step, uint32_t j, uint4 terms[TERMS])
    {
        uint32_t split[4][TERMS];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t two = word_of(pair.eights[step][i % 2], j * 2 + i / 2);
            split_pair<TERMS>(__half2float(__ushort_as_half((unsigned short)two)),
                              __half2float(__ushort_as_half((unsigned short)(two >> 16))), split[i]);
        }
        gather_terms<TERMS>(split, terms);
    }
};

struct f32_form : rows_form<uint32_t> {
    struct pair {
        uint4 fours[2][2][2]; /* [step][row][product] */
    };
    static constexpr int TERMS = 3; /* 24 bits */

    static __device__ __forceinline__ void take_pair(const uint8_t *slot, uint32_t, uint32_t first_step, uint32_t lane, pair &out)
    {
        const uint8_t *from = slot + lane / PACK12_QUAD * row_stride + lane % PACK12_QUAD * 32 + first_step * (PACK12_STEP * 4);
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            out.fours[i / 4][i / 2 % 2][i % 2] =
                *(const uint4 *)(from + i / 4 * (PACK12_STEP * 4) + i / 2 % 2 * (PACK12_ROWS / 2 * row_stride) + i % 2 * 16);
        }
    }
    static __device__ __forceinline__ void fragment(const pair &pair, uint32_t step, uint32_t j, uint4 terms[TERMS])
    {
        uint32_t split[4][TERMS];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint4 &four = pair.fours[step][i % 2][j];
            split_pair<TERMS>(__uint_as_float(word_of(four, i / 2 * 2)), __uint_as_float(word_of(four, i / 2 * 2 + 1)), split[i]);
        }
        gather_terms<TERMS>(split, terms);
    }
};

/* The patches of a tile, one in each lane, or where to find them if there are more than lanes. */
struct tile_patches {
    uint32_t count;
    uint32_t steps; /* a bit for each that has some */
    uint32_t mine;
    const uint32_t *words;
};

static __device__ __forceinline__ uint32_t patch_step(uint32_t patch)
{
    return pack12_patch_column(patch) / PACK12_STEP;
}

static __device__ __forceinline__ struct tile_patches find_patches(const uint8_t *slot, const uint32_t *list, uint32_t lane)
{
    const uint4 head = *(const uint4 *)slot;
    struct tile_patches patches = {head.x, 0, 0, list + head.y};
    if (!head.x) return patches;
    if (head.x <= PACK12_PATCHES) {
        patches.mine = lane == 0 ? head.y : lane == 1 ? head.z : head.w;
    } else if (lane < head.x) {
        patches.mine = __ldg(patches.words + lane);
    }
    patches.steps = __reduce_or_sync(ALL_LANES, lane < head.x ? 1u << patch_step(patches.mine) : 0);
    if (head.x > WARP) patches.steps = ~0u;
    return patches;
}

/* Upper bytes of a step, [row][half of the unit], with the tile's patches. Apart from the products, which many tiles go through
 * without it: their instructions are to lie close together. */
static __device__ __noinline__ uint4 apply_patches(uint4 uppers, struct tile_patches patches, uint32_t step)
{
    const uint32_t lane = threadIdx.x % WARP;
    uint32_t words[4] = {uppers.x, uppers.y, uppers.z, uppers.w};
    for (uint32_t start = 0; start < patches.count; start += WARP) {
        const bool exists = start + lane < patches.count;
        if (start && exists) patches.mine = __ldg(patches.words + start + lane);
        uint32_t left = __ballot_sync(ALL_LANES, exists && patch_step(patches.mine) == step);
        for (; left; left &= left - 1) {
            const uint32_t patch = __shfl_sync(ALL_LANES, patches.mine, __ffs((int)left) - 1);
            const uint32_t column = pack12_patch_column(patch), row = pack12_patch_row(patch), shift = column % 4 * 8;
            const uint32_t owner = row % (PACK12_ROWS / 2) * PACK12_QUAD + column / PACK12_UNIT % PACK12_QUAD;
            const uint32_t place = row / (PACK12_ROWS / 2) * 2 + column / 4 % 2;
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                if (owner == lane && place == i) words[i] = (words[i] & ~(0xFFu << shift)) | (patch & 0xFF) << shift;
            }
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/* pack12.h */
struct packed_form {
    struct pair {
        uint4 lows[2]; /* of a step: eight of the first row, eight of the second */
        uint4 codes;
        uint4 uppers; /* of the step that is multiplied: [row][half of the unit] */
    };
    static constexpr bool packed = true;
    static constexpr uint32_t early_warps = 10;
    static constexpr int TERMS = 1;
    static constexpr uint32_t element_bytes = 0;
    static constexpr uint32_t row_stride = 0;
    static constexpr uint32_t slot_bytes = PACK12_TILE_BYTES;

    static __device__ __forceinline__ void take_pair(const uint8_t *slot, uint32_t step_count, uint32_t first_step, uint32_t lane,
                                                     pair &out)
    {
        out.lows[0] = *(const uint4 *)(slot + pack12_low_offset(first_step, lane));
        out.lows[1] = *(const uint4 *)(slot + pack12_low_offset(first_step + 1, lane));
        out.codes = *(const uint4 *)(slot + pack12_code_offset(step_count, first_step, lane));
    }
    static __device__ __forceinline__ void decode(pair &pair, uint64_t window, uint32_t step)
    {
        uint32_t first[2], second[2];
        unit_uppers(window, word_of(pair.codes, step * 2), first);
        unit_uppers(window, word_of(pair.codes, step * 2 + 1), second);
        pair.uppers = make_uint4(first[0], first[1], second[0], second[1]);
    }
    static __device__ __forceinline__ void fragment(const pair &pair, uint32_t step, uint32_t j, uint4 terms[TERMS])
    {
        const uint32_t low = word_of(pair.lows[step], j), high = word_of(pair.lows[step], 2 + j);
        const uint32_t of_low = word_of(pair.uppers, j), of_high = word_of(pair.uppers, 2 + j);
        terms[0] =
            make_uint4(lower_pair(low, of_low), lower_pair(high, of_high), higher_pair(low, of_low), higher_pair(high, of_high));
    }
    static __device__ __forceinline__ void fill_part(const struct tile_rows &, uint32_t, uint32_t, uint8_t *)
    {
    }
};

#endif

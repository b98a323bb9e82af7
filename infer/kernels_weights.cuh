/* kernels_weights.cuh - forms of weights, made ready for tensor cores.
 *
 * A group is 512 columns of a row. Piece q of it, from 0 to 31, is columns 8q to 8q + 7 and 256 + 8q to 256 + 8q + 7: four steps
 * of four columns. Each form has
 *
 *   TERMS       a weight is exactly the sum of so many BF16 numbers
 *   take_piece  from a group in shared memory, whole and aligned to 16 bytes
 *   load_piece  from the row in device memory, aligned to nothing, with zeros beyond the last column
 *   split_step  the four weights of a step: terms[i] holds term i of the first two and of the last two
 */
#ifndef CLLM_KERNELS_WEIGHTS_CUH
#define CLLM_KERNELS_WEIGHTS_CUH

#include "pack12_device.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define GROUP PACK12_GROUP
#define HALF (GROUP / 2)
#define PIECES (HALF / PACK12_UNIT) /* of a group */
#define STEPS 4                     /* of a piece */

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

/* Two bytes a weight. */
struct halves_form {
    struct piece {
        uint4 eights[2];
    };
    static constexpr bool packed = false;
    static constexpr uint32_t group_bytes = GROUP * 2;

    static __device__ __forceinline__ void take_piece(const uint8_t *group, uint32_t q, piece &out)
    {
        out.eights[0] = *(const uint4 *)(group + q * 16);
        out.eights[1] = *(const uint4 *)(group + HALF * 2 + q * 16);
    }
    static __device__ __forceinline__ void load_piece(const uint8_t *row, uint32_t column_count, uint32_t group, uint32_t q,
                                                      piece &out)
    {
        const uint16_t *weights = (const uint16_t *)row;
        for (int half = 0; half < 2; half++) {
            uint32_t words[4] = {0, 0, 0, 0};
            const uint32_t first = group * GROUP + half * HALF + q * 8;
            for (uint32_t i = 0; i < 8; i++) {
                if (first + i < column_count) words[i / 2] |= (uint32_t)weights[first + i] << i % 2 * 16;
            }
            out.eights[half] = make_uint4(words[0], words[1], words[2], words[3]);
        }
    }
};

struct bf16_form : halves_form {
    static constexpr int TERMS = 1;

    static __device__ __forceinline__ void split_step(const piece &piece, uint32_t step, uint32_t terms[TERMS][2])
    {
        terms[0][0] = word_of(piece.eights[step / 2], step % 2 * 2);
        terms[0][1] = word_of(piece.eights[step / 2], step % 2 * 2 + 1);
    }
};

struct f16_form : halves_form {
    static constexpr int TERMS = 2; /* 11 bits */

    static __device__ __forceinline__ void split_step(const piece &piece, uint32_t step, uint32_t terms[TERMS][2])
    {
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t pair = word_of(piece.eights[step / 2], step % 2 * 2 + i);
            uint32_t split[TERMS];
            split_pair<TERMS>(__half2float(__ushort_as_half((unsigned short)pair)),
                              __half2float(__ushort_as_half((unsigned short)(pair >> 16))), split);
            for (int term = 0; term < TERMS; term++) terms[term][i] = split[term];
        }
    }
};

struct f32_form {
    struct piece {
        uint4 fours[STEPS];
    };
    static constexpr bool packed = false;
    static constexpr uint32_t group_bytes = GROUP * 4;
    static constexpr int TERMS = 3; /* 24 bits */

    static __device__ __forceinline__ void take_piece(const uint8_t *group, uint32_t q, piece &out)
    {
        for (int i = 0; i < STEPS; i++) out.fours[i] = *(const uint4 *)(group + i / 2 * (HALF * 4) + q * 32 + i % 2 * 16);
    }
    static __device__ __forceinline__ void load_piece(const uint8_t *row, uint32_t column_count, uint32_t group, uint32_t q,
                                                      piece &out)
    {
        const uint32_t *weights = (const uint32_t *)row;
        for (int i = 0; i < STEPS; i++) {
            const uint32_t at = group * GROUP + i / 2 * HALF + q * 8 + i % 2 * 4;
            out.fours[i] = make_uint4(at < column_count ? weights[at] : 0, at + 1 < column_count ? weights[at + 1] : 0,
                                      at + 2 < column_count ? weights[at + 2] : 0, at + 3 < column_count ? weights[at + 3] : 0);
        }
    }
    static __device__ __forceinline__ void split_step(const piece &piece, uint32_t step, uint32_t terms[TERMS][2])
    {
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t split[TERMS];
            split_pair<TERMS>(__uint_as_float(word_of(piece.fours[step], i * 2)),
                              __uint_as_float(word_of(piece.fours[step], i * 2 + 1)), split);
            for (int term = 0; term < TERMS; term++) terms[term][i] = split[term];
        }
    }
};

/* pack12.h; the upper bytes of a step's weights are decoded from the codes by upper_words, and patched, before split_step. */
struct packed_form {
    struct piece {
        uint4 lows;
        uint2 codes;
        uint32_t uppers[STEPS];
    };
    static constexpr bool packed = true;
    static constexpr uint32_t group_bytes = GROUP * 3 / 2;
    static constexpr int TERMS = 1;

    static __device__ __forceinline__ void take_piece(const uint8_t *group, uint32_t q, piece &out)
    {
        out.lows = *(const uint4 *)(group + q * 16);
        out.codes = *(const uint2 *)(group + GROUP + q * 8);
    }
    static __device__ __forceinline__ void load_piece(const uint8_t *row, uint32_t column_count, uint32_t group, uint32_t q,
                                                      piece &out)
    {
        uint2 lows[2] = {{0, 0}, {0, 0}};
        uint32_t codes[2] = {0, 0};
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t unit = group * (GROUP / PACK12_UNIT) + half * PIECES + q;
            if (unit * PACK12_UNIT >= column_count) continue;
            const struct pack12_place place = pack12_place_unit(column_count, unit);
            lows[half] = *(const uint2 *)(row + place.low_offset);
            codes[half] = *(const uint32_t *)(row + place.code_offset);
        }
        out.lows = make_uint4(lows[0].x, lows[0].y, lows[1].x, lows[1].y);
        out.codes = make_uint2(codes[0], codes[1]);
    }
    static __device__ __forceinline__ void upper_words(uint64_t window, piece &piece)
    {
        unit_uppers(window, piece.codes.x, piece.uppers);
        unit_uppers(window, piece.codes.y, piece.uppers + 2);
    }
    static __device__ __forceinline__ void split_step(const piece &piece, uint32_t step, uint32_t terms[TERMS][2])
    {
        const uint32_t lows = word_of(piece.lows, step);
        terms[0][0] = lower_pair(lows, piece.uppers[step]);
        terms[0][1] = higher_pair(lows, piece.uppers[step]);
    }
};

#endif

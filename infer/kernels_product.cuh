/* kernels_product.cuh - products of matrices with one vector, the steps around them fused in.
 *
 * A block stages the vector in shared memory (multiplied by the norm's weights, while it sums the squares); a warp takes sets of
 * two rows, group by group of 512 columns, several groups in flight to shared memory. Lane i multiplies columns 8i to 8i + 7 and
 * 256 + 8i to 256 + 8i + 7 of each group, in that order, each half into a sum of its own, by fused multiply-adds; at the end the
 * two sums are added and then the lanes', as a butterfly. No form of the weights changes that order.
 *
 * The first groups are loaded before the grid before this one has ended: weights do not depend on it. Every grid lets the next
 * one start only after its own wait, so what lies before the previous grid may be read then, too.
 */
#ifndef CLLM_KERNELS_PRODUCT_CUH
#define CLLM_KERNELS_PRODUCT_CUH

#include "gpu_layout.h"
#include "pack12_device.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define WARP 32
#define ALL_LANES 0xFFFFFFFFu
#define GROUP PACK12_GROUP
#define HALF (GROUP / 2)
#define ROWS 2 /* of a set */
#define PATCH_NONE 0xFFFFFFFFu
#define NORM_WARPS 8  /* that stage a normalised input; a block has at least so many */
#define STAGE_BATCH 8 /* loads of the input in flight in a thread */
/* Found by measurement: warps of a block at most, groups in flight of a warp. */
#ifndef PRODUCT_WARPS_MAX
#define PRODUCT_WARPS_MAX 24
#endif
#ifndef CLLM_DEPTH_HALVES
#define CLLM_DEPTH_HALVES 3
#endif
#ifndef CLLM_DEPTH_PACKED
#define CLLM_DEPTH_PACKED 4
#endif

/* Queued behind another grid, a grid may start before that one has ended; what it wrote may be read only after this. */
static __device__ __forceinline__ void wait_for_previous_grid(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void let_next_grid_start(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* ------------------------------------------------------------------------------------------------------------- copies
 * Weights pass through slots of shared memory, so that what is in flight takes no registers and waiting for one group is not
 * waiting for those after it. From Hopper on one lane has the copy engine do it, which counts the bytes into a barrier of the
 * slot; before, each lane copies 16 bytes at a time. */

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define HAS_COPY_ENGINE 1
#else
#define HAS_COPY_ENGINE 0
#endif

static __device__ __forceinline__ void open_slots(uint32_t barriers, uint32_t count, uint32_t lane)
{
#if HAS_COPY_ENGINE
    if (lane == 0) {
        for (uint32_t i = 0; i < count; i++)
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barriers + i * 8) : "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncwarp();
#endif
}

/* One group of each row. All lanes must have read what was in the slot. */
template <uint32_t GROUP_BYTES>
static __device__ __forceinline__ void copy_to_slot(const uint8_t *const rows[ROWS], uint32_t lane, uint32_t slot,
                                                    uint32_t barrier)
{
#if HAS_COPY_ENGINE
    if (lane == 0) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(ROWS * GROUP_BYTES) : "memory");
        for (uint32_t r = 0; r < ROWS; r++) {
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                             slot + r * GROUP_BYTES),
                         "l"(rows[r]), "r"(GROUP_BYTES), "r"(barrier)
                         : "memory");
        }
    }
#else
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t i = lane * 16; i < GROUP_BYTES; i += WARP * 16) {
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(slot + r * GROUP_BYTES + i), "l"(rows[r] + i)
                         : "memory");
        }
    }
#endif
}

/* To be called after every copy_to_slot, and where one was left out: the lanes' copies are counted in order. */
static __device__ __forceinline__ void end_copies(void)
{
#if !HAS_COPY_ENGINE
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Until a slot that was filled `LATER` ends of copies ago is full; `parity` changes each time that the slot is filled. */
template <int LATER>
static __device__ __forceinline__ void wait_for_slot(uint32_t barrier, uint32_t parity)
{
#if HAS_COPY_ENGINE
    uint32_t is_full = 0;
    while (!is_full) {
        asm volatile("{ .reg .pred full; mbarrier.try_wait.parity.shared::cta.b64 full, [%1], %2; selp.u32 %0, 1, 0, full; }"
                     : "=r"(is_full)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    }
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
    __syncwarp();
#endif
}

/* -------------------------------------------------------------------------------------------------------------- forms
 * Each form has a piece: what a lane multiplies of one row and group. take_piece takes it from a
 * group in shared memory, which must be whole and come from rows that are aligned to 16 bytes. load_part wants neither, and gives
 * zeros beyond the last column. widen_piece gives the four weights from 4 * quarter. */

/* Two bytes a weight. */
struct halves_piece {
    uint4 eights[2];
};

static __device__ __forceinline__ uint32_t word_of(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

struct halves_form {
    using piece = halves_piece;
    static constexpr bool packed = false;
    static constexpr int depth = CLLM_DEPTH_HALVES; /* slots of a warp */
    static constexpr uint32_t group_bytes = GROUP * 2;

    static __device__ __forceinline__ void take_piece(const uint8_t *group, uint32_t lane, piece &out)
    {
        out.eights[0] = *(const uint4 *)(group + lane * 16);
        out.eights[1] = *(const uint4 *)(group + HALF * 2 + lane * 16);
    }
    static __device__ __forceinline__ void load_part(const uint8_t *row, uint32_t column_count, uint32_t group, uint32_t lane,
                                                     piece &out)
    {
        const uint16_t *weights = (const uint16_t *)row;
        for (int half = 0; half < 2; half++) {
            uint32_t words[4] = {0, 0, 0, 0};
            const uint32_t first = group * GROUP + half * HALF + lane * 8;
            for (uint32_t i = 0; i < 8; i++) {
                if (first + i < column_count) words[i / 2] |= (uint32_t)weights[first + i] << i % 2 * 16;
            }
            out.eights[half] = make_uint4(words[0], words[1], words[2], words[3]);
        }
    }
};

static __device__ __forceinline__ void widen_bf16(uint32_t low_pair, uint32_t high_pair, float out[4])
{
    out[0] = __uint_as_float(low_pair << 16);
    out[1] = __uint_as_float(low_pair & 0xFFFF0000);
    out[2] = __uint_as_float(high_pair << 16);
    out[3] = __uint_as_float(high_pair & 0xFFFF0000);
}

struct bf16_form : halves_form {
    static __device__ __forceinline__ void widen_piece(const piece &piece, int quarter, float out[4])
    {
        const uint4 &eight = piece.eights[quarter / 2];
        widen_bf16(word_of(eight, quarter % 2 * 2), word_of(eight, quarter % 2 * 2 + 1), out);
    }
};

struct f16_form : halves_form {
    static __device__ __forceinline__ void widen_piece(const piece &piece, int quarter, float out[4])
    {
        for (int i = 0; i < 4; i++) {
            const uint32_t pair = word_of(piece.eights[quarter / 2], quarter % 2 * 2 + i / 2);
            out[i] = __half2float(__ushort_as_half((unsigned short)(pair >> i % 2 * 16)));
        }
    }
};

struct f32_form {
    struct piece {
        uint4 fours[4];
    };
    static constexpr bool packed = false;
    static constexpr int depth = (CLLM_DEPTH_HALVES + 1) / 2;
    static constexpr uint32_t group_bytes = GROUP * 4;

    static __device__ __forceinline__ void take_piece(const uint8_t *group, uint32_t lane, piece &out)
    {
        for (int i = 0; i < 4; i++) out.fours[i] = *(const uint4 *)(group + i / 2 * (HALF * 4) + lane * 32 + i % 2 * 16);
    }
    static __device__ __forceinline__ void load_part(const uint8_t *row, uint32_t column_count, uint32_t group, uint32_t lane,
                                                     piece &out)
    {
        const uint32_t *weights = (const uint32_t *)row;
        for (int i = 0; i < 4; i++) {
            const uint32_t at = group * GROUP + i / 2 * HALF + lane * 8 + i % 2 * 4;
            out.fours[i] = make_uint4(at < column_count ? weights[at] : 0, at + 1 < column_count ? weights[at + 1] : 0,
                                      at + 2 < column_count ? weights[at + 2] : 0, at + 3 < column_count ? weights[at + 3] : 0);
        }
    }
    static __device__ __forceinline__ void widen_piece(const piece &piece, int quarter, float out[4])
    {
        for (int i = 0; i < 4; i++) out[i] = __uint_as_float(word_of(piece.fours[quarter], i));
    }
};

/* pack12.h; `uppers` are decoded from the codes, and patched, before widen_piece. */
struct packed_form {
    struct piece {
        uint4 lows;
        uint2 codes;
    };
    static constexpr bool packed = true;
    static constexpr int depth = CLLM_DEPTH_PACKED;
    static constexpr uint32_t group_bytes = GROUP * 3 / 2;

    static __device__ __forceinline__ void take_piece(const uint8_t *group, uint32_t lane, piece &out)
    {
        out.lows = *(const uint4 *)(group + lane * 16);
        out.codes = *(const uint2 *)(group + GROUP + lane * 8);
    }
    static __device__ __forceinline__ void load_part(const uint8_t *row, uint32_t column_count, uint32_t group, uint32_t lane,
                                                     piece &out)
    {
        uint2 lows[2] = {{0, 0}, {0, 0}};
        uint32_t codes[2] = {0, 0};
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t unit = group * (GROUP / PACK12_UNIT) + half * WARP + lane;
            if (unit * PACK12_UNIT >= column_count) continue;
            const struct pack12_place place = pack12_place_unit(column_count, unit);
            lows[half] = *(const uint2 *)(row + place.low_offset);
            codes[half] = *(const uint32_t *)(row + place.code_offset);
        }
        out.lows = make_uint4(lows[0].x, lows[0].y, lows[1].x, lows[1].y);
        out.codes = make_uint2(codes[0], codes[1]);
    }
    static __device__ __forceinline__ void widen_piece(const piece &piece, const uint32_t uppers[4], int quarter, float out[4])
    {
        const uint32_t lows = word_of(piece.lows, quarter);
        widen_bf16(lower_pair(lows, uppers[quarter]), higher_pair(lows, uppers[quarter]), out);
    }
};

/* ------------------------------------------------------------------------------------------------------------- stages */

enum product_stage {
    STAGE_QKV,  /* rotates, queries to `output`, keys and values to the cache */
    STAGE_GATE, /* output = silu(gate) * up */
    STAGE_ADD,  /* output += product */
    STAGE_SET,  /* output = product */
};

enum { PART_QUERY, PART_KEY, PART_VALUE, PART_COUNT };

struct product_part {
    const uint8_t *elements; /* null: absent */
    const uint32_t *patch_starts;
    const uint32_t *patches;
    const float *bias; /* or null */
    uint64_t window;
    uint32_t row_count;
    uint32_t set_end; /* sets of this part and those before it */
};

struct product_args {
    struct product_part parts[PART_COUNT]; /* QKV: all; GATE: gate and up; otherwise one */
    const float *input;                    /* zeros follow it, up to a whole group */
    const float *norm;                     /* RMSNorm's weights, or null: no norm */
    float *output;
    uint64_t row_bytes;
    uint32_t column_count;
    uint32_t full_groups; /* that load_piece may load */
    float epsilon;
    /* QKV */
    const uint32_t *position;
    const float *cosines; /* of that position, head_dim / 2 */
    const float *sines;
    __nv_bfloat16 *keys; /* of the layer: [kv head][position][head_stride] */
    __nv_bfloat16 *values;
    uint32_t head_dim;
    uint32_t head_stride;
    uint32_t context_size;
};

/* Two rows that one warp multiplies together. */
struct row_set {
    uint32_t part[ROWS];
    uint32_t row[ROWS];
};

template <int STAGE>
static __device__ __forceinline__ struct row_set find_rows(const struct product_args &args, uint32_t set)
{
    if (STAGE == STAGE_GATE) return {{0, 1}, {set, set}};
    if (STAGE != STAGE_QKV) {
        const uint32_t last = args.parts[0].row_count - 1;
        return {{0, 0}, {set * 2, set * 2 < last ? set * 2 + 1 : last}};
    }
    uint32_t part = 0, first = 0;
    if (set >= args.parts[0].set_end) part = 1, first = args.parts[0].set_end;
    if (set >= args.parts[1].set_end) part = 2, first = args.parts[1].set_end;
    const uint32_t half = args.head_dim / 2, head = (set - first) / half, pair = (set - first) % half;
    return {{part, part}, {head * args.head_dim + pair, head * args.head_dim + pair + half}};
}

static __device__ __forceinline__ void emit_qkv(const struct product_args &args, const struct row_set &set, uint32_t position,
                                                const float prior[ROWS], float low, float high)
{
    const uint32_t head = set.row[0] / args.head_dim, pair = set.row[0] % args.head_dim, half = args.head_dim / 2;
    if (set.part[0] != PART_VALUE) {
        const float turned = low * prior[0] - high * prior[1];
        high = high * prior[0] + low * prior[1];
        low = turned;
    }
    if (set.part[0] == PART_QUERY) {
        args.output[set.row[0]] = low;
        args.output[set.row[1]] = high;
        return;
    }
    __nv_bfloat16 *cache = set.part[0] == PART_KEY ? args.keys : args.values;
    cache += ((size_t)head * args.context_size + position) * args.head_stride + pair;
    cache[0] = __float2bfloat16_rn(low);
    cache[half] = __float2bfloat16_rn(high);
}

template <int STAGE>
static __device__ __forceinline__ void emit_rows(const struct product_args &args, const struct row_set &set, uint32_t position,
                                                 const float prior[ROWS], const float sums[ROWS])
{
    float values[ROWS];
    for (int r = 0; r < ROWS; r++) {
        const float *bias = args.parts[set.part[r]].bias;
        values[r] = bias ? sums[r] + bias[set.row[r]] : sums[r];
    }
    if (STAGE == STAGE_QKV) {
        emit_qkv(args, set, position, prior, values[0], values[1]);
    } else if (STAGE == STAGE_GATE) {
        args.output[set.row[0]] = values[0] / (1 + expf(-values[0])) * values[1];
    } else {
        for (int r = 0; r < ROWS && (r == 0 || set.row[1] != set.row[0]); r++) {
            args.output[set.row[r]] = STAGE == STAGE_ADD ? prior[r] + values[r] : values[r];
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------ patches */

/* The patches of a row, up to 32 of them in the lanes of the warp at a time. */
struct patch_list {
    uint32_t count;
    uint32_t used;
    uint32_t mine; /* of those around `used` */
    uint32_t next; /* the first unused, PATCH_NONE at the end; the same in all lanes */
};

static __device__ __forceinline__ uint32_t load_patch(const uint32_t *patches, uint32_t count, uint32_t i)
{
    return i < count ? __ldg(patches + i) : PATCH_NONE;
}

static __device__ __forceinline__ void peek_patch(struct patch_list &list)
{
    list.next = list.used < list.count ? __shfl_sync(ALL_LANES, list.mine, list.used % WARP) : PATCH_NONE;
}

/* Applies a patch to the uppers of its group, and goes to the next. */
static __device__ __forceinline__ void apply_patch(const struct product_part &part, uint32_t row, uint32_t lane,
                                                   struct patch_list &list, uint32_t uppers[4])
{
    const uint32_t column = list.next >> 8 & (GROUP - 1), shift = column % 4 * 8;
    const uint32_t quarter = column / HALF * 2 + column / 4 % 2;
    const bool is_mine = column / PACK12_UNIT % WARP == lane;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        if (is_mine && i == quarter) uppers[i] = (uppers[i] & ~(0xFFu << shift)) | (list.next & 0xFF) << shift;
    }
    if (++list.used % WARP == 0) {
        list.mine = load_patch(part.patches + part.patch_starts[row], list.count, list.used + lane);
    }
    peek_patch(list);
}

/* -------------------------------------------------------------------------------------------------------------- input */

/* Columns 4i to 4i + 3 of the vector lie where the lane that needs them reads without bank conflicts. */
static __device__ __forceinline__ uint32_t staged_place(uint32_t i)
{
    const uint32_t in_group = i % (GROUP / 4), unit = in_group / 2;
    return i - in_group + (unit / WARP * 2 + in_group % 2) * WARP + unit % WARP;
}

static __device__ __forceinline__ float norm_weight(const float *norm, uint32_t column, uint32_t column_count)
{
    return column < column_count ? __ldg(norm + column) : 0;
}

/* Stages the input as it is, by all threads. */
static __device__ __forceinline__ void stage_plain(const struct product_args &args, uint32_t count, float4 *staged)
{
    for (uint32_t start = threadIdx.x; start < count; start += blockDim.x * STAGE_BATCH) {
        float4 batch[STAGE_BATCH];
#pragma unroll
        for (uint32_t j = 0; j < STAGE_BATCH; j++) {
            const uint32_t i = start + j * blockDim.x;
            if (i < count) batch[j] = __ldcg((const float4 *)args.input + i);
        }
#pragma unroll
        for (uint32_t j = 0; j < STAGE_BATCH; j++) {
            const uint32_t i = start + j * blockDim.x;
            if (i < count) staged[staged_place(i)] = batch[j];
        }
    }
}

/* Stages the input times the norm's weights, and sums squares, by NORM_WARPS warps: the order of that sum must not depend on how
 * many there are. */
static __device__ __forceinline__ void stage_norm(const struct product_args &args, uint32_t count, float4 *staged,
                                                  float *warp_sums)
{
    const uint32_t columns = args.column_count;
    float squares = 0;
    if (threadIdx.x >= NORM_WARPS * WARP) return;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < count; i += NORM_WARPS * WARP) {
        float4 x = __ldcg((const float4 *)args.input + i);
        squares += x.x * x.x + x.y * x.y + (x.z * x.z + x.w * x.w);
        x.x *= norm_weight(args.norm, i * 4, columns);
        x.y *= norm_weight(args.norm, i * 4 + 1, columns);
        x.z *= norm_weight(args.norm, i * 4 + 2, columns);
        x.w *= norm_weight(args.norm, i * 4 + 3, columns);
        staged[staged_place(i)] = x;
    }
    for (int offset = WARP / 2; offset; offset /= 2) squares += __shfl_xor_sync(ALL_LANES, squares, offset);
    if (threadIdx.x % WARP == 0) warp_sums[threadIdx.x / WARP] = squares;
}

/* Stages the input; the result is what products must be multiplied by. */
static __device__ __forceinline__ float stage_input(const struct product_args &args, float4 *staged, float *warp_sums)
{
    const uint32_t count = (args.column_count + GROUP - 1) / GROUP * (GROUP / 4);
    if (!args.norm) {
        stage_plain(args, count, staged);
        __syncthreads();
        return 1;
    }
    stage_norm(args, count, staged, warp_sums);
    __syncthreads();
    float sum = 0;
    for (uint32_t warp = 0; warp < NORM_WARPS; warp++) sum += warp_sums[warp];
    return rsqrtf(sum / args.column_count + args.epsilon);
}

/* ------------------------------------------------------------------------------------------------------------- kernel */

template <class FORM>
static __device__ __forceinline__ void add_group(const typename FORM::piece pieces[ROWS], const uint32_t (*uppers)[4],
                                                 const float4 *staged, float sums[ROWS][2])
{
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++) {
        const float4 x = staged[quarter * WARP];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float w[4];
            if constexpr (FORM::packed) {
                FORM::widen_piece(pieces[r], uppers[r], quarter, w);
            } else {
                FORM::widen_piece(pieces[r], quarter, w);
            }
            float sum = sums[r][quarter / 2];
            sum = __fmaf_rn(w[0], x.x, sum);
            sum = __fmaf_rn(w[1], x.y, sum);
            sum = __fmaf_rn(w[2], x.z, sum);
            sums[r][quarter / 2] = __fmaf_rn(w[3], x.w, sum);
        }
    }
}

/* A warp at work on its sets. Copies run ahead of sums by the depth of the form. */
template <class FORM, int STAGE>
struct product_warp {
    using piece = typename FORM::piece;

    const float4 *staged;          /* of this lane */
    const uint8_t *slots;          /* of this warp */
    uint32_t copy_slots, barriers; /* the same, and their barriers, as addresses of shared memory */
    uint32_t parity;
    float scale;
    uint32_t position;
    uint32_t lane;
    uint32_t stride; /* between the sets of a warp */
    uint32_t set_count;

    uint32_t copying_set, copying_group;
    const uint8_t *copying[ROWS]; /* where the next group of each row lies */

    uint32_t set, group, slot;
    uint64_t qkv_window; /* of the set's part */
    float prior[ROWS];   /* QKV: cosine and sine; ADD: what the output was */
    float sums[ROWS][2];
    struct patch_list patches[ROWS];                /* of this set */
    uint32_t coming_count[ROWS], coming_mine[ROWS]; /* of the next */
    uint32_t begin[ROWS], end[ROWS];                /* of the one after it */

    __device__ __forceinline__ void start(const struct product_args &args, uint32_t first, uint32_t warp_count)
    {
        lane = threadIdx.x % WARP;
        stride = warp_count;
        set_count = STAGE == STAGE_QKV ? args.parts[PART_VALUE].set_end : args.parts[0].set_end;
        copying_set = set = first;
        group = slot = parity = 0;
        open_slots(barriers, FORM::depth, lane);
        enter_copying(args);
        enter_set(args);
        for (int r = 0; r < ROWS; r++) {
            sums[r][0] = sums[r][1] = 0;
            coming_count[r] = 0; /* a warp without a set has no patches either */
            coming_mine[r] = PATCH_NONE;
        }
        for (uint32_t i = 0; i < FORM::depth; i++) copy(args, i);
        if (!FORM::packed) return;
        ask_patches(args, first);
        ask_coming(args, first);
        ask_patches(args, first + stride);
        take_coming(args, first + stride);
    }

    /* Asks for what the end of the set needs. Grids before the previous one have ended by now, and none later changes it. */
    __device__ __forceinline__ void enter_set(const struct product_args &args)
    {
        if (set >= set_count) return;
        const struct row_set at = find_rows<STAGE>(args, set);
        if (STAGE == STAGE_QKV) {
            const uint32_t pair = at.row[0] % args.head_dim;
            qkv_window = args.parts[at.part[0]].window;
            prior[0] = __ldcg(args.cosines + pair);
            prior[1] = __ldcg(args.sines + pair);
        }
        if (STAGE == STAGE_ADD) {
            for (int r = 0; r < ROWS; r++) prior[r] = __ldcg(args.output + at.row[r]);
        }
    }

    __device__ __forceinline__ void enter_copying(const struct product_args &args)
    {
        copying_group = 0;
        if (copying_set >= set_count) return;
        const struct row_set at = find_rows<STAGE>(args, copying_set);
        for (int r = 0; r < ROWS; r++) copying[r] = args.parts[at.part[r]].elements + at.row[r] * args.row_bytes;
    }

    /* Groups of copies are counted, so one without copies ends, too. */
    __device__ __forceinline__ void copy(const struct product_args &args, uint32_t to_slot)
    {
        if (copying_set < set_count && args.full_groups) {
            copy_to_slot<FORM::group_bytes>(copying, lane, copy_slots + to_slot * (ROWS * FORM::group_bytes),
                                            barriers + to_slot * 8);
            for (int r = 0; r < ROWS; r++) copying[r] += FORM::group_bytes;
            if (++copying_group == args.full_groups) {
                copying_set += stride;
                enter_copying(args);
            }
        }
        end_copies();
    }

    /* Patches take three steps, each a memory access, a set apart: where they are, what they are, use. */
    __device__ __forceinline__ void ask_patches(const struct product_args &args, uint32_t of_set)
    {
        if (of_set >= set_count) return;
        const struct row_set at = find_rows<STAGE>(args, of_set);
        for (int r = 0; r < ROWS; r++) {
            begin[r] = __ldg(args.parts[at.part[r]].patch_starts + at.row[r]);
            end[r] = __ldg(args.parts[at.part[r]].patch_starts + at.row[r] + 1);
        }
    }
    __device__ __forceinline__ void ask_coming(const struct product_args &args, uint32_t of_set)
    {
        if (of_set >= set_count) return;
        const struct row_set at = find_rows<STAGE>(args, of_set);
        for (int r = 0; r < ROWS; r++) {
            coming_count[r] = end[r] - begin[r];
            coming_mine[r] = load_patch(args.parts[at.part[r]].patches + begin[r], coming_count[r], lane);
        }
    }
    /* `coming` becomes current; that of the next set is asked for. */
    __device__ __forceinline__ void take_coming(const struct product_args &args, uint32_t next_set)
    {
        for (int r = 0; r < ROWS; r++) {
            patches[r] = {coming_count[r], 0, coming_mine[r], PATCH_NONE};
            peek_patch(patches[r]);
        }
        ask_coming(args, next_set);
        ask_patches(args, next_set + stride);
    }

    __device__ __forceinline__ void add(const struct product_args &args, const piece pieces[ROWS], uint32_t at_group)
    {
        uint32_t uppers[ROWS][4];
        if constexpr (FORM::packed) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const uint64_t window = STAGE == STAGE_QKV ? qkv_window : args.parts[STAGE == STAGE_GATE ? r : 0].window;
                unit_uppers(window, pieces[r].codes.x, uppers[r]);
                unit_uppers(window, pieces[r].codes.y, uppers[r] + 2);
            }
            const uint32_t end_word = (at_group + 1) * GROUP << 8;
            if (min(patches[0].next, patches[1].next) < end_word) patch(args, end_word, uppers);
        }
        add_group<FORM>(pieces, uppers, staged + at_group * (GROUP / 4), sums);
    }

    __device__ __forceinline__ void patch(const struct product_args &args, uint32_t end_word, uint32_t uppers[ROWS][4])
    {
        const struct row_set at = find_rows<STAGE>(args, set);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            while (patches[r].next < end_word) apply_patch(args.parts[at.part[r]], at.row[r], lane, patches[r], uppers[r]);
        }
    }

    __device__ __forceinline__ void finish_set(const struct product_args &args)
    {
        const uint32_t group_count = (args.column_count + GROUP - 1) / GROUP;
        const struct row_set at = find_rows<STAGE>(args, set);
        for (uint32_t i = args.full_groups; i < group_count; i++) {
            piece pieces[ROWS];
            for (int r = 0; r < ROWS; r++) {
                FORM::load_part(args.parts[at.part[r]].elements + at.row[r] * args.row_bytes, args.column_count, i, lane,
                                pieces[r]);
            }
            add(args, pieces, i);
        }
        float totals[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            totals[r] = sums[r][0] + sums[r][1];
            for (int offset = WARP / 2; offset; offset /= 2) totals[r] += __shfl_xor_sync(ALL_LANES, totals[r], offset);
            totals[r] *= scale;
            sums[r][0] = sums[r][1] = 0;
        }
        if (lane == 0) emit_rows<STAGE>(args, at, position, prior, totals);
        set += stride;
        group = 0;
        enter_set(args);
        if (FORM::packed && set < set_count) take_coming(args, set + stride);
    }

    __device__ __forceinline__ void run(const struct product_args &args)
    {
        while (set < set_count) {
            if (args.full_groups) {
                piece pieces[ROWS];
                wait_for_slot<FORM::depth - 1>(barriers + slot * 8, parity);
                for (int r = 0; r < ROWS; r++) FORM::take_piece(slots + (slot * ROWS + r) * FORM::group_bytes, lane, pieces[r]);
                __syncwarp();
                copy(args, slot);
                if (++slot == FORM::depth) slot = 0, parity ^= 1;
                add(args, pieces, group);
            }
            if (++group >= args.full_groups) finish_set(args);
        }
    }
};

template <class FORM, int STAGE>
static __global__ __launch_bounds__(PRODUCT_WARPS_MAX *WARP, 1) void multiply(const __grid_constant__ struct product_args args)
{
    extern __shared__ __align__(128) float4 staged[];
    __shared__ float warp_sums[NORM_WARPS];
    __shared__ uint64_t barriers[PRODUCT_WARPS_MAX * FORM::depth];
    const uint32_t warp = threadIdx.x / WARP, warp_count = gridDim.x * (blockDim.x / WARP);
    const uint32_t staged_count = (args.column_count + GROUP - 1) / GROUP * (GROUP / 4);
    struct product_warp<FORM, STAGE> work;
    work.slots = (const uint8_t *)(staged + staged_count) + warp * (FORM::depth * ROWS * FORM::group_bytes);
    work.barriers = (uint32_t)__cvta_generic_to_shared(barriers + warp * FORM::depth);
    work.copy_slots = (uint32_t)__cvta_generic_to_shared(work.slots);
    work.start(args, warp * gridDim.x + blockIdx.x, warp_count);
    work.position = STAGE == STAGE_QKV ? __ldcg(args.position) : 0;
    wait_for_previous_grid();
    let_next_grid_start();
    work.scale = stage_input(args, staged, warp_sums);
    work.staged = staged + work.lane;
    work.run(args);
}

#endif

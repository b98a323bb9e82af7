/* kernels_product.cuh - products of matrices with one vector, the steps around them fused in.
 *
 * Tensor cores do the sums: few instructions a weight, so that decoding weights of 12 bits hides behind memory. A block has every
 * so-many-th band of 16 rows (of the gate together with the same band of up). The tiles of its bands (kernels_weights.cuh) go to
 * its warps in turn; a warp has slots of its own, filled ahead, and waits for nobody else until the block's tiles
 * are done: then what tiles came to is added up, row by row, and goes where the stage says.
 *
 * The rows of a tile are those of A (kernels_device.cuh). The vector is split into the sum of two BF16 numbers, its terms, which
 * take turns as the columns of B; what the columns from the third on come to is not looked at.
 *
 * Order of sums: in a tile each of the four products of a pair of steps has a sum of its own; these four are added, then the
 * terms of the vector; then the tiles of a row, every fourth, and these four. So neither the form of the weights nor the number
 * of slots or blocks changes a bit, nor that of warps but for the sum of a norm.
 *
 * The first slots are filled before the grid before this one has ended: weights do not depend on it. But not all of them: what
 * has been asked for is served first, and the input, which everything waits for, would come last (FORM::early_warps). A grid
 * lets the next one start only when all that lies before the grid itself may be read; attention does earlier, as the product
 * after it reads nothing of the queries, keys and values before it.
 */
#ifndef CLLM_KERNELS_PRODUCT_CUH
#define CLLM_KERNELS_PRODUCT_CUH

#include "forward_gpu_buffers.h"
#include "gpu_layout.h"
#include "kernels_device.cuh"
#include "kernels_weights.cuh"

#ifndef PRODUCT_WARPS
#define PRODUCT_WARPS 16 /* by measurement */
#endif
#define STAGE_BATCH 8            /* loads of the input in flight in a thread */
#define NORM_BATCH 4             /* the same with a norm */
#define SPAN_BATCH 6             /* the same of spans */
#define STEP_BYTES 128           /* of the input in shared memory: 32 first terms, 32 second ones */
#define ADDERS 4                 /* lanes that add up a row */
#define SUM_STRIDE 20            /* floats between the sums of tiles: keeps those that are read together on different banks */
#define SUM_BYTES_MAX (36 << 10) /* where so much is left */

/* ------------------------------------------------------------------------------------------------------------- stages */

/* One kernel for all of them: its instructions stay in the caches of a multiprocessor from grid to grid. */
enum product_stage {
    STAGE_GATE, /* output = silu(gate) * up */
    STAGE_ADD,  /* output += product */
    STAGE_SET,  /* output = product */
};

/* What attention left of each head, span by span (kernels_attention.cuh). */
struct span_args {
    const float *values;  /* [span][head][head_dim], not yet divided by a sum; null: the input is a vector */
    const float2 *scales; /* [span][head]: maximum and sum */
    const uint32_t *position;
    uint32_t value_stride; /* from span to span; zeros up to a whole pair of steps */
    uint32_t head_count;
    uint32_t head_dim;
    uint32_t window;
};

enum { PART_COUNT = 3 };

struct product_part {
    const uint8_t *elements;
    const uint32_t *patches;
    const float *bias; /* or null */
    float *output;
    uint64_t window;
    uint32_t row_count;
    uint32_t set_end; /* sets of this part and those before it */
};

/* A set is a band, or one of gate and the same of up. */
struct product_args {
    enum product_stage stage;
    struct product_part parts[PART_COUNT]; /* SET: one behind the other; GATE: gate and up; ADD: one */
    const float *input;                    /* zeros follow it, up to a whole pair of steps */
    const float *norm;                     /* RMSNorm's weights, whole 16 bytes of them; or null: no norm */
    struct span_args spans;                /* instead of the input */
    uint64_t row_bytes;                    /* of a row, or of a band of packed ones */
    uint32_t column_count;
    bool is_aligned; /* rows that are not packed are multiples of 16 bytes */
    uint32_t set_count;
    uint32_t least_sets;    /* of a block; */
    uint32_t longer_blocks; /* the first ones have one more */
    uint32_t round_sets;    /* whose sums are kept at a time */
    uint32_t slot_warps;    /* warps that have slots: all, or what memory suffices for */
    uint32_t slot_count;    /* of each of them */
    float epsilon;
    struct row_map maps[PART_COUNT]; /* of parts that are not packed, but aligned */
};

/* Among so many blocks: here, as a division would take each of them a while. */
static inline void share_sets(struct product_args *args, uint32_t blocks)
{
    args->least_sets = args->set_count / blocks;
    args->longer_blocks = args->set_count % blocks;
}

/* ------------------------------------------------------------------------------------------------------------- memory */

static __host__ __device__ __forceinline__ uint32_t input_steps(uint32_t column_count)
{
    return (column_count + PACK12_PAIR - 1) / PACK12_PAIR * 2;
}

/* Of the sums of a set's tiles. */
static __host__ __device__ __forceinline__ uint32_t sum_bytes(uint32_t column_count, uint32_t band_count)
{
    return pack12_tile_count(column_count) * band_count * (SUM_STRIDE * (uint32_t)sizeof(float));
}

/* The input, sums of squares and the norm's barrier: all but slots, their barriers and the sums of tiles. */
static __host__ __device__ __forceinline__ uint32_t product_fixed_bytes(uint32_t column_count)
{
    return input_steps(column_count) * STEP_BYTES + PRODUCT_WARPS * (uint32_t)sizeof(float) + (uint32_t)sizeof(uint64_t);
}

/* -------------------------------------------------------------------------------------------------------------- input */

/* Stages columns 4i to 4i + 3 of the input, as terms. */
static __device__ __forceinline__ void stage_four(const float4 &x, uint32_t i, uint8_t *staged)
{
    uint32_t low[2], high[2];
    uint8_t *to = staged + i / (PACK12_STEP / 4) * STEP_BYTES + i % (PACK12_STEP / 4) * 8;
    split_pair<2>(x.x, x.y, low);
    split_pair<2>(x.z, x.w, high);
    *(uint2 *)to = make_uint2(low[0], high[0]);
    *(uint2 *)(to + STEP_BYTES / 2) = make_uint2(low[1], high[1]);
}

/* Stages the input as it is. */
static __device__ __forceinline__ void stage_plain(const struct product_args &args, uint32_t count, uint8_t *staged)
{
#pragma unroll 1
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
            if (i < count) stage_four(batch[j], i, staged);
        }
    }
}

/* Asks for the norm's weights, by a warp: they lie where the input goes to until it does. */
static __device__ __forceinline__ void ask_for_norm(const struct product_args &args, uint8_t *staged, uint64_t *norm_barrier,
                                                    uint32_t lane)
{
    if (lane == 0) {
        open_slot(norm_barrier);
        publish_slots();
    }
    __syncwarp();
    fill_slot(staged, norm_barrier, (const uint8_t *)args.norm, (args.column_count + 3) / 4 * 16, lane);
}

/* Stages the input times the norm's weights, and sums squares. What a lane writes was read by lanes of its own warp. */
static __device__ __forceinline__ void stage_norm(const struct product_args &args, uint32_t count, uint64_t *norm_barrier,
                                                  uint8_t *staged, float *warp_sums)
{
    const uint32_t lane = threadIdx.x % WARP;
    float squares = 0;
#pragma unroll 1
    for (uint32_t start = threadIdx.x; start - lane < count; start += blockDim.x * NORM_BATCH) {
        float4 batch[NORM_BATCH], norm[NORM_BATCH];
#pragma unroll
        for (uint32_t j = 0; j < NORM_BATCH; j++) {
            const uint32_t i = start + j * blockDim.x;
            batch[j] = i < count ? __ldcg((const float4 *)args.input + i) : make_float4(0, 0, 0, 0);
        }
        wait_for_slot(norm_barrier, 0);
#pragma unroll
        for (uint32_t j = 0; j < NORM_BATCH; j++) {
            const uint32_t i = start + j * blockDim.x;
            norm[j] = i * 4 < args.column_count ? ((const float4 *)staged)[i] : make_float4(0, 0, 0, 0);
        }
        __syncwarp();
#pragma unroll
        for (uint32_t j = 0; j < NORM_BATCH; j++) {
            const uint32_t i = start + j * blockDim.x;
            float4 x = batch[j];
            squares += x.x * x.x + x.y * x.y + (x.z * x.z + x.w * x.w);
            x = make_float4(x.x * norm[j].x, x.y * norm[j].y, x.z * norm[j].z, x.w * norm[j].w);
            if (i < count) stage_four(x, i, staged);
        }
    }
    for (int offset = WARP / 2; offset; offset /= 2) squares += __shfl_xor_sync(ALL_LANES, squares, offset);
    if (lane == 0) warp_sums[threadIdx.x / WARP] = squares;
}

/* What one position sees, and how it is cut into spans. */
struct span_cut {
    uint32_t begin, end; /* positions */
    uint32_t size;
    uint32_t count;
};

static __device__ __forceinline__ struct span_cut cut_spans(uint32_t position, uint32_t window)
{
    const uint32_t end = position + 1, begin = window && end > window ? end - window : 0, all = end - begin;
    const uint32_t least = (all + CLLM_SPAN_COUNT_MAX - 1) / CLLM_SPAN_COUNT_MAX;
    const uint32_t size = (least + CLLM_SPAN_POSITIONS - 1) / CLLM_SPAN_POSITIONS * CLLM_SPAN_POSITIONS;
    return {begin, end, size, (all + size - 1) / size};
}

/* Some columns of a head, put together from what its spans left: loads of several spans are in flight at a time. */
template <int WIDTH>
struct merged_spans {
    float values[SPAN_BATCH][WIDTH];
    float2 scales[SPAN_BATCH];
    float out[WIDTH];
    float highest, sum;
};

/* Asks for the spans from `first` on, from the given column on; those that there are not weigh nothing. */
template <int WIDTH>
static __device__ __forceinline__ void load_spans(const struct span_args &args, uint32_t first, uint32_t spans, uint32_t column,
                                                  struct merged_spans<WIDTH> &merged)
{
    const uint32_t head = column / args.head_dim;
#pragma unroll
    for (uint32_t s = 0; s < SPAN_BATCH; s++) {
        merged.scales[s] = make_float2(-INFINITY, 0);
        for (int k = 0; k < WIDTH; k++) merged.values[s][k] = 0;
        if (first + s >= spans) continue;
        const float *from = args.values + (size_t)(first + s) * args.value_stride + column;
        merged.scales[s] = __ldcg(args.scales + (first + s) * args.head_count + head);
        if (WIDTH == 4) {
            const float4 four = __ldcg((const float4 *)from);
            for (int k = 0; k < WIDTH; k++) merged.values[s][k] = k == 0 ? four.x : k == 1 ? four.y : k == 2 ? four.z : four.w;
        } else {
            merged.values[s][0] = __ldcg(from);
        }
    }
}

template <int WIDTH>
static __device__ __forceinline__ void add_spans(uint32_t first, uint32_t spans, struct merged_spans<WIDTH> &merged)
{
    const float before = merged.highest;
#pragma unroll
    for (uint32_t s = 0; s < SPAN_BATCH; s++) merged.highest = fmaxf(merged.highest, merged.scales[s].x);
    if (first) {
        const float kept = expf(before - merged.highest);
        merged.sum *= kept;
        for (int k = 0; k < WIDTH; k++) merged.out[k] *= kept;
    }
#pragma unroll
    for (uint32_t s = 0; s < SPAN_BATCH; s++) {
        if (first + s >= spans) break;
        const float factor = expf(merged.scales[s].x - merged.highest);
        merged.sum = __fmaf_rn(merged.scales[s].y, factor, merged.sum);
        for (int k = 0; k < WIDTH; k++) merged.out[k] = __fmaf_rn(merged.values[s][k], factor, merged.out[k]);
    }
}

template <int WIDTH>
static __device__ __forceinline__ void merge_spans(const struct span_args &args, uint32_t spans, uint32_t column,
                                                   float out[WIDTH])
{
    struct merged_spans<WIDTH> merged;
    merged.highest = -INFINITY;
    merged.sum = 0;
    for (int k = 0; k < WIDTH; k++) merged.out[k] = 0;
#pragma unroll 1
    for (uint32_t first = 0; first < spans; first += SPAN_BATCH) {
        load_spans<WIDTH>(args, first, spans, column, merged);
        add_spans<WIDTH>(first, spans, merged);
    }
    const float factor = 1 / merged.sum;
    for (int k = 0; k < WIDTH; k++) out[k] = merged.out[k] * factor;
}

/* Stages what attention left in so many spans. */
static __device__ __forceinline__ void stage_spans(const struct span_args &args, uint32_t spans, uint32_t count, uint8_t *staged)
{
    const uint32_t columns = args.head_count * args.head_dim;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        float four[4] = {0, 0, 0, 0};
        if (args.head_dim % 4 == 0) {
            if (i * 4 < columns) merge_spans<4>(args, spans, i * 4, four);
        } else {
#pragma unroll 1
            for (uint32_t k = 0; k < 4 && i * 4 + k < columns; k++) {
                float one;
                merge_spans<1>(args, spans, i * 4 + k, &one);
#pragma unroll
                for (uint32_t j = 0; j < 4; j++) four[j] = j == k ? one : four[j]; /* in registers: memory would be far away */
            }
        }
        stage_four(make_float4(four[0], four[1], four[2], four[3]), i, staged);
    }
}

/* Stages the input, a vector or what attention left in so many spans; the result is what products must be multiplied by. */
static __device__ __forceinline__ float stage_input(const struct product_args &args, uint32_t spans, uint64_t *norm_barrier,
                                                    uint8_t *staged, float *warp_sums)
{
    const uint32_t count = input_steps(args.column_count) * (PACK12_STEP / 4);
    if (args.norm) {
        stage_norm(args, count, norm_barrier, staged, warp_sums);
    } else if (spans) {
        stage_spans(args.spans, spans, count, staged);
    } else {
        stage_plain(args, count, staged);
    }
    __syncthreads();
    if (!args.norm) return 1;
    float sum = 0;
    for (uint32_t warp = 0; warp < PRODUCT_WARPS; warp++) sum += warp_sums[warp];
    return rsqrtf(sum / args.column_count + args.epsilon);
}

/* -------------------------------------------------------------------------------------------------------------- tiles */

/* A lane's share of the steps from `first_step` on. `staged`: the input, where this lane reads the first of them. */
template <class FORM, uint32_t STEPS>
static __device__ __forceinline__ void multiply_steps(const struct slot_tile &tile, uint32_t first_step, const uint8_t *staged,
                                                      uint32_t lane, float sums[4][4])
{
    typename FORM::template part<STEPS> part;
    FORM::template take<STEPS>(tile, first_step, lane, part);
#pragma unroll
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint4 x = *(const uint4 *)(staged + step * STEP_BYTES);
#pragma unroll
        for (uint32_t j = 0; j < 2; j++) {
            uint4 terms[FORM::TERMS];
            FORM::template fragment<STEPS>(part, step, j, terms);
#pragma unroll
            for (int term = 0; term < FORM::TERMS; term++) {
                multiply_add(sums[step % 2 * 2 + j], terms[term], j ? x.z : x.x, j ? x.w : x.y);
            }
        }
    }
}

/* Multiplies a tile and leaves the sums of its rows in `out`. */
template <class FORM>
static __device__ __forceinline__ void multiply_tile(const struct slot_tile &tile, const uint8_t *staged, uint32_t lane,
                                                     float *out)
{
    constexpr uint32_t WHOLE = PACK12_COLUMNS / PACK12_STEP;
    float sums[4][4] = {};
    if (tile.step_count == WHOLE) {
        const struct slot_tile whole = {tile.slot, WHOLE, tile.window, tile.patches};
        multiply_steps<FORM, WHOLE>(whole, 0, staged, lane, sums);
    } else {
#pragma unroll 1
        for (uint32_t step = 0; step < tile.step_count; step += 2) {
            multiply_steps<FORM, 2>(tile, step, staged + step * STEP_BYTES, lane, sums);
        }
    }
    if (lane % PACK12_QUAD) return; /* columns 0 and 1: the terms of the input */
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) sums[0][i] = sums[0][i] + sums[1][i] + (sums[2][i] + sums[3][i]);
    out[lane / PACK12_QUAD] = sums[0][0] + sums[0][1];
    out[lane / PACK12_QUAD + PACK12_ROWS / 2] = sums[0][2] + sums[0][3];
}

/* ------------------------------------------------------------------------------------------------------------- kernel */

/* A tile of this block: bands count over its sets. */
struct tile_cursor {
    uint32_t band;
    uint32_t tile;
};

/* Where a row comes from and goes to, for one of the lanes that add it up. */
struct row_end {
    uint32_t first; /* among the sums: of the first tile that this lane adds */
    float *output;  /* null: nowhere, or another lane sees to it */
    float bias;
    float other; /* ADD: what the output was; GATE: the bias of up; else 0 */
};

/* A block, or a warp of it, at work. */
template <class FORM>
struct product_work {
    const struct product_args &args;
    uint8_t *slots;       /* of this warp */
    uint64_t *barriers;   /* of its slots */
    const uint8_t *input; /* where this lane reads it */
    float *sums;
    uint32_t lane;
    uint32_t set_bands;  /* of a set: 2 of the gate's, else 1 */
    uint32_t tile_count; /* of a band */
    uint32_t band_count; /* of this block */
    uint32_t slot_count, warp_count;
    uint32_t slot, parity;
    struct tile_cursor at, copying;

    __device__ __forceinline__ explicit product_work(const struct product_args &of_grid) : args(of_grid)
    {
    }

    __device__ __forceinline__ uint32_t set_of(uint32_t band) const
    {
        return blockIdx.x + band / set_bands * gridDim.x;
    }

    /* The part that a band is of, and the number of its set in it. */
    __device__ __forceinline__ uint32_t find_part(uint32_t band, uint32_t &set) const
    {
        set = set_of(band);
        if (set_bands == 2) return band % 2;
        if (set < args.parts[0].set_end) return 0;
        const uint32_t part = set < args.parts[1].set_end ? 1 : 2;
        set -= args.parts[part - 1].set_end;
        return part;
    }

    __device__ __forceinline__ void advance(struct tile_cursor &cursor) const
    {
        cursor.tile += warp_count;
#pragma unroll 1
        while (cursor.tile >= tile_count) {
            cursor.tile -= tile_count;
            cursor.band++;
        }
    }

    __device__ __forceinline__ void start(uint32_t warp)
    {
        at = {0, warp};
#pragma unroll 1
        for (; at.tile >= tile_count; at.band++) at.tile -= tile_count; /* sooner than a division */
        copying = at;
        slot = parity = 0;
        if (lane == 0) {
#pragma unroll 1
            for (uint32_t i = 0; i < slot_count; i++) open_slot(barriers + i);
            publish_slots();
        }
        __syncwarp();
    }

    /* Asks for the first tiles. */
    __device__ __forceinline__ void fill_slots(void)
    {
#pragma unroll 1
        for (uint32_t i = 0; i < slot_count; i++) copy(i);
    }

    /* Asks for the next tile. */
    __device__ __forceinline__ void copy(uint32_t to)
    {
        if (copying.band >= band_count) return;
        uint32_t set;
        uint8_t *slot_bytes = slots + to * FORM::slot_bytes;
        const uint32_t part = find_part(copying.band, set);
        if constexpr (FORM::packed) {
            fill_slot(slot_bytes, barriers + to,
                      args.parts[part].elements + set * args.row_bytes + (size_t)copying.tile * PACK12_TILE_BYTES,
                      pack12_tile_bytes(pack12_steps(args.column_count - copying.tile * PACK12_COLUMNS)), lane);
        } else if (args.is_aligned) {
            fill_slot_with_box<PACK12_ROWS, FORM::row_stride>(slot_bytes, barriers + to, &args.maps[part], set * PACK12_ROWS,
                                                              copying.tile * PACK12_COLUMNS, lane);
        } else {
            skip_slot(barriers + to, lane);
        }
        advance(copying);
    }

    __device__ __forceinline__ void fill(uint32_t set, const struct product_part &part)
    {
        const uint32_t row = set * PACK12_ROWS;
        const struct tile_rows rows = {part.elements + row * args.row_bytes +
                                           (size_t)at.tile * (PACK12_COLUMNS * FORM::element_bytes),
                                       args.row_bytes, part.row_count - row, args.column_count - at.tile * PACK12_COLUMNS};
        FORM::fill_part(rows, pack12_steps(rows.column_count), lane, slots + slot * FORM::slot_bytes);
        order_slot();
        __syncwarp();
    }

    /* Tiles of the bands from `begin` to `end` that are this warp's. */
    __device__ __forceinline__ void multiply_bands(uint32_t begin, uint32_t end)
    {
        while (at.band < end) {
            uint32_t set;
            const struct product_part &part = args.parts[find_part(at.band, set)];
            wait_for_slot(barriers + slot, parity);
            if (!FORM::packed && !args.is_aligned) fill(set, part);
            const struct slot_tile tile = {slots + slot * FORM::slot_bytes,
                                           pack12_steps(args.column_count - at.tile * PACK12_COLUMNS), part.window, part.patches};
            multiply_tile<FORM>(tile, input + at.tile * (PACK12_COLUMNS / PACK12_STEP * STEP_BYTES), lane,
                                sums + ((at.band - begin) * tile_count + at.tile) * SUM_STRIDE);
            __syncwarp();
            copy(slot);
            if (++slot == slot_count) slot = 0, parity ^= 1;
            advance(at);
        }
    }

    /* What tiles of a row came to, every fourth of them by a lane; the same in all of its lanes. Few instructions, which are not
     * in the nearest cache. */
    __device__ __forceinline__ float add_up(uint32_t first) const
    {
        const float *from = sums + first;
        float sum = 0;
#pragma unroll 1
        for (uint32_t i = threadIdx.x % ADDERS; i < tile_count; i += 2 * ADDERS, from += 2 * ADDERS * SUM_STRIDE) {
            const float one = *from, other = i + ADDERS < tile_count ? from[ADDERS * SUM_STRIDE] : 0;
            sum += one;
            sum += other;
        }
#pragma unroll
        for (uint32_t offset = ADDERS / 2; offset; offset /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
        return sum;
    }

    /* Row i of the sets from `begin` to `end`; what an output was is read later. */
    __device__ __forceinline__ struct row_end find_row(uint32_t begin, uint32_t end, uint32_t i) const
    {
        const uint32_t in_round = i / PACK12_ROWS * set_bands, band = begin * set_bands + in_round;
        struct row_end found = {0, NULL, 0, 0};
        uint32_t set;
        if (band >= end * set_bands) return found;
        found.first = (in_round * tile_count + threadIdx.x % ADDERS) * SUM_STRIDE + i % PACK12_ROWS;
        const struct product_part &part = args.parts[find_part(band, set)];
        const uint32_t row = set * PACK12_ROWS + i % PACK12_ROWS;
        if (row >= part.row_count || threadIdx.x % ADDERS) return found;
        found.output = part.output + row;
        if (part.bias) found.bias = __ldg(part.bias + row);
        if (args.stage == STAGE_GATE && args.parts[1].bias) found.other = __ldg(args.parts[1].bias + row);
        return found;
    }

    __device__ __forceinline__ void find_prior(struct row_end &row) const
    {
        if (args.stage == STAGE_ADD && row.output) row.other = __ldcg(row.output);
    }

    /* By all lanes of a warp. */
    __device__ __forceinline__ void finish_row(const struct row_end &row, float scale) const
    {
        float value = add_up(row.first) * scale + row.bias;
        if (args.stage == STAGE_GATE) {
            const float up = add_up(row.first + tile_count * SUM_STRIDE) * scale + row.other;
            value = __fdividef(value, 1 + expf(-value)) * up;
        } else {
            value += row.other;
        }
        if (row.output) *row.output = value;
    }

    /* The rows of the sets from `begin` to `end`, from the given one on. */
    __device__ __forceinline__ void finish_rows(uint32_t begin, uint32_t end, uint32_t first, float scale) const
    {
#pragma unroll 1
        for (uint32_t i = first; i < (end - begin) * PACK12_ROWS; i += blockDim.x / ADDERS) {
            struct row_end row = find_row(begin, end, i + threadIdx.x / ADDERS);
            find_prior(row);
            finish_row(row, scale);
        }
    }
};

template <class FORM>
static __global__ __launch_bounds__(PRODUCT_WARPS *WARP, 1) void multiply(const __grid_constant__ struct product_args args)
{
    extern __shared__ __align__(128) uint8_t slots[];
    const uint32_t warp = warp_index(), all_slots = args.slot_count * args.slot_warps;
    uint8_t *staged = slots + all_slots * FORM::slot_bytes;
    float *warp_sums = (float *)(staged + input_steps(args.column_count) * STEP_BYTES);
    uint64_t *norm_barrier = (uint64_t *)(warp_sums + PRODUCT_WARPS), *barriers = norm_barrier + 1;
    struct product_work<FORM> work(args);
    const uint32_t sets = args.least_sets + (blockIdx.x < args.longer_blocks);
    work.slots = slots + warp * args.slot_count * FORM::slot_bytes;
    work.barriers = barriers + warp * args.slot_count;
    work.sums = (float *)(barriers + all_slots);
    work.lane = threadIdx.x % WARP;
    work.input = staged + work.lane / PACK12_QUAD % 2 * (STEP_BYTES / 2) + work.lane % PACK12_QUAD * 16;
    work.set_bands = args.stage == STAGE_GATE ? 2 : 1;
    work.tile_count = pack12_tile_count(args.column_count);
    work.band_count = sets * work.set_bands;
    work.slot_count = args.slot_count;
    work.warp_count = args.slot_warps;
    if (args.norm && warp == 0) ask_for_norm(args, staged, norm_barrier, work.lane);
    const bool has_slots = warp < args.slot_warps, is_early = warp < FORM::early_warps;
    if (has_slots) work.start(warp);
    if (has_slots && is_early) work.fill_slots();
    __syncthreads();
    const uint32_t first_end = min(args.round_sets, sets);
    struct row_end row = work.find_row(0, first_end, threadIdx.x / ADDERS);
    const uint32_t spans = args.spans.values ? cut_spans(__ldcg(args.spans.position), args.spans.window).count : 0;
    wait_for_previous_grid();
    let_next_grid_start();
    work.find_prior(row);
    const float scale = stage_input(args, spans, norm_barrier, staged, warp_sums);
    if (has_slots && !is_early) work.fill_slots();
#pragma unroll 1
    for (uint32_t begin = 0; begin < sets; begin += args.round_sets) {
        const uint32_t end = min(begin + args.round_sets, sets);
        if (begin) __syncthreads();
        if (has_slots) work.multiply_bands(begin * work.set_bands, end * work.set_bands);
        __syncthreads();
        /* As little as possible is done here, while the memory idles: what the first rows need besides their sums was found. */
        if (begin == 0) work.finish_row(row, scale);
        work.finish_rows(begin, end, begin ? 0 : PRODUCT_WARPS * WARP / ADDERS, scale);
    }
}

#endif

/* kernels_product.cuh - products of matrices with one vector, the steps around them fused in.
 *
 * Tensor cores do the sums: few instructions a weight, so that decoding weights of 12 bits hides behind memory. The bands of a
 * matrix, of 16 rows (of the gate together with the same band of up), go to the blocks in turn, the tiles of a block's bands
 * (kernels_weights.cuh) to its warps in turn, and both go on from stage to stage: the n-th tile of a block, over all stages, is
 * multiplied by warp n modulo their number, and lies in slot n modulo theirs. Whoever has multiplied a tile asks for the one that
 * takes its slot. So weights are on their way while blocks wait for each other's results. When a stage's tiles are done what they
 * came to is added up, row by row, and goes where the stage says.
 *
 * The rows of a tile are those of A (kernels_device.cuh). The vector is split into the sum of two BF16 numbers, its terms, which
 * take turns as the columns of B; what the columns from the third on come to is not looked at.
 *
 * Order of sums: in a tile each of the four products of a pair of steps has a sum of its own; these four are added, then the
 * terms of the vector; then the tiles of a row, every eighth, and these eight. So neither the form of the weights nor the number
 * of slots or blocks changes a bit.
 */
#ifndef CLLM_KERNELS_PRODUCT_CUH
#define CLLM_KERNELS_PRODUCT_CUH

#include "forward_gpu_buffers.h"
#include "gpu_layout.h"
#include "kernels_device.cuh"
#include "kernels_weights.cuh"

#include <cuda_bf16.h>

#ifndef TOKEN_WARPS
#define TOKEN_WARPS 16 /* of a block, that multiply; by measurement */
#endif
#define TOKEN_THREADS (TOKEN_WARPS * WARP)
#define STAGE_BATCH 4     /* loads of the input in flight in a thread */
#define NORM_BATCH 2      /* the same with a norm */
#define SPAN_BATCH 4      /* the same of spans */
#ifndef SPAN_COLUMNS
#define SPAN_COLUMNS 2    /* of which so many at a time */
#endif
#define STEP_BYTES 128    /* of the input in shared memory: 32 first terms, 32 second ones */
#define LINE_BYTES 128
#define SLOTS_MAX WARP     /* a lane each */
#define SLOTS_OF_WARP 2   /* by measurement */
#define STAGE_RING 8      /* stages whose descriptions are in shared memory: those from the previous one on */
#define ADDERS 8          /* lanes that add up a row */
#define PRIOR_SETS 4u     /* that a block keeps what is added to their rows of */
#define TILE_COUNTER PACK12_ROWS /* behind the sums of a set's first tile: its tiles that are multiplied */
#define SUM_STRIDE 20     /* floats between the sums of tiles: keeps those that are read together on different banks */
#define SUM_BYTES_MAX (36 << 10) /* of a round, where a stage has several */

/* ------------------------------------------------------------------------------------------------------------- stages */

enum token_step {
    STEP_ATTEND, /* kernels_attention.cuh */
    STEP_GATE,   /* output = silu(gate) * up */
    STEP_ADD,    /* output = prior + product */
    STEP_SET,    /* output = product */
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

/* A step that needs what others have left. Vectors are those of turn 0 (struct token_args). A set is a band, or one of gate and
 * the same of up. */
struct token_stage {
    enum token_step step;
    enum cllm_gpu_form form;
    uint32_t set_count;
    uint32_t first_block;  /* has the first set, the next one the second */
    uint32_t whole_rounds; /* sets that every block has */
    uint32_t more_blocks;  /* that have one more, from the first one on */
    uint32_t tile_count;  /* of a band */
    uint32_t column_count;
    uint64_t row_bytes; /* of a row, or of a band of packed ones */
    struct product_part parts[PART_COUNT]; /* SET: one behind the other; GATE: gate and up; ADD: one */
    bool is_aligned;      /* rows that are not packed are multiples of 16 bytes */
    bool is_last;         /* the output is no vector, but the host's */
    uint32_t round_sets;  /* whose sums are kept at a time */
    float epsilon;
    const float *input; /* or null: what attention has left in the spans */
    const float *norm;  /* RMSNorm's weights, whole 16 bytes of them; or null: no norm */
    const float *prior;
    float *spans; /* [span]: values [head][head_dim], not yet divided by a sum; from span_scales on [head]: maximum and sum */
    const float *query, *key, *value; /* what attention reads: [head][head_dim], not rotated; of each key-value head */
    __nv_bfloat16 *keys; /* of the layer: [kv head][position][head_stride]; zeros between head_dim and head_stride */
    __nv_bfloat16 *values;
    struct row_map maps[PART_COUNT]; /* of parts that are not packed, but aligned */
};

/* What is the same for all layers. */
struct attention_shape {
    uint32_t head_count;
    uint32_t group;       /* query heads of a key-value head */
    uint32_t chunk_count; /* of them */
    uint32_t kv_head_count;
    uint32_t head_dim;
    uint32_t head_stride;
    uint32_t context_size;
    uint32_t window;      /* 0: none */
    uint32_t span_floats; /* from span to span */
    uint32_t span_scales; /* floats before them */
    float scale;
};

/* Of a description, what blocks keep in shared memory. */
#define STAGE_BYTES ((uint32_t)(offsetof(struct token_stage, maps) + 15) / 16 * 16)

/* Vectors of a token, each written once in it: there are two sets, of even and odd turns. A token clears the other set. */
struct token_vectors {
    float *first; /* of turn 0: the embedding, then for each layer what its stages leave, then for each its spans */
    uint32_t turn_floats;
    uint32_t plain_floats; /* before spans */
    uint32_t layer_count;
    uint32_t span_count; /* of a layer */
};

/* Shared memory, in this order. */
struct token_memory {
    uint32_t slot_count;
    uint32_t slot_bytes;
    uint32_t tile_warps;   /* that multiply */
    uint32_t more_slots;   /* 1: each has two slots; 0: one */
    uint32_t area_offset;  /* what input and sums, or attention, take */
    uint32_t fixed_offset; /* where barriers begin */
};

struct token_args {
    const struct token_stage *stages;
    uint32_t begin, end; /* stages of this launch */
    uint32_t id;
    uint32_t position;
    uint32_t turn;           /* 0 or 1 */
    uint32_t stale_position; /* that the other set was for */
    bool is_start;           /* clears the other set */
    bool has_token;          /* embeds it */
    struct cllm_gpu_matrix embedding;
    const float *frequencies;
    float attention_factor;
    struct attention_shape attention;
    struct token_vectors vectors;
    struct token_memory memory;
};

static __device__ __forceinline__ void sync_workers(void)
{
    sync_threads<TOKEN_THREADS>();
}

/* ------------------------------------------------------------------------------------------------------------- memory */

static __host__ __device__ __forceinline__ uint32_t input_steps(uint32_t column_count)
{
    return (column_count + PACK12_PAIR - 1) / PACK12_PAIR * 2;
}

static __host__ __device__ __forceinline__ uint32_t round_up_16(uint32_t bytes)
{
    return (bytes + 15) / 16 * 16;
}

static __host__ __device__ __forceinline__ uint32_t input_bytes(uint32_t column_count)
{
    return input_steps(column_count) * STEP_BYTES;
}

/* Of the sums of a set's tiles. */
static __host__ __device__ __forceinline__ uint32_t sum_bytes(uint32_t column_count, uint32_t band_count)
{
    return pack12_tile_count(column_count) * band_count * (SUM_STRIDE * (uint32_t)sizeof(float));
}

/* What one position sees, and how it is cut into spans. */
struct span_cut {
    uint32_t begin, end; /* positions */
    uint32_t size;
    uint32_t count;
};

static __host__ __device__ __forceinline__ struct span_cut cut_spans(uint32_t position, uint32_t window)
{
    const uint32_t end = position + 1, begin = window && end > window ? end - window : 0, all = end - begin;
    const uint32_t least = (all + CLLM_SPAN_COUNT_MAX - 1) / CLLM_SPAN_COUNT_MAX;
    const uint32_t size = (least + CLLM_SPAN_POSITIONS - 1) / CLLM_SPAN_POSITIONS * CLLM_SPAN_POSITIONS;
    return {begin, end, size, (all + size - 1) / size};
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

/* Numbers 4i to 4i + 3 of a vector as they are now; zeros for those from `count` on. */
static __device__ __forceinline__ float4 peek_part(const float *vector, uint32_t i, uint32_t count)
{
    if (i * 4 + 4 <= count) return peek_four(vector + i * 4);
    const uint32_t left = i * 4 < count ? count - i * 4 : 0;
    return make_float4(left > 0 ? peek(vector + i * 4) : 0, left > 1 ? peek(vector + i * 4 + 1) : 0,
                       left > 2 ? peek(vector + i * 4 + 2) : 0, 0);
}

/* Every `stride`-th four of a thread, when they are written. */
template <int BATCH>
static __device__ __forceinline__ void take_batch(const float *vector, uint32_t start, uint32_t stride, uint32_t count,
                                                  float4 batch[BATCH])
{
    bool all = false;
    WATCH;
#pragma unroll 1
    while (!all) {
        LOOK("vector", start, (uint32_t)(uintptr_t)vector);
        all = true;
#pragma unroll
        for (uint32_t j = 0; j < BATCH; j++) batch[j] = peek_part(vector, start + j * stride, count);
#pragma unroll
        for (uint32_t j = 0; j < BATCH; j++) all = all && are_written(batch[j]);
    }
}

/* Stages a vector as it is. */
static __device__ __forceinline__ void stage_plain(const float *vector, uint32_t column_count, uint8_t *staged)
{
    const uint32_t count = input_steps(column_count) * (PACK12_STEP / 4);
#pragma unroll 1
    for (uint32_t start = threadIdx.x; start < count; start += TOKEN_THREADS * STAGE_BATCH) {
        float4 batch[STAGE_BATCH];
        take_batch<STAGE_BATCH>(vector, start, TOKEN_THREADS, column_count, batch);
#pragma unroll
        for (uint32_t j = 0; j < STAGE_BATCH; j++) {
            const uint32_t i = start + j * TOKEN_THREADS;
            if (i < count) stage_four(batch[j], i, staged);
        }
    }
}

/* Stages a vector times the norm's weights, and sums squares. */
static __device__ __forceinline__ void stage_norm(const float *vector, const float *weights, uint32_t column_count,
                                                  uint8_t *staged, float *warp_sums)
{
    const uint32_t count = input_steps(column_count) * (PACK12_STEP / 4);
    float squares = 0;
#pragma unroll 1
    for (uint32_t start = threadIdx.x; start < count; start += TOKEN_THREADS * NORM_BATCH) {
        float4 batch[NORM_BATCH], norm[NORM_BATCH];
#pragma unroll
        for (uint32_t j = 0; j < NORM_BATCH; j++) {
            const uint32_t i = start + j * TOKEN_THREADS;
            norm[j] = i * 4 < column_count ? __ldg((const float4 *)weights + i) : make_float4(0, 0, 0, 0);
        }
        take_batch<NORM_BATCH>(vector, start, TOKEN_THREADS, column_count, batch);
#pragma unroll
        for (uint32_t j = 0; j < NORM_BATCH; j++) {
            const uint32_t i = start + j * TOKEN_THREADS;
            float4 x = batch[j];
            squares += x.x * x.x + x.y * x.y + (x.z * x.z + x.w * x.w);
            x = make_float4(x.x * norm[j].x, x.y * norm[j].y, x.z * norm[j].z, x.w * norm[j].w);
            if (i < count) stage_four(x, i, staged);
        }
    }
    for (int offset = WARP / 2; offset; offset /= 2) squares += __shfl_xor_sync(ALL_LANES, squares, offset);
    if (threadIdx.x % WARP == 0) warp_sums[threadIdx.x / WARP] = squares;
}

/* Some numbers of a head that spans are put together to, in their order. */
template <int WIDTH>
struct merged_span {
    float values[SPAN_BATCH][WIDTH], maxima[SPAN_BATCH], sums[SPAN_BATCH]; /* of the spans that are looked at */
    float out[WIDTH], highest, sum;
};

/* Spans from `first` on as they are now, from the given column on; whether all are written. */
template <int WIDTH>
static __device__ __forceinline__ bool peek_spans(const float *spans, const struct attention_shape &shape, uint32_t first,
                                                  uint32_t span_count, uint32_t column, struct merged_span<WIDTH> &merged)
{
    const float *of_head = spans + shape.span_scales + column / shape.head_dim * 2;
    bool all = true;
#pragma unroll
    for (uint32_t s = 0; s < SPAN_BATCH; s++) {
        const bool exists = first + s < span_count;
        const size_t at = (size_t)(first + s) * shape.span_floats;
        const float4 v = WIDTH == 4 && exists ? peek_four(spans + at + column)
                                              : make_float4(exists ? peek(spans + at + column) : 0, 0, 0, 0);
        for (int k = 0; k < WIDTH; k++) merged.values[s][k] = k == 0 ? v.x : k == 1 ? v.y : k == 2 ? v.z : v.w;
        merged.maxima[s] = exists ? peek(of_head + at) : -INFINITY;
        merged.sums[s] = exists ? peek(of_head + at + 1) : 0;
        all = all && are_written(v) && is_written(merged.maxima[s]) && is_written(merged.sums[s]);
    }
    return all;
}

template <int WIDTH>
static __device__ __forceinline__ void add_spans(struct merged_span<WIDTH> &merged)
{
    const float before = merged.highest;
#pragma unroll
    for (uint32_t s = 0; s < SPAN_BATCH; s++) merged.highest = fmaxf(merged.highest, merged.maxima[s]);
    const float kept = expf(before - merged.highest);
    merged.sum *= kept;
    for (int k = 0; k < WIDTH; k++) merged.out[k] *= kept;
#pragma unroll
    for (uint32_t s = 0; s < SPAN_BATCH; s++) {
        const float factor = expf(merged.maxima[s] - merged.highest);
        merged.sum = __fmaf_rn(merged.sums[s], factor, merged.sum);
        for (int k = 0; k < WIDTH; k++) merged.out[k] = __fmaf_rn(merged.values[s][k], factor, merged.out[k]);
    }
}

/* COUNT times WIDTH numbers, whose columns are `stride` apart; those before `end` exist. */
template <int WIDTH, int COUNT>
static __device__ __forceinline__ void merge_spans(const float *spans, const struct attention_shape &shape, uint32_t span_count,
                                                   uint32_t column, uint32_t stride, uint32_t end,
                                                   struct merged_span<WIDTH> merged[COUNT])
{
#pragma unroll
    for (int j = 0; j < COUNT; j++) {
        merged[j].highest = -INFINITY;
        merged[j].sum = 0;
        for (int k = 0; k < WIDTH; k++) merged[j].out[k] = 0;
    }
#pragma unroll 1
    for (uint32_t first = 0; first < span_count; first += SPAN_BATCH) {
        bool all = false;
#pragma unroll 1
        while (!all) {
            all = true;
#pragma unroll
            for (int j = 0; j < COUNT; j++) {
                if (column + j * stride < end) all &= peek_spans<WIDTH>(spans, shape, first, span_count, column + j * stride, merged[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) add_spans<WIDTH>(merged[j]);
    }
#pragma unroll
    for (int j = 0; j < COUNT; j++) {
        for (int k = 0; k < WIDTH; k++) merged[j].out[k] = column + j * stride < end ? merged[j].out[k] / merged[j].sum : 0;
    }
}

/* Stages what attention has left. */
static __device__ __forceinline__ void stage_spans(const float *spans, const struct attention_shape &shape, uint32_t position,
                                                   uint32_t column_count, uint8_t *staged)
{
    const uint32_t count = input_steps(column_count) * (PACK12_STEP / 4), span_count = cut_spans(position, shape.window).count;
    if (shape.head_dim % 4 == 0) {
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < count; i += TOKEN_THREADS * SPAN_COLUMNS) {
            struct merged_span<4> merged[SPAN_COLUMNS];
            merge_spans<4, SPAN_COLUMNS>(spans, shape, span_count, i * 4, TOKEN_THREADS * 4, column_count, merged);
#pragma unroll
            for (uint32_t j = 0; j < SPAN_COLUMNS; j++) {
                const float *x = merged[j].out;
                if (i + j * TOKEN_THREADS < count) stage_four(make_float4(x[0], x[1], x[2], x[3]), i + j * TOKEN_THREADS, staged);
            }
        }
        return;
    }
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < count; i += TOKEN_THREADS) {
        float four[4] = {0, 0, 0, 0};
#pragma unroll 1
        for (uint32_t k = 0; k < 4 && i * 4 + k < column_count; k++) {
            struct merged_span<1> merged[1];
            merge_spans<1, 1>(spans, shape, span_count, i * 4 + k, 0, column_count, merged);
            four[k] = merged[0].out[0];
        }
        stage_four(make_float4(four[0], four[1], four[2], four[3]), i, staged);
    }
}

/* -------------------------------------------------------------------------------------------------------------- tiles */

/* A lane's share of the pairs of steps from `first_step` on. `staged`: the input, where this lane reads its first step. */
template <class FORM, uint32_t PAIRS>
static __device__ __forceinline__ void multiply_pairs(const uint8_t *slot, uint32_t step_count, uint32_t first_step,
                                                      const uint8_t *staged, uint64_t window, const struct tile_patches &patches,
                                                      uint32_t lane, float sums[4][4])
{
#pragma unroll
    for (uint32_t step = 0; step < PAIRS * 2; step += 2) {
        typename FORM::pair pair;
        FORM::take_pair(slot, step_count, first_step + step, lane, pair);
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const uint4 x = *(const uint4 *)(staged + (step + i) * STEP_BYTES);
            if constexpr (FORM::packed) {
                const uint32_t at = first_step + step + i;
                FORM::decode(pair, window, i);
                if (patches.steps >> at & 1) pair.uppers = apply_patches(pair.uppers, patches, at);
            }
#pragma unroll
            for (uint32_t j = 0; j < 2; j++) {
                uint4 terms[FORM::TERMS];
                FORM::fragment(pair, i, j, terms);
#pragma unroll
                for (int term = 0; term < FORM::TERMS; term++) {
                    multiply_add(sums[i * 2 + j], terms[term], j ? x.z : x.x, j ? x.w : x.y);
                }
            }
        }
    }
}

/* Multiplies a tile and leaves the sums of its rows in `out`. */
template <class FORM>
static __device__ __forceinline__ void multiply_tile(const uint8_t *slot, uint32_t step_count, const uint8_t *staged,
                                                     uint64_t window, const uint32_t *list, uint32_t lane, float *out)
{
    float sums[4][4] = {};
    struct tile_patches patches = {};
    if (FORM::packed) patches = find_patches(slot, list, lane);
    if (step_count == PACK12_COLUMNS / PACK12_STEP) {
        multiply_pairs<FORM, PACK12_COLUMNS / PACK12_PAIR>(slot, PACK12_COLUMNS / PACK12_STEP, 0, staged, window, patches, lane,
                                                           sums);
    } else {
#pragma unroll 1
        for (uint32_t step = 0; step < step_count; step += 2) {
            multiply_pairs<FORM, 1>(slot, step_count, step, staged + step * STEP_BYTES, window, patches, lane, sums);
        }
    }
    if (lane % PACK12_QUAD) return; /* columns 0 and 1: the terms of the input */
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) sums[0][i] = sums[0][i] + sums[1][i] + (sums[2][i] + sums[3][i]);
    out[lane / PACK12_QUAD] = sums[0][0] + sums[0][1];
    out[lane / PACK12_QUAD + PACK12_ROWS / 2] = sums[0][2] + sums[0][3];
}

/* -------------------------------------------------------------------------------------------------------------- block */

#ifdef TIMES
__device__ unsigned long long spent[132][240][4];
#define CLOCK(k) if (threadIdx.x == 0 && stage_index < 240) { long long c = clock64(); spent[blockIdx.x][stage_index][k] += c - last_clock; last_clock = c; }
__device__ unsigned long long stamps[132][240][6];
__device__ unsigned smids[132];
static __device__ __forceinline__ void stamp(uint32_t stage, uint32_t k)
{
    if (threadIdx.x == 0 && stage < 240 && blockIdx.x < 132) {
        unsigned long long t;
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
        stamps[blockIdx.x][stage][k] = t;
        if (k == 0) { unsigned m; asm volatile("mov.u32 %0, %smid;" : "=r"(m)); smids[blockIdx.x] = m; }
    }
}
#else
#define stamp(a, b)
#define CLOCK(k)
#endif

enum { COPY_BYTES, COPY_BOX, COPY_NOTHING };

/* The next tile that goes to a slot, left for the warp that has the slot. */
struct alignas(16) copy_note {
    const uint8_t *from; /* or the map */
    uint32_t size;       /* bytes, or of a row */
    uint32_t tag;        /* times that a note was left here, and what it asks for in the two lowest bits */
    uint32_t row, column;
    uint32_t taken;      /* times that a note was taken */
};

/* A block, or a warp of it, at work: those before TOKEN_WARPS multiply, one more copies. */
struct token_work {
    const struct token_args &args;
    uint32_t at;           /* of a warp that multiplies: its next tile, counted in the block from the stage on */
    uint32_t asked, multiplied; /* tiles of that warp */

    __device__ __forceinline__ explicit token_work(const struct token_args &of_grid)
        : args(of_grid), at(warp()), asked(0), multiplied(0)
    {
    }

    /* A vector in this turn. */
    template <class NUMBER>
    __device__ __forceinline__ NUMBER *find(NUMBER *vector) const
    {
        return vector + (args.turn ? args.vectors.turn_floats : 0);
    }

    /* Shared memory: slots, what stages need, barriers, descriptions of stages, and smaller things. */
    __device__ __forceinline__ uint8_t *slots() const
    {
        return shared_memory();
    }
    __device__ __forceinline__ uint8_t *input() const
    {
        return shared_memory() + args.memory.area_offset;
    }
    __device__ __forceinline__ float *sums(const struct token_stage &stage) const
    {
        return (float *)(input() + input_bytes(stage.column_count));
    }
    __device__ __forceinline__ uint64_t *filled() const /* barriers of slots */
    {
        return (uint64_t *)(shared_memory() + args.memory.fixed_offset);
    }
    __device__ __forceinline__ volatile struct copy_note *notes() const
    {
        return (volatile struct copy_note *)(filled() + SLOTS_MAX);
    }
    __device__ __forceinline__ uint8_t *ring() const /* stage i is at i modulo STAGE_RING */
    {
        return (uint8_t *)(notes() + args.memory.slot_count);
    }
    __device__ __forceinline__ float *priors() const
    {
        return (float *)(ring() + STAGE_RING * STAGE_BYTES);
    }
    __device__ __forceinline__ float *warp_sums() const
    {
        return priors() + PRIOR_SETS * PACK12_ROWS;
    }
    __device__ __forceinline__ volatile uint32_t *described() const /* stages before this one are in the ring */
    {
        return (volatile uint32_t *)(warp_sums() + TOKEN_WARPS);
    }
    __device__ __forceinline__ volatile uint32_t *done() const /* nobody needs stages before this one */
    {
        return described() + 1;
    }
    __device__ __forceinline__ uint32_t *tile_counts() const /* of this block, of the stages in the ring */
    {
        return (uint32_t *)(warp_sums() + TOKEN_WARPS + 2);
    }
    __device__ __forceinline__ float *cosines() const /* of the position, head_dim / 2; the sines follow */
    {
        return (float *)(tile_counts() + STAGE_RING);
    }
    static __device__ __forceinline__ uint32_t warp()
    {
        return threadIdx.x / WARP;
    }
    static __device__ __forceinline__ uint32_t lane()
    {
        return threadIdx.x % WARP;
    }

    __device__ __forceinline__ const struct token_stage &get_stage(uint32_t i) const
    {
        return *(const struct token_stage *)(ring() + i % STAGE_RING * STAGE_BYTES);
    }

    /* The first set of this block. */
    static __device__ __forceinline__ uint32_t first_set(const struct token_stage &stage)
    {
        return blockIdx.x >= stage.first_block ? blockIdx.x - stage.first_block : blockIdx.x + gridDim.x - stage.first_block;
    }

    static __device__ __forceinline__ uint32_t count_sets(const struct token_stage &stage)
    {
        return stage.whole_rounds + (first_set(stage) < stage.more_blocks);
    }

    static __device__ __forceinline__ uint32_t set_bands(const struct token_stage &stage)
    {
        return stage.step == STEP_GATE ? 2 : 1;
    }

    /* The part that a band is of, and the number of its set in it. */
    static __device__ __forceinline__ uint32_t find_part(const struct token_stage &stage, uint32_t band, uint32_t &set)
    {
        if (stage.step == STEP_GATE) {
            set = first_set(stage) + band / 2 * gridDim.x;
            return band % 2;
        }
        set = first_set(stage) + band * gridDim.x;
        if (set < stage.parts[0].set_end) return 0;
        const uint32_t part = set < stage.parts[1].set_end ? 1 : 2;
        set -= stage.parts[part - 1].set_end;
        return part;
    }

    /* By all threads, before anything else. */
    __device__ __forceinline__ void open() const
    {
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < args.memory.slot_count; i += blockDim.x) {
            open_slot(filled() + i);
            publish_slots();
            notes()[i].tag = notes()[i].taken = 0;
        }
        if (threadIdx.x == 0) *described() = *done() = args.begin;
    }

    /* ------------------------------------------------------------------------- by the warp that copies */

    /* Has the description of a stage copied; always a group of copies. */
    __device__ __forceinline__ void fetch_stage(uint32_t i) const
    {
        const uint4 *from = (const uint4 *)(args.stages + i);
        uint4 *to = (uint4 *)(ring() + i % STAGE_RING * STAGE_BYTES);
#pragma unroll 1
        for (uint32_t k = lane(); i < args.end && k < STAGE_BYTES / sizeof(uint4); k += WARP) start_copy(to + k, from + k);
        end_copies();
    }

    /* When the description of stage i has arrived. */
    __device__ __forceinline__ void open_stage(uint32_t i) const
    {
        const struct token_stage &stage = get_stage(i);
        if (lane() == 0) {
            tile_counts()[i % STAGE_RING] =
                stage.step == STEP_ATTEND ? 0 : count_sets(stage) * set_bands(stage) * stage.tile_count;
        }
        if (stage.form != CLLM_GPU_PACKED12 && stage.is_aligned) acquire_maps(args.stages[i]);
        look_at(stage);
    }

    /* Tells the others that the stages before `end` are described. */
    __device__ __forceinline__ void publish_stages(uint32_t end) const
    {
        __syncwarp();
        if (lane()) return;
        __threadfence_block();
        *described() = end;
    }

    /* What a stage reads besides weights is brought to the cache of the device: by the time that it runs memory has a long queue of
     * weights. Blocks share this out. */
    __device__ __forceinline__ void look_at(const struct token_stage &stage) const
    {
        const uint32_t lines = stage.column_count / (LINE_BYTES / 4), first = blockIdx.x * WARP + lane();
        if (stage.norm && first < lines) fetch_line(stage.norm + first * (LINE_BYTES / 4));
        if (stage.step != STEP_ATTEND) return;
        const struct attention_shape &shape = args.attention;
        const struct span_cut cut = cut_spans(args.position, shape.window);
        const uint32_t row_bytes = shape.head_stride * 2, of_head = (cut.end - cut.begin) * row_bytes / LINE_BYTES;
#pragma unroll 1
        for (uint32_t i = first; i < of_head * shape.kv_head_count; i += gridDim.x * WARP) {
            const size_t line = (size_t)(i / of_head * shape.context_size + cut.begin) * row_bytes + i % of_head * LINE_BYTES;
            fetch_line((const uint8_t *)stage.keys + line);
            fetch_line((const uint8_t *)stage.values + line);
        }
    }

    static __device__ __forceinline__ void acquire_maps(const struct token_stage &stage)
    {
        if (lane()) return;
        for (const struct row_map &map : stage.maps) acquire_map(&map);
    }

    /* To the stage that a tile is of, as far as they are described. */
    __device__ __forceinline__ void find_stage(uint32_t &stage, uint32_t &tile, uint32_t known_end) const
    {
#pragma unroll 1
        while (stage < known_end && tile >= tile_counts()[stage % STAGE_RING]) {
            tile -= tile_counts()[stage % STAGE_RING];
            stage++;
        }
    }

    /* Leaves a note for the warp that has slot lane(). */
    __device__ __forceinline__ void write_note(uint32_t stage_index, uint32_t at_tile, uint32_t lap) const
    {
        const struct token_stage &stage = get_stage(stage_index);
        volatile struct copy_note *note = notes() + lane();
        const uint32_t band = at_tile / stage.tile_count, tile = at_tile - band * stage.tile_count;
        uint32_t set;
        const uint32_t part = find_part(stage, band, set);
        const uint32_t kind = stage.form == CLLM_GPU_PACKED12 ? COPY_BYTES : stage.is_aligned ? COPY_BOX : COPY_NOTHING;
        if (kind == COPY_BYTES) {
            note->from = stage.parts[part].elements + set * stage.row_bytes + (size_t)tile * PACK12_TILE_BYTES;
            note->size = pack12_tile_bytes(pack12_steps(stage.column_count - tile * PACK12_COLUMNS));
        } else {
            note->from = (const uint8_t *)&args.stages[stage_index].maps[part];
            note->size = stage.form == CLLM_GPU_F32 ? f32_form::row_stride : halves_form::row_stride;
            note->row = set * PACK12_ROWS;
            note->column = tile * PACK12_COLUMNS;
        }
        __threadfence_block();
        note->tag = lap << 2 | kind;
    }

    /* Describes all tiles of this block, each lane those that go to one slot, one ahead of the warp that has the slot. */
    __device__ __forceinline__ void describe_tiles() const
    {
        uint32_t fetched = args.begin, known = args.begin, lap = 1;
        uint32_t stage = lane() < args.memory.slot_count ? args.begin : args.end, tile = lane();
#pragma unroll 1
        while (__ballot_sync(ALL_LANES, stage < args.end)) {
            const uint32_t room = __shfl_sync(ALL_LANES, *done(), 0) + STAGE_RING; /* all lanes see the same */
#pragma unroll 1
            while (fetched < args.end && fetched < room) fetch_stage(fetched++);
            const bool is_last = fetched == args.end; /* else the latest one has time until another one is fetched */
            if (known + !is_last < fetched) {
                if (is_last) finish_copies_but<0>();
                finish_copies_but<1>();
                __syncwarp();
#pragma unroll 1
                while (known + !is_last < fetched) open_stage(known++);
                publish_stages(known);
            }
            find_stage(stage, tile, known); /* each time, before any stage leaves the ring */
            const bool writes = stage < known && notes()[lane()].taken == lap - 1;
            if (writes) {
                write_note(stage, tile, lap);
                tile += args.memory.slot_count;
                lap++;
                find_stage(stage, tile, known);
            }
            if (!__ballot_sync(ALL_LANES, writes)) give_way();
        }
    }

    /* ---------------------------------------------------------------------- by the warps that multiply */

    /* The slot of this warp's i-th tile, and whether it is there for the first time, the second, ... from 0 on. */
    __device__ __forceinline__ uint32_t slot_of(uint32_t i) const
    {
        return warp() + (i & args.memory.more_slots) * args.memory.tile_warps;
    }
    __device__ __forceinline__ uint32_t lap_of(uint32_t i) const
    {
        return i >> args.memory.more_slots;
    }

    /* Asks for this warp's next tile, whose slot is empty, if there is a note about it. */
    __device__ __forceinline__ bool ask_for_tile()
    {
        const uint32_t slot = slot_of(asked), lap = lap_of(asked);
        volatile struct copy_note *note = notes() + slot;
        const uint32_t tag = __shfl_sync(ALL_LANES, note->tag, 0);
        if (tag >> 2 != lap + 1) return false;
        __threadfence_block();
        const uint32_t kind = tag & 3, size = note->size;
        const uint8_t *from = note->from;
        uint8_t *to = slots() + slot * args.memory.slot_bytes;
        uint64_t *barrier = filled() + slot;
        if (kind == COPY_BYTES) {
            fill_slot(to, barrier, from, size, lane());
        } else if (kind == COPY_BOX) {
            fill_slot_with_box(to, barrier, (const struct row_map *)from, PACK12_ROWS, size, note->row, note->column, lane());
        } else {
            skip_slot(barrier, lane());
        }
        __syncwarp();
        if (lane() == 0) note->taken = lap + 1;
        asked++;
        return true;
    }

    /* Asks for as many tiles as there are empty slots and notes. */
    __device__ __forceinline__ void ask_for_tiles()
    {
#pragma unroll 1
        while (asked - multiplied <= args.memory.more_slots && ask_for_tile()) {
        }
    }

    template <class FORM>
    __device__ __forceinline__ void fill(const struct token_stage &stage, uint32_t set, const struct product_part &part,
                                         uint32_t tile, uint32_t slot) const
    {
        const uint32_t row = set * PACK12_ROWS;
        const struct tile_rows rows = {part.elements + row * stage.row_bytes +
                                           (size_t)tile * (PACK12_COLUMNS * FORM::element_bytes),
                                       stage.row_bytes, part.row_count - row, stage.column_count - tile * PACK12_COLUMNS};
        FORM::fill_part(rows, pack12_steps(rows.column_count), lane(), slots() + slot * args.memory.slot_bytes);
        order_slot();
        __syncwarp();
    }

    static __device__ __forceinline__ float finish_row(const struct product_part &part, uint32_t row, float sum, float scale)
    {
        return part.bias ? sum * scale + part.bias[row] : sum * scale;
    }

    /* Counts the tiles of a set that are multiplied, by a warp that has multiplied one; true: all are. */
    static __device__ __forceinline__ bool completes_set(float *sums_of_set, uint32_t set_tiles)
    {
        uint32_t count = 0;
        if (lane() == 0) {
            __threadfence_block();
            count = atomicAdd((uint32_t *)(sums_of_set + TILE_COUNTER), 1u) + 1;
        }
        count = __shfl_sync(ALL_LANES, count, 0);
        if (count < set_tiles) return false;
        __threadfence_block();
        return true;
    }

    /* What a row came to; the same in all lanes that add it up. */
    static __device__ __forceinline__ float add_up(const float *sums_of_band, uint32_t tile_count, uint32_t row)
    {
        const float *from = sums_of_band + row;
        float sum = 0;
#pragma unroll 2
        for (uint32_t i = lane() % ADDERS; i < tile_count; i += ADDERS) sum += from[i * SUM_STRIDE];
        for (uint32_t offset = ADDERS / 2; offset; offset /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
        return sum;
    }

    /* Adds up a set and gives its rows away, by a warp. `number` counts the sets of the block. */
    __device__ __forceinline__ void finish_set(const struct token_stage &stage, const float *sums_of_set, uint32_t number,
                                               float scale) const
    {
        float sum = 0, other = 0;
        uint32_t set;
        const uint32_t part = find_part(stage, number * set_bands(stage), set), turn = lane() % ADDERS;
        const uint32_t in_band = turn * (WARP / ADDERS) + lane() / ADDERS, row = set * PACK12_ROWS + in_band;
#pragma unroll 1
        for (uint32_t i = 0; i < PACK12_ROWS / (WARP / ADDERS); i++) {
            const uint32_t added = i * (WARP / ADDERS) + lane() / ADDERS;
            const float first = add_up(sums_of_set, stage.tile_count, added);
            const float second = stage.step != STEP_GATE ? 0 : add_up(sums_of_set + stage.tile_count * SUM_STRIDE, stage.tile_count, added);
            if (turn == i) sum = first, other = second;
        }
        if (in_band >= PACK12_ROWS || row >= stage.parts[part].row_count) return;
        float value = finish_row(stage.parts[part], row, sum, scale);
        if (stage.step == STEP_GATE) value = value / (1 + expf(-value)) * finish_row(stage.parts[1], row, other, scale);
        if (stage.step == STEP_ADD) {
            const float prior = number < PRIOR_SETS ? priors()[number * PACK12_ROWS + in_band] : __uint_as_float(UNWRITTEN);
            value += is_written(prior) ? prior : take(find(stage.prior) + row);
        }
        if (stage.is_last) {
            stage.parts[part].output[row] = value;
        } else {
            publish(find(stage.parts[part].output) + row, value);
        }
    }

    /* This warp's tiles of the sets from `begin` to `end` of the block. */
    template <class FORM>
    __device__ __forceinline__ void multiply_sets(const struct token_stage &stage, uint32_t stage_index, uint32_t begin,
                                                  uint32_t end, float scale)
    {
        const uint8_t *from = input() + lane() / PACK12_QUAD % 2 * (STEP_BYTES / 2) + lane() % PACK12_QUAD * 16;
        const uint32_t tile_count = stage.tile_count, column_count = stage.column_count, stride = args.memory.tile_warps;
        const uint32_t bands = set_bands(stage), set_tiles = bands * tile_count;
        uint32_t band = at / tile_count, tile = at - band * tile_count;
#ifdef TIMES
        if (threadIdx.x == 0 && stage_index < 240) for (int k = 0; k < 4; k++) spent[blockIdx.x][stage_index][k] = 0;
        long long last_clock = clock64();
#endif
#pragma unroll 1
        for (; at < end * set_tiles; at += stride) {
            uint32_t set;
            const struct product_part &part = stage.parts[find_part(stage, band, set)];
            const uint32_t number = band / bands;
            float *sums_of_set = sums(stage) + (number - begin) * set_tiles * SUM_STRIDE;
            WATCH;
            while (asked == multiplied && !ask_for_tile()) {
                give_way();
                LOOK("note", asked, stage_index);
            }
            const uint32_t slot = slot_of(multiplied);
            wait_for_slot(filled() + slot, lap_of(multiplied) & 1);
            CLOCK(0);
            if (!FORM::packed && !stage.is_aligned) fill<FORM>(stage, set, part, tile, slot);
            multiply_tile<FORM>(slots() + slot * args.memory.slot_bytes, pack12_steps(column_count - tile * PACK12_COLUMNS),
                                from + tile * (PACK12_COLUMNS / PACK12_STEP * STEP_BYTES), part.window, part.patches, lane(),
                                sums_of_set + (band - number * bands) * (tile_count * SUM_STRIDE) + tile * SUM_STRIDE);
            __syncwarp();
            multiplied++;
            ask_for_tiles();
            if (completes_set(sums_of_set, set_tiles)) finish_set(stage, sums_of_set, number, scale);
            tile += stride;
#pragma unroll 1
            while (tile >= tile_count) tile -= tile_count, band++;
            CLOCK(1);
        }
    }

    __device__ __forceinline__ void multiply(const struct token_stage &stage, uint32_t stage_index, uint32_t begin, uint32_t end,
                                             float scale)
    {
        switch (stage.form) {
        case CLLM_GPU_PACKED12: return multiply_sets<packed_form>(stage, stage_index, begin, end, scale);
        case CLLM_GPU_F16: return multiply_sets<f16_form>(stage, stage_index, begin, end, scale);
        case CLLM_GPU_F32: return multiply_sets<f32_form>(stage, stage_index, begin, end, scale);
        default: return multiply_sets<bf16_form>(stage, stage_index, begin, end, scale);
        }
    }

    /* Before the first tile of so many sets is multiplied, by all that multiply. */
    __device__ __forceinline__ void clear_counters(const struct token_stage &stage, uint32_t sets) const
    {
        const uint32_t set_floats = set_bands(stage) * stage.tile_count * SUM_STRIDE;
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < sets; i += TOKEN_THREADS) {
            *(uint32_t *)(sums(stage) + i * set_floats + TILE_COUNTER) = 0;
        }
    }

    /* Has what is added to the first sets copied. */
    __device__ __forceinline__ void fetch_priors(const struct token_stage &stage, uint32_t sets) const
    {
        const uint32_t set = threadIdx.x / 4, row = (first_set(stage) + set * gridDim.x) * PACK12_ROWS + threadIdx.x % 4 * 4;
        if (stage.step != STEP_ADD || set >= min(sets, PRIOR_SETS)) return;
        start_copy(priors() + threadIdx.x * 4, find(stage.prior) + row);
        end_copies();
    }

    /* Stages the input; the result is what products must be multiplied by. */
    __device__ __forceinline__ float stage_input(const struct token_stage &stage)
    {
        if (stage.norm) {
            stage_norm(find(stage.input), stage.norm, stage.column_count, input(), warp_sums());
        } else if (stage.input) {
            stage_plain(find(stage.input), stage.column_count, input());
        } else {
            stage_spans(find(stage.spans), args.attention, args.position, stage.column_count, input());
        }
        finish_copies_but<0>(); /* of priors */
        sync_workers();
        if (!stage.norm) return 1;
        float sum = 0;
        for (uint32_t i = 0; i < TOKEN_WARPS; i++) sum += warp_sums()[i];
        return rsqrtf(sum / stage.column_count + stage.epsilon);
    }

    /* Until the warp that copies has said what stage i is. */
    __device__ __forceinline__ void wait_for_stage(uint32_t i) const
    {
        WATCH;
        while (*described() <= i) { give_way(); LOOK("described", i, *described()); }
        __threadfence_block();
        __syncwarp();
    }

    /* By all that multiply. */
    __device__ __forceinline__ void run_product(const struct token_stage &stage, uint32_t stage_index)
    {
        const uint32_t sets = count_sets(stage);
        if (!sets) return;
        stamp(stage_index, 0);
        clear_counters(stage, min(stage.round_sets, sets));
        fetch_priors(stage, sets);
        const float scale = stage_input(stage);
        stamp(stage_index, 1);
#pragma unroll 1
        for (uint32_t begin = 0; begin < sets; begin += stage.round_sets) {
            const uint32_t end = min(begin + stage.round_sets, sets);
            if (begin) {
                sync_workers();
                clear_counters(stage, end - begin);
                sync_workers();
            }
            if (warp() < args.memory.tile_warps) multiply(stage, stage_index, begin, end, scale);
        }
        stamp(stage_index, 2);
        at -= sets * set_bands(stage) * stage.tile_count;
    }
};

#endif

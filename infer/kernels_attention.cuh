/* kernels_attention.cuh - attention of one query against the cache.
 *
 * Dao et al. 2023, "Flash-Decoding": the visible positions are cut into spans, a block takes the query heads of one key-value
 * head (eight at most) over one span, its warps sixteen positions at a time, each keeping maximum, sum and weighted values; warps
 * are merged in order, and spans by the product that follows (merge_spans). How positions are cut depends on their number alone.
 *
 * Tensor cores multiply: sixteen keys are the rows of A, the queries the columns of B; then the dimensions of sixteen values are
 * the rows of A, their weights B. Queries and weights are split into the sum of two BF16 numbers. Keys and values are asked for
 * before the queries are there, those of the token itself apart: earlier tokens left them.
 */
#ifndef CLLM_KERNELS_ATTENTION_CUH
#define CLLM_KERNELS_ATTENTION_CUH

#include "kernels_product.cuh"

#include <cuda_bf16.h>

#define ATTENTION_HEADS CLLM_ATTENTION_HEADS_MAX /* of a block; columns of B */
#define ATTENTION_POSITIONS 16                   /* of a warp at a time */

/* Shared memory of a block, in this order: queries as two terms, the token's own key and value as the cache has them; what warps
 * have seen takes the same place afterwards. Rows of queries keep off each other's banks. */
static __host__ __device__ __forceinline__ uint32_t query_row_bytes(uint32_t steps)
{
    return (steps | 1) * (PACK12_STEP * 2);
}

static __host__ __device__ __forceinline__ uint32_t attention_bytes(uint32_t steps, uint32_t heads)
{
    const uint32_t input = 2 * ATTENTION_HEADS * query_row_bytes(steps) + 2 * steps * PACK12_STEP * 2;
    const uint32_t output = TOKEN_WARPS * heads * ((steps + 1) / 2 * 64 + 2) * (uint32_t)sizeof(float);
    return input > output ? input : output;
}

/* What one item of attention is: query heads of a key-value head over a span. */
struct attention_item {
    uint32_t kv_head, chunk;
    uint32_t first_head, head_count;
    uint32_t span;
    uint32_t first, stop; /* positions */
    bool has_own;         /* the last position is the token's */
};

/* Two dimensions of a head after rotation by the position (Su et al. 2021, "RoFormer"): i and head_dim / 2 + i turn together. */
static __device__ __forceinline__ float2 rotate_pair(const struct token_work &work, const float *head, uint32_t i)
{
    const float *second = head + work.args.attention.head_dim / 2;
    float low = peek(head + i), high = peek(second + i);
    if (!is_written(low)) low = take(head + i);
    if (!is_written(high)) high = take(second + i);
    const float cosine = work.cosines()[i], sine = work.cosines()[work.args.attention.head_dim / 2 + i];
    return make_float2(low * cosine - high * sine, high * cosine + low * sine);
}

static __device__ __forceinline__ void store_terms(uint8_t *row, uint32_t second_term, uint32_t dim, float value)
{
    const __nv_bfloat16 first = __float2bfloat16_rn(value);
    ((__nv_bfloat16 *)row)[dim] = first;
    ((__nv_bfloat16 *)(row + second_term))[dim] = __float2bfloat16_rn(value - __bfloat162float(first));
}

/* Two dimensions of a query, rotated and scaled, as terms. */
static __device__ __forceinline__ void stage_query(const struct token_work &work, const float *query,
                                                   const struct attention_item &item, uint32_t i, uint32_t row_bytes,
                                                   uint8_t *queries)
{
    const struct attention_shape &shape = work.args.attention;
    const uint32_t half = shape.head_dim / 2, head = i / half, pair = i % half;
    const float2 turned = rotate_pair(work, query + (size_t)(item.first_head + head) * shape.head_dim, pair);
    uint8_t *row = queries + head * row_bytes;
    store_terms(row, ATTENTION_HEADS * row_bytes, pair, turned.x * shape.scale);
    store_terms(row, ATTENTION_HEADS * row_bytes, pair + half, turned.y * shape.scale);
}

/* The same of key and value of the token itself; `saves`: puts them into the cache, too, from element `at` on. */
static __device__ __forceinline__ void stage_own(const struct token_work &work, const struct token_stage &stage, uint32_t kv_head,
                                                 uint32_t i, size_t at, bool saves, __nv_bfloat16 *key, __nv_bfloat16 *value)
{
    const uint32_t dims = work.args.attention.head_dim, half = dims / 2;
    const float *keys = work.find(stage.key) + (size_t)kv_head * dims, *values = work.find(stage.value) + (size_t)kv_head * dims;
    const float2 turned = rotate_pair(work, keys, i);
    key[i] = __float2bfloat16_rn(turned.x);
    key[i + half] = __float2bfloat16_rn(turned.y);
    value[i] = __float2bfloat16_rn(take(values + i));
    value[i + half] = __float2bfloat16_rn(take(values + i + half));
    if (!saves) return;
    stage.keys[at + i] = key[i];
    stage.keys[at + i + half] = key[i + half];
    stage.values[at + i] = value[i];
    stage.values[at + i + half] = value[i + half];
}

/* A warp's sixteen keys and values. Lane 4 g + t has, of keys g and g + 8, eight dimensions of each 32; of values 2t, 2t + 1, 2t
 * + 8 and 2t + 9 it has dimensions 8 g to 8 g + 7 of each 64. */
template <int STEPS>
struct cache_tile {
    static constexpr int BLOCKS = (STEPS + 1) / 2; /* of 64 dimensions */
    uint4 keys[STEPS][2];
    uint4 values[BLOCKS][4];
};

static __device__ __forceinline__ uint4 load_eight(const __nv_bfloat16 *row, uint32_t dim, uint32_t stride, bool exists)
{
    return exists && dim < stride ? *(const uint4 *)(row + dim) : make_uint4(0, 0, 0, 0);
}

/* Positions from `first` on, those before `end`, of a cache whose rows are `row_stride` apart and have `stride` dimensions. */
template <int STEPS>
static __device__ __forceinline__ void load_tile(const __nv_bfloat16 *keys, const __nv_bfloat16 *values, uint32_t stride,
                                                 uint32_t first, uint32_t end, struct cache_tile<STEPS> &tile)
{
    const uint32_t lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t position = first + g + i * 8;
#pragma unroll
        for (uint32_t s = 0; s < STEPS; s++) {
            tile.keys[s][i] = load_eight(keys + (size_t)position * stride, s * 32 + t * 8, stride, position < end);
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t position = first + t * 2 + i % 2 + i / 2 * 8;
#pragma unroll
        for (uint32_t u = 0; u < tile.BLOCKS; u++) {
            tile.values[u][i] = load_eight(values + (size_t)position * stride, u * 64 + g * 8, stride, position < end);
        }
    }
}

/* Puts the token's own key and value where they belong in a tile. */
template <int STEPS>
static __device__ __forceinline__ void insert_own(const __nv_bfloat16 *key, const __nv_bfloat16 *value, uint32_t place,
                                                  struct cache_tile<STEPS> &tile)
{
    const uint32_t lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
#pragma unroll
        for (uint32_t s = 0; s < STEPS; s++) {
            if (g + i * 8 == place) tile.keys[s][i] = *(const uint4 *)(key + s * 32 + t * 8);
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
#pragma unroll
        for (uint32_t u = 0; u < tile.BLOCKS; u++) {
            const uint32_t dim = u * 64 + g * 8;
            if (t * 2 + i % 2 + i / 2 * 8 == place && dim < STEPS * 32) tile.values[u][i] = *(const uint4 *)(value + dim);
        }
    }
}

/* What a warp has seen: of heads 2 t and 2 t + 1 maximum, and this lane's part of the sum; of dimensions 64 u + 8 g + 2 j and
 * the next in values[u][j], first both heads of the one, then of the other. */
template <int STEPS>
struct attention_state {
    float highest[2], sum[2];
    float values[(STEPS + 1) / 2][4][4];
};

/* The most of what the lanes of a column have. */
static __device__ __forceinline__ float column_max(float value)
{
    for (int offset = 4; offset < WARP; offset *= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, offset));
    return value;
}

/* Of two numbers for heads 2 t and 2 t + 1, those of head g. */
static __device__ __forceinline__ float of_head(const float two[2], uint32_t from, uint32_t g)
{
    const float even = __shfl_sync(ALL_LANES, two[0], from), odd = __shfl_sync(ALL_LANES, two[1], from);
    return g % 2 ? odd : even;
}

/* Scores of keys g (0, 1) and g + 8 (2, 3) with heads 2 t and 2 t + 1. */
template <int STEPS>
static __device__ __forceinline__ void multiply_keys(const struct cache_tile<STEPS> &tile, const uint8_t *queries,
                                                     float scores[4])
{
    const uint32_t lane = threadIdx.x % WARP, row_bytes = query_row_bytes(STEPS);
    const uint8_t *from = queries + lane / 4 * row_bytes + lane % 4 * 16;
    float sums[4][4] = {};
#pragma unroll
    for (uint32_t s = 0; s < STEPS; s++) {
        const uint4 &low = tile.keys[s][0], &high = tile.keys[s][1];
#pragma unroll
        for (uint32_t term = 0; term < 2; term++) {
            const uint4 q = *(const uint4 *)(from + term * (ATTENTION_HEADS * row_bytes) + s * 64);
            multiply_add(sums[term * 2], make_uint4(low.x, high.x, low.y, high.y), q.x, q.y);
            multiply_add(sums[term * 2 + 1], make_uint4(low.z, high.z, low.w, high.w), q.z, q.w);
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) scores[i] = sums[0][i] + sums[1][i] + (sums[2][i] + sums[3][i]);
}

static __device__ __forceinline__ uint32_t half_word(const uint4 &eight, uint32_t i)
{
    return i / 2 == 0 ? eight.x : i / 2 == 1 ? eight.y : i / 2 == 2 ? eight.z : eight.w;
}

/* `weights` as scores: of positions g and g + 8. */
template <int STEPS>
static __device__ __forceinline__ void multiply_values(const struct cache_tile<STEPS> &tile, const float weights[4],
                                                       struct attention_state<STEPS> &state)
{
    const uint32_t lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float mine[4]; /* of head g, positions 2t, 2t + 1, 2t + 8, 2t + 9 */
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) mine[i] = of_head(weights + i / 2 * 2, (t * 2 + i % 2) * 4 + g / 2, g);
    uint32_t low[2], high[2];
    split_pair<2>(mine[0], mine[1], low);
    split_pair<2>(mine[2], mine[3], high);
#pragma unroll
    for (uint32_t u = 0; u < tile.BLOCKS; u++) {
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t first = word_of(tile.values[u][0], j), second = word_of(tile.values[u][1], j),
                           third = word_of(tile.values[u][2], j), fourth = word_of(tile.values[u][3], j);
            const uint4 a = make_uint4(__byte_perm(first, second, 0x5410), __byte_perm(first, second, 0x7632),
                                       __byte_perm(third, fourth, 0x5410), __byte_perm(third, fourth, 0x7632));
            multiply_add(state.values[u][j], a, low[0], high[0]);
            multiply_add(state.values[u][j], a, low[1], high[1]);
        }
    }
}

/* Sees the first `count` positions of a tile, one at least. */
template <int STEPS>
static __device__ __forceinline__ void see_tile(const struct cache_tile<STEPS> &tile, const uint8_t *queries, uint32_t count,
                                                struct attention_state<STEPS> &state)
{
    const uint32_t g = threadIdx.x % WARP / 4;
    float scores[4], weights[4], kept[2];
    multiply_keys<STEPS>(tile, queries, scores);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) scores[i] = g + i / 2 * 8 < count ? scores[i] : -INFINITY;
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        const float highest = fmaxf(state.highest[h], column_max(fmaxf(scores[h], scores[h + 2])));
        kept[h] = expf(state.highest[h] - highest);
        weights[h] = expf(scores[h] - highest);
        weights[h + 2] = expf(scores[h + 2] - highest);
        state.sum[h] = __fmaf_rn(state.sum[h], kept[h], weights[h] + weights[h + 2]);
        state.highest[h] = highest;
    }
#pragma unroll
    for (uint32_t i = 0; i < (STEPS + 1) / 2 * 16; i++) state.values[i / 16][i / 4 % 4][i % 4] *= kept[i % 2];
    multiply_values<STEPS>(tile, weights, state);
}

/* Leaves what a warp has seen for merge_warps: [warp][head][dimension], then maximum and sum, [warp][head]. */
template <int STEPS>
static __device__ __forceinline__ void leave_state(const struct attention_state<STEPS> &state, uint32_t head_count, float *shared)
{
    constexpr uint32_t DIMS = (STEPS + 1) / 2 * 64;
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    float2 *scales = (float2 *)(shared + TOKEN_WARPS * head_count * DIMS);
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t head = t * 2 + h;
        float sum = state.sum[h];
        for (int offset = 4; offset < WARP; offset *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
        if (head >= head_count) continue;
        float *values = shared + (warp * head_count + head) * DIMS + g * 8;
#pragma unroll
        for (uint32_t i = 0; i < DIMS / 32; i++) { /* four dimensions each */
            const auto &from = state.values[i / 2];
            const uint32_t j = i % 2 * 2;
            *(float4 *)(values + i / 2 * 64 + j * 2) = make_float4(from[j][h], from[j][h + 2], from[j + 1][h], from[j + 1][h + 2]);
        }
        if (g == 0) scales[warp * head_count + head] = make_float2(state.highest[h], sum);
    }
}

/* Puts together what the warps left, and gives the span's part of the result away. */
template <int STEPS>
static __device__ __forceinline__ void merge_warps(const struct token_work &work, const struct attention_item &item,
                                                   const float *shared, float *span)
{
    constexpr uint32_t DIMS = (STEPS + 1) / 2 * 64;
    const struct attention_shape &shape = work.args.attention;
    const float2 *scales = (const float2 *)(shared + TOKEN_WARPS * item.head_count * DIMS);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < item.head_count * shape.head_dim; i += TOKEN_THREADS) {
        const uint32_t h = i / shape.head_dim, dim = i % shape.head_dim;
        float highest = -INFINITY, sum = 0, value = 0;
#pragma unroll
        for (uint32_t w = 0; w < TOKEN_WARPS; w++) highest = fmaxf(highest, scales[w * item.head_count + h].x);
#pragma unroll 4
        for (uint32_t w = 0; w < TOKEN_WARPS; w++) {
            const float2 scale = scales[w * item.head_count + h];
            const float factor = scale.y > 0 ? expf(scale.x - highest) : 0;
            sum = __fmaf_rn(scale.y, factor, sum);
            value = __fmaf_rn(shared[(w * item.head_count + h) * DIMS + dim], factor, value);
        }
        publish(span + (item.first_head + h) * shape.head_dim + dim, value);
        if (dim) continue;
        publish(span + shape.span_scales + (item.first_head + h) * 2, highest);
        publish(span + shape.span_scales + (item.first_head + h) * 2 + 1, sum);
    }
}

template <int STEPS>
static __device__ __forceinline__ void attend_span(const struct token_work &work, const struct token_stage &stage,
                                                   const struct attention_item &item)
{
    const struct attention_shape &shape = work.args.attention;
    const uint32_t stride = shape.head_stride, own = work.args.position, cached = min(item.stop, own);
    const size_t cache = (size_t)item.kv_head * shape.context_size * stride;
    const __nv_bfloat16 *keys = stage.keys + cache, *values = stage.values + cache;
    uint32_t position = item.first + work.warp() * ATTENTION_POSITIONS;
    uint8_t *memory = work.input();
    struct cache_tile<STEPS> tile;
    load_tile<STEPS>(keys, values, stride, position, cached, tile);
    /* zeros where there are no queries or no dimensions */
    const uint32_t staged_bytes = 2 * ATTENTION_HEADS * query_row_bytes(STEPS) + 2 * STEPS * PACK12_STEP * 2;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < staged_bytes / 16; i += TOKEN_THREADS) ((uint4 *)memory)[i] = make_uint4(0, 0, 0, 0);
    sync_workers();
    __nv_bfloat16 *own_key = (__nv_bfloat16 *)(memory + 2 * ATTENTION_HEADS * query_row_bytes(STEPS));
    __nv_bfloat16 *own_value = own_key + STEPS * PACK12_STEP;
    const uint32_t half = shape.head_dim / 2, pairs = item.head_count * half;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < pairs + (item.has_own ? half : 0); i += TOKEN_THREADS) {
        if (i < pairs) {
            stage_query(work, work.find(stage.query), item, i, query_row_bytes(STEPS), memory);
        } else {
            stage_own(work, stage, item.kv_head, i - pairs, cache + (size_t)own * stride, item.chunk == 0, own_key, own_value);
        }
    }
    sync_workers();
    struct attention_state<STEPS> state = {
    };
    state.highest[0] = state.highest[1] = -INFINITY;
#pragma unroll 1
    while (position < item.stop) {
        if (own - position < ATTENTION_POSITIONS) insert_own<STEPS>(own_key, own_value, own - position, tile);
        see_tile<STEPS>(tile, memory, item.stop - position, state);
        position += TOKEN_WARPS * ATTENTION_POSITIONS;
        if (position < item.stop) load_tile<STEPS>(keys, values, stride, position, cached, tile);
    }
    sync_workers();
    leave_state<STEPS>(state, item.head_count, (float *)memory);
    sync_workers();
    merge_warps<STEPS>(work, item, (const float *)memory, work.find(stage.spans) + (size_t)item.span * shape.span_floats);
}

/* Items go to the blocks in turn: key-value heads times chunks of their query heads, by spans. */
template <int STEPS>
static __device__ __forceinline__ void run_attention(const struct token_work &work, const struct token_stage &stage)
{
    const struct attention_shape &shape = work.args.attention;
    const struct span_cut cut = cut_spans(work.args.position, shape.window);
    const uint32_t columns = shape.kv_head_count * shape.chunk_count;
#pragma unroll 1
    for (uint32_t i = token_work::first_set(stage); i < columns * cut.count; i += gridDim.x) {
        if (i >= gridDim.x) sync_workers(); /* the item before has left the memory */
        const uint32_t kv_head = i % columns / shape.chunk_count, chunk = i % columns % shape.chunk_count, span = i / columns;
        const uint32_t first = cut.begin + span * cut.size, stop = min(first + cut.size, cut.end);
        const struct attention_item item = {
            kv_head,
            chunk,
            kv_head * shape.group + chunk * ATTENTION_HEADS,
            min(shape.group - chunk * ATTENTION_HEADS, (uint32_t)ATTENTION_HEADS),
            span,
            first,
            stop,
            stop == cut.end,
        };
        attend_span<STEPS>(work, stage, item);
    }
}

#endif

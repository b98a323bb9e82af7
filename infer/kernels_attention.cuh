/* kernels_attention.cuh - the start of a token, and its attention.
 *
 * Attention of one query against the cache (Dao et al. 2023, "Flash-Decoding"): the visible positions are cut into spans, a block
 * takes the query heads of one key-value head (eight at most) over one span, its warps sixteen positions at a time, each keeping
 * maximum, sum and weighted values; warps are merged in order, and spans by the product that follows (stage_spans). How positions
 * are cut depends on their number alone.
 *
 * Tensor cores multiply: sixteen keys are the rows of A, the queries the columns of B; then the weights of sixteen values are A,
 * the values B. Queries and weights are split into the sum of two BF16 numbers. Keys and values are asked for before the grid
 * before this one has ended, those of the token itself apart: earlier tokens left them.
 */
#ifndef CLLM_KERNELS_ATTENTION_CUH
#define CLLM_KERNELS_ATTENTION_CUH

#include "kernels_product.cuh"

#include <cuda_bf16.h>

#define ATTENTION_WARPS 8
#define ATTENTION_HEADS CLLM_ATTENTION_HEADS_MAX /* of a block; columns of B */
#define ATTENTION_POSITIONS 16                   /* of a warp at a time */

/* What changes from token to token: written by the host, in memory that both see. */
struct token_input {
    uint32_t id;
    uint32_t position;
};

struct start_args {
    const volatile struct token_input *input;
    struct cllm_gpu_matrix embedding;
    const float *frequencies;
    float attention_factor;
    uint32_t head_dim;
    float *hidden;
    float *cosines;
    float *sines;
    uint32_t *position;
};

/* One element of a raw matrix. */
static __device__ __forceinline__ float raw_element(const struct cllm_gpu_matrix &matrix, uint64_t i)
{
    if (matrix.form == CLLM_GPU_F32) return ((const float *)matrix.d_elements)[i];
    const uint16_t half = ((const uint16_t *)matrix.d_elements)[i];
    return matrix.form == CLLM_GPU_F16 ? __half2float(__ushort_as_half(half)) : __uint_as_float((uint32_t)half << 16);
}

/* One row of the embedding as float32, by all threads of a block. */
static __device__ __forceinline__ void embed_row(const struct cllm_gpu_matrix &matrix, uint32_t row, float *out)
{
    const uint32_t columns = matrix.shape.column_count;
    if (matrix.form != CLLM_GPU_PACKED12) {
        for (uint32_t i = threadIdx.x; i < columns; i += blockDim.x) out[i] = raw_element(matrix, (uint64_t)row * columns + i);
        return;
    }
    const uint8_t *band = (const uint8_t *)matrix.d_elements + row / PACK12_ROWS * pack12_band_bytes(columns);
    const uint32_t in_band = row % PACK12_ROWS;
    for (uint32_t i = threadIdx.x; i < columns; i += blockDim.x) {
        const struct pack12_place place = pack12_find_place(columns, in_band, i);
        const uint32_t codes = *(const uint32_t *)(band + place.tile + place.code_word);
        const uint32_t upper = pack12_upper(matrix.window, codes, i % PACK12_UNIT);
        out[i] = __uint_as_float(upper << 24 | (uint32_t)band[place.tile + place.low_byte] << 16);
    }
    __syncthreads();
    for (uint32_t tile = threadIdx.x; tile < pack12_tile_count(columns); tile += blockDim.x) {
        const uint32_t *head = (const uint32_t *)(band + (size_t)tile * PACK12_TILE_BYTES);
        const uint32_t *patches = head[0] > PACK12_PATCHES ? matrix.d_patches + head[1] : head + 1;
        for (uint32_t i = 0; i < head[0]; i++) {
            if (pack12_patch_row(patches[i]) != in_band) continue;
            float *to = out + tile * PACK12_COLUMNS + pack12_patch_column(patches[i]);
            *to = __uint_as_float((__float_as_uint(*to) & 0x00FF0000) | patches[i] << 24);
        }
    }
}

static __device__ __forceinline__ void find_angle(float position, float frequency, float factor, float *cosine, float *sine)
{
    const float angle = position * frequency;
    *cosine = cosf(angle) * factor;
    *sine = sinf(angle) * factor;
}

/* One block. */
static __global__ void start_token(const __grid_constant__ struct start_args args)
{
    extern __shared__ __align__(128) uint8_t memory[];
    const struct token_input *input = (const struct token_input *)memory;
    wait_for_previous_grid();
    let_next_grid_start();
    /* read once, as the host's memory is far: by all threads it took 60 us */
    if (threadIdx.x < 2) ((uint32_t *)memory)[threadIdx.x] = ((const volatile uint32_t *)args.input)[threadIdx.x];
    __syncthreads();
    const uint32_t id = input->id, position = input->position;
    for (uint32_t i = threadIdx.x; i < args.head_dim / 2; i += blockDim.x) {
        find_angle((float)position, args.frequencies[i], args.attention_factor, &args.cosines[i], &args.sines[i]);
    }
    if (threadIdx.x == 0) *args.position = position;
    embed_row(args.embedding, id, args.hidden);
}

struct attention_args {
    const float *query; /* products of the token, as the following: [head][head_dim], not rotated */
    const float *key;   /* of each key-value head */
    const float *value;
    const float *cosines; /* of the position, head_dim / 2 */
    const float *sines;
    __nv_bfloat16 *keys; /* of the layer: [kv head][position][head_stride]; zeros between head_dim and head_stride */
    __nv_bfloat16 *values;
    float *span_values;  /* [span][head][head_dim] */
    float2 *span_scales; /* [span][head]: maximum and sum */
    const uint32_t *position;
    uint32_t value_stride; /* from span to span */
    uint32_t head_count;
    uint32_t group;       /* query heads of a key-value head */
    uint32_t chunk_count; /* of them */
    uint32_t head_dim;
    uint32_t head_stride;
    uint32_t context_size;
    uint32_t window; /* 0: none */
    float scale;
    uint32_t trace;
};

/* Shared memory of a block, in this order: queries as two terms, the token's own key and value as the cache has them; values that
 * warps leave take the same place afterwards; then what warps leave of maxima and sums. Rows of queries keep off each other's
 * banks. */
static __host__ __device__ __forceinline__ uint32_t query_row_bytes(uint32_t steps)
{
    return (steps | 1) * (PACK12_STEP * 2);
}

static __host__ __device__ __forceinline__ uint32_t scales_offset(uint32_t steps)
{
    const uint32_t input = 2 * ATTENTION_HEADS * query_row_bytes(steps) + 2 * steps * PACK12_STEP * 2;
    const uint32_t output = ATTENTION_WARPS * ATTENTION_HEADS * ((steps + 1) / 2 * 64) * (uint32_t)sizeof(float);
    return input > output ? input : output;
}

static __host__ __device__ __forceinline__ uint32_t attention_bytes(uint32_t steps)
{
    return scales_offset(steps) + 2 * ATTENTION_HEADS * ATTENTION_WARPS * (uint32_t)sizeof(float);
}

/* Two dimensions of a head that are rotated by the position (Su et al. 2021, "RoFormer"): i and head_dim / 2 + i turn together.
 */
struct head_pair {
    float low, high, cosine, sine;
};

static __device__ __forceinline__ struct head_pair load_pair(const struct attention_args &args, const float *head, uint32_t i)
{
    return {__ldcg(head + i), __ldcg(head + i + args.head_dim / 2), __ldcg(args.cosines + i), __ldcg(args.sines + i)};
}

static __device__ __forceinline__ float2 rotate(const struct head_pair &pair)
{
    return make_float2(pair.low * pair.cosine - pair.high * pair.sine, pair.high * pair.cosine + pair.low * pair.sine);
}

static __device__ __forceinline__ void store_terms(uint8_t *row, uint32_t second_term, uint32_t dim, float value)
{
    const __nv_bfloat16 first = __float2bfloat16_rn(value);
    ((__nv_bfloat16 *)row)[dim] = first;
    ((__nv_bfloat16 *)(row + second_term))[dim] = __float2bfloat16_rn(value - __bfloat162float(first));
}

/* The query heads of a block. */
struct query_heads {
    uint32_t first;
    uint32_t count;
    uint32_t row_bytes; /* of one in shared memory */
};

/* The i-th pair of the queries, if there are so many. */
static __device__ __forceinline__ struct head_pair load_query(const struct attention_args &args, const struct query_heads &heads,
                                                              uint32_t i)
{
    const uint32_t half = args.head_dim / 2;
    if (i >= heads.count * half) return {};
    return load_pair(args, args.query + (size_t)(heads.first + i / half) * args.head_dim, i % half);
}

/* Rotated and scaled, as terms. */
static __device__ __forceinline__ void stage_query(const struct attention_args &args, const struct query_heads &heads, uint32_t i,
                                                   const struct head_pair &pair, uint8_t *queries)
{
    const uint32_t half = args.head_dim / 2;
    if (i >= heads.count * half) return;
    const float2 turned = rotate(pair);
    uint8_t *row = queries + i / half * heads.row_bytes;
    store_terms(row, ATTENTION_HEADS * heads.row_bytes, i % half, turned.x * args.scale);
    store_terms(row, ATTENTION_HEADS * heads.row_bytes, i % half + half, turned.y * args.scale);
}

/* Key and value of the token itself, in shared memory and from element `at` of the cache on. */
struct own_row {
    uint32_t kv_head;
    bool exists; /* in this block's span */
    bool saves;  /* this block puts it into the cache */
    size_t at;
    __nv_bfloat16 *key;
    __nv_bfloat16 *value;
};

/* Stages pair i, whose key is given; zeros behind the dimensions of the head are there already. */
static __device__ __forceinline__ void stage_own(const struct attention_args &args, const struct own_row &own, uint32_t i,
                                                 const struct head_pair &pair, const float2 &value)
{
    const uint32_t half = args.head_dim / 2;
    const float2 turned = rotate(pair);
    own.key[i] = __float2bfloat16_rn(turned.x);
    own.key[i + half] = __float2bfloat16_rn(turned.y);
    own.value[i] = __float2bfloat16_rn(value.x);
    own.value[i + half] = __float2bfloat16_rn(value.y);
    if (!own.saves) return;
    args.keys[own.at + i] = own.key[i];
    args.keys[own.at + i + half] = own.key[i + half];
    args.values[own.at + i] = own.value[i];
    args.values[own.at + i + half] = own.value[i + half];
}

/* What the grid before has left is staged, after one wait for memory where a thread has one pair of each. */
static __device__ __forceinline__ void stage_inputs(const struct attention_args &args, const struct query_heads &heads,
                                                    const struct own_row &own, uint8_t *queries)
{
    const uint32_t half = args.head_dim / 2;
    const float *key = args.key + (size_t)own.kv_head * args.head_dim, *value = args.value + (size_t)own.kv_head * args.head_dim;
    struct head_pair query = load_query(args, heads, threadIdx.x);
    for (uint32_t i = threadIdx.x; own.exists && i < half; i += blockDim.x) {
        stage_own(args, own, i, load_pair(args, key, i), make_float2(__ldcg(value + i), __ldcg(value + i + half)));
    }
    stage_query(args, heads, threadIdx.x, query, queries);
    for (uint32_t i = threadIdx.x + blockDim.x; i < heads.count * half; i += blockDim.x) {
        stage_query(args, heads, i, load_query(args, heads, i), queries);
    }
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

/* What a warp has seen: of heads 2 t and 2 t + 1 maximum, and this lane's part of the sum; of head g, dimensions 64 u + 16 t + 8
 * c + j in values[u][j][c], and what the second terms came to in c + 2. */
template <int STEPS>
struct attention_state {
    float highest[2], sum[2];
    float values[(STEPS + 1) / 2][8][4];
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
    const uint4 a = make_uint4(low[0], low[1], high[0], high[1]);
#pragma unroll
    for (uint32_t u = 0; u < tile.BLOCKS; u++) {
#pragma unroll
        for (uint32_t j = 0; j < 8; j++) {
            const uint32_t selectors = j % 2 ? 0x7632 : 0x5410;
            multiply_add(state.values[u][j], a,
                         __byte_perm(half_word(tile.values[u][0], j), half_word(tile.values[u][1], j), selectors),
                         __byte_perm(half_word(tile.values[u][2], j), half_word(tile.values[u][3], j), selectors));
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
    const float factor = of_head(kept, g / 2, g);
#pragma unroll
    for (uint32_t i = 0; i < (STEPS + 1) / 2 * 32; i++) state.values[i / 32][i / 4 % 8][i % 4] *= factor;
    multiply_values<STEPS>(tile, weights, state);
}

/* Leaves maximum and sum of a warp's heads, [head][warp], in memory of their own: other warps still read the queries. */
template <int STEPS>
static __device__ __forceinline__ void leave_scales(const struct attention_state<STEPS> &state, float *highest, float *sums)
{
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        float sum = state.sum[h];
        for (int offset = 4; offset < WARP; offset *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
        if (lane >= 4) continue;
        highest[(lane * 2 + h) * ATTENTION_WARPS + warp] = state.highest[h];
        sums[(lane * 2 + h) * ATTENTION_WARPS + warp] = sum;
    }
}

/* What the warps saw of a head at most. */
static __device__ __forceinline__ float highest_of(const float *highest, uint32_t head)
{
    float most = -INFINITY;
#pragma unroll
    for (uint32_t w = 0; w < ATTENTION_WARPS; w += 4) {
        const float4 four = *(const float4 *)(highest + head * ATTENTION_WARPS + w);
        most = fmaxf(most, fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w)));
    }
    return most;
}

/* Leaves a warp's values, as its heads' maxima over all warps want them, for merge_warps: [warp][head][dimension]. */
template <int STEPS>
static __device__ __forceinline__ void leave_values(const struct attention_state<STEPS> &state, const float *highest,
                                                    float *shared)
{
    constexpr uint32_t DIMS = (STEPS + 1) / 2 * 64;
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const float own = highest[g * ATTENTION_WARPS + warp], factor = own == -INFINITY ? 0 : expf(own - highest_of(highest, g));
    float *values = shared + (warp * ATTENTION_HEADS + g) * DIMS + t * 16;
#pragma unroll
    for (uint32_t i = 0; i < DIMS / 16; i++) { /* four dimensions each */
        const uint32_t u = i / 4, c = i / 2 % 2, j = i % 2 * 4;
        const auto &from = state.values[u];
        *(float4 *)(values + u * 64 + c * 8 + j) =
            make_float4((from[j][c] + from[j][c + 2]) * factor, (from[j + 1][c] + from[j + 1][c + 2]) * factor,
                        (from[j + 2][c] + from[j + 2][c + 2]) * factor, (from[j + 3][c] + from[j + 3][c + 2]) * factor);
    }
}

/* Adds up what the warps left, and gives the span's part of the result away. */
template <int STEPS>
static __device__ __forceinline__ void merge_warps(const struct attention_args &args, uint32_t first_head, uint32_t head_count,
                                                   const float *highest, const float *sums, const float *shared)
{
    constexpr uint32_t DIMS = (STEPS + 1) / 2 * 64, FOURS = DIMS / 4;
    float *to = args.span_values + (size_t)blockIdx.y * args.value_stride + first_head * args.head_dim;
    for (uint32_t i = threadIdx.x; i < head_count * FOURS; i += blockDim.x) {
        const uint32_t h = i / FOURS, dim = i % FOURS * 4;
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
        for (uint32_t w = 0; w < ATTENTION_WARPS; w++) {
            const float4 value = *(const float4 *)(shared + (w * ATTENTION_HEADS + h) * DIMS + dim);
            sum = make_float4(sum.x + value.x, sum.y + value.y, sum.z + value.z, sum.w + value.w);
        }
        if (args.head_dim % 4 == 0) {
            if (dim < args.head_dim) *(float4 *)(to + h * args.head_dim + dim) = sum;
        } else {
            const float four[4] = {sum.x, sum.y, sum.z, sum.w};
            for (uint32_t k = 0; k < 4 && dim + k < args.head_dim; k++) to[h * args.head_dim + dim + k] = four[k];
        }
    }
    if (threadIdx.x >= blockDim.x - head_count) {
        const uint32_t h = threadIdx.x - (blockDim.x - head_count);
        const float most = highest_of(highest, h);
        float sum = 0;
#pragma unroll
        for (uint32_t w = 0; w < ATTENTION_WARPS; w++) {
            const float own = highest[h * ATTENTION_WARPS + w];
            sum = __fmaf_rn(sums[h * ATTENTION_WARPS + w], own == -INFINITY ? 0 : expf(own - most), sum);
        }
        args.span_scales[blockIdx.y * args.head_count + first_head + h] = make_float2(most, sum);
    }
}

/* Grid: key-value heads times chunks of their query heads, by spans. */
template <int STEPS>
static __global__ __launch_bounds__(ATTENTION_WARPS *WARP, 1) void attend(const __grid_constant__ struct attention_args args)
{
    extern __shared__ __align__(128) uint8_t memory[];
    const uint32_t tb = blockIdx.x + blockIdx.y * gridDim.x;
    mark(args.trace, tb, 0);
    float *highest = (float *)(memory + scales_offset(STEPS)), *sums = highest + ATTENTION_HEADS * ATTENTION_WARPS;
    const struct span_cut cut = cut_spans(__ldcg(args.position), args.window); /* of a grid before the previous one */
    const uint32_t kv_head = blockIdx.x / args.chunk_count, chunk = blockIdx.x % args.chunk_count, own = cut.end - 1;
    const uint32_t head_count = min(args.group - chunk * ATTENTION_HEADS, (uint32_t)ATTENTION_HEADS);
    const uint32_t first_head = kv_head * args.group + chunk * ATTENTION_HEADS;
    const uint32_t first = cut.begin + blockIdx.y * cut.size, stop = min(first + cut.size, cut.end), stride = args.head_stride;
    const size_t cache = (size_t)kv_head * args.context_size * stride;
    const __nv_bfloat16 *keys = args.keys + cache, *values = args.values + cache;
    uint32_t position = first + threadIdx.x / WARP * ATTENTION_POSITIONS;
    struct cache_tile<STEPS> tile;
    let_next_grid_start(); /* what that reads before its own wait was there before this grid */
    if (blockIdx.y >= cut.count) return;
    load_tile<STEPS>(keys, values, stride, position, min(stop, own), tile);
    /* zeros where there are no queries */
    for (uint32_t i = threadIdx.x; i < attention_bytes(STEPS) / 16; i += blockDim.x)
        ((uint4 *)memory)[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
    mark(args.trace, tb, 1);
    wait_for_previous_grid();
    mark(args.trace, tb, 2);
    __nv_bfloat16 *own_key = (__nv_bfloat16 *)(memory + 2 * ATTENTION_HEADS * query_row_bytes(STEPS));
    __nv_bfloat16 *own_value = own_key + STEPS * PACK12_STEP;
    stage_inputs(args, {first_head, head_count, query_row_bytes(STEPS)},
                 {kv_head, stop == cut.end, chunk == 0, cache + (size_t)own * stride, own_key, own_value}, memory);
    __syncthreads();
    mark(args.trace, tb, 3);
    struct attention_state<STEPS> state = {
    };
    state.highest[0] = state.highest[1] = -INFINITY;
    while (position < stop) {
        if (own - position < ATTENTION_POSITIONS) insert_own<STEPS>(own_key, own_value, own - position, tile);
        see_tile<STEPS>(tile, memory, stop - position, state);
        position += ATTENTION_WARPS * ATTENTION_POSITIONS;
        if (position < stop) load_tile<STEPS>(keys, values, stride, position, min(stop, own), tile);
    }
    mark(args.trace, tb, 4);
    leave_scales<STEPS>(state, highest, sums);
    __syncthreads();
    leave_values<STEPS>(state, highest, (float *)memory);
    __syncthreads();
    mark(args.trace, tb, 5);
    merge_warps<STEPS>(args, first_head, head_count, highest, sums, (const float *)memory);
    mark(args.trace, tb, 6);
}

#endif

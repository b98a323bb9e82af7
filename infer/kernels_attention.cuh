/* kernels_attention.cuh - the start of a token, and its attention.
 *
 * Attention of one query against the cache (Dao et al. 2023, "Flash-Decoding"): the visible positions are cut into spans, a block
 * takes the query heads of one key-value head (eight at most) over one span, its warps every eighth position, each keeping
 * maximum, sum and weighted values; warps are merged in order, spans are merged in order by the block that ends last. Which block
 * that is changes nothing in the result. How positions are cut depends on their number alone.
 */
#ifndef CLLM_KERNELS_ATTENTION_CUH
#define CLLM_KERNELS_ATTENTION_CUH

#include "kernels_product.cuh"

#include <cuda_bf16.h>

#define ATTENTION_WARPS 8
#define SPAN_MIN 64       /* positions */
#define SPAN_MAX 64       /* of a query */
#define ATTENTION_HEADS 8 /* query heads of a block, at most */

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
    const uint8_t *from = (const uint8_t *)matrix.d_elements + row * pack12_row_bytes(columns);
    for (uint32_t i = threadIdx.x; i < columns; i += blockDim.x) {
        const struct pack12_place place = pack12_place_unit(columns, i / PACK12_UNIT);
        const uint32_t codes = *(const uint32_t *)(from + place.code_offset);
        const uint32_t upper = pack12_upper(matrix.window, codes, i % PACK12_UNIT);
        out[i] = __uint_as_float(upper << 24 | (uint32_t)from[place.low_offset + i % PACK12_UNIT] << 16);
    }
    __syncthreads();
    const uint32_t end = matrix.d_patch_starts[row + 1];
    for (uint32_t i = matrix.d_patch_starts[row] + threadIdx.x; i < end; i += blockDim.x) {
        const uint32_t word = matrix.d_patches[i];
        out[word >> 8] = __uint_as_float((__float_as_uint(out[word >> 8]) & 0x00FF0000) | word << 24);
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
    wait_for_previous_grid();
    const uint32_t id = args.input->id, position = args.input->position;
    let_next_grid_start();
    for (uint32_t i = threadIdx.x; i < args.head_dim / 2; i += blockDim.x) {
        find_angle((float)position, args.frequencies[i], args.attention_factor, &args.cosines[i], &args.sines[i]);
    }
    if (threadIdx.x == 0) *args.position = position;
    embed_row(args.embedding, id, args.hidden);
}

struct attention_args {
    const float *query;
    const __nv_bfloat16 *keys; /* of the layer: [kv head][position][head_stride]; zeros between head_dim and head_stride */
    const __nv_bfloat16 *values;
    float *output;          /* [head][head_dim] */
    float *partial_values;  /* [head][span][head_dim] */
    float2 *partial_scales; /* [head][span]: maximum and sum */
    uint32_t *arrivals;     /* one for each key-value head and chunk of its query heads; 0 between launches */
    const uint32_t *position;
    uint32_t group;       /* query heads of a key-value head */
    uint32_t chunk_count; /* of them */
    uint32_t head_dim;
    uint32_t head_stride;
    uint32_t context_size;
    uint32_t window; /* 0: none */
    float scale;
};

/* DIMS dimensions, those that a lane has, as float32. */
template <int DIMS>
static __device__ __forceinline__ void load_dims(const __nv_bfloat16 *row, uint32_t first, uint32_t head_stride, float out[DIMS])
{
    union {
        uint16_t halves[DIMS];
        uint32_t words[(DIMS + 1) / 2];
        uint4 eight;
        uint2 four;
    } bits;
    for (int i = 0; i < DIMS; i++) out[i] = 0;
    if (first >= head_stride) return;
    if (DIMS == 1) bits.halves[0] = *(const uint16_t *)(row + first);
    if (DIMS == 2) bits.words[0] = *(const uint32_t *)(row + first);
    if (DIMS == 4) bits.four = *(const uint2 *)(row + first);
    if (DIMS == 8) bits.eight = *(const uint4 *)(row + first);
    for (int i = 0; i < DIMS; i++) out[i] = __uint_as_float((uint32_t)bits.halves[i] << 16);
}

/* What one warp has of each head of its block. */
template <int HEADS, int DIMS>
struct attention_state {
    float highest[HEADS], sum[HEADS], values[HEADS][DIMS];
};

/* What attention has seen in two parts, put together; a sum of 0 is nothing. */
static __device__ __forceinline__ float2 merge_scales(float2 a, float2 b, float *factor_a, float *factor_b)
{
    const float highest = fmaxf(a.x, b.x);
    *factor_a = a.y > 0 ? expf(a.x - highest) : 0;
    *factor_b = b.y > 0 ? expf(b.x - highest) : 0;
    return make_float2(highest, a.y * *factor_a + b.y * *factor_b);
}

template <int HEADS, int DIMS>
static __device__ __forceinline__ void see_position(const float query[HEADS][DIMS], const float key[DIMS],
                                                    const float value[DIMS], struct attention_state<HEADS, DIMS> &state)
{
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float score = 0;
#pragma unroll
        for (int i = 0; i < DIMS; i++) score = __fmaf_rn(query[h][i], key[i], score);
        for (int offset = WARP / 2; offset; offset /= 2) score += __shfl_xor_sync(ALL_LANES, score, offset);
        const float highest = fmaxf(state.highest[h], score);
        const float old = expf(state.highest[h] - highest), weight = expf(score - highest);
        state.highest[h] = highest;
        state.sum[h] = __fmaf_rn(state.sum[h], old, weight);
#pragma unroll
        for (int i = 0; i < DIMS; i++) state.values[h][i] = __fmaf_rn(state.values[h][i], old, weight * value[i]);
    }
}

/* The warps' states of one head, merged in order by the first warp, to where the spans are gathered. */
template <int HEADS, int DIMS>
static __device__ __forceinline__ void merge_warps(const struct attention_args &args, struct attention_state<HEADS, DIMS> &state,
                                                   uint32_t first_head, uint32_t head_count, uint32_t span, bool is_only,
                                                   float *shared)
{
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float *scales = shared + ATTENTION_WARPS * HEADS * DIMS * WARP;
    for (int h = 0; h < HEADS; h++) {
        for (int i = 0; i < DIMS; i++) shared[((warp * HEADS + h) * DIMS + i) * WARP + lane] = state.values[h][i];
        if (lane == 0) {
            scales[(warp * HEADS + h) * 2] = state.highest[h];
            scales[(warp * HEADS + h) * 2 + 1] = state.sum[h];
        }
    }
    __syncthreads();
    for (uint32_t h = warp; h < head_count; h += ATTENTION_WARPS) {
        float values[DIMS] = {0};
        float2 total = make_float2(-INFINITY, 0);
        for (int other = 0; other < ATTENTION_WARPS; other++) {
            float kept, added;
            const float *scale = scales + (other * HEADS + h) * 2;
            if (!(scale[1] > 0)) continue;
            total = merge_scales(total, make_float2(scale[0], scale[1]), &kept, &added);
            for (int i = 0; i < DIMS; i++) {
                values[i] = values[i] * kept + shared[((other * HEADS + h) * DIMS + i) * WARP + lane] * added;
            }
        }
        const size_t at = (size_t)(first_head + h) * gridDim.y + span;
        float *out = is_only ? args.output + (size_t)(first_head + h) * args.head_dim : args.partial_values + at * args.head_dim;
        const float factor = is_only ? 1 / total.y : 1;
        for (uint32_t i = 0; i < DIMS; i++) {
            if (lane * DIMS + i < args.head_dim) out[lane * DIMS + i] = values[i] * factor;
        }
        if (lane == 0 && !is_only) args.partial_scales[at] = total;
    }
}

/* By the last block of a group of heads; `factors` has room for one number for each head and span. */
static __device__ __forceinline__ void merge_spans(const struct attention_args &args, uint32_t first_head, uint32_t head_count,
                                                   uint32_t span_count, float *factors)
{
    for (uint32_t h = threadIdx.x / WARP; h < head_count; h += ATTENTION_WARPS) {
        const float2 *scales = args.partial_scales + (size_t)(first_head + h) * gridDim.y;
        float2 scale[2]; /* a lane has two spans */
        float highest = -INFINITY, sum = 0;
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t span = i * WARP + threadIdx.x % WARP;
            scale[i] = span < span_count ? __ldcg(&scales[span]) : make_float2(-INFINITY, 0);
            highest = fmaxf(highest, scale[i].x);
        }
        for (int offset = WARP / 2; offset; offset /= 2) highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, offset));
        for (uint32_t i = 0; i < 2; i++) {
            scale[i].x = scale[i].y > 0 ? expf(scale[i].x - highest) : 0;
            sum = __fmaf_rn(scale[i].y, scale[i].x, sum);
        }
        for (int offset = WARP / 2; offset; offset /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
        for (uint32_t i = 0; i < 2; i++) factors[h * SPAN_MAX + i * WARP + threadIdx.x % WARP] = scale[i].x / sum;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < head_count * args.head_dim; i += blockDim.x) {
        const uint32_t h = i / args.head_dim, dim = i % args.head_dim;
        const float *values = args.partial_values + (size_t)(first_head + h) * gridDim.y * args.head_dim + dim;
        float value = 0;
#pragma unroll 8
        for (uint32_t span = 0; span < span_count; span++) {
            value = __fmaf_rn(__ldcg(&values[(size_t)span * args.head_dim]), factors[h * SPAN_MAX + span], value);
        }
        args.output[(size_t)(first_head + h) * args.head_dim + dim] = value;
    }
}

/* Grid: key-value heads times chunks of their query heads, by spans. */
template <int HEADS, int DIMS>
static __global__ __launch_bounds__(ATTENTION_WARPS *WARP) void attend(const __grid_constant__ struct attention_args args)
{
    extern __shared__ float shared[];
    __shared__ bool is_last;
    const uint32_t end = __ldcg(args.position) + 1; /* of a grid before the previous one */
    wait_for_previous_grid();
    let_next_grid_start();
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const uint32_t kv_head = blockIdx.x / args.chunk_count, chunk = blockIdx.x % args.chunk_count;
    const uint32_t head_count = args.group - chunk * HEADS < HEADS ? args.group - chunk * HEADS : HEADS;
    const uint32_t first_head = kv_head * args.group + chunk * HEADS;
    const uint32_t begin = args.window && end > args.window ? end - args.window : 0;
    uint32_t span_size = (end - begin + gridDim.y - 1) / gridDim.y;
    span_size = span_size < SPAN_MIN ? SPAN_MIN : (span_size + ATTENTION_WARPS - 1) / ATTENTION_WARPS * ATTENTION_WARPS;
    const uint32_t span_count = (end - begin + span_size - 1) / span_size;
    if (blockIdx.y >= span_count) return;
    const uint32_t first = begin + blockIdx.y * span_size, stop = first + span_size < end ? first + span_size : end;

    float query[HEADS][DIMS];
    struct attention_state<HEADS, DIMS> state;
    for (int h = 0; h < HEADS; h++) {
        state.highest[h] = -INFINITY;
        state.sum[h] = 0;
        for (uint32_t i = 0; i < DIMS; i++) {
            const uint32_t dim = lane * DIMS + i;
            const bool exists = (uint32_t)h < head_count && dim < args.head_dim;
            query[h][i] = exists ? __ldcg(args.query + (size_t)(first_head + h) * args.head_dim + dim) * args.scale : 0;
            state.values[h][i] = 0;
        }
    }
    const size_t cache = (size_t)kv_head * args.context_size * args.head_stride;
#pragma unroll 4
    for (uint32_t p = first + warp; p < stop; p += ATTENTION_WARPS) {
        float key[DIMS], value[DIMS];
        load_dims<DIMS>(args.keys + cache + (size_t)p * args.head_stride, lane * DIMS, args.head_stride, key);
        load_dims<DIMS>(args.values + cache + (size_t)p * args.head_stride, lane * DIMS, args.head_stride, value);
        see_position<HEADS, DIMS>(query, key, value, state);
    }
    merge_warps<HEADS, DIMS>(args, state, first_head, head_count, blockIdx.y, span_count == 1, shared);
    if (span_count == 1) return;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(&args.arrivals[blockIdx.x], 1) + 1 == span_count;
        if (is_last) args.arrivals[blockIdx.x] = 0;
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    merge_spans(args, first_head, head_count, span_count, shared);
}

#endif

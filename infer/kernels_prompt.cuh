/* kernels_prompt.cuh - what lies between the matrix products of a prompt. All matrices are row-major, a row for each position. */
#ifndef CLLM_KERNELS_PROMPT_CUH
#define CLLM_KERNELS_PROMPT_CUH

#include "kernels_token.cuh"
#include "tensor_gpu.cuh"

#define PROMPT_THREADS 256

/* Inputs of products, in the type and order of the product; a block for each position. */
struct tensor_input {
    uint8_t *at;
    uint32_t stride;
};

static __device__ __forceinline__ void store(float *out, uint32_t column_count, uint32_t column, float value)
{
    out[(size_t)blockIdx.x * column_count + column] = value;
}

static __device__ __forceinline__ void store(__nv_bfloat16 *out, uint32_t column_count, uint32_t column, float value)
{
    out[(size_t)blockIdx.x * column_count + column] = __float2bfloat16_rn(value);
}

static __device__ __forceinline__ void store(struct tensor_input out, uint32_t, uint32_t column, float value)
{
    *(__nv_bfloat16 *)(out.at + tensor_input_offset(out.stride, blockIdx.x, column)) = __float2bfloat16_rn(value);
}

/* The sum, or the maximum, of a block, in all its threads, in an order that is always the same. */
template <bool MAXIMUM>
static __device__ __forceinline__ float reduce_block(float value)
{
    __shared__ float parts[PROMPT_THREADS / WARP];
    for (int offset = WARP / 2; offset; offset /= 2) {
        const float other = __shfl_xor_sync(ALL_LANES, value, offset);
        value = MAXIMUM ? fmaxf(value, other) : value + other;
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    value = parts[0];
    for (int i = 1; i < PROMPT_THREADS / WARP; i++) value = MAXIMUM ? fmaxf(value, parts[i]) : value + parts[i];
    return value;
}

struct embed_args {
    const uint32_t *ids;
    struct cllm_gpu_matrix embedding;
    const float *frequencies;
    float attention_factor;
    uint32_t head_dim;
    uint32_t first_position;
    float *hidden;
    float *cosines;
    float *sines;
};

static __global__ void embed_tile(const __grid_constant__ struct embed_args args)
{
    const uint32_t half = args.head_dim / 2;
    for (uint32_t i = threadIdx.x; i < half; i += blockDim.x) {
        const size_t at = (size_t)blockIdx.x * half + i;
        find_angle((float)(args.first_position + blockIdx.x), args.frequencies[i], args.attention_factor, &args.cosines[at],
                   &args.sines[at]);
    }
    read_row<PROMPT_THREADS>(args.embedding, args.ids[blockIdx.x], args.hidden + (size_t)blockIdx.x * args.embedding.shape.column_count);
}

template <class OUT>
static __global__ void normalize_tile(const float *hidden, const float *norm, uint32_t column_count, float epsilon, OUT out)
{
    const float *row = hidden + (size_t)blockIdx.x * column_count;
    float squares = 0;
    for (uint32_t i = threadIdx.x; i < column_count; i += PROMPT_THREADS) squares = __fmaf_rn(row[i], row[i], squares);
    const float scale = rsqrtf(reduce_block<false>(squares) / column_count + epsilon);
    for (uint32_t i = threadIdx.x; i < column_count; i += PROMPT_THREADS) {
        store(out, column_count, i, norm[i] * (row[i] * scale));
    }
}

struct rotate_args {
    const float *query, *key, *value; /* products */
    const float *query_bias, *key_bias, *value_bias;
    const float *cosines, *sines;
    __nv_bfloat16 *rotated; /* [head][position of the tile][head_stride] */
    __nv_bfloat16 *keys, *values;
    uint32_t head_count, kv_head_count, head_dim, head_stride;
    uint32_t context_size, first_position;
};

static __device__ __forceinline__ float2 load_pair(const float *row, const float *bias, uint32_t low, uint32_t half)
{
    float2 pair = make_float2(row[low], row[low + half]);
    if (bias) pair.x += bias[low], pair.y += bias[low + half];
    return pair;
}

static __device__ __forceinline__ void store_pair(__nv_bfloat16 *to, uint32_t half, float2 pair)
{
    to[0] = __float2bfloat16_rn(pair.x);
    to[half] = __float2bfloat16_rn(pair.y);
}

/* A block for each position. */
static __global__ void rotate_tile(const __grid_constant__ struct rotate_args args)
{
    const uint32_t half = args.head_dim / 2, p = blockIdx.x, position = args.first_position + p;
    const float *query = args.query + (size_t)p * args.head_count * args.head_dim;
    const size_t kv_row = (size_t)p * args.kv_head_count * args.head_dim;
    for (uint32_t i = threadIdx.x; i < args.head_count * half; i += blockDim.x) {
        const uint32_t head = i / half, pair = i % half;
        const float cosine = args.cosines[(size_t)p * half + pair], sine = args.sines[(size_t)p * half + pair];
        const float2 in = load_pair(query, args.query_bias, head * args.head_dim + pair, half);
        store_pair(args.rotated + ((size_t)head * gridDim.x + p) * args.head_stride + pair, half,
                   make_float2(in.x * cosine - in.y * sine, in.y * cosine + in.x * sine));
        if (head >= args.kv_head_count) continue;
        const size_t cache = ((size_t)head * args.context_size + position) * args.head_stride + pair;
        const float2 key = load_pair(args.key + kv_row, args.key_bias, head * args.head_dim + pair, half);
        store_pair(args.keys + cache, half, make_float2(key.x * cosine - key.y * sine, key.y * cosine + key.x * sine));
        store_pair(args.values + cache, half, load_pair(args.value + kv_row, args.value_bias, head * args.head_dim + pair, half));
    }
}

/* A block for each row of scores, [head][position of the tile][key_stride] from key `first_key` on. */
struct soften_args {
    const float *scores;
    __nv_bfloat16 *weights;
    float scale;
    uint32_t tile_count, key_stride, key_count, first_key, first_position, window;
};

static __global__ void soften_tile(const __grid_constant__ struct soften_args args)
{
    const float *scores = args.scores + (size_t)blockIdx.x * args.key_stride;
    __nv_bfloat16 *weights = args.weights + (size_t)blockIdx.x * args.key_stride;
    const uint32_t end = args.first_position + blockIdx.x % args.tile_count + 1 - args.first_key;
    const uint32_t visible = end + args.first_key;
    const uint32_t first = args.window && visible > args.window ? visible - args.window - args.first_key : 0;
    float highest = -INFINITY, sum = 0;
    for (uint32_t i = first + threadIdx.x; i < end; i += PROMPT_THREADS) highest = fmaxf(highest, scores[i]);
    highest = reduce_block<true>(highest);
    for (uint32_t i = first + threadIdx.x; i < end; i += PROMPT_THREADS) sum += expf((scores[i] - highest) * args.scale);
    const float share = 1 / reduce_block<false>(sum);
    for (uint32_t i = threadIdx.x; i < args.key_count; i += PROMPT_THREADS) {
        const bool is_seen = i >= first && i < end;
        weights[i] = __float2bfloat16_rn(is_seen ? expf((scores[i] - highest) * args.scale) * share : 0);
    }
}

/* [head][position][head_dim] to [position][head][head_dim]; a block for each position. */
template <class OUT>
static __global__ void gather_heads(const float *attended, uint32_t head_count, uint32_t head_dim, OUT out)
{
    for (uint32_t i = threadIdx.x; i < head_count * head_dim; i += blockDim.x) {
        const size_t from = ((size_t)(i / head_dim) * gridDim.x + blockIdx.x) * head_dim + i % head_dim;
        store(out, head_count * head_dim, i, attended[from]);
    }
}

template <class OUT>
static __global__ void activate_tile(const float *gate, const float *up, const float *gate_bias, const float *up_bias,
                                     uint32_t column_count, OUT out)
{
    const size_t row = (size_t)blockIdx.x * column_count;
    for (uint32_t i = threadIdx.x; i < column_count; i += blockDim.x) {
        const float x = gate[row + i] + (gate_bias ? gate_bias[i] : 0), y = up[row + i] + (up_bias ? up_bias[i] : 0);
        store(out, column_count, i, x / (1 + expf(-x)) * y);
    }
}

static __global__ void add_bias(const float *bias, uint32_t column_count, float *hidden)
{
    for (uint32_t i = threadIdx.x; i < column_count; i += blockDim.x) hidden[(size_t)blockIdx.x * column_count + i] += bias[i];
}

static __global__ void widen_f16(const __half *from, uint64_t count, float *to)
{
    const uint64_t stride = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) to[i] = __half2float(from[i]);
}

#endif

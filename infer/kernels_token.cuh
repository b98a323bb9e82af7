/* kernels_token.cuh - one token through the model, as one grid.
 *
 * A block for each multiprocessor goes through all stages. What one stage leaves the next one takes as soon as it is written
 * (publish and take of kernels_device.cuh): there is no other barrier between blocks, and weights of later stages are on their
 * way meanwhile. All blocks must be resident at once.
 */
#ifndef CLLM_KERNELS_TOKEN_CUH
#define CLLM_KERNELS_TOKEN_CUH

#include "kernels_attention.cuh"

/* One element of a raw matrix. */
static __device__ __forceinline__ float raw_element(const struct cllm_gpu_matrix &matrix, uint64_t i)
{
    if (matrix.form == CLLM_GPU_F32) return ((const float *)matrix.d_elements)[i];
    const uint16_t half = ((const uint16_t *)matrix.d_elements)[i];
    return matrix.form == CLLM_GPU_F16 ? __half2float(__ushort_as_half(half)) : __uint_as_float((uint32_t)half << 16);
}

/* One row of a matrix as float32, by the first THREADS threads of a block. */
template <int THREADS>
static __device__ __forceinline__ void read_row(const struct cllm_gpu_matrix &matrix, uint32_t row, float *out)
{
    const uint32_t columns = matrix.shape.column_count;
    if (matrix.form != CLLM_GPU_PACKED12) {
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < columns; i += THREADS) out[i] = raw_element(matrix, (uint64_t)row * columns + i);
        sync_threads<THREADS>();
        return;
    }
    const uint8_t *band = (const uint8_t *)matrix.d_elements + row / PACK12_ROWS * pack12_band_bytes(columns);
    const uint32_t in_band = row % PACK12_ROWS;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < columns; i += THREADS) {
        const struct pack12_place place = pack12_find_place(columns, in_band, i);
        const uint32_t codes = *(const uint32_t *)(band + place.tile + place.code_word);
        const uint32_t upper = pack12_upper(matrix.window, codes, i % PACK12_UNIT);
        out[i] = __uint_as_float(upper << 24 | (uint32_t)band[place.tile + place.low_byte] << 16);
    }
    sync_threads<THREADS>();
#pragma unroll 1
    for (uint32_t tile = threadIdx.x; tile < pack12_tile_count(columns); tile += THREADS) {
        const uint32_t *head = (const uint32_t *)(band + (size_t)tile * PACK12_TILE_BYTES);
        const uint32_t *patches = head[0] > PACK12_PATCHES ? matrix.d_patches + head[1] : head + 1;
#pragma unroll 1
        for (uint32_t i = 0; i < head[0]; i++) {
            if (pack12_patch_row(patches[i]) != in_band) continue;
            float *to = out + tile * PACK12_COLUMNS + pack12_patch_column(patches[i]);
            *to = __uint_as_float((__float_as_uint(*to) & 0x00FF0000) | patches[i] << 24);
        }
    }
    sync_threads<THREADS>();
}

static __device__ __forceinline__ void find_angle(float position, float frequency, float factor, float *cosine, float *sine)
{
    const float angle = position * frequency;
    *cosine = cosf(angle) * factor;
    *sine = sinf(angle) * factor;
}

/* The token's row of the embedding is the first vector; by one block. */
static __device__ __forceinline__ void embed(const struct token_work &work)
{
    float *row = (float *)work.input(), *to = work.find(work.args.vectors.first);
    read_row<TOKEN_THREADS>(work.args.embedding, work.args.id, row);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < work.args.embedding.shape.column_count; i += TOKEN_THREADS) publish(to + i, row[i]);
    sync_workers();
}

/* What the token before the previous one left in the set that this turn does not use. */
static __device__ __forceinline__ void clear_vectors(const struct token_args &args)
{
    const struct token_vectors &vectors = args.vectors;
    const float unwritten = __uint_as_float(UNWRITTEN);
    float4 *set = (float4 *)(vectors.first + (args.turn ? 0 : vectors.turn_floats));
    const float4 four = make_float4(unwritten, unwritten, unwritten, unwritten);
    const uint32_t first = blockIdx.x * TOKEN_THREADS + threadIdx.x, stride = gridDim.x * TOKEN_THREADS;
#pragma unroll 1
    for (uint32_t i = first; i < vectors.plain_floats / 4; i += stride) set[i] = four;
    const uint32_t of_layer = cut_spans(args.stale_position, args.attention.window).count * (args.attention.span_floats / 4);
#pragma unroll 1
    for (uint32_t i = first; i < of_layer * vectors.layer_count; i += stride) {
        const uint32_t layer = i / of_layer;
        set[vectors.plain_floats / 4 + layer * vectors.span_count * (args.attention.span_floats / 4) + i % of_layer] = four;
    }
}

/* STEPS: of 32 dimensions, that a head has at most. */
template <int STEPS>
static __global__ __launch_bounds__(TOKEN_THREADS + WARP, 1) void run_token(const __grid_constant__ struct token_args args)
{
    const uint32_t half = args.attention.head_dim / 2;
    struct token_work work(args);
    work.open();
    __syncthreads();
    if (work.warp() == TOKEN_WARPS) return work.describe_tiles();
    if (work.warp() < args.memory.tile_warps) work.ask_for_tiles();
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < half; i += TOKEN_THREADS) {
        find_angle((float)args.position, args.frequencies[i], args.attention_factor, &work.cosines()[i], &work.cosines()[half + i]);
    }
    if (args.is_start) clear_vectors(args);
    if (args.has_token && blockIdx.x == 0) embed(work);
    sync_workers();
#pragma unroll 1
    for (uint32_t i = args.begin; i < args.end; i++) {
        work.wait_for_stage(i);
        const struct token_stage &stage = work.get_stage(i);
        if (stage.step == STEP_ATTEND) {
            stamp(i, 0);
            run_attention<STEPS>(work, stage);
            stamp(i, 4);
        } else {
            work.run_product(stage, i);
        }
        sync_workers();
        if (threadIdx.x == 0) *work.done() = i + 1;
    }
}

/* Stages on their way to where launches read them, as many as the parameters of a launch have room for. */
#define STORE_COUNT 4
struct store_args {
    struct token_stage *to;
    uint32_t count;
    struct token_stage stages[STORE_COUNT];
};

static __global__ void store_stages(const __grid_constant__ struct store_args args)
{
    const uint32_t *from = (const uint32_t *)args.stages;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < args.count * sizeof(struct token_stage) / 4; i += blockDim.x) {
        ((uint32_t *)args.to)[i] = from[i];
    }
}

#endif

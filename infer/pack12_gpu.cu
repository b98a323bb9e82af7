/* pack12_gpu.cu - packing and unpacking on the device. A warp works on one tile at a time. */
#include "pack12.h"

#include "cuda_try.h"
#include "pack12_device.cuh"

#define WARP 32
#define SURVEY_WARPS 4
#define TILE_WARPS 8
#define ALL_LANES 0xFFFFFFFFu

/* ------------------------------------------------------------------------------------------------------------ survey */

static __device__ __forceinline__ void count_pair(uint32_t *bins, uint32_t pair)
{
    atomicAdd(&bins[(pair >> 8 & 0x7F) * WARP], 1);
    atomicAdd(&bins[(pair >> 24 & 0x7F) * WARP], 1);
}

/* Each lane counts in bins of its own: exponents are so alike that lanes would otherwise wait for each other. */
static __global__ __launch_bounds__(SURVEY_WARPS *WARP) void survey_values(const uint16_t *weights, uint64_t count,
                                                                           unsigned long long *histogram)
{
    extern __shared__ uint32_t all_bins[];
    uint32_t *bins = all_bins + threadIdx.x / WARP * (CLLM_PACK12_BINS * WARP) + threadIdx.x % WARP;
    for (unsigned bin = 0; bin < CLLM_PACK12_BINS; bin++) {
        bins[bin * WARP] = 0;
    }
    const uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (uint64_t)gridDim.x * blockDim.x;
    const uint4 *vectors = (const uint4 *)weights;
    for (uint64_t i = thread; i < count / 8; i += stride) {
        const uint4 eight = vectors[i];
        count_pair(bins, eight.x);
        count_pair(bins, eight.y);
        count_pair(bins, eight.z);
        count_pair(bins, eight.w);
    }
    for (uint64_t i = count / 8 * 8 + thread; i < count; i += stride) {
        atomicAdd(&bins[(weights[i] >> 8 & 0x7F) * WARP], 1);
    }
    __syncthreads();
    for (unsigned bin = threadIdx.x; bin < CLLM_PACK12_BINS; bin += blockDim.x) {
        uint32_t sum = 0;
        for (unsigned i = 0; i < SURVEY_WARPS * WARP; i++) {
            /* starting elsewhere in each thread, so that they read different banks */
            const unsigned lane = (i + threadIdx.x) % WARP;
            sum += all_bins[i / WARP * (CLLM_PACK12_BINS * WARP) + bin * WARP + lane];
        }
        if (sum) atomicAdd(&histogram[bin], (unsigned long long)sum);
    }
}

/* Multiprocessors of the current device; some number where that cannot be asked. */
static unsigned multiprocessor_count(void)
{
    int device = 0, count = 0;
    if (cudaGetDevice(&device) || cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device)) count = 64;
    return (unsigned)count;
}

enum cllm_status cllm_pack12_survey(const void *d_bf16, uint64_t element_count, uint64_t *d_histogram, void *stream,
                                    struct cllm_error *err)
{
    const size_t bytes = SURVEY_WARPS * WARP * CLLM_PACK12_BINS * sizeof(uint32_t);
    cudaStream_t queue = (cudaStream_t)stream;
    cudaError_t result = cudaFuncSetAttribute(survey_values, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (!result) result = cudaMemsetAsync(d_histogram, 0, CLLM_PACK12_BINS * sizeof *d_histogram, queue);
    if (result) return cuda_try(result, "prepare counting weights", err);
    survey_values<<<multiprocessor_count() * 3, SURVEY_WARPS * WARP, bytes, queue>>>((const uint16_t *)d_bf16, element_count,
                                                                                     (unsigned long long *)d_histogram);
    return cuda_try(cudaGetLastError(), "count weights", err);
}

/* ------------------------------------------------------------------------------------------------------------- tiles */

struct raw_matrix {
    const uint16_t *weights;
    uint32_t row_count;
    uint32_t column_count;
};

/* A tile, and what a lane has of it: in each step the same unit of rows `row` and row + 8. */
struct tile_place {
    uint32_t row;
    uint32_t column; /* of the first step */
    uint32_t step_count;
    uint64_t offset; /* in bytes */
};

static __device__ __forceinline__ struct tile_place find_tile(uint32_t column_count, uint32_t tile, uint32_t lane)
{
    const uint32_t of_band = pack12_tile_count(column_count), band = tile / of_band, in_band = tile % of_band;
    const uint32_t first = in_band * PACK12_COLUMNS;
    return {band * PACK12_ROWS + lane / PACK12_QUAD, first + lane % PACK12_QUAD * PACK12_UNIT, pack12_steps(column_count - first),
            band * pack12_band_bytes(column_count) + (uint64_t)in_band * PACK12_TILE_BYTES};
}

static uint32_t tile_count(struct cllm_gpu_shape shape)
{
    return pack12_band_count(shape.row_count) * pack12_tile_count(shape.column_count);
}

static unsigned tile_blocks(struct cllm_gpu_shape shape)
{
    const unsigned blocks = (tile_count(shape) + TILE_WARPS - 1) / TILE_WARPS, most = multiprocessor_count() * 16;
    return blocks < most ? blocks : most;
}

/* ------------------------------------------------------------------------------------------------------------- write */

/* The weights of a unit as pairs, zeros where there are none; bit i of the result: weight i exists. */
static __device__ __forceinline__ uint32_t load_unit(const struct raw_matrix &matrix, uint32_t row, uint32_t column,
                                                     uint32_t pairs[4])
{
    for (int i = 0; i < 4; i++) pairs[i] = 0;
    if (row >= matrix.row_count || column >= matrix.column_count) return 0;
    const uint16_t *from = matrix.weights + (uint64_t)row * matrix.column_count + column;
    if (matrix.column_count % PACK12_UNIT == 0) {
        const uint4 eight = *(const uint4 *)from;
        pairs[0] = eight.x, pairs[1] = eight.y, pairs[2] = eight.z, pairs[3] = eight.w;
        return 0xFF;
    }
    const uint32_t left = matrix.column_count - column, count = left < PACK12_UNIT ? left : PACK12_UNIT;
#pragma unroll
    for (uint32_t i = 0; i < PACK12_UNIT; i++) {
        if (i < count) pairs[i / 2] |= (uint32_t)from[i] << i % 2 * 16;
    }
    return (1u << count) - 1;
}

/* Codes of a unit; bit i of `found`: weight i is a patch. Its code, and that of a weight that does not exist, is 0. */
static __device__ __forceinline__ uint32_t encode_unit(uint64_t window, const uint32_t pairs[4], uint32_t existing,
                                                       uint32_t lows[2], uint32_t &found)
{
    uint32_t codes = 0;
    found = 0;
#pragma unroll
    for (unsigned i = 0; i < PACK12_UNIT; i++) {
        const uint32_t upper = pairs[i / 2] >> (i % 2 * 16 + 8) & 0xFF;
        const int index = pack12_find(window, upper);
        if (!(existing >> i & 1)) continue;
        if (index < 0) {
            found |= 1u << i;
        } else {
            codes |= (uint32_t)index << pack12_index_bit(i) | (upper >> 7) << pack12_sign_bit(i);
        }
    }
    lows[0] = __byte_perm(pairs[0], pairs[1], 0x6420);
    lows[1] = __byte_perm(pairs[2], pairs[3], 0x6420);
    return codes;
}

static __device__ __forceinline__ uint32_t warp_sum(uint32_t value)
{
    for (int offset = WARP / 2; offset; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

/* Sum of what the lanes before this one have. */
static __device__ __forceinline__ uint32_t sum_before(uint32_t value, uint32_t lane)
{
    uint32_t sum = value;
    for (int offset = 1; offset < WARP; offset *= 2) {
        const uint32_t other = __shfl_up_sync(ALL_LANES, sum, offset);
        if (lane >= (uint32_t)offset) sum += other;
    }
    return sum - value;
}

/* Writes a lane's part of a step; the result has a bit for each patch, the second row's from bit 8. */
static __device__ __forceinline__ uint32_t write_step(const struct raw_matrix &matrix, const struct tile_place &place,
                                                      uint64_t window, uint32_t step, uint32_t lane, uint8_t *tile,
                                                      uint32_t pairs[2][4])
{
    uint32_t lows[2][2], codes[2], found[2];
    for (uint32_t r = 0; r < 2; r++) {
        const uint32_t existing =
            load_unit(matrix, place.row + r * (PACK12_ROWS / 2), place.column + step * PACK12_STEP, pairs[r]);
        codes[r] = encode_unit(window, pairs[r], existing, lows[r], found[r]);
    }
    *(uint4 *)(tile + pack12_low_offset(step, lane)) = make_uint4(lows[0][0], lows[0][1], lows[1][0], lows[1][1]);
    *(uint2 *)(tile + pack12_code_offset(place.step_count, step, lane)) = make_uint2(codes[0], codes[1]);
    return found[0] | found[1] << 8;
}

static __device__ __forceinline__ void write_patches(uint32_t found, const uint32_t pairs[2][4], uint32_t first_column,
                                                     uint32_t lane, uint32_t *to)
{
#pragma unroll
    for (uint32_t i = 0; i < 2 * PACK12_UNIT; i++) {
        if (!(found >> i & 1)) continue;
        const uint32_t second = i / PACK12_UNIT, e = i % PACK12_UNIT;
        const uint32_t row = lane / PACK12_QUAD + second * (PACK12_ROWS / 2);
        *to++ = pack12_patch(row, first_column + e, pairs[second][e / 2] >> (e % 2 * 16 + 8) & 0xFF);
    }
}

/* list[0] counts the patches that the list has. */
static __global__ __launch_bounds__(TILE_WARPS *WARP) void write_tiles(struct raw_matrix matrix, uint64_t window, uint32_t count,
                                                                       uint8_t *tiles, uint32_t *list)
{
    const uint32_t lane = threadIdx.x % WARP;
    for (uint32_t i = blockIdx.x * TILE_WARPS + threadIdx.x / WARP; i < count; i += gridDim.x * TILE_WARPS) {
        const struct tile_place place = find_tile(matrix.column_count, i, lane);
        uint8_t *tile = tiles + place.offset;
        uint32_t *head = (uint32_t *)tile, pairs[2][4], patch_count = 0;
        for (uint32_t step = 0; step < place.step_count; step++) {
            patch_count += __popc(write_step(matrix, place, window, step, lane, tile, pairs));
        }
        patch_count = warp_sum(patch_count);
        uint32_t *to = head + 1;
        if (lane == 0) *(uint4 *)head = make_uint4(patch_count, 0, 0, 0);
        if (patch_count > PACK12_PATCHES) {
            uint32_t start = 0;
            if (lane == 0) start = head[1] = atomicAdd(list, patch_count);
            to = list + 1 + __shfl_sync(ALL_LANES, start, 0);
        }
        __syncwarp();
        for (uint32_t step = 0; patch_count && step < place.step_count; step++) {
            const uint32_t found = write_step(matrix, place, window, step, lane, tile, pairs);
            const uint32_t mine = __popc(found), before = sum_before(mine, lane);
            write_patches(found, pairs, place.column % PACK12_COLUMNS + step * PACK12_STEP, lane, to + before);
            to += warp_sum(mine);
        }
    }
}

enum cllm_status cllm_pack12_write(const void *d_bf16, struct cllm_gpu_shape shape, const struct cllm_pack12_choice *choice,
                                   void *d_memory, struct cllm_gpu_matrix *matrix_out, void *stream, struct cllm_error *err)
{
    if (choice->patch_count >= UINT32_MAX || !shape.row_count) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "a matrix of %u columns with %llu patches cannot be packed",
                         shape.column_count, (unsigned long long)choice->patch_count);
    }
    uint8_t *tiles = (uint8_t *)d_memory;
    uint32_t *list = (uint32_t *)(tiles + pack12_band_count(shape.row_count) * pack12_band_bytes(shape.column_count));
    const struct raw_matrix raw = {(const uint16_t *)d_bf16, shape.row_count, shape.column_count};
    cudaStream_t queue = (cudaStream_t)stream;
    enum cllm_status status = cuda_try(cudaMemsetAsync(list, 0, sizeof *list, queue), "clear the count of patches", err);
    if (status) return status;
    write_tiles<<<tile_blocks(shape), TILE_WARPS * WARP, 0, queue>>>(raw, choice->window, tile_count(shape), tiles, list);
    *matrix_out = cllm_gpu_matrix{CLLM_GPU_PACKED12, shape, tiles, choice->window, list + 1};
    return cuda_try(cudaGetLastError(), "pack weights", err);
}

/* ------------------------------------------------------------------------------------------------------------ unpack */

static __device__ __forceinline__ void store_unit(const struct raw_matrix &matrix, uint16_t *out, uint32_t row, uint32_t column,
                                                  const uint32_t pairs[4])
{
    if (row >= matrix.row_count || column >= matrix.column_count) return;
    out += (uint64_t)row * matrix.column_count + column;
    if (matrix.column_count % PACK12_UNIT == 0) {
        *(uint4 *)out = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < PACK12_UNIT; i++) {
        if (column + i < matrix.column_count) out[i] = (uint16_t)(pairs[i / 2] >> i % 2 * 16);
    }
}

static __device__ __forceinline__ void unpack_unit(uint64_t window, uint32_t low, uint32_t high, uint32_t codes,
                                                   uint32_t pairs[4])
{
    uint32_t uppers[2];
    unit_uppers(window, codes, uppers);
    pairs[0] = lower_pair(low, uppers[0]);
    pairs[1] = higher_pair(low, uppers[0]);
    pairs[2] = lower_pair(high, uppers[1]);
    pairs[3] = higher_pair(high, uppers[1]);
}

static __global__ __launch_bounds__(TILE_WARPS *WARP) void unpack_tiles(struct cllm_gpu_matrix packed, uint32_t count,
                                                                        uint16_t *out)
{
    const struct raw_matrix matrix = {out, packed.shape.row_count, packed.shape.column_count};
    const uint32_t lane = threadIdx.x % WARP;
    for (uint32_t i = blockIdx.x * TILE_WARPS + threadIdx.x / WARP; i < count; i += gridDim.x * TILE_WARPS) {
        const struct tile_place place = find_tile(matrix.column_count, i, lane);
        const uint8_t *tile = (const uint8_t *)packed.d_elements + place.offset;
        const uint32_t *head = (const uint32_t *)tile;
        const uint32_t patch_count = head[0];
#pragma unroll 4
        for (uint32_t step = 0; step < place.step_count; step++) {
            const uint4 lows = *(const uint4 *)(tile + pack12_low_offset(step, lane));
            const uint2 codes = *(const uint2 *)(tile + pack12_code_offset(place.step_count, step, lane));
            const uint32_t column = place.column + step * PACK12_STEP;
            uint32_t pairs[4];
            unpack_unit(packed.window, lows.x, lows.y, codes.x, pairs);
            store_unit(matrix, out, place.row, column, pairs);
            unpack_unit(packed.window, lows.z, lows.w, codes.y, pairs);
            store_unit(matrix, out, place.row + PACK12_ROWS / 2, column, pairs);
        }
        if (!patch_count) continue;
        __syncwarp();
        const uint32_t *patches = patch_count > PACK12_PATCHES ? packed.d_patches + head[1] : head + 1;
        const uint32_t row = place.row - lane / PACK12_QUAD, column = place.column - lane % PACK12_QUAD * PACK12_UNIT;
        for (uint32_t k = lane; k < patch_count; k += WARP) {
            uint16_t *to = out + (uint64_t)(row + pack12_patch_row(patches[k])) * matrix.column_count + column +
                           pack12_patch_column(patches[k]);
            *to = (uint16_t)((*to & 0xFF) | (patches[k] & 0xFF) << 8);
        }
    }
}

enum cllm_status cllm_pack12_unpack(const struct cllm_gpu_matrix *matrix, void *d_bf16, void *stream, struct cllm_error *err)
{
    unpack_tiles<<<tile_blocks(matrix->shape), TILE_WARPS * WARP, 0, (cudaStream_t)stream>>>(*matrix, tile_count(matrix->shape),
                                                                                             (uint16_t *)d_bf16);
    return cuda_try(cudaGetLastError(), "unpack weights", err);
}

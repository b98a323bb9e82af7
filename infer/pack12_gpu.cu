/* pack12_gpu.cu - packing and unpacking on the device. A warp works on one row at a time. */
#include "pack12.h"

#include "cuda_try.h"
#include "pack12_device.cuh"

#define WARP 32
#define SURVEY_WARPS 4
#define ROW_WARPS 8
#define SCAN_THREADS 1024
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

/* ------------------------------------------------------------------------------------------------------------- write */

struct raw_matrix {
    const uint16_t *weights;
    uint32_t row_count;
    uint32_t column_count;
};

/* The weights of a unit; zeros beyond the last column. */
static __device__ __forceinline__ void load_unit(const struct raw_matrix &matrix, uint32_t row, uint32_t unit,
                                                 uint16_t weights[PACK12_UNIT])
{
    const uint32_t first = unit * PACK12_UNIT;
    const uint16_t *from = matrix.weights + (uint64_t)row * matrix.column_count + first;
    if (matrix.column_count % PACK12_UNIT == 0 && first < matrix.column_count) {
        const uint4 eight = *(const uint4 *)from;
        const uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
        for (int i = 0; i < PACK12_UNIT; i++) weights[i] = (uint16_t)(pairs[i / 2] >> i % 2 * 16);
        return;
    }
    for (uint32_t i = 0; i < PACK12_UNIT; i++) {
        weights[i] = first + i < matrix.column_count ? from[i] : 0;
    }
}

static __host__ __device__ __forceinline__ uint32_t unit_count(uint32_t column_count)
{
    return (column_count + PACK12_ALIGN - 1) / PACK12_ALIGN * (PACK12_ALIGN / PACK12_UNIT);
}

/* Elements of a unit that are patches, a bit each. */
static __device__ __forceinline__ uint32_t find_patches(const uint16_t weights[PACK12_UNIT], uint32_t left, uint64_t window)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < PACK12_UNIT; i++) {
        if (i < left && pack12_find(window, weights[i] >> 8) < 0) found |= 1u << i;
    }
    return found;
}

static __device__ __forceinline__ uint32_t columns_left(const struct raw_matrix &matrix, uint32_t unit)
{
    return unit * PACK12_UNIT < matrix.column_count ? matrix.column_count - unit * PACK12_UNIT : 0;
}

static __device__ __forceinline__ uint32_t warp_sum(uint32_t value)
{
    for (int offset = WARP / 2; offset; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

/* counts[row + 1] = patches of the row */
static __global__ __launch_bounds__(ROW_WARPS *WARP) void count_patches(struct raw_matrix matrix, uint64_t window,
                                                                        uint32_t *counts)
{
    const uint32_t lane = threadIdx.x % WARP, units = unit_count(matrix.column_count);
    for (uint32_t row = blockIdx.x * ROW_WARPS + threadIdx.x / WARP; row < matrix.row_count; row += gridDim.x * ROW_WARPS) {
        uint32_t count = 0;
        for (uint32_t unit = lane; unit < units; unit += WARP) {
            uint16_t weights[PACK12_UNIT];
            load_unit(matrix, row, unit, weights);
            count += __popc(find_patches(weights, columns_left(matrix, unit), window));
        }
        count = warp_sum(count);
        if (lane == 0) counts[row + 1] = count;
    }
}

/* Turns counts[1..count] into their running sums; one block. */
static __global__ __launch_bounds__(SCAN_THREADS) void sum_counts(uint32_t *counts, uint32_t count)
{
    __shared__ uint32_t sums[SCAN_THREADS];
    uint32_t before = 0;
    if (threadIdx.x == 0) counts[0] = 0;
    for (uint32_t start = 1; start <= count; start += SCAN_THREADS) {
        const uint32_t i = start + threadIdx.x;
        uint32_t sum = i <= count ? counts[i] : 0;
        for (unsigned offset = 1; offset < SCAN_THREADS; offset *= 2) {
            sums[threadIdx.x] = sum;
            __syncthreads();
            if (threadIdx.x >= offset) sum += sums[threadIdx.x - offset];
            __syncthreads();
        }
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (i <= count) counts[i] = before + sum;
        before += sums[SCAN_THREADS - 1];
        __syncthreads();
    }
}

struct packed_memory {
    uint8_t *rows;
    const uint32_t *starts;
    uint32_t *patches;
};

static __device__ __forceinline__ void write_unit(uint8_t *row, uint32_t column_count, uint32_t unit, uint64_t window,
                                                  const uint16_t weights[PACK12_UNIT])
{
    const struct pack12_place place = pack12_place_unit(column_count, unit);
    uint32_t lows[2] = {0, 0}, codes = 0;
    for (unsigned i = 0; i < PACK12_UNIT; i++) {
        const int index = unit * PACK12_UNIT + i < column_count ? pack12_find(window, weights[i] >> 8) : 0;
        lows[i / 4] |= (uint32_t)(weights[i] & 0xFF) << i % 4 * 8;
        if (index >= 0) codes |= (uint32_t)index << pack12_index_bit(i) | (uint32_t)(weights[i] >> 15) << pack12_sign_bit(i);
    }
    *(uint2 *)(row + place.low_offset) = make_uint2(lows[0], lows[1]);
    *(uint32_t *)(row + place.code_offset) = codes;
}

static __global__ __launch_bounds__(ROW_WARPS *WARP) void write_rows(struct raw_matrix matrix, uint64_t window,
                                                                     struct packed_memory to)
{
    const uint32_t lane = threadIdx.x % WARP, units = unit_count(matrix.column_count);
    for (uint32_t row = blockIdx.x * ROW_WARPS + threadIdx.x / WARP; row < matrix.row_count; row += gridDim.x * ROW_WARPS) {
        uint8_t *out = to.rows + row * pack12_row_bytes(matrix.column_count);
        uint32_t next = to.starts[row];
        for (uint32_t start = 0; start < units; start += WARP) {
            const uint32_t unit = start + lane;
            uint16_t weights[PACK12_UNIT];
            uint32_t found = 0;
            if (unit < units) {
                load_unit(matrix, row, unit, weights);
                write_unit(out, matrix.column_count, unit, window, weights);
                found = find_patches(weights, columns_left(matrix, unit), window);
            }
            uint32_t mine = 0, total = 0; /* patches of the lanes before this one, and of all */
            if (__any_sync(ALL_LANES, found)) {
                for (unsigned other = 0; other < WARP; other++) {
                    const uint32_t count = __popc(__shfl_sync(ALL_LANES, found, other));
                    if (other < lane) mine += count;
                    total += count;
                }
            }
            for (uint32_t rest = found, at = next + mine; rest; rest &= rest - 1, at++) {
                const uint32_t element = __ffs(rest) - 1;
                to.patches[at] = (unit * PACK12_UNIT + element) << 8 | weights[element] >> 8;
            }
            next += total;
        }
    }
}

static unsigned row_blocks(uint32_t row_count)
{
    const unsigned blocks = (row_count + ROW_WARPS - 1) / ROW_WARPS, most = multiprocessor_count() * 16;
    return blocks < most ? blocks : most;
}

enum cllm_status cllm_pack12_write(const void *d_bf16, struct cllm_gpu_shape shape, const struct cllm_pack12_choice *choice,
                                   void *d_memory, struct cllm_gpu_matrix *matrix_out, void *stream, struct cllm_error *err)
{
    if (shape.column_count >= CLLM_PACK12_COLUMN_LIMIT || choice->patch_count > UINT32_MAX || !shape.row_count) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "a matrix of %u columns with %llu patches cannot be packed",
                         shape.column_count, (unsigned long long)choice->patch_count);
    }
    uint8_t *rows = (uint8_t *)d_memory;
    uint32_t *starts = (uint32_t *)(rows + shape.row_count * pack12_row_bytes(shape.column_count));
    uint32_t *patches = starts + shape.row_count + 1;
    const struct raw_matrix raw = {(const uint16_t *)d_bf16, shape.row_count, shape.column_count};
    const unsigned blocks = row_blocks(shape.row_count);
    cudaStream_t queue = (cudaStream_t)stream;
    count_patches<<<blocks, ROW_WARPS * WARP, 0, queue>>>(raw, choice->window, starts);
    sum_counts<<<1, SCAN_THREADS, 0, queue>>>(starts, shape.row_count);
    write_rows<<<blocks, ROW_WARPS * WARP, 0, queue>>>(raw, choice->window, packed_memory{rows, starts, patches});
    *matrix_out = cllm_gpu_matrix{CLLM_GPU_PACKED12, shape, rows, choice->window, starts, patches};
    return cuda_try(cudaGetLastError(), "pack weights", err);
}

/* ------------------------------------------------------------------------------------------------------------ unpack */

static __device__ __forceinline__ void unpack_unit(const uint8_t *row, uint32_t column_count, uint32_t unit, uint64_t window,
                                                   uint16_t *out)
{
    const struct pack12_place place = pack12_place_unit(column_count, unit);
    const uint2 lows = *(const uint2 *)(row + place.low_offset);
    uint32_t uppers[2];
    unit_uppers(window, *(const uint32_t *)(row + place.code_offset), uppers);
    const uint32_t pairs[4] = {lower_pair(lows.x, uppers[0]), higher_pair(lows.x, uppers[0]), lower_pair(lows.y, uppers[1]),
                               higher_pair(lows.y, uppers[1])};
    if (column_count % PACK12_UNIT == 0) {
        *(uint4 *)out = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        return;
    }
    for (uint32_t i = 0; i < PACK12_UNIT && unit * PACK12_UNIT + i < column_count; i++) {
        out[i] = (uint16_t)(pairs[i / 2] >> i % 2 * 16);
    }
}

static __global__ __launch_bounds__(ROW_WARPS *WARP) void unpack_rows(struct cllm_gpu_matrix matrix, uint32_t first_row,
                                                                      uint32_t row_count, uint16_t *out)
{
    const uint32_t lane = threadIdx.x % WARP, columns = matrix.shape.column_count;
    for (uint32_t i = blockIdx.x * ROW_WARPS + threadIdx.x / WARP; i < row_count; i += gridDim.x * ROW_WARPS) {
        const uint32_t row = first_row + i;
        const uint8_t *from = (const uint8_t *)matrix.d_elements + row * pack12_row_bytes(columns);
        uint16_t *to = out + (uint64_t)i * columns;
        const uint32_t begin = matrix.d_patch_starts[row], end = matrix.d_patch_starts[row + 1];
#pragma unroll 4
        for (uint32_t unit = lane; unit * PACK12_UNIT < columns; unit += WARP) {
            unpack_unit(from, columns, unit, matrix.window, to + unit * PACK12_UNIT);
        }
        __syncwarp();
        for (uint32_t patch = begin + lane; patch < end; patch += WARP) {
            const uint32_t word = matrix.d_patches[patch];
            to[word >> 8] = (uint16_t)((to[word >> 8] & 0xFF) | (word & 0xFF) << 8);
        }
    }
}

enum cllm_status cllm_pack12_unpack(const struct cllm_gpu_matrix *matrix, uint32_t first_row, uint32_t row_count, void *d_bf16,
                                    void *stream, struct cllm_error *err)
{
    unpack_rows<<<row_blocks(row_count), ROW_WARPS * WARP, 0, (cudaStream_t)stream>>>(*matrix, first_row, row_count,
                                                                                      (uint16_t *)d_bf16);
    return cuda_try(cudaGetLastError(), "unpack weights", err);
}

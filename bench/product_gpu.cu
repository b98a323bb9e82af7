/* product_gpu.cu - the products of a prompt at the shapes of real models: those of infer/tensor_gpu.cuh on raw and on packed
 * weights beside cuBLAS on raw ones. Before that they are checked, over sizes that fit tiles and sizes that do not: against sums
 * in float64, for what lies around them, and that raw and packed give the same bits. Needs compute capability 9.0.
 *
 *   build/release/bench/product_gpu [POSITIONS...]     512 unless told
 */
#include "gemm_gpu.cuh"
#include "pack12.h"
#include "tensor_gpu.cuh"

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static void stop_on(enum cllm_status status, const struct cllm_error *err)
{
    if (status == CLLM_OK) return;
    fprintf(stderr, "product_gpu: %s\n", err->message);
    exit(1);
}

static void stop_on(cudaError_t result)
{
    if (result == cudaSuccess) return;
    fprintf(stderr, "product_gpu: %s\n", cudaGetErrorString(result));
    exit(1);
}

template <class TYPE>
static TYPE *allocate(size_t count)
{
    void *memory;
    stop_on(cudaMalloc(&memory, count * sizeof(TYPE)));
    return (TYPE *)memory;
}

/* ---------------------------------------------------------------------------------------------------------- matrices */

/* Steele and others, "Fast Splittable Pseudorandom Number Generators", 2014. */
static __device__ uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

struct fill_args {
    float deviation;
    uint64_t seed;
    uint32_t odd; /* one weight in so many, if not 0, is scaled by a random power of two: most of these become patches */
};

static __global__ void fill(__nv_bfloat16 *to, uint64_t count, struct fill_args args)
{
    const uint64_t stride = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const uint64_t z = mix((i + 1) * 0x9E3779B97F4A7C15 + args.seed * 0xD1342543DE82EF95), more = mix(z + args.seed);
        const float radius = sqrtf(-2 * logf(((float)(z >> 40) + 1) / 16777217.0f));
        float value = args.deviation * radius * cospif((float)(z & 0xFFFFFF) / 8388608.0f);
        if (args.odd && more % args.odd == 0) value = ldexpf(value, -(int)(more >> 32) % 90 - 1);
        to[i] = __float2bfloat16_rn(value);
    }
}

struct matrix {
    struct cllm_gpu_matrix forms[2]; /* raw, packed */
    uint64_t patch_count;
};

static struct matrix make_matrix(struct cllm_gpu_shape shape, uint64_t seed, uint32_t odd)
{
    static uint64_t *const d_histogram = allocate<uint64_t>(CLLM_PACK12_BINS);
    const uint64_t count = (uint64_t)shape.row_count * shape.column_count;
    __nv_bfloat16 *d_raw = allocate<__nv_bfloat16>(count);
    struct matrix matrix = {{{CLLM_GPU_BF16, shape, d_raw, 0, NULL}, {}}, 0};
    struct cllm_error err;
    uint64_t histogram[CLLM_PACK12_BINS];
    fill<<<528, 256>>>(d_raw, count, fill_args{0.02f, seed, odd});
    stop_on(cllm_pack12_survey(d_raw, count, d_histogram, NULL, &err), &err);
    stop_on(cudaMemcpy(histogram, d_histogram, sizeof histogram, cudaMemcpyDeviceToHost));
    const struct cllm_pack12_choice choice = cllm_pack12_choose(histogram);
    matrix.patch_count = choice.patch_count;
    uint8_t *d_packed = allocate<uint8_t>(cllm_pack12_bytes(shape, choice.patch_count));
    stop_on(cllm_pack12_write(d_raw, shape, &choice, d_packed, &matrix.forms[1], NULL, &err), &err);
    return matrix;
}

static void free_matrix(const struct matrix *matrix)
{
    for (const struct cllm_gpu_matrix &form : matrix->forms) cudaFree((void *)form.d_elements);
}

/* A block for each vector. */
static __global__ void lay_input(const __nv_bfloat16 *from, uint32_t column_count, uint32_t stride, uint8_t *to)
{
    for (uint32_t i = threadIdx.x; i < column_count; i += blockDim.x) {
        *(__nv_bfloat16 *)(to + tensor_input_offset(stride, blockIdx.x, i)) = from[(uint64_t)blockIdx.x * column_count + i];
    }
}

struct input {
    uint32_t vector_count, column_count;
    __nv_bfloat16 *rows;
    uint8_t *laid;
};

static struct input make_input(uint32_t vector_count, uint32_t column_count)
{
    const uint32_t stride = tensor_input_stride(vector_count);
    const uint64_t count = (uint64_t)vector_count * column_count, laid_bytes = (uint64_t)stride * column_count * 2;
    const struct input input = {vector_count, column_count, allocate<__nv_bfloat16>(count), allocate<uint8_t>(laid_bytes)};
    fill<<<528, 256>>>(input.rows, count, fill_args{1, 77, 0});
    stop_on(cudaMemset(input.laid, 0xFF, laid_bytes)); /* not a number, where there is no vector */
    lay_input<<<vector_count, 256>>>(input.rows, column_count, stride, input.laid);
    return input;
}

static void free_input(const struct input *input)
{
    cudaFree(input->rows);
    cudaFree(input->laid);
}

/* ---------------------------------------------------------------------------------------------------------- products */

static struct tensor_gpu *tensor;
static struct gemm *gemm;

/* Matrices that a layer multiplies with one input. */
struct group {
    struct matrix matrices[TENSOR_PARTS];
    uint32_t count;
    bool adds;
};

enum way { RAW, PACKED, CUBLAS };

static void multiply(const struct group *group, enum way way, const struct input *input, float *const *outputs)
{
    struct cllm_error err;
    struct tensor_product product = {};
    for (uint32_t i = 0; i < group->count; i++) {
        const struct cllm_gpu_matrix *matrix = &group->matrices[i].forms[way == PACKED];
        product.matrices[i] = matrix;
        product.outputs[i] = outputs[i];
        if (way != CUBLAS) continue;
        struct gemm_product by_cublas = {};
        by_cublas.weights = matrix->d_elements;
        by_cublas.input = input->rows;
        by_cublas.output = outputs[i];
        by_cublas.row_count = by_cublas.output_stride = matrix->shape.row_count;
        by_cublas.column_count = by_cublas.weight_stride = by_cublas.input_stride = matrix->shape.column_count;
        by_cublas.vector_count = input->vector_count;
        by_cublas.count = 1;
        by_cublas.adds = group->adds;
        stop_on(gemm_multiply(gemm, &by_cublas, &err), &err);
    }
    if (way == CUBLAS) return;
    product.matrix_count = group->count;
    product.input = input->laid;
    product.vector_count = input->vector_count;
    product.adds = group->adds;
    stop_on(tensor_multiply(tensor, &product, &err), &err);
}

/* ------------------------------------------------------------------------------------------------------------- check */

#define SAMPLES 20000
#define GUARD 4096 /* elements after an output */

/* A warp for each of some outputs: squares of the error and of what was expected. */
static __global__ void sum_again(struct cllm_gpu_matrix matrix, struct input input, const float *output, double *squares)
{
    const uint32_t rows = matrix.shape.row_count, columns = matrix.shape.column_count;
    const uint32_t row = (uint32_t)(mix(blockIdx.x + 7) % rows),
                   vector = (uint32_t)(mix(blockIdx.x + 99999) % input.vector_count);
    const __nv_bfloat16 *weights = (const __nv_bfloat16 *)matrix.d_elements + (uint64_t)row * columns;
    double sum = 0;
    for (uint32_t c = threadIdx.x; c < columns; c += 32) {
        sum += (double)__bfloat162float(weights[c]) * (double)__bfloat162float(input.rows[(uint64_t)vector * columns + c]);
    }
    for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    if (threadIdx.x) return;
    const double error = (double)output[(uint64_t)vector * rows + row] - sum;
    squares[2 * blockIdx.x] = error * error;
    squares[2 * blockIdx.x + 1] = sum * sum;
}

static double measure_error(const struct cllm_gpu_matrix *matrix, const struct input *input, const float *output)
{
    static double *const d_squares = allocate<double>(SAMPLES * 2);
    std::vector<double> squares(SAMPLES * 2);
    double sums[2] = {0, 0};
    sum_again<<<SAMPLES, 32>>>(*matrix, *input, output, d_squares);
    stop_on(cudaMemcpy(squares.data(), d_squares, SAMPLES * 2 * sizeof(double), cudaMemcpyDeviceToHost));
    for (int i = 0; i < SAMPLES * 2; i++) sums[i % 2] += squares[i];
    return sums[0] / sums[1];
}

/* The output and its guard, which were bits of 1 before; the output 0 if it is added to. */
static std::vector<float> run_once(const struct group *group, enum way way, const struct input *input, float *const *outputs,
                                   uint32_t which)
{
    size_t count = 0;
    for (uint32_t i = 0; i < group->count; i++) {
        const size_t elements = (size_t)group->matrices[i].forms[0].shape.row_count * input->vector_count;
        if (i == which) count = elements + GUARD;
        stop_on(cudaMemset(outputs[i], 0xFF, (elements + GUARD) * sizeof(float)));
        if (group->adds) stop_on(cudaMemset(outputs[i], 0, elements * sizeof(float)));
    }
    std::vector<float> result(count);
    multiply(group, way, input, outputs);
    stop_on(cudaMemcpy(result.data(), outputs[which], count * sizeof(float), cudaMemcpyDeviceToHost));
    return result;
}

static bool is_whole(const std::vector<float> &output)
{
    for (size_t i = 0; i < output.size(); i++) {
        uint32_t bits;
        memcpy(&bits, &output[i], sizeof bits);
        if (i + GUARD < output.size() ? !std::isfinite(output[i]) : bits != 0xFFFFFFFF) return false;
    }
    return true;
}

/* Of a matrix, and a small one beside it. */
static void check(struct cllm_gpu_shape shape, uint32_t vector_count, uint32_t odd, bool adds)
{
    const struct cllm_gpu_shape small = {48, shape.column_count};
    const struct group group = {{make_matrix(shape, 1, odd), make_matrix(small, 2, odd)}, 2, adds};
    const struct input input = make_input(vector_count, shape.column_count);
    float *const outputs[] = {allocate<float>((size_t)shape.row_count * vector_count + GUARD),
                              allocate<float>((size_t)small.row_count * vector_count + GUARD)};
    for (uint32_t i = 0; i < 2; i++) {
        const std::vector<float> raw = run_once(&group, RAW, &input, outputs, i);
        const double error = measure_error(&group.matrices[i].forms[0], &input, outputs[i]);
        bool same = true;
        for (int repeat = 0; repeat < 2; repeat++) {
            const std::vector<float> packed = run_once(&group, PACKED, &input, outputs, i);
            same = same && memcmp(raw.data(), packed.data(), raw.size() * sizeof(float)) == 0;
        }
        if (same && is_whole(raw) && error < 1e-9) continue;
        printf("WRONG: matrix %u of %u x %u, %u vectors, %.2f patches a tile: NMSE %.1e, %s bits, %s\n", i, shape.row_count,
               shape.column_count, vector_count,
               (double)group.matrices[0].patch_count * 4096 / ((double)shape.row_count * shape.column_count), error,
               same ? "the same" : "different", is_whole(raw) ? "whole" : "not whole");
        exit(1);
    }
    for (uint32_t i = 0; i < 2; i++) free_matrix(&group.matrices[i]), cudaFree(outputs[i]);
    free_input(&input);
}

static void check_all(void)
{
    for (uint32_t vector_count : {2, 31, 60, 128, 300, 511, 512}) {
        check({256, 256}, vector_count, 0, false);
        check({1040, 2048}, vector_count, 500, false);
        check({208, 768}, vector_count, 0, true);
        check({2048, 5632}, vector_count, 40, true);
        check({4096, 4096}, vector_count, 0, true);
        check({11264, 2048}, vector_count, 0, false);
    }
    check({28672, 4096}, 512, 0, false);
    check({4096, 14336}, 512, 0, true);
    printf("right, and the same bits raw and packed\n");
}

/* -------------------------------------------------------------------------------------------------------------- time */

#define LAYERS 8 /* of other weights, so that they come from memory */
#define GROUPS 4
#define REPEATS 9

static const struct model {
    const char *name;
    uint32_t hidden, key, wide;
} models[] = {{"llama-8b", 4096, 1024, 14336}, {"tinyllama-1.1b", 2048, 256, 5632}};

struct bench {
    struct group layers[LAYERS][GROUPS];
    struct input inputs[GROUPS];
    float *outputs[TENSOR_PARTS];
};

/* Microseconds of a layer: of one group of products, or of all (GROUPS). */
static double time_group(const struct bench *bench, int group, enum way way)
{
    std::vector<float> times;
    cudaEvent_t begin, end;
    stop_on(cudaEventCreate(&begin));
    stop_on(cudaEventCreate(&end));
    for (int i = 0; i < REPEATS; i++) {
        float milliseconds;
        cudaEventRecord(begin);
        for (int layer = 0; layer < LAYERS; layer++) {
            for (int g = 0; g < GROUPS; g++) {
                if (group == GROUPS || g == group) multiply(&bench->layers[layer][g], way, &bench->inputs[g], bench->outputs);
            }
        }
        cudaEventRecord(end);
        stop_on(cudaEventSynchronize(end));
        cudaEventElapsedTime(&milliseconds, begin, end);
        times.push_back(milliseconds * 1000 / LAYERS);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    std::sort(times.begin(), times.end());
    return times[REPEATS / 2];
}

static void report(const struct bench *bench, enum way way)
{
    static const char *const names[] = {"raw", "packed", "cuBLAS"};
    double all = 0;
    printf("%-8s", names[way]);
    for (int group = 0; group <= GROUPS; group++) {
        double operations = 0;
        for (uint32_t i = 0; group < GROUPS && i < bench->layers[0][group].count; i++) {
            const struct cllm_gpu_shape shape = bench->layers[0][group].matrices[i].forms[0].shape;
            operations += 2.0 * shape.row_count * shape.column_count * bench->inputs[group].vector_count;
        }
        all += operations;
        const double microseconds = time_group(bench, group, way);
        printf(" %7.1f (%3.0f)", microseconds, (group < GROUPS ? operations : all) / microseconds * 1e-6);
    }
    printf("\n");
}

static void time_model(const struct model *model, uint32_t vector_count)
{
    struct bench bench = {};
    const uint32_t hidden = model->hidden, key = model->key, wide = model->wide;
    for (int layer = 0; layer < LAYERS; layer++) {
        struct group *groups = bench.layers[layer];
        const uint64_t seed = (uint64_t)layer * 10;
        groups[0] = {{make_matrix({hidden, hidden}, seed, 0), make_matrix({key, hidden}, seed + 1, 0),
                      make_matrix({key, hidden}, seed + 2, 0)},
                     3,
                     false};
        groups[1] = {{make_matrix({hidden, hidden}, seed + 3, 0)}, 1, true};
        groups[2] = {{make_matrix({wide, hidden}, seed + 4, 0), make_matrix({wide, hidden}, seed + 5, 0)}, 2, false};
        groups[3] = {{make_matrix({hidden, wide}, seed + 6, 0)}, 1, true};
    }
    for (int i = 0; i < GROUPS; i++) bench.inputs[i] = make_input(vector_count, i == 3 ? wide : hidden);
    for (float *&output : bench.outputs) output = allocate<float>((size_t)vector_count * wide);
    printf("\n%s, %u positions: microseconds (TFLOP/s) of queries/keys/values, output, gate/up, down; a layer\n", model->name,
           vector_count);
    for (int turn = 0; turn < 3; turn++) {
        for (enum way way : {RAW, PACKED, CUBLAS}) {
            if (way != CUBLAS || gemm) report(&bench, way);
        }
    }
    for (struct group *layer : bench.layers) {
        for (int i = 0; i < GROUPS; i++) {
            for (uint32_t m = 0; m < layer[i].count; m++) free_matrix(&layer[i].matrices[m]);
        }
    }
    for (const struct input &input : bench.inputs) free_input(&input);
    for (float *output : bench.outputs) cudaFree(output);
}

int main(int argc, char **argv)
{
    const size_t workspace_bytes = 32 << 20;
    setvbuf(stdout, NULL, _IOLBF, 0);
    tensor = tensor_create(0, NULL);
    if (!tensor) {
        printf("\nproduct_gpu: skipped: no device of compute capability 9.0\n");
        return 0;
    }
    gemm = gemm_create(NULL, allocate<uint8_t>(workspace_bytes), workspace_bytes);
    check_all();
    for (const struct model &model : models) {
        if (argc < 2) time_model(&model, 512);
        for (int i = 1; i < argc; i++) time_model(&model, (uint32_t)strtoul(argv[i], NULL, 10));
    }
    gemm_destroy(gemm);
    tensor_destroy(tensor);
    return 0;
}

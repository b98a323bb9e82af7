/* decode_gpu.c - how fast a GPU decodes chunks in its memory: output bytes per second of prepared batches, beside a
 * device-to-device copy, from what cpack stores for Gaussian weights. Median of repeated runs, timed by device events; output
 * compared with the input.
 *
 *   build/release/bench/decode_gpu [-r RUNS] [-g GIB] [-d DTYPE]   GIB: decoded GiB in flight, 2 unless told (1 Gi BF16 weights)
 */
#include "cllm_decode_gpu.h"
#include "gaussian.h"
#include "group.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef CLLM_CUDA
#include <cuda_runtime_api.h>
#endif

#define RUNS_MAX 99
#define DTYPE_COUNT 7
#define SAMPLE_BYTES ((size_t)64 << 20) /* distinct weights; the rest are copies at other addresses */
#define TENSOR_BYTES ((size_t)32 << 20) /* of the small tensors: 4096 x 4096 in BF16 */
#define GROUPS_PER_TENSOR (TENSOR_BYTES / CLLM_GROUP_BYTES)

/* A context on the first GPU, or null, said once, where there is none: make bench goes on. */
static struct cllm_gpu *open_gpu(void)
{
    struct cllm_gpu *gpu = NULL;
    struct cllm_error err;
    if (cllm_gpu_create(0, &gpu, &err) != CLLM_OK) printf("\ndecode_gpu: skipped: %s\n", err.message);
    return gpu;
}

#ifndef CLLM_CUDA

int main(void)
{
    cllm_gpu_destroy(open_gpu());
    return 0;
}

#else

static void stop_on(enum cllm_status status, const struct cllm_error *err)
{
    if (status == CLLM_OK) return;
    fprintf(stderr, "decode_gpu: %s\n", err->message);
    exit(1);
}

/* One encoded group after the other: what a container would hold. */
struct sample {
    uint8_t *decoded;
    uint8_t *stored; /* chunks at multiples of 16 */
    size_t stored_bytes;
    struct cllm_data *groups; /* one data object per group */
    struct cllm_chunk *chunks;
    struct cllm_table *tables;
    size_t group_count;
    size_t chunk_count;
};

static void add_group(struct sample *sample, size_t g, struct cllm_group *group, const struct cllm_plan *plan)
{
    struct cllm_error err;
    const size_t per_group = CLLM_GROUP_BYTES / plan->chunk_bytes;
    uint32_t count = 0, table_count = 0;
    memcpy(cllm_group_input(group), sample->decoded + g * CLLM_GROUP_BYTES, CLLM_GROUP_BYTES);
    stop_on(cllm_group_encode(group, plan, CLLM_GROUP_BYTES, &err), &err);
    const struct cllm_ready_chunk *encoded = cllm_group_chunks(group, &count);
    struct cllm_chunk *chunks = sample->chunks + g * per_group;
    for (uint32_t k = 0; k < count; k++) {
        chunks[k] = encoded[k].chunk;
        chunks[k].stored_offset = sample->stored_bytes;
        memcpy(sample->stored + sample->stored_bytes, encoded[k].stored, chunks[k].stored_bytes);
        sample->stored_bytes += (chunks[k].stored_bytes + 15) & ~(size_t)15;
    }
    const struct cllm_table *group_tables = cllm_group_tables(group, &table_count);
    struct cllm_table *tables = sample->tables + g * per_group;
    memcpy(tables, group_tables, table_count * sizeof *tables);
    sample->groups[g] = (struct cllm_data){.layout = plan->layout,
                                           .chunk_bytes = plan->chunk_bytes,
                                           .chunk_count = count,
                                           .chunks = chunks,
                                           .tables = tables,
                                           .table_count = table_count};
}

static void encode_sample(struct sample *sample, const char *dtype)
{
    struct cllm_error err;
    struct cllm_group *group = NULL;
    const size_t name_bytes = strcspn(dtype, " ");
    struct cllm_plan plan = cllm_plan_make(cllm_dtype_find(dtype, name_bytes), SAMPLE_BYTES);
    if (strcmp(dtype, F32_OF_BF16) == 0) plan.layout.zero_bits = 16;
    sample->group_count = SAMPLE_BYTES / CLLM_GROUP_BYTES;
    sample->chunk_count = SAMPLE_BYTES / plan.chunk_bytes;
    sample->decoded = malloc(SAMPLE_BYTES);
    sample->stored = calloc(1, SAMPLE_BYTES);
    sample->groups = calloc(sample->group_count, sizeof *sample->groups);
    sample->chunks = calloc(sample->chunk_count, sizeof *sample->chunks);
    sample->tables = calloc(sample->chunk_count, sizeof *sample->tables);
    fill_gaussian(sample->decoded, SAMPLE_BYTES, dtype);
    stop_on(cllm_group_create(&group, &err), &err);
    for (size_t g = 0; g < sample->group_count; g++) add_group(sample, g, group, &plan);
    cllm_group_destroy(group);
}

static void free_sample(struct sample *sample)
{
    free(sample->decoded);
    free(sample->stored);
    free(sample->groups);
    free(sample->chunks);
    free(sample->tables);
}

/* ------------------------------------------------------------------------------------------------------------- measuring */

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

struct subject {
    struct cllm_gpu *gpu;
    struct cllm_gpu_batch **batches;
    size_t batch_count;
    void *d_stored;
    void *d_decoded;
    size_t decoded_bytes;
};

/* Seconds of the device between two events around `work`, median of `runs` after two that do not count. */
static double measure(struct subject *s, unsigned runs, void (*work)(struct subject *))
{
    float times[RUNS_MAX];
    cudaEvent_t start, stop;
    cudaStream_t stream = cllm_gpu_stream(s->gpu);
    cudaEventCreate(&start);
    cudaEventCreate(&stop);
    for (unsigned i = 0; i < runs + 2; i++) {
        struct cllm_error err;
        cudaEventRecord(start, stream);
        work(s);
        cudaEventRecord(stop, stream);
        stop_on(cllm_gpu_finish(s->gpu, NULL, &err), &err);
        if (i >= 2) cudaEventElapsedTime(&times[i - 2], start, stop);
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    qsort(times, runs, sizeof *times, compare_floats);
    return 1e-3 * times[runs / 2];
}

static void run_decode(struct subject *s)
{
    struct cllm_error err;
    for (size_t b = 0; b < s->batch_count; b++)
        stop_on(cllm_gpu_batch_decode(s->batches[b], NULL, s->d_stored, s->d_decoded, &err), &err);
}

static void run_copy(struct subject *s)
{
    const size_t half = s->decoded_bytes / 2;
    cudaMemcpyAsync(s->d_decoded, (uint8_t *)s->d_decoded + half, half, cudaMemcpyDeviceToDevice, cllm_gpu_stream(s->gpu));
}

static void check_output(const struct subject *s, const struct sample *sample)
{
    struct cllm_error err;
    uint8_t *out = malloc(SAMPLE_BYTES);
    for (size_t b = 0; b < s->batch_count; b++) stop_on(cllm_gpu_batch_check(s->batches[b], NULL, NULL, NULL, &err), &err);
    for (size_t at = 0; at < s->decoded_bytes; at += SAMPLE_BYTES) {
        stop_on(cllm_gpu_download(s->gpu, out, (uint8_t *)s->d_decoded + at, SAMPLE_BYTES, &err), &err);
        stop_on(cllm_gpu_finish(s->gpu, NULL, &err), &err);
        if (memcmp(out, sample->decoded, SAMPLE_BYTES) != 0) {
            fprintf(stderr, "decode_gpu: the output differs from the input\n");
            exit(1);
        }
    }
    free(out);
}

/* Batches of `groups_per_batch` groups each, over all copies of the sample. */
static void create_batches(struct subject *s, const struct sample *sample, size_t groups_per_batch)
{
    struct cllm_error err;
    const size_t group_count = s->decoded_bytes / CLLM_GROUP_BYTES;
    struct cllm_gpu_span *spans = calloc(group_count, sizeof *spans);
    s->batch_count = group_count / groups_per_batch;
    s->batches = calloc(s->batch_count, sizeof(struct cllm_gpu_batch *));
    for (size_t g = 0; g < group_count; g++) {
        const struct cllm_data *data = &sample->groups[g % sample->group_count];
        spans[g] = (struct cllm_gpu_span){
            .data = data,
            .chunk_count = data->chunk_count,
            .stored_offset = g / sample->group_count * sample->stored_bytes + data->chunks[0].stored_offset,
            .out_offset = g * CLLM_GROUP_BYTES,
        };
    }
    for (size_t b = 0; b < s->batch_count; b++) {
        const struct cllm_gpu_span *first = spans + b * groups_per_batch;
        stop_on(cllm_gpu_batch_create(s->gpu, first, groups_per_batch, &s->batches[b], &err), &err);
    }
    free(spans);
}

static void destroy_batches(struct subject *s)
{
    for (size_t b = 0; b < s->batch_count; b++) cllm_gpu_batch_destroy(s->batches[b]);
    free(s->batches);
}

/* Decoded at another place each time, so that a wrong byte cannot be an earlier run's. */
static double measure_batches(struct subject *s, const struct sample *sample, size_t groups_per_batch, unsigned runs)
{
    create_batches(s, sample, groups_per_batch);
    cudaMemset(s->d_decoded, 0xA5, s->decoded_bytes);
    const double seconds = measure(s, runs, run_decode);
    check_output(s, sample);
    destroy_batches(s);
    return seconds;
}

struct result {
    const char *dtype;
    double ratio;
    double out_tbs;
    double copy_tbs;
    double tensor_us;
};

static struct result measure_dtype(struct cllm_gpu *gpu, const char *dtype, size_t copies, unsigned runs)
{
    struct cllm_error err;
    struct sample sample = {0};
    struct subject s = {.gpu = gpu, .decoded_bytes = copies * SAMPLE_BYTES};
    encode_sample(&sample, dtype);
    stop_on(cllm_gpu_allocate(gpu, copies * sample.stored_bytes, &s.d_stored, &err), &err);
    stop_on(cllm_gpu_allocate(gpu, s.decoded_bytes, &s.d_decoded, &err), &err);
    for (size_t c = 0; c < copies; c++) {
        uint8_t *d_stored = (uint8_t *)s.d_stored + c * sample.stored_bytes;
        stop_on(cllm_gpu_upload(gpu, d_stored, sample.stored, sample.stored_bytes, &err), &err);
    }
    const size_t group_count = copies * sample.group_count;
    struct result result = {.dtype = dtype};
    result.ratio = ((double)sample.stored_bytes + 16.0 * (double)sample.chunk_count) / (double)SAMPLE_BYTES;
    result.out_tbs = (double)s.decoded_bytes / measure_batches(&s, &sample, group_count, runs) / 1e12;
    result.tensor_us = 1e6 * measure_batches(&s, &sample, GROUPS_PER_TENSOR, runs) / ((double)s.decoded_bytes / TENSOR_BYTES);
    result.copy_tbs = (double)s.decoded_bytes / measure(&s, runs, run_copy) / 1e12;
    cllm_gpu_free(gpu, s.d_stored);
    cllm_gpu_free(gpu, s.d_decoded);
    free_sample(&sample);
    return result;
}

static void print_result(const struct result *r)
{
    const double roof_tbs = r->copy_tbs / (1 + r->ratio);
    printf("| %14s | %9.2f | %11.3f | %19.3f | %30.3f | %15.1f %% | %24.1f |\n", r->dtype, 100 * r->ratio, r->out_tbs,
           r->out_tbs * (1 + r->ratio), r->copy_tbs, 100 * r->out_tbs / roof_tbs, r->tensor_us);
}

int main(int argc, char **argv)
{
    static const char *const dtypes[DTYPE_COUNT] = {"BF16",      "F16",          "F32",         F32_OF_BF16,
                                                    SPARSE_BF16, BF16_OF_4_BITS, BF16_OF_8_BITS};
    unsigned runs = 11, gib = 2;
    const char *only = NULL;
    int option;
    while ((option = getopt(argc, argv, "r:g:d:")) != -1) {
        unsigned value = option != 'd' && optarg ? (unsigned)atoi(optarg) : 1;
        if (option == '?' || value < 1 || value > RUNS_MAX) {
            fprintf(stderr, "usage: decode_gpu [-r RUNS] [-g GIB] [-d DTYPE], one of the table's\n");
            return 2;
        }
        if (option == 'r') runs = value;
        else if (option == 'g') gib = value;
        else only = optarg;
    }
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return 0;
    struct result results[DTYPE_COUNT];
    printf("%s, Gaussian weights, %u GiB decoded by one prepared batch; median of %u runs\n\n", cllm_gpu_name(gpu), gib, runs);
    printf(
        "|          dtype | stored, %% | output TB/s | input + output TB/s | device copy, read + write TB/s | share of the roof "
        "| µs a "
        "tensor of 32 MiB* |\n");
    printf(
        "|----------------|----------:|------------:|--------------------:|-------------------------------:|------------------:|-"
        "-----"
        "-------------------:|\n");
    for (size_t k = 0; k < DTYPE_COUNT; k++) {
        if (only && strcmp(only, dtypes[k]) != 0) continue;
        results[k] = measure_dtype(gpu, dtypes[k], ((size_t)gib << 30) / SAMPLE_BYTES, runs);
        print_result(&results[k]);
    }
    printf("\n* each in a batch of its own, %u in a row\n\n", (unsigned)(((size_t)gib << 30) / TENSOR_BYTES));
    for (size_t k = 0; k < DTYPE_COUNT; k++) {
        if (only && strcmp(only, dtypes[k]) != 0) continue;
        printf("{\"bench\":\"decode_gpu\",\"gpu\":\"%s\",\"dtype\":\"%s\",\"decoded_bytes\":%zu,\"stored_ratio\":%.4f,"
               "\"output_tbs\":%.3f,\"copy_tbs\":%.3f,\"tensor_us\":%.1f}\n",
               cllm_gpu_name(gpu), dtypes[k], (size_t)gib << 30, results[k].ratio, results[k].out_tbs, results[k].copy_tbs,
               results[k].tensor_us);
    }
    cllm_gpu_destroy(gpu);
    return 0;
}

#endif

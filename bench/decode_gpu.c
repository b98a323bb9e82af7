/* decode_gpu.c - how fast a GPU decodes BF16 chunks in its memory: output bytes per second, beside a device-to-device copy, from
 * what cpack stores for Gaussian weights. Median of repeated runs, timed by device events; output compared with the input.
 *
 *   build/release/bench/decode_gpu [-r RUNS] [-g GIB]      GIB: decoded GiB in flight, 2 unless told (1 Gi weights)
 */
#include "cllm_decode_gpu.h"
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
#define SAMPLE_BYTES ((size_t)64 << 20) /* distinct weights; the rest are copies at other addresses */

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
    size_t chunk_count;
    size_t chunks_per_group;
};

/* Splitmix64 and Box-Muller. */
static void fill_gaussian(uint8_t *bytes, size_t element_count)
{
    uint64_t state = 1;
    for (size_t i = 0; i < element_count; i++) {
        uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15));
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        z ^= z >> 31;
        double radius = sqrt(-2 * log(((double)(z >> 32) + 1) / 4294967297.0));
        float value = (float)(0.02 * radius * cos(6.283185307179586 * (double)(z & 0xFFFFFFFF) / 4294967296.0));
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        bits += 0x7FFF + (bits >> 16 & 1);
        bytes[2 * i] = (uint8_t)(bits >> 16);
        bytes[2 * i + 1] = (uint8_t)(bits >> 24);
    }
}

static void encode_sample(struct sample *sample)
{
    struct cllm_error err;
    struct cllm_group *group = NULL;
    const struct cllm_plan plan = cllm_plan_make(cllm_dtype_find("BF16", 4), SAMPLE_BYTES);
    const size_t group_count = SAMPLE_BYTES / CLLM_GROUP_BYTES;
    sample->chunks_per_group = CLLM_GROUP_BYTES / plan.chunk_bytes;
    sample->chunk_count = group_count * sample->chunks_per_group;
    sample->decoded = malloc(SAMPLE_BYTES);
    sample->stored = calloc(1, SAMPLE_BYTES);
    sample->groups = calloc(group_count, sizeof *sample->groups);
    sample->chunks = calloc(sample->chunk_count, sizeof *sample->chunks);
    sample->tables = calloc(sample->chunk_count, sizeof *sample->tables);
    fill_gaussian(sample->decoded, SAMPLE_BYTES / 2);
    stop_on(cllm_group_create(&group, &err), &err);
    for (size_t g = 0; g < group_count; g++) {
        uint32_t count = 0, table_count = 0;
        memcpy(cllm_group_input(group), sample->decoded + g * CLLM_GROUP_BYTES, CLLM_GROUP_BYTES);
        stop_on(cllm_group_encode(group, &plan, CLLM_GROUP_BYTES, &err), &err);
        const struct cllm_encoded_chunk *chunks = cllm_group_chunks(group, &count);
        for (uint32_t k = 0; k < count; k++) {
            if (chunks[k].chunk.table_index >= table_count) table_count = chunks[k].chunk.table_index + 1u;
        }
        struct cllm_table *own = sample->tables + g * sample->chunks_per_group;
        memcpy(own, cllm_group_tables(group), table_count * sizeof *own);
        sample->groups[g] = (struct cllm_data){.layout = plan.layout,
                                               .chunk_bytes = plan.chunk_bytes,
                                               .chunk_count = count,
                                               .chunks = sample->chunks + g * sample->chunks_per_group,
                                               .tables = own,
                                               .table_count = table_count};
        for (uint32_t k = 0; k < count; k++) {
            struct cllm_chunk *chunk = &sample->chunks[g * sample->chunks_per_group + k];
            *chunk = chunks[k].chunk;
            chunk->stored_offset = sample->stored_bytes;
            memcpy(sample->stored + sample->stored_bytes, chunks[k].stored, chunk->stored_bytes);
            sample->stored_bytes += (chunk->stored_bytes + 15) & ~(size_t)15;
        }
    }
    cllm_group_destroy(group);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static float median_ms(float *times, unsigned count)
{
    qsort(times, count, sizeof *times, compare_floats);
    return times[count / 2];
}

struct subject {
    struct cllm_gpu *gpu;
    const struct cllm_gpu_item *items;
    size_t item_count;
    void *d_stored;
    void *d_decoded;
    size_t copy_bytes;
};

/* Milliseconds of the device between two events around `work`, median of `runs` after two that do not count. */
static float measure(struct subject *s, unsigned runs, void (*work)(struct subject *))
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
    return median_ms(times, runs);
}

static void run_decode(struct subject *s)
{
    struct cllm_error err;
    stop_on(cllm_gpu_decode(s->gpu, s->items, s->item_count, &err), &err);
}

static void run_copy(struct subject *s)
{
    cudaMemcpyAsync(s->d_decoded, (uint8_t *)s->d_decoded + s->copy_bytes, s->copy_bytes, cudaMemcpyDeviceToDevice,
                    cllm_gpu_stream(s->gpu));
}

static void check_output(const struct subject *s, const struct sample *sample, size_t copies)
{
    struct cllm_error err;
    uint8_t *out = malloc(SAMPLE_BYTES);
    for (size_t c = 0; c<copies; c += copies> 1 ? copies - 1 : 1) {
        stop_on(cllm_gpu_download(s->gpu, out, (uint8_t *)s->d_decoded + c * SAMPLE_BYTES, SAMPLE_BYTES, &err), &err);
        stop_on(cllm_gpu_finish(s->gpu, NULL, &err), &err);
        if (memcmp(out, sample->decoded, SAMPLE_BYTES) != 0) {
            fprintf(stderr, "decode_gpu: the output differs from the input\n");
            exit(1);
        }
    }
    free(out);
}

int main(int argc, char **argv)
{
    unsigned runs = 11, gib = 2;
    int option;
    while ((option = getopt(argc, argv, "r:g:")) != -1) {
        unsigned value = optarg ? (unsigned)atoi(optarg) : 0;
        if (option == '?' || value < 1 || value > RUNS_MAX) {
            fprintf(stderr, "usage: decode_gpu [-r RUNS] [-g GIB]\n");
            return 2;
        }
        if (option == 'r') runs = value;
        else gib = value;
    }
    struct cllm_error err;
    struct sample sample = {0};
    struct subject s = {0};
    const size_t copies = ((size_t)gib << 30) / SAMPLE_BYTES, decoded_bytes = copies * SAMPLE_BYTES;
    s.gpu = open_gpu();
    if (!s.gpu) return 0;
    encode_sample(&sample);
    s.item_count = copies * sample.chunk_count;
    struct cllm_gpu_item *items = calloc(s.item_count, sizeof *items);
    stop_on(cllm_gpu_allocate(s.gpu, copies * sample.stored_bytes, &s.d_stored, &err), &err);
    stop_on(cllm_gpu_allocate(s.gpu, decoded_bytes, &s.d_decoded, &err), &err);
    for (size_t c = 0; c < copies; c++) {
        uint8_t *d_stored = (uint8_t *)s.d_stored + c * sample.stored_bytes;
        stop_on(cllm_gpu_upload(s.gpu, d_stored, sample.stored, sample.stored_bytes, &err), &err);
        for (size_t k = 0; k < sample.chunk_count; k++) {
            items[c * sample.chunk_count + k] =
                (struct cllm_gpu_item){&sample.groups[k / sample.chunks_per_group], (uint32_t)(k % sample.chunks_per_group),
                                       d_stored + sample.chunks[k].stored_offset,
                                       (uint8_t *)s.d_decoded + c * SAMPLE_BYTES + k * sample.groups[0].chunk_bytes};
        }
    }
    s.items = items;
    s.copy_bytes = decoded_bytes / 2;
    double decode_s = 1e-3 * measure(&s, runs, run_decode);
    check_output(&s, &sample, copies);
    double copy_tbs = 2.0 * (double)s.copy_bytes / (1e-3 * measure(&s, runs, run_copy)) / 1e12;
    double ratio = ((double)sample.stored_bytes + 16.0 * (double)sample.chunk_count) / (double)SAMPLE_BYTES;
    double out_tbs = (double)decoded_bytes / decode_s / 1e12, roof_tbs = copy_tbs / (1 + ratio);
    printf("%s, %zu Gi weights of Gaussian BF16, median of %u runs; with descriptors and tables sent each time\n\n",
           cllm_gpu_name(s.gpu), decoded_bytes >> 31, runs);
    printf("| stored, %% of BF16 | output TB/s | input + output TB/s | device copy, read + write TB/s | share of the roof |\n");
    printf("|------------------:|------------:|--------------------:|-------------------------------:|------------------:|\n");
    printf("| %17.2f | %11.3f | %19.3f | %30.3f | %15.1f %% |\n\n", 100 * ratio, out_tbs, out_tbs * (1 + ratio), copy_tbs,
           100 * out_tbs / roof_tbs);
    printf("{\"bench\":\"decode_gpu\",\"gpu\":\"%s\",\"decoded_bytes\":%zu,\"stored_ratio\":%.4f,\"output_tbs\":%.3f,\"copy_"
           "tbs\":%.3f}\n",
           cllm_gpu_name(s.gpu), decoded_bytes, ratio, out_tbs, copy_tbs);
    cllm_gpu_destroy(s.gpu);
    return 0;
}

#endif

/* forward_gpu.c - tokens per second of the forward pass on the GPU, with synthetic Gaussian weights at the shapes of real models,
 * raw and packed in the same run, beside a device-to-device copy. Medians.
 *
 *   build/release/bench/forward_gpu [-m tinyllama-1.1b|llama-8b|all] [-n TOKENS] [-p PROMPT] [-f raw|packed|both]
 *
 * TOKENS (64 unless told) are generated after PROMPT (512) positions; every figure is of decoding one token at a time but for
 * the prompt's.
 */
#include "cllm_decode_gpu.h"
#include "forward_gpu.h"
#include "pack12.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef CLLM_CUDA
#include <cuda_runtime_api.h>
#endif

static struct cllm_gpu *open_gpu(void)
{
    struct cllm_gpu *gpu = NULL;
    struct cllm_error err;
    if (cllm_gpu_create(0, &gpu, &err) != CLLM_OK) printf("\nforward_gpu: skipped: %s\n", err.message);
    return gpu;
}

#ifndef CLLM_CUDA

int main(void)
{
    cllm_gpu_destroy(open_gpu());
    return 0;
}

#else

#define POOL_WEIGHTS ((size_t)32 << 20) /* distinct weights; matrices are pieces of them at other addresses */
#define RUNS_MAX 4096

static void stop_on(enum cllm_status status, const struct cllm_error *err)
{
    if (status == CLLM_OK) return;
    fprintf(stderr, "forward_gpu: %s\n", err->message);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static const struct shape {
    const char *name;
    struct cllm_config config;
} shapes[] = {
    {"tinyllama-1.1b",
     {.hidden_size = 2048,
      .layer_count = 22,
      .intermediate_size = 5632,
      .vocab_size = 32000,
      .head_count = 32,
      .kv_head_count = 4,
      .head_dim = 64,
      .norm_epsilon = 1e-5f,
      .rope = {.theta = 10000, .attention_factor = 1}}},
    {"llama-8b",
     {.hidden_size = 4096,
      .layer_count = 32,
      .intermediate_size = 14336,
      .vocab_size = 128256,
      .head_count = 32,
      .kv_head_count = 8,
      .head_dim = 128,
      .norm_epsilon = 1e-5f,
      .rope = {.theta = 500000, .attention_factor = 1}}},
};

/* A resident source of synthetic weights. */
struct synthetic {
    struct cllm_gpu_source base;
    struct cllm_gpu *gpu;
    bool packed;
    uint64_t weight_count; /* read for a token */
    uint64_t weight_bytes;
    const uint16_t *d_pool;
    const float *d_ones;
    uint64_t *d_histogram;
    void *d_raw; /* of the matrix being packed */
    size_t offset;
    struct cllm_gpu_layer layers[128];
    void *memory[1024];
    size_t memory_count;
};

static void *allocate(struct synthetic *source, size_t byte_count)
{
    struct cllm_error err;
    void *d_memory;
    stop_on(cllm_gpu_allocate(source->gpu, byte_count, &d_memory, &err), &err);
    return source->memory[source->memory_count++] = d_memory;
}

/* BF16 of standard deviation 1/64: Box-Muller over splitmix64. */
static uint16_t *make_pool(void)
{
    uint16_t *pool = malloc(POOL_WEIGHTS * sizeof *pool);
    if (!pool) exit(1);
    uint64_t state = 1;
    for (size_t i = 0; i < POOL_WEIGHTS; i++) {
        state += 0x9E3779B97F4A7C15;
        uint64_t z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9;
        z = (z ^ z >> 27) * 0x94D049BB133111EB;
        z ^= z >> 31;
        const float radius = sqrtf(-2 * logf(((float)(z >> 40) + 0.5f) * 0x1p-24f));
        const float value = radius * cosf(6.2831853f * (float)(z & 0xFFFFFF) * 0x1p-24f) / 64;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        pool[i] = (uint16_t)((bits + 0x8000) >> 16);
    }
    return pool;
}

static void fill(struct synthetic *source, void *d_to, size_t count)
{
    for (size_t done = 0; done < count;) {
        size_t part = count - done < POOL_WEIGHTS - source->offset ? count - done : POOL_WEIGHTS - source->offset;
        cudaMemcpyAsync((uint16_t *)d_to + done, source->d_pool + source->offset, part * 2, cudaMemcpyDeviceToDevice,
                        (cudaStream_t)cllm_gpu_stream(source->gpu));
        done += part;
        source->offset = (source->offset + part + 12345 * 8) % POOL_WEIGHTS;
    }
}

static struct cllm_gpu_matrix make_matrix(struct synthetic *source, uint32_t row_count, uint32_t column_count)
{
    struct cllm_error err;
    const size_t count = (size_t)row_count * column_count;
    struct cllm_gpu_matrix matrix = {.form = CLLM_GPU_BF16, .shape = {row_count, column_count}};
    source->weight_count += count;
    if (!source->packed) {
        void *d_memory = allocate(source, count * 2);
        fill(source, d_memory, count);
        matrix.d_elements = d_memory;
        source->weight_bytes += count * 2;
        return matrix;
    }
    uint64_t histogram[CLLM_PACK12_BINS];
    void *stream = cllm_gpu_stream(source->gpu);
    fill(source, source->d_raw, count);
    stop_on(cllm_pack12_survey(source->d_raw, count, source->d_histogram, stream, &err), &err);
    stop_on(cllm_gpu_download(source->gpu, histogram, source->d_histogram, sizeof histogram, &err), &err);
    stop_on(cllm_gpu_finish(source->gpu, NULL, &err), &err);
    const struct cllm_pack12_choice choice = cllm_pack12_choose(histogram);
    const uint64_t bytes = cllm_pack12_bytes(matrix.shape, choice.patch_count);
    stop_on(cllm_pack12_write(source->d_raw, matrix.shape, &choice, allocate(source, bytes), &matrix, stream, &err), &err);
    stop_on(cllm_gpu_finish(source->gpu, NULL, &err), &err);
    source->weight_bytes += bytes;
    return matrix;
}

static enum cllm_status acquire(struct cllm_gpu_source *base, uint32_t layer_index, void *stream,
                                struct cllm_gpu_layer *layer_out, struct cllm_error *err)
{
    (void)stream, (void)err;
    *layer_out = ((struct synthetic *)base)->layers[layer_index];
    return CLLM_OK;
}

static void make_layer(struct synthetic *source, const struct cllm_config *config, struct cllm_gpu_layer *layer)
{
    const uint32_t hidden = config->hidden_size, query = config->head_count * config->head_dim;
    const uint32_t key = config->kv_head_count * config->head_dim;
    *layer = (struct cllm_gpu_layer){.d_attention_norm = source->d_ones, .d_mlp_norm = source->d_ones};
    layer->query.weight = make_matrix(source, query, hidden);
    layer->key.weight = make_matrix(source, key, hidden);
    layer->value.weight = make_matrix(source, key, hidden);
    layer->output.weight = make_matrix(source, hidden, query);
    layer->gate.weight = make_matrix(source, config->intermediate_size, hidden);
    layer->up.weight = make_matrix(source, config->intermediate_size, hidden);
    layer->down.weight = make_matrix(source, hidden, config->intermediate_size);
}

static struct synthetic *make_source(struct cllm_gpu *gpu, const struct cllm_config *config, const uint16_t *pool, bool packed)
{
    struct cllm_error err;
    struct synthetic *source = calloc(1, sizeof *source);
    float *ones = malloc(config->hidden_size * sizeof *ones);
    if (!source || !ones) exit(1);
    source->gpu = gpu;
    source->packed = packed;
    source->base.resident = true;
    source->base.acquire = acquire;
    void *d_pool = allocate(source, POOL_WEIGHTS * 2), *d_ones = allocate(source, config->hidden_size * sizeof *ones);
    source->d_pool = d_pool;
    source->d_ones = d_ones;
    source->d_histogram = allocate(source, CLLM_PACK12_BINS * sizeof(uint64_t));
    source->d_raw = allocate(source, (size_t)config->vocab_size * config->hidden_size * 2);
    for (uint32_t i = 0; i < config->hidden_size; i++) ones[i] = 1;
    stop_on(cllm_gpu_upload(gpu, d_pool, pool, POOL_WEIGHTS * 2, &err), &err);
    stop_on(cllm_gpu_upload(gpu, d_ones, ones, config->hidden_size * sizeof *ones, &err), &err);
    for (uint32_t i = 0; i < config->layer_count; i++) make_layer(source, config, &source->layers[i]);
    source->base.head = source->base.embedding = make_matrix(source, config->vocab_size, config->hidden_size);
    source->base.d_final_norm = source->d_ones;
    stop_on(cllm_gpu_finish(gpu, NULL, &err), &err);
    free(ones);
    return source;
}

static void free_source(struct synthetic *source)
{
    for (size_t i = 0; i < source->memory_count; i++) cllm_gpu_free(source->gpu, source->memory[i]);
    free(source);
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return values[count / 2];
}

/* Bytes read and written per second. */
static double measure_copy(void)
{
    const size_t bytes = (size_t)2 << 30;
    void *d_from, *d_to;
    double times[9];
    if (cudaMalloc(&d_from, bytes) || cudaMalloc(&d_to, bytes)) return 0;
    for (int i = 0; i < 9; i++) {
        const double start = now();
        cudaMemcpy(d_to, d_from, bytes, cudaMemcpyDeviceToDevice);
        cudaDeviceSynchronize();
        times[i] = now() - start;
    }
    cudaFree(d_from);
    cudaFree(d_to);
    return 2 * (double)bytes / median(times, 9);
}

struct figures {
    double tokens_per_second;
    double prompt_per_second;
    uint64_t digest; /* of the last logits */
};

static void run(struct cllm_forward *forward, const uint32_t *ids, size_t count)
{
    struct cllm_error err;
    const struct cllm_forward_input input = {.ids = ids, .id_count = count};
    stop_on(cllm_forward_run(forward, &input, &err), &err);
}

static struct figures measure(const struct shape *shape, struct synthetic *source, size_t prompt_count, size_t token_count)
{
    struct cllm_error err;
    struct figures figures = {0, 0, 1469598103934665603u};
    double prompt_times[3], times[RUNS_MAX];
    uint32_t ids[RUNS_MAX];
    for (size_t i = 0; i < RUNS_MAX; i++) ids[i] = (uint32_t)(i * 7919 % shape->config.vocab_size);
    for (int repetition = 0; repetition < 3; repetition++) {
        struct cllm_forward *forward;
        const struct cllm_forward_gpu_options options = {.context_size = (uint32_t)(prompt_count + token_count + 8),
                                                         .forms = source->packed ? 1u << CLLM_GPU_PACKED12 : 1u << CLLM_GPU_BF16};
        stop_on(cllm_forward_gpu_create(&shape->config, &source->base, &options, &forward, &err), &err);
        double start = now();
        if (prompt_count) run(forward, ids, prompt_count);
        prompt_times[repetition] = now() - start;
        for (size_t i = 0; i < token_count + 8; i++) {
            start = now();
            run(forward, ids + i, 1);
            if (i >= 8) times[i - 8] = now() - start;
        }
        for (uint32_t i = 0; i < forward->vocab_size; i++) {
            uint32_t bits;
            memcpy(&bits, &forward->logits[i], sizeof bits);
            figures.digest = (figures.digest ^ bits) * 1099511628211u;
        }
        cllm_forward_destroy(forward);
    }
    figures.tokens_per_second = 1 / median(times, token_count);
    figures.prompt_per_second = (double)prompt_count / median(prompt_times, 3);
    return figures;
}

int main(int argc, char **argv)
{
    const char *model = "all", *form = "both";
    size_t token_count = 64, prompt_count = 512;
    for (int option; (option = getopt(argc, argv, "m:n:p:f:")) != -1;) {
        if (option == 'm') model = optarg;
        else if (option == 'f') form = optarg;
        else if (option == 'n') token_count = strtoul(optarg, NULL, 10);
        else if (option == 'p') prompt_count = strtoul(optarg, NULL, 10);
        else return 2;
    }
    if (token_count < 1 || token_count > RUNS_MAX - 8 || prompt_count > RUNS_MAX) return 2;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return 0;
    uint16_t *pool = make_pool();
    const double copy = measure_copy();
    printf("\n%s, synthetic Gaussian weights; device copy %.2f TB/s (read and written)\n", cllm_gpu_name(gpu), copy * 1e-12);
    printf("%-16s %-7s %9s %10s %12s %9s %11s  %s\n", "shape", "weights", "GB", "tokens/s", "weights TB/s", "of copy",
           "prompt t/s", "digest of logits");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int packed = 0; packed < 2; packed++) {
            if (strcmp(model, "all") && strcmp(model, shapes[i].name)) continue;
            if (strcmp(form, "both") && strcmp(form, packed ? "packed" : "raw")) continue;
            struct synthetic *source = make_source(gpu, &shapes[i].config, pool, packed);
            const struct figures figures = measure(&shapes[i], source, prompt_count, token_count);
            const double rate = figures.tokens_per_second * (double)source->weight_bytes;
            printf("%-16s %-7s %9.3f %10.1f %12.2f %8.1f%% %11.0f  %016llx\n", shapes[i].name, packed ? "packed" : "raw",
                   (double)source->weight_bytes * 1e-9, figures.tokens_per_second, rate * 1e-12, 100 * rate / copy,
                   figures.prompt_per_second, (unsigned long long)figures.digest);
            fflush(stdout);
            free_source(source);
        }
    }
    free(pool);
    cllm_gpu_destroy(gpu);
    return 0;
}

#endif

/* test_gpu_forward.c - the forward pass on the GPU: near the float32 one on the CPU, and the same bits whatever form the weights
 * have, on small random models that between them use every feature. */
#include "forward_cpu.h"
#include "forward_gpu.h"
#include "gpu_source.h"
#include "pack12.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NMSE_LIMIT 1e-5
#define NMSE_LIMIT_BF16 3e-5 /* with activations in BF16; where everything is rounded to it, 1.2e-5 to 4.9e-5 were seen */
#define IDENTITY_TOKENS 256

static uint64_t random_state = 1;

/* Marsaglia, "Xorshift RNGs", 2003. */
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Sum of uniform numbers: bell-shaped, mean 0, variance 1. */
static float next_gaussian(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) sum += (float)(next_random() >> 40) * 0x1p-24f;
    return sum - 6;
}

/* ------------------------------------------------------------------------------------------------------------ models */

struct model_spec {
    const char *name;
    struct cllm_config config;
    enum cllm_weight_type type;
    enum cllm_weight_type value_type; /* of the value matrices */
};

static const struct model_spec specs[] = {
    {"whole groups, grouped heads",
     {.hidden_size = 512,
      .layer_count = 3,
      .intermediate_size = 1536,
      .vocab_size = 1001,
      .head_count = 8,
      .kv_head_count = 2,
      .head_dim = 64,
      .norm_epsilon = 1e-5f,
      .rope = {.theta = 10000}},
     CLLM_WEIGHT_BF16,
     CLLM_WEIGHT_BF16},
    {"part groups, biases, sliding window",
     {.hidden_size = 192,
      .layer_count = 2,
      .intermediate_size = 520,
      .vocab_size = 320,
      .head_count = 6,
      .kv_head_count = 2,
      .head_dim = 32,
      .norm_epsilon = 1e-6f,
      .sliding_window = 40,
      .qkv_bias = true,
      .attention_output_bias = true,
      .mlp_bias = true,
      .rope = {.type = CLLM_ROPE_LINEAR, .theta = 10000, .factor = 2}},
     CLLM_WEIGHT_BF16,
     CLLM_WEIGHT_BF16},
    {"sizes that align with nothing, tied head",
     {.hidden_size = 70,
      .layer_count = 2,
      .intermediate_size = 1037,
      .vocab_size = 97,
      .head_count = 5,
      .kv_head_count = 5,
      .head_dim = 6,
      .norm_epsilon = 1e-5f,
      .tied_head = true,
      .rope = {.type = CLLM_ROPE_DYNAMIC, .theta = 10000, .factor = 4, .original_length = 64}},
     CLLM_WEIGHT_BF16,
     CLLM_WEIGHT_BF16},
    {"large heads, many to one, forms mixed",
     {.hidden_size = 256,
      .layer_count = 2,
      .intermediate_size = 1024,
      .vocab_size = 512,
      .head_count = 12,
      .kv_head_count = 1,
      .head_dim = 160,
      .norm_epsilon = 1e-5f,
      .rope = {.type = CLLM_ROPE_YARN,
               .theta = 10000,
               .factor = 4,
               .beta_fast = 32,
               .beta_slow = 1,
               .attention_factor = 1.138629436,
               .original_length = 64,
               .truncate = true}},
     CLLM_WEIGHT_BF16,
     CLLM_WEIGHT_F32},
    {"F16",
     {.hidden_size = 320,
      .layer_count = 2,
      .intermediate_size = 900,
      .vocab_size = 256,
      .head_count = 3,
      .kv_head_count = 3,
      .head_dim = 128,
      .norm_epsilon = 1e-5f,
      .rope = {.type = CLLM_ROPE_LLAMA3,
               .theta = 500000,
               .factor = 8,
               .low_freq_factor = 1,
               .high_freq_factor = 4,
               .original_length = 64}},
     CLLM_WEIGHT_F16,
     CLLM_WEIGHT_F16},
    {"F32",
     {.hidden_size = 576,
      .layer_count = 2,
      .intermediate_size = 1100,
      .vocab_size = 400,
      .head_count = 9,
      .kv_head_count = 3,
      .head_dim = 64,
      .norm_epsilon = 1e-5f,
      .rope = {.theta = 10000}},
     CLLM_WEIGHT_F32,
     CLLM_WEIGHT_F32},
};
#define SPEC_COUNT (sizeof specs / sizeof *specs)

static const struct cllm_tensor present; /* a weight with a tensor is there */

static uint16_t bf16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Normal numbers only. */
static uint16_t f16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const int exponent = (int)(bits >> 23 & 255) - 112;
    if (exponent <= 0) return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)exponent << 10 | (bits >> 13 & 1023));
}

/* One weight in a hundred is far smaller or exactly 0, so that packed rows have patches, some of them many. */
static struct cllm_weight make_weight(uint32_t row_count, uint32_t column_count, enum cllm_weight_type type, float mean,
                                      float spread)
{
    const size_t count = (size_t)row_count * column_count;
    struct cllm_weight weight = {&present, NULL, row_count, column_count, type};
    void *elements = aligned_alloc(64, (count * 4 + 63) / 64 * 64);
    assert_non_null(elements);
    for (size_t i = 0; i < count; i++) {
        float value = mean + spread * next_gaussian();
        if (next_random() % 100 == 0) value *= ldexpf(1, -(int)(next_random() % 120));
        if (type == CLLM_WEIGHT_F32) ((float *)elements)[i] = value;
        if (type == CLLM_WEIGHT_F16) ((uint16_t *)elements)[i] = f16_from_float(value);
        if (type == CLLM_WEIGHT_BF16) ((uint16_t *)elements)[i] = bf16_from_float(value);
    }
    weight.elements = elements;
    return weight;
}

static struct cllm_linear make_linear(const struct model_spec *spec, uint32_t row_count, uint32_t column_count, bool has_bias)
{
    struct cllm_linear linear = {.weight = make_weight(row_count, column_count, spec->type, 0, 1 / sqrtf((float)column_count))};
    if (has_bias) linear.bias = make_weight(row_count, 1, spec->type, 0, 0.3f);
    return linear;
}

static void make_layer(const struct model_spec *spec, struct cllm_layer *layer)
{
    const struct cllm_config *config = &spec->config;
    const uint32_t hidden = config->hidden_size, query = config->head_count * config->head_dim;
    const uint32_t key = config->kv_head_count * config->head_dim;
    layer->attention_norm = make_weight(hidden, 1, spec->type, 1, 0.2f);
    layer->mlp_norm = make_weight(hidden, 1, spec->type, 1, 0.2f);
    layer->query = make_linear(spec, query, hidden, config->qkv_bias);
    layer->key = make_linear(spec, key, hidden, config->qkv_bias);
    layer->value = make_linear(&(struct model_spec){.type = spec->value_type}, key, hidden, config->qkv_bias);
    layer->output = make_linear(spec, hidden, query, config->attention_output_bias);
    layer->gate = make_linear(spec, config->intermediate_size, hidden, config->mlp_bias);
    layer->up = make_linear(spec, config->intermediate_size, hidden, config->mlp_bias);
    layer->down = make_linear(spec, hidden, config->intermediate_size, config->mlp_bias);
}

static struct cllm_model *make_model(const struct model_spec *spec)
{
    struct cllm_model *model = calloc(1, sizeof *model);
    assert_non_null(model);
    model->config = spec->config;
    if (spec->config.rope.attention_factor == 0) model->config.rope.attention_factor = 1;
    model->embedding = make_weight(spec->config.vocab_size, spec->config.hidden_size, spec->type, 0, 1);
    model->head = spec->config.tied_head ? model->embedding
                                         : make_weight(spec->config.vocab_size, spec->config.hidden_size, spec->type, 0,
                                                       1 / sqrtf((float)spec->config.hidden_size));
    model->final_norm = make_weight(spec->config.hidden_size, 1, spec->type, 1, 0.2f);
    model->layers = calloc(spec->config.layer_count, sizeof *model->layers);
    assert_non_null(model->layers);
    for (uint32_t i = 0; i < spec->config.layer_count; i++) make_layer(spec, &model->layers[i]);
    return model;
}

static void free_linear(struct cllm_linear *linear)
{
    free((void *)linear->weight.elements);
    free((void *)linear->bias.elements);
}

static void free_model(struct cllm_model *model)
{
    for (uint32_t i = 0; i < model->config.layer_count; i++) {
        struct cllm_layer *layer = &model->layers[i];
        struct cllm_linear *linears[] = {&layer->query, &layer->key, &layer->value, &layer->output,
                                         &layer->gate,  &layer->up,  &layer->down};
        for (int j = 0; j < 7; j++) free_linear(linears[j]);
        free((void *)layer->attention_norm.elements);
        free((void *)layer->mlp_norm.elements);
    }
    if (!model->config.tied_head) free((void *)model->head.elements);
    free((void *)model->embedding.elements);
    free((void *)model->final_norm.elements);
    free(model->layers);
    free(model);
}

/* -------------------------------------------------------------------------------------------------------------- runs */

/* A context, or null with the test skipped. */
static struct cllm_gpu *open_gpu(void)
{
    struct cllm_gpu *gpu = NULL;
    struct cllm_error err;
    if (cllm_gpu_create(0, &gpu, &err)) {
        print_message("skipped: %s\n", err.message);
        skip();
    }
    return gpu;
}

static void check(enum cllm_status status, const struct cllm_error *err)
{
    if (status) fail_msg("%s", err->message);
}

struct record {
    float *logits; /* of every position */
    uint32_t vocab_size;
    size_t count;
};

static enum cllm_status keep_logits(void *user, const float *logits, struct cllm_error *err)
{
    struct record *record = user;
    (void)err;
    memcpy(record->logits + record->count++ * record->vocab_size, logits, record->vocab_size * sizeof *logits);
    return CLLM_OK;
}

static struct record make_record(const struct cllm_model *model, size_t count)
{
    struct record record = {malloc(count * model->config.vocab_size * sizeof(float)), model->config.vocab_size, 0};
    assert_non_null(record.logits);
    return record;
}

/* Logits of all positions; `step` tokens a run. */
static struct record run_ids(struct cllm_forward *forward, const struct cllm_model *model, const uint32_t *ids, size_t count,
                             size_t step)
{
    struct cllm_error err;
    struct record record = make_record(model, count);
    for (size_t i = 0; i < count; i += step) {
        const struct cllm_forward_input input = {
            .ids = ids + i, .id_count = count - i < step ? count - i : step, .logits = keep_logits, .user = &record};
        check(cllm_forward_run(forward, &input, &err), &err);
    }
    cllm_forward_destroy(forward);
    assert_int_equal(record.count, count);
    return record;
}

struct gpu_run {
    enum gpu_source_kind kind;
    size_t step;
    uint32_t prompt_tile;
};

static struct record run_gpu(struct cllm_gpu *gpu, const struct cllm_model *model, const uint32_t *ids, size_t count,
                             struct gpu_run run)
{
    struct cllm_error err;
    struct gpu_source *source;
    struct cllm_forward *forward;
    check(gpu_source_create(gpu, model, run.kind, &source, &err), &err);
    const struct cllm_forward_gpu_options options = {
        .context_size = (uint32_t)count, .prompt_tile = run.prompt_tile, .forms = gpu_source_forms(source)};
    check(cllm_forward_gpu_create(&model->config, gpu_source_base(source), &options, &forward, &err), &err);
    struct record record = run_ids(forward, model, ids, count, run.step);
    gpu_source_destroy(source);
    return record;
}

static struct record run_cpu(const struct cllm_model *model, const uint32_t *ids, size_t count, size_t step)
{
    struct cllm_error err;
    struct cllm_forward *forward;
    const struct cllm_forward_cpu_options options = {.context_size = (uint32_t)count};
    check(cllm_forward_cpu_create(model, &options, &forward, &err), &err);
    return run_ids(forward, model, ids, count, step);
}

static uint32_t *make_ids(const struct cllm_model *model, size_t count)
{
    uint32_t *ids = malloc(count * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < count; i++) ids[i] = (uint32_t)(next_random() % model->config.vocab_size);
    return ids;
}

static double mean_square_error(const struct record *found, const struct record *truth)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < truth->count * truth->vocab_size; i++) {
        const double difference = (double)found->logits[i] - truth->logits[i];
        error += difference * difference;
        power += (double)truth->logits[i] * truth->logits[i];
    }
    return error / power;
}

static void assert_same_bits(const struct record *a, const struct record *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->logits, b->logits, a->count * a->vocab_size * sizeof(float));
}

/* ------------------------------------------------------------------------------------------------------------- tests */

/* Token by token; `step` above 1 is a prompt. */
static void compare_with_cpu(size_t count, size_t step, uint32_t prompt_tile, double limit)
{
    struct cllm_gpu *gpu = open_gpu();
    for (size_t i = 0; i < SPEC_COUNT; i++) {
        struct cllm_model *model = make_model(&specs[i]);
        uint32_t *ids = make_ids(model, count);
        struct record truth = run_cpu(model, ids, count, step);
        struct record found = run_gpu(gpu, model, ids, count, (struct gpu_run){GPU_SOURCE_RAW, step, prompt_tile});
        const double error = mean_square_error(&found, &truth);
        print_message("%-45s NMSE %.2e\n", specs[i].name, error);
        if (!(error <= limit)) fail_msg("%s: normalised mean square error %g", specs[i].name, error);
        free(truth.logits);
        free(found.logits);
        free(ids);
        free_model(model);
    }
    cllm_gpu_destroy(gpu);
}

static void test_tokens_are_near_the_cpu(void **state)
{
    (void)state;
    compare_with_cpu(150, 1, 1, NMSE_LIMIT);
}

static void test_prompts_are_near_the_cpu(void **state)
{
    (void)state;
    compare_with_cpu(150, 150, 64, NMSE_LIMIT_BF16);
    compare_with_cpu(150, 150, 512, NMSE_LIMIT_BF16);
}

static void compare_forms(struct gpu_run run)
{
    struct cllm_gpu *gpu = open_gpu();
    for (size_t i = 0; i < SPEC_COUNT; i++) {
        struct cllm_model *model = make_model(&specs[i]);
        uint32_t *ids = make_ids(model, IDENTITY_TOKENS);
        struct record raw = run_gpu(gpu, model, ids, IDENTITY_TOKENS, run);
        for (enum gpu_source_kind kind = GPU_SOURCE_RAW; kind <= GPU_SOURCE_CHANGING; kind++) {
            run.kind = kind;
            struct record other = run_gpu(gpu, model, ids, IDENTITY_TOKENS, run);
            print_message("%s, kind %d\n", specs[i].name, (int)kind);
            assert_same_bits(&raw, &other);
            free(other.logits);
        }
        run.kind = GPU_SOURCE_RAW;
        free(raw.logits);
        free(ids);
        free_model(model);
    }
    cllm_gpu_destroy(gpu);
}

static void test_tokens_have_the_same_bits_in_every_form_and_repetition(void **state)
{
    (void)state;
    compare_forms((struct gpu_run){GPU_SOURCE_RAW, 1, 1});
}

static void test_prompts_have_the_same_bits_in_every_form_and_repetition(void **state)
{
    (void)state;
    static const uint32_t tiles[] = {20, 64, 96, 512}; /* products of each size */
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        compare_forms((struct gpu_run){GPU_SOURCE_RAW, 200, tiles[i]});
    }
}

/* Every 16-bit pattern, in windows that hold some of them. */
static void test_packing_restores_every_bit_pattern(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    const struct cllm_gpu_shape shapes[] = {{128, 512}, {64, 1024}, {37, 1800}, {1, 65536}, {65536, 1}, {1021, 71}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t count = (size_t)shapes[s].row_count * shapes[s].column_count;
        uint16_t *weights = malloc(count * 2), *restored = malloc(count * 2);
        assert_true(weights && restored);
        for (size_t i = 0; i < count; i++) weights[i] = (uint16_t)(s % 2 ? next_random() : i * 40503);
        struct cllm_model model = {.config = {.layer_count = 0}};
        model.embedding = model.head =
            (struct cllm_weight){&present, weights, shapes[s].row_count, shapes[s].column_count, CLLM_WEIGHT_BF16};
        struct gpu_source *source;
        struct cllm_error err;
        check(gpu_source_create(gpu, &model, GPU_SOURCE_PACKED, &source, &err), &err);
        const struct cllm_gpu_matrix *matrix = &gpu_source_base(source)->head;
        assert_int_equal(matrix->form, CLLM_GPU_PACKED12);
        void *d_restored;
        check(cllm_gpu_allocate(gpu, count * 2, &d_restored, &err), &err);
        check(cllm_pack12_unpack(matrix, d_restored, cllm_gpu_stream(gpu), &err), &err);
        check(cllm_gpu_download(gpu, restored, d_restored, count * 2, &err), &err);
        check(cllm_gpu_finish(gpu, NULL, &err), &err);
        assert_memory_equal(weights, restored, count * 2);
        cllm_gpu_free(gpu, d_restored);
        gpu_source_destroy(source);
        free(weights);
        free(restored);
    }
    cllm_gpu_destroy(gpu);
}

static void test_a_source_that_fails_ends_the_run(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    struct cllm_model *model = make_model(&specs[1]);
    struct gpu_source *source;
    struct cllm_forward *forward;
    struct cllm_error err;
    const uint32_t id = 3;
    check(gpu_source_create(gpu, model, GPU_SOURCE_CHANGING, &source, &err), &err);
    const struct cllm_forward_gpu_options options = {.context_size = 4, .forms = gpu_source_forms(source)};
    check(cllm_forward_gpu_create(&model->config, gpu_source_base(source), &options, &forward, &err), &err);
    const struct cllm_forward_input input = {.ids = &id, .id_count = 1};
    check(cllm_forward_run(forward, &input, &err), &err);
    gpu_source_break(source);
    assert_int_equal(cllm_forward_run(forward, &input, &err), CLLM_E_CORRUPT);
    assert_int_equal(forward->position_count, 1);
    cllm_forward_destroy(forward);
    gpu_source_destroy(source);
    free_model(model);
    cllm_gpu_destroy(gpu);
}

static void test_a_cache_larger_than_the_device_is_refused_with_its_size(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    struct cllm_model *model = make_model(&specs[0]);
    struct gpu_source *source;
    struct cllm_forward *forward;
    struct cllm_error err;
    check(gpu_source_create(gpu, model, GPU_SOURCE_RAW, &source, &err), &err);
    const struct cllm_forward_gpu_options options = {.context_size = UINT32_C(1) << 31, .prompt_tile = 1};
    assert_int_equal(cllm_forward_gpu_create(&model->config, gpu_source_base(source), &options, &forward, &err), CLLM_E_NOMEM);
    assert_null(forward);
    assert_non_null(strstr(err.message, "expected"));
    gpu_source_destroy(source);
    free_model(model);
    cllm_gpu_destroy(gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing_restores_every_bit_pattern),
        cmocka_unit_test(test_tokens_are_near_the_cpu),
        cmocka_unit_test(test_tokens_have_the_same_bits_in_every_form_and_repetition),
        cmocka_unit_test(test_prompts_are_near_the_cpu),
        cmocka_unit_test(test_prompts_have_the_same_bits_in_every_form_and_repetition),
        cmocka_unit_test(test_a_source_that_fails_ends_the_run),
        cmocka_unit_test(test_a_cache_larger_than_the_device_is_refused_with_its_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

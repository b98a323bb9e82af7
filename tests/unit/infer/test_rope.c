/* Rotary frequencies against the formulas evaluated in double precision by an independent program, and from config.json on
 * against those that the functions of transformers 5.24 give. */
#include "rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

struct expected {
    int index;
    double frequency;
};

static void check(const struct cllm_rope_config *config, struct cllm_rope_extent extent, const struct expected *expected,
                  size_t count)
{
    float frequencies[64];
    cllm_rope_frequencies(config, extent, frequencies);
    for (size_t i = 0; i < count; i++) {
        const double found = frequencies[expected[i].index];
        if (fabs(found - expected[i].frequency) > 1e-6 * expected[i].frequency) {
            fail_msg("frequency %d: found %.9e, expected %.9e", expected[i].index, found, expected[i].frequency);
        }
    }
}

#define CHECK(config, head_dim, length, ...)                                                                                     \
    do {                                                                                                                         \
        const struct expected expected[] = {__VA_ARGS__};                                                                        \
        check(config, (struct cllm_rope_extent){head_dim, length}, expected, sizeof expected / sizeof *expected);                \
    } while (0)

static void test_default_and_linear(void **state)
{
    (void)state;
    const struct cllm_rope_config plain = {.type = CLLM_ROPE_DEFAULT, .theta = 10000};
    CHECK(&plain, 64, 100000, {0, 1}, {16, 0.01}, {24, 0.001});
    const struct cllm_rope_config linear = {.type = CLLM_ROPE_LINEAR, .theta = 10000, .factor = 4};
    CHECK(&linear, 64, 1, {0, 0.25}, {16, 0.0025}, {24, 0.00025});
}

static void test_dynamic_depends_on_length(void **state)
{
    (void)state;
    const struct cllm_rope_config config = {.type = CLLM_ROPE_DYNAMIC, .theta = 10000, .factor = 2, .original_length = 2048};
    CHECK(&config, 64, 2048, {0, 1}, {16, 0.01});
    CHECK(&config, 64, 6000, {0, 1}, {1, 7.126105451e-01}, {10, 3.376933021e-02}, {31, 2.744224169e-05});
}

static void test_llama3_scales_long_waves(void **state)
{
    (void)state;
    const struct cllm_rope_config config = {.type = CLLM_ROPE_LLAMA3,
                                            .theta = 500000,
                                            .factor = 8,
                                            .low_freq_factor = 1,
                                            .high_freq_factor = 4,
                                            .original_length = 8192};
    CHECK(&config, 128, 1, {0, 1}, {16, 3.760603093e-02}, {28, 3.211445995e-03}, {30, 1.371893568e-03}, {32, 5.248461610e-04},
          {34, 1.785078128e-04}, {40, 3.428102196e-05}, {63, 3.068925989e-07});
}

static void test_yarn_ramp(void **state)
{
    (void)state;
    struct cllm_rope_config config = {.type = CLLM_ROPE_YARN,
                                      .theta = 10000,
                                      .factor = 16,
                                      .original_length = 4096,
                                      .beta_fast = 32,
                                      .beta_slow = 1,
                                      .truncate = true};
    CHECK(&config, 128, 1, {0, 1}, {10, 2.371373706e-01}, {20, 5.623413252e-02}, {25, 2.244714171e-02}, {32, 5.673076923e-03},
          {40, 8.817889629e-04}, {50, 4.686838808e-05}, {63, 7.217387404e-06});
    config.truncate = false;
    CHECK(&config, 128, 1, {20, 5.623413252e-02}, {25, 2.306087128e-02}, {32, 5.696214401e-03}, {45, 9.785687467e-05},
          {46, 8.334508951e-05});
}

/* A description's frequencies with heads of 64; `fields` end a config.json. */
static void check_description(const char *fields, uint32_t length, const struct expected *expected, size_t count)
{
    char json[768];
    struct cllm_config config;
    struct cllm_error err;
    snprintf(json, sizeof json,
             "{\"model_type\":\"llama\",\"hidden_size\":256,\"num_hidden_layers\":1,\"intermediate_size\":1,\"vocab_size\":1,"
             "\"num_attention_heads\":4,%s}",
             fields);
    const struct cllm_json_text text = {json, strlen(json)};
    if (cllm_config_parse(text, (struct cllm_json_text){0}, &config, &err)) fail_msg("%s\n%s", json, err.message);
    check(&config.rope, (struct cllm_rope_extent){64, length}, expected, count);
}

#define CHECK_DESCRIPTION(fields, length, ...)                                                                                   \
    do {                                                                                                                         \
        const struct expected expected[] = {__VA_ARGS__};                                                                        \
        check_description(fields, length, expected, sizeof expected / sizeof *expected);                                         \
    } while (0)

static void test_dynamic_description_agrees_with_the_reference(void **state)
{
    (void)state;
    static const char dynamic[] = "\"max_position_embeddings\":2048,\"original_max_position_embeddings\":512,\"rope_scaling\":"
                                  "{\"type\":\"dynamic\",\"factor\":2,\"original_max_position_embeddings\":1024}";
    CHECK_DESCRIPTION(dynamic, 1500, {1, 7.498942018e-01}, {16, 9.999999776e-03}, {31, 1.333521504e-04});
    CHECK_DESCRIPTION(dynamic, 2048, {1, 7.498942018e-01}, {16, 9.999999776e-03}, {31, 1.333521504e-04});
    CHECK_DESCRIPTION(dynamic, 2049, {1, 7.498705983e-01}, {16, 9.994963184e-03}, {31, 1.332220418e-04});
    CHECK_DESCRIPTION(dynamic, 6000, {1, 7.126105428e-01}, {16, 4.422174767e-03}, {31, 2.744224184e-05});
}

static void test_original_length_of_a_description_agrees_with_the_reference(void **state)
{
    (void)state;
#define LENGTHS "\"max_position_embeddings\":8192,\"rope_theta\":"
#define ROOT ",\"original_max_position_embeddings\":1024"
#define LLAMA3                                                                                                                   \
    ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"               \
    "\"original_max_position_embeddings\":2048}"
#define YARN ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":null,\"original_max_position_embeddings\":2048}"
    CHECK_DESCRIPTION(LENGTHS "500000" LLAMA3, 1, {1, 6.636012793e-01}, {10, 1.656044088e-02}, {12, 3.840582911e-03},
                      {14, 4.452376743e-04}, {31, 3.767322596e-07});
    CHECK_DESCRIPTION(LENGTHS "500000" ROOT LLAMA3, 1, {1, 6.636012793e-01}, {10, 1.027611550e-02}, {12, 1.312569482e-03},
                      {14, 4.014307633e-04}, {31, 3.767322596e-07});
    CHECK_DESCRIPTION(LENGTHS "10000" YARN, 1, {1, 7.498942018e-01}, {10, 4.974557459e-02}, {16, 5.384615157e-03},
                      {25, 1.874735462e-04}, {31, 3.333803761e-05});
    CHECK_DESCRIPTION(LENGTHS "10000" ROOT YARN, 1, {1, 7.498942018e-01}, {10, 3.730917722e-02}, {16, 2.596153878e-03},
                      {25, 9.373677312e-05}, {31, 1.666901881e-05});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_and_linear),
        cmocka_unit_test(test_dynamic_depends_on_length),
        cmocka_unit_test(test_llama3_scales_long_waves),
        cmocka_unit_test(test_yarn_ramp),
        cmocka_unit_test(test_dynamic_description_agrees_with_the_reference),
        cmocka_unit_test(test_original_length_of_a_description_agrees_with_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

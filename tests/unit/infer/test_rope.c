/* Rotary frequencies against the formulas evaluated in double precision by an independent program. */
#include "rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_and_linear),
        cmocka_unit_test(test_dynamic_depends_on_length),
        cmocka_unit_test(test_llama3_scales_long_waves),
        cmocka_unit_test(test_yarn_ramp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Choosing tokens: each filter on its own, their order, and the random numbers. */
#include "sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct cllm_sampler_options neutral = {.temperature = 1, .top_p = 1, .repeat_penalty = 1};

static struct cllm_sampler *create(struct cllm_sampler_options options, uint32_t vocab_size)
{
    struct cllm_sampler *sampler;
    struct cllm_error err;
    assert_int_equal(cllm_sampler_create(&options, vocab_size, &sampler, &err), CLLM_OK);
    return sampler;
}

/* Which of up to 32 tokens ever come in `draws` draws, as a bit mask; and how often each. */
static uint32_t draw_many(struct cllm_sampler_options options, const float *logits, uint32_t vocab_size, int draws,
                          int counts[32])
{
    struct cllm_sampler *sampler = create(options, vocab_size);
    uint32_t drawn = 0;
    memset(counts, 0, 32 * sizeof *counts);
    for (int i = 0; i < draws; i++) {
        const uint32_t id = cllm_sampler_choose(sampler, logits);
        assert_true(id < vocab_size);
        drawn |= 1u << id;
        counts[id]++;
    }
    cllm_sampler_destroy(sampler);
    return drawn;
}

static void test_random_numbers_are_pcg32(void **state)
{
    (void)state;
    /* what the published demonstration program prints for seed 42, stream 54 */
    static const uint32_t expected[] = {0xa15c02b7, 0x7b47f409, 0xba1d3330, 0x83d2f293, 0xbfa4784b, 0xcbed606e};
    struct cllm_random random = cllm_random_seed(42);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(cllm_random_next(&random), expected[i]);
    }
}

static void test_greedy_takes_lowest_id_of_ties(void **state)
{
    (void)state;
    const float logits[] = {1, 3, -2, 3, 3, 0};
    struct cllm_sampler_options options = neutral;
    options.temperature = 0;
    struct cllm_sampler *sampler = create(options, 6);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cllm_sampler_choose(sampler, logits), 1);
    }
    cllm_sampler_destroy(sampler);
}

static void test_greedy_ignores_filters_and_seed(void **state)
{
    (void)state;
    const float logits[] = {0.5f, -1, 7, 6.9f};
    struct cllm_sampler *sampler = create((struct cllm_sampler_options){0, 0.1, 0.9, 1, 99, 1}, 4);
    assert_int_equal(cllm_sampler_choose(sampler, logits), 2);
    cllm_sampler_destroy(sampler);
}

static void test_nan_is_never_chosen(void **state)
{
    (void)state;
    const float logits[] = {NAN, 1, NAN, 1.5f};
    int counts[32];
    assert_int_equal(draw_many(neutral, logits, 4, 200, counts), 1u << 1 | 1u << 3);
    struct cllm_sampler_options greedy = neutral;
    greedy.temperature = 0;
    assert_int_equal(draw_many(greedy, logits, 4, 1, counts), 1u << 3);
}

static void test_strange_logits_give_some_token(void **state)
{
    (void)state;
    const float cases[][3] = {
        {-INFINITY, -INFINITY, -INFINITY}, {NAN, NAN, NAN}, {INFINITY, 0, INFINITY}, {3e38f, -3e38f, 3e38f}, {0, 0, 0}};
    const struct cllm_sampler_options options[] = {
        neutral, {0, 1, 0, 1, 0, 0}, {0.8, 0.95, 0.05, 1.1, 7, 40}, {1e-9, 0.5, 1, 1, 0, 2}};
    int counts[32];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (size_t o = 0; o < sizeof options / sizeof *options; o++) {
            draw_many(options[o], cases[c], 3, 20, counts);
        }
    }
}

static void test_top_k_keeps_the_most_likely(void **state)
{
    (void)state;
    const float logits[] = {0, 0.5f, 0.25f, 1, 0.75f, 0.9f};
    int counts[32];
    struct cllm_sampler_options options = neutral;
    options.top_k = 3;
    assert_int_equal(draw_many(options, logits, 6, 500, counts), 1u << 3 | 1u << 4 | 1u << 5);
    options.top_k = 1;
    assert_int_equal(draw_many(options, logits, 6, 50, counts), 1u << 3);
    options.top_k = 0;
    assert_int_equal(draw_many(options, logits, 6, 500, counts), 0x3F);
    options.top_k = 1000;
    assert_int_equal(draw_many(options, logits, 6, 500, counts), 0x3F);
}

/* Probabilities 0.5, 0.25, 0.125, 0.125. */
static const float halving[] = {-1.3862944f, -0.6931472f, -2.0794415f, -2.0794415f};

static void test_top_p_keeps_the_fewest_that_reach_it(void **state)
{
    (void)state;
    int counts[32];
    struct cllm_sampler_options options = neutral;
    options.top_p = 0.4;
    assert_int_equal(draw_many(options, halving, 4, 300, counts), 1u << 1);
    options.top_p = 0.6;
    assert_int_equal(draw_many(options, halving, 4, 300, counts), 1u << 1 | 1u << 0);
    options.top_p = 0.8;
    assert_int_equal(draw_many(options, halving, 4, 300, counts), 1u << 1 | 1u << 0 | 1u << 2);
    options.top_p = 0.99;
    assert_int_equal(draw_many(options, halving, 4, 300, counts), 0xF);
}

static void test_top_p_counts_within_top_k(void **state)
{
    (void)state;
    int counts[32];
    struct cllm_sampler_options options = neutral;
    options.top_k = 2; /* leaves 2/3 and 1/3 */
    options.top_p = 0.6;
    assert_int_equal(draw_many(options, halving, 4, 300, counts), 1u << 1);
}

static void test_min_p_is_relative_to_the_first(void **state)
{
    (void)state;
    int counts[32];
    struct cllm_sampler_options options = neutral;
    options.min_p = 0.4;
    assert_int_equal(draw_many(options, halving, 4, 300, counts), 1u << 1 | 1u << 0);
    options.min_p = 0.2;
    assert_int_equal(draw_many(options, halving, 4, 300, counts), 0xF);
    options.min_p = 1;
    assert_int_equal(draw_many(options, halving, 4, 300, counts), 1u << 1);
}

static void test_draws_follow_the_probabilities(void **state)
{
    (void)state;
    enum { DRAWS = 40000 };
    int counts[32];
    draw_many(neutral, halving, 4, DRAWS, counts);
    const double expected[] = {0.25, 0.5, 0.125, 0.125};
    for (int i = 0; i < 4; i++) {
        assert_float_equal(counts[i] / (double)DRAWS, expected[i], 0.01);
    }
    struct cllm_sampler_options hot = neutral;
    hot.temperature = 2; /* probabilities to the power of 1/2: 1, 0.7071, 0.5, 0.5 over their sum */
    draw_many(hot, halving, 4, DRAWS, counts);
    assert_float_equal(counts[1] / (double)DRAWS, 0.36939, 0.01);
    assert_float_equal(counts[0] / (double)DRAWS, 0.26120, 0.01);
}

static void test_same_seed_gives_same_tokens(void **state)
{
    (void)state;
    float logits[32];
    uint32_t tokens[3][50];
    for (int i = 0; i < 32; i++) {
        logits[i] = (float)(i * 37 % 32) / 8;
    }
    for (int run = 0; run < 3; run++) {
        struct cllm_sampler_options options = neutral;
        options.seed = run == 2 ? 8 : 7;
        struct cllm_sampler *sampler = create(options, 32);
        for (int i = 0; i < 50; i++) {
            tokens[run][i] = cllm_sampler_choose(sampler, logits);
        }
        cllm_sampler_destroy(sampler);
    }
    assert_memory_equal(tokens[0], tokens[1], sizeof tokens[0]);
    assert_memory_not_equal(tokens[0], tokens[2], sizeof tokens[0]);
}

static void test_repeat_penalty_works_on_both_signs(void **state)
{
    (void)state;
    struct cllm_sampler_options options = neutral;
    options.temperature = 0;
    options.repeat_penalty = 2;
    struct cllm_sampler *sampler = create(options, 4);
    const float positive[] = {3, 2, 1, 0}, negative[] = {-1, -1.5f, -3, -4};
    assert_int_equal(cllm_sampler_choose(sampler, positive), 0);
    cllm_sampler_accept(sampler, 0);
    cllm_sampler_accept(sampler, 0); /* once is enough */
    cllm_sampler_accept(sampler, 4000000000u);
    assert_int_equal(cllm_sampler_choose(sampler, positive), 1);
    assert_int_equal(cllm_sampler_choose(sampler, negative), 1);
    cllm_sampler_destroy(sampler);
}

/* A large vocabulary, against sorting: the filters must agree with the definition. */
static void test_top_k_of_many_with_ties(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    float *logits = malloc(COUNT * sizeof *logits);
    for (int i = 0; i < COUNT; i++) {
        logits[i] = (float)(i * 7919 % 97);
    }
    struct cllm_sampler_options options = neutral;
    options.top_k = 20; /* 51 or 52 tokens have logit 96: the lowest ids of them count */
    options.temperature = 1000;
    struct cllm_sampler *sampler = create(options, COUNT);
    for (int draw = 0; draw < 300; draw++) {
        const uint32_t id = cllm_sampler_choose(sampler, logits);
        int before = 0;
        for (uint32_t i = 0; i < id; i++) {
            before += logits[i] == 96;
        }
        assert_true(logits[id] == 96 && before < 20);
    }
    cllm_sampler_destroy(sampler);
    free(logits);
}

static void test_bad_options_are_refused(void **state)
{
    (void)state;
    const struct cllm_sampler_options bad[] = {
        {-1, 1, 0, 1, 0, 0},   {NAN, 1, 0, 1, 0, 0}, {1, 0, 0, 1, 0, 0}, {1, 1.5, 0, 1, 0, 0},      {1, NAN, 0, 1, 0, 0},
        {1, 1, -0.1, 1, 0, 0}, {1, 1, 1.1, 1, 0, 0}, {1, 1, 0, 0, 0, 0}, {1, 1, 0, INFINITY, 0, 0}, {1e30, 1, 0, 1, 0, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cllm_sampler *sampler;
        struct cllm_error err;
        assert_int_equal(cllm_sampler_create(&bad[i], 10, &sampler, &err), CLLM_E_USAGE);
        assert_null(sampler);
        assert_non_null(strstr(err.message, "expected"));
    }
}

/* Whether a token is one of the `limit` most likely, by the definition. */
static bool is_among(const float *logits, uint32_t count, uint32_t id, uint32_t limit)
{
    const float logit = isnan(logits[id]) ? -INFINITY : logits[id];
    uint32_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float other = isnan(logits[i]) ? -INFINITY : logits[i];
        before += other > logit || (other == logit && i < id);
    }
    return before < limit;
}

/* Sizes around those that are looked at together, with ties, holes and a penalty that raises or lowers. */
static void test_selection_is_that_of_the_definition(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 63, 64, 65, 127, 129, 200, 1000};
    static const uint32_t limits[] = {0, 1, 2, 3, 64, 100}; /* 0: greedy */
    static const double penalties[] = {1, 0.5, 1.5};
    float logits[1000], penalized[1000];
    uint32_t random = 1;
    for (size_t c = 0; c < sizeof counts / sizeof *counts * (sizeof limits / sizeof *limits) * 3; c++) {
        const uint32_t count = counts[c / 3 % 9], limit = limits[c / 27];
        struct cllm_sampler_options options = neutral;
        options.repeat_penalty = penalties[c % 3];
        options.top_k = limit;
        options.temperature = limit ? 1000 : 0; /* all that are left are about as likely */
        struct cllm_sampler *sampler = create(options, count);
        for (uint32_t i = 0; i < count; i++) {
            random = random * 1664525 + 1013904223;
            logits[i] = random >> 28 == 0 ? NAN : random >> 28 == 1 ? -INFINITY : (float)(random >> 20 & 255) / 16 - 8;
            penalized[i] = logits[i];
            if (random >> 8 & 3) continue;
            cllm_sampler_accept(sampler, i);
            const float penalty = (float)options.repeat_penalty;
            penalized[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
        }
        for (int draw = 0; draw < 20; draw++) {
            assert_true(is_among(penalized, count, cllm_sampler_choose(sampler, logits), limit ? limit : 1));
        }
        cllm_sampler_destroy(sampler);
    }
}

/* The filters by their definition: sorts, and adds up in double precision. */
static int more_likely(const void *left, const void *right)
{
    const float l = *(const float *)left, r = *(const float *)right;
    return l > r ? -1 : l < r;
}

/* How many of the sorted logits pass, if top_p is reached by `factor` times what it says. */
static uint32_t count_passing(const float *sorted, uint32_t count, const struct cllm_sampler_options *options, double factor)
{
    const uint32_t limit = options->top_k && options->top_k < count ? options->top_k : count;
    double sum = 0, reached = 0;
    uint32_t passing = 0;
    for (uint32_t i = 0; i < limit; i++) sum += exp((double)sorted[i] - sorted[0]);
    for (; passing < limit; passing++) {
        const double share = exp((double)sorted[passing] - sorted[0]);
        if (passing && (share < options->min_p || (options->top_p < 1 && reached >= options->top_p * sum * factor))) break;
        reached += share;
    }
    return passing;
}

/* What is drawn is among those that pass, and where they are few each of them comes. */
static void check_filters(const float *logits, uint32_t count, struct cllm_sampler_options options)
{
    enum { DRAWS = 3000, FEW = 100 };
    float *sorted = malloc(count * sizeof *sorted);
    int *times = calloc(count, sizeof *times);
    memcpy(sorted, logits, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, more_likely);
    const uint32_t least = count_passing(sorted, count, &options, 1 - 1e-4);
    const uint32_t most = count_passing(sorted, count, &options, 1 + 1e-4);
    options.temperature = 1000; /* all that are left are about as likely */
    struct cllm_sampler *sampler = create(options, count);
    for (int i = 0; i < (least < FEW ? DRAWS : 100); i++) times[cllm_sampler_choose(sampler, logits)]++;
    for (uint32_t id = 0; id < count; id++) {
        if (times[id]) assert_true(logits[id] >= sorted[most - 1]);
        if (!times[id] && least < FEW) assert_true(logits[id] <= sorted[least - 1]);
    }
    cllm_sampler_destroy(sampler);
    free(times);
    free(sorted);
}

static void test_filters_are_those_of_the_definition(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    static const struct cllm_sampler_options cases[] = {
        {1, 1, 0, 1, 1, 0},       {1, 0.9, 0, 1, 2, 0},    {1, 0.3, 0, 1, 3, 0},     {1, 1, 0.05, 1, 4, 0},
        {1, 0.95, 0.05, 1, 5, 0}, {1, 1, 0.9, 1, 6, 0},    {1, 0.99999, 0, 1, 7, 0}, {1, 0.95, 0.05, 1, 8, 40},
        {1, 0.5, 0, 1, 9, 500},   {1, 0.01, 0, 1, 10, 64}, {1, 1, 0, 1, 11, 63},     {1, 1, 1e-12, 1, 12, 2999},
        {1, 1, 0.5, 1, 13, 200}};
    static const float spreads[] = {0.01f, 1, 4, 60};
    float *logits = malloc(COUNT * sizeof *logits);
    uint32_t random = 5;
    for (size_t c = 0; c < 4 * sizeof cases / sizeof *cases; c++) {
        const uint32_t count = c % 3 ? COUNT - (uint32_t)c : (uint32_t)c + 1;
        for (uint32_t i = 0; i < count; i++) {
            float sum = 0;
            for (int k = 0; k < 4; k++) {
                random = random * 1664525 + 1013904223;
                sum += (float)(random >> 8) * 0x1p-24f;
            }
            logits[i] = (sum - 2) * spreads[c / (sizeof cases / sizeof *cases)];
        }
        check_filters(logits, count, cases[c % (sizeof cases / sizeof *cases)]);
    }
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_numbers_are_pcg32),
        cmocka_unit_test(test_greedy_takes_lowest_id_of_ties),
        cmocka_unit_test(test_greedy_ignores_filters_and_seed),
        cmocka_unit_test(test_nan_is_never_chosen),
        cmocka_unit_test(test_strange_logits_give_some_token),
        cmocka_unit_test(test_top_k_keeps_the_most_likely),
        cmocka_unit_test(test_top_p_keeps_the_fewest_that_reach_it),
        cmocka_unit_test(test_top_p_counts_within_top_k),
        cmocka_unit_test(test_min_p_is_relative_to_the_first),
        cmocka_unit_test(test_draws_follow_the_probabilities),
        cmocka_unit_test(test_same_seed_gives_same_tokens),
        cmocka_unit_test(test_repeat_penalty_works_on_both_signs),
        cmocka_unit_test(test_top_k_of_many_with_ties),
        cmocka_unit_test(test_selection_is_that_of_the_definition),
        cmocka_unit_test(test_filters_are_those_of_the_definition),
        cmocka_unit_test(test_bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

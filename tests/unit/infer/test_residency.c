/* Plans for budgets, with the sizes of a 1.1 B and an 8 B model. */
#include "residency.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define LAYERS 22

static struct cllm_residency_bytes layer_bytes[LAYERS];

static const struct cllm_residency_forward forwards[] = {
    {512, 44 * MIB, 60 * MIB, 200 * MIB},
    {32, 44 * MIB, 8 * MIB, 24 * MIB},
    {1, 44 * MIB, 2 * MIB, 0},
};

/* 1.1 B parameters, context 2048. */
static struct cllm_residency_request request_of(uint64_t budget_bytes)
{
    for (int i = 0; i < LAYERS; i++) layer_bytes[i] = (struct cllm_residency_bytes){88 * MIB, 67 * MIB, 59 * MIB};
    return (struct cllm_residency_request){
        .layers = layer_bytes,
        .layer_count = LAYERS,
        .head = {125 * MIB, 95 * MIB, 84 * MIB},
        .embedding = {125 * MIB, 95 * MIB, 84 * MIB},
        .vector_bytes = 400000,
        .descriptor_bytes = 50000,
        .part_bytes = 25000,
        .chunk_bytes = 70000,
        .forwards = forwards,
        .forward_count = 3,
        .budget_bytes = budget_bytes,
        .host_bytes = 64 * GIB,
        .cache_layers = CLLM_CACHE_LAYERS_AUTO,
        .link_bytes_per_second = 55e9,
        .device_bytes_per_second = 4.4e12,
    };
}

static struct cllm_residency_plan decide(const struct cllm_residency_request *request)
{
    struct cllm_residency_plan plan;
    struct cllm_error err = {0};
    if (cllm_residency_decide(request, &plan, &err)) fail_msg("%s", err.message);
    assert_true(plan.total_bytes <= plan.peak_bytes);
    assert_true(plan.peak_bytes <= request->budget_bytes);
    return plan;
}

static uint32_t count_streamed(const struct cllm_residency_plan *plan)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->layer_count; i++) count += cllm_residency_is_streamed(plan, i);
    return count;
}

static void test_ample_memory_keeps_everything_packed(void **state)
{
    (void)state;
    const struct cllm_residency_request request = request_of(100 * GIB);
    const struct cllm_residency_plan plan = decide(&request);
    assert_int_equal(plan.streamed_count, 0);
    assert_false(plan.raw || plan.embedding_on_host || plan.from_disk);
    assert_int_equal(plan.forward.prompt_tile, 512);
    assert_int_equal(plan.stream_bytes, 0);
    assert_int_equal(plan.read_bytes_per_token, (95 + 22 * 67) * MIB + 400000);
    assert_true(plan.ceiling_per_second > 2665 && plan.ceiling_per_second < 2680);
}

static void test_raw_takes_raw_bytes(void **state)
{
    (void)state;
    struct cllm_residency_request request = request_of(100 * GIB);
    request.choice = CLLM_RESIDENCY_RAW;
    const struct cllm_residency_plan plan = decide(&request);
    assert_true(plan.raw);
    assert_int_equal(plan.read_bytes_per_token, (125 + 22 * 88) * MIB + 400000);
    assert_true(plan.weight_bytes >= (2 * 125 + 22 * 88) * MIB);
}

static void test_embedding_moves_before_a_layer_is_streamed(void **state)
{
    (void)state;
    struct cllm_residency_request request = request_of(100 * GIB);
    const struct cllm_residency_plan ample = decide(&request);
    request.budget_bytes = ample.total_bytes - 100 * MIB; /* smaller buffers are enough for that */
    struct cllm_residency_plan plan = decide(&request);
    while (plan.streamed_count == 0 && !plan.embedding_on_host) {
        request.budget_bytes -= 8 * MIB;
        plan = decide(&request);
    }
    assert_true(plan.embedding_on_host);
    assert_int_equal(plan.streamed_count, 0);
    assert_int_equal(plan.host_bytes, 125 * MIB);
}

static void test_more_memory_never_streams_more(void **state)
{
    (void)state;
    uint32_t before = LAYERS;
    for (uint64_t budget = 400 * MIB; budget < 2500 * MIB; budget += 10 * MIB) {
        const struct cllm_residency_request request = request_of(budget);
        const struct cllm_residency_plan plan = decide(&request);
        assert_true(plan.streamed_count <= before);
        assert_int_equal(count_streamed(&plan), plan.streamed_count);
        assert_int_equal(plan.streamed_bytes_per_token, plan.streamed_count * 59 * MIB);
        before = plan.streamed_count;
    }
    assert_int_equal(before, 0);
}

static void test_a_budget_is_used_up(void **state)
{
    (void)state;
    for (uint64_t budget = 600 * MIB; budget < 1600 * MIB; budget += 50 * MIB) {
        const struct cllm_residency_request request = request_of(budget);
        const struct cllm_residency_plan plan = decide(&request);
        assert_true(plan.streamed_count > 0);
        assert_true(plan.peak_bytes + (68 + 64) * MIB > budget); /* a layer, and a step of buffers */
    }
}

static void test_streamed_layers_are_spread_evenly(void **state)
{
    (void)state;
    for (uint32_t streamed = 1; streamed <= LAYERS; streamed++) {
        const struct cllm_residency_plan plan = {.layer_count = LAYERS, .streamed_count = streamed};
        assert_int_equal(count_streamed(&plan), streamed);
        uint32_t shortest = LAYERS, longest = 0, distance = 0;
        for (uint32_t i = 0; i < 2 * LAYERS; i++) { /* from the last layer it goes on with the first */
            distance++;
            if (!cllm_residency_is_streamed(&plan, i % LAYERS)) continue;
            if (i >= LAYERS && distance < shortest) shortest = distance;
            if (i >= LAYERS && distance > longest) longest = distance;
            distance = 0;
        }
        assert_true(longest - shortest <= 1);
    }
}

/* The plan for the budget that the refusal of this one names; a mebibyte less is refused. */
static struct cllm_residency_plan decide_named(struct cllm_residency_request request)
{
    struct cllm_residency_plan plan;
    struct cllm_error err = {0};
    char found[64];
    assert_int_equal(cllm_residency_decide(&request, &plan, &err), CLLM_E_LIMIT);
    snprintf(found, sizeof found, "found a budget of %llu MiB", (unsigned long long)(request.budget_bytes / MIB));
    assert_non_null(strstr(err.message, found));
    const char *needed = strstr(err.message, "at least ");
    assert_non_null(needed);
    request.budget_bytes = (strtoull(needed + 9, NULL, 10) - 1) * MIB;
    assert_int_equal(cllm_residency_decide(&request, &plan, NULL), CLLM_E_LIMIT);
    request.budget_bytes += MIB;
    return decide(&request);
}

static void test_too_small_a_budget_names_one_that_works(void **state)
{
    (void)state;
    static const enum cllm_residency choices[] = {CLLM_RESIDENCY_AUTO, CLLM_RESIDENCY_RAW, CLLM_RESIDENCY_PACKED,
                                                  CLLM_RESIDENCY_STREAM};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        struct cllm_residency_request request = request_of(100 * MIB);
        request.choice = choices[i];
        decide_named(request);
    }
}

/* Whose slots and scratch are more than its layers. */
static void test_a_small_model_names_the_budget_that_keeps_it_whole(void **state)
{
    (void)state;
    static const struct cllm_residency_forward forward = {1, 4096, 65536, 0};
    struct cllm_residency_request request = request_of(MIB);
    for (int i = 0; i < LAYERS; i++) layer_bytes[i] = (struct cllm_residency_bytes){90000, 70000, 60000};
    request.head = request.embedding = (struct cllm_residency_bytes){400000, 300000, 270000};
    request.forwards = &forward;
    request.forward_count = 1;
    assert_int_equal(decide_named(request).streamed_count, 0);
}

static void test_stream_keeps_only_cached_layers(void **state)
{
    (void)state;
    struct cllm_residency_request request = request_of(100 * GIB);
    request.choice = CLLM_RESIDENCY_STREAM;
    assert_int_equal(decide(&request).streamed_count, LAYERS);
    request.cache_layers = 5;
    assert_int_equal(decide(&request).streamed_count, LAYERS - 5);
    request.cache_layers = LAYERS + 1;
    assert_int_equal(decide(&request).streamed_count, 0);
    request.choice = CLLM_RESIDENCY_AUTO;
    request.cache_layers = 7;
    assert_int_equal(decide(&request).streamed_count, LAYERS - 7);
    request.budget_bytes = 500 * MIB;
    struct cllm_residency_plan plan;
    assert_int_equal(cllm_residency_decide(&request, &plan, NULL), CLLM_E_LIMIT);
}

static void test_little_host_memory_streams_from_disk(void **state)
{
    (void)state;
    struct cllm_residency_request request = request_of(700 * MIB);
    struct cllm_residency_plan plan = decide(&request);
    assert_false(plan.from_disk);
    assert_int_equal(plan.host_bytes, plan.streamed_bytes_per_token + 125 * MIB);
    request.host_bytes = plan.host_bytes - 1;
    plan = decide(&request);
    assert_true(plan.from_disk);
    assert_int_equal(plan.host_bytes, 125 * MIB);
}

static void test_ceiling_is_that_of_the_slower_path(void **state)
{
    (void)state;
    struct cllm_residency_request request = request_of(700 * MIB);
    const struct cllm_residency_plan plan = decide(&request);
    const double link = 55e9 / (double)plan.streamed_bytes_per_token;
    assert_true(plan.ceiling_per_second > 0.999 * link && plan.ceiling_per_second < 1.001 * link);
    request.link_bytes_per_second = 1e15;
    assert_true(decide(&request).ceiling_per_second < 4.4e12 / (double)plan.read_bytes_per_token);
    request.link_bytes_per_second = request.device_bytes_per_second = 0;
    assert_true(decide(&request).ceiling_per_second == 0);
}

static void test_small_budgets_get_small_slots(void **state)
{
    (void)state;
    struct cllm_residency_request request = request_of(4 * GIB);
    const uint64_t ample = decide(&request).slot_bytes;
    request.budget_bytes = 450 * MIB;
    const struct cllm_residency_plan plan = decide(&request);
    assert_true(plan.slot_bytes < ample && plan.slot_bytes >= request.chunk_bytes && plan.slot_count >= 2);
    request.chunk_bytes = 9 * MIB;
    request.budget_bytes = 4 * GIB;
    assert_int_equal(decide(&request).slot_bytes, 9 * MIB);
}

/* Some layers more are streamed, so that prompts need not go position by position; but buffers take no more than a quarter. */
static void test_prompts_keep_their_tiles(void **state)
{
    (void)state;
    static const struct cllm_residency_forward large[] = {
        {512, 44 * MIB, 100 * MIB, 200 * MIB},
        {32, 44 * MIB, 10 * MIB, 90 * MIB},
        {1, 44 * MIB, 2 * MIB, 0},
    };
    static const struct {
        uint64_t budget_bytes;
        uint32_t prompt_tile;
    } cases[] = {{1300 * MIB, 32}, {1024 * MIB, 32}, {512 * MIB, 32}, {401 * MIB, 32}, {399 * MIB, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cllm_residency_request request = request_of(cases[i].budget_bytes);
        request.forwards = large;
        const struct cllm_residency_plan plan = decide(&request);
        assert_true(plan.streamed_count > 0);
        assert_int_equal(plan.forward.prompt_tile, cases[i].prompt_tile);
    }
}

static void test_a_tied_head_stays(void **state)
{
    (void)state;
    struct cllm_residency_request request = request_of(600 * MIB);
    request.embedding = (struct cllm_residency_bytes){0};
    const struct cllm_residency_plan plan = decide(&request);
    assert_false(plan.embedding_on_host);
    assert_int_equal(plan.host_bytes, plan.streamed_bytes_per_token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ample_memory_keeps_everything_packed),
        cmocka_unit_test(test_raw_takes_raw_bytes),
        cmocka_unit_test(test_embedding_moves_before_a_layer_is_streamed),
        cmocka_unit_test(test_more_memory_never_streams_more),
        cmocka_unit_test(test_a_budget_is_used_up),
        cmocka_unit_test(test_streamed_layers_are_spread_evenly),
        cmocka_unit_test(test_too_small_a_budget_names_one_that_works),
        cmocka_unit_test(test_a_small_model_names_the_budget_that_keeps_it_whole),
        cmocka_unit_test(test_stream_keeps_only_cached_layers),
        cmocka_unit_test(test_little_host_memory_streams_from_disk),
        cmocka_unit_test(test_ceiling_is_that_of_the_slower_path),
        cmocka_unit_test(test_small_budgets_get_small_slots),
        cmocka_unit_test(test_prompts_keep_their_tiles),
        cmocka_unit_test(test_a_tied_head_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

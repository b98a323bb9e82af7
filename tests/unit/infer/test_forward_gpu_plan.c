/* test_forward_gpu_plan.c - what is known of a forward pass on a GPU before there is one. */
#include "forward_gpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void test_wide_heads_are_refused_before_loading(void **state)
{
    (void)state;
    struct cllm_error err;
    struct cllm_config config = {.head_dim = 256};
    assert_int_equal(cllm_forward_gpu_check(&config, &err), CLLM_OK);
    config.head_dim = 258;
    assert_int_equal(cllm_forward_gpu_check(&config, &err), CLLM_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "258"));
}

/* The largest sizes that config.json may give and the GPU runs, with the longest context: the sums keep their order. */
static void test_sizes_of_the_largest_model_do_not_overflow(void **state)
{
    (void)state;
    const struct cllm_config config = {.hidden_size = 1u << 18,
                                       .layer_count = 1u << 10,
                                       .intermediate_size = 1u << 20,
                                       .vocab_size = 1u << 22,
                                       .head_count = 1u << 12,
                                       .kv_head_count = 1u << 12,
                                       .head_dim = 256};
    const struct cllm_forward_gpu_options options = {.context_size = 1u << 28, .forms = 1u << CLLM_GPU_PACKED12};
    const struct cllm_forward_gpu_bytes bytes = cllm_forward_gpu_plan(&config, &options);
    assert_true(bytes.cache == UINT64_C(1) << 60);
    assert_true(bytes.activations > 0 && bytes.activations < bytes.cache);
    assert_true(bytes.scratch > 0 && bytes.scratch < bytes.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wide_heads_are_refused_before_loading),
        cmocka_unit_test(test_sizes_of_the_largest_model_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

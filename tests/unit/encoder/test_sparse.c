/* What the sparse form leaves out, and which heads of it can be. */
#include "sparse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const uint8_t elements[2 * 10] = {1, 0, 0, 0, 0, 0x80, 0, 1, 0, 0, 0, 0, 0, 0x80, 0, 0x81, 0, 0, 2, 0};

static void test_zeros_of_both_signs_are_counted(void **state)
{
    (void)state;
    uint32_t negative;
    assert_int_equal(cllm_sparse_count_zeros(elements, 2, 10, &negative), 6);
    assert_int_equal(negative, 2);
    assert_int_equal(cllm_sparse_count_zeros(elements, 1, 1, &negative), 0);
    assert_int_equal(negative, 0);
}

static void test_split_leaves_out_zeros_and_keeps_signs_where_they_go(void **state)
{
    (void)state;
    static const uint8_t present[] = {1, 0, 0, 1, 0, 0x81, 2, 0}, without_signs[] = {1, 0, 0, 0x80, 0, 1, 0, 0x80, 0, 0x81, 2, 0};
    uint8_t masks[2], signs[2], out[20];
    cllm_sparse_split(elements, 2, 10, UINT32_MAX, masks, signs, out);
    assert_memory_equal(out, present, sizeof present);
    assert_int_equal(masks[0], 0x89);
    assert_int_equal(masks[1], 2);
    assert_int_equal(signs[0], 0x12); /* the second and the fifth zero */
    cllm_sparse_split(elements, 2, 10, UINT32_MAX, masks, NULL, out);
    assert_memory_equal(out, without_signs, sizeof without_signs);
    assert_int_equal(masks[0], 0xCD);
}

static void test_split_leaves_out_no_more_zeros_than_asked(void **state)
{
    (void)state;
    static const uint8_t present[] = {1, 0, 0, 1, 0, 0, 0, 0, 0, 0x80, 0, 0x81, 0, 0, 2, 0};
    uint8_t masks[2], signs[2], out[20];
    cllm_sparse_split(elements, 2, 10, 2, masks, signs, out);
    assert_memory_equal(out, present, sizeof present);
    assert_int_equal(masks[0], 0xF9);
    assert_int_equal(masks[1], 3);
}

static void test_what_remains_is_a_multiple_of_8_unless_no_zero_would(void **state)
{
    (void)state;
    assert_int_equal(cllm_sparse_absent_count(1000, 400), 400);
    assert_int_equal(cllm_sparse_absent_count(1000, 399), 392);
    assert_int_equal(cllm_sparse_absent_count(1000, 401), 400);
    assert_int_equal(cllm_sparse_absent_count(1000, 3), 3);
}

static void test_masks_that_are_0_are_left_out_where_most_are(void **state)
{
    (void)state;
    uint8_t masks[100] = {0}, symbols[100];
    masks[9] = 0x80, masks[99] = 1;
    assert_int_equal(cllm_sparse_mask_symbols(masks, 100, symbols), 13 + 2);
    assert_int_equal(symbols[1], 2);
    assert_int_equal(symbols[12], 8);
    assert_int_equal(symbols[13], 0x80);
    assert_int_equal(symbols[14], 1);
    memset(masks, 3, 13);
    assert_int_equal(cllm_sparse_mask_symbols(masks, 100, symbols), 100);
    assert_memory_equal(symbols, masks, 100);
}

static void test_head_fits_or_not(void **state)
{
    (void)state;
    static const struct {
        struct cllm_sparse_head head; /* of 1001 elements in 500 bytes: 126 masks, 16 masks of masks */
        bool fits;
    } cases[] = {
        {{300, 0, 126, 400}, true},         {{300, 76, 126, 400}, true},
        {{300, 75, 126, 400}, false},       {{300, 77, 126, 400}, false},
        {{484, 0, 126, 400}, true},         {{485, 0, 126, 400}, false},
        {{408, 76, 126, 400}, true},        {{409, 76, 126, 400}, false},
        {{300, 0, 126, 0}, false},          {{300, 0, 126, 1}, true},
        {{300, 0, 126, 1000}, true},        {{300, 0, 126, 1001}, false},
        {{300, 0, 127, 400}, false},        {{300, 0, 125, 400}, true},
        {{300, 0, 17, 400}, true},          {{300, 0, 16, 400}, false},
        {{300, 0, 0, 400}, false},          {{0, 0, 126, 400}, true},
        {{300, 0, 126, UINT32_MAX}, false}, {{UINT32_MAX, UINT32_MAX, 126, 400}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(cllm_sparse_head_fits(&cases[i].head, 1001, 500), cases[i].fits);
    const struct cllm_sparse_head least = {0, 0, 1, 1};
    for (uint32_t stored_bytes = 0; stored_bytes < 20; stored_bytes++)
        assert_int_equal(cllm_sparse_head_fits(&least, 2, stored_bytes), stored_bytes >= 16);
    assert_false(cllm_sparse_head_fits(&least, 1, 100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeros_of_both_signs_are_counted),
        cmocka_unit_test(test_split_leaves_out_zeros_and_keeps_signs_where_they_go),
        cmocka_unit_test(test_split_leaves_out_no_more_zeros_than_asked),
        cmocka_unit_test(test_what_remains_is_a_multiple_of_8_unless_no_zero_would),
        cmocka_unit_test(test_masks_that_are_0_are_left_out_where_most_are),
        cmocka_unit_test(test_head_fits_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What the table of dtypes promises. */
#include "cllm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void test_dtype_names_lists_the_22_that_find_knows(void **state)
{
    (void)state;
    unsigned count = 0;
    for (const char *at = cllm_dtype_names(); *at;) {
        size_t name_bytes = strcspn(at, " ");
        const struct cllm_dtype *dtype = cllm_dtype_find(at, name_bytes);
        assert_non_null(dtype);
        assert_int_equal(strlen(dtype->name), name_bytes);
        count++;
        at += name_bytes + (at[name_bytes] == ' ');
    }
    assert_int_equal(count, 22);
}

static void test_dtype_find_wants_the_exact_spelling(void **state)
{
    (void)state;
    assert_null(cllm_dtype_find("bf16", 4));
    assert_null(cllm_dtype_find("BF16 ", 5));
    assert_null(cllm_dtype_find("BF1", 3));
    assert_null(cllm_dtype_find("F8_E4M3FN", 9));
    assert_null(cllm_dtype_find("", 0));
    assert_non_null(cllm_dtype_find("F8_E4M3FNUZ and more", 11));
}

static void test_dtype_float_fields_fill_the_element(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t element_bits;
        uint8_t shift, bits;
    } expected[] = {
        {"F64", 64, 52, 11},      {"F32", 32, 23, 8},   {"BF16", 16, 7, 8},   {"F16", 16, 10, 5},
        {"F8_E5M2", 8, 2, 5},     {"F8_E4M3", 8, 3, 4}, {"F8_E8M0", 8, 0, 8}, {"F8_E4M3FNUZ", 8, 3, 4},
        {"F8_E5M2FNUZ", 8, 2, 5}, {"F6_E2M3", 6, 3, 2}, {"F6_E3M2", 6, 2, 3}, {"F4", 4, 1, 2},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const struct cllm_dtype *dtype = cllm_dtype_find(expected[i].name, strlen(expected[i].name));
        assert_non_null(dtype);
        assert_int_equal(dtype->kind, CLLM_KIND_FLOAT);
        assert_int_equal(dtype->element_bits, expected[i].element_bits);
        assert_int_equal(dtype->exponent_shift, expected[i].shift);
        assert_int_equal(dtype->exponent_bits, expected[i].bits);
    }
    const struct cllm_dtype *complex = cllm_dtype_find("C64", 3);
    assert_int_equal(complex->kind, CLLM_KIND_COMPLEX);
    assert_int_equal(complex->element_bits, 64);
    assert_int_equal(cllm_dtype_find("BOOL", 4)->exponent_bits, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtype_names_lists_the_22_that_find_knows),
        cmocka_unit_test(test_dtype_find_wants_the_exact_spelling),
        cmocka_unit_test(test_dtype_float_fields_fill_the_element),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Byte planes there and back. */
#include "container_builder.h"
#include "shuffle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void test_planes_hold_bytes_of_one_kind(void **state)
{
    (void)state;
    uint8_t planes[6];
    cllm_shuffle((const uint8_t *)"aAbBcC", 2, 3, planes);
    assert_memory_equal(planes, "abcABC", 6);
    cllm_shuffle((const uint8_t *)"aAbBcC", 3, 2, planes);
    assert_memory_equal(planes, "aBAcbC", 6);
}

static void test_unshuffle_undoes_shuffle(void **state)
{
    (void)state;
    struct test_random random = {7};
    uint8_t elements[8 * 100], planes[8 * 100], again[8 * 100];
    test_random_fill(&random, elements, sizeof elements);
    for (unsigned element_bytes = 1; element_bytes <= 8; element_bytes++) {
        for (uint32_t count = 0; count <= 100; count++) {
            cllm_shuffle(elements, element_bytes, count, planes);
            cllm_unshuffle(planes, element_bytes, count, again);
            assert_memory_equal(again, elements, element_bytes * count);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planes_hold_bytes_of_one_kind),
        cmocka_unit_test(test_unshuffle_undoes_shuffle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

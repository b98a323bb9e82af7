/* Which chunks share a code table. */
#include "container_builder.h"
#include "tables.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* Adds a chunk of BF16 exponents, as in weights, around `peak`. */
static unsigned assign(struct cllm_tables *tables, struct test_random *random, unsigned peak)
{
    uint64_t counts[256] = {0};
    for (unsigned i = 0; i < 32768; i++) counts[peak - (unsigned)__builtin_ctzll(test_random_next(random) | 1u << 20)]++;
    return cllm_tables_assign(tables, counts);
}

static void test_chunks_that_are_alike_share_a_table(void **state)
{
    (void)state;
    static struct cllm_tables tables;
    struct test_random random = {11};
    memset(&tables, 0, sizeof tables);
    for (unsigned k = 0; k < 64; k++) assert_int_equal(assign(&tables, &random, 120), 0);
    assert_int_equal(tables.count, 1);
}

static void test_chunks_of_another_scale_get_their_own_table(void **state)
{
    (void)state;
    static struct cllm_tables tables;
    struct test_random random = {12};
    memset(&tables, 0, sizeof tables);
    for (unsigned k = 0; k < 30; k++) assert_int_equal(assign(&tables, &random, k % 3 == 2 ? 110 : 120), k % 3 == 2);
    assert_int_equal(tables.count, 2);
    cllm_tables_finish(&tables);
    assert_int_equal(tables.table[0].length[120], 1);
    assert_int_equal(tables.table[1].length[110], 1);
}

static void test_tables_stay_within_their_number(void **state)
{
    (void)state;
    static struct cllm_tables tables;
    struct test_random random = {13};
    memset(&tables, 0, sizeof tables);
    for (unsigned k = 0; k < 20; k++) assert_in_range(assign(&tables, &random, 40 + 10 * k), 0, CLLM_GROUP_TABLES_MAX - 1);
    assert_int_equal(tables.count, CLLM_GROUP_TABLES_MAX);
}

static void test_every_symbol_of_a_chunk_has_a_code_in_its_table(void **state)
{
    (void)state;
    static struct cllm_tables tables;
    struct test_random random = {14};
    uint64_t counts[64][256];
    unsigned chosen[64];
    memset(&tables, 0, sizeof tables);
    memset(counts, 0, sizeof counts);
    for (unsigned k = 0; k < 64; k++) {
        for (unsigned i = 0; i < 1 + k * 5; i++) counts[k][test_random_next(&random) % (1 + k * 4)]++;
        chosen[k] = cllm_tables_assign(&tables, counts[k]);
    }
    cllm_tables_finish(&tables);
    for (unsigned k = 0; k < 64; k++) {
        for (unsigned s = 0; s < 256; s++) assert_true(counts[k][s] == 0 || tables.table[chosen[k]].length[s] > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_that_are_alike_share_a_table),
        cmocka_unit_test(test_chunks_of_another_scale_get_their_own_table),
        cmocka_unit_test(test_tables_stay_within_their_number),
        cmocka_unit_test(test_every_symbol_of_a_chunk_has_a_code_in_its_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

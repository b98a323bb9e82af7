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

static int assign_palette(struct cllm_tables *tables, unsigned first, unsigned count, uint64_t bits, uint8_t to[256])
{
    struct cllm_palette own = {.count = 0};
    uint64_t counts[256] = {0};
    for (unsigned i = 0; i < count; i++) counts[cllm_palette_add(&own, UINT64_C(0xFFF0) - first - i)] = 100;
    return cllm_tables_assign_palette(tables, &own, counts, 2, bits, to);
}

static void test_palettes_grow_until_they_are_full(void **state)
{
    (void)state;
    static struct cllm_tables tables;
    uint8_t to[256];
    memset(&tables, 0, sizeof tables);
    assert_int_equal(assign_palette(&tables, 0, 200, UINT64_MAX, to), 0);
    assert_int_equal(assign_palette(&tables, 10, 246, UINT64_MAX, to), 0);
    assert_int_equal(tables.palette[0].count, 256);
    assert_int_equal(assign_palette(&tables, 10, 247, UINT64_MAX, to), 1);
    assert_int_equal(assign_palette(&tables, 100, 100, 0, to), -1);
    assert_int_equal(tables.count, 2);
}

static void test_palettes_leave_a_table_for_other_chunks(void **state)
{
    (void)state;
    static struct cllm_tables tables;
    struct test_random random = {5};
    uint8_t to[256];
    memset(&tables, 0, sizeof tables);
    for (unsigned k = 0; k < 8; k++) {
        int expected = k + 1 < CLLM_GROUP_TABLES_MAX ? (int)k : -1;
        assert_int_equal(assign_palette(&tables, 256 * k, 256, UINT64_MAX, to), expected);
    }
    assert_int_equal(assign(&tables, &random, 120), CLLM_GROUP_TABLES_MAX - 1);
    assert_int_equal(assign(&tables, &random, 40), CLLM_GROUP_TABLES_MAX - 1);
}

static void test_values_of_a_palette_are_sorted_in_the_end(void **state)
{
    (void)state;
    static struct cllm_tables tables;
    uint8_t to[256];
    memset(&tables, 0, sizeof tables);
    assert_int_equal(assign_palette(&tables, 0, 150, UINT64_MAX, to), 0);
    assert_int_equal(assign_palette(&tables, 5, 190, UINT64_MAX, to), 0);
    cllm_tables_finish(&tables);
    const struct cllm_table *table = &tables.table[0];
    assert_int_equal(table->value_bytes, 2);
    assert_int_equal(cllm_table_values_bytes(table), 2 * 195);
    struct cllm_cursor cursor = cllm_cursor_over(table->values, 2 * 195);
    struct cllm_table parsed = *table;
    assert_int_equal(cllm_palette_parse(&cursor, 2, &parsed, NULL), CLLM_OK);
    for (unsigned i = 0; i < 190; i++) {
        unsigned symbol = tables.rank[0][to[i]];
        assert_int_equal(cllm_load_le16(table->values + (size_t)2 * symbol), 0xFFF0 - 5 - i);
        assert_int_equal(tables.counts[0][symbol], i < 145 ? 200 : 100);
    }
}

static void test_collecting_gives_up_beyond_256_values(void **state)
{
    (void)state;
    static uint8_t elements[2 * 600], indices[600];
    struct cllm_palette palette = {.count = 0}, other = {.count = 0};
    uint64_t counts[256] = {0};
    for (unsigned i = 0; i < 600; i++) cllm_store_le16(elements + (size_t)2 * i, (uint16_t)(i % 256 * 255 + 1));
    assert_true(cllm_palette_collect(&palette, elements, 2, 600, indices, counts));
    assert_int_equal(palette.count, 256);
    for (unsigned i = 0; i < 600; i++) assert_int_equal(palette.value[indices[i]], i % 256 * 255 + 1);
    assert_int_equal(counts[0], 3);
    cllm_store_le16(elements + 2 * 599, 0);
    assert_false(cllm_palette_collect(&other, elements, 2, 600, indices, counts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_that_are_alike_share_a_table),
        cmocka_unit_test(test_chunks_of_another_scale_get_their_own_table),
        cmocka_unit_test(test_tables_stay_within_their_number),
        cmocka_unit_test(test_every_symbol_of_a_chunk_has_a_code_in_its_table),
        cmocka_unit_test(test_palettes_grow_until_they_are_full),
        cmocka_unit_test(test_palettes_leave_a_table_for_other_chunks),
        cmocka_unit_test(test_values_of_a_palette_are_sorted_in_the_end),
        cmocka_unit_test(test_collecting_gives_up_beyond_256_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The best code: against exhaustive search, and at its limits. */
#include "codec.h"
#include "container_builder.h"
#include "layout.h"
#include "table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static uint64_t cost(const uint64_t counts[256], const struct cllm_table *table)
{
    uint64_t bits = 0;
    for (unsigned s = 0; s < 256; s++) bits += counts[s] * table->length[s];
    return bits;
}

#define ROOM (1u << CLLM_CODE_BITS_MAX)

/* Least cost of any complete code within the limit, by trying every length for every symbol: best[r] is the least cost of the
 * symbols so far when they take r of the 2^limit longest code words. */
static uint64_t exhaustive_cost(const uint64_t counts[256])
{
    static uint64_t best[ROOM + 1], next[ROOM + 1];
    memset(best, 0xFF, sizeof best);
    best[0] = 0;
    for (unsigned s = 0; s < 256; s++) {
        if (counts[s] == 0) continue;
        memset(next, 0xFF, sizeof next);
        for (unsigned length = 1; length <= CLLM_CODE_BITS_MAX; length++) {
            uint32_t takes = ROOM >> length;
            for (uint32_t r = takes; r <= ROOM; r++) {
                if (best[r - takes] == UINT64_MAX) continue;
                uint64_t total = best[r - takes] + counts[s] * length;
                if (total < next[r]) next[r] = total;
            }
        }
        memcpy(best, next, sizeof best);
    }
    return best[ROOM];
}

static void assert_optimal(const uint64_t counts[256])
{
    struct cllm_table table;
    cllm_table_build(counts, &table);
    assert_int_equal(cllm_table_check(&table, NULL), CLLM_OK);
    for (unsigned s = 0; s < 256; s++) assert_int_equal(table.length[s] == 0, counts[s] == 0);
    assert_true(cost(counts, &table) == exhaustive_cost(counts));
}

static void test_table_is_as_good_as_exhaustive_search(void **state)
{
    (void)state;
    struct test_random random = {21};
    for (unsigned round = 0; round < 200; round++) {
        uint64_t counts[256] = {0};
        unsigned symbol_count = round % 2 ? 2 + round % 7 : 2 + round;
        for (unsigned k = 0; k < symbol_count; k++) { /* of every order of magnitude, so that the limit binds at times */
            unsigned symbol;
            do symbol = (unsigned)(test_random_next(&random) >> 56);
            while (counts[symbol]);
            uint64_t value = test_random_next(&random);
            counts[symbol] = 1 + (value >> (24 + (value & 31)));
        }
        assert_optimal(counts);
    }
}

/* The cost of a Huffman code without a limit: the sum of all packages that pairing the two lightest makes. */
static uint64_t huffman_cost(const uint64_t counts[256])
{
    uint64_t weights[256], total = 0;
    unsigned count = 0;
    for (unsigned s = 0; s < 256; s++) {
        if (counts[s]) weights[count++] = counts[s];
    }
    while (count > 1) {
        for (unsigned pick = 0; pick < 2; pick++) { /* moves the lightest to the end */
            unsigned least = 0;
            for (unsigned i = 1; i < count - pick; i++) least = weights[i] < weights[least] ? i : least;
            uint64_t weight = weights[least];
            weights[least] = weights[count - 1 - pick];
            weights[count - 1 - pick] = weight;
        }
        weights[count - 2] += weights[count - 1];
        total += weights[count - 2];
        count--;
    }
    return total;
}

static void test_table_is_a_huffman_code_where_the_limit_does_not_bind(void **state)
{
    (void)state;
    struct test_random random = {22};
    for (unsigned round = 0; round < 200; round++) {
        uint64_t counts[256] = {0};
        unsigned symbol_count = 2 + round % 255;
        for (unsigned s = 0; s < symbol_count; s++) counts[255 - s] = 1000 + (test_random_next(&random) >> 52); /* nearly flat */
        struct cllm_table table;
        cllm_table_build(counts, &table);
        assert_int_equal(cllm_table_check(&table, NULL), CLLM_OK);
        assert_true(cost(counts, &table) == huffman_cost(counts));
    }
}

/* Fibonacci weights give the deepest Huffman trees. */
static void test_table_keeps_to_the_limit(void **state)
{
    (void)state;
    for (unsigned symbol_count = 2; symbol_count <= 60; symbol_count++) {
        uint64_t counts[256] = {0}, a = 1, b = 1;
        struct cllm_table table;
        unsigned longest = 0;
        for (unsigned s = 0; s < symbol_count; s++) {
            counts[s] = a;
            uint64_t next = a + b;
            a = b;
            b = next;
        }
        cllm_table_build(counts, &table);
        assert_int_equal(cllm_table_check(&table, NULL), CLLM_OK);
        for (unsigned s = 0; s < symbol_count; s++) {
            longest = table.length[s] > longest ? table.length[s] : longest;
            assert_true(s == 0 || table.length[s] <= table.length[s - 1]); /* the more often, the shorter */
        }
        assert_optimal(counts);
        if (symbol_count <= CLLM_CODE_BITS_MAX + 1) assert_true(cost(counts, &table) == huffman_cost(counts));
        if (symbol_count > CLLM_CODE_BITS_MAX) assert_int_equal(longest, CLLM_CODE_BITS_MAX);
        else assert_int_equal(longest, symbol_count - 1);
    }
}

static void test_table_of_equal_counts_is_flat_and_deterministic(void **state)
{
    (void)state;
    for (unsigned symbol_count = 2; symbol_count <= 256; symbol_count++) {
        uint64_t counts[256] = {0};
        struct cllm_table table, again;
        unsigned low = 0;
        for (unsigned s = 0; s < symbol_count; s++) counts[s] = 5;
        cllm_table_build(counts, &table);
        cllm_table_build(counts, &again);
        assert_memory_equal(&table, &again, sizeof table);
        assert_int_equal(cllm_table_check(&table, NULL), CLLM_OK);
        while (2u << low <= symbol_count) low++;
        for (unsigned s = 0; s < symbol_count; s++) {
            assert_true(table.length[s] == low || table.length[s] == low + 1);
            assert_true(s == 0 || table.length[s] <= table.length[s - 1]); /* of equals, the lower symbol is the longer one */
        }
    }
}

static void test_table_takes_every_histogram_of_the_extremes(void **state)
{
    (void)state;
    struct cllm_table table;
    uint64_t counts[256] = {0};
    counts[77] = 1;
    cllm_table_build(counts, &table);
    assert_int_equal(cllm_table_symbol_count(&table), 1);
    assert_int_equal(table.length[77], 1);
    for (unsigned s = 0; s < 256; s++) counts[s] = 1;
    counts[255] = (UINT64_C(1) << 48) - 300;
    cllm_table_build(counts, &table);
    assert_int_equal(cllm_table_check(&table, NULL), CLLM_OK);
    assert_int_equal(cllm_table_symbol_count(&table), 256);
    assert_int_equal(table.length[255], 1);
    for (unsigned s = 0; s < 256; s++) counts[s] = 0;
    counts[0] = 1;
    counts[255] = (UINT64_C(1) << 48) - 2;
    cllm_table_build(counts, &table);
    assert_true(table.length[0] == 1 && table.length[255] == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_as_good_as_exhaustive_search),
        cmocka_unit_test(test_table_is_a_huffman_code_where_the_limit_does_not_bind),
        cmocka_unit_test(test_table_keeps_to_the_limit),
        cmocka_unit_test(test_table_of_equal_counts_is_flat_and_deterministic),
        cmocka_unit_test(test_table_takes_every_histogram_of_the_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

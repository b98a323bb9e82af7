/* Every tier of instructions that this processor has writes the same bytes: a container does not depend on the machine. Buffers
 * have exactly the promised sizes, for the sanitizer. */
#include "codec.h"
#include "encode_float.h"
#include "float_builder.h"
#include "segment_bits.h"
#include "table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct result {
    uint64_t counts[256];
    uint8_t *symbols;
    uint8_t *planes;
    uint8_t *stored;
    size_t stored_bytes;
};

static struct result encode_with(enum cllm_cpu_tier tier, const struct cllm_layout *layout, const uint8_t *elements,
                                 uint32_t element_count)
{
    const struct cllm_float_encode_ops *ops = cllm_float_encode_ops(tier);
    size_t plane_bytes = cllm_float_plane_bytes(layout, element_count);
    struct result result = {.symbols = malloc(element_count),
                            .planes = malloc(plane_bytes),
                            .stored = malloc(cllm_float_encoded_bytes_max(layout, element_count))};
    struct cllm_table table;
    struct cllm_float_code code;
    ops->split(layout, elements, element_count, result.symbols, result.planes);
    ops->count(result.symbols, element_count, result.counts);
    cllm_table_build(result.counts, &table);
    cllm_float_code_init(&code, &table);
    memcpy(result.stored, result.planes, plane_bytes);
    result.stored_bytes = ops->encode(layout, &code, result.symbols, element_count, result.stored);
    return result;
}

static void free_result(struct result *result)
{
    free(result->symbols);
    free(result->planes);
    free(result->stored);
}

static void compare_tiers_on(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count)
{
    struct result expected = encode_with(CLLM_CPU_PORTABLE, layout, elements, element_count);
    for (enum cllm_cpu_tier tier = CLLM_CPU_AVX2; tier <= cllm_cpu_tier(); tier++) {
        struct result result = encode_with(tier, layout, elements, element_count);
        assert_memory_equal(result.counts, expected.counts, sizeof expected.counts);
        assert_memory_equal(result.symbols, expected.symbols, element_count);
        assert_int_equal(result.stored_bytes, expected.stored_bytes);
        assert_memory_equal(result.stored, expected.stored, expected.stored_bytes);
        free_result(&result);
    }
    free_result(&expected);
}

static void compare_tiers(struct test_random *random, const struct cllm_layout *layout, enum test_content content,
                          uint32_t element_count)
{
    uint8_t *elements = malloc((size_t)element_count * layout->element_bytes);
    test_elements_fill(random, layout, content, elements, element_count);
    compare_tiers_on(layout, elements, element_count);
    free(elements);
}

static void test_tiers_encode_the_same_bytes(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {31, 32, 33, 127, 128, 129, 255, 256, 257, 1000, 4097, 8191, 32768, 70001};
    struct test_random random = {61};
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        for (int content = 0; content < TEST_CONTENTS; content++) {
            for (uint32_t n = 1; n < 20; n++) compare_tiers(&random, layout, content, n);
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) compare_tiers(&random, layout, content, sizes[i]);
        }
    }
}

/* Rare exponents that come together, as in rows of another scale: code words of every length one behind the other, so that
 * several at once fill whatever holds them, whatever was pending. */
static void test_tiers_encode_runs_of_long_code_words(void **state)
{
    (void)state;
    enum { COUNT = 32768, RUN = 64 };
    static const struct cllm_layout layout = {.element_bytes = 2, .symbol_shift = 7, .symbol_bits = 8, .segment_log2 = 8};
    struct test_random random = {64};
    uint8_t *elements = malloc(2 * COUNT);
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            unsigned step = 0;
            while (step < 12 && (test_random_next(&random) >> 32) % 8 < 5) step++;
            const unsigned near = 40 + (test_random_next(&random) >> 32) % 4,
                           far = 44 + step * 3 + (test_random_next(&random) >> 32) % 3;
            const unsigned symbol = (i / RUN + round) % 3 ? near : far;
            elements[2 * i] = (uint8_t)(symbol << 7);
            elements[2 * i + 1] = (uint8_t)(symbol >> 1);
        }
        compare_tiers_on(&layout, elements, COUNT);
    }
    free(elements);
}

/* Windows of symbols of every width, at every place, the whole alphabet among them, and a count to add to. */
static void test_tiers_count_every_symbol(void **state)
{
    (void)state;
    struct test_random random = {63};
    for (unsigned width = 1; width <= 256; width += width < 48 ? 1 : 13) {
        const uint32_t element_count = 20000 + width;
        const unsigned first = (unsigned)(test_random_next(&random) >> 32) % (257 - width);
        uint64_t expected[256] = {[7] = 1};
        uint8_t *symbols = malloc(element_count);
        for (uint32_t i = 0; i < element_count; i++) {
            symbols[i] = (uint8_t)(first + (test_random_next(&random) >> 32) % width);
            expected[symbols[i]]++;
        }
        for (enum cllm_cpu_tier tier = CLLM_CPU_PORTABLE; tier <= cllm_cpu_tier(); tier++) {
            uint64_t counts[256] = {[7] = 1};
            cllm_float_encode_ops(tier)->count(symbols, element_count, counts);
            assert_memory_equal(counts, expected, sizeof expected);
        }
        free(symbols);
    }
}

/* The lengths of a code may be any; so may the symbols. */
static void test_tiers_measure_the_same_segments(void **state)
{
    (void)state;
    static cllm_segment_bits_fn *const measure[] = {cllm_segment_bits, cllm_segment_bits_avx2, cllm_segment_bits_avx512};
    struct test_random random = {62};
    for (unsigned segment_log2 = 5; segment_log2 <= 12; segment_log2++) {
        struct cllm_table table;
        uint16_t expected[9] = {0}, bits[9] = {0};
        uint32_t symbol_count = 9u << segment_log2;
        uint8_t *symbols = malloc(symbol_count);
        test_random_fill(&random, symbols, symbol_count);
        for (unsigned s = 0; s < 256; s++) table.length[s] = (uint8_t)((test_random_next(&random) >> 32) % 12);
        for (uint32_t i = 0; i < symbol_count; i++) {
            expected[i >> segment_log2] = (uint16_t)(expected[i >> segment_log2] + table.length[symbols[i]]);
        }
        for (enum cllm_cpu_tier tier = CLLM_CPU_PORTABLE; tier <= cllm_cpu_tier(); tier++) {
            measure[tier](&table, symbols, 1u << segment_log2, 1u << segment_log2, 9, bits);
            assert_memory_equal(bits, expected, sizeof expected);
            measure[tier](&table, symbols, 2u << segment_log2, (1u << segment_log2) - 1, 4, bits); /* some, and not whole ones */
            for (unsigned k = 0; k < 4; k++) {
                unsigned last = symbols[((2 * k + 1) << segment_log2) - 1];
                assert_int_equal(bits[k], expected[2 * k] - table.length[last]);
            }
        }
        free(symbols);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiers_encode_the_same_bytes),
        cmocka_unit_test(test_tiers_encode_runs_of_long_code_words),
        cmocka_unit_test(test_tiers_count_every_symbol),
        cmocka_unit_test(test_tiers_measure_the_same_segments),
    };
    if (cllm_cpu_tier() < CLLM_CPU_AVX512) print_message("this processor has tiers 0 to %d only\n", (int)cllm_cpu_tier());
    return cmocka_run_group_tests(tests, NULL, NULL);
}

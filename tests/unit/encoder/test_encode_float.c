/* The float form written and read again: every layout, size and kind of content; and what its bytes are exactly. */
#include "bytes.h"
#include "codec.h"
#include "encode_float.h"
#include "float_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void round_trip(struct test_random *random, const struct cllm_layout *layout, enum test_content content,
                       uint32_t element_count)
{
    struct test_float_chunk chunk;
    size_t byte_count = (size_t)element_count * layout->element_bytes;
    uint8_t *elements = malloc(byte_count + 1), *decoded;
    test_elements_fill(random, layout, content, elements + 1, element_count); /* +1: no alignment is promised */
    test_float_chunk_encode(layout, elements + 1, element_count, &chunk);
    enum cllm_status status = test_float_chunk_decode(&chunk, chunk.stored, chunk.chunk.stored_bytes, &decoded);
    if (status || memcmp(decoded, elements + 1, byte_count) != 0) {
        fail_msg("layout %u/%u/%u/%u/%u, content %d, %u elements: %d", layout->element_bytes, layout->symbol_shift,
                 layout->symbol_bits, layout->zero_bits, layout->segment_log2, content, element_count, status);
    }
    free(decoded);
    free(chunk.stored);
    free(elements);
}

static void test_float_form_round_trips(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 3, 31, 32, 33, 127, 128, 129, 255, 256, 257, 4095, 4096, 4097, 8193, 32767, 32768};
    struct test_random random = {31};
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        for (int content = 0; content < TEST_CONTENTS; content++) {
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) round_trip(&random, layout, content, sizes[i]);
        }
    }
}

static void test_float_form_round_trips_at_every_small_size(void **state)
{
    (void)state;
    struct test_random random = {32};
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        for (uint32_t element_count = 1; element_count < 300; element_count++) {
            round_trip(&random, layout, element_count % TEST_CONTENTS, element_count);
        }
    }
}

static void test_float_form_of_one_symbol_has_no_code_words(void **state)
{
    (void)state;
    struct test_random random = {33};
    struct test_float_chunk chunk;
    uint8_t elements[2 * 300];
    struct cllm_layout layout = test_layout_bf16(7);
    test_elements_fill(&random, &layout, TEST_ONE_SYMBOL, elements, 300);
    test_float_chunk_encode(&layout, elements, 300, &chunk);
    assert_int_equal(chunk.chunk.stored_bytes, 300 + 4);
    assert_memory_equal(chunk.stored + 300, "\0\0\0\0", 4);
    free(chunk.stored);
}

static void test_float_form_of_trained_weights_saves_a_quarter(void **state)
{
    (void)state;
    struct test_random random = {34};
    struct test_float_chunk chunk;
    uint8_t *elements = malloc(65536);
    struct cllm_layout layout = test_layout_bf16(7);
    test_random_bf16(&random, elements, 32768);
    test_float_chunk_encode(&layout, elements, 32768, &chunk);
    assert_true(chunk.chunk.stored_bytes < 65536 * 3 / 4);
    free(chunk.stored);
    free(elements);
}

/* FORMAT.md 9, bit by bit: 33 elements in two segments of 32, symbols 1 (code word 0) and 2 (code word 1). */
static void test_float_form_is_stored_as_specified(void **state)
{
    (void)state;
    struct test_float_chunk chunk;
    uint8_t elements[2 * 33];
    struct cllm_layout layout = test_layout_bf16(5);
    for (unsigned i = 0; i < 33; i++) {
        unsigned symbol = i % 8 == 1 || i == 32 ? 2 : 1;
        cllm_store_le16(elements + 2 * (size_t)i, (uint16_t)((i % 2) << 15 | symbol << 7 | i));
    }
    test_float_chunk_encode(&layout, elements, 33, &chunk);
    assert_int_equal(chunk.chunk.stored_bytes, 33 + 4 + 0 + 5);
    for (unsigned i = 0; i < 33; i++) assert_int_equal(chunk.stored[i], (i % 2) << 7 | i);
    /* Elements 1 and 9 at bits 1 and 9; 17 and 25, of the second half, at bits 47 - 17 and 47 - 25; element 32 at bit 32. */
    static const uint8_t rest[] = {32, 0, 0, 7, 0x02, 0x02, 0x40, 0x40, 0x01};
    assert_memory_equal(chunk.stored + 33, rest, sizeof rest);
    free(chunk.stored);
}

/* Three bits of remainder beside five of symbol, in one packed stream. */
static void test_remainder_bits_are_packed_from_the_lowest(void **state)
{
    (void)state;
    struct cllm_layout layout = {1, 2, 5, 0, 7};
    const uint8_t elements[4] = {0x80 | 31 << 2 | 1, 0 << 2 | 2, 0x80 | 31 << 2 | 3, 0 << 2 | 0};
    struct test_float_chunk chunk;
    test_float_chunk_encode(&layout, elements, 4, &chunk);
    /* remainders: sign above two mantissa bits: 5, 2, 7, 0 -> 101 | 010 << 3 | 111 << 6 */
    unsigned packed = 5 | 2 << 3 | 7 << 6;
    assert_int_equal(chunk.stored[0], packed & 0xFF);
    assert_int_equal(chunk.stored[1], packed >> 8);
    assert_int_equal(chunk.stored[2], 0);    /* base */
    assert_int_equal(chunk.stored[5], 4);    /* unused bits */
    assert_int_equal(chunk.stored[6], 0x05); /* symbols 31 (1), 0 (0), 31, 0 */
    assert_int_equal(chunk.chunk.stored_bytes, 7);
    free(chunk.stored);
}

/* FORMAT.md 16, "Float chunk". */
static void test_float_form_is_that_of_the_test_vector(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0x88, 0x8f, 0x7a, 0xac, 0xce, 0xf8, 0xa8, 0xc7, 0xea, 0x8c, 0x8f, 0x7a, 0xac, 0xce,
                                       0xf8, 0xa8, 0xc7, 0xea, 0x8c, 0x8f, 0x7a, 0xac, 0xce, 0xf8, 0xa8, 0xc7, 0xea, 0x8c,
                                       0x8f, 0x7a, 0xac, 0xce, 0xf8, 0xa8, 0xc7, 0xea, 0x44, 0x00, 0x03, 0x02, 0x30, 0xac,
                                       0x67, 0xd4, 0x7a, 0x60, 0x34, 0x1a, 0x9f, 0xd6, 0x3c, 0xd6, 0x33, 0x6a, 0x45, 0xa3,
                                       0xf1, 0x69, 0xf8, 0x68, 0x1e, 0xeb, 0x19, 0x45, 0xe3, 0xd3, 0xf0, 0x1a};
    static const uint8_t table[] = {0x09, 0x0f, 0x55, 0x34, 0x33, 0x01};
    struct cllm_layout layout = {1, 2, 5, 0, 5};
    struct test_float_chunk chunk;
    uint8_t elements[96], stored_table[CLLM_TABLE_STORED_BYTES_MAX];
    for (unsigned i = 0; i < 96; i++) elements[i] = (uint8_t)((i * 85 & 0x83) | (15 - i % 7 * (i % 5) / 4) << 2);
    test_float_chunk_encode(&layout, elements, 96, &chunk);
    assert_int_equal(cllm_table_serialise(&chunk.table, stored_table), sizeof table);
    assert_memory_equal(stored_table, table, sizeof table);
    assert_int_equal(chunk.chunk.stored_bytes, sizeof expected);
    assert_memory_equal(chunk.stored, expected, sizeof expected);
    free(chunk.stored);
}

static void test_split_adds_to_the_counts(void **state)
{
    (void)state;
    uint64_t counts[256] = {0};
    uint8_t symbols[6], planes[6];
    struct cllm_layout layout = {1, 0, 8, 0, 7};
    counts[3] = 10;
    cllm_float_split(&layout, (const uint8_t *)"\3\3\7\3\377\0", 6, symbols, planes, counts);
    assert_true(counts[3] == 13 && counts[7] == 1 && counts[255] == 1 && counts[0] == 1 && counts[1] == 0);
    assert_memory_equal(symbols, "\3\3\7\3\377\0", 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float_form_round_trips),
        cmocka_unit_test(test_float_form_round_trips_at_every_small_size),
        cmocka_unit_test(test_float_form_of_one_symbol_has_no_code_words),
        cmocka_unit_test(test_float_form_of_trained_weights_saves_a_quarter),
        cmocka_unit_test(test_float_form_is_stored_as_specified),
        cmocka_unit_test(test_remainder_bits_are_packed_from_the_lowest),
        cmocka_unit_test(test_float_form_is_that_of_the_test_vector),
        cmocka_unit_test(test_split_adds_to_the_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

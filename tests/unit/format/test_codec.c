/* The facts that encoder and decoders share: element split, prefix codes, where the parts of a float chunk lie. */
#include "bytes.h"
#include "codec.h"
#include "container_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Every layout that cllm_layout_check accepts. Returns how many. */
static unsigned for_each_layout(void (*check)(const struct cllm_layout *layout))
{
    unsigned count = 0;
    for (unsigned size = 0; size < 10; size++) {
        for (unsigned shift = 0; shift < 70; shift++) {
            for (unsigned bits = 0; bits < 10; bits++) {
                for (unsigned zero = 0; zero < 70; zero += zero < 3 ? 1 : 13) {
                    struct cllm_layout layout = {(uint8_t)size, (uint8_t)shift, (uint8_t)bits, (uint8_t)zero, 7};
                    bool expected = (size == 1 || size == 2 || size == 4 || size == 8) && bits >= 1 && bits <= 8 &&
                                    shift + bits <= 8 * size && zero <= shift;
                    assert_int_equal(cllm_layout_check(&layout, NULL), expected ? CLLM_OK : CLLM_E_CORRUPT);
                    if (!expected) continue;
                    check(&layout);
                    count++;
                }
            }
        }
    }
    return count;
}

static void check_split(const struct cllm_layout *layout)
{
    static struct test_random random = {5};
    unsigned element_bits = 8u * layout->element_bytes;
    uint64_t mask = element_bits == 64 ? UINT64_MAX : (UINT64_C(1) << element_bits) - 1;
    uint64_t zeros = (UINT64_C(1) << layout->zero_bits) - 1;
    unsigned remainder_bits = cllm_layout_remainder_bits(layout);
    assert_int_equal(remainder_bits + layout->symbol_bits + layout->zero_bits, element_bits);
    for (unsigned round = 0; round < 4; round++) {
        uint64_t element = (round == 0 ? UINT64_MAX : test_random_next(&random)) & mask & ~zeros;
        uint8_t symbol = cllm_element_symbol(layout, element);
        uint64_t remainder = cllm_element_remainder(layout, element);
        assert_true(symbol >> layout->symbol_bits == 0 || layout->symbol_bits == 8);
        assert_true(remainder_bits == 64 || remainder >> remainder_bits == 0);
        assert_true(cllm_element_join(layout, symbol, remainder) == element);
    }
}

static void test_elements_split_and_join_in_every_layout(void **state)
{
    (void)state;
    assert_true(for_each_layout(check_split) > 1000);
}

static void test_element_split_of_bf16_is_as_specified(void **state)
{
    (void)state;
    struct cllm_layout layout = test_layout_bf16(7);
    assert_int_equal(cllm_element_symbol(&layout, 0xBF9A), 0x7F);
    assert_int_equal(cllm_element_remainder(&layout, 0xBF9A), 0x9A);
    assert_int_equal(cllm_element_remainder(&layout, 0x3F9A), 0x1A);
}

static void test_layout_of_no_float_form_is_all_zero(void **state)
{
    (void)state;
    struct cllm_layout none = {0}, segment = {.segment_log2 = 7}, small = test_layout_bf16(4), large = test_layout_bf16(13);
    assert_int_equal(cllm_layout_check(&none, NULL), CLLM_OK);
    assert_int_equal(cllm_layout_check(&segment, NULL), CLLM_E_CORRUPT);
    assert_int_equal(cllm_layout_check(&small, NULL), CLLM_E_CORRUPT);
    assert_int_equal(cllm_layout_check(&large, NULL), CLLM_E_CORRUPT);
}

/* ------------------------------------------------------------------------------------------------------------ code tables */

/* A random complete code of `count` symbols (at least 2) of at most 11 bits: splits a leaf that is not too deep, again and
 * again. */
static struct cllm_table random_table(struct test_random *random, unsigned count)
{
    struct cllm_table table = {.length = {0}};
    uint8_t depths[256] = {1, 1};
    unsigned used = 2;
    while (used < count) {
        unsigned leaf = (unsigned)(test_random_next(random) >> 40) % used;
        if (depths[leaf] == CLLM_CODE_BITS_MAX) continue;
        depths[used++] = ++depths[leaf];
    }
    for (unsigned i = 0; i < used; i++) {
        unsigned symbol;
        do symbol = (unsigned)(test_random_next(random) >> 56);
        while (table.length[symbol]);
        table.length[symbol] = depths[i];
    }
    return table;
}

static void test_tables_round_trip(void **state)
{
    (void)state;
    struct test_random random = {6};
    for (unsigned round = 0; round < 600; round++) {
        struct cllm_table table = random_table(&random, 2 + round % 255), parsed;
        uint8_t bytes[CLLM_TABLE_STORED_BYTES_MAX];
        assert_int_equal(cllm_table_check(&table, NULL), CLLM_OK);
        size_t byte_count = cllm_table_serialise(&table, bytes);
        assert_true(byte_count <= sizeof bytes);
        uint8_t *exact = malloc(byte_count);
        memcpy(exact, bytes, byte_count);
        struct cllm_cursor cursor = cllm_cursor_over(exact, byte_count);
        assert_int_equal(cllm_table_parse(&cursor, &parsed, NULL), CLLM_OK);
        assert_int_equal(cllm_cursor_left(&cursor), 0);
        assert_memory_equal(&parsed, &table, sizeof table);
        cursor = cllm_cursor_over(exact, byte_count - 1);
        assert_int_equal(cllm_table_parse(&cursor, &parsed, NULL), CLLM_E_CORRUPT);
        free(exact);
    }
}

static void test_tables_that_are_not_complete_are_corrupt(void **state)
{
    (void)state;
    struct test_random random = {7};
    for (unsigned round = 0; round < 300; round++) {
        struct cllm_table table = random_table(&random, 2 + round % 200);
        unsigned symbol;
        do symbol = (unsigned)(test_random_next(&random) >> 56);
        while (!table.length[symbol]);
        table.length[symbol]++;
        assert_int_equal(cllm_table_check(&table, NULL), CLLM_E_CORRUPT);
        table.length[symbol] -= 2;
        if (cllm_table_symbol_count(&table) > 1) assert_int_equal(cllm_table_check(&table, NULL), CLLM_E_CORRUPT);
    }
    struct cllm_table empty = {.length = {0}};
    assert_int_equal(cllm_table_check(&empty, NULL), CLLM_E_CORRUPT);
}

static void test_code_words_are_canonical(void **state)
{
    (void)state;
    struct cllm_table table = {.length = {0}}; /* the example of FORMAT.md 9: 0, 10, 110, 111 */
    uint16_t codes[256];
    table.length['a'] = 1, table.length['b'] = 2, table.length['c'] = 3, table.length['d'] = 3;
    cllm_table_codes(&table, codes);
    assert_int_equal(codes['a'], 0);
    assert_int_equal(codes['b'], 1); /* first bit lowest */
    assert_int_equal(codes['c'], 3);
    assert_int_equal(codes['d'], 7);
}

/* FORMAT.md 16, "Code table". */
static void test_code_words_are_those_of_the_test_vector(void **state)
{
    (void)state;
    static const uint8_t stored[] = {0x04, 0x12, 0x4a, 0x20, 0x31, 0x65, 0x87, 0x09, 0x0b, 0x0b};
    static const char *const expected[256] = {
        [4] = "1111111110", [5] = "1110",     [7] = "10",        [8] = "0",          [9] = "110",          [10] = "11110",
        [11] = "111110",    [12] = "1111110", [13] = "11111110", [14] = "111111110", [16] = "11111111110", [18] = "11111111111"};
    struct cllm_cursor cursor = cllm_cursor_over(stored, sizeof stored);
    struct cllm_table table;
    uint16_t codes[256];
    assert_int_equal(cllm_table_parse(&cursor, &table, NULL), CLLM_OK);
    cllm_table_codes(&table, codes);
    for (unsigned s = 0; s < 256; s++) {
        assert_int_equal(table.length[s], expected[s] ? strlen(expected[s]) : 0);
        for (unsigned k = 0; k < table.length[s]; k++) assert_int_equal(codes[s] >> k & 1, expected[s][k] - '0');
    }
}

static void test_every_bit_pattern_begins_with_the_code_word_found(void **state)
{
    (void)state;
    struct test_random random = {8};
    for (unsigned round = 0; round < 200; round++) {
        struct cllm_table table = random_table(&random, 2 + round % 255);
        struct cllm_code_entry entries[CLLM_CODE_ENTRIES];
        uint16_t codes[256];
        cllm_table_codes(&table, codes);
        memset(entries, 0xFF, sizeof entries);
        cllm_table_lookup(&table, entries);
        for (unsigned i = 0; i < CLLM_CODE_ENTRIES; i++) {
            assert_int_equal(entries[i].bits, table.length[entries[i].symbol]);
            assert_int_equal(i & ((1u << entries[i].bits) - 1), codes[entries[i].symbol]);
        }
    }
}

static void test_a_single_symbol_takes_no_bits(void **state)
{
    (void)state;
    struct cllm_table table = {.length = {0}}, parsed;
    struct cllm_code_entry entries[CLLM_CODE_ENTRIES];
    uint8_t bytes[CLLM_TABLE_STORED_BYTES_MAX];
    for (unsigned s = 0; s < 256; s += 51) {
        memset(&table, 0, sizeof table);
        table.length[s] = 1;
        assert_int_equal(cllm_table_check(&table, NULL), CLLM_OK);
        cllm_table_lookup(&table, entries);
        for (unsigned i = 0; i < CLLM_CODE_ENTRIES; i++) assert_true(entries[i].symbol == s && entries[i].bits == 0);
        assert_int_equal(cllm_table_serialise(&table, bytes), 3);
        assert_true(bytes[0] == s && bytes[1] == s && bytes[2] == 1);
        struct cllm_cursor cursor = cllm_cursor_over(bytes, 3);
        assert_int_equal(cllm_table_parse(&cursor, &parsed, NULL), CLLM_OK);
        table.length[s] = 2;
        assert_int_equal(cllm_table_check(&table, NULL), CLLM_E_CORRUPT);
    }
}

static enum cllm_status parse_palette(const uint8_t *values, size_t byte_count, unsigned element_bytes, struct cllm_table *table)
{
    struct cllm_cursor cursor = cllm_cursor_over(values, byte_count);
    table->length[0] = 1, table->length[1] = 2, table->length[2] = 2;
    return cllm_palette_parse(&cursor, element_bytes, table, NULL);
}

static void test_values_of_a_palette_ascend_as_numbers(void **state)
{
    (void)state;
    static const uint8_t good[6] = {0xFF, 0x00, 0x00, 0x01, 0x00, 0x80}, down[6] = {0x01, 0x01, 0x02, 0x00, 0x03, 0x01};
    static const uint8_t equal[6] = {0x01, 0x00, 0x02, 0x00, 0x02, 0x00};
    struct cllm_table table = {.value_bytes = 0};
    assert_int_equal(cllm_table_values_bytes(&table), 0);
    assert_int_equal(parse_palette(good, sizeof good, 2, &table), CLLM_OK);
    assert_int_equal(cllm_table_values_bytes(&table), 6);
    assert_ptr_equal(table.values, good);
    assert_int_equal(parse_palette(good, sizeof good - 1, 2, &table), CLLM_E_CORRUPT);
    assert_int_equal(parse_palette(down, sizeof down, 2, &table), CLLM_E_CORRUPT);
    assert_int_equal(parse_palette(equal, sizeof equal, 2, &table), CLLM_E_CORRUPT);
    assert_int_equal(parse_palette(good, 3, 1, &table), CLLM_E_CORRUPT); /* 0xFF, 0x00, 0x00 */
    assert_int_equal(parse_palette(down, 3, 1, &table), CLLM_E_CORRUPT);
    assert_int_equal(parse_palette(down + 1, 3, 1, &table), CLLM_E_CORRUPT);
}

static void test_symbols_of_a_palette_have_no_gaps(void **state)
{
    (void)state;
    static const uint8_t values[8] = {1, 0, 2, 0, 3, 0, 4, 0};
    struct cllm_table gap = {.length = {1, 0, 2, 2}}, late = {.length = {0, 1, 2, 2}}, single = {.length = {1}};
    struct cllm_cursor cursor = cllm_cursor_over(values, sizeof values);
    assert_int_equal(cllm_palette_parse(&cursor, 2, &gap, NULL), CLLM_E_CORRUPT);
    cursor = cllm_cursor_over(values, sizeof values);
    assert_int_equal(cllm_palette_parse(&cursor, 2, &late, NULL), CLLM_E_CORRUPT);
    cursor = cllm_cursor_over(values, sizeof values);
    assert_int_equal(cllm_palette_parse(&cursor, 8, &single, NULL), CLLM_OK);
    assert_int_equal(cllm_cursor_left(&cursor), 0);
}

static void check_palette_layout(const struct cllm_layout *layout)
{
    struct cllm_layout of_palette = cllm_layout_of_palette(layout);
    assert_int_equal(cllm_layout_check(&of_palette, NULL), CLLM_OK);
    assert_int_equal(cllm_layout_remainder_bits(&of_palette), 0);
    assert_int_equal(of_palette.segment_log2, layout->segment_log2);
}

static void test_elements_of_a_palette_have_no_remainder(void **state)
{
    (void)state;
    (void)for_each_layout(check_palette_layout);
}

/* ------------------------------------------------------------------------------------------------------------ bit streams */

static void test_bits_are_read_from_the_lowest_of_each_byte(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x39, 0xA5, 0xFF, 0x00};
    assert_int_equal(cllm_bits_at(bytes, 0, 4), 9);
    assert_int_equal(cllm_bits_at(bytes, 4, 8), 0x53);
    assert_int_equal(cllm_bits_at(bytes, 7, 16), 0xFF4A);
    assert_int_equal(cllm_bits_at(bytes, 31, 1), 0);
    uint8_t *exact = malloc(1); /* reads no byte that it does not need */
    *exact = 0x80;
    assert_int_equal(cllm_bits_at(exact, 7, 1), 1);
    assert_int_equal(cllm_bits_at(exact, 0, 8), 0x80);
    assert_int_equal(cllm_bits_at(exact, 0, 0), 0);
    free(exact);
}

/* ----------------------------------------------------------------------------------------------------------- float chunks */

static void test_float_parts_must_fit(void **state)
{
    (void)state;
    struct cllm_layout layout = test_layout_bf16(5);
    struct cllm_float_view view;
    uint8_t stored[96 + 4 + 4 + 10] = {0};
    stored[98] = 16; /* two lengths of 16 bits */
    for (uint32_t bytes = 0; bytes <= sizeof stored; bytes++) {
        uint8_t *exact = malloc(bytes ? bytes : 1);
        memcpy(exact, stored, bytes);
        assert_int_equal(cllm_float_view_parse(&layout, 192, exact, bytes, &view, NULL), bytes < 104 ? CLLM_E_CORRUPT : CLLM_OK);
        if (bytes >= 104) assert_true(view.stream == exact + 104 && view.stream_bytes == bytes - 104);
        free(exact);
    }
    assert_true(view.element_count == 96 && view.segment_count == 3 && view.segment_width == 16 && view.segment_base == 0);
    stored[98] = 17;
    assert_int_equal(cllm_float_view_parse(&layout, 192, stored, sizeof stored, &view, NULL), CLLM_E_CORRUPT);
}

static enum cllm_status parse_unused_bits(unsigned unused_bits, uint32_t stream_bytes, uint8_t last, struct cllm_float_view *view)
{
    struct cllm_layout layout = test_layout_bf16(5);
    uint8_t stored[32 + 4 + 2] = {0}; /* one segment */
    stored[35] = (uint8_t)unused_bits;
    stored[36] = stored[37] = 0xFF;
    if (stream_bytes) stored[35 + stream_bytes] = last;
    return cllm_float_view_parse(&layout, 64, stored, 36 + stream_bytes, view, NULL);
}

static void test_unused_bits_are_stated_and_zero(void **state)
{
    (void)state;
    struct cllm_float_view view;
    for (unsigned unused = 0; unused < 256; unused++) {
        assert_int_equal(parse_unused_bits(unused, 2, 0, &view), unused < 8 ? CLLM_OK : CLLM_E_CORRUPT);
        if (unused < 8) assert_int_equal(view.stream_bits, 16 - unused);
        assert_int_equal(parse_unused_bits(unused, 0, 0, &view), unused == 0 ? CLLM_OK : CLLM_E_CORRUPT);
    }
    for (unsigned unused = 1; unused < 8; unused++) {
        assert_int_equal(parse_unused_bits(unused, 1, (uint8_t)(0xFF >> unused), &view), CLLM_OK);
        assert_int_equal(parse_unused_bits(unused, 1, (uint8_t)(0x100 >> unused), &view), CLLM_E_CORRUPT);
    }
}

static void test_bits_are_mirrored_within_their_width(void **state)
{
    (void)state;
    assert_int_equal(cllm_bits_mirrored(0x1, 1), 0x1);
    assert_int_equal(cllm_bits_mirrored(0x1, 11), 0x400);
    assert_int_equal(cllm_bits_mirrored(0x35, 8), 0xAC);
    assert_int_equal(cllm_bits_mirrored(0xFFF1, 4), 0x8);
    assert_int_equal(cllm_bits_mirrored(0xFFFF, 0), 0);
}

static void test_first_half_is_half_a_segment_at_most(void **state)
{
    (void)state;
    struct cllm_layout layout = test_layout_bf16(5);
    assert_int_equal(cllm_first_half(&layout, 1), 1);
    assert_int_equal(cllm_first_half(&layout, 16), 16);
    assert_int_equal(cllm_first_half(&layout, 17), 16);
    assert_int_equal(cllm_first_half(&layout, 32), 16);
}

static void check_plane_bytes(const struct cllm_layout *layout)
{
    unsigned bits = cllm_layout_remainder_bits(layout);
    for (uint32_t n = 1; n < 20; n++) {
        assert_int_equal(cllm_float_plane_bytes(layout, n), n * (bits / 8) + (n * (bits % 8) + 7) / 8);
    }
}

static void test_plane_bytes_follow_from_the_remainder(void **state)
{
    (void)state;
    struct cllm_layout f16 = {2, 10, 5, 0, 7}, wide = {8, 0, 1, 0, 7};
    assert_int_equal(cllm_float_plane_bytes(&f16, 9), 9 + 4);
    assert_true(cllm_float_plane_bytes(&wide, 1u << 21) == (UINT64_C(7) << 21) + (UINT64_C(7) << 18));
    (void)for_each_layout(check_plane_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements_split_and_join_in_every_layout),
        cmocka_unit_test(test_element_split_of_bf16_is_as_specified),
        cmocka_unit_test(test_layout_of_no_float_form_is_all_zero),
        cmocka_unit_test(test_tables_round_trip),
        cmocka_unit_test(test_tables_that_are_not_complete_are_corrupt),
        cmocka_unit_test(test_code_words_are_canonical),
        cmocka_unit_test(test_code_words_are_those_of_the_test_vector),
        cmocka_unit_test(test_every_bit_pattern_begins_with_the_code_word_found),
        cmocka_unit_test(test_a_single_symbol_takes_no_bits),
        cmocka_unit_test(test_values_of_a_palette_ascend_as_numbers),
        cmocka_unit_test(test_symbols_of_a_palette_have_no_gaps),
        cmocka_unit_test(test_elements_of_a_palette_have_no_remainder),
        cmocka_unit_test(test_bits_are_read_from_the_lowest_of_each_byte),
        cmocka_unit_test(test_bits_are_mirrored_within_their_width),
        cmocka_unit_test(test_float_parts_must_fit),
        cmocka_unit_test(test_unused_bits_are_stated_and_zero),
        cmocka_unit_test(test_first_half_is_half_a_segment_at_most),
        cmocka_unit_test(test_plane_bytes_follow_from_the_remainder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

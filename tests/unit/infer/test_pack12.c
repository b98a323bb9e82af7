/* test_pack12.c - the bits of the 12-bit form, its sizes, and the choice of a window. */
#include "pack12.h"
#include "pack12_layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void test_a_row_takes_twelve_bits_a_column_and_whole_words(void **state)
{
    (void)state;
    assert_int_equal(cllm_pack12_row_bytes(4096), 6144);
    assert_int_equal(cllm_pack12_row_bytes(32), 48);
    assert_int_equal(cllm_pack12_row_bytes(33), 96);
    assert_int_equal(cllm_pack12_row_bytes(1), 48);
    assert_int_equal(cllm_pack12_bytes((struct cllm_gpu_shape){2, 512}, 3), 2 * 768 + 32);
    const struct cllm_gpu_shape shape = {14336, 4096};
    assert_true(cllm_pack12_bytes(shape, cllm_pack12_patch_limit(shape)) * 1000 < UINT64_C(755) * shape.row_count * 4096 * 2);
}

/* Every byte of a row belongs to one unit. */
static void test_units_fill_a_row_without_overlap(void **state)
{
    (void)state;
    const uint32_t sizes[] = {1, 8, 32, 40, 511, 512, 513, 544, 1000, 1024, 5632, 11008};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const uint64_t bytes = pack12_row_bytes(sizes[s]);
        uint8_t *owners = calloc(bytes, 1);
        assert_non_null(owners);
        for (uint32_t unit = 0; unit < bytes / 12; unit++) {
            const struct pack12_place place = pack12_place_unit(sizes[s], unit);
            assert_int_equal(place.low_offset % 8, 0);
            assert_int_equal(place.code_offset % 4, 0);
            assert_true(place.low_offset + 8 <= bytes && place.code_offset + 4 <= bytes);
            for (int i = 0; i < 8; i++) owners[place.low_offset + i]++;
            for (int i = 0; i < 4; i++) owners[place.code_offset + i]++;
        }
        for (uint64_t i = 0; i < bytes; i++) assert_int_equal(owners[i], 1);
        free(owners);
    }
}

/* In a full group, what one lane reads lies together: units i and i + 32. */
static void test_a_lane_reads_sixteen_low_bytes_at_once(void **state)
{
    (void)state;
    for (uint32_t lane = 0; lane < 32; lane++) {
        const struct pack12_place first = pack12_place_unit(1024, 64 + lane), second = pack12_place_unit(1024, 64 + lane + 32);
        assert_int_equal(first.low_offset, 768 + lane * 16);
        assert_int_equal(second.low_offset, 768 + lane * 16 + 8);
        assert_int_equal(first.code_offset, 768 + 512 + lane * 8);
        assert_int_equal(second.code_offset, 768 + 512 + lane * 8 + 4);
    }
}

static void test_every_code_word_bit_has_one_meaning(void **state)
{
    (void)state;
    uint32_t seen = 0;
    for (unsigned element = 0; element < 8; element++) {
        const uint32_t bits = UINT32_C(7) << pack12_index_bit(element) | UINT32_C(1) << pack12_sign_bit(element);
        assert_int_equal(seen & bits, 0);
        seen |= bits;
    }
    assert_int_equal(seen, UINT32_MAX);
}

/* All upper bytes, each in every place of a unit, in a window that has exponents 0 and 255. */
static void test_codes_give_back_every_value_of_the_window(void **state)
{
    (void)state;
    const uint64_t window = UINT64_C(0x7F00403F3E3D3C01);
    for (unsigned element = 0; element < 8; element++) {
        for (uint32_t upper = 0; upper < 256; upper++) {
            const int index = pack12_find(window, upper);
            bool is_in = false;
            for (int i = 0; i < 8; i++) is_in = is_in || (window >> 8 * i & 0x7F) == (upper & 0x7F);
            assert_int_equal(index >= 0, is_in);
            if (index < 0) continue;
            const uint32_t others =
                0xA5C3F01Eu & ~(UINT32_C(7) << pack12_index_bit(element) | UINT32_C(1) << pack12_sign_bit(element));
            const uint32_t codes =
                others | (uint32_t)index << pack12_index_bit(element) | (upper >> 7) << pack12_sign_bit(element);
            assert_int_equal(pack12_upper(window, codes, element), upper);
        }
    }
}

static void test_the_window_has_the_eight_most_frequent_values(void **state)
{
    (void)state;
    uint64_t histogram[CLLM_PACK12_BINS] = {0};
    const unsigned frequent[] = {0, 127, 61, 60, 59, 58, 57, 3};
    uint64_t total = 0;
    for (unsigned value = 0; value < CLLM_PACK12_BINS; value++) histogram[value] = value % 5;
    for (int i = 0; i < 8; i++) histogram[frequent[i]] = 1000 + (uint64_t)i;
    for (unsigned value = 0; value < CLLM_PACK12_BINS; value++) total += histogram[value];
    const struct cllm_pack12_choice choice = cllm_pack12_choose(histogram);
    for (int i = 0; i < 8; i++) {
        assert_true(pack12_find(choice.window, frequent[i]) >= 0);
        total -= histogram[frequent[i]];
    }
    assert_int_equal(choice.patch_count, total);
}

static void test_a_matrix_of_one_value_needs_no_patches(void **state)
{
    (void)state;
    uint64_t histogram[CLLM_PACK12_BINS] = {0};
    histogram[127] = 77;
    const struct cllm_pack12_choice choice = cllm_pack12_choose(histogram);
    assert_int_equal(choice.patch_count, 0);
    assert_true(pack12_find(choice.window, 0xFF) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_takes_twelve_bits_a_column_and_whole_words),
        cmocka_unit_test(test_units_fill_a_row_without_overlap),
        cmocka_unit_test(test_a_lane_reads_sixteen_low_bytes_at_once),
        cmocka_unit_test(test_every_code_word_bit_has_one_meaning),
        cmocka_unit_test(test_codes_give_back_every_value_of_the_window),
        cmocka_unit_test(test_the_window_has_the_eight_most_frequent_values),
        cmocka_unit_test(test_a_matrix_of_one_value_needs_no_patches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

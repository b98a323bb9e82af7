/* test_pack12.c - the bits of the 12-bit form, its sizes, and the choice of a window. */
#include "pack12.h"
#include "pack12_layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void test_a_tile_takes_twelve_bits_a_weight_and_a_head(void **state)
{
    (void)state;
    assert_int_equal(PACK12_TILE_BYTES, 16 * 256 * 3 / 2 + 16);
    assert_int_equal(pack12_band_bytes(4096), 16 * PACK12_TILE_BYTES);
    assert_int_equal(pack12_band_bytes(256 + 65), PACK12_TILE_BYTES + 16 + 16 * 128 * 3 / 2);
    assert_int_equal(pack12_band_bytes(1), 16 + 16 * 64 * 3 / 2);
    assert_int_equal(cllm_pack12_bytes((struct cllm_gpu_shape){17, 512}, 3), 4 * PACK12_TILE_BYTES + 16);
    const struct cllm_gpu_shape shape = {14336, 4096};
    assert_true(cllm_pack12_bytes(shape, cllm_pack12_patch_limit(shape)) * 1000 < UINT64_C(755) * shape.row_count * 4096 * 2);
}

/* Every byte of a band but the heads belongs to one weight, or, a code word's, to eight. */
static void test_weights_fill_a_band_without_overlap(void **state)
{
    (void)state;
    const uint32_t sizes[] = {64, 256, 320, 512, 704, 1024, 5632};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const uint64_t bytes = pack12_band_bytes(sizes[s]);
        uint8_t *owners = calloc(bytes, 1);
        assert_non_null(owners);
        for (uint32_t row = 0; row < PACK12_ROWS; row++) {
            for (uint32_t column = 0; column < sizes[s]; column++) {
                const struct pack12_place place = pack12_find_place(sizes[s], row, column);
                assert_int_equal(place.code_word % 4, 0);
                assert_true(place.tile + place.low_byte < bytes && place.tile + place.code_word + 4 <= bytes);
                owners[place.tile + place.low_byte] += 8;
                for (int i = 0; i < 4; i++) owners[place.tile + place.code_word + i]++;
            }
        }
        for (uint64_t i = 0; i < bytes; i++) {
            assert_int_equal(owners[i], i % PACK12_TILE_BYTES < PACK12_HEAD_BYTES ? 0 : 8);
        }
        free(owners);
    }
}

/* In a step a lane has eight columns of rows g and g + 8, side by side; code words of two steps, too. */
static void test_a_lane_reads_sixteen_bytes_at_once(void **state)
{
    (void)state;
    for (uint32_t lane = 0; lane < 32; lane++) {
        const uint32_t row = lane / 4, column = 256 + 3 * 32 + lane % 4 * 8;
        const struct pack12_place first = pack12_find_place(1024, row, column), second = pack12_find_place(1024, row + 8, column);
        assert_int_equal(first.tile, PACK12_TILE_BYTES);
        assert_int_equal(first.low_byte, pack12_low_offset(3, lane));
        assert_int_equal(pack12_low_offset(3, lane), 16 + 3 * 512 + lane * 16);
        assert_int_equal(second.low_byte, first.low_byte + 8);
        assert_int_equal(first.code_word, pack12_code_offset(8, 3, lane));
        assert_int_equal(pack12_code_offset(8, 2, lane) % 16, 0);
        assert_int_equal(pack12_code_offset(8, 3, lane), pack12_code_offset(8, 2, lane) + 8);
        assert_int_equal(second.code_word, first.code_word + 4);
    }
}

static void test_a_patch_says_where_and_what(void **state)
{
    (void)state;
    for (uint32_t row = 0; row < PACK12_ROWS; row++) {
        for (uint32_t column = 0; column < PACK12_COLUMNS; column++) {
            const uint32_t patch = pack12_patch(row, column, 0x80 | row);
            assert_int_equal(pack12_patch_row(patch), row);
            assert_int_equal(pack12_patch_column(patch), column);
            assert_int_equal(patch & 0xFF, 0x80 | row);
        }
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
        cmocka_unit_test(test_a_tile_takes_twelve_bits_a_weight_and_a_head),
        cmocka_unit_test(test_weights_fill_a_band_without_overlap),
        cmocka_unit_test(test_a_lane_reads_sixteen_bytes_at_once),
        cmocka_unit_test(test_a_patch_says_where_and_what),
        cmocka_unit_test(test_every_code_word_bit_has_one_meaning),
        cmocka_unit_test(test_codes_give_back_every_value_of_the_window),
        cmocka_unit_test(test_the_window_has_the_eight_most_frequent_values),
        cmocka_unit_test(test_a_matrix_of_one_value_needs_no_patches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

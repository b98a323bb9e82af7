/* Products of every tier that this processor has, against double precision and each other, at odd sizes and offsets. */
#include "kernels.h"

#include "half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { ROWS_MAX = 11, COLUMNS_MAX = 300, VECTORS_MAX = 9, WEIGHT_GAP = 3, GUARD = 16 };
static const float untouched = 12345;

struct fixture {
    void *weights; /* of the type under test; allocated exactly, so that a sanitizer sees reads beyond */
    float *input;
    float output[VECTORS_MAX * (ROWS_MAX + GUARD)];
    struct cllm_product product;
};

static uint32_t random_state;

static float random_float(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return (float)(int32_t)random_state * 0x1p-31f;
}

static float weight_at(const struct fixture *fixture, enum cllm_weight_type type, size_t index)
{
    if (type == CLLM_WEIGHT_F32) return ((const float *)fixture->weights)[index];
    const uint16_t half = ((const uint16_t *)fixture->weights)[index];
    return type == CLLM_WEIGHT_F16 ? cllm_float_from_f16(half) : cllm_float_from_bf16(half);
}

static void fill_weights(struct fixture *fixture, enum cllm_weight_type type, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = random_float();
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (type == CLLM_WEIGHT_F32) ((float *)fixture->weights)[i] = value;
        else if (type == CLLM_WEIGHT_BF16) ((uint16_t *)fixture->weights)[i] = (uint16_t)(bits >> 16);
        else ((uint16_t *)fixture->weights)[i] = (uint16_t)((bits >> 16 & 0x8000) | (8 + (bits & 7)) << 10 | (bits >> 3 & 0x3FF));
    }
}

/* The last row has no gap behind it, nor the last vector. */
static struct fixture *create_fixture(enum cllm_weight_type type, size_t rows, size_t columns, size_t vectors)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    const size_t weight_stride = columns + WEIGHT_GAP, input_stride = columns + 1;
    const size_t weight_count = (rows - 1) * weight_stride + columns, input_count = (vectors - 1) * input_stride + columns;
    fixture->weights = malloc(weight_count * (type == CLLM_WEIGHT_F32 ? 4 : 2));
    fixture->input = malloc(input_count * sizeof(float));
    random_state = (uint32_t)(rows * 7919 + columns * 31 + vectors);
    fill_weights(fixture, type, weight_count);
    for (size_t i = 0; i < input_count; i++) {
        fixture->input[i] = random_float();
    }
    for (size_t i = 0; i < sizeof fixture->output / sizeof *fixture->output; i++) {
        fixture->output[i] = untouched;
    }
    fixture->product = (struct cllm_product){fixture->weights, fixture->input, fixture->output, weight_stride,
                                             input_stride,     rows + GUARD,   columns,         vectors};
    return fixture;
}

static void destroy_fixture(struct fixture *fixture)
{
    free(fixture->weights);
    free(fixture->input);
    free(fixture);
}

static void check_output(const struct fixture *fixture, enum cllm_weight_type type, struct cllm_rows rows, size_t row_count)
{
    const struct cllm_product *product = &fixture->product;
    for (size_t v = 0; v < product->vector_count; v++) {
        for (size_t row = 0; row < row_count + GUARD; row++) {
            const float found = product->output[v * product->output_stride + row];
            if (row < rows.first || row >= rows.end) {
                assert_true(found == untouched);
                continue;
            }
            double expected = 0, magnitude = 0;
            for (size_t c = 0; c < product->column_count; c++) {
                const double term = (double)weight_at(fixture, type, row * product->weight_stride + c) *
                                    product->input[v * product->input_stride + c];
                expected += term;
                magnitude += fabs(term);
            }
            if (!(fabs(found - expected) <= magnitude * 4e-6)) {
                fail_msg("row %zu, vector %zu: found %.9g, expected %.9g", row, v, found, expected);
            }
        }
    }
}

static const size_t column_counts[] = {1,  2,  7,  8,  9,  15,  16,  17,  24,  31,         32,
                                       33, 48, 63, 64, 65, 127, 192, 255, 256, COLUMNS_MAX};
enum { COLUMN_CASES = sizeof column_counts / sizeof *column_counts };

static void check_tier(enum cllm_kernels_tier tier)
{
    const struct cllm_kernels *kernels = cllm_kernels_of_tier(tier);
    if (!kernels) {
        print_message("this processor lacks the instructions of tier %d\n", tier);
        skip();
    }
    for (int type = 0; type < CLLM_WEIGHT_TYPE_COUNT; type++) {
        for (int c = 0; c < COLUMN_CASES; c++) {
            for (size_t rows = 1; rows <= ROWS_MAX; rows++) {
                for (size_t vectors = 1; vectors <= VECTORS_MAX; vectors++) {
                    struct fixture *fixture = create_fixture((enum cllm_weight_type)type, rows, column_counts[c], vectors);
                    const struct cllm_rows range = {rows > 4 ? rows % 4 : 0, rows};
                    kernels->product[type](&fixture->product, range);
                    check_output(fixture, (enum cllm_weight_type)type, range, rows);
                    destroy_fixture(fixture);
                }
            }
        }
    }
}

static void test_portable(void **state)
{
    (void)state;
    check_tier(CLLM_KERNELS_PORTABLE);
}

static void test_avx2(void **state)
{
    (void)state;
    check_tier(CLLM_KERNELS_AVX2);
}

static void test_avx512(void **state)
{
    (void)state;
    check_tier(CLLM_KERNELS_AVX512);
}

/* A row and a vector at a time must give the same bits as all together; and with `other`, those of another tier. */
static void check_same_bits(const struct cllm_kernels *kernels, const struct cllm_kernels *other)
{
    for (int type = 0; type < CLLM_WEIGHT_TYPE_COUNT; type++) {
        for (int c = 0; c < COLUMN_CASES; c++) {
            struct fixture *together = create_fixture((enum cllm_weight_type)type, ROWS_MAX, column_counts[c], VECTORS_MAX);
            struct fixture *apart = create_fixture((enum cllm_weight_type)type, ROWS_MAX, column_counts[c], VECTORS_MAX);
            kernels->product[type](&together->product, (struct cllm_rows){0, ROWS_MAX});
            for (size_t v = 0; v < VECTORS_MAX; v++) {
                struct cllm_product one = apart->product;
                one.input += v * one.input_stride;
                one.output += v * one.output_stride;
                one.vector_count = 1;
                for (size_t row = 0; row < ROWS_MAX; row++) {
                    other->product[type](&one, (struct cllm_rows){row, row + 1});
                }
            }
            assert_memory_equal(together->output, apart->output, sizeof together->output);
            destroy_fixture(together);
            destroy_fixture(apart);
        }
    }
}

static void test_results_do_not_depend_on_grouping(void **state)
{
    (void)state;
    for (int tier = 0; tier < CLLM_KERNELS_TIER_COUNT; tier++) {
        const struct cllm_kernels *kernels = cllm_kernels_of_tier((enum cllm_kernels_tier)tier);
        if (kernels) check_same_bits(kernels, kernels);
    }
}

static void test_vector_tiers_agree_bit_for_bit(void **state)
{
    (void)state;
    const struct cllm_kernels *avx2 = cllm_kernels_of_tier(CLLM_KERNELS_AVX2);
    const struct cllm_kernels *avx512 = cllm_kernels_of_tier(CLLM_KERNELS_AVX512);
    if (!avx2 || !avx512) {
        print_message("this processor lacks AVX2 or AVX-512\n");
        skip();
    }
    check_same_bits(avx2, avx512);
}

/* All 65,536 values, against arithmetic on the fields. */
static void test_f16_is_widened_exactly(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; half++) {
        const uint32_t exponent = half >> 10 & 31, fraction = half & 0x3FF;
        const float found = cllm_float_from_f16((uint16_t)half);
        if (exponent == 31) {
            assert_true(fraction ? isnan(found) : isinf(found));
        } else {
            const double size = exponent ? ldexp(1024 + fraction, (int)exponent - 25) : ldexp(fraction, -24);
            assert_true(fabs(found) == size);
        }
        assert_int_equal(signbit(found) != 0, half >> 15);
    }
}

static void test_bf16_is_the_upper_half(void **state)
{
    (void)state;
    assert_true(cllm_float_from_bf16(0x3F80) == 1.0f && cllm_float_from_bf16(0xC049) == -3.140625f);
    assert_true(cllm_float_from_bf16(0x0001) == 0x1p-133f && isinf(cllm_float_from_bf16(0xFF80)));
}

static void test_best_is_a_tier_of_this_processor(void **state)
{
    (void)state;
    bool found = false;
    for (int tier = 0; tier < CLLM_KERNELS_TIER_COUNT; tier++) {
        found |= cllm_kernels_of_tier((enum cllm_kernels_tier)tier) == cllm_kernels_best();
    }
    assert_true(found);
    assert_non_null(cllm_kernels_of_tier(CLLM_KERNELS_PORTABLE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_portable),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
        cmocka_unit_test(test_results_do_not_depend_on_grouping),
        cmocka_unit_test(test_vector_tiers_agree_bit_for_bit),
        cmocka_unit_test(test_f16_is_widened_exactly),
        cmocka_unit_test(test_bf16_is_the_upper_half),
        cmocka_unit_test(test_best_is_a_tier_of_this_processor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

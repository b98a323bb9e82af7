/* Whole numbers and scales are found where there are some, and give the same elements again, bit for bit; elsewhere not. */
#include "fit_scales.h"

#include "container_builder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT 4128u

static void store(enum cllm_scaled_type type, uint8_t *elements, uint32_t i, uint32_t element)
{
    uint8_t bytes[4];
    cllm_store_le32(bytes, element);
    memcpy(elements + i * cllm_scaled_element_bytes(type), bytes, cllm_scaled_element_bytes(type));
}

static uint32_t level_at(enum cllm_scaled_type type, const uint8_t *levels, uint32_t i)
{
    return type == CLLM_SCALED_F32 ? cllm_load_le32(levels + (size_t)i * 4) : cllm_load_le16(levels + (size_t)i * 2);
}

static float number_of(enum cllm_scaled_type type, uint32_t level)
{
    if (type != CLLM_SCALED_F16) return cllm_float_of_bits(type == CLLM_SCALED_F32 ? level : level << 16);
    return level >> 15 ? -cllm_scale_of_f16((uint16_t)level) : cllm_scale_of_f16((uint16_t)level);
}

static uint32_t product(enum cllm_scaled_type type, float number, float scale)
{
    return cllm_scaled_element(type, cllm_scaled_round(type, number), scale);
}

/* Numbers up to `most` of either sign, some of them -0, times scales about 2^exponent, of binary16 if `half`. */
static void check_fit(enum cllm_scaled_type type, uint32_t group, int32_t most, int exponent, bool half)
{
    struct test_random random = {group + (uint32_t)most + (uint32_t)type};
    uint8_t *elements = malloc(COUNT * 4), *levels = malloc(COUNT * 4), *again = malloc(COUNT * 4);
    float *found = malloc(COUNT / 32 * sizeof *found), scale = 0;
    struct cllm_scales scales = {.scales = found};
    for (uint32_t i = 0; i < COUNT; i++) {
        if (i % group == 0) scale = ldexpf((float)(1 + test_random_next(&random) % 1000) / 1001, exponent);
        if (half) scale = cllm_scale_of_f16(cllm_round_to_f16(scale));
        float number = (float)((int32_t)(test_random_next(&random) % (2u * (uint32_t)most + 1)) - most);
        if (i % group == 1) number = (float)most;
        if (i % 50 == 7) number = -0.0f;
        store(type, elements, i, product(type, number, scale));
    }
    assert_true(cllm_scales_suspected(type, elements, COUNT));
    assert_true(cllm_scales_fit(type, elements, COUNT, NULL, &scales, levels));
    assert_true(scales.head.group_log2 >= 5 && 1u << scales.head.group_log2 <= group);
    assert_int_equal(scales.scale_count, cllm_scaled_group_count(&scales.head, COUNT));
    if (half) assert_int_equal(scales.head.scale_type, CLLM_SCALE_F16);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint32_t level = level_at(type, levels, i);
        const float number = number_of(type, level);
        assert_true(fabsf(number) <= CLLM_SCALED_NUMBER_MAX && number == rintf(number));
        store(type, again, i, cllm_scaled_element(type, level, found[i >> scales.head.group_log2]));
    }
    assert_memory_equal(again, elements, COUNT * cllm_scaled_element_bytes(type));
    free(elements);
    free(levels);
    free(again);
    free(found);
}

static void test_scales_are_found(void **state)
{
    (void)state;
    static const struct {
        uint32_t group;
        int32_t most;
        int exponent;
    } cases[] = {{32, 7, -6}, {64, 8, -9}, {128, 7, -5}, {128, 127, -12}, {256, 127, -10}, {1024, 1, -3}, {4096, 15, -7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int type = CLLM_SCALED_BF16; type <= CLLM_SCALED_F32; type++) {
            check_fit((enum cllm_scaled_type)type, cases[i].group, cases[i].most, cases[i].exponent, false);
            check_fit((enum cllm_scaled_type)type, cases[i].group, cases[i].most, cases[i].exponent, true);
        }
    }
}

/* One of F8_E4M3, NaN apart. */
static float e4m3_number(uint32_t bits)
{
    const int exponent = bits >> 3 & 15;
    const float magnitude = exponent ? ldexpf((float)(8 + bits % 8), exponent - 10) : ldexpf((float)(bits % 8), -9);
    return bits & 0x80 ? -magnitude : magnitude;
}

static bool is_e4m3(float number)
{
    for (uint32_t bits = 0; bits < 0x7F; bits++) {
        if (e4m3_number(bits) == fabsf(number)) return true;
    }
    return false;
}

/* As weights of F8_E4M3 with a scale for each 128 are turned into wider floats: the same scales are found in groups as large,
 * if the greatest number is among each group's, or such that numbers stay of F8_E4M3. */
static void test_scales_of_e4m3_are_found(void **state)
{
    (void)state;
    struct test_random random = {77};
    uint8_t *elements = malloc(COUNT * 4), *levels = malloc(COUNT * 4);
    float found[COUNT / 32], scale = 0;
    for (int type = CLLM_SCALED_BF16; type <= CLLM_SCALED_F32; type++) {
        struct cllm_scales scales = {.scales = found}, again = {.scales = found};
        for (uint32_t i = 0; i < COUNT; i++) {
            if (i % 128 == 0) scale = ldexpf((float)(1000 + test_random_next(&random) % 1000) / 1001, -13);
            const uint32_t bits = (uint32_t)(test_random_next(&random) >> 20 & 0xFF);
            const bool small = i / 128 % 3 == 1; /* some groups have small numbers only */
            float number = e4m3_number((bits & 0x7F) == 0x7F ? 0x7E : small ? bits & 0xBF : bits);
            if (i % 128 == 5 && !small) number = 448;
            store((enum cllm_scaled_type)type, elements, i, product((enum cllm_scaled_type)type, number, scale));
        }
        assert_true(cllm_scales_suspected((enum cllm_scaled_type)type, elements, COUNT));
        assert_true(cllm_scales_fit((enum cllm_scaled_type)type, elements, COUNT, NULL, &scales, levels));
        assert_int_equal(scales.numbers, CLLM_SCALED_E4M3);
        assert_int_equal(scales.head.group_log2, 7);
        for (uint32_t i = 0; i < COUNT; i++) {
            const uint32_t level = level_at((enum cllm_scaled_type)type, levels, i);
            assert_true(is_e4m3(number_of((enum cllm_scaled_type)type, level)));
            assert_int_equal(cllm_scaled_element((enum cllm_scaled_type)type, level, found[i / 128]),
                             level_at((enum cllm_scaled_type)type, elements, i));
        }
        const struct cllm_scales like = scales;
        assert_true(cllm_scales_fit((enum cllm_scaled_type)type, elements, COUNT, &like, &again, levels));
        assert_int_equal(again.numbers, CLLM_SCALED_E4M3);
        assert_int_equal(again.head.group_log2, 7);
    }
    free(elements);
    free(levels);
}

static void test_half_a_scale_is_not_taken_from_before(void **state)
{
    (void)state;
    uint8_t elements[2 * 64], levels[2 * 64];
    float found[2];
    struct cllm_scales scales = {.scales = found};
    for (uint32_t i = 0; i < 64; i++) {
        const float number = (float)((int32_t)(i * 5 % 15) - 7);
        store(CLLM_SCALED_BF16, elements, i, product(CLLM_SCALED_BF16, number, i < 32 ? 0.25f : 0.5f));
    }
    assert_true(cllm_scales_fit(CLLM_SCALED_BF16, elements, 64, NULL, &scales, levels));
    for (uint32_t i = 0; i < 64; i++) assert_true(fabsf(number_of(CLLM_SCALED_BF16, level_at(CLLM_SCALED_BF16, levels, i))) <= 7);
}

static void test_ordinary_weights_have_none(void **state)
{
    (void)state;
    struct test_random random = {3};
    uint8_t elements[2 * 4096], levels[2 * 4096];
    float found[128];
    struct cllm_scales scales = {.scales = found};
    for (int repetition = 0; repetition < 20; repetition++) {
        test_random_bf16(&random, elements, 4096);
        assert_false(cllm_scales_suspected(CLLM_SCALED_BF16, elements, 4096));
        assert_false(cllm_scales_fit(CLLM_SCALED_BF16, elements, 4096, NULL, &scales, levels));
    }
    memset(elements, 0, sizeof elements);
    assert_false(cllm_scales_suspected(CLLM_SCALED_BF16, elements, 4096));
    for (uint32_t i = 0; i < 4096; i++) store(CLLM_SCALED_BF16, elements, i, i % 2 ? 0x7F80 : 0x3F80); /* infinite */
    assert_false(cllm_scales_suspected(CLLM_SCALED_BF16, elements, 4096));
}

/* A number of binary32 is rounded to one of the two of binary16 beside it, the nearer one, or that with a last bit of 0. */
static void test_rounding_to_f16(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7BFF; half++) {
        const float value = cllm_scale_of_f16((uint16_t)half), next = cllm_scale_of_f16((uint16_t)(half + 1));
        const float middle = value + (next - value) / 2;
        assert_int_equal(cllm_round_to_f16(value), half);
        assert_int_equal(cllm_round_to_f16(-value), half | 0x8000);
        assert_int_equal(cllm_round_to_f16(middle), half + half % 2);
        assert_int_equal(cllm_round_to_f16(nextafterf(middle, 0)), half);
        assert_int_equal(cllm_round_to_f16(nextafterf(middle, INFINITY)), half + 1);
    }
    assert_true(cllm_scale_of_f16(0x3C00) == 1 && cllm_scale_of_f16(1) == 0x1p-24f && cllm_scale_of_f16(0x7BFF) == 65504);
    assert_int_equal(cllm_round_to_f16(65519.99f), 0x7BFF);
    assert_int_equal(cllm_round_to_f16(65520), 0x7C00);
    assert_int_equal(cllm_round_to_f16(-INFINITY), 0xFC00);
}

static void test_elements(void **state)
{
    (void)state;
    assert_int_equal(product(CLLM_SCALED_BF16, 3, 1.0f / 3), 0x3F80);
    assert_int_equal(product(CLLM_SCALED_BF16, -7, 0x1p127f), 0xFF80); /* too large */
    assert_int_equal(product(CLLM_SCALED_BF16, -0.0f, 5), 0x8000);
    assert_int_equal(product(CLLM_SCALED_F16, -0.0f, 5), 0x8000);
    assert_int_equal(product(CLLM_SCALED_F16, -1, 0x1p-26f), 0x8000); /* too small */
    assert_int_equal(product(CLLM_SCALED_F16, 3, 0x1p-25f), 2);       /* a tie */
    assert_int_equal(product(CLLM_SCALED_F32, 3, 0x1p-149f), 3);      /* subnormal */
    assert_int_equal(product(CLLM_SCALED_F32, -2, 0), 0x80000000);
    assert_int_equal(cllm_scaled_element(CLLM_SCALED_BF16, 0xFF80, 0), 0xFF80); /* infinite, NaN: as they are */
    assert_int_equal(cllm_scaled_element(CLLM_SCALED_F16, 0x7C01, 2), 0x7C01);
    assert_int_equal(cllm_scaled_element(CLLM_SCALED_F32, 0xFFC12345, 2), 0xFFC12345);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scales_are_found),
        cmocka_unit_test(test_scales_of_e4m3_are_found),
        cmocka_unit_test(test_half_a_scale_is_not_taken_from_before),
        cmocka_unit_test(test_ordinary_weights_have_none),
        cmocka_unit_test(test_rounding_to_f16),
        cmocka_unit_test(test_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

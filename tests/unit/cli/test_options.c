/* test_options.c - values on command lines. The programs' objects are not in the library, so the source is included. */
#include "options.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

const char *cllm_shown(const char *path)
{
    return path;
}

const char *cllm_message_program(void)
{
    return "test";
}

static void assert_size(const char *text, uint64_t expected)
{
    uint64_t byte_count = 0;
    assert_int_equal(cllm_parse_size("-M", text, &byte_count, NULL), CLLM_OK);
    assert_true(byte_count == expected);
}

static void assert_no_size(const char *text)
{
    struct cllm_error err = {0};
    uint64_t byte_count;
    assert_int_equal(cllm_parse_size("-M", text, &byte_count, &err), CLLM_E_USAGE);
    assert_non_null(strstr(err.message, "-M: found "));
}

static void test_sizes_have_binary_and_decimal_units(void **state)
{
    (void)state;
    assert_size("0", 0);
    assert_size("1500000", 1500000);
    assert_size("3K", 3072);
    assert_size("512MiB", UINT64_C(512) << 20);
    assert_size("8G", UINT64_C(8) << 30);
    assert_size("8GB", UINT64_C(8000000000));
    assert_size("2TiB", UINT64_C(2) << 40);
    assert_size("18446744073709551615", UINT64_MAX);
    assert_size("0.5GiB", UINT64_C(512) << 20);
    assert_size("1.0GiB", UINT64_C(1) << 30);
    assert_size("1.5GB", UINT64_C(1500000000));
    assert_size("2.000001kB", 2000);
    assert_size("0.999999TiB", UINT64_C(1099510528264)); /* and 0.22 */
    assert_size("16777215.999999TiB", UINT64_C(18446744073708452104));
}

static void test_sizes_reject_everything_else(void **state)
{
    (void)state;
    static const char *const texts[] = {"",           "-1",         "+1",   " 1", "1 ",   "1.5", "1.G",   ".5G",
                                        "1.5.5G",     "1.0000000G", "1,5G", "1g", "0x10", "MiB", "1MiBs", "18446744073709551616",
                                        "16777216TiB"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_no_size(texts[i]);
    }
}

static void test_threads_are_bounded(void **state)
{
    (void)state;
    unsigned count = 99;
    assert_int_equal(cllm_parse_threads("-T", "0", &count, NULL), CLLM_OK);
    assert_int_equal(count, 0);
    assert_int_equal(cllm_parse_threads("-T", "4096", &count, NULL), CLLM_OK);
    assert_int_equal(count, 4096);
    assert_int_equal(cllm_parse_threads("-T", "4097", &count, NULL), CLLM_E_USAGE);
    assert_int_equal(cllm_parse_threads("-T", "-1", &count, NULL), CLLM_E_USAGE);
    assert_int_equal(cllm_parse_threads("-T", "", &count, NULL), CLLM_E_USAGE);
    assert_int_equal(cllm_parse_threads("-T", "2x", &count, NULL), CLLM_E_USAGE);
    assert_int_equal(count, 4096);
}

static void test_fractions_are_finite_and_not_negative(void **state)
{
    (void)state;
    double value = 0;
    assert_int_equal(cllm_parse_fraction("--temp", "0.8", &value, NULL), CLLM_OK);
    assert_true(value == 0.8);
    static const char *const texts[] = {"", "-0.1", "nan", "inf", "1e999", "0,8", "1x", " 1", "+1", "0x1"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(cllm_parse_fraction("--temp", texts[i], &value, NULL), CLLM_E_USAGE);
    }
    assert_true(value == 0.8);
}

static void test_devices_are_three(void **state)
{
    (void)state;
    enum cllm_device device = CLLM_DEVICE_AUTO;
    unsigned index = 7;
    assert_int_equal(cllm_parse_device("cuda", &device, &index, NULL), CLLM_OK);
    assert_int_equal(device, CLLM_DEVICE_CUDA);
    assert_int_equal(index, 0);
    assert_int_equal(cllm_parse_device("cuda:3", &device, &index, NULL), CLLM_OK);
    assert_int_equal(index, 3);
    assert_int_equal(cllm_parse_device("cuda:", &device, &index, NULL), CLLM_E_USAGE);
    assert_int_equal(cllm_parse_device("cuda:3x", &device, &index, NULL), CLLM_E_USAGE);
    assert_int_equal(cllm_parse_device("CUDA", &device, &index, NULL), CLLM_E_USAGE);
    assert_int_equal(cllm_parse_device("", &device, &index, NULL), CLLM_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_have_binary_and_decimal_units),
        cmocka_unit_test(test_sizes_reject_everything_else),
        cmocka_unit_test(test_threads_are_bounded),
        cmocka_unit_test(test_fractions_are_finite_and_not_negative),
        cmocka_unit_test(test_devices_are_three),
    };
    return cmocka_run_group_tests_name("cli/options", tests, NULL, NULL);
}

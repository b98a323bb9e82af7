/* What header and footer promise. */
#include "bytes.h"
#include "container_surgery.h"
#include "digest.h"
#include "header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void test_header_is_the_64_bytes_of_the_specification(void **state)
{
    (void)state;
    static const uint8_t magic[8] = {0x89, 'C', 'L', 'M', 0x0D, 0x0A, 0x1A, 0x0A};
    uint8_t bytes[CLLM_HEADER_BYTES];
    uint64_t checksum = cllm_header_serialise(bytes), parsed;
    assert_memory_equal(bytes, magic, 8);
    for (size_t i = 8; i < 56; i++) assert_int_equal(bytes[i], 0);
    assert_true(cllm_load_le64(bytes + 56) == checksum);
    assert_true(cllm_checksum(bytes, 56) == checksum);
    assert_int_equal(cllm_header_parse(bytes, &parsed, NULL), CLLM_OK);
    assert_true(parsed == checksum);
}

static void test_header_damage_does_not_pass_for_a_newer_version(void **state)
{
    (void)state;
    uint8_t bytes[CLLM_HEADER_BYTES];
    uint64_t checksum;
    cllm_header_serialise(bytes);
    for (size_t i = 8; i < sizeof bytes; i++) {
        bytes[i] ^= 1;
        assert_int_equal(cllm_header_parse(bytes, &checksum, NULL), CLLM_E_DIGEST);
        bytes[i] ^= 1;
    }
    for (size_t i = 0; i < 8; i++) {
        bytes[i] ^= 1;
        assert_int_equal(cllm_header_parse(bytes, &checksum, NULL), CLLM_E_FORMAT);
        bytes[i] ^= 1;
    }
}

static void test_header_of_a_newer_cllm_is_unsupported(void **state)
{
    (void)state;
    uint8_t bytes[CLLM_HEADER_BYTES];
    uint64_t checksum;
    for (unsigned bit = 0; bit < 64; bit++) {
        cllm_header_serialise(bytes);
        test_header_poke(bytes, CLLM_HEADER_INCOMPATIBLE_OFFSET, 8, UINT64_C(1) << bit);
        assert_int_equal(cllm_header_parse(bytes, &checksum, NULL), CLLM_E_UNSUPPORTED);
        cllm_header_serialise(bytes);
        test_header_poke(bytes, CLLM_HEADER_COMPATIBLE_OFFSET, 8, UINT64_C(1) << bit);
        assert_int_equal(cllm_header_parse(bytes, &checksum, NULL), CLLM_OK);
    }
    cllm_header_serialise(bytes);
    test_header_poke(bytes, CLLM_HEADER_VERSION_OFFSET, 4, UINT32_MAX);
    assert_int_equal(cllm_header_parse(bytes, &checksum, NULL), CLLM_E_UNSUPPORTED);
}

/* A footer of a container of 1000 bytes: payload to 300, index of 596 bytes. */
static struct cllm_footer good_footer(void)
{
    struct cllm_footer footer = {
        .index_offset = 300,
        .index_stored_bytes = 596,
        .index_bytes = 596,
        .manifest_bytes = 100,
        .index_checksum = UINT64_C(0x1122334455667788),
        .container_bytes = 1000,
        .header_checksum = 42,
    };
    memset(footer.root, 0xAB, sizeof footer.root);
    return footer;
}

static enum cllm_status parse(const struct cllm_footer *footer)
{
    uint8_t bytes[CLLM_FOOTER_BYTES];
    struct cllm_footer parsed;
    cllm_footer_serialise(footer, bytes);
    return cllm_footer_parse(bytes, 1000, 42, &parsed, NULL);
}

static void test_footer_round_trips(void **state)
{
    (void)state;
    struct cllm_footer footer = good_footer(), parsed;
    uint8_t bytes[CLLM_FOOTER_BYTES];
    cllm_footer_serialise(&footer, bytes);
    assert_int_equal(cllm_footer_parse(bytes, 1000, 42, &parsed, NULL), CLLM_OK);
    assert_true(parsed.index_offset == 300 && parsed.index_stored_bytes == 596 && parsed.index_bytes == 596);
    assert_true(parsed.manifest_bytes == 100 && parsed.index_checksum == footer.index_checksum);
    assert_true(parsed.container_bytes == 1000 && parsed.header_checksum == 42);
    assert_memory_equal(parsed.root, footer.root, sizeof footer.root);
}

static void test_footer_rejects_every_flipped_bit(void **state)
{
    (void)state;
    struct cllm_footer footer = good_footer(), parsed;
    uint8_t bytes[CLLM_FOOTER_BYTES];
    cllm_footer_serialise(&footer, bytes);
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum cllm_status expected = bit / 8 < CLLM_FOOTER_MAGIC_OFFSET ? CLLM_E_DIGEST : CLLM_E_CORRUPT;
        assert_int_equal(cllm_footer_parse(bytes, 1000, 42, &parsed, NULL), expected);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void test_footer_sizes_must_fit_the_container(void **state)
{
    (void)state;
    static const struct {
        uint64_t index_offset, stored, decoded, manifest, container;
        enum cllm_status expected;
    } cases[] = {
        {300, 596, 596, 596, 1000, CLLM_OK},
        {300, 596, 596, 597, 1000, CLLM_E_CORRUPT},
        {300, 596, 595, 100, 1000, CLLM_E_CORRUPT},
        {300, 595, 595, 100, 1000, CLLM_E_CORRUPT},
        {301, 596, 596, 100, 1000, CLLM_E_CORRUPT},
        {301, 595, 595, 100, 1000, CLLM_OK},
        {64, 832, 832, 100, 1000, CLLM_OK},
        {63, 833, 833, 100, 1000, CLLM_E_CORRUPT},
        {300, 596, 596, 100, 1001, CLLM_E_CORRUPT},
        {300, 596, 64 * 596 + 63, 100, 1000, CLLM_OK},
        {300, 596, 64 * 596 + 64, 100, 1000, CLLM_E_LIMIT},
        {896, 0, 0, 0, 1000, CLLM_OK},
        {896, 0, 64, 0, 1000, CLLM_E_LIMIT},
        {300, UINT64_MAX - 100, UINT64_MAX - 100, 100, 1000, CLLM_E_CORRUPT},
        {UINT64_MAX - 100, 997, 997, 100, 1000, CLLM_E_CORRUPT},
        {300, 596, UINT64_MAX, 100, 1000, CLLM_E_LIMIT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cllm_footer footer = good_footer();
        footer.index_offset = cases[i].index_offset;
        footer.index_stored_bytes = cases[i].stored;
        footer.index_bytes = cases[i].decoded;
        footer.manifest_bytes = cases[i].manifest;
        footer.container_bytes = cases[i].container;
        assert_int_equal(parse(&footer), cases[i].expected);
    }
}

static void test_footer_of_another_header_is_corrupt(void **state)
{
    (void)state;
    struct cllm_footer footer = good_footer();
    footer.header_checksum = 43;
    assert_int_equal(parse(&footer), CLLM_E_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_is_the_64_bytes_of_the_specification),
        cmocka_unit_test(test_header_damage_does_not_pass_for_a_newer_version),
        cmocka_unit_test(test_header_of_a_newer_cllm_is_unsupported),
        cmocka_unit_test(test_footer_round_trips),
        cmocka_unit_test(test_footer_rejects_every_flipped_bit),
        cmocka_unit_test(test_footer_sizes_must_fit_the_container),
        cmocka_unit_test(test_footer_of_another_header_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

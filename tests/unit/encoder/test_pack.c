/* How checkpoints are packed: numbers in disguise, and what must not be taken for some. */
#include "bytes.h"
#include "cllm_decode.h"
#include "cllm_encode.h"
#include "container_builder.h"
#include "test_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define ELEMENTS 100000u

/* One tensor of ELEMENTS elements, packed and read again. */
struct packed {
    struct test_dir dir;
    struct cllm_reader *reader;
    uint8_t *bytes; /* the file */
    size_t byte_count;
};

static struct packed pack(const char *dtype, unsigned element_bytes, const uint8_t *elements)
{
    struct packed packed = {.dir = test_dir_create()};
    struct cllm_error err;
    struct cllm_source *source;
    struct cllm_pack_report report;
    const struct cllm_source_options source_options = {.only_weights = true};
    const struct cllm_pack_options options = {.thread_count = 2};
    char header[200], output[300];
    int header_bytes = snprintf(header, sizeof header, "{\"w\":{\"dtype\":\"%s\",\"shape\":[%u],\"data_offsets\":[0,%u]}}", dtype,
                                ELEMENTS, ELEMENTS * element_bytes);
    packed.byte_count = 8 + (size_t)header_bytes + (size_t)ELEMENTS * element_bytes;
    packed.bytes = malloc(packed.byte_count);
    assert_non_null(packed.bytes);
    cllm_store_le64(packed.bytes, (uint64_t)header_bytes);
    memcpy(packed.bytes + 8, header, (size_t)header_bytes);
    memcpy(packed.bytes + 8 + header_bytes, elements, (size_t)ELEMENTS * element_bytes);
    test_dir_write(&packed.dir, "m.safetensors", packed.bytes, packed.byte_count);
    snprintf(output, sizeof output, "%s/m.cllm", packed.dir.path);
    TEST_REQUIRE(cllm_source_open(test_dir_path(&packed.dir, "m.safetensors"), &source_options, &source, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_pack(source, output, &options, &report, &err) == CLLM_OK, &err);
    cllm_source_close(source);
    TEST_REQUIRE(cllm_reader_open(output, &packed.reader, &err) == CLLM_OK, &err);
    return packed;
}

/* The tensor's data object; the file is restored and compared on the way. */
static const struct cllm_data *check(const struct packed *packed)
{
    struct cllm_error err;
    const struct cllm_index *index = cllm_reader_index(packed->reader);
    uint8_t *bytes;
    size_t byte_count;
    TEST_REQUIRE(cllm_load_file(packed->reader, index->files, UINT64_MAX, &bytes, &byte_count, &err) == CLLM_OK, &err);
    assert_int_equal(byte_count, packed->byte_count);
    assert_memory_equal(bytes, packed->bytes, byte_count);
    free(bytes);
    return &index->data[index->tensors[0].data_index];
}

static void discard(struct packed *packed)
{
    cllm_reader_close(packed->reader);
    test_dir_remove(&packed->dir);
    free(packed->bytes);
}

/* F32 elements that keep all but their lowest `zero_bits` bits. */
static uint8_t *make_floats(unsigned zero_bits)
{
    struct test_random random = {21};
    uint8_t *elements = malloc(4 * (size_t)ELEMENTS);
    assert_non_null(elements);
    for (uint32_t i = 0; i < ELEMENTS; i++) {
        uint64_t noise = test_random_next(&random), draw = test_random_next(&random) | UINT64_C(1) << 30;
        uint32_t exponent = 124 - (uint32_t)__builtin_ctzll(draw);
        uint32_t element = ((uint32_t)noise & 0x807FFFFFu) | exponent << 23;
        cllm_store_le32(elements + 4 * (size_t)i, element >> zero_bits << zero_bits);
    }
    return elements;
}

static void test_low_bits_that_are_zero_everywhere_are_not_stored(void **state)
{
    (void)state;
    static const struct {
        unsigned zero_bits, percent_at_most;
    } cases[] = {{16, 32}, {13, 41}, {1, 79}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t *elements = make_floats(cases[i].zero_bits);
        struct packed packed = pack("F32", 4, elements);
        const struct cllm_data *data = check(&packed);
        assert_int_equal(data->layout.zero_bits, cases[i].zero_bits);
        assert_in_range(data->stored_bytes, 1, data->decoded_bytes * cases[i].percent_at_most / 100);
        for (uint32_t k = 0; k < data->chunk_count; k++) assert_int_equal(data->chunks[k].form, CLLM_FORM_FLOAT);
        discard(&packed);
        free(elements);
    }
}

static void test_one_element_with_a_low_bit_keeps_them_all(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < ELEMENTS; at += ELEMENTS - 1) {
        uint8_t *elements = make_floats(16);
        elements[4 * (size_t)at] |= 1;
        struct packed packed = pack("F32", 4, elements);
        assert_int_equal(check(&packed)->layout.zero_bits, 0);
        discard(&packed);
        free(elements);
    }
}

static void test_a_constant_tensor_is_next_to_nothing(void **state)
{
    (void)state;
    static const uint8_t bytes[3] = {0, 0x3F, 0xFF};
    uint8_t *elements = malloc(4 * (size_t)ELEMENTS);
    assert_non_null(elements);
    for (size_t i = 0; i < sizeof bytes; i++) {
        memset(elements, bytes[i], 4 * (size_t)ELEMENTS);
        struct packed packed = pack("F32", 4, elements);
        assert_in_range(check(&packed)->stored_bytes, 1, 400);
        discard(&packed);
    }
    free(elements);
}

static void test_a_source_is_not_replaced_by_its_container(void **state)
{
    (void)state;
    struct test_dir dir = test_dir_create();
    struct cllm_error err;
    struct cllm_source *source;
    struct cllm_pack_report report;
    const struct cllm_source_options source_options = {.opaque = true};
    const struct cllm_pack_options options = {.replace = true};
    test_dir_write(&dir, "model", "weights", 7);
    const char *path = test_dir_path(&dir, "model");
    TEST_REQUIRE(cllm_source_open(path, &source_options, &source, &err) == CLLM_OK, &err);
    assert_int_equal(cllm_pack(source, path, &options, &report, &err), CLLM_E_USAGE);
    assert_non_null(strstr(err.message, "model is one of the input files"));
    TEST_REQUIRE(cllm_source_check_unchanged(source, &err) == CLLM_OK, &err);
    cllm_source_close(source);
    test_dir_remove(&dir);
}

static void test_options_may_be_null(void **state)
{
    (void)state;
    struct test_dir dir = test_dir_create();
    struct cllm_error err;
    struct cllm_source *source;
    struct cllm_reader *reader;
    struct cllm_pack_report packed;
    struct cllm_verify_report verified;
    test_dir_write(&dir, "m.safetensors", "\x08\0\0\0\0\0\0\0{}      ", 16);
    TEST_REQUIRE(cllm_source_open(test_dir_path(&dir, "m.safetensors"), NULL, &source, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_pack(source, test_dir_path(&dir, "m.cllm"), NULL, &packed, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_reader_open(test_dir_path(&dir, "m.cllm"), &reader, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_verify(reader, NULL, &verified, &err) == CLLM_OK, &err);
    assert_int_equal(verified.decoded_bytes, 16);
    cllm_reader_close(reader);
    cllm_source_close(source);
    test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_low_bits_that_are_zero_everywhere_are_not_stored),
        cmocka_unit_test(test_one_element_with_a_low_bit_keeps_them_all),
        cmocka_unit_test(test_a_constant_tensor_is_next_to_nothing),
        cmocka_unit_test(test_a_source_is_not_replaced_by_its_container),
        cmocka_unit_test(test_options_may_be_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

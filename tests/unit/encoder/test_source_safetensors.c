/* A single .safetensors file as a source. Row numbers (s..) are those of the project's list of malformed inputs. */
#include "cllm_source.h"

#include "safetensors_builder.h"
#include "source_safetensors.h"
#include "test_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#define SHARED "../shared/data/"

static struct test_dir dir;

static int create_dir(void **state)
{
    (void)state;
    dir = test_dir_create();
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    test_dir_remove(&dir);
    return 0;
}

/* ------------------------------------------------------------------------------------------------------- helpers */

static enum cllm_status open_path(const char *path, struct cllm_source **source, struct cllm_error *err)
{
    const struct cllm_source_options options = {.only_weights = true};
    *err = (struct cllm_error){0};
    return cllm_source_open(path, &options, source, err);
}

static void assert_message_has(const struct cllm_error *err, const char *fragment)
{
    if (!strstr(err->message, fragment)) fail_msg("\"%s\" is not in \"%s\"", fragment, err->message);
}

static void expect_path_rejected(const char *path, enum cllm_status status, const char *found, const char *expected)
{
    struct cllm_source *source = NULL;
    struct cllm_error err;
    enum cllm_status got = open_path(path, &source, &err);
    if (got != status) fail_msg("status %d (%s), expected %d", (int)got, err.message, (int)status);
    assert_null(source);
    assert_int_equal(err.status, status);
    assert_message_has(&err, found);
    assert_message_has(&err, expected);
}

static void expect_bytes_rejected(const void *bytes, size_t byte_count, enum cllm_status status, const char *found,
                                  const char *expected)
{
    test_dir_write(&dir, "m.safetensors", bytes, byte_count);
    expect_path_rejected(test_dir_path(&dir, "m.safetensors"), status, found, expected);
}

static void expect_rejected(const char *header, size_t data_bytes, enum cllm_status status, const char *found,
                            const char *expected)
{
    struct test_safetensors built = test_safetensors_build(header, data_bytes);
    expect_bytes_rejected(built.bytes, built.byte_count, status, found, expected);
    free(built.bytes);
}

static struct cllm_source *expect_accepted(const char *header, size_t data_bytes)
{
    struct cllm_source *source = NULL;
    struct cllm_error err;
    test_safetensors_write(&dir, "m.safetensors", header, data_bytes);
    enum cllm_status status = open_path(test_dir_path(&dir, "m.safetensors"), &source, &err);
    if (status) fail_msg("%s", err.message);
    assert_int_equal(source->file_count, 1);
    return source;
}

/* Spans cover every file, tensors are referred to once and in order. */
static void assert_source_is_whole(const struct cllm_source *source)
{
    uint32_t tensor_count = 0;
    uint64_t total_bytes = 0;
    for (uint32_t i = 0; i < source->file_count; i++) {
        const struct cllm_source_file *file = &source->files[i];
        uint64_t end = 0;
        for (uint32_t k = 0; k < file->span_count; k++) {
            assert_int_equal(file->spans[k].offset, end);
            end += file->spans[k].bytes;
            if (file->spans[k].tensor_index == CLLM_SPAN_LITERAL) {
                assert_true(file->spans[k].bytes > 0);
                continue;
            }
            assert_int_equal(file->spans[k].tensor_index, tensor_count);
            const struct cllm_source_tensor *tensor = &source->tensors[tensor_count++];
            assert_int_equal(tensor->file_index, i);
            assert_int_equal(strlen(tensor->name), tensor->name_bytes);
            assert_true(tensor->rank > 0 || !tensor->shape);
        }
        assert_int_equal(end, file->bytes);
        total_bytes += end;
    }
    assert_int_equal(tensor_count, source->tensor_count);
    assert_int_equal(total_bytes, source->total_bytes);
}

#define T(name, dtype, shape, begin, end)                                                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

/* -------------------------------------------------------------------------------------------------- what is right */

static void test_file_is_its_header_then_its_tensors(void **state)
{
    (void)state;
    struct cllm_source *source = expect_accepted(
        "{\"__metadata__\":{\"format\":\"pt\"}," T("a", "F32", "[2,1]", 0, 8) "," T("b", "BF16", "[]", 8, 10) "}  ", 10);
    assert_source_is_whole(source);
    assert_string_equal(source->files[0].name, "m.safetensors");
    assert_int_equal(source->files[0].span_count, 3);
    assert_int_equal(source->files[0].spans[0].tensor_index, CLLM_SPAN_LITERAL);
    assert_int_equal(source->tensor_count, 2);
    const struct cllm_source_tensor *a = &source->tensors[0], *b = &source->tensors[1];
    assert_string_equal(a->name, "a");
    assert_string_equal(a->dtype, "F32");
    assert_int_equal(a->element_bits, 32);
    assert_int_equal(a->rank, 2);
    assert_int_equal(a->shape[0], 2);
    assert_int_equal(a->shape[1], 1);
    assert_int_equal(b->rank, 0);
    assert_null(b->shape);
    uint8_t bytes[2];
    struct cllm_error err;
    assert_int_equal(cllm_source_read(source, 0, source->files[0].spans[2].offset, bytes, 2, &err), CLLM_OK);
    assert_int_equal(bytes[0], 9);
    assert_int_equal(bytes[1], 10);
    assert_int_equal(cllm_source_read(source, 0, source->files[0].bytes - 1, bytes, 2, &err), CLLM_E_CORRUPT);
    assert_message_has(&err, "shorter");
    cllm_source_close(source);
}

static void test_every_dtype_is_accepted(void **state)
{
    (void)state;
    for (const char *at = cllm_dtype_names(); *at;) {
        size_t name_bytes = strcspn(at, " ");
        const struct cllm_dtype *dtype = cllm_dtype_find(at, name_bytes);
        char header[200];
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[8],\"data_offsets\":[0,%u]}}", dtype->name,
                 dtype->element_bits);
        struct cllm_source *source = expect_accepted(header, dtype->element_bits);
        assert_string_equal(source->tensors[0].dtype, dtype->name);
        assert_int_equal(source->tensors[0].element_bits, dtype->element_bits);
        cllm_source_close(source);
        at += name_bytes + (at[name_bytes] == ' ');
    }
}

static void test_file_without_tensors_is_accepted(void **state)
{
    (void)state;
    struct cllm_source *source = expect_accepted("{}", 0);
    assert_source_is_whole(source);
    assert_int_equal(source->tensor_count, 0);
    cllm_source_close(source);
}

static void test_empty_tensors_take_their_place_anywhere(void **state)
{
    (void)state;
    struct cllm_source *source = expect_accepted("{" T("last", "F32", "[0]", 4, 4) "," T("a", "U8", "[4]", 0, 4) "," T(
                                                     "first", "F32", "[3,0]", 0, 0) "," T("second", "U8", "[0]", 0, 0) "}",
                                                 4);
    assert_source_is_whole(source);
    assert_string_equal(source->tensors[0].name, "first");
    assert_string_equal(source->tensors[1].name, "second");
    assert_string_equal(source->tensors[2].name, "a");
    assert_string_equal(source->tensors[3].name, "last");
    cllm_source_close(source);
}

static void test_s21_unknown_field_is_ignored(void **state)
{
    (void)state;
    cllm_source_close(
        expect_accepted("{\"a\":{\"dtype\":\"U8\",\"extra\":[1,{\"b\":null}],\"shape\":[1],\"data_offsets\":[0,1]}}", 1));
}

static void test_s35_misaligned_tensor_is_accepted(void **state)
{
    (void)state;
    struct cllm_source *source = expect_accepted("{" T("a", "U8", "[1]", 0, 1) "," T("b", "F32", "[1]", 1, 5) "}", 5);
    assert_source_is_whole(source);
    cllm_source_close(source);
}

static void test_s36_tensors_are_in_the_order_of_their_data(void **state)
{
    (void)state;
    struct cllm_source *source = expect_accepted("{" T("a", "U8", "[2]", 1, 3) "," T("b", "U8", "[1]", 0, 1) "}", 3);
    assert_source_is_whole(source);
    assert_string_equal(source->tensors[0].name, "b");
    assert_string_equal(source->tensors[1].name, "a");
    cllm_source_close(source);
}

static void test_s38_names_are_opaque_keys(void **state)
{
    (void)state;
    struct cllm_source *source = expect_accepted(
        "{" T("", "U8", "[1]", 0, 1) "," T("../../x", "U8", "[1]", 1, 2) "," T("\\u001b[2J\\n", "U8", "[1]", 2, 3) "}", 3);
    assert_source_is_whole(source);
    assert_string_equal(source->tensors[0].name, "");
    assert_string_equal(source->tensors[1].name, "../../x");
    assert_string_equal(source->tensors[2].name, "\033[2J\n");
    cllm_source_close(source);
}

static void test_s38_control_characters_are_escaped_in_messages(void **state)
{
    (void)state;
    expect_rejected("{" T("\\u001b[2J", "U8", "[2]", 0, 1) "}", 1, CLLM_E_CORRUPT, "\"\\x1b[2J\"", "need 2");
}

static void test_name_of_65535_bytes_is_accepted(void **state)
{
    (void)state;
    char *header = malloc(70000);
    memset(header, 'n', 70000);
    memcpy(header, "{\"", 2);
    strcpy(header + 2 + 65535, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    struct cllm_source *source = expect_accepted(header, 1);
    assert_int_equal(source->tensors[0].name_bytes, 65535);
    cllm_source_close(source);
    free(header);
}

/* ------------------------------------------------------------------------------------------------ length and text */

static void test_s1_file_under_8_bytes_is_rejected(void **state)
{
    (void)state;
    expect_bytes_rejected("\0\0\0\0\0\0\0", 7, CLLM_E_CORRUPT, "has 7 bytes", "at least 8");
    expect_bytes_rejected("", 0, CLLM_E_CORRUPT, "has 0 bytes", "at least 8");
}

static void test_s2_header_longer_than_the_file_is_rejected(void **state)
{
    (void)state;
    expect_bytes_rejected("\3\0\0\0\0\0\0\0{}", 10, CLLM_E_CORRUPT, "length is 3", "only 2 bytes");
}

static void test_s3_header_above_the_cap_is_rejected(void **state)
{
    (void)state;
    expect_bytes_rejected("\x01\xe1\xf5\x05\0\0\0\0{}", 10, CLLM_E_CORRUPT, "100000001", "at most 100000000");
    expect_bytes_rejected("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, CLLM_E_CORRUPT, "18446744073709551615", "at most 100000000");
}

/* S4: a length at the cap in a short file; were it allocated first, this would cost 100 MB (seen under a memory limit). */
static void test_s4_header_length_is_checked_before_use(void **state)
{
    (void)state;
    expect_bytes_rejected("\x00\xe1\xf5\x05\0\0\0\0{}", 10, CLLM_E_CORRUPT, "100000000", "only 2 bytes");
}

static void test_s5_header_not_utf8_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{\"\xff\":1}", 0, CLLM_E_CORRUPT, "0xff", "UTF-8");
    expect_rejected("{\"\xc0\xaf\":1}", 0, CLLM_E_CORRUPT, "0xc0", "UTF-8");
    expect_rejected("{\"\xed\xa0\x80\":1}", 0, CLLM_E_CORRUPT, "0xed", "UTF-8");
}

static void test_s6_header_not_json_is_rejected(void **state)
{
    (void)state;
    static const char *const headers[] = {"{",           "{]",         "{\"a\"}",     "{\"a\":1,}",    "{\"a\":1 // c\n}",
                                          "{\"a\":NaN}", "{\"a\":01}", "{'a':1}",     "{\"a\":1e999}", "{\"a\":[1,]}",
                                          "{\"a",        "{\"a\\",     "{\"a\":tru}", "{\"a\":1}}",    "{\"a\":-}"};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        if (strlen(headers[i]) < 2) continue;
        expect_rejected(headers[i], 0, CLLM_E_CORRUPT, "header", "expected");
    }
    expect_rejected("", 0, CLLM_E_CORRUPT, "length is 0", "2 bytes");
    expect_rejected("{", 0, CLLM_E_CORRUPT, "length is 1", "2 bytes");
    expect_rejected("[]", 0, CLLM_E_CORRUPT, "0x5b", "0x7b");
    expect_rejected("null", 0, CLLM_E_CORRUPT, "0x6e", "0x7b");
}

static void test_s7_byte_order_mark_is_rejected(void **state)
{
    (void)state;
    expect_rejected("\xef\xbb\xbf{}", 0, CLLM_E_CORRUPT, "0xef", "0x7b");
}

static void test_s8_leading_space_is_rejected(void **state)
{
    (void)state;
    expect_rejected(" {}", 0, CLLM_E_CORRUPT, "0x20", "0x7b");
}

static void test_s9_trailing_bytes_in_the_header_are_rejected(void **state)
{
    (void)state;
    expect_bytes_rejected("\4\0\0\0\0\0\0\0{}\0\0", 12, CLLM_E_CORRUPT, "end of file expected", "one JSON object");
    expect_rejected("{}{}", 0, CLLM_E_CORRUPT, "end of file expected", "one JSON object");
    expect_rejected("{} x", 0, CLLM_E_CORRUPT, "end of file expected", "one JSON object");
}

static void reject_nesting(unsigned depth)
{
    char header[1024] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":";
    size_t used = strlen(header);
    memset(header + used, '[', depth);
    memset(header + used + depth, ']', depth);
    strcpy(header + used + 2 * (size_t)depth, "}}");
    expect_rejected(header, 1, CLLM_E_LIMIT, "nests 9 levels", "at most 8");
}

static void test_s10_nesting_200_deep_is_rejected(void **state)
{
    (void)state;
    reject_nesting(200);
}

static void test_s11_nesting_100_deep_is_rejected(void **state)
{
    (void)state;
    reject_nesting(100);
    reject_nesting(7);
}

/* 300,000 tensors here; the full ten million are the same code path, refused at the same object. */
static void test_s12_too_many_tensors_are_rejected(void **state)
{
    (void)state;
    const size_t count = 300000, each = 60;
    char *header = malloc(count * each + 10);
    size_t used = 1;
    header[0] = '{';
    for (size_t i = 0; i < count; i++) {
        used += (size_t)sprintf(header + used, "\"%zu\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},", i);
    }
    strcpy(header + used - 1, "}");
    expect_rejected(header, 1, CLLM_E_LIMIT, "more than 262144 objects", "limit");
    free(header);
}

static void test_s12_too_many_values_are_rejected(void **state)
{
    (void)state;
    const size_t count = 2200000;
    char *header = malloc(2 * count + 20);
    size_t used = (size_t)sprintf(header, "{\"a\":[");
    for (size_t i = 0; i < count; i++, used += 2) memcpy(header + used, "0,", 2);
    strcpy(header + used - 1, "]}");
    expect_rejected(header, 0, CLLM_E_LIMIT, "more than 2097152 values", "limit");
    free(header);
}

static void test_s12_many_overlapping_tensors_are_rejected(void **state)
{
    (void)state;
    const size_t count = 20000;
    char *header = malloc(count * 70 + 10);
    size_t used = 1;
    header[0] = '{';
    for (size_t i = 0; i < count; i++) {
        used += (size_t)sprintf(header + used, "\"%zu\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},", i);
    }
    strcpy(header + used - 1, "}");
    expect_rejected(header, 4, CLLM_E_CORRUPT, "begins at 0, expected 4", "overlap");
    free(header);
}

/* ----------------------------------------------------------------------------------------------------- JSON values */

static void test_s13_duplicate_name_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 0, 1) "}", 1, CLLM_E_CORRUPT, "name twice", "once");
    expect_rejected("{" T("a", "U8", "[1]", 0, 1) "," T("a", "I8", "[1]", 1, 2) "}", 2, CLLM_E_CORRUPT, "name twice", "once");
    expect_rejected("{" T("a", "U8", "[1]", 0, 1) "," T("\\u0061", "U8", "[1]", 1, 2) "}", 2, CLLM_E_CORRUPT, "name twice",
                    "once");
}

static void test_s15_duplicate_metadata_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{\"__metadata__\":{},\"__metadata__\":{}}", 0, CLLM_E_CORRUPT, "name twice", "once");
    expect_rejected("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, CLLM_E_CORRUPT, "name twice", "once");
}

static void test_s17_duplicate_field_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, CLLM_E_CORRUPT,
                    "name twice", "once");
}

static void test_s18_missing_field_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, CLLM_E_CORRUPT, "dtype is missing", "expected a string");
    expect_rejected("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, CLLM_E_CORRUPT, "shape is missing",
                    "expected an array");
    expect_rejected("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, CLLM_E_CORRUPT, "data_offsets is missing",
                    "expected an array");
}

static void test_s18_data_offsets_of_1_or_3_are_rejected(void **state)
{
    (void)state;
    expect_rejected("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, CLLM_E_CORRUPT, "has 1 numbers",
                    "expected 2");
    expect_rejected("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1, CLLM_E_CORRUPT, "has 3 numbers",
                    "expected 2");
}

static void test_s19_numbers_that_are_not_unsigned_are_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[-1]", 0, 1) "}", 1, CLLM_E_CORRUPT, "is -1", "unsigned");
    expect_rejected("{" T("a", "U8", "[1]", -0, 1) "}", 1, CLLM_E_CORRUPT, "-0", "unsigned");
    expect_rejected("{" T("a", "U8", "[1.0]", 0, 1) "}", 1, CLLM_E_CORRUPT, "a real number", "unsigned");
    expect_rejected("{" T("a", "U8", "[1e0]", 0, 1) "}", 1, CLLM_E_CORRUPT, "a real number", "unsigned");
    expect_rejected("{" T("a", "U8", "[1]", 0, 01) "}", 1, CLLM_E_CORRUPT, "not valid JSON", "expected");
    expect_rejected("{" T("a", "U8", "[\"1\"]", 0, 1) "}", 1, CLLM_E_CORRUPT, "a string", "unsigned");
    expect_rejected("{" T("a", "U8", "[1]", true, 1) "}", 1, CLLM_E_CORRUPT, "true", "unsigned");
    expect_rejected("{" T("a", "U8", "[18446744073709551616]", 0, 1) "}", 1, CLLM_E_CORRUPT, "out of range", "2^63-1");
    expect_rejected("{" T("a", "U8", "[9223372036854775808]", 0, 1) "}", 1, CLLM_E_CORRUPT, "out of range", "2^63-1");
}

static void test_s22_unknown_dtype_is_unsupported(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U7", "[1]", 0, 1) "}", 1, CLLM_E_UNSUPPORTED, "\"U7\"", "F8_E4M3FNUZ");
    expect_rejected("{" T("a", "bf16", "[1]", 0, 2) "}", 2, CLLM_E_UNSUPPORTED, "\"bf16\"", "BF16");
    expect_rejected("{" T("a", "", "[1]", 0, 1) "}", 1, CLLM_E_UNSUPPORTED, "\"\"", "BF16");
    expect_rejected("{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, CLLM_E_CORRUPT, "an integer", "a string");
}

/* --------------------------------------------------------------------------------------------------------- ranges */

static void test_s23_end_before_begin_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[1]", 2, 1) "}", 2, CLLM_E_CORRUPT, "ends at 1", "begins at 2");
}

static void test_s24_hole_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[1]", 1, 2) "}", 2, CLLM_E_CORRUPT, "begins at 1", "expected 0");
    expect_rejected("{" T("a", "U8", "[1]", 0, 1) "," T("b", "U8", "[1]", 2, 3) "}", 3, CLLM_E_CORRUPT, "begins at 2",
                    "expected 1, where the tensor before it ends (hole)");
}

static void test_s25_overlap_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 1, 3) "}", 3, CLLM_E_CORRUPT, "begins at 1",
                    "expected 2, where the tensor before it ends (overlap)");
    expect_rejected("{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 0, 2) "}", 2, CLLM_E_CORRUPT, "begins at 0",
                    "expected 2");
    expect_rejected("{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[0]", 1, 1) "}", 2, CLLM_E_CORRUPT, "begins at 1",
                    "expected 2");
}

static void test_s26_size_that_disagrees_with_shape_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "F32", "[2]", 0, 4) "}", 4, CLLM_E_CORRUPT, "span 4 bytes", "need 8");
    expect_rejected("{" T("a", "F32", "[0]", 0, 4) "}", 4, CLLM_E_CORRUPT, "span 4 bytes", "need 0");
    expect_rejected("{" T("a", "F32", "[]", 0, 0) "}", 0, CLLM_E_CORRUPT, "span 0 bytes", "need 4");
}

static void test_s27_overflow_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[4294967296,4294967296]", 0, 1) "}", 1, CLLM_E_CORRUPT, "overflows", "at most 1");
    expect_rejected("{" T("a", "F64", "[4611686018427387904]", 0, 1) "}", 1, CLLM_E_CORRUPT, "overflows", "at most 1");
    expect_rejected("{" T("a", "U8", "[2,9223372036854775807]", 0, 1) "}", 1, CLLM_E_CORRUPT, "overflows", "at most 1");
}

static void test_s29_half_a_byte_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "F4", "[3]", 0, 2) "}", 2, CLLM_E_CORRUPT, "12 bits of F4", "whole number of bytes");
    expect_rejected("{" T("a", "F6_E2M3", "[3]", 0, 3) "}", 3, CLLM_E_CORRUPT, "18 bits", "whole number of bytes");
}

static void test_s30_trailing_bytes_are_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[2]", 0, 2) "}", 5, CLLM_E_CORRUPT, "3 bytes follow the last tensor", "--opaque");
    expect_rejected("{}", 1, CLLM_E_CORRUPT, "1 bytes follow the last tensor", "end at byte 10");
}

static void test_s31_truncated_data_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[4]", 0, 4) "}", 3, CLLM_E_CORRUPT, "ends at 4", "only 3 data bytes");
    expect_rejected("{" T("a", "U8", "[4]", 0, 4) "}", 2, CLLM_E_CORRUPT, "ends at 4", "only 2 data bytes");
}

static void test_s31_every_truncation_and_an_extra_byte_are_rejected(void **state)
{
    (void)state;
    struct test_safetensors built = test_safetensors_build("{" T("a", "U8", "[4]", 0, 4) "," T("b", "F32", "[1]", 4, 8) "}", 9);
    struct cllm_source *source = NULL;
    struct cllm_error err;
    for (size_t i = 0; i <= built.byte_count; i++) {
        test_dir_write(&dir, "m.safetensors", built.bytes, i);
        enum cllm_status status = open_path(test_dir_path(&dir, "m.safetensors"), &source, &err);
        assert_int_equal(status, i == built.byte_count - 1 ? CLLM_OK : CLLM_E_CORRUPT);
        cllm_source_close(source);
    }
    free(built.bytes);
}

/* Any one byte of the header changed: refused or accepted, but never a picture that does not cover the file. */
static void test_every_changed_header_byte_leaves_a_whole_picture(void **state)
{
    (void)state;
    struct test_safetensors built = test_safetensors_build(
        "{\"__metadata__\":{\"k\":\"v\"}," T("a", "U8", "[2,2]", 0, 4) "," T("b", "F32", "[]", 4, 8) "}", 8);
    static const uint8_t changes[] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff};
    for (size_t i = 0; i < built.header_bytes * sizeof changes; i++) {
        uint8_t *byte = &built.bytes[i / sizeof changes], saved = *byte;
        uint32_t header_bytes = 0;
        struct cllm_safetensors weights = {0};
        *byte ^= changes[i % sizeof changes];
        if (cllm_safetensors_header_bytes(built.bytes, built.byte_count, built.byte_count, &header_bytes, NULL) == CLLM_OK &&
            cllm_safetensors_parse(built.bytes + 8, header_bytes, built.byte_count, &weights, NULL) == CLLM_OK) {
            uint64_t end = 0;
            for (uint32_t k = 0; k < weights.span_count; k++) {
                assert_int_equal(weights.spans[k].offset, end);
                end += weights.spans[k].bytes;
            }
            assert_int_equal(end, built.byte_count);
        }
        cllm_safetensors_free(&weights);
        *byte = saved;
    }
    free(built.bytes);
}

static void test_s32_metadata_that_is_no_map_of_strings_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{\"__metadata__\":{\"k\":1}}", 0, CLLM_E_CORRUPT, "\"k\" is an integer", "expected a string");
    expect_rejected("{\"__metadata__\":{\"k\":{\"l\":\"m\"}}}", 0, CLLM_E_CORRUPT, "is an object", "expected a string");
    expect_rejected("{" T("__metadata__", "U8", "[1]", 0, 1) "}", 1, CLLM_E_CORRUPT, "is an array", "expected a string");
    expect_rejected("{\"__metadata__\":null}", 0, CLLM_E_CORRUPT, "__metadata__ is null", "an object of strings");
    expect_rejected("{\"__metadata__\":\"pt\"}", 0, CLLM_E_CORRUPT, "__metadata__ is a string", "an object of strings");
}

static void test_s34_tensor_that_is_no_object_is_rejected(void **state)
{
    (void)state;
    expect_rejected("{\"a\":null}", 0, CLLM_E_CORRUPT, "\"a\": value is null", "an object");
    expect_rejected("{\"a\":\"b\"}", 0, CLLM_E_CORRUPT, "value is a string", "an object");
    expect_rejected("{\"a\":[]}", 0, CLLM_E_CORRUPT, "value is an array", "an object");
}

static void test_s37_rank_above_64_is_rejected(void **state)
{
    (void)state;
    char header[400], shape[140];
    for (unsigned rank = 64; rank <= 65; rank++) {
        for (unsigned i = 0; i < rank; i++) memcpy(shape + 2 * (size_t)i, "1,", 2);
        shape[2 * rank - 1] = 0;
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[%s],\"data_offsets\":[0,1]}}", shape);
        if (rank == 64) {
            cllm_source_close(expect_accepted(header, 1));
        } else {
            expect_rejected(header, 1, CLLM_E_LIMIT, "65 dimensions", "at most 64");
        }
    }
}

static void test_s38_nul_in_a_name_is_unsupported(void **state)
{
    (void)state;
    expect_rejected("{" T("a\\u0000b", "U8", "[1]", 0, 1) "}", 1, CLLM_E_UNSUPPORTED, "NUL", "not supported");
    expect_bytes_rejected("\7\0\0\0\0\0\0\0{\"\0\":1}", 15, CLLM_E_CORRUPT, "control character", "expected");
    struct cllm_source *source = expect_accepted("{" T("\\\\u0000", "U8", "[1]", 0, 1) "}", 1); /* an escaped backslash */
    assert_string_equal(source->tensors[0].name, "\\u0000");
    cllm_source_close(source);
}

static void test_s39_lone_surrogate_and_raw_control_are_rejected(void **state)
{
    (void)state;
    expect_rejected("{\"\\ud800\":1}", 0, CLLM_E_CORRUPT, "invalid Unicode", "expected");
    expect_rejected("{\"\\udc00\\ud800\":1}", 0, CLLM_E_CORRUPT, "invalid Unicode", "expected");
    expect_rejected("{\"a\tb\":1}", 0, CLLM_E_CORRUPT, "control character 0x9", "expected");
}

static void test_s40_name_above_65535_bytes_is_rejected(void **state)
{
    (void)state;
    char *header = malloc(70000);
    memset(header, 'n', 70000);
    memcpy(header, "{\"", 2);
    strcpy(header + 2 + 65536, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    expect_rejected(header, 1, CLLM_E_LIMIT, "has 65536 bytes", "at most 65535");
    free(header);
}

static void test_s43_polyglots_are_rejected(void **state)
{
    (void)state;
    expect_rejected("{" T("a", "U8", "[2]", 0, 2) "}", 2 + 22, CLLM_E_CORRUPT, "22 bytes follow", "expected the file to end");
    expect_bytes_rejected("%PDF-1.7\n{}", 11, CLLM_E_CORRUPT, "header length is", "at most 100000000");
}

/* ----------------------------------------------------------------------------------------------------- files on disk */

static struct cllm_source *open_small(void)
{
    return expect_accepted("{" T("a", "U8", "[4]", 0, 4) "}", 4);
}

static void expect_changed(struct cllm_source *source, const char *fragment)
{
    struct cllm_error err = {0};
    assert_int_equal(cllm_source_check_unchanged(source, &err), CLLM_E_CORRUPT);
    assert_message_has(&err, "m.safetensors");
    assert_message_has(&err, fragment);
    cllm_source_close(source);
}

static void test_s41_unchanged_file_passes(void **state)
{
    (void)state;
    struct cllm_source *source = open_small();
    struct cllm_error err = {0};
    assert_int_equal(cllm_source_check_unchanged(source, &err), CLLM_OK);
    cllm_source_close(source);
}

static void test_s41_grown_file_is_noticed(void **state)
{
    (void)state;
    struct cllm_source *source = open_small();
    assert_int_equal(truncate(test_dir_path(&dir, "m.safetensors"), 1000), 0);
    expect_changed(source, "changed");
}

static void test_s41_touched_file_is_noticed(void **state)
{
    (void)state;
    struct cllm_source *source = open_small();
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    assert_int_equal(utimensat(AT_FDCWD, test_dir_path(&dir, "m.safetensors"), times, 0), 0);
    expect_changed(source, "changed");
}

static void test_s41_replaced_file_is_noticed(void **state)
{
    (void)state;
    struct cllm_source *source = open_small();
    test_safetensors_write(&dir, "new", "{" T("a", "U8", "[4]", 0, 4) "}", 4);
    assert_int_equal(rename(test_dir_path(&dir, "new"), test_dir_path(&dir, "m.safetensors")), 0);
    expect_changed(source, "changed");
}

static void set_modified(const char *name, time_t seconds, long nanoseconds)
{
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = seconds, .tv_nsec = nanoseconds}};
    assert_int_equal(utimensat(AT_FDCWD, test_dir_path(&dir, name), times, 0), 0);
}

/* One property changed at a time: what a tool that restores times leaves to see. */
static void test_s41_each_property_is_noticed_alone(void **state)
{
    (void)state;
    static const char header[] = "{" T("a", "U8", "[4]", 0, 4) "}";
    for (int i = 0; i < 4; i++) {
        struct cllm_source *source = NULL;
        struct cllm_error err;
        test_safetensors_write(&dir, "m.safetensors", header, 4);
        set_modified("m.safetensors", 1000, 500);
        assert_int_equal(open_path(test_dir_path(&dir, "m.safetensors"), &source, &err), CLLM_OK);
        if (i == 0) set_modified("m.safetensors", 1001, 500);
        if (i == 1) set_modified("m.safetensors", 1000, 501);
        if (i == 2) {
            assert_int_equal(truncate(test_dir_path(&dir, "m.safetensors"), 100), 0);
            set_modified("m.safetensors", 1000, 500);
        }
        if (i == 3) {
            test_safetensors_write(&dir, "new", header, 4);
            set_modified("new", 1000, 500);
            assert_int_equal(rename(test_dir_path(&dir, "new"), test_dir_path(&dir, "m.safetensors")), 0);
        }
        expect_changed(source, "changed");
    }
}

static void test_s41_removed_file_is_noticed(void **state)
{
    (void)state;
    struct cllm_source *source = open_small();
    assert_int_equal(unlink(test_dir_path(&dir, "m.safetensors")), 0);
    expect_changed(source, "No such file");
}

static void test_s41_truncated_file_fails_to_read(void **state)
{
    (void)state;
    struct cllm_source *source = open_small();
    struct cllm_error err = {0};
    char bytes[4];
    assert_int_equal(truncate(test_dir_path(&dir, "m.safetensors"), 10), 0);
    uint64_t offset = source->files[0].spans[1].offset;
    assert_int_equal(cllm_source_read(source, 0, offset, bytes, sizeof bytes, &err), CLLM_E_CORRUPT);
    assert_message_has(&err, "m.safetensors");
    assert_message_has(&err, "shorter");
    cllm_source_close(source);
}

static void test_s42_fifo_is_rejected_without_waiting(void **state)
{
    (void)state;
    const char *path = test_dir_path(&dir, "fifo.safetensors");
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(10);
    expect_path_rejected(path, CLLM_E_USAGE, "FIFO", "expected a regular file");
    alarm(0);
}

static void test_s42_device_and_socket_are_rejected(void **state)
{
    (void)state;
    expect_path_rejected("/dev/null", CLLM_E_USAGE, "device", "expected a regular file");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = test_dir_path(&dir, "s.safetensors");
    if (strlen(path) >= sizeof address.sun_path) return;
    strcpy(address.sun_path, path);
    int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(descriptor, (const struct sockaddr *)&address, sizeof address), 0);
    expect_path_rejected(path, CLLM_E_USAGE, "socket", "expected a regular file");
    close(descriptor);
}

static void test_s42_link_loop_and_missing_file_are_io(void **state)
{
    (void)state;
    const char *path = test_dir_path(&dir, "loop.safetensors");
    assert_int_equal(symlink("loop.safetensors", path), 0);
    expect_path_rejected(path, CLLM_E_IO, "Too many levels", "cannot open");
    expect_path_rejected(test_dir_path(&dir, "none.safetensors"), CLLM_E_IO, "No such file", "cannot open");
}

static void test_s42_output_that_is_the_input_is_known(void **state)
{
    (void)state;
    struct cllm_source *source = open_small();
    assert_true(cllm_source_owns(source, test_dir_path(&dir, "m.safetensors")));
    assert_int_equal(link(test_dir_path(&dir, "m.safetensors"), test_dir_path(&dir, "hard")), 0);
    assert_int_equal(symlink("m.safetensors", test_dir_path(&dir, "soft")), 0);
    assert_true(cllm_source_owns(source, test_dir_path(&dir, "hard")));
    assert_true(cllm_source_owns(source, test_dir_path(&dir, "soft")));
    test_dir_write_text(&dir, "other", "x");
    assert_false(cllm_source_owns(source, test_dir_path(&dir, "other")));
    assert_false(cllm_source_owns(source, test_dir_path(&dir, "nothing")));
    cllm_source_close(source);
}

static void test_lfs_pointer_is_named_as_such(void **state)
{
    (void)state;
    static const char text[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    expect_bytes_rejected(text, sizeof text - 1, CLLM_E_FORMAT, "Git LFS pointer", "git lfs pull");
}

static void test_file_is_known_by_content_without_its_suffix(void **state)
{
    (void)state;
    struct cllm_source *source = NULL;
    struct cllm_error err;
    test_safetensors_write(&dir, "0123abcd", "{" T("a", "U8", "[4]", 0, 4) "}", 4);
    assert_int_equal(open_path(test_dir_path(&dir, "0123abcd"), &source, &err), CLLM_OK);
    assert_int_equal(source->tensor_count, 1);
    assert_string_equal(source->files[0].name, "0123abcd");
    cllm_source_close(source);
}

static void test_any_other_file_is_format(void **state)
{
    (void)state;
    test_dir_write_text(&dir, "notes.txt", "{\"weight_map\":{}} and more text");
    expect_path_rejected(test_dir_path(&dir, "notes.txt"), CLLM_E_FORMAT, "neither", "--opaque");
    test_dir_write(&dir, "list", "\2\0\0\0\0\0\0\0[]", 10); /* a length that fits, but no brace */
    expect_path_rejected(test_dir_path(&dir, "list"), CLLM_E_FORMAT, "neither", "--opaque");
    test_dir_write_text(&dir, "empty", "");
    expect_path_rejected(test_dir_path(&dir, "empty"), CLLM_E_FORMAT, "neither", "--opaque");
}

static void expect_opaque(const char *name, uint32_t span_count)
{
    const struct cllm_source_options options = {.opaque = true};
    struct cllm_source *source = NULL;
    struct cllm_error err;
    assert_int_equal(cllm_source_open(test_dir_path(&dir, name), &options, &source, &err), CLLM_OK);
    assert_source_is_whole(source);
    assert_int_equal(source->file_count, 1);
    assert_int_equal(source->tensor_count, 0);
    assert_int_equal(source->files[0].span_count, span_count);
    assert_string_equal(source->files[0].name, name);
    cllm_source_close(source);
}

static void test_opaque_takes_any_file_as_one_literal(void **state)
{
    (void)state;
    test_dir_write_text(&dir, "config.json", "{}");
    test_dir_write_text(&dir, "empty.bin", "");
    test_dir_write_text(&dir, "bad.safetensors", "no safetensors at all");
    test_dir_write_text(&dir, "bad.safetensors.index.json", "no index");
    expect_opaque("bad.safetensors", 1);
    expect_opaque("bad.safetensors.index.json", 1);
    expect_opaque("config.json", 1);
    expect_opaque("empty.bin", 0);
    const struct cllm_source_options options = {.opaque = true};
    struct cllm_source *source = NULL;
    struct cllm_error err = {0};
    assert_int_equal(cllm_source_open(dir.path, &options, &source, &err), CLLM_E_USAGE);
    assert_message_has(&err, "a directory, expected");
    cllm_source_close(source);
}

/* -------------------------------------------------------------------------------------------------------- real files */

/* S8: the format's text wants the brace first; recent reference readers skip white space before it. This one does not. */
static const char *const stricter_than_reference = "rs_whitespace_leading_padded_header.safetensors";

static void test_reference_vectors_get_the_reference_verdict(void **state)
{
    (void)state;
    json_error_t error;
    json_t *vectors = json_load_file(SHARED "safetensors-vectors/expected.json", 0, &error);
    if (!vectors) {
        print_message("skipped: %ssafetensors-vectors/expected.json is not there\n", SHARED);
        skip();
    }
    size_t checked = 0, i;
    json_t *vector;
    json_array_foreach(vectors, i, vector)
    {
        const char *file = json_string_value(json_object_get(vector, "file"));
        char path[300];
        snprintf(path, sizeof path, SHARED "safetensors-vectors/%s", file);
        if (access(path, R_OK) != 0) continue; /* two large ones are described only */
        struct cllm_source *source = NULL;
        struct cllm_error err;
        bool accepted = open_path(path, &source, &err) == CLLM_OK;
        bool expected = strncmp(json_string_value(json_object_get(vector, "expected")), "accept", 6) == 0 &&
                        strcmp(file, stricter_than_reference) != 0;
        if (accepted != expected) fail_msg("%s: %s", file, accepted ? "accepted" : err.message);
        if (accepted) assert_source_is_whole(source);
        cllm_source_close(source);
        checked++;
    }
    json_decref(vectors);
    assert_int_equal(checked, 15);
}

static uint32_t open_model(const char *directory, const char *file)
{
    const struct cllm_source_options options = {0};
    char path[600];
    struct cllm_source *source = NULL;
    struct cllm_error err = {0};
    snprintf(path, sizeof path, "%s%s%s", directory, *file ? "/" : "", file);
    enum cllm_status status = cllm_source_open(path, &options, &source, &err);
    if (status) fail_msg("%s: %s", path, err.message);
    assert_source_is_whole(source);
    assert_true(source->tensor_count > 0);
    uint32_t file_count = source->file_count;
    cllm_source_close(source);
    return file_count;
}

static void test_real_checkpoints_open(void **state)
{
    (void)state;
    DIR *models = opendir(SHARED "real-weights");
    if (!models) {
        print_message("skipped: %sreal-weights is not there\n", SHARED);
        skip();
    }
    unsigned count = 0;
    const struct dirent *entry;
    while ((entry = readdir(models))) {
        char path[512];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, SHARED "real-weights/%s", entry->d_name);
        open_model(path, "");
        snprintf(path, sizeof path, SHARED "real-weights/%s/model.safetensors", entry->d_name);
        if (access(path, R_OK) == 0) open_model(path, "");
        count++;
    }
    closedir(models);
    assert_true(count >= 8);
}

static void test_fixture_opens_as_file_and_as_directory(void **state)
{
    (void)state;
    const char *fixture = access("fixtures/shakespeare-llama/model.safetensors", R_OK) == 0 ? "fixtures/shakespeare-llama"
                                                                                            : SHARED "shakespeare-llama";
    if (access(fixture, R_OK) != 0) {
        print_message("skipped: the fixture is not there\n");
        skip();
    }
    assert_true(open_model(fixture, "model.safetensors") >= 5);
    assert_true(open_model(fixture, "") >= 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, create_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_file_is_its_header_then_its_tensors),
        TEST(test_every_dtype_is_accepted),
        TEST(test_file_without_tensors_is_accepted),
        TEST(test_empty_tensors_take_their_place_anywhere),
        TEST(test_s21_unknown_field_is_ignored),
        TEST(test_s35_misaligned_tensor_is_accepted),
        TEST(test_s36_tensors_are_in_the_order_of_their_data),
        TEST(test_s38_names_are_opaque_keys),
        TEST(test_s38_control_characters_are_escaped_in_messages),
        TEST(test_name_of_65535_bytes_is_accepted),
        TEST(test_s1_file_under_8_bytes_is_rejected),
        TEST(test_s2_header_longer_than_the_file_is_rejected),
        TEST(test_s3_header_above_the_cap_is_rejected),
        TEST(test_s4_header_length_is_checked_before_use),
        TEST(test_s5_header_not_utf8_is_rejected),
        TEST(test_s6_header_not_json_is_rejected),
        TEST(test_s7_byte_order_mark_is_rejected),
        TEST(test_s8_leading_space_is_rejected),
        TEST(test_s9_trailing_bytes_in_the_header_are_rejected),
        TEST(test_s10_nesting_200_deep_is_rejected),
        TEST(test_s11_nesting_100_deep_is_rejected),
        TEST(test_s12_too_many_tensors_are_rejected),
        TEST(test_s12_too_many_values_are_rejected),
        TEST(test_s12_many_overlapping_tensors_are_rejected),
        TEST(test_s13_duplicate_name_is_rejected),
        TEST(test_s15_duplicate_metadata_is_rejected),
        TEST(test_s17_duplicate_field_is_rejected),
        TEST(test_s18_missing_field_is_rejected),
        TEST(test_s18_data_offsets_of_1_or_3_are_rejected),
        TEST(test_s19_numbers_that_are_not_unsigned_are_rejected),
        TEST(test_s22_unknown_dtype_is_unsupported),
        TEST(test_s23_end_before_begin_is_rejected),
        TEST(test_s24_hole_is_rejected),
        TEST(test_s25_overlap_is_rejected),
        TEST(test_s26_size_that_disagrees_with_shape_is_rejected),
        TEST(test_s27_overflow_is_rejected),
        TEST(test_s29_half_a_byte_is_rejected),
        TEST(test_s30_trailing_bytes_are_rejected),
        TEST(test_s31_truncated_data_is_rejected),
        TEST(test_s31_every_truncation_and_an_extra_byte_are_rejected),
        TEST(test_every_changed_header_byte_leaves_a_whole_picture),
        TEST(test_s32_metadata_that_is_no_map_of_strings_is_rejected),
        TEST(test_s34_tensor_that_is_no_object_is_rejected),
        TEST(test_s37_rank_above_64_is_rejected),
        TEST(test_s38_nul_in_a_name_is_unsupported),
        TEST(test_s39_lone_surrogate_and_raw_control_are_rejected),
        TEST(test_s40_name_above_65535_bytes_is_rejected),
        TEST(test_s43_polyglots_are_rejected),
        TEST(test_s41_unchanged_file_passes),
        TEST(test_s41_grown_file_is_noticed),
        TEST(test_s41_touched_file_is_noticed),
        TEST(test_s41_replaced_file_is_noticed),
        TEST(test_s41_each_property_is_noticed_alone),
        TEST(test_s41_removed_file_is_noticed),
        TEST(test_s41_truncated_file_fails_to_read),
        TEST(test_s42_fifo_is_rejected_without_waiting),
        TEST(test_s42_device_and_socket_are_rejected),
        TEST(test_s42_link_loop_and_missing_file_are_io),
        TEST(test_s42_output_that_is_the_input_is_known),
        TEST(test_lfs_pointer_is_named_as_such),
        TEST(test_file_is_known_by_content_without_its_suffix),
        TEST(test_any_other_file_is_format),
        TEST(test_opaque_takes_any_file_as_one_literal),
        TEST(test_reference_vectors_get_the_reference_verdict),
        TEST(test_real_checkpoints_open),
        TEST(test_fixture_opens_as_file_and_as_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

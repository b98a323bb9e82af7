/* Manifest and layout between bytes and structures. The single faults are in the fixtures (test_reader); here are the round
 * trip, truncation of the index at every byte, and what is hard to put in a file. */
#include "bytes.h"
#include "codec.h"
#include "container_builder.h"
#include "container_surgery.h"
#include "index.h"
#include "layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct test_surgery open_fixture(const char *path)
{
    size_t byte_count;
    uint8_t *bytes = test_file_read(path, &byte_count);
    struct test_surgery surgery = test_surgery_open(bytes, byte_count);
    free(bytes);
    return surgery;
}

static void close_fixture(struct test_surgery *surgery)
{
    free(surgery->payload);
    free(surgery->index);
}

/* Parses a copy of exactly the given size, so that a sanitizer sees every byte read beyond it. */
static enum cllm_status parse(const uint8_t *bytes, size_t byte_count, size_t manifest_bytes, uint64_t payload_end,
                              struct cllm_error *err)
{
    struct cllm_index index = {0};
    struct cllm_index_storage storage;
    uint8_t *exact = malloc(byte_count ? byte_count : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, byte_count);
    enum cllm_status status = cllm_index_parse(exact, byte_count, manifest_bytes, payload_end, &index, &storage, err);
    if (!status) cllm_index_storage_free(&storage);
    free(exact);
    return status;
}

static const char *const good[] = {"worked-example", "index-raw", "empty-file",   "empty-tensor", "ranks",
                                   "forms",          "tables",    "segments",     "layouts",      "dtypes",
                                   "unknown-dtype",  "names",     "page-aligned", "shared"};

static void test_index_serialises_to_the_bytes_parsed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char path[100];
        snprintf(path, sizeof path, "fixtures/good-%s.cllm", good[i]);
        struct test_surgery surgery = open_fixture(path);
        struct cllm_index index = {0};
        struct cllm_index_storage storage;
        uint8_t *bytes;
        size_t byte_count, manifest_bytes;
        assert_int_equal(cllm_index_parse(surgery.index, surgery.index_bytes, surgery.manifest_bytes, surgery.payload_bytes,
                                          &index, &storage, NULL),
                         CLLM_OK);
        assert_int_equal(cllm_index_serialise(&index, &bytes, &byte_count, &manifest_bytes, NULL), CLLM_OK);
        assert_int_equal(byte_count, surgery.index_bytes);
        assert_int_equal(manifest_bytes, surgery.manifest_bytes);
        assert_memory_equal(bytes, surgery.index, byte_count);
        free(bytes);
        cllm_index_storage_free(&storage);
        close_fixture(&surgery);
    }
}

static void test_index_rejects_every_truncation(void **state)
{
    (void)state;
    struct test_surgery s = open_fixture("fixtures/good-index-raw.cllm");
    for (size_t manifest = 0; manifest < s.manifest_bytes; manifest++) {
        assert_int_equal(parse(s.index, s.index_bytes, manifest, s.payload_bytes, NULL), CLLM_E_CORRUPT);
        assert_int_equal(parse(s.index, manifest, manifest, s.payload_bytes, NULL), CLLM_E_CORRUPT);
    }
    for (size_t total = s.manifest_bytes; total < s.index_bytes; total++) {
        assert_int_equal(parse(s.index, total, s.manifest_bytes, s.payload_bytes, NULL), CLLM_E_CORRUPT);
    }
    assert_int_equal(parse(s.index, s.index_bytes, s.manifest_bytes, s.payload_bytes, NULL), CLLM_OK);
    assert_int_equal(parse(s.index, s.index_bytes, s.index_bytes + 1, s.payload_bytes, NULL), CLLM_E_CORRUPT);
    close_fixture(&s);
}

static void test_index_rejects_another_payload_end(void **state)
{
    (void)state;
    struct test_surgery s = open_fixture("fixtures/good-index-raw.cllm");
    assert_int_equal(parse(s.index, s.index_bytes, s.manifest_bytes, s.payload_bytes + 16, NULL), CLLM_E_CORRUPT);
    assert_int_equal(parse(s.index, s.index_bytes, s.manifest_bytes, s.payload_bytes - 16, NULL), CLLM_E_CORRUPT);
    close_fixture(&s);
}

/* 16,385 parts of 2^50 bytes each are more than 2^64. */
static void test_index_rejects_a_file_size_that_overflows(void **state)
{
    (void)state;
    enum { PARTS = 16385 };
    size_t manifest_bytes = CLLM_COUNTS_BYTES + CLLM_DATA_RECORD_BYTES + CLLM_FILE_RECORD_BYTES + 1 + 4 * (size_t)PARTS;
    uint8_t *bytes = calloc(manifest_bytes, 1), *file = bytes + CLLM_COUNTS_BYTES + CLLM_DATA_RECORD_BYTES;
    struct cllm_error err;
    cllm_store_le32(bytes, 1);
    cllm_store_le32(bytes + 8, 1);
    cllm_store_le64(bytes + 12, UINT64_C(1) << 50);
    cllm_store_le32(bytes + 20, 1u << 24);
    cllm_store_le64(file, UINT64_MAX); /* what a saturating sum would give */
    cllm_store_le32(file + 40, PARTS);
    cllm_store_le16(file + 44, 1);
    file[46] = 'a';
    assert_int_equal(parse(bytes, manifest_bytes, manifest_bytes, 64, &err), CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "size of a file"));
    cllm_store_le64(file, UINT64_C(1) << 50); /* the sum modulo 2^64 */
    assert_int_equal(parse(bytes, manifest_bytes, manifest_bytes, 64, &err), CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "size of a file"));
    free(bytes);
}

/* Two files of 2^63 bytes, each of 8,192 times one data object of 2^50. */
static void test_index_rejects_files_that_overflow_together(void **state)
{
    (void)state;
    enum { PARTS = 8192 };
    const size_t file_bytes = CLLM_FILE_RECORD_BYTES + 1 + 4 * (size_t)PARTS;
    const size_t manifest_bytes = CLLM_COUNTS_BYTES + CLLM_DATA_RECORD_BYTES + 2 * file_bytes;
    uint8_t *bytes = calloc(manifest_bytes, 1);
    struct cllm_error err;
    cllm_store_le32(bytes, 1);
    cllm_store_le32(bytes + 8, 2);
    cllm_store_le64(bytes + 12, UINT64_C(1) << 50);
    cllm_store_le32(bytes + 20, 1u << 24);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *file = bytes + CLLM_COUNTS_BYTES + CLLM_DATA_RECORD_BYTES + i * file_bytes;
        cllm_store_le64(file, UINT64_C(1) << 63);
        cllm_store_le32(file + 40, PARTS);
        cllm_store_le16(file + 44, 1);
        file[46] = (uint8_t)('a' + i);
    }
    assert_int_equal(parse(bytes, manifest_bytes, manifest_bytes, 64, &err), CLLM_E_LIMIT);
    assert_non_null(strstr(err.message, "all files together"));
    free(bytes);
}

static void test_index_claims_are_checked_before_memory_is_taken(void **state)
{
    (void)state;
    uint8_t counts[CLLM_COUNTS_BYTES];
    static const uint32_t claims[][3] = {{CLLM_DATA_COUNT_MAX, 0, 1}, {0, CLLM_TENSOR_COUNT_MAX, 1}, {0, 0, CLLM_FILE_COUNT_MAX}};
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 3; k++) cllm_store_le32(counts + 4 * k, claims[i][k]);
        assert_int_equal(parse(counts, sizeof counts, sizeof counts, 64, NULL), CLLM_E_CORRUPT);
        for (size_t k = 0; k < 3; k++) cllm_store_le32(counts + 4 * k, claims[i][k] + (claims[i][k] > 1));
        assert_int_equal(parse(counts, sizeof counts, sizeof counts, 64, NULL), CLLM_E_LIMIT);
    }
}

/* 2^24 chunks claimed by a data record; the layout has room for none. */
static void test_index_rejects_chunks_that_are_not_there(void **state)
{
    (void)state;
    struct test_surgery s = open_fixture("fixtures/good-smallest.cllm");
    test_surgery_poke(&s, test_surgery_find(&s, TEST_DATA, 0), 8, UINT64_C(1) << 34);
    test_surgery_poke(&s, test_surgery_find(&s, TEST_FILE, 0), 8, UINT64_C(1) << 34);
    assert_int_equal(parse(s.index, s.index_bytes, s.manifest_bytes, s.payload_bytes, NULL), CLLM_E_CORRUPT);
    close_fixture(&s);
}

static void test_data_starts_where_the_format_says(void **state)
{
    (void)state;
    const uint64_t large = CLLM_PAGE_ALIGNED_MIN_BYTES;
    assert_int_equal(cllm_data_start(64, 0), 64);
    assert_int_equal(cllm_data_start(64, large - 1), 64);
    assert_int_equal(cllm_data_start(64, large), 4096);
    assert_int_equal(cllm_data_start(4096, large), 4096);
    assert_int_equal(cllm_data_start(4112, large), 8192);
    assert_int_equal(cllm_data_start(65, 1), 80);
}

static bool safe(const char *name)
{
    return cllm_file_name_is_safe(name, strlen(name));
}

static void test_file_names_stay_inside_the_directory(void **state)
{
    (void)state;
    static const char *const yes[] = {"a", "a/b", "...", "..a", "a..", ".hidden", "a b", "\xc3\xb6", "a/.b/c", "-rf", "~", "CON"};
    static const char *const no[] = {"",
                                     ".",
                                     "..",
                                     "/",
                                     "/a",
                                     "a/",
                                     "a//b",
                                     "./a",
                                     "a/.",
                                     "../a",
                                     "a/..",
                                     "a/../b",
                                     "a\\b",
                                     "a\nb",
                                     "\x01",
                                     "a\x7f",
                                     "//",
                                     "a/./b",
                                     "\x1f"
                                     "a"};
    char name[5000];
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) assert_true(safe(yes[i]));
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) assert_false(safe(no[i]));
    assert_false(cllm_file_name_is_safe("a\0b", 3));
    memset(name, 'x', sizeof name);
    assert_true(cllm_file_name_is_safe(name, 255));
    assert_false(cllm_file_name_is_safe(name, 256));
    for (size_t i = 255; i < sizeof name; i += 256) name[i] = '/';
    assert_true(cllm_file_name_is_safe(name, 4095));
    assert_false(cllm_file_name_is_safe(name, 4096)); /* ends in a slash */
    for (size_t i = 255; i < sizeof name; i += 256) name[i] = 'x';
    for (size_t i = 127; i < sizeof name; i += 128) name[i] = '/';
    name[4095] = 'x';
    assert_true(cllm_file_name_is_safe(name, 4096));
    assert_false(cllm_file_name_is_safe(name, 4097));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index_serialises_to_the_bytes_parsed),
        cmocka_unit_test(test_index_rejects_every_truncation),
        cmocka_unit_test(test_index_rejects_another_payload_end),
        cmocka_unit_test(test_index_rejects_a_file_size_that_overflows),
        cmocka_unit_test(test_index_rejects_files_that_overflow_together),
        cmocka_unit_test(test_index_claims_are_checked_before_memory_is_taken),
        cmocka_unit_test(test_index_rejects_chunks_that_are_not_there),
        cmocka_unit_test(test_data_starts_where_the_format_says),
        cmocka_unit_test(test_file_names_stay_inside_the_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What opening and verifying promise: the fixtures, and every truncation and bit flip of a small container. */
#include "cllm.h"
#include "cllm_decode.h"
#include "container_sample.h"
#include "container_surgery.h"
#include "digest.h"
#include "reader.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static enum cllm_status status_by_name(const char *name)
{
    static const struct {
        const char *name;
        enum cllm_status status;
    } names[] = {{"ok", CLLM_OK},
                 {"format", CLLM_E_FORMAT},
                 {"unsupported", CLLM_E_UNSUPPORTED},
                 {"damaged", CLLM_E_DIGEST},
                 {"corrupt", CLLM_E_CORRUPT},
                 {"limit", CLLM_E_LIMIT}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].name, name) == 0) return names[i].status;
    }
    fail_msg("unknown result \"%s\"", name);
    return CLLM_E_INTERNAL;
}

static enum cllm_status verify(const struct cllm_reader *reader, unsigned thread_count, struct cllm_error *err)
{
    struct cllm_verify_report report;
    const struct cllm_verify_options options = {.thread_count = thread_count};
    return cllm_verify(reader, &options, &report, err);
}

/* ------------------------------------------------------------------------------------------------------------- fixtures */

static void check_fixture(const char *name, enum cllm_status expected, bool at_open)
{
    char path[300];
    struct cllm_error err = {.message = ""};
    struct cllm_reader *reader;
    snprintf(path, sizeof path, "fixtures/%s", name);
    enum cllm_status status = cllm_reader_open(path, &reader, &err);
    if (at_open && status != expected) fail_msg("%s: open gives %d (%s), expected %d", name, status, err.message, expected);
    if (!at_open && status != CLLM_OK) fail_msg("%s: does not open: %s", name, err.message);
    assert_true((status == CLLM_OK) == (reader != NULL));
    if (status) {
        assert_int_equal(err.status, status);
        assert_true(err.message[0] != 0);
        return;
    }
    for (unsigned threads = 1; threads <= 3; threads++) {
        status = verify(reader, threads, &err);
        if (status != expected) fail_msg("%s: verify gives %d (%s), expected %d", name, status, err.message, expected);
    }
    cllm_reader_close(reader);
}

/* The rows "| name.cllm | result | step | ..." of fixtures/README.md. Returns how many. */
static unsigned check_fixtures_listed(void)
{
    char line[1000], name[200], result[50], step[50];
    unsigned count = 0;
    FILE *readme = fopen("fixtures/README.md", "r");
    assert_non_null(readme);
    while (fgets(line, sizeof line, readme)) {
        if (sscanf(line, "| %199[^ |] | %49[a-z] | %49[a-z] |", name, result, step) != 3 || !strstr(name, ".cllm")) continue;
        bool good = strncmp(name, "good-", 5) == 0, unsupported = strncmp(name, "unsupported-", 12) == 0;
        assert_int_equal(good, strcmp(result, "ok") == 0);
        assert_int_equal(unsupported, strcmp(result, "unsupported") == 0);
        check_fixture(name, status_by_name(result), strcmp(step, "open") == 0);
        count++;
    }
    fclose(readme);
    return count;
}

static unsigned count_fixtures(void)
{
    unsigned count = 0;
    DIR *folder = opendir("fixtures");
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) count += strstr(entry->d_name, ".cllm") != NULL;
    closedir(folder);
    return count;
}

static void test_reader_gives_each_fixture_its_result(void **state)
{
    (void)state;
    unsigned count = check_fixtures_listed();
    assert_true(count > 100);
    assert_int_equal(count, count_fixtures());
}

/* The rows "| name | bytes | `SHA-256` | `root` |" of FORMAT.md 16. */
static void test_reader_finds_the_digests_of_the_specification(void **state)
{
    (void)state;
    char line[1000], name[100], file_hex[65], root_hex[65], path[200], hex[65];
    unsigned long byte_count;
    unsigned count = 0;
    FILE *specification = fopen("spec/FORMAT.md", "r");
    assert_non_null(specification);
    while (fgets(line, sizeof line, specification)) {
        if (sscanf(line, "| %99[a-z-]%*[ (z)] | %lu | `%64[0-9a-f]` | `%64[0-9a-f]`", name, &byte_count, file_hex, root_hex) != 4)
            continue;
        struct cllm_reader *reader;
        size_t found_bytes;
        uint8_t digest[CLLM_DIGEST_BYTES], *bytes;
        snprintf(path, sizeof path, "fixtures/good-%s.cllm", name);
        bytes = test_file_read(path, &found_bytes);
        assert_int_equal(found_bytes, byte_count);
        assert_int_equal(cllm_sha256(bytes, found_bytes, digest, NULL), CLLM_OK);
        assert_string_equal(cllm_digest_hex(digest, hex), file_hex);
        assert_int_equal(cllm_reader_open(path, &reader, NULL), CLLM_OK);
        assert_string_equal(cllm_digest_hex(cllm_reader_index(reader)->root, hex), root_hex);
        cllm_reader_close(reader);
        free(bytes);
        count++;
    }
    fclose(specification);
    assert_true(count >= 18);
}

/* ------------------------------------------------------------------------------------------------------ a small container */

struct contents {
    uint8_t *bytes; /* of all files, joined */
    size_t byte_count;
};

static struct contents restore_all(const struct cllm_reader *reader)
{
    const struct cllm_index *index = cllm_reader_index(reader);
    struct contents contents = {NULL, 0};
    for (uint32_t i = 0; i < index->file_count; i++) {
        uint8_t *bytes;
        size_t byte_count;
        assert_int_equal(cllm_load_file(reader, &index->files[i], 1 << 20, &bytes, &byte_count, NULL), CLLM_OK);
        contents.bytes = realloc(contents.bytes, contents.byte_count + byte_count + 1);
        memcpy(contents.bytes + contents.byte_count, bytes, byte_count);
        contents.byte_count += byte_count;
        free(bytes);
    }
    return contents;
}

/* Opens and verifies; where that succeeds the contents must be those expected. */
static enum cllm_status open_verify_compare(const char *path, const struct contents *expected)
{
    struct cllm_reader *reader;
    enum cllm_status status = cllm_reader_open(path, &reader, NULL);
    if (status) return status;
    status = verify(reader, 1, NULL);
    if (!status) {
        struct contents found = restore_all(reader);
        assert_int_equal(found.byte_count, expected->byte_count);
        assert_memory_equal(found.bytes, expected->bytes, found.byte_count);
        free(found.bytes);
    }
    cllm_reader_close(reader);
    return status;
}

struct small {
    struct test_dir dir;
    uint8_t *bytes;
    size_t byte_count;
    struct contents contents;
};

static struct small small_open(const char *fixture)
{
    struct small small = {.dir = test_dir_create()};
    struct cllm_reader *reader;
    small.bytes = test_file_read(fixture, &small.byte_count);
    assert_int_equal(cllm_reader_open(fixture, &reader, NULL), CLLM_OK);
    small.contents = restore_all(reader);
    cllm_reader_close(reader);
    return small;
}

static void small_close(struct small *small)
{
    test_dir_remove(&small->dir);
    free(small->bytes);
    free(small->contents.bytes);
}

static enum cllm_status try_bytes(const struct small *small, size_t byte_count)
{
    const char *path = test_dir_path(&small->dir, "c.cllm");
    test_file_write(path, small->bytes, byte_count);
    return open_verify_compare(path, &small->contents);
}

static const char *const small_fixtures[] = {"fixtures/good-worked-example.cllm", "fixtures/good-index-raw.cllm",
                                             "fixtures/good-index-zstd.cllm"};

static void test_reader_rejects_every_truncation(void **state)
{
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct small small = small_open(small_fixtures[f]);
        assert_int_equal(try_bytes(&small, small.byte_count), CLLM_OK);
        for (size_t byte_count = 0; byte_count < small.byte_count; byte_count++) {
            assert_int_equal(try_bytes(&small, byte_count), byte_count < 8 ? CLLM_E_FORMAT : CLLM_E_CORRUPT);
        }
        small_close(&small);
    }
}

/* Every byte of a container is covered by something: no flip at all may pass. */
static void test_reader_rejects_every_bit_flip(void **state)
{
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct small small = small_open(small_fixtures[f]);
        for (size_t bit = 0; bit < 8 * small.byte_count; bit++) {
            small.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            enum cllm_status status = try_bytes(&small, small.byte_count);
            if (status == CLLM_OK) fail_msg("%s: bit %zu may be flipped", small_fixtures[f], bit);
            bool magic = bit / 8 < 8, footer_magic = bit / 8 >= small.byte_count - 8;
            assert_int_equal(status, magic ? CLLM_E_FORMAT : footer_magic ? CLLM_E_CORRUPT : CLLM_E_DIGEST);
            small.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        small_close(&small);
    }
}

static void test_reader_rejects_an_appended_byte(void **state)
{
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct small small = small_open(small_fixtures[f]);
        for (unsigned value = 0; value < 256; value++) {
            small.bytes[small.byte_count] = (uint8_t)value; /* test_file_read leaves room for it */
            assert_int_equal(try_bytes(&small, small.byte_count + 1), CLLM_E_CORRUPT);
        }
        small_close(&small);
    }
}

/* Changes bytes of the index at random and makes everything above right again, as someone would who means harm. */
static void test_reader_survives_a_hostile_index(void **state)
{
    (void)state;
    struct test_random random = {11};
    struct small small = small_open("fixtures/good-index-raw.cllm");
    const char *path = test_dir_path(&small.dir, "c.cllm");
    unsigned rejected = 0;
    for (unsigned round = 0; round < 3000; round++) {
        struct test_surgery surgery = test_surgery_open(small.bytes, small.byte_count);
        for (unsigned k = 0; k < 1 + round % 3; k++) {
            size_t at = test_random_next(&random) % surgery.index_bytes;
            static const uint8_t edges[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
            uint64_t choice = test_random_next(&random) >> 32;
            surgery.index[at] = choice % 2 ? edges[choice / 2 % 5] : (uint8_t)(choice >> 8);
        }
        size_t byte_count;
        uint8_t *bytes = test_surgery_close(&surgery, &byte_count);
        test_file_write(path, bytes, byte_count);
        free(bytes);
        struct cllm_reader *reader;
        enum cllm_status status = cllm_reader_open(path, &reader, NULL);
        if (!status) {
            status = verify(reader, 1, NULL);
            cllm_reader_close(reader);
        }
        rejected += status != CLLM_OK;
    }
    assert_true(rejected > 2000);
    small_close(&small);
}

/* ---------------------------------------------------------------------------------------------------------------- chunks */

static void test_reader_read_chunk_checks_index_and_room(void **state)
{
    (void)state;
    struct cllm_reader *reader;
    struct cllm_error err;
    char what[64];
    assert_int_equal(cllm_reader_open("fixtures/good-index-raw.cllm", &reader, NULL), CLLM_OK);
    const struct cllm_data *data = cllm_reader_index(reader)->data;
    size_t byte_count = cllm_chunk_buffer_bytes(&data[0].chunks[0]);
    uint8_t *buffer = malloc(byte_count);
    assert_int_equal(byte_count, 16 + CLLM_READ_SLACK_BYTES);
    memset(buffer, 0xAA, byte_count);
    assert_int_equal(cllm_reader_read_chunk(reader, 0, 0, buffer, byte_count, NULL), CLLM_OK);
    assert_memory_equal(buffer, "hello\n\0\0\0\0\0\0\0\0\0\0", 16);
    for (size_t i = 16; i < byte_count; i++) assert_int_equal(buffer[i], 0);
    assert_int_equal(cllm_reader_read_chunk(reader, 0, 0, buffer, byte_count - 1, NULL), CLLM_E_LIMIT);
    assert_int_equal(cllm_reader_read_chunk(reader, 0, 1, buffer, byte_count, &err), CLLM_E_USAGE);
    assert_string_equal(err.message, "no chunk 1 in data object 0, there are 1");
    assert_int_equal(cllm_reader_read_chunk(reader, 4, 0, buffer, byte_count, &err), CLLM_E_USAGE);
    assert_string_equal(err.message, "no data object 4, there are 4");
    assert_string_equal(cllm_reader_describe_data(reader, 4, what, sizeof what), "data object 4");
    assert_string_equal(cllm_reader_describe_data(reader, UINT32_MAX, what, sizeof what), "data object 4294967295");
    free(buffer);
    cllm_reader_close(reader);
}

static void test_reader_names_the_chunk_that_is_damaged(void **state)
{
    (void)state;
    struct cllm_reader *reader;
    struct cllm_error err;
    assert_int_equal(cllm_reader_open("fixtures/bad-float-border.cllm", &reader, NULL), CLLM_OK);
    assert_int_equal(verify(reader, 1, &err), CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "tensor \"alpha\", chunk 0, bytes 80 to "));
    cllm_reader_close(reader);
    assert_int_equal(cllm_reader_open("fixtures/bad-chunk-checksum.cllm", &reader, NULL), CLLM_OK);
    assert_int_equal(verify(reader, 1, &err), CLLM_E_DIGEST);
    assert_non_null(strstr(err.message, "file \"model.bin\", chunk 0, bytes 64 to 69"));
    cllm_reader_close(reader);
}

/* Chunks first to last of the sample's weights, three pieces long or more, by read_checked into `bytes`. */
static enum cllm_status read_weights(const struct test_sample *sample, uint32_t first, uint32_t count, uint8_t *bytes,
                                     struct cllm_error *err)
{
    return cllm_reader_read_checked(sample->reader, TEST_SAMPLE_WEIGHTS, first, count, bytes, err);
}

static void test_reader_reads_and_checks_runs_piece_by_piece(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct cllm_error err;
    const struct cllm_data *data = &cllm_reader_index(sample.reader)->data[TEST_SAMPLE_WEIGHTS];
    const size_t room = cllm_run_buffer_bytes(data, 0, data->chunk_count);
    uint8_t *pieces = malloc(room), *whole = malloc(room);
    assert_true(data->chunk_count > 20 && room > 3 * (256u << 10));
    for (uint32_t first = 0; first < data->chunk_count; first += 11) {
        for (uint32_t count = 1; count <= data->chunk_count - first; count += 5) {
            const size_t byte_count = cllm_run_buffer_bytes(data, first, count);
            memset(pieces, 0xAA, byte_count);
            assert_int_equal(read_weights(&sample, first, count, pieces, NULL), CLLM_OK);
            assert_int_equal(cllm_reader_read_run(sample.reader, TEST_SAMPLE_WEIGHTS, first, count, whole, NULL), CLLM_OK);
            assert_memory_equal(pieces, whole, byte_count);
        }
    }
    test_sample_damage(&sample, TEST_SAMPLE_WEIGHTS, 17);
    assert_int_equal(read_weights(&sample, 0, 17, pieces, &err), CLLM_OK);
    assert_int_equal(read_weights(&sample, 18, data->chunk_count - 18, pieces, &err), CLLM_OK);
    assert_int_equal(read_weights(&sample, 1, data->chunk_count - 1, pieces, &err), CLLM_E_DIGEST);
    assert_non_null(strstr(err.message, "tensor \"weights\", chunk 17, "));
    assert_int_equal(truncate(sample.path, (off_t)data->chunks[20].stored_offset), 0);
    assert_int_equal(read_weights(&sample, 18, 2, pieces, &err), CLLM_OK);
    assert_int_equal(read_weights(&sample, 18, 3, pieces, &err), CLLM_E_CORRUPT);
    free(pieces);
    free(whole);
    test_sample_close(&sample);
}

static void test_reader_notices_a_file_that_became_shorter(void **state)
{
    (void)state;
    struct small small = small_open("fixtures/good-index-raw.cllm");
    const char *path = test_dir_path(&small.dir, "c.cllm");
    struct cllm_reader *reader;
    test_file_write(path, small.bytes, small.byte_count);
    assert_int_equal(cllm_reader_open(path, &reader, NULL), CLLM_OK);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(verify(reader, 2, NULL), CLLM_E_CORRUPT);
    cllm_reader_close(reader);
    small_close(&small);
}

static void test_reader_finds_by_name(void **state)
{
    (void)state;
    struct cllm_reader *reader;
    assert_int_equal(cllm_reader_open("fixtures/good-index-raw.cllm", &reader, NULL), CLLM_OK);
    const struct cllm_tensor *gamma = cllm_reader_find_tensor(reader, "gamma");
    assert_non_null(gamma);
    assert_int_equal(gamma->data_index, 2);
    assert_null(cllm_reader_find_tensor(reader, "gamm"));
    assert_null(cllm_reader_find_tensor(reader, "gamma2"));
    assert_string_equal(cllm_reader_find_file(reader, "notes.txt")->name, "notes.txt");
    assert_null(cllm_reader_find_file(reader, "notes"));
    cllm_reader_close(reader);
}

static void test_reader_refuses_what_is_no_regular_file(void **state)
{
    (void)state;
    struct cllm_reader *reader;
    assert_int_equal(cllm_reader_open("fixtures", &reader, NULL), CLLM_E_FORMAT);
    assert_null(reader);
    assert_int_equal(cllm_reader_open("/dev/null", &reader, NULL), CLLM_E_FORMAT);
    assert_int_equal(cllm_reader_open("fixtures/there-is-no-such-file", &reader, NULL), CLLM_E_IO);
    cllm_reader_close(NULL);
}

static void test_reader_sees_one_content_in_either_index_form(void **state)
{
    (void)state;
    struct cllm_reader *raw, *zstd;
    assert_int_equal(cllm_reader_open("fixtures/good-index-raw.cllm", &raw, NULL), CLLM_OK);
    assert_int_equal(cllm_reader_open("fixtures/good-index-zstd.cllm", &zstd, NULL), CLLM_OK);
    assert_memory_equal(cllm_reader_index(raw)->root, cllm_reader_index(zstd)->root, CLLM_DIGEST_BYTES);
    assert_true(cllm_reader_index(raw)->index_stored_bytes > cllm_reader_index(zstd)->index_stored_bytes);
    cllm_reader_close(raw);
    cllm_reader_close(zstd);
}

static void test_reader_places_large_objects_on_pages(void **state)
{
    (void)state;
    struct cllm_reader *reader;
    assert_int_equal(cllm_reader_open("fixtures/good-page-aligned.cllm", &reader, NULL), CLLM_OK);
    assert_int_equal(cllm_reader_index(reader)->data[0].stored_offset, 64);
    assert_int_equal(cllm_reader_index(reader)->data[1].stored_offset, 4096);
    cllm_reader_close(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_gives_each_fixture_its_result),
        cmocka_unit_test(test_reader_finds_the_digests_of_the_specification),
        cmocka_unit_test(test_reader_rejects_every_truncation),
        cmocka_unit_test(test_reader_rejects_every_bit_flip),
        cmocka_unit_test(test_reader_rejects_an_appended_byte),
        cmocka_unit_test(test_reader_survives_a_hostile_index),
        cmocka_unit_test(test_reader_read_chunk_checks_index_and_room),
        cmocka_unit_test(test_reader_names_the_chunk_that_is_damaged),
        cmocka_unit_test(test_reader_reads_and_checks_runs_piece_by_piece),
        cmocka_unit_test(test_reader_notices_a_file_that_became_shorter),
        cmocka_unit_test(test_reader_finds_by_name),
        cmocka_unit_test(test_reader_refuses_what_is_no_regular_file),
        cmocka_unit_test(test_reader_sees_one_content_in_either_index_form),
        cmocka_unit_test(test_reader_places_large_objects_on_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

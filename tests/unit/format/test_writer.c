/* What the writer promises: containers that read back, data stored once, and refusals. */
#include "bytes.h"
#include "cllm_decode.h"
#include "container_builder.h"
#include "digest.h"
#include "test_dir.h"
#include "writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

struct bench {
    struct test_dir dir;
    const char *path;
    struct cllm_output *output;
    struct cllm_writer *writer;
};

static struct bench bench_open(void)
{
    struct bench bench = {.dir = test_dir_create()};
    bench.path = test_dir_path(&bench.dir, "c.cllm");
    assert_int_equal(cllm_output_create(bench.path, false, &bench.output, NULL), CLLM_OK);
    assert_int_equal(cllm_writer_create(bench.output, &bench.writer, NULL), CLLM_OK);
    return bench;
}

static void bench_close(struct bench *bench)
{
    cllm_writer_destroy(bench->writer);
    cllm_output_discard(bench->output);
    test_dir_remove(&bench->dir);
}

static enum cllm_status finish(struct bench *bench, struct cllm_error *err)
{
    uint8_t root[CLLM_DIGEST_BYTES];
    return cllm_writer_finish(bench->writer, root, err);
}

/* Writes one raw chunk as a data object; returns its index. */
static uint32_t add_raw(struct bench *bench, const char *text, bool *shared_out)
{
    struct cllm_layout none = {0};
    uint8_t stored[64] = {0}, leaf[CLLM_DIGEST_BYTES], root[CLLM_DIGEST_BYTES];
    uint32_t byte_count = (uint32_t)strlen(text), data_index;
    struct cllm_chunk chunk = {.form = CLLM_FORM_RAW, .stored_bytes = byte_count};
    memset(stored, 0xEE, sizeof stored); /* the writer clears the padding */
    memcpy(stored, text, byte_count);
    assert_int_equal(cllm_writer_begin_data(bench->writer, byte_count, 1024, &none, NULL), CLLM_OK);
    assert_int_equal(cllm_writer_add_chunk(bench->writer, &chunk, stored, NULL), CLLM_OK);
    assert_int_equal(cllm_sha256(text, byte_count, leaf, NULL), CLLM_OK);
    assert_int_equal(cllm_data_root(byte_count, 1024, leaf, 1, root, NULL), CLLM_OK);
    assert_int_equal(cllm_writer_end_data(bench->writer, root, &data_index, shared_out, NULL), CLLM_OK);
    return data_index;
}

static struct cllm_file file_of(const char *name, const uint32_t *parts, uint32_t part_count, uint64_t bytes)
{
    return (struct cllm_file){
        .name = name, .name_bytes = (uint32_t)strlen(name), .parts = parts, .part_count = part_count, .bytes = bytes};
}

static void test_writer_stores_equal_data_once(void **state)
{
    (void)state;
    struct bench bench = bench_open();
    bool shared;
    uint32_t parts[4];
    parts[0] = add_raw(&bench, "first", &shared);
    assert_false(shared);
    parts[1] = add_raw(&bench, "second", &shared);
    assert_false(shared);
    uint64_t end = cllm_output_bytes(bench.output);
    parts[2] = add_raw(&bench, "first", &shared);
    assert_true(shared);
    assert_int_equal(parts[2], parts[0]);
    assert_int_equal(cllm_output_bytes(bench.output), end);
    parts[3] = add_raw(&bench, "third", &shared);
    assert_false(shared);
    assert_int_equal(cllm_output_bytes(bench.output), end + 16);
    bench_close(&bench);
}

static void test_writer_finds_equal_data_among_many(void **state)
{
    (void)state;
    struct bench bench = bench_open();
    bool shared;
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 300; i++) {
            char text[16];
            snprintf(text, sizeof text, "object %u", i);
            assert_int_equal(add_raw(&bench, text, &shared), i);
            assert_int_equal(shared, round == 1);
        }
    }
    bench_close(&bench);
}

static void test_writer_clears_padding(void **state)
{
    (void)state;
    struct bench bench = bench_open();
    bool shared;
    uint8_t bytes[16];
    (void)add_raw(&bench, "hello", &shared);
    assert_int_equal(cllm_output_bytes(bench.output), 80);
    FILE *file = fopen(cllm_output_readable_path(bench.output), "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 64, SEEK_SET), 0);
    assert_int_equal(fread(bytes, 1, 16, file), 16);
    assert_memory_equal(bytes, "hello\0\0\0\0\0\0\0\0\0\0\0", 16);
    fclose(file);
    bench_close(&bench);
}

static void test_writer_refuses_an_index_that_readers_would_refuse(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t bytes;
        enum cllm_status expected;
    } cases[] = {{"a", 5, CLLM_OK},        {"../a", 5, CLLM_E_CORRUPT}, {"/a", 5, CLLM_E_CORRUPT},
                 {"a", 6, CLLM_E_CORRUPT}, {"", 5, CLLM_E_CORRUPT},     {"a\\b", 5, CLLM_E_CORRUPT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = bench_open();
        bool shared;
        uint32_t part = add_raw(&bench, "hello", &shared);
        struct cllm_file file = file_of(cases[i].name, &part, 1, cases[i].bytes);
        assert_int_equal(cllm_writer_add_file(bench.writer, &file, NULL), CLLM_OK);
        assert_int_equal(finish(&bench, NULL), cases[i].expected);
        bench_close(&bench);
    }
}

static void test_writer_refuses_a_container_without_files(void **state)
{
    (void)state;
    struct bench bench = bench_open();
    struct cllm_error err;
    assert_int_equal(finish(&bench, &err), CLLM_E_CORRUPT);
    bench_close(&bench);
}

static void test_writer_refuses_two_of_a_name(void **state)
{
    (void)state;
    struct bench bench = bench_open();
    bool shared;
    uint32_t part = add_raw(&bench, "hello", &shared);
    struct cllm_file file = file_of("a", &part, 1, 5);
    assert_int_equal(cllm_writer_add_file(bench.writer, &file, NULL), CLLM_OK);
    assert_int_equal(cllm_writer_add_file(bench.writer, &file, NULL), CLLM_OK);
    assert_int_equal(finish(&bench, NULL), CLLM_E_CORRUPT);
    bench_close(&bench);
}

/* "a!" sorts between "a" and "a/b" by their bytes. */
static void test_writer_refuses_a_file_that_is_a_folder_too(void **state)
{
    (void)state;
    static const struct {
        const char *names[3];
        enum cllm_status expected;
    } cases[] = {{{"a", "a!", "a/b"}, CLLM_E_CORRUPT},
                 {{"a/b/c", "x", "a/b"}, CLLM_E_CORRUPT},
                 {{"a/b", "a!", "a/bc"}, CLLM_OK},
                 {{"ab/c", "a", "a.c/d"}, CLLM_OK},
                 {{"a/b/c", "a/b!", "a"}, CLLM_E_CORRUPT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = bench_open();
        for (unsigned k = 0; k < 3; k++) {
            struct cllm_file file = file_of(cases[i].names[k], NULL, 0, 0);
            assert_int_equal(cllm_sha256("", 0, file.sha256, NULL), CLLM_OK);
            assert_int_equal(cllm_writer_add_file(bench.writer, &file, NULL), CLLM_OK);
        }
        assert_int_equal(finish(&bench, NULL), cases[i].expected);
        bench_close(&bench);
    }
}

/* A data object with a chunk less than its size needs is a bug of the caller; it must not become a container. */
static void test_writer_refuses_missing_chunks(void **state)
{
    (void)state;
    struct bench bench = bench_open();
    struct cllm_layout none = {0};
    uint8_t stored[1024] = {0}, root[CLLM_DIGEST_BYTES] = {1};
    struct cllm_chunk chunk = {.form = CLLM_FORM_RAW, .stored_bytes = 1024};
    uint32_t part;
    bool shared;
    assert_int_equal(cllm_writer_begin_data(bench.writer, 2048, 1024, &none, NULL), CLLM_OK);
    assert_int_equal(cllm_writer_add_chunk(bench.writer, &chunk, stored, NULL), CLLM_OK);
    assert_int_equal(cllm_writer_end_data(bench.writer, root, &part, &shared, NULL), CLLM_OK);
    struct cllm_file file = file_of("a", &part, 1, 2048);
    assert_int_equal(cllm_writer_add_file(bench.writer, &file, NULL), CLLM_OK);
    assert_int_equal(finish(&bench, NULL), CLLM_E_CORRUPT);
    bench_close(&bench);
}

/* Fields of 16 and 8 bits: a name that is too long must not be cut silently. */
static void test_writer_refuses_names_beyond_the_limits(void **state)
{
    (void)state;
    struct bench bench = bench_open();
    char *name = calloc(70000, 1);
    memset(name, 'n', 69999);
    struct cllm_tensor tensor = {.name = name, .name_bytes = 65535, .dtype = "U8", .element_bits = 8};
    assert_int_equal(cllm_writer_add_tensor(bench.writer, &tensor, NULL), CLLM_OK);
    tensor.name_bytes = 65536;
    assert_int_equal(cllm_writer_add_tensor(bench.writer, &tensor, NULL), CLLM_E_LIMIT);
    tensor.name_bytes = 1;
    tensor.rank = 65;
    assert_int_equal(cllm_writer_add_tensor(bench.writer, &tensor, NULL), CLLM_E_LIMIT);
    tensor.rank = 0;
    tensor.dtype = "A_DTYPE_OF_THIRTY_TWO_CHARACTERS";
    assert_int_equal(cllm_writer_add_tensor(bench.writer, &tensor, NULL), CLLM_E_LIMIT);
    struct cllm_file file = {.name = name, .name_bytes = 65536 + 1};
    assert_int_equal(cllm_writer_add_file(bench.writer, &file, NULL), CLLM_E_LIMIT);
    free(name);
    bench_close(&bench);
}

static void test_writer_output_is_the_same_every_time(void **state)
{
    (void)state;
    struct test_dir dir = test_dir_create();
    uint8_t *bytes[2];
    size_t byte_count[2];
    for (unsigned i = 0; i < 2; i++) {
        const char *path = test_dir_path(&dir, i ? "b" : "a");
        struct test_random random = {51};
        uint8_t numbers[6000];
        test_random_bf16(&random, numbers, sizeof numbers / 2);
        struct test_container *container = test_container_create(path);
        uint32_t part = test_container_data(container, &(struct test_data){.bytes = numbers,
                                                                           .byte_count = sizeof numbers,
                                                                           .layout = test_layout_bf16(7),
                                                                           .form = CLLM_FORM_FLOAT});
        test_container_file(container, "numbers", &part, 1);
        test_container_finish(container);
        bytes[i] = test_file_read(path, &byte_count[i]);
    }
    assert_int_equal(byte_count[0], byte_count[1]);
    assert_memory_equal(bytes[0], bytes[1], byte_count[0]);
    free(bytes[0]);
    free(bytes[1]);
    test_dir_remove(&dir);
}

/* An index of equal records shrinks by more than the ratio that readers accept: it must then be stored so that they accept it. */
static void test_writer_keeps_the_index_within_the_ratio(void **state)
{
    (void)state;
    struct bench bench = bench_open();
    struct cllm_layout none = {0};
    struct cllm_error err;
    uint8_t stored[1024] = {0}, leaf[CLLM_DIGEST_BYTES], root[CLLM_DIGEST_BYTES], *leaves = malloc(5000 * CLLM_DIGEST_BYTES);
    struct cllm_chunk chunk = {.form = CLLM_FORM_RAW, .stored_bytes = 1024};
    uint32_t part;
    bool shared;
    assert_int_equal(cllm_sha256(stored, sizeof stored, leaf, NULL), CLLM_OK);
    for (size_t i = 0; i < 5000; i++) memcpy(leaves + CLLM_DIGEST_BYTES * i, leaf, sizeof leaf);
    assert_int_equal(cllm_writer_begin_data(bench.writer, 5000 * 1024, 1024, &none, NULL), CLLM_OK);
    for (unsigned i = 0; i < 5000; i++) assert_int_equal(cllm_writer_add_chunk(bench.writer, &chunk, stored, NULL), CLLM_OK);
    assert_int_equal(cllm_data_root(5000 * 1024, 1024, leaves, 5000, root, NULL), CLLM_OK);
    assert_int_equal(cllm_writer_end_data(bench.writer, root, &part, &shared, NULL), CLLM_OK);
    struct cllm_file file = file_of("zeros", &part, 1, 5000 * 1024);
    assert_int_equal(cllm_writer_add_file(bench.writer, &file, NULL), CLLM_OK);
    assert_int_equal(finish(&bench, &err), CLLM_OK);
    assert_int_equal(cllm_output_commit(bench.output, NULL), CLLM_OK);
    bench.output = NULL;
    struct cllm_reader *reader;
    assert_int_equal(cllm_reader_open(bench.path, &reader, &err), CLLM_OK);
    cllm_reader_close(reader);
    free(leaves);
    bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writer_stores_equal_data_once),
        cmocka_unit_test(test_writer_finds_equal_data_among_many),
        cmocka_unit_test(test_writer_clears_padding),
        cmocka_unit_test(test_writer_refuses_an_index_that_readers_would_refuse),
        cmocka_unit_test(test_writer_refuses_a_container_without_files),
        cmocka_unit_test(test_writer_refuses_two_of_a_name),
        cmocka_unit_test(test_writer_refuses_a_file_that_is_a_folder_too),
        cmocka_unit_test(test_writer_refuses_missing_chunks),
        cmocka_unit_test(test_writer_refuses_names_beyond_the_limits),
        cmocka_unit_test(test_writer_output_is_the_same_every_time),
        cmocka_unit_test(test_writer_keeps_the_index_within_the_ratio),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

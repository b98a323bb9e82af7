/* Files hashed by threads of their own while they are packed: the right digests, and what goes wrong on the way. */
#include "digest.h"
#include "group.h"
#include "hash_files.h"
#include "safetensors_builder.h"
#include "container_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define SHARDS 3u

static struct test_dir dir;
static struct cllm_source *source;

/* A group or less, some groups and a rest, groups and nothing more. */
static const unsigned shard_bytes[SHARDS] = {1000, 2 * CLLM_GROUP_BYTES + 777, CLLM_GROUP_BYTES};

static int open_checkpoint(void **state)
{
    (void)state;
    char name[64], header[160], index[400] = "{\"metadata\":{},\"weight_map\":{";
    struct cllm_error err;
    dir = test_dir_create();
    for (unsigned i = 0; i < SHARDS; i++) {
        snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", i + 1, SHARDS);
        snprintf(header, sizeof header, "{\"w%u\":{\"dtype\":\"U8\",\"shape\":[%u],\"data_offsets\":[0,%u]}}", i, shard_bytes[i],
                 shard_bytes[i]);
        test_safetensors_write(&dir, name, header, shard_bytes[i]);
        snprintf(index + strlen(index), sizeof index - strlen(index), "%s\"w%u\":\"%s\"", i ? "," : "", i, name);
    }
    strcat(index, "}}");
    test_dir_write_text(&dir, "model.safetensors.index.json", index);
    test_dir_write_text(&dir, "config.json", "{}");
    TEST_REQUIRE(cllm_source_open(dir.path, NULL, &source, &err) == CLLM_OK, &err);
    assert_int_equal(source->file_count, SHARDS + 2);
    return 0;
}

static int close_checkpoint(void **state)
{
    (void)state;
    cllm_source_close(source);
    test_dir_remove(&dir);
    return 0;
}

#define NONE UINT64_MAX         /* of the groups is changed */
#define UNREAD (UINT64_MAX - 1) /* they are gone through, but neither read nor noted */

/* Reads every group as the packer does, and notes it; a byte of group `changed` as another one. */
static enum cllm_status note_all(struct cllm_file_hashing *hashing, uint64_t changed, struct cllm_error *err)
{
    uint8_t *buffer = malloc(CLLM_GROUP_BYTES);
    enum cllm_status status = CLLM_OK;
    uint64_t group = 0;
    assert_non_null(buffer);
    for (uint32_t f = 0; f < source->file_count; f++) {
        for (uint32_t s = 0; s < source->files[f].span_count; s++) {
            const struct cllm_source_span *span = &source->files[f].spans[s];
            for (uint64_t at = 0, piece; at < span->bytes && !status; at += piece, group++) {
                piece = span->bytes - at < CLLM_GROUP_BYTES ? span->bytes - at : CLLM_GROUP_BYTES;
                status = cllm_file_hashing_advance(hashing, f, (size_t)piece, err);
                if (!status && changed == UNREAD) continue;
                if (!status) status = cllm_source_read(source, f, span->offset + at, buffer, (size_t)piece, err);
                if (status) break;
                if (group == changed) buffer[piece - 1] ^= 1;
                cllm_file_hashing_note(hashing, group, buffer, (size_t)piece);
            }
        }
    }
    free(buffer);
    return status;
}

static void test_digests_are_those_of_the_files(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 6; threads++) {
        const uint64_t ahead_bytes_max = threads % 2 ? 0 : CLLM_GROUP_BYTES; /* at times the packer waits for each group */
        struct cllm_file_hashing *hashing = NULL;
        struct cllm_file files[SHARDS + 2] = {{0}};
        struct cllm_error err;
        TEST_REQUIRE(cllm_file_hashing_create(source, threads, ahead_bytes_max, &hashing, &err) == CLLM_OK, &err);
        TEST_REQUIRE(note_all(hashing, NONE, &err) == CLLM_OK, &err);
        TEST_REQUIRE(cllm_file_hashing_finish(hashing, NULL, files, &err) == CLLM_OK, &err);
        cllm_file_hashing_destroy(hashing);
        for (uint32_t f = 0; f < source->file_count; f++) {
            const size_t byte_count = (size_t)source->files[f].bytes;
            uint8_t *bytes = malloc(byte_count), digest[CLLM_DIGEST_BYTES];
            assert_non_null(bytes);
            TEST_REQUIRE(cllm_source_read(source, f, 0, bytes, byte_count, &err) == CLLM_OK, &err);
            TEST_REQUIRE(cllm_sha256(bytes, byte_count, digest, &err) == CLLM_OK, &err);
            assert_memory_equal(files[f].sha256, digest, CLLM_DIGEST_BYTES);
            free(bytes);
        }
    }
}

static void test_a_group_that_was_another_one_is_found(void **state)
{
    (void)state;
    uint64_t group_count = 0;
    for (uint32_t f = 0; f < source->file_count; f++) {
        for (uint32_t s = 0; s < source->files[f].span_count; s++) {
            group_count += (source->files[f].spans[s].bytes + CLLM_GROUP_BYTES - 1) / CLLM_GROUP_BYTES;
        }
    }
    assert_true(group_count > 8);
    for (uint64_t changed = 0; changed < group_count; changed++) {
        struct cllm_file_hashing *hashing = NULL;
        struct cllm_file files[SHARDS + 2] = {{0}};
        struct cllm_error err;
        TEST_REQUIRE(cllm_file_hashing_create(source, 2, 0, &hashing, &err) == CLLM_OK, &err);
        TEST_REQUIRE(note_all(hashing, changed, &err) == CLLM_OK, &err);
        assert_int_equal(cllm_file_hashing_finish(hashing, NULL, files, &err), CLLM_E_CORRUPT);
        assert_non_null(strstr(err.message, "changed while it was being read"));
        cllm_file_hashing_destroy(hashing);
    }
}

static bool refuse(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    assert_true(done_bytes <= total_bytes);
    ++*(unsigned *)user;
    return false;
}

static void test_waiting_can_be_stopped(void **state)
{
    (void)state;
    unsigned asked = 0;
    const struct cllm_progress progress = {refuse, &asked};
    struct cllm_file_hashing *hashing = NULL;
    struct cllm_file files[SHARDS + 2] = {{0}};
    struct cllm_error err;
    TEST_REQUIRE(cllm_file_hashing_create(source, 1, 0, &hashing, &err) == CLLM_OK, &err);
    assert_int_equal(cllm_file_hashing_finish(hashing, &progress, files, &err), CLLM_E_INTERRUPTED);
    assert_int_equal(asked, 1);
    cllm_file_hashing_destroy(hashing);
    TEST_REQUIRE(cllm_file_hashing_create(source, 3, 0, &hashing, &err) == CLLM_OK, &err);
    cllm_file_hashing_destroy(hashing); /* whose threads wait */
    TEST_REQUIRE(cllm_file_hashing_create(source, 0, 0, &hashing, &err) == CLLM_OK, &err);
    assert_null(hashing);
    cllm_file_hashing_destroy(NULL);
}

/* Also while it waits for them to come after it. */
static void test_a_file_that_became_shorter_fails_the_packer(void **state)
{
    (void)state;
    struct cllm_file_hashing *hashing = NULL;
    struct cllm_file files[SHARDS + 2] = {{0}};
    struct cllm_error err;
    assert_int_equal(truncate(test_dir_path(&dir, "model-00002-of-00003.safetensors"), CLLM_GROUP_BYTES), 0);
    TEST_REQUIRE(cllm_file_hashing_create(source, 1, 1, &hashing, &err) == CLLM_OK, &err);
    const enum cllm_status status = note_all(hashing, UNREAD, &err);
    assert_int_equal(status, CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "model-00002-of-00003.safetensors"));
    assert_int_equal(cllm_file_hashing_finish(hashing, NULL, files, &err), CLLM_E_CORRUPT);
    cllm_file_hashing_destroy(hashing);
}

static void test_a_third_of_the_threads_hash_one_file_each(void **state)
{
    (void)state;
    static const unsigned expected[] = {0, 0, 0, 1, 1, 1, 2};
    for (unsigned i = 1; i < sizeof expected / sizeof *expected; i++) {
        assert_int_equal(cllm_file_hashing_threads(source, i), expected[i]);
    }
    assert_int_equal(cllm_file_hashing_threads(source, 200), SHARDS + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_digests_are_those_of_the_files, open_checkpoint, close_checkpoint),
        cmocka_unit_test_setup_teardown(test_a_group_that_was_another_one_is_found, open_checkpoint, close_checkpoint),
        cmocka_unit_test_setup_teardown(test_waiting_can_be_stopped, open_checkpoint, close_checkpoint),
        cmocka_unit_test_setup_teardown(test_a_file_that_became_shorter_fails_the_packer, open_checkpoint, close_checkpoint),
        cmocka_unit_test_setup_teardown(test_a_third_of_the_threads_hash_one_file_each, open_checkpoint, close_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

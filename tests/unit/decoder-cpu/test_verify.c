/* Restoring and verifying whole containers. */
#include "cllm_decode.h"
#include "container_sample.h"
#include "walk.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

/* ----------------------------------------------------------------------------------------------------------- restoring */

struct received {
    uint8_t *bytes;
    size_t byte_count;
    size_t room; /* a write beyond it fails */
};

static enum cllm_status receive(void *user, const void *bytes, size_t byte_count, struct cllm_error *err)
{
    struct received *received = user;
    if (byte_count > received->room - received->byte_count) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "no room");
    memcpy(received->bytes + received->byte_count, bytes, byte_count);
    received->byte_count += byte_count;
    return CLLM_OK;
}

static enum cllm_status restore(const struct test_sample *sample, unsigned file, unsigned threads, struct received *received,
                                struct cllm_error *err)
{
    const struct cllm_sink sink = {receive, received};
    received->byte_count = 0;
    const struct cllm_restore_options options = {.thread_count = threads};
    return cllm_restore_file(sample->reader, &cllm_reader_index(sample->reader)->files[file], &sink, &options, err);
}

static void test_restore_gives_each_file_in_order(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    for (unsigned file = 0; file < 3; file++) {
        struct received received = {.bytes = malloc(sample.file_bytes[file] + 1), .room = sample.file_bytes[file]};
        for (unsigned threads = 0; threads <= 4; threads++) {
            assert_int_equal(restore(&sample, file, threads, &received, NULL), CLLM_OK);
            assert_int_equal(received.byte_count, sample.file_bytes[file]);
            assert_memory_equal(received.bytes, sample.files[file], received.byte_count);
        }
        free(received.bytes);
    }
    test_sample_close(&sample);
}

static void test_restore_stops_at_the_first_damaged_run(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct received received = {.bytes = malloc(sample.file_bytes[0] + 1), .room = sample.file_bytes[0]};
    struct cllm_error err;
    test_sample_damage(&sample, TEST_SAMPLE_WEIGHTS, 17);
    test_sample_damage(&sample, TEST_SAMPLE_WEIGHTS, 40);
    for (unsigned threads = 1; threads <= 4; threads++) {
        assert_int_equal(restore(&sample, 0, threads, &received, &err), CLLM_E_DIGEST);
        assert_non_null(strstr(err.message, "chunk 17,"));
        assert_true(received.byte_count <= 9 + 17 * 65536);
        assert_memory_equal(received.bytes, sample.files[0], received.byte_count);
        assert_int_equal(restore(&sample, 1, threads, &received, &err), CLLM_OK); /* another file is not concerned */
    }
    free(received.bytes);
    test_sample_close(&sample);
}

static void test_restore_passes_on_what_the_sink_says(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct received received = {.bytes = malloc(sample.file_bytes[0] + 1), .room = 1500000};
    struct cllm_error err;
    for (unsigned threads = 1; threads <= 4; threads++) {
        assert_int_equal(restore(&sample, 0, threads, &received, &err), CLLM_E_IO);
        assert_string_equal(err.message, "no room");
    }
    free(received.bytes);
    test_sample_close(&sample);
}

/* ----------------------------------------------------------------------------------------------------------- verifying */

struct problems {
    unsigned count;
    struct cllm_error first;
    struct cllm_error last;
};

static void note(void *user, const struct cllm_error *problem)
{
    struct problems *problems = user;
    if (problems->count++ == 0) problems->first = *problem;
    problems->last = *problem;
}

static enum cllm_status verify(const struct cllm_reader *reader, bool quick, unsigned threads, struct problems *problems,
                               struct cllm_verify_report *report)
{
    struct cllm_error err = {.message = ""};
    const struct cllm_verify_options options = {.thread_count = threads, .quick = quick, .problem = note, .user = problems};
    *problems = (struct problems){.count = 0};
    enum cllm_status status = cllm_verify(reader, &options, report, &err);
    assert_int_equal(report->problem_count, problems->count);
    if (problems->count) {
        assert_int_equal(status, problems->first.status);
        assert_string_equal(err.message, problems->first.message);
    }
    return status;
}

static void test_verify_counts_what_it_checked(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct problems problems;
    struct cllm_verify_report report;
    uint64_t weight_chunks = (sample.data_bytes[TEST_SAMPLE_WEIGHTS] + 65535) / 65536;
    for (unsigned threads = 0; threads <= 4; threads++) {
        assert_int_equal(verify(sample.reader, false, threads, &problems, &report), CLLM_OK);
        assert_int_equal(report.tensor_count, 4);
        assert_int_equal(report.file_count, 3);
        assert_int_equal(report.chunk_count, 1 + 2 * weight_chunks + 3 + 5);
        assert_int_equal(report.decoded_bytes, sample.file_bytes[0] + sample.file_bytes[1]);
        assert_true(report.stored_bytes > 0 && report.stored_bytes < report.decoded_bytes);
        assert_int_equal(verify(sample.reader, true, threads, &problems, &report), CLLM_OK);
        assert_int_equal(report.decoded_bytes, 0);
        assert_int_equal(report.chunk_count, 1 + weight_chunks + 3 + 5); /* what is there twice is read once */
        assert_int_equal(report.file_count, 3);
    }
    test_sample_close(&sample);
}

static void test_verify_goes_on_after_a_problem(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct problems problems;
    struct cllm_verify_report report;
    test_sample_damage(&sample, TEST_SAMPLE_WEIGHTS, 2);
    test_sample_damage(&sample, TEST_SAMPLE_WEIGHTS, 30);
    test_sample_damage(&sample, TEST_SAMPLE_TEXT, 4);
    for (unsigned quick = 0; quick < 2; quick++) {
        for (unsigned threads = 1; threads <= 4; threads++) {
            assert_int_equal(verify(sample.reader, quick, threads, &problems, &report), CLLM_E_DIGEST);
            assert_int_equal(problems.count, (quick ? 1 : 2) * 2 + 1); /* the weights are part of model.bin twice */
            assert_non_null(strstr(problems.first.message, "tensor \"weights\", chunk 2,"));
            assert_non_null(strstr(problems.last.message, "file \"notes/text\", chunk 4,"));
            assert_int_equal(report.tensor_count, 2);
            assert_int_equal(report.file_count, 1);
        }
    }
    test_sample_close(&sample);
}

/* ------------------------------------------------------------------------------------------------------- several files */

/* Eight files of a megabyte each, of one data object each: large enough beside each other to be verified side by side. */
enum { SIDE_FILES = 8, SIDE_BYTES = 1 << 20 };

static void write_files(const char *path, uint32_t file_count, size_t file_bytes)
{
    struct test_random random = {7};
    uint8_t *bytes = malloc(file_count * file_bytes);
    TEST_REQUIRE(bytes != NULL, NULL);
    test_random_fill(&random, bytes, file_count * file_bytes);
    test_container_of_files(path, bytes, file_count, file_bytes);
    free(bytes);
}

static void write_side_by_side(const char *path)
{
    write_files(path, SIDE_FILES, SIDE_BYTES);
}

static void test_problems_come_in_the_order_of_files_from_any_number_of_threads(void **state)
{
    (void)state;
    struct test_dir dir = test_dir_create();
    struct test_sample sample = {.path = test_dir_path(&dir, "side.cllm")};
    write_side_by_side(sample.path);
    assert_int_equal(cllm_reader_open(sample.path, &sample.reader, NULL), CLLM_OK);
    for (unsigned threads = 1; threads <= 8; threads++) {
        struct problems problems;
        struct cllm_verify_report report;
        assert_int_equal(verify(sample.reader, false, threads, &problems, &report), CLLM_OK);
        assert_int_equal(report.rehashed_count, SIDE_FILES);
        assert_int_equal(report.decoded_bytes, SIDE_FILES * SIDE_BYTES);
    }
    for (uint32_t i = 1; i < SIDE_FILES; i += 2) test_sample_damage(&sample, i, i);
    for (unsigned threads = 1; threads <= 8; threads++) {
        struct problems problems;
        struct cllm_verify_report report;
        assert_int_equal(verify(sample.reader, false, threads, &problems, &report), CLLM_E_DIGEST);
        assert_int_equal(problems.count, 4);
        assert_non_null(strstr(problems.first.message, "file \"f1\", chunk 1,"));
        assert_non_null(strstr(problems.last.message, "file \"f7\", chunk 7,"));
        assert_int_equal(report.file_count, 4);
    }
    cllm_reader_close(sample.reader);
    test_dir_remove(&dir);
}

static bool stop_after_some(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    uint64_t *last = user;
    assert_true(done_bytes >= *last && done_bytes <= total_bytes);
    assert_true(*last < 2000000); /* who said stop is not asked again */
    *last = done_bytes;
    return done_bytes < 2000000;
}

static bool go_on(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    uint64_t *last = user;
    assert_true(done_bytes >= *last && done_bytes <= total_bytes);
    *last = done_bytes;
    return true;
}

static void test_verify_reports_progress_and_can_be_interrupted(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct cllm_verify_report report;
    for (unsigned threads = 1; threads <= 3; threads++) {
        uint64_t last = 0;
        struct cllm_progress progress = {stop_after_some, &last};
        struct cllm_verify_options options = {.thread_count = threads, .progress = &progress};
        assert_int_equal(cllm_verify(sample.reader, &options, &report, NULL), CLLM_E_INTERRUPTED);
        assert_true(report.file_count == 0 && report.tensor_count == 0);
        last = 0;
        progress.report = go_on;
        assert_int_equal(cllm_verify(sample.reader, &options, &report, NULL), CLLM_OK);
        assert_int_equal(last, sample.file_bytes[0] + sample.file_bytes[1]);
    }
    test_sample_close(&sample);
}

static void test_side_by_side_can_be_interrupted(void **state)
{
    (void)state;
    struct test_dir dir = test_dir_create();
    const char *path = test_dir_path(&dir, "side.cllm");
    struct cllm_reader *reader;
    struct cllm_verify_report report;
    write_side_by_side(path);
    assert_int_equal(cllm_reader_open(path, &reader, NULL), CLLM_OK);
    for (unsigned threads = 1; threads <= 8; threads++) {
        uint64_t last = 0;
        struct cllm_progress progress = {stop_after_some, &last};
        const struct cllm_verify_options options = {.thread_count = threads, .progress = &progress};
        enum cllm_status status = cllm_verify(reader, &options, &report, NULL);
        assert_true(status == CLLM_E_INTERRUPTED); /* the last report, of all bytes, is one too */
        last = 0;
        progress.report = go_on;
        assert_int_equal(cllm_verify(reader, &options, &report, NULL), CLLM_OK);
        assert_int_equal(last, SIDE_FILES * SIDE_BYTES);
    }
    cllm_reader_close(reader);
    test_dir_remove(&dir);
}

/* What cllm_restore_files gives away, file by file. */
struct file_received {
    uint8_t *bytes;
    size_t byte_count;
    bool ended;
};

struct all_received {
    const struct cllm_index *index;
    struct file_received files[SIDE_FILES];
    uint32_t full_file; /* the writes to this one fail */
    uint32_t lost_file; /* its end fails */
};

static enum cllm_status receive_of_file(void *user, uint32_t file_index, const void *bytes, size_t byte_count,
                                        struct cllm_error *err)
{
    struct all_received *all = user;
    struct file_received *file = &all->files[file_index];
    if (file_index == all->full_file) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "no room");
    TEST_REQUIRE(!file->ended && byte_count <= all->index->files[file_index].bytes - file->byte_count, NULL);
    memcpy(file->bytes + file->byte_count, bytes, byte_count);
    file->byte_count += byte_count;
    return CLLM_OK;
}

static enum cllm_status end_of_file(void *user, uint32_t file_index, struct cllm_error *err)
{
    struct all_received *all = user;
    struct file_received *file = &all->files[file_index];
    TEST_REQUIRE(!file->ended && file->byte_count == all->index->files[file_index].bytes, NULL);
    file->ended = true;
    return file_index == all->lost_file ? cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "lost") : CLLM_OK;
}

static struct all_received prepare_to_receive(const struct cllm_reader *reader)
{
    struct all_received all = {.index = cllm_reader_index(reader), .full_file = UINT32_MAX, .lost_file = UINT32_MAX};
    for (uint32_t i = 0; i < all.index->file_count; i++) {
        all.files[i].bytes = malloc((size_t)all.index->files[i].bytes + 1);
        TEST_REQUIRE(all.files[i].bytes != NULL, NULL);
    }
    return all;
}

static void free_received(struct all_received *all)
{
    for (uint32_t i = 0; i < SIDE_FILES; i++) free(all->files[i].bytes);
}

static enum cllm_status restore_all(const struct cllm_reader *reader, unsigned threads, const struct cllm_progress *progress,
                                    struct all_received *all, struct cllm_error *err)
{
    const struct cllm_file_sink sink = {receive_of_file, end_of_file, all};
    const struct cllm_restore_options options = {.thread_count = threads, .progress = progress};
    for (uint32_t i = 0; i < SIDE_FILES; i++) all->files[i] = (struct file_received){.bytes = all->files[i].bytes};
    return cllm_restore_files(reader, &sink, &options, err);
}

static void test_all_files_are_restored(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct all_received all = prepare_to_receive(sample.reader);
    for (unsigned threads = 0; threads <= 4; threads++) {
        uint64_t last = 0;
        const struct cllm_progress progress = {go_on, &last};
        assert_int_equal(restore_all(sample.reader, threads, &progress, &all, NULL), CLLM_OK);
        for (unsigned i = 0; i < 3; i++) {
            assert_true(all.files[i].ended);
            assert_int_equal(all.files[i].byte_count, sample.file_bytes[i]);
            assert_memory_equal(all.files[i].bytes, sample.files[i], sample.file_bytes[i]);
        }
        assert_int_equal(last, sample.file_bytes[0] + sample.file_bytes[1] + sample.file_bytes[2]);
    }
    free_received(&all);
    test_sample_close(&sample);
}

/* Whatever the number of threads, and however far others are. */
static void test_restoring_side_by_side_ends_with_the_first_failure(void **state)
{
    (void)state;
    struct test_dir dir = test_dir_create();
    struct test_sample sample = {.path = test_dir_path(&dir, "side.cllm")};
    struct cllm_error err;
    write_side_by_side(sample.path);
    assert_int_equal(cllm_reader_open(sample.path, &sample.reader, NULL), CLLM_OK);
    struct all_received all = prepare_to_receive(sample.reader);
    for (unsigned threads = 1; threads <= 8; threads++) {
        uint64_t last = 0;
        struct cllm_progress progress = {stop_after_some, &last};
        assert_int_equal(restore_all(sample.reader, threads, NULL, &all, &err), CLLM_OK);
        for (unsigned i = 0; i < SIDE_FILES; i++) assert_true(all.files[i].ended);
        assert_int_equal(restore_all(sample.reader, threads, &progress, &all, &err), CLLM_E_INTERRUPTED);
        all.full_file = 2;
        assert_int_equal(restore_all(sample.reader, threads, NULL, &all, &err), CLLM_E_IO);
        assert_string_equal(err.message, "no room");
        assert_true(!all.files[2].ended);
        all.full_file = UINT32_MAX;
        all.lost_file = 6;
        assert_int_equal(restore_all(sample.reader, threads, NULL, &all, &err), CLLM_E_IO);
        assert_string_equal(err.message, "lost");
        all.lost_file = UINT32_MAX;
    }
    for (uint32_t i = 3; i < SIDE_FILES; i += 2) test_sample_damage(&sample, i, 15 - i); /* later files fail sooner */
    for (unsigned threads = 1; threads <= 8; threads++) {
        assert_int_equal(restore_all(sample.reader, threads, NULL, &all, &err), CLLM_E_DIGEST);
        assert_non_null(strstr(err.message, "file \"f3\", chunk 12,"));
        for (unsigned i = 0; i < 3; i++) assert_true(all.files[i].ended);
        for (unsigned i = 3; i < SIDE_FILES; i += 2) assert_false(all.files[i].ended);
    }
    free_received(&all);
    cllm_reader_close(sample.reader);
    test_dir_remove(&dir);
}

/* Four files of eight runs each, some of them slow. */
enum { LONG_FILES = 4, LONG_BYTES = 8 << 20 };

struct slow_sink {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned begun, writes_after; /* files with a write; writes after the failure */
    bool has_begun[LONG_FILES];
    bool failed;
    bool alone;        /* waited in vain */
    unsigned wait_for; /* that many files have begun before a write returns */
    unsigned fails;    /* writes to this file fail, once all wait_for have begun */
    unsigned slow;     /* files before this one take their time */
};

static void begin_file(struct slow_sink *sink, uint32_t file_index)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 20;
    sink->begun += !sink->has_begun[file_index];
    sink->has_begun[file_index] = true;
    pthread_cond_broadcast(&sink->changed);
    while (!sink->alone && sink->begun < sink->wait_for) {
        if (pthread_cond_timedwait(&sink->changed, &sink->lock, &end) != 0) sink->alone = true;
    }
}

static void take_time(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

static enum cllm_status write_slowly(void *user, uint32_t file_index, const void *bytes, size_t byte_count,
                                     struct cllm_error *err)
{
    struct slow_sink *sink = user;
    (void)bytes;
    TEST_REQUIRE(byte_count > 0, NULL);
    pthread_mutex_lock(&sink->lock);
    begin_file(sink, file_index);
    const bool fails = file_index == sink->fails, slow = file_index < sink->slow && !fails;
    sink->writes_after += sink->failed;
    sink->failed |= fails;
    pthread_mutex_unlock(&sink->lock);
    if (slow) take_time();
    return fails ? cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "no room") : CLLM_OK;
}

static struct slow_sink restore_slowly(const struct cllm_reader *reader, struct slow_sink settings, enum cllm_status expected,
                                       struct cllm_error *err)
{
    struct slow_sink sink = settings;
    const struct cllm_file_sink files = {.write = write_slowly, .user = &sink};
    const struct cllm_restore_options options = {.thread_count = LONG_FILES};
    pthread_mutex_init(&sink.lock, NULL);
    pthread_cond_init(&sink.changed, NULL);
    assert_int_equal(cllm_restore_files(reader, &files, &options, err), expected);
    pthread_cond_destroy(&sink.changed);
    pthread_mutex_destroy(&sink.lock);
    return sink;
}

static void test_long_files_are_restored_at_the_same_time(void **state)
{
    (void)state;
    struct test_dir dir = test_dir_create();
    struct test_sample sample = {.path = test_dir_path(&dir, "long.cllm")};
    struct cllm_error err;
    write_files(sample.path, LONG_FILES, LONG_BYTES);
    assert_int_equal(cllm_reader_open(sample.path, &sample.reader, NULL), CLLM_OK);
    /* no write returns before all files have begun, and the wait for that is bounded */
    const struct slow_sink all =
        restore_slowly(sample.reader, (struct slow_sink){.wait_for = LONG_FILES, .fails = LONG_FILES}, CLLM_OK, &err);
    assert_false(all.alone);
    assert_int_equal(all.begun, LONG_FILES);
    /* the others end with what they are at when one has failed, long before they are through: 7 writes of 20 ms each */
    const struct slow_sink one = restore_slowly(
        sample.reader, (struct slow_sink){.wait_for = LONG_FILES, .fails = 1, .slow = LONG_FILES}, CLLM_E_IO, &err);
    assert_string_equal(err.message, "no room");
    assert_true(one.writes_after <= 5 * (LONG_FILES - 1));
    /* the first damaged file's failure, although the last one's is found long before */
    test_sample_damage(&sample, 1, 100);
    test_sample_damage(&sample, 3, 0);
    (void)restore_slowly(sample.reader, (struct slow_sink){.fails = LONG_FILES, .slow = 3}, CLLM_E_DIGEST, &err);
    assert_non_null(strstr(err.message, "file \"f1\", chunk 100,"));
    cllm_reader_close(sample.reader);
    test_dir_remove(&dir);
}

/* The difference between the two kinds of verifying: checksums that are right over content that is wrong. */
static void test_quick_verify_checks_stored_bytes_only(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum cllm_status full, quick;
    } cases[] = {
        {"fixtures/bad-content-raw.cllm", CLLM_E_DIGEST, CLLM_OK},
        {"fixtures/bad-content-float.cllm", CLLM_E_DIGEST, CLLM_OK},
        {"fixtures/bad-data-root.cllm", CLLM_E_DIGEST, CLLM_OK},
        {"fixtures/bad-file-digest.cllm", CLLM_E_DIGEST, CLLM_OK},
        {"fixtures/bad-float-border.cllm", CLLM_E_CORRUPT, CLLM_OK},
        {"fixtures/unsupported-form.cllm", CLLM_E_UNSUPPORTED, CLLM_OK},
        {"fixtures/bad-chunk-checksum.cllm", CLLM_E_DIGEST, CLLM_E_DIGEST},
        {"fixtures/bad-chunk-padding.cllm", CLLM_E_CORRUPT, CLLM_E_CORRUPT},
        {"fixtures/bad-gap.cllm", CLLM_E_CORRUPT, CLLM_E_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cllm_reader *reader;
        struct problems problems;
        struct cllm_verify_report report;
        assert_int_equal(cllm_reader_open(cases[i].path, &reader, NULL), CLLM_OK);
        assert_int_equal(verify(reader, false, 2, &problems, &report), cases[i].full);
        assert_int_equal(problems.count, 1);
        assert_int_equal(verify(reader, true, 2, &problems, &report), cases[i].quick);
        cllm_reader_close(reader);
    }
}

static void test_restore_checks_content_too(void **state)
{
    (void)state;
    static const char *const paths[] = {"fixtures/bad-content-raw.cllm", "fixtures/bad-content-float.cllm",
                                        "fixtures/bad-data-root.cllm", "fixtures/bad-file-digest.cllm"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct cllm_reader *reader;
        uint8_t *bytes;
        size_t byte_count;
        assert_int_equal(cllm_reader_open(paths[i], &reader, NULL), CLLM_OK);
        const struct cllm_file *file = cllm_reader_find_file(reader, "model.bin");
        assert_int_equal(cllm_load_file(reader, file, 1000, &bytes, &byte_count, NULL), CLLM_E_DIGEST);
        assert_null(bytes);
        cllm_reader_close(reader);
    }
}

/* Three buffers of each run share 1 GiB; one of the objects decides. */
static void test_large_chunks_leave_room_for_few_runs(void **state)
{
    (void)state;
    struct cllm_data data[] = {{.decoded_bytes = 1 << 20, .chunk_bytes = 1 << 16, .chunk_count = 16},
                               {.decoded_bytes = 1000, .chunk_bytes = 1 << 24, .chunk_count = 1}};
    const struct cllm_index index = {.data = data, .data_count = 2};
    assert_int_equal(cllm_walk_jobs_max(&index, NULL), 341);
    data[1].decoded_bytes = 1 << 24;
    assert_int_equal(cllm_walk_jobs_max(&index, NULL), 21);
    data[1] = (struct cllm_data){.decoded_bytes = 1 << 25, .chunk_bytes = 1 << 23, .chunk_count = 4};
    assert_int_equal(cllm_walk_jobs_max(&index, NULL), 42);
    data[1] = (struct cllm_data){.decoded_bytes = 1 << 25, .chunk_bytes = 1 << 17, .chunk_count = 256}; /* as F32 has */
    assert_int_equal(cllm_walk_jobs_max(&index, NULL), 170);
    struct cllm_engine engine = {.run_bytes = 1 << 24, .lane_count = 32};
    assert_int_equal(cllm_walk_jobs_max(&index, &engine), 21);
    engine.lane_count = 5;
    assert_int_equal(cllm_walk_jobs_max(&index, &engine), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restore_gives_each_file_in_order),
        cmocka_unit_test(test_restore_stops_at_the_first_damaged_run),
        cmocka_unit_test(test_restore_passes_on_what_the_sink_says),
        cmocka_unit_test(test_verify_counts_what_it_checked),
        cmocka_unit_test(test_verify_goes_on_after_a_problem),
        cmocka_unit_test(test_problems_come_in_the_order_of_files_from_any_number_of_threads),
        cmocka_unit_test(test_side_by_side_can_be_interrupted),
        cmocka_unit_test(test_verify_reports_progress_and_can_be_interrupted),
        cmocka_unit_test(test_quick_verify_checks_stored_bytes_only),
        cmocka_unit_test(test_large_chunks_leave_room_for_few_runs),
        cmocka_unit_test(test_all_files_are_restored),
        cmocka_unit_test(test_restoring_side_by_side_ends_with_the_first_failure),
        cmocka_unit_test(test_long_files_are_restored_at_the_same_time),
        cmocka_unit_test(test_restore_checks_content_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

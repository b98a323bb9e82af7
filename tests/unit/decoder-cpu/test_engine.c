/* Verifying and restoring with an engine. The engine of these tests decodes on the CPU, after the fact, and fails where it is
 * told to: what is tested is that its work is used, checked, and done again where it fails. */
#include "cllm_decode.h"

#include "container_sample.h"
#include "digest.h"
#include "reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RUN_BYTES (256u << 10)
#define LANES 5u

struct fake {
    struct cllm_engine engine;
    uint64_t start_fails_after; /* that many runs */
    uint64_t finish_fails_after;
    bool lies; /* gives wrong digests and wrong bytes */
    atomic_ullong started, finished, lanes, most_lanes;
    bool keeps_bytes; /* says that a run is done, but does not give its bytes */
};

struct lane {
    struct cllm_engine_run run;
    uint8_t *decoded;
    bool busy;
};

static enum cllm_status create_lane(void *user, void **lane_out, struct cllm_error *err)
{
    (void)err;
    struct fake *fake = user;
    unsigned long long lanes = ++fake->lanes, most = fake->most_lanes;
    while (lanes > most && !atomic_compare_exchange_weak(&fake->most_lanes, &most, lanes)) continue;
    *lane_out = calloc(1, sizeof(struct lane));
    return *lane_out ? CLLM_OK : CLLM_E_NOMEM;
}

static void destroy_lane(void *user, void *lane_memory)
{
    struct fake *fake = user;
    struct lane *lane = lane_memory;
    fake->lanes--;
    free(lane->decoded);
    free(lane);
}

static bool takes(void *user, const struct cllm_chunk *chunk)
{
    (void)user;
    return chunk->form == CLLM_FORM_FLOAT;
}

static enum cllm_status start(void *user, void *lane_memory, const struct cllm_engine_run *run, struct cllm_error *err)
{
    struct fake *fake = user;
    struct lane *lane = lane_memory;
    TEST_REQUIRE(!lane->busy && run->chunk_count > 0, NULL);
    if (fake->started++ >= fake->start_fails_after) return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET, "no start");
    lane->run = *run;
    lane->busy = true;
    return CLLM_OK;
}

static enum cllm_status decode_lane(struct lane *lane, uint8_t *leaves, struct cllm_error *err)
{
    const struct cllm_engine_run *run = &lane->run;
    const struct cllm_data *data = &cllm_reader_index(run->reader)->data[run->data_index];
    struct cllm_decoder *decoder = NULL;
    uint8_t *stored = malloc(RUN_BYTES);
    free(lane->decoded);
    lane->decoded = malloc((size_t)run->chunk_count * data->chunk_bytes);
    TEST_REQUIRE(stored && lane->decoded && cllm_decoder_create(&decoder, NULL) == CLLM_OK, NULL);
    enum cllm_status status = CLLM_OK;
    for (uint32_t k = 0; k < run->chunk_count && !status; k++) {
        const struct cllm_chunk *chunk = &data->chunks[run->first_chunk + k];
        uint8_t *out = lane->decoded + (size_t)k * data->chunk_bytes;
        status = cllm_reader_read_chunk(run->reader, run->data_index, run->first_chunk + k, stored, RUN_BYTES, err);
        if (!status) status = cllm_decode_chunk(decoder, data, chunk, stored, out, err);
        if (!status) status = cllm_sha256(out, chunk->decoded_bytes, leaves + 32 * (size_t)k, err);
    }
    cllm_decoder_destroy(decoder);
    free(stored);
    return status;
}

static enum cllm_status finish(void *user, void *lane_memory, uint8_t *leaves_out, const uint8_t **decoded_out,
                               struct cllm_error *err)
{
    struct fake *fake = user;
    struct lane *lane = lane_memory;
    TEST_REQUIRE(lane->busy, NULL);
    lane->busy = false;
    if (fake->finished++ >= fake->finish_fails_after) return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET, "no finish");
    enum cllm_status status = decode_lane(lane, leaves_out, err);
    if (!status && fake->lies) (lane->run.bytes ? lane->decoded : leaves_out)[5] ^= 1;
    if (!status && lane->run.bytes && !fake->keeps_bytes) *decoded_out = lane->decoded;
    return status;
}

static void init_fake(struct fake *fake)
{
    memset(fake, 0, sizeof *fake);
    fake->start_fails_after = fake->finish_fails_after = UINT64_MAX;
    fake->engine = (struct cllm_engine){fake, "a fake", RUN_BYTES, LANES, create_lane, destroy_lane, takes, start, finish};
}

static enum cllm_status verify_with(const struct fake *fake, const struct cllm_reader *reader, unsigned threads,
                                    struct cllm_verify_report *report, struct cllm_error *err)
{
    const struct cllm_verify_options options = {.thread_count = threads, .engine = &fake->engine};
    return cllm_verify(reader, &options, report, err);
}

static void test_engine_verifies_what_it_takes_once(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    for (unsigned threads = 1; threads <= 7; threads += 2) {
        struct fake fake;
        struct cllm_verify_report report;
        init_fake(&fake);
        assert_int_equal(verify_with(&fake, sample.reader, threads, &report, NULL), CLLM_OK);
        assert_int_equal(report.engine_bytes,
                         sample.data_bytes[TEST_SAMPLE_WEIGHTS]); /* two parts of a file, gone through once */
        assert_int_equal(report.file_count, 3);
        assert_int_equal(report.rehashed_count, 2); /* all bytes of the two others came by */
        assert_int_equal(report.tensor_count, 4);
        assert_int_equal(fake.lanes, 0);
    }
    test_sample_close(&sample);
}

/* Whatever the engine fails on, and whenever, the outcome is the same as without it. */
static void test_engine_that_fails_is_stood_in_for(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    for (unsigned good = 0; good < 12; good += 3) {
        for (unsigned at_finish = 0; at_finish < 2; at_finish++) {
            struct fake fake;
            struct cllm_verify_report report;
            init_fake(&fake);
            *(at_finish ? &fake.finish_fails_after : &fake.start_fails_after) = good;
            assert_int_equal(verify_with(&fake, sample.reader, 3, &report, NULL), CLLM_OK);
            assert_int_equal(report.engine_bytes, (uint64_t)good * RUN_BYTES);
            assert_int_equal(report.file_count, 3);
            assert_int_equal(fake.lanes, 0);
        }
    }
    test_sample_close(&sample);
}

static void test_engine_changes_no_verdict(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct cllm_verify_report report;
    struct cllm_error err;
    struct fake fake;
    init_fake(&fake);
    fake.lies = true;
    assert_int_equal(verify_with(&fake, sample.reader, 3, &report, &err), CLLM_E_DIGEST);
    assert_non_null(strstr(err.message, "tensor \"weights\": decoded bytes do not have"));
    assert_int_equal(report.file_count, 2);
    test_sample_damage(&sample, TEST_SAMPLE_WEIGHTS, 21);
    init_fake(&fake);
    assert_int_equal(verify_with(&fake, sample.reader, 3, &report, &err), CLLM_E_DIGEST);
    assert_non_null(strstr(err.message, "tensor \"weights\", chunk 21,"));
    assert_int_equal(report.problem_count, 1);
    assert_int_equal(report.tensor_count, 2);
    test_sample_close(&sample);
}

/* ----------------------------------------------------------------------------------------------------------- restoring */

static enum cllm_status compare(void *user, const void *bytes, size_t byte_count, struct cllm_error *err)
{
    const uint8_t **at = user;
    if (memcmp(*at, bytes, byte_count) != 0) return cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "other bytes");
    *at += byte_count;
    return CLLM_OK;
}

static enum cllm_status restore_with(const struct fake *fake, const struct test_sample *sample, uint64_t *engine_bytes)
{
    const uint8_t *at = sample->files[0];
    const struct cllm_sink sink = {compare, &at};
    const struct cllm_restore_options options = {.thread_count = 3, .engine = &fake->engine, .engine_bytes = engine_bytes};
    enum cllm_status status =
        cllm_restore_file(sample->reader, &cllm_reader_index(sample->reader)->files[0], &sink, &options, NULL);
    if (!status) assert_int_equal(at - sample->files[0], sample->file_bytes[0]);
    return status;
}

static void test_engine_restores_and_everything_is_hashed_here(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct fake fake;
    uint64_t engine_bytes = 0;
    init_fake(&fake);
    assert_int_equal(restore_with(&fake, &sample, &engine_bytes), CLLM_OK);
    assert_int_equal(engine_bytes, 2 * sample.data_bytes[TEST_SAMPLE_WEIGHTS]);
    init_fake(&fake);
    fake.finish_fails_after = 4;
    engine_bytes = 0;
    assert_int_equal(restore_with(&fake, &sample, &engine_bytes), CLLM_OK);
    assert_int_equal(engine_bytes, 4 * RUN_BYTES);
    init_fake(&fake);
    fake.keeps_bytes = true;
    engine_bytes = 0;
    assert_int_equal(restore_with(&fake, &sample, &engine_bytes), CLLM_OK);
    assert_int_equal(engine_bytes, 0);
    init_fake(&fake);
    fake.lies = true;
    assert_int_not_equal(restore_with(&fake, &sample, NULL), CLLM_OK);
    assert_int_equal(fake.lanes, 0);
    test_sample_close(&sample);
}

/* ---------------------------------------------------------------------------------------------------- files side by side */

enum { SIDE_FILES = 4, SIDE_BYTES = 2 << 20 };

static bool takes_raw(void *user, const struct cllm_chunk *chunk)
{
    (void)user;
    return chunk->form == CLLM_FORM_RAW;
}

struct side {
    uint8_t *bytes; /* of all files */
    size_t received[SIDE_FILES];
};

static enum cllm_status compare_file(void *user, uint32_t file_index, const void *bytes, size_t byte_count,
                                     struct cllm_error *err)
{
    struct side *side = user;
    const uint8_t *expected = side->bytes + (size_t)file_index * SIDE_BYTES + side->received[file_index];
    if (memcmp(expected, bytes, byte_count) != 0) return cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "other bytes");
    side->received[file_index] += byte_count;
    return CLLM_OK;
}

static void write_side(const char *path, struct side *side)
{
    struct test_random random = {7};
    side->bytes = malloc((size_t)SIDE_FILES * SIDE_BYTES);
    TEST_REQUIRE(side->bytes != NULL, NULL);
    test_random_fill(&random, side->bytes, (size_t)SIDE_FILES * SIDE_BYTES);
    test_container_of_files(path, side->bytes, SIDE_FILES, SIDE_BYTES);
}

/* They share the engine's lanes, as far as these go. */
static void test_files_side_by_side_share_an_engine(void **state)
{
    (void)state;
    struct test_dir dir = test_dir_create();
    struct side side;
    struct cllm_reader *reader;
    const char *path = test_dir_path(&dir, "side.cllm");
    write_side(path, &side);
    assert_int_equal(cllm_reader_open(path, &reader, NULL), CLLM_OK);
    for (unsigned threads = 1; threads <= 8; threads++) {
        for (unsigned lanes = 1; lanes <= 9; lanes += 4) {
            struct fake fake;
            uint64_t engine_bytes = 0;
            init_fake(&fake);
            fake.engine.takes = takes_raw;
            fake.engine.lane_count = lanes;
            fake.finish_fails_after = threads % 3 ? UINT64_MAX : 9;
            memset(side.received, 0, sizeof side.received);
            const struct cllm_file_sink sink = {.write = compare_file, .user = &side};
            const struct cllm_restore_options options = {
                .thread_count = threads, .engine = &fake.engine, .engine_bytes = &engine_bytes};
            assert_int_equal(cllm_restore_files(reader, &sink, &options, NULL), CLLM_OK);
            for (unsigned i = 0; i < SIDE_FILES; i++) assert_int_equal(side.received[i], SIDE_BYTES);
            assert_int_equal(engine_bytes, threads % 3 ? (uint64_t)SIDE_FILES * SIDE_BYTES : 9 * (uint64_t)RUN_BYTES);
            assert_int_equal(fake.lanes, 0);
            assert_true(fake.most_lanes >= 1 && fake.most_lanes <= lanes);
        }
    }
    free(side.bytes);
    cllm_reader_close(reader);
    test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_verifies_what_it_takes_once),
        cmocka_unit_test(test_engine_that_fails_is_stood_in_for),
        cmocka_unit_test(test_engine_changes_no_verdict),
        cmocka_unit_test(test_engine_restores_and_everything_is_hashed_here),
        cmocka_unit_test(test_files_side_by_side_share_an_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

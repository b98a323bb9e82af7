/* What the pipeline promises: order, the earliest failure, and the same outcome for any number of threads. */
#include "pipeline.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define NEVER UINT32_MAX

struct run {
    uint32_t piece_count;
    uint32_t prepare_fails_at, work_fails_at, other_work_fails_at, finish_fails_at;
    uint32_t prepared;
    uint32_t finished;
    pthread_t caller;
    atomic_uint worked;
    bool slow; /* earlier pieces take longer, so that later ones are done first */
};

struct job {
    uint32_t piece;
    uint64_t result;
    atomic_bool busy;
};

static enum cllm_status prepare(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    struct run *run = user;
    struct job *job = job_memory;
    assert_true(pthread_equal(pthread_self(), run->caller));
    if (run->prepared == run->prepare_fails_at) return cllm_fail(err, CLLM_E_IO, run->prepared, "prepare %u", run->prepared);
    *more_out = run->prepared < run->piece_count;
    if (!*more_out) return CLLM_OK;
    assert_false(atomic_load(&job->busy));
    job->piece = run->prepared++;
    atomic_store(&job->busy, true);
    return CLLM_OK;
}

static enum cllm_status work(void *user, void *job_memory, struct cllm_error *err)
{
    struct run *run = user;
    struct job *job = job_memory;
    if (run->slow) {
        const struct timespec pause = {0, 200000 * (3 - job->piece % 4)};
        nanosleep(&pause, NULL);
    }
    atomic_fetch_add(&run->worked, 1);
    job->result = (uint64_t)job->piece * job->piece;
    if (job->piece == run->work_fails_at || job->piece == run->other_work_fails_at) {
        return cllm_fail(err, CLLM_E_CORRUPT, job->piece, "work %u", job->piece);
    }
    return CLLM_OK;
}

static enum cllm_status finish(void *user, void *job_memory, struct cllm_error *err)
{
    struct run *run = user;
    struct job *job = job_memory;
    assert_true(pthread_equal(pthread_self(), run->caller));
    assert_int_equal(job->piece, run->finished);
    assert_true(job->result == (uint64_t)job->piece * job->piece);
    atomic_store(&job->busy, false);
    if (job->piece == run->finish_fails_at) return cllm_fail(err, CLLM_E_NOMEM, job->piece, "finish %u", job->piece);
    run->finished++;
    return CLLM_OK;
}

static struct run run_of(uint32_t piece_count)
{
    return (struct run){.piece_count = piece_count,
                        .prepare_fails_at = NEVER,
                        .work_fails_at = NEVER,
                        .other_work_fails_at = NEVER,
                        .finish_fails_at = NEVER,
                        .caller = pthread_self()};
}

static enum cllm_status go(struct run *run, unsigned job_count, unsigned thread_count, struct cllm_error *err)
{
    struct job jobs[16];
    void *pointers[16];
    assert_true(job_count <= 16);
    memset(jobs, 0, sizeof jobs);
    for (unsigned i = 0; i < job_count; i++) pointers[i] = &jobs[i];
    const struct cllm_pipeline pipeline = {run, prepare, work, finish};
    return cllm_pipeline_run(&pipeline, pointers, job_count, thread_count, err);
}

static const struct {
    unsigned jobs, threads;
} shapes[] = {{1, 1}, {4, 1}, {1, 4}, {2, 2}, {3, 8}, {6, 2}, {10, 4}, {16, 3}};
#define SHAPES (sizeof shapes / sizeof shapes[0])

static void test_pipeline_finishes_every_piece_in_order(void **state)
{
    (void)state;
    static const uint32_t counts[] = {0, 1, 2, 7, 300};
    for (size_t s = 0; s < SHAPES; s++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            struct run run = run_of(counts[c]);
            run.slow = counts[c] < 100;
            assert_int_equal(go(&run, shapes[s].jobs, shapes[s].threads, NULL), CLLM_OK);
            assert_int_equal(run.finished, counts[c]);
            assert_int_equal(atomic_load(&run.worked), counts[c]);
        }
    }
}

static void assert_fails(struct run run, enum cllm_status status, uint32_t piece, const char *message)
{
    for (size_t s = 0; s < SHAPES; s++) {
        for (unsigned slow = 0; slow < 2; slow++) {
            struct run copy = run;
            struct cllm_error err = {.message = ""};
            copy.slow = slow;
            assert_int_equal(go(&copy, shapes[s].jobs, shapes[s].threads, &err), status);
            assert_int_equal(err.status, status);
            assert_int_equal(err.offset, piece);
            assert_string_equal(err.message, message);
            assert_int_equal(copy.finished, piece);
        }
    }
}

static void test_pipeline_returns_the_earliest_failure(void **state)
{
    (void)state;
    struct run run = run_of(40);
    run.work_fails_at = 21;
    assert_fails(run, CLLM_E_CORRUPT, 21, "work 21");
    run.other_work_fails_at = 20;
    assert_fails(run, CLLM_E_CORRUPT, 20, "work 20");
    run.prepare_fails_at = 22;
    assert_fails(run, CLLM_E_CORRUPT, 20, "work 20");
    run.finish_fails_at = 19;
    assert_fails(run, CLLM_E_NOMEM, 19, "finish 19");
    run.prepare_fails_at = 18;
    assert_fails(run, CLLM_E_IO, 18, "prepare 18");
    run.work_fails_at = 0;
    assert_fails(run, CLLM_E_CORRUPT, 0, "work 0");
    run.prepare_fails_at = 0;
    assert_fails(run, CLLM_E_IO, 0, "prepare 0");
}

static void test_pipeline_works_without_a_last_step_or_an_error_record(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads < 4; threads++) {
        struct run run = run_of(1);
        struct job job = {0}, other = {0};
        void *pointers[2] = {&job, &other};
        const struct cllm_pipeline pipeline = {&run, prepare, work, NULL};
        assert_int_equal(cllm_pipeline_run(&pipeline, pointers, 2, threads, NULL), CLLM_OK);
        assert_int_equal(atomic_load(&run.worked), 1);
        run = run_of(9);
        run.work_fails_at = 3;
        assert_int_equal(go(&run, 4, threads, NULL), CLLM_E_CORRUPT);
    }
}

static void test_thread_counts_stay_within_bounds(void **state)
{
    (void)state;
    assert_true(cllm_thread_count(0) >= 1);
    assert_int_equal(cllm_thread_count(3), 3);
    assert_int_equal(cllm_thread_count(1000000), 256);
    assert_int_equal(cllm_pipeline_job_count(1), 1);
    assert_true(cllm_pipeline_job_count(2) > 2);
    assert_true(cllm_pipeline_job_count(UINT32_MAX) < 200);
}

/* What a helper is given to do. */
struct task {
    uint32_t number;
    bool fails;
    pthread_t thread;
    uint64_t sum; /* of the numbers so far */
};

static enum cllm_status add_number(void *user, struct cllm_error *err)
{
    struct task *task = user;
    task->thread = pthread_self();
    task->sum += task->number;
    return task->fails ? cllm_fail(err, CLLM_E_IO, task->number, "task %u", task->number) : CLLM_OK;
}

static void test_helper_does_what_it_is_started_with_on_another_thread(void **state)
{
    (void)state;
    struct cllm_helper *helper = NULL;
    struct cllm_error err = {0};
    struct task task = {0};
    assert_int_equal(cllm_helper_create(&helper, &err), CLLM_OK);
    for (uint32_t i = 1; i <= 1000; i++) {
        task.number = i;
        task.fails = i % 7 == 0;
        cllm_helper_start(helper, add_number, &task);
        if (i % 3 == 0) {
            assert_int_equal(cllm_helper_wait(helper, NULL), task.fails ? CLLM_E_IO : CLLM_OK);
        } else if (task.fails) {
            assert_int_equal(cllm_helper_wait(helper, &err), CLLM_E_IO);
            assert_int_equal(err.offset, i);
        } else {
            assert_int_equal(cllm_helper_wait(helper, &err), CLLM_OK);
        }
        assert_false(pthread_equal(task.thread, pthread_self()));
    }
    assert_int_equal(task.sum, 500500);
    cllm_helper_destroy(helper);
    assert_int_equal(cllm_helper_create(&helper, &err), CLLM_OK);
    cllm_helper_destroy(helper); /* which was never started */
    cllm_helper_destroy(NULL);
}

static void test_fresh_memory_is_zeroed(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 15, 16, 17, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *bytes = malloc(sizes[i] + 1);
        assert_non_null(bytes);
        memset(bytes, 0xA5, sizes[i] + 1);
        cllm_zero_fresh(bytes, sizes[i], (unsigned)i);
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(bytes[k], 0);
        assert_int_equal(bytes[sizes[i]], 0xA5);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline_finishes_every_piece_in_order),
        cmocka_unit_test(test_pipeline_returns_the_earliest_failure),
        cmocka_unit_test(test_pipeline_works_without_a_last_step_or_an_error_record),
        cmocka_unit_test(test_thread_counts_stay_within_bounds),
        cmocka_unit_test(test_helper_does_what_it_is_started_with_on_another_thread),
        cmocka_unit_test(test_fresh_memory_is_zeroed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

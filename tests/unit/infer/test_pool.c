/* Every unit is done exactly once, whatever the number of threads, and no two at the same time have one worker's index. */
#include "pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { UNITS_MAX = 1000, THREADS_MAX = 9 };

struct tally {
    atomic_int done[UNITS_MAX];
    atomic_int inside[THREADS_MAX];
    atomic_int faults;
};

static void count_units(void *user, struct cllm_pool_span span)
{
    struct tally *tally = user;
    if (span.worker_index >= THREADS_MAX || atomic_fetch_add(&tally->inside[span.worker_index], 1) != 0) tally->faults++;
    for (size_t i = span.first; i < span.end; i++) {
        atomic_fetch_add(&tally->done[i], 1);
    }
    atomic_fetch_sub(&tally->inside[span.worker_index], 1);
}

static void check_pool(unsigned thread_count)
{
    static struct tally tally;
    struct cllm_pool *pool;
    struct cllm_error err;
    assert_int_equal(cllm_pool_create(thread_count, &pool, &err), CLLM_OK);
    assert_int_equal(cllm_pool_thread_count(pool), thread_count);
    for (size_t job = 0; job < 400; job++) {
        const size_t unit_count = job * 37 % UNITS_MAX;
        memset(&tally, 0, sizeof tally);
        cllm_pool_run(pool, &(struct cllm_pool_job){count_units, &tally, unit_count, 1 + job % 13});
        assert_int_equal(tally.faults, 0);
        for (size_t i = 0; i < UNITS_MAX; i++) {
            assert_int_equal(tally.done[i], i < unit_count);
        }
    }
    cllm_pool_destroy(pool);
}

static void test_every_unit_once(void **state)
{
    (void)state;
    for (unsigned thread_count = 1; thread_count <= THREADS_MAX; thread_count += 2) {
        check_pool(thread_count);
    }
}

static void test_idle_pool_ends(void **state)
{
    (void)state;
    struct cllm_pool *pool;
    assert_int_equal(cllm_pool_create(4, &pool, NULL), CLLM_OK);
    cllm_pool_destroy(pool);
    cllm_pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_unit_once),
        cmocka_unit_test(test_idle_pool_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

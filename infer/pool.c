/* pool.c - a generation pass is hundreds of jobs of some ten microseconds, so waiting threads look for work for a while before
 * they sleep. A job is done when its batches are: a thread that the system does not run just now takes none, and nobody waits
 * for it. The job is written before batches_left says that there is one, and read only by a thread that took a batch, whose
 * end the caller awaits before it writes the next job. */
#include "pool.h"

#include "pipeline.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPIN_COUNT 2000 /* looks before sleeping: some ten microseconds */

struct worker {
    struct cllm_pool *pool;
    pthread_t thread;
    unsigned index;
};

struct cllm_pool {
    struct cllm_pool_job job;
    atomic_size_t batches_left; /* of the job, not taken by anyone yet */
    atomic_size_t batches_done;
    atomic_uint sleeper_count;
    atomic_bool stopping;
    unsigned thread_count;
    unsigned started_count; /* workers whose thread runs; worker 0 is the caller */
    pthread_mutex_t mutex;  /* for sleeping only */
    pthread_cond_t wake;    /* something that a sleeper waits for may have happened */
    struct worker workers[];
};

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

typedef bool pool_condition(struct cllm_pool *pool);

static bool has_work(struct cllm_pool *pool)
{
    return atomic_load(&pool->batches_left) > 0 || atomic_load(&pool->stopping);
}

static bool is_done(struct cllm_pool *pool)
{
    const struct cllm_pool_job *job = &pool->job;
    return atomic_load(&pool->batches_done) == (job->unit_count + job->unit_batch - 1) / job->unit_batch;
}

static void await_condition(struct cllm_pool *pool, pool_condition *condition)
{
    for (int i = 0; i < SPIN_COUNT; i++) {
        if (condition(pool)) return;
        pause_briefly();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeper_count, 1);
    while (!condition(pool)) {
        pthread_cond_wait(&pool->wake, &pool->mutex);
    }
    atomic_fetch_sub(&pool->sleeper_count, 1);
    pthread_mutex_unlock(&pool->mutex);
}

/* After something changed that is awaited. A thread that is about to sleep has either been counted, or will see the change; and
 * the mutex makes sure that it sleeps or has not yet looked. */
static void wake_sleepers(struct cllm_pool *pool)
{
    if (atomic_load(&pool->sleeper_count) == 0) return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void do_batches(struct cllm_pool *pool, unsigned worker_index)
{
    size_t left = atomic_load(&pool->batches_left);
    while (left > 0) {
        if (!atomic_compare_exchange_weak(&pool->batches_left, &left, left - 1)) continue;
        const struct cllm_pool_job *job = &pool->job;
        const size_t first = (left - 1) * job->unit_batch;
        const size_t end = job->unit_count - first < job->unit_batch ? job->unit_count : first + job->unit_batch;
        job->work(job->user, (struct cllm_pool_span){first, end, worker_index});
        atomic_fetch_add(&pool->batches_done, 1);
        left = atomic_load(&pool->batches_left);
    }
}

static void *run_worker(void *user)
{
    struct worker *worker = user;
    struct cllm_pool *pool = worker->pool;
    for (;;) {
        await_condition(pool, has_work);
        if (atomic_load(&pool->stopping)) return NULL;
        do_batches(pool, worker->index);
        wake_sleepers(pool); /* the caller may be one */
    }
}

void cllm_pool_run(struct cllm_pool *pool, const struct cllm_pool_job *job)
{
    if (pool->started_count == 0 || job->unit_count <= job->unit_batch) {
        if (job->unit_count > 0) job->work(job->user, (struct cllm_pool_span){0, job->unit_count, 0});
        return;
    }
    pool->job = *job;
    atomic_store(&pool->batches_done, 0);
    atomic_store(&pool->batches_left, (job->unit_count + job->unit_batch - 1) / job->unit_batch);
    wake_sleepers(pool);
    do_batches(pool, 0);
    await_condition(pool, is_done);
}

enum cllm_status cllm_pool_create(unsigned thread_count, struct cllm_pool **pool_out, struct cllm_error *err)
{
    *pool_out = NULL;
    thread_count = cllm_thread_count(thread_count);
    struct cllm_pool *pool = calloc(1, sizeof *pool + thread_count * sizeof *pool->workers);
    if (!pool) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %u threads", thread_count);
    pool->thread_count = thread_count;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (unsigned i = 1; i < thread_count; i++) {
        struct worker *worker = &pool->workers[i];
        *worker = (struct worker){.pool = pool, .index = i};
        if (pthread_create(&worker->thread, NULL, run_worker, worker) != 0) {
            cllm_pool_destroy(pool);
            return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "the system started %u threads, expected %u", i, thread_count);
        }
        pool->started_count++;
    }
    *pool_out = pool;
    return CLLM_OK;
}

unsigned cllm_pool_thread_count(const struct cllm_pool *pool)
{
    return pool->thread_count;
}

void cllm_pool_destroy(struct cllm_pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->stopping, true);
    wake_sleepers(pool);
    for (unsigned i = 1; i <= pool->started_count; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

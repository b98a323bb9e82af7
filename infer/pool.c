/* pool.c - a generation pass is hundreds of jobs of some ten microseconds, so waiting threads look for work for a while before
 * they sleep; on a busy machine, where looking only takes time from the thread that is waited for, they soon do. */
#include "pool.h"

#include "pipeline.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPIN_COUNT 4000 /* looks before sleeping: some 50 microseconds */

struct worker {
    struct cllm_pool *pool;
    pthread_t thread;
    unsigned index;
};

struct cllm_pool {
    struct cllm_pool_job job;
    atomic_size_t next_unit;
    atomic_uint job_number; /* counts the jobs; a change is the sign to start */
    atomic_uint busy_count; /* workers that have not finished the job */
    atomic_bool stopping;
    unsigned thread_count;
    unsigned started_count; /* workers whose thread runs; worker 0 is the caller */
    pthread_mutex_t mutex;  /* for sleeping only */
    pthread_cond_t wake;    /* job_number or busy_count changed */
    struct worker workers[];
};

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Returns once *value differs from (or, with `until`, equals) `reference`. */
static void await_value(struct cllm_pool *pool, atomic_uint *value, unsigned reference, bool until)
{
    for (int i = 0; i < SPIN_COUNT; i++) {
        if ((atomic_load_explicit(value, memory_order_acquire) == reference) == until) return;
        pause_briefly();
    }
    pthread_mutex_lock(&pool->mutex);
    while ((atomic_load_explicit(value, memory_order_acquire) == reference) != until) {
        pthread_cond_wait(&pool->wake, &pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
}

/* The mutex makes sure that nobody is between looking at the value and going to sleep. */
static void wake_all(struct cllm_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void do_units(struct cllm_pool *pool, unsigned worker_index)
{
    const struct cllm_pool_job *job = &pool->job;
    for (;;) {
        size_t first = atomic_fetch_add_explicit(&pool->next_unit, job->unit_batch, memory_order_relaxed);
        if (first >= job->unit_count) return;
        size_t left = job->unit_count - first;
        job->work(job->user,
                  (struct cllm_pool_span){first, first + (left < job->unit_batch ? left : job->unit_batch), worker_index});
    }
}

static void *run_worker(void *user)
{
    struct worker *worker = user;
    struct cllm_pool *pool = worker->pool;
    for (unsigned seen = 0;; seen++) {
        await_value(pool, &pool->job_number, seen, false);
        if (atomic_load(&pool->stopping)) return NULL;
        do_units(pool, worker->index);
        if (atomic_fetch_sub_explicit(&pool->busy_count, 1, memory_order_acq_rel) == 1) wake_all(pool);
    }
}

void cllm_pool_run(struct cllm_pool *pool, const struct cllm_pool_job *job)
{
    pool->job = *job;
    atomic_store_explicit(&pool->next_unit, 0, memory_order_relaxed);
    if (pool->started_count == 0 || job->unit_count <= job->unit_batch) {
        do_units(pool, 0);
        return;
    }
    atomic_store_explicit(&pool->busy_count, pool->started_count, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->job_number, 1, memory_order_release);
    wake_all(pool);
    do_units(pool, 0);
    await_value(pool, &pool->busy_count, 0, true);
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
    atomic_fetch_add(&pool->job_number, 1);
    wake_all(pool);
    for (unsigned i = 1; i <= pool->started_count; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

/* pool.h - threads that stay, for many short pieces of parallel work one after the other. */
#ifndef CLLM_POOL_H
#define CLLM_POOL_H

#include "cllm.h"

struct cllm_pool;

/* A piece of work: units first to end - 1. `worker_index` is below the pool's thread count and no two calls that run at the same
 * time share it. */
struct cllm_pool_span {
    size_t first;
    size_t end;
    unsigned worker_index;
};
typedef void cllm_pool_work(void *user, struct cllm_pool_span span);

/* `thread_count` threads, that of the caller included; 0: as many as the process may use. On success the pool is owned by the
 * caller (cllm_pool_destroy); on failure `*pool_out` is null. Fails with NOMEM (also where the system starts no more threads). */
enum cllm_status cllm_pool_create(unsigned thread_count, struct cllm_pool **pool_out, struct cllm_error *err) CLLM_MUST_USE;

unsigned cllm_pool_thread_count(const struct cllm_pool *pool);

/* How much there is to do: units, handed out `unit_batch` (at least 1) at a time to whoever is free. */
struct cllm_pool_job {
    cllm_pool_work *work;
    void *user;
    size_t unit_count;
    size_t unit_batch;
};

/* Does all units and returns when they are done; what they wrote is then visible to the caller. One caller at a time. */
void cllm_pool_run(struct cllm_pool *pool, const struct cllm_pool_job *job);

/* Accepts null. */
void cllm_pool_destroy(struct cllm_pool *pool);

#endif

/* pipeline.c - see pipeline.h. */
#include "pipeline.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 256u
#define ZEROING_THREADS_MAX 16u
#define MAX_JOBS 96u /* bounds memory on machines with many cores */

struct slot {
    void *job;
    bool done; /* worked on, waiting to be finished */
    enum cllm_status status;
    struct cllm_error error;
};

/* Slots form a ring: finished <= taken <= prepared, all counted from the start of the run. */
struct ring {
    const struct cllm_pipeline *pipeline;
    pthread_mutex_t lock;
    pthread_cond_t work_ready;
    pthread_cond_t work_done;
    struct slot *slots;
    unsigned slot_count;
    uint64_t prepared;
    uint64_t taken;
    bool closed; /* nothing more will be prepared */
};

unsigned cllm_thread_count(unsigned thread_count)
{
    if (thread_count == 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        thread_count = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
    }
    if (thread_count == 0) return 1;
    return thread_count < MAX_THREADS ? thread_count : MAX_THREADS;
}

unsigned cllm_pipeline_job_count(unsigned thread_count)
{
    unsigned threads = cllm_thread_count(thread_count);
    const unsigned jobs = threads + threads / 2 + 1;
    if (threads == 1) return 1;
    return jobs < MAX_JOBS ? jobs : MAX_JOBS;
}

/* Takes the oldest slot that nobody has, and works on it. The lock is held before and after, not meanwhile. */
static void work_on_next(struct ring *ring)
{
    struct slot *slot = &ring->slots[ring->taken++ % ring->slot_count];
    pthread_mutex_unlock(&ring->lock);
    slot->status = ring->pipeline->work(ring->pipeline->user, slot->job, &slot->error);
    pthread_mutex_lock(&ring->lock);
    slot->done = true;
}

static void *run_worker(void *argument)
{
    struct ring *ring = argument;
    pthread_mutex_lock(&ring->lock);
    for (;;) {
        while (ring->taken == ring->prepared && !ring->closed) pthread_cond_wait(&ring->work_ready, &ring->lock);
        if (ring->taken == ring->prepared) break;
        work_on_next(ring);
        pthread_cond_signal(&ring->work_done);
    }
    pthread_mutex_unlock(&ring->lock);
    return NULL;
}

/* The calling thread is one of those that work, whenever it would have to wait: what has to be done in order comes first, and no
 * more threads run than were asked for. */
static enum cllm_status finish_slot(struct ring *ring, struct slot *slot, struct cllm_error *err)
{
    pthread_mutex_lock(&ring->lock);
    while (!slot->done) {
        if (ring->taken < ring->prepared) work_on_next(ring);
        else pthread_cond_wait(&ring->work_done, &ring->lock);
    }
    pthread_mutex_unlock(&ring->lock);
    if (slot->status) {
        if (err) *err = slot->error;
        return slot->status;
    }
    return ring->pipeline->finish ? ring->pipeline->finish(ring->pipeline->user, slot->job, err) : CLLM_OK;
}

/* The calling thread: keeps the ring full, finishes the oldest slot whenever it is. */
static enum cllm_status feed_ring(struct ring *ring, struct cllm_error *err)
{
    uint64_t finished = 0;
    bool more = true;
    while (more || finished < ring->prepared) {
        if (!more || ring->prepared - finished == ring->slot_count) {
            enum cllm_status status = finish_slot(ring, &ring->slots[finished % ring->slot_count], err);
            if (status) return status;
            finished++;
            continue;
        }
        struct slot *slot = &ring->slots[ring->prepared % ring->slot_count];
        slot->done = false;
        enum cllm_status status = ring->pipeline->prepare(ring->pipeline->user, slot->job, &more, &slot->error);
        if (!status && !more) continue;
        pthread_mutex_lock(&ring->lock);
        if (status) { /* takes its place in the order, so that the earliest failure wins */
            slot->status = status;
            slot->done = true;
            ring->closed = true;
            pthread_mutex_unlock(&ring->lock);
            for (; finished < ring->prepared; finished++) {
                enum cllm_status earlier = finish_slot(ring, &ring->slots[finished % ring->slot_count], err);
                if (earlier) return earlier;
            }
            if (err) *err = slot->error;
            return status;
        }
        ring->prepared++;
        pthread_cond_signal(&ring->work_ready);
        pthread_mutex_unlock(&ring->lock);
    }
    return CLLM_OK;
}

static enum cllm_status run_inline(const struct cllm_pipeline *pipeline, void *job, struct cllm_error *err)
{
    for (;;) {
        bool more = true;
        enum cllm_status status = pipeline->prepare(pipeline->user, job, &more, err);
        if (status || !more) return status;
        status = pipeline->work(pipeline->user, job, err);
        if (!status && pipeline->finish) status = pipeline->finish(pipeline->user, job, err);
        if (status) return status;
    }
}

enum cllm_status cllm_pipeline_run(const struct cllm_pipeline *pipeline, void *const *jobs, unsigned job_count,
                                   unsigned thread_count, struct cllm_error *err)
{
    unsigned wanted = cllm_thread_count(thread_count);
    if (wanted == 1 || job_count == 1) return run_inline(pipeline, jobs[0], err);

    enum cllm_status status = CLLM_OK;
    struct ring ring = {.pipeline = pipeline, .slot_count = job_count};
    pthread_t *threads = calloc(wanted, sizeof *threads);
    unsigned started = 0;
    ring.slots = calloc(job_count, sizeof *ring.slots);
    if (!threads || !ring.slots) {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %u threads", wanted);
        goto out;
    }
    for (unsigned i = 0; i < job_count; i++) ring.slots[i].job = jobs[i];
    pthread_mutex_init(&ring.lock, NULL);
    pthread_cond_init(&ring.work_ready, NULL);
    pthread_cond_init(&ring.work_done, NULL);
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, run_worker, &ring) == 0) started++;
    status = feed_ring(&ring, err); /* which would get there without any other thread, too */

    pthread_mutex_lock(&ring.lock);
    ring.closed = true;
    ring.prepared = ring.taken; /* after a failure: what nobody has started is not started any more */
    pthread_cond_broadcast(&ring.work_ready);
    pthread_mutex_unlock(&ring.lock);
    for (unsigned i = 0; i < started; i++) pthread_join(threads[i], NULL);
    pthread_cond_destroy(&ring.work_done);
    pthread_cond_destroy(&ring.work_ready);
    pthread_mutex_destroy(&ring.lock);
out:
    free(ring.slots);
    free(threads);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ helper */

struct cllm_helper {
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { HELPER_IDLE, HELPER_STARTED, HELPER_ENDS } state;
    cllm_helper_work *work;
    void *user;
    enum cllm_status status;
    struct cllm_error error;
};

static void *run_helper(void *argument)
{
    struct cllm_helper *helper = argument;
    pthread_mutex_lock(&helper->lock);
    while (helper->state != HELPER_ENDS) {
        if (helper->state == HELPER_IDLE) {
            pthread_cond_wait(&helper->changed, &helper->lock);
            continue;
        }
        pthread_mutex_unlock(&helper->lock);
        helper->status = helper->work(helper->user, &helper->error);
        pthread_mutex_lock(&helper->lock);
        helper->state = HELPER_IDLE;
        pthread_cond_broadcast(&helper->changed);
    }
    pthread_mutex_unlock(&helper->lock);
    return NULL;
}

enum cllm_status cllm_helper_create(struct cllm_helper **helper_out, struct cllm_error *err)
{
    struct cllm_helper *helper = *helper_out = calloc(1, sizeof *helper);
    if (!helper) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a thread");
    pthread_mutex_init(&helper->lock, NULL);
    pthread_cond_init(&helper->changed, NULL);
    helper->has_thread = pthread_create(&helper->thread, NULL, run_helper, helper) == 0;
    return CLLM_OK;
}

static void set_state(struct cllm_helper *helper, int state)
{
    pthread_mutex_lock(&helper->lock);
    helper->state = state;
    pthread_cond_broadcast(&helper->changed);
    pthread_mutex_unlock(&helper->lock);
}

void cllm_helper_start(struct cllm_helper *helper, cllm_helper_work *work, void *user)
{
    helper->work = work;
    helper->user = user;
    if (helper->has_thread) set_state(helper, HELPER_STARTED);
    else helper->status = work(user, &helper->error);
}

enum cllm_status cllm_helper_wait(struct cllm_helper *helper, struct cllm_error *err)
{
    pthread_mutex_lock(&helper->lock);
    while (helper->state == HELPER_STARTED) pthread_cond_wait(&helper->changed, &helper->lock);
    pthread_mutex_unlock(&helper->lock);
    if (helper->status && err) *err = helper->error;
    return helper->status;
}

void cllm_helper_destroy(struct cllm_helper *helper)
{
    if (!helper) return;
    if (helper->has_thread) {
        set_state(helper, HELPER_ENDS);
        pthread_join(helper->thread, NULL);
    }
    pthread_cond_destroy(&helper->changed);
    pthread_mutex_destroy(&helper->lock);
    free(helper);
}

/* ------------------------------------------------------------------------------------------------------------ zeroing */

struct stretch {
    uint8_t *bytes;
    size_t byte_count;
};

static void *zero_stretch(void *argument)
{
    const struct stretch *stretch = argument;
    memset(stretch->bytes, 0, stretch->byte_count);
    return NULL;
}

void cllm_zero_fresh(void *bytes, size_t byte_count, unsigned thread_count)
{
    pthread_t threads[ZEROING_THREADS_MAX];
    struct stretch stretches[ZEROING_THREADS_MAX];
    bool started[ZEROING_THREADS_MAX];
    const unsigned all = cllm_thread_count(thread_count), count = all < ZEROING_THREADS_MAX ? all : ZEROING_THREADS_MAX;
    const size_t step = byte_count / count;
    for (unsigned i = 0; i < count; i++) {
        const bool last = i + 1 == count;
        stretches[i] = (struct stretch){(uint8_t *)bytes + i * step, last ? byte_count - i * step : step};
        started[i] = !last && pthread_create(&threads[i], NULL, zero_stretch, &stretches[i]) == 0;
        if (!started[i]) zero_stretch(&stretches[i]);
    }
    for (unsigned i = 0; i < count; i++) {
        if (started[i]) pthread_join(threads[i], NULL);
    }
}

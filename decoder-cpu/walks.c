/* walks.c - see walks.h. */
#include "walks.h"

#include "pipeline.h"
#include "walk.h"

#include <pthread.h>
#include <stdlib.h>

struct walks {
    const struct cllm_walks_options *options;
    const struct cllm_file *files; /* all of the container */
    uint32_t end_file;             /* behind the last one to go through */
    uint64_t total_bytes;
    unsigned walker_count;
    unsigned thread_count; /* of all walkers together, which share them evenly */
    /* Under the lock: */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* for the calling thread: bytes were done, or a walker ended */
    pthread_cond_t turn;    /* for walkers: the oldest file changed, or all shall stop */
    unsigned started;       /* walkers */
    uint32_t next_file;
    uint32_t oldest_file; /* that is not done; the next one to report problems */
    bool *file_done;      /* of those to go through */
    unsigned running;
    bool stopped;
    uint64_t done_bytes;
    struct cllm_verify_report report;
    enum cllm_status status; /* what ended it early */
    struct cllm_error error;
};

/* ----------------------------------------------------------------------------------------------- what the walks ask for */

static enum cllm_status fail_stopped(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
}

static const struct cllm_file *next_file(void *user)
{
    struct walks *all = user;
    pthread_mutex_lock(&all->lock);
    const struct cllm_file *file = all->next_file < all->end_file ? &all->files[all->next_file++] : NULL;
    pthread_mutex_unlock(&all->lock);
    return file;
}

static void stop_all(struct walks *all, enum cllm_status status, const struct cllm_error *error)
{
    if (!all->stopped) {
        all->status = status;
        all->error = *error;
    }
    all->stopped = true;
    pthread_cond_broadcast(&all->turn);
}

/* A walk waits until the files before its own are done. */
static enum cllm_status note_problem(void *user, const struct cllm_file *file, const struct cllm_error *problem,
                                     struct cllm_error *err)
{
    struct walks *all = user;
    const uint32_t file_index = (uint32_t)(file - all->files);
    struct cllm_error failure;
    enum cllm_status status;
    pthread_mutex_lock(&all->lock);
    while (all->oldest_file < file_index && !all->stopped) pthread_cond_wait(&all->turn, &all->lock);
    if (all->stopped) {
        status = fail_stopped(&failure);
    } else {
        all->report.problem_count++;
        status = all->options->problem(all->options->user, problem, &failure);
        if (status) stop_all(all, status, &failure); /* at once, whatever else fails until this walk has ended */
    }
    pthread_mutex_unlock(&all->lock);
    if (status && err) *err = failure;
    return status;
}

static void note_bad_data(void *user, uint32_t data_index)
{
    struct walks *all = user;
    if (!all->options->bad_data) return;
    pthread_mutex_lock(&all->lock);
    all->options->bad_data(all->options->user, data_index);
    pthread_mutex_unlock(&all->lock);
}

static enum cllm_status note_file_end(void *user, const struct cllm_file *file, struct cllm_error *err)
{
    struct walks *all = user;
    const struct cllm_file_sink *sink = all->options->sink;
    const uint32_t file_index = (uint32_t)(file - all->files), first = all->options->first_file;
    const enum cllm_status status = sink && sink->end ? sink->end(sink->user, file_index, err) : CLLM_OK;
    if (status) return status;
    pthread_mutex_lock(&all->lock);
    all->file_done[file_index - first] = true;
    while (all->oldest_file < all->end_file && all->file_done[all->oldest_file - first]) all->oldest_file++;
    pthread_cond_broadcast(&all->turn);
    pthread_mutex_unlock(&all->lock);
    return CLLM_OK;
}

/* Tells the caller how far it is, from the caller's own thread. */
static bool report_progress(const struct walks *all, uint64_t done_bytes)
{
    const struct cllm_progress *progress = all->options->progress;
    return !progress || progress->report(progress->user, done_bytes, all->total_bytes);
}

static enum cllm_status advance(void *user, uint64_t byte_count, struct cllm_error *err)
{
    struct walks *all = user;
    pthread_mutex_lock(&all->lock);
    uint64_t done_bytes = all->done_bytes += byte_count;
    bool stopped = all->stopped;
    pthread_cond_signal(&all->changed);
    pthread_mutex_unlock(&all->lock);
    if (all->walker_count == 1) stopped = !report_progress(all, done_bytes);
    return stopped ? fail_stopped(err) : CLLM_OK;
}

/* ------------------------------------------------------------------------------------------------------------- walkers */

static void add_report(struct cllm_verify_report *total, const struct cllm_verify_report *report)
{
    total->file_count += report->file_count;
    total->rehashed_count += report->rehashed_count;
    total->chunk_count += report->chunk_count;
    total->decoded_bytes += report->decoded_bytes;
    total->engine_bytes += report->engine_bytes;
    total->stored_bytes += report->stored_bytes;
}

static void *run_walker(void *argument)
{
    struct walks *all = argument;
    struct cllm_error error = {0};
    struct cllm_verify_report report;
    const struct cllm_walk_owner owner = {.user = all,
                                          .next_file = next_file,
                                          .problem = note_problem,
                                          .bad_data = note_bad_data,
                                          .end_file = note_file_end,
                                          .advance = advance};
    pthread_mutex_lock(&all->lock);
    const unsigned number = all->started++, more = number < all->thread_count % all->walker_count;
    pthread_mutex_unlock(&all->lock);
    const struct cllm_walk_options options = {.reader = all->options->reader,
                                              .owner = &owner,
                                              .sink = all->options->sink,
                                              .engine = all->options->engine,
                                              .thread_count = all->thread_count / all->walker_count + more,
                                              .walk_count = all->walker_count,
                                              .quick = all->options->quick,
                                              .once = all->options->once};
    enum cllm_status status = cllm_walk(&options, &report, &error);
    pthread_mutex_lock(&all->lock);
    add_report(&all->report, &report);
    if (status) stop_all(all, status, &error);
    all->running--;
    pthread_cond_signal(&all->changed);
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

/* The calling thread, while others walk. */
static void watch_walkers(struct walks *all)
{
    uint64_t reported = 0;
    pthread_mutex_lock(&all->lock);
    for (;;) {
        while (all->running > 0 && (all->stopped || all->done_bytes == reported)) pthread_cond_wait(&all->changed, &all->lock);
        bool more = !all->stopped && all->done_bytes > reported;
        reported = all->done_bytes;
        if (!more) break;
        pthread_mutex_unlock(&all->lock);
        bool go_on = report_progress(all, reported);
        pthread_mutex_lock(&all->lock);
        struct cllm_error error;
        if (!go_on) stop_all(all, fail_stopped(&error), &error);
    }
    pthread_mutex_unlock(&all->lock);
}

/* Side by side as many files as threads, but no more than make a difference: the largest one takes its time anyway. A file that
 * is not hashed as a whole needs no walk of its own. */
static void plan_walkers(struct walks *all)
{
    uint64_t largest_bytes = 0, worthwhile = 1;
    all->thread_count = cllm_thread_count(all->options->thread_count);
    for (uint32_t i = all->options->first_file; i < all->end_file; i++) {
        all->total_bytes += all->files[i].bytes; /* the reader has checked that the sum fits */
        if (all->files[i].bytes > largest_bytes) largest_bytes = all->files[i].bytes;
    }
    if (largest_bytes > 0 && !all->options->once) {
        worthwhile = all->total_bytes / largest_bytes + (all->total_bytes % largest_bytes >= largest_bytes / 2 + 1);
    }
    const unsigned affordable = cllm_walk_jobs_max(cllm_reader_index(all->options->reader), all->options->engine);
    const unsigned most = affordable < all->thread_count ? affordable : all->thread_count;
    all->walker_count = worthwhile < most ? (unsigned)worthwhile : most;
    if (all->walker_count == 0) all->walker_count = 1;
}

static enum cllm_status walk_all(struct walks *all, struct cllm_error *err)
{
    pthread_t *threads = calloc(all->walker_count, sizeof *threads);
    unsigned started = 0;
    if (!threads) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %u threads", all->walker_count);
    all->running = all->walker_count;
    if (all->walker_count > 1) {
        while (started < all->walker_count && pthread_create(&threads[started], NULL, run_walker, all) == 0) started++;
    }
    if (started == 0) {
        all->walker_count = 1;
        run_walker(all);
    } else {
        pthread_mutex_lock(&all->lock);
        all->running -= all->walker_count - started;
        pthread_mutex_unlock(&all->lock);
        watch_walkers(all);
    }
    for (unsigned i = 0; i < started; i++) pthread_join(threads[i], NULL);
    free(threads);
    if (all->status && err) *err = all->error;
    return all->status;
}

enum cllm_status cllm_walks_run(const struct cllm_walks_options *options, struct cllm_verify_report *report_out,
                                struct cllm_error *err)
{
    struct walks all = {.options = options,
                        .files = cllm_reader_index(options->reader)->files,
                        .end_file = options->first_file + options->file_count,
                        .next_file = options->first_file,
                        .oldest_file = options->first_file};
    enum cllm_status status = CLLM_OK;
    pthread_mutex_init(&all.lock, NULL);
    pthread_cond_init(&all.changed, NULL);
    pthread_cond_init(&all.turn, NULL);
    all.file_done = calloc((size_t)options->file_count + 1, sizeof *all.file_done);
    if (!all.file_done) status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for decoding");
    if (!status) plan_walkers(&all);
    if (!status) status = walk_all(&all, err);
    free(all.file_done);
    pthread_cond_destroy(&all.turn);
    pthread_cond_destroy(&all.changed);
    pthread_mutex_destroy(&all.lock);
    *report_out = all.report;
    return status;
}

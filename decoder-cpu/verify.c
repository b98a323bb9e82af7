/* verify.c - all files of a container. The SHA-256 of a file is sequential, so files are gone through side by side, each by a
 * walk of its own, as many at a time as is worth it. */
#include "layout.h"
#include "pipeline.h"
#include "reader.h"
#include "walk.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct verifying {
    const struct cllm_reader *reader;
    const struct cllm_index *index;
    const struct cllm_verify_options *options;
    uint64_t total_bytes;
    unsigned walker_count;
    unsigned threads_each;
    /* Under the lock: */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* for the calling thread: bytes were done, or a walker ended */
    pthread_cond_t turn;    /* for walkers: the oldest file changed, or all shall stop */
    uint32_t next_file;
    uint32_t oldest_file; /* that is not done; the next one to report problems */
    bool *file_done;
    bool *data_bad;
    unsigned running;
    bool stopped;
    uint64_t done_bytes;
    struct cllm_verify_report report;
    struct cllm_error first_problem;
    enum cllm_status status; /* what ended it early */
    struct cllm_error error;
};

/* ----------------------------------------------------------------------------------------------- what the walks ask for */

static const struct cllm_file *next_file(void *user)
{
    struct verifying *all = user;
    pthread_mutex_lock(&all->lock);
    const struct cllm_file *file = all->next_file < all->index->file_count ? &all->index->files[all->next_file++] : NULL;
    pthread_mutex_unlock(&all->lock);
    return file;
}

/* Problems come out in the order of files, whatever the number of threads: a walk waits until those before are done. */
static enum cllm_status note_problem(void *user, const struct cllm_file *file, const struct cllm_error *problem,
                                     struct cllm_error *err)
{
    struct verifying *all = user;
    uint32_t file_index = (uint32_t)(file - all->index->files);
    pthread_mutex_lock(&all->lock);
    while (all->oldest_file < file_index && !all->stopped) pthread_cond_wait(&all->turn, &all->lock);
    bool stopped = all->stopped;
    if (!stopped) {
        if (all->report.problem_count++ == 0) all->first_problem = *problem;
        if (all->options->problem) all->options->problem(all->options->user, problem);
    }
    pthread_mutex_unlock(&all->lock);
    return stopped ? cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted") : CLLM_OK;
}

static void note_bad_data(void *user, uint32_t data_index)
{
    struct verifying *all = user;
    pthread_mutex_lock(&all->lock);
    all->data_bad[data_index] = true;
    pthread_mutex_unlock(&all->lock);
}

static void note_file_end(void *user, const struct cllm_file *file)
{
    struct verifying *all = user;
    pthread_mutex_lock(&all->lock);
    all->file_done[file - all->index->files] = true;
    while (all->oldest_file < all->index->file_count && all->file_done[all->oldest_file]) all->oldest_file++;
    pthread_cond_broadcast(&all->turn);
    pthread_mutex_unlock(&all->lock);
}

/* Tells the caller how far it is, from the caller's own thread. */
static bool report_progress(const struct verifying *all, uint64_t done_bytes)
{
    const struct cllm_progress *progress = all->options->progress;
    return !progress || progress->report(progress->user, done_bytes, all->total_bytes);
}

static enum cllm_status advance(void *user, uint64_t byte_count, struct cllm_error *err)
{
    struct verifying *all = user;
    pthread_mutex_lock(&all->lock);
    uint64_t done_bytes = all->done_bytes += byte_count;
    bool stopped = all->stopped;
    pthread_cond_signal(&all->changed);
    pthread_mutex_unlock(&all->lock);
    if (all->walker_count == 1) stopped = !report_progress(all, done_bytes);
    return stopped ? cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted") : CLLM_OK;
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

static void stop_all(struct verifying *all, enum cllm_status status, const struct cllm_error *error)
{
    if (!all->stopped) {
        all->status = status;
        all->error = *error;
    }
    all->stopped = true;
    pthread_cond_broadcast(&all->turn);
}

static void *run_walker(void *argument)
{
    struct verifying *all = argument;
    struct cllm_error error = {0};
    struct cllm_verify_report report;
    const struct cllm_walk_owner owner = {.user = all,
                                          .next_file = next_file,
                                          .problem = note_problem,
                                          .bad_data = note_bad_data,
                                          .end_file = note_file_end,
                                          .advance = advance};
    const struct cllm_walk_options options = {.reader = all->reader,
                                              .owner = &owner,
                                              .engine = all->options->quick ? NULL : all->options->engine,
                                              .thread_count = all->threads_each,
                                              .walk_count = all->walker_count,
                                              .quick = all->options->quick,
                                              .once = all->options->quick || all->options->engine};
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
static void watch_walkers(struct verifying *all)
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
        if (!go_on) stop_all(all, cllm_fail(&error, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted"), &error);
    }
    pthread_mutex_unlock(&all->lock);
}

/* Side by side as many files as threads, but no more than make a difference: the largest one takes its time anyway. A file that
 * is not hashed as a whole needs no walk of its own. */
static void plan_walkers(struct verifying *all)
{
    const unsigned thread_count = cllm_thread_count(all->options->thread_count);
    uint64_t largest_bytes = 0, worthwhile = 1;
    for (uint32_t i = 0; i < all->index->file_count; i++) {
        all->total_bytes += all->index->files[i].bytes; /* the reader has checked that the sum fits */
        if (all->index->files[i].bytes > largest_bytes) largest_bytes = all->index->files[i].bytes;
    }
    if (largest_bytes > 0 && !all->options->quick && !all->options->engine) {
        worthwhile = all->total_bytes / largest_bytes + (all->total_bytes % largest_bytes >= largest_bytes / 2 + 1);
    }
    const unsigned affordable = cllm_walk_jobs_max(all->index);
    const unsigned most = affordable < thread_count ? affordable : thread_count;
    all->walker_count = worthwhile < most ? (unsigned)worthwhile : most;
    if (all->walker_count == 0) all->walker_count = 1;
    all->threads_each = (thread_count + all->walker_count - 1) / all->walker_count;
}

static enum cllm_status walk_all(struct verifying *all, struct cllm_error *err)
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

/* ---------------------------------------------------------------------------------------------------------------- all */

/* The bytes between data objects belong to no chunk; they must be zero. */
static void check_gap(struct verifying *all, uint64_t from, uint64_t to)
{
    uint8_t gap[CLLM_PAGE_ALIGNMENT];
    struct cllm_error problem;
    size_t gap_bytes = (size_t)(to - from), i = 0;
    enum cllm_status status = cllm_reader_read(all->reader, from, gap, gap_bytes, &problem);
    while (!status && i < gap_bytes && gap[i] == 0) i++;
    if (!status && i < gap_bytes) {
        status = cllm_fail(&problem, CLLM_E_CORRUPT, from + i, "padding at byte %llu is %02x, expected 00",
                           (unsigned long long)(from + i), gap[i]);
    }
    if (!status) return;
    if (all->report.problem_count++ == 0) all->first_problem = problem;
    if (all->options->problem) all->options->problem(all->options->user, &problem);
}

static void check_gaps(struct verifying *all)
{
    uint64_t end = CLLM_HEADER_BYTES;
    for (uint32_t d = 0; d < all->index->data_count; d++) {
        const struct cllm_data *data = &all->index->data[d];
        check_gap(all, end, data->stored_offset);
        end = data->stored_offset + data->stored_bytes;
    }
}

static enum cllm_status verify_all(struct verifying *all, struct cllm_error *err)
{
    all->data_bad = calloc((size_t)all->index->data_count + 1, sizeof *all->data_bad);
    all->file_done = calloc((size_t)all->index->file_count + 1, sizeof *all->file_done);
    if (!all->data_bad || !all->file_done) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for verifying");
    plan_walkers(all);
    enum cllm_status status = walk_all(all, err);
    if (status) return status;
    check_gaps(all);
    for (uint32_t t = 0; t < all->index->tensor_count; t++) {
        all->report.tensor_count += !all->data_bad[all->index->tensors[t].data_index];
    }
    if (all->report.problem_count == 0) return CLLM_OK;
    if (err) *err = all->first_problem;
    return all->first_problem.status;
}

enum cllm_status cllm_verify(const struct cllm_reader *reader, const struct cllm_verify_options *options,
                             struct cllm_verify_report *report_out, struct cllm_error *err)
{
    static const struct cllm_verify_options defaults = {0};
    struct verifying all = {.reader = reader, .index = cllm_reader_index(reader), .options = options ? options : &defaults};
    pthread_mutex_init(&all.lock, NULL);
    pthread_cond_init(&all.changed, NULL);
    pthread_cond_init(&all.turn, NULL);
    enum cllm_status status = verify_all(&all, err);
    pthread_cond_destroy(&all.turn);
    pthread_cond_destroy(&all.changed);
    pthread_mutex_destroy(&all.lock);
    free(all.file_done);
    free(all.data_bad);
    *report_out = all.report;
    return status;
}

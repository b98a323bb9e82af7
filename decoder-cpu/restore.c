/* restore.c - one file of a container, in order. */
#include "walk.h"

struct restoring {
    const struct cllm_file *file; /* null once it is under way */
    const struct cllm_progress *progress;
    uint64_t done_bytes;
    uint64_t total_bytes;
};

static const struct cllm_file *next_file(void *user)
{
    struct restoring *restoring = user;
    const struct cllm_file *file = restoring->file;
    restoring->file = NULL;
    return file;
}

static enum cllm_status stop_at_problem(void *user, const struct cllm_file *file, const struct cllm_error *problem,
                                        struct cllm_error *err)
{
    (void)user;
    (void)file;
    if (err) *err = *problem;
    return problem->status;
}

static enum cllm_status advance(void *user, uint64_t byte_count, struct cllm_error *err)
{
    struct restoring *restoring = user;
    const struct cllm_progress *progress = restoring->progress;
    restoring->done_bytes += byte_count;
    if (!progress || progress->report(progress->user, restoring->done_bytes, restoring->total_bytes)) return CLLM_OK;
    return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
}

enum cllm_status cllm_restore_file(const struct cllm_reader *reader, const struct cllm_file *file, const struct cllm_sink *sink,
                                   const struct cllm_restore_options *options, struct cllm_error *err)
{
    static const struct cllm_restore_options defaults;
    if (!options) options = &defaults;
    struct restoring restoring = {.file = file, .progress = options->progress, .total_bytes = file->bytes};
    struct cllm_verify_report report;
    const struct cllm_walk_owner owner = {
        .user = &restoring, .next_file = next_file, .problem = stop_at_problem, .advance = advance};
    const struct cllm_walk_options walk = {
        .reader = reader, .owner = &owner, .sink = sink, .engine = options->engine, .thread_count = options->thread_count};
    enum cllm_status status = cllm_walk(&walk, &report, err);
    if (options->engine_bytes) *options->engine_bytes += report.engine_bytes;
    return status;
}

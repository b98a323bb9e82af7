/* restore.c - files of a container, each in order. */
#include "walks.h"

static enum cllm_status stop_at_problem(void *user, const struct cllm_error *problem, struct cllm_error *err)
{
    (void)user;
    if (err) *err = *problem;
    return problem->status;
}

static enum cllm_status restore(const struct cllm_walks_options *files, const struct cllm_restore_options *options,
                                struct cllm_error *err)
{
    struct cllm_walks_options walks = *files;
    struct cllm_verify_report report;
    if (options) {
        walks.engine = options->engine;
        walks.progress = options->progress;
        walks.thread_count = options->thread_count;
    }
    walks.problem = stop_at_problem;
    const enum cllm_status status = cllm_walks_run(&walks, &report, err);
    if (options && options->engine_bytes) *options->engine_bytes += report.engine_bytes;
    return status;
}

enum cllm_status cllm_restore_files(const struct cllm_reader *reader, const struct cllm_file_sink *sink,
                                    const struct cllm_restore_options *options, struct cllm_error *err)
{
    return restore(
        &(struct cllm_walks_options){.reader = reader, .file_count = cllm_reader_index(reader)->file_count, .sink = sink},
        options, err);
}

static enum cllm_status write_piece(void *user, uint32_t file_index, const void *bytes, size_t byte_count, struct cllm_error *err)
{
    const struct cllm_sink *sink = user;
    (void)file_index;
    return sink->write(sink->user, bytes, byte_count, err);
}

enum cllm_status cllm_restore_file(const struct cllm_reader *reader, const struct cllm_file *file, const struct cllm_sink *sink,
                                   const struct cllm_restore_options *options, struct cllm_error *err)
{
    const struct cllm_file_sink pieces = {.write = write_piece, .user = (void *)sink};
    const uint32_t file_index = (uint32_t)(file - cllm_reader_index(reader)->files);
    return restore(&(struct cllm_walks_options){.reader = reader, .first_file = file_index, .file_count = 1, .sink = &pieces},
                   options, err);
}

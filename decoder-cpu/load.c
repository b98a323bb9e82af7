/* load.c - data objects and whole files into memory. */
#include "cllm_decode.h"

#include "pipeline.h"
#include "run.h"

#include <stdlib.h>
#include <string.h>

struct job {
    struct cllm_run_buffers buffers;
    struct cllm_run run;
    uint8_t *destination;
};

struct loading {
    const struct cllm_reader *reader;
    const struct cllm_load *loads;
    size_t load_count;
    size_t load_index;
    uint32_t next_chunk;
    const struct cllm_progress *progress;
    uint64_t done_bytes;
    uint64_t total_bytes;
};

static enum cllm_status prepare_run(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    (void)err;
    struct loading *loading = user;
    struct job *job = job_memory;
    *more_out = loading->load_index < loading->load_count;
    if (!*more_out) return CLLM_OK;
    const struct cllm_load *load = &loading->loads[loading->load_index];
    const struct cllm_data *data = &cllm_reader_index(loading->reader)->data[load->data_index];
    job->run = cllm_run_at(loading->reader, load->data_index, loading->next_chunk, CLLM_RUN_BYTES);
    job->destination = (uint8_t *)load->destination + (size_t)loading->next_chunk * data->chunk_bytes;
    loading->next_chunk = job->run.last ? 0 : loading->next_chunk + job->run.chunk_count;
    loading->load_index += job->run.last;
    return CLLM_OK;
}

static enum cllm_status decode_run(void *user, void *job_memory, struct cllm_error *err)
{
    struct loading *loading = user;
    struct job *job = job_memory;
    uint32_t chunk_bytes = cllm_reader_index(loading->reader)->data[job->run.data_index].chunk_bytes;
    enum cllm_status status = cllm_run_read(loading->reader, &job->run, false, &job->buffers, err);
    for (uint32_t k = 0; k < job->run.chunk_count && !status; k++) {
        uint8_t *out = job->destination + (size_t)k * chunk_bytes;
        status = cllm_run_decode_chunk(loading->reader, &job->run, k, &job->buffers, out, err);
    }
    return status;
}

static enum cllm_status report_run(void *user, void *job_memory, struct cllm_error *err)
{
    struct loading *loading = user;
    struct job *job = job_memory;
    const struct cllm_progress *progress = loading->progress;
    loading->done_bytes += cllm_run_decoded_bytes(loading->reader, &job->run);
    if (progress && !progress->report(progress->user, loading->done_bytes, loading->total_bytes)) {
        return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
    }
    return CLLM_OK;
}

enum cllm_status cllm_load_data(const struct cllm_reader *reader, const struct cllm_load *loads, size_t load_count,
                                unsigned thread_count, const struct cllm_progress *progress, struct cllm_error *err)
{
    const struct cllm_index *index = cllm_reader_index(reader);
    struct loading loading = {.reader = reader, .loads = loads, .load_count = load_count, .progress = progress};
    for (size_t i = 0; i < load_count; i++) {
        if (loads[i].data_index >= index->data_count) {
            return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "no data object %u, there are %u", loads[i].data_index,
                             index->data_count);
        }
        loading.total_bytes += index->data[loads[i].data_index].decoded_bytes;
    }
    unsigned job_count = cllm_pipeline_job_count(thread_count);
    struct job *jobs = calloc(job_count, sizeof *jobs);
    void **pointers = calloc(job_count, sizeof *pointers);
    enum cllm_status status = CLLM_OK;
    if (!jobs || !pointers) {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for loading");
        goto out;
    }
    for (unsigned i = 0; i < job_count; i++) pointers[i] = &jobs[i];
    const struct cllm_pipeline pipeline = {&loading, prepare_run, decode_run, report_run};
    status = cllm_pipeline_run(&pipeline, pointers, job_count, thread_count, err);
out:
    for (unsigned i = 0; jobs && i < job_count; i++) cllm_run_buffers_free(&jobs[i].buffers);
    free(pointers);
    free(jobs);
    return status;
}

/* ------------------------------------------------------------------------------------------------------- whole files */

static enum cllm_status append(void *user, const void *bytes, size_t byte_count, struct cllm_error *err)
{
    (void)err;
    uint8_t **at = user;
    memcpy(*at, bytes, byte_count);
    *at += byte_count;
    return CLLM_OK;
}

enum cllm_status cllm_load_file(const struct cllm_reader *reader, const struct cllm_file *file, uint64_t limit_bytes,
                                uint8_t **bytes_out, size_t *byte_count_out, struct cllm_error *err)
{
    *bytes_out = NULL;
    *byte_count_out = 0;
    if (file->bytes > limit_bytes || file->bytes >= SIZE_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "file has %llu bytes, at most %llu are accepted here",
                         (unsigned long long)file->bytes, (unsigned long long)limit_bytes);
    }
    uint8_t *bytes = malloc((size_t)file->bytes + 1);
    if (!bytes)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a file of %llu bytes",
                         (unsigned long long)file->bytes);
    uint8_t *at = bytes;
    const struct cllm_sink sink = {append, &at};
    const struct cllm_restore_options options = {.thread_count = 1};
    enum cllm_status status = cllm_restore_file(reader, file, &sink, &options, err);
    if (status) {
        free(bytes);
        return status;
    }
    bytes[file->bytes] = 0;
    *bytes_out = bytes;
    *byte_count_out = (size_t)file->bytes;
    return CLLM_OK;
}

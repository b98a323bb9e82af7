/* walk.c - goes through files of a container part by part, in order: restoring and verifying are the same walk. */
#include "cllm_decode.h"

#include "digest.h"
#include "layout.h"
#include "pipeline.h"
#include "reader.h"
#include "run.h"

#include <stdlib.h>
#include <string.h>

struct job {
    struct cllm_run_buffers buffers;
    struct cllm_run run;
    uint32_t file_index;         /* into walk.files */
    bool last_of_file;           /* after this run the file is complete */
    bool part;                   /* false: a file without parts, there is no run */
    uint8_t *leaves;             /* SHA-256 of each decoded chunk */
    size_t leaf_capacity;        /* in leaves */
    void *lane;                  /* of the engine; made on first use */
    bool elsewhere;              /* the engine did this run: there are leaves and no bytes */
    struct cllm_error *problems; /* found in this run, in order */
    uint32_t problem_count;
    uint32_t problem_capacity;
};

struct walk {
    const struct cllm_reader *reader;
    const struct cllm_file *files;
    uint32_t file_count;
    bool quick;
    bool carry_on;                /* problems are reported and counted; otherwise the first one ends the walk */
    const struct cllm_sink *sink; /* may be null */
    const struct cllm_progress *progress;
    const struct cllm_engine *engine; /* may be null */
    void (*problem)(void *user, const struct cllm_error *problem);
    void *user;
    /* Next run to prepare. */
    uint32_t file_index;
    uint32_t part_index;
    uint32_t next_chunk;
    /* Finishing. */
    struct cllm_sha256_stream *file_digest;
    uint8_t *leaves; /* of the data object at hand */
    size_t leaf_count;
    size_t leaf_capacity;
    bool part_bad;
    bool file_elsewhere; /* bytes of the file did not come back from the engine */
    bool file_bad;
    bool *data_bad; /* per data object */
    enum cllm_status first_status;
    struct cllm_error first_error;
    struct cllm_verify_report report;
    uint64_t total_bytes;
    uint64_t done_bytes;
};

static enum cllm_status fail_memory(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for decoding");
}

/* ----------------------------------------------------------------------------------------------------------- any thread */

static enum cllm_status keep_problem(struct job *job, const struct cllm_error *problem, struct cllm_error *err)
{
    if (job->problem_count == job->problem_capacity) {
        uint32_t capacity = job->problem_capacity ? 2 * job->problem_capacity : 4;
        struct cllm_error *problems = realloc(job->problems, capacity * sizeof *problems);
        if (!problems) return fail_memory(err);
        job->problems = problems;
        job->problem_capacity = capacity;
    }
    job->problems[job->problem_count++] = *problem;
    return CLLM_OK;
}

static enum cllm_status reserve_leaves(uint8_t **leaves, size_t *capacity, size_t count, struct cllm_error *err)
{
    if (count <= *capacity) return CLLM_OK;
    size_t larger = 2 * *capacity > count ? 2 * *capacity : count;
    uint8_t *memory = realloc(*leaves, larger * CLLM_DIGEST_BYTES);
    if (!memory) return fail_memory(err);
    *leaves = memory;
    *capacity = larger;
    return CLLM_OK;
}

static enum cllm_status decode_one(const struct walk *walk, struct job *job, uint32_t k, struct cllm_error *err)
{
    const struct cllm_data *data = &cllm_reader_index(walk->reader)->data[job->run.data_index];
    uint8_t *out = walk->quick ? NULL : job->buffers.decoded + (size_t)k * data->chunk_bytes;
    enum cllm_status status = cllm_run_decode_chunk(walk->reader, &job->run, k, &job->buffers, out, err);
    if (status || walk->quick) return status;
    uint32_t decoded_bytes = data->chunks[job->run.first_chunk + k].decoded_bytes;
    return cllm_sha256(out, decoded_bytes, job->leaves + (size_t)k * CLLM_DIGEST_BYTES, err);
}

/* Whether the engine did the run. Where it could not, for whatever reason, the CPU does it and says what is wrong. */
static bool work_elsewhere(const struct walk *walk, struct job *job)
{
    const struct cllm_engine *engine = walk->engine;
    const struct cllm_data *data = &cllm_reader_index(walk->reader)->data[job->run.data_index];
    if (!engine || walk->quick || job->run.chunk_count == 0) return false;
    for (uint32_t k = 0; k < job->run.chunk_count; k++) {
        if (!engine->takes(engine->user, &data->chunks[job->run.first_chunk + k])) return false;
    }
    if (!job->lane && engine->lane_create(engine->user, &job->lane, NULL)) return false;
    return engine->hash_run(engine->user, job->lane, walk->reader, job->run.data_index, job->run.first_chunk,
                            job->run.chunk_count, job->leaves, NULL) == CLLM_OK;
}

/* Reads, checks and decodes one run. What is wrong with the container is kept as a problem, so that the walk may go on. */
static enum cllm_status work_on_run(void *user, void *job_memory, struct cllm_error *err)
{
    const struct walk *walk = user;
    struct job *job = job_memory;
    struct cllm_error problem;
    job->problem_count = 0;
    if (!job->part) return CLLM_OK;
    enum cllm_status status = reserve_leaves(&job->leaves, &job->leaf_capacity, job->run.chunk_count, err);
    if (status) return status;
    job->elsewhere = work_elsewhere(walk, job);
    if (job->elsewhere) return CLLM_OK;
    status = cllm_run_read(walk->reader, &job->run, !walk->quick, &job->buffers, &problem);
    if (status == CLLM_E_NOMEM) return fail_memory(err);
    if (status) return keep_problem(job, &problem, err);
    for (uint32_t k = 0; k < job->run.chunk_count; k++) {
        status = decode_one(walk, job, k, &problem);
        if (status == CLLM_E_NOMEM) return fail_memory(err);
        if (status) status = keep_problem(job, &problem, err);
        if (status) return status;
    }
    return CLLM_OK;
}

/* ----------------------------------------------------------------------------------------------------- calling thread */

static enum cllm_status prepare_run(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    (void)err;
    struct walk *walk = user;
    struct job *job = job_memory;
    *more_out = walk->file_index < walk->file_count;
    if (!*more_out) return CLLM_OK;
    const struct cllm_file *file = &walk->files[walk->file_index];
    job->file_index = walk->file_index;
    job->part = file->part_count > 0;
    job->last_of_file = !job->part;
    if (job->part) {
        job->run = cllm_run_at(walk->reader, file->parts[walk->part_index], walk->next_chunk,
                               walk->engine ? walk->engine->run_bytes : CLLM_RUN_BYTES);
        walk->next_chunk = job->run.last ? 0 : walk->next_chunk + job->run.chunk_count;
        walk->part_index += job->run.last;
        job->last_of_file = walk->part_index == file->part_count;
    }
    if (job->last_of_file) {
        walk->part_index = 0;
        walk->file_index++;
    }
    return CLLM_OK;
}

static enum cllm_status note_problem(struct walk *walk, const struct cllm_error *problem, struct cllm_error *err)
{
    if (!walk->carry_on) {
        if (err) *err = *problem;
        return problem->status;
    }
    if (walk->report.problem_count++ == 0) {
        walk->first_status = problem->status;
        walk->first_error = *problem;
    }
    if (walk->problem) walk->problem(walk->user, problem);
    return CLLM_OK;
}

static enum cllm_status finish_part(struct walk *walk, const struct job *job, struct cllm_error *err)
{
    uint8_t root[CLLM_DIGEST_BYTES];
    const struct cllm_data *data = &cllm_reader_index(walk->reader)->data[job->run.data_index];
    enum cllm_status status = CLLM_OK;
    if (!walk->quick && !walk->part_bad) {
        status = cllm_data_root(data->decoded_bytes, data->chunk_bytes, walk->leaves, walk->leaf_count, root, err);
        if (!status && memcmp(root, data->digest, CLLM_DIGEST_BYTES) != 0) {
            struct cllm_error problem;
            char what[160];
            walk->part_bad = true;
            cllm_fail(&problem, CLLM_E_DIGEST, data->stored_offset, "%s: decoded bytes do not have the recorded SHA-256 root",
                      cllm_reader_describe_data(walk->reader, job->run.data_index, what, sizeof what));
            status = note_problem(walk, &problem, err);
        }
    }
    if (walk->part_bad) {
        walk->file_bad = true;
        if (walk->data_bad) walk->data_bad[job->run.data_index] = true;
    }
    walk->part_bad = false;
    walk->leaf_count = 0;
    return status;
}

static enum cllm_status finish_file(struct walk *walk, const struct cllm_file *file, struct cllm_error *err)
{
    uint8_t digest[CLLM_DIGEST_BYTES];
    enum cllm_status status = walk->quick ? CLLM_OK : cllm_sha256_finish(walk->file_digest, digest, err);
    if (!status && !walk->quick && !walk->file_bad && !walk->file_elsewhere &&
        memcmp(digest, file->sha256, CLLM_DIGEST_BYTES) != 0) {
        struct cllm_error problem;
        char name[160], found[2 * CLLM_DIGEST_BYTES + 1], expected[2 * CLLM_DIGEST_BYTES + 1];
        walk->file_bad = true;
        cllm_fail(&problem, CLLM_E_DIGEST, CLLM_NO_OFFSET, "file \"%s\" has SHA-256 %s, recorded is %s",
                  cllm_escape(file->name, file->name_bytes, name, sizeof name), cllm_digest_hex(digest, found),
                  cllm_digest_hex(file->sha256, expected));
        status = note_problem(walk, &problem, err);
    }
    walk->report.file_count += !walk->file_bad;
    walk->report.rehashed_count += !walk->file_bad && !walk->file_elsewhere && !walk->quick;
    walk->file_bad = false;
    walk->file_elsewhere = false;
    return status;
}

static enum cllm_status consume_decoded(struct walk *walk, const struct job *job, struct cllm_error *err)
{
    size_t byte_count = (size_t)cllm_run_decoded_bytes(walk->reader, &job->run);
    walk->report.decoded_bytes += byte_count;
    enum cllm_status status = reserve_leaves(&walk->leaves, &walk->leaf_capacity, walk->leaf_count + job->run.chunk_count, err);
    if (status || byte_count == 0) return status;
    memcpy(walk->leaves + walk->leaf_count * CLLM_DIGEST_BYTES, job->leaves, (size_t)job->run.chunk_count * CLLM_DIGEST_BYTES);
    walk->leaf_count += job->run.chunk_count;
    if (job->elsewhere) {
        walk->report.engine_bytes += byte_count;
        walk->file_elsewhere = true;
        return CLLM_OK;
    }
    status = cllm_sha256_update(walk->file_digest, job->buffers.decoded, byte_count, err);
    if (!status && walk->sink) status = walk->sink->write(walk->sink->user, job->buffers.decoded, byte_count, err);
    return status;
}

static enum cllm_status finish_run(void *user, void *job_memory, struct cllm_error *err)
{
    struct walk *walk = user;
    struct job *job = job_memory;
    const struct cllm_data *data = job->part ? &cllm_reader_index(walk->reader)->data[job->run.data_index] : NULL;
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 0; i < job->problem_count && !status; i++) status = note_problem(walk, &job->problems[i], err);
    walk->part_bad |= job->problem_count > 0;
    if (job->part) {
        walk->report.chunk_count += job->run.chunk_count;
        for (uint32_t k = 0; k < job->run.chunk_count; k++) {
            walk->report.stored_bytes += data->chunks[job->run.first_chunk + k].stored_bytes;
        }
        walk->done_bytes += cllm_run_decoded_bytes(walk->reader, &job->run);
        if (!status && !walk->quick && job->problem_count == 0) status = consume_decoded(walk, job, err);
        if (!status && job->run.last) status = finish_part(walk, job, err);
    }
    if (!status && job->last_of_file) status = finish_file(walk, &walk->files[job->file_index], err);
    if (!status && walk->progress && !walk->progress->report(walk->progress->user, walk->done_bytes, walk->total_bytes)) {
        status = cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
    }
    return status;
}

static enum cllm_status run_walk(struct walk *walk, unsigned thread_count, struct cllm_error *err)
{
    if (walk->engine) thread_count = walk->engine->lane_count;
    unsigned job_count = walk->engine ? cllm_thread_count(thread_count) : cllm_pipeline_job_count(thread_count);
    struct job *jobs = calloc(job_count, sizeof *jobs);
    void **pointers = calloc(job_count, sizeof *pointers);
    enum cllm_status status = cllm_sha256_create(&walk->file_digest, err);
    if (!status && (!jobs || !pointers)) status = fail_memory(err);
    for (uint32_t i = 0; i < walk->file_count; i++) walk->total_bytes += walk->files[i].bytes;
    if (!status) {
        const struct cllm_pipeline pipeline = {walk, prepare_run, work_on_run, finish_run};
        for (unsigned i = 0; i < job_count; i++) pointers[i] = &jobs[i];
        status = cllm_pipeline_run(&pipeline, pointers, job_count, thread_count, err);
    }
    for (unsigned i = 0; jobs && i < job_count; i++) {
        cllm_run_buffers_free(&jobs[i].buffers);
        if (jobs[i].lane) walk->engine->lane_destroy(walk->engine->user, jobs[i].lane);
        free(jobs[i].leaves);
        free(jobs[i].problems);
    }
    free(pointers);
    free(jobs);
    free(walk->leaves);
    cllm_sha256_destroy(walk->file_digest);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- public */

enum cllm_status cllm_restore_file(const struct cllm_reader *reader, const struct cllm_file *file, const struct cllm_sink *sink,
                                   unsigned thread_count, const struct cllm_progress *progress, struct cllm_error *err)
{
    struct walk walk = {.reader = reader, .files = file, .file_count = 1, .sink = sink, .progress = progress};
    return run_walk(&walk, thread_count, err);
}

/* The bytes between data objects belong to no chunk; they must be zero. */
static enum cllm_status check_gaps(struct walk *walk, struct cllm_error *err)
{
    const struct cllm_index *index = cllm_reader_index(walk->reader);
    uint64_t end = CLLM_HEADER_BYTES;
    enum cllm_status status = CLLM_OK;
    for (uint32_t d = 0; d < index->data_count && !status; d++) {
        uint8_t gap[CLLM_PAGE_ALIGNMENT];
        struct cllm_error problem;
        uint64_t start = index->data[d].stored_offset;
        size_t gap_bytes = (size_t)(start - end), i = 0;
        status = cllm_reader_read(walk->reader, end, gap, gap_bytes, &problem);
        if (status) {
            status = note_problem(walk, &problem, err);
        } else {
            while (i < gap_bytes && gap[i] == 0) i++;
            if (i < gap_bytes) {
                cllm_fail(&problem, CLLM_E_CORRUPT, end + i, "padding at byte %llu is %02x, expected 00",
                          (unsigned long long)(end + i), gap[i]);
                status = note_problem(walk, &problem, err);
            }
        }
        end = start + index->data[d].stored_bytes;
    }
    return status;
}

enum cllm_status cllm_verify(const struct cllm_reader *reader, const struct cllm_verify_options *options,
                             struct cllm_verify_report *report_out, struct cllm_error *err)
{
    const struct cllm_index *index = cllm_reader_index(reader);
    struct walk walk = {
        .reader = reader,
        .files = index->files,
        .file_count = index->file_count,
        .quick = options->quick,
        .carry_on = true,
        .progress = options->progress,
        .engine = options->quick ? NULL : options->engine,
        .problem = options->problem,
        .user = options->user,
    };
    walk.data_bad = calloc((size_t)index->data_count + 1, sizeof *walk.data_bad);
    enum cllm_status status = walk.data_bad ? run_walk(&walk, options->thread_count, err) : fail_memory(err);
    if (!status) status = check_gaps(&walk, err);
    for (uint32_t t = 0; t < index->tensor_count && !status; t++) {
        walk.report.tensor_count += !walk.data_bad[index->tensors[t].data_index];
    }
    free(walk.data_bad);
    *report_out = walk.report;
    if (!status && walk.report.problem_count > 0) {
        if (err) *err = walk.first_error;
        status = walk.first_status;
    }
    return status;
}

/* walk.c - see walk.h. Runs are read and decoded by any thread, and passed on in order by the thread that walks, while it, or a
 * helper, hashes them as a file. */
#include "walk.h"

#include "digest.h"
#include "pipeline.h"
#include "run.h"

#include <stdlib.h>
#include <string.h>

#define PAYLOAD_BYTES_MAX (UINT64_C(1) << 30) /* of all jobs of all walks at a time */

struct job {
    struct cllm_run_buffers buffers;
    const struct cllm_file *file;
    struct cllm_run run;
    bool part;                   /* false: a file without parts, there is no run */
    bool again;                  /* a part that was gone through before: there is no run */
    bool last_of_file;           /* after this run the file is complete */
    uint8_t *leaves;             /* SHA-256 of each decoded chunk, where other threads hash them */
    size_t leaf_capacity;        /* in leaves */
    void *lane;                  /* of the engine; made on first use */
    bool elsewhere;              /* the engine has the run */
    struct cllm_error *problems; /* found in this run, in order */
    uint32_t problem_count;
    uint32_t problem_capacity;
};

enum { DATA_NEW, DATA_SEEN, DATA_BAD };

struct walk {
    const struct cllm_walk_options *options;
    const struct cllm_index *index;
    uint8_t *state;  /* per data object, where each is gone through once; else null */
    bool hash_apart; /* chunks by all threads and the file by the one that walks, or its helper; else both in one pass by the
                        former */
    /* Next run to prepare. */
    const struct cllm_file *file;
    uint32_t part_index;
    uint32_t next_chunk;
    /* Finishing. */
    struct cllm_sha256_stream *file_digest;
    struct cllm_helper *helper; /* hashes files, if apart, while they are written */
    const uint8_t *hashing;     /* what it is to hash */
    size_t hashing_bytes;
    uint8_t *leaves; /* SHA-256 of each decoded chunk of the data object at hand */
    size_t leaf_count;
    size_t leaf_capacity;
    bool part_bad;
    bool file_bad;
    bool file_unseen; /* bytes of the file did not come by here */
    struct cllm_verify_report report;
};

static enum cllm_status fail_memory(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for decoding");
}

static const struct cllm_data *data_of(const struct walk *walk, const struct job *job)
{
    return &walk->index->data[job->run.data_index];
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

/* Whether the engine has begun with the run. */
static bool start_elsewhere(const struct walk *walk, struct job *job)
{
    const struct cllm_engine *engine = walk->options->engine;
    if (!engine || walk->options->quick || job->run.chunk_count == 0) return false;
    const struct cllm_chunk *chunks = &data_of(walk, job)->chunks[job->run.first_chunk];
    for (uint32_t k = 0; k < job->run.chunk_count; k++) {
        if (!engine->takes(engine->user, &chunks[k])) return false;
    }
    if (!job->lane && engine->lane_create(engine->user, &job->lane, NULL)) return false;
    const struct cllm_engine_run run = {.reader = walk->options->reader,
                                        .data_index = job->run.data_index,
                                        .first_chunk = job->run.first_chunk,
                                        .chunk_count = job->run.chunk_count,
                                        .bytes = !walk->options->once};
    return engine->start(engine->user, job->lane, &run, NULL) == CLLM_OK;
}

/* Reads, checks and decodes one run. What is wrong with the container is kept as a problem, so that the walk may go on. */
static enum cllm_status work_here(const struct walk *walk, struct job *job, struct cllm_error *err)
{
    const struct cllm_reader *reader = walk->options->reader;
    const bool quick = walk->options->quick;
    struct cllm_error problem;
    enum cllm_status status = cllm_run_read(reader, &job->run, !quick, &job->buffers, &problem);
    if (status == CLLM_E_NOMEM) return fail_memory(err);
    if (status) return keep_problem(job, &problem, err);
    for (uint32_t k = 0; k < job->run.chunk_count; k++) {
        uint8_t *out = quick ? NULL : job->buffers.decoded + (size_t)k * data_of(walk, job)->chunk_bytes;
        status = cllm_run_decode_chunk(reader, &job->run, k, &job->buffers, out, &problem);
        if (status == CLLM_E_NOMEM) return fail_memory(err);
        if (status) status = keep_problem(job, &problem, err);
        if (status) return status;
    }
    if (quick || !walk->hash_apart || job->problem_count > 0) return CLLM_OK;
    status = reserve_leaves(&job->leaves, &job->leaf_capacity, job->run.chunk_count, err);
    if (status) return status;
    return cllm_sha256_leaves(job->buffers.decoded, (size_t)cllm_run_decoded_bytes(reader, &job->run),
                              data_of(walk, job)->chunk_bytes, job->leaves, err);
}

static enum cllm_status work_on_run(void *user, void *job_memory, struct cllm_error *err)
{
    const struct walk *walk = user;
    struct job *job = job_memory;
    job->problem_count = 0;
    job->elsewhere = false;
    if (!job->part || job->again) return CLLM_OK;
    job->elsewhere = start_elsewhere(walk, job);
    return job->elsewhere ? CLLM_OK : work_here(walk, job, err);
}

/* ----------------------------------------------------------------------------------------------------- walking thread */

/* Sixteen chunks, which are hashed side by side, where they do not take much more memory than a run does anyway. */
static uint32_t choose_run_bytes(const struct cllm_data *data, const struct cllm_engine *engine)
{
    const uint64_t sixteen = UINT64_C(16) * data->chunk_bytes;
    if (engine) return engine->run_bytes;
    return sixteen > CLLM_RUN_BYTES && sixteen <= 2 * CLLM_RUN_BYTES ? (uint32_t)sixteen : CLLM_RUN_BYTES;
}

/* The next run of the file at hand, or all of a part that needs no second look. */
static void prepare_part(struct walk *walk, struct job *job)
{
    uint32_t data_index = walk->file->parts[walk->part_index];
    job->again = walk->state && walk->next_chunk == 0 && walk->state[data_index] != DATA_NEW;
    if (job->again) {
        job->run = (struct cllm_run){.data_index = data_index, .last = true};
    } else {
        const uint32_t run_bytes = choose_run_bytes(&walk->index->data[data_index], walk->options->engine);
        job->run = cllm_run_at(walk->options->reader, data_index, walk->next_chunk, run_bytes);
        if (walk->state && job->run.last) walk->state[data_index] = DATA_SEEN;
    }
    walk->next_chunk = job->run.last ? 0 : walk->next_chunk + job->run.chunk_count;
    walk->part_index += job->run.last;
}

static enum cllm_status prepare_run(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    (void)err;
    struct walk *walk = user;
    struct job *job = job_memory;
    if (!walk->file) walk->file = walk->options->owner->next_file(walk->options->owner->user);
    *more_out = walk->file != NULL;
    if (!*more_out) return CLLM_OK;
    job->file = walk->file;
    job->part = walk->file->part_count > 0;
    job->again = false;
    if (job->part) prepare_part(walk, job);
    job->last_of_file = walk->part_index == walk->file->part_count;
    if (job->last_of_file) {
        walk->part_index = 0;
        walk->file = NULL;
    }
    return CLLM_OK;
}

static enum cllm_status note_problem(struct walk *walk, const struct job *job, const struct cllm_error *problem,
                                     struct cllm_error *err)
{
    walk->report.problem_count++;
    return walk->options->owner->problem(walk->options->owner->user, job->file, problem, err);
}

static enum cllm_status finish_part(struct walk *walk, const struct job *job, struct cllm_error *err)
{
    uint8_t root[CLLM_DIGEST_BYTES];
    const struct cllm_data *data = data_of(walk, job);
    const struct cllm_walk_owner *owner = walk->options->owner;
    enum cllm_status status = CLLM_OK;
    if (!walk->options->quick && !walk->part_bad) {
        status = cllm_data_root(data->decoded_bytes, data->chunk_bytes, walk->leaves, walk->leaf_count, root, err);
        if (!status && memcmp(root, data->digest, CLLM_DIGEST_BYTES) != 0) {
            struct cllm_error problem;
            char what[160];
            walk->part_bad = true;
            cllm_fail(&problem, CLLM_E_DIGEST, data->stored_offset, "%s: decoded bytes do not have the recorded SHA-256 root",
                      cllm_reader_describe_data(walk->options->reader, job->run.data_index, what, sizeof what));
            status = note_problem(walk, job, &problem, err);
        }
    }
    if (walk->part_bad) {
        walk->file_bad = true;
        if (walk->state) walk->state[job->run.data_index] = DATA_BAD;
        owner->bad_data(owner->user, job->run.data_index);
    }
    walk->part_bad = false;
    walk->leaf_count = 0;
    return status;
}

static enum cllm_status check_file_digest(struct walk *walk, const struct job *job, struct cllm_error *err)
{
    const struct cllm_file *file = job->file;
    uint8_t digest[CLLM_DIGEST_BYTES];
    enum cllm_status status = cllm_sha256_finish(walk->file_digest, digest, err);
    if (status || walk->file_bad || walk->file_unseen || memcmp(digest, file->sha256, CLLM_DIGEST_BYTES) == 0) return status;
    struct cllm_error problem;
    char name[160], found[2 * CLLM_DIGEST_BYTES + 1], expected[2 * CLLM_DIGEST_BYTES + 1];
    walk->file_bad = true;
    cllm_fail(&problem, CLLM_E_DIGEST, CLLM_NO_OFFSET, "file \"%s\" has SHA-256 %s, recorded is %s",
              cllm_escape(file->name, file->name_bytes, name, sizeof name), cllm_digest_hex(digest, found),
              cllm_digest_hex(file->sha256, expected));
    return note_problem(walk, job, &problem, err);
}

static enum cllm_status finish_file(struct walk *walk, const struct job *job, struct cllm_error *err)
{
    const struct cllm_walk_owner *owner = walk->options->owner;
    enum cllm_status status = walk->options->quick ? CLLM_OK : check_file_digest(walk, job, err);
    walk->report.file_count += !walk->file_bad;
    walk->report.rehashed_count += !walk->file_bad && !walk->file_unseen && !walk->options->quick;
    walk->file_bad = false;
    walk->file_unseen = false;
    return status ? status : owner->end_file(owner->user, job->file, err);
}

/* Takes a run back from the engine. What it could not do, for whatever reason, the CPU does and says what is wrong. */
static enum cllm_status finish_elsewhere(struct walk *walk, struct job *job, uint8_t *leaves, const uint8_t **decoded_out,
                                         struct cllm_error *err)
{
    const struct cllm_engine *engine = walk->options->engine;
    job->elsewhere =
        engine->finish(engine->user, job->lane, leaves, decoded_out, NULL) == CLLM_OK && (*decoded_out || walk->options->once);
    return job->elsewhere ? CLLM_OK : work_here(walk, job, err);
}

static enum cllm_status hash_file(void *user, struct cllm_error *err)
{
    const struct walk *walk = user;
    return cllm_sha256_update(walk->file_digest, walk->hashing, walk->hashing_bytes, err);
}

/* To the sink, if there is one. */
static enum cllm_status pass_on(const struct walk *walk, const struct job *job, const uint8_t *decoded, size_t byte_count,
                                struct cllm_error *err)
{
    const struct cllm_file_sink *sink = walk->options->sink;
    if (!sink) return CLLM_OK;
    return sink->write(sink->user, (uint32_t)(job->file - walk->index->files), decoded, byte_count, err);
}

/* Hashes what was decoded as part of the file, and writes it. */
static enum cllm_status hash_and_write(struct walk *walk, const struct job *job, const uint8_t *decoded, size_t byte_count,
                                       struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    walk->hashing = decoded;
    walk->hashing_bytes = byte_count;
    if (walk->helper) cllm_helper_start(walk->helper, hash_file, walk);
    else status = hash_file(walk, err);
    if (!status) status = pass_on(walk, job, decoded, byte_count, err);
    if (walk->helper) {
        const enum cllm_status hashed = cllm_helper_wait(walk->helper, status ? NULL : err);
        if (!status) status = hashed;
    }
    return status;
}

static enum cllm_status consume_run(struct walk *walk, struct job *job, struct cllm_error *err)
{
    const struct cllm_data *data = data_of(walk, job);
    const size_t byte_count = (size_t)cllm_run_decoded_bytes(walk->options->reader, &job->run);
    const uint8_t *decoded = NULL;
    enum cllm_status status = reserve_leaves(&walk->leaves, &walk->leaf_capacity, walk->leaf_count + job->run.chunk_count, err);
    if (status || byte_count == 0) return status;
    uint8_t *leaves = walk->leaves + walk->leaf_count * CLLM_DIGEST_BYTES;
    if (job->elsewhere) status = finish_elsewhere(walk, job, leaves, &decoded, err);
    if (status || job->problem_count > 0) return status;
    if (!job->elsewhere) decoded = job->buffers.decoded;
    if (!job->elsewhere && walk->hash_apart) memcpy(leaves, job->leaves, (size_t)job->run.chunk_count * CLLM_DIGEST_BYTES);
    walk->leaf_count += job->run.chunk_count;
    walk->report.decoded_bytes += byte_count;
    if (job->elsewhere) walk->report.engine_bytes += byte_count;
    if (!decoded) walk->file_unseen = true;
    if (!decoded) return CLLM_OK; /* and there is no sink */
    if (job->elsewhere || walk->hash_apart) return hash_and_write(walk, job, decoded, byte_count, err);
    status = cllm_sha256_update_with_leaves(walk->file_digest, decoded, byte_count, data->chunk_bytes, leaves, err);
    return status ? status : pass_on(walk, job, decoded, byte_count, err);
}

static enum cllm_status finish_chunks(struct walk *walk, struct job *job, struct cllm_error *err)
{
    const struct cllm_chunk *chunks = data_of(walk, job)->chunks + job->run.first_chunk;
    enum cllm_status status = CLLM_OK;
    walk->report.chunk_count += job->run.chunk_count;
    for (uint32_t k = 0; k < job->run.chunk_count; k++) walk->report.stored_bytes += chunks[k].stored_bytes;
    if (!walk->options->quick && job->problem_count == 0) status = consume_run(walk, job, err);
    for (uint32_t i = 0; i < job->problem_count && !status; i++) status = note_problem(walk, job, &job->problems[i], err);
    walk->part_bad |= job->problem_count > 0;
    if (!status && job->run.last) status = finish_part(walk, job, err);
    return status;
}

static enum cllm_status finish_run(void *user, void *job_memory, struct cllm_error *err)
{
    struct walk *walk = user;
    struct job *job = job_memory;
    const struct cllm_walk_owner *owner = walk->options->owner;
    enum cllm_status status = CLLM_OK;
    uint64_t done_bytes = 0;
    if (job->again) {
        walk->file_bad |= walk->state[job->run.data_index] == DATA_BAD;
        walk->file_unseen = true;
        done_bytes = data_of(walk, job)->decoded_bytes;
    } else if (job->part) {
        status = finish_chunks(walk, job, err);
        done_bytes = cllm_run_decoded_bytes(walk->options->reader, &job->run);
    }
    if (!status && job->last_of_file) status = finish_file(walk, job, err);
    return status ? status : owner->advance(owner->user, done_bytes, err);
}

/* ---------------------------------------------------------------------------------------------------------------- all */

/* Of any of an object's runs: a chunk at least. */
static uint64_t largest_run(const struct cllm_data *data, const struct cllm_engine *engine)
{
    const uint64_t run_bytes = choose_run_bytes(data, engine), chunk_bytes = data->chunk_bytes;
    const uint64_t most = run_bytes > chunk_bytes ? run_bytes : chunk_bytes;
    return data->decoded_bytes < most ? data->decoded_bytes : most;
}

unsigned cllm_walk_jobs_max(const struct cllm_index *index, const struct cllm_engine *engine)
{
    uint64_t largest = CLLM_RUN_BYTES;
    for (uint32_t i = 0; i < index->data_count; i++) {
        const uint64_t bytes = largest_run(&index->data[i], engine);
        if (bytes > largest) largest = bytes;
    }
    const unsigned affordable = (unsigned)(PAYLOAD_BYTES_MAX / (3 * largest));
    return !engine || affordable < engine->lane_count ? affordable : engine->lane_count;
}

/* As many as keep the threads busy, if this walk's part of the memory has room for them. */
static unsigned count_jobs(const struct walk *walk, unsigned thread_count)
{
    const unsigned wanted = cllm_pipeline_job_count(thread_count);
    const unsigned affordable = cllm_walk_jobs_max(walk->index, NULL) / walk->options->walk_count;
    return wanted < affordable ? wanted : affordable ? affordable : 1;
}

static enum cllm_status run_pipeline(struct walk *walk, struct cllm_error *err)
{
    const struct cllm_engine *engine = walk->options->engine;
    const unsigned thread_count = cllm_thread_count(walk->options->thread_count);
    walk->hash_apart = cllm_sha256_apart(thread_count);
    const unsigned job_count = engine ? engine->lane_count / walk->options->walk_count : count_jobs(walk, thread_count);
    struct job *jobs = calloc(job_count, sizeof *jobs);
    void **pointers = calloc(job_count, sizeof *pointers);
    enum cllm_status status = jobs && pointers ? CLLM_OK : fail_memory(err);
    if (!status && walk->hash_apart && walk->options->sink) status = cllm_helper_create(&walk->helper, err);
    if (!status) {
        const struct cllm_pipeline pipeline = {walk, prepare_run, work_on_run, finish_run};
        for (unsigned i = 0; i < job_count; i++) pointers[i] = &jobs[i];
        status = cllm_pipeline_run(&pipeline, pointers, job_count, thread_count - (walk->helper != NULL), err);
    }
    cllm_helper_destroy(walk->helper);
    for (unsigned i = 0; jobs && i < job_count; i++) {
        cllm_run_buffers_free(&jobs[i].buffers);
        if (engine && jobs[i].lane) engine->lane_destroy(engine->user, jobs[i].lane);
        free(jobs[i].leaves);
        free(jobs[i].problems);
    }
    free(pointers);
    free(jobs);
    return status;
}

enum cllm_status cllm_walk(const struct cllm_walk_options *options, struct cllm_verify_report *report_out, struct cllm_error *err)
{
    struct walk walk = {.options = options, .index = cllm_reader_index(options->reader)};
    enum cllm_status status = cllm_sha256_create(&walk.file_digest, err);
    if (!status && options->once) {
        walk.state = calloc((size_t)walk.index->data_count + 1, sizeof *walk.state);
        if (!walk.state) status = fail_memory(err);
    }
    if (!status) status = run_pipeline(&walk, err);
    free(walk.state);
    free(walk.leaves);
    cllm_sha256_destroy(walk.file_digest);
    *report_out = walk.report;
    return status;
}

/* pack.c - a source into a container: spans are cut into groups, groups encoded by worker threads, written in order. */
#include "cllm_encode.h"

#include "bytes.h"
#include "cllm_decode.h"
#include "digest.h"
#include "group.h"
#include "hash_files.h"
#include "index.h"
#include "layout.h"
#include "pipeline.h"
#include "tables.h"
#include "writer.h"

#include <stdlib.h>
#include <string.h>

/* A group's buffers take up to 24 MiB, and what zstd keeps at its strongest level 17: this many keep packing within 1 GiB. */
#define JOBS_MAX 24u

#define WRITTEN_AT_ONCE 64u /* chunks: a group of BF16 */

/* Chunks read and hashed at a time: as many as are hashed side by side, from the second cache of the processor. */
#define PIECE_CHUNKS ((size_t)16)

#define LEAVES_MAX (CLLM_GROUP_BYTES >> CLLM_CHUNK_LOG2_MIN)

/* Enough elements to tell that their lowest bit is not zero in all. */
#define FIRST_LOOK_BYTES 4096u

/* One group on its way through the pipeline. */
struct job {
    struct cllm_group *group;
    struct cllm_plan plan;
    uint8_t *leaves; /* SHA-256 of each chunk of the input */
    uint64_t group_index;
    uint64_t offset; /* in the file */
    size_t byte_count;
    uint32_t file_index;
    uint32_t span_index;
    bool first; /* of its span */
    bool last;
};

struct packing {
    const struct cllm_source *source;
    const struct cllm_pack_options *options;
    struct cllm_writer *writer;
    struct cllm_pack_report report;
    /* Reading side: where the next group starts. */
    uint32_t file_index;
    uint32_t span_index;
    uint64_t span_offset;
    uint64_t group_count;
    struct cllm_plan plan; /* of that span */
    /* Writing side. */
    /* Chunks and files are hashed in one pass, as they are read or written; or chunks as they are read, and files as they are
     * written or by threads of their own. */
    enum { HASH_AS_READ, HASH_AS_WRITTEN, HASH_FILES_AS_WRITTEN, HASH_FILES_APART } hashing;
    struct cllm_file_hashing *file_hashing; /* if apart; else: */
    struct cllm_sha256_stream *file_digest;
    uint32_t hashed_count; /* files whose digest is finished */
    uint64_t done_bytes;
    uint8_t *leaves; /* of the data object being written */
    size_t leaf_count;
    size_t leaf_capacity;
    /* What the index will say. */
    struct cllm_tensor *tensors;
    struct cllm_file *files;
    uint32_t *parts;    /* of all files, one per span, in order */
    size_t *first_part; /* per file */
};

/* ----------------------------------------------------------------------------------------------------------- reading */

static const struct cllm_source_span *current_span(const struct packing *packing)
{
    return &packing->source->files[packing->file_index].spans[packing->span_index];
}

static struct cllm_plan plan_span(const struct packing *packing, const struct cllm_source_span *span)
{
    if (span->tensor_index == CLLM_SPAN_LITERAL) return cllm_plan_make(NULL, span->bytes);
    const char *dtype = packing->source->tensors[span->tensor_index].dtype;
    return cllm_plan_make(cllm_dtype_find(dtype, strlen(dtype)), span->bytes);
}

/* The bits that are set in some element of at least `byte_count` bytes of elements; the bytes up to a multiple of 8 behind them
 * are zero. */
static uint64_t join_bits(const uint8_t *elements, size_t byte_count, unsigned element_bytes)
{
    uint64_t bits = 0;
    for (size_t at = 0; at < byte_count; at += 8) bits |= cllm_load_le64(elements + at);
    for (unsigned width = 32; width >= 8 * element_bytes; width /= 2) bits |= bits >> width;
    return bits;
}

/* Numbers in disguise, such as BF16 kept as F32, have low bits that are zero in the whole tensor: the layout drops them. A few
 * elements of any other tensor show that it is none. Uses `buffer`, of CLLM_GROUP_BYTES. */
static enum cllm_status find_zero_bits(struct packing *packing, const struct cllm_source_span *span, uint8_t *buffer,
                                       struct cllm_error *err)
{
    struct cllm_layout *layout = &packing->plan.layout;
    uint64_t low_bits = 0, piece = FIRST_LOOK_BYTES;
    if (layout->element_bytes <= 1 || span->bytes % layout->element_bytes) return CLLM_OK;
    for (uint64_t at = 0; at < span->bytes && (low_bits & 1) == 0; at += piece, piece = CLLM_GROUP_BYTES) {
        if (piece > span->bytes - at) piece = span->bytes - at;
        enum cllm_status status =
            cllm_source_read(packing->source, packing->file_index, span->offset + at, buffer, (size_t)piece, err);
        if (status) return status;
        memset(buffer + piece, 0, (size_t)(-piece & 7));
        low_bits |= join_bits(buffer, (size_t)piece, layout->element_bytes);
    }
    low_bits |= UINT64_C(1) << layout->symbol_shift;
    while ((low_bits >> layout->zero_bits & 1) == 0) layout->zero_bits++;
    return CLLM_OK;
}

/* Moves on to the next file that has a span left. */
static void skip_finished_files(struct packing *packing)
{
    const struct cllm_source *source = packing->source;
    while (packing->file_index < source->file_count && packing->span_index == source->files[packing->file_index].span_count) {
        packing->file_index++;
        packing->span_index = 0;
    }
}

static enum cllm_status prepare_group(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    struct packing *packing = user;
    struct job *job = job_memory;
    skip_finished_files(packing);
    *more_out = packing->file_index < packing->source->file_count;
    if (!*more_out) return CLLM_OK;

    const struct cllm_source_span *span = current_span(packing);
    if (packing->span_offset == 0) {
        packing->plan = plan_span(packing, span);
        enum cllm_status status = find_zero_bits(packing, span, cllm_group_input(job->group), err);
        if (status) return status;
    }
    uint64_t left = span->bytes - packing->span_offset;
    *job = (struct job){
        .group = job->group,
        .leaves = job->leaves,
        .plan = packing->plan,
        .group_index = packing->group_count,
        .offset = span->offset + packing->span_offset,
        .byte_count = left < CLLM_GROUP_BYTES ? (size_t)left : (size_t)CLLM_GROUP_BYTES,
        .file_index = packing->file_index,
        .span_index = packing->span_index,
        .first = packing->span_offset == 0,
        .last = left <= CLLM_GROUP_BYTES,
    };
    packing->span_offset = job->last ? 0 : packing->span_offset + job->byte_count;
    packing->span_index += job->last;
    packing->group_count += job->byte_count > 0;
    if (!packing->file_hashing || job->byte_count == 0) return CLLM_OK;
    return cllm_file_hashing_advance(packing->file_hashing, job->file_index, job->byte_count, err);
}

/* Finishes the digests of all files before `file_index`. */
static enum cllm_status finish_digests(struct packing *packing, uint32_t file_index, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    while (packing->hashed_count < file_index && !status) {
        status = cllm_sha256_finish(packing->file_digest, packing->files[packing->hashed_count++].sha256, err);
    }
    return status;
}

/* Bytes `from` to `from` + `byte_count` of the group are in its input and in the processor's cache. */
static enum cllm_status hash_piece(struct packing *packing, struct job *job, size_t from, size_t byte_count,
                                   struct cllm_error *err)
{
    const uint8_t *input = cllm_group_input(job->group) + from;
    uint8_t *leaves = job->leaves + from / job->plan.chunk_bytes * CLLM_DIGEST_BYTES;
    switch (packing->hashing) {
    case HASH_AS_READ:
        return cllm_sha256_update_with_leaves(packing->file_digest, input, byte_count, job->plan.chunk_bytes, leaves, err);
    case HASH_AS_WRITTEN: return CLLM_OK;
    default: return cllm_sha256_leaves(input, byte_count, job->plan.chunk_bytes, leaves, err);
    }
}

static enum cllm_status encode_group(void *user, void *job_memory, struct cllm_error *err)
{
    struct packing *packing = user;
    struct job *job = job_memory;
    uint8_t *input = cllm_group_input(job->group);
    const size_t whole = PIECE_CHUNKS * job->plan.chunk_bytes;
    enum cllm_status status = packing->hashing == HASH_AS_READ ? finish_digests(packing, job->file_index, err) : CLLM_OK;
    for (size_t from = 0, bytes; from < job->byte_count && !status; from += bytes) {
        bytes = job->byte_count - from < whole ? job->byte_count - from : whole;
        status = cllm_source_read(packing->source, job->file_index, job->offset + from, input + from, bytes, err);
        if (!status) status = hash_piece(packing, job, from, bytes, err);
    }
    if (status) return status;
    if (packing->file_hashing && job->byte_count > 0)
        cllm_file_hashing_note(packing->file_hashing, job->group_index, input, job->byte_count);
    return cllm_group_encode(job->group, &job->plan, job->byte_count, err);
}

/* ----------------------------------------------------------------------------------------------------------- writing */

static enum cllm_status keep_leaves(struct packing *packing, const uint8_t *new_leaves, size_t count, struct cllm_error *err)
{
    if (packing->leaf_capacity - packing->leaf_count < count) {
        size_t capacity = 2 * (packing->leaf_count + count);
        uint8_t *leaves = realloc(packing->leaves, capacity * CLLM_DIGEST_BYTES);
        if (!leaves) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %zu digests", capacity);
        packing->leaves = leaves;
        packing->leaf_capacity = capacity;
    }
    memcpy(packing->leaves + CLLM_DIGEST_BYTES * packing->leaf_count, new_leaves, CLLM_DIGEST_BYTES * count);
    packing->leaf_count += count;
    return CLLM_OK;
}

static enum cllm_status end_span(struct packing *packing, const struct job *job, const struct cllm_source_span *span,
                                 struct cllm_error *err)
{
    uint8_t root[CLLM_DIGEST_BYTES];
    uint32_t data_index = 0;
    bool shared = false;
    enum cllm_status status = cllm_data_root(span->bytes, job->plan.chunk_bytes, packing->leaves, packing->leaf_count, root, err);
    if (!status) status = cllm_writer_end_data(packing->writer, root, &data_index, &shared, err);
    if (status) return status;
    packing->parts[packing->first_part[job->file_index] + job->span_index] = data_index;
    if (shared) packing->report.shared_bytes += span->bytes;
    if (span->tensor_index != CLLM_SPAN_LITERAL) {
        packing->tensors[span->tensor_index].data_index = data_index;
        packing->report.tensor_bytes += span->bytes;
    }
    return CLLM_OK;
}

/* With several threads, none of which hash files apart, the file is hashed here, in order. */
static enum cllm_status hash_group(struct packing *packing, const struct job *job, struct cllm_error *err)
{
    const uint8_t *input = cllm_group_input(job->group);
    if (packing->hashing == HASH_AS_READ || packing->file_hashing) return CLLM_OK;
    enum cllm_status status = finish_digests(packing, job->file_index, err);
    if (status) return status;
    if (packing->hashing == HASH_FILES_AS_WRITTEN) return cllm_sha256_update(packing->file_digest, input, job->byte_count, err);
    return cllm_sha256_update_with_leaves(packing->file_digest, input, job->byte_count, job->plan.chunk_bytes, job->leaves, err);
}

/* From the tables of a group to those of its data object. */
struct table_map {
    uint16_t index[CLLM_GROUP_TABLES_MAX + 1];
};

/* The data object gets those tables that a chunk uses, in their order: that of the masks comes last. */
static enum cllm_status add_tables(struct packing *packing, const struct cllm_group *group, struct table_map *map,
                                   struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    bool used[CLLM_GROUP_TABLES_MAX + 1] = {false};
    uint32_t chunk_count, table_count;
    const struct cllm_ready_chunk *chunks = cllm_group_chunks(group, &chunk_count);
    const struct cllm_table *tables = cllm_group_tables(group, &table_count);
    for (uint32_t k = 0; k < chunk_count; k++) {
        const struct cllm_chunk *chunk = &chunks[k].chunk;
        if (cllm_form_has_table(chunk->form)) used[chunk->table_index] = true;
        if (chunk->form == CLLM_FORM_SPARSE) used[chunk->mask_table_index] = true;
    }
    for (uint32_t t = 0; t < table_count && !status; t++) {
        if (used[t]) status = cllm_writer_add_table(packing->writer, &tables[t], &map->index[t], err);
    }
    return status;
}

static void map_tables(const struct table_map *map, struct cllm_chunk *chunk)
{
    chunk->mask_table_index = chunk->form == CLLM_FORM_SPARSE ? map->index[chunk->mask_table_index] : 0;
    chunk->table_index = cllm_form_has_table(chunk->form) ? map->index[chunk->table_index] : 0;
}

static enum cllm_status write_chunks(struct packing *packing, const struct job *job, const struct cllm_ready_chunk *chunks,
                                     uint32_t chunk_count, struct cllm_error *err)
{
    struct table_map map = {{0}};
    struct cllm_ready_chunk mapped[WRITTEN_AT_ONCE];
    enum cllm_status status = add_tables(packing, job->group, &map, err);
    for (uint32_t k = 0, n; k < chunk_count && !status; k += n) {
        n = chunk_count - k < WRITTEN_AT_ONCE ? chunk_count - k : WRITTEN_AT_ONCE;
        for (uint32_t i = 0; i < n; i++) {
            mapped[i] = chunks[k + i];
            map_tables(&map, &mapped[i].chunk);
        }
        status = cllm_writer_add_chunks(packing->writer, mapped, n, err);
    }
    return status;
}

static enum cllm_status write_group(struct packing *packing, struct job *job, struct cllm_error *err)
{
    const struct cllm_source_span *span = &packing->source->files[job->file_index].spans[job->span_index];
    enum cllm_status status = CLLM_OK;
    if (job->first) {
        packing->leaf_count = 0;
        status = cllm_writer_begin_data(packing->writer, span->bytes, job->plan.chunk_bytes, &job->plan.layout, err);
    }
    uint32_t chunk_count = 0;
    const struct cllm_ready_chunk *chunks = cllm_group_chunks(job->group, &chunk_count);
    if (!status) status = write_chunks(packing, job, chunks, chunk_count, err);
    if (!status) status = keep_leaves(packing, job->leaves, chunk_count, err);
    if (!status && job->last) status = end_span(packing, job, span, err);
    packing->report.chunk_count += chunk_count;
    return status;
}

static enum cllm_status finish_group(void *user, void *job_memory, struct cllm_error *err)
{
    struct packing *packing = user;
    struct job *job = job_memory;
    enum cllm_status status = hash_group(packing, job, err);
    if (!status) status = write_group(packing, job, err);
    packing->done_bytes += job->byte_count;
    const struct cllm_progress *progress = packing->options->progress;
    if (!status && progress && !progress->report(progress->user, packing->done_bytes, packing->source->total_bytes)) {
        return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------------- whole source */

static enum cllm_status fail_memory(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for packing");
}

/* Everything of the index that is known beforehand. */
static enum cllm_status describe_source(struct packing *packing, struct cllm_error *err)
{
    const struct cllm_source *source = packing->source;
    size_t part_count = 0;
    packing->tensors = calloc((size_t)source->tensor_count + 1, sizeof *packing->tensors);
    packing->files = calloc((size_t)source->file_count + 1, sizeof *packing->files);
    packing->first_part = calloc((size_t)source->file_count + 1, sizeof *packing->first_part);
    if (!packing->tensors || !packing->files || !packing->first_part) return fail_memory(err);
    for (uint32_t i = 0; i < source->tensor_count; i++) {
        const struct cllm_source_tensor *from = &source->tensors[i];
        packing->tensors[i] = (struct cllm_tensor){
            .name = from->name,
            .name_bytes = from->name_bytes,
            .dtype = from->dtype,
            .element_bits = from->element_bits,
            .rank = from->rank,
            .shape = from->shape,
            .file_index = from->file_index,
        };
    }
    for (uint32_t i = 0; i < source->file_count; i++) {
        const struct cllm_source_file *from = &source->files[i];
        size_t name_bytes = strlen(from->name);
        if (!cllm_file_name_is_safe(from->name, name_bytes)) {
            char printable[200];
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                             "file name \"%s\" cannot be stored: expected a plain relative path "
                             "without control characters or backslash",
                             cllm_escape(from->name, name_bytes, printable, sizeof printable));
        }
        packing->first_part[i] = part_count;
        part_count += from->span_count;
        packing->files[i] = (struct cllm_file){
            .name = from->name,
            .name_bytes = (uint32_t)name_bytes,
            .bytes = from->bytes,
            .part_count = from->span_count,
        };
    }
    packing->parts = calloc(part_count + 1, sizeof *packing->parts);
    if (!packing->parts) return fail_memory(err);
    for (uint32_t i = 0; i < source->file_count; i++) packing->files[i].parts = packing->parts + packing->first_part[i];
    return CLLM_OK;
}

/* Chooses who hashes, and takes threads that only hash files off the others. */
static enum cllm_status start_hashing(struct packing *packing, unsigned *thread_count, struct cllm_error *err)
{
    const unsigned hashing_count = cllm_file_hashing_threads(packing->source, *thread_count);
    if (*thread_count == 1) return CLLM_OK;
    packing->hashing = cllm_sha256_apart(*thread_count) ? HASH_FILES_AS_WRITTEN : HASH_AS_WRITTEN;
    if (hashing_count == 0) return CLLM_OK;
    enum cllm_status status = cllm_file_hashing_create(packing->source, hashing_count, 0, &packing->file_hashing, err);
    if (status || !packing->file_hashing) return status;
    packing->hashing = HASH_FILES_APART;
    *thread_count -= hashing_count;
    return CLLM_OK;
}

static enum cllm_status encode_all(struct packing *packing, struct cllm_error *err)
{
    const struct cllm_pipeline pipeline = {packing, prepare_group, encode_group, finish_group};
    unsigned thread_count = cllm_thread_count(packing->options->thread_count);
    struct job jobs[JOBS_MAX] = {{0}};
    void *pointers[JOBS_MAX];
    enum cllm_status status = start_hashing(packing, &thread_count, err);
    unsigned job_count = cllm_pipeline_job_count(thread_count);
    if (job_count > JOBS_MAX) job_count = JOBS_MAX;
    for (unsigned i = 0; i < job_count; i++) {
        pointers[i] = &jobs[i];
        jobs[i].leaves = malloc(LEAVES_MAX * CLLM_DIGEST_BYTES);
        if (!status && !jobs[i].leaves) status = fail_memory(err);
        if (!status) status = cllm_group_create(&jobs[i].group, err);
    }
    if (!status) status = cllm_pipeline_run(&pipeline, pointers, job_count, thread_count, err);
    if (!status) {
        status = packing->file_hashing
                     ? cllm_file_hashing_finish(packing->file_hashing, packing->options->progress, packing->files, err)
                     : finish_digests(packing, packing->source->file_count, err);
    }
    cllm_file_hashing_destroy(packing->file_hashing);
    packing->file_hashing = NULL;
    for (unsigned i = 0; i < job_count; i++) {
        cllm_group_destroy(jobs[i].group);
        free(jobs[i].leaves);
    }
    return status;
}

static enum cllm_status write_index(struct packing *packing, struct cllm_error *err)
{
    const struct cllm_source *source = packing->source;
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 0; i < source->tensor_count && !status; i++) {
        status = cllm_writer_add_tensor(packing->writer, &packing->tensors[i], err);
    }
    for (uint32_t i = 0; i < source->file_count && !status; i++) {
        status = cllm_writer_add_file(packing->writer, &packing->files[i], err);
    }
    if (!status) status = cllm_writer_finish(packing->writer, packing->report.root, err);
    return status;
}

/* Every chunk was decoded and compared in memory; here the bytes that reached the file are shown to be those. */
static enum cllm_status check_written(const struct packing *packing, const struct cllm_output *output, struct cllm_error *err)
{
    struct cllm_reader *reader = NULL;
    struct cllm_verify_report report;
    const struct cllm_verify_options options = {.quick = true, .thread_count = packing->options->thread_count};
    enum cllm_status status = cllm_reader_open(cllm_output_readable_path(output), &reader, err);
    if (!status && memcmp(cllm_reader_index(reader)->root, packing->report.root, CLLM_DIGEST_BYTES) != 0) {
        status = cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "root digest of the written container differs");
    }
    if (!status) status = cllm_verify(reader, &options, &report, err);
    cllm_reader_close(reader);
    return status
               ? cllm_fail_context(err, status == CLLM_E_NOMEM ? status : CLLM_E_INTERNAL, "self-check of the written container")
               : CLLM_OK;
}

static enum cllm_status create_output(const struct packing *packing, const char *path, struct cllm_output **output_out,
                                      struct cllm_error *err)
{
    char printable[200];
    if (!cllm_source_owns(packing->source, path)) return cllm_output_create(path, packing->options->replace, output_out, err);
    return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "%s is one of the input files",
                     cllm_escape(path, strlen(path), printable, sizeof printable));
}

static enum cllm_status pack_to(struct packing *packing, struct cllm_output *output, struct cllm_error *err)
{
    enum cllm_status status = describe_source(packing, err);
    if (!status) status = cllm_writer_create(output, &packing->writer, err);
    if (!status) status = cllm_sha256_create(&packing->file_digest, err);
    if (!status) status = encode_all(packing, err);
    /* What was read twice and differs is no bug, if somebody wrote to it meanwhile. */
    if (status == CLLM_E_INTERNAL) {
        struct cllm_error changed;
        const enum cllm_status found = cllm_source_check_unchanged(packing->source, &changed);
        if (found) return cllm_fail(err, found, CLLM_NO_OFFSET, "%s", changed.message);
    }
    if (!status) status = cllm_source_check_unchanged(packing->source, err);
    if (!status) status = write_index(packing, err);
    if (!status) status = check_written(packing, output, err);
    return status;
}

enum cllm_status cllm_pack(const struct cllm_source *source, const char *output_path, const struct cllm_pack_options *options,
                           struct cllm_pack_report *report_out, struct cllm_error *err)
{
    static const struct cllm_pack_options defaults = {0};
    struct packing packing = {.source = source, .options = options ? options : &defaults};
    struct cllm_output *output = NULL;
    packing.report.source_bytes = source->total_bytes;
    packing.report.file_count = source->file_count;
    packing.report.tensor_count = source->tensor_count;
    enum cllm_status status = create_output(&packing, output_path, &output, err);
    if (!status) status = pack_to(&packing, output, err);
    if (status) {
        cllm_output_discard(output);
    } else {
        packing.report.container_bytes = cllm_output_bytes(output);
        status = cllm_output_commit(output, err);
    }
    cllm_writer_destroy(packing.writer);
    cllm_sha256_destroy(packing.file_digest);
    free(packing.leaves);
    free(packing.tensors);
    free(packing.files);
    free(packing.parts);
    free(packing.first_part);
    *report_out = packing.report;
    return status;
}

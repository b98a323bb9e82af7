/* verify.c - all files of a container, and what lies between them. */
#include "layout.h"
#include "reader.h"
#include "walks.h"

#include <stdlib.h>

struct verifying {
    const struct cllm_reader *reader;
    const struct cllm_index *index;
    const struct cllm_verify_options *options;
    bool *data_bad;
    uint64_t problem_count;
    struct cllm_error first_problem;
};

/* Verification goes on after a problem. */
static enum cllm_status note_problem(void *user, const struct cllm_error *problem, struct cllm_error *err)
{
    struct verifying *all = user;
    (void)err;
    if (all->problem_count++ == 0) all->first_problem = *problem;
    if (all->options->problem) all->options->problem(all->options->user, problem);
    return CLLM_OK;
}

static void note_bad_data(void *user, uint32_t data_index)
{
    ((struct verifying *)user)->data_bad[data_index] = true;
}

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
    if (status) (void)note_problem(all, &problem, NULL);
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

static enum cllm_status verify_all(struct verifying *all, struct cllm_verify_report *report, struct cllm_error *err)
{
    const struct cllm_verify_options *options = all->options;
    const struct cllm_engine *engine = options->quick ? NULL : options->engine;
    const struct cllm_walks_options walks = {.reader = all->reader,
                                             .file_count = all->index->file_count,
                                             .engine = engine,
                                             .progress = options->progress,
                                             .thread_count = options->thread_count,
                                             .quick = options->quick,
                                             .once = options->quick || engine,
                                             .user = all,
                                             .problem = note_problem,
                                             .bad_data = note_bad_data};
    all->data_bad = calloc((size_t)all->index->data_count + 1, sizeof *all->data_bad);
    if (!all->data_bad) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for verifying");
    const enum cllm_status status = cllm_walks_run(&walks, report, err);
    if (status) return status;
    check_gaps(all);
    for (uint32_t t = 0; t < all->index->tensor_count; t++) {
        report->tensor_count += !all->data_bad[all->index->tensors[t].data_index];
    }
    report->problem_count = all->problem_count;
    if (all->problem_count == 0) return CLLM_OK;
    if (err) *err = all->first_problem;
    return all->first_problem.status;
}

enum cllm_status cllm_verify(const struct cllm_reader *reader, const struct cllm_verify_options *options,
                             struct cllm_verify_report *report_out, struct cllm_error *err)
{
    static const struct cllm_verify_options defaults = {0};
    struct verifying all = {.reader = reader, .index = cllm_reader_index(reader), .options = options ? options : &defaults};
    *report_out = (struct cllm_verify_report){0};
    const enum cllm_status status = verify_all(&all, report_out, err);
    free(all.data_bad);
    return status;
}

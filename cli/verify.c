/* verify.c - verifies containers and reports. */
#include "verify.h"

#include "against.h"
#include "cllm_decode.h"
#include "digest.h"
#include "message.h"
#include "progress.h"
#include "report.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEM_LINES_MAX 20 /* of one container; more would bury the rest */

/* What is known about one container, and the totals of all. */
struct run {
    const struct cllm_verify_request *request;
    int exit_code;
    uint64_t container_count; /* that were verified */
    uint64_t problem_count;
    uint64_t equal_count; /* files that --against found equal */
    struct cllm_verify_report total;
    char root[2 * CLLM_DIGEST_BYTES + 1]; /* of the last container */
    json_t *documents;

    const char *name; /* of the current container */
    uint64_t current_problem_count;
    json_t *current_problems;
};

static bool prints_failures(const struct run *run)
{
    return !run->request->status && !run->request->common.json && run->request->common.quiet_level < 2;
}

static bool prints_all(const struct run *run)
{
    return prints_failures(run) && run->request->common.quiet_level == 0;
}

/* `shown_name` stands before the message; null where the message has it already. */
static void add_problem(struct run *run, enum cllm_status status, const char *shown_name, const char *message)
{
    run->problem_count++;
    run->exit_code = cllm_exit_worse(run->exit_code, cllm_exit_code(status));
    if (++run->current_problem_count > PROBLEM_LINES_MAX) return;
    cllm_complain("%s%s%s", shown_name ? shown_name : "", shown_name ? ": " : "", message);
    json_t *problem = json_object();
    json_object_set_new(problem, "id", json_string(cllm_exit_id(cllm_exit_code(status))));
    cllm_json_set_name(problem, "message", message, strlen(message));
    json_array_append_new(run->current_problems, problem);
}

static void note_problem(void *user, enum cllm_status status, const char *message)
{
    struct run *run = user;
    add_problem(run, status, cllm_shown(run->name), message);
}

static void note_error(void *user, const struct cllm_error *problem)
{
    note_problem(user, problem->status, problem->message);
}

static void add_report(struct cllm_verify_report *total, const struct cllm_verify_report *report)
{
    total->tensor_count += report->tensor_count;
    total->file_count += report->file_count;
    total->rehashed_count += report->rehashed_count;
    total->engine_bytes += report->engine_bytes;
    total->chunk_count += report->chunk_count;
    total->decoded_bytes += report->decoded_bytes;
    total->stored_bytes += report->stored_bytes;
}

/* A failure that the library returned without having called back about it. */
static void note_unreported(struct run *run, uint64_t problem_count_before, enum cllm_status status, const struct cllm_error *err)
{
    if (status && (run->problem_count == problem_count_before || status == CLLM_E_INTERRUPTED)) note_error(run, err);
}

static void verify_content(struct run *run, const struct cllm_reader *reader, struct cllm_verify_report *report)
{
    const struct cllm_verify_request *request = run->request;
    struct cllm_meter meter;
    struct cllm_error err = {0};
    uint64_t before = run->problem_count;
    cllm_meter_start(&meter, "verifying", !request->common.no_progress && request->common.quiet_level == 0 && !request->status);
    struct cllm_verify_options options = {.thread_count = request->common.thread_count,
                                          .quick = request->quick,
                                          .engine = request->engine,
                                          .progress = &meter.progress,
                                          .problem = note_error,
                                          .user = run};
    enum cllm_status status = cllm_verify(reader, &options, report, &err);
    cllm_meter_stop(&meter);
    note_unreported(run, before, status, &err);
    if (!status && report->chunk_count == 0 && (request->quick || report->file_count == 0)) {
        note_problem(run, CLLM_E_CORRUPT, "nothing was there to be verified");
    }
}

static void compare_against(struct run *run, const struct cllm_reader *reader)
{
    const struct cllm_common_options *common = &run->request->common;
    struct cllm_meter meter;
    struct cllm_error err = {0};
    uint64_t before = run->problem_count, equal_count = 0;
    cllm_meter_start(&meter, "comparing", !common->no_progress && common->quiet_level == 0 && !run->request->status);
    struct cllm_against against = {run->request->against, &meter.progress, note_problem, run};
    enum cllm_status status = cllm_against_compare(&against, reader, &equal_count, &err);
    cllm_meter_stop(&meter);
    note_unreported(run, before, status, &err);
    run->equal_count += equal_count;
}

static void print_tags(const struct cllm_index *index)
{
    char hex[2 * CLLM_DIGEST_BYTES + 1], after[sizeof hex + 4];
    for (uint32_t i = 0; i < index->file_count; i++) {
        snprintf(after, sizeof after, ") = %s", cllm_digest_hex(index->files[i].sha256, hex));
        cllm_print_name_line("SHA256 (", index->files[i].name, after);
    }
}

/* The container's object in the JSON document; takes over the list of problems. */
static void add_document(struct run *run, const struct cllm_index *index, const struct cllm_verify_report *report)
{
    json_t *document = json_object();
    cllm_json_set_name(document, "name", run->name, strlen(run->name));
    json_object_set_new(document, "ok", json_boolean(run->current_problem_count == 0));
    if (index) {
        json_object_set_new(document, "root", cllm_json_digest(index->root));
        json_object_set_new(document, "tensors", json_integer((json_int_t)report->tensor_count));
        json_object_set_new(document, "files", json_integer((json_int_t)report->file_count));
        json_object_set_new(document, "files_rehashed", json_integer((json_int_t)report->rehashed_count));
        json_object_set_new(document, "gpu_bytes", json_integer((json_int_t)report->engine_bytes));
        json_object_set_new(document, "chunks", json_integer((json_int_t)report->chunk_count));
        json_object_set_new(document, "decoded_bytes", json_integer((json_int_t)report->decoded_bytes));
        json_object_set_new(document, "stored_bytes", json_integer((json_int_t)report->stored_bytes));
    }
    if (index && run->request->tag) {
        json_t *digests = json_array();
        for (uint32_t i = 0; i < index->file_count; i++) {
            json_t *file = json_object();
            cllm_json_set_name(file, "name", index->files[i].name, index->files[i].name_bytes);
            json_object_set_new(file, "digest", cllm_json_digest(index->files[i].sha256));
            json_array_append_new(digests, file);
        }
        json_object_set_new(document, "file_digests", digests);
    }
    json_object_set_new(document, "error_count", json_integer((json_int_t)run->current_problem_count));
    json_object_set(document, "errors", run->current_problems);
    json_array_append_new(run->documents, document);
}

static void verify_container(struct run *run, const char *path)
{
    struct cllm_reader *reader = NULL;
    struct cllm_error err = {0};
    struct cllm_verify_report report = {0};
    run->name = path;
    run->current_problem_count = 0;
    run->current_problems = json_array();
    if (cllm_reader_open(path, &reader, &err)) add_problem(run, err.status, NULL, err.message);
    const struct cllm_index *index = reader ? cllm_reader_index(reader) : NULL;
    if (reader) {
        verify_content(run, reader, &report);
        if (run->request->against && !cllm_signal_caught()) compare_against(run, reader);
        add_report(&run->total, &report);
        run->container_count++;
        cllm_digest_hex(index->root, run->root);
    }
    if (run->current_problem_count > PROBLEM_LINES_MAX) {
        cllm_complain("%s: and %llu more", cllm_shown(path),
                      (unsigned long long)(run->current_problem_count - PROBLEM_LINES_MAX));
    }
    bool ok = run->current_problem_count == 0;
    assert(index || !ok); /* that it did not open is a problem */
    if (run->request->common.json) add_document(run, index, &report);
    else if (run->request->tag && ok) print_tags(index);
    else if (ok ? prints_all(run) : prints_failures(run)) cllm_print_name_line("", path, ok ? ": OK" : ": FAILED");
    if (ok && prints_all(run) && !run->request->tag && run->request->common.verbose_level) {
        printf("root sha256:%s\n", run->root);
    }
    fflush(stdout); /* so that lines of the two outputs are in order where they are one */
    json_decref(run->current_problems);
    cllm_reader_close(reader);
}

/* Which promise held. */
static const char *promise(const struct run *run)
{
    if (run->problem_count) return "FAILED: nothing is promised";
    return run->request->quick
               ? "integrity of the stored bytes against the container's own checksums, nothing decoded; authenticity not checked"
               : "integrity against the container's own digests; authenticity not checked";
}

static void print_counts(const struct run *run, int container_count)
{
    const struct cllm_verify_request *request = run->request;
    const struct cllm_verify_report *total = &run->total;
    char size[32];
    printf("verified ");
    if (container_count > 1) printf("%llu of %d containers, ", (unsigned long long)run->container_count, container_count);
    if (!request->quick) {
        printf("%llu tensors, %llu files, ", (unsigned long long)total->tensor_count, (unsigned long long)total->file_count);
    }
    printf("%llu chunks, %s; %llu error%s; ", (unsigned long long)total->chunk_count,
           cllm_size_text(request->quick ? total->stored_bytes : total->decoded_bytes, size),
           (unsigned long long)run->problem_count, run->problem_count == 1 ? "" : "s");
    if (container_count == 1 && run->root[0]) printf("root sha256:%s; ", run->root);
    if (request->against) printf("%llu files equal to %s; ", (unsigned long long)run->equal_count, cllm_shown(request->against));
    if (request->engine && !request->quick) {
        printf("%s of them on %s, the SHA-256 of %llu files recorded, not recomputed; ",
               cllm_size_text(total->engine_bytes, size), request->engine->name,
               (unsigned long long)(total->file_count - total->rehashed_count));
    }
    puts(promise(run));
}

static int print_summary_document(struct run *run)
{
    struct cllm_error err = {0};
    json_t *summary = json_pack("{s:s, s:O, s:I, s:s, s:i, s:s}", "message_type", "summary", "containers", run->documents,
                                "error_count", (json_int_t)run->problem_count, "promise", promise(run), "exit_code",
                                run->exit_code, "exit_id", cllm_exit_id(run->exit_code));
    if (summary && run->request->against) {
        cllm_json_set_name(summary, "against", run->request->against, strlen(run->request->against));
        json_object_set_new(summary, "equal_files", json_integer((json_int_t)run->equal_count));
    }
    return cllm_json_print(summary, &err) ? cllm_fatal_error(&err) : run->exit_code;
}

int cllm_verify_containers(const struct cllm_verify_request *request, const char *const *containers, int container_count)
{
    struct run run = {.request = request, .documents = json_array()};
    for (int i = 0; i < container_count && !cllm_signal_caught(); i++) {
        verify_container(&run, containers[i]);
    }
    if (cllm_signal_caught()) run.exit_code = cllm_exit_code(CLLM_E_INTERRUPTED);
    if (request->common.json) {
        run.exit_code = print_summary_document(&run);
    } else if (prints_all(&run) && !request->tag) {
        print_counts(&run, container_count);
    }
    json_decref(run.documents);
    return run.exit_code;
}

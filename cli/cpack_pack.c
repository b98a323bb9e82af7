/* cpack_pack.c - a checkpoint into a container. */
#include "cpack.h"

#include "cllm_encode.h"
#include "digest.h"
#include "message.h"
#include "progress.h"
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES (UINT32_C(1) << 20)

static bool ends_with(const char *name, const char *suffix)
{
    size_t name_bytes = strlen(name), suffix_bytes = strlen(suffix);
    return name_bytes >= suffix_bytes && strcmp(name + name_bytes - suffix_bytes, suffix) == 0;
}

static bool is_weights(const char *name)
{
    return ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json");
}

/* ------------------------------------------------------------------------------------------------------------ reports */

static void print_summary(const struct cllm_source *source, const char *output, const struct cllm_pack_report *report,
                          bool only_literals)
{
    char hex[2 * CLLM_DIGEST_BYTES + 1], before[32], after[32];
    double percent = report->source_bytes ? 100.0 * (double)report->container_bytes / (double)report->source_bytes : 100.0;
    printf("%s: %s in %u file%s -> %s (%.2f %%), %u tensors, root sha256:%s\n", cllm_shown(output),
           cllm_size_text(report->source_bytes, before), report->file_count, report->file_count == 1 ? "" : "s",
           cllm_size_text(report->container_bytes, after), percent, report->tensor_count, cllm_digest_hex(report->root, hex));
    const char *separator = "came along: ";
    for (uint32_t i = 0; i < source->file_count && !only_literals; i++) {
        if (is_weights(source->files[i].name)) continue;
        printf("%s%s", separator, cllm_shown(source->files[i].name));
        separator = ", ";
    }
    if (separator[0] == ',') puts("");
}

static json_t *make_document(const struct cllm_source *source, const char *input, const char *output,
                             const struct cllm_pack_report *report, double seconds)
{
    json_t *document =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "message_type", "summary", "source_bytes",
                  (json_int_t)report->source_bytes, "container_bytes", (json_int_t)report->container_bytes, "tensor_bytes",
                  (json_int_t)report->tensor_bytes, "shared_bytes", (json_int_t)report->shared_bytes, "file_count",
                  (json_int_t)report->file_count, "tensor_count", (json_int_t)report->tensor_count, "chunk_count",
                  (json_int_t)report->chunk_count, "seconds", seconds);
    if (!document) return NULL;
    cllm_json_set_name(document, "input", input, strlen(input));
    cllm_json_set_name(document, "output", output, strlen(output));
    json_object_set_new(document, "root", cllm_json_digest(report->root));
    json_t *files = json_array(), *warnings = json_array();
    for (uint32_t i = 0; i < source->file_count; i++) {
        json_t *file = json_object();
        cllm_json_set_name(file, "name", source->files[i].name, strlen(source->files[i].name));
        json_object_set_new(file, "bytes", json_integer((json_int_t)source->files[i].bytes));
        json_array_append_new(files, file);
    }
    for (uint32_t i = 0; i < source->warning_count; i++) {
        json_array_append_new(warnings, json_string(source->warnings[i]));
    }
    json_object_set_new(document, "files", files);
    json_object_set_new(document, "warnings", warnings);
    return document;
}

/* ----------------------------------------------------------------------------------------------------- after the commit */

/* Deletes what --rm is about: the weights (and the index over them), or with --opaque the input; never the small files that
 * came along. */
static enum cllm_status remove_sources(const struct cpack_options *options, const struct cllm_source *source, const char *input,
                                       struct cllm_error *err)
{
    struct stat info;
    const char *slash = strrchr(input, '/');
    if (stat(input, &info) != 0)
        return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot remove %s: %s", cllm_shown(input), strerror(errno));
    bool is_directory = S_ISDIR(info.st_mode);
    int folder_bytes = is_directory ? (int)strlen(input) : slash ? (int)(slash - input) + 1 : 0;
    enum cllm_status status = cllm_source_check_unchanged(source, err);
    for (uint32_t i = 0; i < source->file_count && !status; i++) {
        const char *name = source->files[i].name;
        char *path = NULL;
        if (!options->opaque && !is_weights(name)) continue;
        if (asprintf(&path, "%.*s%s%s", folder_bytes, input, is_directory ? "/" : "", name) < 0) {
            return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
        }
        if (unlink(path) != 0) {
            status = cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot remove %s: %s", cllm_shown(path), strerror(errno));
        }
        free(path);
    }
    return status;
}

/* Copies a file to standard output. */
static enum cllm_status copy_to_stdout(int fd, const struct cllm_progress *progress, struct cllm_error *err)
{
    struct stat info;
    uint64_t done_bytes = 0;
    enum cllm_status status = CLLM_OK;
    char *buffer = malloc(COPY_BYTES);
    if (!buffer) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
    uint64_t total_bytes = fstat(fd, &info) == 0 ? (uint64_t)info.st_size : 0;
    while (!status) {
        ssize_t count = read(fd, buffer, COPY_BYTES);
        if (count == 0) break;
        if (!progress->report(progress->user, done_bytes, total_bytes)) {
            status = cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
        } else if (count > 0) {
            status = cllm_stdout_write(buffer, (size_t)count, err);
            done_bytes += (uint64_t)count;
        } else if (errno != EINTR) {
            status = cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot read the temporary container: %s", strerror(errno));
        }
    }
    free(buffer);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ packing */

struct packing {
    const struct cpack_options *options;
    const struct cllm_source *source;
    struct cllm_pack_report report;
    struct cllm_meter meter;
};

static enum cllm_status pack_to_file(struct packing *packing, const char *path, struct cllm_error *err)
{
    const struct cllm_common_options *common = &packing->options->common;
    struct cllm_pack_options options = {common->thread_count, packing->options->force, &packing->meter.progress};
    return cllm_pack(packing->source, path, &options, &packing->report, err);
}

/* Through a file in a private directory, which has no name any more when the first byte is written: what is a container only
 * at its end must not leave before it is whole. */
static enum cllm_status pack_to_stdout(struct packing *packing, struct cllm_error *err)
{
    const char *folder = getenv("TMPDIR");
    char *private = NULL, *path = NULL;
    int fd = -1;
    enum cllm_status status = CLLM_OK;
    if (asprintf(&private, "%s/cpack-XXXXXX", folder && *folder ? folder : "/tmp") < 0) {
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
    }
    if (!mkdtemp(private)) {
        status = cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot create %s: %s", cllm_shown(private), strerror(errno));
    } else {
        if (asprintf(&path, "%s/container", private) < 0) path = NULL;
        status = path ? pack_to_file(packing, path, err) : cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
        if (!status) fd = open(path, O_RDONLY | O_CLOEXEC);
        if (!status && fd < 0) status = cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot open %s: %s", path, strerror(errno));
        if (path) unlink(path);
        rmdir(private);
    }
    if (!status) status = copy_to_stdout(fd, &packing->meter.progress, err);
    if (fd >= 0) close(fd);
    free(path);
    free(private);
    return status;
}

/* What cannot be asked for together. */
static int check_request(const struct cpack_options *options)
{
    if (!options->output) return cllm_fatal_usage("an output is needed: -o OUT.cllm, or -o - for standard output");
    if (options->file_name) return cllm_fatal_usage("--file goes with -d");
    if (strcmp(options->output, "-") != 0) return 0;
    if (options->common.json) return cllm_fatal_usage("--json and -o - both want standard output");
    if (options->remove_source) return cllm_fatal_usage("--rm needs an output file: what reads standard output may fail later");
    if (isatty(STDOUT_FILENO)) return cllm_fatal_usage("a container is not written to a terminal; use -o FILE or a pipe");
    return 0;
}

static enum cllm_status report_success(const struct packing *packing, const char *input, struct cllm_error *err)
{
    const struct cpack_options *options = packing->options;
    if (options->common.json) {
        return cllm_json_print(
            make_document(packing->source, input, options->output, &packing->report, cllm_meter_seconds(&packing->meter)), err);
    }
    if (options->common.quiet_level == 0) print_summary(packing->source, options->output, &packing->report, options->opaque);
    return CLLM_OK;
}

int cpack_pack(const struct cpack_options *options, const char *input)
{
    int exit_code = check_request(options);
    if (exit_code) return exit_code;
    const bool to_stdout = strcmp(options->output, "-") == 0;
    const struct cllm_source_options source_options = {options->only_weights, options->opaque};
    struct cllm_source *source = NULL;
    struct cllm_error err = {0};
    enum cllm_status status = cllm_source_open(input, &source_options, &source, &err);
    if (status) {
        cllm_fail_context(&err, status, "%s", cllm_shown(input));
        return cllm_fatal_error(&err);
    }
    for (uint32_t i = 0; i < source->warning_count; i++) {
        cllm_warn("%s", source->warnings[i]);
    }

    struct packing packing = {.options = options, .source = source};
    cllm_meter_start(&packing.meter, "packing", !options->common.no_progress && options->common.quiet_level == 0);
    status = to_stdout ? pack_to_stdout(&packing, &err) : pack_to_file(&packing, options->output, &err);
    cllm_meter_stop(&packing.meter);
    if (!status && !to_stdout) status = report_success(&packing, input, &err);
    if (!status && options->remove_source) status = remove_sources(options, source, input, &err);
    cllm_source_close(source);
    return status ? cllm_fatal_error(&err) : CLLM_EXIT_OK;
}

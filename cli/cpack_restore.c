/* cpack_restore.c - a container back into files.
 *
 * Files appear under their names only when the SHA-256 of every one is that of the container, so that no failure leaves a part of
 * a checkpoint, or one mixed with what was there. The folders below the target directory are walked one by one without following
 * symbolic links, so that no name leads out of it. */
#include "cpack.h"

#include "cllm_decode.h"
#include "layout.h"
#include "message.h"
#include "output.h"
#include "progress.h"
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define OPEN_FILES_SPARE 16u /* besides the outputs: descriptors that come and go while files are restored */

/* A file of the container that has no name yet. */
struct pending {
    struct cllm_output *output;
    const char *made; /* in the file's name: the first folder that was missing and has been made; or null */
};

struct restoring {
    const struct cpack_options *options;
    const struct cllm_reader *reader;
    const struct cllm_index *index;
    const struct cllm_engine *engine; /* decodes what it takes; or null */
    uint64_t engine_bytes;            /* that came from it */
    struct cllm_meter meter;
    struct stat container;   /* which file it was when it was opened */
    int directory_fd;        /* the target */
    struct pending *pending; /* of each file, where all are restored */
};

static struct cllm_restore_options choose_options(struct restoring *restoring)
{
    return (struct cllm_restore_options){.thread_count = restoring->options->common.thread_count,
                                         .progress = &restoring->meter.progress,
                                         .engine = restoring->engine,
                                         .engine_bytes = &restoring->engine_bytes};
}

static enum cllm_status write_to_output(void *user, const void *bytes, size_t byte_count, struct cllm_error *err)
{
    return cllm_output_write(user, bytes, byte_count, err);
}

static enum cllm_status write_to_stdout(void *user, const void *bytes, size_t byte_count, struct cllm_error *err)
{
    (void)user;
    return cllm_stdout_write(bytes, byte_count, err);
}

static enum cllm_status fail_at(struct cllm_error *err, enum cllm_status status, const char *name, const char *problem)
{
    return cllm_fail(err, status, CLLM_NO_OFFSET, "%s: %s", cllm_shown(name), problem);
}

static bool is_same_file(const struct stat *left, const struct stat *right)
{
    return left->st_dev == right->st_dev && left->st_ino == right->st_ino;
}

/* ------------------------------------------------------------------------------------------------- into a directory */

/* Opens the folder of `name` below the target. What is missing is made, and `*made_out` becomes the first such part of `name`;
 * where `made_out` is null, a missing one gives -1. */
static enum cllm_status open_parent(const struct restoring *restoring, const char *name, const char **made_out, int *fd_out,
                                    struct cllm_error *err)
{
    char part[256]; /* the reader allows 255 bytes */
    *fd_out = -1;
    int fd = openat(restoring->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (const char *slash; fd >= 0 && (slash = strchr(name, '/')); name = slash + 1) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - name), name);
        if (made_out && mkdirat(fd, part, 0777) == 0) {
            if (!*made_out) *made_out = name;
        } else if (made_out && errno != EEXIST) {
            int error = errno;
            close(fd);
            return fail_at(err, CLLM_E_IO, part, strerror(error));
        }
        int next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        close(fd);
        fd = next;
        errno = error;
        if (next < 0 && (error == ELOOP || error == ENOTDIR)) {
            return fail_at(err, CLLM_E_EXISTS, part, "a symbolic link or file is where a folder is needed; it is not followed");
        }
    }
    if (fd < 0 && (errno != ENOENT || made_out)) return fail_at(err, CLLM_E_IO, name, strerror(errno));
    *fd_out = fd;
    return CLLM_OK;
}

static const char *last_part(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

/* Nothing must be there that the restored file would replace; with -f only a regular file, and never the container: what could
 * be restored again would be gone, and with --rm the restored file as well. */
static enum cllm_status check_free(const struct restoring *restoring, const struct cllm_file *file, struct cllm_error *err)
{
    struct stat info;
    int fd;
    enum cllm_status status = open_parent(restoring, file->name, NULL, &fd, err);
    if (status || fd < 0) return status;
    bool exists = fstatat(fd, last_part(file->name), &info, AT_SYMLINK_NOFOLLOW) == 0;
    close(fd);
    if (!exists) return CLLM_OK;
    if (is_same_file(&info, &restoring->container))
        return fail_at(err, CLLM_E_USAGE, file->name, "the output is the container; nothing was restored");
    if (!restoring->options->force)
        return fail_at(err, CLLM_E_EXISTS, file->name, "exists and is not overwritten; nothing was restored");
    if (S_ISREG(info.st_mode)) return CLLM_OK;
    return fail_at(err, CLLM_E_EXISTS, file->name, "exists and is no regular file; nothing was restored");
}

static enum cllm_status check_all_free(const struct restoring *restoring, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 0; i < restoring->index->file_count && !status; i++) {
        status = check_free(restoring, &restoring->index->files[i], err);
    }
    return status;
}

static enum cllm_status check_space(const struct restoring *restoring, uint64_t needed_bytes, struct cllm_error *err)
{
    struct statvfs info;
    char needed[32], found[32];
    if (fstatvfs(restoring->directory_fd, &info) != 0 || info.f_blocks == 0) return CLLM_OK; /* not known here */
    uint64_t free_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    if (free_bytes >= needed_bytes) return CLLM_OK;
    return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "%s: found %s free, expected %s", cllm_shown(restoring->options->output),
                     cllm_size_text(free_bytes, found), cllm_size_text(needed_bytes, needed));
}

/* All outputs are open until the last file is verified, each with its folder. The limit of a process is often far below what it
 * may be raised to, and is raised for this one. */
static enum cllm_status allow_open_files(const struct restoring *restoring, struct cllm_error *err)
{
    const rlim_t others = (rlim_t)restoring->directory_fd + 1 + OPEN_FILES_SPARE; /* descriptors are given from the lowest */
    const rlim_t needed = others + 2 * (rlim_t)restoring->index->file_count;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return CLLM_OK;
    if (limit.rlim_max < needed) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET,
                         "found %u files, expected at most %llu with %llu open files (ulimit -Hn)", restoring->index->file_count,
                         (unsigned long long)(limit.rlim_max > others ? (limit.rlim_max - others) / 2 : 0),
                         (unsigned long long)limit.rlim_max);
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* where it is not raised, opening the outputs says so */
    return CLLM_OK;
}

/* Starts the file's output, and has its space. */
static enum cllm_status open_pending(const struct restoring *restoring, const struct cllm_file *file, struct pending *pending,
                                     struct cllm_error *err)
{
    char *path = NULL;
    int fd;
    enum cllm_status status = open_parent(restoring, file->name, &pending->made, &fd, err);
    if (status) return status;
    if (asprintf(&path, "%s/%s", restoring->options->output, file->name) < 0) {
        path = NULL;
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
    }
    if (!status) status = cllm_output_create_at(fd, path, restoring->options->force, &pending->output, err);
    if (!status) status = cllm_output_reserve(pending->output, file->bytes, err);
    close(fd);
    free(path);
    return status;
}

static enum cllm_status write_to_pending(void *user, uint32_t file_index, const void *bytes, size_t byte_count,
                                         struct cllm_error *err)
{
    const struct restoring *restoring = user;
    return cllm_output_write(restoring->pending[file_index].output, bytes, byte_count, err);
}

/* A commit syncs as well, but then other files have their names already: what a disk refuses must be known before. */
static enum cllm_status end_pending(void *user, uint32_t file_index, struct cllm_error *err)
{
    const struct restoring *restoring = user;
    return cllm_output_sync(restoring->pending[file_index].output, err);
}

static enum cllm_status fill_all(struct restoring *restoring, struct cllm_error *err)
{
    const struct cllm_restore_options options = choose_options(restoring);
    const struct cllm_file_sink sink = {.write = write_to_pending, .end = end_pending, .user = restoring};
    return cllm_restore_files(restoring->reader, &sink, &options, err);
}

/* Gives all files their names. What can be known to fail is looked at before the first of them. */
static enum cllm_status commit_all(const struct restoring *restoring, struct cllm_error *err)
{
    struct pending *pending = restoring->pending;
    const uint32_t file_count = restoring->index->file_count;
    if (cllm_signal_caught()) return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
    enum cllm_status status = check_all_free(restoring, err);
    for (uint32_t i = 0; i < file_count && !status; i++) {
        status = cllm_output_commit(pending[i].output, err);
        pending[i].output = NULL;
        if (status) cllm_fail_context(err, status, "restored %u of %u files", i, file_count);
    }
    return status;
}

/* Removes the folders of `name` from `made` on, if they are empty. */
static void remove_made(const struct restoring *restoring, const char *name, const char *made)
{
    char folder[CLLM_FILE_NAME_BYTES_MAX + 1];
    snprintf(folder, sizeof folder, "%s", name);
    for (char *slash; made && (slash = strrchr(folder, '/')) && slash - folder > made - name;) {
        int fd;
        *slash = 0;
        if (open_parent(restoring, folder, NULL, &fd, NULL) || fd < 0) continue;
        unlinkat(fd, last_part(folder), AT_REMOVEDIR);
        close(fd);
    }
}

/* After a failure: no temporary file stays, and no folder that was made for one. */
static void discard_all(const struct restoring *restoring)
{
    const struct pending *pending = restoring->pending;
    for (uint32_t i = restoring->index->file_count; i-- > 0;) {
        cllm_output_discard(pending[i].output);
        remove_made(restoring, restoring->index->files[i].name, pending[i].made);
    }
}

static enum cllm_status restore_pending(struct restoring *restoring, struct cllm_error *err)
{
    const struct cllm_index *index = restoring->index;
    enum cllm_status status = allow_open_files(restoring, err);
    for (uint32_t i = 0; i < index->file_count && !status; i++) {
        status = open_pending(restoring, &index->files[i], &restoring->pending[i], err);
    }
    if (!status) status = fill_all(restoring, err);
    if (!status) status = commit_all(restoring, err);
    if (status) discard_all(restoring);
    return status;
}

static enum cllm_status restore_all(struct restoring *restoring, struct cllm_error *err)
{
    const struct cllm_index *index = restoring->index;
    enum cllm_status status = check_all_free(restoring, err);
    uint64_t needed_bytes = 0;
    for (uint32_t i = 0; i < index->file_count; i++) {
        needed_bytes += index->files[i].bytes; /* the reader has checked that the sum fits */
    }
    if (!status) status = check_space(restoring, needed_bytes, err);
    if (status) return status;
    restoring->pending = calloc((size_t)index->file_count + 1, sizeof *restoring->pending);
    if (!restoring->pending) {
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %u files", index->file_count);
    }
    status = restore_pending(restoring, err);
    free(restoring->pending);
    return status;
}

static enum cllm_status restore_to_directory(struct restoring *restoring, struct cllm_error *err)
{
    const char *path = restoring->options->output;
    bool created = mkdir(path, 0777) == 0;
    if (!created && errno != EEXIST) {
        return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot create %s: %s", cllm_shown(path), strerror(errno));
    }
    restoring->directory_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (restoring->directory_fd < 0) {
        return cllm_fail(err, errno == ENOTDIR ? CLLM_E_EXISTS : CLLM_E_IO, CLLM_NO_OFFSET, "cannot open %s as a directory: %s",
                         cllm_shown(path), strerror(errno));
    }
    enum cllm_status status = restore_all(restoring, err);
    close(restoring->directory_fd);
    if (status && created) rmdir(path); /* if it is still empty */
    return status;
}

/* ----------------------------------------------------------------------------------------------------------- one file */

static enum cllm_status restore_one(struct restoring *restoring, struct cllm_error *err)
{
    const struct cpack_options *options = restoring->options;
    const struct cllm_restore_options restore_options = choose_options(restoring);
    const struct cllm_file *file = cllm_reader_find_file(restoring->reader, options->file_name);
    if (!file) return fail_at(err, CLLM_E_ABSENT, options->file_name, "no such file in the container; -lv lists them");
    if (strcmp(options->output, "-") == 0) {
        const struct cllm_sink sink = {write_to_stdout, NULL};
        return cllm_restore_file(restoring->reader, file, &sink, &restore_options, err);
    }
    struct cllm_output *output = NULL;
    enum cllm_status status = cllm_output_create(options->output, options->force, &output, err);
    const struct cllm_sink sink = {write_to_output, output};
    if (!status) status = cllm_output_reserve(output, file->bytes, err);
    if (!status) status = cllm_restore_file(restoring->reader, file, &sink, &restore_options, err);
    if (!status) return cllm_output_commit(output, err);
    cllm_output_discard(output);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ reports */

static enum cllm_status report_success(const struct restoring *restoring, const char *container, struct cllm_error *err)
{
    const struct cpack_options *options = restoring->options;
    json_t *files = json_array();
    uint64_t byte_count = 0;
    uint32_t file_count = 0;
    for (uint32_t i = 0; i < restoring->index->file_count; i++) {
        const struct cllm_file *file = &restoring->index->files[i];
        if (options->file_name && strcmp(options->file_name, file->name) != 0) continue;
        json_t *entry = json_object();
        cllm_json_set_name(entry, "name", file->name, file->name_bytes);
        json_object_set_new(entry, "bytes", json_integer((json_int_t)file->bytes));
        json_object_set_new(entry, "digest", cllm_json_digest(file->sha256));
        json_array_append_new(files, entry);
        byte_count += file->bytes;
        file_count++;
    }
    if (options->common.json) {
        json_t *document =
            json_pack("{s:s, s:O, s:I, s:I, s:f}", "message_type", "summary", "files", files, "bytes", (json_int_t)byte_count,
                      "gpu_bytes", (json_int_t)restoring->engine_bytes, "seconds", cllm_meter_seconds(&restoring->meter));
        if (document) cllm_json_set_name(document, "container", container, strlen(container));
        if (document) cllm_json_set_name(document, "output", options->output, strlen(options->output));
        json_decref(files);
        return cllm_json_print(document, err);
    }
    json_decref(files);
    char size[32], here[32];
    if (options->common.quiet_level > 0) return CLLM_OK;
    printf("%s: restored %u file%s, %s, each with its recorded SHA-256", cllm_shown(options->output), file_count,
           file_count == 1 ? "" : "s", cllm_size_text(byte_count, size));
    if (restoring->engine) {
        printf("; %s decoded on %s, %s on the CPU", cllm_size_text(restoring->engine_bytes, size), restoring->engine->name,
               cllm_size_text(byte_count - restoring->engine_bytes, here));
    }
    putchar('\n');
    return CLLM_OK;
}

static int check_request(const struct cpack_options *options, const char *container)
{
    const bool to_stdout = options->output && strcmp(options->output, "-") == 0;
    if (!options->output) return cllm_fatal_usage("an output is needed: -d CONTAINER -o DIRECTORY");
    if (options->only_weights || options->opaque) return cllm_fatal_usage("--only-weights and --opaque are for packing");
    if (options->remove_source && options->file_name) return cllm_fatal_usage("--rm with --file would lose the other files");
    if (to_stdout && !options->file_name) return cllm_fatal_usage("-o - needs --file NAME: only one file fits standard output");
    if (to_stdout && options->common.json) return cllm_fatal_usage("--json and -o - both want standard output");
    if (to_stdout && isatty(STDOUT_FILENO)) return cllm_fatal_usage("a file is not written to a terminal; use -o FILE or a pipe");
    if (!to_stdout && cllm_is_same_file(options->output, container)) return cllm_fatal_usage("the output is the container");
    return 0;
}

/* For --rm. What has taken the container's place meanwhile is nothing that was restored, so it stays. */
static enum cllm_status remove_container(const struct restoring *restoring, const char *container, struct cllm_error *err)
{
    struct stat found;
    const bool is_there = stat(container, &found) == 0;
    if (is_there && !is_same_file(&found, &restoring->container)) {
        return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "%s is not removed: found another file there, expected the container",
                         cllm_shown(container));
    }
    if (is_there && unlink(container) == 0) return CLLM_OK;
    return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot remove %s: %s", cllm_shown(container), strerror(errno));
}

int cpack_restore(const struct cpack_options *options, const char *container)
{
    int exit_code = check_request(options, container);
    if (exit_code) return exit_code;
    struct cllm_reader *reader = NULL;
    struct cllm_error err = {0};
    struct restoring restoring = {.options = options};
    (void)stat(container, &restoring.container); /* where that fails, so does the opening, which says why */
    enum cllm_status status = cllm_reader_open(container, &reader, &err);
    if (status) return cllm_fatal_error(&err);

    restoring.reader = reader;
    restoring.index = cllm_reader_index(reader);
    if (cllm_engine_open(&options->device, &container, 1, &restoring.engine, &err)) {
        cllm_reader_close(reader);
        return cllm_fatal_error(&err);
    }
    cllm_meter_start(&restoring.meter, "restoring", !options->common.no_progress && options->common.quiet_level == 0);
    status = options->file_name ? restore_one(&restoring, &err) : restore_to_directory(&restoring, &err);
    cllm_meter_stop(&restoring.meter);
    if (!status && strcmp(options->output, "-") != 0) status = report_success(&restoring, container, &err);
    cllm_reader_close(reader);
    cllm_engine_close(restoring.engine);
    if (!status && options->remove_source) status = remove_container(&restoring, container, &err);
    return status ? cllm_fatal_error(&err) : CLLM_EXIT_OK;
}

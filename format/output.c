/* output.c - files that appear whole or not at all.
 *
 * The unfinished file has no name (O_TMPFILE), so that nothing can be left behind; where the file system or the lack of /proc
 * rules that out it is `.NAME.XXXXXX.tmp` beside the target. A name is given without replacing by link or by
 * rename(RENAME_NOREPLACE), which no race can turn into an overwrite, and with replacing by rename.
 *
 * A symbolic link in the target's place is neither followed nor replaced: what it points to may not be the caller's to write,
 * and losing the link would surprise. Its folders may be links. */
#include "output.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY_NAME_MAX 240 /* below NAME_MAX of every common file system */
#define TEMPORARY_TRIES 100
#define SEND_BYTES (UINT64_C(8) << 20)

struct cllm_output {
    int fd;
    int directory_fd;
    bool replace;
    uint64_t byte_count; /* written so far */
    uint64_t sent_bytes; /* of these, on their way to the disk */
    char *name;          /* of the target, in the directory */
    char shown[300];     /* its path, printable, for messages */
    char *temporary;     /* its name in the directory now, to be removed on failure; null where it has none (O_TMPFILE) */
    char *readable_path;
};

static enum cllm_status fail_os(struct cllm_error *err, const char *action, const char *shown_path, int error)
{
    return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot %s %s: %s", action, shown_path, strerror(error));
}

static enum cllm_status fail_memory(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for an output file");
}

static const char *kind_name(mode_t mode)
{
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISLNK(mode)) return "a symbolic link";
    if (S_ISFIFO(mode)) return "a FIFO";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

/* What is at the target now: nothing, or (with replace) a regular file, else a failure. */
static enum cllm_status check_target(const struct cllm_output *output, struct cllm_error *err)
{
    struct stat info;
    if (fstatat(output->directory_fd, output->name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? CLLM_OK : fail_os(err, "look at", output->shown, errno);
    }
    if (!output->replace) {
        return cllm_fail(err, CLLM_E_EXISTS, CLLM_NO_OFFSET, "%s exists and is not overwritten", output->shown);
    }
    if (S_ISREG(info.st_mode)) return CLLM_OK;
    return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "%s is %s; only a regular file is replaced", output->shown,
                     kind_name(info.st_mode));
}

/* ----------------------------------------------------------------------------------------------------- temporary file */

/* A fresh `.NAME.XXXXXX.tmp`. False where there is no memory or no randomness. */
static bool make_temporary_name(struct cllm_output *output)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    unsigned char random[6];
    char tail[7] = {0};
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) return false;
    for (size_t i = 0; i < sizeof random; i++) {
        tail[i] = letters[random[i] & 63];
    }
    free(output->temporary);
    output->temporary = NULL;
    int kept_bytes = (int)strnlen(output->name, TEMPORARY_NAME_MAX - 12);
    if (asprintf(&output->temporary, ".%.*s.%s.tmp", kept_bytes, output->name, tail) >= 0) return true;
    output->temporary = NULL; /* asprintf leaves it undefined */
    return false;
}

static void forget_temporary_name(struct cllm_output *output)
{
    free(output->temporary);
    output->temporary = NULL;
}

/* False where the file system has no nameless files, or there is no /proc to name one by later. */
static bool open_nameless(struct cllm_output *output)
{
    char link[32];
    output->fd = openat(output->directory_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    snprintf(link, sizeof link, "/proc/self/fd/%d", output->fd);
    if (output->fd >= 0 && access(link, R_OK) == 0) return true;
    if (output->fd >= 0) close(output->fd);
    output->fd = -1;
    return false;
}

static enum cllm_status open_named(struct cllm_output *output, struct cllm_error *err)
{
    for (int i = 0; i < TEMPORARY_TRIES && output->fd < 0; i++) {
        if (!make_temporary_name(output)) return fail_memory(err);
        output->fd = openat(output->directory_fd, output->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (output->fd < 0 && errno != EEXIST) break;
    }
    if (output->fd < 0) {
        int error = errno;
        forget_temporary_name(output);
        return fail_os(err, "create", output->shown, error);
    }
    return CLLM_OK;
}

/* How a reader can open the unfinished file: through /proc, or by its temporary name. */
static enum cllm_status make_readable_path(struct cllm_output *output, const char *path, struct cllm_error *err)
{
    const char *slash = strrchr(path, '/');
    int folder_bytes = slash ? (int)(slash - path) + 1 : 0;
    int printed = output->temporary ? asprintf(&output->readable_path, "%.*s%s", folder_bytes, path, output->temporary)
                                    : asprintf(&output->readable_path, "/proc/self/fd/%d", output->fd);
    if (printed >= 0) return CLLM_OK;
    output->readable_path = NULL;
    return fail_memory(err);
}

static enum cllm_status open_output(struct cllm_output *output, const char *path, struct cllm_error *err)
{
    enum cllm_status status = check_target(output, err);
    if (!status && !open_nameless(output)) status = open_named(output, err);
    if (!status) status = make_readable_path(output, path, err);
    return status;
}

enum cllm_status cllm_output_create_at(int directory_fd, const char *path, bool replace, struct cllm_output **output_out,
                                       struct cllm_error *err)
{
    *output_out = NULL;
    struct cllm_output *output = calloc(1, sizeof *output);
    if (!output) return fail_memory(err);
    const char *slash = strrchr(path, '/');
    cllm_escape(path, strlen(path), output->shown, sizeof output->shown);
    output->fd = -1;
    output->replace = replace;
    output->name = strdup(slash ? slash + 1 : path);
    output->directory_fd = fcntl(directory_fd, F_DUPFD_CLOEXEC, 3);

    enum cllm_status status = CLLM_OK;
    if (!output->name) status = fail_memory(err);
    else if (output->directory_fd < 0) status = fail_os(err, "create", output->shown, errno);
    else status = open_output(output, path, err);
    if (status) cllm_output_discard(output);
    else *output_out = output;
    return status;
}

enum cllm_status cllm_output_create(const char *path, bool replace, struct cllm_output **output_out, struct cllm_error *err)
{
    *output_out = NULL;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char shown[300];
    cllm_escape(path, strlen(path), shown, sizeof shown);
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "\"%s\" names a directory, expected a file", shown);
    }
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!folder) return fail_memory(err);
    int directory_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum cllm_status status;
    if (directory_fd < 0) {
        status = fail_os(err, "open the directory of", shown, errno);
    } else {
        status = cllm_output_create_at(directory_fd, path, replace, output_out, err);
        close(directory_fd);
    }
    free(folder);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ content */

enum cllm_status cllm_output_reserve(struct cllm_output *output, uint64_t byte_count, struct cllm_error *err)
{
    /* keeping the size, so that a reader of the unfinished file does not see zeros at its end */
    while (byte_count > 0 && fallocate(output->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)byte_count) != 0) {
        if (errno == EINTR) continue;
        if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
            int error = errno;
            return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot reserve %llu bytes for %s: %s",
                             (unsigned long long)byte_count, output->shown, strerror(error));
        }
        break; /* not offered by this file system */
    }
    return CLLM_OK;
}

/* Has the disk write while the next bytes are made, instead of all in the end. What goes wrong with it, fsync will say. */
static void send_ahead(struct cllm_output *output)
{
    if (output->byte_count - output->sent_bytes < SEND_BYTES) return;
    (void)sync_file_range(output->fd, (off_t)output->sent_bytes, (off_t)(output->byte_count - output->sent_bytes),
                          SYNC_FILE_RANGE_WRITE);
    output->sent_bytes = output->byte_count;
}

/* Moves past `byte_count` bytes of pieces, all those without bytes included. Returns how many pieces that are. */
static unsigned skip_pieces(struct iovec *pieces, unsigned piece_count, size_t byte_count)
{
    unsigned done = 0;
    for (; done < piece_count && byte_count >= pieces[done].iov_len; done++) byte_count -= pieces[done].iov_len;
    if (done == piece_count) return done;
    pieces[done].iov_base = (char *)pieces[done].iov_base + byte_count;
    pieces[done].iov_len -= byte_count;
    return done;
}

enum cllm_status cllm_output_write_pieces(struct cllm_output *output, struct iovec *pieces, unsigned piece_count,
                                          struct cllm_error *err)
{
    unsigned done = skip_pieces(pieces, piece_count, 0);
    while (done < piece_count) {
        const unsigned count = piece_count - done < IOV_MAX ? piece_count - done : IOV_MAX;
        ssize_t written = pwritev(output->fd, pieces + done, (int)count, (off_t)output->byte_count);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            int error = written < 0 ? errno : ENOSPC;
            return cllm_fail(err, CLLM_E_IO, output->byte_count, "cannot write %s at byte %llu: %s", output->shown,
                             (unsigned long long)output->byte_count, strerror(error));
        }
        done += skip_pieces(pieces + done, piece_count - done, (size_t)written);
        output->byte_count += (uint64_t)written;
    }
    send_ahead(output);
    return CLLM_OK;
}

enum cllm_status cllm_output_write(struct cllm_output *output, const void *bytes, size_t byte_count, struct cllm_error *err)
{
    struct iovec piece = {(void *)bytes, byte_count};
    return cllm_output_write_pieces(output, &piece, 1, err);
}

enum cllm_status cllm_output_rewind(struct cllm_output *output, uint64_t offset, struct cllm_error *err)
{
    assert(offset <= output->byte_count);
    if (ftruncate(output->fd, (off_t)offset) != 0) return fail_os(err, "shorten", output->shown, errno);
    output->byte_count = offset;
    if (output->sent_bytes > offset) output->sent_bytes = offset;
    return CLLM_OK;
}

uint64_t cllm_output_bytes(const struct cllm_output *output)
{
    return output->byte_count;
}

const char *cllm_output_readable_path(const struct cllm_output *output)
{
    return output->readable_path;
}

/* ------------------------------------------------------------------------------------------------------------- commit */

/* The process's umask, read where that does not change it for a moment, as umask() would for every thread. */
static mode_t read_umask(void)
{
    unsigned mask = 077;
    char line[128];
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status)) {
        if (sscanf(line, "Umask: %o", &mask) == 1) break;
    }
    if (status) fclose(status);
    return (mode_t)mask;
}

static int link_nameless(const struct cllm_output *output, const char *name)
{
    return linkat(AT_FDCWD, output->readable_path, output->directory_fd, name, AT_SYMLINK_FOLLOW);
}

/* Gives a nameless file a temporary name, from which it can be renamed over another file. */
static int name_temporarily(struct cllm_output *output)
{
    for (int i = 0; i < TEMPORARY_TRIES; i++) {
        if (!make_temporary_name(output)) break;
        if (link_nameless(output, output->temporary) == 0) return 0;
        if (errno != EEXIST) break;
    }
    int error = errno;
    forget_temporary_name(output);
    errno = error;
    return -1;
}

/* Moves the temporary name to the target, which must not exist. */
static int rename_without_replacing(const struct cllm_output *output)
{
    int fd = output->directory_fd;
    if (renameat2(fd, output->temporary, fd, output->name, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    if (linkat(fd, output->temporary, fd, output->name, 0) != 0) return -1; /* NFS, for one, has links but not that flag */
    return unlinkat(fd, output->temporary, 0);
}

/* The file appears under its name. */
static enum cllm_status name_output(struct cllm_output *output, struct cllm_error *err)
{
    int failed = 0;
    enum cllm_status status = check_target(output, err);
    if (status) return status;
    if (output->replace) {
        if (!output->temporary) failed = name_temporarily(output);
        if (!failed) failed = renameat(output->directory_fd, output->temporary, output->directory_fd, output->name);
    } else {
        failed = output->temporary ? rename_without_replacing(output) : link_nameless(output, output->name);
    }
    if (failed && errno == EEXIST && !output->replace) {
        return cllm_fail(err, CLLM_E_EXISTS, CLLM_NO_OFFSET, "%s appeared meanwhile and is not overwritten", output->shown);
    }
    if (failed) return fail_os(err, "give its name to", output->shown, errno);
    forget_temporary_name(output);
    return CLLM_OK;
}

/* A file system that cannot sync a directory (EINVAL) has nothing to sync. */
static enum cllm_status sync_directory(const struct cllm_output *output, struct cllm_error *err)
{
    if (fsync(output->directory_fd) == 0 || errno == EINVAL) return CLLM_OK;
    int error = errno;
    /* what was replaced is gone already, so the new file, which is whole, stays; a new name is taken back */
    if (!output->replace) unlinkat(output->directory_fd, output->name, 0);
    return fail_os(err, "sync the directory of", output->shown, error);
}

enum cllm_status cllm_output_sync(struct cllm_output *output, struct cllm_error *err)
{
    return fsync(output->fd) == 0 ? CLLM_OK : fail_os(err, "sync", output->shown, errno);
}

enum cllm_status cllm_output_commit(struct cllm_output *output, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    if (ftruncate(output->fd, (off_t)output->byte_count) != 0) { /* gives back what was reserved too much */
        status = fail_os(err, "set the size of", output->shown, errno);
    } else if (fchmod(output->fd, 0666 & ~read_umask()) != 0) {
        status = fail_os(err, "set the mode of", output->shown, errno);
    }
    if (!status) status = cllm_output_sync(output, err);
    if (!status) status = name_output(output, err);
    if (!status) status = sync_directory(output, err);
    cllm_output_discard(output);
    return status;
}

void cllm_output_discard(struct cllm_output *output)
{
    if (!output) return;
    if (output->temporary) unlinkat(output->directory_fd, output->temporary, 0);
    if (output->fd >= 0) close(output->fd);
    if (output->directory_fd >= 0) close(output->directory_fd);
    free(output->readable_path);
    free(output->temporary);
    free(output->name);
    free(output);
}

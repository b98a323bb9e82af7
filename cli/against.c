/* against.c - comparing with original files or with a list of their SHA-256. */
#include "against.h"

#include "bytes.h"
#include "digest.h"
#include "message.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (UINT32_C(1) << 20)
#define LIST_BYTES_MAX (UINT32_C(64) << 20)
#define FOLDER_DEPTH_MAX 16u /* as CLLM_SOURCE_DEPTH_MAX, where packing ends */

/* One line of a list: digest and name. */
struct listed {
    const char *name;
    uint8_t sha256[CLLM_DIGEST_BYTES];
};

struct comparison {
    const struct cllm_against *against;
    const struct cllm_index *index;
    int directory_fd;
    struct cllm_sha256_stream *stream;
    uint8_t *buffer;
    uint64_t done_bytes;
    uint64_t total_bytes;
    uint64_t equal_count;
    enum cllm_status first; /* problem */
    struct cllm_error *err;
};

/* A problem that does not end the comparison. */
static void note_problem(struct comparison *c, enum cllm_status status, const char *format, ...) CLLM_PRINTF(3, 4);
static void note_problem(struct comparison *c, enum cllm_status status, const char *format, ...)
{
    char message[800];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    c->against->problem(c->against->user, status, message);
    if (!c->first) c->first = cllm_fail(c->err, status, CLLM_NO_OFFSET, "%s", message);
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t name_bytes = strlen(name), suffix_bytes = strlen(suffix);
    return name_bytes >= suffix_bytes && strcmp(name + name_bytes - suffix_bytes, suffix) == 0;
}

static bool is_weights(const char *name)
{
    return ends_with(name, ".safetensors");
}

static const struct cllm_file *find_file(const struct cllm_index *index, const char *name)
{
    for (uint32_t i = 0; i < index->file_count; i++) {
        if (strcmp(index->files[i].name, name) == 0) return &index->files[i];
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------- weights not in the container */

static void find_extra_below(struct comparison *c, int parent_fd, const char *folder, unsigned depth);

/* An entry of the open `directory`, which is called `folder` below the one to compare with. */
static void visit_entry(struct comparison *c, DIR *directory, const char *folder, const char *entry_name, unsigned depth)
{
    struct stat info;
    char *name = NULL;
    if (asprintf(&name, "%s%s%s", folder, *folder ? "/" : "", entry_name) < 0) {
        note_problem(c, CLLM_E_NOMEM, "out of memory for the name of a file");
        return;
    }
    if (fstatat(dirfd(directory), entry_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        note_problem(c, CLLM_E_IO, "cannot look at %s: %s", cllm_shown(name), strerror(errno));
    } else if (S_ISDIR(info.st_mode)) {
        find_extra_below(c, dirfd(directory), name, depth + 1);
    } else if (is_weights(name) && !find_file(c->index, name)) {
        note_problem(c, CLLM_E_DIGEST, "%s is there, but not in the container", cllm_shown(name));
    }
    free(name);
}

static void visit_entries(struct comparison *c, DIR *directory, const char *folder, unsigned depth)
{
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(directory))) {
        if (entry->d_name[0] != '.') visit_entry(c, directory, folder, entry->d_name, depth);
    }
    if (errno) note_problem(c, CLLM_E_IO, "cannot list %s: %s", cllm_shown(*folder ? folder : c->against->path), strerror(errno));
}

/* Goes where packing a directory goes: into folders, but not through links to folders nor to names that start with '.'. */
static void find_extra_below(struct comparison *c, int parent_fd, const char *folder, unsigned depth)
{
    const char *shown = *folder ? folder : c->against->path;
    const char *slash = strrchr(folder, '/');
    if (depth > FOLDER_DEPTH_MAX) {
        note_problem(c, CLLM_E_LIMIT, "%s is %u directories deep, at most %u are allowed", cllm_shown(shown), depth,
                     FOLDER_DEPTH_MAX);
        return;
    }
    const char *last_part = !*folder ? "." : slash ? slash + 1 : folder;
    int fd = openat(parent_fd, last_part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (!directory) {
        note_problem(c, CLLM_E_IO, "cannot list %s: %s", cllm_shown(shown), strerror(errno));
        if (fd >= 0) close(fd);
        return;
    }
    visit_entries(c, directory, folder, depth);
    closedir(directory);
}

/* ----------------------------------------------------------------------------------------------------- original files */

/* SHA-256 of an open file, which must have as many bytes as recorded; `*same_size_out` is false where it has not. */
static enum cllm_status hash_file(struct comparison *c, int fd, uint64_t byte_count, uint8_t sha256_out[CLLM_DIGEST_BYTES],
                                  bool *same_size_out, struct cllm_error *err)
{
    const struct cllm_progress *progress = c->against->progress;
    uint64_t left = byte_count;
    enum cllm_status status = CLLM_OK;
    for (;;) {
        ssize_t count = read(fd, c->buffer, READ_BYTES);
        if (count < 0 && errno != EINTR) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "%s", strerror(errno));
        if (progress && !progress->report(progress->user, c->done_bytes + (byte_count - left), c->total_bytes)) {
            return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
        }
        if (count < 0) continue;
        *same_size_out = count == 0 ? left == 0 : (uint64_t)count <= left;
        if (count == 0 || !*same_size_out) break;
        left -= (uint64_t)count;
        status = cllm_sha256_update(c->stream, c->buffer, (size_t)count, err);
        if (status) return status;
    }
    return cllm_sha256_finish(c->stream, sha256_out, err);
}

static enum cllm_status compare_open_file(struct comparison *c, int fd, const struct cllm_file *file, const char *path,
                                          struct cllm_error *err)
{
    struct stat info;
    uint8_t sha256[CLLM_DIGEST_BYTES];
    char found[2 * CLLM_DIGEST_BYTES + 1], expected[2 * CLLM_DIGEST_BYTES + 1];
    bool same_size;
    if (fstat(fd, &info) != 0) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "%s", strerror(errno));
    if (!S_ISREG(info.st_mode)) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "not a regular file");
    if ((uint64_t)info.st_size != file->bytes) {
        note_problem(c, CLLM_E_DIGEST, "%s differs: found %llu bytes, expected %llu", cllm_shown(path),
                     (unsigned long long)info.st_size, (unsigned long long)file->bytes);
        return CLLM_OK;
    }
    enum cllm_status status = hash_file(c, fd, file->bytes, sha256, &same_size, err);
    if (status) return status;
    if (!same_size) {
        note_problem(c, CLLM_E_DIGEST, "%s changed its size while it was read", cllm_shown(path));
    } else if (memcmp(sha256, file->sha256, sizeof sha256) != 0) {
        note_problem(c, CLLM_E_DIGEST, "%s differs: found SHA-256 %s, expected %s", cllm_shown(path),
                     cllm_digest_hex(sha256, found), cllm_digest_hex(file->sha256, expected));
    } else {
        c->equal_count++;
    }
    return CLLM_OK;
}

/* Compares the recorded file with the one at `path` in the directory. Fails only where going on makes no sense. */
static enum cllm_status compare_file(struct comparison *c, const struct cllm_file *file, const char *path)
{
    struct cllm_error err = {0};
    enum cllm_status status = CLLM_OK;
    int fd = openat(c->directory_fd, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a FIFO must not block */
    if (fd < 0 && errno == ENOENT) {
        note_problem(c, CLLM_E_ABSENT, "%s is missing", cllm_shown(path));
    } else if (fd < 0) {
        note_problem(c, CLLM_E_IO, "cannot open %s: %s", cllm_shown(path), strerror(errno));
    } else {
        status = compare_open_file(c, fd, file, path, &err);
    }
    if (fd >= 0) close(fd);
    c->done_bytes += file->bytes;
    if (status == CLLM_E_IO) {
        note_problem(c, status, "cannot read %s: %s", cllm_shown(path), err.message);
        return CLLM_OK;
    }
    if (status && c->err) *c->err = err;
    return status;
}

/* The recorded file that the original called `name` stands for: of that name, or else the only one with weights. */
static const struct cllm_file *match_original(const struct cllm_index *index, const char *name)
{
    const struct cllm_file *match = find_file(index, name);
    if (match || index->file_count == 1) return match ? match : index->files;
    uint32_t weights_count = 0;
    for (uint32_t i = 0; i < index->file_count; i++) {
        if (!is_weights(index->files[i].name)) continue;
        match = &index->files[i];
        weights_count++;
    }
    return weights_count == 1 ? match : NULL;
}

/* `original_name` is null for a directory. */
static enum cllm_status compare_files(struct comparison *c, const char *folder, const char *original_name)
{
    const struct cllm_file *original = original_name ? match_original(c->index, original_name) : NULL;
    if (original_name && !original) {
        note_problem(c, CLLM_E_ABSENT, "the container has no file called %s", cllm_shown(original_name));
        return CLLM_OK;
    }
    c->directory_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->directory_fd < 0) {
        note_problem(c, CLLM_E_IO, "cannot open %s: %s", cllm_shown(folder), strerror(errno));
        return CLLM_OK;
    }
    for (uint32_t i = 0; i < c->index->file_count; i++) {
        const struct cllm_file *file = &c->index->files[i];
        enum cllm_status status = compare_file(c, file, original && file == original ? original_name : file->name);
        if (status) return status;
    }
    if (!original_name) find_extra_below(c, c->directory_fd, "", 0);
    return CLLM_OK;
}

/* --------------------------------------------------------------------------------------------------- list of SHA-256 */

static bool parse_hex(const char *text, uint8_t out[CLLM_DIGEST_BYTES])
{
    for (size_t i = 0; i < CLLM_DIGEST_BYTES; i++) {
        unsigned value = 0;
        for (size_t k = 0; k < 2; k++) {
            char c = text[2 * i + k];
            unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                             : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                             : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                    : 16;
            if (digit == 16) return false; /* the end of the text, too */
            value = value << 4 | digit;
        }
        out[i] = (uint8_t)value;
    }
    return true;
}

/* Undoes sha256sum's escapes in place: \n, \r, \\. */
static void unescape_name(char *name)
{
    char *to = name;
    for (const char *from = name; *from; from++) {
        if (*from != '\\' || !from[1]) {
            *to++ = *from;
            continue;
        }
        from++;
        *to++ = *from == 'n' ? '\n' : *from == 'r' ? '\r' : *from;
    }
    *to = 0;
}

/* "HEX  NAME", "HEX *NAME" or "SHA256 (NAME) = HEX", with a leading backslash where the name is escaped. Changes the line. */
static bool parse_list_line(char *line, struct listed *out)
{
    static const char tag[] = "SHA256 (";
    bool escaped = *line == '\\';
    char *name = line + escaped;
    if (strncmp(name, tag, sizeof tag - 1) == 0) {
        char *end = strrchr(name, ')');
        if (!end || strncmp(end, ") = ", 4) != 0 || !parse_hex(end + 4, out->sha256)) return false;
        if (end[4 + 2 * CLLM_DIGEST_BYTES] != 0) return false;
        name += sizeof tag - 1;
        *end = 0;
    } else {
        if (!parse_hex(name, out->sha256)) return false;
        name += 2 * CLLM_DIGEST_BYTES;
        if (name[0] != ' ' || (name[1] != ' ' && name[1] != '*')) return false;
        name += 2;
    }
    if (escaped) unescape_name(name);
    while (strncmp(name, "./", 2) == 0) {
        name += 2;
    }
    out->name = name;
    return *name != 0;
}

/* Cuts the first line off `*text`; null at the end. */
static char *next_line(char **text)
{
    char *line = *text;
    if (!line || !*line) return NULL;
    char *end = strchr(line, '\n');
    *text = end ? end + 1 : NULL;
    if (end) *end = 0;
    size_t line_bytes = strlen(line);
    if (line_bytes > 0 && line[line_bytes - 1] == '\r') line[line_bytes - 1] = 0;
    return line;
}

static bool is_comment(const char *line)
{
    return *line == 0 || *line == '#';
}

/* True where the first line that is no comment is one of a list. Changes the text. */
static bool looks_like_list(char *text)
{
    struct listed first;
    char *line = next_line(&text);
    while (line && is_comment(line)) {
        line = next_line(&text);
    }
    return line && parse_list_line(line, &first);
}

static int compare_listed(const void *left, const void *right)
{
    return strcmp(((const struct listed *)left)->name, ((const struct listed *)right)->name);
}

/* Fills `lines`, which has room for one entry a line of `text`, and sorts them by name. */
static enum cllm_status parse_list(struct comparison *c, char *text, struct listed *lines, size_t *count_out)
{
    size_t count = 0;
    for (char *line; (line = next_line(&text));) {
        if (is_comment(line)) continue;
        if (!parse_list_line(line, &lines[count])) {
            return cllm_fail(c->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "%s: found \"%s\", expected a SHA-256 and a name",
                             cllm_shown(c->against->path), cllm_shown(line));
        }
        count++;
    }
    qsort(lines, count, sizeof *lines, compare_listed);
    for (size_t i = 1; i < count; i++) {
        if (compare_listed(&lines[i - 1], &lines[i]) == 0 &&
            memcmp(lines[i - 1].sha256, lines[i].sha256, CLLM_DIGEST_BYTES) != 0) {
            return cllm_fail(c->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "%s lists %s twice, with different digests",
                             cllm_shown(c->against->path), cllm_shown(lines[i].name));
        }
    }
    *count_out = count;
    return CLLM_OK;
}

static void compare_with_lines(struct comparison *c, const struct listed *lines, size_t line_count)
{
    char found[2 * CLLM_DIGEST_BYTES + 1], expected[2 * CLLM_DIGEST_BYTES + 1];
    for (uint32_t i = 0; i < c->index->file_count; i++) {
        const struct cllm_file *file = &c->index->files[i];
        const struct listed key = {.name = file->name};
        const struct listed *line = bsearch(&key, lines, line_count, sizeof *lines, compare_listed);
        if (!line) {
            note_problem(c, CLLM_E_ABSENT, "%s is not listed in %s", cllm_shown(file->name), cllm_shown(c->against->path));
        } else if (memcmp(line->sha256, file->sha256, CLLM_DIGEST_BYTES) != 0) {
            note_problem(c, CLLM_E_DIGEST, "%s differs: the container has SHA-256 %s, the list %s", cllm_shown(file->name),
                         cllm_digest_hex(file->sha256, found), cllm_digest_hex(line->sha256, expected));
        } else {
            c->equal_count++;
        }
    }
    for (size_t i = 0; i < line_count; i++) {
        if (is_weights(lines[i].name) && !find_file(c->index, lines[i].name)) {
            note_problem(c, CLLM_E_DIGEST, "%s is listed, but not in the container", cllm_shown(lines[i].name));
        }
    }
}

/* The file in memory, zero-terminated. */
static enum cllm_status read_list(struct comparison *c, FILE *file, char **text_out)
{
    size_t used = 0, room = 0;
    char *text = NULL;
    do {
        room = room ? 2 * room : 65536;
        char *larger = room <= LIST_BYTES_MAX ? realloc(text, room + 1) : NULL;
        if (!larger) {
            free(text);
            return cllm_fail(c->err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "%s: the list is larger than %u MiB",
                             cllm_shown(c->against->path), LIST_BYTES_MAX >> 20);
        }
        text = larger;
        used += fread(text + used, 1, room - used, file);
    } while (used == room);
    text[used] = 0;
    *text_out = text;
    if (!ferror(file)) return CLLM_OK;
    return cllm_fail(c->err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot read %s: %s", cllm_shown(c->against->path), strerror(errno));
}

static enum cllm_status compare_with_list(struct comparison *c, FILE *file)
{
    char *text = NULL;
    struct listed *lines = NULL;
    size_t line_count = 1;
    rewind(file);
    enum cllm_status status = read_list(c, file, &text);
    if (!status) {
        for (const char *p = text; (p = strchr(p, '\n')); p++) {
            line_count++;
        }
        lines = calloc(line_count, sizeof *lines);
        if (!lines) status = cllm_fail(c->err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a list of digests");
    }
    if (!status) status = parse_list(c, text, lines, &line_count);
    if (!status) compare_with_lines(c, lines, line_count);
    free(lines);
    free(text);
    return status;
}

/* --------------------------------------------------------------------------------------------------------------- both */

/* Something that is no directory: a list, or an original file. */
static enum cllm_status compare_with_file(struct comparison *c, FILE *file)
{
    char start[4097], folder[4096];
    const char *path = c->against->path;
    start[fread(start, 1, sizeof start - 1, file)] = 0;
    if (looks_like_list(start)) return compare_with_list(c, file);
    const char *slash = strrchr(path, '/');
    int folder_bytes = slash ? (int)(slash - path) + 1 : 0;
    if (folder_bytes >= (int)sizeof folder) return cllm_fail(c->err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "path too long");
    snprintf(folder, sizeof folder, "%.*s", slash ? folder_bytes : 1, slash ? path : ".");
    return compare_files(c, folder, slash ? slash + 1 : path);
}

static enum cllm_status compare_with_path(struct comparison *c)
{
    const char *path = c->against->path;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    struct stat info;
    enum cllm_status status = CLLM_OK;
    if (!file || fstat(fd, &info) != 0) {
        int error = errno;
        note_problem(c, error == ENOENT ? CLLM_E_ABSENT : CLLM_E_IO, "cannot open %s: %s", cllm_shown(path), strerror(error));
        if (fd >= 0 && !file) close(fd);
    } else if (S_ISDIR(info.st_mode)) {
        status = compare_files(c, path, NULL);
    } else if (S_ISREG(info.st_mode)) {
        status = compare_with_file(c, file);
    } else {
        note_problem(c, CLLM_E_USAGE, "%s is neither a regular file nor a directory", cllm_shown(path));
    }
    if (file) fclose(file);
    return status;
}

enum cllm_status cllm_against_compare(const struct cllm_against *against, const struct cllm_reader *reader,
                                      uint64_t *compared_out, struct cllm_error *err)
{
    struct comparison c = {.against = against, .index = cllm_reader_index(reader), .directory_fd = -1, .err = err};
    for (uint32_t i = 0; i < c.index->file_count; i++) {
        c.total_bytes += c.index->files[i].bytes;
    }
    enum cllm_status status = cllm_sha256_create(&c.stream, err);
    c.buffer = status ? NULL : malloc(READ_BYTES);
    if (!status && !c.buffer) status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a read buffer");
    if (!status) status = compare_with_path(&c);
    if (!status && !c.first && c.equal_count == 0) {
        note_problem(&c, CLLM_E_ABSENT, "nothing in %s was compared", cllm_shown(against->path));
    }
    if (c.directory_fd >= 0) close(c.directory_fd);
    free(c.buffer);
    cllm_sha256_destroy(c.stream);
    *compared_out = c.equal_count;
    return status ? status : c.first;
}

/* source.c - opens an input of whatever kind, reads it, and notices when it changes. */
#include "source_list.h"

#include "layout.h"
#include "source_json.h"
#include "source_safetensors.h"
#include "bytes.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT_OPEN_COUNT_MAX 512u /* descriptors; the usual soft limit of a process is 1024 */
#define PREFIX_BYTES 64u         /* enough to recognise what a file is */

/* What the file was when it was opened. */
struct identity {
    dev_t device;
    ino_t inode;
    off_t bytes;
    struct timespec modified;
};

/* What lies behind one struct cllm_source_file. */
struct holding {
    char *path;
    char *name;
    int descriptor; /* -1: opened anew for each read */
    struct identity identity;
    struct cllm_safetensors weights; /* owns the spans of a weights file */
    struct cllm_source_span literal; /* the one span of any other */
};

struct source {
    struct cllm_source base; /* first: a struct cllm_source is one of these */
    struct cllm_source_file *files;
    struct cllm_source_tensor *tensors;
    struct holding *holdings; /* file_count of them, in the order of files */
    struct cllm_source_warnings warnings;
    uint64_t header_bytes; /* of all weights files */
};

static const struct source *private_of(const struct cllm_source *source)
{
    return (const struct source *)source;
}

/* ---------------------------------------------------------------------------------------------------- descriptors */

static struct identity identity_of(const struct stat *found)
{
    return (struct identity){found->st_dev, found->st_ino, found->st_size, found->st_mtim};
}

static bool same_identity(const struct identity *a, const struct identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes && a->modified.tv_sec == b->modified.tv_sec &&
           a->modified.tv_nsec == b->modified.tv_nsec;
}

static enum cllm_status fail_errno(struct cllm_error *err, const char *what)
{
    return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot %s: %s", what, strerror(errno));
}

/* S42: a FIFO must not block the opening; what was opened is looked at afterwards. */
static enum cllm_status open_regular(const char *path, int *descriptor_out, struct identity *identity_out, struct cllm_error *err)
{
    struct stat found;
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (descriptor < 0) return fail_errno(err, "open");
    enum cllm_status status = CLLM_OK;
    if (fstat(descriptor, &found) != 0) {
        status = fail_errno(err, "look at");
    } else if (!S_ISREG(found.st_mode)) {
        status = cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "not a regular file");
    }
    if (status) {
        close(descriptor);
        return status;
    }
    *descriptor_out = descriptor;
    *identity_out = identity_of(&found);
    return CLLM_OK;
}

static enum cllm_status read_fully(int descriptor, uint64_t offset, void *buffer, size_t byte_count, struct cllm_error *err)
{
    uint8_t *at = buffer;
    for (size_t done = 0; done < byte_count;) {
        ssize_t got = pread(descriptor, at + done, byte_count - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return cllm_fail(err, CLLM_E_IO, offset + done, "cannot read at byte %llu: %s", (unsigned long long)(offset + done),
                             strerror(errno));
        if (got == 0) { /* S41 */
            return cllm_fail(err, CLLM_E_CORRUPT, offset + done, "file ends at byte %llu, expected %llu: it has become shorter",
                             (unsigned long long)(offset + done), (unsigned long long)(offset + byte_count));
        }
        done += (size_t)got;
    }
    return CLLM_OK;
}

static enum cllm_status fail_for_file(const char *name, enum cllm_status status, struct cllm_error *err)
{
    struct cllm_source_text shown;
    return cllm_fail_context(err, status, "%s", cllm_source_show(name, &shown));
}

static enum cllm_status fail_changed(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                     "changed while it was being read: identity, size or modification time is not what it was");
}

/* Whether the name still stands for the file that was opened. */
static enum cllm_status check_holding(const struct holding *holding, struct cllm_error *err)
{
    struct stat found;
    if (stat(holding->path, &found) != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "changed while it was being read: %s", strerror(errno));
    }
    const struct identity identity = identity_of(&found);
    return same_identity(&identity, &holding->identity) ? CLLM_OK : fail_changed(err);
}

static enum cllm_status read_reopened(const struct holding *holding, uint64_t offset, void *buffer, size_t byte_count,
                                      struct cllm_error *err)
{
    int descriptor = -1;
    struct identity identity;
    enum cllm_status status = open_regular(holding->path, &descriptor, &identity, err);
    if (status) {
        const enum cllm_status changed = check_holding(holding, err); /* which is why, then */
        return changed ? changed : status;
    }
    status = same_identity(&identity, &holding->identity) ? read_fully(descriptor, offset, buffer, byte_count, err)
                                                          : fail_changed(err);
    close(descriptor);
    return status;
}

enum cllm_status cllm_source_read(const struct cllm_source *source, uint32_t file_index, uint64_t offset, void *buffer,
                                  size_t byte_count, struct cllm_error *err)
{
    assert(file_index < source->file_count);
    const struct holding *holding = &private_of(source)->holdings[file_index];
    enum cllm_status status = holding->descriptor >= 0 ? read_fully(holding->descriptor, offset, buffer, byte_count, err)
                                                       : read_reopened(holding, offset, buffer, byte_count, err);
    return status ? fail_for_file(holding->name, status, err) : CLLM_OK;
}

enum cllm_status cllm_source_check_unchanged(const struct cllm_source *source, struct cllm_error *err)
{
    for (uint32_t i = 0; i < source->file_count; i++) {
        const struct holding *holding = &private_of(source)->holdings[i];
        const enum cllm_status status = check_holding(holding, err);
        if (status) return fail_for_file(holding->name, status, err);
    }
    return CLLM_OK;
}

bool cllm_source_owns(const struct cllm_source *source, const char *path)
{
    struct stat found;
    if (stat(path, &found) != 0) return false;
    for (uint32_t i = 0; i < source->file_count; i++) {
        const struct identity *identity = &private_of(source)->holdings[i].identity;
        if (identity->device == found.st_dev && identity->inode == found.st_ino) return true;
    }
    return false;
}

void cllm_source_close(struct cllm_source *source)
{
    if (!source) return;
    struct source *self = (struct source *)source;
    for (uint32_t i = 0; i < self->base.file_count; i++) {
        struct holding *holding = &self->holdings[i];
        if (holding->descriptor >= 0) close(holding->descriptor);
        cllm_safetensors_free(&holding->weights);
        free(holding->name);
        free(holding->path);
    }
    for (uint32_t i = 0; i < self->warnings.count; i++) free(self->warnings.lines[i]);
    free(self->warnings.lines);
    free(self->holdings);
    free(self->tensors);
    free(self->files);
    free(self);
}

/* ------------------------------------------------------------------------------------------------ opening one file */

static enum cllm_status fail_nomem(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory to open the input");
}

static enum cllm_status read_prefix(int descriptor, uint64_t file_bytes, uint8_t prefix[PREFIX_BYTES], size_t *prefix_bytes_out,
                                    struct cllm_error *err)
{
    *prefix_bytes_out = file_bytes < PREFIX_BYTES ? (size_t)file_bytes : PREFIX_BYTES;
    return read_fully(descriptor, 0, prefix, *prefix_bytes_out, err);
}

/* A clone of a model repository made without its large files leaves these in their place. */
static bool is_lfs_pointer(const uint8_t *prefix, size_t prefix_bytes)
{
    static const char start[] = "version https://git-lfs";
    return prefix_bytes >= sizeof start - 1 && memcmp(prefix, start, sizeof start - 1) == 0;
}

static enum cllm_status parse_weights(struct source *self, struct holding *holding, struct cllm_error *err)
{
    uint8_t prefix[PREFIX_BYTES];
    size_t prefix_bytes = 0;
    uint32_t header_bytes = 0;
    uint64_t file_bytes = (uint64_t)holding->identity.bytes;
    enum cllm_status status = read_prefix(holding->descriptor, file_bytes, prefix, &prefix_bytes, err);
    if (status) return status;
    if (is_lfs_pointer(prefix, prefix_bytes)) {
        return cllm_fail(err, CLLM_E_FORMAT, 0, "a Git LFS pointer, expected the file itself (fetch it with: git lfs pull)");
    }
    status = cllm_safetensors_header_bytes(prefix, prefix_bytes, file_bytes, &header_bytes, err);
    if (status) return status;
    self->header_bytes += header_bytes;
    if (self->header_bytes > CLLM_INDEX_BYTES_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "headers of all files have more than %llu bytes, the limit",
                         (unsigned long long)CLLM_INDEX_BYTES_MAX);
    }
    uint8_t *header = malloc(header_bytes);
    if (!header) return fail_nomem(err);
    status = read_fully(holding->descriptor, CLLM_SAFETENSORS_LENGTH_BYTES, header, header_bytes, err);
    if (!status) status = cllm_safetensors_parse(header, header_bytes, file_bytes, &holding->weights, err);
    free(header);
    return status;
}

/* Moves the tensors of one file to the end of the common array. */
static enum cllm_status append_tensors(struct source *self, uint32_t file_index, struct cllm_error *err)
{
    struct cllm_safetensors *weights = &self->holdings[file_index].weights;
    uint32_t before = self->base.tensor_count, count = weights->tensor_count;
    if (count > CLLM_TENSOR_COUNT_MAX - before) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "found more than %u tensors, the limit", CLLM_TENSOR_COUNT_MAX);
    }
    struct cllm_source_tensor *tensors = realloc(self->tensors, ((size_t)before + count + 1) * sizeof *tensors);
    if (!tensors) return fail_nomem(err);
    self->tensors = tensors;
    self->base.tensors = tensors;
    for (uint32_t i = 0; i < count; i++) {
        tensors[before + i] = weights->tensors[i];
        tensors[before + i].file_index = file_index;
        weights->spans[i + 1].tensor_index += before;
    }
    free(weights->tensors);
    weights->tensors = NULL;
    self->base.tensor_count = before + count;
    return CLLM_OK;
}

static enum cllm_status take_spans(struct source *self, bool is_weights, struct cllm_error *err)
{
    uint32_t file_index = self->base.file_count - 1;
    struct holding *holding = &self->holdings[file_index];
    struct cllm_source_file *file = &self->files[file_index];
    if (is_weights) {
        enum cllm_status status = parse_weights(self, holding, err);
        if (!status) status = append_tensors(self, file_index, err);
        file->spans = holding->weights.spans;
        file->span_count = holding->weights.span_count;
        return status;
    }
    holding->literal = (struct cllm_source_span){.bytes = file->bytes, .tensor_index = CLLM_SPAN_LITERAL};
    file->spans = &holding->literal;
    file->span_count = file->bytes > 0;
    return CLLM_OK;
}

static enum cllm_status open_entry(struct source *self, const struct cllm_source_list *list,
                                   const struct cllm_source_entry *entry, struct cllm_error *err)
{
    struct holding *holding = &self->holdings[self->base.file_count];
    struct cllm_source_file *file = &self->files[self->base.file_count];
    self->base.file_count++; /* from here on, cllm_source_close frees it */
    holding->descriptor = -1;
    holding->name = strdup(entry->name);
    holding->path = cllm_source_join(list->directory, entry->name);
    if (!holding->name || !holding->path) return fail_nomem(err);
    enum cllm_status status = open_regular(holding->path, &holding->descriptor, &holding->identity, err);
    if (status) return status;
    file->name = holding->name;
    file->bytes = (uint64_t)holding->identity.bytes;
    if (!cllm_add(self->base.total_bytes, file->bytes, &self->base.total_bytes) ||
        self->base.total_bytes > CLLM_CONTAINER_BYTES_MAX / 2) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "files have more than %llu bytes, the limit",
                         (unsigned long long)CLLM_CONTAINER_BYTES_MAX / 2);
    }
    status = take_spans(self, entry->is_weights, err);
    if (!status && self->base.file_count > KEPT_OPEN_COUNT_MAX) {
        close(holding->descriptor);
        holding->descriptor = -1;
    }
    return status;
}

/* Opens everything on the list, whose warnings move to the source. */
static enum cllm_status open_list(struct cllm_source_list *list, struct source **source_out, struct cllm_error *err)
{
    *source_out = NULL;
    enum cllm_status status = cllm_source_list_finish(list, err);
    if (status) return status;
    struct source *self = calloc(1, sizeof *self);
    if (!self) return fail_nomem(err);
    self->files = calloc((size_t)list->count + 1, sizeof *self->files);
    self->holdings = calloc((size_t)list->count + 1, sizeof *self->holdings);
    self->base.files = self->files;
    if (!self->files || !self->holdings) status = fail_nomem(err);
    for (uint32_t i = 0; i < list->count && !status; i++) {
        status = open_entry(self, list, &list->entries[i], err);
        if (status) fail_for_file(list->entries[i].name, status, err);
    }
    if (status) {
        cllm_source_close(&self->base);
        return status;
    }
    self->warnings = list->warnings;
    list->warnings = (struct cllm_source_warnings){0};
    *source_out = self;
    return CLLM_OK;
}

/* --------------------------------------------------------------------------------------------------- kinds of input */

enum input_kind { INPUT_OPAQUE, INPUT_WEIGHTS, INPUT_INDEX, INPUT_DIRECTORY };

static enum cllm_status sniff_file(const char *path, enum input_kind *kind_out, struct cllm_error *err)
{
    int descriptor = -1;
    struct identity identity;
    uint8_t prefix[PREFIX_BYTES];
    size_t prefix_bytes = 0;
    enum cllm_status status = open_regular(path, &descriptor, &identity, err);
    if (status) return status;
    status = read_prefix(descriptor, (uint64_t)identity.bytes, prefix, &prefix_bytes, err);
    close(descriptor);
    if (status) return status;
    if (!cllm_safetensors_sniff(prefix, prefix_bytes, (uint64_t)identity.bytes)) {
        return cllm_fail(err, CLLM_E_FORMAT, 0,
                         "neither a .safetensors file nor a " CLLM_SOURCE_INDEX_SUFFIX
                         " nor a directory (--opaque packs any file as it is)");
    }
    *kind_out = INPUT_WEIGHTS;
    return CLLM_OK;
}

/* By name where the name says it, by content otherwise: files of the model hub's cache are called by their digest. */
static enum cllm_status find_kind(const char *path, bool opaque, enum input_kind *kind_out, struct cllm_error *err)
{
    struct stat found;
    if (stat(path, &found) != 0) return fail_errno(err, "open");
    if (!S_ISREG(found.st_mode) && !(S_ISDIR(found.st_mode) && !opaque)) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "%s, expected a regular file%s",
                         S_ISDIR(found.st_mode) ? "a directory" : "a FIFO, socket or device", opaque ? "" : " or a directory");
    }
    if (opaque) {
        *kind_out = INPUT_OPAQUE;
    } else if (S_ISDIR(found.st_mode)) {
        *kind_out = INPUT_DIRECTORY;
    } else if (cllm_source_has_suffix(path, CLLM_SOURCE_INDEX_SUFFIX)) {
        *kind_out = INPUT_INDEX;
    } else if (cllm_source_has_suffix(path, CLLM_SOURCE_WEIGHTS_SUFFIX)) {
        *kind_out = INPUT_WEIGHTS;
    } else {
        return sniff_file(path, kind_out, err);
    }
    return CLLM_OK;
}

static enum cllm_status list_directory(struct cllm_source_list *list, bool only_weights, struct cllm_error *err)
{
    enum cllm_status status = cllm_source_list_add_directory(list, only_weights, err);
    if (status) return status;
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->entries[i].is_weights) return CLLM_OK;
    }
    return cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "found %u files and no .safetensors file, expected at least one",
                     list->count);
}

/* The shards are in the index, which is opened as plain bytes to find out. */
static enum cllm_status list_shards_of(struct cllm_source_list *list, const char *index_name, struct cllm_error *err)
{
    struct cllm_source_list alone = {0};
    struct source *index = NULL;
    enum cllm_status status = cllm_source_list_init(&alone, list->directory, err);
    if (!status) status = cllm_source_list_add(&alone, index_name, false, err);
    if (!status) status = open_list(&alone, &index, err);
    if (!status) status = cllm_source_list_add_shards(list, &index->base, index_name, err);
    if (index) cllm_source_close(&index->base);
    cllm_source_list_free(&alone);
    return status;
}

static enum cllm_status list_file(struct cllm_source_list *list, const char *name, enum input_kind kind, bool only_weights,
                                  struct cllm_error *err)
{
    enum cllm_status status = cllm_source_list_add(list, name, kind == INPUT_WEIGHTS, err);
    if (!status && kind == INPUT_INDEX) status = list_shards_of(list, name, err);
    if (!status && kind != INPUT_OPAQUE && !only_weights) status = cllm_source_list_add_sidecars(list, err);
    return status;
}

/* The directory part of `path`, which is not empty; the caller frees. */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static enum cllm_status list_input(struct cllm_source_list *list, const char *path, const struct cllm_source_options *options,
                                   struct cllm_error *err)
{
    enum input_kind kind = INPUT_OPAQUE;
    enum cllm_status status = find_kind(path, options->opaque, &kind, err);
    if (status) return status;
    if (kind == INPUT_DIRECTORY) {
        status = cllm_source_list_init(list, path, err);
        return status ? status : list_directory(list, options->only_weights, err);
    }
    char *directory = directory_of(path);
    if (!directory) return fail_nomem(err);
    status = cllm_source_list_init(list, directory, err);
    free(directory);
    const char *slash = strrchr(path, '/');
    return status ? status : list_file(list, slash ? slash + 1 : path, kind, options->only_weights, err);
}

enum cllm_status cllm_source_open(const char *path, const struct cllm_source_options *options, struct cllm_source **source_out,
                                  struct cllm_error *err)
{
    static const struct cllm_source_options defaults = {0};
    *source_out = NULL;
    struct source *self = NULL;
    struct cllm_source_list list = {0};
    if (!options) options = &defaults;
    enum cllm_status status = list_input(&list, path, options, err);
    if (!status) status = open_list(&list, &self, err);
    if (!status && !options->opaque) status = cllm_source_check_indexes(&self->base, &self->warnings, err);
    cllm_source_list_free(&list);
    if (status) {
        if (self) cllm_source_close(&self->base);
        return status;
    }
    self->base.warnings = self->warnings.lines;
    self->base.warning_count = self->warnings.count;
    *source_out = &self->base;
    return CLLM_OK;
}

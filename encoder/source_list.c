/* source_list.c - which files make up an input: names, links, directories. Row numbers (S.., I..) are those of the project's
 * list of malformed inputs.
 */
#include "source_list.h"

#include "index.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utf8proc.h>

#define WARNING_COUNT_MAX 100u

/* What tools of the field write beside weights; shell patterns. */
static const char *const sidecar_patterns[] = {
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "params.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tekken.json",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "quantize_config.json",
    "quantization_config.json",
    "hf_quant_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
    "README.md",
};

/* -------------------------------------------------------------------------------------------------- names, memory */

static enum cllm_status fail_nomem(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the list of input files");
}

const char *cllm_source_show(const char *name, struct cllm_source_text *text)
{
    return cllm_escape(name, strlen(name), text->text, sizeof text->text);
}

bool cllm_source_has_suffix(const char *name, const char *suffix)
{
    size_t name_bytes = strlen(name), suffix_bytes = strlen(suffix);
    return name_bytes >= suffix_bytes && strcmp(name + name_bytes - suffix_bytes, suffix) == 0;
}

char *cllm_source_join(const char *directory, const char *name)
{
    char *path = NULL;
    bool slash = *directory && directory[strlen(directory) - 1] != '/';
    return asprintf(&path, "%s%s%s", directory, slash ? "/" : "", name) < 0 ? NULL : path;
}

enum cllm_status cllm_source_warn(struct cllm_source_warnings *warnings, struct cllm_error *err, const char *format, ...)
{
    if (warnings->count >= WARNING_COUNT_MAX) return CLLM_OK;
    char **lines = realloc(warnings->lines, (warnings->count + 1) * sizeof *lines);
    if (!lines) return fail_nomem(err);
    warnings->lines = lines;
    va_list arguments;
    va_start(arguments, format);
    int written = vasprintf(&lines[warnings->count], format, arguments);
    va_end(arguments);
    if (written < 0) return fail_nomem(err);
    warnings->count++;
    return CLLM_OK;
}

enum cllm_status cllm_source_list_init(struct cllm_source_list *list, const char *directory, struct cllm_error *err)
{
    list->directory = strdup(directory);
    if (!list->directory) return fail_nomem(err);
    list->real_directory = realpath(directory, NULL);
    if (!list->real_directory) {
        return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot resolve the directory: %s", strerror(errno));
    }
    char *blobs = cllm_source_join(list->real_directory, "../../blobs");
    if (!blobs) return fail_nomem(err);
    list->real_blobs = realpath(blobs, NULL);
    free(blobs);
    return CLLM_OK;
}

void cllm_source_list_free(struct cllm_source_list *list)
{
    for (uint32_t i = 0; i < list->warnings.count; i++) free(list->warnings.lines[i]);
    for (uint32_t i = 0; i < list->count; i++) free(list->entries[i].name);
    free(list->warnings.lines);
    free(list->unlisted.first);
    free(list->hidden.first);
    free(list->entries);
    free(list->real_blobs);
    free(list->real_directory);
    free(list->directory);
    *list = (struct cllm_source_list){0};
}

enum cllm_status cllm_source_list_add(struct cllm_source_list *list, const char *name, bool is_weights, struct cllm_error *err)
{
    if (list->count == CLLM_SOURCE_FILE_COUNT_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "found more than %u files, the limit", CLLM_SOURCE_FILE_COUNT_MAX);
    }
    if (list->count == list->capacity) {
        uint32_t capacity = list->capacity ? 2 * list->capacity : 64;
        struct cllm_source_entry *entries = realloc(list->entries, capacity * sizeof *entries);
        if (!entries) return fail_nomem(err);
        list->entries = entries;
        list->capacity = capacity;
    }
    struct cllm_source_entry *entry = &list->entries[list->count];
    *entry = (struct cllm_source_entry){strdup(name), is_weights};
    if (!entry->name) return fail_nomem(err);
    list->count++;
    return CLLM_OK;
}

/* ------------------------------------------------------------------------------------------------ entries on disk */

static bool is_within(const char *real_path, const char *real_directory)
{
    if (!real_directory) return false;
    size_t length = strlen(real_directory);
    if (length == 1) return true; /* the root */
    return strncmp(real_path, real_directory, length) == 0 && real_path[length] == '/';
}

/* I1: a link, at whatever level of the path, must not bring in a file from elsewhere. */
static enum cllm_status check_target(const struct cllm_source_list *list, const char *name, const char *path,
                                     struct cllm_error *err)
{
    struct cllm_source_text shown, target;
    char *real_path = realpath(path, NULL);
    if (!real_path) {
        enum cllm_status status = errno == ENOENT ? CLLM_E_ABSENT : CLLM_E_IO;
        return cllm_fail(err, status, CLLM_NO_OFFSET, "\"%s\" is a link that cannot be followed: %s",
                         cllm_source_show(name, &shown), strerror(errno));
    }
    bool inside = is_within(real_path, list->real_directory) || is_within(real_path, list->real_blobs);
    cllm_source_show(real_path, &target);
    free(real_path);
    if (inside) return CLLM_OK;
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                     "\"%s\" is a link to \"%s\", expected a file inside the directory (or its ../../blobs)",
                     cllm_source_show(name, &shown), target.text);
}

/* Says whether `name` is a directory; anything else must be a regular file, or a link to one that is allowed. */
static enum cllm_status check_entry(const struct cllm_source_list *list, const char *name, bool *is_directory_out,
                                    struct cllm_error *err)
{
    struct cllm_source_text shown;
    struct stat found;
    char *path = cllm_source_join(list->directory, name);
    if (!path) return fail_nomem(err);
    enum cllm_status status = CLLM_OK;
    bool is_link = false;
    if (lstat(path, &found) == 0) {
        *is_directory_out = S_ISDIR(found.st_mode);
        if (*is_directory_out) goto out;
        is_link = S_ISLNK(found.st_mode);
        status = check_target(list, name, path, err);
        if (status) goto out;
    }
    if (stat(path, &found) != 0) {
        status = cllm_fail(err, errno == ENOENT || errno == ENOTDIR ? CLLM_E_ABSENT : CLLM_E_IO, CLLM_NO_OFFSET, "\"%s\": %s",
                           cllm_source_show(name, &shown), strerror(errno));
    } else if (!S_ISREG(found.st_mode)) { /* S42, I8 */
        status =
            cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "\"%s\" is %s, expected a regular file", cllm_source_show(name, &shown),
                      is_link && S_ISDIR(found.st_mode) ? "a link to a directory" : "a FIFO, socket or device");
    }
out:
    free(path);
    return status;
}

/* What to do with the names of a directory. */
struct walk {
    struct cllm_source_list *list;
    bool sidecars;     /* take the conventional names at the top level only */
    bool only_weights; /* take weights and indexes only */
    struct cllm_error *err;
};

static bool is_sidecar(const char *name)
{
    for (size_t i = 0; i < sizeof sidecar_patterns / sizeof sidecar_patterns[0]; i++) {
        if (fnmatch(sidecar_patterns[i], name, 0) == 0) return true;
    }
    return false;
}

static enum cllm_status count_left_out(struct cllm_source_tally *tally, const char *name, struct cllm_error *err)
{
    tally->count++;
    if (tally->first && strcmp(tally->first, name) <= 0) return CLLM_OK;
    char *copy = strdup(name);
    if (!copy) return fail_nomem(err);
    free(tally->first);
    tally->first = copy;
    return CLLM_OK;
}

static enum cllm_status warn_left_out(struct cllm_source_list *list, const struct cllm_source_tally *tally, const char *why,
                                      struct cllm_error *err)
{
    if (tally->count == 0) return CLLM_OK;
    struct cllm_source_text shown;
    return cllm_source_warn(&list->warnings, err, "left out %u %s %s, first \"%s\"", tally->count,
                            tally->count == 1 ? "entry" : "entries", why, cllm_source_show(tally->first, &shown));
}

static bool is_on_list(const struct cllm_source_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->entries[i].name, name) == 0) return true;
    }
    return false;
}

/* Beside the input. Weights are never brought along, but worth a word where an index seems to have forgotten them. */
static enum cllm_status visit_beside(struct walk *walk, const char *name)
{
    struct cllm_source_list *list = walk->list;
    bool has_index = cllm_source_has_suffix(list->entries[0].name, CLLM_SOURCE_INDEX_SUFFIX);
    bool is_directory = false;
    if (cllm_source_has_suffix(name, CLLM_SOURCE_WEIGHTS_SUFFIX)) {
        return has_index && !is_on_list(list, name) ? count_left_out(&list->unlisted, name, walk->err) : CLLM_OK;
    }
    if (!is_sidecar(name) || strcmp(name, list->entries[0].name) == 0) return CLLM_OK;
    enum cllm_status status = check_entry(list, name, &is_directory, walk->err);
    return status || is_directory ? status : cllm_source_list_add(list, name, false, walk->err);
}

static enum cllm_status walk_directory(struct walk *walk, const char *relative, unsigned depth);

/* Below the directory that is the input. */
static enum cllm_status visit_below(struct walk *walk, const char *name, unsigned depth)
{
    bool is_weights = cllm_source_has_suffix(name, CLLM_SOURCE_WEIGHTS_SUFFIX);
    bool is_directory = false;
    enum cllm_status status = check_entry(walk->list, name, &is_directory, walk->err);
    if (status) return status;
    if (is_directory) return walk_directory(walk, name, depth + 1);
    if (walk->only_weights && !is_weights && !cllm_source_has_suffix(name, CLLM_SOURCE_INDEX_SUFFIX)) return CLLM_OK;
    return cllm_source_list_add(walk->list, name, is_weights, walk->err);
}

static enum cllm_status visit_entry(struct walk *walk, const char *relative, const char *entry_name, unsigned depth)
{
    if (strcmp(entry_name, ".") == 0 || strcmp(entry_name, "..") == 0) return CLLM_OK;
    char *name = cllm_source_join(relative, entry_name);
    if (!name) return fail_nomem(walk->err);
    enum cllm_status status = CLLM_OK;
    if (walk->sidecars) {
        status = visit_beside(walk, name);
    } else if (entry_name[0] == '.') {
        status = count_left_out(&walk->list->hidden, name, walk->err);
    } else {
        status = visit_below(walk, name, depth);
    }
    free(name);
    return status;
}

static enum cllm_status walk_directory(struct walk *walk, const char *relative, unsigned depth)
{
    struct cllm_source_text shown;
    if (depth > CLLM_SOURCE_DEPTH_MAX) {
        return cllm_fail(walk->err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "\"%s\" is %u directories deep, at most %u are allowed",
                         cllm_source_show(relative, &shown), depth, CLLM_SOURCE_DEPTH_MAX);
    }
    char *path = cllm_source_join(walk->list->directory, relative);
    if (!path) return fail_nomem(walk->err);
    DIR *directory = opendir(path);
    free(path);
    if (!directory) {
        return cllm_fail(walk->err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot read the directory \"%s\": %s",
                         cllm_source_show(relative, &shown), strerror(errno));
    }
    enum cllm_status status = CLLM_OK;
    while (!status) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (!entry) break;
        status = visit_entry(walk, relative, entry->d_name, depth);
    }
    if (!status && errno != 0) {
        status = cllm_fail(walk->err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot read the directory \"%s\": %s",
                           cllm_source_show(relative, &shown), strerror(errno));
    }
    closedir(directory);
    return status;
}

enum cllm_status cllm_source_list_add_sidecars(struct cllm_source_list *list, struct cllm_error *err)
{
    struct walk walk = {.list = list, .sidecars = true, .err = err};
    enum cllm_status status = walk_directory(&walk, "", 0);
    return status ? status : warn_left_out(list, &list->unlisted, "that the index does not list", err);
}

enum cllm_status cllm_source_list_add_directory(struct cllm_source_list *list, bool only_weights, struct cllm_error *err)
{
    struct walk walk = {.list = list, .only_weights = only_weights, .err = err};
    enum cllm_status status = walk_directory(&walk, "", 0);
    return status ? status : warn_left_out(list, &list->hidden, "with a name that starts with \".\"", err);
}

enum cllm_status cllm_source_list_add_shard(struct cllm_source_list *list, const char *name, struct cllm_error *err)
{
    bool is_directory = false;
    enum cllm_status status = check_entry(list, name, &is_directory, err);
    if (status == CLLM_E_ABSENT) return cllm_fail_context(err, status, "shard listed in the index is missing"); /* I3 */
    if (!status && is_directory) {
        struct cllm_source_text shown;
        return cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "shard \"%s\" is a directory, expected a regular file",
                         cllm_source_show(name, &shown)); /* I8 */
    }
    return status ? status : cllm_source_list_add(list, name, true, err);
}

/* ------------------------------------------------------------------------------------------------- order and names */

static int compare_entries(const void *a, const void *b)
{
    const struct cllm_source_entry *x = a, *y = b;
    if (x->is_weights != y->is_weights) return x->is_weights ? -1 : 1;
    return strcmp(x->name, y->name);
}

struct folded_name {
    const char *name;
    char *folded;
};

static int compare_folded(const void *a, const void *b)
{
    return strcmp(((const struct folded_name *)a)->folded, ((const struct folded_name *)b)->folded);
}

/* NFC after case folding: what a case-insensitive, normalising file system takes for the same name. */
static enum cllm_status fold_name(struct folded_name *folded, struct cllm_error *err)
{
    struct cllm_source_text shown;
    if (!cllm_file_name_is_safe(folded->name, strlen(folded->name))) { /* I1 */
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "file name \"%s\" is not a plain relative path (no \"..\", backslash or control character)",
                         cllm_source_show(folded->name, &shown));
    }
    utf8proc_uint8_t *out = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)folded->name, 0, &out,
                                           UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD);
    if (length == UTF8PROC_ERROR_NOMEM) return fail_nomem(err);
    if (length < 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "file name \"%s\" is not valid UTF-8",
                         cllm_source_show(folded->name, &shown));
    }
    folded->folded = (char *)out;
    return CLLM_OK;
}

/* I6 */
static enum cllm_status check_collisions(const struct cllm_source_list *list, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    struct folded_name *names = calloc((size_t)list->count + 1, sizeof *names);
    if (!names) return fail_nomem(err);
    for (uint32_t i = 0; i < list->count && !status; i++) {
        names[i].name = list->entries[i].name;
        status = fold_name(&names[i], err);
    }
    if (status) goto out;
    qsort(names, list->count, sizeof *names, compare_folded);
    for (uint32_t i = 1; i < list->count; i++) {
        if (strcmp(names[i - 1].folded, names[i].folded) != 0) continue;
        struct cllm_source_text first, second;
        bool swap = strcmp(names[i - 1].name, names[i].name) > 0;
        status = cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                           "file names \"%s\" and \"%s\" differ only in case or Unicode normalisation, expected distinct names",
                           cllm_source_show(names[i - !swap].name, &first), cllm_source_show(names[i - swap].name, &second));
        break;
    }
out:
    for (uint32_t i = 0; i < list->count; i++) free(names[i].folded);
    free(names);
    return status;
}

enum cllm_status cllm_source_list_finish(struct cllm_source_list *list, struct cllm_error *err)
{
    if (list->count) qsort(list->entries, list->count, sizeof *list->entries, compare_entries);
    return check_collisions(list, err);
}

/* source_checkpoint.c - which files belong to a checkpoint, and whether its shard index tells the truth. Row numbers (I..) are
 * those of the project's list of malformed inputs.
 */
#include "source_list.h"

#include "bytes.h"
#include "index.h"
#include "source_json.h"

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

/* A name as it may be printed; static storage would not do for two in one message. */
struct printable {
    char text[200];
};

static const char *show(const char *name, struct printable *printable)
{
    return cllm_escape(name, strlen(name), printable->text, sizeof printable->text);
}

bool cllm_source_has_suffix(const char *name, const char *suffix)
{
    size_t name_bytes = strlen(name), suffix_bytes = strlen(suffix);
    return name_bytes >= suffix_bytes && strcmp(name + name_bytes - suffix_bytes, suffix) == 0;
}

static const char *base_of(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
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
    char *copy = strdup(name);
    if (!copy) return fail_nomem(err);
    list->entries[list->count++] = (struct cllm_source_entry){copy, is_weights};
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
    struct printable shown, target;
    char *real_path = realpath(path, NULL);
    if (!real_path) {
        enum cllm_status status = errno == ENOENT ? CLLM_E_ABSENT : CLLM_E_IO;
        return cllm_fail(err, status, CLLM_NO_OFFSET, "\"%s\" is a link that cannot be followed: %s", show(name, &shown),
                         strerror(errno));
    }
    bool inside = is_within(real_path, list->real_directory) || is_within(real_path, list->real_blobs);
    show(real_path, &target);
    free(real_path);
    if (inside) return CLLM_OK;
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                     "\"%s\" is a link to \"%s\", expected a file inside the directory (or its ../../blobs)", show(name, &shown),
                     target.text);
}

/* Says whether `name` is a directory; anything else must be a regular file, or a link to one that is allowed. */
static enum cllm_status check_entry(const struct cllm_source_list *list, const char *name, bool *is_directory_out,
                                    struct cllm_error *err)
{
    struct printable shown;
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
                           show(name, &shown), strerror(errno));
    } else if (!S_ISREG(found.st_mode)) { /* S42, I8 */
        status = cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "\"%s\" is %s, expected a regular file", show(name, &shown),
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
    struct printable shown;
    return cllm_source_warn(&list->warnings, err, "left out %u %s %s, first \"%s\"", tally->count,
                            tally->count == 1 ? "entry" : "entries", why, show(tally->first, &shown));
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
    struct printable shown;
    if (depth > CLLM_SOURCE_DEPTH_MAX) {
        return cllm_fail(walk->err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "\"%s\" is %u directories deep, at most %u are allowed",
                         show(relative, &shown), depth, CLLM_SOURCE_DEPTH_MAX);
    }
    char *path = cllm_source_join(walk->list->directory, relative);
    if (!path) return fail_nomem(walk->err);
    DIR *directory = opendir(path);
    free(path);
    if (!directory) {
        return cllm_fail(walk->err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot read the directory \"%s\": %s", show(relative, &shown),
                         strerror(errno));
    }
    enum cllm_status status = CLLM_OK;
    while (!status) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (!entry) break;
        status = visit_entry(walk, relative, entry->d_name, depth);
    }
    if (!status && errno != 0) {
        status = cllm_fail(walk->err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot read the directory \"%s\": %s", show(relative, &shown),
                           strerror(errno));
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
    struct printable shown;
    if (!cllm_file_name_is_safe(folded->name, strlen(folded->name))) { /* I1 */
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "file name \"%s\" is not a plain relative path (no \"..\", backslash or control character)",
                         show(folded->name, &shown));
    }
    utf8proc_uint8_t *out = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)folded->name, 0, &out,
                                           UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD);
    if (length == UTF8PROC_ERROR_NOMEM) return fail_nomem(err);
    if (length < 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "file name \"%s\" is not valid UTF-8", show(folded->name, &shown));
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
        struct printable first, second;
        bool swap = strcmp(names[i - 1].name, names[i].name) > 0;
        status = cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                           "file names \"%s\" and \"%s\" differ only in case or Unicode normalisation, expected distinct names",
                           show(names[i - !swap].name, &first), show(names[i - swap].name, &second));
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

/* ---------------------------------------------------------------------------------------------------- shard index */

/* Every value of weight_map must be a name that is safe to open and to restore. */
static enum cllm_status check_weight_map(json_t *map, struct cllm_error *err)
{
    struct printable shown, shard;
    if (!json_is_object(map) || json_object_size(map) == 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "weight_map is %s, expected an object that lists tensors",
                         json_is_object(map) ? "empty" : cllm_source_json_kind(map));
    }
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        if (!json_is_string(value)) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "weight_map value of \"%s\" is %s, expected a file name",
                             show(key, &shown), cllm_source_json_kind(value));
        }
        const char *name = json_string_value(value);
        if (cllm_file_name_is_safe(name, json_string_length(value)) && cllm_source_has_suffix(name, CLLM_SOURCE_WEIGHTS_SUFFIX)) {
            continue;
        }
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "weight_map value of \"%s\" is \"%s\", expected a relative name of a .safetensors file (no \"..\")",
                         show(key, &shown), show(name, &shard));
    }
    return CLLM_OK;
}

/* The parsed index, its weight_map checked; the caller releases it. */
static enum cllm_status load_index(const struct cllm_source *source, uint32_t file_index, json_t **index_out,
                                   struct cllm_error *err)
{
    *index_out = NULL;
    uint64_t byte_count = source->files[file_index].bytes;
    if (byte_count > CLLM_JSON_BYTES_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "index has %llu bytes, at most %u are allowed",
                         (unsigned long long)byte_count, CLLM_JSON_BYTES_MAX);
    }
    uint8_t *bytes = malloc(byte_count + 1);
    if (!bytes) return fail_nomem(err);
    json_t *index = NULL;
    enum cllm_status status = cllm_source_read(source, file_index, 0, bytes, byte_count, err);
    if (!status) status = cllm_source_json_parse("index", 0, bytes, byte_count, &index, err);
    if (!status) status = check_weight_map(json_object_get(index, "weight_map"), err);
    free(bytes);
    if (status) {
        json_decref(index);
        return status;
    }
    *index_out = index;
    return CLLM_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct values of `map`, sorted; they live as long as it. The caller frees the array. */
static const char **list_shards(json_t *map, size_t *count_out)
{
    const char **names = calloc(json_object_size(map), sizeof *names);
    if (!names) return NULL;
    size_t count = 0, distinct = 0;
    const char *key, *last = "";
    json_t *value;
    json_object_foreach(map, key, value)
    {
        if (strcmp(json_string_value(value), last) == 0) continue; /* usually in runs: keeps the sort short */
        last = names[count++] = json_string_value(value);
    }
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 0; i < count; i++) {
        if (distinct == 0 || strcmp(names[distinct - 1], names[i]) != 0) names[distinct++] = names[i];
    }
    *count_out = distinct;
    return names;
}

static enum cllm_status add_shard(struct cllm_source_list *list, const char *name, struct cllm_error *err)
{
    bool is_directory = false;
    enum cllm_status status = check_entry(list, name, &is_directory, err);
    if (status == CLLM_E_ABSENT) return cllm_fail_context(err, status, "shard listed in the index is missing"); /* I3 */
    if (!status && is_directory) {
        struct printable shown;
        return cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "shard \"%s\" is a directory, expected a regular file",
                         show(name, &shown)); /* I8 */
    }
    return status ? status : cllm_source_list_add(list, name, true, err);
}

enum cllm_status cllm_source_list_add_shards(struct cllm_source_list *list, const struct cllm_source *index,
                                             const char *index_name, struct cllm_error *err)
{
    struct printable shown;
    size_t count = 0;
    json_t *json = NULL;
    enum cllm_status status = load_index(index, 0, &json, err);
    if (status) return cllm_fail_context(err, status, "%s", show(index_name, &shown));
    const char **names = list_shards(json_object_get(json, "weight_map"), &count);
    if (!names) status = fail_nomem(err);
    for (size_t i = 0; i < count && !status; i++) status = add_shard(list, names[i], err);
    free(names);
    json_decref(json);
    return status;
}

/* ------------------------------------------------------------------------------------------ index against its shards */

struct index_check {
    const struct cllm_source *source;
    const char *index_name;
    size_t prefix_bytes; /* of index_name, up to and with the last '/' */
    json_t *map;
    bool *listed; /* per file of source */
    uint64_t tensor_bytes;
    struct cllm_source_warnings *warnings;
    struct cllm_error *err;
};

/* The file called prefix + shard, or UINT32_MAX. Weights are the first files and sorted. */
static uint32_t find_shard(const struct index_check *check, const char *shard)
{
    uint32_t low = 0, high = check->source->file_count;
    while (low < high && !cllm_source_has_suffix(check->source->files[high - 1].name, CLLM_SOURCE_WEIGHTS_SUFFIX)) high--;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const char *name = check->source->files[middle].name;
        int order = strncmp(name, check->index_name, check->prefix_bytes);
        if (order == 0) order = strcmp(name + check->prefix_bytes, shard);
        if (order == 0) return middle;
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return UINT32_MAX;
}

static enum cllm_status mark_listed(struct index_check *check)
{
    size_t count = 0;
    const char **names = list_shards(check->map, &count);
    if (!names) return fail_nomem(check->err);
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < count && !status; i++) {
        struct printable shown;
        uint32_t file_index = find_shard(check, names[i]);
        if (file_index == UINT32_MAX) { /* I3 */
            status = cllm_fail(check->err, CLLM_E_ABSENT, CLLM_NO_OFFSET, "shard \"%s\" is listed but missing",
                               show(names[i], &shown));
        } else {
            check->listed[file_index] = true;
        }
    }
    free(names);
    return status;
}

/* I4: the index must name this shard for this tensor. A value is replaced by `true` once its tensor was met. */
static enum cllm_status check_tensor(struct index_check *check, const struct cllm_source_tensor *tensor, const char *shard)
{
    struct printable name, here, there;
    json_t *value = json_object_get(check->map, tensor->name);
    if (json_is_string(value) && strcmp(json_string_value(value), shard) == 0) {
        json_object_set_new(check->map, tensor->name, json_true());
        return CLLM_OK;
    }
    show(tensor->name, &name);
    show(shard, &here);
    if (!value) {
        return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "tensor \"%s\" is in shard \"%s\" but not listed in the index", name.text, here.text);
    }
    if (json_is_string(value)) {
        return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "tensor \"%s\" is in shard \"%s\", the index expects it in \"%s\"", name.text, here.text,
                         show(json_string_value(value), &there));
    }
    return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                     "tensor \"%s\" is in shard \"%s\" and in another, expected in one", name.text, here.text);
}

static enum cllm_status check_shard(struct index_check *check, const struct cllm_source_file *file)
{
    for (uint32_t i = 0; i < file->span_count; i++) {
        if (file->spans[i].tensor_index == CLLM_SPAN_LITERAL) continue;
        const struct cllm_source_tensor *tensor = &check->source->tensors[file->spans[i].tensor_index];
        enum cllm_status status = check_tensor(check, tensor, file->name + check->prefix_bytes);
        if (status) return status;
        check->tensor_bytes += file->spans[i].bytes;
    }
    return CLLM_OK;
}

static enum cllm_status check_all_met(struct index_check *check)
{
    const char *key;
    json_t *value;
    json_object_foreach(check->map, key, value)
    {
        struct printable name, shard;
        if (!json_is_string(value)) continue;
        return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "tensor \"%s\" is listed in shard \"%s\", which does not have it", show(key, &name),
                         show(json_string_value(value), &shard));
    }
    return CLLM_OK;
}

/* I3: beside the index of a whole model, another weights file is a second model or a forgotten shard. */
static enum cllm_status check_unlisted(const struct index_check *check)
{
    if (strcmp(base_of(check->index_name), "model" CLLM_SOURCE_INDEX_SUFFIX) != 0) return CLLM_OK;
    for (uint32_t i = 0; i < check->source->file_count; i++) {
        const char *name = check->source->files[i].name;
        bool beside = strncmp(name, check->index_name, check->prefix_bytes) == 0 && !strchr(name + check->prefix_bytes, '/');
        if (!beside || check->listed[i] || !cllm_source_has_suffix(name, CLLM_SOURCE_WEIGHTS_SUFFIX)) continue;
        struct printable shown;
        return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "\"%s\" is not listed in the index; to pack only what it lists, give the index file as input",
                         show(name, &shown));
    }
    return CLLM_OK;
}

/* I5: tools disagree on what total_size counts, so a difference is worth a line and no more. */
static enum cllm_status check_total_size(const struct index_check *check, json_t *index)
{
    struct printable shown;
    const json_t *total = json_object_get(json_object_get(index, "metadata"), "total_size");
    if (!json_is_number(total)) return CLLM_OK;
    bool equal = json_is_integer(total) ? (uint64_t)json_integer_value(total) == check->tensor_bytes
                                        : json_real_value(total) == (double)check->tensor_bytes;
    if (equal) return CLLM_OK;
    return cllm_source_warn(check->warnings, check->err, "%s: total_size is %.0f, the tensors have %llu bytes",
                            show(check->index_name, &shown), json_number_value(total), (unsigned long long)check->tensor_bytes);
}

static enum cllm_status check_index(struct index_check *check, json_t *index)
{
    enum cllm_status status = mark_listed(check);
    for (uint32_t i = 0; i < check->source->file_count && !status; i++) {
        if (check->listed[i]) status = check_shard(check, &check->source->files[i]);
    }
    if (!status) status = check_all_met(check);
    if (!status) status = check_unlisted(check);
    if (!status) status = check_total_size(check, index);
    return status;
}

enum cllm_status cllm_source_check_indexes(const struct cllm_source *source, struct cllm_source_warnings *warnings,
                                           struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 0; i < source->file_count && !status; i++) {
        const char *name = source->files[i].name;
        if (!cllm_source_has_suffix(name, CLLM_SOURCE_INDEX_SUFFIX)) continue;
        struct printable shown;
        json_t *index = NULL;
        struct index_check check = {.source = source, .index_name = name, .warnings = warnings, .err = err};
        check.prefix_bytes = (size_t)(base_of(name) - name);
        check.listed = calloc(source->file_count, sizeof *check.listed);
        status = check.listed ? load_index(source, i, &index, err) : fail_nomem(err);
        if (!status) {
            check.map = json_object_get(index, "weight_map");
            status = check_index(&check, index);
        }
        if (status) cllm_fail_context(err, status, "%s", show(name, &shown));
        json_decref(index);
        free(check.listed);
    }
    return status;
}

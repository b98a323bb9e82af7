/* source_checkpoint.c - the shard index of a checkpoint: which files it lists, and whether it tells the truth. Row numbers
 * (I..) are those of the project's list of malformed inputs.
 */
#include "source_list.h"

#include "index.h"
#include "source_json.h"

#include <stdlib.h>
#include <string.h>

static enum cllm_status fail_nomem(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the shard index");
}

static const char *base_of(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

/* ---------------------------------------------------------------------------------------------------- shard index */

/* Every value of weight_map must be a name that is safe to open and to restore. */
static enum cllm_status check_weight_map(json_t *map, struct cllm_error *err)
{
    struct cllm_source_text shown, shard;
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
                             cllm_source_show(key, &shown), cllm_source_json_kind(value));
        }
        const char *name = json_string_value(value);
        if (cllm_file_name_is_safe(name, json_string_length(value)) && cllm_source_has_suffix(name, CLLM_SOURCE_WEIGHTS_SUFFIX)) {
            continue;
        }
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "weight_map value of \"%s\" is \"%s\", expected a relative name of a .safetensors file (no \"..\")",
                         cllm_source_show(key, &shown), cllm_source_show(name, &shard));
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

enum cllm_status cllm_source_list_add_shards(struct cllm_source_list *list, const struct cllm_source *index,
                                             const char *index_name, struct cllm_error *err)
{
    struct cllm_source_text shown;
    size_t count = 0;
    json_t *json = NULL;
    enum cllm_status status = load_index(index, 0, &json, err);
    if (status) return cllm_fail_context(err, status, "%s", cllm_source_show(index_name, &shown));
    const char **names = list_shards(json_object_get(json, "weight_map"), &count);
    if (!names) status = fail_nomem(err);
    for (size_t i = 0; i < count && !status; i++) status = cllm_source_list_add_shard(list, names[i], err);
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
        struct cllm_source_text shown;
        uint32_t file_index = find_shard(check, names[i]);
        if (file_index == UINT32_MAX) { /* I3 */
            status = cllm_fail(check->err, CLLM_E_ABSENT, CLLM_NO_OFFSET, "shard \"%s\" is listed but missing",
                               cllm_source_show(names[i], &shown));
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
    struct cllm_source_text name, here, there;
    json_t *value = json_object_get(check->map, tensor->name);
    if (json_is_string(value) && strcmp(json_string_value(value), shard) == 0) {
        json_object_set_new(check->map, tensor->name, json_true());
        return CLLM_OK;
    }
    cllm_source_show(tensor->name, &name);
    cllm_source_show(shard, &here);
    if (!value) {
        return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "tensor \"%s\" is in shard \"%s\" but not listed in the index", name.text, here.text);
    }
    if (json_is_string(value)) {
        return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "tensor \"%s\" is in shard \"%s\", the index expects it in \"%s\"", name.text, here.text,
                         cllm_source_show(json_string_value(value), &there));
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
        struct cllm_source_text name, shard;
        if (!json_is_string(value)) continue;
        return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "tensor \"%s\" is listed in shard \"%s\", which does not have it", cllm_source_show(key, &name),
                         cllm_source_show(json_string_value(value), &shard));
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
        struct cllm_source_text shown;
        return cllm_fail(check->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "\"%s\" is not listed in the index; to pack only what it lists, give the index file as input",
                         cllm_source_show(name, &shown));
    }
    return CLLM_OK;
}

/* I5: tools disagree on what total_size counts, so a difference is worth a line and no more. */
static enum cllm_status check_total_size(const struct index_check *check, json_t *index)
{
    struct cllm_source_text shown;
    const json_t *total = json_object_get(json_object_get(index, "metadata"), "total_size");
    if (!json_is_number(total)) return CLLM_OK;
    bool equal = json_is_integer(total) ? (uint64_t)json_integer_value(total) == check->tensor_bytes
                                        : json_real_value(total) == (double)check->tensor_bytes;
    if (equal) return CLLM_OK;
    return cllm_source_warn(check->warnings, check->err, "%s: total_size is %.0f, the tensors have %llu bytes",
                            cllm_source_show(check->index_name, &shown), json_number_value(total),
                            (unsigned long long)check->tensor_bytes);
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
        struct cllm_source_text shown;
        json_t *index = NULL;
        struct index_check check = {.source = source, .index_name = name, .warnings = warnings, .err = err};
        check.prefix_bytes = (size_t)(base_of(name) - name);
        check.listed = calloc(source->file_count, sizeof *check.listed);
        status = check.listed ? load_index(source, i, &index, err) : fail_nomem(err);
        if (!status) {
            check.map = json_object_get(index, "weight_map");
            status = check_index(&check, index);
        }
        if (status) cllm_fail_context(err, status, "%s", cllm_source_show(name, &shown));
        json_decref(index);
        free(check.listed);
    }
    return status;
}

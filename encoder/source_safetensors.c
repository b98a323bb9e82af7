/* source_safetensors.c - header of a .safetensors file: parse and validate. Row numbers (S..) are those of the project's
 * list of malformed inputs.
 */
#include "source_safetensors.h"

#include "bytes.h"
#include "source_json.h"

#include <stdlib.h>
#include <string.h>

#define METADATA_KEY "__metadata__"

typedef unsigned long long ull; /* for %llu */

struct parser {
    struct cllm_safetensors *weights;
    uint64_t data_offset; /* where the data starts in the file */
    uint64_t data_bytes;
    uint64_t *next_extent;
    char *next_name;
    char printable[160]; /* name of the tensor at hand, for messages */
    struct cllm_error *err;
};

/* ------------------------------------------------------------------------------------------------- header length */

bool cllm_safetensors_sniff(const uint8_t *prefix, size_t prefix_bytes, uint64_t file_bytes)
{
    if (prefix_bytes <= CLLM_SAFETENSORS_LENGTH_BYTES || file_bytes < CLLM_SAFETENSORS_LENGTH_BYTES) return false;
    uint64_t header_bytes = cllm_load_le64(prefix);
    return header_bytes <= CLLM_JSON_BYTES_MAX && header_bytes <= file_bytes - CLLM_SAFETENSORS_LENGTH_BYTES &&
           prefix[CLLM_SAFETENSORS_LENGTH_BYTES] == '{';
}

enum cllm_status cllm_safetensors_header_bytes(const uint8_t *prefix, size_t prefix_bytes, uint64_t file_bytes,
                                               uint32_t *header_bytes_out, struct cllm_error *err)
{
    if (file_bytes < CLLM_SAFETENSORS_LENGTH_BYTES || prefix_bytes < CLLM_SAFETENSORS_LENGTH_BYTES) { /* S1 */
        return cllm_fail(err, CLLM_E_CORRUPT, 0, "file has %llu bytes, a safetensors file has at least 8", (ull)file_bytes);
    }
    uint64_t header_bytes = cllm_load_le64(prefix);
    if (header_bytes > CLLM_JSON_BYTES_MAX) { /* S3 */
        return cllm_fail(err, CLLM_E_CORRUPT, 0, "header length is %llu, safetensors allows at most %u", (ull)header_bytes,
                         CLLM_JSON_BYTES_MAX);
    }
    if (header_bytes > file_bytes - CLLM_SAFETENSORS_LENGTH_BYTES) { /* S2 */
        return cllm_fail(err, CLLM_E_CORRUPT, 0, "header length is %llu, only %llu bytes follow it", (ull)header_bytes,
                         (ull)(file_bytes - CLLM_SAFETENSORS_LENGTH_BYTES));
    }
    if (header_bytes < 2) {
        return cllm_fail(err, CLLM_E_CORRUPT, 0, "header length is %llu, the shortest header ({}) has 2 bytes",
                         (ull)header_bytes);
    }
    *header_bytes_out = (uint32_t)header_bytes;
    return CLLM_OK;
}

/* ----------------------------------------------------------------------------------------------------- one tensor */

static enum cllm_status fail_tensor(struct parser *parser, const char *what, const char *found, const char *expected)
{
    return cllm_fail(parser->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "tensor \"%s\": %s is %s, expected %s", parser->printable, what,
                     found, expected);
}

static enum cllm_status read_unsigned(struct parser *parser, const json_t *value, const char *what, uint64_t *out)
{
    if (!json_is_integer(value)) return fail_tensor(parser, what, cllm_source_json_kind(value), "an unsigned integer");
    json_int_t integer = json_integer_value(value);
    if (integer < 0) { /* S19 */
        return cllm_fail(parser->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "tensor \"%s\": %s is %lld, expected an unsigned integer",
                         parser->printable, what, (long long)integer);
    }
    *out = (uint64_t)integer;
    return CLLM_OK;
}

static enum cllm_status read_dtype(struct parser *parser, const json_t *value, struct cllm_source_tensor *tensor)
{
    if (!json_is_string(value)) return fail_tensor(parser, "dtype", cllm_source_json_kind(value), "a string");
    const struct cllm_dtype *dtype = cllm_dtype_find(json_string_value(value), json_string_length(value));
    if (!dtype) { /* S22 */
        char found[64];
        return cllm_fail(parser->err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "tensor \"%s\": dtype is \"%s\", expected one of %s",
                         parser->printable, cllm_escape(json_string_value(value), json_string_length(value), found, sizeof found),
                         cllm_dtype_names());
    }
    tensor->dtype = dtype->name;
    tensor->element_bits = dtype->element_bits;
    return CLLM_OK;
}

static enum cllm_status read_shape(struct parser *parser, const json_t *value, struct cllm_source_tensor *tensor)
{
    if (!json_is_array(value)) return fail_tensor(parser, "shape", cllm_source_json_kind(value), "an array");
    size_t rank = json_array_size(value);
    if (rank > CLLM_SAFETENSORS_RANK_MAX) { /* S37 */
        return cllm_fail(parser->err, CLLM_E_LIMIT, CLLM_NO_OFFSET,
                         "tensor \"%s\": shape has %zu dimensions, at most %u are allowed", parser->printable, rank,
                         CLLM_SAFETENSORS_RANK_MAX);
    }
    uint64_t *extents = parser->next_extent;
    for (size_t i = 0; i < rank; i++) {
        enum cllm_status status = read_unsigned(parser, json_array_get(value, i), "an extent of shape", &extents[i]);
        if (status) return status;
    }
    tensor->shape = rank ? extents : NULL;
    tensor->rank = (uint32_t)rank;
    parser->next_extent += rank;
    return CLLM_OK;
}

static enum cllm_status read_data_offsets(struct parser *parser, const json_t *value, uint64_t *begin_out, uint64_t *end_out)
{
    if (!json_is_array(value)) return fail_tensor(parser, "data_offsets", cllm_source_json_kind(value), "an array");
    if (json_array_size(value) != 2) { /* S18 */
        return cllm_fail(parser->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "tensor \"%s\": data_offsets has %zu numbers, expected 2",
                         parser->printable, json_array_size(value));
    }
    enum cllm_status status = read_unsigned(parser, json_array_get(value, 0), "begin of data_offsets", begin_out);
    if (!status) status = read_unsigned(parser, json_array_get(value, 1), "end of data_offsets", end_out);
    if (status) return status;
    uint64_t offset = *begin_out <= parser->data_bytes ? parser->data_offset + *begin_out : CLLM_NO_OFFSET;
    if (*end_out < *begin_out) { /* S23 */
        return cllm_fail(parser->err, CLLM_E_CORRUPT, offset, "tensor \"%s\": data ends at %llu, before it begins at %llu",
                         parser->printable, (ull)*end_out, (ull)*begin_out);
    }
    if (*end_out > parser->data_bytes) { /* S31 */
        return cllm_fail(parser->err, CLLM_E_CORRUPT, offset,
                         "tensor \"%s\": data ends at %llu, the file has only %llu data bytes (truncated?)", parser->printable,
                         (ull)*end_out, (ull)parser->data_bytes);
    }
    return CLLM_OK;
}

/* Multiplies in the order in which a container's reader does, so that both overflow for the same shapes. */
static enum cllm_status check_size(struct parser *parser, const struct cllm_source_tensor *tensor, uint64_t begin, uint64_t end)
{
    uint64_t offset = parser->data_offset + begin;
    uint64_t bits = tensor->element_bits;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (!cllm_mul(bits, tensor->shape[i], &bits)) { /* S27 */
            return cllm_fail(parser->err, CLLM_E_CORRUPT, offset,
                             "tensor \"%s\": size overflows 64 bits at extent %llu of shape, expected at most %llu data bytes",
                             parser->printable, (ull)tensor->shape[i], (ull)parser->data_bytes);
        }
    }
    if (bits % 8 != 0) { /* S29 */
        return cllm_fail(parser->err, CLLM_E_CORRUPT, offset, "tensor \"%s\": %llu bits of %s, expected a whole number of bytes",
                         parser->printable, (ull)bits, tensor->dtype);
    }
    if (end - begin != bits / 8) { /* S26 */
        return cllm_fail(parser->err, CLLM_E_CORRUPT, offset,
                         "tensor \"%s\": data_offsets span %llu bytes, its shape and dtype %s need %llu", parser->printable,
                         (ull)(end - begin), tensor->dtype, (ull)(bits / 8));
    }
    return CLLM_OK;
}

static enum cllm_status read_name(struct parser *parser, const char *name, struct cllm_source_tensor *tensor)
{
    size_t name_bytes = strlen(name);
    cllm_escape(name, name_bytes, parser->printable, sizeof parser->printable);
    if (name_bytes > CLLM_SAFETENSORS_NAME_BYTES_MAX) { /* S40 */
        return cllm_fail(parser->err, CLLM_E_LIMIT, CLLM_NO_OFFSET,
                         "tensor name \"%.60s...\" has %zu bytes, at most %u are allowed", parser->printable, name_bytes,
                         CLLM_SAFETENSORS_NAME_BYTES_MAX);
    }
    memcpy(parser->next_name, name, name_bytes + 1);
    tensor->name = parser->next_name;
    tensor->name_bytes = (uint32_t)name_bytes;
    parser->next_name += name_bytes + 1;
    return CLLM_OK;
}

static enum cllm_status read_tensor(struct parser *parser, const char *name, const json_t *info)
{
    uint32_t index = parser->weights->tensor_count;
    struct cllm_source_tensor *tensor = &parser->weights->tensors[index];
    enum cllm_status status = read_name(parser, name, tensor);
    if (status) return status;
    if (!json_is_object(info)) return fail_tensor(parser, "value", cllm_source_json_kind(info), "an object"); /* S34 */
    uint64_t begin = 0, end = 0;
    status = read_dtype(parser, json_object_get(info, "dtype"), tensor);
    if (!status) status = read_shape(parser, json_object_get(info, "shape"), tensor);
    if (!status) status = read_data_offsets(parser, json_object_get(info, "data_offsets"), &begin, &end);
    if (!status) status = check_size(parser, tensor, begin, end);
    if (status) return status;
    parser->weights->spans[index + 1] =
        (struct cllm_source_span){.offset = parser->data_offset + begin, .bytes = end - begin, .tensor_index = index};
    parser->weights->tensor_count = index + 1;
    return CLLM_OK;
}

/* ---------------------------------------------------------------------------------------------------- whole header */

static enum cllm_status check_metadata(struct parser *parser, json_t *metadata)
{
    if (!json_is_object(metadata)) { /* S32 */
        return cllm_fail(parser->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, METADATA_KEY " is %s, expected an object of strings",
                         cllm_source_json_kind(metadata));
    }
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (json_is_string(value)) continue;
        cllm_escape(key, strlen(key), parser->printable, sizeof parser->printable);
        return cllm_fail(parser->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, METADATA_KEY " value of \"%s\" is %s, expected a string",
                         parser->printable, cllm_source_json_kind(value));
    }
    return CLLM_OK;
}

/* Sizes come from what was parsed, never from a number in the file. */
static enum cllm_status allocate(struct parser *parser, json_t *header)
{
    size_t count = 0, name_bytes = 0, extent_count = 0;
    const char *key;
    json_t *info;
    json_object_foreach(header, key, info)
    {
        if (strcmp(key, METADATA_KEY) == 0) continue;
        count++;
        name_bytes += strlen(key) + 1;
        extent_count += json_array_size(json_object_get(info, "shape"));
    }
    struct cllm_safetensors *weights = parser->weights;
    weights->tensors = calloc(count + 1, sizeof *weights->tensors);
    weights->spans = calloc(count + 1, sizeof *weights->spans);
    weights->extents = calloc(extent_count + 1, sizeof *weights->extents);
    weights->names = malloc(name_bytes + 1);
    if (!weights->tensors || !weights->spans || !weights->extents || !weights->names) {
        return cllm_fail(parser->err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %zu tensors", count);
    }
    parser->next_extent = weights->extents;
    parser->next_name = weights->names;
    return CLLM_OK;
}

/* An empty tensor comes before the one that starts where it lies; equals keep the order of the header. */
static int compare_spans(const void *a, const void *b)
{
    const struct cllm_source_span *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return x->tensor_index < y->tensor_index ? -1 : x->tensor_index > y->tensor_index;
}

static enum cllm_status sort_by_offset(struct parser *parser)
{
    struct cllm_safetensors *weights = parser->weights;
    struct cllm_source_tensor *sorted = calloc((size_t)weights->tensor_count + 1, sizeof *sorted);
    if (!sorted) {
        return cllm_fail(parser->err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory to sort %u tensors", weights->tensor_count);
    }
    qsort(weights->spans + 1, weights->tensor_count, sizeof *weights->spans, compare_spans);
    for (uint32_t i = 0; i < weights->tensor_count; i++) {
        sorted[i] = weights->tensors[weights->spans[i + 1].tensor_index];
        weights->spans[i + 1].tensor_index = i;
    }
    free(weights->tensors);
    weights->tensors = sorted;
    return CLLM_OK;
}

/* S24, S25, S30, S43: every byte of the data belongs to exactly one tensor. */
static enum cllm_status check_cover(struct parser *parser)
{
    const struct cllm_safetensors *weights = parser->weights;
    uint64_t expected = parser->data_offset;
    for (uint32_t i = 0; i < weights->tensor_count; i++) {
        const struct cllm_source_span *span = &weights->spans[i + 1];
        if (span->offset != expected) {
            const struct cllm_source_tensor *tensor = &weights->tensors[i];
            return cllm_fail(parser->err, CLLM_E_CORRUPT, span->offset,
                             "tensor \"%s\": data begins at %llu, expected %llu, where the tensor before it ends (%s)",
                             cllm_escape(tensor->name, tensor->name_bytes, parser->printable, sizeof parser->printable),
                             (ull)(span->offset - parser->data_offset), (ull)(expected - parser->data_offset),
                             span->offset < expected ? "overlap" : "hole");
        }
        expected += span->bytes;
    }
    uint64_t used_bytes = expected - parser->data_offset;
    if (used_bytes != parser->data_bytes) {
        return cllm_fail(parser->err, CLLM_E_CORRUPT, expected,
                         "%llu bytes follow the last tensor, expected the file to end at byte %llu (--opaque keeps it as it is)",
                         (ull)(parser->data_bytes - used_bytes), (ull)expected);
    }
    return CLLM_OK;
}

static enum cllm_status read_header(struct parser *parser, json_t *header)
{
    enum cllm_status status = allocate(parser, header);
    const char *key;
    json_t *value;
    json_object_foreach(header, key, value)
    {
        if (status) return status;
        status = strcmp(key, METADATA_KEY) == 0 ? check_metadata(parser, value) : read_tensor(parser, key, value);
    }
    if (!status) status = sort_by_offset(parser);
    if (!status) status = check_cover(parser);
    if (status) return status;
    parser->weights->spans[0] = (struct cllm_source_span){.bytes = parser->data_offset, .tensor_index = CLLM_SPAN_LITERAL};
    parser->weights->span_count = parser->weights->tensor_count + 1;
    return CLLM_OK;
}

enum cllm_status cllm_safetensors_parse(const uint8_t *header, uint32_t header_bytes, uint64_t file_bytes,
                                        struct cllm_safetensors *weights_out, struct cllm_error *err)
{
    *weights_out = (struct cllm_safetensors){0};
    if (header[0] != '{') { /* S7, S8 */
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_SAFETENSORS_LENGTH_BYTES, "header begins with byte 0x%02x, expected 0x7b ({)",
                         header[0]);
    }
    json_t *json = NULL;
    enum cllm_status status = cllm_source_json_parse("header", CLLM_SAFETENSORS_LENGTH_BYTES, header, header_bytes, &json, err);
    if (status) return status;
    struct parser parser = {.weights = weights_out, .err = err};
    parser.data_offset = CLLM_SAFETENSORS_LENGTH_BYTES + (uint64_t)header_bytes;
    parser.data_bytes = file_bytes - parser.data_offset;
    status = read_header(&parser, json);
    json_decref(json);
    if (status) cllm_safetensors_free(weights_out);
    return status;
}

void cllm_safetensors_free(struct cllm_safetensors *weights)
{
    free(weights->names);
    free(weights->extents);
    free(weights->spans);
    free(weights->tensors);
    *weights = (struct cllm_safetensors){0};
}

/* source_json.c - bounding and parsing of untrusted JSON. */
#include "source_json.h"

#include <string.h>

struct scan {
    const char *what;
    uint64_t base_offset;
    const uint8_t *bytes;
    size_t byte_count;
    uint32_t depth, object_count, element_count;
};

static enum cllm_status check_counts(const struct scan *scan, size_t at, struct cllm_error *err)
{
    uint64_t offset = scan->base_offset + at;
    if (scan->depth > CLLM_JSON_DEPTH_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, offset, "%s nests %u levels deep, at most %u are allowed", scan->what, scan->depth,
                         CLLM_JSON_DEPTH_MAX);
    }
    if (scan->object_count > CLLM_JSON_OBJECT_COUNT_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, offset, "%s holds more than %u objects (tensors), the limit", scan->what,
                         CLLM_JSON_OBJECT_COUNT_MAX);
    }
    if (scan->element_count > CLLM_JSON_ELEMENT_COUNT_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, offset, "%s holds more than %u values, the limit", scan->what,
                         CLLM_JSON_ELEMENT_COUNT_MAX);
    }
    return CLLM_OK;
}

/* Moves `*at` from an opening quote to the closing one, or to the end of the bytes where there is none. */
static enum cllm_status skip_string(const struct scan *scan, size_t *at, struct cllm_error *err)
{
    static const char escaped_nul[] = "\\u0000";
    size_t i = *at + 1;
    for (; i < scan->byte_count && scan->bytes[i] != '"'; i++) {
        if (scan->bytes[i] != '\\') continue;
        if (scan->byte_count - i >= 6 && memcmp(scan->bytes + i, escaped_nul, 6) == 0) {
            return cllm_fail(err, CLLM_E_UNSUPPORTED, scan->base_offset + i,
                             "%s has a NUL character (\\u0000) in a string, which is not supported", scan->what);
        }
        i++;
    }
    *at = i;
    return CLLM_OK;
}

/* The parser takes -0 for the integer 0, safetensors does not. */
static bool is_negative_zero(const struct scan *scan, size_t at)
{
    if (scan->byte_count - at < 3 || scan->bytes[at + 1] != '0') return false;
    return !strchr(".eE0123456789", scan->bytes[at + 2]);
}

/* Linear and allocation-free. Counts only; what the brackets and commas mean is left to the parser. */
static enum cllm_status scan_text(struct scan *scan, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < scan->byte_count && !status; i++) {
        switch (scan->bytes[i]) {
        case '"': status = skip_string(scan, &i, err); break;
        case '{':
        case '[':
            scan->object_count += scan->bytes[i] == '{';
            scan->depth++;
            scan->element_count++;
            status = check_counts(scan, i, err);
            break;
        case '}':
        case ']': scan->depth -= scan->depth > 0; break;
        case ',':
            scan->element_count++;
            status = check_counts(scan, i, err);
            break;
        case '-':
            if (is_negative_zero(scan, i)) {
                status = cllm_fail(err, CLLM_E_CORRUPT, scan->base_offset + i, "%s has the number -0, expected unsigned integers",
                                   scan->what);
            }
            break;
        default: break;
        }
    }
    return status;
}

static enum cllm_status fail_parse(const struct scan *scan, const json_error_t *error, struct cllm_error *err)
{
    uint64_t offset = scan->base_offset + (error->position > 0 ? (uint64_t)error->position : 0);
    char printable[200];
    cllm_escape(error->text, strlen(error->text), printable, sizeof printable);
    switch (json_error_code(error)) {
    case json_error_out_of_memory:
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory to parse the %s (%zu bytes)", scan->what,
                         scan->byte_count);
    case json_error_duplicate_key:
        return cllm_fail(err, CLLM_E_CORRUPT, offset, "%s has a name twice at byte %llu (%s), expected each name once",
                         scan->what, (unsigned long long)offset, printable);
    case json_error_numeric_overflow:
        return cllm_fail(err, CLLM_E_CORRUPT, offset, "%s has a number out of range at byte %llu (%s), expected 0 to 2^63-1",
                         scan->what, (unsigned long long)offset, printable);
    default:
        return cllm_fail(err, CLLM_E_CORRUPT, offset, "%s is not valid JSON at byte %llu (%s), expected one JSON object in UTF-8",
                         scan->what, (unsigned long long)offset, printable);
    }
}

enum cllm_status cllm_source_json_parse(const char *what, uint64_t base_offset, const uint8_t *bytes, size_t byte_count,
                                        json_t **json_out, struct cllm_error *err)
{
    *json_out = NULL;
    struct scan scan = {.what = what, .base_offset = base_offset, .bytes = bytes, .byte_count = byte_count};
    enum cllm_status status = scan_text(&scan, err);
    if (status) return status;
    json_error_t error;
    json_t *json = json_loadb((const char *)bytes, byte_count, JSON_REJECT_DUPLICATES, &error);
    if (!json) return fail_parse(&scan, &error, err);
    if (!json_is_object(json)) {
        status =
            cllm_fail(err, CLLM_E_CORRUPT, base_offset, "%s is %s, expected a JSON object", what, cllm_source_json_kind(json));
        json_decref(json);
        return status;
    }
    *json_out = json;
    return CLLM_OK;
}

const char *cllm_source_json_kind(const json_t *value)
{
    static const char *const kinds[] = {"an object",     "an array", "a string", "an integer",
                                        "a real number", "true",     "false",    "null"};
    return value ? kinds[json_typeof(value)] : "missing";
}

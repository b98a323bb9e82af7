/* tokenizer_jsonl.c - see tokenizer_jsonl.h. */
#include "tokenizer_jsonl.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES_MAX ((size_t)1 << 30)

/* Turns one line's value into what is written for it, a new reference. */
typedef enum cllm_status convert_line(const struct cllm_tokenizer *tokenizer, const json_t *value, bool flag, json_t **out,
                                      struct cllm_error *err);

static enum cllm_status tokenize_line(const struct cllm_tokenizer *tokenizer, const json_t *value, bool add_special, json_t **out,
                                      struct cllm_error *err)
{
    uint32_t *ids = NULL;
    size_t count = 0;
    if (!json_is_string(value)) return cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "expected a JSON string");
    enum cllm_status status =
        cllm_tokenizer_encode(tokenizer, json_string_value(value), json_string_length(value), add_special, &ids, &count, err);
    if (!status && !(*out = json_array())) status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %zu ids", count);
    for (size_t i = 0; i < count && !status; i++) {
        if (json_array_append_new(*out, json_integer(ids[i]))) {
            status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %zu ids", count);
        }
    }
    free(ids);
    return status;
}

static enum cllm_status detokenize_line(const struct cllm_tokenizer *tokenizer, const json_t *value, bool skip_special,
                                        json_t **out, struct cllm_error *err)
{
    if (!json_is_array(value)) return cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "expected a JSON array of ids");
    size_t count = json_array_size(value), text_bytes = 0;
    char *text = NULL;
    enum cllm_status status = CLLM_OK;
    uint32_t *ids = malloc((count + 1) * sizeof *ids);
    if (!ids) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %zu ids", count);
    for (size_t i = 0; i < count && !status; i++) {
        const json_t *id = json_array_get(value, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > (json_int_t)UINT32_MAX) {
            status = cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "element %zu is not an id", i);
        } else {
            ids[i] = (uint32_t)json_integer_value(id);
        }
    }
    if (!status) status = cllm_tokenizer_decode(tokenizer, ids, count, skip_special, &text, &text_bytes, err);
    if (!status && !(*out = json_stringn(text, text_bytes))) {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %zu bytes of text", text_bytes);
    }
    free(text);
    free(ids);
    return status;
}

static enum cllm_status write_line(const json_t *value, FILE *out, struct cllm_error *err)
{
    if (json_dumpf(value, out, JSON_COMPACT | JSON_ENCODE_ANY) == 0 && putc('\n', out) != EOF) return CLLM_OK;
    return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot write: %s", strerror(errno));
}

static enum cllm_status convert_text(const struct cllm_tokenizer *tokenizer, const char *line, size_t line_bytes,
                                     convert_line *convert, bool flag, FILE *out, struct cllm_error *err)
{
    json_error_t error;
    json_t *result = NULL;
    json_t *value = json_loadb(line, line_bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value) {
        char text[JSON_ERROR_TEXT_LENGTH];
        return cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "%s",
                         cllm_escape(error.text, strlen(error.text), text, sizeof text));
    }
    enum cllm_status status = convert(tokenizer, value, flag, &result, err);
    if (!status) status = write_line(result, out, err);
    json_decref(value);
    json_decref(result);
    return status;
}

static enum cllm_status convert_lines(const struct cllm_tokenizer *tokenizer, FILE *in, FILE *out, convert_line *convert,
                                      bool flag, struct cllm_error *err)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    unsigned long long number = 0;
    enum cllm_status status = CLLM_OK;
    while (!status && (length = getline(&line, &capacity, in)) >= 0) {
        number++;
        if ((size_t)length > LINE_BYTES_MAX) status = cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "longer than 1 GiB");
        else status = convert_text(tokenizer, line, (size_t)length, convert, flag, out, err);
        if (status) status = cllm_fail_context(err, status, "line %llu", number);
    }
    free(line);
    if (!status && ferror(in)) status = cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot read: %s", strerror(errno));
    if (!status && fflush(out)) status = cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot write: %s", strerror(errno));
    return status;
}

enum cllm_status cllm_tokenize_jsonl(const struct cllm_tokenizer *tokenizer, FILE *in, FILE *out, bool add_special,
                                     struct cllm_error *err)
{
    return convert_lines(tokenizer, in, out, tokenize_line, add_special, err);
}

enum cllm_status cllm_detokenize_jsonl(const struct cllm_tokenizer *tokenizer, FILE *in, FILE *out, bool skip_special,
                                       struct cllm_error *err)
{
    return convert_lines(tokenizer, in, out, detokenize_line, skip_special, err);
}

/* crun_prompt.c - where the prompt and the tokenizer come from. */
#include "crun.h"

#include "cllm_decode.h"
#include "message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKENIZER_LIMIT_BYTES ((size_t)256 << 20)
#define PROMPT_LIMIT_BYTES ((size_t)1 << 30)

/* Everything that a stream has; a fresh allocation with a zero byte behind it. `name` is for messages. */
static enum cllm_status read_stream(FILE *stream, const char *name, size_t limit_bytes, char **bytes_out, size_t *byte_count_out,
                                    struct cllm_error *err)
{
    char *bytes = NULL;
    size_t count = 0, capacity = 0;
    do {
        if (capacity - count < 2) {
            capacity = capacity ? capacity * 2 : 1 << 16;
            char *more = realloc(bytes, capacity);
            if (!more) {
                free(bytes);
                return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "%s: out of memory", name);
            }
            bytes = more;
        }
        count += fread(bytes + count, 1, capacity - count - 1, stream);
    } while (!feof(stream) && !ferror(stream) && count <= limit_bytes);
    bytes[count] = 0;
    *bytes_out = bytes;
    *byte_count_out = count;
    if (!ferror(stream) && count <= limit_bytes) return CLLM_OK;
    enum cllm_status status = ferror(stream)
                                  ? cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "%s: cannot be read: %s", name, strerror(errno))
                                  : cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET,
                                              "%s: found more than the %zu bytes expected at most", name, limit_bytes);
    free(bytes);
    *bytes_out = NULL;
    return status;
}

static enum cllm_status read_file(const char *path, size_t limit_bytes, char **bytes_out, size_t *byte_count_out,
                                  struct cllm_error *err)
{
    FILE *stream = fopen(path, "rbe");
    if (!stream) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "%s: cannot be opened: %s", cllm_shown(path), strerror(errno));
    enum cllm_status status = read_stream(stream, cllm_shown(path), limit_bytes, bytes_out, byte_count_out, err);
    fclose(stream);
    return status;
}

enum cllm_status crun_load_tokenizer(const struct crun_options *options, const struct cllm_reader *reader,
                                     struct cllm_tokenizer **tokenizer_out, struct cllm_error *err)
{
    const struct cllm_file *file = reader ? cllm_reader_find_file(reader, "tokenizer.json") : NULL;
    char *json = NULL;
    size_t json_bytes = 0;
    enum cllm_status status = CLLM_OK;
    *tokenizer_out = NULL;
    if (options->tokenizer) status = read_file(options->tokenizer, TOKENIZER_LIMIT_BYTES, &json, &json_bytes, err);
    else if (file) status = cllm_load_file(reader, file, TOKENIZER_LIMIT_BYTES, (uint8_t **)&json, &json_bytes, err);
    if (!status && json) status = cllm_tokenizer_create(json, json_bytes, tokenizer_out, err);
    if (status && json) {
        status = cllm_fail_context(err, status, "%s", options->tokenizer ? cllm_shown(options->tokenizer) : "tokenizer.json");
    }
    free(json);
    return status;
}

/* "1 2 3", also with commas between. */
static enum cllm_status parse_ids(const char *text, uint32_t **ids_out, size_t *count_out, struct cllm_error *err)
{
    uint32_t *ids = calloc(strlen(text) / 2 + 1, sizeof *ids);
    size_t count = 0;
    if (!ids) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the prompt");
    for (const char *p = text + strspn(text, " ,"); *p; p += strspn(p, " ,")) {
        char *end;
        errno = 0;
        const unsigned long id = strtoul(p, &end, 10);
        if (*p < '0' || *p > '9' || !strchr(" ,", *end) || errno || id > UINT32_MAX) {
            free(ids);
            return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "--prompt-ids: found \"%s\", expected token ids such as 1 2 3",
                             cllm_shown(p));
        }
        ids[count++] = (uint32_t)id;
        p = end;
    }
    *ids_out = ids;
    *count_out = count;
    return CLLM_OK;
}

/* The text, a fresh allocation. Files end in a line feed that their authors did not mean as part of the prompt. */
static enum cllm_status read_text(const struct crun_options *options, char **text_out, size_t *bytes_out, struct cllm_error *err)
{
    if (options->prompt) {
        *text_out = strdup(options->prompt);
        *bytes_out = strlen(options->prompt);
        return *text_out ? CLLM_OK : cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the prompt");
    }
    if (!options->prompt_file && isatty(STDIN_FILENO)) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "no prompt: expected -p TEXT, -f FILE, or text on standard input");
    }
    enum cllm_status status = options->prompt_file && strcmp(options->prompt_file, "-") != 0
                                  ? read_file(options->prompt_file, PROMPT_LIMIT_BYTES, text_out, bytes_out, err)
                                  : read_stream(stdin, "standard input", PROMPT_LIMIT_BYTES, text_out, bytes_out, err);
    if (!status && *bytes_out > 0 && (*text_out)[*bytes_out - 1] == '\n') --*bytes_out;
    return status;
}

enum cllm_status crun_read_prompt(const struct crun_options *options, const struct cllm_tokenizer *tokenizer, uint32_t **ids_out,
                                  size_t *count_out, struct cllm_error *err)
{
    char *text = NULL;
    size_t text_bytes = 0;
    if (options->prompt_ids) return parse_ids(options->prompt_ids, ids_out, count_out, err);
    if (!tokenizer) {
        return cllm_fail(err, CLLM_E_ABSENT, CLLM_NO_OFFSET,
                         "the container has no tokenizer.json; expected one, or --tokenizer FILE, or --prompt-ids");
    }
    enum cllm_status status = read_text(options, &text, &text_bytes, err);
    if (!status) status = cllm_tokenizer_encode(tokenizer, text, text_bytes, !options->no_special, ids_out, count_out, err);
    free(text);
    return status;
}

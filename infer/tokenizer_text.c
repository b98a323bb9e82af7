/* tokenizer_text.c - growing buffers and UTF-8. */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum cllm_status cllm_array_grow(void *array_pointer, size_t count, size_t *capacity, size_t element_bytes,
                                 struct cllm_error *err)
{
    if (count < *capacity) return CLLM_OK;
    size_t wanted = *capacity ? *capacity * 2 : 16;
    if (wanted > SIZE_MAX / 2 / element_bytes) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "array too large");
    void *array;
    memcpy(&array, array_pointer, sizeof array);
    array = realloc(array, wanted * element_bytes);
    if (!array) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %zu elements", wanted);
    memcpy(array_pointer, &array, sizeof array);
    *capacity = wanted;
    return CLLM_OK;
}

enum cllm_status cllm_ids_append(struct cllm_ids *ids, uint32_t id, struct cllm_error *err)
{
    enum cllm_status status = cllm_array_grow(&ids->ids, ids->count, &ids->capacity, sizeof *ids->ids, err);
    if (status) return status;
    ids->ids[ids->count++] = id;
    return CLLM_OK;
}

enum cllm_status cllm_strbuf_append(struct cllm_strbuf *text, struct cllm_span span, struct cllm_error *err)
{
    if (span.byte_count > CLLM_TEXT_LIMIT - text->byte_count) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "text grows beyond %zu bytes", CLLM_TEXT_LIMIT);
    }
    size_t needed = text->byte_count + span.byte_count + 1;
    if (needed > text->capacity) {
        size_t capacity = text->capacity ? text->capacity : 32;
        while (capacity < needed) capacity *= 2;
        char *bytes = realloc(text->bytes, capacity);
        if (!bytes) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %zu bytes of text", capacity);
        text->bytes = bytes;
        text->capacity = capacity;
    }
    if (span.byte_count) memcpy(text->bytes + text->byte_count, span.bytes, span.byte_count);
    text->byte_count += span.byte_count;
    text->bytes[text->byte_count] = 0;
    return CLLM_OK;
}

enum cllm_status cllm_strbuf_append_text(struct cllm_strbuf *text, const char *string, struct cllm_error *err)
{
    return cllm_strbuf_append(text, (struct cllm_span){string, strlen(string)}, err);
}

enum cllm_status cllm_strbuf_append_codepoint(struct cllm_strbuf *text, uint32_t codepoint, struct cllm_error *err)
{
    char bytes[4];
    utf8proc_ssize_t length = utf8proc_encode_char((utf8proc_int32_t)codepoint, (utf8proc_uint8_t *)bytes);
    return cllm_strbuf_append(text, (struct cllm_span){bytes, (size_t)length}, err);
}

uint32_t cllm_utf8_first(struct cllm_span span, size_t *bytes_out)
{
    const uint8_t *p = (const uint8_t *)span.bytes;
    if (p[0] < 0x80) {
        *bytes_out = 1;
        return p[0];
    }
    if (p[0] < 0xE0) {
        *bytes_out = 2;
        return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    }
    if (p[0] < 0xF0) {
        *bytes_out = 3;
        return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    }
    *bytes_out = 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

enum sequence_state { SEQUENCE_VALID, SEQUENCE_INVALID, SEQUENCE_UNFINISHED };

/* Length of the UTF-8 sequence (Unicode 15, table 3-7) at the start of the non-empty span, or of its maximal subpart. */
static size_t measure_sequence(struct cllm_span span, enum sequence_state *state_out)
{
    const uint8_t *p = (const uint8_t *)span.bytes;
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    uint8_t low = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80;
    uint8_t high = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;
    *state_out = SEQUENCE_INVALID;
    if (length == 0) return 1;
    for (size_t i = 1; i < length; i++) {
        if (i == span.byte_count) {
            *state_out = SEQUENCE_UNFINISHED;
            return i;
        }
        if (p[i] < low || p[i] > high) return i;
        low = 0x80;
        high = 0xBF;
    }
    *state_out = SEQUENCE_VALID;
    return length;
}

enum cllm_status cllm_strbuf_append_lossy(struct cllm_strbuf *text, struct cllm_span span, bool final, size_t *used_out,
                                          struct cllm_error *err)
{
    size_t start = 0, at = 0; /* [start, at) is valid and not yet copied */
    enum cllm_status status = CLLM_OK;
    while (at < span.byte_count) {
        enum sequence_state state;
        size_t length = measure_sequence(cllm_span_from(span, at), &state);
        if (state == SEQUENCE_UNFINISHED && !final) break;
        if (state != SEQUENCE_VALID) {
            status = cllm_strbuf_append(text, (struct cllm_span){span.bytes + start, at - start}, err);
            if (!status) status = cllm_strbuf_append_text(text, "\xEF\xBF\xBD", err);
            if (status) return status;
            start = at + length;
        }
        at += length;
    }
    if (used_out) *used_out = at;
    return cllm_strbuf_append(text, (struct cllm_span){span.bytes + start, at - start}, err);
}

bool cllm_span_is_utf8(struct cllm_span span)
{
    enum sequence_state state = SEQUENCE_VALID;
    while (span.byte_count && state == SEQUENCE_VALID) span = cllm_span_from(span, measure_sequence(span, &state));
    return state == SEQUENCE_VALID;
}

/* tokenizer_steps.c - normalizers and pre-tokenizers: steps over pieces of text. */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

enum cllm_status cllm_steps_append(struct cllm_steps *steps, enum cllm_step_kind kind, struct cllm_step **step_out,
                                   struct cllm_error *err)
{
    enum cllm_status status = cllm_array_grow(&steps->items, steps->count, &steps->capacity, sizeof *steps->items, err);
    if (status) return status;
    *step_out = &steps->items[steps->count++];
    **step_out = (struct cllm_step){.kind = kind};
    return CLLM_OK;
}

void cllm_steps_fini(struct cllm_steps *steps)
{
    for (size_t i = 0; i < steps->count; i++) {
        cllm_pattern_destroy(steps->items[i].pattern);
        free(steps->items[i].content.bytes);
    }
    free(steps->items);
}

enum cllm_status cllm_pieces_append_slice(struct cllm_pieces *pieces, const struct cllm_piece *of, size_t start, size_t end,
                                          uint32_t id, struct cllm_error *err)
{
    if (start >= end) return CLLM_OK;
    enum cllm_status status = cllm_array_grow(&pieces->items, pieces->count, &pieces->capacity, sizeof *pieces->items, err);
    if (status) return status;
    size_t head = of->head_bytes > start ? of->head_bytes - start : 0;
    pieces->items[pieces->count++] = (struct cllm_piece){of->offset + start, end - start, head, id};
    return CLLM_OK;
}

void cllm_pieces_fini(struct cllm_pieces *pieces)
{
    free(pieces->text.bytes);
    free(pieces->items);
}

/* -------------------------------------------------------------------------------------------------------- rewriting */

/* Byte-level vocabularies spell bytes that print as themselves, and the other 68 as U+0100 and up, in order. */
static bool is_printable(uint32_t codepoint)
{
    return (codepoint >= '!' && codepoint <= '~') || (codepoint >= 0xA1 && codepoint <= 0xAC) ||
           (codepoint >= 0xAE && codepoint <= 0xFF);
}

/* The unprintable bytes are 0x00-0x20, 0x7F-0xA0 and 0xAD. */
uint32_t cllm_byte_to_char(uint8_t byte)
{
    if (is_printable(byte)) return byte;
    return byte <= 0x20 ? 0x100u + byte : byte <= 0xA0 ? 0x121u + (byte - 0x7Fu) : 0x143u;
}

int cllm_char_to_byte(uint32_t codepoint)
{
    if (codepoint < 0x100) return is_printable(codepoint) ? (int)codepoint : -1;
    if (codepoint <= 0x120) return (int)(codepoint - 0x100);
    if (codepoint <= 0x142) return (int)(codepoint - 0x121 + 0x7F);
    return codepoint == 0x143 ? 0xAD : -1;
}

static bool starts_with(struct cllm_span text, const char *prefix, size_t prefix_bytes)
{
    return text.byte_count >= prefix_bytes && memcmp(text.bytes, prefix, prefix_bytes) == 0;
}

static enum cllm_status append_content(const struct cllm_step *step, struct cllm_strbuf *out, struct cllm_error *err)
{
    return cllm_strbuf_append(out, (struct cllm_span){step->content.bytes, step->content.byte_count}, err);
}

static enum cllm_status map_bytes(struct cllm_span text, struct cllm_strbuf *out, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < text.byte_count && !status; i++) {
        uint32_t codepoint = cllm_byte_to_char((uint8_t)text.bytes[i]);
        char bytes[2] = {(char)codepoint, 0};
        size_t length = 1;
        if (codepoint >= 0x80) {
            bytes[0] = (char)(0xC0 | codepoint >> 6);
            bytes[1] = (char)(0x80 | (codepoint & 0x3F));
            length = 2;
        }
        status = cllm_strbuf_append(out, (struct cllm_span){bytes, length}, err);
    }
    return status;
}

static enum cllm_status strip_spaces(const struct cllm_step *step, struct cllm_span text, struct cllm_strbuf *out,
                                     struct cllm_error *err)
{
    size_t start = text.byte_count, end = 0; /* of what is not space */
    for (size_t at = 0, length; at < text.byte_count; at += length) {
        if (cllm_char_is_space(cllm_utf8_first(cllm_span_from(text, at), &length))) continue;
        if (start == text.byte_count) start = at;
        end = at + length;
    }
    if (!step->left) start = 0;
    if (!step->right) end = text.byte_count;
    if (start >= end) return CLLM_OK;
    return cllm_strbuf_append(out, (struct cllm_span){text.bytes + start, end - start}, err);
}

static enum cllm_status replace_matches(const struct cllm_step *step, struct cllm_scan *scan, struct cllm_span text,
                                        struct cllm_strbuf *out, struct cllm_error *err)
{
    if (text.byte_count == 0) return CLLM_OK; /* not even an empty pattern matches there */
    enum cllm_status status = cllm_scan_start(scan, text, err);
    size_t previous = 0;
    while (!status) {
        bool found;
        size_t start, end;
        status = cllm_scan_next(scan, &found, &start, &end, err);
        if (status || !found) break;
        status = cllm_strbuf_append(out, (struct cllm_span){text.bytes + previous, start - previous}, err);
        if (!status) status = append_content(step, out, err);
        previous = end;
    }
    return status ? status : cllm_strbuf_append(out, cllm_span_from(text, previous), err);
}

/* Spaces become the replacement character, and one is put before the text where the scheme says so. */
static enum cllm_status replace_spaces(const struct cllm_step *step, struct cllm_span text, bool is_head, struct cllm_strbuf *out,
                                       struct cllm_error *err)
{
    bool has_one = starts_with(text, " ", 1) || starts_with(text, step->content.bytes, step->content.byte_count);
    bool wants_one = step->scheme == CLLM_PREPEND_ALWAYS || (step->scheme == CLLM_PREPEND_FIRST && is_head);
    enum cllm_status status = wants_one && !has_one ? append_content(step, out, err) : CLLM_OK;
    while (text.byte_count && !status) {
        const char *space = memchr(text.bytes, ' ', text.byte_count);
        size_t length = space ? (size_t)(space - text.bytes) : text.byte_count;
        status = cllm_strbuf_append(out, (struct cllm_span){text.bytes, length}, err);
        if (!status && space) status = append_content(step, out, err);
        text = cllm_span_from(text, space ? length + 1 : length);
    }
    return status;
}

enum cllm_status cllm_step_rewrite(const struct cllm_step *step, struct cllm_scan *scan, struct cllm_span text, bool is_head,
                                   struct cllm_strbuf *out, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    switch (step->kind) {
    case CLLM_STEP_NORMALIZE: return cllm_text_normalize(text, step->form, out, err);
    case CLLM_STEP_LOWERCASE: return cllm_text_lowercase(text, out, err);
    case CLLM_STEP_STRIP: return strip_spaces(step, text, out, err);
    case CLLM_STEP_REPLACE: return replace_matches(step, scan, text, out, err);
    case CLLM_STEP_METASPACE: return replace_spaces(step, text, is_head, out, err);
    case CLLM_STEP_BYTE_MAP: return map_bytes(text, out, err);
    case CLLM_STEP_PREPEND:
        if (text.byte_count) status = append_content(step, out, err);
        break;
    case CLLM_STEP_BYTE_SPACE:
        if (!starts_with(text, " ", 1)) status = cllm_strbuf_append_text(out, " ", err);
        break;
    default: return cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "step %d does not rewrite", (int)step->kind);
    }
    return status ? status : cllm_strbuf_append(out, text, err);
}

/* What a replacement makes of the first `head_bytes` bytes of the text. New text counts where its match ends in the head, as
 * the reference aligns it with the last character that it replaces. */
static enum cllm_status replaced_head(const struct cllm_step *step, struct cllm_scan *scan, struct cllm_span text,
                                      size_t head_bytes, size_t *bytes_out, struct cllm_error *err)
{
    size_t previous = 0, start = 0, end = 0;
    bool found = true;
    enum cllm_status status = cllm_scan_start(scan, text, err);
    *bytes_out = 0;
    while (!status && previous < head_bytes) {
        status = cllm_scan_next(scan, &found, &start, &end, err);
        if (status || !found || start >= head_bytes) break;
        *bytes_out += start - previous + (end <= head_bytes ? step->content.byte_count : 0);
        previous = end;
    }
    if (previous < head_bytes) *bytes_out += head_bytes - previous;
    return status;
}

/* How many bytes of the step's result stem from the start of the input, give or take the rest of a character (an e whose
 * accent follows). Steps but for replacements do to the head alone what they do to it within the text. */
static enum cllm_status rewrite_head(const struct cllm_step *step, struct cllm_scan *scan, struct cllm_span text,
                                     size_t head_bytes, size_t *bytes_out, struct cllm_error *err)
{
    *bytes_out = 0;
    if (head_bytes == 0) return CLLM_OK;
    if (step->kind == CLLM_STEP_REPLACE) return replaced_head(step, scan, text, head_bytes, bytes_out, err);
    struct cllm_strbuf scratch = {0};
    struct cllm_step head_step = *step;
    if (step->kind == CLLM_STEP_STRIP) head_step.right = false; /* the head has no right end */
    enum cllm_status status =
        cllm_step_rewrite(&head_step, scan, (struct cllm_span){text.bytes, head_bytes}, true, &scratch, err);
    *bytes_out = scratch.byte_count;
    free(scratch.bytes);
    return status;
}

/* Appends the rewritten piece to `out`. */
static enum cllm_status rewrite_piece(const struct cllm_step *step, struct cllm_scan *scan, struct cllm_span text,
                                      struct cllm_piece *piece, struct cllm_strbuf *out, struct cllm_error *err)
{
    size_t head, offset = out->byte_count;
    enum cllm_status status = rewrite_head(step, scan, text, piece->head_bytes, &head, err);
    if (!status) status = cllm_step_rewrite(step, scan, text, piece->head_bytes > 0, out, err);
    if (status) return status;
    piece->offset = offset;
    piece->byte_count = out->byte_count - offset;
    while (head < piece->byte_count && ((uint8_t)out->bytes[offset + head] & 0xC0) == 0x80) head++;
    piece->head_bytes = head < piece->byte_count ? head : piece->byte_count;
    return CLLM_OK;
}

static enum cllm_status rewrite_pieces(const struct cllm_step *step, struct cllm_scan *scan, struct cllm_pieces *pieces,
                                       struct cllm_error *err)
{
    struct cllm_strbuf out = {0};
    enum cllm_status status = cllm_strbuf_append_text(&out, "", err);
    for (size_t i = 0; i < pieces->count && !status; i++) {
        struct cllm_piece *piece = &pieces->items[i];
        if (piece->id == CLLM_NO_TOKEN) status = rewrite_piece(step, scan, cllm_piece_span(pieces, piece), piece, &out, err);
    }
    free(pieces->text.bytes);
    pieces->text = out;
    return status;
}

/* -------------------------------------------------------------------------------------------------------- splitting */

/* Builds the pieces of a split: the parts of one piece after another, in order, each a delimiter (a match) or not. */
struct splitter {
    enum cllm_split_behavior behavior;
    struct cllm_pieces *out;
    const struct cllm_piece *of;
    size_t start, end; /* the open piece, which the next part may join */
    bool is_open;
    bool is_match; /* of the part before */
    struct cllm_error *err;
};

static void start_piece(struct splitter *s, const struct cllm_piece *of)
{
    s->of = of;
    s->is_open = s->is_match = false;
}

static enum cllm_status end_piece(struct splitter *s)
{
    return s->is_open ? cllm_pieces_append_slice(s->out, s->of, s->start, s->end, CLLM_NO_TOKEN, s->err) : CLLM_OK;
}

static bool joins_previous(const struct splitter *s, bool is_match)
{
    switch (s->behavior) {
    case CLLM_SPLIT_CONTIGUOUS: return is_match == s->is_match;
    case CLLM_SPLIT_PREVIOUS: return is_match && !s->is_match;
    case CLLM_SPLIT_NEXT: return !is_match && s->is_match;
    default: return false;
    }
}

static enum cllm_status add_part(struct splitter *s, size_t start, size_t end, bool is_match)
{
    enum cllm_status status = CLLM_OK;
    bool joins = s->is_open && joins_previous(s, is_match);
    s->is_match = is_match;
    if (joins) {
        s->end = end;
        return CLLM_OK;
    }
    status = end_piece(s);
    s->is_open = !(is_match && s->behavior == CLLM_SPLIT_REMOVED);
    s->start = start;
    s->end = end;
    return status;
}

static enum cllm_status split_by_pattern(struct splitter *s, struct cllm_scan *scan, struct cllm_span text, bool invert)
{
    enum cllm_status status = cllm_scan_start(scan, text, s->err);
    size_t previous = 0;
    while (!status) {
        bool found;
        size_t start, end;
        status = cllm_scan_next(scan, &found, &start, &end, s->err);
        if (status || !found) break;
        if (start != previous) status = add_part(s, previous, start, invert);
        if (!status) status = add_part(s, start, end, !invert);
        previous = end;
    }
    return status || previous == text.byte_count ? status : add_part(s, previous, text.byte_count, invert);
}

/* Every character of the class is a match of its own. */
static enum cllm_status split_by_class(struct splitter *s, cllm_char_class *in_class, struct cllm_span text)
{
    enum cllm_status status = CLLM_OK;
    size_t previous = 0;
    for (size_t at = 0, length; at < text.byte_count && !status; at += length) {
        if (!in_class(cllm_utf8_first(cllm_span_from(text, at), &length))) continue;
        if (previous < at) status = add_part(s, previous, at, false);
        if (!status) status = add_part(s, at, at + length, true);
        previous = at + length;
    }
    return status || previous == text.byte_count ? status : add_part(s, previous, text.byte_count, false);
}

enum word_kind { WORD_SPACE, WORD_CHARACTERS, WORD_OTHERS };

static enum word_kind find_word_kind(uint32_t codepoint)
{
    return cllm_char_is_word(codepoint) ? WORD_CHARACTERS : cllm_char_is_space(codepoint) ? WORD_SPACE : WORD_OTHERS;
}

static enum cllm_status split_words(struct splitter *s, struct cllm_span text)
{
    enum cllm_status status = CLLM_OK;
    for (size_t at = 0, end, length; at < text.byte_count && !status; at = end) {
        enum word_kind kind = find_word_kind(cllm_utf8_first(cllm_span_from(text, at), &length));
        for (end = at + length; end < text.byte_count; end += length) {
            if (find_word_kind(cllm_utf8_first(cllm_span_from(text, end), &length)) != kind) break;
        }
        if (kind != WORD_SPACE) status = add_part(s, at, end, false);
    }
    return status;
}

static enum cllm_status split_piece(struct splitter *s, const struct cllm_step *step, struct cllm_scan *scan,
                                    struct cllm_span text)
{
    switch (step->kind) {
    case CLLM_STEP_SPLIT_PATTERN: return split_by_pattern(s, scan, text, step->invert);
    case CLLM_STEP_SPLIT_CLASS: return split_by_class(s, step->in_class, text);
    default: return split_words(s, text);
    }
}

static enum cllm_status split_pieces(const struct cllm_step *step, struct cllm_scan *scan, struct cllm_pieces *pieces,
                                     struct cllm_error *err)
{
    struct cllm_pieces out = {0};
    struct splitter splitter = {.behavior = step->behavior, .out = &out, .err = err};
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < pieces->count && !status; i++) {
        const struct cllm_piece *piece = &pieces->items[i];
        if (piece->id != CLLM_NO_TOKEN) {
            status = cllm_array_grow(&out.items, out.count, &out.capacity, sizeof *out.items, err);
            if (!status) out.items[out.count++] = *piece;
            continue;
        }
        start_piece(&splitter, piece);
        if (piece->byte_count) status = split_piece(&splitter, step, scan, cllm_piece_span(pieces, piece));
        if (!status) status = end_piece(&splitter);
    }
    free(pieces->items);
    out.text = pieces->text;
    *pieces = out;
    return status;
}

/* -------------------------------------------------------------------------------------------------------- all steps */

enum cllm_status cllm_steps_apply(const struct cllm_steps *steps, struct cllm_pieces *pieces, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < steps->count && !status; i++) {
        const struct cllm_step *step = &steps->items[i];
        struct cllm_scan scan = {0};
        if (step->pattern) status = cllm_scan_init(&scan, step->pattern, err);
        if (!status) status = (step->kind < CLLM_STEP_SPLIT_PATTERN ? rewrite_pieces : split_pieces)(step, &scan, pieces, err);
        cllm_scan_fini(&scan);
    }
    return status;
}

enum cllm_status cllm_steps_rewrite(const struct cllm_steps *steps, struct cllm_span text, struct cllm_strbuf *out,
                                    struct cllm_error *err)
{
    struct cllm_pieces pieces = {0};
    enum cllm_status status = cllm_strbuf_append(&pieces.text, text, err);
    struct cllm_piece whole = {0, text.byte_count, 0, CLLM_NO_TOKEN};
    if (!status) status = cllm_pieces_append_slice(&pieces, &whole, 0, text.byte_count, CLLM_NO_TOKEN, err);
    if (!status) status = cllm_steps_apply(steps, &pieces, err);
    if (!status && pieces.count) status = cllm_strbuf_append(out, cllm_piece_span(&pieces, &pieces.items[0]), err);
    cllm_pieces_fini(&pieces);
    return status;
}

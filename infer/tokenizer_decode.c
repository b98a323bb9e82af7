/* tokenizer_decode.c - ids to text, one at a time.
 *
 * Each decoder step is a stage that takes tokens and passes on what later tokens cannot change; at the end every stage
 * flushes. Decoding a whole sequence runs the same stages, so a stream and a whole always agree.
 * A stage after ByteLevel or Fuse sees one token that arrives in parts ("whole" in the step); stages that cannot work on
 * parts have a DECODE_BUFFER before them.
 */
#include "tokenizer_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct stage {
    struct cllm_strbuf held; /* bytes that wait for more */
    struct cllm_strbuf scratch;
    struct cllm_scan scan;
    size_t token_count; /* tokens seen */
    size_t stripped;    /* DECODE_STRIP: characters removed at the start */
    bool has_text;      /* DECODE_STRIP: something else has been seen */
};

struct cllm_detokenizer {
    const struct cllm_tokenizer *tokenizer;
    bool skip_special;
    struct stage *stages; /* one per decoder step */
    struct cllm_strbuf out;
};

static enum cllm_status feed(struct cllm_detokenizer *d, size_t index, struct cllm_span token, struct cllm_error *err);

static struct cllm_span span_of(const struct cllm_strbuf *text)
{
    return (struct cllm_span){text->bytes, text->byte_count};
}

/* The bytes that a token's characters stand for; where one stands for none, the token's own bytes. */
static enum cllm_status append_unmapped(struct cllm_span token, struct cllm_strbuf *out, struct cllm_error *err)
{
    size_t start = out->byte_count;
    enum cllm_status status = CLLM_OK;
    struct cllm_span rest = token;
    for (size_t length; rest.byte_count && !status; rest = cllm_span_from(rest, length)) {
        int byte = cllm_char_to_byte(cllm_utf8_first(rest, &length));
        if (byte < 0) {
            out->byte_count = start;
            return cllm_strbuf_append(out, token, err);
        }
        char c = (char)byte;
        status = cllm_strbuf_append(out, (struct cllm_span){&c, 1}, err);
    }
    return status;
}

/* Passes on the held bytes, but for an unfinished character unless `final`. */
static enum cllm_status pass_bytes(struct cllm_detokenizer *d, size_t index, bool final, struct cllm_error *err)
{
    struct stage *stage = &d->stages[index];
    size_t used = 0;
    stage->scratch.byte_count = 0;
    enum cllm_status status = cllm_strbuf_append_lossy(&stage->scratch, span_of(&stage->held), final, &used, err);
    if (status) return status;
    memmove(stage->held.bytes, stage->held.bytes + used, stage->held.byte_count - used);
    stage->held.byte_count -= used;
    return feed(d, index + 1, span_of(&stage->scratch), err);
}

static enum cllm_status feed_bytes(struct cllm_detokenizer *d, size_t index, struct cllm_span token, struct cllm_error *err)
{
    enum cllm_status status = append_unmapped(token, &d->stages[index].held, err);
    return status || d->stages[index].held.byte_count == 0 ? status : pass_bytes(d, index, false, err);
}

/* The byte that a token like <0xE2> names, or -1. Like the reference's number parser this takes "+5". */
static int parse_byte_token(struct cllm_span token)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    if (token.byte_count != 6 || memcmp(token.bytes, "<0x", 3) != 0 || token.bytes[5] != '>') return -1;
    const char *high = memchr(digits, token.bytes[3], sizeof digits - 1);
    const char *low = memchr(digits, token.bytes[4], sizeof digits - 1);
    if (!low || (!high && token.bytes[3] != '+')) return -1;
    return (high ? (int)((high - digits) % 16) : 0) * 16 + (int)((low - digits) % 16);
}

/* A run of byte tokens is one token where it is UTF-8, else as many U+FFFD as it has bytes. */
static enum cllm_status flush_run(struct cllm_detokenizer *d, size_t index, struct cllm_error *err)
{
    struct stage *stage = &d->stages[index];
    size_t count = stage->held.byte_count;
    stage->held.byte_count = 0;
    if (count == 0) return CLLM_OK;
    struct cllm_span run = {stage->held.bytes, count};
    if (cllm_span_is_utf8(run)) return feed(d, index + 1, run, err);
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < count && !status; i++) status = feed(d, index + 1, (struct cllm_span){"\xEF\xBF\xBD", 3}, err);
    return status;
}

static enum cllm_status feed_fallback(struct cllm_detokenizer *d, size_t index, struct cllm_span token, struct cllm_error *err)
{
    int byte = parse_byte_token(token);
    if (byte >= 0) {
        char c = (char)byte;
        return cllm_strbuf_append(&d->stages[index].held, (struct cllm_span){&c, 1}, err);
    }
    enum cllm_status status = flush_run(d, index, err);
    return status ? status : feed(d, index + 1, token, err);
}

/* Strips up to `left` characters at the start, and holds back up to `right` at the end, of a text that comes in parts. */
static enum cllm_status feed_strip(struct cllm_detokenizer *d, size_t index, struct cllm_span part, struct cllm_error *err)
{
    const struct cllm_step *step = &d->tokenizer->decoder.items[index];
    struct stage *stage = &d->stages[index];
    struct cllm_span content = span_of(&step->content);
    enum cllm_status status = CLLM_OK;
    stage->scratch.byte_count = 0;
    for (size_t length; part.byte_count && !status; part = cllm_span_from(part, length)) {
        cllm_utf8_first(part, &length);
        assert(length > 0);
        struct cllm_span one = {part.bytes, length};
        if (length != content.byte_count || memcmp(one.bytes, content.bytes, length) != 0) {
            stage->has_text = true;
            status = cllm_strbuf_append(&stage->scratch, span_of(&stage->held), err);
            stage->held.byte_count = 0;
            if (!status) status = cllm_strbuf_append(&stage->scratch, one, err);
        } else if (!stage->has_text && stage->stripped < step->left) {
            stage->stripped++;
        } else {
            stage->has_text = true; /* the characters at the start were not all to go */
            bool is_full = stage->held.byte_count / length == step->right;
            status = cllm_strbuf_append(is_full ? &stage->scratch : &stage->held, one, err);
        }
    }
    if (status || (step->whole && stage->scratch.byte_count == 0)) return status;
    if (!step->whole) { /* a token of its own: done with it */
        stage->held.byte_count = stage->stripped = 0;
        stage->has_text = false;
    }
    return feed(d, index + 1, span_of(&stage->scratch), err);
}

static enum cllm_status feed_metaspace(struct cllm_detokenizer *d, size_t index, struct cllm_span token, struct cllm_error *err)
{
    const struct cllm_step *step = &d->tokenizer->decoder.items[index];
    struct stage *stage = &d->stages[index];
    struct cllm_span content = span_of(&step->content);
    bool drop = stage->token_count++ == 0 && step->scheme != CLLM_PREPEND_NEVER;
    enum cllm_status status = cllm_strbuf_append_text(&stage->scratch, "", err);
    stage->scratch.byte_count = 0;
    for (size_t length; token.byte_count && !status; token = cllm_span_from(token, length)) {
        cllm_utf8_first(token, &length);
        if (length != content.byte_count || memcmp(token.bytes, content.bytes, length) != 0) {
            status = cllm_strbuf_append(&stage->scratch, (struct cllm_span){token.bytes, length}, err);
        } else if (!drop) {
            status = cllm_strbuf_append_text(&stage->scratch, " ", err);
        }
    }
    return status ? status : feed(d, index + 1, span_of(&stage->scratch), err);
}

static enum cllm_status feed_replace(struct cllm_detokenizer *d, size_t index, struct cllm_span token, struct cllm_error *err)
{
    struct stage *stage = &d->stages[index];
    stage->scratch.byte_count = 0;
    enum cllm_status status =
        cllm_step_rewrite(&d->tokenizer->decoder.items[index], &stage->scan, token, false, &stage->scratch, err);
    return status ? status : feed(d, index + 1, span_of(&stage->scratch), err);
}

static enum cllm_status feed_join(struct cllm_detokenizer *d, size_t index, struct cllm_span token, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    if (d->stages[index].token_count++) status = feed(d, index + 1, (struct cllm_span){" ", 1}, err);
    return status ? status : feed(d, index + 1, token, err);
}

static enum cllm_status feed(struct cllm_detokenizer *d, size_t index, struct cllm_span token, struct cllm_error *err)
{
    if (index == d->tokenizer->decoder.count) return cllm_strbuf_append(&d->out, token, err);
    switch (d->tokenizer->decoder.items[index].kind) {
    case CLLM_STEP_DECODE_BYTES: return feed_bytes(d, index, token, err);
    case CLLM_STEP_DECODE_FALLBACK: return feed_fallback(d, index, token, err);
    case CLLM_STEP_DECODE_STRIP: return feed_strip(d, index, token, err);
    case CLLM_STEP_DECODE_METASPACE: return feed_metaspace(d, index, token, err);
    case CLLM_STEP_DECODE_BUFFER: return cllm_strbuf_append(&d->stages[index].held, token, err);
    case CLLM_STEP_DECODE_JOIN: return feed_join(d, index, token, err);
    default: return feed_replace(d, index, token, err);
    }
}

/* Passes on what stage `index` holds. */
static enum cllm_status flush_stage(struct cllm_detokenizer *d, size_t index, struct cllm_error *err)
{
    struct stage *stage = &d->stages[index];
    enum cllm_status status = CLLM_OK;
    switch (d->tokenizer->decoder.items[index].kind) {
    case CLLM_STEP_DECODE_BYTES:
        if (stage->held.byte_count) status = pass_bytes(d, index, true, err);
        break;
    case CLLM_STEP_DECODE_FALLBACK: status = flush_run(d, index, err); break;
    case CLLM_STEP_DECODE_BUFFER:
        if (stage->held.byte_count) status = feed(d, index + 1, span_of(&stage->held), err);
        break;
    default: break; /* what DECODE_STRIP holds is what it strips */
    }
    return status;
}

static void reset_stages(struct cllm_detokenizer *d)
{
    for (size_t i = 0; i < d->tokenizer->decoder.count; i++) {
        struct stage *stage = &d->stages[i];
        stage->held.byte_count = stage->token_count = stage->stripped = 0;
        stage->has_text = false;
    }
}

enum cllm_status cllm_detokenizer_create(const struct cllm_tokenizer *tokenizer, bool skip_special,
                                         struct cllm_detokenizer **detokenizer_out, struct cllm_error *err)
{
    *detokenizer_out = NULL;
    const struct cllm_steps *steps = &tokenizer->decoder;
    struct cllm_detokenizer *d = calloc(1, sizeof *d);
    if (!d) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for a detokenizer");
    d->tokenizer = tokenizer;
    d->skip_special = skip_special;
    d->stages = calloc(steps->count + 1, sizeof *d->stages); /* never empty */
    enum cllm_status status = cllm_strbuf_append_text(&d->out, "", err);
    if (!status && !d->stages) status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for a detokenizer");
    for (size_t i = 0; i < steps->count && !status; i++) {
        status = cllm_strbuf_append_text(&d->stages[i].scratch, "", err);
        if (!status && steps->items[i].pattern) status = cllm_scan_init(&d->stages[i].scan, steps->items[i].pattern, err);
    }
    if (status) cllm_detokenizer_destroy(d);
    else *detokenizer_out = d;
    return status;
}

void cllm_detokenizer_destroy(struct cllm_detokenizer *d)
{
    if (!d) return;
    for (size_t i = 0; d->stages && i < d->tokenizer->decoder.count; i++) {
        free(d->stages[i].held.bytes);
        free(d->stages[i].scratch.bytes);
        cllm_scan_fini(&d->stages[i].scan);
    }
    free(d->stages);
    free(d->out.bytes);
    free(d);
}

static enum cllm_status push_id(struct cllm_detokenizer *d, uint32_t id, struct cllm_error *err)
{
    if (id >= d->tokenizer->vocab_size || !d->tokenizer->by_id[id].text.bytes) return CLLM_OK;
    if (d->skip_special && d->tokenizer->by_id[id].is_special) return CLLM_OK;
    return feed(d, 0, d->tokenizer->by_id[id].text, err);
}

static enum cllm_status flush_all(struct cllm_detokenizer *d, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < d->tokenizer->decoder.count && !status; i++) status = flush_stage(d, i, err);
    reset_stages(d);
    return status;
}

static enum cllm_status give_text(struct cllm_detokenizer *d, enum cllm_status status, const char **text_out, size_t *bytes_out)
{
    *text_out = status ? NULL : d->out.bytes;
    *bytes_out = status ? 0 : d->out.byte_count;
    return status;
}

static void forget_text(struct cllm_detokenizer *d)
{
    d->out.byte_count = 0;
    d->out.bytes[0] = 0;
}

enum cllm_status cllm_detokenizer_push(struct cllm_detokenizer *d, uint32_t id, const char **text_out, size_t *bytes_out,
                                       struct cllm_error *err)
{
    forget_text(d);
    return give_text(d, push_id(d, id, err), text_out, bytes_out);
}

enum cllm_status cllm_detokenizer_finish(struct cllm_detokenizer *d, const char **text_out, size_t *bytes_out,
                                         struct cllm_error *err)
{
    forget_text(d);
    return give_text(d, flush_all(d, err), text_out, bytes_out);
}

enum cllm_status cllm_tokenizer_decode(const struct cllm_tokenizer *tokenizer, const uint32_t *ids, size_t count,
                                       bool skip_special, char **text_out, size_t *bytes_out, struct cllm_error *err)
{
    *text_out = NULL;
    *bytes_out = 0;
    struct cllm_detokenizer *d = NULL;
    enum cllm_status status = cllm_detokenizer_create(tokenizer, skip_special, &d, err);
    for (size_t i = 0; i < count && !status; i++) status = push_id(d, ids[i], err);
    if (!status) status = flush_all(d, err);
    if (!status) {
        *text_out = d->out.bytes;
        *bytes_out = d->out.byte_count;
        d->out = (struct cllm_strbuf){0};
    }
    cllm_detokenizer_destroy(d);
    return status;
}

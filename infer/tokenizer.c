/* tokenizer.c - creation, encoding and look-ups; the stages are in tokenizer_*.c. */
#include "tokenizer_internal.h"

#include <stdlib.h>

static uint32_t find_vocab_size(const struct cllm_tokenizer *tokenizer)
{
    uint32_t size = 0;
    for (size_t i = 0; i < tokenizer->bpe.vocab.count; i++) {
        if (tokenizer->bpe.vocab.entries[i].id >= size) size = tokenizer->bpe.vocab.entries[i].id + 1;
    }
    for (size_t i = 0; i < tokenizer->added.count; i++) {
        if (tokenizer->added.tokens[i].id >= size) size = tokenizer->added.tokens[i].id + 1;
    }
    return size;
}

/* Lists the text of every id. An added token is spelled as the normalizer leaves it, so that the decoder can undo that. */
static enum cllm_status list_tokens(struct cllm_tokenizer *tokenizer, struct cllm_error *err)
{
    const struct cllm_vocab *vocab = &tokenizer->bpe.vocab;
    tokenizer->vocab_size = find_vocab_size(tokenizer);
    tokenizer->by_id = calloc((size_t)tokenizer->vocab_size + 1, sizeof *tokenizer->by_id);
    if (!tokenizer->by_id) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %u tokens", tokenizer->vocab_size);
    for (size_t i = 0; i < vocab->count; i++) {
        const struct cllm_vocab_entry *entry = &vocab->entries[i];
        struct cllm_token_text *token = &tokenizer->by_id[entry->id];
        if (token->text.bytes)
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "two vocabulary entries have id %u", entry->id);
        token->text = (struct cllm_span){vocab->text.bytes + entry->offset, entry->byte_count};
    }
    for (size_t i = 0; i < tokenizer->added.count; i++) {
        const struct cllm_added_token *token = &tokenizer->added.tokens[i];
        const struct cllm_strbuf *text = token->normalized ? &token->normal : &token->content;
        tokenizer->by_id[token->id].text = (struct cllm_span){text->bytes, text->byte_count};
    }
    for (uint32_t id = 0; id < tokenizer->vocab_size; id++) {
        struct cllm_token_text *token = &tokenizer->by_id[id];
        token->is_special = token->text.bytes && cllm_vocab_find(&tokenizer->added.special, token->text) != CLLM_NO_TOKEN;
    }
    return CLLM_OK;
}

enum cllm_status cllm_tokenizer_create(const void *json, size_t json_bytes, struct cllm_tokenizer **tokenizer_out,
                                       struct cllm_error *err)
{
    *tokenizer_out = NULL;
    struct cllm_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for a tokenizer");
    enum cllm_status status = cllm_tokenizer_parse(json, json_bytes, tokenizer, err);
    if (!status) status = list_tokens(tokenizer, err);
    if (status) {
        cllm_tokenizer_destroy(tokenizer);
        return cllm_fail_context(err, status, "tokenizer.json");
    }
    *tokenizer_out = tokenizer;
    return CLLM_OK;
}

void cllm_tokenizer_destroy(struct cllm_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    cllm_steps_fini(&tokenizer->normalizer);
    cllm_steps_fini(&tokenizer->pre_tokenizer);
    cllm_steps_fini(&tokenizer->decoder);
    cllm_bpe_fini(&tokenizer->bpe);
    cllm_added_fini(&tokenizer->added);
    free(tokenizer->template_ids.ids);
    free(tokenizer->by_id);
    free(tokenizer);
}

uint32_t cllm_tokenizer_vocab_size(const struct cllm_tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

uint32_t cllm_tokenizer_find(const struct cllm_tokenizer *tokenizer, const char *token, size_t token_bytes)
{
    struct cllm_span text = {token, token_bytes};
    uint32_t index = cllm_vocab_find(&tokenizer->added.ids, text);
    return index != CLLM_NO_TOKEN ? tokenizer->added.tokens[index].id : cllm_vocab_find(&tokenizer->bpe.vocab, text);
}

const char *cllm_tokenizer_token(const struct cllm_tokenizer *tokenizer, uint32_t id, size_t *bytes_out)
{
    *bytes_out = 0;
    if (id >= tokenizer->vocab_size) return NULL;
    *bytes_out = tokenizer->by_id[id].text.byte_count;
    return tokenizer->by_id[id].text.bytes;
}

bool cllm_tokenizer_is_special(const struct cllm_tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->vocab_size && tokenizer->by_id[id].is_special;
}

/* The text as one piece of valid UTF-8. Its head, in the sense of struct cllm_piece, is its first character. */
static enum cllm_status take_text(const char *text, size_t text_bytes, struct cllm_pieces *pieces, struct cllm_error *err)
{
    enum cllm_status status = cllm_strbuf_append_lossy(&pieces->text, (struct cllm_span){text, text_bytes}, true, NULL, err);
    if (status || pieces->text.byte_count == 0) return status;
    struct cllm_piece whole = {0, pieces->text.byte_count, 0, CLLM_NO_TOKEN};
    cllm_utf8_first((struct cllm_span){pieces->text.bytes, pieces->text.byte_count}, &whole.head_bytes);
    return cllm_pieces_append_slice(pieces, &whole, 0, whole.byte_count, CLLM_NO_TOKEN, err);
}

static enum cllm_status encode_pieces(const struct cllm_bpe *bpe, const struct cllm_pieces *pieces, struct cllm_ids *ids,
                                      struct cllm_error *err)
{
    struct cllm_bpe_work work = {0};
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < pieces->count && !status; i++) {
        const struct cllm_piece *piece = &pieces->items[i];
        if (piece->id != CLLM_NO_TOKEN) status = cllm_ids_append(ids, piece->id, err);
        else if (piece->byte_count) status = cllm_bpe_encode(bpe, cllm_piece_span(pieces, piece), &work, ids, err);
    }
    cllm_bpe_work_fini(&work);
    return status;
}

/* Puts the sequence into the post-processor's template; without `add_special` only the sequence is left of it. */
static enum cllm_status apply_template(const struct cllm_ids *template_ids, bool add_special, struct cllm_ids *ids,
                                       struct cllm_error *err)
{
    struct cllm_ids out = {0};
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < template_ids->count && !status; i++) {
        if (template_ids->ids[i] != CLLM_NO_TOKEN) {
            if (add_special) status = cllm_ids_append(&out, template_ids->ids[i], err);
            continue;
        }
        for (size_t k = 0; k < ids->count && !status; k++) status = cllm_ids_append(&out, ids->ids[k], err);
    }
    free(ids->ids);
    *ids = out;
    return status;
}

enum cllm_status cllm_tokenizer_encode(const struct cllm_tokenizer *tokenizer, const char *text, size_t text_bytes,
                                       bool add_special, uint32_t **ids_out, size_t *count_out, struct cllm_error *err)
{
    *ids_out = NULL;
    *count_out = 0;
    struct cllm_pieces pieces = {0};
    struct cllm_ids ids = {0};
    enum cllm_status status = take_text(text, text_bytes, &pieces, err);
    if (!status) status = cllm_added_split(&tokenizer->added.raw, &pieces, err);
    if (!status) status = cllm_steps_apply(&tokenizer->normalizer, &pieces, err);
    if (!status) status = cllm_added_split(&tokenizer->added.normal, &pieces, err);
    if (!status) status = cllm_steps_apply(&tokenizer->pre_tokenizer, &pieces, err);
    if (!status) status = encode_pieces(&tokenizer->bpe, &pieces, &ids, err);
    if (!status && tokenizer->has_template) status = apply_template(&tokenizer->template_ids, add_special, &ids, err);
    cllm_pieces_fini(&pieces);
    if (status) {
        free(ids.ids);
        return status;
    }
    *ids_out = ids.ids;
    *count_out = ids.count;
    return CLLM_OK;
}

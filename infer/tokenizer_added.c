/* tokenizer_added.c - tokens that are matched in the text before the model sees it.
 *
 * Tokens with `normalized` false are searched in the text as given, the others, in their normalized form, in the normalized
 * text. Of all tokens that match at the leftmost place the longest wins.
 */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

static struct cllm_span content_of(const struct cllm_added_token *token)
{
    return (struct cllm_span){token->content.bytes, token->content.byte_count};
}

/* What is searched in the text. */
static struct cllm_span needle_of(const struct cllm_added_token *token)
{
    return token->normalized ? (struct cllm_span){token->normal.bytes, token->normal.byte_count} : content_of(token);
}

static void free_token(struct cllm_added_token *token)
{
    free(token->content.bytes);
    free(token->normal.bytes);
    *token = (struct cllm_added_token){0};
}

/* The file's own ids are not looked at, as in the reference: a token of the model keeps its id, any other gets the next one
 * after the model's vocabulary. Files written by the library agree with that. */
static uint32_t choose_id(struct cllm_added *added, const struct cllm_vocab *vocab, struct cllm_span content)
{
    uint32_t id = cllm_vocab_find(vocab, content);
    return id != CLLM_NO_TOKEN ? id : (uint32_t)(vocab->count + added->fresh_count++);
}

static enum cllm_status place_token(struct cllm_added *added, const struct cllm_vocab *vocab, struct cllm_added_token *token,
                                    struct cllm_error *err)
{
    struct cllm_span content = content_of(token);
    uint32_t index = cllm_vocab_find(&added->ids, content);
    if (index != CLLM_NO_TOKEN) { /* listed twice: the later entry says how it is matched */
        token->id = added->tokens[index].id;
        free_token(&added->tokens[index]);
        added->tokens[index] = *token;
        *token = (struct cllm_added_token){0};
        return CLLM_OK;
    }
    token->id = choose_id(added, vocab, content);
    if (token->id > CLLM_TOKEN_ID_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "added token id %u, at most %u is allowed", token->id,
                         CLLM_TOKEN_ID_MAX);
    }
    enum cllm_status status = cllm_array_grow(&added->tokens, added->count, &added->capacity, sizeof *added->tokens, err);
    if (!status) status = cllm_vocab_add(&added->ids, content, (uint32_t)added->count, err);
    if (status) return status;
    added->tokens[added->count++] = *token;
    *token = (struct cllm_added_token){0};
    return CLLM_OK;
}

enum cllm_status cllm_added_add(struct cllm_added *added, const struct cllm_vocab *vocab, const struct cllm_steps *normalizer,
                                struct cllm_added_token *token, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    if (token->content.byte_count == 0) goto out; /* ignored */
    if (token->normalized) status = cllm_steps_rewrite(normalizer, content_of(token), &token->normal, err);
    if (!status && token->special && cllm_vocab_find(&added->special, content_of(token)) == CLLM_NO_TOKEN) {
        status = cllm_vocab_add(&added->special, content_of(token), 0, err);
    }
    if (!status) status = place_token(added, vocab, token, err);
out:
    free_token(token);
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- the sets */

/* By needle, as bytes; tokens with the same needle in the order of the file. */
static int compare_needles(const void *a, const void *b)
{
    const struct cllm_added_token *first = *(const struct cllm_added_token *const *)a;
    const struct cllm_added_token *second = *(const struct cllm_added_token *const *)b;
    struct cllm_span x = needle_of(first), y = needle_of(second);
    size_t shared = x.byte_count < y.byte_count ? x.byte_count : y.byte_count;
    int order = memcmp(x.bytes, y.bytes, shared);
    if (order) return order;
    if (x.byte_count != y.byte_count) return x.byte_count < y.byte_count ? -1 : 1;
    return first < second ? -1 : first > second;
}

static bool same_needle(const struct cllm_added_token *a, const struct cllm_added_token *b)
{
    struct cllm_span x = needle_of(a), y = needle_of(b);
    return x.byte_count == y.byte_count && memcmp(x.bytes, y.bytes, x.byte_count) == 0;
}

/* Lists the tokens of one kind. A token of which the normalizer leaves nothing is never found; of several that it makes the
 * same the first of the file is (the reference takes any of them, another one each time). */
static enum cllm_status build_set(const struct cllm_added *added, bool normalized, struct cllm_added_set *set,
                                  struct cllm_error *err)
{
    if (added->count == 0) return CLLM_OK;
    set->tokens = malloc(added->count * sizeof *set->tokens);
    if (!set->tokens) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %zu added tokens", added->count);
    size_t count = 0;
    for (size_t i = 0; i < added->count; i++) {
        const struct cllm_added_token *token = &added->tokens[i];
        if (token->normalized == normalized && needle_of(token).byte_count) set->tokens[count++] = token;
    }
    qsort(set->tokens, count, sizeof *set->tokens, compare_needles);
    for (size_t i = 0; i < count; i++) {
        if (i && same_needle(set->tokens[set->count - 1], set->tokens[i])) continue;
        set->tokens[set->count++] = set->tokens[i];
    }
    for (size_t i = 0; i < set->count; i++) set->first[(uint8_t)needle_of(set->tokens[i]).bytes[0] + 1]++;
    for (size_t byte = 0; byte < 256; byte++) set->first[byte + 1] += set->first[byte];
    return CLLM_OK;
}

enum cllm_status cllm_added_prepare(struct cllm_added *added, struct cllm_error *err)
{
    enum cllm_status status = build_set(added, false, &added->raw, err);
    return status ? status : build_set(added, true, &added->normal, err);
}

void cllm_added_fini(struct cllm_added *added)
{
    for (size_t i = 0; i < added->count; i++) free_token(&added->tokens[i]);
    free(added->tokens);
    cllm_vocab_fini(&added->ids);
    cllm_vocab_fini(&added->special);
    free(added->raw.tokens);
    free(added->normal.tokens);
}

/* --------------------------------------------------------------------------------------------------------- matching */

/* The longest token at the start of `text`, or null. Tokens that share the bytes read so far are [low, high) of the sorted
 * set; of those a token that ends here comes first. */
static const struct cllm_added_token *match_here(const struct cllm_added_set *set, struct cllm_span text)
{
    size_t low = set->first[(uint8_t)text.bytes[0]], high = set->first[(uint8_t)text.bytes[0] + 1];
    const struct cllm_added_token *longest = NULL;
    for (size_t depth = 1; low < high; depth++) {
        if (needle_of(set->tokens[low]).byte_count == depth) longest = set->tokens[low++];
        if (depth == text.byte_count) break;
        uint8_t byte = (uint8_t)text.bytes[depth];
        size_t end = high;
        while (low < end) { /* first token whose byte here is not below */
            size_t middle = low + (end - low) / 2;
            if ((uint8_t)needle_of(set->tokens[middle]).bytes[depth] < byte) low = middle + 1;
            else end = middle;
        }
        while (end < high) { /* first token whose byte here is above */
            size_t middle = end + (high - end) / 2;
            if ((uint8_t)needle_of(set->tokens[middle]).bytes[depth] <= byte) end = middle + 1;
            else high = middle;
        }
    }
    return longest;
}

/* The code point that ends at `end`, which is above 0. */
static uint32_t last_codepoint(struct cllm_span text, size_t end, size_t *start_out)
{
    size_t start = end - 1, length;
    while (start > 0 && ((uint8_t)text.bytes[start] & 0xC0) == 0x80) start--;
    *start_out = start;
    return cllm_utf8_first(cllm_span_from(text, start), &length);
}

static bool is_single_word(struct cllm_span text, size_t start, size_t end)
{
    size_t ignored;
    if (start > 0 && cllm_char_is_word(last_codepoint(text, start, &ignored))) return false;
    return end == text.byte_count || !cllm_char_is_word(cllm_utf8_first(cllm_span_from(text, end), &ignored));
}

/* Takes spaces left of `start` into the token, down to `floor`, and keeps out of what is before that. */
static size_t extend_left(struct cllm_span text, size_t start, size_t floor)
{
    size_t before;
    if (start < floor) return floor;
    while (start > floor && cllm_char_is_space(last_codepoint(text, start, &before))) start = before;
    return start;
}

static size_t extend_right(struct cllm_span text, size_t end)
{
    size_t length;
    while (end < text.byte_count && cllm_char_is_space(cllm_utf8_first(cllm_span_from(text, end), &length))) end += length;
    return end;
}

static enum cllm_status append_token(struct cllm_pieces *out, uint32_t id, struct cllm_error *err)
{
    enum cllm_status status = cllm_array_grow(&out->items, out->count, &out->capacity, sizeof *out->items, err);
    if (!status) out->items[out->count++] = (struct cllm_piece){0, 0, 0, id};
    return status;
}

/* Cuts one piece. As in the reference, the search goes on right after the token itself, even where rstrip took more; a token
 * found there and left with nothing by lstrip is dropped. */
static enum cllm_status split_piece(const struct cllm_added_set *set, struct cllm_span text, const struct cllm_piece *piece,
                                    struct cllm_pieces *out, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    size_t done = 0; /* text before it is in `out` */
    for (size_t at = 0; at < text.byte_count && !status;) {
        const struct cllm_added_token *token = match_here(set, cllm_span_from(text, at));
        if (!token) {
            at++;
            continue;
        }
        size_t start = at, end = at + needle_of(token).byte_count;
        at = end;
        if (token->single_word && !is_single_word(text, start, end)) continue;
        if (token->lstrip) start = extend_left(text, start, done);
        if (token->rstrip) end = extend_right(text, end);
        status = cllm_pieces_append_slice(out, piece, done, start, CLLM_NO_TOKEN, err);
        if (!status && start < end) status = append_token(out, token->id, err);
        done = end;
    }
    return status ? status : cllm_pieces_append_slice(out, piece, done, text.byte_count, CLLM_NO_TOKEN, err);
}

enum cllm_status cllm_added_split(const struct cllm_added_set *set, struct cllm_pieces *pieces, struct cllm_error *err)
{
    struct cllm_pieces out = {0};
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < pieces->count && !status; i++) {
        const struct cllm_piece *piece = &pieces->items[i];
        if (piece->id != CLLM_NO_TOKEN) status = append_token(&out, piece->id, err);
        else status = split_piece(set, cllm_piece_span(pieces, piece), piece, &out, err);
    }
    free(pieces->items);
    out.text = pieces->text;
    *pieces = out;
    return status;
}

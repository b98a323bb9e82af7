/* tokenizer_bpe.c - the vocabulary and byte-pair merging.
 *
 * Merging keeps the word as a linked list of symbols and a heap of candidate pairs, lowest rank first, leftmost first among
 * equals: n log n for a word of n characters. Candidates go stale when a neighbour merges; they are checked when popped.
 */
#include "tokenizer_internal.h"

#include "digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_SYMBOL UINT32_MAX
#define NO_PAIR UINT64_MAX

struct cllm_bpe_symbol {
    uint32_t id;
    uint32_t previous; /* index, or NO_SYMBOL */
    uint32_t next;
    bool is_gone; /* merged into the symbol on its left */
};

struct cllm_bpe_candidate {
    uint32_t rank;
    uint32_t left; /* index of the left symbol */
    uint32_t id;   /* of the merged token */
};

/* ------------------------------------------------------------------------------------------------------- vocabulary */

static struct cllm_span entry_span(const struct cllm_vocab *vocab, const struct cllm_vocab_entry *entry)
{
    return (struct cllm_span){vocab->text.bytes + entry->offset, entry->byte_count};
}

/* Index of the slot that holds the token, or of the free slot where it belongs. */
static size_t find_slot(const struct cllm_vocab *vocab, struct cllm_span token)
{
    size_t mask = vocab->slot_count - 1;
    for (size_t slot = cllm_checksum(token.bytes, token.byte_count) & mask;; slot = (slot + 1) & mask) {
        uint32_t entry_number = vocab->slots[slot];
        if (!entry_number) return slot;
        struct cllm_span text = entry_span(vocab, &vocab->entries[entry_number - 1]);
        if (text.byte_count == token.byte_count && memcmp(text.bytes, token.bytes, token.byte_count) == 0) return slot;
    }
}

uint32_t cllm_vocab_find(const struct cllm_vocab *vocab, struct cllm_span token)
{
    if (!vocab->slot_count) return CLLM_NO_TOKEN;
    uint32_t entry_number = vocab->slots[find_slot(vocab, token)];
    return entry_number ? vocab->entries[entry_number - 1].id : CLLM_NO_TOKEN;
}

/* Doubles the slots before they are more than half full. */
static enum cllm_status grow_slots(struct cllm_vocab *vocab, struct cllm_error *err)
{
    if (vocab->count < vocab->slot_count / 2) return CLLM_OK;
    size_t slot_count = vocab->slot_count ? vocab->slot_count * 2 : 64;
    uint32_t *slots = calloc(slot_count, sizeof *slots);
    if (!slots) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for a vocabulary of %zu tokens", vocab->count);
    free(vocab->slots);
    vocab->slots = slots;
    vocab->slot_count = slot_count;
    for (size_t i = 0; i < vocab->count; i++) {
        vocab->slots[find_slot(vocab, entry_span(vocab, &vocab->entries[i]))] = (uint32_t)i + 1;
    }
    return CLLM_OK;
}

enum cllm_status cllm_vocab_add(struct cllm_vocab *vocab, struct cllm_span token, uint32_t id, struct cllm_error *err)
{
    enum cllm_status status = grow_slots(vocab, err);
    if (!status) status = cllm_array_grow(&vocab->entries, vocab->count, &vocab->capacity, sizeof *vocab->entries, err);
    size_t offset = vocab->text.byte_count;
    if (!status) status = cllm_strbuf_append(&vocab->text, token, err);
    if (status) return status;
    vocab->slots[find_slot(vocab, token)] = (uint32_t)vocab->count + 1;
    vocab->entries[vocab->count++] = (struct cllm_vocab_entry){offset, (uint32_t)token.byte_count, id};
    return CLLM_OK;
}

void cllm_vocab_fini(struct cllm_vocab *vocab)
{
    free(vocab->slots);
    free(vocab->entries);
    free(vocab->text.bytes);
}

/* ----------------------------------------------------------------------------------------------------------- merges */

static uint64_t make_pair(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right;
}

static struct cllm_merge *find_merge_slot(const struct cllm_bpe *bpe, uint64_t pair)
{
    size_t mask = bpe->merge_slots - 1;
    size_t slot = (size_t)(pair * 0x9E3779B97F4A7C15u >> 20) & mask; /* Fibonacci hashing: the high bits are the mixed ones */
    while (bpe->merges[slot].pair != pair && bpe->merges[slot].pair != NO_PAIR) slot = (slot + 1) & mask;
    return &bpe->merges[slot];
}

/* The merge of two adjacent tokens, or null. */
static const struct cllm_merge *find_merge(const struct cllm_bpe *bpe, uint32_t left, uint32_t right)
{
    const struct cllm_merge *merge = find_merge_slot(bpe, make_pair(left, right));
    return merge->pair == NO_PAIR ? NULL : merge;
}

enum cllm_status cllm_bpe_reserve_merges(struct cllm_bpe *bpe, size_t count, struct cllm_error *err)
{
    if (count > UINT32_MAX / 4) return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "%zu merges are too many", count);
    size_t slots = 64;
    while (slots / 2 < count) slots *= 2;
    bpe->merges = malloc(slots * sizeof *bpe->merges);
    if (!bpe->merges) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for %zu merges", count);
    for (size_t i = 0; i < slots; i++) bpe->merges[i].pair = NO_PAIR;
    bpe->merge_slots = slots;
    return CLLM_OK;
}

static enum cllm_status fail_merge(struct cllm_span token, uint32_t rank, struct cllm_error *err)
{
    char name[64];
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "merge %u needs token \"%s\", which is not in the vocabulary", rank,
                     cllm_escape(token.bytes, token.byte_count, name, sizeof name));
}

enum cllm_status cllm_bpe_add_merge(struct cllm_bpe *bpe, uint32_t rank, struct cllm_span left, struct cllm_span right,
                                    struct cllm_error *err)
{
    uint32_t left_id = cllm_vocab_find(&bpe->vocab, left), right_id = cllm_vocab_find(&bpe->vocab, right);
    if (left_id == CLLM_NO_TOKEN) return fail_merge(left, rank, err);
    if (right_id == CLLM_NO_TOKEN || right.byte_count < bpe->prefix.byte_count) return fail_merge(right, rank, err);
    struct cllm_strbuf merged = {0};
    enum cllm_status status = cllm_strbuf_append(&merged, left, err);
    if (!status) status = cllm_strbuf_append(&merged, cllm_span_from(right, bpe->prefix.byte_count), err);
    if (!status) {
        struct cllm_span token = {merged.bytes, merged.byte_count};
        uint32_t id = cllm_vocab_find(&bpe->vocab, token);
        uint64_t pair = make_pair(left_id, right_id);
        if (id == CLLM_NO_TOKEN) status = fail_merge(token, rank, err);
        else *find_merge_slot(bpe, pair) = (struct cllm_merge){pair, rank, id};
    }
    free(merged.bytes);
    return status;
}

void cllm_bpe_prepare(struct cllm_bpe *bpe)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        int length = snprintf(name, sizeof name, "<0x%02X>", byte);
        bpe->byte_ids[byte] = cllm_vocab_find(&bpe->vocab, (struct cllm_span){name, (size_t)length});
    }
    bpe->unk_id =
        bpe->has_unk ? cllm_vocab_find(&bpe->vocab, (struct cllm_span){bpe->unk.bytes, bpe->unk.byte_count}) : CLLM_NO_TOKEN;
}

void cllm_bpe_fini(struct cllm_bpe *bpe)
{
    cllm_vocab_fini(&bpe->vocab);
    free(bpe->merges);
    free(bpe->prefix.bytes);
    free(bpe->suffix.bytes);
    free(bpe->unk.bytes);
}

/* --------------------------------------------------------------------------------------------------------- the heap */

static bool comes_before(const struct cllm_bpe_candidate *a, const struct cllm_bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static enum cllm_status push_candidate(struct cllm_bpe_work *work, struct cllm_bpe_candidate candidate, struct cllm_error *err)
{
    enum cllm_status status = cllm_array_grow(&work->heap, work->heap_count, &work->heap_capacity, sizeof *work->heap, err);
    if (status) return status;
    size_t at = work->heap_count++;
    for (; at > 0 && comes_before(&candidate, &work->heap[(at - 1) / 2]); at = (at - 1) / 2) {
        work->heap[at] = work->heap[(at - 1) / 2];
    }
    work->heap[at] = candidate;
    return CLLM_OK;
}

static struct cllm_bpe_candidate pop_candidate(struct cllm_bpe_work *work)
{
    struct cllm_bpe_candidate top = work->heap[0], last = work->heap[--work->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= work->heap_count) break;
        if (child + 1 < work->heap_count && comes_before(&work->heap[child + 1], &work->heap[child])) child++;
        if (!comes_before(&work->heap[child], &last)) break;
        work->heap[at] = work->heap[child];
        at = child;
    }
    work->heap[at] = last;
    return top;
}

/* ---------------------------------------------------------------------------------------------------------- merging */

/* Offers the pair that starts at symbol `left`, if there is a merge for it. */
static enum cllm_status offer_pair(const struct cllm_bpe *bpe, struct cllm_bpe_work *work, uint32_t left, struct cllm_error *err)
{
    if (left == NO_SYMBOL || work->symbols[left].next == NO_SYMBOL) return CLLM_OK;
    const struct cllm_merge *merge = find_merge(bpe, work->symbols[left].id, work->symbols[work->symbols[left].next].id);
    if (!merge) return CLLM_OK;
    return push_candidate(work, (struct cllm_bpe_candidate){merge->rank, left, merge->id}, err);
}

static enum cllm_status merge_symbols(const struct cllm_bpe *bpe, struct cllm_bpe_work *work, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    work->heap_count = 0;
    for (size_t i = 0; i + 1 < work->symbol_count && !status; i++) status = offer_pair(bpe, work, (uint32_t)i, err);
    while (work->heap_count && !status) {
        struct cllm_bpe_candidate candidate = pop_candidate(work);
        struct cllm_bpe_symbol *left = &work->symbols[candidate.left];
        if (left->is_gone || left->next == NO_SYMBOL) continue;
        struct cllm_bpe_symbol *right = &work->symbols[left->next];
        /* Stale unless the pair still merges, and to the same token; its rank may differ, as in the reference. */
        const struct cllm_merge *merge = find_merge(bpe, left->id, right->id);
        if (!merge || merge->id != candidate.id) continue;
        left->id = candidate.id;
        left->next = right->next;
        right->is_gone = true;
        if (left->next != NO_SYMBOL) work->symbols[left->next].previous = candidate.left;
        status = offer_pair(bpe, work, left->previous, err);
        if (!status) status = offer_pair(bpe, work, candidate.left, err);
    }
    return status;
}

static enum cllm_status add_symbol(struct cllm_bpe_work *work, uint32_t id, struct cllm_error *err)
{
    enum cllm_status status =
        cllm_array_grow(&work->symbols, work->symbol_count, &work->symbol_capacity, sizeof *work->symbols, err);
    if (status) return status;
    uint32_t index = (uint32_t)work->symbol_count++; /* a word has at most CLLM_TEXT_LIMIT characters */
    work->symbols[index] = (struct cllm_bpe_symbol){id, index ? index - 1 : NO_SYMBOL, NO_SYMBOL, false};
    if (index) work->symbols[index - 1].next = index;
    return CLLM_OK;
}

/* Adds the bytes of an unknown character as <0x..> tokens; `*done_out` is false, and nothing added, where one is missing. */
static enum cllm_status add_bytes(const struct cllm_bpe *bpe, struct cllm_span text, struct cllm_bpe_work *work, bool *done_out,
                                  struct cllm_error *err)
{
    *done_out = false;
    for (size_t i = 0; i < text.byte_count; i++) {
        if (bpe->byte_ids[(uint8_t)text.bytes[i]] == CLLM_NO_TOKEN) return CLLM_OK;
    }
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < text.byte_count && !status; i++) {
        status = add_symbol(work, bpe->byte_ids[(uint8_t)text.bytes[i]], err);
    }
    *done_out = true;
    return status;
}

/* `text` with the configured prefix (unless first in its word) and suffix (if last); most models have neither. */
static enum cllm_status decorate(const struct cllm_bpe *bpe, bool is_first, bool is_last, struct cllm_strbuf *scratch,
                                 struct cllm_span *text, struct cllm_error *err)
{
    struct cllm_span prefix = {bpe->prefix.bytes, is_first ? 0 : bpe->prefix.byte_count};
    struct cllm_span suffix = {bpe->suffix.bytes, is_last ? bpe->suffix.byte_count : 0};
    if (!prefix.byte_count && !suffix.byte_count) return CLLM_OK;
    scratch->byte_count = 0;
    enum cllm_status status = cllm_strbuf_append(scratch, prefix, err);
    if (!status) status = cllm_strbuf_append(scratch, *text, err);
    if (!status) status = cllm_strbuf_append(scratch, suffix, err);
    if (!status) *text = (struct cllm_span){scratch->bytes, scratch->byte_count};
    return status;
}

static enum cllm_status fail_unk(const struct cllm_bpe *bpe, struct cllm_error *err)
{
    char name[64];
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "the text needs unk_token \"%s\", which is not in the vocabulary",
                     cllm_escape(bpe->unk.bytes, bpe->unk.byte_count, name, sizeof name));
}

/* Adds one character. An unknown one becomes <0x..> tokens, or the unk token, or nothing. `*unk_pending` is set while an unk
 * token waits, to be fused with the next one; byte tokens do not end the wait, which is how the reference orders them. */
static enum cllm_status add_character(const struct cllm_bpe *bpe, struct cllm_span text, struct cllm_bpe_work *work,
                                      bool *unk_pending, struct cllm_error *err)
{
    uint32_t id = cllm_vocab_find(&bpe->vocab, text);
    enum cllm_status status = CLLM_OK;
    if (id != CLLM_NO_TOKEN) {
        if (*unk_pending) status = add_symbol(work, bpe->unk_id, err);
        *unk_pending = false;
        return status ? status : add_symbol(work, id, err);
    }
    if (bpe->byte_fallback) {
        bool done;
        status = add_bytes(bpe, text, work, &done, err);
        if (status || done) return status;
    }
    if (!bpe->has_unk) return CLLM_OK;
    if (bpe->unk_id == CLLM_NO_TOKEN) return fail_unk(bpe, err);
    if (*unk_pending && !bpe->fuse_unk) status = add_symbol(work, bpe->unk_id, err);
    *unk_pending = true;
    return status;
}

static enum cllm_status add_characters(const struct cllm_bpe *bpe, struct cllm_span word, struct cllm_bpe_work *work,
                                       struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    bool unk_pending = false;
    work->symbol_count = 0;
    for (size_t at = 0, length; at < word.byte_count && !status; at += length) {
        cllm_utf8_first(cllm_span_from(word, at), &length);
        struct cllm_span text = {word.bytes + at, length};
        status = decorate(bpe, at == 0, at + length == word.byte_count, &work->scratch, &text, err);
        if (!status) status = add_character(bpe, text, work, &unk_pending, err);
    }
    if (!status && unk_pending) status = add_symbol(work, bpe->unk_id, err);
    return status;
}

enum cllm_status cllm_bpe_encode(const struct cllm_bpe *bpe, struct cllm_span word, struct cllm_bpe_work *work,
                                 struct cllm_ids *ids, struct cllm_error *err)
{
    if (bpe->ignore_merges) {
        uint32_t id = cllm_vocab_find(&bpe->vocab, word);
        if (id != CLLM_NO_TOKEN) return cllm_ids_append(ids, id, err);
    }
    enum cllm_status status = add_characters(bpe, word, work, err);
    if (!status) status = merge_symbols(bpe, work, err);
    for (size_t i = 0; i < work->symbol_count && !status; i++) {
        if (!work->symbols[i].is_gone) status = cllm_ids_append(ids, work->symbols[i].id, err);
    }
    return status;
}

void cllm_bpe_work_fini(struct cllm_bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    free(work->scratch.bytes);
}

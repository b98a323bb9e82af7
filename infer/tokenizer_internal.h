/* tokenizer_internal.h - what the tokenizer_*.c files share; nothing else includes it.
 *
 * A tokenizer.json nests its components; here each section is a flat list of steps. Encoding moves an array of *pieces*
 * (spans of one text buffer) through them: a rewriting step gives every piece new text, a splitting step cuts pieces, and an
 * added token is a piece that already has its id and is left alone.
 */
#ifndef CLLM_TOKENIZER_INTERNAL_H
#define CLLM_TOKENIZER_INTERNAL_H

#include "tokenizer.h"

/* ------------------------------------------------------------------------------------------------------------- text */

#define CLLM_TEXT_LIMIT ((size_t)1 << 30) /* bytes that any one buffer may hold */

/* A run of bytes owned by someone else. */
struct cllm_span {
    const char *bytes;
    size_t byte_count;
};

/* A growing buffer; all zero is empty. Always followed by a zero byte once something was appended. */
struct cllm_strbuf {
    char *bytes;
    size_t byte_count;
    size_t capacity;
};

/* Appends a copy of `span`, which must not lie in the buffer. Fails with NOMEM and LIMIT. */
enum cllm_status cllm_strbuf_append(struct cllm_strbuf *text, struct cllm_span span, struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_strbuf_append_text(struct cllm_strbuf *text, const char *string, struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_strbuf_append_codepoint(struct cllm_strbuf *text, uint32_t codepoint, struct cllm_error *err) CLLM_MUST_USE;

/* Appends `span` as UTF-8 with each maximal ill-formed sequence replaced by U+FFFD. An unfinished character at the end is
 * left out unless `final`. `*used_out` (may be null) is how many bytes were consumed. */
enum cllm_status cllm_strbuf_append_lossy(struct cllm_strbuf *text, struct cllm_span span, bool final, size_t *used_out,
                                          struct cllm_error *err) CLLM_MUST_USE;
bool cllm_span_is_utf8(struct cllm_span span);

/* The span without its first `skipped_bytes` bytes. */
static inline struct cllm_span cllm_span_from(struct cllm_span span, size_t skipped_bytes)
{
    return (struct cllm_span){span.bytes + skipped_bytes, span.byte_count - skipped_bytes};
}

/* The code point at the start of non-empty, valid UTF-8; `*bytes_out` is its length. */
uint32_t cllm_utf8_first(struct cllm_span span, size_t *bytes_out);

/* Makes room for one more element of `element_bytes` in a growing array; the element size guards against overflow. */
enum cllm_status cllm_array_grow(void *array_pointer, size_t count, size_t *capacity, size_t element_bytes,
                                 struct cllm_error *err) CLLM_MUST_USE;

struct cllm_ids {
    uint32_t *ids;
    size_t count;
    size_t capacity;
};
enum cllm_status cllm_ids_append(struct cllm_ids *ids, uint32_t id, struct cllm_error *err) CLLM_MUST_USE;

/* ---------------------------------------------------------------------------------------------------------- unicode */

enum cllm_normal_form { CLLM_NFC, CLLM_NFD, CLLM_NFKC, CLLM_NFKD };

/* Character classes with the Unicode versions of the reference; see tokenizer_unicode.c. */
typedef bool cllm_char_class(uint32_t codepoint);
cllm_char_class cllm_char_is_space, cllm_char_is_numeric, cllm_char_is_punctuation, cllm_char_is_word;

/* A code point of the same UTF-8 length and general category that PCRE2's older Unicode tables know; most are themselves. */
uint32_t cllm_char_regex_stand_in(uint32_t codepoint);
enum cllm_status cllm_text_normalize(struct cllm_span text, enum cllm_normal_form form, struct cllm_strbuf *out,
                                     struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_text_lowercase(struct cllm_span text, struct cllm_strbuf *out, struct cllm_error *err) CLLM_MUST_USE;

/* ---------------------------------------------------------------------------------------------------------- pattern */

/* A compiled regex or literal. Immutable. */
struct cllm_pattern;
enum cllm_status cllm_pattern_create(struct cllm_span source, bool is_regex, struct cllm_pattern **pattern_out,
                                     struct cllm_error *err) CLLM_MUST_USE;
void cllm_pattern_destroy(struct cllm_pattern *pattern);

/* Finds the matches of a pattern in one text after another. Zero it, init, then start each text; fini accepts a zeroed one. */
struct cllm_scan {
    const struct cllm_pattern *pattern;
    void *match_data, *match_context, *jit_stack; /* PCRE2's */
    struct cllm_strbuf shadow;                    /* the text with stand-ins, where it needs any */
    struct cllm_span text;
    size_t next_offset;    /* where the next search starts */
    size_t last_match_end; /* SIZE_MAX before the first match */
};
enum cllm_status cllm_scan_init(struct cllm_scan *scan, const struct cllm_pattern *pattern, struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_scan_start(struct cllm_scan *scan, struct cllm_span text, struct cllm_error *err) CLLM_MUST_USE;
/* The next match; `*found_out` false after the last. Offsets into the text given to start. */
enum cllm_status cllm_scan_next(struct cllm_scan *scan, bool *found_out, size_t *start_out, size_t *end_out,
                                struct cllm_error *err) CLLM_MUST_USE;
void cllm_scan_fini(struct cllm_scan *scan);

/* ------------------------------------------------------------------------------------------------------------ steps */

enum cllm_step_kind {
    /* rewriting */
    CLLM_STEP_NORMALIZE,
    CLLM_STEP_LOWERCASE,
    CLLM_STEP_STRIP,
    CLLM_STEP_PREPEND,
    CLLM_STEP_REPLACE,
    CLLM_STEP_METASPACE,
    CLLM_STEP_BYTE_SPACE, /* ByteLevel's add_prefix_space */
    CLLM_STEP_BYTE_MAP,   /* ByteLevel's bytes to printable characters */
    /* splitting */
    CLLM_STEP_SPLIT_PATTERN,
    CLLM_STEP_SPLIT_CLASS,
    CLLM_STEP_SPLIT_WORDS, /* Whitespace: runs of word characters and of other characters, spaces dropped */
    /* decoding, besides REPLACE */
    CLLM_STEP_DECODE_BYTES,
    CLLM_STEP_DECODE_FALLBACK,
    CLLM_STEP_DECODE_STRIP,
    CLLM_STEP_DECODE_METASPACE,
    CLLM_STEP_DECODE_BUFFER, /* waits for the end: the next step needs the whole text at once */
    CLLM_STEP_DECODE_JOIN,   /* no decoder: tokens with spaces between */
};

enum cllm_split_behavior { CLLM_SPLIT_REMOVED, CLLM_SPLIT_ISOLATED, CLLM_SPLIT_PREVIOUS, CLLM_SPLIT_NEXT, CLLM_SPLIT_CONTIGUOUS };
enum cllm_prepend_scheme { CLLM_PREPEND_ALWAYS, CLLM_PREPEND_FIRST, CLLM_PREPEND_NEVER };

struct cllm_step {
    enum cllm_step_kind kind;
    enum cllm_normal_form form;        /* NORMALIZE */
    enum cllm_split_behavior behavior; /* SPLIT_PATTERN, SPLIT_CLASS */
    enum cllm_prepend_scheme scheme;   /* METASPACE, DECODE_METASPACE */
    bool invert;                       /* SPLIT_PATTERN: what matches is kept, what lies between is the delimiter */
    bool whole;                        /* DECODE_STRIP: the text is one token that arrives in pieces */
    size_t left, right;                /* STRIP: strip that side; DECODE_STRIP: at most so many characters */
    cllm_char_class *in_class;         /* SPLIT_CLASS */
    struct cllm_pattern *pattern;      /* REPLACE, SPLIT_PATTERN; owned */
    struct cllm_strbuf content;        /* PREPEND, REPLACE: new text; METASPACE, DECODE_STRIP: one character */
};

struct cllm_steps {
    struct cllm_step *items;
    size_t count;
    size_t capacity;
};
enum cllm_status cllm_steps_append(struct cllm_steps *steps, enum cllm_step_kind kind, struct cllm_step **step_out,
                                   struct cllm_error *err) CLLM_MUST_USE;
void cllm_steps_fini(struct cllm_steps *steps);

struct cllm_piece {
    size_t offset;
    size_t byte_count;
    size_t head_bytes; /* leading bytes that stem from the start of the input text; 0 in any later piece */
    uint32_t id;       /* of the added token that this is, or CLLM_NO_TOKEN */
};

struct cllm_pieces {
    struct cllm_strbuf text;
    struct cllm_piece *items;
    size_t count;
    size_t capacity;
};
/* Appends bytes [start, end) of piece `of`; nothing where they are none. */
enum cllm_status cllm_pieces_append_slice(struct cllm_pieces *pieces, const struct cllm_piece *of, size_t start, size_t end,
                                          uint32_t id, struct cllm_error *err) CLLM_MUST_USE;
static inline struct cllm_span cllm_piece_span(const struct cllm_pieces *pieces, const struct cllm_piece *piece)
{
    return (struct cllm_span){pieces->text.bytes + piece->offset, piece->byte_count};
}
void cllm_pieces_fini(struct cllm_pieces *pieces);

/* Runs the steps over all pieces that are not added tokens. */
enum cllm_status cllm_steps_apply(const struct cllm_steps *steps, struct cllm_pieces *pieces,
                                  struct cllm_error *err) CLLM_MUST_USE;

/* Appends the text of a rewriting step to `out`. `scan` is ready for the step's pattern, where it has one. */
enum cllm_status cllm_step_rewrite(const struct cllm_step *step, struct cllm_scan *scan, struct cllm_span text, bool is_head,
                                   struct cllm_strbuf *out, struct cllm_error *err) CLLM_MUST_USE;

/* Rewrites one text by all steps, which must be rewriting ones. */
enum cllm_status cllm_steps_rewrite(const struct cllm_steps *steps, struct cllm_span text, struct cllm_strbuf *out,
                                    struct cllm_error *err) CLLM_MUST_USE;

/* The printable character that stands for a byte in byte-level vocabularies, and back (-1 where it stands for none). */
uint32_t cllm_byte_to_char(uint8_t byte);
int cllm_char_to_byte(uint32_t codepoint);

/* -------------------------------------------------------------------------------------------------------------- bpe */

struct cllm_vocab_entry {
    size_t offset; /* into text */
    uint32_t byte_count;
    uint32_t id;
};

/* Token text to id. */
struct cllm_vocab {
    struct cllm_strbuf text;
    struct cllm_vocab_entry *entries;
    size_t count;
    size_t capacity;
    uint32_t *slots; /* open addressing: entry index + 1, or 0 */
    size_t slot_count;
};
/* Adds a token that is not there yet. Fails with NOMEM and LIMIT. */
enum cllm_status cllm_vocab_add(struct cllm_vocab *vocab, struct cllm_span token, uint32_t id,
                                struct cllm_error *err) CLLM_MUST_USE;
uint32_t cllm_vocab_find(const struct cllm_vocab *vocab, struct cllm_span token);
void cllm_vocab_fini(struct cllm_vocab *vocab);

struct cllm_merge {
    uint64_t pair; /* left id, right id */
    uint32_t rank;
    uint32_t id; /* of the merged token */
};

struct cllm_bpe {
    struct cllm_vocab vocab;
    struct cllm_merge *merges; /* open addressing */
    size_t merge_slots;        /* a power of two */
    struct cllm_strbuf prefix; /* continuing_subword_prefix */
    struct cllm_strbuf suffix; /* end_of_word_suffix */
    struct cllm_strbuf unk;    /* for messages */
    bool has_unk;
    bool fuse_unk;
    bool byte_fallback;
    bool ignore_merges;
    uint32_t unk_id;        /* CLLM_NO_TOKEN where the unk_token is not in the vocabulary */
    uint32_t byte_ids[256]; /* of <0x00> to <0xFF>, or CLLM_NO_TOKEN */
};
enum cllm_status cllm_bpe_reserve_merges(struct cllm_bpe *bpe, size_t count, struct cllm_error *err) CLLM_MUST_USE;
/* Adds merge number `rank`; a later one for the same pair replaces the earlier. Room must be reserved. */
enum cllm_status cllm_bpe_add_merge(struct cllm_bpe *bpe, uint32_t rank, struct cllm_span left, struct cllm_span right,
                                    struct cllm_error *err) CLLM_MUST_USE;
/* Looks up what encoding needs, once the vocabulary is complete. */
void cllm_bpe_prepare(struct cllm_bpe *bpe);
void cllm_bpe_fini(struct cllm_bpe *bpe);

/* Reusable memory of cllm_bpe_encode; zero it first. */
struct cllm_bpe_work {
    struct cllm_bpe_symbol *symbols;
    size_t symbol_count, symbol_capacity;
    struct cllm_bpe_candidate *heap;
    size_t heap_count, heap_capacity;
    struct cllm_strbuf scratch;
};
enum cllm_status cllm_bpe_encode(const struct cllm_bpe *bpe, struct cllm_span word, struct cllm_bpe_work *work,
                                 struct cllm_ids *ids, struct cllm_error *err) CLLM_MUST_USE;
void cllm_bpe_work_fini(struct cllm_bpe_work *work);

/* ----------------------------------------------------------------------------------------------------- added tokens */

struct cllm_added_token {
    struct cllm_strbuf content;
    struct cllm_strbuf normal; /* content as the normalizer leaves it, where `normalized`; else empty */
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};

/* Finds tokens of one kind (matched before, or after normalization) in text. */
struct cllm_added_set {
    const struct cllm_added_token **tokens; /* by text, as bytes */
    size_t count;
    size_t first[257]; /* tokens that start with byte b: first[b] up to first[b + 1] */
};

struct cllm_added {
    struct cllm_added_token *tokens;
    size_t count;
    size_t capacity;
    size_t fresh_count;        /* of ids given to tokens that the model does not have */
    struct cllm_vocab ids;     /* content to index into tokens */
    struct cllm_vocab special; /* contents of special tokens, for membership */
    struct cllm_added_set raw;
    struct cllm_added_set normal;
};
/* Adds a token, taking ownership of its buffers in every case, and gives it its id as the reference does. */
enum cllm_status cllm_added_add(struct cllm_added *added, const struct cllm_vocab *vocab, const struct cllm_steps *normalizer,
                                struct cllm_added_token *token, struct cllm_error *err) CLLM_MUST_USE;
/* Builds the two sets, once all tokens are there. */
enum cllm_status cllm_added_prepare(struct cllm_added *added, struct cllm_error *err) CLLM_MUST_USE;
/* Cuts the pieces at the tokens of the set, and drops empty pieces. */
enum cllm_status cllm_added_split(const struct cllm_added_set *set, struct cllm_pieces *pieces,
                                  struct cllm_error *err) CLLM_MUST_USE;
void cllm_added_fini(struct cllm_added *added);

/* -------------------------------------------------------------------------------------------------------- tokenizer */

struct cllm_token_text {
    struct cllm_span text; /* bytes null where the id is unused */
    bool is_special;
};

struct cllm_tokenizer {
    struct cllm_steps normalizer;
    struct cllm_steps pre_tokenizer;
    struct cllm_bpe bpe;
    struct cllm_steps decoder;
    struct cllm_added added;
    struct cllm_ids template_ids; /* of the post-processor: ids, CLLM_NO_TOKEN where the sequence goes */
    bool has_template;
    struct cllm_token_text *by_id; /* vocab_size of them; what decoding starts from */
    uint32_t vocab_size;
};

/* Fills the tokenizer, which is zeroed, from the parsed file. */
enum cllm_status cllm_tokenizer_parse(const void *json, size_t json_bytes, struct cllm_tokenizer *tokenizer,
                                      struct cllm_error *err) CLLM_MUST_USE;

#endif

/* tokenizer.h - text to token ids and back, as a Hugging Face tokenizer.json describes it.
 *
 * The file is interpreted, never converted: normalizer, pre-tokenizer, BPE model, post-processor and decoder run in that
 * order, added tokens are matched first, and every result equals that of the `tokenizers` library 0.23. Padding and
 * truncation sections are ignored: nothing is ever padded or cut.
 *
 * Known components, everything else is refused with CLLM_E_UNSUPPORTED by name:
 *   normalizers     NFC NFD NFKC NFKD Prepend Replace Strip Lowercase Sequence
 *   pre-tokenizers  ByteLevel Split Digits Metaspace Punctuation Whitespace WhitespaceSplit Sequence
 *   model           BPE
 *   post-processors TemplateProcessing (one) ByteLevel Sequence
 *   decoders        ByteLevel Replace ByteFallback Fuse Strip Metaspace Sequence
 *
 * Untrusted input: any bytes may be given as tokenizer.json, as text and as ids; each ends in a result or in an error.
 * Thread rule: a tokenizer is immutable once created and may be used by any number of threads at once; a detokenizer
 * belongs to one thread at a time.
 */
#ifndef CLLM_TOKENIZER_H
#define CLLM_TOKENIZER_H

#include "cllm.h"

/* An id that no token has. */
#define CLLM_NO_TOKEN UINT32_MAX

struct cllm_tokenizer;

/* Reads the `json_bytes` bytes of a tokenizer.json; they are not needed afterwards. On success `*tokenizer_out` is owned by
 * the caller (cllm_tokenizer_destroy); on failure it is null.
 * Fails with FORMAT (not a JSON object), CORRUPT (a field is missing, of the wrong type, or contradicts another),
 * UNSUPPORTED (a component or regex construct that this build does not know), LIMIT (more than 256 MiB of JSON, an id above
 * CLLM_TOKEN_ID_MAX), NOMEM. */
enum cllm_status cllm_tokenizer_create(const void *json, size_t json_bytes, struct cllm_tokenizer **tokenizer_out,
                                       struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null. */
void cllm_tokenizer_destroy(struct cllm_tokenizer *tokenizer);

/* The highest id that a vocabulary entry may have. */
#define CLLM_TOKEN_ID_MAX ((1u << 22) - 1)

/* One more than the highest id in use, added tokens included. Ids below it may still be unused. A model's embedding may have
 * more rows (padding) or fewer (a mismatched file): compare before indexing. */
uint32_t cllm_tokenizer_vocab_size(const struct cllm_tokenizer *tokenizer);

/* Id of the token whose text is exactly the given bytes, added tokens first; CLLM_NO_TOKEN where there is none. */
uint32_t cllm_tokenizer_find(const struct cllm_tokenizer *tokenizer, const char *token, size_t token_bytes);

/* Text of a token as the vocabulary spells it (not decoded), or null where the id is unused. Not zero-terminated; lives as
 * long as the tokenizer. */
const char *cllm_tokenizer_token(const struct cllm_tokenizer *tokenizer, uint32_t id, size_t *bytes_out);

/* Whether decoding with `skip_special` leaves this token out. */
bool cllm_tokenizer_is_special(const struct cllm_tokenizer *tokenizer, uint32_t id);

/* Encodes `text_bytes` bytes of UTF-8. Each maximal ill-formed sequence of bytes counts as one U+FFFD (Unicode 15, 3.9,
 * "substitution of maximal subparts"); zero bytes are ordinary characters. `add_special` adds what the post-processor adds
 * (a leading <s>, say); special tokens spelled out in the text are recognised either way.
 * On success `*ids_out` holds `*count_out` ids and is freed by the caller with free(); null where the count is 0.
 * Time grows as n log n with the length of the text. Fails with NOMEM, LIMIT (text or an intermediate form above 1 GiB, a
 * regex that exceeds its match limit), CORRUPT (an unknown character and the unk_token is not in the vocabulary). */
enum cllm_status cllm_tokenizer_encode(const struct cllm_tokenizer *tokenizer, const char *text, size_t text_bytes,
                                       bool add_special, uint32_t **ids_out, size_t *count_out,
                                       struct cllm_error *err) CLLM_MUST_USE;

/* Decodes `count` ids; ids that name no token are left out, as special tokens are where `skip_special`. On success
 * `*text_out` holds `*bytes_out` bytes of valid UTF-8 and a zero byte, freed by the caller with free().
 * Fails with NOMEM and LIMIT (above 1 GiB). */
enum cllm_status cllm_tokenizer_decode(const struct cllm_tokenizer *tokenizer, const uint32_t *ids, size_t count,
                                       bool skip_special, char **text_out, size_t *bytes_out,
                                       struct cllm_error *err) CLLM_MUST_USE;

/* ------------------------------------------------------------------------------------------------- streaming decode */

/* Decodes one id at a time. The texts returned by all pushes and by finish, joined, are what cllm_tokenizer_decode returns
 * for the same ids (both run this code); none ends within a character. Text that a later id may still change is held back:
 * an unfinished character, and with byte fallback a whole run of byte tokens, because the decoder judges it as one. */
struct cllm_detokenizer;

/* `tokenizer` must outlive the result, which the caller owns (cllm_detokenizer_destroy). Fails with NOMEM. */
enum cllm_status cllm_detokenizer_create(const struct cllm_tokenizer *tokenizer, bool skip_special,
                                         struct cllm_detokenizer **detokenizer_out, struct cllm_error *err) CLLM_MUST_USE;

/* Adds one id. `*text_out` is the newly complete text, `*bytes_out` bytes of UTF-8 (often none), zero-terminated, owned by
 * the detokenizer and valid until its next call. Fails with NOMEM and LIMIT. */
enum cllm_status cllm_detokenizer_push(struct cllm_detokenizer *detokenizer, uint32_t id, const char **text_out,
                                       size_t *bytes_out, struct cllm_error *err) CLLM_MUST_USE;

/* Ends the sequence and returns the text still held back, as push does; an unfinished character becomes U+FFFD. The
 * detokenizer is then ready for a new sequence. Fails with NOMEM and LIMIT. */
enum cllm_status cllm_detokenizer_finish(struct cllm_detokenizer *detokenizer, const char **text_out, size_t *bytes_out,
                                         struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null. */
void cllm_detokenizer_destroy(struct cllm_detokenizer *detokenizer);

#endif

/* tokenizer_jsonl.h - tokenizing in bulk: one JSON value per line in, one per line out. */
#ifndef CLLM_TOKENIZER_JSONL_H
#define CLLM_TOKENIZER_JSONL_H

#include "tokenizer.h"

#include <stdio.h>

/* For each line of `in`, a JSON string, writes its ids to `out` as a JSON array, on a line of its own. Lines may be up to
 * 1 GiB. Any line that is not a JSON string ends the run: FORMAT, with the line's number. Fails also with IO, NOMEM and what
 * cllm_tokenizer_encode fails with. Safe for any bytes. */
enum cllm_status cllm_tokenize_jsonl(const struct cllm_tokenizer *tokenizer, FILE *in, FILE *out, bool add_special,
                                     struct cllm_error *err) CLLM_MUST_USE;

/* The reverse: JSON arrays of ids in, JSON strings out (control characters escaped, else UTF-8). An id above 4294967295 or
 * below 0 is FORMAT; one that names no token decodes to nothing. Fails as above. */
enum cllm_status cllm_detokenize_jsonl(const struct cllm_tokenizer *tokenizer, FILE *in, FILE *out, bool skip_special,
                                       struct cllm_error *err) CLLM_MUST_USE;

#endif

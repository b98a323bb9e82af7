/* source_json.h - JSON from files that nobody has vouched for: bounded before the parser sees it. */
#ifndef CLLM_SOURCE_JSON_H
#define CLLM_SOURCE_JSON_H

#include "cllm.h"

#include <jansson.h>

#define CLLM_JSON_BYTES_MAX 100000000u /* the cap that safetensors gives its headers */
#define CLLM_JSON_DEPTH_MAX 8u
#define CLLM_JSON_OBJECT_COUNT_MAX (UINT32_C(1) << 18)  /* one object per tensor, about 1 KiB each once parsed */
#define CLLM_JSON_ELEMENT_COUNT_MAX (UINT32_C(2) << 20) /* opening brackets and commas: an upper bound of the values */

/* Parses one JSON object. A linear scan refuses, before anything is allocated, what exceeds the limits above; the parser
 * then refuses what is not UTF-8 or not JSON, trailing bytes, duplicate names and integers above 2^63-1. `what` names the
 * text in messages ("header"); offsets in errors are `base_offset` plus the position in the text. The caller releases
 * `*json_out` with json_decref; it is null on failure. Fails with CORRUPT, LIMIT, UNSUPPORTED (\u0000 in a string), NOMEM.
 * Any thread. Memory: at most about four times CLLM_JSON_BYTES_MAX. */
enum cllm_status cllm_source_json_parse(const char *what, uint64_t base_offset, const uint8_t *bytes, size_t byte_count,
                                        json_t **json_out, struct cllm_error *err) CLLM_MUST_USE;

/* What kind of value this is, for messages: "an array", "null". */
const char *cllm_source_json_kind(const json_t *value);

#endif

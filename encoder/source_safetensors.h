/* source_safetensors.h - the header of a .safetensors file, into spans and tensors. No input or output here: bytes in,
 * picture out, so that it can be fuzzed and tested without files.
 */
#ifndef CLLM_SOURCE_SAFETENSORS_H
#define CLLM_SOURCE_SAFETENSORS_H

#include "cllm_source.h"

#define CLLM_SAFETENSORS_LENGTH_BYTES 8u /* little-endian length of the JSON header that follows */
#define CLLM_SAFETENSORS_RANK_MAX 64u
#define CLLM_SAFETENSORS_NAME_BYTES_MAX 65535u

/* What a header says. Owns everything it points to; empty when zeroed. */
struct cllm_safetensors {
    struct cllm_source_tensor *tensors; /* in the order of their data, file_index 0 */
    struct cllm_source_span *spans;     /* the header as a literal, then one per tensor; tensor_index counts within `tensors` */
    uint64_t *extents;
    char *names;
    uint32_t tensor_count;
    uint32_t span_count; /* tensor_count + 1 */
};

/* True where the first bytes of a file look like a safetensors file: at least a plausible header length and a brace. */
bool cllm_safetensors_sniff(const uint8_t *prefix, size_t prefix_bytes, uint64_t file_bytes);

/* The length of the JSON header, from the first `prefix_bytes` (8 or more where the file has them) of a file: checked against
 * the file's size and the cap of 100,000,000. Fails with CORRUPT. Nothing need be allocated before. */
enum cllm_status cllm_safetensors_header_bytes(const uint8_t *prefix, size_t prefix_bytes, uint64_t file_bytes,
                                               uint32_t *header_bytes_out, struct cllm_error *err) CLLM_MUST_USE;

/* Parses the JSON that follows the length field of a file of `file_bytes`; `header_bytes` is what
 * cllm_safetensors_header_bytes found. Checks every rule of the format: unique names, known dtypes, sizes that agree with shape
 * and dtype, data covered without hole or overlap up to the last byte. Offsets in errors count from the start of the file. Fails
 * with CORRUPT, UNSUPPORTED (a dtype that safetensors does not define, a NUL in a name), LIMIT, NOMEM; `*weights_out` is then
 * empty. Safe for any bytes; any thread. */
enum cllm_status cllm_safetensors_parse(const uint8_t *header, uint32_t header_bytes, uint64_t file_bytes,
                                        struct cllm_safetensors *weights_out, struct cllm_error *err) CLLM_MUST_USE;

/* Leaves it empty. */
void cllm_safetensors_free(struct cllm_safetensors *weights);

#endif

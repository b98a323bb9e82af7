/* index.h - manifest and layout of a container, between bytes and struct cllm_index. FORMAT.md 6. */
#ifndef CLLM_INDEX_H
#define CLLM_INDEX_H

#include "cllm.h"

/* Owns everything that an index points to. */
struct cllm_index_storage {
    struct cllm_data *data;
    struct cllm_tensor *tensors;
    struct cllm_file *files;
    struct cllm_chunk *chunks;
    struct cllm_table *tables;
    uint8_t *values;
    uint64_t *extents;
    uint32_t *parts;
    char *strings;
};

/* Parses and validates the decoded index bytes: first `manifest_bytes` of manifest, then the layout. `payload_end_expected`
 * is where the payload must end: the index's offset in the container. Fills data, tensors, files, counts and payload_end of
 * `index_out`. Fails with NOMEM, CORRUPT, LIMIT; `storage` is then empty. Safe for any bytes: no allocation is larger
 * than a small multiple of index_bytes. Offsets in errors count from the start of the decoded index. */
enum cllm_status cllm_index_parse(const uint8_t *index_bytes, size_t index_byte_count, size_t manifest_bytes,
                                  uint64_t payload_end_expected, struct cllm_index *index_out,
                                  struct cllm_index_storage *storage_out, struct cllm_error *err) CLLM_MUST_USE;

void cllm_index_storage_free(struct cllm_index_storage *storage);

/* The bytes of a valid index, freshly allocated; the caller frees. Fails with NOMEM or LIMIT. */
enum cllm_status cllm_index_serialise(const struct cllm_index *index, uint8_t **bytes_out, size_t *byte_count_out,
                                      size_t *manifest_bytes_out, struct cllm_error *err) CLLM_MUST_USE;

/* Where a data object starts that follows one that ends at `previous_end`. FORMAT.md 5. */
uint64_t cllm_data_start(uint64_t previous_end, uint64_t decoded_bytes);

/* True for a path that restores inside its directory: relative, '/' between non-empty components that are not "." or "..", no
 * backslash, no control character, valid length. */
bool cllm_file_name_is_safe(const char *name, size_t name_bytes);

#endif

/* header.h - header and footer of a container, between bytes and fields. FORMAT.md 4 and 7. */
#ifndef CLLM_HEADER_H
#define CLLM_HEADER_H

#include "cllm.h"
#include "layout.h"

/* The header of every container that this build writes. Returns its checksum, which the footer repeats. */
uint64_t cllm_header_serialise(uint8_t out[CLLM_HEADER_BYTES]);

/* Fails with FORMAT (no magic), DIGEST (its checksum differs), UNSUPPORTED (version or feature bits of a newer cllm), CORRUPT. */
enum cllm_status cllm_header_parse(const uint8_t bytes[CLLM_HEADER_BYTES], uint64_t *checksum_out,
                                   struct cllm_error *err) CLLM_MUST_USE;

struct cllm_footer {
    uint64_t index_offset;       /* bytes from the start of the container */
    uint64_t index_stored_bytes; /* less than index_bytes: one zstd frame; equal: as it is */
    uint64_t index_bytes;        /* manifest and layout, decoded */
    uint64_t manifest_bytes;
    uint64_t index_checksum; /* XXH3-64 of the stored index bytes */
    uint64_t container_bytes;
    uint64_t header_checksum;
    uint8_t root[CLLM_DIGEST_BYTES];
};

void cllm_footer_serialise(const struct cllm_footer *footer, uint8_t out[CLLM_FOOTER_BYTES]);

/* Checks the footer against the container's real length and the header's checksum; afterwards every offset and size in it
 * lies within the file and within the limits. Fails with CORRUPT, DIGEST, LIMIT. */
enum cllm_status cllm_footer_parse(const uint8_t bytes[CLLM_FOOTER_BYTES], uint64_t container_bytes, uint64_t header_checksum,
                                   struct cllm_footer *footer_out, struct cllm_error *err) CLLM_MUST_USE;

#endif

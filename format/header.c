/* header.c - header and footer. FORMAT.md 4 and 7. */
#include "header.h"

#include "bytes.h"
#include "digest.h"

uint64_t cllm_header_serialise(uint8_t out[CLLM_HEADER_BYTES])
{
    memset(out, 0, CLLM_HEADER_BYTES);
    memcpy(out, CLLM_HEADER_MAGIC, CLLM_MAGIC_BYTES);
    cllm_store_le32(out + CLLM_HEADER_VERSION_OFFSET, CLLM_FORMAT_VERSION);
    uint64_t checksum = cllm_checksum(out, CLLM_HEADER_CHECKSUM_OFFSET);
    cllm_store_le64(out + CLLM_HEADER_CHECKSUM_OFFSET, checksum);
    return checksum;
}

/* The checksum comes before the version and the feature bits, or a damaged header could pass for a newer one. */
enum cllm_status cllm_header_parse(const uint8_t bytes[CLLM_HEADER_BYTES], uint64_t *checksum_out, struct cllm_error *err)
{
    if (memcmp(bytes, CLLM_HEADER_MAGIC, CLLM_MAGIC_BYTES) != 0) {
        return cllm_fail(
            err, CLLM_E_FORMAT, 0,
            "not a .cllm container: starts with %02x %02x %02x %02x %02x %02x %02x %02x, expected 89 43 4c 4d 0d 0a 1a 0a",
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]);
    }
    uint64_t stored = cllm_load_le64(bytes + CLLM_HEADER_CHECKSUM_OFFSET);
    uint64_t computed = cllm_checksum(bytes, CLLM_HEADER_CHECKSUM_OFFSET);
    if (stored != computed) {
        return cllm_fail(err, CLLM_E_DIGEST, CLLM_HEADER_CHECKSUM_OFFSET,
                         "header is damaged: its checksum is %016llx, its bytes give %016llx", (unsigned long long)stored,
                         (unsigned long long)computed);
    }
    uint32_t version = cllm_load_le32(bytes + CLLM_HEADER_VERSION_OFFSET);
    if (version != CLLM_FORMAT_VERSION) {
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_HEADER_VERSION_OFFSET,
                         "container has format version %u, this build reads version %u", version, CLLM_FORMAT_VERSION);
    }
    uint64_t unknown = cllm_load_le64(bytes + CLLM_HEADER_INCOMPATIBLE_OFFSET) & ~CLLM_KNOWN_INCOMPATIBLE;
    if (unknown != 0) {
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_HEADER_INCOMPATIBLE_OFFSET,
                         "container needs features (bits %016llx) that this build does not have", (unsigned long long)unknown);
    }
    *checksum_out = stored;
    return CLLM_OK;
}

void cllm_footer_serialise(const struct cllm_footer *footer, uint8_t out[CLLM_FOOTER_BYTES])
{
    cllm_store_le64(out + CLLM_FOOTER_INDEX_OFFSET, footer->index_offset);
    cllm_store_le64(out + CLLM_FOOTER_INDEX_STORED_BYTES, footer->index_stored_bytes);
    cllm_store_le64(out + CLLM_FOOTER_INDEX_BYTES, footer->index_bytes);
    cllm_store_le64(out + CLLM_FOOTER_MANIFEST_BYTES, footer->manifest_bytes);
    cllm_store_le64(out + CLLM_FOOTER_INDEX_CHECKSUM, footer->index_checksum);
    cllm_store_le64(out + CLLM_FOOTER_CONTAINER_BYTES, footer->container_bytes);
    memcpy(out + CLLM_FOOTER_ROOT, footer->root, CLLM_DIGEST_BYTES);
    cllm_store_le64(out + CLLM_FOOTER_HEADER_CHECKSUM, footer->header_checksum);
    cllm_store_le64(out + CLLM_FOOTER_CHECKSUM, cllm_checksum(out, CLLM_FOOTER_CHECKSUM));
    memcpy(out + CLLM_FOOTER_MAGIC_OFFSET, CLLM_FOOTER_MAGIC, CLLM_MAGIC_BYTES);
}

static enum cllm_status check_footer_sizes(const struct cllm_footer *footer, uint64_t footer_offset, struct cllm_error *err)
{
    uint64_t index_end;
    if (footer->index_offset < CLLM_HEADER_BYTES || !cllm_add(footer->index_offset, footer->index_stored_bytes, &index_end) ||
        index_end != footer_offset) {
        return cllm_fail(err, CLLM_E_CORRUPT, footer_offset,
                         "index of %llu bytes at byte %llu does not end at the footer, byte %llu",
                         (unsigned long long)footer->index_stored_bytes, (unsigned long long)footer->index_offset,
                         (unsigned long long)footer_offset);
    }
    if (footer->index_stored_bytes > footer->index_bytes || footer->manifest_bytes > footer->index_bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, footer_offset,
                         "index decodes to %llu bytes, stored are %llu, its manifest has %llu",
                         (unsigned long long)footer->index_bytes, (unsigned long long)footer->index_stored_bytes,
                         (unsigned long long)footer->manifest_bytes);
    }
    if (footer->index_bytes > CLLM_INDEX_BYTES_MAX || footer->index_bytes / CLLM_INDEX_RATIO_MAX > footer->index_stored_bytes) {
        return cllm_fail(err, CLLM_E_LIMIT, footer_offset,
                         "index decodes to %llu bytes from %llu; limits are %llu bytes and a ratio of %u",
                         (unsigned long long)footer->index_bytes, (unsigned long long)footer->index_stored_bytes,
                         (unsigned long long)CLLM_INDEX_BYTES_MAX, CLLM_INDEX_RATIO_MAX);
    }
    return CLLM_OK;
}

enum cllm_status cllm_footer_parse(const uint8_t bytes[CLLM_FOOTER_BYTES], uint64_t container_bytes, uint64_t header_checksum,
                                   struct cllm_footer *footer_out, struct cllm_error *err)
{
    uint64_t footer_offset = container_bytes - CLLM_FOOTER_BYTES;
    if (memcmp(bytes + CLLM_FOOTER_MAGIC_OFFSET, CLLM_FOOTER_MAGIC, CLLM_MAGIC_BYTES) != 0) {
        return cllm_fail(err, CLLM_E_CORRUPT, footer_offset + CLLM_FOOTER_MAGIC_OFFSET,
                         "container is truncated or has bytes after its end: no footer in its last %u of %llu bytes",
                         CLLM_FOOTER_BYTES, (unsigned long long)container_bytes);
    }
    uint64_t stored = cllm_load_le64(bytes + CLLM_FOOTER_CHECKSUM);
    uint64_t computed = cllm_checksum(bytes, CLLM_FOOTER_CHECKSUM);
    if (stored != computed) {
        return cllm_fail(err, CLLM_E_DIGEST, footer_offset + CLLM_FOOTER_CHECKSUM,
                         "footer is damaged: its checksum is %016llx, its bytes give %016llx", (unsigned long long)stored,
                         (unsigned long long)computed);
    }
    *footer_out = (struct cllm_footer){
        .index_offset = cllm_load_le64(bytes + CLLM_FOOTER_INDEX_OFFSET),
        .index_stored_bytes = cllm_load_le64(bytes + CLLM_FOOTER_INDEX_STORED_BYTES),
        .index_bytes = cllm_load_le64(bytes + CLLM_FOOTER_INDEX_BYTES),
        .manifest_bytes = cllm_load_le64(bytes + CLLM_FOOTER_MANIFEST_BYTES),
        .index_checksum = cllm_load_le64(bytes + CLLM_FOOTER_INDEX_CHECKSUM),
        .container_bytes = cllm_load_le64(bytes + CLLM_FOOTER_CONTAINER_BYTES),
        .header_checksum = cllm_load_le64(bytes + CLLM_FOOTER_HEADER_CHECKSUM),
    };
    memcpy(footer_out->root, bytes + CLLM_FOOTER_ROOT, CLLM_DIGEST_BYTES);
    if (footer_out->container_bytes != container_bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, footer_offset, "container has %llu bytes, its footer says %llu",
                         (unsigned long long)container_bytes, (unsigned long long)footer_out->container_bytes);
    }
    if (footer_out->header_checksum != header_checksum) {
        return cllm_fail(err, CLLM_E_CORRUPT, footer_offset,
                         "header and footer are not of one container: checksums %016llx, %016llx",
                         (unsigned long long)header_checksum, (unsigned long long)footer_out->header_checksum);
    }
    return check_footer_sizes(footer_out, footer_offset, err);
}

#include "container_surgery.h"

#include "bytes.h"
#include "compress.h"
#include "container_builder.h"
#include "digest.h"
#include "header.h"
#include "index.h"

#include <stdlib.h>

static void store(uint8_t *at, unsigned width, uint64_t value)
{
    for (unsigned k = 0; k < width; k++) at[k] = (uint8_t)(value >> 8 * k);
}

static size_t padded(size_t byte_count)
{
    return (byte_count + 15) & ~(size_t)15;
}

/* Splices bytes of an allocation of `*byte_count` bytes. */
static void splice(uint8_t **bytes, size_t *byte_count, size_t offset, size_t removed, const void *added, size_t added_bytes)
{
    TEST_REQUIRE(offset + removed <= *byte_count, NULL);
    uint8_t *result = malloc(*byte_count - removed + added_bytes + 1);
    TEST_REQUIRE(result != NULL, NULL);
    memcpy(result, *bytes, offset);
    if (added_bytes) memcpy(result + offset, added, added_bytes);
    memcpy(result + offset + added_bytes, *bytes + offset + removed, *byte_count - offset - removed);
    free(*bytes);
    *bytes = result;
    *byte_count += added_bytes - removed;
}

struct test_surgery test_surgery_open(const uint8_t *bytes, size_t byte_count)
{
    struct cllm_error err;
    struct cllm_footer footer;
    uint64_t header_checksum;
    TEST_REQUIRE(cllm_header_parse(bytes, &header_checksum, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_footer_parse(bytes + byte_count - CLLM_FOOTER_BYTES, byte_count, header_checksum, &footer, &err) == CLLM_OK,
                 &err);
    struct test_surgery surgery = {.payload = malloc(footer.index_offset),
                                   .payload_bytes = footer.index_offset,
                                   .index = malloc(footer.index_bytes),
                                   .index_bytes = footer.index_bytes,
                                   .manifest_bytes = footer.manifest_bytes,
                                   .frame = footer.index_stored_bytes < footer.index_bytes};
    TEST_REQUIRE(surgery.payload && surgery.index, NULL);
    memcpy(surgery.payload, bytes, footer.index_offset);
    if (surgery.frame) {
        struct cllm_compressor *compressor;
        TEST_REQUIRE(cllm_compressor_create(&compressor, &err) == CLLM_OK, &err);
        TEST_REQUIRE(cllm_decompress(compressor, bytes + footer.index_offset, footer.index_stored_bytes, surgery.index,
                                     footer.index_bytes, &err) == CLLM_OK,
                     &err);
        cllm_compressor_destroy(compressor);
    } else {
        memcpy(surgery.index, bytes + footer.index_offset, footer.index_bytes);
    }
    return surgery;
}

static size_t compress_index(const struct test_surgery *surgery, uint8_t *out)
{
    struct cllm_compressor *compressor;
    TEST_REQUIRE(cllm_compressor_create(&compressor, NULL) == CLLM_OK, NULL);
    size_t byte_count = cllm_compress(compressor, surgery->index, surgery->index_bytes, 19, out, surgery->index_bytes - 1);
    TEST_REQUIRE(byte_count > 0, NULL);
    cllm_compressor_destroy(compressor);
    return byte_count;
}

uint8_t *test_surgery_close(struct test_surgery *surgery, size_t *byte_count_out)
{
    struct cllm_error err;
    uint8_t *bytes = malloc(surgery->payload_bytes + surgery->index_bytes + CLLM_FOOTER_BYTES);
    TEST_REQUIRE(bytes != NULL, NULL);
    memcpy(bytes, surgery->payload, surgery->payload_bytes);
    uint8_t *stored = bytes + surgery->payload_bytes;
    size_t stored_bytes = surgery->index_bytes;
    if (surgery->frame) stored_bytes = compress_index(surgery, stored);
    else memcpy(stored, surgery->index, stored_bytes);
    struct cllm_footer footer = {
        .index_offset = surgery->payload_bytes,
        .index_stored_bytes = stored_bytes,
        .index_bytes = surgery->index_bytes,
        .manifest_bytes = surgery->manifest_bytes,
        .index_checksum = cllm_checksum(stored, stored_bytes),
        .container_bytes = surgery->payload_bytes + stored_bytes + CLLM_FOOTER_BYTES,
        .header_checksum = cllm_load_le64(bytes + CLLM_HEADER_CHECKSUM_OFFSET),
    };
    TEST_REQUIRE(cllm_sha256(surgery->index, surgery->manifest_bytes, footer.root, &err) == CLLM_OK, &err);
    cllm_footer_serialise(&footer, stored + stored_bytes);
    *byte_count_out = (size_t)footer.container_bytes;
    free(surgery->payload);
    free(surgery->index);
    memset(surgery, 0, sizeof *surgery);
    return bytes;
}

/* ------------------------------------------------------------------------------------------------------------- finding */

static uint32_t count_at(const struct test_surgery *surgery, size_t offset)
{
    return cllm_load_le32(surgery->index + offset);
}

static size_t data_offset(uint32_t i)
{
    return CLLM_COUNTS_BYTES + CLLM_DATA_RECORD_BYTES * (size_t)i;
}

static uint64_t decoded_bytes(const struct test_surgery *surgery, uint32_t i)
{
    return cllm_load_le64(surgery->index + data_offset(i));
}

static uint32_t chunk_count(const struct test_surgery *surgery, uint32_t i)
{
    uint32_t chunk_bytes = count_at(surgery, data_offset(i) + 8);
    return (uint32_t)((decoded_bytes(surgery, i) + chunk_bytes - 1) / chunk_bytes);
}

static size_t tensor_bytes(const struct test_surgery *surgery, size_t at)
{
    const uint8_t *p = surgery->index + at;
    return CLLM_TENSOR_RECORD_BYTES + cllm_load_le16(p + 12) + p[14] + 8u * p[15];
}

static size_t file_bytes(const struct test_surgery *surgery, size_t at)
{
    const uint8_t *p = surgery->index + at;
    return CLLM_FILE_RECORD_BYTES + cllm_load_le16(p + 44) + 4u * (size_t)cllm_load_le32(p + 40);
}

static size_t find_in_manifest(const struct test_surgery *surgery, enum test_record kind, uint32_t i)
{
    if (kind == TEST_COUNTS) return 0;
    if (kind == TEST_DATA) return data_offset(i);
    size_t at = data_offset(count_at(surgery, 0));
    uint32_t tensors = kind == TEST_TENSOR ? i : count_at(surgery, 4);
    for (uint32_t k = 0; k < tensors; k++) at += tensor_bytes(surgery, at);
    for (uint32_t k = 0; kind == TEST_FILE && k < i; k++) at += file_bytes(surgery, at);
    return at;
}

static size_t tables_end(const struct test_surgery *surgery, size_t layout_at)
{
    size_t at = layout_at + CLLM_LAYOUT_RECORD_BYTES;
    for (uint32_t k = 0; k < count_at(surgery, layout_at + 8); k++) {
        at += 2 + (surgery->index[at + 1] - surgery->index[at] + 2u) / 2;
    }
    return at;
}

static size_t palettes_end(const struct test_surgery *surgery, size_t layout_at)
{
    size_t at = tables_end(surgery, layout_at);
    const uint8_t *table = surgery->index + layout_at + CLLM_LAYOUT_RECORD_BYTES;
    uint32_t palette_count = cllm_load_le16(surgery->index + layout_at + 6), table_index = 0;
    for (uint32_t k = 0; k < palette_count; k++) {
        for (; table_index < cllm_load_le16(surgery->index + at); table_index++) table += 2 + (table[1] - table[0] + 2u) / 2;
        at += 2 + (table[1] + (size_t)1) * surgery->index[layout_at];
    }
    return at;
}

size_t test_surgery_find(const struct test_surgery *surgery, enum test_record kind, uint32_t i)
{
    if (kind < TEST_LAYOUT) return find_in_manifest(surgery, kind, i);
    size_t at = surgery->manifest_bytes;
    for (uint32_t d = 0; d < i; d++) {
        at = palettes_end(surgery, at) + CLLM_CHUNK_RECORD_BYTES * (size_t)chunk_count(surgery, d);
    }
    switch (kind) {
    case TEST_LAYOUT: return at;
    case TEST_TABLE: return at + CLLM_LAYOUT_RECORD_BYTES;
    case TEST_PALETTE: return tables_end(surgery, at);
    default: return palettes_end(surgery, at);
    }
}

size_t test_surgery_chunk(const struct test_surgery *surgery, uint32_t i, uint32_t *stored_bytes_out)
{
    size_t at = CLLM_HEADER_BYTES;
    for (uint32_t d = 0; d <= i; d++) {
        size_t record = test_surgery_find(surgery, TEST_CHUNK, d);
        at = (size_t)cllm_data_start(at, decoded_bytes(surgery, d));
        *stored_bytes_out = chunk_count(surgery, d) ? count_at(surgery, record) : 0;
        for (uint32_t k = 0; d < i && k < chunk_count(surgery, d); k++) {
            at += padded(count_at(surgery, record + CLLM_CHUNK_RECORD_BYTES * (size_t)k));
        }
    }
    return at;
}

/* ------------------------------------------------------------------------------------------------------------ changing */

void test_surgery_poke(struct test_surgery *surgery, size_t offset, unsigned width, uint64_t value)
{
    TEST_REQUIRE(offset + width <= surgery->index_bytes, NULL);
    store(surgery->index + offset, width, value);
}

void test_surgery_splice(struct test_surgery *surgery, size_t offset, size_t removed, const void *bytes, size_t byte_count)
{
    bool in_manifest = offset < surgery->manifest_bytes;
    splice(&surgery->index, &surgery->index_bytes, offset, removed, bytes, byte_count);
    if (in_manifest) surgery->manifest_bytes += byte_count - removed;
}

void test_surgery_rechecksum(struct test_surgery *surgery, uint32_t i)
{
    uint32_t stored_bytes;
    size_t at = test_surgery_chunk(surgery, i, &stored_bytes);
    TEST_REQUIRE(at + padded(stored_bytes) <= surgery->payload_bytes, NULL);
    test_surgery_poke(surgery, test_surgery_find(surgery, TEST_CHUNK, i) + 8, 8,
                      cllm_checksum(surgery->payload + at, padded(stored_bytes)));
}

void test_surgery_replace_chunk(struct test_surgery *surgery, uint32_t i, const void *bytes, size_t byte_count)
{
    uint32_t stored_bytes;
    size_t at = test_surgery_chunk(surgery, i, &stored_bytes);
    uint8_t *added = calloc(padded(byte_count) + 1, 1);
    TEST_REQUIRE(added != NULL, NULL);
    memcpy(added, bytes, byte_count);
    splice(&surgery->payload, &surgery->payload_bytes, at, padded(stored_bytes), added, padded(byte_count));
    free(added);
    test_surgery_poke(surgery, test_surgery_find(surgery, TEST_CHUNK, i), 4, byte_count);
    test_surgery_rechecksum(surgery, i);
}

void test_footer_poke(uint8_t *bytes, size_t byte_count, size_t field, unsigned width, uint64_t value)
{
    uint8_t *footer = bytes + byte_count - CLLM_FOOTER_BYTES;
    store(footer + field, width, value);
    cllm_store_le64(footer + CLLM_FOOTER_CHECKSUM, cllm_checksum(footer, CLLM_FOOTER_CHECKSUM));
}

void test_header_poke(uint8_t *bytes, size_t field, unsigned width, uint64_t value)
{
    store(bytes + field, width, value);
    cllm_store_le64(bytes + CLLM_HEADER_CHECKSUM_OFFSET, cllm_checksum(bytes, CLLM_HEADER_CHECKSUM_OFFSET));
}

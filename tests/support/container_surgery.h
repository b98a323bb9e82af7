/* container_surgery.h - takes a good container apart, lets a test change what it likes, and closes it again with every
 * checksum, size and digest recomputed: so that the one fault left is the one meant. */
#ifndef CLLM_CONTAINER_SURGERY_H
#define CLLM_CONTAINER_SURGERY_H

#include "cllm.h"

struct test_surgery {
    uint8_t *payload; /* header and chunks: all before the index */
    size_t payload_bytes;
    uint8_t *index; /* decoded */
    size_t index_bytes;
    size_t manifest_bytes;
    bool frame; /* store the index as a zstd frame */
};

/* `bytes` must be a good container. */
struct test_surgery test_surgery_open(const uint8_t *bytes, size_t byte_count);

/* Frees what is left and returns the container, to be freed by the caller. */
uint8_t *test_surgery_close(struct test_surgery *surgery, size_t *byte_count_out);

enum test_record {
    TEST_COUNTS,
    TEST_DATA,
    TEST_TENSOR,
    TEST_FILE,
    TEST_LAYOUT,  /* of data object i */
    TEST_TABLE,   /* the first code table of data object i */
    TEST_PALETTE, /* its first palette, if it has any */
    TEST_CHUNK,   /* the first chunk record of data object i */
};

/* Where record i of its kind starts in the index. */
size_t test_surgery_find(const struct test_surgery *surgery, enum test_record kind, uint32_t i);

/* Overwrites `width` bytes of the index, little-endian. */
void test_surgery_poke(struct test_surgery *surgery, size_t offset, unsigned width, uint64_t value);

/* Replaces `removed` bytes of the index by `byte_count` others. What starts within the manifest counts as manifest. */
void test_surgery_splice(struct test_surgery *surgery, size_t offset, size_t removed, const void *bytes, size_t byte_count);

/* Where the first chunk of data object i lies in the payload, and its stored size. */
size_t test_surgery_chunk(const struct test_surgery *surgery, uint32_t i, uint32_t *stored_bytes_out);

/* Recomputes the checksum in the first chunk record of data object i. */
void test_surgery_rechecksum(struct test_surgery *surgery, uint32_t i);

/* Puts other stored bytes in place of the first chunk of data object i; what follows moves. Not for containers with
 * page-aligned objects. */
void test_surgery_replace_chunk(struct test_surgery *surgery, uint32_t i, const void *bytes, size_t byte_count);

/* In a finished container: overwrites `width` bytes of the footer (or header) and recomputes its checksum. */
void test_footer_poke(uint8_t *bytes, size_t byte_count, size_t field, unsigned width, uint64_t value);
void test_header_poke(uint8_t *bytes, size_t field, unsigned width, uint64_t value);

#endif

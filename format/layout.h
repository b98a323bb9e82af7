/* layout.h - on-disk constants and limits, each with its section of spec/FORMAT.md. */
#ifndef CLLM_LAYOUT_H
#define CLLM_LAYOUT_H

#include "cllm.h"

#include <assert.h>

/* 2: Conventions */
#define CLLM_CHUNK_ALIGNMENT 16u  /* so that a GPU can load a chunk in 16-byte pieces where it lies */
#define CLLM_PAGE_ALIGNMENT 4096u /* of data objects that are large enough for the padding not to matter: */
#define CLLM_PAGE_ALIGNED_MIN_BYTES (UINT64_C(4) << 20)

/* 4: Header */
#define CLLM_MAGIC_BYTES 8
#define CLLM_HEADER_MAGIC                                                                                                        \
    "\x89"                                                                                                                       \
    "CLM\r\n\x1a\n"
#define CLLM_FORMAT_VERSION 0u /* stays 0 until 1.0 freezes the format */
#define CLLM_HEADER_BYTES 64u
#define CLLM_HEADER_VERSION_OFFSET 8
#define CLLM_HEADER_COMPATIBLE_OFFSET 16
#define CLLM_HEADER_INCOMPATIBLE_OFFSET 24
#define CLLM_HEADER_CHECKSUM_OFFSET 56
#define CLLM_KNOWN_INCOMPATIBLE UINT64_C(0)

/* 7: Footer */
#define CLLM_FOOTER_MAGIC                                                                                                        \
    "\x89"                                                                                                                       \
    "END\r\n\x1a\n"
#define CLLM_FOOTER_BYTES 104u
#define CLLM_FOOTER_INDEX_OFFSET 0
#define CLLM_FOOTER_INDEX_STORED_BYTES 8
#define CLLM_FOOTER_INDEX_BYTES 16
#define CLLM_FOOTER_MANIFEST_BYTES 24
#define CLLM_FOOTER_INDEX_CHECKSUM 32
#define CLLM_FOOTER_CONTAINER_BYTES 40
#define CLLM_FOOTER_ROOT 48
#define CLLM_FOOTER_HEADER_CHECKSUM 80
#define CLLM_FOOTER_CHECKSUM 88
#define CLLM_FOOTER_MAGIC_OFFSET 96

/* 6: Index; sizes of the fixed parts of its records */
#define CLLM_COUNTS_BYTES 12u
#define CLLM_DATA_RECORD_BYTES 44u
#define CLLM_TENSOR_RECORD_BYTES 16u
#define CLLM_FILE_RECORD_BYTES 46u
#define CLLM_LAYOUT_RECORD_BYTES 12u
#define CLLM_CHUNK_RECORD_BYTES 16u

/* 8: Digests */
#define CLLM_DATA_DIGEST_TAG "cllm data root\0" /* 16 bytes with the terminating zero */
#define CLLM_DATA_DIGEST_TAG_BYTES 16u

/* 9: Float form */
#define CLLM_CODE_BITS_MAX 11u
#define CLLM_FLOAT_HEADER_BYTES 4u
#define CLLM_SEGMENT_LOG2_MIN 5u
#define CLLM_SEGMENT_LOG2_MAX 12u

/* 12: Sparse form */
#define CLLM_SPARSE_HEAD_BYTES 16u

/* 12: Scaled form */
#define CLLM_SCALED_HEAD_BYTES 16u

/* 11: Limits */
#define CLLM_CHUNK_LOG2_MIN 10u
#define CLLM_CHUNK_LOG2_MAX 24u
#define CLLM_CONTAINER_BYTES_MAX (UINT64_C(1) << 62)
#define CLLM_INDEX_BYTES_MAX (UINT64_C(1) << 30)
#define CLLM_INDEX_RATIO_MAX 64u /* decoded index bytes per stored one */
#define CLLM_DATA_COUNT_MAX (UINT32_C(1) << 22)
#define CLLM_TENSOR_COUNT_MAX (UINT32_C(1) << 21)
#define CLLM_FILE_COUNT_MAX (UINT32_C(1) << 20)
#define CLLM_TABLE_COUNT_MAX 65535u /* of one data object */
#define CLLM_TABLE_TOTAL_MAX (UINT32_C(1) << 20)
#define CLLM_RANK_MAX 64u
#define CLLM_DTYPE_BYTES_MAX 31u
#define CLLM_ELEMENT_BITS_MAX 65535u
#define CLLM_FILE_NAME_BYTES_MAX 4096u

static_assert(sizeof CLLM_HEADER_MAGIC - 1 == CLLM_MAGIC_BYTES, "header magic is 8 bytes");
static_assert(sizeof CLLM_FOOTER_MAGIC - 1 == CLLM_MAGIC_BYTES, "footer magic is 8 bytes");
static_assert(sizeof CLLM_DATA_DIGEST_TAG == CLLM_DATA_DIGEST_TAG_BYTES, "tag is 16 bytes");
static_assert(CLLM_FOOTER_ROOT + CLLM_DIGEST_BYTES == CLLM_FOOTER_HEADER_CHECKSUM, "footer fields touch");
static_assert(CLLM_FOOTER_MAGIC_OFFSET + CLLM_MAGIC_BYTES == CLLM_FOOTER_BYTES, "magic ends the footer");
static_assert(CLLM_HEADER_CHECKSUM_OFFSET + 8 == CLLM_HEADER_BYTES, "checksum ends the header");

#endif

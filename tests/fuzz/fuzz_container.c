/* fuzz_container.c - a whole container (FORMAT.md 4 to 10), opened and verified. So that more than checksums is tried, those of
 * header, footer and stored index and the root digest are made right first, where they are. */
#include "bytes.h"
#include "cllm_decode.h"
#include "digest.h"
#include "layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static void make_checksums_right(uint8_t *bytes, size_t byte_count)
{
    if (byte_count < CLLM_HEADER_BYTES + CLLM_FOOTER_BYTES) return;
    uint8_t *footer = bytes + byte_count - CLLM_FOOTER_BYTES;
    uint64_t offset = cllm_load_le64(footer + CLLM_FOOTER_INDEX_OFFSET);
    uint64_t stored_bytes = cllm_load_le64(footer + CLLM_FOOTER_INDEX_STORED_BYTES);
    uint64_t manifest_bytes = cllm_load_le64(footer + CLLM_FOOTER_MANIFEST_BYTES);
    cllm_store_le64(bytes + CLLM_HEADER_CHECKSUM_OFFSET, cllm_checksum(bytes, CLLM_HEADER_CHECKSUM_OFFSET));
    memcpy(footer + CLLM_FOOTER_HEADER_CHECKSUM, bytes + CLLM_HEADER_CHECKSUM_OFFSET, 8);
    if (offset <= byte_count && stored_bytes <= byte_count - offset) {
        cllm_store_le64(footer + CLLM_FOOTER_INDEX_CHECKSUM, cllm_checksum(bytes + offset, stored_bytes));
        bool as_it_is = cllm_load_le64(footer + CLLM_FOOTER_INDEX_BYTES) == stored_bytes && manifest_bytes <= stored_bytes;
        if (as_it_is && cllm_sha256(bytes + offset, manifest_bytes, footer + CLLM_FOOTER_ROOT, NULL)) abort();
    }
    cllm_store_le64(footer + CLLM_FOOTER_CHECKSUM, cllm_checksum(footer, CLLM_FOOTER_CHECKSUM));
}

static void verify(const char *path)
{
    struct cllm_reader *reader = NULL;
    struct cllm_verify_report report;
    struct cllm_error err;
    const struct cllm_verify_options options = {.thread_count = 1};
    uint64_t decoded_bytes = 0;
    if (cllm_reader_open(path, &reader, &err)) return;
    const struct cllm_index *index = cllm_reader_index(reader);
    for (uint32_t i = 0; i < index->data_count && decoded_bytes <= 1u << 20; i++) decoded_bytes += index->data[i].decoded_bytes;
    if (decoded_bytes <= 1u << 20) (void)!cllm_verify(reader, &options, &report, &err); /* more would only take time */
    cllm_reader_close(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    char path[64];
    uint8_t *copy = malloc(byte_count ? byte_count : 1);
    int file = memfd_create("container", 0);
    if (!copy || file < 0) abort();
    memcpy(copy, bytes, byte_count);
    make_checksums_right(copy, byte_count);
    if (write(file, copy, byte_count) != (ssize_t)byte_count) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    verify(path);
    close(file);
    free(copy);
    return 0;
}

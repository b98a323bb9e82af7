/* fuzz_index.c - the decoded index (FORMAT.md 6): any bytes are parsed or rejected, and what is parsed is written as it was.
 * Input: u32 manifest size, u64 end of the payload, the index. */
#include "bytes.h"
#include "index.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    struct cllm_index index = {0};
    struct cllm_index_storage storage = {0};
    struct cllm_error err;
    if (byte_count < 12) return 0;
    size_t index_bytes = byte_count - 12, manifest_bytes = cllm_load_le32(bytes);
    if (manifest_bytes > index_bytes) return 0; /* the footer's rule */
    enum cllm_status status =
        cllm_index_parse(bytes + 12, index_bytes, manifest_bytes, cllm_load_le64(bytes + 4), &index, &storage, &err);
    if (status) return 0;
    uint8_t *again = NULL;
    size_t again_bytes = 0, again_manifest_bytes = 0;
    if (cllm_index_serialise(&index, &again, &again_bytes, &again_manifest_bytes, &err)) abort();
    if (again_bytes != index_bytes || again_manifest_bytes != manifest_bytes) abort();
    if (memcmp(again, bytes + 12, index_bytes) != 0) abort();
    free(again);
    cllm_index_storage_free(&storage);
    return 0;
}

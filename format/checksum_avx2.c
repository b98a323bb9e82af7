/* checksum_avx2.c - XXH3 with wider vectors than the library's baseline. */
#include "digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t cllm_checksum_avx2(const void *bytes, size_t byte_count)
{
    return XXH3_64bits(bytes, byte_count);
}

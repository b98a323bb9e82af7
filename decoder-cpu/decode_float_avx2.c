/* decode_float_avx2.c - the kernel of the float form, compiled for this tier. */
#include "decode_float.h"

#include "decode_float_kernel.h"

#include <immintrin.h>

#define NIBBLES_MIRRORED _mm_setr_epi8(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)

/* Each byte by two look-ups of four bits. */
static void mirror_bytes(const uint8_t *bytes, size_t byte_count, uint8_t *out)
{
    const __m256i backwards = _mm256_broadcastsi128_si256(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m256i high = _mm256_broadcastsi128_si256(NIBBLES_MIRRORED), low = _mm256_slli_epi16(high, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    size_t i = 0;
    for (; i + 32 <= byte_count; i += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + byte_count - 32 - i));
        x = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(x, backwards), 0x4E);
        __m256i from_low = _mm256_shuffle_epi8(low, _mm256_and_si256(x, nibble));
        __m256i from_high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), _mm256_or_si256(from_low, from_high));
    }
    for (; i < byte_count; i++) out[i] = (uint8_t)cllm_bits_mirrored(bytes[byte_count - 1 - i], 8);
}

enum cllm_status cllm_float_decode_avx2(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                        const struct cllm_float_view *view, uint8_t *scratch, uint8_t *out,
                                        struct cllm_error *err)
{
    static const struct float_parts parts = {cllm_segment_bits_avx2, mirror_bytes};
    return decode_chunk(&parts, lookup, layout, view, scratch, out, err);
}

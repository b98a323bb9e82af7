/* decode_float_avx2.c - the kernel of the float form, compiled for this tier. */
#include "decode_float.h"

#include "decode_float_kernel.h"

#include <immintrin.h>

#define NIBBLES_MIRRORED _mm_setr_epi8(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)

static inline __m256i turn_bytes(__m256i x)
{
    const __m256i backwards = _mm256_broadcastsi128_si256(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(x, backwards), 0x4E);
}

/* Each byte by two look-ups of four bits. */
static void mirror_bytes(const uint8_t *bytes, size_t byte_count, uint8_t *out)
{
    const __m256i high = _mm256_broadcastsi128_si256(NIBBLES_MIRRORED), low = _mm256_slli_epi16(high, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    size_t i = 0;
    for (; i + 32 <= byte_count; i += 32) {
        __m256i x = turn_bytes(_mm256_loadu_si256((const __m256i *)(const void *)(bytes + byte_count - 32 - i)));
        __m256i from_low = _mm256_shuffle_epi8(low, _mm256_and_si256(x, nibble));
        __m256i from_high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), _mm256_or_si256(from_low, from_high));
    }
    for (; i < byte_count; i++) out[i] = (uint8_t)cllm_bits_mirrored(bytes[byte_count - 1 - i], 8);
}

/* The code lengths of symbols that differ modulo 32: bit 4 says in which of two shuffles. */
static inline __m256i look_up_lengths(const uint8_t folded[CLLM_FOLD], __m256i x)
{
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)folded);
    __m256i both = _mm256_or_si256(low, _mm256_loadu_si256((const __m256i *)(const void *)(folded + 32)));
    __m256i nibble = _mm256_and_si256(x, _mm256_set1_epi8(15));
    __m256i even = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(both, 0x44), nibble);
    __m256i odd = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(both, 0xEE), nibble);
    return _mm256_blendv_epi8(even, odd, _mm256_slli_epi16(x, 3));
}

static uint32_t turn_symbols(const struct cllm_float_lookup *lookup, const uint8_t *end, uint32_t symbol_count, uint8_t *out)
{
    __m256i sums = _mm256_setzero_si256();
    uint32_t i = 0, bits;
    for (; i + 32 <= symbol_count; i += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(end - 32 - i));
        sums = _mm256_add_epi64(sums, _mm256_sad_epu8(look_up_lengths(lookup->folded, x), _mm256_setzero_si256()));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), turn_bytes(x));
    }
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    bits = (uint32_t)_mm_cvtsi128_si32(half) + (uint32_t)_mm_extract_epi32(half, 2);
    for (; i < symbol_count; i++) {
        out[i] = end[-1 - (ptrdiff_t)i];
        bits += lookup->table.length[out[i]];
    }
    if (lookup->fold != 32) {
        uint16_t measured;
        cllm_segment_bits_avx2(&lookup->table, out, 0, symbol_count, 1, &measured);
        bits = measured;
    }
    return bits;
}

enum cllm_status cllm_float_decode_avx2(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                        const struct cllm_float_view *view, uint8_t *scratch, uint8_t *out,
                                        struct cllm_error *err)
{
    static const struct float_parts parts = {mirror_bytes, turn_symbols};
    return decode_chunk(&parts, lookup, layout, view, scratch, out, err);
}

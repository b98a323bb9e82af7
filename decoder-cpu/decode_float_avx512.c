/* decode_float_avx512.c - the kernel of the float form, compiled for this tier. */
#include "decode_float.h"

#include "decode_float_kernel.h"

#include <immintrin.h>

#define NIBBLES_MIRRORED _mm_setr_epi8(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)

/* Each byte by two look-ups of four bits. */
static void mirror_bytes(const uint8_t *bytes, size_t byte_count, uint8_t *out)
{
    uint8_t positions[64];
    for (unsigned k = 0; k < 64; k++) positions[k] = (uint8_t)(63 - k);
    const __m512i backwards = _mm512_loadu_si512(positions);
    const __m512i high = _mm512_broadcast_i32x4(NIBBLES_MIRRORED), low = _mm512_slli_epi16(high, 4);
    const __m512i nibble = _mm512_set1_epi8(15);
    size_t i = 0;
    for (; i + 64 <= byte_count; i += 64) {
        __m512i x = _mm512_permutexvar_epi8(backwards, _mm512_loadu_si512(bytes + byte_count - 64 - i));
        __m512i from_low = _mm512_shuffle_epi8(low, _mm512_and_si512(x, nibble));
        __m512i from_high = _mm512_shuffle_epi8(high, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble));
        _mm512_storeu_si512(out + i, _mm512_or_si512(from_low, from_high));
    }
    for (; i < byte_count; i++) out[i] = (uint8_t)cllm_bits_mirrored(bytes[byte_count - 1 - i], 8);
}

enum cllm_status cllm_float_decode_avx512(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                          const struct cllm_float_view *view, uint8_t *scratch, uint8_t *out,
                                          struct cllm_error *err)
{
    static const struct float_parts parts = {cllm_segment_bits_avx512, mirror_bytes};
    return decode_chunk(&parts, lookup, layout, view, scratch, out, err);
}

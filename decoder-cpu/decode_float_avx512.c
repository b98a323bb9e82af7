/* decode_float_avx512.c - the kernel of the float form, compiled for this tier. */
#include "decode_float.h"

#include "decode_float_kernel.h"

#include <immintrin.h>

#define NIBBLES_MIRRORED _mm_setr_epi8(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)

static inline __m512i turn_bytes(__m512i x)
{
    const __m512i backwards = _mm512_set_epi64(0x0001020304050607, 0x08090A0B0C0D0E0F, 0x1011121314151617, 0x18191A1B1C1D1E1F,
                                               0x2021222324252627, 0x28292A2B2C2D2E2F, 0x3031323334353637, 0x38393A3B3C3D3E3F);
    return _mm512_permutexvar_epi8(backwards, x);
}

/* Each byte by two look-ups of four bits. */
static void mirror_bytes(const uint8_t *bytes, size_t byte_count, uint8_t *out)
{
    const __m512i high = _mm512_broadcast_i32x4(NIBBLES_MIRRORED), low = _mm512_slli_epi16(high, 4);
    const __m512i nibble = _mm512_set1_epi8(15);
    size_t i = 0;
    for (; i + 64 <= byte_count; i += 64) {
        __m512i x = turn_bytes(_mm512_loadu_si512(bytes + byte_count - 64 - i));
        __m512i from_low = _mm512_shuffle_epi8(low, _mm512_and_si512(x, nibble));
        __m512i from_high = _mm512_shuffle_epi8(high, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble));
        _mm512_storeu_si512(out + i, _mm512_or_si512(from_low, from_high));
    }
    for (; i < byte_count; i++) out[i] = (uint8_t)cllm_bits_mirrored(bytes[byte_count - 1 - i], 8);
}

static uint32_t turn_symbols(const struct cllm_float_lookup *lookup, const uint8_t *end, uint32_t symbol_count, uint8_t *out)
{
    const __m512i lengths = _mm512_loadu_si512(lookup->folded);
    __m512i sums = _mm512_setzero_si512();
    uint32_t i = 0, bits = 0;
    for (; i + 64 <= symbol_count; i += 64) {
        __m512i x = _mm512_loadu_si512(end - 64 - i);
        sums = _mm512_add_epi64(sums, _mm512_sad_epu8(_mm512_permutexvar_epi8(x, lengths), _mm512_setzero_si512()));
        _mm512_storeu_si512(out + i, turn_bytes(x));
    }
    bits = (uint32_t)_mm512_reduce_add_epi64(sums);
    for (; i < symbol_count; i++) {
        out[i] = end[-1 - (ptrdiff_t)i];
        bits += lookup->table.length[out[i]];
    }
    if (lookup->fold == 0) {
        uint16_t measured;
        cllm_segment_bits_avx512(&lookup->table, out, 0, symbol_count, 1, &measured);
        bits = measured;
    }
    return bits;
}

enum cllm_status cllm_float_decode_avx512(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                          const struct cllm_float_view *view, uint8_t *scratch, uint8_t *out,
                                          struct cllm_error *err)
{
    static const struct float_parts parts = {mirror_bytes, turn_symbols};
    return decode_chunk(&parts, lookup, layout, view, scratch, out, err);
}

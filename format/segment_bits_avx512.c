/* segment_bits_avx512.c - 64 symbols at a time: the whole table of lengths lies in four registers. */
#include "segment_bits.h"

#include <immintrin.h>

struct lengths {
    __m512i part[4];
};

/* Eight sums of eight lengths each, of those symbols that `mask` has. */
static inline __m512i look_up(const struct lengths *lengths, __m512i x, __mmask64 mask)
{
    __m512i low = _mm512_permutex2var_epi8(lengths->part[0], x, lengths->part[1]);
    __m512i high = _mm512_permutex2var_epi8(lengths->part[2], x, lengths->part[3]);
    __m512i found = _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(x), high);
    return _mm512_sad_epu8(_mm512_maskz_mov_epi8(mask, found), _mm512_setzero_si512());
}

static inline uint16_t sum_half(__m256i sums)
{
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return (uint16_t)(_mm_cvtsi128_si32(half) + _mm_extract_epi32(half, 2));
}

void cllm_segment_bits_avx512(const struct cllm_table *table, const uint8_t *symbols, size_t stride, uint32_t run_symbols,
                              uint32_t run_count, uint16_t *bits_out)
{
    struct lengths lengths;
    for (unsigned k = 0; k < 4; k++) lengths.part[k] = _mm512_loadu_si512(table->length + 64 * k);
    for (uint32_t k = 0; k < run_count; k++, symbols += stride) {
        __m512i sum = _mm512_setzero_si512();
        uint32_t i = 0;
        for (; i + 64 <= run_symbols; i += 64) {
            sum = _mm512_add_epi64(sum, look_up(&lengths, _mm512_loadu_si512(symbols + i), ~UINT64_C(0)));
        }
        if (i < run_symbols) {
            uint64_t rest = (UINT64_C(1) << (run_symbols - i)) - 1;
            sum = _mm512_add_epi64(sum, look_up(&lengths, _mm512_maskz_loadu_epi8(rest, symbols + i), rest));
        }
        bits_out[k] = sum_half(_mm256_add_epi64(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1)));
    }
}

/* encode_float_avx512.c - the kernel of the float form, compiled for this tier. */
#include "encode_float.h"

#include "encode_float_kernel.h"

#include <immintrin.h>

#define VECTOR_SYMBOLS 64u
#define PUT_BITS_MAX 56u /* put_bits takes no more */

/* Code words, first symbol lowest, and how many bits each has. */
struct words {
    __m512i words;
    __m512i lengths;
};

/* Neighbours in the halves of each number, of `half` bits, to one word. */
static inline struct words join_halves32(struct words x)
{
    const __m512i low = _mm512_set1_epi32(0xFFFF), even = _mm512_and_si512(x.lengths, low);
    const __m512i odd_words = _mm512_sllv_epi32(_mm512_srli_epi32(x.words, 16), even);
    return (struct words){_mm512_or_si512(_mm512_and_si512(x.words, low), odd_words),
                          _mm512_add_epi32(even, _mm512_srli_epi32(x.lengths, 16))};
}

static inline struct words join_halves64(struct words x)
{
    const __m512i low = _mm512_set1_epi64(0xFFFFFFFF), even = _mm512_and_si512(x.lengths, low);
    const __m512i odd_words = _mm512_sllv_epi64(_mm512_srli_epi64(x.words, 32), even);
    return (struct words){_mm512_or_si512(_mm512_and_si512(x.words, low), odd_words),
                          _mm512_add_epi64(even, _mm512_srli_epi64(x.lengths, 32))};
}

/* Eight numbers of eight code words each, in order. What has more than 64 bits is cut. */
static inline struct words join_eights(__m512i symbols, __m512i lengths, __m512i low_bytes, __m512i high_bytes)
{
    const __m512i zero = _mm512_setzero_si512(), length = _mm512_permutexvar_epi8(symbols, lengths);
    const __m512i low = _mm512_permutexvar_epi8(symbols, low_bytes), high = _mm512_permutexvar_epi8(symbols, high_bytes);
    /* In each quarter of a vector: symbols 0 to 7 here, 8 to 15 there. */
    const struct words a = {_mm512_unpacklo_epi8(low, high), _mm512_unpacklo_epi8(length, zero)};
    const struct words b = {_mm512_unpackhi_epi8(low, high), _mm512_unpackhi_epi8(length, zero)};
    const struct words fours_a = join_halves64(join_halves32(a)), fours_b = join_halves64(join_halves32(b));
    const __m512i first = _mm512_unpacklo_epi64(fours_a.words, fours_b.words);
    const __m512i second = _mm512_unpackhi_epi64(fours_a.words, fours_b.words);
    const __m512i first_bits = _mm512_unpacklo_epi64(fours_a.lengths, fours_b.lengths);
    const __m512i second_bits = _mm512_unpackhi_epi64(fours_a.lengths, fours_b.lengths);
    return (struct words){_mm512_or_si512(first, _mm512_sllv_epi64(second, first_bits)),
                          _mm512_add_epi64(first_bits, second_bits)};
}

/* 64 symbols at a time. Eight code words rarely have more bits than can be put at once; then it goes the ordinary way. */
static inline __attribute__((always_inline)) void put_words_avx512(struct bit_writer *writer, const struct cllm_float_code *code,
                                                                   const uint8_t *symbols, uint32_t count, ptrdiff_t step)
{
    const __m512i backwards = _mm512_set_epi64(0x0001020304050607, 0x08090A0B0C0D0E0F, 0x1011121314151617, 0x18191A1B1C1D1E1F,
                                               0x2021222324252627, 0x28292A2B2C2D2E2F, 0x3031323334353637, 0x38393A3B3C3D3E3F);
    const uint8_t(*bytes)[CLLM_FOLD] = step > 0 ? code->folded.word : code->folded.mirrored;
    const __m512i lengths = _mm512_loadu_si512(code->folded.length), low = _mm512_loadu_si512(bytes[0]),
                  high = _mm512_loadu_si512(bytes[1]);
    for (; count >= VECTOR_SYMBOLS && code->folded.usable; count -= VECTOR_SYMBOLS, symbols += step * (ptrdiff_t)VECTOR_SYMBOLS) {
        __m512i x = _mm512_loadu_si512(step > 0 ? symbols : symbols + 1 - VECTOR_SYMBOLS);
        if (step < 0) x = _mm512_permutexvar_epi8(backwards, x);
        const struct words eights = join_eights(x, lengths, low, high);
        uint64_t words[8], bits[8];
        _mm512_storeu_si512(words, eights.words);
        _mm512_storeu_si512(bits, eights.lengths);
        if (_mm512_cmpgt_epu64_mask(eights.lengths, _mm512_set1_epi64(PUT_BITS_MAX))) {
            put_words_any(writer, code, symbols, VECTOR_SYMBOLS, step);
            continue;
        }
#pragma GCC unroll 8
        for (unsigned k = 0; k < 8; k++) put_bits(writer, words[k], (unsigned)bits[k]);
    }
    put_words_any(writer, code, symbols, count, step);
}

static size_t encode_symbols_avx512(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                                    uint32_t element_count, uint8_t *stored)
{
    const struct float_encode_parts parts = {cllm_segment_bits_avx512, put_words_avx512};
    return encode_symbols(layout, code, symbols, element_count, parts, stored);
}

const struct cllm_float_encode_ops cllm_float_encode_avx512 = {split_elements, cllm_count_symbols_avx2, encode_symbols_avx512};

/* segment_bits_avx2.c - 32 symbols at a time. A table of 256 lengths is 16 rows of 16; a shuffle looks a symbol up in one row
 * and gives 0 where it lies in another. Codes of exponents use two or three rows. */
#include "segment_bits.h"

#include <immintrin.h>

struct row {
    __m256i lengths; /* twice: a shuffle works within 16 bytes */
    __m256i number;  /* of the row, times 16, in each byte */
};

/* The rows that hold a symbol at all; returns how many. */
static unsigned find_rows(const struct cllm_table *table, struct row rows_out[16])
{
    unsigned count = 0;
    for (unsigned r = 0; r < 16; r++) {
        __m128i lengths = _mm_loadu_si128((const __m128i *)(const void *)(table->length + 16 * r));
        if (_mm_testz_si128(lengths, lengths)) continue;
        rows_out[count++] = (struct row){_mm256_broadcastsi128_si256(lengths), _mm256_set1_epi8((char)(16 * r))};
    }
    return count;
}

static inline __m256i look_up(const struct row *rows, unsigned row_count, const uint8_t *symbols)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)symbols), found = _mm256_setzero_si256();
    for (unsigned r = 0; r < row_count; r++) {
        /* 0 to 15 in this row; more elsewhere, where the sum reaches the top bit, for which a shuffle gives 0. */
        __m256i index = _mm256_adds_epu8(_mm256_xor_si256(x, rows[r].number), _mm256_set1_epi8(0x70));
        found = _mm256_or_si256(found, _mm256_shuffle_epi8(rows[r].lengths, index));
    }
    return _mm256_sad_epu8(found, _mm256_setzero_si256());
}

void cllm_segment_bits_avx2(const struct cllm_table *table, const uint8_t *symbols, size_t stride, uint32_t run_symbols,
                            uint32_t run_count, uint16_t *bits_out)
{
    struct row rows[16];
    unsigned row_count = find_rows(table, rows);
    for (uint32_t k = 0; k < run_count; k++, symbols += stride) {
        __m256i sum = _mm256_setzero_si256();
        uint32_t i = 0;
        for (; i + 32 <= run_symbols; i += 32) sum = _mm256_add_epi64(sum, look_up(rows, row_count, symbols + i));
        __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        uint32_t rest = i < run_symbols ? cllm_symbol_bits(table, symbols + i, run_symbols - i) : 0;
        bits_out[k] = (uint16_t)(rest + (uint32_t)_mm_cvtsi128_si32(half) + (uint32_t)_mm_extract_epi32(half, 2));
    }
}

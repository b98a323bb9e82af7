/* segment_bits.h - how many bits the code words of each segment take: what the encoder states and the decoders check. */
#ifndef CLLM_SEGMENT_BITS_H
#define CLLM_SEGMENT_BITS_H

#include "cllm.h"

/* Bits of `segment_count` whole segments of 2^segment_log2 symbols at `symbols`, by the code lengths of `table`; at most
 * CLLM_CODE_BITS_MAX each, so that a sum fits. Where the table has a single symbol, its length counts although its code word
 * has no bits: the caller knows. Same result from every tier. */
typedef void cllm_segment_bits_fn(const struct cllm_table *table, unsigned segment_log2, const uint8_t *symbols,
                                  uint32_t segment_count, uint16_t *bits_out);

cllm_segment_bits_fn cllm_segment_bits, cllm_segment_bits_avx2, cllm_segment_bits_avx512;

/* The same for any number of symbols. */
uint32_t cllm_symbol_bits(const struct cllm_table *table, const uint8_t *symbols, uint32_t symbol_count);

#endif

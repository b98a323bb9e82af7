/* segment_bits.h - how many bits the code words of runs of symbols take: what the encoder states and the decoders check. */
#ifndef CLLM_SEGMENT_BITS_H
#define CLLM_SEGMENT_BITS_H

#include "cllm.h"

#include <stddef.h>

/* Bits of `run_count` runs of `run_symbols` symbols (at most 4096, so that a sum fits) by the code lengths of `table`, at most
 * CLLM_CODE_BITS_MAX each. Run k starts at symbols + k * stride. Where the table has a single symbol, its length counts although
 * its code word has no bits: the caller knows. Same result from every tier. */
typedef void cllm_segment_bits_fn(const struct cllm_table *table, const uint8_t *symbols, size_t stride, uint32_t run_symbols,
                                  uint32_t run_count, uint16_t *bits_out);

cllm_segment_bits_fn cllm_segment_bits, cllm_segment_bits_avx2, cllm_segment_bits_avx512;

/* The same for one run of any length. */
uint32_t cllm_symbol_bits(const struct cllm_table *table, const uint8_t *symbols, uint32_t symbol_count);

#endif

/* segment_bits.c - the portable one: the one to read. */
#include "segment_bits.h"

uint32_t cllm_symbol_bits(const struct cllm_table *table, const uint8_t *symbols, uint32_t symbol_count)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < symbol_count; i++) bits += table->length[symbols[i]];
    return bits;
}

void cllm_segment_bits(const struct cllm_table *table, unsigned segment_log2, const uint8_t *symbols, uint32_t segment_count,
                       uint16_t *bits_out)
{
    for (uint32_t s = 0; s < segment_count; s++) {
        bits_out[s] = (uint16_t)cllm_symbol_bits(table, symbols + ((size_t)s << segment_log2), 1u << segment_log2);
    }
}

/* segment_bits.c - the portable one: the one to read. */
#include "segment_bits.h"

#include "bytes.h"

uint32_t cllm_symbol_bits(const struct cllm_table *table, const uint8_t *symbols, uint32_t symbol_count)
{
    const uint8_t *length = table->length;
    uint32_t bits = 0, more = 0, i = 0;
    for (; i + 8 <= symbol_count; i += 8) {
        uint64_t x = cllm_load_le64(symbols + i); /* one load for eight: what limits this loop is loads */
        bits += length[x & 0xFF] + length[x >> 8 & 0xFF] + length[x >> 16 & 0xFF] + length[x >> 24 & 0xFF];
        more += length[x >> 32 & 0xFF] + length[x >> 40 & 0xFF] + length[x >> 48 & 0xFF] + length[x >> 56];
    }
    for (; i < symbol_count; i++) bits += length[symbols[i]];
    return bits + more;
}

void cllm_segment_bits(const struct cllm_table *table, const uint8_t *symbols, size_t stride, uint32_t run_symbols,
                       uint32_t run_count, uint16_t *bits_out)
{
    for (uint32_t k = 0; k < run_count; k++) bits_out[k] = (uint16_t)cllm_symbol_bits(table, symbols + k * stride, run_symbols);
}

/* decode_float.c - the look-up table, the portable tier, and the choice of a tier. FORMAT.md 9. */
#include "decode_float.h"

#include "decode_float_kernel.h"

void cllm_float_lookup_build(struct cllm_float_lookup *lookup, const struct cllm_table *table)
{
    struct cllm_code_entry single[CLLM_CODE_ENTRIES];
    if (lookup->valid && memcmp(&lookup->table, table, sizeof *table) == 0) return;
    lookup->table = *table;
    lookup->valid = true;
    lookup->single = cllm_table_symbol_count(table) == 1;
    cllm_table_lookup(table, single);
    for (unsigned i = 0; i < CLLM_CODE_ENTRIES; i++) {
        uint64_t symbols = 0, count = 0;
        unsigned bits = 0;
        /* A code word that does not fit in the bits left is not decided yet. */
        while (count < CLLM_ENTRY_SYMBOLS_MAX && bits + single[i >> bits].bits <= CLLM_CODE_BITS_MAX) {
            symbols |= (uint64_t)single[i >> bits].symbol << 8 * count++;
            bits += single[i >> bits].bits;
        }
        lookup->entries[i] = symbols | count << 48 | (uint64_t)bits << 56;
    }
}

static enum cllm_status decode_symbols_portable(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                                const struct cllm_float_view *view, uint8_t *symbols, struct cllm_error *err)
{
    return decode_symbols(lookup, layout, view, symbols, cllm_segment_bits, err);
}

const struct cllm_float_decode_ops cllm_float_decode_portable = {decode_symbols_portable, join_elements};

const struct cllm_float_decode_ops *cllm_float_decode_ops(enum cllm_cpu_tier tier)
{
    switch (tier) {
#if defined(__x86_64__)
    case CLLM_CPU_AVX512: return &cllm_float_decode_avx512;
    case CLLM_CPU_AVX2: return &cllm_float_decode_avx2;
#endif
    default: return &cllm_float_decode_portable;
    }
}

enum cllm_status cllm_float_decode_symbols(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                           const struct cllm_float_view *view, uint8_t *symbols, struct cllm_error *err)
{
    return cllm_float_decode_ops(cllm_cpu_tier())->symbols(lookup, layout, view, symbols, err);
}

void cllm_float_join(const struct cllm_layout *layout, const struct cllm_float_view *view, const uint8_t *symbols, uint8_t *out)
{
    cllm_float_decode_ops(cllm_cpu_tier())->join(layout, view, symbols, out);
}

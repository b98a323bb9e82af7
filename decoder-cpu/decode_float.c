/* decode_float.c - the look-up table, the portable tier, and the choice of a tier. FORMAT.md 9. */
#include "decode_float.h"

#include "decode_float_kernel.h"

static void mirror_bytes(const uint8_t *bytes, size_t byte_count, uint8_t *out)
{
    size_t i = 0;
    for (; i + 8 <= byte_count; i += 8) {
        uint64_t x = cllm_load_le64(bytes + byte_count - 8 - i);
        x = (x >> 1 & UINT64_C(0x5555555555555555)) | (x & UINT64_C(0x5555555555555555)) << 1;
        x = (x >> 2 & UINT64_C(0x3333333333333333)) | (x & UINT64_C(0x3333333333333333)) << 2;
        x = (x >> 4 & UINT64_C(0x0F0F0F0F0F0F0F0F)) | (x & UINT64_C(0x0F0F0F0F0F0F0F0F)) << 4;
        cllm_store_le64(out + i, __builtin_bswap64(x));
    }
    for (; i < byte_count; i++) out[i] = (uint8_t)cllm_bits_mirrored(bytes[byte_count - 1 - i], 8);
}

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

enum cllm_status cllm_float_decode_portable(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                            const struct cllm_float_view *view, uint8_t *scratch, uint8_t *out,
                                            struct cllm_error *err)
{
    static const struct float_parts parts = {cllm_segment_bits, mirror_bytes};
    return decode_chunk(&parts, lookup, layout, view, scratch, out, err);
}

cllm_float_decode_fn *cllm_float_decoder(enum cllm_cpu_tier tier)
{
    switch (tier) {
#if defined(__x86_64__)
    case CLLM_CPU_AVX512: return cllm_float_decode_avx512;
    case CLLM_CPU_AVX2: return cllm_float_decode_avx2;
#endif
    default: return cllm_float_decode_portable;
    }
}

size_t cllm_float_scratch_bytes(const struct cllm_layout *layout, const struct cllm_float_view *view)
{
    return 2 * ((size_t)view->stream_bytes + tail_bytes(layout));
}

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

/* Exponents in use are neighbours: a vector's look-up of code lengths needs only their low bits. */
static void fold_lengths(struct cllm_float_lookup *lookup)
{
    bool used[CLLM_FOLD] = {false};
    lookup->fold = 32;
    memset(lookup->folded, 0, sizeof lookup->folded);
    for (unsigned s = 0; s < 256; s++) {
        if (lookup->table.length[s] == 0) continue;
        if (used[s % 64]) lookup->fold = 0;
        if (used[(s + 32) % 64] && lookup->fold == 32) lookup->fold = 64;
        used[s % 64] = true;
        lookup->folded[s % 64] = lookup->table.length[s];
    }
}

void cllm_float_lookup_build(struct cllm_float_lookup *lookup, const struct cllm_table *table)
{
    struct cllm_code_entry single[CLLM_CODE_ENTRIES];
    if (lookup->valid && memcmp(lookup->table.length, table->length, sizeof table->length) == 0) return;
    memcpy(lookup->table.length, table->length, sizeof table->length);
    lookup->valid = true;
    lookup->single = cllm_table_symbol_count(table) == 1;
    cllm_table_lookup(table, single);
    fold_lengths(lookup);
    for (unsigned i = 0; i < CLLM_CODE_ENTRIES; i++) {
        uint64_t symbols = 0;
        unsigned count = 0, bits = 0;
        /* A code word that does not fit in the bits left is not decided yet. */
        while (count < CLLM_ENTRY_SYMBOLS_MAX && bits + single[i >> bits].bits <= CLLM_CODE_BITS_MAX) {
            symbols |= (uint64_t)single[i >> bits].symbol << (56 - 8 * count++);
            bits += single[i >> bits].bits;
        }
        lookup->entries[i] = symbols | bits;
        lookup->counts[i] = (uint8_t)count;
    }
}

static uint32_t turn_symbols(const struct cllm_float_lookup *lookup, const uint8_t *end, uint32_t symbol_count, uint8_t *out)
{
    uint32_t i = 0;
    for (; i + 8 <= symbol_count; i += 8) cllm_store_le64(out + i, __builtin_bswap64(cllm_load_le64(end - 8 - i)));
    for (; i < symbol_count; i++) out[i] = end[-1 - (ptrdiff_t)i];
    return cllm_symbol_bits(&lookup->table, out, symbol_count);
}

enum cllm_status cllm_float_decode_portable(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                            const struct cllm_float_view *view, uint8_t *scratch, uint8_t *out,
                                            struct cllm_error *err)
{
    static const struct float_parts parts = {mirror_bytes, turn_symbols};
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

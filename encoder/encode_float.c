/* encode_float.c - the code, the portable tier, and the choice of a tier. FORMAT.md 9. */
#include "encode_float.h"

#include "encode_float_kernel.h"

/* The words of symbols modulo CLLM_FOLD, for look-ups in a vector's bytes. */
static void fold_words(struct cllm_float_code *code)
{
    bool used[CLLM_FOLD] = {false};
    struct cllm_folded_words *folded = &code->folded;
    memset(folded, 0, sizeof *folded);
    folded->usable = true;
    for (unsigned s = 0; s < 256; s++) {
        const unsigned at = s % CLLM_FOLD;
        if (code->table.length[s] == 0) continue;
        folded->usable &= !used[at];
        used[at] = true;
        folded->length[at] = code->table.length[s];
        folded->word[0][at] = (uint8_t)code->word[s];
        folded->word[1][at] = (uint8_t)(code->word[s] >> 8);
        folded->mirrored[0][at] = (uint8_t)code->mirrored[s];
        folded->mirrored[1][at] = (uint8_t)(code->mirrored[s] >> 8);
    }
}

void cllm_float_code_init(struct cllm_float_code *code, const struct cllm_table *table)
{
    code->table = *table;
    code->single = cllm_table_symbol_count(table) == 1;
    cllm_table_codes(table, code->word);
    for (unsigned s = 0; s < 256; s++) code->mirrored[s] = (uint16_t)cllm_bits_mirrored(code->word[s], table->length[s]);
    fold_words(code);
}

size_t cllm_float_encoded_bytes_max(const struct cllm_layout *layout, uint32_t element_count)
{
    size_t segments = ((size_t)element_count >> layout->segment_log2) + 1;
    size_t stream = ((size_t)element_count * CLLM_CODE_BITS_MAX + 7) / 8;
    return cllm_float_plane_bytes(layout, element_count) + CLLM_FLOAT_HEADER_BYTES + 2 * segments + stream + 8;
}

static size_t encode_symbols_portable(const struct cllm_layout *layout, const struct cllm_float_code *code,
                                      const uint8_t *symbols, uint32_t element_count, uint8_t *stored)
{
    return encode_symbols(layout, code, symbols, element_count, (struct float_encode_parts){cllm_segment_bits, put_words_any},
                          stored);
}

const struct cllm_float_encode_ops cllm_float_encode_portable = {split_elements, count_symbols, encode_symbols_portable};

const struct cllm_float_encode_ops *cllm_float_encode_ops(enum cllm_cpu_tier tier)
{
    switch (tier) {
#if defined(__x86_64__)
    case CLLM_CPU_AVX512: return &cllm_float_encode_avx512;
    case CLLM_CPU_AVX2: return &cllm_float_encode_avx2;
#endif
    default: return &cllm_float_encode_portable;
    }
}

void cllm_float_split(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count, uint8_t *symbols,
                      uint8_t *planes, uint64_t counts[256])
{
    const struct cllm_float_encode_ops *ops = cllm_float_encode_ops(cllm_cpu_tier());
    ops->split(layout, elements, element_count, symbols, planes);
    ops->count(symbols, element_count, counts);
}

size_t cllm_float_encode(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                         uint32_t element_count, uint8_t *stored)
{
    return cllm_float_encode_ops(cllm_cpu_tier())->encode(layout, code, symbols, element_count, stored);
}

/* encode_float.c - the code, the portable tier, and the choice of a tier. FORMAT.md 9. */
#include "encode_float.h"

#include "encode_float_kernel.h"

void cllm_float_code_init(struct cllm_float_code *code, const struct cllm_table *table)
{
    code->table = *table;
    code->single = cllm_table_symbol_count(table) == 1;
    cllm_table_codes(table, code->word);
    for (unsigned s = 0; s < 256; s++) code->mirrored[s] = (uint16_t)cllm_bits_mirrored(code->word[s], table->length[s]);
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
    return encode_symbols(layout, code, symbols, element_count, cllm_segment_bits, stored);
}

const struct cllm_float_encode_ops cllm_float_encode_portable = {split_elements, encode_symbols_portable};

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
    cllm_float_encode_ops(cllm_cpu_tier())->split(layout, elements, element_count, symbols, planes, counts);
}

size_t cllm_float_encode(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                         uint32_t element_count, uint8_t *stored)
{
    return cllm_float_encode_ops(cllm_cpu_tier())->encode(layout, code, symbols, element_count, stored);
}

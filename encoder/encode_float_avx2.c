/* encode_float_avx2.c - the kernel of the float form, compiled for this tier. */
#include "encode_float.h"

#include "encode_float_kernel.h"

static size_t encode_symbols_avx2(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                                  uint32_t element_count, uint8_t *stored)
{
    return encode_symbols(layout, code, symbols, element_count,
                          (struct float_encode_parts){cllm_segment_bits_avx2, put_words_any}, stored);
}

void cllm_count_symbols_avx2(const uint8_t *symbols, uint32_t element_count, uint64_t counts[256])
{
    count_symbols(symbols, element_count, counts);
}

const struct cllm_float_encode_ops cllm_float_encode_avx2 = {split_elements, cllm_count_symbols_avx2, encode_symbols_avx2};

/* encode_float_avx512.c - the kernel of the float form, compiled for this tier. */
#include "encode_float.h"

#include "encode_float_kernel.h"

static size_t encode_symbols_avx512(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                                    uint32_t element_count, uint8_t *stored)
{
    return encode_symbols(layout, code, symbols, element_count, cllm_segment_bits_avx512, stored);
}

const struct cllm_float_encode_ops cllm_float_encode_avx512 = {split_elements, encode_symbols_avx512};

/* decode_float_avx512.c - the kernel of the float form, compiled for this tier. */
#include "decode_float.h"

#include "decode_float_kernel.h"

static enum cllm_status decode_symbols_avx512(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                              const struct cllm_float_view *view, uint8_t *symbols, struct cllm_error *err)
{
    return decode_symbols(lookup, layout, view, symbols, cllm_segment_bits_avx512, err);
}

const struct cllm_float_decode_ops cllm_float_decode_avx512 = {decode_symbols_avx512, join_elements};

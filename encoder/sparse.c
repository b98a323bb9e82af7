/* sparse.c - see sparse.h. */
#include "sparse.h"

#include <string.h>

#define SAMPLE 64u
#define HIGHEST 0x80u         /* in the last byte of an element: a sign */
#define LEVELS_BELOW_SHARE 8u /* one mask in: below, a bit for each that is 0 is more than it takes to leave them out */

static bool is_zero(const uint8_t *element, unsigned element_bytes)
{
    unsigned bits = element[element_bytes - 1] & ~HIGHEST;
    for (unsigned k = 0; k + 1 < element_bytes; k++) bits |= element[k];
    return bits == 0;
}

static bool sample_has_zero(const uint8_t *elements, unsigned element_bytes, uint32_t element_count)
{
    uint32_t step = element_count / SAMPLE + 1;
    for (uint32_t i = 0; i < element_count; i += step) {
        if (is_zero(elements + (size_t)i * element_bytes, element_bytes)) return true;
    }
    return false;
}

uint32_t cllm_sparse_count_zeros(const uint8_t *elements, unsigned element_bytes, uint32_t element_count,
                                 uint32_t *negative_count_out)
{
    uint32_t count = 0, negative = 0;
    *negative_count_out = 0;
    if (!sample_has_zero(elements, element_bytes, element_count)) return 0;
    for (uint32_t i = 0; i < element_count; i++, elements += element_bytes) {
        bool zero = is_zero(elements, element_bytes);
        count += zero;
        negative += zero && elements[element_bytes - 1] != 0;
    }
    *negative_count_out = negative;
    return count;
}

uint32_t cllm_sparse_absent_count(uint32_t element_count, uint32_t zero_count)
{
    const uint32_t excess = (element_count - zero_count) % 8, kept = excess ? 8 - excess : 0;
    return zero_count > kept ? zero_count - kept : zero_count;
}

void cllm_sparse_split(const uint8_t *elements, unsigned element_bytes, uint32_t element_count, uint32_t absent_count,
                       uint8_t *masks_out, uint8_t *signs_out, uint8_t *out)
{
    uint32_t absent = 0;
    memset(masks_out, 0, cllm_mask_bytes(element_count));
    if (signs_out) memset(signs_out, 0, cllm_mask_bytes(element_count));
    for (uint32_t i = 0; i < element_count; i++, elements += element_bytes) {
        bool negative = elements[element_bytes - 1] >> 7;
        if (absent < absent_count && (signs_out || !negative) && is_zero(elements, element_bytes)) {
            if (negative) signs_out[absent / 8] |= (uint8_t)(1u << absent % 8);
            absent++;
            continue;
        }
        masks_out[i / 8] |= (uint8_t)(1u << i % 8);
        memcpy(out, elements, element_bytes);
        out += element_bytes;
    }
}

uint32_t cllm_sparse_mask_symbols(const uint8_t *masks, uint32_t mask_count, uint8_t *symbols_out)
{
    uint32_t count = cllm_mask_bytes(mask_count), used = 0;
    for (uint32_t i = 0; i < mask_count; i++) used += masks[i] != 0;
    if (used >= mask_count / LEVELS_BELOW_SHARE) {
        memcpy(symbols_out, masks, mask_count);
        return mask_count;
    }
    memset(symbols_out, 0, count);
    for (uint32_t i = 0; i < mask_count; i++) {
        if (masks[i] == 0) continue;
        symbols_out[i / 8] |= (uint8_t)(1u << i % 8);
        symbols_out[count++] = masks[i];
    }
    return count;
}

size_t cllm_sparse_encoded_bytes_max(const struct cllm_layout *layout, uint32_t element_count)
{
    const struct cllm_layout of_masks = cllm_layout_of_masks(layout);
    const uint32_t mask_bytes = cllm_mask_bytes(element_count);
    return CLLM_SPARSE_HEAD_BYTES + cllm_float_encoded_bytes_max(layout, element_count) + mask_bytes +
           cllm_float_encoded_bytes_max(&of_masks, mask_bytes);
}

size_t cllm_sparse_encode(const struct cllm_layout *layout, const struct cllm_float_code *code,
                          const struct cllm_sparse_head *head, const uint8_t *signs, const uint8_t *symbols, uint8_t *stored)
{
    const struct cllm_layout of_masks = cllm_layout_of_masks(layout);
    uint8_t *at = stored + CLLM_SPARSE_HEAD_BYTES + head->float_bytes;
    cllm_store_le32(stored, head->float_bytes);
    cllm_store_le32(stored + 4, head->sign_bytes);
    cllm_store_le32(stored + 8, head->mask_count);
    cllm_store_le32(stored + 12, head->present_count);
    if (head->sign_bytes) memcpy(at, signs, head->sign_bytes);
    at += head->sign_bytes;
    at += cllm_float_encode(&of_masks, code, symbols, head->mask_count, at);
    return (size_t)(at - stored);
}

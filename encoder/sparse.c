/* sparse.c - see sparse.h. */
#include "sparse.h"

#include <stdbool.h>
#include <string.h>

#define SAMPLE 64u
#define HIGHEST 0x80u /* in the last byte of an element: a sign */

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

uint32_t cllm_sparse_count_zeros(const uint8_t *elements, unsigned element_bytes, uint32_t element_count)
{
    uint32_t count = 0;
    if (!sample_has_zero(elements, element_bytes, element_count)) return 0;
    for (uint32_t i = 0; i < element_count; i++) count += is_zero(elements + (size_t)i * element_bytes, element_bytes);
    return count;
}

void cllm_sparse_split(const uint8_t *elements, unsigned element_bytes, uint32_t element_count, uint8_t *presence_out,
                       uint8_t *signs_out, uint8_t *out)
{
    uint32_t zeros = 0;
    memset(presence_out, 0, ((size_t)element_count + 7) / 8);
    memset(signs_out, 0, ((size_t)element_count + 7) / 8);
    for (uint32_t i = 0; i < element_count; i++, elements += element_bytes) {
        if (is_zero(elements, element_bytes)) {
            signs_out[zeros / 8] |= (uint8_t)(elements[element_bytes - 1] >> 7 << zeros % 8);
            zeros++;
            continue;
        }
        presence_out[i / 8] |= (uint8_t)(1u << i % 8);
        memcpy(out, elements, element_bytes);
        out += element_bytes;
    }
}

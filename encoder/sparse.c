/* sparse.c - see sparse.h. */
#include "sparse.h"

#include <stdbool.h>
#include <string.h>

#define SAMPLE 64u

static bool is_zero(const uint8_t *element, unsigned element_bytes)
{
    uint64_t bits = 0;
    memcpy(&bits, element, element_bytes);
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
                       uint8_t *out)
{
    memset(presence_out, 0, ((size_t)element_count + 7) / 8);
    for (uint32_t i = 0; i < element_count; i++, elements += element_bytes) {
        if (is_zero(elements, element_bytes)) continue;
        presence_out[i / 8] |= (uint8_t)(1u << i % 8);
        memcpy(out, elements, element_bytes);
        out += element_bytes;
    }
}

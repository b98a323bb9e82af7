/* shuffle.c - see shuffle.h. */
#include "shuffle.h"

#include <stddef.h>

void cllm_shuffle(const uint8_t *elements, unsigned element_bytes, uint32_t element_count, uint8_t *planes)
{
    for (unsigned k = 0; k < element_bytes; k++) {
        uint8_t *plane = planes + (size_t)k * element_count;
        for (uint32_t i = 0; i < element_count; i++) plane[i] = elements[(size_t)i * element_bytes + k];
    }
}

void cllm_unshuffle(const uint8_t *planes, unsigned element_bytes, uint32_t element_count, uint8_t *elements)
{
    for (unsigned k = 0; k < element_bytes; k++) {
        const uint8_t *plane = planes + (size_t)k * element_count;
        for (uint32_t i = 0; i < element_count; i++) elements[(size_t)i * element_bytes + k] = plane[i];
    }
}

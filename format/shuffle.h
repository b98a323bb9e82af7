/* shuffle.h - bytes of elements into byte planes and back, so that zstd sees bytes of one kind together. FORMAT.md 12, form 3.
 * Pure; any thread. Buffers do not overlap. */
#ifndef CLLM_SHUFFLE_H
#define CLLM_SHUFFLE_H

#include <stdint.h>

/* Byte k of element i goes to planes[k * element_count + i]. `element_bytes` is 1 to 8. */
void cllm_shuffle(const uint8_t *elements, unsigned element_bytes, uint32_t element_count, uint8_t *planes);

/* The inverse. */
void cllm_unshuffle(const uint8_t *planes, unsigned element_bytes, uint32_t element_count, uint8_t *elements);

#endif

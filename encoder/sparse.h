/* sparse.h - the elements of a chunk that are not zero, apart from where they are. FORMAT.md 12, form 4. */
#ifndef CLLM_SPARSE_H
#define CLLM_SPARSE_H

#include <stdint.h>

/* How many elements of 1, 2, 4 or 8 bytes have no bit set, but for the highest: zeros of either sign. 0 too where a few of them,
 * spread over all, have not one that is zero. */
uint32_t cllm_sparse_count_zeros(const uint8_t *elements, unsigned element_bytes, uint32_t element_count);

/* Copies the other elements to `out` and sets their bits in `presence_out`. The highest bits of zeros go to `signs_out`, one
 * after the other. Each has (element_count + 7) / 8 bytes. */
void cllm_sparse_split(const uint8_t *elements, unsigned element_bytes, uint32_t element_count, uint8_t *presence_out,
                       uint8_t *signs_out, uint8_t *out);

#endif

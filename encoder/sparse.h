/* sparse.h - the elements of a chunk that are not zero, apart from where they are. FORMAT.md 12, form 4. */
#ifndef CLLM_SPARSE_H
#define CLLM_SPARSE_H

#include "encode_float.h"

/* How many elements of 1, 2, 4 or 8 bytes have no bit set, but for the highest: zeros of either sign; and how many of these have
 * that set. 0 too where a few of them, spread over all, have not one that is zero. */
uint32_t cllm_sparse_count_zeros(const uint8_t *elements, unsigned element_bytes, uint32_t element_count,
                                 uint32_t *negative_count_out);

/* Leaves out `absent_count` zeros, the first ones, or as many as there are: copies the other elements to `out` and sets their
 * bits in `masks_out`. The highest bits of those left out go to `signs_out`, one after the other; without it, zeros that have
 * theirs set are not left out. Both have cllm_mask_bytes(element_count). */
void cllm_sparse_split(const uint8_t *elements, unsigned element_bytes, uint32_t element_count, uint32_t absent_count,
                       uint8_t *masks_out, uint8_t *signs_out, uint8_t *out);

/* How many of `zero_count` zeros to leave out, so that what remains is a multiple of 8: GPUs load and store it in wide pieces. */
uint32_t cllm_sparse_absent_count(uint32_t element_count, uint32_t zero_count);

/* The symbols that masks are coded as, `mask_count` at most: themselves, or without those that are 0, behind masks that say which
 * ones these are. Returns how many. */
uint32_t cllm_sparse_mask_symbols(const uint8_t *masks, uint32_t mask_count, uint8_t *symbols_out);

/* Most bytes of a sparse chunk of `element_count` elements by this layout. */
size_t cllm_sparse_encoded_bytes_max(const struct cllm_layout *layout, uint32_t element_count);

/* Completes a chunk whose float part lies at `stored` + CLLM_SPARSE_HEAD_BYTES: writes the head before it, signs and masks, by
 * `code`, behind it. Returns the stored bytes of the whole chunk. */
size_t cllm_sparse_encode(const struct cllm_layout *layout, const struct cllm_float_code *code,
                          const struct cllm_sparse_head *head, const uint8_t *signs, const uint8_t *symbols, uint8_t *stored);

#endif

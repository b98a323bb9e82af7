/* palette.h - the distinct elements of a chunk, where they are few. Bit patterns: nothing is known of numbers here. */
#ifndef CLLM_PALETTE_H
#define CLLM_PALETTE_H

#include <stdbool.h>
#include <stdint.h>

#define CLLM_PALETTE_SLOTS 1024u

/* A set of up to 256 values in the order in which they came; zero-initialise. */
struct cllm_palette {
    uint64_t value[256];
    unsigned count;
    uint16_t slot[CLLM_PALETTE_SLOTS]; /* hash table: 1 + index of a value, 0 empty */
};

/* Index of `value`, or the palette's count where it is not there. */
unsigned cllm_palette_find(const struct cllm_palette *palette, uint64_t value);

/* The same, after adding the value where there is room; 256 where there is none. */
unsigned cllm_palette_add(struct cllm_palette *palette, uint64_t value);

/* Elements of 1, 2, 4 or 8 bytes to their indices, which are added to `counts`. False as soon as there are more than 256 values,
 * which is soon among ordinary weights; the rest is then unspecified. */
bool cllm_palette_collect(struct cllm_palette *palette, const uint8_t *elements, unsigned element_bytes, uint32_t element_count,
                          uint8_t *indices_out, uint64_t counts[256]);

#endif

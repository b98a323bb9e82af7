/* tables.h - which chunks of a group share a code table. A table costs its bytes in the index and the building of a look-up
 * table in every decoder, so a chunk gets one of its own only where that saves clearly more. */
#ifndef CLLM_TABLES_H
#define CLLM_TABLES_H

#include "encode_float.h"
#include "palette.h"

/* Of one group, and one more for masks. 50 GiB of one tensor whose chunks all differ stay within the limits of FORMAT.md 11. */
#define CLLM_GROUP_TABLES_MAX 4u

/* Histograms of the chunks that share a table; zero-initialise. One thread at a time. */
struct cllm_tables {
    uint64_t counts[CLLM_GROUP_TABLES_MAX][256];
    struct cllm_table table[CLLM_GROUP_TABLES_MAX + 1]; /* first of the chunk that opened it; after cllm_tables_finish of all */
    struct cllm_palette palette[CLLM_GROUP_TABLES_MAX]; /* without values where symbols are fields */
    uint8_t values[CLLM_GROUP_TABLES_MAX][256 * sizeof(uint64_t)]; /* what table[t].values points to in the end */
    uint8_t rank[CLLM_GROUP_TABLES_MAX][256]; /* after cllm_tables_finish: from indices to symbols of a palette */
    uint64_t mask_counts[256];                /* after cllm_tables_finish table[count] is for these, unless they are 0 */
    unsigned count, palette_count;
};

/* Adds a chunk with the histogram `counts` (not all 0) to the table that suits it, a new one if none does. Returns its index.
 * Depends on the chunks before it and nothing else. */
unsigned cllm_tables_assign(struct cllm_tables *tables, const uint64_t counts[256]);

/* Adds a chunk with the values of `own` and the histogram `counts` of them to the palette that suits it, or a new one, if that
 * takes less than `bits`. Returns its index, or -1 where none does. What is `own`'s index i becomes index_out[i]. */
int cllm_tables_assign_palette(struct cllm_tables *tables, const struct cllm_palette *own, const uint64_t counts[256],
                               unsigned element_bytes, uint64_t bits, uint8_t index_out[256]);

/* Bits that a chunk of this histogram takes with a table of its own, that included; and `raw_bits` a symbol. */
uint64_t cllm_tables_estimate(const uint64_t counts[256], unsigned raw_bits);

/* Adds the masks of a sparse chunk with the histogram `counts`: all of a group share a table. */
void cllm_tables_add_masks(struct cllm_tables *tables, const uint64_t counts[256]);

/* Builds each table from all its chunks; values ascend. Tables point into `tables`. */
void cllm_tables_finish(struct cllm_tables *tables);

#endif

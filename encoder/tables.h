/* tables.h - which chunks of a group share a code table. A table costs its bytes in the index and the building of a look-up
 * table in every decoder, so a chunk gets one of its own only where that saves clearly more. */
#ifndef CLLM_TABLES_H
#define CLLM_TABLES_H

#include "encode_float.h"

/* Of one group. 64 GiB of one tensor whose chunks all differ stay within the limits of FORMAT.md 11. */
#define CLLM_GROUP_TABLES_MAX 4u

/* Histograms of the chunks that share a table; zero-initialise. One thread at a time. */
struct cllm_tables {
    uint64_t counts[CLLM_GROUP_TABLES_MAX][256];
    struct cllm_table table[CLLM_GROUP_TABLES_MAX]; /* first of the chunk that opened it; after cllm_tables_finish of them all */
    unsigned count;
};

/* Adds a chunk with the histogram `counts` (not all 0) to the table that suits it, a new one if none does. Returns its index.
 * Depends on the chunks before it and nothing else. */
unsigned cllm_tables_assign(struct cllm_tables *tables, const uint64_t counts[256]);

/* Builds each table from all its chunks. */
void cllm_tables_finish(struct cllm_tables *tables);

#endif

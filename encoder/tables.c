/* tables.c - see tables.h. */
#include "tables.h"

#include "layout.h"
#include "table.h"

/* What a table must save to be worth it: it takes 15 to 30 bytes in the index, more for wide alphabets. */
#define WORTH_BITS(table_bytes) (8u * (16u + (uint64_t)(table_bytes)))

/* Bits of the code words; a symbol that the table lacks counts as a long one, which it will be. */
static uint64_t coded_bits(const struct cllm_table *table, const uint64_t counts[256])
{
    uint64_t bits = 0;
    for (unsigned s = 0; s < 256; s++) bits += counts[s] * (table->length[s] ? table->length[s] : CLLM_CODE_BITS_MAX);
    return bits;
}

static unsigned find_cheapest(const struct cllm_tables *tables, const uint64_t counts[256], uint64_t *bits_out)
{
    unsigned best = 0;
    *bits_out = UINT64_MAX;
    for (unsigned t = 0; t < tables->count; t++) {
        uint64_t bits = coded_bits(&tables->table[t], counts);
        if (bits >= *bits_out) continue;
        *bits_out = bits;
        best = t;
    }
    return best;
}

unsigned cllm_tables_assign(struct cllm_tables *tables, const uint64_t counts[256])
{
    struct cllm_table own;
    uint8_t stored[CLLM_TABLE_STORED_BYTES_MAX];
    uint64_t shared_bits;
    cllm_table_build(counts, &own);
    uint64_t own_bits = cllm_table_symbol_count(&own) == 1 ? 0 : coded_bits(&own, counts);
    unsigned t = find_cheapest(tables, counts, &shared_bits);
    bool worth = tables->count == 0 || shared_bits > own_bits + WORTH_BITS(cllm_table_serialise(&own, stored));
    if (worth && tables->count < CLLM_GROUP_TABLES_MAX) {
        t = tables->count++;
        tables->table[t] = own;
    }
    for (unsigned s = 0; s < 256; s++) tables->counts[t][s] += counts[s];
    return t;
}

void cllm_tables_finish(struct cllm_tables *tables)
{
    for (unsigned t = 0; t < tables->count; t++) cllm_table_build(tables->counts[t], &tables->table[t]);
}

/* tables.c - see tables.h. */
#include "tables.h"

#include "layout.h"
#include "table.h"

#include <stdlib.h>

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
        if (tables->palette[t].count) continue;
        uint64_t bits = coded_bits(&tables->table[t], counts);
        if (bits >= *bits_out) continue;
        *bits_out = bits;
        best = t;
    }
    return best;
}

static uint64_t own_bits(const struct cllm_table *table, const uint64_t counts[256])
{
    return cllm_table_symbol_count(table) == 1 ? 0 : coded_bits(table, counts);
}

unsigned cllm_tables_assign(struct cllm_tables *tables, const uint64_t counts[256])
{
    struct cllm_table own;
    uint8_t stored[CLLM_TABLE_STORED_BYTES_MAX];
    uint64_t shared_bits;
    cllm_table_build(counts, &own);
    unsigned t = find_cheapest(tables, counts, &shared_bits);
    bool first = tables->count == tables->palette_count;
    bool worth = first || shared_bits > own_bits(&own, counts) + WORTH_BITS(cllm_table_serialise(&own, stored));
    if (worth && tables->count < CLLM_GROUP_TABLES_MAX) {
        t = tables->count++;
        tables->table[t] = own;
    }
    for (unsigned s = 0; s < 256; s++) tables->counts[t][s] += counts[s];
    return t;
}

/* ---------------------------------------------------------------------------------------------------------- palettes */

/* A value takes its bytes, and the length of its code word half a byte. */
static uint64_t values_bits(unsigned value_count, unsigned element_bytes)
{
    return value_count * (8u * element_bytes + 4u);
}

/* Bits that a chunk takes by the code of palette `t` once it has part in that, new values included; UINT64_MAX where there are
 * too many. */
static uint64_t joined_bits(const struct cllm_tables *tables, unsigned t, const struct cllm_palette *own,
                            const uint64_t counts[256], unsigned element_bytes)
{
    const struct cllm_palette *palette = &tables->palette[t];
    uint64_t joined[256], mine[256] = {0};
    unsigned count = palette->count;
    struct cllm_table table;
    memcpy(joined, tables->counts[t], sizeof joined);
    for (unsigned i = 0; i < own->count; i++) {
        unsigned index = cllm_palette_find(palette, own->value[i]);
        if (index == palette->count) index = count++;
        if (index > 255) return UINT64_MAX;
        joined[index] += counts[i];
        mine[index] = counts[i];
    }
    cllm_table_build(joined, &table);
    return own_bits(&table, mine) + values_bits(count - palette->count, element_bytes);
}

int cllm_tables_assign_palette(struct cllm_tables *tables, const struct cllm_palette *own, const uint64_t counts[256],
                               unsigned element_bytes, uint64_t bits, uint8_t index_out[256])
{
    int best = -1;
    for (unsigned t = 0; t < tables->count; t++) {
        uint64_t joined = tables->palette[t].count ? joined_bits(tables, t, own, counts, element_bytes) : UINT64_MAX;
        if (joined >= bits) continue;
        bits = joined;
        best = (int)t;
    }
    /* One table is left for chunks that have no palette. */
    if (tables->count < CLLM_GROUP_TABLES_MAX && tables->palette_count + 1 < CLLM_GROUP_TABLES_MAX &&
        cllm_tables_estimate(counts, 0) + values_bits(own->count, element_bytes) < bits) {
        best = (int)tables->count++;
        tables->palette_count++;
    }
    for (unsigned i = 0; i < own->count && best >= 0; i++) {
        index_out[i] = (uint8_t)cllm_palette_add(&tables->palette[best], own->value[i]);
        tables->counts[best][index_out[i]] += counts[i];
    }
    if (best >= 0) tables->table[best].value_bytes = (uint8_t)element_bytes;
    return best;
}

uint64_t cllm_tables_estimate(const uint64_t counts[256], unsigned raw_bits)
{
    struct cllm_table table;
    uint8_t stored[CLLM_TABLE_STORED_BYTES_MAX];
    uint64_t symbol_count = 0;
    cllm_table_build(counts, &table);
    for (unsigned s = 0; s < 256; s++) symbol_count += counts[s];
    return own_bits(&table, counts) + symbol_count * raw_bits + WORTH_BITS(cllm_table_serialise(&table, stored));
}

static int compare_values(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Puts the values of palette `t` and their counts in ascending order. */
static void sort_palette(struct cllm_tables *tables, unsigned t)
{
    const struct cllm_palette *palette = &tables->palette[t];
    uint64_t sorted[256], counts[256] = {0};
    unsigned element_bytes = tables->table[t].value_bytes;
    memcpy(sorted, palette->value, sizeof sorted);
    qsort(sorted, palette->count, sizeof *sorted, compare_values);
    for (unsigned i = 0; i < palette->count; i++) {
        unsigned index = cllm_palette_find(palette, sorted[i]);
        uint8_t value[8];
        tables->rank[t][index] = (uint8_t)i;
        counts[i] = tables->counts[t][index];
        cllm_store_le64(value, sorted[i]);
        memcpy(tables->values[t] + (size_t)i * element_bytes, value, element_bytes);
    }
    memcpy(tables->counts[t], counts, sizeof counts);
}

void cllm_tables_add_masks(struct cllm_tables *tables, const uint64_t counts[256])
{
    for (unsigned s = 0; s < 256; s++) tables->mask_counts[s] += counts[s];
}

void cllm_tables_finish(struct cllm_tables *tables)
{
    uint64_t masks = 0;
    for (unsigned t = 0; t < tables->count; t++) {
        uint8_t value_bytes = tables->table[t].value_bytes;
        if (value_bytes) sort_palette(tables, t);
        cllm_table_build(tables->counts[t], &tables->table[t]);
        tables->table[t].value_bytes = value_bytes;
        tables->table[t].values = value_bytes ? tables->values[t] : NULL;
    }
    for (unsigned s = 0; s < 256; s++) masks += tables->mask_counts[s];
    if (masks > 0) cllm_table_build(tables->mask_counts, &tables->table[tables->count]);
}

/* table.c - package-merge. */
#include "table.h"

#include "layout.h"

#include <stdlib.h>
#include <string.h>

struct leaf {
    uint64_t weight;
    unsigned symbol;
};

/* One level of the merge: items in ascending weight, each a leaf or a package of two items of the level before. Leaves appear
 * in one fixed order, so that "is a leaf" is all that need be kept. */
struct level {
    uint64_t weight[512];
    bool is_leaf[512];
    unsigned count;
};

static int compare_leaves(const void *a, const void *b)
{
    const struct leaf *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? -1 : 1;
    return x->symbol < y->symbol ? -1 : 1;
}

static void merge_level(const struct leaf *leaves, unsigned leaf_count, const struct level *previous, struct level *level)
{
    unsigned packages = previous->count / 2, leaf = 0, package = 0;
    level->count = 0;
    while (leaf < leaf_count || package < packages) {
        uint64_t paired = package < packages ? previous->weight[2 * package] + previous->weight[2 * package + 1] : UINT64_MAX;
        bool take_leaf = leaf < leaf_count && leaves[leaf].weight <= paired;
        level->is_leaf[level->count] = take_leaf;
        level->weight[level->count++] = take_leaf ? leaves[leaf++].weight : paired;
        package += !take_leaf;
    }
}

void cllm_table_build(const uint64_t counts[256], struct cllm_table *table_out)
{
    struct leaf leaves[256];
    struct level levels[CLLM_CODE_BITS_MAX];
    unsigned leaf_count = 0;
    memset(table_out, 0, sizeof *table_out);
    for (unsigned s = 0; s < 256; s++) {
        if (counts[s]) leaves[leaf_count++] = (struct leaf){counts[s], s};
    }
    if (leaf_count == 1) {
        table_out->length[leaves[0].symbol] = 1;
        return;
    }
    qsort(leaves, leaf_count, sizeof *leaves, compare_leaves);
    struct level none = {.count = 0};
    for (unsigned l = 0; l < CLLM_CODE_BITS_MAX; l++) merge_level(leaves, leaf_count, l ? &levels[l - 1] : &none, &levels[l]);

    /* The first 2n-2 items of the last level are the solution: a leaf in it adds a bit to its symbol, a package stands for two
     * items of the level before. */
    unsigned take = 2 * leaf_count - 2;
    for (unsigned l = CLLM_CODE_BITS_MAX; l-- > 0;) {
        unsigned taken_leaves = 0;
        for (unsigned i = 0; i < take; i++) taken_leaves += levels[l].is_leaf[i];
        for (unsigned i = 0; i < taken_leaves; i++) table_out->length[leaves[i].symbol]++;
        take = 2 * (take - taken_leaves);
    }
}

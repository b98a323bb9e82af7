/* table.h - the best prefix code for a histogram, with limited code length. */
#ifndef CLLM_TABLE_H
#define CLLM_TABLE_H

#include "cllm.h"

/* Code lengths of at most CLLM_CODE_BITS_MAX bits that minimise the total for `counts`, by package-merge (Larmore and
 * Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", JACM 37, 1990). Deterministic: ties go to the lower
 * symbol. At least one count must not be 0; their sum must be below 2^48. */
void cllm_table_build(const uint64_t counts[256], struct cllm_table *table_out);

#endif

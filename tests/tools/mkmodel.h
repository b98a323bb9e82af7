/* mkmodel.h - the parts of mkmodel. */
#ifndef CLLM_MKMODEL_H
#define CLLM_MKMODEL_H

#include "config.h"

#include <stdio.h>

/* -------------------------------------------------------------------------------------------------- mkmodel_gauss.c */

enum model_element { MODEL_BF16, MODEL_F16, MODEL_F32 };

/* Normally distributed elements; element i of a sequence depends on key and i alone. */
struct gauss_sequence {
    uint64_t key;
    float mean;
    float sigma;
    enum model_element element;
};

/* The standard half-normal distribution, cut into equally likely slices. */
#define GAUSS_SLICES 32768
struct gauss_table {
    float edge[GAUSS_SLICES + 1]; /* the last one is not used: the last slice has no end */
};

void gauss_prepare(struct gauss_table *table);

/* A key from a seed and a name. */
uint64_t gauss_key(uint64_t seed, const char *name);

/* Writes elements [first, first + count) of the sequence, little-endian; `first` is a multiple of 4. */
void gauss_fill(const struct gauss_table *table, const struct gauss_sequence *sequence, uint64_t first, size_t count,
                uint8_t *out);

/* ---------------------------------------------------------------------------------------------- mkmodel_tokenizer.c */

/* Fewest entries of a vocabulary that mkmodel can make a tokenizer for: all bytes and two special tokens. */
#define TOKENIZER_VOCAB_MIN 258

/* A byte-level BPE of exactly vocab_size entries: <s> is 0 and put before every text, </s> is 1, then the bytes, then letters
 * joined to syllables. False where writing failed. */
bool write_tokenizer(FILE *file, uint32_t vocab_size);

#endif

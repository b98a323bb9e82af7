/* encode_float.h - the float form, elements to stored bytes, in two steps around the choice of a code. FORMAT.md 9. */
#ifndef CLLM_ENCODE_FLOAT_H
#define CLLM_ENCODE_FLOAT_H

#include "codec.h"
#include "cpu.h"

#define CLLM_FOLD 64u

/* Exponents in use are neighbours: their low bits tell them apart. */
struct cllm_folded_words {
    uint8_t length[CLLM_FOLD];
    uint8_t word[2][CLLM_FOLD];     /* low and high bytes */
    uint8_t mirrored[2][CLLM_FOLD]; /* the same */
    bool usable;                    /* no two symbols fall together */
};

/* A prefix code ready for writing. */
struct cllm_float_code {
    struct cllm_table table;
    uint16_t word[256];     /* first bit lowest: for first halves of segments */
    uint16_t mirrored[256]; /* first bit highest: for second halves, which run against the stream */
    struct cllm_folded_words folded;
    bool single; /* one symbol: no bits */
};

void cllm_float_code_init(struct cllm_float_code *code, const struct cllm_table *table);

/* The steps as one tier of processors does them; the results are the same from all. */
struct cllm_float_encode_ops {
    void (*split)(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count, uint8_t *symbols,
                  uint8_t *planes);
    void (*count)(const uint8_t *symbols, uint32_t element_count, uint64_t counts[256]);
    size_t (*encode)(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                     uint32_t element_count, uint8_t *stored);
};

extern const struct cllm_float_encode_ops cllm_float_encode_portable, cllm_float_encode_avx2, cllm_float_encode_avx512;

/* How often each symbol occurs, added to `counts`. AVX-512 uses it too: its comparisons go through mask registers and take
 * longer. */
void cllm_count_symbols_avx2(const uint8_t *symbols, uint32_t element_count, uint64_t counts[256]);

/* The steps of `tier`, which the processor must have. */
const struct cllm_float_encode_ops *cllm_float_encode_ops(enum cllm_cpu_tier tier);

/* Splits `element_count` elements at `elements` (any alignment) into symbols and raw planes (cllm_float_plane_bytes at
 * `planes`), and adds the symbols to `counts`. */
void cllm_float_split(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count, uint8_t *symbols,
                      uint8_t *planes, uint64_t counts[256]);

/* Most bytes that cllm_float_encode may write, planes included. */
size_t cllm_float_encoded_bytes_max(const struct cllm_layout *layout, uint32_t element_count);

/* Completes a chunk whose planes lie at `stored`: writes segment lengths and code words behind them. All symbols must have a
 * code. Returns the stored bytes of the whole chunk. */
size_t cllm_float_encode(const struct cllm_layout *layout, const struct cllm_float_code *code, const uint8_t *symbols,
                         uint32_t element_count, uint8_t *stored);

#endif

/* decode_float.h - the float form on the CPU. */
#ifndef CLLM_DECODE_FLOAT_H
#define CLLM_DECODE_FLOAT_H

#include "codec.h"
#include "cpu.h"

#define CLLM_ENTRY_SYMBOLS_MAX 7u
#define CLLM_FOLD 64u

/* What CLLM_CODE_BITS_MAX bits of a stream decode to: up to seven whole code words at once. */
struct cllm_float_lookup {
    uint64_t entries[CLLM_CODE_ENTRIES]; /* bits that they take together; from bit 56 down to bit 8 the symbols */
    uint8_t counts[CLLM_CODE_ENTRIES];   /* of symbols in each entry, at least 1 */
    struct cllm_table table;             /* the code that all this was built from, without values */
    uint8_t folded[CLLM_FOLD];           /* table.length of symbols modulo CLLM_FOLD, */
    unsigned fold;                       /* where all symbols differ modulo this: 32, 64, or 0 for neither */
    bool single;                         /* one symbol, no bits */
    bool valid;
};

/* Rebuilds `lookup` unless it is for this table's code already. */
void cllm_float_lookup_build(struct cllm_float_lookup *lookup, const struct cllm_table *table);

/* Bytes of working memory for one chunk. */
size_t cllm_float_scratch_bytes(const struct cllm_layout *layout, const struct cllm_float_view *view);

/* Decodes a chunk into `out`, of any alignment. The stored bytes are followed by at least CLLM_READ_SLACK_BYTES readable bytes;
 * `scratch` has cllm_float_scratch_bytes. Fails with CORRUPT where a segment lies outside the stream or its halves do not meet;
 * `out` is then unspecified. The result and the message are the same from every tier. */
typedef enum cllm_status cllm_float_decode_fn(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                              const struct cllm_float_view *view, uint8_t *scratch, uint8_t *out,
                                              struct cllm_error *err);

cllm_float_decode_fn cllm_float_decode_portable, cllm_float_decode_avx2, cllm_float_decode_avx512;

/* The function of `tier`, which the processor must have. */
cllm_float_decode_fn *cllm_float_decoder(enum cllm_cpu_tier tier);

#endif

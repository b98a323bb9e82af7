/* decode_float.h - the float form on the CPU. */
#ifndef CLLM_DECODE_FLOAT_H
#define CLLM_DECODE_FLOAT_H

#include "codec.h"
#include "cpu.h"

#define CLLM_ENTRY_SYMBOLS_MAX 6u

/* What CLLM_CODE_BITS_MAX bits of a stream decode to: up to six whole code words at once.
 * Bits 0 to 47: the symbols, first one lowest; 48 to 55: how many, 1 to 6; 56 to 63: bits they take together. */
struct cllm_float_lookup {
    struct cllm_table table; /* the code that `entries` was built from */
    uint64_t entries[CLLM_CODE_ENTRIES];
    bool single; /* one symbol, no bits */
    bool valid;
};

/* Rebuilds `lookup` unless it is for this table already. */
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

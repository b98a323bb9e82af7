/* decode_float.h - the float form on the CPU, in two steps: code words to symbols, symbols and planes to elements. */
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

/* The two steps as one tier of processors does them; the results are the same from all. */
struct cllm_float_decode_ops {
    enum cllm_status (*symbols)(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                const struct cllm_float_view *view, uint8_t *symbols, struct cllm_error *err);
    void (*join)(const struct cllm_layout *layout, const struct cllm_float_view *view, const uint8_t *symbols, uint8_t *out);
};

extern const struct cllm_float_decode_ops cllm_float_decode_portable, cllm_float_decode_avx2, cllm_float_decode_avx512;

/* The steps of `tier`, which the processor must have. */
const struct cllm_float_decode_ops *cllm_float_decode_ops(enum cllm_cpu_tier tier);

/* Decodes all symbols of a chunk into `symbols`, which has room for element_count bytes. The stored bytes are followed by
 * at least CLLM_READ_SLACK_BYTES readable bytes. Fails with CORRUPT where a segment does not end where the next one starts, or
 * the stream does not end with the last. */
enum cllm_status cllm_float_decode_symbols(const struct cllm_float_lookup *lookup, const struct cllm_layout *layout,
                                           const struct cllm_float_view *view, uint8_t *symbols,
                                           struct cllm_error *err) CLLM_MUST_USE;

/* Joins symbols and raw planes to elements at `out`, which needs no alignment. */
void cllm_float_join(const struct cllm_layout *layout, const struct cllm_float_view *view, const uint8_t *symbols, uint8_t *out);

#endif

/* plan.c - see plan.h. */
#include "plan.h"

#include "layout.h"

/* One GPU thread block decodes a chunk: 256 threads, half a segment of 128 symbols each. */
#define FLOAT_CHUNK_ELEMENTS 32768u
#define SEGMENT_LOG2 8

/* Stored segment lengths are 0.17 % of a BF16 tensor with those segments, and 0.35 % of one-byte elements, for which they are
 * longer. A small tensor has too few chunks to keep a GPU busy whatever its segments; longer ones make it smaller. */
static uint8_t choose_segment_log2(unsigned element_bytes, uint64_t decoded_bytes)
{
    if (decoded_bytes < 256u << 10) return 12;
    if (decoded_bytes < 4u << 20) return 11;
    return element_bytes == 1 ? 10 : SEGMENT_LOG2;
}

/* Other bytes: large enough for zstd to find its matches, small enough to spread over threads. */
#define OTHER_CHUNK_BYTES (1u << 20)

/* The strongest level is slow; it is for the small things beside the weights, where it costs no time that anyone notices. */
#define STRONG_LEVEL 19
#define STRONG_LEVEL_MAX_BYTES (UINT64_C(16) << 20)
#define FAST_LEVEL 6

/* The exponent field of one element, or (complex) of one half; a whole byte for types without one. At most 8 bits of it. */
static struct cllm_layout choose_layout(const struct cllm_dtype *dtype)
{
    struct cllm_layout none = {0};
    if (!dtype || dtype->kind == CLLM_KIND_BOOL) return none;
    if (dtype->kind == CLLM_KIND_COMPLEX) return (struct cllm_layout){4, dtype->exponent_shift, dtype->exponent_bits, 0, 0};
    if (dtype->element_bits < 8 || (dtype->element_bits == 8 && dtype->kind == CLLM_KIND_INT)) {
        return (struct cllm_layout){1, 0, 8, 0, 0};
    }
    if (dtype->kind != CLLM_KIND_FLOAT) return none;
    /* F16: the upper byte, so that the mantissa's upper bits, which are no noise, are coded and the rest is one byte plane. */
    if (dtype->element_bits == 16 && dtype->exponent_bits == 5) return (struct cllm_layout){2, 8, 8, 0, 0};
    uint8_t bits = dtype->exponent_bits < 8 ? dtype->exponent_bits : 8;
    return (struct cllm_layout){(uint8_t)(dtype->element_bits / 8), dtype->exponent_shift, bits, 0, 0};
}

struct cllm_plan cllm_plan_make(const struct cllm_dtype *dtype, uint64_t decoded_bytes)
{
    struct cllm_plan plan = {.layout = choose_layout(dtype)};
    if (plan.layout.element_bytes) plan.layout.segment_log2 = choose_segment_log2(plan.layout.element_bytes, decoded_bytes);
    plan.chunk_bytes = plan.layout.element_bytes ? FLOAT_CHUNK_ELEMENTS * plan.layout.element_bytes : OTHER_CHUNK_BYTES;
    plan.zstd_level = decoded_bytes <= STRONG_LEVEL_MAX_BYTES ? STRONG_LEVEL : FAST_LEVEL;
    return plan;
}

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

/* What is coded of one element, or of one half of a complex one: at most 8 bits that hold what is not noise, the exponent first
 * of all. Numbers that are not whole bytes count as bytes. */
static struct cllm_layout choose_layout(const struct cllm_dtype *dtype)
{
    const struct cllm_layout none = {0};
    if (!dtype || dtype->kind == CLLM_KIND_BOOL) return none;
    if (dtype->kind == CLLM_KIND_COMPLEX) return (struct cllm_layout){4, dtype->exponent_shift, dtype->exponent_bits, 0, 0};
    uint8_t bytes = dtype->element_bits < 8 ? 1 : (uint8_t)(dtype->element_bits / 8);
    bool has_sign = dtype->exponent_shift + dtype->exponent_bits < dtype->element_bits;
    /* Of 8 bits all but the sign, which is noise: mantissas of two or three bits are not uniform. */
    if (bytes == 1)
        return (struct cllm_layout){1, 0, dtype->kind == CLLM_KIND_FLOAT && dtype->element_bits == 8 && has_sign ? 7 : 8, 0, 0};
    /* Integers: the top byte. F16 too: sign, exponent and the upper bits of the mantissa, which are no noise either. */
    if (dtype->kind == CLLM_KIND_INT || dtype->exponent_bits < 8)
        return (struct cllm_layout){bytes, (uint8_t)(8 * bytes - 8), 8, 0, 0};
    /* F64: the upper bits of the exponent; coding the lower ones would leave those, which hardly vary, among the raw bits. */
    return (struct cllm_layout){bytes, (uint8_t)(dtype->exponent_shift + dtype->exponent_bits - 8), 8, 0, 0};
}

static uint8_t choose_scaled_type(const struct cllm_dtype *dtype)
{
    if (!dtype || dtype->kind != CLLM_KIND_FLOAT) return CLLM_SCALED_NONE;
    if (dtype->element_bits == 32) return CLLM_SCALED_F32;
    if (dtype->element_bits != 16) return CLLM_SCALED_NONE;
    return dtype->exponent_bits == 8 ? CLLM_SCALED_BF16 : CLLM_SCALED_F16;
}

struct cllm_plan cllm_plan_make(const struct cllm_dtype *dtype, uint64_t decoded_bytes)
{
    struct cllm_plan plan = {.layout = choose_layout(dtype), .scaled_type = choose_scaled_type(dtype)};
    if (plan.layout.element_bytes) plan.layout.segment_log2 = choose_segment_log2(plan.layout.element_bytes, decoded_bytes);
    plan.chunk_bytes = plan.layout.element_bytes ? FLOAT_CHUNK_ELEMENTS * plan.layout.element_bytes : OTHER_CHUNK_BYTES;
    plan.zstd_level = decoded_bytes <= STRONG_LEVEL_MAX_BYTES ? STRONG_LEVEL : FAST_LEVEL;
    return plan;
}

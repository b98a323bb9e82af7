/* float_builder.h - float chunks for tests: the layouts of FORMAT.md 9, elements of every character, and a chunk encoded. */
#ifndef CLLM_FLOAT_BUILDER_H
#define CLLM_FLOAT_BUILDER_H

#include "cllm.h"
#include "container_builder.h"

/* The layouts that cpack chooses and others that a reader must take; the last one has an element_bytes of 0. */
#define TEST_LAYOUTS 18u
extern const struct cllm_layout test_layouts[TEST_LAYOUTS + 1];

/* What the elements of a chunk are like; ends with TEST_CONTENTS. */
enum test_content {
    TEST_RANDOM_BITS,
    TEST_TRAINED,     /* coded fields fall off on both sides of the most frequent one */
    TEST_ALL_EQUAL,   /* one element again and again */
    TEST_ALL_SYMBOLS, /* every symbol that the field can hold, in turn */
    TEST_ONE_SYMBOL,  /* one symbol, random remainders */
    TEST_SKEWED,      /* one symbol, but for a few others at the end: code words from 1 to 11 bits */
    TEST_CONTENTS,
};

/* Bits below zero_bits are 0. */
void test_elements_fill(struct test_random *random, const struct cllm_layout *layout, enum test_content content, uint8_t *out,
                        uint32_t element_count);

/* A chunk in float form, with what its data object says about it; `stored` has exactly stored_bytes. */
struct test_float_chunk {
    struct cllm_chunk chunk;
    struct cllm_table table;
    struct cllm_table mask_table; /* of a sparse one */
    struct cllm_layout layout;
    uint8_t *stored; /* to be freed */
};

void test_float_chunk_encode(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count,
                             struct test_float_chunk *chunk_out);

/* A sparse chunk: zeros left out, of which there are some and not all; those with a sign set only if `signs`. If `wide`, so few
 * of them that what remains is a multiple of 8. */
void test_sparse_chunk_encode(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count, bool signs,
                              bool wide, struct test_float_chunk *chunk_out);

/* A chunk of elements from a palette of `value_count` values, each of which it has if it has that many elements at all.
 * `elements_out` receives what it decodes to. */
void test_palette_chunk_encode(struct test_random *random, const struct cllm_layout *layout, unsigned value_count,
                               uint8_t *elements_out, uint32_t element_count, struct test_float_chunk *chunk_out);

/* Decodes `stored_bytes` bytes as that chunk from a buffer with exactly the slack that decoders are promised into one of exactly
 * the decoded size, which is returned in `*decoded_out` (to be freed, also after a failure). */
enum cllm_status test_float_chunk_decode(const struct test_float_chunk *chunk, const uint8_t *stored, uint32_t stored_bytes,
                                         uint8_t **decoded_out);

#endif

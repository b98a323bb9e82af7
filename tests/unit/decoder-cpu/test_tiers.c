/* Every tier of instructions that this processor has decodes the same elements, and rejects the same chunks with the same words.
 * Buffers have exactly the promised sizes, for the sanitizer. */
#include "codec.h"
#include "decode_float.h"
#include "float_builder.h"
#include "reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct test_float_chunk chunk_of(struct test_random *random, const struct cllm_layout *layout, enum test_content content,
                                        uint32_t element_count)
{
    struct test_float_chunk chunk;
    uint8_t *elements = malloc((size_t)element_count * layout->element_bytes);
    test_elements_fill(random, layout, content, elements, element_count);
    test_float_chunk_encode(layout, elements, element_count, &chunk);
    free(elements);
    return chunk;
}

/* What one tier makes of a chunk; every buffer exactly as large as it must be. */
static enum cllm_status decode_with(enum cllm_cpu_tier tier, const struct test_float_chunk *chunk, uint8_t *out,
                                    struct cllm_error *err)
{
    struct cllm_float_lookup *lookup = calloc(1, sizeof *lookup);
    uint8_t *stored = calloc(chunk->chunk.stored_bytes + CLLM_READ_SLACK_BYTES, 1), *scratch = NULL;
    struct cllm_float_view view;
    memcpy(stored, chunk->stored, chunk->chunk.stored_bytes);
    cllm_float_lookup_build(lookup, &chunk->table);
    const struct cllm_layout layout = chunk->table.value_bytes ? cllm_layout_of_palette(&chunk->layout) : chunk->layout;
    enum cllm_status status =
        cllm_float_view_parse(&layout, chunk->chunk.decoded_bytes, stored, chunk->chunk.stored_bytes, &view, err);
    if (!status) {
        view.palette = chunk->table.values;
        scratch = malloc(cllm_float_scratch_bytes(&layout, &view));
        status = cllm_float_decoder(tier)(lookup, &layout, &view, scratch, out, err);
    }
    free(scratch);
    free(stored);
    free(lookup);
    return status;
}

static void compare_tiers(const struct test_float_chunk *chunk)
{
    uint32_t byte_count = chunk->chunk.decoded_bytes;
    uint8_t *expected = malloc(byte_count), *out = malloc(byte_count);
    struct cllm_error err = {0};
    enum cllm_status status = decode_with(CLLM_CPU_PORTABLE, chunk, expected, &err);
    for (enum cllm_cpu_tier tier = CLLM_CPU_AVX2; tier <= cllm_cpu_tier(); tier++) {
        struct cllm_error other = {0};
        assert_int_equal(decode_with(tier, chunk, out, &other), status);
        if (status) assert_string_equal(other.message, err.message);
        else assert_memory_equal(out, expected, byte_count);
    }
    free(expected);
    free(out);
}

static void test_tiers_decode_the_same_elements(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 7, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1000, 4097, 8191, 32768, 70001};
    struct test_random random = {51};
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        for (int content = 0; content < TEST_CONTENTS; content++) {
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                struct test_float_chunk chunk = chunk_of(&random, layout, content, sizes[i]);
                compare_tiers(&chunk);
                free(chunk.stored);
            }
        }
    }
}

static void test_tiers_decode_the_same_from_palettes(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 31, 33, 255, 256, 257, 1000, 4097, 32768};
    struct test_random random = {54};
    uint8_t *elements = malloc(32768 * 8);
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct test_float_chunk chunk;
            test_palette_chunk_encode(&random, layout, i % 3 == 0 ? 1 : i % 3 == 1 ? 17 : 256, elements, sizes[i], &chunk);
            compare_tiers(&chunk);
            for (unsigned k = 0; k < 8; k++) {
                chunk.stored[(test_random_next(&random) >> 32) % chunk.chunk.stored_bytes] ^= (uint8_t)(1u << k);
                compare_tiers(&chunk);
            }
            free(chunk.stored);
        }
    }
    free(elements);
}

static void test_tiers_decode_the_same_from_damaged_chunks(void **state)
{
    (void)state;
    struct test_random random = {52};
    for (unsigned round = 0; round < 6000; round++) {
        const struct cllm_layout *layout = &test_layouts[round % TEST_LAYOUTS];
        uint32_t element_count = 1 + (uint32_t)(test_random_next(&random) >> 32) % (round % 10 ? 900 : 9000);
        struct test_float_chunk chunk = chunk_of(&random, layout, round / TEST_LAYOUTS % TEST_CONTENTS, element_count);
        uint32_t planes = (uint32_t)cllm_float_plane_bytes(layout, element_count), room = chunk.chunk.stored_bytes - planes;
        for (unsigned k = 0; k < round % 4; k++) {
            uint64_t value = test_random_next(&random);
            chunk.stored[planes + (uint32_t)(value >> 32) % room] ^= (uint8_t)(1u << value % 8);
        }
        if (round % 7 == 0) chunk.chunk.stored_bytes = planes + (uint32_t)(test_random_next(&random) >> 32) % room;
        compare_tiers(&chunk);
        free(chunk.stored);
    }
}

static void test_tiers_decode_the_same_with_another_table(void **state)
{
    (void)state;
    struct test_random random = {53};
    for (unsigned round = 0; round < 600; round++) {
        struct cllm_layout layout = test_layout_bf16(5 + round % 8);
        struct test_float_chunk chunk = chunk_of(&random, &layout, round % TEST_CONTENTS, 100 + 10 * round);
        struct test_float_chunk other = chunk_of(&random, &layout, round / TEST_CONTENTS % TEST_CONTENTS, 100);
        chunk.table = other.table;
        compare_tiers(&chunk);
        free(chunk.stored);
        free(other.stored);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiers_decode_the_same_elements),
        cmocka_unit_test(test_tiers_decode_the_same_from_palettes),
        cmocka_unit_test(test_tiers_decode_the_same_from_damaged_chunks),
        cmocka_unit_test(test_tiers_decode_the_same_with_another_table),
    };
    if (cllm_cpu_tier() < CLLM_CPU_AVX512) print_message("this processor has tiers 0 to %d only\n", (int)cllm_cpu_tier());
    return cmocka_run_group_tests(tests, NULL, NULL);
}

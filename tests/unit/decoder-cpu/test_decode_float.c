/* What the decoder of the float form makes of bytes that no encoder wrote: a clear failure or the right elements, and nothing
 * outside its buffers (which have exactly their size here, for the sanitizer). */
#include "bytes.h"
#include "codec.h"
#include "decode_float.h"
#include "float_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Bit `bit` of `bytes`, which it has. */
static unsigned bit_of(const uint8_t *bytes, uint64_t bit)
{
    return bytes[bit / 8] >> bit % 8 & 1;
}

/* A chunk being decoded as slowly and plainly as FORMAT.md 9 reads: bit by bit. */
struct plain {
    const struct cllm_table *table;
    const uint8_t *stored;
    uint16_t words[256]; /* first bit lowest */
    uint64_t at, end;    /* bits of the segment that are not used yet, counted from the start of the stored bytes */
};

/* The next code word from the start of what is left, or from its end. Returns 256 where there is none. */
static unsigned next_symbol(struct plain *plain, bool from_end)
{
    unsigned word = 0, length = 0;
    while (plain->at < plain->end && length < CLLM_CODE_BITS_MAX) {
        word |= bit_of(plain->stored, from_end ? --plain->end : plain->at++) << length++;
        for (unsigned s = 0; s < 256; s++) {
            if (plain->table->length[s] == length && plain->words[s] == word) return s;
        }
    }
    return 256;
}

/* All symbols, or false: corrupt. `head` is where base, width and the number of unused bits lie. */
static bool decode_symbols_plainly(const struct test_float_chunk *chunk, const uint8_t *stored, uint32_t stored_bytes,
                                   uint64_t head, uint8_t *symbols)
{
    uint32_t n = chunk->chunk.decoded_bytes / chunk->layout.element_bytes, per_segment = 1u << chunk->layout.segment_log2;
    uint32_t segments = (n + per_segment - 1) / per_segment;
    if (head + 4 > stored_bytes) return false;
    unsigned base = stored[head] | stored[head + 1] << 8, width = stored[head + 2], unused = stored[head + 3];
    uint64_t stream = head + 4 + ((uint64_t)(segments - 1) * width + 7) / 8, limit = UINT64_C(8) * stored_bytes - unused;
    if (width > 16 || stream > stored_bytes || unused > (stream < stored_bytes ? 7u : 0)) return false;
    for (uint64_t bit = limit; bit < UINT64_C(8) * stored_bytes; bit++) {
        if (bit_of(stored, bit)) return false;
    }
    struct plain plain = {.table = &chunk->table, .stored = stored, .end = 8 * stream};
    bool single = cllm_table_symbol_count(&chunk->table) == 1;
    cllm_table_codes(&chunk->table, plain.words);
    for (uint32_t s = 0; s < segments; s++) {
        uint64_t stated = base, end = limit;
        for (unsigned k = 0; k < width && s + 1 < segments; k++)
            stated += (uint64_t)bit_of(stored, 8 * (head + 4) + (uint64_t)s * width + k) << k;
        if (s + 1 < segments) end = plain.end + stated;
        if (end > limit) return false;
        plain.at = plain.end;
        plain.end = end;
        uint32_t count = s + 1 < segments ? per_segment : n - s * per_segment;
        for (uint32_t i = 0; i < count; i++) {
            unsigned symbol = 0;
            if (single)
                while (!chunk->table.length[symbol]) symbol++;
            else symbol = next_symbol(&plain, i >= per_segment / 2);
            if (symbol == 256) return false;
            symbols[(size_t)s * per_segment + i] = (uint8_t)symbol;
        }
        if (plain.at != plain.end) return false;
        plain.end = end;
    }
    return true;
}

/* An independent decoder. False: corrupt. */
static bool decode_plainly(const struct test_float_chunk *chunk, const uint8_t *stored, uint32_t stored_bytes, uint8_t *out)
{
    const struct cllm_layout *layout = &chunk->layout;
    uint32_t n = chunk->chunk.decoded_bytes / layout->element_bytes;
    unsigned remainder_bits = 8u * layout->element_bytes - layout->symbol_bits - layout->zero_bits;
    uint64_t whole = remainder_bits / 8, rest = remainder_bits % 8;
    uint8_t *symbols = malloc(n);
    bool good = decode_symbols_plainly(chunk, stored, stored_bytes, n * whole + (n * rest + 7) / 8, symbols);
    for (uint32_t i = 0; i < n && good; i++) {
        uint64_t remainder = 0;
        for (uint64_t k = 0; k < whole; k++) remainder |= (uint64_t)stored[k * n + i] << 8 * k;
        for (uint64_t k = 0; k < rest; k++)
            remainder |= (uint64_t)bit_of(stored, 8 * n * whole + i * rest + k) << (8 * whole + k);
        uint64_t element = cllm_element_join(layout, symbols[i], remainder);
        for (unsigned k = 0; k < layout->element_bytes; k++)
            out[(size_t)i * layout->element_bytes + k] = (uint8_t)(element >> 8 * k);
    }
    free(symbols);
    return good;
}

/* Both decoders must agree: on rejecting, or on every byte. Returns whether it was accepted. */
static bool decode_both(const struct test_float_chunk *chunk, const uint8_t *stored, uint32_t stored_bytes)
{
    uint8_t *decoded, *plainly = malloc(chunk->chunk.decoded_bytes), *exact = malloc(stored_bytes ? stored_bytes : 1);
    memcpy(exact, stored, stored_bytes);
    enum cllm_status status = test_float_chunk_decode(chunk, exact, stored_bytes, &decoded);
    bool accepted = decode_plainly(chunk, exact, stored_bytes, plainly);
    assert_int_equal(status, accepted ? CLLM_OK : CLLM_E_CORRUPT);
    if (accepted) assert_memory_equal(decoded, plainly, chunk->chunk.decoded_bytes);
    free(exact);
    free(decoded);
    free(plainly);
    return accepted;
}

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

static void test_palettes_decode_to_their_values(void **state)
{
    (void)state;
    static const unsigned counts[] = {1, 2, 16, 255, 256};
    struct test_random random = {46};
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            struct test_float_chunk chunk;
            uint8_t elements[1000 * 8], *decoded;
            test_palette_chunk_encode(&random, layout, counts[i], elements, 1000, &chunk);
            assert_int_equal(test_float_chunk_decode(&chunk, chunk.stored, chunk.chunk.stored_bytes, &decoded), CLLM_OK);
            assert_memory_equal(decoded, elements, chunk.chunk.decoded_bytes);
            free(decoded);
            free(chunk.stored);
        }
    }
}

static void test_decoder_agrees_with_a_plain_one_on_good_chunks(void **state)
{
    (void)state;
    struct test_random random = {41};
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        for (int content = 0; content < TEST_CONTENTS; content++) {
            struct test_float_chunk chunk = chunk_of(&random, layout, content, 1000);
            assert_true(decode_both(&chunk, chunk.stored, chunk.chunk.stored_bytes));
            free(chunk.stored);
        }
    }
}

static void test_decoder_survives_every_flipped_bit(void **state)
{
    (void)state;
    struct test_random random = {42};
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        struct test_float_chunk chunk = chunk_of(&random, layout, TEST_TRAINED, 200);
        size_t planes = cllm_float_plane_bytes(layout, 200);
        for (uint32_t bit = 0; bit < 8 * chunk.chunk.stored_bytes; bit++) {
            chunk.stored[bit / 8] ^= (uint8_t)(1u << bit % 8);
            bool accepted = decode_both(&chunk, chunk.stored, chunk.chunk.stored_bytes);
            if (bit / 8 < planes) assert_true(accepted); /* a raw bit: another element, nothing to notice */
            chunk.stored[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        free(chunk.stored);
    }
}

static void test_decoder_survives_random_damage(void **state)
{
    (void)state;
    struct test_random random = {43};
    for (unsigned round = 0; round < 4000; round++) {
        const struct cllm_layout *layout = &test_layouts[round % TEST_LAYOUTS];
        uint32_t element_count = 1 + (uint32_t)(test_random_next(&random) >> 32) % 700;
        struct test_float_chunk chunk = chunk_of(&random, layout, round / TEST_LAYOUTS % TEST_CONTENTS, element_count);
        uint32_t planes = (uint32_t)cllm_float_plane_bytes(layout, element_count), room = chunk.chunk.stored_bytes - planes;
        for (unsigned k = 0; k < 1 + round % 5; k++) {
            uint64_t value = test_random_next(&random);
            chunk.stored[planes + (uint32_t)(value >> 32) % room] = (uint8_t)value; /* what follows the planes */
        }
        (void)decode_both(&chunk, chunk.stored, chunk.chunk.stored_bytes);
        free(chunk.stored);
    }
}

static void test_decoder_survives_any_bytes_behind_the_planes(void **state)
{
    (void)state;
    struct test_random random = {44};
    for (unsigned round = 0; round < 4000; round++) {
        const struct cllm_layout *layout = &test_layouts[round % TEST_LAYOUTS];
        uint32_t element_count = 1 + (uint32_t)(test_random_next(&random) >> 32) % 300;
        struct test_float_chunk chunk = chunk_of(&random, layout, TEST_RANDOM_BITS, element_count);
        uint32_t planes = (uint32_t)cllm_float_plane_bytes(layout, element_count);
        uint32_t stored_bytes = planes + (uint32_t)(test_random_next(&random) >> 32) % 600;
        uint8_t *stored = malloc(stored_bytes + 1);
        test_random_fill(&random, stored, stored_bytes);
        if (stored_bytes >= planes + 4) {
            stored[planes + 2] %= 18;
            stored[planes + 3] %= 9;
            if (round % 8 && stored_bytes > planes + 4) stored[stored_bytes - 1] = 0;
            if (round % 3) memset(stored + planes, round % 2 ? 0xFF : 0, 2);
        }
        (void)decode_both(&chunk, stored, stored_bytes);
        free(stored);
        free(chunk.stored);
    }
}

static void test_decoder_rejects_every_other_length(void **state)
{
    (void)state;
    struct test_random random = {45};
    for (const struct cllm_layout *layout = test_layouts; layout->element_bytes; layout++) {
        for (int content = 0; content < TEST_CONTENTS; content++) {
            struct test_float_chunk chunk = chunk_of(&random, layout, content, 150);
            uint8_t *longer = calloc(chunk.chunk.stored_bytes + 20, 1);
            memcpy(longer, chunk.stored, chunk.chunk.stored_bytes);
            for (uint32_t byte_count = 0; byte_count < chunk.chunk.stored_bytes + 20; byte_count++) {
                assert_int_equal(decode_both(&chunk, longer, byte_count), byte_count == chunk.chunk.stored_bytes);
            }
            free(longer);
            free(chunk.stored);
        }
    }
}

/* A table that is not the chunk's own. */
static void test_decoder_survives_another_table(void **state)
{
    (void)state;
    struct test_random random = {46};
    for (unsigned round = 0; round < 400; round++) {
        struct cllm_layout layout = test_layout_bf16(5 + round % 3);
        struct test_float_chunk chunk = chunk_of(&random, &layout, round % TEST_CONTENTS, 100 + round);
        struct test_float_chunk other = chunk_of(&random, &layout, round / TEST_CONTENTS % TEST_CONTENTS, 100 + round);
        chunk.table = other.table;
        (void)decode_both(&chunk, chunk.stored, chunk.chunk.stored_bytes);
        free(chunk.stored);
        free(other.stored);
    }
}

static void test_lookup_is_rebuilt_for_another_table_only(void **state)
{
    (void)state;
    static struct cllm_float_lookup lookup;
    struct cllm_table table = {.length = {0}};
    table.length[5] = table.length[6] = 1;
    cllm_float_lookup_build(&lookup, &table);
    assert_int_equal(lookup.entries[0] >> 56, 5);
    assert_int_equal(lookup.entries[1] >> 56, 6);
    assert_int_equal(lookup.entries[0] & 0xFF, 7); /* bits: seven symbols of one bit */
    assert_int_equal(lookup.counts[0], 7);
    assert_int_equal(lookup.fold, 32);
    assert_false(lookup.single);
    lookup.entries[0] = 0; /* would be put right by another build */
    cllm_float_lookup_build(&lookup, &table);
    assert_int_equal(lookup.entries[0], 0);
    table.length[6] = 0;
    cllm_float_lookup_build(&lookup, &table);
    assert_true(lookup.single);
}

static void test_lookup_folds_lengths_of_symbols_that_stay_apart(void **state)
{
    (void)state;
    static const struct {
        uint8_t a, b;
        unsigned fold;
    } cases[] = {{0, 31, 32}, {120, 151, 32}, {7, 39, 64}, {100, 132, 64}, {255, 223, 64}, {1, 65, 0}, {0, 128, 0}, {63, 255, 0}};
    static struct cllm_float_lookup lookup;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cllm_table table = {.length = {0}};
        table.length[cases[i].a] = table.length[cases[i].b] = 1;
        cllm_float_lookup_build(&lookup, &table);
        assert_int_equal(lookup.fold, cases[i].fold);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_palettes_decode_to_their_values),
        cmocka_unit_test(test_decoder_agrees_with_a_plain_one_on_good_chunks),
        cmocka_unit_test(test_decoder_survives_every_flipped_bit),
        cmocka_unit_test(test_decoder_survives_random_damage),
        cmocka_unit_test(test_decoder_survives_any_bytes_behind_the_planes),
        cmocka_unit_test(test_decoder_rejects_every_other_length),
        cmocka_unit_test(test_decoder_survives_another_table),
        cmocka_unit_test(test_lookup_is_rebuilt_for_another_table_only),
        cmocka_unit_test(test_lookup_folds_lengths_of_symbols_that_stay_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

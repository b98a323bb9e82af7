#include "float_builder.h"

#include "cllm_decode.h"
#include "codec.h"
#include "encode_float.h"
#include "sparse.h"
#include "table.h"

#include <stdlib.h>

const struct cllm_layout test_layouts[TEST_LAYOUTS + 1] = {
    {2, 7, 8, 0, 8},                      /* BF16 */
    {2, 8, 8, 0, 8},                      /* F16 */
    {2, 10, 5, 0, 7},                     /* F16, without the upper bits of the mantissa */
    {4, 23, 8, 0, 8},                     /* F32, C64 */
    {8, 52, 8, 0, 7},                     /* F64 */
    {1, 3, 4, 0, 7},                      /* F8_E4M3 */
    {1, 2, 5, 0, 7},                      /* F8_E5M2 */
    {1, 0, 8, 0, 9},                      /* bytes */
    {2, 7, 8, 0, 5},                      /* other segments */
    {2, 7, 8, 0, 12},  {4, 23, 8, 16, 7}, /* BF16 stored as F32 */
    {4, 23, 8, 13, 6},                    /* F16 stored as F32 */
    {2, 8, 8, 8, 7},                      /* no remainder in 16 bits */
    {8, 56, 8, 0, 7},                     /* the field ends at bit 63 */
    {1, 1, 6, 0, 8},                      /* 64 symbols, neighbours */
    {8, 63, 1, 0, 8},                     /* 63 bits of remainder */
    {8, 0, 1, 0, 7},   {1, 7, 1, 7, 7},   /* no remainder at all, one bit of symbol */
    {0, 0, 0, 0, 0},
};

/* An element without its coded field. */
static uint64_t other_bits(const struct cllm_layout *layout, uint64_t bits)
{
    uint64_t field = ((UINT64_C(1) << layout->symbol_bits) - 1) << layout->symbol_shift;
    return bits & ~field & ~((UINT64_C(1) << layout->zero_bits) - 1);
}

static unsigned choose_symbol(struct test_random *random, enum test_content content, uint32_t i, uint32_t element_count)
{
    uint64_t bits = test_random_next(random) >> 8;
    unsigned below = (unsigned)__builtin_ctzll(bits | 1u << 20);
    switch (content) {
    case TEST_TRAINED: return bits >> 50 & 1 ? 124 - below / 2 : 124 + below / 3;
    case TEST_ALL_EQUAL: return 126;
    case TEST_ALL_SYMBOLS: return i;
    case TEST_ONE_SYMBOL: return 200;
    case TEST_SKEWED: return i + 40 < element_count ? 9 : i;
    default: return (unsigned)bits;
    }
}

void test_elements_fill(struct test_random *random, const struct cllm_layout *layout, enum test_content content, uint8_t *out,
                        uint32_t element_count)
{
    for (uint32_t i = 0; i < element_count; i++) {
        uint64_t symbol = choose_symbol(random, content, i, element_count) & ((1u << layout->symbol_bits) - 1);
        uint64_t bits = content == TEST_ALL_EQUAL ? UINT64_C(0x123456789ABCDEF0) : test_random_next(random);
        uint64_t element = other_bits(layout, bits) | symbol << layout->symbol_shift;
        for (unsigned k = 0; k < layout->element_bytes; k++)
            out[(size_t)i * layout->element_bytes + k] = (uint8_t)(element >> 8 * k);
    }
}

void test_float_chunk_encode(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count,
                             struct test_float_chunk *chunk_out)
{
    uint64_t counts[256] = {0};
    struct cllm_float_code code;
    size_t room = cllm_float_encoded_bytes_max(layout, element_count);
    uint8_t *symbols = malloc(element_count), *stored = malloc(room); /* of exactly the sizes promised */
    TEST_REQUIRE(symbols && stored, NULL);
    cllm_float_split(layout, elements, element_count, symbols, stored, counts);
    cllm_table_build(counts, &chunk_out->table);
    cllm_float_code_init(&code, &chunk_out->table);
    size_t stored_bytes = cllm_float_encode(layout, &code, symbols, element_count, stored);
    TEST_REQUIRE(stored_bytes <= room, NULL);
    chunk_out->stored = malloc(stored_bytes);
    TEST_REQUIRE(chunk_out->stored != NULL, NULL);
    memcpy(chunk_out->stored, stored, stored_bytes);
    chunk_out->chunk = (struct cllm_chunk){
        .form = CLLM_FORM_FLOAT, .stored_bytes = (uint32_t)stored_bytes, .decoded_bytes = element_count * layout->element_bytes};
    chunk_out->layout = *layout;
    free(symbols);
    free(stored);
}

/* Completes a sparse chunk; its masks get a table of their own. */
static size_t encode_masks(const struct cllm_layout *layout, const struct cllm_sparse_head *head, const uint8_t *signs,
                           const uint8_t *symbols, uint8_t *stored, struct cllm_table *table_out)
{
    uint64_t counts[256] = {0};
    struct cllm_float_code code;
    for (uint32_t i = 0; i < head->mask_count; i++) counts[symbols[i]]++;
    cllm_table_build(counts, table_out);
    cllm_float_code_init(&code, table_out);
    return cllm_sparse_encode(layout, &code, head, signs, symbols, stored);
}

void test_sparse_chunk_encode(const struct cllm_layout *layout, const uint8_t *elements, uint32_t element_count, bool signs,
                              bool wide, struct test_float_chunk *chunk_out)
{
    unsigned size = layout->element_bytes;
    uint32_t mask_bytes = cllm_mask_bytes(element_count), zeros = element_count;
    uint8_t *masks = malloc(mask_bytes), *symbols = malloc(mask_bytes), *sign_bits = malloc(mask_bytes),
            *present = malloc((size_t)element_count * size),
            *stored = malloc(cllm_sparse_encoded_bytes_max(layout, element_count));
    TEST_REQUIRE(masks && symbols && sign_bits && present && stored, NULL);
    cllm_sparse_split(elements, size, element_count, UINT32_MAX, masks, signs ? sign_bits : NULL, present);
    for (uint32_t i = 0; i < mask_bytes; i++) zeros -= (uint32_t)__builtin_popcount(masks[i]);
    TEST_REQUIRE(zeros > 0 && zeros < element_count, NULL);
    if (wide) zeros = cllm_sparse_absent_count(element_count, zeros);
    cllm_sparse_split(elements, size, element_count, zeros, masks, signs ? sign_bits : NULL, present);
    test_float_chunk_encode(layout, present, element_count - zeros, chunk_out);
    const struct cllm_sparse_head head = {
        .float_bytes = chunk_out->chunk.stored_bytes,
        .sign_bytes = signs ? cllm_mask_bytes(zeros) : 0,
        .mask_count = cllm_sparse_mask_symbols(masks, mask_bytes, symbols),
        .present_count = element_count - zeros,
    };
    memcpy(stored + CLLM_SPARSE_HEAD_BYTES, chunk_out->stored, head.float_bytes);
    size_t stored_bytes = encode_masks(layout, &head, sign_bits, symbols, stored, &chunk_out->mask_table);
    free(chunk_out->stored);
    chunk_out->stored = realloc(stored, stored_bytes);
    TEST_REQUIRE(chunk_out->stored != NULL, NULL);
    chunk_out->chunk = (struct cllm_chunk){.form = CLLM_FORM_SPARSE,
                                           .mask_table_index = 1,
                                           .stored_bytes = (uint32_t)stored_bytes,
                                           .decoded_bytes = element_count * size};
    free(masks);
    free(symbols);
    free(sign_bits);
    free(present);
}

/* 256 values for elements of a size: the symbol in the highest byte, so that they ascend. */
static const uint8_t *palette_of(unsigned element_bytes)
{
    static uint8_t palettes[9][256 * 8];
    uint8_t *palette = palettes[element_bytes];
    for (unsigned s = 0; s < 256; s++) {
        for (unsigned k = 0; k < element_bytes; k++) palette[s * element_bytes + k] = (uint8_t)(s * (2 * k + 3) + k);
        palette[(s + 1) * element_bytes - 1] = (uint8_t)s;
    }
    return palette;
}

void test_palette_chunk_encode(struct test_random *random, const struct cllm_layout *layout, unsigned value_count,
                               uint8_t *elements_out, uint32_t element_count, struct test_float_chunk *chunk_out)
{
    const struct cllm_layout of_palette = cllm_layout_of_palette(layout);
    unsigned size = layout->element_bytes;
    memset(elements_out, 0, (size_t)element_count * size);
    for (uint32_t i = 0; i < element_count; i++) {
        uint64_t draw = test_random_next(random) >> 20;
        elements_out[(i + (size_t)1) * size - 1] = (uint8_t)(i < value_count ? i : draw % 2 ? 0 : draw / 2 % value_count);
    }
    test_float_chunk_encode(&of_palette, elements_out, element_count, chunk_out);
    chunk_out->layout = *layout;
    chunk_out->table.value_bytes = (uint8_t)size;
    chunk_out->table.values = palette_of(size);
    for (uint8_t *at = elements_out; element_count > 0; element_count--, at += size)
        memcpy(at, palette_of(size) + (size_t)at[size - 1] * size, size);
}

enum cllm_status test_float_chunk_decode(const struct test_float_chunk *chunk, const uint8_t *stored, uint32_t stored_bytes,
                                         uint8_t **decoded_out)
{
    static struct cllm_decoder *decoder; /* kept, so that what is left from the chunk before would show */
    struct cllm_chunk copy = chunk->chunk;
    const struct cllm_table tables[] = {chunk->table, chunk->mask_table};
    const struct cllm_data data = {.layout = chunk->layout, .tables = tables, .table_count = 2};
    copy.stored_bytes = stored_bytes;
    size_t buffer_bytes = cllm_chunk_buffer_bytes(&copy);
    uint8_t *buffer = malloc(buffer_bytes);
    *decoded_out = malloc(copy.decoded_bytes);
    if (!decoder) TEST_REQUIRE(cllm_decoder_create(&decoder, NULL) == CLLM_OK, NULL);
    TEST_REQUIRE(buffer && *decoded_out, NULL);
    memset(buffer, 0xA5, buffer_bytes); /* slack may hold anything */
    memcpy(buffer, stored, stored_bytes);
    enum cllm_status status = cllm_decode_chunk(decoder, &data, &copy, buffer, *decoded_out, NULL);
    free(buffer);
    return status;
}

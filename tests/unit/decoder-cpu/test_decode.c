/* Chunks, data objects and files back to bytes. */
#include "bytes.h"
#include "cllm_decode.h"
#include "codec.h"
#include "container_sample.h"
#include "group.h"
#include "reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_decode_chunk_knows_every_form(void **state)
{
    (void)state;
    struct cllm_reader *reader;
    struct cllm_decoder *decoder;
    assert_int_equal(cllm_reader_open("fixtures/good-forms.cllm", &reader, NULL), CLLM_OK);
    assert_int_equal(cllm_decoder_create(&decoder, NULL), CLLM_OK);
    const struct cllm_data *data = cllm_reader_index(reader)->data;
    uint8_t *expected;
    size_t byte_count;
    const struct cllm_file *file = cllm_reader_index(reader)->files;
    assert_int_equal(cllm_load_file(reader, file, 100000, &expected, &byte_count, NULL), CLLM_OK);
    assert_int_equal(data->chunk_count, 4);
    unsigned forms = 0;
    for (uint32_t k = 0; k < data->chunk_count; k++) {
        const struct cllm_chunk *chunk = &data->chunks[k];
        size_t buffer_bytes = cllm_chunk_buffer_bytes(chunk);
        uint8_t *stored = malloc(buffer_bytes), *out = malloc(chunk->decoded_bytes);
        forms |= 1u << chunk->form;
        assert_int_equal(cllm_reader_read_chunk(reader, 0, k, stored, buffer_bytes, NULL), CLLM_OK);
        assert_int_equal(cllm_decode_chunk(decoder, data, chunk, stored, out, NULL), CLLM_OK);
        assert_memory_equal(out, expected + 1024 * k, chunk->decoded_bytes);
        free(stored);
        free(out);
    }
    assert_int_equal(forms, 7);
    free(expected);
    cllm_decoder_destroy(decoder);
    cllm_decoder_destroy(NULL);
    cllm_reader_close(reader);
}

static void test_decode_chunk_of_another_form_is_unsupported(void **state)
{
    (void)state;
    struct cllm_decoder *decoder;
    uint8_t stored[100] = {0}, out[4];
    struct cllm_data data = {0};
    assert_int_equal(cllm_decoder_create(&decoder, NULL), CLLM_OK);
    for (unsigned form = 16; form < 256; form++) {
        struct cllm_chunk chunk = {.form = (uint8_t)form, .stored_bytes = 4, .decoded_bytes = 4};
        assert_int_equal(cllm_decode_chunk(decoder, &data, &chunk, stored, out, NULL), CLLM_E_UNSUPPORTED);
    }
    cllm_decoder_destroy(decoder);
}

/* The one chunk, of `form`, that cpack's encoder makes of `original`; it stays the group's. `data_out` is what it belongs to. */
static const struct cllm_ready_chunk *encode_one(struct cllm_group *group, const struct cllm_plan *plan, const uint8_t *original,
                                                 uint32_t byte_count, enum cllm_form form, struct cllm_data *data_out)
{
    uint32_t chunk_count, table_count;
    memcpy(cllm_group_input(group), original, byte_count);
    assert_int_equal(cllm_group_encode(group, plan, byte_count, NULL), CLLM_OK);
    const struct cllm_ready_chunk *encoded = cllm_group_chunks(group, &chunk_count);
    const struct cllm_table *tables = cllm_group_tables(group, &table_count);
    *data_out = (struct cllm_data){.layout = plan->layout, .tables = tables, .table_count = table_count};
    assert_int_equal(chunk_count, 1);
    assert_int_equal(encoded->chunk.form, form);
    assert_int_equal(encoded->chunk.decoded_bytes, byte_count);
    return encoded;
}

/* A copy of its stored bytes, which decode to `original`, with the slack that decoding asks for; the caller's to free. */
static uint8_t *copy_that_decodes(struct cllm_decoder *decoder, const struct cllm_data *data,
                                  const struct cllm_ready_chunk *encoded, const uint8_t *original, uint8_t *out)
{
    uint8_t *stored = calloc(cllm_chunk_buffer_bytes(&encoded->chunk), 1);
    memcpy(stored, encoded->stored, encoded->chunk.stored_bytes);
    assert_int_equal(cllm_decode_chunk(decoder, data, &encoded->chunk, stored, out, NULL), CLLM_OK);
    assert_memory_equal(out, original, encoded->chunk.decoded_bytes);
    return stored;
}

/* With one bit of `*byte` flipped, which is flipped back, the chunk decodes or is corrupt. */
static void check_flipped(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                          const uint8_t *stored, uint8_t *byte, unsigned bit, uint8_t *out)
{
    *byte ^= (uint8_t)(1u << bit);
    const enum cllm_status status = cllm_decode_chunk(decoder, data, chunk, stored, out, NULL);
    assert_true(status == CLLM_OK || status == CLLM_E_CORRUPT);
    *byte ^= (uint8_t)(1u << bit);
}

/* What cpack's encoder makes of `element_count` elements of which one in `one_in` is not zero, others -0 if `negative`: one
 * chunk, which decodes; with a bit flipped it decodes or is corrupt, within its buffers. */
static void check_sparse(struct cllm_group *group, struct cllm_decoder *decoder, const struct cllm_layout *layout,
                         uint32_t element_count, unsigned one_in, bool negative)
{
    struct test_random random = {element_count + one_in};
    const struct cllm_plan plan = {.layout = *layout, .chunk_bytes = 65536u * layout->element_bytes, .zstd_level = 1};
    const uint32_t byte_count = element_count * layout->element_bytes;
    uint8_t *original = calloc(byte_count, 1), *out = malloc(byte_count), value[8];
    for (uint32_t i = 0; i < element_count; i++) {
        uint64_t noise = test_random_next(&random), draw = test_random_next(&random);
        if (negative) original[((size_t)i + 1) * layout->element_bytes - 1] = (uint8_t)(noise >> 63 << 7);
        uint64_t element = cllm_element_join(layout, (uint8_t)(120 + __builtin_ctzll(draw | 256)), noise >> 8);
        cllm_store_le64(value, element);
        if ((draw >> 32) % one_in == 0) memcpy(original + (size_t)i * layout->element_bytes, value, layout->element_bytes);
    }
    struct cllm_data data;
    const struct cllm_ready_chunk *encoded = encode_one(group, &plan, original, byte_count, CLLM_FORM_SPARSE, &data);
    uint8_t *stored = copy_that_decodes(decoder, &data, encoded, original, out);
    const uint32_t stored_bytes = encoded->chunk.stored_bytes, masks = CLLM_SPARSE_HEAD_BYTES + cllm_load_le32(stored);
    for (unsigned k = 0; k < 60; k++) { /* most flips in the head, and in signs and masks */
        uint32_t from = k % 3 == 1 ? masks : 0, limit = k % 3 == 0 ? CLLM_SPARSE_HEAD_BYTES : stored_bytes - from;
        uint64_t draw = test_random_next(&random);
        uint8_t *byte = stored + from + (draw >> 32) % limit;
        check_flipped(decoder, &data, &encoded->chunk, stored, byte, draw % 8, out);
    }
    free(stored);
    free(original);
    free(out);
}

static void test_sparse_chunks_decode_or_are_corrupt(void **state)
{
    (void)state;
    static const uint32_t counts[] = {4095, 4096, 4097, 10000, 40001};
    static const struct cllm_layout layouts[] = {{2, 7, 8, 0, 8}, {4, 23, 8, 0, 11}, {8, 55, 8, 0, 12}};
    static const struct cllm_layout f8 = {1, 0, 7, 0, 10};
    struct cllm_group *group;
    struct cllm_decoder *decoder;
    assert_int_equal(cllm_group_create(&group, NULL), CLLM_OK);
    assert_int_equal(cllm_decoder_create(&decoder, NULL), CLLM_OK);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (size_t l = 0; l < sizeof layouts / sizeof layouts[0]; l++) {
            check_sparse(group, decoder, &layouts[l], counts[i], 3, i % 2);
            check_sparse(group, decoder, &layouts[l], counts[i], 20, true);
            check_sparse(group, decoder, &layouts[l], counts[i], 150, false);
        }
    }
    check_sparse(group, decoder, &f8, 40001, 9, false);
    cllm_decoder_destroy(decoder);
    cllm_group_destroy(group);
}

/* What cpack's encoder makes of whole numbers times scales: one chunk, which decodes; with a bit flipped it decodes or is
 * corrupt. */
static void check_scaled(struct cllm_group *group, struct cllm_decoder *decoder, enum cllm_scaled_type type,
                         uint32_t element_count)
{
    struct test_random random = {element_count};
    const uint32_t element_bytes = cllm_scaled_element_bytes(type), byte_count = element_count * element_bytes;
    const struct cllm_layout layout = {(uint8_t)element_bytes,
                                       type == CLLM_SCALED_F32   ? 23
                                       : type == CLLM_SCALED_F16 ? 8
                                                                 : 7,
                                       8, 0, 8};
    const struct cllm_plan plan = {.layout = layout, .scaled_type = type, .chunk_bytes = 65536u * element_bytes, .zstd_level = 1};
    uint8_t *original = malloc(byte_count + 2), *out = malloc(byte_count);
    for (uint32_t i = 0; i < element_count; i++) {
        const float scale = cllm_float_of_bits(0x38000000 + i / 96 * 0x12345);
        const float number = (float)(int32_t)(test_random_next(&random) % 31) - 15;
        const uint32_t element = cllm_scaled_element(type, cllm_scaled_round(type, number), scale);
        cllm_store_le16(original + (size_t)i * element_bytes, (uint16_t)element);
        if (element_bytes == 4) cllm_store_le16(original + (size_t)i * 4 + 2, (uint16_t)(element >> 16));
    }
    struct cllm_data data;
    const struct cllm_ready_chunk *encoded = encode_one(group, &plan, original, byte_count, CLLM_FORM_SCALED, &data);
    uint8_t *stored = copy_that_decodes(decoder, &data, encoded, original, out);
    for (unsigned k = 0; k < 200; k++) {
        const uint64_t draw = test_random_next(&random);
        const uint32_t limit = k % 2 ? CLLM_SCALED_HEAD_BYTES : encoded->chunk.stored_bytes;
        uint8_t *byte = stored + (draw >> 32) % limit;
        check_flipped(decoder, &data, &encoded->chunk, stored, byte, draw % 8, out);
    }
    free(stored);
    free(original);
    free(out);
}

static void test_scaled_chunks_decode_or_are_corrupt(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1000, 4096, 40001};
    struct cllm_group *group;
    struct cllm_decoder *decoder;
    assert_int_equal(cllm_group_create(&group, NULL), CLLM_OK);
    assert_int_equal(cllm_decoder_create(&decoder, NULL), CLLM_OK);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (int type = CLLM_SCALED_BF16; type <= CLLM_SCALED_F32; type++) {
            check_scaled(group, decoder, (enum cllm_scaled_type)type, counts[i]);
        }
    }
    cllm_decoder_destroy(decoder);
    cllm_group_destroy(group);
}

static void test_load_data_gives_the_bytes_packed(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    for (unsigned threads = 0; threads <= 4; threads++) {
        struct cllm_load loads[6];
        for (uint32_t i = 0; i < 5; i++) loads[i] = (struct cllm_load){4 - i, malloc(sample.data_bytes[4 - i] + 1)};
        loads[5] = (struct cllm_load){TEST_SAMPLE_TEXT, malloc(sample.data_bytes[TEST_SAMPLE_TEXT])};
        assert_int_equal(cllm_load_data(sample.reader, loads, 6, threads, NULL, NULL), CLLM_OK);
        for (unsigned i = 0; i < 6; i++) {
            assert_memory_equal(loads[i].destination, sample.data[loads[i].data_index], sample.data_bytes[loads[i].data_index]);
            free(loads[i].destination);
        }
        assert_int_equal(cllm_load_data(sample.reader, NULL, 0, threads, NULL, NULL), CLLM_OK);
    }
    test_sample_close(&sample);
}

static void test_load_data_fails_clearly(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    struct cllm_error err;
    struct cllm_load load = {5, NULL};
    assert_int_equal(cllm_load_data(sample.reader, &load, 1, 1, NULL, NULL), CLLM_E_USAGE);
    test_sample_damage(&sample, TEST_SAMPLE_WEIGHTS, 20);
    test_sample_damage(&sample, TEST_SAMPLE_WEIGHTS, 21);
    load = (struct cllm_load){TEST_SAMPLE_WEIGHTS, malloc(sample.data_bytes[TEST_SAMPLE_WEIGHTS])};
    for (unsigned threads = 1; threads <= 4; threads++) {
        assert_int_equal(cllm_load_data(sample.reader, &load, 1, threads, NULL, &err), CLLM_E_DIGEST);
        assert_non_null(strstr(err.message, "tensor \"weights\", chunk 20,"));
    }
    free(load.destination);
    test_sample_close(&sample);
}

static bool stop_at_once(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    unsigned *calls = user;
    ++*calls;
    return done_bytes > total_bytes;
}

static void test_load_data_can_be_interrupted(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    unsigned calls = 0;
    const struct cllm_progress progress = {stop_at_once, &calls};
    struct cllm_load load = {TEST_SAMPLE_WEIGHTS, malloc(sample.data_bytes[TEST_SAMPLE_WEIGHTS])};
    assert_int_equal(cllm_load_data(sample.reader, &load, 1, 2, &progress, NULL), CLLM_E_INTERRUPTED);
    assert_int_equal(calls, 1);
    free(load.destination);
    test_sample_close(&sample);
}

static void test_load_file_is_whole_terminated_and_limited(void **state)
{
    (void)state;
    struct test_sample sample = test_sample_open();
    const struct cllm_index *index = cllm_reader_index(sample.reader);
    uint8_t *bytes;
    size_t byte_count;
    for (unsigned i = 0; i < 3; i++) {
        const struct cllm_file *file = &index->files[i];
        assert_int_equal(cllm_load_file(sample.reader, file, sample.file_bytes[i], &bytes, &byte_count, NULL), CLLM_OK);
        assert_int_equal(byte_count, sample.file_bytes[i]);
        assert_memory_equal(bytes, sample.files[i], byte_count);
        assert_int_equal(bytes[byte_count], 0);
        free(bytes);
        if (sample.file_bytes[i] == 0) continue;
        assert_int_equal(cllm_load_file(sample.reader, file, sample.file_bytes[i] - 1, &bytes, &byte_count, NULL), CLLM_E_LIMIT);
        assert_null(bytes);
        assert_int_equal(byte_count, 0);
    }
    test_sample_close(&sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_chunk_knows_every_form),
        cmocka_unit_test(test_decode_chunk_of_another_form_is_unsupported),
        cmocka_unit_test(test_sparse_chunks_decode_or_are_corrupt),
        cmocka_unit_test(test_scaled_chunks_decode_or_are_corrupt),
        cmocka_unit_test(test_load_data_gives_the_bytes_packed),
        cmocka_unit_test(test_load_data_fails_clearly),
        cmocka_unit_test(test_load_data_can_be_interrupted),
        cmocka_unit_test(test_load_file_is_whole_terminated_and_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "container_builder.h"

#include "bytes.h"
#include "compress.h"
#include "digest.h"
#include "encode_float.h"
#include "fit_scales.h"
#include "shuffle.h"
#include "sparse.h"
#include "table.h"
#include "tables.h"
#include "writer.h"

#include <stdio.h>
#include <stdlib.h>

#define DATA_MAX 256u
#define STRINGS_MAX 1024u

struct kept {
    uint8_t *bytes;
    size_t byte_count;
};

struct test_container {
    struct cllm_output *output;
    struct cllm_writer *writer;
    struct cllm_compressor *compressor;
    struct kept data[DATA_MAX];
    void *owned[STRINGS_MAX]; /* copies that live as long as the writer */
    unsigned owned_count;
    uint32_t file_count;
};

void test_require(bool condition, const char *text, const char *file, int line, const struct cllm_error *err)
{
    if (condition) return;
    fprintf(stderr, "%s:%d: not so: %s%s%s\n", file, line, text, err ? ": " : "", err ? err->message : "");
    abort();
}

uint64_t test_random_next(struct test_random *random)
{
    uint64_t x = random->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random->state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

void test_random_fill(struct test_random *random, void *bytes, size_t byte_count)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < byte_count; i++) at[i] = (uint8_t)(test_random_next(random) >> 56);
}

void test_random_bf16(struct test_random *random, uint8_t *out, size_t element_count)
{
    for (size_t i = 0; i < element_count; i++) {
        uint64_t bits = test_random_next(random) >> 16;
        unsigned below = bits ? (unsigned)__builtin_ctzll(bits) : 0; /* exponents halve in number as they fall */
        unsigned exponent = 123 - (below < 30 ? below : 30);
        uint64_t raw = test_random_next(random) >> 56;
        cllm_store_le16(out + 2 * i, (uint16_t)((raw & 0x80) << 8 | exponent << 7 | (raw & 0x7F)));
    }
}

struct cllm_layout test_layout_bf16(unsigned segment_log2)
{
    return (struct cllm_layout){2, 7, 8, 0, (uint8_t)segment_log2};
}

uint8_t *test_file_read(const char *path, size_t *byte_count_out)
{
    FILE *file = fopen(path, "rb");
    TEST_REQUIRE(file != NULL, NULL);
    TEST_REQUIRE(fseek(file, 0, SEEK_END) == 0, NULL);
    long byte_count = ftell(file);
    TEST_REQUIRE(byte_count >= 0 && fseek(file, 0, SEEK_SET) == 0, NULL);
    uint8_t *bytes = malloc((size_t)byte_count + 1);
    TEST_REQUIRE(bytes && fread(bytes, 1, (size_t)byte_count, file) == (size_t)byte_count, NULL);
    fclose(file);
    bytes[byte_count] = 0;
    *byte_count_out = (size_t)byte_count;
    return bytes;
}

void test_file_write(const char *path, const void *bytes, size_t byte_count)
{
    FILE *file = fopen(path, "wb");
    TEST_REQUIRE(file != NULL, NULL);
    TEST_REQUIRE(fwrite(bytes, 1, byte_count, file) == byte_count, NULL);
    TEST_REQUIRE(fclose(file) == 0, NULL);
}

struct test_container *test_container_create(const char *path)
{
    struct cllm_error err;
    struct test_container *container = calloc(1, sizeof *container);
    TEST_REQUIRE(container != NULL, NULL);
    TEST_REQUIRE(cllm_output_create(path, true, &container->output, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_writer_create(container->output, &container->writer, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_compressor_create(&container->compressor, &err) == CLLM_OK, &err);
    return container;
}

static void *keep(struct test_container *container, const void *bytes, size_t byte_count)
{
    TEST_REQUIRE(container->owned_count < STRINGS_MAX, NULL);
    uint8_t *copy = calloc(byte_count + 1, 1);
    TEST_REQUIRE(copy != NULL, NULL);
    if (byte_count) memcpy(copy, bytes, byte_count);
    return container->owned[container->owned_count++] = copy;
}

/* ------------------------------------------------------------------------------------------------------- data objects */

static uint32_t chunk_size(const struct test_data *data)
{
    return data->chunk_bytes ? data->chunk_bytes : 1024;
}

static enum cllm_form form_of(const struct test_data *data, uint32_t k)
{
    return data->forms ? data->forms[k] : data->form;
}

struct scratch {
    uint8_t *stored;
    uint8_t *symbols;
    struct cllm_float_code code; /* shared by all chunks, if one_table */
    uint16_t shared_table;
    struct cllm_tables *palettes; /* one, in the end sorted */
};

/* Adds to `counts` the symbols of `byte_count` bytes; symbols and planes go to buffers that are large enough. */
static void split(const struct test_data *data, const uint8_t *bytes, uint32_t byte_count, struct scratch *scratch,
                  uint64_t counts[256])
{
    uint32_t count = byte_count / data->layout.element_bytes;
    if (!data->palette) {
        cllm_float_split(&data->layout, bytes, count, scratch->symbols, scratch->stored, counts);
        return;
    }
    struct cllm_palette own = {.count = 0};
    uint64_t indices[256] = {0};
    uint8_t to[256];
    unsigned size = data->layout.element_bytes;
    memset(scratch->palettes, 0, sizeof *scratch->palettes);
    TEST_REQUIRE(cllm_palette_collect(&own, bytes, size, count, scratch->symbols, indices), NULL);
    TEST_REQUIRE(cllm_tables_assign_palette(scratch->palettes, &own, indices, size, UINT64_MAX, to) == 0, NULL);
    cllm_tables_finish(scratch->palettes);
    for (uint32_t i = 0; i < count; i++) scratch->symbols[i] = scratch->palettes->rank[0][to[scratch->symbols[i]]];
    for (unsigned s = 0; s < 256; s++) counts[s] += scratch->palettes->counts[0][s];
}

static uint16_t add_table(struct test_container *container, const struct test_data *data, const uint64_t counts[256],
                          struct scratch *scratch)
{
    struct cllm_error err;
    struct cllm_table table;
    uint16_t table_index;
    cllm_table_build(counts, &table);
    if (data->palette) table = scratch->palettes->table[0];
    cllm_float_code_init(&scratch->code, &table);
    TEST_REQUIRE(cllm_writer_add_table(container->writer, &table, &table_index, &err) == CLLM_OK, &err);
    return table_index;
}

/* For masks, whose symbols these are. */
static uint16_t add_mask_table(struct test_container *container, const uint8_t *symbols, uint32_t symbol_count,
                               struct cllm_float_code *code_out)
{
    struct cllm_error err;
    struct cllm_table table;
    uint64_t counts[256] = {0};
    uint16_t table_index;
    for (uint32_t i = 0; i < symbol_count; i++) counts[symbols[i]]++;
    cllm_table_build(counts, &table);
    cllm_float_code_init(code_out, &table);
    TEST_REQUIRE(cllm_writer_add_table(container->writer, &table, &table_index, &err) == CLLM_OK, &err);
    return table_index;
}

static void share_table(struct test_container *container, const struct test_data *data, struct scratch *scratch)
{
    uint64_t counts[256] = {0};
    uint32_t chunk_bytes = chunk_size(data);
    for (size_t at = 0, k = 0; at < data->byte_count; at += chunk_bytes, k++) {
        size_t left = data->byte_count - at;
        if (form_of(data, (uint32_t)k) != CLLM_FORM_FLOAT) continue;
        split(data, (const uint8_t *)data->bytes + at, left < chunk_bytes ? (uint32_t)left : chunk_bytes, scratch, counts);
    }
    scratch->shared_table = add_table(container, data, counts, scratch);
}

/* Zeros left out, their signs stored if there are any. */
static void encode_sparse(struct test_container *container, const struct test_data *data, struct scratch *scratch,
                          const uint8_t *bytes, struct cllm_chunk *chunk)
{
    const struct cllm_layout layout = data->palette ? cllm_layout_of_palette(&data->layout) : data->layout;
    uint32_t size = layout.element_bytes, element_count = chunk->decoded_bytes / size, negative;
    uint32_t zeros = cllm_sparse_count_zeros(bytes, size, element_count, &negative), mask_bytes = cllm_mask_bytes(element_count);
    uint8_t *masks = malloc(3 * mask_bytes), *signs = masks + mask_bytes, *symbols = signs + mask_bytes,
            *present = malloc(chunk->decoded_bytes + 8);
    struct cllm_float_code mask_code;
    uint64_t counts[256] = {0};
    TEST_REQUIRE(masks && present && zeros < element_count, NULL);
    cllm_sparse_split(bytes, size, element_count, zeros, masks, signs, present);
    split(data, present, (element_count - zeros) * size, scratch, counts);
    chunk->table_index = data->one_table ? scratch->shared_table : add_table(container, data, counts, scratch);
    struct cllm_sparse_head head = {
        .sign_bytes = negative ? cllm_mask_bytes(zeros) : 0,
        .mask_count = cllm_sparse_mask_symbols(masks, mask_bytes, symbols),
        .present_count = element_count - zeros,
    };
    chunk->mask_table_index = add_mask_table(container, symbols, head.mask_count, &mask_code);
    head.float_bytes =
        (uint32_t)cllm_float_encode(&layout, &scratch->code, scratch->symbols, head.present_count, scratch->stored);
    memmove(scratch->stored + CLLM_SPARSE_HEAD_BYTES, scratch->stored, head.float_bytes);
    chunk->stored_bytes = (uint32_t)cllm_sparse_encode(&layout, &mask_code, &head, signs, symbols, scratch->stored);
    free(masks);
    free(present);
}

static void encode_scaled(struct test_container *container, const struct test_data *data, struct scratch *scratch,
                          const uint8_t *bytes, struct cllm_chunk *chunk)
{
    const struct cllm_layout layout = cllm_layout_of_palette(&data->layout);
    const uint32_t element_count = chunk->decoded_bytes / layout.element_bytes;
    float *found = malloc((element_count / 32 + 1) * sizeof *found);
    uint8_t *levels = malloc(chunk->decoded_bytes);
    struct cllm_scales scales = {.scales = found};
    uint64_t counts[256] = {0};
    TEST_REQUIRE(found && levels && cllm_scales_fit(data->scaled_type, bytes, element_count, NULL, &scales, levels), NULL);
    split(data, levels, chunk->decoded_bytes, scratch, counts);
    chunk->table_index = add_table(container, data, counts, scratch);
    const size_t float_bytes = cllm_float_encode(&layout, &scratch->code, scratch->symbols, element_count, scratch->stored);
    memmove(scratch->stored + CLLM_SCALED_HEAD_BYTES, scratch->stored, float_bytes);
    chunk->stored_bytes = (uint32_t)cllm_scales_store(&scales, (uint32_t)float_bytes, scratch->stored);
    free(found);
    free(levels);
}

static void encode_chunk(struct test_container *container, const struct test_data *data, struct scratch *scratch,
                         const uint8_t *bytes, struct cllm_chunk *chunk)
{
    if (chunk->form == CLLM_FORM_SPARSE) {
        encode_sparse(container, data, scratch, bytes, chunk);
    } else if (chunk->form == CLLM_FORM_SCALED) {
        encode_scaled(container, data, scratch, bytes, chunk);
    } else if (chunk->form == CLLM_FORM_FLOAT) {
        uint64_t counts[256] = {0};
        uint32_t element_count = chunk->decoded_bytes / data->layout.element_bytes;
        const struct cllm_layout layout = data->palette ? cllm_layout_of_palette(&data->layout) : data->layout;
        split(data, bytes, chunk->decoded_bytes, scratch, counts);
        chunk->table_index = data->one_table ? scratch->shared_table : add_table(container, data, counts, scratch);
        chunk->stored_bytes =
            (uint32_t)cllm_float_encode(&layout, &scratch->code, scratch->symbols, element_count, scratch->stored);
    } else if (chunk->form == CLLM_FORM_ZSTD || chunk->form == CLLM_FORM_PLANES) {
        unsigned frame_count = chunk->form == CLLM_FORM_PLANES ? data->layout.element_bytes : 1;
        uint32_t count = chunk->decoded_bytes / frame_count;
        cllm_shuffle(bytes, frame_count, count, scratch->symbols);
        for (unsigned k = 0; k < frame_count; k++) {
            size_t frame_bytes = cllm_compress(container->compressor, scratch->symbols + (size_t)k * count, count, 19,
                                               scratch->stored + chunk->stored_bytes, chunk->decoded_bytes);
            TEST_REQUIRE(frame_bytes > 0, NULL);
            chunk->stored_bytes += (uint32_t)frame_bytes;
        }
    } else {
        memcpy(scratch->stored, bytes, chunk->decoded_bytes);
        chunk->stored_bytes = chunk->decoded_bytes;
    }
}

uint32_t test_container_data(struct test_container *container, const struct test_data *data)
{
    struct cllm_error err;
    struct scratch scratch = {.stored = malloc(8 * (size_t)chunk_size(data) + 4096),
                              .symbols = malloc(chunk_size(data) + 64),
                              .palettes = malloc(sizeof *scratch.palettes)};
    uint32_t chunk_bytes = chunk_size(data), chunk_count = (uint32_t)((data->byte_count + chunk_bytes - 1) / chunk_bytes);
    uint8_t *leaves = malloc(CLLM_DIGEST_BYTES * (size_t)chunk_count + 1), root[CLLM_DIGEST_BYTES];
    uint32_t data_index;
    bool shared;
    TEST_REQUIRE(scratch.stored && scratch.symbols && scratch.palettes && leaves, NULL);
    TEST_REQUIRE(cllm_writer_begin_data(container->writer, data->byte_count, chunk_bytes, &data->layout, &err) == CLLM_OK, &err);
    if (data->one_table) share_table(container, data, &scratch);
    for (uint32_t k = 0; k < chunk_count; k++) {
        size_t offset = (size_t)k * chunk_bytes, left = data->byte_count - offset;
        const uint8_t *bytes = (const uint8_t *)data->bytes + offset;
        struct cllm_chunk chunk = {.form = (uint8_t)form_of(data, k),
                                   .decoded_bytes = left < chunk_bytes ? (uint32_t)left : chunk_bytes};
        encode_chunk(container, data, &scratch, bytes, &chunk);
        TEST_REQUIRE(cllm_sha256(bytes, chunk.decoded_bytes, leaves + CLLM_DIGEST_BYTES * (size_t)k, &err) == CLLM_OK, &err);
        TEST_REQUIRE(cllm_writer_add_chunk(container->writer, &chunk, scratch.stored, &err) == CLLM_OK, &err);
    }
    TEST_REQUIRE(cllm_data_root(data->byte_count, chunk_bytes, leaves, chunk_count, root, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_writer_end_data(container->writer, root, &data_index, &shared, &err) == CLLM_OK, &err);
    TEST_REQUIRE(data_index < DATA_MAX, NULL);
    if (!shared) container->data[data_index] = (struct kept){keep(container, data->bytes, data->byte_count), data->byte_count};
    free(leaves);
    free(scratch.palettes);
    free(scratch.symbols);
    free(scratch.stored);
    return data_index;
}

const uint8_t *test_container_bytes(const struct test_container *container, uint32_t data_index, size_t *byte_count_out)
{
    *byte_count_out = container->data[data_index].byte_count;
    return container->data[data_index].bytes;
}

/* -------------------------------------------------------------------------------------------------- files and tensors */

uint32_t test_container_file(struct test_container *container, const char *name, const uint32_t *parts, uint32_t part_count)
{
    struct cllm_error err;
    struct cllm_sha256_stream *stream;
    struct cllm_file file = {.name = keep(container, name, strlen(name)),
                             .parts = keep(container, parts, sizeof *parts * part_count),
                             .name_bytes = (uint32_t)strlen(name),
                             .part_count = part_count};
    TEST_REQUIRE(cllm_sha256_create(&stream, &err) == CLLM_OK, &err);
    for (uint32_t i = 0; i < part_count; i++) {
        const struct kept *part = &container->data[parts[i]];
        file.bytes += part->byte_count;
        TEST_REQUIRE(cllm_sha256_update(stream, part->bytes, part->byte_count, &err) == CLLM_OK, &err);
    }
    TEST_REQUIRE(cllm_sha256_finish(stream, file.sha256, &err) == CLLM_OK, &err);
    cllm_sha256_destroy(stream);
    TEST_REQUIRE(cllm_writer_add_file(container->writer, &file, &err) == CLLM_OK, &err);
    return container->file_count++;
}

void test_container_tensor(struct test_container *container, const struct cllm_tensor *tensor)
{
    struct cllm_error err;
    struct cllm_tensor copy = *tensor;
    copy.name = keep(container, tensor->name, tensor->name_bytes);
    copy.dtype = keep(container, tensor->dtype, strlen(tensor->dtype));
    copy.shape = tensor->rank ? keep(container, tensor->shape, sizeof *tensor->shape * tensor->rank) : NULL;
    TEST_REQUIRE(cllm_writer_add_tensor(container->writer, &copy, &err) == CLLM_OK, &err);
}

void test_container_finish(struct test_container *container)
{
    struct cllm_error err;
    uint8_t root[CLLM_DIGEST_BYTES];
    TEST_REQUIRE(cllm_writer_finish(container->writer, root, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_output_commit(container->output, &err) == CLLM_OK, &err);
    cllm_writer_destroy(container->writer);
    cllm_compressor_destroy(container->compressor);
    for (unsigned i = 0; i < container->owned_count; i++) free(container->owned[i]);
    free(container);
}

void test_container_of_files(const char *path, const uint8_t *bytes, uint32_t file_count, size_t file_bytes)
{
    struct test_container *container = test_container_create(path);
    for (uint32_t i = 0; i < file_count; i++) {
        const char name[3] = {'f', (char)('0' + i), 0};
        const struct test_data data = {
            .form = CLLM_FORM_RAW, .chunk_bytes = 65536, .bytes = bytes + i * file_bytes, .byte_count = file_bytes};
        const uint32_t data_index = test_container_data(container, &data);
        test_container_file(container, name, &data_index, 1);
    }
    test_container_finish(container);
}

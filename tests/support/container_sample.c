#include "container_sample.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WEIGHTS 1500001u /* elements: three runs of chunks, the last chunk short */

static void fill(struct test_sample *sample)
{
    static const size_t sizes[5] = {9, 2 * (size_t)WEIGHTS, 5000, 3000, 0};
    struct test_random random = {61};
    for (unsigned i = 0; i < 5; i++) {
        sample->data_bytes[i] = sizes[i];
        sample->data[i] = malloc(sizes[i] + 1);
        TEST_REQUIRE(sample->data[i] != NULL, NULL);
    }
    memcpy(sample->data[TEST_SAMPLE_LITERAL], "a literal", 9);
    test_random_bf16(&random, sample->data[TEST_SAMPLE_WEIGHTS], WEIGHTS);
    for (size_t i = 0; i < 5000; i++) sample->data[TEST_SAMPLE_TEXT][i] = (uint8_t) "some words and "[i % 15];
    test_random_fill(&random, sample->data[TEST_SAMPLE_NOISE], 3000);
}

static void join(struct test_sample *sample, unsigned file, const uint32_t *parts, uint32_t part_count)
{
    sample->files[file] = malloc(2 * sample->data_bytes[TEST_SAMPLE_WEIGHTS] + 10000);
    TEST_REQUIRE(sample->files[file] != NULL, NULL);
    for (uint32_t i = 0; i < part_count; i++) {
        memcpy(sample->files[file] + sample->file_bytes[file], sample->data[parts[i]], sample->data_bytes[parts[i]]);
        sample->file_bytes[file] += sample->data_bytes[parts[i]];
    }
}

static void add_data(struct test_sample *sample, struct test_container *container)
{
    struct test_data objects[5] = {
        {.form = CLLM_FORM_RAW},  {.form = CLLM_FORM_FLOAT, .chunk_bytes = 65536, .layout = test_layout_bf16(7)},
        {.form = CLLM_FORM_ZSTD}, {.form = CLLM_FORM_RAW},
        {.form = CLLM_FORM_RAW},
    };
    for (unsigned i = 0; i < 5; i++) {
        objects[i].bytes = sample->data[i];
        objects[i].byte_count = sample->data_bytes[i];
        TEST_REQUIRE(test_container_data(container, &objects[i]) == i, NULL);
    }
}

struct test_sample test_sample_open(void)
{
    struct test_sample sample = {.dir = test_dir_create()};
    struct cllm_error err;
    const uint64_t weights_shape[1] = {WEIGHTS}, noise_shape[2] = {30, 100}, none_shape[2] = {7, 0};
    static const uint32_t model[4] = {TEST_SAMPLE_LITERAL, TEST_SAMPLE_WEIGHTS, TEST_SAMPLE_NOISE, TEST_SAMPLE_WEIGHTS};
    static const uint32_t text[1] = {TEST_SAMPLE_TEXT}, nothing[1] = {TEST_SAMPLE_NOTHING};
    sample.path = test_dir_path(&sample.dir, "sample.cllm");
    fill(&sample);
    struct test_container *container = test_container_create(sample.path);
    add_data(&sample, container);
    const struct cllm_tensor tensors[] = {
        {.name = "weights",
         .name_bytes = 7,
         .dtype = "BF16",
         .element_bits = 16,
         .rank = 1,
         .shape = weights_shape,
         .data_index = 1},
        {.name = "tied",
         .name_bytes = 4,
         .dtype = "BF16",
         .element_bits = 16,
         .rank = 1,
         .shape = weights_shape,
         .data_index = 1},
        {.name = "noise", .name_bytes = 5, .dtype = "U8", .element_bits = 8, .rank = 2, .shape = noise_shape, .data_index = 3},
        {.name = "none",
         .name_bytes = 4,
         .dtype = "F32",
         .element_bits = 32,
         .rank = 2,
         .shape = none_shape,
         .data_index = 4,
         .file_index = 2},
    };
    for (size_t i = 0; i < 4; i++) test_container_tensor(container, &tensors[i]);
    test_container_file(container, "model.bin", model, 4);
    test_container_file(container, "notes/text", text, 1);
    test_container_file(container, "empty", nothing, 1);
    test_container_finish(container);
    join(&sample, 0, model, 4);
    join(&sample, 1, text, 1);
    join(&sample, 2, nothing, 1);
    TEST_REQUIRE(cllm_reader_open(sample.path, &sample.reader, &err) == CLLM_OK, &err);
    return sample;
}

void test_sample_close(struct test_sample *sample)
{
    cllm_reader_close(sample->reader);
    test_dir_remove(&sample->dir);
    for (unsigned i = 0; i < 5; i++) free(sample->data[i]);
    for (unsigned i = 0; i < 3; i++) free(sample->files[i]);
}

void test_sample_damage(const struct test_sample *sample, uint32_t data_index, uint32_t chunk_index)
{
    uint8_t byte;
    off_t offset = (off_t)cllm_reader_index(sample->reader)->data[data_index].chunks[chunk_index].stored_offset;
    int file = open(sample->path, O_RDWR);
    TEST_REQUIRE(file >= 0 && pread(file, &byte, 1, offset) == 1, NULL);
    byte ^= 0x10;
    TEST_REQUIRE(pwrite(file, &byte, 1, offset) == 1, NULL);
    close(file);
}

/* container_sample.h - a container with every form, several runs of chunks, shared and empty data: what reading is tested on. */
#ifndef CLLM_CONTAINER_SAMPLE_H
#define CLLM_CONTAINER_SAMPLE_H

#include "container_builder.h"
#include "test_dir.h"

struct test_sample {
    struct test_dir dir;
    const char *path;
    struct cllm_reader *reader;
    uint8_t *data[5]; /* the decoded bytes of each data object: literal, weights, text, noise, nothing */
    size_t data_bytes[5];
    uint8_t *files[3]; /* model.bin (0 1 3 1), notes/text (2), empty (4) */
    size_t file_bytes[3];
};

enum { TEST_SAMPLE_LITERAL, TEST_SAMPLE_WEIGHTS, TEST_SAMPLE_TEXT, TEST_SAMPLE_NOISE, TEST_SAMPLE_NOTHING };

struct test_sample test_sample_open(void);
void test_sample_close(struct test_sample *sample);

/* Changes a stored byte of a chunk in the file that is open. */
void test_sample_damage(const struct test_sample *sample, uint32_t data_index, uint32_t chunk_index);

#endif

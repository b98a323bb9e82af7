/* safetensors_builder.h - safetensors files for tests, right or wrong on purpose. */
#ifndef CLLM_SAFETENSORS_BUILDER_H
#define CLLM_SAFETENSORS_BUILDER_H

#include "test_dir.h"

#include <stdint.h>

/* A file in memory; `bytes` is the caller's to free. */
struct test_safetensors {
    uint8_t *bytes;
    size_t byte_count;
    size_t header_bytes; /* with the length field */
};

/* The length of `header`, the header, and `data_bytes` bytes of data: 1, 2, 3, ... */
struct test_safetensors test_safetensors_build(const char *header, size_t data_bytes);

/* Builds and writes. */
void test_safetensors_write(const struct test_dir *dir, const char *name, const char *header, size_t data_bytes);

/* A valid file with one U8 tensor per name (a null ends the list), of 1, 2, 3, ... bytes. */
void test_safetensors_write_tensors(const struct test_dir *dir, const char *name, const char *const *tensor_names);

#endif

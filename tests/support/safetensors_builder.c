#include "safetensors_builder.h"

#include "bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct test_safetensors test_safetensors_build(const char *header, size_t data_bytes)
{
    struct test_safetensors built = {.header_bytes = 8 + strlen(header)};
    built.byte_count = built.header_bytes + data_bytes;
    built.bytes = malloc(built.byte_count);
    assert_non_null(built.bytes);
    cllm_store_le64(built.bytes, strlen(header));
    memcpy(built.bytes + 8, header, strlen(header));
    for (size_t i = 0; i < data_bytes; i++) built.bytes[built.header_bytes + i] = (uint8_t)(i + 1);
    return built;
}

void test_safetensors_write(const struct test_dir *dir, const char *name, const char *header, size_t data_bytes)
{
    struct test_safetensors built = test_safetensors_build(header, data_bytes);
    test_dir_write(dir, name, built.bytes, built.byte_count);
    free(built.bytes);
}

void test_safetensors_write_tensors(const struct test_dir *dir, const char *name, const char *const *tensor_names)
{
    char header[4096];
    size_t used = (size_t)snprintf(header, sizeof header, "{"), end = 0;
    for (size_t i = 0; tensor_names[i]; i++) {
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}", i ? "," : "",
                                 tensor_names[i], i + 1, end, end + i + 1);
        end += i + 1;
        assert_true(used < sizeof header - 1);
    }
    snprintf(header + used, sizeof header - used, "}");
    test_safetensors_write(dir, name, header, end);
}

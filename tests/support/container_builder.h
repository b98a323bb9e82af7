/* container_builder.h - containers made for tests through the writer's API. What fails here is a bug of the test or of the
 * writer: the program prints where and aborts.
 */
#ifndef CLLM_CONTAINER_BUILDER_H
#define CLLM_CONTAINER_BUILDER_H

#include "scaled.h"

/* Aborts with the place and `err`'s message, if given, where `condition` does not hold. */
#define TEST_REQUIRE(condition, err) test_require((condition), #condition, __FILE__, __LINE__, (err))
void test_require(bool condition, const char *text, const char *file, int line, const struct cllm_error *err);

/* Pseudo-random numbers (xorshift64*), so that tests need no seed from outside. */
struct test_random {
    uint64_t state; /* not 0 */
};
uint64_t test_random_next(struct test_random *random);
void test_random_fill(struct test_random *random, void *bytes, size_t byte_count);

/* Bytes of `element_count` BF16 numbers as in a trained tensor: few different exponents. */
void test_random_bf16(struct test_random *random, uint8_t *out, size_t element_count);

/* The layout that suits BF16, with segments of 2^segment_log2 symbols. */
struct cllm_layout test_layout_bf16(unsigned segment_log2);

/* A whole file in memory; the caller frees. */
uint8_t *test_file_read(const char *path, size_t *byte_count_out);
void test_file_write(const char *path, const void *bytes, size_t byte_count);

struct test_container; /* being built; one at a time per path */
struct test_container *test_container_create(const char *path);

struct test_data {
    const void *bytes;
    size_t byte_count;
    uint32_t chunk_bytes;        /* 0: 1024 */
    struct cllm_layout layout;   /* all zero: no float form */
    const enum cllm_form *forms; /* of each chunk; null: the forms below for all chunks */
    enum cllm_form form;
    bool one_table;                    /* all float chunks share one code table; otherwise each has its own */
    bool palette;                      /* code tables have a palette: and chunks have at most 256 different elements */
    enum cllm_scaled_type scaled_type; /* of scaled chunks: their numbers have a palette */
};

/* Writes a data object and returns its index. `data` and what it points to may go afterwards. */
uint32_t test_container_data(struct test_container *container, const struct test_data *data);

/* Where to find the bytes again that a data object decodes to. */
const uint8_t *test_container_bytes(const struct test_container *container, uint32_t data_index, size_t *byte_count_out);

/* Adds a file, whose size and digest are computed here; names are copied. Returns its index. */
uint32_t test_container_file(struct test_container *container, const char *name, const uint32_t *parts, uint32_t part_count);

/* Adds a tensor (of a rank up to 64); name, dtype and shape are copied. Tensors come in the order of their files. */
void test_container_tensor(struct test_container *container, const struct cllm_tensor *tensor);

/* Finishes, commits, frees. */
void test_container_finish(struct test_container *container);

/* A whole container of files f0, f1 and so on, ten at most: of so many of `bytes` each, one behind the other, RAW in chunks of 64
 * KiB. */
void test_container_of_files(const char *path, const uint8_t *bytes, uint32_t file_count, size_t file_bytes);

#endif

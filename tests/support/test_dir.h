/* test_dir.h - a temporary directory for one test, and files in it. Every function aborts the test where it fails. */
#ifndef CLLM_TEST_DIR_H
#define CLLM_TEST_DIR_H

#include <stddef.h>

struct test_dir {
    char path[200];
};

/* A new empty directory under TMPDIR or /tmp. */
struct test_dir test_dir_create(void);

/* Removes it with everything in it. */
void test_dir_remove(const struct test_dir *dir);

/* The path of `name` in it; the result lives until the next eight calls. */
const char *test_dir_path(const struct test_dir *dir, const char *name);

/* Writes a file, creating the directories of its name. */
void test_dir_write(const struct test_dir *dir, const char *name, const void *bytes, size_t byte_count);
void test_dir_write_text(const struct test_dir *dir, const char *name, const char *text);

#endif

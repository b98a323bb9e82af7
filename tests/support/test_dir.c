#include "test_dir.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

struct test_dir test_dir_create(void)
{
    struct test_dir dir;
    const char *parent = getenv("TMPDIR");
    snprintf(dir.path, sizeof dir.path, "%s/cllm-test-XXXXXX", parent && *parent ? parent : "/tmp");
    assert_non_null(mkdtemp(dir.path));
    return dir;
}

static int remove_one(const char *path, const struct stat *found, int kind, struct FTW *ftw)
{
    (void)found, (void)kind, (void)ftw;
    return remove(path);
}

void test_dir_remove(const struct test_dir *dir)
{
    assert_int_equal(nftw(dir->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *test_dir_path(const struct test_dir *dir, const char *name)
{
    static char paths[8][5000];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir->path, name);
    return path;
}

static void create_parents(const struct test_dir *dir, const char *name)
{
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        char part[4200];
        snprintf(part, sizeof part, "%.*s", (int)(slash - name), name);
        mkdir(test_dir_path(dir, part), 0777);
    }
}

void test_dir_write(const struct test_dir *dir, const char *name, const void *bytes, size_t byte_count)
{
    create_parents(dir, name);
    FILE *file = fopen(test_dir_path(dir, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, byte_count, file), byte_count);
    assert_int_equal(fclose(file), 0);
}

void test_dir_write_text(const struct test_dir *dir, const char *name, const char *text)
{
    test_dir_write(dir, name, text, strlen(text));
}

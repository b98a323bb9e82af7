/* mkfixtures.c - writes fixtures/good-*, bad-*, unsupported-* and the table in fixtures/README.md. Run it in the root of the
 * project:  mkfixtures fixtures
 * The containers are made with the library's writer; those with a fault then have bytes changed and every checksum above the
 * fault recomputed. */
#include "mkfixtures.h"

#include <stdio.h>
#include <stdlib.h>

struct test_surgery open_for_surgery(const char *path)
{
    size_t byte_count;
    uint8_t *bytes = test_file_read(path, &byte_count);
    struct test_surgery surgery = test_surgery_open(bytes, byte_count);
    free(bytes);
    return surgery;
}

void close_surgery(struct test_surgery *surgery, const char *path)
{
    size_t byte_count;
    uint8_t *bytes = test_surgery_close(surgery, &byte_count);
    test_file_write(path, bytes, byte_count);
    free(bytes);
}

static const char introduction[] =
    "# Fixtures\n"
    "\n"
    "Tiny containers with one property or one fault each, and a small trained model (`shakespeare-llama`). *result* is the class "
    "of\n"
    "the outcome (FORMAT.md 2: format = not a container, damaged = a checksum or digest differs) and *step* where it is found:\n"
    "when the container is opened, or when everything in it is verified. `tests/unit/format/test_reader.c` reads this table and\n"
    "holds the library to it; a fixture that is not in the table fails the test.\n"
    "\n"
    "`tests/tools/mkfixtures.c` writes the containers and this file. It uses the writer of the library and, for those with a "
    "fault,\n"
    "changes bytes afterwards and recomputes every checksum, size and digest above the fault, so that the fault named is the "
    "only\n"
    "one. zstd frames depend on the version of libzstd; nothing depends on their exact bytes.\n"
    "\n"
    "    make lib build/release/tests/tools/mkfixtures{,_good,_bad}.o build/release/tests/support/container_{builder,surgery}.o\n"
    "    cc -o build/mkfixtures build/release/tests/tools/mkfixtures*.o "
    "build/release/tests/support/container_{builder,surgery}.o \\\n"
    "        build/release/libcllm.a -lzstd -lxxhash -lcrypto\n"
    "    build/mkfixtures fixtures\n";

static void make_all(const char *folder, const char *title, const struct fixture *fixtures, size_t count, FILE *readme)
{
    fprintf(readme, "\n## %s\n\n| file | result | step | what |\n|---|---|---|---|\n", title);
    for (size_t i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.cllm", folder, fixtures[i].name);
        fixtures[i].make(&fixtures[i], path);
        fprintf(readme, "| %s.cllm | %s | %s | %s |\n", fixtures[i].name, fixtures[i].result, fixtures[i].step, fixtures[i].what);
    }
}

int main(int argc, char **argv)
{
    char path[4096];
    if (argc != 2) {
        fprintf(stderr, "usage: mkfixtures FOLDER\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/README.md", argv[1]);
    FILE *readme = fopen(path, "w");
    TEST_REQUIRE(readme != NULL, NULL);
    fputs(introduction, readme);
    make_all(argv[1], "Good", good_fixtures, good_fixture_count, readme);
    make_all(argv[1], "Bad and unsupported", bad_fixtures, bad_fixture_count, readme);
    TEST_REQUIRE(fclose(readme) == 0, NULL);
    return 0;
}

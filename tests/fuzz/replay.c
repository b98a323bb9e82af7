/* replay.c - runs a fuzz target over files: replay_NAME FILE-OR-FOLDER...   Fails where one of them cannot be read. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static unsigned run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    long size = -1;
    if (file && fseek(file, 0, SEEK_END) == 0) size = ftell(file);
    if (size < 0 || fseek(file, 0, SEEK_SET) != 0) {
        fprintf(stderr, "replay: cannot read %s\n", path);
        exit(1);
    }
    uint8_t *bytes = malloc(size ? (size_t)size : 1); /* exactly as long as the input, for the sanitizer */
    if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size) exit(1);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, (size_t)size);
    free(bytes);
    return 1;
}

static unsigned run_path(const char *path)
{
    struct dirent **entries;
    unsigned done = 0;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0) return run_file(path);
    for (int i = 0; i < count; i++) {
        char inside[4096];
        snprintf(inside, sizeof inside, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.') done += run_file(inside);
        free(entries[i]);
    }
    free(entries);
    return done;
}

int main(int argc, char **argv)
{
    unsigned done = 0;
    for (int i = 1; i < argc; i++) done += run_path(argv[i]);
    printf("%s: %u inputs\n", argv[0], done);
    return 0;
}

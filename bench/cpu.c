/* cpu.c - how fast the CPU tools are: pack, verify, restore and decode in GB/s of original bytes, on one core and on all, beside
 * memcpy and zstd on the same bytes in the same run. Medians of repeated runs; everything in the page cache. What a run wrote is
 * removed before the next one, outside of the time: freeing the pages of a file that is replaced takes as long as a tenth of it.
 *
 *   build/release/bench/cpu [-r RUNS] [FILE.safetensors ...]      (without a file: 64 MiB of Gaussian BF16)
 */
#include "cllm_decode.h"
#include "cllm_encode.h"
#include "compress.h"
#include "gaussian.h"
#include "pipeline.h"

#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUNS_MAX 99
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define ZSTD_STRONG_RUNS 1 /* level 19 takes minutes a gigabyte */

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void stop_on(enum cllm_status status, const struct cllm_error *err)
{
    if (status == CLLM_OK) return;
    fprintf(stderr, "cpu: %s\n", err->message);
    exit(1);
}

/* What is measured, and everything that a measurement may need. */
struct subject {
    const char *path;
    const char *programs; /* the folder of cpack and cverify */
    char container[256];
    char scratch[256];
    uint8_t *original; /* the weights file */
    uint8_t *copy;     /* room for frames: larger than the original */
    uint8_t *decoded;
    size_t byte_count;
    size_t frame_bytes;
    int level;
    unsigned thread_count;
    uint64_t container_bytes;
    long peak_mib[4]; /* cpack with one thread, with all; cverify */
};

static void run_memcpy(struct subject *s)
{
    memcpy(s->decoded, s->original, s->byte_count);
}

static void run_pack(struct subject *s)
{
    struct cllm_error err;
    struct cllm_source *source = NULL;
    struct cllm_pack_report report;
    const struct cllm_source_options source_options = {.only_weights = true};
    const struct cllm_pack_options options = {.thread_count = s->thread_count, .replace = true};
    stop_on(cllm_source_open(s->path, &source_options, &source, &err), &err);
    stop_on(cllm_pack(source, s->container, &options, &report, &err), &err);
    s->container_bytes = report.container_bytes;
    cllm_source_close(source);
}

static struct cllm_reader *open_container(const struct subject *s)
{
    struct cllm_error err;
    struct cllm_reader *reader = NULL;
    stop_on(cllm_reader_open(s->container, &reader, &err), &err);
    return reader;
}

static void verify(const struct subject *s, bool quick)
{
    struct cllm_error err;
    struct cllm_verify_report report;
    struct cllm_reader *reader = open_container(s);
    const struct cllm_verify_options options = {.thread_count = s->thread_count, .quick = quick};
    stop_on(cllm_verify(reader, &options, &report, &err), &err);
    cllm_reader_close(reader);
}

static void run_verify(struct subject *s)
{
    verify(s, false);
}

static void run_quick(struct subject *s)
{
    verify(s, true);
}

static enum cllm_status write_piece(void *user, const void *bytes, size_t byte_count, struct cllm_error *err)
{
    int file = *(int *)user;
    if (write(file, bytes, byte_count) != (ssize_t)byte_count) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot write");
    return CLLM_OK;
}

static void run_restore(struct subject *s)
{
    struct cllm_error err;
    struct cllm_reader *reader = open_container(s);
    int file = open(s->scratch, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const struct cllm_sink sink = {write_piece, &file};
    const struct cllm_restore_options options = {.thread_count = s->thread_count};
    stop_on(cllm_restore_file(reader, &cllm_reader_index(reader)->files[0], &sink, &options, &err), &err);
    close(file);
    cllm_reader_close(reader);
}

/* All data objects into memory, one after the other: what loading a model does. */
static void run_decode(struct subject *s)
{
    struct cllm_error err;
    struct cllm_reader *reader = open_container(s);
    const struct cllm_index *index = cllm_reader_index(reader);
    struct cllm_load *loads = calloc(index->data_count, sizeof *loads);
    uint8_t *at = s->decoded;
    for (uint32_t i = 0; i < index->data_count; i++) {
        loads[i] = (struct cllm_load){i, at};
        at += index->data[i].decoded_bytes;
    }
    stop_on(cllm_load_data(reader, loads, index->data_count, s->thread_count, NULL, &err), &err);
    free(loads);
    cllm_reader_close(reader);
}

static void run_zstd(struct subject *s)
{
    struct cllm_error err;
    struct cllm_compressor *compressor = NULL;
    stop_on(cllm_compressor_create(&compressor, &err), &err);
    s->frame_bytes =
        cllm_compress(compressor, s->original, s->byte_count, s->level, s->copy, s->byte_count + s->byte_count / 8 + 1024);
    cllm_compressor_destroy(compressor);
}

static void run_unzstd(struct subject *s)
{
    struct cllm_error err;
    struct cllm_compressor *compressor = NULL;
    stop_on(cllm_compressor_create(&compressor, &err), &err);
    stop_on(cllm_decompress(compressor, s->copy, s->frame_bytes, s->decoded, s->byte_count, &err), &err);
    cllm_compressor_destroy(compressor);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* What is measured: a row. */
struct operation {
    const char *name;
    void (*run)(struct subject *s);
    const char *output;     /* that it makes anew; or null */
    const uint64_t *stored; /* bytes, afterwards; or null */
};

/* Prints one row; returns the median speed in GB/s. */
static double measure(struct subject *s, unsigned runs, struct operation operation)
{
    double speeds[RUNS_MAX];
    const uint64_t *stored = operation.stored;
    operation.run(s); /* warm: page cache, page tables */
    for (unsigned i = 0; i < runs; i++) {
        if (operation.output) unlink(operation.output);
        double start = seconds_now();
        operation.run(s);
        speeds[i] = (double)s->byte_count / (seconds_now() - start) / 1e9;
    }
    qsort(speeds, runs, sizeof *speeds, compare_doubles);
    printf("| %-22s | %7u | %8.3f | %8.3f | %8.3f |", operation.name, s->thread_count, speeds[runs / 2], speeds[0],
           speeds[runs - 1]);
    if (stored) printf(" %6.2f %% |\n", 100.0 * (double)*stored / (double)s->byte_count);
    else printf("          |\n");
    fflush(stdout);
    return speeds[runs / 2];
}

static void measure_zstd(struct subject *s, int level, unsigned runs)
{
    char name[32];
    s->level = level;
    s->thread_count = 1;
    run_zstd(s);
    uint64_t stored = s->frame_bytes;
    snprintf(name, sizeof name, "zstd -%d", level);
    measure(s, runs, (struct operation){.name = name, .run = run_zstd, .stored = &stored});
    snprintf(name, sizeof name, "zstd -%d decode", level);
    measure(s, runs, (struct operation){.name = name, .run = run_unzstd});
}

/* Peak resident memory of a program of this build, in MiB; -1 where it is not there or fails. Linux counts what this process had
 * at its own peak, so this comes first of all. */
static long peak_mib(const char *const arguments[])
{
    struct rusage used;
    int state = 0;
    pid_t child = 0;
    if (posix_spawn(&child, arguments[0], NULL, NULL, (char *const *)arguments, environ) != 0) return -1;
    if (wait4(child, &state, 0, &used) != child || state != 0) return -1;
    return used.ru_maxrss / 1024;
}

static void measure_memory(struct subject *s)
{
    const unsigned threads = cllm_thread_count(0);
    char count[16], cpack[512], cverify[512];
    snprintf(count, sizeof count, "-T%u", threads);
    snprintf(cpack, sizeof cpack, "%s/cpack", s->programs);
    snprintf(cverify, sizeof cverify, "%s/cverify", s->programs);
    const char *const pack_one[] = {cpack, "-qfT1", "--only-weights", s->path, "-o", s->container, NULL};
    const char *const pack_all[] = {cpack, "-qf", count, "--only-weights", s->path, "-o", s->container, NULL};
    const char *const verify_one[] = {cverify, "-qT1", s->container, NULL};
    const char *const verify_all[] = {cverify, "-q", count, s->container, NULL};
    s->peak_mib[0] = peak_mib(pack_one);
    s->peak_mib[1] = peak_mib(pack_all);
    s->peak_mib[2] = peak_mib(verify_one);
    s->peak_mib[3] = peak_mib(verify_all);
}

static void measure_file(struct subject *s, unsigned runs)
{
    unsigned all = cllm_thread_count(0);
    printf("\n%s, %.1f MB, median of %u runs\n\n", s->path, (double)s->byte_count / 1e6, runs);
    printf("| operation              | threads |     GB/s |  slowest |  fastest |   stored |\n");
    printf("|------------------------|--------:|---------:|---------:|---------:|---------:|\n");
    const struct operation operations[] = {{"cpack", run_pack, s->container, &s->container_bytes},
                                           {"cverify", run_verify, NULL, NULL},
                                           {"cverify --quick", run_quick, NULL, NULL},
                                           {"cpack -d", run_restore, s->scratch, NULL},
                                           {"decode to memory", run_decode, NULL, NULL}};
    double speed[2][5] = {{0}};
    for (unsigned k = 0; k < (all > 1 ? 2u : 1u); k++) {
        s->thread_count = k ? all : 1;
        for (unsigned i = 0; i < 5; i++) speed[k][i] = measure(s, runs, operations[i]);
    }
    s->thread_count = 1;
    double copy = measure(s, runs, (struct operation){.name = "memcpy", .run = run_memcpy});
    measure_zstd(s, 3, runs);
    measure_zstd(s, 19, ZSTD_STRONG_RUNS);
    printf("\nPeak memory in MiB, one thread and all: cpack %ld, %ld; cverify %ld, %ld%s\n", s->peak_mib[0], s->peak_mib[1],
           s->peak_mib[2], s->peak_mib[3], s->peak_mib[0] < 0 ? " (-1: not measured)" : "");
    printf("\n{\"bench\":\"cpu\",\"bytes\":%zu,\"stored\":%llu,\"threads\":%u,\"one_core\":{\"pack\":%.3f,\"verify\":%.3f,"
           "\"quick\":%.3f,"
           "\"restore\":%.3f,\"decode\":%.3f},\"all_cores\":{\"pack\":%.3f,\"verify\":%.3f,\"quick\":%.3f,\"restore\":%.3f,"
           "\"decode\":%.3f},\"memcpy\":%.3f,\"zstd\":\"%s\"}\n",
           s->byte_count, (unsigned long long)s->container_bytes, all, speed[0][0], speed[0][1], speed[0][2], speed[0][3],
           speed[0][4], speed[1][0], speed[1][1], speed[1][2], speed[1][3], speed[1][4], copy, cllm_compress_library_version());
}

static void write_gaussian(const char *path, size_t element_count)
{
    char header[256];
    uint8_t *weights = malloc(2 * element_count);
    FILE *file = fopen(path, "wb");
    if (!file || !weights) {
        perror(path);
        exit(1);
    }
    int header_bytes =
        snprintf(header + 8, sizeof header - 8, "{\"w\":{\"dtype\":\"BF16\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}",
                 element_count, 2 * element_count);
    for (unsigned k = 0; k < 8; k++) header[k] = (char)((uint64_t)header_bytes >> 8 * k);
    fill_gaussian(weights, 2 * element_count, "BF16");
    fwrite(header, 1, 8 + (size_t)header_bytes, file);
    fwrite(weights, 1, 2 * element_count, file);
    fclose(file);
    free(weights);
}

static uint8_t *read_all(const char *path, size_t *byte_count_out)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    *byte_count_out = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*byte_count_out + 1);
    if (!bytes || fread(bytes, 1, *byte_count_out, file) != *byte_count_out) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return bytes;
}

/* As crun has the weights that it loads. */
static uint8_t *allocate_huge(size_t byte_count)
{
    const size_t bytes = (byte_count + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    uint8_t *memory = aligned_alloc(HUGE_PAGE_BYTES, bytes);
    if (!memory) {
        perror("memory");
        exit(1);
    }
    madvise(memory, bytes, MADV_HUGEPAGE); /* advice only */
    return memory;
}

static void bench_path(const char *path, const char *programs, const char *folder, unsigned runs)
{
    struct subject s = {.path = path, .programs = programs, .thread_count = 1};
    snprintf(s.container, sizeof s.container, "%s/bench.cllm", folder);
    snprintf(s.scratch, sizeof s.scratch, "%s/bench.out", folder);
    measure_memory(&s);
    s.original = read_all(path, &s.byte_count);
    s.copy = malloc(s.byte_count + s.byte_count / 8 + 1024);
    s.decoded = allocate_huge(s.byte_count);
    measure_file(&s, runs);
    unlink(s.container);
    unlink(s.scratch);
    free(s.original);
    free(s.copy);
    free(s.decoded);
}

/* Goes on in a child, where it returns false, and when that has ended here. This process itself stays small. */
static bool ran_in_child(void)
{
    int state = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) return false;
    if (child < 0 || waitpid(child, &state, 0) != child || state != 0) exit(1);
    return true;
}

int main(int argc, char **argv)
{
    unsigned runs = 5;
    int option;
    while ((option = getopt(argc, argv, "r:")) != -1) {
        if (option != 'r' || atoi(optarg) < 1 || atoi(optarg) > RUNS_MAX) {
            fprintf(stderr, "usage: cpu [-r RUNS] [FILE.safetensors ...]\n");
            return 2;
        }
        runs = (unsigned)atoi(optarg);
    }
    char own_path[400];
    snprintf(own_path, sizeof own_path, "%s", argv[0]); /* build/release/bench/cpu */
    const char *programs = dirname(dirname(own_path));
    char folder[] = "/tmp/cllm-bench-XXXXXX", gaussian[64];
    if (!mkdtemp(folder)) {
        perror("mkdtemp");
        return 1;
    }
    if (optind == argc) {
        snprintf(gaussian, sizeof gaussian, "%s/gaussian.safetensors", folder);
        if (!ran_in_child()) {
            write_gaussian(gaussian, 32u << 20);
            exit(0);
        }
        if (!ran_in_child()) {
            bench_path(gaussian, programs, folder, runs);
            exit(0);
        }
        unlink(gaussian);
    }
    for (int i = optind; i < argc; i++) {
        if (ran_in_child()) continue;
        bench_path(argv[i], programs, folder, runs);
        exit(0);
    }
    rmdir(folder);
    return 0;
}

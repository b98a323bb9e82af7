/* verify_gpu.c - cllm_verify with the GPU engine on one container: how long, and where its threads spend their time.
 *
 *   build/release/bench/verify_gpu [-r RUN_MIB] [-l LANES] [-t THREADS] [-p] [-c TIMES] [-n TIMES] CONTAINER
 *
 * -n: how often; -c: how often before that with the page cache asked to forget the container; -p: pages from the driver.
 * Without a container, or without a GPU, it says so and does nothing. */
#include "cllm_decode.h"
#include "engine.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int fail(const struct cllm_error *err)
{
    fprintf(stderr, "verify_gpu: %s\n", err->message);
    return 1;
}

static void print_times(const struct cllm_gpu_engine_times *now, const struct cllm_gpu_engine_times *before)
{
    printf("  runs %llu; thread ms: lanes %.0f, read %.0f, queue %.0f, wait %.0f\n",
           (unsigned long long)(now->run_count - before->run_count), 1e-6 * (double)(now->lane_ns - before->lane_ns),
           1e-6 * (double)(now->read_ns - before->read_ns), 1e-6 * (double)(now->queue_ns - before->queue_ns),
           1e-6 * (double)(now->wait_ns - before->wait_ns));
}

/* Share of a file's pages that the page cache has: what lies in a file system of memory stays there. Negative: not known. */
static double cached_share(int file, size_t byte_count)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE), page_count = (byte_count + page_bytes - 1) / page_bytes;
    size_t cached = 0;
    unsigned char *present = malloc(page_count + 1);
    void *map = mmap(NULL, byte_count, PROT_READ, MAP_SHARED, file, 0);
    const bool known = present && map != MAP_FAILED && mincore(map, byte_count, present) == 0;
    for (size_t i = 0; known && i < page_count; i++) cached += present[i] & 1;
    if (map != MAP_FAILED) munmap(map, byte_count);
    free(present);
    return known ? (double)cached / (double)page_count : -1;
}

/* Has the page cache forget a file, if asked to, and says how much of it the cache has. */
static void print_cached(const char *path, bool forget)
{
    struct stat info;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &info) != 0 || info.st_size == 0) return;
    if (forget && (fdatasync(file) != 0 || posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) != 0)) perror("verify_gpu");
    printf("  %s, %3.0f %% cached:", forget ? "cold" : "warm", 100 * cached_share(file, (size_t)info.st_size));
    close(file);
}

static int verify_often(const char *path, const struct cllm_gpu_engine_tuning *tuning, unsigned threads, unsigned cold_times,
                        unsigned times)
{
    const struct cllm_engine *engine = NULL;
    struct cllm_reader *reader = NULL;
    struct cllm_error err;
    double start = seconds_now();
    if (cllm_gpu_engine_create_tuned(0, tuning, &engine, &err)) return fail(&err);
    double created = seconds_now() - start;
    printf("%s: runs of %u MiB, %u lanes, %u threads, %s; engine in %.3f s\n", path, tuning->run_bytes >> 20, tuning->lane_count,
           threads, tuning->huge_pages ? "huge pages" : "driver's pages", created);
    if (cllm_reader_open(path, &reader, &err)) return fail(&err);
    struct cllm_gpu_engine_times before = {0};
    for (unsigned i = 0; i < cold_times + times; i++) {
        print_cached(path, i < cold_times);
        const struct cllm_verify_options options = {.thread_count = threads, .engine = engine};
        struct cllm_verify_report report;
        start = seconds_now();
        if (cllm_verify(reader, &options, &report, &err)) return fail(&err);
        double seconds = seconds_now() - start;
        struct cllm_gpu_engine_times now = cllm_gpu_engine_times(engine);
        printf(" %.3f s, %.1f GB/s of original bytes, %.2f of them on the GPU;", seconds,
               (double)report.decoded_bytes / seconds / 1e9, (double)report.engine_bytes / (double)report.decoded_bytes);
        print_times(&now, &before);
        before = now;
    }
    cllm_reader_close(reader);
    cllm_gpu_engine_destroy(engine);
    return 0;
}

int main(int argc, char **argv)
{
    struct cllm_gpu_engine_tuning tuning = {.run_bytes = 16u << 20, .lane_count = 32, .huge_pages = true};
    unsigned threads = 0, cold_times = 0, times = 5;
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0); /* as the programs do; see cli/device.c */
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int option; (option = getopt(argc, argv, "r:l:t:c:n:p")) != -1;) {
        if (option == 'r') tuning.run_bytes = (uint32_t)atoi(optarg) << 20;
        else if (option == 'l') tuning.lane_count = (unsigned)atoi(optarg);
        else if (option == 't') threads = (unsigned)atoi(optarg);
        else if (option == 'c') cold_times = (unsigned)atoi(optarg);
        else if (option == 'n') times = (unsigned)atoi(optarg);
        else if (option == 'p') tuning.huge_pages = false;
        else return 2;
    }
    if (optind == argc || cllm_gpu_count() == 0) {
        printf("verify_gpu: skipped (%s)\n", optind == argc ? "no container given" : "no GPU");
        return 0;
    }
    return verify_often(argv[optind], &tuning, threads, cold_times, times);
}

/* verify_gpu.c - cllm_verify with the GPU engine on one container: how long, and where its threads spend their time.
 *
 *   build/release/bench/verify_gpu [-r RUN_MIB] [-l LANES] [-t THREADS] [-p] [-n TIMES] CONTAINER      (-p: pages from the
 * driver)
 *
 * Without a container, or without a GPU, it says so and does nothing. */
#include "cllm_decode.h"
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
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

static int verify_often(const char *path, const struct cllm_gpu_engine_tuning *tuning, unsigned threads, unsigned times)
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
    for (unsigned i = 0; i < times; i++) {
        const struct cllm_verify_options options = {.thread_count = threads, .engine = engine};
        struct cllm_verify_report report;
        start = seconds_now();
        if (cllm_verify(reader, &options, &report, &err)) return fail(&err);
        double seconds = seconds_now() - start;
        struct cllm_gpu_engine_times now = cllm_gpu_engine_times(engine);
        printf("  %.3f s, %.1f GB/s of original bytes, %.2f of them on the GPU;", seconds,
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
    unsigned threads = 0, times = 5;
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0); /* as the programs do; see cli/device.c */
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int option; (option = getopt(argc, argv, "r:l:t:n:p")) != -1;) {
        if (option == 'r') tuning.run_bytes = (uint32_t)atoi(optarg) << 20;
        else if (option == 'l') tuning.lane_count = (unsigned)atoi(optarg);
        else if (option == 't') threads = (unsigned)atoi(optarg);
        else if (option == 'n') times = (unsigned)atoi(optarg);
        else if (option == 'p') tuning.huge_pages = false;
        else return 2;
    }
    if (optind == argc || cllm_gpu_count() == 0) {
        printf("verify_gpu: skipped (%s)\n", optind == argc ? "no container given" : "no GPU");
        return 0;
    }
    return verify_often(argv[optind], &tuning, threads, times);
}

/* load_gpu.c - what loading compressed weights is measured by: the bytes of files, a checkpoint's safetensors say, read by as
 * many threads into pinned memory and copied to the device, without looking at them. `crun bench` prints the loading of the
 * container.
 *
 *     load_gpu [-r ROUNDS] FILE...
 *
 * Without a GPU, or without files, it says so and succeeds, for `make bench`.
 */
#include "gpu_device.h"
#include "pipeline.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES ((uint64_t)8 << 20)
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define FILES_MAX 1024
#define COPIES_UNDER_WAY 3u /* as in loading weights */

struct buffer {
    uint8_t *bytes;
    void *copied;
};

struct loading {
    struct cllm_gpu_device *device;
    void *stream;
    int files[FILES_MAX];
    uint64_t file_bytes[FILES_MAX];
    int file_count;
    int file_index; /* handed out so far */
    uint64_t offset;
    uint64_t total_bytes;
    uint8_t *d_memory;
    uint64_t d_offset;
    unsigned job_count;
    uint8_t *pinned;        /* PIECE_BYTES of each buffer */
    struct buffer *buffers; /* used in turn */
    unsigned buffer_count;
    uint64_t taken_count;
};

struct job {
    const struct buffer *buffer;
    int file;
    uint64_t offset, d_offset;
    size_t byte_count;
};

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static enum cllm_status prepare_piece(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    struct loading *loading = user;
    struct job *job = job_memory;
    *more_out = loading->file_index < loading->file_count;
    if (!*more_out) return CLLM_OK;
    const uint64_t left = loading->file_bytes[loading->file_index] - loading->offset;
    job->file = loading->files[loading->file_index];
    job->offset = loading->offset;
    job->d_offset = loading->d_offset;
    job->byte_count = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    loading->offset += job->byte_count;
    loading->d_offset += job->byte_count;
    if (loading->offset == loading->file_bytes[loading->file_index]) {
        loading->file_index++;
        loading->offset = 0;
    }
    job->buffer = &loading->buffers[loading->taken_count++ % loading->buffer_count];
    return cllm_gpu_device_event_finish(loading->device, job->buffer->copied, err);
}

static enum cllm_status read_piece(void *user, void *job_memory, struct cllm_error *err)
{
    (void)user;
    const struct job *job = job_memory;
    for (size_t done = 0; done < job->byte_count;) {
        const ssize_t count = pread(job->file, job->buffer->bytes + done, job->byte_count - done, (off_t)(job->offset + done));
        if (count <= 0) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot read");
        done += (size_t)count;
    }
    return CLLM_OK;
}

static enum cllm_status copy_piece(void *user, void *job_memory, struct cllm_error *err)
{
    const struct loading *loading = user;
    const struct job *job = job_memory;
    enum cllm_status status = cllm_gpu_device_copy(loading->device, loading->d_memory + job->d_offset, job->buffer->bytes,
                                                   job->byte_count, loading->stream, err);
    return status ? status : cllm_gpu_device_event_record(loading->device, job->buffer->copied, loading->stream, err);
}

/* Memory included, as in loading weights. */
static enum cllm_status load(struct loading *loading, struct cllm_error *err)
{
    const size_t pinned_bytes = loading->buffer_count * PIECE_BYTES;
    struct job *jobs = calloc(loading->job_count, sizeof *jobs);
    void **pointers = calloc(loading->job_count, sizeof *pointers), *d_memory = NULL;
    const struct cllm_pipeline pipeline = {loading, prepare_piece, read_piece, copy_piece};
    loading->pinned = aligned_alloc(HUGE_PAGE_BYTES, pinned_bytes);
    loading->file_index = 0;
    loading->offset = loading->d_offset = 0;
    loading->buffers = calloc(loading->buffer_count, sizeof *loading->buffers);
    if (!jobs || !pointers || !loading->buffers || !loading->pinned)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
    madvise(loading->pinned, pinned_bytes, MADV_HUGEPAGE);
    cllm_zero_fresh(loading->pinned, pinned_bytes, 0);
    enum cllm_status status = cllm_gpu_device_pin(loading->device, loading->pinned, pinned_bytes, NULL, err);
    if (!status) status = cllm_gpu_device_allocate(loading->device, loading->total_bytes, &d_memory, err);
    loading->d_memory = d_memory;
    for (unsigned i = 0; i < loading->job_count; i++) pointers[i] = &jobs[i];
    for (unsigned i = 0; !status && i < loading->buffer_count; i++) {
        loading->buffers[i].bytes = loading->pinned + i * PIECE_BYTES;
        status = cllm_gpu_device_event_create(loading->device, false, &loading->buffers[i].copied, err);
    }
    if (!status) status = cllm_pipeline_run(&pipeline, pointers, loading->job_count, 0, err);
    if (!status) status = cllm_gpu_device_stream_finish(loading->device, loading->stream, err);
    for (unsigned i = 0; i < loading->buffer_count; i++)
        cllm_gpu_device_event_destroy(loading->device, loading->buffers[i].copied);
    cllm_gpu_device_free(loading->device, d_memory);
    cllm_gpu_device_unpin(loading->device, loading->pinned);
    free(loading->pinned);
    free(loading->buffers);
    free(pointers);
    free(jobs);
    return status;
}

static enum cllm_status open_files(struct loading *loading, char *const *paths, int count, struct cllm_error *err)
{
    for (int i = 0; i < count && i < FILES_MAX; i++) {
        struct stat info;
        const int file = open(paths[i], O_RDONLY | O_CLOEXEC);
        if (file < 0 || fstat(file, &info) != 0 || info.st_size <= 0)
            return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "%s: cannot be read, or is empty", paths[i]);
        loading->files[loading->file_count] = file;
        loading->file_bytes[loading->file_count++] = (uint64_t)info.st_size;
        loading->total_bytes += (uint64_t)info.st_size;
    }
    return CLLM_OK;
}

int main(int argc, char **argv)
{
    static struct loading loading;
    struct cllm_error err = {0};
    long rounds = 5;
    for (int option; (option = getopt(argc, argv, "r:")) != -1;) {
        if (option != 'r' || (rounds = strtol(optarg, NULL, 10)) < 1) {
            fprintf(stderr, "usage: load_gpu [-r ROUNDS] FILE...\n");
            return 2;
        }
    }
    if (optind == argc) return puts("load_gpu: no files were named") < 0;
    const double opening = seconds_now();
    enum cllm_status status = cllm_gpu_device_open(0, &loading.device, &err);
    if (status) return printf("load_gpu: left out: %s\n", err.message) < 0;
    status = open_files(&loading, argv + optind, argc - optind, &err);
    if (!status) status = cllm_gpu_device_stream_create(loading.device, &loading.stream, &err);
    if (!status) printf("%.3f s until the device was there\n", seconds_now() - opening);
    loading.job_count = cllm_pipeline_job_count(0);
    loading.buffer_count = loading.job_count + COPIES_UNDER_WAY;
    for (long i = 0; !status && i < rounds; i++) {
        const double start = seconds_now();
        status = load(&loading, &err);
        const double seconds = seconds_now() - start;
        if (!status)
            printf("%.3f GB to the device in %.3f s, %.2f GB/s\n", (double)loading.total_bytes * 1e-9, seconds,
                   (double)loading.total_bytes * 1e-9 / seconds);
    }
    if (status) fprintf(stderr, "load_gpu: %s\n", err.message);
    return status ? 1 : 0;
}

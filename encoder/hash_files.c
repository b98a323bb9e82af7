/* hash_files.c - see hash_files.h. */
#include "hash_files.h"

#include "digest.h"
#include "group.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES ((size_t)256 << 10) /* read, checked and hashed at a time, in the second cache of the processor */
#define PROGRESS_NS 100000000L          /* between two questions whether to go on */

struct cllm_file_hashing {
    const struct cllm_source *source;
    uint64_t *first_groups;   /* of each file, and one more */
    uint64_t *packed_sums;    /* of each group, as the packer read it, */
    uint64_t *hashed_sums;    /* and as it was read here */
    uint8_t *digests;         /* of each file */
    uint64_t ahead_bytes_max; /* that may be packed and not hashed */
    pthread_t *threads;
    unsigned thread_count;
    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t opened_count;   /* files that the packer has come to */
    uint64_t advanced_count; /* and groups */
    uint32_t taken_count;    /* files that a thread has taken */
    uint32_t finished_count;
    uint64_t packed_bytes;
    uint64_t hashed_bytes;
    bool stop;
    enum cllm_status status; /* the first failure */
    struct cllm_error error;
};

unsigned cllm_file_hashing_threads(const struct cllm_source *source, unsigned thread_count)
{
    const unsigned wanted = thread_count / 3;
    return wanted < source->file_count ? wanted : source->file_count;
}

static uint64_t count_groups(const struct cllm_source_file *file)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < file->span_count; i++) count += (file->spans[i].bytes + CLLM_GROUP_BYTES - 1) / CLLM_GROUP_BYTES;
    return count;
}

/* A group of a file. */
struct group {
    uint64_t index; /* of all */
    uint64_t offset;
    size_t byte_count;
    uint32_t file_index;
};

static size_t first_piece(size_t left_bytes)
{
    return left_bytes < PIECE_BYTES ? left_bytes : PIECE_BYTES;
}

/* Of a group, piece by piece. */
static uint64_t add_checksum(uint64_t sum, const uint8_t *piece, size_t byte_count)
{
    return sum * UINT64_C(0x9E3779B97F4A7C15) + cllm_checksum(piece, byte_count);
}

/* Until the packer reads it, too: what is on a disk is then read from there once. */
static enum cllm_status await_group(struct cllm_file_hashing *hashing, const struct group *group, struct cllm_error *err)
{
    pthread_mutex_lock(&hashing->lock);
    while (!hashing->stop && group->index >= hashing->advanced_count) pthread_cond_wait(&hashing->changed, &hashing->lock);
    const bool stop = hashing->stop;
    pthread_mutex_unlock(&hashing->lock);
    return stop ? cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted") : CLLM_OK;
}

/* Reads, checks and hashes a group. */
static enum cllm_status hash_group(struct cllm_file_hashing *hashing, const struct group *group, uint8_t *buffer,
                                   struct cllm_sha256_stream *stream, struct cllm_error *err)
{
    enum cllm_status status = await_group(hashing, group, err);
    uint64_t sum = 0;
    for (size_t at = 0, piece; at < group->byte_count && !status; at += piece) {
        piece = first_piece(group->byte_count - at);
        status = cllm_source_read(hashing->source, group->file_index, group->offset + at, buffer, piece, err);
        if (status) break;
        sum = add_checksum(sum, buffer, piece);
        status = cllm_sha256_update(stream, buffer, piece, err);
    }
    if (status) return status;
    hashing->hashed_sums[group->index] = sum;
    pthread_mutex_lock(&hashing->lock);
    hashing->hashed_bytes += group->byte_count;
    pthread_cond_broadcast(&hashing->changed);
    pthread_mutex_unlock(&hashing->lock);
    return CLLM_OK;
}

static enum cllm_status hash_file(struct cllm_file_hashing *hashing, uint32_t file_index, uint8_t *buffer,
                                  struct cllm_sha256_stream *stream, struct cllm_error *err)
{
    const struct cllm_source_file *file = &hashing->source->files[file_index];
    struct group group = {.index = hashing->first_groups[file_index], .file_index = file_index};
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 0; i < file->span_count; i++) {
        const struct cllm_source_span *span = &file->spans[i];
        for (uint64_t at = 0; at < span->bytes && !status; at += group.byte_count, group.index++) {
            group.offset = span->offset + at;
            group.byte_count = span->bytes - at < CLLM_GROUP_BYTES ? (size_t)(span->bytes - at) : CLLM_GROUP_BYTES;
            status = hash_group(hashing, &group, buffer, stream, err);
        }
    }
    if (!status) status = cllm_sha256_finish(stream, hashing->digests + (size_t)file_index * CLLM_DIGEST_BYTES, err);
    pthread_mutex_lock(&hashing->lock);
    hashing->finished_count += !status;
    pthread_cond_broadcast(&hashing->changed);
    pthread_mutex_unlock(&hashing->lock);
    return status;
}

/* A file that the packer has come to; false where there is none any more. */
static bool take_file(struct cllm_file_hashing *hashing, uint32_t *file_index_out)
{
    pthread_mutex_lock(&hashing->lock);
    while (!hashing->stop && hashing->taken_count == hashing->opened_count &&
           hashing->taken_count < hashing->source->file_count) {
        pthread_cond_wait(&hashing->changed, &hashing->lock);
    }
    const bool taken = !hashing->stop && hashing->taken_count < hashing->opened_count;
    if (taken) *file_index_out = hashing->taken_count++;
    pthread_mutex_unlock(&hashing->lock);
    return taken;
}

static void *hash_files(void *argument)
{
    struct cllm_file_hashing *hashing = argument;
    struct cllm_sha256_stream *stream = NULL;
    struct cllm_error err;
    uint8_t *buffer = malloc(PIECE_BYTES);
    enum cllm_status status = buffer ? cllm_sha256_create(&stream, &err)
                                     : cllm_fail(&err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for hashing files");
    for (uint32_t file_index; !status && take_file(hashing, &file_index);) {
        status = hash_file(hashing, file_index, buffer, stream, &err);
    }
    if (status) {
        pthread_mutex_lock(&hashing->lock);
        if (!hashing->status) {
            hashing->status = status;
            hashing->error = err;
        }
        hashing->stop = true;
        pthread_cond_broadcast(&hashing->changed);
        pthread_mutex_unlock(&hashing->lock);
    }
    cllm_sha256_destroy(stream);
    free(buffer);
    return NULL;
}

/* A quarter of the memory. */
static uint64_t cached_bytes(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes / 4 : UINT64_C(1) << 30;
}

/* Memory for what is known of all groups and files. */
static bool allocate_lists(struct cllm_file_hashing *hashing, unsigned thread_count)
{
    const struct cllm_source *source = hashing->source;
    uint64_t group_count = 0;
    hashing->first_groups = calloc((size_t)source->file_count + 1, sizeof *hashing->first_groups);
    for (uint32_t i = 0; hashing->first_groups && i <= source->file_count; i++) {
        hashing->first_groups[i] = group_count;
        if (i < source->file_count) group_count += count_groups(&source->files[i]);
    }
    hashing->packed_sums = calloc(group_count + 1, sizeof *hashing->packed_sums);
    hashing->hashed_sums = calloc(group_count + 1, sizeof *hashing->hashed_sums);
    hashing->digests = calloc((size_t)source->file_count + 1, CLLM_DIGEST_BYTES);
    hashing->threads = calloc((size_t)thread_count + 1, sizeof *hashing->threads);
    return hashing->first_groups && hashing->packed_sums && hashing->hashed_sums && hashing->digests && hashing->threads;
}

enum cllm_status cllm_file_hashing_create(const struct cllm_source *source, unsigned thread_count, uint64_t ahead_bytes_max,
                                          struct cllm_file_hashing **hashing_out, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    *hashing_out = NULL;
    struct cllm_file_hashing *hashing = calloc(1, sizeof *hashing);
    if (!hashing) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for hashing files");
    hashing->source = source;
    hashing->ahead_bytes_max = ahead_bytes_max ? ahead_bytes_max : cached_bytes();
    pthread_mutex_init(&hashing->lock, NULL);
    pthread_cond_init(&hashing->changed, NULL);
    if (!allocate_lists(hashing, thread_count)) {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for hashing files");
        goto out;
    }
    while (hashing->thread_count < thread_count &&
           pthread_create(&hashing->threads[hashing->thread_count], NULL, hash_files, hashing) == 0) {
        hashing->thread_count++;
    }
    if (hashing->thread_count == 0) goto out;
    *hashing_out = hashing;
    return CLLM_OK;
out:
    cllm_file_hashing_destroy(hashing);
    return status;
}

static enum cllm_status failure_of(const struct cllm_file_hashing *hashing, struct cllm_error *err)
{
    if (hashing->status && err) *err = hashing->error;
    return hashing->status;
}

enum cllm_status cllm_file_hashing_advance(struct cllm_file_hashing *hashing, uint32_t file_index, size_t byte_count,
                                           struct cllm_error *err)
{
    pthread_mutex_lock(&hashing->lock);
    if (hashing->opened_count <= file_index) hashing->opened_count = file_index + 1;
    hashing->advanced_count++;
    pthread_cond_broadcast(&hashing->changed);
    hashing->packed_bytes += byte_count;
    while (!hashing->status && hashing->packed_bytes > hashing->hashed_bytes + hashing->ahead_bytes_max) {
        pthread_cond_wait(&hashing->changed, &hashing->lock);
    }
    const enum cllm_status status = failure_of(hashing, err);
    pthread_mutex_unlock(&hashing->lock);
    return status;
}

void cllm_file_hashing_note(struct cllm_file_hashing *hashing, uint64_t group_index, const void *bytes, size_t byte_count)
{
    uint64_t sum = 0;
    for (size_t at = 0; at < byte_count; at += PIECE_BYTES) {
        sum = add_checksum(sum, (const uint8_t *)bytes + at, first_piece(byte_count - at));
    }
    hashing->packed_sums[group_index] = sum;
}

static void join_threads(struct cllm_file_hashing *hashing)
{
    while (hashing->thread_count > 0) pthread_join(hashing->threads[--hashing->thread_count], NULL);
}

/* Says which file differs. */
static enum cllm_status compare_sums(const struct cllm_file_hashing *hashing, struct cllm_error *err)
{
    const struct cllm_source *source = hashing->source;
    for (uint32_t i = 0; i < source->file_count; i++) {
        const uint64_t first = hashing->first_groups[i], count = hashing->first_groups[i + 1] - first;
        if (memcmp(hashing->packed_sums + first, hashing->hashed_sums + first, count * sizeof *hashing->packed_sums) == 0)
            continue;
        char printable[200];
        const char *name = source->files[i].name;
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "%s: changed while it was being read",
                         cllm_escape(name, strlen(name), printable, sizeof printable));
    }
    return CLLM_OK;
}

/* Until all files are hashed, or a thread has failed. The lock is held, but not while `progress` is asked. */
static enum cllm_status wait_for_files(struct cllm_file_hashing *hashing, const struct cllm_progress *progress,
                                       struct cllm_error *err)
{
    const uint64_t total = hashing->source->total_bytes;
    bool go_on = true;
    while (go_on && !hashing->status && hashing->finished_count < hashing->source->file_count) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += PROGRESS_NS;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&hashing->changed, &hashing->lock, &until);
        if (!progress) continue;
        pthread_mutex_unlock(&hashing->lock);
        go_on = progress->report(progress->user, total, total);
        pthread_mutex_lock(&hashing->lock);
    }
    return go_on ? failure_of(hashing, err) : cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
}

enum cllm_status cllm_file_hashing_finish(struct cllm_file_hashing *hashing, const struct cllm_progress *progress,
                                          struct cllm_file *files, struct cllm_error *err)
{
    pthread_mutex_lock(&hashing->lock);
    hashing->opened_count = hashing->source->file_count; /* empty ones at the end, too */
    hashing->advanced_count = UINT64_MAX;
    pthread_cond_broadcast(&hashing->changed);
    enum cllm_status status = wait_for_files(hashing, progress, err);
    pthread_mutex_unlock(&hashing->lock);
    if (!status) status = compare_sums(hashing, err);
    for (uint32_t i = 0; !status && i < hashing->source->file_count; i++) {
        memcpy(files[i].sha256, hashing->digests + (size_t)i * CLLM_DIGEST_BYTES, CLLM_DIGEST_BYTES);
    }
    return status;
}

void cllm_file_hashing_destroy(struct cllm_file_hashing *hashing)
{
    if (!hashing) return;
    pthread_mutex_lock(&hashing->lock);
    hashing->stop = true;
    pthread_cond_broadcast(&hashing->changed);
    pthread_mutex_unlock(&hashing->lock);
    join_threads(hashing);
    pthread_cond_destroy(&hashing->changed);
    pthread_mutex_destroy(&hashing->lock);
    free(hashing->first_groups);
    free(hashing->packed_sums);
    free(hashing->hashed_sums);
    free(hashing->digests);
    free(hashing->threads);
    free(hashing);
}

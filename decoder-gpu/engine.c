/* engine.c - the GPU as an engine: file, pinned memory, device, decoded there and hashed there; what comes back is digests or
 * bytes. Each run under way has a lane: a context and buffers. Threads read into the next lane while the device works on others.
 *
 * The driver is slow to pin memory and to give it out, so all lanes share two allocations; a run that needs more room than its
 * share, such as one of raw chunks, gets memory of its own. */
#include "engine.h"

#include "pipeline.h"
#include "reader.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* bench/NOTES.md. Less in a run, and the driver is asked too often; a chunk's SHA-256 takes the device milliseconds, so many runs
 * must be under way. */
#define RUN_BYTES (16u << 20)
#define LANES_PER_THREAD 2u
#define LANES_MAX 32u
#define STORED_SHARE(run_bytes) ((size_t)(run_bytes) / 4 * 3) /* of pinned memory: weights of most kinds take less */
#define LEAF_SHARE(run_bytes) ((size_t)(run_bytes) / 1024)    /* digests of chunks of 32 KiB */
#define HUGE_BYTES ((size_t)2 << 20)

enum { TIME_LANE, TIME_READ, TIME_QUEUE, TIME_WAIT, TIMES };

struct gpu_engine {
    struct cllm_engine engine;
    unsigned device_index;
    char name[256];
    bool huge_pages;
    struct cllm_gpu *gpu; /* owns the shared memory */
    uint8_t *host;        /* pinned; lane k's part at k * host_stride */
    uint8_t *device;
    size_t host_bytes;
    size_t host_stride;
    size_t device_stride;
    pthread_mutex_t lock;
    struct lane *idle; /* lanes that were given back, for the next container */
    unsigned lanes_made;
    atomic_ullong run_count;
    atomic_ullong times[TIMES]; /* nanoseconds */
};

/* Memory that grows: a part of the engine's, until that is too small. */
struct room {
    void *bytes;
    size_t capacity;
    bool own;
};

struct lane {
    struct lane *next; /* idle */
    struct cllm_gpu *gpu;
    struct room stored, leaves, decoded; /* pinned */
    struct room d_stored, d_leaves, d_decoded;
    struct cllm_gpu_item *items;
    uint32_t item_capacity;
    uint32_t item_count; /* of the run under way */
    bool bytes;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Adds what has passed since `*since` to a time, and starts anew. */
static void add_time(struct gpu_engine *engine, unsigned which, uint64_t *since)
{
    uint64_t now = now_ns();
    atomic_fetch_add_explicit(&engine->times[which], now - *since, memory_order_relaxed);
    *since = now;
}

/* -------------------------------------------------------------------------------------------------------------- memory */

static void free_room(struct lane *lane, struct room *room, bool pinned)
{
    if (room->own && pinned) cllm_gpu_free_pinned(lane->gpu, room->bytes);
    if (room->own && !pinned) cllm_gpu_free(lane->gpu, room->bytes);
    *room = (struct room){NULL, 0, false};
}

static enum cllm_status reserve(struct lane *lane, struct room *room, bool pinned, size_t byte_count, struct cllm_error *err)
{
    if (byte_count <= room->capacity) return CLLM_OK;
    free_room(lane, room, pinned);
    enum cllm_status status = pinned ? cllm_gpu_allocate_pinned(lane->gpu, byte_count, &room->bytes, err)
                                     : cllm_gpu_allocate(lane->gpu, byte_count, &room->bytes, err);
    if (status) return status;
    room->capacity = byte_count;
    room->own = true;
    return CLLM_OK;
}

static struct room take_share(uint8_t **at, size_t byte_count)
{
    struct room room = {*at, byte_count, false};
    *at += byte_count;
    return room;
}

static uint8_t *allocate_huge(size_t byte_count)
{
    uint8_t *bytes = aligned_alloc(HUGE_BYTES, byte_count);
    if (!bytes) return NULL;
    (void)madvise(bytes, byte_count, MADV_HUGEPAGE);
    cllm_zero_fresh(bytes, byte_count, 0);
    if (cudaHostRegister(bytes, byte_count, cudaHostRegisterPortable) == cudaSuccess) return bytes;
    (void)cudaGetLastError();
    free(bytes);
    return NULL;
}

static enum cllm_status allocate_shared(struct gpu_engine *engine, struct cllm_error *err)
{
    const struct cllm_engine *e = &engine->engine;
    const size_t stored = STORED_SHARE(e->run_bytes), leaves = LEAF_SHARE(e->run_bytes);
    void *host = NULL, *device = NULL;
    engine->host_stride = stored + leaves;
    engine->device_stride = stored + leaves + e->run_bytes;
    engine->host_bytes = (engine->host_stride * e->lane_count + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    if (engine->huge_pages) host = allocate_huge(engine->host_bytes);
    engine->huge_pages = host != NULL;
    enum cllm_status status = host ? CLLM_OK : cllm_gpu_allocate_pinned(engine->gpu, engine->host_bytes, &host, err);
    engine->host = host;
    if (!status) status = cllm_gpu_allocate(engine->gpu, engine->device_stride * e->lane_count, &device, err);
    engine->device = device;
    return status;
}

static void free_shared(struct gpu_engine *engine)
{
    if (engine->huge_pages && engine->host) {
        cudaHostUnregister(engine->host);
        free(engine->host);
    } else {
        cllm_gpu_free_pinned(engine->gpu, engine->host);
    }
    cllm_gpu_free(engine->gpu, engine->device);
}

/* --------------------------------------------------------------------------------------------------------------- lanes */

static void destroy_lane(struct lane *lane)
{
    if (lane->gpu) {
        free_room(lane, &lane->stored, true);
        free_room(lane, &lane->leaves, true);
        free_room(lane, &lane->decoded, true);
        free_room(lane, &lane->d_stored, false);
        free_room(lane, &lane->d_leaves, false);
        free_room(lane, &lane->d_decoded, false);
    }
    cllm_gpu_destroy(lane->gpu);
    free(lane->items);
    free(lane);
}

static void wait_for_lane(struct lane *lane)
{
    enum cllm_status ignored = cllm_gpu_finish(lane->gpu, NULL, NULL);
    (void)ignored;
}

static void give_back_lane(void *user, void *lane_memory)
{
    struct gpu_engine *engine = user;
    struct lane *lane = lane_memory;
    wait_for_lane(lane); /* a run that nobody wanted any more */
    pthread_mutex_lock(&engine->lock);
    lane->next = engine->idle;
    engine->idle = lane;
    pthread_mutex_unlock(&engine->lock);
}

/* A lane that was used before, or the number of a new one, which has its part of the shared memory if there is one left. */
static struct lane *take_idle_lane(struct gpu_engine *engine, unsigned *number_out)
{
    pthread_mutex_lock(&engine->lock);
    struct lane *lane = engine->idle;
    if (lane) engine->idle = lane->next;
    else *number_out = engine->lanes_made++;
    pthread_mutex_unlock(&engine->lock);
    return lane;
}

static void share_memory(const struct gpu_engine *engine, struct lane *lane, unsigned number)
{
    if (number >= engine->engine.lane_count) return;
    const uint32_t run_bytes = engine->engine.run_bytes;
    uint8_t *host = engine->host + number * engine->host_stride, *device = engine->device + number * engine->device_stride;
    lane->stored = take_share(&host, STORED_SHARE(run_bytes));
    lane->leaves = take_share(&host, LEAF_SHARE(run_bytes));
    lane->d_decoded = take_share(&device, run_bytes);
    lane->d_stored = take_share(&device, STORED_SHARE(run_bytes));
    lane->d_leaves = take_share(&device, LEAF_SHARE(run_bytes));
}

static enum cllm_status create_lane(void *user, void **lane_out, struct cllm_error *err)
{
    struct gpu_engine *engine = user;
    uint64_t since = now_ns();
    unsigned number = 0;
    struct lane *lane = take_idle_lane(engine, &number);
    *lane_out = lane;
    if (lane) return CLLM_OK;
    lane = calloc(1, sizeof *lane);
    if (!lane) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a GPU lane");
    enum cllm_status status = cllm_gpu_create(engine->device_index, &lane->gpu, err);
    if (status) {
        destroy_lane(lane);
        return status;
    }
    share_memory(engine, lane, number);
    add_time(engine, TIME_LANE, &since);
    *lane_out = lane;
    return CLLM_OK;
}

/* ---------------------------------------------------------------------------------------------------------------- runs */

static bool takes_chunk(void *user, const struct cllm_chunk *chunk)
{
    (void)user;
    return cllm_gpu_decodes(chunk);
}

static enum cllm_status reserve_lane(struct lane *lane, const struct cllm_data *data, const struct cllm_engine_run *run,
                                     struct cllm_error *err)
{
    const size_t stored_bytes = cllm_run_buffer_bytes(data, run->first_chunk, run->chunk_count);
    const size_t decoded_bytes = (size_t)run->chunk_count * data->chunk_bytes;
    const size_t leaf_bytes = (size_t)run->chunk_count * CLLM_DIGEST_BYTES;
    if (run->chunk_count > lane->item_capacity) {
        free(lane->items);
        lane->item_capacity = 0;
        lane->items = calloc(run->chunk_count, sizeof *lane->items);
        if (!lane->items) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %u chunks", run->chunk_count);
        lane->item_capacity = run->chunk_count;
    }
    enum cllm_status status = reserve(lane, &lane->stored, true, stored_bytes, err);
    if (!status) status = reserve(lane, &lane->d_stored, false, stored_bytes, err);
    if (!status) status = reserve(lane, &lane->d_decoded, false, decoded_bytes, err);
    if (!status) status = reserve(lane, &lane->leaves, true, leaf_bytes, err);
    if (!status) status = reserve(lane, &lane->d_leaves, false, leaf_bytes, err);
    if (!status && run->bytes) status = reserve(lane, &lane->decoded, true, decoded_bytes, err);
    return status;
}

/* Chunks lie on the device as they lie in the file, and decoded one after the other. */
static void describe_items(struct lane *lane, const struct cllm_data *data, const struct cllm_engine_run *run)
{
    const uint64_t start = data->chunks[run->first_chunk].stored_offset;
    for (uint32_t k = 0; k < run->chunk_count; k++) {
        lane->items[k] = (struct cllm_gpu_item){
            .data = data,
            .chunk_index = run->first_chunk + k,
            .d_stored = (uint8_t *)lane->d_stored.bytes + (data->chunks[run->first_chunk + k].stored_offset - start),
            .d_out = (uint8_t *)lane->d_decoded.bytes + (size_t)k * data->chunk_bytes,
        };
    }
    lane->item_count = run->chunk_count;
    lane->bytes = run->bytes;
}

static enum cllm_status queue_run(struct lane *lane, const struct cllm_data *data, const struct cllm_engine_run *run,
                                  struct cllm_error *err)
{
    const struct cllm_chunk *last = &data->chunks[run->first_chunk + run->chunk_count - 1];
    const size_t decoded_bytes = (size_t)(run->chunk_count - 1) * data->chunk_bytes + last->decoded_bytes;
    const size_t stored_bytes = cllm_run_buffer_bytes(data, run->first_chunk, run->chunk_count);
    enum cllm_status status = cllm_gpu_upload(lane->gpu, lane->d_stored.bytes, lane->stored.bytes, stored_bytes, err);
    if (!status) status = cllm_gpu_decode(lane->gpu, lane->items, lane->item_count, err);
    if (!status) status = cllm_gpu_hash(lane->gpu, lane->items, lane->item_count, lane->d_leaves.bytes, err);
    if (!status && run->bytes)
        status = cllm_gpu_download(lane->gpu, lane->decoded.bytes, lane->d_decoded.bytes, decoded_bytes, err);
    if (status) return status;
    return cllm_gpu_download(lane->gpu, lane->leaves.bytes, lane->d_leaves.bytes, (size_t)lane->item_count * CLLM_DIGEST_BYTES,
                             err);
}

static enum cllm_status start_run(void *user, void *lane_memory, const struct cllm_engine_run *run, struct cllm_error *err)
{
    struct gpu_engine *engine = user;
    struct lane *lane = lane_memory;
    const struct cllm_data *data = &cllm_reader_index(run->reader)->data[run->data_index];
    uint64_t since = now_ns();
    enum cllm_status status = reserve_lane(lane, data, run, err);
    add_time(engine, TIME_LANE, &since);
    if (!status) {
        status =
            cllm_reader_read_checked(run->reader, run->data_index, run->first_chunk, run->chunk_count, lane->stored.bytes, err);
    }
    add_time(engine, TIME_READ, &since);
    if (status) return status;
    describe_items(lane, data, run);
    status = queue_run(lane, data, run, err);
    if (status) wait_for_lane(lane); /* its buffers are free again */
    add_time(engine, TIME_QUEUE, &since);
    atomic_fetch_add_explicit(&engine->run_count, 1, memory_order_relaxed);
    return status;
}

static enum cllm_status finish_run(void *user, void *lane_memory, uint8_t *leaves_out, const uint8_t **decoded_out,
                                   struct cllm_error *err)
{
    struct lane *lane = lane_memory;
    uint64_t since = now_ns();
    enum cllm_status status = cllm_gpu_finish(lane->gpu, NULL, err);
    add_time(user, TIME_WAIT, &since);
    if (status) return status;
    memcpy(leaves_out, lane->leaves.bytes, (size_t)lane->item_count * CLLM_DIGEST_BYTES);
    if (lane->bytes) *decoded_out = lane->decoded.bytes;
    return CLLM_OK;
}

/* -------------------------------------------------------------------------------------------------------------- engine */

enum cllm_status cllm_gpu_engine_create_tuned(unsigned device_index, const struct cllm_gpu_engine_tuning *tuning,
                                              const struct cllm_engine **engine_out, struct cllm_error *err)
{
    *engine_out = NULL;
    struct gpu_engine *engine = calloc(1, sizeof *engine);
    if (!engine) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a GPU engine");
    pthread_mutex_init(&engine->lock, NULL);
    engine->device_index = device_index;
    engine->huge_pages = tuning->huge_pages;
    engine->engine = (struct cllm_engine){
        .user = engine,
        .name = engine->name,
        .run_bytes = tuning->run_bytes,
        .lane_count = tuning->lane_count,
        .lane_create = create_lane,
        .lane_destroy = give_back_lane,
        .takes = takes_chunk,
        .start = start_run,
        .finish = finish_run,
    };
    enum cllm_status status = cllm_gpu_create(device_index, &engine->gpu, err);
    if (!status) snprintf(engine->name, sizeof engine->name, "%s", cllm_gpu_name(engine->gpu));
    if (!status) status = allocate_shared(engine, err);
    if (status) cllm_gpu_engine_destroy(&engine->engine);
    else *engine_out = &engine->engine;
    return status;
}

enum cllm_status cllm_gpu_engine_create(unsigned device_index, const struct cllm_engine **engine_out, struct cllm_error *err)
{
    const unsigned lanes = LANES_PER_THREAD * cllm_thread_count(0);
    const struct cllm_gpu_engine_tuning tuning = {
        .run_bytes = RUN_BYTES, .lane_count = lanes < LANES_MAX ? lanes : LANES_MAX, .huge_pages = true};
    return cllm_gpu_engine_create_tuned(device_index, &tuning, engine_out, err);
}

struct cllm_gpu_engine_times cllm_gpu_engine_times(const struct cllm_engine *engine)
{
    const struct gpu_engine *own = engine->user;
    return (struct cllm_gpu_engine_times){
        .run_count = own->run_count,
        .lane_ns = own->times[TIME_LANE],
        .read_ns = own->times[TIME_READ],
        .queue_ns = own->times[TIME_QUEUE],
        .wait_ns = own->times[TIME_WAIT],
    };
}

void cllm_gpu_engine_destroy(const struct cllm_engine *engine)
{
    if (!engine) return;
    struct gpu_engine *own = engine->user;
    for (struct lane *lane = own->idle, *next; lane; lane = next) {
        next = lane->next;
        destroy_lane(lane);
    }
    if (own->gpu) free_shared(own);
    cllm_gpu_destroy(own->gpu);
    pthread_mutex_destroy(&own->lock);
    free(own);
}

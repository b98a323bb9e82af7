/* engine.c - the GPU as an engine for verifying: file, pinned memory, device, decoded there, hashed there; nothing but digests
 * comes back. */
#include "cllm_decode_gpu.h"

#include "pipeline.h"
#include "reader.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_BYTES (16u << 20)
#define LANES_MAX 16u /* more wait for each other; bench/NOTES.md */

struct gpu_engine {
    struct cllm_engine engine;
    unsigned device_index;
    char name[256];
    pthread_mutex_t lock;
    struct lane *idle; /* lanes that were given back, for the next container */
};

/* One thread's context and buffers, grown as needed. */
struct lane {
    struct lane *next; /* idle */
    struct cllm_gpu *gpu;
    void *stored; /* pinned */
    void *d_stored;
    void *d_decoded;
    uint8_t *leaves; /* pinned */
    void *d_leaves;
    struct cllm_gpu_item *items;
    size_t stored_capacity;
    size_t decoded_capacity;
    uint32_t item_capacity;
};

static void destroy_lane(struct lane *lane)
{
    if (lane->gpu) {
        cllm_gpu_free_pinned(lane->gpu, lane->stored);
        cllm_gpu_free_pinned(lane->gpu, lane->leaves);
        cllm_gpu_free(lane->gpu, lane->d_stored);
        cllm_gpu_free(lane->gpu, lane->d_decoded);
        cllm_gpu_free(lane->gpu, lane->d_leaves);
    }
    cllm_gpu_destroy(lane->gpu);
    free(lane->items);
    free(lane);
}

static void give_back_lane(void *user, void *lane_memory)
{
    struct gpu_engine *engine = user;
    struct lane *lane = lane_memory;
    pthread_mutex_lock(&engine->lock);
    lane->next = engine->idle;
    engine->idle = lane;
    pthread_mutex_unlock(&engine->lock);
}

/* Pinned and device memory are slow to get: a lane that was used before is taken first. */
static struct lane *take_idle_lane(struct gpu_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    struct lane *lane = engine->idle;
    if (lane) engine->idle = lane->next;
    pthread_mutex_unlock(&engine->lock);
    return lane;
}

static enum cllm_status create_lane(void *user, void **lane_out, struct cllm_error *err)
{
    struct gpu_engine *engine = user;
    struct lane *lane = take_idle_lane(engine);
    *lane_out = lane;
    if (lane) return CLLM_OK;
    lane = calloc(1, sizeof *lane);
    if (!lane) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a GPU lane");
    enum cllm_status status = cllm_gpu_create(engine->device_index, &lane->gpu, err);
    if (status) {
        destroy_lane(lane);
        return status;
    }
    *lane_out = lane;
    return CLLM_OK;
}

static bool takes_chunk(void *user, const struct cllm_chunk *chunk)
{
    (void)user;
    return cllm_gpu_decodes(chunk);
}

static enum cllm_status reserve_stored(struct lane *lane, size_t byte_count, struct cllm_error *err)
{
    if (byte_count <= lane->stored_capacity) return CLLM_OK;
    cllm_gpu_free_pinned(lane->gpu, lane->stored);
    cllm_gpu_free(lane->gpu, lane->d_stored);
    lane->stored = lane->d_stored = NULL;
    lane->stored_capacity = 0;
    enum cllm_status status = cllm_gpu_allocate_pinned(lane->gpu, byte_count, &lane->stored, err);
    if (!status) status = cllm_gpu_allocate(lane->gpu, byte_count, &lane->d_stored, err);
    if (!status) lane->stored_capacity = byte_count;
    return status;
}

static enum cllm_status reserve_decoded(struct lane *lane, size_t byte_count, struct cllm_error *err)
{
    if (byte_count <= lane->decoded_capacity) return CLLM_OK;
    cllm_gpu_free(lane->gpu, lane->d_decoded);
    lane->decoded_capacity = 0;
    enum cllm_status status = cllm_gpu_allocate(lane->gpu, byte_count, &lane->d_decoded, err);
    if (!status) lane->decoded_capacity = byte_count;
    return status;
}

static enum cllm_status reserve_items(struct lane *lane, uint32_t item_count, struct cllm_error *err)
{
    if (item_count <= lane->item_capacity) return CLLM_OK;
    void *leaves = NULL;
    cllm_gpu_free_pinned(lane->gpu, lane->leaves);
    cllm_gpu_free(lane->gpu, lane->d_leaves);
    free(lane->items);
    lane->leaves = NULL;
    lane->d_leaves = NULL;
    lane->item_capacity = 0;
    lane->items = calloc(item_count, sizeof *lane->items);
    if (!lane->items) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %u chunks", item_count);
    enum cllm_status status = cllm_gpu_allocate_pinned(lane->gpu, (size_t)item_count * CLLM_DIGEST_BYTES, &leaves, err);
    lane->leaves = leaves;
    if (!status) status = cllm_gpu_allocate(lane->gpu, (size_t)item_count * CLLM_DIGEST_BYTES, &lane->d_leaves, err);
    if (!status) lane->item_capacity = item_count;
    return status;
}

/* Chunks lie on the device as they lie in the file, and decoded one after the other. */
static void describe_items(struct lane *lane, const struct cllm_data *data, uint32_t first_chunk, uint32_t chunk_count)
{
    uint64_t start = data->chunks[first_chunk].stored_offset;
    for (uint32_t k = 0; k < chunk_count; k++) {
        lane->items[k] = (struct cllm_gpu_item){
            .data = data,
            .chunk_index = first_chunk + k,
            .d_stored = (uint8_t *)lane->d_stored + (data->chunks[first_chunk + k].stored_offset - start),
            .d_out = (uint8_t *)lane->d_decoded + (size_t)k * data->chunk_bytes,
        };
    }
}

static enum cllm_status read_run(struct lane *lane, const struct cllm_reader *reader, uint32_t data_index, uint32_t first_chunk,
                                 uint32_t chunk_count, struct cllm_error *err)
{
    const struct cllm_data *data = &cllm_reader_index(reader)->data[data_index];
    uint64_t start = data->chunks[first_chunk].stored_offset;
    enum cllm_status status = cllm_reader_read_run(reader, data_index, first_chunk, chunk_count, lane->stored, err);
    for (uint32_t k = 0; k < chunk_count && !status; k++) {
        const uint8_t *stored = (const uint8_t *)lane->stored + (data->chunks[first_chunk + k].stored_offset - start);
        status = cllm_reader_check_chunk(reader, data_index, first_chunk + k, stored, err);
    }
    return status;
}

static enum cllm_status hash_run(void *user, void *lane_memory, const struct cllm_reader *reader, uint32_t data_index,
                                 uint32_t first_chunk, uint32_t chunk_count, uint8_t *leaves_out, struct cllm_error *err)
{
    (void)user;
    struct lane *lane = lane_memory;
    const struct cllm_data *data = &cllm_reader_index(reader)->data[data_index];
    const size_t stored_bytes = cllm_run_buffer_bytes(data, first_chunk, chunk_count);
    const size_t leaf_bytes = (size_t)chunk_count * CLLM_DIGEST_BYTES;
    enum cllm_status status = reserve_stored(lane, stored_bytes, err);
    if (!status) status = reserve_decoded(lane, (size_t)chunk_count * data->chunk_bytes, err);
    if (!status) status = reserve_items(lane, chunk_count, err);
    if (!status) status = read_run(lane, reader, data_index, first_chunk, chunk_count, err);
    if (status) return status;
    describe_items(lane, data, first_chunk, chunk_count);
    status = cllm_gpu_upload(lane->gpu, lane->d_stored, lane->stored, stored_bytes, err);
    if (!status) status = cllm_gpu_decode(lane->gpu, lane->items, chunk_count, err);
    if (!status) status = cllm_gpu_hash(lane->gpu, lane->items, chunk_count, lane->d_leaves, err);
    if (!status) status = cllm_gpu_download(lane->gpu, lane->leaves, lane->d_leaves, leaf_bytes, err);
    enum cllm_status finished = cllm_gpu_finish(lane->gpu, NULL, status ? NULL : err);
    if (!status) status = finished;
    if (!status) memcpy(leaves_out, lane->leaves, leaf_bytes);
    return status;
}

enum cllm_status cllm_gpu_engine_create(unsigned device_index, const struct cllm_engine **engine_out, struct cllm_error *err)
{
    struct cllm_gpu *gpu = NULL;
    *engine_out = NULL;
    enum cllm_status status = cllm_gpu_create(device_index, &gpu, err); /* is there one that works? */
    if (status) return status;
    struct gpu_engine *engine = calloc(1, sizeof *engine);
    const unsigned thread_count = cllm_thread_count(0);
    if (engine) {
        snprintf(engine->name, sizeof engine->name, "%s", cllm_gpu_name(gpu));
        engine->device_index = device_index;
        engine->engine = (struct cllm_engine){
            .user = engine,
            .name = engine->name,
            .run_bytes = RUN_BYTES,
            .lane_count = thread_count < LANES_MAX ? thread_count : LANES_MAX,
            .lane_create = create_lane,
            .lane_destroy = give_back_lane,
            .takes = takes_chunk,
            .hash_run = hash_run,
        };
        pthread_mutex_init(&engine->lock, NULL);
        *engine_out = &engine->engine;
    } else {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a GPU engine");
    }
    cllm_gpu_destroy(gpu);
    return status;
}

void cllm_gpu_engine_destroy(const struct cllm_engine *engine)
{
    if (!engine) return;
    struct gpu_engine *own = engine->user;
    for (struct lane *lane = own->idle, *next; lane; lane = next) {
        next = lane->next;
        destroy_lane(lane);
    }
    pthread_mutex_destroy(&own->lock);
    free(own);
}

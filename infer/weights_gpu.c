/* weights_gpu.c - loading, and the source of weights for the forward pass.
 *
 * Loading is one pipeline over all parts of all blocks in order: threads read and check (or decode what the device cannot), the
 * calling thread copies and has decoded. Streaming is the same pipeline going round the streamed layers without end, on a thread
 * of its own; from host memory there is nothing to read, so that it has no other threads.
 *
 * One scratch layer is enough: what arrives while it is in use waits in the ring, and decoding is far faster than copying.
 */
#include "weights_gpu.h"

#include "bytes.h"
#include "half.h"
#include "pack12.h"
#include "pipeline.h"
#include "weights_gpu_ring.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define DISK_THREADS_MAX 8u
#define COPIES_UNDER_WAY 3u /* at once, while jobs fill buffers: filling one must not wait for the copy that was queued last */

/* Pinned host memory. */
struct pinned {
    uint8_t *bytes;
    void *d_bytes; /* where kernels see it; null until pinned */
};

/* Device memory that is filled from the start. */
struct pool {
    uint8_t *d_bytes;
    uint64_t size;
    uint64_t used;
};

/* What the forward pass and the streaming thread tell each other. A visit is one streamed layer in one pass over the model. */
struct streaming {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t ready_count;    /* visits whose decoding is queued: `ready` was recorded behind the last of them */
    uint64_t released_count; /* visits that the forward pass is done with: `released` was recorded behind */
    bool stop;
    enum cllm_status status; /* of the thread */
    struct cllm_error error;
    void *ready, *released; /* events */
    size_t next_block;      /* of the pipeline */
    size_t next_part;
    uint64_t decoding_visit;           /* of the oldest pending part */
    struct cllm_weights_gpu_work work; /* copy for other threads */
};

struct cllm_weights_gpu {
    struct cllm_gpu_source source; /* first: what the forward pass holds */
    const struct cllm_reader *reader;
    const struct cllm_model *model;
    struct cllm_gpu_device *device;
    struct cllm_residency_plan plan;
    uint64_t resident_limit; /* of what stays, beside what the forward pass and streaming take */
    uint64_t budget_bytes;
    unsigned thread_count;
    const struct cllm_progress *progress;

    struct cllm_blocks blocks;
    struct cllm_ring ring;
    struct pinned arena;
    struct pinned host_embedding;
    struct cllm_gpu_layer *layers; /* as the forward pass gets them */
    struct pool base;              /* vectors, embedding, head */
    struct pool layer_pool;
    void *d_scratch;    /* one decoded layer */
    void *d_unpacked;   /* the head or embedding, decoded, while it is packed */
    uint64_t *d_counts; /* histograms of a block's matrices */
    struct pinned counts;
    void *counted;                /* event: the histograms are there */
    struct cllm_block *unsettled; /* decoded and counted, not packed yet */
    uint64_t resident_bytes;      /* of device memory that stays */
    uint64_t passing_bytes;       /* of device memory beside it, now: ring, scratch and small things */
    uint64_t done_bytes;
    struct cllm_weights_gpu_work load_work;
    struct streaming streaming;
};

/* Pinned memory for a part on its way to the device. */
struct buffer {
    uint8_t *bytes;
    void *copied; /* event: may be filled again */
};

/* A thread's piece of work: one part. */
struct job {
    struct jobs *all;
    struct cllm_ring_entry entry;
    struct buffer *buffer; /* null for a part that lies in the arena */
    uint8_t *payload;
    struct cllm_part_filler filler;
};

/* Buffers are used in turn: parts are finished in the order in which they are prepared. */
struct jobs {
    struct job *jobs;
    void **pointers;
    unsigned count;
    struct buffer *buffers;
    unsigned buffer_count;
    uint64_t taken_count; /* of buffers, so far */
    struct pinned memory;
};

static uint64_t in_granules(uint64_t byte_count)
{
    return (byte_count + CLLM_DEVICE_GRANULE_BYTES - 1) / CLLM_DEVICE_GRANULE_BYTES * CLLM_DEVICE_GRANULE_BYTES;
}

/* ----------------------------------------------------------------------------------------------------------- memory */

static enum cllm_status allocate_host(struct pinned *pinned, uint64_t byte_count, struct cllm_error *err)
{
    const uint64_t bytes = (byte_count + HUGE_PAGE_BYTES - 1) & ~(uint64_t)(HUGE_PAGE_BYTES - 1);
    pinned->bytes = bytes < SIZE_MAX && bytes >= byte_count ? aligned_alloc(HUGE_PAGE_BYTES, bytes) : NULL;
    if (!pinned->bytes)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %llu bytes", (unsigned long long)byte_count);
    madvise(pinned->bytes, bytes, MADV_HUGEPAGE); /* advice only: pinning is then much faster */
    return CLLM_OK;
}

static enum cllm_status pin(struct cllm_weights_gpu *weights, struct pinned *pinned, uint64_t byte_count, struct cllm_error *err)
{
    return cllm_gpu_device_pin(weights->device, pinned->bytes, byte_count, &pinned->d_bytes, err);
}

static void free_pinned(struct cllm_weights_gpu *weights, struct pinned *pinned)
{
    if (pinned->d_bytes) cllm_gpu_device_unpin(weights->device, pinned->bytes);
    free(pinned->bytes);
    *pinned = (struct pinned){0};
}

static bool is_layer(const struct cllm_weights_gpu *weights, const struct cllm_block *block)
{
    return block - weights->blocks.blocks >= CLLM_BLOCK_LAYERS;
}

static enum cllm_status allocate_counted(struct cllm_weights_gpu *weights, uint64_t byte_count, void **d_memory_out,
                                         struct cllm_error *err)
{
    const uint64_t needed = weights->resident_bytes + in_granules(byte_count);
    const uint64_t now = weights->budget_bytes > weights->passing_bytes ? weights->budget_bytes - weights->passing_bytes : 0;
    const uint64_t limit = now < weights->resident_limit ? now : weights->resident_limit;
    if (needed > limit) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET,
                         "weights that stay need %llu MiB of device memory, expected at most %llu: some do not pack to 12 bits; "
                         "a larger budget, or streaming, has room for them",
                         (unsigned long long)needed >> 20, (unsigned long long)limit >> 20);
    }
    enum cllm_status status = cllm_gpu_device_allocate(weights->device, byte_count, d_memory_out, err);
    if (!status) weights->resident_bytes = needed;
    return status;
}

/* Null where the pool has no room left. */
static void *take(struct pool *pool, uint64_t byte_count)
{
    if (byte_count > pool->size - pool->used) return NULL;
    void *d_memory = pool->d_bytes + pool->used;
    pool->used += (byte_count + CLLM_BLOCK_ALIGNMENT - 1) / CLLM_BLOCK_ALIGNMENT * CLLM_BLOCK_ALIGNMENT;
    return d_memory;
}

static enum cllm_status create_pool(struct cllm_weights_gpu *weights, struct pool *pool, uint64_t size, struct cllm_error *err)
{
    void *d_memory = NULL;
    if (pool->d_bytes || size == 0) return CLLM_OK;
    enum cllm_status status = allocate_counted(weights, size, &d_memory, err);
    if (!status) *pool = (struct pool){d_memory, size, 0};
    return status;
}

/* Memory for a block that stays: in its pool, or, where some did not pack as planned, of its own. */
static enum cllm_status allocate_block(struct cllm_weights_gpu *weights, struct cllm_block *block, uint64_t byte_count,
                                       struct cllm_error *err)
{
    struct pool *pool = is_layer(weights, block) ? &weights->layer_pool : &weights->base;
    enum cllm_status status = CLLM_OK;
    if (is_layer(weights, block)) status = create_pool(weights, pool, weights->plan.layer_bytes, err);
    if (status) return status;
    block->d_memory = take(pool, byte_count);
    if (block->d_memory) return CLLM_OK;
    block->owns_memory = true;
    return allocate_counted(weights, byte_count, &block->d_memory, err);
}

/* ---------------------------------------------------------------------------------------------------------- vectors */

/* A vector of the model, and where the forward pass looks for it. */
struct vector {
    const struct cllm_weight *weight;
    const float **d_floats_out;
};
enum { VECTORS_OF_LAYER = 9 };

static void list_vectors(const struct cllm_layer *layer, struct cllm_gpu_layer *placed, struct vector vectors[VECTORS_OF_LAYER])
{
    const struct vector list[VECTORS_OF_LAYER] = {
        {&layer->attention_norm, &placed->d_attention_norm}, {&layer->mlp_norm, &placed->d_mlp_norm},
        {&layer->query.bias, &placed->query.d_bias},         {&layer->key.bias, &placed->key.d_bias},
        {&layer->value.bias, &placed->value.d_bias},         {&layer->output.bias, &placed->output.d_bias},
        {&layer->gate.bias, &placed->gate.d_bias},           {&layer->up.bias, &placed->up.d_bias},
        {&layer->down.bias, &placed->down.d_bias},
    };
    memcpy(vectors, list, sizeof list);
}

static struct vector vector_at(struct cllm_weights_gpu *weights, size_t i)
{
    struct vector vectors[VECTORS_OF_LAYER];
    const size_t layer = i / VECTORS_OF_LAYER;
    if (layer == weights->model->config.layer_count) {
        return (struct vector){&weights->model->final_norm, &weights->source.d_final_norm};
    }
    list_vectors(&weights->model->layers[layer], &weights->layers[layer], vectors);
    return vectors[i % VECTORS_OF_LAYER];
}

static void widen(const struct cllm_weight *weight, const uint8_t *elements, float *out)
{
    for (uint32_t i = 0; i < weight->row_count; i++) {
        if (weight->type == CLLM_WEIGHT_F32) memcpy(&out[i], elements + 4 * (size_t)i, 4);
        else if (weight->type == CLLM_WEIGHT_F16) out[i] = cllm_float_from_f16(cllm_load_le16(elements + 2 * (size_t)i));
        else out[i] = cllm_float_from_bf16(cllm_load_le16(elements + 2 * (size_t)i));
    }
}

static uint64_t vector_stride(const struct cllm_weight *weight)
{
    return (weight->row_count * sizeof(float) + CLLM_BLOCK_ALIGNMENT - 1) & ~(uint64_t)(CLLM_BLOCK_ALIGNMENT - 1);
}

/* Decodes and widens one vector into `floats`. */
static enum cllm_status load_vector(struct cllm_weights_gpu *weights, const struct cllm_weight *weight, float *floats,
                                    struct cllm_error *err)
{
    const uint32_t data_index = weight->tensor->data_index;
    const uint64_t found = cllm_reader_index(weights->reader)->data[data_index].decoded_bytes;
    const uint64_t expected = (uint64_t)weight->row_count * (weight->type == CLLM_WEIGHT_F32 ? 4 : 2);
    if (found != expected) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "tensor \"%s\" has %llu bytes, expected %llu from its shape",
                         weight->tensor->name, (unsigned long long)found, (unsigned long long)expected);
    }
    uint8_t *elements = malloc(expected);
    if (!elements) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a vector");
    const struct cllm_load load = {data_index, elements};
    enum cllm_status status = cllm_load_data(weights->reader, &load, 1, 1, NULL, err);
    if (!status) widen(weight, elements, floats);
    free(elements);
    return status;
}

static enum cllm_status load_vectors(struct cllm_weights_gpu *weights, struct cllm_error *err)
{
    const size_t count = (size_t)weights->model->config.layer_count * VECTORS_OF_LAYER + 1;
    uint64_t bytes = 0, offset = 0;
    for (size_t i = 0; i < count; i++) bytes += vector_stride(vector_at(weights, i).weight); /* 0 where absent */
    uint8_t *floats = calloc(1, bytes + 1); /* a model has at least its final norm; the analyzer does not know */
    if (!floats) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the norms");
    enum cllm_status status = create_pool(weights, &weights->base, weights->plan.base_bytes, err);
    uint8_t *d_vectors = status ? NULL : take(&weights->base, bytes);
    if (!status && !d_vectors) status = cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "the plan has no room for the norms");
    for (size_t i = 0; !status && i < count; i++) {
        const struct vector vector = vector_at(weights, i);
        if (!vector.weight->tensor) continue;
        status = load_vector(weights, vector.weight, (float *)(void *)(floats + offset), err);
        *vector.d_floats_out = (const float *)(const void *)(d_vectors + offset);
        offset += vector_stride(vector.weight);
    }
    void *stream = weights->ring.copy_stream;
    if (!status) status = cllm_gpu_device_copy(weights->device, d_vectors, floats, bytes, stream, err);
    if (!status) status = cllm_gpu_device_stream_finish(weights->device, stream, err);
    free(floats);
    return status;
}

static enum cllm_status load_host_embedding(struct cllm_weights_gpu *weights, struct cllm_error *err)
{
    const struct cllm_weight *embedding = &weights->model->embedding;
    const uint64_t bytes = cllm_reader_index(weights->reader)->data[embedding->tensor->data_index].decoded_bytes;
    enum cllm_status status = allocate_host(&weights->host_embedding, bytes, err);
    if (status) return status;
    const struct cllm_load load = {embedding->tensor->data_index, weights->host_embedding.bytes};
    status = cllm_load_data(weights->reader, &load, 1, weights->thread_count, NULL, err);
    if (!status) status = pin(weights, &weights->host_embedding, bytes, err);
    weights->source.embedding = (struct cllm_gpu_matrix){
        .form = (enum cllm_gpu_form)embedding->type,
        .shape = {embedding->row_count, embedding->column_count},
        .d_elements = weights->host_embedding.d_bytes,
    };
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- packing */

/* Where a block is decoded: to its place, or to where it is packed or used from. */
static enum cllm_status decoded_place(struct cllm_weights_gpu *weights, struct cllm_block *block, void **d_place_out,
                                      struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    void **d_place = &block->d_memory;
    if (block->fate == CLLM_BLOCK_RAW) {
        if (!*d_place) status = allocate_block(weights, block, block->raw_bytes, err);
    } else {
        d_place = is_layer(weights, block) ? &weights->d_scratch : &weights->d_unpacked;
        if (!*d_place) {
            uint64_t bytes = block->raw_bytes;
            for (size_t i = CLLM_BLOCK_LAYERS; is_layer(weights, block) && i < weights->blocks.block_count; i++) {
                const struct cllm_block *other = &weights->blocks.blocks[i];
                if (other->fate != CLLM_BLOCK_RAW && other->raw_bytes > bytes) bytes = other->raw_bytes;
            }
            status = cllm_gpu_device_allocate(weights->device, bytes, d_place, err);
            if (!status) weights->passing_bytes += in_granules(bytes);
        }
    }
    *d_place_out = *d_place;
    return status;
}

static void place_raw(struct cllm_block_matrix *matrix, uint8_t *d_block)
{
    matrix->placed.form = (enum cllm_gpu_form)matrix->weight->type;
    matrix->placed.d_elements = d_block + matrix->raw_offset;
}

/* The block is decoded, or about to be: counts what its matrices' windows are chosen by. */
static enum cllm_status count_block(struct cllm_weights_gpu *weights, struct cllm_block *block, uint8_t *d_block,
                                    struct cllm_error *err)
{
    void *stream = weights->ring.decode_stream;
    enum cllm_status status = CLLM_OK;
    for (unsigned m = 0; !status && m < block->matrix_count; m++) {
        const struct cllm_block_matrix *matrix = &block->matrices[m];
        if (!cllm_block_is_packable(matrix->weight)) continue;
        status = cllm_pack12_survey(d_block + matrix->raw_offset, matrix->raw_bytes / 2,
                                    weights->d_counts + (size_t)m * CLLM_PACK12_BINS, stream, err);
    }
    if (!status) {
        status = cllm_gpu_device_copy(weights->device, weights->counts.bytes, weights->d_counts,
                                      (uint64_t)block->matrix_count * CLLM_PACK12_BINS * sizeof(uint64_t), stream, err);
    }
    if (!status) status = cllm_gpu_device_event_record(weights->device, weights->counted, stream, err);
    if (!status) weights->unsettled = block;
    return status;
}

/* How a block's matrices are to lie. */
struct settlement {
    bool packs[CLLM_BLOCK_MATRICES];
    struct cllm_pack12_choice choices[CLLM_BLOCK_MATRICES];
    uint64_t offsets[CLLM_BLOCK_MATRICES];
    uint64_t bytes;
};

static struct settlement settle(const struct cllm_weights_gpu *weights, const struct cllm_block *block)
{
    enum { GATE = 4, UP = 5 };
    struct settlement settlement = {0};
    for (unsigned m = 0; m < block->matrix_count; m++) {
        uint64_t histogram[CLLM_PACK12_BINS];
        if (!cllm_block_is_packable(block->matrices[m].weight)) continue;
        memcpy(histogram, weights->counts.bytes + m * sizeof histogram, sizeof histogram);
        settlement.choices[m] = cllm_pack12_choose(histogram);
        settlement.packs[m] = settlement.choices[m].patch_count <= cllm_pack12_patch_limit(block->matrices[m].placed.shape);
    }
    if (block->matrix_count == CLLM_BLOCK_MATRICES && settlement.packs[GATE] != settlement.packs[UP]) {
        settlement.packs[GATE] = settlement.packs[UP] = false; /* they are used together */
    }
    for (unsigned m = 0; m < block->matrix_count; m++) {
        const struct cllm_block_matrix *matrix = &block->matrices[m];
        settlement.offsets[m] = settlement.bytes;
        settlement.bytes +=
            settlement.packs[m] ? cllm_pack12_bytes(matrix->placed.shape, settlement.choices[m].patch_count) : matrix->raw_bytes;
        settlement.bytes = (settlement.bytes + CLLM_BLOCK_ALIGNMENT - 1) & ~(uint64_t)(CLLM_BLOCK_ALIGNMENT - 1);
    }
    return settlement;
}

/* Packs what was decoded and counted last, if anything. */
static enum cllm_status pack_block(struct cllm_weights_gpu *weights, struct cllm_error *err)
{
    struct cllm_block *block = weights->unsettled;
    uint8_t *d_block = block && is_layer(weights, block) ? weights->d_scratch : weights->d_unpacked;
    void *stream = weights->ring.decode_stream;
    weights->unsettled = NULL;
    if (!block) return CLLM_OK;
    enum cllm_status status = cllm_gpu_device_event_finish(weights->device, weights->counted, err);
    if (!status) status = cllm_ring_check(&weights->ring, err); /* what did not decode would not pack, either */
    if (status) return status;
    const struct settlement settlement = settle(weights, block);
    status = allocate_block(weights, block, settlement.bytes, err);
    for (unsigned m = 0; !status && m < block->matrix_count; m++) {
        struct cllm_block_matrix *matrix = &block->matrices[m];
        uint8_t *d_raw = d_block + matrix->raw_offset, *d_to = (uint8_t *)block->d_memory + settlement.offsets[m];
        if (settlement.packs[m]) {
            status = cllm_pack12_write(d_raw, matrix->placed.shape, &settlement.choices[m], d_to, &matrix->placed, stream, err);
            continue;
        }
        status = cllm_gpu_device_copy(weights->device, d_to, d_raw, matrix->raw_bytes, stream, err);
        matrix->placed.form = (enum cllm_gpu_form)matrix->weight->type;
        matrix->placed.d_elements = d_to;
    }
    if (is_layer(weights, block)) return status;
    if (!status) status = cllm_gpu_device_stream_finish(weights->device, stream, err);
    cllm_gpu_device_free(weights->device, weights->d_unpacked);
    weights->d_unpacked = NULL;
    weights->passing_bytes -= in_granules(block->raw_bytes);
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- loading */

/* Decodes the oldest part that was copied, while loading. */
static enum cllm_status decode_loaded(struct cllm_weights_gpu *weights, struct cllm_error *err)
{
    struct cllm_ring *ring = &weights->ring;
    const struct cllm_ring_entry entry = *cllm_ring_oldest(ring);
    void *d_place = NULL;
    enum cllm_status status = entry.first_of_block ? pack_block(weights, err) : CLLM_OK;
    if (!status) status = decoded_place(weights, entry.block, &d_place, err);
    if (!status) status = cllm_ring_decode(ring, d_place, err);
    if (status || !entry.last_of_block) return status;
    if (entry.block->fate == CLLM_BLOCK_PACKED) return count_block(weights, entry.block, d_place, err);
    for (unsigned m = 0; m < entry.block->matrix_count; m++) place_raw(&entry.block->matrices[m], d_place);
    return CLLM_OK;
}

/* Whether the block is loaded now: all but those that are streamed from disk. */
static bool is_loaded(const struct cllm_weights_gpu *weights, const struct cllm_block *block)
{
    return block->fate != CLLM_BLOCK_ABSENT && !(block->fate == CLLM_BLOCK_STREAMED && weights->plan.from_disk);
}

/* Moves on to the next part of a block that `wanted` accepts; false at the end. */
static bool next_entry(struct cllm_weights_gpu *weights,
                       bool (*wanted)(const struct cllm_weights_gpu *, const struct cllm_block *),
                       struct cllm_ring_entry *entry_out)
{
    struct streaming *at = &weights->streaming;
    while (at->next_block < weights->blocks.block_count) {
        struct cllm_block *block = &weights->blocks.blocks[at->next_block];
        if (!wanted(weights, block) || at->next_part == block->part_count) {
            at->next_block++;
            at->next_part = 0;
            continue;
        }
        const size_t part = at->next_part++;
        *entry_out = (struct cllm_ring_entry){block, &block->parts[part], part == 0, part + 1 == block->part_count};
        return true;
    }
    return false;
}

/* Has the job's part read to a buffer: the one that was copied to the device longest ago. */
static enum cllm_status take_buffer(struct cllm_weights_gpu *weights, struct job *job, struct cllm_error *err)
{
    struct jobs *all = job->all;
    job->buffer = &all->buffers[all->taken_count++ % all->buffer_count];
    job->payload = job->buffer->bytes;
    return cllm_gpu_device_event_finish(weights->device, job->buffer->copied, err);
}

static void place_in_arena(struct cllm_weights_gpu *weights, struct job *job)
{
    job->buffer = NULL;
    job->payload = weights->arena.bytes + job->entry.part->arena_offset;
}

static enum cllm_status prepare_load(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    struct cllm_weights_gpu *weights = user;
    struct job *job = job_memory;
    *more_out = next_entry(weights, is_loaded, &job->entry);
    if (!*more_out) return CLLM_OK;
    if (job->entry.block->fate != CLLM_BLOCK_STREAMED) return take_buffer(weights, job, err);
    place_in_arena(weights, job);
    return CLLM_OK;
}

static enum cllm_status fill_job(void *user, void *job_memory, struct cllm_error *err)
{
    const struct cllm_weights_gpu *weights = user;
    struct job *job = job_memory;
    return cllm_part_fill(weights->reader, job->entry.part, &job->filler, job->payload, err);
}

static enum cllm_status finish_load(void *user, void *job_memory, struct cllm_error *err)
{
    struct cllm_weights_gpu *weights = user;
    struct job *job = job_memory;
    struct cllm_ring *ring = &weights->ring;
    enum cllm_status status = CLLM_OK;
    if (job->buffer) {
        /* decoding waits for a copy: others must be under way meanwhile */
        while (!status && cllm_ring_pending(ring) + 1 >= ring->slot_count) status = decode_loaded(weights, err);
        if (!status) status = cllm_ring_copy(ring, &job->entry, job->payload, job->buffer->copied, err);
    }
    weights->done_bytes += job->entry.part->out_bytes;
    const struct cllm_progress *progress = weights->progress;
    if (!status && progress && !progress->report(progress->user, weights->done_bytes, weights->blocks.raw_bytes)) {
        return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
    }
    return status;
}

static void free_jobs(struct cllm_weights_gpu *weights, struct jobs *jobs)
{
    for (unsigned i = 0; jobs->buffers && i < jobs->buffer_count; i++) {
        if (jobs->buffers[i].copied) (void)!cllm_gpu_device_event_finish(weights->device, jobs->buffers[i].copied, NULL);
        cllm_gpu_device_event_destroy(weights->device, jobs->buffers[i].copied);
    }
    for (unsigned i = 0; jobs->jobs && i < jobs->count; i++) cllm_part_filler_free(&jobs->jobs[i].filler);
    free(jobs->jobs);
    free(jobs->pointers);
    free(jobs->buffers);
    free_pinned(weights, &jobs->memory);
}

/* Jobs, and buffers for a slot each if `buffered`. To be freed after a failure too. */
static enum cllm_status create_jobs(struct cllm_weights_gpu *weights, unsigned count, bool buffered, struct jobs *jobs,
                                    struct cllm_error *err)
{
    const uint64_t stride = weights->plan.slot_bytes + CLLM_PART_SLACK_BYTES;
    const unsigned buffer_count = buffered ? count + COPIES_UNDER_WAY : 0;
    *jobs = (struct jobs){.count = count, .buffer_count = buffer_count};
    jobs->jobs = calloc(count, sizeof *jobs->jobs);
    jobs->pointers = calloc(count, sizeof *jobs->pointers);
    jobs->buffers = calloc(buffer_count + 1, sizeof *jobs->buffers);
    if (!jobs->jobs || !jobs->pointers || !jobs->buffers)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for loading");
    for (unsigned i = 0; i < count; i++) {
        jobs->pointers[i] = &jobs->jobs[i];
        jobs->jobs[i].all = jobs;
    }
    enum cllm_status status = buffered ? allocate_host(&jobs->memory, buffer_count * stride, err) : CLLM_OK;
    if (!status && buffered) cllm_zero_fresh(jobs->memory.bytes, buffer_count * stride, weights->thread_count);
    if (!status && buffered) status = pin(weights, &jobs->memory, buffer_count * stride, err);
    for (unsigned i = 0; !status && i < buffer_count; i++) {
        jobs->buffers[i].bytes = jobs->memory.bytes + i * stride;
        status = cllm_gpu_device_event_create(weights->device, false, &jobs->buffers[i].copied, err);
    }
    return status;
}

static enum cllm_status load_blocks(struct cllm_weights_gpu *weights, struct cllm_error *err)
{
    struct jobs jobs;
    const struct cllm_pipeline pipeline = {weights, prepare_load, fill_job, finish_load};
    enum cllm_status status = create_jobs(weights, cllm_pipeline_job_count(weights->thread_count), true, &jobs, err);
    if (!status) status = cllm_pipeline_run(&pipeline, jobs.pointers, jobs.count, weights->thread_count, err);
    while (!status && cllm_ring_pending(&weights->ring) > 0) status = decode_loaded(weights, err);
    if (!status) status = cllm_ring_check(&weights->ring, err);
    if (!status) status = pack_block(weights, err);
    if (!status) status = cllm_gpu_device_stream_finish(weights->device, weights->ring.decode_stream, err);
    free_jobs(weights, &jobs);
    return status;
}

/* -------------------------------------------------------------------------------------------------------- streaming */

static bool is_streamed(const struct cllm_weights_gpu *weights, const struct cllm_block *block)
{
    (void)weights;
    return block->fate == CLLM_BLOCK_STREAMED;
}

static void announce(struct cllm_weights_gpu *weights)
{
    weights->streaming.work = weights->ring.work;
    pthread_cond_broadcast(&weights->streaming.changed);
}

/* Makes the decode stream wait until the scratch layer is free. Where that is not even certain yet: waits for it if `patient`,
 * otherwise *free_out is false. */
static enum cllm_status await_scratch(struct cllm_weights_gpu *weights, bool patient, bool *free_out, struct cllm_error *err)
{
    struct streaming *streaming = &weights->streaming;
    pthread_mutex_lock(&streaming->lock);
    while (patient && !streaming->stop && streaming->released_count < streaming->decoding_visit) {
        pthread_cond_wait(&streaming->changed, &streaming->lock);
    }
    const bool stop = streaming->stop;
    *free_out = streaming->released_count >= streaming->decoding_visit;
    pthread_mutex_unlock(&streaming->lock);
    if (patient && stop) return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "streaming ends");
    if (!*free_out || streaming->decoding_visit == 0) return CLLM_OK;
    return cllm_gpu_device_event_wait(weights->device, streaming->released, weights->ring.decode_stream, err);
}

/* The decoding of a whole layer is queued. What it decodes to is judged the first time: the bytes are the same ever after. */
static enum cllm_status complete_visit(struct cllm_weights_gpu *weights, struct cllm_block *block, struct cllm_error *err)
{
    struct streaming *streaming = &weights->streaming;
    const bool first_round = streaming->decoding_visit < weights->plan.streamed_count;
    enum cllm_status status = first_round ? cllm_ring_check_batches(&weights->ring, block, err) : CLLM_OK;
    if (!status) status = cllm_gpu_device_event_record(weights->device, streaming->ready, weights->ring.decode_stream, err);
    if (status) return status;
    pthread_mutex_lock(&streaming->lock);
    streaming->decoding_visit++;
    streaming->ready_count = streaming->decoding_visit;
    announce(weights);
    pthread_mutex_unlock(&streaming->lock);
    return CLLM_OK;
}

/* Decodes the oldest part that was copied; if not `patient`, only if its place is free. */
static enum cllm_status decode_streamed(struct cllm_weights_gpu *weights, bool patient, bool *done_out, struct cllm_error *err)
{
    struct cllm_ring *ring = &weights->ring;
    const struct cllm_ring_entry entry = *cllm_ring_oldest(ring);
    enum cllm_status status = CLLM_OK;
    *done_out = true;
    if (entry.first_of_block) {
        status = await_scratch(weights, patient, done_out, err);
        if (!status && *done_out && ring->timed) cllm_ring_collect_times(ring, entry.block);
    }
    if (status || !*done_out) return status;
    status = cllm_ring_decode(ring, weights->d_scratch, err);
    return status || !entry.last_of_block ? status : complete_visit(weights, entry.block, err);
}

static enum cllm_status prepare_stream(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    struct cllm_weights_gpu *weights = user;
    struct streaming *streaming = &weights->streaming;
    struct job *job = job_memory;
    *more_out = true;
    if (!next_entry(weights, is_streamed, &job->entry)) {
        streaming->next_block = streaming->next_part = 0; /* round again */
        (void)next_entry(weights, is_streamed, &job->entry);
    }
    if (weights->plan.from_disk) return take_buffer(weights, job, err);
    place_in_arena(weights, job);
    return CLLM_OK;
}

static enum cllm_status fill_stream(void *user, void *job_memory, struct cllm_error *err)
{
    const struct job *job = job_memory;
    return job->buffer ? fill_job(user, job_memory, err) : CLLM_OK;
}

static enum cllm_status finish_stream(void *user, void *job_memory, struct cllm_error *err)
{
    struct cllm_weights_gpu *weights = user;
    const struct job *job = job_memory;
    struct cllm_ring *ring = &weights->ring;
    enum cllm_status status = CLLM_OK;
    bool done = true;
    while (!status && cllm_ring_pending(ring) == ring->slot_count) status = decode_streamed(weights, true, &done, err);
    void *copied = job->buffer ? job->buffer->copied : NULL;
    if (!status) status = cllm_ring_copy(ring, &job->entry, job->payload, copied, err);
    done = true;
    while (!status && done && cllm_ring_pending(ring) > 0) status = decode_streamed(weights, false, &done, err);
    return status;
}

static void *run_streaming(void *user)
{
    struct cllm_weights_gpu *weights = user;
    struct streaming *streaming = &weights->streaming;
    const unsigned all = cllm_thread_count(weights->thread_count);
    const unsigned threads = !weights->plan.from_disk ? 1 : all < DISK_THREADS_MAX ? all : DISK_THREADS_MAX;
    const unsigned job_count = weights->plan.from_disk ? cllm_pipeline_job_count(threads) : 1;
    const struct cllm_pipeline pipeline = {weights, prepare_stream, fill_stream, finish_stream};
    struct cllm_error err = {0};
    struct jobs jobs;
    streaming->next_block = streaming->next_part = 0;
    enum cllm_status status = create_jobs(weights, job_count, weights->plan.from_disk, &jobs, &err);
    if (!status) status = cllm_pipeline_run(&pipeline, jobs.pointers, jobs.count, threads, &err);
    free_jobs(weights, &jobs);
    pthread_mutex_lock(&streaming->lock);
    streaming->status = status;
    streaming->error = err;
    announce(weights);
    pthread_mutex_unlock(&streaming->lock);
    return NULL;
}

static enum cllm_status start_streaming(struct cllm_weights_gpu *weights, struct cllm_error *err)
{
    struct streaming *streaming = &weights->streaming;
    enum cllm_status status = CLLM_OK;
    cllm_ring_end_calls(&weights->ring);
    weights->ring.copied_count = weights->ring.decoded_count = 0;
    weights->ring.work = (struct cllm_weights_gpu_work){0};
    for (size_t i = 0; i < weights->blocks.block_count; i++) {
        struct cllm_block *block = &weights->blocks.blocks[i];
        for (size_t p = 0; !status && is_streamed(weights, block) && p < block->part_count; p++) {
            status = cllm_ring_prepare(&weights->ring, &block->parts[p], err);
        }
    }
    if (!status && !weights->plan.from_disk) status = pin(weights, &weights->arena, weights->blocks.arena_bytes, err);
    if (!status) status = cllm_gpu_device_event_create(weights->device, false, &streaming->ready, err);
    if (!status) status = cllm_gpu_device_event_create(weights->device, false, &streaming->released, err);
    if (status) return status;
    if (pthread_create(&streaming->thread, NULL, run_streaming, weights) != 0)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "cannot start a thread");
    streaming->started = true;
    return CLLM_OK;
}

static void stop_streaming(struct cllm_weights_gpu *weights)
{
    struct streaming *streaming = &weights->streaming;
    pthread_mutex_lock(&streaming->lock);
    streaming->stop = true;
    pthread_cond_broadcast(&streaming->changed);
    pthread_mutex_unlock(&streaming->lock);
    if (streaming->started) pthread_join(streaming->thread, NULL);
    streaming->started = false;
}

/* ----------------------------------------------------------------------------------------------------------- source */

/* Streamed layers are acquired in order: the visit that is ready next is this layer's. */
static enum cllm_status await_layer(struct cllm_weights_gpu *weights, void *stream, struct cllm_error *err)
{
    struct streaming *streaming = &weights->streaming;
    pthread_mutex_lock(&streaming->lock);
    while (!streaming->status && streaming->ready_count <= streaming->released_count) {
        pthread_cond_wait(&streaming->changed, &streaming->lock);
    }
    const enum cllm_status status = streaming->ready_count > streaming->released_count ? CLLM_OK : streaming->status;
    if (status && err) *err = streaming->error;
    pthread_mutex_unlock(&streaming->lock);
    return status ? status : cllm_gpu_device_event_wait(weights->device, streaming->ready, stream, err);
}

static enum cllm_status acquire(struct cllm_gpu_source *source, uint32_t layer_index, void *stream,
                                struct cllm_gpu_layer *layer_out, struct cllm_error *err)
{
    struct cllm_weights_gpu *weights = (struct cllm_weights_gpu *)source;
    *layer_out = weights->layers[layer_index];
    if (!cllm_residency_is_streamed(&weights->plan, layer_index)) return CLLM_OK;
    return await_layer(weights, stream, err);
}

static enum cllm_status release(struct cllm_gpu_source *source, uint32_t layer_index, void *stream, struct cllm_error *err)
{
    struct cllm_weights_gpu *weights = (struct cllm_weights_gpu *)source;
    struct streaming *streaming = &weights->streaming;
    if (!cllm_residency_is_streamed(&weights->plan, layer_index)) return CLLM_OK;
    enum cllm_status status = cllm_gpu_device_event_record(weights->device, streaming->released, stream, err);
    pthread_mutex_lock(&streaming->lock);
    streaming->released_count++;
    pthread_cond_broadcast(&streaming->changed);
    pthread_mutex_unlock(&streaming->lock);
    return status;
}

static void describe_layers(struct cllm_weights_gpu *weights)
{
    for (uint32_t i = 0; i < weights->model->config.layer_count; i++) {
        struct cllm_block *block = &weights->blocks.blocks[CLLM_BLOCK_LAYERS + i];
        struct cllm_gpu_layer *layer = &weights->layers[i];
        struct cllm_gpu_linear *const linears[CLLM_BLOCK_MATRICES] = {&layer->query, &layer->key, &layer->value, &layer->output,
                                                                      &layer->gate,  &layer->up,  &layer->down};
        for (int m = 0; m < CLLM_BLOCK_MATRICES; m++) {
            if (block->fate == CLLM_BLOCK_STREAMED) place_raw(&block->matrices[m], weights->d_scratch);
            linears[m]->weight = block->matrices[m].placed;
        }
    }
    const struct cllm_block *blocks = weights->blocks.blocks;
    weights->source.head = blocks[CLLM_BLOCK_HEAD].matrices[0].placed;
    if (blocks[CLLM_BLOCK_EMBEDDING].fate != CLLM_BLOCK_ABSENT) {
        weights->source.embedding = blocks[CLLM_BLOCK_EMBEDDING].matrices[0].placed;
    } else if (!weights->plan.embedding_on_host) {
        weights->source.embedding = weights->source.head;
    }
    weights->source.resident = weights->plan.streamed_count == 0;
    weights->source.acquire = acquire;
    weights->source.release = release;
}

/* ------------------------------------------------------------------------------------------------------------ public */

static enum cllm_status prepare_counts(struct cllm_weights_gpu *weights, struct cllm_error *err)
{
    const uint64_t bytes = (uint64_t)CLLM_BLOCK_MATRICES * CLLM_PACK12_BINS * sizeof(uint64_t);
    void *d_counts = NULL;
    enum cllm_status status = cllm_gpu_device_allocate(weights->device, bytes, &d_counts, err);
    weights->d_counts = d_counts;
    if (!status) status = allocate_host(&weights->counts, bytes, err);
    if (!status) status = pin(weights, &weights->counts, bytes, err);
    if (!status) status = cllm_gpu_device_event_create(weights->device, false, &weights->counted, err);
    return status;
}

static enum cllm_status load(struct cllm_weights_gpu *weights, const struct cllm_weights_gpu_options *options,
                             struct cllm_error *err)
{
    const bool to_arena = weights->plan.streamed_count > 0 && !weights->plan.from_disk;
    void *d_scratch = NULL;
    enum cllm_status status = cllm_ring_open(&weights->ring, weights->device, weights->reader, options, err);
    if (!status) status = cllm_blocks_create(weights->reader, weights->model, &weights->plan, &weights->blocks, err);
    if (!status && to_arena) status = allocate_host(&weights->arena, weights->blocks.arena_bytes, err);
    if (!status && !weights->plan.raw) status = prepare_counts(weights, err);
    if (!status) status = load_vectors(weights, err);
    if (!status && weights->plan.embedding_on_host) status = load_host_embedding(weights, err);
    if (!status) status = load_blocks(weights, err);
    weights->load_work = weights->ring.work;
    if (!status && weights->plan.streamed_count > 0) {
        /* where every layer is streamed, nothing needed the scratch so far */
        for (size_t i = CLLM_BLOCK_LAYERS; !status && !weights->d_scratch; i++) {
            if (is_streamed(weights, &weights->blocks.blocks[i])) {
                status = decoded_place(weights, &weights->blocks.blocks[i], &d_scratch, err);
            }
        }
        if (!status) status = start_streaming(weights, err);
    }
    if (status) return status;
    describe_layers(weights);
    if (weights->plan.streamed_count > 0) return CLLM_OK;
    cllm_ring_close(&weights->ring);
    cllm_gpu_device_free(weights->device, weights->d_scratch);
    weights->d_scratch = NULL;
    return CLLM_OK;
}

/* What does not pack as planned may take what the budget leaves: at the end, and in every moment of loading. */
static void limit_memory(struct cllm_weights_gpu *weights, uint64_t budget_bytes)
{
    const struct cllm_residency_plan *plan = &weights->plan;
    const uint64_t planned = plan->base_bytes + plan->layer_bytes;
    weights->budget_bytes = budget_bytes > plan->peak_bytes ? budget_bytes : plan->peak_bytes;
    weights->resident_limit = weights->budget_bytes - (plan->total_bytes - planned);
    weights->passing_bytes = plan->weight_bytes - planned + in_granules(plan->slot_count * plan->slot_bytes);
}

enum cllm_status cllm_weights_gpu_load(const struct cllm_reader *reader, const struct cllm_model *model,
                                       struct cllm_gpu_device *device, const struct cllm_weights_gpu_options *options,
                                       struct cllm_weights_gpu **weights_out, struct cllm_error *err)
{
    *weights_out = NULL;
    struct cllm_weights_gpu *weights = calloc(1, sizeof *weights);
    if (!weights) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the weights");
    weights->reader = reader;
    weights->model = model;
    weights->device = device;
    weights->plan = *options->plan;
    limit_memory(weights, options->budget_bytes);
    weights->thread_count = options->thread_count;
    weights->progress = options->progress;
    pthread_mutex_init(&weights->streaming.lock, NULL);
    pthread_cond_init(&weights->streaming.changed, NULL);
    weights->layers = calloc(model->config.layer_count, sizeof *weights->layers);
    enum cllm_status status = weights->layers ? load(weights, options, err)
                                              : cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the weights");
    if (status) {
        cllm_weights_gpu_destroy(weights);
        return status;
    }
    *weights_out = weights;
    return CLLM_OK;
}

static void free_blocks(struct cllm_weights_gpu *weights)
{
    for (size_t i = 0; weights->blocks.blocks && i < weights->blocks.block_count; i++) {
        struct cllm_block *block = &weights->blocks.blocks[i];
        if (block->owns_memory) cllm_gpu_device_free(weights->device, block->d_memory);
        for (size_t p = 0; block->parts && p < block->part_count; p++) {
            cllm_gpu_batch_destroy(block->parts[p].batch);
            cllm_gpu_device_event_destroy(weights->device, block->parts[p].events[0]);
            cllm_gpu_device_event_destroy(weights->device, block->parts[p].events[1]);
        }
    }
    cllm_blocks_free(&weights->blocks);
}

void cllm_weights_gpu_destroy(struct cllm_weights_gpu *weights)
{
    if (!weights) return;
    stop_streaming(weights);
    cllm_ring_finish(&weights->ring); /* what is queued uses all of the following */
    free_blocks(weights);             /* batches before the ring's context */
    cllm_ring_close(&weights->ring);
    cllm_gpu_device_event_destroy(weights->device, weights->streaming.ready);
    cllm_gpu_device_event_destroy(weights->device, weights->streaming.released);
    cllm_gpu_device_event_destroy(weights->device, weights->counted);
    cllm_gpu_device_free(weights->device, weights->base.d_bytes);
    cllm_gpu_device_free(weights->device, weights->layer_pool.d_bytes);
    cllm_gpu_device_free(weights->device, weights->d_scratch);
    cllm_gpu_device_free(weights->device, weights->d_unpacked);
    cllm_gpu_device_free(weights->device, weights->d_counts);
    free_pinned(weights, &weights->counts);
    free_pinned(weights, &weights->arena);
    free_pinned(weights, &weights->host_embedding);
    pthread_cond_destroy(&weights->streaming.changed);
    pthread_mutex_destroy(&weights->streaming.lock);
    free(weights->layers);
    free(weights);
}

struct cllm_gpu_source *cllm_weights_gpu_source(struct cllm_weights_gpu *weights)
{
    return &weights->source;
}

struct cllm_weights_gpu_bytes cllm_weights_gpu_bytes(const struct cllm_weights_gpu *weights)
{
    return (struct cllm_weights_gpu_bytes){weights->resident_bytes,
                                           weights->plan.streamed_count > 0 ? weights->plan.stream_bytes : 0};
}

struct cllm_weights_gpu_work cllm_weights_gpu_load_work(const struct cllm_weights_gpu *weights)
{
    return weights->load_work;
}

struct cllm_weights_gpu_work cllm_weights_gpu_stream_work(struct cllm_weights_gpu *weights)
{
    pthread_mutex_lock(&weights->streaming.lock);
    const struct cllm_weights_gpu_work work = weights->streaming.work;
    pthread_mutex_unlock(&weights->streaming.lock);
    return work;
}

/* Loading and streaming on a device that is played here: streams are queues whose entries are done as late as possible and in any
 * order that events allow, so that memory reused too early, or used before something waited for it, gives wrong weights.
 *
 * Every name of gpu_device.h, and those of cllm_decode_gpu.h and pack12.h that the loader uses, is defined in this file, which is
 * linked before the library.
 */
#include "weights_gpu.h"

#include "cllm_decode_gpu.h"
#include "cllm_decode.h"
#include "cllm_encode.h"
#include "container_builder.h"
#include "pack12.h"
#include "reader.h"
#include "test_dir.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* -------------------------------------------------------------------------------------------------- the played device */

enum op_kind { OP_COPY, OP_RECORD, OP_WAIT, OP_DECODE, OP_SURVEY, OP_PACK, OP_EXPECT };

struct played_event {
    uint64_t recorded; /* queued records */
    uint64_t happened; /* done ones */
};

struct op {
    struct op *next;
    enum op_kind kind;
    void *to;
    const void *from;
    uint64_t count;
    struct played_event *event;
    struct cllm_gpu_batch *batch;
    struct cllm_pack12_choice choice;
};

struct played_stream {
    struct played_stream *next;
    struct op *first, **last;
};

struct cllm_gpu_batch {
    struct cllm_gpu_span *spans;
    size_t span_count;
    bool bad;
};

struct cllm_gpu {
    struct played_stream *stream;
    struct played_event decoded; /* by the last call */
};

static struct played {
    pthread_mutex_t lock;
    struct played_stream *streams;
    struct test_random random;
    uint64_t laziness;                      /* an entry is done for every so many that are queued */
    uint64_t allocated, peak;               /* whole granules */
    int allocation_count, allocation_limit; /* fails when reached; 0: never */
    int pinned_count, event_count, batch_count;
    uint64_t undecodable; /* every so many-th chunk is not for the device; 0: none */
    int bad_batch;        /* the batch so many later does not decode; 0: none */
    bool unpackable;      /* weights look evenly spread */
    int mismatches;       /* of OP_EXPECT */
    int expectations;
    struct cllm_decoder *decoder;
} played = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Of what lies in device memory, at any time one of its bytes is looked at. */
static uint64_t hash_of(const void *bytes, uint64_t count)
{
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (uint64_t i = 0; i < count; i++) hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001B3);
    return hash;
}

static void decode_span(const struct op *op, const struct cllm_gpu_span *span)
{
    for (uint32_t k = 0; k < span->chunk_count; k++) {
        const struct cllm_chunk *chunk = &span->data->chunks[span->first_chunk + k];
        const uint64_t moved = (uint64_t)k * span->data->chunk_bytes;
        uint8_t *out = (uint8_t *)op->to + span->out_offset + moved;
        const uint8_t *stored = (const uint8_t *)op->from + span->stored_offset;
        if (span->decoded) {
            memcpy(out, stored + moved, chunk->decoded_bytes);
            continue;
        }
        uint8_t *buffer = calloc(1, cllm_chunk_buffer_bytes(chunk)); /* the slot has no slack */
        assert_non_null(buffer);
        memcpy(buffer, stored + (chunk->stored_offset - span->data->chunks[span->first_chunk].stored_offset),
               chunk->stored_bytes);
        if (cllm_decode_chunk(played.decoder, span->data, chunk, buffer, out, NULL)) op->batch->bad = true;
        free(buffer);
    }
}

static void do_decode(const struct op *op)
{
    for (size_t i = 0; i < op->batch->span_count; i++) decode_span(op, &op->batch->spans[i]);
}

static void survey(const struct op *op, uint64_t histogram[CLLM_PACK12_BINS])
{
    memset(histogram, 0, CLLM_PACK12_BINS * sizeof *histogram);
    for (uint64_t i = 0; played.unpackable && i < op->count; i++) histogram[i % CLLM_PACK12_BINS]++;
    for (uint64_t i = 0; !played.unpackable && i < op->count; i++) histogram[((const uint16_t *)op->from)[i] >> 8 & 0x7F]++;
}

/* The window must have been chosen for these very weights. */
static void do_pack(const struct op *op)
{
    uint64_t histogram[CLLM_PACK12_BINS];
    survey(op, histogram);
    const struct cllm_pack12_choice expected = cllm_pack12_choose(histogram);
    const bool same = expected.window == op->choice.window && expected.patch_count == op->choice.patch_count;
    ((uint64_t *)op->to)[0] = same ? hash_of(op->from, 2 * op->count) : 0;
}

static void do_op(const struct op *op)
{
    switch (op->kind) {
    case OP_COPY: memcpy(op->to, op->from, op->count); break;
    case OP_RECORD: op->event->happened++; break;
    case OP_WAIT: break;
    case OP_DECODE: do_decode(op); break;
    case OP_SURVEY: survey(op, op->to); break;
    case OP_PACK: do_pack(op); break;
    case OP_EXPECT:
        played.expectations++;
        played.mismatches += op->count ? hash_of(op->from, op->count) != (uint64_t)(uintptr_t)op->to
                                       : ((const uint64_t *)op->from)[0] != (uint64_t)(uintptr_t)op->to;
        break;
    }
}

static bool can_run(const struct op *op)
{
    return op && (op->kind != OP_WAIT || op->event->happened >= op->count);
}

/* Does one entry, of any stream that can go on; false where none can. */
static bool step(void)
{
    struct played_stream *chosen = NULL;
    unsigned candidates = 0;
    for (struct played_stream *s = played.streams; s; s = s->next) {
        if (can_run(s->first) && test_random_next(&played.random) % ++candidates == 0) chosen = s;
    }
    if (!chosen) return false;
    struct op *op = chosen->first;
    chosen->first = op->next;
    if (!op->next) chosen->last = &chosen->first;
    do_op(op);
    free(op);
    return true;
}

static void enqueue(void *stream_memory, struct op op)
{
    struct played_stream *stream = stream_memory;
    struct op *queued = malloc(sizeof *queued);
    assert_non_null(queued);
    pthread_mutex_lock(&played.lock);
    if (op.kind == OP_RECORD) op.event->recorded++;
    if (op.kind == OP_WAIT) op.count = op.event->recorded;
    *queued = op;
    *stream->last = queued;
    stream->last = &queued->next;
    if (test_random_next(&played.random) % played.laziness == 0) (void)step();
    pthread_mutex_unlock(&played.lock);
}

static enum cllm_status finish_stream(struct played_stream *stream)
{
    pthread_mutex_lock(&played.lock);
    while (stream->first) {
        if (!step()) break;
    }
    const bool stuck = stream->first != NULL;
    pthread_mutex_unlock(&played.lock);
    return stuck ? CLLM_E_INTERNAL : CLLM_OK;
}

struct cllm_gpu_device {
    int unused;
};
static struct cllm_gpu_device the_device;

enum cllm_status cllm_gpu_device_open(unsigned device_index, struct cllm_gpu_device **device_out, struct cllm_error *err)
{
    (void)device_index, (void)err;
    *device_out = &the_device;
    return CLLM_OK;
}

void cllm_gpu_device_close(struct cllm_gpu_device *device)
{
    (void)device;
}

void cllm_gpu_device_hurry(struct cllm_gpu_device *device)
{
    (void)device;
}

const char *cllm_gpu_device_name(const struct cllm_gpu_device *device)
{
    (void)device;
    return "played";
}

enum cllm_status cllm_gpu_device_memory(struct cllm_gpu_device *device, struct cllm_gpu_device_memory *memory_out,
                                        struct cllm_error *err)
{
    (void)device, (void)err;
    *memory_out = (struct cllm_gpu_device_memory){UINT64_C(1) << 40, UINT64_C(1) << 40};
    return CLLM_OK;
}

enum cllm_status cllm_gpu_device_measure(struct cllm_gpu_device *device, uint64_t limit_bytes,
                                         struct cllm_gpu_device_speed *speed_out, struct cllm_error *err)
{
    (void)device, (void)limit_bytes, (void)err;
    *speed_out = (struct cllm_gpu_device_speed){1e9, 1e9};
    return CLLM_OK;
}

static uint64_t in_granules(uint64_t byte_count)
{
    return (byte_count + CLLM_DEVICE_GRANULE_BYTES - 1) / CLLM_DEVICE_GRANULE_BYTES * CLLM_DEVICE_GRANULE_BYTES;
}

enum cllm_status cllm_gpu_device_allocate(struct cllm_gpu_device *device, uint64_t byte_count, void **d_memory_out,
                                          struct cllm_error *err)
{
    (void)device;
    *d_memory_out = NULL;
    if (++played.allocation_count == played.allocation_limit)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "the played device is full");
    uint64_t *memory = malloc(byte_count + 64);
    assert_non_null(memory);
    memset(memory, 0xA5, byte_count + 64);
    memory[0] = byte_count;
    played.allocated += in_granules(byte_count);
    if (played.allocated > played.peak) played.peak = played.allocated;
    *d_memory_out = memory + 8;
    return CLLM_OK;
}

/* Waits for the device, as the real one does. */
void cllm_gpu_device_free(struct cllm_gpu_device *device, void *d_memory)
{
    (void)device;
    if (!d_memory) return;
    pthread_mutex_lock(&played.lock);
    while (step()) continue;
    pthread_mutex_unlock(&played.lock);
    uint64_t *memory = (uint64_t *)d_memory - 8;
    played.allocated -= in_granules(memory[0]);
    free(memory);
}

enum cllm_status cllm_gpu_device_pin(struct cllm_gpu_device *device, void *memory, uint64_t byte_count, void **d_memory_out,
                                     struct cllm_error *err)
{
    (void)device, (void)byte_count, (void)err;
    played.pinned_count++;
    if (d_memory_out) *d_memory_out = memory;
    return CLLM_OK;
}

void cllm_gpu_device_unpin(struct cllm_gpu_device *device, void *memory)
{
    (void)device, (void)memory;
    played.pinned_count--;
}

enum cllm_status cllm_gpu_device_stream_create(struct cllm_gpu_device *device, void **stream_out, struct cllm_error *err)
{
    (void)device, (void)err;
    struct played_stream *stream = calloc(1, sizeof *stream);
    assert_non_null(stream);
    stream->last = &stream->first;
    pthread_mutex_lock(&played.lock);
    stream->next = played.streams;
    played.streams = stream;
    pthread_mutex_unlock(&played.lock);
    *stream_out = stream;
    return CLLM_OK;
}

void cllm_gpu_device_stream_destroy(struct cllm_gpu_device *device, void *stream_memory)
{
    (void)device;
    struct played_stream *stream = stream_memory;
    if (!stream) return;
    assert_null(stream->first);
    pthread_mutex_lock(&played.lock);
    struct played_stream **s = &played.streams;
    while (*s != stream) s = &(*s)->next;
    *s = stream->next;
    pthread_mutex_unlock(&played.lock);
    free(stream);
}

enum cllm_status cllm_gpu_device_stream_finish(struct cllm_gpu_device *device, void *stream, struct cllm_error *err)
{
    (void)device, (void)err;
    return finish_stream(stream);
}

enum cllm_status cllm_gpu_device_event_create(struct cllm_gpu_device *device, bool timed, void **event_out,
                                              struct cllm_error *err)
{
    (void)device, (void)timed, (void)err;
    *event_out = calloc(1, sizeof(struct played_event));
    assert_non_null(*event_out);
    played.event_count++;
    return CLLM_OK;
}

void cllm_gpu_device_event_destroy(struct cllm_gpu_device *device, void *event)
{
    (void)device;
    if (!event) return;
    played.event_count--;
    free(event);
}

enum cllm_status cllm_gpu_device_event_record(struct cllm_gpu_device *device, void *event, void *stream, struct cllm_error *err)
{
    (void)device, (void)err;
    enqueue(stream, (struct op){.kind = OP_RECORD, .event = event});
    return CLLM_OK;
}

enum cllm_status cllm_gpu_device_event_wait(struct cllm_gpu_device *device, void *event, void *stream, struct cllm_error *err)
{
    (void)device, (void)err;
    enqueue(stream, (struct op){.kind = OP_WAIT, .event = event});
    return CLLM_OK;
}

enum cllm_status cllm_gpu_device_event_finish(struct cllm_gpu_device *device, void *event_memory, struct cllm_error *err)
{
    (void)device, (void)err;
    struct played_event *event = event_memory;
    pthread_mutex_lock(&played.lock);
    const uint64_t wanted = event->recorded;
    while (event->happened < wanted && step()) continue;
    const bool stuck = event->happened < wanted;
    pthread_mutex_unlock(&played.lock);
    return stuck ? CLLM_E_INTERNAL : CLLM_OK;
}

enum cllm_status cllm_gpu_device_event_seconds(struct cllm_gpu_device *device, void *start, void *end, double *seconds_out,
                                               struct cllm_error *err)
{
    (void)device, (void)start, (void)end, (void)err;
    *seconds_out = 1e-3;
    return CLLM_OK;
}

enum cllm_status cllm_gpu_device_copy(struct cllm_gpu_device *device, void *to, const void *from, uint64_t byte_count,
                                      void *stream, struct cllm_error *err)
{
    (void)device, (void)err;
    enqueue(stream, (struct op){.kind = OP_COPY, .to = to, .from = from, .count = byte_count});
    return CLLM_OK;
}

/* ---------------------------------------------------------------------------------------------------- played decoding */

unsigned cllm_gpu_count(void)
{
    return 1;
}

enum cllm_status cllm_gpu_create(unsigned device_index, struct cllm_gpu **gpu_out, struct cllm_error *err)
{
    (void)device_index, (void)err;
    *gpu_out = calloc(1, sizeof **gpu_out);
    assert_non_null(*gpu_out);
    return CLLM_OK;
}

void cllm_gpu_destroy(struct cllm_gpu *gpu)
{
    free(gpu);
}

enum cllm_status cllm_gpu_set_stream(struct cllm_gpu *gpu, void *stream, struct cllm_error *err)
{
    (void)err;
    gpu->stream = stream;
    return CLLM_OK;
}

bool cllm_gpu_decodes(const struct cllm_chunk *chunk)
{
    if (played.undecodable && chunk->stored_offset / 16 % played.undecodable == 0) return false;
    return chunk->form == CLLM_FORM_FLOAT || chunk->form == CLLM_FORM_RAW;
}

uint32_t cllm_gpu_run_chunks(const struct cllm_data *data, uint32_t first_chunk, uint32_t chunk_count, bool *decodes_out)
{
    uint32_t count = 0;
    *decodes_out = cllm_gpu_decodes(&data->chunks[first_chunk]);
    while (count < chunk_count && cllm_gpu_decodes(&data->chunks[first_chunk + count]) == *decodes_out) count++;
    return count;
}

size_t cllm_gpu_scratch_bytes(size_t item_count, bool palettes)
{
    (void)palettes;
    return 25000 * item_count;
}

static struct cllm_gpu_batch *new_batch(const struct cllm_gpu_span *spans, size_t span_count)
{
    struct cllm_gpu_batch *batch = calloc(1, sizeof *batch);
    assert_non_null(batch);
    batch->spans = calloc(span_count, sizeof *spans);
    assert_non_null(batch->spans);
    memcpy(batch->spans, spans, span_count * sizeof *spans);
    batch->span_count = span_count;
    return batch;
}

static void free_batch(struct cllm_gpu_batch *batch)
{
    free(batch->spans);
    free(batch);
}

enum cllm_status cllm_gpu_batch_create(struct cllm_gpu *gpu, const struct cllm_gpu_span *spans, size_t span_count,
                                       struct cllm_gpu_batch **batch_out, struct cllm_error *err)
{
    (void)err;
    *batch_out = new_batch(spans, span_count);
    if (played.bad_batch > 0) (*batch_out)->bad = --played.bad_batch == 0;
    played.batch_count++;
    return finish_stream(gpu->stream);
}

void cllm_gpu_batch_destroy(struct cllm_gpu_batch *batch)
{
    if (!batch) return;
    played.batch_count--;
    free_batch(batch);
}

enum cllm_status cllm_gpu_batch_decode(const struct cllm_gpu_batch *batch, void *stream, const void *d_stored, void *d_out,
                                       struct cllm_error *err)
{
    (void)err;
    enqueue(stream, (struct op){.kind = OP_DECODE, .batch = (struct cllm_gpu_batch *)batch, .from = d_stored, .to = d_out});
    return CLLM_OK;
}

enum cllm_status cllm_gpu_batch_check(const struct cllm_gpu_batch *batch, void *stream, size_t *bad_span_out,
                                      uint32_t *bad_chunk_out, struct cllm_error *err)
{
    enum cllm_status status = finish_stream(stream);
    *bad_span_out = batch->span_count - 1;
    *bad_chunk_out = batch->spans[batch->span_count - 1].first_chunk;
    return !status && batch->bad ? cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "does not decode") : status;
}

/* Batches of one call, which live as long as the test. */
static struct cllm_gpu_batch *calls[100000];
static size_t call_count;

enum cllm_status cllm_gpu_decode(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count,
                                 struct cllm_error *err)
{
    enum cllm_status status = cllm_gpu_device_event_finish(&the_device, &gpu->decoded, err);
    for (size_t i = 0; !status && i < item_count; i++) {
        struct cllm_gpu_span span = {.data = items[i].data, .first_chunk = items[i].chunk_index, .chunk_count = 1};
        assert_true(call_count < sizeof calls / sizeof *calls);
        struct cllm_gpu_batch **batch = &calls[call_count++];
        *batch = new_batch(&span, 1);
        status = cllm_gpu_batch_decode(*batch, gpu->stream, items[i].d_stored, items[i].d_out, err);
    }
    return status ? status : cllm_gpu_device_event_record(&the_device, &gpu->decoded, gpu->stream, err);
}

enum cllm_status cllm_gpu_finish_decode(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err)
{
    (void)bad_item_out;
    return cllm_gpu_device_event_finish(&the_device, &gpu->decoded, err);
}

enum cllm_status cllm_gpu_finish(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err)
{
    (void)bad_item_out, (void)err;
    return finish_stream(gpu->stream);
}

enum cllm_status cllm_pack12_survey(const void *d_bf16, uint64_t element_count, uint64_t *d_histogram, void *stream,
                                    struct cllm_error *err)
{
    (void)err;
    enqueue(stream, (struct op){.kind = OP_SURVEY, .from = d_bf16, .to = d_histogram, .count = element_count});
    return CLLM_OK;
}

/* A packed matrix is the hash of its bytes. */
enum cllm_status cllm_pack12_write(const void *d_bf16, struct cllm_gpu_shape shape, const struct cllm_pack12_choice *choice,
                                   void *d_memory, struct cllm_gpu_matrix *matrix_out, void *stream, struct cllm_error *err)
{
    (void)err;
    const uint64_t count = (uint64_t)shape.row_count * shape.column_count;
    enqueue(stream, (struct op){.kind = OP_PACK, .from = d_bf16, .to = d_memory, .count = count, .choice = *choice});
    *matrix_out = (struct cllm_gpu_matrix){.form = CLLM_GPU_PACKED12, .shape = shape, .d_elements = d_memory};
    return CLLM_OK;
}

/* What nothing here calls, but other objects name: without it the linker would take the library's for all of them. */

const char *cllm_gpu_name(const struct cllm_gpu *gpu)
{
    (void)gpu;
    return "played";
}

void *cllm_gpu_stream(const struct cllm_gpu *gpu)
{
    return gpu->stream;
}

enum cllm_status cllm_gpu_allocate(struct cllm_gpu *gpu, size_t byte_count, void **d_memory_out, struct cllm_error *err)
{
    (void)gpu;
    return cllm_gpu_device_allocate(&the_device, byte_count, d_memory_out, err);
}

void cllm_gpu_free(struct cllm_gpu *gpu, void *d_memory)
{
    (void)gpu;
    cllm_gpu_device_free(&the_device, d_memory);
}

enum cllm_status cllm_gpu_upload(struct cllm_gpu *gpu, void *d_to, const void *from, size_t byte_count, struct cllm_error *err)
{
    return cllm_gpu_device_copy(&the_device, d_to, from, byte_count, gpu->stream, err);
}

enum cllm_status cllm_gpu_download(struct cllm_gpu *gpu, void *to, const void *d_from, size_t byte_count, struct cllm_error *err)
{
    return cllm_gpu_device_copy(&the_device, to, d_from, byte_count, gpu->stream, err);
}

/* ------------------------------------------------------------------------------------------------------------ the model */

static struct {
    struct test_dir dir;
    char path[256];
    struct cllm_reader *reader;
    struct cllm_model *model; /* loaded: what is expected */
    struct cllm_weights_gpu_sizes sizes;
} given;

static int open_model(void **state)
{
    (void)state;
    struct cllm_error err;
    struct cllm_source *source;
    struct cllm_pack_report report;
    given.dir = test_dir_create();
    snprintf(given.path, sizeof given.path, "%s/model.cllm", given.dir.path);
    TEST_REQUIRE(cllm_decoder_create(&played.decoder, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_source_open("fixtures/shakespeare-llama", &(struct cllm_source_options){0}, &source, &err) == CLLM_OK,
                 &err);
    TEST_REQUIRE(cllm_pack(source, given.path, &(struct cllm_pack_options){.thread_count = 2}, &report, &err) == CLLM_OK, &err);
    cllm_source_close(source);
    TEST_REQUIRE(cllm_reader_open(given.path, &given.reader, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_model_open(given.reader, &given.model, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_model_load(given.model, given.reader, 2, NULL, &err) == CLLM_OK, &err);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    cllm_model_destroy(given.model);
    cllm_reader_close(given.reader);
    cllm_decoder_destroy(played.decoder);
    test_dir_remove(&given.dir);
    return 0;
}

static void restart(uint64_t seed)
{
    played.random.state = seed * 2 + 1;
    played.laziness = seed % 3 ? 100 : 2;
    played.allocated = played.peak = 0;
    played.allocation_count = played.allocation_limit = played.bad_batch = 0;
    played.unpackable = false;
    played.mismatches = played.expectations = 0;
}

static void expect_nothing_left(void)
{
    assert_int_equal(played.allocated, 0);
    assert_int_equal(played.pinned_count, 0);
    assert_int_equal(played.event_count, 0);
    assert_int_equal(played.batch_count, 0);
    for (size_t i = 0; i < call_count; i++) free_batch(calls[i]);
    call_count = 0;
}

/* A plan of that choice with `cached` layers that stay, and slots as small as they can be. */
static struct cllm_residency_plan plan_of(enum cllm_residency choice, uint32_t cached, uint64_t host_bytes)
{
    static const struct cllm_residency_forward forward = {1, 0, 0, 0};
    struct cllm_error err;
    struct cllm_residency_plan plan;
    free(given.sizes.layers);
    TEST_REQUIRE(cllm_weights_gpu_measure(given.reader, given.model, &given.sizes, &err) == CLLM_OK, &err);
    const struct cllm_residency_request request = {
        .layers = given.sizes.layers,
        .layer_count = given.model->config.layer_count,
        .head = given.sizes.head,
        .embedding = given.sizes.embedding,
        .vector_bytes = given.sizes.vector_bytes,
        .descriptor_bytes = given.sizes.descriptor_bytes,
        .part_bytes = given.sizes.part_bytes,
        .chunk_bytes = given.sizes.chunk_bytes,
        .forwards = &forward,
        .forward_count = 1,
        .budget_bytes = UINT64_C(1) << 30,
        .host_bytes = host_bytes,
        .choice = choice,
        .cache_layers = cached,
    };
    TEST_REQUIRE(cllm_residency_decide(&request, &plan, &err) == CLLM_OK, &err);
    plan.slot_bytes = given.sizes.chunk_bytes * (1 + played.random.state % 3); /* parts of one span and of several */
    return plan;
}

static enum cllm_status load_within(uint64_t budget_bytes, const struct cllm_residency_plan *plan,
                                    const struct cllm_progress *progress, struct cllm_weights_gpu **weights_out,
                                    struct cllm_error *err)
{
    const struct cllm_weights_gpu_options options = {
        .thread_count = 3, .plan = plan, .budget_bytes = budget_bytes, .timed = plan->slot_count % 2, .progress = progress};
    return cllm_weights_gpu_load(given.reader, given.model, &the_device, &options, weights_out, err);
}

static enum cllm_status load(const struct cllm_residency_plan *plan, const struct cllm_progress *progress,
                             struct cllm_weights_gpu **weights_out, struct cllm_error *err)
{
    return load_within(UINT64_C(1) << 30, plan, progress, weights_out, err);
}

/* Queues the question whether a matrix in device memory is that of the model. */
static void expect_matrix(const struct cllm_gpu_matrix *matrix, const struct cllm_weight *weight, void *stream)
{
    const uint64_t bytes = 2 * (uint64_t)weight->row_count * weight->column_count;
    assert_int_equal(matrix->shape.row_count, weight->row_count);
    assert_int_equal(matrix->shape.column_count, weight->column_count);
    assert_true(matrix->form == CLLM_GPU_BF16 || matrix->form == CLLM_GPU_PACKED12);
    enqueue(stream, (struct op){.kind = OP_EXPECT,
                                .from = matrix->d_elements,
                                .to = (void *)(uintptr_t)hash_of(weight->elements, bytes),
                                .count = matrix->form == CLLM_GPU_BF16 ? bytes : 0});
}

static void expect_vector(const float *d_floats, const struct cllm_weight *weight)
{
    for (uint32_t i = 0; i < weight->row_count; i++) {
        uint32_t bits;
        memcpy(&bits, &d_floats[i], sizeof bits);
        assert_int_equal(bits, (uint32_t)((const uint16_t *)weight->elements)[i] << 16);
    }
}

/* One pass as a forward pass makes it. */
static enum cllm_status visit_layers(struct cllm_gpu_source *source, void *stream, struct cllm_error *err)
{
    for (uint32_t i = 0; i < given.model->config.layer_count; i++) {
        const struct cllm_layer *layer = &given.model->layers[i];
        struct cllm_gpu_layer placed;
        enum cllm_status status = source->acquire(source, i, stream, &placed, err);
        if (status) return status;
        expect_matrix(&placed.query.weight, &layer->query.weight, stream);
        expect_matrix(&placed.key.weight, &layer->key.weight, stream);
        expect_matrix(&placed.value.weight, &layer->value.weight, stream);
        expect_matrix(&placed.output.weight, &layer->output.weight, stream);
        expect_matrix(&placed.gate.weight, &layer->gate.weight, stream);
        expect_matrix(&placed.up.weight, &layer->up.weight, stream);
        expect_matrix(&placed.down.weight, &layer->down.weight, stream);
        expect_vector(placed.d_attention_norm, &layer->attention_norm);
        expect_vector(placed.d_mlp_norm, &layer->mlp_norm);
        assert_null(placed.query.d_bias);
        status = source->release(source, i, stream, err);
        if (status) return status;
    }
    return CLLM_OK;
}

static void visit(struct cllm_weights_gpu *weights, int passes)
{
    struct cllm_error err;
    struct cllm_gpu_source *source = cllm_weights_gpu_source(weights);
    void *stream;
    assert_int_equal(cllm_gpu_device_stream_create(&the_device, &stream, NULL), CLLM_OK);
    for (int pass = 0; pass < passes; pass++) {
        expect_matrix(&source->embedding, &given.model->embedding, stream);
        TEST_REQUIRE(visit_layers(source, stream, &err) == CLLM_OK, &err);
        expect_matrix(&source->head, &given.model->head, stream);
        expect_vector(source->d_final_norm, &given.model->final_norm);
        if (pass % 2) assert_int_equal(cllm_gpu_device_stream_finish(&the_device, stream, NULL), CLLM_OK);
    }
    assert_int_equal(cllm_gpu_device_stream_finish(&the_device, stream, NULL), CLLM_OK);
    cllm_gpu_device_stream_destroy(&the_device, stream);
    assert_int_equal(played.expectations, passes * (int)(7 * given.model->config.layer_count + 2));
    assert_int_equal(played.mismatches, 0);
}

static void check(struct cllm_residency_plan plan, int passes)
{
    struct cllm_error err;
    struct cllm_weights_gpu *weights;
    TEST_REQUIRE(load(&plan, NULL, &weights, &err) == CLLM_OK, &err);
    assert_true(played.peak <= plan.peak_bytes);
    assert_true(played.allocated <= plan.total_bytes);
    assert_int_equal(cllm_weights_gpu_source(weights)->resident, plan.streamed_count == 0);
    visit(weights, passes);
    if (plan.streamed_count > 0) {
        const struct cllm_weights_gpu_work work = cllm_weights_gpu_stream_work(weights);
        assert_true(work.decoded_bytes >= (uint64_t)passes * plan.streamed_count * given.sizes.layers[0].raw);
    } else {
        const uint64_t vectors = given.model->config.hidden_size * 2u * (2 * given.model->config.layer_count + 1);
        assert_int_equal(cllm_weights_gpu_load_work(weights).decoded_bytes, given.sizes.weight_bytes - vectors);
        assert_int_equal(given.sizes.parameter_count, given.model->parameter_count);
    }
    cllm_weights_gpu_destroy(weights);
    expect_nothing_left();
}

/* --------------------------------------------------------------------------------------------------------------- tests */

#define AMPLE UINT64_MAX

static void test_raw_and_packed_weights_are_the_models(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        restart(seed);
        played.undecodable = seed % 4;
        check(plan_of(CLLM_RESIDENCY_RAW, CLLM_CACHE_LAYERS_AUTO, AMPLE), 2);
        restart(seed);
        check(plan_of(CLLM_RESIDENCY_PACKED, CLLM_CACHE_LAYERS_AUTO, AMPLE), 2);
    }
}

static void test_streamed_weights_are_the_models(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        restart(seed);
        played.undecodable = seed % 4;
        struct cllm_residency_plan plan = plan_of(CLLM_RESIDENCY_STREAM, seed % 6, seed % 2 ? AMPLE : 0);
        plan.slot_count = 2 + seed % 7;
        assert_int_equal(plan.from_disk, seed % 2 == 0);
        check(plan, 5);
    }
}

static void test_embedding_may_lie_on_the_host(void **state)
{
    (void)state;
    restart(1);
    struct cllm_residency_plan plan = plan_of(CLLM_RESIDENCY_STREAM, 1, AMPLE);
    plan.embedding_on_host = true;
    check(plan, 2);
}

static void test_full_device_is_reported_and_leaves_nothing(void **state)
{
    (void)state;
    for (int limit = 1; limit < 100; limit++) {
        struct cllm_error err = {0};
        struct cllm_weights_gpu *weights;
        restart((uint64_t)limit);
        played.allocation_limit = limit;
        const struct cllm_residency_plan plan = plan_of(CLLM_RESIDENCY_STREAM, 3, limit % 2 ? AMPLE : 0);
        const enum cllm_status status = load(&plan, NULL, &weights, &err);
        if (!status) {
            assert_true(limit > 5);
            cllm_weights_gpu_destroy(weights);
            expect_nothing_left();
            return;
        }
        assert_int_equal(status, CLLM_E_NOMEM);
        assert_null(weights);
        expect_nothing_left();
    }
    fail_msg("loading never ends");
}

/* What takes more memory than planned may have what the budget leaves, in no moment more. */
static void test_weights_that_do_not_pack_keep_to_the_budget(void **state)
{
    (void)state;
    int loaded = 0, refused = 0;
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct cllm_error err = {0};
        struct cllm_weights_gpu *weights;
        restart(seed);
        played.unpackable = true;
        const bool streams = seed % 2;
        struct cllm_residency_plan plan =
            plan_of(streams ? CLLM_RESIDENCY_STREAM : CLLM_RESIDENCY_PACKED, streams ? 3 : CLLM_CACHE_LAYERS_AUTO, AMPLE);
        const uint64_t saved = plan.layer_bytes - CLLM_DEVICE_GRANULE_BYTES;
        plan.layer_bytes = 1; /* layers of the fixture are small: as if not even one had the place that was planned for it */
        plan.weight_bytes -= saved;
        plan.total_bytes -= saved;
        plan.peak_bytes -= saved;
        const uint64_t budget = plan.peak_bytes + seed / 2 * CLLM_DEVICE_GRANULE_BYTES;
        const enum cllm_status status = load_within(budget, &plan, NULL, &weights, &err);
        assert_true(played.peak <= budget);
        assert_true(status == CLLM_OK || status == CLLM_E_LIMIT);
        refused += status != CLLM_OK;
        loaded += status == CLLM_OK;
        if (!status) visit(weights, 1);
        cllm_weights_gpu_destroy(weights);
        expect_nothing_left();
    }
    assert_true(loaded > 0 && refused > 0);
}

static void test_weights_that_do_not_decode_are_reported(void **state)
{
    (void)state;
    for (int bad = 1; bad < 20; bad += 6) {
        struct cllm_error err = {0};
        struct cllm_weights_gpu *weights;
        void *stream;
        restart((uint64_t)bad);
        played.bad_batch = bad;
        const struct cllm_residency_plan plan = plan_of(CLLM_RESIDENCY_STREAM, 0, AMPLE);
        TEST_REQUIRE(load(&plan, NULL, &weights, &err) == CLLM_OK, &err);
        assert_int_equal(cllm_gpu_device_stream_create(&the_device, &stream, NULL), CLLM_OK);
        assert_int_equal(visit_layers(cllm_weights_gpu_source(weights), stream, &err), CLLM_E_CORRUPT);
        assert_non_null(strstr(err.message, "tensor \"model.layers."));
        assert_int_equal(visit_layers(cllm_weights_gpu_source(weights), stream, &err), CLLM_E_CORRUPT);
        assert_int_equal(cllm_gpu_device_stream_finish(&the_device, stream, NULL), CLLM_OK);
        cllm_weights_gpu_destroy(weights);
        cllm_gpu_device_stream_destroy(&the_device, stream);
        expect_nothing_left();
    }
}

/* Damages or cuts the file while it is being streamed. */
static void spoil_while_streaming(bool cut, enum cllm_status expected)
{
    struct cllm_error err = {0};
    struct cllm_weights_gpu *weights;
    void *stream;
    restart(7);
    const struct cllm_residency_plan plan = plan_of(CLLM_RESIDENCY_STREAM, 0, 0);
    TEST_REQUIRE(load(&plan, NULL, &weights, &err) == CLLM_OK, &err);
    assert_int_equal(cllm_gpu_device_stream_create(&the_device, &stream, NULL), CLLM_OK);
    assert_int_equal(visit_layers(cllm_weights_gpu_source(weights), stream, &err), CLLM_OK);
    const uint32_t data_index = given.model->layers[3].up.weight.tensor->data_index;
    const uint64_t at = cllm_reader_index(given.reader)->data[data_index].stored_offset + 100;
    FILE *file = fopen(given.path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    fputc(byte ^ 1, file);
    assert_int_equal(fclose(file), 0);
    if (cut) assert_int_equal(truncate(given.path, (off_t)at), 0);
    enum cllm_status status = CLLM_OK;
    for (int pass = 0; !status && pass < 3; pass++) status = visit_layers(cllm_weights_gpu_source(weights), stream, &err);
    assert_int_equal(status, expected);
    assert_non_null(strstr(err.message, cut ? "ends" : "model.layers.3.mlp.up_proj.weight"));
    cllm_weights_gpu_destroy(weights);
    cllm_gpu_device_stream_destroy(&the_device, stream);
    expect_nothing_left();
}

static void test_file_damaged_while_streaming_is_reported(void **state)
{
    spoil_while_streaming(false, CLLM_E_DIGEST);
    close_model(state);
    open_model(state);
}

static void test_file_cut_while_streaming_is_reported(void **state)
{
    spoil_while_streaming(true, CLLM_E_CORRUPT);
    close_model(state);
    open_model(state);
}

static bool refuse_half(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)user;
    return done_bytes < total_bytes / 2;
}

static void test_loading_can_be_interrupted(void **state)
{
    (void)state;
    static const enum cllm_residency choices[] = {CLLM_RESIDENCY_RAW, CLLM_RESIDENCY_PACKED, CLLM_RESIDENCY_STREAM};
    for (int i = 0; i < 3; i++) {
        struct cllm_error err = {0};
        struct cllm_weights_gpu *weights;
        const struct cllm_progress progress = {refuse_half, NULL};
        restart(3);
        const struct cllm_residency_plan plan = plan_of(choices[i], CLLM_CACHE_LAYERS_AUTO, AMPLE);
        assert_int_equal(load(&plan, &progress, &weights, &err), CLLM_E_INTERRUPTED);
        assert_null(weights);
        expect_nothing_left();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw_and_packed_weights_are_the_models),
        cmocka_unit_test(test_streamed_weights_are_the_models),
        cmocka_unit_test(test_embedding_may_lie_on_the_host),
        cmocka_unit_test(test_full_device_is_reported_and_leaves_nothing),
        cmocka_unit_test(test_weights_that_do_not_pack_keep_to_the_budget),
        cmocka_unit_test(test_weights_that_do_not_decode_are_reported),
        cmocka_unit_test(test_file_damaged_while_streaming_is_reported),
        cmocka_unit_test(test_file_cut_while_streaming_is_reported),
        cmocka_unit_test(test_loading_can_be_interrupted),
    };
    const int failed = cmocka_run_group_tests(tests, open_model, close_model);
    free(given.sizes.layers);
    return failed;
}

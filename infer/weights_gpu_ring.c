/* weights_gpu_ring.c - see weights_gpu_ring.h. */
#include "weights_gpu_ring.h"

#include "reader.h"

#include <stdlib.h>

enum cllm_status cllm_ring_open(struct cllm_ring *ring, struct cllm_gpu_device *device, const struct cllm_reader *reader,
                                const struct cllm_weights_gpu_options *options, struct cllm_error *err)
{
    const struct cllm_residency_plan *plan = options->plan;
    void *d_slots = NULL;
    *ring = (struct cllm_ring){.device = device,
                               .reader = reader,
                               .slot_bytes = plan->slot_bytes,
                               .slot_count = plan->slot_count,
                               .timed = options->timed};
    enum cllm_status status = cllm_gpu_device_stream_create(device, &ring->copy_stream, err);
    if (!status) status = cllm_gpu_device_stream_create(device, &ring->decode_stream, err);
    for (unsigned i = 0; !status && i < CLLM_RING_DECODERS; i++) {
        status = cllm_gpu_create(options->device_index, &ring->decoders[i].gpu, err);
        if (!status) status = cllm_gpu_set_stream(ring->decoders[i].gpu, ring->decode_stream, err);
    }
    if (!status) status = cllm_gpu_device_allocate(device, ring->slot_count * ring->slot_bytes, &d_slots, err);
    ring->d_slots = d_slots;
    for (unsigned i = 0; !status && i < ring->slot_count; i++) {
        status = cllm_gpu_device_event_create(device, false, &ring->copied[i], err);
        if (!status) status = cllm_gpu_device_event_create(device, ring->timed, &ring->decoded[i], err);
        if (!status && ring->timed) status = cllm_gpu_device_event_create(device, true, &ring->started[i], err);
    }
    return status;
}

void cllm_ring_finish(struct cllm_ring *ring)
{
    if (ring->copy_stream) (void)!cllm_gpu_device_stream_finish(ring->device, ring->copy_stream, NULL);
    if (ring->decode_stream) (void)!cllm_gpu_device_stream_finish(ring->device, ring->decode_stream, NULL);
}

void cllm_ring_end_calls(struct cllm_ring *ring)
{
    for (unsigned i = 1; i < CLLM_RING_DECODERS; i++) {
        cllm_gpu_destroy(ring->decoders[i].gpu);
        free(ring->decoders[i].items);
        ring->decoders[i] = (struct cllm_ring_decoder){0};
    }
}

void cllm_ring_close(struct cllm_ring *ring)
{
    struct cllm_gpu_device *device = ring->device;
    if (!device) return;
    cllm_ring_finish(ring);
    cllm_ring_end_calls(ring);
    cllm_gpu_destroy(ring->decoders[0].gpu);
    free(ring->decoders[0].items);
    cllm_gpu_device_free(device, ring->d_slots);
    for (unsigned i = 0; i < CLLM_RING_SLOTS_MAX; i++) {
        cllm_gpu_device_event_destroy(device, ring->copied[i]);
        cllm_gpu_device_event_destroy(device, ring->decoded[i]);
        cllm_gpu_device_event_destroy(device, ring->started[i]);
    }
    cllm_gpu_device_stream_destroy(device, ring->copy_stream);
    cllm_gpu_device_stream_destroy(device, ring->decode_stream);
    *ring = (struct cllm_ring){0};
}

enum cllm_status cllm_ring_copy(struct cllm_ring *ring, const struct cllm_ring_entry *entry, const void *payload, void *copied,
                                struct cllm_error *err)
{
    const unsigned slot = ring->copied_count % ring->slot_count;
    ring->entries[slot] = *entry;
    enum cllm_status status = cllm_gpu_device_event_wait(ring->device, ring->decoded[slot], ring->copy_stream, err);
    if (!status) {
        status = cllm_gpu_device_copy(ring->device, ring->d_slots + slot * ring->slot_bytes, payload, entry->part->payload_bytes,
                                      ring->copy_stream, err);
    }
    if (!status) status = cllm_gpu_device_event_record(ring->device, ring->copied[slot], ring->copy_stream, err);
    if (!status && copied) status = cllm_gpu_device_event_record(ring->device, copied, ring->copy_stream, err);
    ring->copied_count++;
    ring->work.copied_bytes += entry->part->payload_bytes;
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- decoding */

static enum cllm_status reserve_items(struct cllm_ring_decoder *decoder, size_t count, struct cllm_error *err)
{
    if (count <= decoder->item_capacity) return CLLM_OK;
    free(decoder->items);
    decoder->item_capacity = 0;
    decoder->items = calloc(count, sizeof *decoder->items);
    if (!decoder->items) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %zu chunks", count);
    decoder->item_capacity = count;
    return CLLM_OK;
}

static void describe_items(const struct cllm_ring *ring, const struct cllm_block_span *span, uint8_t *d_stored, uint8_t *d_out,
                           struct cllm_gpu_item *items)
{
    const struct cllm_data *data = &cllm_reader_index(ring->reader)->data[span->data_index];
    const struct cllm_chunk *chunks = &data->chunks[span->first_chunk];
    for (uint32_t k = 0; k < span->chunk_count; k++) {
        items[k] = (struct cllm_gpu_item){
            .data = data,
            .chunk_index = span->first_chunk + k,
            .d_stored = d_stored + (chunks[k].stored_offset - chunks[0].stored_offset),
            .d_out = d_out + (uint64_t)k * data->chunk_bytes,
        };
    }
}

/* Of what the decoder was called for last. */
static enum cllm_status check_decoder(struct cllm_ring *ring, struct cllm_ring_decoder *decoder, struct cllm_error *err)
{
    size_t bad_item = 0;
    enum cllm_status status = cllm_gpu_finish_decode(decoder->gpu, &bad_item, err);
    if (status != CLLM_E_CORRUPT || bad_item >= decoder->item_capacity) return status;
    const struct cllm_gpu_item *item = &decoder->items[bad_item];
    const uint32_t data_index = (uint32_t)(item->data - cllm_reader_index(ring->reader)->data);
    return cllm_reader_blame_chunk(ring->reader, data_index, item->chunk_index, status, err);
}

enum cllm_status cllm_ring_check(struct cllm_ring *ring, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (unsigned i = 0; !status && i < CLLM_RING_DECODERS; i++) {
        status = check_decoder(ring, &ring->decoders[(ring->called_count + i) % CLLM_RING_DECODERS], err);
    }
    return status;
}

/* Copies what was decoded before, and has the rest decoded in one call. */
static enum cllm_status decode_once(struct cllm_ring *ring, const struct cllm_block_part *part, uint8_t *d_stored,
                                    uint8_t *d_block, struct cllm_error *err)
{
    struct cllm_ring_decoder *decoder = &ring->decoders[ring->called_count++ % CLLM_RING_DECODERS];
    size_t item_count = 0;
    enum cllm_status status = check_decoder(ring, decoder, err);
    for (size_t i = 0; i < part->span_count; i++) item_count += part->spans[i].chunk_count;
    if (!status) status = reserve_items(decoder, item_count, err);
    item_count = 0;
    for (size_t i = 0; !status && i < part->span_count; i++) {
        const struct cllm_block_span *span = &part->spans[i];
        uint8_t *d_from = d_stored + span->payload_offset, *d_out = d_block + span->out_offset;
        if (span->decodes) {
            describe_items(ring, span, d_from, d_out, decoder->items + item_count);
            item_count += span->chunk_count;
        } else {
            status = cllm_gpu_device_copy(ring->device, d_out, d_from, span->out_bytes, ring->decode_stream, err);
        }
    }
    return status || item_count == 0 ? status : cllm_gpu_decode(decoder->gpu, decoder->items, item_count, err);
}

/* Of a part without a batch: the event of its slot says when it was decoded before. */
static void collect_slot_time(struct cllm_ring *ring, unsigned slot)
{
    double seconds = 0;
    if (cllm_gpu_device_event_finish(ring->device, ring->decoded[slot], NULL)) return;
    if (cllm_gpu_device_event_seconds(ring->device, ring->started[slot], ring->decoded[slot], &seconds, NULL)) return;
    ring->work.timed_seconds += seconds;
    ring->work.timed_count++;
}

enum cllm_status cllm_ring_decode(struct cllm_ring *ring, void *d_block, struct cllm_error *err)
{
    const unsigned slot = ring->decoded_count % ring->slot_count;
    const struct cllm_block_part *part = ring->entries[slot].part;
    uint8_t *d_stored = ring->d_slots + slot * ring->slot_bytes;
    const bool has_events = part->events[0] != NULL;
    void *start = has_events ? part->events[0] : ring->started[slot];
    if (ring->timed && !has_events && ring->decoded_count >= ring->slot_count) collect_slot_time(ring, slot);
    enum cllm_status status = cllm_gpu_device_event_wait(ring->device, ring->copied[slot], ring->decode_stream, err);
    if (!status && ring->timed) status = cllm_gpu_device_event_record(ring->device, start, ring->decode_stream, err);
    if (!status) {
        status = part->batch ? cllm_gpu_batch_decode(part->batch, ring->decode_stream, d_stored, d_block, err)
                             : decode_once(ring, part, d_stored, d_block, err);
    }
    if (!status && ring->timed && has_events) {
        status = cllm_gpu_device_event_record(ring->device, part->events[1], ring->decode_stream, err);
    }
    if (!status) status = cllm_gpu_device_event_record(ring->device, ring->decoded[slot], ring->decode_stream, err);
    ring->decoded_count++;
    ring->work.decode_count++;
    ring->work.decoded_bytes += part->out_bytes;
    return status;
}

/* ----------------------------------------------------------------------------------------------------------- batches */

enum cllm_status cllm_ring_prepare(struct cllm_ring *ring, struct cllm_block_part *part, struct cllm_error *err)
{
    struct cllm_gpu_span *spans = calloc(part->span_count, sizeof *spans);
    if (!spans) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %zu spans", part->span_count);
    for (size_t i = 0; i < part->span_count; i++) {
        const struct cllm_block_span *span = &part->spans[i];
        spans[i] = (struct cllm_gpu_span){
            .data = &cllm_reader_index(ring->reader)->data[span->data_index],
            .first_chunk = span->first_chunk,
            .chunk_count = span->chunk_count,
            .stored_offset = span->payload_offset,
            .out_offset = span->out_offset,
            .decoded = !span->decodes,
        };
    }
    enum cllm_status status = cllm_gpu_batch_create(ring->decoders[0].gpu, spans, part->span_count, &part->batch, err);
    free(spans);
    for (int i = 0; !status && ring->timed && i < 2; i++) {
        status = cllm_gpu_device_event_create(ring->device, true, &part->events[i], err);
    }
    return status;
}

enum cllm_status cllm_ring_check_batches(struct cllm_ring *ring, const struct cllm_block *block, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; !status && i < block->part_count; i++) {
        const struct cllm_block_part *part = &block->parts[i];
        uint32_t bad_chunk = 0;
        size_t bad_span = 0;
        status = cllm_gpu_batch_check(part->batch, ring->decode_stream, &bad_span, &bad_chunk, err);
        if (status == CLLM_E_CORRUPT && bad_span < part->span_count)
            cllm_reader_blame_chunk(ring->reader, part->spans[bad_span].data_index, bad_chunk, status, err);
    }
    return status;
}

void cllm_ring_collect_times(struct cllm_ring *ring, const struct cllm_block *block)
{
    for (size_t i = 0; i < block->part_count; i++) {
        double seconds = 0;
        void *const *events = block->parts[i].events;
        if (!events[1] || cllm_gpu_device_event_seconds(ring->device, events[0], events[1], &seconds, NULL)) continue;
        ring->work.timed_seconds += seconds;
        ring->work.timed_count++;
    }
}

/* weights_gpu_ring.h - the way of every matrix to the device: slots that parts are copied into on one stream and decoded out of
 * on another, so that both go on at the same time; for weights_gpu*.c alone.
 *
 * Copies go ahead: a part is copied as soon as a slot is free, and waits there, pending, until it is decoded.
 */
#ifndef CLLM_WEIGHTS_GPU_RING_H
#define CLLM_WEIGHTS_GPU_RING_H

#include "gpu_device.h"
#include "weights_gpu.h"
#include "weights_gpu_blocks.h"

#define CLLM_RING_SLOTS_MAX 8
#define CLLM_RING_DECODERS 2u /* one describes a part while the other's is being decoded */

/* A part in a slot. */
struct cllm_ring_entry {
    struct cllm_block *block;
    struct cllm_block_part *part;
    bool first_of_block;
    bool last_of_block;
};

/* Decodes on a ring's decode_stream; and the chunks that it was called for last. */
struct cllm_ring_decoder {
    struct cllm_gpu *gpu;
    struct cllm_gpu_item *items;
    size_t item_capacity;
};

struct cllm_ring {
    struct cllm_gpu_device *device;
    const struct cllm_reader *reader;
    void *copy_stream;
    void *decode_stream;
    uint64_t slot_bytes;
    unsigned slot_count;
    uint8_t *d_slots;
    void *copied[CLLM_RING_SLOTS_MAX];  /* events */
    void *decoded[CLLM_RING_SLOTS_MAX]; /* events, timed */
    void *started[CLLM_RING_SLOTS_MAX]; /* events, timed */
    struct cllm_ring_entry entries[CLLM_RING_SLOTS_MAX];
    uint64_t copied_count;  /* parts copied so far: part n goes through slot n % slot_count */
    uint64_t decoded_count; /* at most slot_count less */
    bool timed;
    struct cllm_ring_decoder decoders[CLLM_RING_DECODERS]; /* called in turn; the first one's context is the batches', too */
    uint64_t called_count;
    struct cllm_weights_gpu_work work;
};

/* To be closed with cllm_ring_close, after a failure too; zero-initialise. Fails with NOMEM, DEVICE. */
enum cllm_status cllm_ring_open(struct cllm_ring *ring, struct cllm_gpu_device *device, const struct cllm_reader *reader,
                                const struct cllm_weights_gpu_options *options, struct cllm_error *err) CLLM_MUST_USE;

/* Waits for what was queued. */
void cllm_ring_finish(struct cllm_ring *ring);

/* Waits, too. */
void cllm_ring_close(struct cllm_ring *ring);

static inline uint64_t cllm_ring_pending(const struct cllm_ring *ring)
{
    return ring->copied_count - ring->decoded_count;
}

static inline const struct cllm_ring_entry *cllm_ring_oldest(const struct cllm_ring *ring)
{
    return &ring->entries[ring->decoded_count % ring->slot_count];
}

/* Queues the copy of a part's payload, which is pinned and stays until `copied` (an event, may be null) has happened. There must
 * be less than slot_count pending. Fails with DEVICE. */
enum cllm_status cllm_ring_copy(struct cllm_ring *ring, const struct cllm_ring_entry *entry, const void *payload, void *copied,
                                struct cllm_error *err) CLLM_MUST_USE;

/* Queues the decoding of the oldest pending part into its block, whose decoded bytes begin at `d_block`: by its batch where it
 * has one; otherwise in one call, after what its decoder was called for before has been waited for and found good. Fails with
 * DEVICE, NOMEM, CORRUPT. */
enum cllm_status cllm_ring_decode(struct cllm_ring *ring, void *d_block, struct cllm_error *err) CLLM_MUST_USE;

/* Waits for what was decoded without a batch and says whether it was good. Fails with CORRUPT, DEVICE. */
enum cllm_status cllm_ring_check(struct cllm_ring *ring, struct cllm_error *err) CLLM_MUST_USE;

/* From now on parts have batches. Frees what only calls take; they were waited for. */
void cllm_ring_end_calls(struct cllm_ring *ring);

/* A batch for a part that will go through the ring again and again. Fails as cllm_gpu_batch_create does. */
enum cllm_status cllm_ring_prepare(struct cllm_ring *ring, struct cllm_block_part *part, struct cllm_error *err) CLLM_MUST_USE;

/* Waits for the parts' decodes so far and says whether they were good. Fails with CORRUPT, DEVICE. */
enum cllm_status cllm_ring_check_batches(struct cllm_ring *ring, const struct cllm_block *block,
                                         struct cllm_error *err) CLLM_MUST_USE;

/* Adds the times of the parts' last decodes to ring->work, as far as they are known. */
void cllm_ring_collect_times(struct cllm_ring *ring, const struct cllm_block *block);

#endif

/* residency.h - which weights lie where, for a given amount of device memory: decided and known before anything is loaded.
 *
 * A layer either stays in device memory (raw, as BF16, or packed, in the 12-bit form) or is streamed: it lies entropy-coded in
 * host memory, is copied through a ring of slots, and decoded into one layer's scratch just before it is used. Streamed layers
 * are spread evenly, so that each has the time of as many resident ones to arrive. What is read only a row a token (the
 * embedding) goes to host memory before a layer is streamed. The head always stays.
 *
 * Plain arithmetic, no device needed. Any thread.
 */
#ifndef CLLM_RESIDENCY_H
#define CLLM_RESIDENCY_H

#include "cllm.h"

enum cllm_residency {
    CLLM_RESIDENCY_AUTO,   /* packed, and what does not fit is streamed */
    CLLM_RESIDENCY_RAW,    /* everything stays, as it was in the checkpoint */
    CLLM_RESIDENCY_PACKED, /* everything stays, in 12 bits where the dtype is BF16 */
    CLLM_RESIDENCY_STREAM, /* all layers are streamed but the cached ones, which are packed */
};

#define CLLM_CACHE_LAYERS_AUTO UINT32_MAX

/* Bytes of some weights in each form. */
struct cllm_residency_bytes {
    uint64_t raw;    /* decoded */
    uint64_t packed; /* at most, in the 12-bit form */
    uint64_t stored; /* in host memory, to be streamed; used of layers only */
};

/* Memory of a forward pass that takes `prompt_tile` positions of a prompt together. */
struct cllm_residency_forward {
    uint32_t prompt_tile;
    uint64_t cache_bytes;
    uint64_t activation_bytes;
    uint64_t scratch_bytes;
};

struct cllm_residency_request {
    const struct cllm_residency_bytes *layers;
    uint32_t layer_count;
    struct cllm_residency_bytes head;
    struct cllm_residency_bytes embedding;         /* zeros where the head is the embedding */
    uint64_t vector_bytes;                         /* norms and biases */
    uint64_t descriptor_bytes;                     /* of one streamed layer: what its decoding needs beside slots and scratch, */
    uint64_t part_bytes;                           /* and this for each part: what one slot takes of a matrix */
    uint64_t chunk_bytes;                          /* the largest chunk as it is copied: a slot holds at least one */
    const struct cllm_residency_forward *forwards; /* preferred first, least memory last */
    uint32_t forward_count;
    uint64_t budget_bytes; /* of device memory, for everything that the program allocates there */
    uint64_t host_bytes;   /* of host memory, for streamed layers */
    enum cllm_residency choice;
    uint32_t cache_layers;          /* how many layers stay where some are streamed; or CLLM_CACHE_LAYERS_AUTO */
    double link_bytes_per_second;   /* host to device; 0: unknown */
    double device_bytes_per_second; /* of device memory, read; 0: unknown */
};

/* All sizes are those of device memory unless they say otherwise; each allocation counts as whole CLLM_DEVICE_GRANULE_BYTES. */
#define CLLM_DEVICE_GRANULE_BYTES (UINT64_C(2) << 20)

struct cllm_residency_plan {
    uint32_t layer_count;
    uint32_t streamed_count; /* of them; see cllm_residency_is_streamed */
    bool raw;                /* form of what stays; otherwise packed */
    bool embedding_on_host;  /* raw, pinned */
    bool from_disk;          /* streamed layers do not fit host_bytes and are read for each token */
    uint64_t slot_bytes;     /* of the ring through which everything is copied */
    uint32_t slot_count;
    struct cllm_residency_forward forward;
    uint64_t base_bytes;   /* head, embedding and vectors: one allocation */
    uint64_t layer_bytes;  /* layers that stay: another */
    uint64_t weight_bytes; /* both, and small things */
    uint64_t stream_bytes; /* ring, scratch and descriptors; 0 where nothing is streamed */
    uint64_t total_bytes;  /* while running */
    uint64_t peak_bytes;   /* the same or more, while loading; at most the budget */
    uint64_t host_bytes;   /* pinned host memory: embedding, streamed layers, */
    uint64_t streamed_bytes_per_token;
    uint64_t read_bytes_per_token; /* from device memory, streamed layers as they are decoded */
    double ceiling_per_second;     /* tokens: no faster with the given bandwidths; 0: unknown */
};

/* Finds the plan that streams least, but for buffers: of a forward pass that takes more than one position together, within a
 * quarter of the budget, before those of one that does not. Fails with LIMIT where not even the smallest plan of this choice fits
 * the budget, naming the budget that it needs; that is `*plan_out` then. */
enum cllm_status cllm_residency_decide(const struct cllm_residency_request *request, struct cllm_residency_plan *plan_out,
                                       struct cllm_error *err) CLLM_MUST_USE;

bool cllm_residency_is_streamed(const struct cllm_residency_plan *plan, uint32_t layer_index);

/* "auto", "raw", "packed", "stream" */
const char *cllm_residency_name(enum cllm_residency residency);

#endif

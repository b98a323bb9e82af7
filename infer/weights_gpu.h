/* weights_gpu.h - the weights of a model for the GPU: from a container to where a plan wants them, and, for layers that do not
 * stay, again for each token.
 *
 * Everything that stays goes container, pinned memory, ring of slots on the device, decoded there, and where it is to be packed,
 * packed there; reading, copying and decoding overlap. Layers that are streamed are read once into one pinned arena in host
 * memory, entropy-coded (or, where that does not fit, from the file each time), and a thread of their own keeps copying them into
 * the ring and decoding them into the scratch layer, one ahead of what is computed.
 *
 * Thread rule: one caller at a time.
 */
#ifndef CLLM_WEIGHTS_GPU_H
#define CLLM_WEIGHTS_GPU_H

#include "cllm_progress.h"
#include "gpu_device.h"
#include "gpu_layout.h"
#include "model.h"
#include "residency.h"

/* What a plan needs to know of a model; `layers` has config.layer_count entries, to be freed with free(). */
struct cllm_weights_gpu_sizes {
    struct cllm_residency_bytes *layers;
    struct cllm_residency_bytes head;
    struct cllm_residency_bytes embedding; /* zeros where the head is the embedding */
    uint64_t vector_bytes;
    uint64_t descriptor_bytes; /* as in struct cllm_residency_request, like the next two */
    uint64_t part_bytes;
    uint64_t chunk_bytes;
    unsigned forms;           /* 1 << enum cllm_gpu_form of each matrix, as stored */
    uint64_t parameter_count; /* elements of all tensors in use, each counted once */
    uint64_t weight_bytes;    /* the same in bytes, decoded */
};

/* Fails with NOMEM, and CORRUPT where a data object does not have the size of its tensor. */
enum cllm_status cllm_weights_gpu_measure(const struct cllm_reader *reader, const struct cllm_model *model,
                                          struct cllm_weights_gpu_sizes *sizes_out, struct cllm_error *err) CLLM_MUST_USE;

struct cllm_weights_gpu_options {
    unsigned device_index;
    unsigned thread_count;                  /* that read and check; 0: as many as the process may use */
    const struct cllm_residency_plan *plan; /* made of this model's sizes; copied */
    uint64_t budget_bytes;                  /* device memory that weights may take where some do not pack as well as planned: the
                                               plan's, or more */
    bool timed;                             /* measure decoding */
    const struct cllm_progress *progress;   /* over decoded bytes; may be null */
};

/* Decoding so far, of loading or of streaming. A decode is one part of a layer: what one copy brings. */
struct cllm_weights_gpu_work {
    uint64_t decode_count;
    uint64_t timed_count;   /* of these, how many were timed */
    double timed_seconds;   /* on the device, of those alone */
    uint64_t copied_bytes;  /* to the device */
    uint64_t decoded_bytes; /* on the device */
};

struct cllm_weights_gpu;

/* Loads. `reader` and `model` (opened, not loaded) and `device` must outlive the result, which the caller owns; on failure
 * `*weights_out` is null. Fails with NOMEM (host or device), DEVICE, IO, DIGEST (a stored checksum differs), CORRUPT, LIMIT (a
 * matrix packs worse than planned and the budget has no room), INTERRUPTED. Any stored bytes are safe. */
enum cllm_status cllm_weights_gpu_load(const struct cllm_reader *reader, const struct cllm_model *model,
                                       struct cllm_gpu_device *device, const struct cllm_weights_gpu_options *options,
                                       struct cllm_weights_gpu **weights_out, struct cllm_error *err) CLLM_MUST_USE;

/* Ends streaming and frees everything. Accepts null. To be called after the forward pass was destroyed. */
void cllm_weights_gpu_destroy(struct cllm_weights_gpu *weights);

/* For the forward pass; lives as long as the weights. */
struct cllm_gpu_source *cllm_weights_gpu_source(struct cllm_weights_gpu *weights);

/* Device memory that is allocated now: of weights that stay, and for streaming. */
struct cllm_weights_gpu_bytes {
    uint64_t resident_bytes;
    uint64_t stream_bytes;
};
struct cllm_weights_gpu_bytes cllm_weights_gpu_bytes(const struct cllm_weights_gpu *weights);

/* What loading did, and what streaming has done so far. */
struct cllm_weights_gpu_work cllm_weights_gpu_load_work(const struct cllm_weights_gpu *weights);
struct cllm_weights_gpu_work cllm_weights_gpu_stream_work(struct cllm_weights_gpu *weights);

#endif

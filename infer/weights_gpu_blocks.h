/* weights_gpu_blocks.h - the matrices of a model as blocks that are loaded, kept and streamed as one, cut into parts that are
 * copied as one; for weights_gpu*.c alone. No device needed.
 */
#ifndef CLLM_WEIGHTS_GPU_BLOCKS_H
#define CLLM_WEIGHTS_GPU_BLOCKS_H

#include "cllm_decode.h"
#include "cllm_decode_gpu.h"
#include "gpu_layout.h"
#include "model.h"
#include "residency.h"

#define CLLM_BLOCK_MATRICES 7 /* of a layer */
#define CLLM_BLOCK_ALIGNMENT 256u

/* Bytes behind a part in host memory: decoders read ahead. */
#define CLLM_PART_SLACK_BYTES 64u

enum cllm_block_fate { CLLM_BLOCK_ABSENT, CLLM_BLOCK_RAW, CLLM_BLOCK_PACKED, CLLM_BLOCK_STREAMED };

struct cllm_block_matrix {
    const struct cllm_weight *weight;
    uint64_t raw_offset; /* in the block, decoded */
    uint64_t raw_bytes;
    struct cllm_gpu_matrix placed; /* once it is */
};

/* Consecutive chunks of one matrix that go the same way. */
struct cllm_block_span {
    uint32_t data_index;
    uint32_t first_chunk;
    uint32_t chunk_count;
    bool decodes;            /* on the device; otherwise they are decoded before they are copied */
    uint64_t payload_offset; /* in the part */
    uint64_t payload_bytes;  /* what is copied: stored bytes with their padding, or decoded bytes */
    uint64_t out_offset;     /* of the decoded bytes in the block */
    uint64_t out_bytes;
};

/* Spans that go through a slot together: a decode takes long enough to begin that it should have much to do. */
struct cllm_block_part {
    const struct cllm_block_span *spans;
    size_t span_count;
    uint64_t payload_bytes;
    uint64_t out_bytes;
    uint64_t arena_offset;        /* streamed from host memory: where the payload lies */
    struct cllm_gpu_batch *batch; /* streamed: prepared */
    void *events[2];              /* streamed and timed: around its last decode */
};

struct cllm_block {
    enum cllm_block_fate fate;
    unsigned matrix_count;
    struct cllm_block_matrix matrices[CLLM_BLOCK_MATRICES]; /* of a layer: query, key, value, output, gate, up, down */
    uint64_t raw_bytes;
    struct cllm_block_span *spans; /* of all parts */
    size_t span_count;
    struct cllm_block_part *parts;
    size_t part_count;
    void *d_memory;   /* of one that stays */
    bool owns_memory; /* it had no place where it was planned to be */
};

/* Embedding (absent where it is the head or lies on the host), head, then the layers. */
struct cllm_blocks {
    struct cllm_block *blocks;
    size_t block_count;
    uint64_t arena_bytes; /* of all streamed blocks */
    uint64_t raw_bytes;   /* of all blocks */
};
enum { CLLM_BLOCK_EMBEDDING, CLLM_BLOCK_HEAD, CLLM_BLOCK_LAYERS };

/* `blocks_out` is the caller's to free with cllm_blocks_free, after a failure too. Fails with NOMEM. */
enum cllm_status cllm_blocks_create(const struct cllm_reader *reader, const struct cllm_model *model,
                                    const struct cllm_residency_plan *plan, struct cllm_blocks *blocks_out,
                                    struct cllm_error *err) CLLM_MUST_USE;
void cllm_blocks_free(struct cllm_blocks *blocks);

/* The matrices of one layer in the order above. */
void cllm_block_layer_matrices(const struct cllm_layer *layer, const struct cllm_weight *matrices_out[CLLM_BLOCK_MATRICES]);

bool cllm_block_is_packable(const struct cllm_weight *weight);

/* What a thread needs to fill parts; zero-initialise. */
struct cllm_part_filler {
    struct cllm_decoder *decoder;
    uint8_t *stored;
    size_t stored_capacity;
};
void cllm_part_filler_free(struct cllm_part_filler *filler);

/* Reads a part, checks its stored checksums and writes its payload to `payload`, which has CLLM_PART_SLACK_BYTES more than
 * payload_bytes. Fails with IO, CORRUPT, DIGEST, UNSUPPORTED, NOMEM. Any thread with a filler of its own. */
enum cllm_status cllm_part_fill(const struct cllm_reader *reader, const struct cllm_block_part *part,
                                struct cllm_part_filler *filler, uint8_t *payload, struct cllm_error *err) CLLM_MUST_USE;

#endif

/* forward_gpu_buffers.h - the memory of a forward pass on the GPU, laid out in one place for planning and for use. */
#ifndef CLLM_FORWARD_GPU_BUFFERS_H
#define CLLM_FORWARD_GPU_BUFFERS_H

#include "forward_gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CLLM_PROMPT_TILE 512              /* positions, unless told otherwise */
#define CLLM_GEMM_WORKSPACE (32u << 20)   /* bytes */
#define CLLM_SCORE_BYTES (64u << 20)      /* of attention scores at a time, where one key-value head's take no more */
#define CLLM_SCORE_BYTES_MAX (128u << 20) /* tiles are made smaller to keep to this */
#define CLLM_PROMPT_TILE_MIN 32
#define CLLM_PROMPT_INPUT_MIN 16   /* float32 vectors that an input has room for */
#define CLLM_ATTENTION_HEADS_MAX 8 /* query heads of a block */
#ifndef CLLM_SPAN_POSITIONS
#define CLLM_SPAN_POSITIONS 256
#endif
//#define CLLM_SPAN_POSITIONS 256    /* what a span of attention is a multiple of */
#define CLLM_SPAN_COUNT_MAX 32     /* spans of a query */
#define CLLM_LAYER_STAGES_MAX 7    /* queries, keys, values, attention, output, gate and up, down */
#define CLLM_STAGE_BYTES 1024      /* of device memory for a stage, at least */

/* Vectors of a token, as floats from the start of one of the two sets (kernels_product.cuh). */
struct cllm_vectors {
    uint32_t first_layer; /* behind the embedding */
    uint32_t layer_floats;
    uint32_t middle, output, query, key, value, gate; /* of a layer */
    uint32_t spans;
    uint32_t span_floats, span_scales;
    uint32_t turn_floats;
};


/* Offsets in bytes in one block of device memory, 256-byte aligned. */
struct cllm_forward_gpu_buffers {
    uint64_t keys, values; /* [layer][kv head][position][head_stride] BF16 */
    uint64_t vectors, stages;
    uint64_t frequencies;
    /* prompts: a row per position of a tile */
    uint64_t tile_ids, tile_hidden, tile_query, tile_key, tile_value, tile_gate, tile_up, tile_cosines, tile_sines;
    uint64_t tile_input; /* of a product, BF16 or float32; room for that of tensor_gpu.cuh */
    uint64_t scores, weights;
    uint64_t tile_rotated;
    uint64_t matrix[2]; /* unpacked or widened */
    uint64_t workspace;
    uint64_t total;
    struct cllm_forward_gpu_bytes bytes;
    struct cllm_vectors in_vectors;
    uint32_t head_stride, group, chunk_count, span_count;
    uint32_t prompt_tile;
    uint32_t score_heads; /* key-value heads whose scores are computed together */
};

struct cllm_forward_gpu_buffers cllm_forward_gpu_lay_out(const struct cllm_config *config,
                                                         const struct cllm_forward_gpu_options *options);

#ifdef __cplusplus
}
#endif

#endif

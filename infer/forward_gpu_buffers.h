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
#define CLLM_SPAN_POSITIONS 128    /* what a span of attention is a multiple of */
#define CLLM_SPAN_COUNT_MAX 32     /* spans of a query */

/* Offsets in bytes in one block of device memory, 256-byte aligned. Vectors that products read are padded to whole pairs of
 * steps. */
struct cllm_forward_gpu_buffers {
    uint64_t keys, values; /* [layer][kv head][position][head_stride] BF16 */
    uint64_t hidden, query, key, value, gate;
    uint64_t frequencies, cosines, sines, position;
    uint64_t span_values, span_scales; /* what attention leaves */
    /* prompts: a row per position of a tile */
    uint64_t tile_ids, tile_hidden, tile_query, tile_key, tile_value, tile_gate, tile_up, tile_cosines, tile_sines;
    uint64_t tile_input; /* of a product, BF16 or float32; room for that of tensor_gpu.cuh */
    uint64_t scores, weights;
    uint64_t tile_rotated;
    uint64_t matrix[2]; /* unpacked or widened */
    uint64_t workspace;
    uint64_t total;
    struct cllm_forward_gpu_bytes bytes;
    uint32_t head_stride, group, chunk_count, span_count, value_stride;
    uint32_t prompt_tile;
    uint32_t score_heads; /* key-value heads whose scores are computed together */
};

struct cllm_forward_gpu_buffers cllm_forward_gpu_lay_out(const struct cllm_config *config,
                                                         const struct cllm_forward_gpu_options *options);

#ifdef __cplusplus
}
#endif

#endif

/* kernels_chunk.cuh - chunks as kernels see them, and how kernels say what does not decode. */
#ifndef CLLM_KERNELS_CHUNK_CUH
#define CLLM_KERNELS_CHUNK_CUH

#include <cstdint>

#include "codec.h"
#include "scaled.h"

/* One chunk as a kernel sees it; filled by the host from a validated index. */
struct gpu_chunk {
    uint64_t stored_offset; /* from the stored base; 16-byte aligned, stored_bytes rounded up to 16 are readable */
    uint64_t out_offset;    /* from the output base; 16-byte aligned but for kernel_decode_any */
    uint32_t stored_bytes;
    uint32_t element_count;
    uint32_t plane_bytes; /* of all planes; of the parts of sparse and scaled chunks, with what lies before */
    uint32_t table;       /* into the tables of the launch */
    uint32_t mask_table;  /* the same for the masks of a sparse chunk */
    uint32_t index;       /* for the status word */
    uint32_t palette; /* where symbols stand for values: of 256 in 8 bytes each, in 8 bytes from the launch's tables; else 0 */
    struct cllm_layout layout;
};

/* What the offsets of chunks count from. */
struct gpu_bases {
    const uint8_t *stored;
    uint8_t *out;
};

/* The scales of a scaled chunk. */
struct gpu_scales {
    const uint8_t *first; /* at any address */
    enum cllm_scaled_type type;
    enum cllm_scale_type scale_type;
    uint8_t group_log2;
};

/* A chunk with its addresses. */
struct gpu_work : gpu_chunk {
    const uint8_t *stored;
    const uint8_t *planes; /* where they start: at `stored`, but for the parts of sparse chunks; scaled ones have none */
    uint8_t *out;
    struct gpu_scales scales; /* of a scaled chunk, once it has been opened */
    __device__ __forceinline__ gpu_work(const struct gpu_chunk &chunk, const struct gpu_bases &bases)
        : gpu_chunk(chunk), stored(bases.stored + chunk.stored_offset), planes(stored), out(bases.out + chunk.out_offset),
          scales()
    {
    }
};

/* Why a chunk does not decode. A status word is the least of GPU_REASONS * index + reason, or UINT32_MAX. */
enum gpu_reason { GPU_BAD_HEADER, GPU_BAD_SEGMENT, GPU_BAD_MASKS, GPU_BAD_SCALES, GPU_REASONS };

static __device__ __forceinline__ void report(uint32_t *d_status, const struct gpu_chunk &chunk, enum gpu_reason reason)
{
    atomicMin(d_status, GPU_REASONS * chunk.index + reason);
}

#endif

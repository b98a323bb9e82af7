/* kernels_sparse.cuh - the sparse form on the GPU. FORMAT.md 12.
 *
 * A block decodes a chunk's masks to shared memory and the elements that are there to the end of the output, as chunks in float
 * form are decoded, and spreads them. A chunk's sizes are checked together, and the bits of its masks counted, before an element
 * is stored.
 */
#ifndef CLLM_KERNELS_SPARSE_CUH
#define CLLM_KERNELS_SPARSE_CUH

#include "kernels_float.cuh"

#include <type_traits>

#define GPU_SPARSE_BYTES_MAX 262144u /* decoded, of a sparse chunk: its masks must fit in shared memory; cpack's have no more */

/* Masks in words of 32 bits, and how many bits are set in the words before. */
struct gpu_masks {
    uint32_t *bits;
    uint32_t *before;

    __device__ __forceinline__ bool has(uint32_t index) const
    {
        return bits[index / 32] >> index % 32 & 1;
    }

    /* How many set bits lie below. */
    __device__ __forceinline__ uint32_t rank(uint32_t index) const
    {
        return before[index / 32] + __popc(bits[index / 32] & ((1u << index % 32) - 1));
    }
};

/* Fills `before`, all threads for all, and returns how many of the bits are set; UINT32_MAX if any behind `bit_count` is. */
static __device__ uint32_t count_masks(const gpu_masks &masks, uint32_t bit_count, uint32_t *warp_sums)
{
    const uint32_t words = (bit_count + 31) / 32, share = (words + FLOAT_THREADS - 1) / FLOAT_THREADS;
    const uint32_t first = min(words, threadIdx.x * share), end = min(words, first + share), lane = threadIdx.x % 32;
    uint32_t own = 0, total = 0;
    for (uint32_t w = first; w < end; w++) own += __popc(masks.bits[w]);
    uint32_t before = scan_warp(own, lane);
    if (lane == 31) warp_sums[threadIdx.x / 32] = before + own;
    __syncthreads();
    for (uint32_t w = 0; w < FLOAT_THREADS / 32; w++) {
        if (w < threadIdx.x / 32) before += warp_sums[w];
        total += warp_sums[w];
    }
    for (uint32_t w = first; w < end; w++) {
        masks.before[w] = before;
        before += __popc(masks.bits[w]);
    }
    __syncthreads();
    return bit_count % 32 && masks.bits[words - 1] >> bit_count % 32 ? UINT32_MAX : total;
}

/* Of a block, behind gpu_shared: code words of elements that kernel_decode_fast could decode (`staged`, of two bytes or more),
 * and the masks of a chunk's elements. Both fit in what the smallest device allows a block, 99 KiB. */
#define GPU_SPARSE_STAGE_BYTES (12288u + STAGE_PAD)
static_assert(sizeof(gpu_shared_any) + GPU_SPARSE_BYTES_MAX / 4 <= 99 << 10, "a bit and a 32nd of a count for each byte");
static_assert(sizeof(gpu_shared_any) + GPU_SPARSE_STAGE_BYTES + GPU_SPARSE_BYTES_MAX / 8 <= 99 << 10, "the same for two");

CLLM_HOST_DEVICE uint32_t gpu_sparse_bytes(bool staged, uint32_t element_count)
{
    return (staged ? GPU_SPARSE_STAGE_BYTES : 0) + (element_count + 31) / 32 * (2 * sizeof(uint32_t));
}

static __device__ __forceinline__ gpu_masks masks_of(gpu_shared_any &shared, bool staged, uint32_t element_count)
{
    uint32_t *bits = (uint32_t *)shared.words + (staged ? GPU_SPARSE_STAGE_BYTES / 4 : 0);
    return {bits, bits + (element_count + 31) / 32};
}

/* Masks of masks, where the rings are, which are not in use. */
static __device__ __forceinline__ gpu_masks masks_of_masks(gpu_shared_any &shared, uint32_t mask_count)
{
    static_assert(sizeof shared.ring >= GPU_SPARSE_BYTES_MAX / 8 / 32 * 2 * sizeof(uint32_t), "there is room");
    uint32_t *bits = (uint32_t *)shared.ring;
    return {bits, bits + (mask_count + 31) / 32};
}

/* From `symbols`, masks of masks and then the masks that are not 0, all masks. False to all where the numbers do not agree. */
static __device__ bool expand_masks(gpu_shared_any &shared, const uint8_t *symbols, uint32_t symbol_count, uint32_t mask_count,
                                    uint8_t *out)
{
    const gpu_masks upper = masks_of_masks(shared, mask_count);
    const uint32_t upper_bytes = cllm_mask_bytes(mask_count), upper_words = (mask_count + 31) / 32;
    for (uint32_t i = threadIdx.x; i < 4 * upper_words; i += FLOAT_THREADS)
        ((uint8_t *)upper.bits)[i] = i < upper_bytes ? symbols[i] : 0;
    __syncthreads();
    if (count_masks(upper, mask_count, shared.warp_bits) != symbol_count - upper_bytes) return false;
    for (uint32_t i = threadIdx.x; i < mask_count; i += FLOAT_THREADS)
        out[i] = upper.has(i) ? symbols[upper_bytes + upper.rank(i)] : 0;
    __syncthreads();
    return true;
}

/* Decodes the masks of a chunk, the last part of it, and counts them. Symbols that are not masks themselves lie where the counts
 * will be, which is room for as many bytes. */
static __device__ bool decode_masks(gpu_shared_any &shared, const struct gpu_work &chunk, const struct cllm_sparse_head &head,
                                    const gpu_masks &masks, const struct gpu_table *d_table, uint32_t *d_status)
{
    const uint32_t mask_count = cllm_mask_bytes(chunk.element_count);
    const bool levels = cllm_sparse_has_levels(&head, chunk.element_count);
    const gpu_to_bytes sink = {(uint8_t *)(levels ? masks.before : masks.bits)};
    struct gpu_work part = chunk;
    part.layout = cllm_layout_of_masks(&chunk.layout);
    part.element_count = head.mask_count;
    part.plane_bytes = CLLM_SPARSE_HEAD_BYTES + head.float_bytes + head.sign_bytes;
    if (threadIdx.x == 0) masks.bits[(chunk.element_count - 1) / 32] = 0; /* its last bytes are no masks */
    __syncthreads();
    if (!decode_part_any(shared, part, d_table, sink, d_status)) return false;
    bool good = !levels || expand_masks(shared, sink.bytes, head.mask_count, mask_count, (uint8_t *)masks.bits);
    good = good && count_masks(masks, chunk.element_count, shared.warp_bits) == head.present_count;
    if (!good && threadIdx.x == 0) report(d_status, chunk, GPU_BAD_MASKS);
    return good;
}

/* 16 bytes of output of which the first element is `first`: those that are there from `packed`, zeros between. */
template <typename T>
static __device__ __forceinline__ ulonglong2 gather(const gpu_masks &masks, const T *packed, const uint8_t *signs, uint32_t first)
{
    unsigned long long halves[2] = {0, 0};
    const uint32_t present = masks.bits[first / 32] >> first % 32;
    uint32_t rank = masks.rank(first), absent = first - rank;
#pragma unroll
    for (uint32_t e = 0; e < 16 / sizeof(T); e++) {
        T element = 0;
        if (present >> e & 1) element = packed[rank++];
        else if (signs) element = (T)((T)(signs[absent / 8] >> absent % 8 & 1) << (8 * sizeof(T) - 1)), absent++;
        halves[e * sizeof(T) / 8] |= (unsigned long long)element << 8 * (e * sizeof(T) % 8);
    }
    return make_ulonglong2(halves[0], halves[1]);
}

#define SPREAD_STEPS 2 /* times 16 bytes of a thread between two barriers */

/* The elements that lie at the end of the output to their places, zeros between, from the first one on. No element is overwritten
 * before it is read: ahead of its place there are no more zeros than in all. The output is a multiple of 16 bytes and starts at
 * one. */
template <typename T>
static __device__ void spread_wide(const struct gpu_work &chunk, const gpu_masks &masks, uint32_t absent_count,
                                   const uint8_t *signs)
{
    const uint32_t byte_count = chunk.element_count * sizeof(T);
    const T *packed = (const T *)chunk.out + absent_count;
#pragma unroll 1
    for (uint32_t tile = 0; tile < byte_count; tile += 16 * SPREAD_STEPS * FLOAT_THREADS) {
        ulonglong2 elements[SPREAD_STEPS];
#pragma unroll
        for (uint32_t k = 0; k < SPREAD_STEPS; k++) {
            const uint32_t at = tile + 16 * (k * FLOAT_THREADS + threadIdx.x);
            if (at < byte_count) elements[k] = gather<T>(masks, packed, signs, at / sizeof(T));
        }
        __syncthreads();
#pragma unroll
        for (uint32_t k = 0; k < SPREAD_STEPS; k++) {
            const uint32_t at = tile + 16 * (k * FLOAT_THREADS + threadIdx.x);
            if (at < byte_count) *(ulonglong2 *)(chunk.out + at) = elements[k];
        }
    }
}

/* The same for elements of any size and alignment, byte by byte. */
static __device__ void spread_any(const struct gpu_work &chunk, const gpu_masks &masks, uint32_t absent_count,
                                  const uint8_t *signs)
{
    const uint32_t size = chunk.layout.element_bytes;
    const uint8_t *packed = chunk.out + (size_t)absent_count * size;
#pragma unroll 1
    for (uint32_t tile = 0; tile < chunk.element_count; tile += FLOAT_THREADS) {
        const uint32_t index = tile + threadIdx.x;
        uint64_t element = 0;
        if (index < chunk.element_count) {
            const uint32_t rank = masks.rank(index), absent = index - rank;
#pragma unroll 1
            for (uint32_t b = 0; b < size && masks.has(index); b++) element |= (uint64_t)packed[(size_t)rank * size + b] << 8 * b;
            if (signs && !masks.has(index)) element = (uint64_t)(signs[absent / 8] >> absent % 8 & 1) << (8 * size - 1);
        }
        __syncthreads();
#pragma unroll 1
        for (uint32_t b = 0; b < size && index < chunk.element_count; b++)
            chunk.out[(size_t)index * size + b] = (uint8_t)(element >> 8 * b);
    }
}

/* The elements that are there, by decode_part_fast where ELEMENT is one and they are as that wants them. */
template <int ELEMENT, gpu_join JOIN>
static __device__ bool decode_present(gpu_shared_any &shared, const struct gpu_work &part, const struct gpu_table *d_tables,
                                      uint32_t *d_status)
{
    if constexpr (ELEMENT >= 0) {
        const uint32_t stage = part.stored_bytes - min(part.stored_bytes, plane_boundary(part));
        if (part.element_count % 8 == 0 && (uintptr_t)part.out % 16 == 0 && part.layout.segment_log2 >= 7 &&
            stage <= GPU_SPARSE_STAGE_BYTES - STAGE_PAD) {
            const bool good =
                decode_part_fast<(gpu_element)ELEMENT, SMALL_ROUND, 0, FLOAT_THREADS>(shared, part, d_tables, d_status);
            return __syncthreads_and(good);
        }
    }
    const gpu_to_elements<JOIN> sink = {part, palette_of(part, d_tables)};
    return decode_part_any(shared, part, &d_tables[part.table], sink, d_status);
}

/* One chunk per block: its masks, then the elements that are there, then these to their places. Nothing of the head is used
 * before all of it is checked. */
template <int ELEMENT, gpu_join JOIN>
static __global__ void __launch_bounds__(FLOAT_THREADS, FLOAT_BLOCKS_PER_SM)
    kernel_decode_sparse(const struct gpu_chunk *d_chunks, struct gpu_bases bases, const struct gpu_table *d_tables,
                         uint32_t *d_status)
{
    extern __shared__ __align__(2048) uint8_t shared_memory[];
    gpu_shared_any &shared = *(gpu_shared_any *)shared_memory;
    const struct gpu_work chunk(d_chunks[blockIdx.x], bases);
    const uint4 numbers = *(const uint4 *)chunk.stored;
    const struct cllm_sparse_head head = {numbers.x, numbers.y, numbers.z, numbers.w};
    if (!cllm_sparse_head_fits(&head, chunk.element_count, chunk.stored_bytes)) {
        if (threadIdx.x == 0) report(d_status, chunk, GPU_BAD_HEADER);
        return;
    }
    const uint32_t absent_count = chunk.element_count - head.present_count;
    const uint8_t *signs = head.sign_bytes ? chunk.stored + CLLM_SPARSE_HEAD_BYTES + head.float_bytes : nullptr;
    if (signs && absent_count % 8 && signs[head.sign_bytes - 1] >> absent_count % 8 != 0) {
        if (threadIdx.x == 0) report(d_status, chunk, GPU_BAD_MASKS);
        return;
    }
    const gpu_masks masks = masks_of(shared, ELEMENT >= 0, chunk.element_count);
    if (!decode_masks(shared, chunk, head, masks, &d_tables[chunk.mask_table], d_status)) return;

    struct gpu_work part = chunk;
    part.planes = chunk.stored + CLLM_SPARSE_HEAD_BYTES;
    part.out = chunk.out + (size_t)absent_count * chunk.layout.element_bytes;
    part.element_count = head.present_count;
    part.plane_bytes = CLLM_SPARSE_HEAD_BYTES + (uint32_t)cllm_float_plane_bytes(&chunk.layout, head.present_count);
    part.stored_bytes = CLLM_SPARSE_HEAD_BYTES + head.float_bytes;
    if (!decode_present<ELEMENT, JOIN>(shared, part, d_tables, d_status)) return;
    if constexpr (ELEMENT >= 0) {
        typedef typename std::conditional<gpu_shape<(gpu_element)ELEMENT, SMALL_ROUND>::WIDE, uint32_t, uint16_t>::type element;
        if (chunk.element_count % 8 == 0 && (uintptr_t)chunk.out % 16 == 0) {
            spread_wide<element>(chunk, masks, absent_count, signs);
            return;
        }
    }
    spread_any(chunk, masks, absent_count, signs);
}

#endif

/* kernels_float.cuh - the float form on the GPU. FORMAT.md 9.
 *
 * One thread block decodes one chunk, one thread one segment. Code words come from shared memory, where the part of the chunk
 * behind the raw planes is copied first; a look-up of 11 bits gives up to three symbols. Every ROUND_SYMBOLS symbols a warp turns
 * what its lanes have decoded from one-segment-a-lane into eight-elements-a-lane, joins it with the raw planes and stores 16
 * bytes a lane, whole 32-byte sectors.
 *
 * Two kernels: kernel_decode_bf16 for the chunks that cpack writes for BF16 tensors (32,768 elements, segments of 128 symbols,
 * or fewer whole segments), and kernel_decode_any for every other layout, size and alignment.
 *
 * Bytes moved per BF16 weight: 1.33 read, 2 written. Shared memory per block: look-up table 8 KiB, rings of symbols 16 KiB, code
 * words up to STAGE_BYTES; more than that per SM takes the L1 cache from the planes and is slower (bench/NOTES.md).
 *
 * Bounds: nothing that is read from the payload reaches an address unchecked. Word indices are clamped to the chunk's own
 * bytes, element indices to the chunk's own count; segments that do not end where the next one starts set the chunk's status.
 */
#ifndef CLLM_KERNELS_FLOAT_CUH
#define CLLM_KERNELS_FLOAT_CUH

#include <cstdint>
#include <cuda_pipeline.h>

#include "codec.h"

#define FLOAT_THREADS 256
#define FLOAT_WARPS (FLOAT_THREADS / 32)
#define FLOAT_BLOCKS_PER_SM 4
#define ROUND_SYMBOLS 32
#define RING_BYTES 64 /* symbols of a lane: a round, and what a look-up may run ahead */
#define STAGE_BYTES 11776
#define BF16_SEGMENT_LOG2 7
#define BF16_SEGMENT (1u << BF16_SEGMENT_LOG2)

/* One chunk as a kernel sees it; filled by the host from a validated index. */
struct gpu_chunk {
    uint64_t stored_offset; /* from the stored base; 16-byte aligned, stored_bytes rounded up to 16 are readable */
    uint64_t out_offset;    /* from the output base; 16-byte aligned but for kernel_decode_any */
    uint32_t stored_bytes;
    uint32_t element_count;
    uint32_t plane_bytes; /* of all planes */
    uint32_t table;       /* into the tables of the launch */
    uint32_t index;       /* for the status word */
    struct cllm_layout layout;
};

/* What the offsets of chunks count from. */
struct gpu_bases {
    const uint8_t *stored;
    uint8_t *out;
};

/* A chunk with its addresses. */
struct gpu_work : gpu_chunk {
    const uint8_t *stored;
    uint8_t *out;
    __device__ __forceinline__ gpu_work(const struct gpu_chunk &chunk, const struct gpu_bases &bases)
        : gpu_chunk(chunk), stored(bases.stored + chunk.stored_offset), out(bases.out + chunk.out_offset)
    {
    }
};

/* Why a chunk does not decode. A status word is the least of GPU_REASONS * index + reason, or UINT32_MAX. */
enum gpu_reason { GPU_BAD_HEADER, GPU_BAD_SEGMENT, GPU_REASONS = 4 };

static __device__ __forceinline__ void report(uint32_t *d_status, const struct gpu_chunk &chunk, enum gpu_reason reason)
{
    atomicMin(d_status, GPU_REASONS * chunk.index + reason);
}

/* What the next 11 bits of a stream decode to. An entry holds, from bit 0: bits taken (5), symbols found, 1 to 3 (3), and the
 * symbols, first one lowest (24). */
struct gpu_table {
    uint32_t entries[CLLM_CODE_ENTRIES];
    uint8_t length[256]; /* bits of each symbol; all 0 where there is a single one */
};

/* --------------------------------------------------------------------------------------------------------- tables */

/* One block per table, whose lengths are there. Each thread finds the canonical code words at the start of its patterns one after
 * the other. */
static __global__ void kernel_build_tables(struct gpu_table *d_tables)
{
    __shared__ struct cllm_code_entry single[CLLM_CODE_ENTRIES];
    __shared__ uint16_t first_code[CLLM_CODE_BITS_MAX + 2], first_rank[CLLM_CODE_BITS_MAX + 2];
    __shared__ uint8_t lengths[256], ranked[256];
    __shared__ unsigned symbol_count;
    struct gpu_table *table = &d_tables[blockIdx.x];
    for (unsigned s = threadIdx.x; s < 256; s += blockDim.x) lengths[s] = table->length[s];
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned code = 0, rank = 0;
        for (unsigned length = 1; length <= CLLM_CODE_BITS_MAX; length++, code <<= 1) {
            first_code[length] = (uint16_t)code;
            first_rank[length] = (uint16_t)rank;
            for (unsigned s = 0; s < 256; s++) {
                if (lengths[s] == length) {
                    ranked[rank++] = (uint8_t)s;
                    code++;
                }
            }
        }
        first_rank[CLLM_CODE_BITS_MAX + 1] = (uint16_t)rank;
        symbol_count = rank;
    }
    __syncthreads();
    bool only = symbol_count == 1;
    for (unsigned s = threadIdx.x; s < 256; s += blockDim.x) table->length[s] = only ? 0 : lengths[s];
    for (unsigned i = threadIdx.x; i < CLLM_CODE_ENTRIES; i += blockDim.x) {
        struct cllm_code_entry entry = {ranked[0], 0};
        unsigned code = 0;
        for (unsigned length = 1; length <= CLLM_CODE_BITS_MAX && !only; length++) {
            code = code << 1 | (i >> (length - 1) & 1);
            unsigned offset = code - first_code[length];
            if (code >= first_code[length] && offset < (unsigned)(first_rank[length + 1] - first_rank[length])) {
                entry.symbol = ranked[first_rank[length] + offset];
                entry.bits = (uint8_t)length;
                break;
            }
        }
        single[i] = entry;
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < CLLM_CODE_ENTRIES; i += blockDim.x) {
        unsigned symbols = 0, count = 0, bits = 0;
        while (count < 3 && bits + single[i >> bits].bits <= CLLM_CODE_BITS_MAX) {
            symbols |= (unsigned)single[i >> bits].symbol << 8 * count++;
            bits += single[i >> bits].bits;
        }
        table->entries[i] = bits | count << 5 | symbols << 8;
    }
}

/* --------------------------------------------------------------------------------------------------- shared memory */

/* What one chunk needs besides its planes. */
struct gpu_stage {
    struct gpu_table table;
    uint4 words[STAGE_BYTES / 16];
};

struct gpu_shared {
    alignas(RING_BYTES) uint8_t ring[FLOAT_THREADS][RING_BYTES];
    uint32_t warp_bits[FLOAT_WARPS];
    struct gpu_stage stage;
};

static __device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

static __device__ __forceinline__ uint32_t load_shared(uint32_t address)
{
    uint32_t value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}

/* Where a lane keeps the symbols from `put` on, less the ring's own address: swizzled, so that neither lanes that store the same
 * word nor the 64-bit loads of the join meet in a bank more than twice. Eight bytes stay side by side. */
static __device__ __forceinline__ uint32_t ring_swizzle(uint32_t lane_index)
{
    return (lane_index & 2) << 4 | (lane_index & 12) << 1;
}

/* --------------------------------------------------------------------------------------------------------- symbols */

/* What one lane knows of its segment. Addresses are those of shared memory. */
struct gpu_lane {
    uint32_t low, high; /* the bits that come next, above two that are spent: masked, they are an entry's byte offset */
    uint32_t available; /* how many bits; the stream position is 32 * next - available */
    uint32_t next;      /* word that will be loaded next */
    uint32_t put;       /* symbols in whole words of four so far */
    uint32_t fill;      /* bits of `partial` in use: 0, 8, 16 or 24 */
    uint32_t partial;
    uint32_t ring; /* address and swizzle of this lane's ring */
};

/* Words of code: in shared memory (STAGED) or where the chunk lies. No word beyond last_word is loaded. */
template <bool STAGED>
struct gpu_words {
    const uint32_t *global;
    uint32_t address;
    uint32_t last_word;

    __device__ __forceinline__ uint32_t at(uint32_t index) const
    {
        index = min(index, last_word);
        return STAGED ? load_shared(address + 4 * index) : global[index];
    }

    /* `width` bits (at most 16) at bit `bit`. */
    __device__ __forceinline__ uint32_t number(uint32_t bit, uint32_t width) const
    {
        return __funnelshift_r(at(bit >> 5), at((bit >> 5) + 1), bit) & ((1u << width) - 1);
    }
};

template <bool STAGED>
static __device__ __forceinline__ struct gpu_lane start_lane(const gpu_words<STAGED> &words, const struct gpu_shared &shared,
                                                             uint32_t bit)
{
    uint32_t first = words.at(bit >> 5) >> (bit & 31);
    uint32_t ring = shared_address(shared.ring[threadIdx.x]) | ring_swizzle(threadIdx.x % 32);
    asm volatile("" : "+r"(ring)); /* kept in a register: computing it again costs more */
    struct gpu_lane lane = {first << 2, first >> 30, 32 - (bit & 31), (bit >> 5) + 1, 0, 0, 0, ring};
    return lane;
}

/* Afterwards 22 bits or more are available. */
template <bool STAGED>
static __device__ __forceinline__ void refill_window(const gpu_words<STAGED> &words, struct gpu_lane &lane)
{
    if (lane.available < 30) {
        uint32_t word = words.at(lane.next++);
        lane.low |= word << (lane.available + 2);
        lane.high = __funnelshift_l(word, 0, lane.available + 2);
        lane.available += 32;
    }
}

/* One look-up, 11 bits at most: appends its symbols, and stores a word whenever four are together. */
static __device__ __forceinline__ void look_up(uint32_t entries_address, struct gpu_lane &lane)
{
    uint32_t entry = load_shared(entries_address + (lane.low & (CLLM_CODE_ENTRIES - 1) << 2));
    uint32_t symbols = entry >> 8;
    lane.low = __funnelshift_r(lane.low, lane.high, entry); /* by its low five bits */
    lane.high = __funnelshift_r(lane.high, 0, entry);
    lane.available -= entry & 31;
    uint32_t spill = __funnelshift_l(symbols, 0, lane.fill);
    lane.partial |= symbols << lane.fill;
    lane.fill += entry >> 2 & 0x38;
    uint32_t place = (lane.put & (RING_BYTES - 4)) ^ lane.ring;
    asm volatile("{\n\t"
                 ".reg .pred full;\n\t"
                 "setp.ge.u32 full, %2, 32;\n\t"
                 "@full st.shared.u32 [%3], %0;\n\t"
                 "@full add.u32 %1, %1, 4;\n\t"
                 "selp.u32 %0, %4, %0, full;\n\t"
                 "}"
                 : "+r"(lane.partial), "+r"(lane.put)
                 : "r"(lane.fill), "r"(place), "r"(spill)
                 : "memory");
    lane.fill &= 31;
}

template <bool STAGED>
static __device__ __forceinline__ void decode_until(const gpu_words<STAGED> &words, uint32_t entries_address, uint32_t put_wanted,
                                                    struct gpu_lane &lane)
{
    while (lane.put < put_wanted) {
        refill_window(words, lane);
        look_up(entries_address, lane);
        look_up(entries_address, lane);
    }
}

/* Eight symbols of the warp's lane `from`, at symbol `index`, a multiple of 8. */
static __device__ __forceinline__ uint2 take_eight(const struct gpu_shared &shared, uint32_t from, uint32_t index)
{
    const uint8_t *ring = shared.ring[threadIdx.x / 32 * 32 + from];
    return *(const uint2 *)(ring + ((index & (RING_BYTES - 1)) ^ ring_swizzle(from)));
}

/* Takes back what the last look-ups decoded beyond the segment, then compares its end with where the next one starts; the last
 * one must end in the stream's last byte, whose unused bits are zero. */
template <bool STAGED>
static __device__ __forceinline__ bool check_segment(const gpu_words<STAGED> &words, const uint8_t *length,
                                                     const struct gpu_lane &lane, uint32_t symbol_count, bool last,
                                                     uint32_t expected_end, uint32_t end_bit)
{
    uint32_t end = 32 * lane.next - lane.available;
#pragma unroll 1
    for (uint32_t i = symbol_count; i < lane.put; i++) {
        uint32_t word = load_shared((i & (RING_BYTES - 4)) ^ lane.ring);
        end -= length[word >> i % 4 * 8 & 0xFF];
    }
#pragma unroll 1
    for (uint32_t k = symbol_count > lane.put ? 8 * (symbol_count - lane.put) : 0; k < lane.fill; k += 8) {
        end -= length[lane.partial >> k & 0xFF];
    }
    if (!last) return end == expected_end;
    if ((end + 7) / 8 * 8 != end_bit) return false;
    if (end % 8 != 0 && (words.at(end / 32) >> end % 32 & (0xFFu >> end % 8)) != 0) return false;
    return true;
}

/* ------------------------------------------------------------------------------------------------------- a chunk's head */

/* Positions in a chunk, in bits from the 16-byte boundary at or before the end of its planes. */
struct gpu_head {
    uint32_t base;       /* bits of a segment, less what is stored for it */
    uint32_t width;      /* bits of a stored number */
    uint32_t delta_bit;  /* of the first one */
    uint32_t stream_bit; /* of the first code word */
    uint32_t end_bit;
    bool good;
};

static __device__ __forceinline__ uint32_t plane_boundary(const struct gpu_work &chunk)
{
    return chunk.plane_bytes & ~15u;
}

template <bool STAGED>
static __device__ __forceinline__ struct gpu_head read_head(const gpu_words<STAGED> &words, const struct gpu_work &chunk,
                                                            uint32_t segment_count)
{
    uint32_t offset = chunk.plane_bytes & 15, end = chunk.stored_bytes - plane_boundary(chunk);
    struct gpu_head head;
    head.base = words.number(8 * offset, 16);
    uint32_t rest = words.number(8 * offset + 16, 16);
    head.width = rest & 0xFF;
    uint64_t delta_bytes = ((uint64_t)(segment_count - 1) * head.width + 7) / 8;
    head.delta_bit = 8 * (offset + CLLM_FLOAT_HEADER_BYTES);
    head.stream_bit = head.delta_bit + 8 * (uint32_t)delta_bytes;
    head.end_bit = 8 * end;
    head.good = head.width <= 16 && rest >> 8 == 0 && offset + CLLM_FLOAT_HEADER_BYTES + delta_bytes <= end;
    return head;
}

/* Sum over the lanes below this one. */
static __device__ __forceinline__ uint32_t scan_warp(uint32_t value, unsigned lane)
{
    uint32_t sum = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        uint32_t other = __shfl_up_sync(0xFFFFFFFFu, sum, distance);
        if (lane >= (unsigned)distance) sum += other;
    }
    return sum - value;
}

/* Sum over the threads below this one; *total_out over all. */
static __device__ __forceinline__ uint32_t scan_block(uint32_t *warp_bits, uint32_t value, uint32_t *total_out)
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t before = scan_warp(value, lane), total = 0;
    if (lane == 31) warp_bits[warp] = before + value;
    __syncthreads();
#pragma unroll
    for (unsigned w = 0; w < FLOAT_WARPS; w++) {
        uint32_t bits = warp_bits[w];
        if (w < warp) before += bits;
        total += bits;
    }
    *total_out = total;
    return before;
}

static __device__ __forceinline__ void copy_pieces(const void *from, void *to, uint32_t pieces)
{
    for (uint32_t i = threadIdx.x; i < pieces; i += FLOAT_THREADS) {
        __pipeline_memcpy_async((uint4 *)to + i, (const uint4 *)from + i, 16);
    }
}

/* --------------------------------------------------------------------------------------------------------------- BF16 */

/* Starts to copy the chunk's table and what lies behind its plane. */
static __device__ __forceinline__ void copy_stage(const struct gpu_work &chunk, const struct gpu_table *d_tables,
                                                  struct gpu_stage &stage)
{
    copy_pieces(&d_tables[chunk.table], &stage.table, sizeof stage.table / 16);
    copy_pieces(chunk.stored + plane_boundary(chunk), stage.words, (chunk.stored_bytes - plane_boundary(chunk) + 15) / 16);
}

/* Eight elements from eight symbols and their sign-and-mantissa bytes. */
static __device__ __forceinline__ uint4 join_bf16(uint2 symbols, uint2 plane)
{
    uint32_t out[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint32_t s = k < 2 ? symbols.x : symbols.y, r = k < 2 ? plane.x : plane.y;
        uint32_t exponents = __byte_perm(s, 0, k & 1 ? 0x4342 : 0x4140), raw = __byte_perm(r, 0, k & 1 ? 0x4342 : 0x4140);
        out[k] = (raw << 8 & 0x80008000u) | exponents << 7 | (raw & 0x007F007Fu);
    }
    return make_uint4(out[0], out[1], out[2], out[3]);
}

/* Where a lane joins: eight elements of each of four segments, a round further each time. */
struct gpu_place {
    const uint8_t *plane;
    uint8_t *out;
    bool there[4];
};

static __device__ __forceinline__ struct gpu_place place_lane(const struct gpu_work &chunk)
{
    const uint32_t row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 8;
    const uint32_t first = (threadIdx.x / 32 * 32 + row) * BF16_SEGMENT + column;
    struct gpu_place place = {chunk.stored + first, chunk.out + 2 * (size_t)first, {}};
#pragma unroll
    for (unsigned g = 0; g < 4; g++) place.there[g] = first + 8 * g * BF16_SEGMENT < chunk.element_count;
    return place;
}

/* Eight raw bytes. The rest of their 128-byte line is wanted in the next rounds: it may come to the L2 cache now. */
static __device__ __forceinline__ uint2 load_plane(const uint8_t *plane)
{
    uint2 value;
    asm volatile("ld.global.nc.L2::128B.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(plane));
    return value;
}

static __device__ __forceinline__ void load_planes(const struct gpu_place &place, uint32_t round, uint2 plane[4])
{
#pragma unroll
    for (unsigned g = 0; g < 4; g++) {
        if (place.there[g]) plane[g] = load_plane(place.plane + round + 8 * g * BF16_SEGMENT);
    }
}

/* All symbols of a warp's 32 segments, round by round. `plane` holds the raw bits of the first. */
static __device__ __forceinline__ void decode_warp_bf16(const struct gpu_place &place, const gpu_words<true> &words,
                                                        const struct gpu_shared &shared, struct gpu_lane &lane, bool has_segment,
                                                        uint2 plane[4])
{
    const uint32_t row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 8;
    const uint32_t entries_address = shared_address(shared.stage.table.entries);
#pragma unroll 1
    for (uint32_t round = 0; round < BF16_SEGMENT; round += ROUND_SYMBOLS) {
        if (round > 0) load_planes(place, round, plane);
        decode_until(words, entries_address, has_segment ? round + ROUND_SYMBOLS : 0, lane);
        __syncwarp();
#pragma unroll
        for (unsigned g = 0; g < 4; g++) {
            uint2 symbols = take_eight(shared, 8 * g + row, round + column);
            if (place.there[g]) __stcs((uint4 *)(place.out + 2 * round + 16 * g * BF16_SEGMENT), join_bf16(symbols, plane[g]));
        }
        __syncwarp();
    }
}

/* One chunk per block: BF16, its elements whole segments of 128, at most 256 of them, at most STAGE_BYTES behind its plane. */
static __global__ void __launch_bounds__(FLOAT_THREADS, FLOAT_BLOCKS_PER_SM)
    kernel_decode_bf16(const struct gpu_chunk *d_chunks, struct gpu_bases bases, const struct gpu_table *d_tables,
                       uint32_t *d_status)
{
    extern __shared__ uint4 shared_memory[];
    struct gpu_shared &shared = *(struct gpu_shared *)shared_memory;
    const struct gpu_work chunk(d_chunks[blockIdx.x], bases);
    copy_stage(chunk, d_tables, shared.stage);
    __pipeline_commit();
    const struct gpu_place place = place_lane(chunk);
    uint2 plane[4];
    load_planes(place, 0, plane);
    __pipeline_wait_prior(0);
    __syncthreads();

    const uint32_t segment_count = chunk.element_count / BF16_SEGMENT;
    const uint32_t last_word = (chunk.stored_bytes - plane_boundary(chunk) + 3) / 4 - 1;
    const gpu_words<true> words = {nullptr, shared_address(shared.stage.words), last_word};
    const struct gpu_head head = read_head(words, chunk, segment_count);
    if (!head.good) {
        if (threadIdx.x == 0) report(d_status, chunk, GPU_BAD_HEADER);
        return;
    }
    const bool has_segment = threadIdx.x < segment_count, last = threadIdx.x + 1 == segment_count;
    uint32_t bits = 0, total;
    if (has_segment && !last) bits = head.base + words.number(head.delta_bit + threadIdx.x * head.width, head.width);
    const uint32_t start = head.stream_bit + scan_block(shared.warp_bits, bits, &total);
    struct gpu_lane lane = start_lane(words, shared, start);
    decode_warp_bf16(place, words, shared, lane, has_segment, plane);
    if (has_segment) {
        bool good = check_segment(words, shared.stage.table.length, lane, BF16_SEGMENT, last, start + bits, head.end_bit);
        if (!good) report(d_status, chunk, GPU_BAD_SEGMENT);
    }
}

/* ----------------------------------------------------------------------------------------------------------------- copies */

/* A piece per block, whatever its alignment; vectors where both sides allow. */
static __global__ void kernel_copy(const struct gpu_chunk *d_chunks, struct gpu_bases bases)
{
    const struct gpu_work piece(d_chunks[blockIdx.x], bases);
    const uint32_t whole = (uintptr_t)piece.out % 16 == 0 && (uintptr_t)piece.stored % 16 == 0 ? piece.stored_bytes / 16 : 0;
    for (uint32_t i = threadIdx.x; i < whole; i += blockDim.x) ((uint4 *)piece.out)[i] = ((const uint4 *)piece.stored)[i];
    for (uint32_t i = 16 * whole + threadIdx.x; i < piece.stored_bytes; i += blockDim.x) piece.out[i] = piece.stored[i];
}

/* ----------------------------------------------------------------------------------------------------------- any layout */

/* Element `index` from its symbol and its raw bits, byte by byte: any layout, any alignment. */
static __device__ __forceinline__ void join_any(const struct gpu_work &chunk, const struct cllm_layout &layout, uint32_t index,
                                                uint8_t symbol)
{
    const unsigned bits = cllm_layout_remainder_bits(&layout), planes = bits / 8, rest = bits % 8;
    uint64_t remainder = 0;
    for (unsigned p = 0; p < planes; p++) remainder |= (uint64_t)chunk.stored[(size_t)p * chunk.element_count + index] << 8 * p;
    if (rest) {
        const uint8_t *packed = chunk.stored + (size_t)planes * chunk.element_count;
        remainder |= (uint64_t)cllm_bits_at(packed, (uint64_t)index * rest, rest) << 8 * planes;
    }
    const uint64_t element = cllm_element_join(&layout, symbol, remainder);
    uint8_t *out = chunk.out + (size_t)index * layout.element_bytes;
    switch ((uintptr_t)chunk.out % layout.element_bytes ? 0 : layout.element_bytes) {
    case 2: *(uint16_t *)out = (uint16_t)element; break;
    case 4: *(uint32_t *)out = (uint32_t)element; break;
    case 8: *(uint64_t *)out = element; break;
    default:
        for (unsigned b = 0; b < layout.element_bytes; b++) out[b] = (uint8_t)(element >> 8 * b);
    }
}

/* One chunk per block, 256 segments at a time; code words are read where they lie. */
static __global__ void __launch_bounds__(FLOAT_THREADS)
    kernel_decode_any(const struct gpu_chunk *d_chunks, struct gpu_bases bases, const struct gpu_table *d_tables,
                      uint32_t *d_status)
{
    extern __shared__ uint4 shared_memory[];
    struct gpu_shared &shared = *(struct gpu_shared *)shared_memory;
    const struct gpu_work chunk(d_chunks[blockIdx.x], bases);
    const struct gpu_table &table = shared.stage.table;
    copy_pieces(&d_tables[chunk.table], &shared.stage.table, sizeof table / 16);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();

    const uint32_t per_segment = 1u << chunk.layout.segment_log2, lane_index = threadIdx.x % 32;
    const uint32_t segment_count = (uint32_t)(((uint64_t)chunk.element_count + per_segment - 1) >> chunk.layout.segment_log2);
    const uint32_t *global = (const uint32_t *)(chunk.stored + plane_boundary(chunk));
    const gpu_words<false> words = {global, 0, (chunk.stored_bytes - plane_boundary(chunk) + 3) / 4 - 1};
    const struct gpu_head head = read_head(words, chunk, segment_count);
    if (!head.good) {
        if (threadIdx.x == 0) report(d_status, chunk, GPU_BAD_HEADER);
        return;
    }
    uint32_t tile_start = head.stream_bit;
    for (uint32_t tile = 0; tile < segment_count; tile += FLOAT_THREADS) {
        const uint32_t segment = tile + threadIdx.x;
        const bool has_segment = segment < segment_count, last = segment + 1 == segment_count;
        uint32_t bits = 0, total, symbol_count = 0;
        if (has_segment && !last) bits = head.base + words.number(head.delta_bit + segment * head.width, head.width);
        if (has_segment) symbol_count = min(per_segment, chunk.element_count - (segment << chunk.layout.segment_log2));
        const uint32_t start = tile_start + scan_block(shared.warp_bits, bits, &total);
        struct gpu_lane lane = start_lane(words, shared, start);
        const uint32_t warp_first = tile + threadIdx.x / 32 * 32;
        for (uint32_t round = 0; round < per_segment; round += ROUND_SYMBOLS) {
            decode_until(words, shared_address(table.entries), min(round + ROUND_SYMBOLS, symbol_count) & ~3u, lane);
            /* The last word of a segment whose symbols are no multiple of four is still in `partial`. */
            if ((symbol_count & 3) != 0 && symbol_count < round + ROUND_SYMBOLS) {
                while (lane.put + lane.fill / 8 < symbol_count) {
                    refill_window(words, lane);
                    look_up(shared_address(table.entries), lane);
                }
                uint32_t *place = (uint32_t *)__cvta_shared_to_generic((lane.put & (RING_BYTES - 4)) ^ lane.ring);
                if (lane.put < symbol_count) *place = lane.partial;
            }
            __syncwarp();
            for (uint32_t from = 0; from < 32; from++) { /* a lane's round, an element a thread: neighbours store side by side */
                uint64_t first = (uint64_t)(warp_first + from) << chunk.layout.segment_log2;
                uint64_t index = first + round + lane_index;
                uint8_t symbol =
                    shared.ring[threadIdx.x / 32 * 32 + from][((round + lane_index) & (RING_BYTES - 1)) ^ ring_swizzle(from)];
                if (round + lane_index < per_segment && index < chunk.element_count)
                    join_any(chunk, chunk.layout, (uint32_t)index, symbol);
            }
            __syncwarp();
        }
        if (has_segment) {
            bool good = check_segment(words, table.length, lane, symbol_count, last, start + bits, head.end_bit);
            if (!good) report(d_status, chunk, GPU_BAD_SEGMENT);
        }
        tile_start += total;
        __syncthreads(); /* before warp_bits is used again */
    }
}

#endif

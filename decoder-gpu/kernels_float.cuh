/* kernels_float.cuh - the float form on the GPU, and the scaled form, whose levels it holds. FORMAT.md 9, 12.
 *
 * One thread block decodes one chunk, one thread half a segment: the lower half of the threads first halves, forwards, the upper
 * half second halves, which are read backwards, word by word, each word's bits reversed, and so look like first halves. A look-up
 * of 11 bits gives up to three symbols, which are put at the end of the last eight; whole words of four go to shared memory.
 * When the lanes of a warp have a round of symbols each, all of a half segment where there is room, the warp goes through them
 * row by row: raw planes and output are then read and written in whole lines, 16 bytes of output a lane.
 *
 * kernel_decode_fast is for the chunks that cpack writes for BF16, F16 and F32, and for palettes of elements of two and four
 * bytes, with scales or without; table and code words are copied to shared memory first. kernel_decode_any takes every other
 * layout, size and alignment.
 *
 * It runs at nine tenths of what memory allows (bench/NOTES.md) because instructions are few: symbols are kept as the join wants
 * them, an entry's fields lie where they need no mask, and of counters only the low bits are looked at.
 *
 * Bounds: nothing that is read from the payload reaches an address unchecked. Segments that end behind the stream are not
 * decoded; a half that runs away is stopped once a round, and until then stays within STAGE_PAD; element indices are checked
 * against the chunk's own count; halves that do not meet are reported. A palette has a value for every byte that a symbol can be.
 */
#ifndef CLLM_KERNELS_FLOAT_CUH
#define CLLM_KERNELS_FLOAT_CUH

#include <cstdint>
#include <cuda_pipeline.h>

#include "kernels_scaled.cuh"

#define FLOAT_THREADS 256 /* of a block, at most */
#define FLOAT_BLOCKS_PER_SM 4
#define LARGE_ROUND 128 /* symbols of a lane between two joins: all of a half segment */
#define SMALL_ROUND 64  /* the same where shared memory is short or half segments are long */
#define RUNAWAY_WORDS 5 /* behind the last one, to which a half that runs away comes back */
#define STAGE_PAD 224   /* bytes on either side of the code words: these words, 130 look-ups of 11 bits, and two words */

/* Whether tables hold symbols with bit 0 moved above bit 7: where the symbol is an exponent one bit below a byte's boundary, the
 * join then takes its two parts by masks alone. */
CLLM_HOST_DEVICE bool gpu_rotates(const struct cllm_layout *layout)
{
    return layout->symbol_bits == 8 && layout->symbol_shift % 8 == 7;
}

/* What the next 11 bits of a stream decode to. An entry holds, from bit 0: bits taken (4), two zeros, the symbols, first one
 * lowest (24), how many they are, 1 to 3 (2). */
struct gpu_table {
    uint32_t entries[CLLM_CODE_ENTRIES];
    uint8_t length[256]; /* bits of each symbol as it is in entries; all 0 where there is a single one */
};

/* What a table is made from. */
struct gpu_table_seed {
    uint8_t length[256]; /* FORMAT.md 6.2's */
    uint32_t rotates;
};

/* --------------------------------------------------------------------------------------------------------- tables */

/* The symbols that have a code word, in the order of their code words; returns how many. All threads of a block of 256. */
static __device__ __forceinline__ unsigned rank_symbols(const uint8_t lengths[256], uint16_t counts[16], uint8_t ranked[256])
{
    const unsigned s = threadIdx.x, length = lengths[s];
    if (s < 16) counts[s] = 0;
    __syncthreads();
    unsigned rank = 0, total = 0;
    for (unsigned t = 0; t < 256; t++) {
        const unsigned other = lengths[t];
        total += other != 0;
        rank += other != 0 && (other < length || (other == length && t < s));
        if (s < 16 && other == s) counts[s]++;
    }
    if (length) ranked[rank] = (uint8_t)s;
    __syncthreads();
    return total;
}

/* The symbol whose code word the bits of `index` begin with, canonical: FORMAT.md 9. */
static __device__ __forceinline__ struct cllm_code_entry find_code(unsigned index, const uint16_t counts[16],
                                                                   const uint8_t ranked[256])
{
    unsigned code = 0, first_code = 0, first_rank = 0;
    for (unsigned length = 1; length <= CLLM_CODE_BITS_MAX; length++) {
        code = code << 1 | (index >> (length - 1) & 1);
        first_code <<= 1;
        if (code - first_code < counts[length]) return {ranked[first_rank + code - first_code], (uint8_t)length};
        first_code += counts[length];
        first_rank += counts[length];
    }
    return {ranked[0], CLLM_CODE_BITS_MAX}; /* complete codes do not come here */
}

/* One block of 256 threads per table; seeds may be in pinned memory of the host. */
static __global__ void kernel_build_tables(const struct gpu_table_seed *seeds, struct gpu_table *d_tables)
{
    __shared__ struct cllm_code_entry single[CLLM_CODE_ENTRIES];
    __shared__ uint16_t counts[16];
    __shared__ uint8_t lengths[256], ranked[256];
    const struct gpu_table_seed *seed = &seeds[blockIdx.x];
    struct gpu_table *table = &d_tables[blockIdx.x];
    const unsigned s = threadIdx.x, rotation = seed->rotates ? 7 : 0;
    lengths[s] = seed->length[s];
    __syncthreads();
    const bool only = rank_symbols(lengths, counts, ranked) == 1;
    for (unsigned i = s; i < CLLM_CODE_ENTRIES; i += 256) {
        struct cllm_code_entry entry = only ? cllm_code_entry{ranked[0], 0} : find_code(i, counts, ranked);
        entry.symbol = (uint8_t)(entry.symbol << rotation | entry.symbol >> (8 - rotation));
        single[i] = entry;
    }
    table->length[(s << rotation | s >> (8 - rotation)) & 0xFF] = only ? 0 : lengths[s];
    __syncthreads();
    for (unsigned i = s; i < CLLM_CODE_ENTRIES; i += 256) {
        unsigned symbols = 0, count = 0, bits = 0;
        while (count < 3 && bits + single[i >> bits].bits <= CLLM_CODE_BITS_MAX) {
            symbols |= (unsigned)single[i >> bits].symbol << 8 * count++;
            bits += single[i >> bits].bits;
        }
        table->entries[i] = bits | symbols << 6 | count << 30;
    }
}

/* Clears a status word, and fetches from pinned memory what a batch is described by. Not a copy: that would have its turn behind
 * large ones that other streams have queued. */
static __global__ void kernel_fetch_batch(const uint4 *chunks, uint4 *d_chunks, uint32_t chunk_pieces, const uint4 *values,
                                          uint4 *d_values, uint32_t value_pieces, uint32_t *d_status)
{
    const uint32_t first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    if (first == 0) *d_status = UINT32_MAX;
    for (uint32_t i = first; i < chunk_pieces; i += step) d_chunks[i] = chunks[i];
    for (uint32_t i = first; i < value_pieces; i += step) d_values[i] = values[i];
}

/* --------------------------------------------------------------------------------------------------- shared memory */

/* The values of a palette, or nothing. */
template <unsigned VALUES>
struct gpu_shared_palette {
    uint32_t value[VALUES];
};
template <>
struct gpu_shared_palette<0> {
};

/* Of a block; behind it the code words of kernel_decode_fast and STAGE_PAD bytes more. The palette comes first, where it is found
 * without another register; so rings start at multiples of 1024. */
template <unsigned THREADS, unsigned ROUND, unsigned VALUES = 0>
struct gpu_shared : gpu_shared_palette<VALUES> {
    uint8_t ring[THREADS / 32][32 * ROUND]; /* symbols, ROUND for each lane */
    struct gpu_table table;
    uint32_t warp_bits[THREADS / 32];
    uint32_t meeting[THREADS / 2]; /* where first halves end */
    uint8_t pad[STAGE_PAD];
    uint4 words[1];
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

static __device__ __forceinline__ void store_shared(uint32_t address, uint32_t value)
{
    asm volatile("st.shared.u32 [%0], %1;" : : "r"(address), "r"(value) : "memory");
}

/* Where word `word` of a lane's symbols is in a warp's ring, which starts at a multiple of 1024: words of a lane 32 bytes apart,
 * so that a counter of bits is an offset, and swizzled by XOR, so that no two of 32 lanes meet in a bank, neither where each
 * stores the same word nor where the join loads words of few lanes. `word` comes as 32 times its number, other bits allowed. */
template <unsigned ROUND>
static __device__ __forceinline__ uint32_t ring_offset(uint32_t lane, uint32_t word_bits)
{
    const uint32_t own = (lane & 7) << 2 | (lane >> 3) * (8 * ROUND), swizzle = (lane >> 3) << 5;
    return (word_bits & (8 * ROUND - 32)) ^ (word_bits >> 5 & (ROUND / 4 - 4)) ^ own ^ swizzle;
}

/* ----------------------------------------------------------------------------------------------------------- code words */

/* The part of a chunk behind the 16-byte boundary at or before the end of its planes, as words: in shared memory (STAGED), or
 * where the chunk lies. Bit positions count from that boundary; those of the mirror, from the end of the last word. */
template <bool STAGED>
struct gpu_words {
    const uint32_t *global;
    uint32_t address;
    uint32_t count;

    __device__ __forceinline__ uint32_t at(uint32_t index) const
    {
        index = min(index, count - 1);
        return STAGED ? load_shared(address + 4 * index) : global[index];
    }

    /* `width` bits (at most 16) at bit `bit`. */
    __device__ __forceinline__ uint32_t number(uint32_t bit, uint32_t width) const
    {
        return __funnelshift_r(at(bit >> 5), at((bit >> 5) + 1), bit) & ((1u << width) - 1);
    }
};

/* The words in one direction. A place is a word's address where STAGED, else its index, and may be outside. */
template <bool STAGED, bool MIRRORED>
struct gpu_reader {
    gpu_words<STAGED> words;

    __device__ __forceinline__ uint32_t place_of(uint32_t index) const
    {
        if (!STAGED) return index;
        return MIRRORED ? words.address + 4 * (words.count - 1 - index) : words.address + 4 * index;
    }

    __device__ __forceinline__ uint32_t index_of(uint32_t place) const
    {
        if (!STAGED) return place;
        return MIRRORED ? words.count - 1 - (uint32_t)((int32_t)(place - words.address) / 4) : (place - words.address) / 4;
    }

    __device__ __forceinline__ uint32_t take(uint32_t &place) const
    {
        uint32_t word;
        if (STAGED) {
            word = load_shared(place);
            place = MIRRORED ? place - 4 : place + 4;
        } else {
            uint32_t index = min(place++, words.count - 1); /* one before the first is as good as the last: its bits are spent */
            word = words.global[MIRRORED ? words.count - 1 - index : index];
        }
        return word;
    }

    /* A word that was taken, first bit of the direction lowest. Not part of take, because nvcc 13.0 makes four instructions of a
     * reversal that is conditional. */
    __device__ __forceinline__ uint32_t turn(uint32_t word) const
    {
        return MIRRORED ? __brev(word) : word;
    }

    /* Ends a run away. What eight symbols take less than RUNAWAY_WORDS - 2 words is still behind the end: such a half meets no
     * other. */
    __device__ __forceinline__ void stop(uint32_t &place) const
    {
        const uint32_t last = place_of(words.count + RUNAWAY_WORDS);
        place = STAGED && MIRRORED ? max(place, last) : min(place, last);
    }
};

/* --------------------------------------------------------------------------------------------------------------- symbols */

/* What one lane knows of its half segment. */
struct gpu_lane {
    uint32_t first;        /* word of the stream */
    uint32_t second;       /* the next one, not turned yet */
    uint32_t place;        /* of the word behind them */
    uint32_t bit;          /* low six bits: in `first`, the next bit that comes, less 2; the rest means nothing */
    uint32_t put;          /* 8 times the symbols so far, less 32 */
    uint32_t older, newer; /* the last eight symbols, the last one highest */
    uint32_t ring;         /* address */
};

template <unsigned ROUND, bool STAGED, bool MIRRORED>
static __device__ __forceinline__ struct gpu_lane start_lane(const gpu_reader<STAGED, MIRRORED> &reader, uint32_t ring,
                                                             uint32_t bit)
{
    struct gpu_lane lane = {};
    lane.place = reader.place_of((bit + 30) / 32 - 1); /* less 2: what is masked from a window is an entry's byte offset */
    lane.bit = (bit + 30) % 32;
    lane.first = reader.turn(reader.take(lane.place));
    lane.second = reader.take(lane.place);
    lane.put = 0u - 32;
    lane.ring = ring + ring_offset<ROUND>(threadIdx.x % 32, 0);
    return lane;
}

/* Appends the symbols of an entry and stores the last whole word of four, again where it was there already. */
template <unsigned ROUND>
static __device__ __forceinline__ void append(uint32_t entry, struct gpu_lane &lane)
{
    uint32_t count;
    asm("shr.u32 %0, %1, 30;"
        : "=r"(count)
        : "r"(entry)); /* hides it from the compiler, which would mask where it can multiply */
    const uint32_t bits = 8 * count;
    lane.older = __funnelshift_r(lane.older, lane.newer, bits);
    lane.newer = __funnelshift_r(lane.newer, entry >> 6, bits);
    lane.put += bits;
    const uint32_t place = (lane.put & (8 * ROUND - 32)) ^ lane.ring ^ (lane.put >> 5 & (ROUND / 4 - 4));
    store_shared(place, __funnelshift_l(lane.older, lane.newer, lane.put));
}

static __device__ __forceinline__ uint32_t look_up(uint32_t entries, uint32_t window)
{
    return load_shared((window & 4 * (CLLM_CODE_ENTRIES - 1)) + entries);
}

/* Goes on by the bits that entries have taken, 22 at most, to the next word if they end there. */
template <bool STAGED, bool MIRRORED>
static __device__ __forceinline__ void go_on(const gpu_reader<STAGED, MIRRORED> &reader, uint32_t taken, uint32_t second,
                                             struct gpu_lane &lane)
{
    lane.bit += taken;
    if (lane.bit & 32) {
        lane.bit ^= 32;
        lane.first = second;
        lane.second = reader.take(lane.place);
    }
}

/* Until `wanted` symbols are there, or one or two more: never so many that a word of the next round is complete. */
template <unsigned ROUND, bool STAGED, bool MIRRORED>
static __device__ __forceinline__ void decode_until(const gpu_reader<STAGED, MIRRORED> &reader, uint32_t entries, uint32_t wanted,
                                                    struct gpu_lane &lane)
{
    const int32_t enough = 8 * (int32_t)wanted - 32;
    while ((int32_t)lane.put < enough - 24) {
        const uint32_t second = reader.turn(lane.second);
        const uint32_t window = __funnelshift_r(lane.first, second, lane.bit);
        const uint32_t entry = look_up(entries, window);
        const uint32_t other = look_up(entries, __funnelshift_r(window, 0, entry)); /* asked for before stores wait */
        append<ROUND>(entry, lane);
        append<ROUND>(other, lane);
        go_on(reader, entry + other, second, lane);
    }
    while ((int32_t)lane.put < enough) {
        const uint32_t second = reader.turn(lane.second);
        const uint32_t entry = look_up(entries, __funnelshift_r(lane.first, second, lane.bit));
        append<ROUND>(entry, lane);
        go_on(reader, entry, second, lane);
    }
    reader.stop(lane.place);
}

/* Bit behind symbol `symbol_count`: less what was decoded beyond it, eight symbols at most. */
template <bool STAGED, bool MIRRORED>
static __device__ __forceinline__ uint32_t end_of_lane(const gpu_reader<STAGED, MIRRORED> &reader, const uint8_t *length,
                                                       struct gpu_lane lane, uint32_t symbol_count)
{
    uint32_t end = 32 * (reader.index_of(lane.place) - 2) + (lane.bit & 31) + 2;
#pragma unroll 1
    for (uint32_t extra = (lane.put + 32) / 8 - symbol_count; extra > 0; extra--) {
        end -= length[lane.newer >> 24];
        lane.newer = __funnelshift_l(lane.older, lane.newer, 8);
        lane.older <<= 8;
    }
    return end;
}

/* ------------------------------------------------------------------------------------------------------- a chunk's head */

/* Positions in a chunk, in bits as gpu_words has them. */
struct gpu_head {
    uint32_t base;       /* bits of a segment, less what is stored for it */
    uint32_t width;      /* bits of a stored number */
    uint32_t delta_bit;  /* of the first one */
    uint32_t stream_bit; /* of the first code word */
    uint32_t end_bit;    /* of the last one's end */
    bool good;
};

/* From where the head and what follows it are copied. */
static __device__ __forceinline__ uint32_t plane_boundary(const struct gpu_chunk &chunk)
{
    return chunk.plane_bytes & ~15u;
}

static __device__ __forceinline__ bool has_head(const struct gpu_chunk &chunk)
{
    return chunk.plane_bytes + CLLM_FLOAT_HEADER_BYTES <= chunk.stored_bytes;
}

template <bool STAGED>
static __device__ __forceinline__ struct gpu_head read_head(const gpu_words<STAGED> &words, const struct gpu_chunk &chunk,
                                                            uint32_t segment_count)
{
    const uint32_t offset = chunk.plane_bytes & 15, end = chunk.stored_bytes - plane_boundary(chunk);
    struct gpu_head head;
    head.base = words.number(8 * offset, 16);
    const uint32_t rest = words.number(8 * offset + 16, 16), unused = rest >> 8;
    head.width = rest & 0xFF;
    const uint64_t stream = offset + CLLM_FLOAT_HEADER_BYTES + ((uint64_t)(segment_count - 1) * head.width + 7) / 8;
    head.delta_bit = 8 * (offset + CLLM_FLOAT_HEADER_BYTES);
    head.stream_bit = 8 * (uint32_t)stream;
    head.end_bit = 8 * end - unused;
    head.good = head.width <= 16 && stream <= end && unused <= (stream < end ? 7 : 0);
    if (head.good && unused > 0) head.good = words.number(head.end_bit, unused) == 0;
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

/* Where this thread's segment lies: its start is the sum of the lengths below it. */
struct gpu_extent {
    uint32_t start;
    uint32_t end;
};

/* All threads; either half of the block computes the same. `*tile_start` goes on to the next tile, no further than end_bit + 1:
 * the least that is too far. */
template <unsigned THREADS, bool STAGED>
static __device__ __forceinline__ struct gpu_extent find_segment(const gpu_words<STAGED> &words, const struct gpu_head &head,
                                                                 uint32_t *warp_bits, uint32_t segment, uint32_t segment_count,
                                                                 uint32_t *tile_start)
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, half_warps = THREADS / 64;
    uint32_t bits = 0, total = 0;
    if (segment + 1 < segment_count) bits = head.base + words.number(head.delta_bit + segment * head.width, head.width);
    uint32_t before = scan_warp(bits, lane);
    if (lane == 31) warp_bits[warp] = before + bits;
    __syncthreads();
    const unsigned first_warp = warp < half_warps ? 0 : half_warps;
#pragma unroll
    for (unsigned w = 0; w < half_warps; w++) {
        const uint32_t others = warp_bits[first_warp + w];
        if (first_warp + w < warp) before += others;
        total += others;
    }
    struct gpu_extent extent = {*tile_start + before, *tile_start + before + bits};
    if (segment + 1 == segment_count) extent.end = max(head.end_bit, extent.start);
    *tile_start = min(*tile_start + total, head.end_bit + 1);
    return extent;
}

static __device__ __forceinline__ void copy_pieces(const void *from, void *to, uint32_t pieces)
{
    for (uint32_t i = threadIdx.x; i < pieces; i += blockDim.x) {
        __pipeline_memcpy_async((uint4 *)to + i, (const uint4 *)from + i, 16);
    }
}

static __device__ __forceinline__ const uint64_t *palette_of(const struct gpu_chunk &chunk, const struct gpu_table *d_tables)
{
    return (const uint64_t *)d_tables + chunk.palette;
}

/* The lower four bytes of each value. */
static __device__ __forceinline__ void copy_palette(const uint64_t *from, uint32_t *to)
{
    for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) to[i] = (uint32_t)from[i];
}

/* What a thread works on in one tile. */
struct gpu_half {
    uint32_t segment;
    uint32_t start;        /* bit of the stream, or of its mirror */
    uint32_t symbol_count; /* 0 where there is nothing to decode */
    bool good;             /* the segment lies within the stream */
};

template <unsigned THREADS, bool STAGED>
static __device__ __forceinline__ struct gpu_half find_half(const gpu_words<STAGED> &words, const struct gpu_head &head,
                                                            uint32_t *warp_bits, const struct gpu_chunk &chunk, uint32_t tile,
                                                            uint32_t segment_count, uint32_t *tile_start)
{
    const bool mirrored = threadIdx.x >= THREADS / 2;
    const uint32_t per_half = 1u << (chunk.layout.segment_log2 - 1);
    struct gpu_half half;
    half.segment = tile + (mirrored ? threadIdx.x - THREADS / 2 : threadIdx.x);
    const struct gpu_extent extent = find_segment<THREADS>(words, head, warp_bits, half.segment, segment_count, tile_start);
    const bool exists = half.segment < segment_count;
    half.good = !exists || extent.end <= head.end_bit;
    half.symbol_count = 0;
    if (exists && half.good) {
        const uint32_t symbols = min(2 * per_half, chunk.element_count - half.segment * 2 * per_half);
        half.symbol_count = mirrored ? symbols - min(symbols, per_half) : min(symbols, per_half);
    }
    half.start = mirrored ? 32 * words.count - extent.end : extent.start;
    if (!exists || !half.good) half.start = mirrored ? 0 : 32; /* something that can be read */
    return half;
}

/* Whether the two halves of a segment meet; asked of all threads, answered by those of second halves. */
template <unsigned THREADS>
static __device__ __forceinline__ bool halves_meet(uint32_t *meeting, uint32_t end, uint32_t word_count)
{
    const uint32_t segments = THREADS / 2;
    const bool mirrored = threadIdx.x >= segments;
    if (!mirrored) meeting[threadIdx.x] = end;
    __syncthreads();
    return !mirrored || meeting[threadIdx.x - segments] == 32 * word_count - end;
}

/* ------------------------------------------------------------------------------------- BF16, F16 and F32, and palettes */

/* The fourth one: F32 whose lower 16 bits are zero, as BF16 is often kept. The others have palettes: any elements of two and four
 * bytes, and levels of scaled ones. */
enum gpu_element {
    GPU_ELEMENT_BF16,
    GPU_ELEMENT_F16,
    GPU_ELEMENT_F32,
    GPU_ELEMENT_F32_OF_BF16,
    GPU_ELEMENT_PALETTE16,
    GPU_ELEMENT_PALETTE32,
    GPU_ELEMENT_SCALED16,
    GPU_ELEMENT_SCALED32,
    GPU_ELEMENTS
};

/* Bits of `a` where the mask has ones, else of `b`: one instruction, if it is asked for. */
static __device__ __forceinline__ uint32_t select_bits(uint32_t mask, uint32_t a, uint32_t b)
{
    uint32_t selected;
    asm("lop3.b32 %0, %1, %2, %3, 0xCA;" : "=r"(selected) : "r"(mask), "r"(a), "r"(b));
    return selected;
}

/* Two BF16 elements a word: from four rotated symbols and their sign-and-mantissa bytes, four elements. */
static __device__ __forceinline__ uint2 join_bf16(uint32_t symbols, uint32_t plane)
{
    const uint32_t high = select_bits(0x80808080, plane, symbols), low = select_bits(0x80808080, symbols, plane);
    return make_uint2(__byte_perm(low, high, 0x5140), __byte_perm(low, high, 0x7362));
}

/* Four F16 elements: the symbols are their upper bytes. */
static __device__ __forceinline__ uint2 join_f16(uint32_t symbols, uint32_t plane)
{
    return make_uint2(__byte_perm(plane, symbols, 0x5140), __byte_perm(plane, symbols, 0x7362));
}

/* Four F32 elements from rotated symbols and three planes. */
static __device__ __forceinline__ uint4 join_f32(uint32_t symbols, const uint32_t plane[3])
{
    const uint2 upper = join_bf16(symbols, plane[2]), lower = join_f16(plane[1], plane[0]); /* two planes join as F16 does */
    return make_uint4(__byte_perm(lower.x, upper.x, 0x5410), __byte_perm(lower.x, upper.x, 0x7632),
                      __byte_perm(lower.y, upper.y, 0x5410), __byte_perm(lower.y, upper.y, 0x7632));
}

/* Four F32 elements that are BF16, each above 16 zero bits. */
static __device__ __forceinline__ uint4 join_f32_of_bf16(uint32_t symbols, uint32_t plane)
{
    const uint2 upper = join_bf16(symbols, plane);
    return make_uint4(upper.x << 16, upper.x & 0xFFFF0000, upper.y << 16, upper.y & 0xFFFF0000);
}

/* The value of the symbol in byte `k` of a word, from the start of the block's shared memory. */
static __device__ __forceinline__ uint32_t look_up_value(uint32_t symbols, unsigned k)
{
    extern __shared__ __align__(2048) uint8_t shared_memory[];
    return load_shared(shared_address(shared_memory) + 4 * (symbols >> 8 * k & 0xFF));
}

static __device__ __forceinline__ uint2 join_palette16(uint32_t symbols)
{
    return make_uint2(look_up_value(symbols, 0) | look_up_value(symbols, 1) << 16,
                      look_up_value(symbols, 2) | look_up_value(symbols, 3) << 16);
}

static __device__ __forceinline__ uint4 join_palette32(uint32_t symbols)
{
    return make_uint4(look_up_value(symbols, 0), look_up_value(symbols, 1), look_up_value(symbols, 2), look_up_value(symbols, 3));
}

/* Raw bytes. The rest of their 128-byte line is wanted in the next rounds: it may come to the L2 cache now. */
static __device__ __forceinline__ uint2 load_eight(const uint8_t *plane)
{
    uint2 value;
    asm volatile("ld.global.nc.L2::128B.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(plane));
    return value;
}

static __device__ __forceinline__ uint32_t load_four(const uint8_t *plane)
{
    uint32_t value;
    asm volatile("ld.global.nc.L2::128B.u32 %0, [%1];" : "=r"(value) : "l"(plane));
    return value;
}

/* How the lanes of a warp share the elements of a round: 16 bytes of output each, COLUMNS lanes side by side in a row, a row
 * per half segment; ROWS rows in each of STEPS steps. */
template <gpu_element ELEMENT, unsigned ROUND>
struct gpu_shape {
    static constexpr bool WIDE = ELEMENT == GPU_ELEMENT_F32 || ELEMENT == GPU_ELEMENT_F32_OF_BF16 ||
                                 ELEMENT == GPU_ELEMENT_PALETTE32 || ELEMENT == GPU_ELEMENT_SCALED32;
    static constexpr bool HAS_PALETTE = ELEMENT >= GPU_ELEMENT_PALETTE16, HAS_SCALES = ELEMENT >= GPU_ELEMENT_SCALED16;
    static constexpr uint32_t VALUES = HAS_PALETTE ? 256 : 0;
    static constexpr uint32_t BYTES = WIDE ? 4 : 2, SYMBOLS = 16 / BYTES, COLUMNS = ROUND / SYMBOLS, ROWS = 32 / COLUMNS,
                              STEPS = 32 / ROWS,
                              PLANES = HAS_PALETTE                  ? 0
                                       : ELEMENT == GPU_ELEMENT_F32 ? 3
                                                                    : 1,
                              PLANE_WORDS = PLANES ? PLANES * SYMBOLS / 4 : 1, /* that a lane loads in a step; or a scale */
        BATCH = PLANES > 1 ? 4 : 8;                                            /* steps whose planes are loaded together */

    /* Which of the warp's 32 rows: of row `r` of a step those bits that keep the lanes out of each other's banks, of the step
     * the others. row_of(r) ^ row_of_step(g) is the row. */
    static constexpr uint32_t SPREAD = ROUND / 16; /* 8, or 4 where a row's words leave another bank bit free */
    static __device__ __forceinline__ uint32_t row_of(uint32_t r)
    {
        return r * SPREAD;
    }
    static __device__ __forceinline__ constexpr uint32_t row_of_step(uint32_t g)
    {
        return ROWS == 1 ? g : g % SPREAD + g / SPREAD * (SPREAD * ROWS);
    }
};

/* Where a lane joins. */
template <gpu_element ELEMENT, unsigned ROUND>
struct gpu_place {
    const uint8_t *plane;   /* first byte of a round, in row 0 of the steps */
    uint8_t *out;           /* the same of the output */
    uint32_t element_count; /* distance of planes */
    int32_t left;           /* elements of the chunk from there on */
    uint32_t stride;        /* elements from row to row */
    uint32_t ring;          /* address of the warp's symbols */
    uint32_t offset;        /* of the first ones that are joined */
    struct gpu_scales scales;
};

template <gpu_element ELEMENT, unsigned ROUND, unsigned HALF_LOG2, unsigned THREADS>
static __device__ __forceinline__ gpu_place<ELEMENT, ROUND> place_lane(const struct gpu_work &chunk, uint32_t ring, uint32_t tile)
{
    typedef gpu_shape<ELEMENT, ROUND> shape;
    const uint32_t half_log2 = HALF_LOG2 ? HALF_LOG2 : chunk.layout.segment_log2 - 1u, segments = THREADS / 2;
    const bool mirrored = threadIdx.x >= segments;
    const uint32_t warp_segment = tile + (threadIdx.x & ~31u) - (mirrored ? segments : 0);
    const uint32_t row = shape::row_of(threadIdx.x % 32 / shape::COLUMNS);
    const uint32_t column = threadIdx.x % shape::COLUMNS * shape::SYMBOLS;
    const uint32_t first = ((2 * (warp_segment + row) + mirrored) << half_log2) + column;
    return {chunk.planes + first,
            chunk.out + (size_t)shape::BYTES * first,
            chunk.element_count,
            (int32_t)(chunk.element_count - first),
            2u << half_log2,
            ring,
            ring_offset<ROUND>(row, 8 * column),
            chunk.scales};
}

/* The planes, or scales, of BATCH steps from step `g` on. */
template <gpu_element ELEMENT, unsigned ROUND>
static __device__ __forceinline__ void
load_planes(const gpu_place<ELEMENT, ROUND> &place, uint32_t stride, unsigned g,
            uint32_t planes[gpu_shape<ELEMENT, ROUND>::BATCH][gpu_shape<ELEMENT, ROUND>::PLANE_WORDS])
{
    typedef gpu_shape<ELEMENT, ROUND> shape;
#pragma unroll
    for (unsigned k = 0; k < shape::BATCH && (shape::PLANES > 0 || shape::HAS_SCALES); k++) {
        const uint32_t ahead = shape::row_of_step(g + k) * stride;
        if ((int32_t)ahead >= place.left) continue;
        const uint8_t *from = place.plane + ahead;
        if (shape::HAS_SCALES) {
            planes[k][0] = load_scale(place.scales, place.element_count - (uint32_t)place.left + ahead);
        } else if (shape::WIDE) {
#pragma unroll
            for (unsigned p = 0; p + 1 <= shape::PLANES; p++) planes[k][p] = load_four(from + (size_t)p * place.element_count);
        } else {
            const uint2 eight = load_eight(from);
            planes[k][0] = eight.x, planes[k][1] = eight.y;
        }
    }
}

/* Asks for the planes to come to the L2 cache while symbols are decoded. Not where they are several: those of all blocks that
 * run at once would not fit. */
template <unsigned THREADS>
static __device__ __forceinline__ void prefetch_planes(const struct gpu_work &chunk)
{
    for (uint32_t line = 128 * threadIdx.x; line < chunk.plane_bytes; line += 128 * THREADS)
        asm volatile("prefetch.global.L2 [%0];" : : "l"(chunk.stored + line));
}

/* 16 bytes of output of step `g`. */
template <gpu_element ELEMENT, unsigned ROUND>
static __device__ __forceinline__ uint4 join_step(const gpu_place<ELEMENT, ROUND> &place, unsigned g,
                                                  const uint32_t planes[gpu_shape<ELEMENT, ROUND>::PLANE_WORDS])
{
    const uint32_t row = gpu_shape<ELEMENT, ROUND>::row_of_step(g), far = (row >> 3) * (8 * ROUND);
    const uint32_t offset = place.offset ^ ring_offset<ROUND>(row, 0) ^ far; /* what a XOR changes lies below bit 9 */
    const uint32_t symbols = load_shared(place.ring + offset + far);
    if (ELEMENT == GPU_ELEMENT_F32) return join_f32(symbols, planes);
    if (ELEMENT == GPU_ELEMENT_F32_OF_BF16) return join_f32_of_bf16(symbols, planes[0]);
    if (ELEMENT == GPU_ELEMENT_PALETTE32) return join_palette32(symbols);
    if (ELEMENT == GPU_ELEMENT_SCALED32) return multiply32(join_palette32(symbols), scale_of_bits(place.scales, planes[0]));
    const uint32_t more =
        load_shared(place.ring + (offset ^ 32) + far); /* the next word: words of 8 symbols start at even ones */
    const uint2 a = gpu_shape<ELEMENT, ROUND>::HAS_PALETTE ? join_palette16(symbols)
                    : ELEMENT == GPU_ELEMENT_BF16          ? join_bf16(symbols, planes[0])
                                                           : join_f16(symbols, planes[0]);
    const uint2 b = gpu_shape<ELEMENT, ROUND>::HAS_PALETTE ? join_palette16(more)
                    : ELEMENT == GPU_ELEMENT_BF16          ? join_bf16(more, planes[1])
                                                           : join_f16(more, planes[1]);
    const uint4 joined = make_uint4(a.x, a.y, b.x, b.y);
    if (ELEMENT != GPU_ELEMENT_SCALED16) return joined;
    return multiply16(place.scales.type, joined, scale_of_bits(place.scales, planes[0]));
}

/* Joins and stores a round of a warp; `planes` holds the raw bits of its first batch of steps. */
template <gpu_element ELEMENT, unsigned ROUND>
static __device__ __forceinline__ void
join_round(const gpu_place<ELEMENT, ROUND> &place, uint32_t stride,
           uint32_t planes[gpu_shape<ELEMENT, ROUND>::BATCH][gpu_shape<ELEMENT, ROUND>::PLANE_WORDS])
{
    typedef gpu_shape<ELEMENT, ROUND> shape;
#pragma unroll
    for (unsigned g = 0; g < shape::STEPS; g++) {
        if (g > 0 && g % shape::BATCH == 0) load_planes<ELEMENT, ROUND>(place, stride, g, planes);
        const uint4 elements = join_step<ELEMENT, ROUND>(place, g, planes[g % shape::BATCH]);
        const uint32_t ahead = shape::row_of_step(g) * stride;
        if ((int32_t)ahead < place.left) __stcs((uint4 *)(place.out + shape::BYTES * (size_t)ahead), elements);
    }
}

/* All rounds of a warp's 32 half segments; `planes` holds the raw bits of the first batch. Returns where this lane's ends. The
 * directions part only for the symbols: a join for each would be too much code for the instruction cache. */
template <gpu_element ELEMENT, unsigned ROUND, unsigned HALF_LOG2>
static __device__ __forceinline__ uint32_t decode_warp(
    const gpu_words<true> &words, const struct gpu_table &table, gpu_place<ELEMENT, ROUND> place, const struct gpu_half &half,
    uint32_t per_half, bool mirrored, uint32_t planes[gpu_shape<ELEMENT, ROUND>::BATCH][gpu_shape<ELEMENT, ROUND>::PLANE_WORDS])
{
    const gpu_reader<true, false> forwards = {words};
    const gpu_reader<true, true> backwards = {words};
    const uint32_t stride = HALF_LOG2 ? 2u << HALF_LOG2 : place.stride, entries = shared_address(table.entries);
    struct gpu_lane lane =
        mirrored ? start_lane<ROUND>(backwards, place.ring, half.start) : start_lane<ROUND>(forwards, place.ring, half.start);
#pragma unroll 1
    for (uint32_t round = ROUND;; round += ROUND) {
        const uint32_t wanted = min(round, half.symbol_count);
        if (mirrored) decode_until<ROUND>(backwards, entries, wanted, lane);
        else decode_until<ROUND>(forwards, entries, wanted, lane);
        __syncwarp();
        join_round<ELEMENT, ROUND>(place, stride, planes);
        if (round >= per_half) break;
        __syncwarp();
        place.plane += ROUND, place.out += ROUND * gpu_shape<ELEMENT, ROUND>::BYTES, place.left -= ROUND;
        load_planes<ELEMENT, ROUND>(place, stride, 0, planes);
    }
    return mirrored ? end_of_lane(backwards, table.length, lane, half.symbol_count)
                    : end_of_lane(forwards, table.length, lane, half.symbol_count);
}

/* A chunk, or a part of one, by all threads of a block: a number of elements that is a multiple of 8 and in segments of 2 * ROUND
 * or more. HALF_LOG2 is that of half a segment where it is known, else 0. Returns whether a thread's share of it decodes. */
template <gpu_element ELEMENT, unsigned ROUND, unsigned HALF_LOG2, unsigned THREADS>
static __device__ __forceinline__ bool decode_part_fast(gpu_shared<THREADS, ROUND, gpu_shape<ELEMENT, ROUND>::VALUES> &shared,
                                                        const struct gpu_work &chunk, const struct gpu_table *d_tables,
                                                        uint32_t *d_status)
{
    if (!has_head(chunk)) {
        if (threadIdx.x == 0) report(d_status, chunk, GPU_BAD_HEADER);
        return false;
    }
    if (gpu_shape<ELEMENT, ROUND>::PLANES == 1) prefetch_planes<THREADS>(chunk);
    if (gpu_shape<ELEMENT, ROUND>::HAS_PALETTE) copy_palette(palette_of(chunk, d_tables), (uint32_t *)&shared);
    copy_pieces(&d_tables[chunk.table], &shared.table, sizeof shared.table / 16);
    copy_pieces(chunk.stored + plane_boundary(chunk), shared.words, (chunk.stored_bytes - plane_boundary(chunk) + 15) / 16);
    __pipeline_commit();
    const uint32_t ring = shared_address(shared.ring[threadIdx.x / 32]);
    uint32_t planes[gpu_shape<ELEMENT, ROUND>::BATCH][gpu_shape<ELEMENT, ROUND>::PLANE_WORDS];
    gpu_place<ELEMENT, ROUND> place = place_lane<ELEMENT, ROUND, HALF_LOG2, THREADS>(chunk, ring, 0);
    const uint32_t stride = HALF_LOG2 ? 2u << HALF_LOG2 : place.stride;
    load_planes<ELEMENT, ROUND>(place, stride, 0, planes);
    __pipeline_wait_prior(0);
    __syncthreads();

    const uint32_t per_half = HALF_LOG2 ? 1u << HALF_LOG2 : 1u << (chunk.layout.segment_log2 - 1);
    const uint32_t segment_count = (chunk.element_count + 2 * per_half - 1) / (2 * per_half);
    const gpu_words<true> words = {nullptr, shared_address(shared.words), (chunk.stored_bytes - plane_boundary(chunk) + 3) / 4};
    const struct gpu_head head = read_head(words, chunk, segment_count);
    if (!head.good) {
        if (threadIdx.x == 0) report(d_status, chunk, GPU_BAD_HEADER);
        return false;
    }
    bool good = true;
    uint32_t tile_start = head.stream_bit;
    for (uint32_t tile = 0; tile < segment_count; tile += THREADS / 2) {
        if (tile > 0) {
            place = place_lane<ELEMENT, ROUND, HALF_LOG2, THREADS>(chunk, ring, tile);
            load_planes<ELEMENT, ROUND>(place, stride, 0, planes);
        }
        const struct gpu_half half = find_half<THREADS>(words, head, shared.warp_bits, chunk, tile, segment_count, &tile_start);
        const uint32_t end = decode_warp<ELEMENT, ROUND, HALF_LOG2>(words, shared.table, place, half, per_half,
                                                                    threadIdx.x >= THREADS / 2, planes);
        const bool meets = halves_meet<THREADS>(shared.meeting, end, words.count);
        if (half.segment >= segment_count || (half.good && meets)) continue;
        report(d_status, chunk, GPU_BAD_SEGMENT);
        good = false;
    }
    return good;
}

/* One chunk per block. */
template <gpu_element ELEMENT, unsigned ROUND, unsigned HALF_LOG2, unsigned THREADS>
static __global__ void __launch_bounds__(THREADS, FLOAT_BLOCKS_PER_SM *FLOAT_THREADS / THREADS)
    kernel_decode_fast(const struct gpu_chunk *d_chunks, struct gpu_bases bases, const struct gpu_table *d_tables,
                       uint32_t *d_status)
{
    extern __shared__ __align__(2048) uint8_t shared_memory[];
    typedef gpu_shared<THREADS, ROUND, gpu_shape<ELEMENT, ROUND>::VALUES> shared_type;
    struct gpu_work chunk(d_chunks[blockIdx.x], bases);
    if (gpu_shape<ELEMENT, ROUND>::HAS_SCALES && !open_scaled(chunk, d_status)) return;
    decode_part_fast<ELEMENT, ROUND, HALF_LOG2>(*(shared_type *)shared_memory, chunk, d_tables, d_status);
}

/* ----------------------------------------------------------------------------------------------------------------- copies */

/* A piece per block, whatever its alignment; vectors where both sides allow. */
static __global__ void __launch_bounds__(FLOAT_THREADS)
    kernel_copy(const struct gpu_chunk *d_chunks, struct gpu_bases bases, const struct gpu_table *, uint32_t *)
{
    const struct gpu_work piece(d_chunks[blockIdx.x], bases);
    const uint32_t whole = (uintptr_t)piece.out % 16 == 0 && (uintptr_t)piece.stored % 16 == 0 ? piece.stored_bytes / 16 : 0;
    for (uint32_t i = threadIdx.x; i < whole; i += blockDim.x) ((uint4 *)piece.out)[i] = ((const uint4 *)piece.stored)[i];
    for (uint32_t i = 16 * whole + threadIdx.x; i < piece.stored_bytes; i += blockDim.x) piece.out[i] = piece.stored[i];
}

/* ----------------------------------------------------------------------------------------------------------- any layout */

/* How elements come from symbols and raw bits: as the layout says; from a palette; from one and scales. */
enum gpu_join { GPU_JOIN_LAYOUT, GPU_JOIN_PALETTE, GPU_JOIN_SCALES };

/* Element `index` from its symbol and its raw bits, byte by byte: any layout, any alignment. */
template <gpu_join JOIN>
static __device__ __forceinline__ void join_any(const struct gpu_work &chunk, const uint64_t *palette, uint32_t index,
                                                uint8_t symbol)
{
    const struct cllm_layout &layout = chunk.layout;
    const unsigned bits = cllm_layout_remainder_bits(&layout), planes = bits / 8, rest = bits % 8;
    if (gpu_rotates(&layout)) symbol = (uint8_t)(symbol << 1 | symbol >> 7);
    uint64_t remainder = 0;
    for (unsigned p = 0; p < planes; p++) remainder |= (uint64_t)chunk.planes[(size_t)p * chunk.element_count + index] << 8 * p;
    if (rest) {
        const uint8_t *packed = chunk.planes + (size_t)planes * chunk.element_count;
        remainder |= (uint64_t)cllm_bits_at(packed, (uint64_t)index * rest, rest) << 8 * planes;
    }
    uint64_t element = JOIN == GPU_JOIN_LAYOUT ? cllm_element_join(&layout, symbol, remainder) : palette[symbol];
    if (JOIN == GPU_JOIN_SCALES) {
        const float scale = scale_of_bits(chunk.scales, load_scale(chunk.scales, index));
        element = cllm_scaled_element(chunk.scales.type, (uint32_t)element, scale);
    }
    uint8_t *out = chunk.out + (size_t)index * layout.element_bytes;
    switch ((uintptr_t)chunk.out % layout.element_bytes ? 0 : layout.element_bytes) {
    case 2: *(uint16_t *)out = (uint16_t)element; break;
    case 4: *(uint32_t *)out = (uint32_t)element; break;
    case 8: *(uint64_t *)out = element; break;
    default:
        for (unsigned b = 0; b < layout.element_bytes; b++) out[b] = (uint8_t)(element >> 8 * b);
    }
}

/* What becomes of the symbols of a part in float form: elements of the output. */
template <gpu_join JOIN>
struct gpu_to_elements {
    const struct gpu_work &part;
    const uint64_t *palette;

    __device__ __forceinline__ void operator()(uint32_t index, uint8_t symbol) const
    {
        join_any<JOIN>(part, palette, index, symbol);
    }
};

/* The same: bytes, as they are. */
struct gpu_to_bytes {
    uint8_t *bytes;

    __device__ __forceinline__ void operator()(uint32_t index, uint8_t symbol) const
    {
        bytes[index] = symbol;
    }
};

/* As decode_warp, for any layout: of one half segment after the other, an element a thread: neighbours store side by side. */
template <bool MIRRORED, typename SINK>
static __device__ uint32_t decode_warp_any(const gpu_words<false> &words, const struct gpu_work &part,
                                           const struct gpu_table &table, const SINK &sink, const uint8_t *ring,
                                           const struct gpu_half &half)
{
    const gpu_reader<false, MIRRORED> reader = {words};
    const uint32_t per_half = 1u << (part.layout.segment_log2 - 1), lane_index = threadIdx.x % 32;
    const uint32_t wanted = (half.symbol_count + 3) & ~3u; /* whole words of the ring */
    const uint64_t before = 2 * (uint64_t)(half.segment - lane_index) * per_half;
    if (before >= part.element_count) return 0; /* no lane has a segment */
    const uint32_t rows = (uint32_t)min((uint64_t)32, (part.element_count - before + 2 * per_half - 1) / (2 * per_half));
    struct gpu_lane lane = start_lane<SMALL_ROUND>(reader, shared_address(ring), half.start);
    for (uint32_t round = 0; round < per_half; round += SMALL_ROUND) {
        decode_until<SMALL_ROUND>(reader, shared_address(table.entries), min(round + SMALL_ROUND, wanted), lane);
        __syncwarp();
        for (uint32_t k = lane_index; k < rows * SMALL_ROUND; k += 32) {
            const uint32_t from = k / SMALL_ROUND, symbol_index = round + k % SMALL_ROUND;
            const uint64_t segment = half.segment - lane_index + from;
            const uint64_t index = (2 * segment + MIRRORED) * per_half + symbol_index;
            const uint8_t symbol = ring[ring_offset<SMALL_ROUND>(from, 8 * symbol_index) + symbol_index % 4];
            if (symbol_index < per_half && index < part.element_count) sink((uint32_t)index, symbol);
        }
        __syncwarp();
    }
    return end_of_lane(reader, table.length, lane, half.symbol_count);
}

typedef gpu_shared<FLOAT_THREADS, SMALL_ROUND> gpu_shared_any;

/* A part of a chunk in float form by all threads of a block, 128 segments at a time; code words are read where they lie. Returns
 * to all whether it decodes; then all of it is there for all. */
template <typename SINK>
static __device__ bool decode_part_any(gpu_shared_any &shared, const struct gpu_work &part, const struct gpu_table *d_table,
                                       const SINK &sink, uint32_t *d_status)
{
    if (!has_head(part)) {
        if (threadIdx.x == 0) report(d_status, part, GPU_BAD_HEADER);
        return false;
    }
    copy_pieces(d_table, &shared.table, sizeof shared.table / 16);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();

    const uint64_t per_segment = 1u << part.layout.segment_log2;
    const uint32_t segment_count = (uint32_t)((part.element_count + per_segment - 1) / per_segment);
    const uint32_t *global = (const uint32_t *)(part.stored + plane_boundary(part));
    const gpu_words<false> words = {global, 0, (part.stored_bytes - plane_boundary(part) + 3) / 4};
    const struct gpu_head head = read_head(words, part, segment_count);
    if (!head.good) {
        if (threadIdx.x == 0) report(d_status, part, GPU_BAD_HEADER);
        return false;
    }
    bool good = true;
    uint32_t tile_start = head.stream_bit;
    for (uint32_t tile = 0; tile < segment_count; tile += FLOAT_THREADS / 2) {
        const struct gpu_half half =
            find_half<FLOAT_THREADS>(words, head, shared.warp_bits, part, tile, segment_count, &tile_start);
        const uint8_t *ring = shared.ring[threadIdx.x / 32];
        const uint32_t end = threadIdx.x < FLOAT_THREADS / 2 ? decode_warp_any<false>(words, part, shared.table, sink, ring, half)
                                                             : decode_warp_any<true>(words, part, shared.table, sink, ring, half);
        const bool meets = halves_meet<FLOAT_THREADS>(shared.meeting, end, words.count);
        if (half.segment < segment_count && !(half.good && meets)) good = false;
    }
    if (!good) report(d_status, part, GPU_BAD_SEGMENT);
    return __syncthreads_and(good);
}

/* One chunk per block. */
template <gpu_join JOIN>
static __global__ void __launch_bounds__(FLOAT_THREADS, FLOAT_BLOCKS_PER_SM)
    kernel_decode_any(const struct gpu_chunk *d_chunks, struct gpu_bases bases, const struct gpu_table *d_tables,
                      uint32_t *d_status)
{
    extern __shared__ __align__(2048) uint8_t shared_memory[];
    struct gpu_work chunk(d_chunks[blockIdx.x], bases);
    if (JOIN == GPU_JOIN_SCALES && !open_scaled(chunk, d_status)) return;
    const gpu_to_elements<JOIN> sink = {chunk, palette_of(chunk, d_tables)};
    decode_part_any(*(gpu_shared_any *)shared_memory, chunk, &d_tables[chunk.table], sink, d_status);
}

#endif

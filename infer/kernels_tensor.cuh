/* kernels_tensor.cuh - products of a prompt on Hopper's tensor cores, weights as they lie in memory: BF16 or packed.
 *
 * A block has 128 rows of weights by TOKENS positions of the input. Its two warpgroups have 64 rows each: every thread copies
 * what it needs of its warp's rows into shared memory, some chunks ahead, and makes fragments of that in registers, where the
 * packed form is decoded. The input comes through a ring of stages in shared memory, filled by the copy engine; the two blocks of
 * a cluster have other rows of the same positions, and share what they copy. Raw and packed weights go through the same products
 * in the same order, so results are the same bits.
 *
 * PTX ISA: "Asynchronous Warpgroup Level Matrix Multiply-Accumulate", cp.async, cp.async.bulk, mbarrier, setmaxnreg.
 */
#ifndef CLLM_KERNELS_TENSOR_CUH
#define CLLM_KERNELS_TENSOR_CUH

#include "kernels_device.cuh"
#include "pack12_device.cuh"
#include "tensor_gpu.cuh"

enum {
    TENSOR_GROUP = 128, /* threads of a warpgroup */
    TENSOR_GROUP_WARPS = TENSOR_GROUP / WARP,
    TENSOR_BLOCK_ROWS = 128, /* of two warpgroups */
    TENSOR_CLUSTER = 2,      /* blocks */
    TENSOR_TILE_CHUNKS = PACK12_COLUMNS / TENSOR_CHUNK,
    TENSOR_THREADS = 3 * TENSOR_GROUP,
    TENSOR_ALIGNMENT = 1024, /* of stages */
    TENSOR_GROUP_ROWS = TENSOR_BLOCK_ROWS / 2,
    TENSOR_SUM_STRIDE = TENSOR_GROUP_ROWS + 4,                       /* words; so that lanes write to different banks */
    TENSOR_SUM_POSITIONS = 32,                                       /* whose sums are exchanged between lanes at a time */
    TENSOR_SUM_BYTES = TENSOR_SUM_POSITIONS * TENSOR_SUM_STRIDE * 4, /* of a warpgroup */
    TENSOR_PIECE_BYTES = 2 * TENSOR_GROUP * 16,                      /* 16 bytes of each thread that multiplies */
    TENSOR_SLOT_BYTES = 4 * TENSOR_PIECE_BYTES                       /* of weights: a chunk */
};

/* One matrix of several that have the same input. */
struct tensor_part {
    const uint8_t *weights; /* null: its tiles are left out */
    const uint32_t *patches;
    uint64_t window; /* 0 if not packed */
    float *output;   /* [position][row] */
    uint32_t row_count;
    uint32_t tile_end; /* sum of the row tiles of this part and those before it; a row tile is what a cluster takes */
};

/* A tile of the output is a row tile by TOKENS positions. The first whole_count tiles are each computed by one cluster. Each of
 * the others takes two clusters: both blocks of a cluster have the same rows there, half of the columns each. */
struct tensor_args {
    struct tensor_part parts[TENSOR_PARTS];
    const uint8_t *input; /* BF16 in the order of tensor_input_offset */
    uint32_t column_count;
    uint32_t token_count;
    uint32_t token_stride; /* that the input has room for */
    uint32_t token_tiles;
    uint32_t whole_count, tile_count;
    bool adds; /* to the output */
};

/* ------------------------------------------------------------------------------------------------------ instructions */

/* The compiler keeps the value in a register instead of finding it again each time. */
static __device__ __forceinline__ uint32_t keep(uint32_t value)
{
    asm volatile("" : "+r"(value));
    return value;
}

static __device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

static __device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

static __device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* On the same barrier of block `rank` of the cluster. */
static __device__ __forceinline__ void barrier_arrive(uint32_t barrier, uint32_t rank)
{
    asm volatile("{\n"
                 ".reg .b32 remote;\n"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
                 "}" ::"r"(barrier),
                 "r"(rank)
                 : "memory");
}

/* In this block, for all blocks of the cluster. */
static __device__ __forceinline__ void barrier_arrive_for_all(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "n"((int)TENSOR_CLUSTER) : "memory");
}

static __device__ __forceinline__ void cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

static __device__ __forceinline__ uint32_t cluster_rank(void)
{
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* To the place `to` of the shared memory of block `rank`. */
static __device__ __forceinline__ void store_remote(uint32_t to, uint32_t rank, float4 value)
{
    asm volatile("{\n"
                 ".reg .b32 remote;\n"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n"
                 "st.shared::cluster.v4.f32 [remote], {%2, %3, %4, %5};\n"
                 "}" ::"r"(to),
                 "r"(rank), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
                 : "memory");
}

/* To the same place, and on the same barrier, of every block in `mask`. */
static __device__ __forceinline__ void copy_to_all(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier, uint16_t mask)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
            to),
        "l"(from), "r"(bytes), "r"(barrier), "h"(mask)
        : "memory");
}

static __device__ __forceinline__ void copy_to_one(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(barrier)
                 : "memory");
}

static __device__ __forceinline__ void mma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void mma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int LEFT>
static __device__ __forceinline__ void mma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* sums = (keeps ? sums : 0) + 64 rows of 16 weights * TOKENS positions of them; `input` describes the latter. */
template <int TOKENS>
struct tensor_mma;

#define TENS(p) "%" p "0, %" p "1, %" p "2, %" p "3, %" p "4, %" p "5, %" p "6, %" p "7, %" p "8, %" p "9, "
#define BELOW_60 TENS("") TENS("1") TENS("2") TENS("3") TENS("4") TENS("5")
#define BELOW_120 BELOW_60 TENS("6") TENS("7") TENS("8") TENS("9") TENS("10") TENS("11")
#define SUMS_4(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 4), SUMS_4(i + 8), SUMS_4(i + 12)
#define SUMS_64(i) SUMS_16(i), SUMS_16(i + 16), SUMS_16(i + 32), SUMS_16(i + 48)
#define DEFINE_MMA(tokens, results, a0, a1, a2, a3, description, kept, ...)                                                      \
    template <>                                                                                                                  \
    struct tensor_mma<tokens> {                                                                                                  \
        static __device__ __forceinline__ void run(float (&sums)[tokens / 2], const uint32_t (&weights)[4], uint64_t input,      \
                                                   uint32_t keeps)                                                               \
        {                                                                                                                        \
            asm volatile("{\n.reg .pred kept;\nsetp.ne.b32 kept, " kept ", 0;\n"                                                 \
                         "wgmma.mma_async.sync.aligned.m64n" #tokens "k16.f32.bf16.bf16 {" results "}, {" a0 ", " a1 ", " a2     \
                         ", " a3 "}, " description ", kept, 1, 1, 0;\n}"                                                         \
                         : __VA_ARGS__                                                                                           \
                         : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "l"(input), "r"(keeps));          \
        }                                                                                                                        \
    };

DEFINE_MMA(32, TENS("") "%10, %11, %12, %13, %14, %15", "%16", "%17", "%18", "%19", "%20", "%21", SUMS_16(0))
DEFINE_MMA(64, TENS("") TENS("1") TENS("2") "%30, %31", "%32", "%33", "%34", "%35", "%36", "%37", SUMS_16(0), SUMS_16(16))
DEFINE_MMA(128, BELOW_60 "%60, %61, %62, %63", "%64", "%65", "%66", "%67", "%68", "%69", SUMS_64(0))
DEFINE_MMA(256, BELOW_120 "%120, %121, %122, %123, %124, %125, %126, %127", "%128", "%129", "%130", "%131", "%132", "%133",
           SUMS_64(0), SUMS_64(64))

/* Rows of 128 bytes, swizzled, eight of them 1,024 bytes from the next eight; advanced by 32 bytes for each 16 columns. */
static __device__ __forceinline__ uint64_t describe_input(uint32_t address)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (address & 0x3FFFF) >> 4;
}

/* ----------------------------------------------------------------------------------------------------------- weights */

/* What a thread needs of 64 columns of its warp's band. It copies that into shared memory itself, several chunks ahead, and is
 * the only one that reads it. */
struct tensor_chunk {
    uint4 pieces[4];
};

/* Asynchronous. */
static __device__ __forceinline__ void copy_piece(uint32_t slot, int piece, const uint8_t *from)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(slot + piece * TENSOR_PIECE_BYTES), "l"(from)
                 : "memory");
}

static __device__ __forceinline__ uint4 read_piece(uint32_t slot, int piece)
{
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(slot + piece * TENSOR_PIECE_BYTES)
                 : "memory");
    return value;
}

static __device__ __forceinline__ void copy_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int LEFT>
static __device__ __forceinline__ void copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* Both forms: copy starts the copies of a chunk, counted from the start of the tile at hand; make gives the two fragments of a
 * step, 32 columns. */
struct bf16_weights {
    const uint8_t *at;
    uint64_t half; /* bytes of 8 rows */
    /* 0, which the compiler does not know: fragments must be computed from what was loaded, or it would move that where they lie
     * while the tensor cores still read, and so waits for these */
    uint32_t nothing;

    __device__ __forceinline__ void open(const struct tensor_part &part, uint32_t column_count, uint32_t band, uint32_t tile)
    {
        const uint32_t lane = threadIdx.x % WARP;
        half = (uint64_t)column_count * 16;
        nothing = (uint32_t)part.window;
        at = part.weights + ((uint64_t)(band * PACK12_ROWS + lane / 4) * column_count + tile * PACK12_COLUMNS + lane % 4 * 8) * 2;
    }

    __device__ __forceinline__ void copy(uint32_t slot, int number) const
    {
        const uint8_t *from = at + number * (TENSOR_CHUNK * 2);
        for (int i = 0; i < 4; i++) copy_piece(slot, i, from + i / 2 * 64 + (i % 2 ? half : 0));
    }

    __device__ __forceinline__ void read(struct tensor_chunk *chunk, uint32_t slot, int) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++) chunk->pieces[i] = read_piece(slot, i);
    }

    __device__ __forceinline__ void begin(const struct tensor_chunk &)
    {
    }

    __device__ __forceinline__ void make(const struct tensor_chunk &chunk, int, int step, uint32_t (&fragments)[2][4]) const
    {
        const uint4 low = chunk.pieces[step * 2], high = chunk.pieces[step * 2 + 1];
        const uint32_t words[8] = {low.x, high.x, low.y, high.y, low.z, high.z, low.w, high.w};
#pragma unroll
        for (int i = 0; i < 8; i++)
            asm volatile("or.b32 %0, %1, %2;" : "=r"(fragments[i / 4][i % 4]) : "r"(words[i]), "r"(nothing));
    }

    __device__ __forceinline__ void advance()
    {
        at += PACK12_COLUMNS * 2;
    }
};

struct packed_weights {
    const uint8_t *tile;
    const uint32_t *patches;
    uint64_t window;
    uint32_t patch_count, first_patch; /* of the tile at hand */
    uint32_t patch;                    /* one of its first 32, or one that fits no step */
    uint32_t patched_steps;            /* a bit each */
    uint32_t lane;

    __device__ __forceinline__ void open(const struct tensor_part &part, uint32_t column_count, uint32_t band,
                                         uint32_t first_tile)
    {
        lane = keep(threadIdx.x % WARP);
        tile = part.weights + ((uint64_t)band * (column_count / PACK12_COLUMNS) + first_tile) * PACK12_TILE_BYTES;
        patches = part.patches;
        window = part.window;
    }

    /* The pieces: low bytes of both steps, code words, head. */
    __device__ __forceinline__ void copy(uint32_t slot, int number) const
    {
        const uint8_t *from = tile + number / TENSOR_TILE_CHUNKS * PACK12_TILE_BYTES;
        const int in_tile = number % TENSOR_TILE_CHUNKS;
        for (int i = 0; i < 2; i++) copy_piece(slot, i, from + 16 + in_tile * 1024 + i * 512 + lane * 16);
        copy_piece(slot, 2, from + 16 + 4096 + in_tile * 512 + lane * 16);
        if (in_tile == 0) copy_piece(slot, 3, from);
    }

    __device__ __forceinline__ void read(struct tensor_chunk *chunk, uint32_t slot, int in_tile) const
    {
#pragma unroll
        for (int i = 0; i < 3; i++) chunk->pieces[i] = read_piece(slot, i);
        if (in_tile == 0) chunk->pieces[3] = read_piece(slot, 3);
    }

    __device__ __forceinline__ uint32_t read_patch(uint32_t index) const
    {
        return index < patch_count ? patches[first_patch + index] : ~0u;
    }

    /* Of a tile whose first chunk is at hand. */
    __device__ __forceinline__ void begin(const struct tensor_chunk &chunk)
    {
        const uint4 head = chunk.pieces[3];
        patch_count = head.x;
        first_patch = head.y;
        patched_steps = 0;
        if (!patch_count) return;
        patch = lane == 0 ? head.y : lane == 1 ? head.z : head.w;
        if (lane >= patch_count) patch = ~0u;
        if (patch_count > PACK12_PATCHES) patch = read_patch(lane);
        const uint32_t step = pack12_patch_column(patch) / PACK12_STEP;
        patched_steps = patch_count > WARP ? ~0u : __reduce_or_sync(ALL_LANES, lane < patch_count ? 1u << step : 0);
    }

    /* Words of upper bytes: row / 8 * 2 + column / 4. */
    __device__ __forceinline__ void apply(uint32_t (&uppers)[4], uint32_t word) const
    {
        const uint32_t row = pack12_patch_row(word), column = pack12_patch_column(word), shift = column % 4 * 8;
        const bool is_mine = lane == row % 8 * PACK12_QUAD + column / PACK12_UNIT % PACK12_QUAD;
        const uint32_t index = is_mine ? row / 8 * 2 + column / 4 % 2 : 4;
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            if (i == index) uppers[i] = (uppers[i] & ~(0xFFu << shift)) | (word & 0xFF) << shift;
        }
    }

    __device__ __forceinline__ void apply_patches(uint32_t (&uppers)[4], uint32_t step) const
    {
        uint32_t mine = patch;
        for (uint32_t first = 0; first < patch_count; first += WARP) {
            if (first) mine = read_patch(first + lane);
            const bool fits = mine != ~0u && pack12_patch_column(mine) / PACK12_STEP == step;
            for (uint32_t found = __ballot_sync(ALL_LANES, fits); found; found &= found - 1) {
                apply(uppers, __shfl_sync(ALL_LANES, mine, __ffs(found) - 1));
            }
        }
    }

    __device__ __forceinline__ void make(const struct tensor_chunk &chunk, int number, int step,
                                         uint32_t (&fragments)[2][4]) const
    {
        const uint4 lows = chunk.pieces[step], codes = chunk.pieces[2];
        uint32_t uppers[4];
        unit_uppers(window, step ? codes.z : codes.x, uppers);
        unit_uppers(window, step ? codes.w : codes.y, uppers + 2);
        if (patched_steps >> (number * 2 + step) & 1) apply_patches(uppers, number * 2 + step);
        fragments[0][0] = lower_pair(lows.x, uppers[0]), fragments[0][1] = lower_pair(lows.z, uppers[2]);
        fragments[0][2] = higher_pair(lows.x, uppers[0]), fragments[0][3] = higher_pair(lows.z, uppers[2]);
        fragments[1][0] = lower_pair(lows.y, uppers[1]), fragments[1][1] = lower_pair(lows.w, uppers[3]);
        fragments[1][2] = higher_pair(lows.y, uppers[1]), fragments[1][3] = higher_pair(lows.w, uppers[3]);
    }

    __device__ __forceinline__ void advance()
    {
        tile += PACK12_TILE_BYTES;
    }
};

/* -------------------------------------------------------------------------------------------------------------- work */

/* What a block does at a time. */
struct tensor_work {
    uint32_t part;
    uint32_t first_row, first_token;
    uint32_t first_tile, chunk_count; /* of columns */
    bool is_split;
};

/* The tile of a turn; false after the last. A split one comes last. */
static __device__ __forceinline__ bool find_tile(const struct tensor_args &args, uint32_t turn, uint32_t *tile_out,
                                                 uint32_t *half_out)
{
    const uint32_t cluster = blockIdx.x / TENSOR_CLUSTER, cluster_count = gridDim.x / TENSOR_CLUSTER;
    const uint32_t tile = cluster + turn * cluster_count, beyond = tile - args.whole_count;
    const bool is_split = tile >= args.whole_count;
    *tile_out = is_split ? args.whole_count + beyond / 2 : tile;
    *half_out = is_split ? beyond % 2 : cluster_rank();
    return *tile_out < args.tile_count;
}

/* The next work from turn `turn_io` on, which is moved behind it. */
template <int TOKENS>
static __device__ __forceinline__ bool find_work(const struct tensor_args &args, uint32_t *turn_io, struct tensor_work *work)
{
    uint32_t tile, half, row_tile;
    do {
        if (!find_tile(args, (*turn_io)++, &tile, &half)) return false;
        row_tile = tile / args.token_tiles;
        work->part = 0;
        while (row_tile >= args.parts[work->part].tile_end) work->part++;
    } while (!args.parts[work->part].weights);
    if (work->part) row_tile -= args.parts[work->part - 1].tile_end;
    const uint32_t tile_count = args.column_count / PACK12_COLUMNS, rank = cluster_rank();
    work->is_split = tile >= args.whole_count;
    work->first_row = (row_tile * TENSOR_CLUSTER + half) * TENSOR_BLOCK_ROWS;
    work->first_token = tile % args.token_tiles * TOKENS;
    work->first_tile = work->is_split ? rank * tile_count / 2 : 0;
    const uint32_t end = work->is_split ? (rank + 1) * tile_count / 2 : tile_count;
    work->chunk_count = (end - work->first_tile) * TENSOR_TILE_CHUNKS;
    return true;
}

struct tensor_ring {
    uint32_t stages;      /* address; of the input */
    uint32_t slots;       /* of weights */
    uint32_t sums;        /* on their way out */
    uint32_t full, empty; /* barriers of stages, 8 bytes each */
};

/* A place in the ring of stages. */
template <int STAGES>
struct tensor_place {
    uint32_t stage, parity;
    __device__ __forceinline__ void advance()
    {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

/* One thread. Each block of a cluster copies its share of a stage to all, but with a split tile all of it to itself. */
template <int TOKENS, int STAGES>
static __device__ __forceinline__ void produce(const struct tensor_args &args, const struct tensor_ring &ring)
{
    const uint32_t stage_bytes = TOKENS * TENSOR_CHUNK * 2, share_bytes = stage_bytes / TENSOR_CLUSTER;
    const uint64_t chunk_bytes = (uint64_t)args.token_stride * (TENSOR_CHUNK * 2);
    struct tensor_place<STAGES> place;
    place.stage = place.parity = 0;
    struct tensor_work work;
    for (uint32_t turn = 0; find_work<TOKENS>(args, &turn, &work);) {
        const uint32_t share = work.is_split ? 0 : cluster_rank() * share_bytes;
        const uint8_t *from =
            args.input + work.first_tile * TENSOR_TILE_CHUNKS * chunk_bytes + work.first_token * (TENSOR_CHUNK * 2) + share;
        for (uint32_t chunk = 0; chunk < work.chunk_count; chunk++, place.advance(), from += chunk_bytes) {
            const uint32_t full = ring.full + place.stage * 8, to = ring.stages + place.stage * stage_bytes + share;
            barrier_wait(ring.empty + place.stage * 8, place.parity ^ 1);
            barrier_expect(full, stage_bytes);
            if (work.is_split) copy_to_one(to, from, stage_bytes, full);
            else copy_to_all(to, from, share_bytes, full, (1 << TENSOR_CLUSTER) - 1);
        }
    }
}

/* --------------------------------------------------------------------------------------------------------------- sums */

/* A thread's sums come in fours, of eight positions each: two of these positions, then the same eight rows on. */

/* Adds the sums of both blocks of a split tile, half of them here, the other half there. All threads of the cluster meet. */
template <int TOKENS>
static __device__ __forceinline__ void exchange_sums(const struct tensor_ring &ring, float (&sums)[TOKENS / 2])
{
    const int fours = TOKENS / 8;
    const uint32_t rank = cluster_rank(), place = ring.stages + threadIdx.x * 16;
    cluster_sync(); /* nobody reads the stages any more */
#pragma unroll
    for (int i = 0; i < fours; i++) {
        if (i / (fours / 2) == rank) continue;
        store_remote(place + i % (fours / 2) * TENSOR_PIECE_BYTES, rank ^ 1,
                     make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]));
    }
    cluster_sync();
#pragma unroll
    for (int i = 0; i < fours; i++) {
        if (i / (fours / 2) != rank) continue;
        const uint4 other = read_piece(place, i % (fours / 2));
        sums[4 * i] += __uint_as_float(other.x), sums[4 * i + 1] += __uint_as_float(other.y);
        sums[4 * i + 2] += __uint_as_float(other.z), sums[4 * i + 3] += __uint_as_float(other.w);
    }
}

static __device__ __forceinline__ void group_sync(uint32_t group)
{
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"((int)TENSOR_GROUP) : "memory");
}

/* Adding does not wait for what was there; nobody else adds to it. */
static __device__ __forceinline__ void store_four(float *to, uint4 four, bool adds)
{
    if (adds) {
        asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(__uint_as_float(four.x)),
                     "f"(__uint_as_float(four.y)), "f"(__uint_as_float(four.z)), "f"(__uint_as_float(four.w))
                     : "memory");
    } else {
        *(uint4 *)to = four;
    }
}

/* Through shared memory, so that whole lines are stored: a warpgroup has 64 rows of each position. */
template <int TOKENS>
static __device__ __forceinline__ void store_sums(const struct tensor_args &args, const struct tensor_ring &ring,
                                                  const struct tensor_work &work, const float (&sums)[TOKENS / 2])
{
    const int turn = TOKENS / 2 < TENSOR_SUM_POSITIONS ? TOKENS / 2 : TENSOR_SUM_POSITIONS;
    const struct tensor_part &part = args.parts[work.part];
    const uint32_t group = threadIdx.x / TENSOR_GROUP, thread = threadIdx.x % TENSOR_GROUP, lane = threadIdx.x % WARP;
    const uint32_t from = ring.sums + group * TENSOR_SUM_BYTES;
    const uint32_t to = from + (lane % 4 * 2 * TENSOR_SUM_STRIDE + thread / WARP * PACK12_ROWS + lane / 4) * 4;
    const uint32_t row = work.first_row + group * TENSOR_GROUP_ROWS + thread % 16 * 4;
#pragma unroll
    for (int first = 0; first < TOKENS; first += turn) {
        if (work.is_split && first / (TOKENS / 2) != cluster_rank()) continue;
        group_sync(group); /* what was there has been read */
#pragma unroll
        for (int i = 0; i < turn / 2; i++) {
            const int offset = (i / 4 * 8 + i % 2) * TENSOR_SUM_STRIDE + i % 4 / 2 * 8;
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(to + offset * 4), "f"(sums[first / 2 + i]) : "memory");
        }
        group_sync(group);
#pragma unroll
        for (int i = 0; i < turn; i += TENSOR_GROUP / 16) {
            const uint32_t place = i + thread / 16, token = work.first_token + first + place;
            const uint4 four = read_piece(from + (place * TENSOR_SUM_STRIDE + thread % 16 * 4) * 4, 0);
            if (row < part.row_count && token < args.token_count) {
                store_four(part.output + (uint64_t)token * part.row_count + row, four, args.adds);
            }
        }
    }
}

/* ----------------------------------------------------------------------------------------------------------- product */

/* Two products of a step; `input` describes its first 16 columns. */
template <int TOKENS>
static __device__ __forceinline__ void multiply_step(float (&sums)[TOKENS / 2], const uint32_t (&fragments)[2][4], uint64_t input,
                                                     bool keeps)
{
#pragma unroll
    for (int i = 0; i < 8; i++) asm volatile("" ::"r"(fragments[i / 4][i % 4]) : "memory"); /* made by now */
    mma_fence();
    tensor_mma<TOKENS>::run(sums, fragments[0], input, keeps);
    tensor_mma<TOKENS>::run(sums, fragments[1], input + 2, true);
    mma_commit();
}

/* Slots take turns; each copy has a group of its own, so that the newest DEPTH - 1 are waited for no longer. */
template <class WEIGHTS, int DEPTH>
struct tensor_stream {
    WEIGHTS weights;
    uint32_t slots; /* this thread's part of the first */
    uint32_t slot;

    __device__ __forceinline__ void open(const struct tensor_args &args, const struct tensor_work &work)
    {
        const struct tensor_part &part = args.parts[work.part];
        const uint32_t band = work.first_row / PACK12_ROWS + threadIdx.x / WARP, bands = part.row_count / PACK12_ROWS;
        /* warps beyond the last row work on the last band, and do not store it */
        weights.open(part, args.column_count, band < bands ? band : bands - 1, work.first_tile);
#pragma unroll
        for (int i = 0; i < DEPTH; i++) copy(i, i < work.chunk_count);
    }

    /* Chunk `number`, counted from the tile at hand, into the slot whose turn it is. */
    __device__ __forceinline__ void copy(int number, bool exists)
    {
        if (exists) weights.copy(slots + slot * TENSOR_SLOT_BYTES, number);
        copy_commit();
        slot = slot + 1 == DEPTH ? 0 : slot + 1;
    }

    /* From that slot. */
    __device__ __forceinline__ void read(struct tensor_chunk *chunk, int in_tile)
    {
        copy_wait<DEPTH - 1>();
        weights.read(chunk, slots + slot * TENSOR_SLOT_BYTES, in_tile);
    }
};

template <int STAGES>
static __device__ __forceinline__ void release(const struct tensor_ring &ring, const struct tensor_work &work, uint32_t stage)
{
    const uint32_t lane = threadIdx.x % WARP;
    if (work.is_split && lane == 0) barrier_arrive_for_all(ring.empty + stage * 8);
    if (!work.is_split && lane < TENSOR_CLUSTER) barrier_arrive(ring.empty + stage * 8, lane);
}

/* The sums of one work. When a step's products are started, those before the last step are done: while some run, the fragments of
 * the next are made. */
template <class WEIGHTS, int TOKENS, int STAGES, int DEPTH>
static __device__ __forceinline__ void multiply_work(const struct tensor_ring &ring, const struct tensor_work &work,
                                                     struct tensor_place<STAGES> &place,
                                                     struct tensor_stream<WEIGHTS, DEPTH> &stream, float (&sums)[TOKENS / 2])
{
    struct tensor_chunk at_hand;
    uint32_t done = 0; /* stage */
    stream.read(&at_hand, 0);
    for (uint32_t chunk = 0; chunk < work.chunk_count; stream.weights.advance()) {
        stream.weights.begin(at_hand);
#pragma unroll
        for (int i = 0; i < TENSOR_TILE_CHUNKS; i++, chunk++) {
            uint32_t fragments[2][2][4];
            stream.weights.make(at_hand, i, 0, fragments[0]);
            barrier_wait(ring.full + place.stage * 8, place.parity);
            const uint64_t input = describe_input(ring.stages + place.stage * (TOKENS * TENSOR_CHUNK * 2));
            multiply_step<TOKENS>(sums, fragments[0], input, chunk > 0);
            mma_wait<1>();
            if (chunk > 0) release<STAGES>(ring, work, done);
            stream.weights.make(at_hand, i, 1, fragments[1]);
            stream.copy(i + DEPTH, chunk + DEPTH < work.chunk_count);
            stream.read(&at_hand, (i + 1) % TENSOR_TILE_CHUNKS);
            multiply_step<TOKENS>(sums, fragments[1], input + 4, true);
            mma_wait<1>();
            done = place.stage;
            place.advance();
        }
    }
    mma_wait<0>();
    release<STAGES>(ring, work, done);
#pragma unroll
    for (int i = 0; i < TOKENS / 2; i++) asm volatile("" : "+f"(sums[i])::"memory"); /* not read before */
}

template <class WEIGHTS, int TOKENS, int STAGES, int DEPTH>
static __device__ __forceinline__ void consume(const struct tensor_args &args, const struct tensor_ring &ring)
{
    struct tensor_place<STAGES> place;
    place.stage = place.parity = 0;
    struct tensor_stream<WEIGHTS, DEPTH> stream;
    struct tensor_work work;
    uint32_t turn = 0;
    float sums[TOKENS / 2];
    stream.slots = keep(ring.slots + threadIdx.x * 16);
    stream.slot = 0;
    bool more = find_work<TOKENS>(args, &turn, &work);
    if (more) stream.open(args, work);
    while (more) {
        multiply_work<WEIGHTS, TOKENS, STAGES, DEPTH>(ring, work, place, stream, sums);
        const struct tensor_work done = work;
        more = find_work<TOKENS>(args, &turn, &work);
        if (more) stream.open(args, work);
        if (done.is_split) exchange_sums<TOKENS>(ring, sums);
        store_sums<TOKENS>(args, ring, done, sums);
    }
}

template <int TOKENS>
static __device__ __forceinline__ bool ends_split(const struct tensor_args &args)
{
    struct tensor_work work;
    bool is_split = false;
    for (uint32_t turn = 0; find_work<TOKENS>(args, &turn, &work);) is_split = work.is_split;
    return is_split;
}

template <class WEIGHTS, int TOKENS, int STAGES, int DEPTH>
static __global__ __cluster_dims__(TENSOR_CLUSTER)
    __launch_bounds__(TENSOR_THREADS, 1) void multiply_tiles(const __grid_constant__ struct tensor_args args)
{
    extern __shared__ uint8_t shared[];
    __shared__ uint64_t barriers[2 * STAGES];
    struct tensor_ring ring;
    ring.stages = keep((shared_address(shared) + TENSOR_ALIGNMENT - 1) / TENSOR_ALIGNMENT * TENSOR_ALIGNMENT);
    ring.slots = ring.stages + STAGES * TOKENS * TENSOR_CHUNK * 2;
    ring.sums = ring.slots + DEPTH * TENSOR_SLOT_BYTES;
    ring.full = keep(shared_address(barriers));
    ring.empty = ring.full + STAGES * 8;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(ring.full + i * 8, 1);
            barrier_init(ring.empty + i * 8, 2 * TENSOR_GROUP_WARPS * TENSOR_CLUSTER);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_sync();
    if (threadIdx.x >= 2 * TENSOR_GROUP) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 2 * TENSOR_GROUP) produce<TOKENS, STAGES>(args, ring);
        __syncwarp();
        if (ends_split<TOKENS>(args)) { /* as exchange_sums */
            cluster_sync();
            cluster_sync();
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        consume<WEIGHTS, TOKENS, STAGES, DEPTH>(args, ring);
    }
    cluster_sync(); /* no block ends while the other may still write to it */
}

#endif

/* kernels_product.cuh - products of matrices with one vector, the steps around them fused in.
 *
 * Tensor cores do the sums: four or more times fewer instructions than multiply-adds, so that decoding weights of 12 bits hides
 * behind memory. Eight rows are a tile, and a tile's columns are cut into groups of 512: eight rows of one group are a unit, 6
 * KiB packed, 8 KiB in BF16. A block has every so-many-th tile, and its warps take the tile's units in turn, each from a slot of
 * shared memory that was asked for several units before.
 *
 * The rows of a unit are the columns of B (kernels_device.cuh). The vector is split into the sum of two BF16 numbers, its terms,
 * which are rows of A: of each eight columns, four are in rows 0 and 1, the other four in rows 8 and 9, so that A comes from
 * shared memory as it is wanted, and of two products with the same A one counts in the upper and one in the lower rows. What the
 * other rows hold is not looked at. Lane i of a quad gives pieces i, i + 4, ... of its row (kernels_weights.cuh), whatever the
 * form.
 *
 * Order of sums: each of the four steps of a piece has sums of its own over the pieces of a unit; these four are added, then the
 * terms of the vector; then the units of a row, every fourth, and these four. So neither the form of the weights nor the number
 * of warps or slots changes a bit.
 *
 * The first slots are filled before the grid before this one has ended: weights do not depend on it. Every grid lets the next
 * one start only after its own wait, so what lies before the previous grid may be read then, too.
 */
#ifndef CLLM_KERNELS_PRODUCT_CUH
#define CLLM_KERNELS_PRODUCT_CUH

#include "gpu_layout.h"
#include "kernels_device.cuh"
#include "kernels_weights.cuh"

#define ROWS 2 /* of a set: rows that are finished together */
#define SETS 4 /* of a tile */
#define TILE (ROWS * SETS)
#define QUAD 4        /* lanes that share a row */
#define INPUT_TERMS 2 /* BF16 numbers whose sum is the input: 16 bits of it */
#define SLOT_PAD 64   /* after a row in a slot and a term of the input: keeps rows off each other's banks */
#define PATCH_NONE 0xFFFFFFFFu
#define NORM_WARPS 8   /* that stage a normalised input; a block has at least so many */
#define LINE_FLOATS 32 /* of the cache */
#define STAGE_BATCH 8  /* loads of the input in flight in a thread */
#ifndef PRODUCT_WARPS
#define PRODUCT_WARPS 8 /* by measurement */
#endif

/* ------------------------------------------------------------------------------------------------------------- stages */

enum product_stage {
    STAGE_QKV,  /* rotates, queries to `output`, keys and values to the cache */
    STAGE_GATE, /* output = silu(gate) * up */
    STAGE_ADD,  /* output += product */
    STAGE_SET,  /* output = product */
};

enum { PART_QUERY, PART_KEY, PART_VALUE, PART_COUNT };

struct product_part {
    const uint8_t *elements; /* null: absent */
    const uint32_t *patch_starts;
    const uint32_t *patches;
    const float *bias; /* or null */
    uint64_t window;
    uint32_t row_count;
    uint32_t set_end; /* sets of this part and those before it */
};

struct product_args {
    struct product_part parts[PART_COUNT]; /* QKV: all; GATE: gate and up; otherwise one */
    const float *input;                    /* zeros follow it, up to a whole group */
    const float *norm;                     /* RMSNorm's weights, or null: no norm */
    float *output;
    uint64_t row_bytes;
    uint32_t column_count;
    uint32_t full_groups; /* that the copies may take */
    uint32_t slot_count;
    float epsilon;
    /* QKV */
    const uint32_t *position;
    const float *cosines; /* of that position, head_dim / 2 */
    const float *sines;
    __nv_bfloat16 *keys; /* of the layer: [kv head][position][head_stride] */
    __nv_bfloat16 *values;
    uint32_t head_dim;
    uint32_t head_stride;
    uint32_t context_size;
};

/* Two rows whose results are needed together. */
struct row_set {
    uint32_t part[ROWS];
    uint32_t row[ROWS];
};

template <int STAGE>
static __device__ __forceinline__ struct row_set find_rows(const struct product_args &args, uint32_t set)
{
    if (STAGE == STAGE_GATE) return {{0, 1}, {set, set}};
    if (STAGE != STAGE_QKV) {
        const uint32_t last = args.parts[0].row_count - 1;
        return {{0, 0}, {set * 2, set * 2 < last ? set * 2 + 1 : last}};
    }
    uint32_t part = 0, first = 0;
    if (set >= args.parts[0].set_end) part = 1, first = args.parts[0].set_end;
    if (set >= args.parts[1].set_end) part = 2, first = args.parts[1].set_end;
    const uint32_t half = args.head_dim / 2, head = (set - first) / half, pair = (set - first) % half;
    return {{part, part}, {head * args.head_dim + pair, head * args.head_dim + pair + half}};
}

static __device__ __forceinline__ void emit_qkv(const struct product_args &args, const struct row_set &set, uint32_t position,
                                                const float prior[ROWS], float low, float high)
{
    const uint32_t head = set.row[0] / args.head_dim, pair = set.row[0] % args.head_dim, half = args.head_dim / 2;
    if (set.part[0] != PART_VALUE) {
        const float turned = low * prior[0] - high * prior[1];
        high = high * prior[0] + low * prior[1];
        low = turned;
    }
    if (set.part[0] == PART_QUERY) {
        args.output[set.row[0]] = low;
        args.output[set.row[1]] = high;
        return;
    }
    __nv_bfloat16 *cache = set.part[0] == PART_KEY ? args.keys : args.values;
    cache += ((size_t)head * args.context_size + position) * args.head_stride + pair;
    cache[0] = __float2bfloat16_rn(low);
    cache[half] = __float2bfloat16_rn(high);
}

template <int STAGE>
static __device__ __forceinline__ void emit_rows(const struct product_args &args, const struct row_set &set, uint32_t position,
                                                 const float prior[ROWS], const float sums[ROWS])
{
    float values[ROWS];
    for (int r = 0; r < ROWS; r++) {
        const float *bias = args.parts[set.part[r]].bias;
        values[r] = bias ? sums[r] + bias[set.row[r]] : sums[r];
    }
    if (STAGE == STAGE_QKV) {
        emit_qkv(args, set, position, prior, values[0], values[1]);
    } else if (STAGE == STAGE_GATE) {
        args.output[set.row[0]] = values[0] / (1 + expf(-values[0])) * values[1];
    } else {
        for (int r = 0; r < ROWS && (r == 0 || set.row[1] != set.row[0]); r++) {
            args.output[set.row[r]] = STAGE == STAGE_ADD ? prior[r] + values[r] : values[r];
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------- memory */

/* Shared memory of a block: slots, terms of the input, a ring of what units came to, sums of squares, barriers of the slots. */
template <class FORM>
struct product_memory {
    static constexpr uint32_t row_stride = FORM::group_bytes + SLOT_PAD;
    static constexpr uint32_t slot_bytes = TILE * row_stride;
};

static __host__ __device__ __forceinline__ uint32_t product_groups(uint32_t column_count)
{
    return (column_count + GROUP - 1) / GROUP;
}

static __host__ __device__ __forceinline__ uint32_t input_term_bytes(uint32_t group_count)
{
    return group_count * GROUP * 2 + SLOT_PAD;
}

/* Units whose sums are kept: those of a tile, of the warps at work and of those that are already ahead. */
static __host__ __device__ __forceinline__ uint32_t ring_size(uint32_t group_count)
{
    return group_count + 2 * PRODUCT_WARPS;
}

/* Without the slots and their barriers. */
static __host__ __device__ __forceinline__ uint32_t product_fixed_bytes(uint32_t group_count)
{
    return INPUT_TERMS * input_term_bytes(group_count) + (ring_size(group_count) * TILE + NORM_WARPS) * (uint32_t)sizeof(float);
}

/* -------------------------------------------------------------------------------------------------------------- input */

static __device__ __forceinline__ float norm_weight(const float *norm, uint32_t column, uint32_t column_count)
{
    return column < column_count ? __ldg(norm + column) : 0;
}

/* Columns 4i to 4i + 3 of the input, as terms. Of each eight columns the first four go to the rows below 8 of A, the others to
 * those from 8 on: 16 bytes are what a lane gives of A. */
static __device__ __forceinline__ void stage_four(const float4 &x, uint32_t i, uint8_t *terms, uint32_t term_bytes)
{
    uint32_t low[INPUT_TERMS], high[INPUT_TERMS];
    split_pair<INPUT_TERMS>(x.x, x.y, low);
    split_pair<INPUT_TERMS>(x.z, x.w, high);
#pragma unroll
    for (uint32_t term = 0; term < INPUT_TERMS; term++) {
        uint32_t *eight = (uint32_t *)(terms + term * term_bytes) + i / 2 * 4 + i % 2;
        eight[0] = low[term];
        eight[2] = high[term];
    }
}

/* Stages the input as it is, by all threads. */
static __device__ __forceinline__ void stage_plain(const struct product_args &args, uint32_t group_count, uint8_t *terms)
{
    const uint32_t count = group_count * (GROUP / 4), term_bytes = input_term_bytes(group_count);
    for (uint32_t start = threadIdx.x; start < count; start += blockDim.x * STAGE_BATCH) {
        float4 batch[STAGE_BATCH];
#pragma unroll
        for (uint32_t j = 0; j < STAGE_BATCH; j++) {
            const uint32_t i = start + j * blockDim.x;
            if (i < count) batch[j] = __ldcg((const float4 *)args.input + i);
        }
#pragma unroll
        for (uint32_t j = 0; j < STAGE_BATCH; j++) {
            const uint32_t i = start + j * blockDim.x;
            if (i < count) stage_four(batch[j], i, terms, term_bytes);
        }
    }
}

/* Stages the input times the norm's weights, and sums squares, by NORM_WARPS warps: the order of that sum must not depend on how
 * many there are. */
static __device__ __forceinline__ void stage_norm(const struct product_args &args, uint32_t group_count, uint8_t *terms,
                                                  float *warp_sums)
{
    const uint32_t columns = args.column_count, count = group_count * (GROUP / 4), term_bytes = input_term_bytes(group_count);
    float squares = 0;
    if (threadIdx.x >= NORM_WARPS * WARP) return;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < count; i += NORM_WARPS * WARP) {
        float4 x = __ldcg((const float4 *)args.input + i);
        squares += x.x * x.x + x.y * x.y + (x.z * x.z + x.w * x.w);
        x.x *= norm_weight(args.norm, i * 4, columns);
        x.y *= norm_weight(args.norm, i * 4 + 1, columns);
        x.z *= norm_weight(args.norm, i * 4 + 2, columns);
        x.w *= norm_weight(args.norm, i * 4 + 3, columns);
        stage_four(x, i, terms, term_bytes);
    }
    for (int offset = WARP / 2; offset; offset /= 2) squares += __shfl_xor_sync(ALL_LANES, squares, offset);
    if (threadIdx.x % WARP == 0) warp_sums[threadIdx.x / WARP] = squares;
}

/* Stages the input; the result is what products must be multiplied by. */
static __device__ __forceinline__ float stage_input(const struct product_args &args, uint32_t group_count, uint8_t *terms,
                                                    float *warp_sums)
{
    if (!args.norm) {
        stage_plain(args, group_count, terms);
        __syncthreads();
        return 1;
    }
    stage_norm(args, group_count, terms, warp_sums);
    __syncthreads();
    float sum = 0;
    for (uint32_t warp = 0; warp < NORM_WARPS; warp++) sum += warp_sums[warp];
    return rsqrtf(sum / args.column_count + args.epsilon);
}

/* ------------------------------------------------------------------------------------------------------------- kernel */

/* The patches of the row of a lane. */
struct row_patches {
    uint32_t part;
    uint32_t begin, end;
};

/* A unit of this block: tiles count over all blocks. */
struct unit_place {
    uint32_t tile;
    uint32_t group;
};

/* A warp at work on its units. */
template <class FORM, int STAGE>
struct product_warp {
    using piece = typename FORM::piece;
    using memory = product_memory<FORM>;

    uint8_t *slots;
    uint64_t *barriers;
    const uint8_t *terms; /* of the input */
    float *ring;
    uint32_t lane;
    uint32_t group_count, set_count, tile_count;
    uint32_t warp_count;      /* at work: not more than there are slots */
    struct unit_place stride; /* from a unit of a warp to its next */

    struct unit_place at, copying, looking; /* units in work, to be asked for, whose patches are looked up */
    uint32_t slot, parity, ring_place;
    float prior[ROWS]; /* QKV: cosine and sine; ADD: what the output was; of set `lane` of a tile */

    struct row_patches patches, coming; /* of the unit in work and of the next */
    uint32_t patch;                     /* one of the first QUAD patches of the row in work */

    __device__ __forceinline__ struct unit_place place_unit(uint32_t unit) const
    {
        return {blockIdx.x + unit / group_count * gridDim.x, unit % group_count};
    }

    __device__ __forceinline__ void advance(struct unit_place &place) const
    {
        place.tile += stride.tile;
        place.group += stride.group;
        if (place.group < group_count) return;
        place.group -= group_count;
        place.tile += gridDim.x;
    }

    __device__ __forceinline__ bool exists(const struct unit_place &place) const
    {
        return place.tile < tile_count;
    }

    __device__ __forceinline__ uint32_t find_set(uint32_t tile, uint32_t i) const
    {
        return min(tile * SETS + i, set_count - 1);
    }

    /* Row i of a tile is the first of set i, or the second of set i - 4. */
    __device__ __forceinline__ void find_row(const struct product_args &args, uint32_t tile, uint32_t i, uint32_t &part_out,
                                             uint32_t &row_out) const
    {
        const struct row_set set = find_rows<STAGE>(args, find_set(tile, i % SETS));
        part_out = i < SETS ? set.part[0] : set.part[1];
        row_out = i < SETS ? set.row[0] : set.row[1];
    }

    __device__ __forceinline__ const uint8_t *find_group(const struct product_args &args, const struct unit_place &place,
                                                         uint32_t i) const
    {
        uint32_t part, row;
        find_row(args, place.tile, i, part, row);
        return args.parts[part].elements + row * args.row_bytes + (size_t)place.group * FORM::group_bytes;
    }

    /* Asks for the next unit to be copied. */
    __device__ __forceinline__ void copy(const struct product_args &args, uint32_t to_slot)
    {
        if (exists(copying)) {
            if (copying.group < args.full_groups) {
                fill_slot<TILE, FORM::group_bytes, memory::row_stride>(slots + to_slot * memory::slot_bytes, barriers + to_slot,
                                                                       find_group(args, copying, lane % TILE), lane);
            } else {
                skip_slot(barriers + to_slot, lane);
            }
        }
        advance(copying);
    }

    /* Patches take three steps, each a memory access, a unit apart: where they are, what the first ones are, use. */
    __device__ __forceinline__ struct row_patches look_up(const struct product_args &args)
    {
        struct row_patches found = {0, 0, 0};
        if (exists(looking)) {
            uint32_t row;
            find_row(args, looking.tile, lane / QUAD, found.part, row);
            found.begin = __ldg(args.parts[found.part].patch_starts + row);
            found.end = __ldg(args.parts[found.part].patch_starts + row + 1);
        }
        advance(looking);
        return found;
    }

    static __device__ __forceinline__ uint32_t load_patch(const struct product_args &args, const struct row_patches &patches)
    {
        const uint32_t i = patches.begin + threadIdx.x % QUAD;
        return i < patches.end ? __ldg(args.parts[patches.part].patches + i) : PATCH_NONE;
    }

    /* Fills the slots, and looks up the first patches. */
    __device__ __forceinline__ void start(const struct product_args &args, uint32_t warp)
    {
        stride = {warp_count / group_count * gridDim.x, warp_count % group_count};
        at = copying = looking = place_unit(warp);
        slot = ring_place = warp;
        parity = 0;
        for (uint32_t i = warp; i < args.slot_count; i += warp_count) copy(args, i);
        copying = place_unit(warp + args.slot_count); /* the unit that takes the slot after this warp's first */
        if (!FORM::packed) return;
        patches = look_up(args);
        coming = look_up(args);
        patch = load_patch(args, patches);
    }

    /* Asks for what the end of a tile needs. Grids before the previous one have ended by now, and none later changes it. */
    __device__ __forceinline__ void ask_prior(const struct product_args &args)
    {
        if (lane >= SETS) return;
        const struct row_set set = find_rows<STAGE>(args, find_set(at.tile, lane));
        if (STAGE == STAGE_QKV) {
            const uint32_t pair = set.row[0] % args.head_dim;
            prior[0] = __ldcg(args.cosines + pair);
            prior[1] = __ldcg(args.sines + pair);
        }
        if (STAGE == STAGE_ADD) {
            for (int r = 0; r < ROWS; r++) prior[r] = __ldcg(args.output + set.row[r]);
        }
    }

    /* The first patch of the lane's row that is not before the group. */
    __device__ __forceinline__ uint32_t find_patch(const struct product_args &args) const
    {
        uint32_t low = patches.begin, high = patches.end;
        while (low < high) {
            const uint32_t middle = low + (high - low) / 2;
            if (__ldg(args.parts[patches.part].patches + middle) >> 8 < at.group * GROUP) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    /* Applies those patches of the row, from `first` on, that lie in piece q of the group. */
    __device__ __forceinline__ void patch_piece(const struct product_args &args, uint32_t first, uint32_t q,
                                                uint32_t uppers[STEPS]) const
    {
        for (uint32_t i = first; i < patches.end; i++) {
            const uint32_t word = __ldg(args.parts[patches.part].patches + i), column = (word >> 8) - at.group * GROUP;
            if (column >= GROUP) break;
            if (column / PACK12_UNIT % PIECES != q) continue;
            const uint32_t shift = column % 4 * 8, step = column / HALF * 2 + column / 4 % 2;
#pragma unroll
            for (uint32_t j = 0; j < STEPS; j++) {
                if (j == step) uppers[j] = (uppers[j] & ~(0xFFu << shift)) | (word & 0xFF) << shift;
            }
        }
    }

    /* The lane's pieces of a unit. PLAIN: the unit is in its slot, and has no patches. */
    template <bool PLAIN>
    __device__ __forceinline__ void add_pieces(const struct product_args &args, float sums[STEPS][4]) const
    {
        const bool whole = PLAIN || at.group < args.full_groups;
        const uint8_t *group = slots + slot * memory::slot_bytes + lane / QUAD * memory::row_stride, *row = NULL;
        const uint32_t term = lane / QUAD < INPUT_TERMS ? lane / QUAD : INPUT_TERMS - 1; /* others are not looked at */
        const uint4 *input = (const uint4 *)(terms + term * input_term_bytes(group_count)) + at.group * (GROUP / 8) + lane % QUAD;
        const uint64_t window = FORM::packed ? args.parts[patches.part].window : 0;
        uint32_t first = 0;
        if (!PLAIN && FORM::packed) first = find_patch(args);
        if (!whole) row = find_group(args, {at.tile, 0}, lane / QUAD);
        [[maybe_unused]] constexpr int unrolled = PLAIN ? PIECES / QUAD : 1;
#pragma unroll unrolled
        for (uint32_t i = 0; i < PIECES / QUAD; i++) {
            const uint32_t q = i * QUAD + lane % QUAD;
            piece piece;
            if (whole) FORM::take_piece(group, q, piece);
            else FORM::load_piece(row, args.column_count, at.group, q, piece);
            if constexpr (FORM::packed) {
                FORM::upper_words(window, piece);
                if (!PLAIN) patch_piece(args, first, q, piece.uppers);
            }
            const uint4 x[2] = {input[i * QUAD], input[HALF / 8 + i * QUAD]};
            if (!PLAIN) __syncwarp();
#pragma unroll
            for (uint32_t step = 0; step < STEPS; step++) {
                uint32_t weights[FORM::TERMS][2];
                FORM::split_step(piece, step, weights);
#pragma unroll
                for (int j = 0; j < FORM::TERMS; j++) multiply_add(sums[step], x[step / 2], weights[j][0], weights[j][1]);
            }
        }
    }

    __device__ __forceinline__ void add_unit(const struct product_args &args)
    {
        const bool whole = at.group < args.full_groups;
        float sums[STEPS][4] = {};
        bool plain = whole;
        if (FORM::packed) {
            const bool patched = patch >> 8 >= at.group * GROUP && patch >> 8 < (at.group + 1) * GROUP;
            plain = whole && !__any_sync(ALL_LANES, patched || patches.end - patches.begin > QUAD);
        }
        wait_for_slot(barriers + slot, parity);
        if (plain) add_pieces<true>(args, sums);
        else add_pieces<false>(args, sums);
        float totals[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            totals[i] = sums[0][i] + sums[1][2 + i] + (sums[2][i] + sums[3][2 + i]);
            totals[i] += __shfl_down_sync(ALL_LANES, totals[i], QUAD);
        }
        if (lane < QUAD) *(float2 *)(ring + ring_place * TILE + lane * 2) = make_float2(totals[0], totals[1]);
    }

    /* Adds what the units of a tile came to, of which this warp had the last. */
    __device__ __forceinline__ void finish_tile(const struct product_args &args, uint32_t position, float scale) const
    {
        const uint32_t size = ring_size(group_count), from = ring_place + 1 + size - group_count;
        float sum = 0;
        for (uint32_t i = lane / TILE; i < group_count; i += WARP / TILE) {
            sum += ring[(from + i) % size * TILE + lane % TILE];
        }
        sum += __shfl_xor_sync(ALL_LANES, sum, TILE);
        sum += __shfl_xor_sync(ALL_LANES, sum, TILE * 2);
        sum *= scale;
        const float sums[ROWS] = {sum, __shfl_down_sync(ALL_LANES, sum, SETS)};
        if (lane < SETS && at.tile * SETS + lane < set_count) {
            emit_rows<STAGE>(args, find_rows<STAGE>(args, at.tile * SETS + lane), position, prior, sums);
        }
    }

    __device__ __forceinline__ void go_on(const struct product_args &args)
    {
        advance(at);
        slot += warp_count;
        if (slot >= args.slot_count) slot -= args.slot_count, parity ^= 1;
        ring_place += warp_count;
        if (ring_place >= ring_size(group_count)) ring_place -= ring_size(group_count);
    }

    /* All warps of a block, each as many rounds: after each the units of the round have been added, and tiles that end there
     * can be finished. */
    __device__ __forceinline__ void run(const struct product_args &args, bool works, uint32_t position, float scale)
    {
        const uint32_t tiles = (tile_count - blockIdx.x + gridDim.x - 1) / gridDim.x;
        const uint32_t rounds = (tiles * group_count + warp_count - 1) / warp_count;
        for (uint32_t round = 0; round < rounds; round++) {
            const bool busy = works && exists(at), last = busy && at.group + 1 == group_count;
            if (last) ask_prior(args);
            if (busy) {
                struct row_patches after = {0, 0, 0};
                uint32_t coming_patch = PATCH_NONE;
                if (FORM::packed) {
                    coming_patch = load_patch(args, coming);
                    after = look_up(args);
                }
                add_unit(args);
                __syncwarp();
                copy(args, slot);
                patches = coming;
                coming = after;
                patch = coming_patch;
            }
            __syncthreads();
            if (last) finish_tile(args, position, scale);
            if (busy) go_on(args);
        }
    }
};

template <class FORM, int STAGE>
static __global__ __launch_bounds__(PRODUCT_WARPS *WARP, 1) void multiply(const __grid_constant__ struct product_args args)
{
    extern __shared__ __align__(128) uint8_t slots[];
    const uint32_t warp = threadIdx.x / WARP, slot_count = args.slot_count;
    struct product_warp<FORM, STAGE> work;
    work.lane = threadIdx.x % WARP;
    work.group_count = product_groups(args.column_count);
    work.set_count = STAGE == STAGE_QKV ? args.parts[PART_VALUE].set_end : args.parts[0].set_end;
    work.tile_count = (work.set_count + SETS - 1) / SETS;
    work.warp_count = min((uint32_t)PRODUCT_WARPS, slot_count);
    uint8_t *terms = slots + slot_count * product_memory<FORM>::slot_bytes;
    work.slots = slots;
    work.terms = terms;
    work.ring = (float *)(terms + INPUT_TERMS * input_term_bytes(work.group_count));
    float *warp_sums = work.ring + ring_size(work.group_count) * TILE;
    work.barriers = (uint64_t *)(warp_sums + NORM_WARPS);
    if (threadIdx.x < slot_count) open_slot(work.barriers + threadIdx.x);
    __syncthreads();
    if (warp < work.warp_count) work.start(args, warp);
    for (uint32_t i = threadIdx.x * LINE_FLOATS; args.norm && i < args.column_count; i += blockDim.x * LINE_FLOATS) {
        fetch_line(args.norm + i);
    }
    wait_for_previous_grid();
    let_next_grid_start();
    const uint32_t position = STAGE == STAGE_QKV ? __ldcg(args.position) : 0;
    const float scale = stage_input(args, work.group_count, terms, warp_sums);
    work.run(args, warp < work.warp_count, position, scale);
}

#endif

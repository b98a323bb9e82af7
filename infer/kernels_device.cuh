/* kernels_device.cuh - what CUDA C has no name for: the order of grids, asynchronous copies into shared memory, tensor cores.
 * PTX ISA: griddepcontrol, cp.async, cp.async.bulk, mbarrier, and "Matrix Fragments for mma.m16n8k16".
 */
#ifndef CLLM_KERNELS_DEVICE_CUH
#define CLLM_KERNELS_DEVICE_CUH

#include <cuda.h>
#include <stdint.h>

#ifndef HAS_COPY_ENGINE
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define HAS_COPY_ENGINE 1
#else
#define HAS_COPY_ENGINE 0
#endif
#endif

#define WARP 32
#ifdef DEBUG_SPIN
#include <cstdio>
static __device__ volatile int gave_up;
#define WATCH uint32_t looks = 0
#define LOOK(what, a, b) { if (++looks > 100000 || (looks % 64 == 0 && gave_up)) { if (threadIdx.x % 32 == 0) printf("%s b %u w %u: %u %u\n", what, blockIdx.x, threadIdx.x / 32, a, b); gave_up = 1; break; } }
#else
#define WATCH
#define LOOK(a, b, c)
#endif
#define ALL_LANES 0xFFFFFFFFu

/* The shared memory of a block that the launch asks for. */
static __device__ __forceinline__ uint8_t *shared_memory(void)
{
    extern __shared__ __align__(128) uint8_t of_block[];
    return of_block;
}

/* Numbers that blocks of one grid hand to each other: each is written once, and its bits differ then from those that were there
 * before, so that it says itself whether it is there. Nothing else is ordered. */
#define UNWRITTEN 0xFFFFFFFFu /* a NaN that no arithmetic ends in */

static __device__ __forceinline__ void publish(float *to, float value)
{
    const uint32_t bits = __float_as_uint(value);
    asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(to), "r"(bits == UNWRITTEN ? UNWRITTEN >> 1 : bits) : "memory");
}

/* What is there now; four of them lie at a multiple of 16 bytes. */
static __device__ __forceinline__ float peek(const float *from)
{
    float value;
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(value) : "l"(from) : "memory");
    return value;
}

static __device__ __forceinline__ float4 peek_four(const float *from)
{
    float4 v;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

/* Brings the line of an address to the cache of the device, whatever it holds by the time that it is read. */
static __device__ __forceinline__ void fetch_line(const void *address)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

static __device__ __forceinline__ bool is_written(float value)
{
    return __float_as_uint(value) != UNWRITTEN;
}

static __device__ __forceinline__ bool are_written(const float4 &v)
{
    return is_written(v.x) && is_written(v.y) && is_written(v.z) && is_written(v.w);
}

/* While waiting for something that another warp does. */
static __device__ __forceinline__ void give_way(void)
{
}

/* Waits until it is written. */
static __device__ __forceinline__ float take(const float *from)
{
    float value = peek(from);
    WATCH;
    while (!is_written(value)) { value = peek(from); LOOK("take", (uint32_t)(uintptr_t)from, 0); }
    return value;
}

/* Copies 16 bytes into shared memory, without waiting. */
static __device__ __forceinline__ void start_copy(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}

/* Makes those of this thread since the last time a group. */
static __device__ __forceinline__ void end_copies(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until the groups of this thread are done but for the last ones. */
template <int GROUPS>
static __device__ __forceinline__ void finish_copies_but(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

/* Slots of shared memory, each with a barrier that is passed when the slot is full: what is in flight takes no registers, and
 * waiting for one slot is not waiting for those filled after it. From Hopper on one lane has the copy engine fill them; before,
 * each lane copies 16 bytes at a time. */
static __device__ __forceinline__ uint32_t shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* By one thread, which then publishes them; those that use the slots must synchronise with it. */
static __device__ __forceinline__ void open_slot(uint64_t *barrier)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "n"(HAS_COPY_ENGINE ? 1 : WARP) : "memory");
}

/* The same for a barrier that one thread arrives at. */
static __device__ __forceinline__ void open_barrier(uint64_t *barrier)
{
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}

static __device__ __forceinline__ void arrive(uint64_t *barrier)
{
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(barrier)) : "memory");
}

/* Of `threads` threads of a block, whole warps. */
template <int THREADS>
static __device__ __forceinline__ void sync_threads(void)
{
    asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory");
}

static __device__ __forceinline__ void publish_slots(void)
{
#if HAS_COPY_ENGINE
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/* For what is read once in a long time: it should not take the place of anything else in the cache of the device. */
static __device__ __forceinline__ uint64_t read_once(void)
{
    uint64_t policy = 0;
#if HAS_COPY_ENGINE
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
    return policy;
}

/* Fills a slot, by a warp, with `byte_count`, a multiple of 16, that start at one. Nobody may read the slot any more. */
static __device__ __forceinline__ void fill_slot(uint8_t *slot, uint64_t *barrier, const uint8_t *from, uint32_t byte_count,
                                                 uint32_t lane)
{
    const uint32_t to = shared_address(slot), bar = shared_address(barrier);
#if HAS_COPY_ENGINE
    if (lane) return;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(byte_count) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
                     to),
                 "l"(from), "r"(byte_count), "r"(bar), "l"(read_once())
                 : "memory");
#else
    for (uint32_t i = lane * 16; i < byte_count; i += WARP * 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + i), "l"(from + i) : "memory");
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
#endif
}

/* A row-major matrix without gaps, whose rows are multiples of 16 bytes and start at one. */
struct row_map {
    CUtensorMap engine; /* for the copy engine: made by the host, of boxes as fill_slot_with_box is asked for */
    const uint8_t *elements;
    uint32_t row_count;
    uint32_t column_count;
    uint32_t element_bytes;
};

/* Before a thread uses a map that an earlier grid may have written. */
static __device__ __forceinline__ void acquire_map(const struct row_map *map)
{
#if HAS_COPY_ENGINE
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(&map->engine) : "memory");
#else
    (void)map;
#endif
}

/* The same with `rows` rows of `row_bytes`, from the given row and column on; zeros for what is outside the matrix. */
static __device__ __forceinline__ void fill_slot_with_box(uint8_t *slot, uint64_t *barrier, const struct row_map *map,
                                                          uint32_t rows, uint32_t row_bytes, uint32_t row, uint32_t column,
                                                          uint32_t lane)
{
    const uint32_t to = shared_address(slot), bar = shared_address(barrier);
#if HAS_COPY_ENGINE
    if (lane) return;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(rows * row_bytes) : "memory");
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3}], "
        "[%4], %5;" ::"r"(to),
        "l"(&map->engine), "r"(column), "r"(row), "r"(bar), "l"(read_once())
        : "memory");
#else
    const uint32_t first = column * map->element_bytes, bytes = map->column_count * map->element_bytes;
    for (uint32_t i = lane * 16; i < rows * row_bytes; i += WARP * 16) {
        const uint32_t r = row + i / row_bytes, at = first + i % row_bytes;
        const bool exists = r < map->row_count && at < bytes;
        const uint8_t *from = map->elements + (exists ? (uint64_t)r * bytes + at : 0);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + i), "l"(from), "r"(exists ? 16 : 0) : "memory");
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
#endif
}

/* Instead of filling it, where the slot stays as it is. */
static __device__ __forceinline__ void skip_slot(uint64_t *barrier, uint32_t lane)
{
    if (lane == 0 || !HAS_COPY_ENGINE) {
        asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(barrier)) : "memory");
    }
}

/* Between ordinary writes to a slot and filling it again. */
static __device__ __forceinline__ void order_slot(void)
{
#if HAS_COPY_ENGINE
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

static __device__ __forceinline__ uint32_t bar_number(uint64_t *b) { return shared_address(b); }

/* Until the slot is full for the time that `parity` counts, from 0. */
static __device__ __forceinline__ void wait_for_slot(uint64_t *barrier, uint32_t parity)
{
    uint32_t is_full = 0;
    WATCH;
    while (!is_full) {
        LOOK("slot", bar_number(barrier), parity);
#if HAS_COPY_ENGINE
        asm volatile("{ .reg .pred full; mbarrier.try_wait.parity.shared::cta.b64 full, [%1], %2; selp.u32 %0, 1, 0, full; }"
#else
        asm volatile("{ .reg .pred full; mbarrier.test_wait.parity.shared.b64 full, [%1], %2; selp.u32 %0, 1, 0, full; }"
#endif
                     : "=r"(is_full)
                     : "r"(shared_address(barrier)), "r"(parity)
                     : "memory");
    }
}

/* Whether that is so now. */
static __device__ __forceinline__ bool is_passed(uint64_t *barrier, uint32_t parity)
{
    uint32_t passed;
    asm volatile("{ .reg .pred full; mbarrier.test_wait.parity.shared.b64 full, [%1], %2; selp.u32 %0, 1, 0, full; }"
                 : "=r"(passed)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
    return passed;
}

/* sums += A B: A has 16 rows and 16 columns, B 16 rows and 8 columns. With group = lane / 4 and quad = lane % 4 a lane gives, of
 * row `group` of A in a.x and a.z, of row 8 + group in a.y and a.w, of column `group` of B in b0 and b1, the elements 2 quad and
 * 2 quad + 1, and then 8 + 2 quad and 9 + 2 quad. It gets columns 2 quad and 2 quad + 1 of row `group` in sums 0 and 1, of row
 * 8 + group in sums 2 and 3. */
static __device__ __forceinline__ void multiply_add(float sums[4], const uint4 &a, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

#endif

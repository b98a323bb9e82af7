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
#define ALL_LANES 0xFFFFFFFFu

/* The number of this thread's warp in its block, in a way that tells the compiler that it is the same for all lanes: what depends
 * on it alone then takes registers that warps have besides those of their lanes. */
static __device__ __forceinline__ uint32_t warp_index(void)
{
    return __shfl_sync(ALL_LANES, threadIdx.x / WARP, 0);
}

/* Queued behind another grid, a grid may start before that one has ended; what it wrote may be read only after this. */
static __device__ __forceinline__ void wait_for_previous_grid(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void let_next_grid_start(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
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

static __device__ __forceinline__ void publish_slots(void)
{
#if HAS_COPY_ENGINE
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); /* far less than a fence of the proxy */
#endif
}

/* Fills a slot, by a warp, with `byte_count`, a multiple of 16, that start at one. Nobody may read the slot any more. */
static __device__ __forceinline__ void fill_slot(uint8_t *slot, uint64_t *barrier, const uint8_t *from, uint32_t byte_count,
                                                 uint32_t lane)
{
    const uint32_t to = shared_address(slot), bar = shared_address(barrier);
#if HAS_COPY_ENGINE
    if (lane) return;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(byte_count) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(byte_count), "r"(bar)
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

/* The same with ROWS rows of ROW_BYTES, from the given row and column on; zeros for what is outside the matrix. */
template <uint32_t ROWS, uint32_t ROW_BYTES>
static __device__ __forceinline__ void fill_slot_with_box(uint8_t *slot, uint64_t *barrier, const struct row_map *map,
                                                          uint32_t row, uint32_t column, uint32_t lane)
{
    const uint32_t to = shared_address(slot), bar = shared_address(barrier);
#if HAS_COPY_ENGINE
    if (lane) return;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "n"(ROWS * ROW_BYTES) : "memory");
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(&map->engine), "r"(column), "r"(row), "r"(bar)
        : "memory");
#else
    const uint32_t first = column * map->element_bytes, bytes = map->column_count * map->element_bytes;
    for (uint32_t i = lane * 16; i < ROWS * ROW_BYTES; i += WARP * 16) {
        const uint32_t r = row + i / ROW_BYTES, at = first + i % ROW_BYTES;
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

/* Until the slot is full for the time that `parity` counts, from 0. */
static __device__ __forceinline__ void wait_for_slot(uint64_t *barrier, uint32_t parity)
{
    uint32_t is_full = 0;
    while (!is_full) {
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

/* emulated_device.cuh - enough of a CUDA device to run blocks of threads on the CPU, one block after the other:
 * kernels include this instead of kernels_device.cuh.
 *
 * Threads are contexts that take turns and give way where they wait for others. What a copy brings arrives only when somebody
 * waits for it, and what the slot held is destroyed when it is asked for: reading too early or too late is seen. So is, in the
 * first block, reading what the grid before leaves (arrives_late) without waiting for that grid. A warp that disagrees about a
 * collective operation, or a wait that never ends, ends the program. */
#ifndef CLLM_EMULATED_DEVICE_H
#define CLLM_EMULATED_DEVICE_H
#define CLLM_KERNELS_DEVICE_CUH

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <ucontext.h>
#include <vector>

#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif
#ifndef __noinline__
#define __noinline__
#endif
#ifndef __grid_constant__
#define __grid_constant__
#endif
#define WARP 32
#define ALL_LANES 0xFFFFFFFFu

namespace emulated
{

constexpr size_t STACK_BYTES = 64 << 10;
constexpr long TURNS_MAX = 10000000; /* of a thread that waits */

struct thread {
    ucontext_t context;
    std::vector<char> stack;
    uint3 index;
    bool done;
};

struct warp {
    int arrived = 0;
    unsigned passed = 0; /* times that all have arrived */
    uint64_t values[WARP];
    uint32_t fragments[WARP][6];
};

/* Bytes under way to a place. */
struct copy {
    uint8_t *to;
    std::vector<uint8_t> bytes;
};

struct block {
    ucontext_t scheduler;
    std::vector<thread> threads;
    std::vector<warp> warps;
    size_t current = 0, arrived = 0;
    unsigned passed = 0;
    uint3 index;
    dim3 size, grid;
    std::function<void()> kernel;
    std::map<uint64_t *, copy> copies; /* under way, by barrier */
    std::map<uint64_t *, unsigned> fills;
};

inline block now;
inline std::vector<std::function<void()>> arrivals; /* once the grid before has ended */

[[noreturn]] inline void stop(const char *why)
{
    fprintf(stderr, "emulated device: block %u, %u, thread %zu: %s\n", now.index.x, now.index.y, now.current, why);
    abort();
}

inline uint32_t lane()
{
    return (uint32_t)now.current % WARP;
}

inline warp &own_warp()
{
    return now.warps[now.current / WARP];
}

inline void give_way()
{
    swapcontext(&now.threads[now.current].context, &now.scheduler);
}

/* Until `passed` changes, by the last of `count` to arrive. */
template <class COUNT>
void meet(COUNT &arrived, unsigned &passed, size_t count)
{
    const unsigned before = passed;
    if ((size_t)++arrived == count) {
        arrived = 0;
        passed++;
        return;
    }
    for (long turns = 0; passed == before; turns++) {
        if (turns == TURNS_MAX) stop("waits for others that never come");
        give_way();
    }
}

template <class T>
T take_from(T value, uint32_t other)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    own_warp().values[lane()] = bits;
    meet(own_warp().arrived, own_warp().passed, WARP);
    memcpy(&value, &own_warp().values[other % WARP], sizeof value);
    meet(own_warp().arrived, own_warp().passed, WARP);
    return value;
}

inline void run_thread()
{
    now.kernel();
    now.threads[now.current].done = true;
    give_way();
}

/* What the grid before the next one leaves: no numbers until somebody waits for that grid. */
template <class T>
void arrives_late(std::vector<T> &left)
{
    arrivals.push_back([&left, values = left] { left = values; });
    memset((void *)left.data(), 0xFF, left.size() * sizeof(T));
}

/* Runs a grid; `backwards`: threads get their first turn in descending order. */
inline void run(dim3 grid, unsigned thread_count, bool backwards, const std::function<void()> &kernel)
{
    now.grid = grid;
    now.size = dim3(thread_count);
    now.kernel = kernel;
    now.threads.resize(thread_count);
    for (unsigned b = 0; b < grid.x * grid.y; b++) {
        now.index = {b % grid.x, b / grid.x, 0};
        now.warps.assign(thread_count / WARP, warp());
        now.arrived = 0;
        now.copies.clear();
        now.fills.clear();
        for (unsigned i = 0; i < thread_count; i++) {
            thread &t = now.threads[i];
            t.stack.resize(STACK_BYTES);
            t.index = {i, 0, 0};
            t.done = false;
            getcontext(&t.context);
            t.context.uc_stack.ss_sp = t.stack.data();
            t.context.uc_stack.ss_size = t.stack.size();
            makecontext(&t.context, run_thread, 0);
        }
        for (bool any = true; any;) {
            any = false;
            for (unsigned i = 0; i < thread_count; i++) {
                now.current = backwards ? thread_count - 1 - i : i;
                if (now.threads[now.current].done) continue;
                any = true;
                swapcontext(&now.scheduler, &now.threads[now.current].context);
            }
        }
        if (!now.copies.empty()) stop("a copy that nobody waited for");
    }
    if (!arrivals.empty()) stop("nobody waited for the grid before");
}

inline float half_of(uint32_t pair, int i)
{
    const uint32_t bits = (i ? pair >> 16 : pair & 0xFFFF) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace emulated

#define threadIdx (emulated::now.threads[emulated::now.current].index)
#define blockIdx (emulated::now.index)
#define blockDim (emulated::now.size)
#define gridDim (emulated::now.grid)

static inline void __syncthreads()
{
    emulated::meet(emulated::now.arrived, emulated::now.passed, emulated::now.threads.size());
}

static inline void __syncwarp()
{
    emulated::meet(emulated::own_warp().arrived, emulated::own_warp().passed, WARP);
}

template <class T>
static T __shfl_xor_sync(unsigned, T value, uint32_t mask)
{
    return emulated::take_from(value, emulated::lane() ^ mask);
}

template <class T>
static T __shfl_sync(unsigned, T value, uint32_t from)
{
    return emulated::take_from(value, from);
}

static inline uint32_t __reduce_or_sync(unsigned, uint32_t value)
{
    for (uint32_t offset = WARP / 2; offset; offset /= 2) value |= __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

static inline uint32_t __ballot_sync(unsigned, bool value)
{
    return __reduce_or_sync(ALL_LANES, value ? 1u << emulated::lane() : 0);
}

static inline int __ffs(int value)
{
    return __builtin_ffs(value);
}

static inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selectors)
{
    const uint64_t bytes = (uint64_t)high << 32 | low;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t selector = selectors >> 4 * i & 15, byte = bytes >> 8 * (selector & 7) & 0xFF;
        out |= (selector & 8 ? byte >> 7 ? 0xFFu : 0u : byte) << 8 * i;
    }
    return out;
}

static inline float __fdividef(float x, float y)
{
    return x / y;
}

template <class T>
static T __ldg(const T *address)
{
    return *address;
}

template <class T>
static T __ldcg(const T *address)
{
    return *address;
}

static inline float __uint_as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t __float_as_uint(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

static inline float rsqrtf(float value)
{
    return 1 / sqrtf(value);
}

static inline uint32_t min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* ------------------------------------------------------------------------------------------------- kernels_device.cuh */

static inline uint32_t warp_index()
{
    return threadIdx.x / WARP;
}

/* Other threads have their turn first: what they do before they wait, they do without what arrives. */
static inline void wait_for_previous_grid()
{
    if (emulated::arrivals.empty()) return;
    emulated::give_way();
    for (const std::function<void()> &arrive : emulated::arrivals) arrive();
    emulated::arrivals.clear();
}

static inline void let_next_grid_start()
{
}

static inline void open_slot(uint64_t *barrier)
{
    emulated::now.fills[barrier] = 0;
}

static inline void publish_slots()
{
}

static inline void order_slot()
{
}

static inline void start_copy(uint8_t *slot, uint64_t *barrier, std::vector<uint8_t> bytes)
{
    if (emulated::now.copies.count(barrier)) emulated::stop("a slot is filled again before it was waited for");
    memset(slot, 0xFF, bytes.size()); /* not a number */
    emulated::now.copies[barrier] = {slot, std::move(bytes)};
}

static inline void fill_slot(uint8_t *slot, uint64_t *barrier, const uint8_t *from, uint32_t byte_count, uint32_t lane)
{
    if ((uintptr_t)from % 16 || (uintptr_t)slot % 16 || byte_count % 16) emulated::stop("a copy that is not aligned");
    if (lane == 0) start_copy(slot, barrier, std::vector<uint8_t>(from, from + byte_count));
    __syncwarp();
}

struct row_map {
    const uint8_t *elements;
    uint32_t row_count, column_count, element_bytes;
};

template <uint32_t ROWS, uint32_t ROW_BYTES>
static void fill_slot_with_box(uint8_t *slot, uint64_t *barrier, const row_map *map, uint32_t row, uint32_t column, uint32_t lane)
{
    const uint32_t bytes = map->column_count * map->element_bytes, first = column * map->element_bytes;
    if (bytes % 16 || (uintptr_t)map->elements % 16) emulated::stop("a matrix that is not aligned");
    if (lane == 0) {
        std::vector<uint8_t> box(ROWS * ROW_BYTES);
        for (uint32_t i = 0; i < ROWS * ROW_BYTES; i++) {
            const uint32_t r = row + i / ROW_BYTES, at = first + i % ROW_BYTES;
            if (r < map->row_count && at < bytes) box[i] = map->elements[(size_t)r * bytes + at];
        }
        start_copy(slot, barrier, std::move(box));
    }
    __syncwarp();
}

static inline void skip_slot(uint64_t *barrier, uint32_t lane)
{
    if (lane == 0) emulated::now.copies[barrier] = {};
    __syncwarp();
}

static inline void wait_for_slot(uint64_t *barrier, uint32_t parity)
{
    for (long turns = 0; emulated::now.fills.at(barrier) % 2 == parity; turns++) {
        auto copy = emulated::now.copies.find(barrier);
        if (copy != emulated::now.copies.end()) {
            if (!copy->second.bytes.empty()) memcpy(copy->second.to, copy->second.bytes.data(), copy->second.bytes.size());
            emulated::now.copies.erase(copy);
            emulated::now.fills[barrier]++;
            continue;
        }
        if (turns == emulated::TURNS_MAX) emulated::stop("waits for a copy that was not asked for");
        emulated::give_way();
    }
    __syncwarp();
}

/* Sums in double precision, rounded once a step. */
static inline void multiply_add(float sums[4], const uint4 &a, uint32_t b0, uint32_t b1)
{
    auto &fragments = emulated::own_warp().fragments;
    const uint32_t lane = emulated::lane(), own[6] = {a.x, a.y, a.z, a.w, b0, b1};
    memcpy(fragments[lane], own, sizeof own);
    __syncwarp();
    for (uint32_t i = 0; i < 4; i++) {
        double sum = sums[i];
        for (uint32_t quad = 0; quad < 4; quad++) {
            const uint32_t *of_a = fragments[lane / 4 * 4 + quad], *of_b = fragments[(lane % 4 * 2 + i % 2) * 4 + quad];
            for (uint32_t pair = 0; pair < 2; pair++) {
                for (int half = 0; half < 2; half++) {
                    sum += (double)emulated::half_of(of_a[pair * 2 + i / 2], half) * emulated::half_of(of_b[4 + pair], half);
                }
            }
        }
        sums[i] = (float)sum;
    }
    __syncwarp();
}

#endif

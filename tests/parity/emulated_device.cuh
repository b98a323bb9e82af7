/* emulated_device.cuh - enough of a CUDA device to run a grid whose blocks wait for each other on the CPU: kernels_product.cuh
 * includes this instead of kernels_device.cuh.
 *
 * Threads are contexts that take turns and give way where they wait for others. What a copy brings arrives only when somebody
 * waits for it, and what the slot held is destroyed when it is asked for: reading too early or too late is seen. A warp that
 * disagrees about a collective operation, or a wait that never ends, ends the program. */
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
#define WATCH
#define LOOK(a,b,c)
#define WARP 32
#define ALL_LANES 0xFFFFFFFFu

namespace emulated
{

constexpr size_t STACK_BYTES = 64 << 10;
constexpr size_t SHARED_BYTES = 3 << 19;
constexpr unsigned long ROUNDS_MAX = 3000000; /* of turns of all threads */
constexpr unsigned long PATIENCE = 50;        /* rounds until a number that is not written is looked at again */

/* Bytes under way to a place. */
struct copy {
    uint8_t *to;
    std::vector<uint8_t> bytes;
};

struct thread {
    ucontext_t context;
    std::vector<char> stack;
    uint3 index;
    bool done;
    std::function<bool()> ready; /* what it waits for; none: its next turn */
    std::vector<std::vector<copy>> groups; /* of its own copies; the last one grows */
};

struct meeting {
    size_t arrived = 0;
    unsigned passed = 0; /* times that all have arrived */
};

struct warp {
    meeting all;
    uint64_t values[WARP];
    uint32_t fragments[WARP][6];
};

struct block {
    std::vector<thread> threads;
    std::vector<warp> warps;
    meeting all, named;
    uint3 index;
    std::vector<uint8_t> memory;
    std::map<uint64_t *, copy> copies;     /* under way, by barrier */
    std::map<uint64_t *, unsigned> phases; /* of barriers, that are complete */
};

struct device {
    ucontext_t scheduler;
    std::vector<block> blocks;
    size_t block_index, current;
    dim3 size, grid;
    std::function<void()> kernel;
    unsigned long round;
};

inline device now;

inline block &own_block()
{
    return now.blocks[now.block_index];
}

inline thread &own_thread()
{
    return own_block().threads[now.current];
}

[[noreturn]] inline void stop(const char *why)
{
    fprintf(stderr, "emulated device: block %zu, thread %zu: %s\n", now.block_index, now.current, why);
    abort();
}

inline uint32_t lane()
{
    return (uint32_t)now.current % WARP;
}

inline warp &own_warp()
{
    return own_block().warps[now.current / WARP];
}

inline void wait_until(std::function<bool()> ready)
{
    own_thread().ready = std::move(ready);
    swapcontext(&own_thread().context, &now.scheduler);
}

/* Until all of `count` have arrived. */
inline void meet(meeting &all, size_t count)
{
    const unsigned before = all.passed;
    if (++all.arrived == count) {
        all.arrived = 0;
        all.passed++;
        return;
    }
    wait_until([&all, before] { return all.passed != before; });
}

template <class T>
T take_from(T value, uint32_t other)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    own_warp().values[lane()] = bits;
    meet(own_warp().all, WARP);
    memcpy(&value, &own_warp().values[other % WARP], sizeof value);
    meet(own_warp().all, WARP);
    return value;
}

inline void run_thread()
{
    now.kernel();
    own_thread().done = true;
    swapcontext(&own_thread().context, &now.scheduler);
}

inline void prepare(block &b, unsigned index, unsigned thread_count)
{
    b.threads.resize(thread_count);
    b.warps.assign(thread_count / WARP, warp());
    b.index = {index, 0, 0};
    b.memory.assign(SHARED_BYTES + 128, 0xEE);
    for (unsigned i = 0; i < thread_count; i++) {
        thread &t = b.threads[i];
        t.stack.resize(STACK_BYTES);
        t.index = {i, 0, 0};
        t.done = false;
        t.groups.assign(1, {});
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = t.stack.data();
        t.context.uc_stack.ss_size = t.stack.size();
        makecontext(&t.context, run_thread, 0);
    }
}

/* A turn of a thread; false: it is done. */
inline bool take_turn(size_t block_index, size_t index)
{
    thread &t = now.blocks[block_index].threads[index];
    if (t.done) return false;
    now.block_index = block_index;
    now.current = index;
    if (now.round > ROUNDS_MAX) stop("waits for what never comes");
    if (t.ready && !t.ready()) return true;
    t.ready = nullptr;
    swapcontext(&now.scheduler, &t.context);
    return true;
}

/* Runs a grid; `backwards`: threads and blocks take turns in descending order. */
inline void run(unsigned block_count, unsigned thread_count, bool backwards, const std::function<void()> &kernel)
{
    now.grid = dim3(block_count);
    now.size = dim3(thread_count);
    now.kernel = kernel;
    now.blocks.clear();
    now.blocks.resize(block_count);
    for (unsigned b = 0; b < block_count; b++) prepare(now.blocks[b], b, thread_count);
    now.round = 0;
    const size_t all = (size_t)block_count * thread_count;
    for (bool any = true; any; now.round++) {
        any = false;
        for (size_t i = 0; i < all; i++) {
            const size_t turn = backwards ? all - 1 - i : i;
            any |= take_turn(turn / thread_count, turn % thread_count);
        }
    }
    for (const block &b : now.blocks) {
        if (!b.copies.empty()) stop("a copy that nobody waited for");
    }
}

inline float half_of(uint32_t pair, int i)
{
    const uint32_t bits = (i ? pair >> 16 : pair & 0xFFFF) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace emulated

#define threadIdx (emulated::own_thread().index)
#define blockIdx (emulated::own_block().index)
#define blockDim (emulated::now.size)
#define gridDim (emulated::now.grid)

static inline void __syncthreads()
{
    emulated::meet(emulated::own_block().all, emulated::own_block().threads.size());
}

static inline void __syncwarp()
{
    emulated::meet(emulated::own_warp().all, WARP);
}

static inline void __threadfence_block()
{
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

#define UNWRITTEN 0xFFFFFFFFu

static inline uint8_t *shared_memory()
{
    const uintptr_t first = (uintptr_t)emulated::own_block().memory.data();
    return (uint8_t *)((first + 127) / 128 * 128);
}

static inline bool is_written(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits != UNWRITTEN;
}

static inline bool are_written(const float4 &v)
{
    return is_written(v.x) && is_written(v.y) && is_written(v.z) && is_written(v.w);
}

static inline void publish(float *to, float value)
{
    if (is_written(*to)) emulated::stop("a number that is written twice");
    *to = value;
}

/* Others get a chance to write it, but need not. */
static inline float peek(const float *from)
{
    const unsigned long until = emulated::now.round + emulated::PATIENCE;
    if (!is_written(*from)) {
        emulated::wait_until([from, until] { return is_written(*from) || emulated::now.round > until; });
    }
    return *from;
}

static inline float4 peek_four(const float *from)
{
    if ((uintptr_t)from % 16) emulated::stop("four numbers that are not aligned");
    float4 v;
    v.x = peek(from);
    v.y = peek(from + 1);
    v.z = peek(from + 2);
    v.w = peek(from + 3);
    return v;
}

static inline float take(const float *from)
{
    if (!is_written(*from)) emulated::wait_until([from] { return is_written(*from); });
    return *from;
}

static inline void give_way()
{
    emulated::wait_until(nullptr);
}

static inline void start_copy(void *to, const void *from)
{
    if ((uintptr_t)from % 16 || (uintptr_t)to % 16) emulated::stop("a copy that is not aligned");
    const uint8_t *bytes = (const uint8_t *)from;
    emulated::own_thread().groups.back().push_back({(uint8_t *)to, std::vector<uint8_t>(bytes, bytes + 16)});
}

static inline void end_copies()
{
    emulated::own_thread().groups.push_back({});
}

template <int GROUPS>
static void finish_copies_but()
{
    auto &groups = emulated::own_thread().groups;
    while (groups.size() > GROUPS + 1) {
        for (const emulated::copy &c : groups.front()) memcpy(c.to, c.bytes.data(), c.bytes.size());
        groups.erase(groups.begin());
    }
}

template <int THREADS>
static void sync_threads()
{
    emulated::meet(emulated::own_block().named, THREADS);
}

static inline void open_slot(uint64_t *barrier)
{
    emulated::own_block().phases[barrier] = 0;
}

static inline void open_barrier(uint64_t *barrier)
{
    emulated::own_block().phases[barrier] = 0;
}

static inline void arrive(uint64_t *barrier)
{
    emulated::own_block().phases.at(barrier)++;
}

static inline void fetch_line(const void *)
{
}

static inline void publish_slots()
{
}

static inline void order_slot()
{
}

static inline void start_copy(uint8_t *slot, uint64_t *barrier, std::vector<uint8_t> bytes)
{
    if (emulated::own_block().copies.count(barrier)) emulated::stop("a slot is filled again before it was waited for");
    memset(slot, 0xFF, bytes.size()); /* not a number */
    if (rand() % 2) { /* it is there at once */
        memcpy(slot, bytes.data(), bytes.size());
        emulated::own_block().phases.at(barrier)++;
        return;
    }
    emulated::own_block().copies[barrier] = {slot, std::move(bytes)};
}

static inline void fill_slot(uint8_t *slot, uint64_t *barrier, const uint8_t *from, uint32_t byte_count, uint32_t lane)
{
    if ((uintptr_t)from % 16 || (uintptr_t)slot % 16 || byte_count % 16) emulated::stop("a copy that is not aligned");
    if (lane == 0) start_copy(slot, barrier, std::vector<uint8_t>(from, from + byte_count));
    __syncwarp();
}

struct alignas(64) row_map {
    const uint8_t *elements;
    uint32_t row_count, column_count, element_bytes;
};

static inline void acquire_map(const row_map *)
{
}

static inline void fill_slot_with_box(uint8_t *slot, uint64_t *barrier, const row_map *map, uint32_t rows, uint32_t row_bytes,
                                      uint32_t row, uint32_t column, uint32_t lane)
{
    const uint32_t bytes = map->column_count * map->element_bytes, first = column * map->element_bytes;
    if (bytes % 16 || (uintptr_t)map->elements % 16) emulated::stop("a matrix that is not aligned");
    if (lane == 0) {
        std::vector<uint8_t> box(rows * row_bytes);
        for (uint32_t i = 0; i < rows * row_bytes; i++) {
            const uint32_t r = row + i / row_bytes, at = first + i % row_bytes;
            if (r < map->row_count && at < bytes) box[i] = map->elements[(size_t)r * bytes + at];
        }
        start_copy(slot, barrier, std::move(box));
    }
    __syncwarp();
}

static inline void skip_slot(uint64_t *barrier, uint32_t lane)
{
    if (lane == 0) emulated::own_block().copies[barrier] = {};
    __syncwarp();
}

static inline void wait_for_slot(uint64_t *barrier, uint32_t parity)
{
    emulated::block &own = emulated::own_block();
    const unsigned &phases = own.phases.at(barrier);
    while (phases % 2 == parity) {
        auto copy = own.copies.find(barrier);
        if (copy == own.copies.end()) {
            emulated::wait_until([&own, &phases, barrier, parity] { return phases % 2 != parity || own.copies.count(barrier); });
            continue;
        }
        if (!copy->second.bytes.empty()) memcpy(copy->second.to, copy->second.bytes.data(), copy->second.bytes.size());
        own.copies.erase(copy);
        own.phases.at(barrier)++;
    }
    __syncwarp();
}

static inline bool is_passed(uint64_t *barrier, uint32_t parity)
{
    emulated::block &own = emulated::own_block();
    auto copy = own.copies.find(barrier);
    if (copy != own.copies.end() && rand() % 2) {
        if (!copy->second.bytes.empty()) memcpy(copy->second.to, copy->second.bytes.data(), copy->second.bytes.size());
        own.copies.erase(copy);
        own.phases.at(barrier)++;
    }
    return own.phases[barrier] % 2 != parity;
}

static inline uint32_t atomicAdd(uint32_t *to, uint32_t value)
{
    const uint32_t before = *to;
    *to += value;
    return before;
}

static inline int __popc(uint32_t value)
{
    return __builtin_popcount(value);
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

/* kernels_scaled.cuh - what the scaled form adds to the float form on the GPU: a chunk's head and scales, and products.
 * FORMAT.md 12.
 *
 * Scales are where a sum of sizes puts them, at any address. All are checked before the first is used. Products are those of
 * scaled.h, of two elements at a time by conversions that round as it does; where an infinity or NaN is among them, by scaled.h
 * itself.
 */
#ifndef CLLM_KERNELS_SCALED_CUH
#define CLLM_KERNELS_SCALED_CUH

#include "kernels_chunk.cuh"

/* The bits of the scale of an element. A scale lies in one or two words of memory, each of which has a byte of it. */
static __device__ __forceinline__ uint32_t load_scale(const struct gpu_scales &scales, uint32_t index)
{
    const bool half = scales.scale_type == CLLM_SCALE_F16;
    const uintptr_t from = (uintptr_t)scales.first + ((size_t)(index >> scales.group_log2) << (half ? 1 : 2));
    const uint32_t low = __ldg((const uint32_t *)(from & ~(uintptr_t)3));
    const uint32_t high = __ldg((const uint32_t *)((from + (half ? 1 : 3)) & ~(uintptr_t)3));
    const uint32_t bits = __funnelshift_r(low, high, 8 * (uint32_t)(from & 3));
    return half ? bits & 0xFFFF : bits;
}

static __device__ __forceinline__ float scale_of_bits(const struct gpu_scales &scales, uint32_t bits)
{
    return scales.scale_type == CLLM_SCALE_F16 ? cllm_scale_of_f16((uint16_t)bits) : __uint_as_float(bits);
}

/* Two levels of a word, finite ones, times a scale. */
static __device__ __forceinline__ uint32_t multiply_pair(enum cllm_scaled_type type, uint32_t levels, float scale)
{
    uint32_t elements;
    float low = __uint_as_float(levels << 16), high = __uint_as_float(levels & 0xFFFF0000);
    if (type == CLLM_SCALED_BF16) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(elements) : "f"(__fmul_rn(high, scale)), "f"(__fmul_rn(low, scale)));
        return elements;
    }
    asm("{ .reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }" : "=f"(low), "=f"(high) : "r"(levels));
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(elements) : "f"(__fmul_rn(high, scale)), "f"(__fmul_rn(low, scale)));
    return elements;
}

/* Two levels of a word, whatever they are. */
static __device__ __noinline__ uint32_t multiply_special(enum cllm_scaled_type type, uint32_t levels, float scale)
{
    return cllm_scaled_element(type, levels & 0xFFFF, scale) | cllm_scaled_element(type, levels >> 16, scale) << 16;
}

/* Eight levels of two bytes times a scale. */
static __device__ __forceinline__ uint4 multiply16(enum cllm_scaled_type type, uint4 levels, float scale)
{
    const uint32_t exponents = type == CLLM_SCALED_F16 ? 0x7C007C00 : 0x7F807F80;
    const uint32_t lowest = type == CLLM_SCALED_F16 ? 0x04000400 : 0x00800080; /* carries where the exponent has ones only */
    const uint32_t special = ((levels.x & exponents) + lowest) | ((levels.y & exponents) + lowest) |
                             ((levels.z & exponents) + lowest) | ((levels.w & exponents) + lowest);
    if (special & 0x80008000) {
        return make_uint4(multiply_special(type, levels.x, scale), multiply_special(type, levels.y, scale),
                          multiply_special(type, levels.z, scale), multiply_special(type, levels.w, scale));
    }
    return make_uint4(multiply_pair(type, levels.x, scale), multiply_pair(type, levels.y, scale),
                      multiply_pair(type, levels.z, scale), multiply_pair(type, levels.w, scale));
}

/* Four levels of four bytes times a scale. */
static __device__ __forceinline__ uint4 multiply32(uint4 levels, float scale)
{
    return make_uint4(
        cllm_scaled_element(CLLM_SCALED_F32, levels.x, scale), cllm_scaled_element(CLLM_SCALED_F32, levels.y, scale),
        cllm_scaled_element(CLLM_SCALED_F32, levels.z, scale), cllm_scaled_element(CLLM_SCALED_F32, levels.w, scale));
}

/* Neither negative nor infinite nor NaN. Asked of all threads, answered to all. */
static __device__ __forceinline__ bool are_scales_good(const struct gpu_scales &scales, uint32_t element_count)
{
    const uint32_t infinity = scales.scale_type == CLLM_SCALE_F16 ? 0x7C00 : 0x7F800000;
    bool good = true;
    for (uint64_t first = (uint64_t)threadIdx.x << scales.group_log2; first < element_count;
         first += (uint64_t)blockDim.x << scales.group_log2)
        good = good && load_scale(scales, (uint32_t)first) < infinity;
    return __syncthreads_and(good);
}

/* Makes of a scaled chunk its levels, a part in float form, and its scales. Returns to all threads whether it is one; nothing of
 * its head is used before all of it is checked. */
static __device__ __forceinline__ bool open_scaled(struct gpu_work &chunk, uint32_t *d_status)
{
    const uint4 words = *(const uint4 *)chunk.stored;
    const struct cllm_scaled_head head = {words.x, (uint8_t)words.y, (uint8_t)(words.y >> 8), (uint8_t)(words.y >> 16)};
    if (!cllm_scaled_head_fits(&head, chunk.layout.element_bytes, chunk.element_count, chunk.stored_bytes) ||
        (words.y >> 24 | words.z | words.w) != 0) {
        if (threadIdx.x == 0) report(d_status, chunk, GPU_BAD_HEADER);
        return false;
    }
    chunk.scales = {chunk.stored + CLLM_SCALED_HEAD_BYTES + head.float_bytes, (enum cllm_scaled_type)head.type,
                    (enum cllm_scale_type)head.scale_type, head.group_log2};
    if (!are_scales_good(chunk.scales, chunk.element_count)) {
        if (threadIdx.x == 0) report(d_status, chunk, GPU_BAD_SCALES);
        return false;
    }
    chunk.plane_bytes = CLLM_SCALED_HEAD_BYTES;
    chunk.stored_bytes = CLLM_SCALED_HEAD_BYTES + head.float_bytes;
    return true;
}

#endif

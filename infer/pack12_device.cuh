/* pack12_device.cuh - weights of the packed form decoded in registers. */
#ifndef CLLM_PACK12_DEVICE_CUH
#define CLLM_PACK12_DEVICE_CUH

#include "pack12_layout.h"

/* Upper bytes of the eight weights of a unit, weight i in byte i % 4 of word i / 4. One byte permute looks up four values, for
 * its selectors are the nibbles of the code word; their signs then fall in with one operation. */
static __device__ __forceinline__ void unit_uppers(uint64_t window, uint32_t codes, uint32_t uppers[2])
{
    const uint32_t selectors = codes & 0x77777777;
    const uint32_t first = __byte_perm((uint32_t)window, (uint32_t)(window >> 32), selectors);
    const uint32_t second = __byte_perm((uint32_t)window, (uint32_t)(window >> 32), selectors >> 16);
    uppers[0] = first | (codes & 0x80808080);
    uppers[1] = second | (codes << 4 & 0x80808080);
}

/* The lower or the higher two of four weights as a pair of BF16. */
static __device__ __forceinline__ uint32_t lower_pair(uint32_t lows, uint32_t uppers)
{
    return __byte_perm(lows, uppers, 0x5140);
}

static __device__ __forceinline__ uint32_t higher_pair(uint32_t lows, uint32_t uppers)
{
    return __byte_perm(lows, uppers, 0x7362);
}

#endif

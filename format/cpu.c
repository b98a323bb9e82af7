/* cpu.c - see cpu.h.
 *
 * F16C and LZCNT are not asked for by name, which not every compiler knows: each processor with AVX2 and BMI2 has them. */
#include "cpu.h"

enum cllm_cpu_tier cllm_cpu_tier(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2") ||
        !__builtin_cpu_supports("fma")) {
        return CLLM_CPU_PORTABLE;
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2")) {
        return CLLM_CPU_AVX512;
    }
    return CLLM_CPU_AVX2;
#else
    return CLLM_CPU_PORTABLE;
#endif
}

/* cpu.c - see cpu.h.
 *
 * F16C and LZCNT are not asked for by name, which not every compiler knows: each processor with AVX2 and BMI2 has them. */
#include "cpu.h"

#if defined(__x86_64__) && defined(__clang__)
#include <cpuid.h>
#endif

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

bool cllm_cpu_has_sha(void)
{
#if defined(__x86_64__) && defined(__clang__) /* which does not know that name */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA) && __builtin_cpu_supports("sse4.1");
#elif defined(__x86_64__)
    return __builtin_cpu_supports("sha") && __builtin_cpu_supports("sse4.1");
#else
    return false;
#endif
}

/* kernels.c - the one place that asks the processor what it can do for infer/.
 *
 * F16C and LZCNT are not asked for by name, which not every compiler knows: each processor with AVX2 and BMI2 has them. */
#include "kernels_tiers.h"

const struct cllm_kernels *cllm_kernels_of_tier(enum cllm_kernels_tier tier)
{
    switch (tier) {
    case CLLM_KERNELS_PORTABLE: return &cllm_kernels_portable;
#if defined(__x86_64__)
    case CLLM_KERNELS_AVX2: {
        bool usable = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2");
        return usable ? &cllm_kernels_avx2 : NULL;
    }
    case CLLM_KERNELS_AVX512: {
        bool usable = cllm_kernels_of_tier(CLLM_KERNELS_AVX2) && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
                      __builtin_cpu_supports("avx512vbmi2");
        return usable ? &cllm_kernels_avx512 : NULL;
    }
#endif
    default: return NULL;
    }
}

const struct cllm_kernels *cllm_kernels_best(void)
{
    for (int tier = CLLM_KERNELS_TIER_COUNT - 1; tier > CLLM_KERNELS_PORTABLE; tier--) {
        const struct cllm_kernels *kernels = cllm_kernels_of_tier((enum cllm_kernels_tier)tier);
        if (kernels) return kernels;
    }
    return &cllm_kernels_portable;
}

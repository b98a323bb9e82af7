/* cpu.h - which instructions this processor has: the one place that asks. */
#ifndef CLLM_CPU_H
#define CLLM_CPU_H

#include <stdbool.h>

/* Each tier has all that the one before has. Files *_avx2.c and *_avx512.c may use what their tier names. */
enum cllm_cpu_tier {
    CLLM_CPU_PORTABLE,
    CLLM_CPU_AVX2,   /* AVX2, BMI1, BMI2, LZCNT, FMA, F16C */
    CLLM_CPU_AVX512, /* and AVX-512 F, BW, DQ, VL, VBMI, VBMI2 */
    CLLM_CPU_TIERS,
};

/* The best tier that the processor and the system offer. Any thread may ask. */
enum cllm_cpu_tier cllm_cpu_tier(void);

/* Whether it has the SHA-256 instructions, and SSE4.1, for files *_shani.c. They come with any tier or none. */
bool cllm_cpu_has_sha(void);

#endif

/* kernels_tiers.h - the tables that kernels.c chooses from; only the kernels_*.c files include it. */
#ifndef CLLM_KERNELS_TIERS_H
#define CLLM_KERNELS_TIERS_H

#include "kernels.h"

extern const struct cllm_kernels cllm_kernels_portable;
#if defined(__x86_64__)
extern const struct cllm_kernels cllm_kernels_avx2;
extern const struct cllm_kernels cllm_kernels_avx512;
#endif

#endif

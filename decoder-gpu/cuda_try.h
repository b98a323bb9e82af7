/* cuda_try.h - CUDA errors as cllm_error. */
#ifndef CLLM_CUDA_TRY_H
#define CLLM_CUDA_TRY_H

#include "cllm_decode_gpu.h"

#include <cuda_runtime.h>

/* OK, or DEVICE (NOMEM where device memory is out) with what failed and why. */
static inline enum cllm_status cuda_try(cudaError_t result, const char *what, struct cllm_error *err)
{
    if (result == cudaSuccess) return CLLM_OK;
    (void)cudaGetLastError(); /* or the next call would report this error */
    return cllm_fail(err, result == cudaErrorMemoryAllocation ? CLLM_E_NOMEM : CLLM_E_DEVICE, CLLM_NO_OFFSET,
                     "GPU: cannot %s: %s", what, cudaGetErrorString(result));
}

#endif

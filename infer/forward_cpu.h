/* forward_cpu.h - the forward pass in float32 on the CPU.
 *
 * Weights are widened to float32 as they are read; everything else (activations, rotary angles, cache, sums, logits) is float32.
 * Results do not depend on the number of threads, on batching, or on which of the vector kernels is used.
 */
#ifndef CLLM_FORWARD_CPU_H
#define CLLM_FORWARD_CPU_H

#include "forward.h"
#include "kernels.h"
#include "model.h"

struct cllm_forward_cpu_options {
    uint32_t context_size;              /* positions that must fit, at least 1 */
    unsigned thread_count;              /* 0: as many as the process may use */
    const struct cllm_kernels *kernels; /* null: cllm_kernels_best() */
};

/* `model` must be loaded and outlive the result, which the caller owns (cllm_forward_destroy); on failure `*forward_out` is
 * null. Fails with NOMEM and LIMIT (the sizes do not fit the address space). */
enum cllm_status cllm_forward_cpu_create(const struct cllm_model *model, const struct cllm_forward_cpu_options *options,
                                         struct cllm_forward **forward_out, struct cllm_error *err) CLLM_MUST_USE;

#endif

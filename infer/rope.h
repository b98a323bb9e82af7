/* rope.h - the frequencies of rotary position embeddings (Su et al. 2021, "RoFormer"), with the scalings for long texts. */
#ifndef CLLM_ROPE_H
#define CLLM_ROPE_H

#include "config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A head's size and how many positions the text has so far; only dynamic scaling looks at the latter. */
struct cllm_rope_extent {
    uint32_t head_dim;
    uint32_t length;
};

/* Fills `frequencies` (head_dim / 2 of them). At position p the pair (x[i], x[i + head_dim / 2]) of a head is turned by the
 * angle p * frequencies[i], and both are multiplied by config->attention_factor.
 * In single precision, as the reference computes them, f[i] = theta^(-2i/d); then
 *   linear   f / factor
 *   dynamic  theta' = theta * (factor * length / original - (factor - 1))^(d/(d-2)), where length > original
 *            (the longest text that the model was made for, see config.h)
 *   llama3   wavelengths above original/low_freq_factor are divided by factor, those below original/high_freq_factor kept,
 *            linear in 1/wavelength between
 *   yarn     Peng et al. 2023: dimensions that turn more than beta_fast times over the original length are kept, those that turn
 *            less than beta_slow times divided by factor, linear in the dimension between */
void cllm_rope_frequencies(const struct cllm_rope_config *config, struct cllm_rope_extent extent, float *frequencies);

#ifdef __cplusplus
}
#endif

#endif

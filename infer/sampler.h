/* sampler.h - from logits to the next token.
 *
 * In this order: the repeat penalty; with temperature 0 the token with the highest logit, the lowest id where several have it;
 * otherwise the top_k most likely tokens; of these the fewest whose probabilities reach top_p; of these all that are at least
 * min_p times as likely as the first; and from these one at random, with probabilities proportional to exp(logit / temperature).
 * The filters look at the probabilities before the temperature. Probabilities are right to 1e-5 of each.
 *
 * The same options and the same logits give the same tokens. Random numbers: PCG XSH RR 64/32, O'Neill 2014, "PCG: A Family of
 * Simple Fast Space-Efficient Statistically Good Algorithms for Random Number Generation"; stream 54, one 32-bit number a token.
 */
#ifndef CLLM_SAMPLER_H
#define CLLM_SAMPLER_H

#include "cllm.h"

struct cllm_sampler_options {
    double temperature;    /* 0: always the most likely token */
    double top_p;          /* 1: off */
    double min_p;          /* 0: off */
    double repeat_penalty; /* of tokens that the text has already: positive logits are divided by it, others multiplied; 1: off */
    uint64_t seed;
    uint32_t top_k; /* 0: off */
};

struct cllm_sampler;

/* Options: temperature >= 0, top_p in (0, 1], min_p in [0, 1], repeat_penalty > 0, all finite; otherwise USAGE. The result is
 * owned by the caller (cllm_sampler_destroy); on failure `*sampler_out` is null. Fails also with NOMEM. */
enum cllm_status cllm_sampler_create(const struct cllm_sampler_options *options, uint32_t vocab_size,
                                     struct cllm_sampler **sampler_out, struct cllm_error *err) CLLM_MUST_USE;

/* Tells of a token of the text, for the repeat penalty; ids that are not below vocab_size are ignored. */
void cllm_sampler_accept(struct cllm_sampler *sampler, uint32_t id);

/* Chooses among vocab_size logits, which are not changed. NaN counts as minus infinity. */
uint32_t cllm_sampler_choose(struct cllm_sampler *sampler, const float *logits);

/* Accepts null. */
void cllm_sampler_destroy(struct cllm_sampler *sampler);

/* The generator, for tests. */
struct cllm_random {
    uint64_t state;
};
struct cllm_random cllm_random_seed(uint64_t seed);
uint32_t cllm_random_next(struct cllm_random *random);

#endif

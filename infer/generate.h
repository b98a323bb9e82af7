/* generate.h - a text goes on: prompt in, tokens out, one at a time. */
#ifndef CLLM_GENERATE_H
#define CLLM_GENERATE_H

#include "config.h"
#include "forward.h"
#include "sampler.h"

#define CLLM_GENERATE_UNLIMITED UINT64_MAX

struct cllm_generate_options {
    const uint32_t *prompt_ids;
    size_t prompt_count;  /* at least 1 */
    uint64_t token_limit; /* tokens to generate at most; CLLM_GENERATE_UNLIMITED: until an end token or the context is full */
    const struct cllm_config *config; /* whose end tokens stop */
    bool ignore_end;                  /* they do not */
    /* Called with each token as it is chosen, an end token included (is_end, and then it is the last one). Must not be null. */
    enum cllm_status (*token)(void *user, uint32_t id, bool is_end, struct cllm_error *err);
    /* Called with the vocab_size logits of each position in order: of the prompt, then of each generated token, the last one
     * included. May be null; what is computed for it alone is then left out. */
    enum cllm_status (*logits)(void *user, const float *logits, struct cllm_error *err);
    bool (*proceed)(void *user); /* asked now and then whether to go on; may be null */
    void *user;
};

enum cllm_generate_stop {
    CLLM_STOP_LIMIT,   /* token_limit tokens were generated */
    CLLM_STOP_END,     /* the model chose an end token */
    CLLM_STOP_CONTEXT, /* no further position fits the context */
};

struct cllm_generate_report {
    uint64_t prompt_count;    /* tokens processed */
    uint64_t generated_count; /* tokens chosen, an end token included */
    double prompt_seconds;
    double generate_seconds; /* from the end of the prompt on */
    enum cllm_generate_stop stop;
};

/* Processes the prompt and generates. `report_out` is filled in every case. Fails with USAGE (an empty prompt, an id outside
 * the vocabulary), LIMIT (the prompt is longer than the context), INTERRUPTED, or what a callback or `forward` returned. */
enum cllm_status cllm_generate(struct cllm_forward *forward, struct cllm_sampler *sampler,
                               const struct cllm_generate_options *options, struct cllm_generate_report *report_out,
                               struct cllm_error *err) CLLM_MUST_USE;

#endif

/* forward.h - a model that computes: tokens in, logits out. One implementation per kind of device; what uses it (generate.c)
 * does not know which.
 *
 * Thread rule: one caller at a time.
 */
#ifndef CLLM_FORWARD_H
#define CLLM_FORWARD_H

#include "cllm.h"

/* The next tokens of the text. */
struct cllm_forward_input {
    const uint32_t *ids;
    size_t id_count; /* at least 1 */
    /* Where not null, called in order with the vocab_size logits of each of these positions, valid during the call; a failure
     * is passed on. Where null, only the last position's logits are computed. */
    enum cllm_status (*logits)(void *user, const float *logits, struct cllm_error *err);
    /* Where not null, asked now and then whether to go on; false ends in INTERRUPTED. */
    bool (*proceed)(void *user);
    void *user;
};

/* Base of every implementation. */
struct cllm_forward {
    const char *device_name; /* for the user: what computes, the instruction set */
    uint32_t vocab_size;
    uint32_t context_size;   /* positions that fit */
    uint32_t position_count; /* of the text so far; its owner may lower it between runs, and the text goes on from there */
    unsigned thread_count;   /* of the CPU */
    uint64_t memory_bytes;   /* cache and buffers, without the weights */
    float *logits;           /* of the last position, after a run; vocab_size of them */

    enum cllm_status (*run)(struct cllm_forward *forward, const struct cllm_forward_input *input, struct cllm_error *err);
    void (*destroy)(struct cllm_forward *forward);
};

/* Appends tokens to the text and computes logits. Results are the same however a text is cut into runs (dynamic rotary scaling
 * apart, which depends on the length known at each run). Fails with USAGE (an id is not below vocab_size), LIMIT (the context
 * is full), INTERRUPTED, DEVICE, or what `logits` returned; position_count then tells how much was appended. */
enum cllm_status cllm_forward_run(struct cllm_forward *forward, const struct cllm_forward_input *input,
                                  struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null. */
void cllm_forward_destroy(struct cllm_forward *forward);

#endif

/* forward.c - what all implementations check. */
#include "forward.h"

enum cllm_status cllm_forward_run(struct cllm_forward *forward, const struct cllm_forward_input *input, struct cllm_error *err)
{
    for (size_t i = 0; i < input->id_count; i++) {
        if (input->ids[i] >= forward->vocab_size) {
            return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "found token id %u, expected one below %u, the vocabulary's size",
                             input->ids[i], forward->vocab_size);
        }
    }
    if (input->id_count > forward->context_size - forward->position_count) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "the text has %llu tokens, the context holds %u",
                         (unsigned long long)forward->position_count + input->id_count, forward->context_size);
    }
    return forward->run(forward, input, err);
}

void cllm_forward_destroy(struct cllm_forward *forward)
{
    if (forward) forward->destroy(forward);
}

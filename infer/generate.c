/* generate.c - the loop around a forward pass and a sampler. */
#include "generate.h"

#include <time.h>

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static enum cllm_status run_ids(struct cllm_forward *forward, const struct cllm_generate_options *options, const uint32_t *ids,
                                size_t id_count, struct cllm_error *err)
{
    const struct cllm_forward_input input = {ids, id_count, options->logits, options->proceed, options->user};
    return cllm_forward_run(forward, &input, err);
}

/* After each chosen token the text has one position more; that position is computed only if something needs its logits. */
static enum cllm_status generate_tokens(struct cllm_forward *forward, struct cllm_sampler *sampler,
                                        const struct cllm_generate_options *options, struct cllm_generate_report *report,
                                        struct cllm_error *err)
{
    while (report->generated_count < options->token_limit) {
        const uint32_t id = cllm_sampler_choose(sampler, forward->logits);
        const bool is_end = !options->ignore_end && cllm_config_is_end(options->config, id);
        cllm_sampler_accept(sampler, id);
        report->generated_count++;
        enum cllm_status status = options->token(options->user, id, is_end, err);
        const bool is_last = is_end || report->generated_count == options->token_limit;
        const bool is_full = forward->position_count == forward->context_size;
        if (!status && !is_full && (!is_last || options->logits)) status = run_ids(forward, options, &id, 1, err);
        report->stop = is_end ? CLLM_STOP_END : is_last ? CLLM_STOP_LIMIT : CLLM_STOP_CONTEXT;
        if (status || is_last || is_full) return status;
    }
    report->stop = CLLM_STOP_LIMIT;
    return CLLM_OK;
}

enum cllm_status cllm_generate(struct cllm_forward *forward, struct cllm_sampler *sampler,
                               const struct cllm_generate_options *options, struct cllm_generate_report *report_out,
                               struct cllm_error *err)
{
    const double start = seconds_now();
    *report_out = (struct cllm_generate_report){.prompt_count = options->prompt_count};
    if (options->prompt_count == 0) return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "the prompt has no tokens, expected one");
    for (size_t i = 0; i < options->prompt_count; i++) {
        cllm_sampler_accept(sampler, options->prompt_ids[i]);
    }
    enum cllm_status status = run_ids(forward, options, options->prompt_ids, options->prompt_count, err);
    const double prompt_end = seconds_now();
    report_out->prompt_seconds = prompt_end - start;
    if (!status) status = generate_tokens(forward, sampler, options, report_out, err);
    report_out->generate_seconds = seconds_now() - prompt_end;
    return status;
}

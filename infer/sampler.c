/* sampler.c - choosing a token. Candidates are kept as a heap with the most likely on top: only as many as the filters let pass
 * are ever sorted. */
#include "sampler.h"

#include <math.h>
#include <stdlib.h>

struct candidate {
    float logit;
    uint32_t id;
};

struct cllm_sampler {
    struct cllm_sampler_options options;
    struct cllm_random random;
    uint32_t vocab_size;
    struct candidate *candidates; /* vocab_size of them */
    double *shares;               /* of the candidates that passed the filters, most likely first */
    bool *seen;                   /* by id: the text has it */
};

/* ------------------------------------------------------------------------------------------------------------ random */

#define PCG_MULTIPLIER UINT64_C(6364136223846793005)
#define PCG_INCREMENT (UINT64_C(54) << 1 | 1)

uint32_t cllm_random_next(struct cllm_random *random)
{
    const uint64_t state = random->state;
    random->state = state * PCG_MULTIPLIER + PCG_INCREMENT;
    const uint32_t mixed = (uint32_t)(((state >> 18) ^ state) >> 27);
    const uint32_t rotation = (uint32_t)(state >> 59);
    return mixed >> rotation | mixed << (-rotation & 31);
}

struct cllm_random cllm_random_seed(uint64_t seed)
{
    struct cllm_random random = {0};
    cllm_random_next(&random);
    random.state += seed;
    cllm_random_next(&random);
    return random;
}

/* -------------------------------------------------------------------------------------------------------- candidates */

static bool is_before(struct candidate left, struct candidate right)
{
    return left.logit > right.logit || (left.logit == right.logit && left.id < right.id);
}

/* Lets the candidate at `at` sink to where it belongs. */
static void sink_candidate(struct candidate *heap, uint32_t count, uint32_t at)
{
    const struct candidate moved = heap[at];
    for (uint64_t child; (child = 2 * (uint64_t)at + 1) < count; at = (uint32_t)child) {
        if (child + 1 < count && is_before(heap[child + 1], heap[child])) child++;
        if (!is_before(heap[child], moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* Takes the most likely candidate off the heap of `count` and puts it behind the others. */
static struct candidate pop_candidate(struct candidate *heap, uint32_t count)
{
    const struct candidate top = heap[0];
    heap[0] = heap[count - 1];
    heap[count - 1] = top;
    sink_candidate(heap, count - 1, 0);
    return top;
}

static void fill_candidates(struct cllm_sampler *sampler, const float *logits)
{
    const float penalty = (float)sampler->options.repeat_penalty;
    for (uint32_t id = 0; id < sampler->vocab_size; id++) {
        float logit = isnan(logits[id]) ? -INFINITY : logits[id];
        /* Keskar et al. 2019, "CTRL", section 4.1; with the sign looked at, or a negative logit would be favoured */
        if (sampler->seen[id]) logit = logit > 0 ? logit / penalty : logit * penalty;
        sampler->candidates[id] = (struct candidate){logit, id};
    }
}

static uint32_t most_likely(const struct candidate *candidates, uint32_t count)
{
    struct candidate best = candidates[0];
    for (uint32_t i = 1; i < count; i++) {
        if (is_before(candidates[i], best)) best = candidates[i];
    }
    return best.id;
}

/* Sum of exp(logit - highest) over the candidates from `first` on. */
static double sum_shares(const struct candidate *candidates, uint32_t first, uint32_t end, float highest)
{
    double sum = 0;
    for (uint32_t i = first; i < end; i++) {
        sum += exp((double)candidates[i].logit - highest);
    }
    return sum;
}

/* Moves the candidates that pass all filters to the end of the array, the most likely last, and returns how many. */
static uint32_t filter_candidates(struct cllm_sampler *sampler)
{
    const struct cllm_sampler_options *options = &sampler->options;
    struct candidate *heap = sampler->candidates;
    const uint32_t count = sampler->vocab_size;
    const uint32_t limit = options->top_k && options->top_k < count ? options->top_k : count;
    for (uint32_t at = count / 2; at-- > 0;) {
        sink_candidate(heap, count, at);
    }
    const float highest = heap[0].logit;
    uint32_t sorted = 0;
    while (limit < count && sorted < limit) {
        pop_candidate(heap, count - sorted++);
    }
    const double total = sum_shares(heap, count - limit, count, highest);
    double reached = 0;
    for (uint32_t kept = 0; kept < limit; kept++) {
        if (kept == sorted) pop_candidate(heap, count - sorted++);
        const double share = exp((double)heap[count - 1 - kept].logit - highest);
        if (kept > 0 && (share < options->min_p || (options->top_p < 1 && reached >= options->top_p * total))) return kept;
        reached += share;
    }
    return limit;
}

static uint32_t draw_candidate(struct cllm_sampler *sampler, uint32_t kept_count)
{
    const struct candidate *last = sampler->candidates + sampler->vocab_size - 1;
    const double temperature = sampler->options.temperature;
    double sum = 0;
    for (uint32_t i = 0; i < kept_count; i++) {
        sampler->shares[i] = exp(((double)last[-(ptrdiff_t)i].logit - last->logit) / temperature);
        sum += sampler->shares[i];
    }
    double left = cllm_random_next(&sampler->random) * 0x1p-32 * sum;
    for (uint32_t i = 0; i < kept_count; i++) {
        left -= sampler->shares[i];
        if (left < 0) return last[-(ptrdiff_t)i].id;
    }
    return last->id; /* rounding, or logits that are infinite */
}

uint32_t cllm_sampler_choose(struct cllm_sampler *sampler, const float *logits)
{
    fill_candidates(sampler, logits);
    if (sampler->options.temperature == 0) return most_likely(sampler->candidates, sampler->vocab_size);
    return draw_candidate(sampler, filter_candidates(sampler));
}

void cllm_sampler_accept(struct cllm_sampler *sampler, uint32_t id)
{
    if (id < sampler->vocab_size) sampler->seen[id] = true;
}

/* ---------------------------------------------------------------------------------------------------------- creation */

static enum cllm_status check_options(const struct cllm_sampler_options *options, struct cllm_error *err)
{
    const struct {
        const char *name, *expected;
        double value;
        bool valid;
    } checks[] = {
        {"temperature", "a number from 0 to 1000", options->temperature,
         options->temperature >= 0 && options->temperature <= 1000},
        {"top-p", "a number above 0, up to 1", options->top_p, options->top_p > 0 && options->top_p <= 1},
        {"min-p", "a number from 0 to 1", options->min_p, options->min_p >= 0 && options->min_p <= 1},
        {"repeat penalty", "a number from 0.01 to 100", options->repeat_penalty,
         options->repeat_penalty >= 0.01 && options->repeat_penalty <= 100},
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        if (checks[i].valid) continue;
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "%s: found %g, expected %s", checks[i].name, checks[i].value,
                         checks[i].expected);
    }
    return CLLM_OK;
}

enum cllm_status cllm_sampler_create(const struct cllm_sampler_options *options, uint32_t vocab_size,
                                     struct cllm_sampler **sampler_out, struct cllm_error *err)
{
    *sampler_out = NULL;
    enum cllm_status status = check_options(options, err);
    if (status) return status;
    struct cllm_sampler *sampler = calloc(1, sizeof *sampler);
    if (!sampler) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a sampler");
    sampler->options = *options;
    sampler->random = cllm_random_seed(options->seed);
    sampler->vocab_size = vocab_size;
    sampler->candidates = calloc(vocab_size, sizeof *sampler->candidates);
    sampler->shares = calloc(vocab_size, sizeof *sampler->shares);
    sampler->seen = calloc(vocab_size, sizeof *sampler->seen);
    if (!sampler->candidates || !sampler->shares || !sampler->seen) {
        cllm_sampler_destroy(sampler);
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a sampler of %u tokens", vocab_size);
    }
    *sampler_out = sampler;
    return CLLM_OK;
}

void cllm_sampler_destroy(struct cllm_sampler *sampler)
{
    if (!sampler) return;
    free(sampler->seen);
    free(sampler->shares);
    free(sampler->candidates);
    free(sampler);
}

/* sampler.c - choosing a token. Nearly all logits are only compared with the least likely candidate so far; candidates then are a
 * heap with the most likely on top, so that only as many as the filters let pass are ever sorted. */
#include "sampler.h"

#include <math.h>
#include <stdlib.h>

#define SCAN_LOGITS 64 /* compared together */

struct candidate {
    float logit;
    uint32_t id;
};

struct cllm_sampler {
    struct cllm_sampler_options options;
    struct cllm_random random;
    uint32_t vocab_size;
    float *penalized;             /* logits, where there is a penalty */
    struct candidate *candidates; /* room for vocab_size of them */
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

static inline bool is_before(struct candidate left, struct candidate right)
{
    return left.logit > right.logit || (left.logit == right.logit && left.id < right.id);
}

static inline bool is_behind(struct candidate left, struct candidate right)
{
    return is_before(right, left);
}

typedef bool candidate_order(struct candidate left, struct candidate right);

/* Lets the candidate at `at` sink to where it belongs; `order`: whether the left one is to be nearer the top. */
static inline void sink_candidate(struct candidate *heap, uint32_t count, uint32_t at, candidate_order *order)
{
    const struct candidate moved = heap[at];
    for (uint64_t child; (child = 2 * (uint64_t)at + 1) < count; at = (uint32_t)child) {
        if (child + 1 < count && order(heap[child + 1], heap[child])) child++;
        if (!order(heap[child], moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static inline void make_heap(struct candidate *heap, uint32_t count, candidate_order *order)
{
    for (uint32_t at = count / 2; at-- > 0;) sink_candidate(heap, count, at, order);
}

/* Takes the most likely candidate off the heap of `count` and puts it behind the others. */
static void pop_candidate(struct candidate *heap, uint32_t count)
{
    const struct candidate top = heap[0];
    heap[0] = heap[count - 1];
    heap[count - 1] = top;
    sink_candidate(heap, count - 1, 0, is_before);
}

static struct candidate make_candidate(const float *logits, uint32_t id)
{
    return (struct candidate){isnan(logits[id]) ? -INFINITY : logits[id], id};
}

/* Keskar et al. 2019, "CTRL", section 4.1; with the sign looked at, or a negative logit would be favoured. */
static const float *penalize(struct cllm_sampler *sampler, const float *logits)
{
    const float penalty = (float)sampler->options.repeat_penalty;
    if (penalty == 1) return logits;
    for (uint32_t id = 0; id < sampler->vocab_size; id++) {
        const float logit = logits[id];
        sampler->penalized[id] = !sampler->seen[id] ? logit : logit > 0 ? logit / penalty : logit * penalty;
    }
    return sampler->penalized;
}

/* Whether one of SCAN_LOGITS is above `bound`; no branches, so that compilers use vectors. */
static bool any_above(const float *logits, float bound)
{
    int any = 0;
    for (uint32_t i = 0; i < SCAN_LOGITS; i++) any |= logits[i] > bound;
    return any;
}

/* Leaves the `limit` most likely tokens as candidates, in no order. */
static void select_candidates(struct cllm_sampler *sampler, const float *logits, uint32_t limit)
{
    const uint32_t count = sampler->vocab_size;
    struct candidate *heap = sampler->candidates; /* the least likely on top */
    for (uint32_t id = 0; id < limit; id++) heap[id] = make_candidate(logits, id);
    if (limit == count) return;
    make_heap(heap, limit, is_behind);
    for (uint32_t id = limit; id < count;) {
        if (count - id >= SCAN_LOGITS && !any_above(logits + id, heap[0].logit)) {
            id += SCAN_LOGITS;
            continue;
        }
        const uint32_t end = count - id < SCAN_LOGITS ? count : id + SCAN_LOGITS;
        for (; id < end; id++) {
            if (!(logits[id] > heap[0].logit)) continue; /* the same logit with a higher id is less likely */
            heap[0] = make_candidate(logits, id);
            sink_candidate(heap, limit, 0, is_behind);
        }
    }
}

/* Sum of exp(logit - highest). */
static double sum_shares(const struct candidate *candidates, uint32_t count, float highest)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) sum += exp((double)candidates[i].logit - highest);
    return sum;
}

/* Moves those of `count` candidates that pass the filters to the end, the most likely last, and returns how many. */
static uint32_t filter_candidates(struct cllm_sampler *sampler, uint32_t count)
{
    const struct cllm_sampler_options *options = &sampler->options;
    struct candidate *heap = sampler->candidates;
    make_heap(heap, count, is_before);
    const float highest = heap[0].logit;
    const double enough = options->top_p < 1 ? options->top_p * sum_shares(heap, count, highest) : INFINITY;
    double reached = 0;
    for (uint32_t kept = 0; kept < count; kept++) {
        const double share = exp((double)heap[0].logit - highest);
        if (kept > 0 && (share < options->min_p || reached >= enough)) return kept;
        pop_candidate(heap, count - kept);
        reached += share;
    }
    return count;
}

/* `last`: the most likely of those kept, the others before it. */
static uint32_t draw_candidate(struct cllm_sampler *sampler, const struct candidate *last, uint32_t kept_count)
{
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
    const struct cllm_sampler_options *options = &sampler->options;
    const bool is_greedy = options->temperature == 0;
    const uint32_t most = is_greedy ? 1 : options->top_k;
    const uint32_t limit = most && most < sampler->vocab_size ? most : sampler->vocab_size;
    select_candidates(sampler, penalize(sampler, logits), limit);
    if (is_greedy) return sampler->candidates[0].id;
    const uint32_t kept_count = filter_candidates(sampler, limit);
    return draw_candidate(sampler, sampler->candidates + limit - 1, kept_count);
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
    sampler->penalized = calloc(vocab_size, sizeof *sampler->penalized);
    sampler->candidates = calloc(vocab_size, sizeof *sampler->candidates);
    sampler->shares = calloc(vocab_size, sizeof *sampler->shares);
    sampler->seen = calloc(vocab_size, sizeof *sampler->seen);
    if (!sampler->penalized || !sampler->candidates || !sampler->shares || !sampler->seen) {
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
    free(sampler->penalized);
    free(sampler);
}

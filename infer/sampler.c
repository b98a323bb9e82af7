/* sampler.c - choosing a token. With a top_k nearly all logits are only compared with the least likely candidate so far. Whatever
 * the filters let pass, no more is sorted than the few candidates about where top_p is reached. */
#include "sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64         /* logits looked at together: loops of known lengths without branches, which compilers make vectors of */
#define BINS 2048        /* of candidates, by how far they are below the most likely one */
#define BINS_PER_UNIT 32 /* of a logit */

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
    struct candidate *border;     /* the same: those that top_p may cut between */
    float *shares;                /* of the candidates that are left, and up to a whole block */
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

/* Whether one of a block is above `bound`. */
static bool any_above(const float *logits, float bound)
{
    int any = 0;
    for (uint32_t i = 0; i < BLOCK; i++) any |= logits[i] > bound;
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
        if (count - id >= BLOCK && !any_above(logits + id, heap[0].logit)) {
            id += BLOCK;
            continue;
        }
        const uint32_t end = count - id < BLOCK ? count : id + BLOCK;
        for (; id < end; id++) {
            if (!(logits[id] > heap[0].logit)) continue; /* the same logit with a higher id is less likely */
            heap[0] = make_candidate(logits, id);
            sink_candidate(heap, limit, 0, is_behind);
        }
    }
}

/* Leaves all tokens that are at least `bound` likely as candidates, by id. Returns how many. */
static uint32_t take_candidates(struct cllm_sampler *sampler, const float *logits, double bound)
{
    const float below = nextafterf((float)bound, -INFINITY);
    uint32_t taken = 0;
    for (uint32_t id = 0; id < sampler->vocab_size;) {
        const uint32_t left = sampler->vocab_size - id, end = id + (left < BLOCK ? left : BLOCK);
        if (left >= BLOCK && !any_above(logits + id, below)) id = end;
        for (; id < end; id++) {
            if (logits[id] >= bound) sampler->candidates[taken++] = make_candidate(logits, id);
        }
    }
    return taken;
}

/* ------------------------------------------------------------------------------------------------------------ shares */

/* e^x of a block in place, for x <= 0, to 1e-5 of it: a power of two times a polynomial; 0 below -87, where floats end, and for
 * what is no number. */
static void exp_block(float block[BLOCK])
{
    float inside[BLOCK], factor[BLOCK], power[BLOCK];
    uint32_t bits[BLOCK];
    for (uint32_t i = 0; i < BLOCK; i++) inside[i] = block[i] > -87 ? block[i] : -87;
    for (uint32_t i = 0; i < BLOCK; i++) {
        const float scaled = inside[i] * 1.44269504f;
        const int32_t whole = (int32_t)(scaled - 0.5f);
        const float t = (scaled - (float)whole) * 0.69314718f;
        factor[i] = 1 + t * (1 + t * (1 / 2.f + t * (1 / 6.f + t * (1 / 24.f + t * (1 / 120.f)))));
        bits[i] = (uint32_t)(whole + 127) << 23;
    }
    memcpy(power, bits, sizeof power);
    for (uint32_t i = 0; i < BLOCK; i++) block[i] = block[i] > -87 ? factor[i] * power[i] : 0;
}

/* To their shares; the result is the sum. */
static double share_block(float logits[BLOCK])
{
    float sums[BLOCK];
    exp_block(logits);
    memcpy(sums, logits, sizeof sums);
    for (uint32_t width = BLOCK / 2; width; width /= 2) {
        for (uint32_t i = 0; i < width; i++) sums[i] += sums[width + i];
    }
    return sums[0];
}

/* The sum of e^(logit - highest) of all tokens. */
static double sum_shares(const float *logits, uint32_t count, float highest)
{
    double sum = 0;
    for (uint32_t first = 0; first < count; first += BLOCK) {
        float block[BLOCK] = {0};
        const uint32_t filled = count - first < BLOCK ? count - first : BLOCK;
        for (uint32_t i = 0; i < filled; i++) block[i] = logits[first + i] - highest;
        for (uint32_t i = filled; i < BLOCK; i++) block[i] = -INFINITY;
        sum += share_block(block);
    }
    return sum;
}

static float find_highest(const float *logits, uint32_t count)
{
    float highest[BLOCK], most = -INFINITY;
    for (uint32_t i = 0; i < BLOCK; i++) highest[i] = -INFINITY;
    for (uint32_t first = 0; first + BLOCK <= count; first += BLOCK) {
        for (uint32_t i = 0; i < BLOCK; i++) highest[i] = logits[first + i] > highest[i] ? logits[first + i] : highest[i];
    }
    for (uint32_t i = 0; i < BLOCK; i++) most = highest[i] > most ? highest[i] : most;
    for (uint32_t id = count / BLOCK * BLOCK; id < count; id++) most = logits[id] > most ? logits[id] : most;
    return most;
}

static float find_highest_candidate(const struct candidate *candidates, uint32_t count)
{
    float highest = candidates[0].logit;
    for (uint32_t i = 1; i < count; i++) highest = candidates[i].logit > highest ? candidates[i].logit : highest;
    return highest;
}

/* ----------------------------------------------------------------------------------------------------------- filters */

static uint32_t find_bin(struct candidate candidate, float highest)
{
    const float below = (highest - candidate.logit) * BINS_PER_UNIT;
    return below < BINS - 1 ? (uint32_t)below : BINS - 1;
}

/* The shares of `count` candidates, by logits divided by the temperature; the result is their sum. */
static double share_candidates(struct cllm_sampler *sampler, uint32_t count, float highest, double temperature)
{
    const struct candidate *candidates = sampler->candidates;
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) sampler->shares[i] = (float)(((double)candidates[i].logit - highest) / temperature);
    for (uint32_t first = 0; first < count; first += BLOCK) {
        for (uint32_t i = count; i < first + BLOCK; i++) sampler->shares[i] = -INFINITY;
        sum += share_block(sampler->shares + first);
    }
    return sum;
}

/* Keeps the fewest and most likely of `count` candidates whose shares reach `enough`, which is above 0. Returns how many. */
static uint32_t keep_enough(struct cllm_sampler *sampler, uint32_t count, float highest, double enough)
{
    struct candidate *candidates = sampler->candidates, *border = sampler->border;
    double mass[BINS] = {0}, reached = 0;
    uint32_t last = 0, kept = 0, border_count = 0;
    share_candidates(sampler, count, highest, 1);
    for (uint32_t i = 0; i < count; i++) mass[find_bin(candidates[i], highest)] += sampler->shares[i];
    while (last < BINS - 1 && reached + mass[last] < enough) reached += mass[last++];
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t bin = find_bin(candidates[i], highest);
        if (bin < last) candidates[kept++] = candidates[i];
        if (bin == last) border[border_count++] = candidates[i];
    }
    make_heap(border, border_count, is_before);
    for (; reached < enough && border_count; border_count--) {
        reached += exp((double)border[0].logit - highest);
        candidates[kept++] = border[0];
        pop_candidate(border, border_count);
    }
    return kept;
}

/* Keeps those of `count` candidates that are at least `bound`. Returns how many. */
static uint32_t keep_above(struct candidate *candidates, uint32_t count, double bound)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (candidates[i].logit >= bound) candidates[kept++] = candidates[i];
    }
    return kept;
}

/* Leaves the candidates that pass all filters, and returns how many; none where no logit is finite. */
static uint32_t find_candidates(struct cllm_sampler *sampler, const float *logits, float *highest_out)
{
    const struct cllm_sampler_options *options = &sampler->options;
    const bool is_limited = options->top_k && options->top_k < sampler->vocab_size;
    uint32_t count = is_limited ? options->top_k : 0;
    if (is_limited) select_candidates(sampler, logits, count);
    const float highest =
        is_limited ? find_highest_candidate(sampler->candidates, count) : find_highest(logits, sampler->vocab_size);
    const double bound = highest + log(options->min_p);
    double sum = 0;
    *highest_out = highest;
    if (!isfinite(highest)) return 0;
    if (is_limited) {
        if (options->top_p < 1) sum = share_candidates(sampler, count, highest, 1);
        count = keep_above(sampler->candidates, count, bound);
    } else {
        if (options->top_p < 1) sum = sum_shares(logits, sampler->vocab_size, highest);
        count = take_candidates(sampler, logits, bound);
    }
    return options->top_p < 1 ? keep_enough(sampler, count, highest, options->top_p * sum) : count;
}

static uint32_t draw_candidate(struct cllm_sampler *sampler, uint32_t count, float highest)
{
    const double sum = share_candidates(sampler, count, highest, sampler->options.temperature);
    double left = cllm_random_next(&sampler->random) * 0x1p-32 * sum;
    uint32_t drawn = 0;
    for (uint32_t i = 0; i < count && left >= 0; i++) {
        if (sampler->shares[i] == 0) continue;
        left -= sampler->shares[i];
        drawn = i; /* the last one that can be drawn, should rounding leave something */
    }
    return sampler->candidates[drawn].id;
}

uint32_t cllm_sampler_choose(struct cllm_sampler *sampler, const float *logits)
{
    float highest;
    logits = penalize(sampler, logits);
    const uint32_t count = sampler->options.temperature > 0 ? find_candidates(sampler, logits, &highest) : 0;
    if (count) return draw_candidate(sampler, count, highest);
    select_candidates(sampler, logits, 1);
    return sampler->candidates[0].id;
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
    sampler->border = calloc(vocab_size, sizeof *sampler->border);
    sampler->shares = calloc((size_t)vocab_size + BLOCK, sizeof *sampler->shares);
    sampler->seen = calloc(vocab_size, sizeof *sampler->seen);
    if (!sampler->penalized || !sampler->candidates || !sampler->border || !sampler->shares || !sampler->seen) {
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
    free(sampler->border);
    free(sampler->candidates);
    free(sampler->penalized);
    free(sampler);
}

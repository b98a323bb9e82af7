/* fit_scales.c - see fit_scales.h.
 *
 * An element v that is k times s, rounded, bounds s: it is between the ends of what rounds to v, over k. The greatest element of
 * a group is tried as 1, 2, 3, … times s, or, where numbers are those of F8_E4M3, as the greatest of these, the next one, …; each
 * other element, from small to large, then has one k that it may be, and narrows s. What is left of s is tried on all elements,
 * bit by bit. Of numbers of F8_E4M3 the greatest are taken that are right: half of the scale and twice the numbers are as good,
 * and so all of them stay such numbers.
 */
#include "fit_scales.h"

#include <math.h>
#include <stdlib.h>

#define WINDOW 32u         /* elements that are looked at first */
#define WINDOW_NONZERO 12u /* that must not be zero for that */
#define WINDOWS 128u
#define VALUES_MAX 256u
#define SLOTS_LOG2_MIN 6u /* of a hash table, at most half full */
#define SLOTS_LOG2_MAX 10u
#define SORTED_BY_HAND_MAX 32u
#define GROUP_LOG2_FIRST 12u /* larger groups hardly save anything */
#define LIKELY 4u            /* numbers that the greatest element of a group was found to be, tried first */

#define E4M3_MAX 448.0
#define E4M3_LEAST 0x1p-9 /* between those below 2^-5; above, it doubles with each power of two */

/* Magnitudes of a group, each once, ascending: as bits their order is that of the numbers. */
struct magnitudes {
    uint32_t bits[VALUES_MAX];
    double value[VALUES_MAX], least[VALUES_MAX], most[VALUES_MAX]; /* and the ends of what rounds to it */
    unsigned count;                                                /* without zero */
};

static uint32_t element_at(enum cllm_scaled_type type, const uint8_t *elements, uint32_t i)
{
    return type == CLLM_SCALED_F32 ? cllm_load_le32(elements + (size_t)i * 4) : cllm_load_le16(elements + (size_t)i * 2);
}

static uint32_t sign_of(enum cllm_scaled_type type)
{
    return type == CLLM_SCALED_F32 ? 0x80000000 : 0x8000;
}

static double value_of(enum cllm_scaled_type type, uint32_t magnitude)
{
    if (type == CLLM_SCALED_F16) return cllm_scale_of_f16((uint16_t)magnitude);
    return cllm_float_of_bits(type == CLLM_SCALED_F32 ? magnitude : magnitude << 16);
}

static int compare_bits(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Mostly there are few: then qsort takes longer than all else. */
static void sort_bits(uint32_t *bits, unsigned count)
{
    if (count > SORTED_BY_HAND_MAX) {
        qsort(bits, count, sizeof *bits, compare_bits);
        return;
    }
    for (unsigned i = 1; i < count; i++) {
        const uint32_t moved = bits[i];
        unsigned k = i;
        for (; k > 0 && bits[k - 1] > moved; k--) bits[k] = bits[k - 1];
        bits[k] = moved;
    }
}

/* False where there are too many, or one that is no number. */
static bool collect_magnitudes(enum cllm_scaled_type type, const uint8_t *elements, uint32_t count, struct magnitudes *found)
{
    uint32_t slots[1u << SLOTS_LOG2_MAX];
    unsigned slots_log2 = SLOTS_LOG2_MIN;
    while (slots_log2 < SLOTS_LOG2_MAX && count > 1u << (slots_log2 - 1)) slots_log2++;
    memset(slots, 0, sizeof *slots << slots_log2);
    const uint32_t last = (1u << slots_log2) - 1, sign = sign_of(type), infinity = cllm_scaled_infinity(type);
    found->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t bits = element_at(type, elements, i) & (sign - 1);
        uint32_t slot = bits * 2654435761u >> (32 - slots_log2);
        if (bits == 0) continue;
        while (slots[slot] && slots[slot] != bits) slot = (slot + 1) & last;
        if (slots[slot]) continue;
        if (bits >= infinity || found->count == VALUES_MAX) return false;
        slots[slot] = bits;
        found->bits[found->count++] = bits;
    }
    sort_bits(found->bits, found->count);
    for (unsigned i = 0; i < found->count; i++) {
        const double value = value_of(type, found->bits[i]), above = value_of(type, found->bits[i] + 1);
        found->value[i] = value;
        found->least[i] = (value + value_of(type, found->bits[i] - 1)) / 2;
        found->most[i] = found->bits[i] + 1 < infinity ? (value + above) / 2 : value;
    }
    return true;
}

/* Between numbers of F8_E4M3 around a positive one. */
static double e4m3_step(double around)
{
    int exponent;
    (void)frexp(around, &exponent); /* below 2^exponent */
    return fmax(ldexp(1, exponent - 4), E4M3_LEAST);
}

/* The number nearest to a positive one; 0 where there is none near. */
static double nearest(enum cllm_scaled_numbers numbers, double ratio)
{
    if (numbers == CLLM_SCALED_WHOLE) return ratio < CLLM_SCALED_NUMBER_MAX + 0.5 ? nearbyint(ratio) : 0;
    const double step = e4m3_step(ratio), near = nearbyint(ratio / step) * step;
    return near <= E4M3_MAX ? near : 0;
}

/* The number that a magnitude is by this scale, or 0. */
static double number_of(enum cllm_scaled_type type, enum cllm_scaled_numbers numbers, uint32_t bits, double value, float scale)
{
    const double number = nearest(numbers, value / (double)scale);
    return number > 0 && cllm_scaled_element(type, cllm_scaled_round(type, (float)number), scale) == bits ? number : 0;
}

static bool is_scale(enum cllm_scaled_type type, enum cllm_scaled_numbers numbers, const struct magnitudes *found, float scale)
{
    if (!(scale > 0) || !isfinite(scale)) return false;
    for (unsigned i = 0; i < found->count; i++) {
        if (number_of(type, numbers, found->bits[i], found->value[i], scale) == 0) return false;
    }
    return true;
}

/* A scale from `least` to `most`, one of binary16 if there is one; 0 if none is right. */
static float choose_scale(enum cllm_scaled_type type, enum cllm_scaled_numbers numbers, const struct magnitudes *found,
                          double least, double most)
{
    const float middle = (float)((least + most) / 2);
    const uint16_t half = cllm_round_to_f16(middle);
    for (int step = -1; step <= 1; step++) {
        const uint16_t near = (uint16_t)(half + step);
        if (half == 0 || near >= 0x7C00) continue;
        if (is_scale(type, numbers, found, cllm_scale_of_f16(near))) return cllm_scale_of_f16(near);
    }
    if (is_scale(type, numbers, found, middle)) return middle;
    const float others[] = {nextafterf(middle, 0), nextafterf(middle, INFINITY), (float)least, (float)most};
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
        if (is_scale(type, numbers, found, others[i])) return others[i];
    }
    return 0;
}

/* A scale by which the greatest magnitude is `number`; 0 if there is none. */
static float try_number(enum cllm_scaled_type type, enum cllm_scaled_numbers numbers, const struct magnitudes *found,
                        double number)
{
    const unsigned last = found->count - 1;
    double least = found->least[last] / number, most = found->most[last] / number;
    for (unsigned i = 0; i < last; i++) {
        const double k = nearest(numbers, found->value[i] * 2 / (least + most));
        if (k == 0) return 0;
        least = fmax(least, found->least[i] / k);
        most = fmin(most, found->most[i] / k);
        if (least > most) return 0;
    }
    return choose_scale(type, numbers, found, least, most);
}

/* What groups before had: those of a row are often alike. */
struct history {
    enum cllm_scaled_numbers numbers;
    float scale; /* 0: none yet */
    double likely[LIKELY];
    double greatest; /* number so far */
    double limit;    /* of numbers: part of a scale is right, too, but makes others of them */
};

static void remember(struct history *history, double number)
{
    for (unsigned i = LIKELY - 1; i > 0; i--) history->likely[i] = history->likely[i - 1];
    history->likely[0] = number;
    if (number > history->greatest) history->greatest = number;
}

static bool fits_history(enum cllm_scaled_type type, const struct magnitudes *found, const struct history *history)
{
    const unsigned last = found->count - 1;
    const enum cllm_scaled_numbers numbers = history->numbers;
    return history->scale > 0 && is_scale(type, numbers, found, history->scale) &&
           number_of(type, numbers, found->bits[last], found->value[last], history->scale) <= history->greatest;
}

/* 0 if there is none. */
static float find_scale(enum cllm_scaled_type type, const struct magnitudes *found, struct history *history)
{
    const bool whole = history->numbers == CLLM_SCALED_WHOLE;
    if (found->count == 0) return history->scale > 0 ? history->scale : 1;
    if (fits_history(type, found, history)) return history->scale;
    for (unsigned i = 0; i < LIKELY && whole; i++) {
        const float scale = history->likely[i] > 0 ? try_number(type, history->numbers, found, history->likely[i]) : 0;
        if (scale > 0) return scale;
    }
    /* whole ones from the least on, the others from the greatest on */
    double number = whole ? 1 : history->limit;
    while (number > 0 && number <= history->limit) {
        const float scale = try_number(type, history->numbers, found, number);
        if (scale > 0) {
            remember(history, number);
            return scale;
        }
        number = whole ? number + 1 : number - e4m3_step(number * (63.0 / 64));
    }
    return 0;
}

static double limit_of(enum cllm_scaled_numbers numbers)
{
    return numbers == CLLM_SCALED_WHOLE ? CLLM_SCALED_NUMBER_MAX : E4M3_MAX;
}

static void store_levels(enum cllm_scaled_type type, enum cllm_scaled_numbers numbers, const uint8_t *elements, uint32_t count,
                         float scale, uint8_t *out)
{
    const uint32_t sign = sign_of(type);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t element = element_at(type, elements, i), bits = element & (sign - 1);
        const double number = bits ? number_of(type, numbers, bits, value_of(type, bits), scale) : 0;
        const uint32_t level = cllm_scaled_round(type, (float)number) | (element & sign);
        if (type == CLLM_SCALED_F32) cllm_store_le32(out + (size_t)i * 4, level);
        else cllm_store_le16(out + (size_t)i * 2, (uint16_t)level);
    }
}

bool cllm_scales_suspected(enum cllm_scaled_type type, const uint8_t *elements, uint32_t element_count)
{
    const size_t element_bytes = cllm_scaled_element_bytes(type);
    struct magnitudes found;
    for (uint32_t w = 0; w < WINDOWS && (w + 1) * WINDOW <= element_count; w++) {
        const uint8_t *window = elements + (size_t)w * WINDOW * element_bytes;
        unsigned nonzero = 0;
        for (uint32_t i = 0; i < WINDOW; i++) nonzero += (element_at(type, window, i) & (sign_of(type) - 1)) != 0;
        if (nonzero < WINDOW_NONZERO) continue;
        if (!collect_magnitudes(type, window, WINDOW, &found)) return false;
        for (int numbers = 0; numbers < CLLM_SCALED_NUMBERS; numbers++) {
            struct history history = {.numbers = (enum cllm_scaled_numbers)numbers,
                                      .limit = limit_of((enum cllm_scaled_numbers)numbers)};
            if (find_scale(type, &found, &history) > 0) return true;
        }
        return false;
    }
    return false;
}

/* With groups of 2^group_log2 and numbers up to `limit`. Returns the greatest one, or 0 where some group has no scale. */
static double fit_groups(enum cllm_scaled_type type, const uint8_t *elements, uint32_t element_count, unsigned group_log2,
                         double limit, struct cllm_scales *scales)
{
    const uint32_t size = 1u << group_log2;
    const size_t element_bytes = cllm_scaled_element_bytes(type);
    struct magnitudes found;
    struct history history = {.numbers = scales->numbers, .limit = limit};
    scales->scale_count = 0;
    for (uint32_t first = 0; first < element_count; first += size) {
        const uint32_t count = element_count - first < size ? element_count - first : size;
        if (!collect_magnitudes(type, elements + first * element_bytes, count, &found)) return 0;
        history.scale = find_scale(type, &found, &history);
        if (history.scale == 0) return 0;
        scales->scales[scales->scale_count++] = history.scale;
    }
    return history.greatest;
}

/* Small groups say how large numbers are; larger ones, which take less, must do with these. */
static bool find_groups(enum cllm_scaled_type type, const uint8_t *elements, uint32_t element_count, struct cllm_scales *scales)
{
    unsigned group_log2 = CLLM_SCALED_GROUP_LOG2_MIN;
    double limit = fit_groups(type, elements, element_count, group_log2, limit_of(scales->numbers), scales);
    if (limit == 0) return false;
    if (scales->numbers != CLLM_SCALED_WHOLE) limit = limit_of(scales->numbers);
    for (group_log2 = GROUP_LOG2_FIRST; fit_groups(type, elements, element_count, group_log2, limit, scales) == 0; group_log2--) {
        if (group_log2 == CLLM_SCALED_GROUP_LOG2_MIN) return false;
    }
    scales->head.group_log2 = (uint8_t)group_log2;
    scales->greatest = limit;
    return true;
}

bool cllm_scales_fit(enum cllm_scaled_type type, const uint8_t *elements, uint32_t element_count, const struct cllm_scales *like,
                     struct cllm_scales *scales, uint8_t *levels_out)
{
    const size_t element_bytes = cllm_scaled_element_bytes(type);
    bool is_found = false;
    scales->numbers = like ? like->numbers : CLLM_SCALED_WHOLE;
    if (like && fit_groups(type, elements, element_count, like->head.group_log2, like->greatest, scales) > 0) {
        scales->head.group_log2 = like->head.group_log2;
        scales->greatest = like->greatest;
        is_found = true;
    }
    for (int numbers = 0; numbers < CLLM_SCALED_NUMBERS && !is_found; numbers++) {
        scales->numbers = (enum cllm_scaled_numbers)numbers;
        is_found = find_groups(type, elements, element_count, scales);
    }
    if (!is_found) return false;
    const uint32_t size = 1u << scales->head.group_log2;
    bool is_half = true;
    for (uint32_t i = 0; i < scales->scale_count; i++) {
        const float scale = scales->scales[i];
        const uint32_t first = i * size, left = element_count - first;
        is_half &= scale < 65504 && cllm_scale_of_f16(cllm_round_to_f16(scale)) == scale;
        store_levels(type, scales->numbers, elements + first * element_bytes, left < size ? left : size, scale,
                     levels_out + first * element_bytes);
    }
    scales->head.type = (uint8_t)type;
    scales->head.scale_type = is_half ? CLLM_SCALE_F16 : CLLM_SCALE_F32;
    return true;
}

bool cllm_scales_differ(const struct cllm_scales *scales)
{
    bool differ = false;
    for (uint32_t i = 1; i < scales->scale_count; i++) differ |= scales->scales[i] != scales->scales[0];
    return differ;
}

size_t cllm_scales_bytes(const struct cllm_scales *scales)
{
    return CLLM_SCALED_HEAD_BYTES + (size_t)scales->scale_count * cllm_scale_bytes(&scales->head);
}

size_t cllm_scales_store(const struct cllm_scales *scales, uint32_t float_bytes, uint8_t *stored)
{
    uint8_t *at = stored + CLLM_SCALED_HEAD_BYTES + float_bytes;
    const uint32_t scale_bytes = cllm_scale_bytes(&scales->head);
    memset(stored, 0, CLLM_SCALED_HEAD_BYTES);
    cllm_store_le32(stored, float_bytes);
    stored[4] = scales->head.type;
    stored[5] = scales->head.scale_type;
    stored[6] = scales->head.group_log2;
    for (uint32_t i = 0; i < scales->scale_count; i++, at += scale_bytes) {
        if (scale_bytes == 2) cllm_store_le16(at, cllm_round_to_f16(scales->scales[i]));
        else cllm_store_le32(at, cllm_float_bits(scales->scales[i]));
    }
    return (size_t)(at - stored);
}

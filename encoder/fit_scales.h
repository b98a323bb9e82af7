/* fit_scales.h - finds numbers, whole ones or those of F8_E4M3, and scales of which floats were made, as when weights that were
 * quantised are written as floats again. FORMAT.md 12, form 5. */
#ifndef CLLM_FIT_SCALES_H
#define CLLM_FIT_SCALES_H

#include "scaled.h"

#include <stddef.h>

#define CLLM_SCALED_NUMBER_MAX 255 /* of either sign */

/* What is multiplied by scales. */
enum cllm_scaled_numbers { CLLM_SCALED_WHOLE, CLLM_SCALED_E4M3, CLLM_SCALED_NUMBERS };

/* What is found of a chunk. */
struct cllm_scales {
    enum cllm_scaled_numbers numbers;
    struct cllm_scaled_head head; /* but for float_bytes */
    float *scales;                /* of each group; the caller's, room for one of every 2^CLLM_SCALED_GROUP_LOG2_MIN elements */
    uint32_t scale_count;
    double greatest; /* number */
};

/* Whether some elements that lie side by side are such numbers times a scale: quick, and almost never so by chance. */
bool cllm_scales_suspected(enum cllm_scaled_type type, const uint8_t *elements, uint32_t element_count);

/* Finds groups as large as there are, and a scale for each; of several that are right, numbers of binary16. Groups and numbers as
 * in `like`, the chunk before or null, are enough. Writes the numbers as elements, the levels. False where some group has no
 * scale, or all are zero: the rest is then unspecified. */
bool cllm_scales_fit(enum cllm_scaled_type type, const uint8_t *elements, uint32_t element_count, const struct cllm_scales *like,
                     struct cllm_scales *scales, uint8_t *levels_out);

/* Whether there is more than one: else a palette does as well. */
bool cllm_scales_differ(const struct cllm_scales *scales);

/* Bytes of head and scales. */
size_t cllm_scales_bytes(const struct cllm_scales *scales);

/* Writes the head, and the scales behind the levels, whose float chunk lies at `stored` + CLLM_SCALED_HEAD_BYTES. Returns
 * the bytes of it all. */
size_t cllm_scales_store(const struct cllm_scales *scales, uint32_t float_bytes, uint8_t *stored);

#endif

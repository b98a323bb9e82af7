/* sha256_shani.c - one message or two: see sha256.h. */
#include "sha256_shani.h"

#define LANES_MAX 2u

static inline __attribute__((always_inline)) void compress(const struct cllm_sha256_lane *lanes, unsigned lane_count,
                                                           size_t block_count)
{
    struct cllm_sha256_registers r[LANES_MAX];
    for (unsigned k = 0; k < lane_count; k++) cllm_sha256_load_hash(&r[k], lanes[k].hash);
    for (size_t b = 0; b < block_count; b++) {
        __m128i abef[LANES_MAX], cdgh[LANES_MAX];
        for (unsigned k = 0; k < lane_count; k++) {
            abef[k] = r[k].abef;
            cdgh[k] = r[k].cdgh;
            cllm_sha256_load_words(&r[k], lanes[k].blocks + b * CLLM_SHA256_BLOCK_BYTES);
        }
#pragma GCC unroll 16
        for (unsigned step = 0; step < CLLM_SHA256_STEPS; step++) {
#pragma GCC unroll 2
            for (unsigned k = 0; k < lane_count; k++) cllm_sha256_step(&r[k], step);
        }
        for (unsigned k = 0; k < lane_count; k++) {
            r[k].abef = _mm_add_epi32(r[k].abef, abef[k]);
            r[k].cdgh = _mm_add_epi32(r[k].cdgh, cdgh[k]);
        }
    }
    for (unsigned k = 0; k < lane_count; k++) cllm_sha256_store_hash(&r[k], lanes[k].hash);
}

void cllm_sha256_one_shani(struct cllm_sha256_lane lane, size_t block_count)
{
    compress(&lane, 1, block_count);
}

void cllm_sha256_two_shani(struct cllm_sha256_lane first, struct cllm_sha256_lane second, size_t block_count)
{
    const struct cllm_sha256_lane lanes[2] = {first, second};
    compress(lanes, 2, block_count);
}

/* pack12.c - sizes of the packed form and the choice of a window. */
#include "pack12.h"

#include "pack12_layout.h"

#define PATCH_SHARE 768 /* a patch takes four bytes: at one weight in so many, 0.26 % of BF16 */

uint64_t cllm_pack12_bytes(struct cllm_gpu_shape shape, uint64_t patch_count)
{
    const uint64_t tiles = pack12_band_count(shape.row_count) * pack12_band_bytes(shape.column_count);
    return (tiles + (1 + patch_count) * sizeof(uint32_t) + 15) / 16 * 16;
}

uint64_t cllm_pack12_patch_limit(struct cllm_gpu_shape shape)
{
    return (uint64_t)shape.row_count * shape.column_count / PATCH_SHARE;
}

struct cllm_pack12_choice cllm_pack12_choose(const uint64_t histogram[CLLM_PACK12_BINS])
{
    bool taken[CLLM_PACK12_BINS] = {false};
    struct cllm_pack12_choice choice = {0, 0};
    for (int i = 0; i < 8; i++) {
        unsigned best = 0;
        while (taken[best]) best++;
        for (unsigned value = best + 1; value < CLLM_PACK12_BINS; value++) {
            if (!taken[value] && histogram[value] > histogram[best]) best = value;
        }
        taken[best] = true;
        choice.window |= (uint64_t)best << 8 * i;
    }
    for (unsigned value = 0; value < CLLM_PACK12_BINS; value++) {
        if (!taken[value]) choice.patch_count += histogram[value];
    }
    return choice;
}

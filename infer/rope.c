/* rope.c - rotary frequencies. */
#include "rope.h"

#include <math.h>

#define TWO_PI 6.283185307179586

static double dynamic_theta(const struct cllm_rope_config *config, struct cllm_rope_extent extent)
{
    double dim = extent.head_dim;
    if (config->type != CLLM_ROPE_DYNAMIC || extent.length <= config->original_length || extent.head_dim == 2)
        return config->theta;
    double ratio = config->factor * extent.length / config->original_length - (config->factor - 1);
    return config->theta * pow(ratio, dim / (dim - 2));
}

static float llama3_frequency(const struct cllm_rope_config *config, float frequency)
{
    double wavelength = TWO_PI / frequency;
    double turns = config->original_length / wavelength;
    if (turns < config->low_freq_factor) return (float)(frequency / config->factor);
    if (turns > config->high_freq_factor) return frequency;
    double smooth = (turns - config->low_freq_factor) / (config->high_freq_factor - config->low_freq_factor);
    return (float)((1 - smooth) * frequency / config->factor + smooth * frequency);
}

/* The (fractional) dimension whose pair turns `turns` times over the original length. */
static double yarn_dimension(const struct cllm_rope_config *config, uint32_t head_dim, double turns)
{
    return head_dim * log(config->original_length / (turns * TWO_PI)) / (2 * log(config->theta));
}

static void scale_yarn(const struct cllm_rope_config *config, uint32_t head_dim, float *frequencies)
{
    double low = yarn_dimension(config, head_dim, config->beta_fast);
    double high = yarn_dimension(config, head_dim, config->beta_slow);
    if (config->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, head_dim - 1.0);
    if (low == high) high += 0.001;
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
        frequencies[i] = (float)(frequencies[i] / config->factor * ramp + frequencies[i] * (1 - ramp));
    }
}

void cllm_rope_frequencies(const struct cllm_rope_config *config, struct cllm_rope_extent extent, float *frequencies)
{
    float theta = (float)dynamic_theta(config, extent);
    for (uint32_t i = 0; i < extent.head_dim / 2; i++) {
        float frequency = 1.0f / powf(theta, (float)(2 * i) / (float)extent.head_dim);
        if (config->type == CLLM_ROPE_LINEAR) frequency /= (float)config->factor;
        if (config->type == CLLM_ROPE_LLAMA3) frequency = llama3_frequency(config, frequency);
        frequencies[i] = frequency;
    }
    if (config->type == CLLM_ROPE_YARN) scale_yarn(config, extent.head_dim, frequencies);
}

/* forward_gpu_plan.c - how much memory a forward pass on the GPU takes, and where each part of it lies. */
#include "forward_gpu_buffers.h"

#include "pack12_layout.h"

#define BUFFER_ALIGNMENT 256
#define VECTOR_ALIGNMENT 32 /* floats */
#define HEAD_DIM_MAX 256

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* Sizes fit 64 bits: cllm_config_parse bounds every factor. */
static uint64_t take(struct cllm_forward_gpu_buffers *buffers, uint64_t *kind, uint64_t byte_count)
{
    const uint64_t offset = buffers->total, bytes = round_up(byte_count, BUFFER_ALIGNMENT);
    buffers->total += bytes;
    *kind += bytes;
    return offset;
}

static uint64_t take_floats(struct cllm_forward_gpu_buffers *buffers, uint64_t count)
{
    return take(buffers, &buffers->bytes.activations, count * sizeof(float));
}

static void lay_out_heads(const struct cllm_config *config, uint32_t context_size, struct cllm_forward_gpu_buffers *buffers)
{
    buffers->head_stride = (uint32_t)round_up(config->head_dim, 8);
    buffers->group = config->head_count / config->kv_head_count;
    buffers->chunk_count = (buffers->group + CLLM_ATTENTION_HEADS_MAX - 1) / CLLM_ATTENTION_HEADS_MAX;
    buffers->span_count = (context_size + CLLM_SPAN_POSITIONS - 1) / CLLM_SPAN_POSITIONS;
    if (buffers->span_count > CLLM_SPAN_COUNT_MAX) buffers->span_count = CLLM_SPAN_COUNT_MAX;
}

/* Whole lines of the cache. */
static uint32_t take_vector(uint32_t *total, uint64_t count)
{
    const uint32_t offset = *total;
    *total += (uint32_t)round_up(count, VECTOR_ALIGNMENT);
    return offset;
}

static void lay_out_vectors(const struct cllm_config *config, uint32_t span_count, struct cllm_vectors *vectors)
{
    const uint64_t query = (uint64_t)config->head_count * config->head_dim;
    const uint64_t key = (uint64_t)config->kv_head_count * config->head_dim;
    vectors->first_layer = (uint32_t)round_up(config->hidden_size, VECTOR_ALIGNMENT);
    vectors->query = take_vector(&vectors->layer_floats, query);
    vectors->key = take_vector(&vectors->layer_floats, key);
    vectors->value = take_vector(&vectors->layer_floats, key);
    vectors->middle = take_vector(&vectors->layer_floats, config->hidden_size);
    vectors->gate = take_vector(&vectors->layer_floats, config->intermediate_size);
    vectors->output = take_vector(&vectors->layer_floats, config->hidden_size);
    take_vector(&vectors->span_floats, query);
    vectors->span_scales = take_vector(&vectors->span_floats, (uint64_t)config->head_count * 2);
    vectors->spans = vectors->first_layer + config->layer_count * vectors->layer_floats;
    vectors->turn_floats = vectors->spans + config->layer_count * span_count * vectors->span_floats;
}

static void lay_out_token(const struct cllm_config *config, struct cllm_forward_gpu_buffers *buffers)
{
    lay_out_vectors(config, buffers->span_count, &buffers->in_vectors);
    buffers->vectors = take_floats(buffers, (uint64_t)buffers->in_vectors.turn_floats * 2);
    buffers->stages =
        take(buffers, &buffers->bytes.activations, ((uint64_t)config->layer_count * CLLM_LAYER_STAGES_MAX + 1) * CLLM_STAGE_BYTES);
    buffers->frequencies = take_floats(buffers, config->head_dim / 2);
}

static uint64_t largest_matrix(const struct cllm_config *config)
{
    const uint64_t hidden = config->hidden_size, query = (uint64_t)config->head_count * config->head_dim;
    return hidden * (query > config->intermediate_size ? query : config->intermediate_size);
}

/* Of the queries that share one key-value head. */
static uint64_t score_bytes(const struct cllm_forward_gpu_buffers *buffers, const struct cllm_forward_gpu_options *options)
{
    return (uint64_t)buffers->group * buffers->prompt_tile * round_up(options->context_size, 8) * sizeof(float);
}

static void lay_out_prompt(const struct cllm_config *config, const struct cllm_forward_gpu_options *options,
                           struct cllm_forward_gpu_buffers *buffers)
{
    const uint64_t tile = buffers->prompt_tile, key = (uint64_t)config->kv_head_count * config->head_dim;
    const uint64_t query = (uint64_t)config->head_count * config->head_dim, wide = config->intermediate_size;
    const unsigned unpacked = 1u << CLLM_GPU_PACKED12;
    uint64_t *scratch = &buffers->bytes.scratch, input = query > wide ? query : wide;
    if (input < config->hidden_size) input = config->hidden_size;
    buffers->tile_ids = take_floats(buffers, tile);
    buffers->tile_hidden = take_floats(buffers, tile * config->hidden_size);
    buffers->tile_query = take_floats(buffers, tile * query);
    buffers->tile_key = take_floats(buffers, tile * key);
    buffers->tile_value = take_floats(buffers, tile * key);
    buffers->tile_gate = take_floats(buffers, tile * wide);
    buffers->tile_up = take_floats(buffers, tile * wide);
    buffers->tile_cosines = take_floats(buffers, tile * (config->head_dim / 2));
    buffers->tile_sines = take_floats(buffers, tile * (config->head_dim / 2));
    buffers->tile_input = take_floats(buffers, (tile > CLLM_PROMPT_INPUT_MIN ? tile : CLLM_PROMPT_INPUT_MIN) * input);
    buffers->tile_rotated = take_floats(buffers, tile * config->head_count * buffers->head_stride / 2);
    const uint64_t of_head = score_bytes(buffers, options);
    buffers->score_heads = (uint32_t)(CLLM_SCORE_BYTES / of_head);
    if (buffers->score_heads < 1) buffers->score_heads = 1;
    if (buffers->score_heads > config->kv_head_count) buffers->score_heads = config->kv_head_count;
    buffers->scores = take(buffers, scratch, of_head * buffers->score_heads);
    buffers->weights = take(buffers, scratch, of_head * buffers->score_heads / 2);
    const uint64_t element_bytes = options->forms & 1u << CLLM_GPU_F16 ? 4 : options->forms & unpacked ? 2 : 0;
    for (int i = 0; i < 2; i++) buffers->matrix[i] = take(buffers, scratch, largest_matrix(config) * element_bytes);
    buffers->workspace = take(buffers, scratch, CLLM_GEMM_WORKSPACE);
}

struct cllm_forward_gpu_buffers cllm_forward_gpu_lay_out(const struct cllm_config *config,
                                                         const struct cllm_forward_gpu_options *options)
{
    struct cllm_forward_gpu_buffers buffers = {0};
    lay_out_heads(config, options->context_size, &buffers);
    const uint64_t of_layer = (uint64_t)config->kv_head_count * options->context_size * buffers.head_stride * sizeof(uint16_t);
    buffers.keys = take(&buffers, &buffers.bytes.cache, of_layer * config->layer_count);
    buffers.values = take(&buffers, &buffers.bytes.cache, of_layer * config->layer_count);
    lay_out_token(config, &buffers);
    buffers.prompt_tile = options->prompt_tile ? options->prompt_tile : CLLM_PROMPT_TILE;
    if (buffers.prompt_tile > options->context_size) buffers.prompt_tile = options->context_size;
    while (buffers.prompt_tile > CLLM_PROMPT_TILE_MIN && score_bytes(&buffers, options) > CLLM_SCORE_BYTES_MAX) {
        buffers.prompt_tile /= 2;
    }
    if (buffers.prompt_tile > 1) lay_out_prompt(config, options, &buffers);
    buffers.bytes.pinned = ((uint64_t)config->vocab_size + config->head_dim + 64) * sizeof(float);
    return buffers;
}

struct cllm_forward_gpu_bytes cllm_forward_gpu_plan(const struct cllm_config *config,
                                                    const struct cllm_forward_gpu_options *options)
{
    return cllm_forward_gpu_lay_out(config, options).bytes;
}

enum cllm_status cllm_forward_gpu_check(const struct cllm_config *config, struct cllm_error *err)
{
    if (config->head_dim <= HEAD_DIM_MAX) return CLLM_OK;
    return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "heads of %u dimensions: the GPU runs up to %d", config->head_dim,
                     HEAD_DIM_MAX);
}

/* forward_cpu.c - the Llama forward pass.
 *
 * Up to TILE positions go through all layers together, so that a prompt reads the weights once for each tile. Every step is a
 * job of the pool, cut by positions, by rows of a matrix, or by heads; each number is computed by one thread in one fixed order.
 *
 * The cache holds, for each layer and key-value head, the keys as a matrix of one row per position, and the values transposed,
 * one row per dimension: scores and weighted sums are then products of a matrix with vectors like all others, and the query
 * heads that share a key-value head are the vectors of one product.
 */
#include "forward_cpu.h"

#include "bytes.h"
#include "half.h"
#include "pool.h"
#include "rope.h"

#include <math.h>
#include <stdlib.h>

#define TILE 32
#define BATCH_MIN_COST 32768 /* multiply-adds that one thread is given at least: some microseconds */
#define BATCH_MAX 256
#define BUFFER_MAX 24
#define BUFFER_ALIGNMENT 64

/* The vectors of one layer as float32; a bias may be null. */
struct layer_vectors {
    float *attention_norm;
    float *mlp_norm;
    float *query_bias;
    float *key_bias;
    float *value_bias;
    float *output_bias;
    float *gate_bias;
    float *up_bias;
    float *down_bias;
};

struct forward_cpu {
    struct cllm_forward base;
    const struct cllm_model *model;
    const struct cllm_kernels *kernels;
    struct cllm_pool *pool;
    struct layer_vectors *vectors; /* one for each layer */
    float *final_norm;
    float *buffers[BUFFER_MAX]; /* all that the following point to */
    unsigned buffer_count;

    float *vector_memory;
    float *keys;         /* [layer][kv head][kv_stride][head_dim] */
    float *values;       /* [layer][kv head][head_dim][kv_stride] */
    float *hidden;       /* [TILE][hidden_size] the residual stream */
    float *normed;       /* [TILE][hidden_size] */
    float *query;        /* [TILE][head_count * head_dim] */
    float *key;          /* [TILE][kv_head_count * head_dim] */
    float *value;        /* [TILE][kv_head_count * head_dim] */
    float *attended;     /* [TILE][head_count * head_dim] */
    float *projected;    /* [TILE][hidden_size] */
    float *gate;         /* [TILE][intermediate_size] */
    float *up;           /* [TILE][intermediate_size] */
    float *scores;       /* [thread][query heads of a key-value head][kv_stride] */
    float *frequencies;  /* [head_dim / 2] */
    float *cosines;      /* [TILE][head_dim / 2] */
    float *sines;        /* [TILE][head_dim / 2] */
    uint32_t kv_stride;  /* positions, and some more so that rows do not lie a power of two apart */
    uint32_t tile_count; /* positions in the current tile */
    uint32_t layer_index;
    const uint32_t *tile_ids;
};

static const struct cllm_config *config_of(const struct forward_cpu *forward)
{
    return &forward->model->config;
}

static const struct cllm_layer *layer_of(const struct forward_cpu *forward)
{
    return &forward->model->layers[forward->layer_index];
}

static const struct layer_vectors *vectors_of(const struct forward_cpu *forward)
{
    return &forward->vectors[forward->layer_index];
}

/* ----------------------------------------------------------------------------------------------------------- vectors */

/* `elements` starts at element `first` of the weight. */
static void widen_elements(const struct cllm_weight *weight, size_t first, size_t count, float *out)
{
    const uint16_t *halves = (const uint16_t *)weight->elements + first;
    switch (weight->type) {
    case CLLM_WEIGHT_F32: memcpy(out, (const float *)weight->elements + first, count * sizeof *out); return;
    case CLLM_WEIGHT_F16:
        for (size_t i = 0; i < count; i++) out[i] = cllm_float_from_f16(halves[i]);
        return;
    default:
        for (size_t i = 0; i < count; i++) out[i] = cllm_float_from_bf16(halves[i]);
    }
}

/* Zhang and Sennrich 2019, "Root Mean Square Layer Normalization". */
static void normalize(const float *input, const float *weight, uint32_t count, float epsilon, float *output)
{
    double squares = 0;
    for (uint32_t i = 0; i < count; i++) {
        squares += (double)input[i] * input[i];
    }
    const float scale = (float)(1 / sqrt(squares / count + epsilon));
    for (uint32_t i = 0; i < count; i++) {
        output[i] = weight[i] * (input[i] * scale);
    }
}

/* Replaces scores by the weights that attention gives; `scale` multiplies the scores first. */
static void soften(float *scores, size_t count, float scale)
{
    float highest = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        scores[i] *= scale;
        highest = fmaxf(highest, scores[i]);
    }
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        scores[i] = expf(scores[i] - highest);
        sum += scores[i];
    }
    const float share = (float)(1 / sum);
    for (size_t i = 0; i < count; i++) {
        scores[i] *= share;
    }
}

/* Turns the pairs (x[i], x[i + half]) of one head. */
static void rotate(float *head, const float *cosines, const float *sines, uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        const float low = head[i], high = head[i + half];
        head[i] = low * cosines[i] - high * sines[i];
        head[i + half] = high * cosines[i] + low * sines[i];
    }
}

/* -------------------------------------------------------------------------------------------------------------- jobs */

/* `unit_cost` is in multiply-adds. Several batches for each thread even out threads that are slower; but a batch is worth handing
 * out only if it takes longer than that, and a job of one batch stays on the calling thread. */
static void run_job(struct forward_cpu *forward, cllm_pool_work *work, void *user, size_t unit_count, uint64_t unit_cost)
{
    size_t batch = unit_count / (cllm_pool_thread_count(forward->pool) * 4);
    const size_t worth_while = (size_t)(BATCH_MIN_COST / (unit_cost + 1)) + 1;
    if (batch > BATCH_MAX) batch = BATCH_MAX;
    if (batch < worth_while) batch = worth_while;
    if (batch > 4) batch &= ~(size_t)3; /* the kernels like four rows */
    cllm_pool_run(forward->pool, &(struct cllm_pool_job){work, user, unit_count, batch});
}

/* One matrix and what it is multiplied with: output[position] = weight * input[position] + bias. */
struct projection {
    const struct forward_cpu *forward;
    const struct cllm_weight *weight;
    const float *bias;
    const float *input;
    float *output;
    size_t position_count;
};

static void project_rows(const struct projection *projection, struct cllm_rows rows)
{
    const struct cllm_weight *weight = projection->weight;
    const struct cllm_product product = {
        .weights = weight->elements,
        .input = projection->input,
        .output = projection->output,
        .weight_stride = weight->column_count,
        .input_stride = weight->column_count,
        .output_stride = weight->row_count,
        .column_count = weight->column_count,
        .vector_count = projection->position_count,
    };
    projection->forward->kernels->product[weight->type](&product, rows);
    if (!projection->bias) return;
    for (size_t p = 0; p < projection->position_count; p++) {
        for (size_t row = rows.first; row < rows.end; row++) {
            projection->output[p * weight->row_count + row] += projection->bias[row];
        }
    }
}

static uint64_t row_cost(const struct projection *projection)
{
    return (uint64_t)projection->weight->column_count * projection->position_count;
}

static void work_project(void *user, struct cllm_pool_span span)
{
    project_rows(user, (struct cllm_rows){span.first, span.end});
}

/* Queries, keys and values as one job: its rows are those of the three matrices, one after the other. */
static void work_project_three(void *user, struct cllm_pool_span span)
{
    const struct projection *projection = user;
    size_t start = 0;
    for (int i = 0; i < 3; i++) {
        const size_t end = start + projection[i].weight->row_count;
        const size_t first = span.first > start ? span.first : start;
        const size_t last = span.end < end ? span.end : end;
        if (first < last) project_rows(&projection[i], (struct cllm_rows){first - start, last - start});
        start = end;
    }
}

static void work_project_and_add(void *user, struct cllm_pool_span span)
{
    const struct projection *projection = user;
    const struct forward_cpu *forward = projection->forward;
    const size_t hidden_size = projection->weight->row_count;
    project_rows(projection, (struct cllm_rows){span.first, span.end});
    for (size_t p = 0; p < projection->position_count; p++) {
        for (size_t row = span.first; row < span.end; row++) {
            forward->hidden[p * hidden_size + row] += projection->output[p * hidden_size + row];
        }
    }
}

/* gate = silu(gate) * up */
static void work_gate(void *user, struct cllm_pool_span span)
{
    const struct projection *projection = user;
    const size_t row_count = projection->weight->row_count;
    project_rows(&projection[0], (struct cllm_rows){span.first, span.end});
    project_rows(&projection[1], (struct cllm_rows){span.first, span.end});
    for (size_t p = 0; p < projection->position_count; p++) {
        float *gate = projection[0].output + p * row_count;
        const float *up = projection[1].output + p * row_count;
        for (size_t row = span.first; row < span.end; row++) {
            gate[row] = gate[row] / (1 + expf(-gate[row])) * up[row];
        }
    }
}

static void work_embed(void *user, struct cllm_pool_span span)
{
    struct forward_cpu *forward = user;
    const size_t hidden_size = config_of(forward)->hidden_size;
    for (size_t p = span.first; p < span.end; p++) {
        widen_elements(&forward->model->embedding, forward->tile_ids[p] * hidden_size, hidden_size,
                       forward->hidden + p * hidden_size);
    }
}

struct norm_job {
    struct forward_cpu *forward;
    const float *weight;
};

static void work_normalize(void *user, struct cllm_pool_span span)
{
    const struct norm_job *job = user;
    const struct forward_cpu *forward = job->forward;
    const struct cllm_config *config = config_of(forward);
    for (size_t p = span.first; p < span.end; p++) {
        normalize(forward->hidden + p * config->hidden_size, job->weight, config->hidden_size, config->norm_epsilon,
                  forward->normed + p * config->hidden_size);
    }
}

/* -------------------------------------------------------------------------------------------------------- attention */

/* The part of the cache of one head: keys and values have equally many elements. */
static size_t cache_offset(const struct forward_cpu *forward, size_t kv_head)
{
    const struct cllm_config *config = config_of(forward);
    return ((size_t)forward->layer_index * config->kv_head_count + kv_head) * forward->kv_stride * config->head_dim;
}

/* A unit is a position of the tile and a key-value head: its query heads and key are turned, key and value go to the cache. */
static void work_rotate(void *user, struct cllm_pool_span span)
{
    struct forward_cpu *forward = user;
    const struct cllm_config *config = config_of(forward);
    const size_t head_dim = config->head_dim, half = head_dim / 2, group = config->head_count / config->kv_head_count;
    for (size_t unit = span.first; unit < span.end; unit++) {
        const size_t p = unit / config->kv_head_count, kv_head = unit % config->kv_head_count;
        const size_t position = forward->base.position_count + p;
        const float *cosines = forward->cosines + p * half, *sines = forward->sines + p * half;
        float *query = forward->query + (p * config->head_count + kv_head * group) * head_dim;
        float *key = forward->key + unit * head_dim;
        for (size_t i = 0; i < group; i++) {
            rotate(query + i * head_dim, cosines, sines, (uint32_t)half);
        }
        rotate(key, cosines, sines, (uint32_t)half);
        memcpy(forward->keys + cache_offset(forward, kv_head) + position * head_dim, key, head_dim * sizeof *key);
        float *values = forward->values + cache_offset(forward, kv_head) + position;
        for (size_t i = 0; i < head_dim; i++) {
            values[i * forward->kv_stride] = forward->value[unit * head_dim + i];
        }
    }
}

static void attend(struct forward_cpu *forward, size_t p, size_t kv_head, float *scores)
{
    const struct cllm_config *config = config_of(forward);
    const size_t head_dim = config->head_dim, group = config->head_count / config->kv_head_count;
    const size_t end = forward->base.position_count + p + 1;
    const size_t first = config->sliding_window && end > config->sliding_window ? end - config->sliding_window : 0;
    const size_t query_offset = (p * config->head_count + kv_head * group) * head_dim;
    const struct cllm_product score = {
        .weights = forward->keys + cache_offset(forward, kv_head),
        .input = forward->query + query_offset,
        .output = scores,
        .weight_stride = head_dim,
        .input_stride = head_dim,
        .output_stride = forward->kv_stride,
        .column_count = head_dim,
        .vector_count = group,
    };
    forward->kernels->product[CLLM_WEIGHT_F32](&score, (struct cllm_rows){first, end});
    for (size_t i = 0; i < group; i++) {
        soften(scores + i * forward->kv_stride + first, end - first, 1 / sqrtf((float)head_dim));
    }
    const struct cllm_product mix = {
        .weights = forward->values + cache_offset(forward, kv_head) + first,
        .input = scores + first,
        .output = forward->attended + query_offset,
        .weight_stride = forward->kv_stride,
        .input_stride = forward->kv_stride,
        .output_stride = head_dim,
        .column_count = end - first,
        .vector_count = group,
    };
    forward->kernels->product[CLLM_WEIGHT_F32](&mix, (struct cllm_rows){0, head_dim});
}

/* The positions of one head follow each other, so that its keys and values stay in the processor's cache. */
static void work_attend(void *user, struct cllm_pool_span span)
{
    struct forward_cpu *forward = user;
    const struct cllm_config *config = config_of(forward);
    const size_t group = config->head_count / config->kv_head_count;
    for (size_t unit = span.first; unit < span.end; unit++) {
        attend(forward, unit % forward->tile_count, unit / forward->tile_count,
               forward->scores + span.worker_index * group * forward->kv_stride);
    }
}

/* ------------------------------------------------------------------------------------------------------------ passes */

static struct projection project(const struct forward_cpu *forward, const struct cllm_linear *linear, const float *bias,
                                 const float *input, float *output)
{
    return (struct projection){forward, &linear->weight, bias, input, output, forward->tile_count};
}

static void run_norm(struct forward_cpu *forward, const float *weight)
{
    run_job(forward, work_normalize, &(struct norm_job){forward, weight}, forward->tile_count,
            4 * (uint64_t)config_of(forward)->hidden_size);
}

static void run_attention(struct forward_cpu *forward)
{
    const struct cllm_layer *layer = layer_of(forward);
    const struct layer_vectors *vectors = vectors_of(forward);
    const struct cllm_config *config = config_of(forward);
    const size_t unit_count = (size_t)forward->tile_count * config->kv_head_count;
    const uint64_t group_size = (uint64_t)config->head_count / config->kv_head_count * config->head_dim;
    struct projection inputs[3] = {
        project(forward, &layer->query, vectors->query_bias, forward->normed, forward->query),
        project(forward, &layer->key, vectors->key_bias, forward->normed, forward->key),
        project(forward, &layer->value, vectors->value_bias, forward->normed, forward->value),
    };
    struct projection output = project(forward, &layer->output, vectors->output_bias, forward->attended, forward->projected);
    run_norm(forward, vectors->attention_norm);
    run_job(forward, work_project_three, inputs,
            (size_t)layer->query.weight.row_count + layer->key.weight.row_count + layer->value.weight.row_count,
            row_cost(inputs));
    run_job(forward, work_rotate, forward, unit_count, group_size * 4);
    run_job(forward, work_attend, forward, unit_count, 2 * group_size * (forward->base.position_count + forward->tile_count));
    run_job(forward, work_project_and_add, &output, layer->output.weight.row_count, row_cost(&output));
}

static void run_mlp(struct forward_cpu *forward)
{
    const struct cllm_layer *layer = layer_of(forward);
    const struct layer_vectors *vectors = vectors_of(forward);
    struct projection inputs[2] = {
        project(forward, &layer->gate, vectors->gate_bias, forward->normed, forward->gate),
        project(forward, &layer->up, vectors->up_bias, forward->normed, forward->up),
    };
    struct projection output = project(forward, &layer->down, vectors->down_bias, forward->gate, forward->projected);
    run_norm(forward, vectors->mlp_norm);
    run_job(forward, work_gate, inputs, layer->gate.weight.row_count, 2 * row_cost(inputs));
    run_job(forward, work_project_and_add, &output, layer->down.weight.row_count, row_cost(&output));
}

static void fill_angles(struct forward_cpu *forward)
{
    const size_t half = config_of(forward)->head_dim / 2;
    const float factor = (float)config_of(forward)->rope.attention_factor;
    for (size_t p = 0; p < forward->tile_count; p++) {
        for (size_t i = 0; i < half; i++) {
            const float angle = (float)(forward->base.position_count + p) * forward->frequencies[i];
            forward->cosines[p * half + i] = cosf(angle) * factor;
            forward->sines[p * half + i] = sinf(angle) * factor;
        }
    }
}

/* Logits of one position of the tile, whose final norm is in `normed`. */
static void run_head(struct forward_cpu *forward, size_t p)
{
    const struct cllm_weight *head = &forward->model->head;
    struct projection projection = {forward, head, NULL, forward->normed + p * head->column_count, forward->base.logits, 1};
    run_job(forward, work_project, &projection, head->row_count, row_cost(&projection));
}

static void run_layers(struct forward_cpu *forward)
{
    fill_angles(forward);
    run_job(forward, work_embed, forward, forward->tile_count, config_of(forward)->hidden_size);
    for (forward->layer_index = 0; forward->layer_index < config_of(forward)->layer_count; forward->layer_index++) {
        run_attention(forward);
        run_mlp(forward);
    }
    run_norm(forward, forward->final_norm);
}

static enum cllm_status run_tile(struct forward_cpu *forward, const struct cllm_forward_input *input, bool is_last,
                                 struct cllm_error *err)
{
    run_layers(forward);
    enum cllm_status status = CLLM_OK;
    for (size_t p = 0; !status && input->logits && p < forward->tile_count; p++) {
        run_head(forward, p);
        status = input->logits(input->user, forward->base.logits, err);
    }
    if (!input->logits && is_last) run_head(forward, forward->tile_count - 1);
    forward->base.position_count += forward->tile_count;
    return status;
}

static enum cllm_status forward_cpu_run(struct cllm_forward *base, const struct cllm_forward_input *input, struct cllm_error *err)
{
    struct forward_cpu *forward = (struct forward_cpu *)base;
    const struct cllm_config *config = config_of(forward);
    const uint32_t length = base->position_count + (uint32_t)input->id_count;
    cllm_rope_frequencies(&config->rope, (struct cllm_rope_extent){config->head_dim, length}, forward->frequencies);
    enum cllm_status status = CLLM_OK;
    for (size_t done = 0; !status && done < input->id_count; done += forward->tile_count) {
        if (input->proceed && !input->proceed(input->user)) {
            return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
        }
        const size_t left = input->id_count - done;
        forward->tile_count = left < TILE ? (uint32_t)left : TILE;
        forward->tile_ids = input->ids + done;
        status = run_tile(forward, input, left <= TILE, err);
    }
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- creation */

static void forward_cpu_destroy(struct cllm_forward *base)
{
    struct forward_cpu *forward = (struct forward_cpu *)base;
    cllm_pool_destroy(forward->pool);
    for (unsigned i = 0; i < forward->buffer_count; i++) {
        free(forward->buffers[i]);
    }
    free(forward->vectors);
    free(forward);
}

/* A buffer of rows * columns floats, owned by the forward pass. */
static enum cllm_status allocate_floats(struct forward_cpu *forward, uint64_t row_count, uint64_t column_count,
                                        float **floats_out, struct cllm_error *err)
{
    uint64_t bytes;
    if (!cllm_mul(row_count, column_count, &bytes) || !cllm_mul(bytes, sizeof(float), &bytes) ||
        !cllm_align(bytes, BUFFER_ALIGNMENT, &bytes) || bytes > SIZE_MAX / 2) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "a buffer of %llu x %llu numbers does not fit the address space",
                         (unsigned long long)row_count, (unsigned long long)column_count);
    }
    *floats_out = aligned_alloc(BUFFER_ALIGNMENT, bytes ? (size_t)bytes : BUFFER_ALIGNMENT);
    if (!*floats_out)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %llu bytes of cache or buffers",
                         (unsigned long long)bytes);
    forward->buffers[forward->buffer_count++] = *floats_out;
    forward->base.memory_bytes += bytes;
    return CLLM_OK;
}

static enum cllm_status allocate_buffers(struct forward_cpu *forward, struct cllm_error *err)
{
    const struct cllm_config *config = config_of(forward);
    const uint64_t head_dim = config->head_dim, query = config->head_count * head_dim, key = config->kv_head_count * head_dim;
    const uint64_t group = config->head_count / config->kv_head_count, heads = (uint64_t)config->layer_count * key;
    const struct {
        float **floats_out;
        uint64_t row_count, column_count;
    } buffers[] = {
        {&forward->keys, heads, forward->kv_stride},
        {&forward->values, heads, forward->kv_stride},
        {&forward->scores, cllm_pool_thread_count(forward->pool) * group, forward->kv_stride},
        {&forward->hidden, TILE, config->hidden_size},
        {&forward->normed, TILE, config->hidden_size},
        {&forward->projected, TILE, config->hidden_size},
        {&forward->query, TILE, query},
        {&forward->attended, TILE, query},
        {&forward->key, TILE, key},
        {&forward->value, TILE, key},
        {&forward->gate, TILE, config->intermediate_size},
        {&forward->up, TILE, config->intermediate_size},
        {&forward->frequencies, 1, head_dim / 2},
        {&forward->cosines, TILE, head_dim / 2},
        {&forward->sines, TILE, head_dim / 2},
        {&forward->base.logits, 1, config->vocab_size},
    };
    _Static_assert(sizeof buffers / sizeof *buffers < BUFFER_MAX, "all buffers and the vectors can be freed");
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; !status && i < sizeof buffers / sizeof *buffers; i++) {
        status = allocate_floats(forward, buffers[i].row_count, buffers[i].column_count, buffers[i].floats_out, err);
    }
    return status;
}

/* Pairs of a vector among the weights and the place of its float32 copy. */
struct vector_copy {
    const struct cllm_weight *weight;
    float **floats_out;
};

enum { VECTORS_OF_LAYER = sizeof(struct layer_vectors) / sizeof(float *) };

static void list_vectors(const struct cllm_layer *layer, struct layer_vectors *vectors,
                         struct vector_copy copies[VECTORS_OF_LAYER])
{
    const struct vector_copy list[VECTORS_OF_LAYER] = {
        {&layer->attention_norm, &vectors->attention_norm}, {&layer->mlp_norm, &vectors->mlp_norm},
        {&layer->query.bias, &vectors->query_bias},         {&layer->key.bias, &vectors->key_bias},
        {&layer->value.bias, &vectors->value_bias},         {&layer->output.bias, &vectors->output_bias},
        {&layer->gate.bias, &vectors->gate_bias},           {&layer->up.bias, &vectors->up_bias},
        {&layer->down.bias, &vectors->down_bias},
    };
    memcpy(copies, list, sizeof list);
}

/* Copies a vector to `*memory` and moves that on; absent ones stay null. */
static void copy_vector(struct vector_copy copy, float **memory)
{
    if (!copy.weight->tensor) return;
    widen_elements(copy.weight, 0, copy.weight->row_count, *memory);
    *copy.floats_out = *memory;
    *memory += copy.weight->row_count;
}

static enum cllm_status copy_vectors(struct forward_cpu *forward, struct cllm_error *err)
{
    const struct cllm_model *model = forward->model;
    struct vector_copy copies[VECTORS_OF_LAYER];
    forward->vectors = calloc(model->config.layer_count, sizeof *forward->vectors);
    if (!forward->vectors) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the norms");
    uint64_t float_count = model->final_norm.row_count;
    for (uint32_t layer = 0; layer < model->config.layer_count; layer++) {
        list_vectors(&model->layers[layer], &forward->vectors[layer], copies);
        for (int i = 0; i < VECTORS_OF_LAYER; i++) {
            float_count += copies[i].weight->row_count; /* 0 where absent */
        }
    }
    enum cllm_status status = allocate_floats(forward, 1, float_count, &forward->vector_memory, err);
    if (status) return status;
    float *memory = forward->vector_memory;
    for (uint32_t layer = 0; layer < model->config.layer_count; layer++) {
        list_vectors(&model->layers[layer], &forward->vectors[layer], copies);
        for (int i = 0; i < VECTORS_OF_LAYER; i++) {
            copy_vector(copies[i], &memory);
        }
    }
    copy_vector((struct vector_copy){&model->final_norm, &forward->final_norm}, &memory);
    return CLLM_OK;
}

enum cllm_status cllm_forward_cpu_create(const struct cllm_model *model, const struct cllm_forward_cpu_options *options,
                                         struct cllm_forward **forward_out, struct cllm_error *err)
{
    *forward_out = NULL;
    struct forward_cpu *forward = calloc(1, sizeof *forward);
    if (!forward) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the forward pass");
    forward->model = model;
    forward->kernels = options->kernels ? options->kernels : cllm_kernels_best();
    forward->kv_stride = ((options->context_size + 15) & ~15u) + 16;
    forward->base = (struct cllm_forward){
        .device_name = forward->kernels->name,
        .vocab_size = model->config.vocab_size,
        .context_size = options->context_size,
        .run = forward_cpu_run,
        .destroy = forward_cpu_destroy,
    };
    enum cllm_status status = cllm_pool_create(options->thread_count, &forward->pool, err);
    if (!status) status = allocate_buffers(forward, err);
    if (!status) status = copy_vectors(forward, err);
    if (status) {
        forward_cpu_destroy(&forward->base);
        return status;
    }
    forward->base.thread_count = cllm_pool_thread_count(forward->pool);
    *forward_out = &forward->base;
    return CLLM_OK;
}

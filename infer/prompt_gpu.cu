/* prompt_gpu.cu - many positions at a time: matrix products by tensor_gpu.cuh where it takes them, else by cuBLAS; attention as
 * two products of each key-value head's cache with the queries that share it. For cuBLAS packed matrices are unpacked, and F16
 * ones widened, on a second stream while the product before theirs runs; two buffers take turns. */
#include "cuda_try.h"
#include "forward_gpu_internal.cuh"
#include "kernels_prompt.cuh"
#include "pack12.h"

/* One pass of a tile through the model. */
struct tile {
    struct forward_gpu *forward;
    uint32_t count; /* positions */
    uint32_t first_position;
    uint32_t layer_index;
};

static void *memory_at(const struct tile *tile, uint64_t offset)
{
    return tile->forward->memory + offset;
}

static float *floats_at(const struct tile *tile, uint64_t offset)
{
    return (float *)memory_at(tile, offset);
}

/* Which product, and so which input, a matrix takes. */
enum product_kind { PRODUCT_F32, PRODUCT_BF16, PRODUCT_TENSOR };

static enum product_kind kind_of(const struct tile *tile, const struct cllm_gpu_matrix *matrix)
{
    if (tensor_takes(tile->forward->tensor, matrix)) return PRODUCT_TENSOR;
    return matrix->form == CLLM_GPU_BF16 || matrix->form == CLLM_GPU_PACKED12 ? PRODUCT_BF16 : PRODUCT_F32;
}

/* Whether it is multiplied where it lies. */
static bool is_plain(const struct tile *tile, const struct cllm_gpu_matrix *matrix)
{
    return matrix->form == CLLM_GPU_BF16 || matrix->form == CLLM_GPU_F32 || kind_of(tile, matrix) == PRODUCT_TENSOR;
}

/* ---------------------------------------------------------------------------------------------------------- matrices */

/* Starts to make a matrix that cuBLAS can multiply, where it is not one. */
static enum cllm_status prepare(const struct tile *tile, const struct cllm_gpu_matrix *matrix, struct cllm_error *err)
{
    struct forward_gpu *forward = tile->forward;
    if (is_plain(tile, matrix)) return CLLM_OK;
    const unsigned slot = forward->prepared_count++ % 2;
    void *d_to = memory_at(tile, forward->buffers.matrix[slot]);
    cudaError_t result = cudaStreamWaitEvent(forward->side, forward->used[slot], 0);
    enum cllm_status status = cuda_try(result, "wait for a buffer", err);
    if (status) return status;
    if (matrix->form == CLLM_GPU_PACKED12) {
        status = cllm_pack12_unpack(matrix, d_to, forward->side, err);
    } else {
        const uint64_t count = (uint64_t)matrix->shape.row_count * matrix->shape.column_count;
        widen_f16<<<forward->multiprocessors * 4, PROMPT_THREADS, 0, forward->side>>>((const __half *)matrix->d_elements, count,
                                                                                      (float *)d_to);
        status = cuda_try(cudaGetLastError(), "widen weights", err);
    }
    return status ? status : cuda_try(cudaEventRecord(forward->ready[slot], forward->side), "record an event", err);
}

/* output = matrix * input by cuBLAS, or added to it. The next matrix is prepared meanwhile. */
static enum cllm_status multiply_by_cublas(const struct tile *tile, const struct cllm_gpu_matrix *matrix,
                                           const struct cllm_gpu_matrix *next, float *output, bool adds, struct cllm_error *err)
{
    struct forward_gpu *forward = tile->forward;
    const struct cllm_gpu_shape shape = matrix->shape;
    const bool plain = is_plain(tile, matrix);
    struct gemm_product product = {};
    enum cllm_status status = CLLM_OK;
    unsigned slot = 0;
    product.weights = matrix->d_elements;
    if (!plain) {
        slot = forward->taken_count++ % 2;
        product.weights = memory_at(tile, forward->buffers.matrix[slot]);
        status = cuda_try(cudaStreamWaitEvent(forward->stream, forward->ready[slot], 0), "wait for weights", err);
    }
    if (!status && next) status = prepare(tile, next, err);
    product.type = kind_of(tile, matrix) == PRODUCT_BF16 ? GEMM_BF16 : GEMM_F32;
    product.input = memory_at(tile, forward->buffers.tile_input);
    product.output = output;
    product.row_count = product.output_stride = shape.row_count;
    product.column_count = product.weight_stride = product.input_stride = shape.column_count;
    product.vector_count = tile->count;
    product.count = 1;
    product.adds = adds;
    if (!status) status = gemm_multiply(forward->gemm, &product, err);
    if (!status && !plain) {
        status = cuda_try(cudaEventRecord(forward->used[slot], forward->stream), "record an event", err);
    }
    return status;
}

/* Matrices that have one input, and what comes of them. */
struct projection {
    const struct cllm_gpu_matrix *matrices[TENSOR_PARTS];
    float *outputs[TENSOR_PARTS];
    uint32_t count;
    bool adds;
};

/* Those that tensor_gpu.cuh takes, all at once. */
static enum cllm_status multiply_by_tensor(const struct tile *tile, const struct projection *projection, struct cllm_error *err)
{
    struct tensor_product product = {};
    for (uint32_t i = 0; i < projection->count; i++) {
        if (kind_of(tile, projection->matrices[i]) != PRODUCT_TENSOR) continue;
        product.matrices[product.matrix_count] = projection->matrices[i];
        product.outputs[product.matrix_count++] = projection->outputs[i];
    }
    product.input = memory_at(tile, tile->forward->buffers.tile_input);
    product.vector_count = tile->count;
    product.adds = projection->adds;
    return tensor_multiply(tile->forward->tensor, &product, err);
}

/* `make_input` makes the input of a kind of product. `next`, if not null, is prepared meanwhile, and so is each matrix after the
 * first. */
template <class MAKE_INPUT>
static enum cllm_status project(const struct tile *tile, const struct projection *projection, const struct cllm_gpu_matrix *next,
                                MAKE_INPUT make_input, struct cllm_error *err)
{
    bool has_input = false, is_done = false; /* those of tensor_gpu.cuh */
    enum product_kind input = PRODUCT_F32;
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 0; !status && i < projection->count; i++) {
        const struct cllm_gpu_matrix *matrix = projection->matrices[i];
        const struct cllm_gpu_matrix *after = i + 1 < projection->count ? projection->matrices[i + 1] : next;
        const enum product_kind kind = kind_of(tile, matrix);
        if (kind == PRODUCT_TENSOR && is_done) {
            if (after) status = prepare(tile, after, err);
            continue;
        }
        if (!has_input || kind != input) status = make_input(kind);
        has_input = true;
        input = kind;
        if (status) return status;
        if (kind != PRODUCT_TENSOR) {
            status = multiply_by_cublas(tile, matrix, after, projection->outputs[i], projection->adds, err);
            continue;
        }
        is_done = true;
        status = multiply_by_tensor(tile, projection, err);
        if (!status && after) status = prepare(tile, after, err);
    }
    return status;
}

/* Calls `launch` with where a kernel is to write the input of a kind of product. */
template <class LAUNCH>
static enum cllm_status write_input(const struct tile *tile, enum product_kind kind, const char *what, LAUNCH launch,
                                    struct cllm_error *err)
{
    void *out = memory_at(tile, tile->forward->buffers.tile_input);
    if (kind == PRODUCT_TENSOR) launch(tensor_input{(uint8_t *)out, tensor_input_stride(tile->count)});
    else if (kind == PRODUCT_BF16) launch((__nv_bfloat16 *)out);
    else launch((float *)out);
    return cuda_try(cudaGetLastError(), what, err);
}

/* ------------------------------------------------------------------------------------------------------------- steps */

static enum cllm_status normalize(const struct tile *tile, const float *norm, enum product_kind kind, struct cllm_error *err)
{
    const struct forward_gpu *forward = tile->forward;
    const float *hidden = floats_at(tile, forward->buffers.tile_hidden);
    const auto launch = [&](auto out) {
        normalize_tile<<<tile->count, PROMPT_THREADS, 0, forward->stream>>>(hidden, norm, forward->config.hidden_size,
                                                                            forward->config.norm_epsilon, out);
    };
    return write_input(tile, kind, "normalize a tile", launch, err);
}

/* hidden += linear * input */
template <class MAKE_INPUT>
static enum cllm_status project_and_add(const struct tile *tile, const struct cllm_gpu_linear *linear,
                                        const struct cllm_gpu_matrix *next, MAKE_INPUT make_input, struct cllm_error *err)
{
    float *hidden = floats_at(tile, tile->forward->buffers.tile_hidden);
    const struct projection projection = {{&linear->weight}, {hidden}, 1, true};
    enum cllm_status status = project(tile, &projection, next, make_input, err);
    if (status || !linear->d_bias) return status;
    add_bias<<<tile->count, PROMPT_THREADS, 0, tile->forward->stream>>>(linear->d_bias, linear->weight.shape.row_count, hidden);
    return cuda_try(cudaGetLastError(), "add a bias", err);
}

static enum cllm_status project_qkv(const struct tile *tile, const struct cllm_gpu_layer *layer, struct cllm_error *err)
{
    const struct cllm_forward_gpu_buffers *buffers = &tile->forward->buffers;
    const struct projection projection = {
        {&layer->query.weight, &layer->key.weight, &layer->value.weight},
        {floats_at(tile, buffers->tile_query), floats_at(tile, buffers->tile_key), floats_at(tile, buffers->tile_value)},
        3,
        false};
    const auto make_input = [&](enum product_kind kind) { return normalize(tile, layer->d_attention_norm, kind, err); };
    return project(tile, &projection, &layer->output.weight, make_input, err);
}

static enum cllm_status rotate(const struct tile *tile, const struct cllm_gpu_layer *layer, struct cllm_error *err)
{
    const struct forward_gpu *forward = tile->forward;
    const struct cllm_config *config = &forward->config;
    const struct cllm_forward_gpu_buffers *buffers = &forward->buffers;
    struct rotate_args args = {};
    args.query = floats_at(tile, buffers->tile_query);
    args.key = floats_at(tile, buffers->tile_key);
    args.value = floats_at(tile, buffers->tile_value);
    args.query_bias = layer->query.d_bias;
    args.key_bias = layer->key.d_bias;
    args.value_bias = layer->value.d_bias;
    args.cosines = floats_at(tile, buffers->tile_cosines);
    args.sines = floats_at(tile, buffers->tile_sines);
    args.rotated = (__nv_bfloat16 *)memory_at(tile, buffers->tile_rotated);
    args.keys = forward->keys + tile->layer_index * forward->cache_layer;
    args.values = forward->values + tile->layer_index * forward->cache_layer;
    args.head_count = config->head_count;
    args.kv_head_count = config->kv_head_count;
    args.head_dim = config->head_dim;
    args.head_stride = buffers->head_stride;
    args.context_size = forward->base.context_size;
    args.first_position = tile->first_position;
    rotate_tile<<<tile->count, PROMPT_THREADS, 0, forward->stream>>>(args);
    return cuda_try(cudaGetLastError(), "rotate a tile", err);
}

/* Attention of `kv_count` key-value heads from `kv_head` on; the result, [head][position][head_dim], takes the queries' place. */
static enum cllm_status attend_heads(const struct tile *tile, uint32_t kv_head, uint32_t kv_count, struct cllm_error *err)
{
    const struct forward_gpu *forward = tile->forward;
    const struct cllm_config *config = &forward->config;
    const struct cllm_forward_gpu_buffers *buffers = &forward->buffers;
    const uint32_t window = config->sliding_window, rows = buffers->group * tile->count;
    const uint32_t first_key = window && tile->first_position + 1 > window ? tile->first_position + 1 - window : 0;
    const uint32_t keys = tile->first_position + tile->count - first_key, key_stride = (keys + 7) / 8 * 8;
    const long long cache_step = (long long)forward->base.context_size * buffers->head_stride;
    const size_t cache =
        tile->layer_index * forward->cache_layer + kv_head * (size_t)cache_step + (size_t)first_key * buffers->head_stride;
    float *scores = floats_at(tile, buffers->scores);
    __nv_bfloat16 *weights = (__nv_bfloat16 *)memory_at(tile, buffers->weights);

    struct gemm_product score = {};
    score.type = GEMM_BF16;
    score.weights = forward->keys + cache;
    score.weight_stride = score.input_stride = buffers->head_stride;
    score.weight_step = cache_step;
    score.input = (__nv_bfloat16 *)memory_at(tile, buffers->tile_rotated) + (size_t)kv_head * rows * buffers->head_stride;
    score.input_step = (long long)rows * buffers->head_stride;
    score.output = scores;
    score.output_stride = key_stride;
    score.output_step = (long long)rows * key_stride;
    score.row_count = keys;
    score.column_count = config->head_dim;
    score.vector_count = rows;
    score.count = kv_count;
    enum cllm_status status = gemm_multiply(forward->gemm, &score, err);
    if (status) return status;

    const struct soften_args soften = {
        scores, weights, 1 / sqrtf((float)config->head_dim), tile->count, key_stride, keys, first_key, tile->first_position,
        window};
    soften_tile<<<kv_count * rows, PROMPT_THREADS, 0, forward->stream>>>(soften);
    status = cuda_try(cudaGetLastError(), "weigh the scores", err);
    if (status) return status;

    struct gemm_product mix = score;
    mix.transposed = true;
    mix.weights = forward->values + cache;
    mix.input = weights;
    mix.input_stride = key_stride;
    mix.input_step = (long long)rows * key_stride;
    mix.output = floats_at(tile, buffers->tile_query) + (size_t)kv_head * rows * config->head_dim;
    mix.output_stride = config->head_dim;
    mix.output_step = (long long)rows * config->head_dim;
    mix.row_count = config->head_dim;
    mix.column_count = keys;
    return gemm_multiply(forward->gemm, &mix, err);
}

static enum cllm_status attend_tile(const struct tile *tile, struct cllm_error *err)
{
    const struct forward_gpu *forward = tile->forward;
    const struct cllm_config *config = &forward->config;
    enum cllm_status status = CLLM_OK;
    for (uint32_t head = 0; !status && head < config->kv_head_count; head += forward->buffers.score_heads) {
        const uint32_t left = config->kv_head_count - head;
        status = attend_heads(tile, head, left < forward->buffers.score_heads ? left : forward->buffers.score_heads, err);
    }
    return status;
}

static enum cllm_status project_attended(const struct tile *tile, const struct cllm_gpu_layer *layer, struct cllm_error *err)
{
    const struct forward_gpu *forward = tile->forward;
    const float *attended = floats_at(tile, forward->buffers.tile_query);
    const auto launch = [&](auto out) {
        gather_heads<<<tile->count, PROMPT_THREADS, 0, forward->stream>>>(attended, forward->config.head_count,
                                                                          forward->config.head_dim, out);
    };
    const auto make_input = [&](enum product_kind kind) { return write_input(tile, kind, "gather heads", launch, err); };
    return project_and_add(tile, &layer->output, &layer->gate.weight, make_input, err);
}

static enum cllm_status run_mlp(const struct tile *tile, const struct cllm_gpu_layer *layer, const struct cllm_gpu_matrix *next,
                                struct cllm_error *err)
{
    const struct forward_gpu *forward = tile->forward;
    float *gate = floats_at(tile, forward->buffers.tile_gate), *up = floats_at(tile, forward->buffers.tile_up);
    const struct projection projection = {{&layer->gate.weight, &layer->up.weight}, {gate, up}, 2, false};
    const auto make_normal = [&](enum product_kind kind) { return normalize(tile, layer->d_mlp_norm, kind, err); };
    const auto launch = [&](auto out) {
        activate_tile<<<tile->count, PROMPT_THREADS, 0, forward->stream>>>(gate, up, layer->gate.d_bias, layer->up.d_bias,
                                                                           forward->config.intermediate_size, out);
    };
    const auto make_active = [&](enum product_kind kind) { return write_input(tile, kind, "activate a tile", launch, err); };
    const enum cllm_status status = project(tile, &projection, &layer->down.weight, make_normal, err);
    return status ? status : project_and_add(tile, &layer->down, next, make_active, err);
}

/* ------------------------------------------------------------------------------------------------------------- tiles */

/* `next`: what the layer after this one begins with, if that is known and stays. */
static enum cllm_status run_layer(const struct tile *tile, const struct cllm_gpu_layer *layer, const struct cllm_gpu_matrix *next,
                                  struct cllm_error *err)
{
    enum cllm_status status = project_qkv(tile, layer, err);
    if (!status) status = rotate(tile, layer, err);
    if (!status) status = attend_tile(tile, err);
    if (!status) status = project_attended(tile, layer, err);
    return status ? status : run_mlp(tile, layer, next, err);
}

static enum cllm_status embed(const struct tile *tile, const uint32_t *ids, struct cllm_error *err)
{
    const struct forward_gpu *forward = tile->forward;
    struct embed_args args = {};
    args.ids = (const uint32_t *)memory_at(tile, forward->buffers.tile_ids);
    args.embedding = forward->source->embedding;
    args.frequencies = forward->frequencies;
    args.attention_factor = (float)forward->config.rope.attention_factor;
    args.head_dim = forward->config.head_dim;
    args.first_position = tile->first_position;
    args.hidden = floats_at(tile, forward->buffers.tile_hidden);
    args.cosines = floats_at(tile, forward->buffers.tile_cosines);
    args.sines = floats_at(tile, forward->buffers.tile_sines);
    cudaError_t result =
        cudaMemcpyAsync((void *)args.ids, ids, tile->count * sizeof *ids, cudaMemcpyHostToDevice, forward->stream);
    if (result) return cuda_try(result, "upload tokens", err);
    embed_tile<<<tile->count, PROMPT_THREADS, 0, forward->stream>>>(args);
    return cuda_try(cudaGetLastError(), "embed tokens", err);
}

enum cllm_status cllm_gpu_run_tile(struct forward_gpu *forward, const uint32_t *ids, uint32_t count, struct cllm_error *err)
{
    struct tile tile = {forward, count, forward->base.position_count, 0};
    const bool resident = forward->source->resident;
    const uint32_t layer_count = forward->config.layer_count;
    forward->prepared_count = forward->taken_count = 0;
    enum cllm_status status = embed(&tile, ids, err);
    for (uint32_t i = 0; !status && i < layer_count; i++) {
        struct cllm_gpu_layer layer;
        tile.layer_index = i;
        status = cllm_gpu_acquire(forward, i, &layer, err);
        if (status) break;
        /* the second stream must not run ahead of the layer's arrival */
        if (!resident || i == 0) status = cuda_try(cudaEventRecord(forward->arrived, forward->stream), "record an event", err);
        if (!status && (!resident || i == 0)) {
            status = cuda_try(cudaStreamWaitEvent(forward->side, forward->arrived, 0), "wait for a layer", err);
            if (!status) status = prepare(&tile, &layer.query.weight, err);
        }
        const struct cllm_gpu_matrix *next = resident && i + 1 < layer_count ? &forward->layers[i + 1].query.weight : NULL;
        if (!status) status = run_layer(&tile, &layer, next, err);
        status = cllm_gpu_release(forward, i, status, err);
    }
    if (status) cudaStreamSynchronize(forward->side); /* whose buffers are used again */
    return status;
}

static __global__ void publish_row(const float *row, uint32_t count, float *vector)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) publish(vector + i, row[i]);
}

enum cllm_status cllm_gpu_take_row(struct forward_gpu *forward, uint32_t index, struct cllm_error *err)
{
    const struct tile tile = {forward, 0, 0, 0};
    const uint32_t hidden_size = forward->config.hidden_size, threads = 256;
    float *vector = cllm_gpu_last_vector(forward) + forward->token.turn * forward->token.vectors.turn_floats;
    publish_row<<<(hidden_size + threads - 1) / threads, threads, 0, forward->stream>>>(
        floats_at(&tile, forward->buffers.tile_hidden) + (size_t)index * hidden_size, hidden_size, vector);
    return cuda_try(cudaGetLastError(), "take a position", err);
}

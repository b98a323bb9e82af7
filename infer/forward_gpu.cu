/* forward_gpu.cu - one token through the model on the GPU; those of prompts go through prompt_gpu.cu where cuBLAS is found.
 *
 * A token is a chain of grids: start, then for each layer queries/keys/values, attention, output, gate and up, down, and at
 * the end the head. Each starts its loads of weights while the one before it ends. Where all layers stay in place the chain is
 * recorded once as a graph, and what changes (token, position) is read from memory.
 */
#include "forward_gpu.h"

#include "cuda_try.h"
#include "forward_gpu_internal.cuh"
#include "kernels_attention.cuh"
#include "rope.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#define SHARED_STATIC_BYTES 2048       /* of a product, generously */
#define SHARED_WEIGHT_BYTES (64 << 10) /* for weights in flight of NORM_WARPS warps */
#define SPIN_LIMIT 200000 /* questions whether a token is done, about a tenth of a second, before the thread sleeps */

/* ------------------------------------------------------------------------------------------------------------ launch */

struct launch_shape {
    dim3 blocks;
    unsigned threads;
    size_t shared_bytes;
};

/* `overlaps`: may start while the grid before it ends. */
template <class ARGS>
static cudaError_t launch(const struct forward_gpu *forward, void (*kernel)(ARGS), struct launch_shape shape, bool overlaps,
                          const ARGS &args)
{
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = shape.blocks;
    config.blockDim = dim3(shape.threads);
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = forward->stream;
    config.attrs = &attribute;
    config.numAttrs = overlaps && forward->overlaps ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, args);
}

static cudaError_t allow_shared(const void *kernel, size_t bytes)
{
    return bytes > 48 * 1024 ? cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes)
                             : cudaSuccess;
}

/* ---------------------------------------------------------------------------------------------------------- products */

typedef void product_kernel(struct product_args);

template <int STAGE>
static product_kernel *choose_form(enum cllm_gpu_form form)
{
    switch (form) {
    case CLLM_GPU_F16: return multiply<f16_form, STAGE>;
    case CLLM_GPU_F32: return multiply<f32_form, STAGE>;
    case CLLM_GPU_PACKED12: return multiply<packed_form, STAGE>;
    default: return multiply<bf16_form, STAGE>;
    }
}

static product_kernel *choose_kernel(enum product_stage stage, enum cllm_gpu_form form)
{
    switch (stage) {
    case STAGE_QKV: return choose_form<STAGE_QKV>(form);
    case STAGE_GATE: return choose_form<STAGE_GATE>(form);
    case STAGE_ADD: return choose_form<STAGE_ADD>(form);
    default: return choose_form<STAGE_SET>(form);
    }
}

/* Fills what the form and the size of a matrix decide. */
static struct product_args describe_product(const struct cllm_gpu_matrix *matrix)
{
    const uint32_t columns = matrix->shape.column_count;
    const uint64_t element_bytes = matrix->form == CLLM_GPU_F32 ? 4 : 2;
    struct product_args args = {};
    args.column_count = columns;
    args.row_bytes = matrix->form == CLLM_GPU_PACKED12 ? pack12_row_bytes(columns) : columns * element_bytes;
    args.full_groups = args.row_bytes % 16 == 0 ? columns / GROUP : 0;
    return args;
}

static void set_part(struct product_args *args, unsigned part, const struct cllm_gpu_linear *linear, uint32_t set_count)
{
    const struct cllm_gpu_matrix *weight = &linear->weight;
    args->parts[part] = {(const uint8_t *)weight->d_elements,
                         weight->d_patch_starts,
                         weight->d_patches,
                         linear->d_bias,
                         weight->window,
                         weight->shape.row_count,
                         set_count};
}

/* As many warps as leave none idle at the end, of a block that has so many sets. */
static unsigned choose_warps(uint32_t sets_of_block, unsigned most)
{
    unsigned best = most;
    double best_use = 0;
    for (unsigned warps = most; warps >= NORM_WARPS && warps >= most - most / 4; warps--) {
        const uint32_t rounds = (sets_of_block + warps - 1) / warps;
        const double use = (double)sets_of_block / ((double)rounds * warps);
        if (use > best_use + 0.005) best = warps, best_use = use;
    }
    return best;
}

/* Shared memory of each warp. */
static size_t warp_bytes(enum cllm_gpu_form form)
{
    return ROWS * (form == CLLM_GPU_F32        ? f32_form::depth * f32_form::group_bytes
                   : form == CLLM_GPU_PACKED12 ? packed_form::depth * packed_form::group_bytes
                                               : halves_form::depth * halves_form::group_bytes);
}

static cudaError_t launch_product(const struct forward_gpu *forward, enum product_stage stage, enum cllm_gpu_form form,
                                  const struct product_args *args, bool overlaps)
{
    const uint32_t sets = stage == STAGE_QKV ? args->parts[PART_VALUE].set_end : args->parts[0].set_end;
    const uint32_t blocks = sets < forward->multiprocessors ? sets : forward->multiprocessors;
    if (!blocks) return cudaSuccess;
    const size_t input_bytes = ((size_t)args->column_count + GROUP - 1) / GROUP * GROUP * sizeof(float);
    const size_t fitting = (forward->shared_bytes - input_bytes) / warp_bytes(form);
    const unsigned most = fitting < PRODUCT_WARPS_MAX ? (unsigned)fitting : PRODUCT_WARPS_MAX;
    const unsigned warps = choose_warps((sets + blocks - 1) / blocks, most);
    const struct launch_shape shape = {dim3(blocks), warps * WARP, input_bytes + warps * warp_bytes(form)};
    product_kernel *kernel = choose_kernel(stage, form);
    const cudaError_t result = allow_shared((const void *)kernel, shape.shared_bytes);
    return result ? result : launch(forward, kernel, shape, overlaps, *args);
}

/* Queries, keys and values in one launch where their forms agree, else in one for each form. */
static cudaError_t launch_qkv(const struct forward_gpu *forward, const struct cllm_gpu_layer *layer, uint32_t layer_index,
                              bool overlaps)
{
    const struct cllm_gpu_linear *linears[PART_COUNT] = {&layer->query, &layer->key, &layer->value};
    const struct cllm_config *config = &forward->config;
    bool done[PART_COUNT] = {false, false, false};
    cudaError_t result = cudaSuccess;
    for (unsigned first = 0; !result && first < PART_COUNT; first++) {
        if (done[first]) continue;
        const enum cllm_gpu_form form = linears[first]->weight.form;
        struct product_args args = describe_product(&linears[first]->weight);
        uint32_t sets = 0;
        for (unsigned part = 0; part < PART_COUNT; part++) {
            const bool takes = !done[part] && linears[part]->weight.form == form;
            if (takes) sets += linears[part]->weight.shape.row_count / 2;
            set_part(&args, part, linears[part], sets);
            done[part] = done[part] || takes;
        }
        args.input = forward->hidden;
        args.norm = layer->d_attention_norm;
        args.epsilon = config->norm_epsilon;
        args.output = forward->query;
        args.position = forward->position;
        args.cosines = forward->cosines;
        args.sines = forward->sines;
        args.keys = forward->keys + layer_index * forward->cache_layer;
        args.values = forward->values + layer_index * forward->cache_layer;
        args.head_dim = config->head_dim;
        args.head_stride = forward->buffers.head_stride;
        args.context_size = forward->base.context_size;
        result = launch_product(forward, STAGE_QKV, form, &args, overlaps && first == 0);
    }
    return result;
}

static cudaError_t launch_add(const struct forward_gpu *forward, const struct cllm_gpu_linear *linear, const float *input)
{
    struct product_args args = describe_product(&linear->weight);
    set_part(&args, 0, linear, (linear->weight.shape.row_count + 1) / 2);
    args.input = input;
    args.output = forward->hidden;
    return launch_product(forward, STAGE_ADD, linear->weight.form, &args, true);
}

static cudaError_t launch_gate(const struct forward_gpu *forward, const struct cllm_gpu_layer *layer)
{
    struct product_args args = describe_product(&layer->gate.weight);
    set_part(&args, 0, &layer->gate, layer->gate.weight.shape.row_count);
    set_part(&args, 1, &layer->up, 0);
    args.input = forward->hidden;
    args.norm = layer->d_mlp_norm;
    args.epsilon = forward->config.norm_epsilon;
    args.output = forward->gate;
    return launch_product(forward, STAGE_GATE, layer->gate.weight.form, &args, true);
}

static cudaError_t launch_head(const struct forward_gpu *forward, bool overlaps)
{
    const struct cllm_gpu_linear head = {forward->source->head, NULL};
    struct product_args args = describe_product(&head.weight);
    set_part(&args, 0, &head, (head.weight.shape.row_count + 1) / 2);
    args.input = forward->hidden;
    args.norm = forward->source->d_final_norm;
    args.epsilon = forward->config.norm_epsilon;
    args.output = forward->base.logits;
    return launch_product(forward, STAGE_SET, head.weight.form, &args, overlaps);
}

/* --------------------------------------------------------------------------------------------------------- attention */

typedef void attention_kernel(struct attention_args);

template <int HEADS>
static attention_kernel *choose_dims(uint32_t head_stride)
{
    return head_stride <= 32    ? attend<HEADS, 1>
           : head_stride <= 64  ? attend<HEADS, 2>
           : head_stride <= 128 ? attend<HEADS, 4>
                                : attend<HEADS, 8>;
}

static attention_kernel *choose_attention(uint32_t heads, uint32_t head_stride)
{
    return heads == 1   ? choose_dims<1>(head_stride)
           : heads == 2 ? choose_dims<2>(head_stride)
           : heads == 4 ? choose_dims<4>(head_stride)
                        : choose_dims<8>(head_stride);
}

static cudaError_t launch_attention(const struct forward_gpu *forward, uint32_t layer_index)
{
    const struct cllm_config *config = &forward->config;
    const struct cllm_forward_gpu_buffers *buffers = &forward->buffers;
    const struct attention_args args = {
        forward->query,
        forward->keys + layer_index * forward->cache_layer,
        forward->values + layer_index * forward->cache_layer,
        forward->attended,
        forward->partial_values,
        forward->partial_scales,
        forward->arrivals,
        forward->position,
        buffers->group,
        buffers->chunk_count,
        config->head_dim,
        buffers->head_stride,
        forward->base.context_size,
        config->sliding_window,
        1 / sqrtf((float)config->head_dim),
    };
    const uint32_t dims = buffers->head_stride <= 32 ? 1 : buffers->head_stride <= 64 ? 2 : buffers->head_stride <= 128 ? 4 : 8;
    const struct launch_shape shape = {dim3(config->kv_head_count * buffers->chunk_count, buffers->span_count),
                                       ATTENTION_WARPS * WARP,
                                       (size_t)ATTENTION_WARPS * buffers->chunk_heads * (dims * WARP + 2) * sizeof(float)};
    attention_kernel *kernel = choose_attention(buffers->chunk_heads, buffers->head_stride);
    const cudaError_t result = allow_shared((const void *)kernel, shape.shared_bytes);
    return result ? result : launch(forward, kernel, shape, true, args);
}

/* ------------------------------------------------------------------------------------------------------------- token */

static cudaError_t launch_start(const struct forward_gpu *forward)
{
    const struct start_args args = {forward->token,           forward->source->embedding,
                                    forward->frequencies,     (float)forward->config.rope.attention_factor,
                                    forward->config.head_dim, forward->hidden,
                                    forward->cosines,         forward->sines,
                                    forward->position};
    return launch(forward, start_token, {dim3(1), 1024, 0}, false, args);
}

/* `settled`: the weights, and the start of the token, were done before what was queued last. */
static cudaError_t launch_layer(const struct forward_gpu *forward, const struct cllm_gpu_layer *layer, uint32_t layer_index,
                                bool settled)
{
    cudaError_t result = launch_qkv(forward, layer, layer_index, settled);
    if (!result) result = launch_attention(forward, layer_index);
    if (!result) result = launch_add(forward, &layer->output, forward->attended);
    if (!result) result = launch_gate(forward, layer);
    if (!result) result = launch_add(forward, &layer->down, forward->gate);
    return result;
}

static cudaError_t launch_resident(const struct forward_gpu *forward, bool with_head)
{
    cudaError_t result = launch_start(forward);
    for (uint32_t i = 0; !result && i < forward->config.layer_count; i++) {
        result = launch_layer(forward, &forward->layers[i], i, i > 0);
    }
    return !result && with_head ? launch_head(forward, true) : result;
}

static enum cllm_status record_token(struct forward_gpu *forward, bool with_head, struct cllm_error *err)
{
    cudaGraph_t graph = NULL;
    cudaError_t result = cudaStreamBeginCapture(forward->stream, cudaStreamCaptureModeThreadLocal);
    if (!result) {
        result = launch_resident(forward, with_head);
        const cudaError_t ended = cudaStreamEndCapture(forward->stream, &graph);
        if (!result) result = ended;
    }
    if (!result) result = cudaGraphInstantiate(&forward->tokens[with_head], graph, 0);
    if (graph) cudaGraphDestroy(graph);
    return cuda_try(result, "record a token's work", err);
}

static enum cllm_status stream_token(struct forward_gpu *forward, bool with_head, struct cllm_error *err)
{
    enum cllm_status status = cuda_try(launch_start(forward), "start a token", err);
    for (uint32_t i = 0; !status && i < forward->config.layer_count; i++) {
        struct cllm_gpu_layer layer;
        status = cllm_gpu_acquire(forward, i, &layer, err);
        if (status) break;
        status = cuda_try(launch_layer(forward, &layer, i, false), "start a layer", err);
        status = cllm_gpu_release(forward, i, status, err);
    }
    if (!status && with_head) status = cuda_try(launch_head(forward, true), "start the head", err);
    return status;
}

enum cllm_status cllm_gpu_wait(struct forward_gpu *forward, struct cllm_error *err)
{
    cudaError_t result = cudaStreamQuery(forward->stream);
    for (unsigned i = 0; result == cudaErrorNotReady && i < SPIN_LIMIT; i++) result = cudaStreamQuery(forward->stream);
    if (result == cudaErrorNotReady) {
        (void)cudaGetLastError();
        result = cudaStreamSynchronize(forward->stream);
    }
    return cuda_try(result, "compute a token", err);
}

/* One token, at the next position. */
static enum cllm_status run_token(struct forward_gpu *forward, uint32_t id, bool with_head, struct cllm_error *err)
{
    *forward->token = {id, forward->base.position_count};
    enum cllm_status status = CLLM_OK;
    if (!forward->source->resident) {
        status = stream_token(forward, with_head, err);
    } else {
        if (!forward->tokens[with_head]) status = record_token(forward, with_head, err);
        if (!status) status = cuda_try(cudaGraphLaunch(forward->tokens[with_head], forward->stream), "start a token", err);
    }
    /* The memory that tells the next token must not change under this one, and a failure leaves nothing running. */
    const enum cllm_status waited = cllm_gpu_wait(forward, status ? NULL : err);
    return status ? status : waited;
}

static enum cllm_status run_tokens(struct forward_gpu *forward, const struct cllm_forward_input *input, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; !status && i < input->id_count; i++) {
        if (input->proceed && !input->proceed(input->user)) {
            return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
        }
        status = run_token(forward, input->ids[i], input->logits || i + 1 == input->id_count, err);
        if (status) return status;
        forward->base.position_count++;
        if (input->logits) status = input->logits(input->user, forward->base.logits, err);
    }
    return status;
}

/* The head of one position of a tile. */
static enum cllm_status run_head(struct forward_gpu *forward, uint32_t index, struct cllm_error *err)
{
    enum cllm_status status = cllm_gpu_take_row(forward, index, err);
    if (!status) status = cuda_try(launch_head(forward, false), "start the head", err);
    return status ? status : cllm_gpu_wait(forward, err);
}

static enum cllm_status run_prompt(struct forward_gpu *forward, const struct cllm_forward_input *input, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t done = 0; !status && done < input->id_count;) {
        if (input->proceed && !input->proceed(input->user)) {
            return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
        }
        const size_t left = input->id_count - done;
        const uint32_t count = left < forward->buffers.prompt_tile ? (uint32_t)left : forward->buffers.prompt_tile;
        status = cllm_gpu_run_tile(forward, input->ids + done, count, err);
        const enum cllm_status waited = cllm_gpu_wait(forward, status ? NULL : err);
        if (status || waited) return status ? status : waited;
        forward->base.position_count += count;
        done += count;
        for (uint32_t i = 0; !status && input->logits && i < count; i++) {
            status = run_head(forward, i, err);
            if (!status) status = input->logits(input->user, forward->base.logits, err);
        }
        if (!input->logits && done == input->id_count) status = run_head(forward, count - 1, err);
    }
    return status;
}

static enum cllm_status upload_frequencies(struct forward_gpu *forward, uint32_t length, struct cllm_error *err)
{
    const struct cllm_config *config = &forward->config;
    if (forward->has_frequencies && config->rope.type != CLLM_ROPE_DYNAMIC) return CLLM_OK;
    cllm_rope_frequencies(&config->rope, cllm_rope_extent{config->head_dim, length}, forward->pinned_frequencies);
    forward->has_frequencies = true;
    return cuda_try(cudaMemcpyAsync(forward->frequencies, forward->pinned_frequencies, config->head_dim / 2 * sizeof(float),
                                    cudaMemcpyHostToDevice, forward->stream),
                    "upload frequencies", err);
}

static enum cllm_status forward_gpu_run(struct cllm_forward *base, const struct cllm_forward_input *input, struct cllm_error *err)
{
    struct forward_gpu *forward = (struct forward_gpu *)base;
    enum cllm_status status = cuda_try(cudaSetDevice(forward->device), "use the device", err);
    if (!status) status = upload_frequencies(forward, base->position_count + (uint32_t)input->id_count, err);
    if (status) return status;
    return input->id_count > 1 && forward->gemm ? run_prompt(forward, input, err) : run_tokens(forward, input, err);
}

enum cllm_status cllm_gpu_acquire(struct forward_gpu *forward, uint32_t layer_index, struct cllm_gpu_layer *layer_out,
                                  struct cllm_error *err)
{
    if (forward->source->resident) {
        *layer_out = forward->layers[layer_index];
        return CLLM_OK;
    }
    return forward->source->acquire(forward->source, layer_index, forward->stream, layer_out, err);
}

enum cllm_status cllm_gpu_release(struct forward_gpu *forward, uint32_t layer_index, enum cllm_status status,
                                  struct cllm_error *err)
{
    if (forward->source->resident || !forward->source->release) return status;
    const enum cllm_status released =
        forward->source->release(forward->source, layer_index, forward->stream, status ? NULL : err);
    return status ? status : released;
}

/* ---------------------------------------------------------------------------------------------------------- creation */

static void close_prompts(struct forward_gpu *forward)
{
    gemm_destroy(forward->gemm);
    if (!forward->side) return;
    cudaStreamSynchronize(forward->side);
    cudaStreamDestroy(forward->side);
    const cudaEvent_t events[] = {forward->ready[0], forward->ready[1], forward->used[0], forward->used[1], forward->arrived};
    for (cudaEvent_t event : events) {
        if (event) cudaEventDestroy(event);
    }
}

/* What prompts need besides memory. Without cuBLAS they go token by token. */
static enum cllm_status open_prompts(struct forward_gpu *forward, struct cllm_error *err)
{
    if (forward->buffers.prompt_tile <= 1) return CLLM_OK;
    forward->gemm = gemm_create(forward->stream, forward->memory + forward->buffers.workspace, CLLM_GEMM_WORKSPACE);
    cudaError_t result = cudaStreamCreateWithFlags(&forward->side, cudaStreamNonBlocking);
    cudaEvent_t *const events[] = {&forward->ready[0], &forward->ready[1], &forward->used[0], &forward->used[1],
                                   &forward->arrived};
    for (cudaEvent_t *event : events) {
        if (!result) result = cudaEventCreateWithFlags(event, cudaEventDisableTiming);
    }
    return cuda_try(result, "prepare for prompts", err);
}

static void forward_gpu_destroy(struct cllm_forward *base)
{
    struct forward_gpu *forward = (struct forward_gpu *)base;
    if (forward->stream) cudaStreamSynchronize(forward->stream);
    for (int i = 0; i < 2; i++) {
        if (forward->tokens[i]) cudaGraphExecDestroy(forward->tokens[i]);
    }
    close_prompts(forward);
    cudaFree(forward->memory);
    cudaFreeHost(forward->pinned);
    if (forward->stream) cudaStreamDestroy(forward->stream);
    free(forward->layers);
    free(forward);
}

static enum cllm_status open_device(struct forward_gpu *forward, unsigned device_index, struct cllm_error *err)
{
    int count = 0, major = 0, multiprocessors = 0;
    enum cllm_status status = cuda_try(cudaGetDeviceCount(&count), "find a GPU and its driver", err);
    if (status) return status;
    if (device_index >= (unsigned)count) {
        return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET, "there is no GPU number %u: %d found", device_index, count);
    }
    forward->device = (int)device_index;
    cudaDeviceProp properties;
    status = cuda_try(cudaGetDeviceProperties(&properties, forward->device), "query the device", err);
    if (!status) status = cuda_try(cudaSetDevice(forward->device), "use the device", err);
    if (!status) status = cuda_try(cudaStreamCreateWithFlags(&forward->stream, cudaStreamNonBlocking), "create a stream", err);
    if (status) return status;
    major = properties.major;
    multiprocessors = properties.multiProcessorCount;
    forward->multiprocessors = (uint32_t)multiprocessors;
    forward->overlaps = major >= 9;
    snprintf(forward->name, sizeof forward->name, "%s", properties.name);
    const struct cllm_config *config = &forward->config;
    const uint64_t query = (uint64_t)config->head_count * config->head_dim;
    uint64_t columns = query > config->intermediate_size ? query : config->intermediate_size;
    if (columns < config->hidden_size) columns = config->hidden_size;
    forward->shared_bytes = properties.sharedMemPerBlockOptin - SHARED_STATIC_BYTES;
    if ((columns + GROUP) * sizeof(float) + SHARED_WEIGHT_BYTES > forward->shared_bytes) {
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET,
                         "rows of %llu weights do not fit this GPU's shared memory: found %zu bytes", (unsigned long long)columns,
                         properties.sharedMemPerBlockOptin);
    }
    return CLLM_OK;
}

static float *floats_at(struct forward_gpu *forward, uint64_t offset)
{
    return (float *)(forward->memory + offset);
}

static void find_buffers(struct forward_gpu *forward)
{
    const struct cllm_forward_gpu_buffers *buffers = &forward->buffers;
    forward->keys = (__nv_bfloat16 *)(forward->memory + buffers->keys);
    forward->values = (__nv_bfloat16 *)(forward->memory + buffers->values);
    forward->hidden = floats_at(forward, buffers->hidden);
    forward->query = floats_at(forward, buffers->query);
    forward->attended = floats_at(forward, buffers->attended);
    forward->gate = floats_at(forward, buffers->gate);
    forward->frequencies = floats_at(forward, buffers->frequencies);
    forward->cosines = floats_at(forward, buffers->cosines);
    forward->sines = floats_at(forward, buffers->sines);
    forward->position = (uint32_t *)floats_at(forward, buffers->position);
    forward->partial_values = floats_at(forward, buffers->partial_values);
    forward->partial_scales = (float2 *)floats_at(forward, buffers->partial_scales);
    forward->arrivals = (uint32_t *)floats_at(forward, buffers->arrivals);
    forward->base.logits = (float *)forward->pinned;
    forward->pinned_frequencies = forward->base.logits + forward->config.vocab_size;
    forward->token = (struct token_input *)(forward->pinned_frequencies + forward->config.head_dim);
}

/* Cache and buffers start as zeros: what pads them is read. */
static enum cllm_status allocate_buffers(struct forward_gpu *forward, const struct cllm_forward_gpu_options *options,
                                         struct cllm_error *err)
{
    forward->buffers = cllm_forward_gpu_lay_out(&forward->config, options);
    const struct cllm_config *config = &forward->config;
    const size_t bytes = (size_t)forward->buffers.total;
    if (cudaMalloc((void **)&forward->memory, bytes)) {
        size_t free_bytes = 0, total_bytes = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&free_bytes, &total_bytes);
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET,
                         "out of device memory for cache and buffers: found %zu bytes free, expected %zu", free_bytes, bytes);
    }
    forward->base.memory_bytes = bytes;
    enum cllm_status status =
        cuda_try(cudaHostAlloc(&forward->pinned, (size_t)forward->buffers.bytes.pinned, cudaHostAllocPortable),
                 "allocate pinned memory for logits", err);
    if (!status) status = cuda_try(cudaMemsetAsync(forward->memory, 0, bytes, forward->stream), "clear the buffers", err);
    if (status) return status;
    memset(forward->pinned, 0, (size_t)forward->buffers.bytes.pinned);
    forward->cache_layer = (size_t)config->kv_head_count * options->context_size * forward->buffers.head_stride;
    find_buffers(forward);
    return CLLM_OK;
}

static enum cllm_status acquire_layers(struct forward_gpu *forward, struct cllm_error *err)
{
    struct cllm_gpu_source *source = forward->source;
    if (!source->resident) return CLLM_OK;
    forward->layers = (struct cllm_gpu_layer *)calloc(forward->config.layer_count, sizeof *forward->layers);
    if (!forward->layers) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the list of layers");
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 0; !status && i < forward->config.layer_count; i++) {
        status = source->acquire(source, i, forward->stream, &forward->layers[i], err);
    }
    /* what the source made the stream wait for is done before anything starts early */
    if (!status) status = cuda_try(cudaStreamSynchronize(forward->stream), "wait for the weights", err);
    return status;
}

enum cllm_status cllm_forward_gpu_create(const struct cllm_config *config, struct cllm_gpu_source *source,
                                         const struct cllm_forward_gpu_options *options, struct cllm_forward **forward_out,
                                         struct cllm_error *err)
{
    *forward_out = NULL;
    enum cllm_status status = cllm_forward_gpu_check(config, err);
    if (status) return status;
    struct forward_gpu *forward = (struct forward_gpu *)calloc(1, sizeof *forward);
    if (!forward) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the forward pass");
    forward->config = *config;
    forward->source = source;
    forward->base.device_name = forward->name;
    forward->base.vocab_size = config->vocab_size;
    forward->base.context_size = options->context_size;
    forward->base.run = forward_gpu_run;
    forward->base.destroy = forward_gpu_destroy;
    status = open_device(forward, options->device_index, err);
    if (!status) status = allocate_buffers(forward, options, err);
    if (!status) status = open_prompts(forward, err);
    if (!status) status = acquire_layers(forward, err);
    if (status) {
        forward_gpu_destroy(&forward->base);
        return status;
    }
    *forward_out = &forward->base;
    return CLLM_OK;
}

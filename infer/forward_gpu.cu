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

#define SHARED_STATIC_BYTES 1024 /* of a product, generously */
#define SPIN_LIMIT 200000        /* questions whether a token is done, about a tenth of a second, before the thread sleeps */

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

static product_kernel *choose_product(enum cllm_gpu_form form)
{
    switch (form) {
    case CLLM_GPU_F16: return multiply<f16_form>;
    case CLLM_GPU_F32: return multiply<f32_form>;
    case CLLM_GPU_PACKED12: return multiply<packed_form>;
    default: return multiply<bf16_form>;
    }
}

/* Of a slot and its barrier. */
static uint32_t slot_bytes(enum cllm_gpu_form form)
{
    const uint32_t bytes = form == CLLM_GPU_F32        ? f32_form::slot_bytes
                           : form == CLLM_GPU_PACKED12 ? packed_form::slot_bytes
                                                       : bf16_form::slot_bytes;
    return bytes + (uint32_t)sizeof(uint64_t);
}

/* Fills what the form and the size of a matrix decide. */
static struct product_args describe_product(const struct cllm_gpu_matrix *matrix, enum product_stage stage)
{
    const uint32_t columns = matrix->shape.column_count, element_bytes = matrix->form == CLLM_GPU_F32 ? 4 : 2;
    struct product_args args = {};
    args.stage = stage;
    args.column_count = columns;
    args.row_bytes = matrix->form == CLLM_GPU_PACKED12 ? pack12_band_bytes(columns) : (uint64_t)columns * element_bytes;
    args.is_aligned = columns * element_bytes % 16 == 0;
    return args;
}

/* For the copy engine: boxes of a tile's size. */
static CUresult make_map(const struct forward_gpu *forward, const struct cllm_gpu_matrix *matrix, struct row_map *map_out)
{
    const bool is_f32 = matrix->form == CLLM_GPU_F32;
    map_out->elements = (const uint8_t *)matrix->d_elements;
    map_out->row_count = matrix->shape.row_count;
    map_out->column_count = matrix->shape.column_count;
    map_out->element_bytes = is_f32 ? 4 : 2;
    if (!forward->encode_map) return CUDA_SUCCESS;
    const cuuint64_t sizes[] = {map_out->column_count, map_out->row_count};
    const cuuint64_t stride = (cuuint64_t)map_out->column_count * map_out->element_bytes;
    const cuuint32_t box[] = {PACK12_COLUMNS, PACK12_ROWS}, steps[] = {1, 1};
    return forward->encode_map(&map_out->engine, is_f32 ? CU_TENSOR_MAP_DATA_TYPE_UINT32 : CU_TENSOR_MAP_DATA_TYPE_UINT16, 2,
                               (void *)map_out->elements, sizes, &stride, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                               CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

/* Adds the bands of a matrix to the sets. */
static cudaError_t add_part(const struct forward_gpu *forward, struct product_args *args, unsigned part,
                            const struct cllm_gpu_linear *linear, float *output)
{
    const struct cllm_gpu_matrix *weight = &linear->weight;
    args->set_count += pack12_band_count(weight->shape.row_count);
    args->parts[part] = {(const uint8_t *)weight->d_elements,
                         weight->d_patches,
                         linear->d_bias,
                         output,
                         weight->window,
                         weight->shape.row_count,
                         args->set_count};
    if (weight->form == CLLM_GPU_PACKED12 || !args->is_aligned) return cudaSuccess;
    return make_map(forward, weight, &args->maps[part]) == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/* Shares memory between the sums of tiles and what is in flight. Packed tiles take a warp long to multiply, so all warps have
 * slots, if only one each; others have two each, so that one is filled while the other is multiplied. */
static size_t share_memory(const struct forward_gpu *forward, enum cllm_gpu_form form, uint32_t sets, struct product_args *args)
{
    const size_t room = forward->shared_bytes - product_fixed_bytes(args->column_count) - slot_bytes(form); /* with one slot */
    const uint32_t band_count = args->stage == STAGE_GATE ? 2 : 1, of_set = sum_bytes(args->column_count, band_count),
                   most = (uint32_t)(room < SUM_BYTES_MAX ? room : SUM_BYTES_MAX) / of_set,
                   rounds = most ? (sets + most - 1) / most : sets;
    args->round_sets = (sets + rounds - 1) / rounds;
    const size_t kept = product_fixed_bytes(args->column_count) + (size_t)args->round_sets * of_set;
    const uint32_t fitting = (uint32_t)((forward->shared_bytes - kept) / slot_bytes(form));
    const uint32_t wanted = form == CLLM_GPU_PACKED12 || fitting < 2 ? fitting : fitting / 2;
    args->slot_warps = wanted < PRODUCT_WARPS ? wanted : PRODUCT_WARPS;
    args->slot_count = fitting / args->slot_warps;
    const uint32_t tiles = sets * band_count * pack12_tile_count(args->column_count),
                   needed = (tiles + args->slot_warps - 1) / args->slot_warps;
    if (args->slot_count > needed) args->slot_count = needed;
    return kept + (size_t)args->slot_warps * args->slot_count * slot_bytes(form);
}

static cudaError_t launch_product(const struct forward_gpu *forward, enum cllm_gpu_form form, struct product_args *args,
                                  bool overlaps)
{
    const uint32_t blocks = args->set_count < forward->multiprocessors ? args->set_count : forward->multiprocessors;
    if (!blocks) return cudaSuccess;
    const size_t bytes = share_memory(forward, form, (args->set_count + blocks - 1) / blocks, args);
    share_sets(args, blocks);
    product_kernel *kernel = choose_product(form);
    const cudaError_t result = allow_shared((const void *)kernel, bytes);
    return result ? result : launch(forward, kernel, {dim3(blocks), PRODUCT_WARPS * WARP, bytes}, overlaps, *args);
}

/* Queries, keys and values in one launch where their forms agree, else in one for each form. */
static cudaError_t launch_qkv(const struct forward_gpu *forward, const struct cllm_gpu_layer *layer, bool overlaps)
{
    const struct cllm_gpu_linear *linears[PART_COUNT] = {&layer->query, &layer->key, &layer->value};
    float *outputs[PART_COUNT] = {forward->query, forward->key, forward->value};
    bool done[PART_COUNT] = {false, false, false};
    cudaError_t result = cudaSuccess;
    for (unsigned first = 0; !result && first < PART_COUNT; first++) {
        if (done[first]) continue;
        const enum cllm_gpu_form form = linears[first]->weight.form;
        struct product_args args = describe_product(&linears[first]->weight, STAGE_SET);
        unsigned part_count = 0;
        for (unsigned i = first; !result && i < PART_COUNT; i++) {
            if (done[i] || linears[i]->weight.form != form) continue;
            result = add_part(forward, &args, part_count++, linears[i], outputs[i]);
            done[i] = true;
        }
        args.input = forward->hidden;
        args.norm = layer->d_attention_norm;
        args.epsilon = forward->config.norm_epsilon;
        if (!result) result = launch_product(forward, form, &args, overlaps && first == 0);
    }
    return result;
}

/* hidden += linear * input, or what attention left */
static cudaError_t launch_add(const struct forward_gpu *forward, const struct cllm_gpu_linear *linear, const float *input)
{
    struct product_args args = describe_product(&linear->weight, STAGE_ADD);
    const cudaError_t result = add_part(forward, &args, 0, linear, forward->hidden);
    args.input = input;
    if (!input) {
        args.spans = {forward->span_values,          forward->span_scales,       forward->position,
                      forward->buffers.value_stride, forward->config.head_count, forward->config.head_dim,
                      forward->config.sliding_window};
    }
    return result ? result : launch_product(forward, linear->weight.form, &args, true);
}

static cudaError_t launch_gate(const struct forward_gpu *forward, const struct cllm_gpu_layer *layer)
{
    struct product_args args = describe_product(&layer->gate.weight, STAGE_GATE);
    cudaError_t result = add_part(forward, &args, 1, &layer->up, forward->gate);
    args.set_count = 0; /* a set is a band of both */
    if (!result) result = add_part(forward, &args, 0, &layer->gate, forward->gate);
    args.input = forward->hidden;
    args.norm = layer->d_mlp_norm;
    args.epsilon = forward->config.norm_epsilon;
    return result ? result : launch_product(forward, layer->gate.weight.form, &args, true);
}

static cudaError_t launch_head(const struct forward_gpu *forward, bool overlaps)
{
    const struct cllm_gpu_linear head = {forward->source->head, NULL};
    struct product_args args = describe_product(&head.weight, STAGE_SET);
    const cudaError_t result = add_part(forward, &args, 0, &head, forward->base.logits);
    args.input = forward->hidden;
    args.norm = forward->source->d_final_norm;
    args.epsilon = forward->config.norm_epsilon;
    return result ? result : launch_product(forward, head.weight.form, &args, overlaps);
}

/* --------------------------------------------------------------------------------------------------------- attention */

typedef void attention_kernel(struct attention_args);

static cudaError_t launch_attention(const struct forward_gpu *forward, uint32_t layer_index)
{
    const struct cllm_config *config = &forward->config;
    const struct cllm_forward_gpu_buffers *buffers = &forward->buffers;
    const struct attention_args args = {
        forward->query,
        forward->key,
        forward->value,
        forward->cosines,
        forward->sines,
        forward->keys + layer_index * forward->cache_layer,
        forward->values + layer_index * forward->cache_layer,
        forward->span_values,
        forward->span_scales,
        forward->position,
        buffers->value_stride,
        config->head_count,
        buffers->group,
        buffers->chunk_count,
        config->head_dim,
        buffers->head_stride,
        forward->base.context_size,
        config->sliding_window,
        1 / sqrtf((float)config->head_dim),
    };
    const uint32_t stride = buffers->head_stride, steps = stride <= 32 ? 1 : stride <= 64 ? 2 : stride <= 128 ? 4 : 8;
    attention_kernel *kernel = steps == 1 ? attend<1> : steps == 2 ? attend<2> : steps == 4 ? attend<4> : attend<8>;
    const struct launch_shape shape = {dim3(config->kv_head_count * buffers->chunk_count, buffers->span_count),
                                       ATTENTION_WARPS * WARP, attention_bytes(steps)};
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
    return launch(forward, start_token, {dim3(1), 1024, sizeof(struct token_input)}, false, args);
}

/* `settled`: the weights were there before what was queued last. */
static cudaError_t launch_layer(const struct forward_gpu *forward, const struct cllm_gpu_layer *layer, uint32_t layer_index,
                                bool settled)
{
    cudaError_t result = launch_qkv(forward, layer, settled);
    if (!result) result = launch_attention(forward, layer_index);
    if (!result) result = launch_add(forward, &layer->output, NULL);
    if (!result) result = launch_gate(forward, layer);
    if (!result) result = launch_add(forward, &layer->down, forward->gate);
    return result;
}

static cudaError_t launch_resident(const struct forward_gpu *forward, bool with_head)
{
    cudaError_t result = launch_start(forward);
    for (uint32_t i = 0; !result && i < forward->config.layer_count; i++) {
        result = launch_layer(forward, &forward->layers[i], i, true);
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
    tensor_destroy(forward->tensor);
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
    forward->tensor = tensor_create(forward->device, forward->stream);
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

/* What describes matrices to the copy engine is the driver's; the program is not linked with it. */
static enum cllm_status find_encoder(struct forward_gpu *forward, struct cllm_error *err)
{
    void *function = NULL;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t result =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
    if (result) return cuda_try(result, "ask the driver", err);
    if (found != cudaDriverEntryPointSuccess) {
        return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET, "GPU: the driver is too old for this GPU's copy engine");
    }
    forward->encode_map = (PFN_cuTensorMapEncodeTiled_v12000)function;
    return CLLM_OK;
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
    if (forward->overlaps) status = find_encoder(forward, err);
    if (status) return status;
    snprintf(forward->name, sizeof forward->name, "%s", properties.name);
    const struct cllm_config *config = &forward->config;
    const uint64_t query = (uint64_t)config->head_count * config->head_dim;
    uint64_t columns = query > config->intermediate_size ? query : config->intermediate_size;
    if (columns < config->hidden_size) columns = config->hidden_size;
    forward->shared_bytes = properties.sharedMemPerBlockOptin - SHARED_STATIC_BYTES;
    const uint32_t most = columns < UINT32_MAX / 1024 ? (uint32_t)columns : UINT32_MAX / 1024;
    if (product_fixed_bytes(most) + sum_bytes(most, 2) + slot_bytes(CLLM_GPU_F32) > forward->shared_bytes) {
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
    forward->key = floats_at(forward, buffers->key);
    forward->value = floats_at(forward, buffers->value);
    forward->gate = floats_at(forward, buffers->gate);
    forward->frequencies = floats_at(forward, buffers->frequencies);
    forward->cosines = floats_at(forward, buffers->cosines);
    forward->sines = floats_at(forward, buffers->sines);
    forward->position = (uint32_t *)floats_at(forward, buffers->position);
    forward->span_values = floats_at(forward, buffers->span_values);
    forward->span_scales = (float2 *)floats_at(forward, buffers->span_scales);
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

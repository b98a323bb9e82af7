/* forward_gpu.cu - one token through the model on the GPU; those of prompts go through prompt_gpu.cu where cuBLAS is found.
 *
 * A token is one grid (kernels_token.cuh) that goes through a list of stages in device memory: for each layer queries/keys/
 * values, attention, output, gate and up, down, and at the end the head. Where layers do not all stay in place each is a grid,
 * and its stages are put there before it.
 */
#include "forward_gpu.h"

#include "cuda_try.h"
#include "forward_gpu_internal.cuh"
#include "kernels_token.cuh"
#include "rope.h"

#include <cstdio>
#include <cmath>
#include <cstdlib>
#include <cstring>

#define SHARED_STATIC_BYTES 1024 /* of a product, generously */
#define SPIN_LIMIT 200000        /* questions whether a token is done, about a tenth of a second, before the thread sleeps */

/* ------------------------------------------------------------------------------------------------------------ stages */

/* Stages as they are described, one after the other. */
struct stage_list {
    const struct forward_gpu *forward;
    struct token_stage *stages;
    uint32_t count;
    uint32_t next_block; /* has the first set of the next stage: bands go on in turn */
    cudaError_t result;
};

static uint32_t slot_bytes(enum cllm_gpu_form form)
{
    return form == CLLM_GPU_F32 ? f32_form::slot_bytes : form == CLLM_GPU_PACKED12 ? packed_form::slot_bytes : halves_form::slot_bytes;
}

/* Sets whose sums are kept at a time, of those that a block has at most. */
static uint32_t share_sums(uint32_t column_count, uint32_t band_count, uint32_t sets, size_t room)
{
    const uint32_t most = (uint32_t)(room / sum_bytes(column_count, band_count)), rounds = most ? (sets + most - 1) / most : sets;
    return rounds ? (sets + rounds - 1) / rounds : 1;
}

static uint32_t sets_of_block(const struct forward_gpu *forward, uint32_t row_count)
{
    return (pack12_band_count(row_count) + forward->multiprocessors - 1) / forward->multiprocessors;
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

/* A new stage, with what the form and the size of a matrix decide. */
static struct token_stage *add_product(struct stage_list *list, enum token_step step, const struct cllm_gpu_matrix *matrix)
{
    struct token_stage *stage = &list->stages[list->count++];
    const uint32_t columns = matrix->shape.column_count, element_bytes = matrix->form == CLLM_GPU_F32 ? 4 : 2;
    *stage = {};
    stage->step = step;
    stage->form = matrix->form;
    stage->column_count = columns;
    stage->tile_count = pack12_tile_count(columns);
    stage->row_bytes = matrix->form == CLLM_GPU_PACKED12 ? pack12_band_bytes(columns) : (uint64_t)columns * element_bytes;
    stage->is_aligned = columns * element_bytes % 16 == 0;
    return stage;
}

/* Adds the bands of a matrix to the sets. */
static void add_part(struct stage_list *list, struct token_stage *stage, unsigned part, const struct cllm_gpu_linear *linear,
                     float *output)
{
    const struct cllm_gpu_matrix *weight = &linear->weight;
    stage->set_count += pack12_band_count(weight->shape.row_count);
    stage->parts[part] = {(const uint8_t *)weight->d_elements,
                          weight->d_patches,
                          linear->d_bias,
                          output,
                          weight->window,
                          weight->shape.row_count,
                          stage->set_count};
    if (slot_bytes(weight->form) > list->forward->token.memory.slot_bytes) list->result = cudaErrorInvalidValue;
    if (weight->form == CLLM_GPU_PACKED12 || !stage->is_aligned) return;
    if (make_map(list->forward, weight, &stage->maps[part]) != CUDA_SUCCESS) list->result = cudaErrorInvalidValue;
}

/* When a stage has all its parts. */
static void end_product(struct stage_list *list, struct token_stage *stage)
{
    const struct forward_gpu *forward = list->forward;
    const uint32_t blocks = forward->multiprocessors, sets = (stage->set_count + blocks - 1) / blocks;
    stage->round_sets = share_sums(stage->column_count, stage->step == STEP_GATE ? 2 : 1, sets,
                                   forward->area_bytes - input_bytes(stage->column_count));
    stage->whole_rounds = stage->set_count / blocks;
    stage->more_blocks = stage->set_count % blocks;
    stage->first_block = list->next_block;
    list->next_block = (list->next_block + stage->set_count) % blocks;
}

static void set_norm(const struct forward_gpu *forward, struct token_stage *stage, const float *input, const float *norm)
{
    stage->input = input;
    stage->norm = norm;
    stage->epsilon = forward->config.norm_epsilon;
}

/* Queries, keys and values: a stage where their forms agree, else one for each form. */
static void add_qkv(struct stage_list *list, const struct cllm_gpu_layer *layer, const float *input, float *const outputs[])
{
    const struct cllm_gpu_linear *linears[PART_COUNT] = {&layer->query, &layer->key, &layer->value};
    bool done[PART_COUNT] = {false, false, false};
    for (unsigned first = 0; first < PART_COUNT; first++) {
        if (done[first]) continue;
        struct token_stage *stage = add_product(list, STEP_SET, &linears[first]->weight);
        unsigned part_count = 0;
        for (unsigned i = first; i < PART_COUNT; i++) {
            if (done[i] || linears[i]->weight.form != stage->form) continue;
            add_part(list, stage, part_count++, linears[i], outputs[i]);
            done[i] = true;
        }
        set_norm(list->forward, stage, input, layer->d_attention_norm);
        end_product(list, stage);
    }
}

/* output = prior + linear * input, or what attention has left */
static void add_sum(struct stage_list *list, const struct cllm_gpu_linear *linear, const float *input, float *spans,
                    const float *prior, float *output)
{
    struct token_stage *stage = add_product(list, STEP_ADD, &linear->weight);
    add_part(list, stage, 0, linear, output);
    stage->input = input;
    stage->spans = spans;
    stage->prior = prior;
    end_product(list, stage);
}

static void add_gate(struct stage_list *list, const struct cllm_gpu_layer *layer, const float *input, float *output)
{
    struct token_stage *stage = add_product(list, STEP_GATE, &layer->gate.weight);
    add_part(list, stage, 1, &layer->up, output);
    stage->set_count = 0; /* a set is a band of both */
    add_part(list, stage, 0, &layer->gate, output);
    set_norm(list->forward, stage, input, layer->d_mlp_norm);
    end_product(list, stage);
}

static void add_attention(struct stage_list *list, uint32_t layer_index, float *const inputs[], float *spans)
{
    struct token_stage *stage = &list->stages[list->count++];
    *stage = {};
    stage->step = STEP_ATTEND;
    stage->first_block = list->next_block;
    stage->query = inputs[0];
    stage->key = inputs[1];
    stage->value = inputs[2];
    stage->keys = list->forward->keys + layer_index * list->forward->cache_layer;
    stage->values = list->forward->values + layer_index * list->forward->cache_layer;
    stage->spans = spans;
}

static void add_layer(struct stage_list *list, const struct cllm_gpu_layer *layer, uint32_t layer_index)
{
    const struct forward_gpu *forward = list->forward;
    const struct cllm_vectors *in = &forward->buffers.in_vectors;
    float *first = forward->vectors + in->first_layer + layer_index * in->layer_floats;
    const float *input = layer_index ? first - in->layer_floats + in->output : forward->vectors;
    float *const qkv[] = {first + in->query, first + in->key, first + in->value};
    float *spans = forward->vectors + in->spans + (size_t)layer_index * forward->buffers.span_count * in->span_floats;
    add_qkv(list, layer, input, qkv);
    add_attention(list, layer_index, qkv, spans);
    add_sum(list, &layer->output, NULL, spans, input, first + in->middle);
    add_gate(list, layer, first + in->middle, first + in->gate);
    add_sum(list, &layer->down, first + in->gate, NULL, first + in->middle, first + in->output);
}

float *cllm_gpu_last_vector(const struct forward_gpu *forward)
{
    const struct cllm_vectors *in = &forward->buffers.in_vectors;
    return forward->vectors + in->first_layer + (forward->config.layer_count - 1) * in->layer_floats + in->output;
}

static void add_head(struct stage_list *list)
{
    const struct cllm_gpu_linear head = {list->forward->source->head, NULL};
    struct token_stage *stage = add_product(list, STEP_SET, &head.weight);
    add_part(list, stage, 0, &head, list->forward->base.logits);
    set_norm(list->forward, stage, cllm_gpu_last_vector(list->forward), list->forward->source->d_final_norm);
    stage->is_last = true;
    end_product(list, stage);
}

/* ------------------------------------------------------------------------------------------------------------ launch */

/* Queues that stages are put where launches find them, from number `first` on. */
static cudaError_t store_list(const struct forward_gpu *forward, const struct stage_list *list, uint32_t first)
{
    cudaError_t result = list->result;
    for (uint32_t done = 0; !result && done < list->count; done += STORE_COUNT) {
        struct store_args args = {forward->stages + first + done, list->count - done < STORE_COUNT ? list->count - done : STORE_COUNT,
                                  {}};
        memcpy(args.stages, list->stages + done, args.count * sizeof *args.stages);
        store_stages<<<1, 256, 0, forward->stream>>>(args);
        result = cudaGetLastError();
    }
    return result;
}

typedef void token_kernel(struct token_args);

static uint32_t head_steps(const struct forward_gpu *forward)
{
    const uint32_t stride = forward->buffers.head_stride;
    return stride <= 32 ? 1 : stride <= 64 ? 2 : stride <= 128 ? 4 : 8;
}

static token_kernel *choose_kernel(const struct forward_gpu *forward)
{
    const uint32_t steps = head_steps(forward);
    return steps == 1 ? run_token<1> : steps == 2 ? run_token<2> : steps == 4 ? run_token<4> : run_token<8>;
}

/* Blocks wait for each other: all must be resident. */
static cudaError_t launch_stages(const struct forward_gpu *forward, uint32_t begin, uint32_t end, bool is_start, bool has_token)
{
    struct token_args args = forward->token;
    args.begin = begin;
    args.end = end;
    args.is_start = is_start;
    args.has_token = has_token;
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(forward->multiprocessors);
    config.blockDim = dim3(TOKEN_THREADS + WARP);
    config.dynamicSmemBytes = forward->launch_bytes;
    config.stream = forward->stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, choose_kernel(forward), args);
}

/* ------------------------------------------------------------------------------------------------------------- token */

static void begin_turn(struct forward_gpu *forward, uint32_t id)
{
    const uint32_t turn = !forward->token.turn;
    forward->token.turn = turn;
    forward->token.id = id;
    forward->token.position = forward->base.position_count;
    forward->token.stale_position = forward->used_position[!turn];
    forward->used_position[turn] = forward->token.position;
}

static cudaError_t launch_layer(struct forward_gpu *forward, const struct cllm_gpu_layer *layer, uint32_t layer_index)
{
    struct token_stage stages[CLLM_LAYER_STAGES_MAX];
    struct stage_list list = {forward, stages, 0, 0, cudaSuccess};
    add_layer(&list, layer, layer_index);
    const cudaError_t result = store_list(forward, &list, 0);
    return result ? result : launch_stages(forward, 0, list.count, layer_index == 0, layer_index == 0);
}

static enum cllm_status stream_token(struct forward_gpu *forward, bool with_head, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 0; !status && i < forward->config.layer_count; i++) {
        struct cllm_gpu_layer layer;
        status = cllm_gpu_acquire(forward, i, &layer, err);
        if (status) break;
        status = cuda_try(launch_layer(forward, &layer, i), "start a layer", err);
        status = cllm_gpu_release(forward, i, status, err);
    }
    if (!status && with_head) {
        status = cuda_try(launch_stages(forward, forward->layer_end, forward->layer_end + 1, false, false), "start the head", err);
    }
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
static enum cllm_status run_token_at(struct forward_gpu *forward, uint32_t id, bool with_head, struct cllm_error *err)
{
    enum cllm_status status;
    begin_turn(forward, id);
    if (forward->source->resident) {
        status = cuda_try(launch_stages(forward, 0, forward->layer_end + with_head, true, true), "start a token", err);
    } else {
        status = stream_token(forward, with_head, err);
    }
    /* a failure leaves nothing running */
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
        status = run_token_at(forward, input->ids[i], input->logits || i + 1 == input->id_count, err);
        if (status) return status;
        forward->base.position_count++;
        if (input->logits) status = input->logits(input->user, forward->base.logits, err);
    }
    return status;
}

/* The head of one position of a tile. */
static enum cllm_status run_head(struct forward_gpu *forward, uint32_t index, struct cllm_error *err)
{
    begin_turn(forward, 0);
    enum cllm_status status = cllm_gpu_take_row(forward, index, err);
    if (!status) {
        status = cuda_try(launch_stages(forward, forward->layer_end, forward->layer_end + 1, true, false), "start the head", err);
    }
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
#ifdef TIMES
    static unsigned long long h[132][240][6];
    cudaMemcpyFromSymbol(h, stamps, sizeof h);
    static const char *names[] = {"qkv", "att", "out", "gate", "down"};
    for (unsigned st = 50; st < 61; st++) {
        unsigned long long zero = h[0][50][0];
        printf("%-5s", names[st % 5]);
        for (int k = 0; k < 5; k++) {
            double lo = 1e18, hi = -1e18, sum = 0;
            unsigned n = 0;
            for (int b = 0; b < 132; b++) {
                if (!h[b][st][k]) continue;
                double v = (double)(long long)(h[b][st][k] - zero) * 1e-3;
                lo = v < lo ? v : lo, hi = v > hi ? v : hi, sum += v, n++;
            }
            if (n) printf("  | %d: %7.2f %7.2f %7.2f (%u)", k, lo, sum / n, hi, n);
        }
        static unsigned long long sp[132][240][4];
        cudaMemcpyFromSymbol(sp, spent, sizeof sp);
        for (int k = 0; k < 4; k++) {
            double sum = 0;
            for (int b = 0; b < 132; b++) sum += (double)sp[b][st][k] / 132;
            printf(" c%d %6.0f", k, sum);
        }
        printf("\n");
    }
    static unsigned sm[132];
    cudaMemcpyFromSymbol(sm, smids, sizeof sm);
    for (unsigned want = 3; want < 5; want++) {
        printf("late %s:", names[want]);
        for (int b = 0; b < 132; b++) {
            double late = 0, var = 0; int n = 0;
            for (unsigned st = 20 + want; st < 150; st += 5, n++) {
                double mean = 0;
                for (int c = 0; c < 132; c++) mean += (double)(long long)(h[c][st][2] - h[0][st][0]) / 132;
                const double x = ((double)(long long)(h[b][st][2] - h[0][st][0]) - mean) * 1e-3;
                late += x, var += x * x;
            }
            printf(" %u:%.1f/%.1f", sm[b], late / n, sqrt(var / n - late / n * late / n));
        }
        printf("\n");
    }
#endif
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
    if (major >= 9) status = find_encoder(forward, err);
    if (status) return status;
    snprintf(forward->name, sizeof forward->name, "%s", properties.name);
    forward->shared_bytes = properties.sharedMemPerBlockOptin - SHARED_STATIC_BYTES;
    return CLLM_OK;
}

/* Of a stage's input and sums: those of one set at least, all if they are not too many. */
static uint64_t bytes_of(const struct forward_gpu *forward, uint32_t columns, uint32_t rows, uint32_t band_count)
{
    const uint32_t sets = share_sums(columns, band_count, sets_of_block(forward, rows), SUM_BYTES_MAX);
    return input_bytes(columns) + (uint64_t)sets * sum_bytes(columns, band_count);
}

/* Shares the memory of a block between weights under way and everything else. */
static enum cllm_status share_memory(struct forward_gpu *forward, unsigned forms, struct cllm_error *err)
{
    const struct cllm_config *config = &forward->config;
    const uint32_t query = config->head_count * config->head_dim, key = config->kv_head_count * config->head_dim;
    const uint32_t heads = forward->buffers.group < CLLM_ATTENTION_HEADS_MAX ? forward->buffers.group : CLLM_ATTENTION_HEADS_MAX;
    const uint64_t products[] = {
        bytes_of(forward, config->hidden_size, query + 2 * key + 2 * PACK12_ROWS, 1),
        bytes_of(forward, query, config->hidden_size, 1),
        bytes_of(forward, config->hidden_size, config->intermediate_size, 2),
        bytes_of(forward, config->intermediate_size, config->hidden_size, 1),
    };
    uint64_t area = attention_bytes(head_steps(forward), heads);
    for (const uint64_t bytes : products) area = bytes > area ? bytes : area;
    struct token_memory *memory = &forward->token.memory;
    for (unsigned form = 0; form <= CLLM_GPU_PACKED12; form++) {
        const uint32_t bytes = slot_bytes((enum cllm_gpu_form)form);
        if (forms >> form & 1 && bytes > memory->slot_bytes) memory->slot_bytes = bytes;
    }
    const uint64_t fixed = area + STAGE_RING * STAGE_BYTES + (PRIOR_SETS * PACK12_ROWS + TOKEN_WARPS + 2 + STAGE_RING + config->head_dim) * sizeof(float) + SLOTS_MAX * sizeof(uint64_t);
    const uint64_t of_slot = memory->slot_bytes + sizeof(struct copy_note);
    if (fixed + of_slot > forward->shared_bytes) {
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET,
                         "layers of this width need %llu bytes of this GPU's shared memory: found %zu",
                         (unsigned long long)(fixed + of_slot), forward->shared_bytes);
    }
    memory->slot_count = (uint32_t)((forward->shared_bytes - fixed) / of_slot);
    memory->tile_warps = memory->slot_count / SLOTS_OF_WARP < TOKEN_WARPS ? memory->slot_count / SLOTS_OF_WARP : TOKEN_WARPS;
    memory->slot_count = memory->tile_warps ? memory->tile_warps * SLOTS_OF_WARP : 1;
    memory->more_slots = memory->tile_warps != 0;
    if (!memory->tile_warps) memory->tile_warps = 1;
    memory->area_offset = memory->slot_count * memory->slot_bytes;
    memory->fixed_offset = memory->area_offset + (uint32_t)area;
    forward->area_bytes = (uint32_t)area;
    forward->launch_bytes = memory->fixed_offset + (fixed - area) + memory->slot_count * (of_slot - memory->slot_bytes);
    return cuda_try(cudaFuncSetAttribute((const void *)choose_kernel(forward), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         (int)forward->launch_bytes),
                    "ask for shared memory", err);
}

static void describe_token(struct forward_gpu *forward)
{
    const struct cllm_config *config = &forward->config;
    const struct cllm_forward_gpu_buffers *buffers = &forward->buffers;
    const struct cllm_vectors *in = &buffers->in_vectors;
    struct token_args *token = &forward->token;
    token->stages = forward->stages;
    token->embedding = forward->source->embedding;
    token->frequencies = forward->frequencies;
    token->attention_factor = (float)config->rope.attention_factor;
    token->attention = {config->head_count,   buffers->group,         buffers->chunk_count,           config->kv_head_count,
                        config->head_dim,     buffers->head_stride,   forward->base.context_size,     config->sliding_window,
                        in->span_floats,      in->span_scales,        1 / sqrtf((float)config->head_dim)};
    token->vectors = {forward->vectors, in->turn_floats, in->spans, config->layer_count, buffers->span_count};
}

/* Stages of all layers that stay, and of the head. */
static enum cllm_status describe_stages(struct forward_gpu *forward, struct cllm_error *err)
{
    const uint32_t layer_count = forward->layers ? forward->config.layer_count : 0;
    const uint32_t most = forward->config.layer_count * CLLM_LAYER_STAGES_MAX + 1;
    struct token_stage *stages = (struct token_stage *)aligned_alloc(alignof(struct token_stage), most * sizeof *stages);
    if (!stages) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the list of stages");
    struct stage_list list = {forward, stages, 0, 0, cudaSuccess};
    for (uint32_t i = 0; i < layer_count; i++) add_layer(&list, &forward->layers[i], i);
    if (!forward->layers) list.count = CLLM_LAYER_STAGES_MAX; /* of the layer that passes */
    forward->layer_end = list.count;
    add_head(&list);
    if (!forward->layers) list.stages += list.count - 1, list.count = 1;
    const cudaError_t result = store_list(forward, &list, forward->layers ? 0 : forward->layer_end);
    free(stages);
    return cuda_try(result, "describe the layers", err);
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
    forward->vectors = floats_at(forward, buffers->vectors);
    forward->frequencies = floats_at(forward, buffers->frequencies);
    forward->stages = (struct token_stage *)(forward->memory + buffers->stages);
    forward->base.logits = (float *)forward->pinned;
    forward->pinned_frequencies = forward->base.logits + forward->config.vocab_size;
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
    if (!status) {
        const size_t vector_bytes = (size_t)forward->buffers.in_vectors.turn_floats * 2 * sizeof(float);
        status = cuda_try(cudaMemsetAsync(forward->memory + forward->buffers.vectors, 0xFF, vector_bytes, forward->stream),
                          "clear the vectors", err);
    }
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
    if (!status) status = share_memory(forward, options->forms, err);
    if (!status) describe_token(forward);
    if (!status) status = acquire_layers(forward, err);
    if (!status) status = describe_stages(forward, err);
    if (status) {
        forward_gpu_destroy(&forward->base);
        return status;
    }
    *forward_out = &forward->base;
    return CLLM_OK;
}

/* crun_engine.c - see crun_engine.h. */
#include "crun_engine.h"

#include "cllm_decode_gpu.h"
#include "forward_cpu.h"
#include "message.h"
#include "progress.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the free device memory, that is left to the driver and to others where --vram is not given. */
#define VRAM_MARGIN_SHARE 16
#define VRAM_MARGIN_MIN (UINT64_C(512) << 20)
#define RAM_SHARE 0.8 /* of the available host memory */
#define PROBE_SHARE 2 /* of the budget, for measuring bandwidths */

static const uint32_t prompt_tiles[] = {0, 128, 32, 8, 1};
enum { PROMPT_TILES = sizeof prompt_tiles / sizeof *prompt_tiles };

/* ------------------------------------------------------------------------------------------------------------- CPU */

static enum cllm_status load_cpu(const struct crun_engine_options *options, const struct cllm_reader *reader,
                                 struct cllm_model *model, struct crun_engine *engine, struct cllm_error *err)
{
    struct cllm_meter meter;
    cllm_meter_start(&meter, "loading", options->show_progress);
    enum cllm_status status = cllm_model_load(model, reader, options->thread_count, &meter.progress, err);
    cllm_meter_stop(&meter);
    engine->load_seconds = cllm_meter_seconds(&meter);
    return status;
}

/* Of the embedding only a row is read for each token, unless it is the head too. */
static uint64_t read_bytes_per_token(const struct cllm_model *model)
{
    const struct cllm_weight *embedding = &model->embedding;
    if (model->head.elements == embedding->elements) return model->weight_bytes;
    const uint64_t element_bytes = embedding->type == CLLM_WEIGHT_F32 ? 4 : 2;
    return model->weight_bytes - embedding->row_count * (element_bytes * embedding->column_count);
}

static enum cllm_status open_cpu(const struct crun_engine_options *options, const struct cllm_reader *reader,
                                 struct cllm_model *model, uint32_t context_size, struct crun_engine *engine,
                                 struct cllm_error *err)
{
    const struct cllm_forward_cpu_options forward = {.thread_count = options->thread_count, .context_size = context_size};
    enum cllm_status status = load_cpu(options, reader, model, engine, err);
    if (!status) status = cllm_forward_cpu_create(model, &forward, &engine->forward, err);
    if (status) return status;
    engine->device_name = engine->forward->device_name;
    engine->parameter_count = model->parameter_count;
    engine->weight_bytes = model->weight_bytes;
    engine->read_bytes_per_token = read_bytes_per_token(model);
    return CLLM_OK;
}

/* ----------------------------------------------------------------------------------------------------------- planning */

/* MemAvailable, or 0. */
static uint64_t available_ram_bytes(void)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1) break;
    }
    if (file) fclose(file);
    return kib * 1024;
}

static uint64_t default_budget(uint64_t free_bytes)
{
    const uint64_t share = free_bytes / VRAM_MARGIN_SHARE;
    const uint64_t margin = share > VRAM_MARGIN_MIN ? share : VRAM_MARGIN_MIN;
    return free_bytes > margin ? free_bytes - margin : 0;
}

/* Everything that goes into a plan. */
struct planning {
    const struct crun_engine_options *options;
    const struct cllm_model *model;
    struct cllm_weights_gpu_sizes sizes;
    struct cllm_forward_gpu_options forward;
    struct cllm_residency_forward forwards[PROMPT_TILES];
};

static void list_forwards(struct planning *planning)
{
    planning->forward.forms = planning->sizes.forms;
    const bool packs = planning->options->residency != CLLM_RESIDENCY_RAW && planning->sizes.forms & 1u << CLLM_GPU_BF16;
    if (packs) planning->forward.forms |= 1u << CLLM_GPU_PACKED12;
    for (int i = 0; i < PROMPT_TILES; i++) {
        planning->forward.prompt_tile = prompt_tiles[i];
        const struct cllm_forward_gpu_bytes bytes = cllm_forward_gpu_plan(&planning->model->config, &planning->forward);
        planning->forwards[i] = (struct cllm_residency_forward){prompt_tiles[i], bytes.cache, bytes.activations, bytes.scratch};
    }
}

static enum cllm_status decide(struct planning *planning, struct crun_engine *engine, struct cllm_error *err)
{
    const struct crun_engine_options *options = planning->options;
    const struct cllm_weights_gpu_sizes *sizes = &planning->sizes;
    list_forwards(planning);
    const struct cllm_residency_request request = {
        .layers = sizes->layers,
        .layer_count = planning->model->config.layer_count,
        .head = sizes->head,
        .embedding = sizes->embedding,
        .vector_bytes = sizes->vector_bytes,
        .descriptor_bytes = sizes->descriptor_bytes,
        .part_bytes = sizes->part_bytes,
        .chunk_bytes = sizes->chunk_bytes,
        .forwards = planning->forwards,
        .forward_count = PROMPT_TILES,
        .budget_bytes = engine->budget_bytes,
        .host_bytes = options->ram_bytes ? options->ram_bytes : (uint64_t)(RAM_SHARE * (double)available_ram_bytes()),
        .choice = options->residency,
        .cache_layers = options->cache_layers,
        .link_bytes_per_second = engine->speed.link_bytes_per_second,
        .device_bytes_per_second = engine->speed.copy_bytes_per_second,
    };
    enum cllm_status status = cllm_residency_decide(&request, &engine->plan, err);
    if (status) return cllm_fail_context(err, status, "--vram");
    planning->forward.prompt_tile = engine->plan.forward.prompt_tile;
    engine->parameter_count = sizes->parameter_count;
    engine->weight_bytes = sizes->weight_bytes;
    engine->read_bytes_per_token = engine->plan.read_bytes_per_token;
    return CLLM_OK;
}

const char *crun_engine_residency(const struct crun_engine *engine, char out[64])
{
    const struct cllm_residency_plan *plan = &engine->plan;
    if (!engine->on_gpu) return "cpu";
    if (plan->streamed_count == 0) return plan->raw ? "raw" : "packed";
    snprintf(out, 64, "%u of %u layers streamed%s", plan->streamed_count, plan->layer_count,
             plan->from_disk ? " from the file" : "");
    return out;
}

static void announce(const struct crun_engine *engine)
{
    const struct cllm_residency_plan *plan = &engine->plan;
    char a[32], b[32], c[32], d[32], e[32], residency[64], memory[400], speed[300];
    snprintf(memory, sizeof memory, "%s, %s: weights %s, cache %s, buffers %s, streaming %s; %s at most", engine->device_name,
             crun_engine_residency(engine, residency), cllm_size_text(plan->weight_bytes, a),
             cllm_size_text(plan->forward.cache_bytes, b),
             cllm_size_text(plan->forward.activation_bytes + plan->forward.scratch_bytes, c),
             cllm_size_text(plan->stream_bytes, d), cllm_size_text(plan->peak_bytes, e));
    cllm_complain("plan      %s of the budget of %s", memory, cllm_size_text(engine->budget_bytes, a));
    if (plan->streamed_count > 0) {
        snprintf(speed, sizeof speed, "streams %s a token at %s/s, reads %s at %s/s",
                 cllm_size_text(plan->streamed_bytes_per_token, a),
                 cllm_size_text((uint64_t)engine->speed.link_bytes_per_second, b), cllm_size_text(plan->read_bytes_per_token, c),
                 cllm_size_text((uint64_t)engine->speed.copy_bytes_per_second, d));
    } else {
        snprintf(speed, sizeof speed, "reads %s a token at %s/s", cllm_size_text(plan->read_bytes_per_token, a),
                 cllm_size_text((uint64_t)engine->speed.copy_bytes_per_second, b));
    }
    cllm_complain("ceiling   %s: no more than %.1f tokens/s", speed, plan->ceiling_per_second);
}

/* ---------------------------------------------------------------------------------------------------------------- GPU */

void crun_engine_note_memory(struct crun_engine *engine)
{
    struct cllm_gpu_device_memory memory;
    if (!engine->device || cllm_gpu_device_memory(engine->device, &memory, NULL)) return;
    if (memory.free_bytes < engine->memory.free_least) engine->memory.free_least = memory.free_bytes;
}

static enum cllm_status start_gpu(const struct crun_engine_options *options, struct crun_engine *engine, struct cllm_error *err)
{
    struct cllm_gpu_device_memory memory;
    enum cllm_status status = cllm_gpu_device_open(options->device_index, &engine->device, err);
    if (!status) status = cllm_gpu_device_memory(engine->device, &memory, err);
    if (status) return status;
    engine->device_name = cllm_gpu_device_name(engine->device);
    engine->memory = (struct crun_engine_memory){memory.total_bytes, memory.free_bytes, memory.free_bytes};
    engine->budget_bytes = options->vram_bytes ? options->vram_bytes : default_budget(memory.free_bytes);
    if (engine->budget_bytes > memory.free_bytes) {
        cllm_warn("--vram is more than the %llu MiB that are free", (unsigned long long)memory.free_bytes >> 20);
        engine->budget_bytes = memory.free_bytes;
    }
    return cllm_gpu_device_measure(engine->device, engine->budget_bytes / PROBE_SHARE, &engine->speed, err);
}

static enum cllm_status load_gpu(const struct crun_engine_options *options, const struct cllm_reader *reader,
                                 const struct cllm_model *model, struct crun_engine *engine, struct cllm_error *err)
{
    struct cllm_meter meter;
    cllm_meter_start(&meter, "loading", options->show_progress);
    const struct cllm_weights_gpu_options weights = {
        .device_index = options->device_index,
        .thread_count = options->thread_count,
        .plan = &engine->plan,
        .budget_bytes = engine->budget_bytes,
        .timed = options->timed,
        .progress = &meter.progress,
    };
    enum cllm_status status = cllm_weights_gpu_load(reader, model, engine->device, &weights, &engine->weights, err);
    cllm_meter_stop(&meter);
    engine->load_seconds = cllm_meter_seconds(&meter);
    crun_engine_note_memory(engine);
    return status;
}

static enum cllm_status open_gpu(const struct crun_engine_options *options, const struct cllm_reader *reader,
                                 const struct cllm_model *model, uint32_t context_size, struct crun_engine *engine,
                                 struct cllm_error *err)
{
    struct cllm_meter meter;
    struct planning planning = {.options = options, .model = model};
    planning.forward.device_index = options->device_index;
    planning.forward.context_size = context_size;
    cllm_meter_start(&meter, "starting", false);
    engine->on_gpu = true;
    enum cllm_status status = cllm_forward_gpu_check(&model->config, err);
    if (!status) status = start_gpu(options, engine, err);
    if (!status) status = cllm_weights_gpu_measure(reader, model, &planning.sizes, err);
    if (!status) status = decide(&planning, engine, err);
    free(planning.sizes.layers);
    engine->start_seconds = cllm_meter_seconds(&meter);
    if (status) return status;
    if (options->announce) announce(engine);
    status = load_gpu(options, reader, model, engine, err);
    if (status) return status;
    status = cllm_forward_gpu_create(&model->config, cllm_weights_gpu_source(engine->weights), &planning.forward,
                                     &engine->forward, err);
    cllm_gpu_device_hurry(engine->device);
    crun_engine_note_memory(engine);
    return status;
}

struct crun_engine_vram crun_engine_vram(const struct crun_engine *engine)
{
    const struct cllm_residency_forward *forward = &engine->plan.forward;
    const struct cllm_weights_gpu_bytes bytes = cllm_weights_gpu_bytes(engine->weights);
    struct crun_engine_vram vram = {.weight_bytes = bytes.resident_bytes,
                                    .stream_bytes = bytes.stream_bytes,
                                    .cache_bytes = forward->cache_bytes,
                                    .buffer_bytes = forward->activation_bytes + forward->scratch_bytes};
    const uint64_t own = vram.weight_bytes + vram.stream_bytes + vram.cache_bytes + vram.buffer_bytes;
    const uint64_t gone = engine->memory.free_at_start - engine->memory.free_least;
    vram.runtime_bytes = gone > own ? gone - own : 0;
    return vram;
}

/* ------------------------------------------------------------------------------------------------------------- public */

enum cllm_status crun_engine_open(const struct crun_engine_options *options, const struct cllm_reader *reader,
                                  struct cllm_model *model, uint32_t context_size, struct crun_engine *engine,
                                  struct cllm_error *err)
{
    *engine = (struct crun_engine){0};
    const bool has_gpu = options->device != CLLM_DEVICE_CPU && cllm_gpu_count() > 0;
    if (options->device == CLLM_DEVICE_CUDA && !has_gpu) {
        return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET,
                         "--device cuda: found no GPU and driver that this build can use; use --device cpu");
    }
    if (!has_gpu) return open_cpu(options, reader, model, context_size, engine, err);
    enum cllm_status status = open_gpu(options, reader, model, context_size, engine, err);
    if (options->device != CLLM_DEVICE_AUTO || (status != CLLM_E_UNSUPPORTED && status != CLLM_E_DEVICE)) return status;
    cllm_warn("the GPU cannot be used, the CPU computes instead: %s", err->message);
    crun_engine_close(engine);
    return open_cpu(options, reader, model, context_size, engine, err);
}

void crun_engine_close(struct crun_engine *engine)
{
    cllm_forward_destroy(engine->forward);
    cllm_weights_gpu_destroy(engine->weights);
    cllm_gpu_device_close(engine->device);
    *engine = (struct crun_engine){0};
}

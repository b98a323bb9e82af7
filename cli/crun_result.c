/* crun_result.c - what a run took and gave, for people and for programs. */
#include "crun.h"

#include "message.h"
#include "report.h"

#include <string.h>
#include <sys/resource.h>

uint64_t crun_peak_memory_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

static double per_second(uint64_t count, double seconds)
{
    return seconds > 0 ? (double)count / seconds : 0;
}

/* The first token comes with the prompt's logits: the others are what the generation time was spent on. */
static uint64_t timed_count(const struct crun_result *result)
{
    return result->engine->forward->position_count - result->report.prompt_count;
}

static double first_token_seconds(const struct crun_result *result)
{
    return result->engine->start_seconds + result->engine->load_seconds + result->report.prompt_seconds;
}

static const char *stop_name(enum cllm_generate_stop stop)
{
    return stop == CLLM_STOP_END ? "end" : stop == CLLM_STOP_LIMIT ? "limit" : "context";
}

static void print_device(const struct crun_result *result)
{
    const struct crun_engine *engine = result->engine;
    char residency[64];
    if (engine->on_gpu) {
        cllm_complain("device    %s, %s; seed %llu", engine->device_name, crun_engine_residency(engine, residency),
                      (unsigned long long)result->seed);
    } else {
        cllm_complain("device    CPU, %s, %u threads; seed %llu", engine->device_name, engine->forward->thread_count,
                      (unsigned long long)result->seed);
    }
}

static void print_gpu_memory(const struct crun_engine *engine)
{
    const struct crun_engine_vram vram = crun_engine_vram(engine);
    char a[32], b[32], c[32], d[32], e[32];
    cllm_complain("vram      %s weights, %s streaming, %s cache, %s buffers; driver and libraries %s more",
                  cllm_size_text(vram.weight_bytes, a), cllm_size_text(vram.stream_bytes, b), cllm_size_text(vram.cache_bytes, c),
                  cllm_size_text(vram.buffer_bytes, d), cllm_size_text(vram.runtime_bytes, e));
}

void crun_print_stats(const struct crun_result *result)
{
    const struct cllm_generate_report *report = &result->report;
    const struct crun_engine *engine = result->engine;
    char weights[32], stored[32], rate[32], buffers[32], peak[32];
    const double rate_per_second = per_second(timed_count(result), report->generate_seconds);
    cllm_complain("model     %s, %.2f M parameters, %s of weights; container %s", result->model->config.architecture,
                  (double)engine->parameter_count * 1e-6, cllm_size_text(engine->weight_bytes, weights),
                  cllm_size_text(result->stored_bytes, stored));
    print_device(result);
    cllm_complain("load      %.3f s, %s/s; first token after %.3f s", engine->load_seconds,
                  cllm_size_text((uint64_t)per_second(engine->weight_bytes, engine->load_seconds), rate),
                  first_token_seconds(result));
    cllm_complain("prompt    %llu tokens, %.3f s, %.1f tokens/s", (unsigned long long)report->prompt_count,
                  report->prompt_seconds, per_second(report->prompt_count, report->prompt_seconds));
    cllm_complain("generate  %llu tokens (stop: %s), %.3f s, %.1f tokens/s, weights at %s/s",
                  (unsigned long long)report->generated_count, stop_name(report->stop), report->generate_seconds, rate_per_second,
                  cllm_size_text((uint64_t)(rate_per_second * (double)engine->read_bytes_per_token), rate));
    if (engine->on_gpu) print_gpu_memory(engine);
    cllm_complain("memory    %s weights, %s cache and buffers for %u positions, %s peak%s", weights,
                  cllm_size_text(engine->forward->memory_bytes, buffers), engine->forward->context_size,
                  cllm_size_text(crun_peak_memory_bytes(), peak), engine->on_gpu ? " in host memory" : "");
}

static json_t *ids_as_json(const uint32_t *ids, uint64_t count)
{
    json_t *list = json_array();
    for (uint64_t i = 0; i < count; i++) {
        json_array_append_new(list, json_integer(ids[i]));
    }
    return list;
}

void crun_add_gpu_json(json_t *document, const struct crun_engine *engine)
{
    const struct cllm_residency_plan *plan = &engine->plan;
    const struct crun_engine_vram vram = crun_engine_vram(engine);
    const uint64_t own = vram.weight_bytes + vram.stream_bytes + vram.cache_bytes + vram.buffer_bytes;
    json_object_set_new(
        document, "plan",
        json_pack("{s:I, s:s, s:i, s:i, s:b, s:b, s:I, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "budget_bytes",
                  (json_int_t)engine->budget_bytes, "form", plan->raw ? "raw" : "packed", "layers", (int)plan->layer_count,
                  "streamed_layers", (int)plan->streamed_count, "embedding_on_host", plan->embedding_on_host, "from_file",
                  plan->from_disk, "slot_bytes", (json_int_t)plan->slot_bytes, "slots", (int)plan->slot_count, "prompt_tile",
                  (int)plan->forward.prompt_tile, "total_bytes", (json_int_t)plan->total_bytes, "peak_bytes",
                  (json_int_t)plan->peak_bytes, "host_bytes", (json_int_t)plan->host_bytes, "streamed_bytes_per_token",
                  (json_int_t)plan->streamed_bytes_per_token, "read_bytes_per_token", (json_int_t)plan->read_bytes_per_token,
                  "ceiling_tokens_per_second", plan->ceiling_per_second, "link_bytes_per_second",
                  engine->speed.link_bytes_per_second, "copy_bytes_per_second", engine->speed.copy_bytes_per_second));
    json_object_set_new(document, "vram",
                        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weight_bytes", (json_int_t)vram.weight_bytes,
                                  "stream_bytes", (json_int_t)vram.stream_bytes, "cache_bytes", (json_int_t)vram.cache_bytes,
                                  "buffer_bytes", (json_int_t)vram.buffer_bytes, "own_bytes", (json_int_t)own, "runtime_bytes",
                                  (json_int_t)vram.runtime_bytes, "driver_free_at_start",
                                  (json_int_t)engine->memory.free_at_start, "driver_free_least",
                                  (json_int_t)engine->memory.free_least));
}

enum cllm_status crun_print_json(const struct crun_result *result, struct cllm_error *err)
{
    const struct cllm_generate_report *report = &result->report;
    const struct crun_engine *engine = result->engine;
    char residency[64];
    json_t *document = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:i, s:I, s:f, s:f, s:f, s:I, s:f, s:f, s:I, s:f, s:f, s:s, s:I, s:I, s:I,"
        " s:i, s:s}",
        "message_type", "summary", "architecture", result->model->config.architecture, "parameters",
        (json_int_t)engine->parameter_count, "weight_bytes", (json_int_t)engine->weight_bytes, "weight_bytes_per_token",
        (json_int_t)engine->read_bytes_per_token, "container_bytes", (json_int_t)result->stored_bytes, "device",
        engine->on_gpu ? "cuda" : "cpu", "kernels", engine->device_name, "residency", crun_engine_residency(engine, residency),
        "threads", (int)engine->forward->thread_count, "seed", (json_int_t)result->seed, "start_seconds", engine->start_seconds,
        "load_seconds", engine->load_seconds, "first_token_seconds", first_token_seconds(result), "prompt_tokens",
        (json_int_t)report->prompt_count, "prompt_seconds", report->prompt_seconds, "prompt_tokens_per_second",
        per_second(report->prompt_count, report->prompt_seconds), "generated_tokens", (json_int_t)report->generated_count,
        "generate_seconds", report->generate_seconds, "generated_tokens_per_second",
        per_second(timed_count(result), report->generate_seconds), "stop", stop_name(report->stop), "context",
        (json_int_t)engine->forward->context_size, "buffer_bytes", (json_int_t)engine->forward->memory_bytes, "peak_memory_bytes",
        (json_int_t)crun_peak_memory_bytes(), "exit_code", CLLM_EXIT_OK, "exit_id", cllm_exit_id(CLLM_EXIT_OK));
    if (document) {
        cllm_json_set_name(document, "model", result->options->model, strlen(result->options->model));
        if (engine->on_gpu) crun_add_gpu_json(document, engine);
        json_object_set_new(document, "text", result->text ? json_stringn(result->text, result->text_bytes) : json_null());
        json_object_set_new(document, "prompt_ids", ids_as_json(result->prompt_ids, report->prompt_count));
        json_object_set_new(document, "ids", ids_as_json(result->ids, report->generated_count));
    }
    return cllm_json_print(document, err);
}

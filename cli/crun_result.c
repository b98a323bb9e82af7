/* crun_result.c - what a run took and gave, for people and for programs. */
#include "crun.h"

#include "message.h"
#include "report.h"

#include <string.h>
#include <sys/resource.h>

static uint64_t peak_memory_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

/* Of the embedding only a row is read for each token, unless it is the head too. */
static uint64_t bytes_per_token(const struct cllm_model *model)
{
    const struct cllm_weight *embedding = &model->embedding;
    if (model->head.elements == embedding->elements) return model->weight_bytes;
    const uint64_t element_bytes = embedding->type == CLLM_WEIGHT_F32 ? 4 : 2;
    return model->weight_bytes - embedding->row_count * (element_bytes * embedding->column_count);
}

static double per_second(uint64_t count, double seconds)
{
    return seconds > 0 ? (double)count / seconds : 0;
}

/* The first token comes with the prompt's logits: the others are what the generation time was spent on. */
static uint64_t timed_count(const struct crun_result *result)
{
    return result->forward->position_count - result->report.prompt_count;
}

static const char *stop_name(enum cllm_generate_stop stop)
{
    return stop == CLLM_STOP_END ? "end" : stop == CLLM_STOP_LIMIT ? "limit" : "context";
}

void crun_print_stats(const struct crun_result *result)
{
    const struct cllm_generate_report *report = &result->report;
    const struct cllm_model *model = result->model;
    char weights[32], stored[32], rate[32], buffers[32], peak[32];
    const double rate_per_second = per_second(timed_count(result), report->generate_seconds);
    cllm_complain("model     %s, %.2f M parameters, %s of weights; container %s", model->config.architecture,
                  (double)model->parameter_count * 1e-6, cllm_size_text(model->weight_bytes, weights),
                  cllm_size_text(result->stored_bytes, stored));
    cllm_complain("device    CPU, %s, %u threads; seed %llu", result->forward->device_name, result->forward->thread_count,
                  (unsigned long long)result->seed);
    cllm_complain("load      %.3f s, %s/s", result->load_seconds,
                  cllm_size_text((uint64_t)per_second(model->weight_bytes, result->load_seconds), rate));
    cllm_complain("prompt    %llu tokens, %.3f s, %.1f tokens/s", (unsigned long long)report->prompt_count,
                  report->prompt_seconds, per_second(report->prompt_count, report->prompt_seconds));
    cllm_complain("generate  %llu tokens (stop: %s), %.3f s, %.1f tokens/s, weights at %s/s",
                  (unsigned long long)report->generated_count, stop_name(report->stop), report->generate_seconds, rate_per_second,
                  cllm_size_text((uint64_t)(rate_per_second * (double)bytes_per_token(model)), rate));
    cllm_complain("memory    %s weights, %s cache and buffers for %u positions, %s peak", weights,
                  cllm_size_text(result->forward->memory_bytes, buffers), result->forward->context_size,
                  cllm_size_text(peak_memory_bytes(), peak));
}

static json_t *ids_as_json(const uint32_t *ids, uint64_t count)
{
    json_t *list = json_array();
    for (uint64_t i = 0; i < count; i++) {
        json_array_append_new(list, json_integer(ids[i]));
    }
    return list;
}

enum cllm_status crun_print_json(const struct crun_result *result, struct cllm_error *err)
{
    const struct cllm_generate_report *report = &result->report;
    const struct cllm_model *model = result->model;
    json_t *document = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:i, s:I, s:f, s:I, s:f, s:f, s:I, s:f, s:f, s:s, s:I, s:I, s:I, s:i, s:s}",
        "message_type", "summary", "architecture", model->config.architecture, "parameters", (json_int_t)model->parameter_count,
        "weight_bytes", (json_int_t)model->weight_bytes, "weight_bytes_per_token", (json_int_t)bytes_per_token(model),
        "container_bytes", (json_int_t)result->stored_bytes, "device", "cpu", "kernels", result->forward->device_name, "threads",
        (int)result->forward->thread_count, "seed", (json_int_t)result->seed, "load_seconds", result->load_seconds,
        "prompt_tokens", (json_int_t)report->prompt_count, "prompt_seconds", report->prompt_seconds, "prompt_tokens_per_second",
        per_second(report->prompt_count, report->prompt_seconds), "generated_tokens", (json_int_t)report->generated_count,
        "generate_seconds", report->generate_seconds, "generated_tokens_per_second",
        per_second(timed_count(result), report->generate_seconds), "stop", stop_name(report->stop), "context",
        (json_int_t)result->forward->context_size, "buffer_bytes", (json_int_t)result->forward->memory_bytes, "peak_memory_bytes",
        (json_int_t)peak_memory_bytes(), "exit_code", CLLM_EXIT_OK, "exit_id", cllm_exit_id(CLLM_EXIT_OK));
    if (document) {
        cllm_json_set_name(document, "model", result->options->model, strlen(result->options->model));
        json_object_set_new(document, "text", result->text ? json_stringn(result->text, result->text_bytes) : json_null());
        json_object_set_new(document, "prompt_ids", ids_as_json(result->prompt_ids, report->prompt_count));
        json_object_set_new(document, "ids", ids_as_json(result->ids, report->generated_count));
    }
    return cllm_json_print(document, err);
}

/* crun_bench.c - the same model and work in several residencies, measured side by side. */
#include "crun.h"

#include "cllm_decode_gpu.h"
#include "message.h"
#include "progress.h"
#include "report.h"
#include "sampler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IDENTITY_PROMPT 16 /* tokens */
#define COLUMNS_MAX (2 + CRUN_VRAM_MAX)

/* One residency: what was asked for and what was found. */
struct column {
    struct crun_engine_options options;
    char name[64];
    char residency[64];
    const char *skipped; /* why it was not measured, or null */
    char reason[512];
    bool on_gpu;
    struct cllm_residency_plan plan;
    struct crun_engine_vram vram;
    struct crun_engine_memory memory;
    struct cllm_gpu_device_speed speed;
    double start_seconds, load_seconds, first_token_seconds;
    double prompt_per_second, generate_per_second; /* medians */
    double generate_seconds;                       /* of all timed runs */
    uint64_t read_bytes_per_token, weight_bytes;
    struct cllm_weights_gpu_work load_work, stream_work; /* of the timed runs */
    uint64_t *hashes;                                    /* of the logits of each generated position */
    uint64_t differing;                                  /* positions whose logits are not those of the first column */
    json_t *details;
};

struct bench {
    const struct crun_options *options;
    struct cllm_reader *reader;
    struct column columns[COLUMNS_MAX];
    unsigned column_count;
    struct cllm_sampler *greedy;
    uint32_t *prompt_ids;
    uint32_t prompt_count;
    uint32_t token_count; /* to generate in each run */
    uint32_t context_size;
    uint64_t stored_bytes;
    char architecture[64];
};

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool proceed(void *user)
{
    (void)user;
    return cllm_signal_caught() == 0;
}

/* ------------------------------------------------------------------------------------------------------------- runs */

/* FNV-1a, a word at a time: enough to tell bits that differ. */
static uint64_t hash_logits(const float *logits, uint32_t count)
{
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        hash = (hash ^ bits) * UINT64_C(0x100000001B3);
    }
    return hash;
}

struct timing {
    double prompt_seconds;
    double generate_seconds;
};

/* One text from the start, every token by itself, its first IDENTITY_PROMPT tokens from the prompt, the others greedy: how many
 * tokens of a prompt go together depends on memory, and rounding on that. */
static enum cllm_status hash_tokens(const struct bench *bench, struct cllm_forward *forward, uint64_t *hashes,
                                    struct cllm_error *err)
{
    const uint32_t given = bench->prompt_count < IDENTITY_PROMPT ? bench->prompt_count : IDENTITY_PROMPT;
    enum cllm_status status = CLLM_OK;
    forward->position_count = 0;
    for (uint32_t i = 0; !status && i < given + bench->token_count; i++) {
        const uint32_t id = i < given ? bench->prompt_ids[i] : cllm_sampler_choose(bench->greedy, forward->logits);
        const struct cllm_forward_input input = {.ids = &id, .id_count = 1, .proceed = proceed};
        if (i >= given) hashes[i - given] = hash_logits(forward->logits, forward->vocab_size);
        status = cllm_forward_run(forward, &input, err);
    }
    return status;
}

/* One text from the start: prompt, then greedy tokens. */
static enum cllm_status run_once(const struct bench *bench, struct cllm_forward *forward, struct timing *timing_out,
                                 struct cllm_error *err)
{
    struct cllm_forward_input input = {.ids = bench->prompt_ids, .id_count = bench->prompt_count, .proceed = proceed};
    double start = seconds_now();
    forward->position_count = 0;
    enum cllm_status status = cllm_forward_run(forward, &input, err);
    timing_out->prompt_seconds = seconds_now() - start;
    start = seconds_now();
    for (uint32_t i = 0; !status && i < bench->token_count; i++) {
        const uint32_t id = cllm_sampler_choose(bench->greedy, forward->logits);
        input.ids = &id;
        input.id_count = 1;
        status = cllm_forward_run(forward, &input, err);
    }
    timing_out->generate_seconds = seconds_now() - start;
    return status;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

static struct cllm_weights_gpu_work difference(struct cllm_weights_gpu_work a, struct cllm_weights_gpu_work b)
{
    return (struct cllm_weights_gpu_work){a.decode_count - b.decode_count, a.timed_count - b.timed_count,
                                          a.timed_seconds - b.timed_seconds, a.copied_bytes - b.copied_bytes,
                                          a.decoded_bytes - b.decoded_bytes};
}

/* The timed runs. */
static enum cllm_status time_runs(const struct bench *bench, struct crun_engine *engine, struct column *column,
                                  struct cllm_error *err)
{
    const uint32_t count = bench->options->run_count;
    double *prompts = calloc(count, sizeof *prompts), *tokens = calloc(count, sizeof *tokens);
    enum cllm_status status =
        prompts && tokens ? CLLM_OK : cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the runs");
    struct cllm_weights_gpu_work before = {0};
    if (engine->on_gpu) before = cllm_weights_gpu_stream_work(engine->weights);
    for (uint32_t i = 0; !status && i < count; i++) {
        struct timing timing;
        status = run_once(bench, engine->forward, &timing, err);
        prompts[i] = bench->prompt_count / timing.prompt_seconds;
        tokens[i] = bench->token_count / timing.generate_seconds;
        column->generate_seconds += timing.prompt_seconds + timing.generate_seconds;
    }
    if (!status) {
        column->prompt_per_second = median(prompts, count);
        column->generate_per_second = median(tokens, count);
        if (engine->on_gpu) column->stream_work = difference(cllm_weights_gpu_stream_work(engine->weights), before);
    }
    free(prompts);
    free(tokens);
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- columns */

static void keep_facts(struct crun_engine *engine, struct column *column)
{
    column->on_gpu = engine->on_gpu;
    column->plan = engine->plan;
    column->speed = engine->speed;
    column->start_seconds = engine->start_seconds;
    column->load_seconds = engine->load_seconds;
    column->read_bytes_per_token = engine->read_bytes_per_token;
    column->weight_bytes = engine->weight_bytes;
    char residency[64];
    snprintf(column->residency, sizeof column->residency, "%s", crun_engine_residency(engine, residency));
    if (!engine->on_gpu) return;
    crun_engine_note_memory(engine);
    column->memory = engine->memory;
    column->vram = crun_engine_vram(engine);
    column->load_work = cllm_weights_gpu_load_work(engine->weights);
    crun_add_gpu_json(column->details, engine);
}

static void compare_logits(const struct bench *bench, struct column *column)
{
    const struct column *first = bench->columns;
    while (first < column && first->skipped) first++; /* whose hashes may be unfinished */
    for (uint32_t i = 0; i < bench->token_count; i++) column->differing += column->hashes[i] != first->hashes[i];
}

static enum cllm_status measure(const struct bench *bench, struct column *column, struct crun_engine *engine,
                                struct cllm_model *model, struct cllm_error *err)
{
    struct timing first;
    enum cllm_status status = crun_engine_open(&column->options, bench->reader, model, bench->context_size, engine, err);
    if (status) return status;
    column->hashes = calloc(bench->token_count, sizeof *column->hashes);
    column->details = json_object();
    if (!column->hashes || !column->details) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the results");
    status = run_once(bench, engine->forward, &first, err); /* warms up, too */
    if (!status) status = hash_tokens(bench, engine->forward, column->hashes, err);
    if (!status) status = time_runs(bench, engine, column, err);
    if (status) return status;
    keep_facts(engine, column);
    column->first_token_seconds = column->start_seconds + column->load_seconds + first.prompt_seconds;
    compare_logits(bench, column);
    return CLLM_OK;
}

/* A residency that does not fit is reported and left out; every other failure ends the bench. */
static enum cllm_status measure_column(const struct bench *bench, struct column *column, struct cllm_error *err)
{
    struct crun_engine engine = {0};
    struct cllm_model *model = NULL;
    enum cllm_status status = cllm_model_open(bench->reader, &model, err);
    if (!status) status = measure(bench, column, &engine, model, err);
    crun_engine_close(&engine);
    cllm_model_destroy(model);
    if (status != CLLM_E_LIMIT && status != CLLM_E_NOMEM) return status;
    snprintf(column->reason, sizeof column->reason, "%s", err->message);
    column->skipped = column->reason;
    cllm_warn("%s is left out: %s", column->name, column->reason);
    return CLLM_OK;
}

static struct column *add_column(struct bench *bench, enum cllm_residency residency, const char *name)
{
    struct column *column = &bench->columns[bench->column_count++];
    column->options = crun_engine_options_of(bench->options);
    column->options.residency = residency;
    column->options.vram_bytes = 0;
    column->options.cache_layers = CLLM_CACHE_LAYERS_AUTO;
    column->options.timed = true;
    snprintf(column->name, sizeof column->name, "%s", name);
    return column;
}

static void add_columns(struct bench *bench)
{
    const struct crun_options *options = bench->options;
    if (options->device == CLLM_DEVICE_CPU || cllm_gpu_count() == 0) {
        add_column(bench, CLLM_RESIDENCY_AUTO, "cpu");
        return;
    }
    if (options->residency_given) {
        struct column *column = add_column(bench, options->residency, cllm_residency_name(options->residency));
        column->options.cache_layers = options->cache_layers;
    } else {
        add_column(bench, CLLM_RESIDENCY_RAW, "raw");
        add_column(bench, CLLM_RESIDENCY_PACKED, "packed");
    }
    for (unsigned i = 0; i < options->vram_count; i++) {
        struct column *column = add_column(bench, CLLM_RESIDENCY_AUTO, "");
        column->options.vram_bytes = options->vram_bytes[i];
        column->options.cache_layers = options->cache_layers;
        snprintf(column->name, sizeof column->name, "%.3g GiB", (double)options->vram_bytes[i] / (1 << 30));
    }
}

/* ------------------------------------------------------------------------------------------------------------- report */

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static double read_per_second(const struct column *column)
{
    return column->generate_per_second * (double)column->read_bytes_per_token;
}

/* Of the timed runs. */
static double average_decode_seconds(const struct column *column)
{
    const struct cllm_weights_gpu_work *work = column->stream_work.timed_count ? &column->stream_work : &column->load_work;
    return ratio(work->timed_seconds, (double)work->timed_count);
}

static double decode_share(const struct column *column)
{
    const struct cllm_weights_gpu_work *work = &column->stream_work;
    const double seconds = ratio(work->timed_seconds, (double)work->timed_count) * (double)work->decode_count;
    return ratio(seconds, column->generate_seconds);
}

static uint64_t vram_total(const struct column *column)
{
    return column->vram.weight_bytes + column->vram.stream_bytes + column->vram.cache_bytes + column->vram.buffer_bytes;
}

/* A row of the table: its name and, for each column, its text. */
struct row {
    const char *name;
    bool gpu_only;
    void (*print)(const struct column *column, char *out, size_t out_bytes);
};

#define ROW(function, ...)                                                                                                       \
    static void function(const struct column *c, char *out, size_t out_bytes)                                                    \
    {                                                                                                                            \
        char size[32];                                                                                                           \
        (void)size;                                                                                                              \
        snprintf(out, out_bytes, __VA_ARGS__);                                                                                   \
    }
ROW(row_residency, "%.*s", 24, c->residency)
ROW(row_load, "%.3f s", c->load_seconds)
ROW(row_first_token, "%.3f s", c->first_token_seconds)
ROW(row_prompt, "%.1f", c->prompt_per_second)
ROW(row_generate, "%.1f", c->generate_per_second)
ROW(row_ceiling, "%.1f (%.0f %%)", c->plan.ceiling_per_second, 100 * ratio(c->generate_per_second, c->plan.ceiling_per_second))
ROW(row_read, "%s/s", cllm_size_text((uint64_t)read_per_second(c), size))
ROW(row_read_share, "%.1f %%", 100 * ratio(read_per_second(c), c->speed.copy_bytes_per_second))
ROW(row_link_share, "%.1f %%",
    100 * ratio(c->generate_per_second * (double)c->plan.streamed_bytes_per_token, c->speed.link_bytes_per_second))
ROW(row_vram, "%s", cllm_size_text(vram_total(c), size))
ROW(row_vram_weights, "%s", cllm_size_text(c->vram.weight_bytes + c->vram.stream_bytes, size))
ROW(row_vram_cache, "%s", cllm_size_text(c->vram.cache_bytes, size))
ROW(row_vram_buffers, "%s", cllm_size_text(c->vram.buffer_bytes, size))
ROW(row_vram_runtime, "%s", cllm_size_text(c->vram.runtime_bytes, size))
ROW(row_vram_driver, "%s", cllm_size_text(c->memory.free_at_start - c->memory.free_least, size))
ROW(row_load_decodes, "%llu", (unsigned long long)c->load_work.decode_count)
ROW(row_decodes, "%llu", (unsigned long long)c->stream_work.decode_count)
ROW(row_decode_time, "%.1f us", 1e6 * average_decode_seconds(c))
ROW(row_decode_share, "%.2f %%", 100 * decode_share(c))
ROW(row_logits, "%s", c->differing ? "differ" : "identical")

static const struct row rows[] = {
    {"residency", false, row_residency},
    {"load", false, row_load},
    {"first token after", false, row_first_token},
    {"prompt, tokens/s", false, row_prompt},
    {"generation, tokens/s", false, row_generate},
    {"ceiling, tokens/s", true, row_ceiling},
    {"weights read", false, row_read},
    {"of the copy bandwidth", true, row_read_share},
    {"of the host link", true, row_link_share},
    {"VRAM", true, row_vram},
    {"  weights", true, row_vram_weights},
    {"  cache", true, row_vram_cache},
    {"  buffers", true, row_vram_buffers},
    {"  driver and libraries", true, row_vram_runtime},
    {"  driver's own figure", true, row_vram_driver},
    {"decodes at load", true, row_load_decodes},
    {"decodes while running", true, row_decodes},
    {"average time per decode", true, row_decode_time},
    {"share of time decoding", true, row_decode_share},
    {"logits", false, row_logits},
};

/* Packed, or whatever comes second, beside the first. */
static void describe_verdict(const struct bench *bench, char *out, size_t out_bytes)
{
    const struct column *measured[COLUMNS_MAX];
    unsigned count = 0;
    uint64_t differing = 0;
    for (unsigned i = 0; i < bench->column_count; i++) {
        if (bench->columns[i].skipped) continue;
        measured[count++] = &bench->columns[i];
        differing += bench->columns[i].differing;
    }
    if (count == 0) {
        snprintf(out, out_bytes, "nothing was measured");
    } else if (count == 1) {
        snprintf(out, out_bytes, "%s: %.1f tokens/s", measured[0]->name, measured[0]->generate_per_second);
    } else {
        snprintf(out, out_bytes, "%s runs at %.2f x the speed of %s with %.1f %% of its weight memory; logits are %s",
                 measured[1]->name, ratio(measured[1]->generate_per_second, measured[0]->generate_per_second), measured[0]->name,
                 100 * ratio((double)(measured[1]->vram.weight_bytes + measured[1]->vram.stream_bytes),
                             (double)(measured[0]->vram.weight_bytes + measured[0]->vram.stream_bytes)),
                 differing ? "NOT identical" : "identical in every column");
    }
}

static void print_table(const struct bench *bench)
{
    const bool on_gpu = bench->columns[0].on_gpu || bench->column_count > 1;
    char verdict[256], size[32];
    printf("%s, %s; prompt %u tokens, then %u, median of %u runs\n", bench->options->model,
           cllm_size_text(bench->stored_bytes, size), bench->prompt_count, bench->token_count, bench->options->run_count);
    printf("%-24s", "");
    for (unsigned i = 0; i < bench->column_count; i++) {
        if (!bench->columns[i].skipped) printf("  %24s", bench->columns[i].name);
    }
    putchar('\n');
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        if (rows[r].gpu_only && !on_gpu) continue;
        printf("%-24s", rows[r].name);
        for (unsigned i = 0; i < bench->column_count; i++) {
            char text[64];
            if (bench->columns[i].skipped) continue;
            rows[r].print(&bench->columns[i], text, sizeof text);
            printf("  %24s", text);
        }
        putchar('\n');
    }
    describe_verdict(bench, verdict, sizeof verdict);
    printf("%s\n", verdict);
}

static json_t *column_as_json(struct column *column)
{
    json_t *object = json_pack("{s:s}", "name", column->name);
    if (column->skipped) {
        json_object_set_new(object, "skipped", json_string(column->skipped));
        return object;
    }
    json_object_update_new(
        object,
        json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:I, s:I, s:f, s:f, s:b, s:I}", "residency",
                  column->residency, "start_seconds", column->start_seconds, "load_seconds", column->load_seconds,
                  "first_token_seconds", column->first_token_seconds, "prompt_tokens_per_second", column->prompt_per_second,
                  "generated_tokens_per_second", column->generate_per_second, "read_bytes_per_token",
                  (json_int_t)column->read_bytes_per_token, "read_bytes_per_second", read_per_second(column),
                  "copy_bandwidth_share", ratio(read_per_second(column), column->speed.copy_bytes_per_second), "ceiling_share",
                  ratio(column->generate_per_second, column->plan.ceiling_per_second), "load_decodes",
                  (json_int_t)column->load_work.decode_count, "decodes", (json_int_t)column->stream_work.decode_count,
                  "average_decode_seconds", average_decode_seconds(column), "decode_share", decode_share(column),
                  "logits_identical", column->differing == 0, "differing_positions", (json_int_t)column->differing));
    if (column->details) json_object_update(object, column->details);
    return object;
}

static enum cllm_status print_json(struct bench *bench, struct cllm_error *err)
{
    char verdict[256];
    json_t *columns = json_array();
    for (unsigned i = 0; i < bench->column_count; i++) {
        json_array_append_new(columns, column_as_json(&bench->columns[i]));
    }
    describe_verdict(bench, verdict, sizeof verdict);
    json_t *document =
        json_pack("{s:s, s:s, s:I, s:i, s:i, s:i, s:o, s:s, s:i, s:s}", "message_type", "bench", "architecture",
                  bench->architecture, "container_bytes", (json_int_t)bench->stored_bytes, "prompt_tokens",
                  (int)bench->prompt_count, "generated_tokens", (int)bench->token_count, "runs", (int)bench->options->run_count,
                  "columns", columns, "verdict", verdict, "exit_code", CLLM_EXIT_OK, "exit_id", cllm_exit_id(CLLM_EXIT_OK));
    if (document) cllm_json_set_name(document, "model", bench->options->model, strlen(bench->options->model));
    return cllm_json_print(document, err);
}

/* --------------------------------------------------------------------------------------------------------------- bench */

/* Ids spread over the vocabulary: speed does not depend on what they mean. */
static enum cllm_status prepare(struct bench *bench, struct cllm_error *err)
{
    const struct crun_options *options = bench->options;
    struct cllm_model *model = NULL;
    enum cllm_status status = cllm_reader_open(options->model, &bench->reader, err);
    if (!status) status = cllm_model_open(bench->reader, &model, err);
    if (status) return status;
    const uint32_t limit = options->context_size ? options->context_size : model->config.position_limit;
    const uint64_t wanted = options->token_limit;
    bench->stored_bytes = cllm_reader_index(bench->reader)->container_bytes;
    snprintf(bench->architecture, sizeof bench->architecture, "%s", model->config.architecture);
    bench->prompt_count = options->prompt_count < limit / 2 ? options->prompt_count : limit / 2;
    if (bench->prompt_count == 0) bench->prompt_count = 1;
    bench->token_count = wanted < limit - bench->prompt_count ? (uint32_t)wanted : limit - bench->prompt_count;
    bench->context_size = options->context_size ? options->context_size : bench->prompt_count + bench->token_count;
    bench->prompt_ids = calloc(bench->prompt_count, sizeof *bench->prompt_ids);
    if (bench->token_count == 0)
        status = cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "a context of %u has no room to generate", limit);
    if (!bench->prompt_ids) status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the prompt");
    for (uint32_t i = 0; !status && i < bench->prompt_count; i++) {
        bench->prompt_ids[i] = (uint32_t)((uint64_t)i * 7919 % model->config.vocab_size);
    }
    const struct cllm_sampler_options greedy = {.top_p = 1, .repeat_penalty = 1};
    if (!status) status = cllm_sampler_create(&greedy, model->config.vocab_size, &bench->greedy, err);
    cllm_model_destroy(model);
    return status;
}

/* A bench that measured nothing has failed. */
static enum cllm_status check_measured(const struct bench *bench, struct cllm_error *err)
{
    for (unsigned i = 0; i < bench->column_count; i++) {
        if (!bench->columns[i].skipped) return CLLM_OK;
    }
    return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "nothing could be measured; %s: %s", bench->columns[0].name,
                     bench->columns[0].reason);
}

/* The same weights must give the same logits wherever they lie. */
static enum cllm_status check_identical(const struct bench *bench, struct cllm_error *err)
{
    for (unsigned i = 0; i < bench->column_count; i++) {
        const struct column *column = &bench->columns[i];
        if (!column->skipped && column->differing) {
            return cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "%s: logits of %llu of %u tokens differ", column->name,
                             (unsigned long long)column->differing, bench->token_count);
        }
    }
    return CLLM_OK;
}

int crun_bench(const struct crun_options *options)
{
    struct bench bench = {.options = options};
    struct cllm_error err = {0};
    enum cllm_status status = prepare(&bench, &err);
    if (!status) add_columns(&bench);
    for (unsigned i = 0; !status && i < bench.column_count; i++) status = measure_column(&bench, &bench.columns[i], &err);
    if (!status) status = check_measured(&bench, &err);
    if (!status && options->common.json) status = print_json(&bench, &err);
    else if (!status) print_table(&bench);
    if (!status) status = check_identical(&bench, &err);
    for (unsigned i = 0; i < bench.column_count; i++) {
        free(bench.columns[i].hashes);
        json_decref(bench.columns[i].details);
    }
    cllm_sampler_destroy(bench.greedy);
    free(bench.prompt_ids);
    cllm_reader_close(bench.reader);
    return status ? cllm_fatal_error(&err) : CLLM_EXIT_OK;
}

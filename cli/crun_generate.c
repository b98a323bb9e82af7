/* crun_generate.c - from a container and a prompt to text on standard output. */
#include "crun.h"

#include "bytes.h"
#include "message.h"
#include "output.h"
#include "progress.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

/* Tokens beyond the prompt that there is room for where neither -n nor -c says how many. */
#define DEFAULT_ROOM 4096

/* Everything that a run holds; all null at first, released in one place. */
struct running {
    const struct crun_options *options;
    struct cllm_reader *reader;
    struct cllm_model *model;
    struct cllm_tokenizer *tokenizer;
    struct cllm_detokenizer *detokenizer;
    struct crun_engine engine;
    struct cllm_sampler *sampler;
    struct cllm_output *dump;
    uint8_t *dump_row; /* vocab_size floats */
    uint32_t *prompt_ids;
    size_t prompt_count;
    uint32_t *ids; /* generated so far */
    size_t id_count, id_capacity;
    char *held; /* of the prompt's text, what the detokenizer gives away with the first generated ids */
    size_t held_bytes, held_seen;
    char *text; /* generated so far; kept for --json only */
    size_t text_bytes, text_capacity;
    bool as_ids; /* print ids */
};

static enum cllm_status grow(void **array, size_t *capacity, size_t needed, size_t element_bytes, struct cllm_error *err)
{
    if (needed <= *capacity) return CLLM_OK;
    size_t larger = needed * 2 + 64;
    void *moved = larger < SIZE_MAX / element_bytes ? realloc(*array, larger * element_bytes) : NULL;
    if (!moved) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the output");
    *array = moved;
    *capacity = larger;
    return CLLM_OK;
}

/* -------------------------------------------------------------------------------------------------------- callbacks */

static bool proceed(void *user)
{
    (void)user;
    return cllm_signal_caught() == 0;
}

/* Text of the generated ids, as it is printed. */
static enum cllm_status put_text(struct running *running, const char *text, size_t text_bytes, struct cllm_error *err)
{
    if (text_bytes == 0) return CLLM_OK;
    if (!running->options->common.json) return cllm_stdout_write(text, text_bytes, err);
    void *moved = running->text;
    enum cllm_status status = grow(&moved, &running->text_capacity, running->text_bytes + text_bytes, 1, err);
    running->text = moved;
    if (status) return status;
    memcpy(running->text + running->text_bytes, text, text_bytes);
    running->text_bytes += text_bytes;
    return CLLM_OK;
}

/* What the detokenizer gives away, but for what it had held back of the prompt. That may turn out to be another text: an
 * unfinished character that the first generated id completes; then nothing is left out. */
static enum cllm_status emit_text(struct running *running, const char *text, size_t text_bytes, struct cllm_error *err)
{
    const size_t before = running->held_seen;
    size_t used = 0;
    while (used < text_bytes && before + used < running->held_bytes && text[used] == running->held[before + used]) used++;
    running->held_seen += used;
    if (used == text_bytes || running->held_seen == running->held_bytes)
        return put_text(running, text + used, text_bytes - used, err);
    running->held_seen = running->held_bytes;
    const enum cllm_status status = put_text(running, running->held, before, err);
    return status ? status : put_text(running, text, text_bytes, err);
}

static enum cllm_status emit_token(void *user, uint32_t id, bool is_end, struct cllm_error *err)
{
    struct running *running = user;
    void *moved = running->ids;
    enum cllm_status status = grow(&moved, &running->id_capacity, running->id_count + 1, sizeof id, err);
    running->ids = moved;
    if (status) return status;
    running->ids[running->id_count++] = id;
    if (running->as_ids) {
        char number[16];
        int length = snprintf(number, sizeof number, "%s%u", running->id_count > 1 ? " " : "", id);
        return running->options->common.json ? CLLM_OK : cllm_stdout_write(number, (size_t)length, err);
    }
    if (is_end || !running->detokenizer) return CLLM_OK;
    const char *text;
    size_t text_bytes;
    status = cllm_detokenizer_push(running->detokenizer, id, &text, &text_bytes, err);
    return status || text_bytes == 0 ? status : emit_text(running, text, text_bytes, err);
}

/* What the detokenizer held back, and the end of the line. */
static enum cllm_status emit_end(struct running *running, struct cllm_error *err)
{
    const char *text;
    size_t text_bytes;
    enum cllm_status status = CLLM_OK;
    if (running->detokenizer) {
        status = cllm_detokenizer_finish(running->detokenizer, &text, &text_bytes, err);
        if (!status) status = emit_text(running, text, text_bytes, err);
    }
    if (!status && !running->options->common.json) status = cllm_stdout_write("\n", 1, err);
    return status;
}

static enum cllm_status dump_logits(void *user, const float *logits, struct cllm_error *err)
{
    struct running *running = user;
    const uint32_t vocab_size = running->model->config.vocab_size;
    for (uint32_t i = 0; i < vocab_size; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        cllm_store_le32(running->dump_row + 4 * (size_t)i, bits);
    }
    return cllm_output_write(running->dump, running->dump_row, 4 * (size_t)vocab_size, err);
}

/* ------------------------------------------------------------------------------------------------------- preparation */

/* The forward pass would refuse them too, but only after loading. */
static enum cllm_status check_prompt(const struct running *running, struct cllm_error *err)
{
    const uint32_t vocab_size = running->model->config.vocab_size;
    if (running->prompt_count == 0) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "the prompt has no tokens, expected at least one");
    }
    for (size_t i = 0; i < running->prompt_count; i++) {
        if (running->prompt_ids[i] < vocab_size) continue;
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "the prompt has token id %u, expected one below %u, %s",
                         running->prompt_ids[i], vocab_size,
                         running->options->prompt_ids ? "the vocabulary's size"
                                                      : "the model's vocabulary: the tokenizer is another's");
    }
    return CLLM_OK;
}

/* The text is decoded as the continuation of the prompt, because decoders treat the beginning of a text differently. */
static enum cllm_status start_text(struct running *running, struct cllm_error *err)
{
    const char *text;
    size_t text_bytes, given_bytes = 0, all_bytes = 0;
    char *all = NULL;
    enum cllm_status status = cllm_detokenizer_create(running->tokenizer, true, &running->detokenizer, err);
    for (size_t i = 0; !status && i < running->prompt_count; i++) {
        status = cllm_detokenizer_push(running->detokenizer, running->prompt_ids[i], &text, &text_bytes, err);
        if (!status) given_bytes += text_bytes;
    }
    if (!status) {
        status =
            cllm_tokenizer_decode(running->tokenizer, running->prompt_ids, running->prompt_count, true, &all, &all_bytes, err);
    }
    if (!status && all_bytes > given_bytes) {
        running->held_bytes = all_bytes - given_bytes;
        memmove(all, all + given_bytes, running->held_bytes);
    }
    running->held = all;
    return status;
}

/* All that is quick and can fail, so that nobody waits for a model to load and then reads of a wrong option. */
static enum cllm_status prepare(struct running *running, struct cllm_error *err)
{
    const struct crun_options *options = running->options;
    enum cllm_status status = cllm_reader_open(options->model, &running->reader, err);
    if (!status) status = cllm_model_open(running->reader, &running->model, err);
    const bool needs_tokenizer = !options->prompt_ids || !options->print_ids;
    if (!status && needs_tokenizer) status = crun_load_tokenizer(options, running->reader, &running->tokenizer, err);
    if (!status) status = crun_read_prompt(options, running->tokenizer, &running->prompt_ids, &running->prompt_count, err);
    if (!status && !proceed(running)) status = cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
    if (!status) status = check_prompt(running, err);
    if (status) return status;
    running->as_ids = options->print_ids || !running->tokenizer;
    if (!running->as_ids) return start_text(running, err);
    if (!options->print_ids) cllm_warn("the container has no tokenizer.json: token ids are printed instead of text");
    return CLLM_OK;
}

/* How many positions there must be room for: no more than can be used. */
static enum cllm_status choose_context(const struct running *running, uint32_t *context_size_out, struct cllm_error *err)
{
    const struct crun_options *options = running->options;
    const uint32_t position_limit = running->model->config.position_limit;
    const uint32_t asked = options->context_size ? options->context_size : position_limit;
    const bool is_open = options->token_limit == CLLM_GENERATE_UNLIMITED;
    const uint64_t room = is_open && !options->context_size ? DEFAULT_ROOM : is_open ? UINT32_MAX : options->token_limit;
    const uint64_t usable = running->prompt_count + room;
    if (running->prompt_count > asked) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "the prompt has %zu tokens, the context holds %u (%s)",
                         running->prompt_count, asked,
                         options->context_size ? "given with -c" : "what the model was made for; see -c");
    }
    if (asked > position_limit) cllm_warn("-c %u: the model was made for %u positions", asked, position_limit);
    *context_size_out = usable < asked ? (uint32_t)usable : asked;
    return CLLM_OK;
}

static enum cllm_status choose_seed(const struct crun_options *options, uint64_t *seed_out, struct cllm_error *err)
{
    *seed_out = options->sampler.seed;
    if (options->seed_given || options->sampler.temperature == 0) return CLLM_OK;
    /* 32 bits are enough, and can be typed again */
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) {
        return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "the system gives no random seed; see --seed");
    }
    *seed_out = seed;
    return CLLM_OK;
}

/* The logits replace what is there: none of the inputs. */
static enum cllm_status check_dump(const struct crun_options *options, struct cllm_error *err)
{
    const char *const inputs[] = {options->model, options->tokenizer, options->prompt_file};
    for (size_t i = 0; options->dump_logits && i < sizeof inputs / sizeof *inputs; i++) {
        if (!inputs[i] || !cllm_is_same_file(options->dump_logits, inputs[i])) continue;
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "--dump-logits %s: this is one of the inputs",
                         cllm_shown(options->dump_logits));
    }
    return CLLM_OK;
}

static enum cllm_status open_dump(struct running *running, struct cllm_error *err)
{
    if (!running->options->dump_logits) return CLLM_OK;
    running->dump_row = calloc(running->model->config.vocab_size, 4);
    if (!running->dump_row) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for logits");
    return cllm_output_create(running->options->dump_logits, true, &running->dump, err);
}

struct crun_engine_options crun_engine_options_of(const struct crun_options *options)
{
    const struct cllm_common_options *common = &options->common;
    return (struct crun_engine_options){
        .device = options->device,
        .device_index = options->device_index,
        .thread_count = common->thread_count,
        .residency = options->residency,
        .cache_layers = options->cache_layers,
        .vram_bytes = options->vram_count ? options->vram_bytes[0] : 0,
        .ram_bytes = options->ram_bytes,
        .announce = common->quiet_level == 0 && !common->json,
        .show_progress = !common->no_progress && common->quiet_level == 0,
    };
}

/* --------------------------------------------------------------------------------------------------------------- run */

static enum cllm_status generate(struct running *running, struct crun_result *result, struct cllm_error *err)
{
    const struct crun_options *options = running->options;
    const struct cllm_generate_options generation = {
        .prompt_ids = running->prompt_ids,
        .prompt_count = running->prompt_count,
        .token_limit = options->token_limit,
        .config = &running->model->config,
        .ignore_end = options->ignore_end,
        .token = emit_token,
        .logits = running->dump ? dump_logits : NULL,
        .proceed = proceed,
        .user = running,
    };
    enum cllm_status status = cllm_generate(running->engine.forward, running->sampler, &generation, &result->report, err);
    if (!status) status = emit_end(running, err);
    if (!status && running->dump) {
        status = cllm_output_commit(running->dump, err);
        running->dump = NULL;
    }
    return status;
}

static enum cllm_status run(struct running *running, struct crun_result *result, struct cllm_error *err)
{
    const struct crun_engine_options engine = crun_engine_options_of(running->options);
    uint32_t context_size = 0;
    struct cllm_sampler_options sampler = running->options->sampler;
    enum cllm_status status = check_dump(running->options, err);
    if (!status) status = prepare(running, err);
    if (!status) status = choose_context(running, &context_size, err);
    if (!status) status = choose_seed(running->options, &sampler.seed, err);
    if (!status) status = cllm_sampler_create(&sampler, running->model->config.vocab_size, &running->sampler, err);
    if (!status) status = open_dump(running, err);
    if (!status) status = crun_engine_open(&engine, running->reader, running->model, context_size, &running->engine, err);
    if (!status) status = generate(running, result, err);
    if (status) return status;
    result->options = running->options;
    result->model = running->model;
    result->engine = &running->engine;
    crun_engine_note_memory(&running->engine);
    result->stored_bytes = cllm_reader_index(running->reader)->container_bytes;
    result->seed = sampler.seed;
    result->prompt_ids = running->prompt_ids;
    result->ids = running->ids;
    result->text = running->detokenizer ? running->text ? running->text : "" : NULL;
    result->text_bytes = running->text_bytes;
    if (running->options->common.json) return crun_print_json(result, err); /* it has the statistics, too */
    if (running->options->stats) crun_print_stats(result);
    return CLLM_OK;
}

int crun_generate(const struct crun_options *options)
{
    struct running running = {.options = options};
    struct crun_result result = {0};
    struct cllm_error err = {0};
    enum cllm_status status = run(&running, &result, &err);
    cllm_output_discard(running.dump);
    cllm_sampler_destroy(running.sampler);
    crun_engine_close(&running.engine);
    cllm_detokenizer_destroy(running.detokenizer);
    cllm_tokenizer_destroy(running.tokenizer);
    cllm_model_destroy(running.model);
    cllm_reader_close(running.reader);
    free(running.text);
    free(running.held);
    free(running.ids);
    free(running.prompt_ids);
    free(running.dump_row);
    return status ? cllm_fatal_error(&err) : CLLM_EXIT_OK;
}

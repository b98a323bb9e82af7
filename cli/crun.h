/* crun.h - the parts of crun. */
#ifndef CLLM_CRUN_H
#define CLLM_CRUN_H

#include "crun_engine.h"
#include "generate.h"
#include "model.h"
#include "options.h"
#include "tokenizer.h"

#include <jansson.h>

#define CRUN_VRAM_MAX 8

struct crun_options {
    struct cllm_common_options common;
    struct cllm_sampler_options sampler;
    const char *model;       /* the container, or null */
    const char *prompt;      /* -p, or null */
    const char *prompt_file; /* -f, or null */
    const char *prompt_ids;  /* --prompt-ids, or null */
    const char *tokenizer;   /* --tokenizer, or null */
    const char *dump_logits; /* --dump-logits, or null */
    uint64_t token_limit;    /* -n */
    uint32_t context_size;   /* -c; 0: not given */
    enum cllm_device device;
    unsigned device_index;
    enum cllm_residency residency;
    bool residency_given;
    uint32_t cache_layers;
    uint64_t vram_bytes[CRUN_VRAM_MAX]; /* --vram; several for bench alone */
    unsigned vram_count;
    uint64_t ram_bytes; /* --ram; 0: not given */
    bool bench;
    uint32_t run_count;    /* bench: --runs; 0 otherwise, like the next */
    uint32_t prompt_count; /* bench: --prompt-tokens */
    bool seed_given;
    bool print_ids;
    bool ignore_end;
    bool no_special;
    bool stats;
    bool tokenize_jsonl;
    bool detokenize_jsonl;
};

/* ------------------------------------------------------------------------------------------------------ crun_prompt.c */

/* The tokenizer of --tokenizer or of the container; `reader` may be null. Leaves null, without failing, where neither has one. */
enum cllm_status crun_load_tokenizer(const struct crun_options *options, const struct cllm_reader *reader,
                                     struct cllm_tokenizer **tokenizer_out, struct cllm_error *err) CLLM_MUST_USE;

/* The ids of the prompt, wherever it comes from, freed by the caller. `tokenizer` may be null with --prompt-ids. */
enum cllm_status crun_read_prompt(const struct crun_options *options, const struct cllm_tokenizer *tokenizer, uint32_t **ids_out,
                                  size_t *count_out, struct cllm_error *err) CLLM_MUST_USE;

/* -------------------------------------------------------------------------------------------------------- crun_generate.c */

/* What is known after a run. */
struct crun_result {
    const struct crun_options *options;
    const struct cllm_model *model;
    struct crun_engine *engine;
    uint64_t stored_bytes; /* of the container */
    uint64_t seed;
    struct cllm_generate_report report;
    const uint32_t *prompt_ids; /* report.prompt_count of them */
    const uint32_t *ids;        /* report.generated_count of them */
    const char *text;           /* that was generated, text_bytes long; null where nothing could decode it */
    size_t text_bytes;
};

/* How the options want the model to be loaded. */
struct crun_engine_options crun_engine_options_of(const struct crun_options *options);

/* Generates. Reports for itself and returns an exit code. */
int crun_generate(const struct crun_options *options);

/* ------------------------------------------------------------------------------------------------------ crun_result.c */

void crun_print_stats(const struct crun_result *result);
enum cllm_status crun_print_json(const struct crun_result *result, struct cllm_error *err) CLLM_MUST_USE;

/* Plan and memory of an engine on a GPU as members of a document. */
void crun_add_gpu_json(json_t *document, const struct crun_engine *engine);

uint64_t crun_peak_memory_bytes(void); /* of the host */

/* ------------------------------------------------------------------------------------------------------- crun_bench.c */

/* Measures residencies side by side. Reports for itself and returns an exit code. */
int crun_bench(const struct crun_options *options);

#endif

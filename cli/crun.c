/* crun.c - generates text with a model that lies in a container. */
#include "crun.h"

#include "message.h"
#include "progress.h"
#include "report.h"
#include "tokenizer_jsonl.h"

#include <stdio.h>
#include <string.h>

#define BENCH_TOKENS 256
#define BENCH_PROMPT_TOKENS 512
#define BENCH_RUNS 3

static const char help[] =
    "Generates text with a language model that lies in a .cllm container.\n"
    "\n"
    "  %p MODEL.cllm -p TEXT            what the model writes after TEXT, as it is generated\n"
    "  %p MODEL.cllm -f FILE            the prompt is a file; without -p and -f, standard input\n"
    "  %p bench MODEL.cllm              speed and memory of raw and packed weights, side by side\n"
    "  %p --tokenizer FILE --tokenize-jsonl     no model: only the tokenizer\n"
    "\n"
    "Examples\n"
    "  %p llama.cllm -p 'Once upon a time' -n 64\n"
    "  %p llama.cllm -p 'The capital of France is' -n 8 --temp 0      always the same answer\n"
    "  echo 'Dear Sir' | %p llama.cllm -n 200 --temp 1.1 --seed 7 --stats\n"
    "  %p llama.cllm --prompt-ids '1 306 626' --print-ids -n 16 --temp 0 --dump-logits out.f32\n"
    "  %p big.cllm -p 'Once' --vram 8GiB             what does not fit in so much is streamed\n"
    "  %p bench llama.cllm --vram 4GiB --vram 2GiB   two columns more, for models larger than that\n"
    "  echo '\"two words\"' | %p llama.cllm --tokenize-jsonl\n"
    "\n"
    "Prompt\n"
    "  -p, --prompt TEXT        the prompt\n"
    "  -f, --file FILE          or its file; here and from standard input one line feed at the end is left out\n"
    "      --prompt-ids IDS     or its token ids, used as they are: '1 2 3'\n"
    "      --no-special         do not add the tokens (a beginning-of-text token, say) that tokenizer.json adds to a text\n"
    "  -n, --n-predict N        tokens to generate at most; default: until an end token, or the context is full\n"
    "  -c, --context N          positions for prompt and generated text; default: what the model was made for, but no more\n"
    "                           than what -n needs, or 4096 more than the prompt\n"
    "      --ignore-eos         go on after end tokens\n"
    "\n"
    "Choice of tokens, in this order\n"
    "      --repeat-penalty X   divide the logits of tokens that the text has already (if negative: multiply); default 1, off\n"
    "      --top-k K            only the K most likely; 0 for all; default 40\n"
    "      --top-p P            of these the first that together have probability P; default 0.95\n"
    "      --min-p P            of these those at least P times as likely as the first; default 0.05\n"
    "      --temp T             and of these one at random, the more evenly the higher T is; default 0.8\n"
    "                           0: always the most likely token, none of the filters\n"
    "      --seed N             the same seed gives the same text; default: a new one each time (--stats shows it)\n"
    "\n"
    "Output\n"
    "      --print-ids          the generated token ids on one line instead of the text\n"
    "      --dump-logits FILE   float32, little-endian: a row of vocabulary size for every position of prompt and output;\n"
    "                           replaces FILE\n"
    "      --stats              times, tokens per second and memory, on standard error\n"
    "      --json               one JSON document with all of this instead of the text\n"
    "\n"
    "GPU\n"
    "      --device D           auto (a GPU where there is one), cpu, cuda, or cuda:N: what computes\n"
    "      --vram SIZE          device memory to use; default: what is free, less a sixteenth or 512 MiB; layers that do not\n"
    "                           fit stay compressed in host memory and are streamed for each token\n"
    "      --residency R        auto (packed, streaming the rest), raw (as BF16), packed (12 bits a weight) or stream (all\n"
    "                           layers); raw and packed fail where they do not fit; the output is the same with all of them\n"
    "      --cache-layers N     with auto and stream: N layers stay on the GPU, the others are streamed\n"
    "      --ram SIZE           host memory for streamed layers; default: most of what is available; layers that do not fit\n"
    "                           are read from the file for each token\n"
    "\n"
    "bench\n"
    "  -n, --n-predict N        tokens to generate in a run; default 256\n"
    "      --prompt-tokens N    length of the prompt; default 512\n"
    "      --runs N             timed runs, of which the median counts; default 3\n"
    "      --vram SIZE          a column for this budget; may be given up to 8 times\n"
    "      --residency R        this residency alone instead of raw and packed\n"
    "\n"
    "Tokenizer alone (standard input to standard output, a line each)\n"
    "      --tokenizer FILE     this tokenizer.json instead of the container's\n"
    "      --tokenize-jsonl     JSON strings to arrays of ids; --no-special as above\n"
    "      --detokenize-jsonl   arrays of ids to JSON strings; --no-special leaves out special tokens\n"
    "\n"
    "Other options\n"
    "  -T, --threads N          threads, 0 for all (default); the output does not depend on it\n"
    "  -q, -qq                  no warnings; no errors either\n"
    "  -v, --verbose            as --stats\n"
    "      --no-progress        no progress on the terminal\n"
    "  -V, --version   -h, --help\n"
    "\n"
    "Exit codes: 0 done; 2 usage; 3 malformed; 4 bytes differ from their digest; 5 an architecture, dtype or version that this\n"
    "build does not run; 7 the container lacks a file or tensor; 8 limit, context or memory; 9 I/O; 11 no GPU; 130, 143\n"
    "interrupted.\n";

enum {
    OPTION_PROMPT_IDS = CLLM_OPTION_OWN,
    OPTION_NO_SPECIAL,
    OPTION_IGNORE_EOS,
    OPTION_REPEAT_PENALTY,
    OPTION_TOP_K,
    OPTION_TOP_P,
    OPTION_MIN_P,
    OPTION_TEMP,
    OPTION_SEED,
    OPTION_PRINT_IDS,
    OPTION_DUMP_LOGITS,
    OPTION_STATS,
    OPTION_TOKENIZER,
    OPTION_TOKENIZE,
    OPTION_DETOKENIZE,
    OPTION_DEVICE,
    OPTION_VRAM,
    OPTION_RAM,
    OPTION_RESIDENCY,
    OPTION_CACHE_LAYERS,
    OPTION_RUNS,
    OPTION_PROMPT_TOKENS,
};

static const struct option long_options[] = {CLLM_COMMON_LONG,
                                             {"prompt", required_argument, NULL, 'p'},
                                             {"file", required_argument, NULL, 'f'},
                                             {"n-predict", required_argument, NULL, 'n'},
                                             {"context", required_argument, NULL, 'c'},
                                             {"prompt-ids", required_argument, NULL, OPTION_PROMPT_IDS},
                                             {"no-special", no_argument, NULL, OPTION_NO_SPECIAL},
                                             {"ignore-eos", no_argument, NULL, OPTION_IGNORE_EOS},
                                             {"repeat-penalty", required_argument, NULL, OPTION_REPEAT_PENALTY},
                                             {"top-k", required_argument, NULL, OPTION_TOP_K},
                                             {"top-p", required_argument, NULL, OPTION_TOP_P},
                                             {"min-p", required_argument, NULL, OPTION_MIN_P},
                                             {"temp", required_argument, NULL, OPTION_TEMP},
                                             {"seed", required_argument, NULL, OPTION_SEED},
                                             {"print-ids", no_argument, NULL, OPTION_PRINT_IDS},
                                             {"dump-logits", required_argument, NULL, OPTION_DUMP_LOGITS},
                                             {"stats", no_argument, NULL, OPTION_STATS},
                                             {"tokenizer", required_argument, NULL, OPTION_TOKENIZER},
                                             {"tokenize-jsonl", no_argument, NULL, OPTION_TOKENIZE},
                                             {"detokenize-jsonl", no_argument, NULL, OPTION_DETOKENIZE},
                                             {"device", required_argument, NULL, OPTION_DEVICE},
                                             {"vram", required_argument, NULL, OPTION_VRAM},
                                             {"ram", required_argument, NULL, OPTION_RAM},
                                             {"residency", required_argument, NULL, OPTION_RESIDENCY},
                                             {"cache-layers", required_argument, NULL, OPTION_CACHE_LAYERS},
                                             {"runs", required_argument, NULL, OPTION_RUNS},
                                             {"prompt-tokens", required_argument, NULL, OPTION_PROMPT_TOKENS},
                                             {0}};

static enum cllm_status parse_u32(const char *source, struct cllm_range range, uint32_t *value_out, struct cllm_error *err)
{
    uint64_t value = 0;
    enum cllm_status status = cllm_parse_number(source, optarg, range, &value, err);
    *value_out = (uint32_t)value;
    return status;
}

static enum cllm_status parse_sampler_option(int option, struct cllm_sampler_options *sampler, struct cllm_error *err)
{
    switch (option) {
    case OPTION_REPEAT_PENALTY: return cllm_parse_fraction("--repeat-penalty", optarg, &sampler->repeat_penalty, err);
    case OPTION_TOP_K: return parse_u32("--top-k", (struct cllm_range){0, UINT32_MAX}, &sampler->top_k, err);
    case OPTION_TOP_P: return cllm_parse_fraction("--top-p", optarg, &sampler->top_p, err);
    case OPTION_MIN_P: return cllm_parse_fraction("--min-p", optarg, &sampler->min_p, err);
    case OPTION_TEMP: return cllm_parse_fraction("--temp", optarg, &sampler->temperature, err);
    default: return cllm_parse_number("--seed", optarg, (struct cllm_range){0, UINT64_MAX}, &sampler->seed, err);
    }
}

static enum cllm_status parse_residency(struct crun_options *options, struct cllm_error *err)
{
    options->residency_given = true;
    for (int r = CLLM_RESIDENCY_AUTO; r <= CLLM_RESIDENCY_STREAM; r++) {
        options->residency = (enum cllm_residency)r;
        if (strcmp(optarg, cllm_residency_name(options->residency)) == 0) return CLLM_OK;
    }
    return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "--residency: found \"%s\", expected auto, raw, packed or stream",
                     cllm_shown(optarg));
}

static enum cllm_status parse_positive_size(const char *source, uint64_t *bytes_out, struct cllm_error *err)
{
    enum cllm_status status = cllm_parse_size(source, optarg, bytes_out, err);
    if (!status && *bytes_out == 0) return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "%s: found 0, expected a size", source);
    return status;
}

static enum cllm_status parse_vram(struct crun_options *options, struct cllm_error *err)
{
    if (options->vram_count == CRUN_VRAM_MAX)
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "--vram: found more than %d of them", CRUN_VRAM_MAX);
    return parse_positive_size("--vram", &options->vram_bytes[options->vram_count++], err);
}

static enum cllm_status parse_gpu_option(int option, struct crun_options *options, struct cllm_error *err)
{
    switch (option) {
    case OPTION_DEVICE: return cllm_parse_device(optarg, &options->device, &options->device_index, err);
    case OPTION_VRAM: return parse_vram(options, err);
    case OPTION_RAM: return parse_positive_size("--ram", &options->ram_bytes, err);
    case OPTION_RESIDENCY: return parse_residency(options, err);
    case OPTION_CACHE_LAYERS:
        return parse_u32("--cache-layers", (struct cllm_range){0, UINT32_MAX - 1}, &options->cache_layers, err);
    case OPTION_RUNS: return parse_u32("--runs", (struct cllm_range){1, 1000}, &options->run_count, err);
    default: return parse_u32("--prompt-tokens", (struct cllm_range){1, 1u << 20}, &options->prompt_count, err);
    }
}

static enum cllm_status parse_option(int option, char *const *argv, struct crun_options *options, struct cllm_error *err)
{
    switch (option) {
    case 'p': options->prompt = optarg; break;
    case 'f': options->prompt_file = optarg; break;
    case 'n': return cllm_parse_number("-n", optarg, (struct cllm_range){0, UINT32_MAX}, &options->token_limit, err);
    case 'c': return parse_u32("-c", (struct cllm_range){1, 1u << 28}, &options->context_size, err);
    case OPTION_PROMPT_IDS: options->prompt_ids = optarg; break;
    case OPTION_NO_SPECIAL: options->no_special = true; break;
    case OPTION_IGNORE_EOS: options->ignore_end = true; break;
    case OPTION_SEED: options->seed_given = true; return parse_sampler_option(option, &options->sampler, err);
    case OPTION_REPEAT_PENALTY:
    case OPTION_TOP_K:
    case OPTION_TOP_P:
    case OPTION_MIN_P:
    case OPTION_TEMP: return parse_sampler_option(option, &options->sampler, err);
    case OPTION_PRINT_IDS: options->print_ids = true; break;
    case OPTION_DUMP_LOGITS: options->dump_logits = optarg; break;
    case OPTION_STATS: options->stats = true; break;
    case OPTION_TOKENIZER: options->tokenizer = optarg; break;
    case OPTION_TOKENIZE: options->tokenize_jsonl = true; break;
    case OPTION_DETOKENIZE: options->detokenize_jsonl = true; break;
    case OPTION_DEVICE:
    case OPTION_VRAM:
    case OPTION_RAM:
    case OPTION_RESIDENCY:
    case OPTION_CACHE_LAYERS:
    case OPTION_RUNS:
    case OPTION_PROMPT_TOKENS: return parse_gpu_option(option, options, err);
    default: return cllm_common_option(option, argv, &options->common, err);
    }
    return CLLM_OK;
}

static enum cllm_status parse_options(int argc, char **argv, struct crun_options *options, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":p:f:n:c:" CLLM_COMMON_LETTERS, long_options, NULL)) != -1;) {
        if (status) {
            cllm_reporting_option(option, &options->common);
            continue;
        }
        status = parse_option(option, argv, options, err);
    }
    if (options->common.verbose_level) options->stats = true;
    return status;
}

/* The tokenizer from standard input to standard output. */
static int run_jsonl(const struct crun_options *options)
{
    struct cllm_error err;
    struct cllm_reader *reader = NULL;
    struct cllm_tokenizer *tokenizer = NULL;
    enum cllm_status status = CLLM_OK;
    if (!options->tokenizer) status = cllm_reader_open(options->model, &reader, &err);
    if (!status) status = crun_load_tokenizer(options, reader, &tokenizer, &err);
    if (!status && !tokenizer) {
        status = cllm_fail(&err, CLLM_E_ABSENT, CLLM_NO_OFFSET, "the container has no tokenizer.json; see --tokenizer");
    }
    if (!status && options->tokenize_jsonl) status = cllm_tokenize_jsonl(tokenizer, stdin, stdout, !options->no_special, &err);
    if (!status && options->detokenize_jsonl) status = cllm_detokenize_jsonl(tokenizer, stdin, stdout, options->no_special, &err);
    cllm_tokenizer_destroy(tokenizer);
    cllm_reader_close(reader);
    return status ? cllm_fatal_error(&err) : CLLM_EXIT_OK;
}

/* The same for bench, and for options of it alone. */
static const char *bench_contradiction(const struct crun_options *options)
{
    if (!options->bench) {
        if (options->vram_count > 1) return "--vram may be given once, except to bench";
        return options->run_count || options->prompt_count ? "--runs and --prompt-tokens are for bench" : NULL;
    }
    if (options->prompt || options->prompt_file || options->prompt_ids || options->dump_logits || options->print_ids)
        return "bench makes its own prompt, and no text";
    if (options->tokenize_jsonl || options->detokenize_jsonl || options->tokenizer) return "bench uses no tokenizer";
    if (options->token_limit == 0) return "bench must generate: -n is 0";
    return NULL;
}

/* Options that contradict each other; null where all is well. */
static const char *contradiction(const struct crun_options *options)
{
    const bool of_gpu =
        options->vram_count || options->ram_bytes || options->residency_given || options->cache_layers != CLLM_CACHE_LAYERS_AUTO;
    const bool all_stay = options->residency == CLLM_RESIDENCY_RAW || options->residency == CLLM_RESIDENCY_PACKED;
    if (options->tokenize_jsonl && options->detokenize_jsonl) return "--tokenize-jsonl and --detokenize-jsonl are opposites";
    if (!!options->prompt + !!options->prompt_file + !!options->prompt_ids > 1)
        return "-p, -f and --prompt-ids are three ways to give one prompt";
    if (all_stay && options->cache_layers != CLLM_CACHE_LAYERS_AUTO)
        return "--cache-layers is for --residency auto and stream: with raw and packed all layers stay";
    if (options->device == CLLM_DEVICE_CPU && of_gpu)
        return "--vram, --ram, --residency and --cache-layers are for a GPU, not for --device cpu";
    return bench_contradiction(options);
}

static int run(const struct crun_options *options, int operand_count)
{
    const bool only_tokenizer = options->tokenize_jsonl || options->detokenize_jsonl;
    const char *problem = contradiction(options);
    if (operand_count > 1) return cllm_fatal_usage("found %d models, expected one (quote a text with spaces)", operand_count);
    if (!options->model && !(only_tokenizer && options->tokenizer)) return cllm_fatal_usage("which model?");
    if (problem) return cllm_fatal_usage("%s", problem);
    if (options->bench) return crun_bench(options);
    return only_tokenizer ? run_jsonl(options) : crun_generate(options);
}

/* "bench MODEL" is a command; a lone "bench" is a model of that name. */
static void take_operands(struct crun_options *options, char *const *operands, int *count)
{
    options->bench = *count > 1 && strcmp(operands[0], "bench") == 0;
    *count -= options->bench;
    options->model = operands[options->bench];
    if (!options->bench) return;
    if (options->token_limit == CLLM_GENERATE_UNLIMITED) options->token_limit = BENCH_TOKENS;
    if (!options->run_count) options->run_count = BENCH_RUNS;
    if (!options->prompt_count) options->prompt_count = BENCH_PROMPT_TOKENS;
}

int main(int argc, char **argv)
{
    struct crun_options options = {
        .token_limit = CLLM_GENERATE_UNLIMITED,
        .cache_layers = CLLM_CACHE_LAYERS_AUTO,
        .sampler = {.temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1},
    };
    struct cllm_error err = {0};
    cllm_message_start(argv[0]);
    cllm_signals_catch();
    enum cllm_status status = parse_options(argc, argv, &options, &err);
    cllm_message_configure(options.common.quiet_level, options.common.json);
    int operand_count = argc - optind;
    take_operands(&options, argv + optind, &operand_count);
    if (status) return cllm_finish(cllm_fatal_usage("%s", err.message));
    if (options.common.help) cllm_print_help(help);
    else if (options.common.version) cllm_print_version(&options.common);
    else return cllm_finish(run(&options, operand_count));
    return cllm_finish(CLLM_EXIT_OK);
}

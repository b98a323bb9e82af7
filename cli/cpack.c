/* cpack.c - packs checkpoints into containers, restores, lists and tests them. */
#include "cpack.h"

#include "message.h"
#include "progress.h"
#include "report.h"
#include "verify.h"

#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Packs a safetensors checkpoint, without loss, into one .cllm container, and restores it byte for byte.\n"
    "\n"
    "  %p INPUT -o OUT.cllm                 pack; INPUT is a .safetensors file, a .safetensors.index.json or a directory\n"
    "  %p -d OUT.cllm -o DIRECTORY          restore every file into DIRECTORY\n"
    "  %p -d OUT.cllm --file NAME -o FILE   restore one file\n"
    "  %p -l OUT.cllm                       list tensors and files, without decoding\n"
    "  %p -t OUT.cllm                       test: decode everything, check every digest\n"
    "\n"
    "Examples\n"
    "  %p llama/ -o llama.cllm              all shards, configuration and tokenizer of a checkpoint\n"
    "  %p model.safetensors -o model.cllm   one file, and the standard files beside it\n"
    "  %p model.safetensors -o - | ssh host 'cat >model.cllm'\n"
    "  %p -d llama.cllm -o llama.restored && diff -r llama llama.restored\n"
    "  %p -d llama.cllm --file config.json -o - | less\n"
    "\n"
    "Options\n"
    "  -o, --output FILE    where to write; '-' is standard output (never a terminal)\n"
    "  -d, --decode, -x     restore (also --decompress)\n"
    "      --file NAME      with -d: only this file\n"
    "  -l, --list           list; with -v digests and offsets, with -vv every chunk\n"
    "  -t, --test           test\n"
    "      --device D       with -d, -t: auto, cpu, cuda or cuda:N: what decodes; auto takes a GPU for a gigabyte or more\n"
    "      --only-weights   leave out what is not weights\n"
    "      --opaque         pack INPUT as plain bytes, whatever it is\n"
    "  -f, --force          replace an existing output; relaxes no check\n"
    "  -k, --keep           keep the input (default)\n"
    "      --rm             remove the packed weights (with -d: the container) once the output is safe on disk\n"
    "  -T, --threads N      threads, 0 for all (default; or CPACK_THREADS); the output does not depend on it\n"
    "  -q, -qq              no warnings, progress and summary; no errors either. Exit codes stay the same\n"
    "  -v, --verbose        say more\n"
    "      --no-progress    no progress on the terminal\n"
    "      --json           results as JSON\n"
    "  -V, --version   -h, --help\n"
    "\n"
    "Exit codes: 0 done; 2 usage; 3 malformed input; 4 bytes differ from their checksum; 5 unsupported; 7 something is\n"
    "missing; 8 limit or memory; 9 I/O; 10 output exists; 11 no GPU; 12 self-check failed; 130, 143 interrupted. See cpack(1).\n";

enum { OPTION_FILE = CLLM_OPTION_OWN, OPTION_ONLY_WEIGHTS, OPTION_OPAQUE, OPTION_RM, OPTION_DEVICE };

static const char letters[] = ":" CLLM_COMMON_LETTERS "o:dxltfk";
static const struct option long_options[] = {CLLM_COMMON_LONG,
                                             {"output", required_argument, NULL, 'o'},
                                             {"decode", no_argument, NULL, 'd'},
                                             {"decompress", no_argument, NULL, 'd'},
                                             {"list", no_argument, NULL, 'l'},
                                             {"test", no_argument, NULL, 't'},
                                             {"force", no_argument, NULL, 'f'},
                                             {"keep", no_argument, NULL, 'k'},
                                             {"file", required_argument, NULL, OPTION_FILE},
                                             {"only-weights", no_argument, NULL, OPTION_ONLY_WEIGHTS},
                                             {"opaque", no_argument, NULL, OPTION_OPAQUE},
                                             {"rm", no_argument, NULL, OPTION_RM},
                                             {"device", required_argument, NULL, OPTION_DEVICE},
                                             {0}};

/* The mode is the letter that asked for it, 0 for packing. */
static enum cllm_status parse_options(int argc, char **argv, struct cpack_options *options, char *mode_out,
                                      struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, letters, long_options, NULL)) != -1;) {
        if (status) {
            cllm_reporting_option(option, &options->common);
            continue;
        }
        char mode = option == 'x' ? 'd' : (char)option;
        switch (option) {
        case 'd':
        case 'x':
        case 'l':
        case 't':
            if (*mode_out && *mode_out != mode) {
                status = cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "-%c and -%c exclude each other", *mode_out, mode);
            }
            *mode_out = mode;
            break;
        case 'o': options->output = optarg; break;
        case 'f': options->force = true; break;
        case 'k': options->remove_source = false; break;
        case OPTION_RM: options->remove_source = true; break;
        case OPTION_DEVICE:
            options->device_given = true;
            status = cllm_parse_device(optarg, &options->device.device, &options->device.index, err);
            break;
        case OPTION_FILE: options->file_name = optarg; break;
        case OPTION_ONLY_WEIGHTS: options->only_weights = true; break;
        case OPTION_OPAQUE: options->opaque = true; break;
        default: status = cllm_common_option(option, argv, &options->common, err);
        }
    }
    return status;
}

static int test(const struct cpack_options *options, const char *const *operands, int operand_count)
{
    struct cllm_verify_request request = {.common = options->common};
    struct cllm_error err = {0};
    if (cllm_engine_open(&options->device, operands, operand_count, &request.engine, &err)) return cllm_fatal_error(&err);
    int code = cllm_verify_containers(&request, operands, operand_count);
    cllm_engine_close(request.engine);
    return code;
}

static int run(const struct cpack_options *options, char mode, const char *const *operands, int operand_count)
{
    if (operand_count == 0) return cllm_fatal_usage(mode ? "which container?" : "which checkpoint?");
    if (options->device_given && mode != 'd' && mode != 't') return cllm_fatal_usage("--device is for -d and -t");
    if (mode == 'l' || mode == 't') {
        if (options->output) return cllm_fatal_usage("-%c writes no file; -o does not go with it", mode);
        if (mode == 'l') return cpack_list(options, operands, operand_count);
        return test(options, operands, operand_count);
    }
    if (operand_count > 1) return cllm_fatal_usage("found %d inputs, expected one", operand_count);
    return mode == 'd' ? cpack_restore(options, operands[0]) : cpack_pack(options, operands[0]);
}

/* What CPACK_THREADS says counts where -T is not given, and does not matter to whoever asks for help. */
static enum cllm_status read_environment(struct cllm_common_options *common, struct cllm_error *err)
{
    const char *threads = getenv("CPACK_THREADS");
    if (!threads || !*threads || common->threads_given || common->help || common->version) return CLLM_OK;
    return cllm_parse_threads("CPACK_THREADS", threads, &common->thread_count, err);
}

int main(int argc, char **argv)
{
    struct cpack_options options = {0};
    struct cllm_error err = {0};
    char mode = 0;
    cllm_message_start(argv[0]);
    cllm_signals_catch();
    enum cllm_status status = parse_options(argc, argv, &options, &mode, &err);
    if (!status) status = read_environment(&options.common, &err);
    cllm_message_configure(options.common.quiet_level, options.common.json);
    if (status) return cllm_finish(cllm_fatal_usage("%s", err.message));
    if (options.common.help) cllm_print_help(help);
    else if (options.common.version) cllm_print_version(&options.common);
    else return cllm_finish(run(&options, mode, (const char *const *)(argv + optind), argc - optind));
    return cllm_finish(CLLM_EXIT_OK);
}

/* cverify.c - proves that containers hold what they say, or what was packed. */
#include "device.h"
#include "message.h"
#include "options.h"
#include "progress.h"
#include "report.h"
#include "verify.h"

static const char help[] =
    "Verifies .cllm containers: decodes everything and checks every checksum and digest.\n"
    "\n"
    "  %p FILE...                       one 'FILE: OK' or 'FILE: FAILED' line each, reasons on standard error\n"
    "  %p --quick FILE...               structure and checksums of the stored bytes only; nothing is decoded\n"
    "  %p FILE --against PATH           and compare with the original file, directory, or list of SHA-256\n"
    "\n"
    "Examples\n"
    "  %p llama.cllm --against llama/   are these the files that I downloaded?\n"
    "  %p llama.cllm --against SHA256SUMS\n"
    "  %p --tag llama.cllm | (cd llama && sha256sum -c)\n"
    "  %p --status *.cllm || echo damaged\n"
    "\n"
    "Options\n"
    "      --quick          as above\n"
    "      --against PATH   what PATH is, is decided by its content\n"
    "      --tag            print 'SHA256 (NAME) = HEX' for every file that can be restored\n"
    "      --device D       auto, cpu, cuda or cuda:N: what decodes; auto takes a GPU for a gigabyte or more\n"
    "      --status         print nothing; only the exit code tells\n"
    "  -T, --threads N      threads, 0 for all (default)\n"
    "  -q, -qq              only failures; nothing\n"
    "  -v, --verbose        the root digest of every container\n"
    "      --no-progress    no progress on the terminal\n"
    "      --json           one JSON document\n"
    "  -V, --version   -h, --help\n"
    "\n"
    "OK means that the bytes are those that the container's own digests name. Who made it is not checked: compare the root\n"
    "digest, or use --against with a list that you trust.\n"
    "\n"
    "Exit codes: 0 all verified; 2 usage; 3 malformed; 4 bytes differ from their digest; 5 unsupported; 7 something to\n"
    "compare with is missing; 8 limit or memory; 9 I/O; 11 no GPU; 130, 143 interrupted. Of several, the most severe.\n";

enum { OPTION_QUICK = CLLM_OPTION_OWN, OPTION_AGAINST, OPTION_TAG, OPTION_STATUS, OPTION_DEVICE };

static const struct option long_options[] = {CLLM_COMMON_LONG,
                                             {"quick", no_argument, NULL, OPTION_QUICK},
                                             {"against", required_argument, NULL, OPTION_AGAINST},
                                             {"tag", no_argument, NULL, OPTION_TAG},
                                             {"status", no_argument, NULL, OPTION_STATUS},
                                             {"device", required_argument, NULL, OPTION_DEVICE},
                                             {0}};

static enum cllm_status parse_options(int argc, char **argv, struct cllm_verify_request *request,
                                      struct cllm_engine_choice *choice_out, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":" CLLM_COMMON_LETTERS, long_options, NULL)) != -1;) {
        if (status) {
            cllm_reporting_option(option, &request->common);
            continue;
        }
        switch (option) {
        case OPTION_QUICK: request->quick = true; break;
        case OPTION_AGAINST: request->against = optarg; break;
        case OPTION_TAG: request->tag = true; break;
        case OPTION_STATUS: request->status = true; break;
        case OPTION_DEVICE: status = cllm_parse_device(optarg, &choice_out->device, &choice_out->index, err); break;
        default: status = cllm_common_option(option, argv, &request->common, err);
        }
    }
    return status;
}

static int run_on(const struct cllm_engine_choice *choice, struct cllm_verify_request *request, const char *const *operands,
                  int operand_count)
{
    struct cllm_error err = {0};
    struct cllm_engine_choice used = *choice;
    if (choice->device == CLLM_DEVICE_CUDA && request->tag)
        return cllm_fatal_usage("--tag prints the SHA-256 of files, which --device cuda does not recompute");
    if (choice->device == CLLM_DEVICE_AUTO && (request->quick || request->tag)) used.device = CLLM_DEVICE_CPU;
    if (cllm_engine_open(&used, operands, operand_count, &request->engine, &err)) return cllm_fatal_error(&err);
    int code = cllm_verify_containers(request, operands, operand_count);
    cllm_engine_close(request->engine);
    return code;
}

static int run(const struct cllm_engine_choice *choice, struct cllm_verify_request *request, const char *const *operands,
               int operand_count)
{
    if (operand_count == 0) return cllm_fatal_usage("which container?");
    if (request->against && operand_count > 1) {
        return cllm_fatal_usage("--against: found %d containers, expected one", operand_count);
    }
    if (request->tag && request->quick) return cllm_fatal_usage("--tag prints what was proven, and --quick proves no file");
    return run_on(choice, request, operands, operand_count);
}

int main(int argc, char **argv)
{
    struct cllm_verify_request request = {0};
    struct cllm_error err = {0};
    struct cllm_engine_choice choice = {CLLM_DEVICE_AUTO, 0};
    cllm_message_start(argv[0]);
    cllm_signals_catch();
    enum cllm_status status = parse_options(argc, argv, &request, &choice, &err);
    cllm_message_configure(request.status ? 2 : request.common.quiet_level, request.common.json);
    if (status) return cllm_finish(cllm_fatal_usage("%s", err.message));
    if (request.common.help) cllm_print_help(help);
    else if (request.common.version) cllm_print_version(&request.common);
    else return cllm_finish(run(&choice, &request, (const char *const *)(argv + optind), argc - optind));
    return cllm_finish(CLLM_EXIT_OK);
}

/* options.c - shared parsing of command lines. */
#include "options.h"

#include "bytes.h"
#include "message.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREAD_COUNT_MAX 4096
#define FRACTION_DIGITS_MAX 6 /* of a size: below a million, times 2^40 for TiB, fits 64 bits */

static enum cllm_status fail_value(struct cllm_error *err, const char *source, const char *text, const char *expected)
{
    return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "%s: found \"%s\", expected %s", source, cllm_shown(text), expected);
}

/* Decimal digits at the start of `text`; `*rest_out` points behind them. False where there are none or too many. */
static bool parse_digits(const char *text, uint64_t *value_out, const char **rest_out)
{
    uint64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (!cllm_mul(value, 10, &value) || !cllm_add(value, (uint64_t)(*p - '0'), &value)) return false;
    }
    *value_out = value;
    *rest_out = p;
    return p != text;
}

enum cllm_status cllm_parse_number(const char *source, const char *text, struct cllm_range range, uint64_t *value_out,
                                   struct cllm_error *err)
{
    const char *rest;
    uint64_t value;
    if (!parse_digits(text, &value, &rest) || *rest || value < range.min || value > range.max) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "%s: found \"%s\", expected a number from %llu to %llu", source,
                         cllm_shown(text), (unsigned long long)range.min, (unsigned long long)range.max);
    }
    *value_out = value;
    return CLLM_OK;
}

enum cllm_status cllm_parse_threads(const char *source, const char *text, unsigned *count_out, struct cllm_error *err)
{
    uint64_t count = 0;
    enum cllm_status status = cllm_parse_number(source, text, (struct cllm_range){0, THREAD_COUNT_MAX}, &count, err);
    if (!status) *count_out = (unsigned)count;
    return status;
}

/* "." and a few digits, as a part of `factor`, rounded down; or nothing. */
static bool parse_part(const char *text, uint64_t factor, uint64_t *part_out, const char **rest_out)
{
    uint64_t digits, scale = 1;
    *part_out = 0;
    *rest_out = text;
    if (*text != '.') return true;
    if (factor == 1 || !parse_digits(text + 1, &digits, rest_out) || *rest_out - text > 1 + FRACTION_DIGITS_MAX) return false;
    for (const char *digit = text + 1; digit < *rest_out; digit++) scale *= 10;
    *part_out = factor * digits / scale;
    return true;
}

enum cllm_status cllm_parse_size(const char *source, const char *text, uint64_t *bytes_out, struct cllm_error *err)
{
    static const struct {
        const char *suffix;
        uint64_t factor;
    } units[] = {
        {"", 1},
        {"K", UINT64_C(1) << 10},
        {"M", UINT64_C(1) << 20},
        {"G", UINT64_C(1) << 30},
        {"T", UINT64_C(1) << 40},
        {"KiB", UINT64_C(1) << 10},
        {"MiB", UINT64_C(1) << 20},
        {"GiB", UINT64_C(1) << 30},
        {"TiB", UINT64_C(1) << 40},
        {"kB", 1000},
        {"MB", 1000000},
        {"GB", 1000000000},
        {"TB", UINT64_C(1000000000000)},
    };
    uint64_t whole, part, bytes;
    const char *point, *rest;
    const bool has_digits = parse_digits(text, &whole, &point);
    for (size_t i = 0; has_digits && i < sizeof units / sizeof *units; i++) {
        const uint64_t factor = units[i].factor;
        if (!parse_part(point, factor, &part, &rest) || strcmp(rest, units[i].suffix) != 0) continue;
        if (!cllm_mul(whole, factor, &bytes) || !cllm_add(bytes, part, &bytes)) break;
        *bytes_out = bytes;
        return CLLM_OK;
    }
    return fail_value(err, source, text, "a size such as 1500000, 512MiB or 1.5GB");
}

enum cllm_status cllm_parse_fraction(const char *source, const char *text, double *value_out, struct cllm_error *err)
{
    /* no program calls setlocale, so strtod reads '.' as the decimal point */
    char *rest;
    double value = strtod(text, &rest);
    bool plain = text[strspn(text, "0123456789.eE+-")] == 0 && *text != '+'; /* no blank, hexadecimal or name */
    if (!plain || rest == text || *rest || !isfinite(value) || value < 0)
        return fail_value(err, source, text, "a number such as 0.8");
    *value_out = value;
    return CLLM_OK;
}

enum cllm_status cllm_parse_device(const char *text, enum cllm_device *device_out, unsigned *index_out, struct cllm_error *err)
{
    static const char *const names[] = {[CLLM_DEVICE_AUTO] = "auto", [CLLM_DEVICE_CPU] = "cpu", [CLLM_DEVICE_CUDA] = "cuda"};
    *index_out = 0;
    if (strncmp(text, "cuda:", 5) == 0 && text[5] >= '0' && text[5] <= '9' && strlen(text) <= 8) {
        char *end = NULL;
        *index_out = (unsigned)strtoul(text + 5, &end, 10);
        *device_out = CLLM_DEVICE_CUDA;
        if (*end == 0) return CLLM_OK;
    }
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            *device_out = (enum cllm_device)i;
            return CLLM_OK;
        }
    }
    return fail_value(err, "--device", text, "auto, cpu, cuda or cuda:N");
}

/* What getopt refused, as the user wrote it: a long option stands whole in argv, of a cluster only the letter is wrong. */
static enum cllm_status fail_option(int option, char *const *argv, struct cllm_error *err)
{
    const char *word = argv[optind - 1];
    char letter[3] = {'-', (char)optopt, 0};
    bool is_letter = optopt > 0 && optopt < 256 && strncmp(word, "--", 2) != 0;
    const char *shown = is_letter ? letter : word;
    const char *problem = option == ':' ? "needs a value"
                          : is_letter   ? "is not an option"
                          : optopt != 0 ? "takes no value"
                                        : "is not an option, or short for several";
    return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "%s %s", cllm_shown(shown), problem);
}

enum cllm_status cllm_common_option(int option, char *const *argv, struct cllm_common_options *common, struct cllm_error *err)
{
    switch (option) {
    case 'T': common->threads_given = true; return cllm_parse_threads("-T", optarg, &common->thread_count, err);
    case 'q': common->quiet_level++; return CLLM_OK;
    case 'v': common->verbose_level++; return CLLM_OK;
    case 'V': common->version = true; return CLLM_OK;
    case 'h': common->help = true; return CLLM_OK;
    case CLLM_OPTION_JSON: common->json = true; return CLLM_OK;
    case CLLM_OPTION_NO_PROGRESS: common->no_progress = true; return CLLM_OK;
    default: return fail_option(option, argv, err);
    }
}

void cllm_reporting_option(int option, struct cllm_common_options *common)
{
    if (option == 'q') common->quiet_level++;
    if (option == CLLM_OPTION_JSON) common->json = true;
}

void cllm_print_help(const char *help)
{
    for (const char *p = help; *p; p++) {
        if (p[0] == '%' && p[1] == 'p') {
            fputs(cllm_message_program(), stdout);
            p++;
        } else {
            putchar(*p);
        }
    }
}

void cllm_print_version(const struct cllm_common_options *common)
{
    if (common->quiet_level) puts(CLLM_VERSION);
    else printf("%s (cllm) %s\n", cllm_message_program(), CLLM_VERSION);
}

/* options.h - what the command lines of the three programs have in common. */
#ifndef CLLM_OPTIONS_H
#define CLLM_OPTIONS_H

#include "cllm.h"

#include <getopt.h>

/* Options that every program takes. */
struct cllm_common_options {
    unsigned thread_count;  /* -T; 0: as many as the process may use */
    unsigned quiet_level;   /* -q, -qq */
    unsigned verbose_level; /* -v, -vv */
    bool threads_given;     /* -T was */
    bool json;
    bool no_progress;
    bool help;
    bool version;
};

/* Values of long options without a letter; a program's own begin at CLLM_OPTION_OWN. */
enum { CLLM_OPTION_JSON = 256, CLLM_OPTION_NO_PROGRESS, CLLM_OPTION_OWN };

/* To be put into a program's getopt string (after a leading ':') and table of long options. */
#define CLLM_COMMON_LETTERS "T:qvVh"
#define CLLM_COMMON_LONG                                                                                                         \
    {"threads", required_argument, NULL, 'T'}, {"quiet", no_argument, NULL, 'q'}, {"verbose", no_argument, NULL, 'v'},           \
        {"version", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'}, {"json", no_argument, NULL, CLLM_OPTION_JSON},    \
    {                                                                                                                            \
        "no-progress", no_argument, NULL, CLLM_OPTION_NO_PROGRESS                                                                \
    }

/* Takes what getopt_long returned where the program does not know it itself: a common option, or '?' and ':' for a wrong one.
 * `argv` is main's. Fails with USAGE. */
enum cllm_status cllm_common_option(int option, char *const *argv, struct cllm_common_options *common,
                                    struct cllm_error *err) CLLM_MUST_USE;

/* Takes what getopt_long returns after a wrong option: only how that is reported still counts (-q, --json). */
void cllm_reporting_option(int option, struct cllm_common_options *common);

/* A number of threads, 0 to 4096; `source` says where it stood ("-T", "CPACK_THREADS"). Fails with USAGE. */
enum cllm_status cllm_parse_threads(const char *source, const char *text, unsigned *count_out,
                                    struct cllm_error *err) CLLM_MUST_USE;

/* An unsigned decimal number from `min` to `max`. Fails with USAGE. */
struct cllm_range {
    uint64_t min;
    uint64_t max;
};
enum cllm_status cllm_parse_number(const char *source, const char *text, struct cllm_range range, uint64_t *value_out,
                                   struct cllm_error *err) CLLM_MUST_USE;

/* A size in bytes: a decimal number, and nothing or K, M, G, T, KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (powers
 * of 1000), before which up to six digits may follow a point; parts of a byte are left out. Fails with USAGE. */
enum cllm_status cllm_parse_size(const char *source, const char *text, uint64_t *bytes_out, struct cllm_error *err) CLLM_MUST_USE;

/* A decimal fraction, not below zero, not infinite; '.' whatever the locale. Fails with USAGE. */
enum cllm_status cllm_parse_fraction(const char *source, const char *text, double *value_out,
                                     struct cllm_error *err) CLLM_MUST_USE;

/* What to run on, from --device auto|cpu|cuda|cuda:N; N goes to *index_out, 0 where there is none. */
enum cllm_device { CLLM_DEVICE_AUTO, CLLM_DEVICE_CPU, CLLM_DEVICE_CUDA };
enum cllm_status cllm_parse_device(const char *text, enum cllm_device *device_out, unsigned *index_out,
                                   struct cllm_error *err) CLLM_MUST_USE;

/* Prints `help` to standard output, each "%p" being the name of the program. */
void cllm_print_help(const char *help);

/* "cpack (cllm) 0.1.0"; with -q only the number. */
void cllm_print_version(const struct cllm_common_options *common);

#endif

/* message.c - the only writer to standard error. No colour is ever used, so NO_COLOR holds without being asked. */
#include "message.h"

#include "progress.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *program;
    unsigned quiet_level;
    bool json;
    int progress_columns; /* width of the progress line that stands on the terminal; 0 where there is none */
} console = {.program = "cllm"};

/* ------------------------------------------------------------------------------------------------------ exit codes */

static const struct {
    int code;
    const char *id;
} exit_table[] = {
    /* from the most to the least severe */
    {CLLM_EXIT_SELF_CHECK, "self_check"},
    {CLLM_EXIT_SIGNATURE, "signature"},
    {CLLM_EXIT_INTEGRITY, "integrity"},
    {CLLM_EXIT_ABSENT, "absent"},
    {CLLM_EXIT_MALFORMED, "malformed"},
    {CLLM_EXIT_UNSUPPORTED, "unsupported"},
    {CLLM_EXIT_IO, "io"},
    {CLLM_EXIT_LIMIT, "limit"},
    {CLLM_EXIT_DEVICE, "device"},
    {CLLM_EXIT_EXISTS, "exists"},
    {CLLM_EXIT_USAGE, "usage"},
    {CLLM_EXIT_FAILURE, "failure"},
    {CLLM_EXIT_OK, "ok"},
};
enum { EXIT_TABLE_COUNT = sizeof exit_table / sizeof *exit_table };

int cllm_exit_code(enum cllm_status status)
{
    switch (status) {
    case CLLM_OK: return CLLM_EXIT_OK;
    case CLLM_E_USAGE: return CLLM_EXIT_USAGE;
    case CLLM_E_FORMAT:
    case CLLM_E_CORRUPT: return CLLM_EXIT_MALFORMED;
    case CLLM_E_DIGEST: return CLLM_EXIT_INTEGRITY;
    case CLLM_E_UNSUPPORTED: return CLLM_EXIT_UNSUPPORTED;
    case CLLM_E_SIGNATURE: return CLLM_EXIT_SIGNATURE;
    case CLLM_E_ABSENT: return CLLM_EXIT_ABSENT;
    case CLLM_E_NOMEM:
    case CLLM_E_LIMIT: return CLLM_EXIT_LIMIT;
    case CLLM_E_IO: return CLLM_EXIT_IO;
    case CLLM_E_EXISTS: return CLLM_EXIT_EXISTS;
    case CLLM_E_DEVICE: return CLLM_EXIT_DEVICE;
    case CLLM_E_INTERNAL: return CLLM_EXIT_SELF_CHECK;
    case CLLM_E_INTERRUPTED: return CLLM_EXIT_SIGNALLED + (cllm_signal_caught() ? cllm_signal_caught() : SIGINT);
    }
    return CLLM_EXIT_FAILURE;
}

/* 0 is the most severe. */
static int exit_rank(int exit_code)
{
    for (int i = 0; i < EXIT_TABLE_COUNT; i++) {
        if (exit_table[i].code == exit_code) return i + 1;
    }
    return 0; /* a signal */
}

const char *cllm_exit_id(int exit_code)
{
    int rank = exit_rank(exit_code);
    return rank ? exit_table[rank - 1].id : "interrupted";
}

int cllm_exit_worse(int left, int right)
{
    return exit_rank(left) <= exit_rank(right) ? left : right;
}

/* --------------------------------------------------------------------------------------------------------- console */

/* A closed descriptor is filled with one that fails when it is used: reading from 0, writing to 1 or 2. */
static void take_descriptor(int fd)
{
    if (fcntl(fd, F_GETFD) >= 0) return;
    if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) exit(CLLM_EXIT_IO);
}

void cllm_message_start(const char *argv0)
{
    for (int fd = 0; fd <= 2; fd++) {
        take_descriptor(fd);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (argv0 && *argv0) {
        const char *slash = strrchr(argv0, '/');
        console.program = slash && slash[1] ? slash + 1 : argv0;
    }
}

void cllm_message_configure(unsigned quiet_level, bool json)
{
    console.quiet_level = quiet_level;
    console.json = json;
}

const char *cllm_message_program(void)
{
    return console.program;
}

void cllm_message_progress(const char *line)
{
    int before = console.progress_columns;
    if (!line && before == 0) return;
    int now = fprintf(stderr, "\r%s", line ? line : "") - 1;
    fprintf(stderr, "%*s", before > now ? before - now : 0, "");
    if (!line) fputc('\r', stderr);
    fflush(stderr);
    console.progress_columns = line ? now : 0;
}

void cllm_message_progress_line(const char *line)
{
    cllm_message_progress(NULL);
    fprintf(stderr, "%s: %s\n", console.program, line);
}

/* One call of write for each line, so that lines of processes that share a terminal do not mix. */
static void print_line(const char *kind, const char *message)
{
    char line[1024];
    cllm_message_progress(NULL);
    snprintf(line, sizeof line - 1, "%s: %s%s", console.program, kind, message);
    strcat(line, "\n");
    fputs(line, stderr);
}

/* {"message_type":TYPE, "code":..., "id":..., "message":...}; a code below 0 is left out. */
static void print_json_line(const char *type, int exit_code, const char *message)
{
    char shown[1024];
    json_t *document = json_object();
    json_t *text = json_string(message);
    if (!text) text = json_string(cllm_escape(message, strlen(message), shown, sizeof shown)); /* not UTF-8 */
    json_object_set_new(document, "message_type", json_string(type));
    if (exit_code >= 0) {
        json_object_set_new(document, "code", json_integer(exit_code));
        json_object_set_new(document, "id", json_string(cllm_exit_id(exit_code)));
    }
    json_object_set_new(document, "message", text);
    char *line = json_dumps(document, JSON_COMPACT);
    cllm_message_progress(NULL);
    fprintf(stderr, "%s\n", line ? line : "{\"message_type\":\"exit_error\",\"code\":8,\"id\":\"limit\"}");
    free(line);
    json_decref(document);
}

static void report_fatal(int exit_code, const char *message)
{
    if (console.quiet_level >= 2) return;
    if (console.json) print_json_line("exit_error", exit_code, message);
    else print_line("", message);
}

#define FORMAT_MESSAGE(buffer, format)                                                                                           \
    do {                                                                                                                         \
        va_list arguments;                                                                                                       \
        va_start(arguments, format);                                                                                             \
        vsnprintf(buffer, sizeof buffer, format, arguments);                                                                     \
        va_end(arguments);                                                                                                       \
    } while (0)

void cllm_warn(const char *format, ...)
{
    char message[900];
    FORMAT_MESSAGE(message, format);
    if (console.quiet_level > 0) return;
    if (console.json) print_json_line("warning", -1, message);
    else print_line("warning: ", message);
}

void cllm_complain(const char *format, ...)
{
    char message[900];
    FORMAT_MESSAGE(message, format);
    if (console.quiet_level > 1) return;
    if (console.json) print_json_line("error", -1, message);
    else print_line("", message);
}

int cllm_fatal(enum cllm_status status, const char *format, ...)
{
    char message[900];
    FORMAT_MESSAGE(message, format);
    report_fatal(cllm_exit_code(status), message);
    return cllm_exit_code(status);
}

int cllm_fatal_error(const struct cllm_error *err)
{
    /* whoever waited for input or output when the signal came says that this failed */
    if (err->status == CLLM_E_IO && cllm_signal_caught()) return cllm_fatal(CLLM_E_INTERRUPTED, "interrupted");
    return cllm_fatal(err->status, "%s", err->message);
}

int cllm_fatal_usage(const char *format, ...)
{
    char message[900];
    FORMAT_MESSAGE(message, format);
    return cllm_fatal(CLLM_E_USAGE, "%s (try '%s --help')", message, console.program);
}

const char *cllm_shown(const char *path)
{
    static char buffers[4][400];
    static unsigned next;
    char *buffer = buffers[next++ % 4];
    return cllm_escape(path, strlen(path), buffer, sizeof buffers[0]);
}

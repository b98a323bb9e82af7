/* message.h - the only writer to standard error, and the table of exit codes that the three programs share.
 *
 * One process, one console: what is kept here (program name, how quiet, JSON or not, the progress line) is the state of
 * standard error, which is global already. To be used from the main thread only. */
#ifndef CLLM_MESSAGE_H
#define CLLM_MESSAGE_H

#include "cllm.h"

/* Stable; published in the man pages. */
enum cllm_exit {
    CLLM_EXIT_OK = 0,
    CLLM_EXIT_FAILURE = 1,
    CLLM_EXIT_USAGE = 2,
    CLLM_EXIT_MALFORMED = 3,
    CLLM_EXIT_INTEGRITY = 4,
    CLLM_EXIT_UNSUPPORTED = 5,
    CLLM_EXIT_SIGNATURE = 6,
    CLLM_EXIT_ABSENT = 7,
    CLLM_EXIT_LIMIT = 8,
    CLLM_EXIT_IO = 9,
    CLLM_EXIT_EXISTS = 10,
    CLLM_EXIT_DEVICE = 11,
    CLLM_EXIT_SELF_CHECK = 12,
    CLLM_EXIT_SIGNALLED = 128, /* plus the number of the signal: 130 for SIGINT, 143 for SIGTERM */
};

/* The exit code of a status. INTERRUPTED gives 128 + the signal that was caught (SIGINT where none was). */
int cllm_exit_code(enum cllm_status status);

/* The stable string id of an exit code, as --json prints it: "ok", "usage", "malformed", "integrity", ... */
const char *cllm_exit_id(int exit_code);

/* The more severe of two exit codes. From the worst: signals, 12, 6, 4, 7, 3, 5, 9, 8, 11, 10, 2, 1, 0. */
int cllm_exit_worse(int left, int right);

/* To be called first in main: remembers the name of the program for the prefix of every message, makes sure that the
 * descriptors 0 to 2 are taken (a file opened later must not become standard output), and turns SIGPIPE and SIGXFSZ into
 * errors of write. */
void cllm_message_start(const char *argv0);

/* Level 1 hides warnings, 2 errors too. With `json` every line is a JSON object with a "message_type": "warning", "error" or
 * "exit_error". */
void cllm_message_configure(unsigned quiet_level, bool json);

/* The name of the program, without folders. */
const char *cllm_message_program(void);

/* One line, prefixed with the name of the program; hidden by -q. */
void cllm_warn(const char *format, ...) CLLM_PRINTF(1, 2);

/* One line with the reason of a failure that is reported elsewhere (a FAILED line); hidden by -qq. */
void cllm_complain(const char *format, ...) CLLM_PRINTF(1, 2);

/* Reports a failure that ends the program; hidden by -qq. With --json
 * {"message_type":"exit_error","code":N,"id":"...","message":"..."}. Returns the exit code. */
int cllm_fatal(enum cllm_status status, const char *format, ...) CLLM_PRINTF(2, 3);
int cllm_fatal_error(const struct cllm_error *err);

/* A usage error: the message, and a hint to --help. Returns CLLM_EXIT_USAGE. */
int cllm_fatal_usage(const char *format, ...) CLLM_PRINTF(1, 2);

/* Replaces the line that stands on the terminal for progress; null removes it. Every message removes it first. */
void cllm_message_progress(const char *line);

/* A line of progress that stays (asked for by SIGUSR1). */
void cllm_message_progress_line(const char *line);

/* A copy of a path or name that can be shown: control characters escaped. For one use in one message: there are four
 * buffers, used in turn. Main thread only. */
const char *cllm_shown(const char *path);

#endif

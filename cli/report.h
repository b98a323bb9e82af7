/* report.h - what the programs write to standard output: checked, printable, and the same facts as JSON. Main thread only. */
#ifndef CLLM_REPORT_H
#define CLLM_REPORT_H

#include "cllm.h"

#include <jansson.h>

/* A number of bytes for people, in powers of 1000: "16.06 GB". Returns `out`. */
const char *cllm_size_text(uint64_t byte_count, char out[32]);

/* Writes to standard output a name as sha256sum does: where it holds a backslash, line feed or carriage return these are
 * escaped and the line begins with a backslash. The name ends the line's field, so `before` and `after` are given too. */
void cllm_print_name_line(const char *before, const char *name, const char *after);

/* Sets object[key] to the name; where it is not UTF-8, to an escaped form, and object[key_b64] to its bytes in base64. */
void cllm_json_set_name(json_t *object, const char *key, const char *name, size_t name_bytes);

/* A string with "sha256:" and the digest. */
json_t *cllm_json_digest(const uint8_t digest[CLLM_DIGEST_BYTES]);

/* Writes the document as one line to standard output and drops the reference. Accepts null (out of memory). Fails with NOMEM,
 * IO, INTERRUPTED. */
enum cllm_status cllm_json_print(json_t *document, struct cllm_error *err) CLLM_MUST_USE;

/* Whether both paths lead to one file; false where one does not exist. */
bool cllm_is_same_file(const char *left, const char *right);

/* Writes bytes to standard output, past stdio, whole. Fails with IO, and INTERRUPTED. */
enum cllm_status cllm_stdout_write(const void *bytes, size_t byte_count, struct cllm_error *err) CLLM_MUST_USE;

/* The end of main: flushes standard output; a failure there (full disk, closed pipe) turns success into exit code 9. After a
 * signal asked to stop, the process ends by that signal, as its parent expects. Otherwise returns the exit code. */
int cllm_finish(int exit_code);

#endif

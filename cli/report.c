/* report.c - standard output. */
#include "report.h"

#include "digest.h"
#include "message.h"
#include "progress.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *cllm_size_text(uint64_t byte_count, char out[32])
{
    static const char *const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)byte_count;
    int unit = -1;
    while (value >= 999.995 && unit < 5) {
        value /= 1000;
        unit++;
    }
    if (unit < 0) snprintf(out, 32, "%u B", (unsigned)byte_count);
    else snprintf(out, 32, "%.2f %s", value, units[unit]);
    return out;
}

void cllm_print_name_line(const char *before, const char *name, const char *after)
{
    if (strpbrk(name, "\\\n\r")) putchar('\\');
    fputs(before, stdout);
    for (const char *p = name; *p; p++) {
        if (*p == '\\') fputs("\\\\", stdout);
        else if (*p == '\n') fputs("\\n", stdout);
        else if (*p == '\r') fputs("\\r", stdout);
        else putchar(*p);
    }
    puts(after);
}

/* RFC 4648, section 4. */
static char *encode_base64(const uint8_t *bytes, size_t byte_count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((byte_count + 2) / 3 * 4 + 1);
    char *p = text;
    for (size_t i = 0; text && i < byte_count; i += 3) {
        size_t left = byte_count - i;
        unsigned group = (unsigned)bytes[i] << 16 | (left > 1 ? (unsigned)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        *p++ = digits[group >> 18];
        *p++ = digits[group >> 12 & 63];
        *p++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *p++ = left > 2 ? digits[group & 63] : '=';
    }
    if (text) *p = 0;
    return text;
}

void cllm_json_set_name(json_t *object, const char *key, const char *name, size_t name_bytes)
{
    json_t *text = json_stringn(name, name_bytes);
    if (!text) {
        char key_b64[64], shown[1024];
        char *base64 = encode_base64((const uint8_t *)name, name_bytes);
        snprintf(key_b64, sizeof key_b64, "%s_b64", key);
        if (base64) json_object_set_new(object, key_b64, json_string(base64));
        free(base64);
        text = json_string(cllm_escape(name, name_bytes, shown, sizeof shown));
    }
    json_object_set_new(object, key, text);
}

json_t *cllm_json_digest(const uint8_t digest[CLLM_DIGEST_BYTES])
{
    char text[7 + 2 * CLLM_DIGEST_BYTES + 1] = "sha256:";
    cllm_digest_hex(digest, text + 7);
    return json_string(text);
}

enum cllm_status cllm_json_print(json_t *document, struct cllm_error *err)
{
    char *line = document ? json_dumps(document, JSON_COMPACT) : NULL;
    json_decref(document);
    if (!line) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the JSON output");
    enum cllm_status status = CLLM_OK;
    if (fflush(stdout))
        status = cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot write to standard output: %s", strerror(errno));
    const size_t line_bytes = strlen(line);
    line[line_bytes] = '\n'; /* in one piece, where it is short, for those who share the output */
    if (!status) status = cllm_stdout_write(line, line_bytes + 1, err);
    free(line);
    return status;
}

enum cllm_status cllm_stdout_write(const void *bytes, size_t byte_count, struct cllm_error *err)
{
    const char *p = bytes;
    while (byte_count > 0) {
        ssize_t written = write(STDOUT_FILENO, p, byte_count);
        if (written < 0 && errno == EINTR) {
            if (cllm_signal_caught()) return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
            continue;
        }
        if (written < 0) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot write to standard output: %s", strerror(errno));
        p += written;
        byte_count -= (size_t)written;
        /* a signal cuts a write short, where the reader has stopped reading: the next one would wait for it */
        if (byte_count > 0 && cllm_signal_caught()) return cllm_fail(err, CLLM_E_INTERRUPTED, CLLM_NO_OFFSET, "interrupted");
    }
    return CLLM_OK;
}

bool cllm_is_same_file(const char *left, const char *right)
{
    struct stat a, b;
    return stat(left, &a) == 0 && stat(right, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Whether what stdio has can be written without waiting: a pipe takes as much as its buffer is large, or says no. */
static bool is_stdout_ready(void)
{
    struct pollfd stdout_poll = {STDOUT_FILENO, POLLOUT, 0};
    return poll(&stdout_poll, 1, 0) == 1 && stdout_poll.revents & POLLOUT;
}

int cllm_finish(int exit_code)
{
    const int caught = cllm_signal_caught();
    errno = 0;
    const bool is_written = (!caught || is_stdout_ready()) && fflush(stdout) == 0 && !ferror(stdout);
    const int flush_error = errno;
    if (!is_written && exit_code == CLLM_EXIT_OK && caught) {
        exit_code = cllm_fatal(CLLM_E_INTERRUPTED, "interrupted"); /* a write for a reader that had stopped reading */
    } else if (!is_written && exit_code == CLLM_EXIT_OK) {
        exit_code = cllm_fatal(CLLM_E_IO, "cannot write to standard output: %s",
                               flush_error ? strerror(flush_error) : "an earlier write failed");
    }
    if (caught && exit_code == CLLM_EXIT_SIGNALLED + caught) {
        signal(caught, SIG_DFL);
        raise(caught);
    }
    return exit_code;
}

/* error.c - how a failure is recorded and how untrusted text is made printable. */
#include "cllm.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum cllm_status(cllm_fail)(struct cllm_error *err, enum cllm_status status, uint64_t offset, const char *format, ...)
{
    if (!err) return status;
    err->status = status;
    err->offset = offset;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    return status;
}

enum cllm_status cllm_fail_context(struct cllm_error *err, enum cllm_status status, const char *format, ...)
{
    if (!err) return status;
    char message[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used < sizeof message) {
        snprintf(message + used, sizeof message - (size_t)used, ": %s", err->message);
    }
    memcpy(err->message, message, sizeof message);
    err->status = status;
    return status;
}

/* Length of the valid UTF-8 sequence at `p` (RFC 3629, section 4), or 0 where there is none in `left` bytes. */
static size_t utf8_sequence(const unsigned char *p, size_t left)
{
    static const unsigned char min_second[5] = {0, 0, 0x80, 0xA0, 0x90};
    if (p[0] < 0x80) return 1;
    size_t length = p[0] >= 0xC2 && p[0] <= 0xDF ? 2 : (p[0] & 0xF0) == 0xE0 ? 3 : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4 : 0;
    if (length == 0 || length > left) return 0;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
    }
    if ((p[0] == 0xE0 || p[0] == 0xF0) && p[1] < min_second[length]) return 0; /* overlong */
    if (p[0] == 0xED && p[1] > 0x9F) return 0;                                 /* surrogate */
    if (p[0] == 0xF4 && p[1] > 0x8F) return 0;                                 /* above U+10FFFF */
    return length;
}

/* C0, DEL, and C1 (U+0080 to U+009F), which terminals act on. */
static bool is_control(const unsigned char *p, size_t length)
{
    return (length == 1 && (p[0] < 0x20 || p[0] == 0x7F)) || (length == 2 && p[0] == 0xC2 && p[1] < 0xA0);
}

const char *cllm_escape(const void *bytes, size_t byte_count, char *out, size_t out_bytes)
{
    static const char ellipsis[] = "...";
    const unsigned char *p = bytes;
    size_t used = 0, cut = 0; /* cut: where the ellipsis still fits */
    if (out_bytes == 0) return out;
    for (size_t i = 0; i < byte_count;) {
        char piece[20];
        size_t piece_bytes = 0;
        size_t length = utf8_sequence(p + i, byte_count - i);
        if (length == 0 || is_control(p + i, length) || p[i] == '\\') {
            size_t escaped = length ? length : 1;
            for (size_t k = 0; k < escaped; k++) {
                piece_bytes += (size_t)snprintf(piece + piece_bytes, sizeof piece - piece_bytes, "\\x%02x", p[i + k]);
            }
            i += escaped;
        } else {
            memcpy(piece, p + i, length);
            piece_bytes = length;
            i += length;
        }
        if (used + piece_bytes >= out_bytes) {
            snprintf(out + cut, out_bytes - cut, "%s", ellipsis);
            return out;
        }
        memcpy(out + used, piece, piece_bytes);
        used += piece_bytes;
        if (used + sizeof ellipsis <= out_bytes) cut = used;
    }
    out[used] = 0;
    return out;
}

/* tokenizer_pattern.c - regexes of tokenizer.json, written for Oniguruma (Ruby syntax), run by PCRE2.
 *
 * Where the two differ the source is translated; what cannot be is refused:
 *   \s \S \w \W \b \B    Oniguruma's sets (U+180E is no space, marks are word characters) as explicit classes
 *   \h \H \v \uHHHH      hex digit, U+000B, code point
 *   \p{Script}           \p{sc:Script}: PCRE2 would otherwise take script extensions
 *   X{n,m}+  X{n}?       a second quantifier, not possessive or lazy: (?:X{n,m})+
 *   X{,m}  {             X{0,m}, and a literal brace
 *   (?m)                 PCRE2's (?s); ^ and $ always match at lines
 *   a(?i)b|c             a(?i:b|c): an option lasts to the end of its group, alternatives included
 *   newer characters     see cllm_char_regex_stand_in: the subject is searched through a copy of equal length
 * Not translated: \X, whose clusters depend on the Unicode version; case-insensitive matches of one character against several
 * (sharp s against "ss"), and binary properties
 * (\p{Emoji}) of characters that PCRE2 does not know.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer_internal.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN_BYTES_MAX 65536
#define GROUP_DEPTH_MAX 200 /* PCRE2 itself allows 250 */

#define SPACE_SET "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE_SET                                                                                                            \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"           \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}"
#define CLASS_WORD_SET "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD_SET CLASS_WORD_SET "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" /* Oniguruma adds them outside a class only */
#define HEX_SET "0-9A-Fa-f"

struct cllm_pattern {
    pcre2_code *code;
};

struct translator {
    struct cllm_span source;
    size_t at;
    struct cllm_strbuf out;
    size_t atom_offset; /* where the last atom starts in out: what a quantifier applies to */
    size_t depth;
    struct {
        size_t out_offset;
        unsigned extra_closes;     /* groups opened for options, to be closed with this one */
    } groups[GROUP_DEPTH_MAX + 1]; /* [0] is the whole pattern */
    struct cllm_error *err;
};

/* ------------------------------------------------------------------------------------------------------ translation */

static enum cllm_status refuse(struct translator *t, const char *what)
{
    char source[128];
    return cllm_fail(t->err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "regex \"%s\": %s at byte %zu is not supported",
                     cllm_escape(t->source.bytes, t->source.byte_count, source, sizeof source), what, t->at);
}

/* The byte `ahead` of the current one, or 0 at the end. */
static char peek(const struct translator *t, size_t ahead)
{
    return t->at + ahead < t->source.byte_count ? t->source.bytes[t->at + ahead] : 0;
}

static enum cllm_status emit(struct translator *t, const char *text)
{
    return cllm_strbuf_append_text(&t->out, text, t->err);
}

/* Copies the next `byte_count` bytes of the source. */
static enum cllm_status copy(struct translator *t, size_t byte_count)
{
    size_t left = t->source.byte_count - t->at;
    if (byte_count > left) byte_count = left;
    t->at += byte_count;
    return cllm_strbuf_append(&t->out, (struct cllm_span){t->source.bytes + t->at - byte_count, byte_count}, t->err);
}

static enum cllm_status insert(struct translator *t, size_t offset, const char *text)
{
    enum cllm_status status = emit(t, text);
    if (status) return status;
    size_t inserted = strlen(text);
    memmove(t->out.bytes + offset + inserted, t->out.bytes + offset, t->out.byte_count - inserted - offset);
    memcpy(t->out.bytes + offset, text, inserted);
    return CLLM_OK;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_script(const char *name)
{
    char source[64];
    int error;
    PCRE2_SIZE offset;
    snprintf(source, sizeof source, "\\p{sc:%s}", name);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &offset, NULL);
    pcre2_code_free(code);
    return code != NULL;
}

/* \p{Name}, \P{Name}, \p{^Name}. General categories have one or two letters; scripts that do are aliases nobody writes. */
static enum cllm_status translate_property(struct translator *t)
{
    char name[48];
    size_t length = 0, start = 3;
    if (peek(t, 2) != '{') return refuse(t, "\\p without braces");
    if (peek(t, 3) == '^') start++;
    while (length + 1 < sizeof name && peek(t, start + length) && peek(t, start + length) != '}') {
        name[length] = peek(t, start + length);
        length++;
    }
    name[length] = 0;
    if (peek(t, start + length) != '}') return refuse(t, "\\p{...}");
    if (length < 3 || !is_script(name)) return copy(t, start + length + 1);
    enum cllm_status status = copy(t, start);
    if (!status) status = emit(t, "sc:");
    return status ? status : copy(t, length + 1);
}

static enum cllm_status translate_code_point(struct translator *t)
{
    for (size_t i = 2; i < 6; i++) {
        if (!is_hex(peek(t, i))) return refuse(t, "\\u without four hex digits");
    }
    enum cllm_status status = emit(t, "\\x{");
    t->at += 2;
    if (!status) status = copy(t, 4);
    return status ? status : emit(t, "}");
}

/* \x{H...} or \xHH, which above 7F would be a raw byte in Oniguruma. */
static enum cllm_status translate_hex(struct translator *t)
{
    size_t length = 2;
    if (peek(t, 2) == '{') {
        while (is_hex(peek(t, length + 1))) length++;
        if (peek(t, length + 1) != '}') return refuse(t, "\\x{...}");
        return copy(t, length + 2);
    }
    if (is_hex(peek(t, 2)) && is_hex(peek(t, 3)) && peek(t, 2) > '7') return refuse(t, "\\x above 7F");
    while (length < 4 && is_hex(peek(t, length))) length++;
    return copy(t, length);
}

/* Emits a set, in brackets of its own unless within a class, and skips the escape. */
static enum cllm_status emit_set(struct translator *t, const char *open, const char *set, bool in_class)
{
    t->at += 2;
    enum cllm_status status = in_class ? CLLM_OK : emit(t, open);
    if (!status) status = emit(t, set);
    return status || in_class ? status : emit(t, "]");
}

static enum cllm_status emit_instead(struct translator *t, const char *text)
{
    t->at += 2;
    return emit(t, text);
}

/* A backslash and what follows it; the escapes that mean the same to both are copied. */
static enum cllm_status translate_escape(struct translator *t, bool in_class)
{
    char c = peek(t, 1);
    switch (c) {
    case 0: return refuse(t, "a backslash at the end");
    case 's': return emit_set(t, "[", SPACE_SET, in_class);
    case 'S': return in_class ? emit_set(t, "", NOT_SPACE_SET, true) : emit_set(t, "[^", SPACE_SET, false);
    case 'w': return emit_set(t, "[", in_class ? CLASS_WORD_SET : WORD_SET, in_class);
    case 'h': return emit_set(t, "[", HEX_SET, in_class);
    case 'v': return emit_instead(t, "\\x0b");
    case 'u': return translate_code_point(t);
    case 'x': return translate_hex(t);
    case 'p':
    case 'P': return translate_property(t);
    case 'W':
        if (!in_class) return emit_set(t, "[^", WORD_SET, false);
        break;
    case 'H':
        if (!in_class) return emit_set(t, "[^", HEX_SET, false);
        break;
    case 'b':
        if (in_class) return copy(t, 2); /* a backspace */
        return emit_instead(t, "(?:(?<=[" WORD_SET "])(?![" WORD_SET "])|(?<![" WORD_SET "])(?=[" WORD_SET "]))");
    case 'B':
        if (in_class) break;
        return emit_instead(t, "(?:(?<=[" WORD_SET "])(?=[" WORD_SET "])|(?<![" WORD_SET "])(?![" WORD_SET "]))");
    default:
        if (!is_letter(c)) { /* punctuation, a digit or a character beyond ASCII */
            size_t length;
            cllm_utf8_first(cllm_span_from(t->source, t->at + 1), &length);
            return copy(t, 1 + length);
        }
        if (strchr(in_class ? "dDnrtfea" : "dDnrtfeaAzZGRXkKN", c)) return copy(t, 2);
    }
    return refuse(t, in_class ? "this escape in a class" : "this escape");
}

/* [:name:] within a class. */
static enum cllm_status translate_posix(struct translator *t)
{
    static const struct {
        const char *name, *set;
    } sets[] = {
        {"[:space:]", SPACE_SET},         {"[:^space:]", NOT_SPACE_SET},           {"[:word:]", CLASS_WORD_SET},
        {"[:alpha:]", "\\p{Alphabetic}"}, {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"}, {"[:upper:]", "\\p{Uppercase}"},
        {"[:lower:]", "\\p{Lowercase}"},  {"[:punct:]", "\\p{P}\\p{S}"},           {"[:digit:]", "\\p{Nd}"},
        {"[:xdigit:]", HEX_SET},
    };
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        size_t length = strlen(sets[i].name);
        if (t->source.byte_count - t->at >= length && memcmp(t->source.bytes + t->at, sets[i].name, length) == 0) {
            t->at += length;
            return emit(t, sets[i].set);
        }
    }
    return refuse(t, "this [:class:]");
}

static enum cllm_status translate_class(struct translator *t)
{
    enum cllm_status status = copy(t, peek(t, 1) == '^' ? 2 : 1);
    for (bool is_first = true; !status; is_first = false) {
        char c = peek(t, 0);
        if (t->at == t->source.byte_count) return refuse(t, "a class without end");
        if (c == ']' && !is_first) return copy(t, 1);
        if (c == '[') status = peek(t, 1) == ':' ? translate_posix(t) : refuse(t, "a class within a class");
        else if (c == '&' && peek(t, 1) == '&') status = refuse(t, "an intersection of classes");
        else if (c == '\\') status = translate_escape(t, true);
        else status = copy(t, 1);
    }
    return status;
}

/* (?imx-imx) and (?imx-imx: of Oniguruma; `length` bytes from the parenthesis to the closing ')' or ':'. */
static enum cllm_status translate_options(struct translator *t, size_t length)
{
    enum cllm_status status = emit(t, "(?");
    for (size_t i = 2; i + 1 < length && !status; i++) {
        char c = peek(t, i), option[2] = {c == 'm' ? 's' : c, 0};
        if (c == 'x') return refuse(t, "extended syntax");
        status = emit(t, option);
    }
    if (!status) status = emit(t, ":");
    bool isolated = peek(t, length - 1) == ')';
    t->at += length;
    if (isolated) t->groups[t->depth].extra_closes++;
    return status;
}

static enum cllm_status open_group(struct translator *t)
{
    if (t->depth == GROUP_DEPTH_MAX) return refuse(t, "nesting this deep");
    if (peek(t, 1) == '*') return refuse(t, "a verb");
    size_t length = 1;
    bool isolated_options = false, has_options = false;
    if (peek(t, 1) == '?') {
        for (length = 2; peek(t, length) && strchr("imx-", peek(t, length)); length++) has_options = true;
        isolated_options = has_options && peek(t, length) == ')';
        if (has_options && !isolated_options && peek(t, length) != ':') return refuse(t, "this group");
        if (!has_options && !strchr(":=!><", peek(t, 2))) return refuse(t, "this group");
        if (!has_options && peek(t, 2) == '<' && (peek(t, 3) == '=' || peek(t, 3) == '!')) length++;
        length++;
    }
    size_t offset = t->out.byte_count;
    enum cllm_status status = has_options ? translate_options(t, length) : copy(t, length);
    if (isolated_options) return status;
    t->depth++;
    t->groups[t->depth].out_offset = offset;
    t->groups[t->depth].extra_closes = 0;
    return status;
}

static enum cllm_status close_options(struct translator *t)
{
    enum cllm_status status = CLLM_OK;
    for (; t->groups[t->depth].extra_closes && !status; t->groups[t->depth].extra_closes--) status = emit(t, ")");
    return status;
}

static enum cllm_status close_group(struct translator *t)
{
    if (t->depth == 0) return refuse(t, "a closing parenthesis without an opening one");
    enum cllm_status status = close_options(t);
    t->atom_offset = t->groups[t->depth--].out_offset;
    return status ? status : copy(t, 1);
}

/* {n}, {n,}, {n,m} or {,m}; any other brace is literal. */
static enum cllm_status translate_brace(struct translator *t)
{
    size_t low = 0, high = 0;
    while (peek(t, 1 + low) >= '0' && peek(t, 1 + low) <= '9') low++;
    bool has_comma = peek(t, 1 + low) == ',';
    while (has_comma && peek(t, 2 + low + high) >= '0' && peek(t, 2 + low + high) <= '9') high++;
    size_t length = 1 + low + (has_comma ? 1 + high : 0);
    if ((low == 0 && high == 0) || peek(t, length) != '}') {
        t->atom_offset = t->out.byte_count;
        t->at++;
        return emit(t, "\\{");
    }
    t->at++;
    enum cllm_status status = emit(t, low ? "{" : "{0");
    if (!status) status = copy(t, length);
    if (!status && (peek(t, 0) == '+' || (peek(t, 0) == '?' && !has_comma))) {
        status = insert(t, t->atom_offset, "(?:");
        if (!status) status = emit(t, ")");
    }
    return status;
}

static enum cllm_status translate_one(struct translator *t)
{
    size_t start = t->out.byte_count, length;
    enum cllm_status status;
    switch (peek(t, 0)) {
    case '(': return open_group(t);
    case ')': return close_group(t);
    case '{': return translate_brace(t);
    case '?':
    case '*':
    case '+':
    case '|': return copy(t, 1);
    case '[': status = translate_class(t); break;
    case '\\': status = translate_escape(t, false); break;
    default: cllm_utf8_first(cllm_span_from(t->source, t->at), &length); status = copy(t, length);
    }
    t->atom_offset = start;
    return status;
}

static enum cllm_status translate(struct translator *t)
{
    enum cllm_status status = emit(t, "");
    while (!status && t->at < t->source.byte_count) status = translate_one(t);
    if (!status && t->depth) status = refuse(t, "a group without end");
    return status ? status : close_options(t);
}

/* ------------------------------------------------------------------------------------------------------ compilation */

static enum cllm_status compile(struct cllm_span source, uint32_t options, struct cllm_pattern *pattern, struct cllm_error *err)
{
    int error;
    PCRE2_SIZE error_offset;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for a regex");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pattern->code =
        pcre2_compile((PCRE2_SPTR)source.bytes, source.byte_count, options | PCRE2_UTF, &error, &error_offset, context);
    pcre2_compile_context_free(context);
    if (!pattern->code) {
        char message[128], text[128];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)message, sizeof message);
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "regex \"%s\": %s",
                         cllm_escape(source.bytes, source.byte_count, text, sizeof text), message);
    }
    pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE); /* where it fails the interpreter runs */
    return CLLM_OK;
}

enum cllm_status cllm_pattern_create(struct cllm_span source, bool is_regex, struct cllm_pattern **pattern_out,
                                     struct cllm_error *err)
{
    *pattern_out = NULL;
    if (source.byte_count > PATTERN_BYTES_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "a pattern of %zu bytes, at most %d are allowed", source.byte_count,
                         PATTERN_BYTES_MAX);
    }
    struct cllm_pattern *pattern = calloc(1, sizeof *pattern);
    struct translator *t = calloc(1, sizeof *t);
    enum cllm_status status = CLLM_OK;
    if (!pattern || !t) {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for a regex");
        goto out;
    }
    t->source = source;
    t->err = err;
    if (!is_regex) {
        status = compile(source, PCRE2_LITERAL, pattern, err);
        goto out;
    }
    status = translate(t);
    if (!status) {
        status = compile((struct cllm_span){t->out.bytes, t->out.byte_count},
                         PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, pattern, err);
    }
out:
    if (t) free(t->out.bytes);
    free(t);
    if (status) cllm_pattern_destroy(pattern);
    else *pattern_out = pattern;
    return status;
}

void cllm_pattern_destroy(struct cllm_pattern *pattern)
{
    if (!pattern) return;
    pcre2_code_free(pattern->code);
    free(pattern);
}

/* --------------------------------------------------------------------------------------------------------- matching */

/* Backtracking steps for one match, besides what the length of the text asks for; Oniguruma's own limit. */
#define MATCH_STEPS 10000000u
#define MATCH_STEPS_PER_BYTE 16u
#define HEAP_KIB (256u * 1024)
#define JIT_STACK_BYTES (1024u * 1024)

enum cllm_status cllm_scan_init(struct cllm_scan *scan, const struct cllm_pattern *pattern, struct cllm_error *err)
{
    scan->pattern = pattern;
    scan->match_data = pcre2_match_data_create(1, NULL);
    scan->match_context = pcre2_match_context_create(NULL);
    scan->jit_stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_BYTES, NULL); /* null where there is no JIT */
    if (!scan->match_data || !scan->match_context) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory for a match");
    if (scan->jit_stack) pcre2_jit_stack_assign(scan->match_context, NULL, scan->jit_stack);
    pcre2_set_heap_limit(scan->match_context, HEAP_KIB);
    return CLLM_OK;
}

void cllm_scan_fini(struct cllm_scan *scan)
{
    pcre2_match_data_free(scan->match_data);
    pcre2_match_context_free(scan->match_context);
    pcre2_jit_stack_free(scan->jit_stack);
    free(scan->shadow.bytes);
}

/* Makes scan->text a copy with stand-ins, if the text has characters that need any. */
static enum cllm_status substitute_newer(struct cllm_scan *scan, struct cllm_span text, struct cllm_error *err)
{
    scan->shadow.byte_count = 0;
    size_t copied = 0; /* bytes of text already in the shadow */
    for (size_t at = 0, length; at < text.byte_count; at += length) {
        uint32_t codepoint = cllm_utf8_first(cllm_span_from(text, at), &length);
        uint32_t stand_in = cllm_char_regex_stand_in(codepoint);
        if (stand_in == codepoint) continue;
        enum cllm_status status = cllm_strbuf_append(&scan->shadow, (struct cllm_span){text.bytes + copied, at - copied}, err);
        if (!status) status = cllm_strbuf_append_codepoint(&scan->shadow, stand_in, err);
        if (status) return status;
        copied = at + length;
    }
    scan->text = text;
    if (copied == 0) return CLLM_OK;
    enum cllm_status status = cllm_strbuf_append(&scan->shadow, cllm_span_from(text, copied), err);
    scan->text.bytes = scan->shadow.bytes;
    return status;
}

enum cllm_status cllm_scan_start(struct cllm_scan *scan, struct cllm_span text, struct cllm_error *err)
{
    scan->next_offset = 0;
    scan->last_match_end = SIZE_MAX;
    pcre2_set_match_limit(scan->match_context, MATCH_STEPS + MATCH_STEPS_PER_BYTE * (uint32_t)(text.byte_count / 8));
    return substitute_newer(scan, text, err);
}

static enum cllm_status fail_match(int code, struct cllm_error *err)
{
    char message[128];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
    enum cllm_status status = code == PCRE2_ERROR_NOMEMORY ? CLLM_E_NOMEM : CLLM_E_LIMIT;
    return cllm_fail(err, status, CLLM_NO_OFFSET, "a regex of the tokenizer gave up on this text: %s", message);
}

/* Searches from next_offset; `*found_out` false where nothing matches. */
static enum cllm_status search(struct cllm_scan *scan, bool *found_out, struct cllm_error *err)
{
    const pcre2_code *code = scan->pattern->code;
    PCRE2_SPTR bytes = (PCRE2_SPTR)scan->text.bytes;
    int result = pcre2_match(code, bytes, scan->text.byte_count, scan->next_offset, PCRE2_NO_UTF_CHECK, scan->match_data,
                             scan->match_context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
        result = pcre2_match(code, bytes, scan->text.byte_count, scan->next_offset, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                             scan->match_data, scan->match_context);
    }
    *found_out = result >= 0;
    return result >= 0 || result == PCRE2_ERROR_NOMATCH ? CLLM_OK : fail_match(result, err);
}

enum cllm_status cllm_scan_next(struct cllm_scan *scan, bool *found_out, size_t *start_out, size_t *end_out,
                                struct cllm_error *err)
{
    while (scan->next_offset <= scan->text.byte_count) {
        enum cllm_status status = search(scan, found_out, err);
        if (status || !*found_out) return status;
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(scan->match_data);
        size_t floor = scan->last_match_end == SIZE_MAX ? 0 : scan->last_match_end;
        size_t end = bounds[1] < floor ? floor : bounds[1]; /* \K can put the bounds anywhere */
        size_t start = bounds[0] < floor ? floor : bounds[0] > end ? end : bounds[0];
        if (start != end || end != scan->last_match_end) {
            scan->next_offset = scan->last_match_end = end;
            *start_out = start;
            *end_out = end;
            return CLLM_OK;
        }
        /* An empty match right after the last match does not count: search again one character on. */
        size_t length = 1;
        if (end < scan->text.byte_count) cllm_utf8_first(cllm_span_from(scan->text, end), &length);
        scan->next_offset = end + length;
    }
    *found_out = false;
    return CLLM_OK;
}

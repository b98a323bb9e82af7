/* tokenizer_json.c - reads tokenizer.json into steps, vocabulary and merges. */
#include "tokenizer_internal.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define JSON_BYTES_MAX ((size_t)256 << 20)
#define SEQUENCE_DEPTH_MAX 8

/* GPT-2's pattern, which ByteLevel uses unless told otherwise. */
static const char byte_level_regex[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ----------------------------------------------------------------------------------------------------------- fields */

#define fail_corrupt(err, ...) cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, __VA_ARGS__)

static struct cllm_span string_span(const json_t *string)
{
    return (struct cllm_span){json_string_value(string), json_string_length(string)};
}

static bool string_is(const json_t *json, const char *text)
{
    return json_is_string(json) && json_string_length(json) == strlen(text) && strcmp(json_string_value(json), text) == 0;
}

static const char *type_name(const json_t *json)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer", "a real", "true", "false", "null"};
    return json ? names[json_typeof(json)] : "nothing";
}

static enum cllm_status get_string(const json_t *object, const char *key, struct cllm_span *out, struct cllm_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) return fail_corrupt(err, "\"%s\" is %s, expected a string", key, type_name(value));
    *out = string_span(value);
    return CLLM_OK;
}

static enum cllm_status get_bool(const json_t *object, const char *key, bool *out, struct cllm_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_boolean(value)) return fail_corrupt(err, "\"%s\" is %s, expected true or false", key, type_name(value));
    *out = json_is_true(value);
    return CLLM_OK;
}

/* Leaves `*out` alone where the key is absent or null. */
static enum cllm_status get_optional_bool(const json_t *object, const char *key, bool *out, struct cllm_error *err)
{
    return json_is_null(json_object_get(object, key)) || !json_object_get(object, key) ? CLLM_OK
                                                                                       : get_bool(object, key, out, err);
}

static enum cllm_status get_size(const json_t *object, const char *key, size_t *out, struct cllm_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return fail_corrupt(err, "\"%s\" is %s, expected a count", key, type_name(value));
    }
    *out = (size_t)json_integer_value(value);
    return CLLM_OK;
}

static enum cllm_status get_id(const json_t *value, const char *what, uint32_t *out, struct cllm_error *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return fail_corrupt(err, "the id of %s is %s, expected a non-negative integer", what,
                            json_is_integer(value) ? "negative" : type_name(value));
    }
    if (json_integer_value(value) > CLLM_TOKEN_ID_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "the id of %s is %lld, at most %u is allowed", what,
                         (long long)json_integer_value(value), CLLM_TOKEN_ID_MAX);
    }
    *out = (uint32_t)json_integer_value(value);
    return CLLM_OK;
}

/* A string of one character. */
static enum cllm_status get_character(const json_t *object, const char *key, struct cllm_strbuf *out, struct cllm_error *err)
{
    struct cllm_span text;
    enum cllm_status status = get_string(object, key, &text, err);
    if (status) return status;
    size_t length = 0;
    if (text.byte_count) cllm_utf8_first(text, &length);
    if (length == 0 || length != text.byte_count) return fail_corrupt(err, "\"%s\" is not one character", key);
    return cllm_strbuf_append(out, text, err);
}

static enum cllm_status get_content(const json_t *object, const char *key, struct cllm_strbuf *out, struct cllm_error *err)
{
    struct cllm_span text;
    enum cllm_status status = get_string(object, key, &text, err);
    return status ? status : cllm_strbuf_append(out, text, err);
}

/* {"String": text} or {"Regex": text} */
static enum cllm_status get_pattern(const json_t *object, struct cllm_pattern **out, struct cllm_error *err)
{
    const json_t *pattern = json_object_get(object, "pattern");
    if (!json_is_object(pattern) || json_object_size(pattern) != 1) {
        return fail_corrupt(err, "\"pattern\" is %s, expected an object with \"String\" or \"Regex\"", type_name(pattern));
    }
    bool is_regex = json_object_get(pattern, "Regex") != NULL;
    struct cllm_span text;
    enum cllm_status status = get_string(pattern, is_regex ? "Regex" : "String", &text, err);
    return status ? status : cllm_pattern_create(text, is_regex, out, err);
}

/* Index of the string at `key` among `count` names. */
static enum cllm_status get_choice(const json_t *object, const char *key, const char *const *names, int count, int *out,
                                   struct cllm_error *err)
{
    struct cllm_span text;
    enum cllm_status status = get_string(object, key, &text, err);
    if (status) return status;
    for (int i = 0; i < count; i++) {
        if (text.byte_count == strlen(names[i]) && memcmp(text.bytes, names[i], text.byte_count) == 0) {
            *out = i;
            return CLLM_OK;
        }
    }
    char found[64];
    return fail_corrupt(err, "\"%s\" is \"%s\", expected %s, ... or %s", key,
                        cllm_escape(text.bytes, text.byte_count, found, sizeof found), names[0], names[count - 1]);
}

static enum cllm_status get_behavior(const json_t *object, enum cllm_split_behavior *out, struct cllm_error *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    int choice = 0;
    enum cllm_status status = get_choice(object, "behavior", names, 5, &choice, err);
    *out = (enum cllm_split_behavior)choice;
    return status;
}

/* ------------------------------------------------------------------------------------------------------- components */

/* What is being read: the components of one section become steps of one list. */
struct section {
    const char *name;      /* of the section in the file */
    const char *array_key; /* of a Sequence's parts */
    const struct component *components;
    size_t component_count;
    struct cllm_tokenizer *tokenizer;
    struct cllm_steps *steps;
    bool is_whole; /* decoder: what comes next sees one token in parts */
    struct cllm_error *err;
};

typedef enum cllm_status parse_component(struct section *section, const json_t *json);

struct component {
    const char *type;
    parse_component *parse;
};

static enum cllm_status add_step(struct section *section, enum cllm_step_kind kind, struct cllm_step **step_out)
{
    return cllm_steps_append(section->steps, kind, step_out, section->err);
}

static enum cllm_status fail_unknown(const struct section *section, const json_t *type)
{
    char found[64], known[256] = "Sequence";
    for (size_t i = 0; i < section->component_count; i++) {
        strcat(known, " "); /* the names are ours and fit */
        strcat(known, section->components[i].type);
    }
    return cllm_fail(section->err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "%s type \"%s\" is not supported; known are %s",
                     section->name, cllm_escape(json_string_value(type), json_string_length(type), found, sizeof found), known);
}

static enum cllm_status parse_part(struct section *section, const json_t *json, unsigned depth);

static enum cllm_status parse_sequence(struct section *section, const json_t *json, unsigned depth)
{
    const json_t *parts = json_object_get(json, section->array_key);
    if (!json_is_array(parts))
        return fail_corrupt(section->err, "\"%s\" is %s, expected an array", section->array_key, type_name(parts));
    if (depth == SEQUENCE_DEPTH_MAX) {
        return cllm_fail(section->err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "%s sequences nest deeper than %d", section->name,
                         SEQUENCE_DEPTH_MAX);
    }
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < json_array_size(parts) && !status; i++)
        status = parse_part(section, json_array_get(parts, i), depth + 1);
    return status;
}

static enum cllm_status parse_part(struct section *section, const json_t *json, unsigned depth)
{
    const json_t *type = json_object_get(json, "type");
    if (!json_is_string(type)) return fail_corrupt(section->err, "%s is %s without a type", section->name, type_name(json));
    if (string_is(type, "Sequence")) return parse_sequence(section, json, depth);
    for (size_t i = 0; i < section->component_count; i++) {
        if (!string_is(type, section->components[i].type)) continue;
        enum cllm_status status = section->components[i].parse(section, json);
        return status ? cllm_fail_context(section->err, status, "%s %s", section->name, section->components[i].type) : CLLM_OK;
    }
    return fail_unknown(section, type);
}

static enum cllm_status parse_section(struct section section, const json_t *root)
{
    const json_t *json = json_object_get(root, section.name);
    return !json || json_is_null(json) ? CLLM_OK : parse_part(&section, json, 0);
}

/* ------------------------------------------------------------------------------------------------------ normalizers */

static enum cllm_status add_normal_form(struct section *section, enum cllm_normal_form form)
{
    struct cllm_step *step;
    enum cllm_status status = add_step(section, CLLM_STEP_NORMALIZE, &step);
    if (!status) step->form = form;
    return status;
}

static enum cllm_status parse_nfc(struct section *section, const json_t *json)
{
    (void)json;
    return add_normal_form(section, CLLM_NFC);
}

static enum cllm_status parse_nfd(struct section *section, const json_t *json)
{
    (void)json;
    return add_normal_form(section, CLLM_NFD);
}

static enum cllm_status parse_nfkc(struct section *section, const json_t *json)
{
    (void)json;
    return add_normal_form(section, CLLM_NFKC);
}

static enum cllm_status parse_nfkd(struct section *section, const json_t *json)
{
    (void)json;
    return add_normal_form(section, CLLM_NFKD);
}

static enum cllm_status parse_lowercase(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    (void)json;
    return add_step(section, CLLM_STEP_LOWERCASE, &step);
}

static enum cllm_status parse_prepend(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    enum cllm_status status = add_step(section, CLLM_STEP_PREPEND, &step);
    return status ? status : get_content(json, "prepend", &step->content, section->err);
}

static enum cllm_status parse_strip(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    bool left = false, right = false;
    enum cllm_status status = get_bool(json, "strip_left", &left, section->err);
    if (!status) status = get_bool(json, "strip_right", &right, section->err);
    if (!status) status = add_step(section, CLLM_STEP_STRIP, &step);
    if (status) return status;
    step->left = left;
    step->right = right;
    return CLLM_OK;
}

/* Also a decoder. */
static enum cllm_status parse_replace(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    enum cllm_status status = add_step(section, CLLM_STEP_REPLACE, &step);
    if (!status) status = get_pattern(json, &step->pattern, section->err);
    return status ? status : get_content(json, "content", &step->content, section->err);
}

static const struct component normalizers[] = {
    {"NFC", parse_nfc},         {"NFD", parse_nfd},         {"NFKC", parse_nfkc},   {"NFKD", parse_nfkd},
    {"Prepend", parse_prepend}, {"Replace", parse_replace}, {"Strip", parse_strip}, {"Lowercase", parse_lowercase},
};

/* --------------------------------------------------------------------------------------------------- pre-tokenizers */

static enum cllm_status parse_byte_level(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    bool add_prefix_space = false, use_regex = true;
    enum cllm_status status = get_bool(json, "add_prefix_space", &add_prefix_space, section->err);
    if (!status) status = get_optional_bool(json, "use_regex", &use_regex, section->err);
    if (!status && add_prefix_space) status = add_step(section, CLLM_STEP_BYTE_SPACE, &step);
    if (!status && use_regex) {
        status = add_step(section, CLLM_STEP_SPLIT_PATTERN, &step);
        if (status) return status;
        step->behavior = CLLM_SPLIT_ISOLATED;
        struct cllm_span regex = {byte_level_regex, sizeof byte_level_regex - 1};
        status = cllm_pattern_create(regex, true, &step->pattern, section->err);
    }
    return status ? status : add_step(section, CLLM_STEP_BYTE_MAP, &step);
}

static enum cllm_status parse_split(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    enum cllm_status status = add_step(section, CLLM_STEP_SPLIT_PATTERN, &step);
    if (!status) status = get_pattern(json, &step->pattern, section->err);
    if (!status) status = get_behavior(json, &step->behavior, section->err);
    return status ? status : get_bool(json, "invert", &step->invert, section->err);
}

static enum cllm_status add_class(struct section *section, cllm_char_class *in_class, enum cllm_split_behavior behavior)
{
    struct cllm_step *step;
    enum cllm_status status = add_step(section, CLLM_STEP_SPLIT_CLASS, &step);
    if (status) return status;
    step->in_class = in_class;
    step->behavior = behavior;
    return CLLM_OK;
}

static enum cllm_status parse_digits(struct section *section, const json_t *json)
{
    bool individual = false;
    enum cllm_status status = get_bool(json, "individual_digits", &individual, section->err);
    if (status) return status;
    return add_class(section, cllm_char_is_numeric, individual ? CLLM_SPLIT_ISOLATED : CLLM_SPLIT_CONTIGUOUS);
}

static enum cllm_status parse_punctuation(struct section *section, const json_t *json)
{
    enum cllm_split_behavior behavior = CLLM_SPLIT_ISOLATED;
    enum cllm_status status = json_object_get(json, "behavior") ? get_behavior(json, &behavior, section->err) : CLLM_OK;
    return status ? status : add_class(section, cllm_char_is_punctuation, behavior);
}

static enum cllm_status parse_whitespace(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    (void)json;
    return add_step(section, CLLM_STEP_SPLIT_WORDS, &step);
}

static enum cllm_status parse_whitespace_split(struct section *section, const json_t *json)
{
    (void)json;
    return add_class(section, cllm_char_is_space, CLLM_SPLIT_REMOVED);
}

/* Fields of the pre-tokenizer and of the decoder; `split` matters to the former only. */
static enum cllm_status get_metaspace(struct cllm_step *step, const json_t *json, bool *split, struct cllm_error *err)
{
    static const char *const schemes[] = {"always", "first", "never"};
    int scheme = CLLM_PREPEND_ALWAYS;
    bool add_prefix_space = true; /* of older files */
    enum cllm_status status = get_character(json, "replacement", &step->content, err);
    if (!status && json_object_get(json, "prepend_scheme")) status = get_choice(json, "prepend_scheme", schemes, 3, &scheme, err);
    if (!status) status = get_optional_bool(json, "add_prefix_space", &add_prefix_space, err);
    if (!status) status = get_optional_bool(json, "split", split, err);
    if (!status && !add_prefix_space && scheme != CLLM_PREPEND_NEVER) {
        status = fail_corrupt(err, "\"add_prefix_space\" is false and \"prepend_scheme\" is \"%s\"", schemes[scheme]);
    }
    step->scheme = (enum cllm_prepend_scheme)scheme;
    return status;
}

static enum cllm_status parse_metaspace(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    bool split = true;
    enum cllm_status status = add_step(section, CLLM_STEP_METASPACE, &step);
    if (!status) status = get_metaspace(step, json, &split, section->err);
    if (status || !split) return status;
    status = add_step(section, CLLM_STEP_SPLIT_PATTERN, &step);
    if (status) return status;
    step->behavior = CLLM_SPLIT_NEXT;
    struct cllm_span replacement = string_span(json_object_get(json, "replacement"));
    return cllm_pattern_create(replacement, false, &step->pattern, section->err);
}

static const struct component pre_tokenizers[] = {
    {"ByteLevel", parse_byte_level},
    {"Split", parse_split},
    {"Digits", parse_digits},
    {"Metaspace", parse_metaspace},
    {"Punctuation", parse_punctuation},
    {"Whitespace", parse_whitespace},
    {"WhitespaceSplit", parse_whitespace_split},
};

/* --------------------------------------------------------------------------------------------------------- decoders */

/* Before a step that needs whole tokens: waits for the end where tokens come in parts. */
static enum cllm_status add_decode_step(struct section *section, enum cllm_step_kind kind, struct cllm_step **step_out)
{
    if (section->is_whole) {
        enum cllm_status status = add_step(section, CLLM_STEP_DECODE_BUFFER, step_out);
        if (status) return status;
    }
    section->is_whole = false;
    return add_step(section, kind, step_out);
}

static enum cllm_status parse_decode_bytes(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    (void)json;
    enum cllm_status status = add_decode_step(section, CLLM_STEP_DECODE_BYTES, &step);
    section->is_whole = true;
    return status;
}

static enum cllm_status parse_decode_replace(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    enum cllm_status status = add_decode_step(section, CLLM_STEP_REPLACE, &step);
    if (!status) status = get_pattern(json, &step->pattern, section->err);
    return status ? status : get_content(json, "content", &step->content, section->err);
}

static enum cllm_status parse_decode_fallback(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    (void)json;
    return add_decode_step(section, CLLM_STEP_DECODE_FALLBACK, &step);
}

static enum cllm_status parse_decode_fuse(struct section *section, const json_t *json)
{
    (void)json;
    section->is_whole = true;
    return CLLM_OK;
}

static enum cllm_status parse_decode_strip(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    enum cllm_status status = add_step(section, CLLM_STEP_DECODE_STRIP, &step);
    if (status) return status;
    step->whole = section->is_whole;
    status = get_character(json, "content", &step->content, section->err);
    if (!status) status = get_size(json, "start", &step->left, section->err);
    return status ? status : get_size(json, "stop", &step->right, section->err);
}

static enum cllm_status parse_decode_metaspace(struct section *section, const json_t *json)
{
    struct cllm_step *step;
    bool split;
    enum cllm_status status = add_decode_step(section, CLLM_STEP_DECODE_METASPACE, &step);
    return status ? status : get_metaspace(step, json, &split, section->err);
}

static const struct component decoders[] = {
    {"ByteLevel", parse_decode_bytes}, {"Replace", parse_decode_replace}, {"ByteFallback", parse_decode_fallback},
    {"Fuse", parse_decode_fuse},       {"Strip", parse_decode_strip},     {"Metaspace", parse_decode_metaspace},
};

/* -------------------------------------------------------------------------------------------------- post-processors */

static enum cllm_status add_template_token(struct section *section, const json_t *token, const json_t *special_tokens)
{
    struct cllm_span id;
    enum cllm_status status = get_string(token, "id", &id, section->err);
    if (status) return status;
    const json_t *ids = json_object_get(json_object_getn(special_tokens, id.bytes, id.byte_count), "ids");
    char name[64];
    if (!json_is_array(ids)) {
        return fail_corrupt(section->err, "\"special_tokens\" has no ids for \"%s\"",
                            cllm_escape(id.bytes, id.byte_count, name, sizeof name));
    }
    for (size_t i = 0; i < json_array_size(ids) && !status; i++) {
        uint32_t value;
        status = get_id(json_array_get(ids, i), "a special token", &value, section->err);
        if (!status) status = cllm_ids_append(&section->tokenizer->template_ids, value, section->err);
    }
    return status;
}

/* One element of "single": {"SpecialToken": {"id": name}} or {"Sequence": {"id": "A"}} */
static enum cllm_status add_template_piece(struct section *section, const json_t *piece, const json_t *special_tokens)
{
    const json_t *token = json_object_get(piece, "SpecialToken");
    if (token) return add_template_token(section, token, special_tokens);
    const json_t *sequence = json_object_get(piece, "Sequence");
    if (!string_is(json_object_get(sequence, "id"), "A")) {
        return fail_corrupt(section->err, "\"single\" has a piece that is neither a SpecialToken nor Sequence A");
    }
    return cllm_ids_append(&section->tokenizer->template_ids, CLLM_NO_TOKEN, section->err);
}

static enum cllm_status parse_template(struct section *section, const json_t *json)
{
    const json_t *single = json_object_get(json, "single");
    if (!json_is_array(single)) return fail_corrupt(section->err, "\"single\" is %s, expected an array", type_name(single));
    if (section->tokenizer->has_template) {
        return cllm_fail(section->err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "more than one template is not supported");
    }
    section->tokenizer->has_template = true;
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < json_array_size(single) && !status; i++) {
        status = add_template_piece(section, json_array_get(single, i), json_object_get(json, "special_tokens"));
    }
    return status;
}

/* Only changes offsets, which are not computed here. */
static enum cllm_status parse_post_byte_level(struct section *section, const json_t *json)
{
    (void)section;
    (void)json;
    return CLLM_OK;
}

static const struct component post_processors[] = {{"TemplateProcessing", parse_template}, {"ByteLevel", parse_post_byte_level}};

/* ------------------------------------------------------------------------------------------------------------ model */

static enum cllm_status parse_vocab(const json_t *model, struct cllm_vocab *vocab, struct cllm_error *err)
{
    json_t *entries = json_object_get(model, "vocab");
    if (!json_is_object(entries)) return fail_corrupt(err, "\"vocab\" is %s, expected an object", type_name(entries));
    enum cllm_status status = CLLM_OK;
    for (void *at = json_object_iter(entries); at && !status; at = json_object_iter_next(entries, at)) {
        struct cllm_span token = {json_object_iter_key(at), json_object_iter_key_len(at)};
        uint32_t id;
        status = get_id(json_object_iter_value(at), "a vocabulary entry", &id, err);
        if (!status) status = cllm_vocab_add(vocab, token, id, err);
    }
    return status;
}

/* "left right" */
static enum cllm_status split_merge(struct cllm_span text, struct cllm_span *left, struct cllm_span *right,
                                    struct cllm_error *err)
{
    const char *space = text.byte_count ? memchr(text.bytes, ' ', text.byte_count) : NULL;
    if (space) {
        *left = (struct cllm_span){text.bytes, (size_t)(space - text.bytes)};
        *right = cllm_span_from(text, left->byte_count + 1);
        if (!right->byte_count || !memchr(right->bytes, ' ', right->byte_count)) return CLLM_OK;
    }
    char name[64];
    return fail_corrupt(err, "merge \"%s\" is not two tokens with a space between",
                        cllm_escape(text.bytes, text.byte_count, name, sizeof name));
}

static enum cllm_status parse_merge(const json_t *merge, struct cllm_span *left, struct cllm_span *right, struct cllm_error *err)
{
    if (json_is_string(merge)) return split_merge(string_span(merge), left, right, err);
    const json_t *first = json_array_get(merge, 0), *second = json_array_get(merge, 1);
    if (json_array_size(merge) != 2 || !json_is_string(first) || !json_is_string(second)) {
        return fail_corrupt(err, "a merge is %s, expected two strings or one", type_name(merge));
    }
    *left = string_span(first);
    *right = string_span(second);
    return CLLM_OK;
}

/* Lists of strings may have "#version" lines of the merges.txt that they came from. */
static bool is_version_line(const json_t *merge)
{
    return json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0;
}

static enum cllm_status parse_merges(const json_t *model, struct cllm_bpe *bpe, struct cllm_error *err)
{
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_array(merges)) return fail_corrupt(err, "\"merges\" is %s, expected an array", type_name(merges));
    enum cllm_status status = cllm_bpe_reserve_merges(bpe, json_array_size(merges), err);
    uint32_t rank = 0;
    for (size_t i = 0; i < json_array_size(merges) && !status; i++) {
        const json_t *merge = json_array_get(merges, i);
        struct cllm_span left, right;
        if (is_version_line(merge)) continue;
        status = parse_merge(merge, &left, &right, err);
        if (!status) status = cllm_bpe_add_merge(bpe, rank++, left, right, err);
    }
    return status;
}

/* Null, absent and (for prefix and suffix) empty mean none. */
static enum cllm_status get_optional_string(const json_t *object, const char *key, struct cllm_strbuf *out, bool *found_out,
                                            struct cllm_error *err)
{
    const json_t *value = json_object_get(object, key);
    *found_out = value && !json_is_null(value);
    return *found_out ? get_content(object, key, out, err) : CLLM_OK;
}

static enum cllm_status parse_bpe_options(const json_t *model, struct cllm_bpe *bpe, struct cllm_error *err)
{
    bool ignored;
    enum cllm_status status = get_optional_string(model, "unk_token", &bpe->unk, &bpe->has_unk, err);
    if (!status) status = get_optional_string(model, "continuing_subword_prefix", &bpe->prefix, &ignored, err);
    if (!status) status = get_optional_string(model, "end_of_word_suffix", &bpe->suffix, &ignored, err);
    if (!status) status = get_optional_bool(model, "fuse_unk", &bpe->fuse_unk, err);
    if (!status) status = get_optional_bool(model, "byte_fallback", &bpe->byte_fallback, err);
    if (!status) status = get_optional_bool(model, "ignore_merges", &bpe->ignore_merges, err);
    const json_t *dropout = json_object_get(model, "dropout");
    if (!status && json_is_number(dropout) && json_number_value(dropout) != 0) {
        status = cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET,
                           "a dropout of %g, which makes encoding random, is not supported", json_number_value(dropout));
    }
    return status;
}

static enum cllm_status parse_model(const json_t *root, struct cllm_bpe *bpe, struct cllm_error *err)
{
    const json_t *model = json_object_get(root, "model"), *type = json_object_get(model, "type");
    if (!json_is_object(model)) return fail_corrupt(err, "\"model\" is %s, expected an object", type_name(model));
    if (type && !string_is(type, "BPE")) { /* without a type it is BPE if it has merges */
        char found[64] = "";
        if (json_is_string(type)) cllm_escape(json_string_value(type), json_string_length(type), found, sizeof found);
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "model type \"%s\" is not supported; known is BPE", found);
    }
    enum cllm_status status = parse_bpe_options(model, bpe, err);
    if (!status) status = parse_vocab(model, &bpe->vocab, err);
    if (!status) status = parse_merges(model, bpe, err);
    if (!status) cllm_bpe_prepare(bpe);
    return status ? cllm_fail_context(err, status, "model") : CLLM_OK;
}

/* ----------------------------------------------------------------------------------------------------- added tokens */

static enum cllm_status parse_added_token(const json_t *json, struct cllm_tokenizer *tokenizer, struct cllm_error *err)
{
    struct cllm_added_token token = {0};
    uint32_t ignored;
    enum cllm_status status = get_id(json_object_get(json, "id"), "an added token", &ignored, err);
    if (!status) status = get_bool(json, "single_word", &token.single_word, err);
    if (!status) status = get_bool(json, "lstrip", &token.lstrip, err);
    if (!status) status = get_bool(json, "rstrip", &token.rstrip, err);
    if (!status) status = get_bool(json, "normalized", &token.normalized, err);
    if (!status) status = get_bool(json, "special", &token.special, err);
    if (!status) status = get_content(json, "content", &token.content, err);
    if (!status) return cllm_added_add(&tokenizer->added, &tokenizer->bpe.vocab, &tokenizer->normalizer, &token, err);
    free(token.content.bytes);
    return status;
}

static enum cllm_status parse_added_tokens(const json_t *root, struct cllm_tokenizer *tokenizer, struct cllm_error *err)
{
    const json_t *tokens = json_object_get(root, "added_tokens");
    if (tokens && !json_is_array(tokens))
        return fail_corrupt(err, "\"added_tokens\" is %s, expected an array", type_name(tokens));
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; i < json_array_size(tokens) && !status; i++) {
        status = parse_added_token(json_array_get(tokens, i), tokenizer, err);
        if (status) status = cllm_fail_context(err, status, "added token %zu", i);
    }
    return status ? status : cllm_added_prepare(&tokenizer->added, err);
}

/* -------------------------------------------------------------------------------------------------------- whole file */

#define SECTION(key, array, table, list)                                                                                         \
    (struct section)                                                                                                             \
    {                                                                                                                            \
        .name = key, .array_key = array, .components = table, .component_count = sizeof table / sizeof table[0],                 \
        .tokenizer = tokenizer, .steps = list, .err = err                                                                        \
    }

static enum cllm_status parse_root(const json_t *root, struct cllm_tokenizer *tokenizer, struct cllm_error *err)
{
    const json_t *version = json_object_get(root, "version"), *decoder = json_object_get(root, "decoder");
    if (!json_is_object(root)) return cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "is %s, expected an object", type_name(root));
    if (version && !string_is(version, "1.0")) {
        return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, "unknown version, \"1.0\" is supported");
    }
    enum cllm_status status = parse_section(SECTION("normalizer", "normalizers", normalizers, &tokenizer->normalizer), root);
    if (!status) {
        status = parse_section(SECTION("pre_tokenizer", "pretokenizers", pre_tokenizers, &tokenizer->pre_tokenizer), root);
    }
    if (!status) status = parse_section(SECTION("decoder", "decoders", decoders, &tokenizer->decoder), root);
    if (!status) status = parse_section(SECTION("post_processor", "processors", post_processors, NULL), root);
    if (!status) status = parse_model(root, &tokenizer->bpe, err);
    if (!status) status = parse_added_tokens(root, tokenizer, err);
    if (status || (decoder && !json_is_null(decoder))) return status;
    struct cllm_step *step;
    return cllm_steps_append(&tokenizer->decoder, CLLM_STEP_DECODE_JOIN, &step, err);
}

static enum cllm_status fail_json(const json_error_t *error, struct cllm_error *err)
{
    enum json_error_code code = json_error_code(error);
    enum cllm_status status = code == json_error_out_of_memory   ? CLLM_E_NOMEM
                              : code == json_error_duplicate_key ? CLLM_E_CORRUPT
                                                                 : CLLM_E_FORMAT;
    char text[JSON_ERROR_TEXT_LENGTH];
    uint64_t offset = error->position >= 0 ? (uint64_t)error->position : CLLM_NO_OFFSET;
    return cllm_fail(err, status, offset, "line %d: %s", error->line,
                     cllm_escape(error->text, strlen(error->text), text, sizeof text));
}

enum cllm_status cllm_tokenizer_parse(const void *json, size_t json_bytes, struct cllm_tokenizer *tokenizer,
                                      struct cllm_error *err)
{
    if (json_bytes > JSON_BYTES_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "%zu bytes, at most %zu are read", json_bytes, JSON_BYTES_MAX);
    }
    json_error_t error;
    json_t *root = json_loadb(json_bytes ? json : "", json_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!root) return fail_json(&error, err);
    enum cllm_status status = parse_root(root, tokenizer, err);
    json_decref(root);
    return status;
}

/* test_tokenizer.c - tokenizer.json, component by component, malformed, and against the reference library's results. */
#include "tokenizer.h"
#include "tokenizer_jsonl.h"

#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SHARED "../shared/data/"

/* A tokenizer.json under construction: sections as JSON text, null where not set. Of the model, the vocabulary is every
 * character of `characters`, alone and with the end-of-word suffix "|", so that tokens show where words end. */
struct parts {
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder, *added_tokens, *model;
};

static const char characters[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,-'!_()\xC3\xA9\xE2\x96\x81\xC4\xA0"
    "\xC4\x8A\xE2\x88\x9A\xC2\xA9\xC3\x83\n";

static json_t *parse_part(const char *text)
{
    if (!text) return json_null();
    json_error_t error;
    json_t *json = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!json) print_error("%s: %s\n", text, error.text);
    assert_non_null(json);
    return json;
}

static json_t *word_model(void)
{
    json_t *vocab = json_object(), *model = json_object();
    json_object_set_new(vocab, "<unk>", json_integer(0));
    for (const char *at = characters; *at;) {
        char token[8] = {0};
        size_t length = 1;
        while (((unsigned char)at[length] & 0xC0) == 0x80) length++;
        memcpy(token, at, length);
        at += length;
        json_object_set_new(vocab, token, json_integer((json_int_t)json_object_size(vocab)));
        strcat(token, "|");
        json_object_set_new(vocab, token, json_integer((json_int_t)json_object_size(vocab)));
    }
    json_object_set_new(model, "type", json_string("BPE"));
    json_object_set_new(model, "unk_token", json_string("<unk>"));
    json_object_set_new(model, "end_of_word_suffix", json_string("|"));
    json_object_set_new(model, "vocab", vocab);
    json_object_set_new(model, "merges", json_array());
    return model;
}

static json_t *build_json(struct parts parts)
{
    json_t *root = json_object();
    json_object_set_new(root, "version", json_string("1.0"));
    json_object_set_new(root, "added_tokens", parts.added_tokens ? parse_part(parts.added_tokens) : json_array());
    json_object_set_new(root, "normalizer", parse_part(parts.normalizer));
    json_object_set_new(root, "pre_tokenizer", parse_part(parts.pre_tokenizer));
    json_object_set_new(root, "post_processor", parse_part(parts.post_processor));
    json_object_set_new(root, "decoder", parse_part(parts.decoder));
    json_object_set_new(root, "model", parts.model ? parse_part(parts.model) : word_model());
    return root;
}

static enum cllm_status try_json(json_t *root, struct cllm_tokenizer **tokenizer_out, struct cllm_error *err)
{
    char *text = json_dumps(root, JSON_ENCODE_ANY);
    assert_non_null(text);
    enum cllm_status status = cllm_tokenizer_create(text, strlen(text), tokenizer_out, err);
    free(text);
    return status;
}

static struct cllm_tokenizer *create(struct parts parts)
{
    struct cllm_error err = {0};
    struct cllm_tokenizer *tokenizer = NULL;
    json_t *root = build_json(parts);
    if (try_json(root, &tokenizer, &err)) print_error("%s\n", err.message);
    json_decref(root);
    assert_non_null(tokenizer);
    return tokenizer;
}

/* The tokens of the text, one after another, with `between` between them. */
static void spell(const struct cllm_tokenizer *tokenizer, const char *text, size_t text_bytes, bool add_special,
                  const char *between, char *out)
{
    struct cllm_error err = {0};
    uint32_t *ids;
    size_t count;
    assert_int_equal(cllm_tokenizer_encode(tokenizer, text, text_bytes, add_special, &ids, &count, &err), CLLM_OK);
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *token = cllm_tokenizer_token(tokenizer, ids[i], &length);
        assert_non_null(token);
        if (i) strcat(out, between);
        strncat(out, token, length);
    }
    free(ids);
}

/* Words end in "|". */
static void assert_words(struct parts parts, const char *text, const char *expected)
{
    char found[512];
    struct cllm_tokenizer *tokenizer = create(parts);
    spell(tokenizer, text, strlen(text), true, "", found);
    cllm_tokenizer_destroy(tokenizer);
    assert_string_equal(found, expected);
}

static void assert_tokens(struct parts parts, const char *text, const char *expected)
{
    char found[512];
    struct cllm_tokenizer *tokenizer = create(parts);
    spell(tokenizer, text, strlen(text), true, " ", found);
    cllm_tokenizer_destroy(tokenizer);
    assert_string_equal(found, expected);
}

/* ------------------------------------------------------------------------------------------------------------- model */

#define VOCAB_ABC "\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"c\":3,\"ab\":4,\"bc\":5,\"abc\":6,\"aa\":7,\"aaa\":8}"
#define BPE(options, merges) "{\"type\":\"BPE\"," options VOCAB_ABC ",\"merges\":" merges "}"

static void test_bpe_merges_lowest_rank_first(void **state)
{
    (void)state;
    assert_tokens((struct parts){.model = BPE("", "[\"b c\",\"a b\"]")}, "abc", "a bc");
    assert_tokens((struct parts){.model = BPE("", "[\"a b\",\"b c\"]")}, "abc", "ab c");
}

static void test_bpe_merges_leftmost_of_equal_rank(void **state)
{
    (void)state;
    assert_tokens((struct parts){.model = BPE("", "[\"a a\"]")}, "aaaaa", "aa aa a");
}

static void test_bpe_merges_merged_tokens(void **state)
{
    (void)state;
    assert_tokens((struct parts){.model = BPE("", "[[\"a\",\"b\"],[\"ab\",\"c\"]]")}, "abcab", "abc ab");
}

static void test_bpe_merges_may_be_pairs_or_strings(void **state)
{
    (void)state;
    assert_tokens((struct parts){.model = BPE("", "[\"#version: 0.2\",\"a b\",[\"ab\",\"c\"]]")}, "abc", "abc");
}

static void test_bpe_without_type_is_bpe(void **state)
{
    (void)state;
    assert_tokens((struct parts){.model = "{" VOCAB_ABC ",\"merges\":[\"a b\"]}"}, "abc", "ab c");
}

static void test_bpe_drops_unknown_characters_without_unk_token(void **state)
{
    (void)state;
    assert_tokens((struct parts){.model = BPE("", "[]")}, "a?b", "a b");
}

static void test_bpe_fuses_unknown_characters_only_if_asked(void **state)
{
    (void)state;
    assert_tokens((struct parts){.model = BPE("\"unk_token\":\"<unk>\",", "[]")}, "a??b?", "a <unk> <unk> b <unk>");
    assert_tokens((struct parts){.model = BPE("\"unk_token\":\"<unk>\",\"fuse_unk\":true,", "[]")}, "a??b?", "a <unk> b <unk>");
}

static void test_bpe_byte_fallback_needs_every_byte(void **state)
{
    (void)state;
    const char *model =
        "{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"<0xC3>\":1,\"<0xA9>\":2},"
        "\"merges\":[]}";
    assert_tokens((struct parts){.model = model}, "\xC3\xA9", "<0xC3> <0xA9>");
    assert_tokens((struct parts){.model = model}, "\xC3\xA8", "u");
}

static void test_bpe_ignore_merges_takes_whole_words(void **state)
{
    (void)state;
    assert_tokens((struct parts){.model = BPE("", "[]")}, "abc", "a b c");
    assert_tokens((struct parts){.model = BPE("\"ignore_merges\":true,", "[]")}, "abc", "abc");
}

static void test_bpe_prefix_and_suffix_mark_place_in_word(void **state)
{
    (void)state;
    const char *model = "{\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\",\"end_of_word_suffix\":\"/\",\"vocab\":{\"a\":0,"
                        "\"##b\":1,\"##c/\":2,\"ab\":3},\"merges\":[\"a ##b\"]}";
    assert_tokens((struct parts){.model = model}, "abc", "ab ##c/");
}

static void test_bpe_unk_token_may_be_missing_until_needed(void **state)
{
    (void)state;
    struct cllm_error err = {0};
    uint32_t *ids;
    size_t count;
    struct cllm_tokenizer *tokenizer = create((struct parts){.model = BPE("\"unk_token\":\"none\",", "[]")});
    assert_int_equal(cllm_tokenizer_encode(tokenizer, "a", 1, true, &ids, &count, &err), CLLM_OK);
    free(ids);
    assert_int_equal(cllm_tokenizer_encode(tokenizer, "?", 1, true, &ids, &count, &err), CLLM_E_CORRUPT);
    assert_null(ids);
    assert_non_null(strstr(err.message, "none"));
    cllm_tokenizer_destroy(tokenizer);
}

/* ------------------------------------------------------------------------------------------------------- normalizers */

static void test_normalizer_forms(void **state)
{
    (void)state;
    assert_words((struct parts){.normalizer = "{\"type\":\"NFC\"}"}, "e\xCC\x81", "\xC3\xA9|");
    assert_words((struct parts){.normalizer = "{\"type\":\"NFD\"}"}, "\xC3\xA9.", "e<unk>.|");
    assert_words((struct parts){.normalizer = "{\"type\":\"NFKC\"}"}, "\xEF\xAC\x81", "fi|");
    assert_words((struct parts){.normalizer = "{\"type\":\"NFKD\"}"}, "\xEF\xAC\x81", "fi|");
}

static void test_normalizer_orders_long_runs_of_marks(void **state)
{
    (void)state;
    struct cllm_tokenizer *tokenizer = create((struct parts){.normalizer = "{\"type\":\"NFC\"}"});
    enum { MARKS = 200000 };
    char *text = malloc(1 + 4 * MARKS);
    uint32_t *ids;
    size_t count;
    assert_non_null(text);
    text[0] = 'e';
    for (size_t i = 0; i < MARKS; i++) memcpy(text + 1 + 4 * i, "\xCC\x96\xCC\x81", 4); /* below, above */
    assert_int_equal(cllm_tokenizer_encode(tokenizer, text, 1 + 4 * MARKS, true, &ids, &count, NULL), CLLM_OK);
    assert_int_equal(count, 2 * MARKS); /* all marks but the acute that went into the first character */
    assert_int_equal(ids[0], cllm_tokenizer_find(tokenizer, "\xC3\xA9", 2));
    free(ids);
    free(text);
    cllm_tokenizer_destroy(tokenizer);
}

static void test_normalizer_lowercase(void **state)
{
    (void)state;
    assert_words((struct parts){.normalizer = "{\"type\":\"Lowercase\"}"}, "ABc\xC3\x89", "abc\xC3\xA9|");
}

static void test_normalizer_strip(void **state)
{
    (void)state;
    const char *both = "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}";
    const char *left = "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}";
    assert_words((struct parts){.normalizer = both}, " \xC2\xA0 a b \n", "a b|");
    assert_words((struct parts){.normalizer = left}, " a b ", "a b |");
    assert_words((struct parts){.normalizer = both}, "  ", "");
}

static void test_normalizer_prepend_skips_empty_text(void **state)
{
    (void)state;
    struct parts parts = {.normalizer = "{\"type\":\"Prepend\",\"prepend\":\"_\"}"};
    assert_words(parts, "ab", "_ab|");
    assert_words(parts, "", "");
}

static void test_normalizer_replace(void **state)
{
    (void)state;
    assert_words((struct parts){.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\".\"},\"content\":\"--\"}"}, "a.b",
                 "a--b|");
    assert_words((struct parts){.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"b+\"},\"content\":\"_\"}"}, "abba",
                 "a_a|");
}

static void test_normalizer_sequence_runs_in_order(void **state)
{
    (void)state;
    const char *sequence =
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"A\"},{\"type\":\"Lowercase\"},"
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"B\"}]}]}";
    assert_words((struct parts){.normalizer = sequence}, "C", "Bac|");
}

/* ---------------------------------------------------------------------------------------------------- pre-tokenizers */

#define SPLIT(pattern, behavior, invert)                                                                                         \
    "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":" invert "}"
#define DASH "{\"String\":\"-\"}"

static void test_split_behaviors(void **state)
{
    (void)state;
    const char *text = "the-final--end";
    assert_words((struct parts){.pre_tokenizer = SPLIT(DASH, "Removed", "false")}, text, "the|final|end|");
    assert_words((struct parts){.pre_tokenizer = SPLIT(DASH, "Isolated", "false")}, text, "the|-|final|-|-|end|");
    assert_words((struct parts){.pre_tokenizer = SPLIT(DASH, "MergedWithPrevious", "false")}, text, "the-|final-|-|end|");
    assert_words((struct parts){.pre_tokenizer = SPLIT(DASH, "MergedWithNext", "false")}, text, "the|-final|-|-end|");
    assert_words((struct parts){.pre_tokenizer = SPLIT(DASH, "Contiguous", "false")}, text, "the|-|final|--|end|");
}

static void test_split_inverted_keeps_the_matches(void **state)
{
    (void)state;
    assert_words((struct parts){.pre_tokenizer = SPLIT("{\"Regex\":\"[a-z]+\"}", "Removed", "true")}, "ab-c", "ab|c|");
}

static void test_split_by_empty_pattern_splits_every_character(void **state)
{
    (void)state;
    assert_words((struct parts){.pre_tokenizer = SPLIT("{\"String\":\"\"}", "Isolated", "false")},
                 "a\xC3\xA9"
                 "b",
                 "a|\xC3\xA9|b|");
}

/* Where Oniguruma, which the patterns are written for, and PCRE2 differ. */
static void test_regex_follows_oniguruma(void **state)
{
    (void)state;
    static const struct {
        const char *regex, *text, *expected; /* split Isolated */
    } cases[] = {
        {"[0-9]{1,2}+", "12345a", "12345|a|"}, /* not possessive */
        {"a{,2}", "aaab", "aa|a|b|"},          /* {0,2} */
        {"x(?i)a|b", "xAB xb", "xA|B |xb|"},   /* the option reaches over the bar */
        {"(?m:a.)", "a\nb", "a\n|b|"},         /* m: dot matches newline */
        {"^b", "a\nb", "a\n|b|"},              /* always by line */
        {"\\\\h+", "fg", "f|g|"},              /* hex digits */
        {"\\\\u0061", "ba", "b|a|"},           /* \u */
        {"\\\\x{61}", "ba", "b|a|"},
        {"\\\\w+",
         "e\xCC\x81"
         "a-b",
         "e<unk>a|-|b|"}, /* marks are word characters */
        {"\\\\s",
         "a\xE1\xA0\x8E"
         "b",
         "a<unk>b|"}, /* U+180E is no space */
        {"\\\\bb", "ab b", "ab |b|"},
        {"[^\\\\S\\\\n]+", "a \nb", "a| |\nb|"},
        {"(?i:'s|'t)", "a'S", "a|'S|"},
        {"a++", "aab", "aa|b|"}, /* possessive */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char split[256];
        snprintf(split, sizeof split, SPLIT("{\"Regex\":\"%s\"}", "Isolated", "false"), cases[i].regex);
        assert_words((struct parts){.pre_tokenizer = split}, cases[i].text, cases[i].expected);
    }
}

static void test_regex_knows_newer_characters(void **state)
{
    (void)state;
    /* U+2EBF0 (Unicode 15.1) is a letter, U+1E4F0 (15.0) a digit. */
    struct parts parts = {.pre_tokenizer = SPLIT("{\"Regex\":\"\\\\p{Lo}|a\"}", "Removed", "false")};
    assert_words(parts,
                 "a\xF0\xAE\xAF\xB0"
                 "b",
                 "b|");
    parts.pre_tokenizer = SPLIT("{\"Regex\":\"\\\\p{Nd}|a\"}", "Removed", "false");
    assert_words(parts,
                 "a\xF0\x9E\x93\xB0"
                 "b",
                 "b|");
}

static void test_byte_level_maps_bytes_and_splits(void **state)
{
    (void)state;
    struct parts parts = {.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"};
    assert_words(parts, "it's so\n", "it|'s|\xC4\xA0so|\xC4\x8A|");
    assert_words(parts, "\xC3\xA9", "\xC3\x83\xC2\xA9|");
    parts.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":false}";
    assert_words(parts, "it is", "\xC4\xA0it\xC4\xA0is|");
    assert_words(parts, " it", "\xC4\xA0it|");
}

static void test_digits(void **state)
{
    (void)state;
    assert_words((struct parts){.pre_tokenizer = "{\"type\":\"Digits\",\"individual_digits\":true}"}, "a12", "a|1|2|");
    assert_words((struct parts){.pre_tokenizer = "{\"type\":\"Digits\",\"individual_digits\":false}"}, "a12b", "a|12|b|");
}

static void test_punctuation(void **state)
{
    (void)state;
    assert_words((struct parts){.pre_tokenizer = "{\"type\":\"Punctuation\"}"}, "a!!b", "a|!|!|b|");
    assert_words((struct parts){.pre_tokenizer = "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}"}, "a!.b", "a|!.|b|");
}

static void test_whitespace(void **state)
{
    (void)state;
    assert_words((struct parts){.pre_tokenizer = "{\"type\":\"Whitespace\"}"}, " a_1-- b\n", "a_1|--|b|");
    assert_words((struct parts){.pre_tokenizer = "{\"type\":\"WhitespaceSplit\"}"}, " a_1-- b\n", "a_1--|b|");
}

#define METASPACE(scheme, split)                                                                                                 \
    "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"" scheme "\",\"split\":" split "}"
#define ADDED(id, content, single, left, right, normal, special)                                                                 \
    "{\"id\":" #id ",\"content\":\"" content "\",\"single_word\":" single ",\"lstrip\":" left ",\"rstrip\":" right               \
    ",\"normalized\":" normal ",\"special\":" special "}"

static void test_metaspace_schemes(void **state)
{
    (void)state;
    struct parts parts = {.added_tokens = "[" ADDED(999, "<s>", "false", "false", "false", "false", "true") "]"};
    parts.pre_tokenizer = METASPACE("always", "true");
    assert_words(parts, "a b<s>c", "_a|_b|<s>_c|");
    parts.pre_tokenizer = METASPACE("first", "true");
    assert_words(parts, "a b<s>c", "_a|_b|<s>c|");
    assert_words(parts, "<s>c", "<s>c|");
    assert_words(parts, " a", "_a|");
    parts.pre_tokenizer = METASPACE("never", "false");
    assert_words(parts, "a b<s>c", "a_b|<s>c|");
}

static void test_metaspace_first_sees_through_earlier_steps(void **state)
{
    (void)state;
    struct parts parts = {
        .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":false}," METASPACE(
            "first", "false") "]}"};
    assert_words(parts, "a1b", "_a|1|b|");
    parts.normalizer = "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}";
    assert_words(parts, " a1b", "a|1|b|"); /* as the reference: the start of the input is gone */
}

/* ------------------------------------------------------------------------------------------------------ added tokens */

static void test_added_longest_wins(void **state)
{
    (void)state;
    struct parts parts = {.added_tokens = "[" ADDED(999, "<a>", "false", "false", "false", "false", "true") "," ADDED(
                              1000, "<a>b", "false", "false", "false", "false",
                              "false") "," ADDED(1001, "a><", "false", "false", "false", "false", "false") "]"};
    assert_tokens(parts, "x<a>bc<a>", "x| <a>b c| <a>");
    assert_tokens(parts, "a><a>", "a>< a <unk>"); /* leftmost before longest */
}

static void test_added_strips_spaces(void **state)
{
    (void)state;
    struct parts parts = {.added_tokens = "[" ADDED(999, "<l>", "false", "true", "false", "false", "true") "," ADDED(
                              1000, "<r>", "false", "false", "true", "false", "true") "]"};
    assert_words(parts, "a  <l> b", "a|<l> b|");
    assert_words(parts, "a <r> \n b", "a |<r>b|");
    assert_words(parts, "<r>  <l>", "<r><l>");
}

static void test_added_single_word(void **state)
{
    (void)state;
    struct parts parts = {.added_tokens = "[" ADDED(999, "cat", "true", "false", "false", "false", "false") "]"};
    assert_tokens(parts, "cat", "cat");
    assert_tokens(parts, ".cat.", ".| cat .|");
    assert_tokens(parts, "cats", "c a t s|");
    assert_tokens(parts,
                  "\xC3\xA9"
                  "cat",
                  "\xC3\xA9 c a t|");
}

static void test_added_normalized_matches_after_normalization(void **state)
{
    (void)state;
    struct parts parts = {.normalizer = "{\"type\":\"Lowercase\"}",
                          .added_tokens = "[" ADDED(999, "<X>", "false", "false", "false", "true", "false") "," ADDED(
                              1000, "<Y>", "false", "false", "false", "false", "false") "]"};
    assert_words(parts, "a<x>B", "a|<x>b|");
    assert_words(parts, "a<Y>B", "a|<Y>b|");
    struct cllm_tokenizer *tokenizer = create(parts);
    char found[64];
    spell(tokenizer, "<y>", 3, true, " ", found);
    assert_string_equal(found, "<unk> y <unk>");
    cllm_tokenizer_destroy(tokenizer);
}

static void test_normalizer_runs_on_each_side_of_an_added_token(void **state)
{
    (void)state;
    struct parts parts = {.normalizer = "{\"type\":\"Prepend\",\"prepend\":\"_\"}",
                          .added_tokens = "[" ADDED(999, "<s>", "false", "false", "false", "false", "true") "]"};
    assert_words(parts, "a<s>b", "_a|<s>_b|");
    assert_words(parts, "<s>", "<s>");
}

static void test_added_ids_follow_the_vocabulary(void **state)
{
    (void)state;
    struct parts parts = {.model = BPE("", "[]"),
                          .added_tokens = "[" ADDED(9, "<s>", "false", "false", "false", "false", "true") "," ADDED(
                              6, "abc", "false", "false", "false", "false", "false") "," ADDED(10, "<t>", "false", "false",
                                                                                               "false", "false", "true") "]"};
    struct cllm_tokenizer *tokenizer = create(parts);
    assert_int_equal(cllm_tokenizer_find(tokenizer, "<s>", 3), 9);
    assert_int_equal(cllm_tokenizer_find(tokenizer, "abc", 3), 6);
    assert_int_equal(cllm_tokenizer_find(tokenizer, "<t>", 3), 10);
    assert_int_equal(cllm_tokenizer_find(tokenizer, "none", 4), CLLM_NO_TOKEN);
    assert_int_equal(cllm_tokenizer_vocab_size(tokenizer), 11);
    assert_true(cllm_tokenizer_is_special(tokenizer, 9));
    assert_false(cllm_tokenizer_is_special(tokenizer, 6));
    assert_false(cllm_tokenizer_is_special(tokenizer, 11));
    cllm_tokenizer_destroy(tokenizer);
}

/* --------------------------------------------------------------------------------------------------- post-processors */

#define TEMPLATE                                                                                                                 \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"X\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","  \
    "\"type_id\":0}},{\"SpecialToken\":{\"id\":\"Y\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"X\":{\"id\":\"X\","      \
    "\"ids\":[1,2],"                                                                                                             \
    "\"tokens\":[\"a\",\"b\"]},\"Y\":{\"id\":\"Y\",\"ids\":[3],\"tokens\":[\"c\"]}}}"

static void test_template_surrounds_the_text(void **state)
{
    (void)state;
    char found[64];
    const char *sequence = "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\",\"trim_offsets\":true}," TEMPLATE "]}";
    struct cllm_tokenizer *tokenizer = create((struct parts){.model = BPE("", "[\"b c\"]"), .post_processor = sequence});
    spell(tokenizer, "bc", 2, true, " ", found);
    assert_string_equal(found, "a b bc c");
    spell(tokenizer, "bc", 2, false, " ", found);
    assert_string_equal(found, "bc");
    spell(tokenizer, "", 0, true, " ", found);
    assert_string_equal(found, "a b c");
    cllm_tokenizer_destroy(tokenizer);
}

/* ---------------------------------------------------------------------------------------------------------- decoders */

#define DECODE_VOCAB                                                                                                             \
    "{\"type\":\"BPE\",\"vocab\":{\"_Hi\":0,\"_there\":1,\"<0xE4>\":2,\"<0xBD>\":3,\"<0xA0>\":4,\"<0x0A>\":5,\"\xC4\xA0x\":6,"   \
    "\"\xC3\x83\":7,"                                                                                                            \
    "\"\xC2\xA9\":8,\"a\":9,\"  b\":10,\"<0x+5>\":11,\"\xE4\xBD\xA0\":12,\"ba\":13,\"\":14},\"merges\":[]}"

static void assert_decodes(const char *decoder, const uint32_t *ids, size_t count, const char *expected)
{
    struct cllm_tokenizer *tokenizer =
        create((struct parts){.model = DECODE_VOCAB,
                              .decoder = decoder,
                              .added_tokens = "[" ADDED(15, "<s>", "false", "false", "false", "false", "true") "]"});
    struct cllm_detokenizer *stream;
    char *text, joined[256] = "";
    const char *part;
    size_t text_bytes, part_bytes;
    assert_int_equal(cllm_tokenizer_decode(tokenizer, ids, count, true, &text, &text_bytes, NULL), CLLM_OK);
    assert_string_equal(text, expected);
    assert_int_equal(text_bytes, strlen(expected));
    free(text);
    assert_int_equal(cllm_detokenizer_create(tokenizer, true, &stream, NULL), CLLM_OK);
    for (int round = 0; round < 2; round++) { /* finish makes it ready for another sequence */
        joined[0] = 0;
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(cllm_detokenizer_push(stream, ids[i], &part, &part_bytes, NULL), CLLM_OK);
            assert_int_equal(part_bytes, strlen(part));
            strcat(joined, part);
        }
        assert_int_equal(cllm_detokenizer_finish(stream, &part, &part_bytes, NULL), CLLM_OK);
        strcat(joined, part);
        assert_string_equal(joined, expected);
    }
    cllm_detokenizer_destroy(stream);
    cllm_tokenizer_destroy(tokenizer);
}

#define IDS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)
#define LLAMA_DECODER                                                                                                            \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" "                  \
    "\"},{\"type\":\"ByteFallback\"},"                                                                                           \
    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"

static void test_decode_without_decoder_joins_with_spaces(void **state)
{
    (void)state;
    assert_decodes(NULL, IDS(0, 9), "_Hi a");
}

static void test_decode_leaves_out_unknown_and_special_ids(void **state)
{
    (void)state;
    assert_decodes(NULL, IDS(15, 0, 99, UINT32_MAX, 9), "_Hi a");
}

static void test_decode_llama_style(void **state)
{
    (void)state;
    assert_decodes(LLAMA_DECODER, IDS(0, 1, 5, 0), "Hi there\n Hi");
    assert_decodes(LLAMA_DECODER, IDS(2, 3, 4, 9),
                   "\xE4\xBD\xA0"
                   "a");
}

static void test_decode_judges_runs_of_byte_tokens_as_one(void **state)
{
    (void)state;
    assert_decodes(LLAMA_DECODER, IDS(9, 2, 3, 9),
                   "a\xEF\xBF\xBD\xEF\xBF\xBD"
                   "a");
    assert_decodes(LLAMA_DECODER, IDS(5, 2), "\xEF\xBF\xBD\xEF\xBF\xBD"); /* a newline, and the start of a character */
    assert_decodes(LLAMA_DECODER, IDS(11), "\x05");
}

static void test_decode_byte_level(void **state)
{
    (void)state;
    const char *decoder = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true}";
    assert_decodes(decoder, IDS(6, 7, 8), " x\xC3\xA9");
    assert_decodes(decoder, IDS(7, 9),
                   "\xEF\xBF\xBD"
                   "a");
    assert_decodes(decoder, IDS(7), "\xEF\xBF\xBD");
    assert_decodes(decoder, IDS(12), "\xE4\xBD\xA0"); /* not of the alphabet: as it is */
}

static void test_decode_metaspace_drops_the_first_one_only(void **state)
{
    (void)state;
    assert_decodes(METASPACE("always", "true"), IDS(0, 1), "Hi there");
    assert_decodes(METASPACE("never", "true"), IDS(0, 1), " Hi there");
}

static void test_decode_strip_per_token_and_whole(void **state)
{
    (void)state;
    assert_decodes("{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}", IDS(10, 10), " b b");
    assert_decodes("{\"type\":\"Strip\",\"content\":\"a\",\"start\":0,\"stop\":1}", IDS(13, 13), "bb");
    assert_decodes("{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\"a\",\"start\":2,"
                   "\"stop\":1}]}",
                   IDS(9, 9, 9, 13, 9, 9), "abaa");
}

static void test_decode_replace_on_the_fused_text(void **state)
{
    (void)state;
    assert_decodes(
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"aa\"},"
        "\"content\":\"-\"}]}",
        IDS(9, 9, 9), "-a");
}

static void test_detokenizer_holds_half_characters(void **state)
{
    (void)state;
    struct cllm_tokenizer *tokenizer = create((struct parts){
        .model = DECODE_VOCAB, .decoder = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true}"});
    struct cllm_detokenizer *stream;
    const char *part;
    size_t part_bytes;
    assert_int_equal(cllm_detokenizer_create(tokenizer, true, &stream, NULL), CLLM_OK);
    assert_int_equal(cllm_detokenizer_push(stream, 7, &part, &part_bytes, NULL), CLLM_OK);
    assert_int_equal(part_bytes, 0);
    assert_int_equal(cllm_detokenizer_push(stream, 8, &part, &part_bytes, NULL), CLLM_OK);
    assert_string_equal(part, "\xC3\xA9");
    cllm_detokenizer_destroy(stream);
    cllm_tokenizer_destroy(tokenizer);
}

/* -------------------------------------------------------------------------------------------------------------- text */

static void test_ill_formed_text_becomes_replacement_characters(void **state)
{
    (void)state;
    const char *model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\xEF\xBF\xBD\":1,\"\\u00e9\":2},\"merges\":[]}";
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"a\xFF"
         "a",
         "a ? a"},
        {"\xC3", "?"},
        {"\xC3\xA9", "\xC3\xA9"},
        {"\xE4\xBD"
         "a",
         "? a"},
        {"\xC0\xAF", "? ?"},
        {"\xED\xA0\x80", "? ? ?"},
        {"\xF0\x9F\x98", "?"},
        {"\xF4\x90\x80\x80", "? ? ? ?"},
        {"\x80\x80"
         "a",
         "? ? a"},
        {"\xF0\x9F"
         "\xC3\xA9",
         "? \xC3\xA9"},
    };
    struct cllm_tokenizer *tokenizer = create((struct parts){.model = model});
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char found[128], expected[128] = "";
        for (const char *at = cases[i].expected; *at; at++) {
            char one[2] = {*at, 0};
            strcat(expected, *at == '?' ? "\xEF\xBF\xBD" : one);
        }
        spell(tokenizer, cases[i].text, strlen(cases[i].text), true, " ", found);
        assert_string_equal(found, expected);
    }
    cllm_tokenizer_destroy(tokenizer);
}

static void test_zero_bytes_are_characters(void **state)
{
    (void)state;
    struct parts parts = {.pre_tokenizer =
                              "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}",
                          .model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\xC4\x80\":1},\"merges\":[]}"};
    struct cllm_tokenizer *tokenizer = create(parts);
    char found[64];
    spell(tokenizer, "a\0a", 3, true, " ", found);
    assert_string_equal(found, "a \xC4\x80 a");
    cllm_tokenizer_destroy(tokenizer);
}

static void test_empty_text_has_no_ids(void **state)
{
    (void)state;
    struct cllm_tokenizer *tokenizer = create((struct parts){0});
    uint32_t *ids;
    size_t count = 1;
    assert_int_equal(cllm_tokenizer_encode(tokenizer, "", 0, true, &ids, &count, NULL), CLLM_OK);
    assert_int_equal(count, 0);
    assert_null(ids);
    assert_int_equal(cllm_tokenizer_encode(tokenizer, NULL, 0, true, &ids, &count, NULL), CLLM_OK);
    cllm_tokenizer_destroy(tokenizer);
}

static void test_long_words_take_little_time(void **state)
{
    (void)state;
    enum { LENGTH = 1000000 }; /* minutes, were it quadratic */
    struct cllm_tokenizer *tokenizer = create((struct parts){.model = BPE("", "[\"a a\",\"aa a\"]")});
    char *text = malloc(LENGTH);
    uint32_t *ids;
    size_t count;
    assert_non_null(text);
    memset(text, 'a', LENGTH);
    assert_int_equal(cllm_tokenizer_encode(tokenizer, text, LENGTH, true, &ids, &count, NULL), CLLM_OK);
    assert_int_equal(count, LENGTH / 2);
    free(ids);
    free(text);
    cllm_tokenizer_destroy(tokenizer);
}

static void test_runaway_regex_ends_in_limit(void **state)
{
    (void)state;
    struct cllm_tokenizer *tokenizer =
        create((struct parts){.pre_tokenizer = SPLIT("{\"Regex\":\"(?:a+)+[bc]\"}", "Isolated", "false")});
    char text[65];
    struct cllm_error err = {0};
    uint32_t *ids;
    size_t count;
    memset(text, 'a', sizeof text);
    assert_int_equal(cllm_tokenizer_encode(tokenizer, text, sizeof text, true, &ids, &count, &err), CLLM_E_LIMIT);
    assert_non_null(strstr(err.message, "regex"));
    cllm_tokenizer_destroy(tokenizer);
}

static void *encode_often(void *argument)
{
    const struct cllm_tokenizer *tokenizer = argument;
    char found[128];
    for (int i = 0; i < 200; i++) {
        spell(tokenizer, "it's so\n", 8, true, "", found);
        assert_string_equal(found, "it|'s|\xC4\xA0so|\xC4\x8A|");
    }
    return NULL;
}

static void test_threads_share_a_tokenizer(void **state)
{
    (void)state;
    pthread_t threads[4];
    struct cllm_tokenizer *tokenizer =
        create((struct parts){.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"});
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, encode_often, tokenizer), 0);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    cllm_tokenizer_destroy(tokenizer);
}

/* --------------------------------------------------------------------------------------------------------- bad files */

static void assert_refused(struct parts parts, enum cllm_status expected, const char *word)
{
    struct cllm_error err = {0};
    struct cllm_tokenizer *tokenizer = NULL;
    json_t *root = build_json(parts);
    enum cllm_status status = try_json(root, &tokenizer, &err);
    json_decref(root);
    if (status != expected || !strstr(err.message, word))
        print_error("expected \"%s\", found %d: %s\n", word, (int)status, err.message);
    assert_int_equal(status, expected);
    assert_int_equal(err.status, expected);
    assert_null(tokenizer);
    assert_non_null(strstr(err.message, word));
}

static void test_unknown_components_are_named(void **state)
{
    (void)state;
    enum cllm_status status = CLLM_E_UNSUPPORTED;
    assert_refused((struct parts){.normalizer = "{\"type\":\"Precompiled\"}"}, status, "normalizer type \"Precompiled\"");
    assert_refused((struct parts){.normalizer = "{\"type\":\"Precompiled\"}"}, status, "NFKC");
    assert_refused((struct parts){.pre_tokenizer = "{\"type\":\"UnicodeScripts\"}"}, status, "UnicodeScripts");
    assert_refused((struct parts){.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Bert\"}]}"}, status,
                   "Bert");
    assert_refused((struct parts){.decoder = "{\"type\":\"WordPiece\"}"}, status, "WordPiece");
    assert_refused((struct parts){.post_processor = "{\"type\":\"RobertaProcessing\"}"}, status, "RobertaProcessing");
    assert_refused((struct parts){.model = "{\"type\":\"Unigram\"}"}, status, "Unigram");
    assert_refused((struct parts){.model = BPE("\"dropout\":0.1,", "[]")}, status, "dropout");
    assert_refused((struct parts){.post_processor = "{\"type\":\"Sequence\",\"processors\":[" TEMPLATE "," TEMPLATE "]}"}, status,
                   "more than one template");
}

static void test_regexes_that_cannot_be_translated_are_refused(void **state)
{
    (void)state;
    static const char *const regexes[] = {"[a&&b]", "[a[b]]", "(?x)a",   "(?~a)",   "a**",       "(",     ")",
                                          "[a",     "\\\\Qa", "\\\\",    "[\\\\W]", "(*ACCEPT)", "\\\\C", "\\\\p{Nonsense}",
                                          "\\\\pL", "(?R)",   "\\\\u12", "\\\\xe9", "(?P<a>b)"};
    for (size_t i = 0; i < sizeof regexes / sizeof regexes[0]; i++) {
        char split[256];
        snprintf(split, sizeof split, SPLIT("{\"Regex\":\"%s\"}", "Isolated", "false"), regexes[i]);
        assert_refused((struct parts){.pre_tokenizer = split}, CLLM_E_UNSUPPORTED, "regex");
    }
}

static void test_contradictions_are_corrupt(void **state)
{
    (void)state;
    enum cllm_status status = CLLM_E_CORRUPT;
    assert_refused((struct parts){.model = BPE("", "[\"a x\"]")}, status, "\"x\"");
    assert_refused((struct parts){.model = BPE("", "[\"a c\"]")}, status, "\"ac\"");
    assert_refused((struct parts){.model = BPE("", "[\"a b c\"]")}, status, "merge");
    assert_refused((struct parts){.model = BPE("", "[\"ab\"]")}, status, "merge");
    assert_refused((struct parts){.model = BPE("", "[[\"a\"]]")}, status, "merge");
    assert_refused((struct parts){.model = BPE("\"continuing_subword_prefix\":\"##\",", "[\"a b\"]")}, status, "merge");
    assert_refused((struct parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}"}, status, "id 1");
    assert_refused((struct parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"}, status, "negative");
    assert_refused((struct parts){.model = "{\"type\":\"BPE\",\"merges\":[]}"}, status, "vocab");
    assert_refused((struct parts){.pre_tokenizer = SPLIT(DASH, "Sideways", "false")}, status, "Sideways");
    assert_refused((struct parts){.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"__\"}"}, status, "one character");
    assert_refused((struct parts){.post_processor =
                                      "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"Z\"}}],"
                                      "\"special_tokens\":{}}"},
                   status, "\"Z\"");
}

static void test_limits_are_enforced(void **state)
{
    (void)state;
    assert_refused((struct parts){.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":4294967295},\"merges\":[]}"}, CLLM_E_LIMIT,
                   "4294967295");
    char nested[1024] = "{\"type\":\"NFC\"}", outer[1024];
    for (int depth = 0; depth < 10; depth++) {
        snprintf(outer, sizeof outer, "{\"type\":\"Sequence\",\"normalizers\":[%s]}", nested);
        memcpy(nested, outer, sizeof nested);
    }
    assert_refused((struct parts){.normalizer = nested}, CLLM_E_LIMIT, "deeper");
}

static void assert_text_refused(const char *json, size_t json_bytes, enum cllm_status expected)
{
    struct cllm_error err = {0};
    struct cllm_tokenizer *tokenizer;
    char *copy = malloc(json_bytes ? json_bytes : 1); /* exact, so that a read past the end is seen */
    assert_non_null(copy);
    memcpy(copy, json, json_bytes);
    assert_int_equal(cllm_tokenizer_create(copy, json_bytes, &tokenizer, &err), expected);
    assert_null(tokenizer);
    assert_true(strlen(err.message) > 0);
    free(copy);
}

static void test_what_is_not_a_json_object_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "null", "[]", "1", "\"x\"", "{", "{}x", "\xFF", "{\"a\":\"\xFF\"}", "{\"version\":}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) assert_text_refused(texts[i], strlen(texts[i]), CLLM_E_FORMAT);
    assert_text_refused("{}", 2, CLLM_E_CORRUPT);
    assert_text_refused("{\"version\":\"2.0\"}", 17, CLLM_E_UNSUPPORTED);
    const char *twice = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}";
    assert_text_refused(twice, strlen(twice), CLLM_E_CORRUPT);
    char *deep = malloc(100000);
    assert_non_null(deep);
    memset(deep, '[', 100000);
    assert_text_refused(deep, 100000, CLLM_E_FORMAT);
    free(deep);
}

#define EVERYTHING                                                                                                               \
    ((struct parts){                                                                                                             \
        .normalizer =                                                                                                            \
            "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Prepend\",\"prepend\":\"_\"},{\"type\":"     \
            "\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"},{\"type\":\"Strip\",\"strip_left\":true,"             \
            "\"strip_right\":true},{\"type\":\"Lowercase\"}]}",                                                                  \
        .pre_tokenizer =                                                                                                         \
            "{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT("{\"Regex\":\"b+\"}", "Isolated", "false") "," METASPACE(         \
                "first",                                                                                                         \
                "true") ",{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Punctuation\","                           \
                        "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}]}",    \
        .post_processor = TEMPLATE,                                                                                              \
        .decoder = LLAMA_DECODER,                                                                                                \
        .added_tokens = "[" ADDED(9, "<s>", "true", "true", "true", "true", "true") "]",                                         \
        .model = BPE("\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":false,\"ignore_merges\":false,"                \
                     "\"continuing_subword_prefix\":\"\",\"end_of_word_suffix\":\"\",\"dropout\":null,",                         \
                     "[\"a b\",[\"ab\",\"c\"]]")})

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    json_t *root = build_json(EVERYTHING);
    char *text = json_dumps(root, JSON_COMPACT);
    assert_non_null(text);
    for (size_t length = 0; length < strlen(text); length++) assert_text_refused(text, length, CLLM_E_FORMAT);
    free(text);
    json_decref(root);
}

/* Whatever the file says, it is refused with a message or the tokenizer works. */
static void assert_harmless(json_t *root)
{
    struct cllm_error err = {0};
    struct cllm_tokenizer *tokenizer = NULL;
    enum cllm_status status = try_json(root, &tokenizer, &err);
    if (status) {
        assert_int_equal(err.status, status);
        assert_true(strlen(err.message) > 0);
        assert_null(tokenizer);
        return;
    }
    static const char text[] = "abc ab<s> c1.\xC3\xA9\xFF\xF0\x9F\x98\x80 b";
    uint32_t *ids = NULL;
    size_t count = 0, decoded_bytes;
    char *decoded;
    if (!cllm_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, &count, &err)) {
        assert_int_equal(cllm_tokenizer_decode(tokenizer, ids, count, false, &decoded, &decoded_bytes, &err), CLLM_OK);
        free(decoded);
    }
    free(ids);
    cllm_tokenizer_destroy(tokenizer);
}

static size_t replacement_count;

/* Puts each of a set of values in the place of `node`'s children, one at a time, and goes on below. */
static void replace_children(json_t *root, json_t *node)
{
    static const char *const values[] = {"null",
                                         "true",
                                         "-1",
                                         "5",
                                         "1e300",
                                         "\"\"",
                                         "\"a\"",
                                         "\"NFC\"",
                                         "[]",
                                         "{}",
                                         "[[\"a\",\"b\"]]",
                                         "{\"type\":\"Fuse\"}",
                                         "99999999999",
                                         "\"\\u0000\"",
                                         "{\"Regex\":\"\"}"};
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
        for (void *at = json_object_iter(node); at; at = json_object_iter_next(node, at)) {
            json_t *kept = json_incref(json_object_iter_value(at));
            json_object_iter_set_new(node, at, parse_part(values[v]));
            assert_harmless(root);
            json_object_iter_set_new(node, at, kept);
            replacement_count++;
        }
        for (size_t i = 0; i < json_array_size(node); i++) {
            json_t *kept = json_incref(json_array_get(node, i));
            json_array_set_new(node, i, parse_part(values[v]));
            assert_harmless(root);
            json_array_set_new(node, i, kept);
            replacement_count++;
        }
    }
    for (void *at = json_object_iter(node); at; at = json_object_iter_next(node, at))
        replace_children(root, json_object_iter_value(at));
    for (size_t i = 0; i < json_array_size(node); i++) replace_children(root, json_array_get(node, i));
}

static void test_any_value_anywhere_is_harmless(void **state)
{
    (void)state;
    json_t *root = build_json(EVERYTHING);
    replacement_count = 0;
    replace_children(root, root);
    assert_true(replacement_count > 1000);
    json_decref(root);
}

static void test_any_missing_key_is_harmless(void **state)
{
    (void)state;
    static const char *const keys[] = {"type",
                                       "id",
                                       "content",
                                       "single_word",
                                       "lstrip",
                                       "rstrip",
                                       "normalized",
                                       "special",
                                       "pattern",
                                       "behavior",
                                       "invert",
                                       "vocab",
                                       "merges",
                                       "model",
                                       "single",
                                       "special_tokens",
                                       "ids",
                                       "start",
                                       "stop",
                                       "replacement",
                                       "individual_digits",
                                       "add_prefix_space",
                                       "normalizers",
                                       "decoders"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char wanted[64], *at;
        json_t *root = build_json(EVERYTHING);
        char *text = json_dumps(root, JSON_COMPACT);
        json_decref(root);
        snprintf(wanted, sizeof wanted, "\"%s\"", keys[i]);
        assert_non_null(text);
        for (char *from = text; (at = strstr(from, wanted)); from = at + 1) {
            at[1] = '#'; /* now it is another key */
            json_t *changed = json_loads(text, 0, NULL);
            if (changed) assert_harmless(changed);
            json_decref(changed);
            at[1] = keys[i][0];
        }
        free(text);
    }
}

/* ------------------------------------------------------------------------------------------------------------- jsonl */

static void test_jsonl_round_trip(void **state)
{
    (void)state;
    struct cllm_tokenizer *tokenizer = create((struct parts){.model = BPE("", "[\"a b\"]"), .post_processor = TEMPLATE});
    char lines[] = "\"abc\"\n\"\"\n", *found = NULL;
    size_t found_bytes = 0;
    FILE *in = fmemopen(lines, strlen(lines), "r"), *out = open_memstream(&found, &found_bytes);
    assert_int_equal(cllm_tokenize_jsonl(tokenizer, in, out, true, NULL), CLLM_OK);
    fclose(in);
    fclose(out);
    assert_string_equal(found, "[1,2,4,3,3]\n[1,2,3]\n");
    char *ids = found;
    in = fmemopen(ids, strlen(ids), "r");
    out = open_memstream(&found, &found_bytes);
    assert_int_equal(cllm_detokenize_jsonl(tokenizer, in, out, true, NULL), CLLM_OK);
    fclose(in);
    fclose(out);
    assert_string_equal(found, "\"a b ab c c\"\n\"a b c\"\n");
    free(found);
    free(ids);
    cllm_tokenizer_destroy(tokenizer);
}

static void test_jsonl_names_the_bad_line(void **state)
{
    (void)state;
    struct cllm_tokenizer *tokenizer = create((struct parts){0});
    static const char *const bad[] = {"\"a\"\n[1]\n", "\"a\"\n\"b\n", "\"a\"\n\n"};
    struct cllm_error err = {0};
    char line[16], sink[256];
    for (size_t i = 0; i < 3; i++) {
        snprintf(line, sizeof line, "%s", bad[i]);
        FILE *in = fmemopen(line, strlen(line), "r"), *out = fmemopen(sink, sizeof sink, "w");
        assert_int_equal(cllm_tokenize_jsonl(tokenizer, in, out, true, &err), CLLM_E_FORMAT);
        assert_non_null(strstr(err.message, "line 2"));
        fclose(in);
        fclose(out);
    }
    snprintf(line, sizeof line, "[1,-1]\n");
    FILE *in = fmemopen(line, strlen(line), "r"), *out = fmemopen(sink, sizeof sink, "w");
    assert_int_equal(cllm_detokenize_jsonl(tokenizer, in, out, true, &err), CLLM_E_FORMAT);
    fclose(in);
    fclose(out);
    cllm_tokenizer_destroy(tokenizer);
}

/* ---------------------------------------------------------------------------------------------------- reference data */

static char *read_stream(FILE *stream, size_t *bytes_out)
{
    size_t capacity = 1 << 20, count = 0, got;
    char *bytes = malloc(capacity);
    while (bytes && (got = fread(bytes + count, 1, capacity - count, stream)) > 0) {
        count += got;
        if (count == capacity) bytes = realloc(bytes, capacity *= 2);
    }
    assert_non_null(bytes);
    *bytes_out = count;
    return bytes;
}

static struct cllm_tokenizer *load(const char *path)
{
    struct cllm_error err = {0};
    struct cllm_tokenizer *tokenizer = NULL;
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    size_t byte_count;
    char *bytes = read_stream(file, &byte_count);
    fclose(file);
    if (cllm_tokenizer_create(bytes, byte_count, &tokenizer, &err)) print_error("%s: %s\n", path, err.message);
    free(bytes);
    assert_non_null(tokenizer);
    return tokenizer;
}

static json_t *load_reference(void)
{
    if (access(SHARED "tokenizers/reference.json.gz", R_OK)) return NULL;
    FILE *pipe = popen("gzip -dc " SHARED "tokenizers/reference.json.gz", "r");
    assert_non_null(pipe);
    size_t byte_count;
    char *bytes = read_stream(pipe, &byte_count);
    assert_int_equal(pclose(pipe), 0);
    json_t *json = json_loadb(bytes, byte_count, JSON_ALLOW_NUL, NULL);
    free(bytes);
    assert_non_null(json);
    return json;
}

static void assert_ids(const struct cllm_tokenizer *tokenizer, const json_t *text, bool add_special, const json_t *expected)
{
    uint32_t *ids;
    size_t count;
    assert_int_equal(
        cllm_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), add_special, &ids, &count, NULL),
        CLLM_OK);
    assert_int_equal(count, json_array_size(expected));
    for (size_t i = 0; i < count; i++) assert_int_equal(ids[i], json_integer_value(json_array_get(expected, i)));
    free(ids);
}

static void assert_text(const struct cllm_tokenizer *tokenizer, const json_t *ids_json, bool skip_special, const json_t *expected)
{
    size_t count = json_array_size(ids_json), text_bytes;
    uint32_t *ids = malloc((count + 1) * sizeof *ids);
    char *text;
    assert_non_null(ids);
    for (size_t i = 0; i < count; i++) ids[i] = (uint32_t)json_integer_value(json_array_get(ids_json, i));
    assert_int_equal(cllm_tokenizer_decode(tokenizer, ids, count, skip_special, &text, &text_bytes, NULL), CLLM_OK);
    assert_int_equal(text_bytes, json_string_length(expected));
    assert_memory_equal(text, json_string_value(expected), text_bytes);
    free(text);
    free(ids);
}

static void test_reference_strings_are_exact(void **state)
{
    (void)state;
    json_t *reference = load_reference();
    if (!reference) {
        print_message("skipped: %stokenizers/reference.json.gz is not here\n", SHARED);
        skip();
    }
    json_t *cases = json_object_get(reference, "cases");
    assert_int_equal(json_object_size(cases), 4);
    for (void *at = json_object_iter(cases); at; at = json_object_iter_next(cases, at)) {
        char path[256];
        snprintf(path, sizeof path, SHARED "tokenizers/%s/tokenizer.json", json_object_iter_key(at));
        struct cllm_tokenizer *tokenizer = load(path);
        const json_t *list = json_object_iter_value(at);
        assert_int_equal(json_array_size(list), 647);
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *one = json_array_get(list, i), *text = json_object_get(one, "text");
            assert_ids(tokenizer, text, true, json_object_get(one, "ids"));
            assert_ids(tokenizer, text, false, json_object_get(one, "ids_plain"));
            assert_text(tokenizer, json_object_get(one, "ids_plain"), false, json_object_get(one, "decoded"));
            assert_text(tokenizer, json_object_get(one, "ids_plain"), true, json_object_get(one, "decoded_skip"));
        }
        cllm_tokenizer_destroy(tokenizer);
    }
    json_decref(reference);
}

static void assert_prompts(const char *tokenizer_path, const char *cases_path, const char *ids_key)
{
    struct cllm_tokenizer *tokenizer = load(tokenizer_path);
    json_t *json = json_load_file(cases_path, 0, NULL);
    if (!tokenizer || !json) {
        print_message("skipped: %s or %s is not here\n", tokenizer_path, cases_path);
        cllm_tokenizer_destroy(tokenizer);
        skip();
    }
    const json_t *cases = json_object_get(json, "cases");
    assert_true(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i);
        assert_ids(tokenizer, json_object_get(one, "prompt"), true, json_object_get(one, ids_key));
    }
    json_decref(json);
    cllm_tokenizer_destroy(tokenizer);
}

static void test_shakespeare_prompts(void **state)
{
    (void)state;
    assert_prompts(SHARED "shakespeare-llama/tokenizer.json", SHARED "shakespeare-llama-reference.json", "input_ids");
}

static void test_stories260k_prompts(void **state)
{
    (void)state;
    assert_prompts(SHARED "real-weights/stories260K-f32/tokenizer.json", SHARED "real-weights/stories260K-f32/golden.json",
                   "prompt_ids");
}

static void test_babyllama_prompts(void **state)
{
    (void)state;
    assert_prompts(SHARED "real-weights/babyllama105-bf16/tokenizer.json", SHARED "real-weights/babyllama105-bf16/golden.json",
                   "prompt_ids");
}

static void test_real_tokenizers_load_and_stream(void **state)
{
    (void)state;
    static const char *const names[] = {"codellama-7b",    "gpt2-D-Trifonova",     "llama3.2",       "minimind",
                                        "mistral-7b-v0.1", "ort-falcon-tokenizer", "ort-phi-3-mini", "pythia-gptneox",
                                        "qwen2.5",         "smollm-135m",          "tinyllama-1.1b"};
    static const char text[] = "Hello, world!\n  \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD 12345 don't\t\xD0\x9F";
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        char path[256], joined[256] = "", *whole;
        const char *part;
        snprintf(path, sizeof path, SHARED "tokenizers/%s/tokenizer.json", names[n]);
        struct cllm_tokenizer *tokenizer = load(path);
        if (!tokenizer) {
            print_message("skipped: %s is not here\n", path);
            skip();
        }
        struct cllm_detokenizer *stream;
        uint32_t *ids;
        size_t count, part_bytes, whole_bytes;
        assert_int_equal(cllm_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, &count, NULL), CLLM_OK);
        assert_int_equal(cllm_tokenizer_decode(tokenizer, ids, count, true, &whole, &whole_bytes, NULL), CLLM_OK);
        assert_string_equal(whole, text);
        assert_int_equal(cllm_detokenizer_create(tokenizer, true, &stream, NULL), CLLM_OK);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(cllm_detokenizer_push(stream, ids[i], &part, &part_bytes, NULL), CLLM_OK);
            assert_true(part_bytes == 0 || ((unsigned char)part[0] & 0xC0) != 0x80);
            strcat(joined, part);
        }
        assert_int_equal(cllm_detokenizer_finish(stream, &part, &part_bytes, NULL), CLLM_OK);
        strcat(joined, part);
        assert_string_equal(joined, text);
        cllm_detokenizer_destroy(stream);
        free(whole);
        free(ids);
        cllm_tokenizer_destroy(tokenizer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe_merges_lowest_rank_first),
        cmocka_unit_test(test_bpe_merges_leftmost_of_equal_rank),
        cmocka_unit_test(test_bpe_merges_merged_tokens),
        cmocka_unit_test(test_bpe_merges_may_be_pairs_or_strings),
        cmocka_unit_test(test_bpe_without_type_is_bpe),
        cmocka_unit_test(test_bpe_drops_unknown_characters_without_unk_token),
        cmocka_unit_test(test_bpe_fuses_unknown_characters_only_if_asked),
        cmocka_unit_test(test_bpe_byte_fallback_needs_every_byte),
        cmocka_unit_test(test_bpe_ignore_merges_takes_whole_words),
        cmocka_unit_test(test_bpe_prefix_and_suffix_mark_place_in_word),
        cmocka_unit_test(test_bpe_unk_token_may_be_missing_until_needed),
        cmocka_unit_test(test_normalizer_forms),
        cmocka_unit_test(test_normalizer_orders_long_runs_of_marks),
        cmocka_unit_test(test_normalizer_lowercase),
        cmocka_unit_test(test_normalizer_strip),
        cmocka_unit_test(test_normalizer_prepend_skips_empty_text),
        cmocka_unit_test(test_normalizer_replace),
        cmocka_unit_test(test_normalizer_sequence_runs_in_order),
        cmocka_unit_test(test_split_behaviors),
        cmocka_unit_test(test_split_inverted_keeps_the_matches),
        cmocka_unit_test(test_split_by_empty_pattern_splits_every_character),
        cmocka_unit_test(test_regex_follows_oniguruma),
        cmocka_unit_test(test_regex_knows_newer_characters),
        cmocka_unit_test(test_byte_level_maps_bytes_and_splits),
        cmocka_unit_test(test_digits),
        cmocka_unit_test(test_punctuation),
        cmocka_unit_test(test_whitespace),
        cmocka_unit_test(test_metaspace_schemes),
        cmocka_unit_test(test_metaspace_first_sees_through_earlier_steps),
        cmocka_unit_test(test_added_longest_wins),
        cmocka_unit_test(test_added_strips_spaces),
        cmocka_unit_test(test_added_single_word),
        cmocka_unit_test(test_added_normalized_matches_after_normalization),
        cmocka_unit_test(test_normalizer_runs_on_each_side_of_an_added_token),
        cmocka_unit_test(test_added_ids_follow_the_vocabulary),
        cmocka_unit_test(test_template_surrounds_the_text),
        cmocka_unit_test(test_decode_without_decoder_joins_with_spaces),
        cmocka_unit_test(test_decode_leaves_out_unknown_and_special_ids),
        cmocka_unit_test(test_decode_llama_style),
        cmocka_unit_test(test_decode_judges_runs_of_byte_tokens_as_one),
        cmocka_unit_test(test_decode_byte_level),
        cmocka_unit_test(test_decode_metaspace_drops_the_first_one_only),
        cmocka_unit_test(test_decode_strip_per_token_and_whole),
        cmocka_unit_test(test_decode_replace_on_the_fused_text),
        cmocka_unit_test(test_detokenizer_holds_half_characters),
        cmocka_unit_test(test_ill_formed_text_becomes_replacement_characters),
        cmocka_unit_test(test_zero_bytes_are_characters),
        cmocka_unit_test(test_empty_text_has_no_ids),
        cmocka_unit_test(test_long_words_take_little_time),
        cmocka_unit_test(test_runaway_regex_ends_in_limit),
        cmocka_unit_test(test_threads_share_a_tokenizer),
        cmocka_unit_test(test_unknown_components_are_named),
        cmocka_unit_test(test_regexes_that_cannot_be_translated_are_refused),
        cmocka_unit_test(test_contradictions_are_corrupt),
        cmocka_unit_test(test_limits_are_enforced),
        cmocka_unit_test(test_what_is_not_a_json_object_is_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_any_value_anywhere_is_harmless),
        cmocka_unit_test(test_any_missing_key_is_harmless),
        cmocka_unit_test(test_jsonl_round_trip),
        cmocka_unit_test(test_jsonl_names_the_bad_line),
        cmocka_unit_test(test_reference_strings_are_exact),
        cmocka_unit_test(test_shakespeare_prompts),
        cmocka_unit_test(test_stories260k_prompts),
        cmocka_unit_test(test_babyllama_prompts),
        cmocka_unit_test(test_real_tokenizers_load_and_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

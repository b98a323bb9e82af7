/* config.json and generation_config.json: every spelling, and everything that must be refused. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* A small model; cases add fields, or replace one by giving it again under SIZES without it. */
#define SIZES_WITHOUT_HEADS "\"hidden_size\":64,\"num_hidden_layers\":2,\"intermediate_size\":128,\"vocab_size\":100"
#define SIZES SIZES_WITHOUT_HEADS ",\"num_attention_heads\":4"
#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"]"
#define MODEL(fields) "{" LLAMA "," SIZES fields "}"
#define ROPE(fields) MODEL(",\"max_position_embeddings\":8192,\"rope_scaling\":{" fields "}")

static struct cllm_config config;
static struct cllm_error err;

static struct cllm_json_text text_of(const char *json)
{
    return (struct cllm_json_text){json, json ? strlen(json) : 0};
}

static enum cllm_status parse_both(const char *model, const char *generation)
{
    memset(&err, 0, sizeof err);
    return cllm_config_parse(text_of(model), text_of(generation), &config, &err);
}

static void assert_accepts(const char *model)
{
    if (parse_both(model, NULL) != CLLM_OK) fail_msg("%s\n%s", model, err.message);
}

/* The message must hold `word`. */
static void assert_refuses(const char *model, enum cllm_status expected, const char *word)
{
    enum cllm_status found = parse_both(model, NULL);
    if (found != expected || !strstr(err.message, word)) {
        fail_msg("%s\nfound %d \"%s\", expected %d and \"%s\"", model, found, err.message, expected, word);
    }
}

static void test_defaults_of_missing_fields(void **state)
{
    (void)state;
    assert_accepts(MODEL());
    assert_string_equal(config.architecture, "LlamaForCausalLM");
    assert_int_equal(config.kv_head_count, 4);
    assert_int_equal(config.head_dim, 16);
    assert_int_equal(config.position_limit, 2048);
    assert_int_equal(config.sliding_window, 0);
    assert_int_equal(config.end_id_count, 0);
    assert_int_equal(config.rope.type, CLLM_ROPE_DEFAULT);
    assert_true(config.rope.theta == 10000);
    assert_false(config.tied_head || config.qkv_bias || config.attention_output_bias || config.mlp_bias);
}

static void test_null_is_missing(void **state)
{
    (void)state;
    assert_accepts(MODEL(",\"num_key_value_heads\":null,\"head_dim\":null,\"rope_scaling\":null,\"eos_token_id\":null"));
    assert_int_equal(config.kv_head_count, 4);
    assert_int_equal(config.head_dim, 16);
}

static void test_explicit_fields(void **state)
{
    (void)state;
    assert_accepts(MODEL(",\"num_key_value_heads\":2,\"head_dim\":32,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"
                         "\"tie_word_embeddings\":true,\"attention_bias\":true,\"mlp_bias\":true,\"rope_theta\":500000,"
                         "\"hidden_act\":\"silu\",\"dtype\":\"bfloat16\""));
    assert_int_equal(config.kv_head_count, 2);
    assert_int_equal(config.head_dim, 32);
    assert_int_equal(config.position_limit, 512);
    assert_true(config.norm_epsilon == 1e-5f);
    assert_true(config.rope.theta == 500000);
    assert_true(config.tied_head && config.qkv_bias && config.attention_output_bias && config.mlp_bias);
}

static void test_architecture_by_model_type(void **state)
{
    (void)state;
    assert_accepts("{\"model_type\":\"qwen2\"," SIZES ",\"num_key_value_heads\":4}");
    assert_string_equal(config.architecture, "Qwen2ForCausalLM");
    assert_true(config.qkv_bias && !config.attention_output_bias);
}

#define MISTRAL(fields) "{\"architectures\":[\"MistralForCausalLM\"]," SIZES ",\"num_key_value_heads\":4" fields "}"

static void test_mistral_sliding_window(void **state)
{
    (void)state;
    assert_accepts(MISTRAL(",\"sliding_window\":512"));
    assert_int_equal(config.sliding_window, 512);
    assert_accepts(MISTRAL(",\"sliding_window\":null"));
    assert_int_equal(config.sliding_window, 0);
    assert_accepts(MISTRAL());
    assert_int_equal(config.sliding_window, 4096);
    assert_refuses(MISTRAL(",\"sliding_window\":0"), CLLM_E_CORRUPT, "sliding_window");
}

static void test_other_architectures_have_no_window(void **state)
{
    (void)state;
    assert_accepts("{\"architectures\":[\"Qwen2ForCausalLM\"]," SIZES
                   ",\"num_key_value_heads\":4,\"sliding_window\":4096,\"use_sliding_window\":false}");
    assert_int_equal(config.sliding_window, 0);
    assert_accepts(MODEL(",\"sliding_window\":4096"));
    assert_int_equal(config.sliding_window, 0);
}

#define HEADS(name, count, fields)                                                                                               \
    "{\"architectures\":[\"" name "\"]," SIZES_WITHOUT_HEADS ",\"head_dim\":16,\"num_attention_heads\":" #count fields "}"
#define NO_KV_HEADS ",\"num_key_value_heads\":null"

static void test_missing_kv_heads_depend_on_the_architecture(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        uint32_t kv_head_count;
    } cases[] = {
        {HEADS("LlamaForCausalLM", 64, ), 64},  {HEADS("LlamaForCausalLM", 64, NO_KV_HEADS), 64},
        {HEADS("MistralForCausalLM", 64, ), 8}, {HEADS("MistralForCausalLM", 64, NO_KV_HEADS), 64},
        {HEADS("Qwen2ForCausalLM", 64, ), 32},  {HEADS("Qwen2ForCausalLM", 64, NO_KV_HEADS), 64},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_accepts(cases[i].model);
        assert_int_equal(config.kv_head_count, cases[i].kv_head_count);
    }
    assert_refuses(HEADS("Qwen2ForCausalLM", 28, ), CLLM_E_CORRUPT, "found nothing, which means 32, expected a divisor");
    assert_refuses(HEADS("MistralForCausalLM", 4, ), CLLM_E_CORRUPT, "found nothing, which means 8, expected a divisor");
}

static void test_missing_positions_depend_on_the_architecture(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        uint32_t position_limit;
    } cases[] = {
        {HEADS("LlamaForCausalLM", 64, ), 2048},
        {HEADS("MistralForCausalLM", 64, ), 131072},
        {HEADS("Qwen2ForCausalLM", 64, ), 32768},
        {HEADS("Qwen2ForCausalLM", 64, ",\"max_position_embeddings\":100"), 100},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_accepts(cases[i].model);
        assert_int_equal(config.position_limit, cases[i].position_limit);
    }
}

static void test_unknown_architecture_is_named_with_the_known(void **state)
{
    (void)state;
    assert_refuses("{\"architectures\":[\"GemmaForCausalLM\"]," SIZES "}", CLLM_E_UNSUPPORTED, "GemmaForCausalLM");
    assert_non_null(strstr(err.message, "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM"));
    assert_refuses("{\"model_type\":\"gpt2\"," SIZES "}", CLLM_E_UNSUPPORTED, "gpt2");
    assert_refuses("{" SIZES "}", CLLM_E_CORRUPT, "architectures");
    assert_refuses("{\"architectures\":\"LlamaForCausalLM\"," SIZES "}", CLLM_E_CORRUPT, "architectures");
    assert_refuses("{\"architectures\":[\"\\u001b[2J\"]," SIZES "}", CLLM_E_UNSUPPORTED, "\\x1b[2J");
}

static void test_variants_are_refused_by_name(void **state)
{
    (void)state;
    assert_refuses(MODEL(",\"hidden_act\":\"gelu\""), CLLM_E_UNSUPPORTED, "gelu");
    assert_refuses(MODEL(",\"quantization_config\":{}"), CLLM_E_UNSUPPORTED, "quantization_config");
    assert_refuses(MODEL(",\"partial_rotary_factor\":0.75"), CLLM_E_UNSUPPORTED, "partial_rotary_factor");
    assert_refuses(MODEL(",\"rope_parameters\":{\"partial_rotary_factor\":0.75}"), CLLM_E_UNSUPPORTED, "partial_rotary_factor");
    assert_refuses(MODEL(",\"use_sliding_window\":true"), CLLM_E_UNSUPPORTED, "use_sliding_window");
}

/* ---------------------------------------------------------------------------------------------------------- rotary */

static void test_rope_spellings_agree(void **state)
{
    (void)state;
    static const char *const spellings[] = {
        MODEL(",\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":4}"),
        MODEL(",\"rope_theta\":500000.0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}"),
        MODEL(",\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4,\"rope_theta\":500000}"),
        MODEL(",\"rope_theta\":500000,\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4}"),
        MODEL(",\"rope_theta\":1,\"rope_scaling\":{},"
              "\"rope_parameters\":{\"rope_type\":\"linear\",\"type\":\"yarn\",\"factor\":4,\"rope_theta\":500000}"),
    };
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        assert_accepts(spellings[i]);
        assert_int_equal(config.rope.type, CLLM_ROPE_LINEAR);
        assert_true(config.rope.theta == 500000 && config.rope.factor == 4 && config.rope.attention_factor == 1);
    }
}

static void test_rope_scaling_displaces_rope_parameters(void **state)
{
    (void)state;
    assert_accepts(MODEL(",\"rope_theta\":500000,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4},"
                         "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":8,\"rope_theta\":7}"));
    assert_true(config.rope.theta == 500000 && config.rope.factor == 4);
    assert_accepts(MODEL(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4},\"rope_parameters\":{\"rope_theta\":7}"));
    assert_true(config.rope.theta == 10000 && config.rope.factor == 4);
    assert_accepts(MODEL(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4,\"rope_theta\":9},"
                         "\"rope_parameters\":{\"rope_theta\":7,\"partial_rotary_factor\":0.5}"));
    assert_true(config.rope.theta == 9);
    assert_accepts(MODEL(",\"rope_scaling\":null,\"rope_parameters\":{\"rope_theta\":7}"));
    assert_true(config.rope.theta == 7);
}

static void test_rope_types(void **state)
{
    (void)state;
    assert_accepts(ROPE("\"rope_type\":\"default\""));
    assert_int_equal(config.rope.type, CLLM_ROPE_DEFAULT);
    assert_accepts(ROPE("\"rope_type\":\"dynamic\",\"factor\":2"));
    assert_int_equal(config.rope.type, CLLM_ROPE_DYNAMIC);
    assert_int_equal(config.rope.original_length, 8192);
    assert_accepts(ROPE("\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                        "\"original_max_position_embeddings\":4096"));
    assert_int_equal(config.rope.type, CLLM_ROPE_LLAMA3);
    assert_int_equal(config.rope.original_length, 4096);
    assert_accepts(ROPE("\"rope_type\":\"yarn\",\"factor\":16"));
    assert_true(config.rope.beta_fast == 32 && config.rope.beta_slow == 1 && config.rope.truncate);
    assert_float_equal(config.rope.attention_factor, 1.2772588722, 1e-9);
    assert_accepts(ROPE("\"rope_type\":\"yarn\",\"factor\":16,\"attention_factor\":1.5,\"truncate\":false"));
    assert_true(config.rope.attention_factor == 1.5 && !config.rope.truncate);
}

#define LLAMA3 "\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4"
#define LENGTHS(fields) MODEL(",\"max_position_embeddings\":8192" fields)
#define ORIGINAL(length) ",\"original_max_position_embeddings\":" #length

static void test_original_length_beside_the_scaling_comes_first(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        uint32_t original_length;
    } cases[] = {
        {LENGTHS(ORIGINAL(1024) ",\"rope_scaling\":{" LLAMA3 ORIGINAL(2048) "}"), 1024},
        {LENGTHS(ORIGINAL(1024) ",\"rope_parameters\":{" LLAMA3 ORIGINAL(2048) "}"), 1024},
        {LENGTHS(ORIGINAL(1024) ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4" ORIGINAL(2048) "}"), 1024},
        {LENGTHS(ORIGINAL(1024) ",\"rope_scaling\":{" LLAMA3 "}"), 1024},
        {LENGTHS(ORIGINAL(null) ",\"rope_scaling\":{" LLAMA3 ORIGINAL(2048) "}"), 2048},
        {LENGTHS(",\"rope_scaling\":{" LLAMA3 "}"), 8192},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_accepts(cases[i].model);
        assert_int_equal(config.rope.original_length, cases[i].original_length);
    }
    assert_refuses(LENGTHS(ORIGINAL(0) ",\"rope_scaling\":{" LLAMA3 "}"), CLLM_E_CORRUPT, "original_max_position_embeddings");
}

static void test_dynamic_ignores_the_original_length(void **state)
{
    (void)state;
    assert_accepts(LENGTHS(ORIGINAL(1024) ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2" ORIGINAL(2048) "}"));
    assert_int_equal(config.rope.original_length, 8192);
}

static void test_null_factor_of_yarn_is_the_ratio_of_the_lengths(void **state)
{
    (void)state;
    assert_accepts(LENGTHS(",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":null" ORIGINAL(2048) "}"));
    assert_true(config.rope.factor == 4);
    assert_float_equal(config.rope.attention_factor, 1.1386294361, 1e-9);
    assert_accepts(LENGTHS(ORIGINAL(1024) ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":null" ORIGINAL(2048) "}"));
    assert_true(config.rope.factor == 8);
    assert_float_equal(config.rope.attention_factor, 1.2079441542, 1e-9);
    assert_refuses(LENGTHS(",\"rope_scaling\":{\"rope_type\":\"yarn\"" ORIGINAL(2048) "}"), CLLM_E_CORRUPT, "factor");
    assert_refuses(LENGTHS(",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":null}"), CLLM_E_CORRUPT, "factor");
}

static void test_rope_refusals(void **state)
{
    (void)state;
    assert_refuses(ROPE("\"rope_type\":\"longrope\""), CLLM_E_UNSUPPORTED, "longrope");
    assert_refuses(ROPE("\"type\":\"su\""), CLLM_E_UNSUPPORTED, "default, linear, dynamic, llama3, yarn");
    assert_refuses(ROPE("\"rope_type\":\"linear\""), CLLM_E_CORRUPT, "factor");
    assert_refuses(ROPE("\"rope_type\":\"linear\",\"factor\":0"), CLLM_E_CORRUPT, "factor");
    assert_refuses(ROPE("\"rope_type\":\"linear\",\"factor\":\"4\""), CLLM_E_CORRUPT, "factor");
    assert_refuses(ROPE("\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4"), CLLM_E_CORRUPT,
                   "high_freq_factor");
    assert_refuses(ROPE("\"rope_type\":7"), CLLM_E_CORRUPT, "rope_type");
    assert_refuses(MODEL(",\"rope_scaling\":[]"), CLLM_E_CORRUPT, "rope_scaling");
    assert_refuses(MODEL(",\"rope_scaling\":{\"factor\":4},\"rope_parameters\":7"), CLLM_E_CORRUPT, "rope_parameters");
    assert_refuses(MODEL(",\"rope_theta\":-1"), CLLM_E_CORRUPT, "rope_theta");
    assert_refuses(MODEL(",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}"), CLLM_E_UNSUPPORTED, "layer");
}

/* -------------------------------------------------------------------------------------------------------- end tokens */

static void test_end_ids_of_both_files_are_joined(void **state)
{
    (void)state;
    assert_int_equal(parse_both(MODEL(",\"eos_token_id\":2"), "{\"eos_token_id\":[7,2,9]}"), CLLM_OK);
    assert_int_equal(config.end_id_count, 3);
    assert_true(cllm_config_is_end(&config, 2) && cllm_config_is_end(&config, 7) && cllm_config_is_end(&config, 9));
    assert_false(cllm_config_is_end(&config, 0));
}

static void test_bad_end_ids_are_refused(void **state)
{
    (void)state;
    assert_refuses(MODEL(",\"eos_token_id\":-1"), CLLM_E_CORRUPT, "eos_token_id");
    assert_refuses(MODEL(",\"eos_token_id\":4294967296"), CLLM_E_CORRUPT, "eos_token_id");
    assert_refuses(MODEL(",\"eos_token_id\":[1,\"2\"]"), CLLM_E_CORRUPT, "eos_token_id");
    assert_refuses(MODEL(",\"eos_token_id\":{}"), CLLM_E_CORRUPT, "eos_token_id");
    assert_int_equal(parse_both(MODEL(), "{\"eos_token_id\":true}"), CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "generation_config.json"));
    char list[1024] = "{\"eos_token_id\":[0";
    for (int i = 1; i <= CLLM_END_ID_MAX; i++) {
        snprintf(list + strlen(list), sizeof list - strlen(list), ",%d", i);
    }
    strcat(list, "]}");
    assert_int_equal(parse_both(MODEL(), list), CLLM_E_LIMIT);
}

/* ------------------------------------------------------------------------------------------------------- bad numbers */

static void test_every_size_is_range_checked(void **state)
{
    (void)state;
    static const char *const keys[] = {"hidden_size",         "num_hidden_layers",   "intermediate_size",       "vocab_size",
                                       "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "head_dim"};
    static const char *const values[] = {"0", "-1", "1.5", "1e3", "\"64\"", "true", "[]", "4294967296", "9223372036854775807"};
    static const char *const good[] = {"64", "2", "128", "100", "4", "4", "512", "16"};
    enum { KEY_COUNT = sizeof keys / sizeof *keys };
    for (int bad = 0; bad < KEY_COUNT; bad++) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            char json[512] = "{" LLAMA;
            for (int i = 0; i < KEY_COUNT; i++) {
                snprintf(json + strlen(json), sizeof json - strlen(json), ",\"%s\":%s", keys[i], i == bad ? values[v] : good[i]);
            }
            strcat(json, "}");
            assert_refuses(json, CLLM_E_CORRUPT, keys[bad]);
            assert_non_null(strstr(err.message, "expected"));
        }
    }
}

static void test_required_fields_are_required(void **state)
{
    (void)state;
    assert_refuses("{" LLAMA "," SIZES_WITHOUT_HEADS "}", CLLM_E_CORRUPT, "num_attention_heads: found nothing");
    assert_refuses("{" LLAMA "}", CLLM_E_CORRUPT, "hidden_size: found nothing");
}

static void test_heads_must_fit(void **state)
{
    (void)state;
    assert_refuses("{" LLAMA "," SIZES_WITHOUT_HEADS ",\"num_attention_heads\":5}", CLLM_E_CORRUPT, "divisor of hidden_size");
    assert_refuses(MODEL(",\"num_key_value_heads\":3"), CLLM_E_CORRUPT, "divisor of num_attention_heads");
    assert_refuses(MODEL(",\"num_key_value_heads\":8"), CLLM_E_CORRUPT, "divisor of num_attention_heads");
    assert_refuses(MODEL(",\"head_dim\":15"), CLLM_E_CORRUPT, "even");
    assert_refuses("{" LLAMA "," SIZES_WITHOUT_HEADS ",\"num_attention_heads\":64}", CLLM_E_CORRUPT, "even");
    assert_refuses(MODEL(",\"rms_norm_eps\":-1"), CLLM_E_CORRUPT, "rms_norm_eps");
}

static void test_bad_json_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "[]",
                                        "null",
                                        "{",
                                        "{\"a\":1,\"a\":2}",
                                        "{\"a\":NaN}",
                                        "{\"a\":1e999}",
                                        "{}x",
                                        "{\"a\":\"\\ud800\"}",
                                        "{\"a\":\"\xff\"}",
                                        "\xef\xbb\xbf{}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_refuses(texts[i], CLLM_E_CORRUPT, "config.json");
    }
    assert_int_equal(parse_both(MODEL(), "[1]"), CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "generation_config.json"));
}

static void test_deep_nesting_is_refused(void **state)
{
    (void)state;
    enum { DEPTH = 1000000 };
    char *json = malloc(DEPTH + 8);
    memcpy(json, "{\"a\":", 5);
    memset(json + 5, '[', DEPTH);
    json[5 + DEPTH] = 0;
    assert_int_equal(parse_both(json, NULL), CLLM_E_CORRUPT);
    free(json);
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    static const char json[] = ROPE("\"rope_type\":\"linear\",\"factor\":4.5");
    for (size_t bytes = 0; bytes < sizeof json - 1; bytes++) {
        char *exact = malloc(bytes ? bytes : 1); /* so that reading on is seen */
        memcpy(exact, json, bytes);
        assert_int_equal(cllm_config_parse((struct cllm_json_text){exact, bytes}, text_of(NULL), &config, &err), CLLM_E_CORRUPT);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_of_missing_fields),
        cmocka_unit_test(test_null_is_missing),
        cmocka_unit_test(test_explicit_fields),
        cmocka_unit_test(test_architecture_by_model_type),
        cmocka_unit_test(test_mistral_sliding_window),
        cmocka_unit_test(test_other_architectures_have_no_window),
        cmocka_unit_test(test_missing_kv_heads_depend_on_the_architecture),
        cmocka_unit_test(test_missing_positions_depend_on_the_architecture),
        cmocka_unit_test(test_unknown_architecture_is_named_with_the_known),
        cmocka_unit_test(test_variants_are_refused_by_name),
        cmocka_unit_test(test_rope_spellings_agree),
        cmocka_unit_test(test_rope_scaling_displaces_rope_parameters),
        cmocka_unit_test(test_rope_types),
        cmocka_unit_test(test_original_length_beside_the_scaling_comes_first),
        cmocka_unit_test(test_dynamic_ignores_the_original_length),
        cmocka_unit_test(test_null_factor_of_yarn_is_the_ratio_of_the_lengths),
        cmocka_unit_test(test_rope_refusals),
        cmocka_unit_test(test_end_ids_of_both_files_are_joined),
        cmocka_unit_test(test_bad_end_ids_are_refused),
        cmocka_unit_test(test_every_size_is_range_checked),
        cmocka_unit_test(test_required_fields_are_required),
        cmocka_unit_test(test_heads_must_fit),
        cmocka_unit_test(test_bad_json_is_refused),
        cmocka_unit_test(test_deep_nesting_is_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

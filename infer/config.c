/* config.c - config.json and generation_config.json. */
#include "config.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MODEL_FILE "config.json"
#define GENERATION_FILE "generation_config.json"

enum {
    SIZE_MAX_HIDDEN = 1 << 18,
    SIZE_MAX_INTERMEDIATE = 1 << 20,
    SIZE_MAX_VOCAB = 1 << 22,
    COUNT_MAX_LAYERS = 1 << 10,
    COUNT_MAX_HEADS = 1 << 12,
    SIZE_MAX_HEAD = 1 << 12,
    COUNT_MAX_POSITIONS = 1 << 28,
};

/* What is fixed by the architecture and not said in config.json, and what the reference takes where config.json lacks the key. */
static const struct architecture {
    const char *name;
    const char *model_type;
    bool qkv_bias;
    uint32_t missing_window;    /* without `sliding_window`; 0: the architecture has none whatever that says */
    uint32_t missing_kv_heads;  /* without `num_key_value_heads`; 0: as many as heads */
    uint32_t missing_positions; /* without `max_position_embeddings` */
} architectures[] = {
    {"LlamaForCausalLM", "llama", false, 0, 0, 2048},
    {"MistralForCausalLM", "mistral", false, 4096, 8, 131072},
    {"Qwen2ForCausalLM", "qwen2", true, 0, 32, 32768},
};
enum { ARCHITECTURE_COUNT = sizeof architectures / sizeof *architectures };

/* ---------------------------------------------------------------------------------------------------------- fields */

/* A missing field and an explicit null are the same; the few fields where they differ ask has_key. */
static const json_t *find_field(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static bool has_key(const json_t *object, const char *key)
{
    return json_object_get(object, key) != NULL;
}

static enum cllm_status fail_field(struct cllm_error *err, const char *key, const json_t *found, const char *expected)
{
    char *text = found ? json_dumps(found, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    char shown[80];
    enum cllm_status status = cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, MODEL_FILE ": %s: found %s, expected %s", key,
                                        !found ? "nothing"
                                        : text ? cllm_escape(text, strlen(text), shown, sizeof shown)
                                               : "a value",
                                        expected);
    free(text);
    return status;
}

struct integer_field {
    const char *key;
    uint32_t max;      /* and at least 1 */
    uint32_t fallback; /* where the field is missing; 0: it must not be */
};

static enum cllm_status read_integer(const json_t *object, struct integer_field field, uint32_t *value_out,
                                     struct cllm_error *err)
{
    const json_t *value = find_field(object, field.key);
    if (!value && field.fallback) {
        *value_out = field.fallback;
        return CLLM_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > field.max) {
        char expected[64];
        snprintf(expected, sizeof expected, "an integer from 1 to %u", field.max);
        return fail_field(err, field.key, value, expected);
    }
    *value_out = (uint32_t)json_integer_value(value);
    return CLLM_OK;
}

struct real_field {
    const char *key;
    double min, max;
    double fallback; /* where the field is missing; NAN: it must not be */
};

static enum cllm_status read_real(const json_t *object, struct real_field field, double *value_out, struct cllm_error *err)
{
    const json_t *value = find_field(object, field.key);
    if (!value && !isnan(field.fallback)) {
        *value_out = field.fallback;
        return CLLM_OK;
    }
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= field.min && number <= field.max)) {
        char expected[64];
        snprintf(expected, sizeof expected, "a number from %g to %g", field.min, field.max);
        return fail_field(err, field.key, value, expected);
    }
    *value_out = number;
    return CLLM_OK;
}

static enum cllm_status read_bool(const json_t *object, const char *key, bool *value, struct cllm_error *err)
{
    const json_t *field = find_field(object, key);
    if (!field) return CLLM_OK;
    if (!json_is_boolean(field)) return fail_field(err, key, field, "true or false");
    *value = json_is_true(field);
    return CLLM_OK;
}

/* `*text_out` is null where the field is missing; it lives as long as `object`. */
static enum cllm_status read_string(const json_t *object, const char *key, const char **text_out, struct cllm_error *err)
{
    const json_t *field = find_field(object, key);
    *text_out = json_string_value(field);
    return field && !*text_out ? fail_field(err, key, field, "a string") : CLLM_OK;
}

static enum cllm_status fail_unsupported(struct cllm_error *err, const char *key, const char *found, const char *expected)
{
    char shown[80];
    return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET, MODEL_FILE ": %s: found \"%s\", this build runs %s", key,
                     cllm_escape(found, strlen(found), shown, sizeof shown), expected);
}

/* ---------------------------------------------------------------------------------------------------- architecture */

static enum cllm_status fail_architecture(struct cllm_error *err, const char *key, const char *found)
{
    char known[160] = "";
    for (int i = 0; i < ARCHITECTURE_COUNT; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", architectures[i].name);
    }
    return fail_unsupported(err, key, found, known);
}

static enum cllm_status find_architecture(const json_t *root, const struct architecture **found_out, struct cllm_error *err)
{
    const json_t *list = find_field(root, "architectures");
    if (list && !json_is_array(list)) return fail_field(err, "architectures", list, "a list of names");
    const char *name = json_string_value(json_array_get(list, 0));
    const char *model_type;
    enum cllm_status status = read_string(root, "model_type", &model_type, err);
    if (status) return status;
    if (!name && !model_type) return fail_field(err, "architectures", list, "the name of an architecture");
    for (int i = 0; i < ARCHITECTURE_COUNT; i++) {
        *found_out = &architectures[i];
        if (strcmp(name ? name : model_type, name ? architectures[i].name : architectures[i].model_type) == 0) return CLLM_OK;
    }
    return fail_architecture(err, name ? "architectures" : "model_type", name ? name : model_type);
}

/* `object`: the whole file, or its rope_parameters; null has nothing to check. */
static enum cllm_status check_whole_rotary(const json_t *object, struct cllm_error *err)
{
    double rotary = 1;
    enum cllm_status status = read_real(object, (struct real_field){"partial_rotary_factor", 0, 1, 1}, &rotary, err);
    if (!status && rotary != 1) return fail_unsupported(err, "partial_rotary_factor", "below 1", "1");
    return status;
}

/* Variants of the forward pass that this build does not have. */
static enum cllm_status check_variants(const json_t *root, struct cllm_error *err)
{
    const char *activation;
    enum cllm_status status = read_string(root, "hidden_act", &activation, err);
    if (!status) status = check_whole_rotary(root, err);
    if (status) return status;
    if (activation && strcmp(activation, "silu") != 0) return fail_unsupported(err, "hidden_act", activation, "silu");
    if (find_field(root, "quantization_config")) {
        return fail_unsupported(err, "quantization_config", "present", "checkpoints that are not quantised");
    }
    return CLLM_OK;
}

/* ---------------------------------------------------------------------------------------------------------- rotary */

static const struct {
    const char *name;
    enum cllm_rope_type type;
} rope_types[] = {
    {"default", CLLM_ROPE_DEFAULT}, {"linear", CLLM_ROPE_LINEAR}, {"dynamic", CLLM_ROPE_DYNAMIC},
    {"llama3", CLLM_ROPE_LLAMA3},   {"yarn", CLLM_ROPE_YARN},
};
enum { ROPE_TYPE_COUNT = sizeof rope_types / sizeof *rope_types };

static enum cllm_status read_rope_type(const json_t *scaling, enum cllm_rope_type *type_out, struct cllm_error *err)
{
    const char *name, *legacy;
    enum cllm_status status = read_string(scaling, "rope_type", &name, err);
    if (!status) status = read_string(scaling, "type", &legacy, err);
    if (status) return status;
    if (!name) name = legacy ? legacy : "default";
    for (int i = 0; i < ROPE_TYPE_COUNT; i++) {
        *type_out = rope_types[i].type;
        if (strcmp(name, rope_types[i].name) == 0) return CLLM_OK;
    }
    return fail_unsupported(err, "rope_type", name, "default, linear, dynamic, llama3, yarn");
}

static enum cllm_status read_llama3(const json_t *scaling, struct cllm_rope_config *rope, struct cllm_error *err)
{
    enum cllm_status status =
        read_real(scaling, (struct real_field){"low_freq_factor", 1e-6, 1e6, NAN}, &rope->low_freq_factor, err);
    if (!status) {
        status = read_real(scaling, (struct real_field){"high_freq_factor", 1e-6, 1e6, NAN}, &rope->high_freq_factor, err);
    }
    if (status || rope->high_freq_factor > rope->low_freq_factor) return status;
    return fail_field(err, "high_freq_factor", find_field(scaling, "high_freq_factor"), "more than low_freq_factor");
}

/* Peng et al. 2023, "YaRN", equation 22; with mscale as DeepSeek's checkpoints use it. */
static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static enum cllm_status read_yarn(const json_t *scaling, struct cllm_rope_config *rope, struct cllm_error *err)
{
    double mscale = 0, mscale_all = 0;
    enum cllm_status status = read_real(scaling, (struct real_field){"beta_fast", 1e-3, 1e6, 32}, &rope->beta_fast, err);
    if (!status) status = read_real(scaling, (struct real_field){"beta_slow", 1e-3, 1e6, 1}, &rope->beta_slow, err);
    if (!status) status = read_real(scaling, (struct real_field){"mscale", 0, 1e3, 0}, &mscale, err);
    if (!status) status = read_real(scaling, (struct real_field){"mscale_all_dim", 0, 1e3, 0}, &mscale_all, err);
    if (status) return status;
    double attention_factor = mscale > 0 && mscale_all > 0
                                  ? yarn_scale(rope->factor, mscale) / yarn_scale(rope->factor, mscale_all)
                                  : yarn_scale(rope->factor, 1);
    rope->truncate = true;
    status = read_bool(scaling, "truncate", &rope->truncate, err);
    if (status) return status;
    return read_real(scaling, (struct real_field){"attention_factor", 1e-3, 1e3, attention_factor}, &rope->attention_factor, err);
}

/* The fields come as rope_theta and rope_scaling, or all in rope_parameters (transformers 5). Where a file has both, the
 * reference takes a rope_scaling that is not empty and nothing of rope_parameters, not even its rope_theta. Null: the file has
 * neither. */
static enum cllm_status find_scaling(const json_t *root, const json_t **scaling_out, struct cllm_error *err)
{
    static const char *const keys[] = {"rope_parameters", "rope_scaling"}; /* the later wins */
    const char *key = NULL;
    *scaling_out = NULL;
    for (int i = 0; i < 2; i++) {
        const json_t *field = find_field(root, keys[i]);
        if (field && !json_is_object(field)) return fail_field(err, keys[i], field, "an object");
        if (json_object_size(field) == 0) continue;
        key = keys[i];
        *scaling_out = field;
    }
    if (!json_is_object(json_object_get(*scaling_out, "full_attention"))) return CLLM_OK;
    return fail_unsupported(err, key, "one per kind of layer", "one for all layers");
}

/* As the reference: dynamic scaling knows the longest text alone; for the others, what stands beside the scaling comes first. */
static enum cllm_status read_original_length(const json_t *root, const json_t *scaling, uint32_t position_limit,
                                             struct cllm_rope_config *rope, struct cllm_error *err)
{
    const struct integer_field field = {"original_max_position_embeddings", COUNT_MAX_POSITIONS, position_limit};
    rope->original_length = position_limit;
    if (rope->type != CLLM_ROPE_LLAMA3 && rope->type != CLLM_ROPE_YARN) return CLLM_OK;
    return read_integer(find_field(root, field.key) ? root : scaling, field, &rope->original_length, err);
}

/* Yarn's may be null, though not missing: it is then what the lengths say. */
static enum cllm_status read_factor(const json_t *scaling, uint32_t position_limit, struct cllm_rope_config *rope,
                                    struct cllm_error *err)
{
    struct real_field field = {"factor", 1e-3, 1e6, NAN};
    if (rope->type == CLLM_ROPE_YARN && has_key(scaling, field.key)) {
        field.fallback = (double)position_limit / rope->original_length;
    }
    return read_real(scaling, field, &rope->factor, err);
}

static enum cllm_status read_rope(const json_t *root, uint32_t position_limit, struct cllm_rope_config *rope,
                                  struct cllm_error *err)
{
    static const struct real_field theta = {"rope_theta", 1, 1e15, 10000};
    const json_t *scaling;
    *rope = (struct cllm_rope_config){.attention_factor = 1};
    enum cllm_status status = find_scaling(root, &scaling, err);
    if (!status) status = read_real(find_field(scaling, theta.key) ? scaling : root, theta, &rope->theta, err);
    if (!status) status = check_whole_rotary(scaling, err);
    if (!status) status = read_rope_type(scaling, &rope->type, err);
    if (status || rope->type == CLLM_ROPE_DEFAULT) return status;
    status = read_original_length(root, scaling, position_limit, rope, err);
    if (!status) status = read_factor(scaling, position_limit, rope, err);
    if (!status && rope->type == CLLM_ROPE_LLAMA3) status = read_llama3(scaling, rope, err);
    if (!status && rope->type == CLLM_ROPE_YARN) status = read_yarn(scaling, rope, err);
    return status;
}

/* ------------------------------------------------------------------------------------------------------ end tokens */

static enum cllm_status add_end_id(struct cllm_config *config, const char *file, const json_t *value, struct cllm_error *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > UINT32_MAX) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                         "%s: eos_token_id: found something else, expected a token id or a list of token ids", file);
    }
    uint32_t id = (uint32_t)json_integer_value(value);
    if (cllm_config_is_end(config, id)) return CLLM_OK;
    if (config->end_id_count == CLLM_END_ID_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "%s: eos_token_id: found more than %d tokens in all, expected fewer",
                         file, CLLM_END_ID_MAX);
    }
    config->end_ids[config->end_id_count++] = id;
    return CLLM_OK;
}

static enum cllm_status add_end_ids(struct cllm_config *config, const char *file, const json_t *root, struct cllm_error *err)
{
    const json_t *field = find_field(root, "eos_token_id");
    if (!field) return CLLM_OK;
    if (!json_is_array(field)) return add_end_id(config, file, field, err);
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; !status && i < json_array_size(field); i++) {
        status = add_end_id(config, file, json_array_get(field, i), err);
    }
    return status;
}

bool cllm_config_is_end(const struct cllm_config *config, uint32_t id)
{
    for (uint32_t i = 0; i < config->end_id_count; i++) {
        if (config->end_ids[i] == id) return true;
    }
    return false;
}

/* --------------------------------------------------------------------------------------------------------- parsing */

/* Jansson bounds the nesting (2048 levels) and refuses bytes that are not UTF-8. */
static enum cllm_status parse_object(const char *file, struct cllm_json_text text, json_t **root_out, struct cllm_error *err)
{
    json_error_t problem;
    *root_out = json_loadb(text.bytes, text.byte_count, JSON_REJECT_DUPLICATES, &problem);
    if (json_is_object(*root_out)) return CLLM_OK;
    char shown[160];
    enum cllm_status status =
        *root_out ? cllm_fail(err, CLLM_E_CORRUPT, 0, "%s: found a JSON value of another kind, expected an object", file)
                  : cllm_fail(err, CLLM_E_CORRUPT, problem.position > 0 ? (uint64_t)problem.position : 0,
                              "%s: line %d: %s, expected JSON", file, problem.line,
                              cllm_escape(problem.text, strlen(problem.text), shown, sizeof shown));
    json_decref(*root_out);
    *root_out = NULL;
    return status;
}

static enum cllm_status read_sizes(const json_t *root, const struct architecture *architecture, struct cllm_config *config,
                                   struct cllm_error *err)
{
    const struct {
        struct integer_field field;
        uint32_t *value_out;
    } fields[] = {
        {{"hidden_size", SIZE_MAX_HIDDEN, 0}, &config->hidden_size},
        {{"num_hidden_layers", COUNT_MAX_LAYERS, 0}, &config->layer_count},
        {{"intermediate_size", SIZE_MAX_INTERMEDIATE, 0}, &config->intermediate_size},
        {{"vocab_size", SIZE_MAX_VOCAB, 0}, &config->vocab_size},
        {{"num_attention_heads", COUNT_MAX_HEADS, 0}, &config->head_count},
        {{"max_position_embeddings", COUNT_MAX_POSITIONS, architecture->missing_positions}, &config->position_limit},
    };
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; !status && i < sizeof fields / sizeof *fields; i++) {
        status = read_integer(root, fields[i].field, fields[i].value_out, err);
    }
    return status;
}

/* Null is as many as heads in every architecture, a missing key need not be. */
static enum cllm_status read_kv_heads(const json_t *root, const struct architecture *architecture, struct cllm_config *config,
                                      struct cllm_error *err)
{
    struct integer_field field = {"num_key_value_heads", COUNT_MAX_HEADS, config->head_count};
    const bool assumed = architecture->missing_kv_heads && !has_key(root, field.key);
    if (assumed) field.fallback = architecture->missing_kv_heads;
    enum cllm_status status = read_integer(root, field, &config->kv_head_count, err);
    if (status || config->head_count % config->kv_head_count == 0) return status;
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET,
                     MODEL_FILE ": %s: found %s%u, expected a divisor of num_attention_heads", field.key,
                     assumed ? "nothing, which means " : "", config->kv_head_count);
}

static enum cllm_status read_heads(const json_t *root, const struct architecture *architecture, struct cllm_config *config,
                                   struct cllm_error *err)
{
    const struct integer_field head_dim = {"head_dim", SIZE_MAX_HEAD, config->hidden_size / config->head_count};
    if (!find_field(root, head_dim.key) && config->hidden_size % config->head_count != 0) {
        return fail_field(err, "num_attention_heads", find_field(root, "num_attention_heads"), "a divisor of hidden_size");
    }
    enum cllm_status status = read_kv_heads(root, architecture, config, err);
    if (!status) status = read_integer(root, head_dim, &config->head_dim, err);
    if (status) return status;
    if (config->head_dim % 2 != 0 || config->head_dim > SIZE_MAX_HEAD) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, MODEL_FILE ": head_dim: found %u, expected an even number up to %d",
                         config->head_dim, SIZE_MAX_HEAD);
    }
    return CLLM_OK;
}

static enum cllm_status read_window(const json_t *root, const struct architecture *architecture, struct cllm_config *config,
                                    struct cllm_error *err)
{
    bool layers_differ = false;
    enum cllm_status status = read_bool(root, "use_sliding_window", &layers_differ, err);
    if (status) return status;
    if (layers_differ) return fail_unsupported(err, "use_sliding_window", "true", "false");
    if (!architecture->missing_window) return CLLM_OK;
    const struct integer_field field = {"sliding_window", COUNT_MAX_POSITIONS, architecture->missing_window};
    if (has_key(root, field.key) && !find_field(root, field.key)) return CLLM_OK; /* null: every layer sees all */
    return read_integer(root, field, &config->sliding_window, err);
}

static enum cllm_status read_model(const json_t *root, struct cllm_config *config, struct cllm_error *err)
{
    const struct architecture *architecture;
    double epsilon;
    enum cllm_status status = find_architecture(root, &architecture, err);
    if (status) return status;
    config->architecture = architecture->name;
    config->qkv_bias = architecture->qkv_bias;
    status = check_variants(root, err);
    if (!status) status = read_sizes(root, architecture, config, err);
    if (!status) status = read_heads(root, architecture, config, err);
    if (!status) status = read_window(root, architecture, config, err);
    if (!status) status = read_real(root, (struct real_field){"rms_norm_eps", 0, 1, 1e-6}, &epsilon, err);
    if (!status) status = read_rope(root, config->position_limit, &config->rope, err);
    if (!status) status = read_bool(root, "tie_word_embeddings", &config->tied_head, err);
    if (!status && strcmp(architecture->model_type, "llama") == 0) {
        status = read_bool(root, "attention_bias", &config->attention_output_bias, err);
        if (!status) status = read_bool(root, "mlp_bias", &config->mlp_bias, err);
        config->qkv_bias = config->attention_output_bias;
    }
    if (!status) config->norm_epsilon = (float)epsilon;
    return status;
}

enum cllm_status cllm_config_parse(struct cllm_json_text model, struct cllm_json_text generation, struct cllm_config *config_out,
                                   struct cllm_error *err)
{
    json_t *model_root = NULL, *generation_root = NULL;
    *config_out = (struct cllm_config){0};
    enum cllm_status status = parse_object(MODEL_FILE, model, &model_root, err);
    if (!status) status = read_model(model_root, config_out, err);
    if (!status && generation.bytes) status = parse_object(GENERATION_FILE, generation, &generation_root, err);
    if (!status) status = add_end_ids(config_out, GENERATION_FILE, generation_root, err);
    if (!status) status = add_end_ids(config_out, MODEL_FILE, model_root, err);
    json_decref(generation_root);
    json_decref(model_root);
    return status;
}

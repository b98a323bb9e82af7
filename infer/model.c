/* model.c - from the tensors of a container to the weights of a model. */
#include "model.h"

#include "bytes.h"
#include "cllm_decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define JSON_FILE_LIMIT_BYTES (UINT64_C(1) << 20)
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define WEIGHT_ALIGNMENT 64

/* --------------------------------------------------------------------------------------------------- configuration */

/* `*bytes_out` stays null where the container lacks the file. */
static enum cllm_status load_json(const struct cllm_reader *reader, const char *name, uint8_t **bytes_out,
                                  struct cllm_json_text *text_out, struct cllm_error *err)
{
    const struct cllm_file *file = cllm_reader_find_file(reader, name);
    *text_out = (struct cllm_json_text){0};
    if (!file) return CLLM_OK;
    enum cllm_status status = cllm_load_file(reader, file, JSON_FILE_LIMIT_BYTES, bytes_out, &text_out->byte_count, err);
    text_out->bytes = *bytes_out;
    return status;
}

static enum cllm_status read_config(const struct cllm_reader *reader, struct cllm_config *config, struct cllm_error *err)
{
    uint8_t *model_bytes = NULL, *generation_bytes = NULL;
    struct cllm_json_text model = {0}, generation = {0};
    enum cllm_status status = load_json(reader, "config.json", &model_bytes, &model, err);
    if (!status && !model_bytes) {
        status = cllm_fail(err, CLLM_E_ABSENT, CLLM_NO_OFFSET,
                           "the container has no config.json: it holds weights, not a whole model");
    }
    if (!status) status = load_json(reader, "generation_config.json", &generation_bytes, &generation, err);
    if (!status) status = cllm_config_parse(model, generation, config, err);
    free(generation_bytes);
    free(model_bytes);
    return status;
}

/* ---------------------------------------------------------------------------------------------------- description */

static const struct {
    const char *dtype;
    uint32_t element_bytes;
} weight_types[CLLM_WEIGHT_TYPE_COUNT] = {
    [CLLM_WEIGHT_BF16] = {"BF16", 2},
    [CLLM_WEIGHT_F16] = {"F16", 2},
    [CLLM_WEIGHT_F32] = {"F32", 4},
};

struct shape {
    uint32_t row_count;
    uint32_t column_count; /* 1: the tensor has rank 1 */
};

static enum cllm_status fail_shape(const struct cllm_tensor *tensor, struct shape shape, struct cllm_error *err)
{
    char name[128], found[128] = "", expected[32];
    size_t used = 0;
    for (uint32_t i = 0; i < tensor->rank && used < sizeof found - 32; i++) {
        used +=
            (size_t)snprintf(found + used, sizeof found - used, "%s%llu", i ? ", " : "", (unsigned long long)tensor->shape[i]);
    }
    if (shape.column_count == 1) snprintf(expected, sizeof expected, "%u", shape.row_count);
    else snprintf(expected, sizeof expected, "%u, %u", shape.row_count, shape.column_count);
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "tensor \"%s\" has shape [%s], expected [%s] from config.json",
                     cllm_escape(tensor->name, tensor->name_bytes, name, sizeof name), found, expected);
}

static bool has_shape(const struct cllm_tensor *tensor, struct shape shape)
{
    if (shape.column_count == 1) return tensor->rank == 1 && tensor->shape[0] == shape.row_count;
    return tensor->rank == 2 && tensor->shape[0] == shape.row_count && tensor->shape[1] == shape.column_count;
}

/* What a search needs; `layer_index` is the number in the name of a layer's tensors. */
struct finder {
    const struct cllm_reader *reader;
    struct cllm_error *err;
    uint32_t layer_index;
};

/* A name that begins with '.' is that of a layer's tensor. */
static enum cllm_status find_weight(const struct finder *finder, const char *name, struct shape shape, struct cllm_weight *weight)
{
    char full_name[96];
    if (name[0] == '.') snprintf(full_name, sizeof full_name, "model.layers.%u%s", finder->layer_index, name);
    else snprintf(full_name, sizeof full_name, "%s", name);
    const struct cllm_tensor *tensor = cllm_reader_find_tensor(finder->reader, full_name);
    if (!tensor) {
        return cllm_fail(finder->err, CLLM_E_ABSENT, CLLM_NO_OFFSET, "tensor \"%s\" is missing, expected it from config.json",
                         full_name);
    }
    *weight = (struct cllm_weight){.tensor = tensor, .row_count = shape.row_count, .column_count = shape.column_count};
    int type = 0;
    while (type < CLLM_WEIGHT_TYPE_COUNT && strcmp(tensor->dtype, weight_types[type].dtype) != 0) {
        type++;
    }
    if (type == CLLM_WEIGHT_TYPE_COUNT) {
        char shown[32];
        return cllm_fail(finder->err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET,
                         "tensor \"%s\" has dtype %s, this build runs BF16, F16 and F32", full_name,
                         cllm_escape(tensor->dtype, strlen(tensor->dtype), shown, sizeof shown));
    }
    weight->type = (enum cllm_weight_type)type;
    return has_shape(tensor, shape) ? CLLM_OK : fail_shape(tensor, shape, finder->err);
}

static enum cllm_status find_linear(const struct finder *finder, const char *name, struct shape shape, bool has_bias,
                                    struct cllm_linear *linear)
{
    char full_name[64];
    snprintf(full_name, sizeof full_name, "%s.weight", name);
    enum cllm_status status = find_weight(finder, full_name, shape, &linear->weight);
    if (status || !has_bias) return status;
    snprintf(full_name, sizeof full_name, "%s.bias", name);
    return find_weight(finder, full_name, (struct shape){shape.row_count, 1}, &linear->bias);
}

static enum cllm_status find_layer(const struct finder *finder, const struct cllm_config *config, struct cllm_layer *layer)
{
    const uint32_t hidden = config->hidden_size, intermediate = config->intermediate_size;
    const uint32_t query = config->head_count * config->head_dim, key = config->kv_head_count * config->head_dim;
    const struct {
        const char *name;
        struct shape shape;
        bool has_bias;
        struct cllm_linear *linear;
    } linears[] = {
        {".self_attn.q_proj", {query, hidden}, config->qkv_bias, &layer->query},
        {".self_attn.k_proj", {key, hidden}, config->qkv_bias, &layer->key},
        {".self_attn.v_proj", {key, hidden}, config->qkv_bias, &layer->value},
        {".self_attn.o_proj", {hidden, query}, config->attention_output_bias, &layer->output},
        {".mlp.gate_proj", {intermediate, hidden}, config->mlp_bias, &layer->gate},
        {".mlp.up_proj", {intermediate, hidden}, config->mlp_bias, &layer->up},
        {".mlp.down_proj", {hidden, intermediate}, config->mlp_bias, &layer->down},
    };
    const struct shape norm = {hidden, 1};
    enum cllm_status status = find_weight(finder, ".input_layernorm.weight", norm, &layer->attention_norm);
    if (!status) status = find_weight(finder, ".post_attention_layernorm.weight", norm, &layer->mlp_norm);
    for (size_t i = 0; !status && i < sizeof linears / sizeof *linears; i++) {
        status = find_linear(finder, linears[i].name, linears[i].shape, linears[i].has_bias, linears[i].linear);
    }
    return status;
}

/* A tied head is the embedding; a checkpoint may store it none the less, and then (should they differ) the stored one counts. */
static enum cllm_status find_head(const struct finder *finder, struct cllm_model *model)
{
    const struct shape shape = {model->config.vocab_size, model->config.hidden_size};
    if (model->config.tied_head && !cllm_reader_find_tensor(finder->reader, "lm_head.weight")) {
        model->head = model->embedding;
        return CLLM_OK;
    }
    return find_weight(finder, "lm_head.weight", shape, &model->head);
}

static enum cllm_status find_weights(const struct cllm_reader *reader, struct cllm_model *model, struct cllm_error *err)
{
    struct finder finder = {.reader = reader, .err = err};
    const struct cllm_config *config = &model->config;
    const struct shape embedding = {config->vocab_size, config->hidden_size};
    enum cllm_status status = find_weight(&finder, "model.embed_tokens.weight", embedding, &model->embedding);
    if (!status) status = find_weight(&finder, "model.norm.weight", (struct shape){config->hidden_size, 1}, &model->final_norm);
    if (!status) status = find_head(&finder, model);
    for (; !status && finder.layer_index < config->layer_count; finder.layer_index++) {
        status = find_layer(&finder, config, &model->layers[finder.layer_index]);
    }
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- loading */

enum { LAYER_WEIGHT_COUNT = sizeof(struct cllm_layer) / sizeof(struct cllm_weight), OTHER_WEIGHT_COUNT = 3 };
_Static_assert(sizeof(struct cllm_layer) % sizeof(struct cllm_weight) == 0, "a layer is nothing but weights");

/* The weight number `i` of all, in the order in which the forward pass reads them; some are absent. */
static struct cllm_weight *model_weight(struct cllm_model *model, size_t i)
{
    size_t in_layers = (size_t)model->config.layer_count * LAYER_WEIGHT_COUNT;
    if (i == 0) return &model->embedding;
    if (i <= in_layers) return (struct cllm_weight *)model->layers + (i - 1);
    return i == in_layers + 1 ? &model->final_norm : &model->head;
}

static size_t model_weight_count(const struct cllm_model *model)
{
    return (size_t)model->config.layer_count * LAYER_WEIGHT_COUNT + OTHER_WEIGHT_COUNT;
}

/* Where each data object goes: byte offset + 1 in the model's memory, 0 for one that is not needed. */
static enum cllm_status place_weights(struct cllm_model *model, const struct cllm_index *index, uint64_t *places,
                                      struct cllm_error *err)
{
    for (size_t i = 0; i < model_weight_count(model); i++) {
        const struct cllm_weight *weight = model_weight(model, i);
        if (!weight->tensor || places[weight->tensor->data_index]) continue;
        const struct cllm_data *data = &index->data[weight->tensor->data_index];
        const uint64_t element_count = (uint64_t)weight->row_count * weight->column_count;
        if (data->decoded_bytes != element_count * weight_types[weight->type].element_bytes) {
            return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "tensor \"%s\" has %llu bytes, expected %llu from its shape",
                             weight->tensor->name, (unsigned long long)data->decoded_bytes,
                             (unsigned long long)(element_count * weight_types[weight->type].element_bytes));
        }
        places[weight->tensor->data_index] = model->weight_bytes + 1;
        model->parameter_count += element_count;
        if (!cllm_add(model->weight_bytes, data->decoded_bytes, &model->weight_bytes) ||
            !cllm_align(model->weight_bytes, WEIGHT_ALIGNMENT, &model->weight_bytes) ||
            model->weight_bytes > SIZE_MAX - HUGE_PAGE_BYTES) {
            return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "the weights do not fit the address space");
        }
    }
    return CLLM_OK;
}

/* Huge pages: a pass over the weights touches each page once, so with small ones it would wait for the page tables. */
static enum cllm_status allocate_weights(struct cllm_model *model, struct cllm_error *err)
{
    size_t bytes = ((size_t)model->weight_bytes + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
    model->memory = aligned_alloc(HUGE_PAGE_BYTES, bytes);
    if (!model->memory) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %zu bytes of weights", bytes);
    madvise(model->memory, bytes, MADV_HUGEPAGE); /* advice only: failure costs speed, nothing else */
    return CLLM_OK;
}

enum cllm_status cllm_model_load(struct cllm_model *model, const struct cllm_reader *reader, unsigned thread_count,
                                 const struct cllm_progress *progress, struct cllm_error *err)
{
    const struct cllm_index *index = cllm_reader_index(reader);
    size_t load_count = 0;
    struct cllm_load *loads = NULL;
    uint64_t *places = calloc(index->data_count, sizeof *places);
    enum cllm_status status = CLLM_OK;
    if (!places) status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the table of weights");
    if (!status) status = place_weights(model, index, places, err);
    if (!status) status = allocate_weights(model, err);
    if (status) goto out;
    loads = calloc(index->data_count, sizeof *loads);
    if (!loads) {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the table of weights");
        goto out;
    }
    for (size_t i = 0; i < model_weight_count(model); i++) {
        struct cllm_weight *weight = model_weight(model, i);
        if (!weight->tensor) continue;
        weight->elements = (const uint8_t *)model->memory + (places[weight->tensor->data_index] - 1);
    }
    for (uint32_t i = 0; i < index->data_count; i++) {
        if (places[i]) loads[load_count++] = (struct cllm_load){i, (uint8_t *)model->memory + (places[i] - 1)};
    }
    status = cllm_load_data(reader, loads, load_count, thread_count, progress, err);
out:
    free(loads);
    free(places);
    return status;
}

enum cllm_status cllm_model_open(const struct cllm_reader *reader, struct cllm_model **model_out, struct cllm_error *err)
{
    *model_out = NULL;
    struct cllm_model *model = calloc(1, sizeof *model);
    if (!model) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a model");
    enum cllm_status status = read_config(reader, &model->config, err);
    if (!status) model->layers = calloc(model->config.layer_count, sizeof *model->layers);
    if (!status && !model->layers) status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a model");
    if (!status) status = find_weights(reader, model, err);
    if (status) cllm_model_destroy(model);
    else *model_out = model;
    return status;
}

void cllm_model_destroy(struct cllm_model *model)
{
    if (!model) return;
    free(model->memory);
    free(model->layers);
    free(model);
}

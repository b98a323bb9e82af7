/* gpu_source.c - uploads a model. */
#include "gpu_source.h"

#include "half.h"
#include "pack12.h"

#include <stdlib.h>
#include <string.h>

struct gpu_source {
    struct cllm_gpu_source base;
    struct cllm_gpu *gpu;
    const struct cllm_model *model;
    enum gpu_source_kind kind;
    unsigned forms;
    bool broken;
    void **memory; /* all that was allocated */
    size_t memory_count;
    struct cllm_gpu_layer *layers;
};

static enum cllm_status allocate(struct gpu_source *source, size_t byte_count, void **d_memory_out, struct cllm_error *err)
{
    void **memory = realloc(source->memory, (source->memory_count + 1) * sizeof *memory);
    if (!memory) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
    source->memory = memory;
    enum cllm_status status = cllm_gpu_allocate(source->gpu, byte_count, d_memory_out, err);
    if (!status) source->memory[source->memory_count++] = *d_memory_out;
    return status;
}

static enum cllm_status upload(struct gpu_source *source, const void *bytes, size_t byte_count, const void **d_out,
                               struct cllm_error *err)
{
    void *d_memory;
    enum cllm_status status = allocate(source, byte_count, &d_memory, err);
    if (!status) status = cllm_gpu_upload(source->gpu, d_memory, bytes, byte_count, err);
    if (!status) status = cllm_gpu_finish(source->gpu, NULL, err);
    *d_out = status ? NULL : d_memory;
    return status;
}

static enum cllm_status upload_vector(struct gpu_source *source, const struct cllm_weight *weight, const float **d_out,
                                      struct cllm_error *err)
{
    *d_out = NULL;
    if (!weight->tensor) return CLLM_OK;
    const size_t bytes = (weight->row_count * sizeof(float) + 15) / 16 * 16; /* as gpu_layout.h wants it */
    float *values = calloc(1, bytes);
    if (!values) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
    for (uint32_t i = 0; i < weight->row_count; i++) {
        const uint16_t half = ((const uint16_t *)weight->elements)[weight->type == CLLM_WEIGHT_F32 ? 0 : i];
        values[i] = weight->type == CLLM_WEIGHT_F32   ? ((const float *)weight->elements)[i]
                    : weight->type == CLLM_WEIGHT_F16 ? cllm_float_from_f16(half)
                                                      : cllm_float_from_bf16(half);
    }
    enum cllm_status status = upload(source, values, bytes, (const void **)d_out, err);
    free(values);
    return status;
}

static enum cllm_status pack(struct gpu_source *source, struct cllm_gpu_matrix *matrix, struct cllm_error *err)
{
    void *stream = cllm_gpu_stream(source->gpu), *d_histogram, *d_packed;
    uint64_t histogram[CLLM_PACK12_BINS];
    const uint64_t count = (uint64_t)matrix->shape.row_count * matrix->shape.column_count;
    enum cllm_status status = allocate(source, sizeof histogram, &d_histogram, err);
    if (!status) status = cllm_pack12_survey(matrix->d_elements, count, d_histogram, stream, err);
    if (!status) status = cllm_gpu_download(source->gpu, histogram, d_histogram, sizeof histogram, err);
    if (!status) status = cllm_gpu_finish(source->gpu, NULL, err);
    if (status) return status;
    const struct cllm_pack12_choice choice = cllm_pack12_choose(histogram);
    status = allocate(source, cllm_pack12_bytes(matrix->shape, choice.patch_count), &d_packed, err);
    struct cllm_gpu_matrix packed;
    if (!status) status = cllm_pack12_write(matrix->d_elements, matrix->shape, &choice, d_packed, &packed, stream, err);
    if (!status) status = cllm_gpu_finish(source->gpu, NULL, err);
    if (!status) *matrix = packed;
    return status;
}

static enum cllm_status upload_matrix(struct gpu_source *source, const struct cllm_weight *weight, struct cllm_gpu_matrix *out,
                                      struct cllm_error *err)
{
    const size_t bytes = (size_t)weight->row_count * weight->column_count * (weight->type == CLLM_WEIGHT_F32 ? 4 : 2);
    *out = (struct cllm_gpu_matrix){.form = (enum cllm_gpu_form)weight->type, .shape = {weight->row_count, weight->column_count}};
    enum cllm_status status = upload(source, weight->elements, bytes, &out->d_elements, err);
    if (!status && source->kind == GPU_SOURCE_PACKED && weight->type == CLLM_WEIGHT_BF16) status = pack(source, out, err);
    source->forms |= 1u << out->form;
    return status;
}

static enum cllm_status upload_linear(struct gpu_source *source, const struct cllm_linear *linear, struct cllm_gpu_linear *out,
                                      struct cllm_error *err)
{
    enum cllm_status status = upload_matrix(source, &linear->weight, &out->weight, err);
    if (!status) status = upload_vector(source, &linear->bias, &out->d_bias, err);
    return status;
}

static enum cllm_status upload_layer(struct gpu_source *source, const struct cllm_layer *layer, struct cllm_gpu_layer *out,
                                     struct cllm_error *err)
{
    enum cllm_status status = upload_vector(source, &layer->attention_norm, &out->d_attention_norm, err);
    if (!status) status = upload_vector(source, &layer->mlp_norm, &out->d_mlp_norm, err);
    if (!status) status = upload_linear(source, &layer->query, &out->query, err);
    if (!status) status = upload_linear(source, &layer->key, &out->key, err);
    if (!status) status = upload_linear(source, &layer->value, &out->value, err);
    if (!status) status = upload_linear(source, &layer->output, &out->output, err);
    if (!status) status = upload_linear(source, &layer->gate, &out->gate, err);
    if (!status) status = upload_linear(source, &layer->up, &out->up, err);
    if (!status) status = upload_linear(source, &layer->down, &out->down, err);
    return status;
}

static enum cllm_status acquire(struct cllm_gpu_source *base, uint32_t layer_index, void *stream,
                                struct cllm_gpu_layer *layer_out, struct cllm_error *err)
{
    struct gpu_source *source = (struct gpu_source *)base;
    (void)stream;
    if (source->broken) return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "the source is broken");
    *layer_out = source->layers[layer_index];
    return CLLM_OK;
}

enum cllm_status gpu_source_create(struct cllm_gpu *gpu, const struct cllm_model *model, enum gpu_source_kind kind,
                                   struct gpu_source **source_out, struct cllm_error *err)
{
    struct gpu_source *source = calloc(1, sizeof *source);
    *source_out = source;
    if (!source) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
    *source = (struct gpu_source){.gpu = gpu, .model = model, .kind = kind};
    source->base.resident = kind != GPU_SOURCE_CHANGING;
    source->base.acquire = acquire;
    source->layers = calloc(model->config.layer_count, sizeof *source->layers);
    enum cllm_status status = upload_matrix(source, &model->embedding, &source->base.embedding, err);
    if (!status) status = upload_matrix(source, &model->head, &source->base.head, err);
    if (!status) status = upload_vector(source, &model->final_norm, &source->base.d_final_norm, err);
    for (uint32_t i = 0; !status && i < model->config.layer_count; i++) {
        status = upload_layer(source, &model->layers[i], &source->layers[i], err);
    }
    return status;
}

struct cllm_gpu_source *gpu_source_base(struct gpu_source *source)
{
    return &source->base;
}

unsigned gpu_source_forms(const struct gpu_source *source)
{
    return source->forms;
}

void gpu_source_break(struct gpu_source *source)
{
    source->broken = true;
}

void gpu_source_destroy(struct gpu_source *source)
{
    if (!source) return;
    for (size_t i = 0; i < source->memory_count; i++) cllm_gpu_free(source->gpu, source->memory[i]);
    free(source->memory);
    free(source->layers);
    free(source);
}

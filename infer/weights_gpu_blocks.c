/* weights_gpu_blocks.c - see weights_gpu_blocks.h. */
#include "weights_gpu_blocks.h"

#include "bytes.h"
#include "layout.h"
#include "pack12.h"
#include "reader.h"
#include "weights_gpu.h"

#include <stdlib.h>

static const uint32_t element_bytes[CLLM_WEIGHT_TYPE_COUNT] = {
    [CLLM_WEIGHT_BF16] = 2, [CLLM_WEIGHT_F16] = 2, [CLLM_WEIGHT_F32] = 4};

void cllm_block_layer_matrices(const struct cllm_layer *layer, const struct cllm_weight *matrices_out[CLLM_BLOCK_MATRICES])
{
    const struct cllm_linear *linears[CLLM_BLOCK_MATRICES] = {&layer->query, &layer->key, &layer->value, &layer->output,
                                                              &layer->gate,  &layer->up,  &layer->down};
    for (int i = 0; i < CLLM_BLOCK_MATRICES; i++) matrices_out[i] = &linears[i]->weight;
}

bool cllm_block_is_packable(const struct cllm_weight *weight)
{
    return weight->type == CLLM_WEIGHT_BF16;
}

/* Sizes of a configuration are such that these products do not overflow. */
static uint64_t raw_bytes_of(const struct cllm_weight *weight)
{
    return (uint64_t)weight->row_count * weight->column_count * element_bytes[weight->type];
}

static uint64_t aligned(uint64_t byte_count, uint64_t alignment)
{
    return (byte_count + alignment - 1) / alignment * alignment;
}

static uint64_t payload_of(const struct cllm_chunk *chunk)
{
    return aligned(cllm_gpu_decodes(chunk) ? chunk->stored_bytes : chunk->decoded_bytes, CLLM_CHUNK_ALIGNMENT);
}

static const struct cllm_data *data_of(const struct cllm_reader *reader, const struct cllm_weight *weight)
{
    return &cllm_reader_index(reader)->data[weight->tensor->data_index];
}

/* --------------------------------------------------------------------------------------------------------- measuring */

static enum cllm_status check_size(const struct cllm_reader *reader, const struct cllm_weight *weight, struct cllm_error *err)
{
    const uint64_t found = data_of(reader, weight)->decoded_bytes, expected = raw_bytes_of(weight);
    if (found == expected) return CLLM_OK;
    char name[128];
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "tensor \"%s\" has %llu bytes, expected %llu from its shape",
                     cllm_escape(weight->tensor->name, weight->tensor->name_bytes, name, sizeof name), (unsigned long long)found,
                     (unsigned long long)expected);
}

static void count_weight(struct cllm_weights_gpu_sizes *sizes, const struct cllm_weight *weight)
{
    sizes->parameter_count += (uint64_t)weight->row_count * weight->column_count;
    sizes->weight_bytes += raw_bytes_of(weight);
}

/* Adds a matrix; `packs` says whether it may be packed at all. */
static enum cllm_status measure_matrix(const struct cllm_reader *reader, const struct cllm_weight *weight, bool packs,
                                       struct cllm_weights_gpu_sizes *sizes, struct cllm_residency_bytes *bytes,
                                       uint64_t *descriptor_bytes, struct cllm_error *err)
{
    const struct cllm_data *data = data_of(reader, weight);
    const struct cllm_gpu_shape shape = {weight->row_count, weight->column_count};
    const uint64_t raw = raw_bytes_of(weight), chunk_descriptor = 192;
    enum cllm_status status = check_size(reader, weight, err);
    if (status) return status;
    packs = packs && cllm_block_is_packable(weight);
    const uint64_t packed = packs ? cllm_pack12_bytes(shape, cllm_pack12_patch_limit(shape)) : raw;
    bytes->raw += aligned(raw, CLLM_BLOCK_ALIGNMENT);
    bytes->packed += aligned(packed, CLLM_BLOCK_ALIGNMENT);
    for (uint32_t c = 0; c < data->chunk_count; c++) {
        const uint64_t payload = payload_of(&data->chunks[c]);
        bytes->stored += payload;
        if (payload > sizes->chunk_bytes) sizes->chunk_bytes = payload;
    }
    *descriptor_bytes += data->table_count * sizes->part_bytes + (data->chunk_count + raw / 65536) * chunk_descriptor;
    sizes->forms |= 1u << weight->type;
    count_weight(sizes, weight);
    return CLLM_OK;
}

static enum cllm_status measure_layer(const struct cllm_reader *reader, const struct cllm_layer *layer,
                                      struct cllm_weights_gpu_sizes *sizes, struct cllm_residency_bytes *bytes,
                                      struct cllm_error *err)
{
    const struct cllm_weight *matrices[CLLM_BLOCK_MATRICES];
    const bool pair_packs = cllm_block_is_packable(&layer->gate.weight) && cllm_block_is_packable(&layer->up.weight);
    uint64_t descriptor_bytes = 0;
    enum cllm_status status = CLLM_OK;
    cllm_block_layer_matrices(layer, matrices);
    for (int i = 0; !status && i < CLLM_BLOCK_MATRICES; i++) {
        const bool in_pair = matrices[i] == &layer->gate.weight || matrices[i] == &layer->up.weight;
        status = measure_matrix(reader, matrices[i], !in_pair || pair_packs, sizes, bytes, &descriptor_bytes, err);
    }
    if (descriptor_bytes > sizes->descriptor_bytes) sizes->descriptor_bytes = descriptor_bytes;
    return status;
}

/* Widened to float32; absent ones have no rows. */
static void measure_vector(const struct cllm_weight *vector, struct cllm_weights_gpu_sizes *sizes)
{
    sizes->vector_bytes += aligned(vector->row_count * sizeof(float), CLLM_BLOCK_ALIGNMENT);
    count_weight(sizes, vector);
}

static void measure_vectors(const struct cllm_layer *layer, struct cllm_weights_gpu_sizes *sizes)
{
    const struct cllm_weight *vectors[] = {&layer->attention_norm, &layer->mlp_norm,   &layer->query.bias,
                                           &layer->key.bias,       &layer->value.bias, &layer->output.bias,
                                           &layer->gate.bias,      &layer->up.bias,    &layer->down.bias};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) measure_vector(vectors[i], sizes);
}

static bool has_palettes(const struct cllm_index *index)
{
    for (uint32_t i = 0; i < index->data_count; i++) {
        for (uint32_t t = 0; t < index->data[i].table_count; t++) {
            if (index->data[i].tables[t].value_bytes) return true;
        }
    }
    return false;
}

enum cllm_status cllm_weights_gpu_measure(const struct cllm_reader *reader, const struct cllm_model *model,
                                          struct cllm_weights_gpu_sizes *sizes_out, struct cllm_error *err)
{
    const uint32_t layer_count = model->config.layer_count;
    uint64_t unused = 0;
    const bool palettes = has_palettes(cllm_reader_index(reader));
    *sizes_out = (struct cllm_weights_gpu_sizes){.part_bytes = cllm_gpu_scratch_bytes(1, palettes)};
    sizes_out->layers = calloc(layer_count, sizeof *sizes_out->layers);
    if (!sizes_out->layers) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the sizes of layers");
    enum cllm_status status = measure_matrix(reader, &model->head, true, sizes_out, &sizes_out->head, &unused, err);
    if (!status && model->embedding.tensor->data_index != model->head.tensor->data_index) {
        status = measure_matrix(reader, &model->embedding, true, sizes_out, &sizes_out->embedding, &unused, err);
    }
    for (uint32_t i = 0; !status && i < layer_count; i++) {
        status = measure_layer(reader, &model->layers[i], sizes_out, &sizes_out->layers[i], err);
        measure_vectors(&model->layers[i], sizes_out);
    }
    measure_vector(&model->final_norm, sizes_out);
    if (!status) return CLLM_OK;
    free(sizes_out->layers);
    sizes_out->layers = NULL;
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ blocks */

static void add_matrix(struct cllm_block *block, const struct cllm_weight *weight)
{
    struct cllm_block_matrix *matrix = &block->matrices[block->matrix_count++];
    *matrix = (struct cllm_block_matrix){.weight = weight, .raw_offset = block->raw_bytes, .raw_bytes = raw_bytes_of(weight)};
    matrix->placed.shape = (struct cllm_gpu_shape){weight->row_count, weight->column_count};
    block->raw_bytes += aligned(matrix->raw_bytes, CLLM_BLOCK_ALIGNMENT);
}

/* The span that starts at `first_chunk`: as many chunks of one way as there is room for, at least one. */
static struct cllm_block_span span_at(const struct cllm_data *data, uint32_t first_chunk, uint64_t room_bytes)
{
    struct cllm_block_span span = {.first_chunk = first_chunk};
    const uint32_t run = cllm_gpu_run_chunks(data, first_chunk, data->chunk_count - first_chunk, &span.decodes);
    while (span.chunk_count < run) {
        const struct cllm_chunk *chunk = &data->chunks[first_chunk + span.chunk_count];
        if (span.chunk_count > 0 && span.payload_bytes + payload_of(chunk) > room_bytes) break;
        span.payload_bytes += payload_of(chunk);
        span.out_bytes += chunk->decoded_bytes;
        span.chunk_count++;
    }
    return span;
}

/* Cuts a block into spans and parts, or only counts them where block->spans is null. */
static void cut_block(const struct cllm_reader *reader, uint64_t slot_bytes, struct cllm_block *block)
{
    struct cllm_block_part part = {0};
    block->span_count = block->part_count = 0;
    for (unsigned m = 0; m < block->matrix_count; m++) {
        const struct cllm_data *data = data_of(reader, block->matrices[m].weight);
        for (uint32_t c = 0; c < data->chunk_count;) {
            struct cllm_block_span span = span_at(data, c, slot_bytes - part.payload_bytes);
            if (part.payload_bytes + span.payload_bytes > slot_bytes && part.span_count > 0) {
                if (block->parts) block->parts[block->part_count] = part;
                block->part_count++;
                part = (struct cllm_block_part){0};
                continue;
            }
            span.data_index = block->matrices[m].weight->tensor->data_index;
            span.payload_offset = part.payload_bytes;
            span.out_offset = block->matrices[m].raw_offset + (uint64_t)c * data->chunk_bytes;
            if (part.span_count == 0) part.spans = block->spans + (block->spans ? block->span_count : 0);
            part.span_count++;
            part.payload_bytes += span.payload_bytes;
            part.out_bytes += span.out_bytes;
            if (block->spans) block->spans[block->span_count] = span;
            block->span_count++;
            c += span.chunk_count;
        }
    }
    if (block->parts) block->parts[block->part_count] = part;
    block->part_count++;
}

static enum cllm_status complete_block(const struct cllm_reader *reader, uint64_t slot_bytes, struct cllm_blocks *blocks,
                                       struct cllm_block *block, struct cllm_error *err)
{
    if (block->fate == CLLM_BLOCK_ABSENT) return CLLM_OK;
    cut_block(reader, slot_bytes, block);
    block->spans = calloc(block->span_count + 1, sizeof *block->spans); /* a matrix without chunks has none */
    block->parts = calloc(block->part_count, sizeof *block->parts);
    if (!block->spans || !block->parts)
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %zu parts", block->part_count);
    cut_block(reader, slot_bytes, block);
    blocks->raw_bytes += block->raw_bytes;
    for (size_t i = 0; block->fate == CLLM_BLOCK_STREAMED && i < block->part_count; i++) {
        block->parts[i].arena_offset = blocks->arena_bytes;
        blocks->arena_bytes += aligned(block->parts[i].payload_bytes + CLLM_PART_SLACK_BYTES, CLLM_PART_SLACK_BYTES);
    }
    return CLLM_OK;
}

enum cllm_status cllm_blocks_create(const struct cllm_reader *reader, const struct cllm_model *model,
                                    const struct cllm_residency_plan *plan, struct cllm_blocks *blocks_out,
                                    struct cllm_error *err)
{
    const enum cllm_block_fate kept = plan->raw ? CLLM_BLOCK_RAW : CLLM_BLOCK_PACKED;
    const bool tied = model->embedding.tensor->data_index == model->head.tensor->data_index;
    *blocks_out = (struct cllm_blocks){.block_count = (size_t)CLLM_BLOCK_LAYERS + model->config.layer_count};
    blocks_out->blocks = calloc(blocks_out->block_count, sizeof *blocks_out->blocks);
    if (!blocks_out->blocks) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the table of weights");
    blocks_out->blocks[CLLM_BLOCK_EMBEDDING].fate = tied || plan->embedding_on_host ? CLLM_BLOCK_ABSENT : kept;
    blocks_out->blocks[CLLM_BLOCK_HEAD].fate = kept;
    add_matrix(&blocks_out->blocks[CLLM_BLOCK_EMBEDDING], &model->embedding);
    add_matrix(&blocks_out->blocks[CLLM_BLOCK_HEAD], &model->head);
    for (uint32_t i = 0; i < model->config.layer_count; i++) {
        struct cllm_block *block = &blocks_out->blocks[CLLM_BLOCK_LAYERS + i];
        const struct cllm_weight *matrices[CLLM_BLOCK_MATRICES];
        cllm_block_layer_matrices(&model->layers[i], matrices);
        for (int m = 0; m < CLLM_BLOCK_MATRICES; m++) add_matrix(block, matrices[m]);
        block->fate = cllm_residency_is_streamed(plan, i) ? CLLM_BLOCK_STREAMED : kept;
    }
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; !status && i < blocks_out->block_count; i++) {
        status = complete_block(reader, plan->slot_bytes, blocks_out, &blocks_out->blocks[i], err);
    }
    return status;
}

void cllm_blocks_free(struct cllm_blocks *blocks)
{
    for (size_t i = 0; blocks->blocks && i < blocks->block_count; i++) {
        free(blocks->blocks[i].spans);
        free(blocks->blocks[i].parts);
    }
    free(blocks->blocks);
    *blocks = (struct cllm_blocks){0};
}

/* ----------------------------------------------------------------------------------------------------------- filling */

void cllm_part_filler_free(struct cllm_part_filler *filler)
{
    cllm_decoder_destroy(filler->decoder);
    free(filler->stored);
    *filler = (struct cllm_part_filler){0};
}

/* One chunk, decoded here. */
static enum cllm_status fill_decoded(const struct cllm_reader *reader, uint32_t data_index, uint32_t chunk_index,
                                     struct cllm_part_filler *filler, uint8_t *out, struct cllm_error *err)
{
    const struct cllm_data *data = &cllm_reader_index(reader)->data[data_index];
    const struct cllm_chunk *chunk = &data->chunks[chunk_index];
    const size_t needed = cllm_chunk_buffer_bytes(chunk);
    if (needed > filler->stored_capacity) {
        free(filler->stored);
        filler->stored_capacity = 0;
        filler->stored = malloc(needed);
        if (!filler->stored) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a chunk");
        filler->stored_capacity = needed;
    }
    enum cllm_status status = filler->decoder ? CLLM_OK : cllm_decoder_create(&filler->decoder, err);
    if (!status) status = cllm_reader_read_chunk(reader, data_index, chunk_index, filler->stored, needed, err);
    if (status) return status;
    status = cllm_decode_chunk(filler->decoder, data, chunk, filler->stored, out, err);
    return status ? cllm_reader_blame_chunk(reader, data_index, chunk_index, status, err) : CLLM_OK;
}

/* Reading a run zeroes the slack behind it, where the next span is read afterwards. */
static enum cllm_status fill_span(const struct cllm_reader *reader, const struct cllm_block_span *span,
                                  struct cllm_part_filler *filler, uint8_t *payload, struct cllm_error *err)
{
    const struct cllm_data *data = &cllm_reader_index(reader)->data[span->data_index];
    if (span->decodes) {
        return cllm_reader_read_checked(reader, span->data_index, span->first_chunk, span->chunk_count, payload, err);
    }
    enum cllm_status status = CLLM_OK;
    for (uint32_t k = 0; !status && k < span->chunk_count; k++) {
        uint8_t *out = payload + (size_t)k * data->chunk_bytes;
        status = fill_decoded(reader, span->data_index, span->first_chunk + k, filler, out, err);
    }
    return status;
}

enum cllm_status cllm_part_fill(const struct cllm_reader *reader, const struct cllm_block_part *part,
                                struct cllm_part_filler *filler, uint8_t *payload, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t i = 0; !status && i < part->span_count; i++) {
        status = fill_span(reader, &part->spans[i], filler, payload + part->spans[i].payload_offset, err);
    }
    return status;
}

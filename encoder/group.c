/* group.c - see group.h. */
#include "group.h"

#include "cllm_decode.h"
#include "compress.h"
#include "digest.h"
#include "encode_float.h"
#include "reader.h"
#include "tables.h"

#include <stdlib.h>

/* zstd is tried where the float form saves less than this share of the bytes, or on so little data that it costs nothing. */
#define TRY_ZSTD_BELOW_SAVING 10u /* one part in */
#define TRY_ZSTD_MAX_BYTES (64u << 10)

struct cllm_group {
    uint8_t *input;   /* CLLM_GROUP_BYTES, and slack */
    uint8_t *symbols; /* one per element */
    uint8_t *stored;  /* chunk k's float form starts at k * stored_stride */
    size_t stored_capacity;
    size_t stored_stride;
    uint8_t *other; /* zstd frames, at the offset of their input */
    uint8_t *check; /* one decoded chunk */
    struct cllm_encoded_chunk *chunks;
    uint32_t chunk_count;
    struct cllm_tables tables;
    struct cllm_float_code codes[CLLM_GROUP_TABLES_MAX];
    struct cllm_compressor *compressor;
    struct cllm_decoder *decoder;
};

#define CHUNKS_MAX (CLLM_GROUP_BYTES >> CLLM_CHUNK_LOG2_MIN)

enum cllm_status cllm_group_create(struct cllm_group **group_out, struct cllm_error *err)
{
    struct cllm_group *group = calloc(1, sizeof *group);
    *group_out = NULL;
    if (!group) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for encoding");
    size_t bytes = CLLM_GROUP_BYTES + CLLM_READ_SLACK_BYTES;
    group->input = malloc(bytes);
    group->symbols = malloc(bytes);
    group->other = malloc(bytes);
    group->check = malloc(bytes);
    group->chunks = calloc(CHUNKS_MAX, sizeof *group->chunks);
    enum cllm_status status = cllm_compressor_create(&group->compressor, err);
    if (!status) status = cllm_decoder_create(&group->decoder, err);
    if (!status && !(group->input && group->symbols && group->other && group->check && group->chunks)) {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for encoding");
    }
    if (status) {
        cllm_group_destroy(group);
        return status;
    }
    *group_out = group;
    return CLLM_OK;
}

void cllm_group_destroy(struct cllm_group *group)
{
    if (!group) return;
    free(group->input);
    free(group->symbols);
    free(group->stored);
    free(group->other);
    free(group->check);
    free(group->chunks);
    cllm_compressor_destroy(group->compressor);
    cllm_decoder_destroy(group->decoder);
    free(group);
}

uint8_t *cllm_group_input(struct cllm_group *group)
{
    return group->input;
}

const struct cllm_encoded_chunk *cllm_group_chunks(const struct cllm_group *group, uint32_t *count_out)
{
    *count_out = group->chunk_count;
    return group->chunks;
}

const struct cllm_table *cllm_group_tables(const struct cllm_group *group)
{
    return group->tables.table;
}

static enum cllm_status reserve_stored(struct cllm_group *group, const struct cllm_plan *plan, struct cllm_error *err)
{
    uint32_t elements = plan->chunk_bytes / plan->layout.element_bytes;
    group->stored_stride = (cllm_float_encoded_bytes_max(&plan->layout, elements) + CLLM_READ_SLACK_BYTES + 15) & ~(size_t)15;
    size_t needed = group->stored_stride * group->chunk_count;
    if (needed <= group->stored_capacity) return CLLM_OK;
    free(group->stored);
    group->stored_capacity = 0;
    group->stored = malloc(needed);
    if (!group->stored) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for encoding");
    group->stored_capacity = needed;
    return CLLM_OK;
}

/* Every chunk starts out raw. A tail that is not a whole number of elements (no tensor has one) stays so. */
static void start_chunks(struct cllm_group *group, const struct cllm_plan *plan, size_t byte_count)
{
    group->chunk_count = (uint32_t)((byte_count + plan->chunk_bytes - 1) / plan->chunk_bytes);
    for (uint32_t k = 0; k < group->chunk_count; k++) {
        size_t offset = (size_t)k * plan->chunk_bytes, left = byte_count - offset;
        uint32_t bytes = left < plan->chunk_bytes ? (uint32_t)left : plan->chunk_bytes;
        group->chunks[k].chunk = (struct cllm_chunk){.form = CLLM_FORM_RAW, .decoded_bytes = bytes, .stored_bytes = bytes};
        group->chunks[k].stored = group->input + offset;
    }
}

static bool has_float_form(const struct cllm_plan *plan, const struct cllm_chunk *chunk)
{
    return plan->layout.element_bytes && chunk->decoded_bytes % plan->layout.element_bytes == 0;
}

/* Splits every chunk and decides which of them share a code. Returns false where no chunk has a float form. */
static bool split_chunks(struct cllm_group *group, const struct cllm_plan *plan)
{
    uint32_t stride = plan->chunk_bytes / plan->layout.element_bytes;
    memset(&group->tables, 0, sizeof group->tables);
    for (uint32_t k = 0; k < group->chunk_count; k++) {
        uint64_t counts[256] = {0};
        struct cllm_chunk *chunk = &group->chunks[k].chunk;
        if (!has_float_form(plan, chunk)) continue;
        cllm_float_split(&plan->layout, group->chunks[k].stored, chunk->decoded_bytes / plan->layout.element_bytes,
                         group->symbols + (size_t)k * stride, group->stored + k * group->stored_stride, counts);
        chunk->table_index = (uint16_t)cllm_tables_assign(&group->tables, counts);
    }
    cllm_tables_finish(&group->tables);
    return group->tables.count > 0;
}

static void encode_float_chunks(struct cllm_group *group, const struct cllm_plan *plan)
{
    const struct cllm_layout *layout = &plan->layout;
    uint32_t stride = plan->chunk_bytes / layout->element_bytes;
    if (!split_chunks(group, plan)) return;
    for (unsigned t = 0; t < group->tables.count; t++) cllm_float_code_init(&group->codes[t], &group->tables.table[t]);
    for (uint32_t k = 0; k < group->chunk_count; k++) {
        struct cllm_chunk *chunk = &group->chunks[k].chunk;
        if (!has_float_form(plan, chunk)) continue;
        uint8_t *stored = group->stored + k * group->stored_stride;
        size_t bytes = cllm_float_encode(layout, &group->codes[chunk->table_index], group->symbols + (size_t)k * stride,
                                         chunk->decoded_bytes / layout->element_bytes, stored);
        if (bytes >= chunk->decoded_bytes) continue;
        chunk->form = CLLM_FORM_FLOAT;
        chunk->stored_bytes = (uint32_t)bytes;
        group->chunks[k].stored = stored;
    }
}

/* Keeps a frame only where it is smaller than the best so far. */
static void encode_zstd_chunk(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, size_t byte_count)
{
    struct cllm_encoded_chunk *encoded = &group->chunks[k];
    uint32_t raw_bytes = encoded->chunk.decoded_bytes;
    bool saves_enough = encoded->chunk.stored_bytes < raw_bytes - raw_bytes / TRY_ZSTD_BELOW_SAVING;
    if (saves_enough && byte_count > TRY_ZSTD_MAX_BYTES) return;
    size_t offset = (size_t)k * plan->chunk_bytes;
    size_t frame_bytes = cllm_compress(group->compressor, group->input + offset, raw_bytes, plan->zstd_level,
                                       group->other + offset, encoded->chunk.stored_bytes - 1);
    if (frame_bytes == 0) return;
    encoded->chunk.form = CLLM_FORM_ZSTD;
    encoded->chunk.stored_bytes = (uint32_t)frame_bytes;
    encoded->stored = group->other + offset;
}

/* What will be written is what is decoded here: the same buffer, the same description. */
static enum cllm_status check_chunk(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, struct cllm_error *err)
{
    struct cllm_encoded_chunk *encoded = &group->chunks[k];
    const struct cllm_data data = {.layout = plan->layout, .tables = group->tables.table, .table_count = group->tables.count};
    const uint8_t *input = group->input + (size_t)k * plan->chunk_bytes;
    enum cllm_status status = cllm_decode_chunk(group->decoder, &data, &encoded->chunk, encoded->stored, group->check, err);
    if (status) return cllm_fail_context(err, CLLM_E_INTERNAL, "self-check: an encoded chunk does not decode");
    if (memcmp(group->check, input, encoded->chunk.decoded_bytes) != 0) {
        return cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "self-check: a chunk of form %u decodes to other bytes",
                         encoded->chunk.form);
    }
    return cllm_sha256(input, encoded->chunk.decoded_bytes, encoded->leaf, err);
}

enum cllm_status cllm_group_encode(struct cllm_group *group, const struct cllm_plan *plan, size_t byte_count,
                                   struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    start_chunks(group, plan, byte_count);
    if (plan->layout.element_bytes) {
        status = reserve_stored(group, plan, err);
        if (!status) encode_float_chunks(group, plan);
    }
    for (uint32_t k = 0; k < group->chunk_count && !status; k++) {
        encode_zstd_chunk(group, plan, k, byte_count);
        status = check_chunk(group, plan, k, err);
    }
    return status;
}

/* group.c - see group.h. */
#include "group.h"

#include "bytes.h"
#include "cllm_decode.h"
#include "compress.h"
#include "encode_float.h"
#include "fit_scales.h"
#include "reader.h"
#include "shuffle.h"
#include "sparse.h"
#include "tables.h"

#include <stdlib.h>

/* zstd is tried on so little data that it costs nothing, where the float form saves less than this share of the bytes, where it
 * saves so much that there must be more to it than an entropy of symbols, and where elements repeat. */
#define TRY_ZSTD_MAX_BYTES (4u << 10)
#define TRY_ZSTD_BELOW_SAVING 10u /* one part in */
#define TRY_ZSTD_ABOVE_RATIO 4u
#define STRUCTURE_SAMPLE 1024u
#define SPARSE_MIN_ELEMENTS 1024u
#define SPARSE_COST_BITS 2048u /* besides a bit an element: a code table, heads, segment lengths */
#define PROBE_LEVEL 1
#define PROBE_ALL_MAX_BYTES (256u << 10)
#define PROBE_MUST_SAVE 64u /* one part in */

/* What of a chunk is coded: all elements, or those that are not zero, or levels; and what else there is then. */
struct coded {
    uint32_t element_count;
    struct cllm_sparse_head head; /* with a mask_count of 0: all */
    bool is_scaled;
    struct cllm_scales scales;
};

struct cllm_group {
    uint8_t *input;   /* CLLM_GROUP_BYTES, and slack */
    uint8_t *symbols; /* one per element; later the byte planes of a chunk */
    uint8_t *stored;  /* chunk k's float form starts at k * stored_stride */
    size_t stored_capacity;
    size_t stored_stride;
    uint8_t *masks; /* of sparse chunks: symbols, then signs; that of chunk k start at 2 * k * mask_stride */
    size_t mask_stride;
    uint8_t *other; /* zstd frames, at the offset of their input; before that the masks of a chunk, or indices of its elements */
    uint8_t *check; /* the elements of a chunk that are not zero; later one frame, then one decoded chunk */
    struct cllm_ready_chunk *chunks;
    struct coded *coded; /* of each chunk */
    uint32_t chunk_count;
    float *scales;    /* of scaled chunks */
    bool has_scales;  /* the first chunk of this group may be numbers times scales */
    bool has_matches; /* a chunk of this group was found to repeat itself */
    struct cllm_tables tables;
    struct cllm_float_code codes[CLLM_GROUP_TABLES_MAX + 1];
    struct cllm_compressor *compressor;
    struct cllm_decoder *decoder;
};

#define CHUNKS_MAX (CLLM_GROUP_BYTES >> CLLM_CHUNK_LOG2_MIN)
#define SCALES_MAX (CLLM_GROUP_BYTES / 2 >> CLLM_SCALED_GROUP_LOG2_MIN)

enum cllm_status cllm_group_create(struct cllm_group **group_out, struct cllm_error *err)
{
    struct cllm_group *group = calloc(1, sizeof *group);
    *group_out = NULL;
    if (!group) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for encoding");
    size_t bytes = CLLM_GROUP_BYTES + CLLM_READ_SLACK_BYTES;
    group->input = malloc(bytes);
    group->symbols = malloc(bytes);
    group->masks = malloc(CLLM_GROUP_BYTES / 4);
    group->other = malloc(bytes);
    group->check = malloc(bytes);
    group->chunks = calloc(CHUNKS_MAX, sizeof *group->chunks);
    group->coded = calloc(CHUNKS_MAX, sizeof *group->coded);
    group->scales = malloc(SCALES_MAX * sizeof *group->scales);
    enum cllm_status status = cllm_compressor_create(&group->compressor, err);
    if (!status) status = cllm_decoder_create(&group->decoder, err);
    const bool complete = group->input && group->symbols && group->masks && group->other && group->check && group->chunks;
    if (!status && !(complete && group->coded && group->scales)) {
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
    free(group->masks);
    free(group->stored);
    free(group->other);
    free(group->check);
    free(group->chunks);
    free(group->coded);
    free(group->scales);
    cllm_compressor_destroy(group->compressor);
    cllm_decoder_destroy(group->decoder);
    free(group);
}

uint8_t *cllm_group_input(struct cllm_group *group)
{
    return group->input;
}

const struct cllm_ready_chunk *cllm_group_chunks(const struct cllm_group *group, uint32_t *count_out)
{
    *count_out = group->chunk_count;
    return group->chunks;
}

const struct cllm_table *cllm_group_tables(const struct cllm_group *group, uint32_t *count_out)
{
    *count_out = group->tables.count + 1;
    return group->tables.table;
}

static enum cllm_status reserve_stored(struct cllm_group *group, const struct cllm_plan *plan, struct cllm_error *err)
{
    uint32_t elements = plan->chunk_bytes / plan->layout.element_bytes;
    size_t bytes = cllm_sparse_encoded_bytes_max(&plan->layout, elements);
    group->mask_stride = cllm_mask_bytes(elements);
    group->stored_stride = (bytes + CLLM_READ_SLACK_BYTES + 15) & ~(size_t)15;
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

static void translate(const uint8_t *symbols, const uint8_t to[256], uint32_t count, uint8_t *out)
{
    for (uint32_t i = 0; i < count; i++) out[i] = to[symbols[i]];
}

/* There may be a palette for the others then, and they are so few that a GPU need not be quick about them. */
static bool is_mostly_zero(uint32_t element_count, uint32_t zeros)
{
    return zeros > element_count - element_count / 4;
}

/* Whether to leave out `zeros` elements, of each of which `sign_bits` are kept: where that saves remainders, unless there is a
 * palette, which has none; and where nearly all are zero, so that code words of a bit each would be too long. */
static bool is_sparse(struct cllm_group *group, const struct cllm_plan *plan, const uint8_t *elements, uint32_t element_count,
                      uint32_t zeros, unsigned sign_bits)
{
    struct cllm_palette palette = {.count = 0};
    uint64_t counts[256] = {0}, saved_bits = 0;
    unsigned element_bytes = plan->layout.element_bytes;
    unsigned remainder_bits = cllm_layout_remainder_bits(&plan->layout);
    if (remainder_bits) saved_bits = (uint64_t)zeros * (remainder_bits - sign_bits);
    if (is_mostly_zero(element_count, zeros)) return element_count >= SPARSE_MIN_ELEMENTS;
    if (saved_bits <= element_count + SPARSE_COST_BITS) return false;
    return element_bytes == 1 || !cllm_palette_collect(&palette, elements, element_bytes, element_count, group->other, counts);
}

/* The elements of chunk k that will be coded. Where zeros are left out, the masks that say so are kept; zeros that have a sign
 * are left out too, unless they are so few that it takes less to code them than a bit for each zero. */
static const uint8_t *choose_coded(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k)
{
    const uint8_t *elements = group->chunks[k].stored;
    unsigned element_bytes = plan->layout.element_bytes;
    uint32_t element_count = group->chunks[k].chunk.decoded_bytes / element_bytes;
    uint32_t negative, zeros = cllm_sparse_count_zeros(elements, element_bytes, element_count, &negative);
    const bool has_signs = 8 * (uint64_t)element_bytes * negative > zeros;
    if (!has_signs) zeros -= negative;
    group->coded[k] = (struct coded){.element_count = element_count};
    if (zeros == 0 || zeros == element_count) return elements;
    if (!is_sparse(group, plan, elements, element_count, zeros, has_signs)) return elements;
    if (!is_mostly_zero(element_count, zeros)) zeros = cllm_sparse_absent_count(element_count, zeros);
    uint8_t *symbols = group->masks + 2 * k * group->mask_stride, *signs = has_signs ? symbols + group->mask_stride : NULL;
    uint64_t counts[256] = {0};
    cllm_sparse_split(elements, element_bytes, element_count, zeros, group->other, signs, group->check);
    uint32_t mask_count = cllm_sparse_mask_symbols(group->other, cllm_mask_bytes(element_count), symbols);
    for (uint32_t i = 0; i < mask_count; i++) counts[symbols[i]]++;
    cllm_tables_add_masks(&group->tables, counts);
    group->coded[k] = (struct coded){
        .element_count = element_count - zeros,
        .head = {0, has_signs ? cllm_mask_bytes(zeros) : 0, mask_count, element_count - zeros},
    };
    return group->check;
}

/* Where the float part of chunk k is stored. */
static uint8_t *stored_elements(const struct cllm_group *group, uint32_t k)
{
    const struct coded *coded = &group->coded[k];
    const size_t head = coded->is_scaled ? CLLM_SCALED_HEAD_BYTES : coded->head.mask_count ? CLLM_SPARSE_HEAD_BYTES : 0;
    return group->stored + k * group->stored_stride + head;
}

/* A palette for the elements of a chunk, if there is one that takes less than `bits`: its indices are then the chunk's symbols.
 * Returns the table, or -1. */
static int try_palette(struct cllm_group *group, unsigned element_bytes, const uint8_t *elements, uint32_t element_count,
                       uint64_t bits, uint8_t *symbols)
{
    struct cllm_palette own = {.count = 0};
    uint64_t counts[256] = {0};
    uint8_t index[256];
    if (element_bytes == 1 || !cllm_palette_collect(&own, elements, element_bytes, element_count, group->other, counts))
        return -1;
    int t = cllm_tables_assign_palette(&group->tables, &own, counts, element_bytes, bits, index);
    if (t >= 0) translate(group->other, index, element_count, symbols);
    return t;
}

/* What a chunk takes as fields with their remainders, or as a palette of its own, if that is less. */
static uint64_t estimate_elements(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, uint8_t *symbols)
{
    struct cllm_palette own = {.count = 0};
    uint64_t field_counts[256] = {0}, counts[256] = {0};
    const unsigned element_bytes = plan->layout.element_bytes;
    const uint8_t *elements = group->chunks[k].stored;
    const uint32_t element_count = group->chunks[k].chunk.decoded_bytes / element_bytes;
    cllm_float_split(&plan->layout, elements, element_count, symbols, stored_elements(group, k), field_counts);
    uint64_t bits = cllm_tables_estimate(field_counts, cllm_layout_remainder_bits(&plan->layout));
    if (cllm_palette_collect(&own, elements, element_bytes, element_count, group->other, counts)) {
        const uint64_t palette_bits = cllm_tables_estimate(counts, 0);
        if (palette_bits < bits) bits = palette_bits;
    }
    return bits;
}

/* Makes chunk k one of levels and scales, if they are found and take less; `like`: of the last such chunk, or null. */
static bool try_scales(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, const struct cllm_scales *like,
                       uint8_t *symbols)
{
    struct cllm_chunk *chunk = &group->chunks[k].chunk;
    struct coded *coded = &group->coded[k];
    const unsigned element_bytes = plan->layout.element_bytes;
    const uint32_t element_count = chunk->decoded_bytes / element_bytes;
    *coded = (struct coded){.element_count = element_count};
    coded->scales.scales = group->scales + (size_t)k * (plan->chunk_bytes / element_bytes >> CLLM_SCALED_GROUP_LOG2_MIN);
    if (!cllm_scales_fit(plan->scaled_type, group->chunks[k].stored, element_count, like, &coded->scales, group->check))
        return false;
    if (!cllm_scales_differ(&coded->scales)) return false;
    const uint64_t bits = estimate_elements(group, plan, k, symbols),
                   scale_bits = 8 * (uint64_t)cllm_scales_bytes(&coded->scales);
    if (bits <= scale_bits) return false;
    const int t = try_palette(group, element_bytes, group->check, element_count, bits - scale_bits, symbols);
    if (t < 0) return false;
    coded->is_scaled = true;
    chunk->table_index = (uint16_t)t;
    return true;
}

/* Splits every chunk and decides which of them share a code. Returns false where no chunk has a float form. */
static bool split_chunks(struct cllm_group *group, const struct cllm_plan *plan)
{
    uint32_t stride = plan->chunk_bytes / plan->layout.element_bytes;
    memset(&group->tables, 0, sizeof group->tables);
    group->has_scales = plan->scaled_type != CLLM_SCALED_NONE && has_float_form(plan, &group->chunks[0].chunk) &&
                        cllm_scales_suspected(plan->scaled_type, group->chunks[0].stored,
                                              group->chunks[0].chunk.decoded_bytes / plan->layout.element_bytes);
    const struct cllm_scales *like = NULL;
    for (uint32_t k = 0; k < group->chunk_count; k++) {
        uint64_t counts[256] = {0};
        struct cllm_chunk *chunk = &group->chunks[k].chunk;
        uint8_t *symbols = group->symbols + (size_t)k * stride;
        if (!has_float_form(plan, chunk)) continue;
        if (group->has_scales && try_scales(group, plan, k, like, symbols)) {
            like = &group->coded[k].scales;
            continue;
        }
        const uint8_t *elements = choose_coded(group, plan, k);
        const struct coded *coded = &group->coded[k];
        cllm_float_split(&plan->layout, elements, coded->element_count, symbols, stored_elements(group, k), counts);
        const uint64_t bits = cllm_tables_estimate(counts, cllm_layout_remainder_bits(&plan->layout));
        int t = try_palette(group, plan->layout.element_bytes, elements, coded->element_count, bits, symbols);
        chunk->table_index = (uint16_t)(t < 0 ? (int)cllm_tables_assign(&group->tables, counts) : t);
    }
    cllm_tables_finish(&group->tables);
    return group->tables.count > 0;
}

/* Codes the symbols of chunk k; those of a palette take the order of its values first. Returns the stored bytes. */
static size_t encode_symbols(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k)
{
    const struct cllm_chunk *chunk = &group->chunks[k].chunk;
    const struct cllm_table *table = &group->tables.table[chunk->table_index];
    struct coded *coded = &group->coded[k];
    uint8_t *symbols = group->symbols + (size_t)k * (plan->chunk_bytes / plan->layout.element_bytes);
    struct cllm_layout layout = plan->layout;
    if (table->value_bytes) {
        translate(symbols, group->tables.rank[chunk->table_index], coded->element_count, symbols);
        layout = cllm_layout_of_palette(&layout);
    }
    size_t float_bytes =
        cllm_float_encode(&layout, &group->codes[chunk->table_index], symbols, coded->element_count, stored_elements(group, k));
    if (coded->is_scaled)
        return cllm_scales_store(&coded->scales, (uint32_t)float_bytes, group->stored + k * group->stored_stride);
    if (coded->head.mask_count == 0) return float_bytes;
    const uint8_t *mask_symbols = group->masks + 2 * k * group->mask_stride, *signs = mask_symbols + group->mask_stride;
    coded->head.float_bytes = (uint32_t)float_bytes;
    return cllm_sparse_encode(&plan->layout, &group->codes[group->tables.count], &coded->head, signs, mask_symbols,
                              group->stored + k * group->stored_stride);
}

static void encode_float_chunks(struct cllm_group *group, const struct cllm_plan *plan)
{
    if (!split_chunks(group, plan)) return;
    for (unsigned t = 0; t <= group->tables.count; t++) cllm_float_code_init(&group->codes[t], &group->tables.table[t]);
    for (uint32_t k = 0; k < group->chunk_count; k++) {
        struct cllm_chunk *chunk = &group->chunks[k].chunk;
        if (!has_float_form(plan, chunk)) continue;
        size_t bytes = encode_symbols(group, plan, k);
        if (bytes >= chunk->decoded_bytes) continue;
        chunk->form = group->coded[k].is_scaled         ? CLLM_FORM_SCALED
                      : group->coded[k].head.mask_count ? CLLM_FORM_SPARSE
                                                        : CLLM_FORM_FLOAT;
        chunk->mask_table_index = (uint16_t)group->tables.count;
        chunk->stored_bytes = (uint32_t)bytes;
        group->chunks[k].stored = group->stored + k * group->stored_stride;
    }
}

static const uint8_t *chunk_input(const struct cllm_group *group, const struct cllm_plan *plan, uint32_t k)
{
    return group->input + (size_t)k * plan->chunk_bytes;
}

/* The byte planes of chunk k, or its bytes where it has none. They replace the symbols, which are coded by now. */
static const uint8_t *make_planes(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k)
{
    const struct cllm_chunk *chunk = &group->chunks[k].chunk;
    const uint8_t *input = chunk_input(group, plan, k);
    if (plan->layout.element_bytes <= 1 || !has_float_form(plan, chunk)) return input;
    cllm_shuffle(input, plan->layout.element_bytes, chunk->decoded_bytes / plan->layout.element_bytes, group->symbols);
    return group->symbols;
}

/* Whether the low bits of the elements, which are noise in ordinary weights, are not: then what the float form keeps raw may
 * shrink too. A look at some elements: among noise one pair in 256 is equal. */
static bool looks_structured(const uint8_t *elements, const struct cllm_layout *layout, uint32_t element_count)
{
    uint32_t counts[256] = {0}, pairs = 0;
    uint32_t sample = element_count < STRUCTURE_SAMPLE ? element_count : STRUCTURE_SAMPLE;
    for (uint32_t i = 0; i < sample; i++) {
        uint64_t low = cllm_load_le64(elements + (size_t)i * layout->element_bytes) >> layout->zero_bits;
        pairs += counts[low & 0xFF]++;
    }
    return pairs > 3 * (sample * sample / 2 / 256) / 2;
}

/* A frame of a chunk's bytes, or one of each of its planes, into group->check; 0 where they do not fit in `capacity`. */
static size_t compress_chunk(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, const uint8_t *bytes, int level,
                             size_t capacity)
{
    uint32_t piece_count = bytes == chunk_input(group, plan, k) ? 1 : plan->layout.element_bytes;
    size_t piece_bytes = group->chunks[k].chunk.decoded_bytes / piece_count, used = 0;
    for (uint32_t i = 0; i < piece_count; i++) {
        size_t frame_bytes =
            cllm_compress(group->compressor, bytes + i * piece_bytes, piece_bytes, level, group->check + used, capacity - used);
        if (frame_bytes == 0) return 0;
        used += frame_bytes;
    }
    return used;
}

/* A quick frame that is already smaller than the best form so far says that matches are there to be found. */
static bool probe_finds_matches(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k)
{
    const struct cllm_chunk *chunk = &group->chunks[k].chunk;
    size_t capacity = chunk->stored_bytes - chunk->stored_bytes / PROBE_MUST_SAVE;
    const uint8_t *planes = make_planes(group, plan, k);
    return compress_chunk(group, plan, k, planes, PROBE_LEVEL, capacity) > 0;
}

/* zstd is slow: among ordinary weights only the first chunk of a group is looked at closely. What is structure in a sparse chunk
 * is mostly its zeros, and in a scaled one what was found already. */
static bool is_zstd_worth_trying(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, size_t byte_count)
{
    const struct cllm_chunk *chunk = &group->chunks[k].chunk;
    uint32_t raw_bytes = chunk->decoded_bytes, element_bytes = plan->layout.element_bytes;
    if (chunk->form == CLLM_FORM_SCALED) return group->has_matches;
    bool saves_little = chunk->stored_bytes >= raw_bytes - raw_bytes / TRY_ZSTD_BELOW_SAVING;
    bool saves_much = chunk->stored_bytes < raw_bytes / TRY_ZSTD_ABOVE_RATIO;
    if (element_bytes == 0 || byte_count <= TRY_ZSTD_MAX_BYTES || saves_much || group->has_matches) return true;
    if (element_bytes > 1 && chunk->form != CLLM_FORM_SPARSE &&
        looks_structured(chunk_input(group, plan, k), &plan->layout, raw_bytes / element_bytes))
        return true;
    bool probe = k == 0 || byte_count <= PROBE_ALL_MAX_BYTES || (element_bytes == 1 && saves_little);
    if (probe) group->has_matches = probe_finds_matches(group, plan, k);
    return group->has_matches;
}

/* What the best form so far takes, and the most that a frame may have to take less. */
static size_t bytes_to_beat(const struct cllm_group *group, const struct cllm_chunk *chunk)
{
    uint8_t table[CLLM_TABLE_STORED_BYTES_MAX];
    size_t bytes = ((size_t)chunk->stored_bytes + CLLM_CHUNK_ALIGNMENT - 1) / CLLM_CHUNK_ALIGNMENT * CLLM_CHUNK_ALIGNMENT;
    bool lone_table = cllm_form_has_table(chunk->form) && group->chunk_count == 1;
    if (lone_table) {
        const struct cllm_table *own = &group->tables.table[chunk->table_index];
        bytes += cllm_table_serialise(own, table) + cllm_table_values_bytes(own);
        if (chunk->form == CLLM_FORM_SPARSE) bytes += cllm_table_serialise(&group->tables.table[chunk->mask_table_index], table);
    }
    bytes -= CLLM_CHUNK_ALIGNMENT;
    return bytes < chunk->decoded_bytes ? bytes : chunk->decoded_bytes - 1u;
}

/* Keeps a frame of `bytes` only where it is smaller than the best so far. */
static void try_frame(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, enum cllm_form form,
                      const uint8_t *bytes)
{
    struct cllm_ready_chunk *encoded = &group->chunks[k];
    size_t capacity = bytes_to_beat(group, &encoded->chunk);
    if (capacity == 0) return;
    size_t frame_bytes = compress_chunk(group, plan, k, bytes, plan->zstd_level, capacity);
    if (frame_bytes == 0) return;
    encoded->chunk.form = (uint8_t)form;
    encoded->chunk.stored_bytes = (uint32_t)frame_bytes;
    encoded->stored = group->other + (size_t)k * plan->chunk_bytes;
    memcpy(encoded->stored, group->check, frame_bytes);
}

static void encode_zstd_chunk(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, size_t byte_count)
{
    if (!is_zstd_worth_trying(group, plan, k, byte_count)) return;
    const uint8_t *input = chunk_input(group, plan, k), *planes = make_planes(group, plan, k);
    try_frame(group, plan, k, CLLM_FORM_ZSTD, input);
    if (planes != input) try_frame(group, plan, k, CLLM_FORM_PLANES, planes);
}

/* What will be written is what is decoded here: the same buffer, the same description. */
static enum cllm_status check_chunk(struct cllm_group *group, const struct cllm_plan *plan, uint32_t k, struct cllm_error *err)
{
    struct cllm_ready_chunk *encoded = &group->chunks[k];
    const struct cllm_data data = {.layout = plan->layout, .tables = group->tables.table, .table_count = group->tables.count + 1};
    const uint8_t *input = chunk_input(group, plan, k);
    enum cllm_status status = cllm_decode_chunk(group->decoder, &data, &encoded->chunk, encoded->stored, group->check, err);
    if (status == CLLM_E_NOMEM) return status;
    if (status) return cllm_fail_context(err, CLLM_E_INTERNAL, "self-check: an encoded chunk does not decode");
    if (memcmp(group->check, input, encoded->chunk.decoded_bytes) != 0) {
        return cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "self-check: a chunk of form %u decodes to other bytes",
                         encoded->chunk.form);
    }
    return CLLM_OK;
}

enum cllm_status cllm_group_encode(struct cllm_group *group, const struct cllm_plan *plan, size_t byte_count,
                                   struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    group->has_matches = false;
    start_chunks(group, plan, byte_count);
    if (plan->layout.element_bytes) {
        status = reserve_stored(group, plan, err);
        if (!status) encode_float_chunks(group, plan);
    }
    for (uint32_t k = 0; k < group->chunk_count && !status; k++) {
        encode_zstd_chunk(group, plan, k, byte_count);
        status = check_chunk(group, plan, k, err);
        if (!status) cllm_writer_seal(&group->chunks[k]);
    }
    return status;
}

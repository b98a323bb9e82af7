/* test_gpu_decode.c - the two decoders agree: on what an encoder writes, byte for byte; on anything else, in what they reject.
 *
 * CLLM_GPU_TEST=small: fewer and smaller chunks, for compute-sanitizer, under which each thread takes a thousand times longer.
 */
#include "cllm_decode.h"
#include "cllm_decode_gpu.h"
#include "cllm_encode.h"
#include "codec.h"
#include "digest.h"
#include "float_builder.h"
#include "group.h"
#include "reader.h"
#include "scaled.h"
#include "cllm_source.h"
#include "test_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef CLLM_CUDA
#include <cuda_runtime_api.h>
#endif

#define REAL_WEIGHTS "../shared/data/real-weights"

static bool is_small(void)
{
    const char *mode = getenv("CLLM_GPU_TEST");
    return mode && strcmp(mode, "small") == 0;
}

static uint64_t random_state = 1;

/* Marsaglia, "Xorshift RNGs", 2003. */
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

enum content {
    CONTENT_RANDOM,
    CONTENT_PEAKED,
    CONTENT_EQUAL,
    CONTENT_RARE,
    CONTENT_SPECIAL,
    CONTENT_ONE_VALUE,
    CONTENT_FEW_VALUES,
    CONTENT_256_VALUES,
    CONTENT_HALF_ZEROS,
    CONTENT_MASKED,
    CONTENT_FEW_ZEROS_AND_VALUES,
    CONTENT_COUNT
};

/* One of `count` values of any bits, the first ones more often. */
static uint64_t draw_value(unsigned count)
{
    const uint64_t draw = next_random();
    const uint64_t which = draw >> 32 & 1 ? (draw >> 40) % count % 5 : (draw >> 40) % count;
    return (which + 1) * UINT64_C(0xD1342543DE82EF95);
}

/* Elements whose coded field is uniform, peaked like an exponent, constant, nearly constant, or that of zeros, denormals,
 * infinities and NaN of any payload, among others; or elements of which few differ: palettes. Then half of peaked ones zero; of
 * either sign; and nine tenths of few values. */
static void fill(uint8_t *bytes, const struct cllm_layout *layout, uint32_t element_count, enum content content)
{
    for (uint32_t i = 0; i < element_count; i++) {
        uint64_t element = next_random();
        uint64_t draw = next_random();
        unsigned peaked = 100 - (unsigned)__builtin_ctzll(draw | UINT64_C(1) << 40);
        const bool is_zero = content == CONTENT_FEW_ZEROS_AND_VALUES ? draw >> 44 & 7 : draw >> 44 & 1;
        unsigned symbol = content == CONTENT_PEAKED       ? peaked
                          : content >= CONTENT_HALF_ZEROS ? peaked
                          : content == CONTENT_EQUAL      ? 77
                          : content == CONTENT_RARE       ? (draw % 4096 == 0 ? (unsigned)(draw >> 32) : 3)
                          : content == CONTENT_SPECIAL    ? (draw >> 50 & 1   ? peaked
                                                             : draw >> 51 & 1 ? 0
                                                                              : 0xFF)
                                                          : (unsigned)draw;
        if (content == CONTENT_SPECIAL && draw >> 52 & 1) element = 0;
        if ((content >= CONTENT_ONE_VALUE && content < CONTENT_HALF_ZEROS) || content == CONTENT_FEW_ZEROS_AND_VALUES) {
            element = draw_value(content == CONTENT_ONE_VALUE ? 1 : content == CONTENT_256_VALUES ? 256 : 11);
            symbol = (unsigned)(element >> 50);
        }
        uint8_t masked = (uint8_t)(symbol & ((1u << layout->symbol_bits) - 1));
        element = cllm_element_join(layout, masked, cllm_element_remainder(layout, element));
        const uint64_t sign = element & UINT64_C(1) << (8 * layout->element_bytes - 1);
        if (content >= CONTENT_HALF_ZEROS && is_zero) element = content == CONTENT_MASKED ? sign : 0;
        for (unsigned b = 0; b < layout->element_bytes; b++)
            bytes[(size_t)i * layout->element_bytes + b] = (uint8_t)(element >> 8 * b);
    }
}

/* What cpack writes, at each of its segment lengths, then others. */
static const struct cllm_layout layouts[] = {
    {2, 7, 8, 0, 8},   {2, 8, 8, 0, 8},   {4, 23, 8, 0, 8},  {8, 52, 8, 0, 8},  {1, 3, 4, 0, 10}, {1, 2, 5, 0, 10},
    {1, 0, 8, 0, 10},  {2, 7, 8, 0, 11},  {2, 8, 8, 0, 11},  {4, 23, 8, 0, 11}, {2, 7, 8, 0, 12}, {2, 8, 8, 0, 12},
    {4, 23, 8, 0, 12}, {2, 7, 8, 0, 5},   {2, 7, 8, 0, 6},   {2, 7, 8, 0, 7},   {2, 8, 8, 0, 9},  {4, 23, 8, 0, 10},
    {2, 10, 5, 0, 7},  {4, 23, 8, 16, 8}, {4, 23, 8, 13, 8}, {2, 8, 8, 1, 8},   {1, 7, 1, 0, 8},  {4, 16, 8, 0, 8},
};
/* Around half segments, segments, warps' and blocks' shares, and a chunk's end. */
static const uint32_t sizes[] = {1,    7,    8,    15,   16,   17,   31,   32,    33,    63,    64,    65,    127,  128,
                                 129,  136,  255,  256,  257,  383,  384,  385,   511,   512,   513,   1023,  1024, 1025,
                                 4095, 4096, 4097, 8191, 8192, 8193, 8200, 16384, 32639, 32640, 32760, 32767, 32768};

/* One chunk, encoded, with everything needed to decode it on either side. */
struct sample {
    struct cllm_data data;
    struct cllm_chunk chunk;
    struct cllm_table tables[2]; /* of elements, of masks */
    uint8_t *values;             /* of the first, if it is a palette */
    uint8_t *stored;
    uint8_t *decoded;
};

static uint32_t planes_of(const struct sample *sample)
{
    const uint32_t elements = sample->chunk.decoded_bytes / sample->data.layout.element_bytes;
    return sample->tables[0].value_bytes ? 0 : (uint32_t)cllm_float_plane_bytes(&sample->data.layout, elements);
}

/* Of a sparse chunk: where its signs or masks begin. */
static uint32_t masks_of(const struct sample *sample)
{
    return CLLM_SPARSE_HEAD_BYTES + cllm_load_le32(sample->stored);
}

/* As a container holds it, and what decoders may read behind it. */
static void store_sample(struct sample *sample, const uint8_t *stored)
{
    sample->stored = calloc(1, cllm_chunk_buffer_bytes(&sample->chunk));
    memcpy(sample->stored, stored, sample->chunk.stored_bytes);
}

static void make_sample(struct sample *sample, struct cllm_group *group, const struct cllm_layout *layout, uint32_t element_count,
                        enum content content)
{
    const struct cllm_plan plan = {.layout = *layout, .chunk_bytes = 32768u * layout->element_bytes, .zstd_level = 1};
    const size_t byte_count = (size_t)element_count * layout->element_bytes;
    uint32_t count = 0;
    fill(cllm_group_input(group), layout, element_count, content);
    sample->decoded = malloc(byte_count);
    memcpy(sample->decoded, cllm_group_input(group), byte_count);
    assert_int_equal(cllm_group_encode(group, &plan, byte_count, NULL), CLLM_OK);
    const struct cllm_ready_chunk *chunks = cllm_group_chunks(group, &count);
    assert_int_equal(count, 1);
    sample->chunk = chunks[0].chunk;
    sample->chunk.decoded_bytes = (uint32_t)byte_count;
    const struct cllm_table *tables = cllm_group_tables(group, &count);
    memcpy(sample->tables, tables, (count < 2 ? count : 2) * sizeof *tables);
    if (sample->tables[0].value_bytes) {
        const size_t values_bytes = cllm_table_values_bytes(&sample->tables[0]);
        sample->values = malloc(values_bytes);
        memcpy(sample->values, sample->tables[0].values, values_bytes);
        sample->tables[0].values = sample->values;
    }
    store_sample(sample, chunks[0].stored);
    sample->data =
        (struct cllm_data){.layout = *layout, .decoded_bytes = byte_count, .chunk_bytes = plan.chunk_bytes, .chunk_count = 1};
}

static enum cllm_scaled_type scaled_type_of(const struct cllm_layout *layout)
{
    if (layout->zero_bits != 0 || layout->symbol_bits != 8) return CLLM_SCALED_NONE;
    if (layout->element_bytes == 4) return layout->symbol_shift == 23 ? CLLM_SCALED_F32 : CLLM_SCALED_NONE;
    if (layout->element_bytes != 2) return CLLM_SCALED_NONE;
    return layout->symbol_shift == 7 ? CLLM_SCALED_BF16 : CLLM_SCALED_F16;
}

/* Any scale that there can be, many of them such that products are neither 0 nor infinite. */
static uint32_t draw_scale(enum cllm_scale_type type)
{
    const uint64_t draw = next_random();
    const uint32_t bits = (uint32_t)(draw >> 32);
    if (draw >> 20 & 1) return type == CLLM_SCALE_F16 ? 0x3C00 ^ (bits & 0x3FF) : 0x3F800000 ^ (bits & 0x7FFFFF);
    if (draw >> 21 & 1) return bits & (type == CLLM_SCALE_F16 ? 0x3FF : 0x7FFFFF); /* subnormal, or 0 */
    return bits % (type == CLLM_SCALE_F16 ? 0x7C00 : 0x7F800000);
}

/* Makes of a float chunk with a palette a scaled one, whose levels its elements are: numbers of any size, infinities and NaN
 * among them. `which` chooses groups and the type of scales. */
static void scale_sample(struct sample *sample, uint32_t which)
{
    const enum cllm_scaled_type type = scaled_type_of(&sample->data.layout);
    const uint32_t element_bytes = sample->data.layout.element_bytes, float_bytes = sample->chunk.stored_bytes;
    const uint32_t element_count = sample->chunk.decoded_bytes / element_bytes;
    const struct cllm_scaled_head head = {float_bytes, (uint8_t)type, which % 2, (uint8_t)(5 + which % 11)};
    const uint32_t group_count = cllm_scaled_group_count(&head, element_count), scale_bytes = cllm_scale_bytes(&head);
    uint8_t *stored = calloc(1, CLLM_SCALED_HEAD_BYTES + float_bytes + (size_t)group_count * 4);
    uint8_t *scales = stored + CLLM_SCALED_HEAD_BYTES + float_bytes;
    cllm_store_le32(stored, float_bytes);
    stored[4] = head.type, stored[5] = head.scale_type, stored[6] = head.group_log2;
    memcpy(stored + CLLM_SCALED_HEAD_BYTES, sample->stored, float_bytes);
    for (uint32_t i = 0; i < element_count; i++) {
        uint8_t *element = sample->decoded + (size_t)i * element_bytes, *scale = scales + (i >> head.group_log2) * scale_bytes;
        if (i % (1u << head.group_log2) == 0) cllm_store_le32(scale, draw_scale((enum cllm_scale_type)head.scale_type));
        const float factor = head.scale_type == CLLM_SCALE_F16 ? cllm_scale_of_f16(cllm_load_le16(scale))
                                                               : cllm_float_of_bits(cllm_load_le32(scale));
        if (element_bytes == 4) cllm_store_le32(element, cllm_scaled_element(type, cllm_load_le32(element), factor));
        else cllm_store_le16(element, (uint16_t)cllm_scaled_element(type, cllm_load_le16(element), factor));
    }
    free(sample->stored);
    sample->chunk.form = CLLM_FORM_SCALED;
    sample->chunk.stored_bytes = CLLM_SCALED_HEAD_BYTES + float_bytes + group_count * scale_bytes;
    store_sample(sample, stored);
    free(stored);
}

/* Which elements are zero in a chunk that is sparse whether that pays or not. */
enum zeros {
    ZEROS_FIRST,
    ZEROS_LAST,
    ZEROS_ALL_BUT_FIRST,
    ZEROS_ALL_BUT_LAST,
    ZEROS_HALF,
    ZEROS_NEARLY_ALL,
    ZEROS_STRETCH,
    ZEROS_COUNT
};

static bool is_zero_at(enum zeros zeros, uint32_t i, uint32_t element_count)
{
    switch (zeros) {
    case ZEROS_FIRST: return i == 0;
    case ZEROS_LAST: return i == element_count - 1;
    case ZEROS_ALL_BUT_FIRST: return i != 0;
    case ZEROS_ALL_BUT_LAST: return i != element_count - 1;
    case ZEROS_HALF: return i == 0 || (i > 1 && next_random() >> 30 & 1);
    case ZEROS_NEARLY_ALL: return i > 0 && (next_random() >> 30) % 200 != 0;
    default: return i >= element_count / 3 && i < element_count / 3 * 2 + 1;
    }
}

/* Some zeros are negative; in every other pattern these are not left out. */
static void make_sparse_sample(struct sample *sample, const struct cllm_layout *layout, uint32_t element_count, enum zeros zeros)
{
    const size_t size = layout->element_bytes;
    uint8_t *elements = malloc(element_count * size);
    struct test_float_chunk chunk;
    fill(elements, layout, element_count, CONTENT_PEAKED);
    for (uint32_t i = 0; i < element_count; i++) {
        uint8_t *element = elements + i * size;
        element[layout->zero_bits / 8] |= (uint8_t)(1u << layout->zero_bits % 8);
        if (!is_zero_at(zeros, i, element_count)) continue;
        memset(element, 0, size);
        if (i % 3 == 1 && i + 1 < element_count) element[size - 1] = 0x80;
    }
    test_sparse_chunk_encode(layout, elements, element_count, zeros % 2 == 0, zeros >= ZEROS_HALF, &chunk);
    *sample = (struct sample){.chunk = chunk.chunk, .tables = {chunk.table, chunk.mask_table}, .decoded = elements};
    store_sample(sample, chunk.stored);
    sample->data = (struct cllm_data){
        .layout = *layout, .decoded_bytes = element_count * size, .chunk_bytes = 32768u * (uint32_t)size, .chunk_count = 1};
    free(chunk.stored);
}

/* After the samples stopped moving. */
static void bind_sample(struct sample *sample)
{
    sample->data.chunks = &sample->chunk;
    sample->data.tables = sample->tables;
    sample->data.table_count = 2;
}

/* As a container holds them: the GPU loads 16 bytes at a time. */
static size_t padded_bytes(const struct cllm_chunk *chunk)
{
    return (chunk->stored_bytes + 15u) & ~(size_t)15;
}

static size_t round_up(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

/* A context, or null with the test skipped. */
static struct cllm_gpu *open_gpu(void)
{
    struct cllm_gpu *gpu = NULL;
    struct cllm_error err;
    if (cllm_gpu_create(0, &gpu, &err) != CLLM_OK) {
        print_message("no GPU: %s\n", err.message);
        skip();
    }
    return gpu;
}

/* Decodes all samples that the GPU takes in one call, out at `misalignment` bytes from a 256-byte boundary, and compares bytes
 * and SHA-256 with the CPU's. */
static void compare_samples(struct cllm_gpu *gpu, struct sample *samples, size_t sample_count, size_t misalignment)
{
    struct cllm_gpu_item *items = calloc(sample_count, sizeof *items);
    size_t *index = calloc(sample_count, sizeof *index), item_count = 0, stored_bytes = 0, decoded_bytes = 0, bad = 0;
    struct cllm_error err;
    for (size_t i = 0; i < sample_count; i++) {
        stored_bytes += round_up(samples[i].chunk.stored_bytes + 16);
        decoded_bytes += round_up(samples[i].chunk.decoded_bytes + misalignment);
    }
    void *d_stored, *d_decoded, *d_digests;
    assert_int_equal(cllm_gpu_allocate(gpu, stored_bytes, &d_stored, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_allocate(gpu, decoded_bytes, &d_decoded, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_allocate(gpu, sample_count * CLLM_DIGEST_BYTES, &d_digests, &err), CLLM_OK);
    uint8_t *from = d_stored, *to = d_decoded;
    for (size_t i = 0; i < sample_count; i++) {
        if (!cllm_gpu_decodes(&samples[i].chunk)) continue;
        assert_int_equal(cllm_gpu_upload(gpu, from, samples[i].stored, padded_bytes(&samples[i].chunk), &err), CLLM_OK);
        index[item_count] = i;
        items[item_count++] = (struct cllm_gpu_item){&samples[i].data, 0, from, to + misalignment};
        from += round_up(samples[i].chunk.stored_bytes + 16);
        to += round_up(samples[i].chunk.decoded_bytes + misalignment);
    }
    assert_true(item_count > sample_count / 2);
    assert_int_equal(cllm_gpu_decode(gpu, items, item_count, &err), CLLM_OK);
    const bool hashed = misalignment % 4 == 0;
    if (hashed) assert_int_equal(cllm_gpu_hash(gpu, items, item_count, d_digests, &err), CLLM_OK);
    if (cllm_gpu_finish(gpu, &bad, &err) != CLLM_OK) fail_msg("item %zu: %s", index[bad], err.message);
    for (size_t k = 0; k < item_count; k++) {
        const struct sample *sample = &samples[index[k]];
        uint8_t *out = malloc(sample->chunk.decoded_bytes), digest[CLLM_DIGEST_BYTES], expected[CLLM_DIGEST_BYTES];
        assert_int_equal(cllm_gpu_download(gpu, out, items[k].d_out, sample->chunk.decoded_bytes, &err), CLLM_OK);
        if (hashed) {
            const uint8_t *d_digest = (uint8_t *)d_digests + k * CLLM_DIGEST_BYTES;
            assert_int_equal(cllm_gpu_download(gpu, digest, d_digest, sizeof digest, &err), CLLM_OK);
        }
        assert_int_equal(cllm_gpu_finish(gpu, NULL, &err), CLLM_OK);
        if (memcmp(out, sample->decoded, sample->chunk.decoded_bytes) != 0) {
            fail_msg("element size %u, shift %u, segments 2^%u, %u bytes: decoded bytes differ",
                     sample->data.layout.element_bytes, sample->data.layout.symbol_shift, sample->data.layout.segment_log2,
                     sample->chunk.decoded_bytes);
        }
        assert_int_equal(cllm_sha256(sample->decoded, sample->chunk.decoded_bytes, expected, &err), CLLM_OK);
        if (hashed) assert_memory_equal(digest, expected, sizeof digest);
        free(out);
    }
    cllm_gpu_free(gpu, d_stored);
    cllm_gpu_free(gpu, d_decoded);
    cllm_gpu_free(gpu, d_digests);
    free(items);
    free(index);
}

static bool has_palette(const struct sample *sample)
{
    return sample->chunk.form == CLLM_FORM_FLOAT && sample->tables[0].value_bytes != 0;
}

/* Every combination; in small mode some of each. */
static size_t make_all_samples(struct sample **samples_out)
{
    const size_t layout_count = sizeof layouts / sizeof *layouts, size_count = sizeof sizes / sizeof *sizes;
    struct sample *samples = calloc(layout_count * size_count * (2 * CONTENT_COUNT + ZEROS_COUNT), sizeof *samples);
    struct cllm_group *group = NULL;
    size_t count = 0;
    uint32_t scaled = 0;
    assert_int_equal(cllm_group_create(&group, NULL), CLLM_OK);
    for (size_t l = 0; l < layout_count; l++) {
        for (size_t s = 0; s < size_count; s++) {
            if (is_small() && (sizes[s] > 8200 || (l + s) % 32 != 0)) continue;
            for (unsigned c = 0; c < CONTENT_COUNT; c++) {
                make_sample(&samples[count++], group, &layouts[l], sizes[s], c);
                if (!has_palette(&samples[count - 1]) || scaled_type_of(&layouts[l]) == CLLM_SCALED_NONE) continue;
                make_sample(&samples[count++], group, &layouts[l], sizes[s], c);
                if (has_palette(&samples[count - 1])) scale_sample(&samples[count - 1], scaled++);
            }
            if (sizes[s] < 2 || (!is_small() && s % 3 != l % 3)) continue;
            for (unsigned z = 0; z < ZEROS_COUNT; z++) make_sparse_sample(&samples[count++], &layouts[l], sizes[s], z);
        }
    }
    size_t palettes = 0, sparse_palettes = 0;
    for (size_t i = 0; i < count; i++) {
        bind_sample(&samples[i]);
        palettes += samples[i].tables[0].value_bytes != 0 && samples[i].chunk.form == CLLM_FORM_FLOAT;
        sparse_palettes += samples[i].tables[0].value_bytes != 0 && samples[i].chunk.form == CLLM_FORM_SPARSE;
    }
    assert_true(is_small() || sparse_palettes > 0);
    assert_true(scaled > (is_small() ? 10 : 1000));
    assert_true(palettes > count / 16);
    cllm_group_destroy(group);
    *samples_out = samples;
    return count;
}

static void free_samples(struct sample *samples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(samples[i].stored);
        free(samples[i].decoded);
        free(samples[i].values);
    }
    free(samples);
}

static void test_decoders_agree_on_every_layout_size_and_content(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return;
    struct sample *samples = NULL;
    size_t count = make_all_samples(&samples);
    for (size_t misalignment = 0; misalignment < (is_small() ? 2 : 5); misalignment++)
        compare_samples(gpu, samples, count, misalignment == 4 ? 16 : misalignment);
    free_samples(samples, count);
    cllm_gpu_destroy(gpu);
}

/* Damage: a few flipped bits, a random stretch, or all random, behind the planes or anywhere; in a sparse chunk in its masks or
 * anywhere. */
static void damage(uint8_t *stored, const struct sample *sample)
{
    const uint32_t quiet = sample->chunk.form == CLLM_FORM_SPARSE ? masks_of(sample) : planes_of(sample);
    const uint32_t from = next_random() % 4 ? quiet : 0, span = sample->chunk.stored_bytes - from;
    switch (next_random() % 3) {
    case 0:
        for (unsigned k = 0; k < 1 + next_random() % 3; k++)
            stored[from + next_random() % span] ^= (uint8_t)(1u << next_random() % 8);
        break;
    case 1: stored[from + next_random() % (span < 8 ? span : 8)] = (uint8_t)next_random(); break;
    default:
        for (uint32_t i = from + (uint32_t)(next_random() % span); i < sample->chunk.stored_bytes; i++)
            stored[i] = (uint8_t)next_random();
    }
}

static void test_decoders_agree_on_damaged_chunks(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return;
    struct sample *samples = NULL;
    struct cllm_decoder *decoder = NULL;
    struct cllm_error err;
    size_t count = make_all_samples(&samples), accepted = 0, rejected = 0;
    const size_t room = 1 << 20;
    void *d_stored, *d_decoded;
    uint8_t *cpu = malloc(room), *gpu_bytes = malloc(room), *stored = malloc(room);
    assert_int_equal(cllm_decoder_create(&decoder, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_allocate(gpu, room, &d_stored, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_allocate(gpu, room, &d_decoded, &err), CLLM_OK);
    for (size_t round = 0; round < (is_small() ? 1 : 4) * count; round++) {
        const struct sample *sample = &samples[round % count];
        if (!cllm_form_has_table(sample->chunk.form)) continue;
        memcpy(stored, sample->stored, cllm_chunk_buffer_bytes(&sample->chunk));
        damage(stored, sample);
        enum cllm_status cpu_status = cllm_decode_chunk(decoder, &sample->data, &sample->chunk, stored, cpu, &err);
        const struct cllm_gpu_item item = {&sample->data, 0, d_stored, d_decoded};
        assert_int_equal(cllm_gpu_upload(gpu, d_stored, stored, padded_bytes(&sample->chunk), &err), CLLM_OK);
        assert_int_equal(cllm_gpu_decode(gpu, &item, 1, &err), CLLM_OK);
        enum cllm_status gpu_status = cllm_gpu_finish(gpu, NULL, &err);
        if (cpu_status != gpu_status) {
            fail_msg("round %zu: element size %u, segments 2^%u, %u bytes: CPU says %d, GPU says %d", round,
                     sample->data.layout.element_bytes, sample->data.layout.segment_log2, sample->chunk.decoded_bytes, cpu_status,
                     gpu_status);
        }
        if (cpu_status == CLLM_OK) {
            assert_int_equal(cllm_gpu_download(gpu, gpu_bytes, d_decoded, sample->chunk.decoded_bytes, &err), CLLM_OK);
            assert_int_equal(cllm_gpu_finish(gpu, NULL, &err), CLLM_OK);
            assert_memory_equal(cpu, gpu_bytes, sample->chunk.decoded_bytes);
        }
        accepted += cpu_status == CLLM_OK;
        rejected += cpu_status != CLLM_OK;
    }
    print_message("%zu damaged chunks rejected by both, %zu decoded alike by both\n", rejected, accepted);
    assert_true(rejected > count / 4); /* damage to a symbol of a palette, or to planes, is often another element */
    assert_true(is_small() || accepted > 0);
    cllm_gpu_free(gpu, d_stored);
    cllm_gpu_free(gpu, d_decoded);
    cllm_decoder_destroy(decoder);
    free_samples(samples, count);
    free(cpu);
    free(gpu_bytes);
    free(stored);
    cllm_gpu_destroy(gpu);
}

/* ---------------------------------------------------------------------------------------------------------------- batches */

/* All samples in one batch: a span each, what the GPU does not decode decoded already. */
struct packed {
    struct cllm_gpu_span *spans;
    uint8_t *stored;
    size_t stored_bytes;
    size_t out_bytes;
};

static struct packed pack_samples(const struct sample *samples, size_t count)
{
    struct packed packed = {calloc(count, sizeof *packed.spans), NULL, 0, 0};
    for (size_t i = 0; i < count; i++) {
        bool decodes;
        assert_int_equal(cllm_gpu_run_chunks(&samples[i].data, 0, 1, &decodes), 1);
        packed.spans[i] = (struct cllm_gpu_span){&samples[i].data, 0, 1, packed.stored_bytes, packed.out_bytes, !decodes};
        packed.stored_bytes += (16 + (decodes ? samples[i].chunk.stored_bytes : samples[i].chunk.decoded_bytes)) & ~(size_t)15;
        packed.out_bytes += (15 + samples[i].chunk.decoded_bytes) & ~(size_t)15;
    }
    packed.stored = calloc(1, packed.stored_bytes);
    for (size_t i = 0; i < count; i++) {
        const struct sample *sample = &samples[i];
        const bool decoded = packed.spans[i].decoded;
        memcpy(packed.stored + packed.spans[i].stored_offset, decoded ? sample->decoded : sample->stored,
               decoded ? sample->chunk.decoded_bytes : sample->chunk.stored_bytes);
    }
    return packed;
}

/* Device memory for the output, so filled that no byte is right by chance. */
static void *allocate_poisoned(struct cllm_gpu *gpu, size_t byte_count)
{
    struct cllm_error err;
    void *d_memory = NULL;
    uint8_t *poison = malloc(byte_count);
    memset(poison, 0xA5, byte_count);
    assert_int_equal(cllm_gpu_allocate(gpu, byte_count, &d_memory, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_upload(gpu, d_memory, poison, byte_count, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_finish(gpu, NULL, &err), CLLM_OK);
    free(poison);
    return d_memory;
}

static void check_packed(struct cllm_gpu *gpu, const struct packed *packed, const struct sample *samples, size_t count,
                         const void *d_out)
{
    struct cllm_error err;
    uint8_t *out = malloc(packed->out_bytes);
    assert_int_equal(cllm_gpu_download(gpu, out, d_out, packed->out_bytes, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_finish(gpu, NULL, &err), CLLM_OK);
    for (size_t i = 0; i < count; i++)
        assert_memory_equal(out + packed->spans[i].out_offset, samples[i].decoded, samples[i].chunk.decoded_bytes);
    free(out);
}

/* Index of a float chunk in the middle, its first half segment damaged. */
static size_t damage_packed(struct packed *packed, const struct sample *samples, size_t count)
{
    size_t i = count / 2;
    while (samples[i].chunk.form != CLLM_FORM_FLOAT) i++;
    uint8_t *stored = packed->stored + packed->spans[i].stored_offset;
    stored[planes_of(&samples[i]) + 2] = 17; /* bits of a stored length: too many */
    return i;
}

static void test_batch_decodes_again_at_other_addresses_and_names_damage(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return;
    struct sample *samples = NULL;
    struct cllm_gpu_batch *batch = NULL;
    struct cllm_error err;
    const size_t count = make_all_samples(&samples);
    struct packed packed = pack_samples(samples, count);
    void *d_stored, *d_out[2];
    assert_int_equal(cllm_gpu_allocate(gpu, packed.stored_bytes, &d_stored, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_batch_create(gpu, packed.spans, count, &batch, &err), CLLM_OK);
    const struct cllm_gpu_batch_info info = cllm_gpu_batch_info(batch);
    assert_true(info.stored_bytes <= packed.stored_bytes && info.out_bytes <= packed.out_bytes && info.float_bytes > 0);
    assert_int_equal(cllm_gpu_upload(gpu, d_stored, packed.stored, packed.stored_bytes, &err), CLLM_OK);
    for (int k = 0; k < 2; k++) {
        d_out[k] = allocate_poisoned(gpu, packed.out_bytes);
        assert_int_equal(cllm_gpu_batch_decode(batch, NULL, d_stored, d_out[k], &err), CLLM_OK);
    }
    for (int k = 0; k < 2; k++) check_packed(gpu, &packed, samples, count, d_out[k]);
    assert_int_equal(cllm_gpu_batch_check(batch, NULL, NULL, NULL, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_batch_decode(batch, NULL, (uint8_t *)d_stored + 8, d_out[0], &err), CLLM_E_USAGE);

    const size_t bad = damage_packed(&packed, samples, count);
    size_t bad_span = 0;
    uint32_t bad_chunk = 1;
    assert_int_equal(cllm_gpu_upload(gpu, d_stored, packed.stored, packed.stored_bytes, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_batch_decode(batch, NULL, d_stored, d_out[0], &err), CLLM_OK);
    assert_int_equal(cllm_gpu_batch_check(batch, NULL, &bad_span, &bad_chunk, &err), CLLM_E_CORRUPT);
    assert_int_equal(bad_span, bad);
    assert_int_equal(bad_chunk, 0);
    assert_int_equal(cllm_gpu_batch_check(batch, NULL, NULL, NULL, &err), CLLM_OK); /* it is forgotten */
    cllm_gpu_batch_destroy(batch);
    for (int k = 0; k < 2; k++) cllm_gpu_free(gpu, d_out[k]);
    cllm_gpu_free(gpu, d_stored);
    free(packed.spans);
    free(packed.stored);
    free_samples(samples, count);
    cllm_gpu_destroy(gpu);
}

/* A batch of a sample that is whole, and calls for it and for one that is damaged, on one context: each has its own verdict, and
 * a call's is there while later work is queued. */
static void test_calls_and_batches_are_judged_apart(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return;
    struct sample samples[2] = {{.stored = NULL}};
    struct cllm_group *group = NULL;
    struct cllm_gpu_batch *batch = NULL;
    struct cllm_error err;
    size_t bad = 9;
    assert_int_equal(cllm_group_create(&group, NULL), CLLM_OK);
    for (int i = 0; i < 2; i++) make_sample(&samples[i], group, &layouts[0], 4096, CONTENT_PEAKED);
    for (int i = 0; i < 2; i++) bind_sample(&samples[i]);
    assert_true(samples[0].chunk.form == CLLM_FORM_FLOAT && samples[1].chunk.form == CLLM_FORM_FLOAT);
    samples[1].stored[planes_of(&samples[1]) + 2] = 17; /* bits of a stored length: too many */
    struct cllm_gpu_item items[2];
    for (int i = 0; i < 2; i++) {
        void *d_stored, *d_out;
        assert_int_equal(cllm_gpu_allocate(gpu, padded_bytes(&samples[i].chunk), &d_stored, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_allocate(gpu, samples[i].chunk.decoded_bytes, &d_out, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_upload(gpu, d_stored, samples[i].stored, padded_bytes(&samples[i].chunk), &err), CLLM_OK);
        items[i] = (struct cllm_gpu_item){&samples[i].data, 0, d_stored, d_out};
    }
    const struct cllm_gpu_span span = {&samples[0].data, 0, 1, 0, 0, false};
    assert_int_equal(cllm_gpu_batch_create(gpu, &span, 1, &batch, &err), CLLM_OK);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(cllm_gpu_decode(gpu, items, 2, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_batch_decode(batch, NULL, items[0].d_stored, items[0].d_out, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_finish_decode(gpu, &bad, &err), CLLM_E_CORRUPT);
        assert_int_equal(bad, 1);
        assert_int_equal(cllm_gpu_batch_check(batch, NULL, NULL, NULL, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_finish(gpu, &bad, &err), CLLM_E_CORRUPT);
        assert_int_equal(cllm_gpu_decode(gpu, items, 1, &err), CLLM_OK); /* the first one waited for by the second */
        assert_int_equal(cllm_gpu_decode(gpu, items, 1, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_finish_decode(gpu, &bad, &err), CLLM_OK);
        uint8_t *out = malloc(samples[0].chunk.decoded_bytes);
        assert_int_equal(cllm_gpu_download(gpu, out, items[0].d_out, samples[0].chunk.decoded_bytes, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_finish(gpu, NULL, &err), CLLM_OK);
        assert_memory_equal(out, samples[0].decoded, samples[0].chunk.decoded_bytes);
        free(out);
    }
    cllm_gpu_batch_destroy(batch);
    for (int i = 0; i < 2; i++) {
        cllm_gpu_free(gpu, (void *)items[i].d_stored);
        cllm_gpu_free(gpu, items[i].d_out);
        free(samples[i].stored);
        free(samples[i].decoded);
        free(samples[i].values);
    }
    cllm_group_destroy(group);
    cllm_gpu_destroy(gpu);
}

static void test_batch_refuses_what_it_cannot_decode(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return;
    struct cllm_gpu_batch *batch = NULL;
    struct cllm_error err;
    struct cllm_chunk chunk = {.form = CLLM_FORM_ZSTD, .stored_bytes = 16, .decoded_bytes = 1024};
    const struct cllm_data data = {.decoded_bytes = 1024, .chunk_bytes = 1024, .chunk_count = 1, .chunks = &chunk};
    const struct cllm_gpu_span whole = {&data, 0, 1, 0, 0, false}, beyond = {&data, 1, 1, 0, 0, true};
    const struct cllm_gpu_span odd = {&data, 0, 1, 8, 0, true}, none = {&data, 1, 0, 0, 0, false};
    assert_int_equal(cllm_gpu_batch_create(gpu, &whole, 1, &batch, &err), CLLM_E_USAGE);
    assert_int_equal(cllm_gpu_batch_create(gpu, &beyond, 1, &batch, &err), CLLM_E_USAGE);
    assert_int_equal(cllm_gpu_batch_create(gpu, &odd, 1, &batch, &err), CLLM_E_USAGE);
    assert_null(batch);
    assert_int_equal(cllm_gpu_batch_create(gpu, &none, 1, &batch, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_batch_decode(batch, NULL, NULL, NULL, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_batch_check(batch, NULL, NULL, NULL, &err), CLLM_OK);
    cllm_gpu_batch_destroy(batch);
    cllm_gpu_destroy(gpu);
}

#ifdef CLLM_CUDA

static void test_batch_is_captured_in_a_graph_on_a_stream_of_the_caller(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return;
    struct sample *samples = NULL;
    struct cllm_gpu_batch *batch = NULL;
    struct cllm_error err;
    const size_t count = make_all_samples(&samples);
    struct packed packed = pack_samples(samples, count);
    void *d_stored, *d_out;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cllm_gpu_set_stream(gpu, stream, &err), CLLM_OK);
    assert_ptr_equal(cllm_gpu_stream(gpu), stream);
    assert_int_equal(cllm_gpu_allocate(gpu, packed.stored_bytes, &d_stored, &err), CLLM_OK);
    d_out = allocate_poisoned(gpu, packed.out_bytes);
    assert_int_equal(cllm_gpu_batch_create(gpu, packed.spans, count, &batch, &err), CLLM_OK);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    assert_int_equal(cllm_gpu_batch_decode(batch, stream, d_stored, d_out, &err), CLLM_OK);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
    assert_int_equal(cllm_gpu_upload(gpu, d_stored, packed.stored, packed.stored_bytes, &err), CLLM_OK);
    assert_int_equal(cudaGraphLaunch(replay, stream), cudaSuccess);
    assert_int_equal(cllm_gpu_batch_check(batch, stream, NULL, NULL, &err), CLLM_OK);
    check_packed(gpu, &packed, samples, count, d_out);
    assert_int_equal(cllm_gpu_set_stream(gpu, NULL, &err), CLLM_OK);
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    cllm_gpu_batch_destroy(batch);
    cllm_gpu_free(gpu, d_stored);
    cllm_gpu_free(gpu, d_out);
    free(packed.spans);
    free(packed.stored);
    free_samples(samples, count);
    cllm_gpu_destroy(gpu);
}

#endif

/* ------------------------------------------------------------------------------------------------------------- containers */

/* Two decoders and how much they have agreed on. */
struct pair {
    struct cllm_gpu *gpu;
    struct cllm_decoder *decoder;
    size_t chunk_count;
    size_t rejected_count;
};

/* One chunk by both, whatever its stored bytes. */
static void compare_chunk(struct pair *pair, const char *path, const struct cllm_data *data, const struct cllm_chunk *chunk,
                          const uint8_t *stored)
{
    struct cllm_error err;
    void *d_stored, *d_out;
    uint8_t *cpu = malloc(chunk->decoded_bytes), *gpu_bytes = malloc(chunk->decoded_bytes);
    const struct cllm_gpu_item item = {data, (uint32_t)(chunk - data->chunks), NULL, NULL};
    struct cllm_gpu_item placed = item;
    assert_int_equal(cllm_gpu_allocate(pair->gpu, chunk->stored_bytes + 16u, &d_stored, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_allocate(pair->gpu, chunk->decoded_bytes, &d_out, &err), CLLM_OK);
    placed.d_stored = d_stored, placed.d_out = d_out;
    assert_int_equal(cllm_gpu_upload(pair->gpu, d_stored, stored, (chunk->stored_bytes + 15u) & ~15u, &err), CLLM_OK);
    assert_int_equal(cllm_gpu_decode(pair->gpu, &placed, 1, &err), CLLM_OK);
    const enum cllm_status gpu_status = cllm_gpu_finish(pair->gpu, NULL, &err);
    const enum cllm_status cpu_status = cllm_decode_chunk(pair->decoder, data, chunk, stored, cpu, &err);
    if (gpu_status != cpu_status) fail_msg("%s: CPU says %d, GPU says %d", path, cpu_status, gpu_status);
    if (cpu_status == CLLM_OK) {
        assert_int_equal(cllm_gpu_download(pair->gpu, gpu_bytes, d_out, chunk->decoded_bytes, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_finish(pair->gpu, NULL, &err), CLLM_OK);
        if (memcmp(cpu, gpu_bytes, chunk->decoded_bytes) != 0) fail_msg("%s: decoded bytes differ", path);
    }
    pair->chunk_count++;
    pair->rejected_count += cpu_status != CLLM_OK;
    cllm_gpu_free(pair->gpu, d_stored);
    cllm_gpu_free(pair->gpu, d_out);
    free(cpu);
    free(gpu_bytes);
}

/* Every chunk that the GPU takes, damaged ones too; containers that do not open are none of its business. */
static void compare_container(struct pair *pair, const char *path)
{
    struct cllm_reader *reader = NULL;
    struct cllm_error err;
    if (cllm_reader_open(path, &reader, &err) != CLLM_OK) return;
    const struct cllm_index *index = cllm_reader_index(reader);
    for (uint32_t d = 0; d < index->data_count; d++) {
        const struct cllm_data *data = &index->data[d];
        for (uint32_t k = 0; k < data->chunk_count; k++) {
            uint8_t *stored = calloc(1, cllm_run_buffer_bytes(data, k, 1));
            if (cllm_gpu_decodes(&data->chunks[k]) && cllm_reader_read_run(reader, d, k, 1, stored, &err) == CLLM_OK)
                compare_chunk(pair, path, data, &data->chunks[k], stored);
            free(stored);
        }
    }
    cllm_reader_close(reader);
}

static struct pair open_pair(struct cllm_gpu *gpu)
{
    struct pair pair = {.gpu = gpu};
    struct cllm_error err;
    assert_int_equal(cllm_decoder_create(&pair.decoder, &err), CLLM_OK);
    return pair;
}

static void close_pair(struct pair *pair)
{
    cllm_decoder_destroy(pair->decoder);
    cllm_gpu_destroy(pair->gpu);
}

static void test_decoders_agree_on_every_fixture(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return;
    struct pair pair = open_pair(gpu);
    DIR *folder = opendir("fixtures");
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[512];
        snprintf(path, sizeof path, "fixtures/%s", entry->d_name);
        if (strstr(entry->d_name, ".cllm")) compare_container(&pair, path);
    }
    closedir(folder);
    print_message("%zu chunks of fixtures, %zu of them rejected by both\n", pair.chunk_count, pair.rejected_count);
    assert_true(pair.chunk_count > 100 && pair.rejected_count > 0);
    close_pair(&pair);
}

static void pack_checkpoint(const char *path, const char *container)
{
    const struct cllm_source_options source_options = {0};
    const struct cllm_pack_options options = {.replace = true};
    struct cllm_source *source = NULL;
    struct cllm_pack_report report;
    struct cllm_error err;
    if (cllm_source_open(path, &source_options, &source, &err) != CLLM_OK) fail_msg("%s: %s", path, err.message);
    if (cllm_pack(source, container, &options, &report, &err) != CLLM_OK) fail_msg("%s: %s", path, err.message);
    cllm_source_close(source);
}

static void test_decoders_agree_on_real_weights(void **state)
{
    (void)state;
    struct cllm_gpu *gpu = open_gpu();
    if (!gpu) return;
    DIR *folder = opendir(REAL_WEIGHTS);
    if (!folder || is_small()) {
        print_message("skipped: " REAL_WEIGHTS " is not there, or too much\n");
        cllm_gpu_destroy(gpu);
        if (folder) closedir(folder);
        skip();
    }
    struct pair pair = open_pair(gpu);
    const struct test_dir dir = test_dir_create();
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[512];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, REAL_WEIGHTS "/%s", entry->d_name);
        const char *container = test_dir_path(&dir, "model.cllm");
        pack_checkpoint(path, container);
        compare_container(&pair, container);
    }
    closedir(folder);
    test_dir_remove(&dir);
    print_message("%zu chunks of real weights\n", pair.chunk_count);
    assert_true(pair.chunk_count > 100 && pair.rejected_count == 0);
    close_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoders_agree_on_every_layout_size_and_content),
        cmocka_unit_test(test_decoders_agree_on_damaged_chunks),
        cmocka_unit_test(test_batch_decodes_again_at_other_addresses_and_names_damage),
        cmocka_unit_test(test_calls_and_batches_are_judged_apart),
        cmocka_unit_test(test_batch_refuses_what_it_cannot_decode),
#ifdef CLLM_CUDA
        cmocka_unit_test(test_batch_is_captured_in_a_graph_on_a_stream_of_the_caller),
#endif
        cmocka_unit_test(test_decoders_agree_on_every_fixture),
        cmocka_unit_test(test_decoders_agree_on_real_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

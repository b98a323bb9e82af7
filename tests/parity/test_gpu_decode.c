/* test_gpu_decode.c - the two decoders agree: on what an encoder writes, byte for byte; on anything else, in what they reject. */
#include "cllm_decode.h"
#include "cllm_decode_gpu.h"
#include "codec.h"
#include "digest.h"
#include "group.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_state = 1;

/* Marsaglia, "Xorshift RNGs", 2003. */
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

enum content { CONTENT_RANDOM, CONTENT_PEAKED, CONTENT_EQUAL, CONTENT_RARE, CONTENT_COUNT };

/* `byte_count` bytes of elements whose coded field is uniform, peaked like an exponent, constant, or nearly constant. */
static void fill(uint8_t *bytes, const struct cllm_layout *layout, uint32_t element_count, enum content content)
{
    for (uint32_t i = 0; i < element_count; i++) {
        uint64_t element = next_random();
        uint64_t draw = next_random();
        unsigned peaked = 100 - (unsigned)__builtin_ctzll(draw | UINT64_C(1) << 40);
        unsigned symbol = content == CONTENT_PEAKED  ? peaked
                          : content == CONTENT_EQUAL ? 77
                          : content == CONTENT_RARE  ? (draw % 4096 == 0 ? (unsigned)(draw >> 32) : 3)
                                                     : (unsigned)draw;
        uint8_t masked = (uint8_t)(symbol & ((1u << layout->symbol_bits) - 1));
        element = cllm_element_join(layout, masked, cllm_element_remainder(layout, element));
        for (unsigned b = 0; b < layout->element_bytes; b++)
            bytes[(size_t)i * layout->element_bytes + b] = (uint8_t)(element >> 8 * b);
    }
}

static const struct cllm_layout layouts[] = {
    {2, 7, 8, 0, 7}, {2, 10, 5, 0, 7}, {4, 23, 8, 0, 7}, {8, 52, 8, 0, 7},  {1, 3, 4, 0, 7}, {1, 2, 5, 0, 7},  {1, 0, 8, 0, 7},
    {2, 7, 8, 0, 5}, {2, 7, 8, 0, 8},  {2, 7, 8, 0, 12}, {4, 23, 8, 16, 7}, {2, 8, 8, 0, 7}, {2, 7, 8, 0, 10},
};
static const uint32_t sizes[] = {1, 31, 32, 33, 127, 128, 129, 255, 256, 257, 4095, 4096, 4097, 32640, 32767, 32768};

/* One chunk, encoded, with everything needed to decode it on either side. */
struct sample {
    struct cllm_data data;
    struct cllm_chunk chunk;
    struct cllm_table table;
    uint8_t *stored;
    uint8_t *decoded;
};

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
    const struct cllm_encoded_chunk *chunks = cllm_group_chunks(group, &count);
    assert_int_equal(count, 1);
    sample->chunk = chunks[0].chunk;
    sample->chunk.decoded_bytes = (uint32_t)byte_count;
    sample->table = *cllm_group_tables(group);
    sample->stored = calloc(1, cllm_chunk_buffer_bytes(&sample->chunk));
    memcpy(sample->stored, chunks[0].stored, sample->chunk.stored_bytes);
    sample->data =
        (struct cllm_data){.layout = *layout, .decoded_bytes = byte_count, .chunk_bytes = plan.chunk_bytes, .chunk_count = 1};
}

/* After the samples stopped moving. */
static void bind_sample(struct sample *sample)
{
    sample->data.chunks = &sample->chunk;
    sample->data.tables = &sample->table;
    sample->data.table_count = 1;
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
        assert_int_equal(cllm_gpu_upload(gpu, from, samples[i].stored, samples[i].chunk.stored_bytes, &err), CLLM_OK);
        index[item_count] = i;
        items[item_count++] = (struct cllm_gpu_item){&samples[i].data, 0, from, to + misalignment};
        from += round_up(samples[i].chunk.stored_bytes + 16);
        to += round_up(samples[i].chunk.decoded_bytes + misalignment);
    }
    assert_true(item_count > sample_count / 2);
    assert_int_equal(cllm_gpu_decode(gpu, items, item_count, &err), CLLM_OK);
    if (misalignment % 4 == 0) assert_int_equal(cllm_gpu_hash(gpu, items, item_count, d_digests, &err), CLLM_OK);
    if (cllm_gpu_finish(gpu, &bad, &err) != CLLM_OK) fail_msg("item %zu: %s", index[bad], err.message);
    for (size_t k = 0; k < item_count; k++) {
        const struct sample *sample = &samples[index[k]];
        uint8_t *out = malloc(sample->chunk.decoded_bytes), digest[CLLM_DIGEST_BYTES], expected[CLLM_DIGEST_BYTES];
        assert_int_equal(cllm_gpu_download(gpu, out, items[k].d_out, sample->chunk.decoded_bytes, &err), CLLM_OK);
        assert_int_equal(cllm_gpu_download(gpu, digest, (uint8_t *)d_digests + k * CLLM_DIGEST_BYTES, sizeof digest, &err),
                         CLLM_OK);
        assert_int_equal(cllm_gpu_finish(gpu, NULL, &err), CLLM_OK);
        if (memcmp(out, sample->decoded, sample->chunk.decoded_bytes) != 0) {
            fail_msg("element size %u, shift %u, segments 2^%u, %u bytes: decoded bytes differ",
                     sample->data.layout.element_bytes, sample->data.layout.symbol_shift, sample->data.layout.segment_log2,
                     sample->chunk.decoded_bytes);
        }
        assert_int_equal(cllm_sha256(sample->decoded, sample->chunk.decoded_bytes, expected, &err), CLLM_OK);
        if (misalignment % 4 == 0) assert_memory_equal(digest, expected, sizeof digest);
        free(out);
    }
    cllm_gpu_free(gpu, d_stored);
    cllm_gpu_free(gpu, d_decoded);
    cllm_gpu_free(gpu, d_digests);
    free(items);
    free(index);
}

static size_t make_all_samples(struct sample **samples_out)
{
    const size_t layout_count = sizeof layouts / sizeof *layouts, size_count = sizeof sizes / sizeof *sizes;
    struct sample *samples = calloc(layout_count * size_count * CONTENT_COUNT, sizeof *samples);
    struct cllm_group *group = NULL;
    size_t count = 0;
    assert_int_equal(cllm_group_create(&group, NULL), CLLM_OK);
    for (size_t l = 0; l < layout_count; l++) {
        for (size_t s = 0; s < size_count; s++) {
            for (unsigned c = 0; c < CONTENT_COUNT; c++) make_sample(&samples[count++], group, &layouts[l], sizes[s], c);
        }
    }
    for (size_t i = 0; i < count; i++) bind_sample(&samples[i]);
    cllm_group_destroy(group);
    *samples_out = samples;
    return count;
}

static void free_samples(struct sample *samples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(samples[i].stored);
        free(samples[i].decoded);
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
    for (size_t misalignment = 0; misalignment < 5; misalignment++)
        compare_samples(gpu, samples, count, misalignment == 4 ? 16 : misalignment);
    free_samples(samples, count);
    cllm_gpu_destroy(gpu);
}

/* Damage: a few flipped bits, a random stretch, or all random, behind the planes or anywhere. */
static void damage(uint8_t *stored, const struct sample *sample)
{
    uint32_t planes =
        (uint32_t)cllm_float_plane_bytes(&sample->data.layout, sample->chunk.decoded_bytes / sample->data.layout.element_bytes);
    uint32_t from = next_random() % 4 ? planes : 0, span = sample->chunk.stored_bytes - from;
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
    for (size_t round = 0; round < 4 * count; round++) {
        const struct sample *sample = &samples[round % count];
        if (sample->chunk.form != CLLM_FORM_FLOAT) continue;
        memcpy(stored, sample->stored, cllm_chunk_buffer_bytes(&sample->chunk));
        damage(stored, sample);
        enum cllm_status cpu_status = cllm_decode_chunk(decoder, &sample->data, &sample->chunk, stored, cpu, &err);
        const struct cllm_gpu_item item = {&sample->data, 0, d_stored, d_decoded};
        assert_int_equal(cllm_gpu_upload(gpu, d_stored, stored, sample->chunk.stored_bytes, &err), CLLM_OK);
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
    assert_true(rejected > count / 2 && accepted > 0);
    cllm_gpu_free(gpu, d_stored);
    cllm_gpu_free(gpu, d_decoded);
    cllm_decoder_destroy(decoder);
    free_samples(samples, count);
    free(cpu);
    free(gpu_bytes);
    free(stored);
    cllm_gpu_destroy(gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoders_agree_on_every_layout_size_and_content),
        cmocka_unit_test(test_decoders_agree_on_damaged_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

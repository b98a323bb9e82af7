/* Random checkpoints packed, verified and restored: nothing is lost, nothing grows, and threads do not matter.
 *
 *   test_property [CASES [SEED]]      (2,000 cases of seed 1 without; a nightly run gives 100,000 and the date)
 *
 * A case that fails prints its number: `test_property NUMBER+1 SEED` comes to it again.
 */
#include "bytes.h"
#include "cllm_decode.h"
#include "cllm_encode.h"
#include "container_builder.h"
#include "plan.h"
#include "test_dir.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define TENSORS_MAX 4u

static unsigned long case_count = 2000, seed = 1;

static uint64_t below(struct test_random *random, uint64_t limit)
{
    return test_random_next(random) % limit;
}

/* ------------------------------------------------------------------------------------------------------------ contents */

enum content {
    RANDOM_BITS,
    GAUSSIAN, /* an exponent as in weights, everything else noise */
    ROW_SCALED,
    RARE_ROWS, /* one in eleven far smaller, as of tokens that were hardly ever seen */
    CONSTANT,
    ZEROS,
    MOSTLY_ZERO,
    HALF_ZERO, /* of either sign */
    PALETTE,
    SCALED,        /* small whole numbers, or those of F8_E4M3, times a scale a row, if the elements are floats */
    LARGE_PALETTE, /* up to 300 elements, so sometimes too many for one */
    TRAILING_ZEROS,
    RAMP,
    REPEATED_ROWS,
    CONTENT_COUNT
};

/* How one tensor is filled. */
struct recipe {
    enum content content;
    unsigned element_bytes;
    unsigned exponent_shift;
    unsigned exponent_bits; /* 0: none */
    unsigned trailing_bits;
    enum cllm_scaled_type scaled_type;
    int number_max;
    uint64_t row_elements;
    uint64_t palette[16];
    unsigned palette_count;
    unsigned large_count;
    unsigned special_one_in; /* 0: no special values */
};

static struct recipe make_recipe(struct test_random *random, const struct cllm_dtype *dtype)
{
    unsigned bytes = dtype->element_bits < 8 ? 1 : dtype->element_bits / 8;
    struct recipe recipe = {.content = (enum content)below(random, CONTENT_COUNT),
                            .element_bytes = bytes,
                            .exponent_shift = dtype->exponent_shift,
                            .exponent_bits = dtype->element_bits < 8 ? 0 : dtype->exponent_bits,
                            .trailing_bits = (unsigned)below(random, 8 * bytes),
                            .scaled_type = cllm_plan_make(dtype, 0).scaled_type,
                            .number_max = 1 + (int)below(random, below(random, 2) ? 8 : 128),
                            .row_elements = below(random, 2) ? 1 + below(random, 600) : UINT64_C(32) << below(random, 5),
                            .palette_count = 1 + (unsigned)below(random, 16),
                            .large_count = 2 + (unsigned)below(random, 299),
                            .special_one_in = below(random, 3) ? 0 : 1 + (unsigned)below(random, 500)};
    for (unsigned i = 0; i < 16; i++) recipe.palette[i] = test_random_next(random);
    return recipe;
}

static uint64_t with_exponent(const struct recipe *recipe, uint64_t noise, uint64_t exponent)
{
    uint64_t mask = (UINT64_C(1) << recipe->exponent_bits) - 1;
    return (noise & ~(mask << recipe->exponent_shift)) | (exponent & mask) << recipe->exponent_shift;
}

static uint64_t gaussian(const struct recipe *recipe, uint64_t noise, uint64_t draw, uint64_t peak)
{
    return with_exponent(recipe, noise, peak - (unsigned)__builtin_ctzll(draw | UINT64_C(1) << 40));
}

static uint64_t scaled(const struct recipe *recipe, uint64_t draw, uint64_t row)
{
    const float scale = cllm_float_of_bits(0x38000000 + (uint32_t)(recipe->palette[row % 16] % 0x08000000));
    const uint32_t code = (uint32_t)(draw % 127); /* of F8_E4M3 */
    const float e4m3 = code < 8 ? ldexpf((float)code, -9) : ldexpf((float)(8 + code % 8), (int)(code / 8) - 10);
    float number = (float)((int32_t)(draw % (2 * (unsigned)recipe->number_max + 1)) - recipe->number_max);
    if (recipe->palette[0] & 1) number = draw >> 40 & 1 ? -e4m3 : e4m3;
    return cllm_scaled_element(recipe->scaled_type, cllm_scaled_round(recipe->scaled_type, number), scale);
}

static uint64_t element_at(const struct recipe *recipe, struct test_random *random, uint64_t i)
{
    uint64_t noise = test_random_next(random), draw = test_random_next(random);
    uint64_t middle = UINT64_C(1) << recipe->exponent_bits >> 1, row = i / recipe->row_elements;
    bool special = recipe->special_one_in && draw % recipe->special_one_in == 0;
    if (special)
        return draw >> 40 & 1 ? ~UINT64_C(0) : draw >> 41 & 1 ? 0 : with_exponent(recipe, noise, draw >> 42 & 1 ? 255 : 0);
    switch (recipe->content) {
    case GAUSSIAN: return gaussian(recipe, noise, draw, middle);
    case ROW_SCALED: return gaussian(recipe, noise, draw, middle - recipe->palette[row % 16] % 16);
    case RARE_ROWS: return gaussian(recipe, noise, draw, row % 11 ? middle : middle - row / 11 * 7 % 16);
    case CONSTANT: return recipe->palette[0];
    case ZEROS: return 0;
    case MOSTLY_ZERO: return draw % 20 ? 0 : noise;
    case HALF_ZERO:
        return draw % 2 ? draw >> 1 << 63 >> (64 - 8 * recipe->element_bytes) : gaussian(recipe, noise, draw >> 1, middle);
    case PALETTE: return recipe->palette[draw % recipe->palette_count];
    case SCALED: return recipe->scaled_type ? scaled(recipe, draw >> 9, row) : draw % 7;
    case LARGE_PALETTE: return (1 + (draw >> 8) % recipe->large_count) * recipe->palette[0];
    case TRAILING_ZEROS: return gaussian(recipe, noise, draw, middle) >> recipe->trailing_bits << recipe->trailing_bits;
    case RAMP: return recipe->palette[0] + i * (recipe->palette[1] % 1000);
    case REPEATED_ROWS: return (i % recipe->row_elements + 1) * UINT64_C(0x9E3779B97F4A7C15) >> 7;
    case RANDOM_BITS:
    default: return noise;
    }
}

static void fill(const struct recipe *recipe, struct test_random *random, uint8_t *out, size_t byte_count)
{
    uint8_t bytes[8];
    for (size_t at = 0; at < byte_count; at += recipe->element_bytes) {
        cllm_store_le64(bytes, element_at(recipe, random, at / recipe->element_bytes));
        memcpy(out + at, bytes, recipe->element_bytes);
    }
}

/* ------------------------------------------------------------------------------------------------------------ the file */

static const struct cllm_dtype *random_dtype(struct test_random *random)
{
    const char *names = cllm_dtype_names();
    unsigned count = 1;
    for (const char *p = names; *p; p++) count += *p == ' ';
    for (uint64_t skip = below(random, count); skip > 0; skip--) names = strchr(names, ' ') + 1;
    return cllm_dtype_find(names, strcspn(names, " "));
}

/* Mostly small, some around the size of a chunk, a few of several chunks; whole bytes in every dtype. */
static uint64_t random_extent(struct test_random *random)
{
    static const uint32_t limits[] = {4, 40, 40, 160, 160, 160, 1000};
    uint64_t kind = below(random, 800);
    if (kind == 0) return 8 * below(random, 40000);
    if (kind < 6) return 32768 - 16 + 8 * below(random, 5);
    return 8 * below(random, limits[kind % 7]);
}

struct checkpoint {
    uint8_t *bytes;
    size_t byte_count;
    char described[TENSORS_MAX * 80];
};

static struct checkpoint make_checkpoint(struct test_random *random)
{
    struct checkpoint checkpoint = {0};
    char header[1024];
    size_t used = 0, data_bytes = 0, described = 0;
    unsigned count = 1 + (unsigned)below(random, TENSORS_MAX);
    struct recipe recipes[TENSORS_MAX];
    size_t ends[TENSORS_MAX];
    for (unsigned i = 0; i < count; i++) {
        const struct cllm_dtype *dtype = random_dtype(random);
        uint64_t extent = random_extent(random), rows = extent % 16 == 0 && below(random, 2) ? 2 : 1;
        size_t bytes = (size_t)(extent * dtype->element_bits / 8);
        recipes[i] = make_recipe(random, dtype);
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 "%c\"t%u\":{\"dtype\":\"%s\",\"shape\":[%llu,%llu],\"data_offsets\":[%zu,%zu]}", i ? ',' : '{',
                                 i, dtype->name, (unsigned long long)rows, (unsigned long long)(extent / rows), data_bytes,
                                 data_bytes + bytes);
        described += (size_t)snprintf(checkpoint.described + described, sizeof checkpoint.described - described,
                                      " %s x %llu content %d;", dtype->name, (unsigned long long)extent, recipes[i].content);
        ends[i] = data_bytes += bytes;
    }
    header[used++] = '}';
    checkpoint.byte_count = 8 + used + data_bytes;
    checkpoint.bytes = malloc(checkpoint.byte_count);
    assert_non_null(checkpoint.bytes);
    cllm_store_le64(checkpoint.bytes, used);
    memcpy(checkpoint.bytes + 8, header, used);
    uint8_t *data = checkpoint.bytes + 8 + used;
    for (unsigned i = 0; i < count; i++) {
        size_t start = i ? ends[i - 1] : 0;
        fill(&recipes[i], random, data + start, ends[i] - start);
    }
    return checkpoint;
}

/* ------------------------------------------------------------------------------------------------------------- one case */

struct place {
    struct test_dir dir;
    char model[256], container[256], again[256];
};

/* The container's bytes, to be freed. */
static uint8_t *pack(const struct place *place, const char *output, unsigned threads, bool opaque, size_t *byte_count_out)
{
    struct cllm_error err;
    struct cllm_source *source;
    struct cllm_pack_report report;
    const struct cllm_source_options source_options = {.only_weights = true, .opaque = opaque};
    const struct cllm_pack_options options = {.thread_count = threads, .replace = true};
    TEST_REQUIRE(cllm_source_open(place->model, &source_options, &source, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_pack(source, output, &options, &report, &err) == CLLM_OK, &err);
    cllm_source_close(source);
    return test_file_read(output, byte_count_out);
}

static void check_restores(const struct place *place, const struct checkpoint *checkpoint, unsigned threads)
{
    struct cllm_error err;
    struct cllm_reader *reader;
    struct cllm_verify_report report;
    const struct cllm_verify_options options = {.thread_count = threads};
    uint8_t *bytes;
    size_t byte_count;
    TEST_REQUIRE(cllm_reader_open(place->container, &reader, &err) == CLLM_OK, &err);
    TEST_REQUIRE(cllm_verify(reader, &options, &report, &err) == CLLM_OK, &err);
    const struct cllm_file *file = &cllm_reader_index(reader)->files[0];
    TEST_REQUIRE(cllm_load_file(reader, file, UINT64_MAX, &bytes, &byte_count, &err) == CLLM_OK, &err);
    assert_int_equal(byte_count, checkpoint->byte_count);
    assert_memory_equal(bytes, checkpoint->bytes, byte_count);
    free(bytes);
    cllm_reader_close(reader);
}

static void check_case(const struct place *place, unsigned long number)
{
    struct test_random random = {(uint64_t)seed << 32 | (number + 1)};
    for (unsigned i = 0; i < 8; i++) test_random_next(&random); /* neighbouring states give alike first numbers */
    struct checkpoint checkpoint = make_checkpoint(&random);
    unsigned threads = 1 + (unsigned)below(&random, 3);
    bool opaque = below(&random, 20) == 0;
    size_t byte_count, again_bytes;
    test_file_write(place->model, checkpoint.bytes, checkpoint.byte_count);
    uint8_t *container = pack(place, place->container, threads, opaque, &byte_count);
    if (byte_count > checkpoint.byte_count + checkpoint.byte_count / 1000 + 4096) {
        fail_msg("case %lu:%s grew from %zu to %zu bytes", number, checkpoint.described, checkpoint.byte_count, byte_count);
    }
    check_restores(place, &checkpoint, threads);
    if (number % 8 == 0) {
        uint8_t *again = pack(place, place->again, 4 - threads, opaque, &again_bytes);
        assert_int_equal(again_bytes, byte_count);
        assert_memory_equal(again, container, byte_count);
        free(again);
    }
    free(container);
    free(checkpoint.bytes);
}

static void test_every_checkpoint_is_restored_byte_for_byte(void **state)
{
    (void)state;
    struct place place = {.dir = test_dir_create()};
    snprintf(place.model, sizeof place.model, "%s/model.safetensors", place.dir.path);
    snprintf(place.container, sizeof place.container, "%s/model.cllm", place.dir.path);
    snprintf(place.again, sizeof place.again, "%s/again.cllm", place.dir.path);
    for (unsigned long number = 0; number < case_count; number++) {
        check_case(&place, number);
        if (number % 10000 == 9999) print_message("%lu cases\n", number + 1);
    }
    test_dir_remove(&place.dir);
}

int main(int argc, char **argv)
{
    if (argc > 1) case_count = strtoul(argv[1], NULL, 10);
    if (argc > 2) seed = strtoul(argv[2], NULL, 10);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_checkpoint_is_restored_byte_for_byte)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

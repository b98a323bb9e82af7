/* mkfixtures_good.c - containers that every reader must accept. */
#include "mkfixtures.h"

#include "bytes.h"
#include "layout.h"

#include <stdlib.h>

static const char text[] = "One line of text, again and again.\nOne line of text, again and again.\n"
                           "One line of text, again and again.\nOne line of text, again and again.\n";

static struct cllm_tensor tensor_of(const char *name, const char *dtype, uint32_t element_bits, const uint64_t *shape,
                                    uint32_t rank, uint32_t data_index)
{
    return (struct cllm_tensor){.name = name,
                                .name_bytes = (uint32_t)strlen(name),
                                .dtype = dtype,
                                .element_bits = element_bits,
                                .shape = shape,
                                .rank = rank,
                                .data_index = data_index};
}

/* A one-dimensional tensor of a dtype that this build knows. */
static void add_vector(struct test_container *container, const char *name, const char *dtype, uint64_t extent,
                       uint32_t data_index)
{
    struct cllm_tensor tensor =
        tensor_of(name, dtype, cllm_dtype_find(dtype, strlen(dtype))->element_bits, &extent, 1, data_index);
    test_container_tensor(container, &tensor);
}

/* 96 BF16 numbers, three segments of 32, with symbols 120 to 124. */
static void fill_bf16(uint8_t out[192])
{
    for (unsigned i = 0; i < 96; i++) {
        unsigned k = i * i / 5; /* so that segments differ in length */
        unsigned exponent = k % 16 == 3 ? 120 : k % 8 == 5 ? 121 : k % 4 == 2 ? 122 : k % 3 == 1 ? 123 : 124;
        cllm_store_le16(out + 2 * (size_t)i, (uint16_t)((i * 37 & 0x80) << 8 | exponent << 7 | (i * 53 & 0x7F)));
    }
}

void make_base(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    uint8_t numbers[192], bytes[16];
    fill_bf16(numbers);
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(17 * i);
    struct test_container *container = test_container_create(path);
    uint32_t parts[4] = {
        test_container_data(container, &(struct test_data){.bytes = "hello\n", .byte_count = 6}),
        test_container_data(container, &(struct test_data){.bytes = numbers,
                                                           .byte_count = sizeof numbers,
                                                           .layout = test_layout_bf16(5),
                                                           .form = CLLM_FORM_FLOAT}),
        test_container_data(container, &(struct test_data){.bytes = bytes, .byte_count = sizeof bytes}),
        test_container_data(container, &(struct test_data){.bytes = text, .byte_count = strlen(text), .form = CLLM_FORM_ZSTD}),
    };
    const uint64_t shape[2] = {8, 12};
    struct cllm_tensor alpha = tensor_of("alpha", "BF16", 16, shape, 2, parts[1]);
    test_container_tensor(container, &alpha);
    add_vector(container, "gamma", "U8", 16, parts[2]);
    test_container_file(container, "model.bin", parts, 3);
    test_container_file(container, "notes.txt", parts + 3, 1);
    test_container_finish(container);
    struct test_surgery surgery = open_for_surgery(path);
    surgery.frame = false;
    close_surgery(&surgery, path);
}

static void make_smallest(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct test_container *container = test_container_create(path);
    uint32_t part = test_container_data(container, &(struct test_data){.bytes = "abc", .byte_count = 3});
    test_container_file(container, "a", &part, 1);
    test_container_finish(container);
}

/* FORMAT.md 15. */
static void make_worked_example(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const uint16_t elements[20] = {0x3DCD, 0xBE4D, 0x3E9A, 0x3ECD, 0xBF00, 0x3F1A, 0x3F33, 0xBF4D, 0x3F66, 0x3F80,
                                          0xBF0D, 0x3F1F, 0x3ED1, 0xBF2C, 0x3E8F, 0x3F42, 0xBE99, 0x3F05, 0x3EB3, 0xBF28};
    uint8_t bytes[40];
    for (unsigned i = 0; i < 20; i++) cllm_store_le16(bytes + 2 * (size_t)i, elements[i]);
    struct test_container *container = test_container_create(path);
    uint32_t part = test_container_data(
        container,
        &(struct test_data){.bytes = bytes, .byte_count = sizeof bytes, .layout = test_layout_bf16(5), .form = CLLM_FORM_FLOAT});
    const uint64_t shape[2] = {4, 5};
    struct cllm_tensor tensor = tensor_of("w", "BF16", 16, shape, 2, part);
    test_container_tensor(container, &tensor);
    test_container_file(container, "w.bin", &part, 1);
    test_container_finish(container);
    struct test_surgery surgery = open_for_surgery(path);
    surgery.frame = false;
    close_surgery(&surgery, path);
}

static void make_empty_file(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct test_container *container = test_container_create(path);
    test_container_file(container, "empty", NULL, 0);
    test_container_finish(container);
}

void make_empty_tensor(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct test_container *container = test_container_create(path);
    uint32_t part = test_container_data(container, &(struct test_data){.bytes = "", .byte_count = 0});
    const uint64_t shape[2] = {0, 3};
    struct cllm_tensor tensor = tensor_of("nothing", "F32", 32, shape, 2, part);
    test_container_tensor(container, &tensor);
    test_container_file(container, "empty.bin", &part, 1);
    test_container_finish(container);
}

static void make_ranks(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    uint64_t shape[CLLM_RANK_MAX];
    for (unsigned i = 0; i < CLLM_RANK_MAX; i++) shape[i] = 1;
    struct test_container *container = test_container_create(path);
    uint32_t part = test_container_data(container, &(struct test_data){.bytes = "\0\0\x80?", .byte_count = 4});
    struct cllm_tensor scalar = tensor_of("scalar", "F32", 32, NULL, 0, part);
    struct cllm_tensor deep = tensor_of("deep", "F32", 32, shape, CLLM_RANK_MAX, part);
    test_container_tensor(container, &scalar);
    test_container_tensor(container, &deep);
    test_container_file(container, "ranks.bin", &part, 1);
    test_container_finish(container);
}

static void make_forms(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const enum cllm_form forms[4] = {CLLM_FORM_FLOAT, CLLM_FORM_ZSTD, CLLM_FORM_RAW, CLLM_FORM_FLOAT};
    struct test_random random = {1};
    uint8_t bytes[3 * 1024 + 100];
    test_random_bf16(&random, bytes, sizeof bytes / 2);
    memset(bytes + 1024, 0x3F, 1024);
    test_random_fill(&random, bytes + 2048, 1024);
    struct test_container *container = test_container_create(path);
    uint32_t part = test_container_data(
        container,
        &(struct test_data){.bytes = bytes, .byte_count = sizeof bytes, .layout = test_layout_bf16(7), .forms = forms});
    add_vector(container, "mixed", "BF16", sizeof bytes / 2, part);
    test_container_file(container, "mixed.bin", &part, 1);
    test_container_finish(container);
}

/* Elements of two and of four bytes, which differ in one byte only. */
static void make_planes(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const struct cllm_layout f32 = {4, 23, 8, 0, 7};
    struct test_random random = {5};
    uint8_t halves[1200], floats[2048 + 400];
    test_random_bf16(&random, halves, sizeof halves / 2);
    for (size_t i = 0; i < sizeof halves; i += 2) halves[i] = (uint8_t)(i / 64);
    for (size_t i = 0; i < sizeof floats; i++)
        floats[i] = i % 4 == 1 ? (uint8_t)test_random_next(&random) : (uint8_t)(0x30 + i % 4);
    struct test_container *container = test_container_create(path);
    struct test_data data = {
        .bytes = halves, .byte_count = sizeof halves, .layout = test_layout_bf16(7), .form = CLLM_FORM_PLANES};
    uint32_t first = test_container_data(container, &data);
    data = (struct test_data){.bytes = floats, .byte_count = sizeof floats, .layout = f32, .form = CLLM_FORM_PLANES};
    uint32_t parts[2] = {first, test_container_data(container, &data)};
    add_vector(container, "halves", "BF16", sizeof halves / 2, parts[0]);
    add_vector(container, "floats", "F32", sizeof floats / 4, parts[1]);
    test_container_file(container, "planes.bin", parts, 2);
    test_container_finish(container);
}

static void make_tables(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct test_random random = {2};
    uint8_t bytes[4 * 1024];
    test_random_bf16(&random, bytes, sizeof bytes / 2);
    for (size_t i = 1; i < sizeof bytes; i += 2) bytes[i] = (uint8_t)(bytes[i] - i / 1024); /* exponents differ by chunk */
    struct test_data data = {.bytes = bytes, .byte_count = sizeof bytes, .layout = test_layout_bf16(7), .form = CLLM_FORM_FLOAT};
    struct test_container *container = test_container_create(path);
    uint32_t own = test_container_data(container, &data);
    bytes[0] ^= 1; /* not the same object again */
    data.one_table = true;
    uint32_t parts[2] = {own, test_container_data(container, &data)};
    add_vector(container, "a table each", "BF16", sizeof bytes / 2, parts[0]);
    add_vector(container, "one table", "BF16", sizeof bytes / 2, parts[1]);
    test_container_file(container, "tables.bin", parts, 2);
    test_container_finish(container);
}

static void make_single_symbol(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    uint8_t bytes[600];
    for (size_t i = 0; i < sizeof bytes / 2; i++) cllm_store_le16(bytes + 2 * i, (uint16_t)(0x3F80 | (i * 5 & 0x7F)));
    struct test_container *container = test_container_create(path);
    uint32_t part = test_container_data(
        container,
        &(struct test_data){.bytes = bytes, .byte_count = sizeof bytes, .layout = test_layout_bf16(7), .form = CLLM_FORM_FLOAT});
    add_vector(container, "ones", "BF16", sizeof bytes / 2, part);
    test_container_file(container, "ones.bin", &part, 1);
    test_container_finish(container);
}

static uint32_t add_sparse(struct test_container *container, const void *bytes, size_t byte_count, struct cllm_layout layout,
                           bool palette)
{
    return test_container_data(
        container, &(struct test_data){
                       .bytes = bytes, .byte_count = byte_count, .layout = layout, .form = CLLM_FORM_SPARSE, .palette = palette});
}

/* Elements of two, four and one byte, the last chunk shorter; with a palette; and so few that masks have masks. */
void make_sparse(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const struct cllm_layout f32 = {4, 23, 8, 0, 5}, f8 = {1, 0, 7, 0, 7};
    struct test_random random = {7};
    uint8_t halves[2 * 1201], floats[4 * 563], few[2 * 301], rare[2 * 400], bytes[1500];
    test_random_bf16(&random, halves, sizeof halves / 2);
    test_random_fill(&random, floats, sizeof floats);
    test_random_fill(&random, bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof few / 2; i++) cllm_store_le16(few + 2 * i, i % 7 ? 0 : (uint16_t)(0x8100 | i % 3));
    for (size_t i = 0; i < sizeof rare / 2; i++) cllm_store_le16(rare + 2 * i, i % 150 == 3 ? (uint16_t)(0x3F81 + i) : 0);
    for (size_t i = 0; i < sizeof halves / 2; i++) {
        uint64_t draw = test_random_next(&random);
        if (i % 64 > 2 && draw >> 62) cllm_store_le16(halves + 2 * i, draw >> 61 & 1 ? 0x8000 : 0);
    }
    for (size_t i = 0; i < sizeof floats / 4; i++) {
        floats[4 * i + 3] = (uint8_t)(0x3E | (floats[4 * i + 3] & 0x81));
        if (i % 4 != 1) cllm_store_le32(floats + 4 * i, 0);
    }
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = bytes[i] % 3 ? 0 : bytes[i] % 32 + 0x30;
    struct test_container *container = test_container_create(path);
    uint32_t parts[5] = {add_sparse(container, halves, sizeof halves, test_layout_bf16(7), false),
                         add_sparse(container, floats, sizeof floats, f32, false),
                         add_sparse(container, few, sizeof few, test_layout_bf16(6), true),
                         add_sparse(container, rare, sizeof rare, test_layout_bf16(7), false),
                         add_sparse(container, bytes, sizeof bytes, f8, false)};
    add_vector(container, "halves", "BF16", sizeof halves / 2, parts[0]);
    add_vector(container, "floats", "F32", sizeof floats / 4, parts[1]);
    add_vector(container, "few", "BF16", sizeof few / 2, parts[2]);
    add_vector(container, "rare", "BF16", sizeof rare / 2, parts[3]);
    add_vector(container, "bytes", "F8_E4M3", sizeof bytes, parts[4]);
    test_container_file(container, "sparse.bin", parts, 5);
    test_container_finish(container);
}

/* Whole numbers from -7 to 7, and negative zeros, times a scale that every 64 elements share. */
static void fill_scaled(enum cllm_scaled_type type, uint8_t *out, size_t count)
{
    const size_t element_bytes = cllm_scaled_element_bytes(type);
    struct test_random random = {type};
    for (size_t i = 0; i < count; i++) {
        const float number = i % 97 == 5 ? -0.0f : (float)((int32_t)((test_random_next(&random) >> 33) % 15) - 7);
        const float scale = type == CLLM_SCALED_F16 ? cllm_scale_of_f16((uint16_t)(0x0A11 + i / 64 * 37))
                                                    : cllm_float_of_bits(0x3C123457 + (uint32_t)(i / 64) * 0x35791);
        uint8_t element[4];
        cllm_store_le32(element, cllm_scaled_element(type, cllm_scaled_round(type, number), scale));
        memcpy(out + i * element_bytes, element, element_bytes);
    }
}

void make_scaled(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const struct cllm_layout f16 = {2, 8, 8, 0, 6}, f32 = {4, 23, 8, 0, 5};
    uint8_t halves[2 * 1201], others[2 * 700], floats[4 * 563];
    fill_scaled(CLLM_SCALED_BF16, halves, sizeof halves / 2);
    fill_scaled(CLLM_SCALED_F16, others, sizeof others / 2);
    fill_scaled(CLLM_SCALED_F32, floats, sizeof floats / 4);
    const struct test_data data[3] = {
        {.bytes = halves, .byte_count = sizeof halves, .layout = test_layout_bf16(7), .scaled_type = CLLM_SCALED_BF16},
        {.bytes = others, .byte_count = sizeof others, .layout = f16, .scaled_type = CLLM_SCALED_F16},
        {.bytes = floats, .byte_count = sizeof floats, .layout = f32, .scaled_type = CLLM_SCALED_F32},
    };
    struct test_container *container = test_container_create(path);
    uint32_t parts[3];
    for (int i = 0; i < 3; i++) {
        struct test_data scaled = data[i];
        scaled.form = CLLM_FORM_SCALED;
        scaled.palette = true;
        parts[i] = test_container_data(container, &scaled);
    }
    add_vector(container, "halves", "BF16", sizeof halves / 2, parts[0]);
    add_vector(container, "others", "F16", sizeof others / 2, parts[1]);
    add_vector(container, "floats", "F32", sizeof floats / 4, parts[2]);
    test_container_file(container, "scaled.bin", parts, 3);
    test_container_finish(container);
}

/* Palettes of elements of every size: of zeros of both signs, infinity and NaN, of one value, and of 200. */
void make_palettes(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const uint16_t halves[] = {0x0000, 0x8000, 0x7F80, 0x7FC1, 0xFFFF, 0x7F81, 0x3F80, 0x0001, 0xBF80};
    static const struct {
        const char *name, *dtype;
        struct cllm_layout layout;
        unsigned count;
    } cases[] = {{"halves", "BF16", {2, 7, 8, 0, 5}, 9},
                 {"one value", "F32", {4, 23, 8, 0, 7}, 1},
                 {"many", "F64", {8, 52, 8, 0, 12}, 200},
                 {"bytes", "F8_E5M2", {1, 2, 5, 0, 6}, 12}};
    enum { COUNT = sizeof cases / sizeof cases[0], BYTES = 4096 + 512 };
    struct test_random random = {6};
    uint32_t parts[COUNT];
    struct test_container *container = test_container_create(path);
    for (unsigned i = 0; i < COUNT; i++) {
        uint8_t bytes[BYTES], value[8];
        unsigned size = cases[i].layout.element_bytes;
        for (unsigned at = 0; at < BYTES; at += size) {
            uint64_t draw = test_random_next(&random) >> 33, which = draw % 3 ? draw / 3 % cases[i].count : 0;
            cllm_store_le64(value, i == 0 ? halves[which] : (which + 1) * UINT64_C(0x9E3779B97F4A7C15) >> (64 - 8 * size));
            memcpy(bytes + at, value, size);
        }
        parts[i] = test_container_data(container, &(struct test_data){.bytes = bytes,
                                                                      .byte_count = BYTES,
                                                                      .chunk_bytes = 4096,
                                                                      .layout = cases[i].layout,
                                                                      .form = CLLM_FORM_FLOAT,
                                                                      .palette = true});
        add_vector(container, cases[i].name, cases[i].dtype, BYTES / size, parts[i]);
    }
    test_container_file(container, "palettes.bin", parts, COUNT);
    test_container_finish(container);
}

static void make_segments(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct test_random random = {3};
    uint8_t bytes[2 * 5000];
    uint32_t parts[3];
    static const unsigned segment_log2[3] = {5, 8, 12};
    struct test_container *container = test_container_create(path);
    for (unsigned i = 0; i < 3; i++) {
        char name[2] = {(char)('a' + i), 0};
        size_t elements = i == 2 ? 5000 : 300; /* two segments of up to 4096 */
        test_random_bf16(&random, bytes, elements);
        parts[i] = test_container_data(container, &(struct test_data){.bytes = bytes,
                                                                      .byte_count = 2 * elements,
                                                                      .chunk_bytes = 16384,
                                                                      .layout = test_layout_bf16(segment_log2[i]),
                                                                      .form = CLLM_FORM_FLOAT});
        add_vector(container, name, "BF16", elements, parts[i]);
    }
    test_container_file(container, "segments.bin", parts, 3);
    test_container_finish(container);
}

/* What FORMAT.md 9 asks of writers only: a base that is not the least length, a width that is more than needed, a base where
 * there is one segment, bits set behind the lengths and behind the packed remainders. */
static void make_loose(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    enum { NUMBERS = 96, SMALL = 30, SMALL_PACKED = (3 * SMALL + 7) / 8 };
    uint8_t numbers[2 * NUMBERS], small[SMALL];
    fill_bf16(numbers);
    for (unsigned i = 0; i < SMALL; i++) small[i] = (uint8_t)((85 * i & 0x83) | (15 - i % 7 * (i % 5) / 4) << 2);
    struct test_container *container = test_container_create(path);
    uint32_t parts[2] = {
        test_container_data(container, &(struct test_data){.bytes = numbers,
                                                           .byte_count = sizeof numbers,
                                                           .layout = test_layout_bf16(5),
                                                           .form = CLLM_FORM_FLOAT}),
        test_container_data(
            container,
            &(struct test_data){.bytes = small, .byte_count = sizeof small, .layout = {1, 2, 5, 0, 5}, .form = CLLM_FORM_FLOAT}),
    };
    add_vector(container, "three", "BF16", NUMBERS, parts[0]);
    add_vector(container, "one", "F8_E5M2", SMALL, parts[1]);
    test_container_file(container, "loose.bin", parts, 2);
    test_container_finish(container);

    struct test_surgery surgery = open_for_surgery(path);
    uint32_t stored_bytes;
    uint8_t *head = surgery.payload + test_surgery_chunk(&surgery, 0, &stored_bytes) + NUMBERS; /* behind one byte plane */
    unsigned base = cllm_load_le16(head), width = head[2], lengths = head[CLLM_FLOAT_HEADER_BYTES];
    unsigned first = (lengths & ((1u << width) - 1)) + 1, second = (lengths >> width & ((1u << width) - 1)) + 1;
    width++;
    TEST_REQUIRE(base > 0 && 2 * width < 8, NULL);
    cllm_store_le16(head, (uint16_t)(base - 1));
    head[2] = (uint8_t)width;
    head[CLLM_FLOAT_HEADER_BYTES] = (uint8_t)(first | second << width | 0xFFu << 2 * width);
    test_surgery_rechecksum(&surgery, 0);

    head = surgery.payload + test_surgery_chunk(&surgery, 1, &stored_bytes) + SMALL_PACKED;
    head[-1] |= 0xFC; /* 90 bits of remainders */
    cllm_store_le16(head, 0xABCD);
    test_surgery_rechecksum(&surgery, 1);
    close_surgery(&surgery, path);
}

/* The layouts of FORMAT.md 9, one with low bits that are all zero, and one whose coded field ends at bit 63. */
static void make_layouts(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const struct {
        const char *name, *dtype;
        struct cllm_layout layout;
        uint8_t or_high; /* into the last byte of every element */
        uint8_t and_high;
    } cases[] = {
        {"f16", "F16", {2, 10, 5, 0, 7}, 0x30, 0x8F},     {"f32", "F32", {4, 23, 8, 0, 7}, 0x38, 0x83},
        {"c64", "C64", {4, 23, 8, 0, 7}, 0x38, 0x83},     {"f64", "F64", {8, 52, 8, 0, 7}, 0x3F, 0x80},
        {"e4m3", "F8_E4M3", {1, 3, 4, 0, 7}, 0x30, 0x8F}, {"e5m2", "F8_E5M2", {1, 2, 5, 0, 7}, 0x38, 0x87},
        {"i8", "I8", {1, 0, 8, 0, 7}, 0, 0x1F},           {"f4", "F4", {1, 0, 8, 0, 7}, 0, 0x77},
        {"f6", "F6_E3M2", {1, 0, 8, 0, 7}, 0, 0x1B},      {"zeros", "F32", {4, 23, 8, 16, 7}, 0x38, 0x83},
        {"top", "I64", {8, 56, 8, 0, 7}, 0, 0x03},
    };
    enum { COUNT = sizeof cases / sizeof cases[0], BYTES = 480 };
    struct test_random random = {4};
    uint32_t parts[COUNT];
    struct test_container *container = test_container_create(path);
    for (unsigned i = 0; i < COUNT; i++) {
        uint8_t bytes[BYTES];
        unsigned size = cases[i].layout.element_bytes;
        test_random_fill(&random, bytes, sizeof bytes);
        for (unsigned k = 0; k < BYTES; k++) {
            if (k % size == size - 1) bytes[k] = (uint8_t)((bytes[k] & cases[i].and_high) | cases[i].or_high);
            if (k % size < cases[i].layout.zero_bits / 8u) bytes[k] = 0;
        }
        parts[i] = test_container_data(
            container,
            &(struct test_data){.bytes = bytes, .byte_count = BYTES, .layout = cases[i].layout, .form = CLLM_FORM_FLOAT});
        uint32_t element_bits = cllm_dtype_find(cases[i].dtype, strlen(cases[i].dtype))->element_bits;
        add_vector(container, cases[i].name, cases[i].dtype, 8 * BYTES / element_bits, parts[i]);
    }
    test_container_file(container, "layouts.bin", parts, COUNT);
    test_container_finish(container);
}

static void make_dtypes(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct test_container *container = test_container_create(path);
    uint8_t bytes[24];
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)i;
    uint32_t part = test_container_data(container, &(struct test_data){.bytes = bytes, .byte_count = sizeof bytes});
    for (const char *at = cllm_dtype_names(); *at;) {
        char name[32];
        size_t name_bytes = strcspn(at, " ");
        memcpy(name, at, name_bytes);
        name[name_bytes] = 0;
        add_vector(container, name, name, 8 * sizeof bytes / cllm_dtype_find(name, name_bytes)->element_bits, part);
        at += name_bytes + (at[name_bytes] == ' ');
    }
    test_container_file(container, "dtypes.bin", &part, 1);
    test_container_finish(container);
}

static void make_unknown_dtype(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    const uint64_t shape[2] = {1000, 1000};
    struct test_container *container = test_container_create(path);
    uint32_t part = test_container_data(container, &(struct test_data){.bytes = "seven..", .byte_count = 7});
    struct cllm_tensor tensor = tensor_of("odd", "T1.58/block-256", 2, shape, 2, part);
    test_container_tensor(container, &tensor);
    test_container_file(container, "odd.bin", &part, 1);
    test_container_finish(container);
}

static void make_names(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const struct {
        const char *bytes;
        uint32_t byte_count;
    } names[] = {{"", 0},          {"\0", 1},        {"a\0b", 3},         {"\x1b[2J\x07", 5}, {"../../x", 7},
                 {"/etc/name", 9}, {"line\nend", 8}, {"sch\xc3\xb6n", 6}, {"\xff\xfe", 2},    {"a\\b", 3}};
    const uint64_t shape[1] = {3};
    struct test_container *container = test_container_create(path);
    uint32_t part = test_container_data(container, &(struct test_data){.bytes = "abc", .byte_count = 3});
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct cllm_tensor tensor = tensor_of("", "U8", 8, shape, 1, part);
        tensor.name = names[i].bytes;
        tensor.name_bytes = names[i].byte_count;
        test_container_tensor(container, &tensor);
    }
    test_container_file(container,
                        "dir one/sub/gr\xc3\xb6\xc3\x9f"
                        "e.bin",
                        &part, 1);
    test_container_file(container, "...", &part, 1);
    test_container_file(container, "not utf-8 \xff", &part, 1);
    test_container_file(container, "~$;*?\"'<>|", &part, 1);
    test_container_finish(container);
}

static void make_shared(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct test_container *container = test_container_create(path);
    uint32_t head = test_container_data(container, &(struct test_data){.bytes = "head", .byte_count = 4});
    uint32_t body = test_container_data(container, &(struct test_data){.bytes = "shared body", .byte_count = 11});
    const uint32_t first[3] = {head, body, body}, second[1] = {body};
    for (uint32_t file = 0; file < 2; file++) {
        const uint64_t shape[1] = {11};
        struct cllm_tensor tensor = tensor_of("tied", "U8", 8, shape, 1, body);
        tensor.file_index = file;
        test_container_tensor(container, &tensor);
        tensor.name = "TIED";
        test_container_tensor(container, &tensor);
    }
    test_container_file(container, "a.bin", first, 3);
    test_container_file(container, "b.bin", second, 1);
    test_container_finish(container);
}

void make_page_aligned(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    size_t byte_count = (size_t)CLLM_PAGE_ALIGNED_MIN_BYTES;
    uint8_t *zeros = calloc(byte_count, 1);
    TEST_REQUIRE(zeros != NULL, NULL);
    struct test_container *container = test_container_create(path);
    const uint32_t parts[2] = {
        test_container_data(container, &(struct test_data){.bytes = "small", .byte_count = 5}),
        test_container_data(
            container,
            &(struct test_data){.bytes = zeros, .byte_count = byte_count, .chunk_bytes = 1u << 22, .form = CLLM_FORM_ZSTD})};
    add_vector(container, "zeros", "F32", byte_count / 4, parts[1]);
    test_container_file(container, "zeros.bin", parts, 2);
    test_container_finish(container);
    free(zeros);
}

static void make_index_frame(const struct fixture *fixture, const char *path)
{
    make_base(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    surgery.frame = true;
    close_surgery(&surgery, path);
}

static void make_compatible(const struct fixture *fixture, const char *path)
{
    make_base(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    test_header_poke(surgery.payload, CLLM_HEADER_COMPATIBLE_OFFSET, 8, UINT64_C(1) << 63 | 1);
    test_header_poke(surgery.payload, 12, 4, 0x11111111);
    test_header_poke(surgery.payload, 32, 8, 0x2222222222222222);
    close_surgery(&surgery, path);
}

#define G(n, w, m)                                                                                                               \
    {                                                                                                                            \
        .name = n, .result = "ok", .step = "verify", .what = w, .make = m                                                        \
    }

const struct fixture good_fixtures[] = {
    G("good-smallest", "One file of three bytes, one raw chunk.", make_smallest),
    G("good-worked-example", "The example of FORMAT.md 15: one file that is one tensor, float form.", make_worked_example),
    G("good-index-raw", "Two files, two tensors, all forms; the index as it is. Most bad fixtures are made from it.", make_base),
    G("good-index-zstd", "The same content, and so the same root digest; the index as a zstd frame.", make_index_frame),
    G("good-compatible-bits", "Unknown compatible feature bits and reserved bytes in the header that are not 0.",
      make_compatible),
    G("good-empty-file", "A file without bytes and without parts; no data object at all.", make_empty_file),
    G("good-empty-tensor", "A tensor of shape [0, 3]: a data object without chunks.", make_empty_tensor),
    G("good-ranks", "Tensors of rank 0 and of rank 64.", make_ranks),
    G("good-forms", "One data object with chunks of every form and a last chunk that is shorter.", make_forms),
    G("good-planes", "Byte planes of elements of two and four bytes, the last chunk shorter.", make_planes),
    G("good-tables", "Float chunks with a code table each, and four chunks that share one.", make_tables),
    G("good-single-symbol", "A float chunk whose code table has one symbol, so that its code words take no bits.",
      make_single_symbol),
    G("good-palettes", "Code tables with a palette: of 1 to 200 elements of one to eight bytes, NaN payloads and -0 among them.",
      make_palettes),
    G("good-sparse",
      "Zeros of both signs left out: elements of one, two and four bytes, shorter last chunks, elements of a palette, and masks "
      "that have masks.",
      make_sparse),
    G("good-scaled", "Whole numbers and scales, as BF16, F16 (with scales of it) and F32, shorter last chunks, -0.", make_scaled),
    G("good-segments", "Segments of 2^5, 2^8 and 2^12 symbols.", make_segments),
    G("good-loose", "What binds writers only (FORMAT.md 9): bases, a width and unused bits that readers must accept.",
      make_loose),
    G("good-layouts", "Every layout of FORMAT.md 9, low zero bits, and a coded field at the top of 64 bits.", make_layouts),
    G("good-dtypes", "A tensor of each dtype of FORMAT.md 12.", make_dtypes),
    G("good-unknown-dtype", "A dtype that no reader knows, of a shape that does not fit its size: plain bytes.",
      make_unknown_dtype),
    G("good-names", "Tensor names with control characters, zero bytes, \"..\", invalid UTF-8; file names that look odd.",
      make_names),
    G("good-shared", "Tensors that share a data object, within a file and across files.", make_shared),
    G("good-page-aligned", "A data object of 4 MiB, which starts at a multiple of 4096.", make_page_aligned),
};
const size_t good_fixture_count = sizeof good_fixtures / sizeof good_fixtures[0];

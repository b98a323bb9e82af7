/* mkfixtures_bad.c - containers with one fault each. Where no other container is named, the fault is put into the one that
 * make_base writes: data objects 0 (raw, 6 bytes), 1 (float, 96 elements, 3 segments), 2 (raw, 16 bytes), 3 (zstd, 140 bytes);
 * tensors alpha (1) and gamma (2); files model.bin (0, 1, 2) and notes.txt (3). */
#include "mkfixtures.h"

#include "bytes.h"
#include "codec.h"
#include "compress.h"
#include "digest.h"
#include "encode_float.h"
#include "layout.h"
#include "sparse.h"

#include <stdlib.h>

enum { RAW, FLOAT, BYTES, ZSTD }; /* data objects of the base */

/* ------------------------------------------------------------------------------------------------ one field of the index */

static void make_poke(const struct fixture *fixture, const char *path)
{
    make_base(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, fixture->record, fixture->index);
    test_surgery_poke(&surgery, at + fixture->field, fixture->width, fixture->value);
    close_surgery(&surgery, path);
}

#define POKE(record, index, field, width, value) make_poke, record, index, field, width, value

/* -------------------------------------------------------------------------------------------------- the finished container */

struct whole {
    uint8_t *bytes;
    size_t byte_count;
};

static struct whole read_base(const char *path)
{
    struct whole whole;
    make_base(NULL, path);
    whole.bytes = test_file_read(path, &whole.byte_count);
    return whole;
}

static void write_whole(const struct whole *whole, const char *path)
{
    test_file_write(path, whole->bytes, whole->byte_count);
    free(whole->bytes);
}

/* Keeps the first `value` bytes; with 0 as width, all but the last `value`. */
static void make_cut(const struct fixture *fixture, const char *path)
{
    struct whole whole = read_base(path);
    whole.byte_count = fixture->width ? (size_t)fixture->value : whole.byte_count - (size_t)fixture->value;
    write_whole(&whole, path);
}

#define FIRST(byte_count) make_cut, 0, 0, 0, 1, byte_count
#define WITHOUT_LAST(byte_count) make_cut, 0, 0, 0, 0, byte_count

/* Flips a bit `field` bytes from the start (width 1) or the end (width 0); no checksum is recomputed. */
static void make_flip(const struct fixture *fixture, const char *path)
{
    struct whole whole = read_base(path);
    whole.bytes[fixture->width ? fixture->field : whole.byte_count - fixture->field] ^= (uint8_t)fixture->value;
    write_whole(&whole, path);
}

#define FLIP(offset, bits) make_flip, 0, 0, offset, 1, bits
#define FLIP_BEFORE_END(distance, bits) make_flip, 0, 0, distance, 0, bits

static void make_header_poke(const struct fixture *fixture, const char *path)
{
    make_base(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    test_header_poke(surgery.payload, fixture->field, fixture->width, fixture->value);
    close_surgery(&surgery, path);
}

#define HEADER(field, width, value) make_header_poke, 0, 0, field, width, value

static void make_footer_poke(const struct fixture *fixture, const char *path)
{
    struct whole whole = read_base(path);
    test_footer_poke(whole.bytes, whole.byte_count, fixture->field, fixture->width, fixture->value);
    write_whole(&whole, path);
}

#define FOOTER(field, value) make_footer_poke, 0, 0, field, 8, value

static void make_footer_add(const struct fixture *fixture, const char *path)
{
    struct whole whole = read_base(path);
    uint64_t found = cllm_load_le64(whole.bytes + whole.byte_count - CLLM_FOOTER_BYTES + fixture->field);
    test_footer_poke(whole.bytes, whole.byte_count, fixture->field, 8, found + fixture->value);
    write_whole(&whole, path);
}

#define FOOTER_ADD(field, value) make_footer_add, 0, 0, field, 8, value

static void make_text_mode(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct whole whole = read_base(path);
    memmove(whole.bytes + 4, whole.bytes + 5, --whole.byte_count - 4); /* CR LF became LF */
    write_whole(&whole, path);
}

static void make_appended(const struct fixture *fixture, const char *path)
{
    struct whole whole = read_base(path);
    whole.bytes[whole.byte_count++] = (uint8_t)fixture->value; /* test_file_read leaves room for it */
    write_whole(&whole, path);
}

static void make_twice(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct whole whole = read_base(path);
    whole.bytes = realloc(whole.bytes, 2 * whole.byte_count);
    TEST_REQUIRE(whole.bytes != NULL, NULL);
    memcpy(whole.bytes + whole.byte_count, whole.bytes, whole.byte_count);
    whole.byte_count *= 2;
    write_whole(&whole, path);
}

static void make_other_header(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct whole whole = read_base(path);
    test_header_poke(whole.bytes, CLLM_HEADER_COMPATIBLE_OFFSET, 8, 1);
    write_whole(&whole, path);
}

static void make_index_in_header(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct whole whole = read_base(path);
    uint64_t stored = whole.byte_count - CLLM_FOOTER_BYTES - 32;
    test_footer_poke(whole.bytes, whole.byte_count, CLLM_FOOTER_INDEX_OFFSET, 8, 32);
    test_footer_poke(whole.bytes, whole.byte_count, CLLM_FOOTER_INDEX_STORED_BYTES, 8, stored);
    test_footer_poke(whole.bytes, whole.byte_count, CLLM_FOOTER_INDEX_BYTES, 8, stored);
    write_whole(&whole, path);
}

static void make_index_ratio(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct whole whole = read_base(path);
    uint64_t stored = cllm_load_le64(whole.bytes + whole.byte_count - CLLM_FOOTER_BYTES + CLLM_FOOTER_INDEX_STORED_BYTES);
    test_footer_poke(whole.bytes, whole.byte_count, CLLM_FOOTER_INDEX_BYTES, 8, 64 * stored + 64);
    write_whole(&whole, path);
}

/* ------------------------------------------------------------------------------------------------------- the index frame */

/* A frame of the index that is broken (field), followed by bytes (width), or of another size than stated (value). */
static void make_index_frame(const struct fixture *fixture, const char *path)
{
    make_base(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    struct cllm_compressor *compressor;
    struct whole whole;
    uint8_t root[CLLM_DIGEST_BYTES];
    size_t index_bytes = surgery.index_bytes, manifest_bytes = surgery.manifest_bytes;
    uint8_t *frame = calloc(index_bytes, 1);
    TEST_REQUIRE(frame && cllm_compressor_create(&compressor, NULL) == CLLM_OK, NULL);
    size_t frame_bytes = cllm_compress(compressor, surgery.index, index_bytes, 19, frame, index_bytes - 8);
    TEST_REQUIRE(frame_bytes > 0 && cllm_sha256(surgery.index, manifest_bytes, root, NULL) == CLLM_OK, NULL);
    if (fixture->field) memset(frame + 4, 0xFF, 8);
    surgery.index_bytes = frame_bytes + fixture->width;
    memcpy(surgery.index, frame, surgery.index_bytes);
    surgery.manifest_bytes = 0;
    whole.bytes = test_surgery_close(&surgery, &whole.byte_count);
    memcpy(whole.bytes + whole.byte_count - CLLM_FOOTER_BYTES + CLLM_FOOTER_ROOT, root, sizeof root);
    test_footer_poke(whole.bytes, whole.byte_count, CLLM_FOOTER_INDEX_BYTES, 8, index_bytes + fixture->value);
    test_footer_poke(whole.bytes, whole.byte_count, CLLM_FOOTER_MANIFEST_BYTES, 8, manifest_bytes);
    write_whole(&whole, path);
    cllm_compressor_destroy(compressor);
    free(frame);
}

#define FRAME_DAMAGED make_index_frame, 0, 0, 1, 0, 0
#define FRAME_THEN(byte_count) make_index_frame, 0, 0, 0, byte_count, 0
#define FRAME_SHORT_OF(byte_count) make_index_frame, 0, 0, 0, 0, byte_count

/* --------------------------------------------------------------------------------------------------- records of the index */

/* Replaces `removed` bytes at a field of a record by bytes given. */
static void splice_record(const char *path, enum test_record record, uint32_t index, size_t field, size_t removed,
                          const void *bytes, size_t byte_count)
{
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, record, index) + field;
    test_surgery_splice(&surgery, at, removed, bytes, byte_count);
    close_surgery(&surgery, path);
}

static void make_index_cut(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    splice_record(path, TEST_CHUNK, ZSTD, 12, 4, NULL, 0);
}

static void make_layout_trailing(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    splice_record(path, TEST_CHUNK, ZSTD, 16, 0, "\0", 1);
}

static void make_manifest_trailing(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_splice(&surgery, surgery.manifest_bytes, 0, "\0", 1);
    surgery.manifest_bytes++;
    close_surgery(&surgery, path);
}

/* Two fields of one tensor record. */
static void poke_tensor(const char *path, uint32_t tensor, size_t field, unsigned width, uint64_t value, uint32_t element_bits,
                        const char *dtype)
{
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, TEST_TENSOR, tensor);
    unsigned name_bytes = cllm_load_le16(surgery.index + at + 12), dtype_bytes = surgery.index[at + 14];
    test_surgery_poke(&surgery, at + field, width, value);
    if (element_bits) test_surgery_poke(&surgery, at + 8, 4, element_bits);
    test_surgery_poke(&surgery, at + 14, 1, strlen(dtype));
    test_surgery_splice(&surgery, at + CLLM_TENSOR_RECORD_BYTES + name_bytes, dtype_bytes, dtype, strlen(dtype));
    close_surgery(&surgery, path);
}

static void make_dtype_empty(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    poke_tensor(path, 0, 15, 1, 2, 0, "");
}

static void make_dtype_space(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    poke_tensor(path, 0, 15, 1, 2, 0, "BF 16");
}

static void make_dtype_long(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    poke_tensor(path, 0, 15, 1, 2, 0, "A_DTYPE_OF_THIRTY_TWO_CHARACTERS");
}

/* A dtype without rules, so that the one about element_bits is what is broken. */
static void make_element_bits(const struct fixture *fixture, const char *path)
{
    poke_tensor(path, 0, 15, 1, 2, 0, "UNKNOWN");
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_poke(&surgery, test_surgery_find(&surgery, TEST_TENSOR, 0) + 8, 4, fixture->value);
    close_surgery(&surgery, path);
}

/* Sixteen bytes as F4 with an extent of 31 or 33: half a byte too little or too much. */
static void make_misaligned(const struct fixture *fixture, const char *path)
{
    poke_tensor(path, 1, CLLM_TENSOR_RECORD_BYTES + 5 + 2, 8, fixture->value, 4, "F4");
}

/* Rank 65, with the bytes that the extents need. */
static void make_rank(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    uint8_t ones[8 * 63] = {0};
    for (unsigned i = 0; i < 63; i++) ones[8 * i] = 1;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, TEST_TENSOR, 0);
    test_surgery_poke(&surgery, at + 15, 1, 65);
    test_surgery_splice(&surgery, at + CLLM_TENSOR_RECORD_BYTES + 9, 0, ones, sizeof ones);
    close_surgery(&surgery, path);
}

/* alpha has the shape [2^40, 2^40] of 16-bit elements: 2^84 bits. */
static void make_shape_overflow(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t shape = test_surgery_find(&surgery, TEST_TENSOR, 0) + CLLM_TENSOR_RECORD_BYTES + 9;
    test_surgery_poke(&surgery, shape, 8, UINT64_C(1) << 40);
    test_surgery_poke(&surgery, shape + 8, 8, UINT64_C(1) << 40);
    close_surgery(&surgery, path);
}

/* The size of alpha is right modulo 2^64: 16 bits x 2^60 x (2^4 x ...) wraps to 1536. */
static void make_shape_wrap(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t shape = test_surgery_find(&surgery, TEST_TENSOR, 0) + CLLM_TENSOR_RECORD_BYTES + 9;
    test_surgery_poke(&surgery, shape, 8, (UINT64_C(1) << 60) + 96);
    test_surgery_poke(&surgery, shape + 8, 8, 1);
    close_surgery(&surgery, path);
}

/* Multiplied from left to right: 32 bits x 2^60 is too much before the 0 is seen. */
static void make_shape_zero(const struct fixture *fixture, const char *path)
{
    make_empty_tensor(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t shape = test_surgery_find(&surgery, TEST_TENSOR, 0) + CLLM_TENSOR_RECORD_BYTES + 7 + 3;
    test_surgery_poke(&surgery, shape, 8, UINT64_C(1) << 60);
    test_surgery_poke(&surgery, shape + 8, 8, 0);
    close_surgery(&surgery, path);
}

static void make_tensor_twice(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    splice_record(path, TEST_TENSOR, 1, CLLM_TENSOR_RECORD_BYTES, 5, "alpha", 5);
}

/* notes.txt becomes a second use of object 0, so that no file uses object 3. */
static void make_data_unused(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, TEST_FILE, 1);
    test_surgery_poke(&surgery, at, 8, 6);
    test_surgery_poke(&surgery, at + CLLM_FILE_RECORD_BYTES + 9, 4, RAW);
    close_surgery(&surgery, path);
}

static void rename_file(const char *path, const void *name, size_t name_bytes)
{
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, TEST_FILE, 1);
    test_surgery_poke(&surgery, at + 44, 2, name_bytes);
    test_surgery_splice(&surgery, at + CLLM_FILE_RECORD_BYTES, 9, name, name_bytes);
    close_surgery(&surgery, path);
}

/* The names, by the fixture's `value`. */
static void make_file_name(const struct fixture *fixture, const char *path)
{
    static const char *const names[] = {"",
                                        "..",
                                        "a/../../b",
                                        ".",
                                        "a/./b",
                                        "/etc/name",
                                        "a//",
                                        "a/b/",
                                        "a//b",
                                        "..\\up",
                                        "a\nb",
                                        "a\x7f"
                                        "b",
                                        "model.bin",
                                        "c:\\name",
                                        "model.bin/x"};
    rename_file(path, names[fixture->value], strlen(names[fixture->value]));
}

static void make_file_name_zero(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    rename_file(path, "a\0b", 3);
}

static void make_file_name_long(const struct fixture *fixture, const char *path)
{
    char name[5000];
    memset(name, 'a', sizeof name);
    for (size_t i = 200; fixture->value > 256 && i < sizeof name; i += 200) name[i] = '/';
    rename_file(path, name, (size_t)fixture->value);
}

#define FILE_NAME(index) make_file_name, 0, 0, 0, 0, index

/* ------------------------------------------------------------------------------------------------------------ code tables */

/* Replaces the code table of the float object by another one. The stored chunk is left alone: the index is what is wrong. */
static void replace_table(const char *path, const uint8_t *table, size_t table_bytes)
{
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, TEST_TABLE, FLOAT);
    size_t end = test_surgery_find(&surgery, TEST_CHUNK, FLOAT);
    test_surgery_splice(&surgery, at, end - at, table, table_bytes);
    close_surgery(&surgery, path);
}

static void make_table(const struct fixture *fixture, const char *path)
{
    static const struct {
        uint8_t byte_count, bytes[14];
    } tables[] = {
        {4, {120, 123, 0x21, 0x22}},                               /* 0: 1, 2, 2, 2 */
        {4, {120, 122, 0x21, 0x03}},                               /* 1: 1, 2, 3 */
        {9, {120, 132, 0x21, 0x43, 0x65, 0x87, 0xA9, 0xCB, 0x0C}}, /* 2: 1 to 12, 12 */
        {3, {124, 120, 0x11}},                                     /* 3: first > last */
        {4, {119, 121, 0x10, 0x01}},                               /* 4: first has no code */
        {4, {120, 122, 0x11, 0x00}},                               /* 5: last has no code */
        {4, {120, 122, 0x21, 0x12}},                               /* 6: unused nibble */
        {3, {120, 120, 0x02}},                                     /* 7: single of length 2 */
        {3, {120, 120, 0x00}},                                     /* 8: no symbol at all */
        {4, {120, 123, 0x11, 0x11}},                               /* 9: 1, 1, 1, 1 */
        {3, {120, 121, 0xF1}},                                     /* 10: 1, 15 */
    };
    replace_table(path, tables[fixture->value].bytes, tables[fixture->value].byte_count);
}

#define TABLE(index) make_table, 0, 0, 0, 0, index

/* A coded field of five bits, a complete code, and a symbol of six bits. */
static void make_table_symbol(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const uint8_t table[] = {31, 32, 0x11};
    replace_table(path, table, sizeof table);
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_poke(&surgery, test_surgery_find(&surgery, TEST_LAYOUT, FLOAT) + 2, 1, 5);
    close_surgery(&surgery, path);
}

/* One chunk, three tables. */
static void make_table_count(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const uint8_t tables[] = {120, 121, 0x11, 120, 121, 0x11};
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_splice(&surgery, test_surgery_find(&surgery, TEST_CHUNK, FLOAT), 0, tables, sizeof tables);
    test_surgery_poke(&surgery, test_surgery_find(&surgery, TEST_LAYOUT, FLOAT) + 8, 4, 3);
    close_surgery(&surgery, path);
}

/* A raw object with a code table that nothing uses. */
static void make_table_without_layout(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const uint8_t table[] = {120, 121, 0x11};
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t layout = test_surgery_find(&surgery, TEST_LAYOUT, RAW);
    test_surgery_splice(&surgery, layout + CLLM_LAYOUT_RECORD_BYTES, 0, table, sizeof table);
    test_surgery_poke(&surgery, layout + 8, 4, 1);
    close_surgery(&surgery, path);
}

/* Replaces the code table of the float object by a table and palettes. */
static void make_palette(const struct fixture *fixture, const char *path)
{
    static const struct {
        uint8_t palette_count, byte_count, bytes[12];
    } cases[] = {
        {2, 12, {0, 2, 0x21, 0x02, 0, 0, 1, 0, 2, 0, 3, 0}}, /* 0: more palettes than tables */
        {1, 12, {0, 2, 0x21, 0x02, 1, 0, 1, 0, 2, 0, 3, 0}}, /* 1: of table 1 of 1 */
        {1, 12, {0, 2, 0x21, 0x02, 0, 0, 0, 1, 3, 0, 4, 1}}, /* 2: 0x100, 3, 0x104 */
        {1, 12, {0, 2, 0x21, 0x02, 0, 0, 1, 0, 3, 0, 3, 0}}, /* 3: 1, 3, 3 */
        {1, 12, {0, 3, 0x01, 0x22, 0, 0, 1, 0, 2, 0, 3, 0}}, /* 4: no symbol 1 */
        {1, 12, {1, 3, 0x21, 0x02, 0, 0, 1, 0, 2, 0, 3, 0}}, /* 5: no symbol 0 */
        {1, 10, {0, 2, 0x21, 0x02, 0, 0, 1, 0, 2, 0}},       /* 6: a value is missing */
    };
    const size_t which = fixture->value;
    replace_table(path, cases[which].bytes, cases[which].byte_count);
    struct test_surgery surgery = open_for_surgery(path);
    size_t layout = test_surgery_find(&surgery, TEST_LAYOUT, FLOAT);
    test_surgery_poke(&surgery, layout + 6, 2, cases[which].palette_count);
    close_surgery(&surgery, path);
}

#define PALETTE(index) make_palette, 0, 0, 0, 0, index

/* Two tables, of which the first gets both palettes. */
static void make_palette_twice(const struct fixture *fixture, const char *path)
{
    make_palettes(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t first = test_surgery_find(&surgery, TEST_PALETTE, 0);
    size_t count = surgery.index[test_surgery_find(&surgery, TEST_TABLE, 0) + 1] + 1u;
    test_surgery_poke(&surgery, first + 2 + 2 * count, 2, 0);
    close_surgery(&surgery, path);
}

/* An object without elements. */
static void make_palette_without_layout(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_poke(&surgery, test_surgery_find(&surgery, TEST_LAYOUT, RAW) + 6, 2, 1);
    close_surgery(&surgery, path);
}

/* ----------------------------------------------------------------------------------------------------------------- chunks */

/* alpha gets 191 bytes (and a dtype that does not mind), which is no whole number of 16-bit elements. */
static void make_float_odd(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    poke_tensor(path, 0, 15, 1, 2, 0, "UNKNOWN");
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_poke(&surgery, test_surgery_find(&surgery, TEST_DATA, FLOAT), 8, 191);
    test_surgery_poke(&surgery, test_surgery_find(&surgery, TEST_FILE, 0), 8, 6 + 191 + 16);
    close_surgery(&surgery, path);
}

/* The float chunk of the base takes table 0; given another form, it may not. */
static void make_planes_table(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, TEST_CHUNK, FLOAT);
    test_surgery_poke(&surgery, at + 4, 1, CLLM_FORM_PLANES);
    test_surgery_poke(&surgery, at + 6, 2, 1);
    close_surgery(&surgery, path);
}

static void make_planes_odd(const struct fixture *fixture, const char *path)
{
    make_float_odd(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, TEST_CHUNK, FLOAT);
    test_surgery_poke(&surgery, at + 4, 1, CLLM_FORM_PLANES);
    close_surgery(&surgery, path);
}

static void make_payload_hole(const struct fixture *fixture, const char *path)
{
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t byte_count = surgery.payload_bytes + (size_t)fixture->value;
    surgery.payload = realloc(surgery.payload, byte_count);
    TEST_REQUIRE(surgery.payload != NULL, NULL);
    memset(surgery.payload + surgery.payload_bytes, 0, (size_t)fixture->value);
    surgery.payload_bytes = byte_count;
    close_surgery(&surgery, path);
}

/* Overwrites bytes of the first chunk of an object and recomputes its checksum, if `index` is not 0. */
static void make_stored_poke(const struct fixture *fixture, const char *path)
{
    uint32_t stored_bytes, object = fixture->record;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_chunk(&surgery, object, &stored_bytes) + fixture->field;
    for (unsigned k = 0; k < fixture->width; k++) surgery.payload[at + k] = (uint8_t)(fixture->value >> 8 * k);
    if (fixture->index) test_surgery_rechecksum(&surgery, object);
    close_surgery(&surgery, path);
}

#define STORED(object, field, width, value) make_stored_poke, (enum test_record)object, 1, field, width, value
#define STORED_UNCHECKED(object, field, width, value) make_stored_poke, (enum test_record)object, 0, field, width, value

static void make_unknown_form(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_find(&surgery, TEST_CHUNK, ZSTD);
    test_surgery_poke(&surgery, at + 4, 1, 200);
    test_surgery_poke(&surgery, at + 6, 2, 7);
    close_surgery(&surgery, path);
}

static void make_gap(const struct fixture *fixture, const char *path)
{
    make_page_aligned(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    surgery.payload[CLLM_PAGE_ALIGNMENT - 1] = 1;
    close_surgery(&surgery, path);
}

static void replace_zstd_chunk(const char *path, const void *bytes, size_t byte_count)
{
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_replace_chunk(&surgery, ZSTD, bytes, byte_count);
    close_surgery(&surgery, path);
}

/* A good frame of `value` bytes of text, where 140 are due; `field` zero bytes follow it. */
static void make_frame_of(const struct fixture *fixture, const char *path)
{
    char content[300], frame[128];
    struct cllm_compressor *compressor;
    memset(content, 'x', sizeof content);
    memset(frame, 0, sizeof frame);
    TEST_REQUIRE(cllm_compressor_create(&compressor, NULL) == CLLM_OK, NULL);
    size_t frame_bytes = cllm_compress(compressor, content, (size_t)fixture->value, 3, frame, 100);
    TEST_REQUIRE(frame_bytes > 0, NULL);
    if (fixture->width) { /* the same frame again */
        memcpy(frame + frame_bytes, frame, frame_bytes);
        frame_bytes *= 2;
    }
    cllm_compressor_destroy(compressor);
    replace_zstd_chunk(path, frame, frame_bytes + fixture->field);
}

#define FRAME_OF(byte_count) make_frame_of, 0, 0, 0, 0, byte_count
#define FRAME_OF_THEN_ZEROS(byte_count, zeros) make_frame_of, 0, 0, zeros, 0, byte_count
#define FRAME_OF_TWICE(byte_count) make_frame_of, 0, 0, 0, 1, byte_count

/* Frames by hand (RFC 8878): single segment, content size 140, one block, if not said otherwise. */
static void make_frame_by_hand(const struct fixture *fixture, const char *path)
{
    static const struct {
        uint8_t byte_count, bytes[16];
    } frames[] = {
        {12, {0x28, 0xB5, 0x2F, 0xFD, 0x20, 140, 0x63, 0x04, 0x00, 'x', 0, 0}}, /* 0: two bytes of zeros after an RLE block */
        {9, {0x28, 0xB5, 0x2F, 0xFD, 0x20, 140, 0x63, 0x04, 0x00}},             /* 1: the RLE block's byte is missing */
        {11, {0x28, 0xB5, 0x2F, 0xFD, 0x21, 0x07, 140, 0x63, 0x04, 0x00, 'x'}}, /* 2: wants dictionary 7 */
        {12, {0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 'a', 'b', 'c', 'd'}},         /* 3: skippable */
        {10, {0x28, 0xB5, 0x2F, 0xFD, 0x20, 140, 0x07, 0x00, 0x00, 'x'}},       /* 4: block of the reserved type */
        {10, {'n', 'o', ' ', 'f', 'r', 'a', 'm', 'e', '!', '!'}},               /* 5 */
        {10, {0x28, 0xB5, 0x2F, 0xFD, 0x28, 140, 0x63, 0x04, 0x00, 'x'}},       /* 6: reserved bit of the descriptor */
        {13, {0x27, 0xB5, 0x2F, 0xFD, 0x20, 140, 0x80, 0x00, 140, 'x', 0xC0, 0, 0}},  /* 7: the format of zstd 0.7 */
        {14, {0x28, 0xB5, 0x2F, 0xFD, 0x24, 140, 0x63, 0x04, 0x00, 'x', 0, 0, 0, 0}}, /* 8: content checksum */
        {10, {0x28, 0xB5, 0x2F, 0xFD, 0x20, 141, 0x63, 0x04, 0x00, 'x'}},             /* 9: content size */
        {10, {0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA9, 0x63, 0x04, 0x00, 'x'}},            /* 10: a window of 2^31 + 2^28, no size */
    };
    replace_zstd_chunk(path, frames[fixture->value].bytes, frames[fixture->value].byte_count);
}

#define FRAME_BY_HAND(index) make_frame_by_hand, 0, 0, 0, 0, index

/* ----------------------------------------------------------------------------------------------------------- float chunks */

/* The stored float chunk of the base: 96 plane bytes; base, width, unused bits (4 bytes); lengths of two segments; code words. */
enum { PLANES = 96, HEAD = PLANES + CLLM_FLOAT_HEADER_BYTES };

struct float_chunk {
    uint8_t bytes[256];
    uint32_t byte_count;
};

static struct float_chunk load_float_chunk(const char *path)
{
    struct float_chunk chunk = {.byte_count = 0};
    make_base(NULL, path);
    struct test_surgery surgery = open_for_surgery(path);
    size_t at = test_surgery_chunk(&surgery, FLOAT, &chunk.byte_count);
    memcpy(chunk.bytes, surgery.payload + at, chunk.byte_count);
    close_surgery(&surgery, path);
    return chunk;
}

static void store_float_chunk(const struct float_chunk *chunk, const char *path)
{
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_replace_chunk(&surgery, FLOAT, chunk->bytes, chunk->byte_count);
    close_surgery(&surgery, path);
}

/* Removes (value 1) or adds (value 0, a byte of zeros) at the end of the stream, or cuts the chunk to `field` bytes. */
static void make_float_length(const struct fixture *fixture, const char *path)
{
    struct float_chunk chunk = load_float_chunk(path);
    if (fixture->field) chunk.byte_count = (uint32_t)fixture->field;
    else if (fixture->value) chunk.byte_count--;
    else chunk.bytes[chunk.byte_count++] = 0;
    store_float_chunk(&chunk, path);
}

#define FLOAT_CUT_TO(byte_count) make_float_length, 0, 0, byte_count, 0, 0
#define FLOAT_LESS make_float_length, 0, 0, 0, 0, 1
#define FLOAT_MORE make_float_length, 0, 0, 0, 0, 0

/* Adds `value` to the byte at `field`. */
static void make_float_add(const struct fixture *fixture, const char *path)
{
    struct float_chunk chunk = load_float_chunk(path);
    chunk.bytes[fixture->field] = (uint8_t)(chunk.bytes[fixture->field] + fixture->value);
    store_float_chunk(&chunk, path);
}

#define FLOAT_ADD(field, value) make_float_add, 0, 0, field, 1, value

/* Moves the border of the first two segments: their stated lengths still have the right sum. */
static void make_float_border(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct float_chunk chunk = load_float_chunk(path);
    unsigned width = chunk.bytes[PLANES + 2];
    unsigned first = cllm_bits_at(chunk.bytes + HEAD, 0, width), second = cllm_bits_at(chunk.bytes + HEAD, width, width);
    TEST_REQUIRE(first != second && 2 * width <= 8, NULL);
    chunk.bytes[HEAD] = (uint8_t)(second | first << width);
    store_float_chunk(&chunk, path);
}

static void make_float_unused_bits(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct float_chunk chunk = load_float_chunk(path);
    TEST_REQUIRE(chunk.bytes[PLANES + 3] > 0, NULL);
    chunk.bytes[chunk.byte_count - 1] |= 0x80;
    store_float_chunk(&chunk, path);
}

/* Another first code word of the first segment's first half (value 0), or of the last segment's second half: of another length,
 * while the segment's stays. */
static void make_float_halves(const struct fixture *fixture, const char *path)
{
    struct float_chunk chunk = load_float_chunk(path);
    unsigned unused_bits = chunk.bytes[PLANES + 3];
    if (fixture->value) chunk.bytes[chunk.byte_count - 1] ^= (uint8_t)(0x80 >> unused_bits);
    else chunk.bytes[HEAD + 1] ^= 1;
    store_float_chunk(&chunk, path);
}

/* No code words at all, but unused bits, for a table of a single symbol. */
static void make_float_single_unused(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const uint8_t table[] = {120, 120, 0x01};
    struct float_chunk chunk = load_float_chunk(path);
    replace_table(path, table, sizeof table);
    memset(chunk.bytes + PLANES, 0, CLLM_FLOAT_HEADER_BYTES);
    chunk.bytes[PLANES + 3] = 1;
    chunk.byte_count = HEAD;
    store_float_chunk(&chunk, path);
}

/* Stated lengths as large as they can be: they lead far beyond the stream. */
static void make_float_far(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    struct float_chunk chunk = load_float_chunk(path);
    memmove(chunk.bytes + HEAD + 4, chunk.bytes + HEAD + 1, chunk.byte_count - HEAD - 1);
    memset(chunk.bytes + PLANES, 0xFF, 2);
    chunk.bytes[PLANES + 2] = 16;
    memset(chunk.bytes + HEAD, 0xFF, 4);
    chunk.byte_count += 3;
    store_float_chunk(&chunk, path);
}

/* The table has one symbol, so that no code words are due; the stream has a byte. */
static void make_float_single(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    static const uint8_t table[] = {120, 120, 0x01};
    struct float_chunk chunk = load_float_chunk(path);
    replace_table(path, table, sizeof table);
    memset(chunk.bytes + PLANES, 0, 5);
    chunk.byte_count = HEAD + 1;
    store_float_chunk(&chunk, path);
}

/* A bit of a plane: what decodes is well-formed and wrong. */
static void make_other_content(const struct fixture *fixture, const char *path)
{
    struct float_chunk chunk = load_float_chunk(path);
    chunk.bytes[fixture->field] ^= 1;
    store_float_chunk(&chunk, path);
}

/* ----------------------------------------------------------------------------------------------------------------- sparse */

/* Data objects of good-sparse, those of one chunk with their number of elements. */
enum { SIGNED = 0, FEW = 2, FEW_ELEMENTS = 301, RARE = 3, RARE_ELEMENTS = 400 };

/* Up to SPARSE_CUT a field of the head: which one and what it becomes are the fixture's field and value. */
enum sparse_fault {
    SPARSE_HEAD,
    SPARSE_CUT,
    SPARSE_SIGNS,
    SPARSE_MASKS_CUT,
    SPARSE_BEYOND,
    SPARSE_MORE,
    SPARSE_FEWER,
    SPARSE_LEVELS_FEWER,
    SPARSE_LEVELS_BEYOND,
};

/* The symbols of the masks of FEW or RARE. */
static uint32_t mask_symbols(uint32_t object, uint8_t *symbols)
{
    const uint32_t count = object == FEW ? FEW_ELEMENTS : RARE_ELEMENTS;
    uint8_t masks[64] = {0};
    for (uint32_t i = 0; i < count; i++) masks[i / 8] |= (uint8_t)((object == FEW ? i % 7 == 0 : i % 150 == 3) << i % 8);
    return cllm_sparse_mask_symbols(masks, cllm_mask_bytes(count), symbols);
}

/* Masks that the code has words for, as many as before; what is meant is in what the fixtures say. */
static void spoil_masks(enum sparse_fault fault, uint8_t *symbols)
{
    switch (fault) {
    case SPARSE_BEYOND: symbols[2] = 0, symbols[37] = 0x20; break; /* element 301 for 21 */
    case SPARSE_MORE: symbols[1] = 0x81; break;
    case SPARSE_FEWER: symbols[1] = 0; break;
    case SPARSE_LEVELS_FEWER: symbols[2] = 0; break;
    case SPARSE_LEVELS_BEYOND: symbols[2] = 0, symbols[6] = 8; break; /* mask 51 of 50 for 19 */
    default: break;
    }
}

/* The masks of an object of one chunk, by their code table in the index. */
static size_t encode_masks(const struct test_surgery *surgery, uint32_t object, const uint8_t *symbols, uint32_t symbol_count,
                           uint8_t *out)
{
    const struct cllm_layout layout = test_layout_bf16(object == FEW ? 6 : 7), of_masks = cllm_layout_of_masks(&layout);
    struct cllm_cursor cursor = cllm_cursor_over(surgery->index, surgery->index_bytes);
    struct cllm_table table;
    struct cllm_float_code code;
    cursor.offset = test_surgery_find(surgery, TEST_TABLE, object);
    for (int k = 0; k < 2; k++) TEST_REQUIRE(cllm_table_parse(&cursor, &table, NULL) == CLLM_OK, NULL);
    for (uint32_t i = 0; i < symbol_count; i++) TEST_REQUIRE(table.length[symbols[i]] != 0, NULL);
    cllm_float_code_init(&code, &table);
    return cllm_float_encode(&of_masks, &code, symbols, symbol_count, out);
}

static void make_sparse_fault(const struct fixture *fixture, const char *path)
{
    const enum sparse_fault fault = (enum sparse_fault)fixture->index;
    const uint32_t object = fault == SPARSE_SIGNS ? SIGNED : fault >= SPARSE_LEVELS_FEWER || fixture->width ? RARE : FEW;
    uint8_t bytes[2048], symbols[64] = {0};
    uint32_t stored_bytes;
    make_sparse(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    const uint8_t *stored = surgery.payload + test_surgery_chunk(&surgery, object, &stored_bytes);
    TEST_REQUIRE(stored_bytes < sizeof bytes / 2, NULL);
    memcpy(bytes, stored, stored_bytes);
    const size_t signs = CLLM_SPARSE_HEAD_BYTES + cllm_load_le32(stored), masks = signs + cllm_load_le32(stored + 4);
    if (fault == SPARSE_HEAD) cllm_store_le32(bytes + fixture->field, (uint32_t)fixture->value);
    if (fault == SPARSE_CUT) stored_bytes = CLLM_SPARSE_HEAD_BYTES - 1;
    if (fault == SPARSE_MASKS_CUT) stored_bytes--;
    if (fault == SPARSE_SIGNS) {
        TEST_REQUIRE(masks > signs && (512 - cllm_load_le32(stored + 12)) % 8 != 0, NULL);
        bytes[masks - 1] |= 0x80;
    }
    if (fault >= SPARSE_BEYOND) {
        const uint32_t symbol_count = mask_symbols(object, symbols);
        TEST_REQUIRE(symbol_count == cllm_load_le32(stored + 8), NULL);
        TEST_REQUIRE(masks + encode_masks(&surgery, object, symbols, symbol_count, bytes + masks) == stored_bytes, NULL);
        TEST_REQUIRE(memcmp(bytes, stored, stored_bytes) == 0, NULL);
        spoil_masks(fault, symbols);
        stored_bytes = (uint32_t)(masks + encode_masks(&surgery, object, symbols, symbol_count, bytes + masks));
    }
    test_surgery_replace_chunk(&surgery, object, bytes, stored_bytes);
    close_surgery(&surgery, path);
}

#define SPARSE_FAULT(fault) make_sparse_fault, 0, fault, 0, 0, 0
#define SPARSE_POKE(field, value) make_sparse_fault, 0, SPARSE_HEAD, field, 0, value
#define SPARSE_POKE_LEVELS(field, value) make_sparse_fault, 0, SPARSE_HEAD, field, 1, value

/* Pokes one field of the first chunk record of an object of the container at `path`. */
static void poke_chunk_record(const struct fixture *fixture, const char *path, uint32_t object)
{
    struct test_surgery surgery = open_for_surgery(path);
    const size_t at = test_surgery_find(&surgery, TEST_CHUNK, object) + fixture->field;
    test_surgery_poke(&surgery, at, fixture->width, fixture->value);
    close_surgery(&surgery, path);
}

/* One field of the chunk record of FEW, which has two code tables. */
static void make_sparse_record(const struct fixture *fixture, const char *path)
{
    make_sparse(fixture, path);
    poke_chunk_record(fixture, path, FEW);
}

#define SPARSE_RECORD(field, width, value) make_sparse_record, 0, 0, field, width, value

/* Two chunks, so that there are four code tables: the first and the third have a palette. */
static void make_sparse_mask_palette(const struct fixture *fixture, const char *path)
{
    (void)fixture;
    uint8_t few[2 * 601] = {0};
    for (size_t i = 0; i < sizeof few / 2; i += 5) cllm_store_le16(few + 2 * i, (uint16_t)(0x8100 | i % 3));
    struct test_container *container = test_container_create(path);
    const struct test_data data = {
        .bytes = few, .byte_count = sizeof few, .layout = test_layout_bf16(6), .form = CLLM_FORM_SPARSE, .palette = true};
    const uint32_t part = test_container_data(container, &data);
    test_container_file(container, "few.bin", &part, 1);
    test_container_finish(container);
    struct test_surgery surgery = open_for_surgery(path);
    test_surgery_poke(&surgery, test_surgery_find(&surgery, TEST_CHUNK, 0) + 5, 1, 2);
    close_surgery(&surgery, path);
}

/* ----------------------------------------------------------------------------------------------------------------- scaled */

/* Data objects of good-scaled; their first chunks. */
enum { SCALED_HALVES = 0, SCALED_OTHERS = 1, SCALED_CUT = 1000 };

/* Pokes the first chunk of object `index`: in its head at `field`, from SCALED_CUT on in its scales; or cuts it to `value` bytes
 * where the width is 0. */
static void make_scaled_fault(const struct fixture *fixture, const char *path)
{
    const uint32_t object = (uint32_t)fixture->index;
    uint8_t bytes[2048];
    uint32_t stored_bytes;
    make_scaled(fixture, path);
    struct test_surgery surgery = open_for_surgery(path);
    const uint8_t *stored = surgery.payload + test_surgery_chunk(&surgery, object, &stored_bytes);
    TEST_REQUIRE(stored_bytes < sizeof bytes, NULL);
    memcpy(bytes, stored, stored_bytes);
    const size_t scales = CLLM_SCALED_HEAD_BYTES + cllm_load_le32(stored);
    const size_t at = fixture->field < SCALED_CUT ? fixture->field : scales + fixture->field - SCALED_CUT;
    for (unsigned i = 0; i < fixture->width; i++) bytes[at + i] = (uint8_t)(fixture->value >> 8 * i);
    if (fixture->width == 0) stored_bytes = fixture->value ? (uint32_t)fixture->value : stored_bytes - 1;
    test_surgery_replace_chunk(&surgery, object, bytes, stored_bytes);
    close_surgery(&surgery, path);
}

#define SCALED_POKE(field, width, value) make_scaled_fault, 0, SCALED_HALVES, field, width, value
#define SCALED_POKE_F16(field, width, value) make_scaled_fault, 0, SCALED_OTHERS, field, width, value

/* One field of the chunk record of the first object. */
static void make_scaled_record(const struct fixture *fixture, const char *path)
{
    make_scaled(fixture, path);
    poke_chunk_record(fixture, path, SCALED_HALVES);
}

#define SCALED_RECORD(field, width, value) make_scaled_record, 0, 0, field, width, value

/* -------------------------------------------------------------------------------------------------------------- the table */

#define O(n, r, w, ...)                                                                                                          \
    {                                                                                                                            \
        .name = n, .result = r, .step = "open", .what = w, .make = __VA_ARGS__                                                   \
    }
#define V(n, r, w, ...)                                                                                                          \
    {                                                                                                                            \
        .name = n, .result = r, .step = "verify", .what = w, .make = __VA_ARGS__                                                 \
    }
#define TENSOR_SHAPE(name_and_dtype_bytes) (CLLM_TENSOR_RECORD_BYTES + (name_and_dtype_bytes))

const struct fixture bad_fixtures[] = {
    /* Header */
    O("bad-empty", "format", "No byte at all.", FIRST(0)),
    O("bad-magic", "format", "The first byte is another.", FLIP(0, 0x80)),
    O("bad-magic-text-mode", "format", "CR LF in the magic became LF, as a transfer in text mode does.", make_text_mode),
    O("bad-magic-only", "corrupt", "Only the magic.", FIRST(8)),
    O("bad-header-cut", "corrupt", "Ends within the header.", FIRST(63)),
    O("bad-header-only", "corrupt", "Only the header.", FIRST(64)),
    O("bad-header-checksum", "damaged", "A reserved bit of the header is set and its checksum is not recomputed.", FLIP(40, 1)),
    O("bad-header-version-damaged", "damaged", "Another format version, checksum not recomputed: damaged, not unsupported.",
      FLIP(8, 1)),
    O("bad-header-feature-damaged", "damaged", "An incompatible feature bit, checksum not recomputed.", FLIP(24, 1)),
    O("bad-header-of-another", "corrupt", "A good header of another container: the footer repeats a different checksum.",
      make_other_header),
    O("unsupported-version", "unsupported", "Format version 1, everything else right.", HEADER(CLLM_HEADER_VERSION_OFFSET, 4, 1)),
    O("unsupported-feature", "unsupported", "An unknown incompatible feature bit.",
      HEADER(CLLM_HEADER_INCOMPATIBLE_OFFSET, 8, UINT64_C(1) << 40)),
    /* Footer */
    O("bad-cut-by-one", "corrupt", "The last byte is missing.", WITHOUT_LAST(1)),
    O("bad-cut-footer", "corrupt", "The footer is missing.", WITHOUT_LAST(104)),
    O("bad-cut-half", "corrupt", "Ends in the middle of the payload.", FIRST(200)),
    O("bad-appended-byte", "corrupt", "A byte follows the footer.", make_appended, 0, 0, 0, 0, 0),
    O("bad-appended-container", "corrupt", "A second container follows the first.", make_twice),
    O("bad-footer-magic", "corrupt", "A bit of the footer's magic is flipped.", FLIP_BEFORE_END(8, 1)),
    O("bad-footer-checksum", "damaged", "A bit of the footer is flipped.", FLIP_BEFORE_END(80, 1)),
    O("bad-footer-index-offset", "corrupt", "The index does not end where the footer starts.",
      FOOTER_ADD(CLLM_FOOTER_INDEX_OFFSET, 16)),
    O("bad-footer-index-offset-low", "corrupt", "The index starts within the header (and ends where it should).",
      make_index_in_header),
    O("bad-footer-index-overflow", "corrupt", "Offset plus size of the index is beyond 2^64.",
      FOOTER(CLLM_FOOTER_INDEX_STORED_BYTES, UINT64_MAX)),
    O("bad-footer-index-smaller", "corrupt", "The index decodes to less than is stored.",
      FOOTER_ADD(CLLM_FOOTER_INDEX_BYTES, UINT64_MAX)),
    O("bad-footer-index-huge", "limit", "The index claims to decode to more than 2^30 bytes.",
      FOOTER(CLLM_FOOTER_INDEX_BYTES, (UINT64_C(1) << 30) + 1)),
    O("bad-footer-index-ratio", "limit", "The index claims to decode to more than 64 times its size.", make_index_ratio),
    O("bad-footer-manifest", "corrupt", "The manifest is larger than the index.", FOOTER(CLLM_FOOTER_MANIFEST_BYTES, UINT64_MAX)),
    O("bad-footer-length", "corrupt", "The footer states another length of the container.",
      FOOTER_ADD(CLLM_FOOTER_CONTAINER_BYTES, 1)),
    O("bad-footer-root", "damaged", "The footer's root digest is not that of the manifest.", FOOTER_ADD(CLLM_FOOTER_ROOT, 1)),
    O("bad-footer-header-checksum", "corrupt", "The footer repeats another header checksum.",
      FOOTER_ADD(CLLM_FOOTER_HEADER_CHECKSUM, 1)),
    /* Index as a whole */
    O("bad-index-checksum", "damaged", "A bit of the stored index is flipped.", FLIP_BEFORE_END(105, 1)),
    O("bad-index-frame", "corrupt", "The index's zstd frame is broken.", FRAME_DAMAGED),
    O("bad-index-frame-short", "corrupt", "The index's zstd frame decodes to less than the footer says.", FRAME_SHORT_OF(1)),
    O("bad-index-frame-long", "corrupt", "The index's zstd frame decodes to more than the footer says.",
      FRAME_SHORT_OF((uint64_t)-1)),
    O("bad-index-frame-trailing", "corrupt", "A byte follows the index's zstd frame.", FRAME_THEN(1)),
    O("bad-index-cut", "corrupt", "The index ends within the last chunk record.", make_index_cut),
    O("bad-index-layout-trailing", "corrupt", "A byte follows the last layout record.", make_layout_trailing),
    O("bad-index-manifest-trailing", "corrupt", "A byte follows the last file record.", make_manifest_trailing),
    /* Manifest */
    O("bad-data-count-huge", "limit", "2^32-1 data objects.", POKE(TEST_COUNTS, 0, 0, 4, UINT32_MAX)),
    O("bad-tensor-count-huge", "limit", "2^32-1 tensors.", POKE(TEST_COUNTS, 0, 4, 4, UINT32_MAX)),
    O("bad-file-count-huge", "limit", "2^32-1 files.", POKE(TEST_COUNTS, 0, 8, 4, UINT32_MAX)),
    O("bad-data-count-more", "corrupt", "More data objects than the index has bytes for.", POKE(TEST_COUNTS, 0, 0, 4, 1000000)),
    O("bad-tensor-count-more", "corrupt", "One tensor more than there are: a file record is no tensor record.",
      POKE(TEST_COUNTS, 0, 4, 4, 3)),
    O("bad-file-count-less", "corrupt", "One file less than there are.", POKE(TEST_COUNTS, 0, 8, 4, 1)),
    O("bad-file-count-zero", "corrupt", "No file.", POKE(TEST_COUNTS, 0, 8, 4, 0)),
    O("bad-data-bytes-huge", "corrupt", "A data object of 2^63 bytes.", POKE(TEST_DATA, 0, 0, 8, UINT64_C(1) << 63)),
    O("bad-data-bytes-chunks", "corrupt", "A data object of 2^62 bytes in chunks of 1024: more chunks than an index can hold.",
      POKE(TEST_DATA, 0, 0, 8, UINT64_C(1) << 62)),
    O("bad-data-chunk-zero", "corrupt", "Chunk size 0.", POKE(TEST_DATA, 0, 8, 4, 0)),
    O("bad-data-chunk-odd", "corrupt", "A chunk size that is no power of two.", POKE(TEST_DATA, 0, 8, 4, 1536)),
    O("bad-data-chunk-small", "corrupt", "Chunk size 512.", POKE(TEST_DATA, 0, 8, 4, 512)),
    O("bad-data-chunk-large", "corrupt", "Chunk size 2^25.", POKE(TEST_DATA, 0, 8, 4, 1u << 25)),
    O("bad-data-unused", "corrupt", "A data object that is part of no file.", make_data_unused),
    O("bad-tensor-data", "corrupt", "A tensor of a data object that does not exist.", POKE(TEST_TENSOR, 0, 0, 4, 4)),
    O("bad-tensor-file", "corrupt", "A tensor in a file that does not exist.", POKE(TEST_TENSOR, 1, 4, 4, 2)),
    O("bad-tensor-file-order", "corrupt", "Tensors that are not in the order of their files.", POKE(TEST_TENSOR, 0, 4, 4, 1)),
    O("bad-tensor-not-in-file", "corrupt", "A tensor whose data object is no part of its file.", POKE(TEST_TENSOR, 1, 4, 4, 1)),
    O("bad-tensor-bits", "corrupt", "A BF16 tensor of 32 bits an element.", POKE(TEST_TENSOR, 0, 8, 4, 32)),
    O("bad-tensor-bits-zero", "corrupt", "An unknown dtype of 0 bits an element.", make_element_bits, 0, 0, 0, 0, 0),
    O("bad-tensor-bits-large", "corrupt", "An unknown dtype of 65536 bits an element.", make_element_bits, 0, 0, 0, 0, 65536),
    O("bad-tensor-dtype-empty", "corrupt", "A dtype without a name.", make_dtype_empty),
    O("bad-tensor-dtype-space", "corrupt", "A dtype with a space in its name.", make_dtype_space),
    O("bad-tensor-dtype-long", "corrupt", "A dtype name of 32 bytes.", make_dtype_long),
    O("bad-tensor-rank", "corrupt", "A tensor of rank 65.", make_rank),
    O("bad-tensor-shape", "corrupt", "A shape that needs other bytes than the data object has.",
      POKE(TEST_TENSOR, 0, TENSOR_SHAPE(9), 8, 9)),
    O("bad-tensor-shape-overflow", "corrupt", "A shape whose product is beyond 2^64.", make_shape_overflow),
    O("bad-tensor-shape-wrap", "corrupt", "A shape whose size is right modulo 2^64.", make_shape_wrap),
    O("bad-tensor-shape-zero", "corrupt", "An empty tensor whose first extent is beyond 2^64 bits (made from good-empty-tensor).",
      make_shape_zero),
    O("bad-tensor-half-byte", "corrupt", "An F4 tensor that ends in the middle of a byte.", make_misaligned, 0, 0, 0, 0, 31),
    O("bad-tensor-name-twice", "corrupt", "Two tensors of one file with one name.", make_tensor_twice),
    O("bad-tensor-name-long", "corrupt", "A tensor name that is longer than the rest of the manifest.",
      POKE(TEST_TENSOR, 1, 12, 2, 65535)),
    O("bad-file-size", "corrupt", "A file whose size is not the sum of its parts.", POKE(TEST_FILE, 0, 0, 8, 213)),
    O("bad-file-part", "corrupt", "A part that does not exist.", POKE(TEST_FILE, 1, CLLM_FILE_RECORD_BYTES + 9, 4, 4)),
    O("bad-file-parts-many", "corrupt", "2^32-1 parts.", POKE(TEST_FILE, 1, 40, 4, UINT32_MAX)),
    O("bad-file-name-empty", "corrupt", "A file without a name.", FILE_NAME(0)),
    O("bad-file-name-dotdot", "corrupt", "A file called `..`.", FILE_NAME(1)),
    O("bad-file-name-up", "corrupt", "A file name that leads out of the directory.", FILE_NAME(2)),
    O("bad-file-name-dot", "corrupt", "A file called `.`.", FILE_NAME(3)),
    O("bad-file-name-dot-inside", "corrupt", "A file name with a component `.`.", FILE_NAME(4)),
    O("bad-file-name-absolute", "corrupt", "An absolute file name.", FILE_NAME(5)),
    O("bad-file-name-slashes", "corrupt", "A file name that ends in two slashes.", FILE_NAME(6)),
    O("bad-file-name-directory", "corrupt", "A file name that ends in a slash.", FILE_NAME(7)),
    O("bad-file-name-empty-component", "corrupt", "A file name with an empty component.", FILE_NAME(8)),
    O("bad-file-name-backslash", "corrupt", "A file name with a backslash and two dots.", FILE_NAME(9)),
    O("bad-file-name-newline", "corrupt", "A file name with a line feed.", FILE_NAME(10)),
    O("bad-file-name-delete", "corrupt", "A file name with the byte 7F.", FILE_NAME(11)),
    O("bad-file-name-twice", "corrupt", "Two files with one name.", FILE_NAME(12)),
    O("bad-file-name-folder", "corrupt", "A file called `model.bin` and one called `model.bin/x`.", FILE_NAME(14)),
    O("bad-file-name-drive", "corrupt", "A file name with a drive letter and a backslash.", FILE_NAME(13)),
    O("bad-file-name-zero", "corrupt", "A file name with a zero byte.", make_file_name_zero),
    O("bad-file-name-component", "corrupt", "A file name with a component of 256 bytes.", make_file_name_long, 0, 0, 0, 0, 256),
    O("bad-file-name-long", "corrupt", "A file name of 4097 bytes.", make_file_name_long, 0, 0, 0, 0, 4097),
    /* Layout */
    O("bad-layout-element-bytes", "corrupt", "Elements of 3 bytes.", POKE(TEST_LAYOUT, FLOAT, 0, 1, 3)),
    O("bad-layout-shift", "corrupt", "A coded field that ends above the element.", POKE(TEST_LAYOUT, FLOAT, 1, 1, 9)),
    O("bad-layout-bits-zero", "corrupt", "A coded field of 0 bits.", POKE(TEST_LAYOUT, FLOAT, 2, 1, 0)),
    O("bad-layout-bits-large", "corrupt", "A coded field of 9 bits.", POKE(TEST_LAYOUT, FLOAT, 2, 1, 9)),
    O("bad-layout-zero-bits", "corrupt", "More zero bits than there are below the coded field.",
      POKE(TEST_LAYOUT, FLOAT, 3, 1, 8)),
    O("bad-layout-segment-small", "corrupt", "Segments of 2^4 symbols.", POKE(TEST_LAYOUT, FLOAT, 4, 1, 4)),
    O("bad-layout-segment-large", "corrupt", "Segments of 2^13 symbols.", POKE(TEST_LAYOUT, FLOAT, 4, 1, 13)),
    O("bad-layout-reserved", "corrupt", "A reserved byte of a layout record that is not 0.", POKE(TEST_LAYOUT, FLOAT, 7, 1, 1)),
    O("bad-layout-without-element", "corrupt", "No float form, but a field of it.", POKE(TEST_LAYOUT, RAW, 4, 1, 7)),
    O("bad-table-count", "corrupt", "Three code tables for one chunk.", make_table_count),
    O("bad-table-count-huge", "corrupt", "2^32-1 code tables.", POKE(TEST_LAYOUT, FLOAT, 8, 4, UINT32_MAX)),
    O("bad-table-without-layout", "corrupt", "A code table in a data object without float form.", make_table_without_layout),
    O("bad-table-over-full", "corrupt", "Code lengths 1, 2, 2, 2: more code words than there are.", TABLE(0)),
    O("bad-table-far-over-full", "corrupt", "Code lengths 1, 1, 1, 1.", TABLE(9)),
    O("bad-table-under-full", "corrupt", "Code lengths 1, 2, 3: a bit pattern without a meaning.", TABLE(1)),
    O("bad-table-too-long", "corrupt", "A complete code with lengths of 12.", TABLE(2)),
    O("bad-table-length-15", "corrupt", "Code lengths 1 and 15.", TABLE(10)),
    O("bad-table-order", "corrupt", "The last symbol is below the first.", TABLE(3)),
    O("bad-table-first", "corrupt", "The first symbol has no code word.", TABLE(4)),
    O("bad-table-last", "corrupt", "The last symbol has no code word.", TABLE(5)),
    O("bad-table-nibble", "corrupt", "The unused last nibble is not 0.", TABLE(6)),
    O("bad-table-single-length", "corrupt", "A single symbol of length 2.", TABLE(7)),
    O("bad-table-empty", "corrupt", "A single symbol of length 0.", TABLE(8)),
    O("bad-table-symbol", "corrupt", "A symbol that does not fit in the coded field.", make_table_symbol),
    O("bad-palette-count", "corrupt", "More palettes than code tables.", PALETTE(0)),
    O("bad-palette-table", "corrupt", "The palette of a code table that does not exist.", PALETTE(1)),
    O("bad-palette-order", "corrupt", "Values that do not ascend as numbers, although their first bytes do.", PALETTE(2)),
    O("bad-palette-equal", "corrupt", "A value twice.", PALETTE(3)),
    O("bad-palette-gap", "corrupt", "The symbols of a palette are 0, 2 and 3.", PALETTE(4)),
    O("bad-palette-first", "corrupt", "The symbols of a palette are 1 to 3.", PALETTE(5)),
    O("bad-palette-cut", "corrupt", "Two values for three symbols, so that a chunk record is taken for the rest.", PALETTE(6)),
    O("bad-palette-twice", "corrupt", "Two palettes for one code table.", make_palette_twice),
    O("bad-palette-without-layout", "corrupt", "A palette in a data object without float form.", make_palette_without_layout),
    O("bad-chunk-stored-zero", "corrupt", "A chunk without stored bytes.", POKE(TEST_CHUNK, ZSTD, 0, 4, 0)),
    O("bad-chunk-stored-larger", "corrupt", "A chunk that is larger stored than decoded.", POKE(TEST_CHUNK, ZSTD, 0, 4, 141)),
    O("bad-chunk-raw-size", "corrupt", "A raw chunk whose stored size is not its decoded size.", POKE(TEST_CHUNK, RAW, 0, 4, 5)),
    O("bad-chunk-raw-mask-table", "corrupt", "A raw chunk with a code table for masks.", POKE(TEST_CHUNK, RAW, 5, 1, 1)),
    O("bad-chunk-float-mask-table", "corrupt", "A float chunk with a code table for masks.", POKE(TEST_CHUNK, FLOAT, 5, 1, 1)),
    O("bad-chunk-table", "corrupt", "A float chunk with a code table that does not exist.", POKE(TEST_CHUNK, FLOAT, 6, 2, 1)),
    O("bad-chunk-table-raw", "corrupt", "A raw chunk with a code table.", POKE(TEST_CHUNK, RAW, 6, 2, 1)),
    O("bad-chunk-float-without-layout", "corrupt", "A float chunk in a data object without float form.",
      POKE(TEST_CHUNK, RAW, 4, 1, CLLM_FORM_FLOAT)),
    O("bad-chunk-float-odd", "corrupt", "A float chunk that is no whole number of elements.", make_float_odd),
    O("bad-chunk-planes-without-layout", "corrupt", "A planes chunk in a data object without float form.",
      POKE(TEST_CHUNK, ZSTD, 4, 1, CLLM_FORM_PLANES)),
    O("bad-chunk-planes-odd", "corrupt", "A planes chunk that is no whole number of elements.", make_planes_odd),
    O("bad-chunk-planes-table", "corrupt", "A planes chunk with a code table.", make_planes_table),
    O("bad-payload-end", "corrupt", "The chunks end before the index starts.", POKE(TEST_CHUNK, ZSTD, 0, 4, 1)),
    O("bad-payload-hole", "corrupt", "Sixteen bytes of zeros between the last chunk and the index.", make_payload_hole, 0, 0, 0,
      0, 16),
    /* Chunks */
    V("unsupported-form", "unsupported", "A chunk of form 199.", POKE(TEST_CHUNK, ZSTD, 4, 1, 199)),
    V("unsupported-form-table", "unsupported",
      "A chunk of form 200 with a code table: what that means, only a newer reader knows.", make_unknown_form),
    O("bad-chunk-sparse-table", "corrupt", "A sparse chunk with a code table that does not exist.", SPARSE_RECORD(6, 2, 2)),
    O("bad-chunk-sparse-mask-table", "corrupt", "A sparse chunk whose masks have a code table that does not exist.",
      SPARSE_RECORD(5, 1, 2)),
    O("bad-chunk-sparse-no-mask-table", "corrupt", "A sparse chunk whose masks have the code table of its elements.",
      SPARSE_RECORD(5, 1, 0)),
    O("bad-chunk-sparse-mask-palette", "corrupt", "A sparse chunk whose masks have a code table with a palette.",
      make_sparse_mask_palette),
    O("bad-chunk-sparse-without-layout", "corrupt", "A sparse chunk in a data object without float form.",
      POKE(TEST_CHUNK, RAW, 4, 1, CLLM_FORM_SPARSE)),
    V("bad-sparse-cut", "corrupt", "A sparse chunk that ends within its head.", SPARSE_FAULT(SPARSE_CUT)),
    V("bad-sparse-float-bytes", "corrupt", "The float part of a sparse chunk ends behind it.", SPARSE_POKE(0, UINT32_MAX)),
    V("bad-sparse-float-none", "corrupt", "The float part of a sparse chunk has no bytes.", SPARSE_POKE(0, 0)),
    V("bad-sparse-sign-bytes", "corrupt", "One byte of signs for 258 zeros.", SPARSE_POKE(4, 1)),
    V("bad-sparse-mask-count", "corrupt", "Symbols for 39 masks of 301 elements.", SPARSE_POKE(8, 39)),
    V("bad-sparse-mask-count-levels", "corrupt", "Masks of masks, and no mask.", SPARSE_POKE_LEVELS(8, 7)),
    V("bad-sparse-none", "corrupt", "A sparse chunk of which no element is present.", SPARSE_POKE(12, 0)),
    V("bad-sparse-all", "corrupt", "A sparse chunk of which every element is present.", SPARSE_POKE(12, FEW_ELEMENTS)),
    V("bad-sparse-signs", "corrupt", "A sign beyond the last zero.", SPARSE_FAULT(SPARSE_SIGNS)),
    V("bad-sparse-masks-cut", "corrupt", "The last byte of a sparse chunk's masks is missing.", SPARSE_FAULT(SPARSE_MASKS_CUT)),
    V("bad-sparse-beyond", "corrupt", "An element beyond the last one is present.", SPARSE_FAULT(SPARSE_BEYOND)),
    V("bad-sparse-more", "corrupt", "One element more is present than the head says.", SPARSE_FAULT(SPARSE_MORE)),
    V("bad-sparse-fewer", "corrupt", "One element fewer is present than the head says.", SPARSE_FAULT(SPARSE_FEWER)),
    V("bad-sparse-levels-fewer", "corrupt", "Masks of masks for one mask fewer than there are.",
      SPARSE_FAULT(SPARSE_LEVELS_FEWER)),
    V("bad-sparse-levels-beyond", "corrupt", "A mask beyond the last one.", SPARSE_FAULT(SPARSE_LEVELS_BEYOND)),
    O("bad-chunk-scaled-table", "corrupt", "A scaled chunk with a code table that does not exist.", SCALED_RECORD(6, 2, 3)),
    O("bad-chunk-scaled-step", "corrupt", "A scaled chunk with a step to a code table of masks.", SCALED_RECORD(5, 1, 1)),
    O("bad-chunk-scaled-no-palette", "corrupt", "A scaled chunk whose code table has no palette.",
      POKE(TEST_CHUNK, FLOAT, 4, 1, CLLM_FORM_SCALED)),
    O("bad-chunk-scaled-without-layout", "corrupt", "A scaled chunk in a data object without float form.",
      POKE(TEST_CHUNK, RAW, 4, 1, CLLM_FORM_SCALED)),
    V("bad-scaled-cut", "corrupt", "A scaled chunk that ends within its head.", SCALED_POKE(0, 0, CLLM_SCALED_HEAD_BYTES - 1)),
    V("bad-scaled-scales-cut", "corrupt", "The last byte of a scaled chunk's scales is missing.", SCALED_POKE(0, 0, 0)),
    V("bad-scaled-float-bytes", "corrupt", "The float part of a scaled chunk ends behind it.", SCALED_POKE(0, 4, UINT32_MAX)),
    V("bad-scaled-float-none", "corrupt", "The float part of a scaled chunk has no bytes.", SCALED_POKE(0, 4, 0)),
    V("bad-scaled-type-none", "corrupt", "A scaled chunk of element type 0.", SCALED_POKE(4, 1, 0)),
    V("bad-scaled-type-wide", "corrupt", "A scaled chunk of F32 in elements of two bytes.", SCALED_POKE(4, 1, 3)),
    V("bad-scaled-type-unknown", "corrupt", "A scaled chunk of element type 4.", SCALED_POKE(4, 1, 4)),
    V("bad-scaled-scale-type", "corrupt", "A scaled chunk of scale type 2.", SCALED_POKE(5, 1, 2)),
    V("bad-scaled-groups-small", "corrupt", "Groups of 2^4 elements.", SCALED_POKE(6, 1, 4)),
    V("bad-scaled-groups-large", "corrupt", "Groups of 2^16 elements.", SCALED_POKE(6, 1, 16)),
    V("bad-scaled-groups-other", "corrupt", "Groups so large that there are more scales than they need.", SCALED_POKE(6, 1, 7)),
    V("bad-scaled-reserved", "corrupt", "The last byte of a scaled chunk's head is not 0.", SCALED_POKE(15, 1, 1)),
    V("bad-scaled-negative", "corrupt", "A scale that is -0.", SCALED_POKE(SCALED_CUT + 4, 4, 0x80000000)),
    V("bad-scaled-infinite", "corrupt", "A scale that is infinite.", SCALED_POKE(SCALED_CUT + 4, 4, 0x7F800000)),
    V("bad-scaled-nan", "corrupt", "A scale that is NaN.", SCALED_POKE(SCALED_CUT, 4, 0x7FC00000)),
    V("bad-scaled-f16-negative", "corrupt", "A scale of binary16 that is negative.", SCALED_POKE_F16(SCALED_CUT, 2, 0x8001)),
    V("bad-scaled-f16-infinite", "corrupt", "A scale of binary16 that is infinite.", SCALED_POKE_F16(SCALED_CUT, 2, 0x7C00)),
    V("bad-planes-no-frame", "corrupt", "A planes chunk that is no zstd frame.", POKE(TEST_CHUNK, FLOAT, 4, 1, CLLM_FORM_PLANES)),
    V("bad-chunk-checksum", "damaged", "A bit of a stored chunk is flipped.", STORED_UNCHECKED(RAW, 0, 1, 'H')),
    V("bad-chunk-padding", "corrupt", "Padding after a chunk that is not 0, checksum recomputed.", STORED(RAW, 15, 1, 1)),
    V("bad-chunk-padding-damaged", "damaged", "Padding after a chunk that is not 0, checksum not recomputed.",
      STORED_UNCHECKED(RAW, 15, 1, 1)),
    V("bad-gap", "corrupt", "A byte before a page-aligned data object that is not 0 (made from good-page-aligned).", make_gap),
    V("bad-zstd-no-frame", "corrupt", "A zstd chunk that is no frame.", FRAME_BY_HAND(5)),
    V("bad-zstd-fewer", "corrupt", "A frame that decodes to one byte less than it should.", FRAME_OF(139)),
    V("bad-zstd-more", "corrupt", "A frame that decodes to one byte more than it should.", FRAME_OF(141)),
    V("bad-zstd-nothing", "corrupt", "A frame that decodes to nothing.", FRAME_OF(0)),
    V("bad-zstd-trailing", "corrupt", "Zero bytes after the frame.", FRAME_OF_THEN_ZEROS(140, 2)),
    V("bad-zstd-two", "corrupt", "Two frames of half the content each.", FRAME_OF_TWICE(70)),
    V("bad-zstd-trailing-by-hand", "corrupt", "Zero bytes after a frame of one block.", FRAME_BY_HAND(0)),
    V("bad-zstd-cut", "corrupt", "A frame that ends within its block.", FRAME_BY_HAND(1)),
    V("bad-zstd-dictionary", "corrupt", "A frame that needs a dictionary.", FRAME_BY_HAND(2)),
    V("bad-zstd-skippable", "corrupt", "A skippable frame.", FRAME_BY_HAND(3)),
    V("bad-zstd-legacy", "corrupt", "A good frame in the format of zstd 0.7, which RFC 8878 does not have.", FRAME_BY_HAND(7)),
    V("bad-zstd-content-checksum", "corrupt", "A frame with a content checksum that is wrong.", FRAME_BY_HAND(8)),
    V("bad-zstd-content-size", "corrupt", "A frame with a content size that is wrong.", FRAME_BY_HAND(9)),
    V("bad-zstd-window", "corrupt", "A frame with a window above 2^31 bytes.", FRAME_BY_HAND(10)),
    V("bad-zstd-block-type", "corrupt", "A frame with a block of the reserved type.", FRAME_BY_HAND(4)),
    V("bad-zstd-reserved-bit", "corrupt", "A frame with the reserved bit of its header set.", FRAME_BY_HAND(6)),
    V("bad-float-planes", "corrupt", "A float chunk that ends within its planes.", FLOAT_CUT_TO(90)),
    V("bad-float-head", "corrupt", "A float chunk that ends after its planes.", FLOAT_CUT_TO(PLANES)),
    V("bad-float-lengths", "corrupt", "A float chunk that ends before the lengths of its segments.", FLOAT_CUT_TO(HEAD)),
    V("bad-float-no-stream", "corrupt", "A float chunk without code words.", FLOAT_CUT_TO(HEAD + 1)),
    V("bad-float-stream-short", "corrupt", "The last byte of the code words is missing.", FLOAT_LESS),
    V("bad-float-stream-long", "corrupt", "A byte of zeros after the code words.", FLOAT_MORE),
    V("bad-float-unused-bits", "corrupt", "A bit after the last code word that is not 0.", make_float_unused_bits),
    V("bad-float-width", "corrupt", "Segment lengths of 17 bits.", STORED(FLOAT, PLANES + 2, 1, 17)),
    V("bad-float-unused-count", "corrupt", "Eight unused bits.", STORED(FLOAT, PLANES + 3, 1, 8)),
    V("bad-float-unused-fewer", "corrupt", "One unused bit less is stated than there are.", FLOAT_ADD(PLANES + 3, 0xFF)),
    V("bad-float-unused-empty", "corrupt", "No code words, but an unused bit.", make_float_single_unused),
    V("bad-float-halves-first", "corrupt", "Another code word in a first half: it does not meet the second one.",
      make_float_halves, 0, 0, 0, 0, 0),
    V("bad-float-halves-second", "corrupt", "Another code word in a second half: it does not meet the first one.",
      make_float_halves, 0, 0, 0, 0, 1),
    V("bad-float-base", "corrupt", "The base of the segment lengths is one too large.", FLOAT_ADD(PLANES, 1)),
    V("bad-float-border", "corrupt", "The lengths of the first two segments are exchanged.", make_float_border),
    V("bad-float-far", "corrupt", "Segment lengths that lead far beyond the code words.", make_float_far),
    V("bad-float-single", "corrupt", "Code words although the table has a single symbol.", make_float_single),
    /* Content */
    V("bad-data-root", "damaged", "The root digest of a data object is another.", POKE(TEST_DATA, FLOAT, 12, 1, 0)),
    V("bad-file-digest", "damaged", "The SHA-256 of a file is another.", POKE(TEST_FILE, 0, 8, 2, 0)),
    V("bad-content-raw", "damaged", "A raw chunk holds other bytes, its checksum is right.", STORED(RAW, 0, 1, 'H')),
    V("bad-content-float", "damaged", "A float chunk decodes to other elements, its checksum is right.", make_other_content, 0, 0,
      0, 1, 0),
    V("bad-content-zstd", "damaged", "A zstd chunk decodes to other bytes, its checksum is right.", FRAME_OF(140)),
};
const size_t bad_fixture_count = sizeof bad_fixtures / sizeof bad_fixtures[0];

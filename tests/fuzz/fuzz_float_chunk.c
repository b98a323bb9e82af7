/* fuzz_float_chunk.c - a float chunk (FORMAT.md 9): every tier of instructions gives the same elements or the same message,
 * within its buffers, which have exactly their size. Input: u8 which layout (128 and more: the table has a palette), u16 how many
 * elements, u8 how long a segment, a code table, the values of its palette, the stored chunk. */
#include "codec.h"
#include "decode_float.h"
#include "reader.h"

#include <stdlib.h>

#define ELEMENTS_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static const struct cllm_layout layouts[] = {
    {2, 7, 8, 0, 0}, {2, 8, 8, 0, 0},   {4, 23, 8, 0, 0}, {8, 55, 8, 0, 0},  {1, 0, 7, 0, 0}, {1, 0, 8, 0, 0},
    {1, 3, 4, 0, 0}, {4, 23, 8, 16, 0}, {2, 10, 5, 3, 0}, {8, 55, 8, 29, 0}, {1, 7, 1, 7, 0}, {8, 63, 1, 0, 0},
};

static enum cllm_status decode(enum cllm_cpu_tier tier, const struct cllm_layout *layout, const struct cllm_table *table,
                               const uint8_t *stored, uint32_t stored_bytes, uint32_t decoded_bytes, uint8_t *out,
                               struct cllm_error *err)
{
    static struct cllm_float_lookup lookup;
    struct cllm_float_view view;
    enum cllm_status status = cllm_float_view_parse(layout, decoded_bytes, stored, stored_bytes, &view, err);
    if (status) return status;
    uint8_t *scratch = malloc(cllm_float_scratch_bytes(layout, &view));
    if (!scratch) abort();
    uint8_t palette[256 * 8] = {0};
    if (table->value_bytes) {
        memcpy(palette, table->values, cllm_table_values_bytes(table));
        view.palette = palette;
    }
    cllm_float_lookup_build(&lookup, table);
    status = cllm_float_decoder(tier)(&lookup, layout, &view, scratch, out, err);
    free(scratch);
    return status;
}

/* What stands behind the stored bytes differs from tier to tier: it must not matter. */
static void compare_tiers(const struct cllm_layout *layout, const struct cllm_table *table, const uint8_t *bytes,
                          uint32_t stored_bytes, uint32_t decoded_bytes)
{
    uint8_t *expected = malloc(decoded_bytes), *out = malloc(decoded_bytes),
            *stored = malloc(stored_bytes + CLLM_READ_SLACK_BYTES);
    struct cllm_error err = {0}, other = {0};
    enum cllm_status status = CLLM_OK;
    if (!expected || !out || !stored) abort();
    memcpy(stored, bytes, stored_bytes);
    for (enum cllm_cpu_tier tier = CLLM_CPU_PORTABLE; tier <= cllm_cpu_tier(); tier++) {
        bool first = tier == CLLM_CPU_PORTABLE;
        memset(stored + stored_bytes, first ? 0 : 0xA5, CLLM_READ_SLACK_BYTES);
        enum cllm_status found =
            decode(tier, layout, table, stored, stored_bytes, decoded_bytes, first ? expected : out, first ? &err : &other);
        if (first) status = found;
        else if (found != status || (status ? strcmp(err.message, other.message) : memcmp(expected, out, decoded_bytes))) abort();
    }
    free(expected);
    free(out);
    free(stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    struct cllm_cursor cursor = cllm_cursor_over(bytes, byte_count);
    struct cllm_table table;
    struct cllm_error err;
    unsigned first = cllm_cursor_u8(&cursor), which = first % 128 % (sizeof layouts / sizeof layouts[0]);
    uint32_t element_count = 1 + cllm_cursor_u16(&cursor) % ELEMENTS_MAX;
    struct cllm_layout layout = layouts[which];
    layout.segment_log2 =
        (uint8_t)(CLLM_SEGMENT_LOG2_MIN + cllm_cursor_u8(&cursor) % (CLLM_SEGMENT_LOG2_MAX - CLLM_SEGMENT_LOG2_MIN + 1));
    if (cllm_table_parse(&cursor, &table, &err)) return 0;
    if (first >= 128) {
        if (cllm_palette_parse(&cursor, layout.element_bytes, &table, &err)) return 0;
        layout = cllm_layout_of_palette(&layout);
    }
    size_t stored_bytes = cllm_cursor_left(&cursor);
    const uint8_t *stored = cllm_cursor_take(&cursor, stored_bytes);
    if (stored && stored_bytes <= 1u << 20)
        compare_tiers(&layout, &table, stored, (uint32_t)stored_bytes, element_count * layout.element_bytes);
    return 0;
}

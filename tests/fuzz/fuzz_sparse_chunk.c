/* fuzz_sparse_chunk.c - a sparse chunk (FORMAT.md 12): decoded or corrupt, within its buffers, which have exactly their size, and
 * whatever stands behind the stored bytes. Input: u8 which layout (128 and more: the elements' table has a palette), u16 how many
 * elements, u8 how long a segment, the code table of the elements, the values of its palette, that of the masks, the stored
 * chunk. */
#include "decode_twice.h"
#include "reader.h"

#define ELEMENTS_MAX 8192u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static const struct cllm_layout layouts[] = {
    {2, 7, 8, 0, 0}, {4, 23, 8, 0, 0}, {8, 55, 8, 0, 0}, {1, 0, 7, 0, 0}, {2, 8, 8, 0, 0}, {4, 23, 8, 16, 0},
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    struct cllm_cursor cursor = cllm_cursor_over(bytes, byte_count);
    struct cllm_table tables[2];
    struct cllm_error err;
    unsigned first = cllm_cursor_u8(&cursor);
    struct cllm_data data = {
        .layout = layouts[first % 128 % (sizeof layouts / sizeof layouts[0])], .tables = tables, .table_count = 2};
    uint32_t element_count = 1 + cllm_cursor_u16(&cursor) % ELEMENTS_MAX;
    data.layout.segment_log2 =
        (uint8_t)(CLLM_SEGMENT_LOG2_MIN + cllm_cursor_u8(&cursor) % (CLLM_SEGMENT_LOG2_MAX - CLLM_SEGMENT_LOG2_MIN + 1));
    if (cllm_table_parse(&cursor, &tables[0], &err)) return 0;
    if (first >= 128 && cllm_palette_parse(&cursor, data.layout.element_bytes, &tables[0], &err)) return 0;
    if (cllm_table_parse(&cursor, &tables[1], &err)) return 0;
    size_t stored_bytes = cllm_cursor_left(&cursor);
    const uint8_t *stored = cllm_cursor_take(&cursor, stored_bytes);
    const struct cllm_chunk chunk = {.form = CLLM_FORM_SPARSE,
                                     .mask_table_index = 1,
                                     .stored_bytes = (uint32_t)stored_bytes,
                                     .decoded_bytes = element_count * data.layout.element_bytes};
    if (stored && stored_bytes > 0 && stored_bytes <= chunk.decoded_bytes) decode_twice(&data, &chunk, stored);
    return 0;
}

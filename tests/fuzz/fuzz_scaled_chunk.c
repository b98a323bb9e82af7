/* fuzz_scaled_chunk.c - a scaled chunk (FORMAT.md 12): decoded or corrupt, within its buffers, which have exactly their size, and
 * whatever stands behind the stored bytes. Input: u8 whether elements have four bytes, u16 how many, u8 how long a segment, the
 * code table, the values of its palette, the stored chunk. */
#include "decode_twice.h"
#include "reader.h"

#define ELEMENTS_MAX 8192u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    struct cllm_cursor cursor = cllm_cursor_over(bytes, byte_count);
    struct cllm_table table;
    struct cllm_error err;
    const bool is_wide = cllm_cursor_u8(&cursor) % 2;
    struct cllm_data data = {
        .layout = is_wide ? (struct cllm_layout){4, 23, 8, 0, 0} : (struct cllm_layout){2, 7, 8, 0, 0},
        .tables = &table,
        .table_count = 1,
    };
    const uint32_t element_count = 1 + cllm_cursor_u16(&cursor) % ELEMENTS_MAX;
    data.layout.segment_log2 =
        (uint8_t)(CLLM_SEGMENT_LOG2_MIN + cllm_cursor_u8(&cursor) % (CLLM_SEGMENT_LOG2_MAX - CLLM_SEGMENT_LOG2_MIN + 1));
    if (cllm_table_parse(&cursor, &table, &err)) return 0;
    if (cllm_palette_parse(&cursor, data.layout.element_bytes, &table, &err)) return 0;
    const size_t stored_bytes = cllm_cursor_left(&cursor);
    const uint8_t *stored = cllm_cursor_take(&cursor, stored_bytes);
    const struct cllm_chunk chunk = {.form = CLLM_FORM_SCALED,
                                     .stored_bytes = (uint32_t)stored_bytes,
                                     .decoded_bytes = element_count * data.layout.element_bytes};
    if (stored && stored_bytes > 0 && stored_bytes <= chunk.decoded_bytes) decode_twice(&data, &chunk, stored);
    return 0;
}

/* index.c - parse and serialise manifest and layout, in the order of FORMAT.md 6. */
#include "index.h"

#include "bytes.h"
#include "codec.h"
#include "digest.h"
#include "layout.h"

#include <stdlib.h>

struct parser {
    struct cllm_cursor cursor;
    struct cllm_index *index;
    struct cllm_index_storage *storage;
    size_t string_used;
    size_t extent_used;
    size_t part_used;
    uint32_t table_used;
    size_t value_bytes_used;
    struct cllm_error *err;
};

static enum cllm_status fail_corrupt(struct parser *parser, const char *what, uint64_t found, const char *relation,
                                     uint64_t expected)
{
    return cllm_fail(parser->err, CLLM_E_CORRUPT, parser->cursor.offset, "index byte %zu: %s is %llu, %s %llu",
                     parser->cursor.offset, what, (unsigned long long)found, relation, (unsigned long long)expected);
}

static enum cllm_status fail_short(struct parser *parser, const char *where)
{
    return cllm_fail(parser->err, CLLM_E_CORRUPT, parser->cursor.offset, "index ends within %s, at byte %zu of %zu", where,
                     parser->cursor.offset, parser->cursor.byte_count);
}

uint64_t cllm_data_start(uint64_t previous_end, uint64_t decoded_bytes)
{
    uint64_t alignment = decoded_bytes >= CLLM_PAGE_ALIGNED_MIN_BYTES ? CLLM_PAGE_ALIGNMENT : CLLM_CHUNK_ALIGNMENT;
    return (previous_end + alignment - 1) & ~(alignment - 1);
}

bool cllm_file_name_is_safe(const char *name, size_t name_bytes)
{
    if (name_bytes == 0 || name_bytes > CLLM_FILE_NAME_BYTES_MAX) return false;
    size_t start = 0;
    for (size_t i = 0; i <= name_bytes; i++) {
        unsigned char c = i < name_bytes ? (unsigned char)name[i] : '/';
        if (c < 0x20 || c == 0x7F || c == '\\') return false;
        if (c != '/') continue;
        size_t length = i - start;
        bool dots = (length == 1 && name[start] == '.') || (length == 2 && name[start] == '.' && name[start + 1] == '.');
        if (length == 0 || length > 255 || dots) return false;
        start = i + 1;
    }
    return true;
}

/* ---------------------------------------------------------------------------------------------------------- manifest */

static enum cllm_status parse_counts(struct parser *parser)
{
    struct cllm_index *index = parser->index;
    struct cllm_cursor *cursor = &parser->cursor;
    index->data_count = cllm_cursor_u32(cursor);
    index->tensor_count = cllm_cursor_u32(cursor);
    index->file_count = cllm_cursor_u32(cursor);
    if (cursor->overrun) return fail_short(parser, "its counts");
    if (index->data_count > CLLM_DATA_COUNT_MAX || index->tensor_count > CLLM_TENSOR_COUNT_MAX ||
        index->file_count > CLLM_FILE_COUNT_MAX) {
        return cllm_fail(parser->err, CLLM_E_LIMIT, cursor->offset,
                         "index claims %u data objects, %u tensors, %u files; limits are %u, %u, %u", index->data_count,
                         index->tensor_count, index->file_count, CLLM_DATA_COUNT_MAX, CLLM_TENSOR_COUNT_MAX, CLLM_FILE_COUNT_MAX);
    }
    if (index->file_count == 0) return fail_corrupt(parser, "number of files", 0, "expected at least", 1);
    uint64_t least = (uint64_t)index->data_count * CLLM_DATA_RECORD_BYTES +
                     (uint64_t)index->tensor_count * CLLM_TENSOR_RECORD_BYTES +
                     (uint64_t)index->file_count * CLLM_FILE_RECORD_BYTES;
    if (least > cllm_cursor_left(cursor)) {
        return fail_corrupt(parser, "least size of the records claimed", least, "bytes left", cllm_cursor_left(cursor));
    }
    return CLLM_OK;
}

/* Everything whose size follows from the counts and the manifest's length, both checked by now. */
static enum cllm_status allocate_manifest(struct parser *parser, size_t manifest_bytes)
{
    const struct cllm_index *index = parser->index;
    struct cllm_index_storage *storage = parser->storage;
    storage->data = calloc(index->data_count + 1, sizeof *storage->data);
    storage->tensors = calloc(index->tensor_count + 1, sizeof *storage->tensors);
    storage->files = calloc(index->file_count, sizeof *storage->files);
    storage->extents = calloc(manifest_bytes / sizeof(uint64_t) + 1, sizeof(uint64_t));
    storage->parts = calloc(manifest_bytes / sizeof(uint32_t) + 1, sizeof(uint32_t));
    storage->strings = calloc(manifest_bytes + 2 * (size_t)index->tensor_count + index->file_count, 1);
    if (!storage->data || !storage->tensors || !storage->files || !storage->extents || !storage->parts || !storage->strings) {
        return cllm_fail(parser->err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for an index of %zu bytes", manifest_bytes);
    }
    return CLLM_OK;
}

static enum cllm_status parse_data(struct parser *parser, struct cllm_data *data)
{
    struct cllm_cursor *cursor = &parser->cursor;
    data->decoded_bytes = cllm_cursor_u64(cursor);
    data->chunk_bytes = cllm_cursor_u32(cursor);
    const uint8_t *digest = cllm_cursor_take(cursor, CLLM_DIGEST_BYTES);
    if (!digest) return fail_short(parser, "a data record");
    memcpy(data->digest, digest, CLLM_DIGEST_BYTES);
    if (data->decoded_bytes > CLLM_CONTAINER_BYTES_MAX) {
        return fail_corrupt(parser, "size of a data object", data->decoded_bytes, "at most", CLLM_CONTAINER_BYTES_MAX);
    }
    bool power_of_two = (data->chunk_bytes & (data->chunk_bytes - 1)) == 0;
    if (!power_of_two || data->chunk_bytes < 1u << CLLM_CHUNK_LOG2_MIN || data->chunk_bytes > 1u << CLLM_CHUNK_LOG2_MAX) {
        return fail_corrupt(parser, "chunk size", data->chunk_bytes, "expected a power of two from 1024 to",
                            1u << CLLM_CHUNK_LOG2_MAX);
    }
    uint64_t chunk_count = data->decoded_bytes / data->chunk_bytes + (data->decoded_bytes % data->chunk_bytes != 0);
    if (chunk_count > CLLM_INDEX_BYTES_MAX / CLLM_CHUNK_RECORD_BYTES) {
        return fail_corrupt(parser, "number of chunks", chunk_count, "at most", CLLM_INDEX_BYTES_MAX / CLLM_CHUNK_RECORD_BYTES);
    }
    data->chunk_count = (uint32_t)chunk_count;
    return CLLM_OK;
}

/* Copies a string out of the manifest and terminates it; the space was reserved by allocate_manifest. */
static const char *take_string(struct parser *parser, size_t byte_count)
{
    const uint8_t *bytes = cllm_cursor_take(&parser->cursor, byte_count);
    if (!bytes) return NULL;
    char *string = parser->storage->strings + parser->string_used;
    memcpy(string, bytes, byte_count);
    parser->string_used += byte_count + 1;
    return string;
}

static bool dtype_is_printable(const char *dtype, size_t byte_count)
{
    if (byte_count == 0 || byte_count > CLLM_DTYPE_BYTES_MAX) return false;
    for (size_t i = 0; i < byte_count; i++) {
        if (dtype[i] <= ' ' || dtype[i] > '~') return false;
    }
    return true;
}

/* A dtype that this build does not know is not checked against its size: it may pack elements in a way of its own. */
static enum cllm_status check_tensor_size(struct parser *parser, const struct cllm_tensor *tensor, const char *dtype_name)
{
    const struct cllm_dtype *dtype = cllm_dtype_find(dtype_name, strlen(dtype_name));
    if (!dtype) return CLLM_OK;
    if (tensor->element_bits != dtype->element_bits) {
        return fail_corrupt(parser, "bits per element", tensor->element_bits, "dtype has", dtype->element_bits);
    }
    uint64_t bits = tensor->element_bits;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (!cllm_mul(bits, tensor->shape[i], &bits)) {
            return fail_corrupt(parser, "extent", tensor->shape[i], "with which the size overflows at dimension", i);
        }
    }
    uint64_t found = parser->index->data[tensor->data_index].decoded_bytes;
    if (bits % 8 != 0 || bits / 8 != found) {
        return fail_corrupt(parser, "size of a tensor's data", found, "its dtype and shape give", bits / 8);
    }
    return CLLM_OK;
}

static enum cllm_status parse_tensor(struct parser *parser, struct cllm_tensor *tensor, uint32_t previous_file)
{
    struct cllm_cursor *cursor = &parser->cursor;
    tensor->data_index = cllm_cursor_u32(cursor);
    tensor->file_index = cllm_cursor_u32(cursor);
    tensor->element_bits = cllm_cursor_u32(cursor);
    tensor->name_bytes = cllm_cursor_u16(cursor);
    unsigned dtype_bytes = cllm_cursor_u8(cursor);
    tensor->rank = cllm_cursor_u8(cursor);
    const char *name = take_string(parser, tensor->name_bytes);
    const char *dtype = name ? take_string(parser, dtype_bytes) : NULL;
    if (!dtype) return fail_short(parser, "a tensor record");
    tensor->name = name;
    tensor->dtype = dtype;
    if (tensor->data_index >= parser->index->data_count) {
        return fail_corrupt(parser, "a tensor's data object", tensor->data_index, "number of data objects is",
                            parser->index->data_count);
    }
    if (tensor->file_index >= parser->index->file_count || tensor->file_index < previous_file) {
        return fail_corrupt(parser, "a tensor's file", tensor->file_index, "expected ascending and below",
                            parser->index->file_count);
    }
    if (!dtype_is_printable(dtype, dtype_bytes)) {
        return fail_corrupt(parser, "length of a dtype that is not all printable ASCII", dtype_bytes, "at most",
                            CLLM_DTYPE_BYTES_MAX);
    }
    if (tensor->element_bits == 0 || tensor->element_bits > CLLM_ELEMENT_BITS_MAX) {
        return fail_corrupt(parser, "bits per element", tensor->element_bits, "expected 1 to", CLLM_ELEMENT_BITS_MAX);
    }
    if (tensor->rank > CLLM_RANK_MAX) return fail_corrupt(parser, "rank", tensor->rank, "at most", CLLM_RANK_MAX);
    const uint8_t *extents = cllm_cursor_take(cursor, 8 * (size_t)tensor->rank);
    if (!extents) return fail_short(parser, "a tensor's shape");
    uint64_t *shape = parser->storage->extents + parser->extent_used;
    for (uint32_t i = 0; i < tensor->rank; i++) shape[i] = cllm_load_le64(extents + 8 * (size_t)i);
    parser->extent_used += tensor->rank;
    tensor->shape = tensor->rank ? shape : NULL;
    return check_tensor_size(parser, tensor, dtype);
}

static enum cllm_status parse_file(struct parser *parser, struct cllm_file *file)
{
    struct cllm_cursor *cursor = &parser->cursor;
    file->bytes = cllm_cursor_u64(cursor);
    const uint8_t *digest = cllm_cursor_take(cursor, CLLM_DIGEST_BYTES);
    file->part_count = cllm_cursor_u32(cursor);
    file->name_bytes = cllm_cursor_u16(cursor);
    const char *name = take_string(parser, file->name_bytes);
    if (!name || (uint64_t)file->part_count * 4 > cllm_cursor_left(cursor)) return fail_short(parser, "a file record");
    memcpy(file->sha256, digest, CLLM_DIGEST_BYTES);
    file->name = name;
    if (!cllm_file_name_is_safe(name, file->name_bytes)) {
        char printable[200];
        return cllm_fail(parser->err, CLLM_E_CORRUPT, cursor->offset,
                         "file name \"%s\" is not a plain relative path (no \"..\", no empty part, no control character)",
                         cllm_escape(name, file->name_bytes, printable, sizeof printable));
    }
    uint32_t *parts = parser->storage->parts + parser->part_used;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < file->part_count; i++) {
        parts[i] = cllm_cursor_u32(cursor);
        if (parts[i] >= parser->index->data_count) {
            return fail_corrupt(parser, "a file's part", parts[i], "number of data objects is", parser->index->data_count);
        }
        if (!cllm_add(sum, parser->index->data[parts[i]].decoded_bytes, &sum)) {
            return fail_corrupt(parser, "size of a file", file->bytes, "its parts have more than", UINT64_MAX);
        }
    }
    if (sum != file->bytes) return fail_corrupt(parser, "size of a file", file->bytes, "its parts have", sum);
    parser->part_used += file->part_count;
    file->parts = parts;
    return CLLM_OK;
}

/* Orders by file, then by name. */
static int compare_tensors(const void *a, const void *b)
{
    const struct cllm_tensor *x = *(const struct cllm_tensor *const *)a, *y = *(const struct cllm_tensor *const *)b;
    if (x->file_index != y->file_index) return x->file_index < y->file_index ? -1 : 1;
    int order = memcmp(x->name, y->name, x->name_bytes < y->name_bytes ? x->name_bytes : y->name_bytes);
    if (order != 0) return order;
    return x->name_bytes < y->name_bytes ? -1 : x->name_bytes > y->name_bytes;
}

static enum cllm_status check_tensor_names(struct parser *parser)
{
    uint32_t count = parser->index->tensor_count;
    const struct cllm_tensor **sorted = calloc((size_t)count + 1, sizeof *sorted);
    if (!sorted) return cllm_fail(parser->err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory to compare %u names", count);
    for (uint32_t i = 0; i < count; i++) sorted[i] = &parser->index->tensors[i];
    qsort(sorted, count, sizeof *sorted, compare_tensors);
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 1; i < count && !status; i++) {
        if (compare_tensors(&sorted[i - 1], &sorted[i]) != 0) continue;
        char printable[200];
        status = cllm_fail(parser->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "two tensors of one file are called \"%s\"",
                           cllm_escape(sorted[i]->name, sorted[i]->name_bytes, printable, sizeof printable));
    }
    free(sorted);
    return status;
}

/* Orders '/' before every other byte, so that what is in a folder follows the folder's name directly. */
static int compare_files(const void *a, const void *b)
{
    const struct cllm_file *x = *(const struct cllm_file *const *)a, *y = *(const struct cllm_file *const *)b;
    uint32_t i = 0;
    while (i < x->name_bytes && i < y->name_bytes && x->name[i] == y->name[i]) i++;
    if (i == x->name_bytes || i == y->name_bytes) return x->name_bytes < y->name_bytes ? -1 : x->name_bytes > y->name_bytes;
    if (x->name[i] == '/' || y->name[i] == '/') return x->name[i] == '/' ? -1 : 1;
    return (unsigned char)x->name[i] < (unsigned char)y->name[i] ? -1 : 1;
}

/* Neither "a" twice nor "a" and "a/b" can be restored. */
static enum cllm_status check_file_names(struct parser *parser)
{
    uint32_t count = parser->index->file_count;
    const struct cllm_file **sorted = calloc(count, sizeof *sorted);
    if (!sorted) return cllm_fail(parser->err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory to compare %u names", count);
    for (uint32_t i = 0; i < count; i++) sorted[i] = &parser->index->files[i];
    qsort(sorted, count, sizeof *sorted, compare_files);
    enum cllm_status status = CLLM_OK;
    for (uint32_t i = 1; i < count && !status; i++) {
        const struct cllm_file *first = sorted[i - 1], *next = sorted[i];
        if (next->name_bytes < first->name_bytes || memcmp(first->name, next->name, first->name_bytes) != 0) continue;
        if (next->name[first->name_bytes] != '/' && next->name_bytes != first->name_bytes) continue;
        char printable[200];
        status =
            cllm_fail(parser->err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "\"%s\" is the name of two files, or of a file and a folder",
                      cllm_escape(first->name, first->name_bytes, printable, sizeof printable));
    }
    free(sorted);
    return status;
}

/* Every data object belongs to a file, and every tensor's to the file that the tensor names. */
static enum cllm_status check_references(struct parser *parser)
{
    const struct cllm_index *index = parser->index;
    uint32_t *owner = calloc((size_t)index->data_count + 1, sizeof *owner); /* 1 + the last file seen to use it */
    if (!owner) return cllm_fail(parser->err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory to check references");
    enum cllm_status status = CLLM_OK;
    uint32_t tensor = 0;
    for (uint32_t f = 0; f < index->file_count && !status; f++) {
        for (uint32_t i = 0; i < index->files[f].part_count; i++) owner[index->files[f].parts[i]] = f + 1;
        for (; tensor < index->tensor_count && index->tensors[tensor].file_index == f && !status; tensor++) {
            if (owner[index->tensors[tensor].data_index] != f + 1) {
                status = fail_corrupt(parser, "a tensor's data object", index->tensors[tensor].data_index,
                                      "which is no part of its file, number", f);
            }
        }
    }
    for (uint32_t d = 0; d < index->data_count && !status; d++) {
        if (owner[d] == 0)
            status = fail_corrupt(parser, "a data object that no file uses", d, "number of files is", index->file_count);
    }
    free(owner);
    return status;
}

/* Whoever reads the index may add up the sizes of its files. */
static enum cllm_status check_total(struct parser *parser)
{
    const struct cllm_index *index = parser->index;
    uint64_t total = 0;
    for (uint32_t i = 0; i < index->file_count; i++) {
        if (cllm_add(total, index->files[i].bytes, &total)) continue;
        return cllm_fail(parser->err, CLLM_E_LIMIT, parser->cursor.offset,
                         "file %u of %u: all files together are more than the limit of %llu bytes", i + 1, index->file_count,
                         (unsigned long long)UINT64_MAX);
    }
    return CLLM_OK;
}

static enum cllm_status parse_manifest(struct parser *parser, size_t manifest_bytes)
{
    struct cllm_index *index = parser->index;
    struct cllm_index_storage *storage = parser->storage;
    enum cllm_status status = parse_counts(parser);
    if (!status) status = allocate_manifest(parser, manifest_bytes);
    if (status) return status;
    index->data = storage->data;
    index->tensors = storage->tensors;
    index->files = storage->files;
    for (uint32_t i = 0; i < index->data_count && !status; i++) status = parse_data(parser, &storage->data[i]);
    uint32_t file = 0;
    for (uint32_t i = 0; i < index->tensor_count && !status; i++) {
        status = parse_tensor(parser, &storage->tensors[i], file);
        file = storage->tensors[i].file_index;
    }
    for (uint32_t i = 0; i < index->file_count && !status; i++) status = parse_file(parser, &storage->files[i]);
    if (status) return status;
    if (cllm_cursor_left(&parser->cursor) != 0) {
        return fail_corrupt(parser, "bytes after the manifest's last record", cllm_cursor_left(&parser->cursor), "expected", 0);
    }
    status = check_references(parser);
    if (!status) status = check_tensor_names(parser);
    if (!status) status = check_file_names(parser);
    return status ? status : check_total(parser);
}

/* ------------------------------------------------------------------------------------------------------------ layout */

static enum cllm_status allocate_layout(struct parser *parser)
{
    const struct cllm_index *index = parser->index;
    uint64_t chunk_count = 0;
    for (uint32_t i = 0; i < index->data_count; i++) chunk_count += index->data[i].chunk_count;
    uint64_t least = chunk_count * CLLM_CHUNK_RECORD_BYTES + (uint64_t)index->data_count * CLLM_LAYOUT_RECORD_BYTES;
    if (least > cllm_cursor_left(&parser->cursor)) {
        return fail_corrupt(parser, "least size of the layout records claimed", least, "bytes left",
                            cllm_cursor_left(&parser->cursor));
    }
    /* Values are part of these bytes. A table takes 3 of them or more, and is only there for a chunk to use. */
    size_t left = cllm_cursor_left(&parser->cursor);
    uint64_t table_count = left / 3;
    if (table_count > 2 * chunk_count) table_count = 2 * chunk_count;
    if (table_count > CLLM_TABLE_TOTAL_MAX) table_count = CLLM_TABLE_TOTAL_MAX;
    parser->storage->chunks = calloc(chunk_count + 1, sizeof *parser->storage->chunks);
    parser->storage->tables = calloc(table_count + 1, sizeof *parser->storage->tables);
    parser->storage->values = malloc(left + 1);
    if (!parser->storage->chunks || !parser->storage->tables || !parser->storage->values) {
        return cllm_fail(parser->err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %llu chunks",
                         (unsigned long long)chunk_count);
    }
    return CLLM_OK;
}

/* The index's bytes go when it is parsed. There is room for as many values as the layout has bytes. */
static void keep_values(struct parser *parser, struct cllm_table *table)
{
    size_t byte_count = cllm_table_values_bytes(table);
    uint8_t *values = parser->storage->values + parser->value_bytes_used;
    memcpy(values, table->values, byte_count);
    parser->value_bytes_used += byte_count;
    table->values = values;
}

/* Values for some of the tables. */
static enum cllm_status parse_palettes(struct parser *parser, const struct cllm_data *data, struct cllm_table *tables,
                                       uint32_t palette_count)
{
    struct cllm_cursor *cursor = &parser->cursor;
    uint32_t next = 0;
    for (uint32_t i = 0; i < palette_count; i++) {
        uint32_t t = cllm_cursor_u16(cursor);
        if (cursor->overrun) return fail_short(parser, "a palette");
        if (t < next || t >= data->table_count) {
            return fail_corrupt(parser, "code table of a palette", t, "expected ascending, number of tables is",
                                data->table_count);
        }
        enum cllm_status status = cllm_palette_parse(cursor, data->layout.element_bytes, &tables[t], parser->err);
        if (status) return cllm_fail_context(parser->err, status, "index byte %zu", cursor->offset);
        keep_values(parser, &tables[t]);
        next = t + 1;
    }
    return CLLM_OK;
}

static enum cllm_status parse_tables(struct parser *parser, struct cllm_data *data, uint32_t palette_count)
{
    struct cllm_table *tables = parser->storage->tables + parser->table_used;
    struct cllm_cursor *cursor = &parser->cursor;
    data->table_count = cllm_cursor_u32(cursor);
    if (data->table_count > 2 * (uint64_t)data->chunk_count || data->table_count > CLLM_TABLE_COUNT_MAX) {
        return fail_corrupt(parser, "number of code tables", data->table_count, "at most 65535 and twice the number of chunks, ",
                            data->chunk_count);
    }
    if (palette_count > data->table_count) {
        return fail_corrupt(parser, "number of palettes", palette_count, "number of code tables is", data->table_count);
    }
    if (data->table_count > 0 && data->layout.element_bytes == 0) {
        return fail_corrupt(parser, "number of code tables without a layout", data->table_count, "expected", 0);
    }
    if (data->table_count > CLLM_TABLE_TOTAL_MAX - parser->table_used) {
        return cllm_fail(parser->err, CLLM_E_LIMIT, cursor->offset, "index holds more than %u code tables", CLLM_TABLE_TOTAL_MAX);
    }
    data->tables = tables;
    parser->table_used += data->table_count;
    for (uint32_t i = 0; i < data->table_count; i++) {
        enum cllm_status status = cllm_table_parse(cursor, &tables[i], parser->err);
        if (status) return cllm_fail_context(parser->err, status, "index byte %zu", cursor->offset);
    }
    return parse_palettes(parser, data, tables, palette_count);
}

/* The code tables that a chunk of elements names: that of the elements, whose symbols fit in the coded field or are those of a
 * palette, and in a sparse chunk that of the masks, so many tables behind it. */
static enum cllm_status check_chunk_tables(struct parser *parser, const struct cllm_data *data, struct cllm_chunk *chunk,
                                           unsigned mask_step)
{
    if (chunk->table_index >= data->table_count) {
        return fail_corrupt(parser, "code table of a chunk", chunk->table_index, "number of tables is", data->table_count);
    }
    const struct cllm_table *table = &data->tables[chunk->table_index];
    const unsigned bits = data->layout.symbol_bits;
    if (!table->value_bytes && bits < 8 && cllm_table_last_symbol(table) >> bits != 0) {
        return fail_corrupt(parser, "a coded symbol", cllm_table_last_symbol(table), "bits of the coded field", bits);
    }
    if (chunk->form == CLLM_FORM_SCALED && !table->value_bytes) {
        return fail_corrupt(parser, "code table of a scaled chunk, which has no palette:", chunk->table_index,
                            "number of tables is", data->table_count);
    }
    if ((chunk->form == CLLM_FORM_SPARSE) != (mask_step > 0)) {
        return fail_corrupt(parser, "step to the code table of masks", mask_step, "in a chunk of form", chunk->form);
    }
    const uint32_t mask_table = chunk->table_index + mask_step;
    if (mask_table >= data->table_count) {
        return fail_corrupt(parser, "code table of masks", mask_table, "number of tables is", data->table_count);
    }
    if (mask_step > 0 && data->tables[mask_table].value_bytes) {
        return fail_corrupt(parser, "code table of masks with a palette", mask_table, "number of tables is", data->table_count);
    }
    chunk->mask_table_index = (uint16_t)mask_table;
    return CLLM_OK;
}

static enum cllm_status parse_chunk(struct parser *parser, const struct cllm_data *data, struct cllm_chunk *chunk)
{
    struct cllm_cursor *cursor = &parser->cursor;
    chunk->stored_bytes = cllm_cursor_u32(cursor);
    chunk->form = cllm_cursor_u8(cursor);
    unsigned mask_step = cllm_cursor_u8(cursor);
    chunk->table_index = cllm_cursor_u16(cursor);
    chunk->checksum = cllm_cursor_u64(cursor);
    if (cursor->overrun) return fail_short(parser, "a chunk record");
    if (chunk->stored_bytes == 0 || chunk->stored_bytes > chunk->decoded_bytes) {
        return fail_corrupt(parser, "stored size of a chunk", chunk->stored_bytes, "expected 1 to", chunk->decoded_bytes);
    }
    if (chunk->form == CLLM_FORM_RAW && chunk->stored_bytes != chunk->decoded_bytes) {
        return fail_corrupt(parser, "stored size of a raw chunk", chunk->stored_bytes, "expected", chunk->decoded_bytes);
    }
    if (cllm_form_has_table(chunk->form) || chunk->form == CLLM_FORM_PLANES) {
        if (data->layout.element_bytes == 0) {
            return fail_corrupt(parser, "form of a chunk without a layout", chunk->form, "expected below", CLLM_FORM_FLOAT);
        }
        if (chunk->decoded_bytes % data->layout.element_bytes != 0) {
            return fail_corrupt(parser, "size of a chunk of elements", chunk->decoded_bytes, "expected a multiple of",
                                data->layout.element_bytes);
        }
    }
    if (cllm_form_has_table(chunk->form)) return check_chunk_tables(parser, data, chunk, mask_step);
    if (chunk->form <= CLLM_FORM_SCALED && (chunk->table_index != 0 || mask_step != 0)) {
        return fail_corrupt(parser, "code table of a chunk that uses none", chunk->table_index + mask_step, "expected", 0);
    }
    chunk->mask_table_index = (uint16_t)(chunk->table_index + mask_step); /* of a form that is not known: as it came */
    return CLLM_OK;
}

/* Offsets are not stored: they follow from the sizes, so chunks cannot overlap, leave holes or point elsewhere. */
static enum cllm_status parse_chunks(struct parser *parser, struct cllm_data *data, struct cllm_chunk *chunks, uint64_t *offset)
{
    data->chunks = chunks;
    data->stored_offset = cllm_data_start(*offset, data->decoded_bytes);
    uint64_t at = data->stored_offset;
    for (uint32_t i = 0; i < data->chunk_count; i++) {
        uint64_t left = data->decoded_bytes - (uint64_t)i * data->chunk_bytes;
        chunks[i].decoded_bytes = left < data->chunk_bytes ? (uint32_t)left : data->chunk_bytes;
        chunks[i].stored_offset = at;
        enum cllm_status status = parse_chunk(parser, data, &chunks[i]);
        if (status) return status;
        if (!cllm_add(at, chunks[i].stored_bytes, &at) || !cllm_align(at, CLLM_CHUNK_ALIGNMENT, &at) ||
            at > CLLM_CONTAINER_BYTES_MAX) {
            return fail_corrupt(parser, "end of a chunk", at, "at most", CLLM_CONTAINER_BYTES_MAX);
        }
    }
    data->stored_bytes = at - data->stored_offset;
    *offset = at;
    return CLLM_OK;
}

static enum cllm_status parse_layout(struct parser *parser)
{
    struct cllm_index *index = parser->index;
    struct cllm_index_storage *storage = parser->storage;
    enum cllm_status status = allocate_layout(parser);
    struct cllm_chunk *chunks = storage->chunks;
    uint64_t offset = CLLM_HEADER_BYTES;
    for (uint32_t i = 0; i < index->data_count && !status; i++) {
        struct cllm_data *data = &storage->data[i];
        const uint8_t *fields = cllm_cursor_take(&parser->cursor, 8);
        if (!fields) return fail_short(parser, "a layout record");
        data->layout = (struct cllm_layout){fields[0], fields[1], fields[2], fields[3], fields[4]};
        if (fields[5]) return fail_corrupt(parser, "reserved byte of a layout record", fields[5], "expected", 0);
        status = cllm_layout_check(&data->layout, parser->err);
        if (status) return cllm_fail_context(parser->err, status, "index byte %zu", parser->cursor.offset);
        status = parse_tables(parser, data, cllm_load_le16(fields + 6));
        if (!status) status = parse_chunks(parser, data, chunks, &offset);
        chunks += data->chunk_count;
    }
    if (status) return status;
    if (cllm_cursor_left(&parser->cursor) != 0) {
        return fail_corrupt(parser, "bytes after the last layout record", cllm_cursor_left(&parser->cursor), "expected", 0);
    }
    index->payload_end = offset;
    return CLLM_OK;
}

enum cllm_status cllm_index_parse(const uint8_t *index_bytes, size_t index_byte_count, size_t manifest_bytes,
                                  uint64_t payload_end_expected, struct cllm_index *index_out,
                                  struct cllm_index_storage *storage_out, struct cllm_error *err)
{
    memset(storage_out, 0, sizeof *storage_out);
    if (manifest_bytes > index_byte_count) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "manifest of %zu bytes in an index of %zu", manifest_bytes,
                         index_byte_count);
    }
    struct parser parser = {cllm_cursor_over(index_bytes, manifest_bytes), index_out, storage_out, 0, 0, 0, 0, 0, err};
    enum cllm_status status = parse_manifest(&parser, manifest_bytes);
    if (!status) {
        parser.cursor = cllm_cursor_over(index_bytes + manifest_bytes, index_byte_count - manifest_bytes);
        status = parse_layout(&parser);
    }
    if (!status && index_out->payload_end != payload_end_expected) {
        status = cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "chunks end at byte %llu, the index starts at %llu",
                           (unsigned long long)index_out->payload_end, (unsigned long long)payload_end_expected);
    }
    if (status) cllm_index_storage_free(storage_out);
    return status;
}

void cllm_index_storage_free(struct cllm_index_storage *storage)
{
    free(storage->data);
    free(storage->tensors);
    free(storage->files);
    free(storage->chunks);
    free(storage->tables);
    free(storage->values);
    free(storage->extents);
    free(storage->parts);
    free(storage->strings);
    memset(storage, 0, sizeof *storage);
}

/* --------------------------------------------------------------------------------------------------------- serialise */

/* Writes forward through memory; with `bytes` null it only counts. */
struct emitter {
    uint8_t *bytes;
    size_t offset;
};

static void emit(struct emitter *emitter, const void *bytes, size_t byte_count)
{
    if (emitter->bytes && byte_count) memcpy(emitter->bytes + emitter->offset, bytes, byte_count);
    emitter->offset += byte_count;
}

static void emit_uint(struct emitter *emitter, uint64_t value, size_t byte_count)
{
    uint8_t bytes[8];
    cllm_store_le64(bytes, value);
    emit(emitter, bytes, byte_count);
}

static void emit_manifest(struct emitter *emitter, const struct cllm_index *index)
{
    emit_uint(emitter, index->data_count, 4);
    emit_uint(emitter, index->tensor_count, 4);
    emit_uint(emitter, index->file_count, 4);
    for (uint32_t i = 0; i < index->data_count; i++) {
        emit_uint(emitter, index->data[i].decoded_bytes, 8);
        emit_uint(emitter, index->data[i].chunk_bytes, 4);
        emit(emitter, index->data[i].digest, CLLM_DIGEST_BYTES);
    }
    for (uint32_t i = 0; i < index->tensor_count; i++) {
        const struct cllm_tensor *tensor = &index->tensors[i];
        emit_uint(emitter, tensor->data_index, 4);
        emit_uint(emitter, tensor->file_index, 4);
        emit_uint(emitter, tensor->element_bits, 4);
        emit_uint(emitter, tensor->name_bytes, 2);
        emit_uint(emitter, strlen(tensor->dtype), 1);
        emit_uint(emitter, tensor->rank, 1);
        emit(emitter, tensor->name, tensor->name_bytes);
        emit(emitter, tensor->dtype, strlen(tensor->dtype));
        for (uint32_t k = 0; k < tensor->rank; k++) emit_uint(emitter, tensor->shape[k], 8);
    }
    for (uint32_t i = 0; i < index->file_count; i++) {
        const struct cllm_file *file = &index->files[i];
        emit_uint(emitter, file->bytes, 8);
        emit(emitter, file->sha256, CLLM_DIGEST_BYTES);
        emit_uint(emitter, file->part_count, 4);
        emit_uint(emitter, file->name_bytes, 2);
        emit(emitter, file->name, file->name_bytes);
        for (uint32_t k = 0; k < file->part_count; k++) emit_uint(emitter, file->parts[k], 4);
    }
}

static void emit_layout(struct emitter *emitter, const struct cllm_index *index)
{
    for (uint32_t i = 0; i < index->data_count; i++) {
        const struct cllm_data *data = &index->data[i];
        const struct cllm_layout *layout = &data->layout;
        const uint8_t fields[6] = {layout->element_bytes, layout->symbol_shift, layout->symbol_bits, layout->zero_bits,
                                   layout->segment_log2};
        uint32_t palette_count = 0;
        for (uint32_t k = 0; k < data->table_count; k++) palette_count += data->tables[k].value_bytes != 0;
        emit(emitter, fields, sizeof fields);
        emit_uint(emitter, palette_count, 2);
        emit_uint(emitter, data->table_count, 4);
        for (uint32_t k = 0; k < data->table_count; k++) {
            uint8_t table[CLLM_TABLE_STORED_BYTES_MAX];
            emit(emitter, table, cllm_table_serialise(&data->tables[k], table));
        }
        for (uint32_t k = 0; k < data->table_count; k++) {
            if (data->tables[k].value_bytes == 0) continue;
            emit_uint(emitter, k, 2);
            emit(emitter, data->tables[k].values, cllm_table_values_bytes(&data->tables[k]));
        }
        for (uint32_t k = 0; k < data->chunk_count; k++) {
            const struct cllm_chunk *chunk = &data->chunks[k];
            emit_uint(emitter, chunk->stored_bytes, 4);
            emit_uint(emitter, chunk->form, 1);
            /* forms that are not known may have any step */
            const bool has_step = chunk->form == CLLM_FORM_SPARSE || chunk->form > CLLM_FORM_SCALED;
            emit_uint(emitter, has_step ? (unsigned)chunk->mask_table_index - chunk->table_index : 0, 1);
            emit_uint(emitter, chunk->table_index, 2);
            emit_uint(emitter, chunk->checksum, 8);
        }
    }
}

enum cllm_status cllm_index_serialise(const struct cllm_index *index, uint8_t **bytes_out, size_t *byte_count_out,
                                      size_t *manifest_bytes_out, struct cllm_error *err)
{
    struct emitter emitter = {NULL, 0};
    emit_manifest(&emitter, index);
    *manifest_bytes_out = emitter.offset;
    emit_layout(&emitter, index);
    *bytes_out = NULL;
    *byte_count_out = emitter.offset;
    if (emitter.offset > CLLM_INDEX_BYTES_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "the index would have %zu bytes, at most %llu are allowed",
                         emitter.offset, (unsigned long long)CLLM_INDEX_BYTES_MAX);
    }
    emitter = (struct emitter){malloc(emitter.offset), 0};
    if (!emitter.bytes) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the index");
    emit_manifest(&emitter, index);
    emit_layout(&emitter, index);
    *bytes_out = emitter.bytes;
    return CLLM_OK;
}

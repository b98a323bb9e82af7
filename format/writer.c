/* writer.c - see writer.h. FORMAT.md 3. */
#include "writer.h"

#include "bytes.h"
#include "codec.h"
#include "compress.h"
#include "digest.h"
#include "header.h"
#include "index.h"

#include <stdlib.h>

#define INDEX_ZSTD_LEVEL 19
#define PIECES_MAX 64u /* written with one system call */

/* A growing array; `items` is realloc'ed. */
struct list {
    void *items;
    size_t count;
    size_t capacity;
};

struct cllm_writer {
    struct cllm_output *output;
    uint64_t header_checksum;
    struct list data, tensors, files;
    struct cllm_data current; /* begun and not ended */
    struct list chunks;       /* of `current` */
    struct list tables;
    struct list values; /* bytes of the palettes among them, one after the other */
    uint64_t begun_at;  /* where the output ended when `current` was begun */
    uint32_t *buckets;  /* hash table over data roots: 1 + index into data, 0 empty */
    size_t bucket_count;
};

static void *list_grow(struct list *list, size_t item_bytes)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 16;
        void *items = realloc(list->items, capacity * item_bytes);
        if (!items) return NULL;
        list->items = items;
        list->capacity = capacity;
    }
    return (char *)list->items + list->count++ * item_bytes;
}

static enum cllm_status fail_memory(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the index being written");
}

enum cllm_status cllm_writer_create(struct cllm_output *output, struct cllm_writer **writer_out, struct cllm_error *err)
{
    uint8_t header[CLLM_HEADER_BYTES];
    struct cllm_writer *writer = calloc(1, sizeof *writer);
    *writer_out = writer;
    if (!writer) return fail_memory(err);
    writer->output = output;
    writer->header_checksum = cllm_header_serialise(header);
    enum cllm_status status = cllm_output_write(output, header, sizeof header, err);
    if (status) {
        cllm_writer_destroy(writer);
        *writer_out = NULL;
    }
    return status;
}

void cllm_writer_destroy(struct cllm_writer *writer)
{
    if (!writer) return;
    struct cllm_data *data = writer->data.items;
    for (size_t i = 0; i < writer->data.count; i++) {
        free((void *)data[i].chunks);
        free((void *)data[i].tables);
    }
    free(data);
    free(writer->tensors.items);
    free(writer->files.items);
    free(writer->chunks.items);
    free(writer->tables.items);
    free(writer->values.items);
    free(writer->buckets);
    free(writer);
}

static enum cllm_status write_zeros_to(struct cllm_writer *writer, uint64_t offset, struct cllm_error *err)
{
    static const uint8_t zeros[CLLM_PAGE_ALIGNMENT];
    return cllm_output_write(writer->output, zeros, (size_t)(offset - cllm_output_bytes(writer->output)), err);
}

enum cllm_status cllm_writer_begin_data(struct cllm_writer *writer, uint64_t decoded_bytes, uint32_t chunk_bytes,
                                        const struct cllm_layout *layout, struct cllm_error *err)
{
    if (writer->data.count == CLLM_DATA_COUNT_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "more than %u data objects", CLLM_DATA_COUNT_MAX);
    }
    writer->begun_at = cllm_output_bytes(writer->output);
    writer->chunks.count = 0;
    writer->tables.count = 0;
    writer->values.count = 0;
    writer->current = (struct cllm_data){
        .decoded_bytes = decoded_bytes,
        .chunk_bytes = chunk_bytes,
        .layout = *layout,
        .stored_offset = cllm_data_start(writer->begun_at, decoded_bytes),
    };
    return write_zeros_to(writer, writer->current.stored_offset, err);
}

enum cllm_status cllm_writer_add_table(struct cllm_writer *writer, const struct cllm_table *table, uint16_t *index_out,
                                       struct cllm_error *err)
{
    if (writer->tables.count == CLLM_TABLE_COUNT_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "more than %u code tables in one data object", CLLM_TABLE_COUNT_MAX);
    }
    *index_out = (uint16_t)writer->tables.count;
    struct cllm_table *slot = list_grow(&writer->tables, sizeof *slot);
    if (!slot) return fail_memory(err);
    *slot = *table;
    for (size_t i = 0; i < cllm_table_values_bytes(table); i++) {
        uint8_t *byte = list_grow(&writer->values, 1);
        if (!byte) return fail_memory(err);
        *byte = table->values[i];
    }
    return CLLM_OK;
}

static size_t padded_bytes(const struct cllm_chunk *chunk)
{
    return (chunk->stored_bytes + (size_t)CLLM_CHUNK_ALIGNMENT - 1) & ~(size_t)(CLLM_CHUNK_ALIGNMENT - 1);
}

void cllm_writer_seal(struct cllm_ready_chunk *ready)
{
    const size_t padded = padded_bytes(&ready->chunk);
    memset(ready->stored + ready->chunk.stored_bytes, 0, padded - ready->chunk.stored_bytes);
    ready->chunk.checksum = cllm_checksum(ready->stored, padded);
}

enum cllm_status cllm_writer_add_chunks(struct cllm_writer *writer, const struct cllm_ready_chunk *ready, uint32_t count,
                                        struct cllm_error *err)
{
    struct iovec pieces[PIECES_MAX];
    enum cllm_status status = CLLM_OK;
    for (uint32_t k = 0, n; k < count && !status; k += n) {
        n = count - k < PIECES_MAX ? count - k : PIECES_MAX;
        for (uint32_t i = 0; i < n; i++) {
            struct cllm_chunk *slot = list_grow(&writer->chunks, sizeof *slot);
            if (!slot) return fail_memory(err);
            *slot = ready[k + i].chunk;
            pieces[i] = (struct iovec){ready[k + i].stored, padded_bytes(slot)};
        }
        status = cllm_output_write_pieces(writer->output, pieces, n, err);
    }
    return status;
}

enum cllm_status cllm_writer_add_chunk(struct cllm_writer *writer, const struct cllm_chunk *chunk, uint8_t *stored,
                                       struct cllm_error *err)
{
    struct cllm_ready_chunk ready = {*chunk, stored};
    cllm_writer_seal(&ready);
    return cllm_writer_add_chunks(writer, &ready, 1, err);
}

/* ------------------------------------------------------------------------------------- data objects stored only once */

static size_t bucket_of(const struct cllm_writer *writer, const uint8_t root[CLLM_DIGEST_BYTES])
{
    return cllm_load_le64(root) & (writer->bucket_count - 1); /* a digest is its own hash */
}

static void insert_root(struct cllm_writer *writer, size_t data_index)
{
    const struct cllm_data *data = writer->data.items;
    size_t b = bucket_of(writer, data[data_index].digest);
    while (writer->buckets[b]) b = (b + 1) & (writer->bucket_count - 1);
    writer->buckets[b] = (uint32_t)data_index + 1;
}

static bool grow_buckets(struct cllm_writer *writer)
{
    if (2 * (writer->data.count + 1) <= writer->bucket_count) return true;
    size_t bucket_count = writer->bucket_count ? 2 * writer->bucket_count : 64;
    uint32_t *buckets = calloc(bucket_count, sizeof *buckets);
    if (!buckets) return false;
    free(writer->buckets);
    writer->buckets = buckets;
    writer->bucket_count = bucket_count;
    for (size_t i = 0; i < writer->data.count; i++) insert_root(writer, i);
    return true;
}

/* Equal roots mean equal bytes and equal chunking, whatever the dtype they were stored under. */
static bool find_root(const struct cllm_writer *writer, const uint8_t root[CLLM_DIGEST_BYTES], uint32_t *index_out)
{
    const struct cllm_data *data = writer->data.items;
    for (size_t b = bucket_of(writer, root); writer->buckets[b]; b = (b + 1) & (writer->bucket_count - 1)) {
        *index_out = writer->buckets[b] - 1;
        if (memcmp(data[*index_out].digest, root, CLLM_DIGEST_BYTES) == 0) return true;
    }
    return false;
}

/* A copy of the tables, with their values behind them. */
static struct cllm_table *copy_tables(const struct cllm_writer *writer)
{
    size_t table_bytes = writer->tables.count * sizeof(struct cllm_table);
    struct cllm_table *tables = calloc(1, table_bytes + writer->values.count + 1);
    if (!tables) return NULL;
    uint8_t *values = (uint8_t *)tables + table_bytes;
    if (table_bytes) memcpy(tables, writer->tables.items, table_bytes);
    if (writer->values.count) memcpy(values, writer->values.items, writer->values.count);
    for (size_t t = 0; t < writer->tables.count; t++) {
        tables[t].values = tables[t].value_bytes ? values : NULL;
        values += cllm_table_values_bytes(&tables[t]);
    }
    return tables;
}

enum cllm_status cllm_writer_end_data(struct cllm_writer *writer, const uint8_t root[CLLM_DIGEST_BYTES], uint32_t *index_out,
                                      bool *shared_out, struct cllm_error *err)
{
    if (!grow_buckets(writer)) return fail_memory(err);
    *shared_out = find_root(writer, root, index_out);
    if (*shared_out) return cllm_output_rewind(writer->output, writer->begun_at, err);

    struct cllm_data *data = &writer->current;
    memcpy(data->digest, root, CLLM_DIGEST_BYTES);
    data->chunk_count = (uint32_t)writer->chunks.count;
    data->table_count = (uint32_t)writer->tables.count;
    size_t chunk_bytes = writer->chunks.count * sizeof(struct cllm_chunk);
    struct cllm_chunk *chunks = malloc(chunk_bytes + 1);
    struct cllm_table *tables = copy_tables(writer);
    struct cllm_data *slot = list_grow(&writer->data, sizeof *slot);
    if (!chunks || !tables || !slot) {
        free(chunks);
        free(tables);
        if (slot) writer->data.count--;
        return fail_memory(err);
    }
    if (chunk_bytes) memcpy(chunks, writer->chunks.items, chunk_bytes);
    data->chunks = chunks;
    data->tables = tables;
    *slot = *data;
    *index_out = (uint32_t)writer->data.count - 1;
    insert_root(writer, *index_out);
    return CLLM_OK;
}

/* --------------------------------------------------------------------------------------------------- tensors and files */

enum cllm_status cllm_writer_add_tensor(struct cllm_writer *writer, const struct cllm_tensor *tensor, struct cllm_error *err)
{
    if (tensor->name_bytes > UINT16_MAX || tensor->rank > CLLM_RANK_MAX || strlen(tensor->dtype) > CLLM_DTYPE_BYTES_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET,
                         "a tensor has a name of %u bytes, rank %u, a dtype of %zu bytes; limits are "
                         "65535, %u, %u",
                         tensor->name_bytes, tensor->rank, strlen(tensor->dtype), CLLM_RANK_MAX, CLLM_DTYPE_BYTES_MAX);
    }
    struct cllm_tensor *slot = list_grow(&writer->tensors, sizeof *slot);
    if (!slot) return fail_memory(err);
    *slot = *tensor;
    return CLLM_OK;
}

enum cllm_status cllm_writer_add_file(struct cllm_writer *writer, const struct cllm_file *file, struct cllm_error *err)
{
    if (file->name_bytes > CLLM_FILE_NAME_BYTES_MAX) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "a file has a name of %u bytes, at most %u are allowed",
                         file->name_bytes, CLLM_FILE_NAME_BYTES_MAX);
    }
    struct cllm_file *slot = list_grow(&writer->files, sizeof *slot);
    if (!slot) return fail_memory(err);
    *slot = *file;
    return CLLM_OK;
}

/* --------------------------------------------------------------------------------------------------------------- end */

/* The frame, or null where zstd does not shrink the index or shrinks it beyond the ratio that readers accept. */
static uint8_t *compress_index(const uint8_t *bytes, size_t byte_count, size_t *frame_bytes_out)
{
    struct cllm_compressor *compressor = NULL;
    uint8_t *frame = malloc(byte_count + 1);
    *frame_bytes_out = 0;
    if (frame && !cllm_compressor_create(&compressor, NULL)) {
        *frame_bytes_out = cllm_compress(compressor, bytes, byte_count, INDEX_ZSTD_LEVEL, frame, byte_count - 1);
    }
    cllm_compressor_destroy(compressor);
    if (*frame_bytes_out > 0 && byte_count / CLLM_INDEX_RATIO_MAX <= *frame_bytes_out) return frame;
    free(frame);
    return NULL;
}

static enum cllm_status check_own_index(const uint8_t *bytes, const struct cllm_footer *footer, struct cllm_error *err)
{
    struct cllm_index index = {0};
    struct cllm_index_storage storage;
    enum cllm_status status =
        cllm_index_parse(bytes, footer->index_bytes, footer->manifest_bytes, footer->index_offset, &index, &storage, err);
    if (status) return cllm_fail_context(err, status, "self-check of the new index");
    cllm_index_storage_free(&storage);
    return CLLM_OK;
}

static enum cllm_status write_index(struct cllm_writer *writer, const uint8_t *bytes, struct cllm_footer *footer,
                                    struct cllm_error *err)
{
    size_t frame_bytes = 0;
    uint8_t *frame = compress_index(bytes, footer->index_bytes, &frame_bytes);
    const uint8_t *stored = frame ? frame : bytes;
    footer->index_stored_bytes = frame ? frame_bytes : footer->index_bytes;
    footer->index_checksum = cllm_checksum(stored, footer->index_stored_bytes);
    footer->container_bytes = footer->index_offset + footer->index_stored_bytes + CLLM_FOOTER_BYTES;
    uint8_t footer_bytes[CLLM_FOOTER_BYTES];
    cllm_footer_serialise(footer, footer_bytes);
    enum cllm_status status = cllm_output_write(writer->output, stored, footer->index_stored_bytes, err);
    if (!status) status = cllm_output_write(writer->output, footer_bytes, sizeof footer_bytes, err);
    free(frame);
    return status;
}

enum cllm_status cllm_writer_finish(struct cllm_writer *writer, uint8_t root_out[CLLM_DIGEST_BYTES], struct cllm_error *err)
{
    struct cllm_index index = {
        .data = writer->data.items,
        .tensors = writer->tensors.items,
        .files = writer->files.items,
        .data_count = (uint32_t)writer->data.count,
        .tensor_count = (uint32_t)writer->tensors.count,
        .file_count = (uint32_t)writer->files.count,
    };
    struct cllm_footer footer = {.index_offset = cllm_output_bytes(writer->output), .header_checksum = writer->header_checksum};
    uint8_t *bytes = NULL;
    size_t byte_count = 0, manifest_bytes = 0;
    enum cllm_status status = cllm_index_serialise(&index, &bytes, &byte_count, &manifest_bytes, err);
    if (!status) status = cllm_sha256(bytes, manifest_bytes, footer.root, err);
    footer.index_bytes = byte_count;
    footer.manifest_bytes = manifest_bytes;
    if (!status) status = check_own_index(bytes, &footer, err);
    if (!status) status = write_index(writer, bytes, &footer, err);
    memcpy(root_out, footer.root, CLLM_DIGEST_BYTES);
    free(bytes);
    return status;
}

/* reader.c - an open container: header, footer and index validated; chunks read and checksummed on demand. */
#include "reader.h"

#include "bytes.h"
#include "compress.h"
#include "digest.h"
#include "header.h"
#include "index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECKED_PIECE_BYTES (256u << 10) /* fits the second cache of any processor */
#define FETCHED_PIECE_BYTES (1u << 20)   /* the kernel fetches no more at once than a disk's largest request */

struct cllm_reader {
    int file;
    struct cllm_index index;
    struct cllm_index_storage storage;
    uint32_t *owners; /* per data object: 1 + the first tensor that names it, or 0; then 1 + the first file, or 0 */
};

static enum cllm_status read_exactly(int file, uint64_t offset, void *buffer, size_t byte_count, struct cllm_error *err)
{
    uint8_t *at = buffer;
    size_t left = byte_count;
    while (left > 0) {
        ssize_t got = pread(file, at, left, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return cllm_fail(err, CLLM_E_IO, offset, "cannot read at byte %llu: %s", (unsigned long long)offset, strerror(errno));
        if (got == 0) {
            return cllm_fail(err, CLLM_E_CORRUPT, offset, "the file ends at byte %llu, %zu more bytes were expected",
                             (unsigned long long)offset, left);
        }
        at += got;
        left -= (size_t)got;
        offset += (uint64_t)got;
    }
    return CLLM_OK;
}

enum cllm_status cllm_reader_read(const struct cllm_reader *reader, uint64_t offset, void *buffer, size_t byte_count,
                                  struct cllm_error *err)
{
    return read_exactly(reader->file, offset, buffer, byte_count, err);
}

/* O_NONBLOCK keeps a FIFO from hanging the open; regular files ignore it. */
static enum cllm_status open_file(const char *path, int *file_out, uint64_t *byte_count_out, struct cllm_error *err)
{
    struct stat info;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot open: %s", strerror(errno));
    if (fstat(file, &info) != 0) {
        enum cllm_status status = cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot stat: %s", strerror(errno));
        close(file);
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        close(file);
        return cllm_fail(err, CLLM_E_FORMAT, CLLM_NO_OFFSET, "not a regular file, expected a .cllm container");
    }
    *file_out = file;
    *byte_count_out = (uint64_t)info.st_size;
    return CLLM_OK;
}

/* Short files get the message that fits what they are: nothing, something else, or a container cut off. */
static enum cllm_status read_header(int file, uint64_t container_bytes, uint64_t *checksum_out, struct cllm_error *err)
{
    uint8_t bytes[CLLM_HEADER_BYTES] = {0};
    size_t have = container_bytes < sizeof bytes ? (size_t)container_bytes : sizeof bytes;
    enum cllm_status status = read_exactly(file, 0, bytes, have, err);
    if (status) return status;
    if (have < sizeof bytes && (have < CLLM_MAGIC_BYTES || memcmp(bytes, CLLM_HEADER_MAGIC, CLLM_MAGIC_BYTES) != 0)) {
        return cllm_fail(err, CLLM_E_FORMAT, 0, "not a .cllm container: %zu bytes long, without its magic", have);
    }
    if (have < sizeof bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, have, "container is truncated: %zu bytes, its header alone has %u", have,
                         CLLM_HEADER_BYTES);
    }
    status = cllm_header_parse(bytes, checksum_out, err);
    if (!status && container_bytes < CLLM_HEADER_BYTES + CLLM_FOOTER_BYTES) {
        status = cllm_fail(err, CLLM_E_CORRUPT, container_bytes, "container is truncated: %llu bytes, header and footer have %u",
                           (unsigned long long)container_bytes, CLLM_HEADER_BYTES + CLLM_FOOTER_BYTES);
    }
    return status;
}

/* The decoded index bytes, allocated only after the footer's sizes were checked. */
static enum cllm_status load_index(int file, const struct cllm_footer *footer, uint8_t **bytes_out, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    struct cllm_compressor *compressor = NULL;
    uint8_t *decoded = NULL;
    uint8_t *stored = malloc(footer->index_stored_bytes + 1);
    if (!stored) {
        status = cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the index");
        goto out;
    }
    status = read_exactly(file, footer->index_offset, stored, footer->index_stored_bytes, err);
    if (status) goto out;
    uint64_t checksum = cllm_checksum(stored, footer->index_stored_bytes);
    if (checksum != footer->index_checksum) {
        status = cllm_fail(err, CLLM_E_DIGEST, footer->index_offset,
                           "index is damaged: its checksum is %016llx, its bytes give %016llx",
                           (unsigned long long)footer->index_checksum, (unsigned long long)checksum);
        goto out;
    }
    if (footer->index_stored_bytes < footer->index_bytes) {
        decoded = malloc(footer->index_bytes);
        status = decoded ? cllm_compressor_create(&compressor, err)
                         : cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the index");
        if (!status) status = cllm_decompress(compressor, stored, footer->index_stored_bytes, decoded, footer->index_bytes, err);
        if (status) status = cllm_fail_context(err, status, "index");
    } else {
        decoded = stored;
        stored = NULL;
    }
out:
    if (status) {
        free(decoded);
        decoded = NULL;
    }
    cllm_compressor_destroy(compressor);
    free(stored);
    *bytes_out = decoded;
    return status;
}

static enum cllm_status parse_index(struct cllm_reader *reader, const struct cllm_footer *footer, struct cllm_error *err)
{
    uint8_t *bytes = NULL;
    enum cllm_status status = load_index(reader->file, footer, &bytes, err);
    if (!status) status = cllm_sha256(bytes, footer->manifest_bytes, reader->index.root, err);
    if (!status && memcmp(reader->index.root, footer->root, CLLM_DIGEST_BYTES) != 0) {
        status = cllm_fail(err, CLLM_E_DIGEST, footer->index_offset, "root digest of the manifest is not the one in the footer");
    }
    if (!status) {
        status = cllm_index_parse(bytes, footer->index_bytes, footer->manifest_bytes, footer->index_offset, &reader->index,
                                  &reader->storage, err);
    }
    reader->index.container_bytes = footer->container_bytes;
    reader->index.index_offset = footer->index_offset;
    reader->index.index_stored_bytes = footer->index_stored_bytes;
    free(bytes);
    return status;
}

static enum cllm_status map_owners(struct cllm_reader *reader, struct cllm_error *err)
{
    const size_t data_count = reader->index.data_count;
    reader->owners = calloc(2 * data_count + 1, sizeof *reader->owners);
    if (!reader->owners) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for the index");
    for (uint32_t i = reader->index.tensor_count; i-- > 0;) reader->owners[reader->index.tensors[i].data_index] = i + 1;
    for (uint32_t f = reader->index.file_count; f-- > 0;) {
        const struct cllm_file *file = &reader->index.files[f];
        for (uint32_t i = 0; i < file->part_count; i++) reader->owners[data_count + file->parts[i]] = f + 1;
    }
    return CLLM_OK;
}

enum cllm_status cllm_reader_open(const char *path, struct cllm_reader **reader_out, struct cllm_error *err)
{
    *reader_out = NULL;
    struct cllm_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a reader");
    reader->file = -1;
    uint64_t container_bytes = 0, header_checksum = 0;
    uint8_t footer_bytes[CLLM_FOOTER_BYTES];
    struct cllm_footer footer;
    enum cllm_status status = open_file(path, &reader->file, &container_bytes, err);
    if (!status) status = read_header(reader->file, container_bytes, &header_checksum, err);
    if (!status) status = read_exactly(reader->file, container_bytes - CLLM_FOOTER_BYTES, footer_bytes, sizeof footer_bytes, err);
    if (!status) status = cllm_footer_parse(footer_bytes, container_bytes, header_checksum, &footer, err);
    if (!status) status = parse_index(reader, &footer, err);
    if (!status) status = map_owners(reader, err);
    if (status) {
        cllm_reader_close(reader);
        char printable[200];
        return cllm_fail_context(err, status, "%s", cllm_escape(path, strlen(path), printable, sizeof printable));
    }
    *reader_out = reader;
    return CLLM_OK;
}

void cllm_reader_close(struct cllm_reader *reader)
{
    if (!reader) return;
    cllm_index_storage_free(&reader->storage);
    free(reader->owners);
    if (reader->file >= 0) close(reader->file);
    free(reader);
}

const struct cllm_index *cllm_reader_index(const struct cllm_reader *reader)
{
    return &reader->index;
}

/* ------------------------------------------------------------------------------------------------------------ chunks */

static uint32_t padded_bytes(const struct cllm_chunk *chunk)
{
    return (chunk->stored_bytes + CLLM_CHUNK_ALIGNMENT - 1) & ~(CLLM_CHUNK_ALIGNMENT - 1);
}

size_t cllm_chunk_buffer_bytes(const struct cllm_chunk *chunk)
{
    return (size_t)padded_bytes(chunk) + CLLM_READ_SLACK_BYTES;
}

static size_t run_bytes(const struct cllm_data *data, uint32_t first_chunk, uint32_t chunk_count)
{
    const struct cllm_chunk *last = &data->chunks[first_chunk + chunk_count - 1];
    return (size_t)(last->stored_offset + padded_bytes(last) - data->chunks[first_chunk].stored_offset);
}

size_t cllm_run_buffer_bytes(const struct cllm_data *data, uint32_t first_chunk, uint32_t chunk_count)
{
    return run_bytes(data, first_chunk, chunk_count) + CLLM_READ_SLACK_BYTES;
}

static enum cllm_status check_stored(const struct cllm_chunk *chunk, const uint8_t *stored, struct cllm_error *err)
{
    uint64_t checksum = cllm_checksum(stored, padded_bytes(chunk));
    if (checksum != chunk->checksum) {
        return cllm_fail(err, CLLM_E_DIGEST, chunk->stored_offset,
                         "stored bytes are damaged: checksum is %016llx, bytes give %016llx", (unsigned long long)chunk->checksum,
                         (unsigned long long)checksum);
    }
    for (uint32_t i = chunk->stored_bytes; i < padded_bytes(chunk); i++) {
        if (stored[i] != 0)
            return cllm_fail(err, CLLM_E_CORRUPT, chunk->stored_offset + i, "padding is %02x, expected 00", stored[i]);
    }
    return CLLM_OK;
}

enum cllm_status cllm_reader_blame_chunk(const struct cllm_reader *reader, uint32_t data_index, uint32_t chunk_index,
                                         enum cllm_status status, struct cllm_error *err)
{
    char what[160];
    const struct cllm_chunk *chunk = &reader->index.data[data_index].chunks[chunk_index];
    return cllm_fail_context(err, status, "%s, chunk %u, bytes %llu to %llu",
                             cllm_reader_describe_data(reader, data_index, what, sizeof what), chunk_index,
                             (unsigned long long)chunk->stored_offset,
                             (unsigned long long)(chunk->stored_offset + chunk->stored_bytes - 1));
}

enum cllm_status cllm_reader_check_chunk(const struct cllm_reader *reader, uint32_t data_index, uint32_t chunk_index,
                                         const uint8_t *stored, struct cllm_error *err)
{
    enum cllm_status status = check_stored(&reader->index.data[data_index].chunks[chunk_index], stored, err);
    return status ? cllm_reader_blame_chunk(reader, data_index, chunk_index, status, err) : CLLM_OK;
}

enum cllm_status cllm_reader_read_run(const struct cllm_reader *reader, uint32_t data_index, uint32_t first_chunk,
                                      uint32_t chunk_count, uint8_t *buffer, struct cllm_error *err)
{
    const struct cllm_data *data = &reader->index.data[data_index];
    size_t byte_count = run_bytes(data, first_chunk, chunk_count);
    memset(buffer + byte_count, 0, CLLM_READ_SLACK_BYTES);
    enum cllm_status status = read_exactly(reader->file, data->chunks[first_chunk].stored_offset, buffer, byte_count, err);
    return status ? cllm_reader_blame_chunk(reader, data_index, first_chunk, status, err) : CLLM_OK;
}

/* Tells the kernel what will be read: what is on a disk then comes in few large requests, of several threads at once, which it
 * would not make of the pieces that they read. */
static void fetch_run(const struct cllm_reader *reader, uint64_t offset, size_t byte_count)
{
    if (byte_count <= CHECKED_PIECE_BYTES) return;
    for (size_t from = 0; from < byte_count; from += FETCHED_PIECE_BYTES) {
        const size_t left = byte_count - from;
        (void)posix_fadvise(reader->file, (off_t)(offset + from),
                            (off_t)(left < FETCHED_PIECE_BYTES ? left : FETCHED_PIECE_BYTES), POSIX_FADV_WILLNEED);
    }
}

enum cllm_status cllm_reader_read_checked(const struct cllm_reader *reader, uint32_t data_index, uint32_t first_chunk,
                                          uint32_t chunk_count, uint8_t *buffer, struct cllm_error *err)
{
    const struct cllm_chunk *chunks = reader->index.data[data_index].chunks;
    const uint32_t end = first_chunk + chunk_count;
    const uint64_t start = chunks[first_chunk].stored_offset;
    enum cllm_status status = CLLM_OK;
    fetch_run(reader, start, run_bytes(&reader->index.data[data_index], first_chunk, chunk_count));
    for (uint32_t c = first_chunk, next; c < end && !status; c = next) {
        uint8_t *at = buffer + (chunks[c].stored_offset - start);
        for (next = c + 1; next < end && chunks[next].stored_offset - chunks[c].stored_offset < CHECKED_PIECE_BYTES;) next++;
        status = cllm_reader_read_run(reader, data_index, c, next - c, at, err);
        for (uint32_t k = c; k < next && !status; k++) {
            status = cllm_reader_check_chunk(reader, data_index, k, buffer + (chunks[k].stored_offset - start), err);
        }
    }
    return status;
}

enum cllm_status cllm_reader_read_chunk(const struct cllm_reader *reader, uint32_t data_index, uint32_t chunk_index, void *buffer,
                                        size_t buffer_bytes, struct cllm_error *err)
{
    if (data_index >= reader->index.data_count) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "no data object %u, there are %u", data_index,
                         reader->index.data_count);
    }
    if (chunk_index >= reader->index.data[data_index].chunk_count) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "no chunk %u in data object %u, there are %u", chunk_index,
                         data_index, reader->index.data[data_index].chunk_count);
    }
    size_t needed = cllm_run_buffer_bytes(&reader->index.data[data_index], chunk_index, 1);
    if (buffer_bytes < needed) {
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "buffer has %zu bytes, the chunk needs %zu", buffer_bytes, needed);
    }
    enum cllm_status status = cllm_reader_read_run(reader, data_index, chunk_index, 1, buffer, err);
    return status ? status : cllm_reader_check_chunk(reader, data_index, chunk_index, buffer, err);
}

/* ------------------------------------------------------------------------------------------------------------- names */

const char *cllm_reader_describe_data(const struct cllm_reader *reader, uint32_t data_index, char *out, size_t out_bytes)
{
    const struct cllm_index *index = &reader->index;
    const bool there = data_index < index->data_count;
    char name[128];
    if (there && reader->owners[data_index]) {
        const struct cllm_tensor *tensor = &index->tensors[reader->owners[data_index] - 1];
        snprintf(out, out_bytes, "tensor \"%s\"", cllm_escape(tensor->name, tensor->name_bytes, name, sizeof name));
        return out;
    }
    const uint32_t owner = there ? reader->owners[(size_t)index->data_count + data_index] : 0;
    if (owner) {
        const struct cllm_file *file = &index->files[owner - 1];
        snprintf(out, out_bytes, "file \"%s\"", cllm_escape(file->name, file->name_bytes, name, sizeof name));
        return out;
    }
    snprintf(out, out_bytes, "data object %u", data_index);
    return out;
}

const struct cllm_tensor *cllm_reader_find_tensor(const struct cllm_reader *reader, const char *name)
{
    size_t name_bytes = strlen(name);
    for (uint32_t i = 0; i < reader->index.tensor_count; i++) {
        const struct cllm_tensor *tensor = &reader->index.tensors[i];
        if (tensor->name_bytes == name_bytes && memcmp(tensor->name, name, name_bytes) == 0) return tensor;
    }
    return NULL;
}

const struct cllm_file *cllm_reader_find_file(const struct cllm_reader *reader, const char *name)
{
    for (uint32_t i = 0; i < reader->index.file_count; i++) {
        if (strcmp(reader->index.files[i].name, name) == 0) return &reader->index.files[i];
    }
    return NULL;
}

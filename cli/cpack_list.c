/* cpack_list.c - what is in a container, from its index alone: no payload is read. */
#include "cpack.h"

#include "digest.h"
#include "message.h"
#include "progress.h"
#include "report.h"

#include <stdio.h>
#include <string.h>

/* Forms that only a newer cllm knows have one name. */
#define FORM_UNKNOWN (CLLM_FORM_SCALED + 1)
static unsigned known_form(unsigned form)
{
    return form < FORM_UNKNOWN ? form : FORM_UNKNOWN;
}

static const char *const form_names[] = {
    [CLLM_FORM_RAW] = "raw",       [CLLM_FORM_ZSTD] = "zstd",     [CLLM_FORM_FLOAT] = "float", [CLLM_FORM_PLANES] = "planes",
    [CLLM_FORM_SPARSE] = "sparse", [CLLM_FORM_SCALED] = "scaled", [FORM_UNKNOWN] = "unknown"};

/* "float", "float+raw": the forms of a data object's chunks, each once. */
static const char *codec_text(const struct cllm_data *data, char out[64])
{
    static const unsigned order[] = {CLLM_FORM_FLOAT, CLLM_FORM_SPARSE, CLLM_FORM_SCALED, CLLM_FORM_PLANES,
                                     CLLM_FORM_ZSTD,  CLLM_FORM_RAW,    FORM_UNKNOWN};
    unsigned seen = 0;
    for (uint32_t i = 0; i < data->chunk_count; i++) {
        seen |= 1u << known_form(data->chunks[i].form);
    }
    out[0] = 0;
    for (size_t k = 0; k < sizeof order / sizeof order[0]; k++) {
        if (!(seen >> order[k] & 1)) continue;
        if (out[0]) strcat(out, "+");
        strcat(out, form_names[order[k]]);
    }
    if (!out[0]) strcpy(out, "-");
    return out;
}

#define SHAPE_BYTES (64 * 21 + 3) /* FORMAT.md 11: up to 64 extents, each of 20 digits at most and a comma */

static void shape_text(const struct cllm_tensor *tensor, char out[SHAPE_BYTES])
{
    size_t used = (size_t)snprintf(out, SHAPE_BYTES, "[");
    for (uint32_t i = 0; i < tensor->rank; i++) {
        used += (size_t)snprintf(out + used, SHAPE_BYTES - used, "%s%llu", i ? "," : "", (unsigned long long)tensor->shape[i]);
    }
    snprintf(out + used, SHAPE_BYTES - used, "]");
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 100.0;
}

static uint64_t count_bytes(const struct cllm_index *index)
{
    uint64_t byte_count = 0;
    for (uint32_t i = 0; i < index->file_count; i++) {
        byte_count += index->files[i].bytes;
    }
    return byte_count;
}

/* -------------------------------------------------------------------------------------------------------------- text */

/* Each loop ends at a signal: lines that follow would wait for a reader that may have stopped reading. */

static void print_chunks(const struct cllm_data *data)
{
    for (uint32_t i = 0; i < data->chunk_count && !cllm_signal_caught(); i++) {
        const struct cllm_chunk *chunk = &data->chunks[i];
        printf("    chunk %u: %s, %u -> %u bytes at %llu, XXH3 %016llx\n", i, form_names[known_form(chunk->form)],
               chunk->decoded_bytes, chunk->stored_bytes, (unsigned long long)chunk->stored_offset,
               (unsigned long long)chunk->checksum);
    }
}

static void print_tensors(const struct cllm_index *index, unsigned verbose_level)
{
    char codec[64], size[32], shape[SHAPE_BYTES], name[1024], hex[2 * CLLM_DIGEST_BYTES + 1];
    if (index->tensor_count > 0) printf("%-8s %-18s %-10s %11s %7s  %s\n", "DTYPE", "SHAPE", "CODEC", "STORED", "RATIO", "NAME");
    for (uint32_t i = 0; i < index->tensor_count && !cllm_signal_caught(); i++) {
        const struct cllm_tensor *tensor = &index->tensors[i];
        const struct cllm_data *data = &index->data[tensor->data_index];
        shape_text(tensor, shape);
        printf("%-8s %-18s %-10s %11s %6.2f%%  %s\n", cllm_shown(tensor->dtype), shape, codec_text(data, codec),
               cllm_size_text(data->stored_bytes, size), percent(data->stored_bytes, data->decoded_bytes),
               cllm_escape(tensor->name, tensor->name_bytes, name, sizeof name));
        if (verbose_level < 1) continue;
        printf("    in %s, %llu -> %llu bytes at %llu, %u chunks, %u tables, digest %s\n",
               cllm_shown(index->files[tensor->file_index].name), (unsigned long long)data->decoded_bytes,
               (unsigned long long)data->stored_bytes, (unsigned long long)data->stored_offset, data->chunk_count,
               data->table_count, cllm_digest_hex(data->digest, hex));
        if (verbose_level > 1) print_chunks(data);
    }
}

static void print_container(const char *path, const struct cllm_index *index, unsigned verbose_level)
{
    char before[32], after[32], hex[2 * CLLM_DIGEST_BYTES + 1];
    uint64_t byte_count = count_bytes(index);
    printf("%s: %u tensors, %u files, %s -> %s (%.2f %%), root sha256:%s\n", cllm_shown(path), index->tensor_count,
           index->file_count, cllm_size_text(byte_count, before), cllm_size_text(index->container_bytes, after),
           percent(index->container_bytes, byte_count), cllm_digest_hex(index->root, hex));
    print_tensors(index, verbose_level);
    for (uint32_t i = 0; i < index->file_count && !cllm_signal_caught(); i++) {
        const struct cllm_file *file = &index->files[i];
        printf("file %s, %llu bytes", cllm_shown(file->name), (unsigned long long)file->bytes);
        if (verbose_level > 0) printf(", %u parts, SHA-256 %s", file->part_count, cllm_digest_hex(file->sha256, hex));
        puts("");
    }
}

/* -------------------------------------------------------------------------------------------------------------- JSON */

static json_t *tensor_document(const struct cllm_index *index, const struct cllm_tensor *tensor)
{
    char codec[64];
    const struct cllm_data *data = &index->data[tensor->data_index];
    json_t *document = json_object(), *shape = json_array();
    cllm_json_set_name(document, "name", tensor->name, tensor->name_bytes);
    cllm_json_set_name(document, "dtype", tensor->dtype, strlen(tensor->dtype));
    for (uint32_t i = 0; i < tensor->rank; i++) {
        json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    }
    json_object_set_new(document, "shape", shape);
    json_object_set_new(document, "file", json_integer(tensor->file_index));
    json_object_set_new(document, "data", json_integer(tensor->data_index));
    json_object_set_new(document, "codec", json_string(codec_text(data, codec)));
    json_object_set_new(document, "bytes", json_integer((json_int_t)data->decoded_bytes));
    json_object_set_new(document, "stored_bytes", json_integer((json_int_t)data->stored_bytes));
    json_object_set_new(document, "stored_offset", json_integer((json_int_t)data->stored_offset));
    json_object_set_new(document, "chunks", json_integer(data->chunk_count));
    json_object_set_new(document, "digest", cllm_json_digest(data->digest));
    return document;
}

static json_t *container_document(const char *path, const struct cllm_index *index)
{
    json_t *document = json_object(), *tensors = json_array(), *files = json_array();
    cllm_json_set_name(document, "name", path, strlen(path));
    json_object_set_new(document, "bytes", json_integer((json_int_t)count_bytes(index)));
    json_object_set_new(document, "container_bytes", json_integer((json_int_t)index->container_bytes));
    json_object_set_new(document, "root", cllm_json_digest(index->root));
    for (uint32_t i = 0; i < index->tensor_count; i++) {
        json_array_append_new(tensors, tensor_document(index, &index->tensors[i]));
    }
    for (uint32_t i = 0; i < index->file_count; i++) {
        json_t *file = json_object();
        cllm_json_set_name(file, "name", index->files[i].name, index->files[i].name_bytes);
        json_object_set_new(file, "bytes", json_integer((json_int_t)index->files[i].bytes));
        json_object_set_new(file, "digest", cllm_json_digest(index->files[i].sha256));
        json_array_append_new(files, file);
    }
    json_object_set_new(document, "tensors", tensors);
    json_object_set_new(document, "files", files);
    return document;
}

int cpack_list(const struct cpack_options *options, const char *const *containers, int container_count)
{
    int exit_code = CLLM_EXIT_OK;
    json_t *documents = json_array();
    struct cllm_error err = {0};
    for (int i = 0; i < container_count && !cllm_signal_caught(); i++) {
        struct cllm_reader *reader = NULL;
        if (cllm_reader_open(containers[i], &reader, &err)) {
            exit_code = cllm_exit_worse(exit_code, cllm_fatal_error(&err));
            continue;
        }
        if (options->common.json) json_array_append_new(documents, container_document(containers[i], cllm_reader_index(reader)));
        else print_container(containers[i], cllm_reader_index(reader), options->common.verbose_level);
        cllm_reader_close(reader);
    }
    if (cllm_signal_caught()) {
        exit_code = cllm_fatal(CLLM_E_INTERRUPTED, "interrupted");
    } else if (options->common.json && json_array_size(documents) > 0) {
        json_t *document = json_pack("{s:s, s:O}", "message_type", "list", "containers", documents);
        if (cllm_json_print(document, &err)) exit_code = cllm_exit_worse(exit_code, cllm_fatal_error(&err));
    }
    json_decref(documents);
    return exit_code;
}

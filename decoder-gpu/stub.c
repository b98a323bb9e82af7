/* stub.c - the functions of cllm_decode_gpu.h in a build without CUDA. */
#include "engine.h"

static enum cllm_status fail_not_built(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET,
                     "this build has no GPU support: it was built without the CUDA toolkit");
}

unsigned cllm_gpu_count(void)
{
    return 0;
}

enum cllm_status cllm_gpu_create(unsigned device_index, struct cllm_gpu **gpu_out, struct cllm_error *err)
{
    (void)device_index;
    *gpu_out = NULL;
    return fail_not_built(err);
}

void cllm_gpu_destroy(struct cllm_gpu *gpu)
{
    (void)gpu;
}

const char *cllm_gpu_name(const struct cllm_gpu *gpu)
{
    (void)gpu;
    return "";
}

enum cllm_status cllm_gpu_allocate(struct cllm_gpu *gpu, size_t byte_count, void **d_memory_out, struct cllm_error *err)
{
    (void)gpu, (void)byte_count;
    *d_memory_out = NULL;
    return fail_not_built(err);
}

void cllm_gpu_free(struct cllm_gpu *gpu, void *d_memory)
{
    (void)gpu, (void)d_memory;
}

enum cllm_status cllm_gpu_allocate_pinned(struct cllm_gpu *gpu, size_t byte_count, void **memory_out, struct cllm_error *err)
{
    (void)gpu, (void)byte_count;
    *memory_out = NULL;
    return fail_not_built(err);
}

void cllm_gpu_free_pinned(struct cllm_gpu *gpu, void *memory)
{
    (void)gpu, (void)memory;
}

enum cllm_status cllm_gpu_upload(struct cllm_gpu *gpu, void *d_to, const void *from, size_t byte_count, struct cllm_error *err)
{
    (void)gpu, (void)d_to, (void)from, (void)byte_count;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_download(struct cllm_gpu *gpu, void *to, const void *d_from, size_t byte_count, struct cllm_error *err)
{
    (void)gpu, (void)to, (void)d_from, (void)byte_count;
    return fail_not_built(err);
}

void *cllm_gpu_stream(const struct cllm_gpu *gpu)
{
    (void)gpu;
    return NULL;
}

enum cllm_status cllm_gpu_set_stream(struct cllm_gpu *gpu, void *stream, struct cllm_error *err)
{
    (void)gpu, (void)stream;
    return fail_not_built(err);
}

uint32_t cllm_gpu_run_chunks(const struct cllm_data *data, uint32_t first_chunk, uint32_t chunk_count, bool *decodes_out)
{
    (void)data, (void)first_chunk;
    *decodes_out = false;
    return chunk_count;
}

enum cllm_status cllm_gpu_batch_create(struct cllm_gpu *gpu, const struct cllm_gpu_span *spans, size_t span_count,
                                       struct cllm_gpu_batch **batch_out, struct cllm_error *err)
{
    (void)gpu, (void)spans, (void)span_count;
    *batch_out = NULL;
    return fail_not_built(err);
}

void cllm_gpu_batch_destroy(struct cllm_gpu_batch *batch)
{
    (void)batch;
}

struct cllm_gpu_batch_info cllm_gpu_batch_info(const struct cllm_gpu_batch *batch)
{
    (void)batch;
    return (struct cllm_gpu_batch_info){0};
}

enum cllm_status cllm_gpu_batch_decode(const struct cllm_gpu_batch *batch, void *stream, const void *d_stored, void *d_out,
                                       struct cllm_error *err)
{
    (void)batch, (void)stream, (void)d_stored, (void)d_out;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_batch_check(const struct cllm_gpu_batch *batch, void *stream, size_t *bad_span_out,
                                      uint32_t *bad_chunk_out, struct cllm_error *err)
{
    (void)batch, (void)stream, (void)bad_span_out, (void)bad_chunk_out;
    return fail_not_built(err);
}

bool cllm_gpu_decodes(const struct cllm_chunk *chunk)
{
    (void)chunk;
    return false;
}

size_t cllm_gpu_scratch_bytes(size_t item_count, bool palettes)
{
    (void)item_count, (void)palettes;
    return 0;
}

enum cllm_status cllm_gpu_decode(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count,
                                 struct cllm_error *err)
{
    (void)gpu, (void)items, (void)item_count;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_hash(struct cllm_gpu *gpu, const struct cllm_gpu_item *items, size_t item_count, void *d_digests,
                               struct cllm_error *err)
{
    (void)gpu, (void)items, (void)item_count, (void)d_digests;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_finish_decode(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err)
{
    (void)gpu, (void)bad_item_out;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_finish(struct cllm_gpu *gpu, size_t *bad_item_out, struct cllm_error *err)
{
    (void)gpu, (void)bad_item_out;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_engine_create(unsigned device_index, const struct cllm_engine **engine_out, struct cllm_error *err)
{
    (void)device_index;
    *engine_out = NULL;
    return fail_not_built(err);
}

void cllm_gpu_engine_destroy(const struct cllm_engine *engine)
{
    (void)engine;
}

enum cllm_status cllm_gpu_engine_create_tuned(unsigned device_index, const struct cllm_gpu_engine_tuning *tuning,
                                              const struct cllm_engine **engine_out, struct cllm_error *err)
{
    (void)tuning;
    return cllm_gpu_engine_create(device_index, engine_out, err);
}

struct cllm_gpu_engine_times cllm_gpu_engine_times(const struct cllm_engine *engine)
{
    (void)engine;
    return (struct cllm_gpu_engine_times){0};
}

/* gpu_device_stub.c - the functions of gpu_device.h in a build without CUDA. */
#include "gpu_device.h"

static enum cllm_status fail_not_built(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET,
                     "this build has no GPU support: it was built without the CUDA toolkit");
}

enum cllm_status cllm_gpu_device_open(unsigned device_index, struct cllm_gpu_device **device_out, struct cllm_error *err)
{
    (void)device_index;
    *device_out = NULL;
    return fail_not_built(err);
}

void cllm_gpu_device_close(struct cllm_gpu_device *device)
{
    (void)device;
}

void cllm_gpu_device_hurry(struct cllm_gpu_device *device)
{
    (void)device;
}

const char *cllm_gpu_device_name(const struct cllm_gpu_device *device)
{
    (void)device;
    return "";
}

enum cllm_status cllm_gpu_device_memory(struct cllm_gpu_device *device, struct cllm_gpu_device_memory *memory_out,
                                        struct cllm_error *err)
{
    (void)device;
    *memory_out = (struct cllm_gpu_device_memory){0};
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_device_measure(struct cllm_gpu_device *device, uint64_t limit_bytes,
                                         struct cllm_gpu_device_speed *speed_out, struct cllm_error *err)
{
    (void)device, (void)limit_bytes;
    *speed_out = (struct cllm_gpu_device_speed){0};
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_device_allocate(struct cllm_gpu_device *device, uint64_t byte_count, void **d_memory_out,
                                          struct cllm_error *err)
{
    (void)device, (void)byte_count;
    *d_memory_out = NULL;
    return fail_not_built(err);
}

void cllm_gpu_device_free(struct cllm_gpu_device *device, void *d_memory)
{
    (void)device, (void)d_memory;
}

enum cllm_status cllm_gpu_device_pin(struct cllm_gpu_device *device, void *memory, uint64_t byte_count, void **d_memory_out,
                                     struct cllm_error *err)
{
    (void)device, (void)memory, (void)byte_count, (void)d_memory_out;
    return fail_not_built(err);
}

void cllm_gpu_device_unpin(struct cllm_gpu_device *device, void *memory)
{
    (void)device, (void)memory;
}

enum cllm_status cllm_gpu_device_stream_create(struct cllm_gpu_device *device, void **stream_out, struct cllm_error *err)
{
    (void)device, (void)stream_out;
    return fail_not_built(err);
}

void cllm_gpu_device_stream_destroy(struct cllm_gpu_device *device, void *stream)
{
    (void)device, (void)stream;
}

enum cllm_status cllm_gpu_device_stream_finish(struct cllm_gpu_device *device, void *stream, struct cllm_error *err)
{
    (void)device, (void)stream;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_device_event_create(struct cllm_gpu_device *device, bool timed, void **event_out,
                                              struct cllm_error *err)
{
    (void)device, (void)timed, (void)event_out;
    return fail_not_built(err);
}

void cllm_gpu_device_event_destroy(struct cllm_gpu_device *device, void *event)
{
    (void)device, (void)event;
}

enum cllm_status cllm_gpu_device_event_record(struct cllm_gpu_device *device, void *event, void *stream, struct cllm_error *err)
{
    (void)device, (void)event, (void)stream;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_device_event_wait(struct cllm_gpu_device *device, void *event, void *stream, struct cllm_error *err)
{
    (void)device, (void)event, (void)stream;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_device_event_finish(struct cllm_gpu_device *device, void *event, struct cllm_error *err)
{
    (void)device, (void)event;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_device_event_seconds(struct cllm_gpu_device *device, void *start, void *end, double *seconds_out,
                                               struct cllm_error *err)
{
    (void)device, (void)start, (void)end, (void)seconds_out;
    return fail_not_built(err);
}

enum cllm_status cllm_gpu_device_copy(struct cllm_gpu_device *device, void *to, const void *from, uint64_t byte_count,
                                      void *stream, struct cllm_error *err)
{
    (void)device, (void)to, (void)from, (void)byte_count, (void)stream;
    return fail_not_built(err);
}

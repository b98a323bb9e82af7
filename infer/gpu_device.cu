/* gpu_device.cu - see gpu_device.h. */
#include "gpu_device.h"

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#define PROBE_LINK_BYTES ((size_t)64 << 20)
#define PROBE_COPY_BYTES ((size_t)256 << 20)
#define PROBE_LEAST_BYTES ((size_t)1 << 20)
#define PROBE_ROUNDS 5

struct cllm_gpu_device {
    int index;
    char name[256];
};

static enum cllm_status attempt(cudaError_t result, const char *what, struct cllm_error *err)
{
    if (result == cudaSuccess) return CLLM_OK;
    (void)cudaGetLastError();
    const enum cllm_status status = result == cudaErrorMemoryAllocation ? CLLM_E_NOMEM : CLLM_E_DEVICE;
    return cllm_fail(err, status, CLLM_NO_OFFSET, "cannot %s: %s", what, cudaGetErrorString(result));
}

/* The current device is a property of the thread. */
static enum cllm_status use(const struct cllm_gpu_device *device, struct cllm_error *err)
{
    return attempt(cudaSetDevice(device->index), "use the GPU", err);
}

enum cllm_status cllm_gpu_device_open(unsigned device_index, struct cllm_gpu_device **device_out, struct cllm_error *err)
{
    int count = 0;
    cudaDeviceProp properties;
    *device_out = NULL;
    enum cllm_status status = attempt(cudaGetDeviceCount(&count), "find a GPU and its driver", err);
    if (status) return CLLM_E_DEVICE;
    if (device_index >= (unsigned)count) {
        return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET, "found %d GPUs, expected one of number %u", count, device_index);
    }
    struct cllm_gpu_device *device = (struct cllm_gpu_device *)calloc(1, sizeof *device);
    if (!device) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a device");
    device->index = (int)device_index;
    status = attempt(cudaGetDeviceProperties(&properties, device->index), "query the GPU", err);
    if (!status) status = use(device, err);
    if (!status) status = attempt(cudaFree(NULL), "start the GPU", err); /* makes the context */
    if (status) {
        free(device);
        return status;
    }
    snprintf(device->name, sizeof device->name, "%s", properties.name);
    *device_out = device;
    return CLLM_OK;
}

void cllm_gpu_device_close(struct cllm_gpu_device *device)
{
    free(device);
}

void cllm_gpu_device_hurry(struct cllm_gpu_device *device)
{
    if (cudaSetDevice(device->index) != cudaSuccess || cudaSetDeviceFlags(cudaDeviceScheduleSpin) != cudaSuccess)
        (void)cudaGetLastError();
}

const char *cllm_gpu_device_name(const struct cllm_gpu_device *device)
{
    return device->name;
}

enum cllm_status cllm_gpu_device_memory(struct cllm_gpu_device *device, struct cllm_gpu_device_memory *memory_out,
                                        struct cllm_error *err)
{
    size_t free_bytes = 0, total_bytes = 0;
    enum cllm_status status = use(device, err);
    if (!status) status = attempt(cudaMemGetInfo(&free_bytes, &total_bytes), "query the GPU's memory", err);
    *memory_out = {free_bytes, total_bytes};
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- memory */

enum cllm_status cllm_gpu_device_allocate(struct cllm_gpu_device *device, uint64_t byte_count, void **d_memory_out,
                                          struct cllm_error *err)
{
    *d_memory_out = NULL;
    enum cllm_status status = use(device, err);
    if (status) return status;
    status = attempt(cudaMalloc(d_memory_out, byte_count ? (size_t)byte_count : 1), "allocate device memory", err);
    return status ? cllm_fail_context(err, status, "%llu bytes", (unsigned long long)byte_count) : CLLM_OK;
}

void cllm_gpu_device_free(struct cllm_gpu_device *device, void *d_memory)
{
    if (d_memory && cudaSetDevice(device->index) == cudaSuccess) cudaFree(d_memory);
}

enum cllm_status cllm_gpu_device_pin(struct cllm_gpu_device *device, void *memory, uint64_t byte_count, void **d_memory_out,
                                     struct cllm_error *err)
{
    enum cllm_status status = use(device, err);
    const unsigned flags = cudaHostRegisterPortable | cudaHostRegisterMapped;
    if (!status) status = attempt(cudaHostRegister(memory, (size_t)byte_count, flags), "pin host memory", err);
    if (status || !d_memory_out) return status;
    status = attempt(cudaHostGetDevicePointer(d_memory_out, memory, 0), "map host memory", err);
    if (status) cudaHostUnregister(memory);
    return status;
}

void cllm_gpu_device_unpin(struct cllm_gpu_device *device, void *memory)
{
    if (memory && cudaSetDevice(device->index) == cudaSuccess) cudaHostUnregister(memory);
}

/* --------------------------------------------------------------------------------------------------- streams, events */

enum cllm_status cllm_gpu_device_stream_create(struct cllm_gpu_device *device, void **stream_out, struct cllm_error *err)
{
    cudaStream_t stream = NULL;
    enum cllm_status status = use(device, err);
    if (!status) status = attempt(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "create a stream", err);
    *stream_out = stream;
    return status;
}

void cllm_gpu_device_stream_destroy(struct cllm_gpu_device *device, void *stream)
{
    if (stream && cudaSetDevice(device->index) == cudaSuccess) cudaStreamDestroy((cudaStream_t)stream);
}

enum cllm_status cllm_gpu_device_stream_finish(struct cllm_gpu_device *device, void *stream, struct cllm_error *err)
{
    enum cllm_status status = use(device, err);
    return status ? status : attempt(cudaStreamSynchronize((cudaStream_t)stream), "finish the GPU's work", err);
}

enum cllm_status cllm_gpu_device_event_create(struct cllm_gpu_device *device, bool timed, void **event_out,
                                              struct cllm_error *err)
{
    cudaEvent_t event = NULL;
    const unsigned flags = cudaEventBlockingSync | (timed ? 0 : cudaEventDisableTiming);
    enum cllm_status status = use(device, err);
    if (!status) status = attempt(cudaEventCreateWithFlags(&event, flags), "create an event", err);
    *event_out = event;
    return status;
}

void cllm_gpu_device_event_destroy(struct cllm_gpu_device *device, void *event)
{
    if (event && cudaSetDevice(device->index) == cudaSuccess) cudaEventDestroy((cudaEvent_t)event);
}

enum cllm_status cllm_gpu_device_event_record(struct cllm_gpu_device *device, void *event, void *stream, struct cllm_error *err)
{
    enum cllm_status status = use(device, err);
    return status ? status : attempt(cudaEventRecord((cudaEvent_t)event, (cudaStream_t)stream), "record an event", err);
}

enum cllm_status cllm_gpu_device_event_wait(struct cllm_gpu_device *device, void *event, void *stream, struct cllm_error *err)
{
    enum cllm_status status = use(device, err);
    return status ? status : attempt(cudaStreamWaitEvent((cudaStream_t)stream, (cudaEvent_t)event, 0), "wait for an event", err);
}

enum cllm_status cllm_gpu_device_event_finish(struct cllm_gpu_device *device, void *event, struct cllm_error *err)
{
    enum cllm_status status = use(device, err);
    return status ? status : attempt(cudaEventSynchronize((cudaEvent_t)event), "finish the GPU's work", err);
}

enum cllm_status cllm_gpu_device_event_seconds(struct cllm_gpu_device *device, void *start, void *end, double *seconds_out,
                                               struct cllm_error *err)
{
    float milliseconds = 0;
    enum cllm_status status = use(device, err);
    if (!status) status = attempt(cudaEventElapsedTime(&milliseconds, (cudaEvent_t)start, (cudaEvent_t)end), "read a time", err);
    *seconds_out = milliseconds * 1e-3;
    return status;
}

enum cllm_status cllm_gpu_device_copy(struct cllm_gpu_device *device, void *to, const void *from, uint64_t byte_count,
                                      void *stream, struct cllm_error *err)
{
    enum cllm_status status = use(device, err);
    if (status || byte_count == 0) return status;
    return attempt(cudaMemcpyAsync(to, from, (size_t)byte_count, cudaMemcpyDefault, (cudaStream_t)stream), "copy", err);
}

/* -------------------------------------------------------------------------------------------------------- bandwidths */

/* What a measurement holds. */
struct probe {
    struct cllm_gpu_device *device;
    void *stream, *start, *end;
    void *host;
    void *d_from, *d_to;
    size_t copy_bytes; /* device to device */
    size_t link_bytes;
};

/* The best of some copies. */
static enum cllm_status time_copy(const struct probe *probe, void *to, const void *from, size_t byte_count, double *seconds_out,
                                  struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    *seconds_out = 1e9;
    for (int i = 0; !status && i < PROBE_ROUNDS; i++) {
        double seconds = 0;
        status = cllm_gpu_device_event_record(probe->device, probe->start, probe->stream, err);
        if (!status) status = cllm_gpu_device_copy(probe->device, to, from, byte_count, probe->stream, err);
        if (!status) status = cllm_gpu_device_event_record(probe->device, probe->end, probe->stream, err);
        if (!status) status = cllm_gpu_device_event_finish(probe->device, probe->end, err);
        if (!status) status = cllm_gpu_device_event_seconds(probe->device, probe->start, probe->end, &seconds, err);
        if (!status && seconds > 0 && seconds < *seconds_out) *seconds_out = seconds;
    }
    return status;
}

static enum cllm_status run_probe(struct probe *probe, struct cllm_gpu_device_speed *speed_out, struct cllm_error *err)
{
    double link_seconds = 0, copy_seconds = 0;
    enum cllm_status status = cllm_gpu_device_stream_create(probe->device, &probe->stream, err);
    if (!status) status = cllm_gpu_device_event_create(probe->device, true, &probe->start, err);
    if (!status) status = cllm_gpu_device_event_create(probe->device, true, &probe->end, err);
    if (!status) status = attempt(cudaMallocHost(&probe->host, probe->link_bytes), "pin host memory", err);
    if (!status) status = cllm_gpu_device_allocate(probe->device, probe->copy_bytes, &probe->d_from, err);
    if (!status) status = cllm_gpu_device_allocate(probe->device, probe->copy_bytes, &probe->d_to, err);
    if (!status) status = time_copy(probe, probe->d_to, probe->host, probe->link_bytes, &link_seconds, err);
    if (!status) status = time_copy(probe, probe->d_to, probe->d_from, probe->copy_bytes, &copy_seconds, err);
    if (status) return status;
    speed_out->link_bytes_per_second = (double)probe->link_bytes / link_seconds;
    speed_out->copy_bytes_per_second = 2.0 * (double)probe->copy_bytes / copy_seconds;
    return CLLM_OK;
}

enum cllm_status cllm_gpu_device_measure(struct cllm_gpu_device *device, uint64_t limit_bytes,
                                         struct cllm_gpu_device_speed *speed_out, struct cllm_error *err)
{
    struct probe probe = {};
    probe.device = device;
    probe.copy_bytes = limit_bytes / 4 < PROBE_COPY_BYTES ? (size_t)limit_bytes / 4 : PROBE_COPY_BYTES;
    if (probe.copy_bytes < PROBE_LEAST_BYTES) probe.copy_bytes = PROBE_LEAST_BYTES;
    probe.link_bytes = probe.copy_bytes < PROBE_LINK_BYTES ? probe.copy_bytes : PROBE_LINK_BYTES;
    *speed_out = {0, 0};
    enum cllm_status status = use(device, err);
    if (!status) status = run_probe(&probe, speed_out, err);
    cllm_gpu_device_free(device, probe.d_from);
    cllm_gpu_device_free(device, probe.d_to);
    cudaFreeHost(probe.host);
    cllm_gpu_device_event_destroy(device, probe.start);
    cllm_gpu_device_event_destroy(device, probe.end);
    cllm_gpu_device_stream_destroy(device, probe.stream);
    return status;
}

/* context.cu - devices, streams, memory. */
#include "batch.h"

#include <cstdio>
#include <cstdlib>

unsigned cllm_gpu_count(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    return count > 0 ? (unsigned)count : 0;
}

static __global__ void kernel_nothing()
{
}

static enum cllm_status find_code(struct cllm_error *err)
{
    cudaFuncAttributes attributes;
    return cuda_try(cudaFuncGetAttributes(&attributes, kernel_nothing), "find code for this device in this build", err);
}

static enum cllm_status open_device(struct cllm_gpu *gpu, struct cllm_error *err)
{
    int count = 0;
    enum cllm_status status = cuda_try(cudaGetDeviceCount(&count), "find a GPU and its driver", err);
    if (status) return status == CLLM_E_NOMEM ? status : CLLM_E_DEVICE;
    if (gpu->device >= count) {
        return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET, "there is no GPU number %d: %d found", gpu->device, count);
    }
    cudaDeviceProp properties;
    status = cuda_try(cudaGetDeviceProperties(&properties, gpu->device), "query the device", err);
    /* Many threads may wait for the device at once: asleep, not spinning. No harm where it was in use already. */
    if (!status && cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync) != cudaSuccess) (void)cudaGetLastError();
    if (!status) status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    if (!status) status = find_code(err);
    if (!status) status = cuda_try(cudaStreamCreateWithFlags(&gpu->own_stream, cudaStreamNonBlocking), "create a stream", err);
    if (!status) status = cuda_try(cudaMallocHost(&gpu->status, 2 * sizeof *gpu->status), "allocate pinned memory", err);
    if (!status)
        status = cuda_try(cudaEventCreateWithFlags(&gpu->decoded, cudaEventDisableTiming | cudaEventBlockingSync),
                          "create an event", err);
    gpu->stream = gpu->own_stream;
    if (!status) snprintf(gpu->name, sizeof gpu->name, "%s", properties.name);
    return status;
}

enum cllm_status cllm_gpu_create(unsigned device_index, struct cllm_gpu **gpu_out, struct cllm_error *err)
{
    *gpu_out = NULL;
    struct cllm_gpu *gpu = (struct cllm_gpu *)calloc(1, sizeof *gpu);
    if (!gpu) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a GPU context");
    gpu->device = device_index < 1024 ? (int)device_index : 1024;
    enum cllm_status status = open_device(gpu, err);
    if (status) {
        cllm_gpu_destroy(gpu);
        return status;
    }
    *gpu_out = gpu;
    return CLLM_OK;
}

void cllm_gpu_destroy(struct cllm_gpu *gpu)
{
    if (!gpu) return;
    if (gpu->own_stream) {
        cudaSetDevice(gpu->device);
        cudaStreamSynchronize(gpu->stream);
        cllm_gpu_batch_destroy(gpu->once);
        cudaFreeHost(gpu->staging.bytes);
        cudaFreeHost(gpu->hash_staging.bytes);
        cudaFreeHost(gpu->status);
        if (gpu->decoded) cudaEventDestroy(gpu->decoded);
        cudaStreamDestroy(gpu->own_stream);
    }
    free(gpu->spans);
    free(gpu);
}

const char *cllm_gpu_name(const struct cllm_gpu *gpu)
{
    return gpu->name;
}

void *cllm_gpu_stream(const struct cllm_gpu *gpu)
{
    return gpu->stream;
}

enum cllm_status cllm_gpu_set_stream(struct cllm_gpu *gpu, void *stream, struct cllm_error *err)
{
    enum cllm_status status = gpu_wait(gpu, err);
    if (!status) gpu->stream = stream ? (cudaStream_t)stream : gpu->own_stream;
    return status;
}

enum cllm_status gpu_wait(struct cllm_gpu *gpu, struct cllm_error *err)
{
    enum cllm_status status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    if (!status) status = cuda_try(cudaStreamSynchronize(gpu->stream), "finish its work", err);
    if (!status) gpu->hashing = false;
    return status;
}

/* What is needed; more of it where it was not enough before and may not be again. */
static size_t grown(const struct gpu_memory *memory, size_t byte_count)
{
    return memory->capacity > 0 ? byte_count + byte_count / 2 : byte_count;
}

enum cllm_status gpu_reserve_pinned(struct cllm_gpu *gpu, struct gpu_memory *memory, size_t byte_count, struct cllm_error *err)
{
    if (byte_count <= memory->capacity) return CLLM_OK;
    enum cllm_status status = gpu_wait(gpu, err);
    if (status) return status;
    cudaFreeHost(memory->bytes);
    const size_t capacity = grown(memory, byte_count);
    *memory = {nullptr, 0};
    status = cuda_try(cudaMallocHost(&memory->bytes, capacity), "allocate pinned memory", err);
    if (!status) memory->capacity = capacity;
    return status;
}

enum cllm_status gpu_reserve_device(struct cllm_gpu *gpu, struct gpu_memory *memory, size_t byte_count, struct cllm_error *err)
{
    if (byte_count <= memory->capacity) return CLLM_OK;
    enum cllm_status status = gpu_wait(gpu, err);
    if (status) return status;
    cudaFree(memory->bytes);
    const size_t capacity = grown(memory, byte_count);
    *memory = {nullptr, 0};
    status = cuda_try(cudaMalloc(&memory->bytes, capacity), "allocate device memory", err);
    if (!status) memory->capacity = capacity;
    return status;
}

enum cllm_status cllm_gpu_allocate(struct cllm_gpu *gpu, size_t byte_count, void **d_memory_out, struct cllm_error *err)
{
    *d_memory_out = NULL;
    enum cllm_status status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    return status ? status : cuda_try(cudaMalloc(d_memory_out, byte_count ? byte_count : 1), "allocate device memory", err);
}

void cllm_gpu_free(struct cllm_gpu *gpu, void *d_memory)
{
    if (!d_memory) return;
    cudaSetDevice(gpu->device);
    cudaFree(d_memory);
}

enum cllm_status cllm_gpu_allocate_pinned(struct cllm_gpu *gpu, size_t byte_count, void **memory_out, struct cllm_error *err)
{
    *memory_out = NULL;
    enum cllm_status status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    return status ? status : cuda_try(cudaMallocHost(memory_out, byte_count ? byte_count : 1), "allocate pinned memory", err);
}

void cllm_gpu_free_pinned(struct cllm_gpu *gpu, void *memory)
{
    if (!memory) return;
    cudaSetDevice(gpu->device);
    cudaFreeHost(memory);
}

enum cllm_status cllm_gpu_upload(struct cllm_gpu *gpu, void *d_to, const void *from, size_t byte_count, struct cllm_error *err)
{
    enum cllm_status status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    if (status) return status;
    return cuda_try(cudaMemcpyAsync(d_to, from, byte_count, cudaMemcpyHostToDevice, gpu->stream), "copy to the device", err);
}

enum cllm_status cllm_gpu_download(struct cllm_gpu *gpu, void *to, const void *d_from, size_t byte_count, struct cllm_error *err)
{
    enum cllm_status status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    if (status) return status;
    return cuda_try(cudaMemcpyAsync(to, d_from, byte_count, cudaMemcpyDeviceToHost, gpu->stream), "copy from the device", err);
}

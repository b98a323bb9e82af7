/* device.c - see device.h. */
#include "device.h"

#include "cllm_decode_gpu.h"

#include <stdlib.h>
#include <sys/stat.h>

/* A GPU takes half a second to start: by itself it is chosen for what is large. */
#define AUTO_GPU_MIN_BYTES (INT64_C(1) << 30)

static bool is_large(const char *const *containers, int container_count)
{
    int64_t bytes = 0;
    for (int i = 0; i < container_count; i++) {
        struct stat info;
        if (stat(containers[i], &info) == 0 && S_ISREG(info.st_mode)) bytes += info.st_size;
    }
    return bytes >= AUTO_GPU_MIN_BYTES;
}

enum cllm_status cllm_engine_open(const struct cllm_engine_choice *choice, const char *const *containers, int container_count,
                                  const struct cllm_engine **engine_out, struct cllm_error *err)
{
    const bool asked = choice->device == CLLM_DEVICE_CUDA;
    *engine_out = NULL;
    /* The driver lays the streams of a program on eight queues of the device, where they wait for each other, unless told that
     * there are more. It looks when it starts. */
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    if (!asked && (choice->device == CLLM_DEVICE_CPU || !is_large(containers, container_count) || cllm_gpu_count() == 0))
        return CLLM_OK;
    enum cllm_status status = cllm_gpu_engine_create(choice->index, engine_out, err);
    if (!status || !asked) return CLLM_OK;
    return cllm_fail_context(err, CLLM_E_DEVICE, "--device cuda"); /* a build without GPU support too */
}

void cllm_engine_close(const struct cllm_engine *engine)
{
    cllm_gpu_engine_destroy(engine);
}

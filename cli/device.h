/* device.h - the GPU that decodes for cverify and cpack -d, where one was asked for or is worth it. */
#ifndef CLLM_CLI_DEVICE_H
#define CLLM_CLI_DEVICE_H

#include "cllm_engine.h"
#include "options.h"

struct cllm_engine_choice {
    enum cllm_device device; /* CLLM_DEVICE_AUTO by default */
    unsigned index;
};

/* The engine for these containers, to be given back to cllm_engine_close, or null where the CPU does it. With auto a GPU is taken
 * where there is one and the containers have a gigabyte or more; one that does not start is no failure. Fails with DEVICE where a
 * GPU was asked for and there is none. */
enum cllm_status cllm_engine_open(const struct cllm_engine_choice *choice, const char *const *containers, int container_count,
                                  const struct cllm_engine **engine_out, struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null. */
void cllm_engine_close(const struct cllm_engine *engine);

#endif

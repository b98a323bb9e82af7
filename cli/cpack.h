/* cpack.h - the parts of cpack: one function for each thing that it does. Each reports for itself and returns an exit code. */
#ifndef CLLM_CPACK_H
#define CLLM_CPACK_H

#include "device.h"
#include "options.h"

struct cpack_options {
    struct cllm_common_options common;
    const char *output;               /* -o, or null */
    const char *file_name;            /* --file, or null */
    struct cllm_engine_choice device; /* --device */
    bool device_given;
    bool force;
    bool remove_source;
    bool only_weights;
    bool opaque;
};

int cpack_pack(const struct cpack_options *options, const char *input);
int cpack_restore(const struct cpack_options *options, const char *container);
int cpack_list(const struct cpack_options *options, const char *const *containers, int container_count);

#endif

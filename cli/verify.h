/* verify.h - verifies containers one after the other and reports: cverify, and cpack -t. */
#ifndef CLLM_CLI_VERIFY_H
#define CLLM_CLI_VERIFY_H

#include "cllm_engine.h"
#include "options.h"

struct cllm_verify_request {
    struct cllm_common_options common;
    const char *against;              /* original file, directory or list of SHA-256; or null */
    const struct cllm_engine *engine; /* decodes and hashes what it takes; or null */
    bool quick;
    bool tag;    /* print the SHA-256 of the restored files instead of OK lines */
    bool status; /* print nothing */
};

/* Returns the most severe exit code. */
int cllm_verify_containers(const struct cllm_verify_request *request, const char *const *containers, int container_count);

#endif

/* cllm_progress.h - how long operations report, and are asked to stop. */
#ifndef CLLM_PROGRESS_H
#define CLLM_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* `report` is called from the thread that called the library, now and then, with the bytes done so far and in all (decoded
 * or source bytes); it returns false to stop, is not called again, and the operation cleans up and fails with INTERRUPTED. */
struct cllm_progress {
    bool (*report)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *user;
};

#endif

/* walks.h - goes through files of a container side by side: the SHA-256 of a file is sequential, so where files are large, each
 * is gone through by a walk of its own (walk.h), as many at a time as is worth it. Verifying and restoring are the same. */
#ifndef CLLM_WALKS_H
#define CLLM_WALKS_H

#include "cllm_decode.h"

struct cllm_walks_options {
    const struct cllm_reader *reader;
    uint32_t first_file;
    uint32_t file_count;
    const struct cllm_file_sink *sink;    /* may be null */
    const struct cllm_engine *engine;     /* may be null */
    const struct cllm_progress *progress; /* over decoded bytes, from the calling thread; may be null */
    unsigned thread_count;                /* 0: as many as the process may use */
    bool quick;                           /* as walk.h has it, and the next one */
    bool once;
    void *user;
    /* Something is wrong with the container. In the order of files whatever the number of threads, one at a time, on any thread.
     * Anything but OK ends all walks and is their failure. */
    enum cllm_status (*problem)(void *user, const struct cllm_error *problem, struct cllm_error *err);
    /* A data object has a problem; one at a time. May be null. */
    void (*bad_data)(void *user, uint32_t data_index);
};

/* `report_out` is filled in every case, but for tensor_count. With one walk everything is called on the calling thread. Fails
 * with NOMEM, INTERRUPTED, or what `problem` or the sink returned. */
enum cllm_status cllm_walks_run(const struct cllm_walks_options *options, struct cllm_verify_report *report_out,
                                struct cllm_error *err) CLLM_MUST_USE;

#endif

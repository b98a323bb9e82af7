/* walk.h - goes through files of a container part by part, in order: restoring and verifying are the same walk. */
#ifndef CLLM_WALK_H
#define CLLM_WALK_H

#include "cllm_decode.h"

/* Whoever wants the walk. The functions are called on the thread that walks, which need not be one for all walks at a time. */
struct cllm_walk_owner {
    void *user;
    /* The file to go through next, or null where there is no more. */
    const struct cllm_file *(*next_file)(void *user);
    /* Something is wrong with the container. Anything but OK ends the walk and is its failure. */
    enum cllm_status (*problem)(void *user, const struct cllm_file *file, const struct cllm_error *problem,
                                struct cllm_error *err);
    /* A data object was gone through that has a problem. */
    void (*bad_data)(void *user, uint32_t data_index);
    /* A file was gone through. Anything but OK ends the walk. */
    enum cllm_status (*end_file)(void *user, const struct cllm_file *file, struct cllm_error *err);
    /* So many bytes of files more are done. Anything but OK ends the walk. */
    enum cllm_status (*advance)(void *user, uint64_t byte_count, struct cllm_error *err);
};

struct cllm_walk_options {
    const struct cllm_reader *reader;
    const struct cllm_walk_owner *owner;
    const struct cllm_file_sink *sink; /* receives the decoded bytes; may be null */
    const struct cllm_engine *engine;  /* decodes what it takes; may be null */
    unsigned thread_count;             /* 0: as many as the process may use */
    unsigned walk_count;               /* side by side, this one too: they share the memory for payload and the engine's lanes */
    bool quick;                        /* stored checksums only */
    /* Each data object is gone through once, however often files name it, and the engine gives digests only. The SHA-256 of a
     * file is recomputed only where all its bytes are seen that way. Not with a sink, which needs them all. */
    bool once;
};

/* Runs of chunks that all walks of a container may work on at a time: what they take, as they are stored, as they were and put
 * together, is 1 GiB at most. There may be 341 of up to 1 MiB, 170 where chunks are of 128 KiB, whose runs are of 2 MiB; the
 * format allows chunks of 16 MiB, of which there may be 21. With an engine there are no more than it has lanes for. (One walk
 * alone has all of its lanes: runs that the engine takes need no memory here.) */
unsigned cllm_walk_jobs_max(const struct cllm_index *index, const struct cllm_engine *engine);

/* Fails with NOMEM or what the owner or the sink returned. Problems of the container are for the owner. */
enum cllm_status cllm_walk(const struct cllm_walk_options *options, struct cllm_verify_report *report_out,
                           struct cllm_error *err) CLLM_MUST_USE;

#endif

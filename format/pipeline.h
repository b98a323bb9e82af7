/* pipeline.h - work on a sequence of pieces with several threads, in order where order matters: each piece is prepared in
 * order, worked on by any thread, and finished in order. The outcome does not depend on the number of threads. */
#ifndef CLLM_PIPELINE_H
#define CLLM_PIPELINE_H

#include "cllm.h"

/* A job is the caller's memory for one piece; jobs are used again and again. */
struct cllm_pipeline {
    void *user;
    /* Calling thread, in order: fills the job with the next piece, or sets *more_out to false when there is none. */
    enum cllm_status (*prepare)(void *user, void *job, bool *more_out, struct cllm_error *err);
    /* Any thread, the calling one too, any order; touches only the job and what is read-only, and waits for no other step. */
    enum cllm_status (*work)(void *user, void *job, struct cllm_error *err);
    /* Calling thread, in order. May be null. */
    enum cllm_status (*finish)(void *user, void *job, struct cllm_error *err);
};

/* Number of threads to use where the caller said `thread_count`: 0 means as many as the process may run on. At least 1. */
unsigned cllm_thread_count(unsigned thread_count);

/* Number of jobs that keep `thread_count` threads busy. */
unsigned cllm_pipeline_job_count(unsigned thread_count);

/* Runs until prepare says that there is no more, or a step fails: then the failure of the earliest piece is returned and no
 * later piece is finished. `jobs` are job_count distinct pointers; with one thread everything runs on the calling thread.
 * Fails with NOMEM, or what a step returned. */
enum cllm_status cllm_pipeline_run(const struct cllm_pipeline *pipeline, void *const *jobs, unsigned job_count,
                                   unsigned thread_count, struct cllm_error *err) CLLM_MUST_USE;

/* A thread that does one thing at a time for its owner, who does something else meanwhile. One thread uses it. */
struct cllm_helper;
typedef enum cllm_status cllm_helper_work(void *user, struct cllm_error *err);

/* Fails with NOMEM. Where there cannot be another thread, the owner's does the work, in cllm_helper_start. */
enum cllm_status cllm_helper_create(struct cllm_helper **helper_out, struct cllm_error *err) CLLM_MUST_USE;

/* Has work(user) done; what it was started with before must have been waited for. */
void cllm_helper_start(struct cllm_helper *helper, cllm_helper_work *work, void *user);

/* Waits, and returns what the work did. */
enum cllm_status cllm_helper_wait(struct cllm_helper *helper, struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null. Nothing must be under way. */
void cllm_helper_destroy(struct cllm_helper *helper);

/* Zeroes memory by as many threads as `thread_count` says, sixteen at most: what it is for is fresh memory, whose pages one
 * thread alone gets at a few gigabytes a second. */
void cllm_zero_fresh(void *bytes, size_t byte_count, unsigned thread_count);

#endif

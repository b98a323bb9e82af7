/* against.h - compares what a container restores with the files it was made from, or with a list of their SHA-256. */
#ifndef CLLM_AGAINST_H
#define CLLM_AGAINST_H

#include "cllm.h"
#include "cllm_progress.h"

struct cllm_against {
    const char *path; /* decided by content: a directory; a file with lines as sha256sum writes them; else an original file */
    const struct cllm_progress *progress; /* may be null */
    void (*problem)(void *user, enum cllm_status status, const char *message);
    void *user;
};

/* Compares every file that the container records with the one of that name in the directory, beside the original file, or in
 * the list. Problems, each reported and all looked for: a file or line is missing (ABSENT), bytes differ, a .safetensors file is
 * there, or in a folder below, that the container does not have (DIGEST), a file or folder cannot be read (IO), folders are
 * deeper than packing allows (LIMIT). An original file under another name than the recorded one is compared with the container's
 * only .safetensors file. The recorded digests are taken as proven: verify first.
 * `*compared_out` is the number of files that were equal. Returns OK, the status of the first problem, or NOMEM, INTERRUPTED,
 * LIMIT and CORRUPT (the list), with `err` filled. */
enum cllm_status cllm_against_compare(const struct cllm_against *against, const struct cllm_reader *reader,
                                      uint64_t *compared_out, struct cllm_error *err) CLLM_MUST_USE;

#endif

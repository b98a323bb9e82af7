/* output.h - a file that appears under its name only when it is whole: temporary file in the same directory, then sync,
 * link or rename, sync of the directory. Nothing is left behind by a failure or a kill where the file system has O_TMPFILE. */
#ifndef CLLM_OUTPUT_H
#define CLLM_OUTPUT_H

#include "cllm.h"

#include <sys/types.h>
#include <sys/uio.h>

struct cllm_output; /* opaque; one thread at a time */

/* Starts a file that will be called `path`. Unless `replace`, an existing path is EXISTS (checked now, and again without a
 * race at commit). With `replace` only a regular file is replaced: a directory, device, FIFO or symbolic link
 * is USAGE. Fails with IO, NOMEM, EXISTS, USAGE. */
enum cllm_status cllm_output_create(const char *path, bool replace, struct cllm_output **output_out,
                                    struct cllm_error *err) CLLM_MUST_USE;

/* The same in a directory that is open already: `path` is what messages call the file, and its last component, which must be
 * a plain name, the name that it gets there. The descriptor stays the caller's. Fails with IO, NOMEM, EXISTS, USAGE. */
enum cllm_status cllm_output_create_at(int directory_fd, const char *path, bool replace, struct cllm_output **output_out,
                                       struct cllm_error *err) CLLM_MUST_USE;

/* Reserves space, so that a full disk is found before the work (a file system that cannot is no failure). */
enum cllm_status cllm_output_reserve(struct cllm_output *output, uint64_t byte_count, struct cllm_error *err) CLLM_MUST_USE;

/* Appends; short writes and EINTR are handled. Fails with IO. */
enum cllm_status cllm_output_write(struct cllm_output *output, const void *bytes, size_t byte_count,
                                   struct cllm_error *err) CLLM_MUST_USE;

/* Appends so many pieces of memory, one after the other, in as few system calls as possible. What `pieces` says is used up.
 * Fails with IO. */
enum cllm_status cllm_output_write_pieces(struct cllm_output *output, struct iovec *pieces, unsigned piece_count,
                                          struct cllm_error *err) CLLM_MUST_USE;

/* Drops what was written after `offset`; the next write appends there. */
enum cllm_status cllm_output_rewind(struct cllm_output *output, uint64_t offset, struct cllm_error *err) CLLM_MUST_USE;

uint64_t cllm_output_bytes(const struct cllm_output *output);

/* A path by which the unfinished file can be opened for reading (through /proc/self/fd), valid until commit or discard. */
const char *cllm_output_readable_path(const struct cllm_output *output);

/* Has what was written on the disk, as a commit does too: what the disk refuses is known before the file has its name. Fails with
 * IO. */
enum cllm_status cllm_output_sync(struct cllm_output *output, struct cllm_error *err) CLLM_MUST_USE;

/* Truncates to what was written, sets mode 0666 & ~umask, syncs file, gives it its name, syncs the directory. Frees the
 * output in every case; on failure nothing is left, but for one: where a file was replaced and then only the sync of its
 * directory fails, the new file, which is whole, stays. Fails with IO, EXISTS, USAGE, NOMEM. */
enum cllm_status cllm_output_commit(struct cllm_output *output, struct cllm_error *err) CLLM_MUST_USE;

/* Removes everything and frees. Accepts null. */
void cllm_output_discard(struct cllm_output *output);

#endif

/* cllm_encode.h - public: a checkpoint into a container. */
#ifndef CLLM_ENCODE_H
#define CLLM_ENCODE_H

#include "cllm.h"
#include "cllm_progress.h"
#include "cllm_source.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cllm_pack_options {
    unsigned thread_count;                /* 0: as many as the process may use; the container's bytes do not depend on it */
    bool replace;                         /* an existing output is replaced; otherwise it is EXISTS */
    const struct cllm_progress *progress; /* over source bytes; may be null */
};

struct cllm_pack_report {
    uint64_t source_bytes; /* all files */
    uint64_t container_bytes;
    uint64_t tensor_bytes; /* decoded bytes of all tensors */
    uint64_t shared_bytes; /* decoded bytes not stored again because an equal data object was there already */
    uint32_t file_count;
    uint32_t tensor_count;
    uint64_t chunk_count;
    uint8_t root[CLLM_DIGEST_BYTES];
};

/* Packs `source` into a new container at `output_path`. Every chunk is decoded again and compared with its input; the
 * finished container is reopened and its stored bytes checked; then it is synced and appears under its name. On any failure
 * nothing new is left on disk and an existing output is as it was, but for one: where it was replaced and then only the sync of
 * its folder fails, the new container, which is whole, stays.
 * `options` may be null: none.
 * Fails with USAGE (the output is one of the source's files, a folder, or with `replace` anything but a regular file), IO,
 * NOMEM, EXISTS, CORRUPT (the source changed while being read), LIMIT, INTERRUPTED (progress said stop), INTERNAL (self-check
 * failed). */
enum cllm_status cllm_pack(const struct cllm_source *source, const char *output_path, const struct cllm_pack_options *options,
                           struct cllm_pack_report *report_out, struct cllm_error *err) CLLM_MUST_USE;

#ifdef __cplusplus
}
#endif

#endif

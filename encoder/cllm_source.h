/* cllm_source.h - public: what a packer reads: files made of spans, some of which are tensors. One source per kind of input; all
 * give the same picture, validated in full when opened.
 */
#ifndef CLLM_SOURCE_H
#define CLLM_SOURCE_H

#include "cllm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CLLM_SPAN_LITERAL UINT32_MAX

/* A contiguous piece of a file: one whole tensor, or literal bytes between tensors. */
struct cllm_source_span {
    uint64_t offset;       /* in the file, bytes */
    uint64_t bytes;        /* 0 for an empty tensor; literal spans are never empty */
    uint32_t tensor_index; /* into cllm_source.tensors, or CLLM_SPAN_LITERAL */
};

struct cllm_source_tensor {
    const char *name;      /* name_bytes bytes of UTF-8, zero-terminated */
    const char *dtype;     /* static, one that cllm_dtype_find knows */
    const uint64_t *shape; /* rank extents, row-major; null where rank is 0 */
    uint32_t name_bytes;
    uint32_t element_bits;
    uint32_t rank;
    uint32_t file_index;
};

struct cllm_source_file {
    const char *name; /* as it will be restored: relative, '/', safe (no "..", no empty component, not absolute) */
    uint64_t bytes;
    const struct cllm_source_span *spans; /* in order, covering [0, bytes) without gap or overlap */
    uint32_t span_count;
};

/* Owned by cllm_source_open's caller; read-only. Files are in the order in which they are packed (sorted by name, weights
 * first), tensors in the order of their spans. */
struct cllm_source {
    const struct cllm_source_file *files;
    const struct cllm_source_tensor *tensors;
    uint32_t file_count;
    uint32_t tensor_count;
    uint64_t total_bytes;  /* of all files */
    char *const *warnings; /* warning_count lines for the user (unlisted files, wrong total_size, ...), printable */
    uint32_t warning_count;
};

struct cllm_source_options {
    bool only_weights; /* leave out everything but the .safetensors files (and an index given as INPUT) */
    bool opaque;       /* INPUT is one file to be kept as plain bytes, whatever is in it */
};

/* Opens `path`: a .safetensors file, a *.safetensors.index.json, or a checkpoint directory; which one is decided from what is
 * there. All headers are read and validated now; tensor bytes are not. `options` may be null: none.
 * Fails with IO, NOMEM, USAGE (not a regular file or directory), FORMAT (not a checkpoint), UNSUPPORTED (a dtype that
 * safetensors does not define), CORRUPT (a rule of the format is broken), LIMIT, ABSENT (a listed shard is missing). Safe for any
 * bytes; memory is bounded by the header limits. */
enum cllm_status cllm_source_open(const char *path, const struct cllm_source_options *options, struct cllm_source **source_out,
                                  struct cllm_error *err) CLLM_MUST_USE;

/* Reads exactly `byte_count` bytes of file `file_index`, one that there is, at `offset`. Fails with IO, or CORRUPT where the file
 * has become shorter. Any thread. */
enum cllm_status cllm_source_read(const struct cllm_source *source, uint32_t file_index, uint64_t offset, void *buffer,
                                  size_t byte_count, struct cllm_error *err) CLLM_MUST_USE;

/* Fails with CORRUPT where a file's size, modification time or identity is no longer what it was at open. */
enum cllm_status cllm_source_check_unchanged(const struct cllm_source *source, struct cllm_error *err) CLLM_MUST_USE;

/* True where `path` names (by device and inode) one of the source's files, which cllm_pack does not replace. */
bool cllm_source_owns(const struct cllm_source *source, const char *path);

/* Accepts null. */
void cllm_source_close(struct cllm_source *source);

#ifdef __cplusplus
}
#endif

#endif

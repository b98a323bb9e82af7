/* source_list.h - which files make up an input, before any of them is opened; and what a shard index says about them once
 * they are. Private to source.c, source_list.c (names, links, directories) and source_checkpoint.c (the index).
 */
#ifndef CLLM_SOURCE_LIST_H
#define CLLM_SOURCE_LIST_H

#include "cllm_source.h"

#define CLLM_SOURCE_FILE_COUNT_MAX 65536u
#define CLLM_SOURCE_DEPTH_MAX 16u /* of directories below the one given */
#define CLLM_SOURCE_INDEX_SUFFIX ".safetensors.index.json"
#define CLLM_SOURCE_WEIGHTS_SUFFIX ".safetensors"

/* A file to be packed: its name, relative to the list's directory. */
struct cllm_source_entry {
    char *name;
    bool is_weights; /* to be parsed as safetensors */
};

/* Lines for the user, owned. */
struct cllm_source_warnings {
    char **lines;
    uint32_t count;
};

/* Names that were left out. */
struct cllm_source_tally {
    char *first; /* in the order of bytes; null where count is 0 */
    uint32_t count;
};

/* The entries of one input. Zeroed, then filled with cllm_source_list_init. */
struct cllm_source_list {
    char *directory;      /* as the user wrote it; what names are relative to */
    char *real_directory; /* resolved; links must stay within it, */
    char *real_blobs;     /* or within ../../blobs, the layout of the model hub's cache; null where that does not exist */
    struct cllm_source_entry *entries;
    struct cllm_source_tally hidden;   /* their names start with '.' */
    struct cllm_source_tally unlisted; /* weights beside an index that does not list them */
    uint32_t count;
    uint32_t capacity;
    struct cllm_source_warnings warnings;
};

/* A name as it may be printed. */
struct cllm_source_text {
    char text[120];
};

/* Escapes and cuts `name` into `text`; returns its characters. */
const char *cllm_source_show(const char *name, struct cllm_source_text *text);

bool cllm_source_has_suffix(const char *name, const char *suffix);

/* `directory` joined with `name`; the caller frees. Null where memory is out. */
char *cllm_source_join(const char *directory, const char *name);

/* Appends a printf-like line; it must be printable already. Fails with NOMEM. Beyond a hundred lines it does nothing. */
enum cllm_status cllm_source_warn(struct cllm_source_warnings *warnings, struct cllm_error *err, const char *format, ...)
    CLLM_PRINTF(3, 4) CLLM_MUST_USE;

enum cllm_status cllm_source_list_init(struct cllm_source_list *list, const char *directory,
                                       struct cllm_error *err) CLLM_MUST_USE;
void cllm_source_list_free(struct cllm_source_list *list);

/* Adds one name. Fails with NOMEM, LIMIT. */
enum cllm_status cllm_source_list_add(struct cllm_source_list *list, const char *name, bool is_weights,
                                      struct cllm_error *err) CLLM_MUST_USE;

/* Adds the files that by convention stand beside the first entry, the input: configuration, tokenizer, licence, ... Fails as a
 * directory does. */
enum cllm_status cllm_source_list_add_sidecars(struct cllm_source_list *list, struct cllm_error *err) CLLM_MUST_USE;

/* Adds the files below the directory. Fails with IO, NOMEM, LIMIT, FORMAT (an entry is no regular file), CORRUPT (a link leads
 * out of the directory), ABSENT (a link leads to nothing). */
enum cllm_status cllm_source_list_add_directory(struct cllm_source_list *list, bool only_weights,
                                                struct cllm_error *err) CLLM_MUST_USE;

/* Adds a file that an index lists. Fails with ABSENT where it is missing, and as a directory does. */
enum cllm_status cllm_source_list_add_shard(struct cllm_source_list *list, const char *name,
                                            struct cllm_error *err) CLLM_MUST_USE;

/* Adds the shards that the index called `index_name` lists. `index` is a source that has this index as its only file. Fails
 * with CORRUPT (not a valid index, or unsafe names), ABSENT (a shard is missing), LIMIT, IO, NOMEM, and as a directory does. */
enum cllm_status cllm_source_list_add_shards(struct cllm_source_list *list, const struct cllm_source *index,
                                             const char *index_name, struct cllm_error *err) CLLM_MUST_USE;

/* Sorts: weights first, then by the bytes of the name. Fails with CORRUPT where a name cannot be restored safely everywhere:
 * not a plain relative UTF-8 path, or equal to another but for case or Unicode normalisation; NOMEM. */
enum cllm_status cllm_source_list_finish(struct cllm_source_list *list, struct cllm_error *err) CLLM_MUST_USE;

/* Compares every shard index among the files of `source` with the headers of its shards. Fails with CORRUPT, ABSENT, LIMIT,
 * IO, NOMEM. */
enum cllm_status cllm_source_check_indexes(const struct cllm_source *source, struct cllm_source_warnings *warnings,
                                           struct cllm_error *err) CLLM_MUST_USE;

#endif

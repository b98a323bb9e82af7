/* cllm_decode.h - public: container bytes back to decoded bytes, on the CPU. */
#ifndef CLLM_DECODE_H
#define CLLM_DECODE_H

#include "cllm.h"
#include "cllm_engine.h"
#include "cllm_progress.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------------------- chunks */

/* Working memory for decoding chunks; one thread at a time. */
struct cllm_decoder;
enum cllm_status cllm_decoder_create(struct cllm_decoder **decoder_out, struct cllm_error *err) CLLM_MUST_USE;
void cllm_decoder_destroy(struct cllm_decoder *decoder);

/* Decodes one chunk. `stored` has cllm_chunk_buffer_bytes: the stored bytes, then zeros or anything (read, never used);
 * `out` receives exactly chunk->decoded_bytes and needs no alignment. Of `data`, layout and tables are read.
 * Fails with CORRUPT (the stored bytes are not what an encoder writes), UNSUPPORTED (a form of a newer cllm), NOMEM. Any
 * stored bytes are safe; on failure `out` is unspecified. */
enum cllm_status cllm_decode_chunk(struct cllm_decoder *decoder, const struct cllm_data *data, const struct cllm_chunk *chunk,
                                   const uint8_t *stored, uint8_t *out, struct cllm_error *err) CLLM_MUST_USE;

/* ------------------------------------------------------------------------------------------------------ whole objects */

/* One data object to decode and where to: `destination` has exactly the object's decoded_bytes and any alignment. */
struct cllm_load {
    uint32_t data_index;
    void *destination;
};

/* Decodes whole data objects into memory with `thread_count` threads (0: as many as the process may use). Every chunk's
 * stored checksum is checked; digests over decoded bytes are not (cllm_verify does that). `progress` may be null.
 * Fails with IO, NOMEM, CORRUPT, DIGEST, USAGE (no such object), INTERRUPTED; destinations are then unspecified.
 * Any stored bytes are safe. */
enum cllm_status cllm_load_data(const struct cllm_reader *reader, const struct cllm_load *loads, size_t load_count,
                                unsigned thread_count, const struct cllm_progress *progress,
                                struct cllm_error *err) CLLM_MUST_USE;

/* A whole file of the container in memory: a fresh allocation of its size plus one zero byte, to be freed by the caller.
 * Its SHA-256 is checked. Refuses (LIMIT) files larger than `limit_bytes`. Fails otherwise like cllm_load_data. */
enum cllm_status cllm_load_file(const struct cllm_reader *reader, const struct cllm_file *file, uint64_t limit_bytes,
                                uint8_t **bytes_out, size_t *byte_count_out, struct cllm_error *err) CLLM_MUST_USE;

/* ------------------------------------------------------------------------------------------------------ restoring */

/* Where the bytes of a restored file go. `write` may fail with any status, and then fills `err`, which may be null. */
struct cllm_sink {
    enum cllm_status (*write)(void *user, const void *bytes, size_t byte_count, struct cllm_error *err);
    void *user;
};

struct cllm_restore_options {
    unsigned thread_count;                /* 0: as many as the process may use */
    const struct cllm_progress *progress; /* over decoded bytes; may be null */
    const struct cllm_engine *engine;     /* decodes what it takes; may be null. The file is hashed here all the same. */
    uint64_t *engine_bytes;               /* the decoded bytes that came from the engine are added to it; may be null */
};

/* Writes one file of the container, an entry of the reader's index, to the sink piece by piece, in order, from the calling
 * thread, checking stored checksums, data digests and the file's SHA-256 on the way (a mismatch found at the end still fails: do
 * not keep what was written). `options` may be null. Fails with IO, NOMEM, CORRUPT, DIGEST, INTERRUPTED, or what `write`
 * returned. */
enum cllm_status cllm_restore_file(const struct cllm_reader *reader, const struct cllm_file *file, const struct cllm_sink *sink,
                                   const struct cllm_restore_options *options, struct cllm_error *err) CLLM_MUST_USE;

/* Where the bytes of several files go: of one file in order and one call at a time, of others at the same time on other threads.
 * Files are named by their numbers in the index. May fail as a sink does. */
struct cllm_file_sink {
    enum cllm_status (*write)(void *user, uint32_t file_index, const void *bytes, size_t byte_count, struct cllm_error *err);
    /* All of the file was written and has its recorded SHA-256. May be null. */
    enum cllm_status (*end)(void *user, uint32_t file_index, struct cllm_error *err);
    void *user;
};

/* The same for all files of the container, large ones at the same time: a file's SHA-256 is sequential. The first failure ends
 * all; of damaged files it is that of the first one, whatever the number of threads, so that of a later one waits for those
 * before it. Progress is over all files and reported from the calling thread. */
enum cllm_status cllm_restore_files(const struct cllm_reader *reader, const struct cllm_file_sink *sink,
                                    const struct cllm_restore_options *options, struct cllm_error *err) CLLM_MUST_USE;

/* ------------------------------------------------------------------------------------------------------ verifying */

struct cllm_verify_options {
    unsigned thread_count;                /* 0: as many as the process may use */
    bool quick;                           /* stored-byte checksums only; nothing is decoded */
    const struct cllm_progress *progress; /* over decoded bytes, with quick too; may be null */
    /* Decodes and hashes what it takes; may be null. Bytes that went through it do not come back, so the SHA-256 of a file that
     * holds any is not recomputed: the data roots, which the root digest binds to it, are. */
    const struct cllm_engine *engine;
    /* Called for each problem found, in the order of files, one at a time, but not always from the calling thread;
     * verification goes on to the next chunk. May be null. */
    void (*problem)(void *user, const struct cllm_error *problem);
    void *user;
};

struct cllm_verify_report {
    uint64_t tensor_count; /* that were checked whole */
    uint64_t file_count;
    uint64_t rehashed_count; /* of these files, how many had their SHA-256 recomputed */
    uint64_t chunk_count;    /* with quick or an engine each counts once, otherwise as often as files have it */
    uint64_t decoded_bytes;  /* 0 with quick */
    uint64_t engine_bytes;   /* of these, decoded by the engine */
    uint64_t stored_bytes;
    uint64_t problem_count;
};

/* Checks every stored checksum and padding byte and, unless quick, decodes every chunk and checks every digest: data roots,
 * SHA-256 of every file. Returns OK where nothing was wrong, else the status of the first problem (DIGEST, CORRUPT, IO), or
 * NOMEM, INTERRUPTED. `options` may be null: none. `report_out` is filled in every case. Any stored bytes are safe.
 * A file's SHA-256 is sequential; where there are several large files they are gone through at the same time. */
enum cllm_status cllm_verify(const struct cllm_reader *reader, const struct cllm_verify_options *options,
                             struct cllm_verify_report *report_out, struct cllm_error *err) CLLM_MUST_USE;

#ifdef __cplusplus
}
#endif

#endif

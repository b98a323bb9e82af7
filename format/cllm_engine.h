/* cllm_engine.h - public: something that decodes and hashes chunks elsewhere than on the CPU at hand, as verifying and restoring
 * see it.
 *
 * An engine is an offer, not an authority: whatever it fails on is decoded again on the CPU, which finds and names the fault.
 */
#ifndef CLLM_ENGINE_H
#define CLLM_ENGINE_H

#include "cllm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Consecutive chunks of one data object, all of forms that the engine takes. */
struct cllm_engine_run {
    const struct cllm_reader *reader;
    uint32_t data_index;
    uint32_t first_chunk;
    uint32_t chunk_count; /* at least 1 */
    bool bytes;           /* wanted are the decoded bytes too, not only the SHA-256 of each chunk */
};

struct cllm_engine {
    void *user;
    const char *name;    /* of what does the work, for messages */
    uint32_t run_bytes;  /* decoded bytes that are worth sending at once */
    unsigned lane_count; /* runs that should be under way at once to keep it busy, at least 1 */
    /* What one run at a time needs; any thread. Fails with DEVICE or NOMEM. Destroying waits for a run under way. */
    enum cllm_status (*lane_create)(void *user, void **lane_out, struct cllm_error *err);
    void (*lane_destroy)(void *user, void *lane);
    /* Whether it decodes chunks of this form. Any thread. */
    bool (*takes)(void *user, const struct cllm_chunk *chunk);
    /* Reads the run, checks its stored checksums and begins to decode it; need not wait until that is done. Any thread, one run
     * at a time each lane. Fails with anything; the caller then decodes the run itself. */
    enum cllm_status (*start)(void *user, void *lane, const struct cllm_engine_run *run, struct cllm_error *err);
    /* Waits for the run started last. Its digests are written to leaves_out, 32 bytes each; if its bytes were wanted,
     * `*decoded_out` is set to them, and they stay until the lane's next start. Fails with anything, as above. */
    enum cllm_status (*finish)(void *user, void *lane, uint8_t *leaves_out, const uint8_t **decoded_out, struct cllm_error *err);
};

#ifdef __cplusplus
}
#endif

#endif

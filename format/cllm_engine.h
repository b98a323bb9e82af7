/* cllm_engine.h - public: something that decodes and hashes chunks elsewhere than on the CPU at hand, as verifying sees it.
 *
 * An engine is an offer, not an authority: whatever it fails on is decoded again on the CPU, which finds and names the fault.
 */
#ifndef CLLM_ENGINE_H
#define CLLM_ENGINE_H

#include "cllm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cllm_engine {
    void *user;
    const char *name;    /* of what does the work, for messages */
    uint32_t run_bytes;  /* decoded bytes that are worth sending at once */
    unsigned lane_count; /* how many threads keep it busy */
    /* What one thread needs to use the engine; any thread, one at a time each. Fails with DEVICE or NOMEM. */
    enum cllm_status (*lane_create)(void *user, void **lane_out, struct cllm_error *err);
    void (*lane_destroy)(void *user, void *lane);
    /* Whether it decodes chunks of this form. */
    bool (*takes)(void *user, const struct cllm_chunk *chunk);
    /* Reads chunk_count consecutive chunks that it takes, checks their stored checksums, decodes them and writes the SHA-256 of
     * each to leaves_out, 32 bytes each. Fails with anything; the caller then decodes the run itself. */
    enum cllm_status (*hash_run)(void *user, void *lane, const struct cllm_reader *reader, uint32_t data_index,
                                 uint32_t first_chunk, uint32_t chunk_count, uint8_t *leaves_out, struct cllm_error *err);
};

#ifdef __cplusplus
}
#endif

#endif

/* sha256.h - SHA-256 (FIPS 180-4) in the processor's own instructions, for digest.c. They wait for each other: one message
 * leaves part of the processor idle, and two at once take less than twice the time of one. */
#ifndef CLLM_SHA256_H
#define CLLM_SHA256_H

#include "cllm.h"

#define CLLM_SHA256_BLOCK_BYTES 64u

/* How sixteen pieces and the message that they belong to are hashed: the pieces in the lanes of vectors, before the message or
 * beside it, or one by one beside the message, both by the SHA instructions. Processors differ in what is fastest, so the first
 * of them are timed. */
enum cllm_sha256_way { CLLM_SHA256_LANES_FIRST, CLLM_SHA256_LANES_BESIDE, CLLM_SHA256_ONE_BY_ONE, CLLM_SHA256_WAYS };

struct cllm_sha256_pace {
    unsigned timed_count;
    uint64_t cost[CLLM_SHA256_WAYS]; /* the least time, for equal bytes, that each took */
};

/* One message under way. */
struct cllm_sha256_message {
    uint32_t hash[8];
    uint64_t byte_count;
    uint8_t pending[CLLM_SHA256_BLOCK_BYTES]; /* the byte_count % 64 last ones */
    struct cllm_sha256_pace pace;             /* with its pieces; no digest depends on it */
};

/* These need a processor of which cllm_cpu_has_sha() is true. */
void cllm_sha256_start(struct cllm_sha256_message *message);
void cllm_sha256_add(struct cllm_sha256_message *message, const uint8_t *bytes, size_t byte_count);
void cllm_sha256_end(struct cllm_sha256_message *message, uint8_t digest_out[CLLM_DIGEST_BYTES]);

/* Gives the SHA-256 of each piece of the bytes, piece_bytes long but for the last, and adds them all to the message, unless that
 * is null. */
void cllm_sha256_pieces(struct cllm_sha256_message *message, const uint8_t *bytes, size_t byte_count, size_t piece_bytes,
                        uint8_t *digests_out);

/* What the compression function works on: a hash value, and the blocks to take into it, of any alignment. */
struct cllm_sha256_lane {
    uint32_t *hash;
    const uint8_t *blocks;
};

/* Takes block_count blocks into the hash of one message, or of each of two, whose bytes may be the same. */
void cllm_sha256_one_shani(struct cllm_sha256_lane lane, size_t block_count);
void cllm_sha256_two_shani(struct cllm_sha256_lane first, struct cllm_sha256_lane second, size_t block_count);

#define CLLM_SHA256_LANES 16u

/* Takes block_count blocks into each of sixteen messages, word i of whose hash values is hashes[i], and the first block of whose
 * k-th is at blocks + k * stride. Meanwhile takes 16 * block_count blocks into another message, unless that
 * is null. Needs CLLM_CPU_AVX512 too. */
void cllm_sha256_sixteen_avx512(uint32_t hashes[8][CLLM_SHA256_LANES], const uint8_t *blocks, size_t stride, size_t block_count,
                                const struct cllm_sha256_lane *beside);

#endif

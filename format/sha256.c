/* sha256.c - see sha256.h. Blocks, padding and length (FIPS 180-4, 5.1.1, 5.3.3 and 6.2). */
#include "sha256.h"

#include <string.h>

#define BLOCK CLLM_SHA256_BLOCK_BYTES
#define LENGTH_BYTES 8u /* of the message in bits, at the end of the last block */

void cllm_sha256_start(struct cllm_sha256_message *message)
{
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(message->hash, initial, sizeof initial);
    message->byte_count = 0;
}

static void take_blocks(struct cllm_sha256_message *message, const uint8_t *blocks, size_t block_count)
{
    cllm_sha256_one_shani((struct cllm_sha256_lane){message->hash, blocks}, block_count);
}

void cllm_sha256_add(struct cllm_sha256_message *message, const uint8_t *bytes, size_t byte_count)
{
    size_t pending = message->byte_count % BLOCK, missing = BLOCK - pending;
    if (byte_count == 0) return;
    message->byte_count += byte_count;
    if (pending > 0) {
        size_t taken = byte_count < missing ? byte_count : missing;
        memcpy(message->pending + pending, bytes, taken);
        if (taken < missing) return;
        take_blocks(message, message->pending, 1);
        bytes += taken;
        byte_count -= taken;
    }
    take_blocks(message, bytes, byte_count / BLOCK);
    memcpy(message->pending, bytes + byte_count / BLOCK * BLOCK, byte_count % BLOCK);
}

void cllm_sha256_end(struct cllm_sha256_message *message, uint8_t digest_out[CLLM_DIGEST_BYTES])
{
    uint64_t bit_count = 8 * message->byte_count;
    uint8_t tail[2 * BLOCK] = {0x80};
    size_t filled = message->byte_count % BLOCK;
    size_t tail_bytes = (filled + 1 + LENGTH_BYTES <= BLOCK ? BLOCK : 2 * BLOCK) - filled;
    for (unsigned i = 0; i < LENGTH_BYTES; i++) tail[tail_bytes - 1 - i] = (uint8_t)(bit_count >> 8 * i);
    cllm_sha256_add(message, tail, tail_bytes);
    for (unsigned i = 0; i < CLLM_DIGEST_BYTES; i++) digest_out[i] = (uint8_t)(message->hash[i / 4] >> (24 - 8 * (i % 4)));
}

/* Blocks of the message and of the leaf begin at different bytes: first what completes a block of the message, then both
 * together, then what is left of each. */
void cllm_sha256_add_leaf(struct cllm_sha256_message *message, const uint8_t *bytes, size_t byte_count,
                          uint8_t leaf_out[CLLM_DIGEST_BYTES])
{
    struct cllm_sha256_message leaf;
    cllm_sha256_start(&leaf);
    size_t head = (size_t)(-message->byte_count % BLOCK);
    if (head > byte_count) head = byte_count;
    size_t block_count = (byte_count - head) / BLOCK, together = block_count * BLOCK;
    cllm_sha256_add(message, bytes, head);
    cllm_sha256_two_shani((struct cllm_sha256_lane){message->hash, bytes + head}, (struct cllm_sha256_lane){leaf.hash, bytes},
                          block_count);
    message->byte_count += together;
    leaf.byte_count = together;
    cllm_sha256_add(message, bytes + head + together, byte_count - head - together);
    cllm_sha256_add(&leaf, bytes + together, byte_count - together);
    cllm_sha256_end(&leaf, leaf_out);
}

static void digest_one(const uint8_t *bytes, size_t byte_count, uint8_t *digest_out)
{
    struct cllm_sha256_message message;
    cllm_sha256_start(&message);
    cllm_sha256_add(&message, bytes, byte_count);
    cllm_sha256_end(&message, digest_out);
}

static void digest_two(const uint8_t *bytes, size_t piece_bytes, uint8_t *digests_out)
{
    struct cllm_sha256_message first, second;
    size_t together = piece_bytes / BLOCK * BLOCK;
    cllm_sha256_start(&first);
    cllm_sha256_start(&second);
    cllm_sha256_two_shani((struct cllm_sha256_lane){first.hash, bytes},
                          (struct cllm_sha256_lane){second.hash, bytes + piece_bytes}, together / BLOCK);
    first.byte_count = second.byte_count = together;
    cllm_sha256_add(&first, bytes + together, piece_bytes - together);
    cllm_sha256_add(&second, bytes + piece_bytes + together, piece_bytes - together);
    cllm_sha256_end(&first, digests_out);
    cllm_sha256_end(&second, digests_out + CLLM_DIGEST_BYTES);
}

void cllm_sha256_pieces(const uint8_t *bytes, size_t byte_count, size_t piece_bytes, uint8_t *digests_out)
{
    for (; byte_count / 2 >= piece_bytes; byte_count -= 2 * piece_bytes) {
        digest_two(bytes, piece_bytes, digests_out);
        bytes += 2 * piece_bytes;
        digests_out += (size_t)2 * CLLM_DIGEST_BYTES;
    }
    if (byte_count > piece_bytes) {
        digest_one(bytes, piece_bytes, digests_out);
        bytes += piece_bytes;
        byte_count -= piece_bytes;
        digests_out += CLLM_DIGEST_BYTES;
    }
    if (byte_count > 0) digest_one(bytes, byte_count, digests_out);
}

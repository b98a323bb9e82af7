/* sha256.c - see sha256.h. Blocks, padding and length (FIPS 180-4, 5.1.1, 5.3.3 and 6.2). */
#include "sha256.h"

#include "cpu.h"

#include <string.h>
#include <time.h>

#define BLOCK CLLM_SHA256_BLOCK_BYTES
#define LANES ((size_t)CLLM_SHA256_LANES)
#define TIMED_COUNT (2 * CLLM_SHA256_WAYS) /* two of each: one may be interrupted */
#define COST_UNIT 1024u                    /* makes a whole number of nanoseconds a byte of a piece */
#define LENGTH_BYTES 8u                    /* of the message in bits, at the end of the last block */

void cllm_sha256_start(struct cllm_sha256_message *message)
{
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(message->hash, initial, sizeof initial);
    message->byte_count = 0;
    message->pace = (struct cllm_sha256_pace){0};
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

/* Adds the bytes to both messages, which must not be the same, two blocks at a time. `second` is at a block's border; blocks of
 * the first begin at other bytes: first what completes one, then both together, then what is left of each. */
static void add_to_two(struct cllm_sha256_message *first, const uint8_t *first_bytes, struct cllm_sha256_message *second,
                       const uint8_t *second_bytes, size_t byte_count)
{
    size_t head = (size_t)(-first->byte_count % BLOCK);
    if (head > byte_count) head = byte_count;
    size_t block_count = (byte_count - head) / BLOCK, together = block_count * BLOCK;
    cllm_sha256_add(first, first_bytes, head);
    cllm_sha256_two_shani((struct cllm_sha256_lane){first->hash, first_bytes + head},
                          (struct cllm_sha256_lane){second->hash, second_bytes}, block_count);
    first->byte_count += together;
    second->byte_count += together;
    cllm_sha256_add(first, first_bytes + head + together, byte_count - head - together);
    cllm_sha256_add(second, second_bytes + together, byte_count - together);
}

/* One piece beside the message, or two beside each other. Returns how many. */
static size_t digest_few(struct cllm_sha256_message *message, const uint8_t *bytes, size_t byte_count, size_t piece_bytes,
                         uint8_t *digests_out)
{
    struct cllm_sha256_message first, second;
    size_t piece = byte_count < piece_bytes ? byte_count : piece_bytes, count = 1;
    cllm_sha256_start(&first);
    if (message) {
        add_to_two(message, bytes, &first, bytes, piece);
    } else if (byte_count / 2 >= piece_bytes) {
        cllm_sha256_start(&second);
        add_to_two(&first, bytes, &second, bytes + piece, piece);
        cllm_sha256_end(&second, digests_out + CLLM_DIGEST_BYTES);
        count = 2;
    } else {
        cllm_sha256_add(&first, bytes, piece);
    }
    cllm_sha256_end(&first, digests_out);
    return count;
}

/* The pieces' blocks but for the last of each, beside as much of the message, which this moves on. */
static void take_sixteen_beside(struct cllm_sha256_message *message, uint32_t hashes[8][CLLM_SHA256_LANES], const uint8_t *bytes,
                                size_t piece_bytes)
{
    const size_t head = (size_t)(-message->byte_count % BLOCK), block_count = piece_bytes / BLOCK - 1;
    const size_t beside_bytes = LANES * block_count * BLOCK;
    cllm_sha256_add(message, bytes, head);
    const struct cllm_sha256_lane lane = {message->hash, bytes + head};
    cllm_sha256_sixteen_avx512(hashes, bytes, piece_bytes, block_count, &lane);
    message->byte_count += beside_bytes;
    cllm_sha256_add(message, bytes + head + beside_bytes, LANES * piece_bytes - head - beside_bytes);
}

/* Sixteen pieces, of whole blocks, in the lanes of vectors. The last block of each, where its padding follows, goes alone. */
static void digest_in_lanes(struct cllm_sha256_message *message, bool beside, const uint8_t *bytes, size_t piece_bytes,
                            uint8_t *digests_out)
{
    uint32_t hashes[8][CLLM_SHA256_LANES];
    struct cllm_sha256_message piece;
    const size_t block_count = piece_bytes / BLOCK - 1;
    cllm_sha256_start(&piece);
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned k = 0; k < LANES; k++) hashes[i][k] = piece.hash[i];
    }
    if (message && beside) take_sixteen_beside(message, hashes, bytes, piece_bytes);
    else cllm_sha256_sixteen_avx512(hashes, bytes, piece_bytes, block_count, NULL);
    for (unsigned k = 0; k < LANES; k++) {
        for (unsigned i = 0; i < 8; i++) piece.hash[i] = hashes[i][k];
        piece.byte_count = block_count * BLOCK;
        cllm_sha256_add(&piece, bytes + k * piece_bytes + block_count * BLOCK, BLOCK);
        cllm_sha256_end(&piece, digests_out + (size_t)k * CLLM_DIGEST_BYTES);
    }
    if (message && !beside) cllm_sha256_add(message, bytes, LANES * piece_bytes);
}

static void digest_sixteen(struct cllm_sha256_message *message, enum cllm_sha256_way way, const uint8_t *bytes,
                           size_t piece_bytes, uint8_t *digests_out)
{
    if (way != CLLM_SHA256_ONE_BY_ONE) {
        digest_in_lanes(message, way == CLLM_SHA256_LANES_BESIDE, bytes, piece_bytes, digests_out);
        return;
    }
    for (size_t k = 0; k < LANES; k++)
        digest_few(message, bytes + k * piece_bytes, piece_bytes, piece_bytes, digests_out + k * CLLM_DIGEST_BYTES);
}

static uint64_t nanoseconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static enum cllm_sha256_way cheapest_way(const struct cllm_sha256_pace *pace)
{
    unsigned cheapest = 0;
    for (unsigned way = 1; way < CLLM_SHA256_WAYS; way++) {
        if (pace->cost[way] < pace->cost[cheapest]) cheapest = way;
    }
    return (enum cllm_sha256_way)cheapest;
}

/* Sixteen pieces and a message, in the way that the pace says or needs to know about. */
static void digest_sixteen_paced(struct cllm_sha256_message *message, const uint8_t *bytes, size_t piece_bytes,
                                 uint8_t *digests_out)
{
    struct cllm_sha256_pace *pace = &message->pace;
    if (pace->timed_count == TIMED_COUNT) {
        digest_sixteen(message, cheapest_way(pace), bytes, piece_bytes, digests_out);
        return;
    }
    const unsigned way = pace->timed_count % CLLM_SHA256_WAYS;
    const uint64_t start = nanoseconds_now();
    digest_sixteen(message, (enum cllm_sha256_way)way, bytes, piece_bytes, digests_out);
    const uint64_t cost = (nanoseconds_now() - start) * COST_UNIT / piece_bytes;
    if (pace->timed_count < CLLM_SHA256_WAYS || cost < pace->cost[way]) pace->cost[way] = cost;
    pace->timed_count++;
}

void cllm_sha256_pieces(struct cllm_sha256_message *message, const uint8_t *bytes, size_t byte_count, size_t piece_bytes,
                        uint8_t *digests_out)
{
    const bool wide = piece_bytes % BLOCK == 0 && cllm_cpu_tier() >= CLLM_CPU_AVX512;
    while (byte_count > 0) {
        size_t count = LANES;
        if (!wide || byte_count / LANES < piece_bytes) count = digest_few(message, bytes, byte_count, piece_bytes, digests_out);
        else if (message) digest_sixteen_paced(message, bytes, piece_bytes, digests_out);
        else digest_sixteen(NULL, CLLM_SHA256_LANES_FIRST, bytes, piece_bytes, digests_out);
        size_t done_bytes = byte_count < count * piece_bytes ? byte_count : count * piece_bytes;
        bytes += done_bytes;
        byte_count -= done_bytes;
        digests_out += count * CLLM_DIGEST_BYTES;
    }
}

/* sha256_shani_avx512.c - sixteen messages in the lanes of vector registers (FIPS 180-4, 6.2.2), and between their rounds one
 * more by the SHA-256 instructions, which spend most of their time waiting: it costs next to nothing.
 *
 * The SHA-256 instructions have no form that leaves the processor at ease when the upper parts of registers 0 to 15 are in use
 * (measured: a hundred times slower). So the vectors live in zmm16 to zmm31, which takes assembly: this file is compiled without
 * AVX, so that the compiler stays in xmm0 to xmm15 and never touches what these statements keep between them. */
#include "sha256_shani.h"

#include <string.h>

typedef uint32_t vector[CLLM_SHA256_LANES] __attribute__((aligned(64)));

/* Where things are between statements. The others are free within one. */
#define HASH_A "%%zmm16"
#define HASH_B "%%zmm17"
#define HASH_C "%%zmm18"
#define HASH_D "%%zmm19"
#define HASH_E "%%zmm20"
#define HASH_F "%%zmm21"
#define HASH_G "%%zmm22"
#define HASH_H "%%zmm23"
#define SWAP "%%zmm29" /* for a shuffle that turns the bytes of each word around */

/* word += sigma0(1 on) + (9 on) + sigma1(14 on), and word, now sixteen later, stays in memory */
#define EXTEND_WORD                                                                                                              \
    "vmovdqa64 %[word1],%%zmm27\n vprord $7,%%zmm27,%%zmm24\n vprord $18,%%zmm27,%%zmm25\n"                                      \
    "vpsrld $3,%%zmm27,%%zmm27\n vpternlogd $0x96,%%zmm25,%%zmm27,%%zmm24\n"                                                     \
    "vmovdqa64 %[word14],%%zmm27\n vprord $17,%%zmm27,%%zmm25\n vprord $19,%%zmm27,%%zmm26\n"                                    \
    "vpsrld $10,%%zmm27,%%zmm27\n vpternlogd $0x96,%%zmm26,%%zmm27,%%zmm25\n"                                                    \
    "vpaddd %[word],%%zmm24,%%zmm24\n vpaddd %[word9],%%zmm25,%%zmm25\n"                                                         \
    "vpaddd %%zmm25,%%zmm24,%%zmm24\n vmovdqa64 %%zmm24,%[word]\n"

/* h += word + constant + Sigma1(e) + Ch(e, f, g); d += h; h += Sigma0(a) + Maj(a, b, c) */
#define ROUND(a, b, c, d, e, f, g, h)                                                                                            \
    "vpaddd %[word]," h "," h "\n vpaddd %[constant]%{1to16%}," h "," h "\n"                                                     \
    "vprord $6," e ",%%zmm24\n vprord $11," e ",%%zmm25\n vprord $25," e ",%%zmm26\n"                                            \
    "vpternlogd $0x96,%%zmm26,%%zmm25,%%zmm24\n vmovdqa64 " e ",%%zmm27\n vpternlogd $0xCA," g "," f ",%%zmm27\n"                \
    "vpaddd %%zmm24," h "," h "\n vpaddd %%zmm27," h "," h "\n vpaddd " h "," d "," d "\n"                                       \
    "vprord $2," a ",%%zmm24\n vprord $13," a ",%%zmm25\n vprord $22," a ",%%zmm26\n"                                            \
    "vpternlogd $0x96,%%zmm26,%%zmm25,%%zmm24\n vmovdqa64 " a ",%%zmm27\n vpternlogd $0xE8," c "," b ",%%zmm27\n"                \
    "vpaddd %%zmm24," h "," h "\n vpaddd %%zmm27," h "," h "\n"

#define DO_ROUND(...)                                                                                                            \
    do {                                                                                                                         \
        if (round >= 16)                                                                                                         \
            __asm__ volatile(EXTEND_WORD ROUND(__VA_ARGS__)                                                                      \
                             : [word] "+m"(words[round % 16])                                                                    \
                             : [word1] "m"(words[(round + 1) % 16]), [word9] "m"(words[(round + 9) % 16]),                       \
                               [word14] "m"(words[(round + 14) % 16]), [constant] "m"(cllm_sha256_constants[round]));            \
        else __asm__ volatile(ROUND(__VA_ARGS__)::[word] "m"(words[round % 16]), [constant] "m"(cllm_sha256_constants[round]));  \
    } while (0)

/* One round of sixteen messages. Registers do not move: their names do. */
static inline __attribute__((always_inline)) void do_round(vector *words, unsigned round)
{
    switch (round % 8) {
    case 0: DO_ROUND(HASH_A, HASH_B, HASH_C, HASH_D, HASH_E, HASH_F, HASH_G, HASH_H); break;
    case 1: DO_ROUND(HASH_H, HASH_A, HASH_B, HASH_C, HASH_D, HASH_E, HASH_F, HASH_G); break;
    case 2: DO_ROUND(HASH_G, HASH_H, HASH_A, HASH_B, HASH_C, HASH_D, HASH_E, HASH_F); break;
    case 3: DO_ROUND(HASH_F, HASH_G, HASH_H, HASH_A, HASH_B, HASH_C, HASH_D, HASH_E); break;
    case 4: DO_ROUND(HASH_E, HASH_F, HASH_G, HASH_H, HASH_A, HASH_B, HASH_C, HASH_D); break;
    case 5: DO_ROUND(HASH_D, HASH_E, HASH_F, HASH_G, HASH_H, HASH_A, HASH_B, HASH_C); break;
    case 6: DO_ROUND(HASH_C, HASH_D, HASH_E, HASH_F, HASH_G, HASH_H, HASH_A, HASH_B); break;
    default: DO_ROUND(HASH_B, HASH_C, HASH_D, HASH_E, HASH_F, HASH_G, HASH_H, HASH_A);
    }
}

/* Stores lane i of the vector `name`, which holds word 4 * i + j of four messages, to its place. */
#define PLACE_WORDS(name, j)                                                                                                     \
    __asm__ volatile("vextracti32x4 $0,%%zmm" name ",%0\n vextracti32x4 $1,%%zmm" name ",%1\n"                                   \
                     "vextracti32x4 $2,%%zmm" name ",%2\n vextracti32x4 $3,%%zmm" name ",%3\n"                                   \
                     : "=m"(*(quarter *)(words[j] + at)), "=m"(*(quarter *)(words[4 + (j)] + at)),                               \
                       "=m"(*(quarter *)(words[8 + (j)] + at)), "=m"(*(quarter *)(words[12 + (j)] + at)))

typedef uint32_t quarter[4];
typedef uint8_t block_bytes[CLLM_SHA256_BLOCK_BYTES];

/* The next block of four messages, from one word after the other to one message after the other, from `at` on. */
static inline __attribute__((always_inline)) void turn_four(vector *words, unsigned at, const uint8_t *blocks, size_t stride)
{
    __asm__ volatile("vmovdqu64 %0,%%zmm24\n vmovdqu64 %1,%%zmm25\n vmovdqu64 %2,%%zmm26\n vmovdqu64 %3,%%zmm27\n"
                     "vpshufb " SWAP ",%%zmm24,%%zmm24\n vpshufb " SWAP ",%%zmm25,%%zmm25\n"
                     "vpshufb " SWAP ",%%zmm26,%%zmm26\n vpshufb " SWAP ",%%zmm27,%%zmm27\n"
                     "vpunpckldq %%zmm25,%%zmm24,%%zmm30\n vpunpckhdq %%zmm25,%%zmm24,%%zmm31\n"
                     "vpunpckldq %%zmm27,%%zmm26,%%zmm24\n vpunpckhdq %%zmm27,%%zmm26,%%zmm25\n"
                     "vpunpcklqdq %%zmm24,%%zmm30,%%zmm26\n vpunpckhqdq %%zmm24,%%zmm30,%%zmm27\n"
                     "vpunpcklqdq %%zmm25,%%zmm31,%%zmm24\n vpunpckhqdq %%zmm25,%%zmm31,%%zmm25\n" ::"m"(
                         *(const block_bytes *)(blocks + at * stride)),
                     "m"(*(const block_bytes *)(blocks + (at + 1) * stride)),
                     "m"(*(const block_bytes *)(blocks + (at + 2) * stride)),
                     "m"(*(const block_bytes *)(blocks + (at + 3) * stride)));
    PLACE_WORDS("26", 0);
    PLACE_WORDS("27", 1);
    PLACE_WORDS("24", 2);
    PLACE_WORDS("25", 3);
}

#define FOR_EACH_HASH(statement)                                                                                                 \
    statement(0, HASH_A);                                                                                                        \
    statement(1, HASH_B);                                                                                                        \
    statement(2, HASH_C);                                                                                                        \
    statement(3, HASH_D);                                                                                                        \
    statement(4, HASH_E);                                                                                                        \
    statement(5, HASH_F);                                                                                                        \
    statement(6, HASH_G);                                                                                                        \
    statement(7, HASH_H)
#define LOAD_HASH(i, name) __asm__ volatile("vmovdqa64 %0," name ::"m"(hash[i]))
#define ADD_HASH(i, name) __asm__ volatile("vpaddd %0," name "," name "\n vmovdqa64 " name ",%0\n" : "+m"(hash[i]))

static inline void load_swap(void)
{
    uint8_t swap[64] __attribute__((aligned(64)));
    for (unsigned i = 0; i < sizeof swap; i++) swap[i] = (uint8_t)((i % 16) ^ 3);
    __asm__ volatile("vmovdqa64 %0," SWAP ::"m"(swap));
}

/* Four rounds of the sixteen, and with a message beside them a block of it. */
static inline __attribute__((always_inline)) void do_rounds(vector *words, unsigned first, struct cllm_sha256_registers *beside)
{
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        if (beside) {
            cllm_sha256_step(beside, 4 * i);
            cllm_sha256_step(beside, 4 * i + 1);
            cllm_sha256_step(beside, 4 * i + 2);
            cllm_sha256_step(beside, 4 * i + 3);
        }
        do_round(words, first + i);
    }
}

static inline __attribute__((always_inline)) void compress(vector *hash, const uint8_t *blocks, size_t stride, size_t block_count,
                                                           const struct cllm_sha256_lane *beside)
{
    vector words[16];
    struct cllm_sha256_registers r;
    if (beside) cllm_sha256_load_hash(&r, beside->hash);
    load_swap();
    FOR_EACH_HASH(LOAD_HASH);
    for (size_t b = 0; b < block_count; b++) {
        for (unsigned at = 0; at < CLLM_SHA256_LANES; at += 4) turn_four(words, at, blocks + b * CLLM_SHA256_BLOCK_BYTES, stride);
#pragma GCC unroll 16
        for (unsigned k = 0; k < 16; k++) {
            if (beside) {
                const struct cllm_sha256_registers before = r;
                cllm_sha256_load_words(&r, beside->blocks + (16 * b + k) * CLLM_SHA256_BLOCK_BYTES);
                do_rounds(words, 4 * k, &r);
                r.abef = _mm_add_epi32(r.abef, before.abef);
                r.cdgh = _mm_add_epi32(r.cdgh, before.cdgh);
            } else {
                do_rounds(words, 4 * k, NULL);
            }
        }
        FOR_EACH_HASH(ADD_HASH);
    }
    if (beside) cllm_sha256_store_hash(&r, beside->hash);
}

void cllm_sha256_sixteen_avx512(uint32_t hashes[8][CLLM_SHA256_LANES], const uint8_t *blocks, size_t stride, size_t block_count,
                                const struct cllm_sha256_lane *beside)
{
    vector hash[8];
    memcpy(hash, hashes, sizeof hash);
    if (beside) compress(hash, blocks, stride, block_count, beside);
    else compress(hash, blocks, stride, block_count, NULL);
    memcpy(hashes, hash, sizeof hash);
}

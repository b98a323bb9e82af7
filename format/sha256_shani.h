/* sha256_shani.h - the SHA-256 instructions at work on one message, for files *_shani*.c. An instruction does two rounds; four
 * of them, and what prepares the next four words of the schedule, are a step. */
#ifndef CLLM_SHA256_SHANI_H
#define CLLM_SHA256_SHANI_H

#include "sha256.h"

#include <immintrin.h>

#define CLLM_SHA256_STEPS 16u /* of a block */

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
static const uint32_t cllm_sha256_constants[64] __attribute__((aligned(64))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* The eight words as the instructions want them: a, b, e, f in one register, c, d, g, h in the other, each from the top. */
struct cllm_sha256_registers {
    __m128i abef;
    __m128i cdgh;
    __m128i words[4]; /* the last sixteen of the schedule */
};

static inline __m128i cllm_sha256_load(const void *from)
{
    return _mm_loadu_si128(from);
}

static inline void cllm_sha256_load_hash(struct cllm_sha256_registers *r, const uint32_t hash[8])
{
    __m128i dcba = cllm_sha256_load(hash), hgfe = cllm_sha256_load(hash + 4);
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1), efgh = _mm_shuffle_epi32(hgfe, 0x1B);
    r->abef = _mm_alignr_epi8(cdab, efgh, 8);
    r->cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
}

static inline void cllm_sha256_store_hash(const struct cllm_sha256_registers *r, uint32_t hash[8])
{
    __m128i feba = _mm_shuffle_epi32(r->abef, 0x1B), dchg = _mm_shuffle_epi32(r->cdgh, 0xB1);
    _mm_storeu_si128((void *)hash, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((void *)(hash + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static inline __attribute__((always_inline)) void cllm_sha256_load_words(struct cllm_sha256_registers *r, const uint8_t *block)
{
    const __m128i swap = _mm_set_epi64x(INT64_C(0x0C0D0E0F08090A0B), INT64_C(0x0405060700010203));
    for (unsigned i = 0; i < 4; i++) r->words[i] = _mm_shuffle_epi8(cllm_sha256_load(block + 16 * i), swap);
}

/* Rounds 4 * step to 4 * step + 3; then the words of these rounds are replaced by those sixteen later. */
static inline __attribute__((always_inline)) void cllm_sha256_step(struct cllm_sha256_registers *r, unsigned step)
{
    __m128i *words = &r->words[step % 4], last = r->words[(step + 3) % 4];
    __m128i sums = _mm_add_epi32(*words, cllm_sha256_load(cllm_sha256_constants + 4 * step));
    r->cdgh = _mm_sha256rnds2_epu32(r->cdgh, r->abef, sums);
    r->abef = _mm_sha256rnds2_epu32(r->abef, r->cdgh, _mm_shuffle_epi32(sums, 0x0E));
    if (step >= 12) return;
    __m128i next = _mm_sha256msg1_epu32(*words, r->words[(step + 1) % 4]);
    next = _mm_add_epi32(next, _mm_alignr_epi8(last, r->words[(step + 2) % 4], 4));
    *words = _mm_sha256msg2_epu32(next, last);
}

#endif

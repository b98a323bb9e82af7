/* kernels_sha256.cuh - SHA-256 (FIPS 180-4, sections 4.1.2, 4.2.2, 5.1.1 and 6.2.2) of many pieces of device memory, one thread a
 * piece. A piece is sequential, so speed comes from their number: thousands, one for every decoded chunk.
 */
#ifndef CLLM_KERNELS_SHA256_CUH
#define CLLM_KERNELS_SHA256_CUH

#include <cstdint>

#define SHA256_THREADS 64 /* few a block: the pieces spread over all multiprocessors */

struct gpu_piece {
    const uint32_t *bytes; /* device memory, 4-byte aligned */
    uint64_t byte_count;
};

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
static __constant__ uint32_t sha256_round[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static __device__ __forceinline__ uint32_t rotate_right(uint32_t x, unsigned n)
{
    return __funnelshift_r(x, x, n);
}

/* One block of 16 big-endian words; the schedule is kept in a window of 16. */
static __device__ __forceinline__ void sha256_block(uint32_t state[8], uint32_t w[16])
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
#pragma unroll
    for (int t = 0; t < 64; t++) {
        if (t >= 16) {
            uint32_t x = w[(t + 1) % 16], y = w[(t + 14) % 16];
            uint32_t s0 = rotate_right(x, 7) ^ rotate_right(x, 18) ^ x >> 3;
            uint32_t s1 = rotate_right(y, 17) ^ rotate_right(y, 19) ^ y >> 10;
            w[t % 16] += s0 + w[(t + 9) % 16] + s1;
        }
        uint32_t t1 = h + (rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)) + ((e & f) ^ (~e & g)) +
                      sha256_round[t] + w[t % 16];
        uint32_t t2 = (rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static __device__ __forceinline__ uint32_t swap_bytes(uint32_t x)
{
    return __byte_perm(x, 0, 0x0123);
}

/* Sixteen words of the message, as they lie in memory. */
static __device__ __forceinline__ void load_block(const uint32_t *from, bool wide, uint32_t words[16])
{
#pragma unroll
    for (int k = 0; k < 16; k += 4) {
        if (wide) {
            uint4 four = *(const uint4 *)(from + k);
            words[k] = four.x, words[k + 1] = four.y, words[k + 2] = four.z, words[k + 3] = four.w;
        } else {
            for (int i = k; i < k + 4; i++) words[i] = from[i];
        }
    }
}

static __global__ void __launch_bounds__(SHA256_THREADS)
    kernel_hash_pieces(const struct gpu_piece *pieces, uint32_t piece_count, uint32_t *d_digests)
{
    const uint32_t index = blockIdx.x * SHA256_THREADS + threadIdx.x;
    if (index >= piece_count) return;
    const struct gpu_piece piece = pieces[index];
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint32_t w[16];
    const bool wide = ((uintptr_t)piece.bytes & 15) == 0;
    const uint64_t whole_blocks = piece.byte_count / 64;
    uint32_t ahead[16]; /* the next block is on its way while this one is worked on: there are too few warps to hide the wait */
    if (whole_blocks > 0) load_block(piece.bytes, wide, ahead);
    for (uint64_t block = 0; block < whole_blocks; block++) {
#pragma unroll
        for (int k = 0; k < 16; k++) w[k] = swap_bytes(ahead[k]);
        if (block + 1 < whole_blocks) load_block(piece.bytes + 16 * (block + 1), wide, ahead);
        sha256_block(state, w);
    }

    /* The rest, a one bit, zeros, the length in bits: one block or two. */
    const uint8_t *rest = (const uint8_t *)(piece.bytes + 16 * whole_blocks);
    const unsigned rest_bytes = (unsigned)(piece.byte_count % 64), blocks = rest_bytes < 56 ? 1 : 2;
    for (unsigned block = 0; block < blocks; block++) {
#pragma unroll
        for (unsigned k = 0; k < 16; k++) {
            w[k] = 0;
            for (unsigned b = 0; b < 4; b++) {
                unsigned at = 64 * block + 4 * k + b;
                uint32_t byte = at < rest_bytes ? rest[at] : at == rest_bytes ? 0x80 : 0;
                w[k] |= byte << (24 - 8 * b);
            }
        }
        if (block + 1 == blocks) {
            w[14] = (uint32_t)(piece.byte_count >> 29);
            w[15] = (uint32_t)(piece.byte_count << 3);
        }
        sha256_block(state, w);
    }
#pragma unroll
    for (int k = 0; k < 8; k++) d_digests[8 * (size_t)index + k] = swap_bytes(state[k]);
}

#endif

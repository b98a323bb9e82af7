/* pack12.h - BF16 matrices at 12 bits a weight: the form in which weights lie in device memory, decoded inside the products.
 *
 * A BF16 weight is split into its low byte (exponent's lowest bit and mantissa), kept as it is, and its upper byte (sign and the
 * upper seven exponent bits). A matrix has a window of eight values of those seven bits; a weight's code is the index of its
 * value and its sign, four bits. Weights whose value is not in the window are listed as patches. Every bit pattern is restored.
 *
 * Sixteen rows are a band, 256 columns of a band a tile: what a warp multiplies with tensor cores at a time. A tile lies in one
 * piece, in the order in which the lanes want it; pack12_layout.h has that, shared by host and device. Bands are filled up to
 * sixteen rows, and the last tile of a band to a multiple of 64 columns, with weights that count as any finite number.
 *
 *   memory of a matrix, 16-byte aligned
 *     tiles          band by band; of each tile: head of four words, a byte a weight, half a byte a weight
 *     patch count    a word: of the following
 *     patches        words: those of a tile lie together, in ascending order of steps
 *
 * A head's first word is the number of the tile's patches. If there are at most three, they follow; else the second word is where
 * in the list of patches they begin. Which tile comes first in the list is left to chance.
 *
 * Streams are cudaStream_t. All functions but the host-only ones queue their work on the stream and return. Any thread.
 */
#ifndef CLLM_PACK12_H
#define CLLM_PACK12_H

#include "cllm.h"
#include "gpu_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CLLM_PACK12_BINS 128 /* values of the upper seven exponent bits */

struct cllm_pack12_choice {
    uint64_t window;      /* byte i: the value of index i, below 128 */
    uint64_t patch_count; /* weights outside it */
};

/* Host only. Bytes of device memory for a matrix with that many patches; no size overflows that cllm_config_parse accepts. */
uint64_t cllm_pack12_bytes(struct cllm_gpu_shape shape, uint64_t patch_count);

/* Host only. The most patches with which packing is worth while: above, keep the matrix raw. Gaussian weights need about a
 * seventh of this: a plan may count on cllm_pack12_bytes(shape, cllm_pack12_patch_limit(shape)), less than 75.5 % of BF16 where
 * rows are long. */
uint64_t cllm_pack12_patch_limit(struct cllm_gpu_shape shape);

/* Host only. The eight most frequent values; `histogram` counts the weights of each. */
struct cllm_pack12_choice cllm_pack12_choose(const uint64_t histogram[CLLM_PACK12_BINS]);

/* Counts the values of a BF16 matrix into `d_histogram`: CLLM_PACK12_BINS uint64_t in device memory, set by this. Fails with
 * DEVICE. */
enum cllm_status cllm_pack12_survey(const void *d_bf16, uint64_t element_count, uint64_t *d_histogram, void *stream,
                                    struct cllm_error *err) CLLM_MUST_USE;

/* Packs a row-major BF16 matrix into `d_memory`, cllm_pack12_bytes(shape, choice->patch_count) long and apart from the input, and
 * fills `matrix_out`. `choice` must come from this matrix's histogram (or one of the same window whose count is exact).
 * Fails with USAGE (too many patches) and DEVICE. */
enum cllm_status cllm_pack12_write(const void *d_bf16, struct cllm_gpu_shape shape, const struct cllm_pack12_choice *choice,
                                   void *d_memory, struct cllm_gpu_matrix *matrix_out, void *stream,
                                   struct cllm_error *err) CLLM_MUST_USE;

/* The exact inverse, into `d_bf16`. Fails with DEVICE. */
enum cllm_status cllm_pack12_unpack(const struct cllm_gpu_matrix *matrix, void *d_bf16, void *stream,
                                    struct cllm_error *err) CLLM_MUST_USE;

#ifdef __cplusplus
}
#endif

#endif

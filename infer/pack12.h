/* pack12.h - BF16 matrices at 12 bits a weight: the form in which weights lie in device memory, decoded inside the products.
 *
 * A BF16 weight is split into its low byte (exponent's lowest bit and mantissa), kept as it is, and its upper byte (sign and the
 * upper seven exponent bits). A matrix has a window of eight values of those seven bits; a weight's code is the index of its
 * value and its sign, four bits. Weights whose value is not in the window are listed as patches. Every bit pattern is restored.
 *
 * A row's columns are grouped by 512, the last group holding what is left rounded up to 32; a group of n columns is n low bytes,
 * then n / 8 code words. So a row takes 1.5 bytes a column, rounded up to 48 bytes. The order inside a group is that in which a
 * warp reads it; pack12_layout.h has it, shared by host and device.
 *
 *   memory of a matrix, 16-byte aligned
 *     rows           row_count * cllm_pack12_row_bytes
 *     patch starts   row_count + 1 words: row r's patches are those from starts[r] to starts[r + 1] - 1
 *     patches        words, ascending by row and column: column << 8 | upper byte
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

#define CLLM_PACK12_BINS 128                       /* values of the upper seven exponent bits */
#define CLLM_PACK12_COLUMN_LIMIT ((1 << 24) - 512) /* a matrix must have fewer columns */

struct cllm_pack12_choice {
    uint64_t window;      /* byte i: the value of index i, below 128 */
    uint64_t patch_count; /* weights outside it */
};

/* Host only. Bytes of device memory for a matrix with that many patches; no size overflows that cllm_config_parse accepts. */
uint64_t cllm_pack12_row_bytes(uint32_t column_count);
uint64_t cllm_pack12_bytes(struct cllm_gpu_shape shape, uint64_t patch_count);

/* Host only. The most patches with which packing is worth while: above, keep the matrix raw. Gaussian weights need about a
 * tenth of this: a plan may count on cllm_pack12_bytes(shape, cllm_pack12_patch_limit(shape)), less than 75.5 % of BF16 where
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
 * Fails with USAGE (too many columns or patches) and DEVICE. */
enum cllm_status cllm_pack12_write(const void *d_bf16, struct cllm_gpu_shape shape, const struct cllm_pack12_choice *choice,
                                   void *d_memory, struct cllm_gpu_matrix *matrix_out, void *stream,
                                   struct cllm_error *err) CLLM_MUST_USE;

/* The exact inverse: rows `first_row` to first_row + row_count - 1 as row-major BF16 into `d_bf16`. Fails with DEVICE. */
enum cllm_status cllm_pack12_unpack(const struct cllm_gpu_matrix *matrix, uint32_t first_row, uint32_t row_count, void *d_bf16,
                                    void *stream, struct cllm_error *err) CLLM_MUST_USE;

#ifdef __cplusplus
}
#endif

#endif

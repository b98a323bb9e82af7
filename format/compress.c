/* compress.c - the only includer of zstd. */
#include "compress.h"

#include "bytes.h"

#include <stdlib.h>
#include <zstd.h>

#define WINDOW_MAX (UINT64_C(1) << 31) /* FORMAT.md 7 */

struct cllm_compressor {
    ZSTD_CCtx *encoder; /* made on first use: most readers never compress */
    ZSTD_DCtx *decoder;
};

enum cllm_status cllm_compressor_create(struct cllm_compressor **compressor_out, struct cllm_error *err)
{
    *compressor_out = calloc(1, sizeof **compressor_out);
    if (!*compressor_out) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a zstd state");
    return CLLM_OK;
}

void cllm_compressor_destroy(struct cllm_compressor *compressor)
{
    if (!compressor) return;
    ZSTD_freeCCtx(compressor->encoder);
    ZSTD_freeDCtx(compressor->decoder);
    free(compressor);
}

size_t cllm_compress(struct cllm_compressor *compressor, const void *bytes, size_t byte_count, int level, void *out,
                     size_t capacity)
{
    if (!compressor->encoder) compressor->encoder = ZSTD_createCCtx();
    if (!compressor->encoder) return 0;
    ZSTD_CCtx_reset(compressor->encoder, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(compressor->encoder, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(compressor->encoder, ZSTD_c_contentSizeFlag, 0);
    ZSTD_CCtx_setParameter(compressor->encoder, ZSTD_c_checksumFlag, 0);
    size_t frame_bytes = ZSTD_compress2(compressor->encoder, out, capacity, bytes, byte_count);
    return ZSTD_isError(frame_bytes) ? 0 : frame_bytes;
}

size_t cllm_frame_bytes(const void *bytes, size_t byte_count)
{
    /* libzstd would also take skippable frames and those of its versions before 1.0: neither is a frame of RFC 8878, 3.1.1. */
    if (byte_count < 4 || cllm_load_le32(bytes) != ZSTD_MAGICNUMBER) return 0;
    size_t frame_bytes = ZSTD_findFrameCompressedSize(bytes, byte_count);
    return ZSTD_isError(frame_bytes) ? 0 : frame_bytes;
}

/* RFC 8878, 3.1.1.1.2: the window of a frame whose header is whole; 0 where it is the content, whose size is checked apart. */
static uint64_t frame_window(const uint8_t *frame)
{
    const bool is_single_segment = frame[4] & 0x20;
    const uint64_t base = UINT64_C(1) << (10 + (frame[5] >> 3));
    return is_single_segment ? 0 : base + base / 8 * (frame[5] & 7);
}

enum cllm_status cllm_decompress(struct cllm_compressor *compressor, const void *frame, size_t frame_bytes, void *out,
                                 size_t decoded_bytes, struct cllm_error *err)
{
    if (!compressor->decoder) compressor->decoder = ZSTD_createDCtx();
    if (!compressor->decoder) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a zstd state");
    if (frame_bytes == 0 || cllm_frame_bytes(frame, frame_bytes) != frame_bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "%zu stored bytes are not exactly one zstd frame", frame_bytes);
    }
    if (frame_window(frame) > WINDOW_MAX) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "zstd frame with a window of %llu bytes, expected at most %llu",
                         (unsigned long long)frame_window(frame), (unsigned long long)WINDOW_MAX);
    }
    /* One-shot decoding writes into `out` alone and needs no window buffer of its own. */
    size_t produced = ZSTD_decompressDCtx(compressor->decoder, out, decoded_bytes, frame, frame_bytes);
    if (ZSTD_isError(produced)) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "zstd frame does not decode: %s", ZSTD_getErrorName(produced));
    }
    if (produced != decoded_bytes) {
        return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "zstd frame decodes to %zu bytes, expected %zu", produced,
                         decoded_bytes);
    }
    return CLLM_OK;
}

const char *cllm_compress_library_version(void)
{
    return ZSTD_versionString();
}

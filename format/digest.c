/* digest.c - see digest.h. */
#include "digest.h"

#include "bytes.h"
#include "cpu.h"
#include "layout.h"
#include "sha256.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <xxhash.h>

struct cllm_sha256_stream {
    struct cllm_sha256_message message; /* where the processor has instructions for it, */
    EVP_MD_CTX *context;                /* null there; libcrypto's elsewhere */
};

static enum cllm_status fail_crypto(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "libcrypto refused to compute a SHA-256");
}

uint64_t cllm_checksum(const void *bytes, size_t byte_count)
{
    return cllm_cpu_tier() >= CLLM_CPU_AVX2 ? cllm_checksum_avx2(bytes, byte_count) : XXH3_64bits(bytes, byte_count);
}

enum cllm_status cllm_sha256(const void *bytes, size_t byte_count, uint8_t digest_out[CLLM_DIGEST_BYTES], struct cllm_error *err)
{
    if (!EVP_Digest(bytes, byte_count, digest_out, NULL, EVP_sha256(), NULL)) return fail_crypto(err);
    return CLLM_OK;
}

enum cllm_status cllm_sha256_create(struct cllm_sha256_stream **stream_out, struct cllm_error *err)
{
    *stream_out = NULL;
    struct cllm_sha256_stream *stream = calloc(1, sizeof *stream);
    if (!stream) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a SHA-256 state");
    if (cllm_cpu_has_sha()) {
        cllm_sha256_start(&stream->message);
    } else {
        stream->context = EVP_MD_CTX_new();
        if (!stream->context || !EVP_DigestInit_ex(stream->context, EVP_sha256(), NULL)) {
            cllm_sha256_destroy(stream);
            return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a SHA-256 state");
        }
    }
    *stream_out = stream;
    return CLLM_OK;
}

enum cllm_status cllm_sha256_update(struct cllm_sha256_stream *stream, const void *bytes, size_t byte_count,
                                    struct cllm_error *err)
{
    if (stream->context) return EVP_DigestUpdate(stream->context, bytes, byte_count) ? CLLM_OK : fail_crypto(err);
    cllm_sha256_add(&stream->message, bytes, byte_count);
    return CLLM_OK;
}

enum cllm_status cllm_sha256_leaves(const void *bytes, size_t byte_count, size_t leaf_bytes, uint8_t *leaves_out,
                                    struct cllm_error *err)
{
    const uint8_t *at = bytes;
    enum cllm_status status = CLLM_OK;
    if (cllm_cpu_has_sha()) {
        cllm_sha256_pieces(NULL, bytes, byte_count, leaf_bytes, leaves_out);
        return CLLM_OK;
    }
    for (size_t left = byte_count; left > 0 && !status; leaves_out += CLLM_DIGEST_BYTES) {
        size_t piece = left < leaf_bytes ? left : leaf_bytes;
        status = cllm_sha256(at, piece, leaves_out, err);
        at += piece;
        left -= piece;
    }
    return status;
}

enum cllm_status cllm_sha256_update_with_leaves(struct cllm_sha256_stream *stream, const void *bytes, size_t byte_count,
                                                size_t leaf_bytes, uint8_t *leaves_out, struct cllm_error *err)
{
    if (!stream->context) {
        cllm_sha256_pieces(&stream->message, bytes, byte_count, leaf_bytes, leaves_out);
        return CLLM_OK;
    }
    enum cllm_status status = cllm_sha256_update(stream, bytes, byte_count, err);
    return status ? status : cllm_sha256_leaves(bytes, byte_count, leaf_bytes, leaves_out, err);
}

bool cllm_sha256_apart(unsigned thread_count)
{
    return thread_count > (cllm_cpu_has_sha() ? 2u : 1u);
}

enum cllm_status cllm_sha256_finish(struct cllm_sha256_stream *stream, uint8_t digest_out[CLLM_DIGEST_BYTES],
                                    struct cllm_error *err)
{
    if (stream->context) {
        if (!EVP_DigestFinal_ex(stream->context, digest_out, NULL)) return fail_crypto(err);
        return EVP_DigestInit_ex(stream->context, EVP_sha256(), NULL) ? CLLM_OK : fail_crypto(err);
    }
    const struct cllm_sha256_pace pace = stream->message.pace; /* is known by now */
    cllm_sha256_end(&stream->message, digest_out);
    cllm_sha256_start(&stream->message);
    stream->message.pace = pace;
    return CLLM_OK;
}

void cllm_sha256_destroy(struct cllm_sha256_stream *stream)
{
    if (!stream) return;
    EVP_MD_CTX_free(stream->context);
    free(stream);
}

enum cllm_status cllm_data_root(uint64_t decoded_bytes, uint32_t chunk_bytes, const uint8_t *leaves, size_t leaf_count,
                                uint8_t root_out[CLLM_DIGEST_BYTES], struct cllm_error *err)
{
    uint8_t head[CLLM_DATA_DIGEST_TAG_BYTES + 16] = CLLM_DATA_DIGEST_TAG;
    cllm_store_le64(head + CLLM_DATA_DIGEST_TAG_BYTES, decoded_bytes);
    cllm_store_le64(head + CLLM_DATA_DIGEST_TAG_BYTES + 8, chunk_bytes);

    struct cllm_sha256_stream *stream = NULL;
    enum cllm_status status = cllm_sha256_create(&stream, err);
    if (!status) status = cllm_sha256_update(stream, head, sizeof head, err);
    if (!status) status = cllm_sha256_update(stream, leaves, leaf_count * CLLM_DIGEST_BYTES, err);
    if (!status) status = cllm_sha256_finish(stream, root_out, err);
    cllm_sha256_destroy(stream);
    return status;
}

const char *cllm_digest_hex(const uint8_t digest[CLLM_DIGEST_BYTES], char out[2 * CLLM_DIGEST_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < CLLM_DIGEST_BYTES; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * CLLM_DIGEST_BYTES] = 0;
    return out;
}

/* digest.c - the only includer of OpenSSL and xxhash. */
#include "digest.h"

#include "bytes.h"
#include "layout.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <xxhash.h>

struct cllm_sha256_stream {
    EVP_MD_CTX *context;
};

static enum cllm_status fail_crypto(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_INTERNAL, CLLM_NO_OFFSET, "libcrypto refused to compute a SHA-256");
}

uint64_t cllm_checksum(const void *bytes, size_t byte_count)
{
    return XXH3_64bits(bytes, byte_count);
}

enum cllm_status cllm_sha256(const void *bytes, size_t byte_count, uint8_t digest_out[CLLM_DIGEST_BYTES], struct cllm_error *err)
{
    if (!EVP_Digest(bytes, byte_count, digest_out, NULL, EVP_sha256(), NULL)) return fail_crypto(err);
    return CLLM_OK;
}

enum cllm_status cllm_sha256_create(struct cllm_sha256_stream **stream_out, struct cllm_error *err)
{
    *stream_out = NULL;
    struct cllm_sha256_stream *stream = malloc(sizeof *stream);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!stream || !context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(context);
        free(stream);
        return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a SHA-256 state");
    }
    stream->context = context;
    *stream_out = stream;
    return CLLM_OK;
}

enum cllm_status cllm_sha256_update(struct cllm_sha256_stream *stream, const void *bytes, size_t byte_count,
                                    struct cllm_error *err)
{
    return EVP_DigestUpdate(stream->context, bytes, byte_count) ? CLLM_OK : fail_crypto(err);
}

enum cllm_status cllm_sha256_finish(struct cllm_sha256_stream *stream, uint8_t digest_out[CLLM_DIGEST_BYTES],
                                    struct cllm_error *err)
{
    if (!EVP_DigestFinal_ex(stream->context, digest_out, NULL)) return fail_crypto(err);
    return EVP_DigestInit_ex(stream->context, EVP_sha256(), NULL) ? CLLM_OK : fail_crypto(err);
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

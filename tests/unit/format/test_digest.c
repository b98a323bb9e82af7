/* Digests against vectors from elsewhere: FIPS 180-4 examples, and xxhsum / sha256sum for the rest. */
#include "digest.h"

#include "compress.h"
#include "cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <cmocka.h>

static void assert_hex(const uint8_t digest[CLLM_DIGEST_BYTES], const char *expected)
{
    char hex[2 * CLLM_DIGEST_BYTES + 1];
    assert_string_equal(cllm_digest_hex(digest, hex), expected);
}

static void test_sha256_of_known_messages(void **state)
{
    (void)state;
    uint8_t digest[CLLM_DIGEST_BYTES];
    assert_int_equal(cllm_sha256("", 0, digest, NULL), CLLM_OK);
    assert_hex(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_int_equal(cllm_sha256("abc", 3, digest, NULL), CLLM_OK);
    assert_hex(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(cllm_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, digest, NULL), CLLM_OK);
    assert_hex(digest, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void test_sha256_stream_equals_one_piece_and_starts_anew(void **state)
{
    (void)state;
    struct cllm_sha256_stream *stream;
    uint8_t digest[CLLM_DIGEST_BYTES];
    assert_int_equal(cllm_sha256_create(&stream, NULL), CLLM_OK);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(cllm_sha256_update(stream, "a", 1, NULL), CLLM_OK);
        assert_int_equal(cllm_sha256_update(stream, NULL, 0, NULL), CLLM_OK);
        assert_int_equal(cllm_sha256_update(stream, "bc", 2, NULL), CLLM_OK);
        assert_int_equal(cllm_sha256_finish(stream, digest, NULL), CLLM_OK);
        assert_hex(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
    cllm_sha256_destroy(stream);
    cllm_sha256_destroy(NULL);
}

/* The stream may be our own code, the one-piece digest is always libcrypto's: they must agree on every length near a block's
 * border, from every alignment, however the bytes are cut. */
static void test_sha256_stream_agrees_with_libcrypto_on_every_length_and_alignment(void **state)
{
    (void)state;
    uint8_t bytes[64 + 400], found[CLLM_DIGEST_BYTES], expected[CLLM_DIGEST_BYTES];
    struct cllm_sha256_stream *stream;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 131 >> 3);
    assert_int_equal(cllm_sha256_create(&stream, NULL), CLLM_OK);
    for (size_t from = 0; from < 64; from++) {
        for (size_t count = 0; count <= 400; count += from % 16 == 0 ? 1 : 13) {
            size_t cut = count * from / 64;
            assert_int_equal(cllm_sha256(bytes + from, count, expected, NULL), CLLM_OK);
            assert_int_equal(cllm_sha256_update(stream, bytes + from, cut, NULL), CLLM_OK);
            assert_int_equal(cllm_sha256_update(stream, bytes + from + cut, count - cut, NULL), CLLM_OK);
            assert_int_equal(cllm_sha256_finish(stream, found, NULL), CLLM_OK);
            assert_memory_equal(found, expected, sizeof found);
        }
    }
    cllm_sha256_destroy(stream);
}

/* FIPS 180-4's long example: a million times "a". */
static void test_sha256_stream_of_a_million_letters(void **state)
{
    (void)state;
    struct cllm_sha256_stream *stream;
    uint8_t digest[CLLM_DIGEST_BYTES];
    char letters[1000];
    memset(letters, 'a', sizeof letters);
    assert_int_equal(cllm_sha256_create(&stream, NULL), CLLM_OK);
    for (unsigned i = 0; i < 1000; i++) assert_int_equal(cllm_sha256_update(stream, letters, sizeof letters, NULL), CLLM_OK);
    assert_int_equal(cllm_sha256_finish(stream, digest, NULL), CLLM_OK);
    assert_hex(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    cllm_sha256_destroy(stream);
}

/* Leaves of every length, beside a stream that stands at every place within a block. Each stream is new, so that it tries the
 * ways that it has to hash sixteen leaves and itself. */
static void test_sha256_leaves_are_those_of_the_pieces_and_the_stream_goes_on(void **state)
{
    (void)state;
    uint8_t bytes[64 + 6000], leaves[64 * CLLM_DIGEST_BYTES], apart[sizeof leaves], expected[CLLM_DIGEST_BYTES],
        found[CLLM_DIGEST_BYTES];
    static const size_t leaf_sizes[] = {1, 55, 56, 63, 64, 65, 119, 128, 192, 300, 2000};
    struct cllm_sha256_stream *stream;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 197 >> 2);
    for (size_t before = 0; before < 64; before++) {
        for (size_t s = 0; s < sizeof leaf_sizes / sizeof *leaf_sizes; s++) {
            size_t leaf_bytes = leaf_sizes[s], count = leaf_bytes * 69 / 2 < 6000 ? leaf_bytes * 69 / 2 : 6000, leaf = 0;
            assert_int_equal(cllm_sha256_create(&stream, NULL), CLLM_OK);
            assert_int_equal(cllm_sha256_update(stream, bytes, before, NULL), CLLM_OK);
            assert_int_equal(cllm_sha256_update_with_leaves(stream, bytes + before, count, leaf_bytes, leaves, NULL), CLLM_OK);
            assert_int_equal(cllm_sha256_finish(stream, found, NULL), CLLM_OK);
            assert_int_equal(cllm_sha256_leaves(bytes + before, count, leaf_bytes, apart, NULL), CLLM_OK);
            assert_memory_equal(apart, leaves, (count + leaf_bytes - 1) / leaf_bytes * CLLM_DIGEST_BYTES);
            assert_int_equal(cllm_sha256(bytes, before + count, expected, NULL), CLLM_OK);
            assert_memory_equal(found, expected, sizeof found);
            for (size_t at = 0; at < count; at += leaf_bytes, leaf++) {
                size_t piece = count - at < leaf_bytes ? count - at : leaf_bytes;
                assert_int_equal(cllm_sha256(bytes + before + at, piece, expected, NULL), CLLM_OK);
                assert_memory_equal(leaves + leaf * CLLM_DIGEST_BYTES, expected, sizeof expected);
            }
            cllm_sha256_destroy(stream);
        }
    }
}

static void test_checksum_is_xxh3_with_64_bits(void **state)
{
    (void)state;
    uint8_t zeros[16] = {0};
    assert_true(cllm_checksum("", 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(cllm_checksum("a", 1) == UINT64_C(0xe6c632b61e964e1f));
    assert_true(cllm_checksum("abc", 3) == UINT64_C(0x78af5f94892f3950));
    assert_true(cllm_checksum(zeros, 16) == UINT64_C(0xd0a66a65c7528968));
}

static void test_checksum_is_the_same_from_every_tier(void **state)
{
    (void)state;
    static uint8_t bytes[5000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 77 >> 3);
    if (cllm_cpu_tier() < CLLM_CPU_AVX2) skip();
    for (size_t count = 0; count < sizeof bytes - 16; count += count < 300 ? 1 : 37) {
        assert_true(cllm_checksum_avx2(bytes + count % 16, count) == XXH3_64bits(bytes + count % 16, count));
    }
}

/* FORMAT.md 8, computed step by step with sha256sum. */
static void test_data_root_follows_the_specification(void **state)
{
    (void)state;
    uint8_t root[CLLM_DIGEST_BYTES], leaves[3 * CLLM_DIGEST_BYTES];
    static uint8_t bytes[2500];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)i;
    assert_int_equal(cllm_data_root(0, 1024, NULL, 0, root, NULL), CLLM_OK);
    assert_hex(root, "4c065e380c3e070c0b02f1e0b05bc65c3be78afa996aaf44b9b78b68fa1191f9");
    assert_int_equal(cllm_sha256("abc", 3, leaves, NULL), CLLM_OK);
    assert_int_equal(cllm_data_root(3, 1024, leaves, 1, root, NULL), CLLM_OK);
    assert_hex(root, "0bce20c246ded0a8af2b705bd4b043e8e49f7073335c99276d9dc3ef17a003c6");
    for (unsigned k = 0; k < 3; k++) {
        assert_int_equal(cllm_sha256(bytes + 1024 * k, k < 2 ? 1024 : 452, leaves + CLLM_DIGEST_BYTES * k, NULL), CLLM_OK);
    }
    assert_int_equal(cllm_data_root(2500, 1024, leaves, 3, root, NULL), CLLM_OK);
    assert_hex(root, "55078dd85737e7367eb72464272322eb7fb15f9366ff7a8e37541ca6294f354f");
}

/* ----------------------------------------------------------------------------------------------------------- zstd frames */

static void test_decompress_wants_exactly_one_frame_of_the_size(void **state)
{
    (void)state;
    char text[500], frame[600], out[500];
    struct cllm_compressor *compressor;
    for (size_t i = 0; i < sizeof text; i++) text[i] = "abcdefg"[i % 7];
    assert_int_equal(cllm_compressor_create(&compressor, NULL), CLLM_OK);
    size_t frame_bytes = cllm_compress(compressor, text, sizeof text, 19, frame, sizeof frame);
    assert_true(frame_bytes > 0 && frame_bytes < 100);
    assert_int_equal(cllm_decompress(compressor, frame, frame_bytes, out, sizeof text, NULL), CLLM_OK);
    assert_memory_equal(text, out, sizeof text);
    assert_int_equal(cllm_decompress(compressor, frame, frame_bytes, out, sizeof text - 1, NULL), CLLM_E_CORRUPT);
    assert_int_equal(cllm_decompress(compressor, frame, frame_bytes - 1, out, sizeof text, NULL), CLLM_E_CORRUPT);
    for (size_t cut = 0; cut < frame_bytes; cut++) {
        uint8_t *exact = malloc(cut + 1);
        memcpy(exact, frame, cut);
        assert_int_equal(cllm_decompress(compressor, exact, cut, out, sizeof text, NULL), CLLM_E_CORRUPT);
        free(exact);
    }
    assert_int_equal(cllm_compress(compressor, text, sizeof text, 19, frame, frame_bytes - 1), 0);
    cllm_compressor_destroy(compressor);
    cllm_compressor_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_of_known_messages),
        cmocka_unit_test(test_sha256_stream_equals_one_piece_and_starts_anew),
        cmocka_unit_test(test_sha256_stream_agrees_with_libcrypto_on_every_length_and_alignment),
        cmocka_unit_test(test_sha256_stream_of_a_million_letters),
        cmocka_unit_test(test_sha256_leaves_are_those_of_the_pieces_and_the_stream_goes_on),
        cmocka_unit_test(test_checksum_is_xxh3_with_64_bits),
        cmocka_unit_test(test_checksum_is_the_same_from_every_tier),
        cmocka_unit_test(test_data_root_follows_the_specification),
        cmocka_unit_test(test_decompress_wants_exactly_one_frame_of_the_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What error records promise, and that names cannot do harm in messages. */
#include "cllm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void test_fail_fills_and_accepts_null(void **state)
{
    (void)state;
    struct cllm_error err;
    assert_int_equal(cllm_fail(&err, CLLM_E_LIMIT, 7, "found %d, expected %s", 1, "two"), CLLM_E_LIMIT);
    assert_int_equal(err.status, CLLM_E_LIMIT);
    assert_int_equal(err.offset, 7);
    assert_string_equal(err.message, "found 1, expected two");
    assert_int_equal(cllm_fail(NULL, CLLM_E_IO, 0, "x"), CLLM_E_IO);
    assert_int_equal(cllm_fail_context(NULL, CLLM_E_IO, "x"), CLLM_E_IO);
}

static void test_fail_context_prepends_and_keeps_the_rest(void **state)
{
    (void)state;
    struct cllm_error err;
    (void)cllm_fail(&err, CLLM_E_CORRUPT, 9, "inner");
    assert_int_equal(cllm_fail_context(&err, CLLM_E_INTERNAL, "file %d", 3), CLLM_E_INTERNAL);
    assert_string_equal(err.message, "file 3: inner");
    assert_int_equal(err.offset, 9);
    assert_int_equal(err.status, CLLM_E_INTERNAL); /* a self-check that fails is not the input's fault */
}

static void test_messages_that_are_too_long_are_cut(void **state)
{
    (void)state;
    struct cllm_error err;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    (void)cllm_fail(&err, CLLM_E_CORRUPT, 0, "%s", text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    (void)cllm_fail_context(&err, CLLM_E_CORRUPT, "in");
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_memory_equal(err.message, "in: xxx", 7);
    (void)cllm_fail_context(&err, CLLM_E_CORRUPT, "%s", text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

static void assert_escaped(const char *bytes, size_t byte_count, const char *expected)
{
    char out[200];
    assert_string_equal(cllm_escape(bytes, byte_count, out, sizeof out), expected);
}

static void test_escape_keeps_text_and_shows_controls(void **state)
{
    (void)state;
    assert_escaped("plain name.weight", 17, "plain name.weight");
    assert_escaped("", 0, "");
    assert_escaped("a\0b", 3, "a\\x00b");
    assert_escaped("\x1b[2J\x07\x7f\n\r\t", 8, "\\x1b[2J\\x07\\x7f\\x0a\\x0d");
    assert_escaped("a\\b", 3, "a\\x5cb");
    assert_escaped("sch\xc3\xb6n \xe2\x82\xac \xf0\x9f\x98\x80", 15, "sch\xc3\xb6n \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_escaped("\xc2\x9b"
                   "31m \xc2\xa0",
                   8, "\\xc2\\x9b31m \xc2\xa0"); /* CSI as one C1 character */
}

static void test_escape_shows_what_is_not_utf8(void **state)
{
    (void)state;
    assert_escaped("\x80", 1, "\\x80");
    assert_escaped("\xff\xfe", 2, "\\xff\\xfe");
    assert_escaped("\xc0\xaf", 2, "\\xc0\\xaf");                   /* overlong */
    assert_escaped("\xe0\x80\xaf", 3, "\\xe0\\x80\\xaf");          /* overlong */
    assert_escaped("\xf0\x80\x80\xaf", 4, "\\xf0\\x80\\x80\\xaf"); /* overlong */
    assert_escaped("\xed\xa0\x80", 3, "\\xed\\xa0\\x80");          /* surrogate */
    assert_escaped("\xf4\x90\x80\x80", 4, "\\xf4\\x90\\x80\\x80"); /* above U+10FFFF */
    assert_escaped("\xf5\x80\x80\x80", 4, "\\xf5\\x80\\x80\\x80");
    assert_escaped("\xc3", 1, "\\xc3"); /* cut short */
    assert_escaped("\xe2\x82", 2, "\\xe2\\x82");
    assert_escaped("\xe2\x82"
                   "A",
                   3,
                   "\\xe2\\x82"
                   "A");
    assert_escaped("\xed\x9f\xbf", 3, "\xed\x9f\xbf");         /* just below the surrogates */
    assert_escaped("\xf4\x8f\xbf\xbf", 4, "\xf4\x8f\xbf\xbf"); /* U+10FFFF */
}

static void test_escape_never_exceeds_its_room(void **state)
{
    (void)state;
    char bytes[64], out[80];
    for (unsigned kind = 0; kind < 3; kind++) {
        memset(bytes, kind == 0 ? 'a' : kind == 1 ? '\n' : 0xFF, sizeof bytes);
        for (size_t room = 0; room < 70; room++) {
            memset(out, '#', sizeof out);
            assert_ptr_equal(cllm_escape(bytes, sizeof bytes, out, room), out);
            for (size_t i = room; i < sizeof out; i++) assert_int_equal(out[i], '#');
            if (room > 0) assert_non_null(memchr(out, 0, room));
            if (room >= 4 && room <= 64) assert_string_equal(out + strlen(out) - 3, "...");
        }
    }
}

static void test_escape_cuts_only_what_does_not_fit(void **state)
{
    (void)state;
    char out[16];
    assert_string_equal(cllm_escape("weights", 7, out, 8), "weights");
    assert_string_equal(cllm_escape("weights", 7, out, 7), "wei...");
    assert_string_equal(cllm_escape("w\n", 2, out, 6), "w\\x0a");
    assert_string_equal(cllm_escape("w\n", 2, out, 5), "w...");
    assert_string_equal(cllm_escape("q", 1, out, 2), "q");
    assert_string_equal(cllm_escape("", 0, out, 1), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail_fills_and_accepts_null),
        cmocka_unit_test(test_fail_context_prepends_and_keeps_the_rest),
        cmocka_unit_test(test_messages_that_are_too_long_are_cut),
        cmocka_unit_test(test_escape_keeps_text_and_shows_controls),
        cmocka_unit_test(test_escape_shows_what_is_not_utf8),
        cmocka_unit_test(test_escape_never_exceeds_its_room),
        cmocka_unit_test(test_escape_cuts_only_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

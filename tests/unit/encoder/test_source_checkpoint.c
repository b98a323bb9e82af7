/* Sharded checkpoints and directories as a source. Row numbers (i..) are those of the project's list of malformed inputs. */
#include "cllm_source.h"

#include "safetensors_builder.h"
#include "source_list.h"
#include "test_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define INDEX "model.safetensors.index.json"
#define A_SHARD "model-00001-of-00002.safetensors"
#define B_SHARD "model-00002-of-00002.safetensors"

static struct test_dir dir;

static int create_dir(void **state)
{
    (void)state;
    dir = test_dir_create();
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    test_dir_remove(&dir);
    return 0;
}

/* ------------------------------------------------------------------------------------------------------- helpers */

static void write_weights(const char *name, const char *first, const char *second)
{
    const char *const names[] = {first, second, NULL};
    test_safetensors_write_tensors(&dir, name, names);
}

/* Two shards with the tensors a, b and c, d; 3 data bytes each. */
static void write_shards(void)
{
    write_weights(A_SHARD, "a", "b");
    write_weights(B_SHARD, "c", "d");
}

static void write_index(const char *total_size, const char *weight_map)
{
    char text[2000];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":%s},\"weight_map\":{%s}}", total_size, weight_map);
    test_dir_write_text(&dir, INDEX, text);
}

#define GOOD_MAP "\"a\":\"" A_SHARD "\",\"b\":\"" A_SHARD "\",\"c\":\"" B_SHARD "\",\"d\":\"" B_SHARD "\""

static enum cllm_status open_name(const char *name, bool only_weights, struct cllm_source **source, struct cllm_error *err)
{
    const struct cllm_source_options options = {.only_weights = only_weights};
    *err = (struct cllm_error){0};
    return cllm_source_open(*name ? test_dir_path(&dir, name) : dir.path, &options, source, err);
}

static void expect_rejected(const char *name, enum cllm_status status, const char *found, const char *expected)
{
    struct cllm_source *source = NULL;
    struct cllm_error err;
    enum cllm_status got = open_name(name, false, &source, &err);
    if (got != status) fail_msg("status %d (%s), expected %d", (int)got, err.message, (int)status);
    assert_null(source);
    if (!strstr(err.message, found)) fail_msg("\"%s\" is not in \"%s\"", found, err.message);
    if (!strstr(err.message, expected)) fail_msg("\"%s\" is not in \"%s\"", expected, err.message);
}

/* Both ways of naming the same checkpoint. */
static void expect_both_rejected(enum cllm_status status, const char *found, const char *expected)
{
    expect_rejected(INDEX, status, found, expected);
    expect_rejected("", status, found, expected);
}

/* `names`: the files expected, joined with spaces. `warning`: a fragment of the only warning, or null for none. */
static void expect_files(const char *name, bool only_weights, const char *names, const char *warning)
{
    struct cllm_source *source = NULL;
    struct cllm_error err;
    char joined[4000] = "";
    if (open_name(name, only_weights, &source, &err) != CLLM_OK) fail_msg("%s", err.message);
    for (uint32_t i = 0; i < source->file_count; i++) {
        size_t used = strlen(joined);
        snprintf(joined + used, sizeof joined - used, "%s%s", i ? " " : "", source->files[i].name);
    }
    assert_string_equal(joined, names);
    assert_int_equal(source->warning_count, warning ? 1 : 0);
    if (warning && !strstr(source->warnings[0], warning)) fail_msg("\"%s\" is not in \"%s\"", warning, source->warnings[0]);
    assert_int_equal(cllm_source_check_unchanged(source, &err), CLLM_OK);
    cllm_source_close(source);
}

/* -------------------------------------------------------------------------------------------- files beside the input */

static void test_file_brings_the_standard_files_beside_it(void **state)
{
    (void)state;
    write_weights("model.safetensors", "a", "b");
    write_weights("other.safetensors", "a", "b");
    static const char *const beside[] = {"config.json",    "tokenizer.json",      "merges.txt", "LICENSE.txt",
                                         "README.md",      "chat_template.jinja", "notes.txt",  "optimizer.pt",
                                         ".gitattributes", "sub/config.json"};
    for (size_t i = 0; i < sizeof beside / sizeof beside[0]; i++) test_dir_write_text(&dir, beside[i], "x");
    assert_int_equal(mkdir(test_dir_path(&dir, "LICENSES"), 0700), 0);
    expect_files("model.safetensors", false,
                 "model.safetensors LICENSE.txt README.md chat_template.jinja config.json merges.txt tokenizer.json", NULL);
    expect_files("model.safetensors", true, "model.safetensors", NULL);
}

static void test_input_that_looks_like_a_standard_file_is_taken_once(void **state)
{
    (void)state;
    write_weights("LICENSE.safetensors", "a", "b");
    expect_files("LICENSE.safetensors", false, "LICENSE.safetensors", NULL);
    write_weights("tokenizer.model", "a", "b");
    expect_files("tokenizer.model", false, "tokenizer.model", NULL);
}

static void test_file_in_the_working_directory_needs_no_slash(void **state)
{
    (void)state;
    char *before = getcwd(NULL, 0);
    write_weights("model.safetensors", "a", "b");
    test_dir_write_text(&dir, "config.json", "{}");
    assert_int_equal(chdir(dir.path), 0);
    const struct cllm_source_options options = {0};
    struct cllm_source *source = NULL;
    struct cllm_error err;
    enum cllm_status status = cllm_source_open("model.safetensors", &options, &source, &err);
    assert_int_equal(chdir(before), 0);
    free(before);
    assert_int_equal(status, CLLM_OK);
    assert_int_equal(source->file_count, 2);
    cllm_source_close(source);
}

/* ------------------------------------------------------------------------------------------------- sharded, correct */

static void test_index_brings_its_shards_itself_and_the_standard_files(void **state)
{
    (void)state;
    write_shards();
    write_index("6", GOOD_MAP);
    test_dir_write_text(&dir, "config.json", "{}");
    expect_files(INDEX, false, A_SHARD " " B_SHARD " config.json " INDEX, NULL);
    expect_files(INDEX, true, A_SHARD " " B_SHARD " " INDEX, NULL);
    expect_files("", false, A_SHARD " " B_SHARD " config.json " INDEX, NULL);
    expect_files("", true, A_SHARD " " B_SHARD " " INDEX, NULL);
}

static void test_tensors_of_all_shards_are_numbered_through(void **state)
{
    (void)state;
    write_shards();
    write_index("6", GOOD_MAP);
    struct cllm_source *source = NULL;
    struct cllm_error err;
    assert_int_equal(open_name(INDEX, true, &source, &err), CLLM_OK);
    assert_int_equal(source->tensor_count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        const char expected[2] = {(char)('a' + i), 0};
        assert_string_equal(source->tensors[i].name, expected);
        assert_int_equal(source->tensors[i].file_index, i / 2);
        assert_int_equal(source->files[i / 2].spans[1 + i % 2].tensor_index, i);
    }
    cllm_source_close(source);
}

static void test_index_may_name_shards_below_it(void **state)
{
    (void)state;
    write_weights("shards/x.safetensors", "a", "b");
    write_index("3", "\"a\":\"shards/x.safetensors\",\"b\":\"shards/x.safetensors\"");
    expect_files(INDEX, false, "shards/x.safetensors " INDEX, NULL);
    expect_files("", false, "shards/x.safetensors " INDEX, NULL);
}

static void test_weights_at_another_level_need_not_be_listed(void **state)
{
    (void)state;
    write_shards();
    write_index("6", GOOD_MAP);
    write_weights("adapter/x.safetensors", "a", "b");
    expect_files("", false, "adapter/x.safetensors " A_SHARD " " B_SHARD " " INDEX, NULL);
}

static void test_index_below_the_directory_is_checked_at_its_level(void **state)
{
    (void)state;
    write_weights("unet/x.safetensors", "a", "b");
    write_weights("vae/x.safetensors", "v", NULL);
    test_dir_write_text(&dir, "unet/y.safetensors.index.json",
                        "{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"x.safetensors\"}}");
    expect_files("", false, "unet/x.safetensors vae/x.safetensors unet/y.safetensors.index.json", NULL);
    test_dir_write_text(&dir, "unet/y.safetensors.index.json", "{\"weight_map\":{\"a\":\"x.safetensors\"}}");
    expect_rejected("", CLLM_E_CORRUPT, "tensor \"b\" is in shard \"x.safetensors\"", "unet/y.safetensors.index.json");
}

/* --------------------------------------------------------------------------------------------------- sharded, wrong */

static void test_i1_unsafe_shard_names_are_rejected(void **state)
{
    (void)state;
    static const char *const names[] = {
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/../../x.safetensors",
        "a\\\\x.safetensors",
        "./x.safetensors",
        "",
        "a//x.safetensors",
        "x.bin",
        "\\nx.safetensors",
        "a/",
        "..",
    };
    write_shards();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char map[200];
        snprintf(map, sizeof map, "\"a\":\"%s\"", names[i]);
        write_index("1", map);
        expect_both_rejected(CLLM_E_CORRUPT, "weight_map value of \"a\" is \"", "expected a relative name");
    }
}

static void test_i1_shard_that_links_out_of_the_directory_is_rejected(void **state)
{
    (void)state;
    struct test_dir outside = test_dir_create();
    const char *const names[] = {"a", NULL};
    test_safetensors_write_tensors(&outside, "x.safetensors", names);
    assert_int_equal(symlink(test_dir_path(&outside, "x.safetensors"), test_dir_path(&dir, "x.safetensors")), 0);
    write_index("1", "\"a\":\"x.safetensors\"");
    expect_both_rejected(CLLM_E_CORRUPT, "\"x.safetensors\" is a link to", "inside the directory");
    assert_int_equal(unlink(test_dir_path(&dir, "x.safetensors")), 0);
    assert_int_equal(symlink(outside.path, test_dir_path(&dir, "sub")), 0);
    write_index("1", "\"a\":\"sub/x.safetensors\"");
    expect_rejected(INDEX, CLLM_E_CORRUPT, "\"sub/x.safetensors\" is a link to", "inside the directory");
    expect_rejected("", CLLM_E_CORRUPT, "\"sub\" is a link to", "inside the directory");
    test_dir_remove(&outside);
}

static void test_i2_shard_of_another_repository_is_rejected(void **state)
{
    (void)state;
    write_shards();
    write_index("1", "\"a\":\"https://example.org/x.safetensors\"");
    expect_both_rejected(CLLM_E_CORRUPT, "https://example.org", "expected a relative name");
}

static void test_i3_missing_shard_is_absent(void **state)
{
    (void)state;
    write_shards();
    write_index("6", GOOD_MAP);
    assert_int_equal(unlink(test_dir_path(&dir, B_SHARD)), 0);
    expect_both_rejected(CLLM_E_ABSENT, B_SHARD, "missing");
}

static void test_i3_unlisted_shard_is_rejected_in_a_directory_and_left_out_beside_an_index(void **state)
{
    (void)state;
    write_shards();
    write_index("6", GOOD_MAP);
    write_weights("consolidated.safetensors", "a", "b");
    write_weights("z.safetensors", "a", "b");
    expect_rejected("", CLLM_E_CORRUPT, "\"consolidated.safetensors\" is not listed", "give the index file as input");
    expect_files(INDEX, false, A_SHARD " " B_SHARD " " INDEX,
                 "left out 2 entries that the index does not list, first \"consolid");
}

static void test_i4_tensor_that_no_shard_has_is_rejected(void **state)
{
    (void)state;
    write_shards();
    write_index("6", GOOD_MAP ",\"e\":\"" B_SHARD "\"");
    expect_both_rejected(CLLM_E_CORRUPT, "tensor \"e\" is listed in shard \"" B_SHARD "\"", "does not have it");
}

static void test_i4_tensor_in_another_shard_is_rejected(void **state)
{
    (void)state;
    write_shards();
    write_index("6", "\"a\":\"" A_SHARD "\",\"b\":\"" B_SHARD "\",\"c\":\"" B_SHARD "\",\"d\":\"" B_SHARD "\"");
    expect_both_rejected(CLLM_E_CORRUPT, "tensor \"b\" is in shard \"" A_SHARD "\"", "expects it in \"" B_SHARD "\"");
}

static void test_i4_tensor_that_is_not_listed_is_rejected(void **state)
{
    (void)state;
    write_shards();
    write_index("6", "\"a\":\"" A_SHARD "\",\"c\":\"" B_SHARD "\",\"d\":\"" B_SHARD "\"");
    expect_both_rejected(CLLM_E_CORRUPT, "tensor \"b\" is in shard \"" A_SHARD "\"", "not listed");
}

static void test_i4_tensor_in_two_shards_is_rejected(void **state)
{
    (void)state;
    write_weights(A_SHARD, "a", "b");
    write_weights(B_SHARD, "c", "a");
    write_index("6", "\"a\":\"" A_SHARD "\",\"b\":\"" A_SHARD "\",\"c\":\"" B_SHARD "\"");
    expect_both_rejected(CLLM_E_CORRUPT, "tensor \"a\" is in shard \"" B_SHARD "\" and in another", "expected in one");
}

static void test_i5_wrong_total_size_is_a_warning(void **state)
{
    (void)state;
    write_shards();
    write_index("7", GOOD_MAP);
    expect_files(INDEX, true, A_SHARD " " B_SHARD " " INDEX, "total_size is 7, the tensors have 6 bytes");
    write_index("6.0", GOOD_MAP);
    expect_files(INDEX, true, A_SHARD " " B_SHARD " " INDEX, NULL);
    write_index("\"six\"", GOOD_MAP);
    expect_files(INDEX, true, A_SHARD " " B_SHARD " " INDEX, NULL);
}

static void test_i6_duplicate_key_in_weight_map_is_rejected(void **state)
{
    (void)state;
    write_shards();
    write_index("6", GOOD_MAP ",\"\\u0061\":\"" A_SHARD "\"");
    expect_both_rejected(CLLM_E_CORRUPT, "name twice", "once");
}

static void test_i6_names_that_differ_in_case_are_rejected(void **state)
{
    (void)state;
    write_weights("model.safetensors", "a", "b");
    test_dir_write_text(&dir, "Config.json", "{}");
    test_dir_write_text(&dir, "config.json", "{}");
    expect_rejected("", CLLM_E_CORRUPT, "\"Config.json\" and \"config.json\"", "expected distinct names");
}

static void test_i6_names_that_differ_in_normalisation_are_rejected(void **state)
{
    (void)state;
    write_weights("model.safetensors", "a", "b");
    test_dir_write_text(&dir, "caf\xc3\xa9.txt", "composed");
    test_dir_write_text(&dir, "cafe\xcc\x81.txt", "decomposed");
    expect_rejected("", CLLM_E_CORRUPT, "differ only in case or Unicode normalisation", "expected distinct names");
}

static void test_i6_names_that_are_not_utf8_or_unsafe_are_rejected(void **state)
{
    (void)state;
    write_weights("model.safetensors", "a", "b");
    test_dir_write_text(&dir, "bad\xff.txt", "x");
    expect_rejected("", CLLM_E_CORRUPT, "bad\\xff.txt", "UTF-8");
    assert_int_equal(unlink(test_dir_path(&dir, "bad\xff.txt")), 0);
    test_dir_write_text(&dir, "a\\b\n.txt", "x");
    expect_rejected("", CLLM_E_CORRUPT, "a\\x5cb\\x0a.txt", "plain relative path");
}

static void test_i8_directory_in_place_of_a_shard_is_rejected(void **state)
{
    (void)state;
    assert_int_equal(mkdir(test_dir_path(&dir, "x.safetensors"), 0700), 0);
    write_index("1", "\"a\":\"x.safetensors\"");
    expect_rejected(INDEX, CLLM_E_FORMAT, "\"x.safetensors\" is a directory", "expected a regular file");
}

static void test_i9_empty_files_are_no_model(void **state)
{
    (void)state;
    test_dir_write_text(&dir, "model.safetensors", "");
    expect_rejected("", CLLM_E_CORRUPT, "has 0 bytes", "at least 8");
    test_dir_write_text(&dir, INDEX, "");
    expect_rejected(INDEX, CLLM_E_CORRUPT, INDEX, "expected one JSON object");
}

static void test_index_that_is_no_index_is_rejected(void **state)
{
    (void)state;
    static const struct {
        const char *text, *found, *expected;
    } cases[] = {
        {"[]", "an array", "a JSON object"},
        {"{}", "weight_map is missing", "an object that lists tensors"},
        {"{\"weight_map\":{}}", "weight_map is empty", "an object that lists tensors"},
        {"{\"weight_map\":[\"a\"]}", "weight_map is an array", "an object that lists tensors"},
        {"{\"weight_map\":{\"a\":1}}", "\"a\" is an integer", "a file name"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\"}} x", "end of file expected", "one JSON object"},
    };
    write_shards();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        test_dir_write_text(&dir, INDEX, cases[i].text);
        expect_both_rejected(CLLM_E_CORRUPT, cases[i].found, cases[i].expected);
    }
}

static void test_shard_that_does_not_parse_is_named(void **state)
{
    (void)state;
    write_shards();
    write_index("6", GOOD_MAP);
    assert_int_equal(truncate(test_dir_path(&dir, B_SHARD), 20), 0);
    expect_both_rejected(CLLM_E_CORRUPT, B_SHARD ": header length is", "only 12 bytes");
}

/* ------------------------------------------------------------------------------------------------------ directories */

static void test_directory_is_taken_in_order_without_hidden_names(void **state)
{
    (void)state;
    write_weights("z.safetensors", "a", "b");
    write_weights("sub/a.safetensors", "a", "b");
    static const char *const others[] = {"A.txt", "b/c.txt", "b.txt", "empty", ".git/config", ".b", "sub/.hidden"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) test_dir_write_text(&dir, others[i], i == 3 ? "" : "x");
    expect_files("", false, "sub/a.safetensors z.safetensors A.txt b.txt b/c.txt empty", "left out 3 entries");
    expect_files("", false, "sub/a.safetensors z.safetensors A.txt b.txt b/c.txt empty", "first \".b\"");
    expect_files("", true, "sub/a.safetensors z.safetensors", "left out 3 entries");
}

static void test_directory_without_weights_is_format(void **state)
{
    (void)state;
    expect_rejected("", CLLM_E_FORMAT, "found 0 files", "expected at least one");
    test_dir_write_text(&dir, "config.json", "{}");
    expect_rejected("", CLLM_E_FORMAT, "no .safetensors file", "expected at least one");
    assert_int_equal(mkdir(test_dir_path(&dir, "m.safetensors"), 0700), 0);
    expect_rejected("", CLLM_E_FORMAT, "no .safetensors file", "expected at least one");
}

static void test_directory_with_broken_weights_is_rejected(void **state)
{
    (void)state;
    write_weights("a.safetensors", "a", "b");
    test_dir_write_text(&dir, "sub/b.safetensors", "this is not a safetensors file");
    expect_rejected("", CLLM_E_CORRUPT, "sub/b.safetensors: header length is", "at most 100000000");
}

static void test_directory_may_hold_sixteen_levels_and_no_more(void **state)
{
    (void)state;
    write_weights("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/a.safetensors", "a", "b");
    expect_files("", false, "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/a.safetensors", NULL);
    assert_int_equal(mkdir(test_dir_path(&dir, "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"), 0700), 0);
    expect_rejected("", CLLM_E_LIMIT, "17 directories deep", "at most 16");
}

static void test_s42_special_files_in_a_directory_are_rejected(void **state)
{
    (void)state;
    write_weights("a.safetensors", "a", "b");
    assert_int_equal(mkfifo(test_dir_path(&dir, "pipe.safetensors"), 0600), 0);
    alarm(10);
    expect_rejected("", CLLM_E_FORMAT, "\"pipe.safetensors\" is a FIFO", "a regular file");
    alarm(0);
}

static void test_links_within_the_directory_are_followed(void **state)
{
    (void)state;
    write_weights("real/x.safetensors", "a", "b");
    assert_int_equal(symlink("real/x.safetensors", test_dir_path(&dir, "model.safetensors")), 0);
    expect_files("", false, "model.safetensors real/x.safetensors", NULL);
}

static void test_i1_links_elsewhere_are_rejected(void **state)
{
    (void)state;
    write_weights("model.safetensors", "a", "b");
    const char *link = test_dir_path(&dir, "config.json");
    assert_int_equal(symlink("/etc/hostname", link), 0);
    expect_rejected("", CLLM_E_CORRUPT, "\"config.json\" is a link to \"/etc/hostname\"", "inside the directory");
    expect_rejected("model.safetensors", CLLM_E_CORRUPT, "\"config.json\" is a link to \"/etc/hostname\"",
                    "inside the directory");
    expect_files("model.safetensors", true, "model.safetensors", NULL);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink("nothing", link), 0);
    expect_rejected("", CLLM_E_ABSENT, "\"config.json\" is a link", "cannot be followed");
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink(".", link), 0);
    expect_rejected("", CLLM_E_CORRUPT, "\"config.json\" is a link", "inside the directory");
    assert_int_equal(unlink(link), 0);
    assert_int_equal(mkdir(test_dir_path(&dir, "sub"), 0700), 0);
    assert_int_equal(symlink("sub", link), 0);
    expect_rejected("", CLLM_E_FORMAT, "\"config.json\" is a link to a directory", "a regular file");
}

/* A sibling whose name starts with the directory's name is not inside it. */
static void test_i1_link_to_a_sibling_with_a_longer_name_is_rejected(void **state)
{
    (void)state;
    write_weights("m/model.safetensors", "a", "b");
    test_dir_write_text(&dir, "model/secret", "x");
    assert_int_equal(symlink("../model/secret", test_dir_path(&dir, "m/config.json")), 0);
    expect_rejected("m", CLLM_E_CORRUPT, "\"config.json\" is a link to", "inside the directory");
}

static void test_links_of_the_model_hubs_cache_are_followed(void **state)
{
    (void)state;
    write_weights("blobs/0123", "a", "b");
    test_dir_write_text(&dir, "blobs/4567", "{}");
    test_dir_write_text(&dir, "snapshots/rev/sub/plain", "x");
    assert_int_equal(symlink("../../blobs/0123", test_dir_path(&dir, "snapshots/rev/model.safetensors")), 0);
    assert_int_equal(symlink("../../blobs/4567", test_dir_path(&dir, "snapshots/rev/config.json")), 0);
    assert_int_equal(symlink("../../../blobs/4567", test_dir_path(&dir, "snapshots/rev/sub/deep.json")), 0);
    expect_files("snapshots/rev", false, "model.safetensors config.json sub/deep.json sub/plain", NULL);
    expect_files("snapshots/rev/", false, "model.safetensors config.json sub/deep.json sub/plain", NULL);
    expect_files("snapshots/rev/model.safetensors", false, "model.safetensors config.json", NULL);
}

/* More files than are kept open: the later ones are opened for each read, and noticed when replaced or gone. */
static void test_many_files_are_read_without_holding_them_open(void **state)
{
    (void)state;
    char name[40], byte = 0;
    write_weights("model.safetensors", "a", "b");
    for (int i = 0; i < 1200; i++) {
        snprintf(name, sizeof name, "%04d.txt", i);
        test_dir_write_text(&dir, name, name + 3);
    }
    struct cllm_source *source = NULL;
    struct cllm_error err;
    assert_int_equal(open_name("", false, &source, &err), CLLM_OK);
    assert_int_equal(source->file_count, 1201);
    assert_int_equal(cllm_source_read(source, 1200, 0, &byte, 1, &err), CLLM_OK);
    assert_int_equal(byte, '9');
    assert_int_equal(cllm_source_read(source, 1200, 5, &byte, 1, &err), CLLM_E_CORRUPT);
    test_dir_write_text(&dir, "new", "9.txt");
    assert_int_equal(rename(test_dir_path(&dir, "new"), test_dir_path(&dir, "1199.txt")), 0);
    assert_int_equal(cllm_source_read(source, 1200, 0, &byte, 1, &err), CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "1199.txt: changed"));
    assert_int_equal(unlink(test_dir_path(&dir, "1199.txt")), 0);
    assert_int_equal(cllm_source_read(source, 1200, 0, &byte, 1, &err), CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "1199.txt: changed"));
    assert_int_equal(mkdir(test_dir_path(&dir, "1199.txt"), 0777), 0);
    assert_int_equal(cllm_source_read(source, 1200, 0, &byte, 1, &err), CLLM_E_CORRUPT);
    assert_non_null(strstr(err.message, "1199.txt: changed"));
    cllm_source_close(source);
}

static void test_list_refuses_more_files_than_the_limit(void **state)
{
    (void)state;
    struct cllm_source_list list = {0};
    struct cllm_error err = {0};
    enum cllm_status status = cllm_source_list_init(&list, dir.path, &err);
    for (uint32_t i = 0; i < CLLM_SOURCE_FILE_COUNT_MAX && !status; i++) status = cllm_source_list_add(&list, "x", false, &err);
    assert_int_equal(status, CLLM_OK);
    assert_int_equal(cllm_source_list_add(&list, "x", false, &err), CLLM_E_LIMIT);
    assert_non_null(strstr(err.message, "65536"));
    cllm_source_list_free(&list);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, create_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_file_brings_the_standard_files_beside_it),
        TEST(test_input_that_looks_like_a_standard_file_is_taken_once),
        TEST(test_file_in_the_working_directory_needs_no_slash),
        TEST(test_index_brings_its_shards_itself_and_the_standard_files),
        TEST(test_tensors_of_all_shards_are_numbered_through),
        TEST(test_index_may_name_shards_below_it),
        TEST(test_weights_at_another_level_need_not_be_listed),
        TEST(test_index_below_the_directory_is_checked_at_its_level),
        TEST(test_i1_unsafe_shard_names_are_rejected),
        TEST(test_i1_shard_that_links_out_of_the_directory_is_rejected),
        TEST(test_i2_shard_of_another_repository_is_rejected),
        TEST(test_i3_missing_shard_is_absent),
        TEST(test_i3_unlisted_shard_is_rejected_in_a_directory_and_left_out_beside_an_index),
        TEST(test_i4_tensor_that_no_shard_has_is_rejected),
        TEST(test_i4_tensor_in_another_shard_is_rejected),
        TEST(test_i4_tensor_that_is_not_listed_is_rejected),
        TEST(test_i4_tensor_in_two_shards_is_rejected),
        TEST(test_i5_wrong_total_size_is_a_warning),
        TEST(test_i6_duplicate_key_in_weight_map_is_rejected),
        TEST(test_i6_names_that_differ_in_case_are_rejected),
        TEST(test_i6_names_that_differ_in_normalisation_are_rejected),
        TEST(test_i6_names_that_are_not_utf8_or_unsafe_are_rejected),
        TEST(test_i8_directory_in_place_of_a_shard_is_rejected),
        TEST(test_i9_empty_files_are_no_model),
        TEST(test_index_that_is_no_index_is_rejected),
        TEST(test_shard_that_does_not_parse_is_named),
        TEST(test_directory_is_taken_in_order_without_hidden_names),
        TEST(test_directory_without_weights_is_format),
        TEST(test_directory_with_broken_weights_is_rejected),
        TEST(test_directory_may_hold_sixteen_levels_and_no_more),
        TEST(test_s42_special_files_in_a_directory_are_rejected),
        TEST(test_links_within_the_directory_are_followed),
        TEST(test_i1_links_elsewhere_are_rejected),
        TEST(test_i1_link_to_a_sibling_with_a_longer_name_is_rejected),
        TEST(test_links_of_the_model_hubs_cache_are_followed),
        TEST(test_many_files_are_read_without_holding_them_open),
        TEST(test_list_refuses_more_files_than_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_output.c - files appear whole or not at all. The system calls that matter are replaced here, in the program that is
 * linked with the library, so that each of their failures can be asked for. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include <dirent.h>

/* ------------------------------------------------------------------------------------------------------ asked failures */

static struct {
    bool no_nameless;     /* O_TMPFILE is not supported */
    bool no_noreplace;    /* RENAME_NOREPLACE is not supported */
    int write_error;      /* pwritev fails with this */
    int write_interrupts; /* so many calls of pwritev fail with EINTR first */
    size_t write_limit;   /* pwritev writes at most so many bytes at once; 0: no limit */
    int reserve_error;
    int file_sync_error;
    int directory_sync_error;
    const char *appears; /* this file is made just before the name is given */
} fault;

int openat(int directory_fd, const char *path, int flags, ...);
ssize_t pwritev(int fd, const struct iovec *pieces, int piece_count, off_t offset);
int fallocate(int fd, int mode, off_t offset, off_t byte_count);
int fsync(int fd);
int renameat2(int old_fd, const char *old_path, int new_fd, const char *new_path, unsigned flags);
int linkat(int old_fd, const char *old_path, int new_fd, const char *new_path, int flags);

int openat(int directory_fd, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    int mode = va_arg(arguments, int);
    va_end(arguments);
    if (fault.no_nameless && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_openat, directory_fd, path, flags, mode);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int piece_count, off_t offset)
{
    struct iovec taken[16];
    size_t left = fault.write_limit ? fault.write_limit : SIZE_MAX;
    int count = 0;
    if (fault.write_interrupts > 0) {
        fault.write_interrupts--;
        errno = EINTR;
        return -1;
    }
    if (fault.write_error) {
        errno = fault.write_error;
        return -1;
    }
    for (; count < piece_count && count < 16 && left > 0; left -= taken[count++].iov_len) {
        taken[count] = pieces[count];
        if (taken[count].iov_len > left) taken[count].iov_len = left;
    }
    return syscall(SYS_pwritev, fd, taken, count, (long)offset, 0L);
}

int fallocate(int fd, int mode, off_t offset, off_t byte_count)
{
    if (fault.reserve_error) {
        errno = fault.reserve_error;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, byte_count);
}

int fsync(int fd)
{
    struct stat info;
    assert_int_equal(fstat(fd, &info), 0);
    int error = S_ISDIR(info.st_mode) ? fault.directory_sync_error : fault.file_sync_error;
    if (error) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

static void make_what_appears(void)
{
    if (!fault.appears) return;
    FILE *file = fopen(fault.appears, "w");
    assert_non_null(file);
    fputs("someone else's", file);
    fclose(file);
    fault.appears = NULL;
}

int renameat2(int old_fd, const char *old_path, int new_fd, const char *new_path, unsigned flags)
{
    if (fault.no_noreplace) {
        errno = EINVAL;
        return -1;
    }
    make_what_appears();
    return (int)syscall(SYS_renameat2, old_fd, old_path, new_fd, new_path, flags);
}

int linkat(int old_fd, const char *old_path, int new_fd, const char *new_path, int flags)
{
    make_what_appears();
    return (int)syscall(SYS_linkat, old_fd, old_path, new_fd, new_path, flags);
}

/* --------------------------------------------------------------------------------------------------------- the folder */

static char folder[] = "/tmp/cllm-test-output-XXXXXX";
static char target[sizeof folder + 16];

static const char *in_folder(const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", folder, name);
    return out;
}

static void empty_folder(void)
{
    char path[512];
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.' || entry->d_name[1] == 'o') remove(path);
    }
    closedir(directory);
}

/* Entries, hidden ones too. */
static int count_entries(void)
{
    int count = 0;
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(directory);
    return count;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void assert_content(const char *path, const char *expected)
{
    char text[256] = {0};
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t count = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    assert_int_equal(count, strlen(expected));
    assert_string_equal(text, expected);
}

static int set_up_group(void **state)
{
    (void)state;
    umask(022);
    if (!mkdtemp(folder)) return -1;
    snprintf(target, sizeof target, "%s/out", folder);
    return 0;
}

static int tear_down_group(void **state)
{
    (void)state;
    return rmdir(folder);
}

static int set_up(void **state)
{
    (void)state;
    memset(&fault, 0, sizeof fault);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    empty_folder();
    int left = count_entries();
    if (left) print_message("%d entries were left behind\n", left);
    return left;
}

static struct cllm_output *create(bool replace)
{
    struct cllm_output *output = NULL;
    struct cllm_error err = {0};
    enum cllm_status status = cllm_output_create(target, replace, &output, &err);
    if (status) print_message("%s\n", err.message);
    assert_int_equal(status, CLLM_OK);
    return output;
}

static void write_text(struct cllm_output *output, const char *text)
{
    assert_int_equal(cllm_output_write(output, text, strlen(text), NULL), CLLM_OK);
}

static void assert_create_fails(const char *path, bool replace, enum cllm_status expected)
{
    struct cllm_output *output = (void *)folder;
    struct cllm_error err = {0};
    assert_int_equal(cllm_output_create(path, replace, &output, &err), expected);
    assert_int_equal(err.status, expected);
    assert_true(err.message[0] != 0);
    assert_null(output);
}

static void assert_commit_fails(struct cllm_output *output, enum cllm_status expected)
{
    struct cllm_error err = {0};
    assert_int_equal(cllm_output_commit(output, &err), expected);
    assert_int_equal(err.status, expected);
    assert_true(err.message[0] != 0);
}

/* -------------------------------------------------------------------------------------------------------------- tests */

/* Both ways of having an unfinished file. */
static void for_both(void (*test)(void))
{
    test();
    empty_folder();
    memset(&fault, 0, sizeof fault);
    fault.no_nameless = true;
    test();
}

static void commit_once(void)
{
    struct stat info;
    struct cllm_output *output = create(false);
    assert_int_equal(access(target, F_OK), -1);
    assert_int_equal(count_entries(), fault.no_nameless ? 1 : 0);
    write_text(output, "hello, ");
    write_text(output, "world");
    assert_int_equal(cllm_output_bytes(output), 12);
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_content(target, "hello, world");
    assert_int_equal(stat(target, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0644);
    assert_int_equal(count_entries(), 1);
}

static void test_commit_gives_the_whole_file_its_name(void **state)
{
    (void)state;
    for_both(commit_once);
}

static void discard_once(void)
{
    struct cllm_output *output = create(false);
    write_text(output, "never seen");
    cllm_output_discard(output);
    assert_int_equal(count_entries(), 0);
}

static void test_discard_leaves_nothing(void **state)
{
    (void)state;
    for_both(discard_once);
    cllm_output_discard(NULL);
}

static void refuse_existing(void)
{
    write_file(target, "old");
    assert_create_fails(target, false, CLLM_E_EXISTS);
    assert_content(target, "old");
    assert_int_equal(count_entries(), 1);
}

static void test_existing_file_is_not_overwritten(void **state)
{
    (void)state;
    for_both(refuse_existing);
}

static void lose_race(void)
{
    struct cllm_output *output = create(false);
    write_text(output, "mine");
    fault.appears = target;
    assert_commit_fails(output, CLLM_E_EXISTS);
    assert_content(target, "someone else's");
    assert_int_equal(count_entries(), 1);
}

static void test_file_that_appears_meanwhile_is_not_overwritten(void **state)
{
    (void)state;
    for_both(lose_race);
    empty_folder();
    fault.no_nameless = fault.no_noreplace = true;
    lose_race();
}

static void test_links_stand_in_for_rename_without_replacing(void **state)
{
    (void)state;
    fault.no_nameless = fault.no_noreplace = true;
    commit_once();
}

static void replace_once(void)
{
    write_file(target, "old");
    struct cllm_output *output = create(true);
    write_text(output, "new");
    assert_content(target, "old");
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_content(target, "new");
    assert_int_equal(count_entries(), 1);
}

static void test_replace_swaps_at_commit(void **state)
{
    (void)state;
    for_both(replace_once);
}

static void discard_replacement(void)
{
    write_file(target, "old");
    struct cllm_output *output = create(true);
    write_text(output, "new");
    cllm_output_discard(output);
    assert_content(target, "old");
    assert_int_equal(count_entries(), 1);
}

static void test_discarded_replacement_keeps_the_old_file(void **state)
{
    (void)state;
    for_both(discard_replacement);
}

static void test_only_a_regular_file_is_replaced(void **state)
{
    (void)state;
    char other[128];
    assert_int_equal(mkdir(target, 0755), 0);
    assert_create_fails(target, true, CLLM_E_USAGE);
    assert_create_fails(target, false, CLLM_E_EXISTS);
    assert_int_equal(rmdir(target), 0);

    assert_int_equal(mkfifo(target, 0644), 0);
    assert_create_fails(target, true, CLLM_E_USAGE);
    assert_int_equal(unlink(target), 0);
    assert_create_fails("/dev/null", true, CLLM_E_USAGE);

    write_file(in_folder("other", other), "untouched");
    assert_int_equal(symlink("other", target), 0);
    assert_create_fails(target, true, CLLM_E_USAGE);
    assert_create_fails(target, false, CLLM_E_EXISTS);
    assert_int_equal(unlink(other), 0); /* the link dangles now */
    assert_create_fails(target, false, CLLM_E_EXISTS);
    assert_int_equal(access(other, F_OK), -1);
}

static void test_symbolic_link_that_appears_is_not_followed(void **state)
{
    (void)state;
    char other[128];
    write_file(in_folder("other", other), "untouched");
    struct cllm_output *output = create(true);
    write_text(output, "new");
    assert_int_equal(symlink("other", target), 0);
    assert_commit_fails(output, CLLM_E_USAGE);
    assert_content(other, "untouched");
}

static void test_names_of_directories_are_usage_errors(void **state)
{
    (void)state;
    assert_create_fails("", false, CLLM_E_USAGE);
    assert_create_fails("/tmp/", false, CLLM_E_USAGE);
    assert_create_fails("/tmp/..", true, CLLM_E_USAGE);
    assert_create_fails(".", true, CLLM_E_USAGE);
}

static void test_missing_directory_is_an_io_error(void **state)
{
    (void)state;
    char path[128];
    assert_create_fails(in_folder("nowhere/out", path), false, CLLM_E_IO);
}

static void rewind_once(void)
{
    struct cllm_output *output = create(false);
    write_text(output, "keep, drop all of this");
    assert_int_equal(cllm_output_rewind(output, 6, NULL), CLLM_OK);
    assert_int_equal(cllm_output_bytes(output), 6);
    write_text(output, "go on");
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_content(target, "keep, go on");
}

static void test_rewind_drops_the_end(void **state)
{
    (void)state;
    for_both(rewind_once);
}

static void read_unfinished(void)
{
    struct cllm_output *output = create(false);
    assert_int_equal(cllm_output_reserve(output, 1 << 20, NULL), CLLM_OK);
    write_text(output, "so far");
    assert_content(cllm_output_readable_path(output), "so far");
    cllm_output_discard(output);
}

static void test_unfinished_file_is_readable_and_shows_no_reserve(void **state)
{
    (void)state;
    for_both(read_unfinished);
}

static void test_reserve_is_given_back_at_commit(void **state)
{
    (void)state;
    struct stat info;
    struct cllm_output *output = create(false);
    assert_int_equal(cllm_output_reserve(output, 16 << 20, NULL), CLLM_OK);
    write_text(output, "short");
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_content(target, "short");
    assert_int_equal(stat(target, &info), 0);
    assert_true(info.st_blocks < 1024);
}

static void test_full_disk_is_found_by_reserve(void **state)
{
    (void)state;
    struct cllm_error err = {0};
    struct cllm_output *output = create(false);
    fault.reserve_error = ENOSPC;
    assert_int_equal(cllm_output_reserve(output, 1000, &err), CLLM_E_IO);
    assert_non_null(strstr(err.message, strerror(ENOSPC)));
    fault.reserve_error = EOPNOTSUPP; /* a file system that cannot */
    assert_int_equal(cllm_output_reserve(output, 1000, &err), CLLM_OK);
    cllm_output_discard(output);
}

static void test_short_and_interrupted_writes_are_continued(void **state)
{
    (void)state;
    struct cllm_output *output = create(false);
    fault.write_limit = 1;
    fault.write_interrupts = 3;
    write_text(output, "byte by byte");
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_content(target, "byte by byte");
}

/* Every way to be cut short, within pieces and between them. */
static void test_pieces_are_written_one_after_the_other(void **state)
{
    (void)state;
    for (size_t limit = 0; limit < 12; limit++) {
        struct iovec pieces[] = {{(char *)"ab", 2}, {NULL, 0}, {(char *)"cdefg", 5}, {(char *)"h", 1}, {NULL, 0}};
        struct cllm_output *output = create(true);
        write_text(output, "-");
        fault.write_limit = limit;
        assert_int_equal(cllm_output_write_pieces(output, pieces, sizeof pieces / sizeof *pieces, NULL), CLLM_OK);
        assert_int_equal(cllm_output_bytes(output), 9);
        assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
        assert_content(target, "-abcdefgh");
    }
}

static void fail_write(void)
{
    static const int errors[] = {ENOSPC, EIO, EDQUOT, EFBIG};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        struct cllm_error err = {0};
        struct cllm_output *output = create(false);
        write_text(output, "abc");
        fault.write_error = errors[i];
        assert_int_equal(cllm_output_write(output, "d", 1, &err), CLLM_E_IO);
        assert_non_null(strstr(err.message, strerror(errors[i])));
        assert_non_null(strstr(err.message, target));
        assert_int_equal(err.offset, 3);
        cllm_output_discard(output);
        assert_int_equal(count_entries(), 0);
        fault.write_error = 0;
    }
}

static void test_failed_write_says_why_and_leaves_nothing(void **state)
{
    (void)state;
    for_both(fail_write);
}

static void fail_sync(void)
{
    bool no_nameless = fault.no_nameless;
    struct cllm_output *output = create(false);
    fault.file_sync_error = EIO;
    assert_commit_fails(output, CLLM_E_IO);
    assert_int_equal(count_entries(), 0);

    memset(&fault, 0, sizeof fault);
    fault.no_nameless = no_nameless;
    output = create(false);
    fault.directory_sync_error = EIO;
    assert_commit_fails(output, CLLM_E_IO);
    assert_int_equal(count_entries(), 0);
}

static void test_failed_sync_leaves_nothing(void **state)
{
    (void)state;
    for_both(fail_sync);
}

static void sync_early(void)
{
    struct cllm_error err = {0};
    struct cllm_output *output = create(false);
    write_text(output, "whole");
    fault.file_sync_error = EIO;
    assert_int_equal(cllm_output_sync(output, &err), CLLM_E_IO);
    assert_non_null(strstr(err.message, "sync"));
    fault.file_sync_error = 0;
    assert_int_equal(cllm_output_sync(output, &err), CLLM_OK);
    assert_int_equal(access(target, F_OK), -1);
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_content(target, "whole");
}

static void test_sync_before_the_file_has_its_name(void **state)
{
    (void)state;
    for_both(sync_early);
}

static void test_failed_sync_keeps_what_was_to_be_replaced(void **state)
{
    (void)state;
    write_file(target, "old");
    struct cllm_output *output = create(true);
    write_text(output, "new");
    fault.file_sync_error = EIO;
    assert_commit_fails(output, CLLM_E_IO);
    assert_content(target, "old");
    assert_int_equal(count_entries(), 1);
}

static void test_directory_that_cannot_sync_is_no_failure(void **state)
{
    (void)state;
    struct cllm_output *output = create(false);
    fault.directory_sync_error = EINVAL;
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_content(target, "");
}

static void create_in_open_directory(void)
{
    struct cllm_output *output = NULL;
    int directory_fd = open(folder, O_RDONLY | O_DIRECTORY);
    assert_true(directory_fd >= 0);
    assert_int_equal(cllm_output_create_at(directory_fd, "shown/as/out", false, &output, NULL), CLLM_OK);
    close(directory_fd);
    write_text(output, "here");
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_content(target, "here");
}

static void test_create_at_uses_the_open_directory(void **state)
{
    (void)state;
    for_both(create_in_open_directory);
}

static void test_messages_escape_control_characters(void **state)
{
    (void)state;
    char path[128];
    struct cllm_error err = {0};
    struct cllm_output *output = NULL;
    write_file(in_folder("o\033[2J", path), "x");
    assert_int_equal(cllm_output_create(path, false, &output, &err), CLLM_E_EXISTS);
    assert_null(strchr(err.message, '\033'));
    assert_non_null(strstr(err.message, "o\\x1b[2J"));
}

static void test_longest_name_has_room_for_the_temporary_one(void **state)
{
    (void)state;
    char path[512];
    struct cllm_output *output = NULL;
    fault.no_nameless = true;
    int used = snprintf(path, sizeof path, "%s/", folder);
    memset(path + used, 'o', 255);
    path[used + 255] = 0;
    assert_int_equal(cllm_output_create(path, false, &output, NULL), CLLM_OK);
    assert_int_equal(cllm_output_commit(output, NULL), CLLM_OK);
    assert_int_equal(unlink(path), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_commit_gives_the_whole_file_its_name),
        TEST(test_discard_leaves_nothing),
        TEST(test_existing_file_is_not_overwritten),
        TEST(test_file_that_appears_meanwhile_is_not_overwritten),
        TEST(test_links_stand_in_for_rename_without_replacing),
        TEST(test_replace_swaps_at_commit),
        TEST(test_discarded_replacement_keeps_the_old_file),
        TEST(test_only_a_regular_file_is_replaced),
        TEST(test_symbolic_link_that_appears_is_not_followed),
        TEST(test_names_of_directories_are_usage_errors),
        TEST(test_missing_directory_is_an_io_error),
        TEST(test_rewind_drops_the_end),
        TEST(test_unfinished_file_is_readable_and_shows_no_reserve),
        TEST(test_reserve_is_given_back_at_commit),
        TEST(test_full_disk_is_found_by_reserve),
        TEST(test_short_and_interrupted_writes_are_continued),
        TEST(test_pieces_are_written_one_after_the_other),
        TEST(test_failed_write_says_why_and_leaves_nothing),
        TEST(test_failed_sync_leaves_nothing),
        TEST(test_sync_before_the_file_has_its_name),
        TEST(test_failed_sync_keeps_what_was_to_be_replaced),
        TEST(test_directory_that_cannot_sync_is_no_failure),
        TEST(test_create_at_uses_the_open_directory),
        TEST(test_messages_escape_control_characters),
        TEST(test_longest_name_has_room_for_the_temporary_one),
    };
    return cmocka_run_group_tests_name("format/output", tests, set_up_group, tear_down_group);
}

/*
 * The log: bounded, rotated, harmless, and with its last lines in memory.
 */
#include "test.h"

#include "ctl/journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = P_tmpdir "/doppel-journal-XXXXXX", path[64], older[64];

static int setup(void **unused)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/log", folder);
    snprintf(older, sizeof(older), "%s/log.1", folder);
    return 0;
}

static int teardown(void **unused)
{
    unlink(path);
    unlink(older);
    return rmdir(folder);
}

static void forget_files(void)
{
    unlink(path);
    unlink(older);
}

/* The content of a file of at most 8 KiB. */
static char *content(const char *name)
{
    static char text[8192];
    FILE *file = fopen(name, "r");
    size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

    text[n] = 0;
    if (file)
        fclose(file);
    return text;
}

/* What the last line of the memory says, after time and level. */
static const char *last_text(const struct journal *j, unsigned age)
{
    const char *line = journal_last(j, age), *text = line ? strstr(line, ": ") : NULL;

    return text ? text + 2 : NULL;
}

static void test_memory(void **unused)
{
    struct journal *j = journal_create(NULL, JOURNAL_LIMIT, NULL);
    char text[2 * LOG_TEXT];

    assert_non_null(j);
    assert_null(journal_last(j, 0));
    for (unsigned i = 0; i < 2 * JOURNAL_LAST; i++) {
        snprintf(text, sizeof(text), "line %u", i);
        journal_line(j, LOG_LEVEL_INFO, text);
    }
    assert_string_equal(last_text(j, 0), "line 23");
    assert_string_equal(last_text(j, JOURNAL_LAST - 1), "line 12");
    assert_null(journal_last(j, JOURNAL_LAST));
    journal_line(j, LOG_LEVEL_ERROR, "a\nb\33[2J\x7f");
    assert_string_equal(last_text(j, 0), "a?b?[2J?");
    assert_non_null(strstr(journal_last(j, 0), "Z error: "));
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    journal_line(j, LOG_LEVEL_INFO, text);
    assert_int_equal(strlen(last_text(j, 0)), LOG_TEXT - 1);
    journal_destroy(j);
}

/* However much is written, there are two files within the limit, with whole lines in order and
 * nothing missing between them. */
static void test_rotation(void **unused)
{
    enum { LIMIT = 2000, LINES = 500 };
    struct journal *j = journal_create(path, LIMIT, NULL);
    const char *name[] = {older, path};
    unsigned next = 0;
    char text[64];
    struct stat st;

    assert_non_null(j);
    for (unsigned i = 0; i < LINES; i++) {
        snprintf(text, sizeof(text), "line %u", i);
        journal_line(j, LOG_LEVEL_INFO, text);
    }
    assert_int_equal(journal_error(j), 0);
    journal_destroy(j);
    for (unsigned i = 0; i < 2; i++) {
        char *line = content(name[i]);

        assert_int_equal(stat(name[i], &st), 0);
        assert_in_range(st.st_size, 1, LIMIT);
        assert_int_equal(st.st_mode & 0777, 0600);
        for (char *end; (end = strchr(line, '\n')); line = end + 1) {
            unsigned number;

            *end = 0;
            assert_int_equal(sscanf(strstr(line, ": "), ": line %u", &number), 1);
            assert_true(!next || number == next);
            next = number + 1;
        }
        assert_int_equal(*line, 0);
    }
    assert_int_equal(next, LINES);
    forget_files();
}

/* A file that is there is added to; one that another journal writes, or that is none, is refused.
 */
static void test_files(void **unused)
{
    struct error err = {0};
    struct journal *j = journal_create(path, JOURNAL_LIMIT, &err);

    assert_non_null(j);
    journal_line(j, LOG_LEVEL_INFO, "first");
    assert_null(journal_create(path, JOURNAL_LIMIT, &err));
    assert_int_equal(err.code, EWOULDBLOCK);
    assert_non_null(strstr(err.text, path));
    journal_destroy(j);
    j = journal_create(path, JOURNAL_LIMIT, &err);
    assert_non_null(j);
    journal_line(j, LOG_LEVEL_INFO, "second");
    journal_destroy(j);
    assert_non_null(strstr(content(path), "first\n"));
    assert_non_null(strstr(content(path), "second\n"));
    assert_null(journal_create("/dev/null", JOURNAL_LIMIT, &err));
    assert_null(journal_create(folder, JOURNAL_LIMIT, &err));
    assert_int_equal(err.code, EISDIR);
    forget_files();
}

/* Writes COUNT lines of about 60 bytes. */
static void write_lines(struct journal *j, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        journal_line(j, LOG_LEVEL_INFO, "a line of no great importance");
}

/* A symbolic link stays one, and the older lines are beside the file that it leads to. */
static void test_link(void **unused)
{
    char link[80], astray[96];
    struct journal *j;
    struct stat st;

    snprintf(link, sizeof(link), "%s/link", folder);
    snprintf(astray, sizeof(astray), "%s.1", link);
    assert_int_equal(symlink("log", link), 0);
    j = journal_create(link, 2000, NULL);
    assert_non_null(j);
    assert_null(journal_create(path, 2000, NULL));
    write_lines(j, 100);
    assert_int_equal(journal_error(j), 0);
    journal_destroy(j);
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(access(astray, F_OK), -1);
    assert_in_range(strlen(content(path)), 1, 2000);
    assert_in_range(strlen(content(older)), 1500, 2000);
    unlink(link);
    forget_files();
}

/* The file is locked at every moment, rotations included: it is never another file, and no other
 * journal can have it. Nor does a rotation touch a file that is another journal's. */
static void test_two(void **unused)
{
    struct journal *j = journal_create(path, 2000, NULL), *other;
    struct stat before, after;

    assert_non_null(j);
    assert_int_equal(stat(path, &before), 0);
    for (unsigned i = 0; i < 100; i++) {
        write_lines(j, 1);
        assert_null(journal_create(path, 2000, NULL));
    }
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    other = journal_create(older, 2000, NULL);
    assert_non_null(other);
    journal_line(other, LOG_LEVEL_INFO, "not to be lost");
    write_lines(j, 100);
    assert_int_equal(journal_error(j), EWOULDBLOCK);
    assert_non_null(strstr(content(older), "not to be lost"));
    journal_destroy(j);
    journal_destroy(other);
    forget_files();
}

/* When the file cannot be written any more, the memory still can. */
static void test_lost(void **unused)
{
    struct journal *j = journal_create(path, JOURNAL_LINE, NULL);

    assert_non_null(j);
    assert_int_equal(mkdir(older, 0700), 0);
    for (unsigned i = 0; i < 20; i++)
        journal_line(j, LOG_LEVEL_INFO, "a line that is some forty bytes long");
    assert_int_equal(journal_error(j), EISDIR);
    assert_string_equal(last_text(j, 0), "a line that is some forty bytes long");
    journal_destroy(j);
    rmdir(older);
    forget_files();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory), cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_files),  cmocka_unit_test(test_link),
        cmocka_unit_test(test_two),    cmocka_unit_test(test_lost),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

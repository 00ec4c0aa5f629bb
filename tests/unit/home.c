/*
 * The user's folders: where they are, who may have them, and what is a name.
 */
#include "test.h"

#include "ctl/home.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = P_tmpdir "/doppel-home-XXXXXX";
static const char *const variables[] = {"XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
                                        "XDG_RUNTIME_DIR"};

static int setup(void **unused)
{
    for (unsigned i = 0; i < 4; i++)
        unsetenv(variables[i]);
    return mkdtemp(root) && setenv("HOME", root, 1) == 0 ? 0 : -1;
}

static int teardown(void **unused)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

/* NAME below the test's folder. */
static const char *in_root(const char *name)
{
    static char path[2][PATH_MAX];
    static unsigned turn;

    turn = !turn;
    snprintf(path[turn], PATH_MAX, "%s/%s", root, name);
    return path[turn];
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode;
}

static void test_places(void **unused)
{
    static const char *const below[] = {".local/share/doppel", ".config/doppel", ".cache/doppel"};
    char path[PATH_MAX], old[32];

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(home_path((enum home)i, NULL, path, sizeof(path), NULL), 0);
        assert_string_equal(path, in_root(below[i]));
        assert_int_equal(mode_of(path), S_IFDIR | 0700);
    }
    snprintf(old, sizeof(old), "%s/doppel-%u", P_tmpdir, (unsigned)geteuid());
    if (home_path(HOME_RUNTIME, NULL, path, sizeof(path), NULL) == 0)
        assert_string_equal(path, old); /* else somebody else has it */
    for (unsigned i = 0; i < 4; i++) {
        setenv(variables[i], in_root("xdg"), 1);
        assert_int_equal(home_path((enum home)i, "a/b", path, sizeof(path), NULL), 0);
        assert_string_equal(path, in_root("xdg/doppel/a/b"));
        assert_int_equal(access(path, F_OK), -1);
        setenv(variables[i], "relative", 1);
    }
    assert_int_equal(mode_of(in_root("xdg")), S_IFDIR | 0700);
    assert_int_equal(home_path(HOME_DATA, "x", path, sizeof(path), NULL), 0);
    assert_string_equal(path, in_root(".local/share/doppel/x"));
    for (unsigned i = 0; i < 4; i++)
        unsetenv(variables[i]);
}

static void test_folders(void **unused)
{
    char path[PATH_MAX];

    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(home_folder(HOME_DATA, "machines/web", path, sizeof(path), NULL), 0);
        assert_string_equal(path, in_root(".local/share/doppel/machines/web"));
        assert_int_equal(mode_of(path), S_IFDIR | 0700);
    }
    assert_int_equal(home_folder(HOME_DATA, NULL, path, sizeof(path), NULL), 0);
    assert_int_equal(home_folder(HOME_DATA, "a", path, 8, NULL), -ENAMETOOLONG);
}

/* What fails, and what the message names. */
static void refuse(enum home folder, int code, const char *word)
{
    struct error err = {0};
    char path[PATH_MAX];

    assert_int_equal(home_path(folder, NULL, path, sizeof(path), &err), -code);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, word))
        fail_msg("'%s' does not say '%s'", err.text, word);
}

static void test_refused(void **unused)
{
    FILE *file;

    setenv("XDG_DATA_HOME", in_root("d"), 1);
    assert_int_equal(mkdir(in_root("d"), 0777), 0);
    assert_int_equal(mkdir(in_root("d/doppel"), 0777), 0);
    assert_int_equal(chmod(in_root("d/doppel"), 0770), 0);
    refuse(HOME_DATA, EPERM, "chmod go-w");
    assert_int_equal(chmod(in_root("d/doppel"), 0755), 0);
    assert_int_equal(home_path(HOME_DATA, NULL, (char[PATH_MAX]){0}, PATH_MAX, NULL), 0);
    setenv("XDG_RUNTIME_DIR", in_root("d"), 1);
    refuse(HOME_RUNTIME, EPERM, "chmod 700");

    /* A link is the user's own business, but for the folder that may lie among others' files. */
    assert_int_equal(mkdir(in_root("l"), 0700), 0);
    assert_int_equal(chmod(in_root("d/doppel"), 0700), 0);
    assert_int_equal(symlink(in_root("d/doppel"), in_root("l/doppel")), 0);
    setenv("XDG_DATA_HOME", in_root("l"), 1);
    setenv("XDG_RUNTIME_DIR", in_root("l"), 1);
    assert_int_equal(home_path(HOME_DATA, NULL, (char[PATH_MAX]){0}, PATH_MAX, NULL), 0);
    refuse(HOME_RUNTIME, ENOTDIR, "not a folder");

    file = fopen(in_root("file"), "w");
    assert_non_null(file);
    fclose(file);
    setenv("XDG_DATA_HOME", in_root("file"), 1);
    refuse(HOME_DATA, ENOTDIR, "cannot make the folder");
    setenv("XDG_DATA_HOME", "/proc/none", 1);
    refuse(HOME_DATA, ENOENT, "/proc/none");
    if (geteuid() == 0) {
        assert_int_equal(chown(in_root("d/doppel"), 1, (gid_t)-1), 0);
        setenv("XDG_DATA_HOME", in_root("d"), 1);
        refuse(HOME_DATA, EPERM, "belongs to user 1,");
    }
    unsetenv("XDG_DATA_HOME");
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("HOME");
    refuse(HOME_DATA, ENOENT, "HOME");
    setenv("HOME", root, 1);
}

static void test_names(void **unused)
{
    static const char *const good[] = {"a", "0", "web", "web-2", "a--", "9to5"};
    static const char *const bad[] = {"",   "-a",  "Web", "a_b",  "a.b",     ".",
                                      "..", "a/b", "a b", "a\n",  "\033[2J", "\303\244",
                                      "a/", "/a",  "~",   "a\tb", "*"};
    char name[HOME_NAME_MOST + 2];
    struct error err = {0};

    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(home_valid_name(good[i]));
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(home_valid_name(bad[i]));
    memset(name, 'x', sizeof(name));
    name[HOME_NAME_MOST + 1] = '\0';
    assert_int_equal(home_check_name(name, &err), -EINVAL);
    assert_non_null(strstr(err.text, "is not a name"));
    name[HOME_NAME_MOST] = '\0';
    assert_int_equal(home_check_name(name, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

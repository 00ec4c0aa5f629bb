/*
 * How many descriptors a guest may have this process open.
 */
#include "descriptors.h"
#include "test.h"

#include "base/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static void test_end(void **unused)
{
    _Atomic unsigned told = 0;
    const struct log log = descriptors_log(&told);
    struct descriptors d, files;
    struct rlimit before;
    int first, end, fd;

    descriptors_init(&d, DESCRIPTORS_SOCKETS, "test", &log);
    first = descriptors_lowest();
    end = descriptors_leave(3, &before);
    for (fd = first; fd < end; fd++) {
        assert_true(descriptors_left(&d, STDIN_FILENO));
        assert_int_equal(descriptors_take(&d, dup(STDIN_FILENO)), fd);
    }
    assert_int_equal(told, 0);
    assert_false(descriptors_left(&d, STDIN_FILENO));
    assert_int_equal(told, 1);
    fd = dup(STDIN_FILENO); /* this process's own may be opened */
    assert_int_equal(fd, end);
    assert_int_equal(descriptors_take(&d, fd), -ENFILE);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(told, 1);
    /* And so may files of the guest's. */
    descriptors_init(&files, DESCRIPTORS_FILES, "test", &log);
    for (fd = end; fd < end / 3 * 4; fd++)
        assert_int_equal(descriptors_take(&files, dup(STDIN_FILENO)), fd);
    assert_int_equal(descriptors_take(&files, dup(STDIN_FILENO)), -ENFILE);
    assert_int_equal(told, 2);
    for (fd = end; fd < end / 3 * 4; fd++)
        close(fd);
    /* As the limit rises, a guest gets more. */
    setrlimit(RLIMIT_NOFILE, &before);
    assert_true(descriptors_left(&d, STDIN_FILENO));
    for (fd = first; fd < end; fd++)
        close(fd);
    assert_int_equal(descriptors_lowest(), first);
}

/* What has failed is passed on as it is. */
static void test_failures(void **unused)
{
    _Atomic unsigned told = 0;
    const struct log log = descriptors_log(&told);
    struct descriptors d;

    descriptors_init(&d, DESCRIPTORS_FILES, "test", &log);
    assert_int_equal(descriptors_take(&d, -EACCES), -EACCES);
    assert_int_equal(told, 0);
    assert_int_equal(descriptors_take(&d, -EMFILE), -EMFILE);
    assert_int_equal(told, 1);
    descriptors_init(&d, DESCRIPTORS_FILES, "test", NULL);
    assert_int_equal(descriptors_take(&d, -ENFILE), -ENFILE);
    assert_false(descriptors_left(&d, -1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Memory in large pages: it is aligned and zero, and stays as it is when small pages are joined, on
 * a host that does so and on one that does not.
 */
#include "test.h"

#include "base/large_pages.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SMALL 4096u

static bool is_filled(const uint8_t *at, size_t size, uint8_t with)
{
    while (size && *at == with) {
        at++;
        size--;
    }
    return !size;
}

static void test_map(void **unused)
{
    const size_t size = LARGE_PAGE + 3 * SMALL + 5;
    uint8_t *at = large_pages_map(size);

    assert_non_null(at);
    assert_int_equal((uintptr_t)at % LARGE_PAGE, 0);
    assert_true(is_filled(at, size, 0));
    memset(at, 1, size);
    assert_int_equal(munmap(at, size), 0);
    assert_null(large_pages_map(SIZE_MAX / 2));
}

/* Two mappings of a file, as generated code has them; some of its pages are there before they are
 * joined. */
static void test_join(void **unused)
{
    const size_t size = 2 * LARGE_PAGE;
    int fd = memfd_create("test", MFD_CLOEXEC);
    uint8_t *write, *run;
    bool joined;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    write = large_pages_map_file(size, PROT_READ | PROT_WRITE, fd);
    run = large_pages_map_file(size, PROT_READ | PROT_EXEC, fd);
    assert_non_null(write);
    assert_non_null(run);
    assert_int_equal((uintptr_t)write % LARGE_PAGE, 0);
    assert_int_equal((uintptr_t)run % LARGE_PAGE, 0);
    memset(write, 1, LARGE_PAGE);
    memset(write + LARGE_PAGE, 2, 5 * SMALL);
    assert_true(is_filled(run + LARGE_PAGE, 5 * SMALL, 2));
    joined = large_pages_join(write + LARGE_PAGE);
    printf("# the host %s pages\n", joined ? "joins" : "does not join");
    large_pages_join(run + LARGE_PAGE);
    assert_true(is_filled(run, LARGE_PAGE, 1));
    assert_true(is_filled(run + LARGE_PAGE, 5 * SMALL, 2));
    assert_true(is_filled(run + LARGE_PAGE + 5 * SMALL, LARGE_PAGE - 5 * SMALL, 0));
    memset(write + LARGE_PAGE, 3, LARGE_PAGE);
    assert_true(is_filled(run + LARGE_PAGE, LARGE_PAGE, 3));
    assert_int_equal(munmap(write, size), 0);
    assert_int_equal(munmap(run, size), 0);
    close(fd);
}

static void test_no_file(void **unused)
{
    assert_null(large_pages_map_file(LARGE_PAGE, PROT_READ, -1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_no_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

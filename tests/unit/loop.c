/*
 * The event loop: callbacks come, stop coming when paused or removed, and never after removal.
 */
#include "test.h"

#include "base/loop.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct probe {
    int fd;
    struct loop_watch *watch;
    _Atomic unsigned entered, calls;
    _Atomic bool inside;
    bool slow, removes_itself;
};

static void sleep_ms(long ms)
{
    struct timespec ts = {.tv_nsec = ms * 1000000};
    nanosleep(&ts, NULL);
}

static void count(void *opaque, uint32_t events)
{
    struct probe *probe = opaque;
    eventfd_t value;
    assert_true(events & EPOLLIN);
    atomic_store(&probe->inside, true);
    atomic_fetch_add(&probe->entered, 1);
    eventfd_read(probe->fd, &value);
    if (probe->slow)
        sleep_ms(30);
    if (probe->removes_itself)
        loop_remove(probe->watch);
    atomic_fetch_add(&probe->calls, 1);
    atomic_store(&probe->inside, false);
}

static bool reaches(_Atomic unsigned *value, unsigned wanted)
{
    for (int i = 0; i < 500 && atomic_load(value) < wanted; i++)
        sleep_ms(2);
    return atomic_load(value) >= wanted;
}

static struct loop *start(struct probe *probe)
{
    struct error err;
    struct loop *loop = loop_create(&err);
    assert_non_null(loop);
    probe->fd = eventfd(0, EFD_NONBLOCK);
    probe->watch = loop_add(loop, probe->fd, EPOLLIN, count, probe, &err);
    assert_non_null(probe->watch);
    assert_int_equal(loop_start(loop, &err), 0);
    return loop;
}

static void test_pause_and_stop(void **unused)
{
    struct probe probe = {0};
    struct loop *loop = start(&probe);
    (void)unused;
    assert_int_not_equal(loop_start(loop, NULL), 0);
    eventfd_write(probe.fd, 1);
    assert_true(reaches(&probe.calls, 1));

    assert_int_equal(loop_modify(probe.watch, 0), 0);
    eventfd_write(probe.fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&probe.calls), 1);
    assert_int_equal(loop_modify(probe.watch, EPOLLIN), 0);
    assert_true(reaches(&probe.calls, 2));

    loop_stop(loop);
    eventfd_write(probe.fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&probe.calls), 2);
    assert_int_equal(loop_start(loop, NULL), 0);
    assert_true(reaches(&probe.calls, 3));
    loop_destroy(loop);
    close(probe.fd);
}

static void test_remove_waits_for_callback(void **unused)
{
    struct probe probe = {.slow = true};
    struct loop *loop = start(&probe);
    (void)unused;
    eventfd_write(probe.fd, 1);
    assert_true(reaches(&probe.entered, 1));
    loop_remove(probe.watch);
    assert_false(atomic_load(&probe.inside));
    assert_int_equal(atomic_load(&probe.calls), 1);
    eventfd_write(probe.fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&probe.calls), 1);
    loop_destroy(loop);
    close(probe.fd);
}

static void test_remove_from_callback(void **unused)
{
    struct probe probe = {.removes_itself = true};
    struct loop *loop = start(&probe);
    (void)unused;
    eventfd_write(probe.fd, 1);
    assert_true(reaches(&probe.calls, 1));
    eventfd_write(probe.fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&probe.calls), 1);
    loop_destroy(loop);
    close(probe.fd);
}

static void test_bad_descriptor(void **unused)
{
    struct error err = {0};
    struct loop *loop = loop_create(&err);
    (void)unused;
    assert_null(loop_add(loop, -1, EPOLLIN, count, NULL, &err));
    assert_int_equal(err.code, 9);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause_and_stop),
        cmocka_unit_test(test_remove_waits_for_callback),
        cmocka_unit_test(test_remove_from_callback),
        cmocka_unit_test(test_bad_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Event files whose other holder has them block: no call here may wait. A test that hangs is ended
 * by the alarm.
 */
#include "test.h"

#include "base/event.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FULL (UINT64_MAX - 1)

static bool is_signalled(int fd)
{
    struct pollfd pfd = {fd, POLLIN, 0};

    return poll(&pfd, 1, 0) == 1;
}

static void signals_and_clears(void **state)
{
    int fd = eventfd(0, EFD_CLOEXEC); /* blocks */
    struct event_sender sender;
    uint64_t count = FULL;

    assert_int_equal(event_sender_open(&sender, NULL), 0);
    assert_false(event_clear(fd));
    assert_int_equal(event_signal(&sender, fd), 0);
    assert_true(is_signalled(fd));
    assert_true(event_clear(fd));
    assert_false(is_signalled(fd));
    assert_false(event_clear(fd));

    /* The counter is full: write(2) would wait. */
    assert_int_equal(write(fd, &count, sizeof(count)), sizeof(count));
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(event_signal(&sender, fd), 0);
    assert_true(event_clear(fd));
    assert_false(event_clear(fd));
    event_sender_close(&sender);
    close(fd);
}

static void no_event_file(void **state)
{
    struct event_sender sender = EVENT_SENDER_CLOSED;
    int ends[2];

    event_sender_close(&sender);
    assert_int_equal(event_sender_open(&sender, NULL), 0);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(event_signal(&sender, ends[1]), -EINVAL);
    assert_int_equal(event_signal(&sender, -1), -EBADF);
    close(ends[0]);
    close(ends[1]);
    event_sender_close(&sender);
}

struct shared {
    struct event_sender sender;
    int fd;
};

static void *send_many(void *opaque)
{
    struct shared *s = opaque;
    uintptr_t failed = 0;

    for (unsigned i = 0; i < 2000; i++)
        failed += event_signal(&s->sender, s->fd) < 0;
    return (void *)failed;
}

static void many_threads(void **state)
{
    struct shared s = {.fd = eventfd(0, EFD_CLOEXEC)};
    pthread_t thread[16];
    uint64_t count;

    assert_int_equal(event_sender_open(&s.sender, NULL), 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(thread_start(&thread[i], "sends", send_many, &s, NULL), 0);
    for (unsigned i = 0; i < 16; i++) {
        void *failed;

        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(read(s.fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 16 * 2000);
    event_sender_close(&s.sender);
    close(s.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_and_clears),
        cmocka_unit_test(no_event_file),
        cmocka_unit_test(many_threads),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

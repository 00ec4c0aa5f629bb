/*
 * The outbox between a device's thread and the one that writes.
 */
#include "test.h"

#include "con/outbox.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LIMIT  64
#define EXCESS 16
#define TOTAL  10000

static void *put_all(void *opaque)
{
    for (unsigned i = 0; i < TOTAL; i++) {
        uint8_t byte = (uint8_t)(i * 7);

        while (outbox_full(opaque))
            sched_yield();
        outbox_put(opaque, &byte, 1);
    }
    return NULL;
}

/* More than fits goes through in order, from a producer that heeds when the box is full. */
static void test_order(void **unused)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    struct outbox *box = outbox_create(LIMIT, EXCESS, fd, NULL);
    pthread_t thread;
    uint8_t bytes[50];
    unsigned got = 0;
    bool room;

    assert_int_equal(pthread_create(&thread, NULL, put_all, box), 0);
    while (got < TOTAL) {
        size_t n = outbox_take(box, bytes, sizeof(bytes), &room);
        uint64_t count;

        for (size_t i = 0; i < n; i++, got++)
            assert_int_equal(bytes[i], (uint8_t)(got * 7));
        if (n == 0 && got < TOTAL) /* would hang if a wake-up were lost */
            assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
    }
    pthread_join(thread, NULL);
    assert_true(outbox_empty(box));
    outbox_destroy(box);
    close(fd);
}

/* Putting never waits: the excess is taken, and what is more is dropped. */
static void test_full(void **unused)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    struct outbox *box = outbox_create(LIMIT, EXCESS, fd, NULL);
    char bytes[2 * LIMIT] = {0};
    bool room;

    assert_int_equal(outbox_put(box, bytes, LIMIT - 1), LIMIT - 1);
    assert_false(outbox_full(box));
    assert_int_equal(outbox_put(box, bytes, 1), 1);
    assert_true(outbox_full(box));
    assert_int_equal(outbox_put(box, bytes, LIMIT), EXCESS);
    assert_int_equal(outbox_put(box, bytes, 1), 0);
    /* There is room when half of it is free, and that is told once. */
    assert_int_equal(outbox_take(box, bytes, EXCESS + LIMIT / 2 - 1, &room),
                     EXCESS + LIMIT / 2 - 1);
    assert_false(room);
    assert_true(outbox_full(box));
    assert_int_equal(outbox_take(box, bytes, 1, &room), 1);
    assert_true(room);
    assert_false(outbox_full(box));
    assert_int_equal(outbox_take(box, bytes, sizeof(bytes), &room), LIMIT / 2);
    assert_false(room);
    outbox_destroy(box);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_full)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The outbox between a device's thread and the one that writes.
 */
#include "test.h"

#include "con/outbox.h"

#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LIMIT 64
#define TOTAL 10000

static void *put_all(void *opaque)
{
    for (unsigned i = 0; i < TOTAL; i++) {
        uint8_t byte = (uint8_t)(i * 7);

        outbox_put(opaque, &byte, 1);
    }
    return NULL;
}

/* More than fits goes through in order, the producer waiting meanwhile. */
static void test_order(void **unused)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    struct outbox *box = outbox_create(LIMIT, fd, NULL);
    pthread_t thread;
    uint8_t bytes[50];
    unsigned got = 0;

    assert_int_equal(pthread_create(&thread, NULL, put_all, box), 0);
    while (got < TOTAL) {
        size_t n = outbox_take(box, bytes, sizeof(bytes));
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

static void *put_too_much(void *opaque)
{
    static const char bytes[3 * LIMIT];

    outbox_put(opaque, bytes, sizeof(bytes));
    return NULL;
}

static void test_close(void **unused)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    struct outbox *box = outbox_create(LIMIT, fd, NULL);
    pthread_t thread;
    char bytes[4 * LIMIT];

    assert_int_equal(pthread_create(&thread, NULL, put_too_much, box), 0);
    while (outbox_empty(box))
        usleep(1000);
    outbox_close(box); /* lets the producer go */
    pthread_join(thread, NULL);
    assert_int_equal(outbox_take(box, bytes, sizeof(bytes)), LIMIT);
    outbox_put(box, bytes, 1);
    assert_true(outbox_empty(box));
    outbox_destroy(box);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_close)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The queue of frames between two threads: what goes in comes out, in order, at any place of the
 * memory, and while both threads are at it.
 */
#include "test.h"

#include "base/util.h"
#include "net/ring.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#define SIZE (512 * KiB)

static uint8_t data[NET_FRAME_MOST];

/* The size of the Nth frame. */
static size_t size_of(unsigned n)
{
    static const size_t sizes[] = {14, 15, 60, 1514, 9000, 33000, NET_FRAME_MOST};

    return sizes[n * 2654435761u >> 16 & 7 ? n % ARRAY_SIZE(sizes) : n % 3];
}

static bool put(struct ring *ring, unsigned n)
{
    struct net_offload offload = {.segment_size = (uint16_t)n};
    size_t size = size_of(n);

    memset(data, (int)(n & 255), size);
    return ring_put(ring, data, size, &offload);
}

/* Whether the next frame is the Nth. */
static void take(struct ring *ring, unsigned n)
{
    struct net_frame frame;

    assert_true(ring_peek(ring, &frame));
    assert_int_equal(frame.size, size_of(n));
    assert_int_equal(frame.offload.segment_size, (uint16_t)n);
    assert_int_equal(frame.data[0], n & 255);
    assert_int_equal(frame.data[frame.size - 1], n & 255);
    ring_drop(ring);
}

static void test_order(void **unused)
{
    struct ring ring = {0};
    struct net_frame frame;
    unsigned in = 0, out = 0;

    assert_int_equal(ring_create(&ring, SIZE, NULL), 0);
    assert_false(ring_peek(&ring, &frame));
    for (unsigned round = 0; round < 200; round++) {
        while (put(&ring, in))
            in++;
        assert_true(in > out);
        /* All of it, or all but a few. */
        while (out < in && (round % 2 || in - out > 2))
            take(&ring, out++);
    }
    while (out < in)
        take(&ring, out++);
    assert_false(ring_peek(&ring, &frame));
    assert_int_equal(ring_used(&ring), 0);
    ring_destroy(&ring);
}

/* A frame that is looked at twice is the same, and may be changed in place. */
static void test_peek(void **unused)
{
    struct ring ring = {0};
    struct net_frame frame, again;

    assert_int_equal(ring_create(&ring, SIZE, NULL), 0);
    assert_true(put(&ring, 1));
    assert_true(ring_peek(&ring, &frame));
    frame.data[3] = 99;
    assert_true(ring_peek(&ring, &again));
    assert_ptr_equal(again.data, frame.data);
    assert_int_equal(again.data[3], 99);
    ring_drop(&ring);
    assert_false(ring_peek(&ring, &frame));
    ring_destroy(&ring);
}

/* Few frames at a time use little memory. */
static void test_few(void **unused)
{
    struct ring ring = {0};
    uint8_t *most = NULL;

    assert_int_equal(ring_create(&ring, SIZE, NULL), 0);
    for (unsigned i = 0; i < 1000; i++) {
        struct net_frame frame;

        assert_true(put(&ring, 3));
        assert_true(ring_peek(&ring, &frame));
        most = MAX(most, frame.data + frame.size);
        ring_drop(&ring);
    }
    assert_true(most <= ring.memory + SIZE / 4 + 2048);
    ring_destroy(&ring);
}

#define FRAMES 20000

static void *put_all(void *opaque)
{
    for (unsigned n = 0; n < FRAMES; n++)
        while (!put(opaque, n))
            sched_yield();
    return NULL;
}

static void test_threads(void **unused)
{
    struct ring ring = {0};
    struct net_frame frame;
    pthread_t thread;

    assert_int_equal(ring_create(&ring, SIZE, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, put_all, &ring), 0);
    for (unsigned n = 0; n < FRAMES; n++) {
        while (!ring_peek(&ring, &frame))
            sched_yield();
        take(&ring, n);
    }
    pthread_join(thread, NULL);
    assert_false(ring_peek(&ring, &frame));
    ring_destroy(&ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_peek),
        cmocka_unit_test(test_few),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

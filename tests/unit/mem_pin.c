/*
 * Pins: what they promise, their limit, and that nobody waits for them.
 */
#include "test.h"

#include "base/util.h"
#include "mem/change.h"
#include "mem/log.h"
#include "mem/pin.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define RAM   (8 * MiB)
#define FIRST 0x400u /* GPN */
#define GPA   (FIRST * (uint64_t)MEM_PAGE_SIZE)

static struct mem *mem;
static struct mem_pin pin;
static struct iovec iov[8];
static unsigned count;
static uint64_t written_gpa, written_size;

static void on_written(void *opaque, uint64_t gpa, uint64_t size)
{
    written_gpa = gpa;
    written_size = size;
}

static const struct mem_listener_ops ops = {.written = on_written};
static struct mem_listener listener = {.ops = &ops};

static int set_up(void **unused)
{
    mem = mem_create(RAM, NULL);
    mem_listen(mem, &listener);
    written_size = 0;
    return mem ? 0 : -1;
}

static int tear_down(void **unused)
{
    mem_destroy(mem);
    return 0;
}

static int take(uint64_t gpa, uint64_t size, enum mem_access access)
{
    count = ARRAY_SIZE(iov);
    return mem_pin(mem, gpa, size, access, &pin, iov, &count);
}

static int change(enum mem_change_kind kind, uint64_t gpn)
{
    struct mem_change c = {.kind = kind, .gpn = gpn};

    mem_change(mem, &c, 1);
    return c.status;
}

static void test_where(void **unused)
{
    uint64_t bitmap[RAM / 4096 / 64];

    mem_fill(mem, GPA, 0x11, 3 * MEM_PAGE_SIZE);
    assert_int_equal(take(GPA + 100, 2 * MEM_PAGE_SIZE, MEM_READ), 0);
    assert_int_equal(pin.size, 2 * MEM_PAGE_SIZE);
    assert_int_equal(count, 1); /* neighbours are one */
    assert_int_equal(iov[0].iov_len, 2 * MEM_PAGE_SIZE);
    assert_ptr_equal(iov[0].iov_base, (char *)mem_peek(mem, FIRST) + 100);
    mem_unpin(mem, &pin);
    assert_int_equal(pin.size, 0);

    assert_int_equal(mem_log_start(mem, NULL), 0);
    written_size = 0;
    assert_int_equal(take(GPA + 4000, 200, MEM_WRITE), 0);
    memset(iov[0].iov_base, 0x22, iov[0].iov_len);
    assert_int_equal(mem_log_fetch(mem, 0, RAM / 4096, bitmap), 0);
    mem_unpin(mem, &pin);
    assert_int_equal(written_gpa, GPA + 4000);
    assert_int_equal(written_size, 200);
    assert_int_equal(mem_log_fetch(mem, 0, RAM / 4096, bitmap), 2);
    assert_int_equal(bitmap[FIRST / 64], 3);
    assert_int_equal(take(GPA, 1, MEM_READ), 0);
    mem_unpin(mem, &pin);
    assert_int_equal(mem_log_fetch(mem, 0, RAM / 4096, bitmap), 0);
    mem_log_stop(mem);
}

static void test_refused(void **unused)
{
    struct mem_region_config config = {
        .name = "device", .gpa = 0xF0000000, .size = 4096, .kind = MEM_DEVICE};

    assert_non_null(mem_region_add(mem, &config, NULL));
    assert_int_equal(take(MEM_VGA_START - 1, 2, MEM_READ), -EFAULT);
    assert_int_equal(take(RAM - 1, 2, MEM_WRITE), -EFAULT);
    assert_int_equal(take(0xF0000000, 1, MEM_READ), -EFAULT);
    assert_int_equal(take(UINT64_MAX, 2, MEM_READ), -EFAULT);
    assert_int_equal(take(0, UINT64_MAX, MEM_READ), -EFAULT);
    /* None of these has kept anything. */
    assert_int_equal(change(MEM_BALLOON, (MEM_VGA_START - 1) >> MEM_PAGE_SHIFT), 0);
    assert_int_equal(take(GPA, 0, MEM_READ), 0);
    assert_int_equal(pin.size + count, 0);
    mem_unpin(mem, &pin);
}

/* Large requests are served in windows; all pins together have a limit. */
static void test_windows(void **unused)
{
    struct mem_pin second;
    uint64_t done = 0;
    unsigned n = 1;

    for (unsigned windows = 0; done < 3 * MiB; windows++) {
        assert_true(windows < 4);
        assert_int_equal(take(GPA + 8 + done, 3 * MiB - done, MEM_WRITE), 0);
        assert_true(pin.size >= MiB - MEM_PAGE_SIZE && pin.size <= MEM_PIN_WINDOW);
        done += pin.size;
        mem_unpin(mem, &pin);
    }
    mem_set_pin_limit(mem, 4 * MEM_PAGE_SIZE);
    assert_int_equal(take(GPA + 8, MiB, MEM_READ), 0);
    assert_int_equal(pin.size, 4 * MEM_PAGE_SIZE - 8); /* in four pages */
    assert_int_equal(mem_pin(mem, GPA, 1, MEM_READ, &second, iov, &n), -EAGAIN);
    mem_unpin(mem, &pin);
    n = 1;
    assert_int_equal(mem_pin(mem, GPA, 1, MEM_READ, &second, iov, &n), 0);
    assert_int_equal(take(GPA + MiB, 4 * MEM_PAGE_SIZE, MEM_READ), 0);
    assert_int_equal(pin.size, 3 * MEM_PAGE_SIZE);
    mem_unpin(mem, &second);
    mem_unpin(mem, &pin);
    mem_set_pin_limit(mem, MEM_PIN_LIMIT);
    /* As many elements as there is room for. */
    mem_fill(mem, GPA, 1, 2 * MEM_PAGE_SIZE);
    n = 0;
    assert_int_equal(mem_pin(mem, GPA, 1, MEM_READ, &second, iov, &n), 0);
    assert_int_equal(second.size, 0);
}

/* Pages come back first, and are private: who writes to a shared page meanwhile moves nothing. */
static void test_makes_present(void **unused)
{
    for (unsigned i = 0; i < 4; i++)
        mem_fill(mem, GPA + i * MEM_PAGE_SIZE, 7, MEM_PAGE_SIZE);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(change(i < 3 ? MEM_SHARE : MEM_BALLOON, FIRST + i), 0);
    assert_int_equal(take(GPA, 4 * MEM_PAGE_SIZE, MEM_READ), 0);
    assert_int_equal(count, 1);
    mem_fill(mem, GPA + MEM_PAGE_SIZE, 8, 1);
    assert_int_equal(((uint8_t *)iov[0].iov_base)[0], 7);
    assert_int_equal(((uint8_t *)iov[0].iov_base)[MEM_PAGE_SIZE], 8);
    assert_int_equal(((uint8_t *)iov[0].iov_base)[3 * MEM_PAGE_SIZE], 0);
    mem_unpin(mem, &pin);
}

/* --- Nobody waits ----------------------------------------------------------------------------- */

static _Atomic unsigned changed;

static void *worker(void *opaque)
{
    while (!atomic_load(&changed))
        ;
    mem_unpin(mem, &pin);
    return NULL;
}

/* A worker unpins its pages when a batch that names them has been made, and not before. If the
 * batch waited for pinned pages, neither would end. */
static void test_skipped(void **unused)
{
    static const enum mem_change_kind kinds[] = {MEM_SHARE, MEM_BALLOON, MEM_PROTECT};
    struct mem_change batch[8];
    pthread_t thread;

    for (unsigned round = 0; round < 20; round++) {
        atomic_store(&changed, 0);
        for (unsigned i = 0; i < ARRAY_SIZE(batch); i++)
            batch[i] = (struct mem_change){
                .kind = kinds[round % ARRAY_SIZE(kinds)], .gpn = FIRST + i, .status = 1};
        mem_fill(mem, GPA, (uint8_t)(round + 1), 8 * MEM_PAGE_SIZE);
        assert_int_equal(take(GPA + 2 * MEM_PAGE_SIZE, 3 * MEM_PAGE_SIZE, MEM_WRITE), 0);
        assert_int_equal(take(GPA + 2 * MEM_PAGE_SIZE, 3 * MEM_PAGE_SIZE, MEM_WRITE), 0);
        pthread_create(&thread, NULL, worker, NULL);
        assert_int_equal(mem_change(mem, batch, 8), 5);
        atomic_store(&changed, 1);
        pthread_join(thread, NULL);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(batch[i].status, i >= 2 && i < 5 ? -EBUSY : 0);
        assert_int_equal(mem_change(mem, batch + 2, 3), 0); /* pinned twice */
        pin = (struct mem_pin){
            .gpa = GPA + 2 * MEM_PAGE_SIZE, .size = 3 * MEM_PAGE_SIZE, .access = MEM_WRITE};
        mem_unpin(mem, &pin);
        assert_int_equal(mem_change(mem, batch + 2, 3), 3);
    }
}

static unsigned told;

static void on_unpin(void *opaque)
{
    told++;
}

/* Who waits hears of the next unpin, or of another limit, once for each time that it waits. */
static void test_waiting(void **unused)
{
    struct mem_pin_waiter waiter = {.run = on_unpin};
    struct mem_pin first;

    told = 0;
    mem_set_pin_limit(mem, 2 * MEM_PAGE_SIZE);
    assert_int_equal(take(GPA, 2 * MEM_PAGE_SIZE, MEM_READ), 0);
    first = pin;
    assert_int_equal(take(GPA, 1, MEM_READ), -EAGAIN);
    mem_pin_await(mem, &waiter);
    mem_pin_await(mem, &waiter);
    assert_int_equal(take(GPA, 1, MEM_READ), -EAGAIN);
    assert_int_equal(told, 0);
    mem_unpin(mem, &first);
    assert_int_equal(told, 1);
    assert_int_equal(take(GPA, 1, MEM_READ), 0);
    mem_unpin(mem, &pin);
    assert_int_equal(told, 1);
    mem_pin_await(mem, &waiter);
    mem_set_pin_limit(mem, MEM_PIN_LIMIT);
    assert_int_equal(told, 2);
    mem_pin_await(mem, &waiter);
    mem_pin_forget(mem, &waiter);
    assert_int_equal(take(GPA, 1, MEM_READ), 0);
    mem_unpin(mem, &pin);
    assert_int_equal(told, 2);
}

/* What a queue's rings need is there whatever else is pinned, whole or not at all. */
static void test_uncounted(void **unused)
{
    struct mem_pin_waiter waiter = {.run = on_unpin};

    told = 0;
    mem_set_pin_limit(mem, 0);
    count = ARRAY_SIZE(iov);
    assert_int_equal(
        mem_pin_uncounted(mem, GPA + 1, 3 * MEM_PAGE_SIZE, MEM_WRITE, &pin, iov, &count), 0);
    assert_int_equal(pin.size, 3 * MEM_PAGE_SIZE);
    assert_int_equal(change(MEM_BALLOON, FIRST + 3), -EBUSY);
    mem_pin_await(mem, &waiter);
    mem_unpin(mem, &pin);
    assert_int_equal(written_size, 3 * MEM_PAGE_SIZE);
    assert_int_equal(told, 0); /* there is no more room than before */
    count = ARRAY_SIZE(iov);
    assert_int_equal(mem_pin_uncounted(mem, RAM - 1, 2, MEM_WRITE, &pin, iov, &count), -EFAULT);
    count = 0;
    assert_int_equal(mem_pin_uncounted(mem, GPA, 1, MEM_WRITE, &pin, iov, &count), -EINVAL);
    mem_pin_forget(mem, &waiter);
    mem_set_pin_limit(mem, MEM_PIN_LIMIT);
    assert_int_equal(take(GPA, MEM_PAGE_SIZE, MEM_READ), 0); /* nothing was counted */
    mem_unpin(mem, &pin);
}

#define TEST(NAME) cmocka_unit_test_setup_teardown(NAME, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_where),   TEST(test_refused), TEST(test_windows),   TEST(test_makes_present),
        TEST(test_skipped), TEST(test_waiting), TEST(test_uncounted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

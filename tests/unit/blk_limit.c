/*
 * Rate limits, in time that passes only while somebody waits for it.
 */
#include "test.h"

#include "blk_rig.h"

#include "base/time.h"

#include <errno.h>

/* The limit's thread waits, and so the time is what it waited for. */
static uint64_t fake_now(void *opaque)
{
    return atomic_load((_Atomic uint64_t *)opaque);
}

static void fake_wait(void *opaque, pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until)
{
    atomic_store((_Atomic uint64_t *)opaque, until);
}

static struct {
    _Atomic uint64_t now;
} const start = {.now = 5 * NS_PER_S};

/* How long COUNT reads of SIZE bytes take with the limits in MORE, in nanoseconds. */
static uint64_t time_of(const char *more, unsigned count, uint64_t size)
{
    _Atomic uint64_t now = start.now;
    const struct blk_clock clock = {.now = fake_now, .wait = fake_wait, .opaque = &now};
    const struct blk_host host = {.clock = &clock};
    struct asked *asked = calloc(count, sizeof(*asked));
    char name[64], *buffer = malloc(size);
    struct asks asks;
    struct blk *blk;

    make_file(name, (off_t)size);
    blk = open_disk(name, more, &host);
    begin_asks(&asks);
    for (unsigned i = 0; i < count; i++)
        ask(&asks, blk, &asked[i], BLK_READ, 0, buffer, size);
    await(&asks, blk);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(asked[i].result, 0);
    blk_close(blk);
    unlink(name);
    free(buffer);
    free(asked);
    return now - start.now;
}

/* A tenth of a second's worth passes at once, and the request that empties the bucket; the rest
 * comes at the rate. */
static void test_requests(void **unused)
{
    assert_int_equal(time_of(",iops=100", 11, 512), 0);
    assert_int_equal(time_of(",iops=100", 12, 512), 10 * NS_PER_MS);
    assert_int_equal(time_of(",iops=100", 1011, 512), 10 * NS_PER_S);
    /* No nanosecond is lost where a request does not take a whole number of them. */
    assert_int_equal(time_of(",iops=7000", 7701, 512), NS_PER_S);
}

static void test_bytes(void **unused)
{
    assert_int_equal(time_of(",bps=1M", 3, 64 * KiB), 62500 * NS_PER_US * 2 - 100 * NS_PER_MS);
    /* One that is larger than the bucket passes when the bucket is full, and is made up for. */
    assert_int_equal(time_of(",bps=1M", 1, 4 * MiB), 0);
    assert_int_equal(time_of(",bps=1M", 3, 4 * MiB), 8 * NS_PER_S - 100 * NS_PER_MS);
}

/* The tighter of two limits counts. */
static void test_both(void **unused)
{
    assert_int_equal(time_of(",iops=10,bps=100M", 12, 512), NS_PER_S);
    assert_int_equal(time_of(",iops=1000,bps=1M", 3, 4 * MiB), 8 * NS_PER_S - 100 * NS_PER_MS);
}

/* The calls that wait go by the limit, too; what is refused costs nothing. */
static void test_waiting(void **unused)
{
    _Atomic uint64_t now = start.now;
    const struct blk_clock clock = {.now = fake_now, .wait = fake_wait, .opaque = &now};
    const struct blk_host host = {.clock = &clock};
    char name[64], sector[512] = "x";
    struct blk *blk;

    make_file(name, 4096);
    blk = open_disk(name, ",iops=10", &host);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(blk_write(blk, 4096, sector, 512), -EIO);
    assert_int_equal(now, start.now);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(blk_write(blk, 512, sector, 512), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_discard(blk, 0, 4096), 0);
    assert_int_equal(now, start.now + 1200 * NS_PER_MS);
    assert_non_null(blk_where(blk, 0));
    blk_close(blk);
    /* Only reads and writes move bytes. */
    now = start.now;
    blk = open_disk(name, ",bps=1K", &host);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(blk_discard(blk, 0, 4096), 0);
        assert_int_equal(blk_zeroes(blk, 0, 4096, false), 0);
        assert_int_equal(blk_flush(blk), 0);
    }
    assert_int_equal(now, start.now);
    blk_close(blk);
    unlink(name);
}

/* What waits can be taken back; what has passed is done, and later requests wait again. */
static void test_recall(void **unused)
{
    enum { COUNT = 5 };
    struct asked asked[COUNT];
    char name[64], sector[512];
    struct asks asks;
    struct blk *blk;

    make_file(name, 4096);
    blk = open_disk(name, ",bps=1", NULL);
    assert_int_equal(blk_read(blk, 0, sector, 512), 0);
    blk_recall(blk);
    begin_asks(&asks);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++)
            ask(&asks, blk, &asked[i], BLK_READ, 0, sector, 512);
        assert_int_equal(asks.open, COUNT);
        blk_recall(blk);
        assert_int_equal(asks.open, 0);
        for (unsigned i = 0; i < COUNT; i++)
            assert_int_equal(asked[i].result, -ECANCELED);
    }
    blk_close(blk);
    unlink(name);
}

/* By the host's clock: no more than that it ends. */
static void test_host_clock(void **unused)
{
    struct blk *blk;
    char name[64], sector[512];
    uint64_t begun = time_now_ns();

    make_file(name, 4096);
    blk = open_disk(name, ",iops=100", NULL);
    for (unsigned i = 0; i < 13; i++)
        assert_int_equal(blk_read(blk, 0, sector, 512), 0);
    assert_true(time_now_ns() - begun >= 20 * NS_PER_MS);
    blk_close(blk);
    unlink(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),   cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_both),       cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_host_clock), cmocka_unit_test(test_recall),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The virtio balloon: pages that are given back and come again, lists of nonsense, reports of free
 * pages, statistics, the target. Workers run when the test says so, and so does what stands for the
 * memory manager's thread.
 */
#include "test.h"

#include "dev/virtio/balloon.h"

#include <errno.h>
#include <string.h>

#include "virtio_queues.h"

#define LIST      0x80000u  /* numbers of pages; up to the pages themselves */
#define PAGES     0x100000u /* 1 MiB of them */
#define VRIG_CONF 0x2000
#define QUEUES    4u

enum { INFLATE, DEFLATE, STATS, REPORT };
#define STATS_VQ  (1ull << 1)
#define REPORTING (1ull << 5)
#define FEATURES  (VRIG_FEATURES | STATS_VQ | REPORTING)

/* Batches that wait for the manager. */
static struct mem_batch *posted[16];
static unsigned count, batches;
static int answer;

static int post(struct mem *mem, struct mem_batch *batch)
{
    assert_in_range(batch->count, 1, MEM_BATCH_MAX);
    if (answer == 0)
        posted[count++] = batch;
    return answer;
}

/* Makes all changes, and those that are posted meanwhile. */
static void manage(struct qrig *f)
{
    while (count) {
        struct mem_batch *batch = posted[--count];

        batches++;
        mem_change(f->v->mem, batch->changes, batch->count);
        batch->done(batch);
    }
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    const struct virtio_balloon_config config = {.target = 3 * MiB + 100, .post = post};

    return virtio_balloon_create(slot, &config, err);
}

static int set_up(void **state)
{
    count = batches = 0;
    answer = 0;
    return qrig_set_up(state, create, QUEUES);
}

static bool given_back(struct qrig *f, unsigned queue)
{
    uint32_t head, written;
    bool any = rig_reap(&f->queue[queue], &head, &written);

    assert_true(!any || written == 0);
    return any;
}

/* Inflates by N pages, page FIRST and those that follow it STEP pages behind each other. */
static void inflate(struct qrig *f, uint32_t first, uint32_t step, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        rig_put(f->v->mem, LIST + 4 * i, first + i * step, 4);
    qrig_give(f, INFLATE, LIST, 4 * n, 0);
}

static uint64_t ballooned(struct qrig *f)
{
    struct mem_counts counts;

    mem_count(f->v->mem, &counts);
    return counts.ballooned;
}

static void fill(struct qrig *f)
{
    assert_int_equal(mem_fill(f->v->mem, PAGES, 0x5A, 1 * MiB), 0);
}

static uint8_t byte(struct qrig *f, uint32_t gpn)
{
    return (uint8_t)rig_get(f->v->mem, (uint64_t)gpn * MEM_PAGE_SIZE + 7, 1);
}

static void test_inflate(void **state)
{
    struct qrig *f = *state;

    qrig_start(f, FEATURES);
    fill(f);
    inflate(f, 0x100, 2, 10);
    assert_false(given_back(f, INFLATE)); /* the guest waits until it has been done */
    assert_int_equal(ballooned(f), 0);
    manage(f);
    assert_true(given_back(f, INFLATE));
    assert_int_equal(ballooned(f), 10);
    assert_int_equal(byte(f, 0x101), 0x5A);
    assert_int_equal(byte(f, 0x102), 0); /* used again */
    assert_int_equal(byte(f, 0x104), 0);
    rig_put(f->v->mem, LIST, 0x106, 4);
    qrig_give(f, DEFLATE, LIST, 4, 0);
    assert_true(given_back(f, DEFLATE));
    rig_put(f->v->mem, 0x106000, 0x77, 1);
    assert_int_equal(rig_get(f->v->mem, 0x106000, 1), 0x77);
    assert_int_equal(vrig_status(f->v), 15);
}

/* More than a batch; the same page twice, pages that are none, and one that is in use. */
static void test_long_lists(void **state)
{
    struct qrig *f = *state;
    struct mem_pin pin;
    struct iovec iov[1];
    unsigned pieces = 1;

    qrig_start(f, FEATURES);
    fill(f);
    assert_int_equal(mem_pin(f->v->mem, PAGES, 1, MEM_READ, &pin, iov, &pieces), 0);
    for (unsigned i = 0; i < 3000; i++)
        rig_put(f->v->mem, LIST + 4 * i, i % 3 ? 0xFFFFFF00 + i % 200 : 0x100 + i % 60, 4);
    qrig_give(f, INFLATE, LIST, 4 * 3000 + 3, 0); /* and bytes that are no number */
    manage(f);
    assert_true(given_back(f, INFLATE));
    assert_int_equal(batches, 3);
    assert_int_equal(ballooned(f), 19);
    assert_int_equal(byte(f, 0x100), 0x5A);
    mem_unpin(f->v->mem, &pin);
    qrig_give(f, INFLATE, LIST, 3, 0); /* no page at all */
    assert_true(given_back(f, INFLATE));
    assert_int_equal(vrig_status(f->v), 15);
}

static void test_refused(void **state)
{
    struct qrig *f = *state;
    struct rig_queue *q = &f->queue[INFLATE];

    qrig_start(f, FEATURES);
    qrig_give(f, INFLATE, 0, 4 * 65536 + 4, 0);
    assert_int_equal(vrig_status(f->v), 0x4F);
    qrig_start(f, FEATURES);
    qrig_give(f, INFLATE, VRIG_MEMORY - 4, 8, 0);
    assert_int_equal(vrig_status(f->v), 0x4F);
    qrig_start(f, FEATURES); /* found when it has begun */
    rig_descriptor(q, 0, LIST, 4 * 1024, RIG_NEXT, 1);
    rig_descriptor(q, 1, VRIG_MEMORY, 4, 0, 0);
    rig_publish(q, 0);
    vrig_notify(f->v);
    qrig_run(f);
    manage(f);
    qrig_run(f);
    assert_int_equal(vrig_status(f->v), 0x4F);
    qrig_start(f, VRIG_FEATURES); /* queues that were not agreed on */
    qrig_give(f, STATS, LIST, 10, 0);
    assert_int_equal(vrig_status(f->v), 0x4F);
}

/* The machine ends, or the host has no threads left: the guest is not kept waiting. */
static void test_no_manager(void **state)
{
    struct qrig *f = *state;

    qrig_start(f, FEATURES);
    fill(f);
    answer = -ESHUTDOWN;
    inflate(f, 0x100, 1, 10);
    assert_true(given_back(f, INFLATE));
    assert_int_equal(ballooned(f), 0);
}

/* Whole pages only, of any number of buffers. */
static void test_reporting(void **state)
{
    struct qrig *f = *state;

    qrig_start(f, FEATURES);
    fill(f);
    qrig_give(f, REPORT, PAGES + 1, 3 * 4096, RIG_WRITE);
    qrig_give(f, REPORT, PAGES + 0x10000, 4096 + 5, RIG_WRITE);
    qrig_give(f, REPORT, PAGES + 0x20000 + 1, 4095, RIG_WRITE);
    qrig_give(f, REPORT, UINT64_MAX - 5000, 8192, RIG_WRITE);
    qrig_give(f, REPORT, PAGES + 0x30000, 0, RIG_WRITE);
    manage(f);
    for (unsigned i = 0; i < 5; i++)
        assert_true(given_back(f, REPORT));
    assert_int_equal(ballooned(f), 3);
    assert_int_equal(byte(f, 0x100), 0x5A);
    assert_int_equal(byte(f, 0x101), 0);
    assert_int_equal(byte(f, 0x102), 0);
    assert_int_equal(byte(f, 0x103), 0x5A);
    assert_int_equal(byte(f, 0x110), 0);
    assert_int_equal(byte(f, 0x120), 0x5A);
    /* More than a batch, most of it beyond the end of memory. */
    batches = 0;
    qrig_give(f, REPORT, PAGES + 0x80000, 0x2000000, RIG_WRITE);
    manage(f);
    assert_true(given_back(f, REPORT));
    assert_int_equal(batches, 8);
    assert_int_equal(byte(f, 0x17F), 0x5A);
    assert_int_equal(byte(f, 0x180), 0);
}

/* A request that is recalled goes no further than its batch. */
static void test_recalled(void **state)
{
    struct qrig *f = *state;

    qrig_start(f, FEATURES);
    qrig_give(f, REPORT, PAGES + 0x80000, 0x2000000, RIG_WRITE); /* 8 batches */
    assert_int_equal(count, 1);
    vrig_write(f->v, VRIG_STATUS, 1, 0);
    manage(f);
    qrig_run(f);
    assert_int_equal(batches, 1);
    assert_false(given_back(f, REPORT));
    assert_int_equal(vrig_status(f->v), 0);
}

/* Without statistics, reports come one queue earlier, as Linux numbers them. */
static void test_queue_numbers(void **state)
{
    struct qrig *f = *state;

    qrig_start(f, VRIG_FEATURES | REPORTING);
    fill(f);
    qrig_give(f, STATS, PAGES, 4096, RIG_WRITE);
    manage(f);
    assert_true(given_back(f, STATS));
    assert_int_equal(ballooned(f), 1);
    qrig_give(f, REPORT, PAGES, 4096, RIG_WRITE);
    assert_int_equal(vrig_status(f->v), 0x4F);
}

static void put_stat(struct qrig *f, unsigned n, uint16_t tag, uint64_t value)
{
    rig_put(f->v->mem, LIST + 10 * n, tag, 2);
    rig_put(f->v->mem, LIST + 10 * n + 2, value, 8);
}

/* The driver's chain is kept; who asks gets it back to the driver, who sends new ones. */
static void test_stats(void **state)
{
    struct qrig *f = *state;
    struct virtio_balloon_state seen;

    qrig_start(f, FEATURES);
    put_stat(f, 0, BALLOON_FREE, 1000);
    put_stat(f, 1, 99, 1);
    qrig_give(f, STATS, LIST, 25, 0); /* and a half */
    assert_false(given_back(f, STATS));
    virtio_balloon_look(f->v->dev, &seen);
    assert_int_equal(seen.answers, 1);
    assert_int_equal(seen.stat[BALLOON_FREE], 1000);
    assert_int_equal(seen.stat[BALLOON_TOTAL], UINT64_MAX);
    virtio_balloon_ask(f->v->dev);
    qrig_run(f);
    assert_true(given_back(f, STATS));
    put_stat(f, 0, BALLOON_FREE, 900);
    qrig_give(f, STATS, LIST, 10, 0);
    qrig_run(f);
    assert_false(given_back(f, STATS));
    virtio_balloon_look(f->v->dev, &seen);
    assert_int_equal(seen.answers, 2);
    assert_int_equal(seen.stat[BALLOON_FREE], 900);
    virtio_balloon_ask(f->v->dev);
    qrig_run(f);
    assert_true(given_back(f, STATS));
    virtio_balloon_ask(f->v->dev); /* before there is anything: the next chain is read and kept */
    qrig_run(f);
    qrig_give(f, STATS, LIST, 10, 0);
    virtio_balloon_look(f->v->dev, &seen);
    assert_int_equal(seen.answers, 3);
}

static void test_target(void **state)
{
    struct qrig *f = *state;
    struct virtio_balloon_state seen;

    qrig_start(f, FEATURES);
    assert_int_equal(vrig_read(f->v, VRIG_CONF, 4), 3 * MiB / 4096);
    vrig_write(f->v, VRIG_CONF + 4, 4, 200);
    vrig_write(f->v, VRIG_CONF, 4, 1); /* not the driver's */
    virtio_balloon_look(f->v->dev, &seen);
    assert_int_equal(seen.actual, 200 * 4096);
    assert_int_equal(seen.target, 3 * MiB);
    virtio_balloon_set_target(f->v->dev, 1 * MiB);
    assert_int_equal(f->v->messages[0], 1);
    assert_int_equal(vrig_read(f->v, VRIG_CONF, 4), 256);
    virtio_balloon_set_target(f->v->dev, UINT64_MAX);
    assert_int_equal(vrig_read(f->v, VRIG_CONF, 4), 0xFFFFFFFF);
}

/* A chain that waits for somebody to ask goes with the state. */
static void test_save_restore(void **state)
{
    struct qrig *f = *state, other;
    struct virtio_balloon_state seen;

    qrig_start(f, FEATURES);
    put_stat(f, 0, BALLOON_TOTAL, 77);
    qrig_give(f, STATS, LIST, 10, 0);
    vrig_write(f->v, VRIG_CONF + 4, 4, 5);
    virtio_balloon_set_target(f->v->dev, 1 * MiB);
    qrig_move(f, &other, create);
    virtio_balloon_look(other.v->dev, &seen);
    assert_int_equal(seen.target, 1 * MiB);
    assert_int_equal(seen.actual, 5 * 4096);
    assert_int_equal(seen.stat[BALLOON_TOTAL], 77);
    assert_false(given_back(&other, STATS));
    virtio_balloon_ask(other.v->dev);
    qrig_run(&other);
    assert_true(given_back(&other, STATS));
    vrig_destroy(other.v);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, qrig_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_inflate),       TEST(test_long_lists), TEST(test_refused),
        TEST(test_no_manager),    TEST(test_recalled),   TEST(test_reporting),
        TEST(test_queue_numbers), TEST(test_stats),      TEST(test_target),
        TEST(test_save_restore),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

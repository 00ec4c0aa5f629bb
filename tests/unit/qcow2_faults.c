/*
 * qcow2 images on a file that fails, is full, or takes its time, as the test says.
 */
#include "test.h"

#include "blk_rig.h"

#include "blk/driver.h"
#include "blk/qcow2/qcow2.h"
#include "blk/qcow2/format.h"

#include "base/thread.h"
#include "base/time.h"

#include <endian.h>
#include <errno.h>
#include <malloc.h>

#define DISK    (4 * MiB)
#define CLUSTER 4096u

/* Stands between an image and its file. */
struct told {
    struct blk blk;
    struct blk *below;
    pthread_mutex_t lock;
    bool hold;                /* the next write that is submitted is held */
    struct blk_request *held; /* or NULL */
    int read_fails, write_fails, flush_fails;
    uint64_t full_from; /* writes that end behind it fail with -ENOSPC */
    uint64_t fickle;    /* each second read of this byte of the file returns VALUE; 0: none */
    unsigned reads;     /* of it */
    uint8_t value;
};

/* R has been carried out. */
static void lie(struct told *t, const struct blk_request *r)
{
    uint64_t at = t->fickle - r->own.at;

    if (r->kind != BLK_READ || !t->fickle || t->fickle < r->own.at || at >= r->size ||
        ++t->reads % 2)
        return;
    for (unsigned i = 0; i < r->iovs; at -= r->iov[i++].iov_len) {
        if (at < r->iov[i].iov_len) {
            ((uint8_t *)r->iov[i].iov_base)[at] = t->value;
            return;
        }
    }
}

static int carry_out(struct told *t, const struct blk_request *r)
{
    struct blk_request copy = {.kind = r->kind,
                               .unmap = r->unmap,
                               .offset = r->own.at,
                               .size = r->size,
                               .iov = r->iov,
                               .iovs = r->iovs};
    int ret;

    if (r->kind == BLK_READ && t->read_fails)
        return t->read_fails;
    if (r->kind == BLK_WRITE && t->write_fails)
        return t->write_fails;
    if (r->kind == BLK_WRITE && r->own.at + r->size > t->full_from)
        return -ENOSPC;
    if (r->kind == BLK_FLUSH && t->flush_fails)
        return t->flush_fails;
    ret = blk_perform(t->below, &copy);
    if (ret == 0)
        lie(t, r);
    return ret;
}

static int perform(struct blk *blk, struct blk_request *request)
{
    return carry_out(container_of(blk, struct told, blk), request);
}

static void submit(struct blk *blk, struct blk_request *request)
{
    struct told *t = container_of(blk, struct told, blk);

    if (request->kind == BLK_WRITE && t->hold) {
        t->hold = false;
        t->held = request;
        return;
    }
    blk_complete(request, carry_out(t, request));
}

static int resize(struct blk *blk, uint64_t size, struct error *err)
{
    return blk_resize(container_of(blk, struct told, blk)->below, size, err);
}

static void close_it(struct blk *blk)
{
    struct told *t = container_of(blk, struct told, blk);

    blk_close(t->below);
    free(t);
}

static const struct blk_driver told_driver = {
    .submit = submit, .perform = perform, .resize = resize, .close = close_it};

static void release(struct told *t)
{
    struct blk_request *held = t->held;

    assert_non_null(held);
    t->held = NULL;
    blk_complete(held, carry_out(t, held));
}

/* ---- An image on it ---- */

struct fixture {
    char name[64];
    struct told *file;
    struct blk *disk;
    uint8_t head[4096]; /* of the file, read by the test */
};

static void open_it(struct fixture *f)
{
    struct blk *below = open_disk(f->name, ",format=raw", NULL);
    struct qcow2_how how = {0};
    struct error err = {0};

    f->file = calloc(1, sizeof(*f->file));
    f->file->blk.driver = &told_driver;
    f->file->blk.info = blk_info(below);
    f->file->blk.host = below->host;
    atomic_init(&f->file->blk.size, blk_info(below).size);
    f->file->below = below;
    f->file->full_from = UINT64_MAX;
    f->disk = qcow2_open(&f->file->blk, &how, &err);
    if (!f->disk)
        print_error("%s\n", err.text);
    assert_non_null(f->disk);
}

static int set_up(void **state)
{
    struct qcow2_create what = {.size = DISK, .cluster_size = CLUSTER};
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};
    struct blk *file;

    make_file(f->name, 0);
    file = open_disk(f->name, ",format=raw", NULL);
    assert_int_equal(qcow2_create(file, &what, &err), 0);
    blk_close(file);
    open_it(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    blk_close(f->disk);
    unlink(f->name);
    free(f);
    return 0;
}

static int put(struct fixture *f, uint64_t offset, uint64_t size, uint64_t seed)
{
    void *bytes = malloc(size);
    int ret;

    fill(bytes, size, seed);
    ret = blk_write(f->disk, offset, bytes, size);
    free(bytes);
    return ret;
}

static void expect_bytes(struct fixture *f, uint64_t offset, uint64_t size, uint64_t seed)
{
    void *bytes = malloc(size), *want = calloc(1, size);

    if (seed)
        fill(want, size, seed);
    assert_int_equal(blk_read(f->disk, offset, bytes, size), 0);
    assert_memory_equal(bytes, want, size);
    free(bytes);
    free(want);
}

/* The image has no error and LEAKS clusters that nothing uses. */
static void expect_sound(struct fixture *f, uint64_t leaks)
{
    struct qcow2_check how = {0};
    struct qcow2_checked found;

    assert_int_equal(qcow2_check(f->disk, &how, &found, NULL), 0);
    assert_int_equal(found.errors, 0);
    assert_int_equal(found.leaks, leaks);
}

/* ---- What takes its time ---- */

/* A write is under way to a cluster that is discarded meanwhile: the cluster is not given to
 * anybody else before the write is done. */
static void test_late_write(void **state)
{
    struct fixture *f = *state;
    char bytes[512];
    struct asks asks;
    struct asked late;

    begin_asks(&asks);
    fill(bytes, sizeof(bytes), 99);
    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    assert_int_equal(blk_flush(f->disk), 0);
    f->file->hold = true;
    ask(&asks, f->disk, &late, BLK_WRITE, 512, bytes, sizeof(bytes));
    assert_non_null(f->file->held);
    assert_int_equal(blk_discard(f->disk, 0, CLUSTER), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(blk_flush(f->disk), 0);
    assert_int_equal(put(f, MiB, 16 * CLUSTER, 2), 0);
    release(f->file);
    await(&asks, f->disk);
    assert_int_equal(late.result, 0);
    expect_bytes(f, MiB, 16 * CLUSTER, 2);
    expect_bytes(f, 0, CLUSTER, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(blk_flush(f->disk), 0);
    expect_sound(f, 0);
}

static void *make_snapshot(void *opaque)
{
    struct error err = {0};
    struct fixture *f = opaque;

    return (void *)(intptr_t)qcow2_snapshot_create(f->disk, "now", &err);
}

/* A snapshot waits for what is under way, and what comes meanwhile waits for the snapshot. */
static void test_snapshot_waits(void **state)
{
    struct fixture *f = *state;
    struct asked early, late;
    struct asks asks;
    char bytes[512];
    pthread_t thread;
    void *result;

    begin_asks(&asks);
    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    fill(bytes, sizeof(bytes), 5);
    f->file->hold = true;
    ask(&asks, f->disk, &early, BLK_WRITE, 0, bytes, sizeof(bytes));
    assert_int_equal(thread_start(&thread, "snapshot", make_snapshot, f, NULL), 0);
    time_sleep_ns(20 * NS_PER_MS);
    ask(&asks, f->disk, &late, BLK_WRITE, 512, bytes, sizeof(bytes));
    time_sleep_ns(5 * NS_PER_MS);
    release(f->file);
    await(&asks, f->disk);
    pthread_join(thread, &result);
    assert_int_equal((intptr_t)result, 0);
    assert_int_equal(early.result, 0);
    assert_int_equal(late.result, 0);
    expect_bytes(f, 0, 512, 5);
    expect_bytes(f, 512, 512, 5);
    expect_sound(f, 0);
}

/* ---- What fails ---- */

/* The host's disk is full: the request says so, nothing else changes, and it goes on when there is
 * room. */
static void test_full(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f, 0, 64 * KiB, 1), 0);
    f->file->full_from = 0;
    assert_int_equal(put(f, MiB, 64 * KiB, 2), -ENOSPC);
    assert_int_equal(put(f, 0, 4 * KiB, 2), -ENOSPC); /* in place: the file had a hole there */
    assert_int_equal(blk_flush(f->disk), -ENOSPC);
    expect_bytes(f, MiB, 64 * KiB, 0);
    expect_bytes(f, 0, 64 * KiB, 1);
    f->file->full_from = UINT64_MAX;
    assert_int_equal(put(f, MiB, 64 * KiB, 3), 0);
    assert_int_equal(blk_flush(f->disk), 0);
    expect_bytes(f, MiB, 64 * KiB, 3);
    expect_sound(f, 0);
}

/* The file can grow so far and no further, in the middle of requests of each kind. */
static void test_nearly_full(void **state)
{
    struct fixture *f = *state;

    for (uint64_t room = 8; room < 80; room += 3) {
        uint64_t done = 0;

        f->file->full_from = room * CLUSTER;
        for (uint64_t at = 0; at < DISK; at += 37 * 512) {
            int ret = put(f, at, 512, at + 1);

            assert_true(ret == 0 || ret == -ENOSPC);
            done += ret == 0;
            if (ret == 0)
                expect_bytes(f, at, 512, at + 1);
        }
        blk_flush(f->disk);
        f->file->full_from = UINT64_MAX;
        assert_int_equal(blk_flush(f->disk), 0);
        expect_sound(f, 0);
        assert_true(done > 0 || room < 12);
        assert_int_equal(blk_discard(f->disk, 0, DISK), 0);
        assert_int_equal(blk_flush(f->disk), 0);
    }
}

/* A write that fails leaves what the disk held, and no leak. */
static void test_write_fails(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    assert_int_equal(qcow2_snapshot_create(f->disk, "kept", NULL), 0);
    f->file->write_fails = -EIO;
    assert_int_equal(put(f, 512, 512, 2), -EIO);
    assert_int_equal(put(f, MiB, 512, 2), -EIO);
    f->file->write_fails = 0;
    expect_bytes(f, 0, CLUSTER, 1);
    expect_bytes(f, MiB, 512, 0);
    assert_int_equal(put(f, MiB, 512, 3), 0);
    expect_sound(f, 0);
}

static void test_read_fails(void **state)
{
    struct fixture *f = *state;
    char bytes[512];

    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    f->file->read_fails = -EIO;
    assert_int_equal(blk_read(f->disk, 0, bytes, sizeof(bytes)), -EIO);
    f->file->read_fails = 0;
    expect_bytes(f, 0, CLUSTER, 1);
}

/* A refcount block cannot be read, over and over: no memory is lost. (With a sanitizer mallinfo2
 * returns zeroes, and the sanitizer tells.) */
static void test_refcounts_fail(void **state)
{
    enum { TIMES = 1000 };
    struct fixture *f = *state;
    size_t before;

    f->file->read_fails = -EIO;
    assert_int_equal(put(f, 0, CLUSTER, 1), -EIO);
    before = mallinfo2().uordblks;
    for (unsigned i = 0; i < TIMES; i++)
        assert_int_equal(put(f, 0, CLUSTER, 1), -EIO);
    assert_true(mallinfo2().uordblks < before + TIMES * 16);
    f->file->read_fails = 0;
    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    expect_bytes(f, 0, CLUSTER, 1);
}

/* After a flush that failed nobody knows what is in the file: the image takes no more changes, and
 * what was flushed before is there when it is opened again. */
static void test_flush_fails(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    assert_int_equal(blk_flush(f->disk), 0);
    assert_int_equal(put(f, MiB, CLUSTER, 2), 0);
    f->file->flush_fails = -EIO;
    assert_int_equal(blk_flush(f->disk), -EIO);
    f->file->flush_fails = 0;
    assert_int_equal(blk_flush(f->disk), -EIO);
    assert_int_equal(put(f, 2 * MiB, CLUSTER, 2), -EIO);
    expect_bytes(f, MiB, CLUSTER, 2);
    blk_close(f->disk);
    open_it(f);
    expect_bytes(f, 0, CLUSTER, 1);
    assert_int_equal(put(f, MiB, CLUSTER, 3), 0);
    assert_int_equal(blk_flush(f->disk), 0);
}

/* The same, where a flush has no metadata to write. */
static void test_plain_flush_fails(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(ask_once(f->disk, BLK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(put(f, 0, CLUSTER, 2), 0);
    f->file->flush_fails = -EIO;
    assert_int_equal(ask_once(f->disk, BLK_FLUSH, 0, NULL, 0), -EIO);
    f->file->flush_fails = 0;
    assert_int_equal(ask_once(f->disk, BLK_FLUSH, 0, NULL, 0), -EIO);
    assert_int_equal(put(f, MiB, CLUSTER, 2), -EIO);
    expect_bytes(f, 0, CLUSTER, 2);
}

/* With all writes failing from the Nth on, a snapshot is made or is not, and the disk stays. */
static void test_snapshot_fails(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f, 0, 64 * KiB, 1), 0);
    assert_int_equal(blk_flush(f->disk), 0);
    f->file->write_fails = -ENOSPC;
    assert_int_equal(qcow2_snapshot_create(f->disk, "none", NULL), -ENOSPC);
    f->file->write_fails = 0;
    expect_bytes(f, 0, 64 * KiB, 1);
    assert_int_equal(qcow2_snapshot_create(f->disk, "one", NULL), 0);
    assert_int_equal(put(f, 0, 32 * KiB, 2), 0);
    f->file->write_fails = -ENOSPC;
    assert_int_equal(qcow2_snapshot_apply(f->disk, "one", NULL), -ENOSPC);
    assert_int_equal(qcow2_snapshot_delete(f->disk, "one", NULL), -ENOSPC);
    f->file->write_fails = 0;
    expect_bytes(f, 0, 32 * KiB, 2);
    assert_int_equal(qcow2_snapshot_apply(f->disk, "one", NULL), 0);
    expect_bytes(f, 0, 64 * KiB, 1);
    assert_int_equal(qcow2_snapshot_delete(f->disk, "one", NULL), 0);
    expect_sound(f, 0);
}

/* ---- What is not the same when it is read again ---- */

/* The sizes of a snapshot's id, name and extra data are read once. */
static void test_fickle_snapshots(void **state)
{
    static const size_t members[] = {
        offsetof(struct qcow2_raw_snapshot, id_size),
        offsetof(struct qcow2_raw_snapshot, name_size),
        offsetof(struct qcow2_raw_snapshot, extra_size),
    };
    struct fixture *f = *state;
    uint64_t table;

    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    assert_int_equal(qcow2_snapshot_create(f->disk, "kept", NULL), 0);
    assert_int_equal(blk_read(f->file->below, 0, f->head, sizeof(f->head)), 0);
    memcpy(&table, f->head + offsetof(struct qcow2_raw_header, snapshots_offset), sizeof(table));
    for (unsigned i = 0; i < ARRAY_SIZE(members); i++) {
        struct qcow2_snapshot *list;
        unsigned count;

        f->file->fickle = be64toh(table) + members[i];
        f->file->reads = 0;
        f->file->value = 0xff;
        assert_int_equal(qcow2_snapshots(f->disk, &list, &count, NULL), 0);
        assert_int_equal(count, 1);
        assert_string_equal(list[0].name, "kept");
        assert_int_equal(list[0].disk_size, DISK);
        qcow2_snapshots_free(list, count);
    }
    f->file->fickle = 0;
    expect_sound(f, 0);
}

/* The header is read again when a snapshot was made: by then its refcounts have another size. */
static void test_fickle_header(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    char bytes[512] = {0};

    assert_int_equal(put(f, 0, CLUSTER, 1), 0);
    assert_int_equal(blk_flush(f->disk), 0);
    f->file->fickle = offsetof(struct qcow2_raw_header, refcount_order) + 3;
    f->file->reads = 0;
    f->file->value = 5;
    assert_int_equal(qcow2_snapshot_create(f->disk, "none", &err), -EIO);
    assert_non_null(strstr(err.text, "header"));
    f->file->fickle = 0;
    assert_int_equal(blk_write(f->disk, 0, bytes, sizeof(bytes)), -EIO);
    assert_int_equal(blk_flush(f->disk), -EIO);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_late_write),        TEST(test_snapshot_waits),   TEST(test_full),
        TEST(test_nearly_full),       TEST(test_write_fails),      TEST(test_read_fails),
        TEST(test_flush_fails),       TEST(test_snapshot_fails),   TEST(test_refcounts_fail),
        TEST(test_plain_flush_fails), TEST(test_fickle_snapshots), TEST(test_fickle_header),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

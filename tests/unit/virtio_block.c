/*
 * The block device: its configuration, requests of every kind in every layout and order, errors,
 * drivers that break rules, a host without room, pause, reset, save and restore. What is behind it
 * is the test's own disk (fake_blk.h). Workers run when the test says so.
 */
#include "test.h"

#include "dev/virtio/block.h"

#include <errno.h>
#include <string.h>

#include "fake_blk.h"
#include "fake_lane.h"
#include "virtio_rig.h"

#define SIZE      16u
#define RINGS     0x10000u
#define HEADER    0x20000u /* descriptor N's header, 64 bytes apart; its status is 32 bytes in */
#define DATA      0x100000u
#define VRIG_CONF 0x2000 /* device configuration in the BAR */

enum { QUEUE_VECTOR = 1, CONFIG_VECTOR = 0 };
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, NOT_WRITTEN = 0x77 };
enum { F_RO = 5, F_FLUSH = 9, F_CONFIG_WCE = 11, F_DISCARD = 13, F_WRITE_ZEROES = 14 };

#define BIT(n)   (UINT64_C(1) << (n))
#define FEATURES (VRIG_FEATURES | BIT(F_FLUSH))
#define ALL      (FEATURES | BIT(F_CONFIG_WCE) | BIT(F_DISCARD) | BIT(F_WRITE_ZEROES))

#define DISK_SIZE (4 * MiB)

/* ---- The machine ---- */

static struct virtio_block *block; /* the last that was made */
static struct virtio_block_config config;
static unsigned devices, holds, releases, silent_releases;
static char why_held[512];

static void hold(void *opaque, const char *why)
{
    assert_non_null(strstr(why, "test.raw"));
    assert_int_equal(holds, releases + silent_releases);
    holds++;
    snprintf(why_held, sizeof(why_held), "%s", why);
}

static void release(void *opaque, const char *why)
{
    *(why ? &releases : &silent_releases) += 1;
    assert_int_equal(holds, releases + silent_releases);
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    block = virtio_block_create(slot, &config, err);
    devices++;
    return block ? virtio_block_dev(block) : NULL;
}

static int set_up(void **state)
{
    fake_blk_make(DISK_SIZE);
    config = (struct virtio_block_config){.blk = &fake_blk,
                                          .serial = "SERIAL-12345678901234567890",
                                          .queues = 2,
                                          .discard = true,
                                          .hold = hold,
                                          .release = release};
    devices = holds = releases = silent_releases = 0;
    *state = vrig_create(create, NULL, 1);
    return 0;
}

static int tear_down(void **state)
{
    vrig_destroy(*state);
    assert_int_equal(fake_blk.closed, devices);
    assert_int_equal(holds, releases + silent_releases);
    fake_blk_free();
    return 0;
}

static void run(struct vrig *v)
{
    fake_lane_run(v->workers, v->loop);
}

static void start(struct vrig *v, uint64_t features)
{
    vrig_start(v, rig_layout(RINGS, SIZE), features);
    rig_want_interrupt_at(&v->queue, 0);
    run(v);
}

/* ---- Requests: N is the first of three descriptors ---- */

static void put_header(struct vrig *v, unsigned n, uint32_t type, uint64_t sector)
{
    const struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {type, 0, sector};

    assert_int_equal(mem_write(v->mem, HEADER + 64 * n, &header, sizeof(header)), 0);
    rig_put(v->mem, HEADER + 64 * n + 32, NOT_WRITTEN, 1);
}

static uint8_t status_of(struct vrig *v, unsigned n)
{
    return (uint8_t)rig_get(v->mem, HEADER + 64 * n + 32, 1);
}

/* Header, SIZE bytes at GPA (0: none), status. */
static void request(struct vrig *v, unsigned n, uint32_t type, uint64_t sector, uint64_t gpa,
                    uint32_t size)
{
    put_header(v, n, type, sector);
    rig_descriptor(&v->queue, n, HEADER + 64 * n, 16, RIG_NEXT, (uint16_t)(size ? n + 1 : n + 2));
    if (size)
        rig_descriptor(&v->queue, n + 1, gpa, size, RIG_NEXT | (type == IN ? RIG_WRITE : 0),
                       (uint16_t)(n + 2));
    rig_descriptor(&v->queue, n + 2, HEADER + 64 * n + 32, 1, RIG_WRITE, 0);
    rig_publish(&v->queue, (uint16_t)n);
}

static void serve(struct vrig *v)
{
    vrig_notify(v);
    run(v);
}

static void assert_not_given_back(struct vrig *v)
{
    uint32_t head, written;

    assert_false(rig_reap(&v->queue, &head, &written));
}

/* Request N is the next one that was given back, with STATUS. */
static void assert_status(struct vrig *v, unsigned n, uint8_t status, uint32_t written)
{
    uint32_t head, wrote;

    assert_true(rig_reap(&v->queue, &head, &wrote));
    assert_int_equal(head, n);
    assert_int_equal(wrote, written);
    assert_int_equal(status_of(v, n), status);
}

static void do_one(struct vrig *v, uint32_t type, uint64_t sector, uint32_t size, uint8_t status)
{
    request(v, 0, type, sector, DATA, size);
    serve(v);
    assert_status(v, 0, status, type == IN ? size + 1 : 1);
}

static void assert_memory(struct vrig *v, uint64_t gpa, const void *bytes, size_t size)
{
    uint8_t *seen = malloc(size);

    assert_int_equal(mem_read(v->mem, gpa, seen, size), 0);
    assert_memory_equal(seen, bytes, size);
    free(seen);
}

static void fill(struct vrig *v, uint64_t gpa, size_t size, uint8_t first)
{
    uint8_t *bytes = malloc(size);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(first + i * 3 + i / 1000);
    assert_int_equal(mem_write(v->mem, gpa, bytes, size), 0);
    free(bytes);
}

static void assert_disk_has(struct vrig *v, uint64_t offset, uint64_t gpa, size_t size)
{
    assert_memory(v, gpa, fake_blk.bytes + offset, size);
}

/* ---- Tests ---- */

static uint32_t conf(struct vrig *v, unsigned offset, unsigned size)
{
    return vrig_read(v, VRIG_CONF + offset, size);
}

static void test_configuration(void **state)
{
    struct vrig *v = *state;

    vrig_enable(v);
    assert_int_equal(vrig_config(v, 0, 4), 0x10421AF4);
    assert_int_equal(vrig_config(v, PCI_REVISION, 4) >> 8, 0x010000);
    assert_int_equal(vrig_offered(v), 1u << 2 | 1u << 6 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12 |
                                          1u << 13 | 1u << 14);
    assert_int_equal(conf(v, 0, 4), DISK_SIZE / 512);
    assert_int_equal(conf(v, 4, 4), 0);
    assert_int_equal(conf(v, 12, 4), 254); /* seg_max */
    assert_int_equal(conf(v, 20, 4), 512);
    assert_int_equal(conf(v, 24, 1), 3); /* blocks of 4 KiB */
    assert_int_equal(conf(v, 25, 1), 0);
    assert_int_equal(conf(v, 26, 2), 128); /* 64 KiB */
    assert_int_equal(conf(v, 32, 1), 1);   /* write-back */
    assert_int_equal(conf(v, 34, 2), 2);   /* queues */
    assert_int_equal(conf(v, 36, 4), 4 << 20);
    assert_int_equal(conf(v, 40, 4), 32);
    assert_int_equal(conf(v, 44, 4), 128);
    assert_int_equal(conf(v, 48, 4), 4 << 20);
    assert_int_equal(conf(v, 52, 4), 1);
    assert_int_equal(conf(v, 56, 1), 1);
}

static void test_readonly_configuration(void **state)
{
    struct vrig *v = *state;
    struct vrig *other;

    fake_blk.info.readonly = true;
    fake_blk.info.block = 4096;
    other = vrig_create(create, v->mem, 1);
    vrig_enable(other);
    assert_int_equal(vrig_offered(other),
                     1u << 2 | 1u << 5 | 1u << 6 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12);
    assert_int_equal(conf(other, 20, 4), 4096);
    assert_int_equal(conf(other, 24, 1), 0);
    assert_int_equal(conf(other, 26, 2), 16);
    start(other, FEATURES | BIT(F_RO));
    do_one(other, OUT, 0, 4096, IOERR);
    do_one(other, IN, 8, 4096, OK);
    assert_disk_has(other, 4096, DATA, 4096);
    do_one(other, IN, 1, 4096, IOERR); /* not at a block's beginning */
    do_one(other, IN, 0, 512, IOERR);
    do_one(other, FLUSH, 0, 0, OK);
    vrig_destroy(other);
    fake_blk.info.readonly = false;
}

static void test_read_and_write(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    do_one(v, IN, 17, 8192, OK);
    assert_disk_has(v, 17 * 512, DATA, 8192);
    fill(v, DATA, 1024, 5);
    do_one(v, OUT, DISK_SIZE / 512 - 2, 1024, OK);
    assert_disk_has(v, DISK_SIZE - 1024, DATA, 1024);
    assert_true(v->messages[QUEUE_VECTOR] > 0);
    do_one(v, FLUSH, 0, 0, OK);
    assert_int_equal(fake_blk.done[BLK_FLUSH], 1);
    do_one(v, IN, 0, 0, OK); /* nothing */
    assert_true(fake_blk.kicks > 0);
}

/* What is beyond the end, not whole sectors, unknown or not agreed on. */
static void test_refused(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    do_one(v, IN, DISK_SIZE / 512 - 1, 1024, IOERR);
    do_one(v, OUT, DISK_SIZE / 512, 512, IOERR);
    do_one(v, IN, UINT64_MAX / 512, 512, IOERR);
    do_one(v, IN, UINT64_C(1) << 55, 512, IOERR); /* 0 when it is taken for bytes */
    do_one(v, OUT, UINT64_MAX, 512, IOERR);
    do_one(v, IN, 0, 100, IOERR);
    do_one(v, OUT, 0, 513, IOERR);
    do_one(v, 2, 0, 512, UNSUPP);
    do_one(v, UINT32_MAX, 0, 512, UNSUPP);
    do_one(v, DISCARD, 0, 16, UNSUPP);
    do_one(v, WRITE_ZEROES, 0, 16, UNSUPP);
    assert_int_equal(strlen(fake_blk.letters), 0);
    fake_blk.read_fails = -EIO;
    do_one(v, IN, 0, 512, IOERR);
    fake_blk.read_fails = -ENOTSUP;
    do_one(v, IN, 0, 512, UNSUPP);
    assert_int_equal(vrig_status(v), 15);
}

static void test_serial(void **state)
{
    struct vrig *v = *state;
    const uint64_t untouched = 0x1111;

    start(v, FEATURES);
    for (unsigned size = 1; size <= 30; size += 29) {
        put_header(v, 0, GET_ID, 0);
        mem_fill(v->mem, DATA, 0x11, 64);
        rig_descriptor(&v->queue, 0, HEADER, 16, RIG_NEXT, 1);
        rig_descriptor(&v->queue, 1, DATA, size, RIG_NEXT | RIG_WRITE, 2);
        rig_descriptor(&v->queue, 2, HEADER + 32, 1, RIG_WRITE, 0);
        rig_publish(&v->queue, 0);
        serve(v);
        assert_status(v, 0, OK, size + 1);
        assert_memory(v, DATA, "SERIAL-1234567890123", MIN(size, 20u));
        assert_memory(v, DATA + MIN(size, 20u), &untouched, 2);
    }
}

/* Where a driver cuts its buffers is its own affair (2.7.4.2). */
static void test_layouts(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    /* The header in three parts, of which the last has the data's beginning. */
    fill(v, DATA, 1536, 9);
    put_header(v, 0, OUT, 3);
    rig_descriptor(&v->queue, 0, HEADER, 1, RIG_NEXT, 1);
    rig_descriptor(&v->queue, 1, HEADER + 1, 14, RIG_NEXT, 2);
    mem_fill(v->mem, DATA - 1, 0, 1); /* the header's last byte */
    rig_descriptor(&v->queue, 2, DATA - 1, 1 + 1000, RIG_NEXT, 3);
    rig_descriptor(&v->queue, 3, DATA + 1000, 24, RIG_NEXT, 4);
    rig_descriptor(&v->queue, 4, HEADER + 32, 1, RIG_WRITE, 0);
    rig_publish(&v->queue, 0);
    serve(v);
    assert_status(v, 0, OK, 1);
    assert_disk_has(v, 3 * 512, DATA, 1024);
    /* The status in one buffer with what is read. */
    put_header(v, 0, IN, 5);
    rig_descriptor(&v->queue, 0, HEADER, 16, RIG_NEXT, 1);
    rig_descriptor(&v->queue, 1, DATA, 500, RIG_NEXT | RIG_WRITE, 2);
    rig_descriptor(&v->queue, 2, DATA + 0x1000, 13, RIG_WRITE, 0);
    rig_put(v->mem, DATA + 0x1000 + 12, NOT_WRITTEN, 1);
    rig_publish(&v->queue, 0);
    serve(v);
    {
        uint32_t head, written;

        assert_true(rig_reap(&v->queue, &head, &written));
        assert_int_equal(written, 513);
    }
    assert_disk_has(v, 5 * 512, DATA, 500);
    assert_disk_has(v, 5 * 512 + 500, DATA + 0x1000, 12);
    assert_int_equal(rig_get(v->mem, DATA + 0x1000 + 12, 1), OK);
}

/* More than can be pinned at once; and as many pieces as there may be, in which blocks do not end
 * where pages do. */
static void test_large(void **state)
{
    struct vrig *v = *state;
    const uint64_t table = 0x40000;
    const unsigned pieces = 254;

    vrig_start(v, rig_layout(RINGS, 256), FEATURES);
    mem_set_pin_limit(v->mem, 1 * MiB);
    do_one(v, IN, 8, 2 * MiB + 512, OK);
    assert_disk_has(v, 4096, DATA, 2 * MiB + 512);
    assert_true(fake_blk.done[BLK_READ] >= 3);
    fill(v, DATA, 2 * MiB, 77);
    do_one(v, OUT, 1, 2 * MiB, OK);
    assert_disk_has(v, 512, DATA, 2 * MiB);
    mem_set_pin_limit(v->mem, 16 * MEM_PAGE_SIZE);
    put_header(v, 0, OUT, 0);
    rig_descriptor_at(v->mem, table, 0, HEADER, 16, RIG_NEXT, 1);
    for (unsigned i = 0; i < pieces; i++)
        rig_descriptor_at(v->mem, table, i + 1, DATA + 1200 * i, 1024, RIG_NEXT, (uint16_t)(i + 2));
    rig_descriptor_at(v->mem, table, pieces + 1, HEADER + 32, 1, RIG_WRITE, 0);
    rig_descriptor(&v->queue, 0, table, 16 * (pieces + 2), RIG_INDIRECT, 0);
    rig_publish(&v->queue, 0);
    serve(v);
    assert_status(v, 0, OK, 1);
    for (unsigned i = 0; i < pieces; i++)
        assert_disk_has(v, 1024 * i, DATA + 1200 * i, 1024);
}

/* Requests end in any order, and steps of one are carried on when the disk says so. */
static void test_later(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    mem_set_pin_limit(v->mem, 1 * MiB + 4 * MEM_PAGE_SIZE);
    fake_blk.later = true;
    request(v, 0, IN, 0, DATA, 512);
    request(v, 3, IN, 1, DATA + 0x1000, 512);
    request(v, 6, FLUSH, 0, 0, 0);
    request(v, 9, IN, 8, DATA + 0x10000, 2 * MiB);
    serve(v);
    assert_int_equal(fake_blk.count, 4);
    assert_not_given_back(v);
    fake_blk_end(2);
    run(v);
    assert_status(v, 6, OK, 1);
    fake_blk_end(1);
    run(v);
    assert_status(v, 3, OK, 513);
    fake_blk_end(1); /* the large one's first step */
    run(v);
    assert_not_given_back(v);
    fake_blk_end(0);
    run(v);
    assert_status(v, 0, OK, 513);
    while (fake_blk.count)
        fake_blk_end(0);
    run(v);
    assert_status(v, 9, OK, 2 * MiB + 1);
    assert_disk_has(v, 4096, DATA + 0x10000, 2 * MiB);
    /* The third step fails: the rest is left out. */
    request(v, 0, IN, 8, DATA + 0x10000, 2 * MiB + 4096);
    serve(v);
    fake_blk.done[BLK_READ] = 0;
    fake_blk_end(0);
    fake_blk.read_fails = -EIO;
    fake_blk_end(0);
    assert_int_equal(fake_blk.count, 0);
    run(v);
    assert_status(v, 0, IOERR, 2 * MiB + 4096 + 1);
    assert_int_equal(fake_blk.done[BLK_READ], 1);
}

static void put_range(struct vrig *v, unsigned n, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    rig_put(v->mem, DATA + 16 * n, sector, 8);
    rig_put(v->mem, DATA + 16 * n + 8, sectors, 4);
    rig_put(v->mem, DATA + 16 * n + 12, flags, 4);
}

static void test_discard(void **state)
{
    struct vrig *v = *state;
    const uint8_t kept = fake_blk.bytes[7 * 512], end_kept = fake_blk.bytes[9 * 512];

    start(v, ALL);
    put_range(v, 0, 0, 7, 0);
    put_range(v, 1, 5000, 0, 0);
    put_range(v, 2, 8, 1, 0);
    do_one(v, DISCARD, 0, 48, OK);
    assert_int_equal(fake_blk.bytes[0], 0xDD);
    assert_int_equal(fake_blk.bytes[7 * 512 - 1], 0xDD);
    assert_int_equal(fake_blk.bytes[7 * 512], kept);
    assert_int_equal(fake_blk.bytes[8 * 512], 0xDD);
    assert_int_equal(fake_blk.bytes[9 * 512], end_kept);
    put_range(v, 0, 16, 2, 0);
    do_one(v, WRITE_ZEROES, 0, 16, OK);
    assert_int_equal(fake_blk.bytes[16 * 512], 1); /* this disk's zero that takes room */
    put_range(v, 0, 16, 2, 1);
    do_one(v, WRITE_ZEROES, 0, 16, OK);
    assert_int_equal(fake_blk.bytes[16 * 512], 0);
    /* All is checked before anything is done. */
    memset(fake_blk.letters, 0, sizeof(fake_blk.letters));
    put_range(v, 0, 0, 1, 0);
    put_range(v, 1, DISK_SIZE / 512 - 1, 2, 0);
    do_one(v, DISCARD, 0, 32, IOERR);
    put_range(v, 1, UINT64_MAX, 1, 0);
    do_one(v, DISCARD, 0, 32, IOERR);
    put_range(v, 0, UINT64_C(1) << 55, 1, 0);
    do_one(v, WRITE_ZEROES, 0, 16, IOERR);
    put_range(v, 0, 0, 1, 0);
    put_range(v, 1, 1, 1, 1); /* UNMAP is not for discards */
    do_one(v, DISCARD, 0, 32, UNSUPP);
    do_one(v, WRITE_ZEROES, 0, 32, IOERR); /* more than max_write_zeroes_seg */
    put_range(v, 0, 1, 1, 2);
    do_one(v, WRITE_ZEROES, 0, 16, UNSUPP);
    do_one(v, DISCARD, 0, 0, IOERR);
    do_one(v, DISCARD, 0, 17, IOERR);
    do_one(v, DISCARD, 0, 33 * 16, IOERR); /* more than max_discard_seg */
    assert_int_equal(strlen(fake_blk.letters), 0);
}

/* A driver that does not flush, or does not want to, is told when a write is on stable storage. */
static void test_write_through(void **state)
{
    struct vrig *v = *state;

    start(v, VRIG_FEATURES | BIT(F_WRITE_ZEROES));
    put_range(v, 0, 0, 1, 0);
    do_one(v, OUT, 0, 512, OK);
    put_range(v, 0, 0, 1, 0);
    do_one(v, WRITE_ZEROES, 0, 16, OK);
    do_one(v, IN, 0, 512, OK);
    assert_string_equal(fake_blk.letters, "wfzfr");
    fake_blk.later = true;
    request(v, 0, OUT, 0, DATA, 512);
    serve(v);
    fake_blk_end(0);
    run(v);
    assert_not_given_back(v);
    fake_blk_end(0);
    run(v);
    assert_status(v, 0, OK, 1);
    fake_blk.later = false;

    memset(fake_blk.letters, 0, sizeof(fake_blk.letters));
    start(v, ALL);
    do_one(v, OUT, 0, 512, OK);
    vrig_write(v, VRIG_CONF + 32, 1, 0);
    assert_int_equal(conf(v, 32, 1), 0);
    do_one(v, OUT, 0, 512, OK);
    vrig_write(v, VRIG_CONF + 32, 1, 1);
    do_one(v, OUT, 0, 512, OK);
    vrig_write(v, VRIG_CONF, 4, 1); /* the capacity is not the driver's */
    assert_int_equal(conf(v, 0, 4), DISK_SIZE / 512);
    assert_string_equal(fake_blk.letters, "wwfw");
    vrig_write(v, VRIG_CONF + 32, 1, 0);

    memset(fake_blk.letters, 0, sizeof(fake_blk.letters));
    start(v, FEATURES); /* a reset, and a driver that flushes and does not know of CONFIG_WCE */
    assert_int_equal(conf(v, 32, 1), 1);
    vrig_write(v, VRIG_CONF + 32, 1, 0);
    do_one(v, OUT, 0, 512, OK);
    assert_string_equal(fake_blk.letters, "w");
}

/* Each leaves the device in need of a reset. */
static void test_broken_drivers(void **state)
{
    struct vrig *v = *state;
    const uint64_t nowhere = 0x40000000;

    for (unsigned i = 0; i < 5; i++) {
        start(v, FEATURES);
        put_header(v, 0, OUT, 0);
        switch (i) {
        case 0: /* no status */
            rig_descriptor(&v->queue, 0, HEADER, 16, RIG_NEXT, 1);
            rig_descriptor(&v->queue, 1, DATA, 512, 0, 0);
            break;
        case 1: /* half a header */
            rig_descriptor(&v->queue, 0, HEADER, 15, RIG_NEXT, 1);
            rig_descriptor(&v->queue, 1, HEADER + 32, 1, RIG_WRITE, 0);
            break;
        case 2: /* data, header, status that are not memory */
        case 3:
        case 4:
            rig_descriptor(&v->queue, 0, i == 3 ? nowhere : HEADER, 16, RIG_NEXT, 1);
            rig_descriptor(&v->queue, 1, i == 2 ? nowhere : DATA, 512, RIG_NEXT, 2);
            rig_descriptor(&v->queue, 2, i == 4 ? nowhere : HEADER + 32, 1, RIG_WRITE, 0);
            break;
        default: break;
        }
        rig_publish(&v->queue, 0);
        serve(v);
        assert_not_given_back(v);
        assert_int_equal(vrig_status(v), 15 | 0x40);
    }
    start(v, FEATURES);
    do_one(v, IN, 0, 512, OK);
}

/* The second step meets memory that is none: what follows the first MiB of a buffer. */
static void test_broken_later(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    fake_blk.later = true;
    put_header(v, 0, IN, 0);
    rig_descriptor(&v->queue, 0, HEADER, 16, RIG_NEXT, 1);
    rig_descriptor(&v->queue, 1, DATA, 1 * MiB, RIG_NEXT | RIG_WRITE, 2);
    rig_descriptor(&v->queue, 2, 0x40000000, 512, RIG_NEXT | RIG_WRITE, 3);
    rig_descriptor(&v->queue, 3, HEADER + 32, 1, RIG_WRITE, 0);
    rig_publish(&v->queue, 0);
    serve(v);
    while (fake_blk.count)
        fake_blk_end(0);
    run(v);
    assert_not_given_back(v);
    assert_int_equal(vrig_status(v), 15 | 0x40);
}

/* Pins are few: requests wait for those of others, and all are served. */
static void test_few_pins(void **state)
{
    struct vrig *v = *state;

    mem_set_pin_limit(v->mem, 2 * MEM_PAGE_SIZE);
    start(v, FEATURES);
    fake_blk.later = true;
    for (unsigned n = 0; n < 15; n += 3)
        request(v, n, IN, n, DATA + 0x10000 * n, 3 * 4096);
    serve(v);
    assert_true(fake_blk.count >= 1 && fake_blk.count <= 2);
    for (unsigned i = 0; i < 1000 && fake_blk.count; i++) {
        fake_blk_end(i % fake_blk.count);
        run(v);
    }
    for (unsigned n = 0; n < 15; n += 3) {
        uint32_t head = 0, written;

        assert_true(rig_reap(&v->queue, &head, &written));
        assert_int_equal(status_of(v, head), OK);
        assert_disk_has(v, 512 * head, DATA + 0x10000 * head, 3 * 4096);
    }
    assert_not_given_back(v);
}

/* ---- A host without room ---- */

static void test_full(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    fill(v, DATA, 8192, 1);
    fake_blk.write_fails = -ENOSPC;
    request(v, 0, OUT, 0, DATA, 4096);
    request(v, 3, OUT, 8, DATA + 4096, 4096);
    request(v, 6, IN, 64, DATA + 0x10000, 512);
    serve(v);
    assert_status(v, 6, OK, 513); /* reads go on */
    assert_not_given_back(v);
    assert_int_equal(holds, 1);
    virtio_block_retry(block);
    run(v);
    assert_not_given_back(v);
    assert_int_equal(releases, 0);
    /* There is room for one. */
    fake_blk.later = true;
    virtio_block_retry(block);
    run(v);
    assert_int_equal(fake_blk.count, 2);
    fake_blk.write_fails = 0;
    fake_blk_end(0);
    fake_blk.write_fails = -EDQUOT;
    fake_blk_end(0);
    run(v);
    assert_status(v, 0, OK, 1);
    assert_not_given_back(v);
    assert_int_equal(releases, 0);
    fake_blk.later = false;
    fake_blk.write_fails = 0;
    virtio_block_retry(block);
    run(v);
    assert_status(v, 3, OK, 1);
    assert_int_equal(holds, 1);
    assert_int_equal(releases, 1);
    assert_disk_has(v, 0, DATA, 8192);
    virtio_block_retry(block); /* nothing waits */
    run(v);
    /* It may fail in another way at last. */
    fake_blk.write_fails = -ENOSPC;
    request(v, 0, OUT, 0, DATA, 4096);
    serve(v);
    fake_blk.write_fails = -EIO;
    virtio_block_retry(block);
    run(v);
    assert_status(v, 0, IOERR, 1);
    assert_int_equal(releases, 2);
}

/* What is written to a disk with `snapshot` needs no room where its file is. */
static void test_full_snapshot(void **state)
{
    struct vrig *v;

    vrig_destroy(*state);
    fake_blk.info.folder = "/small";
    v = *state = vrig_create(create, NULL, 1);
    start(v, FEATURES);
    fake_blk.write_fails = -ENOSPC;
    request(v, 0, OUT, 0, DATA, 4096);
    serve(v);
    assert_int_equal(holds, 1);
    assert_non_null(strstr(why_held, "no room in /small (TMPDIR)"));
    fake_blk.write_fails = 0;
    virtio_block_retry(block);
    run(v);
    assert_status(v, 0, OK, 1);
}

static void pause_device(struct vrig *v)
{
    v->dev->ops->pause(v->dev);
}

static void resume_device(struct vrig *v)
{
    v->dev->ops->resume(v->dev);
}

/* What waits for room is taken back by a pause and served again afterwards; a large request from
 * its beginning. */
static void test_full_pause(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    mem_set_pin_limit(v->mem, 1 * MiB);
    fill(v, DATA, 2 * MiB, 3);
    fake_blk.later = true;
    request(v, 0, OUT, 0, DATA, 2 * MiB);
    serve(v);
    fake_blk_end(0);
    fake_blk.write_fails = -ENOSPC;
    fake_blk_end(0);
    run(v);
    assert_int_equal(holds, 1);
    fake_blk.later = false;
    virtio_block_retry(block); /* posted, and not run before the pause */
    pause_device(v);
    assert_int_equal(silent_releases, 1);
    assert_int_equal(fake_blk.count, 0);
    run(v);
    assert_not_given_back(v);
    resume_device(v);
    run(v);
    assert_int_equal(holds, 2);
    fake_blk.write_fails = 0;
    virtio_block_retry(block);
    run(v);
    assert_status(v, 0, OK, 1);
    assert_disk_has(v, 0, DATA, 2 * MiB);
    assert_int_equal(releases, 1);
    /* The driver resets the device. */
    fake_blk.write_fails = -ENOSPC;
    request(v, 3, OUT, 0, DATA, 512);
    serve(v);
    vrig_write(v, VRIG_STATUS, 1, 0);
    run(v);
    assert_int_equal(vrig_status(v), 0);
    assert_int_equal(silent_releases, 2);
    fake_blk.write_fails = 0;
    start(v, FEATURES);
    assert_not_given_back(v);
    do_one(v, OUT, 0, 512, OK);
}

/* A request that is recalled between its steps goes no further. */
static void test_recalled(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    mem_set_pin_limit(v->mem, 1 * MiB + 4 * MEM_PAGE_SIZE);
    fake_blk.later = true;
    request(v, 0, IN, 0, DATA, 2 * MiB);
    request(v, 3, IN, 0, DATA, 512);
    serve(v);
    fake_blk.recalls = 0;
    vrig_write(v, VRIG_STATUS, 1, 0);
    assert_int_equal(fake_blk.recalls, 1);
    run(v);
    assert_int_equal(vrig_status(v), 15);
    for (unsigned n = fake_blk.count; n > 0; n--)
        fake_blk_end(n - 1);
    assert_int_equal(fake_blk.count, 0);
    run(v);
    assert_int_equal(vrig_status(v), 0);
    fake_blk.later = false;
    start(v, FEATURES);
    do_one(v, IN, 0, 2 * MiB, OK);
}

/* A step that fails for lack of room while a reset waits for it is not held: the machine does not
 * stand still for a driver that is gone. */
static void test_full_reset(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    fake_blk.later = true;
    request(v, 0, OUT, 0, DATA, 512);
    request(v, 3, OUT, 0, DATA, 512);
    serve(v);
    vrig_write(v, VRIG_STATUS, 1, 0);
    fake_blk.write_fails = -ENOSPC;
    fake_blk_end(0);
    fake_blk_end(0);
    run(v);
    assert_int_equal(vrig_status(v), 0);
    assert_int_equal(holds, 0);
    fake_blk.later = false;
    start(v, FEATURES); /* the next driver's do wait */
    request(v, 0, OUT, 0, DATA, 512);
    serve(v);
    assert_int_equal(holds, 1);
    fake_blk.write_fails = 0;
    virtio_block_retry(block);
    run(v);
    assert_status(v, 0, OK, 1);
}

/* A machine is saved with requests that wait for room, and others that no one has looked at. The
 * one that takes its place has a disk with room. */
static void test_save_restore(void **state)
{
    struct vrig *v = *state, *other;

    other = vrig_create(create, v->mem, 1);
    start(v, ALL);
    vrig_write(v, VRIG_CONF + 32, 1, 0); /* write-through */
    fill(v, DATA, 8192, 200);
    fake_blk.write_fails = -ENOSPC;
    request(v, 0, OUT, 0, DATA, 4096);
    serve(v);
    request(v, 3, OUT, 8, DATA + 4096, 4096);
    vrig_notify(v);
    pause_device(v);
    pause_device(other);
    assert_int_equal(rig_copy_state(v->rig, v->dev, other->dev), 0);
    fake_blk.write_fails = 0;
    other->queue = v->queue;
    run(other);
    assert_not_given_back(other);
    resume_device(other);
    run(other);
    assert_status(other, 0, OK, 1);
    assert_status(other, 3, OK, 1);
    assert_not_given_back(other);
    assert_disk_has(other, 0, DATA, 8192);
    assert_string_equal(fake_blk.letters, "wfwf");
    assert_int_equal(conf(other, 32, 1), 0);
    vrig_destroy(other);
}

/* A disk that is not what the driver was told of cannot take the other's place. */
static void test_restore_other_disk(void **state)
{
    struct vrig *v = *state;

    start(v, FEATURES);
    pause_device(v);
    for (unsigned i = 0; i < 4; i++) {
        struct blk_info before = fake_blk.info;
        unsigned queues = config.queues;
        struct vrig *other;

        switch (i) {
        case 0: fake_blk.info.size -= 4096; break;
        case 1: fake_blk.info.readonly = true; break;
        case 2: fake_blk.info.block = 4096; break;
        default: config.queues = 1; break;
        }
        other = vrig_create(create, v->mem, 1);
        pause_device(other);
        assert_true(rig_copy_state(v->rig, v->dev, other->dev) < 0);
        vrig_destroy(other);
        fake_blk.info = before;
        config.queues = queues;
    }
}

/* Ranges are as long as the configuration says, though the disk is larger. */
static void test_long_ranges(void **state)
{
    const uint32_t most = 4 << 20, types[] = {DISCARD, WRITE_ZEROES};
    struct vrig *v;

    fake_blk.info.size = 8 * GiB; /* nothing of which is touched */
    v = vrig_create(create, NULL, 1);
    start(v, ALL);
    fake_blk.write_fails = -ENOTSUP; /* for what gets there */
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        put_range(v, 0, 0, most, 0);
        do_one(v, types[i], 0, 16, UNSUPP);
        put_range(v, 0, 0, most + 8, 0);
        do_one(v, types[i], 0, 16, IOERR);
    }
    fake_blk.write_fails = 0;
    vrig_destroy(v);
}

static void test_resize(void **state)
{
    struct vrig *v = *state;
    struct error err = {0};
    unsigned told;

    fake_blk.info.size = DISK_SIZE / 2;
    v = vrig_create(create, NULL, 1);
    start(v, FEATURES);
    do_one(v, IN, DISK_SIZE / 1024, 512, IOERR);
    told = v->messages[CONFIG_VECTOR];
    assert_int_equal(virtio_block_resize(block, DISK_SIZE, &err), 0);
    run(v);
    assert_int_equal(v->messages[CONFIG_VECTOR], told + 1);
    assert_int_equal(conf(v, 0, 4), DISK_SIZE / 512);
    do_one(v, IN, DISK_SIZE / 1024, 512, OK);
    assert_true(virtio_block_resize(block, DISK_SIZE / 2, &err) < 0); /* in use */
    assert_true(virtio_block_resize(block, 2 * DISK_SIZE, &err) < 0);
    assert_int_equal(conf(v, 0, 4), DISK_SIZE / 512);
    vrig_destroy(v);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_configuration),
        TEST(test_readonly_configuration),
        TEST(test_read_and_write),
        TEST(test_refused),
        TEST(test_serial),
        TEST(test_layouts),
        TEST(test_large),
        TEST(test_later),
        TEST(test_discard),
        TEST(test_long_ranges),
        TEST(test_write_through),
        TEST(test_broken_drivers),
        TEST(test_broken_later),
        TEST(test_few_pins),
        TEST(test_full),
        TEST(test_full_snapshot),
        TEST(test_full_pause),
        TEST(test_recalled),
        TEST(test_full_reset),
        TEST(test_save_restore),
        TEST(test_restore_other_disk),
        TEST(test_resize),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The bus: claims, dispatch, splitting of wide and straddling accesses, and doorbells.
 */
#include "test.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "bus/bus.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

/* A device of bytes that remembers the sizes it was accessed with. */
struct bytes {
    uint8_t byte[64];
    unsigned sizes[16], accesses;
};

static uint64_t bytes_read(void *dev, uint64_t offset, unsigned size)
{
    struct bytes *bytes = dev;
    uint64_t value = UINT64_MAX; /* the high part is to be ignored */
    assert_true(offset + size <= sizeof(bytes->byte));
    bytes->sizes[bytes->accesses++ % 16] = size;
    for (unsigned i = size; i-- > 0;)
        value = value << 8 | bytes->byte[offset + i];
    return value;
}

static void bytes_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct bytes *bytes = dev;
    assert_true(offset + size <= sizeof(bytes->byte));
    assert_true(size == 8 || value >> (8 * size) == 0);
    bytes->sizes[bytes->accesses++ % 16] = size;
    for (unsigned i = 0; i < size; i++)
        bytes->byte[offset + i] = (uint8_t)(value >> (8 * i));
}

static const struct bus_ops narrow = {bytes_read, bytes_write, 0};
static const struct bus_ops four = {bytes_read, bytes_write, 4};
static const struct bus_ops wide = {bytes_read, bytes_write, 8};

static void test_claims(void **unused)
{
    struct bytes dev = {0};
    struct error err;
    struct bus *bus = bus_create(&err);
    (void)unused;
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x60, 4, "a", &narrow, &dev, &err), 0);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x63, 1, "b", &narrow, &dev, &err), -EBUSY);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x5F, 2, "b", &narrow, &dev, &err), -EBUSY);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x50, 0x20, "b", &narrow, &dev, &err), -EBUSY);
    assert_non_null(strstr(err.text, "b"));
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x64, 1, "b", &narrow, &dev, &err), 0);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x5F, 1, "b", &narrow, &dev, &err), 0);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0xFFFF, 2, "b", &narrow, &dev, &err), -EINVAL);
    assert_int_equal(bus_claim(bus, BUS_MMIO, UINT64_MAX, 2, "b", &narrow, &dev, &err), -EINVAL);
    assert_int_equal(bus_claim(bus, BUS_MMIO, 0x60, 0, "b", &narrow, &dev, &err), -EINVAL);
    assert_int_equal(bus_claim(bus, BUS_MMIO, 0x60, 4, "mmio", &narrow, &dev, &err), 0);

    bus_release(bus, BUS_PORT, 0x61); /* no range starts there */
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x63, 1, "b", &narrow, &dev, &err), -EBUSY);
    bus_release(bus, BUS_PORT, 0x60);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x63, 1, "b", &narrow, &dev, &err), 0);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(bus_claim(bus, BUS_PORT, 0x1000 - 2 * i, 1, "c", &narrow, &dev, &err), 0);
    bus_destroy(bus);
}

static void test_splits(void **unused)
{
    struct bytes a = {0}, b = {0}, c = {0};
    struct bus *bus = bus_create(NULL);
    (void)unused;
    bus_claim(bus, BUS_MMIO, 0x1000, 64, "a", &wide, &a, NULL);
    bus_claim(bus, BUS_MMIO, 0x1040, 64, "b", &four, &b, NULL);
    bus_claim(bus, BUS_PORT, 0x40, 4, "c", &narrow, &c, NULL);

    bus_write(bus, BUS_MMIO, 0x1000, 8, 0x8877665544332211);
    assert_int_equal(a.accesses, 1);
    assert_int_equal(a.sizes[0], 8);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0x1000, 8), 0x8877665544332211);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0x1003, 2), 0x5544);

    /* Over the end of one range into the next, which takes four bytes at most. */
    a.accesses = b.accesses = 0;
    bus_write(bus, BUS_MMIO, 0x103E, 8, 0x8877665544332211);
    assert_int_equal(a.accesses, 1);
    assert_int_equal(a.sizes[0], 2);
    assert_int_equal(b.accesses, 2);
    assert_int_equal(b.sizes[0], 4);
    assert_int_equal(b.sizes[1], 2);
    assert_int_equal(a.byte[63], 0x22);
    assert_int_equal(b.byte[0], 0x33);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0x103E, 8), 0x8877665544332211);

    /* A wide port access to a byte device, running out into nothing. */
    bus_write(bus, BUS_PORT, 0x42, 4, 0xDDCCBBAA);
    assert_int_equal(c.accesses, 2);
    assert_int_equal(c.byte[2], 0xAA);
    assert_int_equal(c.byte[3], 0xBB);
    assert_int_equal(c.byte[4], 0);
    assert_int_equal(bus_read(bus, BUS_PORT, 0x42, 4), 0xFFFFBBAA);
    assert_int_equal(bus_read(bus, BUS_PORT, 0x3E, 4), 0x0000FFFF);
    bus_destroy(bus);
}

static void test_unclaimed(void **unused)
{
    struct bus *bus = bus_create(NULL);
    (void)unused;
    assert_int_equal(bus_read(bus, BUS_PORT, 0x80, 1), 0xFF);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0xFEE00000, 4), 0xFFFFFFFF);
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX - 3, 8), UINT64_MAX);
    bus_write(bus, BUS_MMIO, UINT64_MAX - 3, 8, 0);
    bus_destroy(bus);
}

static void test_last_address(void **unused)
{
    struct bytes dev = {.byte = {0x12, 0x34}};
    struct bus *bus = bus_create(NULL);
    (void)unused;
    assert_int_equal(bus_claim(bus, BUS_MMIO, UINT64_MAX - 1, 2, "end", &wide, &dev, NULL), 0);
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX - 1, 2), 0x3412);
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX - 2, 4), 0xFF3412FF);
    bus_destroy(bus);
}

/* ---- Ranges on top of each other ---- */

/* What is decoded at the 16 addresses from 0x100, by the first byte of who decodes it. */
static void expect(struct bus *bus, const char *owners)
{
    for (unsigned i = 0; i < 16; i++) {
        uint64_t value = bus_read(bus, BUS_MMIO, 0x100 + i, 1);

        assert_int_equal(value, owners[i] == '.' ? 0xFF : (uint64_t)owners[i]);
    }
}

static struct bytes owner(char name)
{
    struct bytes bytes = {.accesses = 0};

    memset(bytes.byte, name, sizeof(bytes.byte));
    return bytes;
}

static void test_ranked(void **unused)
{
    struct bytes a = owner('a'), b = owner('b'), c = owner('c'), fixed = owner('f');
    struct bus *bus = bus_create(NULL);
    struct error err;
    (void)unused;
    assert_int_equal(bus_claim_ranked(bus, BUS_MMIO, 0x101, 14, 2, "c", &wide, &c, NULL), 0);
    expect(bus, ".cccccccccccccc.");
    assert_int_equal(bus_claim_ranked(bus, BUS_MMIO, 0x104, 4, 1, "b", &wide, &b, NULL), 0);
    assert_int_equal(bus_claim_ranked(bus, BUS_MMIO, 0x107, 3, 0, "a", &wide, &a, NULL), 0);
    expect(bus, ".cccbbbaaaccccc.");
    assert_int_equal(bus_claim(bus, BUS_MMIO, 0x103, 2, "f", &wide, &fixed, &err), 0);
    expect(bus, ".ccffbbaaaccccc.");
    assert_int_equal(bus_claim(bus, BUS_MMIO, 0x104, 1, "g", &wide, &fixed, &err), -EBUSY);

    /* Offsets are from the claim's own base, and an access over an edge has two owners. */
    c.byte[9] = 1;
    b.byte[2] = 2;
    a.byte[0] = 3;
    assert_int_equal(bus_read(bus, BUS_MMIO, 0x10A, 1), 1);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0x106, 2), 0x0302);

    assert_true(bus_has_ranked(bus, BUS_MMIO, 0x10A, 5, 2));
    assert_false(bus_has_ranked(bus, BUS_MMIO, 0x10A, 6, 2));
    assert_false(bus_has_ranked(bus, BUS_MMIO, 0x109, 2, 2));
    assert_false(bus_has_ranked(bus, BUS_MMIO, 0x104, 4, 1));
    assert_false(bus_has_ranked(bus, BUS_MMIO, 0x103, 1, 0));

    a.byte[0] = 'a';
    b.byte[2] = 'b';
    c.byte[9] = 'c';
    bus_release_ranked(bus, BUS_MMIO, 1);
    bus_release_ranked(bus, BUS_MMIO, 1); /* there is none any more */
    expect(bus, ".ccffccaaaccccc.");
    bus_release(bus, BUS_MMIO, 0x103);
    bus_release(bus, BUS_MMIO, 0x101); /* not by this call */
    expect(bus, ".ccccccaaaccccc.");
    /* Hidden from end to end, and there again. */
    assert_int_equal(bus_claim_ranked(bus, BUS_MMIO, 0x100, 16, 1, "b", &wide, &b, NULL), 0);
    expect(bus, "bbbbbbbaaabbbbbb");
    bus_release_ranked(bus, BUS_MMIO, 1);
    bus_release_ranked(bus, BUS_MMIO, 0);
    expect(bus, ".cccccccccccccc.");
    bus_release_ranked(bus, BUS_MMIO, 2);
    expect(bus, "................");
    assert_int_equal(bus_claim_ranked(bus, BUS_PORT, 0xFFFF, 2, 0, "a", &wide, &a, &err), -EINVAL);
    assert_int_equal(bus_claim_ranked(bus, BUS_MMIO, UINT64_MAX, 1, 0, "a", &wide, &a, &err), 0);
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX, 1), 'a');
    bus_destroy(bus);
}

/* Many on top of each other: each address is that of the lowest rank that has it. */
static void test_many_ranked(void **unused)
{
    enum { MOST = 60 };
    struct bytes devs[MOST];
    unsigned base[MOST], size[MOST] = {0};
    struct bus *bus = bus_create(NULL);
    uint32_t seed = 1;
    (void)unused;
    for (unsigned i = 0; i < MOST; i++)
        devs[i] = owner((char)(i + 1));
    for (unsigned step = 0; step < 3000; step++) {
        unsigned i = (seed = seed * 1103515245 + 12345) >> 16 & 0x7FFF;

        i %= MOST;
        if (size[i]) {
            bus_release_ranked(bus, BUS_MMIO, i);
            size[i] = 0;
        } else {
            base[i] = (seed >> 8) % 256;
            size[i] = (seed >> 4) % 64 + 1;
            assert_int_equal(
                bus_claim_ranked(bus, BUS_MMIO, base[i], size[i], i, "x", &wide, &devs[i], NULL),
                0);
        }
        for (unsigned at = step % 7; at < 330; at += 7) {
            unsigned n = 0;

            while (n < MOST && (at < base[n] || at - base[n] >= size[n] || !size[n]))
                n++;
            assert_int_equal(bus_read(bus, BUS_MMIO, at, 1), n < MOST ? n + 1 : 0xFF);
        }
    }
    bus_destroy(bus);
}

/* ---- Doorbells ---- */

struct bell {
    struct bus *bus;
    _Atomic unsigned rings, inside;
    bool gated; /* a ring does not return before it may */
    _Atomic bool may_return;
    uint64_t offset, value;
    unsigned size;
};

static void ring(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct bell *bell = dev;
    bell->offset = offset;
    bell->size = size;
    bell->value = value;
    atomic_fetch_add(&bell->rings, 1);
}

static void test_doorbells(void **unused)
{
    struct bytes dev = {0};
    struct bell a = {0}, b = {0};
    struct error err;
    struct bus *bus = bus_create(NULL);
    (void)unused;
    bus_claim(bus, BUS_MMIO, 0x1000, 64, "dev", &wide, &dev, NULL);
    assert_int_equal(bus_claim_doorbell(bus, BUS_MMIO, 0x1010, 8, "a", ring, &a, &err), 0);
    assert_int_equal(bus_claim_doorbell(bus, BUS_MMIO, 0x1018, 4, "b", ring, &b, &err), 0);
    assert_int_equal(bus_claim_doorbell(bus, BUS_MMIO, 0x1017, 1, "c", ring, &b, &err), -EBUSY);
    assert_non_null(strstr(err.text, "a"));
    assert_int_equal(bus_claim_doorbell(bus, BUS_PORT, 0xFFFF, 2, "c", ring, &b, &err), -EINVAL);

    /* What lies in a doorbell rings it, with the board lock held or not, and reaches no device. */
    assert_false(bus_is_locked_here(bus));
    bus_lock(bus);
    assert_true(bus_is_locked_here(bus));
    assert_false(bus_write(bus, BUS_MMIO, 0x1014, 2, 0x12345));
    assert_false(bus_write(bus, BUS_MMIO, 0x101B, 1, 7));
    bus_unlock(bus);
    assert_false(bus_is_locked_here(bus));
    assert_int_equal(atomic_load(&a.rings), 1);
    assert_int_equal(a.offset, 4);
    assert_int_equal(a.size, 2);
    assert_int_equal(a.value, 0x2345);
    assert_int_equal(atomic_load(&b.rings), 1);
    assert_int_equal(b.offset, 3);
    assert_int_equal(dev.accesses, 0);

    /* Reads, and writes beyond an edge, are the device's. */
    bus_read(bus, BUS_MMIO, 0x1010, 4);
    bus_write(bus, BUS_MMIO, 0x1016, 4, 0);
    bus_write(bus, BUS_MMIO, 0x100F, 2, 0);
    bus_write(bus, BUS_PORT, 0x1010, 2, 0);
    assert_true(dev.accesses >= 3);
    assert_int_equal(atomic_load(&a.rings) + atomic_load(&b.rings), 2);

    bus_release_doorbell(bus, BUS_MMIO, 0x1014); /* none starts there */
    bus_release_doorbell(bus, BUS_MMIO, 0x1010);
    dev.accesses = 0;
    bus_write(bus, BUS_MMIO, 0x1010, 8, 1);
    assert_int_equal(dev.accesses, 1);
    assert_int_equal(atomic_load(&a.rings), 1);
    bus_write(bus, BUS_MMIO, 0x1018, 4, 1);
    assert_int_equal(atomic_load(&b.rings), 2);
    assert_int_equal(bus_claim_doorbell(bus, BUS_MMIO, 0x1010, 8, "c", ring, &a, &err), 0);
    bus_destroy(bus);
}

/* Counts when it returns, so that one that is under way can be told. */
static void ring_slowly(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct bell *bell = dev;
    assert_false(bus_is_locked_here(bell->bus));
    atomic_fetch_add(&bell->inside, 1);
    if (bell->gated)
        while (!atomic_load(&bell->may_return))
            sched_yield();
    atomic_fetch_add(&bell->rings, 1);
    atomic_fetch_sub(&bell->inside, 1);
}

static void *ring_once(void *opaque)
{
    struct bell *bell = opaque;
    bus_write(bell->bus, BUS_MMIO, 0x2000, 4, 1);
    return NULL;
}

static void *release_soon(void *opaque)
{
    struct bell *bell = opaque;
    time_sleep_ns(20 * NS_PER_MS); /* so that who does not wait is through by then */
    atomic_store(&bell->may_return, true);
    return NULL;
}

static void test_release_waits(void **unused)
{
    struct bus *bus = bus_create(NULL);
    struct bell bell = {.bus = bus, .gated = true};
    pthread_t ringer, releaser;
    (void)unused;
    assert_int_equal(bus_claim_doorbell(bus, BUS_MMIO, 0x2000, 4, "bell", ring_slowly, &bell, NULL),
                     0);
    assert_int_equal(thread_start(&ringer, "vcpu", ring_once, &bell, NULL), 0);
    while (!atomic_load(&bell.inside))
        sched_yield();
    assert_int_equal(thread_start(&releaser, "releaser", release_soon, &bell, NULL), 0);
    bus_lock(bus); /* as a register write that moves a BAR has it */
    bus_release_doorbell(bus, BUS_MMIO, 0x2000);
    bus_unlock(bus);
    assert_int_equal(atomic_load(&bell.inside), 0);
    pthread_join(ringer, NULL);
    pthread_join(releaser, NULL);
    bus_destroy(bus);
}

static _Atomic bool ringing_ends;

static void *ring_often(void *opaque)
{
    struct bell *bell = opaque;
    while (!atomic_load(&ringing_ends)) {
        for (unsigned i = 0; i < 20; i++)
            bus_write(bell->bus, BUS_MMIO, 0x2000, 4, 1);
        sched_yield(); /* the board lock is not fair */
    }
    return NULL;
}

/* vCPUs ring without end while the doorbell comes and goes, as when a guest moves a BAR. */
static void test_doorbell_is_released(void **unused)
{
    struct bytes dev = {0};
    struct bus *bus = bus_create(NULL);
    struct bell bell = {.bus = bus};
    pthread_t threads[3];
    (void)unused;
    atomic_store(&ringing_ends, false);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(thread_start(&threads[i], "vcpu", ring_often, &bell, NULL), 0);
    for (unsigned i = 0; i < 100; i++) {
        bus_lock(bus);
        assert_int_equal(bus_claim(bus, BUS_MMIO, 0x2000, 4, "dev", &four, &dev, NULL), 0);
        assert_int_equal(
            bus_claim_doorbell(bus, BUS_MMIO, 0x2000, 4, "bell", ring_slowly, &bell, NULL), 0);
        bus_unlock(bus);
        unsigned before = atomic_load(&bell.rings);
        while (atomic_load(&bell.rings) == before)
            sched_yield();
        bus_lock(bus);
        bus_release_doorbell(bus, BUS_MMIO, 0x2000);
        assert_int_equal(atomic_load(&bell.inside), 0);
        before = atomic_load(&bell.rings);
        bus_release(bus, BUS_MMIO, 0x2000);
        bus_unlock(bus);
        sched_yield();
        assert_int_equal(atomic_load(&bell.rings), before);
    }
    atomic_store(&ringing_ends, true);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    bus_destroy(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_unclaimed),
        cmocka_unit_test(test_last_address),
        cmocka_unit_test(test_ranked),
        cmocka_unit_test(test_many_ranked),
        cmocka_unit_test(test_doorbells),
        cmocka_unit_test(test_release_waits),
        cmocka_unit_test(test_doorbell_is_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

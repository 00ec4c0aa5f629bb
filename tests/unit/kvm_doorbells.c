/*
 * Doorbells that KVM rings: which event files KVM is given and has taken away, and that nothing
 * that it has signalled is lost. KVM is played here.
 */
#include "open_files.h"
#include "test.h"

#include "base/time.h"
#include "base/util.h"
#include "cpu/kvm/doorbells.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <unistd.h>

#define SYSTEM     100 /* descriptors that are none */
#define VM         101
#define BASE       0xE0003000ULL
#define TIMEOUT_NS (60 * NS_PER_S)

/* ---- KVM ---- */

static struct {
    bool able, refuses_removal;
    int error;     /* of a doorbell that is to be added, or 0 */
    unsigned room; /* for doorbells */
    struct {
        uint64_t address;
        int file;
    } bell[1024];
    unsigned count;
} kvm;

static int change_bells(const struct kvm_ioeventfd *event)
{
    unsigned i = 0;

    assert_int_equal(event->len, 0);
    while (i < kvm.count && kvm.bell[i].address != event->addr)
        i++;
    if (event->flags & KVM_IOEVENTFD_FLAG_DEASSIGN) {
        if (kvm.refuses_removal)
            return -ENOENT;
        assert_true(i < kvm.count);
        assert_int_equal(kvm.bell[i].file, event->fd);
        kvm.bell[i] = kvm.bell[--kvm.count];
        return 0;
    }
    assert_int_equal(event->flags, 0);
    assert_int_equal(i, kvm.count);
    if (kvm.error || kvm.count == kvm.room)
        return kvm.error ? -kvm.error : -ENOSPC;
    kvm.bell[kvm.count].address = event->addr;
    kvm.bell[kvm.count++].file = event->fd;
    return 0;
}

static int played_ioctl(void *opaque, int fd, unsigned long request, void *argument)
{
    if (request == KVM_CHECK_EXTENSION) {
        assert_int_equal(fd, SYSTEM);
        return kvm.able;
    }
    assert_true(request == KVM_IOEVENTFD && fd == VM);
    return change_bells(argument);
}

static const struct kvm_calls calls = {.ioctl = played_ioctl};

/* The guest writes to ADDRESS. Returns false if that is an exit. */
static bool guest_writes(uint64_t address)
{
    const uint64_t one = 1;

    for (unsigned i = 0; i < kvm.count; i++)
        if (kvm.bell[i].address == address) {
            assert_int_equal(write(kvm.bell[i].file, &one, sizeof(one)), sizeof(one));
            return true;
        }
    return false;
}

/* ---- A device ---- */

static _Atomic unsigned rung[8]; /* by queue */

static void on_ring(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    atomic_fetch_add(&rung[offset / BUS_DOORBELL_STEP], 1);
}

static void wait_for_ring(unsigned queue, unsigned count)
{
    uint64_t end = time_now_ns() + TIMEOUT_NS;

    while (atomic_load(&rung[queue]) < count) {
        assert_true(time_now_ns() < end);
        time_sleep_ns(NS_PER_MS / 10);
    }
}

static struct bus *bus;
static struct kvm_doorbells bells;
static unsigned files;

static int set_up(void **unused)
{
    files = open_files();
    bus = bus_create(NULL);
    memset(&kvm, 0, sizeof(kvm));
    memset(&bells, 0, sizeof(bells));
    kvm.able = true;
    kvm.room = ARRAY_SIZE(kvm.bell);
    for (unsigned i = 0; i < ARRAY_SIZE(rung); i++)
        atomic_store(&rung[i], 0);
    return bus ? 0 : -1;
}

static int tear_down(void **unused)
{
    kvm_doorbells_destroy(&bells);
    assert_int_equal(kvm.refuses_removal ? 0 : kvm.count, 0);
    bus_destroy(bus);
    assert_int_equal(open_files(), files);
    return 0;
}

static void begin(void)
{
    kvm_doorbells_create(&bells, &calls, SYSTEM, VM, bus);
}

static void claim(uint64_t base, unsigned queues)
{
    bus_lock(bus);
    assert_int_equal(bus_claim_doorbell(bus, BUS_MMIO, base, (uint64_t)queues * BUS_DOORBELL_STEP,
                                        "bell", on_ring, NULL, NULL),
                     0);
    bus_unlock(bus);
}

static void release(uint64_t base)
{
    bus_lock(bus);
    bus_release_doorbell(bus, BUS_MMIO, base);
    bus_unlock(bus);
}

/* ---- Tests ---- */

/* A doorbell that is there before, one that comes, and one that moves. */
static void test_follows(void **unused)
{
    claim(BASE, 3);
    begin();
    assert_int_equal(kvm.count, 3);
    assert_true(guest_writes(BASE + 4));
    wait_for_ring(1, 1);
    assert_true(guest_writes(BASE + 8));
    wait_for_ring(2, 1);
    claim(BASE + 0x1000, 1);
    assert_int_equal(kvm.count, 4);
    release(BASE);
    assert_int_equal(kvm.count, 1);
    assert_false(guest_writes(BASE));
    claim(BASE + 0x2000, 3);
    assert_true(guest_writes(BASE + 0x2000));
    wait_for_ring(0, 1);
    assert_int_equal(atomic_load(&rung[1]), 1);
    release(BASE + 0x1000);
    release(BASE + 0x2000);
    assert_int_equal(kvm.count, 0);
    bus_lock(bus);
    assert_int_equal(bus_claim_doorbell(bus, BUS_PORT, 0x1000, 4, "port", on_ring, NULL, NULL), 0);
    bus_release_doorbell(bus, BUS_PORT, 0x1000);
    bus_unlock(bus);
    assert_int_equal(kvm.count, 0);
}

/* What was written to before a doorbell goes is rung before it has gone, a hundred times against
 * the thread; and so it is when the engine goes. */
static void test_nothing_is_lost(void **unused)
{
    begin();
    for (unsigned i = 1; i <= 100; i++) {
        claim(BASE, 1);
        assert_true(guest_writes(BASE));
        release(BASE);
        assert_true(atomic_load(&rung[0]) == i);
    }
    claim(BASE, 1);
    assert_true(guest_writes(BASE));
    kvm_doorbells_destroy(&bells);
    assert_int_equal(kvm.count, 0);
    assert_int_equal(atomic_load(&rung[0]), 101);
    /* From here on writes go the other way. */
    assert_true(bus_ring_doorbell(bus, BUS_MMIO, BASE, 2, 0));
    assert_int_equal(atomic_load(&rung[0]), 102);
}

/* Two engines for a moment: each has its own. */
static void test_two_engines(void **unused)
{
    static struct kvm_doorbells next;
    const unsigned first = 2;

    claim(BASE, first);
    begin();
    assert_int_equal(kvm.count, first);
    kvm.count = 0; /* those of the next engine are another virtual machine's */
    memset(&next, 0, sizeof(next));
    kvm_doorbells_create(&next, &calls, SYSTEM, VM, bus);
    assert_int_equal(kvm.count, first);
    assert_true(guest_writes(BASE));
    wait_for_ring(0, 1);
    kvm_doorbells_destroy(&next);
    assert_int_equal(kvm.count, 0);
    kvm.refuses_removal = true; /* forgotten above */
    kvm_doorbells_destroy(&bells);
}

/* Where KVM cannot, or has no room, or not so many descriptors are to be used: exits. */
static void test_without(void **unused)
{
    static const int errors[] = {EBUSY, EPERM, ENOMEM};

    kvm.able = false;
    claim(BASE, 2);
    begin();
    assert_int_equal(kvm.count, 0);
    assert_null(bells.loop);
    kvm.able = true;
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
        kvm.error = errors[i];
        begin();
        assert_int_equal(kvm.count, 0);
        kvm_doorbells_destroy(&bells);
        assert_int_equal(atomic_load(&bells.failed), 0);
    }
    kvm.error = 0;
    kvm.room = 1;
    begin();
    assert_int_equal(kvm.count, 1);
    assert_true(guest_writes(BASE));
    wait_for_ring(0, 1);
    assert_false(guest_writes(BASE + 4));
    kvm.room = ARRAY_SIZE(kvm.bell);
    release(BASE);
    claim(BASE, KVM_DOORBELLS_MAX + 10);
    assert_int_equal(kvm.count, KVM_DOORBELLS_MAX);
    release(BASE);
    assert_int_equal(kvm.count, 0);
    claim(BASE, 1); /* there is room again */
    assert_int_equal(kvm.count, 1);
}

/* KVM that keeps a doorbell would swallow writes. */
static void test_kept(void **unused)
{
    begin();
    claim(BASE, 1);
    kvm.refuses_removal = true;
    release(BASE);
    assert_int_equal(atomic_load(&bells.failed), ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_follows), TEST(test_nothing_is_lost), TEST(test_two_engines), TEST(test_without),
        TEST(test_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

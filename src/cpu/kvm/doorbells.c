/*
 * Doorbells that KVM rings.
 */
#include "cpu/kvm/doorbells.h"

#include "base/event.h"
#include "base/util.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A driver writes the queue's number in 16 bits (virtio 1.2, 4.1.5.2). A doorbell that KVM rings
 * does not tell what was written, and need not (BUS_DOORBELL_STEP). */
#define USUAL_SIZE 2

/* Rings BELL if its event file has been signalled. */
static void ring(const struct kvm_doorbell *bell)
{
    if (event_clear(bell->file))
        bus_ring_doorbell(bell->all->bus, BUS_MMIO, bell->address, USUAL_SIZE, 0);
}

/* On the thread. It takes no lock that is held while the watch is removed. */
static void on_signal(void *bell, uint32_t events)
{
    ring(bell);
}

/* Tells KVM, for a write of any size. */
static int tell_kvm(const struct kvm_doorbell *bell, uint32_t flags)
{
    const struct kvm_ioeventfd event = {.addr = bell->address, .fd = bell->file, .flags = flags};

    return kvm_call(bell->all->calls, bell->all->vm, KVM_IOEVENTFD, (uintptr_t)&event);
}

/* Returns false if something is lacking: the doorbell is an exit then. */
static bool open_bell(struct kvm_doorbell *bell)
{
    bell->file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell->file < 0)
        return false;
    bell->watch = loop_add(bell->all->loop, bell->file, EPOLLIN, on_signal, bell, NULL);
    return bell->watch && tell_kvm(bell, 0) == 0;
}

static void close_bell(struct kvm_doorbell *bell)
{
    if (bell->watch)
        loop_remove(bell->watch);
    bell->watch = NULL;
    if (bell->file >= 0)
        close(bell->file);
    bell->file = -1;
}

static struct kvm_doorbell *free_place(struct kvm_doorbells *d)
{
    for (unsigned i = 0; i < KVM_DOORBELLS_MAX; i++)
        if (d->bell[i].file < 0)
            return &d->bell[i];
    return NULL;
}

static void on_claimed(void *opaque, enum bus_space space, uint64_t base, uint64_t size)
{
    struct kvm_doorbells *d = opaque;

    for (uint64_t at = 0; space == BUS_MMIO && at < size; at += BUS_DOORBELL_STEP) {
        struct kvm_doorbell *bell = free_place(d);

        if (!bell)
            return;
        bell->doorbell = base;
        bell->address = base + at;
        if (!open_bell(bell))
            close_bell(bell);
    }
}

/* KVM signals no more when it has been told so; what it has signalled is rung here, since the
 * doorbell is about to go. */
static void on_released(void *opaque, enum bus_space space, uint64_t base)
{
    struct kvm_doorbells *d = opaque;

    for (unsigned i = 0; space == BUS_MMIO && i < KVM_DOORBELLS_MAX; i++) {
        struct kvm_doorbell *bell = &d->bell[i];
        int ret;

        if (bell->file < 0 || bell->doorbell != base)
            continue;
        ret = tell_kvm(bell, KVM_IOEVENTFD_FLAG_DEASSIGN);
        if (ret < 0)
            atomic_store(&d->failed, -ret);
        loop_remove(bell->watch);
        bell->watch = NULL;
        ring(bell);
        close_bell(bell);
    }
}

static bool can_ring(const struct kvm_calls *calls, int system)
{
    return kvm_call(calls, system, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD) > 0 &&
           kvm_call(calls, system, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
}

void kvm_doorbells_create(struct kvm_doorbells *d, const struct kvm_calls *calls, int system,
                          int vm, struct bus *bus)
{
    if (!can_ring(calls, system))
        return;
    d->calls = calls;
    d->vm = vm;
    d->bus = bus;
    for (unsigned i = 0; i < KVM_DOORBELLS_MAX; i++) {
        d->bell[i].all = d;
        d->bell[i].file = -1;
    }
    d->loop = loop_create(NULL);
    if (d->loop && loop_start(d->loop, NULL) < 0) {
        loop_destroy(d->loop);
        d->loop = NULL;
    }
    if (!d->loop)
        return;
    d->watcher = (struct bus_watcher){.claimed = on_claimed, .released = on_released, .opaque = d};
    bus_watch(bus, &d->watcher);
}

void kvm_doorbells_destroy(struct kvm_doorbells *d)
{
    if (!d->loop)
        return;
    bus_unwatch(d->bus, &d->watcher);
    loop_destroy(d->loop);
    d->loop = NULL;
}

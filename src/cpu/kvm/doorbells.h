/*
 * Doorbells that KVM rings (KVM_IOEVENTFD; Documentation/virt/kvm/api.rst): the guest's write ends
 * in the host's kernel, which signals an event file, and the vCPU goes on at once.
 *
 *      vCPU, in KVM_RUN ---> event file ---> thread: bus_ring_doorbell ---> the device's queue
 *
 * A doorbell without an event file is an exit, as before: where KVM lacks this or has no room, and
 * if there are more than KVM_DOORBELLS_MAX of them, because descriptors are few.
 */
#ifndef DOPPEL_CPU_KVM_DOORBELLS_H
#define DOPPEL_CPU_KVM_DOORBELLS_H

#include "base/error.h"
#include "base/loop.h"
#include "bus/bus.h"
#include "cpu/kvm/calls.h"

#include <stdatomic.h>

#define KVM_DOORBELLS_MAX 128

struct kvm_doorbells {
    const struct kvm_calls *calls;
    int vm;
    struct bus *bus;
    struct loop *loop; /* NULL: KVM rings none */
    struct bus_watcher watcher;
    /* With the board lock. */
    struct kvm_doorbell {
        struct kvm_doorbells *all;
        uint64_t doorbell, address; /* the doorbell's base, and the address that is written to */
        int file;                   /* -1: the place is free */
        struct loop_watch *watch;
    } bell[KVM_DOORBELLS_MAX];
    _Atomic int failed; /* an errno: KVM keeps a doorbell that is not there any more */
};

/* Has KVM ring BUS's doorbells, from now on and wherever they move, or does without. VM and SYSTEM
 * are KVM's descriptors. kvm_doorbells_destroy may always follow, if D was zeroed. */
void kvm_doorbells_create(struct kvm_doorbells *d, const struct kvm_calls *calls, int system,
                          int vm, struct bus *bus);
/* Rings what has been written to until then. */
void kvm_doorbells_destroy(struct kvm_doorbells *d);

#endif

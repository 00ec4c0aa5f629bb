/*
 * Guest memory as KVM sees it.
 *
 * Each region of guest memory has a second mapping in this process, its mirror, and KVM is given
 * the mirror as a memory slot. The mirror maps only pages that are plain (mem/map.h). When a page
 * is taken away, its place in the mirror becomes inaccessible, and the host's kernel takes it from
 * the guest's page tables; the guest's next access ends KVM_RUN with EFAULT. The interpreter then
 * executes the instruction, which brings the page back by the gate.
 *
 * Pages become inaccessible while no vCPU is in KVM_RUN. Otherwise KVM could be emulating an access
 * to a device, for which it walks the guest's page tables itself; it would take a table that is
 * inaccessible by then for an entry that is not present, and the guest would get a page fault. In
 * KVM_RUN that begins later, the processor walks the tables before KVM does.
 *
 *      guest physical          mirror                 gate's mapping
 *      +-----------+  slot  +-----------+   memfd    +-----------+
 *      | region    | -----> | plain     | ---------> | all pages |
 *      |           |        | (no access)            |           |
 *      +-----------+        +-----------+            +-----------+
 */
#ifndef DOPPEL_CPU_KVM_SLOTS_H
#define DOPPEL_CPU_KVM_SLOTS_H

#include "cpu/core/safepoint.h"
#include "cpu/kvm/system.h"
#include "mem/map.h"

#include <pthread.h>

struct kvm_slot {
    uint8_t *mirror; /* NULL: the slot is free */
    uint64_t region, gpa, size;
    enum mem_kind kind;
    bool logged;
    bool given;          /* to KVM */
    uint64_t *gone;      /* a bit for each page that is inaccessible in the mirror */
    uint64_t gone_pages; /* how many they are */
};

/* Places that may have pages to withdraw. */
#define KVM_NOTED_MAX 64
struct kvm_noted {
    unsigned count;
    struct {
        uint64_t first, end; /* guest page numbers */
    } range[KVM_NOTED_MAX];
};

struct kvm_slots {
    const struct kvm_calls *calls;
    int vm; /* KVM's descriptor */
    struct mem *mem;
    struct safepoint *safepoint; /* of the vCPUs */
    struct mem_listener listener;
    /* Guards all below. Taken with or without other locks; only guest memory's is taken with it
     * held. */
    pthread_mutex_t lock;
    struct kvm_slot slot[MEM_MAPS_MAX]; /* by KVM's number */
    struct kvm_noted noted;
    struct error failure; /* code 0: all is as it should be */
    _Atomic bool failed;
};

/* Gives all of MEM to KVM, and changes of it from then on. SAFEPOINT stops the vCPUs. Whatever it
 * returns, kvm_slots_destroy must follow. */
int kvm_slots_create(struct kvm_slots *slots, const struct kvm_calls *calls, int vm,
                     struct mem *mem, struct safepoint *safepoint, struct error *err);
void kvm_slots_destroy(struct kvm_slots *slots);

/* Marks in the dirty logs what guest code has written to. */
void kvm_slots_collect(struct kvm_slots *slots);
/* Makes pages accessible again that have come back. */
void kvm_slots_refresh(struct kvm_slots *slots);

#endif

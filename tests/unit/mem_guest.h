/*
 * What the tests of guest memory under running guest code have in common: guest code out of the
 * assembler, a pager in an array, and vCPUs on threads of their own.
 */
#ifndef DOPPEL_TESTS_UNIT_MEM_GUEST_H
#define DOPPEL_TESTS_UNIT_MEM_GUEST_H

#include "interp_test.h"

#include "base/util.h"
#include "mem/change.h"
#include "mem/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define RIG_PAGES (RIG_RAM / MEM_PAGE_SIZE)

/* Position-independent 64-bit code, as guest_NAME and guest_NAME_end. */
#define GUEST_CODE(NAME, TEXT)                                                                     \
    __asm__(".pushsection .rodata\nguest_" #NAME ":\n" TEXT "\nguest_" #NAME                       \
            "_end:\n.popsection");                                                                 \
    extern const uint8_t guest_##NAME[], guest_##NAME##_end[];

#define PUT_CODE(NAME, GPA) put(GPA, guest_##NAME, (size_t)(guest_##NAME##_end - guest_##NAME))

/* A pager that keeps each page in its own place. */
static struct {
    uint8_t page[RIG_PAGES][MEM_PAGE_SIZE];
    _Atomic unsigned ins, outs, unprotected;
    int fails;
    void (*before_in)(uint64_t gpn); /* or NULL */
} store;

static int store_out(void *opaque, uint64_t gpn, const void *page, uint32_t *slot)
{
    memcpy(store.page[gpn], page, MEM_PAGE_SIZE);
    *slot = (uint32_t)gpn;
    atomic_fetch_add(&store.outs, 1);
    return 0;
}

static int store_in(void *opaque, uint64_t gpn, uint32_t slot, void *page)
{
    if (store.before_in)
        store.before_in(gpn);
    memcpy(page, store.page[slot], MEM_PAGE_SIZE);
    atomic_fetch_add(&store.ins, 1);
    return store.fails;
}

static int store_unprotected(void *opaque, uint64_t gpn, const void *page)
{
    atomic_fetch_add(&store.unprotected, 1);
    return 0;
}

static const struct mem_pager store_pager = {
    .out = store_out, .in = store_in, .unprotected = store_unprotected};

static inline void store_begin(void)
{
    store.fails = 0;
    store.before_in = NULL;
    atomic_store(&store.ins, 0);
    atomic_store(&store.outs, 0);
    atomic_store(&store.unprotected, 0);
    mem_set_pager(rig->machine.mem, &store_pager, NULL);
}

/* Does the same with all pages that tests use, as far as that is possible. */
#define USED_PAGES 64u
static inline unsigned change_all(enum mem_change_kind kind)
{
    struct mem_change batch[USED_PAGES];

    for (unsigned i = 0; i < USED_PAGES; i++)
        batch[i] = (struct mem_change){.kind = kind, .gpn = i};
    return mem_change(rig->machine.mem, batch, USED_PAGES);
}

static inline int change_one(enum mem_change_kind kind, uint64_t gpa)
{
    struct mem_change change = {.kind = kind, .gpn = gpa >> MEM_PAGE_SHIFT};

    mem_change(rig->machine.mem, &change, 1);
    return change.status;
}

/* Whether pages stay present, because KVM walks the guest's page tables itself. */
static inline bool pages_stay(void)
{
    return rig_is_kvm() && change_one(MEM_SWAP_OUT, 0) == -EPERM;
}

static inline uint64_t get64(uint64_t gpa)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(rig->machine.mem, gpa, &value, 8), 0);
    return value;
}

/* A vCPU on a thread of its own. */
struct runner {
    pthread_t thread;
    unsigned id;
    struct x86_cpu cpu;
    enum engine_exit exit;
    _Atomic bool done;
};

static inline void *runner_thread(void *opaque)
{
    struct runner *r = opaque;
    struct vcpu *vcpu = rig->cpu[r->id].vcpu;

    RIG_ENGINE.state_in(vcpu, &r->cpu);
    do
        r->exit = RIG_ENGINE.run(vcpu);
    while (r->exit == EXIT_KICK);
    RIG_ENGINE.state_out(vcpu, &r->cpu);
    atomic_store(&r->done, true);
    return NULL;
}

static inline void runner_start(struct runner *r, unsigned id)
{
    r->id = id;
    atomic_store(&r->done, false);
    assert_int_equal(pthread_create(&r->thread, NULL, runner_thread, r), 0);
}

static inline void runner_join(struct runner *r)
{
    pthread_join(r->thread, NULL);
    assert_int_equal(r->exit, EXIT_HALT);
}

#endif

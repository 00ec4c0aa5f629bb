/*
 * Pages that come and go: what a vCPU does when guest memory answers that a page is absent, and
 * what it does about pages that have been taken away or have moved.
 *
 * Two ways lead out of an absent page. An access that copies a value, of which nothing is kept but
 * the value, waits where it is (present_wait): nothing that the instruction did before is done
 * twice. An access that gets a host address, and whatever looks for code, gives the instruction up
 * before anything of it has happened (raise_absent); the run loop makes the page present and
 * executes the instruction first of all.
 *
 * Either way the vCPU is outside of the safe point while it waits, and has no lock. When it comes
 * back, what it knew of pages may be out of date.
 */
#ifndef DOPPEL_CPU_CORE_PRESENT_H
#define DOPPEL_CPU_CORE_PRESENT_H

#include "cpu/core/vcpu.h"

/* Makes the page in vcpu.absent present, in the middle of an instruction or between two. Host
 * addresses of guest memory that the caller has are void then. Gives up with FAULT_MEMORY if that
 * fails. */
void present_wait(struct vcpu *c);
/* The instruction for which pages were made present is done: they may be taken away again. */
static inline void present_release(struct vcpu *c)
{
    if (unlikely(c->kept.count))
        mem_release(c->mem, &c->kept);
}

/* Forgets what others have put out of date since the vCPU last did so. On its own thread, inside:
 * between two instructions, or where host addresses of guest memory are not kept. */
void present_forget(struct vcpu *c);

/* Stops the other vCPUs at a safe point, then forgets what is out of date in C. On C's own thread,
 * inside, with no lock held that a vCPU may wait for. Host addresses of guest memory that the
 * caller got before are out of date. present_resume_others must follow. */
void present_stop_others(struct vcpu *c);
void present_resume_others(struct vcpu *c);

/* Of struct mem_listener_ops; OPAQUE is the struct core. */
void present_invalidated(void *opaque, const struct mem_range *ranges, unsigned count,
                         enum mem_access access);
void present_settle(void *opaque);

#endif

/*
 * Pages of guest memory that come and go: what a vCPU does when a page is not present, and what it
 * does about pages that have been taken away or have moved.
 *
 * An access to a page that is not present waits in one of two ways. If it copies a value, it waits
 * where it is (present_wait), so that nothing that the instruction has done is done twice. If it
 * needs a host address, or looks for code, it gives up the instruction before that has had any
 * effect (raise_absent); the run loop makes the page present and then executes the instruction
 * before anything else.
 *
 * In both cases the vCPU is outside of the safe point while it waits, and holds no lock.
 * Afterwards, host addresses that it had may be out of date.
 */
#ifndef DOPPEL_CPU_CORE_PRESENT_H
#define DOPPEL_CPU_CORE_PRESENT_H

#include "cpu/core/vcpu.h"

/* Makes the page in vcpu.absent present, in the middle of an instruction or between two. Host
 * addresses of guest memory that the caller has are out of date then. Raises FAULT_MEMORY if the
 * page cannot be had. */
void present_wait(struct vcpu *c);
/* Lets pages be taken away again that were made present for an instruction, which is done. */
static inline void present_release(struct vcpu *c)
{
    if (unlikely(c->kept.count))
        mem_release(c->mem, &c->kept);
}

/* Drops everything from the software TLB that other threads have put out of date since the vCPU
 * last called this. On its own thread, inside of the safe point, where the caller keeps no host
 * address of guest memory. */
void present_forget(struct vcpu *c);

/* Stops the other vCPUs at a safe point, then calls present_forget. On C's own thread, inside, with
 * no lock held that a vCPU may wait for. Host addresses of guest memory that the caller has are out
 * of date then. present_resume_others must follow. */
void present_stop_others(struct vcpu *c);
void present_resume_others(struct vcpu *c);

/* Of struct mem_listener_ops; OPAQUE is the struct core. */
void present_invalidated(void *opaque, const struct mem_range *ranges, unsigned count,
                         enum mem_access access);
void present_settle(void *opaque);

#endif

/*
 * Faults: how the instruction under way is given up, either because it raises an exception (SDM
 * volume 3, chapter 6), or to be executed again in another way.
 *
 * None of these functions returns: they jump to where the run loop has been entered (longjmp).
 */
#ifndef DOPPEL_CPU_CORE_FAULT_H
#define DOPPEL_CPU_CORE_FAULT_H

#include "cpu/core/vcpu.h"

/* Raise an exception at OP, so that X86_RIP points at OP. OP NULL: X86_RIP is right already. */
_Noreturn void raise_fault(struct vcpu *c, const struct uop *op, int vector);
_Noreturn void raise_error(struct vcpu *c, const struct uop *op, int vector, uint32_t error);
_Noreturn void raise_page_fault(struct vcpu *c, const struct uop *op, uint64_t va, uint32_t error);

/* In vcpu.fault.vector after restart_as_step. */
#define FAULT_RESTART (-1)
/* Gives up OP, which has had no effect yet, and has it executed again as a single step, because it
 * concerns a breakpoint. */
_Noreturn void restart_as_step(struct vcpu *c, const struct uop *op);

/* In vcpu.fault.vector after raise_absent. */
#define FAULT_ABSENT (-2)
/* Gives up OP, which has had no effect yet, until the page in vcpu.absent is present. OP is then
 * executed before anything else. */
_Noreturn void raise_absent(struct vcpu *c, const struct uop *op);

/* In vcpu.fault.vector after raise_memory. */
#define FAULT_MEMORY (-3)
/* Ends the run with EXIT_MEMORY: a page of guest memory cannot be had. ERROR is a negative errno.
 * */
_Noreturn void raise_memory(struct vcpu *c, int error);

/* In vcpu.fault.vector after raise_failure. */
#define FAULT_ENGINE (-4)
/* Ends the run with EXIT_FAILED: the accelerator cannot go on. */
_Noreturn void raise_failure(struct vcpu *c);

/* Raises #GP at OP unless CPL is 0. */
static inline void require_cpl0(struct vcpu *c, const struct uop *op)
{
    if (cpl(c) != 0)
        raise_error(c, op, X86_GP, 0);
}

/* Raises #GP at OP if UMIP keeps user code from reading where system structures are. */
static inline void check_umip(struct vcpu *c, const struct uop *op)
{
    if ((c->x.cr4 & X86_CR4_UMIP) && cpl(c) > 0)
        raise_error(c, op, X86_GP, 0);
}

#endif

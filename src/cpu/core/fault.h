/*
 * Faults: how an instruction under way is given up, so that the exception it raises is delivered
 * (SDM volume 3, chapter 6), or so that it is executed again in another way.
 *
 * None of these functions returns: the run loop goes on where it was entered.
 */
#ifndef DOPPEL_CPU_CORE_FAULT_H
#define DOPPEL_CPU_CORE_FAULT_H

#include "cpu/core/vcpu.h"

/* Raise a fault at OP: X86_RIP points at it. OP NULL: X86_RIP is right already. */
_Noreturn void raise_fault(struct vcpu *c, const struct uop *op, int vector);
_Noreturn void raise_error(struct vcpu *c, const struct uop *op, int vector, uint32_t error);
_Noreturn void raise_page_fault(struct vcpu *c, const struct uop *op, uint64_t va, uint32_t error);

/* Stands in for a vector in vcpu.fault after restart_as_step. */
#define FAULT_RESTART (-1)
/* Leaves OP, of which nothing has happened yet, as a fault does, and has it executed again as a
 * single step: it concerns a breakpoint. */
_Noreturn void restart_as_step(struct vcpu *c, const struct uop *op);

/* Stands in for a vector after raise_absent. */
#define FAULT_ABSENT (-2)
/* Leaves OP, of which nothing has happened yet, as a fault does, until the page in vcpu.absent is
 * present; then it is executed before all else. */
_Noreturn void raise_absent(struct vcpu *c, const struct uop *op);

/* Stands in for a vector after raise_memory. */
#define FAULT_MEMORY (-3)
/* Guest memory has failed; ERROR is a negative errno. */
_Noreturn void raise_memory(struct vcpu *c, int error);

static inline void require_cpl0(struct vcpu *c, const struct uop *op)
{
    if (cpl(c) != 0)
        raise_error(c, op, X86_GP, 0);
}

/* UMIP: user code may not read where system structures are. */
static inline void check_umip(struct vcpu *c, const struct uop *op)
{
    if ((c->x.cr4 & X86_CR4_UMIP) && cpl(c) > 0)
        raise_error(c, op, X86_GP, 0);
}

#endif

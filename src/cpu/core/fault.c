/*
 * Faults. The interpreter says where the instruction under way stands.
 */
#include "cpu/core/fault.h"

#include "cpu/core/executor.h"

_Noreturn static void leave_instruction(struct vcpu *c, const struct uop *op, int vector,
                                        bool has_error, uint32_t error)
{
    if (op && c->block)
        c->core->interpreter->retract(c, op);
    c->fault = (struct event){.vector = vector, .error = error, .has_error = has_error};
    longjmp(c->fault_exit, 1);
}

void raise_fault(struct vcpu *c, const struct uop *op, int vector)
{
    leave_instruction(c, op, vector, false, 0);
}

void raise_error(struct vcpu *c, const struct uop *op, int vector, uint32_t error)
{
    leave_instruction(c, op, vector, true, error);
}

void raise_page_fault(struct vcpu *c, const struct uop *op, uint64_t va, uint32_t error)
{
    c->x.cr2 = va;
    counter_add(&c->exits[CAUSE_PAGE_FAULT], 1);
    leave_instruction(c, op, X86_PF, true, error);
}

void restart_as_step(struct vcpu *c, const struct uop *op)
{
    leave_instruction(c, op, FAULT_RESTART, false, 0);
}

void raise_absent(struct vcpu *c, const struct uop *op)
{
    leave_instruction(c, op, FAULT_ABSENT, false, 0);
}

void raise_memory(struct vcpu *c, int error)
{
    c->memory_error = error;
    leave_instruction(c, NULL, FAULT_MEMORY, false, 0);
}

void raise_failure(struct vcpu *c)
{
    leave_instruction(c, NULL, FAULT_ENGINE, false, 0);
}

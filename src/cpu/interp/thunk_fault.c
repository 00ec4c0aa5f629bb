/*
 * Host exceptions in thunks: makes the thunk's result of the signal that the host's kernel sends.
 *
 */
#include "cpu/interp/thunk_impl.h"

/* Whether an instruction can raise VECTOR by itself. A page fault is none of the guest's: either
 * the memory operand is not what it should be, or the host lacks the memory (mem/lost.h). */
SIGNALS_SAFE static bool is_guest_exception(unsigned vector)
{
    switch (vector) {
    case X86_DE:
    case X86_UD:
    case X86_GP:
    case X86_MF:
    case X86_AC:
    case X86_XM: return true;
    default: return false;
    }
}

SIGNALS_SAFE static bool on_fault(void *memory, const struct signals_fault *fault)
{
    greg_t *registers = fault->registers;
    uintptr_t landing;

    if (!is_guest_exception((unsigned)registers[REG_TRAPNO]))
        return false;
    landing = thunk_memory_landing(memory, (uintptr_t)registers[REG_RIP]);
    if (!landing)
        return false;
    registers[REG_RIP] = (greg_t)landing;
    registers[REG_RAX] = 1 + registers[REG_TRAPNO];
    return true;
}

struct signals_watch *thunk_fault_watch(const struct thunk_memory *memory, struct error *err)
{
    uintptr_t start, end;

    thunk_memory_range(memory, &start, &end);
    return signals_watch(SIGNALS_BY_CODE, start, end, on_fault, (void *)memory, err);
}

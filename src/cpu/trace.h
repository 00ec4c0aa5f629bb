/*
 * What a guest's processes, its kernel and the monitor do, told step by step to a tracer (--trace).
 * An engine tells it where control leaves guest code anyway. If a machine has a tracer, control
 * leaves guest code whenever it passes between a process and its kernel.
 */
#ifndef DOPPEL_CPU_TRACE_H
#define DOPPEL_CPU_TRACE_H

#include "cpu/engine.h"

enum trace_kind {
    TRACE_GUEST,   /* guest code at RIP needs the monitor, for CAUSE */
    TRACE_MONITOR, /* the monitor has dealt with CAUSE, in NS */
    TRACE_ENTRY,   /* a handler of the guest's kernel begins, at RIP */
    TRACE_RETURN,  /* it ends, with the instruction NAME at RIP */
    TRACE_RESUME,  /* what was interrupted goes on, at RIP */
};

/* A and B by cause:
 *   PORT, MMIO             port or guest physical address; bytes, and TRACE_WRITE
 *   MSR                    which; TRACE_WRITE
 *   CPUID                  leaf
 *   INTERRUPT, EXCEPTION   vector; TRACE_SOFTWARE for INT n
 *   PAGE_FAULT             address; error code
 *   CONTROL_REGISTER       which; the new value
 *   TLB_FLUSH              address, or 0 for all
 *   SYSCALL                number; whether the process is a 64-bit one
 *   TLB_MISS               address; enum mmu_access, and TRACE_FAULT if it may not be accessed
 *   INSTRUCTION            NAME says which
 *   TRANSLATION            instructions; bytes of code made of them */
enum { TRACE_WRITE = 0x100, TRACE_SOFTWARE = 1, TRACE_FAULT = 0x100 };

struct trace_event {
    enum trace_kind kind;
    enum exit_cause cause;
    unsigned cpu;
    unsigned level; /* CPL of the guest code that acts, or that runs now */
    uint64_t rip, a, b, ns;
    const char *name;        /* of an instruction, in lower case; or NULL */
    const struct x86_cpu *x; /* its registers, but for RIP and status flags; NULL: none */
};

struct tracer {
    _Atomic bool on;
    /* On the thread of the vCPU. */
    void (*event)(void *opaque, const struct trace_event *event);
    void *opaque;
};

static inline bool trace_on(const struct tracer *tracer)
{
    return tracer && atomic_load_explicit(&tracer->on, memory_order_relaxed);
}

#endif

/*
 * The contract between a VM and what executes its guest code. All engines run the same board and
 * the same guests; struct x86_cpu is the common form of their state.
 *
 * A machine that stands still may get another engine (vm/interchange.c). Both exist for a moment,
 * with vCPUs that have the same ports, and the next one is given what state_out says of the one
 * before. What that one knows of guest memory beyond its bytes (pages that were written to) it has
 * handed to MEM when its last vCPU is destroyed.
 */
#ifndef DOPPEL_CPU_ENGINE_H
#define DOPPEL_CPU_ENGINE_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/cpu_port.h"
#include "bus/local_apic.h"
#include "mem/mem.h"
#include "x86/cpu.h"
#include "x86/cpuid.h"

struct engine_ops;
struct tracer;
struct vcpu; /* each engine has its own */

/* What all of a VM's vCPUs share; must outlive the engine. */
struct machine {
    struct mem *mem;
    struct bus *bus;
    struct clock *clock;
    struct x86_model model;
    unsigned cpus;
    bool measure; /* count instructions and where time goes; translated code runs slower then */
    const struct tracer *tracer; /* trace.h; or NULL */
};

/* Why run() returned. */
enum engine_exit {
    EXIT_KICK,     /* CPU_REQ_KICK, _INIT or _SIPI is pending (and left pending) */
    EXIT_HALT,     /* the guest halted (or waits for SIPI) and nothing can wake it yet */
    EXIT_SHUTDOWN, /* triple fault: activity is X86_SHUTDOWN */
    EXIT_MEMORY,   /* a page of guest memory could not be made present: the guest cannot go on */
    EXIT_FAILED,   /* the engine cannot go on, because the host has failed it: see failure() */
    /* Only if a debugger wants it. */
    EXIT_STEP,       /* one instruction has been executed (of a repeated string instruction, one
                      * element), or one exception or interrupt delivered */
    EXIT_BREAKPOINT, /* RIP is at, or behind, the instruction that meets a breakpoint, as enum
                        engine_break says. If it is at it, the next run() executes the instruction
                      */
};

/* Why the monitor was entered. The last ones occur only with a translator; one instruction may then
 * have two causes, that it was left to the interpreter and what it does. */
enum exit_cause {
    CAUSE_PORT,
    CAUSE_MMIO,
    CAUSE_MSR,
    CAUSE_CPUID,
    CAUSE_HALT,
    CAUSE_INTERRUPT,
    CAUSE_EXCEPTION,
    CAUSE_PAGE_FAULT,
    CAUSE_CONTROL_REGISTER,
    CAUSE_TLB_FLUSH,
    CAUSE_SYSCALL,
    CAUSE_TLB_MISS,    /* the software TLB lacks a page: the page tables are walked */
    CAUSE_LOOKUP,      /* translated code does not know where to go on */
    CAUSE_INSTRUCTION, /* translated code leaves an instruction to the interpreter */
    CAUSE_BLOCK,       /* the interpreter executes code that is not, or not yet, translated */
    CAUSE_TRANSLATION,
    CAUSE_COUNT
};
extern const char *const exit_cause_name[CAUSE_COUNT];

/* Why decoded or translated code was forgotten, or where it is. */
enum forget_cause {
    FORGET_WRITTEN,     /* the guest wrote to it */
    FORGET_MAPPING,     /* a mapping changed: where to find the code of a page, or of all */
    FORGET_BLOCKS_FULL, /* all, because there is no room for another decoded block */
    FORGET_CODE_FULL,   /* ... for another translation */
    FORGET_THUNKS_FULL, /* ... for another thunk */
    FORGET_COUNT
};
extern const char *const forget_cause_name[FORGET_COUNT];

/* One of a vCPU's statistics. */
struct engine_counter {
    /* Says what it is; NAME is unique in its GROUP. Both outlive the engine. The groups:
     *   run          instructions (a translator's only if the machine is measured); the time inside
     *                run(), halted time excluded; guest, the part of that in the guest's code
     *   exits        by exit_cause_name. Each moment belongs to the innermost cause; the time of
     *                halt, which is outside of run(), is the VM's to add
     *   forgotten    by forget_cause_name
     *   work         what the engine did besides: decoding, translating, ...
     *   interpreted  instructions of CAUSE_INSTRUCTION, by name, with all that they took */
    const char *group, *name;
    uint64_t count;
    uint64_t ns; /* all that it took; of groups other than run only if the machine is measured */
};
typedef void engine_counter_fn(void *opaque, const struct engine_counter *counter);

/* A breakpoint of a debugger's, which the guest does not see. */
enum engine_break {
    BREAK_EXECUTE, /* before the instruction at the address is executed */
    BREAK_WRITE,   /* after an instruction that has written to one of SIZE bytes there */
    BREAK_ACCESS,  /* ... or read it */
};
struct engine_breakpoint {
    enum engine_break kind;
    uint64_t address; /* linear: as instructions use it, in whatever address space */
    uint64_t size;    /* bytes; of BREAK_EXECUTE ignored */
};
#define ENGINE_BREAKPOINTS 32
struct engine_debug {
    bool step; /* leave with EXIT_STEP after each instruction, or event that is delivered */
    unsigned count;
    struct engine_breakpoint breakpoint[ENGINE_BREAKPOINTS];
};

/* The first member of every engine's struct. */
struct engine {
    const struct engine_ops *ops;
};

struct engine_ops {
    const char *name;

    /* Takes out of MODEL what the engine cannot give a guest on this host. create fails with a
     * machine whose model has more. 0, or a negative errno: the engine cannot be used here. NULL:
     * it can give all that x86_model_default has. */
    int (*restrict_model)(struct x86_model *model, struct error *err);
    struct engine *(*create)(const struct machine *machine, struct error *err);
    void (*destroy)(struct engine *engine); /* after all its vCPUs */

    /* Plugs in the local APICs that the engine brings along: fills in *APICS; they ask BOARD. Once,
     * before the vCPUs are created; APICS are used once all vCPUs are there. Returns 0; or 1: it
     * brings none on this host; or a negative errno. NULL, or 1: the engine uses the board's local
     * APICs, which are in its vCPUs' ports. */
    int (*local_apics)(struct engine *engine, const struct lapic_board *board,
                       struct local_apics *apics, struct error *err);

    /* The vCPU starts in the state after RESET; PORT stays the caller's. It has no apic_ops if the
     * engine has local APICs of its own. */
    struct vcpu *(*vcpu_create)(struct engine *engine, struct cpu_port *port, struct error *err);
    void (*vcpu_destroy)(struct vcpu *vcpu);

    /* Executes guest code until an exit. Always on the same thread for one vCPU, without locks.
     * Polls port->requests at instruction boundaries. */
    enum engine_exit (*run)(struct vcpu *vcpu);

    /* After EXIT_FAILED: why. NULL, where there is no such exit. */
    const struct error *(*failure)(const struct vcpu *vcpu);

    /* Makes run() return EXIT_KICK soon, or at once when it is called next, and wakes the vCPU's
     * thread. Any thread. */
    void (*kick)(struct vcpu *vcpu);

    /* What a debugger wants from now on; copied. Only while the vCPU is not running. -EINVAL: too
     * many breakpoints, or a size of 0. */
    int (*debug)(struct vcpu *vcpu, const struct engine_debug *debug);
    /* After EXIT_BREAKPOINT: which one of engine_debug.breakpoint was met. */
    unsigned (*debug_met)(const struct vcpu *vcpu);

    /* Architectural state; only while the vCPU is not running. */
    void (*state_out)(struct vcpu *vcpu, struct x86_cpu *cpu);
    void (*state_in)(struct vcpu *vcpu, const struct x86_cpu *cpu);

    /* The guest's RIP as it was last written down, for a vCPU that does not come out of run(): the
     * present instruction or, in translated code, one on the way to it. Any thread, at any time. */
    uint64_t (*rip)(const struct vcpu *vcpu);

    /* Calls EACH for each of the vCPU's statistics; those that are 0 may be left out. Any thread,
     * also while the vCPU runs: each number is then as it was at some moment of the call. */
    void (*counters)(const struct vcpu *vcpu, engine_counter_fn *each, void *opaque);
    /* Describes the last instructions executed, newest last, for a guest that died: writes lines
     * "RIP  bytes  text" to BUF. Only while the vCPU is not running. */
    void (*history)(struct vcpu *vcpu, char *buf, unsigned size);
};

#endif

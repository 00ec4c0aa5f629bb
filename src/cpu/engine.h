/*
 * The contract between a VM and what executes its guest code. All engines run the same board and
 * the same guests; struct x86_cpu is the common form of their state.
 */
#ifndef DOPPEL_CPU_ENGINE_H
#define DOPPEL_CPU_ENGINE_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/cpu_port.h"
#include "mem/mem.h"
#include "x86/cpu.h"
#include "x86/cpuid.h"
#include "x86/insn.h"

struct engine;
struct tracer;
struct vcpu;

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
};

/* Causes by which the monitor was entered, for --stats. The last ones only a translator has; there
 * one instruction may have two causes, that it was left to the interpreter and what it does. */
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
    CAUSE_LOOKUP,      /* where translated code goes on is not known there */
    CAUSE_INSTRUCTION, /* translated code leaves one to the interpreter */
    CAUSE_BLOCK,       /* code that is not, or not yet, translated */
    CAUSE_TRANSLATION,
    CAUSE_COUNT
};
extern const char *const exit_cause_name[CAUSE_COUNT];

/* Why decoded or translated code, or what was known about where it is, was forgotten. */
enum forget_cause {
    FORGET_WRITTEN,     /* the guest wrote to it */
    FORGET_MAPPING,     /* a mapping of code changed: where to find it, for a page or all */
    FORGET_BLOCKS_FULL, /* all, because there is no room for another decoded block */
    FORGET_CODE_FULL,   /* ... for another translation */
    FORGET_THUNKS_FULL, /* ... for another thunk */
    FORGET_COUNT
};
extern const char *const forget_cause_name[FORGET_COUNT];

#define ENGINE_MNEMONICS (ZYDIS_MNEMONIC_MAX_VALUE + 1)
struct engine_count {
    uint64_t count, ns;
};

/* Every member consists of uint64_t, so that they can be summed. */
struct engine_stats {
    uint64_t instructions; /* a translator's only if they are counted */
    uint64_t exits[CAUSE_COUNT];
    uint64_t run_ns; /* time inside run(), halted time excluded */
    /* Only if the machine is measured: where that went. Each moment belongs to the innermost cause;
     * CAUSE_HALT, which is time outside of run(), is the VM's to add. */
    uint64_t exit_ns[CAUSE_COUNT], guest_ns;
    uint64_t forgets[FORGET_COUNT];
    uint64_t blocks_decoded, blocks_invalidated; /* decoded-instruction cache */
    /* Binary translation. */
    uint64_t translations, translated_instructions, links, evictions;
    uint64_t translate_ns;   /* of the processor, not of the clock on the wall; if measured */
    uint64_t retranslations; /* of what left too often: with more of it inlined */
    uint64_t tlb_fills;      /* misses met by translated code */
    uint64_t tlb_checks;     /* its searches, if measured; one may serve several accesses */
    /* Instructions of CAUSE_INSTRUCTION, by ZydisMnemonic, with all that they took; if measured. */
    struct engine_count interpreted[ENGINE_MNEMONICS];
};

struct engine_ops {
    const char *name;

    struct engine *(*create)(const struct machine *machine, struct error *err);
    void (*destroy)(struct engine *engine); /* after all its vCPUs */

    /* The vCPU starts in the state after RESET; PORT stays the caller's. */
    struct vcpu *(*vcpu_create)(struct engine *engine, struct cpu_port *port, struct error *err);
    void (*vcpu_destroy)(struct vcpu *vcpu);

    /* Executes guest code until an exit. Always on the same thread for one vCPU, without locks.
     * Polls port->requests at instruction boundaries. */
    enum engine_exit (*run)(struct vcpu *vcpu);

    /* Architectural state; only while the vCPU is not running. */
    void (*state_out)(struct vcpu *vcpu, struct x86_cpu *cpu);
    void (*state_in)(struct vcpu *vcpu, const struct x86_cpu *cpu);

    /* The map from GPN to machine page changed. Returns when no vCPU can still use what was cached
     * before. Any thread that is not inside run(). */
    void (*gpn_changed)(struct engine *engine, uint64_t gpn);

    /* The guest's RIP as it was last written down, for a vCPU that does not come out of run(): the
     * present instruction or, in translated code, one on the way to it. Any thread, at any time. */
    uint64_t (*rip)(const struct vcpu *vcpu);

    void (*stats)(const struct vcpu *vcpu, struct engine_stats *stats);
    /* Describes the last instructions executed, newest last, for a guest that died: writes lines
     * "RIP  bytes  text" to BUF. Only while the vCPU is not running. */
    void (*history)(struct vcpu *vcpu, char *buf, unsigned size);
};

#endif

/*
 * A vCPU under KVM.
 */
#ifndef DOPPEL_CPU_KVM_VCPU_H
#define DOPPEL_CPU_KVM_VCPU_H

#include "cpu/kvm/doorbells.h"
#include "cpu/kvm/kvm.h"
#include "cpu/kvm/slots.h"

#include <signal.h>
#include <sys/types.h>

#define KVM_SIGNAL SIGURG /* see vcpu.c */

/* What all vCPUs share: core.accelerator_shared. */
struct kvm_machine {
    const struct kvm_calls *calls;
    int system, vm;   /* descriptors, or -1 */
    size_t run_size;  /* of struct kvm_run with what follows it */
    uint64_t xcr0;    /* the parts of the XSAVE area that KVM takes */
    bool keeps_pages; /* guest memory stays present; see vcpu.c */
    _Atomic bool abilities_known;
    _Atomic unsigned abilities; /* enum kvm_ability, if known */
    struct kvm_slots slots;
    struct kvm_doorbells doorbells;
    struct kvm_lapics *lapics; /* lapic.h; NULL: the local APICs are the board's */
};

/* Where a vCPU's thread is, for those who want it to leave guest code. */
enum kvm_place {
    KVM_OUTSIDE,
    KVM_INSIDE, /* in KVM_RUN, or about to be */
    KVM_CALLED, /* and some thread sends it KVM_SIGNAL */
};

/* Registers that KVM keeps. */
#define KVM_MSRS_MAX 16
struct kvm_kept_msrs {
    unsigned count;
    uint32_t msr[KVM_MSRS_MAX];
};

struct kvm_cpu {
    struct vcpu c; /* first */
    int fd;        /* or -1 */
    struct kvm_run *run;
    struct kvm_kept_msrs msrs;
    struct kvm_lapic *lapic; /* or NULL */

    _Atomic pid_t thread; /* the one that runs it; 0: none has yet */
    _Atomic int place;    /* enum kvm_place */
    bool refresh;         /* pages may have come back that the mirror lacks */
    bool completing; /* the exit served last is complete only when KVM_RUN has been called again */

    /* What KVM holds, if KNOWN; and what it has besides. */
    struct x86_cpu known;
    bool is_known;
    bool injected; /* an event that was on its way is out of it, and must not stay in KVM */
    uint64_t tsc_offset;
    uint64_t apic_base;
    unsigned nmis; /* that KVM has been given, and has not been seen to deliver */

    /* The debugger's breakpoints that KVM has, and by debug register which ones they are. */
    struct kvm_guest_debug debugger;
    uint8_t breakpoint[4];
    uint64_t met; /* DR6 of the last KVM_DEBUG */

    struct error failure;
    struct counter entries, refused;
};

static inline struct kvm_cpu *kvm_cpu_of(const struct vcpu *c)
{
    return (struct kvm_cpu *)(uintptr_t)c; /* its first member */
}

static inline struct kvm_machine *kvm_machine_of(const struct vcpu *c)
{
    return c->core->accelerator_shared;
}

/* Calls the vCPU's descriptor. */
static inline int kvm_cpu_call(const struct kvm_cpu *k, unsigned long request, const void *argument)
{
    return kvm_call(kvm_machine_of(&k->c)->calls, k->fd, request, (uintptr_t)argument);
}

/* --- failure.c -------------------------------------------------------------------------------- */

/* Ends the run with EXIT_FAILED: WHAT failed with the errno -RET. */
_Noreturn void kvm_fail(struct kvm_cpu *k, int ret, const char *what);

/* --- abilities.c ------------------------------------------------------------------------------ */

/* What KVM is able to do (enum kvm_ability), which is found out the first time that it matters. Not
 * on a thread that is in KVM_RUN. */
unsigned kvm_abilities(struct kvm_machine *m);

/* --- guard.c ---------------------------------------------------------------------------------- */

/* Turn off what KVM does for guests that the model does not have: of the machine, and of a vCPU
 * before its CPUID is set. 0, or a negative errno. */
int kvm_guard_machine(const struct kvm_machine *m, struct error *err);
int kvm_guard_cpu(const struct kvm_cpu *k, struct error *err);

/* --- state.c ---------------------------------------------------------------------------------- */

/* Finds out which registers the vCPU has. */
int kvm_state_create(struct kvm_cpu *k, struct error *err);
/* Gives KVM the state in k->c.x, as far as KVM does not have it. Returns false if KVM refuses the
 * state: the interpreter can execute it. May raise. */
bool kvm_push(struct kvm_cpu *k);
/* Takes the state from KVM, and delivers an event that was on its way. Returns whether there was
 * one. May raise. */
bool kvm_pull(struct kvm_cpu *k);
/* Has the guest's TSC be as k->c.x says, in the middle of a run. May raise. */
void kvm_push_tsc(struct kvm_cpu *k);

/* --- debug.c ---------------------------------------------------------------------------------- */

/* Has KVM tell of the debugger's breakpoints, if there are any. Returns false if it cannot: the
 * interpreter must execute all code. May raise. */
bool kvm_push_debugger(struct kvm_cpu *k);
/* After KVM_DEBUG and kvm_pull: has the run loop act on what was met. */
void kvm_note_breakpoint(struct kvm_cpu *k);

/* --- run.c ------------------------------------------------------------------------------------ */

void kvm_run_guest(struct vcpu *c);

/* --- exit.c ----------------------------------------------------------------------------------- */

/* How the exit in k->run is dealt with. */
enum kvm_next {
    KVM_GO_ON,     /* it has been; the guest goes on */
    KVM_LEAVE,     /* nothing was to do; control goes to the run loop */
    KVM_INTERPRET, /* the interpreter executes the present instruction */
    KVM_HALT,      /* the guest has halted */
    KVM_SHUTDOWN,  /* triple fault */
    KVM_DEBUG,     /* a breakpoint, or an exception that may be the guest's own */
};
enum kvm_next kvm_serve_exit(struct kvm_cpu *k);

/* --- enter.c ---------------------------------------------------------------------------------- */

/* Calls KVM_RUN, unless someone wants something of the vCPU. Returns what it returns. */
int kvm_enter(struct kvm_cpu *k);
/* Has KVM complete what the last exit was for, which it does when it is called again, without
 * executing more. That may take another exit, for the next piece of an access. Returns what is to
 * be done then. May raise. */
enum kvm_next kvm_complete(struct kvm_cpu *k);
/* Calls KVM_RUN in a way that no guest code is executed: KVM does what it does before that, and may
 * have an interrupt on its way (kvm_pull). Exits are served. May raise. */
void kvm_run_briefly(struct kvm_cpu *k);

/* --- msr_filter.c ----------------------------------------------------------------------------- */

/* Tells KVM which registers the guest uses without an exit. 0, or a negative errno. */
int kvm_filter_msrs(const struct kvm_machine *m);

#endif

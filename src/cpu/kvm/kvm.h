/*
 * KVM as an accelerator in the core's run loop (cpu/core/executor.h): the host's processor executes
 * guest code, and the interpreter whatever KVM cannot.
 *
 *                 core/run.c          requests, interrupts, events, single steps
 *                   |      |
 *                   v      v
 *      kvm/run.c: KVM      interpreter: one instruction
 *
 * Outside of accelerator.run, struct x86_cpu holds the vCPU's state; inside, KVM has it (state.c).
 * Exits for devices are served inside. The local APICs are KVM's where that can have them without
 * the rest of the chips (lapic.h), and else the board's.
 */
#ifndef DOPPEL_CPU_KVM_KVM_H
#define DOPPEL_CPU_KVM_KVM_H

#include "cpu/core/executor.h"
#include "cpu/kvm/calls.h"

/* The accelerator's options. */
struct kvm_options {
    const struct kvm_calls *calls;
    enum {
        KVM_APICS_BEST,  /* KVM's, if it has them and delivers their interrupts in time */
        KVM_APICS_OWN,   /* KVM's, if it has them */
        KVM_APICS_BOARD, /* the board's */
    } apics;
};

extern const struct accelerator kvm_accelerator;
extern const struct kvm_options kvm_usual;

/* Takes out of MODEL what this host's KVM cannot give a guest. 0, or a negative errno: /dev/kvm
 * cannot be used, as ERR says. */
int kvm_restrict_model(struct x86_model *model, struct error *err);

/* After EXIT_FAILED: what has failed. */
const struct error *kvm_failure(const struct vcpu *c);

#endif

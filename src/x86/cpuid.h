/*
 * CPU models and CPUID (SDM volume 2, CPUID). A model is a set of features; what the host's
 * processor cannot execute is taken out, because instructions that are not sensitive run on it.
 */
#ifndef DOPPEL_X86_CPUID_H
#define DOPPEL_X86_CPUID_H

#include "x86/cpu.h"
#include "x86/insn.h"

/* The local APIC timer's input clock, before its divider: what leaf 15h gives as the core crystal
 * clock and leaf 40000010h as the bus frequency. One tick is one guest nanosecond. */
#define X86_APIC_TIMER_HZ 1000000000u

struct x86_model {
    bool feature[X86_FEAT_COUNT];
    uint64_t tsc_hz;        /* leaves 15h, 16h and 40000010h */
    unsigned cpus;          /* for topology leaves */
    unsigned physical_bits; /* MAXPHYADDR */
};

/* The default model, x86-64-v3 and what goes with it, less what this host does not have. */
void x86_model_default(struct x86_model *model, unsigned cpus, uint64_t tsc_hz);

struct x86_cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/* CPUID as vCPU number ID with this state sees it (OSXSAVE, APIC ID, XSAVE sizes depend on it). */
struct x86_cpuid_regs x86_cpuid(const struct x86_model *model, const struct x86_cpu *cpu,
                                unsigned id, uint32_t leaf, uint32_t subleaf);

#endif

/*
 * CPU models and CPUID (SDM volume 2, CPUID). A model is a set of features; what the host's
 * processor cannot execute is taken out, because instructions that are not sensitive run on it.
 */
#ifndef DOPPEL_X86_CPUID_H
#define DOPPEL_X86_CPUID_H

#include "base/state.h"
#include "x86/cpu.h"
#include "x86/insn.h"

/* The local APIC timer's input clock, before its divider: what leaf 15h gives as the core crystal
 * clock and leaf 40000010h as the bus frequency. One tick is one guest nanosecond. */
#define X86_APIC_TIMER_HZ 1000000000u

/* KVM's paravirtual features (leaf 40000001h): port 80h needs no delays; the clock MSRs 4B564D00h
 * and 4B564D01h work, and their clock never jumps between vCPUs. */
#define X86_KVM_NOP_IO_DELAY (1u << 1)
#define X86_KVM_CLOCKSOURCE  (1u << 3)
#define X86_KVM_CLOCK_STABLE (1u << 24)
#define X86_KVM_FEATURES     (X86_KVM_NOP_IO_DELAY | X86_KVM_CLOCKSOURCE | X86_KVM_CLOCK_STABLE)

/* IA32_ARCH_CAPABILITIES (SDM volume 4, MSR 10Ah). A bit is set where the mitigation that the guest
 * then leaves out would change nothing; docs/guest-cpu.md says what a guest can rely on. */
#define X86_ARCH_CAPABILITIES                                                                      \
    (1ull << 0 /* RDCL_NO */ | 1ull << 1 /* IBRS_ALL */ | 1ull << 3 /* SKIP_L1DFL_VMENTRY */ |     \
     1ull << 4 /* SSB_NO */ | 1ull << 5 /* MDS_NO */ | 1ull << 6 /* IF_PSCHANGE_MC_NO */ |         \
     1ull << 8 /* TAA_NO */ | 1ull << 13 /* SBDR_SSDP_NO */ | 1ull << 14 /* FBSDP_NO */ |          \
     1ull << 15 /* PSDP_NO */ | 1ull << 20 /* BHI_NO */ | 1ull << 24 /* PBRSB_NO */ |              \
     1ull << 26 /* GDS_NO */ | 1ull << 27 /* RFDS_NO */ | 1ull << 62 /* ITS_NO */)

struct x86_model {
    bool feature[X86_FEAT_COUNT];
    uint64_t tsc_hz;            /* leaves 15h, 16h and 40000010h */
    unsigned cpus;              /* for topology leaves */
    unsigned physical_bits;     /* MAXPHYADDR */
    uint64_t arch_capabilities; /* IA32_ARCH_CAPABILITIES */
};

/* The default model, x86-64-v3 and what goes with it, less what this host does not have. */
void x86_model_default(struct x86_model *model, unsigned cpus, uint64_t tsc_hz);

struct x86_cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/* Turns off the features of MODEL whose bits of CPUID are not in what SUPPORTED gives for their
 * leaf. What every model has stays. */
typedef struct x86_cpuid_regs x86_cpuid_fn(const void *opaque, uint32_t leaf, uint32_t subleaf);
void x86_model_restrict(struct x86_model *model, x86_cpuid_fn *supported, const void *opaque);
/* Whether WHOLE has all that PART announces. */
bool x86_model_within(const struct x86_model *part, const struct x86_model *whole);

/* Visits MODEL as section "model" of a saved machine. When loading, MODEL is at first what this
 * host can offer, and becomes what was saved. Fails if this host lacks a feature of the saved
 * model, or this version of doppel does not know one. */
void x86_model_state(struct x86_model *model, struct state *s);

/* The bits of CR4 and of XCR0 that processors of this model have. */
uint64_t x86_cr4_bits(const struct x86_model *model);
uint64_t x86_xcr0_bits(const struct x86_model *model);

/* CPUID as vCPU number ID with this state sees it (OSXSAVE, APIC ID, XSAVE sizes depend on it). */
struct x86_cpuid_regs x86_cpuid(const struct x86_model *model, const struct x86_cpu *cpu,
                                unsigned id, uint32_t leaf, uint32_t subleaf);

#endif

/*
 * Model-specific registers (SDM volume 4): their numbers, and which of them a model has.
 */
#ifndef DOPPEL_X86_MSR_H
#define DOPPEL_X86_MSR_H

#include "x86/cpuid.h"

enum x86_msr {
    X86_MSR_TSC = 0x10,
    X86_MSR_PLATFORM_ID = 0x17,
    X86_MSR_APIC_BASE = 0x1B,
    X86_MSR_TSC_ADJUST = 0x3B,
    X86_MSR_SPEC_CTRL = 0x48,
    X86_MSR_PRED_CMD = 0x49,
    X86_MSR_BIOS_SIGN_ID = 0x8B,
    X86_MSR_MTRRCAP = 0xFE,
    X86_MSR_ARCH_CAPABILITIES = 0x10A,
    X86_MSR_SYSENTER_CS = 0x174,
    X86_MSR_SYSENTER_ESP = 0x175,
    X86_MSR_SYSENTER_EIP = 0x176,
    X86_MSR_MCG_CAP = 0x179,
    X86_MSR_MCG_STATUS = 0x17A,
    X86_MSR_MISC_ENABLE = 0x1A0,
    X86_MSR_MTRR_PHYS = 0x200, /* base and mask in turn */
    X86_MSR_MTRR_PHYS_END = 0x20F,
    X86_MSR_MTRR_FIX64K = 0x250,
    X86_MSR_MTRR_FIX16K = 0x258, /* two */
    X86_MSR_MTRR_FIX4K = 0x268,  /* eight */
    X86_MSR_PAT = 0x277,
    X86_MSR_MTRR_DEF_TYPE = 0x2FF,
    X86_MSR_TSC_DEADLINE = 0x6E0,
    X86_MSR_X2APIC = 0x800,
    X86_MSR_X2APIC_END = 0x8FF,
    X86_MSR_KVM_WALL_CLOCK = 0x4B564D00,
    X86_MSR_KVM_SYSTEM_TIME = 0x4B564D01,
    X86_MSR_EFER = 0xC0000080,
    X86_MSR_STAR = 0xC0000081,
    X86_MSR_LSTAR = 0xC0000082,
    X86_MSR_CSTAR = 0xC0000083,
    X86_MSR_SFMASK = 0xC0000084,
    X86_MSR_FS_BASE = 0xC0000100,
    X86_MSR_GS_BASE = 0xC0000101,
    X86_MSR_KERNEL_GS_BASE = 0xC0000102,
    X86_MSR_TSC_AUX = 0xC0000103,
};

enum x86_msr_access { X86_MSR_READ = 1, X86_MSR_WRITE = 2 };

/* What a model has, worked out once. */
#define X86_MSR_ROWS 40
struct x86_msrs {
    bool announced[X86_MSR_ROWS];                      /* by row of the table in msr.c */
    uint64_t spec_ctrl_bits, pred_cmd_bits, efer_bits; /* that a guest may set */
};
void x86_msrs_init(struct x86_msrs *msrs, const struct x86_model *model);

/* Whether the model has MSR and it can be read or written (one of the two). Where not, the
 * instruction raises #GP(0). The registers of x2APIC mode exist only in that mode. */
bool x86_msr_exists(const struct x86_msrs *msrs, uint32_t msr, enum x86_msr_access access);

/* The place in CPU of a register that holds what was last written and nothing more; NULL for all
 * others. */
uint64_t *x86_msr_register(struct x86_cpu *cpu, uint32_t msr);
/* Whether such a register can hold VALUE. Where not, WRMSR raises #GP(0). */
bool x86_msr_acceptable(const struct x86_msrs *msrs, unsigned physical_bits, uint32_t msr,
                        uint64_t value);

#endif

/*
 * Which model-specific registers a model has: a register exists if CPUID announces it (SDM volume
 * 4, table 2-2, column "comment"; for KVM's, Documentation/virt/kvm/x86/cpuid.rst).
 */
#include "x86/msr.h"

#include "base/util.h"

enum { ALWAYS, EAX, EBX, ECX, EDX };

/* A bit of CPUID; ALWAYS stands for what every processor of family 6 has. */
struct announcement {
    uint32_t leaf;
    uint8_t subleaf, reg, bit;
};

#define R  X86_MSR_READ
#define W  X86_MSR_WRITE
#define RW (X86_MSR_READ | X86_MSR_WRITE)

#define EVERY_MODEL     {0, 0, ALWAYS, 0}
#define BASIC(reg, bit) {0x1, 0, reg, bit}
#define SEVEN(reg, bit) {0x7, 0, reg, bit}
#define LONG_MODE       {0x80000001, 0, EDX, 29}
#define KVM_CLOCK       {0x40000001, 0, EAX, 3}
#define IBRS_AND_IBPB   SEVEN(EDX, 26)
#define STIBP           SEVEN(EDX, 27)
#define SSBD            SEVEN(EDX, 31)
#define BHI_CTRL        {0x7, 2, EDX, 4}

/* A register that several bits announce has a row for each. What is used most comes first. */
static const struct row {
    uint32_t first, last;
    uint8_t access;
    struct announcement by;
} rows[] = {
    {X86_MSR_X2APIC, X86_MSR_X2APIC_END, RW, BASIC(ECX, 21)},
    {X86_MSR_TSC_DEADLINE, X86_MSR_TSC_DEADLINE, RW, BASIC(ECX, 24)},
    {X86_MSR_SPEC_CTRL, X86_MSR_SPEC_CTRL, RW, IBRS_AND_IBPB},
    {X86_MSR_SPEC_CTRL, X86_MSR_SPEC_CTRL, RW, STIBP},
    {X86_MSR_SPEC_CTRL, X86_MSR_SPEC_CTRL, RW, SSBD},
    {X86_MSR_PRED_CMD, X86_MSR_PRED_CMD, W, IBRS_AND_IBPB},
    {X86_MSR_FS_BASE, X86_MSR_KERNEL_GS_BASE, RW, LONG_MODE},
    {X86_MSR_EFER, X86_MSR_SFMASK, RW, LONG_MODE},
    {X86_MSR_TSC_AUX, X86_MSR_TSC_AUX, RW, {0x80000001, 0, EDX, 27}},
    {X86_MSR_TSC_AUX, X86_MSR_TSC_AUX, RW, SEVEN(ECX, 22)},
    {X86_MSR_SYSENTER_CS, X86_MSR_SYSENTER_EIP, RW, BASIC(EDX, 11)},
    {X86_MSR_TSC, X86_MSR_TSC, RW, BASIC(EDX, 4)},
    {X86_MSR_TSC_ADJUST, X86_MSR_TSC_ADJUST, RW, SEVEN(EBX, 1)},
    {X86_MSR_APIC_BASE, X86_MSR_APIC_BASE, RW, BASIC(EDX, 9)},
    {X86_MSR_PAT, X86_MSR_PAT, RW, BASIC(EDX, 16)},
    {X86_MSR_MTRRCAP, X86_MSR_MTRRCAP, R, BASIC(EDX, 12)},
    {X86_MSR_MTRR_PHYS, X86_MSR_MTRR_PHYS_END, RW, BASIC(EDX, 12)},
    {X86_MSR_MTRR_FIX64K, X86_MSR_MTRR_FIX64K, RW, BASIC(EDX, 12)},
    {X86_MSR_MTRR_FIX16K, X86_MSR_MTRR_FIX16K + 1, RW, BASIC(EDX, 12)},
    {X86_MSR_MTRR_FIX4K, X86_MSR_MTRR_FIX4K + 7, RW, BASIC(EDX, 12)},
    {X86_MSR_MTRR_DEF_TYPE, X86_MSR_MTRR_DEF_TYPE, RW, BASIC(EDX, 12)},
    {X86_MSR_MCG_CAP, X86_MSR_MCG_CAP, R, BASIC(EDX, 14)},
    {X86_MSR_MCG_STATUS, X86_MSR_MCG_STATUS, RW, BASIC(EDX, 14)},
    {X86_MSR_ARCH_CAPABILITIES, X86_MSR_ARCH_CAPABILITIES, R, SEVEN(EDX, 29)},
    {X86_MSR_PLATFORM_ID, X86_MSR_PLATFORM_ID, R, EVERY_MODEL},
    {X86_MSR_BIOS_SIGN_ID, X86_MSR_BIOS_SIGN_ID, RW, EVERY_MODEL},
    {X86_MSR_MISC_ENABLE, X86_MSR_MISC_ENABLE, RW, EVERY_MODEL},
    {X86_MSR_KVM_WALL_CLOCK, X86_MSR_KVM_SYSTEM_TIME, RW, KVM_CLOCK},
};
_Static_assert(ARRAY_SIZE(rows) <= X86_MSR_ROWS, "a flag for each row");

static bool announced(const struct x86_model *model, struct announcement by)
{
    static const struct x86_cpu any_cpu; /* none of the bits above depends on the state */
    struct x86_cpuid_regs r = x86_cpuid(model, &any_cpu, 0, by.leaf, by.subleaf);

    switch (by.reg) {
    case EAX: return r.eax >> by.bit & 1;
    case EBX: return r.ebx >> by.bit & 1;
    case ECX: return r.ecx >> by.bit & 1;
    case EDX: return r.edx >> by.bit & 1;
    default: return true;
    }
}

void x86_msrs_init(struct x86_msrs *msrs, const struct x86_model *model)
{
    const struct {
        uint64_t *bits, mask;
        struct announcement by;
    } fields[] = {
        {&msrs->spec_ctrl_bits, 1u << 0, IBRS_AND_IBPB},
        {&msrs->spec_ctrl_bits, 1u << 1, STIBP},
        {&msrs->spec_ctrl_bits, 1u << 2, SSBD},
        {&msrs->spec_ctrl_bits, 1u << 10, BHI_CTRL},
        {&msrs->pred_cmd_bits, 1u << 0, IBRS_AND_IBPB},
        {&msrs->efer_bits, X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA, LONG_MODE},
        {&msrs->efer_bits, X86_EFER_NXE, {0x80000001, 0, EDX, 20}},
    };

    *msrs = (struct x86_msrs){0};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        msrs->announced[i] = announced(model, rows[i].by);
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
        if (announced(model, fields[i].by))
            *fields[i].bits |= fields[i].mask;
}

bool x86_msr_exists(const struct x86_msrs *msrs, uint32_t msr, enum x86_msr_access access)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        if (msr >= rows[i].first && msr <= rows[i].last && (rows[i].access & access) &&
            msrs->announced[i])
            return true;
    return false;
}

/* --- Registers that hold what was last written --- */

/* IA32_MISC_ENABLE: what the manual defines for these models. The bits are kept; none has an effect
 * on this processor. */
#define MISC_ENABLE_BITS 0x400C51889ULL
#define MCG_STATUS_BITS  7ULL

/* The fixed-range MTRR's slot, or -1. */
static int mtrr_fixed_index(uint32_t msr)
{
    if (msr == X86_MSR_MTRR_FIX64K)
        return 0;
    if (msr - X86_MSR_MTRR_FIX16K < 2)
        return (int)(msr - X86_MSR_MTRR_FIX16K) + 1;
    if (msr - X86_MSR_MTRR_FIX4K < 8)
        return (int)(msr - X86_MSR_MTRR_FIX4K) + 3;
    return -1;
}

static bool is_mtrr_variable(uint32_t msr)
{
    return msr >= X86_MSR_MTRR_PHYS && msr <= X86_MSR_MTRR_PHYS_END;
}

static uint64_t *mtrr_variable(struct x86_cpu *cpu, uint32_t msr)
{
    unsigned i = (msr - X86_MSR_MTRR_PHYS) / 2;

    return msr & 1 ? &cpu->mtrr_mask[i] : &cpu->mtrr_base[i];
}

uint64_t *x86_msr_register(struct x86_cpu *cpu, uint32_t msr)
{
    int fixed = mtrr_fixed_index(msr);

    if (fixed >= 0)
        return &cpu->mtrr_fixed[fixed];
    if (is_mtrr_variable(msr))
        return mtrr_variable(cpu, msr);
    switch (msr) {
    case X86_MSR_SPEC_CTRL: return &cpu->spec_ctrl;
    case X86_MSR_SYSENTER_CS: return &cpu->sysenter_cs;
    case X86_MSR_SYSENTER_ESP: return &cpu->sysenter_esp;
    case X86_MSR_SYSENTER_EIP: return &cpu->sysenter_eip;
    case X86_MSR_MCG_STATUS: return &cpu->mcg_status;
    case X86_MSR_MISC_ENABLE: return &cpu->misc_enable;
    case X86_MSR_PAT: return &cpu->pat;
    case X86_MSR_MTRR_DEF_TYPE: return &cpu->mtrr_def_type;
    case X86_MSR_STAR: return &cpu->star;
    case X86_MSR_LSTAR: return &cpu->lstar;
    case X86_MSR_CSTAR: return &cpu->cstar;
    case X86_MSR_SFMASK: return &cpu->sfmask;
    case X86_MSR_FS_BASE: return &cpu->seg[X86_FS].base;
    case X86_MSR_GS_BASE: return &cpu->seg[X86_GS].base;
    case X86_MSR_KERNEL_GS_BASE: return &cpu->kernel_gs_base;
    case X86_MSR_TSC_AUX: return &cpu->tsc_aux;
    case X86_MSR_TSC_ADJUST: return &cpu->tsc_adjust;
    default: return NULL;
    }
}

/* The memory types that PAT and the MTRRs may hold: UC, WC, WT, WP, WB and, in PAT, UC-. */
static bool valid_types(uint64_t value, bool pat)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = value >> (i * 8) & 0xFF;

        if (type > 7 || type == 2 || type == 3 || (type == 7 && !pat))
            return false;
    }
    return true;
}

bool x86_msr_acceptable(const struct x86_msrs *msrs, unsigned physical_bits, uint32_t msr,
                        uint64_t value)
{
    uint64_t beyond = ~((1ULL << physical_bits) - 1);

    if (mtrr_fixed_index(msr) >= 0)
        return valid_types(value, false);
    if (is_mtrr_variable(msr))
        return !(value & beyond) && (msr & 1 ? !(value & 0x7FF) : valid_types(value & 0xFF, false));
    switch (msr) {
    case X86_MSR_PAT: return valid_types(value, true);
    case X86_MSR_MTRR_DEF_TYPE: return !(value & ~0xCFFULL) && valid_types(value & 0xFF, false);
    case X86_MSR_SPEC_CTRL: return !(value & ~msrs->spec_ctrl_bits);
    case X86_MSR_MISC_ENABLE: return !(value & ~MISC_ENABLE_BITS);
    case X86_MSR_MCG_STATUS: return !(value & ~MCG_STATUS_BITS);
    case X86_MSR_TSC_AUX: return !(value >> 32);
    case X86_MSR_SYSENTER_ESP:
    case X86_MSR_SYSENTER_EIP:
    case X86_MSR_LSTAR:
    case X86_MSR_CSTAR:
    case X86_MSR_FS_BASE:
    case X86_MSR_GS_BASE:
    case X86_MSR_KERNEL_GS_BASE: return x86_is_canonical(value);
    default: return true;
    }
}

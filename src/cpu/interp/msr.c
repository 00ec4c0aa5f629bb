/*
 * Model-specific registers (SDM volume 4) and KVM's paravirtual clock.
 */
#include "cpu/interp/msr.h"

#include <string.h>

enum {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1B,
    MSR_FEATURE_CONTROL = 0x3A,
    MSR_TSC_ADJUST = 0x3B,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_BIOS_SIGN_ID = 0x8B,
    MSR_MTRRCAP = 0xFE,
    MSR_ARCH_CAPABILITIES = 0x10A,
    MSR_FLUSH_CMD = 0x10B,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17A,
    MSR_MISC_ENABLE = 0x1A0,
    MSR_MTRR_PHYS = 0x200, /* base and mask in turn */
    MSR_MTRR_PHYS_END = 0x20F,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2FF,
    MSR_TSC_DEADLINE = 0x6E0,
    MSR_X2APIC = 0x800,
    MSR_X2APIC_END = 0x8FF,
    MSR_KVM_WALL_CLOCK = 0x4B564D00,
    MSR_KVM_SYSTEM_TIME = 0x4B564D01,
    MSR_EFER = 0xC0000080,
    MSR_STAR = 0xC0000081,
    MSR_LSTAR = 0xC0000082,
    MSR_CSTAR = 0xC0000083,
    MSR_SFMASK = 0xC0000084,
    MSR_FS_BASE = 0xC0000100,
    MSR_GS_BASE = 0xC0000101,
    MSR_KERNEL_GS_BASE = 0xC0000102,
    MSR_TSC_AUX = 0xC0000103,
};

#define MTRR_VARIABLE  8
#define SPEC_CTRL_BITS (7u | 1u << 10) /* IBRS, STIBP, SSBD, BHI_DIS_S */

static bool is_apic_msr(uint32_t msr)
{
    return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE ||
           (msr >= MSR_X2APIC && msr <= MSR_X2APIC_END);
}

/* The fixed-range MTRR's slot, or -1. */
static int mtrr_fixed_index(uint32_t msr)
{
    static const uint16_t fixed[11] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26A,
                                       0x26B, 0x26C, 0x26D, 0x26E, 0x26F};

    for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++)
        if (fixed[i] == msr)
            return (int)i;
    return -1;
}

static bool is_mtrr_variable(uint32_t msr)
{
    return msr >= MSR_MTRR_PHYS && msr <= MSR_MTRR_PHYS_END;
}

static uint64_t *mtrr_variable(struct vcpu *c, uint32_t msr)
{
    unsigned i = (msr - MSR_MTRR_PHYS) / 2;

    return msr & 1 ? &c->x.mtrr_mask[i] : &c->x.mtrr_base[i];
}

/* Registers that hold what was last written and nothing more; NULL if MSR is not one. */
static uint64_t *plain_register(struct vcpu *c, uint32_t msr)
{
    int fixed = mtrr_fixed_index(msr);

    if (fixed >= 0)
        return &c->x.mtrr_fixed[fixed];
    if (is_mtrr_variable(msr))
        return mtrr_variable(c, msr);
    switch (msr) {
    case MSR_SPEC_CTRL: return &c->x.spec_ctrl;
    case MSR_SYSENTER_CS: return &c->x.sysenter_cs;
    case MSR_SYSENTER_ESP: return &c->x.sysenter_esp;
    case MSR_SYSENTER_EIP: return &c->x.sysenter_eip;
    case MSR_MCG_STATUS: return &c->x.mcg_status;
    case MSR_MISC_ENABLE: return &c->x.misc_enable;
    case MSR_PAT: return &c->x.pat;
    case MSR_MTRR_DEF_TYPE: return &c->x.mtrr_def_type;
    case MSR_STAR: return &c->x.star;
    case MSR_LSTAR: return &c->x.lstar;
    case MSR_CSTAR: return &c->x.cstar;
    case MSR_SFMASK: return &c->x.sfmask;
    case MSR_FS_BASE: return &c->x.seg[X86_FS].base;
    case MSR_GS_BASE: return &c->x.seg[X86_GS].base;
    case MSR_KERNEL_GS_BASE: return &c->x.kernel_gs_base;
    case MSR_TSC_AUX: return &c->x.tsc_aux;
    case MSR_TSC_ADJUST: return &c->x.tsc_adjust;
    default: return NULL;
    }
}

int msr_read(struct vcpu *c, uint32_t msr, uint64_t *value)
{
    const uint64_t *plain = plain_register(c, msr);

    if (plain) {
        *value = *plain;
        return 0;
    }
    if (is_apic_msr(msr)) {
        int status = c->port->apic_ops->msr_read(c->port->apic, msr, value);

        if (msr == MSR_TSC_DEADLINE && *value) /* the APIC does not know of TSC_ADJUST */
            *value += c->x.tsc_adjust;
        return status;
    }
    *value = 0;
    switch (msr) {
    case MSR_TSC: *value = guest_tsc(c); return 0;
    case MSR_EFER: *value = c->x.efer; return 0;
    case MSR_FEATURE_CONTROL: *value = 1; return 0; /* locked, nothing enabled */
    case MSR_MTRRCAP: *value = MTRR_VARIABLE | 1u << 8 | 1u << 10; return 0; /* fixed, WC */
    case MSR_ARCH_CAPABILITIES: *value = X86_ARCH_CAPABILITIES; return 0;
    case MSR_KVM_WALL_CLOCK: *value = c->x.kvm_wall_clock; return 0;
    case MSR_KVM_SYSTEM_TIME: *value = c->x.kvm_system_time; return 0;
    case MSR_PLATFORM_ID:
    case MSR_BIOS_SIGN_ID:
    case MSR_MCG_CAP: return 0;
    default: return -1;
    }
}

static int write_efer(struct vcpu *c, uint64_t value)
{
    uint64_t old = c->x.efer;

    if (value & ~(uint64_t)(X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE))
        return -1;
    if (((value ^ old) & X86_EFER_LME) && (c->x.cr0 & X86_CR0_PG))
        return -1;
    c->x.efer = (value & ~(uint64_t)X86_EFER_LMA) | (old & X86_EFER_LMA);
    if ((value ^ old) & X86_EFER_NXE)
        flush_translations(c);
    return 0;
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

static bool acceptable(const struct vcpu *c, uint32_t msr, uint64_t value)
{
    uint64_t beyond = ~((1ULL << c->x.physical_bits) - 1);

    if (mtrr_fixed_index(msr) >= 0)
        return valid_types(value, false);
    if (is_mtrr_variable(msr))
        return !(value & beyond) && (msr & 1 ? !(value & 0x7FF) : valid_types(value & 0xFF, false));
    switch (msr) {
    case MSR_PAT: return valid_types(value, true);
    case MSR_MTRR_DEF_TYPE: return !(value & ~0xCFFULL) && valid_types(value & 0xFF, false);
    case MSR_SPEC_CTRL: return !(value & ~(uint64_t)SPEC_CTRL_BITS);
    case MSR_TSC_AUX: return !(value >> 32);
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_KERNEL_GS_BASE: return is_canonical(value);
    default: return true;
    }
}

/* --- KVM's clock (Documentation/virt/kvm/x86/msr.rst) ----------------------------------------- */

struct pvclock_wall_clock {
    uint32_t version, sec, nsec;
};

struct pvclock_time_info {
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad2[2];
};
#define PVCLOCK_TSC_STABLE 1u

/* ns = ((ticks << shift) * mul) >> 32, with mul as large as fits. */
static void tsc_scale(uint64_t hz, uint32_t *mul, int8_t *shift)
{
    uint64_t second = 1000000000;

    *shift = 0;
    while (hz > second * 2) {
        hz >>= 1;
        --*shift;
    }
    while (hz <= second) {
        hz <<= 1;
        ++*shift;
    }
    *mul = (uint32_t)((second << 32) / hz);
}

/* Both clocks are constant relations to the TSC, so they are written when the guest asks and when
 * it moves its TSC; an even version says that the structure is whole. */
static void publish_system_time(struct vcpu *c)
{
    const struct interp *e = c->engine;
    struct pvclock_time_info info = {.version = 2, .flags = PVCLOCK_TSC_STABLE};

    if (!(c->x.kvm_system_time & 1))
        return;
    /* One pair of readings for all vCPUs, so that their clocks agree. */
    info.tsc_timestamp = e->epoch_tsc + c->x.tsc_adjust;
    info.system_time = e->epoch_ns;
    tsc_scale(clock_tsc_hz(e->machine.clock), &info.tsc_to_system_mul, &info.tsc_shift);
    mem_write(c->mem, c->x.kvm_system_time & ~1ULL, &info, sizeof(info));
}

static void publish_wall_clock(struct vcpu *c)
{
    uint64_t epoch = clock_epoch_ns(c->engine->machine.clock);
    struct pvclock_wall_clock wall = {
        .version = 2,
        .sec = (uint32_t)(epoch / 1000000000),
        .nsec = (uint32_t)(epoch % 1000000000),
    };

    mem_write(c->mem, c->x.kvm_wall_clock, &wall, sizeof(wall));
}

int msr_write(struct vcpu *c, uint32_t msr, uint64_t value)
{
    uint64_t *plain = plain_register(c, msr);

    if (plain) {
        if (!acceptable(c, msr, value))
            return -1;
        *plain = value;
        if (msr == MSR_FS_BASE || msr == MSR_GS_BASE)
            update_mode(c);
        if (msr == MSR_TSC_ADJUST)
            publish_system_time(c);
        return 0;
    }
    if (is_apic_msr(msr)) {
        int status;

        if (msr == MSR_TSC_DEADLINE && value)
            value -= c->x.tsc_adjust;
        status = c->port->apic_ops->msr_write(c->port->apic, msr, value);
        c->check_interrupt = true;
        if (msr == MSR_APIC_BASE && status == 0) {
            c->apic_page = c->port->apic_ops->base(c->port->apic);
            flush_translations(c);
        }
        return status;
    }
    switch (msr) {
    case MSR_TSC:
        c->x.tsc_adjust += value - guest_tsc(c);
        publish_system_time(c);
        return 0;
    case MSR_EFER: return write_efer(c, value);
    case MSR_PRED_CMD: return value & ~1ULL ? -1 : 0;
    case MSR_FLUSH_CMD: return value & ~1ULL ? -1 : 0;
    case MSR_BIOS_SIGN_ID: return 0; /* written before CPUID, to have the revision read */
    case MSR_KVM_SYSTEM_TIME:
        c->x.kvm_system_time = value;
        publish_system_time(c);
        return 0;
    case MSR_KVM_WALL_CLOCK:
        c->x.kvm_wall_clock = value;
        publish_wall_clock(c);
        return 0;
    default: return -1;
    }
}

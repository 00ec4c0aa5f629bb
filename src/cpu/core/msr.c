/*
 * Model-specific registers (SDM volume 4) and KVM's paravirtual clock: what they do. Which of them
 * exist is a matter of the model (x86/msr.c).
 */
#include "cpu/core/msr.h"

#include "base/time.h"
#include "cpu/core/access.h"

#include <string.h>
#include <x86intrin.h>

#define MTRR_VARIABLE 8

uint64_t guest_tsc(const struct vcpu *c)
{
    const struct clock *clock = c->core->machine.clock;

    if (unlikely(!clock_tsc_is_hosts(clock)))
        return clock_tsc(clock) + c->x.tsc_adjust;
    return __rdtsc() + clock_tsc_offset(clock) + c->x.tsc_adjust;
}

static bool is_apic_msr(uint32_t msr)
{
    return msr == X86_MSR_APIC_BASE || msr == X86_MSR_TSC_DEADLINE ||
           (msr >= X86_MSR_X2APIC && msr <= X86_MSR_X2APIC_END);
}

int msr_read(struct vcpu *c, uint32_t msr, uint64_t *value)
{
    const uint64_t *plain;

    if (!x86_msr_exists(&c->core->msrs, msr, X86_MSR_READ))
        return -1;
    plain = x86_msr_register(&c->x, msr);
    if (plain) {
        *value = *plain;
        return 0;
    }
    if (is_apic_msr(msr)) {
        int status = c->port->apic_ops->msr_read(c->port->apic, msr, value);

        if (msr == X86_MSR_TSC_DEADLINE && *value) /* the APIC does not know of TSC_ADJUST */
            *value += c->x.tsc_adjust;
        return status;
    }
    *value = 0;
    switch (msr) {
    case X86_MSR_TSC: *value = guest_tsc(c); return 0;
    case X86_MSR_EFER: *value = c->x.efer; return 0;
    case X86_MSR_MTRRCAP: *value = MTRR_VARIABLE | 1u << 8 | 1u << 10; return 0; /* fixed, WC */
    case X86_MSR_ARCH_CAPABILITIES: *value = c->core->machine.model.arch_capabilities; return 0;
    case X86_MSR_KVM_WALL_CLOCK: *value = c->x.kvm_wall_clock; return 0;
    case X86_MSR_KVM_SYSTEM_TIME: *value = c->x.kvm_system_time; return 0;
    case X86_MSR_PLATFORM_ID:
    case X86_MSR_BIOS_SIGN_ID:
    case X86_MSR_MCG_CAP: return 0;
    default: return -1;
    }
}

static int write_efer(struct vcpu *c, uint64_t value)
{
    uint64_t old = c->x.efer;

    if (value & ~c->core->msrs.efer_bits)
        return -1;
    if (((value ^ old) & X86_EFER_LME) && (c->x.cr0 & X86_CR0_PG))
        return -1;
    c->x.efer = (value & ~(uint64_t)X86_EFER_LMA) | (old & X86_EFER_LMA);
    if ((value ^ old) & X86_EFER_NXE)
        flush_translations(c);
    return 0;
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
    *shift = 0;
    while (hz > NS_PER_S * 2) {
        hz >>= 1;
        --*shift;
    }
    while (hz <= NS_PER_S) {
        hz <<= 1;
        ++*shift;
    }
    *mul = (uint32_t)((NS_PER_S << 32) / hz);
}

/* Writes KVM's structure of system time. Its clocks are constant functions of the TSC, so the
 * structure is written only when the guest asks for it and when it changes its TSC. An even version
 * says that the structure is complete. */
static void publish_system_time(struct vcpu *c)
{
    struct pvclock_time_info info = {.version = 2, .flags = PVCLOCK_TSC_STABLE};

    if (!(c->x.kvm_system_time & 1))
        return;
    /* Guest time and TSC both began at 0. All vCPUs get the same relation, whenever they ask, and
     * so does a machine that goes on elsewhere: the frequency is the one that its CPUID announces.
     */
    info.tsc_timestamp = c->x.tsc_adjust;
    info.system_time = 0;
    tsc_scale(c->core->machine.model.tsc_hz, &info.tsc_to_system_mul, &info.tsc_shift);
    store_physical(c, c->x.kvm_system_time & ~1ULL, &info, sizeof(info));
}

static void publish_wall_clock(struct vcpu *c)
{
    uint64_t epoch = clock_epoch_ns(c->core->machine.clock);
    struct pvclock_wall_clock wall = {
        .version = 2,
        .sec = (uint32_t)(epoch / NS_PER_S),
        .nsec = (uint32_t)(epoch % NS_PER_S),
    };

    store_physical(c, c->x.kvm_wall_clock, &wall, sizeof(wall));
}

int msr_write(struct vcpu *c, uint32_t msr, uint64_t value)
{
    uint64_t *plain;

    if (!x86_msr_exists(&c->core->msrs, msr, X86_MSR_WRITE))
        return -1;
    plain = x86_msr_register(&c->x, msr);
    if (plain) {
        if (!x86_msr_acceptable(&c->core->msrs, c->x.physical_bits, msr, value))
            return -1;
        *plain = value;
        if (msr == X86_MSR_FS_BASE || msr == X86_MSR_GS_BASE)
            update_mode(c);
        if (msr == X86_MSR_TSC_ADJUST)
            publish_system_time(c);
        return 0;
    }
    if (is_apic_msr(msr)) {
        int status;

        if (msr == X86_MSR_TSC_DEADLINE && value)
            value -= c->x.tsc_adjust;
        status = c->port->apic_ops->msr_write(c->port->apic, msr, value);
        c->check_interrupt = true;
        if (msr == X86_MSR_APIC_BASE && status == 0) {
            c->apic_page = c->port->apic_ops->base(c->port->apic);
            flush_translations(c);
        }
        return status;
    }
    switch (msr) {
    case X86_MSR_TSC:
        c->x.tsc_adjust += value - guest_tsc(c);
        publish_system_time(c);
        return 0;
    case X86_MSR_EFER: return write_efer(c, value);
    case X86_MSR_PRED_CMD: return value & ~c->core->msrs.pred_cmd_bits ? -1 : 0;
    case X86_MSR_BIOS_SIGN_ID: return 0; /* written before CPUID, to have the revision read */
    case X86_MSR_KVM_SYSTEM_TIME:
        c->x.kvm_system_time = value;
        publish_system_time(c);
        return 0;
    case X86_MSR_KVM_WALL_CLOCK:
        c->x.kvm_wall_clock = value;
        publish_wall_clock(c);
        return 0;
    default: return -1;
    }
}

/*
 * Sensitive instructions that are neither control-register nor segment loads: interrupts on and
 * off, time, identification, FS and GS bases, halting.
 */
#include "cpu/core/msr.h"
#include "cpu/interp/handlers.h"
#include "cpu/interp/operand.h"

#include <x86intrin.h>

const struct uop *op_undefined(struct vcpu *c, const struct uop *op)
{
    int vector = (int)op->imm;

    if (x86_vector_has_error((unsigned)vector))
        raise_error(c, op, vector, 0);
    raise_fault(c, op, vector);
}

const struct uop *op_hlt(struct vcpu *c, const struct uop *op)
{
    require_cpl0(c, op);
    counter_add(&c->exits[CAUSE_HALT], 1);
    meter_switch(c->meter, meter_enter(c->meter, CAUSE_HALT, rip_of(c, op), 0, 0));
    c->x.activity = X86_HALTED;
    return end_block(c, op);
}

const struct uop *op_cli(struct vcpu *c, const struct uop *op)
{
    if (!in_real(c) && cpl(c) > iopl(c))
        raise_error(c, op, X86_GP, 0);
    c->x.rflags &= ~(uint64_t)X86_FLAG_IF;
    return op + 1;
}

/* Interrupts are recognized only after the next instruction. */
const struct uop *op_sti(struct vcpu *c, const struct uop *op)
{
    if (!in_real(c) && cpl(c) > iopl(c))
        raise_error(c, op, X86_GP, 0);
    if (!(c->x.rflags & X86_FLAG_IF)) {
        c->x.rflags |= X86_FLAG_IF;
        c->check_interrupt = true;
        c->x.interrupt_shadow = true;
        update_stepping(c);
    }
    return end_block(c, op);
}

/* CPUID shows whether the APIC is enabled in its base MSR (SDM volume 3, 11.4.3). */
static bool apic_enabled(const struct vcpu *c)
{
    uint64_t base = 0;

    c->port->apic_ops->msr_read(c->port->apic, 0x1B, &base);
    return base & 1u << 11;
}

const struct uop *op_cpuid(struct vcpu *c, const struct uop *op)
{
    unsigned before =
        meter_enter(c->meter, CAUSE_CPUID, rip_of(c, op), (uint32_t)c->x.reg[X86_RAX], 0);
    struct x86_cpuid_regs r = x86_cpuid(&c->core->machine.model, &c->x, c->port->id,
                                        (uint32_t)c->x.reg[X86_RAX], (uint32_t)c->x.reg[X86_RCX]);

    counter_add(&c->exits[CAUSE_CPUID], 1);
    if ((uint32_t)c->x.reg[X86_RAX] == 1 && !apic_enabled(c))
        r.edx &= ~(1u << 9);
    c->x.reg[X86_RAX] = r.eax;
    c->x.reg[X86_RBX] = r.ebx;
    c->x.reg[X86_RCX] = r.ecx;
    c->x.reg[X86_RDX] = r.edx;
    meter_leave(c->meter, before);
    return end_block(c, op); /* it serializes: code that another vCPU has changed is fetched anew */
}

static void read_tsc(struct vcpu *c, const struct uop *op)
{
    uint64_t tsc = guest_tsc(c);

    if ((c->x.cr4 & X86_CR4_TSD) && cpl(c) != 0)
        raise_error(c, op, X86_GP, 0);
    c->x.reg[X86_RAX] = (uint32_t)tsc;
    c->x.reg[X86_RDX] = tsc >> 32;
}

const struct uop *op_rdtsc(struct vcpu *c, const struct uop *op)
{
    read_tsc(c, op);
    return op + 1;
}

const struct uop *op_rdtscp(struct vcpu *c, const struct uop *op)
{
    read_tsc(c, op);
    c->x.reg[X86_RCX] = (uint32_t)c->x.tsc_aux;
    return op + 1;
}

const struct uop *op_rdpid(struct vcpu *c, const struct uop *op)
{
    c->x.reg[op->dst / 8] = (uint32_t)c->x.tsc_aux;
    return op + 1;
}

/* The model announces no performance counters, so there is none to read. */
const struct uop *op_rdpmc(struct vcpu *c, const struct uop *op)
{
    raise_error(c, op, X86_GP, 0);
}

const struct uop *op_rdmsr(struct vcpu *c, const struct uop *op)
{
    uint64_t value;
    unsigned before;

    require_cpl0(c, op);
    counter_add(&c->exits[CAUSE_MSR], 1);
    before = meter_enter(c->meter, CAUSE_MSR, rip_of(c, op), (uint32_t)c->x.reg[X86_RCX], 0);
    if (msr_read(c, (uint32_t)c->x.reg[X86_RCX], &value) != 0)
        raise_error(c, op, X86_GP, 0);
    c->x.reg[X86_RAX] = (uint32_t)value;
    c->x.reg[X86_RDX] = value >> 32;
    meter_leave(c->meter, before);
    return op + 1;
}

const struct uop *op_wrmsr(struct vcpu *c, const struct uop *op)
{
    uint64_t value = c->x.reg[X86_RDX] << 32 | (uint32_t)c->x.reg[X86_RAX];
    unsigned before;

    require_cpl0(c, op);
    counter_add(&c->exits[CAUSE_MSR], 1);
    before =
        meter_enter(c->meter, CAUSE_MSR, rip_of(c, op), (uint32_t)c->x.reg[X86_RCX], TRACE_WRITE);
    if (msr_write(c, (uint32_t)c->x.reg[X86_RCX], value) != 0)
        raise_error(c, op, X86_GP, 0);
    meter_leave(c->meter, before);
    return end_block(c, op);
}

const struct uop *op_swapgs(struct vcpu *c, const struct uop *op)
{
    uint64_t base = c->x.seg[X86_GS].base;

    require_cpl0(c, op);
    c->x.seg[X86_GS].base = c->base[X86_GS] = c->x.kernel_gs_base;
    c->x.kernel_gs_base = base;
    return op + 1;
}

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE. */
const struct uop *op_fsgsbase(struct vcpu *c, const struct uop *op)
{
    unsigned seg = op->aux & 7;
    uint64_t value;

    if (!(c->x.cr4 & X86_CR4_FSGSBASE))
        raise_fault(c, op, X86_UD);
    if (!(op->aux & FSGSBASE_WRITE)) {
        set_reg(c, op->dst, op->osize, c->x.seg[seg].base);
        return op + 1;
    }
    value = get_reg(c, op->src, op->osize);
    if (!is_canonical(value))
        raise_error(c, op, X86_GP, 0);
    c->x.seg[seg].base = c->base[seg] = value;
    return op + 1;
}

/* Hypercalls. There are none: answers as KVM does to an unknown one. */
const struct uop *op_vmcall(struct vcpu *c, const struct uop *op)
{
    c->x.reg[X86_RAX] = (uint64_t)-1000; /* -KVM_ENOSYS */
    return op + 1;
}

/* CLFLUSH, CLFLUSHOPT and CLWB: raise what a read raises; there is no cache to flush. */
const struct uop *op_flush_line(struct vcpu *c, const struct uop *op)
{
    /* Allowed in a segment that can only be executed (SDM volume 2, CLFLUSH). */
    load8(c, op, ea_linear(c, op, 1, MMU_EXEC));
    return op + 1;
}

const struct uop *op_bound(struct vcpu *c, const struct uop *op)
{
    uint64_t linear = ea_linear(c, op, op->osize * 2u, MMU_READ);
    int64_t low, high, index;

    if (op->osize == 2) {
        low = (int16_t)load16(c, op, linear);
        high = (int16_t)load16(c, op, linear + 2);
        index = (int16_t)REG16(c, op->dst);
    } else {
        low = (int32_t)load32(c, op, linear);
        high = (int32_t)load32(c, op, linear + 4);
        index = (int32_t)REG32(c, op->dst);
    }
    if (index < low || index > high)
        raise_fault(c, op, X86_BR);
    return op + 1;
}

/* MONITOR and MWAIT are not announced. */
const struct uop *op_monitor(struct vcpu *c, const struct uop *op)
{
    raise_fault(c, op, X86_UD);
}

/*
 * Control registers, with every check and consequence, and what flushes translations (SDM volume 3,
 * 2.5, 4.10).
 */
#include "cpu/core/control.h"

#include "cpu/core/code.h"
#include "cpu/core/executor.h"
#include "cpu/core/fault.h"
#include "cpu/core/mode.h"
#include "cpu/core/present.h"

void invalidate_page(struct vcpu *c, uint64_t linear, unsigned pcid)
{
    code_unmapped(c, linear, mmu_flush_page(&c->mmu, &c->x, linear, pcid));
    update_context(c);
}

static void flush_all(struct vcpu *c)
{
    counter_add(&c->exits[CAUSE_TLB_FLUSH], 1);
    flush_translations(c);
}

static bool uses_pae(const struct vcpu *c, uint64_t cr0, uint64_t cr4)
{
    return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(c->x.efer & X86_EFER_LME);
}

/* Loads the PDPTE registers from the table at CR3. Returns false if the caller must raise #GP. */
static bool load_pdptes(struct vcpu *c, uint64_t cr3)
{
    enum mmu_result result;

    while ((result = mmu_load_pdptes(c->mem, &c->x, cr3, c->x.pdpte, &c->absent)) == MMU_ABSENT)
        present_wait(c);
    return result == MMU_DONE;
}

static void write_cr0(struct vcpu *c, const struct uop *op, uint64_t value)
{
    uint64_t old = c->x.cr0;

    if (value >> 32 || ((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||
        ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
        raise_error(c, op, X86_GP, 0);
    value = (value & X86_CR0_DEFINED) | X86_CR0_ET;
    if ((value & X86_CR0_PG) && !(old & X86_CR0_PG) && (c->x.efer & X86_EFER_LME)) {
        if (!(c->x.cr4 & X86_CR4_PAE) || (c->x.seg[X86_CS].attr & X86_ATTR_L))
            raise_error(c, op, X86_GP, 0);
    }
    if (!(value & X86_CR0_PG) && (old & X86_CR0_PG) && (in_64(c) || (c->x.cr4 & X86_CR4_PCIDE)))
        raise_error(c, op, X86_GP, 0);
    if (uses_pae(c, value, c->x.cr4) && ((value ^ old) & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)) &&
        !load_pdptes(c, c->x.cr3))
        raise_error(c, op, X86_GP, 0);
    c->x.cr0 = value;
    if ((value ^ old) & X86_CR0_PG) {
        c->x.efer &= ~(uint64_t)X86_EFER_LMA;
        if ((value & X86_CR0_PG) && (c->x.efer & X86_EFER_LME))
            c->x.efer |= X86_EFER_LMA;
    }
    if ((value ^ old) & X86_CR0_PE)
        c->x.seg[X86_SS].attr &= (uint16_t)~X86_ATTR_DPL;
    if ((value ^ old) & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE))
        flush_all(c);
    update_mode(c);
    update_context(c);
    update_fp_trap(c);
}

static void write_cr3(struct vcpu *c, const struct uop *op, uint64_t value)
{
    bool keep = false;

    if (c->x.cr4 & X86_CR4_PCIDE) {
        keep = value >> 63;
        value &= ~(1ULL << 63);
    }
    if (in_long_mode(c) && value >> c->x.physical_bits)
        raise_error(c, op, X86_GP, 0);
    if (uses_pae(c, c->x.cr0, c->x.cr4) && !load_pdptes(c, value))
        raise_error(c, op, X86_GP, 0);
    counter_add(&c->exits[CAUSE_TLB_FLUSH], 1);
    c->x.cr3 = value;
    mmu_new_cr3(&c->mmu, &c->x, keep);
    update_context(c);
}

static void write_cr4(struct vcpu *c, const struct uop *op, uint64_t value)
{
    const uint64_t paging =
        X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PCIDE;
    uint64_t old = c->x.cr4;

    if (value & ~x86_cr4_bits(&c->core->machine.model))
        raise_error(c, op, X86_GP, 0);
    if (in_long_mode(c) && !(value & X86_CR4_PAE))
        raise_error(c, op, X86_GP, 0);
    if ((value & ~old & X86_CR4_PCIDE) && (!in_long_mode(c) || (c->x.cr3 & 0xFFF)))
        raise_error(c, op, X86_GP, 0);
    if (uses_pae(c, c->x.cr0, value) && ((value ^ old) & (paging & ~X86_CR4_PCIDE)) &&
        !load_pdptes(c, c->x.cr3))
        raise_error(c, op, X86_GP, 0);
    c->x.cr4 = value;
    if ((value ^ old) & paging)
        flush_all(c);
    update_context(c);
    update_fp_trap(c);
    update_stepping(c);
}

void write_cr(struct vcpu *c, const struct uop *op, unsigned n, uint64_t value)
{
    unsigned before = meter_enter(c->meter, CAUSE_CONTROL_REGISTER,
                                  c->meter ? instruction_address(c, op) : 0, n, value);

    counter_add(&c->exits[CAUSE_CONTROL_REGISTER], 1);
    switch (n) {
    case 0: write_cr0(c, op, value); break;
    case 2: c->x.cr2 = value; break;
    case 3: write_cr3(c, op, value); break;
    case 4: write_cr4(c, op, value); break;
    case 8:
        if (value >> 4)
            raise_error(c, op, X86_GP, 0);
        c->port->apic_ops->set_cr8(c->port->apic, (unsigned)value);
        c->check_interrupt = true;
        break;
    default: raise_fault(c, op, X86_UD);
    }
    meter_leave(c->meter, before);
}

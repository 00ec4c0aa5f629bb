/*
 * Control and debug registers, and what flushes translations (SDM volume 3, 2.5, 4.10).
 */
#include "cpu/core/access.h"
#include "cpu/core/debug.h"
#include "cpu/interp/handlers.h"

#define CR0_DEFINED                                                                                \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP |    \
     X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

/* CR4 bits that the CPU model has; the others are reserved. */
static uint64_t cr4_defined(const struct vcpu *c)
{
    const bool *feature = c->core->machine.model.feature;
    uint64_t bits = X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE |
                    X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_UMIP |
                    X86_CR4_SMEP;

    if (feature[X86_FEAT_FSGSBASE])
        bits |= X86_CR4_FSGSBASE;
    if (feature[X86_FEAT_INVPCID])
        bits |= X86_CR4_PCIDE;
    if (feature[X86_FEAT_XSAVE])
        bits |= X86_CR4_OSXSAVE;
    if (feature[X86_FEAT_SMAP])
        bits |= X86_CR4_SMAP;
    return bits;
}

static void flush_page(struct vcpu *c, uint64_t linear, unsigned pcid)
{
    block_flush_page(c, linear, mmu_flush_page(&c->mmu, &c->x, linear, pcid));
    update_context(c);
}

static void flush_all(struct vcpu *c)
{
    c->exits[CAUSE_TLB_FLUSH]++;
    flush_translations(c);
}

static bool uses_pae(const struct vcpu *c, uint64_t cr0, uint64_t cr4)
{
    return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(c->x.efer & X86_EFER_LME);
}

static void write_cr0(struct vcpu *c, const struct uop *op, uint64_t value)
{
    uint64_t old = c->x.cr0;

    if (value >> 32 || ((value & X86_CR0_PG) && !(value & X86_CR0_PE)) ||
        ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
        raise_error(c, op, X86_GP, 0);
    value = (value & CR0_DEFINED) | X86_CR0_ET;
    if ((value & X86_CR0_PG) && !(old & X86_CR0_PG) && (c->x.efer & X86_EFER_LME)) {
        if (!(c->x.cr4 & X86_CR4_PAE) || (c->x.seg[X86_CS].attr & X86_ATTR_L))
            raise_error(c, op, X86_GP, 0);
    }
    if (!(value & X86_CR0_PG) && (old & X86_CR0_PG) && (in_64(c) || (c->x.cr4 & X86_CR4_PCIDE)))
        raise_error(c, op, X86_GP, 0);
    if (uses_pae(c, value, c->x.cr4) && ((value ^ old) & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)) &&
        mmu_load_pdptes(c->mem, &c->x, c->x.cr3, c->x.pdpte) != 0)
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
    if (uses_pae(c, c->x.cr0, c->x.cr4) && mmu_load_pdptes(c->mem, &c->x, value, c->x.pdpte) != 0)
        raise_error(c, op, X86_GP, 0);
    c->exits[CAUSE_TLB_FLUSH]++;
    c->x.cr3 = value;
    mmu_new_cr3(&c->mmu, &c->x, keep);
    update_context(c);
}

static void write_cr4(struct vcpu *c, const struct uop *op, uint64_t value)
{
    const uint64_t paging =
        X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PCIDE;
    uint64_t old = c->x.cr4;

    if (value & ~cr4_defined(c))
        raise_error(c, op, X86_GP, 0);
    if (in_long_mode(c) && !(value & X86_CR4_PAE))
        raise_error(c, op, X86_GP, 0);
    if ((value & ~old & X86_CR4_PCIDE) && (!in_long_mode(c) || (c->x.cr3 & 0xFFF)))
        raise_error(c, op, X86_GP, 0);
    if (uses_pae(c, c->x.cr0, value) && ((value ^ old) & (paging & ~X86_CR4_PCIDE)) &&
        mmu_load_pdptes(c->mem, &c->x, c->x.cr3, c->x.pdpte) != 0)
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
    unsigned before = meter_enter(c->meter, CAUSE_CONTROL_REGISTER, rip_of(c, op), n, value);

    c->exits[CAUSE_CONTROL_REGISTER]++;
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

const struct uop *op_mov_to_cr(struct vcpu *c, const struct uop *op)
{
    require_cpl0(c, op);
    write_cr(c, op, op->aux, op->osize == 8 ? REG64(c, op->src) : REG32(c, op->src));
    return end_block(c, op);
}

const struct uop *op_mov_from_cr(struct vcpu *c, const struct uop *op)
{
    uint64_t value;

    require_cpl0(c, op);
    switch (op->aux) {
    case 0: value = c->x.cr0; break;
    case 2: value = c->x.cr2; break;
    case 3: value = c->x.cr3; break;
    case 4: value = c->x.cr4; break;
    case 8: value = c->port->apic_ops->get_cr8(c->port->apic); break;
    default: raise_fault(c, op, X86_UD);
    }
    set_reg(c, op->dst, op->osize, value);
    return op + 1;
}

const struct uop *op_lmsw(struct vcpu *c, const struct uop *op)
{
    uint64_t value, mask = X86_CR0_MP | X86_CR0_EM | X86_CR0_TS;

    require_cpl0(c, op);
    value = op->ea == EA_NONE ? REG16(c, op->src) : load16(c, op, ea_linear(c, op, 2, MMU_READ));
    /* PE can be set but not cleared. */
    write_cr(c, op, 0, (c->x.cr0 & ~mask) | (value & (mask | X86_CR0_PE)));
    return end_block(c, op);
}

const struct uop *op_smsw(struct vcpu *c, const struct uop *op)
{
    check_umip(c, op);
    if (op->ea == EA_NONE)
        set_reg(c, op->dst, op->osize, c->x.cr0);
    else
        store16(c, op, ea_linear(c, op, 2, MMU_WRITE), (uint16_t)c->x.cr0);
    return op + 1;
}

const struct uop *op_clts(struct vcpu *c, const struct uop *op)
{
    require_cpl0(c, op);
    c->x.cr0 &= ~(uint64_t)X86_CR0_TS;
    update_fp_trap(c);
    return op + 1;
}

/* --- Debug registers -------------------------------------------------------------------------- */

/* The register that a number means; DR4 and DR5 are DR6 and DR7 while CR4.DE is 0. */
static unsigned debug_register(struct vcpu *c, const struct uop *op)
{
    unsigned n = op->aux;

    if (n == 4 || n == 5) {
        if (c->x.cr4 & X86_CR4_DE)
            raise_fault(c, op, X86_UD);
        n += 2;
    }
    require_cpl0(c, op);
    if (c->x.dr7 & DR7_GD) {
        c->x.dr6 |= DR6_BD;
        raise_fault(c, op, X86_DB);
    }
    return n;
}

const struct uop *op_mov_from_dr(struct vcpu *c, const struct uop *op)
{
    unsigned n = debug_register(c, op);

    set_reg(c, op->dst, op->osize, n < 4 ? c->x.dr[n] : n == 6 ? c->x.dr6 : c->x.dr7);
    return op + 1;
}

const struct uop *op_mov_to_dr(struct vcpu *c, const struct uop *op)
{
    unsigned n = debug_register(c, op);
    uint64_t value = op->osize == 8 ? REG64(c, op->src) : REG32(c, op->src);

    if (n >= 6 && value >> 32)
        raise_error(c, op, X86_GP, 0);
    if (n < 4)
        debug_set_address(c, n, value);
    else if (n == 6)
        c->x.dr6 = (value & 0xE00F) | DR6_INIT;
    else
        debug_set_control(c, (value & 0xFFFF23FF) | DR7_INIT);
    return end_block(c, op);
}

/* --- Invalidation ----------------------------------------------------------------------------- */

const struct uop *op_invlpg(struct vcpu *c, const struct uop *op)
{
    uint64_t linear = ea_offset(c, op);
    unsigned before;

    require_cpl0(c, op);
    if (op->asize == 2)
        linear = (uint16_t)linear;
    else if (op->asize == 4)
        linear = (uint32_t)linear;
    linear += c->base[op->seg];
    if (!in_64(c))
        linear = (uint32_t)linear;
    c->exits[CAUSE_TLB_FLUSH]++;
    before = meter_enter(c->meter, CAUSE_TLB_FLUSH, rip_of(c, op), linear, 0);
    flush_page(c, linear, c->x.cr3 & 0xFFF);
    meter_leave(c->meter, before);
    return end_block(c, op);
}

const struct uop *op_invpcid(struct vcpu *c, const struct uop *op)
{
    uint64_t type = in_64(c) ? REG64(c, op->dst) : REG32(c, op->dst);
    uint64_t at, pcid, linear;
    unsigned before;

    require_cpl0(c, op);
    at = ea_linear(c, op, 16, MMU_READ);
    pcid = load64(c, op, at);
    linear = load64(c, op, at + 8);
    if (type > 3 || (type < 2 && pcid >> 12) || (type < 2 && pcid && !(c->x.cr4 & X86_CR4_PCIDE)) ||
        (type == 0 && !is_canonical(linear)))
        raise_error(c, op, X86_GP, 0);
    c->exits[CAUSE_TLB_FLUSH]++;
    before = meter_enter(c->meter, CAUSE_TLB_FLUSH, rip_of(c, op), type ? 0 : linear, 0);
    if (type == 0) {
        flush_page(c, linear, (unsigned)pcid);
    } else if (type == 1) {
        mmu_flush_pcid(&c->mmu, &c->x, (unsigned)pcid);
        update_context(c);
    } else {
        flush_translations(c);
    }
    meter_leave(c->meter, before);
    return end_block(c, op);
}

/* INVD and WBINVD: there is no cache to lose or to write back. */
const struct uop *op_invd(struct vcpu *c, const struct uop *op)
{
    require_cpl0(c, op);
    return end_block(c, op);
}

const struct uop *op_clac(struct vcpu *c, const struct uop *op)
{
    if (cpl(c) != 0 || in_v86(c))
        raise_fault(c, op, X86_UD);
    c->x.rflags &= ~(uint64_t)X86_FLAG_AC;
    update_context(c);
    return op + 1;
}

const struct uop *op_stac(struct vcpu *c, const struct uop *op)
{
    if (cpl(c) != 0 || in_v86(c))
        raise_fault(c, op, X86_UD);
    c->x.rflags |= X86_FLAG_AC;
    update_context(c);
    return op + 1;
}

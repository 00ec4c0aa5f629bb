/*
 * Instructions that read and write control and debug registers, and that flush translations (SDM
 * volume 3, 2.5, 4.10).
 */
#include "cpu/core/control.h"
#include "cpu/core/debug.h"
#include "cpu/interp/handlers.h"
#include "cpu/interp/operand.h"

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

/* Returns the debug register that OP names, after checks. DR4 and DR5 mean DR6 and DR7 while CR4.DE
 * is 0. */
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
    counter_add(&c->exits[CAUSE_TLB_FLUSH], 1);
    before = meter_enter(c->meter, CAUSE_TLB_FLUSH, rip_of(c, op), linear, 0);
    invalidate_page(c, linear, c->x.cr3 & 0xFFF);
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
    counter_add(&c->exits[CAUSE_TLB_FLUSH], 1);
    before = meter_enter(c->meter, CAUSE_TLB_FLUSH, rip_of(c, op), type ? 0 : linear, 0);
    if (type == 0) {
        invalidate_page(c, linear, (unsigned)pcid);
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

/*
 * Instructions on descriptor tables: loading and storing the table registers, and asking about
 * descriptors (LAR, LSL, VERR, VERW, ARPL).
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/handlers.h"
#include "cpu/core/segment.h"

/* Raises #UD at OP in real and virtual-8086 mode. */
static void require_protected(struct vcpu *c, const struct uop *op)
{
    if (in_real(c) || in_v86(c))
        raise_fault(c, op, X86_UD);
}

static const struct uop *store_table(struct vcpu *c, const struct uop *op,
                                     const struct x86_dtr *table)
{
    unsigned size = in_64(c) ? 8 : 4;
    uint64_t linear;

    check_umip(c, op);
    linear = ea_linear(c, op, size + 2, MMU_WRITE);
    probe_write(c, op, linear, size + 2);
    store16(c, op, linear, table->limit);
    store_sized(c, op, linear + 2, size, table->base);
    return op + 1;
}

static const struct uop *load_table(struct vcpu *c, const struct uop *op, struct x86_dtr *table)
{
    unsigned size = in_64(c) ? 8 : 4;
    uint64_t linear, base;
    uint16_t limit;

    require_cpl0(c, op);
    linear = ea_linear(c, op, size + 2, MMU_READ);
    limit = load16(c, op, linear);
    base = load_sized(c, op, linear + 2, size);
    if (op->osize == 2 && !in_64(c))
        base &= 0xFFFFFF;
    if (in_64(c) && !is_canonical(base))
        raise_error(c, op, X86_GP, 0);
    table->limit = limit;
    table->base = base;
    return op + 1;
}

const struct uop *op_sgdt(struct vcpu *c, const struct uop *op)
{
    return store_table(c, op, &c->x.gdtr);
}

const struct uop *op_sidt(struct vcpu *c, const struct uop *op)
{
    return store_table(c, op, &c->x.idtr);
}

const struct uop *op_lgdt(struct vcpu *c, const struct uop *op)
{
    return load_table(c, op, &c->x.gdtr);
}

const struct uop *op_lidt(struct vcpu *c, const struct uop *op)
{
    return load_table(c, op, &c->x.idtr);
}

static const struct uop *store_selector(struct vcpu *c, const struct uop *op, uint16_t selector)
{
    require_protected(c, op);
    check_umip(c, op);
    if (op->ea == EA_NONE)
        set_reg(c, op->dst, op->osize, selector);
    else
        store16(c, op, ea_linear(c, op, 2, MMU_WRITE), selector);
    return op + 1;
}

const struct uop *op_sldt(struct vcpu *c, const struct uop *op)
{
    return store_selector(c, op, c->x.ldtr.selector);
}

const struct uop *op_str(struct vcpu *c, const struct uop *op)
{
    return store_selector(c, op, c->x.tr.selector);
}

static uint16_t selector_operand(struct vcpu *c, const struct uop *op)
{
    return op->ea == EA_NONE ? REG16(c, op->src) : load16(c, op, ea_linear(c, op, 2, MMU_READ));
}

/* Reads and checks the descriptor for LLDT or LTR, which has 16 bytes in long mode. */
static void need_system(struct vcpu *c, const struct uop *op, uint16_t selector, unsigned types,
                        struct descriptor *d)
{
    uint32_t error = selector_error(c, selector);

    if (selector & 4)
        raise_error(c, op, X86_GP, error);
    desc_need(c, op, selector, X86_GP, d);
    if (desc_s(d) || !(types >> desc_type(d) & 1))
        raise_error(c, op, X86_GP, error);
    if (!desc_present(d))
        raise_error(c, op, X86_NP, error);
    if (in_long_mode(c)) {
        desc_read_high(c, op, d);
        if (!is_canonical(desc_base_64(d)))
            raise_error(c, op, X86_GP, error);
    }
}

static struct x86_seg system_segment(struct vcpu *c, const struct descriptor *d)
{
    struct x86_seg seg = desc_to_seg(d, d->selector);

    if (in_long_mode(c))
        seg.base = desc_base_64(d);
    return seg;
}

const struct uop *op_lldt(struct vcpu *c, const struct uop *op)
{
    struct descriptor d;
    uint16_t selector;

    require_protected(c, op);
    require_cpl0(c, op);
    selector = selector_operand(c, op);
    if (!(selector & ~3u)) {
        c->x.ldtr = (struct x86_seg){.selector = selector, .attr = X86_ATTR_UNUSABLE};
        return op + 1;
    }
    need_system(c, op, selector, 1u << SYS_LDT, &d);
    c->x.ldtr = system_segment(c, &d);
    return op + 1;
}

const struct uop *op_ltr(struct vcpu *c, const struct uop *op)
{
    struct descriptor d;
    uint16_t selector;

    require_protected(c, op);
    require_cpl0(c, op);
    selector = selector_operand(c, op);
    if (!(selector & ~3u))
        raise_error(c, op, X86_GP, 0);
    need_system(c, op, selector, 1u << SYS_TSS | (in_long_mode(c) ? 0 : 1u << SYS_TSS16), &d);
    desc_set_busy(c, op, &d, true);
    c->x.tr = system_segment(c, &d);
    c->x.tr.attr |= 2;
    return op + 1;
}

/* --- Questions about descriptors: the answer is in ZF ----------------------------------------- */

/* Ends VERR, VERW, LAR or LSL with ZF as its result. */
static const struct uop *set_zf(struct vcpu *c, const struct uop *op, bool yes)
{
    c->cc = (uint16_t)(yes ? c->cc | CC_ZF : c->cc & ~CC_ZF);
    return op + 1;
}

/* Reads the descriptor if the present privilege may see it. TYPES: the system types that are valid.
 */
static bool visible(struct vcpu *c, const struct uop *op, uint16_t selector, unsigned types,
                    struct descriptor *d)
{
    if (!(selector & ~3u) || !desc_read(c, op, selector, d))
        return false;
    if (!desc_s(d) && !(types >> desc_type(d) & 1))
        return false;
    if (desc_is_code(d) && desc_conforming(d))
        return true;
    return desc_dpl(d) >= MAX(cpl(c), selector & 3u);
}

const struct uop *op_lar(struct vcpu *c, const struct uop *op)
{
    unsigned types = 1u << SYS_LDT | 1u << SYS_TSS | 1u << SYS_TSS_BUSY | 1u << SYS_CALL;
    struct descriptor d;

    require_protected(c, op);
    if (!in_long_mode(c))
        types |= 1u << SYS_TSS16 | 1u << SYS_TSS16_BUSY | 1u << SYS_CALL16 | 1u << SYS_TASK_GATE;
    if (!visible(c, op, selector_operand(c, op), types, &d))
        return set_zf(c, op, false);
    set_reg(c, op->dst, op->osize, d.low >> 32 & (op->osize == 2 ? 0xFF00 : 0xF0FF00));
    return set_zf(c, op, true);
}

const struct uop *op_lsl(struct vcpu *c, const struct uop *op)
{
    unsigned types = 1u << SYS_LDT | 1u << SYS_TSS | 1u << SYS_TSS_BUSY;
    struct descriptor d;

    require_protected(c, op);
    if (!in_long_mode(c))
        types |= 1u << SYS_TSS16 | 1u << SYS_TSS16_BUSY;
    if (!visible(c, op, selector_operand(c, op), types, &d))
        return set_zf(c, op, false);
    set_reg(c, op->dst, op->osize, desc_to_seg(&d, 0).limit);
    return set_zf(c, op, true);
}

const struct uop *op_verr(struct vcpu *c, const struct uop *op)
{
    struct descriptor d;

    require_protected(c, op);
    if (!visible(c, op, selector_operand(c, op), 0, &d))
        return set_zf(c, op, false);
    return set_zf(c, op, !desc_is_code(&d) || (desc_type(&d) & X86_ATTR_WRITE));
}

const struct uop *op_verw(struct vcpu *c, const struct uop *op)
{
    struct descriptor d;

    require_protected(c, op);
    if (!visible(c, op, selector_operand(c, op), 0, &d))
        return set_zf(c, op, false);
    return set_zf(c, op, !desc_is_code(&d) && (desc_type(&d) & X86_ATTR_WRITE));
}

const struct uop *op_arpl(struct vcpu *c, const struct uop *op)
{
    uint16_t source = REG16(c, op->src), old, new;

    require_protected(c, op);
    old = op->ea == EA_NONE ? REG16(c, op->dst) : load16(c, op, ea_linear(c, op, 2, MMU_READ));
    if ((old & 3) >= (source & 3))
        return set_zf(c, op, false);
    new = (uint16_t)((old & ~3u) | (source & 3));
    if (op->ea == EA_NONE)
        REG16(c, op->dst) = new;
    else
        store16(c, op, ea_linear(c, op, 2, MMU_WRITE), new);
    return set_zf(c, op, true);
}

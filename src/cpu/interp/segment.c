/*
 * MOV to and from segment registers; LDS, LES, LFS, LGS and LSS (SDM volume 2).
 */
#include "cpu/core/segment.h"

#include "cpu/interp/handlers.h"
#include "cpu/interp/operand.h"

const struct uop *op_mov_to_seg(struct vcpu *c, const struct uop *op)
{
    uint16_t selector =
        op->ea == EA_NONE ? REG16(c, op->src) : load16(c, op, ea_linear(c, op, 2, MMU_READ));

    load_segment(c, op, op->aux, selector);
    if (op->aux == X86_SS) {
        c->x.interrupt_shadow = c->x.ss_shadow = true;
        update_stepping(c);
    }
    return end_block(c, op);
}

const struct uop *op_mov_from_seg(struct vcpu *c, const struct uop *op)
{
    uint16_t selector = c->x.seg[op->aux].selector;

    if (op->ea == EA_NONE) /* a register takes the operand size, zero-extended */
        set_reg(c, op->dst, op->osize, selector);
    else
        store16(c, op, ea_linear(c, op, 2, MMU_WRITE), selector);
    return op + 1;
}

const struct uop *op_load_far(struct vcpu *c, const struct uop *op)
{
    uint64_t linear = ea_linear(c, op, op->osize + 2u, MMU_READ);
    uint64_t offset = load_sized(c, op, linear, op->osize);
    uint16_t selector = load16(c, op, linear + op->osize);

    load_segment(c, op, op->aux, selector);
    set_reg(c, op->dst, op->osize, offset);
    return end_block(c, op);
}

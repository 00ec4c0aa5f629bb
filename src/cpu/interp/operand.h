/*
 * Where an instruction's memory operand is.
 */
#ifndef DOPPEL_CPU_INTERP_OPERAND_H
#define DOPPEL_CPU_INTERP_OPERAND_H

#include "cpu/interp/interp.h"

/* Returns the linear address of OP's memory operand, which is at OFFSET in its segment. Checks what
 * the segment demands of an access of SIZE bytes. */
uint64_t ea_slow(struct vcpu *c, const struct uop *op, uint64_t offset, unsigned size,
                 enum mmu_access access);

/* Returns the offset in the segment, before it is cut to the address size. */
static inline uint64_t ea_offset(const struct vcpu *c, const struct uop *op)
{
    return c->x.reg[op->base] + (c->x.reg[op->index] << op->scale) + (uint64_t)op->disp;
}

static inline uint64_t ea_linear(struct vcpu *c, const struct uop *op, unsigned size,
                                 enum mmu_access access)
{
    uint64_t offset = ea_offset(c, op);

    if (likely(op->ea == EA_64))
        return offset + c->base[op->seg];
    if (op->ea == EA_FLAT)
        return (uint32_t)offset;
    return ea_slow(c, op, offset, size, access);
}

#endif

/*
 * Uops: where their operands are, how a block ends, and what the core asks about an instruction.
 */
#include "cpu/interp/operand.h"

const struct uop *end_block(struct vcpu *c, const struct uop *op)
{
    uint64_t next = next_rip(c, op);

    c->x.reg[X86_RIP] = in_64(c) ? next : (uint32_t)next;
    c->link = NO_LINK;
    return NULL;
}

const struct uop *go_far(struct vcpu *c, uint64_t rip)
{
    c->x.reg[X86_RIP] = rip;
    c->link = NO_LINK;
    return NULL;
}

uint64_t ea_slow(struct vcpu *c, const struct uop *op, uint64_t offset, unsigned size,
                 enum mmu_access access)
{
    if (op->asize == 2)
        offset = (uint16_t)offset;
    else if (op->asize == 4)
        offset = (uint32_t)offset;
    return seg_linear(c, op, op->seg, offset, size, access);
}

void uop_retract(struct vcpu *c, const struct uop *op)
{
    uint64_t rip = c->x.reg[X86_RIP] + op->off;

    c->x.reg[X86_RIP] = in_64(c) ? rip : (uint32_t)rip;
    counter_sub(&c->instructions, (uint64_t)(c->block->count - op->number));
}

uint64_t uop_address(const struct vcpu *c, const struct uop *op)
{
    return rip_of(c, op);
}

unsigned uop_segment(const struct uop *op, bool *wraps)
{
    *wraps = op->ea == EA_FLAT;
    return op->seg;
}

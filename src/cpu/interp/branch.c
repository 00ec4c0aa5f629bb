/*
 * Near control flow. A branch raises the fault if its target is not canonical (64-bit code), or is
 * beyond the limit of CS (other code).
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/handlers.h"
#include "cpu/interp/stack.h"

bool condition_holds(uint16_t cc, unsigned condition)
{
    bool holds;

    switch (condition >> 1) {
    case 0: holds = cc & CC_OF; break;
    case 1: holds = cc & CC_CF; break;
    case 2: holds = cc & CC_ZF; break;
    case 3: holds = cc & (CC_CF | CC_ZF); break;
    case 4: holds = cc & CC_SF; break;
    case 5: holds = cc & CC_PF; break;
    case 6: holds = (cc >> 15) != (cc & CC_OF); break;
    default: holds = (cc & CC_ZF) || (cc >> 15) != (cc & CC_OF); break;
    }
    return holds != (condition & 1);
}

/* Ends the block with a branch to TARGET by link number LINK. */
static inline const struct uop *branch_to(struct vcpu *c, uint64_t target, unsigned link)
{
    c->x.reg[X86_RIP] = target;
    c->link = (uint8_t)link;
    return NULL;
}

/* Goes on at a target that was computed. */
static inline const struct uop *go_indirect(struct vcpu *c, const struct uop *op, uint64_t target)
{
    if (unlikely(!is_canonical(target)))
        raise_error(c, op, X86_GP, 0);
    return branch_to(c, target, NO_LINK);
}

/* Ends a conditional branch that is not taken. */
static inline const struct uop *fall_through(struct vcpu *c, const struct uop *op)
{
    end_block(c, op);
    c->link = LINK_ON;
    return NULL;
}

/* Returns which link a taken branch uses. A target that is cut to 16 bits has none, because it
 * depends on where the code is mapped. */
static inline unsigned legacy_link(const struct uop *op)
{
    return op->osize == 2 ? NO_LINK : LINK_TAKEN;
}

/* Returns TARGET cut to the operand size of 16- or 32-bit code. Raises #GP if it is beyond the
 * limit of CS. */
static uint64_t legacy_target(struct vcpu *c, const struct uop *op, uint64_t target)
{
    target = op->osize == 2 ? (uint16_t)target : (uint32_t)target;
    if (target > c->x.seg[X86_CS].limit)
        raise_error(c, op, X86_GP, 0);
    return target;
}

#define JCC(NAME, CONDITION)                                                                       \
    static const struct uop *NAME(struct vcpu *c, const struct uop *op)                            \
    {                                                                                              \
        uint16_t cc = c->cc;                                                                       \
        if (CONDITION)                                                                             \
            return branch_to(c, c->x.reg[X86_RIP] + op->imm, LINK_TAKEN);                          \
        return branch_to(c, next_rip(c, op), LINK_ON);                                             \
    }

JCC(jcc_o, cc &CC_OF)
JCC(jcc_no, !(cc & CC_OF))
JCC(jcc_b, cc &CC_CF)
JCC(jcc_nb, !(cc & CC_CF))
JCC(jcc_z, cc &CC_ZF)
JCC(jcc_nz, !(cc & CC_ZF))
JCC(jcc_be, cc &(CC_CF | CC_ZF))
JCC(jcc_nbe, !(cc & (CC_CF | CC_ZF)))
JCC(jcc_s, cc &CC_SF)
JCC(jcc_ns, !(cc & CC_SF))
JCC(jcc_p, cc &CC_PF)
JCC(jcc_np, !(cc & CC_PF))
JCC(jcc_l, (cc >> 15) != (cc & CC_OF))
JCC(jcc_nl, (cc >> 15) == (cc & CC_OF))
JCC(jcc_le, (cc & CC_ZF) || (cc >> 15) != (cc & CC_OF))
JCC(jcc_nle, !(cc & CC_ZF) && (cc >> 15) == (cc & CC_OF))

uop_fn *const jcc_handlers[16] = {jcc_o, jcc_no, jcc_b, jcc_nb, jcc_z, jcc_nz, jcc_be, jcc_nbe,
                                  jcc_s, jcc_ns, jcc_p, jcc_np, jcc_l, jcc_nl, jcc_le, jcc_nle};

const struct uop *op_jcc_legacy(struct vcpu *c, const struct uop *op)
{
    if (!condition_holds(c->cc, op->aux))
        return fall_through(c, op);
    return branch_to(c, legacy_target(c, op, c->x.reg[X86_RIP] + op->imm), legacy_link(op));
}

const struct uop *op_jmp(struct vcpu *c, const struct uop *op)
{
    return branch_to(c, c->x.reg[X86_RIP] + op->imm, LINK_TAKEN);
}

const struct uop *op_jmp_legacy(struct vcpu *c, const struct uop *op)
{
    return branch_to(c, legacy_target(c, op, c->x.reg[X86_RIP] + op->imm), legacy_link(op));
}

const struct uop *op_jmp_r(struct vcpu *c, const struct uop *op)
{
    return go_indirect(c, op, REG64(c, op->src));
}

const struct uop *op_jmp_m(struct vcpu *c, const struct uop *op)
{
    return go_indirect(c, op, load64(c, op, ea_linear(c, op, 8, MMU_READ)));
}

/* The target of an indirect branch in 16- and 32-bit code. */
static uint64_t indirect_operand(struct vcpu *c, const struct uop *op)
{
    if (op->ea == EA_NONE)
        return get_reg(c, op->src, op->osize);
    return load_sized(c, op, ea_linear(c, op, op->osize, MMU_READ), op->osize);
}

const struct uop *op_jmp_indirect_legacy(struct vcpu *c, const struct uop *op)
{
    return branch_to(c, legacy_target(c, op, indirect_operand(c, op)), NO_LINK);
}

const struct uop *op_call(struct vcpu *c, const struct uop *op)
{
    push64(c, op, next_rip(c, op));
    return branch_to(c, c->x.reg[X86_RIP] + op->imm, LINK_TAKEN);
}

static const struct uop *call_indirect(struct vcpu *c, const struct uop *op, uint64_t target)
{
    if (unlikely(!is_canonical(target)))
        raise_error(c, op, X86_GP, 0);
    push64(c, op, next_rip(c, op));
    return branch_to(c, target, NO_LINK);
}

const struct uop *op_call_r(struct vcpu *c, const struct uop *op)
{
    return call_indirect(c, op, REG64(c, op->src));
}

const struct uop *op_call_m(struct vcpu *c, const struct uop *op)
{
    return call_indirect(c, op, load64(c, op, ea_linear(c, op, 8, MMU_READ)));
}

const struct uop *op_call_legacy(struct vcpu *c, const struct uop *op)
{
    uint64_t target = legacy_target(c, op, c->x.reg[X86_RIP] + op->imm);

    stack_push(c, op, op->osize, next_rip(c, op));
    return branch_to(c, target, legacy_link(op));
}

const struct uop *op_call_indirect_legacy(struct vcpu *c, const struct uop *op)
{
    uint64_t target = legacy_target(c, op, indirect_operand(c, op));

    stack_push(c, op, op->osize, next_rip(c, op));
    return branch_to(c, target, NO_LINK);
}

const struct uop *op_ret(struct vcpu *c, const struct uop *op)
{
    uint64_t target = peek64(c, op);

    if (unlikely(!is_canonical(target)))
        raise_error(c, op, X86_GP, 0);
    c->x.reg[X86_RSP] += 8 + op->imm;
    return branch_to(c, target, NO_LINK);
}

const struct uop *op_ret_legacy(struct vcpu *c, const struct uop *op)
{
    uint64_t target = legacy_target(c, op, stack_peek(c, op, op->osize, 0));

    stack_adjust(c, (int64_t)(op->osize + op->imm));
    return branch_to(c, target, NO_LINK);
}

const struct uop *op_loop(struct vcpu *c, const struct uop *op)
{
    uint64_t mask = op->asize == 8 ? ~0ULL : op->asize == 4 ? 0xFFFFFFFF : 0xFFFF;
    uint64_t count = c->x.reg[X86_RCX] - (op->aux == LOOP_JCXZ ? 0 : 1);
    uint64_t target = c->x.reg[X86_RIP] + op->imm;
    bool zero = c->cc & CC_ZF, taken;

    if (op->aux == LOOP_JCXZ)
        taken = !(count & mask);
    else
        taken = (count & mask) && (op->aux == LOOP_ALWAYS || zero == (op->aux == LOOP_IF_ZERO));
    if (taken && !in_64(c))
        target = legacy_target(c, op, target);
    if (op->aux != LOOP_JCXZ)
        set_reg(c, X86_RCX * 8, op->asize, count);
    return taken ? branch_to(c, target, legacy_link(op)) : fall_through(c, op);
}

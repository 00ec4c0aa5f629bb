/*
 * PUSH, POP and other instructions that use the stack (SDM volume 2). The forms that 64-bit code
 * uses all the time have handlers of their own; the handlers of the other forms find out operand
 * and stack size each time.
 */
#include "cpu/interp/stack.h"

#include "cpu/core/segment.h"
#include "cpu/interp/handlers.h"
#include "cpu/interp/operand.h"

/* Returns the linear address of OFFSET in the stack segment, after a check for SIZE bytes. */
static uint64_t stack_linear(struct vcpu *c, const struct uop *op, uint64_t offset, unsigned size,
                             enum mmu_access access)
{
    if (in_64(c)) {
        if (!is_canonical(offset) || !is_canonical(offset + size - 1))
            raise_error(c, op, X86_SS_FAULT, 0);
        return offset;
    }
    return seg_linear(c, op, X86_SS, offset, size, access);
}

static void set_sp(struct vcpu *c, uint64_t sp)
{
    uint64_t mask = stack_mask(c);

    if (mask == 0xFFFF)
        REG16(c, X86_RSP * 8) = (uint16_t)sp;
    else
        c->x.reg[X86_RSP] = sp & mask;
}

void stack_adjust(struct vcpu *c, int64_t delta)
{
    set_sp(c, c->x.reg[X86_RSP] + (uint64_t)delta);
}

void stack_push(struct vcpu *c, const struct uop *op, unsigned size, uint64_t value)
{
    uint64_t sp = (c->x.reg[X86_RSP] - size) & stack_mask(c);

    store_sized(c, op, stack_linear(c, op, sp, size, MMU_WRITE), size, value);
    set_sp(c, sp);
}

uint64_t stack_peek(struct vcpu *c, const struct uop *op, unsigned size, unsigned offset)
{
    uint64_t sp = (c->x.reg[X86_RSP] + offset) & stack_mask(c);

    return load_sized(c, op, stack_linear(c, op, sp, size, MMU_READ), size);
}

const struct uop *op_push_r64(struct vcpu *c, const struct uop *op)
{
    push64(c, op, REG64(c, op->src));
    return op + 1;
}

const struct uop *op_push_i64(struct vcpu *c, const struct uop *op)
{
    push64(c, op, op->imm);
    return op + 1;
}

const struct uop *op_pop_r64(struct vcpu *c, const struct uop *op)
{
    uint64_t value = peek64(c, op);

    c->x.reg[X86_RSP] += 8;
    REG64(c, op->dst) = value;
    return op + 1;
}

const struct uop *op_push_r(struct vcpu *c, const struct uop *op)
{
    stack_push(c, op, op->osize, get_reg(c, op->src, op->osize));
    return op + 1;
}

const struct uop *op_push_m(struct vcpu *c, const struct uop *op)
{
    uint64_t value = load_sized(c, op, ea_linear(c, op, op->osize, MMU_READ), op->osize);

    stack_push(c, op, op->osize, value);
    return op + 1;
}

const struct uop *op_push_i(struct vcpu *c, const struct uop *op)
{
    stack_push(c, op, op->osize, op->imm);
    return op + 1;
}

/* Processors write only 16 bits of the slot, even when the operand size is 32. */
const struct uop *op_push_seg(struct vcpu *c, const struct uop *op)
{
    uint64_t selector = c->x.seg[op->aux].selector;
    uint64_t sp = (c->x.reg[X86_RSP] - op->osize) & stack_mask(c);

    if (op->osize == 4)
        store_sized(c, op, stack_linear(c, op, sp, 2, MMU_WRITE), 2, selector);
    else
        store_sized(c, op, stack_linear(c, op, sp, op->osize, MMU_WRITE), op->osize, selector);
    set_sp(c, sp);
    return op + 1;
}

const struct uop *op_pop_r(struct vcpu *c, const struct uop *op)
{
    uint64_t value = stack_peek(c, op, op->osize, 0);

    stack_adjust(c, op->osize);
    set_reg(c, op->dst, op->osize, value);
    return op + 1;
}

/* An address that uses rSP uses its value after the pop. */
const struct uop *op_pop_m(struct vcpu *c, const struct uop *op)
{
    uint64_t value = stack_peek(c, op, op->osize, 0);
    struct uop moved = *op;
    uint64_t linear;

    if (op->base == X86_RSP)
        moved.disp += op->osize;
    linear = ea_linear(c, &moved, op->osize, MMU_WRITE);
    store_sized(c, op, linear, op->osize, value);
    stack_adjust(c, op->osize);
    return op + 1;
}

const struct uop *op_pop_seg(struct vcpu *c, const struct uop *op)
{
    uint16_t selector = (uint16_t)stack_peek(c, op, op->osize, 0);
    uint64_t mask = stack_mask(c), sp = c->x.reg[X86_RSP] + op->osize;

    load_segment(c, op, op->aux, selector);
    if (mask == 0xFFFF) /* the size of the stack that was popped from */
        REG16(c, X86_RSP * 8) = (uint16_t)sp;
    else
        c->x.reg[X86_RSP] = sp & mask;
    if (op->aux == X86_SS) {
        c->x.interrupt_shadow = c->x.ss_shadow = true;
        update_stepping(c);
    }
    return end_block(c, op);
}

const struct uop *op_pusha(struct vcpu *c, const struct uop *op)
{
    uint64_t mask = stack_mask(c), sp = c->x.reg[X86_RSP];
    unsigned size = op->osize;

    /* All eight slots must be writable before the first is written. */
    for (unsigned i = 1; i <= 8; i++)
        probe_write(c, op, stack_linear(c, op, (sp - i * size) & mask, size, MMU_WRITE), size);
    for (unsigned i = 0; i < 8; i++)
        store_sized(c, op, stack_linear(c, op, (sp - (i + 1) * size) & mask, size, MMU_WRITE), size,
                    c->x.reg[i]);
    stack_adjust(c, -8 * (int)size);
    return op + 1;
}

const struct uop *op_popa(struct vcpu *c, const struct uop *op)
{
    uint64_t value[8];

    for (unsigned i = 0; i < 8; i++)
        value[7 - i] = stack_peek(c, op, op->osize, i * op->osize);
    stack_adjust(c, 8 * op->osize);
    for (unsigned i = 0; i < 8; i++)
        if (i != X86_RSP)
            set_reg(c, i * 8, op->osize, value[i]);
    return op + 1;
}

/* In virtual-8086 mode without VME, PUSHF and POPF need IOPL 3. */
static void check_v86_iopl(struct vcpu *c, const struct uop *op)
{
    if (in_v86(c) && iopl(c) < 3)
        raise_error(c, op, X86_GP, 0);
}

const struct uop *op_pushf(struct vcpu *c, const struct uop *op)
{
    check_v86_iopl(c, op);
    stack_push(c, op, op->osize, flags_get(c) & ~(uint64_t)(X86_FLAG_VM | X86_FLAG_RF));
    return op + 1;
}

const struct uop *op_popf(struct vcpu *c, const struct uop *op)
{
    uint64_t may = X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT, value;

    check_v86_iopl(c, op);
    value = stack_peek(c, op, op->osize, 0);
    if (op->osize != 2)
        may |= X86_FLAG_AC | X86_FLAG_ID | X86_FLAG_RF;
    if (cpl(c) <= iopl(c))
        may |= X86_FLAG_IF;
    if (cpl(c) == 0)
        may |= X86_FLAG_IOPL;
    value &= ~(uint64_t)X86_FLAG_RF;
    stack_adjust(c, op->osize);
    flags_set(c, (flags_get(c) & ~may) | (value & may));
    return end_block(c, op);
}

const struct uop *op_enter(struct vcpu *c, const struct uop *op)
{
    unsigned level = op->aux & 31, size = op->osize;
    uint64_t mask = stack_mask(c), sp = c->x.reg[X86_RSP], bp = c->x.reg[X86_RBP], frame;

    sp = (sp - size) & mask;
    store_sized(c, op, stack_linear(c, op, sp, size, MMU_WRITE), size, bp);
    frame = sp;
    for (unsigned i = 1; i < level; i++) {
        uint64_t from = (bp - i * size) & mask, value;

        value = load_sized(c, op, stack_linear(c, op, from, size, MMU_READ), size);
        sp = (sp - size) & mask;
        store_sized(c, op, stack_linear(c, op, sp, size, MMU_WRITE), size, value);
    }
    frame |= c->x.reg[X86_RSP] & ~mask & 0xFFFFFFFF; /* a 16-bit stack: ESP, not SP */
    if (level) {
        sp = (sp - size) & mask;
        store_sized(c, op, stack_linear(c, op, sp, size, MMU_WRITE), size, frame);
    }
    sp = (sp - op->imm) & mask;
    /* The new top of the stack must be writable (SDM volume 2, ENTER). */
    probe_write(c, op, stack_linear(c, op, sp, size, MMU_WRITE), size);
    set_reg(c, X86_RBP * 8, size, frame);
    set_sp(c, sp);
    return op + 1;
}

const struct uop *op_leave64(struct vcpu *c, const struct uop *op)
{
    uint64_t value = load64(c, op, c->x.reg[X86_RBP]);

    c->x.reg[X86_RSP] = c->x.reg[X86_RBP] + 8;
    c->x.reg[X86_RBP] = value;
    return op + 1;
}

const struct uop *op_leave(struct vcpu *c, const struct uop *op)
{
    uint64_t bp = c->x.reg[X86_RBP] & stack_mask(c);
    uint64_t value = load_sized(c, op, stack_linear(c, op, bp, op->osize, MMU_READ), op->osize);

    set_sp(c, bp + op->osize);
    set_reg(c, X86_RBP * 8, op->osize, value);
    return op + 1;
}

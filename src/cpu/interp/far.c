/*
 * Far transfers by instructions: JMP, CALL and RET between segments, through call gates and tasks
 * (SDM volume 3, 5.8); INT n, INT3, INTO and INT1.
 */
#include "cpu/interp/far.h"

#include "cpu/core/deliver.h"
#include "cpu/core/task.h"
#include "cpu/interp/handlers.h"
#include "cpu/interp/operand.h"

/* Reads the selector and offset of a far operand, which is immediate or in memory. */
static void far_operand(struct vcpu *c, const struct uop *op, uint16_t *selector, uint64_t *offset)
{
    if (op->ea == EA_NONE) { /* ptr16:16 or ptr16:32: selector above the offset */
        *selector = (uint16_t)(op->imm >> 32);
        *offset = (uint32_t)op->imm;
    } else {
        uint64_t linear = ea_linear(c, op, op->osize + 2u, MMU_READ);

        *offset = load_sized(c, op, linear, op->osize);
        *selector = load16(c, op, linear + op->osize);
    }
}

/* Raises #GP(0) if OFFSET cannot be executed in the code segment D. */
static void check_target(struct vcpu *c, const struct uop *op, const struct descriptor *d,
                         uint64_t offset)
{
    bool l = in_long_mode(c) && (d->low >> 53 & 1);

    if (l ? !is_canonical(offset) : offset > desc_to_seg(d, 0).limit)
        raise_error(c, op, X86_GP, 0);
}

/* Checks the code segment of a far JMP or CALL that goes there directly, and so without a change of
 * privilege. */
static void check_direct_code(struct vcpu *c, const struct uop *op, const struct descriptor *d)
{
    uint32_t error = selector_error(c, d->selector);

    if (desc_conforming(d) ? desc_dpl(d) > cpl(c)
                           : (d->selector & 3u) > cpl(c) || desc_dpl(d) != cpl(c))
        raise_error(c, op, X86_GP, error);
    if (!desc_present(d))
        raise_error(c, op, X86_NP, error);
    if (in_long_mode(c) && (d->low >> 53 & 1) && (d->low >> 54 & 1))
        raise_error(c, op, X86_GP, error);
}

/* The content of a call gate. */
struct call_gate {
    struct descriptor code;
    uint64_t offset;
    unsigned size;   /* of the frame's items */
    unsigned params; /* items to copy */
};

static void read_call_gate(struct vcpu *c, const struct uop *op, struct descriptor *gate,
                           struct call_gate *g)
{
    uint16_t selector = gate->low >> 16 & 0xFFFF;
    uint32_t error = selector_error(c, gate->selector);

    if (desc_dpl(gate) < cpl(c) || desc_dpl(gate) < (gate->selector & 3u))
        raise_error(c, op, X86_GP, error);
    if (!desc_present(gate))
        raise_error(c, op, X86_NP, error);
    g->offset = gate->low & 0xFFFF;
    g->params = gate->low >> 32 & 31;
    g->size = desc_type(gate) == SYS_CALL16 ? 2 : 4;
    if (g->size == 4)
        g->offset |= gate->low >> 32 & 0xFFFF0000;
    if (in_long_mode(c)) {
        desc_read_high(c, op, gate);
        g->offset |= gate->high << 32;
        g->params = 0;
        g->size = 8;
    }
    if (!(selector & ~3u))
        raise_error(c, op, X86_GP, 0);
    desc_need(c, op, selector, X86_GP, &g->code);
    error = selector_error(c, selector);
    if (!desc_is_code(&g->code) || desc_dpl(&g->code) > cpl(c))
        raise_error(c, op, X86_GP, error);
    if (in_long_mode(c) && (!(g->code.low >> 53 & 1) || (g->code.low >> 54 & 1)))
        raise_error(c, op, X86_GP, error);
    if (!desc_present(&g->code))
        raise_error(c, op, X86_NP, error);
}

/* CALL through a gate to an inner level: new stack, old SS:rSP, parameters, return address. */
static const struct uop *call_inner(struct vcpu *c, const struct uop *op, struct call_gate *g)
{
    unsigned level = desc_dpl(&g->code);
    struct frame old = frame_current(c, g->size), f;
    struct descriptor stack;
    uint64_t params[32];
    struct x86_seg new_ss = {0};
    uint16_t ss;
    uint32_t esp;

    if (in_long_mode(c)) {
        f = frame_64(tss_stack_64(c, op, 4 + level * 8), 8, false);
    } else {
        tss_stack(c, op, level, &ss, &esp);
        ss_need(c, op, ss, level, X86_TS, &stack);
        new_ss = desc_to_seg(&stack, ss);
        f = frame_of(&new_ss, esp, g->size, false);
    }
    for (unsigned i = 0; i < g->params; i++)
        params[i] = frame_pop(c, op, &old);
    frame_push(c, op, &f, c->x.seg[X86_SS].selector);
    frame_push(c, op, &f, c->x.reg[X86_RSP]);
    for (unsigned i = g->params; i > 0; i--)
        frame_push(c, op, &f, params[i - 1]);
    frame_push(c, op, &f, c->x.seg[X86_CS].selector);
    frame_push(c, op, &f, next_rip(c, op));
    check_target(c, op, &g->code, g->offset);
    load_cs(c, op, g->code.selector, &g->code, level);
    if (in_long_mode(c))
        load_null_ss(c, level);
    else
        c->x.seg[X86_SS] = new_ss;
    frame_set_sp(c, &f);
    update_mode(c);
    update_context(c);
    return go_far(c, g->offset);
}

/* Executes a far JMP or CALL to a call gate, a task gate or a TSS. */
static const struct uop *far_system(struct vcpu *c, const struct uop *op, struct descriptor *d,
                                    bool call)
{
    uint32_t error = selector_error(c, d->selector);
    unsigned type = desc_type(d);
    struct call_gate g;

    if (desc_s(d) || (in_long_mode(c) && type != SYS_CALL))
        raise_error(c, op, X86_GP, error);
    if (type == SYS_TSS || type == SYS_TSS16 || type == SYS_TASK_GATE) {
        if (desc_dpl(d) < cpl(c) || desc_dpl(d) < (d->selector & 3u))
            raise_error(c, op, X86_GP, error);
        if (!desc_present(d))
            raise_error(c, op, X86_NP, error);
        if (type == SYS_TASK_GATE) {
            uint16_t selector = d->low >> 16 & 0xFFFF;

            error = selector_error(c, selector);
            if (selector & 4)
                raise_error(c, op, X86_GP, error);
            desc_need(c, op, selector, X86_GP, d);
            if (desc_s(d) || (desc_type(d) != SYS_TSS && desc_type(d) != SYS_TSS16))
                raise_error(c, op, X86_GP, error);
            if (!desc_present(d))
                raise_error(c, op, X86_NP, error);
        }
        task_switch(c, op, d, call ? TASK_CALL : TASK_JMP, next_rip(c, op));
        return go_far(c, c->x.reg[X86_RIP]);
    }
    if (type != SYS_CALL && type != SYS_CALL16)
        raise_error(c, op, X86_GP, error);
    read_call_gate(c, op, d, &g);
    if (call && !desc_conforming(&g.code) && desc_dpl(&g.code) < cpl(c))
        return call_inner(c, op, &g);
    if (!desc_conforming(&g.code) && desc_dpl(&g.code) != cpl(c))
        raise_error(c, op, X86_GP, selector_error(c, g.code.selector));
    check_target(c, op, &g.code, g.offset);
    if (call) {
        struct frame f = frame_current(c, g.size);

        if (in_long_mode(c))
            f = frame_64(c->x.reg[X86_RSP], 8, cpl(c) == 3);
        frame_push(c, op, &f, c->x.seg[X86_CS].selector);
        frame_push(c, op, &f, next_rip(c, op));
        frame_set_sp(c, &f);
    }
    load_cs(c, op, g.code.selector, &g.code, cpl(c));
    return go_far(c, g.offset);
}

static const struct uop *far_transfer(struct vcpu *c, const struct uop *op, bool call)
{
    struct frame f = frame_current(c, op->osize);
    bool real = in_real(c) || in_v86(c);
    struct descriptor d;
    uint16_t selector;
    uint64_t offset;

    far_operand(c, op, &selector, &offset);
    if (!real) {
        if (!(selector & ~3u))
            raise_error(c, op, X86_GP, 0);
        desc_need(c, op, selector, X86_GP, &d);
        if (!desc_is_code(&d))
            return far_system(c, op, &d, call);
        check_direct_code(c, op, &d);
        check_target(c, op, &d, offset);
    } else if (offset > c->x.seg[X86_CS].limit) {
        raise_error(c, op, X86_GP, 0);
    }
    if (call) {
        frame_push(c, op, &f, c->x.seg[X86_CS].selector);
        frame_push(c, op, &f, next_rip(c, op));
        frame_set_sp(c, &f);
    }
    if (real)
        load_segment_real(c, X86_CS, selector);
    else
        load_cs(c, op, selector, &d, cpl(c));
    return go_far(c, offset);
}

const struct uop *op_jmp_far(struct vcpu *c, const struct uop *op)
{
    return far_transfer(c, op, false);
}

const struct uop *op_call_far(struct vcpu *c, const struct uop *op)
{
    return far_transfer(c, op, true);
}

const struct uop *op_ret_far(struct vcpu *c, const struct uop *op)
{
    struct frame f = frame_current(c, op->osize);
    uint64_t offset = frame_pop(c, op, &f);
    uint16_t selector = (uint16_t)frame_pop(c, op, &f);
    struct descriptor d;
    unsigned level = selector & 3;

    if (in_real(c) || in_v86(c)) {
        if (offset > c->x.seg[X86_CS].limit)
            raise_error(c, op, X86_GP, 0);
        f.sp += op->imm;
        frame_set_sp(c, &f);
        load_segment_real(c, X86_CS, selector);
        return go_far(c, offset);
    }
    return_code_segment(c, op, selector, &d);
    check_target(c, op, &d, offset);
    f.sp += op->imm;
    if (level > cpl(c)) {
        uint64_t sp = frame_pop(c, op, &f);
        uint16_t ss = (uint16_t)frame_pop(c, op, &f);

        return_to_outer(c, op, &d, ss, sp + op->imm);
    } else {
        frame_set_sp(c, &f);
        load_cs(c, op, selector, &d, level);
    }
    return go_far(c, offset);
}

/* --- INT n, INT3, INTO, INT1 ------------------------------------------------------------------ */

/* Delivers VECTOR with a return address behind the instruction. A fault on the way is raised at the
 * instruction. CHECKED: the gate's DPL is checked. */
static const struct uop *software_interrupt(struct vcpu *c, const struct uop *op, int vector,
                                            bool checked)
{
    struct event event = {.vector = vector, .software = checked, .external = !checked};

    c->software_start = c->x.reg[X86_RIP] + op->off;
    c->x.reg[X86_RIP] = next_rip(c, op);
    c->in_software = c->no_step = true;
    deliver(c, &event);
    c->in_software = false;
    return go_far(c, c->x.reg[X86_RIP]);
}

const struct uop *op_int(struct vcpu *c, const struct uop *op)
{
    if (in_v86(c) && iopl(c) < 3)
        raise_error(c, op, X86_GP, 0);
    return software_interrupt(c, op, (int)op->imm & 0xFF, true);
}

const struct uop *op_int3(struct vcpu *c, const struct uop *op)
{
    return software_interrupt(c, op, X86_BP, true);
}

const struct uop *op_into(struct vcpu *c, const struct uop *op)
{
    if (!(c->cc & CC_OF))
        return end_block(c, op);
    return software_interrupt(c, op, X86_OF, true);
}

/* INT1 (ICEBP) is not subject to the gate's DPL. */
const struct uop *op_int1(struct vcpu *c, const struct uop *op)
{
    return software_interrupt(c, op, X86_DB, false);
}

/*
 * Returns: IRET in all its forms, and what far RET shares with it; SYSCALL, SYSRET, SYSENTER and
 * SYSEXIT (SDM volume 2).
 */
#include "cpu/core/debug.h"
#include "cpu/core/task.h"
#include "cpu/interp/far.h"
#include "cpu/interp/handlers.h"

void return_code_segment(struct vcpu *c, const struct uop *op, uint16_t selector,
                         struct descriptor *d)
{
    uint32_t error = selector_error(c, selector);
    unsigned level = selector & 3;

    if (!(selector & ~3u))
        raise_error(c, op, X86_GP, 0);
    desc_need(c, op, selector, X86_GP, d);
    if (!desc_is_code(d) || level < cpl(c) ||
        (desc_conforming(d) ? desc_dpl(d) > level : desc_dpl(d) != level))
        raise_error(c, op, X86_GP, error);
    if (in_long_mode(c) && (d->low >> 53 & 1) && (d->low >> 54 & 1))
        raise_error(c, op, X86_GP, error);
    if (!desc_present(d))
        raise_error(c, op, X86_NP, error);
}

/* Whether SS is null and may be: a return to 64-bit code at a level below 3. */
static bool null_ss_allowed(struct vcpu *c, const struct descriptor *code, uint16_t ss)
{
    unsigned level = code->selector & 3;

    return in_long_mode(c) && (code->low >> 53 & 1) && !(ss & ~3u) && level < 3 &&
           (ss & 3u) == level;
}

void return_to_outer(struct vcpu *c, const struct uop *op, struct descriptor *code, uint16_t ss,
                     uint64_t sp)
{
    unsigned level = code->selector & 3;
    bool null_ss = null_ss_allowed(c, code, ss);
    struct descriptor stack;

    if (!null_ss)
        ss_need(c, op, ss, level, X86_GP, &stack);
    load_cs(c, op, code->selector, code, level);
    if (null_ss)
        load_null_ss(c, level);
    else
        c->x.seg[X86_SS] = desc_to_seg(&stack, ss);
    update_mode(c);
    update_context(c);
    if (in_64(c))
        c->x.reg[X86_RSP] = sp;
    else if (c->x.seg[X86_SS].attr & X86_ATTR_DB)
        c->x.reg[X86_RSP] = (uint32_t)sp;
    else
        REG16(c, X86_RSP * 8) = (uint16_t)sp;
    drop_privileged_segments(c);
}

/* Returns the bits of RFLAGS that IRET may change at the present CPL and IOPL. */
static uint64_t iret_flags(const struct vcpu *c, unsigned size, uint64_t image)
{
    uint64_t may = X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT;

    if (size != 2)
        may |= X86_FLAG_RF | X86_FLAG_AC | X86_FLAG_ID;
    if (cpl(c) <= iopl(c))
        may |= X86_FLAG_IF;
    if (cpl(c) == 0) {
        may |= X86_FLAG_IOPL;
        if (size != 2)
            may |= X86_FLAG_VIF | X86_FLAG_VIP;
    }
    return (flags_get(c) & ~may) | (image & may);
}

/* Ends an IRET, which goes on at RIP. */
static const struct uop *iret_done(struct vcpu *c, uint64_t rip)
{
    c->keep_rf = true;
    update_stepping(c);
    meter_transfer(c->meter, TRACE_RESUME, rip, 0);
    return go_far(c, rip);
}

static const struct uop *iret_real(struct vcpu *c, const struct uop *op)
{
    struct frame f = frame_current(c, op->osize);
    uint64_t ip, image;
    uint16_t cs;

    if (in_v86(c) && iopl(c) < 3)
        raise_error(c, op, X86_GP, 0);
    ip = frame_pop(c, op, &f);
    cs = (uint16_t)frame_pop(c, op, &f);
    image = frame_pop(c, op, &f);
    if (ip > c->x.seg[X86_CS].limit)
        raise_error(c, op, X86_GP, 0);
    frame_set_sp(c, &f);
    load_segment_real(c, X86_CS, cs);
    /* At IOPL 3 virtual-8086 code changes all but IOPL and VM; real mode runs at level 0. */
    flags_set(c, iret_flags(c, op->osize, image));
    return iret_done(c, ip);
}

/* IRET at level 0 with VM set in the image: returns to virtual-8086 mode. */
static const struct uop *iret_to_v86(struct vcpu *c, const struct uop *op, struct frame *f,
                                     uint64_t ip, uint16_t cs, uint64_t image)
{
    static const uint8_t order[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    uint64_t sp = frame_pop(c, op, f);
    uint16_t ss = (uint16_t)frame_pop(c, op, f), data[4];

    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        data[i] = (uint16_t)frame_pop(c, op, f);
    if (ip > 0xFFFF)
        raise_error(c, op, X86_GP, 0);
    flags_set(c, (image & 0x3F7FD5) | X86_FLAG_ONE | X86_FLAG_VM);
    load_segment_real(c, X86_CS, cs);
    load_segment_real(c, X86_SS, ss);
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        load_segment_real(c, order[i], data[i]);
    c->x.reg[X86_RSP] = (uint32_t)sp;
    update_context(c);
    return iret_done(c, ip);
}

static const struct uop *iret_task(struct vcpu *c, const struct uop *op)
{
    uint16_t link = (uint16_t)load_system(c, op, c->x.tr.base, 2);
    struct descriptor d;

    if (link & 4)
        raise_error(c, op, X86_TS, selector_error(c, link));
    desc_need(c, op, link, X86_TS, &d);
    if (desc_s(&d) || (desc_type(&d) != SYS_TSS_BUSY && desc_type(&d) != SYS_TSS16_BUSY))
        raise_error(c, op, X86_TS, selector_error(c, link));
    if (!desc_present(&d))
        raise_error(c, op, X86_NP, selector_error(c, link));
    task_switch(c, op, &d, TASK_IRET, next_rip(c, op));
    return iret_done(c, c->x.reg[X86_RIP]);
}

const struct uop *op_iret(struct vcpu *c, const struct uop *op)
{
    bool from_64 = in_64(c), null_ss;
    struct frame f = frame_current(c, op->osize);
    uint64_t ip, image, sp = 0, flags;
    struct descriptor d;
    uint16_t cs, ss = 0;
    unsigned level;

    meter_transfer(c->meter, TRACE_RETURN, rip_of(c, op), op->mnemonic);
    c->x.nmi_blocked = false; /* even if this faults (SDM volume 3, 6.7.1) */
    if (c->x.nmis_pending)
        c->check_interrupt = true;
    if (in_real(c) || in_v86(c))
        return iret_real(c, op);
    if (c->x.rflags & X86_FLAG_NT) {
        if (in_long_mode(c))
            raise_error(c, op, X86_GP, 0);
        return iret_task(c, op);
    }
    ip = frame_pop(c, op, &f);
    cs = (uint16_t)frame_pop(c, op, &f);
    image = frame_pop(c, op, &f);
    if ((image & X86_FLAG_VM) && cpl(c) == 0 && op->osize == 4 && !in_long_mode(c))
        return iret_to_v86(c, op, &f, ip, cs, image);
    return_code_segment(c, op, cs, &d);
    level = cs & 3;
    if (in_long_mode(c) && (d.low >> 53 & 1) ? !is_canonical(ip) : ip > desc_to_seg(&d, 0).limit)
        raise_error(c, op, X86_GP, 0);
    flags = iret_flags(c, op->osize, image);
    if (level > cpl(c) || from_64) {
        sp = frame_pop(c, op, &f);
        ss = (uint16_t)frame_pop(c, op, &f);
    }
    if (level > cpl(c)) {
        return_to_outer(c, op, &d, ss, sp);
    } else if (from_64) { /* 64-bit code pops SS:RSP at the same level too */
        struct descriptor stack;

        null_ss = null_ss_allowed(c, &d, ss);
        if (!null_ss)
            ss_need(c, op, ss, level, X86_GP, &stack);
        load_cs(c, op, cs, &d, level);
        if (null_ss)
            load_null_ss(c, level);
        else
            c->x.seg[X86_SS] = desc_to_seg(&stack, ss);
        update_mode(c);
        if (in_64(c))
            c->x.reg[X86_RSP] = sp;
        else if (c->x.seg[X86_SS].attr & X86_ATTR_DB)
            c->x.reg[X86_RSP] = (uint32_t)sp;
        else
            REG16(c, X86_RSP * 8) = (uint16_t)sp;
    } else {
        frame_set_sp(c, &f);
        load_cs(c, op, cs, &d, level);
    }
    flags_set(c, flags);
    return iret_done(c, ip);
}

/* --- Fast system calls ------------------------------------------------------------------------ */

/* Returns the flat segments that these instructions load without a look at any table. */
static struct x86_seg flat_code(uint16_t selector, unsigned level, bool long_mode)
{
    return (struct x86_seg){
        .limit = 0xFFFFFFFF,
        .attr = (uint16_t)(X86_ATTR_G | (long_mode ? X86_ATTR_L : X86_ATTR_DB) | X86_ATTR_P |
                           X86_ATTR_S | X86_ATTR_CODE | X86_ATTR_WRITE | X86_ATTR_ACCESSED |
                           level << X86_ATTR_DPL_SHIFT),
        .selector = selector,
    };
}

static struct x86_seg flat_stack(uint16_t selector, unsigned level)
{
    return (struct x86_seg){
        .limit = 0xFFFFFFFF,
        .attr = (uint16_t)(X86_ATTR_G | X86_ATTR_DB | X86_ATTR_P | X86_ATTR_S | X86_ATTR_WRITE |
                           X86_ATTR_ACCESSED | level << X86_ATTR_DPL_SHIFT),
        .selector = selector,
    };
}

/* Ends SYSCALL or SYSENTER: loads CS and SS, and goes on at RIP. */
static const struct uop *fast_enter(struct vcpu *c, struct x86_seg cs, struct x86_seg ss,
                                    uint64_t rip)
{
    /* TF counts as it is now: SYSCALL may mask it, and SYSRET traps at once when it sets it. */
    c->no_step = true;
    if (c->x.rflags & X86_FLAG_TF) {
        debug_note_step(c);
        update_stepping(c);
    }
    c->x.seg[X86_CS] = cs;
    c->x.seg[X86_SS] = ss;
    update_mode(c);
    update_context(c);
    return go_far(c, rip);
}

/* Ends SYSRET or SYSEXIT. */
static const struct uop *fast_leave(struct vcpu *c, struct x86_seg cs, struct x86_seg ss,
                                    uint64_t rip)
{
    fast_enter(c, cs, ss, rip);
    meter_transfer(c->meter, TRACE_RESUME, rip, 0);
    return NULL;
}

const struct uop *op_syscall(struct vcpu *c, const struct uop *op)
{
    uint16_t selector = (uint16_t)(c->x.star >> 32 & 0xFFFC);
    unsigned before;

    if (!(c->x.efer & X86_EFER_SCE) || !in_64(c))
        raise_fault(c, op, X86_UD);
    counter_add(&c->exits[CAUSE_SYSCALL], 1);
    before = meter_enter(c->meter, CAUSE_SYSCALL, rip_of(c, op), c->x.reg[X86_RAX], true);
    c->x.reg[X86_RCX] = next_rip(c, op);
    c->x.reg[X86_R11] = flags_get(c);
    flags_set(c, (flags_get(c) & ~(c->x.sfmask | X86_FLAG_RF)) | X86_FLAG_ONE);
    fast_enter(c, flat_code(selector, 0, true), flat_stack((uint16_t)(selector + 8), 0),
               c->x.lstar);
    meter_leave(c->meter, before);
    meter_transfer(c->meter, TRACE_ENTRY, c->x.reg[X86_RIP], 0);
    return NULL;
}

const struct uop *op_sysret(struct vcpu *c, const struct uop *op)
{
    uint16_t base = (uint16_t)(c->x.star >> 48);
    bool to_64 = op->osize == 8;
    uint64_t rip = to_64 ? c->x.reg[X86_RCX] : (uint32_t)c->x.reg[X86_RCX];

    if (!(c->x.efer & X86_EFER_SCE) || !in_64(c))
        raise_fault(c, op, X86_UD);
    if (cpl(c) != 0 || (to_64 && !is_canonical(rip)))
        raise_error(c, op, X86_GP, 0);
    meter_transfer(c->meter, TRACE_RETURN, rip_of(c, op), ZYDIS_MNEMONIC_SYSRET);
    flags_set(c, (c->x.reg[X86_R11] & 0x3C7FD7 & ~(uint64_t)(X86_FLAG_RF | X86_FLAG_VM)) |
                     X86_FLAG_ONE);
    return fast_leave(c, flat_code((uint16_t)((base + (to_64 ? 16 : 0)) | 3), 3, to_64),
                      flat_stack((uint16_t)((base + 8) | 3), 3), rip);
}

const struct uop *op_sysenter(struct vcpu *c, const struct uop *op)
{
    uint16_t selector = (uint16_t)(c->x.sysenter_cs & 0xFFFC);
    bool long_mode = in_long_mode(c);
    unsigned before;

    if (in_real(c) || !selector)
        raise_error(c, op, X86_GP, 0);
    counter_add(&c->exits[CAUSE_SYSCALL], 1);
    before = meter_enter(c->meter, CAUSE_SYSCALL, rip_of(c, op), c->x.reg[X86_RAX], long_mode);
    flags_set(c, flags_get(c) & ~(uint64_t)(X86_FLAG_VM | X86_FLAG_IF | X86_FLAG_RF));
    c->x.reg[X86_RSP] = long_mode ? c->x.sysenter_esp : (uint32_t)c->x.sysenter_esp;
    fast_enter(c, flat_code(selector, 0, long_mode), flat_stack((uint16_t)(selector + 8), 0),
               long_mode ? c->x.sysenter_eip : (uint32_t)c->x.sysenter_eip);
    meter_leave(c->meter, before);
    meter_transfer(c->meter, TRACE_ENTRY, c->x.reg[X86_RIP], 0);
    return NULL;
}

const struct uop *op_sysexit(struct vcpu *c, const struct uop *op)
{
    uint16_t selector = (uint16_t)(c->x.sysenter_cs & 0xFFFC);
    bool to_64 = op->osize == 8;
    uint64_t rip = c->x.reg[X86_RDX], rsp = c->x.reg[X86_RCX];

    if (in_real(c) || !selector || cpl(c) != 0)
        raise_error(c, op, X86_GP, 0);
    if (to_64 && (!is_canonical(rip) || !is_canonical(rsp)))
        raise_error(c, op, X86_GP, 0);
    meter_transfer(c->meter, TRACE_RETURN, rip_of(c, op), ZYDIS_MNEMONIC_SYSEXIT);
    c->x.reg[X86_RSP] = to_64 ? rsp : (uint32_t)rsp;
    return fast_leave(c, flat_code((uint16_t)((selector + (to_64 ? 32 : 16)) | 3), 3, to_64),
                      flat_stack((uint16_t)((selector + (to_64 ? 40 : 24)) | 3), 3),
                      to_64 ? rip : (uint32_t)rip);
}

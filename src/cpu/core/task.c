/*
 * The task-state segment: inner stacks, and hardware task switches (SDM volume 3, chapter 8).
 */
#include "cpu/core/task.h"

#include "cpu/core/access.h"
#include "cpu/core/control.h"
#include "cpu/core/debug.h"
#include "cpu/core/mode.h"

static bool tss_is_32(const struct x86_seg *tr)
{
    return tr->attr & 8;
}

_Noreturn static void raise_tss(struct vcpu *c, const struct uop *op)
{
    raise_error(c, op, X86_TS, selector_error(c, c->x.tr.selector));
}

void tss_stack(struct vcpu *c, const struct uop *op, unsigned level, uint16_t *ss, uint32_t *esp)
{
    bool wide = tss_is_32(&c->x.tr);
    unsigned at = wide ? 4 + level * 8 : 2 + level * 4;

    if (at + (wide ? 5u : 3u) > c->x.tr.limit)
        raise_tss(c, op);
    *esp = (uint32_t)load_system(c, op, c->x.tr.base + at, wide ? 4 : 2);
    *ss = (uint16_t)load_system(c, op, c->x.tr.base + at + (wide ? 4 : 2), 2);
}

uint64_t tss_stack_64(struct vcpu *c, const struct uop *op, unsigned offset)
{
    uint64_t rsp;

    if (offset + 7 > c->x.tr.limit)
        raise_tss(c, op);
    rsp = load_system(c, op, c->x.tr.base + offset, 8);
    if (!is_canonical(rsp))
        raise_error(c, op, X86_SS_FAULT, c->external);
    return rsp;
}

/* Offsets in the 32-bit and the 16-bit TSS (SDM volume 3, figures 8-2 and 8-10). */
struct tss_layout {
    uint8_t size; /* of a register */
    uint8_t ip, flags, gpr, segments, segment_step, segment_count, ldt;
    uint8_t cr3; /* 0: none */
    uint8_t limit;
};
static const struct tss_layout tss32 = {4, 0x20, 0x24, 0x28, 0x48, 4, 6, 0x60, 0x1C, 0x67};
static const struct tss_layout tss16 = {2, 0x0E, 0x10, 0x12, 0x22, 2, 4, 0x2A, 0, 0x2B};

static void save_task(struct vcpu *c, const struct uop *op, uint64_t next, bool clear_nt)
{
    const struct tss_layout *l = tss_is_32(&c->x.tr) ? &tss32 : &tss16;
    uint64_t base = c->x.tr.base, flags = flags_get(c);

    if (clear_nt)
        flags &= ~(uint64_t)X86_FLAG_NT;
    store_system(c, op, base + l->ip, l->size, next);
    store_system(c, op, base + l->flags, l->size, flags);
    for (unsigned i = 0; i < 8; i++)
        store_system(c, op, base + l->gpr + i * l->size, l->size, c->x.reg[i]);
    for (unsigned i = 0; i < l->segment_count; i++)
        store_system(c, op, base + l->segments + i * l->segment_step, 2, c->x.seg[i].selector);
}

/* What a TSS holds, read before anything changes. */
struct task {
    uint64_t ip, flags, gpr[8], cr3;
    uint16_t segment[X86_SEGMENTS], ldt;
    bool trap;
};

static void read_task(struct vcpu *c, const struct uop *op, uint64_t base,
                      const struct tss_layout *l, struct task *t)
{
    *t = (struct task){0};
    t->ip = load_system(c, op, base + l->ip, l->size);
    t->flags = load_system(c, op, base + l->flags, l->size);
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = load_system(c, op, base + l->gpr + i * l->size, l->size);
    for (unsigned i = 0; i < l->segment_count; i++)
        t->segment[i] = (uint16_t)load_system(c, op, base + l->segments + i * l->segment_step, 2);
    t->ldt = (uint16_t)load_system(c, op, base + l->ldt, 2);
    if (l->cr3) {
        t->cr3 = load_system(c, op, base + l->cr3, 4);
        t->trap = load_system(c, op, base + 0x64, 2) & 1;
    }
}

/* Loads the new task's LDT; faults are raised in the new task (#TS). */
static void load_task_ldt(struct vcpu *c, uint16_t selector)
{
    struct descriptor d;

    c->x.ldtr = (struct x86_seg){.selector = selector, .attr = X86_ATTR_UNUSABLE};
    if (!(selector & ~3u))
        return;
    if (selector & 4)
        raise_error(c, NULL, X86_TS, selector_error(c, selector));
    desc_need(c, NULL, selector, X86_TS, &d);
    if (desc_s(&d) || desc_type(&d) != SYS_LDT || !desc_present(&d))
        raise_error(c, NULL, X86_TS, selector_error(c, selector));
    c->x.ldtr = desc_to_seg(&d, selector);
}

static void load_task_segments(struct vcpu *c, const struct task *t)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    uint16_t cs = t->segment[X86_CS];
    struct descriptor d;
    unsigned level = cs & 3;

    if (!(cs & ~3u))
        raise_error(c, NULL, X86_TS, selector_error(c, cs));
    desc_need(c, NULL, cs, X86_TS, &d);
    if (!desc_is_code(&d) || (desc_conforming(&d) ? desc_dpl(&d) > level : desc_dpl(&d) != level))
        raise_error(c, NULL, X86_TS, selector_error(c, cs));
    if (!desc_present(&d))
        raise_error(c, NULL, X86_NP, selector_error(c, cs));
    load_cs(c, NULL, cs, &d, level);
    load_ss(c, NULL, t->segment[X86_SS], level, X86_TS);
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
        load_data_segment(c, NULL, data[i], t->segment[data[i]], X86_TS);
    if (c->x.reg[X86_RIP] > c->x.seg[X86_CS].limit)
        raise_error(c, NULL, X86_GP, 0);
}

void task_switch(struct vcpu *c, const struct uop *op, struct descriptor *d,
                 enum task_switch reason, uint64_t next)
{
    const struct tss_layout *l = desc_type(d) & 8 ? &tss32 : &tss16;
    struct x86_seg tr = desc_to_seg(d, d->selector);
    uint16_t old = c->x.tr.selector;
    struct descriptor old_desc;
    struct task t;

    if (tr.limit < l->limit)
        raise_error(c, op, X86_TS, selector_error(c, d->selector));
    read_task(c, op, tr.base, l, &t);
    save_task(c, op, next, reason == TASK_IRET);
    if (reason == TASK_JMP || reason == TASK_IRET) {
        desc_need(c, op, old, X86_TS, &old_desc);
        desc_set_busy(c, op, &old_desc, false);
    }
    if (reason == TASK_CALL || reason == TASK_INT) {
        store_system(c, op, tr.base, 2, old); /* back link */
        t.flags |= X86_FLAG_NT;
    }
    if (reason != TASK_IRET)
        desc_set_busy(c, op, d, true);

    /* Committed: from here on faults belong to the new task. */
    tr.attr |= 2;
    c->x.tr = tr;
    c->x.reg[X86_RIP] = t.ip;
    c->x.cr0 |= X86_CR0_TS;
    update_fp_trap(c);
    if (l->cr3 && (c->x.cr0 & X86_CR0_PG))
        write_cr(c, NULL, 3, t.cr3);
    for (unsigned i = 0; i < 8; i++)
        set_reg(c, i * 8, l->size == 4 ? 4 : 2, t.gpr[i]);
    debug_set_control(c, c->x.dr7 & ~(uint64_t)0x155); /* no local breakpoints */
    flags_set(c, (t.flags & 0x3F7FD5) | X86_FLAG_ONE);
    /* The segments cannot be used until they are loaded. */
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        c->x.seg[i].selector = t.segment[i];
    if (t.flags & X86_FLAG_VM) { /* before what can fault, so that they fit VM */
        for (unsigned i = 0; i < X86_SEGMENTS; i++)
            load_segment_real(c, i, t.segment[i]);
        update_context(c);
    }
    load_task_ldt(c, t.ldt);
    if (!(t.flags & X86_FLAG_VM))
        load_task_segments(c, &t);
    c->keep_rf = true;
    if (t.trap) {
        c->x.pending_dr6 |= DR6_BT;
        c->x.trap_pending = true;
    }
    update_stepping(c);
}

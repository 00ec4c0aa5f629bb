/*
 * Delivery of exceptions and interrupts (SDM volume 3, chapter 6; INT n in volume 2): through the
 * real-mode IVT, 16- and 32-bit gates, task gates and 64-bit gates with IST.
 *
 * The frame is written before any register changes, so that a fault on the way leaves the
 * interrupted state as it was.
 */
#include "cpu/core/deliver.h"

#include "cpu/core/access.h"
#include "cpu/core/debug.h"
#include "cpu/core/frame.h"
#include "cpu/core/mode.h"
#include "cpu/core/task.h"

/* Returns the flags that the frame of EVENT gets. */
static uint64_t frame_flags(const struct vcpu *c, const struct event *event)
{
    uint64_t flags = flags_get(c);

    /* With RF set, an instruction breakpoint does not fire again when the instruction is restarted.
     * */
    if (!event->software && !event->external && event->vector != X86_DB &&
        event->vector != X86_DF && event->vector != X86_MC)
        flags |= X86_FLAG_RF;
    return flags;
}

static void deliver_real(struct vcpu *c, const struct event *event)
{
    struct frame f = frame_current(c, 2);
    uint64_t entry;

    if (event->vector * 4u + 3 > c->x.idtr.limit)
        raise_error(c, NULL, X86_GP, 0);
    entry = load_system(c, NULL, c->x.idtr.base + event->vector * 4u, 4);
    frame_push(c, NULL, &f, flags_get(c));
    frame_push(c, NULL, &f, c->x.seg[X86_CS].selector);
    frame_push(c, NULL, &f, c->x.reg[X86_RIP]);
    frame_set_sp(c, &f);
    load_segment_real(c, X86_CS, (uint16_t)(entry >> 16));
    c->x.reg[X86_RIP] = entry & 0xFFFF;
    flags_set(c, flags_get(c) & ~(uint64_t)(X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_AC | X86_FLAG_RF));
}

/* Returns the error code of a fault that the gate itself causes: with the IDT bit. */
static uint32_t gate_error(const struct vcpu *c, const struct event *event)
{
    return (uint32_t)event->vector << 3 | 2 | c->external;
}

/* Reads the gate of EVENT; raises #GP or #NP if it is not one for delivery. */
static void read_gate(struct vcpu *c, const struct event *event, struct descriptor *gate)
{
    unsigned size = in_long_mode(c) ? 16 : 8;
    unsigned type;

    if (event->vector * size + size - 1 > c->x.idtr.limit)
        raise_error(c, NULL, X86_GP, gate_error(c, event));
    gate->linear = c->x.idtr.base + event->vector * size;
    gate->low = load_system(c, NULL, gate->linear, 8);
    gate->high = size == 16 ? load_system(c, NULL, gate->linear + 8, 8) : 0;
    type = desc_type(gate);
    if (desc_s(gate) ||
        !(type == SYS_INT || type == SYS_TRAP ||
          (!in_long_mode(c) && (type == SYS_INT16 || type == SYS_TRAP16 || type == SYS_TASK_GATE))))
        raise_error(c, NULL, X86_GP, gate_error(c, event));
    if (event->software && desc_dpl(gate) < cpl(c))
        raise_error(c, NULL, X86_GP, gate_error(c, event));
    if (!desc_present(gate))
        raise_error(c, NULL, X86_NP, gate_error(c, event));
}

static void deliver_task(struct vcpu *c, const struct event *event, const struct descriptor *gate)
{
    uint16_t selector = gate->low >> 16 & 0xFFFF;
    struct descriptor tss;

    if (selector & 4)
        raise_error(c, NULL, X86_GP, selector_error(c, selector));
    desc_need(c, NULL, selector, X86_GP, &tss);
    if (desc_s(&tss) || (desc_type(&tss) & ~8u) != SYS_TSS16)
        raise_error(c, NULL, X86_GP, selector_error(c, selector));
    if (!desc_present(&tss))
        raise_error(c, NULL, X86_NP, selector_error(c, selector));
    task_switch(c, NULL, &tss, TASK_INT, c->x.reg[X86_RIP]);
    if (event->has_error) {
        struct frame f = frame_current(c, (desc_type(&tss) & 8) ? 4 : 2);

        frame_push(c, NULL, &f, event->error);
        frame_set_sp(c, &f);
    }
}

/* Reads and checks the handler's code segment. Returns the privilege level that it runs at. */
static unsigned handler_segment(struct vcpu *c, const struct descriptor *gate,
                                struct descriptor *code)
{
    uint16_t selector = gate->low >> 16 & 0xFFFF;
    bool l, d;

    if (!(selector & ~3u))
        raise_error(c, NULL, X86_GP, c->external);
    desc_need(c, NULL, selector, X86_GP, code);
    if (!desc_is_code(code) || desc_dpl(code) > cpl(c))
        raise_error(c, NULL, X86_GP, selector_error(c, selector));
    if (!desc_present(code))
        raise_error(c, NULL, X86_NP, selector_error(c, selector));
    l = code->low >> 53 & 1;
    d = code->low >> 54 & 1;
    if (in_long_mode(c) && (!l || d))
        raise_error(c, NULL, X86_GP, selector_error(c, selector));
    return desc_conforming(code) ? cpl(c) : desc_dpl(code);
}

/* Clears the flags that every delivery in protected mode clears. */
static void enter_handler_flags(struct vcpu *c, const struct descriptor *gate)
{
    uint64_t clear = X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM;

    if (!(desc_type(gate) & 1)) /* interrupt gates; trap gates leave IF */
        clear |= X86_FLAG_IF;
    flags_set(c, flags_get(c) & ~clear);
}

static void deliver_64(struct vcpu *c, const struct event *event)
{
    struct descriptor gate, code;
    unsigned ist, level, old = cpl(c);
    uint64_t target;
    struct frame f;

    read_gate(c, event, &gate);
    level = handler_segment(c, &gate, &code);
    ist = gate.low >> 32 & 7;
    target = (gate.low & 0xFFFF) | (gate.low >> 32 & 0xFFFF0000) | gate.high << 32;
    if (ist)
        f = frame_64(tss_stack_64(c, NULL, 28 + ist * 8), 8, level == 3);
    else if (level < old)
        f = frame_64(tss_stack_64(c, NULL, 4 + level * 8), 8, level == 3);
    else
        f = frame_64(c->x.reg[X86_RSP], 8, level == 3);
    f.sp &= ~15ULL;
    frame_push(c, NULL, &f, c->x.seg[X86_SS].selector);
    frame_push(c, NULL, &f, c->x.reg[X86_RSP]);
    frame_push(c, NULL, &f, frame_flags(c, event));
    frame_push(c, NULL, &f, c->x.seg[X86_CS].selector);
    frame_push(c, NULL, &f, c->x.reg[X86_RIP]);
    if (event->has_error)
        frame_push(c, NULL, &f, event->error);
    if (!is_canonical(target))
        raise_error(c, NULL, X86_GP, c->external);
    load_cs(c, NULL, code.selector, &code, level);
    if (level < old)
        load_null_ss(c, level);
    c->x.reg[X86_RSP] = f.sp;
    c->x.reg[X86_RIP] = target;
    enter_handler_flags(c, &gate);
}

/* Pushes the data segments, for a return to virtual-8086 mode. */
static void push_v86_segments(struct vcpu *c, struct frame *f)
{
    static const uint8_t order[] = {X86_GS, X86_FS, X86_DS, X86_ES};

    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        frame_push(c, NULL, f, c->x.seg[order[i]].selector);
}

static void null_v86_segments(struct vcpu *c)
{
    static const uint8_t data[] = {X86_GS, X86_FS, X86_DS, X86_ES};

    for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
        c->x.seg[data[i]] = (struct x86_seg){.attr = X86_ATTR_UNUSABLE};
}

static void deliver_protected(struct vcpu *c, const struct event *event)
{
    struct descriptor gate, code;
    unsigned level, old = cpl(c), size;
    bool v86 = in_v86(c), inner;
    struct x86_seg new_ss = c->x.seg[X86_SS];
    uint64_t target, old_flags;
    struct frame f;

    read_gate(c, event, &gate);
    if (desc_type(&gate) == SYS_TASK_GATE) {
        deliver_task(c, event, &gate);
        return;
    }
    size = desc_type(&gate) & 8 ? 4 : 2;
    level = handler_segment(c, &gate, &code);
    inner = level < old;
    if (v86 && level != 0)
        raise_error(c, NULL, X86_GP, selector_error(c, code.selector));
    target = gate.low & 0xFFFF;
    if (size == 4)
        target |= gate.low >> 32 & 0xFFFF0000;
    old_flags = frame_flags(c, event);
    if (inner) {
        struct descriptor stack;
        uint16_t ss;
        uint32_t esp;

        tss_stack(c, NULL, level, &ss, &esp);
        ss_need(c, NULL, ss, level, X86_TS, &stack);
        new_ss = desc_to_seg(&stack, ss);
        f = frame_of(&new_ss, esp, size, level == 3);
        if (v86)
            push_v86_segments(c, &f);
        frame_push(c, NULL, &f, c->x.seg[X86_SS].selector);
        frame_push(c, NULL, &f, c->x.reg[X86_RSP]);
    } else {
        f = frame_current(c, size);
    }
    frame_push(c, NULL, &f, old_flags);
    frame_push(c, NULL, &f, c->x.seg[X86_CS].selector);
    frame_push(c, NULL, &f, c->x.reg[X86_RIP]);
    if (event->has_error)
        frame_push(c, NULL, &f, event->error);
    if (target > desc_to_seg(&code, 0).limit)
        raise_error(c, NULL, X86_GP, c->external);
    load_cs(c, NULL, code.selector, &code, level);
    if (inner) {
        c->x.seg[X86_SS] = new_ss;
        if (v86)
            null_v86_segments(c);
    }
    frame_set_sp(c, &f);
    c->x.reg[X86_RIP] = target;
    enter_handler_flags(c, &gate);
    update_mode(c);
    update_context(c);
}

/* Tells the meter that EVENT is being delivered. */
static unsigned enter_delivery(struct vcpu *c, const struct event *event)
{
    uint64_t rip = event->software && c->in_software ? c->software_start : c->x.reg[X86_RIP];

    if (event->vector == X86_PF && !event->software)
        return meter_enter(c->meter, CAUSE_PAGE_FAULT, rip, c->x.cr2, event->error);
    return meter_enter(c->meter, event->external ? CAUSE_INTERRUPT : CAUSE_EXCEPTION, rip,
                       (unsigned)event->vector, event->software ? TRACE_SOFTWARE : 0);
}

void deliver(struct vcpu *c, const struct event *event)
{
    unsigned before = enter_delivery(c, event);

    /* INT n and external interrupts are benign, whatever their vector (SDM volume 3, table 6-4). */
    c->delivering = event->software || event->external ? X86_NMI : event->vector;
    c->external = event->software ? 0 : 1;
    c->x.interrupt_shadow = c->x.ss_shadow = false;
    c->debug_passed = false;
    if (event->vector == X86_DB && !event->software)
        debug_exception(c);
    if (in_real(c))
        deliver_real(c, event);
    else if (in_long_mode(c))
        deliver_64(c, event);
    else
        deliver_protected(c, event);
    c->external = 0;
    c->delivering = -1;
    c->delivered = true;
    update_stepping(c);
    meter_leave(c->meter, before);
    meter_transfer(c->meter, TRACE_ENTRY, c->x.reg[X86_RIP], 0);
}

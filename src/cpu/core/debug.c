/*
 * Breakpoints and single step (SDM volume 3, 18.2 and 18.3).
 */
#include "cpu/core/debug.h"

#include "cpu/core/code.h"
#include "cpu/core/fault.h"
#include "cpu/core/mode.h"

#define DROPS_MAX 16u /* pages that are dropped from the software TLB one by one */

/* If breakpoint I is enabled, drops its page from what the vCPU has cached, so that every access or
 * jump to the page is compared with the breakpoint from now on. */
static void watch_page(struct vcpu *c, unsigned i)
{
    if (!breakpoint_enabled(c, i))
        return;
    switch (breakpoint_type(c, i)) {
    case TYPE_EXECUTE: code_unmapped(c, c->x.dr[i], false); break;
    case TYPE_WRITE:
    case TYPE_ACCESS: mmu_drop_page(&c->mmu, c->x.dr[i]); break;
    default: break; /* each port access compares by itself */
    }
}

void debug_set_address(struct vcpu *c, unsigned i, uint64_t address)
{
    if (c->x.dr[i] != address) {
        c->x.dr[i] = address;
        watch_page(c, i);
    }
    update_stepping(c);
}

void debug_set_control(struct vcpu *c, uint64_t dr7)
{
    uint64_t changed = c->x.dr7 ^ dr7;

    c->x.dr7 = dr7;
    for (unsigned i = 0; i < 4; i++)
        if (changed & (3u << i * 2 | 15u << (16 + i * 4)))
            watch_page(c, i);
    update_stepping(c);
}

/* Notes the breakpoints of these TYPES that the access meets. Those that are not enabled appear in
 * DR6 beside one that is, but not in the trap of a later instruction. */
static void note_breakpoints(struct vcpu *c, unsigned types, uint64_t address, unsigned size)
{
    for (unsigned i = 0; i < 4; i++) {
        if ((types >> breakpoint_type(c, i) & 1) && breakpoint_overlaps(c, i, address, size)) {
            c->x.pending_dr6 |= DR6_B0 << i;
            c->x.trap_pending |= breakpoint_enabled(c, i);
        }
    }
    if (!c->x.trap_pending && !c->stepping) /* after a step, the run loop does this */
        c->x.pending_dr6 = 0;
}

/* Whether OP can be given up and executed again as a step. Not if it is a step already, nor without
 * an OP: then the access belongs to an event or a task switch, behind which the trap comes anyway.
 * */
static bool can_restart(const struct vcpu *c, const struct uop *op)
{
    return op && !c->stepping && c->delivering < 0;
}

void debug_data_access(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                       bool write)
{
    int met = breakpoint_of_debugger_on(c, linear, size, write);

    if (met >= 0) {
        c->debug_met = (unsigned)met;
        c->debug_hit = true;
    }
    note_breakpoints(c, TYPES_ACCESS | (write ? TYPES_WRITE : 0), linear, size);
    if ((c->x.trap_pending || c->debug_hit) && can_restart(c, op))
        restart_as_step(c, op);
}

void debug_device_access(struct vcpu *c, const struct uop *op)
{
    if (((c->x.dr7 & 0xFF) || c->debug.count) && can_restart(c, op))
        restart_as_step(c, op);
}

void debug_port_access(struct vcpu *c, unsigned port, unsigned size)
{
    if (c->x.cr4 & X86_CR4_DE)
        note_breakpoints(c, TYPES_PORT, port, size);
}

void debug_check_fetch(struct vcpu *c, uint64_t linear)
{
    uint64_t met = 0;
    bool hit = false;

    if (c->x.rflags & X86_FLAG_RF)
        return;
    for (unsigned i = 0; i < 4; i++) {
        if (breakpoint_type(c, i) == TYPE_EXECUTE && c->x.dr[i] == linear) {
            met |= DR6_B0 << i;
            hit |= breakpoint_enabled(c, i);
        }
    }
    if (!hit)
        return;
    c->x.dr6 = (c->x.dr6 & ~(uint64_t)0xF) | met;
    raise_fault(c, NULL, X86_DB);
}

bool debug_stops(struct vcpu *c)
{
    int met = c->debug_passed ? -1 : breakpoint_of_debugger(c, code_address(c));

    c->debug_passed = met >= 0;
    if (met >= 0)
        c->debug_met = (unsigned)met;
    return met >= 0;
}

/* Drops what the vCPU has cached of the pages of B, so that every access or jump to them is
 * compared with it from now on. */
static void watch_pages_of(struct vcpu *c, const struct engine_breakpoint *b)
{
    uint64_t page = ALIGN_DOWN(b->address, MEM_PAGE_SIZE);

    if (b->kind == BREAK_EXECUTE) {
        code_unmapped(c, b->address, false);
    } else if (b->size > DROPS_MAX * MEM_PAGE_SIZE) {
        flush_translations(c);
    } else {
        for (uint64_t at = page; at - page < b->address - page + b->size; at += MEM_PAGE_SIZE)
            mmu_drop_page(&c->mmu, at);
    }
}

void debug_attach(struct vcpu *c, const struct engine_debug *debug)
{
    c->debug = *debug;
    c->debug_hit = c->debug_passed = c->delivered = false;
    for (unsigned i = 0; i < debug->count; i++)
        watch_pages_of(c, &debug->breakpoint[i]);
    update_stepping(c);
}

void debug_exception(struct vcpu *c)
{
    c->x.dr7 &= ~(uint64_t)DR7_GD; /* the handler may use the debug registers */
    if (!c->x.trap_pending)
        return;
    c->x.dr6 = (c->x.dr6 & ~(uint64_t)0xF) | c->x.pending_dr6;
    c->x.pending_dr6 = 0;
    c->x.trap_pending = false;
}

void debug_note_step(struct vcpu *c)
{
    c->x.pending_dr6 |= DR6_BS;
    c->x.trap_pending = true;
}

/*
 * Debug registers and single step (SDM volume 3, 18.2 and 18.3).
 */
#include "cpu/core/debug.h"

enum { TYPE_EXECUTE = 0, TYPE_WRITE = 1, TYPE_PORT = 2, TYPE_ACCESS = 3 };

static bool enabled(const struct vcpu *c, unsigned i)
{
    return c->x.dr7 >> (i * 2) & 3;
}

static unsigned type_of(const struct vcpu *c, unsigned i)
{
    return c->x.dr7 >> (16 + i * 4) & 3;
}

static unsigned length_of(const struct vcpu *c, unsigned i)
{
    static const uint8_t length[4] = {1, 2, 8, 4};

    return length[c->x.dr7 >> (18 + i * 4) & 3];
}

/* Whether breakpoint I's range meets [ADDRESS, ADDRESS + SIZE). */
static bool overlaps(const struct vcpu *c, unsigned i, uint64_t address, unsigned size)
{
    unsigned length = length_of(c, i);
    uint64_t start = c->x.dr[i] & ~(uint64_t)(length - 1);

    return address < start + length && start < address + size;
}

bool debug_armed(const struct vcpu *c, unsigned types)
{
    for (unsigned i = 0; i < 4; i++)
        if (enabled(c, i) && (types >> type_of(c, i) & 1))
            return true;
    return false;
}

static bool same_page(uint64_t a, uint64_t b)
{
    return (a ^ b) < MEM_PAGE_SIZE;
}

/* Whether a breakpoint of one of the TYPES is enabled in the 2^BITS bytes around LINEAR. */
static bool watches(const struct vcpu *c, unsigned types, uint64_t linear, unsigned bits)
{
    for (unsigned i = 0; i < 4; i++)
        if (enabled(c, i) && (types >> type_of(c, i) & 1) && !((c->x.dr[i] ^ linear) >> bits))
            return true;
    return false;
}

bool debug_watches_data(const struct vcpu *c, uint64_t linear, unsigned bits)
{
    return c->watches_data && watches(c, 1u << TYPE_WRITE | 1u << TYPE_ACCESS, linear, bits);
}

bool debug_watches_code_by(const struct vcpu *c, unsigned i, uint64_t linear)
{
    return enabled(c, i) && type_of(c, i) == TYPE_EXECUTE &&
           same_page(ALIGN_DOWN(c->x.dr[i], MEM_PAGE_SIZE), ALIGN_DOWN(linear, MEM_PAGE_SIZE));
}

bool debug_watches_code(const struct vcpu *c, uint64_t linear)
{
    return c->watches_code && watches(c, 1u << TYPE_EXECUTE, linear, MEM_PAGE_SHIFT);
}

bool debug_breaks(const struct vcpu *c, uint64_t linear, unsigned size)
{
    for (unsigned i = 0; i < 4; i++)
        if (enabled(c, i) && type_of(c, i) == TYPE_EXECUTE && c->x.dr[i] - linear < size)
            return true;
    return false;
}

/* Drops what this vCPU remembers of breakpoint I's page, if the breakpoint is enabled: from now on
 * every access or jump to the page is looked at. */
static void close_ways(struct vcpu *c, unsigned i)
{
    if (!enabled(c, i))
        return;
    switch (type_of(c, i)) {
    case TYPE_EXECUTE: block_flush_page(c, c->x.dr[i], false); break;
    case TYPE_WRITE:
    case TYPE_ACCESS: mmu_drop_page(&c->mmu, c->x.dr[i]); break;
    default: break; /* port accesses all look */
    }
}

void debug_set_address(struct vcpu *c, unsigned i, uint64_t address)
{
    if (c->x.dr[i] != address) {
        c->x.dr[i] = address;
        close_ways(c, i);
    }
    update_stepping(c);
}

void debug_set_control(struct vcpu *c, uint64_t dr7)
{
    uint64_t changed = c->x.dr7 ^ dr7;

    c->x.dr7 = dr7;
    for (unsigned i = 0; i < 4; i++)
        if (changed & (3u << i * 2 | 15u << (16 + i * 4)))
            close_ways(c, i);
    update_stepping(c);
}

/* Notes the breakpoints of these TYPES that the access meets. Those that are not enabled are shown
 * in DR6 beside one that is, but not by the trap of a later instruction. */
static void note(struct vcpu *c, unsigned types, uint64_t address, unsigned size)
{
    for (unsigned i = 0; i < 4; i++) {
        if ((types >> type_of(c, i) & 1) && overlaps(c, i, address, size)) {
            c->pending_dr6 |= DR6_B0 << i;
            c->trap_pending |= enabled(c, i);
        }
    }
    if (!c->trap_pending && !c->stepping) /* a step ends with debug_after_instruction */
        c->pending_dr6 = 0;
}

/* Whether OP can be executed again as a step, and is not one already. What has no uop is a part of
 * an event or a task switch, after which the trap follows anyway. */
static bool can_restart(const struct vcpu *c, const struct uop *op)
{
    return op && !c->stepping && c->delivering < 0;
}

void debug_data_access(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                       bool write)
{
    note(c, 1u << TYPE_ACCESS | (write ? 1u << TYPE_WRITE : 0), linear, size);
    if (c->trap_pending && can_restart(c, op))
        restart_as_step(c, op);
}

void debug_device_access(struct vcpu *c, const struct uop *op)
{
    if ((c->x.dr7 & 0xFF) && can_restart(c, op))
        restart_as_step(c, op);
}

void debug_port_access(struct vcpu *c, unsigned port, unsigned size)
{
    if (c->x.cr4 & X86_CR4_DE)
        note(c, 1u << TYPE_PORT, port, size);
}

void debug_check_fetch(struct vcpu *c, uint64_t linear)
{
    uint64_t met = 0;
    bool hit = false;

    if (c->x.rflags & X86_FLAG_RF)
        return;
    for (unsigned i = 0; i < 4; i++) {
        if (type_of(c, i) == TYPE_EXECUTE && c->x.dr[i] == linear) {
            met |= DR6_B0 << i;
            hit |= enabled(c, i);
        }
    }
    if (!hit)
        return;
    c->x.dr6 = (c->x.dr6 & ~(uint64_t)0xF) | met;
    raise_fault(c, NULL, X86_DB);
}

void debug_exception(struct vcpu *c)
{
    c->x.dr7 &= ~(uint64_t)DR7_GD; /* the handler may use the debug registers */
    if (!c->trap_pending)
        return;
    c->x.dr6 = (c->x.dr6 & ~(uint64_t)0xF) | c->pending_dr6;
    c->pending_dr6 = 0;
    c->trap_pending = false;
}

void debug_after_instruction(struct vcpu *c, bool step)
{
    struct event event = {.vector = X86_DB};

    if (step) {
        c->pending_dr6 |= DR6_BS;
        c->trap_pending = true;
    }
    if (!c->trap_pending) {
        c->pending_dr6 = 0; /* of breakpoints that are not enabled */
        return;
    }
    c->x.activity = X86_RUNNING; /* it may have been HLT */
    deliver(c, &event);
}

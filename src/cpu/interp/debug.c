/*
 * Debug registers and single step (SDM volume 3, 18.2 and 18.3).
 */
#include "cpu/interp/debug.h"

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

static void note(struct vcpu *c, unsigned types, uint64_t address, unsigned size)
{
    for (unsigned i = 0; i < 4; i++) {
        if ((types >> type_of(c, i) & 1) && overlaps(c, i, address, size)) {
            c->pending_dr6 |= DR6_B0 << i;
            c->trap_pending |= enabled(c, i);
        }
    }
}

void debug_data_access(struct vcpu *c, uint64_t linear, unsigned size, bool write)
{
    note(c, 1u << TYPE_ACCESS | (write ? 1u << TYPE_WRITE : 0), linear, size);
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
    if (!c->trap_pending)
        return;
    c->x.activity = X86_RUNNING; /* it may have been HLT */
    deliver(c, &event);
}

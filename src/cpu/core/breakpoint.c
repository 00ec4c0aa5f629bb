/*
 * Breakpoints, looked up. The debug registers: SDM volume 3, 18.2.4 and 18.2.5.
 */
#include "cpu/core/breakpoint.h"

bool breakpoint_enabled(const struct vcpu *c, unsigned i)
{
    return c->x.dr7 >> (i * 2) & 3;
}

unsigned breakpoint_type(const struct vcpu *c, unsigned i)
{
    return c->x.dr7 >> (16 + i * 4) & 3;
}

static unsigned length_of(const struct vcpu *c, unsigned i)
{
    static const uint8_t length[4] = {1, 2, 8, 4};

    return length[c->x.dr7 >> (18 + i * 4) & 3];
}

bool breakpoint_overlaps(const struct vcpu *c, unsigned i, uint64_t address, unsigned size)
{
    unsigned length = length_of(c, i);
    uint64_t start = c->x.dr[i] & ~(uint64_t)(length - 1);

    return address < start + length && start < address + size;
}

static bool has_type(const struct vcpu *c, unsigned i, unsigned types)
{
    return breakpoint_enabled(c, i) && (types >> breakpoint_type(c, i) & 1);
}

static bool guest_has(const struct vcpu *c, unsigned types)
{
    for (unsigned i = 0; i < ARRAY_SIZE(c->x.dr); i++)
        if (has_type(c, i, types))
            return true;
    return false;
}

/* --- The debugger's ----------------------------------------------------------------------------
 */

static bool debugger_has(const struct vcpu *c, bool code)
{
    for (unsigned i = 0; i < c->debug.count; i++)
        if ((c->debug.breakpoint[i].kind == BREAK_EXECUTE) == code)
            return true;
    return false;
}

/* Whether [A, A + SIZE) and [B, B + OTHER) have a byte in common; either may wrap at 2^64. */
static bool meets(uint64_t a, uint64_t size, uint64_t b, uint64_t other)
{
    return a - b < other || b - a < size;
}

/* Returns the debugger's first data breakpoint in [LINEAR, LINEAR + SIZE), or -1. READS: leaves out
 * those that only writes meet. */
static int debugger_on_data(const struct vcpu *c, uint64_t linear, uint64_t size, bool reads)
{
    for (unsigned i = 0; i < c->debug.count; i++) {
        const struct engine_breakpoint *b = &c->debug.breakpoint[i];

        if ((b->kind == BREAK_ACCESS || (b->kind == BREAK_WRITE && !reads)) &&
            meets(b->address, b->size, linear, size))
            return (int)i;
    }
    return -1;
}

int breakpoint_of_debugger(const struct vcpu *c, uint64_t linear)
{
    for (unsigned i = 0; i < c->debug.count; i++)
        if (c->debug.breakpoint[i].kind == BREAK_EXECUTE &&
            c->debug.breakpoint[i].address == linear)
            return (int)i;
    return -1;
}

int breakpoint_of_debugger_on(const struct vcpu *c, uint64_t linear, unsigned size, bool write)
{
    return debugger_on_data(c, linear, size, !write);
}

/* --- Both --------------------------------------------------------------------------------------
 */

bool breakpoint_armed_on_data(const struct vcpu *c)
{
    return guest_has(c, TYPES_DATA) || debugger_has(c, false);
}

bool breakpoint_armed_on_code(const struct vcpu *c)
{
    return guest_has(c, TYPES_EXECUTE) || debugger_has(c, true);
}

bool breakpoint_on_data(const struct vcpu *c, uint64_t linear, unsigned bits)
{
    uint64_t size = 1ULL << bits;

    if (likely(!c->watches_data))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(c->x.dr); i++)
        if (has_type(c, i, TYPES_DATA) && !((c->x.dr[i] ^ linear) >> bits))
            return true;
    return debugger_on_data(c, ALIGN_DOWN(linear, size), size, false) >= 0;
}

/* Stores the address of breakpoint I, counting the guest's and then the debugger's. Returns false
 * if that is not an instruction breakpoint. */
static bool code_breakpoint(const struct vcpu *c, unsigned i, uint64_t *address)
{
    const struct engine_breakpoint *b;

    if (i < ARRAY_SIZE(c->x.dr)) {
        *address = c->x.dr[i];
        return has_type(c, i, TYPES_EXECUTE);
    }
    b = &c->debug.breakpoint[i - ARRAY_SIZE(c->x.dr)];
    *address = b->address;
    return b->kind == BREAK_EXECUTE;
}

bool breakpoint_next_on_code(const struct vcpu *c, uint64_t linear, unsigned *i, uint64_t *address)
{
    while (*i < ARRAY_SIZE(c->x.dr) + c->debug.count)
        if (code_breakpoint(c, (*i)++, address) && !((*address ^ linear) >> MEM_PAGE_SHIFT))
            return true;
    return false;
}

bool breakpoint_on_code(const struct vcpu *c, uint64_t linear)
{
    unsigned i = 0;
    uint64_t address;

    return unlikely(c->watches_code) && breakpoint_next_on_code(c, linear, &i, &address);
}

bool breakpoint_in_code(const struct vcpu *c, uint64_t linear, unsigned size)
{
    uint64_t address;

    for (unsigned i = 0; i < ARRAY_SIZE(c->x.dr) + c->debug.count; i++)
        if (code_breakpoint(c, i, &address) && address - linear < size)
            return true;
    return false;
}

/*
 * The debug registers, read (SDM volume 3, 18.2.4 and 18.2.5).
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

bool breakpoint_armed(const struct vcpu *c, unsigned types)
{
    for (unsigned i = 0; i < ARRAY_SIZE(c->x.dr); i++)
        if (has_type(c, i, types))
            return true;
    return false;
}

/* Whether a breakpoint of one of the TYPES is enabled in the 2^BITS bytes around LINEAR. */
static bool is_around(const struct vcpu *c, unsigned types, uint64_t linear, unsigned bits)
{
    for (unsigned i = 0; i < ARRAY_SIZE(c->x.dr); i++)
        if (has_type(c, i, types) && !((c->x.dr[i] ^ linear) >> bits))
            return true;
    return false;
}

bool breakpoint_on_data(const struct vcpu *c, uint64_t linear, unsigned bits)
{
    return c->watches_data && is_around(c, TYPES_DATA, linear, bits);
}

bool breakpoint_on_code(const struct vcpu *c, uint64_t linear)
{
    return c->watches_code && is_around(c, TYPES_EXECUTE, linear, MEM_PAGE_SHIFT);
}

bool breakpoint_is_on_code(const struct vcpu *c, unsigned i, uint64_t linear)
{
    return has_type(c, i, TYPES_EXECUTE) && !((c->x.dr[i] ^ linear) >> MEM_PAGE_SHIFT);
}

bool breakpoint_in_code(const struct vcpu *c, uint64_t linear, unsigned size)
{
    for (unsigned i = 0; i < ARRAY_SIZE(c->x.dr); i++)
        if (has_type(c, i, TYPES_EXECUTE) && c->x.dr[i] - linear < size)
            return true;
    return false;
}

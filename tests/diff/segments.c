/*
 * The segments of code that is not 64-bit: the flat ones that Linux gives to programs, and an LDT
 * with what they do not show: bases, limits, 16-bit segments, expand-down and read-only data, code
 * that cannot be read, and one that is not present (SDM volume 3, 3.4.5).
 */
#include "diff.h"

#define TYPE_DATA (X86_ATTR_P | X86_ATTR_DPL | X86_ATTR_S | X86_ATTR_ACCESSED)
#define TYPE_CODE (TYPE_DATA | X86_ATTR_CODE)
#define LOW       ((uint32_t)DIFF_LOW)
#define AS(n)     ((n) << 3 | 7) /* selector: of the LDT, RPL 3 */

const struct diff_segment diff_ldt[DIFF_LDT] = {
    {AS(0), TYPE_CODE | X86_ATTR_WRITE, LOW, DIFF_LIMIT},
    {AS(1), TYPE_DATA | X86_ATTR_WRITE, LOW, DIFF_LIMIT},
    {AS(2), TYPE_DATA | X86_ATTR_WRITE | X86_ATTR_DOWN | X86_ATTR_DB, LOW, DIFF_DATA - 1},
    {AS(3), TYPE_DATA | X86_ATTR_DB | X86_ATTR_G, LOW, 0xFFFFF},
    {AS(4), TYPE_CODE | X86_ATTR_DB, LOW, DIFF_LIMIT},
    {AS(5), (TYPE_DATA | X86_ATTR_WRITE | X86_ATTR_DB) & ~X86_ATTR_P, LOW, DIFF_LIMIT},
    {AS(6), TYPE_DATA | X86_ATTR_WRITE | X86_ATTR_DB, LOW, DIFF_LIMIT},
};

/* Linux's, as far as cases start with them. */
static const struct diff_segment flat[] = {
    {DIFF_CS64, TYPE_CODE | X86_ATTR_WRITE | X86_ATTR_L | X86_ATTR_G, 0, UINT32_MAX},
    {DIFF_CS32, TYPE_CODE | X86_ATTR_WRITE | X86_ATTR_DB | X86_ATTR_G, 0, UINT32_MAX},
    {DIFF_DS, TYPE_DATA | X86_ATTR_WRITE | X86_ATTR_DB | X86_ATTR_G, 0, UINT32_MAX},
};

const struct diff_segment *diff_find_segment(uint16_t selector)
{
    for (unsigned i = 0; i < DIFF_LDT; i++)
        if (diff_ldt[i].selector == selector)
            return &diff_ldt[i];
    for (unsigned i = 0; i < sizeof(flat) / sizeof(flat[0]); i++)
        if (flat[i].selector == selector)
            return &flat[i];
    return &flat[2];
}

uint64_t diff_segment_base(const struct diff_case *c, enum x86_segment segment)
{
    if (segment == X86_FS)
        return c->in.fs_base;
    if (segment == X86_GS)
        return c->in.gs_base;
    return diff_find_segment(c->in.selector[segment])->base;
}

uint64_t diff_code_offset(const struct diff_case *c, uint64_t ip)
{
    ip += diff_segment_base(c, X86_CS);
    return ip - (ip >= DIFF_HIGH ? DIFF_HIGH : DIFF_LOW);
}

bool diff_small_stack(const struct diff_case *c)
{
    return c->code_size != X86_CODE64 &&
           !(diff_find_segment(c->in.selector[X86_SS])->attr & X86_ATTR_DB);
}

uint64_t diff_stack_linear(const struct diff_case *c, uint64_t rsp)
{
    if (c->code_size == X86_CODE64)
        return rsp;
    return diff_segment_base(c, X86_SS) + (diff_small_stack(c) ? (uint16_t)rsp : (uint32_t)rsp);
}

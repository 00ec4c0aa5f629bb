/*
 * State that follows from control registers, segments and flags (SDM volume 3, 2.5, 4.6, table
 * 13-1).
 */
#include "cpu/core/mode.h"

#include "cpu/core/breakpoint.h"

static bool is_restricted(const struct x86_seg *s)
{
    return s->limit != 0xFFFFFFFF || !(s->attr & X86_ATTR_WRITE) ||
           (s->attr & (X86_ATTR_CODE | X86_ATTR_DOWN | X86_ATTR_UNUSABLE));
}

static bool is_flat(const struct vcpu *c, enum x86_segment seg)
{
    return c->x.seg[seg].base == 0 && !c->restricted[seg];
}

void update_mode(struct vcpu *c)
{
    const struct x86_seg *cs = &c->x.seg[X86_CS];
    bool long64 = in_long_mode(c) && (cs->attr & X86_ATTR_L);
    unsigned mode = long64 ? MODE_64 : cs->attr & X86_ATTR_DB ? MODE_32 : MODE_16;

    for (unsigned i = 0; i < X86_SEGMENTS; i++) {
        c->base[i] = long64 && i < X86_FS ? 0 : c->x.seg[i].base;
        c->restricted[i] = is_restricted(&c->x.seg[i]);
    }
    if (in_real(c) || in_v86(c))
        mode |= MODE_REAL;
    else if (!long64 && cs->base == 0 && cs->limit == 0xFFFFFFFF && is_flat(c, X86_DS) &&
             is_flat(c, X86_ES) && is_flat(c, X86_SS) && (c->x.seg[X86_SS].attr & X86_ATTR_DB))
        mode |= MODE_FLAT;
    c->mode = (uint8_t)mode;
}

void update_context(struct vcpu *c)
{
    c->context = mmu_context(&c->x);
    c->check_alignment = (c->x.cr0 & X86_CR0_AM) && (c->x.rflags & X86_FLAG_AC) && cpl(c) == 3;
    /* With the empty table, every access takes the slow path, which checks alignment. */
    c->tlb = c->check_alignment ? &c->mmu.empty : c->mmu.table[c->context];
}

void flush_translations(struct vcpu *c)
{
    mmu_flush_all(&c->mmu, &c->x);
    update_context(c);
}

void update_stepping(struct vcpu *c)
{
    c->watches_data = breakpoint_armed_on_data(c);
    c->watches_code = breakpoint_armed_on_code(c);
    c->stepping = (c->x.rflags & (X86_FLAG_TF | X86_FLAG_RF)) || c->x.interrupt_shadow ||
                  c->x.trap_pending || c->debug.step || c->debug_hit;
}

void flags_set(struct vcpu *c, uint64_t rflags)
{
    uint64_t changed = c->x.rflags ^ rflags;

    flags_set_status(c, rflags);
    c->x.rflags = (rflags & ~(uint64_t)X86_FLAGS_STATUS) | X86_FLAG_ONE;
    if (changed & rflags & X86_FLAG_IF)
        c->check_interrupt = true;
    if (changed & X86_FLAG_VM)
        update_mode(c);
    if (changed & (X86_FLAG_AC | X86_FLAG_VM))
        update_context(c);
    if (changed & (X86_FLAG_TF | X86_FLAG_RF))
        update_stepping(c);
}

void update_fp_trap(struct vcpu *c)
{
    uint64_t cr0 = c->x.cr0, need = X86_XCR0_SSE | X86_XCR0_AVX;
    unsigned trap = 0;

    if (cr0 & X86_CR0_TS)
        trap = FP_X87 | FP_SSE | FP_AVX | FP_MMX | (cr0 & X86_CR0_MP ? FP_WAIT : 0);
    if (cr0 & X86_CR0_EM)
        trap |= FP_X87 | FP_SSE | FP_MMX;
    if (!(c->x.cr4 & X86_CR4_OSFXSR))
        trap |= FP_SSE;
    if (!(c->x.cr4 & X86_CR4_OSXSAVE) || (c->x.xcr0 & need) != need)
        trap |= FP_AVX;
    c->fp_trap = (uint8_t)trap;
}

/*
 * Descriptors and segment registers (SDM volume 3, 3.4, 5.5 to 5.8).
 */
#include "cpu/core/segment.h"

#include "cpu/core/access.h"
#include "cpu/core/mode.h"

bool desc_read(struct vcpu *c, const struct uop *op, uint16_t selector, struct descriptor *d)
{
    uint64_t base = c->x.gdtr.base, limit = c->x.gdtr.limit;
    unsigned offset = selector & ~7u;

    if (selector & 4) {
        if (c->x.ldtr.attr & X86_ATTR_UNUSABLE)
            return false;
        base = c->x.ldtr.base;
        limit = c->x.ldtr.limit;
    }
    if (offset + 7 > limit)
        return false;
    d->selector = selector;
    d->linear = base + offset;
    if (!in_long_mode(c))
        d->linear = (uint32_t)d->linear;
    d->low = load_system(c, op, d->linear, 8);
    d->high = 0;
    return true;
}

void desc_need(struct vcpu *c, const struct uop *op, uint16_t selector, int vector,
               struct descriptor *d)
{
    if (!desc_read(c, op, selector, d))
        raise_error(c, op, vector, selector_error(c, selector));
}

void desc_read_high(struct vcpu *c, const struct uop *op, struct descriptor *d)
{
    uint64_t limit = d->selector & 4 ? c->x.ldtr.limit : c->x.gdtr.limit;

    if ((d->selector & ~7u) + 15 > limit)
        raise_error(c, op, X86_GP, selector_error(c, d->selector));
    d->high = load_system(c, op, d->linear + 8, 8);
    if (d->high >> 40 & 0x1F) /* the type field of the second half must be 0 */
        raise_error(c, op, X86_GP, selector_error(c, d->selector));
}

/* Sets the accessed bit in the table. */
static void set_accessed(struct vcpu *c, const struct uop *op, struct descriptor *d)
{
    if (desc_type(d) & X86_ATTR_ACCESSED)
        return;
    d->low |= 1ULL << 40;
    store_system(c, op, d->linear + 5, 1, d->low >> 40 & 0xFF);
}

void desc_set_busy(struct vcpu *c, const struct uop *op, const struct descriptor *d, bool busy)
{
    uint64_t access = d->low >> 40 & 0xFF;

    store_system(c, op, d->linear + 5, 1, busy ? access | 2 : access & ~2ULL);
}

struct x86_seg desc_to_seg(const struct descriptor *d, uint16_t selector)
{
    struct x86_seg seg = {
        .base = (d->low >> 16 & 0xFFFFFF) | (d->low >> 56 << 24),
        .limit = (uint32_t)((d->low & 0xFFFF) | (d->low >> 32 & 0xF0000)),
        .attr = d->low >> 40 & 0xF0FF,
        .selector = selector,
    };

    if (seg.attr & X86_ATTR_G)
        seg.limit = seg.limit << 12 | 0xFFF;
    return seg;
}

uint64_t desc_base_64(const struct descriptor *d)
{
    return (d->low >> 16 & 0xFFFFFF) | (d->low >> 56 << 24) | d->high << 32;
}

void load_segment_real(struct vcpu *c, unsigned seg, uint16_t selector)
{
    struct x86_seg *s = &c->x.seg[seg];

    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    if (in_v86(c)) {
        s->limit = 0xFFFF;
        s->attr = X86_ATTR_P | X86_ATTR_DPL | X86_ATTR_S | X86_ATTR_WRITE | X86_ATTR_ACCESSED;
    } else {
        /* The limit stays as it is, which makes "unreal mode" possible. */
        s->attr &= (uint16_t)(X86_ATTR_G | X86_ATTR_DB);
        s->attr |= X86_ATTR_P | X86_ATTR_S | X86_ATTR_WRITE | X86_ATTR_ACCESSED;
    }
    update_mode(c);
}

void load_null_ss(struct vcpu *c, unsigned level)
{
    c->x.seg[X86_SS] = (struct x86_seg){
        .attr = (uint16_t)(X86_ATTR_UNUSABLE | level << X86_ATTR_DPL_SHIFT),
        .selector = (uint16_t)level,
    };
    update_context(c);
}

void ss_need(struct vcpu *c, const struct uop *op, uint16_t selector, unsigned level, int vector,
             struct descriptor *d)
{
    if (!(selector & ~3u))
        raise_error(c, op, vector, selector_error(c, 0));
    desc_need(c, op, selector, vector, d);
    if ((selector & 3u) != level || !desc_s(d) || (desc_type(d) & 8) ||
        !(desc_type(d) & X86_ATTR_WRITE) || desc_dpl(d) != level)
        raise_error(c, op, vector, selector_error(c, selector));
    if (!desc_present(d))
        raise_error(c, op, X86_SS_FAULT, selector_error(c, selector));
    set_accessed(c, op, d);
}

void load_ss(struct vcpu *c, const struct uop *op, uint16_t selector, unsigned level, int vector)
{
    struct descriptor d;

    ss_need(c, op, selector, level, vector, &d);
    c->x.seg[X86_SS] = desc_to_seg(&d, selector);
    update_mode(c);
    update_context(c);
}

void load_data_segment(struct vcpu *c, const struct uop *op, unsigned seg, uint16_t selector,
                       int vector)
{
    struct descriptor d;
    bool conforming;

    if (!(selector & ~3u)) {
        c->x.seg[seg] = (struct x86_seg){.attr = X86_ATTR_UNUSABLE, .selector = selector};
        update_mode(c);
        return;
    }
    desc_need(c, op, selector, vector, &d);
    conforming = desc_is_code(&d) && desc_conforming(&d);
    if (!desc_s(&d) || (desc_is_code(&d) && !(desc_type(&d) & X86_ATTR_WRITE)) ||
        (!conforming && MAX(cpl(c), selector & 3u) > desc_dpl(&d)))
        raise_error(c, op, vector, selector_error(c, selector));
    if (!desc_present(&d))
        raise_error(c, op, X86_NP, selector_error(c, selector));
    set_accessed(c, op, &d);
    c->x.seg[seg] = desc_to_seg(&d, selector);
    update_mode(c);
}

void load_segment(struct vcpu *c, const struct uop *op, unsigned seg, uint16_t selector)
{
    if (in_real(c) || in_v86(c)) {
        load_segment_real(c, seg, selector);
    } else if (seg != X86_SS) {
        load_data_segment(c, op, seg, selector, X86_GP);
    } else if (!(selector & ~3u) && in_64(c) && cpl(c) < 3 && (selector & 3u) == cpl(c)) {
        load_null_ss(c, cpl(c));
    } else {
        load_ss(c, op, selector, cpl(c), X86_GP);
    }
}

void load_cs(struct vcpu *c, const struct uop *op, uint16_t selector, struct descriptor *d,
             unsigned level)
{
    set_accessed(c, op, d);
    c->x.seg[X86_CS] = desc_to_seg(d, (uint16_t)((selector & ~3u) | level));
    update_mode(c);
}

void drop_privileged_segments(struct vcpu *c)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        struct x86_seg *s = &c->x.seg[data[i]];
        unsigned dpl = (s->attr & X86_ATTR_DPL) >> X86_ATTR_DPL_SHIFT;
        bool conforming =
            (s->attr & (X86_ATTR_CODE | X86_ATTR_DOWN)) == (X86_ATTR_CODE | X86_ATTR_DOWN);

        /* A null selector loses its RPL. The base stays, as processors leave it. */
        if ((s->attr & X86_ATTR_UNUSABLE) || (!conforming && dpl < cpl(c))) {
            s->attr |= X86_ATTR_UNUSABLE;
            s->selector = 0;
        }
    }
    update_mode(c);
}

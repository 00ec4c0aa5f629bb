/*
 * Stack frames.
 */
#include "cpu/core/frame.h"

#include "cpu/core/access.h"

struct frame frame_of(const struct x86_seg *seg, uint64_t sp, unsigned size, bool user)
{
    return (struct frame){
        .base = seg->base,
        .sp = sp,
        .mask = seg->attr & X86_ATTR_DB ? 0xFFFFFFFF : 0xFFFF,
        .size = size,
        .user = user,
        .limit = seg->limit,
        .selector = seg->selector,
        .down = seg->attr & X86_ATTR_DOWN,
    };
}

struct frame frame_64(uint64_t sp, unsigned size, bool user)
{
    return (struct frame){.sp = sp, .mask = ~0ULL, .size = size, .user = user, .long_mode = true};
}

struct frame frame_current(struct vcpu *c, unsigned size)
{
    struct frame f;

    if (in_64(c))
        return frame_64(c->x.reg[X86_RSP], size, cpl(c) == 3);
    f = frame_of(&c->x.seg[X86_SS], c->x.reg[X86_RSP], size, cpl(c) == 3);
    f.selector = 0;
    return f;
}

/* Returns the linear address of an item at SP, after a check of the stack's limit. */
static uint64_t item_linear(struct vcpu *c, const struct uop *op, const struct frame *f,
                            uint64_t sp)
{
    uint64_t last = sp + f->size - 1;
    bool outside;

    if (f->long_mode)
        outside = !is_canonical(sp) || !is_canonical(last);
    else if (f->down)
        outside = sp <= f->limit || last > f->mask;
    else
        outside = last > f->limit;
    if (outside)
        raise_error(c, op, X86_SS_FAULT, selector_error(c, f->selector));
    return f->long_mode ? sp : (uint32_t)(f->base + sp);
}

/* Whether the frame is an inner stack while the present level is 3: then it is accessed with a
 * supervisor's rights. */
static bool is_system(const struct vcpu *c, const struct frame *f)
{
    return cpl(c) == 3 && !f->user;
}

void frame_push(struct vcpu *c, const struct uop *op, struct frame *f, uint64_t value)
{
    uint64_t sp = (f->sp - f->size) & f->mask;
    uint64_t linear = item_linear(c, op, f, sp);

    if (is_system(c, f))
        store_system(c, op, linear, f->size, value);
    else
        store_sized(c, op, linear, f->size, value);
    f->sp = (f->sp & ~f->mask) | sp;
}

uint64_t frame_pop(struct vcpu *c, const struct uop *op, struct frame *f)
{
    uint64_t sp = f->sp & f->mask;
    uint64_t linear = item_linear(c, op, f, sp);
    uint64_t value =
        is_system(c, f) ? load_system(c, op, linear, f->size) : load_sized(c, op, linear, f->size);

    f->sp = (f->sp & ~f->mask) | ((sp + f->size) & f->mask);
    return value;
}

void frame_set_sp(struct vcpu *c, const struct frame *f)
{
    if (f->mask == 0xFFFF)
        REG16(c, X86_RSP * 8) = (uint16_t)f->sp;
    else
        c->x.reg[X86_RSP] = f->sp & f->mask;
}

/*
 * Pushing and popping on the present stack, whose size SS or 64-bit mode gives.
 */
#ifndef DOPPEL_CPU_INTERP_STACK_H
#define DOPPEL_CPU_INTERP_STACK_H

#include "cpu/interp/interp.h"

/* Returns the bits of RSP that the stack uses. */
static inline uint64_t stack_mask(const struct vcpu *c)
{
    if (in_64(c))
        return ~0ULL;
    return c->x.seg[X86_SS].attr & X86_ATTR_DB ? 0xFFFFFFFF : 0xFFFF;
}

/* Adds DELTA to RSP, or to SP or ESP. */
void stack_adjust(struct vcpu *c, int64_t delta);
/* Pushes SIZE bytes. Changes nothing if that faults. */
void stack_push(struct vcpu *c, const struct uop *op, unsigned size, uint64_t value);
/* Reads SIZE bytes at OFFSET above RSP. */
uint64_t stack_peek(struct vcpu *c, const struct uop *op, unsigned size, unsigned offset);

static inline void push64(struct vcpu *c, const struct uop *op, uint64_t value)
{
    uint64_t sp = c->x.reg[X86_RSP] - 8;
    void *host = fast_write(c, sp, 8);

    if (likely(host)) {
        *(volatile unaligned64 *)host = value;
        c->x.reg[X86_RSP] = sp;
    } else {
        stack_push(c, op, 8, value);
    }
}

static inline uint64_t peek64(struct vcpu *c, const struct uop *op)
{
    const void *host = fast_read(c, c->x.reg[X86_RSP], 8);

    return likely(host) ? *(const volatile unaligned64 *)host : stack_peek(c, op, 8, 0);
}

#endif

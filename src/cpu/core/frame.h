/*
 * Stack frames that are built or read before SS:RSP change hands: by control transfers between
 * segments and privilege levels.
 */
#ifndef DOPPEL_CPU_CORE_FRAME_H
#define DOPPEL_CPU_CORE_FRAME_H

#include "cpu/core/segment.h"

/* A stack that is written or read before SS:RSP are changed. */
struct frame {
    uint64_t base, sp, mask; /* MASK: the bits of RSP that the stack uses */
    unsigned size;           /* of an item, in bytes */
    bool user;               /* accesses have a user's rights, else a supervisor's */
    uint32_t limit;
    uint16_t selector; /* for #SS: of a new stack segment, 0 for the present one */
    bool down;
    bool long_mode;
};

/* The present stack, or the one that SEG at SP will be. */
struct frame frame_current(struct vcpu *c, unsigned size);
struct frame frame_of(const struct x86_seg *seg, uint64_t sp, unsigned size, bool user);
struct frame frame_64(uint64_t sp, unsigned size, bool user);
void frame_push(struct vcpu *c, const struct uop *op, struct frame *f, uint64_t value);
uint64_t frame_pop(struct vcpu *c, const struct uop *op, struct frame *f);
/* Sets RSP to the frame's, as wide as the stack is. */
void frame_set_sp(struct vcpu *c, const struct frame *f);

#endif

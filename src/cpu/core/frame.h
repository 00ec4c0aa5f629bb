/*
 * Stack frames that control transfers between segments and privilege levels write or read before
 * they change SS:RSP.
 */
#ifndef DOPPEL_CPU_CORE_FRAME_H
#define DOPPEL_CPU_CORE_FRAME_H

#include "cpu/core/segment.h"

/* A stack, as it is or as it will be. */
struct frame {
    uint64_t base, sp, mask; /* MASK: the bits of RSP that the stack uses */
    unsigned size;           /* of an item, in bytes */
    bool user;               /* accesses have a user's rights, else a supervisor's */
    uint32_t limit;
    uint16_t selector; /* for #SS: of a new stack segment, 0 for the present one */
    bool down;
    bool long_mode;
};

/* Return the present stack; the one that SEG:SP will be; one of 64-bit mode. Items have SIZE bytes.
 * */
struct frame frame_current(struct vcpu *c, unsigned size);
struct frame frame_of(const struct x86_seg *seg, uint64_t sp, unsigned size, bool user);
struct frame frame_64(uint64_t sp, unsigned size, bool user);
void frame_push(struct vcpu *c, const struct uop *op, struct frame *f, uint64_t value);
uint64_t frame_pop(struct vcpu *c, const struct uop *op, struct frame *f);
/* Sets RSP to the frame's stack pointer, or SP or ESP if the stack is 16 or 32 bits wide. */
void frame_set_sp(struct vcpu *c, const struct frame *f);

#endif

/*
 * Descriptors and segment registers (SDM volume 3, chapter 3 and 5).
 */
#ifndef DOPPEL_CPU_CORE_SEGMENT_H
#define DOPPEL_CPU_CORE_SEGMENT_H

#include "cpu/core/vcpu.h"

/* System descriptor types (SDM volume 3, table 3-2). */
enum {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL16 = 4,
    SYS_TASK_GATE = 5,
    SYS_INT16 = 6,
    SYS_TRAP16 = 7,
    SYS_TSS = 9,
    SYS_TSS_BUSY = 11,
    SYS_CALL = 12,
    SYS_INT = 14,
    SYS_TRAP = 15,
};

struct descriptor {
    uint64_t low, high; /* high: the second half of a 16-byte system descriptor, read on demand */
    uint64_t linear;    /* where it stands */
    uint16_t selector;
};

static inline unsigned desc_type(const struct descriptor *d)
{
    return d->low >> 40 & 15;
}

static inline bool desc_s(const struct descriptor *d)
{
    return d->low >> 44 & 1;
}

static inline unsigned desc_dpl(const struct descriptor *d)
{
    return d->low >> 45 & 3;
}

static inline bool desc_present(const struct descriptor *d)
{
    return d->low >> 47 & 1;
}

static inline bool desc_is_code(const struct descriptor *d)
{
    return desc_s(d) && (desc_type(d) & 8);
}

static inline bool desc_conforming(const struct descriptor *d)
{
    return desc_type(d) & 4;
}

/* Returns the error code for SELECTOR. */
static inline uint32_t selector_error(const struct vcpu *c, uint16_t selector)
{
    return (selector & 0xFFFCu) | c->external;
}

/* Reads the 8 bytes of the descriptor that SELECTOR names; d->high becomes 0. Returns false if it
 * lies beyond the table's limit, or if there is no LDT. May raise a page fault. The caller has
 * handled the null selector. */
bool desc_read(struct vcpu *c, const struct uop *op, uint16_t selector, struct descriptor *d);
/* Does the same, but raises VECTOR with SELECTOR as the error code instead of returning false. */
void desc_need(struct vcpu *c, const struct uop *op, uint16_t selector, int vector,
               struct descriptor *d);
/* Reads d->high of a 16-byte descriptor; raises #GP(selector) when it lies beyond the limit. */
void desc_read_high(struct vcpu *c, const struct uop *op, struct descriptor *d);
/* Changes a TSS descriptor between available and busy. */
void desc_set_busy(struct vcpu *c, const struct uop *op, const struct descriptor *d, bool busy);
struct x86_seg desc_to_seg(const struct descriptor *d, uint16_t selector);
uint64_t desc_base_64(const struct descriptor *d); /* of a 16-byte descriptor */

/* Loads ES, SS, DS, FS or GS as MOV does, in any mode. */
void load_segment(struct vcpu *c, const struct uop *op, unsigned seg, uint16_t selector);
/* Loads ES, DS, FS or GS in protected mode. Raises VECTOR if the selector or descriptor is not
 * allowed. */
void load_data_segment(struct vcpu *c, const struct uop *op, unsigned seg, uint16_t selector,
                       int vector);
/* Loads any segment register as real and virtual-8086 mode do; the caller sets RIP. */
void load_segment_real(struct vcpu *c, unsigned seg, uint16_t selector);
/* Reads the descriptor of a stack segment for privilege level LEVEL, checks it and sets its
 * accessed bit; raises VECTOR (#TS or #GP) or #SS naming the selector. */
void ss_need(struct vcpu *c, const struct uop *op, uint16_t selector, unsigned level, int vector,
             struct descriptor *d);
/* Loads SS for privilege level LEVEL, with the same checks. */
void load_ss(struct vcpu *c, const struct uop *op, uint16_t selector, unsigned level, int vector);
/* Loads CS from a checked code descriptor, at privilege level LEVEL (which SS.DPL must follow). */
void load_cs(struct vcpu *c, const struct uop *op, uint16_t selector, struct descriptor *d,
             unsigned level);
/* Loads SS with a null selector for level LEVEL, as 64-bit mode allows. */
void load_null_ss(struct vcpu *c, unsigned level);
/* After a return to an outer level: makes the data segments null that the new level must not access
 * (SDM volume 2, RET and IRET). */
void drop_privileged_segments(struct vcpu *c);

#endif

/*
 * What far RET and IRET share; see iret.c.
 */
#ifndef DOPPEL_CPU_INTERP_FAR_H
#define DOPPEL_CPU_INTERP_FAR_H

#include "cpu/core/frame.h"
#include "cpu/interp/interp.h"

/* Reads the code segment of SELECTOR and checks that one can return to it. */
void return_code_segment(struct vcpu *c, const struct uop *op, uint16_t selector,
                         struct descriptor *d);
/* Loads CS and SS:RSP of an outer level, and makes data segments null that the level must not
 * access. */
void return_to_outer(struct vcpu *c, const struct uop *op, struct descriptor *code, uint16_t ss,
                     uint64_t sp);

#endif

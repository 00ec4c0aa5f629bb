/*
 * Control registers, and INVLPG's effect.
 */
#ifndef DOPPEL_CPU_CORE_CONTROL_H
#define DOPPEL_CPU_CORE_CONTROL_H

#include "cpu/core/vcpu.h"

/* Loads control register N with all checks and effects of MOV. Raises #GP at OP. */
void write_cr(struct vcpu *c, const struct uop *op, unsigned n, uint64_t value);

/* Drops what is cached about the page at LINEAR in the address space PCID. */
void invalidate_page(struct vcpu *c, uint64_t linear, unsigned pcid);

#endif

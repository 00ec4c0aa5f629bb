/*
 * Model-specific registers (SDM volume 4), those of the processor itself; the local APIC's go to
 * its port.
 */
#ifndef DOPPEL_CPU_CORE_MSR_H
#define DOPPEL_CPU_CORE_MSR_H

#include "cpu/core/mode.h"

/* Return 0, or -1 if the instruction raises #GP(0). */
int msr_read(struct vcpu *c, uint32_t msr, uint64_t *value);
int msr_write(struct vcpu *c, uint32_t msr, uint64_t value);

uint64_t guest_tsc(const struct vcpu *c);

#endif

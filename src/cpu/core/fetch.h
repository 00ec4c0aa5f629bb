/*
 * Where code is: from RIP to a linear address, and on to guest physical memory.
 */
#ifndef DOPPEL_CPU_CORE_FETCH_H
#define DOPPEL_CPU_CORE_FETCH_H

#include "cpu/core/vcpu.h"

/* Returns the linear address of offset RIP in CS. Raises #GP if it is not canonical. */
uint64_t fetch_linear(struct vcpu *c, uint64_t rip);
/* Returns the guest physical address of code at LINEAR. Raises what fetching it raises. */
uint64_t fetch_gpa(struct vcpu *c, uint64_t linear);
/* Stores that address if the software TLB has it; otherwise returns false. Raises nothing. */
bool fetch_peek(const struct vcpu *c, uint64_t linear, uint64_t *gpa);

#endif

/*
 * A processor's state in a saved machine (docs/state.md).
 */
#ifndef DOPPEL_X86_CPU_STATE_H
#define DOPPEL_X86_CPU_STATE_H

#include "base/error.h"
#include "base/state.h"
#include "x86/cpuid.h"

/* Visits every field of CPU as section "cpu" ID; all but physical_bits, which the model has. What
 * was loaded may be no state of a processor: ask x86_cpu_check. */
void x86_cpu_state(struct x86_cpu *cpu, struct state *s, uint32_t id);

/* Whether a processor of this MODEL can be in the state CPU: 0, or -EINVAL with ERR naming what
 * cannot be. */
int x86_cpu_check(const struct x86_cpu *cpu, const struct x86_model *model, struct error *err);
#endif

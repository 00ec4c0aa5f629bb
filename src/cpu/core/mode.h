/*
 * State that follows from the architectural state and is kept beside it, because it is needed very
 * often: the mode that code runs in, segment bases, whose rights accesses have, and so on. Whoever
 * changes something calls the update function that names it.
 */
#ifndef DOPPEL_CPU_CORE_MODE_H
#define DOPPEL_CPU_CORE_MODE_H

#include "cpu/core/vcpu.h"

void update_mode(struct vcpu *c);     /* CS, CR0, EFER, RFLAGS.VM, segment bases and limits */
void update_context(struct vcpu *c);  /* CPL, CR4.SMAP, RFLAGS.AC, address space */
void update_fp_trap(struct vcpu *c);  /* CR0, CR4, XCR0 */
void update_stepping(struct vcpu *c); /* RFLAGS.TF, DR7, interrupt shadow */
/* Empties the software TLB, of global pages, too. */
void flush_translations(struct vcpu *c);
/* Sets all of RFLAGS and updates what follows from it. */
void flags_set(struct vcpu *c, uint64_t rflags);

/* In vcpu.fp_trap: whose instructions fault now, with #NM or #UD. */
enum { FP_X87 = 1, FP_SSE = 2, FP_AVX = 4, FP_WAIT = 8, FP_MMX = 16 };

#endif

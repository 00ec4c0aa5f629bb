/*
 * Code pages: what the vCPUs of a machine, and devices, owe each other when guest memory that holds
 * decoded or translated code changes (SDM volume 3, 11.6 and 4.10.4).
 */
#ifndef DOPPEL_CPU_CORE_CODE_H
#define DOPPEL_CPU_CORE_CODE_H

#include "cpu/core/vcpu.h"

/* From now on writes to [GPA, GPA + SIZE), which lies in one page of RAM, move the page's
 * generation on. Only then may the code there be read. May let other vCPUs run, and so have
 * everything decoded forgotten. */
void code_watch(struct vcpu *c, uint64_t gpa, uint64_t size);
/* Says that [GPA, GPA + SIZE) was written. Returns whether code was found there before. SELF: the
 * vCPU that wrote, or NULL. Any thread. */
bool code_written(struct core *e, const struct vcpu *self, uint64_t gpa, uint64_t size);
/* Puts all that any vCPU has decoded or translated of the page at GPA out of date. */
void code_discard(struct vcpu *c, uint64_t gpa);

/* How often code of PAGE has been written to lately. */
unsigned code_rewrites(const struct code_page *page);
/* Code of PAGE is being decoded: what is written to it from now on is another rewrite. */
void code_end_writes(struct code_page *page);

/* Where code is mapped has changed for this vCPU, for the page at LINEAR or, if LARGE, for any: it
 * forgets at which linear address it found which code. */
void code_unmapped(struct vcpu *c, uint64_t linear, bool large);

#endif

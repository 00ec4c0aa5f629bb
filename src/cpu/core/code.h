/*
 * Code pages: how vCPUs learn that guest memory has changed of which one of them has decoded or
 * translated code (SDM volume 3, 11.6 and 4.10.4).
 */
#ifndef DOPPEL_CPU_CORE_CODE_H
#define DOPPEL_CPU_CORE_CODE_H

#include "cpu/core/vcpu.h"

/* Has writes to [GPA, GPA + SIZE), which lies in one page of RAM, noticed from now on: each changes
 * the page's generation. The caller reads the code only after this call. Other vCPUs may run
 * meanwhile, and have everything forgotten that the caller has decoded. */
void code_watch(struct vcpu *c, uint64_t gpa, uint64_t size);
/* Tells that [GPA, GPA + SIZE) has been written: by the vCPU SELF; or, if NULL, by a device or the
 * monitor. If code was found there before, changes the generation of its pages, has the other vCPUs
 * leave translated code, and returns true. Any thread. */
bool code_written(struct core *e, const struct vcpu *self, uint64_t gpa, uint64_t size);
/* Puts all that any vCPU has decoded or translated of the page at GPA out of date. */
void code_discard(struct vcpu *c, uint64_t gpa);

/* Returns how often code of PAGE was rewritten lately; the count is halved about every second. */
unsigned code_rewrites(const struct code_page *page);
/* Tells that code of PAGE is being decoded, so that the next write to it counts as another rewrite.
 * */
void code_end_writes(struct code_page *page);

/* Has the vCPU forget which code it has found at which linear address: in the page at LINEAR, or,
 * if LARGE, in any page. */
void code_unmapped(struct vcpu *c, uint64_t linear, bool large);

#endif

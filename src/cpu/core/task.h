/*
 * The task-state segment: inner stacks, and hardware task switches (SDM volume 3, chapter 8).
 */
#ifndef DOPPEL_CPU_CORE_TASK_H
#define DOPPEL_CPU_CORE_TASK_H

#include "cpu/core/segment.h"

/* Reads the stack for level LEVEL from the current 16- or 32-bit TSS; raises #TS if it is too
 * short.
 */
void tss_stack(struct vcpu *c, const struct uop *op, unsigned level, uint16_t *ss, uint32_t *esp);
/* Returns the stack pointer at OFFSET in the 64-bit TSS. */
uint64_t tss_stack_64(struct vcpu *c, const struct uop *op, unsigned offset);

enum task_switch { TASK_JMP, TASK_CALL, TASK_INT, TASK_IRET };
/* Switches to the task whose TSS has the descriptor D; the return address is NEXT. A fault up to
 * the point of commitment is raised in the old task at OP, a later one in the new task. */
void task_switch(struct vcpu *c, const struct uop *op, struct descriptor *d,
                 enum task_switch reason, uint64_t next);

#endif

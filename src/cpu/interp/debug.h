/*
 * Debug registers: breakpoints on instructions, data and ports; single step (SDM volume 3, 18.2).
 */
#ifndef DOPPEL_CPU_INTERP_DEBUG_H
#define DOPPEL_CPU_INTERP_DEBUG_H

#include "cpu/interp/interp.h"

#define DR6_B0   (1u << 0)
#define DR6_BD   (1u << 13)
#define DR6_BS   (1u << 14)
#define DR6_BT   (1u << 15)
#define DR6_INIT 0xFFFF0FF0u
#define DR7_INIT 0x400u
#define DR7_GD   (1u << 13)

/* Notes the data breakpoints that an access meets; the trap comes after the instruction. */
void debug_data_access(struct vcpu *c, uint64_t linear, unsigned size, bool write);
void debug_port_access(struct vcpu *c, unsigned port, unsigned size);
/* Raises #DB if an instruction breakpoint stands at LINEAR and RF is clear. */
void debug_check_fetch(struct vcpu *c, uint64_t linear);
/* Whether any breakpoint of one of the types is enabled: bit 0 instruction, 1 write, 2 port, 3
 * data. */
bool debug_armed(const struct vcpu *c, unsigned types);
/* A debug exception is about to be delivered: it reports in DR6 what is pending, too. So INT1
 * behind a MOV SS that has met a breakpoint makes one #DB, not two. */
void debug_exception(struct vcpu *c);
/* Delivers what the instruction just executed has earned: single step and data breakpoints. STEP:
 * RFLAGS.TF was set when it began. */
void debug_after_instruction(struct vcpu *c, bool step);

#endif

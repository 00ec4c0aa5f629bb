/*
 * What breakpoints on instructions, data and ports do (SDM volume 3, 18.2 and 18.3).
 */
#ifndef DOPPEL_CPU_CORE_DEBUG_H
#define DOPPEL_CPU_CORE_DEBUG_H

#include "cpu/core/breakpoint.h"

#define DR6_B0   (1u << 0)
#define DR6_BD   (1u << 13)
#define DR6_BS   (1u << 14)
#define DR6_BT   (1u << 15)
#define DR6_INIT 0xFFFF0FF0u
#define DR7_INIT 0x400u
#define DR7_GD   (1u << 13)

/*
 * Code runs as fast as ever while breakpoints are armed, but for what they can concern:
 *
 * - A page with a data breakpoint is in no software TLB of this vCPU, so that every access to it
 *   comes down the slow path and is looked at. One that meets the breakpoint leaves its instruction
 *   (restart_as_step), which is then executed by itself, with the trap behind it.
 * - A page with an instruction breakpoint is in no jump cache of the interpreter, and no link
 *   between blocks is followed meanwhile, so that block_find looks at every block in the page. One
 *   with a breakpoint in it is executed in steps. The translator stops in front of it (bt/stops.c).
 * - An instruction that accesses a port or a device is a step while anything is armed: it could not
 *   be restarted after the access.
 *
 * Who changes the registers sees to it by debug_set_address and debug_set_control.
 */
void debug_set_address(struct vcpu *c, unsigned i, uint64_t address);
void debug_set_control(struct vcpu *c, uint64_t dr7);
/* Notes the data breakpoints that an access by OP meets; the trap, or the exit to the debugger,
 * comes after the instruction. Raises restart_as_step if OP is not a step. */
void debug_data_access(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                       bool write);
/* OP is about to access a device. Raises restart_as_step if it must be a step for that. */
void debug_device_access(struct vcpu *c, const struct uop *op);
/* Notes the breakpoints that a port access meets. */
void debug_port_access(struct vcpu *c, unsigned port, unsigned size);
/* Raises #DB if an instruction breakpoint stands at LINEAR and RF is clear. */
void debug_check_fetch(struct vcpu *c, uint64_t linear);
/* A debug exception is about to be delivered: it reports in DR6 what is pending, too. So INT1
 * behind a MOV SS that has met a breakpoint makes one #DB, not two. */
void debug_exception(struct vcpu *c);
/* The instruction just executed was a single step. */
void debug_note_step(struct vcpu *c);

/* A debugger wants what DEBUG says from now on. */
void debug_attach(struct vcpu *c, const struct engine_debug *debug);
/* Whether a breakpoint of the debugger's stands at X86_RIP that it has not been told of. */
bool debug_stops(struct vcpu *c);

#endif

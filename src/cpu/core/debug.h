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

/* Armed breakpoints slow down only the code that they can concern:
 *
 * - A page with a data breakpoint is in no software TLB of this vCPU, so every access to it takes
 * the slow path, which compares addresses. An access that meets the breakpoint gives up its
 * instruction (restart_as_step), which is then executed as a step, with the trap behind it.
 * - A page with an instruction breakpoint is not in the interpreter's jump cache, and no links
 * between blocks are followed while one is armed. So block_find compares the addresses of every
 * block in the page, and one with a breakpoint in it is executed in steps. The translator stops in
 * front of the breakpoint (bt/stops.c).
 * - While any breakpoint is armed, an instruction that accesses a port or a device is executed as a
 *   step, because it could not be restarted after the access.
 *
 * debug_set_address and debug_set_control keep this true when the guest changes debug registers. */
void debug_set_address(struct vcpu *c, unsigned i, uint64_t address);
void debug_set_control(struct vcpu *c, uint64_t dr7);
/* Notes the data breakpoints that an access by OP meets. The trap, or the exit to the debugger,
 * comes behind the instruction. Gives up OP to be executed as a step (restart_as_step) if it is not
 * one. */
void debug_data_access(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                       bool write);
/* Called before OP accesses a device. Gives up OP to be executed as a step if a breakpoint is
 * armed. */
void debug_device_access(struct vcpu *c, const struct uop *op);
/* Notes the breakpoints that a port access meets. */
void debug_port_access(struct vcpu *c, unsigned port, unsigned size);
/* Raises #DB if an instruction breakpoint stands at LINEAR and RF is clear. */
void debug_check_fetch(struct vcpu *c, uint64_t linear);
/* Called before a debug exception is delivered: moves what is pending into DR6. So INT1 behind a
 * MOV SS that has met a breakpoint causes one #DB and not two. */
void debug_exception(struct vcpu *c);
/* Notes that the instruction just executed was a single step. */
void debug_note_step(struct vcpu *c);

/* Sets what a debugger outside of the guest wants. */
void debug_attach(struct vcpu *c, const struct engine_debug *debug);
/* Whether such a debugger has a breakpoint at X86_RIP of which it has not been told. */
bool debug_stops(struct vcpu *c);

#endif

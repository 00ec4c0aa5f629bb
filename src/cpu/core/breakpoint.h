/*
 * Which breakpoints there are, and where: those in the guest's debug registers (SDM volume
 * 3, 18.2), and those of a debugger outside of the guest (struct engine_debug). What they do is in
 * debug.h.
 */
#ifndef DOPPEL_CPU_CORE_BREAKPOINT_H
#define DOPPEL_CPU_CORE_BREAKPOINT_H

#include "cpu/core/vcpu.h"

/* The types that DR7 gives breakpoints, and sets of them. */
enum { TYPE_EXECUTE = 0, TYPE_WRITE = 1, TYPE_PORT = 2, TYPE_ACCESS = 3 };
#define TYPES_EXECUTE (1u << TYPE_EXECUTE)
#define TYPES_WRITE   (1u << TYPE_WRITE)
#define TYPES_PORT    (1u << TYPE_PORT)
#define TYPES_ACCESS  (1u << TYPE_ACCESS)
#define TYPES_DATA    (TYPES_WRITE | TYPES_ACCESS)

/* --- The guest's: breakpoint I is that of DR0 to DR3 -------------------------------------------
 */

bool breakpoint_enabled(const struct vcpu *c, unsigned i);
unsigned breakpoint_type(const struct vcpu *c, unsigned i);
/* Whether breakpoint I's range overlaps [ADDRESS, ADDRESS + SIZE). */
bool breakpoint_overlaps(const struct vcpu *c, unsigned i, uint64_t address, unsigned size);

/* --- The debugger's ----------------------------------------------------------------------------
 */

/* Returns the number of the instruction breakpoint at LINEAR, or of the data breakpoint that an
 * access meets; or -1. */
int breakpoint_of_debugger(const struct vcpu *c, uint64_t linear);
int breakpoint_of_debugger_on(const struct vcpu *c, uint64_t linear, unsigned size, bool write);

/* --- Both --------------------------------------------------------------------------------------
 */

/* Whether any breakpoint on data, or on instructions, is enabled. */
bool breakpoint_armed_on_data(const struct vcpu *c);
bool breakpoint_armed_on_code(const struct vcpu *c);
/* Whether a data breakpoint lies in the 2^BITS bytes around LINEAR, or an instruction breakpoint in
 * the page at LINEAR. */
bool breakpoint_on_data(const struct vcpu *c, uint64_t linear, unsigned bits);
bool breakpoint_on_code(const struct vcpu *c, uint64_t linear);
/* Whether an instruction breakpoint lies in the code at [LINEAR, LINEAR + SIZE). */
bool breakpoint_in_code(const struct vcpu *c, uint64_t linear, unsigned size);
/* Finds the next instruction breakpoint in the page at LINEAR, from number *I on: stores its
 * address and moves *I behind it. Returns false if there is none. */
bool breakpoint_next_on_code(const struct vcpu *c, uint64_t linear, unsigned *i, uint64_t *address);

#endif

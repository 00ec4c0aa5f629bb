/*
 * What the debug registers say (SDM volume 3, 18.2): which breakpoints are enabled, and where.
 * What follows from that is in debug.h.
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

bool breakpoint_enabled(const struct vcpu *c, unsigned i);
unsigned breakpoint_type(const struct vcpu *c, unsigned i);
/* Whether breakpoint I's range meets [ADDRESS, ADDRESS + SIZE). */
bool breakpoint_overlaps(const struct vcpu *c, unsigned i, uint64_t address, unsigned size);
/* Whether any breakpoint of one of the TYPES is enabled. */
bool breakpoint_armed(const struct vcpu *c, unsigned types);

/* Whether an enabled breakpoint on data lies in the 2^BITS bytes around LINEAR, or one on
 * instructions in the page at LINEAR. */
bool breakpoint_on_data(const struct vcpu *c, uint64_t linear, unsigned bits);
bool breakpoint_on_code(const struct vcpu *c, uint64_t linear);
/* Whether breakpoint I is an enabled one on instructions in the page at LINEAR. */
bool breakpoint_is_on_code(const struct vcpu *c, unsigned i, uint64_t linear);
/* Whether an enabled instruction breakpoint stands in the code at [LINEAR, LINEAR + SIZE). */
bool breakpoint_in_code(const struct vcpu *c, uint64_t linear, unsigned size);

#endif

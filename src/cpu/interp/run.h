/*
 * The run loop, for the engine's table of functions.
 */
#ifndef DOPPEL_CPU_INTERP_RUN_H
#define DOPPEL_CPU_INTERP_RUN_H

#include "cpu/interp/interp.h"

enum engine_exit interp_run(struct vcpu *c);

/* For tests that bound what a guest does: one turn of the loop, which is at most one block, or the
 * delivery of what it raised. Returns an exit, or -1. */
int interp_turn(struct vcpu *c);

#endif

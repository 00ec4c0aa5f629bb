/*
 * The run loop, for the engine's table of functions.
 */
#ifndef DOPPEL_CPU_CORE_RUN_H
#define DOPPEL_CPU_CORE_RUN_H

#include "cpu/core/vcpu.h"

enum engine_exit core_run(struct vcpu *c);

/* For tests that limit what a guest does: one turn of the loop, in which the vCPU executes at most
 * one block, or delivers what the turn before has raised. Returns an exit, or -1 if there is none.
 * */
int core_turn(struct vcpu *c);

/* For tests that keep machines in step: as core_run, but ends once LIMIT (32 bits) instructions
 * have been executed, or a few more: translated code ends where it looks for requests, so the
 * machine must be one that is measured; the interpreter ends with the very one. Returns an exit, or
 * -1; *COUNT is how many were executed. */
int core_run_for(struct vcpu *c, uint64_t limit, uint64_t *count);

#endif

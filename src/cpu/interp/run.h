/*
 * The run loop, for the engine's table of functions.
 */
#ifndef DOPPEL_CPU_INTERP_RUN_H
#define DOPPEL_CPU_INTERP_RUN_H

#include "cpu/interp/interp.h"

enum engine_exit interp_run(struct vcpu *c);

#endif

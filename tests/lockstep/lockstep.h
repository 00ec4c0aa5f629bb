/*
 * The engine that interp_rig.c makes machines with (see meson.build).
 */
#ifndef DOPPEL_TESTS_LOCKSTEP_LOCKSTEP_H
#define DOPPEL_TESTS_LOCKSTEP_LOCKSTEP_H

#include "cpu/engine.h"

extern const struct engine_ops *lockstep_engine;
#define RIG_ENGINE (*lockstep_engine)

#endif

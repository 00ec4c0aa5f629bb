/*
 * The engines that there are.
 */
#ifndef DOPPEL_CPU_ENGINES_H
#define DOPPEL_CPU_ENGINES_H

#include "cpu/engine.h"

struct bt_switches; /* cpu/bt/switches.h */

extern const struct engine_ops interp_engine;
extern const struct engine_ops bt_engine;
/* Whether translated code can run here; MODEL has only what the host has. */
bool bt_runs_on(const struct x86_model *model);
/* The same, translating whatever runs at once: for tests, as bt-eager. */
extern const struct engine_ops bt_eager_engine;
/* For tests: an engine like bt_engine; what it makes is bt_engine's in all else. SWITCHES must
 * outlive it. */
struct engine *bt_create_with(const struct machine *machine, const struct bt_switches *switches,
                              struct error *err);

#endif

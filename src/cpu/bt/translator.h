/*
 * The binary translator, for whoever puts an engine together.
 */
#ifndef DOPPEL_CPU_BT_TRANSLATOR_H
#define DOPPEL_CPU_BT_TRANSLATOR_H

#include "cpu/bt/switches.h"
#include "cpu/core/executor.h"
#include "x86/cpuid.h"

extern const struct accelerator bt_translator; /* its options: struct bt_switches */

/* Whether translated code can run here; MODEL has only what the host has. */
bool bt_translator_runs_on(const struct x86_model *model);

#endif

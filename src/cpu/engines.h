/*
 * The engines that there are.
 */
#ifndef DOPPEL_CPU_ENGINES_H
#define DOPPEL_CPU_ENGINES_H

#include "cpu/engine.h"

struct bt_switches; /* cpu/bt/switches.h */
struct kvm_options; /* cpu/kvm/kvm.h */

extern const struct engine_ops interp_engine;
extern const struct engine_ops bt_engine;
/* Whether translated code can run here; MODEL has only what the host has. */
bool bt_runs_on(const struct x86_model *model);
/* The host's hardware virtualization, by /dev/kvm. */
extern const struct engine_ops kvm_engine;
/* Creates an engine like kvm_engine with other options, which must outlive it. For tests. */
struct engine *kvm_create_with(const struct machine *machine, const struct kvm_options *options,
                               struct error *err);
/* bt, but code is translated when it runs for the first time. For tests. */
extern const struct engine_ops bt_eager_engine;
/* Creates an engine like bt_engine with other switches, which must outlive it. For tests. */
struct engine *bt_create_with(const struct machine *machine, const struct bt_switches *switches,
                              struct error *err);

#endif

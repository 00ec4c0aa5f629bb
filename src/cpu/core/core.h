/*
 * Engines of this process: what the core implements of the contract (cpu/engine.h).
 */
#ifndef DOPPEL_CPU_CORE_CORE_H
#define DOPPEL_CPU_CORE_CORE_H

#include "cpu/engine.h"

struct accelerator;
struct interpreter;

/* An engine with OPS for MACHINE, of this interpreter and, unless NULL, this accelerator. OPTIONS
 * are the accelerator's own; they must outlive the engine. */
struct engine *core_create(const struct engine_ops *ops, const struct machine *machine,
                           const struct interpreter *interpreter,
                           const struct accelerator *accelerator, const void *options,
                           struct error *err);

/* The functions of struct engine_ops. */
void core_destroy(struct engine *engine);
int core_local_apics(struct engine *engine, const struct lapic_board *board,
                     struct local_apics *apics, struct error *err);
struct vcpu *core_vcpu_create(struct engine *engine, struct cpu_port *port, struct error *err);
void core_vcpu_destroy(struct vcpu *c);
enum engine_exit core_run(struct vcpu *c); /* run.c */
void core_state_out(struct vcpu *c, struct x86_cpu *cpu);
void core_state_in(struct vcpu *c, const struct x86_cpu *cpu);
uint64_t core_rip(const struct vcpu *c);
void core_counters(const struct vcpu *c, engine_counter_fn *each, void *opaque);
void core_kick(struct vcpu *c);
int core_debug(struct vcpu *c, const struct engine_debug *debug);
unsigned core_debug_met(const struct vcpu *c);
void core_history(struct vcpu *c, char *buf, unsigned size); /* history.c */

#endif

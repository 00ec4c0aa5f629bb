/*
 * Cases in an engine: see engine.c.
 */
#ifndef DOPPEL_TESTS_DIFF_ENGINE_H
#define DOPPEL_TESTS_DIFF_ENGINE_H

#include "diff.h"

#include "cpu/engines.h"

struct engine_executor;

/* Says on standard error why it failed. */
struct engine_executor *engine_create(const struct engine_ops *ops);
void engine_destroy(struct engine_executor *e);

/* From now on has cases interrupted, at instructions of chance, their state taken out of the engine
 * and put in again. */
bool engine_interrupt(struct engine_executor *e);

/* Whether E can run C. A KVM that emulates has the host's processor execute only 64-bit code,
 * without segments of the LDT and with a canonical RSP; and it takes the LDT from the process, so
 * that C cannot be run natively either. */
bool engine_takes(const struct engine_executor *e, const struct diff_case *c);
void engine_run(void *executor, const struct diff_case *c, struct diff_result *r);
/* Ends a case that was there at the last call too. From a signal handler. */
void engine_tick(void *executor);

#endif

/*
 * What `doppel run --trace exits` prints: the steps of processes, kernel and monitor side by side.
 */
#ifndef DOPPEL_CLI_TRACE_H
#define DOPPEL_CLI_TRACE_H

#include "ctl/doppel.h"

#include <stdbool.h>

struct trace;

/* To the file PATH, or NULL: to standard error. At most LINES lines, 0: any number. NULL: a message
 * has been printed. */
struct trace *trace_create(const char *path, unsigned lines);
/* Sets what CONFIG must have for it. */
void trace_plug(struct trace *trace, struct doppel_config *config);
/* Between the two, VM's steps are printed. TRACE may be NULL. */
void trace_begin(struct trace *trace, struct doppel_vm *vm);
void trace_end(struct trace *trace, struct doppel_vm *vm);
/* False when something could not be written: a message has been printed. After the VM's end. */
bool trace_destroy(struct trace *trace);

#endif

/*
 * Bringing machines that run to their end: what `doppel stop`, `kill` and `restart` do.
 */
#ifndef DOPPEL_CLI_ENDING_H
#define DOPPEL_CLI_ENDING_H

#include "base/error.h"

#include <stdbool.h>

/* Ends the COUNT machines NAMES, all at the same time: by the power button and their agents,
 * and by the plug after TIMEOUT seconds; with FORCE, at once. Tells what was done on standard
 * output, and of failures on standard error. Returns whether none of them runs any more. */
bool end_machines(const char *const *names, unsigned count, unsigned timeout, bool force);

#endif

/*
 * The process of a virtual switch: found, or started.
 */
#ifndef DOPPEL_CLI_SWITCH_PROCESS_H
#define DOPPEL_CLI_SWITCH_PROCESS_H

#include "base/error.h"

/* Connects the machine MACHINE (may be NULL) to the switch NAME of this user, which is started if
 * it does not run. Returns a socket, or a negative errno. Waits. */
int switch_process_connect(const char *name, const char *machine, struct error *err);

#endif

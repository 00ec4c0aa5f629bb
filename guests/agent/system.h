/*
 * What the agent knows of its system, and does with it.
 */
#ifndef DOPPEL_GUESTS_AGENT_SYSTEM_H
#define DOPPEL_GUESTS_AGENT_SYSTEM_H

#include <stdbool.h>

/* A line "INTERFACE ADDRESS/BITS" for each address of each network card that is up, without the
 * loopback's; a text of the process's own. */
const char *agent_system_addresses(void);

/* Asks process 1 to power off: systemd, or an init that is told by SIGUSR2, as busybox's. */
bool agent_system_shut_down(void);

#endif

/*
 * Finding the agent of a machine that runs, or what there is in its place.
 */
#ifndef DOPPEL_CLI_AGENT_PORT_H
#define DOPPEL_CLI_AGENT_PORT_H

#include "base/error.h"

#include <stdbool.h>

#define AGENT_PATIENCE 120 /* seconds for a guest to answer, by default */

/* Connects to the agent in the machine NAME. A guest that boots is waited for, up to PATIENCE
 * seconds. Returns a descriptor; or a negative errno with *SSH set if no agent answers, but an ssh
 * server; -ENOENT: the machine does not run; -EINVAL: NAME is no name. */
int agent_port_connect(const char *name, unsigned patience, bool *ssh, struct error *err);

#endif

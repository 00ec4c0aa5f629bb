/*
 * The processes of networks that the VM process does not serve itself: of a card at a switch, and
 * of a user network with isolate. The supervisor keeps them running (kept_process.h).
 *
 * The one of a switch only makes connections. The switch itself is a process of nobody's, which the
 * first machine that needs it has started, and which ends with the last:
 *
 *      RUNTIME/.switch/NAME.sock   where it listens
 *      RUNTIME/.switch/NAME.lock   which it has locked from its start to its end
 */
#ifndef DOPPEL_CLI_NET_PROCESS_H
#define DOPPEL_CLI_NET_PROCESS_H

#include "cli/kept_process.h"

/* Adds one for each of the descriptions DEVICES (up to a NULL) that is such a network. What is
 * wrong with a description is for who makes the device to say. */
int net_processes_add(struct kept_processes *kept, const char *const *devices, struct error *err);

/* In the VM process: the link of a network, for the library (doppel_config.remote). OPAQUE is the
 * struct kept_processes. */
int net_processes_link(void *opaque, const char *name);

#endif

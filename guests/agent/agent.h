/*
 * The agent: runs commands in a guest for `doppel exec` and `doppel cp` (agent_protocol.h).
 */
#ifndef DOPPEL_GUESTS_AGENT_H
#define DOPPEL_GUESTS_AGENT_H

/* Listens on the vsock port and serves all that comes. Returns only on failure, with a negative
 * errno: there is no such device, or another agent has the port. */
int agent_serve(void);

#endif

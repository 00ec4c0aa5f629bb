/*
 * The socket over which a network gets connections to what another process serves. It is a pair of
 * the kind SOCK_SEQPACKET; whoever has the other end makes the connections (the supervisor):
 *
 *      VM process                                whoever makes connections
 *          please  ----------------------------->
 *          <-------  a connected socket, or why there is none
 *
 * The socket that comes is one of frames with offloads (wire.h). When it has ended, another one is
 * asked for.
 */
#ifndef DOPPEL_NET_REMOTE_LINK_H
#define DOPPEL_NET_REMOTE_LINK_H

#include "base/error.h"

#include <stdbool.h>

/* Asks for a connection. 0, or -errno: the other end is closed. */
int remote_link_ask(int link);
/* Waits until one is asked for. False: the other end is closed. The question stays until
 * remote_link_done: whoever is killed before has it answered by the next one. */
bool remote_link_await(int link);
void remote_link_done(int link);
/* Whether the other end is closed. */
bool remote_link_closed(int link);
/* Answers with FD, which stays the caller's; or, if it is negative, with ERR. */
int remote_link_answer(int link, int fd, const struct error *err);
/* Takes an answer. *FD is the caller's then. 1; 0: there is none yet; -errno: no connection can be
 * had, as ERR says; -EPIPE: and never will. Does not wait. */
int remote_link_take(int link, int *fd, struct error *err);

#endif

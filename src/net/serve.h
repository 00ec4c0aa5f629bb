/*
 * Serving a network to another process, over a socket of frames with offloads (wire.h).
 */
#ifndef DOPPEL_NET_SERVE_H
#define DOPPEL_NET_SERVE_H

#include "net/net.h"

/* Passes frames between NET, with which nothing has begun, and the connection FD until the other
 * side is gone or talks nonsense. */
void net_serve(struct net *net, int fd);

#endif

/*
 * Unix sockets that are found by their path.
 */
#ifndef DOPPEL_BASE_UNIX_SOCKET_H
#define DOPPEL_BASE_UNIX_SOCKET_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/un.h>

#define UNIX_SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1) /* bytes */

/* Listens at PATH for at most BACKLOG clients that nobody has accepted yet. The file has mode 0600
 * before anyone can connect. A socket that nobody listens to any more is replaced. Returns a
 * descriptor that does not block, or a negative errno. Who closes it removes the file. */
int unix_socket_listen(const char *path, int backlog, struct error *err);
/* Connects to PATH without waiting: -EAGAIN if the listener's backlog is full. Returns a descriptor
 * that does not block, or a negative errno. */
int unix_socket_connect(const char *path, struct error *err);
/* Accepts a client of LISTENER. Where no descriptor is left, the client is sent away, so that the
 * listener does not stay readable for ever: for that, *SPARE is given up for a moment. It is a
 * descriptor for nothing else, from unix_socket_spare, and may be -1 afterwards. Returns a
 * descriptor that does not block, or a negative errno. */
int unix_socket_accept(int listener, int *spare);
/* Whether the process that has made the other end of FD is this user's. */
bool unix_socket_is_ours(int fd);
/* Returns a spare descriptor, or a negative errno. */
int unix_socket_spare(int listener, struct error *err);

#endif

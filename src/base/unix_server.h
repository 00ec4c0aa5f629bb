/*
 * A Unix socket that a thread serves for several clients of this user, together with epoll(7): what
 * such servers have in common. Nothing here waits.
 */
#ifndef DOPPEL_BASE_UNIX_SERVER_H
#define DOPPEL_BASE_UNIX_SERVER_H

#include "base/error.h"

#include <stdint.h>

/* One that is not open has -1 in the descriptors. */
struct unix_server {
    char *path;
    int listener, spare; /* SPARE: see unix_socket_accept */
    int epoll;           /* for poll(2), too */
};
#define UNIX_SERVER_CLOSED ((struct unix_server){.listener = -1, .spare = -1, .epoll = -1})

/* Listens at PATH. EPOLL tells of clients that wait with the number KEY. On failure the server must
 * still be closed. */
int unix_server_open(struct unix_server *server, const char *path, uint64_t key, struct error *err);
/* Removes the socket. */
void unix_server_close(struct unix_server *server);
/* In a process that was forked: lets go of the descriptors. */
void unix_server_forget(struct unix_server *server);

/* Returns a client, or a negative errno: there is none, or it is another user's and was sent away.
 */
int unix_server_accept(struct unix_server *server);

/* Has EPOLL tell of EVENTS of client FD with the number KEY, or of nothing any more if EVENTS is 0.
 * *WATCHED is for this function; it is 0 for a new client. Returns 0 or a negative errno. */
int unix_server_watch(struct unix_server *server, int fd, uint64_t key, uint32_t *watched,
                      uint32_t events);

#endif

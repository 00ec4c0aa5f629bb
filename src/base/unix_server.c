/*
 * A Unix socket that a thread serves for several clients.
 */
#include "base/unix_server.h"

#include "base/unix_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BACKLOG 64

int unix_server_open(struct unix_server *server, const char *path, uint64_t key, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = key};

    *server = UNIX_SERVER_CLOSED;
    server->path = strdup(path);
    if (!server->path)
        return error_set(err, ENOMEM, "out of memory");
    server->listener = unix_socket_listen(path, BACKLOG, err);
    if (server->listener < 0)
        return server->listener;
    server->spare = unix_socket_spare(server->listener, err);
    if (server->spare < 0)
        return server->spare;
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll < 0 || epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->listener, &event) < 0)
        return error_set(err, errno, "cannot watch a socket: %s", strerror(errno));
    return 0;
}

void unix_server_forget(struct unix_server *server)
{
    if (server->listener >= 0)
        close(server->listener);
    if (server->spare >= 0)
        close(server->spare);
    if (server->epoll >= 0)
        close(server->epoll);
    free(server->path);
    *server = UNIX_SERVER_CLOSED;
}

void unix_server_close(struct unix_server *server)
{
    if (server->listener >= 0)
        unlink(server->path);
    unix_server_forget(server);
}

int unix_server_accept(struct unix_server *server)
{
    int fd = unix_socket_accept(server->listener, &server->spare);

    if (fd < 0 || unix_socket_is_ours(fd))
        return fd;
    close(fd);
    return -EPERM;
}

/* A client that is to be forgotten is taken out, as closing it does not do that while a process
 * that was forked has it, too. */
int unix_server_watch(struct unix_server *server, int fd, uint64_t key, uint32_t *watched,
                      uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = key};
    int how = !events ? EPOLL_CTL_DEL : *watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (events == *watched)
        return 0;
    *watched = events;
    return epoll_ctl(server->epoll, how, fd, &event) < 0 ? -errno : 0;
}

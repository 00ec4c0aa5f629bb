/*
 * A server of TCP on the loopback, for tests: a thread that serves one connection after the other.
 */
#ifndef DOPPEL_TESTS_UNIT_NET_SERVER_H
#define DOPPEL_TESTS_UNIT_NET_SERVER_H

#include "test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct net_server {
    int listener;
    unsigned port;
    size_t gives;      /* bytes of the pattern that it sends first */
    _Atomic bool slow; /* it sleeps for a moment after every MiB */
    pthread_t thread;
    _Atomic unsigned served; /* connections that came to their end */
    _Atomic unsigned broken; /* or broke */
    _Atomic uint64_t sum;    /* of the bytes that it has got */
};

/* The byte at OFFSET of what it sends. */
static inline uint8_t net_pattern(uint64_t offset)
{
    return (uint8_t)(offset * 2654435761u >> 13);
}

static inline bool net_server_give(int fd, size_t size)
{
    static const size_t most = 65536;
    uint8_t *part = malloc(most);
    bool good = true;

    for (size_t done = 0, n; good && done < size; done += n) {
        n = size - done < most ? size - done : most;
        for (size_t i = 0; i < n; i++)
            part[i] = net_pattern(done + i);
        good = send(fd, part, n, MSG_NOSIGNAL) == (ssize_t)n;
    }
    free(part);
    return good;
}

/* Gives what is to be given, echoes up to 100 bytes, and takes the rest, until the other side has
 * ended. */
static inline void net_server_one(struct net_server *server, int fd)
{
    uint8_t data[65536];
    size_t echoed = 0, got = 0;
    ssize_t n;
    bool good = net_server_give(fd, server->gives);

    while (good && (n = recv(fd, data, sizeof(data), 0)) != 0) {
        uint64_t sum = 0;

        got += n > 0 ? (size_t)n : 0;
        if (server->slow && got >= 1 << 20) {
            got = 0;
            usleep(20000);
        }
        good = n > 0;
        for (ssize_t i = 0; i < n; i++)
            sum += data[i];
        server->sum += sum;
        if (good && server->gives == 0 && echoed < 100) {
            good = send(fd, data, (size_t)(n < 100 ? n : 100), MSG_NOSIGNAL) > 0;
            echoed += (size_t)n;
        }
    }
    if (good)
        server->served++;
    else
        server->broken++;
    close(fd);
}

static inline void *net_server_run(void *opaque)
{
    struct net_server *server = opaque;
    int fd;

    while ((fd = accept(server->listener, NULL, NULL)) >= 0)
        net_server_one(server, fd);
    return NULL;
}

static inline void net_server_start(struct net_server *server, size_t gives)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(at);

    memset(server, 0, sizeof(*server));
    server->gives = gives;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(server->listener, 128), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&at, &size), 0);
    server->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&server->thread, NULL, net_server_run, server), 0);
}

static inline void net_server_stop(struct net_server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
}

#endif

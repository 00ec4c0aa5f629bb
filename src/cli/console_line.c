/*
 * The console of a machine in the background.
 */
#include "cli/console_line.h"

#include "base/time.h"
#include "base/unix_server.h"
#include "base/util.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MOST 8
#define INPUT_MOST   4096

struct client {
    int fd;           /* -1: free */
    uint64_t at;      /* how much of all that was printed it has got, or missed */
    uint64_t moved;   /* when it last took something, or had nothing to take */
    uint32_t watched; /* what epoll(7) looks for */
};

struct console_line {
    struct unix_server socket;
    uint64_t printed; /* bytes, ever */
    struct client clients[CLIENTS_MOST];
    size_t input_size;
    uint8_t input[INPUT_MOST];
    uint8_t ring[LINE_KEPT]; /* byte N of all at N % LINE_KEPT */
};

/* ---- Clients ---- */

static uint64_t number_of(const struct console_line *l, const struct client *c)
{
    return (uint64_t)(c - l->clients);
}

static void drop(struct console_line *l, struct client *c)
{
    unix_server_watch(&l->socket, c->fd, number_of(l, c), &c->watched, 0);
    close(c->fd);
    c->fd = -1;
}

/* Has epoll(7) look for what can be done. Of a client that is gone it always tells. */
static void watch(struct console_line *l, struct client *c)
{
    uint32_t wanted = (c->at < l->printed ? (uint32_t)EPOLLOUT : 0) |
                      (l->input_size < INPUT_MOST ? (uint32_t)EPOLLIN : 0) | EPOLLHUP;

    if (c->fd >= 0 &&
        unix_server_watch(&l->socket, c->fd, number_of(l, c), &c->watched, wanted) < 0)
        drop(l, c);
}

static void take_in(struct console_line *l)
{
    int fd = unix_server_accept(&l->socket);
    struct client *c = NULL;

    if (fd < 0)
        return;
    for (unsigned i = 0; i < CLIENTS_MOST && !c; i++)
        if (l->clients[i].fd < 0)
            c = &l->clients[i];
    if (!c) {
        close(fd);
        return;
    }
    *c = (struct client){.fd = fd,
                         .at = l->printed > LINE_KEPT ? l->printed - LINE_KEPT : 0,
                         .moved = time_now_ns()};
    watch(l, c);
}

static void write_some(struct console_line *l, struct client *c)
{
    ssize_t n = 0;

    while (c->at < l->printed && n >= 0) {
        size_t from = c->at % LINE_KEPT, size = MIN(l->printed - c->at, LINE_KEPT - from);

        n = send(c->fd, l->ring + from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            drop(l, c);
            return;
        }
        if (n > 0) {
            c->at += (uint64_t)n;
            c->moved = time_now_ns();
        }
    }
}

static void read_some(struct console_line *l, struct client *c)
{
    size_t room = INPUT_MOST - l->input_size;
    ssize_t n = room ? recv(c->fd, l->input + l->input_size, room, MSG_DONTWAIT) : -1;

    if (n > 0)
        l->input_size += (size_t)n;
    else if (room && (n == 0 || (errno != EAGAIN && errno != EINTR)))
        drop(l, c);
}

/* ---- For the console ---- */

int console_line_fd(const struct console_line *l)
{
    return l->socket.epoll;
}

void console_line_work(struct console_line *l)
{
    struct epoll_event events[CLIENTS_MOST + 1];
    int count = epoll_wait(l->socket.epoll, events, ARRAY_SIZE(events), 0);

    for (int i = 0; i < count; i++) {
        struct client *c = &l->clients[MIN(events[i].data.u64, (uint64_t)CLIENTS_MOST - 1)];

        if (events[i].data.u64 == CLIENTS_MOST)
            take_in(l);
        else if (c->fd >= 0 && events[i].events & (EPOLLHUP | EPOLLERR))
            drop(l, c);
        else if (c->fd >= 0 && events[i].events & EPOLLIN)
            read_some(l, c);
    }
    for (unsigned i = 0; i < CLIENTS_MOST; i++) {
        if (l->clients[i].fd >= 0)
            write_some(l, &l->clients[i]);
        watch(l, &l->clients[i]);
    }
}

void console_line_put(struct console_line *l, const void *data, size_t size)
{
    uint64_t now = time_now_ns();

    for (size_t done = 0; done < size;) {
        size_t at = (l->printed + done) % LINE_KEPT, n = MIN(size - done, LINE_KEPT - at);

        memcpy(l->ring + at, (const uint8_t *)data + done, n);
        done += n;
    }
    for (unsigned i = 0; i < CLIENTS_MOST; i++) {
        struct client *c = &l->clients[i];

        if (c->at == l->printed)
            c->moved = now;
        if (c->at + LINE_KEPT < l->printed + size)
            c->at = l->printed + size - LINE_KEPT;
    }
    l->printed += size;
}

bool console_line_full(const struct console_line *l)
{
    uint64_t now = time_now_ns();

    for (unsigned i = 0; i < CLIENTS_MOST; i++) {
        const struct client *c = &l->clients[i];

        if (c->fd >= 0 && l->printed - c->at > LINE_KEPT / 2 &&
            now - c->moved < LINE_PATIENCE_MS * NS_PER_MS)
            return true;
    }
    return false;
}

size_t console_line_take(struct console_line *l, void *data, size_t size)
{
    size = MIN(size, l->input_size);
    memcpy(data, l->input, size);
    l->input_size -= size;
    memmove(l->input, l->input + size, l->input_size);
    return size;
}

/* ---- Making and unmaking ---- */

void console_line_close(struct console_line *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < CLIENTS_MOST; i++) {
        if (l->clients[i].fd >= 0)
            write_some(l, &l->clients[i]);
        if (l->clients[i].fd >= 0)
            drop(l, &l->clients[i]);
    }
    unix_server_close(&l->socket);
    free(l);
}

struct console_line *console_line_open(const char *path, struct error *err)
{
    struct console_line *l = calloc(1, sizeof(*l));

    if (!l) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    for (unsigned i = 0; i < CLIENTS_MOST; i++)
        l->clients[i].fd = -1;
    if (unix_server_open(&l->socket, path, CLIENTS_MOST, err) == 0)
        return l;
    console_line_close(l);
    return NULL;
}

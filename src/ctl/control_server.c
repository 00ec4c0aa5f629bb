/*
 * Serves a control socket.
 */
#include "ctl/control_server.h"

#include "base/unix_server.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS        16                  /* that are looked at in a turn */
#define CHUNK         4096                /* bytes that are read of a client in a turn */
#define OWED_TOO_MUCH ((size_t)64 * 1024) /* who is owed so much is not read from */

struct client {
    uint64_t number; /* 0: free */
    int fd;
    bool wants_events;
    bool lost; /* to be sent away: sweep() */
    char *in, *out;
    size_t in_size, out_size;
    uint32_t watched; /* for which events epoll(7) looks */
};

struct control_server {
    struct unix_server socket;
    struct control_ops ops;
    char *hello;   /* the line for new clients */
    uint64_t last; /* the last client's number */
    bool working;  /* in control_server_work */
    struct client clients[CONTROL_CLIENTS_MOST];
};

/* ---- Clients ---- */

static struct client *find(const struct control_server *server, uint64_t number)
{
    for (unsigned i = 0; number && i < CONTROL_CLIENTS_MOST; i++)
        if (server->clients[i].number == number)
            return (struct client *)&server->clients[i];
    return NULL;
}

static void free_client(struct client *c)
{
    close(c->fd);
    free(c->in);
    free(c->out);
    *c = (struct client){.fd = -1};
}

static void send_away(struct control_server *server, struct client *c)
{
    unix_server_watch(&server->socket, c->fd, c->number, &c->watched, 0);
    free_client(c);
}

/* Sends those away that are lost, unless one of them is being worked on. */
static void sweep(struct control_server *server)
{
    for (unsigned i = 0; i < CONTROL_CLIENTS_MOST && !server->working; i++)
        if (server->clients[i].lost)
            send_away(server, &server->clients[i]);
}

/* Has epoll(7) look for what can be done for the client. */
static void watch(struct control_server *server, struct client *c)
{
    uint32_t wanted =
        (c->out_size < OWED_TOO_MUCH ? EPOLLIN : 0) | (c->out_size ? (uint32_t)EPOLLOUT : 0);

    if (unix_server_watch(&server->socket, c->fd, c->number, &c->watched, wanted) < 0)
        c->lost = true;
}

/* Sends what the client is owed, as far as it takes that. */
static void write_some(struct client *c)
{
    ssize_t n;

    if (!c->out_size || c->lost)
        return;
    n = send(c->fd, c->out, c->out_size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
        c->lost = errno != EAGAIN && errno != EINTR;
        return;
    }
    c->out_size -= (size_t)n;
    memmove(c->out, c->out + n, c->out_size);
}

/* Puts SIZE bytes behind what the client is owed. */
static void append(struct client *c, const char *bytes, size_t size)
{
    char *longer = NULL;

    if (c->out_size + size <= CONTROL_OWED_MOST)
        longer = realloc(c->out, c->out_size + size);
    c->lost = !longer;
    if (!longer)
        return;
    memcpy(longer + c->out_size, bytes, size);
    c->out = longer;
    c->out_size += size;
}

/* Sends LINE, which may be NULL for lack of memory, now or as soon as the client takes it. */
static void owe(struct control_server *server, struct client *c, const char *line)
{
    if (c->lost)
        return;
    c->lost = !line;
    if (line)
        append(c, line, strlen(line));
    if (c->lost)
        return;
    write_some(c);
    watch(server, c);
}

static void say(struct control_server *server, struct client *c, json_t *line)
{
    char *text = control_line(line);

    owe(server, c, text);
    free(text);
}

static struct client *find_room(struct control_server *server)
{
    for (unsigned i = 0; i < CONTROL_CLIENTS_MOST; i++)
        if (!server->clients[i].number)
            return &server->clients[i];
    return NULL;
}

static void take_in(struct control_server *server)
{
    int fd = unix_server_accept(&server->socket);
    struct client *c = find_room(server);

    if (fd < 0)
        return;
    if (!c) {
        close(fd);
        return;
    }
    *c = (struct client){.number = ++server->last, .fd = fd};
    watch(server, c);
    owe(server, c, server->hello);
}

/* ---- Requests ---- */

static void take_line(struct control_server *server, struct client *c, const char *line,
                      size_t size)
{
    struct control_request request;
    struct error err = {0};

    if (control_request_parse(line, size, &request, &err) < 0) {
        say(server, c, control_failure(0, EINVAL, err.text));
        c->lost = true;
        return;
    }
    server->ops.request(server->ops.opaque, c->number, &request);
    control_request_free(&request);
}

/* Takes the whole lines out of what the client has sent. */
static void take_lines(struct control_server *server, struct client *c)
{
    size_t done = 0;
    char *end;

    while (!c->lost && (end = memchr(c->in + done, '\n', c->in_size - done))) {
        size_t size = (size_t)(end - (c->in + done));

        take_line(server, c, c->in + done, size);
        done += size + 1;
    }
    c->in_size -= done;
    memmove(c->in, c->in + done, c->in_size);
    if (c->in_size < CONTROL_LINE_MOST || c->lost)
        return;
    say(server, c, control_failure(0, EMSGSIZE, "a line is too long"));
    c->lost = true;
}

static void read_some(struct control_server *server, struct client *c)
{
    char *longer = realloc(c->in, c->in_size + CHUNK);
    ssize_t n;

    if (!longer) {
        c->lost = true;
        return;
    }
    c->in = longer;
    n = recv(c->fd, c->in + c->in_size, CHUNK, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        c->lost = true;
    if (n <= 0)
        return;
    c->in_size += (size_t)n;
    take_lines(server, c);
}

/* ---- For the server's user ---- */

int control_server_fd(const struct control_server *server)
{
    return server->socket.epoll;
}

void control_server_work(struct control_server *server)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(server->socket.epoll, events, EVENTS, 0);
    bool waiting = false; /* a client that is to be let in */

    server->working = true;
    for (int i = 0; i < count; i++) {
        struct client *c = find(server, events[i].data.u64);

        if (!c) {
            waiting |= events[i].data.u64 == 0;
            continue;
        }
        if (events[i].events & EPOLLOUT)
            write_some(c);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            read_some(server, c);
        if (!c->lost)
            watch(server, c);
    }
    server->working = false;
    sweep(server);
    /* If there is no room, those who have gone make some first. */
    if (waiting && (count < EVENTS || find_room(server)))
        take_in(server);
}

bool control_server_has(const struct control_server *server, uint64_t client)
{
    return find(server, client) != NULL;
}

void control_answer(struct control_server *server, uint64_t client, int64_t id, json_t *result)
{
    struct client *c = find(server, client);

    if (c)
        say(server, c, control_result(id, result));
    else
        json_decref(result);
    sweep(server);
}

void control_refuse(struct control_server *server, uint64_t client, int64_t id,
                    const struct error *err)
{
    struct client *c = find(server, client);

    if (c)
        say(server, c, control_failure(id, err->code, err->text));
    sweep(server);
}

void control_server_subscribe(struct control_server *server, uint64_t client, bool on)
{
    struct client *c = find(server, client);

    if (c)
        c->wants_events = on;
}

void control_server_event(struct control_server *server, json_t *event)
{
    char *line = control_line(event);

    for (unsigned i = 0; line && i < CONTROL_CLIENTS_MOST; i++)
        if (server->clients[i].number && server->clients[i].wants_events)
            owe(server, &server->clients[i], line);
    free(line);
    sweep(server);
}

bool control_server_idle(const struct control_server *server)
{
    for (unsigned i = 0; i < CONTROL_CLIENTS_MOST; i++)
        if (server->clients[i].number && !server->clients[i].lost && server->clients[i].out_size)
            return false;
    return true;
}

/* ---- Making and unmaking ---- */

void control_server_forget(struct control_server *server)
{
    if (!server)
        return;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MOST; i++)
        if (server->clients[i].number)
            free_client(&server->clients[i]);
    unix_server_forget(&server->socket);
    free(server->hello);
    free(server);
}

void control_server_close(struct control_server *server)
{
    if (server)
        unix_server_close(&server->socket);
    control_server_forget(server);
}

struct control_server *control_server_open(const char *path, const char *name,
                                           const struct control_ops *ops, struct error *err)
{
    struct control_server *server = calloc(1, sizeof(*server));

    if (!server) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    server->ops = *ops;
    server->socket = UNIX_SERVER_CLOSED;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MOST; i++)
        server->clients[i].fd = -1;
    server->hello = control_line(control_hello(name));
    if (!server->hello)
        error_set(err, ENOMEM, "out of memory");
    else if (unix_server_open(&server->socket, path, 0, err) == 0)
        return server;
    control_server_close(server);
    return NULL;
}

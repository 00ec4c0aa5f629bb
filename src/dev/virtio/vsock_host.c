/*
 * The host's side of a virtio socket device: Unix sockets.
 *
 * All of them are in one epoll set, edge-triggered, which the loop watches as one file. What an
 * event says is noted in the connection and stays true until a call has found nothing.
 */
#include "dev/virtio/vsock_private.h"

#include "base/unix_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG        128
#define LISTENER       UINT64_MAX /* its number for epoll */
#define EVENTS_AT_ONCE 32
#define GUEST_SUFFIX   11 /* "_4294967295" */

#define GREETING      "CONNECT "
#define GREETING_MOST 32 /* bytes of a line, more than any good one has */

static bool later(int error)
{
    return error == EAGAIN || error == EINTR;
}

/* ---- Ends ---- */

/* Has the guest told what the host does not do any more: a program that has gone does not read,
 * either, but that is told only when all that it has sent was read. */
static void look_at_end(struct vsock_connection *c)
{
    uint8_t over = 0;

    if (c->ended || (c->hung && (c->guest_over & VSOCK_NO_RECEIVE)))
        over = c->hung || c->shut_send ? VSOCK_NEITHER : VSOCK_NO_SEND;
    if (over & ~c->over)
        c->tell |= VSOCK_TELL_SHUTDOWN;
    c->over |= over;
}

void vsock_host_settle(struct vsock *v, struct vsock_connection *c)
{
    if ((c->guest_over & VSOCK_NO_RECEIVE) && !c->shut_receive) {
        shutdown(c->fd, SHUT_RD);
        c->shut_receive = true;
        c->readable = false;
    }
    if ((c->guest_over & VSOCK_NO_SEND) && !c->shut_send && !vsock_kept(c)) {
        shutdown(c->fd, SHUT_WR);
        c->shut_send = true;
    }
    look_at_end(c);
    if (c->guest_over == VSOCK_NEITHER && !vsock_kept(c))
        vsock_reset(v, c);
}

/* The program has gone: nobody reads what is kept for it. */
static void hang_up(struct vsock_connection *c)
{
    c->hung = true;
    vsock_drop_kept(c);
}

/* ---- Bytes ---- */

uint32_t vsock_host_read(struct vsock *v, struct vsock_connection *c, void *data, uint32_t size)
{
    ssize_t n = recv(c->fd, data, size, MSG_DONTWAIT);

    if (n > 0)
        return (uint32_t)n;
    if (n < 0 && errno == EINTR)
        return 0;
    c->readable = false;
    if (n == 0)
        c->ended = true;
    else if (errno != EAGAIN)
        vsock_reset(v, c);
    if (c->ended)
        vsock_host_settle(v, c);
    return 0;
}

/* Sends what the socket takes. Returns how much that is. */
static uint32_t send_some(struct vsock_connection *c, const uint8_t *data, uint32_t size)
{
    uint32_t done = 0;

    while (done < size && !c->hung) {
        ssize_t n = send(c->fd, data + done, size - done, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0 && errno != EINTR)
            hang_up(c);
        done += n > 0 ? (uint32_t)n : 0;
    }
    return done;
}

/* Has the guest told that there is room again, when it may lack some. */
static void look_at_window(struct vsock_connection *c)
{
    uint32_t left = c->window - (c->received - c->told);

    if (left < c->window / 2 && c->told != c->forwarded)
        c->tell |= VSOCK_TELL_CREDIT;
}

/* Sends what is kept. */
static void flush_kept(struct vsock_connection *c)
{
    uint32_t kept = vsock_kept(c);

    while (kept && !c->hung) {
        uint32_t piece = MIN(kept, c->window - c->out_start);
        uint32_t done = send_some(c, c->out + c->out_start, piece);

        if (c->hung) /* nothing is kept any more */
            break;
        c->forwarded += done;
        c->out_start = (c->out_start + done) % c->window;
        kept -= done;
        if (done < piece)
            break;
    }
    if (!vsock_kept(c))
        vsock_drop_kept(c);
    look_at_window(c);
}

/* Keeps SIZE bytes, for which there is room. False: there is no memory. */
static bool keep(struct vsock_connection *c, const uint8_t *data, uint32_t size)
{
    uint32_t at, piece;

    if (!c->out) {
        c->out = malloc(c->window);
        c->out_start = 0;
    }
    if (!c->out)
        return false;
    at = (c->out_start + vsock_kept(c)) % c->window;
    piece = MIN(size, c->window - at);
    memcpy(c->out + at, data, piece);
    memcpy(c->out, data + piece, size - piece);
    c->received += size;
    return true;
}

void vsock_host_write(struct vsock *v, struct vsock_connection *c, const void *data, uint32_t size)
{
    uint32_t done = vsock_kept(c) ? 0 : send_some(c, data, size);

    if (c->hung)
        done = size;
    c->received += done;
    c->forwarded += done;
    if (done < size && !keep(c, (const uint8_t *)data + done, size - done))
        vsock_reset(v, c);
    else
        look_at_window(c);
}

/* ---- Clients ---- */

void vsock_host_accepted(struct vsock *v, struct vsock_connection *c)
{
    char line[32];
    size_t size = (size_t)snprintf(line, sizeof(line), "OK %u\n", c->host_port);

    c->stage = VSOCK_OPEN;
    c->readable = true;
    /* Nothing was sent to it before. */
    if (send(c->fd, line, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
        vsock_reset(v, c);
}

/* Reads the port of "CONNECT PORT\n", which LINE is without its end. */
static bool parse_greeting(const char *line, uint32_t *port)
{
    unsigned long long value;
    char *end;

    if (strncmp(line, GREETING, strlen(GREETING)) != 0)
        return false;
    line += strlen(GREETING);
    if (*line < '0' || *line > '9')
        return false;
    errno = 0;
    value = strtoull(line, &end, 10);
    *port = (uint32_t)value;
    return !errno && !*end && value < UINT32_MAX; /* the largest one stands for any port */
}

/* Takes a client's line, once all of it is there. What follows stays in the socket. */
static void read_greeting(struct vsock *v, struct vsock_connection *c)
{
    char line[GREETING_MOST + 1];
    ssize_t n = recv(c->fd, line, GREETING_MOST, MSG_PEEK | MSG_DONTWAIT);
    char *end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
    uint32_t port;

    if (!end && !c->hung && ((n > 0 && n < GREETING_MOST) || (n < 0 && later(errno))))
        return; /* there is more to come */
    if (end)
        *end = 0;
    if (!end || c->hung || !parse_greeting(line, &port) ||
        recv(c->fd, line, (size_t)(end - line) + 1, MSG_DONTWAIT) != end - line + 1) {
        vsock_remove(v, c);
        return;
    }
    fifo_remove(&v->greetings, &c->link);
    c->stage = VSOCK_ASKING;
    c->tell = VSOCK_TELL_REQUEST;
    vsock_name(v, c, port, vsock_client_port(v, port));
    vsock_look(v, c);
}

/* A client that has said nothing yet makes room for a new one. */
static void on_listener(struct vsock *v)
{
    int fd = descriptors_take(&v->limit, unix_socket_accept(v->listener, &v->spare));
    struct vsock_connection *c;

    if (fd < 0)
        return;
    if (v->greetings.length == VSOCK_GREETINGS || (vsock_is_full(v) && v->greetings.first))
        vsock_remove(v, container_of(v->greetings.first, struct vsock_connection, link));
    c = vsock_add(v, fd, VSOCK_GREETING);
    if (c)
        fifo_put(&v->greetings, &c->link);
    else
        close(fd);
}

/* ---- Events ---- */

static void on_open(struct vsock *v, struct vsock_connection *c, uint32_t events)
{
    if ((events & ~(uint32_t)EPOLLOUT) && !c->ended && !(c->guest_over & VSOCK_NO_RECEIVE))
        c->readable = true;
    if (c->hung)
        hang_up(c);
    flush_kept(c);
    vsock_host_settle(v, c);
    vsock_look(v, c);
}

static void on_connection(struct vsock *v, struct vsock_connection *c, uint32_t events)
{
    c->hung |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    switch (c->stage) {
    case VSOCK_GREETING: read_greeting(v, c); break;
    case VSOCK_ASKING:
        if (c->hung)
            vsock_reset(v, c);
        break;
    case VSOCK_OPEN: on_open(v, c, events); break;
    case VSOCK_DRAINING:
        if (!c->hung)
            flush_kept(c);
        if (c->hung || !vsock_kept(c))
            vsock_remove(v, c);
        break;
    case VSOCK_FREE:
    case VSOCK_RESETTING: break;
    }
}

/* On the loop's thread: sockets have something new. */
static void on_events(void *opaque, uint32_t unused)
{
    struct vsock *v = opaque;
    struct epoll_event event[EVENTS_AT_ONCE];
    int count = epoll_wait(v->epoll, event, EVENTS_AT_ONCE, 0);

    pthread_mutex_lock(&v->lock);
    for (int i = 0; i < count; i++) {
        struct vsock_connection *c = vsock_of_event(v, event[i].data.u64);

        if (event[i].data.u64 == LISTENER)
            on_listener(v);
        else if (c)
            on_connection(v, c, event[i].events);
    }
    pthread_mutex_unlock(&v->lock);
}

/* ---- The guest's connections ---- */

int vsock_host_connect(struct vsock *v, uint32_t port)
{
    char path[UNIX_SOCKET_PATH_MAX + 1];

    snprintf(path, sizeof(path), "%s_%u", v->path, port);
    return descriptors_take(&v->limit, unix_socket_connect(path, NULL));
}

/* ---- Opening and closing ---- */

static int open_epoll(struct vsock *v, struct loop *loop, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = LISTENER};

    v->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (v->epoll < 0 || epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->listener, &event) < 0)
        return error_set(err, errno, "vsock '%s': %s", v->path, strerror(errno));
    v->spare = unix_socket_spare(v->listener, err);
    if (v->spare < 0)
        return v->spare;
    v->watch = loop_add(loop, v->epoll, 0, on_events, v, err);
    return v->watch ? 0 : -EIO;
}

int vsock_host_open(struct vsock *v, const char *path, struct loop *loop, const struct log *log,
                    struct error *err)
{
    int ret;

    if (strlen(path) > UNIX_SOCKET_PATH_MAX - GUEST_SUFFIX)
        return error_set(err, ENAMETOOLONG,
                         "'%s': the path of a vsock's socket has at most %zu bytes", path,
                         UNIX_SOCKET_PATH_MAX - GUEST_SUFFIX);
    v->path = strdup(path);
    if (!v->path)
        return error_set(err, ENOMEM, "no memory for a device (virtio-vsock)");
    descriptors_init(&v->limit, DESCRIPTORS_SOCKETS, v->path, log);
    v->listener = unix_socket_listen(path, BACKLOG, err);
    ret = v->listener < 0 ? v->listener : open_epoll(v, loop, err);
    if (ret < 0)
        vsock_host_close(v);
    return ret;
}

void vsock_host_begin(struct vsock *v)
{
    loop_modify(v->watch, EPOLLIN);
}

void vsock_host_close(struct vsock *v)
{
    int *const files[] = {&v->listener, &v->epoll, &v->spare};

    loop_remove(v->watch);
    v->watch = NULL;
    for (unsigned i = 0; i < v->slots; i++)
        if (v->connection[i].stage != VSOCK_FREE)
            vsock_remove(v, &v->connection[i]);
    if (v->listener >= 0)
        unlink(v->path);
    for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
        if (*files[i] >= 0)
            close(*files[i]);
        *files[i] = -1;
    }
    free(v->path);
    v->path = NULL;
}

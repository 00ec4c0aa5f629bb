/*
 * A virtual Ethernet switch.
 *
 * One thread waits for all ports. Of each that has something, a number of frames is passed in one
 * turn, and what that has brought to other ports is written at its end.
 */
#include "net/switch.h"

#include "base/time.h"
#include "base/unix_socket.h"
#include "base/util.h"
#include "net/switch_port.h"
#include "net/switch_table.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Frames of one port that are passed in one turn: then others have theirs. */
#define AT_ONCE 256u
#define NOBODY  UINT32_MAX /* epoll's number of the listener */

struct net_switch {
    struct port port[SWITCH_PORTS_MOST];
    struct switch_hosts hosts;
    struct switch_table table;
    unsigned members;           /* machines that have been let in */
    uint64_t clients;           /* that have come so far */
    int epoll, listener, spare; /* SPARE: see unix_socket_accept */
    const struct log *log;
};

/* ---- Ports ---- */

static void watch(struct net_switch *s, unsigned n)
{
    struct port *port = &s->port[n];
    struct epoll_event event = {.events = EPOLLIN | (port->waits ? EPOLLOUT : 0), .data.u32 = n};

    epoll_ctl(s->epoll, EPOLL_CTL_MOD, port->fd, &event);
}

static void leave(struct net_switch *s, unsigned n)
{
    struct port *port = &s->port[n];

    if (port->greeted)
        log_line(s->log, LOG_LEVEL_INFO, "machine '%s' has left port %u", s->hosts.name[n], n);
    s->members -= port->greeted;
    port_close(port); /* which takes it out of the epoll set, too */
    switch_hosts_leave(&s->hosts, n);
    switch_table_forget(&s->table, n);
}

static void flush(struct net_switch *s, unsigned n)
{
    struct port *port = &s->port[n];
    bool waited = port->waits;

    port_flush(port);
    if (port->waits != waited && !port->broken)
        watch(s, n);
}

static void flush_all(struct net_switch *s)
{
    for (unsigned i = 0; i < SWITCH_PORTS_MOST; i++) {
        if (s->port[i].fd >= 0 && s->port[i].unflushed && !s->port[i].waits)
            flush(s, i);
        if (s->port[i].fd >= 0 && s->port[i].broken)
            leave(s, i);
    }
}

/* ---- Greetings ---- */

/* The socket is empty: there is room. */
static bool answer_hello(int fd, const struct switch_hello *answer)
{
    return send(fd, answer, sizeof(*answer), MSG_DONTWAIT | MSG_NOSIGNAL) ==
           (ssize_t)sizeof(*answer);
}

static void let_in(struct net_switch *s, unsigned n)
{
    struct port *port = &s->port[n];
    struct switch_hello answer = {.magic = SWITCH_MAGIC, .version = SWITCH_VERSION};

    port->hello.name[NET_NAME_MOST] = '\0';
    if (port->hello.magic != SWITCH_MAGIC || port->hello.version != SWITCH_VERSION) {
        answer_hello(port->fd, &answer);
        port->broken = true;
        return;
    }
    if (!net_valid_hostname(port->hello.name))
        port->hello.name[0] = '\0';
    if (switch_hosts_enter(&s->hosts, n, port->hello.name))
        memcpy(answer.name, port->hello.name, sizeof(answer.name));
    else
        log_line(s->log, LOG_LEVEL_WARNING, "there are two machines '%s'", port->hello.name);
    port->greeted = true;
    s->members++;
    port->broken = !answer_hello(port->fd, &answer);
    log_line(s->log, LOG_LEVEL_INFO, "machine '%s' has come to port %u", s->hosts.name[n], n);
}

/* Takes what has come of the hello. */
static void hear(struct net_switch *s, unsigned n)
{
    struct port *port = &s->port[n];
    ssize_t got = recv(port->fd, (uint8_t *)&port->hello + port->hello_size,
                       sizeof(port->hello) - port->hello_size, MSG_DONTWAIT);

    if (got > 0)
        port->hello_size += (size_t)got;
    else
        port->broken = got == 0 || (errno != EAGAIN && errno != EINTR);
    if (port->hello_size == sizeof(port->hello))
        let_in(s, n);
}

/* Finds a port for a client: a free one, or that of the client which has been there without a hello
 * for the longest time. SWITCH_PORTS_MOST: machines have all of them. */
static unsigned find_port(struct net_switch *s)
{
    unsigned silent = SWITCH_PORTS_MOST;

    for (unsigned i = 0; i < SWITCH_PORTS_MOST; i++) {
        const struct port *port = &s->port[i];

        if (port->fd < 0)
            return i;
        if (!port->greeted &&
            (silent == SWITCH_PORTS_MOST || port->number < s->port[silent].number))
            silent = i;
    }
    if (silent < SWITCH_PORTS_MOST)
        leave(s, silent);
    return silent;
}

static void take_client(struct net_switch *s)
{
    static const struct switch_hello full = {.magic = SWITCH_MAGIC, .version = SWITCH_FULL};
    int fd = unix_socket_accept(s->listener, &s->spare);
    struct epoll_event event = {.events = EPOLLIN};
    unsigned n;

    if (fd < 0)
        return;
    n = find_port(s);
    if (n == SWITCH_PORTS_MOST)
        answer_hello(fd, &full);
    if (n == SWITCH_PORTS_MOST || port_open(&s->port[n], fd, NULL) < 0) {
        close(fd);
        return;
    }
    s->port[n].number = s->clients++;
    event.data.u32 = n;
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        leave(s, n);
}

/* ---- Frames ---- */

static void pass(struct net_switch *s, unsigned from, const struct net_frame *frame)
{
    static const struct net_offload complete;
    uint8_t reply[SWITCH_REPLY_MOST];
    unsigned to;
    size_t size;

    if (!switch_table_learn(&s->table, from, frame->data + 6))
        return;
    if (frame->data[0] & 1 || memcmp(frame->data, s->hosts.mac, 6) == 0) {
        size = switch_hosts_answer(&s->hosts, from, frame->data, frame->size, reply);
        if (size)
            port_send(&s->port[from], reply, size, &complete);
        if (size || !(frame->data[0] & 1))
            return;
    }
    to = switch_table_find(&s->table, frame->data);
    if (to < SWITCH_PORTS_MOST && to != from)
        port_send(&s->port[to], frame->data, frame->size, &frame->offload);
    for (unsigned i = 0; to == SWITCH_NOWHERE && i < SWITCH_PORTS_MOST; i++)
        if (i != from && s->port[i].fd >= 0)
            port_send(&s->port[i], frame->data, frame->size, &frame->offload);
}

/* Passes what has come from port N. */
static void serve(struct net_switch *s, unsigned n)
{
    struct port *port = &s->port[n];
    struct net_frame frame;

    for (unsigned i = 0; i < AT_ONCE; i++) {
        enum wire_result result = wire_peek(&port->in, port->fd, &frame);

        port->broken |= result == WIRE_BROKEN;
        if (result != WIRE_FRAME)
            return;
        pass(s, n, &frame);
        wire_drop(&port->in);
    }
}

static void handle(struct net_switch *s, const struct epoll_event *event)
{
    unsigned n = event->data.u32;

    if (n == NOBODY) {
        take_client(s);
        return;
    }
    if (s->port[n].fd < 0) /* it has left in this turn */
        return;
    if (event->events & EPOLLOUT)
        flush(s, n);
    if (event->events & ~(uint32_t)EPOLLOUT) {
        if (s->port[n].greeted)
            serve(s, n);
        else
            hear(s, n);
    }
}

/* Whether frames that were read wait for their turn: epoll does not know of them. */
static bool serve_read(struct net_switch *s)
{
    struct net_frame frame;
    bool more = false;

    for (unsigned i = 0; i < SWITCH_PORTS_MOST; i++) {
        struct port *port = &s->port[i];

        if (port->fd < 0 || port->broken || wire_parse(&port->in, &frame) != WIRE_FRAME)
            continue;
        serve(s, i);
        more |= !port->broken && wire_parse(&port->in, &frame) == WIRE_FRAME;
    }
    flush_all(s);
    return more;
}

/* ---- The whole ---- */

static void run(struct net_switch *s, uint64_t patience_ns)
{
    uint64_t end = time_now_ns() + patience_ns;
    bool came = false, more = false;

    while (!came || s->members > 0) {
        uint64_t now = time_now_ns();
        struct epoll_event events[32];
        int wait = came ? -1 : now < end ? (int)((end - now) / NS_PER_MS) + 1 : 0, n;

        if (!came && now >= end)
            return;
        n = epoll_wait(s->epoll, events, ARRAY_SIZE(events), more ? 0 : wait);
        for (int i = 0; i < n; i++)
            handle(s, &events[i]);
        flush_all(s);
        more = serve_read(s);
        came |= s->members > 0;
    }
}

static int begin(struct net_switch *s, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = NOBODY};

    for (unsigned i = 0; i < SWITCH_PORTS_MOST; i++)
        s->port[i].fd = -1;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &event) < 0)
        return error_set(err, errno, "switch: %s", strerror(errno));
    s->spare = unix_socket_spare(s->listener, err);
    return s->spare < 0 ? s->spare : 0;
}

int switch_serve(const char *name, int listener, uint64_t patience_ns, void (*ending)(void *opaque),
                 void *opaque, const struct log *log, struct error *err)
{
    struct net_switch *s = calloc(1, sizeof(*s));
    int ret;

    if (!s)
        return error_set(err, ENOMEM, "switch: out of memory");
    s->listener = listener;
    s->spare = -1;
    s->log = log;
    switch_hosts_begin(&s->hosts, name);
    ret = begin(s, err);
    if (ret == 0) {
        run(s, patience_ns);
        if (ending)
            ending(opaque);
        for (unsigned i = 0; i < SWITCH_PORTS_MOST; i++)
            if (s->port[i].fd >= 0) /* a client that has said no hello */
                port_close(&s->port[i]);
    }
    if (s->epoll >= 0)
        close(s->epoll);
    if (s->spare >= 0)
        close(s->spare);
    free(s);
    return ret;
}

/* ---- For clients ---- */

static bool wait_for(int fd, short events, uint64_t end)
{
    struct pollfd pfd = {fd, events, 0};
    uint64_t now = time_now_ns();

    return poll(&pfd, 1, now < end ? (int)((end - now) / NS_PER_MS) + 1 : 0) > 0;
}

int switch_greet(int fd, const char *name, uint64_t patience_ns, struct error *err)
{
    struct switch_hello hello = {.magic = SWITCH_MAGIC, .version = SWITCH_VERSION}, answer;
    uint64_t end = time_now_ns() + patience_ns;
    size_t got = 0;

    if (name)
        strncpy(hello.name, name, NET_NAME_MOST);
    /* If that fails, the switch may have said why it did not wait for it. */
    send(fd, &hello, sizeof(hello), MSG_NOSIGNAL);
    while (got < sizeof(answer)) {
        ssize_t n;

        if (!wait_for(fd, POLLIN, end))
            return error_set(err, ETIMEDOUT, "the switch does not answer");
        n = recv(fd, (uint8_t *)&answer + got, sizeof(answer) - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return error_set(err, EAGAIN, "the switch has ended");
        got += n > 0 ? (size_t)n : 0;
    }
    if (answer.magic == SWITCH_MAGIC && answer.version == SWITCH_FULL)
        return error_set(err, ENOSPC, "the switch has %u machines, the most that it takes",
                         SWITCH_PORTS_MOST);
    if (answer.magic != SWITCH_MAGIC || answer.version != SWITCH_VERSION)
        return error_set(err, EPROTO,
                         "another version of doppel has started the switch; end the "
                         "machines on it first");
    if (name && *name && !answer.name[0])
        return error_set(err, EEXIST, "there is a machine '%s' on the switch already", name);
    return 0;
}

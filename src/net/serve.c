/*
 * Serving a network to another process: one thread, which waits for both.
 */
#include "net/serve.h"

#include "net/driver.h"
#include "net/wire.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define AT_ONCE 256u

struct server {
    struct net *net;
    int fd, event;
    struct wire_in in;
    struct wire_out out;
    bool full; /* the socket has no room */
    bool held; /* the network has none for the frame that has come */
    bool over;
};

static void on_ready(void *opaque)
{
    struct server *s = opaque;

    eventfd_write(s->event, 1);
}

/* Passes what has come from the other side. */
static void take_in(struct server *s)
{
    struct net_frame frame;

    s->held = false;
    for (unsigned i = 0; i < AT_ONCE && !s->over; i++) {
        enum wire_result result = wire_peek(&s->in, s->fd, &frame);
        struct iovec iov = {frame.data, frame.size};

        s->over = result == WIRE_BROKEN;
        if (result != WIRE_FRAME)
            break;
        s->held = !net_send(s->net, &iov, 1, &frame.offload);
        if (s->held)
            break;
        wire_drop(&s->in);
    }
    net_flush(s->net);
}

/* Passes what there is for the other side. */
static void give_out(struct server *s)
{
    static const unsigned most = NET_FRAME_MOST;
    uint8_t frame[NET_FRAME_MOST];
    struct iovec iov = {frame, most};
    struct net_offload offload;
    int sent = 1;

    while (sent > 0 && wire_waiting(&s->out) < most && (iov.iov_len = net_next(s->net)) > 0) {
        net_receive(s->net, &iov, 1, &offload);
        sent = wire_send(&s->out, s->fd, &iov, 1, iov.iov_len, &offload);
    }
    if (sent >= 0)
        sent = wire_flush(&s->out, s->fd);
    s->over |= sent < 0;
    s->full = sent == 0;
}

static void run(struct server *s)
{
    struct net_frame frame;

    while (!s->over) {
        short in = s->held ? 0 : POLLIN, out = s->full ? POLLOUT : 0;
        struct pollfd pfd[] = {{s->fd, (short)(in | out), 0}, {s->event, POLLIN, 0}};
        bool more = !s->held && wire_parse(&s->in, &frame) == WIRE_FRAME;
        eventfd_t count;

        if (poll(pfd, 2, more ? 0 : -1) < 0)
            continue;
        if (pfd[1].revents)
            eventfd_read(s->event, &count);
        s->over |= s->held && pfd[0].revents & (POLLHUP | POLLERR);
        take_in(s);
        give_out(s);
    }
}

void net_serve(struct net *net, int fd)
{
    struct server s = {.net = net, .fd = fd, .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    struct net_events events = {.ready = on_ready, .opaque = &s};

    if (s.event >= 0 && wire_in_create(&s.in, true, NULL) == 0 &&
        wire_out_create(&s.out, true, NULL) == 0) {
        net_begin(net, &events, NET_CHECKSUM);
        run(&s);
        events.ready = NULL; /* the event file goes */
        net_begin(net, &events, NET_CHECKSUM);
    }
    wire_in_destroy(&s.in);
    wire_out_destroy(&s.out);
    if (s.event >= 0)
        close(s.event);
}

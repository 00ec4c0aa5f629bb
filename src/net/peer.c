/*
 * A connection to another process that takes and gives frames.
 */
#include "net/peer.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

static struct peer *peer_of(struct net *net)
{
    return container_of(net, struct peer, net);
}

/* ---- On the card's threads ---- */

/* Has the loop watch for EVENTS, too. */
static void want(struct peer *peer, uint32_t events)
{
    pthread_mutex_lock(&peer->lock);
    if (peer->watch && !peer->broken) {
        peer->wanted |= events;
        loop_modify(peer->watch, peer->wanted);
    }
    pthread_mutex_unlock(&peer->lock);
}

/* The connection is over. */
static void give_up(struct peer *peer)
{
    pthread_mutex_lock(&peer->lock);
    peer->broken = true;
    pthread_mutex_unlock(&peer->lock);
    loop_post(peer->net.host->loop, &peer->job);
}

bool peer_send(struct net *net, const struct iovec *iov, unsigned iovs, size_t size,
               const struct net_offload *offload)
{
    struct peer *peer = peer_of(net);
    int sent = 1; /* without a connection a frame is lost */

    pthread_mutex_lock(&peer->out_lock);
    if (peer->fd >= 0)
        sent = wire_send(&peer->out, peer->fd, iov, iovs, size, offload);
    pthread_mutex_unlock(&peer->out_lock);
    if (sent == 0)
        want(peer, EPOLLOUT);
    if (sent < 0)
        give_up(peer);
    return sent != 0;
}

/* Writes what is kept, and has the loop go on if there is no room for all of it. */
static void flush(struct peer *peer)
{
    int sent = 1;

    pthread_mutex_lock(&peer->out_lock);
    if (peer->fd >= 0)
        sent = wire_flush(&peer->out, peer->fd);
    pthread_mutex_unlock(&peer->out_lock);
    if (sent == 0)
        want(peer, EPOLLOUT);
    if (sent < 0)
        give_up(peer);
}

void peer_flush(struct net *net)
{
    flush(peer_of(net));
}

bool peer_peek(struct net *net, struct net_frame *frame)
{
    struct peer *peer = peer_of(net);
    enum wire_result result = WIRE_NOTHING;
    bool there;

    pthread_mutex_lock(&peer->in_lock);
    if (peer->in_old)
        wire_in_reset(&peer->in);
    peer->in_old = false;
    there = peer->fd >= 0;
    if (there)
        result = wire_peek(&peer->in, peer->fd, frame);
    pthread_mutex_unlock(&peer->in_lock);
    if (there && result == WIRE_NOTHING)
        want(peer, EPOLLIN);
    if (result == WIRE_BROKEN)
        give_up(peer);
    return result == WIRE_FRAME;
}

/* Nobody but this thread and peer_peek changes `in`. */
void peer_drop(struct net *net)
{
    wire_drop(&peer_of(net)->in);
}

/* ---- On the loop's thread ---- */

static void on_event(void *opaque, uint32_t events)
{
    struct peer *peer = opaque;

    pthread_mutex_lock(&peer->lock);
    peer->wanted &= ~events;
    if (events & (EPOLLHUP | EPOLLERR)) /* whoever reads or writes next will see it */
        peer->wanted = 0;
    if (peer->watch)
        loop_modify(peer->watch, peer->wanted);
    pthread_mutex_unlock(&peer->lock);
    if (events & EPOLLOUT)
        flush(peer);
    net_ready(&peer->net);
}

/* Ends a connection that was found broken. */
static void disconnect(void *opaque)
{
    struct peer *peer = opaque;
    struct loop_watch *watch;

    pthread_mutex_lock(&peer->in_lock);
    pthread_mutex_lock(&peer->out_lock);
    pthread_mutex_lock(&peer->lock);
    watch = peer->watch;
    peer->watch = NULL;
    if (peer->fd >= 0)
        close(peer->fd);
    peer->fd = -1;
    pthread_mutex_unlock(&peer->lock);
    pthread_mutex_unlock(&peer->out_lock);
    pthread_mutex_unlock(&peer->in_lock);
    if (!watch)
        return;
    loop_remove(watch);
    net_set_up(&peer->net, false);
    net_ready(&peer->net); /* a frame that waits to be sent is lost */
    peer->lost(peer);
}

/* ---- Making and unmaking ---- */

int peer_connect(struct peer *peer, int fd, struct error *err)
{
    struct loop_watch *watch = loop_add(peer->net.host->loop, fd, 0, on_event, peer, err);

    if (!watch) {
        close(fd);
        return -ENOMEM;
    }
    pthread_mutex_lock(&peer->in_lock);
    pthread_mutex_lock(&peer->out_lock);
    pthread_mutex_lock(&peer->lock);
    peer->in_old = true;
    wire_out_reset(&peer->out);
    peer->fd = fd;
    peer->watch = watch;
    peer->wanted = 0;
    peer->broken = false;
    pthread_mutex_unlock(&peer->lock);
    pthread_mutex_unlock(&peer->out_lock);
    pthread_mutex_unlock(&peer->in_lock);
    net_set_up(&peer->net, true);
    net_ready(&peer->net);
    return 0;
}

int peer_begin(struct peer *peer, const struct net_options *options, const struct net_host *host,
               const struct net_driver *driver, bool offloads, void (*lost)(struct peer *peer),
               struct error *err)
{
    if (wire_in_create(&peer->in, offloads, err) < 0)
        return -ENOMEM;
    if (wire_out_create(&peer->out, offloads, err) < 0) {
        wire_in_destroy(&peer->in);
        return -ENOMEM;
    }
    net_begin_driver(&peer->net, driver, options, host);
    peer->net.takes = offloads ? NET_CHECKSUM | NET_TSO4 | NET_TSO6 : 0;
    peer->net.up = false;
    peer->lost = lost;
    peer->fd = -1;
    peer->job = (struct loop_job){.run = disconnect, .opaque = peer};
    pthread_mutex_init(&peer->in_lock, NULL);
    pthread_mutex_init(&peer->out_lock, NULL);
    pthread_mutex_init(&peer->lock, NULL);
    return 0;
}

void peer_end(struct peer *peer)
{
    struct loop_watch *watch;

    /* A job that runs meanwhile leaves it to this thread. What the watch calls may post the job. */
    pthread_mutex_lock(&peer->lock);
    watch = peer->watch;
    peer->watch = NULL;
    pthread_mutex_unlock(&peer->lock);
    loop_remove(watch);
    loop_cancel(peer->net.host->loop, &peer->job);
    if (peer->fd >= 0)
        close(peer->fd);
    pthread_mutex_destroy(&peer->in_lock);
    pthread_mutex_destroy(&peer->out_lock);
    pthread_mutex_destroy(&peer->lock);
    wire_in_destroy(&peer->in);
    wire_out_destroy(&peer->out);
    net_end_driver(&peer->net);
}

/*
 * Between a card and the driver of its network: frames are checked, and finished where one side
 * does not take what the other one leaves undone.
 */
#include "net/net.h"

#include "base/buffers.h"
#include "base/util.h"
#include "net/driver.h"
#include "net/shaper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* All headers of a frame that is looked at: Ethernet with two tags, IPv6 with a few extensions, and
 * TCP. */
#define HEADERS_MOST 256u
/* Malformed frames that are dropped in one call: a peer that sends nothing else keeps no worker. */
#define MALFORMED_AT_ONCE 256u

/* ---- For drivers ---- */

void net_begin_driver(struct net *net, const struct net_driver *driver,
                      const struct net_options *options, const struct net_host *host)
{
    net->driver = driver;
    net->host = host;
    net->info = (struct net_info){
        .kind = net_kind_name(options->kind),
        .mtu = options->mtu,
        .has_mac = options->has_mac,
        .queues = options->queues,
    };
    memcpy(net->info.mac, options->mac, sizeof(net->info.mac));
    net->up = true;
    pthread_mutex_init(&net->events_lock, NULL);
    pthread_mutex_init(&net->capture_lock, NULL);
}

static void free_rest(struct net_rest *rest)
{
    free(rest->buffer);
    free(rest->piece);
}

void net_end_driver(struct net *net)
{
    net_free_settings(net);
    pthread_mutex_destroy(&net->events_lock);
    pthread_mutex_destroy(&net->capture_lock);
    free_rest(&net->sending);
    free_rest(&net->shaped);
    free(net->received);
}

void net_ready(struct net *net)
{
    struct shaper *shaper = atomic_load(&net->shaper);

    if (shaper)
        shaper_room(shaper);
    net_tell_card(net);
}

void net_set_up(struct net *net, bool up)
{
    struct net_events events;

    atomic_store(&net->up, up);
    pthread_mutex_lock(&net->events_lock);
    events = net->events;
    pthread_mutex_unlock(&net->events_lock);
    if (events.link)
        events.link(events.opaque, up);
}

/* ---- Sending ---- */

/* Whether the frame may be sent: it has a sensible size, and what it leaves undone can be done. */
static bool is_good(const struct iovec *iov, size_t size, const struct net_offload *offload)
{
    uint8_t head[HEADERS_MOST];
    size_t length = offload->gso ? MIN(size, sizeof(head)) : 0;

    if (size < NET_FRAME_LEAST || size > NET_FRAME_MOST)
        return false;
    buffers_gather(iov, 0, head, length);
    return offload_check(head, length, size, offload);
}

/* Copies the frame to sending.buffer, where nobody changes it: the guest may do so meanwhile, so it
 * is looked at again. False: it is lost. */
static bool copy_frame(struct net *net, const struct iovec *iov, size_t size,
                       const struct net_offload *offload)
{
    if (!net_need_buffer(&net->sending.buffer))
        return false;
    buffers_gather(iov, 0, net->sending.buffer, size);
    return offload_check(net->sending.buffer, size, size, offload);
}

/* Gives the frame to the shaper. Segments that may be lost are so one by one. */
static bool send_shaped(struct net *net, struct shaper *shaper, const struct iovec *iov,
                        size_t size, const struct net_offload *offload)
{
    static const struct net_offload complete;
    struct net_rest *rest = &net->sending;
    struct offload_split split;
    size_t part;

    if (!shaper_open(shaper))
        return false;
    if (!copy_frame(net, iov, size, offload))
        return true;
    if (!offload->gso || !shaper_get(shaper).loss) {
        shaper_put(shaper, rest->buffer, size, offload);
        return true;
    }
    if (net_need_buffer(&rest->piece) && offload_split_begin(&split, rest->buffer, size, offload))
        while ((part = offload_split_next(&split, rest->piece)) > 0)
            shaper_put(shaper, rest->piece, part, &complete);
    return true;
}

static bool send_good(struct net *net, const struct iovec *iov, unsigned iovs, size_t size,
                      const struct net_offload *offload)
{
    struct shaper *shaper = atomic_load(&net->shaper);
    struct net_rest *rest = &net->sending;

    if (rest->going) /* it is the frame that was refused last time */
        return net_send_rest(net, rest);
    if (shaper && shaper_active(shaper))
        return send_shaped(net, shaper, iov, size, offload);
    if (!net->linear && !(offload_needs(offload) & ~net->takes))
        return net->driver->send(net, iov, iovs, size, offload);
    return !copy_frame(net, iov, size, offload) ||
           net_send_finished(net, rest, rest->buffer, size, *offload);
}

bool net_send(struct net *net, const struct iovec *iov, unsigned iovs,
              const struct net_offload *offload)
{
    static const struct net_offload complete;
    struct net_offload own = offload ? *offload : complete;
    size_t size = buffers_length(iov, iovs);
    bool sent;

    if (!is_good(iov, size, &own))
        return true;
    sent = send_good(net, iov, iovs, size, &own);
    if (sent && atomic_load_explicit(&net->captures, memory_order_relaxed))
        net_capture(net, iov, iovs, size);
    return sent;
}

/* ---- Receiving ---- */

/* Takes the next segment of the frame that is being divided. */
static bool next_segment(struct net *net)
{
    size_t size = offload_split_next(&net->receiving, net->received);

    net->going = size > 0;
    if (!net->going) {
        net->driver->drop(net);
        return false;
    }
    net->frame = (struct net_frame){.data = net->received, .size = size};
    return true;
}

/* Makes of what the driver has a frame that the guest accepts. False: it is none. */
static bool take_in(struct net *net)
{
    struct net_frame *frame = &net->frame;
    unsigned undone;

    if (frame->size < NET_FRAME_LEAST || frame->size > NET_FRAME_MOST ||
        !offload_check(frame->data, frame->size, frame->size, &frame->offload))
        return false;
    undone = offload_needs(&frame->offload) & ~net->accepts;
    if (undone & (NET_TSO4 | NET_TSO6)) {
        net->going =
            net_need_buffer(&net->received) &&
            offload_split_begin(&net->receiving, frame->data, frame->size, &frame->offload);
        return net->going && next_segment(net);
    }
    if (undone)
        offload_checksum(frame->data, frame->size, &frame->offload);
    frame->offload.flags &= NET_NEEDS_CHECKSUM;
    if (!(frame->offload.flags & NET_NEEDS_CHECKSUM) && net->accepts & NET_CHECKSUM &&
        (net->trusted || offload_verify(frame->data, frame->size)))
        frame->offload.flags |= NET_CHECKSUM_VALID;
    return true;
}

/* Whether there is a frame to be received. */
static bool look(struct net *net)
{
    struct shaper *shaper = atomic_load(&net->shaper);

    if (net->ready)
        return true;
    if (shaper && !shaper_may_receive(shaper))
        return false;
    if (net->going && next_segment(net))
        return true;
    for (unsigned i = 0; i < MALFORMED_AT_ONCE; i++) {
        if (!net->driver->peek(net, &net->frame))
            return false;
        if (take_in(net))
            return true;
        net->driver->drop(net);
    }
    net_tell_card(net); /* which looks again when others have had their turn */
    return false;
}

size_t net_next(struct net *net)
{
    net->ready = look(net);
    return net->ready ? net->frame.size : 0;
}

size_t net_peek(struct net *net, void *head, size_t size)
{
    size_t whole = net_next(net);

    if (whole)
        memcpy(head, net->frame.data, MIN(size, whole));
    return whole;
}

size_t net_receive(struct net *net, const struct iovec *iov, unsigned iovs,
                   struct net_offload *offload)
{
    struct shaper *shaper = atomic_load(&net->shaper);
    struct iovec whole = {net->frame.data, net->frame.size};
    size_t done;

    *offload = (struct net_offload){0};
    if (!net->ready)
        return 0;
    done = MIN(net->frame.size, buffers_length(iov, iovs));
    buffers_scatter(iov, 0, net->frame.data, done);
    *offload = net->frame.offload;
    net->ready = false;
    if (shaper)
        shaper_received(shaper, net->frame.size);
    if (atomic_load_explicit(&net->captures, memory_order_relaxed))
        net_capture(net, &whole, 1, whole.iov_len);
    if (!net->going)
        net->driver->drop(net);
    return done;
}

/* ---- The rest ---- */

struct net_info net_info(const struct net *net)
{
    return net->info;
}

bool net_up(const struct net *net)
{
    return atomic_load(&net->up);
}

unsigned net_forward_port(const struct net *net, unsigned n)
{
    return net->driver->forward_port ? net->driver->forward_port(net, n) : 0;
}

void net_begin(struct net *net, const struct net_events *events, unsigned accepts)
{
    pthread_mutex_lock(&net->events_lock);
    net->events = *events;
    pthread_mutex_unlock(&net->events_lock);
    net->sending.going = false;
    if (net->ready || net->going) /* it was made for another driver of the guest's */
        net->driver->drop(net);
    net->going = net->ready = false;
    net->accepts = accepts & NET_CHECKSUM ? accepts : 0;
    if (net->driver->accepts)
        net->driver->accepts(net, net->accepts);
}

void net_pause(struct net *net)
{
    pthread_mutex_lock(&net->events_lock);
    net->paused = true;
    pthread_mutex_unlock(&net->events_lock);
}

void net_resume(struct net *net)
{
    pthread_mutex_lock(&net->events_lock);
    net->paused = false;
    pthread_mutex_unlock(&net->events_lock);
    net_ready(net);
}

struct where *net_where(struct net *net, unsigned n)
{
    struct shaper *shaper = atomic_load(&net->shaper);

    if (shaper && n-- == 0)
        return shaper_where(shaper);
    return net->driver->where ? net->driver->where(net, n) : NULL;
}

void net_close(struct net *net)
{
    if (!net)
        return;
    pthread_mutex_lock(&net->events_lock);
    net->events = (struct net_events){.ready = NULL};
    pthread_mutex_unlock(&net->events_lock);
    net_stop_settings(net);
    net->driver->close(net);
}

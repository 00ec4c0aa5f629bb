/*
 * What every driver shares below the card: frames that are finished for it, and what it has to say.
 */
#include "net/driver.h"

#include <stdlib.h>

bool net_need_buffer(uint8_t **buffer)
{
    if (!*buffer)
        *buffer = malloc(NET_FRAME_MOST);
    return *buffer != NULL;
}

static bool send_whole(struct net *net, uint8_t *data, size_t size,
                       const struct net_offload *offload)
{
    struct iovec iov = {data, size};

    return net->driver->send(net, &iov, 1, size, offload);
}

bool net_send_rest(struct net *net, struct net_rest *rest)
{
    static const struct net_offload complete;

    while (rest->going) {
        size_t before = rest->split.done, size = offload_split_next(&rest->split, rest->piece);

        if (size == 0) {
            rest->going = false;
        } else if (!send_whole(net, rest->piece, size, &complete)) {
            rest->split.done = before;
            return false;
        }
    }
    return true;
}

bool net_send_finished(struct net *net, struct net_rest *rest, uint8_t *data, size_t size,
                       struct net_offload offload)
{
    unsigned undone = offload_needs(&offload) & ~net->takes;

    if (rest->going)
        return net_send_rest(net, rest);
    if (undone & (NET_TSO4 | NET_TSO6)) {
        rest->going = net_need_buffer(&rest->piece) &&
                      offload_split_begin(&rest->split, data, size, &offload);
        return net_send_rest(net, rest);
    }
    if (undone && offload.gso)
        offload_join(data, size, &offload);
    else if (undone)
        offload_checksum(data, size, &offload);
    return send_whole(net, data, size, &offload);
}

void net_flush(struct net *net)
{
    if (net->driver->flush)
        net->driver->flush(net);
}

void net_tell_card(struct net *net)
{
    pthread_mutex_lock(&net->events_lock);
    if (net->events.ready && !net->paused)
        net->events.ready(net->events.opaque);
    pthread_mutex_unlock(&net->events_lock);
}

/*
 * The network that is none: a card whose cable is not plugged in.
 */
#include "net/driver.h"

#include <errno.h>
#include <stdlib.h>

static bool none_send(struct net *net, const struct iovec *iov, unsigned iovs, size_t size,
                      const struct net_offload *offload)
{
    return true;
}

static bool none_peek(struct net *net, struct net_frame *frame)
{
    return false;
}

static void none_drop(struct net *net)
{
}

static void none_close(struct net *net)
{
    net_end_driver(net);
    free(net);
}

static const struct net_driver driver = {
    .send = none_send, .peek = none_peek, .drop = none_drop, .close = none_close};

struct net *net_none_open(const struct net_options *options, const struct net_host *host,
                          struct error *err)
{
    struct net *net = calloc(1, sizeof(*net));

    if (!net) {
        error_set(err, ENOMEM, "network: out of memory");
        return NULL;
    }
    net_begin_driver(net, &driver, options, host);
    net->takes = NET_CHECKSUM | NET_TSO4 | NET_TSO6;
    net->up = false;
    return net;
}

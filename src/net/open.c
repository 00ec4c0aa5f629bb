/*
 * The kinds of networks.
 */
#include "net/driver.h"

#include <errno.h>

struct net *net_open(const struct net_options *options, const struct net_host *host,
                     struct error *err)
{
    const struct net_shape *shape = &options->shape;

    if (shape->delay || shape->jitter || shape->loss || shape->rate || options->capture ||
        options->isolate) {
        error_set(
            err, ENOTSUP,
            "network '%s': delay=, jitter=, loss=, rate=, capture= and isolate= cannot be had",
            net_kind_name(options->kind));
        return NULL;
    }
    switch (options->kind) {
    case NET_NONE: return net_none_open(options, host, err);
    case NET_USER: return net_user_open(options, host, err);
    case NET_STREAM: return net_stream_open(options, host, err);
    case NET_TAP:
    case NET_SWITCH:
    case NET_VHOST_USER:
    case NET_KINDS: break;
    }
    error_set(err, ENOTSUP, "network '%s': this kind is not opened here",
              net_kind_name(options->kind));
    return NULL;
}

/*
 * The kinds of networks.
 */
#include "net/driver.h"

#include <errno.h>

static struct net *open_driver(const struct net_options *options, const struct net_host *host,
                               struct error *err)
{
    switch (options->kind) {
    case NET_NONE: return net_none_open(options, host, err);
    case NET_USER:
        return options->isolate ? net_remote_open(options, host, err)
                                : net_user_open(options, host, err);
    case NET_SWITCH: return net_remote_open(options, host, err);
    case NET_TAP: return net_tap_open(options, host, err);
    case NET_STREAM: return net_stream_open(options, host, err);
    case NET_VHOST_USER:
    case NET_KINDS: break;
    }
    error_set(err, ENOTSUP, "network '%s': this kind is not opened here",
              net_kind_name(options->kind));
    return NULL;
}

struct net *net_open(const struct net_options *options, const struct net_host *host,
                     struct error *err)
{
    struct net *net = open_driver(options, host, err);

    if (net && net_set_up_settings(net, options, err) < 0) {
        net_close(net);
        return NULL;
    }
    return net;
}

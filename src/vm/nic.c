/*
 * Network cards: from a description to a device with an open network behind it.
 */
#include "vm/nic.h"

#include "base/util.h"
#include "dev/vhost/net.h"
#include "vm/description.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

_Static_assert(NET_QUEUES_MOST == VIRTIO_NET_PAIRS_MAX, "one limit");

int nic_options(const char *text, struct net_options *options, struct error *err)
{
    static const char *const boards[] = {"slot", NULL}; /* read by the board */
    char *rest = description_rest(text, boards, err);
    int ret;

    if (!rest)
        return -ENOMEM;
    ret = !strncmp(rest, "to=", strlen("to="))
              ? net_options_parse(rest + strlen("to="), options, err)
              : error_set(err, EINVAL, "device %s: no network is given first (net,to=user)", text);
    free(rest);
    return ret;
}

/* An address of those that everybody may give out: locally administered, of one station. */
static int make_address(uint8_t mac[6], struct error *err)
{
    if (getrandom(mac, 6, 0) != 6)
        return error_set(err, errno, "network card: the host has no random address: %s",
                         strerror(errno));
    mac[0] = (uint8_t)((mac[0] & 0xFC) | 2);
    return 0;
}

static struct virtio_net *plug_in(const struct virtio_slot *slot, struct net *net,
                                  struct error *err)
{
    const struct net_info info = net_info(net);
    struct virtio_net_config config = {.net = net, .pairs = info.queues ? info.queues : 1};

    memcpy(config.mac, info.mac, sizeof(config.mac));
    if (!info.has_mac && make_address(config.mac, err) < 0) {
        net_close(net);
        return NULL;
    }
    return virtio_net_create(slot, &config, err);
}

/* A card in front of a network that another process serves. */
static struct dev *plug_in_foreign(const struct virtio_slot *slot,
                                   const struct net_options *options, const struct log *log,
                                   struct error *err)
{
    struct vhost_net_config config = {
        .path = options->target, .mtu = options->mtu, .pairs = options->queues, .log = log};

    memcpy(config.mac, options->mac, sizeof(config.mac));
    if (!options->has_mac && make_address(config.mac, err) < 0)
        return NULL;
    return vhost_net_create(slot, &config, err);
}

struct dev *nic_create(const struct virtio_slot *slot, const char *text,
                       const struct net_host *host, struct virtio_net **nic, struct error *err)
{
    struct net_options options;
    struct net *net;

    *nic = NULL;
    if (nic_options(text, &options, err) < 0)
        return NULL;
    if (options.kind == NET_VHOST_USER) {
        struct dev *dev = plug_in_foreign(slot, &options, host->log, err);

        net_options_free(&options);
        return dev;
    }
    net = net_open(&options, host, err);
    net_options_free(&options);
    *nic = net ? plug_in(slot, net, err) : NULL;
    return *nic ? virtio_net_dev(*nic) : NULL;
}

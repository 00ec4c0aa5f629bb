/*
 * A virtio network device (virtio 1.2, 5.1): a network card of the guest's in front of a struct
 * net.
 */
#ifndef DOPPEL_DEV_VIRTIO_NET_H
#define DOPPEL_DEV_VIRTIO_NET_H

#include "dev/virtio/pci.h"
#include "net/net.h"

#define VIRTIO_NET_PAIRS_MAX 15

struct virtio_net;

struct virtio_net_config {
    struct net *net; /* the device's own: it is closed with it, and if it cannot be created */
    uint8_t mac[6];
    unsigned pairs; /* of queues: 1 to VIRTIO_NET_PAIRS_MAX */
};

struct virtio_net *virtio_net_create(const struct virtio_slot *slot,
                                     const struct virtio_net_config *config, struct error *err);
struct dev *virtio_net_dev(struct virtio_net *card);
/* What is behind it; for calls that are allowed on any thread. */
struct net *virtio_net_backend(struct virtio_net *card);

#endif

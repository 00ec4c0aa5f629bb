/*
 * A virtio network device whose network a back end of vhost-user serves (dev/vhost/device.h):
 * passt, DPDK, `doppel backend net`.
 *
 * The link is down while there is no back end. Frames that it had and did not send are sent again
 * by the next one; networks allow that.
 */
#ifndef DOPPEL_DEV_VHOST_NET_H
#define DOPPEL_DEV_VHOST_NET_H

#include "dev/vhost/device.h"

struct vhost_net_config {
    const char *path; /* of the socket, where the back end must be */
    uint8_t mac[6];
    unsigned mtu;          /* what the guest is told; 0: nothing */
    unsigned pairs;        /* of queues, at most 15; 0: one. The back end must have as many */
    const struct log *log; /* may be NULL; lives longer than the device */
};

/* Makes a network card. The driver uses one pair of queues until it says otherwise by the control
 * queue, which is the card's own; the back end has only those enabled that are used. */
struct dev *vhost_net_create(const struct virtio_slot *slot, const struct vhost_net_config *config,
                             struct error *err);

#endif

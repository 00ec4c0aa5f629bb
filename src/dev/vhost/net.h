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

/* Makes a network card with the address MAC in front of the back end at the socket PATH, which must
 * be there. MTU is what the guest is told; 0: nothing. The card has one pair of queues. LOG may be
 * NULL; it lives longer than the device. */
struct dev *vhost_net_create(const struct virtio_slot *slot, const char *path, const uint8_t mac[6],
                             unsigned mtu, const struct log *log, struct error *err);

#endif

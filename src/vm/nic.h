/*
 * Network cards as they are described: net,to=KIND[,slot=N][,...], where KIND and the rest are what
 * net/options.h says.
 */
#ifndef DOPPEL_VM_NIC_H
#define DOPPEL_VM_NIC_H

#include "dev/virtio/net.h"
#include "net/options.h"

/* Reads the options of the card that TEXT describes, a description for the board. On failure
 * *OPTIONS needs no freeing. */
int nic_options(const char *text, struct net_options *options, struct error *err);

/* Opens what TEXT describes and plugs it in as a virtio network device. HOST outlives it. *NIC is
 * the device, or NULL if another process serves the network (vhost-user=SOCKET). */
struct dev *nic_create(const struct virtio_slot *slot, const char *text,
                       const struct net_host *host, struct virtio_net **nic, struct error *err);

#endif

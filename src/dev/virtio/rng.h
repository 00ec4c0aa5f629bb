/*
 * A virtio entropy device (virtio 1.2, 5.4): fills the guest's buffers with random bytes.
 */
#ifndef DOPPEL_DEV_VIRTIO_RNG_H
#define DOPPEL_DEV_VIRTIO_RNG_H

#include "dev/virtio/pci.h"

struct dev *virtio_rng_create(const struct virtio_slot *slot, struct error *err);

#endif

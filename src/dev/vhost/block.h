/*
 * A virtio block device whose disk a back end of vhost-user serves (dev/vhost/device.h).
 */
#ifndef DOPPEL_DEV_VHOST_BLOCK_H
#define DOPPEL_DEV_VHOST_BLOCK_H

#include "dev/vhost/device.h"

/* Makes a disk that the back end at the socket PATH serves, which must be there. QUEUES: how many,
 * or 0 for as many as the back end has, up to 16. LOG may be NULL; it lives longer than the device.
 */
struct dev *vhost_block_create(const struct virtio_slot *slot, const char *path, unsigned queues,
                               const struct log *log, struct error *err);

#endif

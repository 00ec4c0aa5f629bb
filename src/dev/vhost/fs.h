/*
 * A virtio file system device whose folder a back end of vhost-user serves (dev/vhost/device.h):
 * virtiofsd, `doppel backend fs`.
 *
 * A back end that takes another's place knows nothing of the files that the guest has looked up.
 * So requests that have no answer when it dies, and those that come while there is none, fail with
 * "Transport endpoint is not connected", and the guest must mount the folder again.
 */
#ifndef DOPPEL_DEV_VHOST_FS_H
#define DOPPEL_DEV_VHOST_FS_H

#include "dev/vhost/device.h"

#define VHOST_FS_TAG_MOST 36 /* bytes */

/* Makes a device for the folder that the back end at the socket PATH serves, which must be there.
 * The guest mounts it by TAG, of 1 to VHOST_FS_TAG_MOST bytes. QUEUES: for requests; 0 stands for
 * 1. LOG may be NULL; it lives longer than the device. */
struct dev *vhost_fs_create(const struct virtio_slot *slot, const char *path, const char *tag,
                            unsigned queues, const struct log *log, struct error *err);

#endif

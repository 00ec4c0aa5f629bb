/*
 * A virtio file system device (virtio 1.2, 5.11): requests of the FUSE protocol in front of a
 * struct share.
 */
#ifndef DOPPEL_DEV_VIRTIO_FS_H
#define DOPPEL_DEV_VIRTIO_FS_H

#include "dev/virtio/pci.h"
#include "share/share.h"

#define VIRTIO_FS_TAG_MOST   36
#define VIRTIO_FS_QUEUES_MAX (VIRTIO_QUEUES_MAX - 1) /* for requests; there is one more */

struct virtio_fs;

struct virtio_fs_config {
    struct share *share; /* the device's own, once it is created: closed with it */
    const char *tag;     /* 1 to VIRTIO_FS_TAG_MOST bytes */
    unsigned queues;     /* for requests, 1 to VIRTIO_FS_QUEUES_MAX */
    uint32_t instance;   /* of the share's sections when it is saved */
};

struct virtio_fs *virtio_fs_create(const struct virtio_slot *slot,
                                   const struct virtio_fs_config *config, struct error *err);
struct dev *virtio_fs_dev(struct virtio_fs *fs);

/* For asking where the threads of its folder are (base/where.h): thread N, or NULL if there are no
 * more. Any thread. */
struct where *virtio_fs_where(struct virtio_fs *fs, unsigned n);

#endif

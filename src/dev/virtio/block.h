/*
 * A virtio block device (virtio 1.2, 5.2): a disk of the guest's in front of a struct blk.
 */
#ifndef DOPPEL_DEV_VIRTIO_BLOCK_H
#define DOPPEL_DEV_VIRTIO_BLOCK_H

#include "blk/blk.h"
#include "dev/virtio/pci.h"

#include <stdbool.h>

#define VIRTIO_BLOCK_QUEUES_MAX VIRTIO_QUEUES_MAX
#define VIRTIO_BLOCK_SERIAL_MAX 20

struct virtio_block;

struct virtio_block_config {
    struct blk *blk;    /* the device's own, once it is created: closed with it */
    const char *serial; /* at most VIRTIO_BLOCK_SERIAL_MAX bytes; NULL: none */
    unsigned queues;    /* 1 to VIRTIO_BLOCK_QUEUES_MAX */
    bool discard;       /* the guest may give space back; else it is not offered */
    /* The host has no space for what the guest writes, as WHY says in one line: the requests wait,
     * and the machine is to stand still until release is called, with another line, or with NULL if
     * the requests have been taken back by a pause or a reset. In turn; on any thread; the board
     * lock may be held. NULL, both: such a request fails, as one to a broken disk does. */
    void (*hold)(void *opaque, const char *why);
    void (*release)(void *opaque, const char *why);
    void *opaque;
};

struct virtio_block *virtio_block_create(const struct virtio_slot *slot,
                                         const struct virtio_block_config *config,
                                         struct error *err);
struct dev *virtio_block_dev(struct virtio_block *block);

/* Has requests that wait for space tried again, on a worker. Any thread, with any lock held. */
void virtio_block_retry(struct virtio_block *block);
/* Makes the disk SIZE bytes long and tells the guest's driver, or fails with nothing changed. Waits
 * for the host; board lock not held. */
int virtio_block_resize(struct virtio_block *block, uint64_t size, struct error *err);
/* For asking where the threads of its backend are (base/where.h): thread N, or NULL if there are no
 * more. Any thread. */
struct where *virtio_block_where(struct virtio_block *block, unsigned n);

#endif

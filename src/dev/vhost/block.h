/*
 * A virtio block device whose disk is served by a back end of vhost-user: the front end.
 *
 * The guest sees a disk like any other. The back end is another program (qemu-storage-daemon, SPDK,
 * `doppel backend blk`), which maps all of guest memory and is found by a socket.
 *
 *      guest's rings --> worker: serve() --> shared ring --kick--> back end: reads, writes memory
 *            ^                                                         |
 *            '-- virtio_complete <-- the device's thread <----call-----'
 *
 * The back end is not shown the guest's own rings but one for each queue in memory beside the
 * guest's (dev/vhost/ring.h). So it gets only chains that were checked; what it writes into guest
 * memory reaches dirty logs and code caches before the guest hears of it; and what it has not done
 * when it dies is known here, whether it keeps a record of requests in flight or not.
 *
 * The back end may end and come back at any time. Then what it has given back is completed, the
 * rest is given back to the frame, which holds it, and the device's thread tries to connect until
 * that succeeds. The guest sees a disk that is slow for a while. A request whose end the back end
 * has not announced before it died is done again, which is the same as done once: no later request
 * of the guest's can depend on it yet. A back end that keeps a pause or a reset waiting for too
 * long (dev/vhost/drain.h) counts as one that has died.
 *
 * Guest memory is exported (mem/foreign.h): the virtual machine is exempt from sharing and
 * swapping.
 *
 * Locks, below the frame's: the device's own for what is wanted of its thread, and one for each
 * queue's ring, taken after it.
 */
#ifndef DOPPEL_DEV_VHOST_BLOCK_H
#define DOPPEL_DEV_VHOST_BLOCK_H

#include "base/log.h"
#include "base/where.h"
#include "dev/virtio/pci.h"

/* Makes a disk that the back end at the socket PATH serves, which must be there. QUEUES: how many,
 * or 0 for as many as the back end has, up to 16. LOG may be NULL; it lives longer than the device.
 */
struct dev *vhost_block_create(const struct virtio_slot *slot, const char *path, unsigned queues,
                               const struct log *log, struct error *err);
/* For asking where its thread is (base/where.h). DEV is what vhost_block_create has returned. */
struct where *vhost_block_where(struct dev *dev);

#endif

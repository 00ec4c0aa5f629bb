/*
 * A virtio device that a back end of vhost-user serves: the front end, for all kinds of devices.
 *
 * The guest sees a device like any other. The back end is another program (qemu-storage-daemon,
 * virtiofsd, passt, `doppel backend`), which maps all of guest memory and is found by a socket.
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
 * The back end may end and come back at any time. Then what it has given back is completed, and the
 * device's thread tries to connect until that succeeds. What it has not given back is
 *
 * - given back to the frame, which holds it: the guest sees a device that is slow for a while. A
 *   request whose end the back end has not announced before it died is done again. That must be the
 *   same as done once, as it is for a disk: no later request of the guest's can depend on it yet;
 * - or refused, if the kind says so, because another back end knows nothing of what it is about.
 *
 * A pause, or a driver's reset, waits for the requests that the back end has (dev/vhost/drain.h).
 * Where requests are buffers that the back end keeps until something comes in, they are taken from
 * it instead, and it is started anew afterwards.
 *
 * Guest memory is exported (mem/foreign.h): the virtual machine is exempt from sharing and
 * swapping.
 *
 * Locks, below the frame's: the device's own for what is wanted of its thread, and one for each
 * queue's ring, taken after it.
 */
#ifndef DOPPEL_DEV_VHOST_DEVICE_H
#define DOPPEL_DEV_VHOST_DEVICE_H

#include "base/log.h"
#include "base/where.h"
#include "dev/vhost/ring.h"
#include "dev/virtio/pci.h"

/* A kind of device. All functions may be NULL. */
struct vhost_kind {
    const char *name;  /* "vhost-user-blk" */
    const char *thing; /* "disk": for messages, in front of the socket's path */
    uint16_t id;       /* virtio 1.2, chapter 5 */
    uint64_t features; /* of the device's own, that are offered if the back end has them */
    uint64_t several;  /* of FEATURES, the one by which a driver uses more than QUEUES_EACH queues;
                        * it is offered only if there are more */
    unsigned config_size;
    bool fetches_config;     /* from the back end; else the device's maker has it */
    bool keeps_buffers;      /* the back end has requests that need not end */
    unsigned queues_default; /* the most, if nobody says how many there are to be */
    unsigned queues_each;    /* how many stand behind each that back ends of this kind count */

    /* Changes what the back end has said of its configuration to what the guest is to see. */
    void (*adapt_config)(uint8_t *config, unsigned queues);
    /* Has CONFIG say whether there is a back end. */
    void (*set_link)(uint8_t *config, bool up);
    /* Ends a request that no back end can serve. Without it such requests are held. On any thread,
     * without locks. */
    void (*refuse)(struct virtio_request *request);
    /* Serves a request of the queue behind the back end's, which is the device's own. On a worker.
     */
    enum virtio_result (*serve_own)(struct virtio_device *device, struct virtio_request *request);
};

struct vhost_device_config {
    const struct vhost_kind *kind;
    const char *path; /* of the socket, where the back end must be */
    unsigned queues;  /* how many; 0: as many as the back end has, up to kind->queues_default */
    uint64_t own_features; /* that are offered without the back end, and that it does not hear of */
    bool own_queue;     /* there is one more: kind->serve_own; then the driver has to say how many
                         * of the others it uses (vhost_device_use), kind->queues_each at first */
    const void *config; /* unless kind->fetches_config: kind->config_size bytes */
    const struct log *log; /* may be NULL; lives longer than the device */
};

struct dev *vhost_device_create(const struct virtio_slot *slot,
                                const struct vhost_device_config *config, struct error *err);
/* From serve_own: the driver uses the first QUEUES queues of the back end's from now on. */
void vhost_device_use(struct virtio_device *device, unsigned queues);
/* For asking where its thread is (base/where.h). DEV is what vhost_device_create has returned. */
struct where *vhost_device_where(struct dev *dev);

#endif

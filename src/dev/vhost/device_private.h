/*
 * What the parts of a device in front of a back end share.
 *
 *      device.c         the device: requests, registers, making it
 *      device_thread.c  its thread: the connection, and what the back end is to do
 *      device_rings.c   the rings that it shares with the back end
 */
#ifndef DOPPEL_DEV_VHOST_DEVICE_PRIVATE_H
#define DOPPEL_DEV_VHOST_DEVICE_PRIVATE_H

#include "base/event.h"
#include "base/util.h"
#include "dev/vhost/device.h"
#include "dev/vhost/drain.h"
#include "dev/vhost/frontend.h"

#include <pthread.h>

struct vhost_queue {
    pthread_mutex_t lock;
    bool runs; /* requests may be added */
    bool full; /* one could not be: the queue is to be woken when there is room */
    bool lost; /* it does not run because the back end is gone */
    struct vhost_ring ring;
    unsigned out; /* requests that the back end has */
};

struct vhost_device {
    struct virtio_device device;
    struct virtio_ops ops;
    const struct vhost_kind *kind;
    char *path;
    const struct log *log;
    unsigned queues; /* the back end's */
    bool own_queue;  /* there is one more behind them */
    struct vhost_queue *queue;
    struct vhost_queue_files *files;
    struct mem_export part[VHOST_PARTS_MAX];
    unsigned parts;
    uint8_t config[VIRTIO_CONFIG_MAX]; /* board lock */

    pthread_mutex_t lock; /* what is wanted of the thread */
    bool accepted;        /* a driver and the device have agreed on FEATURES */
    uint64_t features;
    unsigned epoch; /* counts changes of these two */
    unsigned used;  /* queues that the driver uses: the back end is to serve these */

    pthread_t thread;
    bool started;
    struct where where;
    int wake, end;              /* eventfds that the back end does not have. END: the thread ends */
    struct event_sender sender; /* for kicks */

    /* The thread's. */
    struct vhost_connection connection;
    bool connected;
    bool followed; /* the back end does what was wanted in EPOCH_FOLLOWED */
    unsigned epoch_followed;
    unsigned used_followed; /* queues that the back end serves, if SERVING */
    bool serving;           /* which was to serve */
    bool recalled;          /* it is not to serve, because a pause or a reset wants its buffers */
    int complained; /* the code of the last failure that was logged; 0: none since success */
    uint64_t connected_at, retry_at, retry_after;
    struct vhost_drain drain;
    int rings; /* the rings' file, and where it is mapped */
    uint8_t *memory;
};

static inline struct vhost_device *vhost_device_of(struct virtio_device *d)
{
    return container_of(d, struct vhost_device, device);
}

/* ---- device_rings.c: the thread's ---- */

/* Sets up fresh rings: who had the last ones cannot meddle with these. */
int vhost_rings_make(struct vhost_device *v, struct error *err);
/* The back end does not have them any more. What it has given back ends; what it has not is refused
 * if LOST and the kind wants that, and else held by the frame. */
void vhost_rings_forget(struct vhost_device *v, bool lost);
/* Ends requests of a queue that the back end has given back. 0: all; 1: there may be more; or
 * -EPROTO. */
int vhost_rings_end(struct vhost_device *v, unsigned queue);
/* How many requests the back end has. */
unsigned vhost_rings_out(struct vhost_device *v);

/* ---- device_thread.c ---- */

/* The device's configuration, as the back end and the kind say. */
int vhost_fetch_config(struct vhost_device *v, uint8_t *config, struct error *err);
/* The thread's function. */
void *vhost_device_run(void *v);

#endif

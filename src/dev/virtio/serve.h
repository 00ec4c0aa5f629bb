/*
 * How a device's queues are served: what dev/virtio/device.c, which knows the registers, asks of
 * dev/virtio/serve.c.
 */
#ifndef DOPPEL_DEV_VIRTIO_SERVE_H
#define DOPPEL_DEV_VIRTIO_SERVE_H

#include "dev/virtio/device.h"

/* DEVICE has its ops, host and number of queues. On failure nothing is left of QUEUE. */
int virtio_queue_init(struct virtio_device *device, unsigned index, struct error *err);
/* Nothing is in flight, and the queue's work does not run. */
void virtio_queue_free(struct virtio_queue *queue);
/* Visits the chains that are held. Nothing is in flight. */
void virtio_queue_held_state(struct virtio_queue *queue, struct state *s);

/* Has all queues looked at: whether they are to be served is another than before. */
void virtio_look_at_queues(struct virtio_device *device);

/* STOPPING or RESETTING has changed. With the device's lock. */
void virtio_update_recalled(struct virtio_device *device);

/* After the first returns, no worker serves and nothing is in flight, until the second. Neither
 * nests. No lock held: waits for workers, and for what the device has. */
void virtio_stop_queues(struct virtio_device *device);
void virtio_go_on(struct virtio_device *device);

#endif

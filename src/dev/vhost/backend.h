/*
 * The back end of vhost-user: serves one of our virtio devices to a front end in another process,
 * QEMU for example.
 *
 *      socket: messages            the front end's RAM, imported          its event files
 *            |                               |                             |        ^
 *            v                               v                           kick      call
 *      the caller's thread ----> struct virtio_device, its queues,  <------'        |
 *      (vhost_backend_serve)     workers and requests -------------------------- interrupt
 *
 * A back end is a transport, as PCI is one: the messages do what a driver's accesses to registers
 * do. The device, its requests and the iterator of its queues are the same as in a virtual machine
 * of ours. What the back end has of a machine is an empty guest memory, into which the front end's
 * RAM is imported, a bus for its lock, a loop and workers.
 *
 * The front end may be hostile: nothing that it sends or writes makes this process crash, reach
 * memory that it did not share, or wait for ever with a lock held. It can make its own session
 * fail.
 *
 * One front end at a time. All calls are for one thread.
 */
#ifndef DOPPEL_DEV_VHOST_BACKEND_H
#define DOPPEL_DEV_VHOST_BACKEND_H

#include "base/log.h"
#include "dev/virtio/pci.h"

struct vhost_backend;

/* LOG may be NULL. */
struct vhost_backend *vhost_backend_create(const struct log *log, struct error *err);
/* With the device. */
void vhost_backend_destroy(struct vhost_backend *backend);

/* Where to create the device that is served: by the function of its kind, once. */
struct virtio_slot vhost_backend_slot(struct vhost_backend *backend);

/* Serves the front end that is connected at SOCKET, which is closed then, until it leaves, breaks
 * the protocol, or STOP is readable. All requests have ended when it returns. */
void vhost_backend_serve(struct vhost_backend *backend, int socket, int stop);

#endif

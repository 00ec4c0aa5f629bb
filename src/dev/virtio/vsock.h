/*
 * A virtio socket device (virtio 1.2, 5.10): stream sockets between programs of the guest (AF_VSOCK
 * in Linux) and programs of the host, which use Unix sockets. PATH is the device's.
 *
 * - From the host: a program connects to PATH, which listens with mode 0600, and sends one line,
 *   "CONNECT PORT\n". When a program of the guest has accepted, which listens at that port, it gets
 *   "OK PORT\n" with the port that the guest sees as the other end's. From then on bytes go both
 *   ways. If the guest refuses, the connection ends without a word. As long as the guest has no
 *   driver, the program waits.
 * - From the guest: a connection to port N of the host, whose CID is 2, leads to the Unix socket
 *   PATH_N, where a program of the host listens. If nobody does, it is refused.
 *
 * Each connection is a descriptor of this process. When the process is about to run out of them
 * (base/descriptors.h), connections are refused from both sides.
 *
 * Each side can close one direction and go on with the other.
 */
#ifndef DOPPEL_DEV_VIRTIO_VSOCK_H
#define DOPPEL_DEV_VIRTIO_VSOCK_H

#include "base/log.h"
#include "dev/virtio/pci.h"

#define VIRTIO_VSOCK_CID_DEFAULT 3u
#define VIRTIO_VSOCK_CID_LEAST   3u          /* smaller ones are reserved (5.10.4) */
#define VIRTIO_VSOCK_CID_MOST    0xFFFFFFFEu /* so is the largest number */

struct virtio_vsock_config {
    uint32_t cid;
    const char *path;
    const struct log *log; /* may be NULL; lives longer than the device */
};

/* The socket listens from now on, and goes with the device. NULL on failure. */
struct dev *virtio_vsock_create(const struct virtio_slot *slot,
                                const struct virtio_vsock_config *config, struct error *err);

#endif

/*
 * The entropy device (Virtual I/O Device specification 1.2, 5.4). The bytes come from getrandom(2).
 */
#include "dev/virtio/rng.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

/* A chain gets at most this much, in as many pieces: a device may fill less than the driver asks
 * for (5.4.6.1), and a worker must not be busy with one chain for long. */
#define MOST_BYTES 65536u
#define PIECES     64

/* False: the host could not, for lack of memory. */
static bool fill(const struct iovec *piece)
{
    size_t done = 0;

    while (done < piece->iov_len) {
        ssize_t got = getrandom((uint8_t *)piece->iov_base + done, piece->iov_len - done, 0);

        if (got < 0 && errno != EINTR)
            return false;
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct mem_pin pin[PIECES];
    struct iovec iov[PIECES];
    struct virtio_map map = {.pin = pin, .iov = iov, .room = PIECES};
    uint32_t filled = 0;
    bool good = true;
    int ret;

    /* The driver must give buffers to be written only (5.4.6). */
    if (r->chain.readable || !r->chain.writable_bytes)
        return VIRTIO_BROKEN;
    ret = virtio_map(r, MEM_WRITE, 0, MOST_BYTES, &map);
    if (ret < 0)
        return virtio_map_failed(ret);
    for (unsigned i = 0; i < map.iovs && good; i++) {
        good = fill(&iov[i]);
        filled += good ? (uint32_t)iov[i].iov_len : 0;
    }
    virtio_unmap(r, &map);
    if (!filled)
        return VIRTIO_BROKEN;
    virtio_complete(r, filled);
    return VIRTIO_TAKEN;
}

static void free_rng(struct virtio_device *d)
{
    free(d);
}

static const struct virtio_ops ops = {.name = "virtio-rng",
                                      .id = 4,
                                      .queues = 1,
                                      .queue_size = 256,
                                      .serve = serve,
                                      .free = free_rng};

struct dev *virtio_rng_create(const struct virtio_slot *slot, struct error *err)
{
    struct virtio_device *d = calloc(1, sizeof(*d));
    struct dev *dev = d ? virtio_pci_create(slot, &ops, d, err) : NULL;

    if (!d)
        error_set(err, ENOMEM, "no memory for a device (%s)", ops.name);
    else if (!dev)
        free(d);
    return dev;
}

/*
 * The entropy device (Virtual I/O Device specification 1.2, 5.4). The bytes come from getrandom(2).
 */
#include "dev/virtio/rng.h"

#include "base/util.h"

#include <errno.h>
#include <sys/random.h>

/* A chain gets at most this much: a device may fill less than the driver asks for (5.4.6.1), and a
 * worker must not be busy with one chain for long. */
#define MOST_BYTES 65536u
#define PIECES     (MOST_BYTES / MEM_PAGE_SIZE + 1)

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

/* Fills at most SIZE bytes at GPA. Returns how many, VIRTIO_BROKEN or VIRTIO_LATER. */
static int64_t fill_buffer(struct mem *mem, uint64_t gpa, uint64_t size)
{
    struct iovec piece[PIECES];
    unsigned pieces = PIECES;
    struct mem_pin pin;
    bool filled = true;
    int ret = mem_pin(mem, gpa, size, MEM_WRITE, &pin, piece, &pieces);

    if (ret < 0)
        return ret == -EAGAIN ? VIRTIO_LATER : VIRTIO_BROKEN;
    for (unsigned i = 0; i < pieces && filled; i++)
        filled = fill(&piece[i]);
    ret = (int)pin.size;
    mem_unpin(mem, &pin);
    return filled ? ret : VIRTIO_BROKEN;
}

static int64_t serve(struct virtio_device *d, unsigned queue, const struct virtqueue_chain *chain)
{
    int64_t done = 0;

    /* The driver must give buffers to be written and no others (5.4.6). */
    if (chain->readable || !chain->writable_bytes)
        return VIRTIO_BROKEN;
    for (unsigned i = 0; i < chain->writable && done < MOST_BYTES; i++) {
        const struct virtqueue_buffer *buffer = &chain->buffer[i];
        uint64_t size = MIN(buffer->size, MOST_BYTES - (uint64_t)done);
        int64_t filled = size ? fill_buffer(d->host.mem, buffer->gpa, size) : 0;

        /* What could not be filled for lack of pins is left out, if there is anything else. */
        if (filled < 0)
            return filled == VIRTIO_LATER && done ? done : filled;
        done += filled;
        if ((uint64_t)filled < size)
            break;
    }
    return done;
}

static const struct virtio_ops ops = {
    .name = "virtio-rng", .id = 4, .queues = 1, .queue_size = 256, .serve = serve};

struct dev *virtio_rng_create(const struct virtio_slot *slot, struct error *err)
{
    return virtio_pci_create(slot, &ops, err);
}

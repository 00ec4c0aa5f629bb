/*
 * Frames that the guest sends (virtio 1.2, 5.1.6.2).
 */
#include "dev/virtio/net_private.h"

#include "base/buffers.h"
#include "base/util.h"

#include <string.h>

enum outcome { PASSED_ON, NO_ROOM, NOT_MAPPED, BROKEN };

/* A frame that is about to be passed on. */
struct frame {
    struct card_header header;
    struct iovec *iov;
    unsigned iovs;
    uint64_t size;
};

/* Whether the driver may ask for segments of this kind. */
static bool knows_segments(const struct virtio_net *n, const struct card_header *h)
{
    unsigned feature = h->gso == CARD_GSO_TCP4 ? CARD_F_HOST_TSO4 : CARD_F_HOST_TSO6;

    return (h->gso == CARD_GSO_TCP4 || h->gso == CARD_GSO_TCP6) && h->segment_size &&
           (h->flags & CARD_NEEDS_CHECKSUM) && virtio_accepted(&n->device, feature);
}

/* Whether what the driver asks for can be done (5.1.6.2.1). */
static bool is_sound(const struct virtio_net *n, const struct frame *f)
{
    const struct card_header *h = &f->header;

    if ((h->flags & CARD_NEEDS_CHECKSUM) &&
        (!virtio_accepted(&n->device, CARD_F_CSUM) ||
         (uint64_t)h->checksum_start + h->checksum_offset + 2 > f->size))
        return false;
    return h->gso == CARD_GSO_NONE || knows_segments(n, h);
}

/* What comes to the guest of this flow comes to the same pair. */
static void note_flow(struct virtio_net *n, const struct frame *f, unsigned pair)
{
    uint8_t head[CARD_LOOK];
    size_t size = MIN(f->size, sizeof(head));

    buffers_gather(f->iov, 0, head, size);
    atomic_store_explicit(&n->flow[card_flow(head, size)], (uint8_t)pair, memory_order_relaxed);
}

/* With the lock for sending. */
static enum outcome offer(struct virtio_net *n, unsigned pair, const struct frame *f,
                          const struct net_offload *offload)
{
    uint32_t self = 1u << pair;

    if (n->refused != n->pairs && n->refused != pair) {
        atomic_fetch_or(&n->waiting, self);
        return NO_ROOM;
    }
    if (!net_send(n->net, f->iov, f->iovs, offload)) {
        /* There may be room again before it is known who waits for it. */
        n->refused = pair;
        atomic_fetch_or(&n->waiting, self);
        if (!net_send(n->net, f->iov, f->iovs, offload))
            return NO_ROOM;
    }
    if (n->refused == pair) {
        n->refused = n->pairs;
        card_wake_senders(n);
    }
    return PASSED_ON;
}

/* Hands the frame to the network; with the lock for sending. A frame that is not sound is dropped.
 */
static enum outcome pass_on(struct virtio_net *n, unsigned queue, const struct frame *f)
{
    const struct card_header *h = &f->header;
    const struct net_offload offload = {
        .flags = h->flags & CARD_NEEDS_CHECKSUM,
        .gso = h->gso,
        .header_size = h->header_size,
        .segment_size = h->segment_size,
        .checksum_start = h->checksum_start,
        .checksum_offset = h->checksum_offset,
    };

    if (!is_sound(n, f))
        return PASSED_ON;
    if (n->pairs > 1)
        note_flow(n, f, queue / 2);
    return offer(n, queue / 2, f, &offload);
}

/* Copies header and frame to BYTES first. */
static enum outcome send_copied(struct virtio_net *n, struct virtio_request *r, uint8_t *bytes)
{
    uint64_t size = r->chain.readable_bytes - CARD_HEADER;
    struct iovec iov = {.iov_base = bytes + CARD_HEADER, .iov_len = size};
    struct frame f = {.iov = &iov, .iovs = 1, .size = size};

    if (virtio_read_at(r, 0, bytes, CARD_HEADER + size) < 0)
        return BROKEN;
    memcpy(&f.header, bytes, CARD_HEADER);
    return pass_on(n, r->queue->index, &f);
}

/* Takes the header off the front of the frame's pieces. */
static void take_header(struct frame *f)
{
    uint8_t *to = (uint8_t *)&f->header;

    for (size_t left = CARD_HEADER, part; left; left -= part, to += part) {
        part = MIN(left, f->iov->iov_len);
        memcpy(to, f->iov->iov_base, part);
        f->iov->iov_base = (uint8_t *)f->iov->iov_base + part;
        f->iov->iov_len -= part;
        if (!f->iov->iov_len) {
            f->iov++;
            f->iovs--;
        }
    }
}

static enum outcome send_mapped(struct virtio_net *n, struct virtio_request *r)
{
    uint64_t total = r->chain.readable_bytes;
    struct mem_pin pin[CARD_PIECES];
    struct iovec iov[CARD_PIECES];
    struct virtio_map map = {.pin = pin, .iov = iov, .room = CARD_PIECES};
    struct frame f = {.iov = iov, .size = total - CARD_HEADER};
    enum outcome outcome = NOT_MAPPED;

    if (virtio_map(r, MEM_READ, 0, total, &map) < 0)
        return NOT_MAPPED;
    if (map.size == total) {
        f.iovs = map.iovs;
        take_header(&f);
        outcome = pass_on(n, r->queue->index, &f);
    }
    virtio_unmap(r, &map);
    return outcome;
}

/* With the lock for sending. */
static enum outcome send_frame(struct virtio_net *n, struct virtio_request *r)
{
    uint8_t bytes[CARD_HEADER + CARD_SMALL];
    enum outcome outcome;

    if (r->chain.readable_bytes <= sizeof(bytes))
        return send_copied(n, r, bytes);
    outcome = send_mapped(n, r);
    return outcome == NOT_MAPPED ? send_copied(n, r, n->out) : outcome;
}

enum virtio_result card_send(struct virtio_net *n, struct virtio_request *r)
{
    uint64_t total = r->chain.readable_bytes;
    enum outcome outcome = PASSED_ON;

    if (r->chain.writable || total < CARD_HEADER)
        return VIRTIO_BROKEN;
    if (total >= CARD_HEADER + ETHERNET_HEADER && total <= CARD_HEADER + NET_FRAME_MOST) {
        pthread_mutex_lock(&n->sending);
        outcome = send_frame(n, r);
        pthread_mutex_unlock(&n->sending);
    }
    if (outcome == NO_ROOM)
        return VIRTIO_WAIT;
    if (outcome == BROKEN)
        return VIRTIO_BROKEN;
    virtio_complete(r, 0);
    return VIRTIO_TAKEN;
}

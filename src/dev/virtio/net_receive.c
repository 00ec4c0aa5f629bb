/*
 * Frames for the guest (virtio 1.2, 5.1.6.3 and 5.1.6.4). With mergeable buffers a frame goes into
 * as many chains as it needs, which the driver finds at once.
 */
#include "dev/virtio/net_private.h"

#include "base/buffers.h"
#include "base/util.h"

#include <string.h>

/* So many frames that the guest does not want are looked at before others have their turn. */
#define FRAMES_AT_ONCE 64

enum outcome { DELIVERED, DROPPED, NO_ROOM, NOT_MAPPED, BROKEN };

/* The chains for one frame. */
struct delivery {
    struct virtio_net *n;
    struct virtio_queue *queue;
    struct virtio_completion part[CARD_QUEUE];
    unsigned count;
    uint64_t room; /* bytes in them, the header's included */
};

/* ---- Chains ---- */

static void add(struct delivery *d, struct virtio_request *r)
{
    d->part[d->count++] = (struct virtio_completion){.request = r};
    d->room += r->chain.writable_bytes;
}

/* Gives back all chains from the one with number FIRST on. */
static void give_back(struct delivery *d, unsigned first)
{
    while (d->count > first) {
        d->room -= d->part[--d->count].request->chain.writable_bytes;
        virtio_give_back(d->part[d->count].request);
    }
}

static bool is_receive_chain(const struct virtio_request *r)
{
    return !r->chain.readable && r->chain.writable_bytes;
}

/* Takes chains until a frame of SIZE bytes fits into them. If it never will, it is dropped. */
static enum outcome make_room(struct delivery *d, size_t size)
{
    bool mergeable = virtio_accepted(&d->n->device, CARD_F_MRG_RXBUF);

    while (d->room < CARD_HEADER + size) {
        struct virtio_request *more;
        int got;

        if (!mergeable || d->count == d->queue->config.size)
            return DROPPED;
        got = virtio_take_more(d->queue, &more);
        if (got <= 0)
            return got == 0 ? NO_ROOM : BROKEN;
        add(d, more);
        if (!is_receive_chain(more))
            return BROKEN;
    }
    return DELIVERED;
}

/* Gives the chains to the driver in which the SIZE bytes of a frame are. */
static void complete(struct delivery *d, size_t size)
{
    uint64_t left = CARD_HEADER + size;
    unsigned used = 0;

    for (; left; used++) {
        uint64_t part = MIN(left, d->part[used].request->chain.writable_bytes);

        d->part[used].written = (uint32_t)part;
        left -= part;
    }
    give_back(d, used);
    virtio_complete_all(d->part, used);
}

/* How many chains a frame of SIZE bytes goes into. */
static unsigned chains_for(const struct delivery *d, size_t size)
{
    uint64_t room = 0;
    unsigned count = 0;

    while (room < CARD_HEADER + size)
        room += d->part[count++].request->chain.writable_bytes;
    return count;
}

static struct card_header header_of(const struct delivery *d, const struct net_offload *o,
                                    size_t size)
{
    return (struct card_header){
        .flags = o->flags,
        .gso = o->gso,
        .header_size = o->header_size,
        .segment_size = o->segment_size,
        .checksum_start = o->checksum_start,
        .checksum_offset = o->checksum_offset,
        .buffers = (uint16_t)chains_for(d, size),
    };
}

/* ---- The frame ---- */

static bool is_wanted(struct virtio_net *n, const uint8_t *head, size_t size)
{
    bool wanted;

    pthread_mutex_lock(&n->lock);
    wanted = card_filter_passes(&n->filter, head, size);
    pthread_mutex_unlock(&n->lock);
    return wanted;
}

/* By way of BYTES, where there is room for header and frame. */
static enum outcome deliver_copied(struct delivery *d, uint8_t *bytes, size_t size)
{
    struct iovec iov = {.iov_base = bytes + CARD_HEADER, .iov_len = size};
    uint64_t done = 0, total = CARD_HEADER + size;
    struct net_offload offload;
    struct card_header header;

    net_receive(d->n->net, &iov, 1, &offload);
    if (!is_wanted(d->n, bytes + CARD_HEADER, size))
        return DROPPED;
    header = header_of(d, &offload, size);
    memcpy(bytes, &header, CARD_HEADER);
    for (unsigned i = 0; done < total; i++) {
        struct virtio_request *r = d->part[i].request;
        uint64_t part = MIN(total - done, r->chain.writable_bytes);

        if (virtio_write_at(r, 0, bytes + done, part) < 0)
            return BROKEN;
        done += part;
    }
    return DELIVERED;
}

/* Pins SIZE bytes of the chains. False, and nothing is pinned, if that cannot be done. */
static bool map_chains(struct delivery *d, uint64_t size, struct virtio_map *map)
{
    uint64_t most = 0;
    bool mapped = true;

    for (unsigned i = 0; map->size < size && mapped; i++) {
        struct virtio_request *r = d->part[i].request;
        struct virtio_map part = {.pin = map->pin + map->pins,
                                  .iov = map->iov + map->iovs,
                                  .room = map->room - MAX(map->pins, map->iovs)};

        most = MIN(size, most + r->chain.writable_bytes);
        mapped = virtio_map(r, MEM_WRITE, 0, most - map->size, &part) == 0;
        map->pins += part.pins;
        map->iovs += part.iovs;
        map->size += part.size;
        mapped = mapped && map->size == most;
    }
    if (!mapped)
        virtio_unmap(d->part[0].request, map);
    return mapped;
}

/* Makes the pieces at IOV, of which COUNT counts them, begin SIZE bytes later. */
static struct iovec *skip(struct iovec *iov, unsigned *count, size_t size)
{
    while (size >= iov->iov_len) {
        size -= iov->iov_len;
        iov++;
        --*count;
    }
    iov->iov_base = (uint8_t *)iov->iov_base + size;
    iov->iov_len -= size;
    return iov;
}

/* The frame goes to where the driver wants it without a copy between. */
static enum outcome deliver_mapped(struct delivery *d, size_t size)
{
    struct mem_pin pin[CARD_PIECES];
    struct iovec iov[CARD_PIECES], frame[CARD_PIECES];
    struct virtio_map map = {.pin = pin, .iov = iov, .room = CARD_PIECES};
    uint8_t head[CARD_LOOK];
    struct net_offload offload;
    struct card_header header;
    unsigned pieces;
    bool wanted;

    if (!map_chains(d, CARD_HEADER + size, &map))
        return NOT_MAPPED;
    pieces = map.iovs;
    memcpy(frame, iov, pieces * sizeof(iov[0]));
    {
        struct iovec *first = skip(frame, &pieces, CARD_HEADER);

        net_receive(d->n->net, first, pieces, &offload);
        buffers_gather(first, 0, head, sizeof(head));
    }
    wanted = is_wanted(d->n, head, sizeof(head));
    if (wanted) {
        header = header_of(d, &offload, size);
        buffers_scatter(iov, 0, &header, CARD_HEADER);
    }
    virtio_unmap(d->part[0].request, &map);
    return wanted ? DELIVERED : DROPPED;
}

static enum outcome deliver(struct delivery *d, size_t size)
{
    uint8_t bytes[CARD_HEADER + CARD_SMALL];
    enum outcome outcome;

    if (size <= CARD_SMALL)
        return deliver_copied(d, bytes, size);
    outcome = deliver_mapped(d, size);
    return outcome == NOT_MAPPED ? deliver_copied(d, d->n->in, size) : outcome;
}

/* ---- Which queue, and when ---- */

/* The size of the frame that waits, if it is for PAIR, or 0. Another pair's is left to it. */
static size_t next_frame(struct virtio_net *n, unsigned pair)
{
    unsigned active = atomic_load(&n->active), owner = 0;
    uint8_t head[CARD_LOOK];
    size_t size;

    if (active == 1) {
        size = net_next(n->net);
    } else {
        size = net_peek(n->net, head, sizeof(head));
        owner = atomic_load_explicit(&n->flow[card_flow(head, MIN(size, sizeof(head)))],
                                     memory_order_relaxed) %
                active;
    }
    if (!size || owner == pair)
        return size;
    atomic_store(&n->turn, owner);
    virtio_wake(&n->device, 2 * owner);
    return 0;
}

/* With the lock for receiving. */
static enum virtio_result receive(struct delivery *d)
{
    struct virtio_net *n = d->n;
    unsigned pair = d->queue->index / 2;

    for (unsigned i = 0; i < FRAMES_AT_ONCE; i++) {
        size_t size = next_frame(n, pair);
        enum outcome outcome = size ? make_room(d, size) : NO_ROOM;

        if (outcome == DROPPED)
            net_receive(n->net, NULL, 0, &(struct net_offload){0});
        if (outcome == DELIVERED)
            outcome = deliver(d, size);
        if (outcome == DELIVERED)
            complete(d, size);
        if (outcome == DROPPED)
            continue;
        if (outcome != DELIVERED)
            give_back(d, 1); /* the first is serve()'s */
        return outcome == DELIVERED ? VIRTIO_TAKEN
               : outcome == BROKEN  ? VIRTIO_BROKEN
                                    : VIRTIO_WAIT;
    }
    give_back(d, 1);
    virtio_wake(&n->device, d->queue->index);
    return VIRTIO_WAIT;
}

enum virtio_result card_receive(struct virtio_net *n, struct virtio_request *r)
{
    struct delivery d;
    enum virtio_result result;

    if (!is_receive_chain(r))
        return VIRTIO_BROKEN;
    d.n = n;
    d.queue = r->queue;
    d.count = 0;
    d.room = 0;
    add(&d, r);
    pthread_mutex_lock(&n->receiving);
    result = receive(&d);
    pthread_mutex_unlock(&n->receiving);
    return result;
}

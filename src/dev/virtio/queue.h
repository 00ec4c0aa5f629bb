/*
 * A split virtqueue (virtio 1.2, 2.7), from the device's side: takes chains of buffers that the
 * driver has made available and gives them back.
 *
 *      descriptors        available ring (driver writes)      used ring (device writes)
 *      [gpa size next]    flags index [head head ...] event   flags index [head written ...] event
 *
 * Every number in the rings is the guest's, and nothing of it is trusted: virtqueue_next checks a
 * chain as a whole, once, for all devices, and hands out a copy that the guest cannot change. What
 * it cannot check is whether buffers are memory: mem_pin does, when the device serves them.
 *
 * One thread at a time takes chains (virtqueue_open, _next, _again, _await); it holds no lock, as
 * reaching guest memory may block. One at a time completes them (_put, _publish, _wants_interrupt),
 * while another may take some. serve.c says which threads these are.
 */
#ifndef DOPPEL_DEV_VIRTIO_QUEUE_H
#define DOPPEL_DEV_VIRTIO_QUEUE_H

#include "base/error.h"
#include "base/state.h"
#include "mem/pin.h"

#include <stdbool.h>
#include <stdint.h>

#define VIRTQUEUE_SIZE_MAX 1024 /* of all devices here; the format has room for 32768 */

/* A driver that broke a rule of the format: the device needs a reset. */
#define VIRTQUEUE_BROKEN (-1)

struct virtqueue_buffer {
    uint64_t gpa;
    uint32_t size;
};

/* What the driver made available at once. All buffers that the device reads stand before those that
 * it writes. */
struct virtqueue_chain {
    uint16_t head; /* the driver's name for it */
    unsigned readable, writable;
    const struct virtqueue_buffer
        *buffer; /* READABLE and then WRITABLE ones; until the next chain */
    uint64_t readable_bytes, writable_bytes;
};

/* Where the driver has put the three areas, and what it negotiated. */
struct virtqueue_config {
    unsigned size; /* entries: a power of two */
    uint64_t descriptors, available, used;
    bool event_index, indirect; /* VIRTIO_F_RING_EVENT_IDX, VIRTIO_F_INDIRECT_DESC */
};

/* The most pages that an area of VIRTQUEUE_SIZE_MAX descriptors of 16 bytes lies in. */
#define VIRTQUEUE_AREA_PAGES (VIRTQUEUE_SIZE_MAX * 16 / MEM_PAGE_SIZE + 1)

/* One of the three areas while it is pinned. */
struct virtqueue_area {
    struct mem_pin pin;
    struct iovec piece[VIRTQUEUE_AREA_PAGES];
    unsigned pieces;
};

struct virtqueue {
    struct mem *mem;
    struct virtqueue_config config;
    struct virtqueue_buffer *buffers;      /* room for a chain */
    struct virtqueue_descriptor *indirect; /* room for an indirect table */

    /* Indices count up and wrap at 65536. */
    uint16_t next;     /* of the next available chain to take */
    uint16_t done;     /* of the next used entry to write */
    uint16_t notified; /* what DONE was when the driver was last told or said it need not be */

    struct virtqueue_area descriptors, available, used; /* between open and close */
};

/* MOST: the most entries that the driver may configure, at most VIRTQUEUE_SIZE_MAX. */
int virtqueue_init(struct virtqueue *queue, struct mem *mem, unsigned most, struct error *err);
void virtqueue_free(struct virtqueue *queue);
/* Whether a driver may configure this (2.7, 2.7.x): a power of two of at most MOST entries, areas
 * aligned. */
bool virtqueue_allows(const struct virtqueue_config *config, unsigned most);
/* Begins with empty rings. CONFIG is allowed. */
void virtqueue_start(struct virtqueue *queue, const struct virtqueue_config *config);
/* Its position, not its configuration. */
void virtqueue_state(struct virtqueue *queue, struct state *s);

/* Pins the rings for what follows. -EFAULT (and nothing pinned) if they are not in memory. Close
 * unpins them. */
int virtqueue_open(struct virtqueue *queue);
void virtqueue_close(struct virtqueue *queue);

/* Takes the next chain. Returns 1, 0 if there is none, or VIRTQUEUE_BROKEN. */
int virtqueue_next(struct virtqueue *queue, struct virtqueue_chain *chain);
/* Reads the chain with HEAD again, which was taken and not given back. Returns 1 or
 * VIRTQUEUE_BROKEN: the driver may have changed it. */
int virtqueue_again(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain);
/* After virtqueue_next has returned 0: asks the driver to notify of the next chain. Returns true if
 * one has come meanwhile, which the driver may not have notified of. */
bool virtqueue_await(struct virtqueue *queue);
/* Prepares to give the chain with HEAD back, of whose writable buffers the first WRITTEN bytes were
 * written: as number N of those that virtqueue_publish then gives back. */
void virtqueue_put(struct virtqueue *queue, unsigned n, uint16_t head, uint32_t written);
/* Gives the first COUNT chains back that were put. The driver sees all of them or none. */
void virtqueue_publish(struct virtqueue *queue, unsigned count);
/* Both, for one chain. */
void virtqueue_complete(struct virtqueue *queue, uint16_t head, uint32_t written);
/* Whether the driver wants an interrupt for what was completed since this was last asked. */
bool virtqueue_wants_interrupt(struct virtqueue *queue);

#endif

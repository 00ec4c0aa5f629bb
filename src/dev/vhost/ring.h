/*
 * A split virtqueue (virtio 1.2, 2.7) from the driver's side, in memory that is shared with a back
 * end of vhost-user.
 *
 * The guest's own rings are not shown to the back end. The device takes chains off the guest's
 * ring, which checks them, and puts them into a ring like this one; when the back end has given a
 * chain back, the device tells guest memory what was written, and then the guest:
 * dev/vhost/device.h says why.
 *
 *      guest's ring --virtqueue_next--> device --vhost_ring_add--> shared ring --> back end
 *      guest's ring <--- completion --- device <--vhost_ring_take- shared ring <--
 *
 * The back end may write anything into the shared memory at any time. The ring keeps its own record
 * of what was given out, and from the shared memory believes only indices that it can check.
 *
 * One thread at a time.
 */
#ifndef DOPPEL_DEV_VHOST_RING_H
#define DOPPEL_DEV_VHOST_RING_H

#include "base/error.h"
#include "dev/virtio/queue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Descriptors, and the most buffers of a chain. Back ends do not say how many they take; all take
 * as many as QEMU has by default. */
#define VHOST_RING_SIZE 128u

struct vhost_ring_chain;

struct vhost_ring {
    uint8_t *memory; /* descriptors, available ring, used ring, indirect tables */
    uint64_t gpa;    /* where the back end finds it */
    bool event_index, indirect;
    struct vhost_ring_chain *chains; /* by head */
    uint16_t *next;                  /* by descriptor: the next one of its chain, or that is free */
    uint16_t free_first, free_count;
    uint16_t available; /* index of the next entry to write */
    uint16_t used;      /* index of the next entry to read */
    uint16_t notified;  /* what AVAILABLE was when the back end was last told or need not be */
};

/* Where the areas are in the ring's memory, and how much that is. Each descriptor has an indirect
 * table of its own, so that a chain needs one descriptor if the back end knows indirect ones. */
#define VHOST_RING_DESCRIPTORS 0u
#define VHOST_RING_AVAILABLE   4096u
#define VHOST_RING_USED        8192u
#define VHOST_RING_TABLES      12288u
#define VHOST_RING_TABLE       (16u * VHOST_RING_SIZE)
#define VHOST_RING_BYTES       (VHOST_RING_TABLES + VHOST_RING_TABLE * VHOST_RING_SIZE)

int vhost_ring_init(struct vhost_ring *ring, struct error *err);
void vhost_ring_free(struct vhost_ring *ring);
/* Begins anew, empty, in MEMORY, which is zeroed and which the back end has at GPA. What was given
 * out is forgotten. EVENT_INDEX and INDIRECT: both ends have VIRTIO_F_EVENT_IDX and
 * VIRTIO_F_INDIRECT_DESC. */
void vhost_ring_start(struct vhost_ring *ring, void *memory, uint64_t gpa, bool event_index,
                      bool indirect);

/* Makes a chain available: READABLE buffers and then WRITABLE ones, VHOST_RING_SIZE at most. OWNER
 * is not NULL and comes back from vhost_ring_take. Returns 0, or -EAGAIN: there is no room before
 * something is taken. */
int vhost_ring_add(struct vhost_ring *ring, const struct virtqueue_buffer *buffers,
                   unsigned readable, unsigned writable, void *owner);
/* Whether the back end must be told of what was added since this was last asked. */
bool vhost_ring_wants_kick(struct vhost_ring *ring);

/* Takes what the back end has given back: its owner, and how many bytes of the writable buffers it
 * says were written, at most as many as there are. Returns 1, 0 if there is nothing, or -EPROTO:
 * the back end has broken a rule. */
int vhost_ring_take(struct vhost_ring *ring, void **owner, uint32_t *written);
/* Takes back one of the chains that are out, any of them, and returns its owner; NULL: none is. The
 * ring must be started anew before more is added. */
void *vhost_ring_revoke(struct vhost_ring *ring);
/* After vhost_ring_take has returned 0: asks the back end to tell of the next. Returns true if one
 * has come meanwhile. */
bool vhost_ring_await(struct vhost_ring *ring);

#endif

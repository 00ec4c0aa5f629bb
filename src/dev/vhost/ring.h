/*
 * A split virtqueue (virtio 1.2, 2.7) from the driver's side, in memory that is shared with a back
 * end of vhost-user.
 *
 * The guest's own rings are not shown to the back end. The device takes chains off the guest's
 * ring, which checks them, and puts them into a ring like this one; when the back end has given a
 * chain back, the device tells guest memory what was written, and then the guest (dev/vhost/block.h
 * says why).
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

#define VHOST_RING_SIZE 1024u /* descriptors */

struct vhost_ring_chain;

struct vhost_ring {
    uint8_t *memory; /* the descriptors, then the available ring, then the used ring */
    bool event_index;
    struct vhost_ring_chain *chains; /* by head */
    uint16_t *next;                  /* by descriptor: the next one of its chain, or that is free */
    uint16_t free_first, free_count;
    uint16_t available; /* index of the next entry to write */
    uint16_t used;      /* index of the next entry to read */
    uint16_t notified;  /* what AVAILABLE was when the back end was last told or need not be */
};

/* Where the areas are in the ring's memory, and how much that is. */
#define VHOST_RING_DESCRIPTORS 0u
#define VHOST_RING_AVAILABLE   (16u * VHOST_RING_SIZE)
#define VHOST_RING_USED        (VHOST_RING_AVAILABLE + 4096u)
#define VHOST_RING_BYTES       (VHOST_RING_USED + 12288u)

int vhost_ring_init(struct vhost_ring *ring, struct error *err);
void vhost_ring_free(struct vhost_ring *ring);
/* Begins anew, empty, in MEMORY, which is zeroed. Who was given out is forgotten. */
void vhost_ring_start(struct vhost_ring *ring, void *memory, bool event_index);

/* Makes a chain available: READABLE buffers and then WRITABLE ones. OWNER is not NULL and comes
 * back from vhost_ring_take. Returns 0, or -EAGAIN: there is no room before something is taken. */
int vhost_ring_add(struct vhost_ring *ring, const struct virtqueue_buffer *buffers,
                   unsigned readable, unsigned writable, void *owner);
/* Whether the back end must be told of what was added since this was last asked. */
bool vhost_ring_wants_kick(struct vhost_ring *ring);

/* Takes what the back end has given back: its owner, and how many bytes of the writable buffers it
 * says were written, at most as many as there are. Returns 1, 0 if there is nothing, or -EPROTO:
 * the back end has broken a rule. */
int vhost_ring_take(struct vhost_ring *ring, void **owner, uint32_t *written);
/* After vhost_ring_take has returned 0: asks the back end to tell of the next. Returns true if one
 * has come meanwhile. */
bool vhost_ring_await(struct vhost_ring *ring);

#endif

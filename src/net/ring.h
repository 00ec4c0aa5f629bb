/*
 * A queue of frames between two threads, without a lock: one puts frames in, one takes them out.
 *
 *      ring_put --> [record][record][ rest is skipped ]  <-- the end of the memory
 *                      ^ ring_peek, ring_drop
 *
 * A frame lies in one piece, so that it can be read and changed in place.
 */
#ifndef DOPPEL_NET_RING_H
#define DOPPEL_NET_RING_H

#include "base/error.h"
#include "net/driver.h"

#include <stdatomic.h>
#include <stdbool.h>

struct ring {
    uint8_t *memory;
    size_t size;                    /* a power of two */
    _Alignas(64) _Atomic size_t in; /* bytes that were ever put in, with what was skipped */
    _Alignas(64) _Atomic size_t out;
};

/* Of SIZE bytes, a power of two, at least four times NET_FRAME_MOST. */
int ring_create(struct ring *ring, size_t size, struct error *err);
void ring_destroy(struct ring *ring);

/* On the thread that puts in. False: there is no room. */
bool ring_put(struct ring *ring, const void *data, size_t size, const struct net_offload *offload);

/* On the thread that takes out. False: it is empty. What *FRAME says stays until ring_drop. */
bool ring_peek(struct ring *ring, struct net_frame *frame);
void ring_drop(struct ring *ring);

/* How many bytes are in use. Any thread. */
static inline size_t ring_used(struct ring *ring)
{
    size_t out = atomic_load(&ring->out);

    return atomic_load(&ring->in) - out;
}

#endif

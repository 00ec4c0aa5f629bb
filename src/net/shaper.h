/*
 * What makes a network worse than it is: frames that are late, lost, or few.
 *
 * What is sent waits in a queue until its time, and a thread of the shaper's own lets it pass:
 *
 *      rate     the frame leaves when those before it have left the line
 *      delay    and arrives so much later
 *      jitter   give or take up to so much, evenly distributed; frames stay in order
 *      loss     or never, by chance
 *
 * What is received is only held up by the rate.
 *
 * The shaper's lock is a leaf. Nothing is called with it held.
 */
#ifndef DOPPEL_NET_SHAPER_H
#define DOPPEL_NET_SHAPER_H

#include "base/error.h"
#include "net/net.h"
#include "net/options.h"

struct shaper;

/* Where frames go to. */
struct shaper_exit {
    /* Sends a frame, in memory of the shaper's, on its thread. False: there is no room; the same
     * frame is sent again after shaper_room. */
    bool (*send)(void *opaque, uint8_t *data, size_t size, const struct net_offload *offload);
    void (*flush)(void *opaque);
    void (*ready)(void *opaque); /* shaper_put or shaper_may_receive may say yes again */
    void *opaque;
};

/* Starts a thread. Nothing is shaped yet. */
struct shaper *shaper_create(const struct shaper_exit *way_out, struct error *err);
/* Ends the thread; what waits is dropped. Afterwards the exit is not called, and the functions
 * below may still be called. Not with a lock that the exit takes. NULL is allowed, here and below.
 */
void shaper_stop(struct shaper *shaper);
void shaper_free(struct shaper *shaper); /* it was stopped */

/* Any thread. What waits arrives no later than what is sent now. */
void shaper_set(struct shaper *shaper, const struct net_shape *shape);
struct net_shape shaper_get(struct shaper *shaper);
void shaper_room(struct shaper *shaper); /* the exit has room again */

/* On the thread that sends. */

/* Whether frames must go by the shaper: it shapes, or some wait in it. */
bool shaper_active(struct shaper *shaper);
/* Whether there is room for a frame. False: `ready` is called when there is. */
bool shaper_open(struct shaper *shaper);
/* Takes a frame (a copy) when there was room; or loses it. */
void shaper_put(struct shaper *shaper, const void *data, size_t size,
                const struct net_offload *offload);

/* On the thread that receives. */

/* Whether the next frame may be received now. False: `ready` is called when it may. */
bool shaper_may_receive(struct shaper *shaper);
void shaper_received(struct shaper *shaper, size_t size);

struct where *shaper_where(struct shaper *shaper);

#endif

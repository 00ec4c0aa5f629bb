/*
 * What a driver of networks is: what stands behind a struct net. Private to src/net/.
 *
 * A driver embeds a struct net as its first member. net.c checks frames, and finishes what the
 * driver does not take, before it hands them on.
 */
#ifndef DOPPEL_NET_DRIVER_H
#define DOPPEL_NET_DRIVER_H

#include "net/net.h"
#include "net/offload.h"
#include "net/options.h"

#include <pthread.h>
#include <stdatomic.h>

/* A received frame, in memory of the driver's that may be written to. */
struct net_frame {
    uint8_t *data;
    size_t size;
    struct net_offload offload;
};

struct capture;
struct shaper;

struct net_driver {
    /* Sends a frame of SIZE bytes, with offloads that the driver takes only. One thread at a time.
     * False: there is no room, and net_ready is called when there is. */
    bool (*send)(struct net *net, const struct iovec *iov, unsigned iovs, size_t size,
                 const struct net_offload *offload);
    void (*flush)(struct net *net); /* NULL: nothing is to be done. Any threads */
    /* Sets *FRAME to the next one, which stays until drop(). False: there is none, and net_ready is
     * called when there is. One thread at a time, which need not be the one that sends. */
    bool (*peek)(struct net *net, struct net_frame *frame);
    void (*drop)(struct net *net);
    void (*accepts)(struct net *net, unsigned accepts); /* NULL: it does not matter */
    unsigned (*forward_port)(const struct net *net, unsigned n);
    struct where *(*where)(struct net *net, unsigned n); /* NULL: no threads */
    void (*close)(struct net *net);                      /* frees all, NET with it */
};

/* A frame that is being divided into segments, or waits as a whole. */
struct net_rest {
    /* Of NET_FRAME_MOST bytes each: the whole, and one segment. NULL: not needed yet. */
    uint8_t *buffer, *piece;
    struct offload_split split;
    bool going;
};

/* The head of every driver's structure. */
struct net {
    const struct net_driver *driver;
    const struct net_host *host;
    struct net_info info;
    /* What send() takes undone: NET_CHECKSUM, ... One that takes TSO and no CHECKSUM gets segments
     * of any size, complete. */
    unsigned takes;
    bool linear;  /* send() wants the frame in one piece of its own, which it may change */
    bool trusted; /* checksums of received frames need no check, since nothing can have changed
                   * them on their way */

    _Atomic bool up;
    pthread_mutex_t events_lock; /* a leaf but for what `ready` takes; guards the next two */
    struct net_events events;
    bool paused;

    /* On the thread that sends; and on the shaper's. */
    struct net_rest sending, shaped;

    /* On the thread that receives. */
    unsigned accepts;
    struct net_frame frame; /* what net_receive stores, if READY */
    bool ready;
    struct offload_split receiving; /* FRAME is one of its segments, if GOING */
    bool going;
    uint8_t *received; /* of NET_FRAME_MOST bytes: that segment */

    struct shaper *_Atomic shaper; /* NULL: nothing was ever shaped */
    pthread_mutex_t capture_lock;  /* guards `capture`; only the capture's is taken with it held */
    struct capture *capture;
    _Atomic bool captures;
};

/* Sets the head of a driver's structure that is all zero. */
void net_begin_driver(struct net *net, const struct net_driver *driver,
                      const struct net_options *options, const struct net_host *host);
/* Undoes that. The driver frees NET. */
void net_end_driver(struct net *net);

/* What OPTIONS say of shaping and capture, once the driver is open (settings.c). On failure the
 * caller closes NET. */
int net_set_up_settings(struct net *net, const struct net_options *options, struct error *err);
void net_stop_settings(struct net *net); /* shaping, before the driver is closed */
void net_free_settings(struct net *net);
/* Writes a frame to the capture, if there is one. */
void net_capture(struct net *net, const struct iovec *iov, unsigned iovs, size_t size);

/* Makes memory for a frame at *BUFFER if there is none yet. */
bool net_need_buffer(uint8_t **buffer);
/* Sends the segments that are left. False: there is no room for all of them now. */
bool net_send_rest(struct net *net, struct net_rest *rest);
/* Sends a frame of SIZE bytes in memory that nobody else changes, as the driver takes it. False:
 * there is no room now; the same is to be called again. */
bool net_send_finished(struct net *net, struct net_rest *rest, uint8_t *data, size_t size,
                       struct net_offload offload);

/* Has the card look again, for frames to be received and for room to send. Any thread. */
void net_ready(struct net *net);
/* The same, without the shaper: it is the shaper that says so. */
void net_tell_card(struct net *net);
/* Says that the cable is plugged in or pulled out. On the loop's thread, without locks. */
void net_set_up(struct net *net, bool up);

/* What the kinds open. */
struct net *net_none_open(const struct net_options *options, const struct net_host *host,
                          struct error *err);
struct net *net_user_open(const struct net_options *options, const struct net_host *host,
                          struct error *err);
struct net *net_stream_open(const struct net_options *options, const struct net_host *host,
                            struct error *err);
struct net *net_remote_open(const struct net_options *options, const struct net_host *host,
                            struct error *err);
struct net *net_tap_open(const struct net_options *options, const struct net_host *host,
                         struct error *err);

#endif

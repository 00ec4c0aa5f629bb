/*
 * A user network (user.c), the thread that waits for its sockets (user_thread.c; what for:
 * user_wait.c), forwarded ports (user_forward.c), what is known of frames (user_frame.c) and which
 * may come out of order (user_order.c).
 *
 *      card's thread                               the network's thread
 *        user_send -> slirp_input ---.        .--- poll, slirp_pollfds_poll <--> sockets
 *                                    v        v
 *                              libslirp, with its lock
 *                                        |  send_packet
 *                                        v
 *        user_peek, user_drop <------- ring
 *
 * Frames of the guest's go into libslirp on the thread that sends them: what they say is in the
 * host's sockets when net_send returns. The network's thread sleeps in poll(2) meanwhile and is
 * woken only if there is now another socket, or something else of a socket, to wait for.
 *
 * Each connection of the guest's is a descriptor of this process, and so is each port that it sends
 * datagrams from: base/descriptors.h says how many there may be.
 */
#ifndef DOPPEL_NET_USER_H
#define DOPPEL_NET_USER_H

#include "base/descriptors.h"
#include "base/util.h"
#include "base/where.h"
#include "net/driver.h"
#include "net/ring.h"
#include "net/slirp_library.h"
#include "net/user_order.h"

#include <poll.h>

#define USER_RING     (4 * MiB)
#define USER_RING_LOW (256 * KiB) /* sockets are read from again when less waits for the guest */

struct user_timer {
    struct user_timer *next;
    SlirpTimerCb call;
    void *opaque;
    uint64_t at; /* nanoseconds; UINT64_MAX: it is not set */
};

/* What is waited for: the first is the event file by which the thread is woken. */
struct user_wait {
    struct pollfd *fds;
    unsigned count, room;
    uint64_t until; /* nanoseconds */
};

struct user {
    struct net net;
    struct slirp_library library;
    Slirp *slirp;
    struct ring ring;       /* frames for the guest */
    _Atomic bool hungry;    /* the guest has found the ring empty */
    _Atomic bool throttled; /* sockets are not read from until the guest has taken frames */
    uint64_t dropped;       /* frames for which there was no room */

    /* With libslirp's lock. */
    struct user_order *order;
    struct user_timer *timers;
    struct user_wait wait;  /* what the thread waits for, while it does */
    struct user_wait fresh; /* what it should wait for */
    bool waiting;
    bool changed; /* frames of the guest's have gone in since */
    bool ending;
    uint64_t looked; /* when libslirp was last told the time */

    int event;
    pthread_t thread;
    struct where where;

    struct descriptors limit;
    unsigned openings;  /* frames that may open one before it is looked again how many are left */
    uint64_t accept_at; /* until then nothing is accepted; nanoseconds; 0: all is */

    unsigned ports[NET_FORWARDS_MOST];
    unsigned forwards;
    int listener[NET_FORWARDS_MOST]; /* sockets of libslirp's */
    unsigned listeners;
};

int user_thread_start(struct user *user, struct error *err);
void user_thread_stop(struct user *user);

/* Makes the forward F of those in OPTIONS. Before the thread begins. */
int user_add_forward(struct user *user, const struct net_options *options,
                     const struct net_forward *f, struct error *err);
/* Whether libslirp might open a socket or a file because of this frame: it begins a connection of
 * TCP, or is a packet of something else than TCP. */
bool user_frame_opens(const uint8_t *frame, size_t size);

/* With libslirp's lock. */

/* After poll(2): has nothing accepted at forwarded ports for a while if there are too few
 * descriptors. Programs that connect wait meanwhile. */
void user_hold_accepts(struct user *user, struct user_wait *wait);
/* Collects in WAIT what is to be waited for. */
void user_collect(struct user *user, struct user_wait *wait);
/* What poll(2) has found, as libslirp asks for it. WAIT is a struct user_wait. */
int user_get_revents(int index, void *wait);
/* Whether a thread that waits for OLD need not be woken to wait for NEW instead. */
bool user_covers(const struct user_wait *old, const struct user_wait *new);
/* Before a frame goes in: libslirp's clock stands still while nothing happens. */
void user_tell_time(struct user *user);
/* After frames have gone in: wakes the thread if it must wait for something else. */
void user_look_again(struct user *user);

/* For libslirp. */
extern const SlirpCb user_callbacks;

#endif

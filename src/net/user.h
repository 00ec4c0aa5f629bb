/*
 * A user network (user.c) and the thread that waits for its sockets (user_thread.c).
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
 */
#ifndef DOPPEL_NET_USER_H
#define DOPPEL_NET_USER_H

#include "base/util.h"
#include "base/where.h"
#include "net/driver.h"
#include "net/ring.h"
#include "net/slirp_library.h"

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

    unsigned ports[NET_FORWARDS_MOST];
    unsigned forwards;
};

int user_thread_start(struct user *user, struct error *err);
void user_thread_stop(struct user *user);

/* With libslirp's lock. */

/* Collects in WAIT what is to be waited for. */
void user_collect(struct user *user, struct user_wait *wait);
/* Before a frame goes in: libslirp's clock stands still while nothing happens. */
void user_tell_time(struct user *user);
/* After frames have gone in: wakes the thread if it must wait for something else. */
void user_look_again(struct user *user);

/* For libslirp. */
extern const SlirpCb user_callbacks;

#endif

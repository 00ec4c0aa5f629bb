/*
 * A connection to another process that takes and gives frames (wire.h): what the drivers of streams
 * and of switches share.
 *
 * The thread that sends holds `out_lock` while it writes, the one that receives `in_lock` while it
 * reads, so that neither waits for the other. A new connection is made with both held. `lock` is
 * for what the loop is to watch for; it is a leaf but for the loop's own. Order: in, out, lock.
 */
#ifndef DOPPEL_NET_PEER_H
#define DOPPEL_NET_PEER_H

#include "net/driver.h"
#include "net/wire.h"

struct peer {
    struct net net;
    /* The connection has ended. On the loop's thread, without locks. */
    void (*lost)(struct peer *peer);

    pthread_mutex_t in_lock, out_lock, lock;
    struct wire_in in;
    bool in_old; /* what is in `in` came over an earlier connection */
    struct wire_out out;
    int fd; /* -1: there is no connection */
    struct loop_watch *watch;
    uint32_t wanted; /* EPOLLIN: receiving found nothing; EPOLLOUT: sending found no room */
    bool broken;     /* and the loop has been asked to end the connection */
    struct loop_job job;
};

/* Sets the head of a structure that is all zero. Nobody is there yet. OFFLOADS: of the framing. */
int peer_begin(struct peer *peer, const struct net_options *options, const struct net_host *host,
               const struct net_driver *driver, bool offloads, void (*lost)(struct peer *peer),
               struct error *err);
/* Undoes that. Afterwards nothing is called any more. The caller frees PEER, and has seen to it
 * that LOST starts nothing any more. */
void peer_end(struct peer *peer);

/* Takes FD over as the connection. There is none; and either nothing has begun, or this is the
 * loop's thread. On failure FD is closed. */
int peer_connect(struct peer *peer, int fd, struct error *err);

/* The driver's calls. */
bool peer_send(struct net *net, const struct iovec *iov, unsigned iovs, size_t size,
               const struct net_offload *offload);
void peer_flush(struct net *net);
bool peer_peek(struct net *net, struct net_frame *frame);
void peer_drop(struct net *net);

#endif

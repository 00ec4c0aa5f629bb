/*
 * Networks of the host: what is at the other end of a network card's cable.
 *
 * A struct net takes and gives Ethernet frames, without their check sequence. Behind it are
 *
 *      none      nobody: what is sent is lost
 *      user      a network of the process's own, whose gateway speaks for the guest with ordinary
 *                sockets (libslirp)
 *      tap       a TAP interface of the host
 *      switch    the other machines on a virtual switch (switch.h)
 *      stream    whoever serves a Unix socket in QEMU's framing: passt, gvproxy, ...
 *
 *      card's queues                                        card's queues
 *           | net_send, net_flush                                ^ net_next, net_receive
 *           v                                                    |
 *      struct net  checks, shaping, capture, what the other side does not do (offload.h)
 *           |                                                    |
 *      driver   none | user | tap | switch | stream
 *
 * Offloads: a frame may come with a struct net_offload that says what is still to be done to it:
 * a checksum to be filled in, or a segment of TCP larger than the MTU to be divided. A sender may
 * always send such frames: what the other side does not take as it is, is done here. Received
 * frames need no more than the guest has been said to accept.
 *
 * Threads: net_send and net_flush are called on one thread at a time, net_next and net_receive on
 * one thread at a time; the two may be different threads, and run at once. net_open, net_begin,
 * net_pause, net_resume, net_change and net_close are called on one thread at a time; net_begin,
 * net_pause and net_close while nobody is in net_send, net_flush, net_next or net_receive. None of
 * them is called with a lock held that `ready` or `link` takes.
 *
 * Nothing here touches guest memory but net_send and net_receive, before they return. Frames that
 * wait here when a machine is saved are lost, as on a cable.
 */
#ifndef DOPPEL_NET_NET_H
#define DOPPEL_NET_NET_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct net;
struct net_options;
struct where;

#define NET_FRAME_LEAST 14u    /* bytes: the Ethernet header */
#define NET_FRAME_MOST  65568u /* an IP packet of 65,535 bytes, and an Ethernet header with tags */

/* The fields of struct virtio_net_hdr (virtio 1.2, 5.1.6) with the same values, in the host's byte
 * order. All zero: the frame is complete. */
struct net_offload {
    uint8_t flags;            /* NET_NEEDS_CHECKSUM, NET_CHECKSUM_VALID */
    uint8_t gso;              /* NET_GSO_... */
    uint16_t header_size;     /* GSO: bytes of all headers. A hint: it is not relied on */
    uint16_t segment_size;    /* GSO: bytes of payload in each segment, at most */
    uint16_t checksum_start;  /* NEEDS_CHECKSUM: the sum is of the bytes from here to the end */
    uint16_t checksum_offset; /* and is stored so many bytes behind CHECKSUM_START */
};

enum { NET_NEEDS_CHECKSUM = 1, NET_CHECKSUM_VALID = 2 };
enum { NET_GSO_NONE = 0, NET_GSO_TCP4 = 1, NET_GSO_TCP6 = 4, NET_GSO_ECN = 0x80 };

/* What a side takes undone. TSO is only accepted together with CHECKSUM. */
enum {
    NET_CHECKSUM = 1, /* frames with NET_NEEDS_CHECKSUM; and NET_CHECKSUM_VALID may be set */
    NET_TSO4 = 2,     /* NET_GSO_TCP4 */
    NET_TSO6 = 4,     /* NET_GSO_TCP6 */
};

struct net_info {
    const char *kind; /* "user", ...: the word of --net */
    unsigned mtu;     /* what the guest should be told; 0: nothing */
    bool has_mac;     /* the user has said which address the card has */
    uint8_t mac[6];
    unsigned queues; /* that the user has asked for; 0: nothing was said */
};

struct net_events {
    /* A frame may be received, or sent, that could not be before: after net_next has returned 0 or
     * net_send false. Any thread, perhaps with locks of this module held: only posts. */
    void (*ready)(void *opaque);
    /* The cable is plugged in or pulled out. At first net_up says which. On the loop's thread,
     * without locks. */
    void (*link)(void *opaque, bool up);
    void *opaque;
};

/* What the host gives to networks. Lives as long as they do. */
struct net_host {
    struct loop *loop;
    const struct log *log; /* NULL: nothing is logged */
    const char *name; /* of the virtual machine, which others on a switch find it by; or NULL */
    /* Returns a link (remote_link.h), over which connections come to what another process serves:
     * the switch NAME, or a user network with isolate (NAME is NULL then, and called for in the
     * order of the cards); or a negative errno. NULL: there are no such networks. */
    int (*remote)(void *opaque, const char *name);
    void *remote_opaque;
};

/* Opens what OPTIONS (options.h) name. HOST lives as long as the network; OPTIONS may go.
 * Everything that needs a file, a socket or a permission is opened here, but for connections that
 * are made again when the other side was gone. NULL: it failed, and nothing was left behind. */
struct net *net_open(const struct net_options *options, const struct net_host *host,
                     struct error *err);
/* NULL is allowed. Afterwards no event is called any more. */
void net_close(struct net *net);

struct net_info net_info(const struct net *net);
/* Whether the cable is plugged in. Any thread. */
bool net_up(const struct net *net);
/* The host's port of the Nth forward of a user network, which the host has chosen if port 0 was
 * asked for. 0: there is no such forward. */
unsigned net_forward_port(const struct net *net, unsigned n);

/* From now on EVENTS (copied) are called, and received frames need at most what ACCEPTS says
 * (NET_CHECKSUM, ...). Called again when the guest's driver begins anew, which takes back
 * a frame that net_send has refused. */
void net_begin(struct net *net, const struct net_events *events, unsigned accepts);

/* Sends the frame in the IOVS pieces at IOV, which the guest may change meanwhile. OFFLOAD NULL: it
 * is complete. A frame that is malformed is lost. False: there is no room now. The same frame is to
 * be sent again after `ready`. */
bool net_send(struct net *net, const struct iovec *iov, unsigned iovs,
              const struct net_offload *offload);
/* After the last of a batch of net_send: what was sent is on its way. */
void net_flush(struct net *net);

/* The size of the frame that is to be received next, in bytes; 0: there is none now. */
size_t net_next(struct net *net);
/* The same; and copies the first SIZE bytes of that frame, or all of it, to HEAD. */
size_t net_peek(struct net *net, void *head, size_t size);
/* Stores that frame into the IOVS pieces at IOV, as much as there is room for, and takes it off the
 * queue. Returns how many bytes were stored, and *OFFLOAD. IOVS 0 drops the frame. */
size_t net_receive(struct net *net, const struct iovec *iov, unsigned iovs,
                   struct net_offload *offload);

/* While it is paused no `ready` is called. Does not nest. After net_resume `ready` is called once.
 */
void net_pause(struct net *net);
void net_resume(struct net *net);

/* Changes settings while it runs: TEXT is delay=, jitter=, loss=, rate= and capture=, with commas
 * between them, as in options.h. What is not named stays. capture= without a name ends the
 * capture. Nothing changes if it fails. May be called while frames are sent and received. */
int net_change(struct net *net, const char *text, struct error *err);

/* For asking where the threads are (base/where.h): thread N, or NULL if there are no more. */
struct where *net_where(struct net *net, unsigned n);

#endif

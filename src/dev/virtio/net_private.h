/*
 * Inside the network device: shared by net.c (the device and its registers), net_send.c and
 * net_receive.c (frames), net_control.c (the control queue), net_filter.c (what the card reads of
 * frames) and net_link.c (the rest between it and the network).
 *
 *      guest                    worker                            network
 *      send queue     ------->  card_send: checks, maps  ------>  net_send
 *      receive queue  <-------  card_receive: maps       <------  net_next, net_receive
 *                                     ^------- virtio_wake -----  ready
 *
 * A pair is a receive queue (2 N) and a send queue (2 N + 1). No request is in flight longer than
 * one call of serve(): what cannot be sent yet, and a buffer without a frame for it, is held by the
 * frame (dev/virtio/device.h).
 */
#ifndef DOPPEL_DEV_VIRTIO_NET_PRIVATE_H
#define DOPPEL_DEV_VIRTIO_NET_PRIVATE_H

#include "dev/virtio/net.h"

#include <pthread.h>
#include <stdatomic.h>

#define CARD_QUEUE     256u /* entries of a queue */
#define CARD_ADDRESSES 64u  /* of each kind in the filter's table */
#define CARD_VLANS     4096u
#define CARD_FLOWS     256u
#define CARD_LOOK      64u   /* bytes of a frame that are enough to tell its flow */
#define CARD_SMALL     2048u /* a frame of at most so many bytes is copied: that is less than a pin */
#define CARD_PIECES    96u   /* of a frame that is not */

#define ETHERNET_HEADER 14u

/* Features (5.1.3), as numbers of bits. */
enum card_feature {
    CARD_F_CSUM = 0,
    CARD_F_GUEST_CSUM = 1,
    CARD_F_CTRL_GUEST_OFFLOADS = 2,
    CARD_F_MTU = 3,
    CARD_F_MAC = 5,
    CARD_F_GUEST_TSO4 = 7,
    CARD_F_GUEST_TSO6 = 8,
    CARD_F_HOST_TSO4 = 11,
    CARD_F_HOST_TSO6 = 12,
    CARD_F_MRG_RXBUF = 15,
    CARD_F_STATUS = 16,
    CARD_F_CTRL_VQ = 17,
    CARD_F_CTRL_RX = 18,
    CARD_F_CTRL_VLAN = 19,
    CARD_F_CTRL_RX_EXTRA = 20,
    CARD_F_GUEST_ANNOUNCE = 21,
    CARD_F_MQ = 22,
    CARD_F_CTRL_MAC_ADDR = 23,
};

#define CARD_BIT(feature) (UINT64_C(1) << (feature))
/* Of which frames to the guest may make use. */
#define CARD_OFFLOADS                                                                              \
    (CARD_BIT(CARD_F_GUEST_CSUM) | CARD_BIT(CARD_F_GUEST_TSO4) | CARD_BIT(CARD_F_GUEST_TSO6))

/* What stands before each frame in its buffers (5.1.6). */
struct card_header {
    uint8_t flags, gso;
    uint16_t header_size, segment_size, checksum_start, checksum_offset;
    uint16_t buffers;
};
#define CARD_HEADER 12u
_Static_assert(sizeof(struct card_header) == CARD_HEADER, "as in guest memory");
enum { CARD_NEEDS_CHECKSUM = 1, CARD_DATA_VALID = 2 }; /* flags */
enum { CARD_GSO_NONE = 0, CARD_GSO_TCP4 = 1, CARD_GSO_TCP6 = 4 };

/* Which frames the guest wants (5.1.6.5). Without a driver that says so: all. */
struct card_filter {
    bool promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
    bool by_vlan; /* of frames with a VLAN's tag only those of VLAN */
    uint8_t mac[6];
    uint16_t unicasts, multicasts; /* addresses in the table; more than fit: all are wanted */
    uint8_t unicast[CARD_ADDRESSES][6], multicast[CARD_ADDRESSES][6];
    uint32_t vlan[CARD_VLANS / 32];
};

struct virtio_net {
    struct virtio_device device; /* first */
    struct dev *dev;
    struct net *net; /* NULL: closed */
    uint16_t mtu;    /* 0: not said */
    unsigned pairs;
    uint8_t mac[6];
    struct loop_job tell; /* tells the guest of what has changed */

    _Atomic unsigned active;          /* pairs that the driver uses: frames come to these only */
    _Atomic unsigned turn;            /* the pair that the last frame was for */
    _Atomic uint32_t waiting;         /* pairs whose send queue waits, as bits */
    _Atomic uint8_t flow[CARD_FLOWS]; /* the pair that the guest sends a flow by (5.1.6.5.5) */
    _Atomic bool up;
    _Atomic bool moved; /* restored: the network is to hear where the card is now */

    pthread_mutex_t lock; /* guards these; nothing is called with it held */
    struct card_filter filter;
    bool announce;     /* the guest is asked to announce itself, and has not yet */
    uint64_t offloads; /* features of which frames to the guest may make use now */

    /* Held by who sends, or receives, which is one thread at a time. The second may be held while a
     * page of guest memory is awaited. */
    pthread_mutex_t sending, receiving;
    /* The pair whose frame the network had no room for, which it must be offered next; PAIRS: there
     * is none. Guarded by SENDING. */
    unsigned refused;
    uint8_t *out, *in; /* room for a frame and its header, when it cannot be pinned */
};

/* net_filter.c */

/* To the state before a driver has come. */
void card_filter_reset(struct card_filter *filter, const uint8_t mac[6]);
/* Whether the guest wants a frame that begins with the SIZE bytes at HEAD. */
bool card_filter_passes(const struct card_filter *filter, const uint8_t *head, size_t size);
void card_filter_state(struct card_filter *filter, struct state *s);
/* The flow of a frame that begins with the SIZE bytes at HEAD: below CARD_FLOWS, and the same in
 * both directions. */
unsigned card_flow(const uint8_t *head, size_t size);

/* net_send.c, net_receive.c, net_control.c: what serve() does with a request of such a queue. */
enum virtio_result card_send(struct virtio_net *n, struct virtio_request *request);
enum virtio_result card_receive(struct virtio_net *n, struct virtio_request *request);
enum virtio_result card_control(struct virtio_net *n, struct virtio_request *request);

/* net_control.c: frames come to the first PAIRS pairs of queues from now on. Any thread. */
void card_use(struct virtio_net *n, unsigned pairs);

/* net_link.c. Tells the network what frames to the guest may need of it. Nobody sends or receives.
 */
void card_offloads_changed(struct virtio_net *n);
/* Has the send queues that wait served. Any thread. */
void card_wake_senders(struct virtio_net *n);

#endif

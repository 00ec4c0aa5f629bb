/*
 * What the parts of the virtio socket device share.
 *
 *      vsock.c         the device: queues, configuration, events, state
 *      vsock_packet.c  packets from the guest and to it: what they do to a connection
 *      vsock_host.c    the host's sockets: clients, bytes, ends
 *      vsock_table.c   the connections there are, and of which the guest is to be told something
 *
 *                       GREETING --"CONNECT N\n"--> ASKING --RESPONSE--> OPEN <--REQUEST, connect()
 *                           |                         |                   |
 *      a program of the     '--gone                   '------> RESETTING <'--RST, both SHUTDOWNs-->
 *      host connects                                               |                 DRAINING
 *                                                     RST is told, or comes              |
 *                                                                  v                     v
 *                                                                 FREE <-----------------'
 *
 * No request of a queue is ever in flight: packets are copied while it is served, and one that
 * cannot be served yet waits.
 *
 * Memory is bounded: there are VSOCK_CONNECTIONS connections at most. Bytes for the guest stay in
 * the host's socket until the guest has room; bytes for the host that a socket does not take are
 * kept, for each connection as many as its window has, which is smaller for all but the first
 * VSOCK_WIDE connections.
 */
#ifndef DOPPEL_DEV_VIRTIO_VSOCK_PRIVATE_H
#define DOPPEL_DEV_VIRTIO_VSOCK_PRIVATE_H

#include "base/descriptors.h"
#include "base/fifo.h"
#include "base/util.h"
#include "dev/virtio/vsock.h"

#include <pthread.h>
#include <sys/un.h>

#define VSOCK_CONNECTIONS 1024u
#define VSOCK_GREETINGS   64u /* clients that have not said what they want; more end the oldest */
#define VSOCK_REFUSALS    256u
#define VSOCK_WIDE        256u
#define VSOCK_WIDE_WINDOW (256 * KiB)
#define VSOCK_WINDOW      (64 * KiB)
#define VSOCK_PAYLOAD     (64 * KiB) /* the most bytes of one packet to the guest */
#define VSOCK_BUCKETS     256u

#define VSOCK_HOST_CID 2u
/* Ports that the guest sees as the other ends of clients: from here to twice this. */
#define VSOCK_CLIENT_PORTS (1u << 30)

enum { VSOCK_RECEIVE, VSOCK_SEND, VSOCK_EVENT, VSOCK_QUEUES };

/* A packet's header (5.10.6). */
struct vsock_header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc, fwd_cnt; /* the sender's window, and the bytes that have left it */
} __attribute__((packed));
_Static_assert(sizeof(struct vsock_header) == 44, "5.10.6");

#define VSOCK_TYPE_STREAM 1

enum vsock_op {
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE,
    VSOCK_OP_RST,
    VSOCK_OP_SHUTDOWN,
    VSOCK_OP_RW,
    VSOCK_OP_CREDIT_UPDATE,
    VSOCK_OP_CREDIT_REQUEST,
};

/* Flags of SHUTDOWN: what its sender will not do any more. */
#define VSOCK_NO_RECEIVE 1u
#define VSOCK_NO_SEND    2u
#define VSOCK_NEITHER    3u

enum vsock_stage {
    VSOCK_FREE,
    VSOCK_GREETING,  /* a program of the host has connected, and its line has not come */
    VSOCK_ASKING,    /* the guest is asked, or is to be */
    VSOCK_OPEN,      /* to the guest, perhaps after the RESPONSE that is to be told */
    VSOCK_RESETTING, /* over for the host; the guest is to be told */
    VSOCK_DRAINING,  /* over for the guest; its last bytes have not left */
};

/* What the guest is to be told of a connection, in this order. */
enum {
    VSOCK_TELL_REQUEST = 1,
    VSOCK_TELL_RESPONSE = 2,
    VSOCK_TELL_SHUTDOWN = 4,
    VSOCK_TELL_CREDIT = 8,
    VSOCK_TELL_ASK_CREDIT = 16,
};

struct vsock_connection {
    enum vsock_stage stage;
    uint32_t generation;           /* of the slot: how often it was used */
    struct fifo_link link;         /* among those with work for the guest, or the greetings */
    struct vsock_connection *next; /* in its bucket, or among the free ones */
    int fd;                        /* -1: closed */
    uint32_t guest_port, host_port;
    uint8_t tell;

    /* From the guest: counts of bytes, which wrap. RECEIVED - FORWARDED bytes are in OUT. */
    uint32_t window;
    uint32_t received, forwarded;
    uint32_t told; /* what the guest was last told of FORWARDED */
    uint8_t *out;  /* a ring of WINDOW bytes; NULL while it is empty */
    uint32_t out_start;

    /* To the guest. */
    uint32_t guest_window, guest_forwarded, sent;
    bool asked;    /* for credit, and it had none to give */
    bool readable; /* the socket may have bytes for the guest */

    bool ended;         /* all that the program has sent was read, and it sends no more */
    bool hung;          /* the program has gone */
    bool shut_receive;  /* our side of the socket is shut down */
    bool shut_send;     /* the same, in the other direction */
    uint8_t over;       /* what the guest was told that the host does not do any more */
    uint8_t guest_over; /* what the guest does not do any more */
};

/* An RST for a packet that belongs to no connection. */
struct vsock_refusal {
    uint64_t cid; /* for whom the packet was */
    uint32_t guest_port, host_port;
    uint16_t type;
};

struct vsock {
    struct virtio_device device;
    uint32_t cid;
    char *path;
    int listener, epoll, spare; /* SPARE: a descriptor that is given up to refuse a client */
    struct loop_watch *watch;   /* of EPOLL, which is watched as one file */
    struct descriptors limit;

    /* Each for the one worker that serves the queue. */
    uint8_t *payload; /* VSOCK_WIDE_WINDOW bytes: of the packet that the guest sends */
    struct {
        struct vsock_header header;
        uint8_t payload[VSOCK_PAYLOAD];
    } *packet; /* that the guest receives */

    pthread_mutex_t lock; /* guards the rest; held while bytes are copied to and from sockets */
    bool transport_reset; /* the guest is to be told that all of its connections are over */
    uint32_t next_port;
    unsigned wide; /* connections with VSOCK_WIDE_WINDOW */
    struct fifo ready, greetings;
    unsigned refusals, first_refusal;
    struct vsock_refusal refusal[VSOCK_REFUSALS]; /* a ring */
    struct vsock_connection *bucket[VSOCK_BUCKETS];
    unsigned slots;                  /* of CONNECTION, those that were ever used */
    struct vsock_connection *unused; /* among them */
    struct vsock_connection connection[VSOCK_CONNECTIONS];
};

/* ---- vsock_table.c: with the lock ---- */

void vsock_table_init(struct vsock *v);
bool vsock_is_full(const struct vsock *v);
/* A connection that stands on the socket FD, whose owner it becomes. NULL (and FD is still the
 * caller's): there are too many. */
struct vsock_connection *vsock_add(struct vsock *v, int fd, enum vsock_stage stage);
/* Gives it its ports and its window: from now on it is found by them. */
void vsock_name(struct vsock *v, struct vsock_connection *c, uint32_t guest_port,
                uint32_t host_port);
struct vsock_connection *vsock_find(struct vsock *v, uint32_t guest_port, uint32_t host_port);
/* The same, by what epoll was given; NULL: it was of another connection in that slot. */
struct vsock_connection *vsock_of_event(struct vsock *v, uint64_t number);
/* A port for a client, that no connection to GUEST_PORT has. */
uint32_t vsock_client_port(struct vsock *v, uint32_t guest_port);

/* Whether the guest's driver knows of it. */
bool vsock_is_known(const struct vsock_connection *c);
/* Forgets the bytes that are kept for the host. */
void vsock_drop_kept(struct vsock_connection *c);
/* It is over at once; the guest is not told. */
void vsock_remove(struct vsock *v, struct vsock_connection *c);
/* The guest has ended it. What it has sent before its last SHUTDOWN still goes to the host. */
void vsock_drain(struct vsock *v, struct vsock_connection *c);
/* It is over: the host's program sees the end, and the guest is told if it knows of it. */
void vsock_reset(struct vsock *v, struct vsock_connection *c);

/* The bytes that the guest has room for. */
uint32_t vsock_credit(const struct vsock_connection *c);
/* The bytes that are kept for the host. */
static inline uint32_t vsock_kept(const struct vsock_connection *c)
{
    return c->received - c->forwarded;
}
/* Has the guest's side served if the connection has something for it. */
void vsock_look(struct vsock *v, struct vsock_connection *c);
/* The next one with something for the guest, or NULL. */
struct vsock_connection *vsock_next_ready(struct vsock *v);
/* Has the guest told that the packet with HEADER belongs to no connection. False: there is no room
 * for that until others were told. */
bool vsock_refuse(struct vsock *v, const struct vsock_header *header);

/* ---- vsock_host.c ---- */

/* Listens at PATH; clients wait until vsock_host_begin. */
int vsock_host_open(struct vsock *v, const char *path, struct loop *loop, const struct log *log,
                    struct error *err);
void vsock_host_begin(struct vsock *v);
/* No lock. Nothing calls back afterwards. */
void vsock_host_close(struct vsock *v);
/* Connects to the socket for the guest's connections to PORT. No lock. */
int vsock_host_connect(struct vsock *v, uint32_t port);

/* With the lock. */

/* The guest has accepted a client. */
void vsock_host_accepted(struct vsock *v, struct vsock_connection *c);
/* Reads at most SIZE bytes for the guest. Returns how many. The connection may be over then. */
uint32_t vsock_host_read(struct vsock *v, struct vsock_connection *c, void *data, uint32_t size);
/* Sends what the guest has sent, for which there is room. */
void vsock_host_write(struct vsock *v, struct vsock_connection *c, const void *data, uint32_t size);
/* Does to the socket what the guest's SHUTDOWN asks for, when all bytes before it have left. */
void vsock_host_settle(struct vsock *v, struct vsock_connection *c);

/* ---- vsock_packet.c ---- */

/* Takes a packet from the guest; PAYLOAD has its header.len bytes if it is VSOCK_OP_RW and they
 * are at most VSOCK_WIDE_WINDOW. No lock. False, and nothing has happened: not now, but after
 * vsock_next has made room. */
bool vsock_take(struct vsock *v, const struct vsock_header *header, const void *payload);
/* Makes the next packet for the guest, with at most ROOM bytes of payload. No lock. False: there
 * is none. */
bool vsock_next(struct vsock *v, struct vsock_header *header, void *payload, uint32_t room);

#endif

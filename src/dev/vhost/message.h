/*
 * Messages of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst), for both ends.
 *
 *      front end (has the guest)                      back end (serves its queues)
 *          ------ request, descriptors of files --------->
 *          <----- reply, or an acknowledgement -----------
 *
 * On the Unix socket a message is a header (request, flags, size), a payload of SIZE bytes, and
 * descriptors of files beside its first byte. All numbers have the byte order of the host.
 *
 * Whatever stands at the other end may be hostile: vhost_receive bounds what it takes in, and
 * vhost_check says whether a message is what its request number promises: the size of the payload,
 * the number of descriptors, and each number in it that has a range of its own. What depends on the
 * state of a session (which queues there are, which memory) is for the session to check.
 *
 * No function here keeps anything between calls but a struct vhost_reader; no locks.
 */
#ifndef DOPPEL_DEV_VHOST_MESSAGE_H
#define DOPPEL_DEV_VHOST_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a front end asks. */
enum vhost_request {
    VHOST_GET_FEATURES = 1,
    VHOST_SET_FEATURES = 2,
    VHOST_SET_OWNER = 3,
    VHOST_RESET_OWNER = 4,
    VHOST_SET_MEM_TABLE = 5,
    VHOST_SET_VRING_NUM = 8,
    VHOST_SET_VRING_ADDR = 9,
    VHOST_SET_VRING_BASE = 10,
    VHOST_GET_VRING_BASE = 11,
    VHOST_SET_VRING_KICK = 12,
    VHOST_SET_VRING_CALL = 13,
    VHOST_SET_VRING_ERR = 14,
    VHOST_GET_PROTOCOL_FEATURES = 15,
    VHOST_SET_PROTOCOL_FEATURES = 16,
    VHOST_GET_QUEUE_NUM = 17,
    VHOST_SET_VRING_ENABLE = 18,
    VHOST_SET_BACKEND_REQ_FD = 21,
    VHOST_GET_CONFIG = 24,
    VHOST_SET_CONFIG = 25,
    VHOST_GET_INFLIGHT_FD = 31,
    VHOST_SET_INFLIGHT_FD = 32,
    VHOST_RESET_DEVICE = 34,
    VHOST_REQUESTS /* all are below */
};

/* What a back end asks, on the socket of VHOST_SET_BACKEND_REQ_FD. */
enum vhost_backend_request { VHOST_BACKEND_CONFIG_CHANGE = 2 };

/* Flags of the header. */
#define VHOST_VERSION      0x1u
#define VHOST_VERSION_MASK 0x3u
#define VHOST_REPLY        0x4u /* this is a reply */
#define VHOST_NEED_REPLY   0x8u /* acknowledge this, by a u64: 0 means that it was done */

/* The bit of device features that says that there are protocol features. */
#define VHOST_F_PROTOCOL_FEATURES 30

/* Protocol features, as numbers of bits. */
enum {
    VHOST_PROTOCOL_MQ = 0,
    VHOST_PROTOCOL_REPLY_ACK = 3,
    VHOST_PROTOCOL_BACKEND_REQ = 5,
    VHOST_PROTOCOL_CONFIG = 9,
    VHOST_PROTOCOL_INFLIGHT = 12,
    VHOST_PROTOCOL_RESET_DEVICE = 13,
};

#define VHOST_REGIONS_MAX 8   /* of a memory table */
#define VHOST_FDS_MAX     8   /* descriptors with one message */
#define VHOST_CONFIG_MAX  256 /* bytes of device configuration */
#define VHOST_QUEUES_MAX  256

/* In the payload of VHOST_SET_VRING_KICK, _CALL and _ERR, beside the queue's number. */
#define VHOST_QUEUE_MASK UINT64_C(0xFF)
#define VHOST_NO_FD      UINT64_C(0x100)

/* Guest memory that the back end maps: SIZE bytes of a file from OFFSET on. */
struct vhost_region {
    uint64_t gpa, size;
    uint64_t user; /* its address in the front end, by which rings are found */
    uint64_t offset;
};

struct vhost_memory {
    uint32_t count, padding;
    struct vhost_region region[VHOST_REGIONS_MAX];
};

struct vhost_state {
    uint32_t queue, value;
};

/* Where a queue's areas are: addresses in the front end. */
struct vhost_addresses {
    uint32_t queue, flags;
    uint64_t descriptors, used, available, log;
};

struct vhost_config {
    uint32_t offset, size, flags;
    uint8_t data[VHOST_CONFIG_MAX];
};
#define VHOST_CONFIG_HEADER 12u

/* Where the record of requests in flight is in its file (dev/vhost/inflight.h). */
struct vhost_inflight {
    uint64_t size, offset;
    uint16_t queues, queue_size;
    uint32_t padding;
};
#define VHOST_INFLIGHT_BYTES 20u /* without the padding, which not everyone sends */

struct vhost_message {
    uint32_t request, flags;
    uint32_t size; /* of the payload */
    union {
        uint64_t u64;
        struct vhost_state state;
        struct vhost_addresses addresses;
        struct vhost_memory memory;
        struct vhost_config config;
        struct vhost_inflight inflight;
    };
    int fds[VHOST_FDS_MAX]; /* -1: taken out by whoever uses it */
    unsigned fd_count;
};

/* A message that is arriving. Zero at first. */
struct vhost_reader {
    struct vhost_message message;
    size_t have; /* bytes of header and payload */
};

/* Reads what SOCKET has. Returns 1 when READER holds a whole message, which then belongs to the
 * caller with its descriptors until the next call; 0: the rest is still to come; -ECONNRESET: the
 * other end is gone; -EPROTO: this is no message; or another negative errno. After a failure
 * nothing more can be read from this socket. Waits only if the socket does. */
int vhost_receive(struct vhost_reader *reader, int socket);
/* Closes the descriptors that came with the message and were not taken, or a part of it. */
void vhost_reader_drop(struct vhost_reader *reader);

/* Sends a message with its descriptors, which stay open. Waits for room for at most TIMEOUT_MS, and
 * not while STOP is readable (-1: that never is). 0; -ETIMEDOUT; -ECANCELED: because of STOP; or
 * another negative errno. After a failure the connection is of no use. */
int vhost_send(int socket, const struct vhost_message *message, int timeout_ms, int stop);

/* Whether MESSAGE is a request of a front end's as the protocol has it; one that is not known here
 * is not. */
bool vhost_check(const struct vhost_message *message);
/* Whether MESSAGE is a reply to REQUEST as the protocol has it. ACKNOWLEDGEMENT: it was asked for
 * by VHOST_NEED_REPLY alone. */
bool vhost_check_reply(const struct vhost_message *message, enum vhost_request request,
                       bool acknowledgement);
/* Whether a request has a reply of its own, beside an acknowledgement. */
bool vhost_has_reply(enum vhost_request request);
/* Whether MESSAGE is a request of a back end's that is known here. */
bool vhost_check_backend(const struct vhost_message *message);

/* Closes descriptors that are still in the message. */
void vhost_close_fds(struct vhost_message *message);
/* Takes descriptor N out of the message; it is the caller's then. */
int vhost_take_fd(struct vhost_message *message, unsigned n);

#endif

/*
 * Messages of the vhost-user protocol.
 */
#include "dev/vhost/message.h"

#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER  offsetof(struct vhost_message, u64)
#define PAYLOAD (offsetof(struct vhost_message, fds) - HEADER)
/* In memory the payload follows the header's 12 bytes after 4 of padding. */
#define HEADER_BYTES 12u
_Static_assert(HEADER == 16, "header, padding, payload");
_Static_assert(sizeof(struct vhost_region) == 32 && sizeof(struct vhost_addresses) == 40 &&
                   offsetof(struct vhost_memory, region) == 8 &&
                   offsetof(struct vhost_config, data) == VHOST_CONFIG_HEADER,
               "as on the socket");

/* ---- What a message must be ---- */

enum payload { NOTHING, U64, STATE, ADDRESSES, MEMORY, CONFIG, INFLIGHT };

/* How many descriptors come with a message. */
enum descriptors { NONE, ONE, ONE_UNLESS_FLAG, ONE_PER_REGION };

struct shape {
    bool known;
    enum payload request;
    enum descriptors with_request;
    bool replies;
    enum payload reply;
    enum descriptors with_reply;
};

#define ASKS(REPLY)         {.known = true, .replies = true, .reply = (REPLY)}
#define TELLS(PAYLOAD, FDS) {.known = true, .request = (PAYLOAD), .with_request = (FDS)}

static const struct shape shapes[VHOST_REQUESTS] = {
    [VHOST_GET_FEATURES] = ASKS(U64),
    [VHOST_SET_FEATURES] = TELLS(U64, NONE),
    [VHOST_SET_OWNER] = TELLS(NOTHING, NONE),
    [VHOST_RESET_OWNER] = TELLS(NOTHING, NONE),
    [VHOST_SET_MEM_TABLE] = TELLS(MEMORY, ONE_PER_REGION),
    [VHOST_SET_VRING_NUM] = TELLS(STATE, NONE),
    [VHOST_SET_VRING_ADDR] = TELLS(ADDRESSES, NONE),
    [VHOST_SET_VRING_BASE] = TELLS(STATE, NONE),
    [VHOST_GET_VRING_BASE] = {.known = true, .request = STATE, .replies = true, .reply = STATE},
    [VHOST_SET_VRING_KICK] = TELLS(U64, ONE_UNLESS_FLAG),
    [VHOST_SET_VRING_CALL] = TELLS(U64, ONE_UNLESS_FLAG),
    [VHOST_SET_VRING_ERR] = TELLS(U64, ONE_UNLESS_FLAG),
    [VHOST_GET_PROTOCOL_FEATURES] = ASKS(U64),
    [VHOST_SET_PROTOCOL_FEATURES] = TELLS(U64, NONE),
    [VHOST_GET_QUEUE_NUM] = ASKS(U64),
    [VHOST_SET_VRING_ENABLE] = TELLS(STATE, NONE),
    [VHOST_SET_BACKEND_REQ_FD] = TELLS(NOTHING, ONE),
    [VHOST_GET_CONFIG] = {.known = true, .request = CONFIG, .replies = true, .reply = CONFIG},
    [VHOST_SET_CONFIG] = TELLS(CONFIG, NONE),
    [VHOST_GET_INFLIGHT_FD] =
        {.known = true, .request = INFLIGHT, .replies = true, .reply = INFLIGHT, .with_reply = ONE},
    [VHOST_SET_INFLIGHT_FD] = TELLS(INFLIGHT, ONE),
    [VHOST_RESET_DEVICE] = TELLS(NOTHING, NONE),
};

/* Whether the region is somewhere: not empty, and none of its three ranges wraps. */
static bool region_fits(const struct vhost_region *r)
{
    return r->size && r->size - 1 <= UINT64_MAX - r->gpa && r->size - 1 <= UINT64_MAX - r->user &&
           r->size <= INT64_MAX && r->offset <= INT64_MAX - r->size;
}

static bool memory_fits(const struct vhost_message *m)
{
    const struct vhost_memory *memory = &m->memory;

    if (m->size < offsetof(struct vhost_memory, region) || memory->count > VHOST_REGIONS_MAX ||
        m->size !=
            offsetof(struct vhost_memory, region) + memory->count * sizeof(memory->region[0]))
        return false;
    for (unsigned i = 0; i < memory->count; i++)
        if (!region_fits(&memory->region[i]))
            return false;
    return true;
}

/* An empty reply to VHOST_GET_CONFIG says that the back end failed. */
static bool config_fits(const struct vhost_message *m)
{
    const struct vhost_config *config = &m->config;

    if ((m->flags & VHOST_REPLY) && m->size == 0)
        return true;
    return m->size >= VHOST_CONFIG_HEADER && config->size <= VHOST_CONFIG_MAX &&
           config->offset <= VHOST_CONFIG_MAX - config->size &&
           m->size == VHOST_CONFIG_HEADER + config->size;
}

static bool payload_fits(const struct vhost_message *m, enum payload payload)
{
    switch (payload) {
    case NOTHING: return m->size == 0;
    case U64: return m->size == sizeof(m->u64);
    case STATE: return m->size == sizeof(m->state) && m->state.queue < VHOST_QUEUES_MAX;
    case ADDRESSES: return m->size == sizeof(m->addresses) && m->addresses.queue < VHOST_QUEUES_MAX;
    case MEMORY: return memory_fits(m);
    case CONFIG: return config_fits(m);
    case INFLIGHT:
        return m->size >= VHOST_INFLIGHT_BYTES && m->size <= sizeof(m->inflight) &&
               m->inflight.queues <= VHOST_QUEUES_MAX;
    }
    return false;
}

static bool descriptors_fit(const struct vhost_message *m, enum descriptors descriptors)
{
    switch (descriptors) {
    case NONE: return m->fd_count == 0;
    case ONE: return m->fd_count == 1;
    case ONE_UNLESS_FLAG:
        return !(m->u64 & ~(VHOST_QUEUE_MASK | VHOST_NO_FD)) &&
               m->fd_count == !(m->u64 & VHOST_NO_FD);
    case ONE_PER_REGION: return m->fd_count == m->memory.count;
    }
    return false;
}

static const struct shape *shape_of(uint32_t request)
{
    return request < VHOST_REQUESTS && shapes[request].known ? &shapes[request] : NULL;
}

bool vhost_check(const struct vhost_message *m)
{
    const struct shape *shape = shape_of(m->request);

    return shape && (m->flags & ~VHOST_NEED_REPLY) == VHOST_VERSION &&
           payload_fits(m, shape->request) && descriptors_fit(m, shape->with_request);
}

bool vhost_check_reply(const struct vhost_message *m, enum vhost_request request,
                       bool acknowledgement)
{
    const struct shape *shape = shape_of(request);

    if (!shape || m->request != request ||
        (m->flags & ~VHOST_NEED_REPLY) != (VHOST_VERSION | VHOST_REPLY))
        return false;
    if (acknowledgement)
        return payload_fits(m, U64) && descriptors_fit(m, NONE);
    return shape->replies && payload_fits(m, shape->reply) && descriptors_fit(m, shape->with_reply);
}

bool vhost_has_reply(enum vhost_request request)
{
    return shapes[request].replies;
}

bool vhost_check_backend(const struct vhost_message *m)
{
    return m->request == VHOST_BACKEND_CONFIG_CHANGE &&
           (m->flags & ~VHOST_NEED_REPLY) == VHOST_VERSION && payload_fits(m, NOTHING) &&
           descriptors_fit(m, NONE);
}

/* ---- Receiving ---- */

void vhost_close_fds(struct vhost_message *m)
{
    for (unsigned i = 0; i < m->fd_count; i++)
        if (m->fds[i] >= 0)
            close(m->fds[i]);
    m->fd_count = 0;
}

int vhost_take_fd(struct vhost_message *m, unsigned n)
{
    int fd = m->fds[n];

    m->fds[n] = -1;
    return fd;
}

void vhost_reader_drop(struct vhost_reader *reader)
{
    vhost_close_fds(&reader->message);
    *reader = (struct vhost_reader){.have = 0};
}

/* Takes the descriptors that came with MSG; those that have no place are closed. False: there were
 * such. */
static bool take_descriptors(struct vhost_message *m, struct msghdr *msg)
{
    bool fit = !(msg->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
            if (m->fd_count < VHOST_FDS_MAX) {
                m->fds[m->fd_count++] = fd;
            } else {
                close(fd);
                fit = false;
            }
        }
    }
    return fit;
}

/* Reads up to SIZE bytes to AT. Returns how many, 0 if there is nothing now, or a negative errno.
 */
static int read_some(struct vhost_message *m, int socket, void *at, size_t size)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
    } control;
    struct iovec iov = {.iov_base = at, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (!take_descriptors(m, &msg))
        return -EPROTO;
    return n == 0 ? -ECONNRESET : (int)n;
}

int vhost_receive(struct vhost_reader *reader, int socket)
{
    struct vhost_message *m = &reader->message;
    int n;

    if (reader->have >= HEADER_BYTES && reader->have == HEADER_BYTES + m->size)
        vhost_reader_drop(reader);
    while (reader->have < HEADER_BYTES) {
        n = read_some(m, socket, (uint8_t *)m + reader->have, HEADER_BYTES - reader->have);
        if (n <= 0)
            return n;
        reader->have += (size_t)n;
    }
    if (m->size > PAYLOAD)
        return -EPROTO;
    while (reader->have < HEADER_BYTES + m->size) {
        size_t done = reader->have - HEADER_BYTES;

        n = read_some(m, socket, (uint8_t *)m + HEADER + done, m->size - done);
        if (n <= 0)
            return n;
        reader->have += (size_t)n;
    }
    return 1;
}

/* ---- Sending ---- */

/* Waits until SOCKET has room again. */
static int wait_for_room(int socket, int timeout_ms, int stop)
{
    struct pollfd pfd[] = {{socket, POLLOUT, 0}, {stop, POLLIN, 0}};
    int n;

    do {
        n = poll(pfd, 2, timeout_ms);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : -ETIMEDOUT;
    return pfd[1].revents ? -ECANCELED : 0;
}

/* Puts the message's descriptors beside MSG. */
static void add_descriptors(const struct vhost_message *m, struct msghdr *msg, void *space)
{
    struct cmsghdr *c;

    if (!m->fd_count)
        return;
    msg->msg_control = space;
    msg->msg_controllen = CMSG_SPACE(sizeof(int) * m->fd_count);
    c = CMSG_FIRSTHDR(msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * m->fd_count);
    memcpy(CMSG_DATA(c), m->fds, sizeof(int) * m->fd_count);
}

int vhost_send(int socket, const struct vhost_message *m, int timeout_ms, int stop)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
    } control = {.space = {0}};
    uint8_t bytes[HEADER_BYTES + PAYLOAD];
    struct iovec iov = {.iov_base = bytes, .iov_len = HEADER_BYTES + m->size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    memcpy(bytes, m, HEADER_BYTES);
    memcpy(bytes + HEADER_BYTES, (const uint8_t *)m + HEADER, m->size);
    add_descriptors(m, &msg, &control);
    while (iov.iov_len > 0) {
        ssize_t n = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            int ret = wait_for_room(socket, timeout_ms, stop);

            if (ret < 0)
                return ret;
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        } else if (n > 0) {
            iov.iov_base = (uint8_t *)iov.iov_base + n;
            iov.iov_len -= (size_t)n;
            msg.msg_control = NULL; /* the descriptors went with the first byte */
            msg.msg_controllen = 0;
        }
    }
    return 0;
}

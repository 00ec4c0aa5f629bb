/*
 * The front end of vhost-user.
 */
#include "dev/vhost/frontend.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BIT(N) (UINT64_C(1) << (N))

/* Protocol features that are used if the back end has them. */
#define WANTED                                                                                     \
    (BIT(VHOST_PROTOCOL_MQ) | BIT(VHOST_PROTOCOL_REPLY_ACK) | BIT(VHOST_PROTOCOL_BACKEND_REQ) |    \
     BIT(VHOST_PROTOCOL_CONFIG))

/* ---- Asking ---- */

static void begin_call(struct vhost_connection *c)
{
    c->end = time_now_ns() + VHOST_CALL_MS * NS_PER_MS;
}

/* When a question that is asked now has waited long enough. */
static uint64_t end_of_question(const struct vhost_connection *c)
{
    return MIN(c->end, time_now_ns() + VHOST_PATIENCE_MS * NS_PER_MS);
}

static int ms_until(uint64_t end)
{
    uint64_t now = time_now_ns();

    return now < end ? (int)((end - now) / NS_PER_MS) + 1 : 0;
}

static struct vhost_message message(enum vhost_request request, uint32_t size)
{
    return (struct vhost_message){.request = request, .flags = VHOST_VERSION, .size = size};
}

/* Waits for the whole reply. */
static int await_reply(struct vhost_connection *c)
{
    uint64_t end = end_of_question(c);
    int ret;

    while ((ret = vhost_receive(&c->reply, c->socket)) == 0) {
        struct pollfd pfd[] = {{c->socket, POLLIN, 0}, {c->stop, POLLIN, 0}};
        int left = ms_until(end);

        if (!left)
            return -ETIMEDOUT;
        if (poll(pfd, 2, left) > 0 && pfd[1].revents)
            return -ECANCELED;
    }
    return ret < 0 ? ret : 0;
}

static int send_and_await(struct vhost_connection *c, struct vhost_message *m)
{
    bool replies = vhost_has_reply((enum vhost_request)m->request);
    bool acknowledged = !replies && (c->protocol & BIT(VHOST_PROTOCOL_REPLY_ACK));
    int ret;

    if (acknowledged)
        m->flags |= VHOST_NEED_REPLY;
    ret = vhost_send(c->socket, m, ms_until(end_of_question(c)), c->stop);
    if (ret < 0 || (!replies && !acknowledged))
        return ret;
    ret = await_reply(c);
    if (ret < 0)
        return ret;
    if (!vhost_check_reply(&c->reply.message, (enum vhost_request)m->request, acknowledged))
        return -EPROTO;
    return acknowledged && c->reply.message.u64 ? -EREMOTEIO : 0;
}

/* Sends M, and waits for the reply or acknowledgement if there is to be one: it is in C->reply. */
static int ask(struct vhost_connection *c, struct vhost_message *m, struct error *err)
{
    int ret = send_and_await(c, m);

    switch (ret) {
    case 0: return 0;
    case -ETIMEDOUT:
        return error_set(err, ETIMEDOUT,
                         "the back end does not answer; it may be serving another front end");
    case -ECONNRESET:
    case -EPIPE: return error_set(err, ECONNRESET, "the back end has closed the connection");
    case -EPROTO:
        return error_set(err, EPROTO, "the back end breaks the vhost-user protocol (request %u)",
                         m->request);
    case -EREMOTEIO:
        return error_set(err, EREMOTEIO, "the back end refuses request %u", m->request);
    case -ECANCELED: return error_set(err, ECANCELED, "the connection is no longer wanted");
    default: return error_set(err, -ret, "cannot talk to the back end: %s", strerror(-ret));
    }
}

static int tell_u64(struct vhost_connection *c, enum vhost_request request, uint64_t value,
                    struct error *err)
{
    struct vhost_message m = message(request, sizeof(m.u64));

    m.u64 = value;
    return ask(c, &m, err);
}

static int get_u64(struct vhost_connection *c, enum vhost_request request, uint64_t *value,
                   struct error *err)
{
    struct vhost_message m = message(request, 0);
    int ret = ask(c, &m, err);

    if (ret == 0)
        *value = c->reply.message.u64;
    return ret;
}

static int tell_state(struct vhost_connection *c, enum vhost_request request, uint32_t queue,
                      uint32_t value, struct error *err)
{
    struct vhost_message m = message(request, sizeof(m.state));

    m.state = (struct vhost_state){.queue = queue, .value = value};
    return ask(c, &m, err);
}

static int tell_file(struct vhost_connection *c, enum vhost_request request, uint64_t queue, int fd,
                     struct error *err)
{
    struct vhost_message m = message(request, sizeof(m.u64));

    m.u64 = queue;
    m.fds[0] = fd;
    m.fd_count = 1;
    return ask(c, &m, err);
}

/* ---- The connection ---- */

/* SOCK_NONBLOCK: the queue of a listener that accepts no connection may be full. */
static int open_socket(const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ENAMETOOLONG, "the path of a socket has at most %zu bytes",
                         sizeof(address.sun_path) - 1);
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, errno, "cannot make a socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int code = errno;

        close(fd);
        return error_set(err, code, "cannot connect to the back end: %s%s", strerror(code),
                         code == ECONNREFUSED || code == ENOENT ? " (is it running?)" : "");
    }
    return fd;
}

/* Makes the socket for the back end's own requests. */
static int give_backend_socket(struct vhost_connection *c, struct error *err)
{
    struct vhost_message m = message(VHOST_SET_BACKEND_REQ_FD, 0);
    int pair[2], ret;

    if (!(c->protocol & BIT(VHOST_PROTOCOL_BACKEND_REQ)))
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set(err, errno, "cannot make a pair of sockets: %s", strerror(errno));
    c->backend = pair[0];
    m.fds[0] = pair[1];
    m.fd_count = 1;
    ret = ask(c, &m, err);
    close(pair[1]);
    return ret;
}

static int negotiate(struct vhost_connection *c, struct error *err)
{
    struct vhost_message owner = message(VHOST_SET_OWNER, 0);
    uint64_t protocol = 0, queues = 1;
    int ret = get_u64(c, VHOST_GET_FEATURES, &c->features, err);

    if (ret == 0)
        ret = ask(c, &owner, err);
    if (ret == 0 && !(c->features & BIT(VHOST_F_PROTOCOL_FEATURES)))
        ret = error_set(err, EPROTO, "the back end is too old: it has no protocol features");
    if (ret == 0)
        ret = get_u64(c, VHOST_GET_PROTOCOL_FEATURES, &protocol, err);
    protocol &= WANTED;
    /* Not acknowledged: only now is it agreed whether it is. */
    if (ret == 0)
        ret = tell_u64(c, VHOST_SET_PROTOCOL_FEATURES, protocol, err);
    c->protocol = protocol;
    if (ret == 0 && (protocol & BIT(VHOST_PROTOCOL_MQ)))
        ret = get_u64(c, VHOST_GET_QUEUE_NUM, &queues, err);
    c->queues = (unsigned)MIN(queues, (uint64_t)VHOST_QUEUES_MAX);
    if (ret == 0)
        ret = give_backend_socket(c, err);
    return ret;
}

int vhost_connect(struct vhost_connection *c, const char *path, int stop, struct error *err)
{
    int ret;

    *c = (struct vhost_connection){.socket = -1, .backend = -1, .stop = stop};
    begin_call(c);
    c->socket = open_socket(path, err);
    if (c->socket < 0) {
        ret = c->socket;
        c->socket = -1;
        return ret;
    }
    ret = negotiate(c, err);
    if (ret < 0)
        vhost_disconnect(c);
    return ret;
}

void vhost_disconnect(struct vhost_connection *c)
{
    vhost_reader_drop(&c->reply);
    vhost_reader_drop(&c->request);
    if (c->socket >= 0)
        close(c->socket);
    if (c->backend >= 0)
        close(c->backend);
    c->socket = c->backend = -1;
}

int vhost_get_config(struct vhost_connection *c, void *config, uint32_t size, struct error *err)
{
    struct vhost_message m = message(VHOST_GET_CONFIG, VHOST_CONFIG_HEADER + size);
    const struct vhost_message *reply = &c->reply.message;
    int ret;

    if (!(c->protocol & BIT(VHOST_PROTOCOL_CONFIG)))
        return error_set(err, EPROTO, "the back end does not tell its device's configuration");
    m.config.size = size;
    begin_call(c);
    ret = ask(c, &m, err);
    if (ret < 0)
        return ret;
    if (reply->size != m.size || reply->config.size != size || reply->config.offset != 0)
        return error_set(err, EPROTO, "the back end has no configuration of %u bytes", size);
    memcpy(config, reply->config.data, size);
    return 0;
}

/* ---- Serving ---- */

/* Adds a region to the table M. Back ends in Rust (vm-memory) want the table sorted by address. */
static void add_region(struct vhost_message *m, const struct vhost_region *region, int fd)
{
    uint32_t at = m->memory.count++;

    for (; at > 0 && m->memory.region[at - 1].gpa > region->gpa; at--) {
        m->memory.region[at] = m->memory.region[at - 1];
        m->fds[at] = m->fds[at - 1];
    }
    m->memory.region[at] = *region;
    m->fds[at] = fd;
}

/* Addresses in this process, as the protocol wants them to find rings by, are the guest physical
 * ones: the back end learns nothing of where anything really is. */
static int tell_memory(struct vhost_connection *c, const struct vhost_service *s, struct error *err)
{
    struct vhost_message m = message(VHOST_SET_MEM_TABLE, 0);
    struct vhost_region region = {.gpa = VHOST_RINGS_GPA,
                                  .size = (uint64_t)s->queues * VHOST_RING_BYTES,
                                  .user = VHOST_RINGS_GPA};

    m.memory.count = 0;
    add_region(&m, &region, s->rings);
    for (unsigned i = 0; i < s->part_count; i++) {
        const struct mem_export *p = &s->parts[i];

        region = (struct vhost_region){
            .gpa = p->gpa, .size = p->size, .user = p->gpa, .offset = p->offset};
        add_region(&m, &region, p->fd);
    }
    m.fd_count = m.memory.count;
    m.size = (uint32_t)(offsetof(struct vhost_memory, region) + m.fd_count * sizeof(region));
    return ask(c, &m, err);
}

static int tell_addresses(struct vhost_connection *c, uint32_t queue, struct error *err)
{
    struct vhost_message m = message(VHOST_SET_VRING_ADDR, sizeof(m.addresses));
    uint64_t base = VHOST_RINGS_GPA + (uint64_t)queue * VHOST_RING_BYTES;

    m.addresses = (struct vhost_addresses){.queue = queue,
                                           .descriptors = base + VHOST_RING_DESCRIPTORS,
                                           .available = base + VHOST_RING_AVAILABLE,
                                           .used = base + VHOST_RING_USED};
    return ask(c, &m, err);
}

static int start_queue(struct vhost_connection *c, const struct vhost_queue_files *files,
                       uint32_t queue, struct error *err)
{
    int ret = tell_state(c, VHOST_SET_VRING_NUM, queue, VHOST_RING_SIZE, err);

    if (ret == 0)
        ret = tell_state(c, VHOST_SET_VRING_BASE, queue, 0, err);
    if (ret == 0)
        ret = tell_addresses(c, queue, err);
    if (ret == 0)
        ret = tell_file(c, VHOST_SET_VRING_CALL, queue, files->call, err);
    if (ret == 0)
        ret = tell_file(c, VHOST_SET_VRING_KICK, queue, files->kick, err);
    return ret;
}

static int enable(struct vhost_connection *c, unsigned first, unsigned end, bool on,
                  struct error *err)
{
    int ret = 0;

    for (unsigned i = first; i < end && ret == 0; i++)
        ret = tell_state(c, VHOST_SET_VRING_ENABLE, i, on, err);
    return ret;
}

int vhost_start(struct vhost_connection *c, const struct vhost_service *s, struct error *err)
{
    uint64_t features = s->features | BIT(VHOST_F_PROTOCOL_FEATURES);
    int ret;

    begin_call(c);
    ret = tell_u64(c, VHOST_SET_FEATURES, features, err);
    if (ret == 0)
        ret = tell_memory(c, s, err);
    for (unsigned i = 0; i < s->queues && ret == 0; i++)
        ret = start_queue(c, &s->files[i], i, err);
    return ret < 0 ? ret : enable(c, 0, s->enabled, true, err);
}

int vhost_enable(struct vhost_connection *c, unsigned first, unsigned end, bool on,
                 struct error *err)
{
    begin_call(c);
    return enable(c, first, end, on, err);
}

int vhost_stop(struct vhost_connection *c, unsigned queues, struct error *err)
{
    int ret = 0;

    begin_call(c);
    for (unsigned i = 0; i < queues && ret == 0; i++)
        ret = tell_state(c, VHOST_GET_VRING_BASE, i, 0, err);
    return ret;
}

/* Takes requests of the back end's. At most a few at once, so that one that never stops sending
 * does not keep this thread. */
static int take_requests(struct vhost_connection *c, bool *config_changed)
{
    const struct vhost_message *m = &c->request.message;
    int ret = 0;

    for (unsigned i = 0; i < 16 && (ret = vhost_receive(&c->request, c->backend)) > 0; i++) {
        struct vhost_message reply = {
            .request = m->request, .flags = VHOST_VERSION | VHOST_REPLY, .size = sizeof(reply.u64)};

        if (vhost_check_backend(m))
            *config_changed = true;
        else
            reply.u64 = 1;
        if (m->flags & VHOST_NEED_REPLY)
            ret = vhost_send(c->backend, &reply, 0, -1);
        if (ret < 0)
            break;
    }
    return ret < 0 ? ret : 0;
}

int vhost_look(struct vhost_connection *c, bool *config_changed)
{
    int ret = vhost_receive(&c->reply, c->socket);

    /* A reply to no request of ours. */
    if (ret > 0)
        return -EPROTO;
    if (ret == 0 && c->backend >= 0)
        ret = take_requests(c, config_changed);
    return ret;
}

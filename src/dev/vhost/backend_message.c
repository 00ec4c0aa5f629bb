/*
 * What the back end does when the front end asks.
 */
#include "dev/vhost/backend_private.h"

#include "base/util.h"

#include <errno.h>
#include <unistd.h>

#define PROTOCOL_FEATURES                                                                          \
    (BIT(VHOST_PROTOCOL_MQ) | BIT(VHOST_PROTOCOL_REPLY_ACK) | BIT(VHOST_PROTOCOL_BACKEND_REQ) |    \
     BIT(VHOST_PROTOCOL_CONFIG) | BIT(VHOST_PROTOCOL_INFLIGHT) | BIT(VHOST_PROTOCOL_RESET_DEVICE))

/* What a driver does to the device's status on its way to features and then to work. */
#define STATUS_BEGIN  (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER)
#define STATUS_AGREED (STATUS_BEGIN | VIRTIO_FEATURES_OK)
#define STATUS_WORKS  (STATUS_AGREED | VIRTIO_DRIVER_OK)

/* ---- The device ---- */

static uint64_t features_offered(const struct vhost_backend *b)
{
    return virtio_features(b->device) | BIT(VHOST_F_PROTOCOL_FEATURES);
}

static bool any_live(const struct vhost_backend *b)
{
    for (unsigned i = 0; i < b->device->queues; i++)
        if (b->queue[i].live)
            return true;
    return false;
}

/* Resets the device and brings it as far as a driver does that has accepted FEATURES. */
static bool agree(struct vhost_backend *b, uint64_t features)
{
    struct virtio_device *d = b->device;
    bool agreed;

    backend_pause(b);
    bus_lock(b->bus);
    virtio_reset(d);
    virtio_set_bus_master(d, true);
    virtio_set_status(d, STATUS_BEGIN);
    virtio_set_features(d, features & ~BIT(VHOST_F_PROTOCOL_FEATURES));
    virtio_set_status(d, STATUS_AGREED);
    agreed = d->status & VIRTIO_FEATURES_OK;
    virtio_set_status(d, STATUS_WORKS);
    bus_unlock(b->bus);
    b->told_broken = false;
    return agreed;
}

static int set_features(struct vhost_backend *b, uint64_t features, struct error *err)
{
    if (features & ~features_offered(b))
        return error_set(err, EINVAL, "features %#llx were not offered",
                         (unsigned long long)(features & ~features_offered(b)));
    if (any_live(b) && features == b->features)
        return 0;
    if (any_live(b))
        return error_set(err, EBUSY, "features cannot change while queues are served");
    b->features = features;
    if (!agree(b, features))
        return error_set(err, EINVAL,
                         "features %#llx do not suffice: drivers before virtio 1.0 are not served",
                         (unsigned long long)features);
    /* Without protocol features a queue is enabled when it is started. */
    for (unsigned i = 0; i < b->device->queues; i++)
        b->queue[i].enabled = !(features & BIT(VHOST_F_PROTOCOL_FEATURES));
    return 0;
}

static int reset_device(struct vhost_backend *b)
{
    backend_reset(b);
    b->features = 0;
    return 0;
}

/* ---- Configuration ---- */

static void get_config(struct vhost_backend *b, const struct vhost_message *m,
                       struct vhost_message *reply)
{
    const struct vhost_config *config = &m->config;

    /* No payload at all says that there is no such configuration. */
    if (config->offset + config->size > b->device->ops->config_size)
        return;
    reply->config.offset = config->offset;
    reply->config.size = config->size;
    reply->size = VHOST_CONFIG_HEADER + config->size;
    bus_lock(b->bus);
    for (uint32_t i = 0; i < config->size; i++)
        reply->config.data[i] = (uint8_t)virtio_read_config(b->device, config->offset + i, 1);
    bus_unlock(b->bus);
}

static int set_config(struct vhost_backend *b, const struct vhost_config *config)
{
    bus_lock(b->bus);
    for (uint32_t i = 0; i < config->size; i++)
        virtio_write_config(b->device, config->offset + i, 1, config->data[i]);
    bus_unlock(b->bus);
    return 0;
}

/* ---- Queues ---- */

/* The queue that a message is about, or NULL. */
static struct backend_queue *queue(struct vhost_backend *b, uint64_t n, struct error *err)
{
    if (n < b->device->queues)
        return &b->queue[n];
    error_set(err, EINVAL, "there is no queue %u: the device has %u", (unsigned)n,
              b->device->queues);
    return NULL;
}

/* What may only change while the queue is stopped. */
static struct backend_queue *stopped_queue(struct vhost_backend *b, uint64_t n, struct error *err)
{
    struct backend_queue *q = queue(b, n, err);

    if (!q || !q->live)
        return q;
    error_set(err, EBUSY, "queue %u is being served", (unsigned)n);
    return NULL;
}

static int set_addresses(struct vhost_backend *b, const struct vhost_addresses *a,
                         struct error *err)
{
    struct backend_queue *q = stopped_queue(b, a->queue, err);

    if (!q)
        return -EINVAL;
    if (a->flags)
        return error_set(err, EINVAL, "this back end does not log what it writes");
    q->addresses = *a;
    q->addressed = true;
    return 0;
}

static int set_file(struct vhost_backend *b, struct vhost_message *m, struct error *err)
{
    struct backend_queue *q = queue(b, m->u64 & VHOST_QUEUE_MASK, err);
    int fd = m->fd_count ? vhost_take_fd(m, 0) : -1, ret;

    if (!q) {
        if (fd >= 0)
            close(fd);
        return -EINVAL;
    }
    switch (m->request) {
    case VHOST_SET_VRING_CALL: backend_queue_set_call(q, fd); return 0;
    case VHOST_SET_VRING_ERR:
        if (q->error >= 0)
            close(q->error);
        q->error = fd;
        return 0;
    default: break;
    }
    ret = backend_queue_set_kick(q, fd, err);
    if (ret < 0)
        return ret;
    q->started = true;
    return backend_queue_update(q, err);
}

static int set_enabled(struct vhost_backend *b, const struct vhost_state *state, struct error *err)
{
    struct backend_queue *q = queue(b, state->queue, err);

    if (!q)
        return -EINVAL;
    if (state->value > 1)
        return error_set(err, EINVAL, "queue %u can be enabled (1) or disabled (0)", q->index);
    q->enabled = state->value;
    return backend_queue_update(q, err);
}

static int set_size_or_base(struct vhost_backend *b, const struct vhost_message *m,
                            struct error *err)
{
    struct backend_queue *q = stopped_queue(b, m->state.queue, err);

    if (!q)
        return -EINVAL;
    if (m->request == VHOST_SET_VRING_NUM)
        q->size = m->state.value;
    else
        q->base = (uint16_t)m->state.value;
    return 0;
}

static int get_base(struct vhost_backend *b, const struct vhost_state *state,
                    struct vhost_message *reply, struct error *err)
{
    struct backend_queue *q = queue(b, state->queue, err);
    uint16_t base = 0;
    int ret = q ? backend_queue_stop(q, &base, err) : -EINVAL;

    reply->state = (struct vhost_state){.queue = state->queue, .value = base};
    return ret;
}

/* ---- Memory ---- */

static int set_memory(struct vhost_backend *b, struct vhost_message *m, struct error *err)
{
    int ret;

    backend_pause(b);
    ret = backend_set_memory(b, m, err);
    for (unsigned i = 0; i < b->device->queues && ret == 0; i++)
        if (b->queue[i].live)
            ret = backend_queue_find(&b->queue[i], err);
    return ret;
}

static int get_inflight(struct vhost_backend *b, const struct vhost_message *m,
                        struct vhost_message *reply, struct error *err)
{
    int ret;

    if (any_live(b))
        return error_set(err, EBUSY, "the record of requests in flight is in use");
    reply->inflight = m->inflight;
    ret = backend_make_inflight(b, &reply->inflight, &reply->fds[0], err);
    reply->fd_count = ret == 0;
    return ret;
}

static int set_inflight(struct vhost_backend *b, const struct vhost_message *m, struct error *err)
{
    if (any_live(b))
        return error_set(err, EBUSY, "the record of requests in flight is in use");
    return backend_set_inflight(b, &m->inflight, m->fds[0], err);
}

/* ---- All messages ---- */

static int set_requests(struct vhost_backend *b, struct vhost_message *m)
{
    if (b->requests >= 0)
        close(b->requests);
    b->requests = vhost_take_fd(m, 0);
    return 0;
}

/* Those that have a reply of their own. */
static int get(struct vhost_backend *b, struct vhost_message *m, struct vhost_message *reply,
               struct error *err)
{
    reply->size = sizeof(reply->u64);
    switch (m->request) {
    case VHOST_GET_FEATURES: reply->u64 = features_offered(b); break;
    case VHOST_GET_PROTOCOL_FEATURES: reply->u64 = PROTOCOL_FEATURES; break;
    case VHOST_GET_QUEUE_NUM:
        reply->u64 = b->device->queues / MAX(b->device->ops->queues_each, 1u);
        break;
    case VHOST_GET_VRING_BASE: return get_base(b, &m->state, reply, err);
    case VHOST_GET_CONFIG:
        reply->size = 0;
        get_config(b, m, reply);
        break;
    case VHOST_GET_INFLIGHT_FD:
        reply->size = sizeof(reply->inflight);
        return get_inflight(b, m, reply, err);
    default: return -EINVAL;
    }
    return 0;
}

static int set(struct vhost_backend *b, struct vhost_message *m, struct error *err)
{
    switch (m->request) {
    case VHOST_SET_OWNER: return 0;
    case VHOST_RESET_OWNER: return 0; /* the protocol recommends to ignore it */
    case VHOST_SET_FEATURES: return set_features(b, m->u64, err);
    case VHOST_SET_PROTOCOL_FEATURES:
        b->protocol = m->u64 & PROTOCOL_FEATURES;
        return m->u64 == b->protocol ? 0
                                     : error_set(err, EINVAL, "protocol features were not offered");
    case VHOST_SET_MEM_TABLE: return set_memory(b, m, err);
    case VHOST_SET_VRING_NUM:
    case VHOST_SET_VRING_BASE: return set_size_or_base(b, m, err);
    case VHOST_SET_VRING_ADDR: return set_addresses(b, &m->addresses, err);
    case VHOST_SET_VRING_KICK:
    case VHOST_SET_VRING_CALL:
    case VHOST_SET_VRING_ERR: return set_file(b, m, err);
    case VHOST_SET_VRING_ENABLE: return set_enabled(b, &m->state, err);
    case VHOST_SET_BACKEND_REQ_FD: return set_requests(b, m);
    case VHOST_SET_CONFIG: return set_config(b, &m->config);
    case VHOST_SET_INFLIGHT_FD: return set_inflight(b, m, err);
    case VHOST_RESET_DEVICE: return reset_device(b);
    default: return error_set(err, EINVAL, "request %u is not known", m->request);
    }
}

int backend_handle(struct vhost_backend *b, struct vhost_message *m, struct vhost_message *reply,
                   bool *replies, struct error *err)
{
    int ret;

    *replies = vhost_has_reply((enum vhost_request)m->request);
    if (*replies)
        return get(b, m, reply, err);
    ret = set(b, m, err);
    reply->size = sizeof(reply->u64);
    reply->u64 = ret < 0;
    *replies = (m->flags & VHOST_NEED_REPLY) && (b->protocol & BIT(VHOST_PROTOCOL_REPLY_ACK));
    return ret;
}

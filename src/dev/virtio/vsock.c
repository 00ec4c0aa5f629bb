/*
 * The virtio socket device (Virtual I/O Device specification 1.2, 5.10).
 */
#include "dev/virtio/vsock_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define F_STREAM 0

/* Device configuration (5.10.4). */
struct config {
    uint64_t guest_cid;
};

#define EVENT_TRANSPORT_RESET 0u /* (5.10.6.7) */

static struct vsock *vsock_of(struct virtio_device *d)
{
    return container_of(d, struct vsock, device);
}

/* ---- Queues ---- */

static enum virtio_result receive(struct vsock *v, struct virtio_request *r)
{
    uint64_t room = r->chain.writable_bytes;
    struct vsock_header *h = &v->packet->header;
    uint32_t size;

    /* Without room for a byte of data, a connection that has some would be looked at for ever. */
    if (room <= sizeof(*h))
        return VIRTIO_BROKEN;
    room = MIN(room - sizeof(*h), VSOCK_PAYLOAD);
    if (!vsock_next(v, h, v->packet->payload, (uint32_t)room))
        return VIRTIO_WAIT;
    size = (uint32_t)sizeof(*h) + h->len;
    if (virtio_write_at(r, 0, v->packet, size) < 0)
        return VIRTIO_BROKEN;
    virtio_complete(r, size);
    return VIRTIO_TAKEN;
}

static enum virtio_result send(struct vsock *v, struct virtio_request *r)
{
    struct vsock_header h;

    if (virtio_read_at(r, 0, &h, sizeof(h)) < 0 || h.len > r->chain.readable_bytes - sizeof(h))
        return VIRTIO_BROKEN;
    /* A packet with more breaks the rules of credit, whatever its bytes are. */
    if (h.op == VSOCK_OP_RW && h.len <= VSOCK_WIDE_WINDOW &&
        virtio_read_at(r, sizeof(h), v->payload, h.len) < 0)
        return VIRTIO_BROKEN;
    if (!vsock_take(v, &h, v->payload))
        return VIRTIO_WAIT;
    virtio_complete(r, 0);
    return VIRTIO_TAKEN;
}

/* The guest's driver ends all connections when it hears of a reset of the transport. New ones are
 * made only when it has been told. */
static enum virtio_result tell_event(struct vsock *v, struct virtio_request *r)
{
    const uint32_t event = EVENT_TRANSPORT_RESET;
    bool any;

    if (r->chain.writable_bytes < sizeof(event))
        return VIRTIO_BROKEN;
    pthread_mutex_lock(&v->lock);
    any = v->transport_reset;
    v->transport_reset = false;
    pthread_mutex_unlock(&v->lock);
    if (!any)
        return VIRTIO_WAIT;
    if (virtio_write_at(r, 0, &event, sizeof(event)) < 0)
        return VIRTIO_BROKEN;
    virtio_complete(r, sizeof(event));
    virtio_wake(&v->device, VSOCK_RECEIVE);
    return VIRTIO_TAKEN;
}

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct vsock *v = vsock_of(d);

    switch (r->queue->index) {
    case VSOCK_RECEIVE: return receive(v, r);
    case VSOCK_SEND: return send(v, r);
    default: return tell_event(v, r);
    }
}

/* ---- The device ---- */

static void read_config(struct virtio_device *d, void *image)
{
    const struct config config = {.guest_cid = vsock_of(d)->cid};

    memcpy(image, &config, sizeof(config));
}

/* Clients of which the guest does not know wait for the next driver. */
static void reset(struct virtio_device *d)
{
    struct vsock *v = vsock_of(d);

    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < v->slots; i++)
        if (vsock_is_known(&v->connection[i]))
            vsock_remove(v, &v->connection[i]);
    v->refusals = 0;
    v->transport_reset = false;
    pthread_mutex_unlock(&v->lock);
}

/* Connections stay here, with the host's programs: who goes on from the state tells the guest that
 * they are over, and refuses those that the guest has asked for and heard nothing of. */
static void state_lost(struct vsock *v, struct state *s)
{
    struct vsock_refusal lost[VSOCK_REFUSALS] = {0};
    bool transport_reset = v->transport_reset;
    uint16_t count = 0;

    for (unsigned i = 0; i < v->refusals; i++)
        lost[count++] = v->refusal[(v->first_refusal + i) % VSOCK_REFUSALS];
    for (unsigned i = 0; i < v->slots; i++) {
        const struct vsock_connection *c = &v->connection[i];

        transport_reset |= vsock_is_known(c);
        if (c->tell & VSOCK_TELL_RESPONSE && count < VSOCK_REFUSALS)
            lost[count++] = (struct vsock_refusal){.cid = VSOCK_HOST_CID,
                                                   .guest_port = c->guest_port,
                                                   .host_port = c->host_port,
                                                   .type = VSOCK_TYPE_STREAM};
    }
    state_bool(s, &transport_reset);
    state_field(s, count);
    if (count > VSOCK_REFUSALS)
        state_fail(s, "%u packets of at most %u", count, VSOCK_REFUSALS);
    for (unsigned i = 0; i < count && !state_error(s); i++) {
        state_field(s, lost[i].cid);
        state_field(s, lost[i].guest_port);
        state_field(s, lost[i].host_port);
        state_field(s, lost[i].type);
    }
    if (state_saving(s) || state_error(s))
        return;
    v->transport_reset = transport_reset;
    v->first_refusal = 0;
    v->refusals = count;
    memcpy(v->refusal, lost, sizeof(lost));
}

static void state(struct virtio_device *d, struct state *s)
{
    struct vsock *v = vsock_of(d);

    if (!state_saving(s))
        reset(d);
    pthread_mutex_lock(&v->lock);
    state_lost(v, s);
    pthread_mutex_unlock(&v->lock);
}

static void close_host(struct virtio_device *d)
{
    vsock_host_close(vsock_of(d));
}

static void free_vsock(struct virtio_device *d)
{
    struct vsock *v = vsock_of(d);

    pthread_mutex_destroy(&v->lock);
    free(v->payload);
    free(v->packet);
    free(v);
}

static const struct virtio_ops ops = {
    .name = "virtio-vsock",
    .id = 19,
    .features = 1 << F_STREAM,
    .queues = VSOCK_QUEUES,
    .queue_size = 256,
    .config_size = sizeof(struct config),
    .serve = serve,
    .read_config = read_config,
    .reset = reset,
    .state = state,
    .close = close_host,
    .free = free_vsock,
};

static struct vsock *make(uint32_t cid)
{
    struct vsock *v = calloc(1, sizeof(*v));

    if (!v)
        return NULL;
    v->cid = cid;
    v->listener = v->epoll = v->spare = -1;
    pthread_mutex_init(&v->lock, NULL);
    vsock_table_init(v);
    v->payload = malloc(VSOCK_WIDE_WINDOW);
    v->packet = malloc(sizeof(*v->packet));
    if (v->payload && v->packet)
        return v;
    free_vsock(&v->device);
    return NULL;
}

struct dev *virtio_vsock_create(const struct virtio_slot *slot,
                                const struct virtio_vsock_config *config, struct error *err)
{
    struct vsock *v = make(config->cid);
    struct dev *dev = NULL;

    if (!v) {
        error_set(err, ENOMEM, "no memory for a device (%s)", ops.name);
        return NULL;
    }
    if (vsock_host_open(v, config->path, slot->loop, config->log, err) == 0)
        dev = virtio_pci_create(slot, &ops, &v->device, err);
    if (dev) {
        vsock_host_begin(v);
    } else {
        vsock_host_close(v);
        free_vsock(&v->device);
    }
    return dev;
}

/*
 * The network device (virtio 1.2, 5.1): what it offers, what the driver reads of its configuration,
 * and its state. net_private.h says which file has the rest.
 */
#include "dev/virtio/net_private.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Device configuration (5.1.4), up to the last feature that is offered. */
struct configuration {
    uint8_t mac[6];
    uint16_t status, pairs, mtu;
};
enum { STATUS_UP = 1, STATUS_ANNOUNCE = 2 };

static struct virtio_net *card_of(struct virtio_device *d)
{
    return container_of(d, struct virtio_net, device);
}

/* On the loop's thread. */
static void tell(void *opaque)
{
    struct virtio_net *n = opaque;

    bus_lock(n->device.host.bus);
    if (atomic_exchange(&n->moved, false) && virtio_accepted(&n->device, CARD_F_GUEST_ANNOUNCE)) {
        pthread_mutex_lock(&n->lock);
        n->announce = true;
        pthread_mutex_unlock(&n->lock);
    }
    virtio_config_changed(&n->device);
    bus_unlock(n->device.host.bus);
}

/* ---- Requests ---- */

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct virtio_net *n = card_of(d);
    unsigned queue = r->queue->index;
    unsigned control = 2 * (virtio_accepted(d, CARD_F_MQ) ? n->pairs : 1);

    if (atomic_load_explicit(&n->moved, memory_order_relaxed))
        loop_post(d->host.loop, &n->tell);
    if (queue >= control)
        return queue == control && virtio_accepted(d, CARD_F_CTRL_VQ) ? card_control(n, r)
                                                                      : VIRTIO_BROKEN;
    return queue % 2 ? card_send(n, r) : card_receive(n, r);
}

static void served(struct virtio_device *d, unsigned queue)
{
    struct virtio_net *n = card_of(d);

    if (queue % 2 == 0)
        return;
    pthread_mutex_lock(&n->sending);
    net_flush(n->net);
    pthread_mutex_unlock(&n->sending);
}

/* ---- Registers: board lock held ---- */

static void read_config(struct virtio_device *d, void *config)
{
    struct virtio_net *n = card_of(d);
    struct configuration c = {.pairs = (uint16_t)n->pairs, .mtu = n->mtu};

    memcpy(c.mac, n->mac, sizeof(c.mac));
    pthread_mutex_lock(&n->lock);
    c.status =
        (uint16_t)((atomic_load(&n->up) ? STATUS_UP : 0) | (n->announce ? STATUS_ANNOUNCE : 0));
    pthread_mutex_unlock(&n->lock);
    memcpy(config, &c, sizeof(c));
}

static void set_offloads(struct virtio_net *n, uint64_t features)
{
    pthread_mutex_lock(&n->lock);
    n->offloads = features & CARD_OFFLOADS;
    n->filter.by_vlan = features & CARD_BIT(CARD_F_CTRL_VLAN);
    pthread_mutex_unlock(&n->lock);
    card_offloads_changed(n);
}

static void accepted(struct virtio_device *d, uint64_t features)
{
    set_offloads(card_of(d), features);
}

static void reset(struct virtio_device *d)
{
    struct virtio_net *n = card_of(d);

    atomic_store(&n->active, 1);
    atomic_store(&n->turn, 0);
    atomic_store(&n->waiting, 0);
    n->refused = n->pairs;
    atomic_store(&n->moved, false);
    for (unsigned i = 0; i < CARD_FLOWS; i++)
        atomic_store_explicit(&n->flow[i], 0, memory_order_relaxed);
    pthread_mutex_lock(&n->lock);
    n->announce = false;
    card_filter_reset(&n->filter, n->mac);
    pthread_mutex_unlock(&n->lock);
    set_offloads(n, 0);
}

static void uses(struct virtio_device *d, unsigned queues)
{
    struct virtio_net *n = card_of(d);

    card_use(n, MAX(MIN(queues / 2, n->pairs), 1u));
}

/* ---- State ---- */

/* What a driver has been told of the card must be true of the one that takes its place. */
static void state_of_card(struct virtio_net *n, struct state *s)
{
    uint64_t features = n->device.features;
    uint32_t pairs = n->pairs;
    uint16_t mtu = n->mtu;

    state_field(s, features);
    state_field(s, pairs);
    state_field(s, mtu);
    state_field(s, n->mac);
    if (features != n->device.features || pairs != n->pairs || mtu != n->mtu)
        state_fail(s,
                   "the network card had an MTU of %u and %u queues when the machine was saved, "
                   "and has %u and %u",
                   mtu, pairs, n->mtu, n->pairs);
}

static void state(struct virtio_device *d, struct state *s)
{
    struct virtio_net *n = card_of(d);
    uint32_t active = atomic_load(&n->active);
    uint64_t offered = d->driver_features;

    state_of_card(n, s);
    state_field(s, active);
    if (!active || active > n->pairs)
        active = 1;
    atomic_store(&n->active, active);
    pthread_mutex_lock(&n->lock);
    state_field(s, n->offloads);
    n->offloads &= offered;
    state_bool(s, &n->announce);
    card_filter_state(&n->filter, s);
    pthread_mutex_unlock(&n->lock);
    if (state_saving(s))
        return;
    atomic_store(&n->moved, true);
    card_offloads_changed(n);
}

/* ---- The device ---- */

static void close_network(struct virtio_device *d)
{
    struct virtio_net *n = card_of(d);

    net_close(n->net);
    n->net = NULL;
    loop_cancel(d->host.loop, &n->tell);
}

static void free_card(struct virtio_device *d)
{
    struct virtio_net *n = card_of(d);

    if (n->net)
        net_close(n->net);
    pthread_mutex_destroy(&n->lock);
    pthread_mutex_destroy(&n->sending);
    pthread_mutex_destroy(&n->receiving);
    free(n->in);
    free(n->out);
    free(n);
}

static const struct virtio_ops ops = {
    .name = "virtio-net",
    .keeps_buffers = true,
    .queues_each = 2,
    .id = 1,
    .features =
        CARD_BIT(CARD_F_CSUM) | CARD_BIT(CARD_F_GUEST_CSUM) | CARD_BIT(CARD_F_CTRL_GUEST_OFFLOADS) |
        CARD_BIT(CARD_F_MAC) | CARD_BIT(CARD_F_GUEST_TSO4) | CARD_BIT(CARD_F_GUEST_TSO6) |
        CARD_BIT(CARD_F_HOST_TSO4) | CARD_BIT(CARD_F_HOST_TSO6) | CARD_BIT(CARD_F_MRG_RXBUF) |
        CARD_BIT(CARD_F_STATUS) | CARD_BIT(CARD_F_CTRL_VQ) | CARD_BIT(CARD_F_CTRL_RX) |
        CARD_BIT(CARD_F_CTRL_VLAN) | CARD_BIT(CARD_F_CTRL_RX_EXTRA) |
        CARD_BIT(CARD_F_GUEST_ANNOUNCE) | CARD_BIT(CARD_F_CTRL_MAC_ADDR),
    .queues = 2 * VIRTIO_NET_PAIRS_MAX + 1,
    .queue_size = CARD_QUEUE,
    .config_size = sizeof(struct configuration),
    .serve = serve,
    .served = served,
    .read_config = read_config,
    .accepted = accepted,
    .reset = reset,
    .state = state,
    .uses = uses,
    .close = close_network,
    .free = free_card,
};

static struct virtio_net *make(const struct virtio_net_config *config)
{
    const struct net_info info = net_info(config->net);
    struct virtio_net *n = calloc(1, sizeof(*n));

    if (!n)
        return NULL;
    n->net = config->net;
    n->pairs = config->pairs;
    n->mtu = (uint16_t)info.mtu;
    n->device.queues = 2 * config->pairs + 1;
    n->device.features =
        (info.mtu ? CARD_BIT(CARD_F_MTU) : 0) | (config->pairs > 1 ? CARD_BIT(CARD_F_MQ) : 0);
    n->tell = (struct loop_job){.run = tell, .opaque = n};
    memcpy(n->mac, config->mac, sizeof(n->mac));
    pthread_mutex_init(&n->lock, NULL);
    pthread_mutex_init(&n->sending, NULL);
    pthread_mutex_init(&n->receiving, NULL);
    n->in = calloc(1, CARD_HEADER + NET_FRAME_MOST);
    n->out = calloc(1, CARD_HEADER + NET_FRAME_MOST);
    if (n->in && n->out)
        return n;
    n->net = NULL; /* it stays the caller's */
    free_card(&n->device);
    return NULL;
}

struct virtio_net *virtio_net_create(const struct virtio_slot *slot,
                                     const struct virtio_net_config *config, struct error *err)
{
    struct virtio_net *n = make(config);

    if (!n) {
        error_set(err, ENOMEM, "no memory for a network card");
        net_close(config->net);
        return NULL;
    }
    n->dev = virtio_pci_create(slot, &ops, &n->device, err);
    if (n->dev) {
        atomic_store(&n->up, net_up(n->net));
        return n;
    }
    free_card(&n->device);
    return NULL;
}

struct dev *virtio_net_dev(struct virtio_net *n)
{
    return n->dev;
}

struct net *virtio_net_backend(struct virtio_net *n)
{
    return n->net;
}

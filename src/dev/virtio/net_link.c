/*
 * Between the network device and the network behind it: what each hears of the other, but for
 * frames. Any thread.
 */
#include "dev/virtio/net_private.h"

#include "base/util.h"

/* What a frame to the guest may need of it, as a feature and as the network calls it. */
static const struct {
    enum card_feature feature;
    unsigned offload;
} offloads[] = {
    {CARD_F_GUEST_CSUM, NET_CHECKSUM},
    {CARD_F_GUEST_TSO4, NET_TSO4},
    {CARD_F_GUEST_TSO6, NET_TSO6},
};

void card_wake_senders(struct virtio_net *n)
{
    uint32_t waiting = atomic_exchange(&n->waiting, 0);

    for (unsigned i = 0; i < n->pairs; i++)
        if (waiting >> i & 1)
            virtio_wake(&n->device, 2 * i + 1);
}

static void ready(void *opaque)
{
    struct virtio_net *n = opaque;

    virtio_wake(&n->device, 2 * atomic_load(&n->turn));
    card_wake_senders(n);
}

static void link_changed(void *opaque, bool up)
{
    struct virtio_net *n = opaque;

    if (atomic_exchange(&n->up, up) != up)
        loop_post(n->device.host.loop, &n->tell);
}

void card_offloads_changed(struct virtio_net *n)
{
    const struct net_events events = {.ready = ready, .link = link_changed, .opaque = n};
    unsigned accepts = 0;
    uint64_t features;

    pthread_mutex_lock(&n->lock);
    features = n->offloads;
    pthread_mutex_unlock(&n->lock);
    for (unsigned i = 0; i < ARRAY_SIZE(offloads); i++)
        accepts |= features & CARD_BIT(offloads[i].feature) ? offloads[i].offload : 0;
    net_begin(n->net, &events, accepts);
}

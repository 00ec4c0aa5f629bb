/*
 * The virtio network device whose network a back end of vhost-user serves (virtio 1.2, 5.1).
 */
#include "dev/vhost/net.h"

#include <string.h>

#define BIT(N) (UINT64_C(1) << (N))

/* Features of network devices (5.1.3) that the back end may have: CSUM, GUEST_CSUM, GUEST_TSO4,
 * GUEST_TSO6, GUEST_ECN, GUEST_UFO, HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_UFO, MRG_RXBUF, MQ. */
#define FEATURES                                                                                   \
    (BIT(0) | BIT(1) | BIT(7) | BIT(8) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(13) |          \
     BIT(14) | BIT(15) | BIT(F_MQ))
#define F_MQ 22
/* Those of the configuration and of the control queue, which are this device's own. */
#define F_MTU     3
#define F_MAC     5
#define F_STATUS  16
#define F_CTRL_VQ 17

#define LINK_UP 1u
#define PAIR    2u /* queues: what the guest receives, what it sends */

/* The device configuration (5.1.4). */
struct config {
    uint8_t mac[6];
    uint16_t status, pairs, mtu;
};

static void set_link(uint8_t *image, bool up)
{
    struct config config;

    memcpy(&config, image, sizeof(config));
    config.status = up ? LINK_UP : 0;
    memcpy(image, &config, sizeof(config));
}

/* ---- The control queue (5.1.6.5) ---- */

/* The one command that there is, with its class in the upper byte: how many pairs the driver uses.
 */
#define PAIRS_SET 0x400u
enum { OK = 0, ERROR = 1 };

static bool obey(struct virtio_device *device, struct virtio_request *r)
{
    struct {
        uint8_t class, command;
        uint16_t pairs;
    } said;

    if (!virtio_accepted(device, F_MQ) || r->chain.readable_bytes != sizeof(said) ||
        virtio_read_at(r, 0, &said, sizeof(said)) < 0 ||
        ((unsigned)said.class << 8 | said.command) != PAIRS_SET || !said.pairs ||
        said.pairs > (device->queues - 1) / PAIR)
        return false;
    vhost_device_use(device, said.pairs * PAIR);
    return true;
}

static enum virtio_result control(struct virtio_device *device, struct virtio_request *r)
{
    uint8_t answer;

    if (!r->chain.writable_bytes)
        return VIRTIO_BROKEN;
    answer = obey(device, r) ? OK : ERROR;
    if (virtio_write_at(r, 0, &answer, sizeof(answer)) < 0)
        return VIRTIO_BROKEN;
    virtio_complete(r, sizeof(answer));
    return VIRTIO_TAKEN;
}

/* ---- The device ---- */

static const struct vhost_kind kind = {
    .name = "vhost-user-net",
    .thing = "network",
    .id = 1,
    .features = FEATURES,
    .several = BIT(F_MQ),
    .config_size = sizeof(struct config),
    .keeps_buffers = true,
    .queues_default = PAIR,
    .queues_each = PAIR,
    .set_link = set_link,
    .serve_own = control,
};

struct dev *vhost_net_create(const struct virtio_slot *slot, const struct vhost_net_config *net,
                             struct error *err)
{
    unsigned pairs = net->pairs ? net->pairs : 1;
    struct config image = {.status = LINK_UP, .pairs = (uint16_t)pairs, .mtu = (uint16_t)net->mtu};
    struct vhost_device_config config = {.kind = &kind,
                                         .path = net->path,
                                         .queues = pairs * PAIR,
                                         .own_features = BIT(F_MAC) | BIT(F_STATUS),
                                         .own_queue = pairs > 1,
                                         .config = &image,
                                         .log = net->log};

    config.own_features |= (net->mtu ? BIT(F_MTU) : 0) | (pairs > 1 ? BIT(F_CTRL_VQ) : 0);
    memcpy(image.mac, net->mac, sizeof(image.mac));
    return vhost_device_create(slot, &config, err);
}

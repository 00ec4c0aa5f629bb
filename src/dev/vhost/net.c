/*
 * The virtio network device whose network a back end of vhost-user serves (virtio 1.2, 5.1).
 */
#include "dev/vhost/net.h"

#include <string.h>

#define BIT(N) (UINT64_C(1) << (N))

/* Features of network devices (5.1.3) that the back end may have: CSUM, GUEST_CSUM, GUEST_TSO4,
 * GUEST_TSO6, GUEST_ECN, GUEST_UFO, HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_UFO, MRG_RXBUF. */
#define FEATURES                                                                                   \
    (BIT(0) | BIT(1) | BIT(7) | BIT(8) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(13) |          \
     BIT(14) | BIT(15))
/* Those of the configuration, which is this device's own. */
#define F_MTU    3
#define F_MAC    5
#define F_STATUS 16

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

#define KIND(OWN)                                                                                  \
    {                                                                                              \
        .name = "vhost-user-net",                                                                  \
        .thing = "network",                                                                        \
        .id = 1,                                                                                   \
        .features = FEATURES,                                                                      \
        .own_features = (OWN),                                                                     \
        .config_size = sizeof(struct config),                                                      \
        .keeps_buffers = true,                                                                     \
        .queues_default = PAIR,                                                                    \
        .queues_each = PAIR,                                                                       \
        .set_link = set_link,                                                                      \
    }

static const struct vhost_kind kind = KIND(BIT(F_MAC) | BIT(F_STATUS));
static const struct vhost_kind kind_with_mtu = KIND(BIT(F_MAC) | BIT(F_STATUS) | BIT(F_MTU));

struct dev *vhost_net_create(const struct virtio_slot *slot, const char *path, const uint8_t mac[6],
                             unsigned mtu, const struct log *log, struct error *err)
{
    struct config image = {.status = LINK_UP, .pairs = 1, .mtu = (uint16_t)mtu};
    const struct vhost_device_config config = {.kind = mtu ? &kind_with_mtu : &kind,
                                               .path = path,
                                               .queues = PAIR,
                                               .config = &image,
                                               .log = log};

    memcpy(image.mac, mac, sizeof(image.mac));
    return vhost_device_create(slot, &config, err);
}

/*
 * The virtio block device whose disk a back end of vhost-user serves (virtio 1.2, 5.2).
 */
#include "dev/vhost/block.h"

#include "base/util.h"

#include <string.h>

#define BIT(N) (UINT64_C(1) << (N))

/* Features of block devices (5.2.3): SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY,
 * MQ, DISCARD, WRITE_ZEROES. */
#define F_MQ 12
#define FEATURES                                                                                   \
    (BIT(1) | BIT(2) | BIT(4) | BIT(5) | BIT(6) | BIT(9) | BIT(10) | BIT(F_MQ) | BIT(13) | BIT(14))

#define QUEUES_DEFAULT 16u

/* The device configuration (5.2.4): capacity first. */
#define CONFIG_SIZE    60u
#define CONFIG_SEG_MAX 12u
#define CONFIG_QUEUES  34u
#define CHAIN_OVERHEAD 2u /* descriptors of a request beside its segments */

/* What the guest sees has the queues that the device has, and no request that does not fit into
 * one. */
static void adapt_config(uint8_t *config, unsigned count)
{
    uint16_t queues = (uint16_t)count;
    uint32_t segments;

    memcpy(&segments, config + CONFIG_SEG_MAX, sizeof(segments));
    segments = MIN(segments, VHOST_RING_SIZE - CHAIN_OVERHEAD);
    memcpy(config + CONFIG_SEG_MAX, &segments, sizeof(segments));
    memcpy(config + CONFIG_QUEUES, &queues, sizeof(queues));
}

static const struct vhost_kind kind = {
    .name = "vhost-user-blk",
    .thing = "disk",
    .id = 2,
    .features = FEATURES,
    .several = BIT(F_MQ),
    .config_size = CONFIG_SIZE,
    .fetches_config = true,
    .queues_default = QUEUES_DEFAULT,
    .queues_each = 1,
    .adapt_config = adapt_config,
};

struct dev *vhost_block_create(const struct virtio_slot *slot, const char *path, unsigned queues,
                               const struct log *log, struct error *err)
{
    const struct vhost_device_config config = {
        .kind = &kind, .path = path, .queues = queues, .log = log};

    return vhost_device_create(slot, &config, err);
}

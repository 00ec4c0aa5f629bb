/*
 * The block device (virtio 1.2, 5.2): what it offers and what the driver reads and writes of its
 * configuration. block_request.c has its requests.
 */
#include "dev/virtio/block_private.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OPTIMAL_MOST 65535u /* blocks */

/* Device configuration (5.2.4), of all features up to write-zeroes. */
struct configuration {
    uint64_t capacity; /* in sectors of 512 bytes */
    uint32_t size_max;
    uint32_t seg_max;
    struct {
        uint16_t cylinders;
        uint8_t heads, sectors;
    } geometry;
    uint32_t blk_size;
    struct {
        uint8_t physical_block_exp, alignment_offset;
        uint16_t min_io_size; /* in blocks of blk_size, as the next one */
        uint32_t opt_io_size;
    } topology;
    uint8_t writeback, unused;
    uint16_t num_queues;
    uint32_t max_discard_sectors;
    uint32_t max_discard_seg;
    uint32_t discard_sector_alignment;
    uint32_t max_write_zeroes_sectors;
    uint32_t max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap;
    uint8_t unused_end[3];
};
#define CONFIG_SIZE 60u
_Static_assert(offsetof(struct configuration, unused_end) + 3 == CONFIG_SIZE, "nothing is missing");

static struct virtio_block *block_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_block, device);
}

/* By what power of two a block is smaller than what the host writes at once, 4 KiB at most. */
static uint8_t physical_exponent(const struct blk_info *info)
{
    uint8_t exponent = 0;

    while ((uint64_t)info->block << exponent < MIN(info->optimal, 4096u))
        exponent++;
    return exponent;
}

static void read_config(struct virtio_device *device, void *config)
{
    const struct virtio_block *b = block_of(device);
    const struct blk_info *info = &b->info;
    const struct configuration c = {
        .capacity = atomic_load(&b->size) / BLOCK_SECTOR,
        .seg_max = BLOCK_QUEUE - 2, /* header and status come to it */
        .blk_size = info->block,
        .topology = {.physical_block_exp = physical_exponent(info),
                     .min_io_size = (uint16_t)MIN(info->optimal / info->block, OPTIMAL_MOST)},
        .writeback = b->driver_caches,
        .num_queues = (uint16_t)b->config.queues,
        .max_discard_sectors = BLOCK_RANGE_MOST,
        .max_discard_seg = BLOCK_RANGES,
        .discard_sector_alignment = MAX(info->optimal, info->block) / BLOCK_SECTOR,
        .max_write_zeroes_sectors = BLOCK_RANGE_MOST,
        .max_write_zeroes_seg = BLOCK_ZEROES_RANGES,
        .write_zeroes_may_unmap = b->config.discard && info->discards,
    };

    memcpy(config, &c, CONFIG_SIZE);
}

/* A driver that cannot flush is told of a write when it is on stable storage (5.2.6.2). */
static void decide_caching(struct virtio_block *b)
{
    bool caches = virtio_accepted(&b->device, BLOCK_F_CONFIG_WCE)
                      ? b->driver_caches
                      : virtio_accepted(&b->device, BLOCK_F_FLUSH);

    atomic_store(&b->write_through, !caches);
}

static void write_config(struct virtio_device *device, const void *config, unsigned offset,
                         unsigned size)
{
    const unsigned at = offsetof(struct configuration, writeback);
    struct virtio_block *b = block_of(device);

    if (offset > at || at - offset >= size || !virtio_accepted(device, BLOCK_F_CONFIG_WCE))
        return;
    b->driver_caches = ((const uint8_t *)config)[at] & 1;
    decide_caching(b);
}

static void accepted(struct virtio_device *device, uint64_t features)
{
    decide_caching(block_of(device));
}

static void reset(struct virtio_device *device)
{
    struct virtio_block *b = block_of(device);

    b->driver_caches = true;
    decide_caching(b);
}

/* What a driver has been told of the disk must be true of the one that takes its place. */
static void state(struct virtio_device *device, struct state *s)
{
    struct virtio_block *b = block_of(device);
    uint64_t size = atomic_load(&b->size), features = device->features;
    uint32_t block = b->info.block, queues = b->config.queues;

    state_field(s, size);
    state_field(s, features);
    state_field(s, block);
    state_field(s, queues);
    state_bool(s, &b->driver_caches);
    if (state_saving(s))
        return;
    if (size != atomic_load(&b->size))
        state_fail(s, "disk %s has %llu bytes, and had %llu when the machine was saved",
                   b->info.file, (unsigned long long)atomic_load(&b->size),
                   (unsigned long long)size);
    else if (features != device->features || block != b->info.block || queues != b->config.queues)
        state_fail(s,
                   "disk %s is not as it was when the machine was saved: readonly, discard, queues "
                   "and the size of its blocks must be the same",
                   b->info.file);
    decide_caching(b);
}

/* A try that is under way may wake queues, which the frame frees next. */
static void close_block(struct virtio_device *device)
{
    workers_remove(&block_of(device)->retry);
}

static void free_block(struct virtio_device *device)
{
    struct virtio_block *b = block_of(device);

    block_space_free(&b->space);
    pthread_mutex_destroy(&b->resizing);
    blk_close(b->config.blk);
    free(b);
}

#define BIT(n) (UINT64_C(1) << (n))

static const struct virtio_ops ops = {
    .name = "virtio-block",
    .id = 2,
    .features = BIT(BLOCK_F_SEG_MAX) | BIT(BLOCK_F_BLK_SIZE) | BIT(BLOCK_F_FLUSH) |
                BIT(BLOCK_F_TOPOLOGY) | BIT(BLOCK_F_CONFIG_WCE) | BIT(BLOCK_F_MQ),
    .queues = VIRTIO_BLOCK_QUEUES_MAX,
    .queue_size = BLOCK_QUEUE,
    .config_size = CONFIG_SIZE,
    .request_size = sizeof(struct block_request),
    .serve = block_serve,
    .served = block_served,
    .recall = block_recall,
    .read_config = read_config,
    .write_config = write_config,
    .accepted = accepted,
    .reset = reset,
    .state = state,
    .close = close_block,
    .free = free_block,
};

static uint64_t features(const struct virtio_block *b)
{
    uint64_t offered = 0;

    if (b->info.readonly)
        return BIT(BLOCK_F_RO);
    if (b->config.discard && b->info.discards)
        offered |= BIT(BLOCK_F_DISCARD);
    if (b->info.zeroes)
        offered |= BIT(BLOCK_F_WRITE_ZEROES);
    return offered;
}

/* B is zeroed. On failure nothing is left of it but its memory. */
static int set_up(struct virtio_block *b, const struct virtio_slot *slot,
                  const struct virtio_block_config *config, struct error *err)
{
    int ret = workers_add(slot->workers, &b->retry, block_try_again, b, err);

    if (ret < 0)
        return ret;
    b->config = *config;
    b->info = blk_info(config->blk);
    atomic_store(&b->size, b->info.size);
    if (config->serial)
        memcpy(b->serial, config->serial, strnlen(config->serial, sizeof(b->serial)));
    block_space_init(&b->space);
    pthread_mutex_init(&b->resizing, NULL);
    b->device.features = features(b);
    b->device.queues = config->queues;
    b->driver_caches = true;
    b->dev = virtio_pci_create(slot, &ops, &b->device, err);
    if (b->dev)
        return 0;
    workers_remove(&b->retry);
    block_space_free(&b->space);
    pthread_mutex_destroy(&b->resizing);
    return -EINVAL;
}

struct virtio_block *virtio_block_create(const struct virtio_slot *slot,
                                         const struct virtio_block_config *config,
                                         struct error *err)
{
    struct virtio_block *b = calloc(1, sizeof(*b));

    if (!b) {
        error_set(err, ENOMEM, "no memory for a disk");
        return NULL;
    }
    if (set_up(b, slot, config, err) < 0) {
        free(b);
        return NULL;
    }
    return b;
}

struct dev *virtio_block_dev(struct virtio_block *b)
{
    return b->dev;
}

void virtio_block_retry(struct virtio_block *b)
{
    workers_post(&b->retry);
}

struct where *virtio_block_where(struct virtio_block *b, unsigned n)
{
    return blk_where(b->config.blk, n);
}

/* With the lock. */
static int resize(struct virtio_block *b, uint64_t size, struct error *err)
{
    uint64_t before = atomic_load(&b->size);
    int ret;

    if (size < before)
        return error_set(err, EINVAL,
                         "disk %s: it can only grow while the machine runs, and has %llu bytes",
                         b->info.file, (unsigned long long)before);
    ret = blk_resize(b->config.blk, size, err);
    if (ret < 0)
        return ret;
    bus_lock(b->device.host.bus);
    atomic_store(&b->size, size);
    virtio_config_changed(&b->device);
    bus_unlock(b->device.host.bus);
    return 0;
}

int virtio_block_resize(struct virtio_block *b, uint64_t size, struct error *err)
{
    int ret;

    pthread_mutex_lock(&b->resizing);
    ret = resize(b, size, err);
    pthread_mutex_unlock(&b->resizing);
    return ret;
}

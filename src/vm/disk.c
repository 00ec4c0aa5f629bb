/*
 * Disks: from a description to a device with an open image behind it.
 */
#include "vm/disk.h"

#include "base/util.h"
#include "blk/options.h"
#include "dev/vhost/block.h"
#include "vm/board.h"
#include "vm/description.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A disk has as many queues as there are vCPUs, up to this. */
#define QUEUES_MOST 4u

_Static_assert(BLK_QUEUES_MOST == VIRTIO_BLOCK_QUEUES_MAX, "one limit");

int disk_options(const char *text, struct blk_options *options, struct error *err)
{
    static const char *const boards[] = {"slot", NULL}; /* read by the board */
    char *rest = description_rest(text, boards, err);
    int ret;

    if (!rest)
        return -ENOMEM;
    ret = !strncmp(rest, "file=", strlen("file="))
              ? blk_options_parse(rest, options, err)
              : error_set(err, EINVAL, "device %s: no file is given first (disk,file=F)", text);
    free(rest);
    return ret;
}

struct virtio_block_config disk_device(const struct blk_options *options, struct blk *blk,
                                       unsigned queues)
{
    return (struct virtio_block_config){
        .blk = blk,
        .serial = options->serial,
        .queues = options->queues ? options->queues : queues,
        .discard = !options->keep,
    };
}

static struct virtio_block *plug_in(const struct virtio_slot *slot, struct blk *blk,
                                    const struct blk_options *options,
                                    const struct board_config *config, struct error *err)
{
    struct virtio_block_config block = disk_device(options, blk, MIN(config->cpus, QUEUES_MOST));

    block.hold = config->events.hold;
    block.release = config->events.release;
    block.opaque = config->events.opaque;
    return virtio_block_create(slot, &block, err);
}

/* Opens the disk here. */
static struct dev *open_disk(const struct virtio_slot *slot, const struct blk_options *options,
                             const struct board_config *config, const struct blk_host *host,
                             struct virtio_block **block, struct error *err)
{
    struct blk *blk = blk_open(options, host, err);

    if (!blk)
        return NULL;
    *block = plug_in(slot, blk, options, config, err);
    if (*block)
        return virtio_block_dev(*block);
    blk_close(blk);
    return NULL;
}

struct dev *disk_create(const struct virtio_slot *slot, const char *text,
                        const struct board_config *config, const struct blk_host *host,
                        struct virtio_block **block, struct error *err)
{
    struct blk_options options;
    struct dev *dev;

    *block = NULL;
    if (disk_options(text, &options, err) < 0)
        return NULL;
    dev = options.source == BLK_VHOST_USER
              ? vhost_block_create(slot, options.file, options.queues, config->log, err)
              : open_disk(slot, &options, config, host, block, err);
    blk_options_free(&options);
    return dev;
}

/*
 * The file system device (virtio 1.2, 5.11).
 *
 * Queue 0 is for what must not wait behind requests (FORGET, INTERRUPT); the others are for
 * requests. What stands in a chain is the share's business. Small parts of a chain are copied, so
 * that a request which waits for a lock pins nothing; large ones are pinned as a whole.
 */
#include "dev/virtio/fs.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE 512u
#define SMALL      512u /* bytes */
/* Buffers of a part that is pinned: those of the most data, one page each, and a few more. */
#define ROOM (SHARE_DATA_MOST / MEM_PAGE_SIZE + 64)

/* The most bytes of a chain's readable or writable part. */
#define PART_MOST (SHARE_DATA_MOST + SHARE_EXTRA_MOST)

/* Device configuration (5.11.4). */
struct configuration {
    char tag[VIRTIO_FS_TAG_MOST]; /* padded with zeros */
    uint32_t num_request_queues;
};
_Static_assert(sizeof(struct configuration) == 40, "without the size of notifications");

struct virtio_fs {
    struct virtio_device device; /* first */
    struct dev *dev;
    struct virtio_fs_config config;
    char tag[VIRTIO_FS_TAG_MOST + 1];
};

/* What a request reads, or writes. */
struct part {
    bool copied; /* it is in SMALL, else it is pinned */
    size_t size;
    struct virtio_map map;
    struct iovec iov[ROOM];
    struct mem_pin pin[ROOM];
    uint8_t small[SMALL];
};

/* What the device notes of a request. */
struct fs_request {
    struct virtio_request *request; /* the frame's; this lies behind it */
    struct share_request share;
    struct part in, out;
};

static struct virtio_fs *fs_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_fs, device);
}

/* ---- Requests ---- */

static void release(struct fs_request *r)
{
    if (!r->in.copied)
        virtio_unmap(r->request, &r->in.map);
    if (!r->out.copied)
        virtio_unmap(r->request, &r->out.map);
}

/* Pins or copies a part of SIZE bytes of the chain. */
static int take_part(struct virtio_request *request, struct part *part, enum mem_access access,
                     uint64_t size)
{
    int ret;

    part->size = MIN(size, PART_MOST);
    part->copied = part->size <= SMALL;
    part->map = (struct virtio_map){.pin = part->pin, .iov = part->iov, .room = ROOM};
    if (part->copied) {
        part->iov[0] = (struct iovec){part->small, part->size};
        return access == MEM_READ ? virtio_read_at(request, 0, part->small, part->size) : 0;
    }
    ret = virtio_map(request, access, 0, part->size, &part->map);
    if (ret < 0 || part->map.size == part->size)
        return ret;
    /* It is not all: because there is a limit of pins, or because it is in too many pieces. */
    ret = part->map.pins < ROOM && part->map.iovs < ROOM ? -EAGAIN : -EFAULT;
    virtio_unmap(request, &part->map);
    return ret;
}

static unsigned iovs_of(const struct part *part)
{
    return part->copied ? part->size > 0 : part->map.iovs;
}

/* Gives the guest its answer of SIZE bytes. */
static void complete(struct fs_request *r, size_t size)
{
    bool good = true;

    if (r->out.copied && size)
        good = virtio_write_at(r->request, 0, r->out.small, size) == 0;
    release(r);
    if (good)
        virtio_complete(r->request, (uint32_t)size);
    else
        virtio_break(r->request);
}

static void done(struct share_request *share, ssize_t result)
{
    struct fs_request *r = container_of(share, struct fs_request, share);

    if (result >= 0) {
        complete(r, (size_t)result);
        return;
    }
    release(r);
    if (result == -ECANCELED)
        virtio_give_back(r->request);
    else
        virtio_break(r->request);
}

static enum virtio_result serve(struct virtio_device *device, struct virtio_request *request)
{
    struct virtio_fs *fs = fs_of(device);
    struct fs_request *r = virtio_request_data(request);
    int ret;

    if (request->chain.readable_bytes > PART_MOST)
        return VIRTIO_BROKEN;
    r->request = request;
    ret = take_part(request, &r->in, MEM_READ, request->chain.readable_bytes);
    if (ret < 0)
        return virtio_map_failed(ret);
    ret = take_part(request, &r->out, MEM_WRITE, request->chain.writable_bytes);
    if (ret < 0) {
        if (!r->in.copied)
            virtio_unmap(request, &r->in.map);
        return virtio_map_failed(ret);
    }
    r->share = (struct share_request){.in = r->in.iov,
                                      .ins = iovs_of(&r->in),
                                      .out = r->out.iov,
                                      .outs = iovs_of(&r->out),
                                      .done = done};
    share_submit(fs->config.share, &r->share);
    /* recall() may have come before. */
    if (virtio_recalled(device))
        share_recall(fs->config.share);
    return VIRTIO_TAKEN;
}

static void recall(struct virtio_device *device)
{
    share_recall(fs_of(device)->config.share);
}

/* ---- Registers ---- */

static void read_config(struct virtio_device *device, void *config)
{
    const struct virtio_fs *fs = fs_of(device);
    struct configuration c = {.num_request_queues = fs->config.queues};

    memcpy(c.tag, fs->tag, strlen(fs->tag));
    memcpy(config, &c, sizeof(c));
}

static void reset(struct virtio_device *device)
{
    share_reset(fs_of(device)->config.share);
}

/* What a driver has been told of the device must be true of the one that takes its place. */
static void state(struct virtio_device *device, struct state *s)
{
    struct virtio_fs *fs = fs_of(device);
    char tag[VIRTIO_FS_TAG_MOST + 1];
    uint32_t queues = fs->config.queues;

    memcpy(tag, fs->tag, sizeof(tag));
    state_bytes(s, tag, sizeof(tag));
    state_field(s, queues);
    if (memcmp(tag, fs->tag, sizeof(tag)) != 0 || queues != fs->config.queues)
        state_fail(s,
                   "share %s is not as it was when the machine was saved: tag and queues must "
                   "be the same",
                   fs->tag);
    share_state(fs->config.share, s, fs->config.instance);
}

static void free_fs(struct virtio_device *device)
{
    struct virtio_fs *fs = fs_of(device);

    share_close(fs->config.share);
    free(fs);
}

static const struct virtio_ops ops = {
    .name = "virtio-fs",
    .id = 26,
    .queues = VIRTIO_QUEUES_MAX,
    .queue_size = QUEUE_SIZE,
    .config_size = sizeof(struct configuration),
    .request_size = sizeof(struct fs_request),
    .serve = serve,
    .recall = recall,
    .read_config = read_config,
    .reset = reset,
    .state = state,
    .free = free_fs,
};

struct virtio_fs *virtio_fs_create(const struct virtio_slot *slot,
                                   const struct virtio_fs_config *config, struct error *err)
{
    struct virtio_fs *fs = calloc(1, sizeof(*fs));

    if (!fs) {
        error_set(err, ENOMEM, "no memory for a shared folder");
        return NULL;
    }
    fs->config = *config;
    memcpy(fs->tag, config->tag, strnlen(config->tag, VIRTIO_FS_TAG_MOST));
    fs->config.tag = fs->tag;
    fs->device.queues = config->queues + 1;
    fs->dev = virtio_pci_create(slot, &ops, &fs->device, err);
    if (!fs->dev) {
        free(fs);
        return NULL;
    }
    return fs;
}

struct dev *virtio_fs_dev(struct virtio_fs *fs)
{
    return fs->dev;
}

struct where *virtio_fs_where(struct virtio_fs *fs, unsigned n)
{
    return share_where(fs->config.share, n);
}

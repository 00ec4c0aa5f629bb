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

/* Ends what the back end has given back. One that has come to its end may still call. */
static int look_at_calls(struct vhost_block *b, const struct pollfd *calls)
{
    int ret = 0;

    for (unsigned i = 0; i < b->queues; i++) {
        if (!calls[i].revents)
            continue;
        event_clear(b->files[i].call);
        if (b->serving && ret == 0)
            ret = end_requests(b, i);
    }
    return ret;
}

/* Looks at what the back end has done and said. */
static void look(struct vhost_block *b, const struct pollfd *socket, const struct pollfd *calls)
{
    struct error err = {0};
    bool config_changed = false;
    int ret = look_at_calls(b, calls);

    if (ret == 0 && b->connected && (socket[0].revents || socket[1].revents))
        ret = vhost_look(&b->connection, &config_changed);
    if (ret == -EPROTO)
        error_set(&err, EPROTO, "the back end breaks the vhost-user protocol");
    else if (ret < 0)
        error_set(&err, -ret, "the back end is gone (%s)", strerror(-ret));
    else if (config_changed)
        ret = update_config(b, &err);
    if (ret < 0)
        lose(b, &err);
}

static void *run(void *opaque)
{
    struct vhost_block *b = opaque;
    struct pollfd pfd[4 + VIRTIO_QUEUES_MAX] = {{0}};

    where_begin(&b->where);
    while (!pfd[0].revents) {
        if (!b->connected)
            reconnect(b);
        if (b->connected)
            follow(b);
        watch_drain(b);
        /* Negative numbers are not looked at. */
        pfd[0] = (struct pollfd){b->end, POLLIN, 0};
        pfd[1] = (struct pollfd){b->wake, POLLIN, 0};
        pfd[2] = (struct pollfd){b->connection.socket, POLLIN, 0};
        pfd[3] = (struct pollfd){b->connection.backend, POLLIN, 0};
        for (unsigned i = 0; i < b->queues; i++)
            pfd[4 + i] = (struct pollfd){b->files[i].call, POLLIN, 0};
        if (poll(pfd, 4 + b->queues, time_left_ms(b)) < 0)
            continue;
        if (pfd[1].revents)
            event_clear(b->wake);
        look(b, &pfd[2], &pfd[4]);
    }
    where_end(&b->where);
    return NULL;
}

/* ---- The device ---- */

/* Ends the thread, which may be about to wake queues that the frame frees next. */
static void close_block(struct virtio_device *d)
{
    struct vhost_block *b = block_of(d);

    if (b->started) {
        signal_thread(b->end);
        pthread_join(b->thread, NULL);
    }
    vhost_disconnect(&b->connection);
    forget_rings(b);
}

static void free_block(struct virtio_device *d)
{
    struct vhost_block *b = block_of(d);

    vhost_disconnect(&b->connection);
    for (unsigned i = 0; b->queue && b->files && i < b->queues; i++) {
        vhost_ring_free(&b->queue[i].ring);
        pthread_mutex_destroy(&b->queue[i].lock);
        if (b->files[i].kick >= 0)
            close(b->files[i].kick);
        if (b->files[i].call >= 0)
            close(b->files[i].call);
    }
    event_sender_close(&b->sender);
    if (b->wake >= 0)
        close(b->wake);
    if (b->end >= 0)
        close(b->end);
    pthread_mutex_destroy(&b->lock);
    free(b->queue);
    free(b->files);
    free(b->path);
    free(b);
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
    .adapt_config = adapt_configread_config,
    .accepted = accept_features,
    .reset = reset,
    .close = close_block,
    .free = free_block,
};

struct dev *vhost_block_create(const struct virtio_slot *slot, const char *path, unsigned queues,
                               const struct log *log, struct error *err)
{
    const struct vhost_device_config config = {
        .kind = &kind, .path = path, .queues = queues, .log = log};

    return vhost_device_create(slot, &config, err);
}

/*
 * The back end's queues.
 *
 *      stopped --kick file--> started --enabled--> live --GET_VRING_BASE--> stopped
 */
#include "dev/vhost/backend_private.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define USED_INDEX     2u /* offset of the index in the used ring (virtio 1.2, 2.7.8) */
#define AVAILABLE_RING 4u /* likewise of the available ring's first entry */

/* A front end that keeps no record of requests in flight can only be told of a queue all of whose
 * chains were given back: so often the device is asked to finish those that it could not begin. */
#define FINISH_ATTEMPTS 1000u

static struct virtio_queue *virtio_of(const struct backend_queue *q)
{
    return &q->backend->device->queue[q->index];
}

void backend_queue_init(struct vhost_backend *b, unsigned index)
{
    struct backend_queue *q = &b->queue[index];

    *q = (struct backend_queue){.backend = b, .index = index, .kick = -1, .call = -1, .error = -1};
    pthread_mutex_init(&q->lock, NULL);
}

void backend_queue_free(struct backend_queue *q)
{
    pthread_mutex_destroy(&q->lock);
}

/* ---- Files of events ---- */

static void replace(int *fd, int with)
{
    if (*fd >= 0)
        close(*fd);
    *fd = with;
}

/* On the loop's thread. The file is not read, as it might make this thread wait: it is watched for
 * each time that something is written to it. */
static void kicked(void *opaque, uint32_t events)
{
    struct backend_queue *q = opaque;

    if (events & EPOLLIN)
        virtio_notify(q->backend->device, q->index);
}

static void unwatch(struct backend_queue *q)
{
    if (q->watch)
        loop_remove(q->watch);
    q->watch = NULL;
}

int backend_queue_set_kick(struct backend_queue *q, int fd, struct error *err)
{
    unwatch(q);
    replace(&q->kick, fd);
    if (fd < 0)
        return error_set(err, ENOTSUP, "queue %u is to be polled, which this back end does not do",
                         q->index);
    q->watch = loop_add(q->backend->loop, fd, EPOLLIN | EPOLLET, kicked, q, err);
    return q->watch ? 0 : -EINVAL;
}

void backend_queue_set_call(struct backend_queue *q, int fd)
{
    pthread_mutex_lock(&q->lock);
    replace(&q->call, fd);
    pthread_mutex_unlock(&q->lock);
    /* What was to be said to the last file may have been missed. */
    if (q->live)
        backend_queue_call(q);
}

void backend_queue_call(struct backend_queue *q)
{
    pthread_mutex_lock(&q->lock);
    if (q->call >= 0)
        event_signal(&q->backend->sender, q->call);
    pthread_mutex_unlock(&q->lock);
}

/* ---- Starting ---- */

static int find_areas(const struct backend_queue *q, struct virtqueue_config *config,
                      struct error *err)
{
    const struct vhost_backend *b = q->backend;
    int ret = backend_translate(b, q->addresses.descriptors, &config->descriptors, err);

    if (ret == 0)
        ret = backend_translate(b, q->addresses.available, &config->available, err);
    if (ret == 0)
        ret = backend_translate(b, q->addresses.used, &config->used, err);
    config->size = q->size;
    if (ret == 0 && !virtqueue_allows(config, b->device->ops->queue_size))
        ret = error_set(err, EINVAL, "queue %u cannot have %u entries, or lies at odd addresses",
                        q->index, q->size);
    return ret;
}

/* Takes up the record of requests in flight: those that the last back end did not finish are served
 * first. */
static int take_up(struct backend_queue *q, uint16_t used, struct error *err)
{
    struct vhost_backend *b = q->backend;
    struct virtio_queue *v = virtio_of(q);
    uint16_t heads[INFLIGHT_SIZE_MAX];
    unsigned count;

    q->inflight = NULL;
    if (!b->inflight)
        return 0;
    if (q->index >= b->inflight_queues)
        return error_set(err, EINVAL, "queue %u is not in a record of %u queues", q->index,
                         b->inflight_queues);
    if (q->size > b->inflight_entries) { /* so asks QEMU 10.0.13 for it, unless queue-size=256 */
        log_line(b->log, LOG_LEVEL_WARNING,
                 "vhost-user: queue %u of %u entries has no room in its record of %u: if this back "
                 "end dies, requests in flight are lost",
                 q->index, q->size, b->inflight_entries);
        return 0;
    }
    q->inflight = inflight_of(b->inflight, q->index, b->inflight_entries);
    count = inflight_begin(q->inflight, b->inflight_entries, used, heads, &q->counter);
    for (unsigned i = 0; i < count; i++)
        if (!virtio_queue_hold(v, heads[i]))
            return error_set(err, EINVAL, "queue %u: its record has more than is in flight",
                             q->index);
    v->ring.next = (uint16_t)(used + count);
    return 0;
}

/* Board lock held. */
static int enable(struct backend_queue *q, const struct virtqueue_config *config, uint16_t used,
                  struct error *err)
{
    struct virtio_queue *v = virtio_of(q);

    v->config = *config;
    atomic_store(&v->vector, (uint16_t)q->index);
    virtio_enable_queue(q->backend->device, q->index);
    if (!v->enabled)
        return error_set(err, EINVAL, "queue %u is started before features are agreed on",
                         q->index);
    v->ring.next = q->base;
    v->ring.done = v->ring.notified = used;
    return take_up(q, used, err);
}

static void disable(struct backend_queue *q)
{
    struct virtio_device *d = q->backend->device;

    pthread_mutex_lock(&d->lock);
    virtio_of(q)->enabled = false;
    pthread_mutex_unlock(&d->lock);
    virtio_queue_forget(virtio_of(q));
    q->live = false;
    q->inflight = NULL;
}

static int go_live(struct backend_queue *q, struct error *err)
{
    struct vhost_backend *b = q->backend;
    struct virtqueue_config config = {.size = 0};
    uint16_t used;
    int ret = q->addressed ? find_areas(q, &config, err)
                           : error_set(err, EINVAL,
                                       "queue %u is started before its areas are known", q->index);

    if (ret < 0)
        return ret;
    if (mem_read(b->mem, config.used + USED_INDEX, &used, sizeof(used)) < 0)
        return error_set(err, EFAULT, "queue %u is not in memory", q->index);
    bus_lock(b->bus);
    ret = enable(q, &config, used, err);
    bus_unlock(b->bus);
    if (ret < 0)
        disable(q);
    else
        q->live = true;
    return ret;
}

/* Whether the chains that the device holds are the last ones that it took off the ring: a network
 * card's, which wait for frames. */
static bool holds_last(struct backend_queue *q)
{
    const struct virtio_queue *v = virtio_of(q);
    uint16_t first = (uint16_t)(v->ring.next - v->held_count);

    for (unsigned i = 0; i < v->held_count; i++) {
        uint64_t entry = (uint16_t)(first + i) & (v->config.size - 1);
        uint16_t head;

        if (mem_read(q->backend->mem, v->config.available + AVAILABLE_RING + 2 * entry, &head,
                     sizeof(head)) < 0 ||
            head != v->held[i].head)
            return false;
    }
    return true;
}

/* Has the device finish what it took and could not begin, or takes it back. */
static int finish(struct backend_queue *q, struct error *err)
{
    struct vhost_backend *b = q->backend;

    if (b->device->ops->keeps_buffers && holds_last(q)) {
        virtio_of(q)->ring.next = (uint16_t)(virtio_of(q)->ring.next - virtio_of(q)->held_count);
        virtio_queue_forget(virtio_of(q));
        return 0;
    }
    for (unsigned i = 0; i < FINISH_ATTEMPTS && virtio_of(q)->held_count > 0; i++) {
        virtio_resume(b->device);
        time_sleep_ns(NS_PER_MS);
        virtio_pause(b->device);
    }
    if (virtio_of(q)->held_count == 0)
        return 0;
    return error_set(err, EBUSY, "queue %u has %u requests that do not end", q->index,
                     virtio_of(q)->held_count);
}

int backend_queue_update(struct backend_queue *q, struct error *err)
{
    bool live = q->started && q->enabled;
    int ret;

    if (live == q->live)
        return 0;
    backend_pause(q->backend);
    if (live)
        return go_live(q, err);
    /* Without a record, a request that the device holds would be lost: the base is behind it. */
    ret = q->inflight ? 0 : finish(q, err);
    if (ret < 0) {
        q->enabled = true;
        return ret;
    }
    q->base = virtio_of(q)->ring.next;
    disable(q);
    return 0;
}

int backend_queue_find(struct backend_queue *q, struct error *err)
{
    struct virtio_queue *v = virtio_of(q);
    struct virtqueue_config config = v->ring.config;
    int ret = find_areas(q, &config, err);

    if (ret < 0)
        return ret;
    bus_lock(q->backend->bus);
    v->config = v->ring.config = config;
    bus_unlock(q->backend->bus);
    return 0;
}

/* ---- Stopping ---- */

int backend_queue_stop(struct backend_queue *q, uint16_t *base, struct error *err)
{
    int ret = 0;

    backend_pause(q->backend);
    if (q->live && !q->inflight)
        ret = finish(q, err);
    q->started = false;
    if (q->live) {
        q->base = virtio_of(q)->ring.next;
        disable(q);
    }
    *base = q->base;
    unwatch(q);
    replace(&q->kick, -1);
    backend_queue_set_call(q, -1);
    return ret;
}

/* As it was before the front end came. */
static void clear(struct backend_queue *q)
{
    unwatch(q);
    if (q->live)
        disable(q);
    replace(&q->kick, -1);
    replace(&q->error, -1);
    backend_queue_set_call(q, -1);
    q->size = 0;
    q->base = 0;
    q->addressed = q->started = q->enabled = false;
}

void backend_reset(struct vhost_backend *b)
{
    backend_pause(b);
    for (unsigned i = 0; i < b->device->queues; i++)
        clear(&b->queue[i]);
    bus_lock(b->bus);
    virtio_reset(b->device);
    bus_unlock(b->bus);
}

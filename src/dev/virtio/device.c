/*
 * Virtio devices: initialization, status and serving of queues (Virtual I/O Device specification
 * 1.2, chapters 2 and 3).
 */
#include "dev/virtio/device.h"

#include <errno.h>
#include <string.h>

#define BIT(N) (UINT64_C(1) << (N))

/* A worker gives way to the pool's other work after as many chains. */
#define CHAINS_AT_ONCE 64

uint64_t virtio_features(const struct virtio_device *d)
{
    return d->ops->features | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_EVENT_IDX) |
           BIT(VIRTIO_F_INDIRECT_DESC);
}

static bool accepted(const struct virtio_device *d, unsigned feature)
{
    return d->driver_features & BIT(feature);
}

void virtio_notify(struct virtio_device *d, uint64_t queue)
{
    if (queue < d->ops->queues)
        workers_post(&d->queue[queue].work);
}

/* ---- Serving: on a worker, without the board lock ---- */

/* Whether the queue may be served now; then the device counts as at work until end_serving(). */
static bool begin_serving(struct virtio_queue *q)
{
    struct virtio_device *d = q->device;
    bool may;

    pthread_mutex_lock(&d->lock);
    may = d->live && q->enabled;
    d->serving += may;
    pthread_mutex_unlock(&d->lock);
    return may;
}

/* Ends what begin_serving() began. BROKEN: the driver has broken a rule, and the device is served
 * no more. Has the loop settle a broken device, or a reset that waited for the last worker. */
static void end_serving(struct virtio_device *d, bool broken)
{
    bool settle;

    pthread_mutex_lock(&d->lock);
    d->serving--;
    d->broken |= broken;
    d->live &= !d->broken;
    settle = d->broken || (d->resetting && !d->serving);
    pthread_mutex_unlock(&d->lock);
    if (settle)
        loop_post(d->host.loop, &d->job);
}

/* Whether to go on with the next chain: the driver may have reset the device. */
static bool still_live(struct virtio_device *d)
{
    bool live;

    pthread_mutex_lock(&d->lock);
    live = d->live;
    pthread_mutex_unlock(&d->lock);
    return live;
}

enum progress { GO_ON, TRY_LATER, ALL_SERVED, RULE_BROKEN };

static enum progress serve_chain(struct virtio_queue *q)
{
    struct virtqueue_chain chain;
    int64_t written;
    int got = virtqueue_next(&q->ring, &chain);

    if (got == 0)
        return virtqueue_await(&q->ring) ? GO_ON : ALL_SERVED;
    if (got < 0)
        return RULE_BROKEN;
    written = q->device->ops->serve(q->device, q->index, &chain);
    if (written == VIRTIO_LATER) {
        virtqueue_put_back(&q->ring);
        return TRY_LATER;
    }
    if (written < 0)
        return RULE_BROKEN;
    virtqueue_complete(&q->ring, chain.head, (uint32_t)written);
    return GO_ON;
}

static enum progress serve_chains(struct virtio_queue *q)
{
    enum progress progress = GO_ON;
    bool tell;
    int ret = virtqueue_open(&q->ring);

    if (ret == -EAGAIN)
        return TRY_LATER;
    if (ret < 0)
        return RULE_BROKEN;
    for (unsigned i = 0; i < CHAINS_AT_ONCE && progress == GO_ON && still_live(q->device); i++)
        progress = serve_chain(q);
    tell = virtqueue_wants_interrupt(&q->ring);
    virtqueue_close(&q->ring);
    if (tell)
        q->device->host.interrupt(q->device->host.opaque, VIRTIO_CAUSE_QUEUE,
                                  atomic_load(&q->vector));
    return progress;
}

static void serve(void *opaque)
{
    struct virtio_queue *q = opaque;
    enum progress progress;

    if (!begin_serving(q))
        return;
    progress = serve_chains(q);
    end_serving(q->device, progress == RULE_BROKEN);
    if (progress == GO_ON || progress == TRY_LATER)
        workers_post(&q->work);
}

/* ---- Status: board lock held ---- */

/* Decides anew whether queues are served. */
static void update_live(struct virtio_device *d)
{
    bool live =
        (d->status & VIRTIO_DRIVER_OK) && !(d->status & VIRTIO_NEEDS_RESET) && d->bus_master;
    bool begins;

    pthread_mutex_lock(&d->lock);
    live &= !d->resetting && !d->broken;
    begins = live && !d->live;
    d->live = live;
    pthread_mutex_unlock(&d->lock);
    for (unsigned i = 0; begins && i < d->ops->queues; i++)
        virtio_notify(d, i);
}

/* Nothing is being served. */
static void clear(struct virtio_device *d)
{
    d->status = 0;
    d->driver_features = 0;
    atomic_store(&d->config_vector, VIRTIO_NO_VECTOR);
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->ops->queues; i++) {
        struct virtio_queue *q = &d->queue[i];

        q->config = (struct virtqueue_config){.size = d->ops->queue_size};
        q->enabled = false;
        atomic_store(&q->vector, VIRTIO_NO_VECTOR);
    }
    d->live = d->resetting = d->broken = false;
    pthread_mutex_unlock(&d->lock);
}

/* Carries out a reset that had to wait for workers, and says so if the driver has broken a rule. */
static void settle(struct virtio_device *d)
{
    bool reset, broken;

    pthread_mutex_lock(&d->lock);
    reset = d->resetting && !d->serving;
    broken = d->broken && !d->resetting;
    pthread_mutex_unlock(&d->lock);
    if (reset) {
        clear(d);
    } else if (broken && !(d->status & VIRTIO_NEEDS_RESET)) {
        d->status |= VIRTIO_NEEDS_RESET;
        if (d->status & VIRTIO_DRIVER_OK)
            d->host.interrupt(d->host.opaque, VIRTIO_CAUSE_CONFIG, atomic_load(&d->config_vector));
    }
}

/* On the loop's thread. */
static void run_job(void *opaque)
{
    struct virtio_device *d = opaque;

    bus_lock(d->host.bus);
    settle(d);
    bus_unlock(d->host.bus);
}

static void break_device(struct virtio_device *d)
{
    pthread_mutex_lock(&d->lock);
    d->broken = true;
    d->live = false;
    pthread_mutex_unlock(&d->lock);
    settle(d);
}

static void begin_reset(struct virtio_device *d)
{
    pthread_mutex_lock(&d->lock);
    d->resetting = true;
    d->live = false;
    pthread_mutex_unlock(&d->lock);
    settle(d);
}

bool virtio_takes_writes(struct virtio_device *d)
{
    bool resetting;

    pthread_mutex_lock(&d->lock);
    resetting = d->resetting;
    pthread_mutex_unlock(&d->lock);
    return !resetting;
}

/* Whether the driver has accepted VIRTIO_F_VERSION_1 and nothing that was not offered (2.2.2). */
static bool features_suffice(const struct virtio_device *d)
{
    return accepted(d, VIRTIO_F_VERSION_1) && !(d->driver_features & ~virtio_features(d));
}

void virtio_set_status(struct virtio_device *d, uint8_t value)
{
    uint8_t set = value & ~d->status;

    if (!virtio_takes_writes(d))
        return;
    if (value == 0) {
        begin_reset(d);
        return;
    }
    if ((set & VIRTIO_FEATURES_OK) && !features_suffice(d))
        set &= (uint8_t)~VIRTIO_FEATURES_OK;
    /* Without features that both agree on, there is nothing to drive. */
    if (!((d->status | set) & VIRTIO_FEATURES_OK))
        set &= (uint8_t)~VIRTIO_DRIVER_OK;
    d->status |= set & (uint8_t)~VIRTIO_NEEDS_RESET;
    update_live(d);
}

void virtio_set_features(struct virtio_device *d, uint64_t features)
{
    if (!(d->status & VIRTIO_FEATURES_OK))
        d->driver_features = features;
}

void virtio_enable_queue(struct virtio_device *d, unsigned queue)
{
    struct virtio_queue *q = &d->queue[queue];

    if (q->enabled)
        return;
    if (!(d->status & VIRTIO_FEATURES_OK) || !virtqueue_allows(&q->config, d->ops->queue_size)) {
        break_device(d);
        return;
    }
    q->config.event_index = accepted(d, VIRTIO_F_EVENT_IDX);
    q->config.indirect = accepted(d, VIRTIO_F_INDIRECT_DESC);
    virtqueue_start(&q->ring, &q->config);
    pthread_mutex_lock(&d->lock);
    q->enabled = true;
    pthread_mutex_unlock(&d->lock);
}

void virtio_set_bus_master(struct virtio_device *d, bool on)
{
    d->bus_master = on;
    update_live(d);
}

/* ---- The device as a part of the machine ---- */

void virtio_reset(struct virtio_device *d)
{
    clear(d);
}

static void state_queue(struct virtio_queue *q, struct state *s)
{
    uint16_t vector = atomic_load(&q->vector);

    state_field(s, q->config.size);
    state_field(s, q->config.descriptors);
    state_field(s, q->config.available);
    state_field(s, q->config.used);
    state_bool(s, &q->enabled);
    state_field(s, vector);
    atomic_store(&q->vector, vector);
    virtqueue_state(&q->ring, s);
}

/* Checks what was restored. A state that no driver can bring the device into fails the restore; the
 * device is then one whose driver has broken a rule. */
static void check_restored(struct virtio_device *d, struct state *s)
{
    bool wrong = (d->status & VIRTIO_FEATURES_OK) ? !features_suffice(d)
                                                  : (d->status & VIRTIO_DRIVER_OK) != 0;

    for (unsigned i = 0; i < d->ops->queues; i++) {
        struct virtio_queue *q = &d->queue[i];

        q->config.event_index = accepted(d, VIRTIO_F_EVENT_IDX);
        q->config.indirect = accepted(d, VIRTIO_F_INDIRECT_DESC);
        if (q->enabled && (!(d->status & VIRTIO_FEATURES_OK) ||
                           !virtqueue_allows(&q->config, d->ops->queue_size))) {
            q->enabled = false;
            wrong = true;
        }
        q->ring.config = q->config;
    }
    if (wrong) {
        state_fail(s, "status %#x does not go with features and queues", d->status);
        d->status |= VIRTIO_NEEDS_RESET;
    }
    pthread_mutex_lock(&d->lock);
    d->live = d->resetting = false;
    d->broken = d->status & VIRTIO_NEEDS_RESET;
    pthread_mutex_unlock(&d->lock);
}

void virtio_state(struct virtio_device *d, struct state *s)
{
    uint16_t vector = atomic_load(&d->config_vector);

    state_field(s, d->status);
    state_field(s, d->driver_features);
    state_field(s, vector);
    atomic_store(&d->config_vector, vector);
    for (unsigned i = 0; i < d->ops->queues; i++)
        state_queue(&d->queue[i], s);
    if (!state_saving(s))
        check_restored(d, s);
}

void virtio_pause(struct virtio_device *d)
{
    for (unsigned i = 0; i < d->ops->queues; i++)
        workers_pause(&d->queue[i].work);
    /* What the workers have left for the loop belongs to the state. */
    run_job(d);
}

void virtio_resume(struct virtio_device *d)
{
    for (unsigned i = 0; i < d->ops->queues; i++)
        workers_resume(&d->queue[i].work);
}

int virtio_init(struct virtio_device *d, const struct virtio_ops *ops,
                const struct virtio_host *host, struct error *err)
{
    int ret = 0;

    memset(d, 0, sizeof(*d));
    d->ops = ops;
    d->host = *host;
    d->job = (struct loop_job){.run = run_job, .opaque = d};
    pthread_mutex_init(&d->lock, NULL);
    for (unsigned i = 0; i < ops->queues && ret == 0; i++) {
        struct virtio_queue *q = &d->queue[i];

        q->device = d;
        q->index = i;
        ret = virtqueue_init(&q->ring, host->mem, ops->queue_size, err);
        if (ret == 0)
            ret = workers_add(host->workers, &q->work, serve, q, err);
    }
    if (ret < 0)
        virtio_free(d);
    else
        clear(d);
    return ret;
}

void virtio_free(struct virtio_device *d)
{
    for (unsigned i = 0; i < d->ops->queues; i++)
        workers_remove(&d->queue[i].work);
    loop_cancel(d->host.loop, &d->job);
    for (unsigned i = 0; i < d->ops->queues; i++)
        virtqueue_free(&d->queue[i].ring);
    pthread_mutex_destroy(&d->lock);
}

/*
 * Virtio devices: initialization, status and serving of queues (Virtual I/O Device specification
 * 1.2, chapters 2 and 3).
 */
#include "dev/virtio/device.h"

#include "base/util.h"
#include "dev/virtio/serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BIT(N) (UINT64_C(1) << (N))

uint64_t virtio_features(const struct virtio_device *d)
{
    return d->ops->features | d->features | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_EVENT_IDX) |
           BIT(VIRTIO_F_INDIRECT_DESC);
}

bool virtio_accepted(const struct virtio_device *d, unsigned feature)
{
    return d->driver_features & BIT(feature);
}

/* ---- Status: board lock held ---- */

/* Decides anew whether queues are served. */
static void update_live(struct virtio_device *d)
{
    bool live =
        (d->status & VIRTIO_DRIVER_OK) && !(d->status & VIRTIO_NEEDS_RESET) && d->bus_master;
    bool changed;

    pthread_mutex_lock(&d->lock);
    live &= !d->resetting && !d->broken;
    changed = live != d->live;
    d->live = live;
    pthread_mutex_unlock(&d->lock);
    if (changed)
        virtio_look_at_queues(d);
}

/* Nothing is in flight. */
static void clear(struct virtio_device *d)
{
    d->status = d->generation = 0;
    d->driver_features = 0;
    d->config_changed = false;
    atomic_store(&d->config_vector, VIRTIO_NO_VECTOR);
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->queues; i++) {
        struct virtio_queue *q = &d->queue[i];

        q->config = (struct virtqueue_config){.size = d->ops->queue_size};
        q->enabled = false;
        atomic_store(&q->vector, VIRTIO_NO_VECTOR);
    }
    d->live = d->resetting = d->broken = false;
    virtio_update_recalled(d);
    pthread_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < d->queues; i++)
        virtio_queue_forget(&d->queue[i]);
    if (d->ops->reset)
        d->ops->reset(d);
}

static void interrupt_config(struct virtio_device *d)
{
    if (d->status & VIRTIO_DRIVER_OK)
        d->host.interrupt(d->host.opaque, VIRTIO_CAUSE_CONFIG, atomic_load(&d->config_vector));
}

/* Carries out a reset that had to wait for requests, and says so if the driver has broken a rule.
 */
static void apply_status(struct virtio_device *d)
{
    bool reset, broken;

    pthread_mutex_lock(&d->lock);
    reset = d->resetting && !d->busy;
    broken = d->broken && !d->resetting;
    pthread_mutex_unlock(&d->lock);
    if (reset) {
        clear(d);
    } else if (broken && !(d->status & VIRTIO_NEEDS_RESET)) {
        d->status |= VIRTIO_NEEDS_RESET;
        interrupt_config(d);
    }
}

/* On the loop's thread. */
static void run_job(void *opaque)
{
    struct virtio_device *d = opaque;

    bus_lock(d->host.bus);
    apply_status(d);
    bus_unlock(d->host.bus);
}

static void break_device(struct virtio_device *d)
{
    pthread_mutex_lock(&d->lock);
    d->broken = true;
    d->live = false;
    pthread_mutex_unlock(&d->lock);
    virtio_look_at_queues(d);
    apply_status(d);
}

static void begin_reset(struct virtio_device *d)
{
    pthread_mutex_lock(&d->lock);
    d->resetting = true;
    d->live = false;
    virtio_update_recalled(d);
    pthread_mutex_unlock(&d->lock);
    if (d->ops->recall)
        d->ops->recall(d);
    virtio_look_at_queues(d);
    apply_status(d);
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
    return virtio_accepted(d, VIRTIO_F_VERSION_1) && !(d->driver_features & ~virtio_features(d));
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
    if ((set & VIRTIO_FEATURES_OK) && d->ops->accepted)
        d->ops->accepted(d, d->driver_features);
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
    q->config.event_index = virtio_accepted(d, VIRTIO_F_EVENT_IDX);
    q->config.indirect = virtio_accepted(d, VIRTIO_F_INDIRECT_DESC);
    virtqueue_start(&q->ring, &q->config);
    pthread_mutex_lock(&d->lock);
    q->enabled = true;
    pthread_mutex_unlock(&d->lock);
    virtio_look_at_queues(d); /* a notification may have come before */
}

void virtio_set_bus_master(struct virtio_device *d, bool on)
{
    d->bus_master = on;
    update_live(d);
}

/* ---- Device configuration: board lock held ---- */

/* Whether the access lies in the configuration, which IMAGE then is. */
static bool config_image(struct virtio_device *d, uint64_t offset, unsigned size, uint8_t *image)
{
    if (offset + size > d->ops->config_size)
        return false;
    if (d->ops->read_config)
        d->ops->read_config(d, image);
    return true;
}

uint32_t virtio_read_config(struct virtio_device *d, uint64_t offset, unsigned size)
{
    uint8_t image[VIRTIO_CONFIG_MAX] = {0};
    uint32_t value = 0;

    if (config_image(d, offset, size, image))
        memcpy(&value, image + offset, size);
    return value;
}

void virtio_write_config(struct virtio_device *d, uint64_t offset, unsigned size, uint32_t value)
{
    uint8_t image[VIRTIO_CONFIG_MAX] = {0};

    if (!d->ops->write_config || !config_image(d, offset, size, image))
        return;
    memcpy(image + offset, &value, size);
    d->ops->write_config(d, image, (unsigned)offset, size);
}

void virtio_config_changed(struct virtio_device *d)
{
    bool paused;

    d->generation++;
    pthread_mutex_lock(&d->lock);
    paused = d->paused;
    pthread_mutex_unlock(&d->lock);
    d->config_changed = paused;
    if (!paused)
        interrupt_config(d);
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

    for (unsigned i = 0; i < d->queues; i++) {
        struct virtio_queue *q = &d->queue[i];

        q->config.event_index = virtio_accepted(d, VIRTIO_F_EVENT_IDX);
        q->config.indirect = virtio_accepted(d, VIRTIO_F_INDIRECT_DESC);
        if (q->enabled && (!(d->status & VIRTIO_FEATURES_OK) ||
                           !virtqueue_allows(&q->config, d->ops->queue_size)))
            wrong = true;
        if (q->held_count > (q->enabled ? q->config.size : 0))
            wrong = true;
        q->ring.config = q->config;
    }
    if (wrong) {
        state_fail(s, "status %#x does not go with features and queues", d->status);
        clear(d);
        d->status = VIRTIO_NEEDS_RESET;
    }
    pthread_mutex_lock(&d->lock);
    d->live = d->resetting = false;
    virtio_update_recalled(d);
    d->broken = d->status & VIRTIO_NEEDS_RESET;
    pthread_mutex_unlock(&d->lock);
}

/* What VERSION 2 of the section has beyond 1. */
static void state_of_requests(struct virtio_device *d, struct state *s)
{
    state_field(s, d->generation);
    state_bool(s, &d->config_changed);
    for (unsigned i = 0; i < d->queues; i++)
        virtio_queue_held_state(&d->queue[i], s);
}

void virtio_state(struct virtio_device *d, struct state *s, uint32_t version)
{
    uint16_t vector = atomic_load(&d->config_vector);

    state_field(s, d->status);
    state_field(s, d->driver_features);
    state_field(s, vector);
    atomic_store(&d->config_vector, vector);
    for (unsigned i = 0; i < d->queues; i++)
        state_queue(&d->queue[i], s);
    if (version >= 2)
        state_of_requests(d, s);
    if (!state_saving(s)) {
        check_restored(d, s);
        if ((d->status & VIRTIO_FEATURES_OK) && !state_error(s) && d->ops->accepted)
            d->ops->accepted(d, d->driver_features);
    }
    if (d->ops->state)
        d->ops->state(d, s);
}

static void set_paused(struct virtio_device *d, bool paused)
{
    pthread_mutex_lock(&d->lock);
    d->paused = paused;
    pthread_mutex_unlock(&d->lock);
}

void virtio_pause(struct virtio_device *d)
{
    virtio_stop_queues(d);
    bus_lock(d->host.bus);
    set_paused(d, true);
    /* What the workers have left for the loop belongs to the state. */
    apply_status(d);
    bus_unlock(d->host.bus);
}

void virtio_resume(struct virtio_device *d)
{
    bus_lock(d->host.bus);
    set_paused(d, false);
    if (d->config_changed)
        interrupt_config(d);
    d->config_changed = false;
    bus_unlock(d->host.bus);
    virtio_go_on(d);
}

static void free_queues(struct virtio_device *d, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        virtio_queue_free(&d->queue[i]);
    free(d->queue);
    d->queue = NULL;
    pthread_cond_destroy(&d->idle);
    pthread_mutex_destroy(&d->lock);
}

int virtio_init(struct virtio_device *d, const struct virtio_ops *ops,
                const struct virtio_host *host, struct error *err)
{
    unsigned made = 0;
    int ret = 0;

    d->ops = ops;
    d->host = *host;
    d->job = (struct loop_job){.run = run_job, .opaque = d};
    d->request_stride = ALIGN_UP(sizeof(struct virtio_request) + ops->request_size, 16);
    d->queues = d->queues ? d->queues : ops->queues;
    d->queue = calloc(d->queues, sizeof(*d->queue));
    if (!d->queue)
        return error_set(err, ENOMEM, "no memory for a device (%s)", ops->name);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->idle, NULL);
    while (made < d->queues && ret == 0) {
        ret = virtio_queue_init(d, made, err);
        made += ret == 0;
    }
    if (ret < 0)
        free_queues(d, made);
    else
        clear(d);
    return ret;
}

void virtio_finish(struct virtio_device *d)
{
    if (!d->paused)
        virtio_stop_queues(d);
    if (d->ops->close)
        d->ops->close(d);
    loop_cancel(d->host.loop, &d->job);
    free_queues(d, d->queues);
}

/*
 * A virtio device that a back end of vhost-user serves: what the guest sees of it.
 */
#include "dev/vhost/device_private.h"

#include "base/thread.h"
#include "base/time.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BIT(N) (UINT64_C(1) << (N))

static void signal_thread(int event)
{
    uint64_t one = 1;

    if (write(event, &one, sizeof(one)) < 0)
        return; /* the counter is at its end: the thread is about to wake */
}

/* ---- Requests: on a worker ---- */

/* Whether the chain's buffers are memory. Back ends give up on a front end that shows them one of
 * no bytes. */
static bool all_memory(struct mem *mem, const struct virtqueue_chain *chain)
{
    for (unsigned i = 0; i < chain->readable + chain->writable; i++)
        if (!chain->buffer[i].size || !mem_is_ram(mem, chain->buffer[i].gpa, chain->buffer[i].size))
            return false;
    return true;
}

/* What is done with a request that cannot be given to the back end now. */
static enum virtio_result put_off(struct vhost_device *v, struct virtio_request *r, bool lost)
{
    if (lost && v->kind->refuse) {
        v->kind->refuse(r);
        return VIRTIO_TAKEN;
    }
    /* The thread sees that a pause is over by requests that come. */
    if (v->kind->keeps_buffers)
        signal_thread(v->wake);
    return VIRTIO_WAIT;
}

/* Whether the queue is not the back end's. A driver that does not know of more queues than it must
 * finds it right behind those (virtio 1.2, 5.1.2). */
static bool is_own(const struct vhost_device *v, unsigned queue)
{
    bool several = v->device.driver_features & v->kind->several;

    return v->own_queue && queue >= (several ? v->queues : v->kind->queues_each);
}

static enum virtio_result give(struct vhost_device *v, struct virtio_request *r)
{
    struct vhost_queue *q = &v->queue[r->queue->index];
    const struct virtqueue_chain *chain = &r->chain;
    bool taken = false, runs, lost;

    if (!all_memory(v->device.host.mem, chain))
        return VIRTIO_BROKEN;
    pthread_mutex_lock(&q->lock);
    runs = q->runs;
    lost = q->lost;
    if (runs) {
        taken = vhost_ring_add(&q->ring, chain->buffer, chain->readable, chain->writable, r) == 0;
        q->full = !taken;
        q->out += taken;
    }
    pthread_mutex_unlock(&q->lock);
    if (taken)
        return VIRTIO_TAKEN;
    return runs ? VIRTIO_WAIT : put_off(v, r, lost);
}

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct vhost_device *v = vhost_device_of(d);

    return is_own(v, r->queue->index) ? v->kind->serve_own(d, r) : give(v, r);
}

static void kick(struct vhost_device *v, unsigned queue)
{
    struct vhost_queue *q = &v->queue[queue];
    bool kick;
    int ret;

    pthread_mutex_lock(&q->lock);
    kick = q->runs && vhost_ring_wants_kick(&q->ring);
    pthread_mutex_unlock(&q->lock);
    ret = kick ? event_signal(&v->sender, v->files[queue].kick) : 0;
    if (ret < 0)
        log_line(v->log, LOG_LEVEL_WARNING, "%s: cannot tell the back end of requests: %s", v->path,
                 strerror(-ret));
}

static void served(struct virtio_device *d, unsigned queue)
{
    struct vhost_device *v = vhost_device_of(d);

    if (!is_own(v, queue))
        kick(v, queue);
    /* What was added after recall() is waited for, too. */
    if (virtio_recalled(d))
        signal_thread(v->wake);
}

/* ---- Registers: board lock held ---- */

static void recall(struct virtio_device *d)
{
    signal_thread(vhost_device_of(d)->wake);
}

static void read_config(struct virtio_device *d, void *config)
{
    memcpy(config, vhost_device_of(d)->config, d->ops->config_size);
}

/* Changes what is wanted of the thread. No request is in flight. */
static void agree(struct vhost_device *v, bool accepted, uint64_t features)
{
    pthread_mutex_lock(&v->lock);
    v->accepted = accepted;
    v->features = features;
    v->epoch++;
    for (unsigned i = 0; i < v->queues; i++) {
        pthread_mutex_lock(&v->queue[i].lock);
        v->queue[i].runs = v->queue[i].lost = false;
        pthread_mutex_unlock(&v->queue[i].lock);
    }
    pthread_mutex_unlock(&v->lock);
    signal_thread(v->wake);
}

static void accept_features(struct virtio_device *d, uint64_t features)
{
    agree(vhost_device_of(d), true, features);
}

static void reset(struct virtio_device *d)
{
    struct vhost_device *v = vhost_device_of(d);

    pthread_mutex_lock(&v->lock);
    v->used = v->own_queue ? v->kind->queues_each : v->queues;
    pthread_mutex_unlock(&v->lock);
    agree(v, false, 0);
}

void vhost_device_use(struct virtio_device *d, unsigned queues)
{
    struct vhost_device *v = vhost_device_of(d);

    pthread_mutex_lock(&v->lock);
    v->used = MIN(queues, v->queues);
    pthread_mutex_unlock(&v->lock);
    signal_thread(v->wake);
}

/* Of a device with a queue of its own: what the driver has said there. */
static void state(struct virtio_device *d, struct state *s)
{
    struct vhost_device *v = vhost_device_of(d);
    uint32_t queues = v->queues, used;

    pthread_mutex_lock(&v->lock);
    used = v->used;
    pthread_mutex_unlock(&v->lock);
    state_field(s, queues);
    state_field(s, used);
    if (queues != v->queues || !used || used > queues)
        state_fail(s,
                   "the device had %u queues (of which %u were used) when the machine was saved, "
                   "and has %u",
                   queues, used, v->queues);
    else if (!state_saving(s))
        vhost_device_use(d, used);
}

/* ---- The device ---- */

/* Ends the thread, which may be about to wake queues that the frame frees next. */
static void close_device(struct virtio_device *d)
{
    struct vhost_device *v = vhost_device_of(d);

    if (v->started) {
        signal_thread(v->end);
        pthread_join(v->thread, NULL);
    }
    vhost_disconnect(&v->connection);
    vhost_rings_forget(v, false);
}

static void free_device(struct virtio_device *d)
{
    struct vhost_device *v = vhost_device_of(d);

    vhost_disconnect(&v->connection);
    for (unsigned i = 0; v->queue && v->files && i < v->queues; i++) {
        vhost_ring_free(&v->queue[i].ring);
        pthread_mutex_destroy(&v->queue[i].lock);
        if (v->files[i].kick >= 0)
            close(v->files[i].kick);
        if (v->files[i].call >= 0)
            close(v->files[i].call);
    }
    event_sender_close(&v->sender);
    if (v->wake >= 0)
        close(v->wake);
    if (v->end >= 0)
        close(v->end);
    pthread_mutex_destroy(&v->lock);
    free(v->queue);
    free(v->files);
    free(v->path);
    free(v);
}

static struct virtio_ops ops_of(const struct vhost_device_config *config)
{
    const struct vhost_kind *kind = config->kind;

    return (struct virtio_ops){
        .name = kind->name,
        .id = kind->id,
        .features = config->own_features,
        .queues = VIRTIO_QUEUES_MAX,
        .queue_size = VHOST_RING_SIZE,
        .config_size = kind->config_size,
        .serve = serve,
        .served = served,
        .recall = recall,
        .read_config = read_config,
        .accepted = accept_features,
        .reset = reset,
        .state = config->own_queue ? state : NULL,
        .close = close_device,
        .free = free_device,
    };
}

static int open_event_file(struct error *err)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    return fd >= 0 ? fd : error_set(err, errno, "cannot make an event file: %s", strerror(errno));
}

static int make_queues(struct vhost_device *v, struct error *err)
{
    v->queue = calloc(v->queues, sizeof(*v->queue));
    v->files = calloc(v->queues, sizeof(*v->files));
    if (!v->queue || !v->files)
        return error_set(err, ENOMEM, "no memory for queues");
    for (unsigned i = 0; i < v->queues; i++) {
        v->files[i] = (struct vhost_queue_files){-1, -1};
        pthread_mutex_init(&v->queue[i].lock, NULL);
    }
    for (unsigned i = 0; i < v->queues; i++) {
        int ret = vhost_ring_init(&v->queue[i].ring, err);

        if (ret < 0)
            return ret;
        v->files[i].kick = open_event_file(err);
        v->files[i].call = open_event_file(err);
        if (v->files[i].kick < 0 || v->files[i].call < 0)
            return -EMFILE;
    }
    return 0;
}

/* Takes over what the back end offers. */
static int take_offer(struct vhost_device *v, unsigned queues, struct error *err)
{
    unsigned most = MIN(v->connection.queues * v->kind->queues_each,
                        VIRTIO_QUEUES_MAX - (unsigned)v->own_queue);

    if (!(v->connection.features & BIT(VIRTIO_F_VERSION_1)))
        return error_set(err, EPROTO, "the back end knows only devices before virtio 1.0");
    if (queues > most || most == 0)
        return error_set(err, EINVAL, "the back end has %u queues, not %u", most, queues);
    v->queues = queues ? queues : MIN(most, v->kind->queues_default);
    v->device.queues = v->queues + v->own_queue;
    v->device.features = v->connection.features & v->kind->features;
    if (v->queues <= v->kind->queues_each)
        v->device.features &= ~v->kind->several;
    else if (v->own_queue && !(v->device.features & v->kind->several))
        return error_set(err, EINVAL, "the back end has one pair of queues, not %u",
                         v->queues / v->kind->queues_each);
    return 0;
}

static int prepare(struct vhost_device *v, unsigned queues, struct mem *mem, struct error *err)
{
    int ret = v->wake = open_event_file(err);

    if (ret >= 0)
        ret = v->end = open_event_file(err);
    if (ret >= 0)
        ret = event_sender_open(&v->sender, err);
    if (ret >= 0)
        ret = vhost_connect(&v->connection, v->path, v->end, err);
    if (ret >= 0) {
        v->connected = true;
        v->connected_at = time_now_ns();
        ret = take_offer(v, queues, err);
    }
    if (ret >= 0)
        ret = make_queues(v, err);
    if (ret >= 0)
        ret = vhost_fetch_config(v, v->config, err);
    v->parts = VHOST_PARTS_MAX;
    if (ret >= 0)
        ret = mem_export_ram(mem, v->part, &v->parts, err);
    return ret;
}

/* On failure V is freed. */
static struct dev *plug_in(struct vhost_device *v, const struct virtio_slot *slot,
                           struct error *err)
{
    struct dev *dev = virtio_pci_create(slot, &v->ops, &v->device, err);

    if (!dev) {
        free_device(&v->device);
        return NULL;
    }
    if (thread_start(&v->thread, v->kind->name, vhost_device_run, v, err) < 0) {
        dev->ops->free(dev); /* with V */
        return NULL;
    }
    v->started = true;
    return dev;
}

static struct vhost_device *make(const struct vhost_device_config *config)
{
    struct vhost_device *v = calloc(1, sizeof(*v));

    if (!v || !(v->path = strdup(config->path))) {
        free(v);
        return NULL;
    }
    v->kind = config->kind;
    v->ops = ops_of(config);
    v->own_queue = config->own_queue;
    v->log = config->log;
    v->wake = v->end = -1;
    v->sender = EVENT_SENDER_CLOSED;
    v->connection = (struct vhost_connection){.socket = -1, .backend = -1, .stop = -1};
    if (config->config)
        memcpy(v->config, config->config, v->kind->config_size);
    pthread_mutex_init(&v->lock, NULL);
    return v;
}

struct dev *vhost_device_create(const struct virtio_slot *slot,
                                const struct vhost_device_config *config, struct error *err)
{
    struct vhost_device *v = make(config);
    struct error why = {0};
    struct dev *dev;

    if (!v) {
        error_set(err, ENOMEM, "no memory for a %s", config->kind->thing);
        return NULL;
    }
    if (prepare(v, config->queues, slot->mem, &why) < 0) {
        error_set(err, why.code, "vhost-user=%s: %s", config->path, why.text);
        free_device(&v->device);
        return NULL;
    }
    dev = plug_in(v, slot, err);
    if (dev)
        log_line(config->log, LOG_LEVEL_INFO,
                 "%s: the back end maps all of guest memory, which is therefore exempt from "
                 "sharing and swapping",
                 config->path);
    return dev;
}

struct where *vhost_device_where(struct dev *dev)
{
    return &vhost_device_of(virtio_pci_device(dev))->where;
}

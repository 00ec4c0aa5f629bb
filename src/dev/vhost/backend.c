/*
 * The back end: the transport of its device, and the session with a front end.
 */
#include "dev/vhost/backend_private.h"

#include "base/raw_syscall.h"
#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define THREADS      4u
#define SEND_MS      1000
#define MESSAGE_MOST 64u /* are handled before the other files are looked at */

/* ---- The transport ---- */

/* Wakes the thread that serves. Any thread. */
static void wake(struct vhost_backend *b)
{
    uint64_t one = 1;

    if (write(b->event, &one, sizeof(one)) < 0)
        return; /* the counter is at its end: that thread is about to wake */
}

static void interrupt(void *opaque, enum virtio_cause cause, uint16_t vector)
{
    struct vhost_backend *b = opaque;

    if (cause == VIRTIO_CAUSE_QUEUE && vector < VIRTIO_QUEUES_MAX) {
        backend_queue_call(&b->queue[vector]);
    } else if (cause == VIRTIO_CAUSE_CONFIG) {
        atomic_store(&b->interrupted, true);
        wake(b);
    }
}

static void taken(void *opaque, unsigned queue, uint16_t head)
{
    struct vhost_backend *b = opaque;
    struct backend_queue *q = &b->queue[queue];

    if (q->inflight)
        inflight_take(q->inflight, head, &q->counter);
}

static void giving(void *opaque, unsigned queue, uint16_t head)
{
    struct vhost_backend *b = opaque;

    if (b->queue[queue].inflight)
        inflight_give(b->queue[queue].inflight, head);
}

static void given(void *opaque, unsigned queue, uint16_t head, uint16_t index)
{
    struct vhost_backend *b = opaque;

    if (b->queue[queue].inflight)
        inflight_given(b->queue[queue].inflight, head, index);
}

static const struct virtio_recorder recorder = {.taken = taken, .giving = giving, .given = given};

static void free_device(struct dev *dev)
{
    struct vhost_backend *b = container_of(dev, struct vhost_backend, dev);
    const struct virtio_ops *ops = b->device->ops;

    virtio_finish(b->device);
    ops->free(b->device);
    b->device = NULL;
}

static const struct dev_ops dev_ops = {.name = "vhost-user", .free = free_device};

static struct dev *plug_in(void *opaque, const struct virtio_ops *ops, struct virtio_device *device,
                           struct error *err)
{
    struct vhost_backend *b = opaque;
    const struct virtio_host host = {.bus = b->bus,
                                     .mem = b->mem,
                                     .loop = b->loop,
                                     .workers = b->workers,
                                     .interrupt = interrupt,
                                     .recorder = &recorder,
                                     .opaque = b};

    if (virtio_init(device, ops, &host, err) < 0)
        return NULL;
    b->device = device;
    virtio_pause(device);
    b->paused = true;
    return &b->dev;
}

struct virtio_slot vhost_backend_slot(struct vhost_backend *b)
{
    return (struct virtio_slot){.bus = b->bus,
                                .mem = b->mem,
                                .loop = b->loop,
                                .workers = b->workers,
                                .plug_in = plug_in,
                                .transport = b};
}

/* ---- The session ---- */

/* Tells the device of which queues the driver makes use. */
static void tell_use(struct vhost_backend *b)
{
    unsigned queues = 0;

    if (!b->device->ops->uses)
        return;
    while (queues < b->device->queues && b->queue[queues].live)
        queues++;
    bus_lock(b->bus);
    b->device->ops->uses(b->device, queues);
    bus_unlock(b->bus);
}

/* The device works if, and only if, a queue is live. */
static void go_on(struct vhost_backend *b)
{
    bool live = false;

    tell_use(b);
    for (unsigned i = 0; i < b->device->queues; i++)
        live |= b->queue[i].live;
    if (live && b->paused) {
        b->paused = false;
        virtio_resume(b->device);
    }
}

static int send_reply(struct vhost_backend *b, struct vhost_message *reply, struct error *err)
{
    int ret = vhost_send(b->socket, reply, SEND_MS, -1);

    vhost_close_fds(reply);
    return ret == 0 ? 0 : error_set(err, -ret, "cannot answer: %s", strerror(-ret));
}

/* Does what the message in the reader asks. What cannot be done ends the session, unless the front
 * end wants to hear of it. */
static int handle(struct vhost_backend *b, struct error *err)
{
    struct vhost_message *m = &b->reader.message;
    struct vhost_message reply = {.request = m->request, .flags = VHOST_VERSION | VHOST_REPLY};
    bool replies = false;
    int ret, sent = 0;

    if (!vhost_check(m))
        return error_set(err, EPROTO, "message %u of %u bytes with %u files is none of vhost-user",
                         m->request, m->size, m->fd_count);
    ret = backend_handle(b, m, &reply, &replies, err);
    if (ret < 0 && vhost_has_reply((enum vhost_request)m->request))
        replies = false;
    if (replies)
        sent = send_reply(b, &reply, err);
    /* Without its memory there is no going on. */
    if (ret < 0 && replies && sent == 0 && m->request != VHOST_SET_MEM_TABLE) {
        log_line(b->log, LOG_LEVEL_WARNING, "vhost-user: refused: %s", err->text);
        ret = 0;
    }
    go_on(b);
    return ret < 0 ? ret : sent;
}

/* Handles what has come. */
static int take_messages(struct vhost_backend *b, struct error *err)
{
    int ret = 0, got = 0;

    for (unsigned i = 0; i < MESSAGE_MOST && ret == 0; i++) {
        got = vhost_receive(&b->reader, b->socket);
        if (got <= 0)
            break;
        ret = handle(b, err);
    }
    if (ret < 0 || got >= 0)
        return ret;
    if (got == -ECONNRESET && b->reader.have == 0)
        return error_set(err, ECONNRESET, "the front end has left");
    return error_set(err, -got, "cannot read messages: %s", strerror(-got));
}

/* The driver has broken a rule: the device is not served until the front end starts it anew. */
static void tell_broken(struct vhost_backend *b)
{
    if (b->told_broken)
        return;
    b->told_broken = true;
    log_line(b->log, LOG_LEVEL_WARNING,
             "vhost-user: the guest's driver breaks the rules of virtio; its device needs a reset");
    for (unsigned i = 0; i < b->device->queues; i++)
        if (b->queue[i].error >= 0)
            event_signal(&b->sender, b->queue[i].error);
}

/* Passes on what the device has to say beside its queues. */
static void pass_on(struct vhost_backend *b)
{
    const struct vhost_message changed = {.request = VHOST_BACKEND_CONFIG_CHANGE,
                                          .flags = VHOST_VERSION};
    bool broken;

    if (!atomic_exchange(&b->interrupted, false))
        return;
    bus_lock(b->bus);
    broken = b->device->status & VIRTIO_NEEDS_RESET;
    bus_unlock(b->bus);
    if (broken)
        tell_broken(b);
    else if (b->requests >= 0 && (b->protocol & BIT(VHOST_PROTOCOL_CONFIG)))
        vhost_send(b->requests, &changed, 0, -1);
}

static int serve(struct vhost_backend *b, int stop, struct error *err)
{
    struct pollfd pfd[] = {{stop, POLLIN, 0}, {b->socket, POLLIN, 0}, {b->event, POLLIN, 0}};
    uint64_t count;

    for (;;) {
        if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
            continue;
        if (pfd[0].revents)
            return 0;
        if (pfd[2].revents && read(b->event, &count, sizeof(count)) > 0)
            pass_on(b);
        if (pfd[1].revents && take_messages(b, err) < 0)
            return -EPROTO;
        if (atomic_load(&b->lost))
            return error_set(err, EFAULT, "the front end has taken memory away that it shared");
    }
}

/* All as it was before the front end came. */
static void end_session(struct vhost_backend *b)
{
    backend_reset(b);
    backend_drop_inflight(b);
    backend_drop_memory(b);
    mem_forget_lost(b->mem);
    atomic_store(&b->lost, false);
    vhost_reader_drop(&b->reader);
    if (b->requests >= 0)
        close(b->requests);
    close(b->socket);
    b->socket = b->requests = -1;
    b->features = b->protocol = 0;
    b->told_broken = false;
}

/* Whether the session has ended in another way than that the front end has gone. */
static bool is_warning(const struct error *err)
{
    return err->code && err->code != ECONNRESET && err->code != EPIPE;
}

void vhost_backend_serve(struct vhost_backend *b, int socket, int stop)
{
    struct error err = {0};

    b->socket = socket;
    log_line(b->log, LOG_LEVEL_INFO, "vhost-user: a front end has come");
    serve(b, stop, &err);
    log_line(b->log, is_warning(&err) ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
             "vhost-user: the session ends%s%s", err.code ? ": " : "", err.text);
    end_session(b);
}

/* ---- The back end ---- */

/* In a signal handler, on whatever thread has touched the memory. */
SIGNALS_SAFE static void memory_lost(void *opaque)
{
    struct vhost_backend *b = opaque;
    uint64_t one = 1;

    atomic_store(&b->lost, true);
    raw_syscall(SYS_write, b->event, (long)&one, sizeof(one), 0, 0, 0);
}

static int prepare(struct vhost_backend *b, struct error *err)
{
    b->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->event < 0)
        return error_set(err, errno, "cannot make an event file: %s", strerror(errno));
    if (event_sender_open(&b->sender, err) < 0)
        return -ENOMEM;
    b->bus = bus_create(err);
    b->mem = mem_create_empty(err);
    b->loop = loop_create(err);
    b->workers = workers_create("backend", THREADS, err);
    if (!b->bus || !b->mem || !b->loop || !b->workers)
        return -ENOMEM;
    mem_on_lost(b->mem, memory_lost, b);
    return loop_start(b->loop, err);
}

struct vhost_backend *vhost_backend_create(const struct log *log, struct error *err)
{
    struct vhost_backend *b = calloc(1, sizeof(*b));

    if (!b) {
        error_set(err, ENOMEM, "no memory for a back end");
        return NULL;
    }
    b->log = log;
    b->sender = EVENT_SENDER_CLOSED;
    b->dev.ops = &dev_ops;
    b->socket = b->requests = -1;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        backend_queue_init(b, i);
    if (prepare(b, err) < 0) {
        vhost_backend_destroy(b);
        return NULL;
    }
    return b;
}

void vhost_backend_destroy(struct vhost_backend *b)
{
    if (!b)
        return;
    if (b->device)
        free_device(&b->dev);
    if (b->workers)
        workers_destroy(b->workers);
    if (b->loop)
        loop_destroy(b->loop);
    mem_destroy(b->mem);
    if (b->bus)
        bus_destroy(b->bus);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        backend_queue_free(&b->queue[i]);
    event_sender_close(&b->sender);
    if (b->event >= 0)
        close(b->event);
    free(b);
}

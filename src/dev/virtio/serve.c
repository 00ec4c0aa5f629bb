/*
 * Serving virtqueues: workers that take chains, and requests that end on any thread.
 *
 *      idle --doorbell, wake--> serving --the last chain is taken--> in flight --> idle
 *                                  '------------- nothing is -------------------'
 *
 * A queue's rings are pinned from its first request to its last, so that ending a request cannot
 * fail. A queue that is not idle counts in device->busy, for which resets and pauses wait.
 */
#include "dev/virtio/serve.h"

#include "base/util.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A worker gives way to the pool's other work after as many chains. */
#define CHAINS_AT_ONCE 64

#define FEWEST_BUFFERS 8u

void virtio_notify(struct virtio_device *d, uint64_t queue)
{
    if (queue < d->queues)
        workers_post(&d->queue[queue].work);
}

void virtio_wake(struct virtio_device *d, unsigned queue)
{
    workers_post(&d->queue[queue].work);
}

void virtio_look_at_queues(struct virtio_device *d)
{
    for (unsigned i = 0; i < d->queues; i++)
        workers_post(&d->queue[i].work);
}

/* Marks the device as one whose driver has broken a rule, and has the loop say so. Any thread. */
static void mark_broken(struct virtio_device *d)
{
    pthread_mutex_lock(&d->lock);
    d->broken = true;
    d->live = false;
    pthread_mutex_unlock(&d->lock);
    virtio_look_at_queues(d);
    loop_post(d->host.loop, &d->job);
}

void virtio_update_recalled(struct virtio_device *d)
{
    atomic_store(&d->recalled, d->stopping || d->resetting);
}

bool virtio_recalled(const struct virtio_device *d)
{
    return atomic_load(&d->recalled);
}

static void interrupt(struct virtio_queue *q)
{
    const struct virtio_host *host = &q->device->host;

    host->interrupt(host->opaque, VIRTIO_CAUSE_QUEUE, atomic_load(&q->vector));
}

/* ---- Busy and idle: the queue's lock is held ---- */

/* Has the queue count as busy, if it may be served now. */
static bool become_busy(struct virtio_queue *q)
{
    struct virtio_device *d = q->device;
    bool may;

    pthread_mutex_lock(&d->lock);
    may = d->live && q->enabled && !d->stopping;
    if (may && !q->busy)
        d->busy++;
    q->busy |= may;
    pthread_mutex_unlock(&d->lock);
    return may;
}

/* If nothing is left to do, the rings are unpinned, and who waits for the device hears of it: a
 * pause, or the loop for a reset. */
static void become_idle(struct virtio_queue *q)
{
    struct virtio_device *d = q->device;

    if (!q->busy || q->serving || q->in_flight || q->completing)
        return;
    if (q->open)
        virtqueue_close(&q->ring);
    q->open = q->busy = false;
    pthread_mutex_lock(&d->lock);
    if (--d->busy == 0) {
        pthread_cond_broadcast(&d->idle);
        if (d->resetting)
            loop_post(d->host.loop, &d->job);
    }
    pthread_mutex_unlock(&d->lock);
}

/* Sends the interrupt, if there is one to send, without the lock: it wakes a vCPU. */
static void tell(struct virtio_queue *q)
{
    if (!q->open || !virtqueue_wants_interrupt(&q->ring))
        return;
    q->completing++;
    pthread_mutex_unlock(&q->lock);
    interrupt(q);
    pthread_mutex_lock(&q->lock);
    q->completing--;
}

/* ---- Requests ---- */

/* Copies the chain's buffers into the request. False: there is no memory. */
static bool copy_chain(struct virtio_request *r, const struct virtqueue_chain *chain)
{
    unsigned count = chain->readable + chain->writable;

    if (count > r->room) {
        unsigned room = MAX(r->room, FEWEST_BUFFERS);

        while (room < count)
            room *= 2;
        free(r->buffers);
        r->buffers = malloc(room * sizeof(*r->buffers));
        r->room = r->buffers ? room : 0;
        if (!r->buffers)
            return false;
    }
    memcpy(r->buffers, chain->buffer, count * sizeof(*r->buffers));
    r->chain = *chain;
    r->chain.buffer = r->buffers;
    return true;
}

/* A request that is not in use. NULL: the driver has made more chains available than its queue has
 * entries. With the lock. */
static struct virtio_request *unused_request(struct virtio_queue *q)
{
    struct virtio_request *r = q->unused;

    if (q->in_flight + q->held_count >= q->config.size)
        return NULL;
    if (r)
        q->unused = r->next;
    else
        r = (struct virtio_request *)(q->requests + q->device->request_stride * q->fresh++);
    return r;
}

/* Ends the request for the device. With the lock. */
static void release(struct virtio_request *r)
{
    struct virtio_queue *q = r->queue;

    r->next = q->unused;
    q->unused = r;
    q->in_flight--;
}

/* Makes a request of the chain, which is then in flight. NULL: the driver has broken a rule, or
 * there is no memory. */
static struct virtio_request *begin_request(struct virtio_queue *q,
                                            const struct virtqueue_chain *chain, uint64_t sequence)
{
    struct virtio_request *r;

    pthread_mutex_lock(&q->lock);
    r = unused_request(q);
    q->in_flight += r != NULL;
    pthread_mutex_unlock(&q->lock);
    if (!r)
        return NULL;
    r->queue = q;
    r->sequence = sequence;
    if (copy_chain(r, chain))
        return r;
    pthread_mutex_lock(&q->lock);
    release(r);
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

/* Keeps the chain for later, among the held ones, in the order of taking. With the lock. */
static void hold_chain(struct virtio_request *r)
{
    struct virtio_queue *q = r->queue;
    unsigned at = q->held_count++;

    for (; at > 0 && q->held[at - 1].sequence > r->sequence; at--)
        q->held[at] = q->held[at - 1];
    q->held[at] = (struct virtio_held){.sequence = r->sequence, .head = r->chain.head};
    release(r);
}

/* Takes the first chain that is held. */
static bool take_held(struct virtio_queue *q, struct virtio_held *first)
{
    bool any;

    pthread_mutex_lock(&q->lock);
    any = q->held_count > 0;
    if (any) {
        *first = q->held[0];
        memmove(&q->held[0], &q->held[1], --q->held_count * sizeof(q->held[0]));
    }
    pthread_mutex_unlock(&q->lock);
    return any;
}

/* What completes on the worker while it serves is told of at the end of its batch. */
static bool in_batch(const struct virtio_queue *q)
{
    return q->serving && pthread_equal(q->worker, pthread_self());
}

/* With the lock. */
static void put_used(struct virtio_queue *q, const struct virtio_completion *done, unsigned count)
{
    const struct virtio_host *host = &q->device->host;

    for (unsigned i = 0; i < count; i++) {
        if (host->recorder)
            host->recorder->giving(host->opaque, q->index, done[i].request->chain.head);
        virtqueue_put(&q->ring, i, done[i].request->chain.head, done[i].written);
    }
    virtqueue_publish(&q->ring, count);
    for (unsigned i = 0; host->recorder && i < count; i++)
        host->recorder->given(host->opaque, q->index, done[i].request->chain.head, q->ring.done);
}

void virtio_complete_all(const struct virtio_completion *done, unsigned count)
{
    struct virtio_queue *q = done->request->queue;

    pthread_mutex_lock(&q->lock);
    put_used(q, done, count);
    for (unsigned i = 0; i < count; i++)
        release(done[i].request);
    if (!in_batch(q))
        tell(q);
    become_idle(q);
    pthread_mutex_unlock(&q->lock);
}

void virtio_complete(struct virtio_request *r, uint32_t written)
{
    virtio_complete_all(&(struct virtio_completion){.request = r, .written = written}, 1);
}

void virtio_give_back(struct virtio_request *r)
{
    struct virtio_queue *q = r->queue;

    pthread_mutex_lock(&q->lock);
    hold_chain(r);
    become_idle(q);
    pthread_mutex_unlock(&q->lock);
}

void virtio_break(struct virtio_request *r)
{
    struct virtio_queue *q = r->queue;

    mark_broken(q->device);
    pthread_mutex_lock(&q->lock);
    release(r);
    become_idle(q);
    pthread_mutex_unlock(&q->lock);
}

/* ---- Serving: on a worker, without locks ---- */

/* Called by guest memory when something is unpinned. */
static void pins_released(void *opaque)
{
    struct virtio_queue *q = opaque;

    atomic_store(&q->waits_for_pins, false);
    workers_post(&q->work);
}

/* Whether to go on with the next chain: the driver may have reset the device, or a pause may wait
 * for this worker. */
static bool still_live(struct virtio_device *d)
{
    bool live;

    pthread_mutex_lock(&d->lock);
    live = d->live && !d->stopping;
    pthread_mutex_unlock(&d->lock);
    return live;
}

enum progress { GO_ON, RETRY, REST, RULE_BROKEN };

/* Has the queue rest until something is unpinned. That may have happened since the failure, so it
 * tries once more first. */
static enum progress wait_for_pins(struct virtio_queue *q)
{
    if (atomic_exchange(&q->waits_for_pins, true))
        return REST;
    mem_pin_await(q->device->host.mem, &q->pin_waiter);
    return RETRY;
}

static enum progress serve_request(struct virtio_queue *q, struct virtio_request *r)
{
    enum virtio_result result = q->device->ops->serve(q->device, r);

    /* What was taken may be another request by now. */
    if (result == VIRTIO_TAKEN)
        return GO_ON;
    pthread_mutex_lock(&q->lock);
    if (result == VIRTIO_BROKEN)
        release(r);
    else
        hold_chain(r);
    pthread_mutex_unlock(&q->lock);
    if (result == VIRTIO_NO_PINS)
        return wait_for_pins(q);
    return result == VIRTIO_BROKEN ? RULE_BROKEN : REST;
}

/* Takes a chain, of those that are held first, and makes a request of it. Returns 1, 0 if there is
 * none, or VIRTQUEUE_BROKEN. */
static int take_request(struct virtio_queue *q, struct virtio_request **r)
{
    const struct virtio_host *host = &q->device->host;
    struct virtqueue_chain chain;
    struct virtio_held held;
    int got;

    if (take_held(q, &held)) {
        got = virtqueue_again(&q->ring, held.head, &chain);
    } else {
        held.sequence = q->sequence++;
        got = virtqueue_next(&q->ring, &chain);
        if (got == 0)
            return 0;
        if (got > 0 && host->recorder)
            host->recorder->taken(host->opaque, q->index, chain.head);
    }
    *r = got > 0 ? begin_request(q, &chain, held.sequence) : NULL;
    return *r ? 1 : VIRTQUEUE_BROKEN;
}

int virtio_take_more(struct virtio_queue *q, struct virtio_request **r)
{
    int got = take_request(q, r);

    /* One may have come meanwhile, of which the driver does not notify. */
    return got == 0 && virtqueue_await(&q->ring) ? take_request(q, r) : got;
}

static enum progress serve_chain(struct virtio_queue *q)
{
    struct virtio_request *r;
    int got = take_request(q, &r);

    if (got == 0)
        return virtqueue_await(&q->ring) ? GO_ON : REST;
    return got > 0 ? serve_request(q, r) : RULE_BROKEN;
}

/* Pins the rings, unless requests in flight have them pinned. No other thread does it meanwhile. */
static bool open_rings(struct virtio_queue *q, bool open)
{
    if (!open && virtqueue_open(&q->ring) < 0)
        return false;
    pthread_mutex_lock(&q->lock);
    q->open = true;
    pthread_mutex_unlock(&q->lock);
    return true;
}

static enum progress serve_batch(struct virtio_queue *q, bool open)
{
    struct virtio_device *d = q->device;
    enum progress progress = GO_ON;

    if (!open_rings(q, open))
        return RULE_BROKEN;
    for (unsigned i = 0; i < CHAINS_AT_ONCE && progress == GO_ON && still_live(d); i++)
        progress = serve_chain(q);
    if (d->ops->served)
        d->ops->served(d, q->index);
    return progress;
}

/* The queue's work. */
static void serve(void *opaque)
{
    struct virtio_queue *q = opaque;
    enum progress progress;
    bool open;

    pthread_mutex_lock(&q->lock);
    q->serving = become_busy(q);
    q->worker = pthread_self();
    open = q->open;
    if (!q->serving) {
        pthread_mutex_unlock(&q->lock);
        return;
    }
    pthread_mutex_unlock(&q->lock);
    progress = serve_batch(q, open);
    if (progress == RULE_BROKEN)
        mark_broken(q->device);
    if (progress == GO_ON || progress == RETRY)
        workers_post(&q->work);
    pthread_mutex_lock(&q->lock);
    q->serving = false;
    tell(q);
    become_idle(q);
    pthread_mutex_unlock(&q->lock);
}

/* ---- Stopping and going on ---- */

static void wait_until_idle(struct virtio_device *d)
{
    pthread_mutex_lock(&d->lock);
    while (d->busy)
        pthread_cond_wait(&d->idle, &d->lock);
    pthread_mutex_unlock(&d->lock);
    /* Who has ended the last request may still be about to leave the queue's lock. */
    for (unsigned i = 0; i < d->queues; i++) {
        pthread_mutex_lock(&d->queue[i].lock);
        pthread_mutex_unlock(&d->queue[i].lock);
    }
}

static void set_stopping(struct virtio_device *d, bool stopping)
{
    pthread_mutex_lock(&d->lock);
    d->stopping = stopping;
    virtio_update_recalled(d);
    pthread_mutex_unlock(&d->lock);
}

void virtio_stop_queues(struct virtio_device *d)
{
    set_stopping(d, true); /* first: workers may be in the middle of long batches */
    for (unsigned i = 0; i < d->queues; i++)
        workers_pause(&d->queue[i].work);
    if (d->ops->recall)
        d->ops->recall(d);
    wait_until_idle(d);
}

void virtio_go_on(struct virtio_device *d)
{
    set_stopping(d, false);
    for (unsigned i = 0; i < d->queues; i++)
        workers_resume(&d->queue[i].work);
    virtio_look_at_queues(d);
}

/* ---- A queue ---- */

void virtio_queue_forget(struct virtio_queue *q)
{
    pthread_mutex_lock(&q->lock);
    assert(!q->busy);
    q->held_count = 0;
    q->sequence = 0;
    pthread_mutex_unlock(&q->lock);
}

bool virtio_queue_hold(struct virtio_queue *q, uint16_t head)
{
    bool fits;

    pthread_mutex_lock(&q->lock);
    fits = head < q->config.size && q->held_count < q->config.size;
    if (fits)
        q->held[q->held_count++] = (struct virtio_held){.sequence = q->sequence++, .head = head};
    pthread_mutex_unlock(&q->lock);
    return fits;
}

void virtio_queue_held_state(struct virtio_queue *q, struct state *s)
{
    uint16_t head[VIRTQUEUE_SIZE_MAX] = {0}, count = (uint16_t)q->held_count;

    for (unsigned i = 0; i < q->held_count; i++)
        head[i] = q->held[i].head;
    state_field(s, count);
    if (!state_saving(s) && count > q->device->ops->queue_size) {
        state_fail(s, "%u chains in a queue of %u", count, q->device->ops->queue_size);
        count = 0;
    }
    if (count)
        state_bytes(s, head, count * sizeof(head[0]));
    if (state_saving(s))
        return;
    for (unsigned i = 0; i < count; i++)
        q->held[i] = (struct virtio_held){.sequence = i, .head = head[i]};
    q->held_count = count;
    q->sequence = count;
}

int virtio_queue_init(struct virtio_device *d, unsigned index, struct error *err)
{
    struct virtio_queue *q = &d->queue[index];
    unsigned most = d->ops->queue_size;
    int ret = virtqueue_init(&q->ring, d->host.mem, most, err);

    if (ret < 0)
        return ret;
    q->device = d;
    q->index = index;
    q->pin_waiter = (struct mem_pin_waiter){.run = pins_released, .opaque = q};
    pthread_mutex_init(&q->lock, NULL);
    q->requests = calloc(most, d->request_stride);
    q->held = calloc(most, sizeof(q->held[0]));
    if (!q->requests || !q->held)
        ret = error_set(err, ENOMEM, "no memory for a device (%s)", d->ops->name);
    if (ret == 0)
        ret = workers_add(d->host.workers, &q->work, serve, q, err);
    if (ret < 0)
        virtio_queue_free(q);
    return ret;
}

void virtio_queue_free(struct virtio_queue *q)
{
    struct virtio_device *d = q->device;

    mem_pin_forget(d->host.mem, &q->pin_waiter); /* which posts the work */
    workers_remove(&q->work);
    for (unsigned i = 0; i < q->fresh; i++)
        free(((struct virtio_request *)(q->requests + d->request_stride * i))->buffers);
    free(q->requests);
    free(q->held);
    virtqueue_free(&q->ring);
    pthread_mutex_destroy(&q->lock);
}

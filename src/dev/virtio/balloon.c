/*
 * The virtio balloon (Virtual I/O Device specification 1.2, 5.5).
 *
 *      queue 0    inflate: numbers of pages that the guest does without
 *      queue 1    deflate: and that it uses again
 *      then       statistics, and reports of free pages, if the driver has accepted these features.
 *                 The numbers of these queues are those that Linux and QEMU use: without the
 *                 queues of features that are not offered.
 *
 *      worker: serve --> batch of up to 1,024 changes --> memory manager's thread: done
 *                             ^                                     |
 *                             '------------ more of the chain <-----'--> virtio_complete
 */
#include "dev/virtio/balloon.h"

#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define F_STATS_VQ       1
#define F_DEFLATE_ON_OOM 2
#define F_PAGE_REPORTING 5

#define INFLATE 0
#define DEFLATE 1
#define QUEUES  4

/* Numbers of pages in one request: Linux sends 256 at most. */
#define MOST_PAGES 65536u

/* Device configuration (5.5.4), in pages. */
struct config {
    uint32_t target, actual;
};

struct stat {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));
#define MOST_STATS 64

/* A request that inflates or reports. */
struct give {
    struct mem_batch batch;
    uint64_t done;   /* inflating: page numbers; reporting: bytes of the buffer */
    unsigned buffer; /* reporting: which one */
    struct mem_change changes[MEM_BATCH_MAX];
};

struct balloon {
    struct virtio_device device;
    int (*post)(struct mem *mem, struct mem_batch *batch);

    pthread_mutex_t lock; /* a leaf; guards the rest */
    struct config config;
    bool wanted;   /* virtio_balloon_ask has asked for statistics */
    bool answered; /* the statistics queue's chain has been read */
    unsigned answers;
    uint64_t stat[BALLOON_STATS];
};

static struct balloon *balloon_of(struct virtio_device *d)
{
    return container_of(d, struct balloon, device);
}

/* ---- Pages that are given back ---- */

static void add_change(struct give *give, uint64_t gpn)
{
    give->changes[give->batch.count++] = (struct mem_change){.kind = MEM_BALLOON, .gpn = gpn};
}

/* Puts the next page numbers of an inflating request into the batch. False: they are not in memory.
 */
static bool collect_numbers(struct virtio_request *r, struct give *give)
{
    uint32_t numbers[MEM_BATCH_MAX];
    uint64_t count = MIN(r->chain.readable_bytes / sizeof(numbers[0]) - give->done, MEM_BATCH_MAX);

    if (virtio_read_at(r, give->done * sizeof(numbers[0]), numbers, count * sizeof(numbers[0])) < 0)
        return false;
    for (uint64_t i = 0; i < count; i++)
        add_change(give, numbers[i]);
    give->done += count;
    return true;
}

/* Puts the next whole pages of a report's buffers into the batch. */
static void collect_reported(struct virtio_request *r, struct give *give)
{
    const struct virtqueue_buffer *buffers = r->chain.buffer + r->chain.readable;

    while (give->buffer < r->chain.writable && give->batch.count < MEM_BATCH_MAX) {
        const struct virtqueue_buffer *b = &buffers[give->buffer];
        uint64_t gpa = ALIGN_UP(b->gpa + give->done, MEM_PAGE_SIZE);

        /* A sum that wraps is smaller; no such page is RAM. */
        if (gpa < b->gpa || gpa + MEM_PAGE_SIZE < gpa || gpa + MEM_PAGE_SIZE > b->gpa + b->size) {
            give->buffer++;
            give->done = 0;
            continue;
        }
        add_change(give, gpa >> MEM_PAGE_SHIFT);
        give->done = gpa + MEM_PAGE_SIZE - b->gpa;
    }
}

/* Has the next pages given back, or completes the request. Pages that cannot be (they are not RAM,
 * or in use) are left as they are. On a worker, then on the memory manager's thread. */
static void give_next(struct virtio_request *r)
{
    struct balloon *b = balloon_of(r->queue->device);
    struct give *give = virtio_request_data(r);

    /* When it is served again, it begins anew, which does no harm: the guest still waits. */
    if (virtio_recalled(&b->device)) {
        virtio_give_back(r);
        return;
    }
    give->batch.count = 0;
    if (r->queue->index != INFLATE) {
        collect_reported(r, give);
    } else if (!collect_numbers(r, give)) {
        virtio_break(r);
        return;
    }
    if (!give->batch.count || b->post(b->device.host.mem, &give->batch) < 0)
        virtio_complete(r, 0);
}

static void batch_done(struct mem_batch *batch)
{
    give_next(batch->opaque);
}

static enum virtio_result give_back(struct virtio_request *r)
{
    struct give *give = virtio_request_data(r);

    if (r->chain.readable_bytes / sizeof(uint32_t) > MOST_PAGES)
        return VIRTIO_BROKEN;
    give->batch = (struct mem_batch){.changes = give->changes, .done = batch_done, .opaque = r};
    give->done = 0;
    give->buffer = 0;
    give_next(r);
    return VIRTIO_TAKEN;
}

/* A page that was given back is there again when it is touched: nothing is to be done. */
static enum virtio_result deflate(struct virtio_request *r)
{
    virtio_complete(r, 0);
    return VIRTIO_TAKEN;
}

/* ---- Statistics: the driver's chain is kept until virtio_balloon_ask ---- */

/* Takes over what the driver says. With the lock. */
static void take_stats(struct balloon *b, const struct stat *stats, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (stats[i].tag < BALLOON_STATS)
            b->stat[stats[i].tag] = stats[i].value;
    b->answers++;
    b->answered = true;
}

static enum virtio_result serve_stats(struct balloon *b, struct virtio_request *r)
{
    struct stat stats[MOST_STATS];
    size_t count = MIN(r->chain.readable_bytes / sizeof(stats[0]), MOST_STATS);
    bool give;

    if (virtio_read_at(r, 0, stats, count * sizeof(stats[0])) < 0)
        return VIRTIO_BROKEN;
    pthread_mutex_lock(&b->lock);
    if (!b->answered)
        take_stats(b, stats, count);
    give = b->wanted;
    if (give)
        b->wanted = b->answered = false;
    pthread_mutex_unlock(&b->lock);
    if (!give)
        return VIRTIO_WAIT;
    virtio_complete(r, 0);
    return VIRTIO_TAKEN;
}

/* ---- The device ---- */

/* The statistics queue, if the driver has accepted it. */
static unsigned stats_queue(const struct balloon *b)
{
    return virtio_accepted(&b->device, F_STATS_VQ) ? DEFLATE + 1 : QUEUES;
}

static unsigned reporting_queue(const struct balloon *b)
{
    if (!virtio_accepted(&b->device, F_PAGE_REPORTING))
        return QUEUES;
    return virtio_accepted(&b->device, F_STATS_VQ) ? DEFLATE + 2 : DEFLATE + 1;
}

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct balloon *b = balloon_of(d);
    unsigned queue = r->queue->index;

    if (queue == DEFLATE)
        return deflate(r);
    if (queue == stats_queue(b))
        return serve_stats(b, r);
    if (queue == INFLATE || queue == reporting_queue(b))
        return give_back(r);
    return VIRTIO_BROKEN;
}

static void read_config(struct virtio_device *d, void *image)
{
    struct balloon *b = balloon_of(d);

    pthread_mutex_lock(&b->lock);
    memcpy(image, &b->config, sizeof(b->config));
    pthread_mutex_unlock(&b->lock);
}

/* The driver says how large the balloon is. */
static void write_config(struct virtio_device *d, const void *image, unsigned offset, unsigned size)
{
    struct balloon *b = balloon_of(d);
    struct config config;

    memcpy(&config, image, sizeof(config));
    pthread_mutex_lock(&b->lock);
    b->config.actual = config.actual;
    pthread_mutex_unlock(&b->lock);
}

static void forget_stats(struct balloon *b)
{
    b->wanted = b->answered = false;
    memset(b->stat, 0xFF, sizeof(b->stat));
}

static void reset(struct virtio_device *d)
{
    struct balloon *b = balloon_of(d);

    pthread_mutex_lock(&b->lock);
    b->config.actual = 0;
    forget_stats(b);
    pthread_mutex_unlock(&b->lock);
}

static void state(struct virtio_device *d, struct state *s)
{
    struct balloon *b = balloon_of(d);

    pthread_mutex_lock(&b->lock);
    state_field(s, b->config.target);
    state_field(s, b->config.actual);
    state_bool(s, &b->wanted);
    state_bool(s, &b->answered);
    state_field(s, b->stat);
    pthread_mutex_unlock(&b->lock);
}

static void free_balloon(struct virtio_device *d)
{
    struct balloon *b = balloon_of(d);

    pthread_mutex_destroy(&b->lock);
    free(b);
}

static const struct virtio_ops ops = {
    .name = "virtio-balloon",
    .id = 5,
    .features = 1 << F_STATS_VQ | 1 << F_DEFLATE_ON_OOM | 1 << F_PAGE_REPORTING,
    .queues = QUEUES,
    .queue_size = 128,
    .config_size = sizeof(struct config),
    .request_size = sizeof(struct give),
    .serve = serve,
    .read_config = read_config,
    .write_config = write_config,
    .reset = reset,
    .state = state,
    .free = free_balloon,
};

static uint32_t pages(uint64_t bytes)
{
    return (uint32_t)MIN(bytes / MEM_PAGE_SIZE, UINT32_MAX);
}

struct dev *virtio_balloon_create(const struct virtio_slot *slot,
                                  const struct virtio_balloon_config *config, struct error *err)
{
    struct balloon *b = calloc(1, sizeof(*b));
    struct dev *dev;

    if (!b) {
        error_set(err, ENOMEM, "no memory for a device (%s)", ops.name);
        return NULL;
    }
    b->post = config->post;
    b->config.target = pages(config->target);
    forget_stats(b);
    pthread_mutex_init(&b->lock, NULL);
    dev = virtio_pci_create(slot, &ops, &b->device, err);
    if (!dev)
        free_balloon(&b->device);
    return dev;
}

void virtio_balloon_set_target(struct dev *dev, uint64_t bytes)
{
    struct balloon *b = balloon_of(virtio_pci_device(dev));

    bus_lock(b->device.host.bus);
    pthread_mutex_lock(&b->lock);
    b->config.target = pages(bytes);
    pthread_mutex_unlock(&b->lock);
    virtio_config_changed(&b->device);
    bus_unlock(b->device.host.bus);
}

void virtio_balloon_ask(struct dev *dev)
{
    struct balloon *b = balloon_of(virtio_pci_device(dev));

    pthread_mutex_lock(&b->lock);
    b->wanted = true;
    pthread_mutex_unlock(&b->lock);
    for (unsigned i = DEFLATE + 1; i < QUEUES; i++)
        virtio_wake(&b->device, i); /* whichever it is */
}

void virtio_balloon_look(struct dev *dev, struct virtio_balloon_state *state)
{
    struct balloon *b = balloon_of(virtio_pci_device(dev));

    pthread_mutex_lock(&b->lock);
    state->target = (uint64_t)b->config.target * MEM_PAGE_SIZE;
    state->actual = (uint64_t)b->config.actual * MEM_PAGE_SIZE;
    state->answers = b->answers;
    memcpy(state->stat, b->stat, sizeof(state->stat));
    pthread_mutex_unlock(&b->lock);
}

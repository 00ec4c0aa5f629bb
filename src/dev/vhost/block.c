/*
 * The virtio block device whose disk a back end of vhost-user serves (virtio 1.2, 5.2).
 */
#include "dev/vhost/block.h"

#include "base/event.h"
#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "dev/vhost/drain.h"
#include "dev/vhost/frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define BIT(N) (UINT64_C(1) << (N))

/* Features of block devices that are handed through (5.2.3): SIZE_MAX, SEG_MAX, GEOMETRY, RO,
 * BLK_SIZE, FLUSH, TOPOLOGY, MQ, DISCARD, WRITE_ZEROES. */
#define F_MQ 12
#define FEATURES                                                                                   \
    (BIT(1) | BIT(2) | BIT(4) | BIT(5) | BIT(6) | BIT(9) | BIT(10) | BIT(F_MQ) | BIT(13) | BIT(14))

/* Features of the rings that are shared with the back end. */
#define RING_FEATURES (BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC))

#define QUEUE_SIZE     VHOST_RING_SIZE
#define QUEUES_DEFAULT 16u

/* The device configuration (5.2.4): capacity first. */
#define CONFIG_SIZE    60u
#define CONFIG_SEG_MAX 12u
#define CONFIG_QUEUES  34u
#define CHAIN_OVERHEAD 2u /* descriptors of a request beside its segments */

/* How long the thread waits between attempts to connect. */
#define FIRST_RETRY_NS (50 * NS_PER_MS)
#define LAST_RETRY_NS  NS_PER_S

struct queue {
    pthread_mutex_t lock;
    bool runs; /* requests may be added */
    bool full; /* one could not be: the queue is to be woken when there is room */
    struct vhost_ring ring;
    unsigned out; /* requests that the back end has */
};

struct vhost_block {
    struct virtio_device device;
    char *path;
    const struct log *log;
    unsigned queues;
    struct queue *queue;
    struct vhost_queue_files *files;
    struct mem_export part[VHOST_PARTS_MAX];
    unsigned parts;
    uint8_t config[CONFIG_SIZE]; /* board lock */

    pthread_mutex_t lock; /* what is wanted of the thread */
    bool accepted;        /* a driver and the device have agreed on FEATURES */
    uint64_t features;
    unsigned epoch; /* counts changes of these two */

    pthread_t thread;
    bool started;
    struct where where;
    int wake, end;              /* eventfds that the back end does not have. END: the thread ends */
    struct event_sender sender; /* for kicks */

    /* The thread's. */
    struct vhost_connection connection;
    bool connected;
    bool followed; /* the back end does what was wanted in EPOCH_FOLLOWED */
    unsigned epoch_followed;
    bool serving;   /* which was to serve */
    int complained; /* the code of the last failure that was logged; 0: none since success */
    uint64_t retry_at, retry_after;
    struct vhost_drain drain;
    int rings; /* the rings' file, and where it is mapped */
    uint8_t *memory;
};

static struct vhost_block *block_of(struct virtio_device *d)
{
    return container_of(d, struct vhost_block, device);
}

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

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct queue *q = &block_of(d)->queue[r->queue->index];
    const struct virtqueue_chain *chain = &r->chain;
    enum virtio_result result = VIRTIO_WAIT;

    if (!all_memory(d->host.mem, chain))
        return VIRTIO_BROKEN;
    pthread_mutex_lock(&q->lock);
    if (q->runs) {
        q->full = vhost_ring_add(&q->ring, chain->buffer, chain->readable, chain->writable, r) < 0;
        q->out += !q->full;
        result = q->full ? VIRTIO_WAIT : VIRTIO_TAKEN;
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

static void served(struct virtio_device *d, unsigned queue)
{
    struct vhost_block *b = block_of(d);
    struct queue *q = &b->queue[queue];
    bool kick;
    int ret;

    pthread_mutex_lock(&q->lock);
    kick = q->runs && vhost_ring_wants_kick(&q->ring);
    pthread_mutex_unlock(&q->lock);
    ret = kick ? event_signal(&b->sender, b->files[queue].kick) : 0;
    if (ret < 0)
        log_line(b->log, LOG_LEVEL_WARNING, "%s: cannot tell the back end of requests: %s", b->path,
                 strerror(-ret));
    /* What was added after recall() is waited for, too. */
    if (virtio_recalled(d))
        signal_thread(b->wake);
}

/* ---- Registers: board lock held ---- */

static void recall(struct virtio_device *d)
{
    signal_thread(block_of(d)->wake);
}

static void read_config(struct virtio_device *d, void *config)
{
    memcpy(config, block_of(d)->config, CONFIG_SIZE);
}

/* Changes what is wanted of the thread. No request is in flight. */
static void agree(struct vhost_block *b, bool accepted, uint64_t features)
{
    pthread_mutex_lock(&b->lock);
    b->accepted = accepted;
    b->features = features;
    b->epoch++;
    for (unsigned i = 0; i < b->queues; i++) {
        pthread_mutex_lock(&b->queue[i].lock);
        b->queue[i].runs = false;
        pthread_mutex_unlock(&b->queue[i].lock);
    }
    pthread_mutex_unlock(&b->lock);
    signal_thread(b->wake);
}

static void accept_features(struct virtio_device *d, uint64_t features)
{
    agree(block_of(d), true, features);
}

static void reset(struct virtio_device *d)
{
    agree(block_of(d), false, 0);
}

/* ---- The thread: ends of requests ---- */

/* Ends a request that the back end has given back. */
static void end_request(struct vhost_block *b, struct virtio_request *r, uint32_t written)
{
    const struct virtqueue_chain *chain = &r->chain;

    /* What it says of how much it wrote is not believed. */
    for (unsigned i = chain->readable; i < chain->readable + chain->writable; i++)
        mem_foreign_written(b->device.host.mem, chain->buffer[i].gpa, chain->buffer[i].size);
    virtio_complete(r, written);
}

/* Takes the next request that has ended. As vhost_ring_take. *WAKE: there is room again for one
 * that found none. */
static int take(struct queue *q, struct virtio_request **r, uint32_t *written, bool *woken)
{
    void *owner = NULL;
    int got;

    pthread_mutex_lock(&q->lock);
    got = vhost_ring_take(&q->ring, &owner, written);
    if (got == 0 && vhost_ring_await(&q->ring))
        got = vhost_ring_take(&q->ring, &owner, written);
    q->out -= got > 0;
    *woken = got > 0 && q->full;
    q->full &= !*woken;
    pthread_mutex_unlock(&q->lock);
    *r = owner;
    return got;
}

/* Ends all requests of a queue that the back end has given back. 0 or -EPROTO. */
static int end_requests(struct vhost_block *b, unsigned queue)
{
    struct virtio_request *r;
    uint32_t written;
    bool woken;
    int got;

    while ((got = take(&b->queue[queue], &r, &written, &woken)) > 0) {
        end_request(b, r, written);
        if (woken)
            virtio_wake(&b->device, queue);
    }
    return got;
}

/* The back end does not have the rings any more. What it has not given back the frame holds. */
static void forget_rings(struct vhost_block *b)
{
    if (!b->memory)
        return;
    for (unsigned i = 0; i < b->queues; i++) {
        struct queue *q = &b->queue[i];
        struct virtio_request *r;

        pthread_mutex_lock(&q->lock);
        q->runs = false;
        pthread_mutex_unlock(&q->lock);
        end_requests(b, i);
        /* Nothing is added to a ring that does not run. */
        while ((r = vhost_ring_revoke(&q->ring)))
            virtio_give_back(r);
        q->out = 0;
    }
    munmap(b->memory, b->queues * (size_t)VHOST_RING_BYTES);
    close(b->rings);
    b->memory = NULL;
}

static unsigned requests_out(struct vhost_block *b)
{
    unsigned out = 0;

    for (unsigned i = 0; i < b->queues; i++) {
        pthread_mutex_lock(&b->queue[i].lock);
        out += b->queue[i].out;
        pthread_mutex_unlock(&b->queue[i].lock);
    }
    return out;
}

/* ---- The thread: the connection ---- */

/* Tells that the back end is gone, and logs why it does not come back, once for each reason. */
static void complain_once(struct vhost_block *b, const struct error *err)
{
    if (err->code == ECANCELED)
        return; /* the machine ends */
    if (!b->complained)
        log_tell(b->log, LOG_LEVEL_WARNING, "disk '%s': %s; its requests wait for a back end",
                 b->path, err->text);
    else if (b->complained != err->code)
        log_line(b->log, LOG_LEVEL_WARNING, "disk '%s': %s", b->path, err->text);
    b->complained = err->code;
}

static void lose(struct vhost_block *b, const struct error *err)
{
    complain_once(b, err);
    vhost_disconnect(&b->connection);
    b->connected = b->followed = b->serving = false;
    forget_rings(b);
    b->retry_at = time_now_ns();
}

/* Reads the configuration. What the guest sees of it has the queues that the device has, and no
 * request that does not fit into one. */
static int fetch_config(struct vhost_block *b, uint8_t *config, struct error *err)
{
    uint16_t queues = (uint16_t)b->queues;
    uint32_t segments;
    int ret = vhost_get_config(&b->connection, config, CONFIG_SIZE, err);

    if (ret < 0)
        return ret;
    memcpy(&segments, config + CONFIG_SEG_MAX, sizeof(segments));
    segments = MIN(segments, QUEUE_SIZE - CHAIN_OVERHEAD);
    memcpy(config + CONFIG_SEG_MAX, &segments, sizeof(segments));
    memcpy(config + CONFIG_QUEUES, &queues, sizeof(queues));
    return 0;
}

static int update_config(struct vhost_block *b, struct error *err)
{
    uint8_t config[CONFIG_SIZE];
    int ret = fetch_config(b, config, err);

    if (ret < 0)
        return ret;
    bus_lock(b->device.host.bus);
    if (memcmp(config, b->config, CONFIG_SIZE) != 0) {
        memcpy(b->config, config, CONFIG_SIZE);
        virtio_config_changed(&b->device);
    }
    bus_unlock(b->device.host.bus);
    return 0;
}

/* Whether a back end that has come back is as good as the first one. */
static int check_offer(struct vhost_block *b, struct error *err)
{
    uint64_t needed = b->device.features | BIT(VIRTIO_F_VERSION_1);

    if (needed & ~b->connection.features)
        return error_set(err, EPROTO,
                         "the back end that has come back lacks features (%#llx) that the guest "
                         "was offered",
                         (unsigned long long)(needed & ~b->connection.features));
    if (b->connection.queues < b->queues)
        return error_set(err, EPROTO, "the back end that has come back has %u queues, not %u",
                         b->connection.queues, b->queues);
    return update_config(b, err);
}

/* Each time twice as much later than the last time, since the back end has served. */
static void retry_later(struct vhost_block *b)
{
    b->retry_after = MIN(MAX(2 * b->retry_after, FIRST_RETRY_NS), LAST_RETRY_NS);
    b->retry_at = time_now_ns() + b->retry_after;
}

static void reconnect(struct vhost_block *b)
{
    struct error err = {0};

    if (time_now_ns() < b->retry_at)
        return;
    if (vhost_connect(&b->connection, b->path, b->end, &err) == 0) {
        if (check_offer(b, &err) == 0) {
            b->connected = true;
            return;
        }
        vhost_disconnect(&b->connection);
    }
    complain_once(b, &err);
    retry_later(b);
}

/* ---- The thread: serving ---- */

/* Sets up the rings' file. The seals keep the back end from making it shorter, which would end this
 * process when it touches a ring. */
static int map_rings(struct vhost_block *b, size_t size, struct error *err)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    bool sealed;

    b->rings = memfd_create("vhost-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (b->rings < 0)
        return error_set(err, errno, "cannot get memory for rings: %s", strerror(errno));
    sealed = ftruncate(b->rings, (off_t)size) == 0 && fcntl(b->rings, F_ADD_SEALS, seals) == 0;
    b->memory =
        sealed ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, b->rings, 0) : MAP_FAILED;
    if (b->memory == MAP_FAILED) {
        int code = errno;

        close(b->rings);
        b->memory = NULL;
        return error_set(err, code, "cannot get memory for rings: %s", strerror(code));
    }
    return 0;
}

/* Fresh rings for each start: who had the last ones cannot meddle with these. */
static int make_rings(struct vhost_block *b, struct error *err)
{
    uint64_t offered = b->connection.features;
    int ret = map_rings(b, b->queues * (size_t)VHOST_RING_BYTES, err);

    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < b->queues; i++) {
        struct queue *q = &b->queue[i];

        pthread_mutex_lock(&q->lock);
        vhost_ring_start(&q->ring, b->memory + i * (size_t)VHOST_RING_BYTES,
                         VHOST_RINGS_GPA + i * (uint64_t)VHOST_RING_BYTES,
                         offered & BIT(VIRTIO_F_EVENT_IDX), offered & BIT(VIRTIO_F_INDIRECT_DESC));
        q->full = false;
        pthread_mutex_unlock(&q->lock);
    }
    return 0;
}

static int tell_to_serve(struct vhost_block *b, uint64_t features, struct error *err)
{
    uint64_t offered = b->connection.features;
    const struct vhost_service service = {
        .features = (features & FEATURES) | BIT(VIRTIO_F_VERSION_1) | (offered & RING_FEATURES),
        .parts = b->part,
        .part_count = b->parts,
        .rings = b->rings,
        .queues = b->queues,
        .files = b->files,
    };

    return vhost_start(&b->connection, &service, err);
}

/* Lets requests in, unless the driver has reset the device meanwhile. */
static void open_queues(struct vhost_block *b, unsigned epoch)
{
    pthread_mutex_lock(&b->lock);
    for (unsigned i = 0; i < b->queues && b->epoch == epoch; i++) {
        pthread_mutex_lock(&b->queue[i].lock);
        b->queue[i].runs = true;
        pthread_mutex_unlock(&b->queue[i].lock);
    }
    pthread_mutex_unlock(&b->lock);
    for (unsigned i = 0; i < b->queues; i++)
        virtio_wake(&b->device, i);
}

/* Ends what is served, and has the back end serve what driver and device have agreed on. */
static int serve_anew(struct vhost_block *b, bool accepted, uint64_t features, struct error *err)
{
    int ret = b->serving ? vhost_stop(&b->connection, b->queues, err) : 0;

    b->serving = false;
    forget_rings(b);
    if (ret < 0 || !accepted)
        return ret;
    ret = make_rings(b, err);
    if (ret == 0)
        ret = tell_to_serve(b, features, err);
    b->serving = ret == 0;
    return ret;
}

/* Has the back end do what is wanted now. */
static void follow(struct vhost_block *b)
{
    struct error err = {0};
    bool accepted;
    uint64_t features;
    unsigned epoch;

    pthread_mutex_lock(&b->lock);
    accepted = b->accepted;
    features = b->features;
    epoch = b->epoch;
    pthread_mutex_unlock(&b->lock);
    if (b->followed && epoch == b->epoch_followed)
        return;
    if (serve_anew(b, accepted, features, &err) < 0) {
        lose(b, &err);
        retry_later(b);
        return;
    }
    b->followed = true;
    b->epoch_followed = epoch;
    if (b->complained)
        log_tell(b->log, LOG_LEVEL_INFO, "disk '%s': the back end is there again", b->path);
    b->complained = 0;
    if (b->serving) {
        b->retry_after = 0;
        open_queues(b, epoch);
    }
}

/* ---- The thread ---- */

/* Gives up a back end that keeps a pause or a reset waiting. */
static void watch_drain(struct vhost_block *b)
{
    struct error err = {0};

    if (vhost_drain_look(&b->drain, virtio_recalled(&b->device), requests_out(b), time_now_ns()))
        return;
    error_set(&err, ETIMEDOUT, "the back end ends requests too slowly for a machine that waits");
    lose(b, &err);
    b->drain = (struct vhost_drain){.round_ends = 0};
}

static int time_left_ms(const struct vhost_block *b)
{
    uint64_t now = time_now_ns(), at = vhost_drain_next(&b->drain);

    if (!b->connected)
        at = MIN(at, b->retry_at);
    if (at == UINT64_MAX)
        return -1;
    return at > now ? (int)((at - now) / NS_PER_MS) + 1 : 0;
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

static void free_block(struct virtio_device *d)
{
    struct vhost_block *b = block_of(d);

    if (b->started) {
        signal_thread(b->end);
        pthread_join(b->thread, NULL);
    }
    vhost_disconnect(&b->connection);
    forget_rings(b);
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

static const struct virtio_ops ops = {
    .name = "vhost-user-blk",
    .id = 2,
    .queues = VIRTIO_QUEUES_MAX,
    .queue_size = QUEUE_SIZE,
    .config_size = CONFIG_SIZE,
    .serve = serve,
    .served = served,
    .recall = recall,
    .read_config = read_config,
    .accepted = accept_features,
    .reset = reset,
    .free = free_block,
};

static int open_event_file(struct error *err)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    return fd >= 0 ? fd : error_set(err, errno, "cannot make an event file: %s", strerror(errno));
}

static int make_queues(struct vhost_block *b, struct error *err)
{
    b->queue = calloc(b->queues, sizeof(*b->queue));
    b->files = calloc(b->queues, sizeof(*b->files));
    if (!b->queue || !b->files)
        return error_set(err, ENOMEM, "no memory for queues");
    for (unsigned i = 0; i < b->queues; i++) {
        b->files[i] = (struct vhost_queue_files){-1, -1};
        pthread_mutex_init(&b->queue[i].lock, NULL);
    }
    for (unsigned i = 0; i < b->queues; i++) {
        int ret = vhost_ring_init(&b->queue[i].ring, err);

        if (ret < 0)
            return ret;
        b->files[i].kick = open_event_file(err);
        b->files[i].call = open_event_file(err);
        if (b->files[i].kick < 0 || b->files[i].call < 0)
            return -EMFILE;
    }
    return 0;
}

/* Takes over what the back end offers. */
static int take_offer(struct vhost_block *b, unsigned queues, struct error *err)
{
    unsigned most = MIN(b->connection.queues, VIRTIO_QUEUES_MAX);

    if (!(b->connection.features & BIT(VIRTIO_F_VERSION_1)))
        return error_set(err, EPROTO, "the back end knows only devices before virtio 1.0");
    if (queues > most || most == 0)
        return error_set(err, EINVAL, "the back end has %u queues, not %u", most, queues);
    b->queues = queues ? queues : MIN(most, QUEUES_DEFAULT);
    b->device.queues = b->queues;
    b->device.features = b->connection.features & FEATURES;
    if (b->queues == 1)
        b->device.features &= ~BIT(F_MQ);
    return 0;
}

static int prepare(struct vhost_block *b, unsigned queues, struct mem *mem, struct error *err)
{
    int ret = b->wake = open_event_file(err);

    if (ret >= 0)
        ret = b->end = open_event_file(err);
    if (ret >= 0)
        ret = event_sender_open(&b->sender, err);
    if (ret >= 0)
        ret = vhost_connect(&b->connection, b->path, b->end, err);
    if (ret >= 0) {
        b->connected = true;
        ret = take_offer(b, queues, err);
    }
    if (ret >= 0)
        ret = make_queues(b, err);
    if (ret >= 0)
        ret = fetch_config(b, b->config, err);
    b->parts = VHOST_PARTS_MAX;
    if (ret >= 0)
        ret = mem_export_ram(mem, b->part, &b->parts, err);
    return ret;
}

/* On failure B is freed. */
static struct dev *plug_in(struct vhost_block *b, const struct virtio_slot *slot, struct error *err)
{
    struct dev *dev = virtio_pci_create(slot, &ops, &b->device, err);

    if (!dev) {
        free_block(&b->device);
        return NULL;
    }
    if (thread_start(&b->thread, "vhost-user-blk", run, b, err) < 0) {
        dev->ops->free(dev); /* with B */
        return NULL;
    }
    b->started = true;
    return dev;
}

struct dev *vhost_block_create(const struct virtio_slot *slot, const char *path, unsigned queues,
                               const struct log *log, struct error *err)
{
    struct vhost_block *b = calloc(1, sizeof(*b));
    struct error why = {0};
    struct dev *dev;

    if (!b || !(b->path = strdup(path))) {
        free(b);
        error_set(err, ENOMEM, "no memory for a disk");
        return NULL;
    }
    b->log = log;
    b->wake = b->end = -1;
    b->sender = EVENT_SENDER_CLOSED;
    b->connection = (struct vhost_connection){.socket = -1, .backend = -1, .stop = -1};
    pthread_mutex_init(&b->lock, NULL);
    if (prepare(b, queues, slot->mem, &why) < 0) {
        error_set(err, why.code, "vhost-user=%s: %s", path, why.text);
        free_block(&b->device);
        return NULL;
    }
    dev = plug_in(b, slot, err);
    if (dev)
        log_line(
            log, LOG_LEVEL_INFO,
            "%s: the back end maps all of guest memory, which is therefore exempt from sharing "
            "and swapping",
            path);
    return dev;
}

struct where *vhost_block_where(struct dev *dev)
{
    return &block_of(virtio_pci_device(dev))->where;
}

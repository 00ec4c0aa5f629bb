/*
 * Fuzz target: whole sessions of a disk that a back end of vhost-user serves, where the back end is
 * hostile: what it answers, what it says of its own accord, what it writes into the rings and into
 * the buffers, and when it leaves is the input; a guest's driver meanwhile makes requests, resets
 * the device, pauses it, and has it saved and loaded.
 *
 *      driver (this thread)  --rings, registers-->  front end  --socket, rings-->  peer (a thread)
 *
 * Whatever the peer does, each request comes back once at most, no pause and no reset takes for
 * ever, and nothing stays open. When the input is used up the peer becomes a good one, and then
 * each request comes back.
 *
 * Waiting is skipped: who has waited for a moment has waited for all of it (and the linker's
 * --wrap).
 */
#include "input.h"

#define assert_true(X)         check(X)
#define assert_int_equal(A, B) check((A) == (B))
#include "../unit/virtio_rig.h"

#include "base/event.h"
#include "base/thread.h"
#include "base/time.h"
#include "dev/vhost/block.h"
#include "dev/vhost/frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define QUEUES   2u /* that the peer has */
#define ENTRIES  16u
#define CHAINS   4u /* of the guest's queue, of 4 descriptors each */
#define RINGS    0x10000u
#define BUFFERS  0x20000u
#define FEATURES (1ull << 32 | 1ull << 30 | 7ull << 28 | 1u << 9 | 1u << 12 | 3u << 13)
#define PROTOCOL                                                                                   \
    (1u << VHOST_PROTOCOL_MQ | 1u << VHOST_PROTOCOL_REPLY_ACK | 1u << VHOST_PROTOCOL_BACKEND_REQ | \
     1u << VHOST_PROTOCOL_CONFIG)
#define STEPS 200 /* the driver's */

#define MOMENT_MS      2   /* of real time, after which a wait is over */
#define LONG_MOMENT_MS 100 /* with a good peer, which is to be in time on a busy host */
#define PATIENCE_MS    120000

/* ---- Time ---- */

static _Atomic uint64_t ahead;
static _Atomic int moment_ms = MOMENT_MS;

uint64_t __real_time_now_ns(void);
uint64_t __wrap_time_now_ns(void);
uint64_t __wrap_time_now_ns(void)
{
    return __real_time_now_ns() + atomic_load(&ahead);
}

int __real_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    int most = atomic_load(&moment_ms), got;

    if (timeout < 0 || timeout <= most)
        return __real_poll(fds, n, timeout);
    got = __real_poll(fds, n, most);
    if (got == 0)
        atomic_fetch_add(&ahead, (uint64_t)timeout * NS_PER_MS);
    return got;
}

/* What poll is where the C library checks sizes. */
int __wrap___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int __wrap___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
    check(n * sizeof(*fds) <= size);
    return __wrap_poll(fds, n, timeout);
}

/* ---- The peer ---- */

struct ring {
    uint16_t taken; /* of the available ring; the used ring's index is the same */
    int kick, call;
};

struct peer {
    char path[64];
    int listener, socket, requests, stop;
    pthread_t thread;
    struct vhost_reader reader;
    struct input in;
    unsigned well; /* so many messages are still answered well */
    _Atomic bool good;
    bool was_good;
    uint8_t *rings; /* NULL: not mapped */
    size_t size;
    uint8_t *ram;
    struct ring ring[VHOST_QUEUES_MAX];
};

static uint8_t *ring_memory(struct peer *p, unsigned queue, unsigned area)
{
    return p->rings + (size_t)queue * VHOST_RING_BYTES + area;
}

static void close_if(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void forget_memory(struct peer *p)
{
    if (p->rings)
        munmap(p->rings, p->size);
    if (p->ram)
        munmap(p->ram, VRIG_MEMORY);
    p->rings = p->ram = NULL;
}

static void leave(struct peer *p)
{
    vhost_reader_drop(&p->reader);
    close_if(&p->socket);
    close_if(&p->requests);
    for (unsigned i = 0; i < VHOST_QUEUES_MAX; i++) {
        close_if(&p->ring[i].kick);
        close_if(&p->ring[i].call);
        p->ring[i].taken = 0;
    }
    forget_memory(p);
}

static void *map_it(const struct vhost_region *r, int fd)
{
    void *at = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)r->offset);

    return at == MAP_FAILED ? NULL : at;
}

static void map_memory(struct peer *p, struct vhost_message *m)
{
    forget_memory(p);
    for (unsigned i = 0; i < m->fd_count; i++) {
        const struct vhost_region *r = &m->memory.region[i];

        if (r->gpa == VHOST_RINGS_GPA) {
            p->rings = map_it(r, m->fds[i]);
            p->size = r->size;
        } else if (r->gpa == 0 && r->size == VRIG_MEMORY) {
            p->ram = map_it(r, m->fds[i]);
        }
    }
}

/* Notes what the message brings. It is the front end's, which is honest. */
static void note(struct peer *p, struct vhost_message *m)
{
    check(vhost_check(m));
    switch (m->request) {
    case VHOST_SET_MEM_TABLE: map_memory(p, m); break;
    case VHOST_SET_BACKEND_REQ_FD:
        close_if(&p->requests);
        p->requests = vhost_take_fd(m, 0);
        break;
    case VHOST_SET_VRING_KICK:
        close_if(&p->ring[m->u64 & VHOST_QUEUE_MASK].kick);
        p->ring[m->u64 & VHOST_QUEUE_MASK].kick = vhost_take_fd(m, 0);
        break;
    case VHOST_SET_VRING_CALL:
        close_if(&p->ring[m->u64 & VHOST_QUEUE_MASK].call);
        p->ring[m->u64 & VHOST_QUEUE_MASK].call = vhost_take_fd(m, 0);
        break;
    case VHOST_SET_VRING_BASE: p->ring[m->state.queue].taken = (uint16_t)m->state.value; break;
    default: break;
    }
}

/* What a good back end answers: one that can do all that the front end has heard of before, if it
 * has not been good at first. False: nothing. */
static bool answer(const struct peer *p, const struct vhost_message *m, struct vhost_message *reply)
{
    uint64_t capacity = 1000;

    *reply = (struct vhost_message){
        .request = m->request, .flags = VHOST_VERSION | VHOST_REPLY, .size = sizeof(reply->u64)};
    switch (m->request) {
    case VHOST_GET_FEATURES: reply->u64 = p->was_good ? UINT64_MAX : FEATURES; break;
    case VHOST_GET_PROTOCOL_FEATURES: reply->u64 = PROTOCOL; break;
    case VHOST_GET_QUEUE_NUM: reply->u64 = p->was_good ? VHOST_QUEUES_MAX : QUEUES; break;
    case VHOST_GET_CONFIG:
        reply->size = m->size;
        reply->config = (struct vhost_config){.size = m->config.size};
        memcpy(reply->config.data, &capacity, sizeof(capacity));
        break;
    case VHOST_GET_VRING_BASE: reply->state.queue = m->state.queue; break;
    default: return m->flags & VHOST_NEED_REPLY;
    }
    return true;
}

static void send_bytes(struct peer *p, const void *bytes, size_t size)
{
    if (send(p->socket, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        leave(p);
}

/* Answers in a way that the input says, one in four badly. */
static void answer_somehow(struct peer *p, const struct vhost_message *m)
{
    uint8_t kind = (uint8_t)take(&p->in, 1), how = (uint8_t)take(&p->in, 1), junk[16];
    struct vhost_message reply;
    bool any = answer(p, m, &reply);

    switch (kind & 0x30 ? 15 : kind & 15) {
    case 0: leave(p); return;
    case 1: return; /* and nothing comes */
    case 2:
        for (unsigned i = 0; i < sizeof(junk); i++)
            junk[i] = (uint8_t)take(&p->in, 1);
        send_bytes(p, junk, 1 + (how >> 4));
        return;
    case 3: reply.size = (uint32_t)take(&p->in, 1) % 200; break;
    case 4: reply.request = how >> 4; break;
    case 5: reply.flags = (uint32_t)take(&p->in, 1); break;
    case 6:
        reply.fds[0] = p->stop;
        reply.fd_count = 1;
        break;
    case 7:
    case 8:
    case 9:
        for (unsigned i = 0; i <= how >> 4; i++)
            ((uint8_t *)&reply.u64)[take(&p->in, 1) % 72] = (uint8_t)take(&p->in, 1);
        break;
    case 10: any = true; break; /* also to what nobody has asked */
    default: break;             /* well */
    }
    if (any && vhost_send(p->socket, &reply, 0, -1) < 0)
        leave(p);
}

static void take_messages(struct peer *p)
{
    int ret = 0;

    while (p->socket >= 0 && (ret = vhost_receive(&p->reader, p->socket)) > 0) {
        struct vhost_message *m = &p->reader.message, reply;

        note(p, m);
        p->well -= p->well > 0;
        if (p->in.left && !p->well)
            answer_somehow(p, m);
        else if (answer(p, m, &reply) && vhost_send(p->socket, &reply, 0, -1) < 0)
            leave(p);
    }
    if (p->socket >= 0 && ret < 0)
        leave(p);
}

/* ---- The peer's rings ---- */

static uint16_t *word(struct peer *p, unsigned queue, unsigned area, unsigned offset)
{
    return (uint16_t *)(void *)(ring_memory(p, queue, area) + offset);
}

static void call(struct peer *p, unsigned queue)
{
    uint64_t one = 1;

    if (p->ring[queue].call >= 0)
        check(write(p->ring[queue].call, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN);
}

/* Puts HEAD into the used ring. */
static void give(struct peer *p, unsigned queue, uint16_t head, uint32_t written)
{
    struct ring *r = &p->ring[queue];
    uint32_t entry[2] = {head, written};

    memcpy(ring_memory(p, queue, VHOST_RING_USED) + 4 + 8 * (r->taken % VHOST_RING_SIZE), entry,
           sizeof(entry));
    __atomic_store_n(word(p, queue, VHOST_RING_USED, 2), ++r->taken, __ATOMIC_RELEASE);
    call(p, queue);
}

/* Gives back the next chain that is available. */
static bool serve_one(struct peer *p, unsigned queue, uint32_t written)
{
    uint16_t index = __atomic_load_n(word(p, queue, VHOST_RING_AVAILABLE, 2), __ATOMIC_ACQUIRE);
    uint16_t at = p->ring[queue].taken % VHOST_RING_SIZE;

    if (index == p->ring[queue].taken)
        return false;
    give(p, queue, *word(p, queue, VHOST_RING_AVAILABLE, 4u + 2u * at), written);
    return true;
}

/* The queue that the back end is told of last wants to hear of each chain. */
static void want_kicks(struct peer *p, unsigned queue)
{
    __atomic_store_n(word(p, queue, VHOST_RING_USED, 4 + 8 * VHOST_RING_SIZE), p->ring[queue].taken,
                     __ATOMIC_SEQ_CST);
}

static void scribble(struct peer *p, unsigned queue)
{
    uint32_t at = (uint32_t)take(&p->in, 3);
    bool ram = at & 1u << 23 && p->ram;
    uint8_t *bytes = ram ? p->ram + BUFFERS + at % 0x8000
                         : ring_memory(p, queue, 0) + at % (VHOST_RING_TABLES + 256);

    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)take(&p->in, 1);
}

/* Has both event files be full, and who writes or reads them the naive way wait. */
static void block_events(struct ring *r)
{
    const uint64_t full = UINT64_MAX - 1;
    int fds[] = {r->kick, r->call};

    for (unsigned i = 0; i < 2; i++) {
        if (fds[i] < 0)
            continue;
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        if (write(fds[i], &full, sizeof(full)) < 0)
            check(errno == EAGAIN);
        fcntl(fds[i], F_SETFL, i == 0 ? 0 : O_NONBLOCK);
    }
}

/* Something of its own accord on the socket for that. */
static void request(struct peer *p, uint8_t how)
{
    struct vhost_message m = {.request = VHOST_BACKEND_CONFIG_CHANGE, .flags = VHOST_VERSION};

    if (how & 1)
        m.flags |= VHOST_NEED_REPLY;
    if (how & 2)
        m.request = how >> 2;
    if (how & 4)
        m.size = how >> 3;
    if (p->requests >= 0)
        vhost_send(p->requests, &m, 0, -1);
}

static void misbehave(struct peer *p)
{
    uint8_t what = (uint8_t)take(&p->in, 1);
    unsigned queue = what >> 4 & 1;

    if (!p->rings || p->size / VHOST_RING_BYTES <= queue) {
        request(p, what);
        return;
    }
    switch (what & 15) {
    case 0:
    case 1:
    case 2: serve_one(p, queue, (uint32_t)take(&p->in, 2)); break;
    case 3: give(p, queue, (uint16_t)(take(&p->in, 1) % 160), (uint32_t)take(&p->in, 4)); break;
    case 4: p->ring[queue].taken = (uint16_t)(p->ring[queue].taken + (what >> 5)); break;
    case 5:
        __atomic_store_n(word(p, queue, VHOST_RING_USED, 2), (uint16_t)take(&p->in, 1),
                         __ATOMIC_RELEASE);
        call(p, queue);
        break;
    case 6:
    case 7: scribble(p, queue); break;
    case 8: block_events(&p->ring[queue]); break;
    case 9: request(p, (uint8_t)take(&p->in, 1)); break;
    case 10: leave(p); break;
    case 11: want_kicks(p, queue); break;
    default: call(p, queue); break;
    }
}

static void serve_well(struct peer *p)
{
    for (unsigned q = 0; p->rings && q < p->size / VHOST_RING_BYTES; q++) {
        while (serve_one(p, q, 1))
            ;
        want_kicks(p, q);
        while (serve_one(p, q, 1))
            ;
    }
}

/* ---- The peer's thread ---- */

static void take_connection(struct peer *p)
{
    int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    leave(p);
    p->socket = fd;
}

static void *run_peer(void *opaque)
{
    const struct timespec moment = {.tv_nsec = 100000};
    struct peer *p = opaque;
    struct pollfd pfd[5] = {{0}};

    while (!pfd[0].revents) {
        if (atomic_load(&p->good) && !p->was_good) {
            /* The front end has to begin anew. */
            p->was_good = true;
            p->in.left = 0;
            leave(p);
        }
        pfd[0] = (struct pollfd){p->stop, POLLIN, 0};
        pfd[1] = (struct pollfd){p->listener, POLLIN, 0};
        pfd[2] = (struct pollfd){p->socket, POLLIN, 0};
        for (unsigned i = 0; i < QUEUES; i++)
            pfd[3 + i] = (struct pollfd){p->ring[i].kick, POLLIN, 0};
        if (ppoll(pfd, 5, &moment, NULL) < 0)
            continue;
        if (pfd[1].revents)
            take_connection(p);
        else if (pfd[2].revents)
            take_messages(p);
        for (unsigned i = 0; i < QUEUES; i++)
            if (pfd[3 + i].revents && p->ring[i].kick >= 0)
                event_clear(p->ring[i].kick);
        if (p->in.left && p->socket >= 0)
            misbehave(p);
        else if (!p->in.left)
            serve_well(p);
    }
    leave(p);
    return NULL;
}

static void begin_peer(struct peer *p, struct input in)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *p = (struct peer){.socket = -1, .requests = -1, .in = in};
    p->well = take(&p->in, 1) % 64;
    for (unsigned i = 0; i < VHOST_QUEUES_MAX; i++)
        p->ring[i] = (struct ring){.kick = -1, .call = -1};
    snprintf(p->path, sizeof(p->path), P_tmpdir "/doppel-fuzz-vhost-%d", getpid());
    strcpy(address.sun_path, p->path);
    unlink(p->path);
    p->stop = eventfd(0, EFD_CLOEXEC);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    check(bind(p->listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    check(listen(p->listener, 4) == 0);
    check(thread_start(&p->thread, "peer", run_peer, p, NULL) == 0);
}

static void end_peer(struct peer *p)
{
    uint64_t one = 1;

    check(write(p->stop, &one, sizeof(one)) == sizeof(one));
    pthread_join(p->thread, NULL);
    close(p->listener);
    close(p->stop);
    unlink(p->path);
}

/* ---- The driver ---- */

struct driver {
    struct vrig *v;
    bool out[CHAINS];
    uint32_t writable[CHAINS];
    bool paused;
};

/* Begins with the device as after power-on, by the rules. */
static void start(struct driver *d, uint8_t how)
{
    uint64_t features = 1ull << 32 | (how & 3ull) << 28;

    for (unsigned i = 0; i < CHAINS; i++)
        d->out[i] = false;
    vrig_enable(d->v);
    check(vrig_negotiate(d->v, features));
    vrig_set_queue(d->v, rig_layout(RINGS, ENTRIES));
    vrig_write(d->v, VRIG_STATUS, 1, 15);
}

/* Waits until CONDITION holds. */
#define AWAIT(CONDITION)                                                                           \
    do {                                                                                           \
        unsigned waited = 0;                                                                       \
        while (!(CONDITION)) {                                                                     \
            check(waited++ < PATIENCE_MS * 4);                                                     \
            time_sleep_ns(NS_PER_MS / 4);                                                          \
        }                                                                                          \
    } while (0)

static void reset(struct driver *d)
{
    vrig_write(d->v, VRIG_STATUS, 1, 0);
    AWAIT(vrig_status(d->v) == 0);
}

static void make_request(struct driver *d, struct input *in)
{
    uint8_t how = (uint8_t)take(in, 1);
    unsigned n = how % CHAINS, parts = how >> 2 & 3, readable = how >> 4 & 3;

    if (d->out[n])
        return;
    d->writable[n] = 0;
    for (unsigned i = 0; i <= parts; i++) {
        uint32_t size = (uint32_t)take(in, 1) * 16 + 1;
        bool writes = i >= readable;

        d->writable[n] += writes ? size : 0;
        rig_descriptor(&d->v->queue, 4 * n + i, BUFFERS + 0x4000 * n + 0x1000 * i, size,
                       (uint16_t)((writes ? RIG_WRITE : 0) | (i < parts ? RIG_NEXT : 0)),
                       (uint16_t)(4 * n + i + 1));
    }
    d->out[n] = true;
    rig_publish_shared(&d->v->queue, (uint16_t)(4 * n));
    vrig_notify(d->v);
}

static void reap(struct driver *d)
{
    uint32_t head, written;

    while (rig_reap(&d->v->queue, &head, &written)) {
        check(head < 4 * CHAINS && head % 4 == 0 && d->out[head / 4]);
        check(written <= d->writable[head / 4]);
        d->out[head / 4] = false;
    }
}

static bool any_out(struct driver *d)
{
    bool any = false;

    reap(d);
    for (unsigned i = 0; i < CHAINS; i++)
        any |= d->out[i];
    return any;
}

static void set_paused(struct driver *d, bool paused)
{
    struct dev *dev = d->v->dev;

    if (d->paused != paused)
        (paused ? dev->ops->pause : dev->ops->resume)(dev);
    d->paused = paused;
}

/* The machine is saved and goes on elsewhere. */
static void move(struct driver *d)
{
    struct state_image image = {0};
    struct dev *dev = d->v->dev;

    set_paused(d, true);
    bus_lock(d->v->rig->bus);
    check(image_save_dev(&image, dev) == 0);
    dev->ops->reset(dev);
    check(image_load_dev(&image, dev) == 0);
    bus_unlock(d->v->rig->bus);
    image_free(&image);
    set_paused(d, false);
}

static void step(struct driver *d, struct input *in)
{
    uint8_t what = (uint8_t)take(in, 1);

    switch (what & 15) {
    case 0: set_paused(d, true); break;
    case 1: set_paused(d, false); break;
    case 2: move(d); break;
    case 3:
        set_paused(d, false);
        reset(d);
        start(d, what >> 4);
        break;
    case 4: vrig_read(d->v, 0x2000 + (what >> 4) * 4, 4); break;
    case 5: time_sleep_ns(NS_PER_MS / 4); break;
    case 6:
    case 7: reap(d); break;
    default: make_request(d, in); break;
    }
}

/* ---- All together ---- */

/* What the device is made with: vrig_create takes no more. */
static struct peer *peer;

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    return vhost_block_create(slot, peer->path, 0, NULL, err);
}

static void drive(struct peer *p, struct input in)
{
    struct driver d = {.v = vrig_create(create, NULL, 1)};

    if (!d.v->dev) {
        vrig_destroy(d.v);
        return;
    }
    check(loop_start(d.v->loop, NULL) == 0);
    start(&d, (uint8_t)take(&in, 1));
    for (unsigned i = 0; in.left && i < STEPS; i++)
        step(&d, &in);
    set_paused(&d, false);
    atomic_store(&moment_ms, LONG_MOMENT_MS);
    atomic_store(&p->good, true);
    AWAIT(!any_out(&d));
    check(!(vrig_status(d.v) & VIRTIO_NEEDS_RESET));
    vrig_destroy(d.v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size}, first, second;
    int before = dup(0), after;
    struct peer p;

    close(before);
    if (size < 4)
        return 0;
    first.left = (size - 1) * (size_t)take(&in, 1) / 256;
    first.data = in.data;
    second = (struct input){in.data + first.left, in.left - first.left};
    atomic_store(&moment_ms, MOMENT_MS);
    peer = &p;
    begin_peer(&p, first);
    drive(&p, second);
    end_peer(&p);
    after = dup(0);
    close(after);
    check(before == after);
    return 0;
}

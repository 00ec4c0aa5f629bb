/*
 * The network device between threads: a driver with two pairs of queues, workers that serve them, a
 * network with a thread of its own that gives back what it is sent, and whoever pauses the machine.
 * Every frame comes back once, whole and in the order of its flow, and by the pair that sent it.
 * ThreadSanitizer looks at it, too.
 */
#include "test.h"

#include "dev/virtio/net.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "virtio_rig.h"

#define SIZE     16u
#define PAIRS    2u
#define QUEUES   (2 * PAIRS + 1)
#define CONTROL  (2 * PAIRS)
#define RINGS    0x10000u
#define COMMAND  0x80000u
#define DATA     0x100000u
#define HEADER   12u
#define BUFFER   1000u /* to receive into: large frames take several */
#define LARGEST  6000u
#define FRAMES   4000u /* of each flow */
#define ROOM     8u    /* frames in the network */
#define PATIENCE 60    /* seconds: only a test that fails waits so long */

#define BIT(n)   (UINT64_C(1) << (n))
#define FEATURES (BIT(VIRTIO_F_VERSION_1) | BIT(15) /* mergeable */ | BIT(17) | BIT(22))

/* ---- The network: what is sent comes back ---- */

struct net {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ending;
    struct net_events events;
    struct frame {
        uint8_t data[LARGEST];
        size_t size;
    } sent[ROOM], back[ROOM];
    unsigned sent_first, sent_last, back_first, back_last; /* modulo ROOM */
    bool wants_room, wants_frame; /* somebody was refused and is to be told */
    _Atomic int senders, receivers;
};

static struct net network;

static void *give_back(void *opaque)
{
    struct net *net = opaque;

    pthread_mutex_lock(&net->lock);
    while (!net->ending) {
        bool told = false;

        while (net->sent_first != net->sent_last && net->back_last - net->back_first < ROOM) {
            net->back[net->back_last++ % ROOM] = net->sent[net->sent_first++ % ROOM];
            told |= net->wants_room || net->wants_frame;
            net->wants_room = net->wants_frame = false;
        }
        if (told) {
            pthread_mutex_unlock(&net->lock);
            net->events.ready(net->events.opaque);
            pthread_mutex_lock(&net->lock);
        } else {
            pthread_cond_wait(&net->changed, &net->lock);
        }
    }
    pthread_mutex_unlock(&net->lock);
    return NULL;
}

void net_close(struct net *net)
{
    pthread_mutex_lock(&net->lock);
    net->ending = true;
    pthread_cond_signal(&net->changed);
    pthread_mutex_unlock(&net->lock);
    pthread_join(net->thread, NULL);
    pthread_cond_destroy(&net->changed);
    pthread_mutex_destroy(&net->lock);
}

struct net_info net_info(const struct net *net)
{
    return (struct net_info){.kind = "echo"};
}

bool net_up(const struct net *net)
{
    return true;
}

void net_begin(struct net *net, const struct net_events *events, unsigned accepts)
{
    net->events = *events;
}

bool net_send(struct net *net, const struct iovec *iov, unsigned iovs,
              const struct net_offload *offload)
{
    struct frame *frame;
    bool room;

    assert_int_equal(atomic_fetch_add(&net->senders, 1), 0);
    pthread_mutex_lock(&net->lock);
    room = net->sent_last - net->sent_first < ROOM;
    net->wants_room |= !room;
    frame = &net->sent[net->sent_last % ROOM];
    frame->size = room ? 0 : frame->size;
    for (unsigned i = 0; room && i < iovs; i++) {
        assert_true(frame->size + iov[i].iov_len <= LARGEST);
        memcpy(frame->data + frame->size, iov[i].iov_base, iov[i].iov_len);
        frame->size += iov[i].iov_len;
    }
    net->sent_last += room;
    pthread_mutex_unlock(&net->lock);
    atomic_fetch_sub(&net->senders, 1);
    return room;
}

void net_flush(struct net *net)
{
    pthread_mutex_lock(&net->lock);
    pthread_cond_signal(&net->changed);
    pthread_mutex_unlock(&net->lock);
}

size_t net_peek(struct net *net, void *head, size_t size)
{
    const struct frame *frame = &net->back[net->back_first % ROOM];
    size_t whole = 0;

    assert_int_equal(atomic_fetch_add(&net->receivers, 1), 0);
    pthread_mutex_lock(&net->lock);
    if (net->back_first != net->back_last)
        whole = frame->size;
    net->wants_frame |= !whole;
    memcpy(head, frame->data, MIN(size, whole));
    pthread_mutex_unlock(&net->lock);
    atomic_fetch_sub(&net->receivers, 1);
    return whole;
}

size_t net_next(struct net *net)
{
    return net_peek(net, NULL, 0);
}

size_t net_receive(struct net *net, const struct iovec *iov, unsigned iovs,
                   struct net_offload *offload)
{
    const struct frame *frame = &net->back[net->back_first % ROOM];
    size_t done = 0;

    assert_int_equal(atomic_fetch_add(&net->receivers, 1), 0);
    *offload = (struct net_offload){0};
    pthread_mutex_lock(&net->lock);
    for (unsigned i = 0; i < iovs && done < frame->size; i++) {
        size_t part = MIN(iov[i].iov_len, frame->size - done);

        memcpy(iov[i].iov_base, frame->data + done, part);
        done += part;
    }
    net->back_first++;
    pthread_cond_signal(&net->changed);
    pthread_mutex_unlock(&net->lock);
    atomic_fetch_sub(&net->receivers, 1);
    return done;
}

/* ---- The machine and its driver ---- */

struct lane {
    struct vrig *v;
    struct rig_queue queue[QUEUES];
    unsigned sent[PAIRS], received[PAIRS]; /* frames of each flow */
    unsigned busy[PAIRS];                  /* descriptors of a send queue, from the last one back */
    _Atomic bool stop;
};

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    const struct virtio_net_config config = {.net = &network, .mac = {2}, .pairs = PAIRS};

    memset(&network, 0, sizeof(network));
    pthread_mutex_init(&network.lock, NULL);
    pthread_cond_init(&network.changed, NULL);
    assert_int_equal(pthread_create(&network.thread, NULL, give_back, &network), 0);
    return virtio_net_dev(virtio_net_create(slot, &config, err));
}

static int set_up(void **state)
{
    struct lane *l = calloc(1, sizeof(*l));

    l->v = vrig_create(create, NULL, 3);
    assert_int_equal(loop_start(l->v->loop, NULL), 0);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lane *l = *state;

    loop_stop(l->v->loop);
    vrig_destroy(l->v);
    free(l);
    return 0;
}

static void notify(struct lane *l, unsigned queue)
{
    vrig_write(l->v, VRIG_NOTIFY + 4 * queue, 2, 0);
}

/* Waits until the device has given back a chain of the queue. */
static void await(struct lane *l, unsigned queue)
{
    uint32_t head, written;

    for (time_t end = time(NULL) + PATIENCE; !rig_reap(&l->queue[queue], &head, &written);) {
        assert_true(time(NULL) < end);
        sched_yield();
    }
}

static uint64_t receive_buffer(unsigned pair, unsigned n)
{
    return DATA + 0x40000 + 0x10000 * pair + 0x1000 * n;
}

static void start(struct lane *l)
{
    const uint8_t pairs[] = {4, 0, PAIRS, 0};

    vrig_enable(l->v);
    assert_true(vrig_negotiate(l->v, FEATURES));
    for (unsigned i = 0; i < QUEUES; i++) {
        vrig_set_queue_number(l->v, i, rig_layout(RINGS + 0x2000 * i, SIZE));
        l->queue[i] = l->v->queue;
    }
    vrig_write(l->v, VRIG_STATUS, 1, 15);
    assert_int_equal(mem_write(l->v->mem, COMMAND, pairs, sizeof(pairs)), 0);
    rig_descriptor(&l->queue[CONTROL], 0, COMMAND, sizeof(pairs), RIG_NEXT, 1);
    rig_descriptor(&l->queue[CONTROL], 1, COMMAND + 64, 1, RIG_WRITE, 0);
    rig_publish_shared(&l->queue[CONTROL], 0);
    notify(l, CONTROL);
    await(l, CONTROL);
    for (unsigned pair = 0; pair < PAIRS; pair++) {
        for (unsigned i = 0; i < SIZE; i++) {
            rig_descriptor(&l->queue[2 * pair], i, receive_buffer(pair, i), BUFFER, RIG_WRITE, 0);
            rig_publish_shared(&l->queue[2 * pair], (uint16_t)i);
        }
        notify(l, 2 * pair);
    }
}

static size_t size_of(unsigned number)
{
    return number % 7 == 0 ? LARGEST - number % 100 : 64 + number % 1500;
}

/* Frame NUMBER of the flow that PAIR sends: of TCP, from a port that says which. */
static void make_frame(uint8_t *frame, unsigned pair, unsigned number)
{
    size_t size = size_of(number);

    for (size_t i = 0; i < size; i++)
        frame[i] = (uint8_t)(number + i * 3);
    memset(frame, 0, 40);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[23] = 6;
    frame[35] = (uint8_t)(10 + pair);
    memcpy(frame + 40, &number, sizeof(number));
}

static void send_frames(struct lane *l, unsigned pair)
{
    struct rig_queue *q = &l->queue[2 * pair + 1];
    uint8_t bytes[HEADER + LARGEST] = {0};
    uint32_t head, written;

    while (rig_reap(q, &head, &written))
        l->busy[pair]--;
    while (l->busy[pair] < SIZE && l->sent[pair] < FRAMES) {
        unsigned n = l->sent[pair] % SIZE;
        uint64_t gpa = DATA + 0x100000 + 0x40000 * pair + 0x2000 * n;

        make_frame(bytes + HEADER, pair, l->sent[pair]);
        assert_int_equal(mem_write(l->v->mem, gpa, bytes, HEADER + size_of(l->sent[pair])), 0);
        rig_descriptor(q, n, gpa, (uint32_t)(HEADER + size_of(l->sent[pair])), 0, 0);
        rig_publish_shared(q, (uint16_t)n);
        l->sent[pair]++;
        l->busy[pair]++;
    }
    notify(l, 2 * pair + 1);
}

/* Takes a frame of one buffer or more, and gives the buffers to the device again. False: there is
 * none. */
static bool receive_frame(struct lane *l, unsigned pair)
{
    struct rig_queue *q = &l->queue[2 * pair];
    uint8_t seen[HEADER + LARGEST + BUFFER], expected[LARGEST];
    unsigned left = 1, number = l->received[pair];
    size_t done = 0;

    for (bool first = true; left; left--, first = false) {
        uint32_t head, written;

        if (!rig_reap(q, &head, &written)) {
            assert_true(first); /* all of a frame's buffers come at once */
            return false;
        }
        assert_int_equal(mem_read(l->v->mem, receive_buffer(pair, head), seen + done, written), 0);
        done += written;
        if (first)
            left = seen[10] | (unsigned)seen[11] << 8;
        rig_publish_shared(q, (uint16_t)head);
    }
    make_frame(expected, pair, number);
    assert_int_equal(done, HEADER + size_of(number));
    assert_memory_equal(seen + HEADER, expected, size_of(number));
    l->received[pair]++;
    return true;
}

/* ---- Tests ---- */

static void exchange(struct lane *l)
{
    time_t end = time(NULL) + PATIENCE;

    start(l);
    while (l->received[0] < FRAMES || l->received[1] < FRAMES) {
        for (unsigned pair = 0; pair < PAIRS; pair++) {
            send_frames(l, pair);
            while (receive_frame(l, pair))
                end = time(NULL) + PATIENCE;
            notify(l, 2 * pair);
        }
        if (time(NULL) > end)
            fail_msg("%u and %u frames came", l->received[0], l->received[1]);
        sched_yield();
    }
    assert_int_equal(vrig_status(l->v), 15);
}

static void test_exchange(void **state)
{
    exchange(*state);
}

static void *pauser(void *opaque)
{
    struct lane *l = opaque;
    struct vrig *v = l->v;

    while (!atomic_load(&l->stop)) {
        struct state_image image = {0};
        const struct timespec moment = {.tv_nsec = 1000000};

        v->dev->ops->pause(v->dev);
        bus_lock(v->rig->bus);
        assert_int_equal(image_save_dev(&image, v->dev), 0);
        bus_unlock(v->rig->bus);
        v->dev->ops->resume(v->dev);
        image_free(&image);
        nanosleep(&moment, NULL); /* workers begin with something */
    }
    return NULL;
}

static void test_pause(void **state)
{
    struct lane *l = *state;
    pthread_t thread;

    pthread_create(&thread, NULL, pauser, l);
    exchange(l);
    atomic_store(&l->stop, true);
    pthread_join(thread, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_exchange), TEST(test_pause)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

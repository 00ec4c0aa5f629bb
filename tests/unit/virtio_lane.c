/*
 * Virtio devices between threads: vCPUs that ring, workers that serve, the loop, and whoever pauses
 * the machine. Nothing gets lost, and nothing moves while it is paused. ThreadSanitizer looks at
 * it, too. One device serves a request on the worker, the other on a thread of its own, later.
 */
#include "test.h"

#include "dev/virtio/rng.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "virtio_rig.h"

#define SIZE     8u
#define RINGS    0x10000u /* all of it in one page */
#define DATA     0x100000u
#define SMALL    16u
#define LARGE    65536u /* takes a worker long enough to be met at it */
#define ROUNDS   20000u
#define RESETS   100u
#define PATIENCE 60 /* seconds: only a test that fails waits so long */

struct lane {
    struct vrig *v;
    sem_t interrupted; /* queue 0's */
    uint16_t added, reaped;
    _Atomic bool stop;
};

/* ---- A device with a thread of its own ---- */

struct later {
    struct virtio_device device;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct virtio_request *waiting[SIZE]; /* FIRST to LAST of them, modulo SIZE */
    unsigned first, last;
    bool ending;
};

static enum virtio_result take(struct virtio_device *d, struct virtio_request *r)
{
    struct later *l = container_of(d, struct later, device);

    pthread_mutex_lock(&l->lock);
    l->waiting[l->last++ % SIZE] = r;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return VIRTIO_TAKEN;
}

/* Gives back all but what the thread is at. */
static void give_back(struct virtio_device *d)
{
    struct later *l = container_of(d, struct later, device);

    pthread_mutex_lock(&l->lock);
    while (l->first != l->last)
        virtio_give_back(l->waiting[l->first++ % SIZE]);
    pthread_mutex_unlock(&l->lock);
}

/* Fills all buffers of the chain. */
static void fill(struct virtio_request *r)
{
    static const uint8_t zeros[SMALL];
    struct mem_pin pin[4];
    struct iovec iov[4];
    struct virtio_map map = {.pin = pin, .iov = iov, .room = 4};

    assert_int_equal(virtio_write_at(r, 0, zeros, SMALL), 0);
    assert_int_equal(virtio_map(r, MEM_WRITE, 0, UINT64_MAX, &map), 0);
    for (unsigned i = 0; i < map.iovs; i++)
        memset(iov[i].iov_base, 0xA5, iov[i].iov_len);
    virtio_unmap(r, &map);
}

static void *serve_later(void *opaque)
{
    struct later *l = opaque;

    pthread_mutex_lock(&l->lock);
    while (!l->ending) {
        struct virtio_request *r;

        if (l->first == l->last) {
            pthread_cond_wait(&l->changed, &l->lock);
            continue;
        }
        r = l->waiting[l->first++ % SIZE];
        pthread_mutex_unlock(&l->lock);
        fill(r);
        virtio_complete(r, (uint32_t)r->chain.writable_bytes);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void free_later(struct virtio_device *d)
{
    struct later *l = container_of(d, struct later, device);

    pthread_mutex_lock(&l->lock);
    l->ending = true;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static const struct virtio_ops later_ops = {.name = "later",
                                            .id = 99,
                                            .queues = 1,
                                            .queue_size = SIZE,
                                            .serve = take,
                                            .recall = give_back,
                                            .free = free_later};

static struct dev *create_later(const struct virtio_slot *slot, struct error *err)
{
    struct later *l = calloc(1, sizeof(*l));

    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    assert_int_equal(pthread_create(&l->thread, NULL, serve_later, l), 0);
    return virtio_pci_create(slot, &later_ops, &l->device, err);
}

static void on_message(void *opaque, uint32_t data)
{
    struct lane *l = opaque;

    if (data & 1)
        sem_post(&l->interrupted);
}

static int set_up_with(void **state,
                       struct dev *(*create)(const struct virtio_slot *slot, struct error *err))
{
    struct lane *l = calloc(1, sizeof(*l));

    l->v = vrig_create(create, NULL, 2);
    l->v->on_message = on_message;
    l->v->opaque = l;
    sem_init(&l->interrupted, 0, 0);
    assert_int_equal(loop_start(l->v->loop, NULL), 0);
    *state = l;
    return 0;
}

static int set_up(void **state)
{
    return set_up_with(state, virtio_rng_create);
}

static int set_up_later(void **state)
{
    return set_up_with(state, create_later);
}

static int tear_down(void **state)
{
    struct lane *l = *state;

    loop_stop(l->v->loop);
    vrig_destroy(l->v);
    sem_destroy(&l->interrupted);
    free(l);
    return 0;
}

/* ---- The driver, as one that shares memory with the device must be (virtio 1.2, 2.7.13) ---- */

static uint16_t *ring16(struct lane *l, uint64_t gpa)
{
    return rig_shared(l->v->mem, gpa);
}

/* All of the queue's requests ask for SIZE bytes. */
static void ask_for(struct lane *l, uint32_t size)
{
    for (unsigned i = 0; i < SIZE; i++)
        rig_descriptor(&l->v->queue, i, DATA + 0x10000 * i, size, RIG_WRITE, 0);
}

/* From wherever the device is, once it is decoded. */
static void restart(struct lane *l)
{
    struct vrig *v = l->v;

    assert_true(vrig_negotiate(v, VRIG_FEATURES));
    vrig_set_queue(v, rig_layout(RINGS, SIZE));
    vrig_write(v, VRIG_STATUS, 1, 15);
    l->added = l->reaped = 0;
    ask_for(l, SMALL);
}

static void start(struct lane *l)
{
    vrig_enable(l->v);
    restart(l);
}

/* Adds a request and notifies if the device wants it. */
static void add(struct lane *l)
{
    const struct virtqueue_config *c = &l->v->queue.config;
    uint16_t event, before = l->added;

    rig_publish_shared(&l->v->queue, before % SIZE);
    l->added++;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    event = __atomic_load_n(ring16(l, c->used + 4 + 8 * SIZE), __ATOMIC_RELAXED);
    if (event == before)
        vrig_notify(l->v);
}

/* Takes what the device has given back; all in order, and of each as much as was asked for. */
static void reap(struct lane *l)
{
    const struct virtqueue_config *c = &l->v->queue.config;

    while (l->reaped != rig_used_index(&l->v->queue)) {
        uint32_t *entry = (uint32_t *)ring16(l, c->used + 4 + 8 * (l->reaped % SIZE));

        assert_int_equal(__atomic_load_n(entry, __ATOMIC_RELAXED), l->reaped % SIZE);
        assert_int_equal(__atomic_load_n(entry + 1, __ATOMIC_RELAXED), SMALL);
        l->reaped++;
    }
}

/* Waits for an interrupt, unless there is something to reap by now. */
static void await(struct lane *l)
{
    const struct virtqueue_config *c = &l->v->queue.config;
    struct timespec until;

    __atomic_store_n(ring16(l, c->available + 4 + 2 * SIZE), l->reaped, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (l->reaped != rig_used_index(&l->v->queue))
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    while (sem_timedwait(&l->interrupted, &until))
        if (errno != EINTR)
            fail_msg("no interrupt: %u requests, %u served", l->added, l->reaped);
}

/* ---- Tests ---- */

/* Driver and device go to sleep and wake each other again and again: a barrier that is missing on
 * either side loses a notification or an interrupt sooner or later. */
static void test_notifications(void **state)
{
    struct lane *l = *state;
    unsigned left = ROUNDS;

    start(l);
    while (left) {
        for (unsigned n = 1 + left % 3; n && left; n--, left--)
            add(l);
        while (l->reaped != l->added) {
            await(l);
            reap(l);
        }
    }
    assert_int_equal(vrig_status(l->v), 15);
}

/* Another vCPU: masks the queue's vector, rings, reads. */
static void *second_vcpu(void *opaque)
{
    struct lane *l = opaque;
    struct vrig *v = l->v;

    while (!atomic_load(&l->stop)) {
        vrig_write(v, VRIG_TABLE + 28, 4, 1);
        vrig_notify(v);
        vrig_read(v, VRIG_ISR, 1);
        vrig_status(v);
        vrig_write(v, VRIG_TABLE + 28, 4, 0);
    }
    return NULL;
}

/* Who saves the machine: nothing of the device moves meanwhile. Its registers may be accessed. */
static void *pauser(void *opaque)
{
    struct lane *l = opaque;
    struct vrig *v = l->v;

    while (!atomic_load(&l->stop)) {
        struct state_image image = {0};
        uint16_t *used = ring16(l, rig_layout(RINGS, SIZE).used + 2), before;

        v->dev->ops->pause(v->dev);
        before = __atomic_load_n(used, __ATOMIC_ACQUIRE);
        bus_lock(v->rig->bus);
        assert_int_equal(image_save_dev(&image, v->dev), 0);
        bus_unlock(v->rig->bus);
        assert_int_equal(before, __atomic_load_n(used, __ATOMIC_ACQUIRE));
        v->dev->ops->resume(v->dev);
        image_free(&image);
        /* Who pauses again at once may do so for ever before a worker has begun with a chain. */
        while (before == __atomic_load_n(used, __ATOMIC_ACQUIRE) && !atomic_load(&l->stop))
            sched_yield();
    }
    return NULL;
}

static void test_pause(void **state)
{
    struct lane *l = *state;
    pthread_t thread;

    start(l);
    pthread_create(&thread, NULL, pauser, l);
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        add(l);
        add(l);
        while (l->reaped != l->added) {
            await(l);
            reap(l);
        }
    }
    atomic_store(&l->stop, true);
    pthread_join(thread, NULL);
}

/* Returns when a worker has served one of several requests, and so is at the others. */
static void meet_worker(struct lane *l)
{
    uint16_t *used = ring16(l, l->v->queue.config.used + 2);

    while (!__atomic_load_n(used, __ATOMIC_ACQUIRE))
        sched_yield();
}

/* Resets while a worker serves, BARs that move, and drivers that break rules, while another vCPU is
 * about. */
static void test_resets(void **state)
{
    struct lane *l = *state;
    struct vrig *v = l->v;
    pthread_t thread;

    start(l);
    pthread_create(&thread, NULL, second_vcpu, l);
    for (unsigned i = 0; i < RESETS; i++) {
        ask_for(l, LARGE);
        for (unsigned n = 0; n < SIZE; n++)
            add(l);
        vrig_notify(v);
        meet_worker(l);
        if (i % 3 == 1)
            vrig_set_config(v, PCI_BAR0, 4, VRIG_BAR + 0x100000);
        if (i % 3 == 2)
            __atomic_store_n(ring16(l, v->queue.config.available + 2), 0x8000, __ATOMIC_RELEASE);
        vrig_notify(v);
        vrig_set_config(v, PCI_BAR0, 4, VRIG_BAR);
        vrig_write(v, VRIG_STATUS, 1, 0);
        while (vrig_status(v) != 0)
            ;
        restart(l);
    }
    atomic_store(&l->stop, true);
    pthread_join(thread, NULL);
    add(l);
    while (l->reaped != l->added) {
        await(l);
        reap(l);
    }
    assert_int_equal(vrig_status(v), 15);
}

#define TEST(name)  cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define LATER(name) {#name "_later", name, set_up_later, tear_down, NULL}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_notifications),  TEST(test_pause),  TEST(test_resets),
        LATER(test_notifications), LATER(test_pause), LATER(test_resets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

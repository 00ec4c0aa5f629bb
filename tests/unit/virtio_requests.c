/*
 * Requests that end later: on other threads' time, in any order, given back, held, saved and served
 * elsewhere; and what a kind of device hears of its driver. Workers run when the test says so.
 */
#include "test.h"

#include "dev/virtio/pci.h"

#include <errno.h>
#include <string.h>

#include "fake_lane.h"
#include "virtio_rig.h"

#define SIZE      8u
#define RINGS     0x10000u
#define DATA      0x100000u
#define VRIG_CONF 0x2000 /* device configuration in the BAR */

enum { QUEUE_VECTOR = 1, CONFIG_VECTOR = 0 };

/* A device that keeps what it gets until the test says what comes of it. */
struct keeper {
    struct virtio_device device;
    struct virtio_request *kept[64];
    unsigned count;
    enum virtio_result answer; /* of serve(): VIRTIO_TAKEN keeps the request */
    bool gives_back;           /* when it is recalled */
    unsigned asked, batches, recalls, resets;
    uint64_t features;
    uint32_t value; /* its state */
    struct {
        uint32_t size;
        uint8_t level, padding[3];
    } config;
    unsigned written_at, written_size;
};

static struct keeper *last_made;

static struct keeper *keeper_of(struct virtio_device *d)
{
    return container_of(d, struct keeper, device);
}

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct keeper *k = keeper_of(d);

    k->asked++;
    if (k->answer == VIRTIO_TAKEN) {
        memset(virtio_request_data(r), 0x5A, 24);
        k->kept[k->count++] = r;
    }
    return k->answer;
}

static void served_batch(struct virtio_device *d, unsigned queue)
{
    keeper_of(d)->batches++;
}

static void recall(struct virtio_device *d)
{
    struct keeper *k = keeper_of(d);

    k->recalls++;
    while (k->gives_back && k->count) /* the last first: the frame knows their order */
        virtio_give_back(k->kept[--k->count]);
}

static void read_config(struct virtio_device *d, void *config)
{
    memcpy(config, &keeper_of(d)->config, sizeof(keeper_of(d)->config));
}

static void write_config(struct virtio_device *d, const void *config, unsigned offset,
                         unsigned size)
{
    struct keeper *k = keeper_of(d);

    k->written_at = offset;
    k->written_size = size;
    k->config.level = ((const uint8_t *)config)[4]; /* the only field that can be written */
}

static void accepted(struct virtio_device *d, uint64_t features)
{
    keeper_of(d)->features = features;
}

static void reset(struct virtio_device *d)
{
    keeper_of(d)->resets++;
    keeper_of(d)->value = 0;
}

static void state(struct virtio_device *d, struct state *s)
{
    state_field(s, keeper_of(d)->value);
}

static void free_keeper(struct virtio_device *d)
{
    free(keeper_of(d));
}

static const struct virtio_ops keeper_ops = {
    .name = "keeper",
    .id = 99,
    .features = 1 << 5,
    .queues = 3,
    .queue_size = SIZE,
    .config_size = 8,
    .request_size = 24,
    .serve = serve,
    .served = served_batch,
    .recall = recall,
    .read_config = read_config,
    .write_config = write_config,
    .accepted = accepted,
    .reset = reset,
    .state = state,
    .free = free_keeper,
};

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    struct keeper *k = calloc(1, sizeof(*k));

    k->device.queues = 1;
    k->config.size = 0x11223344;
    last_made = k;
    return virtio_pci_create(slot, &keeper_ops, &k->device, err);
}

struct fixture {
    struct vrig *v;
    struct keeper *k;
};

static struct fixture make(struct mem *mem)
{
    struct vrig *v = vrig_create(create, mem, 1);

    assert_non_null(v->dev);
    return (struct fixture){v, last_made};
}

static int set_up(void **state)
{
    struct fixture *f = malloc(sizeof(*f));

    *f = make(NULL);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    f->k->gives_back = true;
    vrig_destroy(f->v);
    free(f);
    return 0;
}

static void start(struct fixture *f)
{
    vrig_start(f->v, rig_layout(RINGS, SIZE), VRIG_FEATURES | 1 << 5);
    rig_want_interrupt_at(&f->v->queue, 0);
}

static void run(struct fixture *f)
{
    fake_lane_run(f->v->workers, f->v->loop);
}

/* Makes descriptor N, of 16 bytes to be written, available, and has it served. */
static void request(struct fixture *f, unsigned n)
{
    rig_descriptor(&f->v->queue, n, DATA + 0x1000 * n, 16, RIG_WRITE, 0);
    rig_publish(&f->v->queue, (uint16_t)n);
}

static void ring(struct fixture *f)
{
    vrig_notify(f->v);
    run(f);
}

static void assert_reaped(struct fixture *f, unsigned n, uint32_t size)
{
    uint32_t head, written;

    assert_true(rig_reap(&f->v->queue, &head, &written));
    assert_int_equal(head, n);
    assert_int_equal(written, size);
}

static void assert_none_reaped(struct fixture *f)
{
    uint32_t head, written;

    assert_false(rig_reap(&f->v->queue, &head, &written));
}

/* The device has the requests with these heads, in this order. */
static void assert_kept(const struct fixture *f, unsigned count, const unsigned *heads)
{
    assert_int_equal(f->k->count, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(f->k->kept[i]->chain.head, heads[i]);
}
#define ASSERT_KEPT(f, ...)                                                                        \
    assert_kept(f, ARRAY_SIZE(((unsigned[]){__VA_ARGS__})), (unsigned[]){__VA_ARGS__})

static void test_out_of_order(void **state)
{
    struct fixture *f = *state;

    start(f);
    for (unsigned i = 0; i < 3; i++)
        request(f, i);
    ring(f);
    ASSERT_KEPT(f, 0, 1, 2);
    assert_true(f->k->batches > 0);
    assert_none_reaped(f);
    assert_int_equal(f->v->messages[QUEUE_VECTOR], 0);
    virtio_complete(f->k->kept[1], 7);
    assert_int_equal(f->v->messages[QUEUE_VECTOR], 1);
    virtio_complete(f->k->kept[2], 8);
    assert_int_equal(f->v->messages[QUEUE_VECTOR], 1); /* the driver wanted the first only */
    rig_want_interrupt_at(&f->v->queue, 2);
    virtio_complete(f->k->kept[0], 9);
    assert_int_equal(f->v->messages[QUEUE_VECTOR], 2);
    assert_reaped(f, 1, 7);
    assert_reaped(f, 2, 8);
    assert_reaped(f, 0, 9);
    f->k->count = 0;
}

/* The rings stay pinned while a request is in flight, and no longer. */
static void test_rings_pinned(void **state)
{
    struct fixture *f = *state;

    start(f);
    run(f);
    assert_false(f->k->device.queue[0].open);
    request(f, 0);
    ring(f);
    assert_true(f->k->device.queue[0].open);
    virtio_complete(f->k->kept[0], 0);
    assert_false(f->k->device.queue[0].open);
    f->k->count = 0;
}

/* As many as the queue has entries, even the same one; not one more. */
static void test_too_many(void **state)
{
    struct fixture *f = *state;

    start(f);
    for (unsigned i = 0; i < SIZE; i++)
        request(f, 3);
    ring(f);
    assert_int_equal(f->k->count, SIZE);
    assert_int_equal(vrig_status(f->v), 15);
    virtio_complete(f->k->kept[--f->k->count], 0);
    request(f, 3);
    ring(f);
    assert_int_equal(f->k->count, SIZE);
    request(f, 3);
    ring(f);
    assert_int_equal(f->k->count, SIZE);
    assert_int_equal(vrig_status(f->v), 0x4F);
    while (f->k->count) /* what is in flight goes on */
        virtio_complete(f->k->kept[--f->k->count], 0);
}

static void test_reset_waits(void **state)
{
    struct fixture *f = *state;

    start(f);
    request(f, 0);
    request(f, 1);
    ring(f);
    f->k->recalls = f->k->resets = 0;
    vrig_write(f->v, VRIG_STATUS, 1, 0);
    run(f);
    assert_int_equal(f->k->recalls, 1);
    assert_int_equal(vrig_status(f->v), 15);
    virtio_complete(f->k->kept[0], 1);
    run(f);
    assert_int_equal(vrig_status(f->v), 15);
    assert_int_equal(f->k->resets, 0);
    virtio_give_back(f->k->kept[1]);
    run(f);
    assert_int_equal(vrig_status(f->v), 0);
    assert_int_equal(f->k->resets, 1);
    f->k->count = 0;
    start(f);
    ring(f);
    assert_int_equal(f->k->count, 0); /* what was given back is forgotten */
}

static void test_reset_recalls(void **state)
{
    struct fixture *f = *state;

    f->k->gives_back = true;
    start(f);
    request(f, 0);
    ring(f);
    assert_int_equal(f->k->count, 1);
    vrig_write(f->v, VRIG_STATUS, 1, 0);
    assert_int_equal(f->k->count, 0);
    run(f);
    assert_int_equal(vrig_status(f->v), 0);
}

static void test_wait_and_wake(void **state)
{
    struct fixture *f = *state;

    start(f);
    f->k->answer = VIRTIO_WAIT;
    for (unsigned i = 0; i < 3; i++)
        request(f, i);
    ring(f);
    assert_int_equal(f->k->asked, 1); /* and the queue rests */
    ring(f);
    assert_int_equal(f->k->asked, 2);
    f->k->answer = VIRTIO_TAKEN;
    run(f);
    assert_int_equal(f->k->asked, 2);
    virtio_wake(&f->k->device, 0);
    run(f);
    ASSERT_KEPT(f, 0, 1, 2);
    /* Given back, a request is served again before those behind it. */
    virtio_give_back(f->k->kept[1]);
    virtio_give_back(f->k->kept[0]);
    f->k->count = 0;
    virtio_complete(f->k->kept[2], 0);
    request(f, 5);
    ring(f);
    ASSERT_KEPT(f, 0, 1, 5);
    while (f->k->count)
        virtio_complete(f->k->kept[--f->k->count], 0);
    assert_int_equal(vrig_status(f->v), 15);
}

/* A chain that was held may be another when it is read again. */
static void test_changed_while_held(void **state)
{
    struct fixture *f = *state;

    start(f);
    f->k->answer = VIRTIO_WAIT;
    request(f, 0);
    ring(f);
    f->k->answer = VIRTIO_TAKEN;
    rig_descriptor(&f->v->queue, 0, DATA, 16, RIG_WRITE | RIG_NEXT, 0);
    ring(f);
    assert_int_equal(f->k->count, 0);
    assert_int_equal(vrig_status(f->v), 0x4F);
}

static void test_break(void **state)
{
    struct fixture *f = *state;

    start(f);
    request(f, 0);
    request(f, 1);
    ring(f);
    virtio_break(f->k->kept[0]);
    run(f);
    assert_int_equal(vrig_status(f->v), 0x4F);
    assert_int_equal(f->v->messages[CONFIG_VECTOR], 1);
    assert_none_reaped(f);
    virtio_complete(f->k->kept[1], 1);
    assert_reaped(f, 1, 1);
    f->k->count = 0;
    f->k->answer = VIRTIO_BROKEN;
    vrig_write(f->v, VRIG_STATUS, 1, 0);
    start(f);
    request(f, 0);
    ring(f);
    assert_int_equal(vrig_status(f->v), 0x4F);
}

static void pause_device(struct fixture *f)
{
    f->v->dev->ops->pause(f->v->dev);
}

static void resume_device(struct fixture *f)
{
    f->v->dev->ops->resume(f->v->dev);
}

/* Four requests in flight, of which one ends and the others are given back when the machine is
 * paused. Another device goes on with them, in the order in which the driver made them. */
static void test_save_in_flight(void **state)
{
    struct fixture *f = *state, other = make(f->v->mem);

    f->k->gives_back = other.k->gives_back = true;
    start(f);
    for (unsigned i = 0; i < 4; i++)
        request(f, 3 - i);
    ring(f);
    ASSERT_KEPT(f, 3, 2, 1, 0);
    virtio_complete(f->k->kept[1], 16);
    f->k->kept[1] = f->k->kept[--f->k->count];
    request(f, 6); /* and one that is still in the ring */
    f->k->value = 0xABCD;
    pause_device(f);
    assert_int_equal(f->k->count, 0);
    run(f);
    pause_device(&other);
    assert_int_equal(rig_copy_state(f->v->rig, f->v->dev, other.v->dev), 0);
    assert_int_equal(other.k->value, 0xABCD);
    assert_int_equal(other.k->features, VRIG_FEATURES | 1 << 5);
    other.v->queue = f->v->queue;
    run(&other);
    assert_int_equal(other.k->count, 0);
    resume_device(&other);
    run(&other);
    ASSERT_KEPT(&other, 3, 1, 0, 6);
    assert_reaped(&other, 2, 16);
    for (unsigned i = 0; i < 4; i++)
        virtio_complete(other.k->kept[i], 16);
    other.k->count = 0;
    assert_reaped(&other, 3, 16);
    assert_reaped(&other, 1, 16);
    assert_reaped(&other, 0, 16);
    assert_reaped(&other, 6, 16);
    assert_int_equal(vrig_status(other.v), 15);
    vrig_destroy(other.v);
    /* The first one goes on as well. */
    resume_device(f);
    run(f);
    ASSERT_KEPT(f, 3, 1, 0, 6);
}

/* A state that no device can be in is refused; none does harm. */
static void test_damaged_state(void **state)
{
    struct fixture *f = *state;
    struct state_image image = {0};

    f->k->gives_back = true;
    start(f);
    for (unsigned i = 0; i < 3; i++)
        request(f, i);
    ring(f);
    pause_device(f);
    bus_lock(f->v->rig->bus);
    assert_int_equal(image_save_dev(&image, f->v->dev), 0);
    bus_unlock(f->v->rig->bus);
    for (size_t at = IMAGE_HEADER; at < image.size; at++) {
        image_load_damaged(&image, at, f->v->rig->bus, f->v->dev);
        resume_device(f);
        run(f);
        assert_true(f->k->count <= SIZE);
        pause_device(f);
        f->k->count = 0;
    }
    image_free(&image);
    resume_device(f);
}

static void test_configuration(void **state)
{
    struct fixture *f = *state;
    struct vrig *v = f->v;
    uint8_t generation;

    start(f);
    assert_int_equal(vrig_read(v, VRIG_CONF, 4), 0x11223344);
    assert_int_equal(vrig_read(v, VRIG_CONF + 1, 1), 0x33);
    assert_int_equal(vrig_read(v, VRIG_CONF + 8, 4), 0);
    assert_int_equal(vrig_read(v, VRIG_CONF + 6, 4), 0); /* not all of it is there */
    vrig_write(v, VRIG_CONF + 4, 1, 0x77);
    assert_int_equal(f->k->config.level, 0x77);
    assert_int_equal(f->k->written_at, 4);
    assert_int_equal(f->k->written_size, 1);
    vrig_write(v, VRIG_CONF + 8, 4, 1);
    assert_int_equal(f->k->written_at, 4);
    generation = (uint8_t)vrig_read(v, VRIG_GENERATION, 1);
    bus_lock(v->rig->bus);
    f->k->config.size++;
    virtio_config_changed(&f->k->device);
    bus_unlock(v->rig->bus);
    assert_int_not_equal(vrig_read(v, VRIG_GENERATION, 1), generation);
    assert_int_equal(vrig_read(v, VRIG_CONF, 4), 0x11223345);
    assert_int_equal(v->messages[CONFIG_VECTOR], 1);
    /* While the machine is paused, nobody is told; afterwards the driver is. */
    pause_device(f);
    bus_lock(v->rig->bus);
    virtio_config_changed(&f->k->device);
    bus_unlock(v->rig->bus);
    assert_int_equal(v->messages[CONFIG_VECTOR], 1);
    resume_device(f);
    assert_int_equal(v->messages[CONFIG_VECTOR], 2);
}

static void test_hooks(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->k->resets, 1); /* when it was made */
    vrig_enable(f->v);
    assert_false(vrig_negotiate(f->v, VRIG_FEATURES | 1 << 6));
    assert_int_equal(f->k->features, 0);
    assert_true(vrig_negotiate(f->v, VRIG_FEATURES | 1 << 5));
    assert_int_equal(f->k->features, VRIG_FEATURES | 1 << 5);
    assert_true(virtio_accepted(&f->k->device, 5));
    assert_false(virtio_accepted(&f->k->device, 6));
    assert_int_equal(vrig_read(f->v, VRIG_QUEUES, 2), 1); /* fewer than the kind may have */
}

/* A chain of several buffers, mapped and copied at all offsets. */
static void test_map(void **state)
{
    struct fixture *f = *state;
    struct vrig *v = f->v;
    struct mem_pin pin[4];
    struct iovec iov[4];
    struct virtio_map map = {.pin = pin, .iov = iov, .room = 4};
    uint8_t bytes[64], back[64];
    struct virtio_request *r;

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i + 1);
    start(f);
    rig_descriptor(&v->queue, 0, DATA, 10, RIG_NEXT, 1);
    rig_descriptor(&v->queue, 1, DATA + 0x1000, 0, RIG_NEXT, 2);
    rig_descriptor(&v->queue, 2, DATA + 0x2000, 20, RIG_NEXT, 3);
    rig_descriptor(&v->queue, 3, DATA + 0x3000, 5, RIG_NEXT | RIG_WRITE, 4);
    rig_descriptor(&v->queue, 4, DATA + 0x4000, 7, RIG_WRITE, 0);
    rig_publish(&v->queue, 0);
    ring(f);
    r = f->k->kept[0];
    assert_int_equal(mem_write(v->mem, DATA, bytes, 10), 0);
    assert_int_equal(mem_write(v->mem, DATA + 0x2000, bytes + 10, 20), 0);
    for (unsigned offset = 0; offset < 30; offset++) {
        unsigned done = 0;

        assert_int_equal(virtio_read_at(r, offset, back, 30 - offset), 0);
        assert_memory_equal(back, bytes + offset, 30 - offset);
        assert_int_equal(virtio_map(r, MEM_READ, offset, 100, &map), 0);
        assert_int_equal(map.size, 30 - offset);
        for (unsigned i = 0; i < map.iovs; done += (unsigned)iov[i++].iov_len)
            assert_memory_equal(iov[i].iov_base, bytes + offset + done, iov[i].iov_len);
        assert_int_equal(done, map.size);
        virtio_unmap(r, &map);
    }
    assert_int_equal(virtio_read_at(r, 1, back, 30), -EFAULT);
    assert_int_equal(virtio_map(r, MEM_READ, 30, 100, &map), 0);
    assert_int_equal(map.size, 0);
    assert_int_equal(virtio_map(r, MEM_READ, 9, 2, &map), 0);
    assert_int_equal(map.size, 2);
    virtio_unmap(r, &map);
    map.room = 1; /* as far as there is room */
    assert_int_equal(virtio_map(r, MEM_READ, 0, 100, &map), 0);
    assert_int_equal(map.size, 10);
    virtio_unmap(r, &map);
    map.room = 4;
    assert_int_equal(virtio_write_at(r, 3, bytes, 9), 0);
    assert_int_equal(virtio_write_at(r, 4, bytes, 9), -EFAULT);
    assert_int_equal(mem_read(v->mem, DATA + 0x3000, back, 6), 0);
    assert_memory_equal(back, ((uint8_t[]){0, 0, 0, 1, 1, 0}), 6);
    assert_int_equal(mem_read(v->mem, DATA + 0x4000, back, 8), 0);
    assert_memory_equal(back, ((uint8_t[]){2, 3, 4, 5, 6, 7, 8, 0}), 8);
    mem_set_pin_limit(v->mem, MEM_PAGE_SIZE);
    assert_int_equal(virtio_map(r, MEM_WRITE, 0, 100, &map), 0);
    assert_int_equal(map.size, 5);
    virtio_unmap(r, &map);
    mem_set_pin_limit(v->mem, 0);
    assert_int_equal(virtio_map(r, MEM_WRITE, 0, 100, &map), -EAGAIN);
    assert_int_equal(virtio_map_failed(-EAGAIN), VIRTIO_NO_PINS);
    assert_int_equal(virtio_map_failed(-EFAULT), VIRTIO_BROKEN);
    mem_set_pin_limit(v->mem, MEM_PIN_LIMIT);
}

/* A buffer that is not memory behind one that is: nothing stays pinned. */
static void test_map_fails(void **state)
{
    struct fixture *f = *state;
    struct vrig *v = f->v;
    struct mem_pin pin[4];
    struct iovec iov[4];
    struct virtio_map map = {.pin = pin, .iov = iov, .room = 4};

    start(f);
    rig_descriptor(&v->queue, 0, DATA, 0x1000, RIG_NEXT | RIG_WRITE, 1);
    rig_descriptor(&v->queue, 1, VRIG_MEMORY - 8, 16, RIG_WRITE, 0);
    rig_publish(&v->queue, 0);
    ring(f);
    assert_int_equal(virtio_map(f->k->kept[0], MEM_WRITE, 0, 0x1000, &map), 0);
    virtio_unmap(f->k->kept[0], &map);
    mem_set_pin_limit(v->mem, 2 * MEM_PAGE_SIZE);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(virtio_map(f->k->kept[0], MEM_WRITE, 0, 0x1010, &map), -EFAULT);
    assert_int_equal(map.pins, 0);
    mem_set_pin_limit(v->mem, MEM_PIN_LIMIT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_out_of_order),
        TEST(test_rings_pinned),
        TEST(test_too_many),
        TEST(test_reset_waits),
        TEST(test_reset_recalls),
        TEST(test_wait_and_wake),
        TEST(test_changed_while_held),
        TEST(test_break),
        TEST(test_save_in_flight),
        TEST(test_damaged_state),
        TEST(test_configuration),
        TEST(test_hooks),
        TEST(test_map),
        TEST(test_map_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

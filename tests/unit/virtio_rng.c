/*
 * The entropy device, and by its example what all virtio devices do: initialization, requests,
 * drivers that break rules, pause, reset, save and restore. Workers run when the test says so.
 */
#include "test.h"

#include "dev/virtio/rng.h"

#include <errno.h>
#include <string.h>

#include "fake_lane.h"
#include "virtio_rig.h"

#define SIZE  16u
#define RINGS 0x10000u
#define DATA  0x100000u

enum { QUEUE_VECTOR = 1, CONFIG_VECTOR = 0 };

static int set_up(void **state)
{
    *state = vrig_create(virtio_rng_create, NULL, 1);
    return 0;
}

static int tear_down(void **state)
{
    vrig_destroy(*state);
    return 0;
}

static void start(struct vrig *v)
{
    vrig_start(v, rig_layout(RINGS, SIZE), VRIG_FEATURES);
    rig_want_interrupt_at(&v->queue, 0);
}

static void run(struct vrig *v)
{
    fake_lane_run(v->workers, v->loop);
}

/* Asks for SIZE bytes into buffer N, of 64 KiB, with descriptor N. */
static void request(struct vrig *v, unsigned n, uint32_t size)
{
    rig_descriptor(&v->queue, n, DATA + 0x10000 * n, size, RIG_WRITE, 0);
    rig_publish(&v->queue, (uint16_t)n);
}

static bool all_zero(struct vrig *v, uint64_t gpa, unsigned size)
{
    unsigned char *bytes = malloc(size), any = 0;

    assert_int_equal(mem_read(v->mem, gpa, bytes, size), 0);
    for (unsigned i = 0; i < size; i++)
        any |= bytes[i];
    free(bytes);
    return !any;
}

/* Buffer N was given back with exactly SIZE random bytes. Fails by chance once in 2^128 tests. */
static void assert_served(struct vrig *v, unsigned n, uint32_t size)
{
    uint32_t head, written;

    assert_true(rig_reap(&v->queue, &head, &written));
    assert_int_equal(head, n);
    assert_int_equal(written, size);
    assert_false(all_zero(v, DATA + 0x10000 * n, 16));
    assert_false(all_zero(v, DATA + 0x10000 * n + size - 16, 16));
    if (size < 0x10000)
        assert_true(all_zero(v, DATA + 0x10000 * n + size, MIN(64, 0x10000 - size)));
}

static void assert_not_served(struct vrig *v)
{
    uint32_t head, written;

    assert_false(rig_reap(&v->queue, &head, &written));
}

static void test_identity(void **state)
{
    struct vrig *v = *state;
    unsigned types = 0, at;

    assert_int_equal(vrig_config(v, 0, 4), 0x10441AF4);
    assert_int_equal(vrig_config(v, PCI_REVISION, 4) >> 8, 0x00FF00);
    assert_true(vrig_config(v, PCI_REVISION, 1) >= 1);
    assert_int_equal(vrig_config(v, PCI_INTERRUPT_PIN, 1), 1);
    for (unsigned i = 0; (at = vrig_capability(v, PCI_CAPABILITY_VENDOR, i)); i++) {
        uint8_t type = (uint8_t)vrig_config(v, at + 3, 1);
        uint32_t offset = vrig_config(v, at + 8, 4), size = vrig_config(v, at + 12, 4);

        types |= 1u << type;
        assert_int_equal(vrig_config(v, at + 4, 1), 0); /* the BAR */
        assert_true(type == 5 || (size && offset + size <= 0x8000));
        if (type == 2) {
            assert_int_equal(offset, VRIG_NOTIFY);
            assert_int_equal(vrig_config(v, at + 16, 4), 4);
        }
    }
    assert_int_equal(types, 1u << 1 | 1u << 2 | 1u << 3 | 1u << 5); /* no device configuration */
    assert_true(vrig_capability(v, PCI_CAPABILITY_MSIX, 0));
}

static void test_negotiation(void **state)
{
    struct vrig *v = *state;

    vrig_enable(v);
    assert_int_equal(vrig_status(v), 0);
    vrig_write(v, VRIG_FEATURE_SELECT, 4, 0);
    assert_int_equal(vrig_read(v, VRIG_FEATURE, 4), (uint32_t)VRIG_FEATURES);
    vrig_write(v, VRIG_FEATURE_SELECT, 4, 1);
    assert_int_equal(vrig_read(v, VRIG_FEATURE, 4), VRIG_FEATURES >> 32);
    vrig_write(v, VRIG_FEATURE_SELECT, 4, 2);
    assert_int_equal(vrig_read(v, VRIG_FEATURE, 4), 0);
    assert_int_equal(vrig_read(v, VRIG_QUEUES, 2), 1);

    assert_false(vrig_negotiate(v, 0)); /* without VERSION_1 */
    assert_int_equal(vrig_status(v), 3);
    vrig_write(v, VRIG_STATUS, 1, 7); /* and so there is no DRIVER_OK */
    assert_int_equal(vrig_status(v), 3);
    assert_false(vrig_negotiate(v, VRIG_FEATURES | 1)); /* what was not offered */
    assert_true(vrig_negotiate(v, UINT64_C(1) << VIRTIO_F_VERSION_1));
    vrig_write(v, VRIG_DRIVER_FEATURE_SELECT, 4, 0);
    vrig_write(v, VRIG_DRIVER_FEATURE, 4, 0xFFFFFFFF); /* too late */
    assert_int_equal(vrig_read(v, VRIG_DRIVER_FEATURE, 4), 0);
    vrig_write(v, VRIG_STATUS, 1, 0x4F); /* NEEDS_RESET is not the driver's */
    assert_int_equal(vrig_status(v), 0x0F);
    vrig_write(v, VRIG_STATUS, 1, 0);
    assert_int_equal(vrig_status(v), 0);
}

static void test_queue_registers(void **state)
{
    struct vrig *v = *state;

    vrig_enable(v);
    assert_true(vrig_negotiate(v, VRIG_FEATURES));
    assert_int_equal(vrig_read(v, VRIG_QUEUE_SIZE, 2), 256);
    assert_int_equal(vrig_read(v, VRIG_QUEUE_VECTOR, 2), VIRTIO_NO_VECTOR);
    vrig_write(v, VRIG_QUEUE_VECTOR, 2, 2); /* there are two */
    assert_int_equal(vrig_read(v, VRIG_QUEUE_VECTOR, 2), VIRTIO_NO_VECTOR);
    vrig_write(v, VRIG_CONFIG_VECTOR, 2, 9);
    assert_int_equal(vrig_read(v, VRIG_CONFIG_VECTOR, 2), VIRTIO_NO_VECTOR);
    vrig_write(v, VRIG_QUEUE_DESCRIPTORS, 8, 0x123456789ABCDEF0);
    assert_int_equal(vrig_read(v, VRIG_QUEUE_DESCRIPTORS + 4, 4), 0x12345678);
    assert_int_equal(vrig_read(v, VRIG_QUEUE_DESCRIPTORS, 1), 0xF0);
    vrig_write(v, VRIG_QUEUE_DESCRIPTORS + 1, 1, 0x00); /* by any of its bytes */
    assert_int_equal(vrig_read(v, VRIG_QUEUE_DESCRIPTORS, 4), 0x9ABC00F0);
    vrig_write(v, VRIG_QUEUE_SELECT, 2, 1); /* does not exist */
    assert_int_equal(vrig_read(v, VRIG_QUEUE_SIZE, 2), 0);
    vrig_write(v, VRIG_QUEUE_SIZE, 2, 4);
    vrig_write(v, VRIG_QUEUE_ENABLE, 2, 1);
    assert_int_equal(vrig_read(v, VRIG_QUEUE_ENABLE, 2), 0);
    assert_int_equal(vrig_status(v), 11);
    vrig_set_queue(v, rig_layout(RINGS, SIZE));
    assert_int_equal(vrig_read(v, VRIG_QUEUE_ENABLE, 2), 1);
    vrig_write(v, VRIG_QUEUE_SIZE, 2, 4); /* too late */
    vrig_write(v, VRIG_QUEUE_USED, 4, 4);
    assert_int_equal(vrig_read(v, VRIG_QUEUE_SIZE, 2), SIZE);
    assert_int_equal(vrig_read(v, VRIG_QUEUE_USED, 4), v->queue.config.used);
}

static void test_requests(void **state)
{
    struct vrig *v = *state;

    start(v);
    run(v);
    assert_not_served(v);
    request(v, 0, 1000);
    vrig_notify(v);
    assert_not_served(v); /* a doorbell does no work */
    run(v);
    assert_served(v, 0, 1000);
    assert_int_equal(v->messages[QUEUE_VECTOR], 1);
    rig_want_interrupt_at(&v->queue, 2);
    for (unsigned i = 1; i < 4; i++)
        request(v, i, 100 * i);
    vrig_notify(v);
    run(v);
    for (unsigned i = 1; i < 4; i++)
        assert_served(v, i, 100 * i);
    assert_int_equal(v->messages[QUEUE_VECTOR], 2); /* one for all three */
    assert_int_equal(v->messages[CONFIG_VECTOR], 0);
    assert_int_equal(vrig_status(v), 15);
}

/* As many as the queue holds are more than a worker serves at once. */
static void test_many_requests(void **state)
{
    struct vrig *v = *state;
    struct virtqueue_config config = rig_layout(RINGS, 256);
    unsigned steps = 0;
    uint32_t head, written;

    vrig_start(v, config, VRIG_FEATURES);
    rig_want_interrupt_at(&v->queue, 255);
    for (unsigned i = 0; i < 256; i++) {
        rig_descriptor(&v->queue, i, DATA + 16 * i, 16, RIG_WRITE, 0);
        rig_publish(&v->queue, (uint16_t)i);
    }
    vrig_notify(v);
    while (fake_workers_step(v->workers))
        steps++;
    assert_in_range(steps, 4, 6);
    for (unsigned i = 0; i < 256; i++) {
        assert_true(rig_reap(&v->queue, &head, &written));
        assert_int_equal(head, i);
        assert_false(all_zero(v, DATA + 16 * i, 16));
    }
    assert_int_equal(v->messages[QUEUE_VECTOR], 1);
}

/* A chain of several buffers; more than 64 KiB are cut off. */
static void test_large_requests(void **state)
{
    struct vrig *v = *state;
    uint32_t head, written;

    start(v);
    rig_descriptor(&v->queue, 0, DATA + 0xFF8, 16, RIG_WRITE | RIG_NEXT, 1);
    rig_descriptor(&v->queue, 1, DATA + 0x2000, 0, RIG_WRITE | RIG_NEXT, 2);
    rig_descriptor(&v->queue, 2, DATA + 0x3000, 0x100000, RIG_WRITE, 0);
    rig_publish(&v->queue, 0);
    vrig_notify(v);
    run(v);
    assert_true(rig_reap(&v->queue, &head, &written));
    assert_int_equal(written, 65536);
    assert_false(all_zero(v, DATA + 0xFF8, 16));
    assert_false(all_zero(v, DATA + 0x3000 + 65536 - 16 - 16, 16));
    assert_true(all_zero(v, DATA + 0x3000 + 65536 - 16, 4096));
    /* Fewer pins than that: what can be filled is. */
    mem_set_pin_limit(v->mem, 8 * MEM_PAGE_SIZE);
    request(v, 3, 0x10000);
    vrig_notify(v);
    run(v);
    assert_true(rig_reap(&v->queue, &head, &written));
    assert_in_range(written, 1, 8 * MEM_PAGE_SIZE);
    assert_int_equal(vrig_status(v), 15);
}

/* Nothing can be pinned for now: the request waits, and the worker does not hang. */
static void test_no_pins(void **state)
{
    struct vrig *v = *state;

    start(v);
    request(v, 0, 100);
    mem_set_pin_limit(v->mem, 0);
    vrig_notify(v);
    run(v); /* does not go on for ever */
    assert_not_served(v);
    vrig_notify(v);
    run(v);
    assert_not_served(v);
    mem_set_pin_limit(v->mem, MEM_PIN_LIMIT);
    run(v);
    assert_served(v, 0, 100);
    mem_set_pin_limit(v->mem, 0); /* once more: it waits again */
    request(v, 1, 100);
    vrig_notify(v);
    run(v);
    assert_not_served(v);
    mem_set_pin_limit(v->mem, MEM_PIN_LIMIT);
    run(v);
    assert_served(v, 1, 100);
    assert_int_equal(vrig_status(v), 15);
}

/* The device needs a reset, says so once by its vector for that, and does nothing else until then.
 */
static void assert_broken(struct vrig *v)
{
    vrig_notify(v);
    run(v);
    assert_int_equal(vrig_status(v), 0x4F);
    assert_int_equal(v->messages[CONFIG_VECTOR], 1);
    assert_not_served(v);
    request(v, 9, 16);
    vrig_notify(v);
    run(v);
    assert_not_served(v);
    v->messages[CONFIG_VECTOR] = 0;
    vrig_write(v, VRIG_STATUS, 1, 0);
    assert_int_equal(vrig_status(v), 0);
    start(v);
    request(v, 9, 16);
    vrig_notify(v);
    run(v);
    assert_served(v, 9, 16);
}

static void test_broken_drivers(void **state)
{
    struct vrig *v = *state;

    start(v);
    rig_descriptor(&v->queue, 0, DATA, 16, 0, 0); /* to be read */
    rig_publish(&v->queue, 0);
    assert_broken(v);
    rig_descriptor(&v->queue, 0, DATA, 0, RIG_WRITE, 0); /* no bytes at all */
    rig_publish(&v->queue, 0);
    assert_broken(v);
    rig_descriptor(&v->queue, 0, VRIG_MEMORY - 8, 16, RIG_WRITE, 0);
    rig_publish(&v->queue, 0);
    assert_broken(v);
    rig_descriptor(&v->queue, 0, DATA, 16, RIG_WRITE | RIG_NEXT, 0);
    rig_publish(&v->queue, 0);
    assert_broken(v);
    rig_publish_index(&v->queue, 1000);
    assert_broken(v);
}

static void test_broken_queues(void **state)
{
    struct vrig *v = *state;
    struct virtqueue_config good = rig_layout(RINGS, SIZE), c = good;

    vrig_enable(v);
    vrig_set_queue(v, good); /* before the features */
    assert_int_equal(vrig_status(v), 0x40);
    assert_true(vrig_negotiate(v, VRIG_FEATURES));
    c.size = 12;
    vrig_set_queue(v, c);
    assert_int_equal(vrig_status(v), 0x4B);
    assert_true(vrig_negotiate(v, VRIG_FEATURES));
    c = good;
    c.used += 2;
    vrig_set_queue(v, c);
    assert_int_equal(vrig_status(v), 0x4B);
    assert_int_equal(v->messages[CONFIG_VECTOR], 0); /* the driver does not drive yet */
    c = good;
    c.available = VRIG_MEMORY;
    vrig_start(v, c, VRIG_FEATURES);
    vrig_notify(v);
    run(v);
    assert_int_equal(vrig_status(v), 0x4F);
    assert_int_equal(v->messages[CONFIG_VECTOR], 1);
}

/* Nothing is served before DRIVER_OK, nor while the function may not reach memory. */
static void test_not_live(void **state)
{
    struct vrig *v = *state;

    vrig_enable(v);
    assert_true(vrig_negotiate(v, VRIG_FEATURES));
    vrig_set_queue(v, rig_layout(RINGS, SIZE));
    rig_want_interrupt_at(&v->queue, 0);
    request(v, 0, 16);
    vrig_notify(v);
    run(v);
    assert_not_served(v);
    vrig_write(v, VRIG_STATUS, 1, 15);
    run(v);
    assert_served(v, 0, 16);
    vrig_set_config(v, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    request(v, 1, 16);
    vrig_notify(v);
    run(v);
    assert_not_served(v);
    vrig_set_config(v, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    run(v);
    assert_served(v, 1, 16);
}

static void test_unknown_doorbells(void **state)
{
    struct vrig *v = *state;

    start(v);
    run(v);
    request(v, 0, 16);
    for (unsigned offset = 4; offset < 0x1000; offset += 4)
        vrig_write(v, VRIG_NOTIFY + offset, 4, 0);
    run(v);
    assert_not_served(v);
    vrig_write(v, VRIG_NOTIFY + 1, 1, 0); /* any byte of it */
    run(v);
    assert_served(v, 0, 16);
}

/* Without MSI-X there is the pin, until the driver has read why. */
static void test_isr(void **state)
{
    struct vrig *v = *state;
    const bool *line = &v->rig->level[VRIG_PIRQ + PCI_PIRQ(VRIG_SLOT, 0)];
    unsigned msix = vrig_capability(v, PCI_CAPABILITY_MSIX, 0) + 2;

    start(v);
    vrig_set_config(v, msix, 2, 0);
    assert_false(*line);
    request(v, 0, 16);
    vrig_notify(v);
    run(v);
    assert_int_equal(v->messages[QUEUE_VECTOR], 0);
    assert_true(*line);
    assert_int_equal(vrig_config(v, PCI_STATUS, 1) & PCI_STATUS_INT, PCI_STATUS_INT);
    assert_int_equal(vrig_read(v, VRIG_ISR, 1), VIRTIO_CAUSE_QUEUE);
    assert_false(*line);
    assert_int_equal(vrig_read(v, VRIG_ISR, 1), 0);
    rig_publish_index(&v->queue, 1000);
    vrig_notify(v);
    run(v);
    assert_true(*line);
    vrig_set_config(v, msix, 2, 0x8000); /* a function that sends messages drives no pin */
    assert_false(*line);
    vrig_set_config(v, msix, 2, 0);
    assert_true(*line);
    assert_int_equal(vrig_read(v, VRIG_ISR, 1), VIRTIO_CAUSE_CONFIG);
    assert_false(*line);
}

/* Everything can be done through configuration space alone (4.1.4.9). */
static void test_window(void **state)
{
    struct vrig *v = *state;
    unsigned n = 0, at;

    start(v);
    while (vrig_config(v, vrig_capability(v, PCI_CAPABILITY_VENDOR, n) + 3, 1) != 5)
        n++;
    at = vrig_capability(v, PCI_CAPABILITY_VENDOR, n);
    vrig_set_config(v, at + 8, 4, VRIG_STATUS);
    vrig_set_config(v, at + 12, 4, 1);
    assert_int_equal(vrig_config(v, at + 16, 1), 15);
    vrig_set_config(v, at + 8, 4, VRIG_FEATURE_SELECT);
    vrig_set_config(v, at + 12, 4, 4);
    vrig_set_config(v, at + 16, 4, 1);
    vrig_set_config(v, at + 8, 4, VRIG_FEATURE);
    assert_int_equal(vrig_config(v, at + 16, 4), VRIG_FEATURES >> 32);
    request(v, 0, 16);
    vrig_set_config(v, at + 8, 4, VRIG_NOTIFY);
    vrig_set_config(v, at + 12, 4, 2);
    vrig_set_config(v, at + 16, 2, 0);
    run(v);
    assert_served(v, 0, 16);
    /* What the driver must not ask for does nothing. */
    vrig_set_config(v, at + 16, 4, 0);
    vrig_set_config(v, at + 8, 4, VRIG_STATUS);
    vrig_set_config(v, at + 12, 4, 3);
    vrig_set_config(v, at + 16, 4, 0);
    assert_int_equal(vrig_status(v), 15);
    vrig_set_config(v, at + 12, 4, 1);
    vrig_set_config(v, at + 4, 1, 1); /* another BAR */
    vrig_set_config(v, at + 16, 4, 0);
    assert_int_equal(vrig_status(v), 15);
    vrig_set_config(v, at + 4, 1, 0);
    vrig_set_config(v, at + 8, 4, 0x8000);
    assert_int_equal(vrig_config(v, at + 16, 1), 0);
    vrig_set_config(v, at + 8, 4, 0xFFFFFFFF);
    vrig_set_config(v, at + 16, 1, 0);
    assert_int_equal(vrig_status(v), 15);
}

static void pause_device(struct vrig *v)
{
    v->dev->ops->pause(v->dev);
}

static void resume_device(struct vrig *v)
{
    v->dev->ops->resume(v->dev);
}

static void test_pause(void **state)
{
    struct vrig *v = *state;

    start(v);
    request(v, 0, 16);
    vrig_notify(v);
    pause_device(v);
    run(v);
    assert_not_served(v);
    request(v, 1, 16);
    vrig_notify(v);
    run(v);
    assert_not_served(v);
    resume_device(v);
    run(v);
    assert_served(v, 0, 16);
    assert_served(v, 1, 16);
}

/* What a worker left for the loop to do belongs to the state that is saved. */
static void test_pause_settles(void **state)
{
    struct vrig *v = *state;

    start(v);
    rig_publish_index(&v->queue, 1000);
    vrig_notify(v);
    assert_true(fake_workers_step(v->workers));
    assert_int_equal(vrig_status(v), 15);
    pause_device(v);
    assert_int_equal(vrig_status(v), 0x4F);
    resume_device(v);
}

static void test_reset(void **state)
{
    struct vrig *v = *state;

    start(v);
    request(v, 0, 16);
    vrig_notify(v);
    pause_device(v);
    rig_reset(v->rig, v->dev);
    resume_device(v);
    run(v);
    assert_not_served(v);
    assert_int_equal(vrig_read(v, VRIG_STATUS, 4), 0xFFFFFFFF); /* nothing is decoded */
    assert_int_equal(vrig_config(v, PCI_BAR0, 4), 4);
    start(v);
    request(v, 0, 16);
    vrig_notify(v);
    run(v);
    assert_served(v, 0, 16);
}

/* ---- A device that is reset while a worker serves it ---- */

/* What the driver does meanwhile, on another processor, and what it sees. */
static struct vrig *served;
static uint8_t status_after_reset, status_after_writes;

static enum virtio_result reset_and_serve(struct virtio_device *device, struct virtio_request *r)
{
    vrig_write(served, VRIG_STATUS, 1, 0);
    status_after_reset = vrig_status(served);
    /* Too early: the driver must wait until the status reads 0. */
    vrig_write(served, VRIG_STATUS, 1, 1);
    vrig_write(served, VRIG_QUEUE_SIZE, 2, 4);
    vrig_write(served, VRIG_CONFIG_VECTOR, 2, 1);
    status_after_writes = vrig_status(served);
    virtio_complete(r, 1);
    return VIRTIO_TAKEN;
}

static void free_device(struct virtio_device *device)
{
    free(device);
}

static const struct virtio_ops reset_ops = {.name = "test",
                                            .id = 99,
                                            .queues = 2,
                                            .queue_size = SIZE,
                                            .serve = reset_and_serve,
                                            .free = free_device};

static struct dev *create_reset(const struct virtio_slot *slot, struct error *err)
{
    return virtio_pci_create(slot, &reset_ops, calloc(1, sizeof(struct virtio_device)), err);
}

/* The reset waits for the worker, without the board lock, and no chain after it is served. */
static void test_reset_while_serving(void **unused)
{
    struct vrig *v = vrig_create(create_reset, NULL, 1);
    uint32_t head, written;

    served = v;
    vrig_start(v, rig_layout(RINGS, SIZE), VRIG_FEATURES);
    run(v);
    request(v, 0, 16);
    request(v, 1, 16);
    vrig_notify(v);
    assert_true(fake_workers_step(v->workers));
    assert_int_equal(status_after_reset, 15);
    assert_int_equal(status_after_writes, 15);
    assert_true(rig_reap(&v->queue, &head, &written)); /* it had been taken */
    assert_not_served(v);
    assert_int_equal(vrig_status(v), 15);
    run(v);
    assert_int_equal(vrig_status(v), 0);
    assert_int_equal(vrig_read(v, VRIG_QUEUE_SIZE, 2), SIZE);
    assert_int_equal(vrig_read(v, VRIG_QUEUE_ENABLE, 2), 0);
    assert_int_equal(vrig_read(v, VRIG_CONFIG_VECTOR, 2), VIRTIO_NO_VECTOR);
    assert_not_served(v);
    /* Also when the machine is paused before the loop has come to it. */
    vrig_start(v, rig_layout(RINGS, SIZE), VRIG_FEATURES);
    request(v, 0, 16);
    assert_true(fake_workers_step(v->workers));
    assert_int_equal(vrig_status(v), 15);
    pause_device(v);
    assert_int_equal(vrig_status(v), 0);
    resume_device(v);
    run(v);
    vrig_destroy(v);
}

/* Some requests are served, others are in the ring, with a doorbell rung, when the device is saved.
 * Another one takes its place and serves the rest, each once. */
static void test_save_restore(void **state)
{
    struct vrig *v = *state, *other = vrig_create(virtio_rng_create, v->mem, 1);

    start(v);
    request(v, 0, 16);
    vrig_notify(v);
    run(v);
    rig_want_interrupt_at(&v->queue, 3);
    for (unsigned i = 1; i < 4; i++)
        request(v, i, 16);
    vrig_notify(v);
    pause_device(v);
    pause_device(other);
    assert_int_equal(rig_copy_state(v->rig, v->dev, other->dev), 0);
    other->queue = v->queue;
    run(other);
    assert_served(other, 0, 16);
    assert_not_served(other);
    resume_device(other);
    run(other);
    for (unsigned i = 1; i < 4; i++)
        assert_served(other, i, 16);
    assert_not_served(other);
    assert_int_equal(other->messages[QUEUE_VECTOR], 1);
    assert_int_equal(vrig_status(other), 15);
    assert_int_equal(vrig_config(other, PCI_BAR0, 4), VRIG_BAR | 4);
    vrig_destroy(other);
}

/* A state of version 1 has no chains that are held, and nothing of a changed configuration: those
 * fields stood last. */
static void test_old_state(void **state)
{
    struct vrig *v = *state, *other = vrig_create(virtio_rng_create, v->mem, 1);
    const size_t added = (4 + 1) + (4 + 1) + (4 + 2);
    struct state_image image = {0};
    size_t end;

    start(v);
    request(v, 0, 16);
    vrig_notify(v);
    pause_device(v);
    pause_device(other);
    bus_lock(v->rig->bus);
    assert_int_equal(image_save_dev(&image, v->dev), 0);
    end = IMAGE_HEADER + IMAGE_SECTION + (size_t)image_get64(&image, IMAGE_HEADER + IMAGE_LENGTH);
    memmove(image.data + end - added, image.data + end, image.size - end);
    image.size -= added;
    image.data[IMAGE_HEADER + IMAGE_VERSION] = 1;
    image_put64(&image, IMAGE_HEADER + IMAGE_LENGTH,
                image_get64(&image, IMAGE_HEADER + IMAGE_LENGTH) - added);
    image_seal(&image);
    assert_int_equal(image_load_dev(&image, other->dev), 0);
    bus_unlock(v->rig->bus);
    image_free(&image);
    other->queue = v->queue;
    resume_device(other);
    run(other);
    assert_served(other, 0, 16);
    vrig_destroy(other);
    resume_device(v);
}

/* An interrupt by the pin that the driver has not seen is there after a restore. */
static void test_restored_line(void **state)
{
    struct vrig *v = *state, *other = vrig_create(virtio_rng_create, v->mem, 1);
    const bool *line = &other->rig->level[VRIG_PIRQ + PCI_PIRQ(VRIG_SLOT, 0)];

    start(v);
    vrig_set_config(v, vrig_capability(v, PCI_CAPABILITY_MSIX, 0) + 2, 2, 0);
    request(v, 0, 16);
    vrig_notify(v);
    assert_true(fake_workers_step(v->workers)); /* and the loop has not come to it */
    pause_device(v);
    pause_device(other);
    assert_int_equal(rig_copy_state(v->rig, v->dev, other->dev), 0);
    assert_true(*line);
    assert_int_equal(vrig_read(other, VRIG_ISR, 1), VIRTIO_CAUSE_QUEUE);
    assert_false(*line);
    vrig_destroy(other);
    resume_device(v);
}

/* A state that no device can be in is refused, or taken for a broken driver's; none does harm. */
static void test_damaged_state(void **state)
{
    struct vrig *v = *state;
    struct state_image image = {0};

    start(v);
    pause_device(v);
    bus_lock(v->rig->bus);
    assert_int_equal(image_save_dev(&image, v->dev), 0);
    bus_unlock(v->rig->bus);
    for (size_t at = IMAGE_HEADER; at < image.size; at++) {
        image_load_damaged(&image, at, v->rig->bus, v->dev);
        resume_device(v);
        run(v);
        pause_device(v);
    }
    image_free(&image);
    resume_device(v);
}

static void test_slot_taken(void **state)
{
    struct vrig *v = *state;
    struct virtio_slot slot = {.pci = v->pci,
                               .number = VRIG_SLOT,
                               .bus = v->rig->bus,
                               .mem = v->mem,
                               .loop = v->loop,
                               .workers = v->workers};
    struct error err = {0};

    assert_null(virtio_rng_create(&slot, &err));
    assert_int_equal(err.code, EBUSY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_identity),
        TEST(test_negotiation),
        TEST(test_queue_registers),
        TEST(test_requests),
        TEST(test_many_requests),
        TEST(test_large_requests),
        TEST(test_no_pins),
        TEST(test_broken_drivers),
        TEST(test_broken_queues),
        TEST(test_not_live),
        TEST(test_unknown_doorbells),
        TEST(test_isr),
        TEST(test_window),
        TEST(test_pause),
        TEST(test_pause_settles),
        TEST(test_reset),
        cmocka_unit_test(test_reset_while_serving),
        TEST(test_save_restore),
        TEST(test_old_state),
        TEST(test_restored_line),
        TEST(test_damaged_state),
        TEST(test_slot_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The virtio console: what it tells a driver of its ports, bytes in both directions, ends that are
 * full, empty or not there, what is saved, and drivers that send nonsense. Workers run when the
 * test says so.
 */
#include "test.h"

#include "dev/virtio/console.h"

#include <errno.h>
#include <string.h>

#include "virtio_queues.h"

#define DATA(Q)   (0x100000u + 0x10000 * (Q)) /* 4 KiB for each of its chains */
#define VRIG_CONF 0x2000
#define QUEUES    6u

enum { RX0, TX0, CTL_RX, CTL_TX, RX1, TX1 };
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };
#define FEATURES (VRIG_FEATURES | 3)

/* The host side of port 1, "agent", or of both. */
struct host {
    char output[65536 * 2];
    size_t size;
    bool full;
    unsigned input_ready;
};

static struct con_end *ends[2];
static struct host hosts[2];

static void output(void *opaque, const void *data, size_t size)
{
    struct host *h = opaque;

    assert_true(h->size + size <= sizeof(h->output));
    memcpy(h->output + h->size, data, size);
    h->size += size;
}

static bool full(void *opaque)
{
    return ((struct host *)opaque)->full;
}

static void input_ready(void *opaque)
{
    ((struct host *)opaque)->input_ready++;
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    struct virtio_console_port ports[2] = {{.name = ""}, {.name = "agent"}};

    memset(hosts, 0, sizeof(hosts));
    for (unsigned i = 0; i < 2; i++) {
        const struct con_given given = {output, full, input_ready, &hosts[i]};

        ports[i].end = ends[i] = con_end_open("tty", &given, slot->loop, err);
    }
    return virtio_console_create(slot, ports, 2, err);
}

static int set_up(void **state)
{
    return qrig_set_up(state, create, QUEUES);
}

/* Makes a chain of one buffer of SIZE bytes available, with DATA if the device is to read it. */
static void give(struct qrig *f, unsigned queue, const void *data, uint32_t size)
{
    uint64_t gpa = DATA(queue) + 0x1000 * qrig_next(f, queue);

    if (data)
        assert_int_equal(mem_write(f->v->mem, gpa, data, size), 0);
    qrig_give(f, queue, gpa, size, data ? 0 : RIG_WRITE);
}

/* Whether the device has given back the next chain; what it has written goes to DATA. */
static bool get(struct qrig *f, unsigned queue, void *data, uint32_t *size)
{
    uint32_t head;

    if (!rig_reap(&f->queue[queue], &head, size))
        return false;
    if (data)
        assert_int_equal(mem_read(f->v->mem, DATA(queue) + 0x1000 * head, data, *size), 0);
    return true;
}

static void control(struct qrig *f, uint32_t port, uint16_t event, uint16_t value)
{
    const struct {
        uint32_t port;
        uint16_t event, value;
    } message = {port, event, value};
    uint32_t written;

    give(f, CTL_TX, &message, sizeof(message));
    assert_true(get(f, CTL_TX, NULL, &written));
    assert_int_equal(written, 0);
}

/* The next message is this one; TAIL follows it. */
static void assert_told_tail(struct qrig *f, uint32_t port, uint16_t event, uint16_t value,
                             const void *tail, uint32_t size)
{
    uint8_t bytes[4096];
    uint32_t written;

    give(f, CTL_RX, NULL, 512);
    assert_true(get(f, CTL_RX, bytes, &written));
    assert_int_equal(written, 8 + size);
    assert_int_equal(*(uint32_t *)bytes, port);
    assert_int_equal(*(uint16_t *)(bytes + 4), event);
    assert_int_equal(*(uint16_t *)(bytes + 6), value);
    if (size)
        assert_memory_equal(bytes + 8, tail, size);
}

static void assert_told(struct qrig *f, uint32_t port, uint16_t event, uint16_t value)
{
    assert_told_tail(f, port, event, value, NULL, 0);
}

/* As a driver does it, up to ports that are open. */
static void introduce(struct qrig *f)
{
    qrig_start(f, FEATURES);
    control(f, 0, READY, 1);
    assert_told(f, 0, ADD, 0);
    assert_told(f, 1, ADD, 0);
    control(f, 0, PORT_READY, 1);
    assert_told(f, 0, CONSOLE, 1);
    assert_told(f, 0, OPEN, 1);
    control(f, 1, PORT_READY, 1);
    assert_told_tail(f, 1, NAME, 1, "agent", 5);
    assert_told(f, 1, OPEN, 1);
    control(f, 1, OPEN, 1);
}

/* No message waits: a chain for one is not given back. */
static void assert_silent(struct qrig *f)
{
    uint32_t written;

    give(f, CTL_RX, NULL, 512);
    assert_false(get(f, CTL_RX, NULL, &written));
}

static void test_introduction(void **state)
{
    struct qrig *f = *state;

    qrig_start(f, FEATURES);
    assert_int_equal(vrig_read(f->v, VRIG_CONF + 4, 4), 2);
    assert_int_equal(vrig_read(f->v, VRIG_QUEUES, 2), QUEUES);
    introduce(f);
    assert_silent(f);
}

static void test_bytes(void **state)
{
    struct qrig *f = *state;
    char bytes[4096];
    uint32_t size;

    introduce(f);
    for (unsigned port = 0; port < 2; port++) {
        unsigned rx = port ? RX1 : RX0;

        give(f, rx + 1, "hello", 5);
        assert_true(get(f, rx + 1, NULL, &size));
        assert_int_equal(hosts[port].size, 5);
        assert_memory_equal(hosts[port].output, "hello", 5);
        give(f, rx, NULL, 4); /* a driver gives its buffers before there is anything */
        give(f, rx, NULL, 100);
        assert_false(get(f, rx, NULL, &size));
        assert_int_equal(con_end_input(ends[port], "typed", 5), 5);
        qrig_run(f);
        assert_true(get(f, rx, bytes, &size));
        assert_int_equal(size, 4);
        assert_memory_equal(bytes, "type", 4);
        assert_true(get(f, rx, bytes, &size));
        assert_int_equal(size, 1);
        assert_int_equal(bytes[0], 'd');
        assert_int_equal(con_end_input(ends[port], "again", 5), 5);
        qrig_run(f);
        give(f, rx, NULL, 100);
        assert_true(get(f, rx, bytes, &size));
        assert_int_equal(size, 5);
    }
}

/* Nobody in the guest has the port open: what is typed waits, unless it is a console. */
static void test_closed_port(void **state)
{
    struct qrig *f = *state;
    uint32_t size;

    introduce(f);
    control(f, 1, OPEN, 0);
    give(f, RX1, NULL, 100);
    assert_int_equal(con_end_input(ends[1], "hey", 3), 3);
    qrig_run(f);
    assert_false(get(f, RX1, NULL, &size));
    control(f, 1, OPEN, 1);
    assert_true(get(f, RX1, NULL, &size));
    assert_int_equal(size, 3);
}

/* More than fits is refused, and asked for when there is room. */
static void test_input_limit(void **state)
{
    struct qrig *f = *state;
    static char much[CON_END_INPUT + 100];
    uint32_t size;

    introduce(f);
    assert_int_equal(con_end_input(ends[0], much, sizeof(much)), CON_END_INPUT);
    assert_int_equal(con_end_input(ends[0], much, 1), 0);
    assert_int_equal(hosts[0].input_ready, 0);
    give(f, RX0, NULL, 10);
    assert_true(get(f, RX0, NULL, &size));
    assert_int_equal(hosts[0].input_ready, 1);
    assert_int_equal(con_end_input(ends[0], much, sizeof(much)), 10);
}

/* A host side without room: the request waits, the rest of it is sent later, nothing twice. */
static void test_output_waits(void **state)
{
    struct qrig *f = *state;
    static char large[0x1000];
    uint32_t size;

    for (unsigned i = 0; i < sizeof(large); i++)
        large[i] = (char)i;
    introduce(f);
    hosts[0].full = true;
    give(f, TX0, large, sizeof(large));
    give(f, TX0, "!", 1);
    assert_false(get(f, TX0, NULL, &size));
    qrig_run(f);
    hosts[0].full = false;
    con_end_room(ends[0]);
    qrig_run(f);
    assert_true(get(f, TX0, NULL, &size));
    assert_true(get(f, TX0, NULL, &size));
    assert_int_equal(hosts[0].size, sizeof(large) + 1);
    assert_memory_equal(hosts[0].output, large, sizeof(large));
    assert_int_equal(hosts[0].output[sizeof(large)], '!');
}

/* A chain as long as can be is sent in turns. */
static void test_long_output(void **state)
{
    struct qrig *f = *state;
    struct rig_queue *q = &f->queue[TX0];
    uint32_t size;

    introduce(f);
    rig_descriptor(q, 0, DATA(TX0), 0x10000, RIG_NEXT, 1);
    rig_descriptor(q, 1, DATA(TX0), 0x10000, 0, 0);
    rig_publish(q, 0);
    qrig_notify(f, TX0);
    assert_true(get(f, TX0, NULL, &size));
    assert_int_equal(hosts[0].size, 0x20000);
}

static void test_one_port(void **state)
{
    struct qrig *f = *state;
    uint32_t size;

    qrig_start(f, VRIG_FEATURES);
    give(f, RX0, NULL, 100);
    assert_int_equal(con_end_input(ends[0], "hey", 3), 3);
    qrig_run(f);
    assert_true(get(f, RX0, NULL, &size));
    give(f, TX0, "ho", 2);
    assert_int_equal(hosts[0].size, 2);
}

static void test_resize(void **state)
{
    struct qrig *f = *state;
    static const uint16_t size[2] = {80, 25}; /* columns and rows */

    introduce(f);
    virtio_console_resize(f->v->dev, 25, 80);
    qrig_run(f);
    assert_int_equal(vrig_read(f->v, VRIG_CONF, 4), 80 | 25 << 16);
    assert_int_equal(f->v->messages[0], 1); /* by the configuration's vector */
    assert_told_tail(f, 0, RESIZE, 1, size, sizeof(size));
    assert_silent(f);
    /* A driver that comes later hears of it at once. */
    qrig_start(f, FEATURES);
    control(f, 0, PORT_READY, 1);
    assert_told(f, 0, CONSOLE, 1);
    assert_told_tail(f, 0, RESIZE, 1, size, sizeof(size));
}

/* Ports that do not exist, events that are the device's, messages that are too short. */
static void test_nonsense(void **state)
{
    struct qrig *f = *state;

    introduce(f);
    for (uint16_t event = 0; event < 20; event++) {
        control(f, 2, event, 0);
        control(f, 0xFFFFFFFF, event, 0);
    }
    control(f, 1, NAME, 1);
    control(f, 1, PORT_READY, 0);
    control(f, 0, READY, 0);
    assert_silent(f);
    assert_int_equal(vrig_status(f->v), 15);
    for (unsigned i = 0; i < 100; i++) /* asked often, told once */
        control(f, 0, PORT_READY, 1);
    qrig_start(f, FEATURES);
    give(f, CTL_TX, "short", 5);
    assert_int_equal(vrig_status(f->v), 0x4F);
    introduce(f);
    control(f, 0, PORT_READY, 1);
    give(f, CTL_RX, NULL, 7);
    assert_int_equal(vrig_status(f->v), 0x4F);
    introduce(f);
    give(f, RX0, "to be read", 10);
    assert_int_equal(vrig_status(f->v), 0x4F);
}

/* What was typed and half of a request that was sent go with the state. */
static void test_save_restore(void **state)
{
    struct qrig *f = *state, other;
    char bytes[4096];
    uint32_t size;

    introduce(f);
    give(f, RX1, NULL, 100);
    control(f, 1, OPEN, 0);
    assert_int_equal(con_end_input(ends[1], "kept", 4), 4);
    hosts[0].full = true;
    give(f, TX0, "later", 5);
    qrig_move(f, &other, create);
    assert_true(get(&other, TX0, NULL, &size));
    assert_memory_equal(hosts[0].output, "later", 5);
    assert_false(get(&other, RX1, NULL, &size));
    control(&other, 1, OPEN, 1);
    assert_true(get(&other, RX1, bytes, &size));
    assert_int_equal(size, 4);
    assert_memory_equal(bytes, "kept", 4);
    assert_silent(&other); /* nothing is introduced again */
    vrig_destroy(other.v);
}

static void test_slot_taken(void **state)
{
    struct qrig *f = *state;
    struct virtio_slot slot = {.pci = f->v->pci,
                               .number = VRIG_SLOT,
                               .bus = f->v->rig->bus,
                               .mem = f->v->mem,
                               .loop = f->v->loop,
                               .workers = f->v->workers};
    struct error err = {0};

    assert_null(create(&slot, &err)); /* and its ends are closed */
    assert_int_equal(err.code, EBUSY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, qrig_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_introduction), TEST(test_bytes),        TEST(test_closed_port),
        TEST(test_input_limit),  TEST(test_output_waits), TEST(test_long_output),
        TEST(test_one_port),     TEST(test_resize),       TEST(test_nonsense),
        TEST(test_save_restore), TEST(test_slot_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

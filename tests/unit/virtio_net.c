/*
 * The network device: its configuration, frames both ways in every layout, a network without room
 * and a driver without buffers, drivers that break rules, pause, reset, save and restore.
 */
#include "test.h"

#include <errno.h>

#include "virtio_net_rig.h"

/* ---- Tests: configuration ---- */

static void test_configuration(void **state)
{
    struct vrig *v = *state, *other;

    vrig_enable(v);
    assert_int_equal(vrig_config(v, 0, 4), 0x10411AF4);
    assert_int_equal(vrig_config(v, PCI_REVISION, 4) >> 8, 0x020000);
    assert_int_equal(vrig_offered(v),
                     ((ALL & ~VRIG_FEATURES) | BIT(F_MAC) | BIT(F_MTU) | BIT(F_VLAN)));
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(conf(v, i, 1), own[i]);
    assert_int_equal(conf(v, 6, 2), 1); /* the link is up */
    assert_int_equal(conf(v, 8, 2), 2);
    assert_int_equal(conf(v, 10, 2), 9000);
    assert_int_equal(vrig_read(v, VRIG_QUEUES, 2), QUEUES);
    fake_net.info.mtu = 0;
    fake_net.up = false;
    config.pairs = 1;
    other = vrig_create(create, NULL, 1);
    vrig_enable(other);
    assert_int_equal(vrig_offered(other) & (BIT(F_MTU) | BIT(F_MQ)), 0);
    assert_int_equal(conf(other, 6, 2), 0);
    assert_int_equal(vrig_read(other, VRIG_QUEUES, 2), 3);
    vrig_destroy(other);
}

static void test_link(void **state)
{
    struct vrig *v = *state;
    unsigned told;

    start(v, ALL);
    told = v->messages[CONFIG_VECTOR];
    fake_net.events.link(fake_net.events.opaque, true); /* it is */
    run(v);
    assert_int_equal(v->messages[CONFIG_VECTOR], told);
    fake_net.events.link(fake_net.events.opaque, false);
    run(v);
    assert_int_equal(v->messages[CONFIG_VECTOR], told + 1);
    assert_int_equal(conf(v, 6, 2), 0);
    fake_net.events.link(fake_net.events.opaque, true);
    run(v);
    assert_int_equal(v->messages[CONFIG_VECTOR], told + 2);
    assert_int_equal(conf(v, 6, 2), 1);
}

/* What frames may need of the guest is what its driver has agreed to. */
/* ---- Sending ---- */

static void test_send(void **state)
{
    struct vrig *v = *state;
    const size_t sizes[] = {14, 60, 1514, 2048 - HEADER, 2049, 9014, 65568};

    start(v, ALL);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        send(v, SEND, i, no_header, sizes[i], (uint8_t)i);
        assert_back(SEND, i, 0);
        assert_sent(i, sizes[i], (uint8_t)i);
        assert_int_equal(fake_net.sent[i].offload.flags, 0);
    }
    assert_true(fake_net.flushes >= ARRAY_SIZE(sizes));
    assert_true(v->messages[QUEUE_VECTOR] > 0);
    /* What is no frame is lost, and the driver gets its buffer back. */
    send(v, SEND, 8, no_header, 13, 0);
    assert_back(SEND, 8, 0);
    send(v, SEND, 9, no_header, 65569, 0);
    assert_back(SEND, 9, 0);
    assert_int_equal(fake_net.sent_count, ARRAY_SIZE(sizes));
    assert_int_equal(vrig_status(v), 15);
}

/* Where a driver cuts its buffers is its own affair (2.7.4.2). */
static void test_send_layouts(void **state)
{
    struct vrig *v = *state;
    const size_t sizes[] = {60, 5000};

    start(v, ALL);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        const uint32_t cuts[] = {1, 7, 10, 33, (uint32_t)(HEADER + sizes[i])};
        uint32_t done = 0;

        write_frame(v, DATA, no_header, sizes[i], (uint8_t)(40 + i));
        for (unsigned n = 0; n < ARRAY_SIZE(cuts); n++) {
            bool last = n == ARRAY_SIZE(cuts) - 1;

            rig_descriptor(&queue[SEND], n, DATA + done, cuts[n] - done, last ? 0 : RIG_NEXT,
                           (uint16_t)(n + 1));
            done = cuts[n];
        }
        rig_publish(&queue[SEND], 0);
        notify(v, SEND);
        assert_back(SEND, 0, 0);
        assert_sent(i, sizes[i], (uint8_t)(40 + i));
    }
}

/* In more pieces than are mapped, and when nothing may be pinned. */
static void test_send_copied(void **state)
{
    struct vrig *v = *state;
    const uint64_t table = 0x40000;
    const unsigned pieces = 15;

    start(v, ALL);
    write_frame(v, DATA, no_header, 15 * 400 - HEADER, 9);
    /* The guest's pages in an order in which no two lie behind each other. */
    for (unsigned i = 0; i < pieces; i++)
        rig_descriptor_at(v->mem, table, i, DATA + 400 * i, 400, i + 1 < pieces ? RIG_NEXT : 0,
                          (uint16_t)(i + 1));
    rig_descriptor(&queue[SEND], 0, table, 16 * pieces, RIG_INDIRECT, 0);
    rig_publish(&queue[SEND], 0);
    mem_set_pin_limit(v->mem, 0);
    notify(v, SEND);
    assert_back(SEND, 0, 0);
    assert_sent(0, 15 * 400 - HEADER, 9);
    mem_set_pin_limit(v->mem, MEM_PAGE_SIZE);
    send(v, SEND, 1, no_header, 65000, 10);
    assert_back(SEND, 1, 0);
    assert_sent(1, 65000, 10);
}

static void test_send_offloads(void **state)
{
    struct vrig *v = *state;
    static const struct {
        uint8_t header[HEADER];
        uint64_t features; /* without these it is wrong; 0: it always is */
    } cases[] = {
        {{1, 0, 0, 0, 0, 0, 34, 0, 16, 0}, BIT(F_CSUM)},
        {{1, 1, 54, 0, 100, 0, 34, 0, 16, 0}, BIT(F_HOST_TSO4) | BIT(F_CSUM)},
        {{1, 4, 74, 0, 100, 0, 54, 0, 16, 0}, BIT(F_HOST_TSO6) | BIT(F_CSUM)},
        {{1, 0, 0, 0, 0, 0, 0xC8, 0, 0xC6, 0}, BIT(F_CSUM)}, /* the last two bytes */
        {{1, 0, 0, 0, 0, 0, 0xC8, 0, 0xC7, 0}, 0},           /* one of them */
        {{1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF}, 0},
        {{0, 1, 54, 0, 100, 0, 34, 0, 16, 0}, 0}, /* segments without checksums */
        {{1, 1, 54, 0, 0, 0, 34, 0, 16, 0}, 0},   /* of nothing */
        {{1, 3, 54, 0, 100, 0, 34, 0, 16, 0}, 0}, /* of UDP */
        {{1, 0x81, 54, 0, 100, 0, 34, 0, 16, 0}, 0},
    };

    for (unsigned with = 0; with < 2; with++) {
        start(v, with ? ALL : PLAIN);
        for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
            const uint8_t *h = cases[i].header;

            fake_net_forget();
            send(v, SEND, i, h, 400, (uint8_t)i);
            assert_back(SEND, i, 0);
            assert_int_equal(fake_net.sent_count, with && cases[i].features);
            if (!fake_net.sent_count)
                continue;
            assert_sent(0, 400, (uint8_t)i);
            assert_int_equal(fake_net.sent[0].offload.flags, h[0]);
            assert_int_equal(fake_net.sent[0].offload.gso, h[1]);
            assert_int_equal(fake_net.sent[0].offload.header_size, h[2]);
            assert_int_equal(fake_net.sent[0].offload.segment_size, h[4]);
            assert_int_equal(fake_net.sent[0].offload.checksum_start, h[6]);
            assert_int_equal(fake_net.sent[0].offload.checksum_offset, h[8]);
        }
    }
}

/* Nothing is lost when the network has no room, and the order stays. */
static void test_send_no_room(void **state)
{
    struct vrig *v = *state;

    start(v, ALL);
    fake_net.room = 1;
    for (unsigned i = 0; i < 4; i++)
        send(v, SEND, i, no_header, 100 + i, (uint8_t)i);
    assert_back(SEND, 0, 0);
    assert_none_back(SEND);
    ready(v); /* without room */
    assert_none_back(SEND);
    fake_net.room = 2;
    ready(v);
    assert_back(SEND, 1, 0);
    assert_back(SEND, 2, 0);
    assert_none_back(SEND);
    fake_net.room = UINT32_MAX;
    ready(v);
    assert_back(SEND, 3, 0);
    for (unsigned i = 0; i < 4; i++)
        assert_sent(i, 100 + i, (uint8_t)i);
}

/* The frame that was refused is offered first, and not one of another queue's. */
static void test_refused_comes_first(void **state)
{
    struct vrig *v = *state;

    start(v, ALL);
    fake_net.room = 0;
    send(v, SEND_2, 0, no_header, 100, 1);
    fake_net.room = UINT32_MAX;
    send(v, SEND, 1, no_header, 200, 2);
    assert_none_back(SEND);
    ready(v);
    assert_back(SEND, 1, 0);
    assert_back(SEND_2, 0, 0);
    assert_sent(0, 100, 1);
    assert_sent(1, 200, 2);
}

/* ---- Receiving ---- */

static void test_receive(void **state)
{
    struct vrig *v = *state;
    const struct net_offload offload = {1, 1, 54, 1448, 34, 16};
    const size_t sizes[] = {14, 60, 1514, 2048, 2049, 9014, 65568};
    const uint8_t expected[] = {1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 1, 0};
    uint8_t header[HEADER];

    for (unsigned merge = 0; merge < 2; merge++) {
        start(v, PLAIN | TAKES | (merge ? BIT(F_MERGE) : 0));
        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
            offer(v, RECEIVE, i, DATA + 0x20000 * i, 0x11000);
        notify(v, RECEIVE);
        assert_none_back(RECEIVE);
        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
            put(sizes[i], (uint8_t)i, i == 2 ? &offload : NULL);
        ready(v);
        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
            assert_back(RECEIVE, i, (uint32_t)(HEADER + sizes[i]));
            assert_received(v, DATA + 0x20000 * i, sizes[i], (uint8_t)i, 1);
        }
        assert_int_equal(mem_read(v->mem, DATA + 0x40000, header, HEADER), 0);
        assert_memory_equal(header, expected, HEADER);
        assert_int_equal(fake_net.next_count, 0);
    }
    assert_true(v->messages[QUEUE_VECTOR] > 0);
}

/* A frame that waits for buffers is not lost, and comes as soon as there is one. */
static void test_receive_waits(void **state)
{
    struct vrig *v = *state;

    start(v, ALL);
    put(100, 1, NULL);
    put(200, 2, NULL);
    ready(v);
    assert_int_equal(fake_net.next_count, 2);
    offer(v, RECEIVE, 3, DATA, 2000);
    notify(v, RECEIVE);
    assert_back(RECEIVE, 3, HEADER + 100);
    assert_int_equal(fake_net.next_count, 1);
    offer(v, RECEIVE, 4, DATA + 0x1000, 2000);
    notify(v, RECEIVE);
    assert_back(RECEIVE, 4, HEADER + 200);
    assert_received(v, DATA + 0x1000, 200, 2, 1);
}

/* One frame in many buffers: all of them at once, or none. */
static void test_merged(void **state)
{
    struct vrig *v = *state;
    uint64_t gpa = DATA;

    start(v, ALL);
    put(5000, 7, NULL);
    put(60, 8, NULL);
    /* They lie behind each other, so that the frame does, too. */
    for (unsigned i = 0; i < 4; i++, gpa += 1000)
        offer(v, RECEIVE, i, gpa, 1000);
    notify(v, RECEIVE);
    assert_none_back(RECEIVE);
    assert_int_equal(fake_net.next_count, 2);
    for (unsigned i = 4; i < 8; i++, gpa += 1000)
        offer(v, RECEIVE, i, gpa, 1000);
    notify(v, RECEIVE);
    for (unsigned i = 0; i < 6; i++)
        assert_back(RECEIVE, i, i < 5 ? 1000 : 12);
    assert_received(v, DATA, 5000, 7, 6);
    assert_back(RECEIVE, 6, HEADER + 60);
    assert_received(v, DATA + 6000, 60, 8, 1);
    assert_none_back(RECEIVE);
}

/* By a copy: in more pieces than are mapped, without pins, and a small frame. */
static void test_merged_copied(void **state)
{
    struct vrig *v = *state;

    start(v, ALL);
    for (unsigned round = 0; round < 2; round++) {
        size_t size = round ? 150 : 5000;
        unsigned each = round ? 11 : 350, count = (unsigned)((HEADER + size + each - 1) / each);

        mem_set_pin_limit(v->mem, MEM_PAGE_SIZE);
        for (unsigned i = 0; i < count; i++)
            offer(v, RECEIVE, i, DATA + each * i, each);
        put(size, (uint8_t)(20 + round), NULL);
        notify(v, RECEIVE);
        for (unsigned i = 0; i < count; i++) {
            uint32_t written = (uint32_t)MIN(each, HEADER + size - each * i);

            assert_back(RECEIVE, i, written);
        }
        assert_received(v, DATA, size, (uint8_t)(20 + round), count);
    }
}

/* What will never fit is dropped, and what comes behind it is not. */
static void test_never_fits(void **state)
{
    struct vrig *v = *state;

    start(v, PLAIN);
    offer(v, RECEIVE, 0, DATA, 1000);
    put(1000 - HEADER + 1, 1, NULL);
    put(1000 - HEADER, 2, NULL);
    notify(v, RECEIVE);
    assert_back(RECEIVE, 0, 1000);
    assert_received(v, DATA, 1000 - HEADER, 2, 1);
    assert_int_equal(fake_net.dropped, 1);
    /* All that the queue has room for is not enough. */
    start(v, ALL);
    put(16 * 50 - HEADER + 1, 3, NULL);
    put(16 * 50 - HEADER, 4, NULL);
    for (unsigned i = 0; i < SIZE; i++)
        offer(v, RECEIVE, i, DATA + 50 * i, 50);
    notify(v, RECEIVE);
    for (unsigned i = 0; i < SIZE; i++)
        assert_back(RECEIVE, i, 50);
    assert_received(v, DATA, 16 * 50 - HEADER, 4, 16);
    assert_int_equal(fake_net.dropped, 2);
}
/* ---- Drivers that break rules ---- */

static void test_broken_drivers(void **state)
{
    struct vrig *v = *state;
    const uint64_t nowhere = 0x40000000;

    for (unsigned i = 0; i < 9; i++) {
        unsigned number = i < 4 ? SEND : i < 7 ? RECEIVE : CONTROL;
        struct rig_queue *q = &queue[number];

        start(v, ALL);
        switch (i) {
        case 0: rig_descriptor(q, 0, DATA, HEADER - 1, 0, 0); break;
        case 1: rig_descriptor(q, 0, nowhere, 100, 0, 0); break;
        case 2: rig_descriptor(q, 0, nowhere, 10000, 0, 0); break;
        case 3: rig_descriptor(q, 0, DATA, 100, RIG_WRITE, 0); break;
        case 4: rig_descriptor(q, 0, DATA, 2000, 0, 0); break;
        case 5:
        case 6: rig_descriptor(q, 0, nowhere, 10000, RIG_WRITE, 0); break;
        case 7: rig_descriptor(q, 0, DATA, 2, 0, 0); break; /* no room for an answer */
        default: rig_descriptor(q, 0, DATA, 2, RIG_WRITE, 0); break;
        }
        put(i == 6 ? 5000 : 60, 0, NULL);
        rig_publish(q, 0);
        notify(v, number);
        assert_none_back(number);
        assert_broken(v);
    }
    start(v, ALL);
    send(v, SEND, 0, no_header, 60, 1);
    assert_back(SEND, 0, 0);
}

/* ---- Pause, reset, save and restore ---- */

static void test_reset_while_waiting(void **state)
{
    struct vrig *v = *state;

    start(v, ALL);
    fake_net.room = 0;
    send(v, SEND_2, 0, no_header, 100, 1);
    offer(v, RECEIVE, 0, DATA, 2000);
    notify(v, RECEIVE);
    vrig_write(v, VRIG_STATUS, 1, 0);
    run(v);
    assert_int_equal(vrig_status(v), 0);
    fake_net.room = UINT32_MAX;
    ready(v);
    assert_int_equal(fake_net.sent_count, 0);
    start(v, ALL);
    send(v, SEND, 0, no_header, 60, 2); /* what was refused is forgotten */
    assert_back(SEND, 0, 0);
    assert_sent(0, 60, 2);
}

/* A machine is saved with a frame that the network had no room for, buffers that wait for frames,
 * and a filter. The one that takes its place goes on with them. */
static void test_save_restore(void **state)
{
    struct vrig *v = *state, *other;
    unsigned told;

    other = vrig_create(create, v->mem, 1);
    start(v, ALL);
    assert_int_equal(set_flag(v, 0, 0), 0);
    offer(v, RECEIVE, 0, DATA + 0x100000, 1000);
    offer(v, RECEIVE, 1, DATA + 0x100000 + 1000, 1000);
    notify(v, RECEIVE);
    put(2500, 1, NULL); /* waits for a third */
    ready(v);
    fake_net.room = 0;
    send(v, SEND, 0, no_header, 100, 3);
    send(v, SEND, 1, no_header, 9000, 4);
    v->dev->ops->pause(v->dev);
    other->dev->ops->pause(other->dev);
    assert_int_equal(rig_copy_state(v->rig, v->dev, other->dev), 0);
    fake_net.room = UINT32_MAX;
    fake_net_ready();
    run(other);
    assert_int_equal(fake_net.sent_count, 0);
    assert_int_equal(fake_net.accepts, NET_CHECKSUM | NET_TSO4 | NET_TSO6);
    told = other->messages[CONFIG_VECTOR];
    other->dev->ops->resume(other->dev);
    run(other);
    assert_back(SEND, 0, 0);
    assert_back(SEND, 1, 0);
    assert_sent(0, 100, 3);
    assert_sent(1, 9000, 4);
    assert_none_back(RECEIVE);
    offer(v, RECEIVE, 2, DATA + 0x100000 + 2000, 1000);
    notify(other, RECEIVE);
    assert_back(RECEIVE, 0, 1000);
    assert_back(RECEIVE, 1, 1000);
    assert_back(RECEIVE, 2, 512);
    assert_received(v, DATA + 0x100000, 2500, 1, 3);
    assert_false(passes(other, OTHER, -1));
    /* The guest is asked to announce itself where it is now. */
    assert_int_equal(other->messages[CONFIG_VECTOR], told + 1);
    assert_int_equal(conf(other, 6, 2), 3);
    assert_int_equal(command(other, 3, 0, NULL, 0), 0);
    assert_int_equal(conf(other, 6, 2), 1);
    vrig_destroy(other);
}

/* A card that is not what the driver was told of cannot take the other's place. */
static void test_restore_other_card(void **state)
{
    struct vrig *v = *state;

    start(v, ALL);
    v->dev->ops->pause(v->dev);
    for (unsigned i = 0; i < 3; i++) {
        unsigned mtu = fake_net.info.mtu, pairs = config.pairs;
        struct vrig *other;
        int ret;

        switch (i) {
        case 0: fake_net.info.mtu = 1500; break;
        case 1: fake_net.info.mtu = 0; break;
        default: config.mac[5]++; break; /* that is no matter */
        }
        other = vrig_create(create, v->mem, 1);
        other->dev->ops->pause(other->dev);
        ret = rig_copy_state(v->rig, v->dev, other->dev);
        assert_int_equal(ret < 0, i < 2);
        vrig_enable(other);
        if (i == 2)
            assert_int_equal(conf(other, 5, 1), own[5]);
        vrig_destroy(other);
        fake_net.info.mtu = mtu;
        config.pairs = pairs;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_configuration),
        TEST(test_link),
        TEST(test_send),
        TEST(test_send_layouts),
        TEST(test_send_copied),
        TEST(test_send_offloads),
        TEST(test_send_no_room),
        TEST(test_refused_comes_first),
        TEST(test_receive),
        TEST(test_receive_waits),
        TEST(test_merged),
        TEST(test_merged_copied),
        TEST(test_never_fits),
        TEST(test_broken_drivers),
        TEST(test_reset_while_waiting),
        TEST(test_save_restore),
        TEST(test_restore_other_card),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

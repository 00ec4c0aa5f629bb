/*
 * A driver of the network device, for tests: two pairs of queues and the control queue. What is
 * behind the device is the test's own network (fake_net.h). Workers run when the test says so.
 */
#ifndef DOPPEL_TESTS_UNIT_VIRTIO_NET_RIG_H
#define DOPPEL_TESTS_UNIT_VIRTIO_NET_RIG_H

#include "dev/virtio/net.h"

#include <stdio.h>
#include <string.h>

#include "fake_lane.h"
#include "fake_net.h"
#include "virtio_rig.h"

#define SIZE      16u
#define QUEUES    5u /* two pairs, and control */
#define RINGS     0x10000u
#define DATA      0x100000u
#define COMMAND   0x80000u
#define VRIG_CONF 0x2000 /* device configuration in the BAR */
#define HEADER    12u

enum { RECEIVE = 0, SEND = 1, RECEIVE_2 = 2, SEND_2 = 3, CONTROL = 4 };
enum { QUEUE_VECTOR = 1, CONFIG_VECTOR = 0 };
enum {
    F_CSUM = 0,
    F_GUEST_CSUM = 1,
    F_OFFLOADS = 2,
    F_MTU = 3,
    F_MAC = 5,
    F_GUEST_TSO4 = 7,
    F_GUEST_TSO6 = 8,
    F_HOST_TSO4 = 11,
    F_HOST_TSO6 = 12,
    F_MERGE = 15,
    F_STATUS = 16,
    F_CTRL = 17,
    F_CTRL_RX = 18,
    F_VLAN = 19,
    F_RX_EXTRA = 20,
    F_ANNOUNCE = 21,
    F_MQ = 22,
    F_CTRL_MAC = 23,
};

#define BIT(n) (UINT64_C(1) << (n))
#define CONTROLS                                                                                   \
    (BIT(F_CTRL) | BIT(F_CTRL_RX) | BIT(F_RX_EXTRA) | BIT(F_MQ) | BIT(F_CTRL_MAC) |                \
     BIT(F_OFFLOADS) | BIT(F_ANNOUNCE) | BIT(F_STATUS))
#define SENDS (BIT(F_CSUM) | BIT(F_HOST_TSO4) | BIT(F_HOST_TSO6))
#define TAKES (BIT(F_GUEST_CSUM) | BIT(F_GUEST_TSO4) | BIT(F_GUEST_TSO6))
#define PLAIN (VRIG_FEATURES | CONTROLS)
#define ALL   (PLAIN | SENDS | TAKES | BIT(F_MERGE))

static const uint8_t own[6] = {2, 0x11, 0x22, 0x33, 0x44, 0x55};
static struct virtio_net_config config;
static struct rig_queue queue[QUEUES];
static unsigned devices;

/* ---- The machine ---- */

static inline struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    struct virtio_net *card = virtio_net_create(slot, &config, err);

    devices++;
    return card ? virtio_net_dev(card) : NULL;
}

static inline int set_up(void **state)
{
    fake_net_make();
    config = (struct virtio_net_config){.net = &fake_net, .pairs = 2};
    memcpy(config.mac, own, sizeof(own));
    devices = 0;
    *state = vrig_create(create, NULL, 1);
    return 0;
}

static inline int tear_down(void **state)
{
    vrig_destroy(*state);
    assert_int_equal(fake_net.closed, devices);
    fake_net_free();
    return 0;
}

static inline void run(struct vrig *v)
{
    fake_lane_run(v->workers, v->loop);
}

static inline void start(struct vrig *v, uint64_t features)
{
    vrig_enable(v);
    vrig_write(v, VRIG_STATUS, 1, 0);
    run(v);
    assert_true(vrig_negotiate(v, features));
    for (unsigned i = 0; i < QUEUES; i++) {
        vrig_set_queue_number(v, i, rig_layout(RINGS + 0x2000 * i, SIZE));
        queue[i] = v->queue;
    }
    vrig_write(v, VRIG_STATUS, 1, 15);
    run(v);
}

static inline void notify(struct vrig *v, unsigned number)
{
    vrig_write(v, VRIG_NOTIFY + 4 * number, 2, 0);
    run(v);
}

static inline void ready(struct vrig *v)
{
    fake_net_ready();
    run(v);
}

static inline void assert_none_back(unsigned number)
{
    uint32_t head, written;

    assert_false(rig_reap(&queue[number], &head, &written));
}

static inline void assert_back(unsigned number, unsigned head, uint32_t written)
{
    uint32_t got = 0, wrote = 0;

    assert_true(rig_reap(&queue[number], &got, &wrote));
    assert_int_equal(got, head);
    assert_int_equal(wrote, written);
}

static inline void assert_broken(struct vrig *v)
{
    assert_int_equal(vrig_status(v), 15 | 0x40);
}

static inline uint32_t conf(struct vrig *v, unsigned offset, unsigned size)
{
    return vrig_read(v, VRIG_CONF + offset, size);
}

/* ---- Frames ---- */

/* A frame to TO whose other bytes follow from SEED. The caller frees it. */
static inline uint8_t *frame_to(const uint8_t *to, size_t size, uint8_t seed)
{
    uint8_t *frame = malloc(size);

    for (size_t i = 0; i < size; i++)
        frame[i] = (uint8_t)(seed + i * 7 + i / 251);
    memcpy(frame, to, 6);
    return frame;
}

static inline void put(size_t size, uint8_t seed, const struct net_offload *offload)
{
    uint8_t *frame = frame_to(own, size, seed);

    fake_net_put(frame, size, offload);
    free(frame);
}

static inline void write_frame(struct vrig *v, uint64_t gpa, const void *header, size_t size,
                               uint8_t seed)
{
    uint8_t *frame = frame_to(own, size, seed);

    assert_int_equal(mem_write(v->mem, gpa, header, HEADER), 0);
    assert_int_equal(mem_write(v->mem, gpa + HEADER, frame, size), 0);
    free(frame);
}

static inline void assert_frame(const uint8_t *seen, size_t size, uint8_t seed)
{
    uint8_t *frame = frame_to(own, size, seed);

    assert_memory_equal(seen, frame, size);
    free(frame);
}

static inline void assert_sent(unsigned n, size_t size, uint8_t seed)
{
    assert_true(n < fake_net.sent_count);
    assert_int_equal(fake_net.sent[n].size, size);
    assert_frame(fake_net.sent[n].data, size, seed);
}

/* Sends a frame by chain N of one buffer, its header with zeros but for the first bytes. */
static inline void send(struct vrig *v, unsigned number, unsigned n, const uint8_t header[HEADER],
                        size_t size, uint8_t seed)
{
    write_frame(v, DATA + 0x20000 * n, header, size, seed);
    rig_descriptor(&queue[number], n, DATA + 0x20000 * n, (uint32_t)(HEADER + size), 0, 0);
    rig_publish(&queue[number], (uint16_t)n);
    notify(v, number);
}

static const uint8_t no_header[HEADER];

/* Gives a buffer of SIZE bytes to a receive queue, as chain N. */
static inline void offer(struct vrig *v, unsigned number, unsigned n, uint64_t gpa, uint32_t size)
{
    assert_int_equal(mem_fill(v->mem, gpa, 0xEE, size + 8), 0);
    rig_descriptor(&queue[number], n, gpa, size, RIG_WRITE, 0);
    rig_publish(&queue[number], (uint16_t)n);
}

/* Header and frame are at GPA. */
static inline void assert_received(struct vrig *v, uint64_t gpa, size_t size, uint8_t seed,
                                   unsigned buffers)
{
    uint8_t *seen = malloc(HEADER + size + 1);

    assert_int_equal(mem_read(v->mem, gpa, seen, HEADER + size + 1), 0);
    assert_int_equal(seen[10] | seen[11] << 8, buffers);
    assert_frame(seen + HEADER, size, seed);
    assert_int_equal(seen[HEADER + size], 0xEE); /* and nothing behind it */
    free(seen);
}

/* ---- Commands ---- */

/* Returns what the device answers. */
static inline uint8_t command(struct vrig *v, unsigned class, unsigned number, const void *data,
                              size_t size)
{
    uint32_t head, written;
    const uint8_t words[2] = {(uint8_t)class, (uint8_t)number};

    assert_int_equal(mem_write(v->mem, COMMAND, words, 2), 0);
    if (size)
        assert_int_equal(mem_write(v->mem, COMMAND + 2, data, size), 0);
    rig_put(v->mem, COMMAND + 0x8000, 0x77, 1);
    rig_descriptor(&queue[CONTROL], 0, COMMAND, 2, RIG_NEXT, size ? 1 : 2);
    rig_descriptor(&queue[CONTROL], 1, COMMAND + 2, (uint32_t)size, RIG_NEXT, 2);
    rig_descriptor(&queue[CONTROL], 2, COMMAND + 0x8000, 1, RIG_WRITE, 0);
    rig_publish(&queue[CONTROL], 0);
    notify(v, CONTROL);
    assert_true(rig_reap(&queue[CONTROL], &head, &written));
    assert_int_equal(written, 1);
    return (uint8_t)rig_get(v->mem, COMMAND + 0x8000, 1);
}

static inline uint8_t set_flag(struct vrig *v, unsigned number, uint8_t on)
{
    return command(v, 0, number, &on, 1);
}

/* ---- Filters ---- */

/* Whether the guest gets a frame to TO, with a VLAN's tag if VLAN is not negative. */
static inline bool passes(struct vrig *v, const char *to, int vlan)
{
    uint8_t frame[64] = {0}, address[6];
    uint32_t head, written;

    assert_int_equal(sscanf(to, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &address[0], &address[1],
                            &address[2], &address[3], &address[4], &address[5]),
                     6);
    memcpy(frame, address, 6);
    if (vlan >= 0) {
        frame[12] = 0x81;
        frame[14] = (uint8_t)(0xE0 | vlan >> 8); /* with a priority */
        frame[15] = (uint8_t)vlan;
    }
    offer(v, RECEIVE, 0, DATA, 2000);
    notify(v, RECEIVE);
    fake_net_put(frame, sizeof(frame), NULL);
    ready(v);
    assert_int_equal(fake_net.next_count, 0);
    if (rig_reap(&queue[RECEIVE], &head, &written))
        return true;
    /* The buffer is still there for the next one. */
    memcpy(frame, own, 6);
    frame[12] = 0;
    fake_net_put(frame, sizeof(frame), NULL);
    assert_int_equal(set_flag(v, 0, 1), 0);
    ready(v);
    assert_true(rig_reap(&queue[RECEIVE], &head, &written));
    assert_int_equal(set_flag(v, 0, 0), 0);
    return false;
}

#define OWN       "02:11:22:33:44:55"
#define OTHER     "02:11:22:33:44:56"
#define BROADCAST "ff:ff:ff:ff:ff:ff"
#define GROUP     "33:33:00:00:00:01"

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif

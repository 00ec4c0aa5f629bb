/*
 * The control queue of the network device: filters and other commands, several queues.
 */
#include "test.h"

#include "virtio_net_rig.h"

static void test_offloads_accepted(void **state)
{
    struct vrig *v = *state;
    uint64_t some = BIT(F_GUEST_CSUM);

    assert_int_equal(fake_net.accepts, 0);
    start(v, PLAIN | BIT(F_GUEST_CSUM) | BIT(F_GUEST_TSO4));
    assert_int_equal(fake_net.accepts, NET_CHECKSUM | NET_TSO4);
    assert_int_equal(command(v, 5, 0, &some, 8), 0);
    assert_int_equal(fake_net.accepts, NET_CHECKSUM);
    some = BIT(F_GUEST_CSUM) | BIT(F_GUEST_TSO6); /* not agreed on */
    assert_int_equal(command(v, 5, 0, &some, 8), 1);
    assert_int_equal(fake_net.accepts, NET_CHECKSUM);
    vrig_write(v, VRIG_STATUS, 1, 0);
    run(v);
    assert_int_equal(fake_net.accepts, 0);
    start(v, ALL);
    assert_int_equal(fake_net.accepts, NET_CHECKSUM | NET_TSO4 | NET_TSO6);
}

static void test_filter(void **state)
{
    struct vrig *v = *state;
    const uint8_t other[6] = {2, 0x11, 0x22, 0x33, 0x44, 0x56};

    start(v, ALL);
    assert_true(passes(v, OTHER, -1)); /* no driver has said anything */
    assert_int_equal(set_flag(v, 0, 0), 0);
    assert_false(passes(v, OTHER, -1));
    assert_false(passes(v, GROUP, -1));
    assert_true(passes(v, OWN, -1));
    assert_true(passes(v, BROADCAST, -1));
    assert_true(passes(v, OWN, 5)); /* VLANs are not filtered */
    assert_int_equal(set_flag(v, 1, 1), 0);
    assert_true(passes(v, GROUP, -1));
    assert_int_equal(set_flag(v, 3, 1), 0); /* no multicast */
    assert_false(passes(v, GROUP, -1));
    assert_true(passes(v, BROADCAST, -1));
    assert_int_equal(set_flag(v, 5, 1), 0);
    assert_false(passes(v, BROADCAST, -1));
    assert_int_equal(set_flag(v, 2, 1), 0); /* all unicast */
    assert_true(passes(v, OTHER, -1));
    assert_int_equal(set_flag(v, 4, 1), 0); /* none */
    assert_false(passes(v, OWN, -1));
    assert_int_equal(set_flag(v, 4, 0), 0);
    assert_int_equal(set_flag(v, 2, 0), 0);
    assert_int_equal(command(v, 1, 1, other, 6), 0);
    assert_true(passes(v, OTHER, -1));
    assert_false(passes(v, OWN, -1));
    start(v, ALL); /* a reset forgets all that */
    assert_true(passes(v, OTHER, -1));
    assert_int_equal(set_flag(v, 0, 0), 0);
    assert_true(passes(v, OWN, -1));
}

/* A table with so many addresses of each kind: 02:..:00:N, and 33:33:..:00:N. */
static uint8_t set_table(struct vrig *v, uint32_t unicasts, uint32_t multicasts, size_t cut)
{
    uint8_t table[8 + 6 * 400] = {0}, *at = table;

    for (unsigned kind = 0; kind < 2; kind++) {
        uint32_t count = kind ? multicasts : unicasts;

        memcpy(at, &count, 4);
        at += 4;
        for (uint32_t i = 0; i < MIN(count, 200u); i++, at += 6) {
            memcpy(at, kind ? "\x33\x33\0\0\0" : "\x02\x11\x22\x33\x44", 5);
            at[5] = (uint8_t)i;
        }
    }
    return command(v, 1, 0, table, (size_t)(at - table) - cut);
}

static void test_table(void **state)
{
    struct vrig *v = *state;

    start(v, ALL);
    assert_int_equal(set_flag(v, 0, 0), 0);
    assert_int_equal(set_table(v, 2, 1, 0), 0);
    assert_true(passes(v, "02:11:22:33:44:01", -1));
    assert_false(passes(v, "02:11:22:33:44:02", -1));
    assert_true(passes(v, "33:33:00:00:00:00", -1));
    assert_false(passes(v, GROUP, -1));
    assert_int_equal(set_table(v, 64, 64, 0), 0);
    assert_true(passes(v, "02:11:22:33:44:3f", -1));
    assert_false(passes(v, "02:11:22:33:44:40", -1));
    assert_int_equal(set_table(v, 65, 0, 0), 0); /* more than fit: all are wanted */
    assert_true(passes(v, "02:00:00:00:00:99", -1));
    assert_false(passes(v, GROUP, -1));
    assert_int_equal(set_table(v, 0, 200, 0), 0);
    assert_true(passes(v, "33:33:00:00:99:99", -1));
    assert_false(passes(v, "02:11:22:33:44:01", -1));
    /* Tables that do not lie in their request change nothing. */
    assert_int_equal(set_table(v, 2, 1, 1), 1);
    assert_int_equal(set_table(v, 2, UINT32_MAX, 0), 1);
    assert_int_equal(set_table(v, UINT32_MAX, 0, 0), 1);
    assert_int_equal(set_table(v, 0x2AAAAAAB, 0, 0), 1); /* times 6 it is 2 in 32 bits */
    assert_true(passes(v, "33:33:00:00:99:99", -1));
}

static void test_vlans(void **state)
{
    struct vrig *v = *state;
    uint16_t vlan = 5;

    start(v, ALL);
    assert_int_equal(command(v, 2, 0, &vlan, 2), 1); /* not agreed on */
    start(v, ALL | BIT(F_VLAN));
    assert_int_equal(set_flag(v, 0, 0), 0);
    assert_true(passes(v, OWN, -1));
    assert_false(passes(v, OWN, 5));
    assert_int_equal(command(v, 2, 0, &vlan, 2), 0);
    assert_true(passes(v, OWN, 5));
    assert_false(passes(v, OWN, 4));
    assert_false(passes(v, OWN, 37));
    vlan = 4095;
    assert_int_equal(command(v, 2, 0, &vlan, 2), 0);
    assert_true(passes(v, OWN, 4095));
    vlan = 5;
    assert_int_equal(command(v, 2, 1, &vlan, 2), 0);
    assert_false(passes(v, OWN, 5));
    vlan = 4096;
    assert_int_equal(command(v, 2, 0, &vlan, 2), 1);
}

static void test_commands_refused(void **state)
{
    struct vrig *v = *state;
    const uint8_t bytes[8] = {1};

    start(v, ALL);
    assert_int_equal(command(v, 0, 6, bytes, 1), 1);
    assert_int_equal(command(v, 0, 0, bytes, 0), 1);
    assert_int_equal(command(v, 0, 0, bytes, 2), 1);
    assert_int_equal(command(v, 1, 1, bytes, 5), 1);
    assert_int_equal(command(v, 1, 2, bytes, 6), 1);
    assert_int_equal(command(v, 3, 1, bytes, 0), 1);
    assert_int_equal(command(v, 4, 1, bytes, 2), 1);
    assert_int_equal(command(v, 5, 0, bytes, 4), 1);
    assert_int_equal(command(v, 6, 0, bytes, 8), 1);
    assert_int_equal(command(v, 255, 255, bytes, 8), 1);
    assert_int_equal(command(v, 3, 0, bytes, 0), 0); /* an announcement that nobody asked for */
    assert_int_equal(vrig_status(v), 15);
    start(v, VRIG_FEATURES | BIT(F_CTRL) | BIT(F_MQ));
    assert_int_equal(command(v, 0, 0, bytes, 1), 1);
    assert_int_equal(command(v, 0, 3, bytes, 1), 1);
    assert_int_equal(command(v, 1, 1, bytes, 6), 1);
    assert_int_equal(command(v, 3, 0, bytes, 0), 1);
}

/* ---- Several queues ---- */

/* A frame of TCP between two ports of two addresses. */
static void make_segment(uint8_t frame[64], uint32_t from, uint32_t to, uint16_t from_port,
                         uint16_t to_port)
{
    memset(frame, 0, 64);
    memcpy(frame, own, 6);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[23] = 6;
    for (unsigned i = 0; i < 4; i++) {
        frame[26 + i] = (uint8_t)(from >> (24 - 8 * i));
        frame[30 + i] = (uint8_t)(to >> (24 - 8 * i));
    }
    frame[34] = (uint8_t)(from_port >> 8);
    frame[35] = (uint8_t)from_port;
    frame[36] = (uint8_t)(to_port >> 8);
    frame[37] = (uint8_t)to_port;
}

static void send_segment(struct vrig *v, unsigned number, unsigned n, uint16_t port)
{
    uint8_t frame[HEADER + 64] = {0};

    make_segment(frame + HEADER, 0x0A00020F, 0x0A000202, port, 80);
    assert_int_equal(mem_write(v->mem, DATA, frame, sizeof(frame)), 0);
    rig_descriptor(&queue[number], n, DATA, sizeof(frame), 0, 0);
    rig_publish(&queue[number], (uint16_t)n);
    notify(v, number);
}

static void put_segment(uint16_t port)
{
    uint8_t frame[64];

    make_segment(frame, 0x0A000202, 0x0A00020F, 80, port);
    fake_net_put(frame, sizeof(frame), NULL);
}

/* What belongs to a flow comes by the pair that the guest sends it by. */
static void test_pairs(void **state)
{
    struct vrig *v = *state;
    uint16_t pairs = 2;

    start(v, ALL);
    send_segment(v, SEND, 0, 1000);
    send_segment(v, SEND_2, 0, 1001);
    for (unsigned i = 0; i < 4; i++) {
        offer(v, RECEIVE, i, DATA + 0x1000 * i, 2000);
        offer(v, RECEIVE_2, i, DATA + 0x8000 + 0x1000 * i, 2000);
    }
    notify(v, RECEIVE);
    notify(v, RECEIVE_2);
    put_segment(1001); /* one pair is in use as long as the driver does not say so */
    ready(v);
    assert_back(RECEIVE, 0, HEADER + 64);
    assert_int_equal(command(v, 4, 0, &pairs, 2), 0);
    put_segment(1001);
    put_segment(1000);
    put_segment(1001);
    ready(v);
    assert_back(RECEIVE, 1, HEADER + 64);
    assert_none_back(RECEIVE);
    assert_back(RECEIVE_2, 0, HEADER + 64);
    assert_back(RECEIVE_2, 1, HEADER + 64);
    assert_none_back(RECEIVE_2);
    pairs = 1;
    assert_int_equal(command(v, 4, 0, &pairs, 2), 0);
    put_segment(1001);
    ready(v);
    assert_back(RECEIVE, 2, HEADER + 64);
    pairs = 0;
    assert_int_equal(command(v, 4, 0, &pairs, 2), 1);
    pairs = 3;
    assert_int_equal(command(v, 4, 0, &pairs, 2), 1);
}

/* Without the feature the control queue is the third (5.1.2). */
static void test_control_queue(void **state)
{
    struct vrig *v = *state;
    const uint8_t off = 0;

    start(v, ALL & ~BIT(F_MQ));
    assert_int_equal(mem_write(v->mem, COMMAND, &(uint16_t){0}, 2), 0);
    assert_int_equal(mem_write(v->mem, COMMAND + 2, &off, 1), 0);
    rig_put(v->mem, COMMAND + 0x8000, 0x77, 1);
    rig_descriptor(&queue[2], 0, COMMAND, 3, RIG_NEXT, 1);
    rig_descriptor(&queue[2], 1, COMMAND + 0x8000, 1, RIG_WRITE, 0);
    rig_publish(&queue[2], 0);
    notify(v, 2);
    assert_back(2, 0, 1);
    assert_int_equal(rig_get(v->mem, COMMAND + 0x8000, 1), 0);
    assert_int_equal(vrig_status(v), 15);
    rig_publish(&queue[3], 0);
    notify(v, 3);
    assert_broken(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_offloads_accepted), TEST(test_filter), TEST(test_table),         TEST(test_vlans),
        TEST(test_commands_refused),  TEST(test_pairs),  TEST(test_control_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * How much libslirp has to keep of segments that come out of order: what enters, by itself and in
 * front of libslirp.
 */
#include "net_guest.h"
#include "net_server.h"
#include "test.h"

#include "base/util.h"
#include "net/bytes.h"
#include "net/offload.h"
#include "net/user.h"
#include "net/user_order.h"

#include <stdio.h>
#include <string.h>

#define BEGIN 0xFFFFF000u /* numbers wrap soon */

static struct user_order *order;

/* A frame of a segment of SIZE bytes: of the guest's, or for it. Returns the frame's size. */
static size_t make(uint8_t *frame, bool ip6, bool from_guest, unsigned flags, uint32_t number,
                   uint32_t ack, size_t size)
{
    size_t head = ip6 ? 40 : 20;
    uint8_t *ip = frame + 14, *tcp = ip + head;

    memset(frame, 0, 14 + head + 20 + size);
    put16(frame + 12, ip6 ? 0x86DD : 0x0800);
    if (ip6) {
        ip[0] = 0x60;
        put16(ip + 4, (unsigned)(20 + size));
        ip[6] = IP_TCP;
        ip[from_guest ? 8 : 24] = 7;
        ip[from_guest ? 24 : 8] = 9;
    } else {
        ip[0] = 0x45;
        put16(ip + 2, (unsigned)(40 + size));
        ip[9] = IP_TCP;
        put32(ip + (from_guest ? 12 : 16), IP4(10, 0, 2, 15));
        put32(ip + (from_guest ? 16 : 12), IP4(10, 0, 2, 2));
    }
    put16(tcp + (from_guest ? 0 : 2), 1234);
    put16(tcp + (from_guest ? 2 : 0), 80);
    put32(tcp + 4, number);
    put32(tcp + 8, ack);
    tcp[12] = 0x50;
    tcp[13] = (uint8_t)flags;
    return 14 + head + 20 + size;
}

/* Whether a segment of the guest's enters as it is. */
static bool enters(bool ip6, unsigned flags, uint32_t number, size_t size)
{
    uint8_t frame[2000], was[2000];
    size_t whole = make(frame, ip6, true, flags, number, 77, size), now = whole;

    memcpy(was, frame, whole);
    return user_order_enter(order, frame, &now) && now == whole && memcmp(was, frame, now) == 0;
}

static void answer(bool ip6, unsigned flags, uint32_t ack)
{
    uint8_t frame[100];

    user_order_answer(order, frame, make(frame, ip6, false, flags, 500, ack, 0));
}

static int begin(void **unused)
{
    order = user_order_create(NULL);
    return order ? 0 : -1;
}

static int end(void **unused)
{
    user_order_free(order);
    return 0;
}

static void check_limit(bool ip6)
{
    answer(ip6, TCP_SYN | TCP_ACK, BEGIN);
    for (unsigned round = 0; round < 3; round++) {
        uint32_t next = BEGIN + round * 10000;

        for (unsigned i = 0; i < USER_ORDER_MOST; i++)
            assert_true(enters(ip6, TCP_ACK, next + 5000 - 2 * i, 1));
        assert_false(enters(ip6, TCP_ACK, next + 100, 1));
        assert_false(enters(ip6, TCP_ACK | TCP_FIN, next + 100, 0)); /* is kept, too */
        assert_true(enters(ip6, TCP_ACK, next, 1000));               /* what comes next */
        assert_true(enters(ip6, TCP_ACK, next - 1000, 1000));
        assert_true(enters(ip6, TCP_ACK, next + 100, 0)); /* an acknowledgment */
        answer(ip6, TCP_ACK, next + 1000);
        assert_false(enters(ip6, TCP_ACK, next + 2000, 1));
        answer(ip6, TCP_ACK, next + 4950); /* 26 are left */
        for (unsigned i = 0; i < 38; i++)
            assert_true(enters(ip6, TCP_ACK, next + 6000 + 2 * i, 1));
        assert_false(enters(ip6, TCP_ACK, next + 7000, 1));
        answer(ip6, TCP_ACK, next + 10000);
    }
    /* The end of the connection: the next one with the same ports begins anew. */
    answer(ip6, TCP_RST, 0);
    assert_false(enters(ip6, TCP_ACK, 5, 1));
    answer(ip6, TCP_SYN | TCP_ACK, 5);
    assert_true(enters(ip6, TCP_ACK, 9, 1));
}

static void test_limit(void **unused)
{
    check_limit(false);
    check_limit(true);
}

static void check_forgotten(bool ip6)
{
    uint8_t frame[2000];
    size_t size = make(frame, ip6, true, TCP_ACK | TCP_PSH, BEGIN, 77, 1000);
    size_t head = ip6 ? 40 : 20;

    assert_true(user_order_enter(order, frame, &size));
    assert_int_equal(size, 14 + head + 20);
    assert_int_equal(get32(frame + 14 + head + 4), BEGIN - 100000);
    assert_int_equal(get32(frame + 14 + head + 8), 77);
    assert_true(offload_verify(frame, size));
    if (!ip6)
        assert_int_equal(offload_fold(offload_sum(frame + 14, 20, 0)), 0);
    assert_false(enters(ip6, TCP_ACK, BEGIN + 50, 1)); /* another probe */
    answer(ip6, TCP_ACK, BEGIN);
    assert_false(enters(ip6, TCP_ACK, BEGIN + 50, 1));
    for (unsigned i = 0; i < 66; i++) {
        assert_true(enters(ip6, TCP_ACK, BEGIN + 1000 * i, 1000));
        assert_true(i == 65 || !enters(ip6, TCP_ACK, BEGIN + 1000 * i + 1, 1000));
        answer(ip6, TCP_ACK, BEGIN + 1000 * (i + 1));
    }
    assert_true(enters(ip6, TCP_ACK, BEGIN + 70000, 1));
}

static void test_forgotten(void **unused)
{
    check_forgotten(false);
    check_forgotten(true);
}

/* However many connections there are, the latest are known. */
static void test_many(void **unused)
{
    uint8_t frame[100];

    for (unsigned i = 0; i < 50000; i++) {
        size_t size = make(frame, false, false, TCP_SYN | TCP_ACK, 1, 5, 0);

        put32(frame + 26, i);
        user_order_answer(order, frame, size);
        size = make(frame, false, true, TCP_ACK, 9, 5, 1);
        put32(frame + 30, i);
        assert_true(user_order_enter(order, frame, &size));
        assert_int_equal(size, 55);
    }
}

static void test_malformed(void **unused)
{
    static const struct {
        unsigned at, value;
    } wrong[] = {{20, 0x20}, {21, 1},  {20, 0x80}, {14, 0x44},
                 {17, 90},   {17, 19}, {46, 0x40}, {46, 0xF0}};
    uint8_t frame[100];
    size_t size;

    answer(false, TCP_SYN | TCP_ACK, 5);
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        size = make(frame, false, true, TCP_ACK, 5, 1, 1);
        frame[wrong[i].at] = (uint8_t)wrong[i].value;
        if (user_order_enter(order, frame, &size))
            fail_msg("%u: enters", i);
        user_order_answer(order, frame, size);
    }
    for (size = 14; size < 55; size++) {
        size_t now = size;

        make(frame, false, true, TCP_ACK, 5, 1, 1);
        assert_int_equal(user_order_enter(order, frame, &now), size < 34);
    }
    frame[12] = 9; /* of no protocol that is known */
    assert_true(user_order_enter(order, frame, &size));
}

/* ---- In front of libslirp ---- */

static struct loop *loop;
static struct net_guest guest;
static struct net_server server;
static struct net_tcp tcp;

static int begin_network(void **unused)
{
    loop = loop_create(NULL);
    if (!loop || loop_start(loop, NULL) < 0)
        return -1;
    net_server_start(&server, 0);
    net_guest_open(&guest, loop, "user", 1, NET_CHECKSUM);
    net_guest_dhcp(&guest);
    return net_tcp_connect(&tcp, &guest, 4000, IP4(10, 0, 2, 2), server.port) ? 0 : -1;
}

static int end_network(void **unused)
{
    net_guest_close(&guest);
    net_server_stop(&server);
    loop_destroy(loop);
    return 0;
}

static long resident_kib(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long pages = 0;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* A guest that sends every second byte of a window, the last one first, costs little memory; and
 * when it sends the rest, all arrives. */
static void test_disorder(void **unused)
{
    static const uint8_t bytes[60000];
    uint32_t first = tcp.sequence;
    long before = resident_kib();

    tcp.allowed = first + 65536;
    for (unsigned at = 59998; at > 0; at -= 2) {
        tcp.sequence = first + at;
        net_tcp_send(&tcp, bytes, 1);
        while (net_guest_receive(&guest, 0)) {}
    }
    assert_true(resident_kib() - before < 48 * 1024);
    tcp.sequence = first;
    net_tcp_send(&tcp, bytes, 30000);
    net_tcp_send(&tcp, bytes, 30000);
    net_tcp_end(&tcp);
    net_tcp_finish(&tcp);
    assert_int_equal(server.served, 1);
}

/* A connection that was forgotten goes on, after what is sent first is sent again. */
static void test_goes_on(void **unused)
{
    struct user *user = container_of(guest.net, struct user, net);
    uint8_t got[10];
    struct net_packet p;

    net_tcp_send(&tcp, "first", 5);
    assert_int_equal(net_tcp_receive(&tcp, got, 5), 5);
    slirp_library_enter();
    user_order_free(user->order);
    user->order = user_order_create(NULL);
    slirp_library_leave();
    assert_non_null(user->order);
    net_tcp_send(&tcp, "again", 5);
    tcp.sequence -= 5;
    do
        net_guest_expect(&guest, &p, IP_TCP, 4000);
    while (p.size > 0 || p.ack != tcp.sequence);
    net_tcp_send(&tcp, "again", 5);
    assert_int_equal(net_tcp_receive(&tcp, got, 5), 5);
    assert_memory_equal(got, "again", 5);
    net_tcp_end(&tcp);
    net_tcp_finish(&tcp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_limit, begin, end),
        cmocka_unit_test_setup_teardown(test_forgotten, begin, end),
        cmocka_unit_test_setup_teardown(test_many, begin, end),
        cmocka_unit_test_setup_teardown(test_malformed, begin, end),
        cmocka_unit_test_setup_teardown(test_disorder, begin_network, end_network),
        cmocka_unit_test_setup_teardown(test_goes_on, begin_network, end_network),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

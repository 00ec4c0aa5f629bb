/*
 * Virtual switches: machines that this test plays get addresses, find each other by name, and send
 * each other frames; some of them are hostile. The switch is a thread here, and is started again
 * when it has ended, as the supervisor does.
 */
#include "net_guest.h"
#include "test.h"

#include "base/time.h"
#include "base/util.h"
#include "net/bytes.h"
#include "net/remote_link.h"
#include "net/switch.h"
#include "net/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MACHINES 4
#define LONG_NS  (60 * NS_PER_S)

static struct loop *loop;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static struct net_guest guest[MACHINES];
static const char *const names[MACHINES] = {"web", "db", "mail", ""};

/* ---- The switch, and who makes connections to it ---- */

struct served {
    int listener;
    pthread_t thread;
};

static struct served served;

static void *serve(void *opaque)
{
    struct served *s = opaque;
    struct error err = {0};

    assert_int_equal(switch_serve("lan", s->listener, LONG_NS, NULL, NULL, NULL, &err), 0);
    return NULL;
}

static void start_switch(void)
{
    unlink(address.sun_path);
    served.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(served.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(served.listener, 16), 0);
    assert_int_equal(pthread_create(&served.thread, NULL, serve, &served), 0);
}

/* All machines have gone: the switch ends by itself. */
static void await_switch(void)
{
    pthread_join(served.thread, NULL);
    close(served.listener);
}

static int dial(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static int dial_as(const char *name)
{
    struct error err = {0};
    int fd = dial(), ret = switch_greet(fd, name, LONG_NS, &err);

    if (ret < 0)
        fail_msg("'%s': %s", name, err.text);
    return fd;
}

struct keeper {
    const char *name;
    int end; /* of the link */
    pthread_t thread;
    _Atomic int connection; /* the last one that it has made */
};

static struct keeper keeper[MACHINES];

static void *keep(void *opaque)
{
    struct keeper *k = opaque;

    while (remote_link_await(k->end)) {
        int fd = dial_as(k->name);

        close(atomic_exchange(&k->connection, fd));
        assert_int_equal(remote_link_answer(k->end, fd, NULL), 0);
        remote_link_done(k->end);
    }
    return NULL;
}

static int make_link(void *opaque, const char *name)
{
    struct keeper *k = opaque;
    int ends[2];

    assert_string_equal(name, "lan");
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    k->end = ends[1];
    assert_int_equal(pthread_create(&k->thread, NULL, keep, k), 0);
    return ends[0];
}

static void plug_in(unsigned n, unsigned accepts)
{
    struct net_host host = {.loop = loop, .remote = make_link, .remote_opaque = &keeper[n]};

    keeper[n] = (struct keeper){.name = names[n], .connection = -1};
    net_guest_open_on(&guest[n], &host, "switch=lan", n + 1, accepts);
}

static void unplug(unsigned n)
{
    net_guest_close(&guest[n]);
    pthread_join(keeper[n].thread, NULL);
    close(keeper[n].end);
    close(keeper[n].connection);
}

static int begin(void **unused)
{
    snprintf(address.sun_path, sizeof(address.sun_path), P_tmpdir "/doppel-net-switch-%d",
             getpid());
    loop = loop_create(NULL);
    assert_int_equal(loop_start(loop, NULL), 0);
    start_switch();
    for (unsigned i = 0; i < MACHINES; i++)
        plug_in(i, NET_CHECKSUM | NET_TSO4 | NET_TSO6);
    return 0;
}

static int end(void **unused)
{
    for (unsigned i = 0; i < MACHINES; i++)
        unplug(i);
    await_switch();
    unlink(address.sun_path);
    loop_destroy(loop);
    return 0;
}

/* ---- Addresses and names ---- */

static void configure(void)
{
    for (unsigned i = 0; i < MACHINES; i++)
        net_guest_dhcp(&guest[i]);
}

static void test_addresses(void **unused)
{
    uint32_t first[MACHINES];

    configure();
    for (unsigned i = 0; i < MACHINES; i++) {
        assert_int_equal(guest[i].address >> 16, 10 << 8 | 99);
        assert_int_equal(guest[i].address >> 8, guest[0].address >> 8);
        assert_int_equal(guest[i].dns, (guest[0].address & ~255u) + 1);
        assert_int_equal(guest[i].router, 0);
        assert_string_equal(guest[i].name, names[i]);
        for (unsigned j = 0; j < i; j++)
            assert_int_not_equal(guest[i].address, guest[j].address);
        first[i] = guest[i].address;
    }
    /* A machine that comes back has the same address, and so has one that asks again. */
    unplug(1);
    plug_in(1, 0);
    net_guest_dhcp(&guest[1]);
    net_guest_dhcp(&guest[2]);
    assert_int_equal(guest[1].address, first[1]);
    assert_int_equal(guest[2].address, first[2]);
}

/* Asks the switch, and returns the result's code. *ANSWER is the record's data, if there is one. */
static unsigned ask(struct net_guest *g, const char *name, unsigned type, const uint8_t **answer)
{
    uint8_t question[300] = {0x12, 0x34, 1, 0, 0, 1};
    struct net_packet p;
    size_t at = 12;

    for (const char *label = name; *label;) {
        size_t length = strcspn(label, ".");

        question[at++] = (uint8_t)length;
        memcpy(question + at, label, length);
        at += length;
        label += length + (label[length] == '.');
    }
    at++;
    put16(question + at, type);
    put16(question + at + 2, 1);
    at += 4;
    assert_true(net_guest_arp(g, g->dns, 60000));
    net_guest_udp(g, g->dns, 3000, 53, question, at);
    net_guest_expect(g, &p, IP_UDP, 3000);
    assert_int_equal(p.from, g->dns);
    assert_true(p.size >= at);
    assert_memory_equal(p.data, "\x12\x34", 2);
    assert_int_equal(get16(p.data + 2) & 0xfbf0, 0x8100); /* an answer; recursion was desired */
    *answer = get16(p.data + 6) ? p.data + at + 12 : NULL;
    return p.data[3] & 15;
}

static void test_names(void **unused)
{
    const uint8_t *answer;
    char name[64];

    configure();
    for (unsigned i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "%s.doppel.internal", names[i]);
        assert_int_equal(ask(&guest[(i + 1) % MACHINES], name, 1, &answer), 0);
        assert_non_null(answer);
        assert_int_equal(get32(answer), guest[i].address);
        snprintf(name, sizeof(name), "%u.%u.99.10.in-addr.arpa", guest[i].address & 255,
                 guest[i].address >> 8 & 255);
        assert_int_equal(ask(&guest[3], name, 12, &answer), 0);
        assert_non_null(answer);
        assert_int_equal(answer[0], strlen(names[i]));
        assert_memory_equal(answer + 1, names[i], strlen(names[i]));
    }
    assert_int_equal(ask(&guest[0], "WEB", 1, &answer), 0);
    assert_int_equal(get32(answer), guest[0].address);
    assert_int_equal(ask(&guest[0], "db.doppel.internal", 28, &answer), 0); /* no IPv6 */
    assert_null(answer);
    assert_int_equal(ask(&guest[0], "nobody.doppel.internal", 1, &answer), 3);
    assert_int_equal(ask(&guest[0], "doppel.internal", 1, &answer), 0);
    assert_int_equal(ask(&guest[0], "www.example.org", 1, &answer), 5);
    assert_int_equal(ask(&guest[0], "1.0.0.127.in-addr.arpa", 12, &answer), 5);
    unplug(1);
    assert_int_equal(ask(&guest[0], "db.doppel.internal", 1, &answer), 3);
    plug_in(1, 0);
}

static void test_ping_switch(void **unused)
{
    uint8_t echo[64] = {8, 0, 0xf7, 0xff};
    struct net_packet p;

    configure();
    assert_true(net_guest_arp(&guest[0], guest[0].dns, 60000));
    net_guest_ip(&guest[0], guest[0].dns, IP_ICMP, echo, sizeof(echo));
    net_guest_expect(&guest[0], &p, IP_ICMP, 0);
    assert_int_equal(p.from, guest[0].dns);
    assert_int_equal(p.data[0], 0);
    assert_int_equal(p.size, sizeof(echo));
}

/* ---- Frames ---- */

/* Waits for a frame whose first byte of payload is FILL; others are dropped. */
static void expect_frame(struct net_guest *g, uint8_t fill, size_t size)
{
    do {
        assert_true(net_guest_receive(g, 60000));
    } while (get16(g->frame + 12) != 0x88b5 || g->frame[14] != fill);
    assert_int_equal(g->size, size);
    assert_int_equal(g->frame[size - 1], fill);
}

/* Sends a frame of an experiment's type (IEEE 802), filled with FILL. */
static void send_frame(struct net_guest *g, const uint8_t *to, uint8_t fill, size_t size)
{
    static uint8_t payload[NET_FRAME_MOST];

    memset(payload, fill, size - 14);
    net_guest_send(g, to, 0x88b5, payload, size - 14);
}

static void test_frames(void **unused)
{
    static const uint8_t everyone[6] = {255, 255, 255, 255, 255, 255};

    /* To everybody, which also tells the switch who is where. */
    for (unsigned i = 0; i < MACHINES; i++) {
        send_frame(&guest[i], everyone, (uint8_t)(10 + i), 100 + i);
        for (unsigned j = 0; j < MACHINES; j++)
            if (j != i)
                expect_frame(&guest[j], (uint8_t)(10 + i), 100 + i);
    }
    /* To one, of all sizes, and to nobody else. */
    send_frame(&guest[0], guest[1].mac, 1, NET_FRAME_MOST);
    send_frame(&guest[0], guest[1].mac, 2, 15);
    send_frame(&guest[0], guest[1].mac, 3, 9000);
    expect_frame(&guest[1], 1, NET_FRAME_MOST);
    expect_frame(&guest[1], 2, 15);
    expect_frame(&guest[1], 3, 9000);
    send_frame(&guest[0], everyone, 4, 60);
    assert_true(net_guest_receive(&guest[2], 60000));
    assert_int_equal(guest[2].frame[14], 4);
}

/* What a frame leaves undone is left undone on its way, and done for a guest that does not accept
 * it. */
static void test_offloads(void **unused)
{
    static uint8_t frame[54 + 4000];
    struct net_offload offload = {.flags = NET_NEEDS_CHECKSUM,
                                  .gso = NET_GSO_TCP4,
                                  .header_size = 54,
                                  .segment_size = 1460,
                                  .checksum_start = 34,
                                  .checksum_offset = 16};
    uint8_t to[6];
    size_t sizes = 0;

    memset(frame, 0xff, 6);
    memcpy(frame + 6, guest[0].mac, 6);
    put16(frame + 12, 0x0800);
    frame[14] = 0x45;
    put16(frame + 16, sizeof(frame) - 14);
    frame[23] = IP_TCP;
    frame[46] = 0x50;
    net_guest_send_frame(&guest[0], frame, sizeof(frame), &offload);
    assert_true(net_guest_receive(&guest[1], 60000));
    assert_int_equal(guest[1].size, sizeof(frame));
    assert_memory_equal(&guest[1].offload, &offload, sizeof(offload));
    unplug(2);
    plug_in(2, 0);
    net_guest_send_frame(&guest[0], frame, sizeof(frame), &offload);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(net_guest_receive(&guest[2], 60000));
        assert_int_equal(guest[2].offload.gso, 0);
        assert_int_equal(guest[2].offload.flags, 0);
        sizes += guest[2].size - 54;
    }
    assert_int_equal(sizes, 4000);
    memcpy(to, guest[2].mac, 6);
}

/* ---- Hostile machines ---- */

/* Waits until the other side has closed. */
static void await_close(int fd)
{
    char byte;

    while (recv(fd, &byte, 1, 0) > 0) {}
    close(fd);
}

static void test_nonsense(void **unused)
{
    struct switch_hello hello = {.magic = SWITCH_MAGIC, .version = SWITCH_VERSION + 1};
    struct error err = {0};
    int fd = dial();

    assert_int_equal(send(fd, &hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
    await_close(fd);
    fd = dial();
    hello.magic = 0;
    assert_int_equal(send(fd, &hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
    await_close(fd);
    fd = dial_as("x");
    assert_int_equal(send(fd, "\xff\xff\xff\xff", 4, MSG_NOSIGNAL), 4);
    await_close(fd);
    fd = dial_as("y");
    assert_int_equal(send(fd, "\0\0\0\0", 4, MSG_NOSIGNAL), 4);
    await_close(fd);
    fd = dial();
    assert_int_equal(switch_greet(fd, "web", LONG_NS, &err), -EEXIST);
    assert_non_null(strstr(err.text, "there is a machine 'web'"));
    close(fd);
    test_frames(NULL);
}

/* A machine that takes another's address as its own gets nothing of what is for that. */
static void test_spoof(void **unused)
{
    static const uint8_t everyone[6] = {255, 255, 255, 255, 255, 255};
    uint8_t own[6];

    send_frame(&guest[1], everyone, 1, 60);
    expect_frame(&guest[0], 1, 60);
    memcpy(own, guest[2].mac, 6);
    memcpy(guest[2].mac, guest[1].mac, 6);
    send_frame(&guest[2], guest[0].mac, 2, 60); /* is not heard */
    memcpy(guest[2].mac, own, 6);
    send_frame(&guest[2], everyone, 3, 60); /* is heard, after it */
    assert_true(net_guest_receive(&guest[0], 60000));
    assert_int_equal(guest[0].frame[14], 3);
    send_frame(&guest[0], guest[1].mac, 4, 60);
    expect_frame(&guest[1], 4, 60);
}

/* A machine that reads nothing loses what is sent to it, and holds nobody up. */
static void test_deaf(void **unused)
{
    int deaf = dial_as("deaf");
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 9};
    uint8_t message[4 + sizeof(struct net_offload) + 60] = {0, 0, 0, 60};
    uint8_t *frame = message + sizeof(message) - 60;

    memset(frame, 77, 60);
    memset(frame, 255, 6);
    memcpy(frame + 6, mac, 6);
    put16(frame + 12, 0x88b5);
    assert_int_equal(send(deaf, message, sizeof(message), MSG_NOSIGNAL), sizeof(message));
    expect_frame(&guest[0], 77, 60);
    for (unsigned i = 0; i < 400; i++) { /* 24 MiB: more than all queues hold */
        send_frame(&guest[0], mac, 1, 60000);
        if (i % 50 == 0) {
            send_frame(&guest[0], guest[1].mac, (uint8_t)i, 100);
            if (i == 0)
                send_frame(&guest[1], guest[0].mac, 5, 100);
            expect_frame(&guest[1], (uint8_t)i, 100);
        }
    }
    close(deaf);
}

/* Many addresses, and more machines than there are ports. */
static void test_many(void **unused)
{
    static const uint8_t everyone[6] = {255, 255, 255, 255, 255, 255};
    int fd[SWITCH_PORTS_MOST], more;
    unsigned count = SWITCH_PORTS_MOST - MACHINES;
    struct error err = {0};
    uint8_t own[6];

    for (unsigned i = 0; i < count; i++)
        fd[i] = dial_as("");
    more = dial();
    assert_int_equal(switch_greet(more, "more", LONG_NS, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "64 machines"));
    await_close(more);
    for (unsigned i = 0; i < count; i++)
        close(fd[i]);
    memcpy(own, guest[2].mac, 6);
    for (unsigned i = 0; i < 1000; i++) {
        put16(guest[2].mac + 2, i);
        send_frame(&guest[2], guest[0].mac, 9, 60);
    }
    memcpy(guest[2].mac, own, 6);
    send_frame(&guest[2], everyone, 10, 60);
    expect_frame(&guest[0], 10, 60);
    send_frame(&guest[0], guest[2].mac, 11, 60);
    expect_frame(&guest[2], 11, 60);
}

/* Clients that say nothing make room for machines, and do not keep the switch when they are all
 * that is left of it. */
static void test_silent(void **unused)
{
    static int silent[2 * SWITCH_PORTS_MOST]; /* open to the end of the process */

    for (unsigned i = 0; i < ARRAY_SIZE(silent); i++)
        silent[i] = dial();
    close(dial_as("late"));
    test_frames(NULL);
}

/* The switch is killed, and started again: all machines find each other as before. */
static void test_restart(void **unused)
{
    const uint8_t *answer;
    uint32_t before;

    configure();
    before = guest[0].address;
    /* What a killed process leaves of its connections; and then there is nobody any more. */
    unlink(address.sun_path);
    for (unsigned i = 0; i < MACHINES; i++)
        keeper[i].name = names[i];
    struct served old = served;

    start_switch();
    for (unsigned i = 0; i < MACHINES; i++)
        shutdown(keeper[i].connection, SHUT_RDWR);
    pthread_join(old.thread, NULL);
    close(old.listener);
    for (unsigned i = 0; i < MACHINES; i++) {
        uint64_t limit = time_now_ns() + LONG_NS;

        while (!net_up(guest[i].net) ||
               recv(keeper[i].connection, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
            assert_true(time_now_ns() < limit);
            net_guest_receive(&guest[i], 10);
        }
    }
    /* Nobody has asked the new one for an address yet. */
    assert_int_equal(ask(&guest[1], "web.doppel.internal", 1, &answer), 0);
    assert_int_equal(get32(answer), before);
    configure();
    assert_int_equal(guest[0].address, before);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_addresses), TEST(test_names),    TEST(test_ping_switch), TEST(test_frames),
        TEST(test_offloads),  TEST(test_nonsense), TEST(test_spoof),       TEST(test_deaf),
        TEST(test_many),      TEST(test_silent),   TEST(test_restart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

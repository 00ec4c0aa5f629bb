/*
 * User networks: a guest that this test plays gets an address, asks the gateway, and talks to
 * servers of the host and to programs that come in by forwarded ports.
 */
#include "descriptors.h"
#include "net_guest.h"
#include "net_server.h"
#include "test.h"

#include "base/util.h"
#include "net/offload.h"
#include "net/options.h"
#include "net/user.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#define GATEWAY     IP4(10, 0, 2, 2)
#define CONNECTIONS 300

static struct loop *loop;
static struct net_guest guest;

static int setup(void **unused)
{
    loop = loop_create(NULL);
    return loop ? loop_start(loop, NULL) : -1;
}

static int teardown(void **unused)
{
    loop_destroy(loop);
    return 0;
}

/* Plugs a configured guest in. */
static void begin(const char *text)
{
    net_guest_open(&guest, loop, text, 1, 0);
    net_guest_dhcp(&guest);
}

static void test_info(void **unused)
{
    net_guest_open(&guest, loop, "user,mac=52:54:00:12:34:56,queues=2", 1, 0);
    assert_string_equal(net_info(guest.net).kind, "user");
    assert_int_equal(net_info(guest.net).mtu, 16384);
    assert_true(net_info(guest.net).has_mac);
    assert_int_equal(net_info(guest.net).mac[5], 0x56);
    assert_int_equal(net_info(guest.net).queues, 2);
    assert_true(net_up(guest.net));
    net_guest_close(&guest);
    net_guest_open(&guest, loop, "user,mtu=1500", 1, 0);
    assert_int_equal(net_info(guest.net).mtu, 1500);
    net_guest_close(&guest);
}

static void test_dhcp(void **unused)
{
    begin("user,hostname=web");
    assert_int_equal(guest.address, IP4(10, 0, 2, 15));
    assert_int_equal(guest.router, GATEWAY);
    assert_int_equal(guest.dns, IP4(10, 0, 2, 3));
    assert_string_equal(guest.name, "web");
    net_guest_close(&guest);
    begin("user,net=192.168.7.0/28,host=192.168.7.9,dhcp=192.168.7.5");
    assert_int_equal(guest.address, IP4(192, 168, 7, 5));
    assert_int_equal(guest.router, IP4(192, 168, 7, 9));
    assert_int_equal(guest.dns, IP4(192, 168, 7, 3));
    net_guest_close(&guest);
}

static void test_ping(void **unused)
{
    uint8_t echo[40] = {8, 0, 0, 0, 0x12, 0x34, 0, 1, 'h', 'i'};
    struct net_packet p;
    uint16_t sum = offload_fold(offload_sum(echo, sizeof(echo), 0));

    begin("user");
    echo[2] = (uint8_t)(sum >> 8);
    echo[3] = (uint8_t)sum;
    net_guest_ip(&guest, GATEWAY, IP_ICMP, echo, sizeof(echo));
    net_guest_expect(&guest, &p, IP_ICMP, 0);
    assert_int_equal(p.from, GATEWAY);
    assert_int_equal(p.size, sizeof(echo));
    assert_int_equal(p.data[0], 0);
    assert_memory_equal(p.data + 4, echo + 4, sizeof(echo) - 4);
    net_guest_close(&guest);
}

/* A socket of KIND with a port of its own, which does not listen. */
static int bound_socket(int kind, unsigned *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(at);
    int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    *port = ntohs(at.sin_port);
    return fd;
}

/* A datagram to the host, and the answer to it, of all sizes. */
static void test_udp(void **unused)
{
    static const size_t sizes[] = {1, 100, 1472, 9000, 16000};
    static uint8_t data[16000], got[65536];
    struct sockaddr_in from;
    socklen_t length = sizeof(from);
    unsigned port;
    int fd = bound_socket(SOCK_DGRAM, &port);

    begin("user");
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = net_pattern(i);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct net_packet p;

        net_guest_udp(&guest, GATEWAY, 5000 + i, port, data, sizes[i]);
        assert_int_equal(recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&from, &length),
                         sizes[i]);
        assert_memory_equal(got, data, sizes[i]);
        assert_int_equal(sendto(fd, data, sizes[i], 0, (struct sockaddr *)&from, length), sizes[i]);
        net_guest_expect(&guest, &p, IP_UDP, 5000 + i);
        assert_int_equal(p.from, GATEWAY);
        assert_int_equal(p.from_port, port);
        assert_int_equal(p.size, sizes[i]);
        assert_memory_equal(p.data, data, sizes[i]);
    }
    net_guest_close(&guest);
    close(fd);
}

/* One question and its answer; the guest ends first, by half. */
static void ask(unsigned port, unsigned server)
{
    char question[32], answer[32] = {0};
    struct net_tcp tcp;
    int size = snprintf(question, sizeof(question), "question %u", port);

    assert_true(net_tcp_connect(&tcp, &guest, port, GATEWAY, server));
    net_tcp_send(&tcp, question, (size_t)size);
    assert_int_equal(net_tcp_receive(&tcp, answer, (size_t)size), size);
    assert_string_equal(answer, question);
    net_tcp_end(&tcp);
    net_tcp_finish(&tcp);
    assert_false(tcp.reset);
}

static void test_connections(void **unused)
{
    struct net_server server;

    net_server_start(&server, 0);
    begin("user");
    for (unsigned i = 0; i < CONNECTIONS; i++)
        ask(10000 + i, server.port);
    net_server_stop(&server);
    assert_int_equal(server.served, CONNECTIONS);
    assert_int_equal(server.broken, 0);
    net_guest_close(&guest);
}

static void test_refused(void **unused)
{
    struct net_tcp tcp;
    unsigned port;
    int fd = bound_socket(SOCK_STREAM, &port);

    begin("user");
    assert_false(net_tcp_connect(&tcp, &guest, 4000, GATEWAY, port));
    net_guest_close(&guest);
    close(fd);
}

/* The server sends many bytes, and the guest reads them in large segments. */
static void test_download(void **unused)
{
    static uint8_t data[100000];
    const size_t size = 24 * MiB;
    struct net_server server;
    struct net_tcp tcp;
    size_t done = 0, n;

    net_server_start(&server, size);
    begin("user");
    assert_true(net_tcp_connect(&tcp, &guest, 4000, GATEWAY, server.port));
    while ((n = net_tcp_receive(&tcp, data, MIN(sizeof(data), size - done))) > 0) {
        for (size_t i = 0; i < n; i++)
            if (data[i] != net_pattern(done + i))
                fail_msg("byte %zu is wrong", done + i);
        done += n;
    }
    assert_int_equal(done, size);
    net_tcp_end(&tcp);
    net_tcp_finish(&tcp);
    net_server_stop(&server);
    assert_int_equal(server.served, 1);
    net_guest_close(&guest);
}

/* What a card leaves to the host: a frame of many segments, without a checksum. */
static void send_large(struct net_tcp *tcp, size_t size)
{
    static uint8_t frame[NET_FRAME_MOST], *ip = frame + 14, *segment = frame + 34;
    struct net_offload offload = {.flags = NET_NEEDS_CHECKSUM,
                                  .gso = NET_GSO_TCP4,
                                  .header_size = 54,
                                  .segment_size = 1460,
                                  .checksum_start = 34,
                                  .checksum_offset = 16};
    uint16_t length = htons((uint16_t)(size + 40)), port = htons(tcp->port);
    uint16_t peer_port = htons(tcp->peer_port), sum;
    uint32_t address = htonl(guest.address), peer = htonl(tcp->peer);
    uint32_t sequence = htonl(tcp->sequence), ack = htonl(tcp->ack);

    memcpy(frame, guest.gateway, 6);
    memcpy(frame + 6, guest.mac, 6);
    memcpy(frame + 12, (uint8_t[]){8, 0, 0x45, 0}, 4);
    memset(ip + 2, 0, 38);
    memcpy(ip + 2, &length, 2);
    ip[8] = 64;
    ip[9] = IP_TCP;
    memcpy(ip + 12, &address, 4);
    memcpy(ip + 16, &peer, 4);
    sum = htons(offload_fold(offload_sum(ip, 20, 0)));
    memcpy(ip + 10, &sum, 2);
    memcpy(segment, &port, 2);
    memcpy(segment + 2, &peer_port, 2);
    memcpy(segment + 4, &sequence, 4);
    memcpy(segment + 8, &ack, 4);
    memcpy(segment + 12, (uint8_t[]){0x50, TCP_ACK | TCP_PSH, 0xff, 0xff}, 4);
    for (size_t i = 0; i < size; i++)
        frame[54 + i] = 3;
    net_guest_send_frame(&guest, frame, size + 54, &offload);
    tcp->sequence += (uint32_t)size;
}

/* The guest never sends more than it may, and hears each time that it may send again, although
 * nobody asks: also when the server takes nothing for a while. */
static void upload(bool slow)
{
    const size_t part = 30000, parts = 400;
    uint8_t echo[100];
    struct net_server server;
    struct net_tcp tcp;

    net_server_start(&server, 0);
    server.slow = slow;
    begin("user");
    assert_true(net_tcp_connect(&tcp, &guest, 4000, GATEWAY, server.port));
    net_tcp_await_window(&tcp, part);
    send_large(&tcp, part);
    assert_int_equal(net_tcp_receive(&tcp, echo, 100), 100);
    for (size_t i = 1; i < parts; i++) {
        net_tcp_await_window(&tcp, part);
        send_large(&tcp, part);
    }
    net_tcp_end(&tcp);
    net_tcp_finish(&tcp);
    net_server_stop(&server);
    assert_int_equal(server.sum, 3 * part * parts);
    assert_int_equal(server.broken, 0);
    net_guest_close(&guest);
}

static void test_upload(void **unused)
{
    upload(false);
}

static void test_slow_upload(void **unused)
{
    upload(true);
}

/* ---- Forwards ---- */

static int dial(int kind, unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

static void test_forward_tcp(void **unused)
{
    struct net_tcp tcp;
    char data[8] = {0};
    int fd;

    begin("user,forward=0:80,forward=tcp:127.0.0.1:0:81");
    assert_int_not_equal(net_forward_port(guest.net, 0), 0);
    assert_int_not_equal(net_forward_port(guest.net, 1), 0);
    assert_int_equal(net_forward_port(guest.net, 2), 0);
    fd = dial(SOCK_STREAM, net_forward_port(guest.net, 1));
    net_tcp_accept(&tcp, &guest, 81);
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    assert_int_equal(net_tcp_receive(&tcp, data, 5), 5);
    assert_string_equal(data, "hello");
    net_tcp_send(&tcp, "there", 5);
    net_tcp_end(&tcp);
    assert_int_equal(recv(fd, data, 5, MSG_WAITALL), 5);
    assert_string_equal(data, "there");
    assert_int_equal(recv(fd, data, 1, 0), 0);
    close(fd);
    net_tcp_finish(&tcp);
    net_guest_close(&guest);
}

static void test_forward_udp(void **unused)
{
    struct net_packet p;
    char data[8] = {0};
    int fd;

    begin("user,forward=udp:0:53");
    fd = dial(SOCK_DGRAM, net_forward_port(guest.net, 0));
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    net_guest_expect(&guest, &p, IP_UDP, 53);
    assert_int_equal(p.size, 5);
    assert_memory_equal(p.data, "hello", 5);
    net_guest_udp(&guest, p.from, 53, p.from_port, "there", 5);
    assert_int_equal(recv(fd, data, sizeof(data), 0), 5);
    assert_string_equal(data, "there");
    close(fd);
    net_guest_close(&guest);
}

static void refuse(const char *text, int code, const char *words)
{
    struct net_host host = {.loop = loop};
    struct net_options options;
    struct error err = {0};

    assert_int_equal(net_options_parse(text, &options, &err), 0);
    assert_null(net_open(&options, &host, &err));
    net_options_free(&options);
    if (!strstr(err.text, words))
        fail_msg("'%s': %s", text, err.text);
    assert_int_equal(err.code, code);
}

/* Connects to PORT of ::1. */
static int dial_ipv6(unsigned port)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6,
                              .sin6_addr = IN6ADDR_LOOPBACK_INIT,
                              .sin6_port = htons((uint16_t)port)};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

/* Whoever comes in by IPv6 to a guest that has not said its address of IPv6 sees the end at once.
 */
static void test_forward_ipv6(void **unused)
{
    const struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char text[64], byte;
    unsigned port;

    if (fd < 0 || bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0) {
        print_message("this host has no IPv6\n");
        skip();
    }
    close(fd);
    begin("user,forward=[::1]:0:80,forward=tcp:[::1]:0:81");
    assert_int_not_equal(net_forward_port(guest.net, 1), 0);
    port = net_forward_port(guest.net, 0);
    assert_int_not_equal(port, 0);
    fd = dial_ipv6(port);
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    close(fd);
    snprintf(text, sizeof(text), "user,forward=[::1]:%u:80", port);
    refuse(text, EADDRINUSE, "of ::1");
    net_guest_close(&guest);
}

/* ---- Descriptors ---- */

/* Whether a frame of TYPE with the SIZE bytes at PACKET counts as one that may open something. */
static bool opens(unsigned type, const uint8_t *packet, size_t size)
{
    uint8_t frame[128] = {[12] = (uint8_t)(type >> 8), (uint8_t)type};

    memcpy(frame + 14, packet, size);
    return user_frame_opens(frame, 14 + size);
}

/* Only what cannot open a socket passes without a look at how many there are. */
static void test_frames_that_open(void **unused)
{
    uint8_t ip4[40] = {0x45, [9] = IP_TCP}, ip6[60] = {0x60, [6] = IP_TCP};
    static const unsigned quiet[] = {TCP_ACK, TCP_ACK | TCP_PSH, TCP_FIN | TCP_ACK,
                                     TCP_RST, TCP_SYN | TCP_ACK, 0};

    assert_false(opens(0x0806, ip4, 28)); /* ARP */
    assert_false(opens(0x88cc, ip4, 40)); /* nothing that libslirp knows */
    for (unsigned i = 0; i < ARRAY_SIZE(quiet); i++) {
        ip4[33] = ip6[53] = (uint8_t)quiet[i];
        assert_false(opens(0x0800, ip4, 40));
        assert_false(opens(0x86dd, ip6, 60));
    }
    ip4[6] = 0x20; /* a fragment, and the last one */
    assert_true(opens(0x0800, ip4, 40));
    ip4[6] = 0;
    ip4[7] = 1;
    assert_true(opens(0x0800, ip4, 40));
    ip4[7] = 0;
    ip4[0] = 0x46; /* a longer header: the flags are elsewhere, and then outside */
    assert_false(opens(0x0800, ip4, 40));
    assert_true(opens(0x0800, ip4, 37));
    ip4[0] = 0x45;
    ip4[33] = ip6[53] = TCP_SYN | TCP_PSH;
    assert_true(opens(0x0800, ip4, 40));
    assert_true(opens(0x86dd, ip6, 60));
    assert_true(opens(0x0800, ip4, 19));
    assert_true(opens(0x86dd, ip6, 39));
    ip4[33] = ip6[53] = TCP_ACK;
    ip4[9] = IP_UDP;
    ip6[6] = IP_UDP;
    assert_true(opens(0x0800, ip4, 40));
    assert_true(opens(0x86dd, ip6, 60));
    ip4[9] = IP_ICMP;
    assert_true(opens(0x0800, ip4, 40));
}

/* A guest that opens ever more gets no more than its share: its connections go on, and so does the
 * rest of the process. */
static void test_few_descriptors(void **unused)
{
    static struct net_tcp first, more;
    _Atomic unsigned told = 0;
    const struct log log = descriptors_log(&told);
    const struct net_host host = {.loop = loop, .log = &log};
    char data[8] = {0};
    struct net_server server;
    struct rlimit before;
    unsigned port;
    int end, fd, own[20], udp = bound_socket(SOCK_DGRAM, &port);

    net_server_start(&server, 0);
    net_guest_open_on(&guest, &host, "user,forward=0:80", 1, 0);
    net_guest_dhcp(&guest);
    assert_true(net_tcp_connect(&first, &guest, 4000, GATEWAY, server.port));
    net_tcp_send(&first, "one", 3); /* the server has taken it up when it answers */
    assert_int_equal(net_tcp_receive(&first, data, 3), 3);
    end = descriptors_leave(40, &before);
    for (unsigned i = 0; i < 100; i++) {
        net_tcp_ask(&more, &guest, 5000 + i, GATEWAY, server.port);
        net_guest_udp(&guest, GATEWAY, 5000 + i, port, "x", 1);
    }
    assert_in_range(descriptors_lowest(), end, end + 8);
    assert_int_equal(told, 1);
    net_tcp_send(&first, "two", 3);
    assert_int_equal(net_tcp_receive(&first, data, 3), 3);
    assert_string_equal(data, "two");
    for (unsigned i = 0; i < ARRAY_SIZE(own); i++) {
        own[i] = dup(STDIN_FILENO);
        assert_true(own[i] >= 0);
    }
    /* Who comes in by a forward waits. */
    fd = dial(SOCK_STREAM, net_forward_port(guest.net, 0));
    net_tcp_end(&first);
    net_tcp_finish(&first);
    setrlimit(RLIMIT_NOFILE, &before);
    net_tcp_accept(&more, &guest, 80);
    assert_int_equal(send(fd, "in", 2, 0), 2);
    assert_int_equal(net_tcp_receive(&more, data, 2), 2);
    for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
        close(own[i]);
    close(fd);
    net_guest_close(&guest); /* with it go the connections that the server has not taken up */
    begin("user");
    ask(6000, server.port);
    net_guest_close(&guest);
    net_server_stop(&server);
    close(udp);
}

/* ---- What cannot be opened ---- */

static void test_in_use(void **unused)
{
    struct net_server server;
    char text[64];
    unsigned port;
    int fd = bound_socket(SOCK_DGRAM, &port);

    net_server_start(&server, 0);
    snprintf(text, sizeof(text), "user,forward=%u:80", server.port);
    refuse(text, EADDRINUSE, "cannot listen at TCP port");
    snprintf(text, sizeof(text), "user,forward=udp:%u:80", port);
    refuse(text, EADDRINUSE, "cannot listen at UDP port");
    refuse("user,forward=192.0.2.1:0:80", EADDRNOTAVAIL,
           "cannot listen at TCP port 0 of 192.0.2.1");
    refuse("user,tftp=./is-not-there", ENOTDIR, "tftp=./is-not-there is no folder");
    net_server_stop(&server);
    close(fd);
}

/* ---- Booting from the network ---- */

static void test_tftp(void **unused)
{
    static const char request[] = "\0\1boot.img\0octet";
    char folder[] = P_tmpdir "/doppel-net-XXXXXX", path[64], text[128];
    struct net_packet p;
    FILE *file;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/boot.img", folder);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs("a boot loader", file);
    fclose(file);
    snprintf(text, sizeof(text), "user,tftp=%s,bootfile=boot.img", folder);
    begin(text);
    net_guest_udp(&guest, GATEWAY, 2000, 69, request, sizeof(request));
    net_guest_expect(&guest, &p, IP_UDP, 2000);
    assert_int_equal(p.size, 4 + 13);
    assert_memory_equal(p.data, "\0\3\0\1a boot loader", p.size);
    net_guest_close(&guest);
    unlink(path);
    rmdir(folder);
}

/* A guest that is shut in reaches nobody, but is reached by its forwards. */
static void test_restrict(void **unused)
{
    static const uint8_t question[] = "x";
    struct net_packet p;
    struct net_tcp tcp;
    unsigned port;
    int udp = bound_socket(SOCK_DGRAM, &port), fd;
    char data[8];

    net_guest_open(&guest, loop, "user,restrict=on,forward=0:80", 1, 0);
    net_guest_dhcp(&guest);
    net_guest_udp(&guest, GATEWAY, 5000, port, question, 1);
    fd = dial(SOCK_STREAM, net_forward_port(guest.net, 0));
    net_tcp_accept(&tcp, &guest, 80);
    /* The datagram was before, and has gone nowhere. */
    assert_int_equal(recv(udp, data, sizeof(data), MSG_DONTWAIT), -1);
    net_tcp_end(&tcp);
    assert_int_equal(recv(fd, data, 1, 0), 0);
    close(fd);
    while (net_guest_packet(&guest, &p, 0))
        assert_int_not_equal(p.protocol, IP_UDP);
    net_guest_close(&guest);
    close(udp);
}

/* Two networks in one process do not disturb each other. */
static void test_two(void **unused)
{
    static struct net_guest other;
    struct net_server server;

    net_server_start(&server, 0);
    net_guest_open(&other, loop, "user,net=10.9.0.0/16", 2, 0);
    begin("user");
    ask(2000, server.port);
    net_guest_dhcp(&other);
    assert_int_equal(other.address, IP4(10, 9, 0, 15));
    ask(2001, server.port);
    net_guest_close(&other);
    ask(2002, server.port);
    net_guest_close(&guest);
    net_server_stop(&server);
    assert_int_equal(server.served, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_dhcp),
        cmocka_unit_test(test_ping),
        cmocka_unit_test(test_udp),
        cmocka_unit_test(test_connections),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_download),
        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_slow_upload),
        cmocka_unit_test(test_forward_tcp),
        cmocka_unit_test(test_forward_udp),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_forward_ipv6),
        cmocka_unit_test(test_few_descriptors),
        cmocka_unit_test(test_frames_that_open),
        cmocka_unit_test(test_tftp),
        cmocka_unit_test(test_restrict),
        cmocka_unit_test(test_two),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

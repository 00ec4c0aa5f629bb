/*
 * Networks over a Unix socket in QEMU's framing, whose other side this test plays: honest, slow,
 * gone, back again, and lying.
 */
#include "test.h"

#include "base/loop.h"
#include "base/time.h"
#include "base/util.h"
#include "net/net.h"
#include "net/options.h"

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

#define LONG_MS 60000

static struct loop *loop;
static char path[64];
static int listener = -1, peer = -1;
static int event;
static struct net *net;
static uint64_t begun;         /* the test: before the first connection; nanoseconds */
static _Atomic int link_state; /* 1: up, -1: down, as was said last */

static void on_ready(void *opaque)
{
    eventfd_write(event, 1);
}

static void on_link(void *opaque, bool up)
{
    link_state = up ? 1 : -1;
    eventfd_write(event, 1);
}

static void wait_event(void)
{
    struct pollfd pfd = {event, POLLIN, 0};
    eventfd_t count;

    assert_int_equal(poll(&pfd, 1, LONG_MS), 1);
    eventfd_read(event, &count);
}

static void listen_again(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    strcpy(at.sun_path, path);
    unlink(path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 8), 0);
}

static struct net *try_open(struct error *err)
{
    static struct net_host host;
    struct net_options options;
    char text[80];
    struct net *opened;

    host = (struct net_host){.loop = loop};
    snprintf(text, sizeof(text), "stream=%s", path);
    assert_int_equal(net_options_parse(text, &options, err), 0);
    opened = net_open(&options, &host, err);
    net_options_free(&options);
    return opened;
}

static int begin(void **state)
{
    struct net_events events = {.ready = on_ready, .link = on_link};
    struct error err = {0};

    snprintf(path, sizeof(path), P_tmpdir "/doppel-net-stream-%d", getpid());
    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop = loop_create(NULL);
    assert_int_equal(loop_start(loop, NULL), 0);
    listen_again();
    begun = time_now_ns();
    net = try_open(&err);
    if (!net)
        print_error("%s\n", err.text);
    assert_non_null(net);
    peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    net_begin(net, &events, NET_CHECKSUM);
    link_state = 0;
    return 0;
}

static int end(void **state)
{
    net_close(net);
    close(peer);
    close(listener);
    close(event);
    unlink(path);
    loop_destroy(loop);
    return 0;
}

static void send_frame(uint8_t fill, size_t size)
{
    static uint8_t data[NET_FRAME_MOST];
    struct iovec iov = {data, size};

    memset(data, fill, size);
    while (!net_send(net, &iov, 1, NULL))
        wait_event();
}

static void expect_at_peer(uint8_t fill, size_t size)
{
    static uint8_t data[NET_FRAME_MOST];
    uint32_t length;

    assert_int_equal(recv(peer, &length, 4, MSG_WAITALL), 4);
    assert_int_equal(ntohl(length), size);
    assert_int_equal(recv(peer, data, size, MSG_WAITALL), size);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(data[i], fill);
}

static void test_send(void **unused)
{
    static const size_t sizes[] = {14, 60, 1514, 20000, NET_FRAME_MOST};

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        send_frame((uint8_t)i, sizes[i]);
    net_flush(net);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        expect_at_peer((uint8_t)i, sizes[i]);
    /* What is no frame is lost. */
    send_frame(1, 13);
    send_frame(2, 14);
    net_flush(net);
    expect_at_peer(2, 14);
}

/* The peer reads nothing: sending is refused sooner or later, nothing is lost, and all goes on. */
static void *read_later(void *opaque)
{
    const unsigned *count = opaque;

    for (unsigned i = 0; i < *count; i++)
        expect_at_peer((uint8_t)i, i % 2 ? 1000 : 40000);
    return NULL;
}

static void test_full(void **unused)
{
    static uint8_t data[NET_FRAME_MOST];
    struct iovec iov = {data, sizeof(data)};
    unsigned count = 0, refused;
    pthread_t thread;

    for (;; count++) {
        iov.iov_len = count % 2 ? 1000 : 40000;
        memset(data, (int)(count & 255), iov.iov_len);
        if (!net_send(net, &iov, 1, NULL))
            break;
        assert_true(count < 10000);
    }
    refused = count;
    count += 5;
    assert_int_equal(pthread_create(&thread, NULL, read_later, &count), 0);
    for (unsigned i = refused; i < count; i++)
        send_frame((uint8_t)i, i % 2 ? 1000 : 40000);
    net_flush(net);
    pthread_join(thread, NULL);
}

static void send_from_peer(const void *data, uint32_t size)
{
    uint32_t length = htonl(size);

    assert_int_equal(send(peer, &length, 4, MSG_NOSIGNAL), 4);
    assert_int_equal(send(peer, data, size, MSG_NOSIGNAL), size);
}

static size_t wait_next(void)
{
    size_t size;

    while ((size = net_next(net)) == 0)
        wait_event();
    return size;
}

static void test_receive(void **unused)
{
    static uint8_t data[NET_FRAME_MOST], got[NET_FRAME_MOST];
    static const size_t sizes[] = {14, NET_FRAME_MOST, 60, 1514};
    struct iovec iov[2] = {{got, 10}, {got + 10, sizeof(got) - 10}};
    struct net_offload offload;

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        memset(data, (int)i + 1, sizes[i]);
        send_from_peer(data, (uint32_t)sizes[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        assert_int_equal(wait_next(), sizes[i]);
        assert_int_equal(net_next(net), sizes[i]);
        assert_int_equal(net_receive(net, iov, 2, &offload), sizes[i]);
        assert_int_equal(got[0], i + 1);
        assert_int_equal(got[sizes[i] - 1], i + 1);
        assert_int_equal(offload.flags, 0);
    }
    assert_int_equal(net_next(net), 0);
    /* What there is no room for is cut off, and a frame may be dropped. */
    send_from_peer(data, 100);
    send_from_peer(data, 200);
    send_from_peer(data, 300);
    assert_int_equal(wait_next(), 100);
    assert_int_equal(net_receive(net, iov, 1, &offload), 10);
    assert_int_equal(wait_next(), 200);
    assert_int_equal(net_receive(net, NULL, 0, &offload), 0);
    assert_int_equal(wait_next(), 300);
}

/* One byte after the other. */
static void test_dribble(void **unused)
{
    uint8_t bytes[4 + 20] = {0, 0, 0, 20, 7}, got[20];
    struct iovec iov = {got, sizeof(got)};
    struct net_offload offload;

    for (unsigned i = 0; i < sizeof(bytes); i++) {
        assert_int_equal(net_next(net), 0);
        assert_int_equal(send(peer, bytes + i, 1, MSG_NOSIGNAL), 1);
    }
    assert_int_equal(wait_next(), 20);
    assert_int_equal(net_receive(net, &iov, 1, &offload), 20);
    assert_int_equal(got[0], 7);
}

static void wait_link(int state)
{
    while (link_state != state) {
        net_next(net);
        wait_event();
    }
    assert_int_equal(net_up(net), state > 0);
}

/* The other side goes and comes back: the cable is pulled out meanwhile, and what is sent is lost.
 */
static void test_gone(void **unused)
{
    assert_int_equal(net_next(net), 0);
    send(peer, "\0\0\0\100half", 8, MSG_NOSIGNAL);
    close(peer);
    close(listener);
    wait_link(-1);
    for (unsigned i = 0; i < 100; i++)
        send_frame(1, 1514);
    net_flush(net);
    listen_again();
    peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    wait_link(1);
    send_frame(9, 100);
    net_flush(net);
    expect_at_peer(9, 100);
    send_from_peer("fourteen bytes", 14);
    assert_int_equal(wait_next(), 14);
}

/* What is no framing ends the connection. The next one is made later each time: a peer that is
 * there only for moments keeps nobody busy. */
static void test_lies(void **unused)
{
    static const uint32_t lengths[] = {0, 13, NET_FRAME_MOST + 1, UINT32_MAX};

    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        uint32_t length = htonl(lengths[i]);

        assert_int_equal(net_next(net), 0);
        assert_int_equal(send(peer, &length, 4, MSG_NOSIGNAL), 4);
        wait_link(-1);
        close(peer);
        peer = accept(listener, NULL, NULL);
        wait_link(1);
    }
    assert_true(time_now_ns() - begun >= (100 + 200 + 400 + 800) * NS_PER_MS);
}

/* A checksum that is right is said to be; a frame that leaves it undone is sent complete. */
static void test_checksums(void **unused)
{
    uint8_t frame[46] = {
        [12] = 8, [14] = 0x45, [17] = 32, [23] = 17, [35] = 7, [37] = 9, [39] = 12};
    struct net_offload offload = {
        .flags = NET_NEEDS_CHECKSUM, .checksum_start = 34, .checksum_offset = 6};
    struct iovec iov = {frame, sizeof(frame)};
    uint8_t got[4 + 46];

    frame[41] = 17 + 12; /* of the pseudo header: addresses are 0 */
    assert_true(net_send(net, &iov, 1, &offload));
    net_flush(net);
    assert_int_equal(recv(peer, got, sizeof(got), MSG_WAITALL), sizeof(got));
    assert_int_equal(frame[41], 17 + 12); /* the guest's memory stays as it is */
    /* 7, 9, 12 and the pseudo header's 29 */
    assert_int_equal(got[4 + 40] << 8 | got[4 + 41], (uint16_t)~(7 + 9 + 12 + 29));
    send_from_peer(got + 4, 46);
    assert_int_equal(wait_next(), 46);
    net_receive(net, &iov, 1, &offload);
    assert_int_equal(offload.flags, NET_CHECKSUM_VALID);
    got[4 + 45] ^= 1;
    send_from_peer(got + 4, 46);
    assert_int_equal(wait_next(), 46);
    net_receive(net, &iov, 1, &offload);
    assert_int_equal(offload.flags, 0);
}

static void test_nobody(void **unused)
{
    struct error err = {0};

    snprintf(path, sizeof(path), P_tmpdir "/doppel-net-nobody-%d", getpid());
    loop = loop_create(NULL);
    assert_null(try_open(&err));
    assert_int_equal(err.code, ENOENT);
    assert_non_null(strstr(err.text, "start what serves it"));
    loop_destroy(loop);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_send), TEST(test_full), TEST(test_receive),   TEST(test_dribble),
        TEST(test_gone), TEST(test_lies), TEST(test_checksums), cmocka_unit_test(test_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Networks that another process serves, whose process and whose supervisor this test plays: honest,
 * and taken over by a guest.
 */
#include "test.h"

#include "base/loop.h"
#include "net/net.h"
#include "net/options.h"
#include "net/remote_link.h"
#include "net/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONG_MS 60000

static struct loop *loop;
static int link_ends[2];
static int event;
static _Atomic unsigned told; /* lines of the log */

static int give_link(void *opaque, const char *name)
{
    assert_null(name);
    return link_ends[0];
}

static void on_ready(void *opaque)
{
    eventfd_write(event, 1);
}

static void on_link(void *opaque, bool up)
{
    eventfd_write(event, 1);
}

static void tell(void *opaque, enum log_level level, const char *text)
{
    atomic_fetch_add(&told, 1);
}

static int begin(void **unused)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link_ends), 0);
    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop = loop_create(NULL);
    told = 0;
    return loop_start(loop, NULL);
}

static int end(void **unused)
{
    close(link_ends[1]);
    close(event);
    loop_destroy(loop);
    return 0;
}

/* Answers with a connection, whose other end is returned. */
static int answer(void)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(remote_link_answer(link_ends[1], ends[0], NULL), 0);
    close(ends[0]);
    return ends[1];
}

/* *PEER: the process's end of the connection. */
static struct net *open_network(int *peer)
{
    static const struct log log = {.most = LOG_LEVEL_WARNING, .line = tell};
    static struct net_host host;
    struct net_events events = {.ready = on_ready, .link = on_link};
    struct net_options options;
    struct error err = {0};
    struct net *net;

    host = (struct net_host){.loop = loop, .log = &log, .remote = give_link};
    assert_int_equal(net_options_parse("user,isolate", &options, &err), 0);
    *peer = answer();
    net = net_open(&options, &host, &err);
    net_options_free(&options);
    assert_non_null(net);
    assert_int_equal(net_info(net).mtu, 16384); /* as without isolate */
    net_begin(net, &events, NET_CHECKSUM);
    assert_true(remote_link_await(link_ends[1]));
    remote_link_done(link_ends[1]);
    return net;
}

static void wait_up(struct net *net, bool up)
{
    struct pollfd pfd = {event, POLLIN, 0};
    eventfd_t count;

    while (net_up(net) != up) {
        net_next(net); /* which finds a connection broken */
        assert_int_equal(poll(&pfd, 1, LONG_MS), 1);
        eventfd_read(event, &count);
    }
}

/* Sends a frame of the guest's, and sees it come at the other end. */
static void pass_frame(struct net *net, int peer)
{
    uint8_t frame[60] = {1, 2, 3}, got[60];
    struct iovec iov = {frame, sizeof(frame)};
    uint32_t length;
    struct net_offload offload;

    assert_true(net_send(net, &iov, 1, NULL));
    net_flush(net);
    assert_int_equal(recv(peer, &length, sizeof(length), MSG_WAITALL), sizeof(length));
    assert_int_equal(recv(peer, &offload, sizeof(offload), MSG_WAITALL), sizeof(offload));
    assert_int_equal(recv(peer, got, sizeof(got), MSG_WAITALL), sizeof(got));
    assert_memory_equal(got, frame, sizeof(got));
}

/* When the process has died, another one is asked for. */
static void test_again(void **unused)
{
    int peer;
    struct net *net = open_network(&peer);

    pass_frame(net, peer);
    for (unsigned i = 0; i < 3; i++) {
        net_next(net);
        close(peer);
        wait_up(net, false);
        assert_true(remote_link_await(link_ends[1]));
        peer = answer();
        remote_link_done(link_ends[1]);
        wait_up(net, true);
        pass_frame(net, peer);
    }
    net_close(net);
    close(peer);
}

/* Connections that nobody has asked for are closed: however many come, they take no descriptor. */
static void test_unasked(void **unused)
{
    int peer, lowest, extra;
    struct net *net = open_network(&peer);
    char byte;

    lowest = dup(event);
    for (unsigned i = 0; i < 200; i++) {
        extra = answer();
        assert_int_equal(recv(extra, &byte, 1, 0), 0);
        close(extra);
    }
    close(lowest);
    extra = dup(event);
    assert_int_equal(extra, lowest);
    close(extra);
    pass_frame(net, peer);
    assert_int_equal(told, 0);
    net_close(net);
    close(peer);
}

/* What is no answer ends the link, and not the connection. */
static void test_nonsense(void **unused)
{
    int peer;
    struct net *net = open_network(&peer);

    assert_int_equal(send(link_ends[1], "nonsense", 8, MSG_NOSIGNAL), 8);
    for (unsigned i = 0; i < LONG_MS && !told; i++)
        poll(NULL, 0, 1);
    assert_int_equal(told, 1);
    pass_frame(net, peer);
    net_close(net);
    close(peer);
}

/* A process that sends nothing but malformed frames keeps no thread of the card's: there is nothing
 * now, and the card is told to look again. */
static void test_malformed(void **unused)
{
    enum { HEAD = 4 + sizeof(struct net_offload), SIZE = HEAD + NET_FRAME_LEAST, MANY = 1000 };
    static const struct net_offload wrong = {
        .flags = NET_NEEDS_CHECKSUM, .checksum_start = UINT16_MAX, .checksum_offset = UINT16_MAX};
    static uint8_t bytes[MANY][SIZE];
    struct pollfd pfd = {event, POLLIN, 0};
    int peer;
    struct net *net = open_network(&peer);
    eventfd_t count;

    for (unsigned i = 0; i < MANY; i++) {
        bytes[i][3] = NET_FRAME_LEAST;
        if (i < MANY - 1)
            memcpy(bytes[i] + 4, &wrong, sizeof(wrong));
    }
    assert_int_equal(send(peer, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
    assert_int_equal(net_next(net), 0);
    while (net_next(net) == 0) {
        assert_int_equal(poll(&pfd, 1, LONG_MS), 1);
        eventfd_read(event, &count);
    }
    assert_int_equal(net_next(net), NET_FRAME_LEAST);
    net_close(net);
    close(peer);
}

/* A connection that cannot be had now is asked for again, and that is told once. */
static void test_refused(void **unused)
{
    struct error err = {0};
    int peer;
    struct net *net = open_network(&peer);

    error_set(&err, EADDRINUSE, "the port is somebody else's");
    net_next(net);
    close(peer);
    wait_up(net, false);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(remote_link_await(link_ends[1]));
        remote_link_done(link_ends[1]);
        assert_int_equal(remote_link_answer(link_ends[1], -1, &err), 0);
    }
    assert_true(remote_link_await(link_ends[1]));
    assert_int_equal(told, 2); /* that the process has ended, and that there is no other */
    peer = answer();
    remote_link_done(link_ends[1]);
    wait_up(net, true);
    pass_frame(net, peer);
    net_close(net);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_again, begin, end),
        cmocka_unit_test_setup_teardown(test_unasked, begin, end),
        cmocka_unit_test_setup_teardown(test_nonsense, begin, end),
        cmocka_unit_test_setup_teardown(test_malformed, begin, end),
        cmocka_unit_test_setup_teardown(test_refused, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

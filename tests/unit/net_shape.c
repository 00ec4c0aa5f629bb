/*
 * What makes a network worse, and what is written down of it: late, lost and few frames, changes
 * while it runs, and captures. Times are only ever too long, so that a busy host fails nothing.
 */
#include "net_guest.h"
#include "test.h"

#include "base/time.h"
#include "base/util.h"
#include "net/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GATEWAY IP4(10, 0, 2, 2)

static struct loop *loop;
static struct net_guest guest;
static char path[64];

static int setup(void **unused)
{
    loop = loop_create(NULL);
    snprintf(path, sizeof(path), P_tmpdir "/doppel-net-shape-%d", getpid());
    return loop ? loop_start(loop, NULL) : -1;
}

static int teardown(void **unused)
{
    unlink(path);
    loop_destroy(loop);
    return 0;
}

static void change(const char *text)
{
    struct error err = {0};

    if (net_change(guest.net, text, &err) < 0)
        fail_msg("'%s': %s", text, err.text);
}

/* How long the gateway takes to answer, in nanoseconds; it must. */
static uint64_t round_trip(void)
{
    uint64_t start = time_now_ns();

    assert_true(net_guest_arp(&guest, GATEWAY, 60000));
    return time_now_ns() - start;
}

static void test_delay(void **unused)
{
    net_guest_open(&guest, loop, "user,delay=30ms", 1, 0);
    guest.address = IP4(10, 0, 2, 15);
    assert_true(round_trip() >= 30 * NS_PER_MS);
    change("delay=60ms");
    assert_true(round_trip() >= 60 * NS_PER_MS);
    change("delay=60ms,jitter=20ms");
    for (unsigned i = 0; i < 5; i++)
        assert_true(round_trip() >= 40 * NS_PER_MS);
    change("delay=0,jitter=0");
    round_trip();
    net_guest_close(&guest);
}

/* Requests that are on their way at once are answered in the order in which they were sent. */
static void test_order(void **unused)
{
    uint8_t echo[8] = {8};
    struct net_packet p;

    net_guest_open(&guest, loop, "user,delay=5ms,jitter=5ms", 1, 0);
    net_guest_dhcp(&guest);
    for (unsigned i = 0; i < 50; i++) {
        unsigned sum = 0xffffu - 0x0800u - i;

        memcpy(echo, (uint8_t[]){8, 0, (uint8_t)(sum >> 8), (uint8_t)sum, 0, 0, 0, (uint8_t)i}, 8);
        net_guest_ip(&guest, GATEWAY, IP_ICMP, echo, sizeof(echo));
    }
    for (unsigned i = 0; i < 50; i++) {
        net_guest_expect(&guest, &p, IP_ICMP, 0);
        assert_int_equal(p.data[7], i);
    }
    net_guest_close(&guest);
}

/* Sends COUNT requests, and returns how many are answered. The last of them, which must be, tells
 * that no more answers come. */
static unsigned answered(unsigned count)
{
    uint8_t echo[8] = {8, 0, 0xf7, 0xff};
    struct net_packet p;
    unsigned answers = 0;

    for (unsigned i = 0; i < count; i++)
        net_guest_ip(&guest, GATEWAY, IP_ICMP, echo, sizeof(echo));
    change("loss=0");
    memcpy(echo, (uint8_t[]){8, 0, 0xf7, 0xfe, 0, 0, 0, 1}, 8);
    net_guest_ip(&guest, GATEWAY, IP_ICMP, echo, sizeof(echo));
    for (;;) {
        net_guest_expect(&guest, &p, IP_ICMP, 0);
        if (p.data[7] == 1)
            return answers;
        answers++;
    }
}

static void test_loss(void **unused)
{
    unsigned half;

    net_guest_open(&guest, loop, "user", 1, 0);
    net_guest_dhcp(&guest);
    assert_int_equal(answered(100), 100);
    change("loss=100");
    assert_int_equal(answered(100), 0);
    change("loss=50%");
    half = answered(1000); /* 9 standard deviations either way */
    if (half < 350 || half > 650)
        fail_msg("%u of 1000 frames came through, and not half of them", half);
    net_guest_close(&guest);
}

/* What one line carries in a second. */
static void test_rate(void **unused)
{
    static uint8_t data[1400];
    struct net_packet p;
    uint64_t start, took;

    net_guest_open(&guest, loop, "user,rate=2M", 1, 0);
    net_guest_dhcp(&guest);
    start = time_now_ns();
    for (unsigned i = 0; i < 60;
         i++) /* 84,000 bytes: 0.33 s each way, at once in both directions */
        net_guest_udp(&guest, GATEWAY, 1000, 7, data, sizeof(data));
    took = time_now_ns() - start;
    assert_true(took >= 250 * NS_PER_MS); /* the guest is held up, but for 50 ms */
    change("rate=0");
    while (net_guest_packet(&guest, &p, 0)) {}
    net_guest_close(&guest);
}

/* Nothing is forgotten when shaping begins and ends under way. */
static void test_changes(void **unused)
{
    net_guest_open(&guest, loop, "user", 1, 0);
    guest.address = IP4(10, 0, 2, 15);
    for (unsigned i = 0; i < 30; i++) {
        change(i % 3 == 0 ? "delay=1ms" : i % 3 == 1 ? "rate=100M" : "delay=0,rate=0");
        round_trip();
    }
    net_guest_close(&guest);
}

/* What was to be late for long is not, and holds up nothing, once the delay is short. */
static void test_hurry(void **unused)
{
    net_guest_open(&guest, loop, "user,delay=3600s", 1, 0);
    guest.address = IP4(10, 0, 2, 15);
    assert_false(net_guest_arp(&guest, GATEWAY, 0));
    change("delay=1ms");
    round_trip();
    net_guest_close(&guest);
}

/* It is closed while frames wait. */
static void test_close(void **unused)
{
    static uint8_t frame[1000];

    net_guest_open(&guest, loop, "user,delay=1000s", 1, 0);
    for (unsigned i = 0; i < 100; i++)
        net_guest_send_frame(&guest, frame, sizeof(frame), NULL);
    net_guest_close(&guest);
    /* No more than so much waits: then the card does. */
    net_guest_open(&guest, loop, "none,delay=1000s", 1, 0);
    for (unsigned i = 0;; i++) {
        struct iovec iov = {frame, sizeof(frame)};

        if (!net_send(guest.net, &iov, 1, NULL))
            break;
        assert_true(i < 1000000);
    }
    net_guest_close(&guest);
    /* And small ones are reckoned by what they take. */
    net_guest_open(&guest, loop, "none,delay=1000s", 1, 0);
    for (unsigned i = 0;; i++) {
        struct iovec iov = {frame, 14};

        if (!net_send(guest.net, &iov, 1, NULL))
            break;
        assert_true(i < 400000);
    }
    net_guest_close(&guest);
}

/* ---- Captures ---- */

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

/* Counts the frames of a capture, from its first byte to its last, and the bytes in them. */
static unsigned count_frames(size_t *bytes)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    size_t size, at = 24;
    unsigned frames = 0;

    assert_non_null(file);
    size = fread(data, 1, sizeof(data), file);
    fclose(file);
    assert_true(size >= 24);
    assert_int_equal(get32(data), 0xa1b23c4d);
    assert_int_equal(get32(data + 20), 1);
    for (*bytes = 0; at < size; frames++) {
        uint32_t length = get32(data + at + 8);

        assert_true(get32(data + at + 4) < 1000000000);
        assert_int_equal(length, get32(data + at + 12));
        at += 16 + length;
        *bytes += length;
    }
    assert_int_equal(at, size);
    return frames;
}

static void test_capture(void **unused)
{
    struct error err = {0};
    size_t bytes;
    char text[128];

    snprintf(text, sizeof(text), "user,capture=%s", path);
    net_guest_open(&guest, loop, text, 1, 0);
    guest.address = IP4(10, 0, 2, 15);
    round_trip();
    assert_int_equal(count_frames(&bytes), 2);
    assert_int_equal(bytes, 42 + 64);
    change("capture=");
    round_trip();
    assert_int_equal(count_frames(&bytes), 2);
    snprintf(text, sizeof(text), "capture=%s", path);
    change(text);
    assert_int_equal(count_frames(&bytes), 0);
    change("delay=1ms");
    round_trip();
    round_trip();
    assert_int_equal(count_frames(&bytes), 4);
    /* What cannot be had changes nothing. */
    assert_true(net_change(guest.net, "delay=1000s,capture=./is/not/there", &err) < 0);
    assert_non_null(strstr(err.text, "cannot make the capture './is/not/there'"));
    assert_true(net_change(guest.net, "capture=/dev/null", &err) < 0);
    assert_non_null(strstr(err.text, "no regular file"));
    assert_true(net_change(guest.net, text, &err) < 0);
    assert_non_null(strstr(err.text, "somebody else captures"));
    round_trip();
    assert_int_equal(count_frames(&bytes), 6);
    net_guest_close(&guest);
}

/* The disk is full: the capture ends with whole frames, and the network goes on. */
static void test_full(void **unused)
{
    struct error err = {0};
    struct net_options options;

    assert_int_equal(net_options_parse("none,capture=/dev/full", &options, &err), 0);
    assert_null(net_open(&options, &(struct net_host){.loop = loop}, &err));
    net_options_free(&options);
    assert_non_null(strstr(err.text, "no regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delay), cmocka_unit_test(test_order),   cmocka_unit_test(test_loss),
        cmocka_unit_test(test_rate),  cmocka_unit_test(test_changes), cmocka_unit_test(test_close),
        cmocka_unit_test(test_hurry), cmocka_unit_test(test_capture), cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

/*
 * TAP interfaces: what is said where there is none to be had; and where this user may make one,
 * frames in both directions, whose other side is a socket of the host's own.
 */
#include "net_guest.h"
#include "test.h"

#include "base/util.h"
#include "net/bytes.h"
#include "net/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop *loop;

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

static struct net *try_open(const char *text, struct error *err)
{
    static struct net_host host;
    struct net_options options;
    struct net *net;

    host = (struct net_host){.loop = loop};
    assert_int_equal(net_options_parse(text, &options, err), 0);
    net = net_open(&options, &host, err);
    net_options_free(&options);
    return net;
}

static void test_refused(void **unused)
{
    struct error err = {0};

    assert_null(try_open("tap=a-name-that-is-too-long", &err));
    assert_int_equal(err.code, EINVAL);
    assert_non_null(strstr(err.text, "at most 15 bytes"));
    /* The loopback is no TAP interface, whoever asks. */
    assert_null(try_open("tap=lo", &err));
    assert_non_null(strstr(err.text, "network tap=lo: cannot have the interface: "));
    assert_non_null(strchr(err.text, ';')); /* and what is wrong, or to be done */
}

/* Brings the interface up, and binds a socket to it. */
static int host_side(const char *name, uint8_t mac[6])
{
    struct ifreq request = {.ifr_flags = 0};
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(0x88b5));

    assert_true(fd >= 0);
    strcpy(request.ifr_name, name);
    assert_int_equal(ioctl(fd, SIOCGIFHWADDR, &request), 0);
    memcpy(mac, request.ifr_hwaddr.sa_data, 6);
    assert_int_equal(ioctl(fd, SIOCGIFINDEX, &request), 0);
    at.sll_ifindex = request.ifr_ifindex;
    request.ifr_flags = IFF_UP;
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

static void test_frames(void **unused)
{
    static struct net_guest guest;
    static const uint8_t payload[100] = {1, 2, 3};
    struct error err = {0};
    uint8_t frame[2048], host_mac[6];
    char name[16], text[32];
    struct net *net;
    int fd;

    snprintf(name, sizeof(name), "doppel%u", (unsigned)getpid() % 100000000u);
    snprintf(text, sizeof(text), "tap=%s", name);
    net = try_open(text, &err);
    if (!net) {
        print_message("no interface may be made here: %s\n", err.text);
        skip();
    }
    net_close(net);
    net_guest_open(&guest, loop, text, 1, NET_CHECKSUM);
    assert_int_equal(net_info(guest.net).mtu, 1500);
    fd = host_side(name, host_mac);
    net_guest_send(&guest, host_mac, 0x88b5, payload, sizeof(payload));
    assert_int_equal(recv(fd, frame, sizeof(frame), 0), 114);
    assert_memory_equal(frame + 14, payload, sizeof(payload));
    memcpy(frame, guest.mac, 6);
    memcpy(frame + 6, host_mac, 6);
    frame[14] = 9;
    assert_int_equal(send(fd, frame, 114, 0), 114);
    do { /* the host says some things of its own */
        assert_true(net_guest_receive(&guest, 60000));
    } while (get16(guest.frame + 12) != 0x88b5);
    assert_int_equal(guest.size, 114);
    assert_int_equal(guest.frame[14], 9);
    close(fd);
    net_guest_close(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_frames),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

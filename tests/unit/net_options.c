/*
 * What a user says of a network, as text: each word, and what is said of words that are wrong.
 */
#include "test.h"

#include "base/time.h"
#include "base/util.h"
#include "net/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct net_options parse(const char *text)
{
    struct net_options options;
    struct error err = {0};
    int ret = net_options_parse(text, &options, &err);

    if (ret < 0)
        print_error("'%s': %s\n", text, err.text);
    assert_int_equal(ret, 0);
    return options;
}

static void test_kinds(void **unused)
{
    static const struct {
        const char *text, *target;
        enum net_kind kind;
    } cases[] = {
        {"none", NULL, NET_NONE},
        {"user", NULL, NET_USER},
        {"tap=tap0", "tap0", NET_TAP},
        {"switch=lan", "lan", NET_SWITCH},
        {"stream=/run/a,,b.sock", "/run/a,b.sock", NET_STREAM},
        {"stream=a=b", "a=b", NET_STREAM},
        {"vhost-user=v.sock", "v.sock", NET_VHOST_USER},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_options o = parse(cases[i].text);

        assert_int_equal(o.kind, cases[i].kind);
        if (cases[i].target)
            assert_string_equal(o.target, cases[i].target);
        else
            assert_null(o.target);
        assert_int_equal(
            strncmp(cases[i].text, net_kind_name(o.kind), strlen(net_kind_name(o.kind))), 0);
        net_options_free(&o);
        assert_null(o.target);
    }
}

static void test_defaults(void **unused)
{
    struct net_options o = parse("user");

    assert_false(o.has_mac || o.isolate || o.no_ipv6 || o.restricted);
    assert_true(o.mtu == 16384 && o.queues == 0 && o.forwards == 0);
    assert_null(o.hostname);
    assert_null(o.capture);
    assert_null(o.tftp);
    assert_null(o.bootfile);
    assert_int_equal(o.network, 0x0a000200);
    assert_int_equal(o.mask, 0xffffff00);
    assert_int_equal(o.host, 0x0a000202);
    assert_int_equal(o.dns, 0x0a000203);
    assert_int_equal(o.dhcp, 0x0a00020f);
    assert_true(o.shape.delay == 0 && o.shape.jitter == 0 && o.shape.loss == 0 &&
                o.shape.rate == 0);
    net_options_free(&o);
}

static void test_all(void **unused)
{
    struct net_options o =
        parse("user,mac=52:54:00:aB:cd:0f,mtu=9000,queues=4,hostname=web-1,delay=10ms,jitter=500us,"
              "loss=1.5%,rate=10M,capture=a,,b.pcap,isolate=on,net=192.168.0.0/16,host=192.168.1.1,"
              "dns=192.168.1.2,dhcp=192.168.9.9,ipv6=off,tftp=boot,bootfile=pxe,restrict");

    assert_true(o.has_mac && o.isolate && o.no_ipv6 && o.restricted);
    assert_memory_equal(o.mac, ((uint8_t[]){0x52, 0x54, 0, 0xab, 0xcd, 0x0f}), 6);
    assert_int_equal(o.mtu, 9000);
    assert_int_equal(o.queues, 4);
    assert_string_equal(o.hostname, "web-1");
    assert_int_equal(o.shape.delay, 10 * NS_PER_MS);
    assert_int_equal(o.shape.jitter, 500 * NS_PER_US);
    assert_int_equal(o.shape.loss, 15000);
    assert_int_equal(o.shape.rate, 10000000);
    assert_string_equal(o.capture, "a,b.pcap");
    assert_int_equal(o.mask, 0xffff0000);
    assert_int_equal(o.host, 0xc0a80101);
    assert_int_equal(o.dns, 0xc0a80102);
    assert_int_equal(o.dhcp, 0xc0a80909);
    assert_string_equal(o.tftp, "boot");
    assert_string_equal(o.bootfile, "pxe");
    net_options_free(&o);
}

static void test_forwards(void **unused)
{
    static const struct {
        const char *text;
        struct net_forward want;
    } cases[] = {
        {"user,forward=8080:80", {.address = 0x7f000001, .port = 8080, .guest_port = 80}},
        {"user,forward=tcp:8080:80", {.address = 0x7f000001, .port = 8080, .guest_port = 80}},
        {"user,forward=udp:53:5353",
         {.udp = true, .address = 0x7f000001, .port = 53, .guest_port = 5353}},
        {"user,forward=0.0.0.0:0:65535", {.guest_port = 65535}},
        {"user,forward=udp:192.168.1.5:65535:1",
         {.udp = true, .address = 0xc0a80105, .port = 65535, .guest_port = 1}},
        {"user,forward=[::1]:8080:80",
         {.ipv6 = true,
          .address = 0x7f000001,
          .port = 8080,
          .guest_port = 80,
          .address6 = {[15] = 1}}},
        {"user,forward=tcp:[fd00::2]:0:80",
         {.ipv6 = true, .address = 0x7f000001, .guest_port = 80, .address6 = {0xfd, [15] = 2}}},
    };
    struct net_options o;

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        o = parse(cases[i].text);
        assert_int_equal(o.forwards, 1);
        assert_int_equal(o.forward[0].udp, cases[i].want.udp);
        assert_int_equal(o.forward[0].ipv6, cases[i].want.ipv6);
        assert_memory_equal(o.forward[0].address6, cases[i].want.address6, 16);
        assert_int_equal(o.forward[0].address, cases[i].want.address);
        assert_int_equal(o.forward[0].port, cases[i].want.port);
        assert_int_equal(o.forward[0].guest_port, cases[i].want.guest_port);
        net_options_free(&o);
    }
    o = parse("user,forward=1:2,mtu=1500,forward=udp:3:4");
    assert_int_equal(o.forwards, 2);
    assert_int_equal(o.forward[1].guest_port, 4);
    net_options_free(&o);
}

static void test_numbers(void **unused)
{
    static const struct {
        const char *text;
        struct net_shape want;
    } cases[] = {
        {"none,delay=7", {.delay = 7 * NS_PER_MS}},
        {"none,delay=0.25ms", {.delay = 250 * NS_PER_US}},
        {"none,delay=1.5s", {.delay = 1500 * NS_PER_MS}},
        {"none,delay=3600s", {.delay = 3600 * NS_PER_S}},
        {"none,jitter=0", {.jitter = 0}},
        {"none,loss=100", {.loss = 1000000}},
        {"none,loss=0.0001%", {.loss = 1}},
        {"none,rate=1000", {.rate = 1000}},
        {"none,rate=1.5M", {.rate = 1500000}},
        {"none,rate=2G", {.rate = 2000000000}},
        {"none,rate=512K", {.rate = 512000}},
        {"none,rate=0", {.rate = 0}},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_options o = parse(cases[i].text);

        assert_int_equal(o.shape.delay, cases[i].want.delay);
        assert_int_equal(o.shape.jitter, cases[i].want.jitter);
        assert_int_equal(o.shape.loss, cases[i].want.loss);
        assert_int_equal(o.shape.rate, cases[i].want.rate);
        net_options_free(&o);
    }
}

/* Each wrong text, and the words that the message must have. */
static void test_wrong(void **unused)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "there is no network ''"},
        {"bridge", "there is no network 'bridge': it is user"},
        {"user=x", "nothing follows 'user'"},
        {"tap", "write tap=NAME"},
        {"tap=", "write tap=NAME"},
        {"switch=a.b", "a switch's name is of letters"},
        {"user,", "there is no setting ''"},
        {"user,colour=red", "there is no setting 'colour'"},
        {"tap=x,forward=1:2", "'tap=x': forward is not for tap"},
        {"vhost-user=x,delay=1", "delay is not for vhost-user"},
        {"user,mtu=1500,mtu=1500", "mtu is given twice"},
        {"user,mtu", "mtu= needs a value"},
        {"user,mtu=67", "mtu= must be a number from 68 to 65535, not '67'"},
        {"user,mtu=65536", "mtu= must be"},
        {"user,mtu=1500x", "mtu= must be"},
        {"user,queues=0", "queues= must be a number from 1 to 15"},
        {"user,mac=52:54:00:12:34", "mac= must be six pairs"},
        {"user,mac=52:54:00:12:34:5", "mac= must be six pairs"},
        {"user,mac=52:54:00:12:34:5g", "mac= must be six pairs"},
        {"user,mac=52:54:00:12:34:567", "mac= must be six pairs"},
        {"user,mac=5:254:00:12:34:56", "mac= must be six pairs"},
        {"user,mac=53:54:00:12:34:56", "the first byte is even"},
        {"user,hostname=-a", "hostname= must be letters"},
        {"user,hostname=a_b", "hostname= must be letters"},
        {"user,delay=5m", "delay= must be a time"},
        {"user,delay=-1", "delay= must be a time"},
        {"user,delay=1.", "delay= must be a time"},
        {"user,delay=3601s", "delay= must be a time"},
        {"user,delay=99999999999999999999", "delay= must be a time"},
        {"user,loss=101", "loss= must be percents"},
        {"user,loss=100.1", "loss= must be percents"},
        {"user,rate=999", "rate= must be bits a second"},
        {"user,rate=10T", "rate= must be bits a second"},
        {"user,capture=", "capture= needs a value"},
        {"user,isolate=yes", "isolate= must be on or off"},
        {"user,forward=80", "forward= must be [tcp:|udp:]"},
        {"user,forward=80:0", "forward= must be"},
        {"user,forward=80:65536", "forward= must be"},
        {"user,forward=1.2.3:80:80", "forward= must be"},
        {"user,forward=sctp:80:80", "forward= must be"},
        {"user,forward=::1:80:80", "forward= must be"},
        {"user,forward=[::1:80:80", "forward= must be"},
        {"user,forward=[::1]80:80", "forward= must be"},
        {"user,forward=[::g]:80:80", "forward= must be"},
        {"user,forward=[127.0.0.1]:80:80", "forward= must be"},
        {"user,forward=[]:80:80", "forward= must be"},
        {"user,forward=udp:[::1]:80:80", "for TCP only"},
        {"user,forward=[::1]:80:80,ipv6=off", "and ipv6=off"},
        {"user,net=10.0.2.0", "net= must be an IPv4 network"},
        {"user,net=10.0.2.0/30", "net= must be an IPv4 network"},
        {"user,net=10.0.2.0/7", "net= must be an IPv4 network"},
        {"user,net=10.0.2.1/24", "the bits behind its mask are 0"},
        {"user,host=10.0.3.2", "the address of host= is not in net="},
        {"user,dhcp=10.0.2.255", "the address of dhcp= is not in net="},
        {"user,dns=10.0.2.2", "host= and dns= are the same address"},
        {"user,dns=fec0::3", "dns= must be an IPv4 address"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_options options;
        struct error err = {0};
        int ret = net_options_parse(cases[i].text, &options, &err);

        if (ret != -EINVAL || !strstr(err.text, cases[i].words))
            fail_msg("'%s' gives %d: %s", cases[i].text, ret, err.text);
        assert_null(options.target);
        assert_null(options.forward);
    }
}

static void test_most_forwards(void **unused)
{
    char text[64 * 16 + 64] = "user";
    struct net_options options;
    struct error err = {0};

    for (unsigned i = 0; i < NET_FORWARDS_MOST; i++)
        strcat(text, ",forward=0:1");
    options = parse(text);
    assert_int_equal(options.forwards, NET_FORWARDS_MOST);
    net_options_free(&options);
    strcat(text, ",forward=0:1");
    assert_int_equal(net_options_parse(text, &options, &err), -EINVAL);
    assert_non_null(strstr(err.text, "64 forwards are the most"));
}

static void test_change(void **unused)
{
    struct net_shape shape = {.delay = 5, .loss = 7};
    struct error err = {0};
    char *capture = NULL;

    assert_int_equal(net_options_change("loss=2,rate=1M", &shape, &capture, &err), 0);
    assert_true(shape.delay == 5 && shape.loss == 20000 && shape.rate == 1000000);
    assert_null(capture);
    assert_int_equal(net_options_change("capture=x", &shape, &capture, &err), 0);
    assert_string_equal(capture, "x");
    free(capture);
    assert_int_equal(net_options_change("delay=0,capture=", &shape, &capture, &err), 0);
    assert_string_equal(capture, "");
    free(capture);
    assert_int_equal(shape.delay, 0);
    assert_int_equal(net_options_change("delay=9,mtu=1500", &shape, &capture, &err), -EINVAL);
    assert_non_null(strstr(err.text, "mtu is not for a network that runs"));
    assert_int_equal(shape.delay, 0);
    assert_int_equal(net_options_change("capture=,capture=", &shape, &capture, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),   cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all),     cmocka_unit_test(test_forwards),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_change),  cmocka_unit_test(test_most_forwards),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Network cards through the library: what descriptions are refused, settings that change while the
 * machine is there, and ports that the host chooses.
 */
#include "test.h"

#include "ctl/doppel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "flat_kernel.h"

static char kernel[] = P_tmpdir "/doppel-nic-XXXXXX";

/* A machine with these devices, whose guest does nothing; NULL, and ERR says why. */
static struct doppel_vm *make(const char *const *devices, struct doppel_error *err)
{
    struct doppel_config config;

    doppel_config_init(&config);
    config.memory = 16 << 20;
    config.kernel = kernel;
    config.devices = devices;
    config.name = "nic-test";
    return doppel_create(&config, err);
}

static struct doppel_vm *make_good(const char *const *devices)
{
    struct doppel_error err = {0};
    struct doppel_vm *vm = make(devices, &err);

    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

static int set_up(void **state)
{
    const uint8_t code[] = {0xF4, 0xEB, 0xFD}; /* hlt; jmp */

    write_flat_kernel(kernel, code, sizeof(code));
    return 0;
}

static int tear_down(void **state)
{
    return unlink(kernel);
}

static void test_refused(void **state)
{
    static const struct {
        const char *device, *says;
    } cases[] = {
        {"net", "net,to=user"},
        {"net,mtu=1500,to=none", "net,to=user"},
        {"net,to=", "network"},
        {"net,to=nowhere", "nowhere"},
        {"net,to=none,slot=40", "slot"},
        {"net,to=none,delay=never", "delay"},
        {"net,to=none,queues=16", "queues"},
        {"net,to=user,forward=80", "forward"},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *const devices[] = {cases[i].device, NULL};
        struct doppel_error err = {0};

        assert_null(make(devices, &err));
        assert_non_null(strstr(err.text, cases[i].says));
    }
}

static void test_change(void **state)
{
    static const char *const devices[] = {"net,to=none", "net,to=none,delay=20ms,slot=9", NULL};
    struct doppel_vm *vm = make_good(devices);
    struct doppel_error err = {0};

    assert_int_equal(doppel_change_network(vm, 0, "delay=5ms,loss=1.5", &err), 0);
    assert_int_equal(doppel_start(vm, &err), 0);
    assert_int_equal(doppel_change_network(vm, 1, "delay=0,rate=10M", &err), 0);
    assert_int_equal(doppel_change_network(vm, 1, "delay=often", &err), -EINVAL);
    assert_non_null(strstr(err.text, "often"));
    assert_int_equal(doppel_change_network(vm, 1, "mtu=1500", NULL),
                     -EINVAL); /* not while it runs */
    assert_int_equal(doppel_change_network(vm, 1, "capture=/nonexistent/file", NULL), -ENOENT);
    assert_int_equal(doppel_change_network(vm, 2, "delay=1", &err), -ENODEV);
    assert_non_null(strstr(err.text, "2"));
    doppel_destroy(vm);
}

static void test_forward_port(void **state)
{
    static const char *const devices[] = {"net,to=none", "net,to=user,forward=0:80", NULL};
    struct doppel_vm *vm = make_good(devices);
    unsigned port = doppel_forward_port(vm, 1, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int sock = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(port > 0 && port < 65536);
    assert_int_equal(connect(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    close(sock);
    assert_int_equal(doppel_forward_port(vm, 1, 1), 0);
    assert_int_equal(doppel_forward_port(vm, 0, 0), 0);
    assert_int_equal(doppel_forward_port(vm, 7, 0), 0);
    doppel_destroy(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_change),
        cmocka_unit_test(test_forward_port),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

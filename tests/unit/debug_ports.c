/*
 * The small devices: debug exit, debug console, test device, and system control port A.
 */
#include "test.h"

#include "dev/pc/debug_console.h"
#include "dev/pc/debug_exit.h"
#include "dev/pc/port92.h"
#include "dev/pc/test_device.h"

#include <stdlib.h>
#include <string.h>

#include "dev_rig.h"

static void note_status(void *opaque, int status)
{
    *(int *)opaque = status;
}

static void test_debug_exit(void **unused)
{
    struct rig *rig = rig_create();
    int status = -1;
    struct dev *dev = debug_exit_create(rig->bus, note_status, &status, NULL);

    assert_int_equal(rig_in(rig, 0xF4), 0);
    assert_int_equal(status, -1);
    rig_out(rig, 0xF4, 0);
    assert_int_equal(status, 1);
    rig_out(rig, 0xF4, 0x10);
    assert_int_equal(status, 33);
    bus_write(rig->bus, BUS_PORT, 0xF4, 4, 0xFFFFFFFF);
    assert_true(status > 0);
    dev->ops->free(dev);
    rig_destroy(rig);
}

struct heard {
    char text[1024];
    size_t size;
    unsigned calls;
};

static void hear(void *opaque, const void *data, size_t size)
{
    struct heard *heard = opaque;

    assert_true(heard->size + size < sizeof(heard->text));
    memcpy(heard->text + heard->size, data, size);
    heard->size += size;
    heard->calls++;
}

static void test_debug_console(void **unused)
{
    struct rig *rig = rig_create();
    struct heard heard = {0};
    const struct burst_backend backend = {.output = hear, .opaque = &heard};
    struct dev *dev = debug_console_create(rig->bus, rig->clock, &backend, NULL);

    assert_int_equal(rig_in(rig, 0xE9), 0xE9);
    for (const char *c = "hello"; *c; c++)
        rig_out(rig, 0xE9, (uint8_t)*c);
    assert_int_equal(heard.calls, 0);
    fake_clock_advance(rig->clock, 1000000);
    assert_int_equal(heard.calls, 1);
    assert_string_equal(heard.text, "hello");
    rig_out(rig, 0xE9, '!');
    debug_console_flush(dev);
    assert_string_equal(heard.text, "hello!");
    rig_out(rig, 0xE9, '?');
    dev->ops->free(dev); /* loses nothing */
    assert_string_equal(heard.text, "hello!?");
    rig_destroy(rig);
}

static void test_test_device(void **unused)
{
    struct rig *rig = rig_create();
    struct dev *dev = test_device_create(rig->bus, rig_set, rig, NULL);

    /* Accesses of any width to the same four bytes. */
    bus_write(rig->bus, BUS_PORT, 0xE0, 4, 0x44332211);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xE0, 4), 0x44332211);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xE0, 1), 0x11);
    bus_write(rig->bus, BUS_PORT, 0xE1, 2, 0xBBAA);
    bus_write(rig->bus, BUS_PORT, 0xE3, 1, 0xCC);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xE0, 4), 0xCCBBAA11);
    bus_write(rig->bus, BUS_PORT, 0xE4, 4, 0x1000); /* a page to be flushed */

    bus_write(rig->bus, BUS_PORT, 0x200E, 1, 1);
    assert_true(rig->level[14]);
    bus_write(rig->bus, BUS_PORT, 0x200E, 1, 0);
    assert_false(rig->level[14]);
    bus_write(rig->bus, BUS_PORT, 0x2000, 4, 0x00020001); /* four lines at once */
    assert_true(rig->level[0] && !rig->level[1] && rig->level[2] && !rig->level[3]);

    bus_write(rig->bus, BUS_MMIO, 0xFF000000, 8, 0x8877665544332211);
    bus_write(rig->bus, BUS_MMIO, 0xFF000003, 2, 0xBEEF);
    assert_int_equal(bus_read(rig->bus, BUS_MMIO, 0xFF000000, 8), 0x887766BEEF332211);
    bus_write(rig->bus, BUS_MMIO, 0xFF00FFFC, 4, 0x12345678);
    assert_int_equal(bus_read(rig->bus, BUS_MMIO, 0xFF00FFFE, 2), 0x1234);

    rig_reset(rig, dev);
    assert_false(rig->level[0] || rig->level[2]);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xE0, 4), 0);
    assert_int_equal(bus_read(rig->bus, BUS_MMIO, 0xFF00FFFC, 4), 0);
    dev->ops->free(dev);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xE0, 1), 0xFF);
    rig_destroy(rig);
}

static void test_port92(void **unused)
{
    struct rig *rig = rig_create();
    struct dev *dev = port92_create(rig->bus, rig_line(rig, 0), NULL);

    assert_int_equal(rig_in(rig, 0x92), 0x02);
    rig_out(rig, 0x92, 0x00);
    assert_int_equal(rig_in(rig, 0x92), 0x00);
    assert_int_equal(rig->edges[0], 0);
    rig_out(rig, 0x92, 0x03);
    assert_int_equal(rig->edges[0], 1);
    rig_reset(rig, dev);
    assert_int_equal(rig_in(rig, 0x92), 0x02);
    dev->ops->free(dev);
    rig_destroy(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_debug_exit),
        cmocka_unit_test(test_debug_console),
        cmocka_unit_test(test_test_device),
        cmocka_unit_test(test_port92),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

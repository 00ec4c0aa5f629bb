/*
 * The bus: claims, dispatch, and splitting of wide and straddling accesses.
 */
#include "test.h"

#include "base/util.h"
#include "bus/bus.h"

#include <errno.h>
#include <string.h>

/* A device of bytes that remembers the sizes it was accessed with. */
struct bytes {
    uint8_t byte[64];
    unsigned sizes[16], accesses;
};

static uint64_t bytes_read(void *dev, uint64_t offset, unsigned size)
{
    struct bytes *bytes = dev;
    uint64_t value = UINT64_MAX; /* the high part is to be ignored */
    assert_true(offset + size <= sizeof(bytes->byte));
    bytes->sizes[bytes->accesses++ % 16] = size;
    for (unsigned i = size; i-- > 0;)
        value = value << 8 | bytes->byte[offset + i];
    return value;
}

static void bytes_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct bytes *bytes = dev;
    assert_true(offset + size <= sizeof(bytes->byte));
    assert_true(size == 8 || value >> (8 * size) == 0);
    bytes->sizes[bytes->accesses++ % 16] = size;
    for (unsigned i = 0; i < size; i++)
        bytes->byte[offset + i] = (uint8_t)(value >> (8 * i));
}

static const struct bus_ops narrow = {bytes_read, bytes_write, 0};
static const struct bus_ops four = {bytes_read, bytes_write, 4};
static const struct bus_ops wide = {bytes_read, bytes_write, 8};

static void test_claims(void **unused)
{
    struct bytes dev = {0};
    struct error err;
    struct bus *bus = bus_create(&err);
    (void)unused;
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x60, 4, "a", &narrow, &dev, &err), 0);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x63, 1, "b", &narrow, &dev, &err), -EBUSY);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x5F, 2, "b", &narrow, &dev, &err), -EBUSY);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x50, 0x20, "b", &narrow, &dev, &err), -EBUSY);
    assert_non_null(strstr(err.text, "b"));
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x64, 1, "b", &narrow, &dev, &err), 0);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x5F, 1, "b", &narrow, &dev, &err), 0);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0xFFFF, 2, "b", &narrow, &dev, &err), -EINVAL);
    assert_int_equal(bus_claim(bus, BUS_MMIO, UINT64_MAX, 2, "b", &narrow, &dev, &err), -EINVAL);
    assert_int_equal(bus_claim(bus, BUS_MMIO, 0x60, 0, "b", &narrow, &dev, &err), -EINVAL);
    assert_int_equal(bus_claim(bus, BUS_MMIO, 0x60, 4, "mmio", &narrow, &dev, &err), 0);

    bus_release(bus, BUS_PORT, 0x61); /* no range starts there */
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x63, 1, "b", &narrow, &dev, &err), -EBUSY);
    bus_release(bus, BUS_PORT, 0x60);
    assert_int_equal(bus_claim(bus, BUS_PORT, 0x63, 1, "b", &narrow, &dev, &err), 0);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(bus_claim(bus, BUS_PORT, 0x1000 - 2 * i, 1, "c", &narrow, &dev, &err), 0);
    bus_destroy(bus);
}

static void test_splits(void **unused)
{
    struct bytes a = {0}, b = {0}, c = {0};
    struct bus *bus = bus_create(NULL);
    (void)unused;
    bus_claim(bus, BUS_MMIO, 0x1000, 64, "a", &wide, &a, NULL);
    bus_claim(bus, BUS_MMIO, 0x1040, 64, "b", &four, &b, NULL);
    bus_claim(bus, BUS_PORT, 0x40, 4, "c", &narrow, &c, NULL);

    bus_write(bus, BUS_MMIO, 0x1000, 8, 0x8877665544332211);
    assert_int_equal(a.accesses, 1);
    assert_int_equal(a.sizes[0], 8);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0x1000, 8), 0x8877665544332211);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0x1003, 2), 0x5544);

    /* Over the end of one range into the next, which takes four bytes at most. */
    a.accesses = b.accesses = 0;
    bus_write(bus, BUS_MMIO, 0x103E, 8, 0x8877665544332211);
    assert_int_equal(a.accesses, 1);
    assert_int_equal(a.sizes[0], 2);
    assert_int_equal(b.accesses, 2);
    assert_int_equal(b.sizes[0], 4);
    assert_int_equal(b.sizes[1], 2);
    assert_int_equal(a.byte[63], 0x22);
    assert_int_equal(b.byte[0], 0x33);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0x103E, 8), 0x8877665544332211);

    /* A wide port access to a byte device, running out into nothing. */
    bus_write(bus, BUS_PORT, 0x42, 4, 0xDDCCBBAA);
    assert_int_equal(c.accesses, 2);
    assert_int_equal(c.byte[2], 0xAA);
    assert_int_equal(c.byte[3], 0xBB);
    assert_int_equal(c.byte[4], 0);
    assert_int_equal(bus_read(bus, BUS_PORT, 0x42, 4), 0xFFFFBBAA);
    assert_int_equal(bus_read(bus, BUS_PORT, 0x3E, 4), 0x0000FFFF);
    bus_destroy(bus);
}

static void test_unclaimed(void **unused)
{
    struct bus *bus = bus_create(NULL);
    (void)unused;
    assert_int_equal(bus_read(bus, BUS_PORT, 0x80, 1), 0xFF);
    assert_int_equal(bus_read(bus, BUS_MMIO, 0xFEE00000, 4), 0xFFFFFFFF);
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX - 3, 8), UINT64_MAX);
    bus_write(bus, BUS_MMIO, UINT64_MAX - 3, 8, 0);
    bus_destroy(bus);
}

static void test_last_address(void **unused)
{
    struct bytes dev = {.byte = {0x12, 0x34}};
    struct bus *bus = bus_create(NULL);
    (void)unused;
    assert_int_equal(bus_claim(bus, BUS_MMIO, UINT64_MAX - 1, 2, "end", &wide, &dev, NULL), 0);
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX - 1, 2), 0x3412);
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_MAX - 2, 4), 0xFF3412FF);
    bus_destroy(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_unclaimed),
        cmocka_unit_test(test_last_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The test device, as test kernels know it from QEMU's pc-testdev.
 */
#include "dev/pc/test_device.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ECHO_PORT   0xE0
#define ECHO_SIZE   4
#define FLUSH_PORT  0xE4
#define FLUSH_SIZE  4
#define LINE_PORT   0x2000
#define MEMORY_BASE 0xFF000000u
#define MEMORY_SIZE 0x10000

struct test_device {
    struct dev dev;
    struct bus *bus;
    void (*lines)(void *opaque, unsigned n, bool level);
    void *opaque;
    uint32_t raised; /* the lines that are high */
    uint8_t echo[ECHO_SIZE];
    uint8_t memory[MEMORY_SIZE];
};

static uint64_t echo_read(void *dev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, ((struct test_device *)dev)->echo + offset, size);
    return value;
}

static void echo_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    memcpy(((struct test_device *)dev)->echo + offset, &value, size);
}

static uint64_t memory_read(void *dev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, ((struct test_device *)dev)->memory + offset, size);
    return value;
}

static void memory_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    memcpy(((struct test_device *)dev)->memory + offset, &value, size);
}

static void set_line(struct test_device *d, unsigned n, bool level)
{
    d->raised = (d->raised & ~(1u << n)) | (uint32_t)level << n;
    d->lines(d->opaque, n, level);
}

static void line_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    set_line(dev, (unsigned)offset, value != 0);
}

static uint64_t write_only(void *dev, uint64_t offset, unsigned size)
{
    return UINT64_MAX;
}

static void ignore(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
}

static const struct bus_ops echo_ports = {.read = echo_read, .write = echo_write, .max_size = 4};
static const struct bus_ops flush_ports = {.read = write_only, .write = ignore, .max_size = 4};
static const struct bus_ops line_ports = {.read = write_only, .write = line_write};
static const struct bus_ops memory_ops = {
    .read = memory_read, .write = memory_write, .max_size = 8};

static const struct {
    enum bus_space space;
    uint32_t base, size;
    const struct bus_ops *ops;
} ranges[] = {
    {BUS_PORT, ECHO_PORT, ECHO_SIZE, &echo_ports},
    {BUS_PORT, FLUSH_PORT, FLUSH_SIZE, &flush_ports},
    {BUS_PORT, LINE_PORT, TEST_DEVICE_LINES, &line_ports},
    {BUS_MMIO, MEMORY_BASE, MEMORY_SIZE, &memory_ops},
};

static void lower_lines(struct test_device *d)
{
    for (unsigned n = 0; n < TEST_DEVICE_LINES; n++)
        if (d->raised >> n & 1)
            set_line(d, n, false);
}

static void test_device_reset(struct dev *dev)
{
    struct test_device *d = container_of(dev, struct test_device, dev);

    lower_lines(d);
    memset(d->echo, 0, sizeof(d->echo));
    memset(d->memory, 0, sizeof(d->memory));
}

/* The interrupt controllers keep the levels of their pins themselves. */
static void test_device_state(struct dev *dev, struct state *s)
{
    struct test_device *d = container_of(dev, struct test_device, dev);

    state_section(s, "test_device", 0, 1);
    state_field(s, d->raised);
    state_bytes(s, d->echo, sizeof(d->echo));
    state_bytes(s, d->memory, sizeof(d->memory));
    d->raised &= (1u << TEST_DEVICE_LINES) - 1;
}

static void release(struct test_device *d, unsigned count)
{
    while (count-- > 0)
        bus_release(d->bus, ranges[count].space, ranges[count].base);
    free(d);
}

static void test_device_free(struct dev *dev)
{
    release(container_of(dev, struct test_device, dev), ARRAY_SIZE(ranges));
}

static const struct dev_ops test_device_ops = {.name = "test_device",
                                               .reset = test_device_reset,
                                               .state = test_device_state,
                                               .free = test_device_free};

struct dev *test_device_create(struct bus *bus, void (*lines)(void *opaque, unsigned n, bool level),
                               void *opaque, struct error *err)
{
    struct test_device *d = calloc(1, sizeof(*d));

    if (!d) {
        error_set(err, ENOMEM, "no memory for the test device");
        return NULL;
    }
    d->dev.ops = &test_device_ops;
    d->bus = bus;
    d->lines = lines;
    d->opaque = opaque;
    for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
        if (bus_claim(bus, ranges[i].space, ranges[i].base, ranges[i].size, "test device",
                      ranges[i].ops, d, err) < 0) {
            release(d, i);
            return NULL;
        }
    }
    return &d->dev;
}

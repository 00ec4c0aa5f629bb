/*
 * The debug exit port, as test kernels know it from QEMU's isa-debug-exit.
 */
#include "dev/pc/debug_exit.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

#define PORT  0xF4
#define PORTS 4

struct debug_exit {
    struct dev dev;
    struct bus *bus;
    void (*exit)(void *opaque, int status);
    void *opaque;
};

static uint64_t debug_exit_read(void *dev, uint64_t offset, unsigned size)
{
    return 0;
}

static void debug_exit_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct debug_exit *d = dev;

    d->exit(d->opaque, (int)((value << 1 | 1) & INT32_MAX));
}

static const struct bus_ops debug_exit_ports = {
    .read = debug_exit_read, .write = debug_exit_write, .max_size = 4};

static void debug_exit_reset(struct dev *dev)
{
}

static void debug_exit_state(struct dev *dev, struct state *s)
{
    state_section(s, "debug_exit", 0, 1);
}

static void debug_exit_free(struct dev *dev)
{
    struct debug_exit *d = container_of(dev, struct debug_exit, dev);

    bus_release(d->bus, BUS_PORT, PORT);
    free(d);
}

static const struct dev_ops debug_exit_ops = {.name = "debug_exit",
                                              .reset = debug_exit_reset,
                                              .state = debug_exit_state,
                                              .free = debug_exit_free};

struct dev *debug_exit_create(struct bus *bus, void (*exit)(void *opaque, int status), void *opaque,
                              struct error *err)
{
    struct debug_exit *d = calloc(1, sizeof(*d));

    if (!d) {
        error_set(err, ENOMEM, "no memory for the debug exit port");
        return NULL;
    }
    *d =
        (struct debug_exit){.dev.ops = &debug_exit_ops, .bus = bus, .exit = exit, .opaque = opaque};
    if (bus_claim(bus, BUS_PORT, PORT, PORTS, "debug exit", &debug_exit_ports, d, err) < 0) {
        free(d);
        return NULL;
    }
    return &d->dev;
}

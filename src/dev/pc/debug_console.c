/*
 * The debug console, as known from Bochs.
 */
#include "dev/pc/debug_console.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

#define PORT 0xE9

struct debug_console {
    struct dev dev;
    struct bus *bus;
    struct burst *burst;
};

static uint64_t debug_console_read(void *dev, uint64_t offset, unsigned size)
{
    return PORT;
}

static void debug_console_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct debug_console *d = dev;

    if (burst_put(d->burst, (uint8_t)value))
        bus_hold(d->bus);
}

static const struct bus_ops debug_console_ports = {.read = debug_console_read,
                                                   .write = debug_console_write};

void debug_console_flush(struct dev *dev)
{
    burst_flush(container_of(dev, struct debug_console, dev)->burst);
}

bool debug_console_full(struct dev *dev)
{
    return burst_full(container_of(dev, struct debug_console, dev)->burst);
}

static void debug_console_state(struct dev *dev, struct state *s)
{
    debug_console_flush(dev);
    state_section(s, "debug_console", 0, 1);
}

static void debug_console_free(struct dev *dev)
{
    struct debug_console *d = container_of(dev, struct debug_console, dev);

    bus_release(d->bus, BUS_PORT, PORT);
    burst_free(d->burst);
    free(d);
}

static const struct dev_ops debug_console_ops = {.name = "debug_console",
                                                 .reset = debug_console_flush,
                                                 .state = debug_console_state,
                                                 .free = debug_console_free};

struct dev *debug_console_create(struct bus *bus, struct clock *clock,
                                 const struct burst_backend *backend, struct error *err)
{
    struct debug_console *d = calloc(1, sizeof(*d));

    if (!d || !(d->burst = burst_create(clock, backend))) {
        free(d);
        error_set(err, ENOMEM, "no memory for the debug console");
        return NULL;
    }
    d->dev.ops = &debug_console_ops;
    d->bus = bus;
    if (bus_claim(bus, BUS_PORT, PORT, 1, "debug console", &debug_console_ports, d, err) < 0) {
        burst_free(d->burst);
        free(d);
        return NULL;
    }
    return &d->dev;
}

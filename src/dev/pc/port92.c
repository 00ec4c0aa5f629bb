/*
 * System control port A (Intel 82371SB data sheet, 2.5.4.3).
 */
#include "dev/pc/port92.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

#define PORT       0x92
#define FAST_RESET 0x01
#define FAST_A20   0x02

struct port92 {
    struct dev dev;
    struct bus *bus;
    struct irq_line reset;
    uint8_t value;
};

static uint64_t port92_read(void *dev, uint64_t offset, unsigned size)
{
    return ((struct port92 *)dev)->value;
}

/* Addresses are never masked, as on processors that have no A20M# pin any more; the bit only
 * remembers what was asked for. */
static void port92_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct port92 *p = dev;
    bool pulse = (value & FAST_RESET) && !(p->value & FAST_RESET);

    p->value = value & (FAST_A20 | FAST_RESET);
    if (pulse)
        irq_set(&p->reset, true);
}

static const struct bus_ops port92_ports = {.read = port92_read, .write = port92_write};

static void port92_reset(struct dev *dev)
{
    container_of(dev, struct port92, dev)->value = FAST_A20;
}

static void port92_state(struct dev *dev, struct state *s)
{
    state_section(s, "port92", 0, 1);
    state_field(s, container_of(dev, struct port92, dev)->value);
}

static void port92_free(struct dev *dev)
{
    struct port92 *p = container_of(dev, struct port92, dev);

    bus_release(p->bus, BUS_PORT, PORT);
    free(p);
}

static const struct dev_ops port92_ops = {
    .name = "port92", .reset = port92_reset, .state = port92_state, .free = port92_free};

struct dev *port92_create(struct bus *bus, struct irq_line reset, struct error *err)
{
    struct port92 *p = calloc(1, sizeof(*p));

    if (!p) {
        error_set(err, ENOMEM, "no memory for port 92h");
        return NULL;
    }
    *p = (struct port92){.dev.ops = &port92_ops, .bus = bus, .reset = reset, .value = FAST_A20};
    if (bus_claim(bus, BUS_PORT, PORT, 1, "port 92h", &port92_ports, p, err) < 0) {
        free(p);
        return NULL;
    }
    return &p->dev;
}
